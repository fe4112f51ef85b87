/// Parts of the rule left out, to see that each is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Without {
    /// Part (a).
    pub(crate) in_flight: bool,
    /// Part (b).
    pub(crate) conflicts: bool,
}
