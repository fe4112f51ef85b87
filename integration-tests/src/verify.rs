//! What the scenarios of `verify` and of its certificates share.
use crate::proxy::PgshadowBuilder;
use crate::scene::Scene;
use crate::workload::Load;
use serde_json::Value;
use std::time::Duration;

/// How long a verify may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Writes that a verify must not take for differences: many rows of `busy`, `bag` and `kinds` from 100 on.
pub const SCHEMA: &str = "
CREATE TABLE busy (id int PRIMARY KEY, v bigint NOT NULL, t text);
INSERT INTO busy SELECT g, 0, 'row ' || g FROM generate_series(1, 20000) g;
CREATE TABLE bag (a int, b text);
INSERT INTO bag SELECT g % 50, 'b' FROM generate_series(1, 300) g;
CREATE TABLE kinds (id int PRIMARY KEY, bytes bytea, f8 float8, f4 float4, n numeric, t text, js json, jb jsonb,
  ts timestamp, tz timestamptz, iv interval, a int[], d date);
INSERT INTO kinds SELECT g, '\\x0102', 0, 0, 1.0, 'a', '{\"a\": 1}', '{\"a\": 1, \"b\": 2}', '2026-01-01', '2026-01-01 00:00:00+00',
  '1 day', '{1,2}', '2026-01-01' FROM generate_series(1, 60) g;
CREATE TABLE named (k text PRIMARY KEY, v int);
INSERT INTO named VALUES ('a', 1), ('B', 2), ('ä', 3), ('z z', 4), ('', 5), ('Z', 6);
CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (50);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (50) TO (1000);
INSERT INTO parts SELECT g, g FROM generate_series(1, 99) g;
CREATE TABLE \"Odd \"\"Name\" (\"Ke y\" int, \"select\" text, PRIMARY KEY (\"Ke y\", \"select\"));
INSERT INTO \"Odd \"\"Name\" VALUES (1, 'x, y'), (2, '');
CREATE TABLE nothing ();
CREATE TABLE empty (a int);
CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO made VALUES (1), (2);
";
/// A load on [`SCHEMA`].
pub const SCRIPT: &str = "\\set i random(1, 20000)
\\set j random(100, 130)
\\set k random(0, 49)
UPDATE busy SET v = (v * 31 + :i) % 1000003 WHERE id = :i;
INSERT INTO kinds (id, n) VALUES (:j, :i) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
BEGIN;
DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = :k AND b = 'w' LIMIT 1 FOR UPDATE SKIP LOCKED);
INSERT INTO bag VALUES (:k, 'w');
END;
";

/// For a load at its full speed: it would set the pace, and a verify take minutes.
pub fn unpaced(schema: &str) -> Scene {
    Scene::with(schema, "", without_pace)
}

/// Nothing sets the pace of a verify.
pub fn without_pace(builder: PgshadowBuilder) -> PgshadowBuilder {
    builder.set("verify", "latency_rise_max", "\"\"")
}

/// The scene under load for as long as `work` takes.
pub fn under_load(scene: &Scene, script: &str, work: impl FnOnce()) {
    Load::own("", script).clients(4).during(&scene.app(), work);
}

/// Its report, and whether it said that all is equal.
pub fn verify(scene: &Scene, tables: &[&str]) -> (Value, bool) {
    let mut arguments = vec!["verify", "--json"];
    tables.iter().for_each(|table| arguments.extend(["--table", table]));
    let finished = scene.pgshadow.run(&arguments, LIMIT);
    let code = finished.status.code();
    assert!(matches!(code, Some(0 | 3)), "{finished:#?}\n{}", scene.pgshadow.log_tail());
    (serde_json::from_str(&finished.stdout).expect("--json gives JSON"), code == Some(0))
}

/// The tables of a report.
pub fn tables(report: &Value) -> &Vec<Value> {
    report["tables"].as_array().expect("a report has tables")
}
