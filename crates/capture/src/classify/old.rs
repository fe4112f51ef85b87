//! How the old row of an UPDATE can be known: it is what the shadow finds its own row by.
use super::{Context, Rewritten, Target};
use crate::plan::{KeyPart, OldRow};
use bytes::Bytes;
use pgshadow_catalog::Table;
use pgshadow_model::{Column, ColumnType, Operation, Shape};
use pgshadow_sql::{
    Fixed, LockAhead, LockStrength, LookBehind, OnConflict, Rewrite, Statement, StatementKind, Write, lock_ahead,
    values,
};
use std::sync::Arc;

/// From here RETURNING gives the old row too.
const RETURNS_OLD: u32 = 180_000;

/// Rows of one INSERT whose keys are read from its text, and parameters that come back with each of them.
const ROWS_MAX: usize = 1_000;
const PARAMETERS_MAX: usize = 500;

/// Rows whose places are kept for a look behind the statement, all partitions together.
const PLACES_MAX: usize = 10_000;

/// One way to know the old row, with what RETURNING has to give for it.
pub(crate) struct OldWay {
    pub old: OldRow,
    /// Expressions over the old row.
    pub columns: Option<Vec<String>>,
    /// Numbers of parameters.
    pub parameters: Vec<u16>,
}

impl OldWay {
    pub fn of(old: OldRow) -> Self {
        Self { old, columns: None, parameters: Vec::new() }
    }
}

