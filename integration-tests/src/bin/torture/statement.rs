//! One statement, drawn for a table: what is sent, what it may write, and which errors the database may give by itself.
use crate::schema::{Column, Role, Schema, Table, Use};
use crate::tier::{self, Tier};
use crate::value::{int, put};
use crate::{change, insert, other};
use integration_tests::history::Dice;

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its text, with values in it as [`value`](crate::value) marks them.
    pub sql: String,
    /// The form that it was drawn from.
    pub form: &'static str,
    /// Relations that it may write.
    pub tables: Vec<String>,
    /// SQLSTATEs that it may end with.
    pub states: Vec<&'static str>,
    /// Columns of each row that it gives.
    pub columns: usize,
    /// What is promised of it.
    pub tier: Tier,
    /// What COPY FROM STDIN is given.
    pub copy: Option<Vec<u8>>,
}

/// Any statement may end so under concurrency: serialization failure, deadlock.
pub const CONCURRENCY: [&str; 2] = ["40001", "40P01"];

impl Statement {
    /// A write of this table.
    pub fn write(draw: &Draw<'_>, table: &Table, form: &'static str, sql: String) -> Statement {
        Statement {
            sql,
            form,
            tables: table.family.clone(),
            states: table.states.clone(),
            columns: 0,
            tier: tier::of_form(form, draw.source).max(table.tier).max(draw.of_encoding(table)),
            copy: None,
        }
    }

    /// What writes no table.
    pub fn plain(form: &'static str, sql: impl Into<String>) -> Statement {
        let sql = sql.into();
        Statement { sql, form, tables: Vec::new(), states: Vec::new(), columns: 0, tier: Tier::Exact, copy: None }
    }

    /// Also reads or writes these.
    pub fn and(mut self, table: &Table, writes: bool) -> Statement {
        self.tables.extend(table.family.iter().cloned());
        if writes {
            self.states.extend(&table.states);
        }
        self
    }

    /// May also end with these.
    pub fn may(mut self, states: &[&'static str]) -> Statement {
        self.states.extend(states);
        self
    }

    /// Whether it may end so.
    pub fn allows(&self, state: &str) -> bool {
        CONCURRENCY.contains(&state) || self.states.contains(&state)
    }
}

/// What statements are drawn with.
#[derive(Debug)]
pub struct Draw<'a> {
    /// Chance.
    pub dice: &'a mut Dice,
    /// The tables.
    pub schema: &'a Schema,
    /// The source's major version.
    pub source: u32,
    /// Forms and tables above this aren't drawn.
    pub tier: Tier,
    /// The session's client_encoding isn't UTF8.
    pub converted: bool,
    /// Within a transaction that may hold what isn't exact: then all of it is of loose tables, since a hidden write in a
    /// transaction may be of any table that it names. Otherwise all of it is exact.
    pub loose: bool,
    /// Forms that aren't drawn.
    pub without: &'a [String],
}

impl<'a> Draw<'a> {
    /// Columns whose values can't be converted are declared.
    fn of_encoding(&self, table: &Table) -> Tier {
        if self.converted && table.needs_utf8() { Tier::Wanted } else { Tier::Exact }
    }

    /// Whether it may be drawn.
    pub fn takes(&self, statement: &Statement) -> bool {
        let loose = |name: &String| self.schema.holding(name).is_none_or(|table| table.loose);
        statement.tier <= self.tier
            && if self.loose { statement.tables.iter().all(loose) } else { statement.tier == Tier::Exact }
            && !self.without.iter().any(|form| form == statement.form)
    }

