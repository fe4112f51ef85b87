//! The source's schema as an archive of `pg_dump`, and which of its entries are restored when.

use crate::Error;
use crate::shadow::Shadow;
use crate::tools::{Login, Tools};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use pgshadow_apply::Connected;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// An entry of the archive's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the list has it.
    line: String,
    /// Catalog of the object, and its OID there on the source.
    catalog: (u32, u32),
    /// What it is, its schema, name and owner.
    what: String,
}

/// How often a statement is tried that others keep from its locks, and the pause between.
const ATTEMPTS: u32 = 20;
const AGAIN: Duration = Duration::from_millis(500);

/// Letters of a statement that are shown.
const SHOWN: usize = 300;

/// OID of `pg_class`.
const RELATIONS: u32 = 1259;
/// OID of `pg_constraint`.
const CONSTRAINTS: u32 = 2606;

/// The archive, with the tools that read it.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    tools: Tools,
    file: PathBuf,
}

/// The objects that belong to a load: its indexes and constraints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Belongings {
    /// OIDs of indexes on the source.
    pub(crate) indexes: HashSet<u32>,
    /// OIDs of keys and other constraints that rest on indexes.
    pub(crate) constraints: HashSet<u32>,
    /// `schema name` of indexes.
    pub(crate) index_names: Vec<String>,
}

impl Archive {
    pub(crate) fn at(tools: Tools, directory: &Path) -> Self {
        Self { tools, file: directory.join("schema.dump") }
    }

    pub(crate) fn exists(&self) -> bool {
        self.file.exists()
    }

    /// Writes the schema as it is in this snapshot.
    pub(crate) async fn dump(&self, source: &Login, snapshot: &str) -> Result<(), Error> {
        let arguments: [OsString; 10] = [
            "--schema-only".into(),
            "--format=custom".into(),
            "--encoding=UTF8".into(),
            format!("--snapshot={snapshot}").into(),
            "--lock-wait-timeout=500ms".into(),
            "--no-publications".into(),
            "--no-subscriptions".into(),
            "--exclude-schema=pgshadow".into(),
            "--file".into(),
            self.file.clone().into(),
        ];
        let output = Tools::run(&self.tools.dump, Some(source), arguments).await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // a right doesn't come by itself
        if said.contains("permission denied") { Err(Error::Tool(said)) } else { Err(Error::Dump(said)) }
    }

    /// Makes types, functions, tables: all but what comes behind the data. `again`: it was begun before. Gives what failed.
    pub(crate) async fn restore_tables(&self, shadow: &Shadow<'_>, again: bool) -> Result<Vec<String>, Error> {
        let mut arguments: Vec<OsString> = vec!["--section=pre-data".into()];
        if again {
            arguments.extend(["--clean".into(), "--if-exists".into()]);
        }
        let script = self.script(arguments).await?;
        run(shadow, &script).await
    }

    /// What the archive holds, as statements. It is run by connections of our own: what is left of a process that was killed must not
    /// go on with it.
    async fn script(&self, mut arguments: Vec<OsString>) -> Result<String, Error> {
        arguments.extend(["--file=-".into(), self.file.clone().into()]);
        let output = Tools::run(&self.tools.restore, None, arguments).await?;
        if !output.status.success() {
            return Err(self.unreadable(&output));
        }
        let text = String::from_utf8(output.stdout)
            .map_err(|_| Error::Tool("the source's schema isn't in UTF-8, which pg_dump was asked for".to_owned()))?;
        // for psql only
        Ok(text.lines().filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ")).fold(
            String::with_capacity(text.len()),
            |mut script, line| {
                script.push_str(line);
                script.push('\n');
                script
            },
        ))
    }

    fn unreadable(&self, output: &std::process::Output) -> Error {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Error::Tool(format!("{} can't be read: {said}", self.file.display()))
    }

    /// What comes behind the data.
    pub(crate) async fn entries(&self) -> Result<Vec<Entry>, Error> {
        let arguments: [OsString; 3] = ["--list".into(), "--section=post-data".into(), self.file.clone().into()];
        let output = Tools::run(&self.tools.restore, None, arguments).await?;
        if !output.status.success() {
            return Err(self.unreadable(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(entry).collect())
    }

    /// Restores these entries, in the archive's order; what is there is made anew. Gives what failed.
    pub(crate) async fn restore(&self, shadow: &Shadow<'_>, entries: &[Entry]) -> Result<Vec<String>, Error> {
        match self.script_of(entries).await? {
            Some(script) => run(shadow, &script).await,
            None => Ok(Vec::new()),
        }
    }

    /// The same while others write to their tables.
    pub(crate) async fn restore_beside(
        &self,
        shadow: &Shadow<'_>,
        entries: &[Entry],
        at_once: usize,
    ) -> Result<Vec<String>, Error> {
        match self.script_of(entries).await? {
            Some(script) => run_beside(shadow, &script, at_once).await,
            None => Ok(Vec::new()),
        }
    }

    async fn script_of(&self, entries: &[Entry]) -> Result<Option<String>, Error> {
        let Some(first) = entries.first() else { return Ok(None) };
        let list = self.file.with_extension(format!("{}.list", first.number()));
        let lines: Vec<&str> = entries.iter().map(|entry| entry.line.as_str()).collect();
        let failed = |error| Error::Run { path: list.clone(), error };
        tokio::fs::write(&list, lines.join("\n") + "\n").await.map_err(failed)?;
        let mut arguments: Vec<OsString> = vec!["--clean".into(), "--if-exists".into()];
        arguments.extend(["--use-list".into(), list.clone().into()]);
        let script = self.script(arguments).await;
        let _ = tokio::fs::remove_file(&list).await;
        script.map(Some)
    }

    /// It is of no more use.
    pub(crate) async fn remove(&self) {
        let _ = tokio::fs::remove_file(&self.file).await;
    }
}

/// A foreign key that is added in two steps, of which only the first keeps others from writing.
struct ForeignKey<'a> {
    whole: &'a str,
    /// `ALTER TABLE` and the table.
    table: &'a str,
    add: String,
    validate: String,
}

