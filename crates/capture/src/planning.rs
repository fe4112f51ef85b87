//! From a text to its plan: what is known of the session and the catalog, or what must be asked first.
use crate::carried::sets_by_function;
use crate::classify::{Context, name_under, names_needed, needs_identity};
use crate::expected::{Prepared, SqlPrepared};
use crate::journal::Journal;
use crate::plan::{Effect, Plan, Step};
use crate::session::Session;
use crate::shape::{Shaped, shape};
use bytes::Bytes;
use pgshadow_catalog::Table;
use pgshadow_model::{QualifiedName, Suspect};
use pgshadow_sql::{Parsed, parse};
use pgshadow_telemetry::StatementClass;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// What is known of a text.
pub(crate) enum Known {
    Plan(Arc<Plan>),
    /// These names must be asked for first.
    Ask(Vec<String>),
}

impl<J: Journal> Session<J> {
    /// The plan for a text, from what is known of the session and the catalog.
    pub(crate) fn known(&mut self, text: &Bytes) -> Known {
        self.refresh();
        // only what executes one asks for what has become of them: our lookup has no place ahead of SET TRANSACTION, say
        let executes = text.windows(7).any(|word| word.eq_ignore_ascii_case(b"execute"));
        match if executes { self.renew_sql_prepared() } else { Ok(()) } {
            Err(names) => Known::Ask(names),
            Ok(()) => self.known_text(text),
        }
    }

    pub(crate) fn known_text(&mut self, text: &Bytes) -> Known {
        if let Some(plan) = self.plans.get(text) {
            return Known::Plan(Arc::clone(plan));
        }
        if self.identity.is_none() && !self.probe_failed && !text.is_ascii() {
            // in which encoding?
            return Known::Ask(Vec::new());
        }
        let Some(readable) = self.readable(text) else {
            self.own_settings.of_text(text);
            return Known::Plan(Arc::new(unreadable(text)));
        };
        let masked = matches!(readable, Cow::Owned(_));
        let shapeable = self.identity.is_some() && !masked && !sets_by_function(text);
        let shape = if shapeable { shape(&readable) } else { None };
        if let Some(plan) = shape.as_ref().and_then(|s| self.shapes.get(s)).and_then(|s| s.plan(&readable)) {
            return Known::Plan(Arc::new(plan));
        }
        // noted once, since the plan is kept; one whose names stand in values has no shape
        self.own_settings.of_text(text);
        let Ok(parsed) = parse(&readable) else {
            if self.identity.is_none() && !self.probe_failed && pgshadow_sql::depends_on_string_setting(&readable) {
                // how does the server read its constants?
                return Known::Ask(Vec::new());
            }
            return Known::Plan(Arc::new(unreadable(text)));
        };
        if self.identity.is_none() && needs_identity(&parsed) {
            return if self.probe_failed {
                Known::Plan(Arc::new(unprobed(&parsed)))
            } else {
                Known::Ask(names_needed(&parsed, None))
            };
        }
        let unknown = self.unknown_with_views(names_needed(&parsed, self.identity.as_deref()));
        if !unknown.is_empty() {
            return if self.probe_failed { Known::Plan(Arc::new(unprobed(&parsed))) } else { Known::Ask(unknown) };
        }
        let plan = self.plan(&readable, &parsed, masked, &self.tables);
        let asks = !plan.locks.is_empty() || plan.steps.iter().any(|s| s.hidden_writes);
        if self.identity.is_none() && !self.probe_failed && asks {
            // may it ask for the place of what it may write, and where is what it locks?
            return Known::Ask(Vec::new());
        }
        let plan = Arc::new(self.as_sent(plan, text, masked));
        if let Some((shape, shaped)) = shape.zip(Shaped::of(&readable, &plan)) {
            self.shapes.insert(shape, Arc::new(shaped));
            return Known::Plan(plan);
        }
        if text.len() <= PLANNED_TEXT_MAX {
            self.plans.insert(Bytes::copy_from_slice(text), Arc::clone(&plan));
        }
        Known::Plan(plan)
    }

    /// The text for the parser.
    pub(crate) fn readable<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, str>> {
        let encoding = self.identity.as_ref().map_or("UTF8", |i| i.client_encoding.as_str());
        let readable = readable(text, encoding)?;
        let differs = self.identity.as_ref().is_some_and(|i| i.standard_conforming_strings != "on");
        if differs { escaped(readable) } else { Some(readable) }
    }

