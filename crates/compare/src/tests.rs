use crate::*;
use bytes::Bytes;
use pgshadow_model::{
    Cause, Column, ColumnType, Kind, Operation, QualifiedName, Relation, RelationKind, RowImage, Shape,
};
use std::sync::Arc;

fn builtin(name: &str) -> QualifiedName {
    QualifiedName::new("pg_catalog", name)
}

fn image(operation: Operation, types: &[&str]) -> RowImage {
    let columns = types.iter().enumerate().map(|(i, t)| Column {
        name: format!("c{i}"),
        column_type: ColumnType { oid: 1, name: builtin(t), shape: Shape::Plain },
        not_null: false,
        generated: false,
        identity_always: false,
    });
    let relation = Relation {
        oid: 1,
        name: QualifiedName::new("public", "t"),
        kind: RelationKind::Table,
        columns: columns.collect(),
        key: vec![0],
        unique_keys: vec![],
        foreign_keys: vec![],
        coarse: false,
    };
    let values = vec![Some(Bytes::new()); types.len()];
    RowImage { relation: Arc::new(relation), operation, values, old_key: None }
}

fn texts(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

/// The verdict on one column beside the key.
fn value_verdict(primary_type: &str, shadow: ShadowColumn, primary: &str, on_shadow: &str) -> Verdict {
    let key = ShadowColumn { type_name: builtin("int4"), typmod: -1, generated: false };
    let (p, s, columns) = (texts(&["1", primary]), texts(&["1", on_shadow]), [Some(key), Some(shadow)]);
    let seen = Seen { rows: 1, primary: Some(&p), shadow: Some(&s), columns: &columns, ..Seen::default() };
    judge(&image(Operation::Insert, &["int4", primary_type]), &seen).unwrap()
}

fn of_type(name: &str, typmod: i32) -> ShadowColumn {
    ShadowColumn { type_name: builtin(name), typmod, generated: false }
}

#[test]
fn a_row_that_fits_is_no_finding() {
    let seen = Seen { rows: 1, equal: true, ..Seen::default() };
    assert_eq!(judge(&image(Operation::Update, &["int4"]), &seen), None);
}

#[test]
fn a_row_that_is_not_there_was_written_behind_unless_triggers_ran() {
    let seen = Seen::default();
    let verdict = judge(&image(Operation::Delete, &["int4"]), &seen).unwrap();
    assert_eq!((verdict.kind, verdict.cause), (Kind::MissingRow, Cause::WrittenBehind));
    let seen = Seen { triggers_ran: true, ..Seen::default() };
    assert_eq!(judge(&image(Operation::Update, &["int4"]), &seen).unwrap().cause, Cause::Unknown);
}

#[test]
fn a_taken_key_is_an_extra_row_and_another_constraint_is_not() {
    let mut error = ShadowError { sqlstate: "23505".into(), message: "duplicate".into(), own_key_taken: true };
    let verdict = |e: &ShadowError| {
        judge(&image(Operation::Insert, &["int4"]), &Seen { error: Some(e), ..Seen::default() }).unwrap()
    };
    assert_eq!((verdict(&error).kind, verdict(&error).cause), (Kind::ExtraRow, Cause::WrittenBehind));
    error.own_key_taken = false;
    assert_eq!((verdict(&error).kind, verdict(&error).cause), (Kind::ErrorShadowOnly, Cause::Constraint));
    error.sqlstate = "42P01".into();
    assert_eq!(verdict(&error).kind, Kind::Schema);
}

#[test]
fn a_value_that_the_type_explains_has_that_cause() {
    let scale_2 = (10 << 16 | 2) + 4;
    let cases = [
        ("numeric", of_type("numeric", scale_2), "1.005", "1.01", Cause::Type),
        ("numeric", of_type("numeric", scale_2), "1", "1.00", Cause::Type),
        ("numeric", of_type("numeric", scale_2), "1.50", "2.50", Cause::Unknown),
        ("numeric", of_type("numeric", -1), "1.5", "1.50", Cause::Unknown),
        ("bpchar", of_type("bpchar", 9), "ab", "ab   ", Cause::Type),
        ("timestamp", of_type("timestamp", 0), "2026-01-01 00:00:00.123", "2026-01-01 00:00:00", Cause::Type),
        ("float8", of_type("float4", -1), "0.1234567890123", "0.12345679", Cause::Type),
        ("text", of_type("text", -1), "a", "b", Cause::Unknown),
    ];
    for (primary_type, shadow, p, s, cause) in cases {
        let verdict = value_verdict(primary_type, shadow, p, s);
        assert_eq!(
            (verdict.kind, verdict.cause, verdict.columns),
            (Kind::Value, cause, vec!["c1".to_owned()]),
            "{p} {s}"
        );
    }
}

#[test]
fn keys_and_rows_are_shown_by_column() {
    let image = image(Operation::Insert, &["int4", "text"]);
    let row = [Some("1".to_owned()), None];
    assert_eq!(describe_key(&image.relation, &row), "c0=1");
    assert_eq!(describe_row(&image.relation, &[], &row), "c0=1, c1=NULL");
    assert_eq!(describe_row(&image.relation, &["c1".to_owned()], &row), "c1=NULL");
}

#[test]
fn fingerprints_never_change_and_tell_parts_apart() {
    let table = QualifiedName::new("public", "t");
    let of = |columns: &[String]| fingerprint(Kind::Value, Some(&table), columns, None);
    assert_eq!(of(&["a".into(), "b".into()]), of(&["a".into(), "b".into()]));
    assert_ne!(of(&["a".into(), "b".into()]), of(&["ab".into()]));
    assert_eq!(fingerprint(Kind::MissingRow, None, &[], Some("23505")), "646b174bf6a64fcc");
}