impl<'a> ForeignKey<'a> {
    fn of(statement: &'a str) -> Option<Self> {
        let body = statement.trim_end();
        let (table, rest) = body.split_once(" ADD CONSTRAINT ")?;
        let (name, _) = rest.split_once(" FOREIGN KEY (")?;
        if body.ends_with("NOT VALID") || body.ends_with("NOT ENFORCED") {
            return None;
        }
        Some(Self {
            whole: statement,
            table,
            add: format!("{body} NOT VALID"),
            validate: format!("{table} VALIDATE CONSTRAINT {name}"),
        })
    }
}

/// What can't be told of a statement: its connection's, then the loss is an error; else the server's words.
fn told(error: tokio_postgres::Error, statement: &str) -> Result<String, Error> {
    let (said, error) = (error.as_db_error().map(|db| db.message().to_owned()), Error::shadow(error));
    let Some(said) = said.filter(|_| !error.is_lost()) else { return Err(error) };
    let text: Vec<&str> = statement.lines().filter(|line| !line.starts_with("--")).collect();
    let text: String = text.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(format!("{said}: {}", text.chars().take(SHOWN).collect::<String>()))
}

/// As [`run`], while others write to the tables: foreign keys are validated beside them, several at a time.
async fn run_beside(shadow: &Shadow<'_>, script: &str, at_once: usize) -> Result<Vec<String>, Error> {
    let statements = statements(script)?;
    let writer = schema_writer(shadow).await?;
    let (mut failed, mut keys) = (Vec::new(), Vec::new());
    for statement in statements {
        let key = ForeignKey::of(statement);
        let sql = key.as_ref().map_or(statement, |key| &key.add);
        match (execute(&writer, sql).await, key) {
            (Ok(()), key) => keys.extend(key),
            // partitioned tables before 18
            (Err(error), Some(key))
                if error.code() == Some(&SqlState::WRONG_OBJECT_TYPE)
                    || error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) =>
            {
                if let Err(error) = execute(&writer, key.whole).await {
                    failed.push(told(error, key.whole)?);
                }
            }
            (Err(error), _) => failed.push(told(error, statement)?),
        }
    }
    // those of one table one after the other: each keeps the next one waiting
    let mut by_table: BTreeMap<&str, Vec<&ForeignKey<'_>>> = BTreeMap::new();
    for key in &keys {
        by_table.entry(key.table).or_default().push(key);
    }
    let mut validated: Vec<BoxFuture<'_, Result<Vec<String>, Error>>> = Vec::with_capacity(by_table.len());
    for keys in by_table.into_values() {
        validated.push(Box::pin(validate(shadow, keys)));
    }
    let validated: Vec<Vec<String>> = stream::iter(validated).buffer_unordered(at_once.max(1)).try_collect().await?;
    failed.extend(validated.into_iter().flatten());
    Ok(failed)
}

async fn validate(shadow: &Shadow<'_>, keys: Vec<&ForeignKey<'_>>) -> Result<Vec<String>, Error> {
    let (writer, mut failed) = (schema_writer(shadow).await?, Vec::new());
    for key in keys {
        if let Err(error) = execute(&writer, &key.validate).await {
            failed.push(told(error, &key.validate)?);
        }
    }
    Ok(failed)
}

/// While lanes write: where one of them has what is needed, it is tried again.
async fn execute(writer: &Connected, sql: &str) -> Result<(), tokio_postgres::Error> {
    let mut attempt = 1;
    loop {
        let done = writer.client.batch_execute(sql).await;
        let taken = |error: &tokio_postgres::Error| {
            matches!(error.code(), Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE))
        };
        if attempt >= ATTEMPTS || !done.as_ref().is_err_and(taken) {
            return done;
        }
        attempt += 1;
        tokio::time::sleep(AGAIN).await;
    }
}

