use std::ops::Range;

use crate::ddl::Ddl;
use crate::table_lock::TableLock;
use crate::write::{RelationName, Returned, Write};

/// What one query string contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Its statements in order; empty for an empty query string.
    pub statements: Vec<Statement>,
}

/// One statement of a query string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the whole text, from the first byte of its first token to the end of its last one: without
    /// `;`, surrounding whitespace and comments. The statement inside EXPLAIN, PREPARE or COPY has the outer one's range.
    pub range: Range<usize>,
    /// What it does.
    pub kind: StatementKind,
    /// Every function that it calls by name, at any depth, each once, in order of appearance.
    ///
    /// Operators, casts, input functions, `t.f` in place of `f(t)` and what the catalog adds (defaults, views, triggers)
    /// aren't here.
    pub functions: Vec<FunctionName>,
    /// Every relation that it names, without the schema: it may be a view that calls functions.
    pub relations: Vec<String>,
    /// Every operator, type and column that it names, without the schema, built-in ones too: functions may stand behind them.
    pub other_names: Vec<String>,
    /// It uses `CURRENT_TIMESTAMP`, `CURRENT_USER` or another of the value functions that are grammar and not calls.
    pub value_functions: bool,
    /// What a change of definitions locks so that others can't read or write its rows.
    pub locks: Vec<TableLock>,
}

/// A function as it is called, in the parser's case folding (lower case unless quoted).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    /// The schema, if it is given.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

/// What a statement does, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // a write is the common case, and statements are cached
pub enum StatementKind {
    /// INSERT
    Insert(Write),
    /// UPDATE
    Update(Write),
    /// DELETE
    Delete(Write),
    /// MERGE
    Merge(Write),
    /// SELECT, VALUES, TABLE
    Select {
        /// The table made by SELECT INTO.
        into: Option<RelationName>,
        /// FOR UPDATE, FOR SHARE and so on at any depth.
        locking: bool,
        /// Tables written by data-modifying CTEs in it.
        writes_in_with: Vec<RelationName>,
    },
    /// BEGIN, START TRANSACTION
    Begin,
    /// COMMIT, END
    Commit {
        /// AND CHAIN
        chain: bool,
    },
    /// ROLLBACK, ABORT
    Rollback {
        /// AND CHAIN
        chain: bool,
    },
    /// SAVEPOINT
    Savepoint {
        /// Its name.
        name: String,
    },
    /// RELEASE SAVEPOINT
    Release {
        /// Its name.
        name: String,
    },
    /// ROLLBACK TO SAVEPOINT
    RollbackTo {
        /// Its name.
        name: String,
    },
    /// PREPARE TRANSACTION
    PrepareTransaction {
        /// The global identifier.
        gid: String,
    },
    /// COMMIT PREPARED
    CommitPrepared {
        /// The global identifier.
        gid: String,
    },
    /// ROLLBACK PREPARED
    RollbackPrepared {
        /// The global identifier.
        gid: String,
    },
    /// COPY
    Copy(CopyCommand),
    /// TRUNCATE
    Truncate {
        /// The tables named.
        tables: Vec<RelationName>,
        /// CASCADE
        cascade: bool,
        /// RESTART IDENTITY
        restart_identity: bool,
    },
    /// SET, RESET
    Set {
        /// The setting in lower case; `None` is RESET ALL. SET TRANSACTION is `transaction`,
        /// SET SESSION CHARACTERISTICS is `session characteristics`.
        name: Option<String>,
        /// SET LOCAL
        local: bool,
        /// What becomes of it.
        kind: SetKind,
    },
    /// SHOW
    Show,
    /// DISCARD
    Discard(Discard),
    /// PREPARE
    Prepare {
        /// The prepared statement's name.
        name: String,
        /// What it will run.
        statement: Box<Statement>,
    },
    /// EXECUTE
    Execute {
        /// The prepared statement's name.
        name: String,
    },
    /// DEALLOCATE
    Deallocate {
        /// The prepared statement's name; `None` is ALL.
        name: Option<String>,
    },
    /// DECLARE CURSOR
    DeclareCursor {
        /// The cursor's name.
        name: String,
        /// WITH HOLD
        hold: bool,
        /// FOR UPDATE, FOR SHARE and so on at any depth.
        locking: bool,
        /// Tables written by data-modifying CTEs in it (which the server refuses).
        writes_in_with: Vec<RelationName>,
    },
    /// FETCH, MOVE
    Fetch {
        /// The cursor's name.
        cursor: String,
    },
    /// CLOSE
    Close {
        /// The cursor's name; `None` is ALL.
        cursor: Option<String>,
    },
    /// EXPLAIN
    Explain {
        /// The statement is run as well.
        analyze: bool,
        /// What is explained.
        statement: Box<Statement>,
    },
    /// CALL
    Call,
    /// DO
    Do,
    /// LISTEN
    Listen,
    /// NOTIFY
    Notify,
    /// UNLISTEN
    Unlisten,
    /// LOCK TABLE
    Lock {
        /// The tables named.
        tables: Vec<RelationName>,
    },
    /// SET CONSTRAINTS
    SetConstraints {
        /// DEFERRED, else IMMEDIATE
        deferred: bool,
    },
    /// What changes neither rows nor definitions.
    Maintenance {
        /// ANALYZE, CHECKPOINT, CLUSTER, REINDEX or VACUUM
        command: &'static str,
        /// `false`: the server refuses it inside a transaction block (where that can be told from the text).
        in_transaction_block_allowed: bool,
    },
    /// A change of definitions.
    Ddl(Ddl),
    /// Everything else (LOAD).
    Other,
}

