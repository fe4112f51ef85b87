//! What a statement's parameters are, for Describe of one that returns nothing: the server tells that even where the transaction has
//! failed, or the table is gone; but not of our text, which has a result.
use crate::expected::Prepared;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::planning::PLANNED_TEXT_MAX;
use crate::session::Session;
use bytes::Bytes;
use pgshadow_wire::edit;
use std::sync::{Arc, OnceLock};

impl<J: Journal> Session<J> {
    /// Whether the server is asked for the parameters of an unnamed statement right behind its Parse: once for each text.
    pub(crate) fn asks_unnamed(&self, plan: &Plan, text: &Bytes, types: &Bytes) -> bool {
        plan.described_for(types).is_none() && (self.block || text.len() <= PLANNED_TEXT_MAX)
    }

    /// What is known of its parameters. Of the unnamed one, where its transaction has failed, also what was told of another one with the
    /// same text: it can't be asked for any more.
    pub(crate) fn parameters_of(&self, name: &[u8], prepared: &Prepared) -> Arc<OnceLock<Bytes>> {
        let failed = self.units.back().is_some_and(|unit| unit.failed && !unit.closed);
        let described = prepared.plan.described_for(&prepared.types).filter(|_| name.is_empty() && failed);
        if let Some(description) = described {
            drop(prepared.parameters.set(description.clone()));
        }
        Arc::clone(&prepared.parameters)
    }
}

/// Whether the types of all parameters stand in the Parse; then their description is kept.
pub(crate) fn are_declared(text: &[u8], types: &[u8], parameters: &OnceLock<Bytes>) -> bool {
    let number = |rest: &[u8]| {
        rest.iter()
            .take_while(|b| b.is_ascii_digit())
            .fold(0_usize, |n, b| n.saturating_mul(10).saturating_add(usize::from(b - b'0')))
    };
    let numbers = text.split(|b| *b == b'$').skip(1).map(number);
    let oids = types.get(2..).unwrap_or_default().chunks(4);
    let declared = numbers.max().unwrap_or(0) <= oids.len() && oids.clone().all(|oid| oid != [0; 4]);
    if declared {
        drop(parameters.set(edit::parameter_description(types)));
    }
    declared
}
