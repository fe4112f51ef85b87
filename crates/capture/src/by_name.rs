//! Statements that SQL prepares, executes and gives away by name, in the extended protocol: what comes in the same batch, before
//! any answer, may use the names.
use crate::expected::{Prepared, SqlPrepared};
use crate::journal::Journal;
use crate::plan::{Effect, Step};
use crate::session::Session;
use bytes::Bytes;
use pgshadow_telemetry::StatementClass;
use std::sync::Arc;

/// What a PREPARE, DEALLOCATE or Close that was sent took the place of: it stands again if the server refuses or skips it.
#[derive(Debug, Default)]
pub(crate) struct Given {
    sql: Vec<(String, Option<SqlPrepared>)>,
    statements: Vec<(Bytes, Prepared)>,
}

impl<J: Journal> Session<J> {
    /// Whether what the step's name stands for was changed in a batch before the open one that may still fail as a whole.
    pub(crate) fn is_unsure_by_name(&mut self, step: &Step) -> bool {
        match &step.effect {
            Effect::Execute { name } | Effect::Prepare { name, .. } | Effect::Deallocate(Some(name)) => {
                self.is_unsure_name(name.as_bytes())
            }
            Effect::Deallocate(None) => self.syncs_answered != self.syncs_sent,
            _ => false,
        }
    }

    /// The same of a name that a message or a statement gives.
    pub(crate) fn is_unsure_name(&mut self, name: &[u8]) -> bool {
        self.is_unsure(b'S', name) || self.is_unsure(b'N', name)
    }

    /// The same of what a prepared statement of the protocol executes.
    pub(crate) fn executes_unsure(&mut self, name: &[u8]) -> bool {
        let step = self.statements.get(name).map(|prepared| Arc::clone(&prepared.step));
        step.is_some_and(|step| self.is_unsure_by_name(&step))
    }

    /// The same of what Describe asks for.
    pub(crate) fn describes_unsure(&mut self, kind: u8, name: &[u8]) -> bool {
        let statement = kind == b'S' && (self.is_unsure(b'N', name) || self.executes_unsure(name));
        let portal = self.portals.get(name).filter(|_| kind != b'S').map(|portal| Arc::clone(&portal.step));
        statement || portal.is_some_and(|step| self.is_unsure_by_name(&step))
    }

    /// What SQL's PREPARE has prepared can be bound as well; names to ask for first.
    pub(crate) fn prepared_by_sql(&mut self, name: &[u8]) -> Result<Arc<Step>, Vec<String>> {
        let unknown = Arc::new(Step::unknown(StatementClass::Other));
        let Some(name) = std::str::from_utf8(name).ok().filter(|n| self.sql_prepared.contains_key(*n)) else {
            return Ok(unknown);
        };
        self.renew_sql_prepared()?;
        Ok(self.sql_prepared.get(name).map_or(unknown, |p| Arc::clone(&p.step)))
    }

    /// PREPARE or DEALLOCATE is sent, or has run as a Query: its names mean something else from now on.
    pub(crate) fn gives_names(&mut self, step: &Step) -> Given {
        let mut given = Given::default();
        match &step.effect {
            Effect::Prepare { name, step, text, sent } => {
                let (text, sent, step) = (text.clone(), sent.clone(), Arc::clone(step));
                let (epoch, generation) = (self.tables_epoch, self.identity_changes);
                let prepared = SqlPrepared { text, sent, step, epoch, generation };
                given.sql.push((name.clone(), self.sql_prepared.insert(name.clone(), prepared)));
            }
            Effect::Deallocate(Some(name)) => given = self.gives_away(name),
            Effect::Deallocate(None) => {
                given.sql = self.sql_prepared.drain().map(|(name, prepared)| (name, Some(prepared))).collect();
                // the unnamed one stays
                given.statements = self.statements.extract_if(|name, _| !name.is_empty()).collect();
            }
            _ => return given,
        }
        self.note_given(&given);
        given
    }

    /// A name stands for nothing any more.
    pub(crate) fn gives_away(&mut self, name: &str) -> Given {
        let sql = self.sql_prepared.remove(name).map(|prepared| (name.to_owned(), Some(prepared)));
        let given = Given {
            sql: sql.into_iter().collect(),
            statements: self.statements.remove_entry(name.as_bytes()).into_iter().collect(),
        };
        self.note_given(&given);
        given
    }

    fn note_given(&mut self, given: &Given) {
        let sql = given.sql.iter().map(|(name, _)| (b'N', Bytes::copy_from_slice(name.as_bytes())));
        let statements = given.statements.iter().map(|(name, _)| (b'S', name.clone()));
        self.replaced.extend(sql.chain(statements).map(|name| (name, self.syncs_sent)));
    }

    /// It didn't come to it.
    pub(crate) fn names_stand_again(&mut self, given: Given) {
        for (name, before) in given.sql {
            match before {
                Some(before) => self.sql_prepared.insert(name, before),
                None => self.sql_prepared.remove(&name),
            };
        }
        given.statements.into_iter().for_each(|(name, before)| self.restore_statement(name, Some(before)));
    }
}
