//! Frames of the client, on their way to the server.
use crate::classify::{Context, names_needed, needs_identity};
use crate::journal::Journal;
use crate::own;
use crate::plan::{Control, Effect, Plan, Step, Strip};
use crate::session::{
    Before, ExecuteRun, Expected, Hold, Output, OwnRun, Page, Portal, Prepared, Purpose, QueryRun, Session,
    SqlPrepared, Stage, SyncPurpose, ToServer,
};
use crate::shape::{Shaped, shape};
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_model::{Intent, QualifiedName, Suspect};
use pgshadow_sql::{Parsed, parse};
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::Frame;
use pgshadow_wire::frontend::{self, Bind, Parse};
use std::borrow::Cow;
use std::sync::Arc;

/// What is known of a text.
enum Known {
    Plan(Arc<Plan>),
    /// These names must be asked for first.
    Ask(Vec<String>),
}

impl<J: Journal> Session<J> {
    /// Takes one frame of the client; only while [`Session::takes_client_frames`].
    pub fn client(&mut self, frame: Frame, out: &mut Output) {
        if self.skip_to_sync && !matches!(frame.tag, frontend::SYNC | frontend::TERMINATE) {
            return;
        }
        match frame.tag {
            frontend::QUERY => self.query(frame, out),
            frontend::PARSE => self.parse(frame, out),
            frontend::BIND => self.bind(frame, out),
            frontend::DESCRIBE => self.describe(frame, out),
            frontend::EXECUTE => self.execute(frame, out),
            frontend::CLOSE => self.close(frame, out),
            frontend::SYNC => self.sync(frame, out),
            frontend::FUNCTION_CALL => self.function_call(frame, out),
            frontend::COPY_DATA if self.copy_sent() => {
                if let Some(stage) = self.copy_stage() {
                    let data = Bytes::copy_from_slice(frame.body());
                    stage.copy_bytes += data.len();
                    if stage.copy_bytes > COPY_BYTES_MAX {
                        stage.broken = Some("a COPY was larger than pgshadow may hold in memory");
                        stage.copy.clear();
                    } else {
                        stage.copy.push(data);
                    }
                }
                out.server(frame.bytes);
            }
            frontend::COPY_DONE | frontend::COPY_FAIL => {
                self.copy_done = true;
                out.server(frame.bytes);
            }
            _ => out.server(frame.bytes),
        }
    }

    fn copy_stage(&mut self) -> Option<&mut Stage> {
        self.pending.iter_mut().find_map(|e| match e {
            Expected::Query(run) if run.plan.steps.iter().any(|s| matches!(s.effect, Effect::Copy { .. })) => {
                Some(&mut run.stage)
            }
            Expected::Execute(run) if matches!(run.step.effect, Effect::Copy { .. }) => Some(&mut run.stage),
            _ => None,
        })
    }

    /// The plan for a text, from what is known of the session and the catalog.
    fn known(&mut self, text: &Bytes) -> Known {
        self.refresh();
        match self.renew_sql_prepared() {
            Err(names) => Known::Ask(names),
            Ok(()) => self.known_text(text),
        }
    }

    fn known_text(&mut self, text: &Bytes) -> Known {
        if let Some(plan) = self.plans.get(text) {
            return Known::Plan(Arc::clone(plan));
        }
        let encoding = self.identity.as_ref().map_or("UTF8", |i| i.client_encoding.as_str());
        if self.identity.is_none() && !self.probe_failed && !text.is_ascii() {
            // in which encoding?
            return Known::Ask(Vec::new());
        }
        let Some(readable) = readable(text, encoding) else { return Known::Plan(Arc::new(unreadable(text))) };
        let masked = matches!(readable, Cow::Owned(_));
        let shape = if self.identity.is_some() && !masked { shape(&readable) } else { None };
        if let Some(plan) = shape.as_ref().and_then(|s| self.shapes.get(s)).and_then(|s| s.plan(&readable)) {
            return Known::Plan(Arc::new(plan));
        }
        let Ok(parsed) = parse(&readable) else { return Known::Plan(Arc::new(unreadable(text))) };
        if self.identity.is_none() && needs_identity(&parsed) {
            return if self.probe_failed {
                Known::Plan(Arc::new(unprobed(&parsed)))
            } else {
                Known::Ask(names_needed(&parsed))
            };
        }
        if let Some(identity) = &self.identity
            && identity.standard_conforming_strings != "on"
            && pgshadow_sql::depends_on_string_setting(&readable)
        {
            return Known::Plan(Arc::new(unreadable(text)));
        }
        let unknown = self.unknown_names(&names_needed(&parsed));
        if !unknown.is_empty() {
            return if self.probe_failed { Known::Plan(Arc::new(unprobed(&parsed))) } else { Known::Ask(unknown) };
        }
        let mut plan = self.plan(&readable, &parsed, masked);
        if let (true, Some(sent)) = (masked, &plan.text) {
            match plan.rewrites.splice(text, sent) {
                Some(bytes) => plan.text = Some(Bytes::from(bytes)),
                None => plan = unreadable(text),
            }
        }
        let plan = Arc::new(plan);
        if let Some((shape, shaped)) = shape.zip(Shaped::of(&readable, &plan)) {
            self.shapes.insert(shape, Arc::new(shaped));
            return Known::Plan(plan);
        }
        if text.len() <= PLANNED_TEXT_MAX {
            self.plans.insert(Bytes::copy_from_slice(text), Arc::clone(&plan));
        }
        Known::Plan(plan)
    }

