use pgshadow_model::{Kind, QualifiedName};

/// Groups findings of one origin: 64 bits of FNV-1a over kind, table, columns and SQLSTATE, hexadecimal. It is stored
/// and compared across versions, so the function never changes.
#[must_use]
pub fn fingerprint(kind: Kind, table: Option<&QualifiedName>, columns: &[String], sqlstate: Option<&str>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |part: &str| {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    eat(&format!("{kind:?}"));
    eat(table.map_or("", |t| &t.schema));
    eat(table.map_or("", |t| &t.name));
    columns.iter().for_each(|c| eat(c));
    eat(sqlstate.unwrap_or(""));
    format!("{hash:016x}")
}
