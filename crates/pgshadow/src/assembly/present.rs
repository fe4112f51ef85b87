//! Which direction of mirroring is the present one.
use super::direction::Direction;
use std::sync::{Arc, PoisonError, RwLock};

/// The present direction; none where nothing is mirrored.
#[derive(Default)]
pub(super) struct Present(RwLock<Option<Arc<Direction>>>);

impl Present {
    pub fn new(direction: Option<Arc<Direction>>) -> Self {
        Self(RwLock::new(direction))
    }

    pub fn get(&self) -> Option<Arc<Direction>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is mirrored any more.
    pub fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn set(&self, direction: Arc<Direction>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(direction);
    }
}
