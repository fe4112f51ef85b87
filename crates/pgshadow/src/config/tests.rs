use super::*;
use tokio_postgres::config::SslMode;

const URLS: &str =
    "[source]\nurl = 'postgres://u:secret1@old-db/app'\n[target]\nurl = 'postgres://u:secret2@new-db/app'\n";

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_text(Path::new("pgshadow.toml"), text, &variables)
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    load(text, variables).unwrap_err().to_string()
}

fn with_urls(text: &str) -> String {
    format!("{text}\n{URLS}")
}

#[test]
fn two_urls_are_enough() {
    let config = load(URLS, &[]).unwrap();
    assert_eq!(config.listen.address, "127.0.0.1:6432");
    assert_eq!(config.listen.other_databases, OtherDatabases::Refuse);
    assert_eq!(config.mirror_log.size_max_bytes, 10 << 30);
    assert_eq!(config.mirror_log.durability, Durability::Fsync);
    assert_eq!(config.mirror_log.on_full, OnFull::StopMirroring);
    assert!(config.mirror.enabled && config.mirror.exclude.is_empty());
    assert_eq!(config.compare.statements, 1.0);
    assert_eq!(config.test.trace, None);
    assert_eq!(config.source.to_string(), "u@old-db:5432/app");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        error(&with_urls("[mirror_log]\ndurability = 'os'\nsize_mx = '1GiB'"), &[]),
        "pgshadow.toml line 3: unknown key \"mirror_log.size_mx\"; the nearest known one is \"mirror_log.size_max\""
    );
    assert_eq!(
        error(&with_urls("[mirorlog]\nsize_max = '1GiB'"), &[]),
        "pgshadow.toml line 1: unknown key \"mirorlog\"; the nearest known one is \"mirror_log\""
    );
    assert_eq!(error(&with_urls("listen = 5"), &[]), "pgshadow.toml line 1: listen is a section, written [section]");
}

#[test]
fn hidden_keys_are_known_but_never_suggested() {
    assert_eq!(load(&with_urls("[test]\ntrace = 't.jsonl'"), &[]).unwrap().test.trace, Some("t.jsonl".into()));
    assert!(!error(&with_urls("[test]\ntrac = 't.jsonl'"), &[]).contains("test.trace"));
}

#[test]
fn the_environment_comes_after_the_file() {
    let text = with_urls("[mirror]\nenabled = true\nexclude = ['a.b']\n[compare]\nstatements = 1");
    let variables = [
        ("PGSHADOW__MIRROR__ENABLED", "false"),
        ("PGSHADOW__MIRROR__EXCLUDE", "audit.log, sessions"),
        ("PGSHADOW__APPLY__LANES", "2"),
        ("PGSHADOW__COMPARE__STATEMENTS", "0.25"),
        ("PGSHADOW__MIRROR_LOG__SIZE_MAX", "2GiB"),
        ("PGSHADOW__TARGET__URL", "host=other dbname=app user=u"),
        ("PGSHADOW_LOG", "json"),
    ];
    let config = load(&text, &variables).unwrap();
    assert!(!config.mirror.enabled);
    assert_eq!(config.mirror.exclude, [QualifiedName::new("audit", "log"), QualifiedName::new("public", "sessions")]);
    assert_eq!((config.apply.lanes, config.compare.statements), (2, 0.25));
    assert_eq!(config.mirror_log.size_max_bytes, 2 << 30);
    assert_eq!(config.target.to_string(), "u@other:5432/app");
}

#[test]
fn wrong_variables_are_named() {
    assert_eq!(
        error(URLS, &[("PGSHADOW__MIRROR_LOG__SIZEMAX", "1GiB")]),
        "environment variable PGSHADOW__MIRROR_LOG__SIZEMAX: unknown key \"PGSHADOW__MIRROR_LOG__SIZEMAX\"; \
         the nearest known one is \"PGSHADOW__MIRROR_LOG__SIZE_MAX\""
    );
    assert_eq!(
        error(URLS, &[("PGSHADOW__MIRROR__ENABLED", "maybe")]),
        "environment variable PGSHADOW__MIRROR__ENABLED: mirror.enabled must be true or false"
    );
}