    fn plan(&self, text: &str, parsed: &Parsed, masked: bool) -> Plan {
        let excluded = |name: &QualifiedName| self.shared.excluded.contains(name);
        let nobody = nobody();
        Context {
            text,
            identity: self.identity.as_deref().unwrap_or(&nobody),
            functions: &self.shared.catalog.functions(),
            epoch: self.tables_epoch,
            tables: &self.tables,
            masked,
            excluded: &excluded,
        }
        .plan(parsed)
    }

    fn query(&mut self, frame: Frame, out: &mut Output) {
        let text = frontend::query_text(frame.body()).map(|text| frame.bytes.slice_ref(text));
        let Some(text) = text else {
            // the server will say what is wrong with it
            self.pending.push_back(Expected::Query(Box::new(QueryRun::new(
                Arc::new(unreadable(&Bytes::new())),
                0,
                true,
            ))));
            return out.server(frame.bytes);
        };
        match self.known(&text) {
            Known::Ask(names) => self.ask(names, frame, out),
            Known::Plan(plan) => {
                self.probe_failed = false;
                if plan.steps.first().is_some_and(|s| is_commit(s)) && self.must_know_before_commit() {
                    return self.hold = Hold::Answers(frame);
                }
                plan.steps.iter().for_each(|s| Counter::Statements(s.class).add(1));
                if plan.steps.len() > 1 && plan.steps.iter().any(|s| ends_or_begins(s)) {
                    self.split(&plan, &text, frame, out);
                } else {
                    self.send_query(&text, plan, 0, true, out);
                }
            }
        }
    }

    /// A text with transaction control among other statements is sent piece by piece, so that each piece can be captured as
    /// if it had come alone; the client sees one answer.
    fn split(&mut self, plan: &Plan, text: &Bytes, frame: Frame, out: &mut Output) {
        let mut block = self.block;
        let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
        let mut after_control = true;
        // outside a block: something was run since, so that a block of the string's own is open
        let mut open = false;
        for (step, range) in plan.steps.iter().zip(&plan.ranges) {
            let control = ends_or_begins(step);
            match &step.effect {
                // BEGIN would turn that one into a real one
                Effect::Control(Control::Begin) if !open => block = true,
                _ if control && !block => return self.send_declared(plan, text, frame, out),
                Effect::Control(Control::Commit { chain } | Control::Rollback { chain }) => block = *chain,
                Effect::Control(Control::Prepare) => block = false,
                _ if !block && !same_by_itself(step) => return self.send_declared(plan, text, frame, out),
                _ => open = !block,
            }
            match cuts.last_mut() {
                Some(last) if !control && !after_control => last.end = range.end,
                _ => cuts.push(range.clone()),
            }
            after_control = control;
        }
        for cut in cuts {
            let before = text.get(..cut.start).map_or(0, |t| String::from_utf8_lossy(t).chars().count());
            self.pieces.push_back((text.slice(cut), before));
        }
        self.next_piece(out);
    }

    /// Sends the next piece of a text.
    pub(crate) fn next_piece(&mut self, out: &mut Output) {
        let Some((text, offset)) = self.pieces.pop_front() else { return };
        match self.known(&text) {
            Known::Ask(names) => {
                self.pieces.push_front((text, offset));
                // an empty frame: when the answer is there, the pieces go on
                self.ask(names, Frame { tag: 0, bytes: Bytes::new() }, out);
            }
            Known::Plan(plan) => {
                self.probe_failed = false;
                let last = self.pieces.is_empty();
                self.send_query(&text, plan, offset, last, out);
                self.hold = Hold::Ready;
            }
        }
    }

