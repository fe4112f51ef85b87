//! Which transactions may be applied in any order, rule by rule.

use crate::units::{HeldUnits, Units};
use bytes::Bytes;
use pgshadow_model::{
    Change, Column, ColumnType, DdlStatement, ForeignKey, Operation, QualifiedName, Relation, RelationKind, RowImage,
    SessionSettings, Shape, Truncate,
};
use std::sync::Arc;

use Operation::{Delete, Insert, Update, Upsert};

fn table(name: &str, key_type: (&str, &str)) -> Relation {
    let column = |name: &str| {
        let column_type = ColumnType { oid: 0, name: QualifiedName::new(key_type.0, key_type.1), shape: Shape::Plain };
        Column { name: name.into(), column_type, not_null: true, generated: false, identity_always: false }
    };
    Relation {
        oid: 0,
        name: QualifiedName::new("public", name),
        kind: RelationKind::Table,
        columns: vec![column("k"), column("u")],
        key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        coarse: false,
    }
}

fn int4(name: &str) -> Relation {
    table(name, ("pg_catalog", "int4"))
}

fn row(relation: &Relation, operation: Operation, key: &'static str, other: &'static str) -> Change {
    let value = |text: &'static str| (text != "NULL").then(|| Bytes::from_static(text.as_bytes()));
    let relation = Arc::new(relation.clone());
    Change::Row(RowImage { relation, operation, values: vec![value(key), value(other)], old_key: None })
}

fn ddl(sql: &str) -> Change {
    let in_transaction = !sql.contains("CONCURRENTLY");
    Change::Ddl(DdlStatement { sql: sql.into(), settings: SessionSettings::default(), in_transaction })
}

/// Whether the order of these two matters; it must not matter which comes first.
#[track_caller]
fn conflict(a: &Change, b: &Change) -> bool {
    let one_way = |a: &Change, b: &Change| {
        let mut held = HeldUnits::default();
        held.hold(&Units::of(std::slice::from_ref(a)));
        held.conflict(&Units::of(std::slice::from_ref(b)))
    };
    assert_eq!(one_way(a, b), one_way(b, a));
    one_way(a, b)
}

#[test]
fn keys_that_may_be_equal_without_equal_bytes_conflict() {
    let new = |relation: &Relation, key| row(relation, Insert, key, "x");
    for exact in ["int4", "text", "uuid"] {
        let t = table("t", ("pg_catalog", exact));
        assert!(conflict(&new(&t, "1"), &new(&t, "1")) && !conflict(&new(&t, "1"), &new(&t, "2")), "{exact}");
    }
    for inexact in [("pg_catalog", "numeric"), ("pg_catalog", "float8"), ("public", "citext"), ("x", "int4")] {
        let t = table("t", inexact);
        assert!(conflict(&new(&t, "1.0"), &new(&t, "1.00")), "{inexact:?}");
        assert!(!conflict(&new(&t, "1.0"), &new(&table("u", inexact), "1.0")), "{inexact:?}");
    }
    let padded = table("t", ("pg_catalog", "bpchar"));
    assert!(conflict(&new(&padded, "a"), &new(&padded, "a  ")) && !conflict(&new(&padded, "a"), &new(&padded, "b")));
}

#[test]
fn a_changed_key_is_both_keys() {
    let t = int4("t");
    let Change::Row(mut image) = row(&t, Update, "2", "x") else { unreachable!() };
    image.old_key = Some(vec![Some(Bytes::from_static(b"1"))]);
    let moved = Change::Row(image);
    for (key, conflicts) in [("1", true), ("2", true), ("3", false)] {
        assert_eq!(conflict(&moved, &row(&t, Update, key, "x")), conflicts, "{key}");
    }
}

