//! `pgshadow verify` under write load: what differs is found, where it is, and nothing else is.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]
use integration_tests::client::Endpoint;
use integration_tests::postgres::Cluster;
use integration_tests::proxy::Pgshadow;
use integration_tests::repeats;
use integration_tests::scene::Scene;
use integration_tests::verify::{LIMIT, SCHEMA, SCRIPT, tables, under_load, unpaced, verify, without_pace};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `table key kind columns` of each difference.
fn differences(report: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for table in tables(report) {
        assert_eq!(table["not_compared"], Value::Null, "{table:#}");
        let located = table["differences"].as_array().unwrap();
        let told = ["missing", "extra", "different"].iter().map(|name| table[*name].as_u64().unwrap()).sum::<u64>();
        assert_eq!(located.len() as u64, told, "{table:#}");
        for difference in located {
            let columns = difference["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap());
            let columns: Vec<_> = columns.collect();
            let (name, key) = (table["table"]["name"].as_str().unwrap(), difference["key"].as_str().unwrap());
            let kind = difference["kind"].as_str().unwrap();
            all.insert(format!("{name} {key} {kind} {}", columns.join(",")).trim_end().to_owned());
        }
    }
    all
}

/// Planted on the target, with what is to be found of it; nothing: it is no difference.
const PLANTED: &[(&str, &[&str])] = &[
    ("UPDATE kinds SET bytes = '\\x0103' WHERE id = 1", &["kinds id=1 value bytes"]),
    ("DELETE FROM kinds WHERE id = 2", &["kinds id=2 missing_row"]),
    ("INSERT INTO kinds (id) VALUES (99)", &["kinds id=99 extra_row"]),
    ("UPDATE kinds SET f8 = '-0', f4 = '-0' WHERE id = 3", &["kinds id=3 value f8,f4"]),
    ("UPDATE kinds SET n = 1.00 WHERE id = 4", &["kinds id=4 value n"]),
    ("UPDATE kinds SET t = 'a ' WHERE id = 5", &["kinds id=5 value t"]),
    ("UPDATE kinds SET t = NULL WHERE id = 6", &["kinds id=6 value t"]),
    ("UPDATE kinds SET t = '' WHERE id = 7", &["kinds id=7 value t"]),
    ("UPDATE kinds SET jb = '{\"b\": 2, \"a\": 1}' WHERE id = 8", &[]),
    ("UPDATE kinds SET js = '{\"a\":1}' WHERE id = 9", &["kinds id=9 value js"]),
    ("UPDATE kinds SET tz = '2026-01-01 02:00:00+02' WHERE id = 10", &[]),
    ("UPDATE kinds SET ts = 'infinity' WHERE id = 11", &["kinds id=11 value ts"]),
    ("UPDATE kinds SET f8 = 'NaN', n = 'NaN' WHERE id = 12", &["kinds id=12 value f8,n"]),
    ("UPDATE kinds SET iv = '24:00:00' WHERE id = 13", &["kinds id=13 value iv"]),
    ("UPDATE kinds SET a = '[2:3]={1,2}' WHERE id = 14", &["kinds id=14 value a"]),
    ("UPDATE kinds SET d = '-infinity' WHERE id = 15", &["kinds id=15 value d"]),
    ("UPDATE kinds SET id = 1000 WHERE id = 16", &["kinds id=16 missing_row", "kinds id=1000 extra_row"]),
    ("UPDATE named SET v = 30 WHERE k = 'ä'", &["named k=ä value v"]),
    ("UPDATE named SET k = 'A' WHERE k = 'a'", &["named k=a missing_row", "named k=A extra_row"]),
    ("DELETE FROM named WHERE k = ''", &["named k= missing_row"]),
    ("INSERT INTO bag VALUES (7, 'new')", &["bag a=7, b=new extra_row"]),
    ("DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 3 AND b = 'b')", &["bag a=3, b=b missing_row"]),
    ("UPDATE parts SET v = 0 WHERE id IN (7, 77)", &["parts_low id=7 value v", "parts_high id=77 value v"]),
    ("INSERT INTO nothing DEFAULT VALUES", &["nothing  extra_row"]),
    (
        "UPDATE \"Odd \"\"Name\" SET \"select\" = 'x' WHERE \"Ke y\" = 1",
        &["Odd \"Name Ke y=1, select=x extra_row", "Odd \"Name Ke y=1, select=x, y missing_row"],
    ),
    ("UPDATE busy SET t = 'other' WHERE id = 12345", &["busy id=12345 value t"]),
];

#[test]
fn planted_differences_are_each_found_and_nothing_else_is() {
    let equal = "UPDATE kinds SET f8 = 'NaN', ts = 'infinity' WHERE id BETWEEN 20 AND 30";
    let scene = Scene::of(&format!("{SCHEMA}; {equal}"));
    // what no image of a row is written over: the load leaves these rows alone, but for what `busy` holds otherwise
    let script = SCRIPT.replace("\\set i random(1, 20000)", "\\set i random(1, 10000)");
    under_load(&scene, &script, || {
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
        let names: BTreeSet<_> = tables(&report).iter().map(|t| t["table"]["name"].as_str().unwrap()).collect();
        let all =
            ["Odd \"Name", "bag", "busy", "empty", "kinds", "made", "named", "nothing", "parts_high", "parts_low"];
        assert_eq!(names, BTreeSet::from(all));
        let mut expected = BTreeSet::new();
        for (sql, found) in PLANTED {
            scene.target.psql(sql);
            expected.extend(found.iter().map(|text| (*text).to_owned()));
        }
        let (report, equal) = verify(&scene, &[]);
        assert!(!equal);
        assert_eq!(differences(&report), expected);
    });
    scene.drain();
    let findings = scene.pgshadow.findings();
    let of_verify = |finding: &&Value| finding["message"].as_str().is_some_and(|m| m.starts_with("verify:"));
    assert_eq!(findings.iter().filter(of_verify).count(), findings.len(), "{findings:#?}");
    let located: usize = PLANTED.iter().map(|(_, found)| found.len()).sum();
    assert_eq!(findings.len(), located, "{findings:#?}");
}

/// All that has a key is mended under load; nothing is written to the primary.
#[test]
fn what_was_found_is_mended() {
    mended(&unpaced(SCHEMA));
}

/// The same from the newer server to the older one, as it is after a cutover.
#[test]
fn what_was_found_is_mended_the_other_way_round() {
    mended(&Scene::back(SCHEMA));
}

fn mended(scene: &Scene) {
    let script = SCRIPT.replace("\\set i random(1, 20000)", "\\set i random(1, 10000)");
    let still = "SELECT md5(string_agg(k::text, ',' ORDER BY id)) FROM kinds k WHERE id < 100";
    let before = scene.source.psql(still);
    under_load(scene, &script, || {
        let none = scene.pgshadow.run(&["repair"], LIMIT);
        assert!(none.status.code() == Some(1) && none.stderr.contains("no verify has ended"), "{none:#?}");
        for (sql, _) in PLANTED {
            scene.target.psql(sql);
        }
        let (found, _) = verify(scene, &[]);
        let dry = scene.pgshadow.run(&["repair", "--dry-run"], LIMIT);
        assert_eq!(dry.status.code(), Some(3), "{dry:#?}");
        for part in ["public.kinds: id=2: the shadow has no such row", "bytes: primary \\x0102, shadow \\x0103"] {
            assert!(dry.stdout.contains(part), "{part}\n{}", dry.stdout);
        }
        assert_eq!(differences(&verify(scene, &[]).0), differences(&found), "a dry run changes nothing");
        let some = scene.pgshadow.run(&["repair", "--table", "public.named"], LIMIT);
        assert_eq!(some.status.code(), Some(0), "{some:#?}");
        let left = differences(&verify(scene, &[]).0);
        assert!(
            left.len() == differences(&found).len() - 4 && left.iter().all(|d| !d.starts_with("named ")),
            "{left:?}"
        );
        let repaired = scene.pgshadow.run(&["repair"], LIMIT);
        assert_eq!(repaired.status.code(), Some(3), "two tables have no key: {repaired:#?}");
        for part in ["public.bag: can't be mended row by row", "public.nothing: can't be mended row by row"] {
            assert!(repaired.stdout.contains(part), "{part}\n{}", repaired.stdout);
        }
        let left = differences(&verify(scene, &[]).0);
        let without_key = ["bag a=3, b=b missing_row", "bag a=7, b=new extra_row", "nothing  extra_row"];
        assert_eq!(left, BTreeSet::from(without_key.map(str::to_owned)));
    });
    assert_eq!(scene.source.psql(still), before);
    let open = scene.pgshadow.findings().into_iter().filter(|finding| finding["healed"] == false).count();
    assert_eq!(open, 3, "{:#?}", scene.pgshadow.findings());
}

/// More rows differ than can be held: all are counted, some are shown, whatever they are.
#[test]
fn however_many_differ_all_are_counted() {
    let rows = 260_000;
    let schema = format!(
        "CREATE TABLE most (id int PRIMARY KEY, v int, t text COLLATE \"C\");
         INSERT INTO most SELECT g, g, 'row' FROM generate_series(1, {rows}) g;
         CREATE TABLE gone (LIKE most INCLUDING ALL); INSERT INTO gone SELECT * FROM most;
         CREATE TABLE same (a int, b text); INSERT INTO same SELECT 1, 'equal' FROM generate_series(1, {rows}) g;
         INSERT INTO same SELECT g, 'other' FROM generate_series(1, 1000) g; {SCHEMA}"
    );
    let scene = unpaced(&schema);
    scene.target.psql(
        "UPDATE most SET v = -v WHERE id % 4 > 0; DELETE FROM most WHERE id % 20 = 0; INSERT INTO most SELECT 300000 + g, g FROM generate_series(1, 70000) g;
         TRUNCATE gone;
         DELETE FROM same WHERE ctid IN (SELECT ctid FROM same WHERE a = 1 ORDER BY ctid LIMIT 150000); DELETE FROM same WHERE a = 7",
    );
    under_load(&scene, SCRIPT, || {
        let (report, _) = verify(&scene, &[]);
        let told = |name: &str| {
            let table = tables(&report).iter().find(|t| t["table"]["name"] == name).cloned().unwrap();
            assert_eq!(table["not_compared"], Value::Null, "{table:#}");
            let located = table["differences"].as_array().unwrap().len();
            (["missing", "extra", "different"].map(|kind| table[kind].as_u64().unwrap()), located)
        };
        assert_eq!(told("most"), ([13_000, 70_000, 195_000], 1000));
        assert_eq!(told("gone"), ([rows, 0, 0], 1000));
        assert_eq!(told("same"), ([150_001, 0, 0], 1000));
        assert_eq!(told("busy"), ([0, 0, 0], 0));
    });
}

/// Of wide rows no more is told than can be read; all of them are counted.
#[test]
fn wide_rows_that_differ_are_shown_by_what_they_begin_with() {
    let scene = Scene::of(
        "CREATE TABLE wide (id text PRIMARY KEY, v text, b bytea);
         INSERT INTO wide SELECT 'row ' || g, repeat(md5(g::text), 1000), 'short' FROM generate_series(1, 2500) g;
         CREATE TABLE keyed (id text PRIMARY KEY, v int); INSERT INTO keyed VALUES (repeat('k', 70000), 1);
         CREATE TABLE keyless (v text); INSERT INTO keyless SELECT repeat('long', 100000) FROM generate_series(1, 3) g",
    );
    scene.target.psql("UPDATE wide SET v = v || '!'; UPDATE keyed SET v = 2; DELETE FROM keyless; INSERT INTO keyless SELECT repeat('long', 100000) || g FROM generate_series(1, 3) g");
    let (report, _) = verify(&scene, &[]);
    let of = |name: &str| tables(&report).iter().find(|t| t["table"]["name"] == name).cloned().unwrap();
    let (wide, keyless) = (of("wide"), of("keyless"));
    assert_eq!((&wide["different"], &wide["missing"], &wide["extra"]), (&2500.into(), &0.into(), &0.into()));
    let shown = wide["differences"].as_array().unwrap();
    assert!(shown.len() > 900, "{}", shown.len());
    for difference in shown {
        let columns = difference["columns"].as_array().unwrap();
        assert_eq!((columns.len(), &columns[0]["name"]), (1, &"v".into()), "{difference:.300}");
        let [here, there] = ["primary", "shadow"].map(|side| columns[0][side].as_str().unwrap());
        for (text, bytes) in [(here, 32_000), (there, 32_001)] {
            assert!(text.len() < 1100 && text.contains(&format!(" ... ({bytes} bytes, hash ")), "{text:.1200}");
        }
        assert_ne!(here, there);
    }
    let key = of("keyed")["differences"][0]["key"].as_str().map(str::len);
    assert_eq!(key, Some("id=".len() + 70_000), "what is mended by it is whole");
    let told = ["missing", "extra"].map(|kind| keyless[kind].as_u64().unwrap());
    assert!(told[0] == told[1] && told[0] + keyless["different"].as_u64().unwrap() == 3, "{told:?}");
    assert!(keyless["differences"].to_string().len() < 20_000);
}

/// One row is planted before each verify: it is found, alone, and the rows told are those of the snapshot.
#[test]
fn each_of_many_verifies_under_full_load_finds_the_one_row() {
    let scene = unpaced(SCHEMA);
    let rounds = 5 * repeats();
    under_load(&scene, SCRIPT, || {
        for round in 1..=rounds {
            let id = round % 60 + 1;
            scene.target.psql(&format!("UPDATE kinds SET t = 'planted {round}' WHERE id = {id}"));
            let (report, _) = verify(&scene, &[]);
            assert_eq!(differences(&report), BTreeSet::from([format!("kinds id={id} value t")]), "round {round}");
            let of = |name: &str| tables(&report).iter().find(|t| t["table"]["name"] == name).cloned().unwrap();
            assert_eq!(of("busy")["rows"], 20_000, "round {round}");
            scene.target.psql(&format!("UPDATE kinds SET t = 'a' WHERE id = {id}"));
        }
    });
}

/// Several verifies, while each of these is run over and over, with a number, no faster than the shadow can follow: nothing is told to differ. Gives
/// how many pairs of snapshots it took.
fn verified_while(scene: &Scene, changes: &[&(dyn Fn(u32) -> String + Sync)]) -> usize {
    let over = AtomicBool::new(false);
    let changed = std::thread::scope(|threads| {
        for change in changes {
            let over = &over;
            threads.spawn(move || {
                for n in 1.. {
                    scene.app().psql(&change(n));
                    std::thread::sleep(Duration::from_millis(100));
                    while !over.load(Ordering::SeqCst)
                        && scene.pgshadow.metric("pgshadow_lag_entries").is_some_and(|lag| lag > 9.0)
                    {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        let rounds = (0..4 * repeats()).map(|_| {
            let (report, _) = verify(scene, &[]);
            for table in tables(&report) {
                let told = ["missing", "extra", "different"].map(|name| table[name].as_u64().unwrap());
                assert_eq!(told, [0; 3], "{table:#}");
            }
            report["held_ms"].as_array().unwrap().len()
        });
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds.sum::<usize>()));
        over.store(true, Ordering::SeqCst);
        changed
    });
    let pairs = changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    scene.drain();
    let (report, equal) = verify(scene, &[]);
    assert!(equal, "{report:#}");
    pairs
}

/// Tables that are emptied and rewritten while they are read: read again, never told to differ.
#[test]
fn truncated_and_rewritten_tables_are_read_again() {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, v int); INSERT INTO {name} SELECT g, 0 FROM generate_series(1, 3000) g;"
        )
    };
    let names = ["a", "b", "c"];
    let scene = unpaced(&names.map(table).concat());
    let changes = names.map(|name| {
        move |n: u32| {
            let rewritten = if n.is_multiple_of(2) { "int" } else { "bigint" };
            format!(
                "TRUNCATE {name}; INSERT INTO {name} SELECT g, {n} FROM generate_series(1, 300) g;
                 ALTER TABLE {name} ALTER v TYPE {rewritten}; UPDATE {name} SET v = {n} WHERE id <= 20",
            )
        }
    });
    let changes: Vec<&(dyn Fn(u32) -> String + Sync)> = changes.iter().map(|change| change as _).collect();
    assert!(verified_while(&scene, &changes) > 4, "no table was ever read again");
}

/// Tables that take one another's names while they are read: a snapshot shows each under the name that it had, a statement finds another one.
#[test]
fn tables_that_swap_their_names_are_told_apart() {
    let table = |name: &str, rows: u32| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, v int); INSERT INTO {name} SELECT g, {rows} FROM generate_series(1, {rows}) g;"
        )
    };
    let scene = unpaced(&[table("a", 3000), table("b", 5000)].concat());
    verified_while(
        &scene,
        &[&|_| {
            "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT".to_owned()
        }],
    );
}