    /// A text that can't be taken apart: everything that it names becomes suspect.
    fn send_declared(&mut self, plan: &Plan, text: &Bytes, frame: Frame, out: &mut Output) {
        let mut unit = Unit::default();
        plan.steps.iter().for_each(|s| unit.sent(s));
        let reason = "it was written in a query string with statements both inside and outside a transaction block";
        let any = unit.hidden_writes || unit.defines.contains(&None);
        let named = unit.may_write.iter().cloned().map(Some).chain(any.then_some(None));
        let suspects = named.map(|table| Suspect { table, reason: reason.to_owned() }).collect();
        let step = Step {
            effect: Effect::Opaque(suspects),
            changes_session: true,
            may_commit: true,
            may_define: plan.steps.iter().any(|s| s.class == StatementClass::Ddl || s.may_define),
            alone: true,
            ..Step::none(StatementClass::Other)
        };
        let declared = Plan { steps: vec![Arc::new(step)], ..unreadable(text) };
        let mut run = QueryRun::new(Arc::new(declared), 0, true);
        let unit = self.open_unit();
        unit.failed = false;
        unit.give_up(reason);
        run.plan.steps.iter().for_each(|s| unit.sent(s));
        unit.hidden_writes = false;
        unit.given_up.extend(run.plan.steps.iter().flat_map(|s| s.suspects().to_vec()));
        if !unit.given_up.is_empty() {
            self.write_intent(out);
        }
        if let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
        run.ends_unit = true;
        self.pending.push_back(Expected::Query(Box::new(run)));
        self.hold = Hold::Ready;
        out.server(frame.bytes);
    }

    fn send_query(&mut self, text: &Bytes, plan: Arc<Plan>, offset: usize, last_piece: bool, out: &mut Output) {
        let mut run = QueryRun::new(Arc::clone(&plan), offset, last_piece);
        self.copy_done = false;
        let control = plan.steps.iter().find_map(|s| match &s.effect {
            Effect::Control(control) if ends_or_begins(s) => Some(control.clone()),
            _ => None,
        });
        if plan.steps.iter().any(|s| s.changes_session || matches!(s.effect, Effect::Execute { .. }))
            || control.is_some()
        {
            self.hold = Hold::Ready;
        }
        let steps: Vec<Arc<Step>> = plan.steps.iter().map(|s| self.resolved(s)).collect();
        run.settings = self.settings_for(&steps);
        let in_block = self.block;
        let unit = self.open_unit();
        steps.iter().for_each(|s| unit.sent(s));
        let mut sent = plan.text.clone().unwrap_or_else(|| text.clone());
        match control {
            Some(Control::Begin) => self.block = true,
            Some(Control::Commit { chain } | Control::Rollback { chain }) if in_block => {
                if matches!(control, Some(Control::Commit { .. })) {
                    self.before_commit(out);
                }
                self.end_block(&mut run, chain);
            }
            Some(Control::Prepare) if in_block => {
                self.prepare_transaction(out);
                self.end_block(&mut run, false);
            }
            _ => {}
        }
        if !in_block && !self.block {
            run.ends_unit = true;
            sent = self.end_statement(&plan, &steps, &mut run, sent, out);
        }
        self.pending.push_back(Expected::Query(Box::new(run)));
        out.server(frontend::query(&sent));
    }

    fn end_block(&mut self, run: &mut QueryRun, chain: bool) {
        run.ends_unit = true;
        self.block = chain;
        if let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
    }

    /// A Query outside a block commits by itself: its end statement is appended and its intent comes first.
    fn end_statement(
        &mut self,
        plan: &Plan,
        steps: &[Arc<Step>],
        run: &mut QueryRun,
        sent: Bytes,
        out: &mut Output,
    ) -> Bytes {
        let alone = steps.iter().any(|s| s.alone);
        let Some(unit) = self.units.back_mut() else { return sent };
        unit.closed = true;
        if !unit.writes {
            return sent;
        }
        let mut text = sent;
        if unit.needs_end() && alone {
            let reason =
                "a procedure or block outside a transaction may have written it, where pgshadow can't see the rows"
                    .to_owned();
            unit.given_up.push(Suspect { table: None, reason });
            unit.ended = true;
        } else if unit.needs_end() {
            let mut longer = text.slice(..plan.end.min(text.len())).to_vec();
            if unit.deferrable {
                longer.extend_from_slice(format!("; {}", own::CHECK_CONSTRAINTS).as_bytes());
                run.suffix.push(Purpose::Constraints);
            }
            longer.extend_from_slice(format!("; {}", own::end_token(unit.hidden_writes)).as_bytes());
            run.suffix.push(Purpose::End { locks: unit.hidden_writes });
            text = Bytes::from(longer);
        }
        self.write_intent(out);
        text
    }

