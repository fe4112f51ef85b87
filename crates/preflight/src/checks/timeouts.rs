//! Timeouts that sessions of pgshadow's role begin with.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::words::name;
use pgshadow_model::quote;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    // What a session begins with, whatever this one has set.
    let sql = "SELECT s.name, s.reset_val || coalesce(s.unit, '') FROM pg_catalog.pg_settings s
        WHERE s.name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout')
          AND s.reset_val <> '0' ORDER BY 1";
    let mut found = Vec::new();
    for server in pair.both() {
        for row in server.rows(sql).await? {
            let (setting, value): (String, String) = (server.get(&row, 0)?, server.get(&row, 1)?);
            let happens = format!(
                "{setting} is {value} for it: pgshadow sets that off where it reads or writes for long, but what is run by hand as this role \
                (a mend that builds an index, say) is ended by it"
            );
            let mend = format!(
                "ALTER ROLE {} IN DATABASE {} SET {setting} TO 0;",
                quote(&server.role),
                quote(&server.database)
            );
            found.push(Finding::note(server.place, name(&server.role), happens).sure(Sure::Possible).mend(mend));
        }
    }
    Ok(found)
}
