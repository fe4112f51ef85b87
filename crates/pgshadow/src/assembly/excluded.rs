//! `[mirror] exclude` as it was at the start before: what was written to a table while it was excluded isn't on the shadow.
use super::mirror::Mirror;
use pgshadow_divergence::{Error, LapseOf};
use pgshadow_model::{QualifiedName, Suspect};

/// Before anything is mirrored: tables that are excluded no more are suspect, and the certificates of those that are from now on lapse.
pub(super) fn compare(mirror: &Mirror, now: &[QualifiedName]) -> Result<(), Error> {
    let before = mirror.store.excluded()?.unwrap_or_else(|| now.to_vec());
    for table in before.iter().filter(|table| !now.contains(table)) {
        let reason = "it was excluded from mirroring before".to_owned();
        mirror.keep_suspect(&Suspect { table: Some(table.clone()), reason })?;
        // it is one of all tables now
        mirror.redefined(&[], &format!("{table} was excluded from mirroring before"));
    }
    let excluded = now.iter().filter(|table| !before.contains(table)).cloned().map(LapseOf::Table);
    mirror.lapse(&excluded.collect::<Vec<_>>(), "it is excluded from mirroring");
    mirror.store.set_excluded(now)
}
