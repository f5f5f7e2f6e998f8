//! Newtypes for every identifier that crosses a crate boundary.
//!
//! Random 128-bit ids are written as 32 lower-case hex digits everywhere: in JSON, on the command line and in logs.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: expected {expected}")]
pub struct InvalidId {
    /// The kind of id that was expected, with its article.
    pub what: &'static str,
    /// The form such an id has.
    pub expected: &'static str,
    /// The offending text, shortened.
    pub text: String,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, expected: &'static str, text: &str) -> Self {
        Self { what, expected, text: text.chars().take(80).collect() }
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        random_id!($(#[$doc])* $name, $what, "32 hex digits", |_| true);
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $is_one:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id's bytes, as they stand on disk.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; 16];
                let is_one: fn(&[u8; 16]) -> bool = $is_one;
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if is_one(&bytes) => Ok(Self(bytes)),
                    _ => Err(InvalidId::new($what, $expected, text)),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

random_id!(
    /// One volume manager's domain. Stands in disk, volume and URL formats.
    CellId,
    "a cell id",
    "32 hex digits, not all of them 0",
    |bytes| *bytes != [0; 16]
);
random_id!(
    /// A disk, named at format time and never again.
    DiskId,
    "a disk id"
);
random_id!(
    /// A volume. Its first four bytes carry the catalog generation, so that a restored catalog never issues an id twice.
    VolumeId,
    "a volume id"
);
random_id!(
    /// One start of a process. Leases and data keys belong to an instance, not to a host.
    InstanceId,
    "an instance id"
);
random_id!(
    /// A data key in the keyring.
    KeyId,
    "a key id"
);
random_id!(
    /// A person's account.
    AccountId,
    "an account id"
);

impl VolumeId {
    /// Builds an id from a catalog generation and twelve random bytes.
    pub fn from_parts(generation: u32, random: [u8; 12]) -> Self {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&generation.to_be_bytes());
        bytes[4..].copy_from_slice(&random);
        Self(bytes)
    }

    /// The catalog generation that issued this id.
    pub fn generation(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// The generation of a volume's writer. It fences writers, nothing else.
    WriteEpoch
);
number_id!(
    /// A device (one linked client or one access token). Never reused.
    DeviceId
);

impl WriteEpoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A node's name, as the operator gave it (`node-1`). Unique in a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{CellId, DiskId, VolumeId};

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = DiskId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn a_text_that_is_no_id_is_named_in_the_error() {
        let error = "xyz".parse::<DiskId>().unwrap_err();
        assert_eq!(error.to_string(), "\"xyz\" is not a disk id: expected 32 hex digits");
    }

    #[test]
    fn a_cell_is_never_called_by_zeros_alone() {
        let zeros = DiskId::default().to_string();
        assert!(zeros.parse::<DiskId>().is_ok());
        let error = zeros.parse::<CellId>().unwrap_err().to_string();
        assert!(error.contains("is not a cell id: expected 32 hex digits, not all of them 0"), "{error}");
    }

    #[test]
    fn a_volume_id_carries_its_catalog_generation() {
        assert_eq!(VolumeId::from_parts(7, [1; 12]).generation(), 7);
    }
}
