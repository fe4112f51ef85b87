//! Settings of the database and of roles (ALTER DATABASE, ALTER ROLE ... SET) that differ.
use super::Found;
use super::roles;
use crate::error::Error;
use crate::finding::Finding;
use crate::pair::Pair;
use crate::server::Server;
use crate::words::{literal, name};
use pgshadow_model::{Place, quote};
use std::collections::BTreeMap;

/// Whose it is: whether of this database only, and of which role (none: of all).
type Whose = (bool, String);

/// Settings whose values are lists of names, each quoted by itself.
const LISTS: [&str; 6] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
    "unix_socket_directories",
];
/// pgshadow's own: it keeps clients off the database that isn't the primary any more.
const OWN: &str = "default_transaction_read_only";

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let (source, target) = (settings(&pair.source).await?, settings(&pair.target).await?);
    let (used, there) = (roles::used(&pair.source).await?, roles::known(&pair.target).await?);
    let known: Vec<String> = pair.target.values("SELECT s.name FROM pg_catalog.pg_settings s").await?;
    let is_known = |setting: &str| setting.contains('.') || known.iter().any(|one| one.eq_ignore_ascii_case(setting));
    let is_compared = |((_, role), setting): &(Whose, String)| {
        let concerns = role.is_empty() || used.contains(role) && there.contains_key(role) && !pair.is_own(role);
        concerns && setting != OWN
    };
    let mut found = Vec::new();
    for (key, value) in source.iter().filter(|(key, _)| is_compared(key)) {
        let ((_, role), setting) = key;
        let alter = alter(pair, &key.0);
        let subject = subject(pair, role);
        let theirs = target.get(key);
        if theirs == Some(value) {
            continue;
        }
        let on_target = theirs.map_or("not set".to_owned(), |value| shown(value));
        let happens = format!("{setting} is {} for it on the source and {on_target} on the target", shown(value));
        found.push(if is_known(setting) {
            let happens = format!("{happens}: sessions act otherwise after the flip");
            let mend = format!("{alter} SET {} TO {};", named(setting), written(setting, value));
            Finding::warn(Place::Target, subject, happens).mend(mend)
        } else {
            Finding::note(Place::Target, subject, format!("{happens}, whose server doesn't know it"))
        });
    }
    for (key, value) in target.iter().filter(|(key, _)| is_compared(key) && !source.contains_key(key)) {
        let ((_, role), setting) = key;
        let happens = format!(
            "{setting} is {} for it on the target and not set on the source: sessions act otherwise after the flip",
            shown(value)
        );
        let mend = format!("{} RESET {};", alter(pair, &key.0), named(setting));
        found.push(Finding::warn(Place::Target, subject(pair, role), happens).mend(mend));
    }
    Ok(found)
}

fn subject(pair: &Pair<'_>, role: &str) -> String {
    if role.is_empty() { name(&pair.target.database) } else { name(role) }
}

fn alter(pair: &Pair<'_>, (of_database, role): &Whose) -> String {
    let database = quote(&pair.target.database);
    match (role.as_str(), of_database) {
        ("", true) => format!("ALTER DATABASE {database}"),
        ("", false) => "ALTER ROLE ALL".to_owned(),
        (role, true) => format!("ALTER ROLE {} IN DATABASE {database}", quote(role)),
        (role, false) => format!("ALTER ROLE {}", quote(role)),
    }
}

/// By whom and name.
async fn settings(server: &Server<'_>) -> Result<BTreeMap<(Whose, String), String>, Error> {
    let sql = "SELECT s.setdatabase <> 0, coalesce(r.rolname, '')::text, pg_catalog.split_part(c.one, '=', 1),
          pg_catalog.substr(c.one, pg_catalog.strpos(c.one, '=') + 1)
        FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, pg_catalog.unnest(s.setconfig) AS c (one)
        WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
          AND (s.setrole = 0 OR r.oid IS NOT NULL)";
    let read = |row| {
        let whose = (server.get(row, 0)?, server.get(row, 1)?);
        Ok(((whose, server.get(row, 2)?), server.get(row, 3)?))
    };
    server.rows(sql).await?.iter().map(read).collect()
}

/// The name of a setting as SQL: with its prefix, if it has one.
fn named(setting: &str) -> String {
    setting.split('.').map(quote).collect::<Vec<_>>().join(".")
}

/// A value as SET takes it.
fn written(setting: &str, value: &str) -> String {
    if !LISTS.iter().any(|list| list.eq_ignore_ascii_case(setting)) {
        return literal(value);
    }
    let elements: Vec<String> = elements(value).iter().map(|element| literal(element)).collect();
    if elements.is_empty() { "''".to_owned() } else { elements.join(", ") }
}

/// The names in a list of them, of which some are quoted.
fn elements(list: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                element.push('"');
            }
            '"' => (quoted, any) = (!quoted, true),
            ',' if !quoted => {
                elements.push(std::mem::take(&mut element));
                any = false;
            }
            space if space.is_whitespace() && !quoted => {}
            other => {
                element.push(other);
                any = true;
            }
        }
    }
    if any {
        elements.push(element);
    }
    elements
}

fn shown(value: &str) -> String {
    if value.is_empty() { "empty".to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_written_one_by_one() {
        assert_eq!(written("search_path", "\"$user\", app, \"Odd \"\"s, one\""), "'$user', 'app', 'Odd \"s, one'");
        assert_eq!(written("search_path", "\"\""), "''");
        assert_eq!(written("search_path", ""), "''");
        assert_eq!(written("work_mem", "4MB, or so"), "'4MB, or so'");
        assert_eq!(named("my.Own"), "\"my\".\"Own\"");
    }
}
