use crate::{Error, LapseOf, Limits, Store, TableCertificate};
use pgshadow_model::{Cause, Finding, Kind, QualifiedName, Severity};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn table() -> QualifiedName {
    QualifiedName::new("public", "t")
}

fn finding(fingerprint: &str, key: &str) -> Finding {
    Finding {
        table: Some(table()),
        key: Some(key.to_owned()),
        count: 0,
        ..Finding::new(Kind::Value, Cause::Unknown, Severity::Error, fingerprint.to_owned())
    }
}

#[test]
fn the_same_finding_raises_its_count_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("findings.redb");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.record(finding("a", "id=1")).unwrap(), 1);
    assert_eq!(store.record(finding("a", "id=1")).unwrap(), 1);
    assert_eq!(store.record(finding("a", "id=2")).unwrap(), 2);
    store.meta_set("epoch", "7").unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let list = store.list().unwrap();
    assert_eq!(list.iter().map(|f| (f.id, f.count)).collect::<Vec<_>>(), [(1, 2), (2, 1)]);
    assert!(list[0].first_seen.ends_with('Z') && list[0].last_seen >= list[0].first_seen);
    assert_eq!(store.open_count().unwrap(), 2);
    assert!(store.acknowledge(1).unwrap() && store.mark_healed(2).unwrap());
    assert_eq!(store.open_count().unwrap(), 0);
    assert!(!store.acknowledge(99).unwrap());
    assert_eq!(store.meta_get("epoch").unwrap().as_deref(), Some("7"));
    assert_eq!(store.meta_get("none").unwrap(), None);
}

#[test]
fn what_comes_again_is_open_again_unless_it_is_about_statements() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("f")).unwrap();
    for (kind, open) in [(Kind::Value, 1), (Kind::Latency, 1), (Kind::Statement, 1), (Kind::Schema, 2)] {
        let one = || Finding { kind, ..finding(&format!("{kind:?}"), "id=1") };
        let id = store.record(one()).unwrap();
        assert!(store.acknowledge(id).unwrap());
        assert_eq!(store.record(one()).unwrap(), id);
        assert_eq!(store.open_count().unwrap(), open, "{kind:?}");
    }
}

#[test]
fn one_event_reported_again_after_a_crash_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("f")).unwrap();
    for _ in 0..3 {
        store.record_all(vec![(Some((5, 0)), finding("a", "id=1")), (Some((5, 1)), finding("a", "id=1"))]).unwrap();
    }
    assert_eq!(store.list().unwrap()[0].count, 2);
    store.mark_origin_healed((5, 0)).unwrap();
    store.mark_origin_healed((5, 0)).unwrap();
    assert_eq!((store.open_count().unwrap(), store.healed_rows().unwrap()), (1, 1));
    store.mark_origin_healed((5, 1)).unwrap();
    assert_eq!((store.open_count().unwrap(), store.healed_rows().unwrap()), (0, 2));
    store.forget_origins(6).unwrap();
    store.record_all(vec![(Some((5, 1)), finding("a", "id=1"))]).unwrap();
    assert_eq!(store.list().unwrap()[0].count, 3, "a forgotten origin counts anew");
}

#[test]
fn examples_and_findings_are_limited_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { examples_per_group: 3, findings: 5 };
    let store = Store::open_with(dir.path().join("f"), limits).unwrap();
    for i in 0..10 {
        store.record(finding("a", &format!("id={i}"))).unwrap();
    }
    let counts = store.list().unwrap().iter().map(|f| f.count).collect::<Vec<_>>();
    assert_eq!(counts, [1, 1, 8]);
    for i in 0..4 {
        store.record(finding(&format!("b{i}"), "id=1")).unwrap();
    }
    assert_eq!((store.list().unwrap().len(), store.uncounted().unwrap()), (5, 2));
    assert_eq!(store.open_count().unwrap(), 7);
    assert!(store.mark_healed(1).unwrap());
    assert_ne!(store.record(finding("c", "id=1")).unwrap(), 0, "a healed one made room");
    let table = finding("c", "id=1").table;
    store.forget_uncounted(Some(&QualifiedName::new("other", "one"))).unwrap();
    assert_eq!(store.uncounted().unwrap(), 2);
    store.forget_uncounted(table.as_ref()).unwrap();
    assert_eq!(store.uncounted().unwrap(), 0);
}

