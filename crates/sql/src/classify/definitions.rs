//! Changes of definitions.

use pg_query::protobuf::node::Node as Kind;
use pg_query::protobuf::{
    AlterSubscriptionType, AlterTableStmt, CreateTableAsStmt, DropBehavior, DropStmt, GrantStmt, GrantTargetType, Node,
    ObjectType, RefreshMatViewStmt, RenameStmt,
};

use super::commands::is_on;
use super::named::{kind_of_objects, objects};
use super::objects::{is_cluster_wide, is_table_like, object_type, table_of_name, words};
use super::others::{made, others, reads};
use super::tables::{alteration, defaults_of};
use crate::ddl::{Ddl, ObjectKind};
use crate::nodes::{kind, not_empty, relation, relations, string};
use crate::summary::Summary;
use crate::write::RelationName;

pub(super) fn definition(statement: &Kind, summary: &Summary) -> Option<Ddl> {
    let mut found = of_tables(statement, summary)
        .or_else(|| of_any_kind(statement, summary))
        .or_else(|| of_the_cluster(statement))
        .or_else(|| of_what_may_not_run_twice(statement))
        .or_else(|| plain_tag(statement).map(|tag| ddl(tag, Vec::new())))?;
    found.redefines = redefined(statement, &found);
    found.others = others(statement);
    found.objects = objects(statement);
    found.kind = kind_of_objects(statement);
    found.reads = reads(statement, summary);
    found.made = made(statement);
    let mut named = found.tables.iter().chain(&found.others).chain(&found.objects).peekable();
    found.temporary |= named.peek().is_some() && named.all(RelationName::is_temporary);
    Some(found)
}

fn ddl(tag: impl Into<String>, tables: Vec<RelationName>) -> Ddl {
    Ddl {
        tag: tag.into(),
        tables,
        cluster_wide: false,
        concurrently: false,
        others: Vec::new(),
        objects: Vec::new(),
        kind: ObjectKind::default(),
        reads: Vec::new(),
        made: None,
        in_transaction_block_allowed: true,
        computes_values: None,
        temporary: false,
        rewrites: false,
        opaque: None,
        cascade: false,
        moves: false,
        redefines: None,
    }
}

/// The names that stand for something else afterwards, where all of them are known.
fn redefined(statement: &Kind, found: &Ddl) -> Option<Vec<String>> {
    let last = |names: &[Node]| names.last().and_then(string).map(|name| vec![name.to_owned()]);
    match statement {
        // what is made or changed has a name, what calls it names it
        Kind::ViewStmt(view) => view.view.as_ref().map(|view| vec![view.relname.clone()]),
        Kind::CreateFunctionStmt(create) => last(&create.funcname),
        Kind::CreateEnumStmt(create) => last(&create.type_name),
        Kind::CompositeTypeStmt(create) => create.typevar.as_ref().map(|name| vec![name.relname.clone()]),
        Kind::CreateDomainStmt(create) => last(&create.domainname),
        Kind::CreatePolicyStmt(policy) => policy.table.as_ref().map(|name| vec![name.relname.clone()]),
        Kind::AlterPolicyStmt(policy) => policy.table.as_ref().map(|name| vec![name.relname.clone()]),
        Kind::AlterEnumStmt(_) => Some(Vec::new()),
        Kind::CreateSchemaStmt(create) if create.schema_elts.is_empty() => Some(Vec::new()),
        // what comes to light by that is known under its name already
        Kind::DropStmt(_) => Some(Vec::new()),
        _ if found.moves => Some(found.tables.iter().map(|table| table.name.clone()).collect()),
        _ => None,
    }
}

