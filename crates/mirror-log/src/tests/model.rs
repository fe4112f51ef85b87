//! Random use with crashes at any change of the disk, against a list of what was appended.

use super::*;
use crate::AppendError;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Step {
    /// Appends so many records of this size.
    Append(usize, usize),
    /// Waits until everything is on disk.
    Sync,
    /// Lets go of this share of the records, in percent.
    Trim(u64),
    /// The machine crashes after so many changes at the latest, and perhaps again while the log is opened.
    Crash(u64),
    CrashWhileOpening(u64),
    /// The process is killed.
    Kill,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12usize, 0..3000usize).prop_map(|(count, bytes)| Step::Append(count, bytes)),
        3 => Just(Step::Sync),
        2 => (0..=110u64).prop_map(Step::Trim),
        2 => (1..60u64).prop_map(Step::Crash),
        1 => (1..40u64).prop_map(Step::CrashWhileOpening),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

struct Model {
    disk: FaultyDisk,
    options: Options,
    log: Option<Log>,
    /// What was appended; the first has number 1.
    truth: Vec<Record>,
    acknowledged: Sequence,
    trimmed_below: Sequence,
    seed: u64,
}

impl Model {
    fn new(durability: Durability, seed: u64) -> Self {
        let options = Options { durability, segment_size: 4096, on_full: OnFull::BlockWrites, ..options() };
        let disk = FaultyDisk::default();
        let (log, _) = try_open(&disk, options.clone()).unwrap();
        Self { disk, options, log: Some(log), truth: Vec::new(), acknowledged: 0, trimmed_below: 1, seed }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    async fn append(&mut self, bytes: usize) {
        let table = relation(["t", "u", "v"][self.truth.len() % 3]);
        let next = self.truth.len() as Sequence + 1;
        let record = if next.is_multiple_of(2) {
            intent(vec![row(&table, bytes)])
        } else {
            committed(next, vec![row(&table, bytes), row(&table, 3)])
        };
        loop {
            match self.log().append(&record) {
                Ok(sequence) => {
                    assert_eq!(sequence, next);
                    return self.truth.push(record);
                }
                Err(AppendError::Busy) => tokio::time::sleep(Duration::from_micros(100)).await,
                Err(AppendError::Full) => return,
                Err(AppendError::Poisoned(_)) if self.disk.has_crashed() => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn sync(&mut self) {
        let last = self.log().position();
        match self.log().synced(last).await {
            Ok(()) => self.acknowledged = self.acknowledged.max(last),
            Err(error) => assert!(self.disk.has_crashed(), "{error}"),
        }
        if last == self.truth.len() as Sequence && last >= self.log().status().first_sequence {
            let read = self.log().read(last);
            // The keeper may have brought about the crash meanwhile.
            if !self.disk.has_crashed() {
                assert_eq!(read.ok().as_ref(), self.truth.last());
            }
        }
    }

    fn trim(&mut self, percent: u64) {
        let below = self.acknowledged * percent / 100 + 1;
        self.trimmed_below = self.trimmed_below.max(below);
        self.log().trim(below);
    }

    /// After a crash of the machine or the process.
    fn reopen(&mut self, crash_while_opening: Option<u64>) {
        if let Some(changes) = crash_while_opening {
            self.disk.crash_in(changes);
            let opened = try_open(&self.disk, self.options.clone());
            self.disk.crash();
            drop(opened);
            self.restart();
        }
        let (log, recovery) = try_open(&self.disk, self.options.clone()).unwrap();
        self.check(&recovery);
        self.log = Some(log);
    }

    fn restart(&mut self) {
        self.seed = self.seed.wrapping_add(1);
        self.disk.restart(self.seed);
    }

    fn check(&mut self, recovery: &Recovery) {
        assert_eq!(recovery.stopped, None);
        assert!(
            recovery.last >= self.acknowledged,
            "lost: {} of {}, {:?}",
            recovery.last,
            self.acknowledged,
            self.disk.files()
        );
        assert!(recovery.last <= self.truth.len() as Sequence, "invented: {}", recovery.last);
        assert!(recovery.first <= self.trimmed_below, "trimmed too much: {}", recovery.first);
        let mut expected = recovery.first;
        for (sequence, record) in records(recovery) {
            assert_eq!(sequence, expected);
            assert_eq!(record, self.truth[sequence as usize - 1]);
            expected += 1;
        }
        assert_eq!(expected, recovery.last + 1);
        self.truth.truncate(recovery.last as usize);
        // What was found is on disk from now on.
        self.acknowledged = recovery.last;
        self.trimmed_below = self.trimmed_below.min(recovery.last + 1);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append(count, bytes) => {
                for _ in 0..count {
                    self.append(bytes).await;
                }
            }
            Step::Sync => self.sync().await,
            Step::Trim(percent) => self.trim(percent),
            Step::Crash(changes) => {
                self.disk.crash_in(changes);
                for _ in 0..5 {
                    self.append(200).await;
                    self.sync().await;
                }
                self.crash(None);
            }
            Step::CrashWhileOpening(changes) => self.crash(Some(changes)),
            Step::Kill => {
                self.disk.crash();
                self.log = None;
                self.disk.kill_process();
                self.reopen(None);
            }
            Step::Close => {
                self.log = None;
                self.acknowledged = self.truth.len() as Sequence;
                self.reopen(None);
            }
        }
    }

    fn crash(&mut self, while_opening: Option<u64>) {
        self.disk.crash();
        self.log = None;
        self.restart();
        self.reopen(while_opening);
    }
}

fn run(durability: Durability, seed: u64, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut model = Model::new(durability, seed);
        for step in steps {
            model.step(step).await;
        }
        model.crash(None);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_and_nothing_else_with_fsync(
        seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25),
    ) {
        run(Durability::Fsync, seed, steps);
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_with_os(
        seed in any::<u64>(), steps in prop::collection::vec(step(), 1..25),
    ) {
        run(Durability::Os, seed, steps);
    }
}
