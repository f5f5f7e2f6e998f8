//! What a cursor says. The server seals these bytes with its own key before it hands them out.
//!
//! ```text
//! version u8 (1) | scope kind u8 | account (16) | device u64 | namespace u64 | folder u64 | flags u8 | limit u32 |
//! sequence u64 | hash (32) | position kind u8 | a u64 | b u64 | key length u16 | key
//! ```
//!
//! all big-endian. `folder`, `flags` and `limit` are of API v2 and 0 elsewhere.

use holdfast_libs_types::{AccountId, DeviceId};

use crate::layout::Fields;
use crate::{EntryId, NamespaceId};

const VERSION: u8 = 1;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `/v1`: a whole namespace.
    Namespace,
    /// API v2: a folder.
    Folder {
        /// Which.
        folder: EntryId,
        /// With all below it.
        recursive: bool,
        /// With what is gone.
        include_deleted: bool,
        /// Entries a page, about.
        limit: u32,
    },
}

/// How far a listing has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Everything up to the cursor's sequence was told.
    Replay,
    /// Listing by entry id, those up to `after` were told.
    ById {
        /// The last entry told.
        after: EntryId,
    },
    /// Listing one folder by key, those up to `after` were told.
    ByKey {
        /// The last key told; none before the first page.
        after: Option<String>,
    },
    /// Everything up to the sequence was told, and of the next item, the arrival of `folder`, what is below it up
    /// to the entry `after`.
    Below {
        /// The folder that came.
        folder: EntryId,
        /// The last entry told.
        after: EntryId,
    },
}

/// A place in a namespace's history, for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whose it is.
    pub account: AccountId,
    /// It dies with this device's token.
    pub device: DeviceId,
    /// Where.
    pub namespace: NamespaceId,
    /// Of what.
    pub scope: Scope,
    /// A journal sequence: told up to it, or (while listing) where replaying will begin.
    pub sequence: u64,
    /// The hash of that journal item.
    pub hash: [u8; 32],
    /// How far.
    pub position: Position,
}

/// Bytes that are no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this server; list anew")]
pub struct CursorError;

impl Cursor {
    /// The cursor's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, folder, flags, limit) = match self.scope {
            Scope::Namespace => (1, 0, 0, 0),
            Scope::Folder { folder, recursive, include_deleted, limit } => {
                (2, folder.0, u8::from(recursive) | u8::from(include_deleted) << 1, limit)
            }
        };
        let (position, a, b, key) = match &self.position {
            Position::Replay => (1_u8, 0, 0, ""),
            Position::ById { after } => (2, after.0, 0, ""),
            Position::ByKey { after: None } => (3, 0, 0, ""),
            Position::ByKey { after: Some(key) } => (3, 1, 0, key.as_str()),
            Position::Below { folder, after } => (4, folder.0, after.0, ""),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(self.account.as_bytes());
        for number in [self.device.0, self.namespace.0, folder] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.push(flags);
        bytes.extend_from_slice(&limit.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.hash);
        bytes.push(position);
        bytes.extend_from_slice(&a.to_be_bytes());
        bytes.extend_from_slice(&b.to_be_bytes());
        // A key is no longer than three times a name, which has at most 255 bytes.
        bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes
    }

    /// Reads a cursor's bytes, whose seal the caller has checked.
    ///
    /// # Errors
    /// [`CursorError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CursorError> {
        Self::read(bytes).ok_or(CursorError)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u8()? != VERSION {
            return None;
        }
        let kind = fields.u8()?;
        let account = AccountId(fields.array()?);
        let device = DeviceId(fields.u64()?);
        let namespace = NamespaceId(fields.u64()?);
        let folder = EntryId(fields.u64()?);
        let flags = fields.u8()?;
        let limit = fields.u32()?;
        let scope = match kind {
            1 => Scope::Namespace,
            2 => Scope::Folder { folder, recursive: flags & 1 != 0, include_deleted: flags & 2 != 0, limit },
            _ => return None,
        };
        let sequence = fields.u64()?;
        let hash = fields.array()?;
        let (position, a, b) = (fields.u8()?, fields.u64()?, fields.u64()?);
        let length = fields.u16()?;
        let key = std::str::from_utf8(fields.take(usize::from(length))?).ok()?;
        let position = match position {
            1 => Position::Replay,
            2 => Position::ById { after: EntryId(a) },
            3 => Position::ByKey { after: (a == 1).then(|| key.to_owned()) },
            4 => Position::Below { folder: EntryId(a), after: EntryId(b) },
            _ => return None,
        };
        fields.0.is_empty().then_some(Self { account, device, namespace, scope, sequence, hash, position })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{AccountId, DeviceId};
    use proptest::prelude::{any, prop, proptest};

    use super::{Cursor, CursorError, Position, Scope};
    use crate::{EntryId, NamespaceId};

    fn cursor(scope: Scope, position: Position) -> Cursor {
        Cursor {
            account: AccountId([1; 16]),
            device: DeviceId(2),
            namespace: NamespaceId(3),
            scope,
            sequence: 4,
            hash: [5; 32],
            position,
        }
    }

    #[test]
    fn golden_bytes_of_a_cursor() {
        let scope = Scope::Folder { folder: EntryId(6), recursive: true, include_deleted: true, limit: 7 };
        let golden = format!(
            "0102{}{}03000000070000000000000004{}03{}000161",
            "01".repeat(16),
            "000000000000000200000000000000030000000000000006",
            "05".repeat(32),
            "00000000000000010000000000000000"
        );
        assert_eq!(hex::encode(cursor(scope, Position::ByKey { after: Some("a".to_owned()) }).encode()), golden);
    }

    #[test]
    fn every_cursor_reads_back_and_a_cut_or_longer_one_does_not() {
        let folder = Scope::Folder { folder: EntryId(6), recursive: false, include_deleted: true, limit: 7 };
        for scope in [Scope::Namespace, folder] {
            for position in [
                Position::Replay,
                Position::ById { after: EntryId(9) },
                Position::ByKey { after: None },
                Position::ByKey { after: Some("ä".to_owned()) },
                Position::Below { folder: EntryId(1), after: EntryId(2) },
            ] {
                let cursor = cursor(scope, position);
                let mut bytes = cursor.encode();
                assert_eq!(Cursor::decode(&bytes), Ok(cursor));
                assert_eq!(Cursor::decode(&bytes[..bytes.len() - 1]), Err(CursorError));
                bytes.push(0);
                assert_eq!(Cursor::decode(&bytes), Err(CursorError));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Cursor::decode(&bytes);
        }
    }
}
