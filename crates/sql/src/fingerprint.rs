use pg_query::{FingerprintOptions, ParserOptions};

use crate::error::ParseError;
use crate::stack::with_room;
use crate::tokens::Tokens;

/// Deeper texts have none. (The library itself leaves out what lies below a depth of 100.)
const DEEPEST: usize = 5_000;

/// The same for texts that differ only in constants, aliases, list lengths and spacing; `None` where the text doesn't
/// parse.
///
/// Names of relations count in full, with schema and digits. The values are those of one version of the library: they
/// group what one process sees and are never stored.
pub fn fingerprint(text: &str) -> Option<String> {
    let depth = Tokens::scan(text).ok()?.depth_bound();
    if depth > DEEPEST {
        return None;
    }
    let options = FingerprintOptions::FULL_RELNAME | FingerprintOptions::RANGEVAR_PG17_COMPAT;
    with_room(depth, || {
        let fingerprint = pg_query::fingerprint(text, ParserOptions::DEFAULT, options)?;
        Ok::<_, ParseError>(fingerprint.hex)
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn groups_by_shape() {
        let same = |one: &str, other: &str| fingerprint(one).unwrap() == fingerprint(other).unwrap();
        assert!(same("select * from t where a = 1", "SELECT * FROM t\nWHERE a = 'x' -- c"));
        assert!(same("select * from t where a in (1)", "select * from t where a in (2, 3)"));
        assert!(same("select a from t u", "select a from t v"));
        assert!(!same("select a from t_2024_01", "select a from t_2024_02"));
        assert!(!same("select a from s.t", "select a from t"));
        assert!(!same("select a from t x", "select a from u x"));
        assert_eq!(fingerprint("selec"), None);
        assert_eq!(fingerprint("a\0"), None);
    }
}
