//! What stands in the documents is true.
use integration_tests::equal;
use integration_tests::installation::{Installation, repository};
use integration_tests::postgres::Cluster;
use std::collections::BTreeSet;

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_key_has_a_heading_and_every_heading_a_key() {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in read("proxy-config/reference.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    let headings: BTreeSet<_> = read("proxy-config/README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    assert!(!keys.is_empty());
    assert_eq!(headings, keys);
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let exported: String =
        ["counter", "gauge", "histogram"].map(|name| read(&format!("crates/telemetry/src/{name}.rs"))).concat();
    let dashboard = read("proxy-config/grafana/dashboards/pgshadow.json");
    let json: serde_json::Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    assert!(json["panels"].as_array().is_some_and(|panels| !panels.is_empty()));
    let words = dashboard.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let shown: BTreeSet<_> = words.filter(|word| word.starts_with("pgshadow_")).collect();
    assert!(shown.len() > 10, "{shown:?}");
    for name in shown {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        assert!(exported.contains(&format!("\"{family}\"")), "{name} is no metric of pgshadow's");
    }
}

#[test]
fn the_roles_that_the_documents_give_can_do_their_work() {
    let readme = read("proxy-config/README.md");
    let mut blocks = readme
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("CREATE ROLE pgshadow"));
    let mut block = || blocks.next().expect("an SQL block").replace("secret", "pgshadow").replace("app_owner", "app");
    let documents = [
        (Installation::old(), [block(), read("proxy-config/docker/source.sql")]),
        (Installation::newest(), [block(), read("proxy-config/docker/target.sql")]),
    ];
    for (place, (installation, texts)) in documents.into_iter().enumerate() {
        for sql in texts {
            let cluster = Cluster::of(installation).start();
            // The documents start from a database that belongs to nobody in particular.
            let bare = "REASSIGN OWNED BY app TO postgres; DROP OWNED BY app, pgshadow; DROP ROLE pgshadow;";
            cluster.superuser().psql(bare);
            if sql.contains("CREATE ROLE app ") {
                cluster
                    .superuser()
                    .in_database("postgres")
                    .psql("ALTER DATABASE app OWNER TO postgres; DROP ROLE app;");
            } else {
                cluster.superuser().psql("ALTER DATABASE app OWNER TO app;");
            }
            cluster.superuser().psql(&sql);
            cluster.app().psql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);");
            assert_eq!(cluster.pgshadow().psql("SELECT id FROM t"), "1");
            if place == 1 {
                let work = "SET session_replication_role = replica; CREATE SCHEMA pgshadow; CREATE TABLE pgshadow.applied (n int);
                    INSERT INTO t VALUES (2); UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 1;
                    ALTER TABLE t ADD COLUMN v text; TRUNCATE t; INSERT INTO t VALUES (1, 'x');";
                cluster.pgshadow().psql(work);
                assert!(equal::differences(&cluster.app(), &cluster.app()).is_empty());
            } else {
                assert!(cluster.pgshadow().try_psql("INSERT INTO t VALUES (2)").is_err(), "only reads on the source");
            }
        }
    }
}
