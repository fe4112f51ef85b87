//! Synthetic histories: sessions that write contended rows under row locks, with delayed replies, and one idle writer
//! with an old token, and lanes that apply. Pairs of writes of one row that are released with a falling token are counted.

use crate::order_tests::Without;
use crate::{Entry, Loaded, Log, LogError, LogExtent, OrderBook, Payload};
use bytes::Bytes;
use pgshadow_model::{Change, Epoch, Lsn, Operation, Order, RowImage, Sequence, Xid};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Mutex;

const SESSIONS: u64 = 12;
const TRANSACTIONS: u64 = 60;
const ROWS: u8 = 6;
const LANES: usize = 4;

/// One transaction, with the instants that matter.
#[derive(Debug, Clone)]
struct Written {
    rows: Vec<u8>,
    sent: u64,
    token: u64,
    token_reply: u64,
    reply: u64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A primary with row locks: a session takes its rows' locks in order, draws its token after the last wait, and leaves
/// at its commit. What the proxy sees of it comes later, by a delay of its own.
fn history(seed: u64) -> Vec<Written> {
    let mut random = Random(seed);
    let mut free_at: BTreeMap<u8, u64> = BTreeMap::new();
    let mut sessions: BinaryHeap<std::cmp::Reverse<(u64, u64)>> =
        (0..SESSIONS).map(|s| std::cmp::Reverse((s, s))).collect();
    let mut log = vec![Written { rows: vec![ROWS], sent: 90_000_000, token: 1, token_reply: 2, reply: 90_000_100 }];
    let mut left = vec![TRANSACTIONS; usize::try_from(SESSIONS).unwrap()];
    while let Some(std::cmp::Reverse((now, session))) = sessions.pop() {
        let autocommit = random.below(2) == 0;
        let mut rows: Vec<u8> =
            (0..if autocommit { 1 } else { 2 }).map(|_| u8::try_from(random.below(6)).unwrap()).collect();
        rows.sort_unstable();
        rows.dedup();
        // Statements reach the server a little after they are sent; all waits end before the token is drawn.
        let arrived = now + 1 + random.below(20);
        let waited = rows.iter().map(|r| free_at.get(r).copied().unwrap_or(0)).fold(arrived, u64::max);
        let token = waited + 1;
        let (sent, token_reply, commit, reply);
        if autocommit {
            sent = now;
            commit = token + 1 + random.below(5);
            reply = commit + 1 + random.below(60);
            token_reply = reply;
        } else {
            token_reply = token + 1 + random.below(30);
            sent = token_reply + random.below(20);
            commit = sent + 1 + random.below(20);
            reply = commit + 1 + random.below(60);
        }
        // Locks come free at the commit.
        free_at.extend(rows.iter().map(|r| (*r, commit)));
        log.push(Written { rows, sent, token, token_reply, reply });
        let n = &mut left[usize::try_from(session).unwrap()];
        *n -= 1;
        if *n > 0 {
            sessions.push(std::cmp::Reverse((reply + 1 + random.below(5), session)));
        }
    }
    log
}

/// Batches in the hands of lanes.
#[derive(Default)]
struct Lanes(Vec<Vec<Sequence>>);

impl Lanes {
    /// Each free lane takes what it can, up to a few entries; false if there was nothing.
    fn take(&mut self, book: &OrderBook, random: &mut Random) -> bool {
        let before = self.0.len();
        while self.0.len() < LANES {
            let most = usize::try_from(1 + random.below(16)).unwrap();
            let batch: Vec<_> = book.take_batch(most, 64, None).iter().map(|e| e.sequence).collect();
            if batch.is_empty() {
                break;
            }
            self.0.push(batch);
        }
        self.0.len() > before
    }

    /// One of them, whichever, commits.
    fn commit(&mut self, book: &OrderBook, random: &mut Random) -> Vec<Sequence> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let one = usize::try_from(random.below(self.0.len() as u64)).unwrap();
        let batch = self.0.swap_remove(one);
        let position = book.position_with(&batch);
        book.applied(&batch);
        assert!(batch.iter().all(|s| position.contains(*s)));
        assert!(self.0.iter().flatten().all(|s| !position.contains(*s)), "another lane's batch isn't applied yet");
        batch
    }
}

