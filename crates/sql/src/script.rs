use crate::error::ParseError;

/// The statements of a script, one by one: as the grammar has them, or, where the script is of a newer one, by semicolons outside of
/// constants and parentheses.
///
/// # Errors
/// Its tokens can't be read.
pub fn statements(script: &str) -> Result<Vec<&str>, ParseError> {
    if let Ok(statements) = pg_query::split_with_parser(script) {
        return Ok(statements);
    }
    Ok(pg_query::split_with_scanner(script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_of_something_end_nothing() {
        let script = "SET a = 1;\n-- x; y\nCREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
            CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS $_$ BEGIN RETURN 1; END $_$;\nCOMMENT ON TABLE t IS 'a;b';";
        let parts = statements(script).unwrap();
        assert_eq!(parts.len(), 4, "{parts:#?}");
        assert!(parts.iter().any(|part| part.ends_with("SELECT 2; END")), "{parts:#?}");
        let newer = statements("SELECT 1; NOVELTY OF (a; b) FOR 'c;d'; SELECT 2").unwrap();
        assert_eq!(newer.len(), 3, "{newer:#?}");
    }
}
