//! What a revision holds.

use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::Fields;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bytes, as a list of blocks.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, kept as a link.
    Symlink,
}

impl Kind {
    /// The stored number.
    pub const fn number(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Folder => 2,
            Self::Symlink => 3,
        }
    }

    /// Reads the stored number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::File),
            2 => Some(Self::Folder),
            3 => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// A moment to the nanosecond; seconds may be negative (before 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Unix seconds, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// A block of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its name.
    pub hash: BlockHash,
    /// Its length in bytes.
    pub length: u32,
}

const BLOCK_REF_BYTES: usize = 36;

/// Longest target of a link, in bytes: Linux's PATH_MAX without its NUL.
const MAX_TARGET_BYTES: usize = 4095;

/// What an entry holds at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What it is.
    pub kind: Kind,
    /// Bytes of a file; 0 for others.
    pub size: u64,
    /// Blocks of a file, in order.
    pub blocks: Vec<BlockRef>,
    /// Modification time of a file or link.
    pub mtime: Option<Timestamp>,
    /// The owner's executable bit of a file.
    pub executable: bool,
    /// Where a link points.
    pub target: Option<String>,
}

/// Content that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A block over 4 MiB, an empty one, or a short one that is not the last.
    #[error("block {index} has {length} bytes; every block but the last has 4194304, the last 1 to 4194304")]
    Block {
        /// Which, from 0.
        index: usize,
        /// What it says.
        length: u32,
    },
    /// The blocks do not add up to the size.
    #[error("the blocks hold {sum} bytes, but the size says {size}")]
    Size {
        /// Bytes of all blocks.
        sum: u64,
        /// The size given.
        size: u64,
    },
    /// Nanoseconds out of range.
    #[error("{0} nanoseconds are a second or more")]
    Nanos(u32),
    /// A link to nothing, or too long a one.
    #[error("a link's target has 1 to 4095 bytes and no NUL")]
    Target,
    /// Stored bytes that are no list of blocks.
    #[error("the stored list of blocks is damaged")]
    Damaged,
}

impl Content {
    /// A file.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub fn file(size: u64, blocks: Vec<BlockRef>, mtime: Timestamp, executable: bool) -> Result<Self, ContentError> {
        let mut sum = 0;
        for (index, block) in blocks.iter().enumerate() {
            let length = block.length as usize;
            let last = index + 1 == blocks.len();
            if length == 0 || length > MAX_BLOCK_BYTES || (!last && length != MAX_BLOCK_BYTES) {
                return Err(ContentError::Block { index, length: block.length });
            }
            sum += u64::from(block.length);
        }
        if sum != size {
            return Err(ContentError::Size { sum, size });
        }
        check_nanos(mtime)?;
        Ok(Self { kind: Kind::File, size, blocks, mtime: Some(mtime), executable, target: None })
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// `Target`, `Nanos`.
    pub fn symlink(target: String, mtime: Timestamp) -> Result<Self, ContentError> {
        check_nanos(mtime)?;
        if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains('\0') {
            return Err(ContentError::Target);
        }
        Ok(Self {
            kind: Kind::Symlink,
            size: 0,
            blocks: Vec::new(),
            mtime: Some(mtime),
            executable: false,
            target: Some(target),
        })
    }

    /// A folder.
    pub const fn folder() -> Self {
        Self { kind: Kind::Folder, size: 0, blocks: Vec::new(), mtime: None, executable: false, target: None }
    }

    /// Whether both hold the same, attributes aside.
    pub fn same_content(&self, other: &Self) -> bool {
        self.kind == other.kind && self.blocks == other.blocks && self.target == other.target
    }

