//! What pgshadow's own role may, by phase.
use super::Found;
use crate::finding::Finding;
use crate::grants::missing;
use crate::pair::Pair;
use crate::words::name;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let mut found = Vec::new();
    for server in pair.both() {
        for right in missing(server).await? {
            let happens = format!("needed for {}: {}", right.phase.word(), right.why);
            found.push(
                Finding::new(right.phase.level(), server.place, name(&server.role), happens).mend(right.statement),
            );
        }
    }
    Ok(found)
}
