//! Triggers, functions, policies and rules that were made past pgshadow: sessions know nothing of them, so what they write
//! would be lost without a word.
//!
//! The primary's catalog is looked at once a second, and whenever somebody wants to know that all is applied. What is there anew
//! and wasn't named by a definition that came through pgshadow, nor is a moment later (its answer may be on the way), was made
//! past it: then sessions look their tables up again, and what it may have written until now is suspect.
use super::control::load_functions;
use super::mirror::Mirror;
use super::primary::{Connection, Unanswered, answered};
use pgshadow_catalog::{FunctionNature, Functions, Redefined};
use pgshadow_model::{QualifiedName, Suspect};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Pause between two looks that nobody waits for.
const LOOK: Duration = Duration::from_secs(1);
/// How long the answer to a definition that came through pgshadow may be on its way.
const ANSWERED: Duration = Duration::from_millis(500);

/// A text that is another one whenever one of them was made, changed or dropped.
const FINGERPRINT: &str = "SELECT pg_catalog.concat_ws(' ',
  (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_trigger
    WHERE NOT tgisinternal),
  (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_proc
    WHERE oid OPERATOR(pg_catalog.>=) 16384),
  (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_policy),
  (SELECT pg_catalog.concat(pg_catalog.count(*), ' ', pg_catalog.sum(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_rewrite
    WHERE NOT ev_type OPERATOR(pg_catalog.=) '1'))";

/// Kind, OID, version, schema, name of the table or function, and of the function that a trigger calls; whether a trigger may
/// change the row before it is written.
const OBJECTS: &str = "
SELECT 't', g.oid, g.xmin::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, p.proname::pg_catalog.text,
       (g.tgtype OPERATOR(pg_catalog.&) 2::pg_catalog.int2) OPERATOR(pg_catalog.<>) 0::pg_catalog.int2
FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) g.tgfoid
WHERE NOT g.tgisinternal AND NOT g.tgenabled OPERATOR(pg_catalog.=) 'D' AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't'
UNION ALL
SELECT 'f', p.oid, p.xmin::pg_catalog.text, n.nspname::pg_catalog.text, p.proname::pg_catalog.text, p.proname::pg_catalog.text, false
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.oid OPERATOR(pg_catalog.>=) 16384 AND n.nspname OPERATOR(pg_catalog.!~~) 'pg\\_temp\\_%'
UNION ALL
SELECT 'p', y.oid, y.xmin::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, '', false
FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) y.polrelid
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
UNION ALL
SELECT 'r', w.oid, w.xmin::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, '', false
FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) w.ev_class
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE NOT w.ev_type OPERATOR(pg_catalog.=) '1' AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Trigger { before: bool },
    Function,
    Policy,
    Rule,
}

/// One of them.
#[derive(Debug, Clone)]
struct Object {
    kind: Kind,
    /// The transaction that wrote it.
    version: String,
    /// Its table, or the function itself.
    of: QualifiedName,
    /// What a trigger calls.
    function: String,
    /// It was there before, and was changed.
    changed: bool,
}

/// What the catalog held at the last look.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    fingerprint: String,
    known: Option<HashMap<(String, u32), Object>>,
    /// There anew, and not named by what has come through pgshadow so far.
    unnamed: Vec<(Object, Instant)>,
    last: Option<Instant>,
}

/// Looks, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Looks {
    begun: AtomicU64,
    done: watch::Sender<u64>,
    wanted: Notify,
}

impl Looks {
    /// Returns once a look that began after this call has told all.
    pub async fn looked(&self) {
        let needed = self.begun.load(Ordering::Acquire) + 1;
        self.wanted.notify_one();
        let _ = self.done.subscribe().wait_for(|done| *done >= needed).await;
    }

    /// Until somebody waits for one.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn has_waiting(&self) -> bool {
        self.done.receiver_count() > 0
    }

    /// The primary isn't reached: nobody needs to wait for it.
    pub fn given_up(&self) {
        let begun = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.done.send_replace(begun);
    }
}

