use super::*;
use crate::RealDisk;
use std::os::unix::fs::PermissionsExt;

fn real(directory: &Path) -> Result<(Log, Recovery), Error> {
    let options = Options { directory: directory.to_owned(), ..options() };
    Log::open(options, Arc::new(RealDisk))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_append_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = real(directory.path()).unwrap();
    let log = Arc::new(log);
    let task = |_| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let table = relation("t");
            for _ in 0..100 {
                let sequence = log.append_wait(intent(vec![row(&table, 100)])).await.unwrap();
                log.durable(sequence).await.unwrap();
                let of = log.append_wait(committed(sequence, vec![])).await.unwrap();
                log.trim(of.saturating_sub(100));
            }
        })
    };
    for handle in (0..8).map(task).collect::<Vec<_>>() {
        handle.await.unwrap();
    }
    let first = log.status().first_sequence;
    drop(log);
    let (_log, recovery) = real(directory.path()).unwrap();
    let numbers: Vec<_> = records(&recovery).into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(numbers, (recovery.first..=1600).collect::<Vec<_>>());
    assert!(first > 1 && recovery.first >= first);
}

#[test]
fn a_second_opener_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = real(directory.path()).unwrap();
    let second = real(directory.path()).unwrap_err();
    assert!(matches!(second, Error::Locked { .. }));
    assert!(second.to_string().contains("another pgshadow"), "{second}");
    drop(first);
    real(directory.path()).unwrap();
}

#[test]
fn files_are_for_the_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("log");
    let (log, _) = real(&directory).unwrap();
    log.append(intent(vec![])).unwrap();
    log.close();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn a_removed_directory_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("log");
    let (log, _) = real(&directory).unwrap();
    log.durable(log.append(intent(vec![])).unwrap()).await.unwrap();
    // the log may write a file while it goes
    while std::fs::remove_dir_all(&directory).is_err_and(|e| e.kind() == std::io::ErrorKind::DirectoryNotEmpty) {}
    eventually(|| log.status().poisoned.is_some()).await;
}
