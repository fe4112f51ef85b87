//! COPY, TRUNCATE, MERGE, writes inside WITH, reads, functions, and statements that fail by themselves.
use crate::insert;
use crate::schema::{Role, Table, Use};
use crate::statement::{Draw, Statement};
use crate::tier::Tier;
use crate::value::{int, literal};

/// MERGE.
pub fn merge(draw: &mut Draw<'_>, table: &Table) -> Option<Statement> {
    // Views from 17 on, rules never.
    if table.tier > Tier::Exact {
        return None;
    }
    let columns = insert::columns(draw.dice, table);
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    let values: Vec<_> = columns.iter().map(|column| column.value(draw.dice, table.space)).collect();
    let key = if table.makes_keys() || !table.keyed { "n % 7".to_owned() } else { table.columns[0].name.clone() };
    let wanted =
        if key == "n % 7" { int(draw.dice.between(0, 6)) } else { table.columns[0].value(draw.dice, table.space) };
    let delete = if draw.dice.percent(30) { "WHEN MATCHED AND t.n % 2 = 0 THEN DELETE " } else { "" };
    let insert = format!("WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})", names.join(", "), values.join(", "));
    let number = draw.number("t.");
    let (returning, given) = if draw.source >= 17 { draw.returning(table, "t.") } else { (String::new(), 0) };
    let sql = format!(
        "MERGE INTO {} AS t USING (VALUES ({wanted})) AS s (k) ON t.{key} = s.k {delete}WHEN MATCHED THEN UPDATE SET n = {number} {insert}{returning}",
        table.name
    );
    let form = match (table.allows(Use::Parent), table.allows(Use::Mixed)) {
        (true, _) => "update parent",
        (false, true) => "merge unlike",
        (false, false) => "merge",
    };
    // 42804: PostgreSQL 18 mixes up the columns of what it returns (tests/moving.rs).
    let unlike: &[&str] = if table.allows(Use::Mixed) && given > 0 { &["42804"] } else { &[] };
    Some(Statement::write(draw, table, form, sql).giving(given).may(&["21000"]).may(unlike))
}

/// Two writes in one statement.
pub fn write_in_with(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let other = draw.table();
    let (one, two) = (draw.condition(table, ""), draw.condition(other, ""));
    let number = draw.number("");
    let sql = format!(
        "WITH gone AS (DELETE FROM {} WHERE {one} RETURNING n) UPDATE {} SET n = {number} WHERE {two}",
        table.name, other.name
    );
    Statement::write(draw, table, "write in with", sql).and(other, true)
}

/// COPY FROM STDIN, as text or CSV.
pub fn copy(draw: &mut Draw<'_>, table: &Table) -> Option<Statement> {
    if !table.allows(Use::Copy) {
        return None;
    }
    let columns: Vec<_> = table
        .columns
        .iter()
        .filter(|column| !matches!(column.role, Role::Generated | Role::Made | Role::MadeAlways))
        .collect();
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    let csv = draw.dice.percent(40);
    let mut data = String::new();
    for _ in 0..draw.dice.between(1, 4) {
        let fields: Vec<_> = columns
            .iter()
            .map(|column| {
                let value =
                    crate::value::parameters(&column.value(draw.dice, table.space)).1.into_iter().next().flatten();
                field(value.as_deref(), csv)
            })
            .collect();
        data += &format!("{}\n", fields.join(if csv { "," } else { "\t" }));
    }
    let options = match (csv, draw.dice.below(3)) {
        (true, 0) => " WITH (FORMAT csv)",
        (true, _) => " CSV",
        (false, 0) => " WITH (FORMAT text)",
        (false, _) => "",
    };
    // Names that need other than ASCII don't come up; the data is the session's encoding's matter.
    let sql = format!("COPY {} ({}) FROM STDIN{options}", table.name, names.join(", "));
    let computes = table.columns.iter().any(|column| column.role == Role::Made);
    let mut statement = Statement::write(draw, table, if computes { "copy computed" } else { "copy" }, sql);
    statement.copy = Some(data.into_bytes());
    Some(statement)
}

fn field(value: Option<&str>, csv: bool) -> String {
    match (value, csv) {
        (None, true) => String::new(),
        (None, false) => "\\N".to_owned(),
        (Some(value), true) => format!("\"{}\"", value.replace('"', "\"\"")),
        (Some(value), false) => {
            value.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
        }
    }
}

/// TRUNCATE.
pub fn truncate(draw: &mut Draw<'_>, table: &Table) -> Option<Statement> {
    if !table.allows(Use::Truncate) {
        return None;
    }
    // Beside CREATE INDEX CONCURRENTLY the database says "tuple concurrently updated" once in a while: tests/by_itself.rs.
    Some(Statement::write(draw, table, "truncate", format!("TRUNCATE {}", table.name)).may(&["XX000"]))
}

