//! Each kind of statement, from its text.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{CopyCommand, Discard, ParseError, RelationName, SetKind, Statement, StatementKind as Kind, parse};

fn one(text: &str) -> Statement {
    let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(parsed.statements.len(), 1, "{text}");
    parsed.statements[0].clone()
}

fn table(name: &str) -> RelationName {
    let (schema, name) = name.split_once('.').map_or((None, name), |(schema, name)| (Some(schema), name));
    RelationName { schema: schema.map(str::to_owned), name: name.to_owned(), alias: None, only: false }
}

fn names(relations: &[RelationName]) -> Vec<&str> {
    relations.iter().map(|relation| relation.name.as_str()).collect()
}

#[test]
fn control_statements() {
    let name = || "s".to_owned();
    let cases = [
        ("begin", Kind::Begin),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", Kind::Begin),
        ("start transaction", Kind::Begin),
        ("begin work;", Kind::Begin),
        ("commit", Kind::Commit { chain: false }),
        ("end transaction", Kind::Commit { chain: false }),
        ("commit and chain", Kind::Commit { chain: true }),
        ("commit and no chain", Kind::Commit { chain: false }),
        ("rollback", Kind::Rollback { chain: false }),
        (" abort ; ", Kind::Rollback { chain: false }),
        ("rollback and chain", Kind::Rollback { chain: true }),
        ("savepoint s", Kind::Savepoint { name: name() }),
        ("release savepoint s", Kind::Release { name: name() }),
        ("rollback to s", Kind::RollbackTo { name: name() }),
        ("prepare transaction 's'", Kind::PrepareTransaction { gid: name() }),
        ("commit prepared 's'", Kind::CommitPrepared { gid: name() }),
        ("rollback prepared 's'", Kind::RollbackPrepared { gid: name() }),
        ("show all", Kind::Show),
        ("discard all", Kind::Discard(Discard::All)),
        ("discard plans", Kind::Discard(Discard::Plans)),
        ("discard temp", Kind::Discard(Discard::Temp)),
        ("discard sequences", Kind::Discard(Discard::Sequences)),
        ("execute s(1)", Kind::Execute { name: name() }),
        ("deallocate s", Kind::Deallocate { name: Some(name()) }),
        ("deallocate all", Kind::Deallocate { name: None }),
        ("fetch 5 from s", Kind::Fetch { cursor: name() }),
        ("move s", Kind::Fetch { cursor: name() }),
        ("close s", Kind::Close { cursor: Some(name()) }),
        ("close all", Kind::Close { cursor: None }),
        ("call s(1)", Kind::Call),
        ("do $$ begin delete from t; end $$", Kind::Do),
        ("listen s", Kind::Listen),
        ("notify s, 'x'", Kind::Notify),
        ("unlisten *", Kind::Unlisten),
        ("lock table a.b", Kind::Lock { tables: vec![table("a.b")] }),
        ("set constraints all immediate", Kind::SetConstraints { deferred: false }),
        ("set constraints a, b deferred", Kind::SetConstraints { deferred: true }),
        ("vacuum full t", maintenance("VACUUM", false)),
        ("analyze t", maintenance("ANALYZE", true)),
        ("checkpoint", maintenance("CHECKPOINT", true)),
        ("cluster t", maintenance("CLUSTER", true)),
        ("cluster", maintenance("CLUSTER", false)),
        ("reindex table t", maintenance("REINDEX", true)),
        ("reindex table concurrently t", maintenance("REINDEX", false)),
        ("reindex database d", maintenance("REINDEX", false)),
        ("load 'x'", Kind::Other),
    ];
    for (text, kind) in cases {
        assert_eq!(one(text).kind, kind, "{text}");
    }
}

fn maintenance(command: &'static str, in_transaction_block_allowed: bool) -> Kind {
    Kind::Maintenance { command, in_transaction_block_allowed }
}

#[test]
fn words_that_only_look_like_the_short_ones() {
    for text in ["start", "begin begin", "commit 1", "end end", "work", "start work"] {
        assert!(matches!(parse(text), Err(ParseError::Syntax(_))), "{text}");
    }
    assert_eq!(parse("begin; commit").unwrap().statements.len(), 2);
    assert_eq!(parse("begin;;").unwrap().statements.len(), 1);
    assert_eq!(one("/* c */ begin -- x").range, 8..13);
    assert_eq!(one("\x0b\x0cBegin \n Work \r;\t").range, 2..14);
}

