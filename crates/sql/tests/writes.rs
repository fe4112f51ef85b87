//! What is read out of INSERT, UPDATE and DELETE.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{Fixed, OnConflict, StatementKind as Kind, Write, parse};

fn write(text: &str) -> Write {
    let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match parsed.statements[0].kind.clone() {
        Kind::Insert(write) | Kind::Update(write) | Kind::Delete(write) => write,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn targets() {
    for (text, schema, name, alias, only) in [
        ("insert into t values (1)", None, "t", None, false),
        ("insert into S.\"T\" as x values (1)", Some("s"), "T", Some("x"), false),
        ("insert into db.s.t values (1)", Some("s"), "t", None, false),
        ("update t u set a = 1", None, "t", Some("u"), false),
        ("update only s.t set a = 1", Some("s"), "t", None, true),
        ("update t * as \"Ü\" set a = 1", None, "t", Some("Ü"), false),
        ("delete from only (t) as d using u", None, "t", Some("d"), true),
    ] {
        let target = write(text).target;
        assert_eq!(
            (target.schema.as_deref(), target.name.as_str(), target.alias.as_deref(), target.only),
            (schema, name, alias, only),
            "{text}"
        );
    }
}

#[test]
fn returning_lists() {
    for (text, returning, columns, targets, relations) in [
        ("delete from t", false, 0, 0, ""),
        ("delete from t returning a, b + 1 as c", true, 2, 0, ""),
        ("delete from t returning *", true, 0, 1, ""),
        ("delete from s.t returning a, t.*, s.t.*, db.s.t.*", true, 1, 3, ""),
        ("delete from t x returning x.*, count(*)", true, 1, 1, ""),
        ("delete from t returning row(t.*), t", true, 2, 0, ""),
        ("insert into t select * from u returning *, t.*", true, 0, 2, ""),
        ("update t set a = 1 returning with (old as o) o.a, o.*, new.*", true, 1, 2, ""),
        ("update t set a = 1 from u, s.v as w returning *, w.*", true, 0, 1, "u v v"),
        ("delete from t using u left join v x using (a), only w returning *", true, 0, 1, "u v w"),
        ("delete from t using (u join v on true) as j returning j.*", true, 0, 0, "u v"),
        ("update t set a = 1 from s.u, u x returning s.u.*, x.*", true, 0, 0, "u u"),
        ("update t set a = 1 from (values (1, 2), (3, 4)) v, (select 1, b from c) w returning *", true, 4, 1, ""),
        ("with u as (select 1, * from v) update t set a = 1 from u, s.u as x returning *", true, 1, 1, "v u"),
        ("update t set a = 1 from (select 1 union all select * from u) v returning *", true, 1, 1, ""),
    ] {
        let write = write(text);
        let names: Vec<_> = write.returned.relations.iter().map(|relation| relation.name.as_str()).collect();
        let found = (write.returning, write.returned.columns, write.returned.targets, names.join(" "));
        assert_eq!(found, (returning, columns, targets, relations.to_owned()), "{text}");
        assert!(!write.returned.uncounted, "{text}");
    }
    for text in [
        "delete from t returning (t).*",
        "delete from t returning u.*",
        "delete from t using f() returning *",
        "with recursive u as (select * from u) delete from t using u returning *",
        "with u as (delete from v returning *) delete from t using u returning *",
        "delete from t using (with u as (select 1) select * from u) v returning *",
    ] {
        assert!(write(text).returned.uncounted, "{text}");
    }
}

#[test]
fn columns_and_conflicts() {
    let upsert = write(
        "insert into t (a, b, c.d) overriding system value values (1, $2, 3), (4, 5, 6)
         on conflict (a) where b > 0 do update set (b, e) = (excluded.b, 1), f[1] = 2, b2 = 3 where t.b < 9",
    );
    assert_eq!(upsert.insert_columns, ["a", "b", "c"]);
    assert_eq!(upsert.assigned, ["b", "e", "f", "b2"]);
    assert_eq!((upsert.on_conflict, upsert.overriding, upsert.rows_values), (OnConflict::Update, true, Some(2)));
    assert!(upsert.fixed.is_empty());
    let nothing = write("insert into t default values on conflict do nothing");
    assert_eq!((nothing.on_conflict, nothing.overriding, nothing.rows_values), (OnConflict::Nothing, false, Some(1)));
    assert!(nothing.insert_columns.is_empty());
    assert_eq!(write("insert into t select 1").rows_values, None);
    assert_eq!(write("insert into t values (1) union values (2)").rows_values, None);
    assert_eq!(write("insert into t (values (1), (2), (3))").rows_values, Some(3));
    assert!(write("insert into t overriding user value select 1").overriding);
    let update = write("update t set a = 1, (b, c) = (select 1, 2), \"D\" = default, e.f = 1");
    assert_eq!(update.assigned, ["a", "b", "c", "D", "e"]);
    assert!(write("delete from t where current of c").current_of);
    assert!(!write("delete from t where a = 1").current_of);
}

#[test]
fn writes_elsewhere() {
    let text = "with a as (insert into x values (1) returning *), b as (delete from y using a returning *)
                update t set v = (select count(*) from b) where id in (select id from a)";
    let names: Vec<_> = write(text).writes_in_with.into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["x", "y"]);
    // The same table as the target, and one CTE twice.
    let text = "with a as (delete from t returning *), b as (delete from t returning *) insert into t select * from a";
    assert_eq!(write(text).writes_in_with.len(), 1);
    assert!(write("update t set a = 1 from u").writes_in_with.is_empty());
}

fn fixed(text: &str) -> Vec<(String, String)> {
    let show = |value| match value {
        Fixed::Parameter(number) => format!("${number}"),
        Fixed::Literal(text) => text,
    };
    write(text).fixed.into_iter().map(|(column, value)| (column, show(value))).collect()
}

#[test]
fn fixed_by_where() {
    let cases: [(&str, &[(&str, &str)]); 26] = [
        ("id = 5", &[("id", "5")]),
        ("5 = id", &[("id", "5")]),
        ("id = -5 and b = 'x' and (c = $2 and d = true)", &[("id", "-5"), ("b", "x"), ("c", "$2"), ("d", "true")]),
        ("t.id = $1", &[("id", "$1")]),
        ("s.t.id = $1", &[("id", "$1")]),
        ("u.id = $1", &[]),
        ("other.t.id = $1", &[]),
        ("id = $1::uuid", &[("id", "$1")]),
        ("id = cast('5' as bigint)", &[("id", "5")]),
        ("id = 12345678901::int8", &[("id", "12345678901")]),
        ("id = 1.5::int", &[]),
        ("id = '1.5'::numeric(3,0)", &[]),
        ("id = $1::varchar(3)", &[]),
        ("id = 'abc'::char(2)", &[]),
        ("id = '1'::text::int", &[]),
        ("d = '2026-01-02'::date", &[("d", "2026-01-02")]),
        ("d = '2026-01-02 10:00'::date", &[]),
        ("d = 'now'", &[]),
        ("d = 'snow'", &[("d", "snow")]),
        ("id = 5 or b = 6", &[]),
        ("not (id = 5)", &[]),
        ("id <> 5 and id > 5 and id is not distinct from 5 and id in (5) and id = any('{5}')", &[]),
        ("id = null", &[]),
        ("id = b and id = f(1) and id = 1 + 1 and (id, b) = (1, 2)", &[]),
        ("id operator(pg_catalog.=) 5 and id operator(x.=) 6", &[("id", "5")]),
        ("a[1] = 5 and (c).f = 6 and lower(b) = 'x'", &[]),
    ];
    for (condition, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|&(column, value)| (column.to_owned(), value.to_owned())).collect();
        for text in [format!("update s.t set x = 1 where {condition}"), format!("delete from s.t where {condition}")] {
            assert_eq!(fixed(&text), expected, "{text}");
        }
    }
    let joined = "update s.t as x set v = 1 from u where id = 5 and x.k = 6 and u.k = 7 and t.k = 8 and s.t.k = 9";
    assert_eq!(fixed(joined), [("k".to_owned(), "6".to_owned())]);
    assert!(fixed("update t set a = 1").is_empty());
}

