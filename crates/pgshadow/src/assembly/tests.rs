use super::mirror::Mirror;
use super::recovery::restore;
use bytes::Bytes;
use pgshadow_apply::{Entry, Loaded, OrderBook};
use pgshadow_capture::{Journal, Settled, Unsettled};
use pgshadow_catalog::Catalog;
use pgshadow_divergence::Store;
use pgshadow_mirror_log::{Log, Options, RealDisk, Recovery};
use pgshadow_model::{
    Backend, Change, Changes, Column, ColumnType, DdlStatement, Epoch, Intent, Lsn, Operation, Order, QualifiedName,
    Relation, RelationKind, RowImage, Sequence, SessionSettings, Shape, Suspect, Xid,
};
use std::path::Path;
use std::sync::Arc;

fn open(directory: &Path, epoch: u32) -> (Mirror, Recovery) {
    let (log, recovery) = Log::open(Options::new(directory.join("log")), Arc::new(RealDisk)).unwrap();
    let store = Arc::new(Store::open(directory.join("findings.redb")).unwrap());
    let mirror = Mirror::new(log, Arc::new(OrderBook::new(1 << 20)), store, Arc::new(Catalog::default()), None);
    mirror.set_epoch(Epoch(epoch));
    (mirror, recovery)
}

fn row(id: u8) -> Change {
    let column_type = ColumnType { oid: 23, name: QualifiedName::new("pg_catalog", "int4"), shape: Shape::Plain };
    let column = Column { name: "id".into(), column_type, not_null: true, generated: false, identity_always: false };
    let relation = Arc::new(Relation {
        oid: 16_400,
        name: QualifiedName::new("public", "t"),
        kind: RelationKind::Table,
        columns: vec![column],
        key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        coarse: false,
    });
    let values = vec![Some(Bytes::copy_from_slice(&[0, 0, 0, id]))];
    Change::Row(RowImage { relation, operation: Operation::Insert, values, old_key: None })
}

fn ddl() -> Change {
    let settings = SessionSettings::default();
    Change::Ddl(DdlStatement { sql: "DROP TABLE t".into(), settings, in_transaction: true })
}

fn intend(mirror: &Mirror, epoch: u32, changes: Vec<Change>) -> Sequence {
    let intent = Intent {
        epoch: Epoch(epoch),
        backend: Backend { pid: 1, cancel_key: Bytes::new() },
        xid: Some(Xid(1)),
        token: Some(Lsn(1)),
        changes: changes.into(),
        may_write: Vec::new(),
        may_write_any: false,
        suspects: Vec::new(),
        prepared: None,
    };
    mirror.intent(intent).1.unwrap()
}

fn commit(mirror: &Mirror, sequence: Sequence, epoch: u32, flushed: bool) {
    mirror.settle(Settled {
        sequence,
        barrier: mirror.barrier(),
        flushed,
        committed: true,
        order: Some(Order { epoch: Epoch(epoch), token: Lsn(sequence), xid: Xid(sequence) }),
        intent_changes: vec![row(1)].into(),
        changes: Changes::default(),
        suspects: Vec::new(),
    });
}

fn lost(sequence: Sequence, changes: Vec<Change>) -> Unsettled {
    Unsettled {
        sequence,
        epoch: Epoch(1),
        order: None,
        barrier: 0,
        backend: Backend { pid: 1, cancel_key: Bytes::new() },
        intent_changes: changes.into(),
        changes: Changes::default(),
        complete: true,
        may_write: Vec::new(),
        may_write_any: false,
        suspects: Vec::new(),
        prepared: None,
    }
}

fn take(mirror: &Mirror) -> Vec<Entry> {
    while matches!(mirror.book.load(mirror), Loaded::Some) {}
    mirror.book.take_batch(100, 100, None)
}

