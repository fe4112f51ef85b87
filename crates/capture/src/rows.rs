//! What a statement did: the images of its rows, and its end.
use crate::captured::HELD_BYTES;
use crate::classify;
use crate::expected::Stage;
use crate::image;
use crate::in_parts::IN_PARTS;
use crate::journal::Journal;
use crate::locked::{self, Finished, TOGETHER_BYTES_MAX};
use crate::own;
use crate::pairing;
use crate::plan::{Control, Effect, OldRow, Seen, Step, Strip, WriteEffect};
use crate::session::Session;
use crate::unit::Unit;
use bytes::Bytes;
use pgshadow_model::{
    Change, CopyData, DdlStatement, Lsn, Operation, RowImage, SessionSettings, Suspect, Truncate, Xid,
};
use pgshadow_telemetry::{Counter, StatementClass};
use pgshadow_wire::{Frame, backend, edit};
use std::sync::Arc;

impl<J: Journal> Session<J> {
    /// The end token has arrived, or hasn't.
    pub(crate) fn ended(&mut self, value: Option<&[u8]>, locks: bool) {
        let barrier = self.shared.journal.barrier();
        let Some(unit) = self.units.front_mut() else { return };
        match value.and_then(|v| own::end(v, locks)) {
            Some(end) => unit.end(end, &self.shared.excluded),
            None => unit.give_up("the end of its transaction could not be read"),
        }
        unit.barrier = barrier;
    }

    /// Takes a row's image out; what the client gets of it.
    pub(crate) fn row(&mut self, step: Option<&Step>, stage: &mut Stage, frame: Frame, binary: bool) -> Option<Bytes> {
        let Some(write) = step.and_then(|s| s.effect.write()) else { return Some(frame.bytes) };
        stage.rows += 1;
        if self.shared.statements > 0.0 && write.determined && write.strip == Strip::LastColumn {
            stage.hash_row(&frame);
        }
        let written = of_row(write, &frame, binary);
        match image_of(written, &frame, binary, stage.rows == 1) {
            _ if self.is_aside(write, &frame, binary) => {}
            Some(read) => {
                if let Some(unit) = self.units.front_mut() {
                    unit.drew(read.xid, read.token);
                }
                stage.partial |= read.partial;
                stage.bytes += read.images().map(RowImage::memory_bytes).sum::<usize>();
                if !written.table.tree_oids.contains(&read.table_oid) {
                    stage.elsewhere = true;
                    stage.broken = Some("a written row was of another table than the statement names");
                }
                if stage.broken.is_none() {
                    stage.images.extend(read.row.into_iter().chain(read.others));
                    self.hold_less(write, stage);
                } else {
                    stage.images = Vec::new();
                }
            }
            None => {
                stage.broken = Some("a written row could not be read");
                let head = record_of(&frame, binary).and_then(|record| image::head(&record, write));
                if let (Some((xid, token, _)), Some(unit)) = (head, self.units.front_mut()) {
                    unit.drew(xid, token);
                }
                // of another table, perhaps: that one must not be missed for its columns
                stage.elsewhere |= head.is_none_or(|(.., table)| !write.table.tree_oids.contains(&table));
            }
        }
        match write.strip {
            Strip::Rows => None,
            Strip::LastColumn => Some(edit::without_last_field(&frame).unwrap_or(frame.bytes)),
            Strip::Nothing => Some(frame.bytes),
        }
    }

    /// Whether a row is of a table that isn't mirrored, although the statement is prepared for another one.
    fn is_aside(&mut self, write: &WriteEffect, frame: &Frame, binary: bool) -> bool {
        if write.aside.is_empty() {
            return false;
        }
        let head = record_of(frame, binary).and_then(|record| image::head(&record, write));
        let Some((xid, token, _)) = head.filter(|(.., table)| write.aside.contains(table)) else { return false };
        if let Some(unit) = self.units.front_mut() {
            unit.drew(xid, token);
        }
        true
    }

    /// A statement that writes many rows gives its images away before it is done.
    fn hold_less(&mut self, write: &WriteEffect, stage: &mut Stage) {
        if stage.bytes < HELD_BYTES {
            return;
        }
        let journal = &*self.shared.journal;
        // which of the old rows became which is told at the end
        let together = matches!(write.old, OldRow::Locked(_));
        let Some(unit) = self.units.front_mut().filter(|_| !together) else {
            if stage.bytes > TOGETHER_BYTES_MAX {
                stage.broken = Some("it changed keys of more rows than can be told from each other in memory");
                stage.images = Vec::new();
            }
            return;
        };
        stage.bytes = 0;
        stage.begun.get_or_insert(unit.captured.len());
        unit.done(stage.images.drain(..).map(Change::Row), &[]);
        if !unit.spill(journal) {
            stage.broken = Some("its rows could not be written out");
        }
    }

