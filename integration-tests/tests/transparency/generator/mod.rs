//! Sessions by chance, the same for the same numbers on every machine.
mod chapters;
mod encoding;
mod extended;
pub mod grammar;
mod playable;

pub use playable::playable;

use crate::messages::{Message, q};
use crate::transcript::{End, Pace, Step};
use encoding::Encoding;
use grammar::{Grammar, Voice};
use integration_tests::history::Dice;

/// A session, from its startup to its end.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who logs in.
    pub role: &'static str,
    /// Further parameters of the startup.
    pub parameters: Vec<(&'static str, &'static str)>,
    /// How it is sent.
    pub pace: Pace,
    /// How it ends.
    pub end: End,
    /// What is sent.
    pub steps: Vec<Step>,
    /// It alters tables of the schema `lab`.
    pub alters: bool,
}

const PARAMETERS: [(&str, &str); 24] = [
    ("search_path", "lab, public"),
    ("search_path", "pg_temp, public"),
    ("search_path", "\"$user\", public, pg_catalog"),
    ("DateStyle", "German"),
    ("DateStyle", "SQL, MDY"),
    ("IntervalStyle", "sql_standard"),
    ("extra_float_digits", "0"),
    ("extra_float_digits", "-3"),
    ("bytea_output", "escape"),
    // not yet: debug1, at which statements of our own say something
    ("client_min_messages", "info"),
    ("client_min_messages", "log"),
    ("client_min_messages", "warning"),
    ("standard_conforming_strings", "off"),
    // not yet: backslash_quote off, with which a string is refused whose first piece is then sent
    ("backslash_quote", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("TimeZone", "America/St_Johns"),
    ("plan_cache_mode", "force_generic_plan"),
    ("application_name", "an \"application\""),
    ("options", "-c work_mem=8MB -c row_security=on"),
    ("options", "-c default_with_oids=off -c geqo=off"),
    ("row_security", "off"),
    ("xmloption", "document"),
];

/// Session `number` of this seed. `wild` as for [`Grammar::new`], where changes behind the session's back come as well.
pub fn session(grammar: &Grammar, seed: u64, number: u64, wild: bool) -> Session {
    let mut dice = Dice::new(seed, number.wrapping_mul(0x9e37_79b9));
    let encoding = match dice.between(1, 20) {
        1..=13 => Encoding::Utf8,
        14..=15 => Encoding::Latin1,
        16 => Encoding::Win1252,
        17..=18 => Encoding::EucJp,
        _ => Encoding::SqlAscii,
    };
    let mut voice = Voice::new(grammar, encoding, dice);
    let role = match voice.dice.between(1, 20) {
        1..=10 => "app",
        11..=12 => "postgres",
        13..=14 => "blind",
        15..=16 => "columns",
        17..=19 => "guarded",
        _ => "reader",
    };
    let mut parameters = Vec::new();
    if encoding != Encoding::Utf8 || voice.dice.percent(20) {
        parameters.push(("client_encoding", encoding.name()));
    }
    for _ in 0..voice.pick(&[0, 0, 0, 1, 1, 2, 3]) {
        parameters.push(voice.pick(&PARAMETERS));
    }
    // a tame one sends what makes sense, and waits
    let tame = voice.dice.percent(60);
    let pace = match voice.dice.between(1, 10) {
        1..=5 => Pace::Stepwise,
        _ if tame && wild => Pace::Stepwise,
        6..=7 => Pace::Pipelined,
        _ => Pace::Grouped(voice.pick(&[2, 3, 5, 8])),
    };
    let end = if voice.dice.percent(85) { End::Query } else { End::HalfClose };
    let stepwise = pace == Pace::Stepwise;
    let (steps, prepared) = (Vec::new(), Vec::new());
    let mut writer = Writer { voice, steps, prepared, tame, wild, stepwise, alters: false };
    let length = writer.voice.pick(&[5, 8, 12, 12, 20, 40]);
    while writer.steps.len() < length {
        writer.chapter();
    }
    if !tame {
        writer.disturb();
    }
    Session { role, parameters, pace, end, alters: writer.alters, steps: playable(&writer.steps) }
}

/// A prepared statement.
#[derive(Debug, Clone)]
struct Prepared {
    name: &'static str,
    /// Of its parameters.
    kinds: Vec<String>,
    /// It gives rows, so that it may be run again where it stopped.
    gives: bool,
}

/// Writes a session, chapter after chapter.
#[derive(Debug)]
struct Writer<'a> {
    voice: Voice<'a>,
    steps: Vec<Step>,
    prepared: Vec<Prepared>,
    tame: bool,
    wild: bool,
    stepwise: bool,
    alters: bool,
}

impl Writer<'_> {
    fn send(&mut self, message: Message) {
        self.steps.push(Step::Send(message));
    }

    fn query(&mut self, sql: &str) {
        self.send(q(&self.voice.encoding.bytes(sql)));
    }

    /// Some messages are lost, come twice or in another order.
    fn disturb(&mut self) {
        for _ in 0..self.voice.pick(&[0, 0, 1, 2, 4]) {
            let last = i32::try_from(self.steps.len()).expect("a short session") - 1;
            if last < 1 {
                return;
            }
            let at = self.voice.dice.between(0, last) as usize;
            match self.voice.dice.between(1, 3) {
                1 => drop(self.steps.remove(at)),
                2 => self.steps.insert(at, self.steps[at].clone()),
                _ => self.steps.swap(at, last as usize / 2),
            }
        }
    }
}