/// Statements about relations.
fn of_tables(statement: &Kind, summary: &Summary) -> Option<Ddl> {
    let all = || summary.relations.clone();
    let one = |range: &Option<pg_query::protobuf::RangeVar>| range.iter().map(relation).collect::<Vec<_>>();
    let mut found = match statement {
        Kind::CreateStmt(create) => {
            Ddl { computes_values: defaults_of(&create.table_elts), ..ddl("CREATE TABLE", all()) }
        }
        Kind::CreateForeignTableStmt(_) => ddl("CREATE FOREIGN TABLE", all()),
        Kind::AlterTableStmt(alter) => alter_table(alter, summary),
        Kind::CreateTableAsStmt(create) => create_as(create, summary),
        Kind::RefreshMatViewStmt(refresh) => refreshed(refresh),
        Kind::IndexStmt(index) => Ddl {
            concurrently: index.concurrent,
            in_transaction_block_allowed: !index.concurrent,
            ..ddl("CREATE INDEX", one(&index.relation))
        },
        Kind::ViewStmt(view) => ddl("CREATE VIEW", one(&view.view)),
        Kind::CreateSeqStmt(_) => ddl("CREATE SEQUENCE", Vec::new()),
        Kind::AlterSeqStmt(_) => ddl("ALTER SEQUENCE", Vec::new()),
        Kind::RuleStmt(rule) => ddl("CREATE RULE", one(&rule.relation)),
        Kind::CreateTrigStmt(_) => ddl("CREATE TRIGGER", all()),
        Kind::CreatePolicyStmt(policy) => ddl("CREATE POLICY", one(&policy.table)),
        Kind::AlterPolicyStmt(policy) => ddl("ALTER POLICY", one(&policy.table)),
        Kind::CreateStatsStmt(statistics) => ddl("CREATE STATISTICS", relations(&statistics.relations)),
        Kind::CreateSchemaStmt(_) => ddl("CREATE SCHEMA", all()),
        Kind::AlterTableMoveAllStmt(moved) => ddl(format!("ALTER {}", words(object_type(moved.objtype))), Vec::new()),
        _ => return None,
    };
    found.temporary = match statement {
        // What a view reads may be temporary without the text saying so, and then the view is.
        Kind::ViewStmt(view) => view.view.as_ref().is_some_and(|range| range.relpersistence == "t"),
        Kind::CreateStmt(_) | Kind::CreateTableAsStmt(_) => summary.temporary,
        Kind::CreateSeqStmt(_) => summary.temporary || made(statement).is_some_and(|made| made.is_temporary()),
        _ => false,
    };
    Some(found)
}

fn alter_table(alter: &AlterTableStmt, summary: &Summary) -> Ddl {
    let object = object_type(alter.objtype);
    let parts = alteration(alter);
    let tables = if is_table_like(object) { summary.relations.clone() } else { Vec::new() };
    Ddl {
        concurrently: parts.concurrently,
        in_transaction_block_allowed: !parts.concurrently,
        computes_values: parts.computes_values,
        rewrites: parts.rewrites,
        cascade: parts.cascade,
        ..ddl(format!("ALTER {}", words(object)), tables)
    }
}

fn create_as(create: &CreateTableAsStmt, summary: &Summary) -> Ddl {
    let into = create.into.as_ref();
    let filled = !into.is_some_and(|into| into.skip_data);
    let view = object_type(create.objtype) == ObjectType::ObjectMatview;
    let made = into.and_then(|into| into.rel.as_ref()).map(relation);
    let executed = matches!(create.query.as_deref().and_then(kind), Some(Kind::ExecuteStmt(_)));
    let writes = !summary.nested_writes.is_empty() || executed;
    Ddl {
        opaque: writes.then_some("its query may write"),
        computes_values: match (filled, view) {
            (false, _) => None,
            (true, true) => Some("CREATE MATERIALIZED VIEW stores what its query gives"),
            (true, false) => Some("CREATE TABLE AS stores what its query gives"),
        },
        ..ddl(
            if view { "CREATE MATERIALIZED VIEW" } else { "CREATE TABLE AS" },
            made.into_iter().chain(summary.nested_writes.iter().cloned()).collect(),
        )
    }
}

