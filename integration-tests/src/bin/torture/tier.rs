//! What is promised of a form of statement or a kind of table.

/// From what must be exact to what must only be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Mirrored exactly: its tables never become suspect.
    Exact,
    /// To be exact, but still declared: its tables may become suspect.
    Wanted,
    /// Can't be exact: its tables are suspect, and named.
    Declared,
}

/// Forms of statements that aren't exact. All others are.
pub fn of_form(form: &str, source: u32) -> Tier {
    match form {
        // An old key or an old row without one can't be told before 18.
        "update key" | "update keyless" | "move row" | "merge" if source >= 18 => Tier::Exact,
        "update key" | "update keyless" | "move row" => Tier::Wanted,
        "merge" if source >= 17 => Tier::Wanted,
        // From 18 on what is returned of such rows is mixed up.
        "move row unlike" if source < 18 => Tier::Wanted,
        "move row unlike" | "merge unlike" => Tier::Declared,
        // Exact, but in SERIALIZABLE transactions, where nothing is looked for.
        "copy computed" => Tier::Wanted,
        // A write that waits behind it was planned for the table as it was.
        "alter" | "alter type" => Tier::Wanted,
        "merge" | "write in with" | "block" | "explain analyze" => Tier::Declared,
        // Without ONLY, where others inherit from it.
        "update parent" => Tier::Declared,
        _ => Tier::Exact,
    }
}
