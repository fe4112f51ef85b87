//! What is to be done about each statement of a text.
use crate::guard::Locks;
use bytes::Bytes;
use pgshadow_catalog::{Redefined, Table};
use pgshadow_model::{Operation, QualifiedName, Suspect};
use pgshadow_sql::{LockAhead, LookBehind, Rewrites};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// What is to be done about one query string.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The text to send, where it differs from the client's.
    pub text: Option<Bytes>,
    /// What was inserted, for error positions.
    pub rewrites: Rewrites,
    /// One for each statement.
    pub steps: Vec<Arc<Step>>,
    /// Where the last statement ends in the text that is sent.
    pub end: usize,
    /// Catalog epoch at which the tables were looked up.
    pub epoch: u64,
    /// The text, as far as needed again for pieces and DDL.
    pub ranges: Vec<std::ops::Range<usize>>,
    /// The same for the simple protocol, where locks are taken ahead in the text itself.
    pub for_query: Option<Arc<Plan>>,
    /// What its statements lock.
    pub locks: Arc<[Locks]>,
    /// The parameters' types as they came in a Parse of this text, and the server's description of all of them.
    pub described: OnceLock<(Bytes, Arc<OnceLock<Bytes>>)>,
}

/// What is to be done about one statement.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub effect: Effect,
    /// Class for the counters.
    pub class: pgshadow_telemetry::StatementClass,
    /// The session's names or settings may mean something else afterwards.
    pub changes_session: bool,
    /// It calls functions, or fires triggers, that may write tables which can't be named beforehand: they are looked for in
    /// the locks of the transaction.
    pub hidden_writes: bool,
    /// Such writes may also reach tables whose rows are captured in the same transaction.
    pub hidden_anywhere: bool,
    /// It takes rows from the client.
    pub copy_in: bool,
    /// It may commit what it did and fail all the same.
    pub may_commit: bool,
    /// It may change definitions unseen.
    pub may_define: bool,
    /// It may change what functions, views, operators and the like do.
    pub code: Redefined,
    /// The server refuses it in a transaction block (or it ends one): nothing can be appended to it.
    pub alone: bool,
}

impl Step {
    /// A statement that writes nothing.
    pub fn none(class: pgshadow_telemetry::StatementClass) -> Self {
        Self {
            effect: Effect::None,
            class,
            changes_session: false,
            hidden_writes: false,
            hidden_anywhere: false,
            copy_in: false,
            may_commit: false,
            may_define: false,
            code: Redefined::Nothing,
            alone: false,
        }
    }

    /// What functions, views and the like may do something else once it has run.
    pub fn redefines(&self) -> Cow<'_, Redefined> {
        if self.may_define { Cow::Owned(Redefined::Anything) } else { Cow::Borrowed(&self.code) }
    }

    /// A statement that may write whatever there is.
    pub fn unknown(class: pgshadow_telemetry::StatementClass) -> Self {
        Self { changes_session: true, hidden_writes: true, hidden_anywhere: true, ..Self::none(class) }
    }

    /// The statement that locks and reads its rows ahead.
    pub fn lock(&self) -> Option<&Arc<LockAhead>> {
        match &self.effect {
            Effect::Write(write) => match &write.old {
                OldRow::Locked(lock) => Some(lock),
                _ => None,
            },
            _ => None,
        }
    }

    /// How it is told behind it that it wrote those.
    pub fn look_behind(&self) -> Option<&LookBehind> {
        self.lock()?.behind.as_ref()
    }

    /// The same, its rows neither locked nor told apart: it is declared.
    pub fn without_lock(mut self) -> Self {
        if let Effect::Write(write) = &self.effect
            && matches!(write.old, OldRow::Locked(_))
        {
            self.effect = Effect::Write(Arc::new(WriteEffect { old: OldRow::Same, ..WriteEffect::clone(write) }));
        }
        self
    }

    /// How its rows are read back behind it.
    pub fn look_back(&self) -> Option<&Arc<LookBack>> {
        match &self.effect {
            Effect::LookBack(look) => Some(look),
            _ => None,
        }
    }

    /// Whether its answers hold a column that the client must not see.
    pub fn strip(&self) -> Strip {
        match &self.effect {
            Effect::Write(write) => write.strip,
            _ => Strip::Nothing,
        }
    }
}

