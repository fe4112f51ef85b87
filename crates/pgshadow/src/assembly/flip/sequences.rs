//! Sequences of the new primary are brought ahead of the old one's, while nobody draws from these.
use super::super::primary::answered;
use pgshadow_model::QualifiedName;
use tokio_postgres::Client;

/// Numbers that are left out, so that none that was drawn is drawn again, whatever a crash of the old primary has made of its sequences (it logs them
/// ahead by 32, `SEQ_LOG_VALS`).
pub(super) const MARGIN: i64 = 32;

/// Sequences that are read in one statement.
const READ_AT_ONCE: usize = 500;
/// Those of the primary: name, value where they were drawn from, increment, end, whether they begin anew there, and whether they can be read. Sequences of tables that aren't mirrored
/// are left alone.
const DRAWN: &str = "
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, CASE WHEN r.readable THEN pg_catalog.pg_sequence_last_value(c.oid) END, s.seqincrement,
       CASE WHEN s.seqincrement OPERATOR(pg_catalog.>) 0 THEN s.seqmax ELSE s.seqmin END, s.seqcycle, r.readable
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
CROSS JOIN LATERAL (SELECT pg_catalog.has_sequence_privilege(c.oid, 'USAGE') OR pg_catalog.has_sequence_privilege(c.oid, 'SELECT')) AS r (readable)
WHERE NOT c.relpersistence OPERATOR(pg_catalog.=) 't' AND NOT n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['information_schema', 'pgshadow'])
  AND NOT n.nspname OPERATOR(pg_catalog.~) '^pg_' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) d.refobjid
    JOIN pg_catalog.pg_namespace tn ON tn.oid OPERATOR(pg_catalog.=) t.relnamespace
    JOIN ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS x (s, t) ON x.s OPERATOR(pg_catalog.=) tn.nspname AND x.t OPERATOR(pg_catalog.=) t.relname
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid
      AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i']::pg_catalog.\"char\"[]))";
/// Only forward; one that goes round, and one that wasn't drawn from, gets the very value. How many were found, and how many were set.
const SET: &str = "
SELECT pg_catalog.count(*), pg_catalog.count(CASE WHEN v.cycles OR NOT v.called OR coalesce(CASE WHEN s.seqincrement OPERATOR(pg_catalog.>) 0
      THEN pg_catalog.pg_sequence_last_value(c.oid) OPERATOR(pg_catalog.<) v.value
      ELSE pg_catalog.pg_sequence_last_value(c.oid) OPERATOR(pg_catalog.>) v.value END, true) THEN pg_catalog.setval(c.oid, v.value, v.called) END)
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.int8[]), pg_catalog.unnest($3::pg_catalog.bool[]),
  pg_catalog.unnest($4::pg_catalog.bool[])) AS v (name, value, cycles, called)
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(v.name)
JOIN pg_catalog.pg_sequence s ON s.seqrelid OPERATOR(pg_catalog.=) c.oid";
/// Those of a list that aren't there, or can't be set by the role.
const UNSETTABLE: &str = "
SELECT v.name FROM pg_catalog.unnest($1::pg_catalog.text[]) AS v (name)
WHERE pg_catalog.to_regclass(v.name) IS NULL OR NOT coalesce(pg_catalog.has_sequence_privilege(pg_catalog.to_regclass(v.name)::pg_catalog.oid, 'UPDATE'), false)";

/// A sequence, and where it is to be.
pub(super) struct Wanted {
    name: String,
    value: i64,
    cycles: bool,
    /// It was drawn from: the value isn't drawn again.
    called: bool,
}

/// What the primary's sequences are, and where the others must be.
pub(super) async fn wanted(primary: &Client, excluded: &[QualifiedName]) -> Result<Vec<Wanted>, String> {
    let schemas: Vec<&str> = excluded.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = excluded.iter().map(|table| table.name.as_str()).collect();
    let rows = answered(primary.query(DRAWN, &[&schemas, &names])).await;
    let rows = rows.map_err(|error| format!("the primary's sequences can't be read: {error}"))?;
    let (mut all, mut undrawn) = (Vec::new(), Vec::new());
    for row in rows {
        let name = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)).sql();
        if !row.get::<_, bool>(6) {
            return Err(format!(
                "the primary's sequence {name} can't be read: GRANT SELECT ON SEQUENCE {name} to pgshadow's role"
            ));
        }
        let Some(last) = row.get::<_, Option<i64>>(2) else {
            undrawn.push(name);
            continue;
        };
        let (increment, end, cycles): (i64, i64, bool) = (row.get(3), row.get(4), row.get(5));
        all.push(Wanted { name, value: ahead(last, increment, end, cycles), cycles, called: true });
    }
    for some in undrawn.chunks(READ_AT_ONCE) {
        let each: Vec<String> = some.iter().map(|name| format!("(SELECT last_value, is_called FROM {name})")).collect();
        let rows = answered(primary.query(&each.join(" UNION ALL "), &[])).await;
        let rows = rows.map_err(|error| format!("the primary's sequences can't be read: {error}"))?;
        for (name, row) in some.iter().zip(rows) {
            all.push(Wanted { name: name.clone(), value: row.get(0), cycles: false, called: row.get(1) });
        }
    }
    Ok(all)
}

/// As far ahead as there is room: one that would come to its end stays where it is.
fn ahead(last: i64, increment: i64, end: i64, cycles: bool) -> i64 {
    let further = increment.checked_mul(MARGIN).and_then(|step| last.checked_add(step));
    match further.filter(|value| !cycles && if increment > 0 { *value <= end } else { *value >= end }) {
        Some(value) => value,
        None => last,
    }
}

/// Sets the shadow's; gives how many were not there yet.
pub(super) async fn set(shadow: &Client, wanted: &[Wanted]) -> Result<u64, String> {
    let names: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let values: Vec<i64> = wanted.iter().map(|one| one.value).collect();
    let cycles: Vec<bool> = wanted.iter().map(|one| one.cycles).collect();
    let called: Vec<bool> = wanted.iter().map(|one| one.called).collect();
    let row = answered(shadow.query_one(SET, &[&names, &values, &cycles, &called])).await;
    let row = row.map_err(|error| format!("the new primary's sequences can't be set: {error}"))?;
    let [found, set] = [0, 1].map(|at| usize::try_from(row.get::<_, i64>(at)).unwrap_or_default());
    if found != wanted.len() {
        return Err(format!("{} of {} sequences aren't on the new primary", wanted.len() - found, wanted.len()));
    }
    Ok(set as u64)
}

/// Those that can't be set.
pub(super) async fn unsettable(shadow: &Client, wanted: &[Wanted]) -> Result<Vec<String>, String> {
    let names: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let rows = answered(shadow.query(UNSETTABLE, &[&names])).await;
    Ok(rows
        .map_err(|error| format!("the shadow's sequences can't be looked at: {error}"))?
        .iter()
        .map(|row| row.get(0))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_far_ahead_as_there_is_room() {
        assert_eq!(ahead(10, 1, i64::MAX, false), 42);
        assert_eq!(ahead(10, 5, 1000, false), 170);
        assert_eq!(ahead(-10, -1, i64::MIN, false), -42);
        assert_eq!(ahead(990, 1, 1000, false), 990, "the last numbers aren't wasted");
        assert_eq!(ahead(i64::MAX - 1, 1, i64::MAX, false), i64::MAX - 1);
        assert_eq!(ahead(10, 1, 100, true), 10, "of one that goes round nothing is ahead");
    }
}
