//! From a parsed text and what the catalog says of its tables to a [`Plan`]: proven exact, or declared.
use crate::image::columns_in_utf8;
use crate::plan::{Control, Effect, Plan, Step, Strip, WriteEffect};
use bytes::Bytes;
use pgshadow_catalog::{Default, FunctionNature, Functions, Identity, Table, block_may_commit, block_may_define};
use pgshadow_model::{Operation, QualifiedName, RelationKind, Suspect};
use pgshadow_sql::{
    CopyCommand, Ddl, Dialect, Discard, Image, OnConflict, Parsed, RelationName, ReturningForm, Rewrite, Rewrites,
    SetKind, Statement, StatementKind, Write, with_returning,
};
use pgshadow_telemetry::StatementClass as Class;
use std::collections::HashMap;
use std::sync::Arc;

/// What a session knows when it classifies a text.
pub(crate) struct Context<'a> {
    pub text: &'a str,
    pub identity: &'a Identity,
    pub functions: &'a Functions,
    pub epoch: u64,
    /// By [`sql_name`]; a name that no relation has is `None`.
    pub tables: &'a HashMap<String, Option<Arc<Table>>>,
    /// Constants of the text stand as other letters.
    pub masked: bool,
    /// Tables that `[mirror] exclude` names.
    pub excluded: &'a dyn Fn(&QualifiedName) -> bool,
}

/// A relation's name as SQL text, as the probe wants it.
pub(crate) fn sql_name(name: &RelationName) -> String {
    let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
    match &name.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&name.name)),
        None => quoted(&name.name),
    }
}

/// Relations whose catalog entries the classification of these statements needs.
pub(crate) fn names_needed(parsed: &Parsed) -> Vec<String> {
    let mut names: Vec<String> = parsed.statements.iter().flat_map(names_of).collect();
    names.sort();
    names.dedup();
    names
}

fn names_of(statement: &Statement) -> Vec<String> {
    match &statement.kind {
        StatementKind::Ddl(ddl) => ddl.tables.iter().map(sql_name).collect(),
        StatementKind::Prepare { statement, .. } => names_of(statement),
        _ => statement.written().into_iter().map(sql_name).collect(),
    }
}

/// Whether classifying these statements needs to know who the session is at the moment.
pub(crate) fn needs_identity(parsed: &Parsed) -> bool {
    parsed.statements.iter().any(|s| matches!(s.kind, StatementKind::Ddl(_)) || !names_of(s).is_empty())
}

