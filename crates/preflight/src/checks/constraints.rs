//! Keys, unique, check, exclusion constraints and foreign keys that differ.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::{Object, Sides};
use crate::words::plain;
use pgshadow_model::{Place, quote};

fn sql(server: &Server<'_>) -> String {
    let parent = server.from(110_000, "k.conparentid = 0", "true");
    format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text, k.conname::text], pg_catalog.pg_get_constraintdef(k.oid),
          pg_catalog.format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid)),
          ARRAY[k.contype::text]
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype IN ('p', 'u', 'x', 'c', 'f') AND (k.coninhcount = 0 OR k.conislocal) AND {parent} AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    )
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sides = Sides::in_tables(pair, sql).await?;
    let mut found = Vec::new();
    for constraint in sides.missing() {
        if let Some(renamed) = sides.renamed(constraint) {
            let happens =
                format!("it is named {} on the target: what names it fails there", plain(&quote(renamed.part(2))));
            let mend = format!(
                "ALTER TABLE {} RENAME CONSTRAINT {} TO {};",
                constraint.table().sql(),
                quote(renamed.part(2)),
                quote(constraint.part(2))
            );
            found.push(Finding::note(Place::Target, constraint.shown(), happens).sure(Sure::Possible).mend(mend));
            continue;
        }
        let text = plain(&constraint.definition);
        let finding = match constraint.detail(0) {
            "p" | "u" => {
                let happens = format!(
                    "the target lacks {text}: rows are found slowly there, and equal keys get in after the flip"
                );
                Finding::block(Place::Target, constraint.shown(), happens)
            }
            "f" => {
                let happens = format!("the target lacks {text}: the table gets no certificate of equality");
                Finding::block(Place::Target, constraint.shown(), happens)
            }
            _ => {
                let happens = format!("the target lacks {text}: it takes rows after the flip that the source refuses");
                Finding::warn(Place::Target, constraint.shown(), happens)
            }
        };
        found.push(finding.mend(&constraint.statement));
    }
    for constraint in sides.extra().filter(|extra| !sides.is_renamed(extra)) {
        let happens =
            format!("only the target has {}: rows that the source takes may be refused", plain(&constraint.definition));
        found.push(Finding::warn(Place::Target, constraint.shown(), happens).sure(Sure::Likely).mend(drop(constraint)));
    }
    for (source, target) in sides.different() {
        let (ours, theirs) = (plain(&source.definition), plain(&target.definition));
        let happens =
            format!("{ours} on the source, {theirs} on the target: rows may be refused, or get in after the flip");
        let mend = format!("{} {}", drop(target), source.statement);
        let sure =
            if pair.source.version / 10_000 == pair.target.version / 10_000 { Sure::Certain } else { Sure::Likely };
        found.push(Finding::warn(Place::Target, source.shown(), happens).sure(sure).mend(mend));
    }
    Ok(found)
}

fn drop(constraint: &Object) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT {};", constraint.table().sql(), quote(constraint.part(2)))
}
