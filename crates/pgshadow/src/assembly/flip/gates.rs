//! What must be so before a flip: the same for a dry run, a cutover, a rollback; each with what was measured. What can change meanwhile is asked again while
//! all is held.
use super::super::direction::Direction;
use super::super::own::{self, Own};
use super::super::pausing::Pausing;
use super::super::primary::answered;
use super::super::windows::certificate;
use super::fence;
use super::sequences;
use crate::config::{Config, Unmovable};
use crate::facts::facts;
use pgshadow_admin::Gate;
use pgshadow_cutover::Kept;
use pgshadow_model::Place;
use pgshadow_preflight::{Facts, Level};
use std::time::Duration;
use tokio_postgres::Client;

/// How old the oldest transaction may be that the shadow hasn't got.
const LAG_MAX_MS: u64 = 2000;
/// Pause between two looks at who is there.
const AGAIN: Duration = Duration::from_millis(1100);
/// Statements that must have run on the shadow to say how fast it is.
const RUNS_MIN: usize = 100;
/// Names in one gate.
const NAMED_MAX: usize = 5;

const LONG: &str = "
SELECT pg_catalog.concat_ws(' ', 'pid', pid, usename, nullif(application_name, ''), 'for',
    pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) xact_start), pg_catalog.left(query, 60))
FROM pg_catalog.pg_stat_activity WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
  AND xact_start OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $1))
  AND backend_type OPERATOR(pg_catalog.=) 'client backend' AND NOT pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() ORDER BY xact_start";
const PREPARED: &str = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database() ORDER BY prepared";
/// What both databases are, as far as a rehearsal depends on it.
const SHAPE: &str = "
SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.md5(coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname,
    pg_catalog.format_type(a.atttypid, a.atttypmod)), ',' ORDER BY n.nspname, c.relname, a.attname), ''))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'S']::pg_catalog.\"char\"[]) AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't'
  AND NOT n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['information_schema', 'pgshadow']) AND NOT n.nspname OPERATOR(pg_catalog.~) '^pg_'";

fn gate(name: &str, open: bool, value: impl Into<String>, threshold: &str, mend: &str) -> Gate {
    let mend = if open { String::new() } else { mend.to_owned() };
    Gate { name: name.to_owned(), open, value: value.into(), threshold: threshold.to_owned(), mend }
}

fn named(all: &[String]) -> String {
    match all.len() {
        0 => "none".to_owned(),
        n if n > NAMED_MAX => {
            format!(
                "{}; and {} more",
                all.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; "),
                n - NAMED_MAX
            )
        }
        _ => all.join("; "),
    }
}

/// What can change at any time.
pub(super) fn of_the_moment(direction: &Direction) -> Vec<Gate> {
    let mirror = &direction.mirror;
    let unreadable = |error: &dyn std::fmt::Display| format!("the store can't be read: {error}");
    let (proven, why) = match mirror.store.certificates() {
        Ok(kept) => {
            let short = certificate(&kept);
            (short.valid, short.reason.unwrap_or_else(|| format!("valid for all {} tables", short.tables)))
        }
        Err(error) => (false, unreadable(&error)),
    };
    let suspects = mirror.store.suspects().map(|all| {
        all.into_iter().map(|s| s.table.map_or_else(|| "every table".to_owned(), |t| t.to_string())).collect::<Vec<_>>()
    });
    let suspects = suspects.unwrap_or_else(|error| vec![unreadable(&error)]);
    let findings = mirror.store.open_count();
    let status = direction.ask(pgshadow_apply::Handle::status);
    let awaited: Vec<String> =
        direction.ask(pgshadow_apply::Handle::awaited).unwrap_or_default().iter().map(ToString::to_string).collect();
    let (stopped, poisoned) = (mirror.is_stopped(), mirror.log.status().poisoned);
    let lag = mirror.book.lag();
    let connected = status.as_ref().is_some_and(|status| status.connected);
    let to_heal = status.as_ref().map_or(0, |status| status.to_heal);
    vec![
        gate("certificate", proven, why, "valid for every table", "pgshadow verify"),
        gate(
            "suspect tables",
            suspects.is_empty(),
            named(&suspects),
            "none",
            "pgshadow verify, then pgshadow backfill --table of those that differ",
        ),
        gate(
            "divergence",
            findings.as_ref().is_ok_and(|open| *open == 0),
            findings.map_or_else(|error| unreadable(&error), |open| format!("{open} open findings")),
            "none open",
            "pgshadow report, then pgshadow repair; or pgshadow acknowledge what is to stay as it is",
        ),
        gate(
            "mirroring",
            !stopped && poisoned.is_none(),
            if stopped {
                "stopped".to_owned()
            } else {
                poisoned.map_or_else(|| "goes on".to_owned(), |why| format!("the log failed: {why}"))
            },
            "goes on",
            "see pgshadow's log, make room, restart, verify",
        ),
        gate("shadow", connected, if connected { "connected" } else { "not connected" }, "connected", "bring it back"),
        gate("rows to heal", to_heal == 0, to_heal.to_string(), "none", "wait, or see pgshadow report"),
        gate("loaded", awaited.is_empty(), named(&awaited), "no table awaits its load", "pgshadow backfill"),
        gate(
            "lag",
            lag.ms <= LAG_MAX_MS,
            format!("{} ms, {} transactions", lag.ms, lag.entries),
            "2000 ms",
            "wait until the shadow has caught up",
        ),
        latency(direction),
        gate(
            "sessions that can't be followed",
            mirror.backends.unfollowed() == 0,
            mirror.backends.unfollowed().to_string(),
            "none",
            "end them, then pgshadow verify",
        ),
    ]
}

