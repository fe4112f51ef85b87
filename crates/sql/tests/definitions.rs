//! Changes of definitions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use pgshadow_sql::{Ddl, StatementKind as Kind, parse};

fn ddl(text: &str) -> Ddl {
    let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match parsed.statements[0].kind.clone() {
        Kind::Ddl(ddl) => ddl,
        other => panic!("{text}: {other:?}"),
    }
}

fn tables(ddl: &Ddl) -> Vec<String> {
    let show = |schema: &Option<String>, name: &str| match schema {
        Some(schema) => format!("{schema}.{name}"),
        None => name.to_owned(),
    };
    ddl.tables.iter().map(|table| show(&table.schema, &table.name)).collect()
}

/// Text, tag, tables.
const DEFINITIONS: [(&str, &str, &[&str]); 63] = [
    ("create table s.t (a int)", "CREATE TABLE", &["s.t"]),
    ("create table t (a int references p) inherits (q)", "CREATE TABLE", &["t", "p", "q"]),
    ("create table t partition of p for values in (1)", "CREATE TABLE", &["t", "p"]),
    ("create table t (like o)", "CREATE TABLE", &["t", "o"]),
    ("create table t as select * from o", "CREATE TABLE AS", &["t"]),
    ("create table t as execute p", "CREATE TABLE AS", &["t"]),
    ("create materialized view v as select * from o", "CREATE MATERIALIZED VIEW", &["v"]),
    ("refresh materialized view concurrently v", "REFRESH MATERIALIZED VIEW", &["v"]),
    ("create view v as select * from o", "CREATE VIEW", &["v"]),
    ("create foreign table f (a int) server x", "CREATE FOREIGN TABLE", &["f"]),
    ("create unique index i on s.t (a)", "CREATE INDEX", &["s.t"]),
    ("create sequence q", "CREATE SEQUENCE", &[]),
    ("alter sequence q restart", "ALTER SEQUENCE", &[]),
    ("create rule r as on insert to t do also delete from u", "CREATE RULE", &["t"]),
    ("create trigger g after insert on t execute function f()", "CREATE TRIGGER", &["t"]),
    ("create policy p on t using (a in (select b from u))", "CREATE POLICY", &["t"]),
    ("alter policy p on t using (true)", "ALTER POLICY", &["t"]),
    ("create statistics x on a, b from t", "CREATE STATISTICS", &["t"]),
    ("create schema s create table t (a int) create view v as select 1", "CREATE SCHEMA", &["t", "v"]),
    ("alter table only s.t drop column a", "ALTER TABLE", &["s.t"]),
    ("alter table t add foreign key (a) references p", "ALTER TABLE", &["t", "p"]),
    ("alter table t attach partition q for values in (1)", "ALTER TABLE", &["t", "q"]),
    ("alter table t inherit p", "ALTER TABLE", &["t", "p"]),
    ("alter index i set (fillfactor = 50)", "ALTER INDEX", &[]),
    ("alter view v alter a set default 1", "ALTER VIEW", &["v"]),
    ("alter table t rename to u", "ALTER TABLE", &["t", "u"]),
    ("alter table s.t rename column a to b", "ALTER TABLE", &["s.t"]),
    ("alter table t rename constraint a to b", "ALTER TABLE", &["t"]),
    ("alter index i rename to j", "ALTER INDEX", &[]),
    ("alter view v rename column a to b", "ALTER VIEW", &["v"]),
    ("alter trigger g on t rename to h", "ALTER TRIGGER", &["t"]),
    ("alter table t set schema s", "ALTER TABLE", &["t", "s.t"]),
    ("alter table t owner to r", "ALTER TABLE", &["t"]),
    ("alter function f() owner to r", "ALTER FUNCTION", &[]),
    ("alter table all in tablespace a set tablespace b", "ALTER TABLE", &[]),
    ("drop table if exists a, s.b cascade", "DROP TABLE", &["a", "s.b"]),
    ("drop view v", "DROP VIEW", &["v"]),
    ("drop materialized view v", "DROP MATERIALIZED VIEW", &["v"]),
    ("drop index i", "DROP INDEX", &[]),
    ("drop trigger g on s.t", "DROP TRIGGER", &["s.t"]),
    ("drop rule r on t", "DROP RULE", &["t"]),
    ("drop policy p on t", "DROP POLICY", &["t"]),
    ("drop schema s cascade", "DROP SCHEMA", &[]),
    ("drop function f(int)", "DROP FUNCTION", &[]),
    ("drop type y", "DROP TYPE", &[]),
    ("comment on table s.t is 'x'", "COMMENT", &["s.t"]),
    ("comment on column s.t.a is 'x'", "COMMENT", &["s.t"]),
    ("comment on function f() is 'x'", "COMMENT", &[]),
    ("security label on table t is 'x'", "SECURITY LABEL", &["t"]),
    ("grant select on t, s.u to r", "GRANT", &["t", "s.u"]),
    ("revoke all on all tables in schema s from r", "REVOKE", &[]),
    ("alter default privileges grant select on tables to r", "ALTER DEFAULT PRIVILEGES", &[]),
    ("create function f() returns int language sql as 'select 1'", "CREATE FUNCTION", &[]),
    ("create procedure f() language sql as 'select 1'", "CREATE PROCEDURE", &[]),
    ("create type y as (a int)", "CREATE TYPE", &[]),
    ("create type y as enum ('a')", "CREATE TYPE", &[]),
    ("alter type y add value 'b'", "ALTER TYPE ADD VALUE", &[]),
    ("alter type y rename value 'b' to 'c'", "ALTER TYPE", &[]),
    ("alter type y add attribute b int", "ALTER TYPE", &[]),
    ("create domain d as int", "CREATE DOMAIN", &[]),
    ("create aggregate a(int) (sfunc = f, stype = int)", "CREATE AGGREGATE", &[]),
    ("create extension x", "CREATE EXTENSION", &[]),
    ("create publication p for table t", "CREATE PUBLICATION", &[]),
];