impl Context<'_> {
    /// The plan for the whole text.
    pub fn plan(&self, parsed: &Parsed) -> Plan {
        let mut rewrites = Vec::new();
        let mut session_changed = false;
        let mut steps = Vec::with_capacity(parsed.statements.len());
        for statement in &parsed.statements {
            let mut step = self.step(statement, &mut rewrites);
            if session_changed && step.writes() {
                step = step.declared(
                    step.suspects_of_all("a SET in front of it in the same string may have changed what it names"),
                );
            }
            // DDL changes the catalog, but not who the session is
            session_changed |= step.changes_session && step.class != Class::Ddl;
            steps.push(Arc::new(step));
        }
        let combined = if rewrites.is_empty() { None } else { Rewrites::combine(self.text, &rewrites) };
        let last = parsed.statements.last().map_or(0, |s| s.range.end);
        let mut plan = Plan {
            text: None,
            rewrites: Rewrites::default(),
            steps,
            end: last,
            epoch: self.epoch,
            ranges: parsed.statements.iter().map(|s| s.range.clone()).collect(),
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

    fn declared(&self, statement: &Statement) -> Step {
        let mut step = self.step(statement, &mut Vec::new());
        if let Effect::Write(write) = &step.effect {
            step.effect = Effect::Opaque(vec![suspect(&write.table, "its statement could not be extended")]);
        }
        step
    }

    fn step(&self, statement: &Statement, rewrites: &mut Vec<Rewrite>) -> Step {
        let step = self.by_kind(statement, rewrites);
        self.with_functions(statement, step)
    }

    /// What the functions may do that a statement calls by itself or through views.
    fn nature_of_calls(&self, statement: &Statement) -> FunctionNature {
        let called =
            statement.functions.iter().map(|f| self.functions.nature(self.epoch, f.schema.as_deref(), &f.name));
        // others (ANALYZE, CLUSTER, LOCK) name relations without running a view's query
        let reads = matches!(
            statement.kind,
            StatementKind::Select { .. }
                | StatementKind::Insert(_)
                | StatementKind::Update(_)
                | StatementKind::Delete(_)
                | StatementKind::Merge { .. }
                | StatementKind::DeclareCursor { .. }
                | StatementKind::Copy(_)
                | StatementKind::Explain { .. }
                | StatementKind::Prepare { .. }
        );
        let named = if reads { statement.relations.as_slice() } else { &[] };
        let read = named.iter().map(|r| self.functions.nature_of_read(self.epoch, r));
        called.chain(read).max().unwrap_or(FunctionNature::Harmless)
    }

    /// What the functions may do that a table's defaults and constraints call.
    fn nature_of_table(&self, table: &Table) -> FunctionNature {
        let of = |name: &String| self.functions.nature(self.epoch, Some(""), name);
        table.functions.iter().map(of).max().unwrap_or(FunctionNature::Harmless)
    }

    /// What the functions of a table's triggers may do besides changing its row.
    fn nature_of_triggers(&self, table: &Table) -> FunctionNature {
        let of = |name: &String| self.functions.nature_of_trigger(self.epoch, name);
        table.trigger_functions.iter().map(of).max().unwrap_or(FunctionNature::Harmless)
    }

    /// The step, with what the functions that its statement calls may do.
    fn with_functions(&self, statement: &Statement, mut step: Step) -> Step {
        let of_table = match &step.effect {
            Effect::Write(write) => self.nature_of_table(&write.table),
            Effect::Copy { table, .. } => self.nature_of_table(table),
            _ => FunctionNature::Harmless,
        };
        let nature = self.nature_of_calls(statement).max(of_table);
        if nature > FunctionNature::Harmless {
            step.changes_session |= nature != FunctionNature::MayWriteOthers;
            step.hidden_writes |= nature >= FunctionNature::MayWriteOthers;
            step.hidden_anywhere |= nature == FunctionNature::MayWrite;
            if let (FunctionNature::MayWrite, Effect::Write(write)) = (nature, &step.effect) {
                let mut suspects = write.suspects.clone();
                suspects.push(suspect(
                    &write.table,
                    "its statement calls a volatile function, which may write the same table",
                ));
                step.effect = Effect::Write(Arc::new(WriteEffect {
                    table: Arc::clone(&write.table),
                    operation: write.operation,
                    flag: write.flag,
                    converted: write.converted,
                    strip: write.strip,
                    suspects,
                }));
            }
        }
        step
    }

    fn by_kind(&self, statement: &Statement, rewrites: &mut Vec<Rewrite>) -> Step {
        let control =
            |control, alone| Step { effect: Effect::Control(control), alone, ..Step::none(Class::Transaction) };
        match &statement.kind {
            StatementKind::Insert(write) => self.write(statement, write, Operation::Insert, rewrites),
            StatementKind::Update(write) => self.write(statement, write, Operation::Update, rewrites),
            StatementKind::Delete(write) => self.write(statement, write, Operation::Delete, rewrites),
            StatementKind::Merge { .. } => self.opaque(statement, Class::Merge, "MERGE isn't captured yet"),
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
            StatementKind::PrepareTransaction { .. } => control(Control::Prepare, true),
            StatementKind::CommitPrepared { .. } | StatementKind::RollbackPrepared { .. } => {
                control(Control::FinishPrepared, true)
            }
            StatementKind::Copy(copy) => {
                let copy_in = copy.from && copy.stdin_stdout;
                Step { copy_in, ..self.copy(statement, copy) }
            }
            StatementKind::Truncate { tables, .. } => self.truncate(statement, tables),
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
                let before = rewrites.len();
                let step = match &inner.kind {
                    StatementKind::Insert(write) => self.write(statement, write, Operation::Insert, rewrites),
                    StatementKind::Update(write) => self.write(statement, write, Operation::Update, rewrites),
                    StatementKind::Delete(write) => self.write(statement, write, Operation::Delete, rewrites),
                    _ if inner.written().is_empty() => self.step(inner, &mut Vec::new()),
                    _ => self.opaque(inner, Class::Other, "it was written by EXECUTE"),
                };
                let step = self.with_functions(statement, step);
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                let inserted = rewrites.get(before..).and_then(<[Rewrite]>::last).and_then(Rewrite::inserted);
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
                        let (functions, epoch) = (self.functions, self.epoch);
                        let may_define = called.clone().any(|name| functions.may_define(epoch, name));
                        (called.any(|name| functions.may_commit(epoch, name)), may_define)
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
    fn table(&self, name: &RelationName) -> Option<&Arc<Table>> {
        self.tables.get(&sql_name(name))?.as_ref()
    }

    fn not_mirrored(&self, table: &Table) -> bool {
        table.temporary
            || table.relation.name.schema == "pg_catalog"
            || table.relation.name.schema == "information_schema"
            || (self.excluded)(&table.relation.name)
    }

    fn opaque(&self, statement: &Statement, class: Class, reason: &str) -> Step {
        self.opaque_tables(&statement.written(), class, reason)
    }

    fn opaque_tables(&self, names: &[&RelationName], class: Class, reason: &str) -> Step {
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
    fn beside(&self, table: &Table, names: &[&RelationName], class: Class) -> Step {
        if names.len() > 1 {
            return self.opaque_tables(names, class, "it was written inside WITH");
        }
        let more = table.triggers || table.rules || self.nature_of_table(table) > FunctionNature::Harmless;
        Step { hidden_writes: more, hidden_anywhere: more, ..Step::none(class) }
    }

    /// A table that the statement makes, with rows that the shadow would compute otherwise.
    fn created(&self, name: &RelationName, class: Class, reason: &str) -> Step {
        let suspects = self.created_name(name).map(|table| Suspect { table: Some(table), reason: reason.to_owned() });
        Step { effect: Effect::Opaque(suspects.into_iter().collect()), hidden_writes: true, ..Step::none(class) }
    }

    fn created_name(&self, name: &RelationName) -> Option<QualifiedName> {
        let schema = match &name.schema {
            Some(schema) => schema.clone(),
            None => self.identity.schemas.iter().find(|s| *s != "pg_catalog" && !s.starts_with("pg_temp_"))?.clone(),
        };
        Some(QualifiedName::new(schema, name.name.clone()))
    }

    /// INSERT, UPDATE or DELETE, by itself or as what `statement` prepares.
    fn write(&self, statement: &Statement, write: &Write, operation: Operation, rewrites: &mut Vec<Rewrite>) -> Step {
        let class = match operation {
            Operation::Insert | Operation::Upsert => Class::Insert,
            Operation::Update => Class::Update,
            Operation::Delete => Class::Delete,
        };
        // no relation of that name is visible: the server will refuse it, unless the name was misread
        let names: Vec<&RelationName> = std::iter::once(&write.target).chain(&write.writes_in_with).collect();
        let Some(table) = self.table(&write.target) else {
            return Step { hidden_writes: true, hidden_anywhere: true, ..Step::none(class) };
        };
        if self.not_mirrored(table) {
            return self.beside(table, &names, class);
        }
        let opaque = |reason: &str| self.opaque_tables(&names, class, reason);
        if let Some(reason) = self.refusal(table, write, operation) {
            return opaque(reason);
        }
        let converted = self.identity.client_encoding != "UTF8";
        let image = if converted {
            match columns_in_utf8(&table.relation) {
                Some(columns) => Image::Columns(columns),
                None => return opaque("the client's encoding isn't UTF8, and a column's type depends on it"),
            }
        } else {
            Image::Star
        };
        // a partitioned table's rows have no xmax to return
        let flag = write.on_conflict == OnConflict::Update && table.relation.kind == RelationKind::Table;
        let form = ReturningForm { image, inserted_flag: flag, dialect: Dialect::CURRENT };
        let Some(rewrite) = with_returning(self.text, statement, &form) else {
            return opaque("its statement could not be extended");
        };
        rewrites.push(rewrite);
        let mut suspects = Vec::new();
        let of_triggers = self.nature_of_triggers(table);
        if table.after_triggers && of_triggers > FunctionNature::Harmless {
            suspects
                .push(suspect(table, "it has AFTER triggers, which may change its rows after their image was taken"));
        }
        if operation == Operation::Delete && table.cascade_triggers {
            suspects.push(suspect(table, "its foreign keys' cascade reaches a table with triggers"));
        }
        let operation = match (operation, write.on_conflict) {
            (Operation::Insert, OnConflict::Update) => Operation::Upsert,
            (other, _) => other,
        };
        let effect = WriteEffect {
            table: Arc::clone(table),
            operation,
            flag,
            converted,
            strip: if write.returning { Strip::LastColumn } else { Strip::Rows },
            suspects,
        };
        let hidden_writes = of_triggers >= FunctionNature::MayWriteOthers || table.cascade_triggers;
        let hidden_anywhere = of_triggers == FunctionNature::MayWrite || table.cascade_triggers;
        let changes_session = table.trigger_functions.iter().any(|f| self.functions.trigger_sets(self.epoch, f));
        Step {
            effect: Effect::Write(Arc::new(effect)),
            hidden_writes,
            hidden_anywhere,
            changes_session,
            ..Step::none(class)
        }
    }

    /// Why the rows of this write can't be captured, if so.
    fn refusal(&self, table: &Table, write: &Write, operation: Operation) -> Option<&'static str> {
        let relation = &table.relation;
        let writes = |column: &str| write.assigned.iter().any(|a| a == column);
        let key = || relation.key.iter().filter_map(|p| relation.columns.get(usize::from(*p)));
        // a generated column changes with those that it is computed from
        let key_assigned = key().any(|c| writes(&c.name) || c.generated);
        let trigger_changes_key = table.before_triggers
            && table
                .trigger_functions
                .iter()
                .any(|f| self.functions.trigger_names_any(f, key().map(|c| c.name.as_str())));
        let changes_old_rows = operation == Operation::Update || write.on_conflict == OnConflict::Update;
        Some(match relation.kind {
            RelationKind::Foreign => "it is a foreign table: its rows live elsewhere",
            RelationKind::View | RelationKind::Other => "it was written through a view",
            _ if table.foreign => "one of its partitions is a foreign table",
            _ if table.rules => "it has rules",
            _ if table.row_security => "row-level security applies to the role that wrote it",
            _ if !table.selectable => "the role that wrote it may not read all its columns",
            _ if table.opaque_column().is_some() => "a column's type can't be carried in binary form",
            _ if table.has_inheritance_children && !write.target.only && operation != Operation::Insert => {
                "it has inheritance children"
            }
            _ if !write.writes_in_with.is_empty() => "it was written inside WITH",
            _ if relation.key.is_empty() && changes_old_rows => {
                "it has no key, and an UPDATE's old rows can't be told before PostgreSQL 18"
            }
            _ if key_assigned && changes_old_rows => {
                "its key was assigned, and the old key can't be told before PostgreSQL 18"
            }
            _ if trigger_changes_key && changes_old_rows => "a trigger may change its key",
            _ if self.identity.session_replication_role != "origin" => {
                "it was written with session_replication_role set"
            }
            _ => return None,
        })
    }

    fn copy(&self, statement: &Statement, copy: &CopyCommand) -> Step {
        if !copy.from {
            let writes = !copy.query_writes.is_empty();
            return if writes {
                self.opaque(statement, Class::Copy, "it was written by COPY TO")
            } else {
                Step::none(Class::Copy)
            };
        }
        let name = copy.relation.as_ref();
        let Some(table) = name.and_then(|name| self.table(name)).map(Arc::clone) else {
            return Step { hidden_writes: true, hidden_anywhere: true, ..Step::none(Class::Copy) };
        };
        if self.not_mirrored(&table) {
            return self.beside(&table, &name.into_iter().collect::<Vec<_>>(), Class::Copy);
        }
        let reason = if copy.program_or_file || !copy.stdin_stdout {
            Some("COPY read a file on the server")
        } else if copy.where_clause || copy.options.iter().any(|(name, _)| name == "on_error" || name == "default") {
            Some("COPY stored other rows than its stream holds (WHERE, ON_ERROR, DEFAULT)")
        } else if !matches!(table.relation.kind, RelationKind::Table | RelationKind::Partitioned) || table.foreign {
            Some("COPY wrote to a view or a foreign table")
        } else if self.masked {
            Some("its COPY isn't written in UTF-8")
        } else if table.before_triggers || table.after_triggers {
            Some("COPY ran into triggers, which may store other rows than its stream holds")
        } else if table.row_security {
            Some("row-level security applies to the role that wrote it")
        } else if self.copy_computes(&table, copy) {
            Some("COPY left a column out whose default is computed")
        } else {
            None
        };
        match reason {
            Some(reason) => self.opaque(statement, Class::Copy, reason),
            None => {
                let text = self.text.get(statement.range.clone()).unwrap_or_default();
                match without_freeze(&table, copy) {
                    Ok(sql) => {
                        let sql = sql.unwrap_or_else(|| text.to_owned());
                        Step { effect: Effect::Copy { table, sql }, ..Step::none(Class::Copy) }
                    }
                    Err(reason) => self.opaque(statement, Class::Copy, reason),
                }
            }
        }
    }

    fn copy_computes(&self, table: &Table, copy: &CopyCommand) -> bool {
        !copy.columns.is_empty()
            && table
                .relation
                .columns
                .iter()
                .zip(&table.defaults)
                .any(|(column, default)| *default == Default::Computed && !copy.columns.contains(&column.name))
    }

    fn truncate(&self, statement: &Statement, names: &[RelationName]) -> Step {
        let found: Vec<&Arc<Table>> = names.iter().filter_map(|n| self.table(n)).collect();
        let mirrored: Vec<&&Arc<Table>> = found.iter().filter(|t| !self.not_mirrored(t)).collect();
        if mirrored.is_empty() {
            // a name that isn't there yet may be made by a statement ahead of it
            let unknown = found.len() < names.len();
            return Step { hidden_writes: unknown, hidden_anywhere: unknown, ..Step::none(Class::Truncate) };
        }
        if mirrored.len() < names.len()
            || mirrored.iter().any(|t| t.foreign || t.relation.kind == RelationKind::Foreign)
        {
            return self.opaque(
                statement,
                Class::Truncate,
                "it was truncated together with a table that isn't mirrored",
            );
        }
        let tables = mirrored.iter().flat_map(|t| t.tree.iter().cloned()).collect();
        let sql = self.text.get(statement.range.clone()).unwrap_or_default().to_owned();
        Step {
            effect: Effect::Truncate { tables, sql },
            hidden_writes: mirrored.iter().any(|t| t.after_triggers || t.before_triggers),
            hidden_anywhere: mirrored.iter().any(|t| t.after_triggers || t.before_triggers),
            ..Step::none(Class::Truncate)
        }
    }

    fn ddl(&self, statement: &Statement, ddl: &Ddl) -> Step {
        let sql = self.text.get(statement.range.clone()).unwrap_or_default().to_owned();
        let step = Step { changes_session: true, alone: !ddl.in_transaction_block_allowed, ..Step::none(Class::Ddl) };
        if ddl.cluster_wide {
            let reason = "it changes the whole cluster (roles, databases, tablespaces)";
            return Step { effect: Effect::NotRepeated { sql: String::new(), reason }, ..step };
        }
        if ddl.concurrently || !ddl.in_transaction_block_allowed {
            return Step { effect: Effect::NotRepeated { sql, reason: "it can't run inside a transaction" }, ..step };
        }
        let known: Vec<Option<&Arc<Table>>> = ddl.tables.iter().map(|n| self.table(n)).collect();
        let temporary = ddl.opaque.is_none()
            && (ddl.temporary || !known.is_empty() && known.iter().all(|t| t.is_some_and(|t| t.temporary)));
        if temporary {
            return Step { effect: Effect::None, ..step };
        }
        let masked = self.masked.then_some("its text isn't written in UTF-8");
        let reason = masked.or(ddl.computes_values).or(ddl.opaque);
        let mut suspects = Vec::new();
        if let Some(reason) = reason {
            for (name, table) in ddl.tables.iter().zip(&known) {
                if ddl.temporary && table.is_none_or(|t| t.temporary) {
                    continue;
                }
                let table = table.map(|t| t.relation.name.clone()).or_else(|| self.created_name(name));
                suspects.push(Suspect { table, reason: format!("{}: {reason}", ddl.tag) });
            }
        }
        if ddl.opaque.is_some() || masked.is_some() {
            if let (true, Some(reason)) = (suspects.is_empty(), masked) {
                suspects.push(Suspect { table: None, reason: format!("{}: {reason}", ddl.tag) });
            }
            return Step { effect: Effect::Opaque(suspects), hidden_writes: true, hidden_anywhere: true, ..step };
        }
        let name = |(name, table): (&RelationName, &Option<&Arc<Table>>)| match table {
            Some(table) => Some(table.relation.name.clone()),
            None => self.created_name(name),
        };
        let mut tables: Vec<Option<QualifiedName>> = ddl.tables.iter().zip(&known).map(name).collect();
        // SET SCHEMA's second name is in the first one's schema if none is given
        if let (true, [Some(old), Some(new), ..]) = (ddl.moves, tables.as_mut_slice())
            && ddl.tables.get(1).is_some_and(|n| n.schema.is_none())
        {
            new.schema.clone_from(&old.schema);
        }
        if tables.is_empty() {
            tables.push(None);
        }
        let watched = self.functions.has_event_triggers();
        let effect = Effect::Ddl { sql, suspects, tables, moves: ddl.moves };
        Step { effect, hidden_writes: watched, ..step }
    }
}

/// The COPY to repeat where the client's says FREEZE: on the shadow the table was not made or emptied in the same
/// subtransaction, which FREEZE asks for. `None`: the client's own text.
fn without_freeze(table: &Table, copy: &CopyCommand) -> Result<Option<String>, &'static str> {
    const PLAIN: &[&str] = &["format", "delimiter", "null", "header", "quote", "escape", "encoding"];
    if !copy.options.iter().any(|(name, _)| name == "freeze") {
        return Ok(None);
    }
    let mut options = Vec::new();
    for (name, value) in copy.options.iter().filter(|(name, _)| name != "freeze") {
        if !PLAIN.contains(&name.as_str()) {
            return Err("COPY with FREEZE and further options isn't repeated");
        }
        let value = value.as_ref().map(|v| format!(" '{}'", v.replace('\'', "''"))).unwrap_or_default();
        options.push(format!("{name}{value}"));
    }
    let columns: Vec<String> = copy.columns.iter().map(|c| format!("\"{}\"", c.replace('"', "\"\""))).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let options = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    Ok(Some(format!("COPY {}{columns} FROM STDIN{options}", table.relation.name.sql())))
}

fn suspect(table: &Table, reason: &str) -> Suspect {
    Suspect { table: Some(table.relation.name.clone()), reason: reason.to_owned() }
}

/// Whether SET or RESET of this setting changes what names mean or how values are read.
fn changes_identity(name: Option<&str>, kind: &SetKind) -> bool {
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
