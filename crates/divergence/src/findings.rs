use crate::certificates::{LapseOf, lapse_in, lapses_by};
use crate::store::{BY_KEY, COUNTERS, FINDINGS, GROUPS, ORIGINS, add, now, uncounted_of};
use crate::{Error, Store};
use pgshadow_model::{Finding, Sequence};
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

/// The change that a finding comes from: sequence of its transaction and its place among that one's changes.
pub type Origin = (Sequence, u32);

/// A finding as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    finding: Finding,
    /// Occurrences that no healing has reached.
    unhealed: u64,
}

impl Store {
    /// Keeps a finding, or counts it where it is known. Its number; 0 if the store is full of open findings, when it
    /// is only counted and logged. `id`, `count` and the times are set here; `first_seen` is kept if it is given.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn record(&self, finding: Finding) -> Result<u64, Error> {
        self.record_all(vec![(None, finding)]).map(|ids| ids.first().copied().unwrap_or(0))
    }

    /// As [`Store::record`] for many findings, durable together. A finding with an origin that was recorded before
    /// changes nothing.
    ///
    /// # Errors
    /// The file can't be written; then none is kept.
    pub fn record_all(&self, findings: Vec<(Option<Origin>, Finding)>) -> Result<Vec<u64>, Error> {
        for (_, finding) in &findings {
            if let Some(reason) = lapses_by(finding) {
                self.note_lapse(&LapseOf::table(finding.table.as_ref()), &reason);
            }
        }
        let write = self.database.begin_write()?;
        let (mut ids, mut new) = (Vec::with_capacity(findings.len()), Vec::new());
        for (origin, finding) in findings {
            if let Some(known) = known_origin(&write, origin)? {
                ids.push(known);
                continue;
            }
            let finding = self.keep(&write, finding)?;
            if let Some(reason) = lapses_by(&finding) {
                lapse_in(&write, &[LapseOf::table(finding.table.as_ref())], &reason)?;
            }
            if let Some(origin) = origin {
                write.open_table(ORIGINS)?.insert(origin, (finding.id, false))?;
            }
            ids.push(finding.id);
            new.push(serde_json::to_string(&finding)?);
        }
        write.commit()?;
        for line in new {
            tracing::error!(target: "pgshadow::finding", "{line}");
        }
        Ok(ids)
    }

    fn keep(&self, write: &WriteTransaction, mut finding: Finding) -> Result<Finding, Error> {
        let now = now();
        let group = serde_json::to_string(&(&finding.fingerprint, &finding.table))?;
        let key = serde_json::to_string(&(&finding.fingerprint, &finding.table, &finding.key))?;
        let known = write.open_table(BY_KEY)?.get(key.as_str())?.map(|id| id.value());
        if let Some(id) = known {
            return raise(write, id, &finding, &now);
        }
        let mut examples = examples(write, &group)?;
        if let Some(&last) = examples.last()
            && examples.len() >= self.limits.examples_per_group
        {
            return raise(write, last, &finding, &now);
        }
        if self.kept(write)? >= self.limits.findings && !self.make_room(write)? {
            add(write, &uncounted_of(finding.table.as_ref(), lapses_by(&finding).is_some())?, 1)?;
            (finding.id, finding.count) = (0, 1);
            return Ok(finding);
        }
        let id = add(write, "finding_ids", 1)?;
        if finding.first_seen.is_empty() {
            finding.first_seen.clone_from(&now);
        }
        (finding.id, finding.last_seen, finding.count, finding.healed) = (id, now, finding.count.max(1), false);
        put(write, &Kept { finding: finding.clone(), unhealed: 1 })?;
        write.open_table(BY_KEY)?.insert(key.as_str(), id)?;
        examples.push(id);
        write.open_table(GROUPS)?.insert(group.as_str(), serde_json::to_vec(&examples)?.as_slice())?;
        add(write, "kept", 1)?;
        Ok(finding)
    }

    fn kept(&self, write: &WriteTransaction) -> Result<u64, Error> {
        Ok(write.open_table(COUNTERS)?.get("kept")?.map_or(0, |v| v.value()))
    }

    /// Drops a tenth of the findings, healed or acknowledged ones, oldest first. False if there are none.
    fn make_room(&self, write: &WriteTransaction) -> Result<bool, Error> {
        let many = usize::try_from(self.limits.findings / 10 + 1).unwrap_or(usize::MAX);
        let mut gone = Vec::new();
        for row in write.open_table(FINDINGS)?.iter()? {
            let kept: Kept = serde_json::from_slice(row?.1.value())?;
            if kept.finding.healed || kept.finding.acknowledged {
                gone.push(kept.finding);
            }
            if gone.len() >= many {
                break;
            }
        }
        for finding in &gone {
            let group = serde_json::to_string(&(&finding.fingerprint, &finding.table))?;
            let key = serde_json::to_string(&(&finding.fingerprint, &finding.table, &finding.key))?;
            let mut rest = examples(write, &group)?;
            rest.retain(|id| *id != finding.id);
            write.open_table(GROUPS)?.insert(group.as_str(), serde_json::to_vec(&rest)?.as_slice())?;
            write.open_table(FINDINGS)?.remove(finding.id)?;
            write.open_table(BY_KEY)?.remove(key.as_str())?;
        }
        let left = self.kept(write)?.saturating_sub(gone.len() as u64);
        write.open_table(COUNTERS)?.insert("kept", left)?;
        Ok(!gone.is_empty())
    }

    /// All findings kept, by number.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn list(&self) -> Result<Vec<Finding>, Error> {
        let table = self.database.begin_read()?.open_table(FINDINGS)?;
        let mut all = Vec::new();
        for row in table.iter()? {
            all.push(serde_json::from_slice::<Kept>(row?.1.value())?.finding);
        }
        Ok(all)
    }

    /// Findings neither healed nor acknowledged, with those that were only counted.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn open_count(&self) -> Result<u64, Error> {
        let open = self.list()?.iter().filter(|f| !f.healed && !f.acknowledged).count();
        Ok(open as u64 + self.uncounted()?)
    }

    /// The finding is mended in all its occurrences. False if there is none of that number.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn mark_healed(&self, id: u64) -> Result<bool, Error> {
        self.change(id, |kept| {
            kept.unhealed = 0;
            kept.finding.healed = true;
        })
    }

    /// The occurrence that came from this change is mended; its finding is, once all its occurrences are. Counts a
    /// healed row the first time that it is called for an origin.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn mark_origin_healed(&self, origin: Origin) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        let known = write.open_table(ORIGINS)?.get(origin)?.map(|v| v.value());
        if let Some((id, false)) = known {
            write.open_table(ORIGINS)?.insert(origin, (id, true))?;
            if let Some(mut kept) = get(&write, id)? {
                kept.unhealed = kept.unhealed.saturating_sub(1);
                kept.finding.healed = kept.unhealed == 0;
                put(&write, &kept)?;
            }
            add(&write, "healed_rows", 1)?;
        }
        write.commit()?;
        Ok(())
    }

    /// Forgets healed origins below this sequence: they were applied for good and can't be reported again.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget_origins(&self, below: Sequence) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(ORIGINS)?.retain_in(..(below, 0), |_, (_, healed)| !healed)?;
        write.commit()?;
        Ok(())
    }

    /// Forgets all origins: the numbers in them will be given out anew.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn forget_all_origins(&self) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        write.open_table(ORIGINS)?.retain(|_, _| false)?;
        write.commit()?;
        Ok(())
    }

    /// A DBA has seen it. False if there is none of that number.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn acknowledge(&self, id: u64) -> Result<bool, Error> {
        self.change(id, |kept| kept.finding.acknowledged = true)
    }

    fn change(&self, id: u64, by: impl FnOnce(&mut Kept)) -> Result<bool, Error> {
        let write = self.database.begin_write()?;
        let kept = get(&write, id)?;
        let found = kept.is_some();
        if let Some(mut kept) = kept {
            by(&mut kept);
            put(&write, &kept)?;
        }
        write.commit()?;
        Ok(found)
    }
}

