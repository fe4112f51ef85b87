//! What reaches more than one row or table at once, through pgshadow from the older to the newest server: foreign keys,
//! COPY, TRUNCATE, DDL, roles. Afterwards both databases are equal, and nothing was noticed, mended or declared suspect.
use integration_tests::equal;
use integration_tests::scene::Scene;

#[track_caller]
fn exact(schema: &str, script: &str) {
    let scene = Scene::of(schema);
    scene.app().psql(script);
    scene.expect_exact();
}

const KEYED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT g, g * 10, 'row ' || g FROM generate_series(1, 20) g;";

#[test]
fn foreign_keys_cascade_and_set_null() {
    exact(
        "CREATE TABLE a (id int PRIMARY KEY, v int);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE, v int);
        CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON DELETE CASCADE);
        CREATE TABLE d (id int PRIMARY KEY, a int REFERENCES a ON DELETE SET NULL);
        CREATE TABLE self (id int PRIMARY KEY, up int REFERENCES self ON DELETE CASCADE);
        INSERT INTO a SELECT g, g FROM generate_series(1, 10) g; INSERT INTO b SELECT g, 1 + g % 10, g FROM generate_series(1, 40) g;
        INSERT INTO c SELECT g, 1 + g % 40 FROM generate_series(1, 80) g; INSERT INTO d SELECT g, 1 + g % 10 FROM generate_series(1, 20) g;
        INSERT INTO self SELECT g, nullif(g - 1, 0) FROM generate_series(1, 9) g;",
        "DELETE FROM a WHERE id = 1; DELETE FROM a WHERE id IN (2, 3);
        BEGIN; DELETE FROM b WHERE id = 5; INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (5, 1, 1); COMMIT;
        BEGIN; DELETE FROM a WHERE id = 4; ROLLBACK; DELETE FROM self WHERE id = 5; UPDATE b SET a = 1 WHERE id = 7;
        BEGIN; DELETE FROM a WHERE id = 5; SAVEPOINT s; DELETE FROM a WHERE id = 6; ROLLBACK TO s; COMMIT;",
    );
}

#[test]
fn a_parent_and_its_heir_with_the_same_key() {
    exact(
        "CREATE TABLE p (id int PRIMARY KEY, n int); CREATE TABLE heir (s text, PRIMARY KEY (id)) INHERITS (p);
        CREATE TABLE keyless (n int); CREATE TABLE heir_of_keyless () INHERITS (keyless);
        CREATE TABLE parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);",
        "INSERT INTO p VALUES (7, 1), (8, 1); INSERT INTO heir VALUES (7, 2, 'heir'), (8, 2, 'heir');
        DELETE FROM ONLY p WHERE id = 7; UPDATE ONLY p SET n = 5 WHERE id = 8; UPDATE heir SET n = 6 WHERE id = 8;
        INSERT INTO p VALUES (9, 1) ON CONFLICT (id) DO UPDATE SET n = 9;
        INSERT INTO keyless VALUES (1), (1); INSERT INTO heir_of_keyless VALUES (1), (2);
        DELETE FROM ONLY keyless WHERE n = 1;
        INSERT INTO parts VALUES (1, 1), (2, 2); UPDATE parts SET v = 3 WHERE id = 1; DELETE FROM parts WHERE id = 2;
        UPDATE low SET v = 4 WHERE id = 1;",
    );
}

#[test]
fn a_row_of_a_parent_is_healed_beside_its_heir_s() {
    let scene = Scene::with(
        "CREATE TABLE p (id int PRIMARY KEY, n int); CREATE TABLE heir (s text, PRIMARY KEY (id)) INHERITS (p);
        INSERT INTO p VALUES (7, 1); INSERT INTO heir VALUES (7, 2, 'heir');",
        "UPDATE ONLY p SET n = 99 WHERE id = 7",
        |builder| builder,
    );
    scene.app().psql("DELETE FROM ONLY p WHERE id = 7; INSERT INTO p VALUES (7, 3);");
    scene.drain();
    let different = integration_tests::equal::differences(&scene.source, &scene.target);
    assert!(different.is_empty(), "{different:?}");
}

