//! Files of each format, as written when it was fixed: every later version must read them, or raise the version.

use super::*;
use pgshadow_model::{CopyData, DdlStatement, SessionSettings, Spilled, SpilledPart, Suspect, Truncate};
use std::collections::BTreeSet;

const VERSION_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/version-2.segment");
const VERSION_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/version-3.segment");

/// One of everything that version 3 has beyond version 2.
fn everything() -> Vec<Record> {
    let mut all = everything_of_2();
    let part = |offset| SpilledPart { offset, length: 300, changes: 7 };
    let tables = BTreeSet::from([None, Some(QualifiedName::new("public", "t"))]);
    let spilled = Spilled { file: 0xABCD, parts: vec![part(0), part(300)], tables, defines: true };
    let open = CopyData {
        relation: relation("u"),
        sql: "COPY u FROM STDIN".to_owned(),
        settings: SessionSettings::default(),
        data: vec![Bytes::from_static(b"1\tx\n")],
        rows: None,
    };
    let changes = Changes { spilled: Some(spilled), rest: vec![Change::Copy(open)] };
    all.extend([intent(changes.clone()), committed(8, changes)]);
    all
}

/// One of everything that version 2 had.
fn everything_of_2() -> Vec<Record> {
    let settings = SessionSettings {
        role: "app".to_owned(),
        search_path: "\"$user\", public".to_owned(),
        others: vec![("DateStyle".to_owned(), "ISO, DMY".to_owned())],
    };
    let sql = |text: &str| text.to_owned();
    let Change::Row(mut moved) = row(&relation("t"), 4) else { panic!("not a row") };
    moved.old_key = Some(vec![Some(Bytes::from_static(b"old"))]);
    let copy = CopyData {
        relation: relation("u"),
        sql: sql("COPY u FROM STDIN"),
        settings: settings.clone(),
        data: vec![Bytes::from_static(b"1\tx\n"), Bytes::from_static(b"2\t\\N\n")],
        rows: Some(2),
    };
    let tables = vec![QualifiedName::new("public", "u")];
    let truncate = Truncate { tables: tables.clone(), sql: sql("TRUNCATE u"), settings: settings.clone() };
    let ddl = DdlStatement { sql: sql("ALTER TABLE t ADD c int"), settings, in_transaction: true };
    let suspects = vec![
        Suspect { table: None, reason: "a DO block".to_owned() },
        Suspect { table: Some(QualifiedName::new("public", "t")), reason: "no images".to_owned() },
    ];
    let changes = vec![Change::Row(moved), Change::Copy(copy), Change::Truncate(truncate), Change::Ddl(ddl)];
    let Record::Intent(mut prepared) = intent(changes.clone()) else { panic!("not an intent") };
    prepared.suspects = suspects.clone();
    prepared.may_write_any = true;
    prepared.prepared = Some("gid".to_owned());
    vec![
        Record::Epoch { epoch: Epoch(1), fingerprint: "6871 1 2026-01-01 100,101".to_owned() },
        Record::Intent(prepared),
        committed(2, changes),
        Record::Outcome { of: 1, flushed: false, outcome: Outcome::Aborted },
        Record::Suspects(suspects),
        Record::SuspectsCleared(tables),
        Record::Applied { below: 3 },
    ]
}

#[test]
fn version_2_is_read() {
    assert_eq!(read(VERSION_2), everything_of_2());
}

#[test]
fn version_3_is_read() {
    assert_eq!(read(VERSION_3), everything());
}

fn read(path: &str) -> Vec<Record> {
    let bytes = std::fs::read(path).unwrap();
    let disk = FaultyDisk::default();
    disk.set_content(&Path::new(DIRECTORY).join(crate::format::segment_name(1)), &bytes);
    let (_log, recovery) = open(&disk);
    assert_eq!(recovery.torn_tail, None);
    records(&recovery).into_iter().map(|(_, record)| record).collect()
}

/// Run it once, by name, when the version is raised.
#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    let disk = FaultyDisk::default();
    let (log, _) = open(&disk);
    for record in everything() {
        log.append(record).unwrap();
    }
    drop(log);
    // Opening it again cuts the zeros.
    drop(open(&disk));
    std::fs::create_dir_all(Path::new(VERSION_3).parent().unwrap()).unwrap();
    std::fs::write(VERSION_3, disk.content(&segments(&disk)[0]).unwrap()).unwrap();
}