/// Those of the moment, where a server can't be asked for the others.
pub(super) fn unreachable(direction: &Direction, why: &str) -> Vec<Gate> {
    let mut gates = of_the_moment(direction);
    gates.push(gate("servers", false, why, "both can be asked", "bring it back; see [source] and [target]"));
    gates
}

/// Whether the shadow is as fast as it must be, by clients' own statements.
fn latency(direction: &Direction) -> Gate {
    let most = direction.config.cutover.latency_ratio_max;
    let p99 = direction.ask(pgshadow_apply::Handle::p99);
    let p99 = p99.filter(|p99| p99.runs >= RUNS_MIN);
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a statement")]
    let [primary, shadow] =
        p99.map_or([0.0; 2], |p99| [p99.primary_micros, p99.shadow_micros].map(|micros| micros as f64 / 1000.0));
    let floor = std::time::Duration::from_micros(pgshadow_compare::Pace::FLOOR_MICROS).as_secs_f64() * 1000.0;
    let value = match p99 {
        Some(p99) => format!("{shadow:.1} ms, on the primary {primary:.1} ms, of {} lately", p99.runs),
        None => format!("fewer than {RUNS_MIN} ran on it in the last {:?}", pgshadow_compare::Latencies::KEPT),
    };
    gate(
        "p99 of statements on the shadow",
        shadow < floor || shadow <= primary * most,
        value,
        &format!("{most} times the primary's, or {floor} ms"),
        "pgshadow report has those that are slower each time; ANALYZE there, compare indexes (pgshadow preflight) and settings; or raise [cutover] latency_ratio_max",
    )
}

/// Whether sessions that can't be taken along are in the way.
pub(super) fn unmovable(policy: Unmovable, sessions: &[pgshadow_admin::Unmovable], unasked: usize) -> Gate {
    let mut names: Vec<String> =
        sessions.iter().map(|one| format!("pid {} {} {}: {}", one.pid, one.user, one.application, one.why)).collect();
    if unasked > 0 {
        names.push(format!("{unasked} that have not answered yet"));
    }
    let (open, threshold) = match policy {
        Unmovable::End => (true, "known: they are ended (57P01)"),
        Unmovable::Refuse => (names.is_empty(), "none"),
    };
    let mend = "have them end what binds them to their server, or end them; or [cutover] unmovable = \"end\"";
    gate("sessions that can't be taken along", open, named(&names), threshold, mend)
}

/// What would be in the way of a flip, or a flip in its way.
pub(super) fn work(direction: &Direction) -> Gate {
    let busy = [
        (direction.backfilling().is_some_and(|one| one.is_running()), "a backfill"),
        (direction.verifying().is_some_and(|one| one.is_running()), "a verify"),
    ];
    let busy: Vec<String> = busy.iter().filter(|(runs, _)| *runs).map(|(_, what)| (*what).to_owned()).collect();
    gate("work under way", busy.is_empty(), named(&busy), "none", "wait until it has ended")
}

/// Whether the mirror of the other direction has doubts, though it has had nothing to do yet.
pub(super) fn of_the_way_back(reverse: &Direction) -> Gate {
    let store = &reverse.mirror.store;
    let suspects = store.suspects().map(|all| all.into_iter().map(|s| s.reason).collect::<Vec<_>>());
    let doubts = suspects.unwrap_or_else(|error| vec![error.to_string()]);
    let sound = doubts.is_empty() && !reverse.mirror.is_stopped() && store.open_count().is_ok_and(|open| open == 0);
    gate(
        "way back",
        sound,
        named(&doubts),
        "no table is suspect to it",
        "try again; was a definition changed meanwhile?",
    )
}

/// Prepared transactions of the primary.
pub(super) async fn prepared(primary: &Client) -> Result<Gate, String> {
    let rows = answered(primary.query(PREPARED, &[])).await.map_err(|error| error.to_string())?;
    let gids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(gate(
        "prepared transactions",
        gids.is_empty(),
        named(&gids),
        "none",
        "COMMIT PREPARED or ROLLBACK PREPARED each",
    ))
}

