//! What a round is made of, drawn from its seed: bouts, each with a schema, sessions and perhaps faults of its own.
use crate::schema::{Schema, Table};
use crate::tier::Tier;
use crate::unit::Plan;
use crate::{kinds, relations};
use integration_tests::history::Dice;

/// What may befall a bout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of pgshadow, and a start.
    KillPgshadow,
    /// The shadow is stopped and started.
    StopShadow,
    /// The shadow hangs for a while.
    FreezeShadow,
    /// The primary is stopped and started.
    RestartPrimary,
}

/// What a bout must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only what must be exact: no table may become suspect.
    Strict,
    /// All forms and tables: those that can't be exact must be named.
    Wide,
    /// Only what must be exact, but things break: tables may be named.
    Faulty,
}

/// One load on one schema.
#[derive(Debug, Clone)]
pub struct Bout {
    /// What it must keep.
    pub kind: Kind,
    /// From which to which major: the newest to itself, else the oldest to the newest.
    pub same_major: bool,
    /// Its sessions.
    pub plan: Plan,
    /// What befalls it, at evenly spread moments.
    pub faults: Vec<Fault>,
    /// `[mirror_log] durability`
    pub durability: &'static str,
    /// So many transactions are held while others wait in the log; 0: as by default.
    pub held: u32,
    /// Past pgshadow.
    pub direct: bool,
    /// `[compare] statements`
    pub statements: f64,
}

/// The bout of this number in the round of this seed. The majors are those of the old and the newest source.
pub fn bout(seed: u64, number: u64, majors: [u32; 2], wanted: bool, without: &[String]) -> Bout {
    let seed = seed * 1000 + number;
    let mut dice = Dice::new(seed, 0);
    let kind = match dice.between(1, 100) {
        1..=60 => Kind::Strict,
        61..=80 => Kind::Wide,
        _ => Kind::Faulty,
    };
    let same_major = dice.percent(25);
    let sessions = *dice.pick(&[2, 4, 6, 8, 8, 12, 12, 16, 24]);
    let units = dice.between(800, 2400).unsigned_abs() / sessions as u32;
    let tier = match kind {
        Kind::Wide => Tier::Declared,
        _ if wanted => Tier::Wanted,
        _ => Tier::Exact,
    };
    let mut faults = Vec::new();
    if kind == Kind::Faulty {
        let all =
            [Fault::KillPgshadow, Fault::KillPgshadow, Fault::StopShadow, Fault::FreezeShadow, Fault::RestartPrimary];
        faults = (0..dice.between(1, 2)).map(|_| *dice.pick(&all)).collect();
    }
    let durability = *dice.pick(&["fsync", "os"]);
    let held = *dice.pick(&[0, 0, 1, 8, 40]);
    let hang_up = kind == Kind::Faulty;
    let source = majors[usize::from(same_major)];
    let plan = Plan { seed, sessions, units, tier, source, hang_up, without: without.to_vec() };
    Bout { kind, same_major, plan, faults, durability, held, direct: false, statements: 1.0 }
}

const PRELUDE: &str = "CREATE SCHEMA odd;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE >= 0);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN NEW.version := coalesce(NEW.version, 0) + 1; NEW.at := clock_timestamp(); RETURN NEW; END';
";

/// Between one and six kinds of tables, none above the tier.
pub fn schema(dice: &mut Dice, tier: Tier, without: &[String]) -> Schema {
    let mut tables: Vec<Table> = Vec::new();
    let mut number = 0;
    // Few tables make for more writes of one row.
    let kinds = if dice.percent(40) { dice.between(1, 2) } else { dice.between(3, 6) };
    while number < kinds {
        let name = format!("t{number}");
        let drawn = kind(dice, &name);
        let wanted = |table: &Table| table.tier <= tier && !without.iter().any(|kind| kind == table.kind);
        // All of them where what is wanted must be exact already.
        let loose = tier == Tier::Wanted || tier > Tier::Exact && dice.percent(45);
        if drawn.iter().all(wanted) {
            let mut drawn = drawn;
            drawn.iter_mut().for_each(|table| table.loose = loose || table.tier > Tier::Exact);
            tables.extend(drawn);
            number += 1;
        }
    }
    Schema { prelude: PRELUDE.to_owned(), tables }
}

fn kind(dice: &mut Dice, name: &str) -> Vec<Table> {
    match dice.below(20) {
        0..=3 => vec![kinds::plain(dice, name)],
        4 => vec![kinds::altered(dice, name)],
        5..=6 => vec![kinds::uniques(dice, name)],
        7 => vec![kinds::deferred(dice, name)],
        8 => vec![kinds::excluded(dice, name)],
        9 => vec![kinds::made(dice, name)],
        10 => vec![kinds::touched(dice, name)],
        11 => vec![kinds::keyless(dice, name)],
        12 => vec![kinds::queue(dice, name)],
        13 => vec![kinds::long(dice, name)],
        14..=15 => relations::family(dice, name),
        16 => vec![relations::tree(dice, name)],
        17 => vec![relations::partitioned(dice, name)],
        18 => relations::inherited(dice, name),
        _ => match dice.below(3) {
            0 => vec![kinds::view(dice, name)],
            1 => vec![relations::audited(dice, name)],
            _ => vec![relations::ruled(dice, name)],
        },
    }
}
