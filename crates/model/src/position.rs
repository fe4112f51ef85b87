use serde::{Deserialize, Serialize};
use std::fmt;

/// A WAL position (`pg_lsn`), bytes since the start of the log. Used as an order token: an order, not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not two hexadecimal numbers with a slash between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position: {0:?}")]
pub struct ParseLsnError(pub String);

impl std::str::FromStr for Lsn {
    type Err = ParseLsnError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseLsnError(s.to_owned());
        let (high, low) = s.split_once('/').ok_or_else(wrong)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| wrong())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| wrong())?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// A full transaction id (`xid8`): epoch and 32-bit xid, never reused in one life of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xid(pub u64);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a record in the mirror log, from 1, without gaps. An intent's sequence names its transaction.
pub type Sequence = u64;

/// One life of a primary: xids and LSNs of different epochs are never compared. A counter, raised by one whenever
/// the fingerprint (system identifier, timeline, postmaster start, pids of the auxiliary processes) changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Epoch(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_it_prints() {
        let lsn = Lsn(0x15_C1DD_78AA);
        assert_eq!(lsn.to_string(), "15/C1DD78AA");
        assert_eq!("15/C1DD78AA".parse(), Ok(lsn));
        assert!("15".parse::<Lsn>().is_err());
        assert!("1/123456789".parse::<Lsn>().is_err());
    }
}
