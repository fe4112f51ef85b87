//! What the session's names mean: its identity, the tables that it has asked for, names given anew.
use crate::expected::{Before, Expected, OwnRun, Purpose, SyncPurpose};
use crate::journal::Journal;
use crate::own::NAME;
use crate::plan::{Effect, Step};
use crate::session::{Hold, Output, Session};
use bytes::Bytes;
use pgshadow_catalog::{Found, Identity, Probed, probe};
use pgshadow_model::SessionSettings;
use pgshadow_wire::{Frame, frontend};
use std::sync::Arc;

pub(crate) const PLANS_MAX: usize = 1_000;

impl<J: Journal> Session<J> {
    /// Names or settings may mean something else from now on.
    pub(crate) fn forget_identity(&mut self) {
        self.identity_changes += 1;
        self.identity = None;
        self.tables.clear();
        self.drop_plans();
    }

    pub(crate) fn drop_plans(&mut self) {
        self.plans.clear();
        self.shapes.clear();
    }

    /// The session's settings, where one of these steps is to be repeated under them.
    pub(crate) fn settings_for(&self, steps: &[Arc<Step>]) -> Option<SessionSettings> {
        let repeated = |s: &Arc<Step>| {
            let effect = &s.effect;
            matches!(effect, Effect::Ddl { .. } | Effect::Copy { .. } | Effect::Truncate { .. } | Effect::Beside { .. })
        };
        if !steps.iter().any(repeated) {
            return None;
        }
        self.settings()
    }

    /// The session's settings that a statement's meaning depends on, where they are known.
    pub(crate) fn settings(&self) -> Option<SessionSettings> {
        let identity = self.identity.as_ref()?;
        Some(SessionSettings {
            role: identity.role.clone(),
            search_path: identity.search_path.clone(),
            others: vec![
                ("DateStyle".into(), identity.date_style.clone()),
                ("TimeZone".into(), identity.time_zone.clone()),
                ("IntervalStyle".into(), identity.interval_style.clone()),
                ("client_encoding".into(), identity.client_encoding.clone()),
            ],
        })
    }

    /// Whether what this session finds in the catalog is what every other session would find.
    pub(crate) fn shares_catalog(&self, identity: &Identity) -> bool {
        !identity.has_temporary_objects() && !self.units.iter().any(|u| u.catalog)
    }

    /// Drops what was found before the catalog last changed.
    pub(crate) fn refresh(&mut self) {
        let epoch = self.shared.catalog.epoch();
        if self.tables_epoch != epoch {
            // a schema that is made may come to be one of the search path's
            self.forget_identity();
            self.tables_epoch = epoch;
        }
        let version = self.shared.catalog.functions_version();
        if self.functions_version != version {
            self.functions_version = version;
            self.identity_changes += 1;
            self.drop_plans();
        }
        if self.plans.len() + self.shapes.len() > PLANS_MAX {
            self.drop_plans();
        }
    }

    /// Looks up what isn't known of these names, here and among what other sessions have found; what has to be asked.
    pub(crate) fn unknown_names(&mut self, names: &[String]) -> Vec<String> {
        let Some(identity) = self.identity.clone() else { return names.to_vec() };
        let key = identity.key();
        let shares = self.shares_catalog(&identity);
        let mut unknown = Vec::new();
        for name in names {
            if self.tables.contains_key(name) {
                continue;
            }
            match self.shared.catalog.table(&key, name).filter(|_| shares) {
                Some(found) => {
                    self.tables.insert(name.clone(), found);
                }
                None => unknown.push(name.clone()),
            }
        }
        unknown
    }

