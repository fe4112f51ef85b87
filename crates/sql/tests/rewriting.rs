//! The one more column, and positions that lead back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{
    Copied, Dialect, Image, Returned, ReturningForm, Rewrite, Rewrites, StatementKind as Kind, column, parameter_text,
    parse, with_returning,
};

const STAR: ReturningForm = ReturningForm {
    image: Image::Star,
    table_oid: true,
    inserted_flag: false,
    old: None,
    parameters: Vec::new(),
    dialect: Dialect::CURRENT,
};
const TOKEN: ReturningForm = ReturningForm {
    image: Image::None,
    table_oid: true,
    inserted_flag: true,
    old: None,
    parameters: Vec::new(),
    dialect: Dialect::CURRENT,
};

fn rewrite(text: &str, index: usize, form: &ReturningForm) -> Option<Rewrite> {
    let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    with_returning(text, &parsed.statements[index], form)
}

/// The expression for a table that RETURNING calls `name` (already quoted).
fn star_of(name: &str) -> String {
    format!(
        "pg_catalog.record_send(ROW(pg_catalog.txid_current(), pg_catalog.pg_current_wal_insert_lsn(), {name}.tableoid, {name}.*))"
    )
}

/// `#` marks where the addition belongs: the statement, what RETURNING calls the table.
const CASES: [(&str, &str); 46] = [
    ("insert into t values (1)#", "\"t\""),
    ("insert into t values (1)# -- trailing comment", "\"t\""),
    ("insert into t values (1)# /* trailing /* nested */ */ ;", "\"t\""),
    ("insert into t values (1)#;--", "\"t\""),
    ("insert into t default values#", "\"t\""),
    ("insert into s.t values (1)#", "\"t\""),
    ("insert into db.s.t values (1)#", "\"t\""),
    ("insert into s.\"T x\" values (1)#", "\"T x\""),
    ("insert into s.\"T\"\"q\" values (1)#", "\"T\"\"q\""),
    ("insert into T values (1)#", "\"t\""),
    ("insert into t as a values (1)#", "\"a\""),
    ("insert into t as \"A b\" values (1)#", "\"A b\""),
    ("insert into t (a) select b from u order by c limit 1#", "\"t\""),
    ("insert into t select * from u for update skip locked#", "\"t\""),
    ("insert into t select * from u union all select * from v#", "\"t\""),
    ("insert into t (select * from u limit 1)#", "\"t\""),
    ("insert into t ((select 1) union (select 2) order by 1)#", "\"t\""),
    ("insert into t select t.* from t#", "\"t\""),
    ("insert into t table u#", "\"t\""),
    ("insert into t select a b from u c#", "\"t\""),
    ("insert into t values ('returning')#", "\"t\""),
    ("insert into t values ('; returning -- x')#", "\"t\""),
    ("insert into t values ($a$; returning; $$ /* $a$)#", "\"t\""),
    ("insert into t values (E'\\'; returning /*')# -- '", "\"t\""),
    ("insert into t values (U&'\\0441' uescape '\\')#", "\"t\""),
    ("insert into t values (1) on conflict do nothing#", "\"t\""),
    ("insert into t values (1) on conflict (a) do update set a = excluded.a where t.b > 1#", "\"t\""),
    ("insert into t as x values (1) on conflict on constraint c do update set a = x.a + 1#", "\"x\""),
    ("insert into t values ('é', '中文', '🎉')# -- ü", "\"t\""),
    ("update t set a = 1#", "\"t\""),
    ("update only t set a = 1 where b = 'x;y'# ; ", "\"t\""),
    ("update t * as \"ü\" set a = 1#", "\"ü\""),
    ("update t u set a = v.a from v where u.id = v.id#", "\"u\""),
    ("update t set a = v.a from v left join w using (id), (select * from t) as y where t.id = v.id#", "\"t\""),
    ("update t set a = 1 from t as other where t.id = other.id#", "\"t\""),
    ("update jobs set s = 1 from (select id from jobs for update skip locked) q where jobs.id = q.id#", "\"jobs\""),
    ("update t set a = 1 where current of c#", "\"t\""),
    ("update t set returning_ = 'x' where a ~ E'\\n'#", "\"t\""),
    ("delete from t#", "\"t\""),
    ("delete from s.t as d using u where d.id = u.id#", "\"d\""),
    ("delete from t where id in (select id from u returning_alias)#", "\"t\""),
    ("with x as (select 1) insert into t select * from x#", "\"t\""),
    ("with x as (delete from u returning *) update t set a = 1 from x#", "\"t\""),
    ("with recursive t2 as (select 1) delete from t using t2#", "\"t\""),
    ("prepare p (int) as update t set a = $1#", "\"t\""),
    ("/* c */ update t /* x; */ set a -- y\n = 1# /* z */", "\"t\""),
];