#[test]
fn wrong_values_say_what_they_must_be() {
    for (text, expected) in [
        ("[mirror_log]\nsize_max = '10 apples'", "line 2: mirror_log.size_max must be a size such as \"10GiB\""),
        ("[mirror_log]\nsize_max = '1KiB'", "line 2: mirror_log.size_max must be at least 1.0 MiB"),
        ("[mirror_log]\nsize_max = 10", "line 2: mirror_log.size_max must be a text in quotes"),
        ("[mirror_log]\non_full = 'panic'", "must be \"stop_mirroring\" or \"block_writes\", not \"panic\""),
        (
            "[verify]\nlatency_rise_max = '10'",
            "line 2: verify.latency_rise_max must be from \"1%\" to \"1000%\", or \"\" for no limit",
        ),
        ("[backfill]\nlatency_rise_max = '0.5%'", "line 2: backfill.latency_rise_max must be from \"1%\" to \"1000%\""),
        ("[verify]\nsnapshot_age_max = '2 apples'", "line 2: verify.snapshot_age_max must be a time such as \"30min\""),
        ("[verify]\nrate_max = '1KiB'", "line 2: verify.rate_max must be at least 1.0 MiB"),
        ("[apply]\nlanes = 0", "line 2: apply.lanes must be from 1 to 64, not 0"),
        (
            "[cutover]\nlatency_ratio_max = 0.5",
            "line 2: cutover.latency_ratio_max must be a number of times from 1.0 to 1000.0, not 0.5",
        ),
        ("[cutover]\nunmovable = 'kill'", "line 2: cutover.unmovable must be \"end\" or \"refuse\", not \"kill\""),
        ("[ddl]\nguard = 'warn'", "line 2: ddl.guard must be \"off\" or \"log\" or \"refuse\", not \"warn\""),
        (
            "[ddl]\nlock_timeout = '5 apples'",
            "line 2: ddl.lock_timeout must be a time such as \"5s\" or \"500ms\", not \"5 apples\"",
        ),
        ("[ddl]\ntable_size_max = '1'", "line 2: ddl.table_size_max must be at least 1.0 MiB, not \"1\""),
        ("[compare]\nstatements = 1.5", "line 2: compare.statements must be a share from 0.0 to 1.0, not 1.5"),
        ("[mirror]\nexclude = ['a.']", "line 2: mirror.exclude must hold names such as \"schema.table\""),
        ("[mirror]\nexclude = [1]", "line 2: mirror.exclude must be a list of texts"),
        ("[listen]\naddress = '6432'", "line 2: listen.address must be host:port"),
        ("[admin]\naddress = '127.0.0.1:6432'", "line 2: admin.address is also [listen] address"),
        ("[mirror]\nenabled = true\nenabled = true", "line 3: not valid TOML: duplicate key"),
    ] {
        let error = error(&with_urls(text), &[]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn wrong_urls_are_refused_without_showing_the_password() {
    let url = |url: &str| error(&format!("[source]\nurl = {url:?}\n[target]\nurl = 'postgres://u@h/d'"), &[]);
    assert!(
        error("", &[]).starts_with("pgshadow.toml: source.url is not set; set it there, or as PGSHADOW__SOURCE__URL")
    );
    for (text, expected) in [
        ("old-db", "is neither postgres://user@host/database nor a list of key=value"),
        ("postgres://u:hunter2@h:port/d", "is no connection string that can be understood"),
        ("postgres://u:hunter2@h/d?sslkey=x", "unknown option `sslkey`"),
        ("postgres://u:hunter2@h/d?sslmode=yes", "has sslmode=\"yes\""),
        ("postgres://u:hunter2@h/d?sslmode=verify-full", "asks for TLS"),
        ("postgres://u:hunter2@h,i/d", "names several servers"),
        ("host=h password=hunter2", "names no user"),
        ("host=h user=u password='hunter2", "has no closing quote"),
        ("postgres://u:hunter2@/d", "names no host"),
        ("postgres://u@h/d", "target.url names the same database as source.url"),
        ("postgres://u@h/d?passfile=/nowhere/x", "/nowhere/x"),
    ] {
        let error = url(text);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for broken in [
        "source = 'postgres://u:hunter2@h/d'",
        "[source]\nurl = 'postgres://u:hunter2@h/d",
        "[source]\nurl = postgres://u:hunter2@h/d",
    ] {
        let error = error(broken, &[]);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn nothing_shows_a_password() {
    let shown = format!("{:?}", load(URLS, &[]).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("u@old-db:5432/app"), "{shown}");
}

#[test]
fn both_forms_of_connection_strings_take_libpqs_keys() {
    let file = "sslmode=prefer&sslrootcert=%2Fca.pem&connect_timeout=3&gssencmode=disable&keepalives_count=4";
    let url = Database::parse(&format!("postgresql://u:p%40s?s@h:7/d?{file}&application_name=me"), &[]).unwrap();
    let pairs = Database::parse(
        r"host=h port = 7 user=u password='p@s?s' dbname='d' sslrootcert=/ca.pem connect_timeout=3 application_name=me",
        &[],
    )
    .unwrap();
    for database in [url, pairs] {
        assert_eq!(database.to_string(), "u@h:7/d");
        assert_eq!(database.postgres.get_password(), Some(&b"p@s?s"[..]));
        assert_eq!(database.postgres.get_connect_timeout(), Some(&std::time::Duration::from_secs(3)));
        assert_eq!(database.postgres.get_application_name(), Some("me"));
        assert_eq!(database.root_certificate.as_deref(), Some(Path::new("/ca.pem")));
        assert_eq!(database.tls, super::connection::TlsMode::Prefer);
    }
}

#[test]
fn connections_have_defaults() {
    let database = Database::parse("postgres://u@h", &[]).unwrap();
    assert_eq!((database.name.as_str(), database.postgres.get_dbname()), ("u", Some("u")));
    assert_eq!(database.postgres.get_application_name(), Some("pgshadow"));
    assert_eq!(database.postgres.get_connect_timeout(), Some(&std::time::Duration::from_secs(10)));
    let socket = Database::parse("host=/run/pg port=7 user=u sslmode=disable", &[]).unwrap();
    assert_eq!(socket.server, Server::Unix { directory: "/run/pg".into(), port: 7 });
    assert_eq!(socket.postgres.get_ssl_mode(), SslMode::Disable);
}

#[test]
fn the_reference_holds_every_key_with_the_codes_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proxy-config/reference.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let reference: toml::Table = toml::from_str(&text).unwrap();
    let mut expected = document::known_keys(&path).unwrap();
    expected.retain(|section, _| !file::HIDDEN.contains(&section));
    let names = |table: &toml::Table| -> Vec<String> {
        let keys = |(section, keys): (&String, &toml::Value)| {
            keys.as_table().unwrap().keys().map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
        };
        let mut names: Vec<String> = table.iter().flat_map(keys).collect();
        names.sort();
        names
    };
    assert_eq!(names(&reference), names(&expected));
    for (section, keys) in &expected {
        for (key, default) in keys.as_table().unwrap() {
            assert_eq!(&reference[section][key], default, "{section}.{key}");
        }
    }
    let urls = [("PGSHADOW__SOURCE__URL", "postgres://u@h/d"), ("PGSHADOW__TARGET__URL", "postgres://u@i/d")];
    load(&text, &urls).unwrap();
}

#[test]
fn a_missing_file_is_named_with_the_remedy() {
    let error = Config::load(Path::new("/nowhere/pgshadow.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/pgshadow.toml") && error.contains("-c FILE"), "{error}");
}

#[test]
fn who_asks_the_proxy_needs_no_databases() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[admin]\naddress = '[::1]:7'").unwrap();
    assert_eq!(Config::load_admin(file.path()).unwrap().address, "[::1]:7");
    assert!(Config::load(file.path()).is_err());
}

#[test]
fn the_examples_hold_only_known_keys() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proxy-config/examples");
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        Document::read(&path, &text, &[]).unwrap();
    }
}
