//! The column that is added to a write's RETURNING list, read back.
use bytes::Bytes;
use pgshadow_model::{Lsn, Relation, Values, Xid};
use pgshadow_wire::Reader;

/// One row of the added column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub xid: Xid,
    pub token: Lsn,
    pub table_oid: u32,
    /// Whether ON CONFLICT DO UPDATE inserted the row (`xmax` is 0), where that was asked.
    pub inserted: Option<bool>,
    pub values: Values,
}

/// Reads `record_send(ROW(xid, lsn, tableoid[, xmax], columns...))`; `None` where it isn't of that form, or where its
/// columns aren't those of `relation` (types included, unless `converted`).
pub(crate) fn read(record: &Bytes, relation: &Relation, flag: bool, converted: bool) -> Option<Image> {
    let mut reader = Reader::new(record);
    let head = if flag { 4 } else { 3 };
    let count = usize::try_from(reader.i32()?).ok()?;
    if count != head + relation.columns.len() {
        return None;
    }
    let mut next = || -> Option<(u32, Option<&[u8]>)> { Some((reader.u32()?, reader.value()?)) };
    let xid = u64::from_be_bytes(next()?.1?.try_into().ok()?);
    let token = u64::from_be_bytes(next()?.1?.try_into().ok()?);
    let table_oid = u32::from_be_bytes(next()?.1?.try_into().ok()?);
    let inserted = if flag { Some(next()?.1? == [0; 4]) } else { None };
    let mut values = Vec::with_capacity(relation.columns.len());
    for column in &relation.columns {
        let (oid, value) = next()?;
        if oid != column.column_type.oid && !converted {
            return None;
        }
        let value = value.map(|v| record.slice_ref(v));
        let text_of_jsonb = converted && column.column_type.oid == JSONB;
        values.push(if text_of_jsonb { value.map(|v| Bytes::from([&[1][..], &v].concat())) } else { value });
    }
    reader.rest().is_empty().then_some(Image { xid: Xid(xid), token: Lsn(token), table_oid, inserted, values })
}

const JSONB: u32 = 3802;

/// What to ask of a table's columns in a session whose client_encoding isn't UTF8, as SQL with `{t}` for the table;
/// `None` if a column's binary form depends on the encoding in a way that can't be asked for otherwise.
///
/// Types whose binary form is their text (text, varchar, bpchar, json, jsonb, enums, ...) are converted to UTF8; the others'
/// binary form must not depend on the encoding.
pub(crate) fn columns_in_utf8(relation: &Relation) -> Option<Vec<String>> {
    const TEXT: &[u32] = &[19, 25, 1042, 1043, 114, JSONB];
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
        .map(|c| {
            let name = format!("{{t}}.\"{}\"", c.name.replace('"', "\"\""));
            if FREE.contains(&c.column_type.oid) {
                Some(name)
            } else if TEXT.contains(&c.column_type.oid) {
                Some(format!("pg_catalog.convert_to({name}::pg_catalog.text, 'UTF8')"))
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use pgshadow_model::{Column, ColumnType, QualifiedName, RelationKind, Shape};

    fn relation() -> Relation {
        let column = |name: &str, oid| Column {
            name: name.into(),
            column_type: ColumnType { oid, name: QualifiedName::new("pg_catalog", "t"), shape: Shape::Plain },
            not_null: false,
            generated: false,
            identity_always: false,
        };
        Relation {
            oid: 5,
            name: QualifiedName::new("public", "t"),
            kind: RelationKind::Table,
            columns: vec![column("id", 23), column("note", 25)],
            key: vec![0],
            unique_keys: vec![],
            foreign_keys: vec![],
            coarse: false,
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
        let image = read(&record(&row), &relation(), false, false).unwrap();
        assert_eq!((image.xid, image.token, image.table_oid, image.inserted), (Xid(7), Lsn(9), 5, None));
        assert_eq!(image.values, vec![Some(Bytes::from_static(&[0, 0, 0, 1])), None]);
        let other_type = [&head[..], &[(20, Some(&[0; 8][..])), (25, None)]].concat();
        assert_eq!(read(&record(&other_type), &relation(), false, false), None);
        assert_eq!(read(&record(&head), &relation(), false, false), None);
        assert_eq!(read(&Bytes::from_static(b"\0\0\0\x05"), &relation(), false, false), None);
    }
}