/// Reads, some of which lock rows.
pub fn select(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let condition = draw.condition(table, "");
    let lock =
        *draw.dice.pick(&["", "", " FOR UPDATE", " FOR SHARE", " FOR NO KEY UPDATE SKIP LOCKED", " FOR KEY SHARE"]);
    let sql = format!("SELECT n, n + 1 FROM {} WHERE {condition}{lock}", table.name);
    let mut statement = Statement::plain("select", sql).giving(2);
    statement.tables = table.family.clone();
    statement
}

/// A statement that the database refuses, or that may be refused for its values.
pub fn fails(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let condition = draw.condition(table, "");
    let (sql, states): (String, &[&str]) = match draw.dice.below(5) {
        0 => (format!("UPDATE {} SET n = n / 0 WHERE {condition}", table.name), &["22012"]),
        1 => (format!("UPDATE {} SET n = NULL WHERE {condition}", table.name), &["23502"]),
        2 => (format!("INSERT INTO {} (n) SELECT 9223372036854775807 + {}", table.name, int(1)), &["22003"]),
        3 => (format!("DELETE FROM {} WHERE no_such_column = 1", table.name), &["42703"]),
        _ => (
            format!("UPDATE {} SET n = n + (SELECT n FROM generate_series(1, 2) n)  WHERE {condition}", table.name),
            &["21000"],
        ),
    };
    let form = match (table.keyed, table.allows(Use::Parent)) {
        (_, true) => "update parent",
        (true, false) => "fails",
        (false, false) => "update keyless",
    };
    Statement::write(draw, table, form, sql).may(states)
}

/// A function that writes, or a block that does.
pub fn function(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let set =
        literal(&format!("UPDATE {} SET n = {} WHERE {}", table.name, draw.number(""), draw.condition(table, "")));
    if draw.dice.percent(50) {
        return Statement::write(draw, table, "block", format!("DO $do$ BEGIN {set}; END $do$"));
    }
    Statement::write(draw, table, "explain analyze", format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {set}"))
        .giving(1)
}

/// Changes the definition of a table, or makes and drops others.
pub fn define(draw: &mut Draw<'_>, number: u32) -> Option<Statement> {
    let table = draw.table_for(Use::Alter)?;
    let (name, plain) = (&table.name, table.family[0].rsplit('.').next().unwrap_or_default().replace(['"', ' '], "_"));
    let (form, sql) = match draw.dice.below(12) {
        0 => ("alter", format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS a{} int", number % 6)),
        1 => ("alter", format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS d{} text DEFAULT 'constant'", number % 6)),
        2 => ("alter", format!("ALTER TABLE {name} DROP COLUMN IF EXISTS a{}", number % 6)),
        3 => ("create index", format!("CREATE INDEX IF NOT EXISTS {plain}_n{} ON {name} (n)", number % 3)),
        4 => ("drop index", format!("DROP INDEX IF EXISTS {plain}_n{}", number % 3)),
        5 => ("alter type", format!("ALTER TABLE {name} ALTER x1 TYPE {}", draw.dice.pick(&["bigint", "int", "int"]))),
        6 => ("alter", format!("ALTER TABLE {name} ALTER n SET DEFAULT {}", draw.dice.between(0, 9))),
        7 => ("comment", format!("COMMENT ON TABLE {name} IS 'number {number}'")),
        8 => ("create", format!("CREATE TABLE extra{number} (id int PRIMARY KEY, v text)")),
        9 => ("alter", format!("ALTER TABLE {name} SET (fillfactor = {})", draw.dice.between(50, 100))),
        10 => ("create view", format!("CREATE OR REPLACE VIEW seen AS SELECT n FROM {name}")),
        _ => ("concurrent index", format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {plain}_c{number} ON {name} (n)")),
    };
    Some(Statement::write(draw, table, form, sql)).filter(|statement| draw.takes(statement))
}

/// A SET of something that changes how values are read or sent.
pub fn setting(draw: &mut Draw<'_>) -> Statement {
    let sql = *draw.dice.pick(&[
        "SET DateStyle = 'German'",
        "SET DateStyle = 'ISO, MDY'",
        "SET TimeZone = 'Asia/Kolkata'",
        "SET extra_float_digits = 0",
        "SET bytea_output = 'escape'",
        "SET IntervalStyle = 'iso_8601'",
        "SET synchronous_commit = off",
        "SET application_name = 'torture'",
        "SET search_path = public, odd",
        "SET search_path = odd, public",
        "RESET ALL",
        "SET default_transaction_isolation = 'repeatable read'",
        "SET default_transaction_isolation = 'read committed'",
        "SET enable_seqscan = off",
    ]);
    Statement::plain("set", sql)
}
