//! The column that is added to a write's RETURNING list, read back.
use crate::plan::{OldRow, Seen, WriteEffect};
use bytes::Bytes;
use pgshadow_model::{Column, Lsn, Operation, Relation, Values, Xid, quote};
use pgshadow_wire::Reader;
use std::borrow::Cow;

/// One row of the added column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub xid: Xid,
    pub token: Lsn,
    pub table_oid: u32,
    /// What was done to the row, as far as that isn't the same for every row of the statement.
    pub operation: Option<Operation>,
    /// The old row's columns, where they were asked for and there was one.
    pub old: Option<Values>,
    /// Parameters, as text.
    pub parameters: Values,
    pub values: Values,
}

/// Reads `record_send(ROW(xid, lsn, tableoid[, xmax][, action][, old.tableoid, old columns...][, parameters...], columns...))`;
/// `None` where it isn't of that form, or where its columns aren't those of the table (types included, unless converted).
pub(crate) fn read(record: &Bytes, write: &WriteEffect) -> Option<Image> {
    // without the right to read, or under row-level security, no column is asked for
    let relation = &write.table.relation;
    let columns: Cow<'_, [Column]> = match write.seen {
        Seen::Whole => Cow::Borrowed(&relation.columns),
        Seen::Key => relation.key.iter().filter_map(|p| relation.columns.get(usize::from(*p)).cloned()).collect(),
        Seen::Nothing => Cow::Borrowed(&[]),
    };
    let old_columns: &[u16] = match &write.old {
        OldRow::Returned(positions) => positions,
        _ => &[],
    };
    let returns_old = matches!(write.old, OldRow::Returned(_));
    let head = 2
        + usize::from(write.has_table_oid())
        + usize::from(write.flag)
        + usize::from(write.action)
        + usize::from(returns_old)
        + old_columns.len();
    let mut fields = Fields::of(record, head + write.parameters + columns.len(), write.converted)?;
    let xid = u64::from_be_bytes(fields.next()?.1?.try_into().ok()?);
    let token = u64::from_be_bytes(fields.next()?.1?.try_into().ok()?);
    let table_oid = match write.has_table_oid() {
        true => u32::from_be_bytes(fields.next()?.1?.try_into().ok()?),
        false => write.table.relation.oid,
    };
    let upserted = |inserted: bool| if inserted { Operation::Insert } else { Operation::Update };
    let mut operation = if write.flag { Some(upserted(fields.next()?.1? == [0; 4])) } else { None };
    if write.action {
        operation = Some(match fields.next()?.1? {
            b"INSERT" => Operation::Insert,
            b"UPDATE" => Operation::Update,
            b"DELETE" => Operation::Delete,
            _ => return None,
        });
    }
    let was_there = !returns_old || fields.next()?.1.is_some();
    let column = |position: &u16| columns.get(usize::from(*position));
    let old = old_columns.iter().map(|p| fields.column(column(p)?)).collect::<Option<Values>>()?;
    let parameters = (0..write.parameters).map(|_| fields.bytes()).collect::<Option<Values>>()?;
    let values = columns.iter().map(|c| fields.column(c)).collect::<Option<Values>>()?;
    if returns_old && operation.is_none() && write.operation == Operation::Upsert {
        operation = Some(upserted(!was_there));
    }
    let old = (returns_old && was_there).then_some(old);
    fields.end().then_some(Image { xid: Xid(xid), token: Lsn(token), table_oid, operation, old, parameters, values })
}

/// Where a row's transaction stands and of which table the row is, whatever columns that has; `None` where not even that can
/// be read.
pub(crate) fn head(record: &Bytes, write: &WriteEffect) -> Option<(Xid, Lsn, u32)> {
    let mut reader = Reader::new(record);
    reader.i32()?;
    let mut next = || {
        reader.u32()?;
        reader.value()?
    };
    let (xid, token) = (next()?, next()?);
    let table_oid = match write.has_table_oid() {
        true => u32::from_be_bytes(next()?.try_into().ok()?),
        false => write.table.relation.oid,
    };
    Some((Xid(u64::from_be_bytes(xid.try_into().ok()?)), Lsn(u64::from_be_bytes(token.try_into().ok()?)), table_oid))
}

/// Reads `record_send(ROW(columns...))` of a row that was locked ahead.
pub(crate) fn read_locked(record: &Bytes, write: &WriteEffect) -> Option<Values> {
    let columns = &write.table.relation.columns;
    let mut fields = Fields::of(record, columns.len(), write.converted)?;
    let values = columns.iter().map(|c| fields.column(c)).collect::<Option<Values>>()?;
    fields.end().then_some(values)
}