fn refreshed(refresh: &RefreshMatViewStmt) -> Ddl {
    Ddl {
        concurrently: refresh.concurrent,
        computes_values: (!refresh.skip_data).then_some("REFRESH MATERIALIZED VIEW stores what its query gives"),
        rewrites: !refresh.concurrent,
        ..ddl("REFRESH MATERIALIZED VIEW", refresh.relation.iter().map(relation).collect())
    }
}

/// DROP, RENAME, OWNER, SCHEMA, COMMENT, GRANT and others that take many kinds of objects.
fn of_any_kind(statement: &Kind, summary: &Summary) -> Option<Ddl> {
    Some(match statement {
        Kind::DropStmt(dropped) => drop_objects(dropped),
        Kind::RenameStmt(rename) => renamed(rename, summary),
        Kind::AlterObjectSchemaStmt(alter) => {
            let object = object_type(alter.object_type);
            let mut tables = named(object, &alter.relation, &alter.object);
            let moves = tables.first().cloned();
            if let Some(moved) = &moves {
                tables.push(RelationName { schema: not_empty(&alter.newschema), ..moved.clone() });
            }
            Ddl { moves: moves.is_some(), ..about("ALTER", object, tables) }
        }
        Kind::AlterOwnerStmt(alter) => {
            let object = object_type(alter.object_type);
            about("ALTER", object, named(object, &alter.relation, &alter.object))
        }
        Kind::AlterObjectDependsStmt(alter) => {
            let object = object_type(alter.object_type);
            about("ALTER", object, named(object, &alter.relation, &alter.object))
        }
        Kind::CommentStmt(comment) => {
            let object = object_type(comment.objtype);
            Ddl { tag: "COMMENT".into(), ..about("", object, named(object, &None, &comment.object)) }
        }
        Kind::SecLabelStmt(label) => {
            let object = object_type(label.objtype);
            Ddl { tag: "SECURITY LABEL".into(), ..about("", object, named(object, &None, &label.object)) }
        }
        Kind::GrantStmt(grant) => granted(grant),
        Kind::AlterFunctionStmt(alter) => about("ALTER", object_type(alter.objtype), Vec::new()),
        Kind::DefineStmt(define) => about("CREATE", object_type(define.kind), Vec::new()),
        Kind::CreateFunctionStmt(create) => {
            ddl(if create.is_procedure { "CREATE PROCEDURE" } else { "CREATE FUNCTION" }, Vec::new())
        }
        _ => return None,
    })
}

fn about(verb: &str, object: ObjectType, tables: Vec<RelationName>) -> Ddl {
    Ddl { cluster_wide: is_cluster_wide(object), ..ddl(format!("{verb} {}", words(object)), tables) }
}

