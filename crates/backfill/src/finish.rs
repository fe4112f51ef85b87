//! What comes behind the tables: sequences, large objects, materialized views, statistics.

use crate::Error;
use crate::schema::Difference;
use crate::shadow::Shadow;
use futures::{StreamExt, TryStreamExt, stream};
use pgshadow_model::{QualifiedName, quote};
use pgshadow_verify::{Pace, Pool};
use tokio_postgres::{Client, Row};

const SEQUENCES: &str = "
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_'
ORDER BY 1, 2";

/// Those with contents, each behind what it reads.
const VIEWS: &str = "
WITH RECURSIVE reads AS (
    SELECT DISTINCT w.ev_class AS view, d.refobjid AS of FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> w.ev_class),
deep AS (SELECT c.oid AS view, 0 AS level FROM pg_catalog.pg_class c WHERE c.relkind IN ('m', 'v')
  UNION SELECT r.view, deep.level + 1 FROM deep JOIN reads r ON r.of = deep.view WHERE deep.level < 100)
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN deep ON deep.view = c.oid WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname !~ '^pg_'
GROUP BY 1, 2 ORDER BY max(deep.level), 1, 2";

/// Tables with rows that belong to an extension: it fills them itself, and what they hold may be for its own version, or do something (jobs).
const OF_EXTENSIONS: &str = "
SELECT n.nspname::text, c.relname::text, e.extname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = d.refobjid
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND pg_catalog.pg_relation_size(c.oid) > 0 ORDER BY 1, 2";

/// Large objects that are removed in one transaction: each takes a lock.
const UNLINKED_AT_ONCE: i64 = 1000;
/// Bytes of a large object in one question.
const PART: i64 = 1 << 20;
const OBJECTS_AT_ONCE: usize = 2;

fn told(what: &str, error: &tokio_postgres::Error) -> String {
    let said = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    format!("{what}: {said}")
}

