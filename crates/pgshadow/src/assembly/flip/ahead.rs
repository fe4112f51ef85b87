//! What sessions will ask of the new primary's catalog, asked ahead of a flip. Behind it all of them would ask for the same tables at the same
//! moment, while their clients wait.
use super::super::direction::Direction;
use super::super::own;
use super::super::primary::answered;
use pgshadow_catalog::{AskedFor, Found, probe};
use pgshadow_model::quote;
use std::time::Duration;
use tokio::time::Instant;

/// How long it is waited for what is committed to be applied, and how long tables are looked up: what is left is asked for later, by sessions.
const APPLIED_WITHIN: Duration = Duration::from_secs(5);
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);
/// Tables of one question.
const AT_ONCE: usize = 50;

/// Looks up on the shadow what sessions have looked up on the primary, as the roles and with the paths that they have. Gives the epoch of the
/// primary's catalog for which the answers hold (once that is another one, what is applied may have changed them), and how many names it were.
/// `None`: nothing was asked.
pub(super) async fn look_up(forward: &Direction, reverse: &Direction) -> Option<(u64, usize)> {
    let (epoch, mark) = (forward.mirror.catalog.epoch(), forward.mirror.book.barrier());
    let applied = async {
        forward.mirror.book.wait_settled(mark).await;
        forward.mirror.book.wait_applied(mark).await;
    };
    tokio::time::timeout(APPLIED_WITHIN, applied).await.ok()?;
    let until = Instant::now() + LOOKED_UP_WITHIN;
    let connected = own::connect(&reverse.config.source).await;
    let own = connected.inspect_err(|why| tracing::debug!(why, "tables are not looked up ahead")).ok()?;
    let mut looked_up = 0;
    for asked in forward.mirror.catalog.asked_for() {
        for names in asked.names.chunks(AT_ONCE) {
            if Instant::now() >= until {
                return Some((epoch, looked_up));
            }
            // a role that this one can't be, say: then its sessions ask
            if let Err(why) = ask(&own.client, &asked, names, reverse).await {
                tracing::debug!(why, role = asked.role, "tables are not looked up ahead");
                answered(own.client.batch_execute("ROLLBACK")).await.ok()?;
                break;
            }
            looked_up += names.len();
        }
    }
    Some((epoch, looked_up))
}

async fn ask(
    client: &tokio_postgres::Client,
    asked: &AskedFor,
    names: &[String],
    reverse: &Direction,
) -> Result<(), String> {
    let failed = |error: super::super::primary::Unanswered| error.to_string();
    let path: Vec<String> = asked.schemas.iter().map(|schema| quote(schema)).collect();
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL search_path = {}; SET LOCAL row_security = {}; SET LOCAL ROLE {}",
        if path.is_empty() { "''".to_owned() } else { path.join(", ") },
        asked.row_security,
        quote(&asked.role)
    );
    answered(client.batch_execute(&begin)).await.map_err(failed)?;
    let catalog = &reverse.mirror.catalog;
    let epoch = catalog.epoch();
    let row = answered(client.query_one(probe::sql(), &[&names])).await.map_err(failed)?;
    let told: Vec<u8> = row.try_get(0).map_err(|error| error.to_string())?;
    let probed = probe::answer(&told).map_err(|error| error.to_string())?;
    let key = probed.identity.key();
    for (name, found) in names.iter().zip(probed.tables) {
        match found {
            Found::Nothing => catalog.keep(epoch, &key, name, None),
            Found::Table(table) => catalog.keep(epoch, &key, name, Some(table)),
            Found::Involved => {}
        }
    }
    answered(client.batch_execute("ROLLBACK")).await.map_err(failed)
}
