use std::collections::BTreeSet;

/// Which names may stand for something else than before: functions, procedures, views, types. What calls one of them, or is built
/// on it, may do something else as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Redefined {
    /// None.
    #[default]
    Nothing,
    /// These, without their schemas; of all others some may be gone.
    Names {
        /// These.
        names: BTreeSet<String>,
        /// One of them is a function that runs what is refused in a transaction block.
        refused: bool,
    },
    /// It isn't known which.
    Anything,
}

impl Redefined {
    /// These names, none of them a function that runs what is refused in a transaction block.
    #[must_use]
    pub fn names(names: BTreeSet<String>) -> Self {
        Self::Names { names, refused: false }
    }

    /// Adds what another statement redefines.
    pub fn add(&mut self, other: &Self) {
        match (self, other) {
            (_, Self::Nothing) | (Self::Anything, _) => {}
            (Self::Names { names, refused }, Self::Names { names: others, refused: also }) => {
                names.extend(others.iter().cloned());
                *refused |= also;
            }
            (this, other) => *this = other.clone(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up() {
        let names = |list: &[&str]| Redefined::names(list.iter().map(|n| (*n).to_owned()).collect());
        let mut all = Redefined::default();
        all.add(&Redefined::Nothing);
        assert!(all.is_nothing());
        all.add(&names(&["a"]));
        all.add(&names(&["b"]));
        all.add(&Redefined::Nothing);
        assert_eq!(all, names(&["a", "b"]));
        all.add(&Redefined::Anything);
        all.add(&names(&["c"]));
        assert_eq!(all, Redefined::Anything);
    }
}
