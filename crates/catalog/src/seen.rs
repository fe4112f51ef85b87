use crate::Redefined;
use pgshadow_model::QualifiedName;
use std::collections::{BTreeSet, HashSet};

/// Names kept; more than these stand for anything.
const NAMES_MAX: usize = 10_000;

/// What the definitions named that came through pgshadow, by names without their schemas.
#[derive(Debug, Default)]
pub struct Seen {
    names: HashSet<String>,
    anything: bool,
}

impl Seen {
    pub(crate) fn add(&mut self, tables: &BTreeSet<Option<QualifiedName>>, redefined: &Redefined) {
        self.anything |= tables.contains(&None) || *redefined == Redefined::Anything || self.names.len() > NAMES_MAX;
        if self.anything {
            return self.names.clear();
        }
        self.names.extend(tables.iter().flatten().map(|table| table.name.clone()));
        if let Redefined::Names { names, .. } = redefined {
            self.names.extend(names.iter().cloned());
        }
    }

    /// Whether what has this name may have been made by them.
    #[must_use]
    pub fn may_name(&self, name: &str) -> bool {
        self.anything || self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_named() {
        let mut seen = Seen::default();
        seen.add(&[Some(QualifiedName::new("a", "t"))].into(), &Redefined::names(["f".to_owned()].into()));
        assert!(seen.may_name("t") && seen.may_name("f") && !seen.may_name("u"));
        seen.add(&[None].into(), &Redefined::Nothing);
        assert!(seen.may_name("u"));
    }
}