    /// A table that may be written.
    pub fn table(&mut self) -> &'a Table {
        self.dice.pick(&self.schema.tables)
    }

    /// A table of which something may be done, if there is one.
    pub fn table_for(&mut self, what: Use) -> Option<&'a Table> {
        let fit: Vec<&Table> = self.schema.tables.iter().filter(|table| table.allows(what)).collect();
        if fit.is_empty() { None } else { Some(*self.dice.pick(&fit)) }
    }

    /// A statement that writes or reads, of no higher tier than is wanted.
    pub fn statement(&mut self) -> Statement {
        for _ in 0..50 {
            let table = self.table();
            let statement = self.of(table);
            if let Some(statement) = statement.filter(|statement| self.takes(statement)) {
                return statement;
            }
        }
        Statement::plain("select", "SELECT 1").giving(1)
    }

    fn of(&mut self, table: &Table) -> Option<Statement> {
        if table.allows(Use::Queue) && self.dice.percent(60) {
            return Some(change::take_job(self, table));
        }
        match self.dice.between(1, 100) {
            1..=22 => Some(insert::rows(self, table)),
            // A table with rules takes no ON CONFLICT.
            23..=36 if table.kind != "ruled" => Some(insert::upsert(self, table)),
            23..=36 => Some(insert::rows(self, table)),
            37..=54 => Some(change::update(self, table)),
            55..=60 => change::update_few(self, table),
            61..=64 => change::update_key(self, table),
            65..=68 => Some(change::update_from(self, table)),
            69..=80 => Some(change::delete(self, table)),
            81..=83 => Some(change::delete_using(self, table)),
            84..=86 => other::merge(self, table),
            87..=89 => Some(other::write_in_with(self, table)),
            90..=92 => other::copy(self, table),
            93 => other::truncate(self, table),
            94..=97 => Some(other::select(self, table)),
            98 => Some(other::fails(self, table)),
            _ => Some(other::function(self, table)),
        }
    }

    /// A condition on a table's rows; columns behind `prefix`.
    pub fn condition(&mut self, table: &Table, prefix: &str) -> String {
        let keys = table.with_role(|role| *role == Role::Key);
        match self.dice.between(1, 100) {
            1..=55 if !keys.is_empty() => {
                let equal = |column: &&Column| {
                    format!(
                        "{prefix}{} = {}",
                        column.name,
                        put(column.ty, &column.ty.key(self.dice.between(1, table.space)))
                    )
                };
                keys.iter().map(equal).collect::<Vec<_>>().join(" AND ")
            }
            1..=55 if table.makes_keys() => format!("{prefix}id = {}", int(self.dice.between(1, 60))),
            56..=65 if keys.first().is_some_and(|key| key.ty == crate::value::Ty::Int) => {
                let low = self.dice.between(1, table.space);
                format!("{prefix}{} BETWEEN {} AND {}", keys[0].name, int(low), int(low + self.dice.between(0, 3)))
            }
            56..=70 if !keys.is_empty() => {
                let (key, space) = (keys[0], table.space);
                let list: Vec<_> = (0..3).map(|_| put(key.ty, &key.ty.key(self.dice.between(1, space)))).collect();
                format!("{prefix}{} IN ({})", key.name, list.join(", "))
            }
            71..=75 => {
                let other = self.table();
                format!("{prefix}n % 7 = (SELECT coalesce(max(o.n), 0) % 7 FROM {} o)", other.name)
            }
            _ => format!("{prefix}n % 5 = {}", int(self.dice.between(0, 4))),
        }
    }

    /// What `n` becomes, computed from what it was where `prefix` says so.
    pub fn number(&mut self, prefix: &str) -> String {
        let k = int(self.dice.between(1, 1000));
        match self.dice.between(1, 10) {
            1..=6 => format!("({prefix}n * 31 + {k}) % 1000003"),
            7 => format!("{prefix}n + 1"),
            8 => {
                let other = self.table();
                format!("(SELECT coalesce(sum(o.n), 0) % 1000003 FROM {} o)", other.name)
            }
            9 => format!("CASE WHEN {prefix}n % 2 = 0 THEN {k} ELSE {prefix}n END"),
            _ => k,
        }
    }

    /// A RETURNING list, or nothing; and the number of its columns.
    pub fn returning(&mut self, table: &Table, prefix: &str) -> (String, usize) {
        if !self.dice.percent(30) {
            return (String::new(), 0);
        }
        match self.dice.between(1, 4) {
            1 => (format!(" RETURNING {prefix}n"), 1),
            2 => (format!(" RETURNING {prefix}n + 1 AS next, {prefix}{}", table.columns[0].name), 2),
            3 => (format!(" RETURNING (SELECT count(*) FROM {} c), {prefix}n", table.name), 2),
            _ => {
                let names: Vec<_> = table.columns.iter().map(|column| format!("{prefix}{}", column.name)).collect();
                (format!(" RETURNING {}", names.join(", ")), names.len())
            }
        }
    }
}

impl Statement {
    /// Gives rows of so many columns.
    pub fn giving(mut self, columns: usize) -> Statement {
        self.columns = columns;
        self
    }
}
