//! Damaged files: dropped where it can only be an unfinished write, refused everywhere else.

use super::*;
use crate::Fault;
use crate::format::SEGMENT_HEADER_BYTES;

/// Three records, each its own group; returns the segment and where each record begins.
async fn three_records(disk: &FaultyDisk) -> (PathBuf, Vec<usize>) {
    let (log, _) = open(disk);
    let mut begins = vec![SEGMENT_HEADER_BYTES as usize];
    for _ in 0..3 {
        log.durable(log.append(intent(vec![row(&relation("t"), 100)])).unwrap()).await.unwrap();
        begins.push(SEGMENT_HEADER_BYTES as usize + log.status().record_bytes as usize);
    }
    disk.crash();
    drop(log);
    disk.restart(0);
    (segments(disk).remove(0), begins)
}

#[tokio::test]
async fn a_damaged_last_record_is_dropped_and_reported() {
    let disk = FaultyDisk::default();
    let (path, begins) = three_records(&disk).await;
    change_content(&disk, &path, |content| content[begins[2] + 30] ^= 1);
    let (log, recovery) = open(&disk);
    assert_eq!(recovery.last, 2);
    let torn = recovery.torn_tail.clone().unwrap();
    assert_eq!((torn.offset, torn.records), (begins[2] as u64, 0));
    assert!(torn.bytes > 100 && torn.bytes <= (begins[3] - begins[2]) as u64);
    let again = intent(vec![]);
    assert_eq!(log.append(&again), Ok(3));
    drop(log);
    let (_log, recovery) = open(&disk);
    assert_eq!(recovery.torn_tail, None);
    assert_eq!(records(&recovery)[2], (3, again));
}

#[tokio::test]
async fn a_damaged_middle_record_is_an_error_that_says_where() {
    let disk = FaultyDisk::default();
    let (path, begins) = three_records(&disk).await;
    change_content(&disk, &path, |content| content[begins[1] + 30] ^= 1);
    let error = try_open(&disk, options()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path: p, offset, .. } if *p == path && *offset == begins[1] as u64));
    let text = error.to_string();
    assert!(text.contains("00001.segment") && text.contains("resynchronise"), "{text}");
    // Nothing was changed: a copy of the file mends it.
    change_content(&disk, &path, |content| content[begins[1] + 30] ^= 1);
    assert_eq!(open(&disk).1.last, 3);
}

#[tokio::test]
async fn a_zeroed_middle_record_is_an_error() {
    let disk = FaultyDisk::default();
    let (path, begins) = three_records(&disk).await;
    change_content(&disk, &path, |content| content[begins[1]..begins[2]].fill(0));
    assert!(matches!(try_open(&disk, options()), Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn a_group_written_out_of_order_is_a_torn_tail() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    // One group of several: queued while nobody can write.
    let begin = SEGMENT_HEADER_BYTES as usize + log.status().record_bytes as usize;
    {
        let encoded = |n| {
            crate::codec::encode(&Record::Applied { below: n }, &mut crate::relations::Interner::default()).unwrap()
        };
        let mut state = log.state_for_tests();
        for number in 0..4 {
            state.push(&encoded(number)).unwrap();
        }
    }
    log.close();
    drop(log);
    let path = segments(&disk).remove(0);
    change_content(&disk, &path, |content| content[begin + 8] ^= 0xFF);
    let (_log, recovery) = open(&disk);
    assert_eq!(recovery.last, 1);
    assert_eq!(recovery.torn_tail.unwrap().records, 3);
}

#[tokio::test]
async fn every_single_damage_is_refused_or_loses_the_last_group_only() {
    let disk = FaultyDisk::default();
    let (path, begins) = three_records(&disk).await;
    let good = disk.content(&path).unwrap();
    let truth = records(&open(&disk).1);
    for at in (0..begins[3] + 200).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        disk.set_content(&path, &bad);
        let read = try_open(&disk, options()).map(|(_, recovery)| records(&recovery));
        match read {
            Ok(read) => assert!(read.len() >= 2 && truth.starts_with(&read), "byte {at}"),
            Err(Error::Corrupt { .. } | Error::Version { .. }) => assert!(at < begins[2], "byte {at}"),
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[tokio::test]
async fn damage_in_an_earlier_segment_is_an_error_even_at_its_end() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    fill_segment(&log).await;
    drop(log);
    let path = segments(&disk).remove(0);
    change_content(&disk, &path, |content| {
        let last = content.iter().rposition(|b| *b != 0).unwrap();
        content[last] ^= 1;
    });
    assert!(matches!(try_open(&disk, options()), Err(Error::Corrupt { path: p, .. }) if p == path));
}

#[tokio::test]
async fn a_missing_segment_is_an_error() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    fill_segment(&log).await;
    fill_segment(&log).await;
    drop(log);
    let names = segments(&disk);
    disk.set_content(&names[1].with_extension("moved"), &[]);
    crate::Disk::remove(&disk, &names[1]).unwrap();
    let error = try_open(&disk, options()).unwrap_err();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert!(error.to_string().contains("a segment is missing"), "{error}");
}

#[tokio::test]
async fn an_unknown_version_names_the_remedy() {
    let disk = FaultyDisk::default();
    let (path, _) = three_records(&disk).await;
    change_content(&disk, &path, |content| content[8] = 9);
    let error = try_open(&disk, options()).unwrap_err();
    assert!(matches!(error, Error::Version { found: 9, .. }));
    assert!(error.to_string().contains("drain the log, then upgrade"), "{error}");
}

#[tokio::test]
async fn damage_found_by_a_later_read_is_an_error() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    change_content(&disk, &segments(&disk)[0], |content| content[100] ^= 1);
    assert!(matches!(log.read(1), Err(crate::ReadError::Log(Error::Corrupt { .. }))));
}

#[tokio::test]
async fn an_unreadable_stop_mark_counts_as_stopped() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    log.mark_stopped("reason").unwrap();
    drop(log);
    change_content(&disk, &Path::new(DIRECTORY).join("stopped"), |content| content[9] ^= 1);
    assert!(open(&disk).1.stopped.is_some());
}

#[tokio::test]
async fn a_failed_sync_poisons_for_good() {
    for fault in [Fault::Sync, Fault::Write] {
        let disk = FaultyDisk::default();
        let (log, _) = open(&disk);
        log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
        disk.fault(fault);
        let sequence = log.append(intent(vec![])).unwrap();
        let error = log.durable(sequence).await.unwrap_err();
        assert!(matches!(&error, crate::AppendError::Poisoned(reason) if reason.contains("segment")), "{error}");
        assert_eq!(log.append(Record::Applied { below: 1 }), Err(error.clone()));
        assert_eq!(log.append_wait(intent(vec![])).await, Err(error.clone()));
        assert_eq!(log.synced(2).await, Err(error));
        assert_eq!(log.durable(1).await, Ok(()), "what was durable stays so");
        assert!(log.status().poisoned.is_some());
    }
}

#[tokio::test]
async fn a_failed_background_sync_poisons_too() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, Options { durability: Durability::Os, ..options() }).unwrap();
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    disk.fault(Fault::Sync);
    assert!(matches!(log.synced(1).await, Err(crate::AppendError::Poisoned(_))));
}
