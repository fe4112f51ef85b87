//! UPDATE and DELETE.
use crate::schema::{Role, Table, Use};
use crate::statement::{Draw, Statement};
use crate::value::{int, put};

/// What an UPDATE sets besides the number: columns that are no key.
fn more(draw: &mut Draw<'_>, table: &Table) -> String {
    let mut set = String::new();
    for column in table.columns.iter().filter(|column| column.is_plain() && column.name != "id") {
        match column.role {
            Role::Any if draw.dice.percent(35) => {
                let value = column.value(draw.dice, table.space);
                set += &format!(", {} = {value}", column.name);
            }
            Role::Made if draw.dice.percent(25) => {
                let value = match column.name.as_str() {
                    "at" => "clock_timestamp()",
                    "r" => "random()",
                    "x" => "gen_random_uuid()",
                    "big" => "repeat(md5(random()::text), 300)",
                    _ => "DEFAULT",
                };
                set += &format!(", {} = {value}", column.name);
            }
            _ => {}
        }
    }
    set
}

/// The form of an UPDATE that leaves the key alone.
fn form(table: &Table) -> &'static str {
    if table.keyed { "update" } else { "update keyless" }
}

fn only(draw: &mut Draw<'_>, table: &Table) -> (&'static str, bool) {
    if !table.allows(Use::Parent) {
        return ("", false);
    }
    if draw.dice.percent(70) { ("ONLY ", false) } else { ("", true) }
}

/// UPDATE by key or by condition.
pub fn update(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let alias = draw.dice.percent(30);
    let (shown, prefix) = if alias { (format!("{} AS t", table.name), "t.") } else { (table.name.clone(), "") };
    let (only, children) = only(draw, table);
    let (number, more) = (draw.number(prefix), more(draw, table));
    let condition = draw.condition(table, prefix);
    let (returning, columns) = draw.returning(table, prefix);
    let sql = format!("UPDATE {only}{shown} SET n = {number}{more} WHERE {condition}{returning}");
    let form = if children { "update parent" } else { form(table) };
    Statement::write(draw, table, form, sql).giving(columns)
}

/// UPDATE of a unique or a foreign key.
pub fn update_few(draw: &mut Draw<'_>, table: &Table) -> Option<Statement> {
    let few = table.with_role(|role| matches!(role, Role::Few(_)));
    if few.is_empty() {
        return None;
    }
    let column = *draw.dice.pick(&few);
    let value = match (&column.role, column.ty) {
        (Role::Few(few), crate::value::Ty::Int) if draw.dice.percent(40) => {
            format!("1 + ({} + {}) % {few}", column.name, int(draw.dice.between(1, 3)))
        }
        _ => column.value(draw.dice, table.space),
    };
    let condition = draw.condition(table, "");
    let (returning, columns) = draw.returning(table, "");
    let sql = format!("UPDATE {} SET {} = {value}, n = n + 1 WHERE {condition}{returning}", table.name, column.name);
    let form = form(table);
    Some(Statement::write(draw, table, form, sql).giving(columns))
}

/// UPDATE of the key itself; in a partitioned table the row may move.
pub fn update_key(draw: &mut Draw<'_>, table: &Table) -> Option<Statement> {
    let keys = table.with_role(|role| matches!(role, Role::Key | Role::Among(_)));
    if keys.is_empty() || table.allows(Use::Parent) {
        return None;
    }
    let column = *draw.dice.pick(&keys);
    let value = column.value(draw.dice, table.space);
    let condition = draw.condition(table, "");
    let (returning, columns) = draw.returning(table, "");
    let sql = format!("UPDATE {} SET {} = {value}, n = n + 1 WHERE {condition}{returning}", table.name, column.name);
    let form = match (table.allows(Use::Partitioned), table.allows(Use::Mixed)) {
        (_, true) => "move row unlike",
        (true, false) => "move row",
        (false, false) => "update key",
    };
    // PostgreSQL 18 mixes up the columns of what it returns of such rows: tests/moving.rs.
    let unlike: &[&str] = if table.allows(Use::Mixed) && columns > 0 { &["42804"] } else { &[] };
    Some(Statement::write(draw, table, form, sql).giving(columns).may(unlike))
}

/// UPDATE with a join.
pub fn update_from(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let other = draw.table();
    let (only, children) = only(draw, table);
    let (returning, columns) = draw.returning(table, "t.");
    let more = more(draw, table);
    let condition = draw.condition(table, "t.");
    let sql = match draw.dice.below(3) {
        0 => format!(
            "UPDATE {only}{} AS t SET n = (t.n + o.n) % 1000003{more} FROM {} o WHERE o.n % 5 = t.n % 5 AND {condition}{returning}",
            table.name, other.name
        ),
        1 => format!(
            "WITH big AS (SELECT max(n) AS n FROM {}) UPDATE {only}{} AS t SET n = (t.n + big.n) % 1000003{more} FROM big WHERE {condition}{returning}",
            other.name, table.name
        ),
        _ => format!(
            "UPDATE {only}{} AS t SET n = (SELECT count(*) FROM {} o WHERE o.n > t.n){more} WHERE EXISTS (SELECT FROM {} o WHERE o.n <> t.n) AND {condition}{returning}",
            table.name, other.name, other.name
        ),
    };
    let form = if children { "update parent" } else { form(table) };
    // max() of no rows is NULL.
    Statement::write(draw, table, form, sql).and(other, false).giving(columns).may(&["23502"])
}

/// DELETE by key or by condition.
pub fn delete(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let (only, children) = only(draw, table);
    let condition = draw.condition(table, "");
    let (returning, columns) = draw.returning(table, "");
    let sql = format!("DELETE FROM {only}{} WHERE {condition}{returning}", table.name);
    Statement::write(draw, table, if children { "update parent" } else { "delete" }, sql).giving(columns)
}

/// DELETE with a join.
pub fn delete_using(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let other = draw.table();
    let (only, children) = only(draw, table);
    let condition = draw.condition(table, "t.");
    let (returning, columns) = draw.returning(table, "t.");
    let sql = format!(
        "DELETE FROM {only}{} AS t USING {} AS o WHERE o.n % 3 = t.n % 3 AND {condition}{returning}",
        table.name, other.name
    );
    let form = if children { "update parent" } else { "delete" };
    Statement::write(draw, table, form, sql).and(other, false).giving(columns)
}

/// Takes the next job of a queue that nobody else has.
pub fn take_job(draw: &mut Draw<'_>, table: &Table) -> Statement {
    let state = put(crate::value::Ty::Int, &draw.dice.between(1, 2).to_string());
    let limit = draw.dice.between(1, 3);
    let inner = format!(
        "SELECT id FROM {} WHERE state = {state} ORDER BY n, id FOR UPDATE SKIP LOCKED LIMIT {limit}",
        table.name
    );
    let (returning, columns) = draw.returning(table, "");
    let sql = if draw.dice.percent(20) {
        format!("DELETE FROM {} WHERE id IN ({inner}){returning}", table.name)
    } else {
        format!("UPDATE {} SET state = 3 - state, n = n + 1 WHERE id IN ({inner}){returning}", table.name)
    };
    Statement::write(draw, table, "take job", sql).giving(columns)
}
