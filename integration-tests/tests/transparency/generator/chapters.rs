//! Parts of sessions that are Queries.
use super::Writer;
use crate::messages::{copy_data, copy_done, copy_fail, function_call, message, sync};
use crate::transcript::Step;

impl Writer<'_> {
    /// Some messages that belong together.
    pub fn chapter(&mut self) {
        match self.voice.dice.between(1, 100) {
            1..=19 => self.simple(),
            20..=22 => self.another_role(),
            23..=34 => self.string(),
            35..=50 => self.extended(),
            51..=57 => self.pipeline(),
            58..=68 => self.block(),
            69..=72 => self.again(),
            73..=78 => self.copy(),
            79..=82 => self.cursor(),
            83..=86 => self.prepare(),
            87..=93 => self.define(),
            94..=95 => self.talk(),
            96 => self.two_phase(),
            97 => self.function(),
            _ if self.tame => self.settings(),
            _ => self.stray(),
        }
    }

    fn simple(&mut self) {
        let sql = self.voice.say("statement");
        self.query(&sql);
    }

    fn settings(&mut self) {
        let sql = self.voice.say("utility");
        self.query(&sql);
        self.extended();
    }

    /// Several statements in one string.
    fn string(&mut self) {
        // not yet: transaction control in a string that was sent before the answer to another Query
        if !self.stepwise {
            return self.simple();
        }
        let count = self.voice.dice.between(2, 5);
        let mut parts: Vec<_> = (0..count)
            .map(|_| {
                // control in the middle, and settings, make everything suspect
                let rules = ["statement", "statement", "write", "write", "wrong", "control", "utility"];
                let rule = self.voice.pick(&rules[..if self.wild { 7 } else { 5 }]);
                let sql = self.voice.say(rule);
                // not yet: who the session is changes in front of a write in the same string
                let becomes = ["ROLE", "AUTHORIZATION", "row_security", "DISCARD ALL", "RESET ALL"];
                if becomes.iter().any(|word| sql.contains(word)) { "SELECT 1".into() } else { sql }
            })
            .collect();
        if self.voice.dice.percent(40) {
            parts.insert(0, self.voice.say("begin"));
            parts.push(self.voice.say("end"));
        }
        let between = self.voice.pick(&["; ", ";", ";\n", " ;; ", "\n;--x\n"]);
        self.query(&parts.join(between));
    }

    /// Who the session is changes in front of what it may do.
    fn another_role(&mut self) {
        let mut parts = vec![self.voice.say("become")];
        for _ in 0..self.voice.dice.between(1, 3) {
            let rule = self.voice.pick(&["rights", "rights", "write", "become"]);
            parts.push(self.voice.say(rule));
        }
        parts.push("RESET ROLE".into());
        // not yet: in one string, whose writes are then planned for who the session was before
        match self.voice.dice.between(1, 3) {
            1 => {
                parts.iter().for_each(|sql| self.run_unsynced(sql));
                self.send(sync());
            }
            2 => {
                self.query("BEGIN");
                parts.iter().for_each(|sql| self.either(sql));
                self.say_either("end");
            }
            _ => parts.iter().for_each(|sql| self.either(sql)),
        }
    }

    /// A statement as a Query, or extended.
    fn either(&mut self, sql: &str) {
        if self.voice.dice.percent(70) {
            self.query(sql);
        } else {
            self.run(sql);
        }
    }

    fn say_either(&mut self, rule: &str) {
        let sql = self.voice.say(rule);
        self.either(&sql);
    }

    /// A transaction.
    fn block(&mut self) {
        self.say_either("begin");
        for _ in 0..self.voice.dice.between(1, 5) {
            match self.voice.dice.between(1, 20) {
                1..=5 => self.simple(),
                6..=10 => self.extended(),
                11..=14 => self.say_either("savepoint"),
                15 => self.say_either("wrong"),
                16 => self.string(),
                17 => self.copy(),
                18 => self.again(),
                19 => self.define(),
                _ => self.pipeline(),
            }
        }
        self.say_either("end");
    }

    fn cursor(&mut self) {
        if self.voice.dice.percent(80) {
            self.query("BEGIN");
        }
        self.say_either("cursor");
        for _ in 0..self.voice.dice.between(1, 4) {
            self.say_either("with_cursor");
        }
        self.say_either("end");
        if self.voice.dice.percent(30) {
            self.say_either("with_cursor");
        }
    }

    fn prepare(&mut self) {
        self.say_either("prepare");
        for _ in 0..self.voice.dice.between(1, 3) {
            let rule = self.voice.pick(&["execute", "execute", "execute", "utility", "prepare", "write"]);
            self.say_either(rule);
        }
    }

    fn talk(&mut self) {
        for sql in ["LISTEN one", "NOTIFY one, 'before'", "BEGIN", "NOTIFY one, 'inside'", "NOTIFY one, 'inside'"] {
            self.either(sql);
        }
        self.say_either("write");
        self.say_either("end");
        if self.voice.dice.percent(50) {
            self.query("UPDATE t SET v = 0 WHERE id = 1; NOTIFY one; UNLISTEN one");
        }
    }

    fn two_phase(&mut self) {
        let id = self.voice.pick(&["one", "two"]);
        self.query("BEGIN");
        self.say_either("write");
        self.either(&format!("PREPARE TRANSACTION '{id}'"));
        if self.voice.dice.percent(20) {
            self.query("SELECT 1");
        }
        let word = self.voice.pick(&["COMMIT", "COMMIT", "ROLLBACK"]);
        self.either(&format!("{word} PREPARED '{id}'"));
    }

    /// OIDs of functions: lower(text) 870, int4pl 177, pg_sleep none.
    fn function(&mut self) {
        let (oid, arguments) = self.voice.pick(&[
            (870, ["ABC"].as_slice()),
            (177, &["1", "2"]),
            (177, &["1"]),
            (1, &["a"]),
            (177, &["1", "x"]),
        ]);
        self.send(function_call(oid, arguments));
    }

    /// Definitions that prepared statements live through: ours, or made behind our back.
    fn define(&mut self) {
        self.alters = true;
        let sql = self.voice.say("lab_write");
        let name = self.voice.pick(&["s1", "s2", ""]);
        let prepared = self.prepare_as(name, &sql, Vec::new());
        self.run_prepared(&prepared);
        let quoted = self.voice.dice.percent(30);
        if quoted {
            self.query(&format!("PREPARE l AS {sql}"));
        }
        for _ in 0..self.voice.dice.between(1, 2) {
            let sql = self.voice.say("ddl");
            if self.tame && self.wild && self.voice.dice.percent(50) {
                self.steps.push(Step::Behind(sql));
            } else {
                self.either(&sql);
            }
            self.run_prepared(&prepared);
            if quoted {
                self.query("EXECUTE l");
            }
            self.say_either("lab_write");
        }
        if quoted {
            self.query("DEALLOCATE l");
        }
    }

    fn copy(&mut self) {
        if self.voice.dice.percent(25) {
            return self.say_either("copy_out");
        }
        let sql = self.voice.say("copy_in");
        let extended = self.voice.dice.percent(30);
        if extended {
            self.run_unsynced(&sql);
        } else if self.voice.dice.percent(15) {
            let (before, after) = (self.voice.say("write"), self.voice.say("read"));
            self.query(&format!("{before}; {sql}; {after}"));
        } else {
            self.query(&sql);
        }
        let data = if sql.contains("binary") { binary_rows() } else { self.rows(&sql) };
        self.parts(&data);
        match self.voice.dice.between(1, 12) {
            1 => self.send(copy_fail("no more")),
            // not yet: a Sync behind a COPY that failed, and an extended COPY that isn't ended: answers to statements of
            // our own are seen then
            2 if !self.tame && !extended => {}
            _ => self.send(copy_done()),
        }
        if extended {
            self.send(sync());
        }
    }

    fn parts(&mut self, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let whole = self.voice.dice.percent(50);
            let length = if whole { rest.len() } else { (self.voice.dice.between(1, 12) as usize).min(rest.len()) };
            let (part, after) = rest.split_at(length);
            self.send(copy_data(part));
            rest = after;
        }
    }

    fn rows(&mut self, sql: &str) -> Vec<u8> {
        let lower = sql.to_lowercase();
        let between = if lower.contains("csv") {
            ","
        } else if sql.contains('|') {
            "|"
        } else {
            "\t"
        };
        let mut text = String::new();
        if lower.contains("header") {
            text.push_str(&["id", "v", "s\n"].join(between));
        }
        for _ in 0..self.voice.dice.between(0, 4) {
            let (key, int, chars) = (self.voice.say("newkey"), self.voice.say("int"), self.voice.say("chars"));
            let int = int.replace("NULL", "\\N");
            let fields: Vec<&str> = match self.voice.dice.between(1, 14) {
                1 => vec![&key],
                2 => vec!["x", &int, &chars],
                3 => vec![&key, &int, "\u{e0ff}\u{e0fe}"],
                4 => vec![&key, &int, &chars, "more"],
                5 => vec!["\\."],
                6 => vec![&key, "a", &int],
                7..=8 if sql.contains("(a)") || sql.contains("(u)") => vec![&key],
                7..=9 if !sql.contains(" t") => vec![&key, &int],
                _ => vec![&key, &int, &chars],
            };
            text.push_str(&fields.join(between));
            text.push('\n');
        }
        self.voice.encoding.bytes(&text)
    }

    /// What a client shouldn't send at this place.
    fn stray(&mut self) {
        let stray = match self.voice.dice.between(1, 7) {
            1 => copy_data(b"60\t1\ta\n"),
            2 => copy_done(),
            3 => copy_fail("nothing"),
            4 => sync(),
            5 => message(b'D', b"Zx\0"),
            6 => message(b'B', b"\0\0\0\0\0\x05\0\0"),
            _ => message(b'P', b"x\0UPDATE t SET v = 1\0"),
        };
        self.send(stray);
    }
}

/// Two rows of `t` in the binary format.
fn binary_rows() -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (id, text) in [(61_i32, "binary"), (62, "rows")] {
        bytes.extend(3_i16.to_be_bytes());
        for value in [&id.to_be_bytes(), &5_i32.to_be_bytes(), text.as_bytes()] {
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend(value);
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}