#[test]
fn tags_and_tables() {
    for (text, tag, names) in DEFINITIONS {
        let ddl = ddl(text);
        assert_eq!(
            (ddl.tag.as_str(), tables(&ddl)),
            (tag, names.iter().map(|&name| name.to_owned()).collect()),
            "{text}"
        );
        // what EXECUTE runs may write
        assert_eq!((ddl.cluster_wide, ddl.opaque.is_some()), (false, text.contains("as execute")), "{text}");
    }
    let ddl = ddl("create table t as with gone as (delete from u returning *) select * from gone");
    assert!(ddl.opaque.is_some());
    assert_eq!(tables(&ddl), ["t", "u"]);
}

#[test]
fn cluster_wide_and_opaque() {
    for (text, tag, in_block) in [
        ("create database d", "CREATE DATABASE", false),
        ("drop database d", "DROP DATABASE", false),
        ("alter database d set x = 1", "ALTER DATABASE", true),
        ("alter database d connection limit 1", "ALTER DATABASE", true),
        ("alter database d set tablespace s", "ALTER DATABASE", false),
        ("alter database d rename to e", "ALTER DATABASE", true),
        ("alter database d owner to r", "ALTER DATABASE", true),
        ("create tablespace s location '/x'", "CREATE TABLESPACE", false),
        ("drop tablespace s", "DROP TABLESPACE", false),
        ("alter system set x = 1", "ALTER SYSTEM", false),
        ("create role r", "CREATE ROLE", true),
        ("create user r", "CREATE ROLE", true),
        ("alter role r set x = 1", "ALTER ROLE", true),
        ("alter role r rename to s", "ALTER ROLE", true),
        ("drop role r", "DROP ROLE", true),
        ("grant a to b", "GRANT ROLE", true),
        ("revoke a from b", "REVOKE ROLE", true),
        ("grant connect on database d to r", "GRANT", true),
        ("grant create on tablespace s to r", "GRANT", true),
        ("grant set on parameter p to r", "GRANT", true),
        ("comment on database d is 'x'", "COMMENT", true),
        ("comment on role r is 'x'", "COMMENT", true),
    ] {
        let ddl = ddl(text);
        assert_eq!(
            (ddl.tag.as_str(), ddl.cluster_wide, ddl.in_transaction_block_allowed),
            (tag, true, in_block),
            "{text}"
        );
    }
    for (text, in_block) in [
        ("create subscription s connection '' publication p", false),
        ("create subscription s connection '' publication p with (create_slot = false)", true),
        ("create subscription s connection '' publication p with (create_slot)", false),
        ("drop subscription s", false),
        ("alter subscription s disable", true),
        ("alter subscription s set (binary = true)", true),
        ("alter subscription s set (failover = true)", false),
        ("alter subscription s refresh publication", false),
        ("alter subscription s set publication p", false),
        ("import foreign schema a from server b into c", true),
        ("drop owned by r", true),
        ("reassign owned by a to b", true),
    ] {
        let ddl = ddl(text);
        assert!(ddl.opaque.is_some(), "{text}");
        assert_eq!(ddl.in_transaction_block_allowed, in_block, "{text}");
    }
}