    /// What comes before the client's COMMIT in a Query: deferred checks, the end token, the intent.
    fn before_commit(&mut self, out: &mut Output) {
        let Some(unit) = self.units.back_mut() else { return };
        if unit.failed || !unit.writes {
            return;
        }
        if unit.needs_end() {
            self.own_end(out);
            out.server(frontend::sync());
            self.pending.push_back(Expected::Sync { ends_unit: false, purpose: SyncPurpose::BeforeCommit });
        }
        self.write_intent(out);
    }

    fn prepare_transaction(&mut self, out: &mut Output) {
        if let Some(unit) = self.units.back_mut().filter(|u| u.writes && !u.failed) {
            unit.give_up("it was written by a prepared transaction, which isn't followed yet");
            if unit.hidden_writes {
                let reason = "a prepared transaction may have written it unseen".to_owned();
                unit.given_up.push(Suspect { table: None, reason });
            }
            unit.changes.clear();
            self.write_intent(out);
        }
    }

    /// Our statements at the end of a transaction, in the extended protocol.
    fn own_end(&mut self, out: &mut Output) {
        let Some(unit) = self.units.back() else { return };
        let (deferrable, locks) = (unit.deferrable, unit.hidden_writes);
        let mut send = |purpose: Purpose, sql: &str| {
            out.server(frontend::own_statement(own::NAME, sql.as_bytes(), None));
            self.pending.push_back(Expected::Own(OwnRun {
                purpose,
                left: frontend::OWN_STATEMENT_REPLIES,
                value: None,
            }));
        };
        if deferrable {
            send(Purpose::Constraints, own::CHECK_CONSTRAINTS);
        }
        send(Purpose::End { locks }, &own::end_token(locks));
    }

    /// Writes the open unit's intent; what is sent next waits until it is durable.
    fn write_intent(&mut self, out: &mut Output) {
        let epoch = self.shared.journal.epoch();
        let backend = self.backend.clone();
        let Some(unit) = self.units.back_mut() else { return };
        if unit.intent.is_some() || unit.failed {
            return;
        }
        // what an unanswered ROLLBACK TO leaves isn't known yet
        let complete = unit.outstanding == 0 && !unit.needs_end() && unit.undoing == 0;
        let held = if unit.undoing == 0 { Vec::new() } else { std::mem::take(&mut unit.changes) };
        let intent = Intent {
            epoch,
            backend,
            xid: unit.xid,
            token: unit.token.filter(|_| complete),
            changes: std::mem::take(&mut unit.changes),
            may_write: if complete { Vec::new() } else { unit.may_write.iter().cloned().collect() },
            may_write_any: unit.may_write_any() && !complete,
            suspects: unit.suspects.iter().chain(&unit.given_up).cloned().collect(),
            prepared: None,
        };
        let (changes, result) = self.shared.journal.intent(intent);
        let logged = changes.len();
        unit.changes = changes;
        unit.changes.extend(held);
        match result {
            Ok(sequence) => {
                unit.intent = Some(sequence);
                unit.intent_changes = logged;
                out.to_server.push_back(ToServer::Durable(sequence));
            }
            Err(_) => unit.unmirrored = true,
        }
    }

    /// SQL-level EXECUTE stands for what was prepared, by SQL or by the protocol.
    pub(crate) fn resolved(&self, step: &Arc<Step>) -> Arc<Step> {
        let Effect::Execute { name } = &step.effect else { return Arc::clone(step) };
        if let Some(prepared) = self.sql_prepared.get(name) {
            return Arc::clone(&prepared.step);
        }
        match self.statements.get(name.as_bytes()) {
            Some(prepared) if self.is_current(prepared) => Arc::clone(&prepared.step),
            Some(prepared) => {
                let reason =
                    "EXECUTE wrote it by a statement that had been prepared before a table or a setting changed";
                Arc::new(prepared.step.declared(vec![Suspect { table: None, reason: reason.to_owned() }]))
            }
            // prepared by a path that wasn't seen
            None => Arc::new(Step::unknown(StatementClass::Other)),
        }
    }