/// The same where its place stands in front.
pub(crate) fn read_placed(record: &Bytes, write: &WriteEffect) -> Option<(Place, Values)> {
    let columns = &write.table.relation.columns;
    let mut fields = Fields::of(record, 2 + columns.len(), write.converted)?;
    let place = Place { table_oid: fields.bytes()??, ctid: fields.bytes()?? };
    let values = columns.iter().map(|c| fields.column(c)).collect::<Option<Values>>()?;
    fields.end().then_some((place, values))
}

/// Reads `record_send(ROW(tableoid, ctid))`.
pub(crate) fn read_place(record: &Bytes) -> Option<Place> {
    let mut fields = Fields::of(record, 2, false)?;
    let place = Place { table_oid: fields.bytes()??, ctid: fields.bytes()?? };
    fields.end().then_some(place)
}

/// Reads the row with a single number that tells which places were kept; `None` where it isn't that one.
#[allow(clippy::option_option)]
pub(crate) fn read_kept(record: &Bytes) -> Option<Option<i32>> {
    let mut fields = Fields::of(record, 1, false)?;
    match fields.next()?.1 {
        Some(length) => Some(Some(i32::from_be_bytes(length.try_into().ok()?))),
        None => Some(None),
    }
}

/// Where a row stands: the binary forms of its `tableoid` and `ctid`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    table_oid: Bytes,
    ctid: Bytes,
}

/// The fields of a record in binary form.
struct Fields<'a> {
    reader: Reader<'a>,
    record: &'a Bytes,
    converted: bool,
}

impl<'a> Fields<'a> {
    fn of(record: &'a Bytes, expected: usize, converted: bool) -> Option<Self> {
        let mut reader = Reader::new(record);
        (usize::try_from(reader.i32()?) == Ok(expected)).then_some(Self { reader, record, converted })
    }

    /// The type's OID and the value.
    fn next(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        Some((self.reader.u32()?, self.reader.value()?))
    }

    fn bytes(&mut self) -> Option<Option<Bytes>> {
        let value = self.next()?.1;
        Some(value.map(|v| self.record.slice_ref(v)))
    }

    fn column(&mut self, of: &Column) -> Option<Option<Bytes>> {
        let (oid, value) = self.next()?;
        if oid != of.column_type.oid && !self.converted {
            return None;
        }
        let value = value.map(|v| self.record.slice_ref(v));
        let text_of_jsonb = self.converted && of.column_type.oid == JSONB;
        Some(if text_of_jsonb { value.map(|v| Bytes::from([&[1][..], &v].concat())) } else { value })
    }

    fn end(&self) -> bool {
        self.reader.rest().is_empty()
    }
}

const JSONB: u32 = 3802;

/// A column's name as SQL text that is the same in every encoding.
pub(crate) fn ascii_name(name: &str) -> String {
    if name.is_ascii() {
        return quote(name);
    }
    let escaped = |c: char| match c {
        '\\' => "\\\\".to_owned(),
        _ if c.is_ascii() => c.to_string(),
        _ => format!("\\+{:06X}", u32::from(c)),
    };
    format!("U&{}", quote(&name.chars().map(escaped).collect::<String>()))
}

