use pgshadow_model::{Cause, Column, Kind, QualifiedName, Shape};

/// What the shadow's column is, as far as it can explain a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowColumn {
    /// Its type.
    pub type_name: QualifiedName,
    /// `pg_attribute.atttypmod`: length, precision and scale, -1 for none.
    pub typmod: i32,
    /// Generated on the shadow.
    pub generated: bool,
}

/// Cause and kind of an error that only the shadow raised, by its SQLSTATE.
#[must_use]
pub fn of_sqlstate(sqlstate: &str) -> (Kind, Cause) {
    match sqlstate {
        // integrity constraints; also a partition that takes no such row, and WITH CHECK OPTION
        "44000" => (Kind::ErrorShadowOnly, Cause::Constraint),
        // too long, out of range, not a value of that type
        "22001" | "22003" | "22007" | "22008" | "22021" | "22026" | "22P02" | "22P03" => {
            (Kind::ErrorShadowOnly, Cause::Type)
        }
        // no such table, column, type or function; wrong types together; a generated column
        "42P01" | "42703" | "42704" | "42883" | "42P02" | "3F000" | "428C9" => (Kind::Schema, Cause::Unknown),
        "42804" | "42846" => (Kind::Schema, Cause::Type),
        // a right that is missing
        "42501" => (Kind::ErrorShadowOnly, Cause::Setting),
        s if s.starts_with("23") => (Kind::ErrorShadowOnly, Cause::Constraint),
        _ => (Kind::ErrorShadowOnly, Cause::Unknown),
    }
}

/// Whether the two texts of one column differ for its type's sake, shown by the shadow's type.
pub(crate) fn is_type(column: &Column, shadow: &ShadowColumn, primary_text: &str, shadow_text: &str) -> bool {
    let type_name = &column.column_type.name;
    if *type_name != shadow.type_name {
        return matches!(column.column_type.shape, Shape::Plain | Shape::Array(_));
    }
    if shadow.typmod < 0 || type_name.schema != "pg_catalog" {
        return false;
    }
    match type_name.name.as_str() {
        "numeric" => has_scale(shadow_text, numeric_scale(shadow.typmod)) && rounds_to(primary_text, shadow_text),
        "bpchar" => shadow_text.trim_end_matches(' ') == primary_text.trim_end_matches(' '),
        "varchar" => primary_text.starts_with(shadow_text),
        "timestamp" | "timestamptz" | "time" | "timetz" | "interval" => {
            fraction(primary_text) > usize::try_from(shadow.typmod & 0xFFFF).unwrap_or(usize::MAX)
        }
        "bit" | "varbit" => primary_text.len() != shadow_text.len(),
        _ => false,
    }
}

/// The scale in a numeric's typmod (eleven bits, signed).
fn numeric_scale(typmod: i32) -> i32 {
    let raw = (typmod - 4) & 0x7ff;
    if raw > 1023 { raw - 2048 } else { raw }
}

fn fraction(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count())
}

fn has_scale(text: &str, scale: i32) -> bool {
    i32::try_from(fraction(text)).is_ok_and(|f| f == scale.max(0))
}

/// Whether two decimals are as near as rounding to the shorter one's scale leaves them.
fn rounds_to(primary: &str, shadow: &str) -> bool {
    let (Ok(p), Ok(s)) = (primary.parse::<f64>(), shadow.parse::<f64>()) else {
        return false;
    };
    let digits = i32::try_from(fraction(shadow)).unwrap_or(0);
    (p - s).abs() <= 0.5 * 10_f64.powi(-digits) * (1.0 + 1e-9) + p.abs() * 1e-12
}