#[test]
fn what_cannot_be_compared_says_why() {
    let scene = Scene::with(
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE typed (v int); CREATE TABLE here (v int);
         CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int CONSTRAINT to_p REFERENCES p ON DELETE CASCADE);
         CREATE TABLE d (p int REFERENCES p); CREATE TABLE f (p int CONSTRAINT to_p REFERENCES p); CREATE TABLE e (p int CONSTRAINT to_p REFERENCES p ON UPDATE SET NULL)",
        "ALTER TABLE c DROP CONSTRAINT to_p; ALTER TABLE f DROP CONSTRAINT to_p; ALTER TABLE d ADD FOREIGN KEY (p) REFERENCES p ON DELETE SET NULL;
         ALTER TABLE e DROP CONSTRAINT to_p; ALTER TABLE e ADD CONSTRAINT other_name FOREIGN KEY (p) REFERENCES p ON UPDATE SET NULL NOT VALID;
         DROP TABLE here; ALTER TABLE typed ALTER v TYPE bigint; ALTER TABLE t ADD w int; CREATE TABLE there (v int)",
        |builder| builder,
    );
    let (report, equal) = verify(&scene, &[]);
    assert!(!equal);
    for (name, part) in [
        ("t", "only the shadow's table has a column w"),
        ("typed", "column v is integer on the primary and bigint on the shadow"),
        ("here", "the shadow has no such table"),
        ("there", "only the shadow has this table"),
        ("c", "no such foreign key, or has it disabled: FOREIGN KEY (p) REFERENCES public.p(id) ON DELETE CASCADE"),
        ("d", "only the shadow's table has this foreign key"),
        ("f", "no such foreign key, or has it disabled: FOREIGN KEY (p) REFERENCES public.p(id)"),
    ] {
        let table = tables(&report).iter().find(|t| t["table"]["name"] == name).unwrap();
        assert!(table["not_compared"].as_str().is_some_and(|why| why.contains(part)), "{table:#}");
    }
    let (_, equal) = verify(&scene, &["public.e"]);
    assert!(equal, "the same action by another name, and not validated yet");
    let (report, _) = verify(&scene, &["public.nowhere"]);
    assert_eq!(tables(&report)[0]["not_compared"], "there is no such table");
    let stopped = scene.pgshadow.run(&["verify", "--stop"], LIMIT);
    assert!(stopped.status.code() == Some(1) && stopped.stderr.contains("no verify runs"), "{stopped:#?}");
}