#[test]
fn rows_of_one_statement_that_need_each_other() {
    for action in ["NO ACTION", "CASCADE", "SET NULL"] {
        exact(
            &format!(
                "CREATE TABLE ring (id int PRIMARY KEY, up int REFERENCES ring ON DELETE {action}, v text);
                CREATE TABLE named (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, of text REFERENCES named (name));"
            ),
            "INSERT INTO ring VALUES (1, 2, 'a'), (2, 1, 'b');
            INSERT INTO ring VALUES (10, 9, 'c'), (9, 10, 'd') ON CONFLICT (id) DO UPDATE SET up = excluded.up;
            INSERT INTO ring SELECT g, 101 + g % 50, 'long' FROM generate_series(101, 150) g;
            UPDATE ring SET v = v || '!', up = CASE id WHEN 1 THEN 2 ELSE up END;
            INSERT INTO named (name, of) VALUES ('x', 'y'), ('y', 'z'), ('z', 'x');
            UPDATE named SET of = CASE name WHEN 'x' THEN 'z' WHEN 'y' THEN 'x' ELSE 'y' END;
            BEGIN; INSERT INTO ring VALUES (201, 202, 'e'), (202, 201, 'f'); INSERT INTO ring VALUES (203, 201, 'g');
            UPDATE ring SET v = 'h' WHERE id = 202; DELETE FROM ring WHERE id > 200; COMMIT;
            DELETE FROM ring WHERE id IN (9, 10); DELETE FROM ring WHERE id > 100; DELETE FROM named;",
        );
    }
}

#[test]
fn statements_over_one_tree_in_one_transaction() {
    for action in ["CASCADE", "SET NULL", "NO ACTION"] {
        let again = if action == "NO ACTION" { "" } else { "DELETE FROM tree WHERE id IN (31, 4, 8);" };
        exact(
            &format!(
                "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE {action}, v int);
                INSERT INTO tree SELECT g, nullif(g / 2, 0), g FROM generate_series(1, 31) g;"
            ),
            &format!(
                "BEGIN; INSERT INTO tree VALUES (102, 101, 0), (101, 100, 0), (100, 31, 0), (103, 103, 0);
                UPDATE tree SET up = 102 WHERE id IN (16, 17, 18); {again} COMMIT;
                BEGIN; INSERT INTO tree VALUES (202, 201, 0), (201, 1, 0); UPDATE tree SET v = 7 WHERE id = 202;
                UPDATE tree SET up = 1 WHERE id = 202; DELETE FROM tree WHERE id = 201; INSERT INTO tree VALUES (201, 202, 5); COMMIT;
                BEGIN; INSERT INTO tree SELECT g, g + 1, 0 FROM generate_series(301, 330) g UNION ALL SELECT 331, 1, 0;
                DELETE FROM tree WHERE id BETWEEN 301 AND 310; UPDATE tree SET up = NULL WHERE up > 300; COMMIT;"
            ),
        );
    }
}

#[test]
fn a_table_that_refers_to_itself() {
    for action in ["CASCADE", "SET NULL", "NO ACTION"] {
        exact(
            &format!(
                "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE {action}, v int);
                INSERT INTO tree SELECT g, nullif(g / 2, 0), g FROM generate_series(1, 31) g;"
            ),
            "INSERT INTO tree VALUES (102, 101, 0), (101, 100, 0), (100, 31, 0), (103, 103, 0);
            UPDATE tree SET up = 102 WHERE id IN (16, 17, 18); UPDATE tree SET up = id, v = -1 WHERE id IN (30, 29);
            DELETE FROM tree WHERE id >= 100 OR id IN (16, 17, 18, 31, 8); DELETE FROM tree WHERE id IN (30, 29);
            BEGIN; DELETE FROM tree WHERE id > 15; INSERT INTO tree VALUES (201, 200, 1), (200, 1, 1); COMMIT;",
        );
    }
}

