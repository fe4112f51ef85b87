//! Statements of pgshadow's own that run inside the client's session.
use bytes::Bytes;
use pgshadow_model::{Lsn, QualifiedName, Xid};
use pgshadow_sql::LockAhead;
use pgshadow_wire::frontend::{self, Bind, Parameter};
use serde::Deserialize;

/// Name of our prepared statement and portal: there only while one of ours runs.
pub(crate) const NAME: &[u8] = b"_pgshadow";

/// Checks deferred constraints now, so that nothing of the transaction's work comes after the token.
pub(crate) const CHECK_CONSTRAINTS: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// Draws the end token; with `locks`, also names the tables that the transaction has locked for writing.
///
/// Never `txid_current()`, which would assign an xid to a transaction that only read. (The `txid_` names are those that every
/// major from 10 on knows.)
pub(crate) fn end_token(locks: bool) -> String {
    const LOCKS: &str = ", 'locks', (SELECT pg_catalog.json_agg(DISTINCT pg_catalog.concat(n.nspname, E'\\x01', c.relname)) \
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation \
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
        WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
        AND l.mode OPERATOR(pg_catalog.=) ANY ('{RowExclusiveLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}') \
        AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,f}') AND NOT c.relpersistence OPERATOR(pg_catalog.=) 't')";
    format!(
        "SELECT pg_catalog.convert_to(pg_catalog.json_build_object('xid', pg_catalog.txid_current_if_assigned()::pg_catalog.text, \
         'lsn', pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text{})::pg_catalog.text, 'UTF8')",
        if locks { LOCKS } else { "" }
    )
}

/// The answer to [`end_token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub xid: Option<Xid>,
    pub token: Lsn,
    /// Tables locked for writing; `None` where they weren't asked for.
    pub locks: Option<Vec<QualifiedName>>,
}

#[derive(Deserialize)]
struct RawEnd {
    xid: Option<String>,
    lsn: String,
    locks: Option<Vec<String>>,
}

/// Reads the answer; `asked` tells whether locks were asked for.
pub(crate) fn end(json: &[u8], asked: bool) -> Option<End> {
    let raw: RawEnd = serde_json::from_slice(json).ok()?;
    let locks = raw.locks.unwrap_or_default();
    let locks = locks.iter().map(|l| l.split_once('\x01').map(|(s, n)| QualifiedName::new(s, n)));
    Some(End {
        xid: match raw.xid {
            Some(x) => Some(Xid(x.parse().ok()?)),
            None => None,
        },
        token: raw.lsn.parse().ok()?,
        locks: if asked { Some(locks.collect::<Option<Vec<_>>>()?) } else { None },
    })
}

/// The statement that locks the rows of a bound UPDATE: with its own values, as far as the condition needs them.
pub(crate) fn lock_statement(lock: &LockAhead, bind: &Bind<'_>, types: &[u8]) -> Bytes {
    const TEXT: u32 = 25;
    let declared = |index: usize| {
        let at = 2 + index * 4;
        types.get(at..at + 4).and_then(|oid| oid.try_into().ok()).map_or(0, u32::from_be_bytes)
    };
    let count = lock.parameters.last().map_or(0, |last| usize::from(*last));
    let parameters: Vec<Parameter<'_>> = (0..count)
        .map(|index| {
            let used = lock.parameters.iter().any(|number| usize::from(*number) == index + 1);
            if !used {
                // of one that isn't there the server couldn't tell the type
                return Parameter { type_oid: TEXT, format: 0, value: None };
            }
            let value = bind.parameters.get(index).copied().flatten();
            Parameter { type_oid: declared(index), format: bind.format(index), value }
        })
        .collect();
    frontend::own_statement_with(NAME, lock.text.as_bytes(), &parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_end_token() {
        let json = br#"{"xid" : "731", "lsn" : "0/1F", "locks" : ["public\u0001t"]}"#;
        let expected =
            End { xid: Some(Xid(731)), token: Lsn(31), locks: Some(vec![QualifiedName::new("public", "t")]) };
        assert_eq!(end(json, true), Some(expected));
        assert_eq!(end(br#"{"xid":null,"lsn":"0/1F","locks":null}"#, true).unwrap().locks, Some(vec![]));
        assert_eq!(end(br#"{"xid":null,"lsn":"0/1F"}"#, false).unwrap().locks, None);
        assert_eq!(end(b"{}", false), None);
    }
}
