//! What definitions lock, and what they do meanwhile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]
use pgshadow_sql::{LockMode, parse};

/// `mode table (work)` of each lock; `of` stands in front of an index's name.
fn locks(text: &str) -> Vec<String> {
    let parsed = parse(text).unwrap();
    let of_one = |lock: &pgshadow_sql::TableLock| {
        let schema = lock.relation.schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        let index = if lock.of_index { "of " } else { "" };
        let work = lock.work.map(|work| format!(": {}", work.what)).unwrap_or_default();
        format!("{} {index}{schema}{}{work}", lock.mode.sql(), lock.relation.name)
    };
    parsed.statements[0].locks.iter().map(of_one).collect()
}

#[test]
fn alterations() {
    const ANEW: &str = "ACCESS EXCLUSIVE t: writes anew all rows of";
    const CHECKED: &str = "ACCESS EXCLUSIVE t: checks all rows of";
    for (part, expected) in [
        ("ADD COLUMN a int", vec!["ACCESS EXCLUSIVE t"]),
        ("ADD COLUMN a int NOT NULL DEFAULT 7", vec!["ACCESS EXCLUSIVE t"]),
        ("ADD COLUMN a timestamptz DEFAULT now()", vec!["ACCESS EXCLUSIVE t"]),
        ("ADD COLUMN a date DEFAULT CURRENT_DATE", vec!["ACCESS EXCLUSIVE t"]),
        ("ADD COLUMN a mood DEFAULT 'sad'::mood", vec!["ACCESS EXCLUSIVE t"]),
        ("ADD COLUMN a uuid DEFAULT gen_random_uuid()", vec![ANEW]),
        ("ADD COLUMN a bigserial", vec![ANEW]),
        ("ADD COLUMN a int GENERATED ALWAYS AS (b + 1) STORED", vec![ANEW]),
        ("ADD COLUMN a int UNIQUE", vec!["ACCESS EXCLUSIVE t: makes an index over all rows of"]),
        ("ADD COLUMN a int CHECK (a > 0)", vec![CHECKED]),
        ("ADD COLUMN a int REFERENCES s.u", vec!["ACCESS EXCLUSIVE t", "SHARE ROW EXCLUSIVE s.u"]),
        ("ALTER COLUMN a TYPE bigint", vec![ANEW]),
        ("ALTER COLUMN a SET NOT NULL", vec!["ACCESS EXCLUSIVE t: reads all rows of"]),
        ("ALTER COLUMN a SET DEFAULT 1", vec!["ACCESS EXCLUSIVE t"]),
        ("ALTER COLUMN a SET STATISTICS 100", vec![]),
        ("ADD CHECK (a > 0)", vec![CHECKED]),
        ("ADD CHECK (a > 0) NOT VALID", vec!["ACCESS EXCLUSIVE t"]),
        ("VALIDATE CONSTRAINT c", vec![]),
        ("ADD PRIMARY KEY (a)", vec!["ACCESS EXCLUSIVE t: makes an index over all rows of"]),
        ("ADD PRIMARY KEY USING INDEX i", vec!["ACCESS EXCLUSIVE t"]),
        (
            "ADD FOREIGN KEY (a) REFERENCES u",
            vec!["SHARE ROW EXCLUSIVE t: checks all rows of", "SHARE ROW EXCLUSIVE u"],
        ),
        ("ADD FOREIGN KEY (a) REFERENCES u NOT VALID", vec!["SHARE ROW EXCLUSIVE t", "SHARE ROW EXCLUSIVE u"]),
        ("DISABLE TRIGGER g", vec!["SHARE ROW EXCLUSIVE t"]),
        ("SET (fillfactor = 70)", vec![]),
        ("SET UNLOGGED", vec![ANEW]),
        ("SET TABLESPACE other", vec![ANEW]),
        ("ATTACH PARTITION p FOR VALUES IN (1)", vec!["ACCESS EXCLUSIVE p: checks all rows of"]),
        ("DETACH PARTITION p", vec!["ACCESS EXCLUSIVE t", "ACCESS EXCLUSIVE p"]),
        ("DETACH PARTITION p CONCURRENTLY", vec![]),
        ("VALIDATE CONSTRAINT c, DROP COLUMN a", vec!["ACCESS EXCLUSIVE t"]),
        ("RENAME TO u", vec!["ACCESS EXCLUSIVE t"]),
        ("RENAME COLUMN a TO b", vec!["ACCESS EXCLUSIVE t"]),
        ("SET SCHEMA s", vec!["ACCESS EXCLUSIVE t"]),
        ("OWNER TO r", vec!["ACCESS EXCLUSIVE t"]),
    ] {
        assert_eq!(locks(&format!("ALTER TABLE t {part}")), expected, "{part}");
    }
}