/// What the shadow refused comes no later than the next change of the same row, or it would undo that.
#[test]
fn a_row_that_can_t_be_written_is_not_written_behind_a_later_change() {
    for script in [
        "UPDATE tree SET up = 9 WHERE id = 5; UPDATE tree SET up = 1 WHERE id = 5; DELETE FROM tree WHERE id = 9; INSERT INTO tree VALUES (9, 1, 0)",
        "INSERT INTO tree VALUES (20, 9, 0); TRUNCATE tree; INSERT INTO tree VALUES (9, NULL, 0)",
    ] {
        let scene = Scene::of(
            "CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree, v int); INSERT INTO tree SELECT g, NULL, g FROM generate_series(1, 9) g;",
        );
        scene.target.psql("DELETE FROM tree WHERE id = 9");
        scene.app().psql(&format!("BEGIN; {script}; COMMIT"));
        scene.drain();
        let found = equal::differences(&scene.source, &scene.target);
        assert!(found.is_empty(), "{script}: {found:?}");
    }
}

#[test]
fn a_foreign_key_violation_reaches_the_client_and_nobody_else() {
    let scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a);
        INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 1);",
    );
    for refused in ["INSERT INTO b VALUES (2, 99)", "DELETE FROM a WHERE id = 1"] {
        assert!(scene.app().try_psql(refused).unwrap_err().contains("23503"), "{refused}");
    }
    scene.app().psql("DELETE FROM a WHERE id = 2; INSERT INTO b VALUES (2, 1)");
    scene.expect_exact();
}

#[test]
fn deferred_constraints_are_checked_at_the_end() {
    let scene = Scene::of(
        "CREATE TABLE a (id int PRIMARY KEY);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO u VALUES (1, 1), (2, 2);",
    );
    scene.app().psql(
        "BEGIN; INSERT INTO b VALUES (1, 1); INSERT INTO a VALUES (1); COMMIT;
        BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO a VALUES (2); INSERT INTO b VALUES (2, 2); COMMIT;
        BEGIN; UPDATE u SET n = 2 WHERE id = 1; UPDATE u SET n = 1 WHERE id = 2; COMMIT;",
    );
    let refused = scene.app().try_psql("BEGIN; INSERT INTO b VALUES (3, 99); COMMIT;").unwrap_err();
    assert!(refused.contains("23503"), "{refused}");
    scene.expect_exact();
}

#[test]
fn unique_values_move_between_rows() {
    exact(
        "CREATE TABLE u (id int PRIMARY KEY, n int UNIQUE, v int); INSERT INTO u VALUES (1, 1, 0), (2, 2, 0), (3, 3, 0);",
        "BEGIN; UPDATE u SET n = 10 WHERE id = 1; UPDATE u SET n = 1 WHERE id = 2; UPDATE u SET n = 2 WHERE id = 1; COMMIT;
        DELETE FROM u WHERE id = 3; INSERT INTO u VALUES (4, 3, 1); UPDATE u SET n = n + 100;
        DELETE FROM u WHERE id = 4; INSERT INTO u VALUES (4, 103, 2); UPDATE u SET v = 1 WHERE n = 101;",
    );
}

#[test]
fn values_that_others_refer_to_move_between_rows() {
    // one of the same name in another schema, too
    for child in ["child", "other.parent"] {
        exact(
            &format!(
                "CREATE TABLE parent (id int PRIMARY KEY, u int NOT NULL UNIQUE, n int); INSERT INTO parent SELECT g, g, g FROM generate_series(1, 4) g;
                CREATE SCHEMA other; CREATE TABLE {child} (id int PRIMARY KEY, parent int REFERENCES parent (u), n int);
                INSERT INTO {child} SELECT g, g, g FROM generate_series(1, 2) g;"
            ),
            &format!(
                "INSERT INTO parent VALUES (1, 9, 1), (7, 1, 1) ON CONFLICT (id) DO UPDATE SET u = excluded.u, n = 10;
                BEGIN; INSERT INTO parent VALUES (7, 11, 2), (8, 1, 2) ON CONFLICT (id) DO UPDATE SET u = excluded.u, n = 20;
                UPDATE {child} SET n = 5; INSERT INTO parent VALUES (8, 12, 3), (9, 1, 3) ON CONFLICT (id) DO UPDATE SET u = excluded.u;
                UPDATE parent SET n = 30 WHERE id > 6; UPDATE {child} SET parent = 9 WHERE id = 1; DELETE FROM parent WHERE u = 1; COMMIT;"
            ),
        );
    }
}