/// The table that a statement is about, whichever way its tree names it.
fn named(
    object: ObjectType,
    range: &Option<pg_query::protobuf::RangeVar>,
    name: &Option<Box<Node>>,
) -> Vec<RelationName> {
    match (range, name) {
        (Some(range), _) if !matches!(object, ObjectType::ObjectIndex | ObjectType::ObjectSequence) => {
            vec![relation(range)]
        }
        (_, Some(name)) => table_of_name(object, name).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn drop_objects(dropped: &DropStmt) -> Ddl {
    let object = object_type(dropped.remove_type);
    let tables = dropped.objects.iter().filter_map(|name| table_of_name(object, name)).collect();
    Ddl {
        concurrently: dropped.concurrent,
        in_transaction_block_allowed: !dropped.concurrent,
        cascade: dropped.behavior == DropBehavior::DropCascade as i32,
        ..about("DROP", object, tables)
    }
}

fn renamed(rename: &RenameStmt, summary: &Summary) -> Ddl {
    let object = object_type(rename.rename_type);
    let holder = match object_type(rename.relation_type) {
        ObjectType::Undefined => object,
        other => other,
    };
    let mut tables = Vec::new();
    if !matches!(object, ObjectType::ObjectIndex | ObjectType::ObjectSequence) {
        tables.extend(summary.relations.iter().cloned());
    }
    let mut moves = false;
    if let (true, Some(old)) = (is_table_like(object), tables.first().cloned()) {
        tables.push(RelationName { name: rename.newname.clone(), ..old });
        moves = true;
    }
    let tag_object = if object == ObjectType::ObjectColumn { holder } else { object };
    Ddl { moves, ..about("ALTER", tag_object, tables) }
}

fn granted(grant: &GrantStmt) -> Ddl {
    let object = object_type(grant.objtype);
    let named = grant.targtype == GrantTargetType::AclTargetObject as i32;
    let tables = if named && is_table_like(object) { relations(&grant.objects) } else { Vec::new() };
    Ddl {
        cluster_wide: named && is_cluster_wide(object),
        cascade: grant.behavior == DropBehavior::DropCascade as i32,
        ..ddl(if grant.is_grant { "GRANT" } else { "REVOKE" }, tables)
    }
}

/// What all databases of the cluster share.
fn of_the_cluster(statement: &Kind) -> Option<Ddl> {
    let (tag, in_transaction_block_allowed) = match statement {
        Kind::CreatedbStmt(_) => ("CREATE DATABASE", false),
        Kind::DropdbStmt(_) => ("DROP DATABASE", false),
        Kind::AlterDatabaseStmt(alter) => ("ALTER DATABASE", !has_option(&alter.options, "tablespace")),
        Kind::AlterDatabaseSetStmt(_) | Kind::AlterDatabaseRefreshCollStmt(_) => ("ALTER DATABASE", true),
        Kind::CreateTableSpaceStmt(_) => ("CREATE TABLESPACE", false),
        Kind::DropTableSpaceStmt(_) => ("DROP TABLESPACE", false),
        Kind::AlterTableSpaceOptionsStmt(_) => ("ALTER TABLESPACE", true),
        Kind::AlterSystemStmt(_) => ("ALTER SYSTEM", false),
        Kind::CreateRoleStmt(_) => ("CREATE ROLE", true),
        Kind::AlterRoleStmt(_) | Kind::AlterRoleSetStmt(_) => ("ALTER ROLE", true),
        Kind::DropRoleStmt(_) => ("DROP ROLE", true),
        Kind::GrantRoleStmt(grant) => (if grant.is_grant { "GRANT ROLE" } else { "REVOKE ROLE" }, true),
        _ => return None,
    };
    Some(Ddl { cluster_wide: true, in_transaction_block_allowed, ..ddl(tag, Vec::new()) })
}

fn has_option(options: &[Node], name: &str) -> bool {
    super::commands::definitions(options).any(|option| option.defname == name)
}

/// What would do something else, or do it twice, on another server.
fn of_what_may_not_run_twice(statement: &Kind) -> Option<Ddl> {
    const SUBSCRIPTION: &str = "a subscription of the other server would receive the same changes again";
    let (tag, reason, in_transaction_block_allowed) = match statement {
        Kind::CreateSubscriptionStmt(create) => {
            let makes_slot = !has_option(&create.options, "create_slot") && !has_option(&create.options, "connect")
                || is_on(&create.options, "create_slot");
            ("CREATE SUBSCRIPTION", SUBSCRIPTION, !makes_slot)
        }
        Kind::AlterSubscriptionStmt(alter) => {
            // REFRESH can't run in a block, nor can what refreshes by itself, nor what changes the slot
            let changes_slot = ["failover", "two_phase"].iter().any(|option| has_option(&alter.options, option));
            let refreshes = !matches!(
                AlterSubscriptionType::try_from(alter.kind),
                Ok(AlterSubscriptionType::AlterSubscriptionOptions
                    | AlterSubscriptionType::AlterSubscriptionConnection
                    | AlterSubscriptionType::AlterSubscriptionEnabled
                    | AlterSubscriptionType::AlterSubscriptionSkip)
            );
            ("ALTER SUBSCRIPTION", SUBSCRIPTION, !refreshes && !changes_slot)
        }
        Kind::DropSubscriptionStmt(_) => ("DROP SUBSCRIPTION", SUBSCRIPTION, false),
        Kind::ImportForeignSchemaStmt(_) => {
            ("IMPORT FOREIGN SCHEMA", "what it defines depends on the remote server at that moment", true)
        }
        Kind::DropOwnedStmt(_) => ("DROP OWNED", "what it drops depends on the owners there", true),
        Kind::ReassignOwnedStmt(_) => ("REASSIGN OWNED", "what it changes depends on the owners there", true),
        _ => return None,
    };
    let cluster_wide = matches!(statement, Kind::DropOwnedStmt(_) | Kind::ReassignOwnedStmt(_));
    Some(Ddl { opaque: Some(reason), in_transaction_block_allowed, cluster_wide, ..ddl(tag, Vec::new()) })
}

/// Everything else that the same text repeats.
fn plain_tag(statement: &Kind) -> Option<&'static str> {
    Some(match statement {
        Kind::AlterCollationStmt(_) => "ALTER COLLATION",
        Kind::AlterDefaultPrivilegesStmt(_) => "ALTER DEFAULT PRIVILEGES",
        Kind::AlterDomainStmt(_) => "ALTER DOMAIN",
        Kind::AlterEnumStmt(alter) if alter.old_val.is_empty() => "ALTER TYPE ADD VALUE",
        Kind::AlterEnumStmt(_) | Kind::AlterTypeStmt(_) => "ALTER TYPE",
        Kind::AlterEventTrigStmt(_) => "ALTER EVENT TRIGGER",
        Kind::AlterExtensionStmt(_) | Kind::AlterExtensionContentsStmt(_) => "ALTER EXTENSION",
        Kind::AlterFdwStmt(_) => "ALTER FOREIGN DATA WRAPPER",
        Kind::AlterForeignServerStmt(_) => "ALTER SERVER",
        Kind::AlterOpFamilyStmt(_) => "ALTER OPERATOR FAMILY",
        Kind::AlterOperatorStmt(_) => "ALTER OPERATOR",
        Kind::AlterPublicationStmt(_) => "ALTER PUBLICATION",
        Kind::AlterStatsStmt(_) => "ALTER STATISTICS",
        Kind::AlterTsconfigurationStmt(_) => "ALTER TEXT SEARCH CONFIGURATION",
        Kind::AlterTsdictionaryStmt(_) => "ALTER TEXT SEARCH DICTIONARY",
        Kind::AlterUserMappingStmt(_) => "ALTER USER MAPPING",
        Kind::CompositeTypeStmt(_) | Kind::CreateEnumStmt(_) | Kind::CreateRangeStmt(_) => "CREATE TYPE",
        Kind::CreateAmStmt(_) => "CREATE ACCESS METHOD",
        Kind::CreateCastStmt(_) => "CREATE CAST",
        Kind::CreateConversionStmt(_) => "CREATE CONVERSION",
        Kind::CreateDomainStmt(_) => "CREATE DOMAIN",
        Kind::CreateEventTrigStmt(_) => "CREATE EVENT TRIGGER",
        Kind::CreateExtensionStmt(_) => "CREATE EXTENSION",
        Kind::CreateFdwStmt(_) => "CREATE FOREIGN DATA WRAPPER",
        Kind::CreateForeignServerStmt(_) => "CREATE SERVER",
        Kind::CreateOpClassStmt(_) => "CREATE OPERATOR CLASS",
        Kind::CreateOpFamilyStmt(_) => "CREATE OPERATOR FAMILY",
        Kind::CreatePlangStmt(_) => "CREATE LANGUAGE",
        Kind::CreatePublicationStmt(_) => "CREATE PUBLICATION",
        Kind::CreateTransformStmt(_) => "CREATE TRANSFORM",
        Kind::CreateUserMappingStmt(_) => "CREATE USER MAPPING",
        Kind::DropUserMappingStmt(_) => "DROP USER MAPPING",
        _ => return None,
    })
}
