//! Full log, full disk, full buffer.

use super::*;
use crate::AppendError;

async fn fill(log: &Log) -> AppendError {
    loop {
        match log.append(intent(vec![row(&relation("t"), 900)])) {
            Ok(_) => {}
            Err(AppendError::Busy) => tokio::task::yield_now().await,
            Err(error) => return error,
        }
    }
}

fn blocking() -> Options {
    Options { on_full: OnFull::BlockWrites, ..options() }
}

#[tokio::test]
async fn a_full_log_keeps_room_for_outcomes_and_stops_mirroring() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    assert_eq!(fill(&log).await, AppendError::Full);
    let status = log.status();
    assert!(status.full && status.bytes <= status.bytes_max, "{status:?}");
    assert!(status.record_bytes > status.bytes_max / 2, "{status:?}");
    assert!(status.stopped.is_some_and(|reason| reason.contains("full")));
    for of in 1..10 {
        log.append_wait(committed(of, vec![row(&relation("t"), 900)])).await.unwrap();
    }
    // Room alone doesn't make the log whole again.
    log.trim(log.position());
    eventually(|| log.status().segments == 1).await;
    assert_eq!(log.append(intent(vec![])), Err(AppendError::Stopped));
    log.clear_stopped().unwrap();
    log.append_wait(intent(vec![])).await.unwrap();
    assert!(!log.status().full);
}

#[tokio::test]
async fn blocked_writes_go_on_after_trimming() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, blocking()).unwrap();
    assert_eq!(fill(&log).await, AppendError::Full);
    let log = Arc::new(log);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.append_wait(intent(vec![row(&relation("t"), 2000)])).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let last = log.position();
    log.trim(last / 2);
    assert_eq!(waiting.await.unwrap(), Ok(last + 1));
}

#[tokio::test]
async fn the_largest_record_fits_once_the_log_is_trimmed() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, blocking()).unwrap();
    let log = Arc::new(log);
    for _ in 0..5 {
        fill(&log).await;
        let waiting = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.append_wait(intent(vec![row(&relation("t"), 63 << 10)])).await }
        });
        log.durable(log.position()).await.unwrap();
        log.trim(log.position() + 1);
        let sequence = waiting.await.unwrap().unwrap();
        log.durable(sequence).await.unwrap();
        assert!(log.status().bytes <= log.status().bytes_max);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_without_poison_and_recovers() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, blocking()).unwrap();
    disk.space(Some(20 << 10));
    assert_eq!(fill(&log).await, AppendError::Full);
    let status = log.status();
    assert_eq!(status.poisoned, None);
    assert!(status.no_space.is_some_and(|reason| reason.contains("can't make a segment")));
    log.durable(log.position()).await.unwrap();
    log.mark_stopped("the disk is full").unwrap();
    log.clear_stopped().unwrap();
    disk.space(None);
    let last = log.position();
    assert_eq!(log.append_wait(intent(vec![row(&relation("t"), 9000)])).await, Ok(last + 1));
    log.durable(last + 1).await.unwrap();
    assert_eq!(log.status().no_space, None);
}

#[tokio::test]
async fn a_log_opens_on_a_full_disk() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let last = fill_segment(&log).await;
    drop(log);
    disk.space(Some(0));
    let (log, recovery) = try_open(&disk, blocking()).unwrap();
    assert_eq!(recovery.last, last);
    log.mark_stopped("no space").unwrap();
    drop(log);
    for path in disk.files().iter().filter(|path| path.extension().is_some_and(|e| e == "spare")) {
        crate::Disk::remove(&disk, path).unwrap();
    }
    disk.space(Some(0));
    let (log, recovery) = try_open(&disk, blocking()).unwrap();
    assert_eq!(recovery.stopped.as_deref(), Some("no space"));
    log.clear_stopped().unwrap();
    assert_eq!(log.append(intent(vec![])), Err(AppendError::Full));
    disk.space(None);
    assert_eq!(log.append_wait(intent(vec![])).await, Ok(last + 1));
}

#[tokio::test]
async fn a_full_buffer_is_busy_until_it_is_written() {
    let disk = FaultyDisk::default();
    let (log, _) = try_open(&disk, Options { buffer_bytes_max: 1, segment_size: 32 << 10, ..options() }).unwrap();
    {
        let mut state = log.state_for_tests();
        let encoded =
            crate::codec::encode(&Record::Applied { below: 1 }, &mut crate::relations::Interner::default()).unwrap();
        assert_eq!(state.push(&encoded), Ok(1), "a record larger than the limit passes");
        assert_eq!(state.push(&encoded), Err(AppendError::Busy));
    }
    assert_eq!(log.append_wait(Record::Applied { below: 1 }).await, Ok(2));
    log.durable(2).await.unwrap();
    assert_eq!(log.status().buffered_bytes, 0);
}

#[test]
fn impossible_options_are_refused() {
    let disk = FaultyDisk::default();
    let too_small = Options { size_max: 1000, ..options() };
    assert!(matches!(try_open(&disk, too_small), Err(Error::Options(_))));
    let no_buffer = Options { buffer_bytes_max: 0, ..options() };
    assert!(matches!(try_open(&disk, no_buffer), Err(Error::Options(_))));
}