#[test]
fn copy_from_stdin_in_text_and_csv() {
    exact(
        &format!("{KEYED} CREATE TABLE serial_one (id serial PRIMARY KEY, v text, n numeric DEFAULT 7);"),
        "COPY t FROM STDIN;\n100\t1\ta\\tb\\\\\n101\t\\N\tü\n\\.\n\
        COPY t (s, id) FROM STDIN WITH (FORMAT csv, HEADER);\ns,id\n\"quoted, \"\"text\"\"\",102\n,103\n\\.\n\
        BEGIN;\nCOPY t FROM STDIN WITH (DELIMITER '|', NULL 'null');\n104|null|x\n\\.\nUPDATE t SET v = 5 WHERE id = 104;\nCOMMIT;\n\
        BEGIN;\nCOPY t FROM STDIN;\n105\t1\trolled back\n\\.\nROLLBACK;\n\
        COPY serial_one (id, v) FROM STDIN;\n50\tx\n\\.\n\
        COPY (SELECT id FROM t WHERE id > 100 ORDER BY id) TO STDOUT;\n",
    );
}

#[test]
fn a_failed_copy_leaves_nothing() {
    let scene = Scene::of(KEYED);
    let refused = scene.app().try_psql("COPY t FROM STDIN;\n100\t1\ta\n1\t1\tdouble\n\\.\n").unwrap_err();
    assert!(refused.contains("23505"), "{refused}");
    scene.app().psql("INSERT INTO t VALUES (200)");
    scene.expect_exact();
}

#[test]
fn truncate_is_a_barrier_for_its_tables() {
    exact(
        &format!(
            "{KEYED} CREATE TABLE a (id serial PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
            INSERT INTO a (v) VALUES (1), (2); INSERT INTO b VALUES (1, 1);"
        ),
        "INSERT INTO t VALUES (100); TRUNCATE t; INSERT INTO t VALUES (1);
        BEGIN; TRUNCATE t; INSERT INTO t VALUES (2); ROLLBACK; BEGIN; INSERT INTO t VALUES (3); TRUNCATE ONLY t; INSERT INTO t VALUES (4); COMMIT;
        TRUNCATE a, b RESTART IDENTITY; INSERT INTO a (v) VALUES (1); TRUNCATE a CASCADE; INSERT INTO a VALUES (9, 9); INSERT INTO b VALUES (1, 9);",
    );
}

#[test]
fn tables_are_made_altered_and_dropped() {
    exact(
        KEYED,
        "CREATE TABLE fresh (id int PRIMARY KEY, v int); INSERT INTO fresh VALUES (1, 1), (2, 2);
        ALTER TABLE fresh ADD COLUMN s text; UPDATE fresh SET s = 'x' WHERE id = 1; ALTER TABLE fresh RENAME COLUMN v TO w;
        UPDATE fresh SET w = 5; ALTER TABLE fresh DROP COLUMN s; INSERT INTO fresh VALUES (3, 3);
        CREATE INDEX fresh_w ON fresh (w); ALTER TABLE fresh RENAME TO renamed; INSERT INTO renamed VALUES (4, 4);
        ALTER TABLE t ADD COLUMN extra int NOT NULL DEFAULT 7; UPDATE t SET extra = 8 WHERE id < 5; INSERT INTO t VALUES (100, 1, 'x', 9);
        ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0); CREATE UNIQUE INDEX ON t (s); INSERT INTO t VALUES (101, 1, 'y', 9);
        CREATE SCHEMA s2; CREATE TABLE s2.x (id int PRIMARY KEY); INSERT INTO s2.x VALUES (1); DROP TABLE renamed;
        CREATE VIEW seen AS SELECT * FROM t; COMMENT ON TABLE t IS 'a; comment'; DROP VIEW seen;
        CREATE TYPE colour AS ENUM ('red'); ALTER TYPE colour ADD VALUE 'blue'; CREATE TABLE paint (id int PRIMARY KEY, c colour, cs colour[]);
        INSERT INTO paint VALUES (1, 'blue', '{red,blue}');",
    );
}

