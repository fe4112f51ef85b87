//! From a parsed text and what the catalog says of its tables to a [`Plan`]: proven exact, or declared.
mod changed;
mod determined;
mod look_back;
mod moving;
mod natures;
mod old;
use changed::Changed;
pub(crate) use old::binary;
use target::Target;
mod statements;
mod target;
mod temporary;
mod writes;

use crate::guard::{ALLOW, Locks};
use crate::plan::{Control, Effect, Plan, Step};
use bytes::Bytes;
use pgshadow_catalog::{FunctionNature, Functions, Identity, Table, block_may_commit, block_may_define};
use pgshadow_model::{Operation, QualifiedName, RelationKind, Suspect, quote};
use pgshadow_sql::{Discard, Parsed, RelationName, Rewrite, Rewrites, SetKind, Statement, StatementKind};
use pgshadow_telemetry::StatementClass as Class;
use std::collections::HashMap;
use std::sync::Arc;

/// What a session knows when it classifies a text.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub text: &'a str,
    pub identity: &'a Identity,
    pub functions: &'a Functions,
    pub epoch: u64,
    /// State of definitions in which its functions are called; `None` where definitions of its own may be others.
    pub definitions: Option<u64>,
    /// By [`sql_name`]; a name that no relation has is `None`.
    pub tables: &'a HashMap<String, Option<Arc<Table>>>,
    /// Constants of the text stand as other letters.
    pub masked: bool,
    /// Tables that `[mirror] exclude` names.
    pub excluded: &'a dyn Fn(&QualifiedName) -> bool,
}

/// A relation's name as SQL text, as the probe wants it.
pub(crate) fn sql_name(name: &RelationName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&name.name)),
        None => quote(&name.name),
    }
}

/// Relations whose catalog entries the classification of these statements needs.
pub(crate) fn names_needed(parsed: &Parsed, identity: Option<&Identity>) -> Vec<String> {
    let may_be_temporary = identity.is_some_and(Identity::has_temporary_objects);
    let others = |statement: &Statement| if may_be_temporary { others_of(statement) } else { Vec::new() };
    let counted = |statement: &Statement| -> Vec<String> {
        statement.returned().map(|returned| returned.relations.iter().map(sql_name).collect()).unwrap_or_default()
    };
    let of_one = |s: &Statement| [names_of(s), counted(s), others(s)].concat();
    let mut names: Vec<String> = parsed.statements.iter().flat_map(of_one).collect();
    names.sort();
    names.dedup();
    names
}

/// Relations that a statement writes or defines.
pub(crate) fn names_of(statement: &Statement) -> Vec<String> {
    match &statement.kind {
        StatementKind::Ddl(ddl) => ddl.tables.iter().map(sql_name).collect(),
        StatementKind::Prepare { statement, .. } => names_of(statement),
        _ => statement.written().into_iter().map(sql_name).collect(),
    }
}

/// What else it names that may be temporary.
fn others_of(statement: &Statement) -> Vec<String> {
    match &statement.kind {
        StatementKind::Ddl(ddl) => ddl.others.iter().chain(&ddl.reads).map(sql_name).collect(),
        _ => Vec::new(),
    }
}

/// The relation under a view, as the probe wants its name.
pub(crate) fn name_under(table: &Table) -> Option<String> {
    let view = table.view.as_ref().filter(|view| view.plain)?;
    pgshadow_sql::view_source(&view.definition).map(|source| sql_name(&source.base))
}

/// Whether classifying these statements needs to know who the session is at the moment.
pub(crate) fn needs_identity(parsed: &Parsed) -> bool {
    parsed.statements.iter().any(|s| matches!(s.kind, StatementKind::Ddl(_)) || !names_of(s).is_empty())
}

/// What is changed in a text.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// Added columns.
    pub columns: Vec<Rewrite>,
    /// Statements of ours beside the client's, in the simple protocol: locks ahead, looks back behind.
    pub beside: Vec<Rewrite>,
    /// Added columns with a look behind their statement, in the simple protocol.
    pub looked_behind: Vec<Rewrite>,
    /// It is the inside of a PREPARE.
    pub prepares: bool,
}