fn statements(script: &str) -> Result<Vec<&str>, Error> {
    let unread = |error| Error::Tool(format!("the schema's statements can't be told apart: {error}"));
    pgshadow_sql::statements(script).map_err(unread)
}

async fn schema_writer(shadow: &Shadow<'_>) -> Result<Connected, Error> {
    let writer = shadow.writer().await?;
    writer.client.batch_execute(SCHEMA_SETTINGS).await.map_err(Error::shadow)?;
    Ok(writer)
}

const SCHEMA_SETTINGS: &str = "SET session_replication_role = origin; SET maintenance_work_mem = '256MB'";

/// Runs a script on a connection of its own. Gives what failed, with the statement.
async fn run(shadow: &Shadow<'_>, script: &str) -> Result<Vec<String>, Error> {
    let (writer, mut failed) = (schema_writer(shadow).await?, Vec::new());
    for statement in statements(script)? {
        if let Err(error) = writer.client.batch_execute(statement).await {
            failed.push(told(error, statement)?);
        }
    }
    Ok(failed)
}

fn entry(line: &str) -> Option<Entry> {
    // `3201; 1259 16402 INDEX public name owner`
    let (number, rest) = line.split_once("; ")?;
    number.parse::<u32>().ok()?;
    let mut parts = rest.splitn(3, ' ');
    let catalog = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Entry { line: line.to_owned(), catalog, what: parts.next()?.to_owned() })
}

impl Entry {
    /// Its number in the archive.
    pub(crate) fn number(&self) -> i32 {
        self.line.split_once(';').and_then(|(number, _)| number.parse().ok()).unwrap_or(-1)
    }

    /// Whether it does something when rows are written, or keeps them from being.
    pub(crate) fn acts(&self) -> bool {
        let acts = ["TRIGGER ", "EVENT TRIGGER ", "RULE ", "ROW SECURITY ", "POLICY "];
        // `COMMENT public TRIGGER t ON orders app`: it can't come before what it is about
        let about = self.what.strip_prefix("COMMENT ").and_then(|rest| rest.split_once(' '));
        let what = about.map_or(self.what.as_str(), |(_schema, what)| what);
        acts.iter().any(|kind| what.starts_with(kind))
    }

    /// Whether it belongs to these.
    pub(crate) fn is_of(&self, these: &Belongings) -> bool {
        match self.catalog {
            (RELATIONS, oid) => self.what.starts_with("INDEX ") && these.indexes.contains(&oid),
            (CONSTRAINTS, oid) => these.constraints.contains(&oid),
            _ => these.index_names.iter().any(|name| {
                self.what.strip_prefix("INDEX ATTACH ").is_some_and(|rest| rest.starts_with(&format!("{name} ")))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_are_added_in_two_steps() {
        let sql = "-- Name: a a_b_fkey\n\nALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_b_fkey FOREIGN KEY (b) REFERENCES public.b(id)";
        let key = ForeignKey::of(sql).unwrap();
        assert!(key.add.ends_with("public.b(id) NOT VALID"), "{}", key.add);
        assert!(
            key.validate.ends_with("ALTER TABLE ONLY public.a\n    VALIDATE CONSTRAINT a_b_fkey"),
            "{}",
            key.validate
        );
        assert!(ForeignKey::of("ALTER TABLE a ADD CONSTRAINT c FOREIGN KEY (b) REFERENCES d(e) NOT VALID").is_none());
        assert!(ForeignKey::of("ALTER TABLE ONLY a ADD CONSTRAINT c PRIMARY KEY (b)").is_none());
    }

    #[test]
    fn entries_are_read_and_told_apart() {
        let text = ";\n; Archive created at 2026\n;     Dumped from database version: 15\n\
            3201; 1259 16402 INDEX public orders by name app\n3199; 2606 16400 CONSTRAINT public orders orders_pkey app\n\
            3300; 2606 16410 FK CONSTRAINT public orders orders_customer_fkey app\n3310; 0 0 INDEX ATTACH public part_1_pkey app\n\
            3320; 2620 16500 TRIGGER public orders t app\n";
        let entries: Vec<Entry> = text.lines().filter_map(entry).collect();
        assert_eq!(entries.len(), 5);
        let these = Belongings {
            indexes: [16402].into(),
            constraints: [16400].into(),
            index_names: vec!["public part_1_pkey".to_owned()],
        };
        let of: Vec<bool> = entries.iter().map(|entry| entry.is_of(&these)).collect();
        assert_eq!(of, [true, true, false, true, false]);
        for (line, acts) in [
            ("3320; 2620 16500 TRIGGER public orders t app", true),
            ("3400; 0 0 COMMENT public TRIGGER t ON orders app", true),
            ("3401; 0 0 COMMENT - EVENT TRIGGER e app", true),
            ("3402; 0 0 COMMENT public TABLE orders app", false),
        ] {
            assert_eq!(entry(line).unwrap().acts(), acts, "{line}");
        }
    }
}
