#![allow(clippy::single_range_in_vec_init)]

use crate::entry::{Entry, Payload};
use crate::{Fence, HoldOf, OrderBook, Snapshot};
use bytes::Bytes;
use pgshadow_model::{
    Change, Column, ColumnType, Epoch, Lsn, Operation, Order, QualifiedName, Relation, RelationKind, RowImage,
    Sequence, Shape, Xid,
};
use std::sync::Arc;

/// Parts of the rule left out, to see that each is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Without {
    /// Part (a).
    pub(crate) in_flight: bool,
    /// Part (b).
    pub(crate) conflicts: bool,
    /// What is left in the log.
    pub(crate) floor: bool,
}

pub(crate) fn relation(table: &str) -> Arc<Relation> {
    let int4 = ColumnType { oid: 23, name: QualifiedName::new("pg_catalog", "int4"), shape: Shape::Plain };
    let column = |name: &str| Column {
        name: name.to_owned(),
        column_type: int4.clone(),
        not_null: false,
        generated: false,
        identity_always: false,
    };
    Arc::new(Relation {
        oid: 1,
        name: QualifiedName::new("public", table),
        kind: RelationKind::Table,
        columns: vec![column("id"), column("v")],
        key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        coarse: false,
    })
}

pub(crate) fn row(relation: &Arc<Relation>, key: u8) -> Change {
    Change::Row(RowImage {
        relation: Arc::clone(relation),
        operation: Operation::Update,
        values: vec![Some(Bytes::copy_from_slice(&[key])), None],
        old_key: None,
    })
}

fn order(token: u64, xid: u64) -> Order {
    Order { epoch: Epoch(1), token: Lsn(token), xid: Xid(xid) }
}

pub(crate) fn entry(sequence: Sequence, token: u64, rows: &[u8]) -> Entry {
    let relation = relation("t");
    let changes = rows.iter().map(|k| row(&relation, *k)).collect();
    let changes = Payload::memory(changes);
    Entry { sequence, order: order(token, sequence), changes, flush_gate: None, reply_number: 0 }
}

pub(crate) fn book() -> OrderBook {
    let book = OrderBook::new(64 << 20);
    book.set_epoch(Epoch(1));
    book
}

fn take(book: &OrderBook) -> Vec<Sequence> {
    book.take_batch(usize::MAX, usize::MAX, None).iter().map(|e| e.sequence).collect()
}

fn ddl(sql: &str, in_transaction: bool) -> Payload {
    let settings = pgshadow_model::SessionSettings::default();
    Payload::memory(vec![Change::Ddl(pgshadow_model::DdlStatement { sql: sql.into(), settings, in_transaction })])
}

#[test]
fn an_entry_waits_for_what_was_in_flight_at_its_token() {
    let book = book();
    book.begin(1).unwrap();
    book.begin(2).unwrap();
    let barrier = book.barrier();
    book.begin(3).unwrap();
    book.settle(2, barrier, Some(entry(2, 20, &[1])));
    assert!(take(&book).is_empty(), "1 was sent before the token's reply");
    book.settle(1, 2, Some(entry(1, 10, &[1])));
    assert_eq!(take(&book), [1, 2], "3 was sent after it");
}

#[test]
fn a_held_entry_holds_what_shares_a_unit_and_nothing_else() {
    let book = book();
    for s in 1..=4 {
        book.begin(s).unwrap();
    }
    book.settle(2, 4, Some(entry(2, 20, &[7])));
    book.settle(3, 0, Some(entry(3, 30, &[7])));
    book.settle(4, 0, Some(entry(4, 40, &[8])));
    assert_eq!(take(&book), [4]);
    book.settle(1, 0, None);
    assert_eq!(take(&book), [2, 3]);
}

#[test]
fn an_idle_writer_with_an_old_token_holds_nothing_and_may_come_below() {
    let book = book();
    for s in 1..=10 {
        book.begin(s).unwrap();
        book.settle(s, book.barrier(), Some(entry(s, 100 + s, &[1])));
    }
    assert_eq!(take(&book).len(), 10);
    book.applied(&(1..=10).collect::<Vec<_>>());
    book.begin(11).unwrap();
    book.settle(11, 1, Some(entry(11, 5, &[2])));
    assert_eq!(take(&book), [11]);
    assert_eq!(book.applied_position().below, 11);
}

#[test]
fn the_position_keeps_what_is_applied_above_the_oldest_open_one() {
    let book = book();
    for s in [3, 5, 8] {
        book.begin(s).unwrap();
    }
    for s in [5, 8] {
        book.settle(s, 0, Some(entry(s, s, &[u8::try_from(s).unwrap()])));
    }
    assert_eq!(take(&book), [5, 8]);
    let position = book.position_with(&[5, 8]);
    assert_eq!((position.below, position.above.clone()), (3, vec![5..9]));
    assert!(position.contains(2) && position.contains(5) && !position.contains(3) && !position.contains(9));
    book.applied(&[5, 8]);
    book.settle(3, 0, None);
    assert_eq!(book.applied_position(), crate::AppliedPosition { below: 9, above: vec![] });
    assert!(book.begin(7) == Err(crate::BeganLate(7)), "the position has passed it");
    assert!(book.begin(9).is_ok());
}

