//! Every function called, wherever it stands.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{FunctionName, parse};

fn functions(text: &str) -> Vec<FunctionName> {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).statements[0].functions.clone()
}

/// Each place holds a call of `hidden()`.
const PLACES: [&str; 78] = [
    "select hidden()",
    "select case when hidden() then 1 end",
    "select case when true then hidden() end",
    "select case hidden() when 1 then 1 end",
    "select case when true then 1 else hidden() end",
    "select coalesce(a, hidden())",
    "select greatest(1, hidden())",
    "select nullif(1, hidden())",
    "select array[1, hidden()]",
    "select (array[1,2])[hidden()]",
    "select a[1:hidden()] from t",
    "select row(1, hidden())",
    "select (hidden()).x",
    "select hidden()::int",
    "select hidden() collate \"C\"",
    "select not hidden()",
    "select - hidden()",
    "select 1 + (2 * hidden())",
    "select hidden() is null",
    "select hidden() is true",
    "select 1 in (1, hidden())",
    "select 1 between 0 and hidden()",
    "select 'a' like hidden() escape 'b'",
    "select 1 = any(hidden())",
    "select exists(select 1 where hidden())",
    "select array(select hidden())",
    "select (select hidden())",
    "select 1 in (select hidden())",
    "select (1, 2) = (select 1, hidden())",
    "select * from hidden()",
    "select * from hidden() with ordinality as f(a, b)",
    "select * from rows from (hidden(), generate_series(1, 2)) x",
    "select * from lateral (select hidden()) x",
    "select * from t tablesample system (hidden())",
    "select * from t tablesample system (1) repeatable (hidden())",
    "select * from a join b on hidden()",
    "select * from a left join (select hidden()) b using (x)",
    "select * from xmltable('/a' passing hidden() columns b int path 'b')",
    "select * from xmltable('/a' passing x columns b int path 'b' default hidden())",
    "select * from json_table(hidden(), '$' columns (a int path '$')) j",
    "select * from json_table('{}', '$' passing hidden() as x columns (a int path '$')) j",
    "select json_value('{}', '$' default hidden() on empty)",
    "select json_object('a': hidden())",
    "select json_array(hidden())",
    "select json_arrayagg(hidden())",
    "select xmlelement(name a, hidden())",
    "select xmlserialize(content hidden() as text)",
    "select 1 where hidden()",
    "select 1 group by hidden()",
    "select 1 group by grouping sets ((a, hidden()))",
    "select 1 group by a having hidden()",
    "select 1 order by hidden()",
    "select 1 limit hidden()",
    "select 1 offset hidden()",
    "select distinct on (hidden()) 1",
    "select sum(1) over (partition by hidden())",
    "select sum(1) over w from t window w as (order by hidden())",
    "select sum(1) over (rows hidden() preceding)",
    "select sum(1) filter (where hidden())",
    "select array_agg(a order by hidden())",
    "select percentile_cont(0.5) within group (order by hidden())",
    "select f(a => hidden())",
    "select f(variadic hidden())",
    "select 1 union select 2 union select hidden()",
    "values (1), (hidden())",
    "with x as materialized (select hidden()) select 1",
    "with recursive x as (select 1 union all select hidden() from x) search depth first by a set b select 1",
    "insert into t values (hidden())",
    "insert into t select hidden()",
    "insert into t (a[hidden()]) values (1)",
    "insert into t values (1) on conflict (hidden()) do nothing",
    "insert into t values (1) on conflict (a) where hidden() do update set b = 1",
    "insert into t values (1) on conflict (a) do update set b = hidden()",
    "insert into t values (1) on conflict (a) do update set b = 1 where hidden()",
    "insert into t values (1) returning hidden()",
    "update t set a = 1, (b, c) = (select 1, hidden())",
    "update t set (b, c) = row(1, hidden())",
    "update t set a = 1 from (select hidden()) x",
];

const MORE_PLACES: [&str; 38] = [
    "update t set a[hidden()] = 1",
    "update t set a = 1 where hidden()",
    "update t set a = 1 returning with (old as o) o.a, hidden()",
    "delete from t using hidden() x",
    "delete from t where a in (select hidden())",
    "delete from t returning hidden()",
    "with x as (delete from t returning hidden()) insert into u select * from x",
    "merge into t using (select hidden()) s on true when matched then delete",
    "merge into t using s on hidden() when matched then delete",
    "merge into t using s on true when matched and hidden() then delete",
    "merge into t using s on true when matched then update set a = hidden()",
    "merge into t using s on true when not matched then insert values (hidden())",
    "merge into t using s on true when matched then delete returning hidden()",
    "copy (select hidden()) to stdout",
    "copy t from stdin where hidden()",
    "call hidden()",
    "call p(hidden())",
    "execute p(hidden())",
    "explain select hidden()",
    "prepare p as select hidden()",
    "declare c cursor with hold for select hidden()",
    "create table t as select hidden()",
    "create table t (a int default hidden())",
    "create table t (a int check (hidden()))",
    "create table t (a int generated always as (hidden()) stored)",
    "create table t (a int) partition by list (hidden())",
    "create table t partition of p for values in (hidden())",
    "alter table t add a int default hidden()",
    "alter table t alter a type int using hidden()",
    "alter table t alter a set default hidden()",
    "create index on t (hidden())",
    "create index on t (a) where hidden()",
    "create materialized view v as select hidden()",
    "create rule r as on insert to t do also select hidden()",
    "create policy p on t using (hidden())",
    "create trigger g before insert on t for each row when (hidden()) execute function f()",
    "create function f() returns int return hidden()",
    "create domain d as int check (hidden())",
];

#[test]
fn none_is_missed() {
    for text in PLACES.iter().chain(&MORE_PLACES) {
        let found = functions(text);
        assert!(
            found.iter().any(|function| function.name == "hidden" && function.schema.is_none()),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn names() {
    let name =
        |schema: Option<&str>, name: &str| FunctionName { schema: schema.map(str::to_owned), name: name.to_owned() };
    assert_eq!(
        functions("select F(1), S.g(f(2)), \"S\".\"G\"(), db.s.h(), f(3)"),
        [name(None, "f"), name(Some("s"), "g"), name(Some("S"), "G"), name(Some("s"), "h")]
    );
    // Grammar that is a call of a function of the server.
    assert_eq!(functions("select extract(year from d)"), [name(Some("pg_catalog"), "extract")]);
    assert_eq!(functions("select d at time zone 'UTC'"), [name(Some("pg_catalog"), "timezone")]);
    // No calls.
    assert!(functions("select a + b, a::int, 'f()', \"f()\", count from f /* f() */").is_empty());
    assert!(functions("create trigger g before insert on t execute function f()").is_empty());
}

#[test]
fn value_functions() {
    for (text, expected) in [
        ("select current_timestamp", true),
        ("update t set a = current_user", true),
        ("insert into t values (localtime(2))", true),
        ("select now()", false),
        ("select 'current_date'", false),
    ] {
        assert_eq!(parse(text).unwrap().statements[0].value_functions, expected, "{text}");
    }
}