#[test]
fn concurrently() {
    for (text, concurrently, in_block) in [
        ("create index concurrently i on t (a)", true, false),
        ("create index i on t (a)", false, true),
        ("drop index concurrently i", true, false),
        ("alter table t detach partition p concurrently", true, false),
        ("alter table t detach partition p", false, true),
        ("refresh materialized view concurrently v", true, true),
    ] {
        let ddl = ddl(text);
        assert_eq!((ddl.concurrently, ddl.in_transaction_block_allowed), (concurrently, in_block), "{text}");
    }
}

#[test]
fn computed_values() {
    for (text, computes) in [
        ("create table t as select 1", true),
        ("create table t as select 1 with no data", false),
        ("create materialized view v as select 1", true),
        ("create materialized view v as select 1 with no data", false),
        ("refresh materialized view v", true),
        ("refresh materialized view v with no data", false),
        ("create table t (a serial, b uuid default gen_random_uuid())", false),
        ("alter table t add a int", false),
        ("alter table t add a int default 1", false),
        ("alter table t add a int default -1", false),
        ("alter table t add a int default null", false),
        ("alter table t add a text default 'x'::text not null", false),
        ("alter table t add a timestamp default 'now'", true),
        ("alter table t add a timestamptz default now()", true),
        ("alter table t add a timestamptz default current_timestamp", true),
        ("alter table t add a int default 1 + 1", true),
        ("alter table t add a uuid default gen_random_uuid()", true),
        ("alter table t add a serial", true),
        ("alter table t add a bigserial primary key", true),
        ("alter table t add a int generated always as identity", true),
        ("alter table t add a int generated always as (b + 1) stored", false),
        ("alter table t drop column b, add column a smallserial", true),
        ("alter table t alter a type int", false),
        ("alter table t alter a type int using b + 1", true),
        ("alter table t alter a set default now()", false),
        ("alter table t alter a add generated always as identity", false),
    ] {
        assert_eq!(ddl(text).computes_values.is_some(), computes, "{text}");
    }
}

#[test]
fn rewriting() {
    for (text, rewrites) in [
        ("alter table t add a int", false),
        ("alter table t add a my_domain", true),
        ("alter table t add a int default 1", true),
        ("alter table t alter a type bigint", true),
        ("alter table t set logged", true),
        ("alter table t set unlogged", true),
        ("alter table t set access method heap2", true),
        ("alter table t drop column a", false),
        ("alter table t rename a to b", false),
        ("alter table t add primary key (a)", false),
    ] {
        assert_eq!(ddl(text).rewrites, rewrites, "{text}");
    }
}

#[test]
fn temporary_objects() {
    for (text, temporary) in [
        ("create temp table t (a int)", true),
        ("create temporary table t as select 1", true),
        ("create table pg_temp.t (a int)", true),
        ("create temp sequence q", true),
        ("create temp view v as select 1", true),
        ("create unlogged table t (a int)", false),
        ("create table t (a int)", false),
        ("drop table pg_temp.t", true),
        ("drop table pg_temp.t, u", false),
        ("alter table pg_temp.t add a int", true),
    ] {
        assert_eq!(ddl(text).temporary, temporary, "{text}");
    }
    assert!(ddl("drop table t cascade").cascade);
    assert!(ddl("alter table t drop column a cascade").cascade);
    assert!(!ddl("drop table t").cascade);
}