#[test]
fn what_the_shadow_holds_is_not_taken_again() {
    let book = book();
    for s in 1..=6 {
        book.begin(s).unwrap();
    }
    for s in [1, 4, 5] {
        book.settle(s, 0, Some(entry(s, s, &[u8::try_from(s).unwrap()])));
    }
    book.settle(2, 0, None);
    book.restore(&crate::AppliedPosition { below: 3, above: vec![4..5, 6..7] });
    assert_eq!(take(&book), [5]);
    book.settle(6, 0, Some(entry(6, 6, &[6])));
    book.settle(1, 0, Some(entry(1, 1, &[1])));
    assert!(take(&book).is_empty());
    book.begin(2).unwrap();
    assert_eq!(book.applied_position().below, 3, "3 is still in flight, 2 is not");
}

#[test]
fn payloads_above_the_budget_are_left_to_the_log() {
    let book = OrderBook::new(entry(0, 0, &[1]).changes.bytes() * 2);
    for s in 1..=3 {
        book.begin(s).unwrap();
        book.settle(s, 0, Some(entry(s, s, &[u8::try_from(s).unwrap()])));
    }
    let lag = book.lag();
    assert_eq!((lag.entries, lag.memory_bytes * 3), (3, lag.bytes * 2));
    let batch = book.take_batch(9, 9, None);
    assert!(matches!(batch[1].changes, Payload::Memory { .. }) && batch[2].changes == Payload::Spilled);
    assert_eq!(book.lag().memory_bytes, 0);
    book.applied(&[1, 2, 3]);
    assert_eq!(book.lag(), crate::Lag::default());
}

#[test]
fn the_flush_gate_holds_an_entry_until_the_primary_has_flushed() {
    let book = book();
    book.begin(1).unwrap();
    let gated = Entry { flush_gate: Some(Lsn(50)), ..entry(1, 1, &[1]) };
    book.settle(1, 0, Some(gated));
    book.begin(2).unwrap();
    book.settle(2, 0, Some(entry(2, 2, &[1])));
    assert!(take(&book).is_empty());
    book.flushed(Lsn(49));
    assert!(take(&book).is_empty());
    book.flushed(Lsn(50));
    assert_eq!(take(&book), [1, 2]);
}

#[test]
fn a_blocked_statement_that_was_raised_holds_only_what_may_come_after_it() {
    let book = book();
    book.begin(1).unwrap();
    for s in 2..=3 {
        book.begin(s).unwrap();
        book.settle(s, book.barrier(), Some(entry(s, s * 10, &[u8::try_from(s).unwrap()])));
    }
    assert!(take(&book).is_empty());
    book.raise(1, Epoch(1), Lsn(25));
    assert_eq!(take(&book), [2]);
    book.raise(1, Epoch(1), Lsn(31));
    assert_eq!(take(&book), [3]);
    book.applied(&[2, 3]);
    assert_eq!(book.applied_position(), crate::AppliedPosition { below: 1, above: vec![2..4] });
}

#[test]
fn an_entry_that_was_not_flushed_when_its_primary_went_says_so() {
    let book = book();
    book.set_epoch(Epoch(1));
    book.begin(1).unwrap();
    book.settle(1, 0, Some(Entry { flush_gate: Some(Lsn(50)), ..entry(1, 1, &[1]) }));
    book.begin(2).unwrap();
    book.settle(2, 0, Some(Entry { flush_gate: Some(Lsn(10)), ..entry(2, 2, &[2]) }));
    book.flushed(Lsn(10));
    let gates = |batch: Vec<Entry>| batch.iter().map(|e| (e.sequence, e.flush_gate)).collect::<Vec<_>>();
    assert_eq!(gates(book.take_batch(9, 9, None)), [(2, None)]);
    book.set_epoch(Epoch(2));
    assert_eq!(gates(book.take_batch(9, 9, None)), [(1, Some(Lsn(50)))]);
}

