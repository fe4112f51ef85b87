//! INSERT.
use crate::schema::{Column, Role, Table};
use crate::statement::{Draw, Statement};
use integration_tests::history::Dice;

/// The columns that an INSERT names. Some of those with defaults are left out.
pub fn columns<'t>(dice: &mut Dice, table: &'t Table) -> Vec<&'t Column> {
    let wanted = |column: &&Column| match column.role {
        Role::Generated | Role::MadeAlways => false,
        // Mostly the database's matter; a key that it makes always.
        Role::Made => column.name != "id" && dice.percent(25),
        Role::Any => dice.percent(80),
        _ => true,
    };
    table.columns.iter().filter(wanted).collect()
}

fn names(columns: &[&Column]) -> String {
    columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ")
}

fn row(draw: &mut Draw<'_>, table: &Table, columns: &[&Column]) -> String {
    let values: Vec<_> = columns
        .iter()
        .map(|column| match column.role {
            Role::Made if draw.dice.percent(50) => "DEFAULT".to_owned(),
            _ => column.value(draw.dice, table.space),
        })
        .collect();
    format!("({})", values.join(", "))
}

fn values(draw: &mut Draw<'_>, table: &Table, columns: &[&Column]) -> String {
    let count = if draw.dice.percent(65) { 1 } else { draw.dice.between(2, 4) };
    let rows: Vec<_> = (0..count).map(|_| row(draw, table, columns)).collect();
    format!("VALUES {}", rows.join(", "))
}

/// Rows that a query gives: from nothing, or from the table itself.
fn query(draw: &mut Draw<'_>, table: &Table, columns: &[&Column]) -> String {
    let values: Vec<_> = columns
        .iter()
        .map(|column| match column.role {
            Role::Number => draw.number("g.").replace("g.n", "g.i"),
            _ => column.value(draw.dice, table.space),
        })
        .collect();
    format!("SELECT {} FROM generate_series(1, {}) AS g (i)", values.join(", "), draw.dice.between(1, 2))
}

fn head(draw: &mut Draw<'_>, table: &Table) -> (String, String) {
    let columns = columns(draw.dice, table);
    let what = if draw.dice.percent(80) { values(draw, table, &columns) } else { query(draw, table, &columns) };
    let head = format!("INSERT INTO {} ({})", table.name, names(&columns));
    (head, what)
}

/// INSERT, single or of many rows.
pub fn rows(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let (head, what) = head(draw, table);
    let (returning, columns) = draw.returning(table, "");
    let always = table.columns.iter().any(|column| column.role == Role::MadeAlways);
    if always && draw.dice.percent(20) {
        let id = crate::value::int(draw.dice.between(1, 60));
        let sql = format!("INSERT INTO {} (id, n) OVERRIDING SYSTEM VALUE VALUES ({id}, 1){returning}", table.name);
        return Statement::write(draw, table, "insert", sql).giving(columns);
    }
    Statement::write(draw, table, "insert", format!("{head} {what}{returning}")).giving(columns)
}

/// INSERT ... ON CONFLICT.
pub fn upsert(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let (mut head, what) = head(draw, table);
    let (returning, columns) = draw.returning(table, "t.");
    head = head.replacen(&table.name, &format!("{} AS t", table.name), 1);
    if table.arbiters.is_empty() || draw.dice.percent(40) {
        let target = if table.arbiters.is_empty() || draw.dice.percent(50) {
            String::new()
        } else {
            format!("{} ", draw.dice.pick(&table.arbiters))
        };
        let sql = format!("{head} {what} ON CONFLICT {target}DO NOTHING{returning}");
        return Statement::write(draw, table, "insert or nothing", sql).giving(columns);
    }
    let target = draw.dice.pick(&table.arbiters).clone();
    let number = draw.dice.pick(&["(t.n + excluded.n) % 1000003", "(t.n * 3 + excluded.n) % 1000003", "excluded.n"]);
    let mut set = format!("n = {number}");
    let few = table.with_role(|role| matches!(role, Role::Few(_)));
    if !few.is_empty() && draw.dice.percent(30) {
        let name = &draw.dice.pick(&few).name;
        set += &format!(", {name} = excluded.{name}");
    }
    let filter = if draw.dice.percent(20) { " WHERE t.n % 3 > 0" } else { "" };
    let sql = format!("{head} {what} ON CONFLICT {target} DO UPDATE SET {set}{filter}{returning}");
    // A row that two of its own rows meet.
    Statement::write(draw, table, "upsert", sql).giving(columns).may(&["21000"])
}
