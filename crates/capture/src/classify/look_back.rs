//! COPY that may store other rows than its stream holds: they are read back behind it, in the same transaction.
use super::{Context, Rewritten};
use crate::image::ascii_name;
use crate::plan::{Effect, LookBack, OldRow, Seen, Step, Strip, WriteEffect};
use pgshadow_catalog::{FunctionNature, Table};
use pgshadow_model::{Operation, RelationKind};
use pgshadow_sql::{Dialect, Rewrite, Statement};
use pgshadow_telemetry::StatementClass as Class;
use std::sync::Arc;

/// From here rows are read by a range of their places.
const READS_RANGES: u32 = 140_000;

/// Bytes of a table that are read through for any COPY, and for each of its rows.
const BYTES: u32 = 2 << 20;
const BYTES_OF_A_ROW: u32 = 1024;

/// Partitions whose sizes are asked for.
const PARTITIONS_MAX: usize = 200;

impl Context<'_> {
    /// The COPY with a look back; `None` where its rows can't be told by one. `reason`: why its stream doesn't tell them.
    pub(crate) fn look_back(
        &self,
        statement: &Statement,
        table: &Arc<Table>,
        reason: &'static str,
        rewrites: &mut Rewritten,
    ) -> Option<Step> {
        let kinds = [RelationKind::Table, RelationKind::Partitioned];
        let possible =
            kinds.contains(&table.relation.kind) && !table.foreign && table.tree_oids.len() <= PARTITIONS_MAX;
        // they are told from the transaction's other rows by being its last: nothing else may write the table behind them
        let of_triggers = self.nature_of_triggers(table);
        let functions = self.nature_of_calls(statement).max(self.nature_of_table(table)).max(of_triggers);
        let alone = functions < FunctionNature::MayWriteOthers
            && (!table.after_triggers || of_triggers == FunctionNature::Harmless);
        let seen = table.selectable && !table.row_security && table.opaque_column().is_none();
        if !possible || !alone || !seen || self.masked {
            return None;
        }
        let target = self.target(table).ok()?;
        let columns = self.image_columns(&target)?;
        let text = text(table, &columns, self.identity.version);
        rewrites.beside.push(Rewrite::inserting(self.text, statement.range.end, &format!("; {text}"))?);
        let write = WriteEffect {
            table: Arc::clone(table),
            operation: Operation::Insert,
            flag: false,
            action: false,
            through_view: false,
            seen: Seen::Whole,
            old: OldRow::Same,
            assigned: Vec::new(),
            parameters: 1,
            converted: self.identity.client_encoding != "UTF8",
            strip: Strip::Rows,
            suspects: Vec::new(),
            determined: false,
            several: None,
            aside: Vec::new(),
            instead: None,
        };
        let effect = Effect::LookBack(Arc::new(LookBack { write: Arc::new(write), text, reason }));
        Some(Step { effect, hidden_writes: true, ..Step::none(Class::Copy) })
    }
}

/// One SELECT with one column, as a RETURNING list would have it: the rows that the transaction's last command wrote into the table, as
/// far as they are found. None at all where reading them could make the client's transaction fail (SERIALIZABLE: it would have read
/// what it never asked for).
///
/// A row is the transaction's own if its `xmin` is, or is that of a subtransaction: younger, visible and not yet committed. Its `cmin`
/// tells the command. The first of the parameters tells whether the whole table was read: if only its end, the last command that
/// is found there need not be the COPY, unless the transaction has no other.
fn text(table: &Table, columns: &[String], version: u32) -> String {
    const XID: &str = "(SELECT (~txid_current_if_assigned() [%] 4294967296)::~text::~xid)";
    let name = &table.relation.name;
    let only = if table.tree_oids.len() == 1 { "ONLY " } else { "" };
    let from = format!("{only}{}.{}", ascii_name(&name.schema), ascii_name(&name.name));
    let sum = |of: &str| match table.tree_oids.as_slice() {
        [oid] => format!("~{of}({oid}::~oid)"),
        oids => {
            let oids = oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            format!("(SELECT ~sum(~{of}(o))::~int8 FROM ~unnest('{{{oids}}}'::~oid[]) AS o)")
        }
    };
    let (size, inserted) = (sum("pg_relation_size"), sum("pg_stat_get_xact_tuples_inserted"));
    let bound = format!("({BYTES} [+] ({BYTES_OF_A_ROW} [*] {inserted}))");
    let fits = format!("(SELECT {size} [<=] {bound})");
    let own = |t: &str| {
        format!(
            "CASE WHEN ~age({t}.xmin) [<=] ~age({XID}) THEN {t}.xmin [=] {XID} OR ~txid_status(~txid_current_if_assigned() \
             [+] ~age({XID}) [-] ~age({t}.xmin)) [=] 'in progress' ELSE false END"
        )
    };
    let (gate, range) = if only.is_empty() || version < READS_RANGES {
        (format!(" AND {fits}"), None)
    } else {
        let page = format!("({size} [-] {bound}) [/] ~current_setting('block_size')::~int8");
        (String::new(), Some(format!("(SELECT ~concat('(', greatest(0, {page}), ',0)')::~tid)")))
    };
    let range = |t: &str| range.as_ref().map_or_else(String::new, |first| format!(" AND {t}.ctid [>=] {first}"));
    let columns: Vec<String> = columns.iter().map(|column| column.replace("{t}", "t")).collect();
    let Dialect { xid_function, lsn_function } = Dialect::CURRENT;
    let whole = in_full(&format!("{fits}::~text"));
    let condition = format!(
        "(SELECT ~current_setting('transaction_isolation') [<>] 'serializable'{gate}){range_t} AND {own_t} AND t.cmin::~text::~int8 [=] \
         (SELECT ~max(u.cmin::~text::~int8) FROM {{from}} AS u WHERE {own_u}{range_u})",
        own_t = own("t"),
        own_u = own("u"),
        range_t = range("t"),
        range_u = range("u"),
    );
    let condition = in_full(&condition).replace("{from}", &from);
    let columns = columns.join(", ");
    format!(
        "SELECT pg_catalog.record_send(ROW({xid_function}, {lsn_function}, t.tableoid, {whole}, {columns})) FROM {from} AS t WHERE {condition}"
    )
}

/// `~` is the schema of what the server brings, `[+]` its operator, whatever search_path holds.
fn in_full(sql: &str) -> String {
    let mut full = sql.replace('~', "pg_catalog.");
    for operator in ["%", "+", "-", "*", "/", "=", "<>", "<=", ">="] {
        full = full.replace(&format!("[{operator}]"), &format!("OPERATOR(pg_catalog.{operator})"));
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgshadow_model::{QualifiedName, Relation};

    #[test]
    fn names_are_those_of_pg_catalog() {
        let relation = Relation {
            oid: 5,
            name: QualifiedName::new("s", "\u{fc}~[+]\""),
            kind: RelationKind::Table,
            columns: vec![],
            key: vec![],
            unique_keys: vec![],
            foreign_keys: vec![],
            coarse: false,
        };
        let table = Table { tree_oids: vec![5], ..Table::plain(relation) };
        for version in [120_000, 180_000] {
            let text = text(&table, &["{t}.\"a\"".to_owned()], version);
            assert!(text.contains("FROM ONLY \"s\".U&\"\\+0000FC~[+]\"\"\" AS t WHERE"), "{text}");
            assert_eq!(text.contains("ctid"), version >= READS_RANGES);
            assert!(!text.replace("~[+]\"\"", "").contains(['~', '[']), "{text}");
        }
    }
}
