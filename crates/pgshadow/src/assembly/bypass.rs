//! Clients that are connected to the primary past pgshadow, and workers of the server's own that may write (logical replication, extensions'
//! jobs): what they write isn't seen, so certificates lapse.
//!
//! A process that no session of pgshadow's has had by the second look is one; so one whose login is still on its way isn't.
use super::mirror::Mirror;
use super::primary::{Connection, Unanswered, answered};
use pgshadow_divergence::LapseOf;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Clients of this database but pgshadow's own, with when they came. What the role may not see counts as a client, and so does a
/// worker of a kind that isn't known to write nothing of its own.
const CLIENTS: &str = "
SELECT pid, coalesce(backend_start::pg_catalog.text, ''), pg_catalog.concat_ws(', ', coalesce('user ' || usename::pg_catalog.text, backend_type),
       nullif(application_name, ''), pg_catalog.host(client_addr), 'since ' || pg_catalog.date_trunc('second', backend_start)::pg_catalog.text)
FROM pg_catalog.pg_stat_activity
WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND NOT pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
  AND NOT coalesce(backend_type, '') OPERATOR(pg_catalog.=) ANY (ARRAY['autovacuum launcher', 'autovacuum worker', 'parallel worker', 'walsender',
    'walreceiver', 'slotsync worker', 'logical replication launcher', 'startup', 'checkpointer', 'background writer', 'walwriter', 'archiver', 'io worker'])
  AND NOT coalesce(usename OPERATOR(pg_catalog.=) CURRENT_USER AND application_name OPERATOR(pg_catalog.~~) 'pgshadow%', false)";

/// Whether all clients that are there are among these.
pub(super) async fn are_all_of(client: &Connection, pids: &[i32]) -> Result<bool, Unanswered> {
    let rows = answered(client.query(CLIENTS, &[])).await?;
    Ok(rows.iter().all(|row| pids.contains(&row.get(0))))
}

/// Who is there and isn't a session of pgshadow's.
pub(super) async fn past(client: &tokio_postgres::Client, mirror: &Mirror) -> Result<Vec<String>, Unanswered> {
    let before = mirror.backends.pids();
    let rows = answered(client.query(CLIENTS, &[])).await?;
    let after = mirror.backends.pids();
    let others = rows.iter().filter(|row| {
        let pid: i32 = row.get(0);
        !before.contains(&pid) && !after.contains(&pid)
    });
    Ok(others.map(|row| row.get(2)).collect())
}

/// A server's process: its number and when it began.
type Process = (i32, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is, or was, a session's.
    Ours,
    /// Nobody's at the first look.
    New,
    /// It has been told of.
    Told,
}

/// What was there at the last look.
#[derive(Debug, Default)]
pub(super) struct Bypass {
    known: HashMap<Process, Known>,
    last: Option<Instant>,
}

impl Bypass {
    pub async fn look(&mut self, client: &Connection, mirror: &Mirror) -> Result<(), Unanswered> {
        if self.last.is_some_and(|last| last.elapsed() < LOOK) {
            return Ok(());
        }
        // read first: whoever leaves in between was ours
        let before = mirror.backends.pids();
        let rows = answered(client.query(CLIENTS, &[])).await?;
        let after = mirror.backends.pids();
        self.last = Some(Instant::now());
        let clients = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2)));
        let (told, others) = self.tell(clients, |pid| before.contains(&pid) || after.contains(&pid));
        for who in &told {
            tracing::info!(
                client = who,
                "a client is connected to the primary past pgshadow: what it writes isn't mirrored"
            );
        }
        if let Some(who) = others {
            mirror.lapse(&[LapseOf::Every], &format!("a client is connected past pgshadow: {who}"));
        }
        Ok(())
    }

    /// Those to be told of for the first time, and one of all that are there.
    fn tell(
        &mut self,
        clients: impl Iterator<Item = (Process, String)>,
        is_ours: impl Fn(i32) -> bool,
    ) -> (Vec<String>, Option<String>) {
        let mut known = HashMap::new();
        let (mut told, mut others) = (Vec::new(), None);
        for (process, who) in clients {
            let now = match self.known.get(&process) {
                Some(Known::Ours) => Known::Ours,
                _ if is_ours(process.0) => Known::Ours,
                None => Known::New,
                Some(Known::New) => {
                    told.push(who.clone());
                    Known::Told
                }
                Some(Known::Told) => Known::Told,
            };
            if now == Known::Told {
                others = others.or(Some(who));
            }
            known.insert(process, now);
        }
        self.known = known;
        (told, others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_nobodys_twice_is_told_of_once() {
        let mut bypass = Bypass::default();
        let at = |pid: i32| ((pid, "then".to_owned()), format!("client {pid}"));
        let mut look =
            |pids: &[i32], ours: &[i32]| bypass.tell(pids.iter().copied().map(at), |pid| ours.contains(&pid));
        let one = Some("client 2".to_owned());
        assert_eq!(look(&[1, 2], &[1]), (vec![], None), "its login may be on its way");
        assert_eq!(look(&[1, 2, 3], &[1]), (vec!["client 2".to_owned()], one.clone()));
        assert_eq!(look(&[1, 2, 3], &[1, 3]), (vec![], one.clone()));
        assert_eq!(look(&[1, 2, 3], &[]), (vec![], one), "those of sessions that have just ended");
        assert_eq!(look(&[1, 3], &[]), (vec![], None));
        assert_eq!(look(&[2], &[]), (vec![], None), "another one of that number");
    }
}
