//! Extensions that the target lacks, or has in an older version.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::words::{literal, name};
use pgshadow_model::{Place, quote};
use std::collections::BTreeMap;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sql = "SELECT x.extname, n.nspname, x.extversion FROM pg_catalog.pg_extension x
        JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace";
    let mut there = BTreeMap::new();
    for row in pair.target.rows(sql).await? {
        there.insert(pair.target.get::<String>(&row, 0)?, pair.target.get::<String>(&row, 2)?);
    }
    // Tables with columns of its types can't be made without it.
    let in_columns = format!(
        "SELECT DISTINCT x.extname::text FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_depend d
          ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = x.oid AND d.classid = 'pg_catalog.pg_type'::regclass AND d.deptype = 'e'
        JOIN pg_catalog.pg_type t ON d.objid IN (t.oid, t.typelem, t.typbasetype) JOIN pg_catalog.pg_attribute a ON a.atttypid = t.oid AND a.attnum > 0
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT a.attisdropped AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let in_columns: Vec<String> = pair.source.values(&in_columns).await?;
    let installed = pair.source.rows(sql).await?;
    let names = installed.iter().map(|row| pair.source.get::<String>(row, 0)).collect::<Result<Vec<_>, _>>()?;
    // The server reads all its files for that.
    let available: Vec<String> = match names.iter().all(|extension| there.contains_key(extension)) {
        true => Vec::new(),
        false => pair.target.values("SELECT a.name FROM pg_catalog.pg_available_extensions a").await?,
    };
    let mut found = Vec::new();
    for row in installed {
        let get = |column| pair.source.get::<String>(&row, column);
        let (extension, schema, version) = (get(0)?, get(1)?, get(2)?);
        match there.get(&extension) {
            None if !available.contains(&extension) => {
                let happens = "the target's server doesn't have it: install its package there first";
                let mend = format!("CREATE EXTENSION {} WITH SCHEMA {};", quote(&extension), quote(&schema));
                let finding = Finding::block(Place::Target, name(&extension), happens).mend(mend);
                found.push(if in_columns.contains(&extension) { finding.before_load() } else { finding });
            }
            None if !pair.target_is_empty => {
                let happens = "the target's database lacks it, and what uses its types and functions fails there";
                let mend = format!("CREATE EXTENSION {} WITH SCHEMA {};", quote(&extension), quote(&schema));
                found.push(Finding::block(Place::Target, name(&extension), happens).mend(mend));
            }
            Some(older) if is_older(older, &version) => {
                let happens = format!(
                    "version {older} on the target, {version} on the source: functions may be missing or act otherwise"
                );
                let mend = format!("ALTER EXTENSION {} UPDATE TO {};", quote(&extension), literal(&version));
                found.push(Finding::warn(Place::Target, name(&extension), happens).sure(Sure::Possible).mend(mend));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Versions of numbers and points; others aren't compared.
fn is_older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| text.split(['.', '-']).map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    matches!((numbers(version), numbers(than)), (Some(one), Some(other)) if one < other)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, than, older) in
            [("1.9", "1.10", true), ("1.10", "1.9", false), ("2", "2", false), ("a", "b", false)]
        {
            assert_eq!(is_older(version, than), older, "{version} {than}");
        }
    }
}