#[test]
fn behind_a_fence_only_what_the_snapshot_sees_goes() {
    let book = book();
    for s in 1..=4 {
        book.begin(s).unwrap();
    }
    book.settle(1, 0, Some(entry(1, 10, &[1])));
    let fence = Fence { snapshot: Snapshot::parse(Epoch(1), "2:4:2").unwrap(), mark: book.barrier(), after: Lsn(25) };
    book.begin(5).unwrap();
    let barrier = Entry { changes: ddl("", true), ..entry(2, 20, &[]) };
    book.settle(2, 0, Some(barrier));
    // Its token's reply came when 5 was already in flight; the snapshot saw it, so 5 doesn't matter.
    book.settle(3, 6, Some(entry(3, 30, &[1])));
    let taken = |n| book.take_batch(n, 9, Some(&fence)).iter().map(|e| e.sequence).collect::<Vec<_>>();
    assert_eq!(taken(1), [1]);
    assert!(taken(9).is_empty(), "4 is not settled, so it might still turn out to come first");
    book.settle(4, 0, None);
    assert_eq!(taken(9), [3]);
    assert!(!book.reached(&fence));
    book.applied(&[1, 3]);
    assert!(book.reached(&fence));
    assert_eq!(take(&book), [2]);
}

#[test]
fn a_fence_doesnt_wait_for_what_was_still_in_progress_behind_its_snapshot() {
    let book = book();
    for s in 1..=3 {
        book.begin(s).unwrap();
    }
    let fence = Fence { snapshot: Snapshot::parse(Epoch(1), "9:9:").unwrap(), mark: book.barrier(), after: Lsn(25) };
    book.settle(1, 0, Some(entry(1, 10, &[1])));
    book.applied(&take(&book));
    book.settle(2, 0, None);
    assert!(!book.reached(&fence), "3 may have committed before it");
    book.raise(3, Epoch(1), Lsn(24));
    assert!(!book.reached(&fence), "it was in progress before the snapshot, which says nothing");
    book.raise(3, Epoch(1), Lsn(25));
    assert!(book.reached(&fence));
}

#[test]
fn coarse_tables_copy_and_ddl_hold_each_other() {
    let child = Arc::new(Relation { coarse: true, ..(*relation("child")).clone() });
    let parent = Arc::new(Relation { coarse: true, ..(*relation("parent")).clone() });
    let other = relation("other");
    let book = book();
    for s in 1..=4 {
        book.begin(s).unwrap();
    }
    let of = |s, token, relation: &Arc<Relation>| Entry {
        changes: Payload::memory(vec![row(relation, 1)]),
        ..entry(s, token, &[])
    };
    book.settle(2, 2, Some(of(2, 20, &child)));
    book.settle(3, 0, Some(of(3, 30, &parent)));
    book.settle(4, 0, Some(of(4, 40, &other)));
    assert_eq!(take(&book), [4]);
    book.settle(1, 0, None);
    assert_eq!(take(&book), [2, 3]);
}

#[test]
fn what_is_given_back_is_taken_by_others_in_order() {
    let book = book();
    for s in 1..=4 {
        book.begin(s).unwrap();
    }
    for s in 1..=3 {
        book.settle(s, 0, Some(entry(s, s, &[u8::try_from(s / 2).unwrap()])));
    }
    assert_eq!(take(&book), [1, 2, 3]);
    book.settle(4, 0, Some(entry(4, 4, &[1])));
    assert!(take(&book).is_empty(), "3 is in another lane's hands");
    book.give_back(&[2, 3]);
    assert!(book.is_in_hand());
    assert_eq!(take(&book), [2, 3, 4]);
    book.applied(&[1, 2, 3, 4]);
    assert!(!book.is_in_hand());
    assert_eq!(book.applied_position().below, 5);
}

/// A row of a table without a key that is deleted: any of its equals will do.
pub(crate) fn delete_alike(table: &str) -> Change {
    let bare = Arc::new(Relation { key: vec![], ..(*relation(table)).clone() });
    let Change::Row(image) = row(&bare, 1) else { unreachable!() };
    Change::Row(RowImage { operation: Operation::Delete, ..image })
}

/// What was raised settles late, below what a lane is at: neither needs the other one, but among equal rows both would take the same.
#[test]
fn of_equal_rows_two_lanes_never_look_for_one_each() {
    let of = |s, token, table| Entry { changes: Payload::memory(vec![delete_alike(table)]), ..entry(s, token, &[]) };
    let book = book();
    book.begin(1).unwrap();
    book.raise(1, Epoch(1), Lsn(90));
    for s in 2..=3 {
        book.begin(s).unwrap();
        book.settle(s, book.barrier(), Some(of(s, s * 10, "bag")));
    }
    assert_eq!(book.take_batch(1, 1, None).len(), 1);
    book.settle(1, 1, Some(of(1, 10, "bag")));
    for (s, table) in [(4, "other"), (5, "bag")] {
        book.begin(s).unwrap();
        book.settle(s, 0, Some(of(s, 100, table)));
    }
    assert_eq!(take(&book), [4], "1 stands before 2 in the order, but another lane has that in its hands");
    book.give_back(&[2]);
    assert_eq!(take(&book), [1, 2, 3, 5]);
    book.begin(6).unwrap();
    book.settle(6, 0, Some(Entry { changes: ddl("DROP INDEX i", true), ..entry(6, 5, &[]) }));
    assert!(take(&book).is_empty(), "it may reach any table");
    book.applied(&[1, 2, 3, 4, 5]);
    assert_eq!(take(&book), [6]);
    book.begin(7).unwrap();
    book.settle(7, 0, Some(of(7, 1, "bag")));
    assert!(take(&book).is_empty());
    book.applied(&[6]);
    assert_eq!(take(&book), [7]);
}