impl Definitions {
    /// Looks, if it is time to.
    pub async fn look(&mut self, client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
        let looks = &mirror.looks;
        if self.last.is_some_and(|last| last.elapsed() < LOOK) && !looks.has_waiting() {
            return Ok(());
        }
        let begun = looks.begun.fetch_add(1, Ordering::AcqRel) + 1;
        // before the catalog is read: what comes later is told by the next look
        let seen = mirror.catalog.take_seen();
        self.unnamed.retain(|(object, _)| !seen.may_name(&object.of.name));
        let fingerprint: String = answered(client.query_one(FINGERPRINT, &[])).await?.get(0);
        if fingerprint != self.fingerprint {
            let fresh = self.fresh(client).await?;
            self.fingerprint = fingerprint;
            let unnamed = fresh.into_iter().filter(|object| !seen.may_name(&object.of.name));
            self.unnamed.extend(unnamed.map(|object| (object, Instant::now())));
        }
        let (past, waits): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unnamed).into_iter().partition(|(_, since)| since.elapsed() >= ANSWERED);
        self.unnamed = waits;
        if !past.is_empty() {
            let past: Vec<Object> = past.into_iter().map(|(object, _)| object).collect();
            if let Err(error) = tell(&past, client, mirror).await {
                self.unnamed.extend(past.into_iter().map(|object| (object, Instant::now())));
                return Err(error);
            }
        }
        self.last = Some(Instant::now());
        if self.unnamed.is_empty() {
            looks.done.send_replace(begun);
        }
        Ok(())
    }

    /// What is there anew.
    async fn fresh(&mut self, client: &Connection) -> Result<Vec<Object>, Unanswered> {
        let rows = answered(client.query(OBJECTS, &[])).await?;
        let objects: HashMap<(String, u32), Object> = rows
            .iter()
            .map(|row| {
                let code: String = row.get(0);
                let kind = match code.as_str() {
                    "t" => Kind::Trigger { before: row.get(6) },
                    "f" => Kind::Function,
                    "p" => Kind::Policy,
                    _ => Kind::Rule,
                };
                let of = QualifiedName::new(row.get::<_, String>(3), row.get::<_, String>(4));
                ((code, row.get(1)), Object { kind, version: row.get(2), of, function: row.get(5), changed: false })
            })
            .collect();
        let Some(before) = self.known.replace(objects.clone()) else { return Ok(Vec::new()) };
        let names: std::collections::HashSet<&String> =
            before.values().filter(|object| object.kind == Kind::Function).map(|object| &object.of.name).collect();
        let fresh =
            objects.into_iter().filter(|(key, object)| before.get(key).is_none_or(|b| b.version != object.version));
        Ok(fresh.map(|(_, object)| Object { changed: names.contains(&object.of.name), ..object }).collect())
    }
}

/// Sessions look again, and what these may have written becomes suspect.
async fn tell(past: &[Object], client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
    let names = past.iter().flat_map(|object| [object.of.name.clone(), object.function.clone()]);
    mirror.catalog.changed(&Redefined::names(names.filter(|name| !name.is_empty()).collect()));
    let definitions = load_functions(client, mirror).await?;
    let functions = mirror.catalog.functions();
    for object in past {
        let suspects = object.suspects(&functions, definitions);
        tracing::warn!(of = %object.of.sql(), kind = ?object.kind, suspects = suspects.len(), "a definition was made past pgshadow");
        mirror.keep_suspects(&suspects);
    }
    Ok(())
}

impl Object {
    /// What it may have written while sessions knew nothing of it.
    fn suspects(&self, functions: &Functions, definitions: u64) -> Vec<Suspect> {
        let of = |table: Option<QualifiedName>, what: &str| {
            vec![Suspect { table, reason: format!("{what} was made past pgshadow: {}", self.of.sql()) }]
        };
        let state = Some(definitions);
        match self.kind {
            Kind::Trigger { before } => match functions.nature_of_trigger(state, &self.function) {
                FunctionNature::Harmless if before => of(Some(self.of.clone()), "a trigger that may change its rows"),
                FunctionNature::Harmless => Vec::new(),
                _ => of(None, "a trigger that may write other tables"),
            },
            // one of a new name is known to nobody: those who call it look at what was written
            Kind::Function if !self.changed => Vec::new(),
            Kind::Function if functions.nature(state, Some(""), &self.of.name) == FunctionNature::Harmless => {
                Vec::new()
            }
            Kind::Function => of(None, "a function that may write"),
            Kind::Policy if functions.nature_of_read(state, &self.of.name) == FunctionNature::Harmless => Vec::new(),
            Kind::Policy => of(None, "a policy that may write"),
            Kind::Rule => of(None, "a rule"),
        }
    }
}