#[test]
fn others_by_name() {
    for (text, others) in [
        ("drop index concurrently if exists s.i", &["s.i"][..]),
        ("drop sequence i, pg_temp.j", &["i", "pg_temp.j"]),
        ("alter index i rename to j", &["i"]),
        ("alter sequence s.i owned by none", &["s.i"]),
        ("alter sequence s.i set schema t", &["s.i"]),
        ("alter sequence i owner to o", &["i"]),
        ("alter index i set (fillfactor = 70)", &["i"]),
        ("comment on sequence s.i is 'x'", &["s.i"]),
        ("grant all on sequence i, j to public", &["i", "j"]),
        (
            "create or replace view v as select * from a join s.b using (id) where x in (select y from c)",
            &["a", "s.b", "c"],
        ),
        ("create view v as with a as (select * from b) select * from a, s.a", &["s.a", "b"]),
        ("create index i on t (a)", &[]),
        ("drop table t", &[]),
        ("alter table t rename to u", &[]),
    ] {
        let found = [ddl(text).others, ddl(text).reads].concat();
        let name = |other: &pgshadow_sql::RelationName| {
            other.schema.iter().chain([&other.name]).cloned().collect::<Vec<_>>().join(".")
        };
        assert_eq!(found.iter().map(name).collect::<Vec<_>>(), others, "{text}");
    }
    assert!(ddl("drop sequence pg_temp.s").temporary);
    assert!(ddl("create sequence pg_temp.s").temporary);
    assert!(!ddl("drop sequence pg_temp.s, s").temporary);
    assert!(!ddl("create view v as select * from pg_temp.t").temporary);
}

#[test]
fn functions_and_types_by_name() {
    use pgshadow_sql::ObjectKind::{Other, Statistics, Type};
    for (text, names, kind) in [
        ("create function s.f() returns int language sql as 'select 1'", &["s.f"][..], Other),
        ("drop function pg_temp.f(int), g", &["pg_temp.f", "g"], Other),
        ("alter function s.f() stable", &["s.f"], Other),
        ("alter procedure s.f() rename to g", &["s.f"], Other),
        ("comment on aggregate s.a(int) is 'x'", &["s.a"], Other),
        ("grant execute on function s.f(), g to public", &["s.f", "g"], Other),
        ("create aggregate s.a(int) (sfunc = int4pl, stype = int)", &["s.a"], Other),
        ("create operator s.### (leftarg = int, procedure = f)", &["s.###"], Other),
        ("create type s.e as enum ('a')", &["s.e"], Type),
        ("create type e as (a int)", &["e"], Type),
        ("create type e as range (subtype = int)", &["e"], Type),
        ("create domain s.d as int", &["s.d"], Type),
        ("alter type s.e add value 'b'", &["s.e"], Type),
        ("alter type e add attribute b int", &["e"], Type),
        ("alter type e rename attribute a to b", &["e"], Type),
        ("alter type s.e rename to f", &["s.e"], Type),
        ("alter type s.e set schema t", &["s.e"], Type),
        ("alter domain d owner to o", &["d"], Type),
        ("alter domain s.d drop constraint c", &["s.d"], Type),
        ("alter domain s.d rename constraint c to e", &["s.d"], Type),
        ("drop type s.e, f", &["s.e", "f"], Type),
        ("drop domain if exists d", &["d"], Type),
        ("comment on domain s.d is 'x'", &["s.d"], Type),
        ("comment on constraint c on domain s.d is 'x'", &["s.d"], Type),
        ("grant usage on type s.e to public", &["s.e"], Type),
        ("create statistics s.st on a, b from t", &["s.st"], Other),
        ("alter statistics s.st set statistics 10", &["s.st"], Statistics),
        ("alter statistics st rename to st2", &["st"], Statistics),
        ("comment on statistics s.st is 'x'", &["s.st"], Statistics),
        ("drop statistics st, s.st", &["st", "s.st"], Statistics),
        ("drop table t", &[], Other),
        ("alter table t rename to u", &[], Other),
        ("comment on column t.a is 'x'", &[], Other),
        ("drop schema s", &[], Other),
    ] {
        let found = ddl(text);
        let name = |other: &pgshadow_sql::RelationName| {
            other.schema.iter().chain([&other.name]).cloned().collect::<Vec<_>>().join(".")
        };
        assert_eq!(found.objects.iter().map(name).collect::<Vec<_>>(), names, "{text}");
        assert_eq!(found.kind, kind, "{text}");
    }
    assert!(ddl("drop function pg_temp.f()").temporary);
    assert!(ddl("create type pg_temp.e as enum ()").temporary);
    assert!(!ddl("drop type pg_temp.e, e").temporary);
}