#[test]
fn settings() {
    let cases: [(&str, Option<&str>, bool, SetKind); 10] = [
        ("set Search_Path to a, \"B\"", Some("search_path"), false, values(&["a", "B"])),
        ("set local work_mem = 64", Some("work_mem"), true, values(&["64"])),
        ("set a.b to on", Some("a.b"), false, values(&["on"])),
        ("set x to default", Some("x"), false, SetKind::Default),
        ("set time zone 'UTC'", Some("timezone"), false, values(&["UTC"])),
        ("set role joe", Some("role"), false, values(&["joe"])),
        ("set transaction isolation level serializable", Some("transaction"), false, SetKind::Transaction),
        (
            "set session characteristics as transaction read only",
            Some("session characteristics"),
            false,
            SetKind::Transaction,
        ),
        ("reset x", Some("x"), false, SetKind::Reset),
        ("reset all", None, false, SetKind::Reset),
    ];
    for (text, name, local, kind) in cases {
        assert_eq!(one(text).kind, Kind::Set { name: name.map(str::to_owned), local, kind }, "{text}");
    }
}

fn values(texts: &[&str]) -> SetKind {
    SetKind::Value(texts.iter().map(|&text| text.to_owned()).collect())
}

#[test]
fn reads() {
    let cases: [(&str, Option<&str>, bool, &[&str]); 11] = [
        ("select 1", None, false, &[]),
        ("values (1)", None, false, &[]),
        ("table t", None, false, &[]),
        ("(select 1)", None, false, &[]),
        ("select * into n from t", Some("n"), false, &[]),
        ("select 1 as a into n union select 2", Some("n"), false, &[]),
        ("select * from t for update skip locked", None, true, &[]),
        ("select * from (select * from t for share) x", None, true, &[]),
        ("with x as (delete from t returning *) select * from x", None, false, &["t"]),
        ("with x as (with y as (insert into t values (1) returning *) select * from y) select 1", None, false, &["t"]),
        (
            "select 1 union (with x as (merge into t using s on true when matched then delete returning 1) select 2)",
            None,
            false,
            &["t"],
        ),
    ];
    for (text, into_table, lock, writes) in cases {
        let Kind::Select { into, locking, writes_in_with } = one(text).kind else { panic!("{text}") };
        assert_eq!(into.map(|into| into.name).as_deref(), into_table, "{text}");
        assert_eq!(locking, lock, "{text}");
        assert_eq!(names(&writes_in_with), writes, "{text}");
    }
}

#[test]
fn statements_that_carry_others() {
    let Kind::Prepare { name, statement } = one("prepare p(int) as update t set a = $1").kind else { panic!() };
    assert_eq!((name.as_str(), matches!(statement.kind, Kind::Update(_))), ("p", true));
    for (text, runs, written) in [
        ("explain update t set a = 1", false, 0),
        ("explain analyze update t set a = 1", true, 1),
        ("explain (analyze, verbose) delete from t", true, 1),
        ("explain (analyze off) delete from t", false, 0),
        ("explain (analyze false, analyze) delete from t", true, 1),
        ("explain (analyze 0) delete from t", false, 0),
        ("explain analyze with x as (delete from t returning 1) select * from x", true, 1),
    ] {
        let statement = one(text);
        assert_eq!(statement.written().len(), written, "{text}");
        let Kind::Explain { analyze, .. } = statement.kind else { panic!("{text}") };
        assert_eq!(analyze, runs, "{text}");
    }
    let Kind::DeclareCursor { name, hold, locking, .. } = one("declare c cursor with hold for select f()").kind else {
        panic!()
    };
    assert_eq!((name.as_str(), hold, locking), ("c", true, false));
    let Kind::DeclareCursor { hold, locking, .. } = one("declare c cursor for select 1 from t for update").kind else {
        panic!()
    };
    assert_eq!((hold, locking), (false, true));
}

#[test]
fn merges() {
    let text =
        "with x as (delete from d returning 1) merge into only s.t as u using v on true when matched then delete";
    let Kind::Merge(write) = one(text).kind else { panic!() };
    assert_eq!(write.target, RelationName { alias: Some("u".into()), only: true, ..table("s.t") });
    assert_eq!((write.returning, names(&write.writes_in_with)), (false, vec!["d"]));
    let text = "merge into t using v on true when not matched then insert values (1) returning merge_action(), t.*";
    let Kind::Merge(write) = one(text).kind else { panic!() };
    assert!(write.returning && write.assigned.is_empty());
    let text = "merge into t using v on true when matched and a then update set b = 1, c = 2 when matched then update set b = 2";
    let Kind::Merge(write) = one(text).kind else { panic!() };
    assert_eq!(write.assigned, vec!["b", "c"]);
}

