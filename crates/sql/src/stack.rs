//! Enough stack for deep trees: decoding, walking, comparing and dropping them all recurse.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::ParseError;

/// Up to this many nested tokens the caller's own stack serves: each takes up to 5 KiB.
const SHALLOW: usize = 100;
/// The stack for the rest: reserved address space, touched only as far as it is used. The parser refuses trees of more
/// than 10 000 messages in depth; these were seen to need 32 MiB in an unoptimised build.
const DEEP_STACK: usize = 128 << 20;

/// Runs `work` where a tree of `depth` nested tokens fits. A panic in the parser crate becomes an error.
pub(crate) fn with_room<T: Send>(
    depth: usize,
    work: impl FnOnce() -> Result<T, ParseError> + Send,
) -> Result<T, ParseError> {
    let guarded = || catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()));
    if depth <= SHALLOW {
        return guarded();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("pgshadow-parse".into())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, guarded)
            .map_err(|error| ParseError::TooDeep(format!("no stack for it: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(panicked()))
    })
}

fn panicked() -> ParseError {
    ParseError::Internal("the parser panicked".into())
}
