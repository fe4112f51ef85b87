//! Whether the way back was ever gone.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let place = Place::Target;
    Ok(match pair.facts.rehearsed {
        Some(true) => Vec::new(),
        Some(false) => {
            let happens = "nobody has rehearsed the flip and the way back: a rollback that was never run is not a plan";
            vec![Finding::warn(place, "rollback", happens).sure(Sure::Possible).mend("pgshadow rehearse")]
        }
        None => {
            let happens =
                "no proxy was asked whether the flip and the way back were rehearsed: `pgshadow rehearse` proves it";
            vec![Finding::note(place, "rollback", happens).sure(Sure::Possible).mend("pgshadow rehearse")]
        }
    })
}