    /// The blocks' stored form: hash (32) | length u32 big-endian, back to back.
    pub fn encode_blocks(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.blocks.len() * BLOCK_REF_BYTES);
        for block in &self.blocks {
            bytes.extend_from_slice(block.hash.as_bytes());
            bytes.extend_from_slice(&block.length.to_be_bytes());
        }
        bytes
    }

    /// Reads the blocks' stored form.
    ///
    /// # Errors
    /// [`ContentError::Damaged`].
    pub fn decode_blocks(bytes: &[u8]) -> Result<Vec<BlockRef>, ContentError> {
        let mut fields = Fields(bytes);
        let mut blocks = Vec::with_capacity(bytes.len() / BLOCK_REF_BYTES);
        while !fields.0.is_empty() {
            let (Some(hash), Some(length)) = (fields.array(), fields.u32()) else { return Err(ContentError::Damaged) };
            blocks.push(BlockRef { hash: BlockHash(hash), length });
        }
        Ok(blocks)
    }

    /// Feeds everything of the content to a digest.
    pub(crate) fn digest_into(&self, digest: &mut Sha256) {
        digest.update([self.kind.number(), u8::from(self.executable)]);
        digest.update(self.size.to_be_bytes());
        let mtime = self.mtime.unwrap_or_default();
        digest.update(mtime.secs.to_be_bytes());
        digest.update(mtime.nanos.to_be_bytes());
        digest.update((self.blocks.len() as u64).to_be_bytes());
        digest.update(self.encode_blocks());
        digest.update(self.target.as_deref().unwrap_or("").as_bytes());
    }
}

fn check_nanos(time: Timestamp) -> Result<(), ContentError> {
    if time.nanos < 1_000_000_000 { Ok(()) } else { Err(ContentError::Nanos(time.nanos)) }
}

/// API v2's `content_hash`: SHA-256 over the digests of the file's 4 MiB blocks, in order.
pub fn content_hash(blocks: &[BlockRef]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for block in blocks {
        digest.update(block.hash.as_bytes());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::BlockHash;

    use super::{BlockRef, Content, ContentError, Timestamp, content_hash};

    const FULL: u32 = 4_194_304;

    fn blocks(lengths: &[u32]) -> Vec<BlockRef> {
        lengths.iter().map(|length| BlockRef { hash: BlockHash([7; 32]), length: *length }).collect()
    }

    #[test]
    fn the_content_hash_is_the_hash_of_the_block_digests() {
        // Of the empty file, and of one block "abc": SHA-256 of its SHA-256.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(content_hash(&[])), empty);
        let abc = BlockRef { hash: BlockHash::of(b"abc"), length: 3 };
        let expected = BlockHash::of(BlockHash::of(b"abc").as_bytes()).to_string();
        assert_eq!(hex::encode(content_hash(&[abc])), expected);
        assert_eq!(expected, "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358");
    }

    #[test]
    fn blocks_that_do_not_make_the_file_are_refused() {
        let file = |size, lengths: &[u32]| Content::file(size, blocks(lengths), Timestamp::default(), false);
        assert!(file(0, &[]).is_ok());
        assert!(file(u64::from(FULL) + 1, &[FULL, 1]).is_ok());
        assert_eq!(file(2, &[1, 1]), Err(ContentError::Block { index: 0, length: 1 }));
        assert_eq!(file(0, &[0]), Err(ContentError::Block { index: 0, length: 0 }));
        assert_eq!(file(9, &[FULL + 1]), Err(ContentError::Block { index: 0, length: FULL + 1 }));
        assert_eq!(file(2, &[3]), Err(ContentError::Size { sum: 3, size: 2 }));
        let late = Timestamp { secs: 0, nanos: 1_000_000_000 };
        assert_eq!(Content::file(0, Vec::new(), late, false), Err(ContentError::Nanos(1_000_000_000)));
        assert_eq!(Content::symlink(String::new(), Timestamp::default()), Err(ContentError::Target));
    }

    #[test]
    fn golden_bytes_of_a_list_of_blocks() {
        let content = Content::file(3, blocks(&[3]), Timestamp::default(), false).unwrap();
        let bytes = content.encode_blocks();
        assert_eq!(hex::encode(&bytes), format!("{}00000003", "07".repeat(32)));
        assert_eq!(Content::decode_blocks(&bytes), Ok(content.blocks));
        assert_eq!(Content::decode_blocks(&bytes[1..]), Err(ContentError::Damaged));
    }
}
