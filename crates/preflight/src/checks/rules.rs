//! Rules that differ; that of a view is the view itself.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::{Object, Sides};
use pgshadow_model::{Place, quote};

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text, w.rulename::text], pg_catalog.pg_get_ruledef(w.oid), pg_catalog.pg_get_ruledef(w.oid),
          ARRAY[w.ev_enabled::text]
        FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE w.rulename <> '_RETURN' AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::in_tables(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for rule in sides.missing() {
        let happens = "the target lacks the rule: what it does is left out after the flip";
        let mend = format!("{}{}", rule.statement, state(rule, "O"));
        found.push(Finding::block(Place::Target, rule.shown(), happens).mend(mend));
    }
    for rule in sides.extra() {
        let happens = "only the target has the rule: it acts on what is written after the flip";
        found.push(Finding::warn(Place::Target, rule.shown(), happens).mend(drop(rule)));
    }
    for (source, target) in sides.common() {
        let enabled = state(source, target.detail(0));
        if !enabled.is_empty() {
            let happens = "it is enabled or disabled otherwise on the target: it acts otherwise after the flip";
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(enabled.trim_start()));
        }
        if source.definition == target.definition {
            continue;
        }
        let mend = format!("{} {}{}", drop(target), source.statement, state(source, "O"));
        found.push(if pair.same_major() {
            let happens = "it is defined otherwise on the target: it acts otherwise after the flip";
            Finding::warn(Place::Target, source.shown(), happens).mend(mend)
        } else {
            let happens = "its text differs, as it may between majors: it may act otherwise after the flip";
            Finding::note(Place::Target, source.shown(), happens).sure(Sure::Possible).mend(mend)
        });
    }
    Ok(found)
}

fn drop(rule: &Object) -> String {
    format!("DROP RULE {} ON {};", quote(rule.part(2)), rule.table().sql())
}

/// The statement that enables or disables it as the source has it, where it is otherwise.
fn state(rule: &Object, is: &str) -> String {
    let state = match rule.detail(0) {
        state if state == is => return String::new(),
        "D" => "DISABLE",
        "R" => "ENABLE REPLICA",
        "A" => "ENABLE ALWAYS",
        _ => "ENABLE",
    };
    format!(" ALTER TABLE {} {state} RULE {};", rule.table().sql(), quote(rule.part(2)))
}