#[test]
fn the_addition_stands_right_behind_the_last_token() {
    for (marked, name) in CASES {
        let at = marked.find('#').unwrap();
        let text = marked.replace('#', "");
        let done = rewrite(&text, 0, &STAR).unwrap_or_else(|| panic!("{text}"));
        let added = format!(" RETURNING {}", star_of(name));
        assert_eq!(done.text, marked.replace('#', &added));
        assert_eq!((done.inserted_at, done.inserted_len, done.inserted()), (at, added.len(), Some(added.as_str())));
        assert!(rewrite(&text, 0, &TOKEN).is_some(), "{text}");
    }
}

#[test]
fn an_existing_list_grows() {
    for (marked, name) in [
        ("insert into t values (1) returning *#", "\"t\""),
        ("insert into t values (1) returning *# -- , a", "\"t\""),
        ("insert into t as x values (1) returning x.*, a as returning_#;", "\"x\""),
        ("insert into t values (1) returning a b#", "\"t\""),
        ("insert into t values (1) returning 'returning'#", "\"t\""),
        ("update t set a = 1 from u returning t.*, u.*#", "\"t\""),
        ("update t set a = 1 returning (select max(b) from u)#", "\"t\""),
        ("update t set a = 1 returning a::timestamp#", "\"t\""),
        ("update t set a = 1 returning with (old as o, new as n) o.a, n.*#", "\"t\""),
        ("update old set a = 1 returning old.a#", "\"old\""),
        ("delete from t returning case when a then 1 end#", "\"t\""),
        ("with x as (delete from u returning *) insert into t select * from x returning a#", "\"t\""),
    ] {
        let text = marked.replace('#', "");
        let done = rewrite(&text, 0, &STAR).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(done.text, marked.replace('#', &format!(", {}", star_of(name))));
        let write_of = |text: &str| match parse(text).unwrap().statements[0].kind.clone() {
            Kind::Insert(write) | Kind::Update(write) | Kind::Delete(write) => write,
            other => panic!("{other:?}"),
        };
        let (before, after) = (write_of(&text), write_of(&done.text));
        let one_more = Returned { columns: before.returned.columns + 1, ..before.returned };
        assert_eq!(after.returned, one_more, "{text}");
    }
}

#[test]
fn forms() {
    let form = |image, inserted_flag, dialect| ReturningForm { image, inserted_flag, dialect, ..STAR };
    let added = |form: &ReturningForm| {
        let done = rewrite("insert into s.t as x values (1)", 0, form).unwrap();
        let inserted = done.inserted().unwrap();
        inserted.strip_prefix(" RETURNING pg_catalog.record_send(ROW(").unwrap().strip_suffix("))").unwrap().to_owned()
    };
    let token = "pg_catalog.txid_current(), pg_catalog.pg_current_wal_insert_lsn()";
    assert_eq!(added(&form(Image::None, true, Dialect::CURRENT)), token);
    assert_eq!(added(&form(Image::None, false, Dialect::CURRENT)), token);
    assert_eq!(
        added(&form(Image::Star, true, Dialect::CURRENT)),
        format!("{token}, \"x\".tableoid, \"x\".xmax, \"x\".*")
    );
    let columns =
        vec![column("a").unwrap(), column("B\"c").unwrap(), "pg_catalog.convert_to({t}.d::text, 'UTF8')".into()];
    assert_eq!(
        added(&form(Image::Columns(columns), false, Dialect::CURRENT)),
        format!("{token}, \"x\".tableoid, \"x\".\"a\", \"x\".\"B\"\"c\", pg_catalog.convert_to(\"x\".d::text, 'UTF8')")
    );
    assert_eq!(added(&form(Image::Columns(vec![]), false, Dialect::CURRENT)), format!("{token}, \"x\".tableoid"));
    assert_eq!(column("a{t}b"), None);
}

