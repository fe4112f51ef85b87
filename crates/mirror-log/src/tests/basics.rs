use super::*;
use crate::{AppendError, ReadError};

#[tokio::test]
async fn records_come_back_in_order_with_shared_relations() {
    let disk = FaultyDisk::default();
    let (log, recovery) = open(&disk);
    assert_eq!((recovery.first, recovery.last, records(&recovery)), (1, 0, vec![]));
    let table = relation("t");
    let written = vec![
        Record::Epoch { epoch: Epoch(1), fingerprint: "f".to_owned() },
        intent(vec![row(&table, 10), row(&table, 20)]),
        committed(2, vec![row(&relation("t"), 30), row(&relation("u"), 0)]),
        Record::Applied { below: 3 },
        Record::SuspectsCleared(vec![QualifiedName::new("s", "t")]),
    ];
    for (index, record) in written.iter().enumerate() {
        assert_eq!(log.append(record), Ok(index as u64 + 1));
    }
    log.durable(5).await.unwrap();
    assert_eq!(log.position(), 5);
    drop(log);

    let (log, recovery) = open(&disk);
    assert_eq!((recovery.first, recovery.last, &recovery.torn_tail), (1, 5, &None));
    let read = records(&recovery);
    assert_eq!(read.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>(), written);
    assert_eq!(read.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let relations = read.iter().flat_map(|(_, record)| relations_of(record)).collect::<Vec<_>>();
    assert_eq!(relations.len(), 4);
    assert!(Arc::ptr_eq(&relations[0], &relations[2]), "equal relations are one");
    assert_eq!(log.append(Record::Applied { below: 1 }), Ok(6), "numbers go on");
}

fn relations_of(record: &Record) -> Vec<Arc<Relation>> {
    let changes = match record {
        Record::Intent(intent) => &intent.changes,
        Record::Outcome { outcome: Outcome::Committed { changes, .. }, .. } => changes,
        _ => return Vec::new(),
    };
    let row = |change: &Change| match change {
        Change::Row(row) => Some(Arc::clone(&row.relation)),
        _ => None,
    };
    changes.rest.iter().filter_map(row).collect()
}

#[tokio::test]
async fn a_relation_is_written_once_per_segment() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    log.append(intent(vec![row(&relation("wide"), 1)])).unwrap();
    let first = log.status().record_bytes;
    log.append(intent(vec![row(&relation("wide"), 1)])).unwrap();
    let second = log.status().record_bytes - first;
    assert!(second + 40 < first, "{first} then {second} bytes");
}

#[tokio::test]
async fn any_record_can_be_read_again() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut written = Vec::new();
    for number in 0..200 {
        let record = intent(vec![row(&relation("t"), number % 90), row(&relation("u"), number)]);
        let sequence = log.append_wait(&record).await.unwrap();
        written.push((sequence, record));
    }
    log.durable(200).await.unwrap();
    assert!(log.status().segments > 2);
    for (sequence, record) in written.iter().chain(written.iter().rev()) {
        assert_eq!(&log.read(*sequence).unwrap(), record);
    }
    assert!(matches!(log.read(201), Err(ReadError::NotWritten(201))));
    drop(log);
    let (log, recovery) = open(&disk);
    assert_eq!(records(&recovery), written);
    for (sequence, record) in &written {
        assert_eq!(&log.read(*sequence).unwrap(), record);
    }
}

#[tokio::test]
async fn trimmed_segments_are_used_again_and_what_is_left_can_be_read() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut last = 0;
    for _ in 0..40 {
        last = fill_segment(&log).await;
        log.trim(last);
        eventually(|| log.status().segments <= 2).await;
    }
    let status = log.status();
    assert!(status.bytes <= 8 * (8 << 10), "{status:?}");
    assert!(status.first_sequence > 1);
    assert!(matches!(log.read(1), Err(ReadError::Trimmed(1))));
    let wanted = log.read(last).unwrap();
    drop(log);

    let (log, recovery) = open(&disk);
    let read = records(&recovery);
    // More may have been trimmed since.
    assert!(read.first().unwrap().0 >= status.first_sequence);
    assert_eq!(read.last().unwrap(), &(last, wanted));
    log.trim(last + 1);
    assert_eq!(log.append(Record::Applied { below: 1 }), Ok(last + 1));
}

