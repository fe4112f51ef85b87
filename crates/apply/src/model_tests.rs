//! The book against a naive model: random histories, and lanes that take and apply in any order.

use crate::entry::Payload;
use crate::order_tests::{book, delete_alike, entry, relation};
use crate::{Entry, HoldOf};
use pgshadow_model::{Change, Epoch, Lsn, Sequence};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Step {
    Begin {
        rows: Vec<u8>,
        token_lag: u64,
        aborts: bool,
    },
    Token(usize),
    Settle(usize),
    Raise(usize),
    Take(usize),
    Apply(usize),
    GiveBack(usize),
    /// The table is held, or let go.
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (what(), 0_u64..6, prop::bool::weighted(0.1))
            .prop_map(|(rows, token_lag, aborts)| Step::Begin { rows, token_lag, aborts }),
        4 => (0_usize..8).prop_map(Step::Token),
        4 => (0_usize..8).prop_map(Step::Settle),
        1 => (0_usize..4).prop_map(Step::Raise),
        2 => (1_usize..5).prop_map(Step::Take),
        3 => (0_usize..3).prop_map(Step::Apply),
        1 => (0_usize..3).prop_map(Step::GiveBack),
        1 => Just(Step::Hold),
    ]
}

/// Rows of the table; or all of it; or a statement that may reach anything; or one of equal rows of another table.
fn what() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => prop::collection::vec(0_u8..WHOLE, 0..3),
        1 => Just(vec![WHOLE]),
        1 => Just(vec![EVERYTHING]),
        6 => Just(vec![ALIKE]),
    ]
}

const WHOLE: u8 = 5;
const EVERYTHING: u8 = 6;
const ALIKE: u8 = 7;

fn conflict(a: &[u8], b: &[u8]) -> bool {
    let of_table = |b: &[u8]| !(b.is_empty() || b.contains(&ALIKE));
    let reaches = |a: &[u8], b: &[u8]| a.contains(&EVERYTHING) || (a.contains(&WHOLE) && of_table(b));
    reaches(a, b) || reaches(b, a) || a.iter().any(|row| b.contains(row))
}

/// Whether both may look for one among equal rows.
fn look_alike(a: &[u8], b: &[u8]) -> bool {
    let may = |rows: &[u8]| rows.iter().any(|row| *row >= EVERYTHING);
    may(a) && may(b)
}

/// An entry that touches these.
fn touching(sequence: Sequence, token: u64, rows: &[u8]) -> Entry {
    let settings = pgshadow_model::SessionSettings::default();
    let changes = match rows {
        [WHOLE] => vec![Change::Copy(pgshadow_model::CopyData {
            relation: relation("t"),
            sql: String::new(),
            settings,
            data: vec![],
            rows: Some(1),
        })],
        [EVERYTHING] => {
            vec![Change::Ddl(pgshadow_model::DdlStatement {
                sql: "DROP INDEX i".into(),
                settings,
                in_transaction: true,
            })]
        }
        [ALIKE] => vec![delete_alike("bag")],
        rows => return entry(sequence, token, rows),
    };
    Entry { changes: Payload::memory(changes), ..entry(sequence, token, &[]) }
}

#[derive(Debug, Clone)]
struct Modelled {
    sequence: Sequence,
    rows: Vec<u8>,
    token: u64,
    aborts: bool,
    barrier: Option<BTreeSet<Sequence>>,
    bound: Sequence,
    raised: bool,
    settled: bool,
    taken: bool,
    applied: bool,
}

/// The rule as the design says it: the set in flight at the token, and a walk along the order. What lanes have in hand is held.
/// These are all that may go, each with those before it that it conflicts with.
fn naive_free(all: &[Modelled], holding: bool) -> Vec<&Modelled> {
    let mut waiting: Vec<&Modelled> = all.iter().filter(|m| m.settled && !m.aborts && !m.applied).collect();
    waiting.sort_by_key(|m| (m.token, m.sequence));
    let open = |e: &Modelled, s: &Sequence| {
        all.iter().any(|m| m.sequence == *s && !m.settled && !(m.raised && e.token < m.token))
    };
    let in_hand: Vec<&Modelled> = all.iter().filter(|m| m.taken && !m.applied).collect();
    let (mut free, mut held): (_, Vec<&Modelled>) = (Vec::new(), Vec::new());
    for m in waiting {
        let waits = m.barrier.as_ref().unwrap().iter().any(|s| open(m, s));
        let stopped = holding && conflict(&[WHOLE], &m.rows);
        let alike = in_hand.iter().any(|other| look_alike(&other.rows, &m.rows));
        let behind = held.iter().any(|h| conflict(&h.rows, &m.rows));
        (if m.taken || waits || stopped || alike || behind { &mut held } else { &mut free }).push(m);
    }
    free
}

/// Entries that are one batch by themselves.
fn alone(m: &Modelled) -> bool {
    m.rows.iter().any(|row| [WHOLE, EVERYTHING].contains(row))
}

/// What one lane takes of those that may go.
fn naive_take(all: &[Modelled], n: usize, holding: bool) -> Vec<Sequence> {
    let (mut chosen, mut left): (_, Vec<&Modelled>) = (Vec::new(), Vec::new());
    for m in naive_free(all, holding) {
        let behind = left.iter().any(|l| conflict(&l.rows, &m.rows));
        if chosen.len() == n || behind || (alone(m) && !chosen.is_empty()) {
            left.push(m);
            continue;
        }
        chosen.push(m.sequence);
        if alone(m) {
            break;
        }
    }
    chosen
}

