//! Values in PostgreSQL's binary format, passed through without being understood.

use bytes::{BufMut, Bytes, BytesMut};
use postgres_types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use std::error::Error;

/// OIDs below are the same in every database.
const FIRST_USER_OID: u32 = 16384;

/// A value as it is, for a parameter of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Option<Bytes>);

impl ToSql for Raw {
    fn to_sql(&self, to: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(bytes) = &self.0 else {
            return Ok(IsNull::Yes);
        };
        match (element_oid(to), array_header(bytes)) {
            (Some(oid), Some((head, element, rest))) if element >= FIRST_USER_OID => {
                out.put_slice(head);
                out.put_u32(oid);
                out.put_slice(rest);
            }
            _ => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The element's OID of an array type, in the database that is written to.
fn element_oid(of: &Type) -> Option<u32> {
    match of.kind() {
        Kind::Array(element) => Some(element.oid()),
        Kind::Domain(base) => element_oid(base),
        _ => None,
    }
}

/// Dimensions and flags, the element's OID, the rest.
fn array_header(bytes: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let (oid, rest) = rest.split_first_chunk::<4>()?;
    Some((head, u32::from_be_bytes(*oid), rest))
}

/// A value as it came, of any type.
pub(crate) struct RawOwned(pub(crate) Bytes);

impl FromSql<'_> for RawOwned {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(element: u32) -> Bytes {
        let mut b = BytesMut::new();
        b.put_i32(1);
        b.put_i32(0);
        b.put_u32(element);
        b.put_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        b.freeze()
    }

    #[test]
    fn only_a_user_types_element_oid_is_replaced() {
        let element = Type::new("mood".into(), 20001, Kind::Enum(vec![]), "public".into());
        let to = Type::new("_mood".into(), 20002, Kind::Array(element), "public".into());
        let mut out = BytesMut::new();
        Raw(Some(array(17000))).to_sql(&to, &mut out).unwrap();
        assert_eq!(out.freeze(), array(20001));
        let mut out = BytesMut::new();
        Raw(Some(array(23))).to_sql(&Type::INT4_ARRAY, &mut out).unwrap();
        assert_eq!(out.freeze(), array(23));
        let mut out = BytesMut::new();
        Raw(Some(Bytes::from_static(b"short"))).to_sql(&to, &mut out).unwrap();
        assert_eq!(&out[..], b"short");
    }
}