impl Context<'_> {
    /// The ways to know the old rows of this write, the best one first; none where an old row can't be known.
    pub(crate) fn old_ways(
        &self,
        statement: &Statement,
        target: &Target,
        write: &Write,
        operation: Operation,
        out: &Rewritten,
    ) -> Vec<OldWay> {
        let table = &*target.table;
        let keyless = table.relation.key.is_empty();
        let updates = match &statement.kind {
            StatementKind::Merge(_) => !write.assigned.is_empty(),
            _ => operation == Operation::Update || write.on_conflict == OnConflict::Update,
        };
        if !updates || !keyless && !self.may_change_key(table, write) {
            return vec![OldWay::of(OldRow::Same)];
        }
        let mut ways = Vec::new();
        ways.extend(self.returned(target));
        if operation == Operation::Update && !keyless {
            ways.extend(self.fixed_key(table, write));
        }
        if operation == Operation::Update && !out.prepares {
            ways.extend(self.locked(statement, target));
        }
        ways
    }

    /// Whether a view that hides columns shows the key, and that stays: it comes back with each row.
    pub(crate) fn shows_key(&self, target: &Target, write: &Write, operation: Operation) -> bool {
        let relation = &target.table.relation;
        let shown = relation.key.iter().all(|position| target.shown_as(usize::from(*position)).is_some());
        let inserts = operation == Operation::Insert && write.on_conflict != OnConflict::Update;
        let stays = inserts || operation == Operation::Delete || !self.may_change_key(&target.table, write);
        target.is_view() && target.readable && !relation.key.is_empty() && shown && stays
    }

    /// The way for rows that can't be seen: the text fixes their key, and it stays.
    pub(crate) fn by_key(&self, table: &Table, write: &Write, operation: Operation) -> Option<OldWay> {
        // the row that is in the way has the key that the text gives, too
        let on_key = || {
            let columns = &write.conflict_columns;
            columns.len() == table.relation.key.len() && key_columns(table).all(|c| columns.contains(&c.name))
        };
        let stays = operation != Operation::Upsert
            && (write.on_conflict != OnConflict::Update || on_key())
            // OVERRIDING USER VALUE passes over the values that the text gives
            && !write.overriding
            && !table.relation.key.is_empty()
            && (operation == Operation::Delete || !self.may_change_key(table, write));
        if !stays {
            return None;
        }
        self.fixed_key(table, write)
    }

    /// The same for an INSERT of several rows: the text fixes the key of each.
    pub(crate) fn by_rows(
        &self,
        statement: &Statement,
        target: &Target,
        write: &Write,
        operation: Operation,
    ) -> Option<OldWay> {
        let table = &*target.table;
        let possible = operation == Operation::Insert
            && write.on_conflict != OnConflict::Update
            && !write.overriding
            && !target.is_view()
            && !table.relation.key.is_empty()
            && write.rows_values.is_some_and(|rows| (2..=ROWS_MAX).contains(&rows))
            && !self.may_change_key(table, write);
        if !possible {
            return None;
        }
        let listed: Vec<&String> = match write.insert_columns.as_slice() {
            [] => table.relation.columns.iter().map(|column| &column.name).collect(),
            columns => columns.iter().collect(),
        };
        let mut parameters = Vec::new();
        let rows = values(self.text, statement)?.into_iter().map(|row| {
            let value = |name: &str| row.get(listed.iter().position(|listed| *listed == name)?)?.as_ref();
            self.key_parts(table, value, &mut parameters)
        });
        let rows = rows.collect::<Option<Vec<_>>>()?;
        (parameters.len() <= PARAMETERS_MAX).then(|| OldWay { parameters, ..OldWay::of(OldRow::FixedRows(rows)) })
    }

    /// Whether an UPDATE may give a row another key.
    pub(crate) fn may_change_key(&self, table: &Table, write: &Write) -> bool {
        let key = || key_columns(table);
        // a generated column changes with those that it is computed from
        let assigned = key().any(|c| c.generated || write.assigned.contains(&c.name));
        let by_trigger = table.before_triggers
            && table
                .trigger_functions
                .iter()
                .any(|f| self.functions.trigger_names_any(f, key().map(|c| c.name.as_str())));
        assigned || by_trigger
    }

    fn returned(&self, target: &Target) -> Option<OldWay> {
        if self.identity.version < RETURNS_OLD || target.is_view() {
            return None;
        }
        let relation = &target.table.relation;
        let positions = match relation.key.as_slice() {
            [] => (0..u16::try_from(relation.columns.len()).ok()?).collect(),
            key => key.to_vec(),
        };
        let all = self.image_columns(target)?;
        let columns = positions.iter().map(|p| all.get(usize::from(*p)).cloned()).collect::<Option<Vec<_>>>()?;
        Some(OldWay { columns: Some(columns), ..OldWay::of(OldRow::Returned(positions)) })
    }

    fn fixed_key(&self, table: &Table, write: &Write) -> Option<OldWay> {
        let mut parameters = Vec::new();
        let value = |name: &str| write.fixed.iter().find(|(fixed, _)| fixed == name).map(|(_, value)| value);
        let parts = self.key_parts(table, value, &mut parameters)?;
        Some(OldWay { parameters, ..OldWay::of(OldRow::Fixed(parts)) })
    }

    /// A row's key by the values of its columns; the numbers of the parameters that it needs go to `parameters`.
    fn key_parts<'a>(
        &self,
        table: &Table,
        value: impl Fn(&str) -> Option<&'a Fixed>,
        parameters: &mut Vec<u16>,
    ) -> Option<Vec<KeyPart>> {
        let part = |column: &Column| {
            Some(match value(&column.name)? {
                Fixed::Literal(text) if !self.masked => KeyPart::Constant(binary(&column.column_type, text)?),
                Fixed::Literal(_) => return None,
                Fixed::Parameter(number) => {
                    is_readable(&column.column_type).then_some(())?;
                    parameters.push(*number);
                    KeyPart::Parameter(parameters.len() - 1)
                }
            })
        };
        key_columns(table).map(part).collect()
    }

    fn locked(&self, statement: &Statement, target: &Target) -> Option<OldWay> {
        let keyless = target.table.relation.key.is_empty();
        if self.masked {
            return None;
        }
        let strength = if keyless { LockStrength::NoKeyUpdate } else { LockStrength::Update };
        // a row of every partition may stand at the same place
        let places_max = PLACES_MAX / target.table.tree_oids.len().max(1);
        // a trigger may pass over some of the rows that were locked, while others have come
        let passes_over = target.table.before_triggers;
        let lock = lock_ahead(self.text, statement, &self.image_columns(target)?, strength, places_max, passes_over)?;
        let possible = lock.behind.as_ref().is_none_or(|look| self.may_look_behind(target, look));
        possible.then(|| OldWay::of(OldRow::Locked(Arc::new(lock))))
    }

    /// Whether the rows of a target can be looked at by their places, and nobody minds what the lock ahead runs.
    fn may_look_behind(&self, target: &Target, look: &LookBehind) -> bool {
        let (table, of) = (&*target.table, self.definitions);
        self.identity.may_set
            && !target.is_view()
            // a policy could hide a row that is still there
            && !table.row_security
            // a cascade could write a locked row beside those that the statement writes
            && !table.own_cascade
            && look.functions.iter().all(|function| self.functions.is_determined(of, &function.name))
            && look.relations.iter().all(|relation| self.functions.is_determined_read(of, relation))
            && self.functions.is_determined_behind(of, &look.other_names)
    }

    /// The lock as a part of the text, for the simple protocol.
    pub(crate) fn lock_in_text(&self, statement: &Statement, lock: &LockAhead) -> Option<Rewrite> {
        let addition = format!("{}; ", lock.text);
        let mut rewrite = Rewrite::inserting(self.text, statement.range.start, &addition)?;
        rewrite.copied = lock.copied;
        Some(rewrite)
    }
}