#[test]
fn others() {
    for (text, expected) in [
        ("CREATE INDEX ON s.t (a)", vec!["SHARE s.t: makes an index over all rows of"]),
        ("CREATE INDEX CONCURRENTLY ON t (a)", vec![]),
        ("DROP INDEX s.i", vec!["ACCESS EXCLUSIVE of s.i"]),
        ("DROP INDEX CONCURRENTLY i", vec![]),
        ("DROP TABLE t, s.u", vec!["ACCESS EXCLUSIVE t", "ACCESS EXCLUSIVE s.u"]),
        ("DROP TRIGGER g ON t", vec!["ACCESS EXCLUSIVE t"]),
        ("DROP VIEW v", vec!["ACCESS EXCLUSIVE v"]),
        ("DROP FUNCTION f()", vec![]),
        (
            "CREATE TABLE t (a int REFERENCES u, FOREIGN KEY (a) REFERENCES w)",
            vec!["SHARE ROW EXCLUSIVE u", "SHARE ROW EXCLUSIVE w"],
        ),
        ("CREATE TABLE p PARTITION OF t FOR VALUES IN (1)", vec!["ACCESS EXCLUSIVE t"]),
        ("CREATE TABLE p () INHERITS (t)", vec![]),
        ("CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()", vec!["SHARE ROW EXCLUSIVE t"]),
        ("CREATE POLICY p ON t", vec!["ACCESS EXCLUSIVE t"]),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", vec!["ACCESS EXCLUSIVE v"]),
        ("CREATE VIEW v AS SELECT 1", vec![]),
        ("REFRESH MATERIALIZED VIEW m", vec!["ACCESS EXCLUSIVE m: computes all rows of"]),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", vec![]),
        ("CLUSTER t USING i", vec!["ACCESS EXCLUSIVE t: writes anew all rows of"]),
        ("VACUUM (FULL) t", vec!["ACCESS EXCLUSIVE t: writes anew all rows of"]),
        ("VACUUM t", vec![]),
        ("REINDEX TABLE t", vec!["ACCESS EXCLUSIVE t: makes anew the indexes of"]),
        ("REINDEX INDEX i", vec!["ACCESS EXCLUSIVE of i: makes anew the indexes of"]),
        ("REINDEX INDEX CONCURRENTLY i", vec![]),
        ("ALTER INDEX i RENAME TO j", vec![]),
        ("ALTER SEQUENCE s RESTART", vec![]),
        ("COMMENT ON TABLE t IS 'c'", vec![]),
        ("GRANT SELECT ON t TO r", vec![]),
        ("INSERT INTO t VALUES (1)", vec![]),
    ] {
        assert_eq!(locks(text), expected, "{text}");
    }
}

#[test]
fn partitions_are_locked_where_the_statement_reaches_them() {
    let children = |text: &str| parse(text).unwrap().statements[0].locks.iter().map(|l| l.children).collect::<Vec<_>>();
    for (text, expected) in [
        ("ALTER TABLE t ADD COLUMN a int", vec![true]),
        ("ALTER TABLE ONLY t ADD COLUMN a int", vec![false]),
        ("CREATE INDEX ON t (a)", vec![true]),
        ("CREATE INDEX ON ONLY t (a)", vec![false]),
        ("CREATE TABLE p PARTITION OF t FOR VALUES IN (1)", vec![false]),
        ("ALTER TABLE t DETACH PARTITION p", vec![false, true]),
        ("ALTER TABLE t RENAME TO u", vec![false]),
        ("ALTER TABLE t RENAME COLUMN a TO b", vec![true]),
        ("ALTER TABLE t SET SCHEMA s", vec![false]),
        ("DROP TABLE t", vec![true]),
    ] {
        assert_eq!(children(text), expected, "{text}");
    }
}

#[test]
fn the_strongest_is_the_last() {
    assert!(LockMode::Share < LockMode::ShareRowExclusive && LockMode::Exclusive < LockMode::AccessExclusive);
}