#[test]
fn suspects_are_kept_with_every_reason_until_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let store = Store::open(&path).unwrap();
    assert!(store.suspect(Some(&table()), "DO block", None).unwrap());
    assert!(!store.suspect(Some(&table()), "DO block", None).unwrap());
    assert!(store.suspect(Some(&table()), "trigger", Some("2026-01-01T00:00:00Z")).unwrap());
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.suspects().unwrap().len(), 2);
    assert!(store.is_suspect(&table()).is_some());
    assert!(store.is_suspect(&QualifiedName::new("public", "u")).is_none());
    store.suspect(None, "log full", None).unwrap();
    assert_eq!(store.is_suspect(&QualifiedName::new("public", "u")).as_deref(), Some("log full"));
    assert!(store.lift(&[table()], store.doubt_mark(), true, None).unwrap().is_empty());
    assert!(store.is_suspect(&table()).is_none() && store.suspects().unwrap().is_empty());
}

#[test]
fn what_was_doubted_since_stays_suspect() {
    let store = Store::open(tempfile::tempdir().unwrap().path().join("f")).unwrap();
    let other = QualifiedName::new("public", "u");
    store.suspect(Some(&table()), "DO block", None).unwrap();
    store.suspect(Some(&other), "DO block", None).unwrap();
    let mark = store.doubt_mark();
    // told again: nothing is written, but it counts
    assert!(!store.suspect(Some(&table()), "DO block", None).unwrap());
    assert_eq!(store.lift(&[table(), other.clone()], mark, false, None).unwrap(), [table()]);
    assert!(store.is_suspect(&table()).is_some() && store.is_suspect(&other).is_none());
    let mark = store.doubt_mark();
    store.doubt(None);
    assert_eq!(store.lift(&[table()], mark, true, None).unwrap(), [table()]);
    assert!(store.lift(&[table()], store.doubt_mark(), true, None).unwrap().is_empty());
    assert!(store.is_suspect(&table()).is_none());
}

#[test]
fn a_reason_that_is_over_goes_where_another_one_stays() {
    let store = Store::open(tempfile::tempdir().unwrap().path().join("f")).unwrap();
    store.suspect(Some(&table()), "loading", None).unwrap();
    let mark = store.doubt_mark();
    store.doubt(Some(&table()));
    assert_eq!(store.lift(&[table()], mark, false, Some("loading")).unwrap(), [table()]);
    assert_eq!(store.suspects().unwrap().len(), 1, "it is the only one");
    store.suspect(Some(&table()), "DO block", None).unwrap();
    assert_eq!(store.lift(&[table()], mark, false, Some("loading")).unwrap(), [table()]);
    let left: Vec<String> = store.suspects().unwrap().into_iter().map(|suspect| suspect.reason).collect();
    assert_eq!(left, ["DO block"]);
}

#[test]
fn one_table_after_the_other_is_taken_out_of_every_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let store = Store::open(&path).unwrap();
    let other = QualifiedName::new("public", "u");
    store.suspect(None, "log full", None).unwrap();
    assert!(store.lift(&[table()], store.doubt_mark(), false, None).unwrap().is_empty());
    drop(store);
    let store = Store::open(&path).unwrap();
    assert!(store.is_suspect(&table()).is_none() && store.is_suspect(&other).is_some());
    // the same reason again means every table again
    assert!(store.suspect(None, "log full", None).unwrap());
    assert!(store.is_suspect(&table()).is_some());
    assert!(store.lift(&[table(), other], store.doubt_mark(), true, None).unwrap().is_empty());
    assert!(store.suspects().unwrap().is_empty() && store.lifted_tables().is_empty());
}

#[test]
fn a_damaged_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, vec![7_u8; 100_000]).unwrap();
    let Err(e) = Store::open(&path) else { panic!("garbage was opened") };
    assert!(matches!(e, Error::Damaged { .. }) && e.to_string().contains("Move the file away"), "{e}");
}

#[test]
fn a_second_process_and_a_missing_directory_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::InUse { .. })));
    assert!(matches!(Store::open(dir.path().join("none/f")), Err(Error::Open { .. })));
}

#[test]
fn a_file_damaged_inside_is_an_error_and_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let store = Store::open(&path).unwrap();
    for i in 0..200 {
        store.record(finding(&format!("{i}"), "id=1")).unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bad = good.clone();
        let end = (at + 64).min(bad.len());
        bad[at..end].fill(0xA5);
        std::fs::write(&path, &bad).unwrap();
        let read = Store::open(&path).and_then(|s| s.list().map(|l| l.len()));
        drop(read);
    }
}

