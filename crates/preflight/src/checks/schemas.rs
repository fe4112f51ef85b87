//! Schemas that the target lacks.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::sides::Sides;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text], '', pg_catalog.format('CREATE SCHEMA %I AUTHORIZATION %I;', n.nspname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE {USERS} AND {}",
        free("pg_namespace", "n.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let missing = |schema: &crate::sides::Object| {
        Finding::block(Place::Target, schema.shown(), "the target lacks the schema: nothing in it can be mirrored")
            .mend(&schema.statement)
    };
    Ok(sides.missing().map(missing).collect())
}
