//! What pgshadow's own role may, by phase.
use super::Found;
use crate::finding::Finding;
use crate::grants::{InLoadsWay, missing};
use crate::pair::Pair;
use crate::words::name;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut found = Vec::new();
    for server in pair.both() {
        for right in missing(server, pair.facts).await? {
            let happens = format!("needed for {}: {}", right.phase.word(), right.why);
            let finding =
                Finding::new(right.phase.level(), server.place, name(&server.role), happens).mend(right.statement);
            let in_its_way = match right.in_loads_way {
                InLoadsWay::No => false,
                InLoadsWay::Yes => true,
                InLoadsWay::Of(tables) => tables.iter().any(|table| pair.is_loaded(table)),
            };
            found.push(if in_its_way { finding.before_load() } else { finding });
        }
    }
    Ok(found)
}
