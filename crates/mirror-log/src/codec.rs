//! Records to bytes and back: postcard, with relations replaced by small numbers.
//!
//! A payload is a list of relation definitions `(id, Relation)`, then the record's body. A definition is given in
//! the first record of a segment that uses it, so that each segment can be read without the ones before it. The
//! `...Out` structs borrow from the model, the `...In` structs borrow from the payload; both have the same fields in
//! the same order, and that order is the format. A part of a spilled transaction holds definitions and changes in the same way.

use crate::Record;
use crate::relations::{Interner, Relations};
use bytes::Bytes;
use pgshadow_model::{
    Backend, Change, Changes, CopyData, DdlStatement, Epoch, Intent, Lsn, Operation, Order, Outcome, QualifiedName,
    Relation, RowImage, Sequence, SessionSettings, Spilled, Statement, Suspect, Truncate, Values, Xid,
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;

pub(crate) const INTENT: u32 = 1;
pub(crate) const OUTCOME: u32 = 2;
const SUSPECTS: u32 = 3;
const SUSPECTS_CLEARED: u32 = 4;
const EPOCH: u32 = 5;
pub(crate) const APPLIED: u32 = 6;
/// As those, with changes that are in a file of their own.
pub(crate) const INTENT_SPILLED: u32 = 7;
const OUTCOME_SPILLED: u32 = 8;

/// An empty list of definitions.
const NO_DEFINITIONS: [u8; 1] = [0];

/// A record ready to be framed, but for the definitions, which depend on the segment.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub kind: u32,
    pub body: Vec<u8>,
    pub relations: Vec<(u32, Arc<Relation>)>,
}

impl Encoded {
    /// Definitions of the relations that `known` lacks.
    pub fn definitions(&self, known: &Relations) -> Result<Vec<u8>, postcard::Error> {
        if self.relations.iter().all(|(id, _)| known.contains_key(id)) {
            return Ok(NO_DEFINITIONS.to_vec());
        }
        let missing: Vec<(u32, &Relation)> =
            self.relations.iter().filter(|(id, _)| !known.contains_key(id)).map(|(id, r)| (*id, &**r)).collect();
        postcard::to_stdvec(&missing)
    }
}

pub(crate) fn encode(record: &Record, interner: &mut Interner) -> Result<Encoded, postcard::Error> {
    let mut used = Used { interner, relations: Vec::new(), seen: HashSet::new() };
    let (kind, body) = match record {
        Record::Intent(intent) => match &intent.changes.spilled {
            None => (INTENT, postcard::to_stdvec(&used.intent(intent))),
            Some(spilled) => (INTENT_SPILLED, postcard::to_stdvec(&(spilled, used.intent(intent)))),
        },
        Record::Outcome { of, flushed, outcome } => {
            let (spilled, outcome) = match outcome {
                Outcome::Committed { order, changes, suspects } => {
                    let rest = used.changes(&changes.rest);
                    (changes.spilled.as_ref(), OutcomeOut::Committed { order: *order, changes: rest, suspects })
                }
                Outcome::Aborted => (None, OutcomeOut::Aborted),
            };
            match spilled {
                None => (OUTCOME, postcard::to_stdvec(&(of, flushed, outcome))),
                Some(spilled) => (OUTCOME_SPILLED, postcard::to_stdvec(&(spilled, of, flushed, outcome))),
            }
        }
        Record::Suspects(suspects) => (SUSPECTS, postcard::to_stdvec(suspects)),
        Record::SuspectsCleared(tables) => (SUSPECTS_CLEARED, postcard::to_stdvec(tables)),
        Record::Epoch { epoch, fingerprint } => (EPOCH, postcard::to_stdvec(&(epoch, fingerprint))),
        Record::Applied { below } => (APPLIED, postcard::to_stdvec(below)),
    };
    Ok(Encoded { kind, body: body?, relations: used.relations })
}

/// Changes with all that is needed to read them again, for a file of their own.
pub(crate) fn encode_changes(changes: &[Change]) -> Result<Vec<u8>, postcard::Error> {
    let mut interner = Interner::default();
    let mut used = Used { interner: &mut interner, relations: Vec::new(), seen: HashSet::new() };
    let body = used.changes(changes);
    let definitions: Vec<(u32, &Relation)> = used.relations.iter().map(|(id, relation)| (*id, &**relation)).collect();
    postcard::to_extend(&(definitions, body), Vec::new())
}

