//! Foreign servers, users there, and foreign tables: only their definitions are the database's own.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use crate::words::{name, shell, shown};
use pgshadow_model::Place;

/// Options as SQL.
fn options(of: &str) -> String {
    format!(
        "(SELECT ' OPTIONS (' || pg_catalog.string_agg(pg_catalog.format('%I %L', o.option_name, o.option_value), ', ' ORDER BY o.option_name) || ')'
        FROM pg_catalog.pg_options_to_table({of}) AS o)"
    )
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut found = servers(pair).await?;
    found.extend(users(pair).await?);
    found.extend(tables(pair).await?);
    Ok(found)
}

async fn servers(pair: &Pair<'_>) -> Found {
    let all = options("s.srvoptions");
    let sql = format!(
        "SELECT ARRAY[s.srvname::text], coalesce({all}, ''), pg_catalog.format('CREATE SERVER %I%s%s FOREIGN DATA WRAPPER %I%s; ALTER SERVER %I OWNER TO %I;',
            s.srvname, ' TYPE ' || pg_catalog.quote_literal(s.srvtype), ' VERSION ' || pg_catalog.quote_literal(s.srvversion), w.fdwname, {all}, s.srvname, r.rolname),
          ARRAY[]::text[]
        FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        JOIN pg_catalog.pg_roles r ON r.oid = s.srvowner WHERE {}",
        free("pg_foreign_server", "s.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for server in sides.missing() {
        let happens = "the target lacks the foreign server: what reads or writes there fails after the flip, and the target's machine must reach it";
        found.push(Finding::block(Place::Target, server.shown(), happens).mend(&server.statement));
    }
    for (server, _) in sides.different() {
        let happens = "the foreign server has other options on the target: another database may be read or written after the flip";
        found.push(Finding::note(Place::Target, server.shown(), happens).sure(Sure::Possible));
    }
    Ok(found)
}

/// Their options, a password among them, are seen by few.
async fn users(pair: &Pair<'_>) -> Found {
    let sql = "SELECT ARRAY[u.srvname::text, u.usename::text], '', CASE u.umuser WHEN 0 THEN pg_catalog.format('CREATE USER MAPPING FOR PUBLIC SERVER %I;', u.srvname)
          ELSE pg_catalog.format('CREATE USER MAPPING FOR %I SERVER %I;', u.usename, u.srvname) END, ARRAY[]::text[] FROM pg_catalog.pg_user_mappings u";
    let sides = Sides::ask(pair, |_| sql.to_owned()).await?;
    let found = sides.missing().map(|mapping| {
        let happens = "the target lacks the user mapping: who reads or writes there is refused after the flip; give it its options, such as the password";
        let subject = format!("{} at {}", name(mapping.part(1)), name(mapping.part(0)));
        Finding::warn(Place::Target, subject, happens).mend(&mapping.statement)
    });
    Ok(found.collect())
}

async fn tables(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], '', pg_catalog.format('%I.%I', n.nspname, c.relname), ARRAY[]::text[]
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let found = sides.missing().map(|table| {
        let happens = "the target lacks the foreign table: what reads or writes it fails after the flip";
        let mend = format!(
            "pg_dump --schema-only --table={} -d {} | psql -X -v ON_ERROR_STOP=1 -d {}",
            shell(&table.statement),
            shell(&pair.facts.source),
            shell(&pair.facts.target)
        );
        Finding::block(Place::Target, shown(&table.key), happens).mend(mend)
    });
    Ok(found.collect())
}
