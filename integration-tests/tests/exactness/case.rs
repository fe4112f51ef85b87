//! What one kind of statement is tried with: its tables, who sends what in which order, and what must come of it.

/// What stands in a promise for "every table".
pub const EVERY_TABLE: &str = "every table";

/// What must come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// All its tables are equal afterwards; none is suspect, nothing was found or mended.
    Exact,
    /// At most these tables are suspect, each for a reason that holds this text; all others are equal.
    Declared(&'static [(&'static str, &'static str)]),
    /// Not done on the shadow, and the DBA is told so by a finding that holds this text.
    Reported(&'static str),
}

/// How the statements of a case are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Query.
    Simple,
    /// Parse, Bind, Describe, Execute.
    Extended,
}

/// What is around the statements of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Around {
    /// Nothing: each statement is its own transaction, or the case has its own control of transactions.
    Nothing,
    /// BEGIN and COMMIT.
    Block,
    /// One string with all statements, or one Sync behind all of them: an implicit transaction.
    Together,
}

/// One way to run a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    pub protocol: Protocol,
    pub around: Around,
}

/// One thing that is done.
#[derive(Debug, Clone)]
pub enum Step {
    /// A session sends a statement and reads its whole answer; `Some` SQLSTATE: it must fail with it.
    Run { session: usize, statement: Statement, fails: Option<&'static str> },
    /// A session sends a statement, which then waits for a lock that another one holds.
    Start { session: usize, statement: Statement },
    /// The answer to what a session started.
    Finish { session: usize },
    /// Another session, past pgshadow: on the source, and on the target as well.
    Behind { sql: &'static str, both: bool },
}

/// A statement as the client writes it.
#[derive(Debug, Clone)]
pub struct Statement {
    /// `$1` stands for a parameter: a literal in the simple protocol. `{s}` is the schema's name, `{f}` a name that is
    /// the case's own.
    pub sql: &'static str,
    /// In text form, their types left to the server.
    pub parameters: &'static [&'static str],
    /// What COPY is given.
    pub copy: Option<&'static [u8]>,
    /// Row limit of the first two Executes; a third one has none. 0: one Execute.
    pub portion: i32,
}

impl Statement {
    /// Without parameters.
    pub fn plain(sql: &'static str) -> Statement {
        Statement { sql, parameters: &[], copy: None, portion: 0 }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Case {
    pub section: &'static str,
    /// As the document names it; there is no other of that name.
    pub kind: &'static str,
    pub schema: String,
    /// Run by the superuser after the schema, on all places.
    pub admin: String,
    /// Who the sessions are.
    pub role: &'static str,
    pub steps: Vec<Step>,
    /// By the source's major version from which on it holds, ascending; the first from 0.
    pub promises: Vec<(u32, Promise)>,
    /// The oldest source that knows the statement.
    pub since: u32,
    /// Only as it is written, or in one string, or with BEGIN around it too.
    pub around: Vec<Around>,
    pub protocols: Vec<Protocol>,
    /// Two runs don't store the same values: only the source and its shadow are compared.
    pub volatile: bool,
    /// It may touch more than its own tables, so that it has databases of its own.
    pub alone: bool,
    /// Sent as one string, a statement would change what the rest of it means.
    pub apart: bool,
    /// What one of the statements fails with where they are sent together.
    pub together_fails: Option<&'static str>,
    /// A word that must not lie on pgshadow's disk afterwards.
    pub secret: Option<&'static str>,
    /// Exact or suspect by chance: it comes so soon after a definition that functions may not be known again.
    pub unsettled: bool,
}

/// A kind of statement on these tables, exact without further words.
pub fn case(kind: &'static str, schema: impl Into<String>) -> Case {
    Case {
        section: "",
        kind,
        schema: schema.into(),
        admin: String::new(),
        role: "app",
        steps: Vec::new(),
        promises: vec![(0, Promise::Exact)],
        since: 0,
        around: vec![Around::Nothing, Around::Block, Around::Together],
        protocols: vec![Protocol::Simple, Protocol::Extended],
        volatile: false,
        alone: false,
        apart: false,
        secret: None,
        together_fails: None,
        unsettled: false,
    }
}

impl Case {
    fn step(mut self, step: Step) -> Self {
        let plain = matches!(&step, Step::Run { session: 0, statement, fails: None } if statement.copy.is_none());
        if !plain {
            self.around.retain(|around| *around != Around::Together);
        }
        if !matches!(step, Step::Run { session: 0, fails: None, .. }) {
            self.around.retain(|around| *around == Around::Nothing);
        }
        self.steps.push(step);
        self
    }

    fn statement(sql: &'static str, parameters: &'static [&'static str]) -> Statement {
        Statement { parameters, ..Statement::plain(sql) }
    }

    /// A statement.
    pub fn q(self, sql: &'static str) -> Self {
        self.p(sql, &[])
    }

    /// Several statements, each sent by itself.
    pub fn each(self, all: &[&'static str]) -> Self {
        all.iter().fold(self, |case, sql| case.q(sql))
    }

    /// A statement with parameters.
    pub fn p(self, sql: &'static str, parameters: &'static [&'static str]) -> Self {
        self.step(Step::Run { session: 0, statement: Self::statement(sql, parameters), fails: None })
    }

    /// A statement that the server refuses.
    pub fn fails(self, sql: &'static str, state: &'static str) -> Self {
        self.step(Step::Run { session: 0, statement: Self::statement(sql, &[]), fails: Some(state) })
    }

    /// All statements together, one of which fails with this SQLSTATE.
    pub fn fails_together(mut self, state: &'static str) -> Self {
        self.together_fails = Some(state);
        self.around(&[Around::Together])
    }

    /// COPY FROM STDIN and its lines.
    pub fn copy(self, sql: &'static str, lines: &'static str) -> Self {
        self.copy_bytes(sql, lines.as_bytes())
    }

    /// COPY FROM STDIN in another form than text.
    pub fn copy_bytes(self, sql: &'static str, data: &'static [u8]) -> Self {
        let statement = Statement { sql, parameters: &[], copy: Some(data), portion: 0 };
        self.step(Step::Run { session: 0, statement, fails: None })
    }

    /// A statement whose rows the client fetches so many at a time.
    pub fn portions(self, sql: &'static str, portion: i32) -> Self {
        let statement = Statement { portion, ..Self::statement(sql, &[]) };
        self.step(Step::Run { session: 0, statement, fails: None })
    }

    /// [`portions`](Self::portions) of which the server refuses the second.
    pub fn portions_fail(self, sql: &'static str, portion: i32, state: &'static str) -> Self {
        let statement = Statement { portion, ..Self::statement(sql, &[]) };
        self.step(Step::Run { session: 0, statement, fails: Some(state) })
    }

    /// A statement of another session than the first, which is number 0.
    pub fn by(self, session: usize, sql: &'static str) -> Self {
        self.step(Step::Run { session, statement: Self::statement(sql, &[]), fails: None }).unwrapped()
    }

    /// [`fails`](Self::fails) in another session.
    pub fn fails_by(self, session: usize, sql: &'static str, state: &'static str) -> Self {
        self.step(Step::Run { session, statement: Self::statement(sql, &[]), fails: Some(state) })
    }

    /// A session starts a statement, which waits for a lock.
    pub fn start(self, session: usize, sql: &'static str) -> Self {
        self.start_with(session, sql, &[])
    }

    /// [`start`](Self::start) with parameters.
    pub fn start_with(self, session: usize, sql: &'static str, parameters: &'static [&'static str]) -> Self {
        self.step(Step::Start { session, statement: Self::statement(sql, parameters) })
    }

    /// A statement that is sent to the source itself.
    pub fn behind(self, sql: &'static str) -> Self {
        self.step(Step::Behind { sql, both: false })
    }

    /// A statement that is sent to the source and to the target itself.
    pub fn behind_on_both(self, sql: &'static str) -> Self {
        self.step(Step::Behind { sql, both: true })
    }

    /// What a session started is answered.
    pub fn finish(self, session: usize) -> Self {
        self.step(Step::Finish { session })
    }

    /// Sent only as it is written: it has its own control of transactions, or can't run in one.
    pub fn unwrapped(self) -> Self {
        self.around(&[Around::Nothing])
    }

    /// What may be around it.
    pub fn around(mut self, around: &[Around]) -> Self {
        self.around.retain(|known| around.contains(known));
        self
    }

    /// Its text is only possible in this protocol.
    pub fn only(mut self, protocol: Protocol) -> Self {
        self.protocols = vec![protocol];
        self
    }

    /// The role that sends it.
    pub fn role(mut self, role: &'static str) -> Self {
        self.role = role;
        self
    }

    /// What the superuser does after the schema was made, on all places.
    pub fn admin(mut self, sql: impl Into<String>) -> Self {
        self.admin = sql.into();
        self
    }

    /// The oldest source that has it.
    pub fn since(mut self, major: u32) -> Self {
        self.since = major;
        self
    }

    /// It is declared.
    pub fn declared(mut self, tables: &'static [(&'static str, &'static str)]) -> Self {
        self.promises = vec![(0, Promise::Declared(tables))];
        self
    }

    /// It is declared before this version of the source, and exact from it on.
    pub fn declared_before(mut self, major: u32, tables: &'static [(&'static str, &'static str)]) -> Self {
        self.promises = vec![(0, Promise::Declared(tables)), (major, Promise::Exact)];
        self
    }

    /// It may have written anywhere, and no table can be named.
    pub fn everywhere(self, reason: &'static [(&'static str, &'static str)]) -> Self {
        self.declared(reason).alone()
    }

    /// It isn't done on the shadow; the DBA is told.
    pub fn reported(mut self, text: &'static str) -> Self {
        self.promises = vec![(0, Promise::Reported(text))];
        self.alone()
    }

    /// Its values are others in each run.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Never as one string, where a statement would change what the rest of it means: that is a case of its own.
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// This word is stored nowhere.
    pub fn secret(mut self, word: &'static str) -> Self {
        self.secret = Some(word);
        self
    }

    /// Exact or suspect by chance.
    pub fn unsettled(mut self) -> Self {
        self.unsettled = true;
        self
    }

    /// Whether it changes definitions.
    pub fn defines(&self) -> bool {
        let defines = |sql: &str| {
            let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_uppercase();
            let words = ["CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "COMMENT", "REFRESH", "DO"];
            sql.split(';').any(|text| words.contains(&first(text).as_str())) || sql.contains(" INTO fresh")
        };
        self.steps.iter().any(|step| match step {
            Step::Run { statement, .. } | Step::Start { statement, .. } => defines(statement.sql),
            Step::Behind { sql, .. } => defines(sql),
            Step::Finish { .. } => false,
        })
    }

    /// Has databases and a pgshadow of its own.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// What is promised with a source of this version.
    pub fn promise(&self, major: u32) -> Promise {
        self.promises.iter().rev().find(|(from, _)| *from <= major).map_or(Promise::Exact, |(_, promise)| *promise)
    }

    /// All ways in which it is run.
    pub fn ways(&self) -> Vec<Way> {
        let around = |protocol| self.around.iter().map(move |around| Way { protocol, around: *around });
        let one_string = Way { protocol: Protocol::Simple, around: Around::Together };
        let ways = self
            .protocols
            .iter()
            .flat_map(|protocol| around(*protocol))
            .filter(|way| !self.apart || *way != one_string);
        // Those that need a pgshadow of their own take long: once in each protocol.
        ways.filter(|way| !self.alone || Some(&way.around) == self.around.first()).collect()
    }
}
