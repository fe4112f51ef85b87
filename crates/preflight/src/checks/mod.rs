//! One check, one file. Their order is that in which what they find is best mended.
mod activity;
mod clients;
mod collations;
mod columns;
mod connections;
mod constraints;
mod disk;
mod encoding;
mod extensions;
mod foreign;
mod foreign_key_indexes;
mod functions;
mod indexes;
mod invalid_indexes;
mod jobs;
mod large_objects;
mod not_valid;
mod others;
mod own_rights;
mod owners;
mod policies;
mod prepared;
mod privileges;
mod rehearsal;
mod replication;
mod roles;
mod rules;
mod scans;
mod schemas;
mod sequences;
mod settings;
mod superusers;
mod tables;
mod timeouts;
mod triggers;
mod types;
mod unkeyed;
mod unlogged;
mod versions;
mod views;

use crate::error::Error;
use crate::finding::Finding;
use crate::pair::Pair;
use futures::FutureExt;
use futures::future::BoxFuture;

/// What a check gives.
pub(crate) type Found = Result<Vec<Finding>, Error>;

/// One check, ready to look.
pub(crate) struct Check<'p> {
    pub(crate) name: &'static str,
    /// It compares definitions: an empty target has none.
    pub(crate) compares: bool,
    /// It may find what is in a load's way.
    pub(crate) before_load: bool,
    pub(crate) look: BoxFuture<'p, Found>,
}

/// All checks.
pub(crate) fn all<'p>(pair: &'p Pair<'_>) -> Vec<Check<'p>> {
    let check = |name, look| Check { name, compares: false, before_load: false, look };
    let load = |name, look| Check { name, compares: false, before_load: true, look };
    let comparison = |name, look| Check { name, compares: true, before_load: false, look };
    vec![
        load("versions", versions::look(pair).boxed()),
        load("encoding", encoding::look(pair).boxed()),
        check("collations", collations::look(pair).boxed()),
        check("roles", roles::look(pair).boxed()),
        load("extensions", extensions::look(pair).boxed()),
        check("empty-target", tables::look_for_any(pair).boxed()),
        comparison("schemas", schemas::look(pair).boxed()),
        comparison("types", types::look(pair).boxed()),
        comparison("type-oids", types::look_at_oids(pair).boxed()),
        comparison("sequences", sequences::look(pair).boxed()),
        comparison("functions", functions::look(pair).boxed()),
        comparison("tables", tables::look(pair).boxed()),
        comparison("columns", columns::look(pair).boxed()),
        comparison("constraints", constraints::look(pair).boxed()),
        comparison("indexes", indexes::look(pair).boxed()),
        comparison("views", views::look(pair).boxed()),
        comparison("triggers", triggers::look(pair).boxed()),
        comparison("rules", rules::look(pair).boxed()),
        comparison("policies", policies::look(pair).boxed()),
        comparison("other-objects", others::look(pair).boxed()),
        comparison("foreign-tables", foreign::look(pair).boxed()),
        comparison("owners", owners::look(pair).boxed()),
        comparison("grants", privileges::look(pair).boxed()),
        check("settings", settings::look(pair).boxed()),
        check("timeouts", timeouts::look(pair).boxed()),
        check("unkeyed-tables", unkeyed::look(pair).boxed()),
        check("unlogged-tables", unlogged::look(pair).boxed()),
        check("large-objects", large_objects::look(pair).boxed()),
        check("invalid-indexes", invalid_indexes::look(pair).boxed()),
        check("not-valid-constraints", not_valid::look(pair).boxed()),
        check("foreign-key-indexes", foreign_key_indexes::look(pair).boxed()),
        check("sequential-scans", scans::look(pair).boxed()),
        check("prepared-transactions", prepared::look(pair).boxed()),
        check("long-transactions", activity::look(pair).boxed()),
        check("connections", connections::look(pair).boxed()),
        check("direct-clients", clients::look(pair).boxed()),
        check("superusers", superusers::look(pair).boxed()),
        check("replication", replication::look(pair).boxed()),
        check("jobs", jobs::look(pair).boxed()),
        check("disk", disk::look(pair).boxed()),
        load("own-rights", own_rights::look(pair).boxed()),
        check("rehearsal", rehearsal::look(pair).boxed()),
    ]
}