fn naive_below(all: &[Modelled], highest: Sequence) -> Sequence {
    let left = |m: &&Modelled| !m.settled || (!m.aborts && !m.applied);
    all.iter().filter(left).map(|m| m.sequence).min().unwrap_or(highest + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]
    #[test]
    fn the_book_does_what_the_rule_says(steps in prop::collection::vec(step(), 1..120), narrow in any::<bool>()) {
        let book = std::sync::Arc::new(book());
        let mut hold = None;
        if narrow {
            book.set_window(3);
        }
        let mut all: Vec<Modelled> = Vec::new();
        let mut lanes: Vec<Vec<Sequence>> = Vec::new();
        for step in steps {
            match step {
                Step::Begin { rows, token_lag, aborts } => {
                    // Outcomes take numbers of the log too.
                    let sequence = all.last().map_or(1, |m| m.sequence + 1 + token_lag % 2);
                    book.begin(sequence).unwrap();
                    let token = (sequence * 3).saturating_sub(token_lag * 5);
                    all.push(Modelled {
                        sequence, rows, token, aborts, barrier: None, bound: 0, raised: false, settled: false, taken: false, applied: false,
                    });
                }
                Step::Token(n) => {
                    let open: BTreeSet<_> = all.iter().filter(|m| !m.settled).map(|m| m.sequence).collect();
                    if let Some(m) = all.iter_mut().filter(|m| m.barrier.is_none()).nth(n) {
                        m.bound = book.barrier();
                        m.barrier = Some(open.into_iter().filter(|s| *s != m.sequence).collect());
                    }
                }
                Step::Settle(n) => {
                    if let Some(m) = all.iter_mut().filter(|m| m.barrier.is_some() && !m.settled).nth(n) {
                        m.settled = true;
                        let e = (!m.aborts).then(|| touching(m.sequence, m.token, &m.rows));
                        book.settle(m.sequence, m.bound, e);
                    }
                }
                Step::Raise(n) => {
                    if let Some(m) = all.iter_mut().filter(|m| !m.settled).nth(n) {
                        m.raised = true;
                        book.raise(m.sequence, Epoch(1), Lsn(m.token));
                    }
                }
                Step::Take(n) => {
                    let taken: Vec<_> = book.take_batch(n, usize::MAX, None).iter().map(|e| e.sequence).collect();
                    if all.iter().any(|m| m.raised && !m.settled) {
                        // The book takes one floor for all that were raised, so it may hold more, never less.
                        let may = naive_free(&all, hold.is_some());
                        for (i, m) in may.iter().enumerate().filter(|(_, m)| taken.contains(&m.sequence)) {
                            let passed = |other: &&&Modelled| {
                                !taken.contains(&other.sequence) && conflict(&other.rows, &m.rows)
                            };
                            prop_assert!(!may[..i].iter().any(|other| passed(&other)), "{:?}", taken);
                            prop_assert!(!alone(m) || taken.len() == 1, "{:?}", taken);
                        }
                        prop_assert!(taken.iter().all(|s| may.iter().any(|m| m.sequence == *s)), "{:?}", taken);
                    } else if narrow {
                        // Not all of a batch may be known to the queues at once; but something always is.
                        let may = naive_take(&all, n, hold.is_some());
                        prop_assert!(may.starts_with(&taken) && taken.is_empty() == may.is_empty(), "{:?} of {:?}", taken, may);
                    } else {
                        prop_assert_eq!(&taken, &naive_take(&all, n, hold.is_some()));
                    }
                    all.iter_mut().filter(|m| taken.contains(&m.sequence)).for_each(|m| m.taken = true);
                    lanes.push(taken);
                }
                Step::Hold => {
                    let tables = vec![relation("t").name.clone()];
                    hold = match hold {
                        None => Some(book.hold(&HoldOf::Tables { tables, relatives: false })),
                        Some(_) => None,
                    };
                }
                Step::GiveBack(n) => {
                    let batch = if lanes.is_empty() { Vec::new() } else { lanes.swap_remove(n % lanes.len()) };
                    book.give_back(&batch);
                    all.iter_mut().filter(|m| batch.contains(&m.sequence)).for_each(|m| m.taken = false);
                }
                Step::Apply(n) => {
                    // Any lane may be the first to be done.
                    let batch = if lanes.is_empty() { Vec::new() } else { lanes.swap_remove(n % lanes.len()) };
                    let planned = book.position_with(&batch);
                    book.applied(&batch);
                    all.iter_mut().filter(|m| batch.contains(&m.sequence)).for_each(|m| m.applied = true);
                    prop_assert_eq!(&planned, &book.applied_position());
                    let below = naive_below(&all, all.last().map_or(0, |m| m.sequence));
                    prop_assert_eq!(planned.below, below);
                    for m in all.iter().filter(|m| m.settled && !m.aborts) {
                        prop_assert_eq!(planned.contains(m.sequence), m.applied, "{}", m.sequence);
                    }
                }
            }
        }
    }
}