#[test]
fn ddl_in_transactions_with_rows_around_it() {
    exact(
        KEYED,
        "BEGIN; CREATE TABLE x (id int PRIMARY KEY); INSERT INTO x VALUES (1); ALTER TABLE x ADD COLUMN v int; INSERT INTO x VALUES (2, 2); COMMIT;
        BEGIN; CREATE TABLE y (id int PRIMARY KEY); INSERT INTO y VALUES (1); ROLLBACK;
        BEGIN; ALTER TABLE t ADD COLUMN z int; UPDATE t SET z = 1 WHERE id = 1; ROLLBACK; UPDATE t SET v = 1 WHERE id = 2;
        BEGIN; INSERT INTO x VALUES (3, 3); DROP TABLE t; COMMIT; CREATE TABLE t (s text PRIMARY KEY); INSERT INTO t VALUES ('other');",
    );
}

#[test]
fn a_latin1_session_writes_what_it_means() {
    let scene = Scene::of(KEYED);
    scene.app().psql(
        "UPDATE t SET s = 'ü' WHERE id = 1; SET client_encoding = 'LATIN1';
        UPDATE t SET s = s || '!' WHERE id IN (1, 2); INSERT INTO t VALUES (100, 1, U&'\\00e4\\00f6'); DELETE FROM t WHERE id = 3;
        UPDATE t SET s = chr(8364) WHERE id = 4;",
    );
    assert_eq!(scene.source.psql("SELECT s FROM t WHERE id IN (1, 4, 100) ORDER BY id"), "ü!\n€\näö");
    scene.expect_exact();
}

#[test]
fn blank_padded_columns_in_a_latin1_session() {
    exact(
        "CREATE TABLE c (id char(4) PRIMARY KEY, c char(6), one \"char\" NULL, n name); ALTER TABLE c DROP COLUMN one;
        INSERT INTO c VALUES ('k', 'old', 'n'); CREATE VIEW v AS SELECT * FROM c; CREATE TABLE keyless (c char(6));
        INSERT INTO keyless VALUES ('x'), (NULL);",
        "SET client_encoding = 'LATIN1';
        INSERT INTO c VALUES ('a', 'a'), ('b', NULL), ('c', ''), ('d', chr(228) || ' b'); UPDATE c SET c = 'x' WHERE id = 'a';
        INSERT INTO v VALUES ('e', 'e'); UPDATE c SET id = 'f' WHERE id = 'e'; UPDATE c SET id = 'g' || left(id, 1) WHERE c = 'old';
        DELETE FROM c WHERE id = 'b'; UPDATE keyless SET c = 'y' WHERE c = 'x'; DELETE FROM keyless WHERE c IS NULL;",
    );
}

#[test]
fn another_role_writes_with_its_own_rights() {
    let scene = Scene::of(KEYED);
    for server in integration_tests::scene::servers() {
        // Roles are the cluster's.
        server.superuser().psql("CREATE ROLE writer; GRANT writer TO app;");
    }
    for place in [&scene.source, &scene.target] {
        place.psql("GRANT SELECT, INSERT, UPDATE ON t TO writer");
    }
    let refused = scene.app().try_psql("SET ROLE writer; UPDATE t SET v = 1 WHERE id = 1; DELETE FROM t;").unwrap_err();
    assert!(refused.contains("42501"), "{refused}");
    scene.app().psql("SET ROLE writer; INSERT INTO t VALUES (100); RESET ROLE; DELETE FROM t WHERE id = 2;");
    scene.expect_exact();
}

#[test]
fn what_a_role_makes_that_pgshadow_may_not_act_for() {
    let scene = Scene::of("CREATE TABLE before (id int PRIMARY KEY);");
    for server in integration_tests::scene::servers() {
        server.superuser().psql("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
    }
    for place in [&scene.source, &scene.target] {
        place.psql("GRANT CREATE, USAGE ON SCHEMA public TO stranger");
    }
    let stranger = scene.app().as_user("stranger", "stranger");
    stranger.psql("CREATE TABLE theirs (id int PRIMARY KEY); INSERT INTO theirs VALUES (1);");
    scene.app().psql("INSERT INTO before VALUES (1)");
    scene.drain();
    scene.expect_suspects(&[("public.theirs", "another owner")]);
    stranger.psql("CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    scene.drain();
    let findings = scene.pgshadow.findings();
    let told =
        |f: &serde_json::Value| f.get("message").and_then(|m| m.as_str()).is_some_and(|m| m.contains("another owner"));
    assert!(findings.iter().any(told), "{findings:#?}");
}
