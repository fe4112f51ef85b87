//! What is asked of a server: a row as one text, and its hash.
//!
//! Two rows are equal where their texts are, under fixed settings ([`SETTINGS`]). A hash has 128 bits: two of 64 with different
//! seeds, made by the server's own `hashtextextended`, where both servers give the same number for the same text; else the halves
//! of MD5. Hashes of many rows are added, so that neither order nor place counts.

use crate::table::{Column, PAGE, Table};
use pgshadow_model::quote;

/// Settings that a text depends on, that no row is hidden by a policy, and that a server's resources depend on.
pub(crate) const SETTINGS: &str = "
SET application_name = 'pgshadow verify'; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C';
SET xmloption = 'content'; SET search_path = pg_catalog; SET row_security = off; SET standard_conforming_strings = on;
SET default_transaction_read_only = on; SET statement_timeout = 0; SET lock_timeout = '10s';
SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off;
SELECT pg_catalog.set_config(s.name, w.value, false) FROM pg_catalog.pg_settings s JOIN (VALUES ('jit', 'off'),
    ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'))
    AS w (name, value) ON w.name = s.name";

/// How a text becomes 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// Two of the server's own hashes.
    Own,
    /// MD5 over UTF-8.
    Md5,
}

/// What the two servers have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Common {
    pub(crate) hashing: Hashing,
    /// One of them writes floats with a fixed number of digits (before 12).
    pub(crate) rounds_floats: bool,
}

/// What tells whether two servers' own hashes are the same.
pub(crate) const PROBE: &str = "SELECT pg_catalog.string_agg(pg_catalog.hashtextextended(t COLLATE \"C\", s)::text, ',' ORDER BY t, s)
    FROM (VALUES (''), ('a'), ('pgshadow'), (pg_catalog.repeat('0123456789', 50))) AS t (t), (VALUES (0), (1), (2)) AS s (s)";

/// Characters that are left of a value that is cut.
const SHOWN: usize = 1000;

impl Common {
    fn hash(self, text: &str, seed: u8) -> String {
        match self.hashing {
            Hashing::Own => format!("hashtextextended({text} COLLATE \"C\", {seed})"),
            Hashing::Md5 => {
                let from = 1 + 16 * (seed % 2);
                format!("('x' || substr(md5(convert_to({text}, 'UTF8')), {from}, 16))::bit(64)::int8")
            }
        }
    }

    /// A text's length, the same on both: where their own encodings differ, in UTF-8.
    fn bytes(self, text: &str) -> String {
        match self.hashing {
            Hashing::Own => format!("octet_length({text})"),
            Hashing::Md5 => format!("octet_length(convert_to({text}, 'UTF8'))"),
        }
    }

    fn column(self, column: &Column) -> String {
        let name = format!("r.{}", quote(&column.name));
        match column.base {
            700 if self.rounds_floats => format!("float4send({name})"),
            701 if self.rounds_floats => format!("float8send({name})"),
            1021 | 1022 if self.rounds_floats => format!("array_send({name})"),
            _ => name,
        }
    }

    /// The texts of a row: of its key `k` (all of it where there is none) and of the whole `t`; with `more` columns.
    fn texts(self, table: &Table, order: &[Column], more: &str, condition: &str) -> String {
        let row = |columns: &mut dyn Iterator<Item = &Column>| {
            let columns: Vec<String> = columns.map(|column| self.column(column)).collect();
            format!("ROW({})::text", columns.join(", "))
        };
        let whole = row(&mut order.iter());
        let key = if table.key.is_empty() {
            whole.clone()
        } else {
            row(&mut table.key.iter().filter_map(|name| order.iter().find(|column| column.name == *name)))
        };
        format!("SELECT {key} AS k, {whole} AS t{more} FROM ONLY {} AS r{condition} OFFSET 0", table.name.sql())
    }

    /// Rows, bytes and the sums of their hashes. `order`: the columns, as both sides are to take them; `condition`: which rows, under the name `r`.
    pub(crate) fn totals(self, table: &Table, order: &[Column], condition: &str) -> String {
        let (one, two, bytes) = (self.hash("t", 0), self.hash("t", 1), self.bytes("t"));
        let texts = self.texts(table, order, "", condition);
        format!(
            "SELECT count(*), coalesce(sum({bytes}), 0)::int8, coalesce(sum({one}), 0)::text, coalesce(sum({two}), 0)::text
             FROM ({texts}) AS x"
        )
    }

