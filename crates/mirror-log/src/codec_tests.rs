use super::*;
use pgshadow_model::{Bound, Column, ColumnType, Parameter, RelationKind, Shape, SpilledPart};
use proptest::prelude::*;

fn relation(name: String, columns: usize) -> Arc<Relation> {
    let element = ColumnType { oid: 23, name: QualifiedName::new("pg_catalog", "int4"), shape: Shape::Plain };
    let array =
        ColumnType { oid: 1007, name: QualifiedName::new("x", "_int4"), shape: Shape::Array(Box::new(element)) };
    let column = |number| Column {
        name: format!("c{number}"),
        column_type: array.clone(),
        not_null: true,
        generated: false,
        identity_always: true,
    };
    Arc::new(Relation {
        oid: 70_000,
        name: QualifiedName::new("s", name),
        kind: RelationKind::Partitioned,
        columns: (0..columns).map(column).collect(),
        key: vec![0],
        unique_keys: vec![vec![1, 2]],
        foreign_keys: vec![pgshadow_model::ForeignKey { parent: QualifiedName::new("s", "p") }],
        coarse: true,
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn values() -> impl Strategy<Value = Values> {
    prop::collection::vec(prop::option::of(bytes()), 0..5)
}

fn settings() -> impl Strategy<Value = SessionSettings> {
    (".{0,9}", prop::collection::vec((".{0,5}", ".{0,5}"), 0..3)).prop_map(|(role, others)| SessionSettings {
        search_path: format!("{role}, public"),
        role,
        others,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let table = || ("[a-c]", 0..3usize).prop_map(|(name, columns)| relation(name, columns));
    let operation = prop_oneof![Just(Operation::Insert), Just(Operation::Delete), Just(Operation::Upsert)];
    prop_oneof![
        4 => (table(), operation, values(), prop::option::of(values())).prop_map(
            |(relation, operation, values, old_key)| Change::Row(RowImage { relation, operation, values, old_key })
        ),
        1 => (table(), ".{0,9}", settings(), prop::collection::vec(bytes(), 0..4), any::<Option<u64>>()).prop_map(
            |(relation, sql, settings, data, rows)| Change::Copy(CopyData { relation, sql, settings, data, rows })
        ),
        1 => (".{0,9}", settings()).prop_map(|(sql, settings)| {
            let tables = vec![QualifiedName::new("s", sql.clone())];
            Change::Truncate(Truncate { tables, sql, settings })
        }),
        1 => statement(),
        1 => (".{0,9}", settings(), any::<bool>())
            .prop_map(|(sql, settings, in_transaction)| Change::Ddl(DdlStatement { sql, settings, in_transaction })),
    ]
}

fn statement() -> impl Strategy<Value = Change> {
    let parameter = (any::<bool>(), prop::option::of(bytes())).prop_map(|(binary, value)| Parameter { binary, value });
    let bound = (prop::collection::vec(any::<u32>(), 0..3), prop::collection::vec(parameter, 0..3))
        .prop_map(|(types, parameters)| Bound { types, parameters });
    (".{0,9}", settings(), prop::option::of(bound), any::<(u64, Option<u64>, u64)>()).prop_map(
        |(sql, settings, bound, (rows, returned, elapsed_micros))| {
            Change::Statement(Box::new(Statement { sql, settings, bound, rows, returned, elapsed_micros }))
        },
    )
}

fn changes() -> impl Strategy<Value = Changes> {
    (prop::option::of(spilled()), prop::collection::vec(change(), 0..6))
        .prop_map(|(spilled, rest)| Changes { spilled, rest })
}

fn spilled() -> impl Strategy<Value = Spilled> {
    let part = any::<(u64, u32, u32)>();
    let part = part.prop_map(|(offset, length, changes)| SpilledPart { offset, length, changes });
    let table = prop::option::of(".{1,5}".prop_map(|name| QualifiedName::new("s", name)));
    (any::<(u64, bool)>(), prop::collection::vec(part, 1..4), prop::collection::btree_set(table, 0..3))
        .prop_map(|((file, defines), parts, tables)| Spilled { file, parts, tables, defines })
}

fn suspects() -> impl Strategy<Value = Vec<Suspect>> {
    let table = prop::option::of(".{1,5}".prop_map(|name| QualifiedName::new("s", name)));
    prop::collection::vec((table, ".{0,9}").prop_map(|(table, reason)| Suspect { table, reason }), 0..3)
}

fn intent() -> impl Strategy<Value = Intent> {
    let numbers = (any::<u32>(), any::<i32>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<bool>());
    (numbers, bytes(), changes(), suspects(), prop::option::of(".{0,9}")).prop_map(
        |((epoch, pid, xid, token, may_write_any), cancel_key, changes, suspects, prepared)| Intent {
            epoch: Epoch(epoch),
            backend: Backend { pid, cancel_key },
            xid: xid.map(Xid),
            token: token.map(Lsn),
            changes,
            may_write: suspects.iter().filter_map(|s| s.table.clone()).collect(),
            may_write_any,
            suspects,
            prepared,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let order = any::<Option<(u32, u64, u64)>>();
    let committed =
        (any::<(u64, bool)>(), order, changes(), suspects()).prop_map(|((of, flushed), order, changes, suspects)| {
            let order =
                order.map(|(epoch, token, xid)| Order { epoch: Epoch(epoch), token: Lsn(token), xid: Xid(xid) });
            Record::Outcome { of, flushed, outcome: Outcome::Committed { order, changes, suspects } }
        });
    prop_oneof![
        3 => intent().prop_map(Record::Intent),
        3 => committed,
        1 => any::<u64>().prop_map(|of| Record::Outcome { of, flushed: false, outcome: Outcome::Aborted }),
        1 => suspects().prop_map(Record::Suspects),
        1 => suspects().prop_map(|s| Record::SuspectsCleared(s.into_iter().filter_map(|s| s.table).collect())),
        1 => (any::<u32>(), ".{0,20}")
            .prop_map(|(epoch, fingerprint)| Record::Epoch { epoch: Epoch(epoch), fingerprint }),
        1 => any::<u64>().prop_map(|below| Record::Applied { below }),
    ]
}

/// A payload with all its definitions, and the table of a reader.
fn payload(encoded: &Encoded) -> (Bytes, Relations) {
    let mut payload = encoded.definitions(&Relations::new()).unwrap();
    payload.extend_from_slice(&encoded.body);
    let relations = definitions(&payload).unwrap().into_iter().map(|(id, r)| (id, Arc::new(r))).collect();
    (Bytes::from(payload), relations)
}

proptest! {
    #[test]
    fn every_record_comes_back(record in record()) {
        let encoded = encode(&record, &mut Interner::default()).unwrap();
        let (payload, relations) = payload(&encoded);
        prop_assert_eq!(decode(encoded.kind, &payload, &relations).unwrap(), record);
    }

    #[test]
    fn no_bytes_make_decoding_panic(kind in 0..10u32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let payload = Bytes::from(bytes);
        let _any = definitions(&payload);
        let _any = decode(kind, &payload, &Relations::new());
    }

    #[test]
    fn changes_come_back_without_any_segment(changes in prop::collection::vec(change(), 0..9)) {
        let content = Bytes::from(encode_changes(&changes).unwrap());
        prop_assert_eq!(decode_changes(&content).unwrap(), changes);
    }

    #[test]
    fn a_cut_record_is_an_error(record in record(), share in 0.0..1.0f64) {
        let encoded = encode(&record, &mut Interner::default()).unwrap();
        let (payload, relations) = payload(&encoded);
        let cut = payload.slice(..(payload.len() as f64 * share) as usize);
        prop_assert!(decode(encoded.kind, &cut, &relations).is_err());
    }
}

#[test]
fn rows_share_one_definition_and_one_relation() {
    let table = relation("wide".to_owned(), 50);
    let row = |relation: &Arc<Relation>| {
        let values = vec![Some(Bytes::from_static(b"v"))];
        Change::Row(RowImage { relation: Arc::clone(relation), operation: Operation::Insert, values, old_key: None })
    };
    // The second half names an equal relation at another address, as after a refresh of the catalog.
    let again = relation("wide".to_owned(), 50);
    let changes: Vec<_> = (0..100).map(|n| row(if n < 50 { &table } else { &again })).collect();
    let record = Record::Outcome {
        of: 1,
        flushed: true,
        outcome: Outcome::Committed { order: None, changes: changes.into(), suspects: vec![] },
    };
    let encoded = encode(&record, &mut Interner::default()).unwrap();
    assert_eq!(encoded.relations.len(), 1);
    assert!(encoded.body.len() < 100 * 9, "{}", encoded.body.len());
    let (payload, relations) = payload(&encoded);
    let Record::Outcome { outcome: Outcome::Committed { changes, .. }, .. } =
        decode(encoded.kind, &payload, &relations).unwrap()
    else {
        panic!("another kind of record");
    };
    let inside = payload.as_ptr_range();
    for change in &changes.rest {
        let Change::Row(row) = change else { panic!("another kind of change") };
        assert!(Arc::ptr_eq(&row.relation, &relations[&1]));
        assert!(inside.contains(&row.values[0].as_ref().unwrap().as_ptr()), "a value is a slice of the payload");
    }
}

#[test]
fn a_relation_that_the_segment_lacks_is_an_error() {
    let table = relation("t".to_owned(), 1);
    let row = RowImage { relation: table, operation: Operation::Insert, values: vec![], old_key: None };
    let changes = vec![Change::Row(row)];
    let record = Record::Outcome {
        of: 1,
        flushed: true,
        outcome: Outcome::Committed { order: None, changes: changes.into(), suspects: vec![] },
    };
    let encoded = encode(&record, &mut Interner::default()).unwrap();
    let (payload, _) = payload(&encoded);
    assert!(matches!(decode(encoded.kind, &payload, &Relations::new()), Err(DecodeError::Relation(1))));
}
