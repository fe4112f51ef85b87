//! Parts of sessions in the extended protocol.
use super::{Prepared, Writer};
use crate::messages::{
    bind, bind_full, close_portal, close_statement, describe_portal, describe_statement, execute, flush, parse,
    parse_typed, q, sync,
};

/// The last one is longer than a name may be in SQL.
const STATEMENTS: [&str; 6] = [
    "",
    "",
    "s1",
    "s2",
    "a \"name\"",
    "name-of-a-prepared-statement-that-is-longer-than-sixty-three-characters-in-all",
];
const PORTALS: [&str; 5] = ["", "", "", "p1", "p2"];

/// The type's OID that a parameter of this kind has.
fn oid(kind: &str) -> u32 {
    match kind {
        "int" | "key" | "newkey" | "number" | "digit" => 23,
        "bool" => 16,
        "array" => 1007,
        "mood" => 0,
        _ => 25,
    }
}

impl Writer<'_> {
    /// A text for the extended protocol and its parameters' kinds.
    fn text(&mut self) -> (String, Vec<String>) {
        if self.voice.dice.percent(35) {
            return (self.voice.say("statement"), Vec::new());
        }
        let line = self.voice.say("parametrised");
        match line.split_once(" ;; ") {
            Some((sql, kinds)) => (sql.to_owned(), kinds.split(' ').map(str::to_owned).collect()),
            None => (line, Vec::new()),
        }
    }

    /// Unnamed: Parse, Bind, Describe, Execute, Sync.
    pub fn run(&mut self, sql: &str) {
        self.run_unsynced(sql);
        self.send(sync());
    }

    pub fn run_unsynced(&mut self, sql: &str) {
        self.send(parse("", &self.voice.encoding.bytes(sql)));
        self.send(bind("", "", &[]));
        if self.voice.dice.percent(70) {
            self.send(describe_portal(""));
        }
        self.send(execute("", 0));
    }

    pub fn prepare_as(&mut self, name: &'static str, sql: &str, kinds: Vec<String>) -> Prepared {
        if !name.is_empty() && self.voice.dice.percent(70) {
            self.send(close_statement(name));
        }
        let mut types: Vec<u32> = kinds.iter().map(|kind| oid(kind)).collect();
        match self.voice.dice.between(1, 12) {
            1..=7 => types.clear(),
            8 => types.iter_mut().for_each(|oid| *oid = 0),
            9 => drop(types.pop()),
            10 if !self.tame => types.push(20),
            _ => {}
        }
        self.send(parse_typed(name, &self.voice.encoding.bytes(sql), &types));
        if self.voice.dice.percent(50) {
            self.send(describe_statement(name));
        }
        match self.voice.dice.between(1, 10) {
            1..=2 => self.send(flush()),
            3..=5 => self.send(sync()),
            _ => {}
        }
        self.prepared.retain(|known| known.name != name);
        let gives = sql.contains("RETURNING") || sql.starts_with("SELECT") || sql.starts_with("WITH");
        let prepared = Prepared { name, kinds, gives };
        self.prepared.push(prepared.clone());
        prepared
    }

    /// Bind, some Describe and Execute; no Sync.
    fn bind_and_execute(&mut self, prepared: &Prepared) {
        let Prepared { name, kinds, gives } = prepared;
        let portal = self.voice.pick(&PORTALS);
        let mut formats: Vec<i16> = Vec::new();
        let mut values: Vec<Option<Vec<u8>>> = Vec::new();
        for kind in kinds {
            let text = self.voice.say(kind);
            let binary = self.voice.dice.percent(20);
            formats.push(i16::from(binary));
            values.push(match text.parse::<i32>() {
                _ if text == "NULL" => None,
                Ok(number) if binary && oid(kind) == 23 => Some(number.to_be_bytes().to_vec()),
                _ => Some(self.voice.encoding.bytes(&text)),
            });
        }
        if !formats.contains(&1) && self.voice.dice.percent(70) {
            formats.truncate(usize::from(self.voice.dice.percent(50)));
        }
        match self.voice.dice.between(1, 40) {
            1 => drop(values.pop()),
            2 => values.push(Some(b"7".to_vec())),
            3 => formats.push(1),
            4 => formats = vec![2],
            _ => {}
        }
        let results = match self.voice.dice.between(1, 20) {
            1..=9 => Vec::new(),
            10..=12 => vec![0],
            13..=16 => vec![1],
            17 => vec![2],
            _ => (0..self.voice.dice.between(2, 4)).map(|_| self.voice.pick(&[0, 1])).collect(),
        };
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        self.send(bind_full(portal, name, &formats, &values, &results));
        if self.voice.dice.percent(60) {
            self.send(describe_portal(portal));
        }
        self.executes(portal, *gives);
        if self.voice.dice.percent(10) {
            self.send(close_portal(portal));
        }
    }

    fn executes(&mut self, portal: &str, gives: bool) {
        let limits: &[i32] = match self.voice.dice.between(1, 20) {
            1 => &[],
            2 => &[1],
            7 if !gives && !self.tame => &[0, 0],
            _ if !gives => &[0],
            3 => &[2, 2],
            4 => &[1, 0],
            5 => &[1, 1, 1, 1],
            6 => &[3, -1],
            7 if !self.tame => &[0, 0],
            8 => &[1000],
            _ => &[0],
        };
        for limit in limits {
            self.send(execute(portal, *limit));
            if self.voice.dice.percent(5) {
                self.send(flush());
            }
        }
    }

    pub fn run_prepared(&mut self, prepared: &Prepared) {
        self.bind_and_execute(prepared);
        self.send(sync());
    }

    /// One statement, prepared and run.
    pub fn extended(&mut self) {
        let (sql, kinds) = self.text();
        let name = self.voice.pick(&STATEMENTS);
        let prepared = self.prepare_as(name, &sql, kinds);
        for _ in 0..self.voice.pick(&[1, 1, 1, 2, 3]) {
            self.bind_and_execute(&prepared);
            if self.voice.dice.percent(30) {
                self.send(sync());
            }
        }
        if self.tame || self.voice.dice.percent(85) {
            self.send(sync());
        }
    }

    /// A statement that was prepared earlier, or never.
    pub fn again(&mut self) {
        let mut known = self.prepared.clone();
        if known.is_empty() {
            known.push(Prepared { name: "s3", kinds: Vec::new(), gives: false });
        }
        let prepared = self.voice.pick(&known);
        let name = prepared.name;
        match self.voice.dice.between(1, 8) {
            1 => self.send(describe_statement(name)),
            2 => self.send(close_statement(name)),
            _ => self.bind_and_execute(&prepared),
        }
        if self.tame || self.voice.dice.percent(80) {
            self.send(sync());
        }
    }

    /// Several statements before one Sync.
    pub fn pipeline(&mut self) {
        for _ in 0..self.voice.dice.between(2, 5) {
            match self.voice.dice.between(1, 12) {
                1..=5 => {
                    let (sql, kinds) = self.text();
                    let name = self.voice.pick(&STATEMENTS);
                    let prepared = self.prepare_as(name, &sql, kinds);
                    self.bind_and_execute(&prepared);
                }
                6..=7 => {
                    let sql = self.voice.say("control");
                    self.run_unsynced(&sql);
                }
                8 => {
                    let sql = self.voice.say("wrong");
                    self.run_unsynced(&sql);
                }
                9 if !self.tame => {
                    let sql = self.voice.say("statement");
                    self.send(q(&self.voice.encoding.bytes(&sql)));
                }
                10 => self.send(flush()),
                11 => self.send(describe_portal("p1")),
                _ => {
                    let sql = self.voice.say("write");
                    self.run_unsynced(&sql);
                }
            }
        }
        if self.tame || self.voice.dice.percent(80) {
            self.send(sync());
        }
    }
}
