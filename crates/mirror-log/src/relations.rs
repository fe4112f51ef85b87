//! Relations by number: each is written once per segment instead of once per row.

use pgshadow_model::Relation;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The relations of one segment.
pub(crate) type Relations = HashMap<u32, Arc<Relation>>;

/// More are seldom in use at once; forgetting one costs a further definition.
const REMEMBERED_MAX: usize = 4096;

/// Gives each relation a number that no other relation has in the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    // Holds the Arc, so that an address isn't used again while it is a key. Comparing addresses first saves hashing
    // every column of a table for every row.
    by_address: HashMap<usize, (Arc<Relation>, u32)>,
    by_content: HashMap<Arc<Relation>, u32>,
    last: u32,
}

impl Interner {
    pub fn id(&mut self, relation: &Arc<Relation>) -> u32 {
        let address = Arc::as_ptr(relation) as usize;
        if let Some((_, id)) = self.by_address.get(&address) {
            return *id;
        }
        if self.by_address.len() >= REMEMBERED_MAX {
            self.by_address.clear();
            self.by_content.clear();
        }
        let id = match self.by_content.get(relation) {
            Some(id) => *id,
            None => {
                self.last += 1;
                self.by_content.insert(Arc::clone(relation), self.last);
                self.last
            }
        };
        self.by_address.insert(address, (Arc::clone(relation), id));
        id
    }
}

/// Makes equal relations of several segments one.
#[derive(Debug, Default)]
pub(crate) struct Pool(HashSet<Arc<Relation>>);

impl Pool {
    pub fn share(&mut self, relation: Relation) -> Arc<Relation> {
        if let Some(known) = self.0.get(&relation) {
            return Arc::clone(known);
        }
        let relation = Arc::new(relation);
        self.0.insert(Arc::clone(&relation));
        relation
    }
}