/// What to ask of a table's columns in a session whose client_encoding isn't UTF8, as SQL with `{t}` for the table; `shown_as` is
/// a column as it is, by its position;
/// `None` if a column's binary form depends on the encoding in a way that can't be asked for otherwise.
///
/// Types whose binary form is their text (text, varchar, bpchar, json, jsonb, enums, ...) are converted to UTF8; the others'
/// binary form must not depend on the encoding.
pub(crate) fn columns_in_utf8(relation: &Relation, shown_as: impl Fn(usize) -> String) -> Option<Vec<String>> {
    const TEXT: &[u32] = &[19, 25, 1043, 114, JSONB];
    const BPCHAR: u32 = 1042;
    // bool bytea int8 int2 int4 oid point float4 float8 money macaddr inet cidr macaddr8 bpchar-free date time timestamp
    // timestamptz interval timetz bit varbit numeric uuid pg_lsn xid8 and arrays of the common ones
    const FREE: &[u32] = &[
        16, 17, 20, 21, 23, 26, 600, 700, 701, 790, 829, 869, 650, 774, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562,
        1700, 2950, 3220, 5069, 1000, 1001, 1005, 1007, 1016, 1021, 1022, 1115, 1182, 1185, 1231, 2951, 3904, 3906,
        3908, 3910, 3912, 3926,
    ];
    relation
        .columns
        .iter()
        .enumerate()
        .map(|(position, c)| {
            let name = shown_as(position);
            if FREE.contains(&c.column_type.oid) {
                Some(name)
            } else if TEXT.contains(&c.column_type.oid) {
                Some(format!("pg_catalog.convert_to({name}::pg_catalog.text, 'UTF8')"))
            } else if c.column_type.oid == BPCHAR {
                // the cast to text takes its blanks off
                let whole = format!("pg_catalog.convert_to(pg_catalog.concat({name}), 'UTF8')");
                Some(format!("CASE WHEN {name} IS NULL THEN NULL ELSE {whole} END"))
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Strip;
    use bytes::{BufMut, BytesMut};
    use pgshadow_catalog::Table;
    use pgshadow_model::{ColumnType, QualifiedName, RelationKind, Shape};
    use std::sync::Arc;

    fn write(operation: Operation, old: OldRow) -> WriteEffect {
        let column = |name: &str, oid| Column {
            name: name.into(),
            column_type: ColumnType { oid, name: QualifiedName::new("pg_catalog", "t"), shape: Shape::Plain },
            not_null: false,
            generated: false,
            identity_always: false,
        };
        let relation = Relation {
            oid: 5,
            name: QualifiedName::new("public", "t"),
            kind: RelationKind::Table,
            columns: vec![column("id", 23), column("note", 25)],
            key: vec![0],
            unique_keys: vec![],
            foreign_keys: vec![],
            coarse: false,
        };
        WriteEffect {
            table: Arc::new(Table::plain(relation)),
            operation,
            flag: false,
            action: false,
            through_view: false,
            seen: Seen::Whole,
            old,
            assigned: vec![],
            parameters: 0,
            converted: false,
            strip: Strip::Rows,
            suspects: vec![],
            determined: false,
            several: None,
            aside: Vec::new(),
            instead: None,
        }
    }

    fn record(fields: &[(u32, Option<&[u8]>)]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i32(i32::try_from(fields.len()).unwrap());
        for (oid, value) in fields {
            out.put_u32(*oid);
            match value {
                None => out.put_i32(-1),
                Some(v) => {
                    out.put_i32(i32::try_from(v.len()).unwrap());
                    out.put_slice(v);
                }
            }
        }
        out.freeze()
    }

    #[test]
    fn reads_a_row_and_refuses_another_shape() {
        let (xid, lsn, oid) = (7u64.to_be_bytes(), 9u64.to_be_bytes(), 5u32.to_be_bytes());
        let head = [(5069, Some(&xid[..])), (3220, Some(&lsn[..])), (26, Some(&oid[..]))];
        let row = [&head[..], &[(23, Some(&[0, 0, 0, 1][..])), (25, None)]].concat();
        let plain = write(Operation::Update, OldRow::Same);
        let image = read(&record(&row), &plain).unwrap();
        assert_eq!((image.xid, image.token, image.table_oid, image.operation), (Xid(7), Lsn(9), 5, None));
        assert_eq!(image.values, vec![Some(Bytes::from_static(&[0, 0, 0, 1])), None]);
        let other_type = [&head[..], &[(20, Some(&[0; 8][..])), (25, None)]].concat();
        assert_eq!(read(&record(&other_type), &plain), None);
        assert_eq!(read(&record(&head), &plain), None);
        assert_eq!(read(&Bytes::from_static(b"\0\0\0\x05"), &plain), None);
    }

    #[test]
    fn reads_the_old_row() {
        let (xid, lsn, oid) = (7u64.to_be_bytes(), 9u64.to_be_bytes(), 5u32.to_be_bytes());
        let head = [(5069, Some(&xid[..])), (3220, Some(&lsn[..])), (26, Some(&oid[..]))];
        let new = [(23, Some(&[0, 0, 0, 1][..])), (25, None)];
        let upsert = write(Operation::Upsert, OldRow::Returned(vec![0]));
        let updated = [&head[..], &[(26, Some(&oid[..])), (23, Some(&[0, 0, 0, 2][..]))], &new].concat();
        let image = read(&record(&updated), &upsert).unwrap();
        assert_eq!(image.operation, Some(Operation::Update));
        assert_eq!(image.old, Some(vec![Some(Bytes::from_static(&[0, 0, 0, 2]))]));
        let inserted = [&head[..], &[(26, None), (23, None)], &new].concat();
        let image = read(&record(&inserted), &upsert).unwrap();
        assert_eq!((image.operation, image.old), (Some(Operation::Insert), None));
        let merge = WriteEffect { action: true, ..write(Operation::Upsert, OldRow::Same) };
        let deleted = [&head[..], &[(25, Some(&b"DELETE"[..]))], &new].concat();
        assert_eq!(read(&record(&deleted), &merge).unwrap().operation, Some(Operation::Delete));
        let fixed = WriteEffect { parameters: 1, ..write(Operation::Update, OldRow::Fixed(vec![])) };
        let image = read(&record(&[&head[..], &[(25, Some(&b"12"[..]))], &new].concat()), &fixed).unwrap();
        assert_eq!((image.operation, image.parameters), (None, vec![Some(Bytes::from_static(b"12"))]));
    }
}
