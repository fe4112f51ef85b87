//! The parameters that a text names.

use pg_query::protobuf::Token;

use crate::tokens::Tokens;

/// The highest number of a parameter (`$n`) in a text, 0 where it has none; `None` if the text can't be read.
pub fn highest_parameter(text: &str) -> Option<usize> {
    let tokens = Tokens::scan(text).ok()?;
    let parameters = tokens.placed().filter(|(token, _)| *token == Token::Param);
    parameters.map(|(_, place)| text.get(place)?.strip_prefix('$')?.parse().ok()).try_fold(0, |highest, number| {
        let number: Option<usize> = number;
        Some(highest.max(number?))
    })
}

#[cfg(test)]
mod tests {
    use super::highest_parameter;

    #[test]
    fn only_parameters_count() {
        for (text, highest) in [
            ("select 1", Some(0)),
            ("update t set a = $2, b = $10 where c = $1", Some(10)),
            ("select '$3', \"$4\", a$5, $$ $6 $$ -- $7\n, $2", Some(2)),
            ("", Some(0)),
            ("select 'a", None),
        ] {
            assert_eq!(highest_parameter(text), highest, "{text}");
        }
    }
}
