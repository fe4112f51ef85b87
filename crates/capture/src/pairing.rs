//! Which written row was which: the old key of each, where the key may have changed.
use crate::classify::binary;
use crate::image::Image;
use crate::plan::{KeyPart, OldRow, Seen, WriteEffect};
use pgshadow_model::{Column, Operation, Relation, RowImage, Values};
use std::collections::HashMap;
use std::sync::Arc;

/// The old key of a row as its own image tells it; `None` if that can't be read. For rows that were locked ahead it comes
/// later, by [`with_locked`].
#[allow(clippy::option_option)]
pub(crate) fn old_key(write: &WriteEffect, image: &Image) -> Option<Option<Values>> {
    let relation = &write.table.relation;
    let old = match &write.old {
        OldRow::Same | OldRow::Locked(_) => return Some(None),
        OldRow::Returned(_) => match &image.old {
            Some(old) if image.operation != Some(Operation::Delete) => old.clone(),
            _ => return Some(None),
        },
        OldRow::Fixed(parts) => fixed_key(relation, parts, image)?,
        // only of rows that can't be seen
        OldRow::FixedRows(_) => return None,
    };
    Some(if relation.key.is_empty() || old != key_of(relation, &image.values) { Some(old) } else { None })
}

/// The key that the text fixes; `None` if a parameter can't be read.
fn fixed_key(relation: &Relation, parts: &[KeyPart], image: &Image) -> Option<Values> {
    let columns = relation.key.iter().map(|p| relation.columns.get(usize::from(*p)));
    let part = |(part, column): (&KeyPart, Option<&Column>)| match part {
        KeyPart::Constant(value) => Some(Some(value.clone())),
        KeyPart::Parameter(index) => {
            let text = image.parameters.get(*index)?.as_ref()?;
            Some(Some(binary(&column?.column_type, std::str::from_utf8(text).ok()?)?))
        }
    };
    parts.iter().zip(columns).map(part).collect()
}

/// Rows of which only the key is known, in their places: all that the text names with the first one that came back, whose parameters
/// tell. Of an INSERT ... DO NOTHING some of them may be older rows, which are read again all the same.
pub(crate) fn keys_alone(write: &WriteEffect, image: &Image, first: bool) -> Option<Vec<Values>> {
    let relation = &write.table.relation;
    let keys = match &write.old {
        OldRow::Fixed(parts) => vec![fixed_key(relation, parts, image)?],
        OldRow::FixedRows(rows) if first => {
            rows.iter().map(|parts| fixed_key(relation, parts, image)).collect::<Option<Vec<_>>>()?
        }
        OldRow::FixedRows(_) => Vec::new(),
        _ if write.seen == Seen::Key => vec![image.values.clone()],
        _ => return None,
    };
    let row = |key: Values| {
        let mut values = vec![None; relation.columns.len()];
        for (position, value) in relation.key.iter().zip(key) {
            *values.get_mut(usize::from(*position))? = value;
        }
        Some(values)
    };
    keys.into_iter().map(row).collect()
}

fn key_of(relation: &Relation, values: &Values) -> Values {
    relation.key.iter().map(|p| values.get(usize::from(*p)).cloned().flatten()).collect()
}

/// The changes of an UPDATE whose rows were locked and read ahead; the reason if they can't be told.
///
/// One row is itself. Of several it isn't known which became which. Where nothing refers to the table that makes no difference:
/// the old ones are gone, the new ones are there. Else what the statement didn't assign must tell them apart.
pub(crate) fn with_locked(
    write: &WriteEffect,
    images: Vec<RowImage>,
    locked: Vec<Values>,
) -> Result<Vec<RowImage>, &'static str> {
    if images.len() != locked.len() {
        return Err("other rows were written than had been locked ahead");
    }
    if images.len() > 1 && write.table.triggers {
        return by_what_stays(write, images, locked);
    }
    if let ([_], [_]) = (images.as_slice(), locked.as_slice()) {
        return Ok(images.into_iter().zip(locked).map(|(image, old)| with_old(image, &old)).collect());
    }
    let gone = locked.into_iter().map(|values| {
        let relation = Arc::clone(&write.table.relation);
        RowImage { relation, operation: Operation::Delete, values, old_key: None }
    });
    let there = images.into_iter().map(|image| RowImage { operation: Operation::Insert, ..image });
    Ok(gone.chain(there).collect())
}

fn with_old(image: RowImage, old: &Values) -> RowImage {
    let relation = &image.relation;
    let old_key = if relation.key.is_empty() { old.clone() } else { key_of(relation, old) };
    let same = !relation.key.is_empty() && old_key == key_of(relation, &image.values);
    RowImage { old_key: (!same).then_some(old_key), ..image }
}

fn by_what_stays(
    write: &WriteEffect,
    images: Vec<RowImage>,
    locked: Vec<Values>,
) -> Result<Vec<RowImage>, &'static str> {
    let unknown = "several rows got other keys, and which became which can't be told before PostgreSQL 18";
    let columns = &write.table.relation.columns;
    let stays = |values: &Values| -> Values {
        let kept = columns.iter().zip(values).filter(|(c, _)| !c.generated && !write.assigned.contains(&c.name));
        kept.map(|(_, value)| value.clone()).collect()
    };
    if write.table.before_triggers {
        return Err(unknown);
    }
    let count = locked.len();
    let mut by: HashMap<Values, Values> = locked.into_iter().map(|old| (stays(&old), old)).collect();
    if by.len() != count {
        return Err(unknown);
    }
    images
        .into_iter()
        .map(|image| by.remove(&stays(&image.values)).map(|old| with_old(image, &old)).ok_or(unknown))
        .collect()
}