/// A disk in memory that can be full.
#[derive(Debug)]
struct Full(redb::backends::InMemoryBackend, Arc<AtomicBool>);

impl Full {
    fn refuse(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl redb::StorageBackend for Full {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.refuse()?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.refuse()?;
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.refuse()?;
        self.0.write(offset, data)
    }
}

#[test]
fn a_mark_that_could_not_be_written_is_no_mark() {
    let full = Arc::new(AtomicBool::new(false));
    let backend = Full(redb::backends::InMemoryBackend::new(), Arc::clone(&full));
    let database = redb::Database::builder().create_with_backend(backend).unwrap();
    let store = Store::of(database, Limits::default()).unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(store.suspect(Some(&table()), "DO block", None).is_err(), "it must not be taken as written");
        assert_eq!(store.is_suspect(&table()), None);
    }
}

fn certificate(name: &str) -> TableCertificate {
    TableCertificate {
        table: QualifiedName::new("public", name),
        rows: 1,
        bytes: 2,
        hash: "00".to_owned(),
        snapshot: "1:1:".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        ended: "2026-01-01T00:00:01Z".to_owned(),
        lapsed: None,
        lapsed_at: None,
    }
}

fn lapsed(store: &Store) -> Vec<(String, Option<String>)> {
    store.certificates().unwrap().tables.into_iter().map(|c| (c.table.name, c.lapsed)).collect()
}

#[test]
fn certificates_lapse_by_what_happens_to_their_tables() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.certificates().unwrap().not_whole.as_deref(), Some("not all tables were verified"));
    let all = |store: &Store| {
        let mark = store.lapse_mark();
        ["a", "b", "t"].iter().for_each(|name| store.certify(mark, certificate(name)).unwrap());
        store.certify_whole(mark, &["a", "b", "t"].map(|name| QualifiedName::new("public", name))).unwrap();
        assert!(lapsed(store).iter().all(|(_, lapsed)| lapsed.is_none()));
        assert_eq!(store.certificates().unwrap().not_whole, None);
    };
    let of = |name: &str, reason: &str| (name.to_owned(), (!reason.is_empty()).then(|| reason.to_owned()));
    all(&store);
    store.suspect(Some(&QualifiedName::new("public", "a")), "unseen", None).unwrap();
    store.record(Finding { message: Some("differs".to_owned()), ..finding("f", "k") }).unwrap();
    assert_eq!(lapsed(&store), [of("a", "unseen"), of("b", ""), of("t", "differs")]);
    store.lapse(&[LapseOf::Named("b".to_owned()), LapseOf::Named("t".to_owned())], "altered", true).unwrap();
    assert_eq!(lapsed(&store), [of("a", "unseen"), of("b", "altered"), of("t", "differs")], "the first reason stays");
    assert_eq!(store.certificates().unwrap().not_whole.as_deref(), Some("altered"));
    all(&store);
    store.record(Finding { kind: Kind::Latency, ..finding("slow", "k") }).unwrap();
    assert_eq!(lapsed(&store), [of("a", ""), of("b", ""), of("t", "")], "no row differs");
    store.suspect(None, "the log is lost", None).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(lapsed(&store), ["a", "b", "t"].map(|name| of(name, "the log is lost")));
}

#[test]
fn what_happens_between_snapshot_and_certificate_is_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    store.lapse(&[LapseOf::Every], "before", true).unwrap();
    let first = store.lapse_mark();
    store.suspect(Some(&table()), "meanwhile", None).unwrap();
    let second = store.lapse_mark();
    let names = ["t", "u"].map(|name| QualifiedName::new("public", name));
    store.certify(first, certificate("gone")).unwrap();
    store.certify(first, certificate("t")).unwrap();
    store.certify(second, certificate("u")).unwrap();
    store.certify_whole(first, &names).unwrap();
    let reason = |text: &str| Some(text.to_owned());
    assert_eq!(lapsed(&store), [("t".to_owned(), reason("meanwhile")), ("u".to_owned(), None)]);
    assert_eq!(store.certificates().unwrap().not_whole, None);
    // compared again, in a later snapshot
    store.certify(second, certificate("t")).unwrap();
    assert_eq!(lapsed(&store), [("t".to_owned(), None), ("u".to_owned(), None)]);
    store.lapse(&[], "a table was made", true).unwrap();
    store.certify_whole(second, &names).unwrap();
    assert_eq!(store.certificates().unwrap().not_whole, reason("a table was made"));
}