fn key_columns(table: &Table) -> impl Iterator<Item = &Column> {
    let relation = &table.relation;
    relation.key.iter().filter_map(|p| relation.columns.get(usize::from(*p)))
}

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const VARCHAR: u32 = 1043;
const UUID: u32 = 2950;

/// Whether the text of such a value can be read back into its binary form.
fn is_readable(of: &ColumnType) -> bool {
    of.shape == Shape::Plain && matches!(of.oid, INT2 | INT4 | INT8 | OID | TEXT | VARCHAR | UUID)
}

/// The binary form of a value given as text; `None` where that isn't certain.
pub(crate) fn binary(of: &ColumnType, text: &str) -> Option<Bytes> {
    if !is_readable(of) {
        return None;
    }
    Some(match of.oid {
        INT2 => Bytes::copy_from_slice(&text.parse::<i16>().ok()?.to_be_bytes()),
        INT4 => Bytes::copy_from_slice(&text.parse::<i32>().ok()?.to_be_bytes()),
        INT8 => Bytes::copy_from_slice(&text.parse::<i64>().ok()?.to_be_bytes()),
        OID => Bytes::copy_from_slice(&text.parse::<u32>().ok()?.to_be_bytes()),
        UUID => uuid(text)?,
        _ => Bytes::copy_from_slice(text.as_bytes()),
    })
}

/// 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &str) -> Option<Bytes> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] {
        return None;
    }
    let digits: Vec<u32> = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::QualifiedName;

    #[test]
    fn constants_in_binary() {
        let of = |oid, text| {
            let name = QualifiedName::new("pg_catalog", "t");
            binary(&ColumnType { oid, name, shape: Shape::Plain }, text).map(|b| b.to_vec())
        };
        assert_eq!(of(INT4, "-2"), Some(vec![255, 255, 255, 254]));
        assert_eq!(of(INT2, "70000"), None);
        assert_eq!(of(INT8, "5.0"), None);
        assert_eq!(of(TEXT, "é"), Some("é".as_bytes().to_vec()));
        assert_eq!(of(1700, "5"), None);
        let bytes = of(UUID, "00112233-4455-6677-8899-aAbBcCdDeEfF").unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[15]), (16, 0, 255));
        assert_eq!(of(UUID, "{00112233-4455-6677-8899-aabbccddeeff}"), None);
    }
}