/// A statement that takes long, outside a block, is no reason for a verify to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verify_doesnt_wait_for_a_statement_that_takes_long() {
    let scene = Scene::of(
        "CREATE TABLE slow (id int PRIMARY KEY, v int); INSERT INTO slow SELECT g, 0 FROM generate_series(1, 3) g",
    );
    for _ in 0..repeats() {
        let client = scene.app().connect().await;
        let slow = tokio::spawn(async move {
            client.batch_execute("UPDATE slow SET v = v + 1 WHERE pg_sleep(7) IS NOT NULL").await.unwrap();
        });
        // its first row is written, so it has an id
        tokio::time::sleep(Duration::from_secs(8)).await;
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
        assert!(!slow.is_finished(), "the verify waited for it");
        slow.await.unwrap();
        scene.drain();
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
    }
}

/// A table that somebody has for himself, and one that goes, keep no other from being compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_and_one_that_goes_keep_no_other_from_being_compared() {
    let scene = Scene::of("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE held (id int PRIMARY KEY)");
    let client = scene.source.connect().await;
    client.batch_execute("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (report, equal) = verify(&scene, &["public.a"]);
    assert!(equal, "{report:#}");
    let mut waits = scene.pgshadow.begin(&["verify"]);
    tokio::time::sleep(Duration::from_secs(13)).await;
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waits.wait().unwrap().code(), Some(0), "{}", scene.pgshadow.log_tail());
}