/// How a statement's writes are captured.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// Nothing that is mirrored.
    None,
    /// Row images through RETURNING.
    Write(Arc<WriteEffect>),
    /// COPY FROM STDIN, its stream recorded.
    Copy { table: Arc<Table>, sql: String },
    /// COPY, its rows read back behind it.
    LookBack(Arc<LookBack>),
    /// TRUNCATE, as a statement.
    Truncate { tables: Vec<QualifiedName>, sql: String },
    /// DDL, as a statement; `suspects` where it computes values.
    Ddl {
        sql: String,
        suspects: Vec<Suspect>,
        /// What it changes; `None` where that isn't a table, or not known.
        tables: Vec<Option<QualifiedName>>,
        /// The first of them goes on as the second.
        moves: bool,
    },
    /// Not captured: these become suspect.
    Opaque(Vec<Suspect>),
    /// An index built or dropped concurrently: repeated outside any transaction, beside the rows.
    Beside { sql: String },
    /// Reported to the DBA, changes no table's rows.
    NotRepeated { sql: String, reason: &'static str },
    /// Transaction control.
    Control(Control),
    /// SQL-level PREPARE: what EXECUTE will do; PREPARE's own text, and as it is sent.
    Prepare { name: String, step: Arc<Step>, text: Bytes, sent: Option<Bytes> },
    /// DEALLOCATE, DISCARD ALL: these prepared statements are gone (`None`: all).
    Deallocate(Option<String>),
    /// SQL-level EXECUTE.
    Execute { name: String },
}

/// How the rows of a COPY are read back.
#[derive(Debug, Clone)]
pub(crate) struct LookBack {
    /// What came back, as if RETURNING had given it.
    pub write: Arc<WriteEffect>,
    /// The statement that reads them.
    pub text: String,
    /// Why they are declared where it doesn't find as many as were copied.
    pub reason: &'static str,
}

impl Effect {
    /// The write whose rows come back as images.
    pub fn write(&self) -> Option<&Arc<WriteEffect>> {
        match self {
            Effect::Write(write) => Some(write),
            Effect::LookBack(look) => Some(&look.write),
            _ => None,
        }
    }
}

/// Transaction control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    Begin,
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    /// PREPARE TRANSACTION, with its gid.
    Prepare(String),
    /// COMMIT PREPARED or ROLLBACK PREPARED: outside any block, changes nothing of this session's own.
    FinishPrepared {
        gid: String,
        commit: bool,
    },
}

/// What of a statement's answer the client must not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strip {
    Nothing,
    /// The last column; the others are the client's own RETURNING list.
    LastColumn,
    /// All rows: the client asked for none.
    Rows,
}

/// What of the written rows comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// All columns.
    Whole,
    /// Those of their key: the rows are read again on the primary.
    Key,
    /// None: the text fixes the key, and the rows are read again.
    Nothing,
}

/// How the old row of an UPDATE is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OldRow {
    /// By the new one: its key stays.
    Same,
    /// The server returns the old row's columns at these positions: the key's, or all of a table without one.
    Returned(Vec<u16>),
    /// The text fixes the key.
    Fixed(Vec<KeyPart>),
    /// The text fixes the key of each row that it may insert.
    FixedRows(Vec<Vec<KeyPart>>),
    /// The rows are locked and read ahead.
    Locked(Arc<LockAhead>),
}

/// A column of a key that the text fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyPart {
    /// A constant, in binary form.
    Constant(Bytes),
    /// One of the parameters that come back with each row.
    Parameter(usize),
}

