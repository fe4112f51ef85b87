//! `[auth] users_file`: who may log in, and what they are checked against, in PgBouncer's form: `"user" "secret"`, one in each line.
use super::passfile;
use pgshadow_proxy::Secret;
use pgshadow_wire::scram::Verifier;
use std::collections::HashMap;
use std::path::Path;

/// Users and their secrets.
pub type Users = HashMap<Vec<u8>, Secret>;

/// Reads the file, which must be its owner's alone.
///
/// # Errors
/// Why it can't be used, with its path.
pub fn read(path: &Path) -> Result<Users, String> {
    let text = passfile::read_private(path).map_err(|reason| format!("names {}, which {reason}", path.display()))?;
    parse(&text).map_err(|reason| format!("{}, {reason}", path.display()))
}

/// Reads the file's text. Two quotes in quotes are one; what stands behind the secret is ignored, like lines that begin with `;` or are empty.
///
/// # Errors
/// The number of the line and what is wrong with it; never the secret.
fn parse(text: &str) -> Result<Users, String> {
    let mut users = Users::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", index + 1);
        let form = "a line is \"user\" \"secret\", both in double quotes";
        let (user, rest) = quoted(line).ok_or_else(|| wrong(form))?;
        let (secret, _) = quoted(rest.trim_start()).ok_or_else(|| wrong(form))?;
        if user.is_empty() {
            return Err(wrong("the user has no name"));
        }
        let secret = self::secret(&secret).map_err(|what| wrong(&format!("user \"{user}\": {what}")))?;
        if users.insert(user.clone().into_bytes(), secret).is_some() {
            return Err(wrong(&format!("user \"{user}\" stands there twice")));
        }
    }
    Ok(users)
}

/// What a password, or a verifier as PostgreSQL keeps it, is to pgshadow.
///
/// # Errors
/// What is wrong with it.
pub fn secret(text: &str) -> Result<Secret, &'static str> {
    if text.starts_with("SCRAM-SHA-256$") {
        return Verifier::parse(text)
            .map(Secret::Verifier)
            .ok_or("its SCRAM verifier can't be read: copy pg_authid.rolpassword whole");
    }
    if is_md5(text) {
        return Err(
            "an md5 hash can't be used, since a client is asked for SCRAM: set the password anew with password_encryption = 'scram-sha-256', or write the password itself",
        );
    }
    if text.is_empty() {
        return Err("it has no secret");
    }
    let verifier = Verifier::of_password(text.as_bytes()).ok_or("no verifier can be made of its password")?;
    Ok(Secret::Password(text.as_bytes().to_vec(), verifier))
}

fn is_md5(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What stands in quotes at the front, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut out = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        out.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None => return Some((out, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncer_s_form() {
        let verifier = Verifier::of_password(b"x").unwrap();
        let text = format!("; comment\n\n\"app\" \"{verifier}\"\n  \"od\"\"d \" \"pass\"\"word\" more\n");
        let users = parse(&text).unwrap();
        assert_eq!(users.get(&b"app"[..]), Some(&Secret::Verifier(verifier)));
        assert!(matches!(users.get(&b"od\"d "[..]), Some(Secret::Password(password, _)) if password == b"pass\"word"));
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is() {
        for (text, part) in [
            ("app secret", "line 1: a line is"),
            ("\n\"app\" \"", "line 2: a line is"),
            ("\"app\" \"\"", "user \"app\": it has no secret"),
            ("\"app\" \"md50123456789abcdef0123456789abcdef\"", "an md5 hash can't be used"),
            ("\"app\" \"SCRAM-SHA-256$4096:broken\"", "its SCRAM verifier can't be read"),
            ("\"app\" \"one\"\n\"app\" \"two\"", "line 2: user \"app\" stands there twice"),
            ("\"\" \"secret\"", "the user has no name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("0123456789abcdef") && !error.contains("broken"), "{error}");
        }
    }
}
