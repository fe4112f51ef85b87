//! What a query text says, and how to ask it for the rows that it writes.
//!
//! From a query string (of a simple Query or a Parse message) to its [`Statement`]s: where each stands, what kind it is, which
//! tables and columns it names, which functions it calls; and from one of them to a text that does the same and returns one
//! more column ([`with_returning`]) with the transaction id, the order token and the written row. [`Rewrites`] leads error
//! positions back. This is the only crate that knows the SQL parser.
//!
//! # Invariants
//! - Nothing is guessed: a rewritten text is parsed again and must differ by exactly the added list element, else there is none.
//! - What a text calls or writes is found by a walk over *every* node of its tree, not over a list of known places.
//! - A text can be rejected ([`ParseError`]), but none, however deep, brings the process down.
//! - Pure and synchronous. A new text costs tens of microseconds, and a deep one a thread of its own for the stack: cache.
//!
//! # What it is not
//! It has no catalog. Whether a name is a table or a view, a function writes, a column exists, a role may read it, or a
//! trigger does more is for the caller to know. Operators, casts and `t.f` for `f(t)` can call functions that no text shows.
//! The grammar is that of PostgreSQL 18 with `standard_conforming_strings = on` (see [`depends_on_string_setting`]).

mod classify;
mod ddl;
mod error;
mod exposed;
mod fingerprint;
mod keyword;
mod locking;
mod nodes;
mod parameters;
mod parse;
mod position;
mod returning;
mod script;
mod stack;
mod statement;
mod strings;
mod summary;
mod table_lock;
mod tokens;
mod values;
mod view;
mod visit;
mod write;

pub use ddl::{Ddl, ObjectKind};
pub use error::ParseError;
pub use fingerprint::fingerprint;
pub use keyword::{Keyword, first_keyword};
pub use locking::{LockAhead, LockStrength, LookBehind, lock_ahead};
pub use parameters::highest_parameter;
pub use parse::{depends_on_string_setting, masked, parse};
pub use position::Rewrites;
pub use returning::{Copied, Dialect, Image, ReturningForm, Rewrite, column, parameter_text, with_returning};
pub use script::statements;
pub use statement::{CopyCommand, Discard, FunctionName, Parsed, SetKind, Statement, StatementKind};
pub use strings::without_escapes;
pub use table_lock::{LockMode, LongWork, TableLock};
pub use values::values;
pub use view::{ViewSource, view_source};
pub use write::{Fixed, OnConflict, RelationName, Returned, Write};
