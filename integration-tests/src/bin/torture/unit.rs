//! Draws what sessions do.
use crate::other;
use crate::schema::Use;
use crate::script::{Carrier, End, Script, Step, Unit};
use crate::statement::{Draw, Statement};
use crate::tier::{self, Tier};
use integration_tests::history::Dice;

/// What a bout's sessions are drawn from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of the seed and the bout.
    pub seed: u64,
    /// Sessions.
    pub sessions: u64,
    /// Units of each.
    pub units: u32,
    /// Forms above it aren't drawn.
    pub tier: Tier,
    /// The source's major version.
    pub source: u32,
    /// Clients may go in the middle.
    pub hang_up: bool,
    /// Forms of statements, kinds of tables and other things that aren't drawn, for as long as they are known to fail.
    pub without: Vec<String>,
}

/// Session `number`'s script.
pub fn script(plan: &Plan, schema: &crate::schema::Schema, number: u64) -> Script {
    let mut dice = Dice::new(plan.seed, 1 + number);
    let carrier = match dice.between(1, 100) {
        1..=45 => Carrier::Tokio,
        46..=82 => Carrier::Raw,
        83..=93 => Carrier::Psycopg,
        _ => Carrier::Node,
    };
    let without = |name: &str| plan.without.iter().any(|other| other == name);
    let encoding = (carrier == Carrier::Raw && dice.percent(25) && !without("encoding")).then_some("LATIN1");
    let (tier, converted) = (plan.tier, encoding.is_some());
    let mut draw =
        Draw { dice: &mut dice, schema, source: plan.source, tier, converted, loose: false, without: &plan.without };
    let some_loose = schema.tables.iter().any(|table| table.loose);
    let mut units = Vec::new();
    for at in 0..plan.units {
        draw.loose = plan.tier == Tier::Wanted || some_loose && draw.dice.percent(40);
        let defines = number == 0 && draw.dice.percent(12) && !without("define");
        if let Some(statement) = defines.then(|| other::define(&mut draw, at)).flatten() {
            units.push(alone(Step::Simple(vec![statement])));
            continue;
        }
        units.push(unit(&mut draw, plan, carrier, number, at));
    }
    Script { number, carrier, encoding, units }
}

fn alone(step: Step) -> Unit {
    Unit { begin: None, steps: vec![step], end: End::None, timed: false }
}

fn unit(draw: &mut Draw<'_>, plan: &Plan, carrier: Carrier, number: u64, at: u32) -> Unit {
    match draw.dice.between(1, 100) {
        1..=44 => alone(statement(draw, carrier, false)),
        45..=49 => alone(pipeline(draw, carrier)),
        50..=52 => alone(strings(draw)),
        53..=55 => alone(Step::Simple(vec![other::setting(draw)])),
        // A client that waits until its cancel was passed on.
        56..=57 if carrier == Carrier::Raw && !plan.without.iter().any(|name| name == "cancel") => {
            alone(cancelled(draw))
        }
        58..=59 if plan.hang_up && carrier == Carrier::Raw => alone(Step::HangUp(draw.statement())),
        _ => block(draw, carrier, number, at),
    }
}

/// One statement by any protocol.
fn statement(draw: &mut Draw<'_>, carrier: Carrier, in_block: bool) -> Step {
    let mut statement = draw.statement();
    // A block outside a transaction may have written anything: every table would be suspect. And tokio-postgres loses count
    // of the answers when a COPY is refused; node has no COPY.
    let copies = matches!(carrier, Carrier::Raw | Carrier::Psycopg);
    while statement.form == "block" && !in_block || statement.copy.is_some() && !copies {
        statement = draw.statement();
    }
    if statement.copy.is_some() {
        return Step::Copy(statement);
    }
    // What has no parameters, or can't be prepared.
    let simple_only = matches!(statement.form, "block" | "explain analyze" | "truncate");
    if draw.dice.percent(45) || simple_only {
        return Step::Simple(vec![statement]);
    }
    let page = if carrier == Carrier::Raw && statement.columns > 0 { *draw.dice.pick(&[0, 0, 1, 2]) } else { 0 };
    Step::Extended { statement, named: draw.dice.percent(60), page }
}

fn without_copy(draw: &mut Draw<'_>) -> Statement {
    loop {
        let statement = draw.statement();
        if statement.copy.is_none() && !matches!(statement.form, "block" | "explain analyze") {
            return statement;
        }
    }
}

fn pipeline(draw: &mut Draw<'_>, carrier: Carrier) -> Step {
    let count = draw.dice.between(2, 5);
    let statements = (0..count).map(|_| without_copy(draw)).collect();
    Step::Pipeline { statements, sync_each: carrier != Carrier::Raw || draw.dice.percent(40) }
}

fn strings(draw: &mut Draw<'_>) -> Step {
    let count = draw.dice.between(2, 3);
    Step::Simple((0..count).map(|_| without_copy(draw)).collect())
}

/// A write that takes a while, and is cancelled before or after its end.
fn cancelled(draw: &mut Draw<'_>) -> Step {
    let table = draw.table();
    let condition = draw.condition(table, "");
    let sql = format!("DELETE FROM {} WHERE {condition} AND pg_sleep(0.01) IS NOT NULL", table.name);
    let after = draw.dice.between(0, 40).unsigned_abs();
    let form = if table.allows(Use::Parent) { "update parent" } else { "delete" };
    let statement = Statement::write(draw, table, form, sql).may(&["57014"]);
    if draw.takes(&statement) {
        Step::Cancelled(statement, after.into())
    } else {
        Step::Simple(vec![without_copy(draw)])
    }
}

