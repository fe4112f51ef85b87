//! The rights of pgshadow's own role, by phase: which ones it lacks, and all of them as SQL.
use crate::error::Error;
use crate::facts::Facts;
use crate::finding::Level;
use crate::pair::USERS;
use crate::server::Server;
use crate::words::literal;
use pgshadow_model::{Place, QualifiedName, quote};
use std::fmt::Write as _;
use tokio_postgres::Client;

/// When a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Backfill, mirroring, verify.
    Mirroring,
    /// Cutover, and the mirror back.
    Cutover,
}

impl Phase {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Mirroring => "backfill, mirroring and verify",
            Self::Cutover => "cutover and the mirror back",
        }
    }

    pub(crate) fn level(self) -> Level {
        match self {
            Self::Mirroring => Level::Block,
            Self::Cutover => Level::Warn,
        }
    }
}

/// Whether a load fails without a right.
#[derive(Debug, Clone)]
pub(crate) enum InLoadsWay {
    No,
    Yes,
    /// A load of one of these.
    Of(Vec<QualifiedName>),
}

/// A right of pgshadow's role.
#[derive(Debug)]
pub(crate) struct Right {
    pub(crate) phase: Phase,
    pub(crate) why: String,
    /// Gives it.
    pub(crate) statement: String,
    pub(crate) in_loads_way: InLoadsWay,
    /// True where the role has it.
    test: String,
}

/// The rights that the role lacks.
pub(crate) async fn missing(server: &Server<'_>, facts: &Facts) -> Result<Vec<Right>, Error> {
    let mut lacking = Vec::new();
    for right in rights(server, facts).await? {
        if !server.value::<bool>(&right.test).await? {
            lacking.push(right);
        }
    }
    Ok(lacking)
}

/// SQL for psql, as a superuser of each server, that gives pgshadow's role all its rights.
///
/// # Errors
/// When a server can't be asked.
pub async fn grants(source: &Client, target: &Client, facts: &Facts) -> Result<String, Error> {
    let mut text = "\\set ON_ERROR_STOP on\n".to_owned();
    for (client, place, at) in [(source, Place::Source, &facts.source), (target, Place::Target, &facts.target)] {
        let server = Server::new(client, place).await?;
        let _ = writeln!(text, "\n-- The {}.", crate::error::word(place));
        // psql takes a quote within quotes twice; the user stays the one that psql was started as.
        let _ = writeln!(text, "\\connect -reuse-previous=on {}", literal(&without_user(at)));
        let mut phase = None;
        for right in rights(&server, facts).await? {
            if phase != Some(right.phase) {
                let _ = writeln!(text, "-- For {}.", right.phase.word());
                phase = Some(right.phase);
            }
            let _ = writeln!(text, "{}", right.statement);
        }
    }
    Ok(text)
}

/// A connection string without its user.
fn without_user(at: &str) -> String {
    at.split_inclusive(' ').filter(|pair| !pair.starts_with("user=")).collect::<String>().trim_end().to_owned()
}

