//! A row by its key, to be read again on the primary.

use pgshadow_model::{Operation, Relation, RowImage, Values};
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A row by its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) relation: Arc<Relation>,
    pub(crate) key: Values,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.relation.name == other.relation.name && self.key == other.key
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.relation.name, &self.key).hash(state);
    }
}

impl Target {
    /// The rows that an image touches; none if its table has no key.
    pub(crate) fn of(image: &RowImage) -> Vec<Self> {
        let relation = &image.relation;
        if relation.key.is_empty() {
            return Vec::new();
        }
        let key = relation.key.iter().map(|p| image.values.get(usize::from(*p)).cloned().flatten()).collect();
        let new = Self { relation: Arc::clone(relation), key };
        let old = image.old_key.clone().map(|key| Self { relation: Arc::clone(relation), key });
        std::iter::once(new).chain(old).collect()
    }

    /// The image that writes the row as it is on the primary, or deletes it.
    pub(crate) fn image(&self, row: Option<Values>) -> RowImage {
        let relation = Arc::clone(&self.relation);
        if let Some(values) = row {
            // Equal keys may have several spellings (1.0 and 1.00): the primary's is written too.
            let key = relation.key.iter().map(|p| values.get(usize::from(*p)).and_then(Option::as_ref));
            let old_key = (!key.eq(self.key.iter().map(Option::as_ref))).then(|| self.key.clone());
            return RowImage { relation, operation: Operation::Upsert, values, old_key };
        }
        let mut values = vec![None; relation.columns.len()];
        for (position, value) in relation.key.iter().zip(&self.key) {
            if let Some(slot) = values.get_mut(usize::from(*position)) {
                slot.clone_from(value);
            }
        }
        RowImage { relation, operation: Operation::Delete, values, old_key: None }
    }
}