    fn is_current(&self, prepared: &Prepared) -> bool {
        let touches_tables = !matches!(prepared.step.effect, Effect::None | Effect::Control(_));
        let same_catalog = prepared.plan.epoch == self.shared.catalog.epoch();
        !touches_tables && !prepared.step.hidden_writes
            || same_catalog && prepared.generation == self.identity_changes && self.identity.is_some()
    }

    /// What SQL's PREPARE prepared is planned again where tables or settings may have changed; names to ask for first.
    fn renew_sql_prepared(&mut self) -> Result<(), Vec<String>> {
        let epoch = self.shared.catalog.epoch();
        let stale = |p: &SqlPrepared| p.epoch != epoch || p.generation != self.identity_changes;
        let names: Vec<String> = self.sql_prepared.iter().filter(|(_, p)| stale(p)).map(|(n, _)| n.clone()).collect();
        for name in names {
            let Some(mut prepared) = self.sql_prepared.remove(&name) else { continue };
            let known = self.known_text(&prepared.text);
            let step = match &known {
                Known::Ask(asked) => {
                    self.sql_prepared.insert(name, prepared);
                    return Err(asked.clone());
                }
                Known::Plan(plan) => match plan.steps.first().map(|s| &s.effect) {
                    Some(Effect::Prepare { step, .. }) if plan.text == prepared.sent => Arc::clone(step),
                    Some(Effect::Prepare { step, .. }) => {
                        // the server has the text as it was sent then
                        let reason = "a prepared statement wrote it that had been classified before the table changed";
                        let tables = prepared.step.tables().into_iter().chain(step.tables());
                        let suspects = tables.map(|t| Suspect { table: Some(t), reason: reason.to_owned() });
                        Arc::new(prepared.step.declared(suspects.collect()))
                    }
                    _ => Arc::new(Step::unknown(StatementClass::Other)),
                },
            };
            prepared.step = step;
            (prepared.epoch, prepared.generation) = (epoch, self.identity_changes);
            self.sql_prepared.insert(name, prepared);
        }
        Ok(())
    }

    fn parse(&mut self, frame: Frame, out: &mut Output) {
        let Some(read) = Parse::read(frame.body()) else {
            self.reply_to(frame, Before::Nothing, out);
            return;
        };
        let (name, text) = (Bytes::copy_from_slice(read.name), Bytes::copy_from_slice(read.query));
        match self.known(&text) {
            Known::Ask(names) => self.ask(names, frame, out),
            Known::Plan(plan) => {
                self.probe_failed = false;
                let bytes = match &plan.text {
                    Some(rewritten) => frontend::parse(read.name, rewritten, read.types),
                    None => frame.bytes.clone(),
                };
                let step = plan.steps.first().cloned().unwrap_or_else(|| Arc::new(Step::none(StatementClass::Other)));
                let generation = self.identity_changes;
                let types = Bytes::copy_from_slice(read.types);
                let prepared = Prepared { text, plan: Arc::clone(&plan), step, types, generation };
                let before = self.statements.insert(name.clone(), prepared);
                let before = Before::Statement(name, before);
                self.replacing(&before);
                self.pending.push_back(Expected::Reply { plan: Some(plan), before });
                self.batch = true;
                out.server(bytes);
            }
        }
    }