    /// As much of a COPY's data as is there goes to the changes of its transaction.
    pub(crate) fn hold_less_copied(
        unit: &mut Unit,
        step: &Step,
        stage: &mut Stage,
        settings: &SessionSettings,
        journal: &J,
    ) {
        let Effect::Copy { table, sql } = &step.effect else { return };
        stage.begun.get_or_insert(unit.captured.len());
        stage.copy_bytes = 0;
        let data = std::mem::take(&mut stage.copy);
        let relation = Arc::clone(&table.relation);
        let part = CopyData { relation, sql: sql.clone(), settings: settings.clone(), data, rows: None };
        unit.done([Change::Copy(part)], &[]);
        if !unit.spill(journal) {
            stage.broken = Some("its data could not be written out");
        }
    }

    /// A portal has given some of its rows, and may never be asked for more: what writes has run to its end by then.
    pub(crate) fn suspended(&mut self, step: &Step, stage: Stage) {
        if step.changes_session {
            self.forget_identity();
        }
        let Some(unit) = self.units.front_mut() else { return };
        match &step.effect {
            Effect::Opaque(suspects) => unit.done([], suspects),
            Effect::Write(write) => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                if let Some(begun) = stage.begun {
                    unit.take_back(begun);
                }
                unit.done([], &declare(write, IN_PARTS));
            }
            _ => {}
        }
    }

    /// A statement has finished.
    pub(crate) fn complete(&mut self, step: &Step, stage: Stage, tag: &[u8], settings: Option<&SessionSettings>) {
        let barrier = self.shared.journal.barrier();
        let settings = settings.cloned();
        self.copying = false;
        if step.changes_session {
            self.forget_identity();
        }
        let Some(unit) = self.units.front_mut() else { return };
        unit.barrier = barrier;
        unit.ran_committing |= step.may_commit;
        let repeated = matches!(step.effect, Effect::Copy { .. } | Effect::Truncate { .. } | Effect::Ddl { .. });
        let settings = match settings {
            Some(settings) => settings,
            None if repeated => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                let suspects = step.suspects_of_all("the settings of its session were not known");
                return unit.done([], &suspects);
            }
            None => SessionSettings::default(),
        };
        match &step.effect {
            Effect::Write(_) if step.look_behind().is_some() => {
                unit.finished = Some(Box::new(Finished { stage, rows: backend::tag_rows(tag) }));
            }
            Effect::Write(write) => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                wrote(unit, write, stage, backend::tag_rows(tag), step.hidden_anywhere);
            }
            Effect::Copy { table, sql } => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                let moment = stage.moments.found();
                let broken = stage.broken.or(moment.then_some("its data name a moment (now, today), which passes"));
                // without rows there is no xid either, and nothing to repeat
                let rows = backend::tag_rows(tag).filter(|rows| *rows > 0);
                if let (Some(begun), true) = (stage.begun, broken.is_some() || rows.is_none()) {
                    unit.take_back(begun);
                }
                if let Some(reason) = broken {
                    let suspects: Vec<_> = classify::suspects(table, reason).collect();
                    unit.done([], &suspects);
                } else if rows.is_some() {
                    let relation = Arc::clone(&table.relation);
                    let change = CopyData { relation, sql: sql.clone(), settings, data: stage.copy, rows };
                    unit.done([Change::Copy(change)], &[]);
                }
            }
            Effect::Truncate { tables, sql } => {
                unit.outstanding = unit.outstanding.saturating_sub(1);
                let truncate = Truncate { tables: tables.clone(), sql: sql.clone(), settings };
                unit.done([Change::Truncate(truncate)], &[]);
            }
            Effect::Ddl { sql, suspects, tables, moves } => {
                unit.ddl = true;
                if let (true, [Some(old), Some(new), ..]) = (*moves, tables.as_slice()) {
                    unit.renames.push((old.clone(), new.clone()));
                }
                let change = DdlStatement { sql: sql.clone(), settings, in_transaction: true };
                unit.done([Change::Ddl(change)], suspects);
            }
            Effect::Opaque(suspects) => unit.done([], suspects),
            Effect::NotRepeated { sql, reason } => {
                unit.ddl = true;
                unit.not_repeated.push((sql.clone(), reason));
            }
            Effect::Beside { .. } => unit.ddl = true,
            Effect::Control(control) => {
                unit.begun |= *control == Control::Begin;
                unit.savepoint(control);
                let undone = unit.session_changed && matches!(control, Control::RollbackTo(_));
                if matches!(control, Control::Commit { .. } | Control::Rollback { .. } | Control::Prepare(_)) {
                    unit.failed |= !matches!(tag, b"COMMIT" | b"PREPARE TRANSACTION");
                }
                if undone {
                    self.forget_identity();
                }
                if let Control::FinishPrepared { gid, commit } = control {
                    self.shared.journal.finished_prepared(gid, *commit);
                    self.shared.catalog.finished(gid);
                }
            }
            _ => {}
        }
        if let Some(unit) = self.units.front_mut() {
            unit.spill(&*self.shared.journal);
        }
        if step.class == StatementClass::Ddl {
            self.tables.clear();
            self.drop_plans();
        }
    }
}

