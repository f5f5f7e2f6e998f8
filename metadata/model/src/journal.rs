//! Items of a namespace's journal, each of which seals all before it.
//!
//! `hash = SHA-256(hash of the item before | item)`. The first item follows a random value made with the namespace.
//! An item is laid out as
//!
//! ```text
//! sequence u64 | entry u64 | revision u64 | device u64 | kind u8 | server time i64, Unix milliseconds |
//! from parent u64 | from name length u16 | from name | state digest (32)
//! ```
//!
//! all big-endian. `from` is where the entry stood before a move, otherwise 0 and empty. The state digest is SHA-256 over
//! parent u64 | name length u16 | name | the revision's content: two histories that gave out the same numbers
//! (one was restored from a copy of the other) still have different hashes.

use holdfast_libs_types::DeviceId;
use sha2::{Digest, Sha256};

use crate::{Content, EntryId, Rev};

/// What happened to the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A new revision; it may have made or revived the entry.
    Put,
    /// A folder was made or revived.
    Folder,
    /// It has another place; the item says where it was.
    Move,
    /// It is gone.
    Delete,
}

impl ChangeKind {
    /// The stored number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Folder => 2,
            Self::Move => 3,
            Self::Delete => 4,
        }
    }

    /// Reads the stored number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Put),
            2 => Some(Self::Folder),
            3 => Some(Self::Move),
            4 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Where an entry stood before it was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The folder it was in.
    pub parent: EntryId,
    /// Its name there.
    pub name: String,
}

/// One change of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalItem {
    /// Its number; the first is 1.
    pub sequence: u64,
    /// The entry that changed.
    pub entry: EntryId,
    /// The entry's revision after the change.
    pub revision: Rev,
    /// Who did it.
    pub device: DeviceId,
    /// What happened.
    pub kind: ChangeKind,
    /// When the server took it, Unix milliseconds.
    pub at_ms: i64,
    /// For a move.
    pub from: Option<Origin>,
}

impl JournalItem {
    /// The item's bytes; `state` is [`Self::state_digest`].
    pub fn encode(&self, state: &[u8; 32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        for number in [self.sequence, self.entry.0, self.revision.0, self.device.0] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.push(self.kind.number());
        bytes.extend_from_slice(&self.at_ms.to_be_bytes());
        let (parent, name) = self.from.as_ref().map_or((0, ""), |from| (from.parent.0, from.name.as_str()));
        push_place(&mut bytes, parent, name);
        bytes.extend_from_slice(state);
        bytes
    }

    /// What the entry is after the change.
    pub fn state_digest(parent: EntryId, name: &str, content: &Content) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut place = Vec::with_capacity(10 + name.len());
        push_place(&mut place, parent.0, name);
        digest.update(&place);
        content.digest_into(&mut digest);
        digest.finalize().into()
    }

    /// The item's hash in the chain.
    pub fn chain(&self, previous: &[u8; 32], state: &[u8; 32]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(previous);
        digest.update(self.encode(state));
        digest.finalize().into()
    }
}

fn push_place(bytes: &mut Vec<u8>, parent: u64, name: &str) {
    bytes.extend_from_slice(&parent.to_be_bytes());
    // Names have at most 255 bytes.
    bytes.extend_from_slice(&(name.len() as u16).to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::DeviceId;

    use super::{ChangeKind, JournalItem, Origin};
    use crate::{Content, EntryId, Rev, Timestamp};

    fn item() -> JournalItem {
        JournalItem {
            sequence: 1,
            entry: EntryId(2),
            revision: Rev(3),
            device: DeviceId(4),
            kind: ChangeKind::Move,
            at_ms: 5,
            from: Some(Origin { parent: EntryId(6), name: "ab".to_owned() }),
        }
    }

    #[test]
    fn golden_bytes_of_an_item_and_its_hash() {
        let golden = concat!(
            "0000000000000001000000000000000200000000000000030000000000000004",
            "030000000000000005",
            "000000000000000600026162",
            "0909090909090909090909090909090909090909090909090909090909090909"
        );
        assert_eq!(hex::encode(item().encode(&[9; 32])), golden);
        let chained = hex::encode(item().chain(&[0; 32], &[9; 32]));
        assert_eq!(chained, "fbcf9d7604d0411c8c55ff06dccd545b50c59ee2d7b4940dea5f53439962f11d");
    }

    #[test]
    fn another_past_or_another_content_gives_another_hash() {
        let content = |secs| Content::symlink("t".to_owned(), Timestamp { secs, nanos: 0 }).unwrap();
        let state = JournalItem::state_digest(EntryId(0), "a", &content(1));
        assert_ne!(state, JournalItem::state_digest(EntryId(0), "a", &content(2)));
        assert_ne!(state, JournalItem::state_digest(EntryId(1), "a", &content(1)));
        assert_ne!(item().chain(&[0; 32], &state), item().chain(&[1; 32], &state));
    }
}