#[test]
fn what_runs_beside_waits_for_definitions_only_and_nothing_waits_for_it() {
    let t = relation("t");
    let book = book();
    book.begin_beside(1).unwrap();
    for s in 2..=6 {
        book.begin(s).unwrap();
    }
    let of = |s, changes| Entry { changes, ..entry(s, s * 10, &[]) };
    book.settle(2, 7, Some(of(2, Payload::memory(vec![row(&t, 1)]))));
    for s in 3..=6 {
        book.settle(s, 0, None);
    }
    assert_eq!(take(&book), [2], "an index that is built on the primary holds nothing back");
    book.settle(1, 0, Some(of(1, ddl("CREATE INDEX CONCURRENTLY ON t (v)", false))));
    for (s, sql) in [(7, "ALTER TABLE t ADD c int"), (8, "ALTER TABLE u ADD c int")] {
        book.begin(s).unwrap();
        book.settle(s, 0, Some(of(s, ddl(sql, true))));
    }
    book.begin(9).unwrap();
    book.settle(9, 0, Some(of(9, Payload::memory(vec![row(&relation("w"), 1)]))));
    assert_eq!(book.take_beside().map(|e| e.sequence), Some(1), "rows of its table don't matter");
    assert_eq!(book.take_beside(), None);
    assert_eq!(take(&book), [9], "7 waits for the index and for 2, 8 for 7: they may be relatives");
    book.applied(&[2, 9]);
    assert!(take(&book).is_empty());
    assert_eq!(book.applied_position().below, 1);
    book.applied(&[1]);
    assert_eq!(take(&book), [7]);
}

#[test]
fn what_is_held_waits_until_it_is_let_go_and_nothing_else_does() {
    let book = Arc::new(book());
    let mut sequence = 0;
    let mut settle = |changes| {
        sequence += 1;
        book.begin(sequence).unwrap();
        let new = Entry { changes, ..entry(sequence, sequence, &[]) };
        book.settle(sequence, 0, Some(new));
    };
    let of = |table: &str| Payload::memory(vec![row(&relation(table), 1)]);
    let mut coarse = (*relation("child")).clone();
    coarse.coarse = true;
    let coarse = Arc::new(coarse);
    let name = |table: &str| vec![QualifiedName::new("public", table)];

    let all = book.hold(&HoldOf::Everything);
    settle(of("u"));
    assert!(take(&book).is_empty());
    let one = book.hold(&HoldOf::Tables { tables: name("t"), relatives: false });
    drop(all);
    assert_eq!(take(&book), [1]);
    settle(of("t"));
    settle(of("u"));
    settle(Payload::memory(vec![row(&coarse, 1)]));
    let definitions = book.hold(&HoldOf::Definitions);
    settle(ddl("CREATE INDEX ON w (v)", true));
    settle(of("w"));
    settle(ddl("CREATE INDEX CONCURRENTLY ON t (v)", false));
    book.applied(&[1]);
    assert_eq!(take(&book), [3, 4], "6 waits for the definition");
    assert_eq!(book.take_beside(), None);
    book.applied(&[3, 4]);
    drop(definitions);
    assert_eq!(take(&book), [5]);
    assert_eq!(book.take_beside(), None, "its table is held");
    book.applied(&[5]);
    let relatives = book.hold(&HoldOf::Tables { tables: Vec::new(), relatives: true });
    settle(Payload::memory(vec![row(&coarse, 2)]));
    assert_eq!(take(&book), [6]);
    book.applied(&[6]);
    drop(relatives);
    assert_eq!(take(&book), [8]);
    drop(one);
    assert_eq!(take(&book), [2]);
    assert_eq!(book.take_beside().map(|e| e.sequence), Some(7));
}

#[tokio::test]
async fn waiting_for_the_drain_ends_when_all_before_is_applied() {
    let book = Arc::new(book());
    book.begin(1).unwrap();
    let mark = book.barrier();
    let waiting = tokio::spawn({
        let book = Arc::clone(&book);
        async move { book.wait_applied(mark).await }
    });
    book.settle(1, 0, Some(entry(1, 1, &[1])));
    book.begin(2).unwrap();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let batch = take(&book);
    book.applied(&batch);
    tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await.unwrap().unwrap();
}
