//! Clients are kept off a database that isn't the primary any more, and let in again: rights to connect are taken from everybody but pgshadow's
//! own role, and transactions of who is there all the same begin read-only.
//!
//! `default_transaction_read_only` alone keeps nobody off, since every client may override it; superusers can't be kept off.
use super::super::primary::answered;
use crate::config::Database;
use pgshadow_cutover::Rights;
use pgshadow_model::quote;
use tokio_postgres::Client;

const CONNECT: &str = "
SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee)::pg_catalog.text END, a.is_grantable,
       pg_catalog.pg_get_userbyid(a.grantee) OPERATOR(pg_catalog.=) CURRENT_USER
FROM pg_catalog.pg_database d, pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND a.privilege_type OPERATOR(pg_catalog.=) 'CONNECT' ORDER BY 1 NULLS FIRST";
/// Of the database, and of the own role in it.
const READ_ONLY: &str = "
SELECT s.setrole OPERATOR(pg_catalog.=) 0, pg_catalog.split_part(c.one, '=', 2)
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase, pg_catalog.unnest(s.setconfig) AS c (one)
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND pg_catalog.split_part(c.one, '=', 1) OPERATOR(pg_catalog.=) 'default_transaction_read_only'
  AND (s.setrole OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_get_userbyid(s.setrole) OPERATOR(pg_catalog.=) CURRENT_USER)";
/// Clients of this database whose role isn't pgshadow's.
const OTHERS: &str = "
FROM pg_catalog.pg_stat_activity WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
  AND NOT usename OPERATOR(pg_catalog.=) CURRENT_USER AND backend_type OPERATOR(pg_catalog.=) 'client backend'";
/// Whether the role may do all of that, and who can't be kept off.
const MAY: &str = "
SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') OR r.rolsuper, r.rolsuper OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'),
  (SELECT pg_catalog.string_agg(s.rolname::pg_catalog.text, ', ' ORDER BY s.rolname) FROM pg_catalog.pg_roles s
   WHERE s.rolsuper AND s.rolcanlogin AND NOT s.rolname OPERATOR(pg_catalog.=) CURRENT_USER)
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND r.rolname OPERATOR(pg_catalog.=) CURRENT_USER";

/// What pgshadow's role may do about the others.
pub(super) struct May {
    /// It owns the database, or is a member of its owner, or a superuser.
    pub owns: bool,
    /// It may end others' sessions.
    pub signals: bool,
    /// Who can't be kept off.
    pub superusers: Option<String>,
}

pub(super) async fn may(client: &Client) -> Result<May, String> {
    let row = answered(client.query_one(MAY, &[])).await.map_err(|error| error.to_string())?;
    Ok(May { owns: row.get(0), signals: row.get(1), superusers: row.get(2) })
}

/// What clients may do there now.
pub(super) async fn rights(client: &Client) -> Result<Rights, String> {
    let failed = |error: super::super::primary::Unanswered| format!("rights to connect can't be read: {error}");
    let mut rights = Rights::default();
    for row in answered(client.query(CONNECT, &[])).await.map_err(failed)? {
        rights.connect.push((row.get(0), row.get(1)));
    }
    for row in answered(client.query(READ_ONLY, &[])).await.map_err(failed)? {
        let value: String = row.get(1);
        *(if row.get(0) { &mut rights.read_only } else { &mut rights.own_read_only }) = Some(value);
    }
    Ok(rights)
}

/// Keeps clients off whose rights of before these are. Can be repeated.
pub(super) async fn fence(client: &Client, database: &Database, rights: &Rights) -> Result<(), String> {
    let (name, own) = (quote(&database.name), quote(&database.user));
    let mut sql = format!(
        "ALTER ROLE {own} IN DATABASE {name} SET default_transaction_read_only = off; \
         ALTER DATABASE {name} SET default_transaction_read_only = on; GRANT CONNECT ON DATABASE {name} TO {own}; "
    );
    for (grantee, _) in rights.connect.iter().filter(|(grantee, _)| grantee.as_ref() != Some(&database.user)) {
        let grantee = grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| quote(role));
        sql.push_str(&format!("REVOKE CONNECT ON DATABASE {name} FROM {grantee} CASCADE; "));
    }
    let failed = |error: String| format!("clients can't be kept off {}/{}: {error}", database.server, database.name);
    answered(client.batch_execute(&sql)).await.map_err(|error| failed(error.to_string()))?;
    // what the role isn't allowed to take is only warned of
    let rows = answered(client.query(CONNECT, &[])).await.map_err(|error| failed(error.to_string()))?;
    let left: Vec<String> = rows
        .iter()
        .filter(|row| !row.get::<_, bool>(2))
        .map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "PUBLIC".to_owned()))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(failed(format!("{} may still connect; the role {} must own the database", left.join(", "), database.user)))
}

/// Gives clients what they had. Can be repeated.
pub(super) async fn unfence(client: &Client, database: &Database, rights: &Rights) -> Result<(), String> {
    let failed = |error: String| {
        format!("clients can't be given back their rights on {}/{}: {error}", database.server, database.name)
    };
    let (name, own) = (quote(&database.name), quote(&database.user));
    // a role that was dropped since needs none
    let roles: Vec<&str> = rights.connect.iter().filter_map(|(role, _)| role.as_deref()).collect();
    let there = "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]::pg_catalog.name[])";
    let rows = answered(client.query(there, &[&roles])).await.map_err(|error| failed(error.to_string()))?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut sql = String::new();
    let set = |of: String, value: &Option<String>| match value {
        Some(value) => {
            let on = matches!(value.as_str(), "on" | "true" | "yes" | "1" | "t" | "y");
            format!("{of} SET default_transaction_read_only = {}; ", if on { "on" } else { "off" })
        }
        None => format!("{of} RESET default_transaction_read_only; "),
    };
    sql.push_str(&set(format!("ALTER DATABASE {name}"), &rights.read_only));
    for (grantee, grantable) in &rights.connect {
        if grantee.as_ref().is_some_and(|role| !there.contains(role)) {
            tracing::warn!(role = grantee, "a role that might connect is gone: it gets no right back");
            continue;
        }
        let grantee = grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| quote(role));
        let option = if *grantable { " WITH GRANT OPTION" } else { "" };
        sql.push_str(&format!("GRANT CONNECT ON DATABASE {name} TO {grantee}{option}; "));
    }
    if !rights.connect.iter().any(|(grantee, _)| grantee.as_ref() == Some(&database.user)) {
        sql.push_str(&format!("REVOKE CONNECT ON DATABASE {name} FROM {own}; "));
    }
    sql.push_str(&set(format!("ALTER ROLE {own} IN DATABASE {name}"), &rights.own_read_only));
    answered(client.batch_execute(&sql)).await.map_err(|error| failed(error.to_string()))
}

/// Ends the sessions of everybody else there, one by one; gives how many could not be ended.
pub(super) async fn end_others(client: &Client) -> Result<u64, String> {
    let rows = answered(client.query(&format!("SELECT pid {OTHERS}"), &[])).await.map_err(|error| error.to_string())?;
    let mut left = 0;
    for row in rows {
        // of a superuser's, or without the right to, this is an error
        let ended =
            answered(client.query_one("SELECT pg_catalog.pg_terminate_backend($1)", &[&row.get::<_, i32>(0)])).await;
        left += u64::from(ended.is_err());
    }
    Ok(left)
}