#[test]
fn columns_that_are_not_one_expression_are_refused() {
    for bad in ["a, b", "a)), f((b", "a as b", "", "a -- b", "a; delete from u"] {
        let form = ReturningForm { image: Image::Columns(vec![bad.into()]), ..STAR };
        assert_eq!(rewrite("delete from t", 0, &form), None, "{bad}");
    }
}

#[test]
fn what_is_left_alone() {
    for text in [
        "select 1",
        "select * from t for update",
        "with x as (delete from t returning *) select * from x",
        "explain analyze delete from t",
        "copy (delete from t returning a) to stdout",
        "prepare p as select 1",
        "declare c cursor for select 1",
        "create rule r as on insert to t do also delete from u",
        "begin",
        // The name could mean two relations.
        "update s.t set a = 1 from t",
        "update t set a = 1 from s.t",
        "delete from s.t using u join s2.t on true",
        "update t set a = 1 from (select 1) t",
        "update t set a = 1 from t()",
        "with t as (select 1) delete from s.t using t",
        "prepare p as update s.t set a = 1 from t",
    ] {
        assert_eq!(rewrite(text, 0, &STAR), None, "{text}");
    }
    // A statement that isn't of this text.
    let other = parse("delete from t where a = 1").unwrap();
    assert_eq!(with_returning("delete from t", &other.statements[0], &STAR), None);
    assert_eq!(with_returning("delete from t where a = 2 and b", &other.statements[0], &STAR), None);
}

#[test]
fn one_of_several_statements() {
    let text =
        "begin; insert into t values (';') -- ;\n; /* é */ update u as x set a = 'é' /* ; */ ; delete from v; select 1";
    let parsed = parse(text).unwrap();
    assert_eq!(parsed.statements.len(), 5);
    let mut rewrites = Vec::new();
    for (index, name) in [(1, "\"t\""), (2, "\"x\""), (3, "\"v\"")] {
        let statement = &parsed.statements[index];
        let done = with_returning(text, statement, &STAR).unwrap();
        assert_eq!(done.inserted_at, statement.range.end);
        assert_eq!(done.inserted(), Some(format!(" RETURNING {}", star_of(name)).as_str()));
        assert_eq!(done.text.replace(done.inserted().unwrap(), ""), text);
        rewrites.push(done);
    }
    for order in [[0, 1, 2], [2, 0, 1]] {
        let chosen: Vec<_> = order.iter().map(|&index| rewrites[index].clone()).collect();
        let (combined, map) = Rewrites::combine(text, &chosen).unwrap();
        let again = parse(&combined).unwrap();
        assert_eq!(again.statements.len(), 5);
        assert_eq!(combined.matches("record_send").count(), 3);
        // Each character of the original text leads back to itself.
        let original: Vec<char> = text.chars().collect();
        let mut expected = 0;
        for (index, character) in combined.chars().enumerate() {
            let back = map.original_position(index + 1);
            if original.get(expected) == Some(&character)
                && back == expected + 1
                && !inside(&combined, index, &rewrites)
            {
                expected += 1;
            }
        }
        assert_eq!(expected, original.len());
    }
    assert_eq!(Rewrites::combine(text, &[rewrites[0].clone(), rewrites[0].clone()]), None);
}

/// Whether the character at this index of the combined text belongs to an insertion.
fn inside(combined: &str, index: usize, rewrites: &[Rewrite]) -> bool {
    let at = combined.char_indices().nth(index).unwrap().0;
    rewrites.iter().any(|rewrite| {
        let inserted = rewrite.inserted().unwrap();
        let start = combined.find(inserted).unwrap();
        (start..start + inserted.len()).contains(&at)
    })
}