/// A captured write has finished: its images are taken up, or its tables declared.
pub(crate) fn wrote(unit: &mut Unit, write: &WriteEffect, stage: Stage, counted: Option<u64>, hidden_anywhere: bool) {
    let broken = stage.broken.or((counted != Some(stage.rows)).then_some("not every written row came back"));
    let images = match (broken, &write.old) {
        (Some(reason), _) => Err(reason),
        (None, OldRow::Locked(lock)) => {
            locked::old_rows(lock, write, &stage).and_then(|old| pairing::with_locked(write, stage.images, old))
        }
        (None, _) => Ok(stage.images),
    };
    match images {
        Ok(images) => {
            Counter::RowsCaptured.add(stage.rows);
            // what wrote nothing is bound to no place in the order
            let statement = stage.statement.filter(|_| !images.is_empty() && stage.begun.is_none());
            let images = images.into_iter().map(Change::Row);
            unit.done(statement.map(Change::Statement).into_iter().chain(images), &write.suspects);
            if let Some(reason) = write.several.filter(|_| stage.rows > 1) {
                unit.suspects.extend(classify::suspects(&write.table, reason));
            }
            if stage.rows == 0 && !hidden_anywhere {
                unit.suspects.truncate(unit.suspects.len() - write.suspects.len().min(unit.suspects.len()));
            }
        }
        Err(reason) => {
            if let Some(begun) = stage.begun {
                unit.take_back(begun);
            }
            let mut suspects = declare(write, reason);
            if stage.elsewhere {
                suspects.push(Suspect { table: None, reason: reason.to_owned() });
            }
            unit.done([], &suspects);
        }
    }
}

/// All tables of a write, with the reason why its rows aren't there.
pub(crate) fn declare(write: &WriteEffect, reason: &str) -> Vec<Suspect> {
    let mut suspects = write.suspects.clone();
    suspects.extend(write.all().flat_map(|write| classify::suspects(&write.table, reason)));
    suspects
}

/// A written row as it came.
pub(crate) struct ReadRow {
    row: Option<RowImage>,
    /// In its place, where it can't be seen: what is to be read again.
    others: Vec<RowImage>,
    table_oid: u32,
    xid: Xid,
    token: Lsn,
    /// Of a look back that didn't read the whole table.
    partial: bool,
}

impl ReadRow {
    fn images(&self) -> impl Iterator<Item = &RowImage> {
        self.row.iter().chain(&self.others)
    }
}

/// What a row was written by: the server may have another table in mind than the text means.
fn of_row<'a>(write: &'a WriteEffect, frame: &Frame, binary: bool) -> &'a WriteEffect {
    let Some(instead) = write.instead.as_deref() else { return write };
    let head = record_of(frame, binary).and_then(|record| image::head(&record, write));
    if head.is_some_and(|(.., table)| instead.table.tree_oids.contains(&table)) { instead } else { write }
}

/// A row's last field. Copied: an image may be held for long, and must not hold the whole read buffer.
fn record_of(frame: &Frame, binary: bool) -> Option<Bytes> {
    let body = frame.body_bytes();
    let (_, value) = backend::last_field(&body)?;
    let record = body.slice(value?);
    Some(if binary { Bytes::copy_from_slice(&record) } else { Bytes::from(backend::bytea_text(&record)?) })
}

/// The image in a row's last field; `first`: no other came before.
pub(crate) fn image_of(write: &WriteEffect, frame: &Frame, binary: bool, first: bool) -> Option<ReadRow> {
    let record = record_of(frame, binary)?;
    let image = image::read(&record, write)?;
    let row = |operation, values, old_key| {
        let relation = Arc::clone(&write.table.relation);
        RowImage { relation, operation, values, old_key }
    };
    let partial = image.parameters.first().is_some_and(|p| p.as_deref() == Some(b"false"));
    let (table_oid, xid, token) = (image.table_oid, image.xid, image.token);
    let (row, others) = if write.seen == Seen::Whole {
        let old_key = pairing::old_key(write, &image)?;
        (Some(row(image.operation.unwrap_or(write.operation), image.values, old_key)), Vec::new())
    } else {
        let keys = pairing::keys_alone(write, &image, first)?;
        (None, keys.into_iter().map(|values| row(Operation::Reread, values, None)).collect())
    };
    Some(ReadRow { row, others, table_oid, xid, token, partial })
}
