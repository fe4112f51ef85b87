//! Columns that differ: missing, of another type, nullable, default, generated, identity.
use super::Found;
use crate::finding::{Finding, Level, Sure};
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::{Object, Sides};
use crate::words::plain;
use pgshadow_model::{Place, quote};

/// Places in the details.
const TYPE: usize = 0;
const NOT_NULL: usize = 1;
const DEFAULT: usize = 2;
const GENERATED: usize = 3;
const IDENTITY: usize = 4;
const COLLATION: usize = 5;

fn sql(server: &Server<'_>) -> String {
    let generated = server.from(120_000, "a.attgenerated::text", "''");
    format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text, a.attname::text], '', '', ARRAY[pg_catalog.format_type(a.atttypid, a.atttypmod),
          a.attnotnull::text, coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''), {generated}, a.attidentity::text,
          coalesce((SELECT pg_catalog.format('%I.%I', kn.nspname, k.collname) FROM pg_catalog.pg_collation k
            JOIN pg_catalog.pg_namespace kn ON kn.oid = k.collnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            WHERE k.oid = a.attcollation AND a.attcollation <> t.typcollation), '')]
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    )
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sides = Sides::in_tables(pair, sql).await?;
    let mut found = Vec::new();
    for column in sides.missing() {
        let mend = format!("ALTER TABLE {} ADD COLUMN {};", column.table().sql(), definition(column));
        let happens = "the target lacks the column: its rows can't be written; load the table again once it is there";
        found.push(Finding::block(Place::Target, column.shown(), happens).mend(mend));
    }
    for column in sides.extra() {
        let mend = format!("ALTER TABLE {} DROP COLUMN {};", column.table().sql(), quote(column.part(2)));
        let needed = column.is(NOT_NULL) && [DEFAULT, IDENTITY].iter().all(|place| column.detail(*place).is_empty());
        let finding = if needed {
            Finding::block(
                Place::Target,
                column.shown(),
                "only the target has the column, and it must not be NULL: no row can be inserted",
            )
        } else {
            Finding::block(
                Place::Target,
                column.shown(),
                "only the target has the column: the table can't be proven equal",
            )
        };
        found.push(finding.mend(mend));
    }
    for (source, target) in sides.common() {
        found.extend(differences(pair, source, target));
    }
    Ok(found)
}

/// The column as CREATE TABLE has it.
fn definition(column: &Object) -> String {
    let mut text = format!("{} {}", quote(column.part(2)), column.detail(TYPE));
    if !column.detail(COLLATION).is_empty() {
        text.push_str(&format!(" COLLATE {}", column.detail(COLLATION)));
    }
    match (column.detail(GENERATED), identity(column), column.detail(DEFAULT)) {
        ("s", ..) => text.push_str(&format!(" GENERATED ALWAYS AS ({}) STORED", column.detail(DEFAULT))),
        ("v", ..) => text.push_str(&format!(" GENERATED ALWAYS AS ({}) VIRTUAL", column.detail(DEFAULT))),
        (_, Some(identity), _) => text.push_str(&format!(" GENERATED {identity} AS IDENTITY")),
        (_, None, "") => {}
        (_, None, default) => text.push_str(&format!(" DEFAULT {default}")),
    }
    if column.is(NOT_NULL) {
        text.push_str(" NOT NULL");
    }
    text
}

/// Makes the column again.
fn anew(column: &Object) -> String {
    let (table, name) = (column.table().sql(), quote(column.part(2)));
    format!("ALTER TABLE {table} DROP COLUMN {name}, ADD COLUMN {};", definition(column))
}

fn identity(column: &Object) -> Option<&'static str> {
    match column.detail(IDENTITY) {
        "a" => Some("ALWAYS"),
        "d" => Some("BY DEFAULT"),
        _ => None,
    }
}

fn differences(pair: &Pair<'_>, source: &Object, target: &Object) -> Vec<Finding> {
    let alter =
        |what: String| format!("ALTER TABLE {} ALTER COLUMN {} {what};", source.table().sql(), quote(source.part(2)));
    let differs = |place: usize| source.detail(place) != target.detail(place);
    let both = |place: usize| {
        let shown = |object: &Object| match object.detail(place) {
            "" => "none".to_owned(),
            text => plain(text),
        };
        format!("{} on the source and {} on the target", shown(source), shown(target))
    };
    let mut found = Vec::new();
    if differs(TYPE) {
        let kind = source.detail(TYPE);
        let mend = alter(format!("TYPE {kind} USING {}::{kind}", quote(source.part(2))));
        let happens = format!("its type is {}: values may be refused, or become others", both(TYPE));
        found.push(Finding::block(Place::Target, source.shown(), happens).sure(Sure::Likely).mend(mend));
    } else if differs(COLLATION) {
        let happens = format!("its collation is {}: it is sorted otherwise after the flip", both(COLLATION));
        let collate =
            if source.detail(COLLATION).is_empty() { "pg_catalog.\"default\"" } else { source.detail(COLLATION) };
        let mend = alter(format!("TYPE {} COLLATE {collate}", source.detail(TYPE)));
        found.push(Finding::warn(Place::Target, source.shown(), happens).mend(mend));
    }
    if source.is(NOT_NULL) != target.is(NOT_NULL) {
        let (happens, word) = if target.is(NOT_NULL) {
            ("it may be NULL on the source and not on the target: such rows are refused there", "DROP")
        } else {
            ("it may be NULL on the target and not on the source: the target takes such rows after the flip", "SET")
        };
        found.push(Finding::warn(Place::Target, source.shown(), happens).mend(alter(format!("{word} NOT NULL"))));
    }
    if differs(GENERATED) {
        let happens = "it is generated on one side only, or otherwise: its values can't be written, or are others";
        found.push(Finding::block(Place::Target, source.shown(), happens).mend(anew(source)));
    } else if differs(DEFAULT) && !source.detail(GENERATED).is_empty() {
        // Majors write some expressions otherwise.
        let sure = if pair.same_major() { Sure::Certain } else { Sure::Possible };
        let happens = format!("it is generated by {}: its values are others", both(DEFAULT));
        // Its values are computed anew with either.
        let mend = match pair.target.version >= 170_000 {
            true => alter(format!("SET EXPRESSION AS ({})", source.detail(DEFAULT))),
            false => anew(source),
        };
        let level = if pair.same_major() { Level::Block } else { Level::Warn };
        found.push(Finding::new(level, Place::Target, source.shown(), happens).sure(sure).mend(mend));
    } else if differs(IDENTITY) {
        let mend = match (identity(source), identity(target)) {
            (Some(word), Some(_)) => alter(format!("SET GENERATED {word}")),
            (Some(word), None) => alter(format!("ADD GENERATED {word} AS IDENTITY")),
            (None, _) => alter("DROP IDENTITY".to_owned()),
        };
        let happens =
            "it is an identity column on one side only, or otherwise: inserts fail or give other values after the flip";
        found.push(Finding::warn(Place::Target, source.shown(), happens).mend(mend));
    } else if differs(DEFAULT) {
        let mend = match source.detail(DEFAULT) {
            "" => alter("DROP DEFAULT".to_owned()),
            default => alter(format!("SET DEFAULT {default}")),
        };
        let happens = format!("its default is {}: inserts give other values after the flip", both(DEFAULT));
        found.push(Finding::warn(Place::Target, source.shown(), happens).sure(Sure::Likely).mend(mend));
    }
    found
}