#[test]
fn fixed_by_values() {
    let pair = |column: &str, value: &str| (column.to_owned(), value.to_owned());
    assert_eq!(
        fixed("insert into t (a, b, c, d, e, f[1]) values (1, $2, default, now(), 'x', 7)"),
        [pair("a", "1"), pair("b", "$2"), pair("e", "x")]
    );
    assert!(fixed("insert into t (a) values (1), (2)").is_empty());
    assert!(fixed("insert into t values (1)").is_empty());
    assert!(fixed("insert into t (a) select 1").is_empty());
    assert_eq!(fixed("insert into t (a, b) values (null, 2)"), [pair("b", "2")]);
}

#[test]
fn conditions_of_constants() {
    for (condition, constant) in [
        ("id = 5 and p = 'b'::text", true),
        ("p in ('a', 'b') or not (id between 2 and 7)", true),
        ("n % 5 = 3 and (id * 2) + 1 > n", true),
        ("p is null and done and id = any (array[1, 2]) and p like 'a%'", true),
        ("current of c", true),
        ("id = $1", false),
        ("id = 5 and n = $1", false),
        ("id in (1, $2)", false),
        ("p = current_user", false),
        ("p = lower('A')", false),
        ("at > now()", false),
        ("at > 'now'", false),
        ("at = '2026-01-01'::timestamptz", false),
        ("p = 'a' || 1", false),
        ("p = s || ('a' || 1)", false),
        ("p = (select 'a')", false),
        ("exists (select from u)", false),
    ] {
        let text = format!("update t set p = $9, s = f() where {condition} returning now()");
        assert_eq!(write(&text).constant_condition, constant, "{text}");
    }
    assert!(write("update t set p = 'a'").constant_condition);
    assert!(!write("update t set p = 'a' from u where t.id = 5").constant_condition);
}