    /// A probe has answered.
    pub(crate) fn learn(&mut self, probed: Probed, names: &[String], epoch: u64) {
        self.probe_timeouts = 0;
        let identity = Arc::new(probed.identity);
        if self.identity.as_ref().is_some_and(|known| known != &identity) {
            self.forget_identity();
        }
        let shares = self.shares_catalog(&identity);
        let key = identity.key();
        for (name, found) in names.iter().zip(probed.tables) {
            let table = match found {
                Found::Nothing => None,
                Found::Table(table) => Some(table),
                // it is asked for again, as a whole
                Found::Involved => {
                    self.shared.catalog.note_involved(name);
                    continue;
                }
            };
            if shares {
                self.shared.catalog.keep(epoch, &key, name, table.clone());
            }
            self.tables.insert(name.clone(), table);
        }
        self.identity = Some(identity);
    }

    /// Notes that a message which may still be refused or skipped gave a name another meaning.
    pub(crate) fn replacing(&mut self, before: &Before) {
        let (kind, name) = match before {
            // SQL's stands again as well
            Before::Statement(name, before)
                if before.is_some()
                    || std::str::from_utf8(name).is_ok_and(|name| self.sql_prepared.contains_key(name)) =>
            {
                (b'S', name)
            }
            Before::Portal(name, Some(_), _) => (b'P', name),
            _ => return,
        };
        self.replaced.insert((kind, name.clone()), self.syncs_sent);
    }

    /// Whether a name was given another meaning in a batch before the open one that may still fail as a whole.
    pub(crate) fn is_unsure(&mut self, kind: u8, name: &[u8]) -> bool {
        if self.syncs_answered == self.syncs_sent {
            self.replaced.retain(|_, batch| *batch >= self.syncs_sent);
        }
        let last =
            if self.replaced.is_empty() { None } else { self.replaced.get(&(kind, Bytes::copy_from_slice(name))) };
        last.is_some_and(|batch| (self.syncs_answered..self.syncs_sent).contains(batch))
    }

    /// Whether a statement or portal was made in the open batch.
    pub(crate) fn is_of_batch(&self, kind: u8, name: &[u8]) -> bool {
        let batch = self.pending.iter().rev().take_while(|e| !matches!(e, Expected::Sync { .. } | Expected::Query(_)));
        batch.into_iter().any(|e| match e {
            Expected::Reply { before: Before::Statement(made, _), .. } => kind == b'S' && made == name,
            Expected::Reply { before: Before::Portal(made, ..), .. } => kind == b'P' && made == name,
            _ => false,
        })
    }

    /// Asks in the session what these names are; `frame` is taken again when the answer is there.
    pub(crate) fn ask(&mut self, mut names: Vec<String>, frame: Frame, out: &mut Output) {
        let catalog = &self.shared.catalog;
        if self.identity.is_none() && !self.units.iter().any(|u| u.catalog) && catalog.has_all(&names) {
            // whether it finds what others have found depends on who it is: that is soon told
            names.clear();
        }
        let (sql, parameter) = match names.as_slice() {
            [] => (probe::identity_sql(), None),
            names if catalog.are_plain(names) => (probe::plain_sql(), Some(probe::parameter(names))),
            names => (probe::sql(), Some(probe::parameter(names))),
        };
        let purpose = Purpose::Probe { names, epoch: self.shared.catalog.epoch() };
        self.ask_session(sql, parameter.as_deref(), purpose, frame, out);
    }

    /// Runs a statement of ours in the session; `frame` is taken again when the answer is there.
    pub(crate) fn ask_session(
        &mut self,
        sql: &str,
        parameter: Option<&[u8]>,
        purpose: Purpose,
        frame: Frame,
        out: &mut Output,
    ) {
        out.server(frontend::own_statement(NAME, sql.as_bytes(), parameter));
        self.pending.push_back(Expected::Own(OwnRun::new(purpose, frontend::OWN_STATEMENT_REPLIES)));
        if self.batch {
            out.server(frontend::flush());
        } else {
            out.server(frontend::sync());
            self.pending.push_back(Expected::Sync { ends_unit: false, purpose: SyncPurpose::Probe });
        }
        self.hold = Hold::Probe(frame);
    }
}
