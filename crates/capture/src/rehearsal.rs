//! The client's own statement beside its images, so that the shadow can run it too and its result be compared.
use crate::expected::{Prepared, QueryRun, Stage};
use crate::journal::Journal;
use crate::plan::{Effect, Step};
use crate::session::Session;
use bytes::Bytes;
use pgshadow_model::{Bound, Parameter, SessionSettings, Statement};
use pgshadow_telemetry::Counter;
use pgshadow_wire::frontend::Bind;
use pgshadow_wire::{Frame, backend};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of all parameters, at most.
const PARAMETERS_MAX: usize = 64 << 10;
/// OIDs below mean the same on every server.
const FIRST_USER_OID: u32 = 16384;
/// Texts that date and time types read as the present.
const MOMENTS: &[&str] = &["now", "today", "tomorrow", "yesterday"];

/// What is kept of a statement that was sent, until it is answered.
#[derive(Debug)]
pub(crate) struct Sampled {
    text: Bytes,
    bound: Option<Arc<Bound>>,
    settings: SessionSettings,
    since: Instant,
    /// The rows that it returns can be compared.
    comparable: bool,
}

/// What is kept of a Bind.
#[derive(Debug, Clone)]
pub(crate) struct BoundStatement {
    text: Bytes,
    bound: Arc<Bound>,
    comparable: bool,
}

fn is_determined(step: &Step) -> bool {
    let write = if let Effect::Write(write) = &step.effect { Some(write) } else { None };
    !step.hidden_writes && write.is_some_and(|write| write.determined && write.suspects.is_empty())
}

/// Whether a date or time in this text may be the present one.
fn names_a_moment(text: &[u8]) -> bool {
    let mut words = text.split(|byte| !byte.is_ascii_alphabetic());
    words.any(|word| MOMENTS.iter().any(|moment| word.eq_ignore_ascii_case(moment.as_bytes())))
}

impl<J: Journal> Session<J> {
    /// Whether this one is in the sampled share.
    fn samples(&mut self) -> bool {
        self.sample += self.shared.statements;
        if self.sample < 1.0 {
            return false;
        }
        self.sample -= 1.0;
        let behind = self.shared.journal.is_behind();
        if behind {
            Counter::StatementsShed.increment();
        }
        !behind
    }

    /// For a query string that is about to be sent.
    pub(crate) fn sample_query(&mut self, text: &Bytes, steps: &[Arc<Step>]) -> Option<Box<Sampled>> {
        if self.shared.statements <= 0.0 || !steps.iter().any(|s| is_determined(s)) || !self.samples() {
            return None;
        }
        let (text, settings) = (text.clone(), self.settings()?);
        Some(Box::new(Sampled { text, bound: None, settings, since: Instant::now(), comparable: true }))
    }

    /// For a Bind that is about to be sent.
    pub(crate) fn sample_bind(&mut self, prepared: &Prepared, bind: &Bind<'_>) -> Option<BoundStatement> {
        if self.shared.statements <= 0.0 || !is_determined(&prepared.step) || !self.samples() {
            return None;
        }
        let types: Vec<u32> = prepared
            .types
            .get(2..)
            .unwrap_or_default()
            .chunks_exact(4)
            .filter_map(|oid| oid.try_into().ok().map(u32::from_be_bytes))
            .collect();
        let size: usize = bind.parameters.iter().flatten().map(|p| p.len()).sum();
        let moment = bind
            .parameters
            .iter()
            .enumerate()
            .any(|(index, value)| bind.format(index) == 0 && value.is_some_and(names_a_moment));
        if size > PARAMETERS_MAX || moment || types.iter().any(|oid| *oid >= FIRST_USER_OID) {
            return None;
        }
        let parameter = |(index, value): (usize, &Option<&[u8]>)| Parameter {
            binary: bind.format(index) == 1,
            value: value.map(Bytes::copy_from_slice),
        };
        let parameters = bind.parameters.iter().enumerate().map(parameter).collect();
        let comparable = !bind.result_formats.is_empty() && bind.result_formats.iter().all(|f| *f == 1);
        Some(BoundStatement { text: prepared.text.clone(), bound: Arc::new(Bound { types, parameters }), comparable })
    }

    /// For the Execute of what was bound.
    pub(crate) fn sample_execute(&mut self, portal: &[u8]) -> Option<Box<Sampled>> {
        let BoundStatement { text, bound, comparable } = self.portals.get_mut(portal)?.bound.take()?;
        let settings = self.settings()?;
        Some(Box::new(Sampled { text, bound: Some(bound), settings, since: Instant::now(), comparable }))
    }
}

impl Sampled {
    /// What is recorded of an answered statement; `range` is its place in the text.
    pub(crate) fn statement(
        &mut self,
        range: Option<&std::ops::Range<usize>>,
        stage: &Stage,
    ) -> Option<Box<Statement>> {
        let text = match range {
            Some(range) => self.text.get(range.clone())?,
            None => &self.text,
        };
        if names_a_moment(text) {
            return None;
        }
        let elapsed = self.since.elapsed();
        self.since = Instant::now();
        Some(Box::new(Statement {
            sql: std::str::from_utf8(text).ok()?.to_owned(),
            settings: self.settings.clone(),
            bound: self.bound.as_deref().cloned(),
            rows: stage.rows,
            returned: stage.returned.filter(|_| self.comparable).map(|hash| hash.get()),
            elapsed_micros: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        }))
    }
}

impl Stage {
    /// Takes in a row as the client gets it.
    pub(crate) fn hash_row(&mut self, frame: &Frame) {
        let Some(fields) = backend::fields(frame.body()) else { return };
        let mut hash = self.returned.unwrap_or_default();
        let (_, own) = fields.split_last().unwrap_or((&None, &[]));
        own.iter().for_each(|field| hash.field(*field));
        hash.end_row();
        self.returned = Some(hash);
    }
}

impl QueryRun {
    /// What is recorded of the statement that has just been answered.
    pub(crate) fn recorded(&mut self, stage: &Stage) -> Option<Box<Statement>> {
        let sampled = self.sampled.as_mut()?;
        let statement = sampled.statement(Some(self.plan.ranges.get(self.at)?), stage);
        let step = self.plan.steps.get(self.at)?;
        statement.filter(|_| is_determined(step))
    }
}