/// Suspect tables; "*" is every table.
fn suspects(mirror: &Mirror) -> Vec<String> {
    let all = mirror.store.suspects().unwrap();
    all.into_iter().map(|s| s.table.map_or_else(|| "*".to_owned(), |t| t.name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_an_entry_waits_for_what_was_open_when_it_was_settled() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    let older = intend(&mirror, 1, vec![row(1)]);
    let entry = intend(&mirror, 1, vec![row(1)]);
    commit(&mirror, entry, 1, true);
    let younger = intend(&mirror, 1, vec![row(2)]);
    mirror.close();
    drop(mirror);
    let (mirror, recovery) = open(directory.path(), 1);
    let open: Vec<_> = restore(&mirror, recovery, None).unwrap();
    assert_eq!(open.iter().map(|o| (o.sequence, o.epoch)).collect::<Vec<_>>(), [older, younger].map(|s| (s, Epoch(1))));
    assert!(take(&mirror).is_empty());
    mirror.found_out(lost(older, vec![row(1)]), false, None);
    assert_eq!(take(&mirror).iter().map(|e| e.sequence).collect::<Vec<_>>(), [entry]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_an_entry_is_applied_only_if_the_primary_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    let flushed: Vec<_> = [false, true].map(|flushed| (intend(&mirror, 1, vec![row(1)]), flushed)).into();
    for (sequence, flushed) in &flushed {
        commit(&mirror, *sequence, 1, *flushed);
    }
    assert_eq!(mirror.unflushed(), 1);
    mirror.close();
    drop(mirror);

    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    assert!(take(&mirror).is_empty(), "the second one waits for the first");
    mirror.gate_unflushed(mirror.unflushed(), Lsn(50));
    assert!(take(&mirror).is_empty());
    mirror.book.flushed(Lsn(50));
    let gates = |mirror: &Mirror| take(mirror).iter().map(|e| e.flush_gate).collect::<Vec<_>>();
    assert_eq!(gates(&mirror), [None, None]);
    drop(mirror);

    let (mirror, recovery) = open(directory.path(), 2);
    restore(&mirror, recovery, None).unwrap();
    assert_eq!(gates(&mirror), [Some(Lsn(0)), None], "in another life nobody knows any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_gates_only_what_came_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    let first = intend(&mirror, 1, vec![row(1)]);
    commit(&mirror, first, 1, false);
    let counted = mirror.unflushed();
    let second = intend(&mirror, 1, vec![row(1)]);
    commit(&mirror, second, 1, false);
    mirror.gate_unflushed(counted, Lsn(5));
    mirror.book.flushed(Lsn(9));
    assert_eq!(take(&mirror).iter().map(|e| e.sequence).collect::<Vec<_>>(), [first]);
    assert_eq!(mirror.unflushed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_without_a_name_makes_every_table_suspect() {
    for (changes, complete, expected) in [
        (vec![row(1)], true, vec!["t"]),
        (vec![ddl()], true, vec!["*"]),
        (vec![row(1), ddl()], true, vec!["*"]),
        (vec![], false, vec!["*"]),
        (vec![], true, vec![]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, recovery) = open(directory.path(), 1);
        restore(&mirror, recovery, None).unwrap();
        let sequence = intend(&mirror, 1, changes.clone());
        mirror.found_out(Unsettled { complete, ..lost(sequence, changes.clone()) }, false, Some("nobody knows"));
        let mut found = suspects(&mirror);
        found.sort();
        assert_eq!(found, expected, "{changes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_written_down_when_anybody_returns_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    let mirror = Arc::new(mirror);
    let stops: Vec<_> = (0..4)
        .map(|_| {
            let (mirror, path) = (Arc::clone(&mirror), directory.path().join("log/stopped"));
            std::thread::spawn(move || (mirror.stop("the disk is full"), std::fs::read(path).unwrap()))
        })
        .collect();
    for stop in stops {
        let (marked, content) = stop.join().unwrap();
        assert!(marked && content.iter().any(|b| *b != 0));
    }
    mirror.close();
    drop(mirror);
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    assert_eq!(suspects(&mirror), ["*"]);
    mirror.close();
    drop(mirror);
    let (mirror, recovery) = open(directory.path(), 1);
    assert_eq!(recovery.stopped, None);
    assert!(!mirror.is_stopped());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_source_committed_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let restart = |source: &str| {
        let (mirror, recovery) = open(directory.path(), 1);
        let lost = restore(&mirror, recovery, Some(source.to_owned())).unwrap().len();
        (mirror, lost)
    };
    let (mirror, _) = restart("one");
    let sequence = intend(&mirror, 1, vec![row(1)]);
    commit(&mirror, sequence, 1, true);
    intend(&mirror, 1, vec![row(2)]);
    mirror.close();
    drop(mirror);
    let (mirror, lost) = restart("one");
    assert_eq!((lost, suspects(&mirror).len(), take(&mirror).len()), (1, 0, 1));
    mirror.close();
    drop(mirror);
    for _ in 0..2 {
        let (mirror, lost) = restart("two");
        assert_eq!((lost, suspects(&mirror), take(&mirror).len()), (0, vec!["*".to_owned()], 0));
        let (extent, last) = (pgshadow_apply::Log::extent(&mirror), mirror.log.position());
        assert_eq!((extent.first, extent.last, extent.source.as_deref()), (last + 1, last, Some("two")));
        mirror.close();
    }
    let (mirror, _) = restart("two");
    let sequence = intend(&mirror, 1, vec![row(3)]);
    commit(&mirror, sequence, 1, true);
    mirror.close();
    drop(mirror);
    assert_eq!(take(&restart("two").0).len(), 1, "its own are there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspect_table_that_only_the_log_knows_of_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let suspect = |table: &str| Suspect { table: Some(QualifiedName::new("public", table)), reason: "DO block".into() };
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    mirror.keep_in_log(&suspect("a")).unwrap();
    drop(mirror);
    let (mirror, recovery) = open(directory.path(), 1);
    restore(&mirror, recovery, None).unwrap();
    assert_eq!(suspects(&mirror), ["a"], "by the log");
    mirror.keep_in_log(&suspect("b")).unwrap();
    assert_eq!(suspects(&mirror), ["a"]);
    assert_eq!(mirror.trimmable(100), 100, "the store takes it now");
    assert_eq!(suspects(&mirror), ["a", "b"]);
}
