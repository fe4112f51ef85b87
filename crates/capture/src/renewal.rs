//! Prepared statements follow the session: planned again where tables or settings have changed, and given to the server anew
//! where their text must be another one then.
use crate::classify::names_of;
use crate::expected::{Expected, OwnRun, Prepared, Purpose};
use crate::journal::Journal;
use crate::keeping::{Keeps, declared, kept};
use crate::own::NAME;
use crate::plan::{Effect, Plan, Strip};
use crate::planning::Known;
use crate::session::{Output, Session};
use bytes::Bytes;
use pgshadow_sql::{highest_parameter, parse};
use pgshadow_wire::frontend::{self, Bind};
use std::sync::Arc;

/// How many answers are left of those to [`Session::parse_again`] once the client's statement is closed.
pub(crate) const LEFT_WHEN_CLOSED: usize = 2;

/// How a prepared statement stands.
pub(crate) enum Current {
    /// So; the server has it.
    Is(Option<Prepared>),
    /// These names must be asked for first.
    Ask(Vec<String>),
    /// The transaction may have failed unseen: then nothing can be planned in it.
    Wait,
}

/// Whether the server can plan the text of ours that it has, so that it is refused for nothing but a result of the client's.
fn may_be_described(before: &Prepared, plan: &Plan) -> bool {
    let Effect::Write(had) = &before.step.effect else { return before.plan.text.is_none() };
    let Some(Effect::Write(has)) = plan.steps.first().map(|step| &step.effect) else { return false };
    let (had_columns, has_columns) = (&had.table.relation.columns, &has.table.relation.columns);
    had.strip == Strip::LastColumn
        && had.through_view == has.through_view
        && had.table.relation.kind == has.table.relation.kind
        && had_columns.iter().all(|column| has_columns.iter().any(|other| other.name == column.name))
}

impl<J: Journal> Session<J> {
    /// A prepared statement as it stands with the present catalog and settings.
    pub(crate) fn current(&mut self, name: &Bytes, out: &mut Output) -> Current {
        self.refresh();
        let Some(prepared) = self.statements.get(name).cloned() else { return Current::Is(None) };
        if self.is_current(&prepared) {
            return Current::Is(Some(prepared));
        }
        if self.block && self.awaits_ready() {
            return Current::Wait;
        }
        if self.units.back().is_some_and(|u| u.failed && !u.closed) {
            // the server refuses whatever it is given, but in other words what it doesn't have
            if prepared.lost {
                self.parse_again(name, &prepared, &prepared.text, Arc::clone(&prepared.plan), out);
            }
            return Current::Is(Some(prepared));
        }
        let plan = match self.known(&prepared.text) {
            Known::Ask(names) => return Current::Ask(names),
            Known::Plan(plan) => plan,
        };
        match self.keeps(&prepared, &plan) {
            Keeps::Ask(names) => return Current::Ask(names),
            Keeps::Yes(kept) => {
                self.probe_failed = false;
                self.statements.insert(name.clone(), kept.clone());
                return Current::Is(Some(kept));
            }
            Keeps::No => self.probe_failed = false,
        }
        let mut step = plan.steps.first().cloned().unwrap_or_else(|| Arc::clone(&prepared.step));
        let kept = if prepared.lost { Vec::new() } else { kept(&prepared, &plan, &step) };
        if !kept.is_empty() {
            step = Arc::new(declared(&step, kept.iter().cloned()));
        }
        if prepared.lost || plan.text != prepared.plan.text {
            if !prepared.lost && !self.can_be_planned(&prepared.text) {
                // the server will refuse the one that it has, in its own words
                let reason = "a prepared statement wrote it whose tables could not be looked up any more";
                let suspects = prepared.step.suspects_of_all(reason);
                let step = Arc::new(prepared.step.declared(suspects));
                return Current::Is(Some(Prepared { step, ..prepared }));
            }
            let text = plan.text.as_ref().unwrap_or(&prepared.text);
            self.parse_again(name, &prepared, text, Arc::clone(&plan), out);
        }
        let (generation, identity) = (self.identity_changes, self.identity.clone());
        let renewed = Prepared { plan, step, generation, identity, lost: false, kept, ..prepared };
        self.statements.insert(name.clone(), renewed.clone());
        Current::Is(Some(renewed))
    }

    /// A statement that doesn't stand any more as the server has it, where this Bind isn't for as many parameters as it has: that is
    /// refused first, before the server looks at what has become of the statement's tables.
    pub(crate) fn misfitting(&mut self, name: &Bytes, bind: &Bind<'_>) -> Option<Prepared> {
        self.refresh();
        let prepared = self.statements.get(name).filter(|prepared| !prepared.lost && !self.is_current(prepared))?;
        if self.parameters(prepared)? == bind.parameters.len() {
            return None;
        }
        let reason = "a prepared statement wrote it with parameters that it doesn't have";
        let step = Arc::new(prepared.step.declared(prepared.step.suspects_of_all(reason)));
        Some(Prepared { step, ..prepared.clone() })
    }

    /// How many parameters it has: as many as the server has told, as its text names, or as Parse gave types for.
    fn parameters(&self, prepared: &Prepared) -> Option<usize> {
        let count = |bytes: &[u8]| bytes.first_chunk().map(|count| usize::from(u16::from_be_bytes(*count)));
        match prepared.parameters.get() {
            Some(description) => count(description.get(5..)?),
            None => Some(highest_parameter(&self.readable(&prepared.text)?)?.max(count(&prepared.types)?)),
        }
    }

    /// Gives the server another text of a prepared statement. First under a name of our own: if that is refused, the
    /// client's statement is still there.
    fn parse_again(&mut self, name: &Bytes, before: &Prepared, text: &[u8], plan: Arc<Plan>, out: &mut Output) {
        let asked = !before.lost && may_be_described(before, &plan);
        if asked {
            // one whose result has changed is refused, as the client's Bind would be
            out.server(frontend::describe_statement(name));
        }
        for bytes in [
            frontend::close_statement(NAME),
            frontend::parse(NAME, text, &before.types),
            frontend::close_statement(name),
            frontend::parse(name, text, &before.types),
            frontend::close_statement(NAME),
        ] {
            out.server(bytes);
        }
        self.replaced.insert((b'S', name.clone()), self.syncs_sent);
        let purpose = Purpose::Parse { name: name.clone(), before: Box::new(before.clone()), plan };
        self.pending.push_back(Expected::Own(OwnRun::new(purpose, if asked { 7 } else { 5 })));
        self.batch = true;
    }

    /// Whether every table that the text writes is there.
    fn can_be_planned(&self, text: &Bytes) -> bool {
        let Some(parsed) = self.readable(text).and_then(|read| parse(&read).ok()) else { return true };
        parsed.statements.iter().flat_map(names_of).all(|name| !matches!(self.tables.get(&name), Some(None)))
    }
}