/// Columns that exchange their names on the primary, which the shadow hears of only later, are no differences.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_exchange_their_names_are_no_differences() {
    let schema = "CREATE TABLE kept (id int PRIMARY KEY, v int); INSERT INTO kept VALUES (1, 0);
        CREATE TABLE t (id int PRIMARY KEY, a int, b int, pad text); INSERT INTO t SELECT g, 1, 2, repeat('x', 400) FROM generate_series(1, 50000) g";
    let scene = Scene::with(schema, "", |builder| without_pace(builder).set("verify", "rate_max", "\"16MiB\""));
    for _ in 0..repeats() {
        let mut running = scene.pgshadow.begin(&["verify", "--again"]);
        let from = std::time::Instant::now();
        loop {
            let (_, body) = scene.pgshadow.http("/api/verify").expect("it answers");
            let state: Value = serde_json::from_str(&body).unwrap();
            if state["running"]["progress"]["tables_done"] == 1 {
                break;
            }
            assert!(from.elapsed() < LIMIT, "{state:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
        // whatever comes behind it waits on the shadow
        let client = scene.target.connect().await;
        client.batch_execute("BEGIN; UPDATE t SET pad = pad WHERE id = 1").await.unwrap();
        scene.app().psql("UPDATE t SET pad = 'y' WHERE id = 1");
        scene.app().psql(
            "BEGIN; ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b; COMMIT",
        );
        let from = std::time::Instant::now();
        while from.elapsed() < Duration::from_secs(14) && running.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(0), "{}", scene.pgshadow.log_tail());
        scene.drain();
    }
}

