use pgshadow_model::Kind;

/// Declares a closed list of label values: the enum, `ALL` in order of declaration, and each one's word.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in metrics and JSON.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

label! {
    /// What a client's statement is, as far as mirroring cares.
    StatementClass {
        /// Reads only.
        Read => "read",
        /// INSERT.
        Insert => "insert",
        /// UPDATE.
        Update => "update",
        /// DELETE.
        Delete => "delete",
        /// MERGE.
        Merge => "merge",
        /// COPY in either direction.
        Copy => "copy",
        /// TRUNCATE.
        Truncate => "truncate",
        /// Changes the schema.
        Ddl => "ddl",
        /// BEGIN, COMMIT, ROLLBACK, savepoints, prepared transactions.
        Transaction => "transaction",
        /// SET, RESET, DISCARD, LISTEN and what else belongs to the session.
        Session => "session",
        /// Anything else, or not understood.
        Other => "other",
    }
}

label! {
    /// Which way bytes go through the relay.
    Direction {
        /// From the client to the primary.
        ToPrimary => "to_primary",
        /// From the primary to the client.
        ToClient => "to_client",
    }
}

label! {
    /// Where an error of pgshadow's own happened.
    Room {
        /// Listener, handshake, sessions, relay.
        Proxy => "proxy",
        /// Watching sessions.
        Capture => "capture",
        /// Reading the catalogs.
        Catalog => "catalog",
        /// The mirror log.
        MirrorLog => "mirror_log",
        /// Writing to the shadow.
        Apply => "apply",
        /// Comparing and healing.
        Compare => "compare",
        /// The store of findings.
        Divergence => "divergence",
        /// Admin's own server.
        Admin => "admin",
    }
}

/// Every kind of finding, in the order of the model's declaration.
pub(crate) const FINDING_KINDS: &[Kind] = &[
    Kind::MissingRow,
    Kind::ExtraRow,
    Kind::Value,
    Kind::RowCount,
    Kind::ErrorShadowOnly,
    Kind::ErrorPrimaryOnly,
    Kind::ErrorDiffers,
    Kind::ResultRows,
    Kind::Latency,
    Kind::Schema,
    Kind::Statement,
];

/// The word of a kind: the one that JSON has (a test holds them together).
pub(crate) const fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::MissingRow => "missing_row",
        Kind::ExtraRow => "extra_row",
        Kind::Value => "value",
        Kind::RowCount => "row_count",
        Kind::ErrorShadowOnly => "error_shadow_only",
        Kind::ErrorPrimaryOnly => "error_primary_only",
        Kind::ErrorDiffers => "error_differs",
        Kind::ResultRows => "result_rows",
        Kind::Latency => "latency",
        Kind::Statement => "statement",
        Kind::Schema => "schema",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_words_of_the_json_and_their_declared_position() {
        for (position, kind) in FINDING_KINDS.iter().enumerate() {
            let json = serde_json::to_string(kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind_word(*kind)));
            assert_eq!(*kind as usize, position);
        }
    }

    #[test]
    fn label_values_stand_at_their_position() {
        for (position, class) in StatementClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, position);
        }
    }
}