/// COPY
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCommand {
    /// The table, unless a query is copied.
    pub relation: Option<RelationName>,
    /// The column list, empty if none.
    pub columns: Vec<String>,
    /// FROM, else TO
    pub from: bool,
    /// The data goes through the client's connection.
    pub stdin_stdout: bool,
    /// Tables that the copied query writes, by itself or in its WITH.
    pub query_writes: Vec<RelationName>,
    /// The data goes to or comes from a file or program on the server.
    pub program_or_file: bool,
    /// The options in lower case with their values as text (lists joined by commas).
    pub options: Vec<(String, Option<String>)>,
    /// COPY FROM ... WHERE
    pub where_clause: bool,
}

/// What SET does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetKind {
    /// SET name = values (as text)
    Value(Vec<String>),
    /// SET name TO DEFAULT
    Default,
    /// SET name FROM CURRENT
    FromCurrent,
    /// SET TRANSACTION, SET SESSION CHARACTERISTICS
    Transaction,
    /// RESET
    Reset,
}

/// What DISCARD discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// ALL
    All,
    /// PLANS
    Plans,
    /// TEMP
    Temp,
    /// SEQUENCES
    Sequences,
}

impl Statement {
    /// A statement of which nothing is known but its place.
    pub(crate) fn bare(range: Range<usize>) -> Self {
        Self {
            range,
            kind: StatementKind::Other,
            functions: Vec::new(),
            relations: Vec::new(),
            other_names: Vec::new(),
            value_functions: false,
            locks: Vec::new(),
        }
    }

    /// MERGE, or PREPARE of one.
    pub fn is_merge(&self) -> bool {
        match &self.kind {
            StatementKind::Prepare { statement, .. } => statement.is_merge(),
            kind => matches!(kind, StatementKind::Merge(_)),
        }
    }

    /// How many columns its RETURNING list has, or that of what it prepares.
    pub fn returned(&self) -> Option<&Returned> {
        match &self.kind {
            StatementKind::Insert(write)
            | StatementKind::Update(write)
            | StatementKind::Delete(write)
            | StatementKind::Merge(write) => Some(&write.returned),
            StatementKind::Prepare { statement, .. } => statement.returned(),
            _ => None,
        }
    }

    /// Tables that the statement's own text writes rows of: the targets of DML anywhere in it, COPY FROM, TRUNCATE,
    /// SELECT INTO; also inside EXPLAIN ANALYZE. Not what DDL changes, and not what PREPARE will write later.
    pub fn written(&self) -> Vec<&RelationName> {
        match &self.kind {
            StatementKind::Insert(write)
            | StatementKind::Update(write)
            | StatementKind::Delete(write)
            | StatementKind::Merge(write) => std::iter::once(&write.target).chain(&write.writes_in_with).collect(),
            StatementKind::Select { into, writes_in_with, .. } => into.iter().chain(writes_in_with).collect(),
            StatementKind::DeclareCursor { writes_in_with, .. } => writes_in_with.iter().collect(),
            StatementKind::Copy(copy) if copy.from => copy.relation.iter().collect(),
            StatementKind::Copy(copy) => copy.query_writes.iter().collect(),
            StatementKind::Truncate { tables, .. } => tables.iter().collect(),
            StatementKind::Explain { analyze: true, statement } => statement.written(),
            _ => Vec::new(),
        }
    }
}