#[tokio::test]
async fn numbers_go_on_after_everything_was_trimmed() {
    let disk = FaultyDisk::default();
    let mut expected = 1;
    for _ in 0..20 {
        let (log, recovery) = open(&disk);
        assert_eq!(recovery.last + 1, expected);
        let last = log.append(Record::Applied { below: expected }).unwrap();
        assert_eq!(last, expected);
        log.durable(last).await.unwrap();
        log.trim(last + 1);
        eventually(|| log.status().segments == 1).await;
        expected = last + 1;
    }
    assert!(disk.files().len() <= 5, "{:?}", disk.files());
}

#[tokio::test]
async fn a_large_record_gets_a_large_segment() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let large = intent(vec![row(&relation("t"), 40 << 10)]);
    let sequence = log.append_wait(&large).await.unwrap();
    let small = log.append_wait(intent(vec![])).await.unwrap();
    log.durable(small).await.unwrap();
    assert_eq!(log.read(sequence).unwrap(), large);
    let refused = log.append(intent(vec![row(&relation("t"), 100 << 10)]));
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    assert_eq!(log.position(), small, "a refused record leaves no gap");
    drop(log);
    assert_eq!(records(&open(&disk).1)[0].1, large);
}

#[tokio::test]
async fn closing_drains_and_then_refuses() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    for _ in 0..10 {
        log.append(intent(vec![])).unwrap();
    }
    log.close();
    assert_eq!(log.durable(10).await, Ok(()));
    assert_eq!(log.append(intent(vec![])), Err(AppendError::Stopped));
    assert_eq!(log.durable(11).await, Err(AppendError::Stopped));
    drop(log);
    assert_eq!(records(&open(&disk).1).len(), 10);
}

#[tokio::test]
async fn os_durability_survives_a_killed_process_and_synced_a_crashed_machine() {
    let disk = FaultyDisk::default();
    let options = Options { durability: Durability::Os, ..options() };
    let (log, _) = try_open(&disk, options.clone()).unwrap();
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    log.synced(1).await.unwrap();
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    disk.crash();
    drop(log);
    disk.kill_process();
    let (log, recovery) = try_open(&disk, options.clone()).unwrap();
    assert_eq!(recovery.last, 2);
    log.synced(log.append(intent(vec![])).unwrap()).await.unwrap();
    disk.crash();
    drop(log);
    for seed in 0..20 {
        disk.restart(seed);
        assert_eq!(try_open(&disk, options.clone()).unwrap().1.last, 3);
    }
}

#[tokio::test]
async fn os_durability_syncs_in_the_background() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, Options { durability: Durability::Os, ..options() }).unwrap();
    log.append(intent(vec![])).unwrap();
    eventually(|| log.status().synced_sequence == 1).await;
}

#[tokio::test]
async fn the_stop_mark_lasts_and_refuses_intents_only() {
    let disk = FaultyDisk::default();
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.stopped, None);
    log.mark_stopped("the reason").unwrap();
    disk.crash();
    drop(log);
    disk.restart(3);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.stopped.as_deref(), Some("the reason"));
    assert_eq!(log.append(intent(vec![])), Err(AppendError::Stopped));
    assert_eq!(log.append(Record::Suspects(vec![])), Ok(1));
    log.clear_stopped().unwrap();
    assert_eq!(log.append(intent(vec![])), Ok(2));
    drop(log);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.stopped, None);
    let long = "ä".repeat(1000);
    log.mark_stopped(&long).unwrap();
    drop(log);
    let stopped = open(&disk).1.stopped.unwrap();
    assert!(stopped.len() > 400 && long.starts_with(&stopped));
}

#[test]
fn a_log_keeps_its_identity_and_another_one_has_another() {
    let disk = FaultyDisk::default();
    let identity = |disk: &FaultyDisk| open(disk).0.identity().to_owned();
    let first = identity(&disk);
    assert_eq!(first.len(), 32);
    assert_eq!(identity(&disk), first);
    let path = Path::new(DIRECTORY).join("identity");
    let mut content = disk.content(&path).unwrap();
    content[3] ^= 1;
    disk.set_content(&path, &content);
    let second = identity(&disk);
    assert_ne!(second, first);
    assert_eq!(identity(&disk), second);
    assert_ne!(identity(&FaultyDisk::default()), second);
}