/// A write whose rows come back as images.
#[derive(Debug, Clone)]
pub(crate) struct WriteEffect {
    pub table: Arc<Table>,
    pub operation: Operation,
    /// ON CONFLICT DO UPDATE: an image tells by its flag whether it was inserted.
    pub flag: bool,
    /// MERGE: an image tells what was done.
    pub action: bool,
    /// The client named a view of the table.
    pub through_view: bool,
    pub seen: Seen,
    pub old: OldRow,
    /// Columns that it assigns, where its rows are locked ahead.
    pub assigned: Vec<String>,
    /// Parameters of the statement that come back with each row.
    pub parameters: usize,
    /// Columns were converted to UTF8 text where their binary form would be in the client's encoding.
    pub converted: bool,
    pub strip: Strip,
    /// Why its tables become suspect if it wrote more than one row.
    pub several: Option<&'static str>,
    /// What becomes suspect by it (rows that may be changed after their image was taken).
    pub suspects: Vec<Suspect>,
    /// Its effect is determined by the rows that it names.
    pub determined: bool,
    /// Tables that the server may write in its place and that aren't mirrored: a row tells.
    pub aside: Vec<u32>,
    /// The same of one that is mirrored.
    pub instead: Option<Arc<WriteEffect>>,
}

impl WriteEffect {
    /// Whether each row tells in which table it is.
    pub fn has_table_oid(&self) -> bool {
        !self.through_view && self.seen == Seen::Whole
    }

    /// Itself, and what it may be in its place.
    pub fn all(&self) -> impl Iterator<Item = &WriteEffect> {
        std::iter::once(self).chain(self.instead.as_deref())
    }

    /// The names of all tables that it may write.
    pub fn trees(&self) -> impl Iterator<Item = &QualifiedName> {
        self.all().flat_map(|write| &write.table.tree)
    }
}

impl Step {
    /// What becomes suspect by it.
    pub fn suspects(&self) -> &[Suspect] {
        match &self.effect {
            Effect::Opaque(suspects) | Effect::Ddl { suspects, .. } => suspects,
            Effect::Write(write) => &write.suspects,
            _ => &[],
        }
    }

    /// Whether it may write a mirrored table.
    pub fn writes(&self) -> bool {
        self.hidden_writes
            || matches!(
                self.effect,
                Effect::Write(_)
                    | Effect::Copy { .. }
                    | Effect::LookBack(_)
                    | Effect::Truncate { .. }
                    | Effect::Ddl { .. }
                    | Effect::Opaque(_)
            )
    }

    /// Tables that it names to write.
    pub fn tables(&self) -> Vec<QualifiedName> {
        match &self.effect {
            Effect::Write(write) => write.trees().cloned().collect(),
            Effect::LookBack(look) => look.write.table.tree.clone(),
            Effect::Copy { table, .. } => table.tree.clone(),
            Effect::Truncate { tables, .. } => tables.clone(),
            _ => self.suspects().iter().filter_map(|s| s.table.clone()).collect(),
        }
    }

    /// Every table that it may write, as suspect; every table at all where it names none.
    pub fn suspects_of_all(&self, reason: &str) -> Vec<Suspect> {
        let named: Vec<_> = match &self.effect {
            Effect::Ddl { tables, .. } => tables.clone(),
            _ => self.tables().into_iter().map(Some).collect(),
        };
        let all = if named.is_empty() { vec![None] } else { named };
        all.into_iter().map(|table| Suspect { table, reason: reason.to_owned() }).collect()
    }

    /// The same answer for the client, but its rows are declared, not captured.
    pub fn declared(&self, suspects: Vec<Suspect>) -> Self {
        let mut step = self.clone();
        match &self.effect {
            Effect::Write(write) => {
                let mut write = WriteEffect::clone(write);
                write.suspects.extend(suspects);
                step.effect = Effect::Write(Arc::new(write));
            }
            _ => step.effect = Effect::Opaque(suspects),
        }
        step.hidden_writes = true;
        step.hidden_anywhere = true;
        step
    }
}

impl Plan {
    /// The description of its parameters, if it was given for a Parse with these types.
    pub fn described_for(&self, types: &Bytes) -> Option<&Bytes> {
        self.described.get().filter(|(asked, _)| asked == types).and_then(|(_, description)| description.get())
    }

    /// Nothing to be done.
    pub fn empty() -> Self {
        Self {
            text: None,
            rewrites: Rewrites::default(),
            steps: Vec::new(),
            end: 0,
            epoch: 0,
            ranges: Vec::new(),
            for_query: None,
            locks: Arc::default(),
            described: OnceLock::new(),
        }
    }
}
