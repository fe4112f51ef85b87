//! The end of a migration: nothing is mirrored from then on, and what pgshadow made is removed.
use super::super::own;
use super::{Flipping, Stop};
use crate::assembly::direction::Direction;
use crate::assembly::primary::answered;
use pgshadow_admin::{End, FinishReport};
use pgshadow_cutover::{Standing, State};
use pgshadow_model::{Place, quote};
use pgshadow_proxy::Route;

impl Flipping {
    /// Ends it. The application notices nothing: its sessions go on where they are. Once more after a process that was killed amid it removes what
    /// that one has left.
    pub async fn finish(&self, end: End) -> Result<FinishReport, String> {
        let _one = self.leave()?;
        let kept = self.journal.kept();
        if kept.state != State::Idle {
            return Err("what an earlier flip has left is still to be put in order; see pgshadow's log".to_owned());
        }
        let (stays, standing) = match end {
            End::Finalize => (Place::Target, Standing::Finalized),
            End::Abort => (Place::Source, Standing::Aborted),
        };
        if kept.primary != stays {
            return Err(match end {
                End::Finalize => "the source is the primary: `pgshadow cutover` comes first, or `pgshadow abort` ends the migration without one".to_owned(),
                End::Abort => "the target is the primary: `pgshadow rollback` comes first, or `pgshadow finalize` ends the migration there".to_owned(),
            });
        }
        let present = self.present.get();
        if present.is_none() && kept.standing != standing {
            return Err("the migration has ended already".to_owned());
        }
        // both must be there, or something would be left that nobody removes
        let databases = [self.database(stays), self.database(stays.other())];
        let [primary, shadow] = [own::connect(databases[0]).await?, own::connect(databases[1]).await?];
        self.keep(|kept| kept.standing = standing).map_err(|stop: Stop| stop.to_string())?;
        tracing::info!(primary = %stays, ?standing, "the migration has ended");
        self.step("Finish").await;
        // what one has left that was cut off is removed all the same
        if let Some(present) = present {
            self.end_mirroring(&present).await;
        }
        let mut report = FinishReport { removed: Vec::new(), left: Vec::new() };
        for (own, database) in [(&primary, databases[0]), (&shadow, databases[1])] {
            let what = format!("schema pgshadow on {}/{}", database.server, database.name);
            let there = "SELECT pg_catalog.to_regnamespace('pgshadow') IS NOT NULL";
            if answered(own.client.query_one(there, &[])).await.is_ok_and(|row| !row.get::<_, bool>(0)) {
                continue;
            }
            match answered(own.client.batch_execute("DROP SCHEMA IF EXISTS pgshadow CASCADE")).await {
                Ok(()) => report.removed.push(what),
                Err(error) => report.left.push(format!("{what} ({error}): DROP SCHEMA pgshadow CASCADE")),
            }
        }
        let directory = &self.config.mirror_log.directory;
        for name in ["log", "findings.redb", "eras", "backfill"] {
            let path = directory.join(name);
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match gone {
                Ok(()) => report.removed.push(path.display().to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => report.left.push(format!("{} ({error}): remove it", path.display())),
            }
        }
        for (place, rights) in [(Place::Source, &kept.source), (Place::Target, &kept.target)] {
            let Some(rights) = rights else { continue };
            let database = self.database(place);
            let roles =
                rights.connect.iter().map(|(role, _)| role.as_ref().map_or("PUBLIC".to_owned(), |role| quote(role)));
            report.left.push(format!(
                "clients are kept off the {place} {}/{}, lest one writes to the database that nobody mirrors any more. To let them in: ALTER DATABASE {name} \
                 RESET default_transaction_read_only; GRANT CONNECT ON DATABASE {name} TO {}",
                database.server,
                database.name,
                roles.collect::<Vec<_>>().join(", "),
                name = quote(&database.name),
            ));
        }
        report.left.push(format!(
            "{} and the reports of flips, by which a restart knows where the primary is",
            directory.join("cutover.json").display()
        ));
        report.left.push("pgshadow's roles on both servers, and its rights".to_owned());
        Ok(report)
    }

    /// The application's sessions are relayed as they are from now on.
    async fn end_mirroring(&self, present: &Direction) {
        let database = &present.config.source;
        self.routes.give(Route {
            number: 0,
            upstream: crate::assembly::upstream(database),
            database: (database.name != self.config.source.name).then(|| database.name.clone()),
            settings: Vec::new(),
            shared: None,
        });
        present.mirror.end("the migration has ended");
        self.present.clear();
        let pids = present.mirror.backends.pids();
        present.close(&pids).await;
    }
}
