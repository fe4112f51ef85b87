//! A row that goes the whole way there and back: through a session that is captured like a client's, the log, the applier. Only then is it known that what
//! is written to the new primary would reach the old one.
use super::super::direction::Direction;
use super::super::mirror::Mirror;
use super::super::own::{Own, connect};
use super::super::primary::{answered, told};
use crate::config::Database;
use pgshadow_proxy::{Authentication, Config, OtherDatabases, Proxy, Route, Routes, Upstream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

/// How long a row may take.
const ARRIVES_IN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);
const TABLE: &str = "CREATE SCHEMA IF NOT EXISTS pgshadow;
CREATE TABLE IF NOT EXISTS pgshadow.canary (id int8 PRIMARY KEY, word text NOT NULL)";

/// Sends the row there by `forward` and back by `reverse`; how long each way took.
///
/// # Errors
/// Which way it didn't go, and why.
pub(super) async fn there_and_back(
    forward: &Direction,
    reverse: &Direction,
    upstream: impl Fn(&Database) -> Upstream,
) -> Result<[Duration; 2], String> {
    let [here, there] = [connect(&forward.config.source).await?, connect(&reverse.config.source).await?];
    // it makes the schema there
    is_connected(reverse).await?;
    for (place, database) in [(&here, &forward.config.source), (&there, &reverse.config.source)] {
        let made = answered(place.client.batch_execute(TABLE)).await;
        made.map_err(|error| {
            format!("the schema pgshadow can't be made on {}/{}: {error}", database.server, database.name)
        })?;
    }
    // what an attempt that was cut off has left on one side alone would be a difference
    for place in [&here, &there] {
        let emptied = answered(place.client.batch_execute("DELETE FROM pgshadow.canary")).await;
        emptied.map_err(|error| error.to_string())?;
    }
    let insert =
        |id: i64| format!("INSERT INTO pgshadow.canary VALUES ({id}, '{}')", if id == 1 { "there" } else { "back" });
    let went = sent(forward, upstream(&forward.config.source), &insert(1), &there, (1, "there")).await;
    let went = went.map_err(|why| format!("what is written to the present primary doesn't reach its shadow: {why}"))?;
    let came = sent(reverse, upstream(&reverse.config.source), &insert(2), &here, (2, "back")).await;
    let came =
        came.map_err(|why| format!("what is written to the new primary doesn't come back to the old one: {why}"))?;
    Ok([went, came])
}

/// Waits until the applier has its shadow.
async fn is_connected(direction: &Direction) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let status = direction.ask(pgshadow_apply::Handle::status).ok_or_else(|| "the applier has ended".to_owned())?;
        if status.connected {
            return Ok(());
        }
        if begun.elapsed() > ARRIVES_IN {
            let why = status.last_error.unwrap_or_default();
            return Err(format!("the old primary can't be written to as a shadow within {ARRIVES_IN:?}: {why}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs a statement by a captured session of this direction, and waits until the row is that on the shadow.
async fn sent(
    direction: &Direction,
    upstream: Upstream,
    sql: &str,
    shadow: &Own,
    (id, word): (i64, &str),
) -> Result<Duration, String> {
    let begun = Instant::now();
    by_session(direction, upstream, sql).await?;
    let arrived = "SELECT EXISTS (SELECT FROM pgshadow.canary WHERE id = $1 AND word = $2)";
    while !answered(shadow.client.query_one(arrived, &[&id, &word])).await.map_err(|e| e.to_string())?.get::<_, bool>(0)
    {
        if begun.elapsed() > ARRIVES_IN {
            let status = direction.ask(pgshadow_apply::Handle::status).and_then(|status| status.last_error);
            return Err(format!("a row didn't arrive within {ARRIVES_IN:?}; {}", status.unwrap_or_default()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(begun.elapsed())
}

/// A session of pgshadow's own role, through a relay for it alone.
async fn by_session(direction: &Direction, upstream: Upstream, sql: &str) -> Result<(), String> {
    let database = &direction.config.source;
    let route = Route {
        number: 0,
        upstream: upstream.clone(),
        database: None,
        settings: Vec::new(),
        shared: Some(Arc::clone(&direction.shared)),
    };
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        database: database.name.clone(),
        other_databases: OtherDatabases::Refuse,
        authentication: Authentication::Relay,
        connect_timeout: ARRIVES_IN,
        startup_timeout: ARRIVES_IN,
        clients_max: 1,
    };
    let proxy = Proxy::<Mirror>::bind(config, Arc::new(Routes::new(route, upstream)))
        .await
        .map_err(|error| error.to_string())?;
    let port = proxy.address().map_err(|error| error.to_string())?.port();
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone().drop_guard();
    let relay = tokio::spawn(proxy.run(shutdown, Duration::from_secs(1)));
    let mut own = tokio_postgres::Config::new();
    own.host("127.0.0.1").port(port).dbname(&database.name).application_name("pgshadow canary");
    own.options("-c default_transaction_read_only=off");
    if let Some(user) = database.postgres.get_user() {
        own.user(user);
    }
    if let Some(password) = database.postgres.get_password() {
        own.password(password);
    }
    let (client, connection) = own.connect(NoTls).await.map_err(|error| told(&error))?;
    let work = tokio::spawn(connection);
    let done = answered(client.batch_execute(sql)).await.map_err(|error| error.to_string());
    drop(client);
    let _ = work.await;
    drop(ended);
    let _ = relay.await;
    done
}