/// All of them. `timeout`: how long open transactions will have to end.
pub(super) async fn all(
    direction: &Direction,
    [primary, shadow]: [&Own; 2],
    pausing: &Pausing,
    (kept, unrehearsed): (&Kept, bool),
    timeout: Duration,
) -> Result<Vec<Gate>, String> {
    let failed = |error: super::super::primary::Unanswered| error.to_string();
    let mut gates = of_the_moment(direction);
    gates.push(work(direction));
    let rows = answered(primary.client.query(LONG, &[&timeout.as_secs_f64()])).await.map_err(failed)?;
    let long: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let threshold = format!("none older than {timeout:?}");
    gates.push(gate(
        "long transactions",
        long.is_empty(),
        named(&long),
        &threshold,
        "let them end; pgshadow ends none",
    ));
    gates.push(prepared(&primary.client).await?);
    let mut past = super::super::bypass::past(&primary.client, &direction.mirror).await.map_err(failed)?;
    if !past.is_empty() {
        // one whose login is on its way is known in a moment, and one that is on its way out is gone
        tokio::time::sleep(AGAIN).await;
        past = super::super::bypass::past(&primary.client, &direction.mirror).await.map_err(failed)?;
    }
    gates.push(gate(
        "clients past pgshadow",
        past.is_empty(),
        named(&past),
        "none on the primary",
        "have them connect to pgshadow, then pgshadow verify; normal while a deployment rolls out, but not at the flip",
    ));
    let held = pausing.sessions.pause.holds();
    gates.push(gate(
        "pause",
        !held,
        if held { "new transactions are held" } else { "none" },
        "none by another command",
        "pgshadow resume",
    ));
    let wanted = sequences::wanted(&primary.client, &direction.config.mirror.exclude).await;
    gates.push(match wanted {
        Ok(wanted) => {
            let not = sequences::unsettable(&shadow.client, &wanted).await?;
            let value = if not.is_empty() { format!("{} can be set", wanted.len()) } else { named(&not) };
            let mend = "make those that are missing (pgshadow preflight), GRANT UPDATE ON SEQUENCE to pgshadow's role on the shadow";
            gate("sequences", not.is_empty(), value, "all of the primary's can be set on the shadow", mend)
        }
        Err(why) => gate("sequences", false, why, "all of the primary's can be set on the shadow", "as it says"),
    });
    let may = fence::may(&primary.client).await?;
    let value = match (may.owns, may.signals) {
        (true, true) => "pgshadow's role may".to_owned(),
        (false, _) => "pgshadow's role isn't the database's owner".to_owned(),
        (_, false) => "pgshadow's role may, but ends sessions of its own roles only (pg_signal_backend)".to_owned(),
    };
    let mend = "on the primary: GRANT the database's owner to pgshadow's role (or ALTER DATABASE ... OWNER TO it), and GRANT pg_signal_backend to it";
    gates.push(gate("fence", may.owns, value, "clients can be kept off the old primary", mend));
    let superusers = may.superusers.unwrap_or_else(|| "none".to_owned());
    gates.push(gate("superusers", true, superusers, "known: they can't be kept off the old primary", ""));
    if direction.primary == Place::Source {
        let shape = shape(primary, shadow).await?;
        let rehearsed = kept.rehearsed.as_ref().filter(|rehearsed| rehearsed.of == shape);
        let value = match (rehearsed, &kept.rehearsed) {
            (Some(rehearsed), _) => format!("at {}", rehearsed.at),
            (None, Some(rehearsed)) => format!("at {}, of another schema or version", rehearsed.at),
            (None, None) => "never".to_owned(),
        };
        let mend = "pgshadow rehearse; or --unrehearsed, which trusts in a way back that nobody has gone";
        gates.push(gate(
            "rollback rehearsed",
            rehearsed.is_some() || unrehearsed,
            value,
            "of this schema and these versions",
            mend,
        ));
        gates.push(preflight(&direction.config, rehearsed.is_some()).await?);
    }
    Ok(gates)
}

/// What would make a cutover fail, by preflight's checks.
async fn preflight(config: &Config, rehearsed: bool) -> Result<Gate, String> {
    // these sessions are made read-only
    let [source, target] = [own::connect(&config.source).await?, own::connect(&config.target).await?];
    let facts = Facts { rehearsed: Some(rehearsed), ..facts(config) };
    let report = pgshadow_preflight::run(&source.client, &target.client, &facts).await;
    let blocks: Vec<String> = report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Block)
        .map(|finding| format!("{} {}: {}", finding.check, finding.subject, finding.happens))
        .collect();
    let value = match blocks.is_empty() {
        true => format!("{} warnings, {} notes", report.counts.warn, report.counts.note),
        false => named(&blocks),
    };
    Ok(gate("preflight", blocks.is_empty(), value, "nothing blocks", "pgshadow preflight says what mends each"))
}

/// What a rehearsal is of.
pub(super) async fn shape(primary: &Own, shadow: &Own) -> Result<String, String> {
    let mut all = Vec::new();
    for place in [primary, shadow] {
        let row = answered(place.client.query_one(SHAPE, &[])).await.map_err(|error| error.to_string())?;
        all.push(format!("{} {}", row.get::<_, String>(0), row.get::<_, String>(1)));
    }
    // the same from either side
    all.sort();
    Ok(all.join(", "))
}

/// The closed ones, for people.
pub(super) fn closed(gates: &[Gate]) -> Option<String> {
    let closed: Vec<String> =
        gates.iter().filter(|gate| !gate.open).map(|gate| format!("{}: {}", gate.name, gate.value)).collect();
    (!closed.is_empty()).then(|| closed.join("; "))
}