/// The same, from there. Values are slices of `payload`.
pub(crate) fn decode_changes(payload: &Bytes) -> Result<Vec<Change>, DecodeError> {
    let (definitions, changes): (Vec<(u32, Relation)>, Vec<ChangeIn<'_>>) = whole(payload)?;
    let relations = definitions.into_iter().map(|(id, relation)| (id, Arc::new(relation))).collect();
    Source { payload, relations: &relations }.changes(changes)
}

/// The definitions that a payload begins with.
pub(crate) fn definitions(payload: &[u8]) -> Result<Vec<(u32, Relation)>, DecodeError> {
    Ok(postcard::take_from_bytes(payload)?.0)
}

/// A record from its payload; `relations` are those of its segment. Values are slices of `payload`.
pub(crate) fn decode(kind: u32, payload: &Bytes, relations: &Relations) -> Result<Record, DecodeError> {
    let (_, body): (Vec<(u32, Relation)>, &[u8]) = postcard::take_from_bytes(payload)?;
    let source = Source { payload, relations };
    Ok(match kind {
        INTENT => Record::Intent(source.intent(None, whole(body)?)?),
        INTENT_SPILLED => {
            let (spilled, intent): (Spilled, IntentIn<'_>) = whole(body)?;
            Record::Intent(source.intent(Some(spilled), intent)?)
        }
        OUTCOME => {
            let (of, flushed, outcome): (Sequence, bool, OutcomeIn<'_>) = whole(body)?;
            Record::Outcome { of, flushed, outcome: source.outcome(None, outcome)? }
        }
        OUTCOME_SPILLED => {
            let (spilled, of, flushed, outcome): (Spilled, Sequence, bool, OutcomeIn<'_>) = whole(body)?;
            Record::Outcome { of, flushed, outcome: source.outcome(Some(spilled), outcome)? }
        }
        SUSPECTS => Record::Suspects(whole(body)?),
        SUSPECTS_CLEARED => Record::SuspectsCleared(whole(body)?),
        EPOCH => {
            let (epoch, fingerprint) = whole(body)?;
            Record::Epoch { epoch, fingerprint }
        }
        APPLIED => Record::Applied { below: whole(body)? },
        other => return Err(DecodeError::Kind(other)),
    })
}

fn whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(body)? {
        (value, []) => Ok(value),
        (_, rest) => Err(DecodeError::Rest(rest.len())),
    }
}

/// A record whose checksum holds, but whose content isn't one: another version wrote it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a record can't be decoded: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("a record of unknown kind {0}")]
    Kind(u32),
    #[error("{0} bytes too many in a record")]
    Rest(usize),
    #[error("relation {0} is used before it is defined")]
    Relation(u32),
}

#[derive(Serialize)]
struct RowOut<'a> {
    relation: u32,
    operation: Operation,
    values: &'a Values,
    old_key: &'a Option<Values>,
}

#[derive(Serialize)]
struct CopyOut<'a> {
    relation: u32,
    sql: &'a str,
    settings: &'a SessionSettings,
    data: &'a [Bytes],
    rows: u64,
}

#[derive(Serialize)]
enum ChangeOut<'a> {
    Row(RowOut<'a>),
    Copy(CopyOut<'a>),
    Truncate(&'a Truncate),
    Ddl(&'a DdlStatement),
    Statement(&'a Statement),
    /// A COPY whose data go on in the next change.
    CopyPart(CopyOut<'a>),
}

#[derive(Serialize)]
struct IntentOut<'a> {
    epoch: Epoch,
    backend: &'a Backend,
    xid: Option<Xid>,
    token: Option<Lsn>,
    changes: Vec<ChangeOut<'a>>,
    may_write: &'a [QualifiedName],
    may_write_any: bool,
    suspects: &'a [Suspect],
    prepared: &'a Option<String>,
}

#[derive(Serialize)]
enum OutcomeOut<'a> {
    Committed { order: Option<Order>, changes: Vec<ChangeOut<'a>>, suspects: &'a [Suspect] },
    Aborted,
}

type ValuesIn<'a> = Vec<Option<&'a [u8]>>;

#[derive(Deserialize)]
struct RowIn<'a> {
    relation: u32,
    operation: Operation,
    #[serde(borrow)]
    values: ValuesIn<'a>,
    #[serde(borrow)]
    old_key: Option<ValuesIn<'a>>,
}

#[derive(Deserialize)]
struct CopyIn<'a> {
    relation: u32,
    sql: String,
    settings: SessionSettings,
    #[serde(borrow)]
    data: Vec<&'a [u8]>,
    rows: u64,
}

#[derive(Deserialize)]
enum ChangeIn<'a> {
    #[serde(borrow)]
    Row(RowIn<'a>),
    #[serde(borrow)]
    Copy(CopyIn<'a>),
    Truncate(Truncate),
    Ddl(DdlStatement),
    Statement(Box<Statement>),
    #[serde(borrow)]
    CopyPart(CopyIn<'a>),
}

#[derive(Deserialize)]
struct IntentIn<'a> {
    epoch: Epoch,
    backend: Backend,
    xid: Option<Xid>,
    token: Option<Lsn>,
    #[serde(borrow)]
    changes: Vec<ChangeIn<'a>>,
    may_write: Vec<QualifiedName>,
    may_write_any: bool,
    suspects: Vec<Suspect>,
    prepared: Option<String>,
}

#[derive(Deserialize)]
enum OutcomeIn<'a> {
    Committed {
        order: Option<Order>,
        #[serde(borrow)]
        changes: Vec<ChangeIn<'a>>,
        suspects: Vec<Suspect>,
    },
    Aborted,
}

/// Model to wire; collects the relations that a record uses.
struct Used<'i> {
    interner: &'i mut Interner,
    relations: Vec<(u32, Arc<Relation>)>,
    seen: HashSet<u32>,
}