const BEGINS: [&str; 8] = [
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE",
];

fn block(draw: &mut Draw<'_>, carrier: Carrier, number: u64, at: u32) -> Unit {
    let mut unit = Unit { begin: Some(*draw.dice.pick(&BEGINS)), steps: Vec::new(), end: End::Commit, timed: false };
    if draw.dice.percent(6) {
        let what = draw.dice.pick(&["statement_timeout = 30", "lock_timeout = 20"]);
        unit.steps.push(Step::Simple(vec![Statement::plain("set", format!("SET LOCAL {what}"))]));
        unit.timed = true;
    }
    let mut savepoint = false;
    for _ in 0..draw.dice.between(1, 5) {
        match draw.dice.between(1, 100) {
            1..=14 if !savepoint => {
                unit.steps.push(Step::Savepoint);
                savepoint = true;
            }
            1..=7 if savepoint => unit.steps.push(Step::RollbackTo),
            8..=14 if savepoint => {
                unit.steps.push(Step::Release);
                savepoint = false;
            }
            15..=20 => unit.steps.push(Step::Pause(draw.dice.between(1, 6).unsigned_abs().into())),
            21..=24 => unit.steps.push(pipeline(draw, carrier)),
            25..=28 => unit.steps.extend(cursor(draw)),
            29..=31 if draw.schema.ddl().contains("DEFERRABLE") => {
                let when = draw.dice.pick(&["DEFERRED", "IMMEDIATE"]);
                let sql = format!("SET CONSTRAINTS ALL {when}");
                unit.steps.push(Step::Simple(vec![Statement::plain("constraints", sql)]));
            }
            _ => unit.steps.push(statement(draw, carrier, true)),
        }
    }
    unit.end = match draw.dice.between(1, 100) {
        1..=9 => End::Rollback,
        10..=14 if may_prepare(draw, &unit) => {
            End::Prepare { gid: format!("g{number}_{at}"), commit: draw.dice.percent(85) }
        }
        _ => End::Commit,
    };
    unit
}

/// What a prepared transaction wrote may be declared: only where it is all in loose tables. What is written unseen in
/// one may be of every table.
fn may_prepare(draw: &Draw<'_>, unit: &Unit) -> bool {
    let tier = tier::of_form("prepare transaction", draw.source);
    let known = draw.without.iter().any(|form| form == "prepare transaction");
    let mut statements = unit.steps.iter().flat_map(Step::statements);
    let seen = statements.all(|statement| statement.tier < Tier::Declared);
    tier <= draw.tier && (tier == Tier::Exact || draw.loose) && seen && !known
}

/// A cursor whose current row is written.
fn cursor(draw: &mut Draw<'_>) -> Vec<Step> {
    let keyed: Vec<_> = draw.schema.tables.iter().filter(|t| t.keyed && t.family.len() == 1).collect();
    if keyed.is_empty() {
        return Vec::new();
    }
    let table = *draw.dice.pick(&keyed);
    let condition = draw.condition(table, "");
    let number = draw.number("");
    let simple = |statement| Step::Simple(vec![statement]);
    let declare = format!("DECLARE cur CURSOR FOR SELECT n FROM {} WHERE {condition} FOR UPDATE", table.name);
    let change = if draw.dice.percent(70) {
        format!("UPDATE {} SET n = {number} WHERE CURRENT OF cur", table.name)
    } else {
        format!("DELETE FROM {} WHERE CURRENT OF cur", table.name)
    };
    // There may be no current row; and a failure in front of it may have taken the cursor back.
    let change = Statement::write(draw, table, "where current of", change).may(&["24000", "23502", "34000"]);
    if !draw.takes(&change) {
        return Vec::new();
    }
    let mut declared = Statement::plain("cursor", declare);
    declared.tables = table.family.clone();
    vec![
        simple(declared),
        simple(Statement::plain("fetch", "FETCH 1 FROM cur").giving(1).may(&["34000"])),
        simple(change),
        simple(Statement::plain("close", "CLOSE cur").may(&["34000"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round;

    #[test]
    fn the_same_seed_draws_the_same_schema_and_scripts() {
        let drawn = |seed| {
            let schema = round::schema(&mut Dice::new(seed, 0), Tier::Declared, &[]);
            let plan = Plan {
                seed,
                sessions: 3,
                units: 200,
                tier: Tier::Declared,
                source: 18,
                hang_up: true,
                without: Vec::new(),
            };
            let scripts: Vec<Script> = (0..3).map(|number| script(&plan, &schema, number)).collect();
            (schema.ddl(), scripts)
        };
        let (one, two) = (drawn(42), drawn(42));
        assert!(one == two, "a seed's scripts are the same in each run");
        assert_ne!(one, drawn(43));
        assert_ne!(one.1[0].units, one.1[1].units);
    }

    #[test]
    fn strict_rounds_draw_only_what_must_be_exact() {
        for seed in 1..20 {
            let schema = round::schema(&mut Dice::new(seed, 0), Tier::Exact, &[]);
            let plan = Plan {
                seed,
                sessions: 1,
                units: 300,
                tier: Tier::Exact,
                source: 15,
                hang_up: false,
                without: Vec::new(),
            };
            let script = script(&plan, &schema, 0);
            let statements = script.units.iter().flat_map(|unit| unit.steps.iter().flat_map(Step::statements));
            let worst = statements.map(|statement| statement.tier).max();
            assert_eq!(worst, Some(Tier::Exact));
        }
    }
}