    /// The same by bucket: those bits of the key's hash.
    pub(crate) fn totals_by_bucket(self, table: &Table, order: &[Column], condition: &str, bits: i64) -> String {
        let (one, two, bytes) = (self.hash("t", 0), self.hash("t", 1), self.bytes("t"));
        let bucket = self.bucket(bits);
        let texts = self.texts(table, order, "", condition);
        format!(
            "SELECT {bucket} AS b, count(*), sum({bytes})::int8, sum({one})::text, sum({two})::text
             FROM ({texts}) AS x GROUP BY 1"
        )
    }

    fn bucket(self, bits: i64) -> String {
        format!("({} & {bits})", self.hash("k", 0))
    }

    /// The rows of the buckets in `$1`, equal ones together: key, both hashes, how many there are, and each column as text, in the order of the columns.
    /// Of a row of more than about so many bytes long values are cut: what they begin with, their length and a hash are left. Those of the key are whole.
    pub(crate) fn rows(self, table: &Table, order: &[Column], condition: &str, bits: i64, most: usize) -> String {
        let (one, two) = (self.hash("t", 0), self.hash("t", 1));
        let room = (most / order.len().max(1)).max(SHOWN);
        let cut = |value: &str| {
            format!(
                "CASE WHEN octet_length({value}) > {room} THEN left({value}, {SHOWN}) || ' ... (' || octet_length({value})
                 || ' bytes, hash ' || {} || ')' ELSE {value} END",
                self.hash(value, 0)
            )
        };
        // whatever the column's collation takes for equal
        let text = |(i, column): (usize, &Column)| format!(", r.{}::text COLLATE \"C\" AS c{i}", quote(&column.name));
        let more: String = order.iter().enumerate().map(text).collect();
        let shown = |(i, column): (usize, &Column)| {
            let text = format!("c{i}");
            format!(", {}", if table.key.contains(&column.name) { text } else { cut(&text) })
        };
        let columns: String = order.iter().enumerate().map(shown).collect();
        let places: String = (0..order.len()).map(|i| format!(", {}", i + 5)).collect();
        // without a key it is the whole row
        let key = if table.key.is_empty() { cut("k") } else { "k".to_owned() };
        let (texts, bucket) = (self.texts(table, order, &more, condition), self.bucket(bits));
        format!(
            "SELECT {key}, {one}, {two}, count(*){columns} FROM ({texts}) AS x WHERE {bucket} = ANY ($1::int8[]) GROUP BY 1, 2, 3{places}"
        )
    }

    /// The rows of the buckets in `$1`, equal ones together: both hashes of the key, both of the whole, how many there are, and of how many bytes.
    pub(crate) fn hashes(self, table: &Table, order: &[Column], condition: &str, bits: i64) -> String {
        let [key, other, one, two] = [("k", 0), ("k", 1), ("t", 0), ("t", 1)].map(|(text, seed)| self.hash(text, seed));
        let texts = self.texts(table, order, "", condition);
        let bucket = self.bucket(bits);
        format!(
            "SELECT {key}, {other}, {one}, {two}, count(*), max(octet_length(t))::int8 FROM ({texts}) AS x WHERE {bucket} = ANY ($1::int8[]) GROUP BY 1, 2, 3, 4"
        )
    }
}

/// Some of a table's pages: from the first to below the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages(pub u32, pub Option<u32>);

impl Pages {
    /// For the table's rows under the name `r`.
    #[must_use]
    pub fn condition(&self) -> String {
        let from = format!(" WHERE r.ctid >= '({},0)'::tid", self.0);
        match self.1 {
            Some(to) => format!("{from} AND r.ctid < '({to},0)'::tid"),
            None => from,
        }
    }

    /// A table of so many bytes in pieces of so many pages, of which the last has no end.
    #[must_use]
    pub fn of(bytes: u64, piece: u32) -> Vec<Self> {
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX - piece);
        let starts = (0..=pages / piece).map(|n| n * piece);
        starts.map(|from| Self(from, (from + piece <= pages).then_some(from + piece))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_table_once() {
        for pages in [0, 1, 9, 10, 11, 20, 25] {
            let pieces = Pages::of(pages * PAGE, 10);
            assert_eq!(pieces.first().map(|p| p.0), Some(0), "{pages}");
            assert!(pieces.windows(2).all(|two| two[0].1 == Some(two[1].0)), "{pages}: {pieces:?}");
            assert_eq!(pieces.iter().filter(|p| p.1.is_none()).count(), 1, "{pages}: {pieces:?}");
            assert_eq!(pieces.last().and_then(|p| p.1), None, "{pages}: {pieces:?}");
        }
    }
}
