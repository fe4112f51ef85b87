//! Indexes that the target lacks: what is fast on the source isn't after the flip.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::{Object, Sides};
use crate::words::{bytes, plain, shown, shown_table};
use pgshadow_model::{Place, QualifiedName, quote};

/// Places in the details.
const UNIQUE: usize = 0;
const BYTES: usize = 1;
const PARTITIONED: usize = 2;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, t.relname::text, c.relname::text], pg_catalog.pg_get_indexdef(i.indexrelid), pg_catalog.pg_get_indexdef(i.indexrelid),
          ARRAY[i.indisunique::text, (t.relpages::int8 * pg_catalog.current_setting('block_size')::int8)::text, (t.relkind = 'p')::text]
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
        WHERE t.relkind IN ('r', 'p', 'm') AND t.relpersistence <> 't' AND NOT c.relispartition AND {USERS} AND {}
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))",
        free("pg_class", "t.oid")
    );
    let mut sides = Sides::in_tables(pair, |_| sql.clone()).await?;
    for object in sides.source.values_mut().chain(sides.target.values_mut()) {
        object.definition = nameless(&object.definition, object.part(2));
    }
    let mut found = Vec::new();
    for index in sides.missing() {
        let table = shown_table(&index.table());
        let definition = plain(&index.definition);
        if let Some(renamed) = sides.renamed(index) {
            let happens = format!(
                "on {table}: it is named {} on the target: what names it fails there",
                plain(&quote(renamed.part(2)))
            );
            let mend = format!("ALTER INDEX {} RENAME TO {};", full(renamed).sql(), quote(index.part(2)));
            found.push(Finding::note(Place::Target, subject(index), happens).sure(Sure::Possible).mend(mend));
            continue;
        }
        let size = index.number(BYTES);
        let large = u64::try_from(size).is_ok_and(|size| size >= pair.facts.large_bytes);
        let finding = if index.is(UNIQUE) {
            let happens = format!("the target lacks {definition}: equal rows get in after the flip");
            Finding::block(Place::Target, subject(index), happens)
        } else if large {
            let happens = format!(
                "the target lacks {definition}: {table} has {}, and what is looked up by it is read as a whole after the flip",
                bytes(size)
            );
            Finding::block(Place::Target, subject(index), happens).sure(Sure::Likely)
        } else {
            let happens =
                format!("the target lacks {definition}: what is looked up by it is slow there once {table} has grown");
            Finding::warn(Place::Target, subject(index), happens).sure(Sure::Likely)
        };
        found.push(finding.mend(create(index)));
    }
    for index in sides.extra().filter(|extra| !sides.is_renamed(extra)) {
        let mend = remove(index);
        let finding = if index.is(UNIQUE) {
            let happens = "only the target has this unique index: rows that the source takes may be refused there";
            Finding::block(Place::Target, subject(index), happens).sure(Sure::Possible)
        } else {
            Finding::note(Place::Target, subject(index), "only the target has this index: writes there keep one more")
        };
        found.push(finding.mend(mend));
    }
    for (source, target) in sides.different() {
        let (ours, theirs) = (plain(&source.definition), plain(&target.definition));
        let happens = format!(
            "{ours} on the source, {theirs} on the target: what is fast on the source may not be after the flip"
        );
        let mend = format!("{} {}", remove(target), create(source));
        found.push(Finding::warn(Place::Target, subject(source), happens).sure(Sure::Likely).mend(mend));
    }
    Ok(found)
}

/// The index's own name: it is in its table's schema.
fn full(index: &Object) -> QualifiedName {
    QualifiedName::new(index.part(0), index.part(2))
}

fn subject(index: &Object) -> String {
    shown(&[index.part(0), index.part(2)])
}

/// A definition without the index's name.
fn nameless(definition: &str, name: &str) -> String {
    definition.replacen(&format!("INDEX {} ON", quote(name)), "INDEX ON", 1)
}

/// Without blocking writes, where that can be.
fn create(index: &Object) -> String {
    let own = format!("INDEX {} ON", quote(index.part(2)));
    if index.is(PARTITIONED) {
        return format!("{};", index.statement.replacen(&format!("{own} ONLY"), &own, 1));
    }
    format!("{};", index.statement.replacen(&own, &format!("INDEX CONCURRENTLY {} ON", quote(index.part(2))), 1))
}

fn remove(index: &Object) -> String {
    let concurrently = if index.is(PARTITIONED) { "" } else { "CONCURRENTLY " };
    format!("DROP INDEX {concurrently}{};", full(index).sql())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_made_without_blocking_writes() {
        let index = |partitioned: &str, statement: &str| Object {
            key: ["public", "t", "odd \"ON\""].map(str::to_owned).to_vec(),
            definition: nameless(statement, "odd \"ON\""),
            statement: statement.to_owned(),
            detail: ["false", "0", partitioned].map(str::to_owned).to_vec(),
        };
        let plain = index("false", "CREATE INDEX \"odd \"\"ON\"\"\" ON \"public\".\"t\" USING btree (\"v\")");
        assert_eq!(
            create(&plain),
            "CREATE INDEX CONCURRENTLY \"odd \"\"ON\"\"\" ON \"public\".\"t\" USING btree (\"v\");"
        );
        assert_eq!(plain.definition, "CREATE INDEX ON \"public\".\"t\" USING btree (\"v\")");
        assert_eq!(remove(&plain), "DROP INDEX CONCURRENTLY \"public\".\"odd \"\"ON\"\"\";");
        let parent = index("true", "CREATE INDEX \"odd \"\"ON\"\"\" ON ONLY \"public\".\"t\" USING btree (\"v\")");
        assert_eq!(create(&parent), "CREATE INDEX \"odd \"\"ON\"\"\" ON \"public\".\"t\" USING btree (\"v\");");
    }
}