impl Used<'_> {
    fn relation(&mut self, relation: &Arc<Relation>) -> u32 {
        let id = self.interner.id(relation);
        if self.seen.insert(id) {
            self.relations.push((id, Arc::clone(relation)));
        }
        id
    }

    fn changes<'a>(&mut self, changes: &'a [Change]) -> Vec<ChangeOut<'a>> {
        let change = |change: &'a Change| match change {
            Change::Row(row) => ChangeOut::Row(RowOut {
                relation: self.relation(&row.relation),
                operation: row.operation,
                values: &row.values,
                old_key: &row.old_key,
            }),
            Change::Copy(copy) => {
                let relation = self.relation(&copy.relation);
                let CopyData { sql, settings, data, .. } = copy;
                let out = |rows| CopyOut { relation, sql, settings, data, rows };
                copy.rows.map_or_else(|| ChangeOut::CopyPart(out(0)), |rows| ChangeOut::Copy(out(rows)))
            }
            Change::Truncate(truncate) => ChangeOut::Truncate(truncate),
            Change::Ddl(ddl) => ChangeOut::Ddl(ddl),
            Change::Statement(statement) => ChangeOut::Statement(statement),
        };
        changes.iter().map(change).collect()
    }

    fn intent<'a>(&mut self, intent: &'a Intent) -> IntentOut<'a> {
        // All fields by name, so that a new one can't be forgotten here.
        let Intent { epoch, backend, xid, token, changes, may_write, may_write_any, suspects, prepared } = intent;
        IntentOut {
            epoch: *epoch,
            backend,
            xid: *xid,
            token: *token,
            changes: self.changes(&changes.rest),
            may_write,
            may_write_any: *may_write_any,
            suspects,
            prepared,
        }
    }
}

/// Wire to model.
struct Source<'a> {
    payload: &'a Bytes,
    relations: &'a Relations,
}

impl Source<'_> {
    fn relation(&self, id: u32) -> Result<Arc<Relation>, DecodeError> {
        self.relations.get(&id).cloned().ok_or(DecodeError::Relation(id))
    }

    fn values(&self, values: ValuesIn<'_>) -> Values {
        values.into_iter().map(|value| value.map(|v| self.payload.slice_ref(v))).collect()
    }

    fn changes(&self, changes: Vec<ChangeIn<'_>>) -> Result<Vec<Change>, DecodeError> {
        let change = |change| {
            Ok(match change {
                ChangeIn::Row(row) => Change::Row(RowImage {
                    relation: self.relation(row.relation)?,
                    operation: row.operation,
                    values: self.values(row.values),
                    old_key: row.old_key.map(|key| self.values(key)),
                }),
                ChangeIn::Copy(copy) => {
                    let rows = Some(copy.rows);
                    Change::Copy(self.copy(copy, rows)?)
                }
                ChangeIn::CopyPart(copy) => Change::Copy(self.copy(copy, None)?),
                ChangeIn::Truncate(truncate) => Change::Truncate(truncate),
                ChangeIn::Ddl(ddl) => Change::Ddl(ddl),
                ChangeIn::Statement(statement) => Change::Statement(statement),
            })
        };
        changes.into_iter().map(change).collect()
    }

    fn copy(&self, copy: CopyIn<'_>, rows: Option<u64>) -> Result<CopyData, DecodeError> {
        let data = copy.data.into_iter().map(|data| self.payload.slice_ref(data)).collect();
        let relation = self.relation(copy.relation)?;
        Ok(CopyData { relation, sql: copy.sql, settings: copy.settings, data, rows })
    }

    fn outcome(&self, spilled: Option<Spilled>, outcome: OutcomeIn<'_>) -> Result<Outcome, DecodeError> {
        Ok(match outcome {
            OutcomeIn::Committed { order, changes, suspects } => {
                Outcome::Committed { order, changes: Changes { spilled, rest: self.changes(changes)? }, suspects }
            }
            OutcomeIn::Aborted => Outcome::Aborted,
        })
    }

    fn intent(&self, spilled: Option<Spilled>, intent: IntentIn<'_>) -> Result<Intent, DecodeError> {
        Ok(Intent {
            epoch: intent.epoch,
            backend: intent.backend,
            xid: intent.xid,
            token: intent.token,
            changes: Changes { spilled, rest: self.changes(intent.changes)? },
            may_write: intent.may_write,
            may_write_any: intent.may_write_any,
            suspects: intent.suspects,
            prepared: intent.prepared,
        })
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