/// A verify that is stopped leaves no statement behind on either server.
#[test]
fn a_stopped_verify_leaves_no_statement_behind() {
    let rows = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, 60000) g";
    let scene = unpaced(rows);
    let busy = |server: &integration_tests::client::Endpoint| -> String {
        server.psql("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessShareLock'")
    };
    for _ in 0..repeats() {
        let mut running = scene.pgshadow.begin(&["verify", "--again"]);
        let from = std::time::Instant::now();
        while busy(&scene.source).trim() == "0" {
            assert!(from.elapsed() < LIMIT);
        }
        scene.pgshadow.run(&["verify", "--stop"], LIMIT);
        running.wait().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!((busy(&scene.source).trim(), busy(&scene.target).trim()), ("0", "0"));
    }
}

/// Tables that snapshots aren't kept long enough for are compared in parts; what differs is found all the same, and nothing else is.
#[test]
fn large_tables_are_compared_in_parts() {
    let more = "CREATE TABLE pairs (u uuid, \"N\" int, t text, v int, PRIMARY KEY (u, \"N\", t));
        INSERT INTO pairs SELECT md5((g / 7)::text)::uuid, g % 3 - 1, 't' || g, 0 FROM generate_series(1, 20000) g;
        CREATE DOMAIN late AS timestamptz; CREATE TABLE moments (at late PRIMARY KEY, v int);
        INSERT INTO moments SELECT '2026-03-29 00:00:00+00'::timestamptz + g * interval '7 min', 0 FROM generate_series(1, 15000) g;
        INSERT INTO moments VALUES ('infinity', 1), ('-infinity', 2)";
    let scene = Scene::with(&format!("{SCHEMA}; {more}"), "", |builder| {
        without_pace(builder).set("verify", "snapshot_age_max", "\"1ms\"")
    });
    let script = SCRIPT.replace("random(1, 20000)", "random(1, 10000)");
    let script = format!(
        "{script}\nUPDATE pairs SET v = v + 1 WHERE u = md5((:i / 70)::text)::uuid;\nUPDATE moments SET v = v + 1 WHERE at = '2026-03-29 00:00:00+00'::timestamptz + :j * interval '7 min';\n"
    );
    let of = |report: &Value, name: &str| {
        tables(report).iter().find(|table| table["table"]["name"] == name).cloned().unwrap()
    };
    under_load(&scene, &script, || {
        let (report, equal) = verify(&scene, &[]);
        assert!(equal, "{report:#}");
        for (name, rows) in [("busy", 20_000), ("pairs", 20_000), ("moments", 15_002)] {
            let table = of(&report, name);
            assert!(table["snapshots"].as_u64().unwrap() > 1 && table["rows"] == rows, "{table:#}");
        }
        assert_eq!(of(&report, "bag")["snapshots"], 1, "it has no key");
        assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true, "{}", scene.pgshadow.status()["certificate"]);
        scene.target.psql(
            "UPDATE busy SET t = 'other' WHERE id IN (10001, 15000, 20000); DELETE FROM pairs WHERE t = 't19999'; INSERT INTO busy VALUES (-1, 1, 'new');
            UPDATE moments SET v = 9 WHERE at = 'infinity'; UPDATE moments SET at = '0044-03-15 12:00:00+00 BC' WHERE at = '-infinity'",
        );
        let (report, equal) = verify(&scene, &[]);
        assert!(!equal);
        let found: Vec<String> =
            differences(&report).into_iter().map(|text| text.split_once(' ').unwrap().1.to_owned()).collect();
        let key = scene
            .source
            .psql("SELECT format('u=%s, N=%s, t=%s missing_row', u, \"N\", t) FROM pairs WHERE t = 't19999'");
        let mut expected = vec![
            "id=-1 extra_row",
            "id=10001 value t",
            "id=15000 value t",
            "id=20000 value t",
            key.trim(),
            "at=infinity value v",
            "at=-infinity missing_row",
            "at=0044-03-15 12:00:00+00 BC extra_row",
        ];
        let mut found: Vec<&str> = found.iter().map(String::as_str).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    });
}