    fn reply_to(&mut self, frame: Frame, before: Before, out: &mut Output) {
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan: None, before });
        self.batch = true;
        out.server(frame.bytes);
    }

    fn bind(&mut self, frame: Frame, out: &mut Output) {
        let Some(bind) = Bind::read(frame.body()) else { return self.reply_to(frame, Before::Nothing, out) };
        let portal = Bytes::copy_from_slice(bind.portal);
        let name = Bytes::copy_from_slice(bind.statement);
        if self.is_unsure(b'S', &name) {
            return self.hold = Hold::Answers(frame);
        }
        let prepared = match self.current(&name, out) {
            Ok(prepared) => prepared,
            Err(names) => return self.ask(names, frame, out),
        };
        let Some(prepared) = prepared else {
            let sql = std::str::from_utf8(&name).ok().and_then(|n| self.sql_prepared.get(n));
            let step =
                sql.map(|p| Arc::clone(&p.step)).unwrap_or_else(|| Arc::new(Step::unknown(StatementClass::Other)));
            let before = self.portals.insert(portal.clone(), Portal { plan: None, step, binary: false, paged: false });
            return self.reply_to(frame, Before::Portal(portal, before), out);
        };
        let formats = bind.result_formats.as_slice();
        let (bytes, binary) = match (self.resolved(&prepared.step).strip(), formats) {
            (Strip::Nothing, _) => (frame.bytes.clone(), false),
            // for no result any formats are fine
            (Strip::Rows, _) => (frontend::bind_with_result_formats(bind.head, &[1]), true),
            (Strip::LastColumn, []) => (frame.bytes.clone(), false),
            (Strip::LastColumn, [all]) => (frame.bytes.clone(), *all == 1),
            (Strip::LastColumn, each) => (frontend::bind_with_result_formats(bind.head, &[each, &[1]].concat()), true),
        };
        let bound = Portal { plan: Some(Arc::clone(&prepared.plan)), step: prepared.step, binary, paged: false };
        let before = self.portals.insert(portal.clone(), bound);
        let before = Before::Portal(portal, before);
        self.replacing(&before);
        self.pending.push_back(Expected::Reply { plan: Some(prepared.plan), before });
        self.batch = true;
        out.server(bytes);
    }

    /// A prepared statement as it stands with the present catalog and settings; names that must be asked for first. Where its
    /// text must be another one now, the server is given that.
    fn current(&mut self, name: &Bytes, out: &mut Output) -> Result<Option<Prepared>, Vec<String>> {
        let Some(prepared) = self.statements.get(name).cloned() else { return Ok(None) };
        if self.is_current(&prepared) {
            return Ok(Some(prepared));
        }
        let plan = match self.known(&prepared.text) {
            Known::Ask(names) => return Err(names),
            Known::Plan(plan) => plan,
        };
        self.probe_failed = false;
        let step = plan.steps.first().cloned().unwrap_or_else(|| Arc::clone(&prepared.step));
        if plan.text != prepared.plan.text {
            let text = plan.text.as_ref().unwrap_or(&prepared.text);
            out.server(frontend::close_statement(name));
            out.server(frontend::parse(name, text, &prepared.types));
            self.pending.push_back(Expected::Own(OwnRun { purpose: Purpose::Parse, left: 2, value: None }));
            self.batch = true;
        }
        let renewed = Prepared { plan, step, generation: self.identity_changes, ..prepared };
        self.statements.insert(name.clone(), renewed.clone());
        Ok(Some(renewed))
    }

    fn describe(&mut self, frame: Frame, out: &mut Output) {
        let named = frontend::kind_and_name(frame.body());
        if named.is_some_and(|(kind, name)| self.is_unsure(kind, name)) {
            return self.hold = Hold::Answers(frame);
        }
        let strip = match named {
            Some((b'S', name)) => self.statements.get(name).map(|s| self.resolved(&s.step).strip()),
            Some((_, name)) => self.portals.get(name).map(|p| self.resolved(&p.step).strip()),
            None => None,
        };
        self.pending.push_back(Expected::Describe(strip.unwrap_or(Strip::Nothing)));
        self.batch = true;
        out.server(frame.bytes);
    }

    fn close(&mut self, frame: Frame, out: &mut Output) {
        let before = match frontend::kind_and_name(frame.body()) {
            Some((b'S', name)) => Before::Statement(Bytes::copy_from_slice(name), self.statements.remove(name)),
            Some((_, name)) => Before::Portal(Bytes::copy_from_slice(name), self.portals.remove(name)),
            None => Before::Nothing,
        };
        self.reply_to(frame, before, out);
    }

    fn execute(&mut self, frame: Frame, out: &mut Output) {
        let Some((name, limit)) = frontend::execute(frame.body()) else {
            return self.reply_to(frame, Before::Nothing, out);
        };
        let name = Bytes::copy_from_slice(name);
        if self.is_unsure(b'P', &name) {
            return self.hold = Hold::Answers(frame);
        }
        let (step, plan, binary) = match self.portals.get(&name) {
            Some(portal) if portal.paged => {
                // its rows have come, or are coming, all at once: the client gets them page by page
                self.pending.push_back(Expected::Page { portal: name, limit });
                return self.turn_pages(out);
            }
            Some(p) => (self.resolved(&p.step), p.plan.clone(), p.binary),
            None => (Arc::new(Step::none(StatementClass::Other)), None, false),
        };
        if is_commit(&step) && self.must_know_before_commit() {
            return self.hold = Hold::Answers(frame);
        }
        Counter::Statements(step.class).add(1);
        let in_block = self.block;
        self.batch = true;
        let unit = self.open_unit();
        unit.sent(&step);
        let mut ends_unit = false;
        if let Effect::Control(control) = &step.effect {
            match control {
                Control::Begin => {
                    self.block = true;
                    self.batch_control = true;
                }
                Control::Commit { chain } | Control::Rollback { chain } if in_block => {
                    if matches!(control, Control::Commit { .. })
                        && self.units.back().is_some_and(|u| u.writes && !u.failed)
                    {
                        if self.units.back().is_some_and(Unit::needs_end) {
                            self.own_end(out);
                        }
                        self.write_intent(out);
                    }
                    ends_unit = true;
                    self.block = *chain;
                    self.batch_control = true;
                }
                Control::Prepare if in_block => {
                    self.prepare_transaction(out);
                    ends_unit = true;
                    self.block = false;
                    self.batch_control = true;
                }
                _ => {}
            }
        }
        if !in_block && step.alone && step.hidden_writes {
            // it may commit before the Sync
            self.declare_alone();
            self.write_intent(out);
        }
        if step.copy_in {
            // every COPY FROM STDIN, captured or not, takes the Sync that comes ahead of its data
            self.copy_in_batch = true;
            self.copy_done = false;
        }
        if ends_unit && let Some(unit) = self.units.back_mut() {
            unit.closed = true;
        }
        // every written row must come back in the same transaction, whatever the client's row limit
        let captured = step.strip() != Strip::Nothing && limit > 0;
        let bytes = if captured { frontend::execute_frame(&name, 0) } else { frame.bytes };
        let page = (captured && step.strip() == Strip::LastColumn).then(|| Page::new(name.clone(), limit));
        if page.is_some()
            && let Some(portal) = self.portals.get_mut(&name)
        {
            portal.paged = true;
        }
        let settings = self.settings_for(std::slice::from_ref(&step));
        if step.changes_session {
            self.batch_control = true;
            // what comes in the same batch is looked up behind it
            self.forget_identity();
        }
        let run = ExecuteRun { step, plan, stage: Stage::default(), binary, ends_unit, page, settings };
        self.pending.push_back(Expected::Execute(Box::new(run)));
        out.server(bytes);
    }

    fn sync(&mut self, frame: Frame, out: &mut Output) {
        self.skip_to_sync = false;
        if self.copying && !self.copy_done {
            // "The server ignores Sync and Flush during COPY": no answer will come
            return out.server(frame.bytes);
        }
        let copy_begins = self.copy_in_batch && !self.copy_done;
        let mut ends_unit = false;
        if let Some(unit) = self.units.back().filter(|u| !u.closed && !u.explicit) {
            let (writes, needs_end) = (unit.writes && !unit.failed, unit.needs_end());
            ends_unit = true;
            if writes && !copy_begins {
                if needs_end && self.batch_alone() {
                    self.declare_alone();
                } else if needs_end {
                    self.own_end(out);
                }
            }
            if writes {
                self.write_intent(out);
            }
            if !copy_begins && let Some(unit) = self.units.back_mut() {
                unit.closed = true;
            }
        }
        let purpose = if copy_begins { SyncPurpose::AheadOfCopy } else { SyncPurpose::Client };
        self.pending.push_back(Expected::Sync { ends_unit, purpose });
        self.syncs_sent += 1;
        if !self.block {
            // the transaction ends, and its portals with it
            self.portals.clear();
        }
        if self.batch_control && !copy_begins {
            self.hold = Hold::Ready;
        }
        self.batch = false;
        self.batch_control = false;
        self.copy_in_batch = false;
        out.server(frame.bytes);
    }

    /// Whether the open batch holds a statement that nothing can be appended to (CALL and DO may end the transaction).
    fn batch_alone(&self) -> bool {
        self.pending
            .iter()
            .rev()
            .take_while(|e| !matches!(e, Expected::Sync { .. } | Expected::Query(_)))
            .any(|e| matches!(e, Expected::Execute(run) if run.step.alone))
    }

    fn declare_alone(&mut self) {
        if let Some(unit) = self.units.back_mut() {
            let reason =
                "a procedure or block outside a transaction may have written it, where pgshadow can't see the rows"
                    .to_owned();
            unit.given_up.push(Suspect { table: None, reason });
            unit.ended = true;
        }
    }

    fn function_call(&mut self, frame: Frame, out: &mut Output) {
        const LARGE_OBJECT_WRITES: &[i32] = &[715, 764, 765, 767, 955, 957, 964, 1004, 3172, 3457, 3459, 3460];
        let oid = pgshadow_wire::Reader::new(frame.body()).i32().unwrap_or(0);
        let suspects = if oid >= 16_384 {
            vec![Suspect { table: None, reason: "a function was called by the fast-path interface".to_owned() }]
        } else if LARGE_OBJECT_WRITES.contains(&oid) {
            let table = Some(QualifiedName::new("pg_catalog", "pg_largeobject"));
            vec![Suspect { table, reason: "large objects aren't mirrored".to_owned() }]
        } else {
            Vec::new()
        };
        self.shared.journal.suspect(suspects.clone());
        self.pending.push_back(Expected::FunctionCall { suspects });
        out.server(frame.bytes);
    }
}

