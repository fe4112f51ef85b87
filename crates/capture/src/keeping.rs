//! Prepared statements whose text has come to mean another table, while the server goes on with the one that they were prepared for.
//!
//! The server looks names up again only where the effective search_path has changed, or a table that the statement was planned with. A
//! table made in front of it does neither, a temporary one included, unless it is the session's first. A text given anew then would
//! send the client's rows to another table than its own statement does. So the server keeps what it has, and the rows tell.
use crate::classify::sql_name;
use crate::expected::Prepared;
use crate::journal::Journal;
use crate::plan::{Effect, Plan, Step, WriteEffect};
use crate::session::Session;
use pgshadow_catalog::{Identity, Table};
use pgshadow_model::{QualifiedName, Suspect};
use pgshadow_sql::{Parsed, parse};
use std::borrow::Cow;
use std::sync::Arc;

/// Whether the server goes on with the text that it has, although ours would be another one now.
pub(crate) enum Keeps {
    /// It looks names up again, or may as well.
    No,
    /// It does: what is to be done about it.
    Yes(Prepared),
    /// These names must be asked for first.
    Ask(Vec<String>),
}

const KEPT: &str = "a prepared statement may have written it that had been prepared before another table took its name";

/// Tables that a statement was prepared for, and may still write although its text means others now. Rows that tell of which table
/// they are need none of this.
pub(crate) fn kept(prepared: &Prepared, plan: &Plan, step: &Step) -> Vec<Suspect> {
    if plan.text != prepared.plan.text || matches!(&step.effect, Effect::Write(write) if write.has_table_oid()) {
        return Vec::new();
    }
    let mut kept = prepared.kept.clone();
    let before = prepared.step.tables();
    // Their order isn't part of it: the server gives it by the plan that it has for our query.
    let sorted = |mut tables: Vec<QualifiedName>| {
        tables.sort();
        tables
    };
    if prepared.step.writes() && sorted(before.clone()) != sorted(step.tables()) {
        let fresh = before.into_iter().map(|table| Suspect { table: Some(table), reason: KEPT.to_owned() });
        kept.extend(fresh.filter(|suspect| !prepared.kept.contains(suspect)));
    }
    kept
}

/// The same step, but that what was kept, and what its text means now, is declared.
pub(crate) fn declared(step: &Step, kept: impl IntoIterator<Item = Suspect>) -> Step {
    let own = step.suspects_of_all(KEPT).into_iter().filter(|suspect| suspect.table.is_some());
    let fresh = kept.into_iter().chain(own).filter(|suspect| !step.suspects().contains(suspect));
    step.declared(fresh.collect())
}

/// What the former table's plan does, where the server may also write the one that has its name now: each row tells.
fn of_both(former: &Step, now: &Table, by_name: &Step) -> Option<Step> {
    // a lock taken ahead would look its names up afresh
    let Effect::Write(write) = &former.effect else { return None };
    if !write.has_table_oid() || former.lock().is_some() {
        return None;
    }
    let mut write = WriteEffect::clone(write);
    match &by_name.effect {
        Effect::None => write.aside.clone_from(&now.tree_oids),
        Effect::Write(other) => {
            let alike = |w: &WriteEffect| w.has_table_oid() && w.suspects.is_empty() && w.several.is_none();
            if by_name.lock().is_some() || !alike(&write) || !alike(other) || write.strip != other.strip {
                return None;
            }
            write.instead = Some(Arc::clone(other));
        }
        _ => return None,
    }
    write.determined &= write.instead.is_none();
    Some(Step {
        effect: Effect::Write(Arc::new(write)),
        hidden_writes: former.hidden_writes || by_name.hidden_writes,
        hidden_anywhere: former.hidden_anywhere || by_name.hidden_anywhere,
        changes_session: former.changes_session || by_name.changes_session,
        ..former.clone()
    })
}

impl<J: Journal> Session<J> {
    /// Whether the server keeps the text that it has of a prepared statement; `plan` is what its names mean now.
    pub(crate) fn keeps(&mut self, prepared: &Prepared, plan: &Plan) -> Keeps {
        let Effect::Write(before) = &prepared.step.effect else { return Keeps::No };
        let path = |identity: &Option<Arc<Identity>>| identity.as_ref().map(|i| i.schemas.clone());
        if prepared.lost || before.through_view || path(&prepared.identity) != path(&self.identity) {
            return Keeps::No;
        }
        let written = plan.steps.first().and_then(|step| step.effect.write());
        if written.is_some_and(|write| write.table.relation.oid == before.table.relation.oid) {
            return Keeps::No;
        }
        let Some(read) = self.readable(&prepared.text) else { return Keeps::No };
        let Ok(parsed) = parse(&read) else { return Keeps::No };
        let Some(name) = target(&parsed) else { return Keeps::No };
        let Some(Some(now)) = self.tables.get(&name).cloned() else { return Keeps::No };
        let former = &before.table.relation;
        let qualified = former.name.sql();
        let askable = qualified.is_ascii() || self.identity.as_ref().is_some_and(|i| i.client_encoding == "UTF8");
        if now.relation.oid == former.oid || !askable {
            return Keeps::No;
        }
        let unknown = self.unknown_names(std::slice::from_ref(&qualified));
        if !unknown.is_empty() && !self.probe_failed {
            return Keeps::Ask(unknown);
        }
        match self.tables.get(&qualified) {
            // one that is gone, or was changed, is a reason to look its name up again
            Some(Some(there)) if there.relation == *former => {}
            _ => return Keeps::No,
        }
        let mut tables = self.tables.clone();
        let there = tables.get(&qualified).cloned().flatten();
        tables.insert(name, there);
        let masked = matches!(read, Cow::Owned(_));
        let as_former = self.as_sent(self.plan(&read, &parsed, masked, &tables), &prepared.text, masked);
        let by_name = plan.steps.first();
        // with one text for both the rows tell, whichever it is
        let same = as_former.text == prepared.plan.text && (plan.text.is_none() || plan.text == as_former.text);
        let both = as_former.steps.first().zip(by_name).filter(|_| same);
        let kept = match both.and_then(|(former, by_name)| of_both(former, &now, by_name)) {
            Some(step) => Prepared { plan: Arc::new(as_former), step: Arc::new(step), ..prepared.clone() },
            None if plan.text == prepared.plan.text => return Keeps::No,
            None => {
                let more = by_name.map(|step| step.suspects_of_all(KEPT)).unwrap_or_default();
                let step = declared(&prepared.step, more.into_iter().filter(|suspect| suspect.table.is_some()));
                Prepared { step: Arc::new(step.without_lock()), ..prepared.clone() }
            }
        };
        Keeps::Yes(Prepared { generation: self.identity_changes, ..kept })
    }
}

/// The relation that the only statement of a text writes, as the probe wants its name.
fn target(parsed: &Parsed) -> Option<String> {
    let [statement] = parsed.statements.as_slice() else { return None };
    statement.written().first().map(|name| sql_name(name))
}
