//! The password file, as libpq reads it: `host:port:database:user:password`, the first line that fits, `*` fits all.
use super::connection::Server;
use std::path::{Path, PathBuf};

/// The password for these, if the file has a line for them.
///
/// An explicitly named file must be readable and private. The default one (`PGPASSFILE`, else `~/.pgpass`) may be
/// missing, and is left alone with a warning when others can read it.
pub(super) fn password(
    explicit: Option<&Path>,
    variables: &[(String, String)],
    server: &Server,
    database: &str,
    user: &str,
) -> Result<Option<String>, String> {
    let Some(path) = explicit.map(Path::to_owned).or_else(|| default_path(variables)) else { return Ok(None) };
    match read_private(&path) {
        Ok(text) => Ok(find(&text, server, database, user)),
        Err(reason) if explicit.is_some() => Err(format!("has a passfile {} that {reason}", path.display())),
        Err(reason) => {
            if path.exists() {
                tracing::warn!("the password file {} is not used: it {reason}", path.display());
            }
            Ok(None)
        }
    }
}

fn default_path(variables: &[(String, String)]) -> Option<PathBuf> {
    let variable = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    variable("PGPASSFILE").map(PathBuf::from).or_else(|| variable("HOME").map(|home| Path::new(home).join(".pgpass")))
}

/// The text, or why it isn't used.
pub(super) fn read_private(path: &Path) -> Result<String, String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(path).map_err(|e| format!("can't be read: {e}"))?;
        if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            return Err("others can read: chmod 0600 it".to_owned());
        }
    }
    std::fs::read_to_string(path).map_err(|e| format!("can't be read: {e}"))
}

fn find(text: &str, server: &Server, database: &str, user: &str) -> Option<String> {
    let (host, port) = match server {
        Server::Tcp { host, port } => (host.as_str(), *port),
        Server::Unix { port, .. } => ("localhost", *port),
    };
    let wanted = [host, &port.to_string(), database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [names @ .., password] = fields.as_slice() else { return None };
        let fits = names.len() == wanted.len()
            && names.iter().zip(wanted).all(|((raw, name), wanted)| raw == "*" || name == wanted);
        fits.then(|| password.1.clone())
    })
}

/// The five fields, each as written and with its backslashes taken out; a colon in the password needs none.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields = vec![(String::new(), String::new())];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let count = fields.len();
        let Some((raw, plain)) = fields.last_mut() else { break };
        match character {
            ':' if count < 5 => fields.push((String::new(), String::new())),
            '\\' => {
                raw.push('\\');
                plain.extend(characters.next());
            }
            other => {
                raw.push(other);
                plain.push(other);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n\
        old-db:5432:app:pgshadow:first\n\
        *:5433:app:pgshadow:with\\:colon\\\\:and:more\n\
        localhost:*:*:*:socket\n";

    fn tcp(port: u16) -> Server {
        Server::Tcp { host: "old-db".into(), port }
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        assert_eq!(find(FILE, &tcp(5432), "app", "pgshadow").as_deref(), Some("first"));
        assert_eq!(find(FILE, &tcp(5433), "app", "pgshadow").as_deref(), Some("with:colon\\:and:more"));
        assert_eq!(find(FILE, &tcp(5432), "other", "pgshadow"), None);
    }

    #[test]
    fn a_socket_is_called_localhost() {
        let socket = Server::Unix { directory: "/tmp".into(), port: 7 };
        assert_eq!(find(FILE, &socket, "app", "x").as_deref(), Some("socket"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), FILE).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let explicit = password(Some(file.path()), &[], &tcp(5432), "app", "pgshadow");
        assert!(explicit.unwrap_err().contains("chmod 0600"));
        let variables = [("PGPASSFILE".to_owned(), file.path().display().to_string())];
        assert_eq!(password(None, &variables, &tcp(5432), "app", "pgshadow"), Ok(None));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password(None, &variables, &tcp(5432), "app", "pgshadow"), Ok(Some("first".into())));
    }
}
