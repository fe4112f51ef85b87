//! Tests of the whole log, most on the faulty disk.

mod basics;
mod damage;
mod fixtures;
mod limits;
mod model;
mod real_disk;
mod spilled;

use crate::{Durability, Error, FaultyDisk, Log, OnFull, Options, Record, Recovery};
use bytes::Bytes;
use pgshadow_model::{
    Backend, Change, Changes, Column, ColumnType, Epoch, Intent, Lsn, Operation, Order, Outcome, QualifiedName,
    Relation, RelationKind, RowImage, Sequence, Shape, Xid,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIRECTORY: &str = "/log";

fn options() -> Options {
    Options {
        directory: PathBuf::from(DIRECTORY),
        durability: Durability::Fsync,
        size_max: 256 << 10,
        segment_size: 8 << 10,
        on_full: OnFull::StopMirroring,
        buffer_bytes_max: 64 << 10,
    }
}

fn open(disk: &FaultyDisk) -> (Log, Recovery) {
    try_open(disk, options()).unwrap()
}

fn try_open(disk: &FaultyDisk, options: Options) -> Result<(Log, Recovery), Error> {
    Log::open(options, Arc::new(disk.clone()))
}

fn relation(name: &str) -> Arc<Relation> {
    let text = ColumnType { oid: 25, name: QualifiedName::new("pg_catalog", "text"), shape: Shape::Plain };
    let column = |name: &str| Column {
        name: name.to_owned(),
        column_type: text.clone(),
        not_null: false,
        generated: false,
        identity_always: false,
    };
    Arc::new(Relation {
        oid: 16_400,
        name: QualifiedName::new("public", name),
        kind: RelationKind::Table,
        columns: vec![column("a"), column("b")],
        key: vec![0],
        unique_keys: vec![vec![1]],
        foreign_keys: Vec::new(),
        coarse: false,
    })
}

fn row(relation: &Arc<Relation>, bytes: usize) -> Change {
    Change::Row(RowImage {
        relation: Arc::clone(relation),
        operation: Operation::Update,
        values: vec![Some(Bytes::from(vec![7; bytes])), None],
        old_key: None,
    })
}

fn intent(changes: impl Into<Changes>) -> Record {
    Record::Intent(Intent {
        epoch: Epoch(1),
        backend: Backend { pid: 4711, cancel_key: Bytes::from_static(&[1, 2, 3, 4]) },
        xid: Some(Xid(99)),
        token: Some(Lsn(77)),
        changes: changes.into(),
        may_write: vec![QualifiedName::new("public", "t")],
        may_write_any: false,
        suspects: Vec::new(),
        prepared: None,
    })
}

fn committed(of: Sequence, changes: impl Into<Changes>) -> Record {
    let changes = changes.into();
    let order = Some(Order { epoch: Epoch(1), token: Lsn(0xABC), xid: Xid(99) });
    Record::Outcome { of, flushed: true, outcome: Outcome::Committed { order, changes, suspects: Vec::new() } }
}

fn records(recovery: &Recovery) -> Vec<(Sequence, Record)> {
    recovery.read_all().collect::<Result<_, _>>().unwrap()
}

/// Waits for something that the log's threads do.
async fn eventually(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it didn't happen");
}

/// Appends intents until one begins a new segment; returns the last number.
async fn fill_segment(log: &Log) -> Sequence {
    let begun = log.status().segments.max(1);
    loop {
        let last = log.append_wait(intent(vec![row(&relation("t"), 500)])).await.unwrap();
        log.durable(last).await.unwrap();
        if log.status().segments > begun {
            return last;
        }
    }
}

fn segments(disk: &FaultyDisk) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "segment");
    disk.files().into_iter().filter(is_segment).collect()
}

fn change_content(disk: &FaultyDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = disk.content(path).unwrap();
    change(&mut content);
    disk.set_content(path, &content);
}