/// Of `pg_class c` and its namespace `n`, the tables that are mirrored, or loaded.
fn among(facts: &Facts) -> String {
    let list = |tables: &[QualifiedName]| {
        let named = |table: &QualifiedName| format!("({}, {})", literal(&table.schema), literal(&table.name));
        tables.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    let mut text = String::new();
    if !facts.excluded.is_empty() {
        text.push_str(&format!("(n.nspname, c.relname) NOT IN ({}) AND ", list(&facts.excluded)));
    }
    if !facts.tables.is_empty() {
        text.push_str(&format!("(n.nspname, c.relname) IN ({}) AND ", list(&facts.tables)));
    }
    text
}

/// All rights that are needed on one side.
async fn rights(server: &Server<'_>, facts: &Facts) -> Result<Vec<Right>, Error> {
    if server.superuser {
        return Ok(Vec::new());
    }
    let role = quote(&server.role);
    let database = quote(&server.database);
    let mut rights = Vec::new();
    let mut add = |in_loads_way, phase, why: &str, statement: String, test: String| {
        rights.push(Right { phase, why: why.to_owned(), statement, in_loads_way, test });
    };
    let among = among(facts);
    let on_source = server.place == Place::Source;
    let writing = if on_source { Phase::Cutover } else { Phase::Mirroring };
    let may = |what: &str| {
        format!("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), {})", literal(what))
    };
    let is_member = |of: &str| format!("SELECT pg_catalog.pg_has_role({}, 'USAGE')", literal(of));

    add(
        InLoadsWay::Yes,
        Phase::Mirroring,
        "it logs in",
        format!("GRANT CONNECT ON DATABASE {database} TO {role};"),
        may("CONNECT"),
    );
    add(
        InLoadsWay::No,
        Phase::Mirroring,
        "it sees other sessions",
        format!("GRANT pg_monitor TO {role};"),
        is_member("pg_monitor"),
    );
    let unread = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {among}c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND"
    );
    if on_source {
        if server.version >= 140_000 {
            let test = format!(
                "{unread} {USERS} AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')))"
            );
            add(
                InLoadsWay::Yes,
                Phase::Mirroring,
                "it reads all tables",
                format!("GRANT pg_read_all_data TO {role};"),
                test,
            );
        } else {
            for schema in schemas(server).await? {
                let (named, text) = (quote(&schema), literal(&schema));
                let test = format!(
                    "{unread} n.nspname = {text} AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')))"
                );
                let statement = format!(
                    "GRANT USAGE ON SCHEMA {named} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {named} TO {role};"
                );
                add(
                    InLoadsWay::Yes,
                    Phase::Mirroring,
                    &format!("it reads the tables of schema {schema}"),
                    statement,
                    test,
                );
            }
        }
    }
    let written = |tables: Option<Vec<QualifiedName>>| match tables {
        _ if on_source => InLoadsWay::No,
        Some(tables) => InLoadsWay::Of(tables),
        None => InLoadsWay::Yes,
    };
    add(
        written(None),
        writing,
        "it keeps the applied position in a schema of its own",
        format!("GRANT CREATE ON DATABASE {database} TO {role};"),
        may("CREATE"),
    );
    let owners = format!(
        "SELECT r.rolname::text, r.rolsuper, coalesce(pg_catalog.array_agg(n.nspname::text) FILTER (WHERE c.relkind IN ('r', 'p')), ARRAY[]::text[]),
          coalesce(pg_catalog.array_agg(c.relname::text) FILTER (WHERE c.relkind IN ('r', 'p')), ARRAY[]::text[])
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_roles r ON r.oid = c.relowner WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
        AND {USERS} AND r.rolname <> session_user GROUP BY 1, 2 ORDER BY 1"
    );
    for row in server.rows(&owners).await? {
        let (owner, superuser): (String, bool) = (server.get(&row, 0)?, server.get(&row, 1)?);
        let (of, names): (Vec<String>, Vec<String>) = (server.get(&row, 2)?, server.get(&row, 3)?);
        let owned: Vec<_> = of.iter().zip(&names).map(|(schema, name)| QualifiedName::new(schema, name)).collect();
        if !superuser {
            let why = format!("it writes, truncates and redefines what {owner} owns");
            add(written(Some(owned)), writing, &why, format!("GRANT {} TO {role};", quote(&owner)), is_member(&owner));
            continue;
        }
        for schema in schemas(server).await? {
            let (named, text) = (quote(&schema), literal(&schema));
            let there = owned.iter().filter(|table| table.schema == schema).cloned().collect();
            let owned = format!(
                "n.nspname = {text} AND c.relowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = {})",
                literal(&owner)
            );
            if server.value::<bool>(&format!("{unread} {owned})")).await? {
                continue;
            }
            let test = format!("{unread} {owned} AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                AND pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE')
                AND pg_catalog.has_table_privilege(c.oid, 'TRUNCATE')))");
            let statement = format!(
                "GRANT USAGE ON SCHEMA {named} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {named} TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {named} TO {role};"
            );
            let why = format!(
                "it writes tables of the superuser {owner} in schema {schema} (definitions of them can't be repeated: give them another owner)"
            );
            add(written(Some(there)), writing, &why, statement, test);
        }
    }
    if server.version >= 150_000 {
        let test = "SELECT pg_catalog.has_parameter_privilege('session_replication_role', 'SET')".to_owned();
        // A load says itself which tables it can't write without it.
        add(
            InLoadsWay::No,
            writing,
            "it writes past triggers and foreign keys",
            format!("GRANT SET ON PARAMETER session_replication_role TO {role};"),
            test,
        );
    }
    let secured = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE {among}c.relkind IN ('r', 'p') AND c.relrowsecurity AND pg_catalog.row_security_active(c.oid))"
    );
    let any: bool = server
        .value("SELECT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity)")
        .await?;
    if any {
        add(
            InLoadsWay::Yes,
            Phase::Mirroring,
            "it sees all rows of tables with row-level security",
            format!("ALTER ROLE {role} BYPASSRLS;"),
            secured,
        );
    }
    let owner: String = server
        .value("SELECT r.rolname::text FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba WHERE d.datname = pg_catalog.current_database()")
        .await?;
    let owner_is_super: bool = server
        .value(&format!("SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = {}", literal(&owner)))
        .await?;
    if !owner_is_super && owner != server.role {
        let why = "it takes and gives back the right to connect";
        add(InLoadsWay::No, Phase::Cutover, why, format!("GRANT {} TO {role};", quote(&owner)), is_member(&owner));
    } else if owner_is_super {
        let why =
            format!("it takes and gives back the right to connect, as the database's owner; {owner} is a superuser");
        add(
            InLoadsWay::No,
            Phase::Cutover,
            &why,
            format!("ALTER DATABASE {database} OWNER TO {role};"),
            is_member(&owner),
        );
    }
    add(
        InLoadsWay::No,
        Phase::Cutover,
        "it ends sessions that are left",
        format!("GRANT pg_signal_backend TO {role};"),
        is_member("pg_signal_backend"),
    );
    rights.sort_by_key(|right| right.phase);
    Ok(rights)
}

async fn schemas(server: &Server<'_>) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT n.nspname::text FROM pg_catalog.pg_namespace n WHERE {USERS} ORDER BY 1");
    server.values(&sql).await
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn the_user_of_psql_stays() {
        assert_eq!(without_user("host=a port=1 user=pgshadow dbname=app"), "host=a port=1 dbname=app");
        assert_eq!(without_user("host=a user=pgshadow"), "host=a");
    }
}