/// The order in which the book's entries are applied by lanes that take and commit at random.
fn released(log: &[Written], without: Without, seed: u64, held_max: usize) -> Vec<usize> {
    let mut events: Vec<(u64, u8, usize)> = Vec::new();
    for (i, w) in log.iter().enumerate() {
        events.extend([(w.token_reply, 1, i), (w.sent, 0, i), (w.reply, 2, i)]);
    }
    events.sort_unstable();
    let book = OrderBook::new(1 << 30);
    book.set_without(without);
    book.set_held_max(held_max);
    let committed = Committed::default();
    let (mut sequences, mut barriers) = (vec![0; log.len()], vec![0; log.len()]);
    let (mut next, mut out): (Sequence, Vec<usize>) = (1, Vec::new());
    let relation = crate::order_tests::relation("t");
    let (mut lanes, mut random) = (Lanes::default(), Random(seed));
    let number = |s: &Sequence, sequences: &[Sequence]| sequences.iter().position(|x| x == s).unwrap();
    for (_, what, i) in events {
        match what {
            0 => {
                sequences[i] = next;
                book.begin(next).unwrap();
                next += 1;
            }
            1 => barriers[i] = book.barrier(),
            _ => {
                let image = |key: &u8| {
                    Change::Row(RowImage {
                        relation: relation.clone(),
                        operation: Operation::Update,
                        values: vec![Some(Bytes::copy_from_slice(&[*key])), None],
                        old_key: None,
                    })
                };
                let changes = Payload::memory(log[i].rows.iter().map(image).collect());
                let order = Order { epoch: Epoch(1), token: Lsn(log[i].token), xid: Xid(i as u64) };
                let entry = Entry { sequence: sequences[i], order, changes, flush_gate: None, reply_number: 0 };
                // outcomes take numbers of the log too, and sessions come to the book with them in any order
                let outcome = next + random.below(3);
                next += 3;
                committed.0.lock().unwrap().insert(outcome, entry.clone());
                book.settle_or_leave(barriers[i], entry, outcome);
                if random.below(4) == 0 {
                    book.load(&committed);
                }
                lanes.take(&book, &mut random);
                for _ in 0..random.below(3) {
                    out.extend(lanes.commit(&book, &mut random).iter().map(|s| number(s, &sequences)));
                }
            }
        }
    }
    while matches!(book.load(&committed), Loaded::Some) || lanes.take(&book, &mut random) || !lanes.0.is_empty() {
        lanes.take(&book, &mut random);
        out.extend(lanes.commit(&book, &mut random).iter().map(|s| number(s, &sequences)));
    }
    assert_eq!(out.len(), log.len(), "everything is released in the end");
    assert_eq!(book.applied_position().below, book.barrier());
    out
}

/// Pairs of writes of one row, one after the other in this order, with a falling token.
fn inversions(log: &[Written], order: &[usize]) -> usize {
    let mut last: BTreeMap<u8, u64> = BTreeMap::new();
    let mut count = 0;
    for i in order {
        for row in &log[*i].rows {
            count += usize::from(last.insert(*row, log[*i].token).is_some_and(|before| before > log[*i].token));
        }
    }
    count
}

/// What sessions have written to the log, by outcome.
#[derive(Default)]
struct Committed(Mutex<BTreeMap<Sequence, Entry>>);

impl Log for Committed {
    fn read_left(
        &self,
        outcome: Sequence,
        _: Option<Lsn>,
        wanted: &dyn Fn(Sequence) -> bool,
    ) -> Result<Option<Entry>, LogError> {
        let entry = self.0.lock().unwrap().get(&outcome).cloned().unwrap();
        Ok(wanted(entry.sequence).then_some(entry))
    }

    fn read(&self, _: Sequence) -> Result<Vec<Change>, LogError> {
        Ok(Vec::new())
    }

    fn read_part(&self, _: Sequence, _: usize) -> Result<Option<Vec<Change>>, LogError> {
        Ok(None)
    }

    fn extent(&self) -> LogExtent {
        LogExtent::default()
    }

    fn let_go(&self, _: Sequence) {}

    fn applied(&self, _: Sequence) {}

    fn marked(&self, _: u64) {}
}

#[test]
fn what_is_left_in_the_log_is_held_back_as_if_it_were_there() {
    let mut without = 0;
    for seed in 0..40 {
        let log = history(seed);
        for held_max in [1, 3, 20] {
            let order = released(&log, Without::default(), seed, held_max);
            assert_eq!(inversions(&log, &order), 0, "seed {seed}, {held_max} held");
        }
        without += inversions(&log, &released(&log, Without { floor: true, ..Without::default() }, seed, 3));
    }
    assert!(without > 0, "the floor is needed");
}

#[test]
fn no_row_is_written_with_a_falling_token_and_every_part_is_needed() {
    let (mut without_a, mut without_b, mut reply_order) = (0, 0, 0);
    for seed in 0..20 {
        let log = history(seed);
        let order = released(&log, Without::default(), seed, usize::MAX);
        assert_eq!(inversions(&log, &order), 0, "seed {seed}");
        without_a +=
            inversions(&log, &released(&log, Without { in_flight: true, ..Without::default() }, seed, usize::MAX));
        without_b +=
            inversions(&log, &released(&log, Without { conflicts: true, ..Without::default() }, seed, usize::MAX));
        let mut by_reply: Vec<usize> = (0..log.len()).collect();
        by_reply.sort_by_key(|i| log[*i].reply);
        reply_order += inversions(&log, &by_reply);
        let idle = order.iter().position(|i| *i == 0).unwrap();
        // Lanes may still have a few in hand when it comes.
        assert!(idle + LANES * 16 > log.len() - 1, "the idle writer held nothing back");
    }
    println!("without (a): {without_a}, without (b): {without_b}, reply order: {reply_order}");
    assert!(without_a > 0 && without_b > 0 && reply_order > 0, "{without_a} {without_b} {reply_order}");
}