fn known_origin(write: &WriteTransaction, origin: Option<Origin>) -> Result<Option<u64>, Error> {
    let Some(origin) = origin else { return Ok(None) };
    Ok(write.open_table(ORIGINS)?.get(origin)?.map(|v| v.value().0))
}

/// One more occurrence: the evidence of the first stays, the finding is open again.
fn raise(write: &WriteTransaction, id: u64, again: &Finding, now: &str) -> Result<Finding, Error> {
    let Some(mut kept) = get(write, id)? else {
        return Ok(again.clone());
    };
    kept.finding.count = kept.finding.count.saturating_add(again.count.max(1));
    kept.finding.last_seen = now.to_owned();
    kept.finding.healed = false;
    // what a statement does or takes there was acknowledged for all times; a row, a definition that comes again is to be looked at
    kept.finding.acknowledged &= kept.finding.is_of_statements();
    kept.unhealed += 1;
    put(write, &kept)?;
    let mut shown = again.clone();
    (shown.id, shown.count) = (id, kept.finding.count);
    (shown.first_seen, shown.last_seen) = (kept.finding.first_seen, now.to_owned());
    Ok(shown)
}

fn get(write: &WriteTransaction, id: u64) -> Result<Option<Kept>, Error> {
    let table = write.open_table(FINDINGS)?;
    let row = table.get(id)?;
    row.map(|v| serde_json::from_slice(v.value())).transpose().map_err(Into::into)
}

fn put(write: &WriteTransaction, kept: &Kept) -> Result<(), Error> {
    write.open_table(FINDINGS)?.insert(kept.finding.id, serde_json::to_vec(kept)?.as_slice())?;
    Ok(())
}

fn examples(write: &WriteTransaction, group: &str) -> Result<Vec<u64>, Error> {
    let table = write.open_table(GROUPS)?;
    let row = table.get(group)?;
    row.map_or(Ok(Vec::new()), |v| serde_json::from_slice(v.value()).map_err(Into::into))
}