#[test]
fn positions() {
    let text = "delete from é; delete from ü;x";
    let made = |at: usize, inserted: &str| Rewrite::inserting(text, at, inserted).unwrap();
    // Insertions of 3 and of 2 characters behind characters 13 and 28.
    let (combined, map) = Rewrites::combine(text, &[made(30, "öö"), made(14, "ÄÄÄ")]).unwrap();
    assert_eq!(combined, "delete from éÄÄÄ; delete from üöö;x");
    for (reported, original) in [
        (0, 0),
        (1, 1),
        (13, 13),
        (14, 14),
        (15, 14),
        (16, 14),
        (17, 14),
        (18, 15),
        (31, 28),
        (32, 29),
        (33, 29),
        (34, 29),
        (35, 30),
    ] {
        assert_eq!(map.original_position(reported), original, "{reported}");
    }
    let inserted: Vec<_> = (1..36).filter(|reported| map.is_inserted(*reported)).collect();
    assert_eq!(inserted, [14, 15, 16, 32, 33]);
    assert_eq!(Rewrites::default().original_position(7), 7);
    let (same, map) = Rewrites::combine(text, &[]).unwrap();
    assert_eq!((same.as_str(), map.original_position(9)), (text, 9));
}

#[test]
fn positions_in_a_copy_lead_to_its_original() {
    let text = "é update t set a = 1 where ü = 2";
    let from = text.find('ü').unwrap();
    let at = text.find("update").unwrap();
    let mut ahead = Rewrite::inserting(text, at, "select ö where ü = 2; ").unwrap();
    ahead.copied = Some(Copied { at: "select ö where ".len(), len: "ü = 2".len(), from });
    let (combined, map) = Rewrites::combine(text, &[ahead]).unwrap();
    let place = |needle: &str| combined[..combined.find(needle).unwrap()].chars().count() + 1;
    let original = |needle: &str| text[..text.find(needle).unwrap()].chars().count() + 1;
    assert_eq!(map.original_position(place("ü = 2;")), original("ü"));
    assert_eq!(map.original_position(place("2; ")), original("2"));
    assert_eq!(map.original_position(place("ö where")), original("update"));
    assert!(
        map.is_inserted(place("ö where")) && !map.is_inserted(place("ü = 2;")) && !map.is_inserted(place("update"))
    );
    assert_eq!(map.original_position(place("update")), original("update"));
}

#[test]
fn the_old_row() {
    let form = ReturningForm { old: column("id").map(|c| vec![c]), ..STAR };
    let text = "update t set id = 2 where id = 1";
    let added = rewrite(text, 0, &form).unwrap();
    assert!(added.inserted().unwrap().contains("\"t\".tableoid, old.tableoid, old.\"id\", \"t\".*))"), "{added:?}");
    for taken in [
        "update t as old set id = 2",
        "update t set id = 2 from \"old\"",
        "update t set id = 2 returning with (new as n) n.id",
    ] {
        assert_eq!(rewrite(taken, 0, &form), None, "{taken}");
        assert!(rewrite(taken, 0, &STAR).is_some() || taken.contains("with"), "{taken}");
    }
    let parameters = vec![parameter_text(2, false), parameter_text(1, true)];
    let added = rewrite(text, 0, &ReturningForm { parameters, ..STAR }).unwrap();
    let expected = "tableoid, ($2)::pg_catalog.text, pg_catalog.convert_to(($1)::pg_catalog.text, 'UTF8'), \"t\".*";
    assert!(added.inserted().unwrap().contains(expected), "{added:?}");
}

#[test]
fn merges() {
    let text =
        "merge into t as a using s on a.id = s.id when matched then update set v = 1 when not matched then do nothing";
    for returning in ["", " returning s.id, merge_action()"] {
        let whole = format!("{text}{returning}");
        let added = rewrite(&whole, 0, &STAR).unwrap();
        assert!(added.inserted().unwrap().contains("\"a\".tableoid, merge_action(), \"a\".*"), "{added:?}");
    }
    assert_eq!(rewrite("merge into t using t on true when matched then delete", 0, &STAR), None);
}

#[test]
fn insertions_go_into_bytes_that_other_letters_stood_for() {
    let (text, original) = ("INSERT INTO t VALUES ('éxx é', 1)", "INSERT INTO t VALUES ('é\\\\ é', 1)");
    let rewrite = Rewrite::inserting(text, text.len(), " RETURNING \"ä\"").unwrap();
    let (sent, map) = Rewrites::combine(text, &[rewrite]).unwrap();
    let spliced = map.splice(original.as_bytes(), sent.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(spliced).unwrap(), format!("{original} RETURNING \"ä\""));
}
