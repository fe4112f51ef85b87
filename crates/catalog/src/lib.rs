//! What a database says of itself: tables, keys, triggers, functions, rights.
//!
//! A statement's tables are resolved **inside the client's own session** by a probe ([`probe`]), since only there do
//! `search_path`, role, temporary objects and uncommitted DDL mean what they mean to the statement. What a probe found is
//! cached ([`Catalog`]) by who asked (role and effective schemas) and by catalog epoch, which every DDL raises.
//!
//! **Invariants.** A cached table is used only by sessions with the same role and effective schemas, none of them
//! temporary, and only within one catalog epoch. Every name in a query of ours is qualified, operators included.
//!
//! **It is not** a session: it sends nothing itself but the list of functions ([`Functions::load`]), on a connection of pgshadow's own.
#![warn(missing_docs)]

mod cache;
mod functions;
pub mod probe;
mod redefined;
mod seen;
mod table;

pub use cache::Catalog;
pub use functions::{FunctionNature, Functions, block_may_commit, block_may_define};
pub use probe::{AskedFor, Found, Identity, Probed};
pub use redefined::Redefined;
pub use seen::Seen;
pub use table::{Default, Routing, Table};