impl Context<'_> {
    /// The plan for the whole text.
    pub fn plan(&self, parsed: &Parsed) -> Plan {
        let mut rewrites = Rewritten::default();
        let mut before = Changed::default();
        let mut steps = Vec::with_capacity(parsed.statements.len());
        for statement in &parsed.statements {
            let context = Context { definitions: self.definitions.filter(|_| !before.code), ..*self };
            // behind a SET it is declared, whatever it is: its text goes out as it came
            let mut untouched = Rewritten::default();
            // a search path that names theirs may have other schemas in front
            let in_front = !before.session && !self.identity.search_path.contains("pg_temp");
            let temporary = in_front && before.made_all_of(statement);
            let as_it_came = before.session || temporary;
            let step = context.step(statement, if as_it_came { &mut untouched } else { &mut rewrites });
            let step = if temporary { Step { effect: Effect::None, ..step } } else { before.step(statement, step) };
            before.note(statement, &step);
            steps.push(Arc::new(step));
        }
        let locks = parsed.statements.iter().zip(&steps).filter_map(|(one, step)| self.locks_of(one, step)).collect();
        let mut plan = Plan { locks, ..self.rewritten(parsed, steps, &rewrites.columns) };
        if !rewrites.beside.is_empty() {
            let looked_behind = rewrites.looked_behind;
            let alone = |column: &Rewrite| looked_behind.iter().all(|look| look.inserted_at != column.inserted_at);
            rewrites.columns.retain(alone);
            let all: Vec<Rewrite> = rewrites.columns.into_iter().chain(looked_behind).chain(rewrites.beside).collect();
            plan.for_query = Some(Arc::new(self.rewritten(parsed, plan.steps.clone(), &all)));
        }
        plan
    }

    fn rewritten(&self, parsed: &Parsed, steps: Vec<Arc<Step>>, rewrites: &[Rewrite]) -> Plan {
        let combined = if rewrites.is_empty() { None } else { Rewrites::combine(self.text, rewrites) };
        let last = parsed.statements.last().map_or(0, |s| s.range.end);
        let mut plan = Plan {
            steps,
            end: last,
            epoch: self.epoch,
            ranges: parsed.statements.iter().map(|s| s.range.clone()).collect(),
            ..Plan::empty()
        };
        match combined {
            Some((text, map)) => {
                plan.end = last + text.len() - self.text.len();
                plan.text = Some(Bytes::from(text));
                plan.rewrites = map;
            }
            None if rewrites.is_empty() => {}
            // the parts don't fit together: nothing is rewritten, and every write of the text is declared
            None => plan.steps = parsed.statements.iter().map(|s| Arc::new(self.declared(s))).collect(),
        }
        plan
    }

    /// What a statement locks that others may have, unless its text says that it is to run in any case.
    fn locks_of(&self, statement: &Statement, step: &Step) -> Option<Locks> {
        // an object of its own session's nobody else has
        let own = matches!((&statement.kind, &step.effect), (StatementKind::Ddl(_), Effect::None));
        if statement.locks.is_empty() || own || self.text.contains(ALLOW) {
            return None;
        }
        let command = match &statement.kind {
            StatementKind::Ddl(ddl) => ddl.tag.clone(),
            StatementKind::Maintenance { command: "VACUUM", .. } => "VACUUM FULL".to_owned(),
            StatementKind::Maintenance { command, .. } => (*command).to_owned(),
            _ => return None,
        };
        Some(Locks { command, locks: statement.locks.clone() })
    }

    pub(crate) fn declared(&self, statement: &Statement) -> Step {
        let mut step = self.step(statement, &mut Rewritten::default());
        if let Some(write) = step.effect.write() {
            step.effect = Effect::Opaque(suspects(&write.table, "its statement could not be extended").collect());
        }
        step
    }

    pub(crate) fn step(&self, statement: &Statement, rewrites: &mut Rewritten) -> Step {
        let step = self.by_kind(statement, rewrites);
        // what is prepared runs by EXECUTE
        if matches!(step.effect, Effect::Prepare { .. }) { step } else { self.with_functions(statement, step) }
    }

    pub(crate) fn by_kind(&self, statement: &Statement, rewrites: &mut Rewritten) -> Step {
        let control =
            |control, alone| Step { effect: Effect::Control(control), alone, ..Step::none(Class::Transaction) };
        match &statement.kind {
            StatementKind::Insert(write) => self.write(statement, write, Operation::Insert, rewrites),
            StatementKind::Update(write) => self.write(statement, write, Operation::Update, rewrites),
            StatementKind::Delete(write) => self.write(statement, write, Operation::Delete, rewrites),
            StatementKind::Merge(write) => self.write(statement, write, Operation::Upsert, rewrites),
            StatementKind::Select { into: Some(name), .. } => {
                self.created(name, Class::Ddl, "SELECT INTO computes its rows")
            }
            StatementKind::Select { writes_in_with, .. } | StatementKind::DeclareCursor { writes_in_with, .. } => {
                let mut step = if writes_in_with.is_empty() {
                    Step::none(Class::Read)
                } else {
                    self.opaque(statement, Class::Read, "it was written inside WITH")
                };
                if let StatementKind::DeclareCursor { hold, .. } = statement.kind {
                    // outside a block it is refused, which a statement of ours behind it would change
                    step.alone = true;
                    // what it calls runs when the transaction commits, behind the end token
                    if hold && self.nature_of_calls(statement) >= FunctionNature::MayWriteOthers {
                        let reason = "a cursor WITH HOLD runs its functions while the transaction commits".to_owned();
                        step.effect = Effect::Opaque(vec![Suspect { table: None, reason }]);
                    }
                }
                step
            }
            StatementKind::Begin => control(Control::Begin, true),
            StatementKind::Commit { chain } => control(Control::Commit { chain: *chain }, true),
            StatementKind::Rollback { chain } => control(Control::Rollback { chain: *chain }, true),
            StatementKind::Savepoint { name } => control(Control::Savepoint(name.clone()), false),
            StatementKind::Release { name } => control(Control::Release(name.clone()), false),
            StatementKind::RollbackTo { name } => control(Control::RollbackTo(name.clone()), false),
            StatementKind::PrepareTransaction { gid } => control(Control::Prepare(gid.clone()), true),
            StatementKind::CommitPrepared { gid } => {
                control(Control::FinishPrepared { gid: gid.clone(), commit: true }, true)
            }
            StatementKind::RollbackPrepared { gid } => {
                control(Control::FinishPrepared { gid: gid.clone(), commit: false }, true)
            }
            StatementKind::Copy(copy) => {
                let copy_in = copy.from && copy.stdin_stdout;
                Step { copy_in, ..self.copy(statement, copy, rewrites) }
            }
            StatementKind::Truncate { tables, cascade, .. } => self.truncate(statement, tables, *cascade),
            StatementKind::Set { name, kind, .. } => {
                Step { changes_session: changes_identity(name.as_deref(), kind), ..Step::none(Class::Session) }
            }
            StatementKind::Deallocate { name } => {
                Step { effect: Effect::Deallocate(name.clone()), ..Step::none(Class::Session) }
            }
            StatementKind::Discard(what) => Step {
                effect: if *what == Discard::All { Effect::Deallocate(None) } else { Effect::None },
                changes_session: matches!(what, Discard::All | Discard::Temp),
                alone: *what == Discard::All,
                ..Step::none(Class::Session)
            },
            StatementKind::Prepare { name, statement: inner } => {
                let before = rewrites.columns.len();
                rewrites.prepares = true;
                let step = match &inner.kind {
                    StatementKind::Insert(write) => self.write(statement, write, Operation::Insert, rewrites),
                    StatementKind::Update(write) => self.write(statement, write, Operation::Update, rewrites),
                    StatementKind::Delete(write) => self.write(statement, write, Operation::Delete, rewrites),
                    StatementKind::Merge(write) => self.write(statement, write, Operation::Upsert, rewrites),
                    _ if inner.written().is_empty() => self.step(inner, &mut Rewritten::default()),
                    _ => self.opaque(inner, Class::Other, "it was written by EXECUTE"),
                };
                let step = self.with_functions(statement, step);
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                rewrites.prepares = false;
                let inserted = rewrites.columns.get(before..).and_then(<[Rewrite]>::last).and_then(Rewrite::inserted);
                let sent = inserted.map(|inserted| Bytes::from([text, inserted].concat()));
                let text = Bytes::copy_from_slice(text.as_bytes());
                let effect = Effect::Prepare { name: name.clone(), step: Arc::new(step), text, sent };
                Step { effect, ..Step::none(Class::Session) }
            }
            StatementKind::Execute { name } => {
                Step { effect: Effect::Execute { name: name.clone() }, ..Step::none(Class::Other) }
            }
            StatementKind::Explain { analyze: true, .. } if !statement.written().is_empty() => {
                self.opaque(statement, Class::Other, "it was written by EXPLAIN ANALYZE")
            }
            StatementKind::Explain { analyze: true, statement: inner } => match inner.kind {
                StatementKind::Execute { .. } => Step::unknown(Class::Other),
                StatementKind::Ddl(_) => {
                    let reason = "EXPLAIN ANALYZE made a table".to_owned();
                    let effect = Effect::Opaque(vec![Suspect { table: None, reason }]);
                    Step { effect, ..Step::unknown(Class::Other) }
                }
                _ => Step::none(Class::Read),
            },
            StatementKind::Call | StatementKind::Do => {
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                let (may_commit, may_define) = match statement.kind {
                    StatementKind::Do => (block_may_commit(text), block_may_define(text)),
                    _ => {
                        let mut called = statement.functions.iter().map(|f| f.name.as_str());
                        let (functions, definitions) = (self.functions, self.definitions);
                        let may_define = called.clone().any(|name| functions.may_define(definitions, name));
                        (called.any(|name| functions.may_commit(definitions, name)), may_define)
                    }
                };
                Step { alone: true, may_commit, may_define, ..Step::unknown(Class::Other) }
            }
            StatementKind::Maintenance { in_transaction_block_allowed, .. } => {
                Step { alone: !in_transaction_block_allowed, ..Step::none(Class::Other) }
            }
            StatementKind::Ddl(ddl) => self.ddl(statement, ddl),
            StatementKind::Show | StatementKind::Explain { .. } => Step::none(Class::Read),
            StatementKind::Other => Step { changes_session: true, ..Step::none(Class::Other) },
            _ => Step::none(Class::Session),
        }
    }

    /// `None`: no relation of that name was visible, so the server will refuse the statement.
    pub(crate) fn table(&self, name: &RelationName) -> Option<&Arc<Table>> {
        self.tables.get(&sql_name(name))?.as_ref()
    }

    pub(crate) fn not_mirrored(&self, table: &Table) -> bool {
        table.temporary
            || table.relation.name.schema == "pg_catalog"
            || table.relation.name.schema == "information_schema"
            || (self.excluded)(&table.relation.name)
    }

    pub(crate) fn opaque(&self, statement: &Statement, class: Class, reason: &str) -> Step {
        self.opaque_tables(&statement.written(), class, reason)
    }

    pub(crate) fn opaque_tables(&self, names: &[&RelationName], class: Class, reason: &str) -> Step {
        let found: Vec<&Arc<Table>> = names.iter().filter_map(|name| self.table(name)).collect();
        let suspects = found
            .iter()
            .filter(|t| !self.not_mirrored(t))
            .flat_map(|t| t.tree.iter())
            .map(|name| Suspect { table: Some(name.clone()), reason: reason.to_owned() })
            .collect();
        let plain = |t: &&Arc<Table>| {
            let table = matches!(t.relation.kind, RelationKind::Table | RelationKind::Partitioned);
            table && !t.triggers && !t.rules && self.nature_of_table(t) == FunctionNature::Harmless
        };
        let hidden_anywhere = !found.iter().all(plain);
        Step { effect: Effect::Opaque(suspects), hidden_writes: true, hidden_anywhere, ..Step::none(class) }
    }

    /// A write of a table that isn't mirrored: what else it writes, by WITH, cascades, triggers and rules.
    pub(crate) fn beside(&self, table: &Table, names: &[&RelationName], class: Class) -> Step {
        if names.len() > 1 {
            return self.opaque_tables(names, class, "it was written inside WITH");
        }
        let more = table.triggers || table.rules || self.nature_of_table(table) > FunctionNature::Harmless;
        Step { hidden_writes: more, hidden_anywhere: more, ..Step::none(class) }
    }

    /// A table that the statement makes, with rows that the shadow would compute otherwise.
    pub(crate) fn created(&self, name: &RelationName, class: Class, reason: &str) -> Step {
        let suspects = self.created_name(name).map(|table| Suspect { table: Some(table), reason: reason.to_owned() });
        Step { effect: Effect::Opaque(suspects.into_iter().collect()), hidden_writes: true, ..Step::none(class) }
    }

    pub(crate) fn created_name(&self, name: &RelationName) -> Option<QualifiedName> {
        let schema = match &name.schema {
            Some(schema) => schema.clone(),
            None => self.identity.schemas.iter().find(|s| *s != "pg_catalog" && !s.starts_with("pg_temp_"))?.clone(),
        };
        Some(QualifiedName::new(schema, name.name.clone()))
    }
}

/// The table and its partitions, which hold its rows.
pub(crate) fn suspects(table: &Table, reason: &str) -> impl Iterator<Item = Suspect> {
    table.tree.iter().map(move |name| Suspect { table: Some(name.clone()), reason: reason.to_owned() })
}

/// Whether SET or RESET of this setting changes what names mean or how values are read.
pub(crate) fn changes_identity(name: Option<&str>, kind: &SetKind) -> bool {
    const HARMLESS: &[&str] = &[
        "application_name",
        "extra_float_digits",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "client_min_messages",
        "work_mem",
        "maintenance_work_mem",
        "transaction",
        "session characteristics",
        "log_statement",
        "enable_seqscan",
        "enable_indexscan",
        "enable_hashjoin",
        "enable_nestloop",
        "enable_mergejoin",
        "random_page_cost",
        "jit",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "bytea_output",
        "log_min_duration_statement",
    ];
    !matches!(kind, SetKind::Transaction) && name.is_none_or(|n| !HARMLESS.contains(&n))
}
