//! Utility commands that define nothing.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{
    ClusterStmt, CopyStmt, DefElem, DiscardMode, DiscardStmt, DropBehavior, ExplainStmt, Node, ReindexObjectType,
    ReindexStmt, TransactionStmt, TransactionStmtKind, TruncateStmt, VariableSetKind, VariableSetStmt,
};

use crate::nodes::{kind, not_empty, option_text, relation, relations, strings};
use crate::statement::{CopyCommand, Discard, SetKind, StatementKind};
use crate::summary::Summary;

/// CURSOR_OPT_HOLD of the server's sources.
pub(super) const CURSOR_HOLD: i32 = 0x20;

pub(super) fn command(statement: &Kind) -> Option<StatementKind> {
    Some(match statement {
        Kind::TransactionStmt(transaction) => transaction_command(transaction)?,
        Kind::VariableSetStmt(set) => set_command(set),
        Kind::VariableShowStmt(_) => StatementKind::Show,
        Kind::TruncateStmt(truncate) => truncate_command(truncate),
        Kind::DiscardStmt(discard) => discard_command(discard),
        Kind::ExecuteStmt(execute) => StatementKind::Execute { name: execute.name.clone() },
        Kind::DeallocateStmt(deallocate) => {
            StatementKind::Deallocate { name: (!deallocate.isall).then(|| deallocate.name.clone()) }
        }
        Kind::FetchStmt(fetch) => StatementKind::Fetch { cursor: fetch.portalname.clone() },
        Kind::ClosePortalStmt(close) => StatementKind::Close { cursor: not_empty(&close.portalname) },
        Kind::CallStmt(_) => StatementKind::Call,
        Kind::DoStmt(_) => StatementKind::Do,
        Kind::ListenStmt(_) => StatementKind::Listen,
        Kind::NotifyStmt(_) => StatementKind::Notify,
        Kind::UnlistenStmt(_) => StatementKind::Unlisten,
        Kind::LockStmt(lock) => StatementKind::Lock { tables: relations(&lock.relations) },
        Kind::ConstraintsSetStmt(set) => StatementKind::SetConstraints { deferred: set.deferred },
        Kind::VacuumStmt(vacuum) if vacuum.is_vacuumcmd => maintenance("VACUUM", false),
        Kind::VacuumStmt(_) => maintenance("ANALYZE", true),
        Kind::CheckPointStmt(_) => maintenance("CHECKPOINT", true),
        Kind::ClusterStmt(cluster) => cluster_command(cluster),
        Kind::ReindexStmt(reindex) => reindex_command(reindex),
        _ => return None,
    })
}

fn maintenance(command: &'static str, in_transaction_block_allowed: bool) -> StatementKind {
    StatementKind::Maintenance { command, in_transaction_block_allowed }
}

fn cluster_command(cluster: &ClusterStmt) -> StatementKind {
    maintenance("CLUSTER", cluster.relation.is_some())
}

fn reindex_command(reindex: &ReindexStmt) -> StatementKind {
    let several = !matches!(
        ReindexObjectType::try_from(reindex.kind),
        Ok(ReindexObjectType::ReindexObjectIndex | ReindexObjectType::ReindexObjectTable)
    );
    maintenance("REINDEX", !several && !is_on(&reindex.params, "concurrently"))
}

fn transaction_command(transaction: &TransactionStmt) -> Option<StatementKind> {
    use TransactionStmtKind as Transaction;
    let name = || transaction.savepoint_name.clone();
    let gid = || transaction.gid.clone();
    let chain = transaction.chain;
    Some(match Transaction::try_from(transaction.kind).ok()? {
        Transaction::TransStmtBegin | Transaction::TransStmtStart => StatementKind::Begin,
        Transaction::TransStmtCommit => StatementKind::Commit { chain },
        Transaction::TransStmtRollback => StatementKind::Rollback { chain },
        Transaction::TransStmtSavepoint => StatementKind::Savepoint { name: name() },
        Transaction::TransStmtRelease => StatementKind::Release { name: name() },
        Transaction::TransStmtRollbackTo => StatementKind::RollbackTo { name: name() },
        Transaction::TransStmtPrepare => StatementKind::PrepareTransaction { gid: gid() },
        Transaction::TransStmtCommitPrepared => StatementKind::CommitPrepared { gid: gid() },
        Transaction::TransStmtRollbackPrepared => StatementKind::RollbackPrepared { gid: gid() },
        Transaction::Undefined => return None,
    })
}

fn set_command(set: &VariableSetStmt) -> StatementKind {
    let what = match VariableSetKind::try_from(set.kind) {
        Ok(VariableSetKind::VarSetDefault) => SetKind::Default,
        Ok(VariableSetKind::VarSetCurrent) => SetKind::FromCurrent,
        Ok(VariableSetKind::VarSetMulti) => SetKind::Transaction,
        Ok(VariableSetKind::VarReset | VariableSetKind::VarResetAll) => SetKind::Reset,
        _ => SetKind::Value(set.args.iter().filter_map(option_text).collect()),
    };
    StatementKind::Set { name: not_empty(&set.name).map(|name| name.to_lowercase()), local: set.is_local, kind: what }
}

fn truncate_command(truncate: &TruncateStmt) -> StatementKind {
    StatementKind::Truncate {
        tables: relations(&truncate.relations),
        cascade: truncate.behavior == DropBehavior::DropCascade as i32,
        restart_identity: truncate.restart_seqs,
    }
}

fn discard_command(discard: &DiscardStmt) -> StatementKind {
    StatementKind::Discard(match DiscardMode::try_from(discard.target) {
        Ok(DiscardMode::DiscardPlans) => Discard::Plans,
        Ok(DiscardMode::DiscardSequences) => Discard::Sequences,
        Ok(DiscardMode::DiscardTemp) => Discard::Temp,
        _ => Discard::All,
    })
}

pub(super) fn explain_analyzes(explain: &ExplainStmt) -> bool {
    is_on(&explain.options, "analyze")
}

pub(super) fn copy(copy: &CopyStmt, summary: &Summary) -> CopyCommand {
    let elsewhere = copy.is_program || !copy.filename.is_empty();
    CopyCommand {
        relation: copy.relation.as_ref().map(relation),
        columns: strings(&copy.attlist),
        from: copy.is_from,
        stdin_stdout: !elsewhere,
        query_writes: summary.nested_writes.clone(),
        program_or_file: elsewhere,
        options: definitions(&copy.options)
            .map(|option| (option.defname.to_lowercase(), option.arg.as_deref().and_then(option_text)))
            .collect(),
        where_clause: copy.where_clause.is_some(),
    }
}

pub(super) fn definitions(nodes: &[Node]) -> impl Iterator<Item = &DefElem> {
    nodes.iter().filter_map(|node| match kind(node)? {
        Kind::DefElem(element) => Some(&**element),
        _ => None,
    })
}

/// The last mention of a boolean option decides, as in the server; a mention without a value means on, and so does
/// a value that isn't understood.
pub(super) fn is_on(options: &[Node], name: &str) -> bool {
    definitions(options).filter(|option| option.defname.eq_ignore_ascii_case(name)).last().is_some_and(|option| {
        let value = option.arg.as_deref().and_then(option_text).unwrap_or_default();
        !["false", "off", "0"].iter().any(|off| off.eq_ignore_ascii_case(&value))
    })
}
