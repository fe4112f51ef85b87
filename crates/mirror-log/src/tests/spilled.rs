//! Files of transactions that are too large to be held.

use super::*;
use crate::{Fault, SpillError, SpillFile};
use pgshadow_model::{Spilled, SpilledPart};

fn rows(count: usize, bytes: usize) -> Vec<Change> {
    let table = relation("large");
    (0..count).map(|n| row(&table, bytes + n)).collect()
}

fn spilled(of: &SpillFile, parts: &[SpilledPart]) -> Spilled {
    Spilled { file: of.number(), parts: parts.to_vec(), ..Spilled::default() }
}

fn spilled_names(disk: &FaultyDisk) -> usize {
    disk.files().iter().filter(|path| path.extension().is_some_and(|e| e == "spilled")).count()
}

#[tokio::test]
async fn parts_are_read_back_before_and_after_a_crash() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    let parts = [file.write(&rows(3, 10)).unwrap(), file.write(&rows(5, 0)).unwrap()];
    assert_eq!(parts.map(|p| p.changes), [3, 5]);
    assert_eq!(file.read(parts[1]).unwrap(), rows(5, 0));
    file.keep().unwrap();
    let kept = spilled(&file, &parts);
    drop(file);
    assert_eq!(log.read_spilled(&kept, 0).unwrap(), rows(3, 10));
    drop(log);
    disk.restart(7);
    let (log, _) = open(&disk);
    assert_eq!(log.spilled_files().unwrap(), [kept.file]);
    assert_eq!(log.read_spilled(&kept, 1).unwrap(), rows(5, 0));
    assert!(log.read_spilled(&kept, 2).is_err());
    log.remove_spilled(kept.file);
    assert_eq!(spilled_names(&disk), 0);
    assert!(log.read_spilled(&kept, 1).is_err());
}

#[tokio::test]
async fn what_is_not_kept_goes_and_gives_its_room_back() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let before = log.status().bytes;
    let mut file = log.spill().unwrap();
    let first = file.write(&rows(3, 10)).unwrap();
    let second = file.write(&rows(30, 10)).unwrap();
    assert_eq!(log.status().bytes, before + u64::from(first.length + second.length));
    file.cut(second.offset);
    assert_eq!(log.status().bytes, before + u64::from(first.length));
    let third = file.write(&rows(2, 5)).unwrap();
    assert_eq!((third.offset, file.read(third).unwrap()), (second.offset, rows(2, 5)));
    assert!(file.read(second).is_err(), "it was written over");
    assert_eq!(file.read(first).unwrap(), rows(3, 10));
    drop(file);
    assert_eq!((spilled_names(&disk), log.status().bytes), (0, before));
}

#[tokio::test]
async fn a_file_that_a_crash_left_counts_and_can_be_removed() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    file.write(&rows(30, 10)).unwrap();
    file.keep().unwrap();
    let with = log.status().bytes;
    drop((file, log));
    let (log, _) = open(&disk);
    let files = log.spilled_files().unwrap();
    assert_eq!(files.len(), 1);
    let found = log.status().bytes;
    log.remove_spilled(files[0]);
    assert!(log.status().bytes < found && found <= with);
}

#[tokio::test]
async fn large_transactions_leave_half_of_the_log() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    let refused = loop {
        if let Err(error) = file.write(&rows(10, 1000)) {
            break error;
        }
    };
    assert!(matches!(refused, SpillError::Full { .. }), "{refused}");
    let status = log.status();
    assert!(status.bytes < status.bytes_max / 2 + status.bytes_max / 4, "{status:?}");
    assert!(log.append_wait(intent(rows(1, 10))).await.is_ok(), "others go on");
    drop(file);
    assert!(log.spill().unwrap().write(&rows(10, 1000)).is_ok());
}

#[tokio::test]
async fn damage_and_a_full_disk_are_told() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    let part = file.write(&rows(3, 10)).unwrap();
    file.keep().unwrap();
    let path = disk.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "spilled")).unwrap();
    let good = disk.content(&path).unwrap();
    for byte in 0..good.len() {
        change_content(&disk, &path, |content| content[byte] ^= 1);
        assert!(log.read_spilled(&spilled(&file, &[part]), 0).is_err(), "byte {byte}");
        disk.set_content(&path, &good);
    }
    assert_eq!(log.read_spilled(&spilled(&file, &[part]), 0).unwrap(), rows(3, 10));
    disk.space(Some(100));
    let mut other = log.spill().unwrap();
    assert!(matches!(other.write(&rows(30, 10)), Err(SpillError::Log(_))));
    disk.space(None);
    assert_eq!(log.status().poisoned, None);
    let part = other.write(&rows(30, 10)).unwrap();
    assert_eq!(other.read(part).unwrap(), rows(30, 10));
}

#[tokio::test]
async fn the_room_of_one_file_is_never_anothers() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let before = log.status().bytes;
    let mut other = log.spill().unwrap();
    let kept = u64::from(other.write(&rows(20, 100)).unwrap().length);
    // taken back to its first part, kept, taken back again, and over
    let mut file = log.spill().unwrap();
    file.write(&rows(5, 100)).unwrap();
    let second = file.write(&rows(50, 100)).unwrap();
    file.cut(second.offset);
    file.keep().unwrap();
    let third = file.write(&rows(50, 100)).unwrap();
    file.cut(third.offset);
    let number = file.number();
    drop(file);
    log.remove_spilled(number);
    log.remove_spilled(number);
    assert_eq!(log.status().bytes, before + kept);
    // one that could not be written, and isn't written again
    let mut file = log.spill().unwrap();
    disk.fault(Fault::Write);
    assert!(file.write(&rows(20, 100)).is_err());
    file.keep().unwrap();
    let number = file.number();
    drop(file);
    log.remove_spilled(number);
    assert_eq!(log.status().bytes, before + kept);
    drop(other);
    assert_eq!(log.status().bytes, before);
}

#[tokio::test]
async fn what_the_disk_does_not_keep_is_not_kept() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    file.write(&rows(3, 10)).unwrap();
    disk.fault(Fault::Sync);
    assert!(file.keep().is_err());
    assert_eq!(log.status().poisoned, None, "it is one transaction's trouble");
    drop(file);
    assert_eq!(spilled_names(&disk), 0);
}

#[tokio::test]
async fn nobody_waits_for_room_in_a_log_that_is_closed() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    let mut file = log.spill().unwrap();
    file.write(&rows(3, 10)).unwrap();
    log.close();
    assert!(matches!(file.write(&rows(3, 10)), Err(SpillError::Closed)));
}
