//! The source's schema as an archive of `pg_dump`, and which of its entries are restored when.

use crate::Error;
use crate::shadow::Shadow;
use crate::tools::{Login, Tools};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

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
            "--lock-wait-timeout=30s".into(),
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
        Err(Error::Tool(format!("pg_dump can't read the source's schema: {said}")))
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
        let Some(first) = entries.first() else { return Ok(Vec::new()) };
        let list = self.file.with_extension(format!("{}.list", first.number()));
        let lines: Vec<&str> = entries.iter().map(|entry| entry.line.as_str()).collect();
        let failed = |error| Error::Run { path: list.clone(), error };
        tokio::fs::write(&list, lines.join("\n") + "\n").await.map_err(failed)?;
        let mut arguments: Vec<OsString> = vec!["--clean".into(), "--if-exists".into()];
        arguments.extend(["--use-list".into(), list.clone().into()]);
        let script = self.script(arguments).await;
        let _ = tokio::fs::remove_file(&list).await;
        run(shadow, &script?).await
    }

    /// It is of no more use.
    pub(crate) async fn remove(&self) {
        let _ = tokio::fs::remove_file(&self.file).await;
    }
}

/// Runs a script on a connection of its own. Gives what failed, with the statement.
async fn run(shadow: &Shadow<'_>, script: &str) -> Result<Vec<String>, Error> {
    let unread = |error| Error::Tool(format!("the schema's statements can't be told apart: {error}"));
    let (writer, mut failed) = (shadow.writer().await?, Vec::new());
    writer
        .client
        .batch_execute("SET session_replication_role = origin; SET maintenance_work_mem = '256MB'")
        .await
        .map_err(Error::shadow)?;
    for statement in pgshadow_sql::statements(script).map_err(unread)? {
        match writer.client.batch_execute(statement).await {
            Ok(()) => {}
            Err(error) => {
                let (said, error) = (error.as_db_error().map(|db| db.message().to_owned()), Error::shadow(error));
                let Some(said) = said.filter(|_| !error.is_lost()) else { return Err(error) };
                let text: Vec<&str> = statement.lines().filter(|line| !line.starts_with("--")).collect();
                let text: String = text.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
                failed.push(format!("{said}: {}", text.chars().take(SHOWN).collect::<String>()));
            }
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
        acts.iter().any(|kind| self.what.starts_with(kind))
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
    }
}