#[test]
fn unique_values_conflict_and_an_update_may_free_any() {
    let t = Relation { unique_keys: vec![vec![1]], ..int4("t") };
    assert!(conflict(&row(&t, Delete, "1", "u"), &row(&t, Insert, "2", "u")), "the value is freed and taken");
    assert!(!conflict(&row(&t, Delete, "1", "u"), &row(&t, Insert, "2", "w")));
    assert!(!conflict(&row(&t, Insert, "1", "NULL"), &row(&t, Insert, "2", "NULL")));
    for operation in [Update, Upsert] {
        assert!(conflict(&row(&t, operation, "1", "u"), &row(&t, Insert, "2", "w")), "{operation:?} may have freed it");
    }
    let plain = int4("t");
    assert!(!conflict(&row(&plain, Update, "1", "u"), &row(&plain, Insert, "2", "w")));
}

#[test]
fn rows_without_a_key_wait_only_for_those_who_look_for_equals() {
    let bag = Relation { key: vec![], ..int4("bag") };
    assert!(!conflict(&row(&bag, Insert, "1", "x"), &row(&bag, Insert, "1", "x")));
    assert!(conflict(&row(&bag, Insert, "1", "x"), &row(&bag, Delete, "2", "x")));
    assert!(conflict(&row(&bag, Delete, "1", "x"), &row(&bag, Update, "2", "x")));
    // a unique key that may be NULL is no key, but unique it is
    let unique = Relation { unique_keys: vec![vec![1]], ..bag };
    assert!(conflict(&row(&unique, Insert, "1", "u"), &row(&unique, Insert, "2", "u")));
    assert!(!conflict(&row(&unique, Insert, "1", "u"), &row(&unique, Insert, "2", "w")));
}

#[test]
fn tables_with_relatives_conflict_with_each_other() {
    let other = int4("other");
    let child =
        Relation { foreign_keys: vec![ForeignKey { parent: QualifiedName::new("public", "parent") }], ..int4("child") };
    let parent = Relation { coarse: true, ..int4("parent") };
    let root = Relation { kind: RelationKind::Partitioned, ..int4("root") };
    for a in [&child, &parent, &root] {
        for b in [&child, &parent, &root] {
            assert!(conflict(&row(a, Insert, "1", "x"), &row(b, Delete, "2", "x")), "{} {}", a.name, b.name);
        }
        assert!(!conflict(&row(a, Insert, "1", "x"), &row(&other, Insert, "1", "x")), "{}", a.name);
        assert!(conflict(&row(a, Insert, "1", "x"), &ddl("ALTER TABLE other ADD c int")), "it may be a relative");
    }
}

#[test]
fn statements_conflict_with_their_tables() {
    let (t, u) = (int4("t"), int4("u"));
    let truncate = Change::Truncate(Truncate {
        tables: vec![t.name.clone()],
        sql: "TRUNCATE t".into(),
        settings: SessionSettings::default(),
    });
    for statement in [truncate, ddl("ALTER TABLE t ADD c int"), ddl("CREATE INDEX ON t (c)"), ddl("DROP TABLE t")] {
        assert!(conflict(&statement, &row(&t, Insert, "1", "x")), "{statement:?}");
        assert!(!conflict(&statement, &row(&u, Insert, "1", "x")), "{statement:?}");
        assert!(conflict(&statement, &ddl("DROP INDEX i")), "{statement:?}");
    }
    assert!(conflict(&ddl("ALTER TABLE t RENAME TO u"), &row(&u, Insert, "1", "x")));
    assert!(conflict(&ddl("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"), &row(&t, Insert, "1", "x")));
}

#[test]
fn an_index_that_is_built_concurrently_conflicts_with_definitions_only() {
    let (t, build) = (int4("t"), ddl("CREATE INDEX CONCURRENTLY i ON t (c)"));
    assert!(!conflict(&build, &row(&t, Insert, "1", "x")));
    assert!(conflict(&build, &ddl("ALTER TABLE t ADD c int")) && conflict(&build, &ddl("DROP INDEX i")));
    assert!(!conflict(&build, &ddl("ALTER TABLE u ADD c int")));
    let drop = ddl("DROP INDEX CONCURRENTLY i");
    assert!(!conflict(&drop, &row(&t, Insert, "1", "x")), "what it frees is waited for where it is missed");
    assert!(conflict(&drop, &build) && conflict(&drop, &ddl("ALTER TABLE u ADD c int")));
    assert!(Units::of(&[build]).is_added_beside() && !Units::of(&[drop]).is_added_beside());
}
