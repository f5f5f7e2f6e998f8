//! Numbers that name namespaces, entries and revisions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A namespace: a tree with one order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespaceId(pub u64);

/// An entry. Never reused. Entry 0 stands for the root folder of each namespace and has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub u64);

impl EntryId {
    /// The root folder of every namespace.
    pub const ROOT: Self = Self(0);
}

/// A revision of an entry, written as at least nine hex digits (API v2 wants `[0-9a-f]{9,}`). Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rev(pub u64);

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09x}", self.0)
    }
}

/// A text that is no revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a revision: expected at least nine lower-case hex digits")]
pub struct InvalidRev;

impl FromStr for Rev {
    type Err = InvalidRev;

    fn from_str(text: &str) -> Result<Self, InvalidRev> {
        if text.len() < 9 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidRev);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidRev)
    }
}

#[cfg(test)]
mod tests {
    use super::Rev;

    #[test]
    fn a_revision_has_at_least_nine_hex_digits_and_reads_back() {
        assert_eq!(Rev(1).to_string(), "000000001");
        assert_eq!(Rev(u64::MAX).to_string(), "ffffffffffffffff");
        assert_eq!("00000001f".parse(), Ok(Rev(31)));
        for bad in ["", "12345678", "00000001F", "00000001g", "+00000001", "11111111111111111"] {
            assert!(bad.parse::<Rev>().is_err(), "{bad}");
        }
    }
}