    /// The plan with the text as this session can send it.
    pub(crate) fn as_sent(&self, mut plan: Plan, text: &Bytes, masked: bool) -> Plan {
        if self.identity.as_ref().is_some_and(|i| !i.may_draw) {
            plan = undrawn(plan);
        }
        let encoding_differs = self.identity.as_ref().is_some_and(|i| i.client_encoding != "UTF8");
        if encoding_differs && plan.text.as_ref().is_some_and(|sent| !sent.is_ascii()) {
            // a name that isn't ASCII: it would be sent in another encoding than the session's
            plan = unreadable(text);
        }
        if let (true, Some(sent)) = (masked, &plan.text) {
            match plan.rewrites.splice(text, sent) {
                Some(bytes) => plan.text = Some(Bytes::from(bytes)),
                None => plan = unreadable(text),
            }
        }
        plan
    }

    /// What has to be asked of these names, and of what is under those of them that are views.
    pub(crate) fn unknown_with_views(&mut self, mut names: Vec<String>) -> Vec<String> {
        loop {
            let unknown = self.unknown_names(&names);
            if !unknown.is_empty() {
                return unknown;
            }
            let table = |name: &String| self.tables.get(name)?.as_deref().and_then(name_under);
            let under: Vec<String> = names.iter().filter_map(table).filter(|name| !names.contains(name)).collect();
            if under.is_empty() {
                return under;
            }
            names.extend(under);
        }
    }

    /// The plan for a text whose names mean these tables.
    pub(crate) fn plan(
        &self,
        text: &str,
        parsed: &Parsed,
        masked: bool,
        tables: &HashMap<String, Option<Arc<Table>>>,
    ) -> Plan {
        let excluded = |name: &QualifiedName| self.shared.excluded.contains(name);
        let nobody = nobody();
        let (functions, definitions) = self.shared.catalog.functions_now();
        Context {
            text,
            identity: self.identity.as_deref().unwrap_or(&nobody),
            functions: &functions,
            epoch: self.tables_epoch,
            definitions: (self.units.iter().all(|u| u.code.is_nothing())).then_some(definitions),
            tables,
            masked,
            excluded: &excluded,
        }
        .plan(parsed)
    }

    /// SQL-level EXECUTE stands for what was prepared, by SQL or by the protocol.
    pub(crate) fn resolved(&self, step: &Arc<Step>) -> Arc<Step> {
        let Effect::Execute { name } = &step.effect else { return Arc::clone(step) };
        let found = self.executed(name);
        if !step.hidden_writes {
            return found;
        }
        // something in front of it in the same string may have changed what it means
        Arc::new(Step { hidden_writes: true, hidden_anywhere: true, ..Step::clone(&found) })
    }

    fn executed(&self, name: &str) -> Arc<Step> {
        match self.statements.get(name.as_bytes()) {
            // a lock can't be sent ahead of it
            Some(prepared) if self.is_current(prepared) && prepared.step.lock().is_some() => {
                let reason = "EXECUTE changed its keys by a statement that the protocol's Parse had prepared";
                Arc::new(prepared.step.declared(prepared.step.suspects_of_all(reason)).without_lock())
            }
            Some(prepared) if self.is_current(prepared) => Arc::clone(&prepared.step),
            Some(prepared) => {
                let reason =
                    "EXECUTE wrote it by a statement that had been prepared before a table or a setting changed";
                let suspects = vec![Suspect { table: None, reason: reason.to_owned() }];
                Arc::new(prepared.step.declared(suspects).without_lock())
            }
            // or prepared by a path that wasn't seen
            None => self
                .sql_prepared
                .get(name)
                .map_or_else(|| Arc::new(Step::unknown(StatementClass::Other)), |prepared| Arc::clone(&prepared.step)),
        }
    }

    /// What writes nothing may write when a temporary table gives its name back, or a function is defined anew.
    pub(crate) fn is_current(&self, prepared: &Prepared) -> bool {
        let same_catalog = prepared.plan.epoch == self.shared.catalog.epoch();
        let looked_up = self.identity.is_some() || matches!(prepared.step.effect, Effect::None);
        let same = same_catalog && prepared.generation == self.identity_changes && looked_up;
        !prepared.lost && (same || matches!(prepared.step.effect, Effect::Control(_)))
    }