impl QueryRun {
    pub(crate) fn new(plan: Arc<Plan>, offset: usize, last_piece: bool) -> Self {
        Self {
            plan,
            at: 0,
            stage: Stage::default(),
            suffix: Vec::new(),
            own_value: None,
            held: None,
            ends_unit: false,
            failed: false,
            offset,
            last_piece,
            instead: None,
            settings: None,
        }
    }
}

const COPY_BYTES_MAX: usize = 64 << 20;

/// Texts longer than this are planned each time.
const PLANNED_TEXT_MAX: usize = 16 << 10;

/// BEGIN, COMMIT, ROLLBACK, PREPARE TRANSACTION: what changes whether a block is open.
fn ends_or_begins(step: &Step) -> bool {
    matches!(
        &step.effect,
        Effect::Control(Control::Begin | Control::Commit { .. } | Control::Rollback { .. } | Control::Prepare)
    )
}

/// Whether it does and says the same as a Query of its own as it does in a string's own block: SET LOCAL, LOCK, VACUUM, and
/// what is checked at the end, tell the two apart.
fn same_by_itself(step: &Step) -> bool {
    let deferrable = matches!(&step.effect, Effect::Write(write) if write.table.deferrable);
    let plain = matches!(
        step.class,
        StatementClass::Read | StatementClass::Insert | StatementClass::Update | StatementClass::Delete
    );
    plain && !deferrable && !step.alone && !step.changes_session && !matches!(step.effect, Effect::Control(_))
}

