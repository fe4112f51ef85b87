use crate::error::ParseError;
use crate::stack::with_room;
use crate::tokens::Tokens;

/// Deeper texts have none: the fingerprint's own recursion isn't guarded by the library.
const DEEPEST: usize = 5_000;

/// The same for texts that differ only in constants, parameters, aliases, schemas and spacing; `None` where the text doesn't parse.
///
/// Full relation names count, digits included. The values are those of one version of the library: never store them.
pub fn fingerprint(text: &str) -> Option<String> {
    let depth = Tokens::scan(text).ok()?.depth_bound();
    if depth > DEEPEST {
        return None;
    }
    let options = pg_query::FingerprintOptions::FULL_RELNAME;
    with_room(depth, || {
        let fingerprint = pg_query::fingerprint(text, pg_query::ParserOptions::DEFAULT, options)?;
        Ok::<_, ParseError>(fingerprint.hex)
    })
    .ok()
}