/// Sets the shadow's sequences to where the primary's are now. Gives what failed.
pub(crate) async fn sequences(primary: &Client, shadow: &Client) -> Result<Vec<String>, Error> {
    let mut failed = Vec::new();
    for row in primary.query(SEQUENCES, &[]).await.map_err(Error::primary)? {
        let read = || Ok::<_, tokio_postgres::Error>((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        let (schema, name) = read().map_err(Error::primary)?;
        let sequence = QualifiedName::new(schema, name);
        let what = format!("sequence {sequence}");
        let value = match primary.query_one(&format!("SELECT last_value, is_called FROM {}", sequence.sql()), &[]).await
        {
            Ok(value) => value,
            Err(error) if error.as_db_error().is_some() => {
                failed.push(told(&what, &error));
                continue;
            }
            Err(error) => return Err(Error::primary(error)),
        };
        let (last, called): (i64, bool) =
            (value.try_get(0).map_err(Error::primary)?, value.try_get(1).map_err(Error::primary)?);
        let sql = "SELECT pg_catalog.setval($1::text::pg_catalog.regclass, $2, $3)";
        match shadow.execute(sql, &[&sequence.sql(), &last, &called]).await {
            Ok(_) => {}
            Err(error) if error.as_db_error().is_some() => failed.push(told(&what, &error)),
            Err(error) => return Err(Error::shadow(error)),
        }
    }
    Ok(failed)
}

/// What extensions' tables hold isn't loaded: they are told.
pub(crate) async fn of_extensions(primary: &Client) -> Result<Vec<Difference>, Error> {
    let rows = primary.query(OF_EXTENSIONS, &[]).await.map_err(Error::primary)?;
    let told = |row: &Row| -> Result<Difference, tokio_postgres::Error> {
        let table = QualifiedName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        let extension: String = row.try_get(2)?;
        Ok(Difference {
            kind: "rows of".to_owned(),
            name: table.to_string(),
            primary: Some(format!(
                "not loaded, as they are those of the extension {extension} (`pgshadow verify` compares them)"
            )),
            shadow: Some("what the extension put there".to_owned()),
        })
    };
    rows.iter().map(|row| told(row).map_err(Error::primary)).collect()
}

/// Brings large objects as the snapshot has them to the shadow, in place of what it has. Gives what failed.
pub(crate) async fn large_objects(primary: &Pool, shadow: &Shadow<'_>, pace: &Pace) -> Result<Vec<String>, Error> {
    let all = "SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner)::text FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid";
    let mut objects: Vec<(u32, String)> = Vec::new();
    for row in primary.ask(all, &[]).await? {
        objects.push((row.try_get(0).map_err(Error::primary)?, row.try_get(1).map_err(Error::primary)?));
    }
    let mut failed: Vec<String> = Vec::new();
    let gone = "SELECT pg_catalog.count(pg_catalog.lo_unlink(m.oid)) FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata LIMIT $1) AS m";
    let writer = shadow.writer().await?;
    loop {
        match writer.client.query_one(gone, &[&UNLINKED_AT_ONCE]).await.and_then(|row| row.try_get::<_, i64>(0)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.as_db_error().is_some() => {
                failed.push(told("large objects", &error));
                break;
            }
            Err(error) => return Err(Error::shadow(error)),
        }
    }
    shadow.give_back(writer);
    let copied: Vec<Option<String>> = stream::iter(objects)
        .map(|(oid, owner)| large_object((primary, pace), shadow, oid, owner))
        .buffer_unordered(OBJECTS_AT_ONCE)
        .try_collect()
        .await?;
    failed.extend(copied.into_iter().flatten());
    Ok(failed)
}

async fn large_object(
    (primary, pace): (&Pool, &Pace),
    shadow: &Shadow<'_>,
    oid: u32,
    owner: String,
) -> Result<Option<String>, Error> {
    let what = format!("large object {oid}");
    let writer = shadow.writer().await?;
    let made = async {
        writer.client.batch_execute("BEGIN").await.map_err(Error::shadow)?;
        writer.client.execute("SELECT pg_catalog.lo_create($1)", &[&oid]).await.map_err(Error::shadow)?;
        let mut from = 0_i64;
        loop {
            let length = i32::try_from(PART).unwrap_or(i32::MAX);
            let rows = primary.ask("SELECT pg_catalog.lo_get($1, $2, $3)", &[&oid, &from, &length]).await?;
            let part: Vec<u8> =
                rows.first().map(|row| row.try_get(0)).transpose().map_err(Error::primary)?.unwrap_or_default();
            if part.is_empty() {
                break;
            }
            drop(pace.take(part.len() as u64).await);
            let put = "SELECT pg_catalog.lo_put($1, $2, $3)";
            writer.client.execute(put, &[&oid, &from, &part]).await.map_err(Error::shadow)?;
            from += PART;
        }
        let own = format!("ALTER LARGE OBJECT {oid} OWNER TO {}", quote(&owner));
        writer.client.batch_execute(&format!("SAVEPOINT own; {own}")).await.map_err(Error::shadow)
    };
    let made = match made.await {
        Err(error)
            if error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_OBJECT)
                || error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) =>
        {
            // it is there, with another owner
            let back = writer.client.batch_execute("ROLLBACK TO SAVEPOINT own").await;
            back.map(|()| Some(format!("{what}: owner {owner}: {error}"))).map_err(Error::shadow)
        }
        made => made.map(|()| None),
    };
    match made {
        Ok(told) => {
            writer.client.batch_execute("COMMIT").await.map_err(Error::shadow)?;
            shadow.give_back(writer);
            Ok(told)
        }
        Err(error) if error.is_lost() || error.code().is_none() => Err(error),
        // the writer goes with its transaction
        Err(error) => Ok(Some(format!("{what}: {error}"))),
    }
}

/// Fills materialized views. Gives what failed.
pub(crate) async fn views(primary: &Client, shadow: &Client) -> Result<Vec<String>, Error> {
    let mut failed = Vec::new();
    for row in primary.query(VIEWS, &[]).await.map_err(Error::primary)? {
        let read = || Ok::<_, tokio_postgres::Error>((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        let (schema, name) = read().map_err(Error::primary)?;
        let view = QualifiedName::new(schema, name);
        match shadow.batch_execute(&format!("REFRESH MATERIALIZED VIEW {}", view.sql())).await {
            Ok(()) => {}
            Err(error) if error.as_db_error().is_some() => {
                failed.push(told(&format!("materialized view {view}"), &error))
            }
            Err(error) => return Err(Error::shadow(error)),
        }
    }
    Ok(failed)
}