fn is_commit(step: &Step) -> bool {
    matches!(step.effect, Effect::Control(Control::Commit { .. }))
}

/// The text for the parser, [`masked`](pgshadow_sql::masked) where it isn't UTF-8; `None` if it can't be read.
fn readable<'a>(text: &'a [u8], encoding: &str) -> Option<Cow<'a, str>> {
    match std::str::from_utf8(text) {
        Ok(read) if encoding == "UTF8" || text.is_ascii() && !unsafe_encoding(encoding) => Some(Cow::Borrowed(read)),
        _ if encoding == "UTF8" || unsafe_encoding(encoding) => None,
        _ => pgshadow_sql::masked(text).map(Cow::Owned),
    }
}

/// Encodings in which a byte below 128 can be part of a longer character.
fn unsafe_encoding(encoding: &str) -> bool {
    matches!(encoding, "SJIS" | "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB" | "SHIFT_JIS_2004")
}

fn nobody() -> pgshadow_catalog::Identity {
    pgshadow_catalog::Identity {
        role: String::new(),
        search_path: String::new(),
        schemas: Vec::new(),
        date_style: String::new(),
        time_zone: String::new(),
        interval_style: String::new(),
        client_encoding: "UTF8".to_owned(),
        standard_conforming_strings: "on".to_owned(),
        synchronous_commit: String::new(),
        row_security: String::new(),
        session_replication_role: "origin".to_owned(),
    }
}

/// A text that the parser doesn't read: the server will most likely refuse it; if it doesn't, it may have done anything.
fn unreadable(text: &[u8]) -> Plan {
    let steps = if text.is_empty() {
        Vec::new()
    } else {
        vec![Arc::new(Step { alone: true, may_commit: true, may_define: true, ..Step::unknown(StatementClass::Other) })]
    };
    Plan { steps, end: text.len(), ..Plan::empty() }
}

/// Statements whose tables could not be asked for.
fn unprobed(parsed: &Parsed) -> Plan {
    let suspects = vec![Suspect { table: None, reason: "a statement's tables could not be looked up".to_owned() }];
    let step = |_| Arc::new(Step { effect: Effect::Opaque(suspects.clone()), ..Step::unknown(StatementClass::Other) });
    Plan {
        steps: parsed.statements.iter().map(step).collect(),
        end: parsed.statements.last().map_or(0, |s| s.range.end),
        ranges: parsed.statements.iter().map(|s| s.range.clone()).collect(),
        ..Plan::empty()
    }
}