/// A verify that a crash of pgshadow has interrupted is gone on with: what is proven isn't compared again, unless that is asked for, or it isn't any more.
#[test]
fn an_interrupted_verify_goes_on() {
    let large = "CREATE TABLE large (id int PRIMARY KEY, t text); INSERT INTO large SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g";
    let mut scene =
        Scene::with(&format!("{SCHEMA}; {large}"), "", |builder| builder.set("verify", "rate_max", "\"8MiB\""));
    let mut running = scene.pgshadow.begin(&["verify"]);
    let from = std::time::Instant::now();
    loop {
        let (_, body) = scene.pgshadow.http("/api/verify").expect("it answers");
        let state: Value = serde_json::from_str(&body).unwrap();
        let progress = &state["running"]["progress"];
        if progress["tables_done"].as_u64().is_some_and(|done| done >= 6) {
            let waits = progress["waiting"].as_str().unwrap_or_default();
            assert!(waits.starts_with("the limit, rate_max: 8.0 MiB/s"), "{state:#}");
            break;
        }
        assert!(from.elapsed() < LIMIT, "{state:#}");
        std::thread::sleep(Duration::from_millis(20));
    }
    scene.pgshadow.kill9();
    running.wait().unwrap();
    scene.pgshadow.start();
    // `named` isn't proven any more
    scene.app().psql("ALTER TABLE named ADD COLUMN more int");
    scene.drain();
    let (report, equal) = verify(&scene, &[]);
    assert!(equal, "{report:#}");
    let before = |report: &Value| -> BTreeSet<String> {
        let known = tables(report).iter().filter(|table| table["snapshots"] == 0);
        known.map(|table| table["table"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let known = before(&report);
    assert!(known.len() >= 4 && known.contains("kinds"), "{known:?}");
    assert!(!known.contains("large") && !known.contains("named"), "{known:?}");
    assert_eq!(tables(&report).iter().find(|t| t["table"]["name"] == "kinds").unwrap()["rows"], 60);
    assert_eq!(scene.pgshadow.status()["certificate"]["valid"], true, "{}", scene.pgshadow.status()["certificate"]);
    // that one has ended
    assert_eq!(before(&verify(&scene, &["public.bag"]).0), BTreeSet::new());
}

/// Of several keys a table is compared by the one by which it is mended.
#[test]
fn a_table_with_several_keys_is_mended() {
    let scene = Scene::of(
        "CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int NOT NULL, v int); CREATE UNIQUE INDEX ON t (a, b); CREATE UNIQUE INDEX ON t (c);
         INSERT INTO t VALUES (1, 2, 3, 4)",
    );
    scene.target.psql("UPDATE t SET v = 9");
    assert_eq!(differences(&verify(&scene, &[]).0), BTreeSet::from(["t a=1, b=2 value v".to_owned()]));
    let mended = scene.pgshadow.run(&["repair"], LIMIT);
    assert_eq!(mended.status.code(), Some(0), "{mended:#?}");
    assert!(verify(&scene, &[]).1);
}

/// A text has other bytes in another encoding, and is the same text.
#[test]
fn databases_of_different_encodings_are_compared() {
    let servers = [Cluster::old(), Cluster::newest()];
    let made = "CREATE DATABASE latin OWNER app TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING";
    servers[0].superuser().psql(&format!("{made} 'LATIN1'"));
    servers[1].superuser().psql(&format!("{made} 'UTF8'"));
    let [source, target] = servers.each_ref().map(|server| {
        server.superuser().psql("GRANT CREATE ON DATABASE latin TO pgshadow");
        let place = Endpoint { database: "latin".to_owned(), ..server.app() };
        place.psql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, U&'\\00e9t\\00e9 ' || g FROM generate_series(1, 100) g");
        place
    });
    let pgshadow = Pgshadow::between(&servers[0], &servers[1]).database("latin").start();
    let scene = Scene { source, target, pgshadow };
    let (report, equal) = verify(&scene, &[]);
    assert!(equal && tables(&report)[0]["rows"] == 100, "{report:#}");
    scene.target.psql("UPDATE t SET v = U&'\\00e8t\\00e9 7' WHERE id = 7");
    assert_eq!(differences(&verify(&scene, &[]).0), BTreeSet::from(["t id=7 value v".to_owned()]));
}

/// What long values hold is read as well, and counts for the limit.
#[test]
fn long_values_are_read_no_faster_than_may_be() {
    let rows = "CREATE TABLE long (id int PRIMARY KEY, v text); ALTER TABLE long ALTER v SET STORAGE EXTERNAL;
        INSERT INTO long SELECT g, repeat(md5(g::text), 32768) FROM generate_series(1, 16) g";
    let scene = Scene::with(rows, "", |builder| without_pace(builder).set("verify", "rate_max", "\"4MiB\""));
    let begun = std::time::Instant::now();
    assert!(verify(&scene, &[]).1);
    // 32 MiB on both sides together
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
}