    /// What SQL's PREPARE prepared is planned again where tables or settings may have changed; names to ask for first.
    pub(crate) fn renew_sql_prepared(&mut self) -> Result<(), Vec<String>> {
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
}

/// Texts longer than this are planned each time.
pub(crate) const PLANNED_TEXT_MAX: usize = 16 << 10;

/// The text for the parser, [`masked`](pgshadow_sql::masked) where it isn't UTF-8; `None` if it can't be read.
pub(crate) fn readable<'a>(text: &'a [u8], encoding: &str) -> Option<Cow<'a, str>> {
    match std::str::from_utf8(text) {
        Ok(read) if encoding == "UTF8" || text.is_ascii() && !unsafe_encoding(encoding) => Some(Cow::Borrowed(read)),
        _ if encoding == "UTF8" || unsafe_encoding(encoding) => None,
        _ => pgshadow_sql::masked(text).map(Cow::Owned),
    }
}

/// The text where backslashes escape in plain constants, for the parser.
fn escaped(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if pgshadow_sql::depends_on_string_setting(&text) {
        pgshadow_sql::without_escapes(&text).map(Cow::Owned)
    } else {
        Some(text)
    }
}

/// Encodings in which a byte below 128 can be part of a longer character.
pub(crate) fn unsafe_encoding(encoding: &str) -> bool {
    matches!(encoding, "SJIS" | "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB" | "SHIFT_JIS_2004")
}

pub(crate) fn nobody() -> pgshadow_catalog::Identity {
    pgshadow_catalog::Identity {
        role: String::new(),
        search_path: String::new(),
        schemas: Vec::new(),
        temporary_types: Vec::new(),
        temporary_statistics: Vec::new(),
        date_style: String::new(),
        time_zone: String::new(),
        interval_style: String::new(),
        client_encoding: "UTF8".to_owned(),
        standard_conforming_strings: "on".to_owned(),
        version: 0,
        synchronous_commit: String::new(),
        row_security: String::new(),
        session_replication_role: "origin".to_owned(),
        may_draw: true,
        may_set: true,
        temp_files: true,
    }
}

/// A text that the parser doesn't read: the server will most likely refuse it; if it doesn't, it may have done anything.
pub(crate) fn unreadable(text: &[u8]) -> Plan {
    let steps = if text.is_empty() {
        Vec::new()
    } else {
        vec![Arc::new(Step { alone: true, may_commit: true, may_define: true, ..Step::unknown(StatementClass::Other) })]
    };
    Plan { steps, end: text.len(), ..Plan::empty() }
}

/// The role may not ask where its writes stand: nothing of ours goes into them, and all that they may write is declared.
fn undrawn(plan: Plan) -> Plan {
    let reason = "the role that wrote it may not ask for its place in the order of transactions";
    let declared = |step: &Arc<Step>| {
        let executes = matches!(step.effect, Effect::Execute { .. });
        if matches!(step.effect, Effect::Prepare { .. }) {
            return Arc::new(Step::none(step.class));
        }
        if !step.writes() && !executes {
            return Arc::clone(step);
        }
        let mut suspects = step.suspects_of_all(reason);
        if step.hidden_writes || executes {
            suspects.push(Suspect { table: None, reason: reason.to_owned() });
        }
        let may_define = step.may_define || matches!(step.effect, Effect::Ddl { .. } | Effect::Beside { .. });
        let effect = Effect::Opaque(suspects);
        Arc::new(Step { effect, may_define, hidden_writes: false, hidden_anywhere: false, ..Step::clone(step) })
    };
    let steps = plan.steps.iter().map(declared).collect();
    let end = plan.ranges.last().map_or(0, |range| range.end);
    Plan { steps, end, epoch: plan.epoch, ranges: plan.ranges, locks: plan.locks, ..Plan::empty() }
}

/// Statements whose tables could not be asked for.
pub(crate) fn unprobed(parsed: &Parsed) -> Plan {
    let suspects = vec![Suspect { table: None, reason: "a statement's tables could not be looked up".to_owned() }];
    let step = |_| Arc::new(Step { effect: Effect::Opaque(suspects.clone()), ..Step::unknown(StatementClass::Other) });
    Plan {
        steps: parsed.statements.iter().map(step).collect(),
        end: parsed.statements.last().map_or(0, |s| s.range.end),
        ranges: parsed.statements.iter().map(|s| s.range.clone()).collect(),
        ..Plan::empty()
    }
}