fn copy(text: &str) -> CopyCommand {
    match one(text).kind {
        Kind::Copy(copy) => copy,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn copies() {
    let from = copy(
        "copy s.t (a, \"B\") from stdin with (format csv, header, null '', force_not_null (a, \"B\")) where a > 1",
    );
    assert_eq!(from.relation, Some(table("s.t")));
    assert_eq!(from.columns, ["a", "B"]);
    assert!(from.from && from.stdin_stdout && from.where_clause && !from.program_or_file);
    let options: Vec<_> = from.options.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(
        options,
        [("format", Some("csv")), ("header", None), ("null", Some("")), ("force_not_null", Some("a,B"))]
    );
    let old_style = copy("copy t from stdin csv header delimiter ';'");
    assert_eq!(old_style.options[0], ("format".into(), Some("csv".into())));
    let file = copy("copy t from '/tmp/x' with (freeze)");
    assert!(file.program_or_file && !file.stdin_stdout);
    assert!(copy("copy t to program 'gzip'").program_or_file);
    let query = copy("copy (update t set a = 1 returning a) to stdout");
    assert_eq!((query.relation.is_none(), query.from, names(&query.query_writes)), (true, false, vec!["t"]));
    let query = copy("copy (with x as (delete from t returning 1) select * from x) to stdout");
    assert_eq!(names(&query.query_writes), ["t"]);
    assert!(copy("copy (select * from t) to stdout").query_writes.is_empty());
}

#[test]
fn truncations() {
    let text = "truncate table only a, s.b restart identity cascade";
    let Kind::Truncate { tables, cascade, restart_identity } = one(text).kind else { panic!() };
    assert_eq!(tables, [RelationName { only: true, ..table("a") }, table("s.b")]);
    assert!(cascade && restart_identity);
    let Kind::Truncate { cascade, restart_identity, .. } = one("truncate a continue identity restrict").kind else {
        panic!()
    };
    assert!(!cascade && !restart_identity);
}

#[test]
fn places() {
    for text in [
        "select 1",
        " \n select 1 -- trailing ;\n",
        "/* ; */ select 1 /* a /* nested ; */ b */ ; ",
        "select ';' as \"a;b\", $x$;$x$; select 2;",
        "select 'é', '中文' /* 中 */ ; -- é\nupdate t set a = 'ü' -- x",
        "create function f() returns int begin atomic select 1; select 2; end; select 3 /* x */",
        "create rule r as on insert to t do also (delete from u; delete from v); select 4",
        ";;; select 1 ;;;",
    ] {
        for statement in parse(text).unwrap().statements {
            let slice = &text[statement.range.clone()];
            assert_eq!(parse(slice).unwrap().statements.len(), 1, "{slice}");
            assert!(
                !slice.ends_with([' ', ';', '/', '\n']) && !slice.contains("trailing") && !slice.ends_with('x'),
                "{slice}"
            );
            assert!(!slice.starts_with([' ', ';', '/', '-', '\n']), "{slice}");
        }
    }
    let parsed = parse("select 1; /* c */ update t set a = 1 /* d */ ; -- e\n delete from t -- f").unwrap();
    let ranges: Vec<_> = parsed.statements.iter().map(|statement| statement.range.clone()).collect();
    assert_eq!(ranges, [0..8, 18..36, 53..66]);
}

#[test]
fn nothing_and_errors() {
    for text in ["", " ", ";", "-- x", "/* x */;", "\u{feff}"] {
        let parsed = parse(text);
        if text != "\u{feff}" {
            assert_eq!(parsed.unwrap().statements, [], "{text:?}");
        }
    }
    for text in ["select '\0'", "-- \0", "\0", "begin\0"] {
        assert_eq!(parse(text), Err(ParseError::Nul), "{text:?}");
    }
    for text in ["selec 1", "select 'unfinished", "select /* unfinished", "update t set", "select $$ x"] {
        assert!(matches!(parse(text), Err(ParseError::Syntax(_))), "{text}");
    }
}

#[test]
fn newer_grammar() {
    for text in [
        "update t set a = 1 returning with (old as o, new as n) o.a, n.a",
        "create table t (a int, b int generated always as (a * 2) virtual)",
        "alter table t add constraint c not null a not valid",
        "select * from json_table('[1]', '$[*]' columns (a int path '$')) j",
    ] {
        one(text);
    }
}
