//! Messages of the `/v1` protocol, all JSON.

use holdfast_libs_types::{AccountId, BlockHash, DeviceId};
use serde::{Deserialize, Serialize};

/// Error codes of `/v1`, each with its HTTP status, and codes of refused items.
pub mod code {
    /// 401: no token, or one that is unknown or revoked.
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// 403: the account may not do this.
    pub const FORBIDDEN: &str = "forbidden";
    /// 409: the cursor is not one of this server's journal: list anew. Sent in `Changes::reset` instead where it can be.
    pub const RESET: &str = "reset";
    /// Item: blocks are missing or not possessed; `missing` lists them.
    pub const NEED_BLOCKS: &str = "need_blocks";
    /// Item: the entry or the parent does not exist in this namespace.
    pub const NOT_FOUND: &str = "not_found";
    /// Item: the move would put a folder below itself.
    pub const CYCLE: &str = "cycle";
    /// Item: the name is empty, `.`, `..`, longer than 255 bytes, or holds `/` or NUL.
    pub const INVALID_NAME: &str = "invalid_name";
    /// Item: a field is impossible (sizes that do not add up, a block over 4 MiB, a rev of another entry).
    pub const INVALID_ITEM: &str = "invalid_item";
    /// Item: the account has no room left.
    pub const NO_SPACE: &str = "no_space";
}

/// A namespace: a tree with one order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespaceId(pub u64);

/// An entry of a namespace. Entry 0 is the namespace's root folder. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub u64);

impl EntryId {
    /// The root folder of every namespace.
    pub const ROOT: Self = Self(0);
}

/// A moment to the nanosecond; seconds may be negative (before 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Unix seconds, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

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

/// A block of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its name.
    pub hash: BlockHash,
    /// Its length in bytes; 4 MiB for all but a file's last block.
    pub length: u32,
}

/// One entry at its newest revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// The folder it is in.
    pub parent: EntryId,
    /// Its name as stored: unique in its folder without regard to case and normal form.
    pub name: String,
    /// Its exact name on case-sensitive clients, where `name` had to differ (`a (case conflict).jpg` for `a.JPG`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_name: Option<String>,
    /// File, folder or link.
    pub kind: Kind,
    /// Its revision: at least nine hex digits.
    pub rev: String,
    /// Journal sequence of its last change (a move counts, and a change below a folder does not).
    pub sequence: u64,
    /// It is gone; all else is as it was last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Bytes of a file.
    #[serde(default)]
    pub size: u64,
    /// Blocks of a file, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRef>,
    /// Modification time of a file or link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<Timestamp>,
    /// The owner's executable bit of a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A folder: one that exists, or one that this device makes in an earlier item (of this or an earlier commit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// By its id.
    Entry(EntryId),
    /// By the op number of the item that makes it.
    Op(u64),
}

/// Where a put goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Onto an entry that the device knows, wherever it is now.
    Entry(EntryId),
    /// To a name in a folder, exactly as it stands on the device.
    Name {
        /// The folder.
        parent: Parent,
        /// The name.
        name: String,
    },
}

/// One wish of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Writes a file.
    PutFile {
        /// Where.
        at: Place,
        /// The revision that the device's edit started from; none when it knows of nothing there.
        base: Option<String>,
        /// Bytes.
        size: u64,
        /// Blocks, in order.
        blocks: Vec<BlockRef>,
        /// Modification time.
        mtime: Timestamp,
        /// The owner's executable bit.
        executable: bool,
    },
    /// Writes a symbolic link.
    PutSymlink {
        /// Where.
        at: Place,
        /// As for a file.
        base: Option<String>,
        /// Where it points; any text but the empty one.
        target: String,
        /// Modification time of the link.
        mtime: Timestamp,
    },
    /// Makes a folder; one that is there already is taken as it is.
    MakeFolder {
        /// The folder it is in.
        parent: Parent,
        /// Its name.
        name: String,
    },
    /// Moves or renames; whatever hangs below comes along.
    Move {
        /// What.
        entry: EntryId,
        /// Into which folder.
        parent: Parent,
        /// Under which name.
        name: String,
    },
    /// Deletes a file or link, or a folder with all below it.
    Delete {
        /// What.
        entry: EntryId,
        /// The journal sequence up to which the device knows the namespace. What changed later below or at the
        /// entry survives (edit beats delete), with the folders above it.
        known_sequence: u64,
    },
}

/// A change with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitItem {
    /// The device's counter: grows with every item, never reused. A repeat is answered as the first time.
    pub op: u64,
    /// The change.
    pub change: Change,
}

/// A batch of changes, decided in order, each with its own result, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// Where.
    pub namespace: NamespaceId,
    /// At most 1,000.
    pub items: Vec<CommitItem>,
    /// Receipts for the blocks delivered for these items.
    pub receipts: Vec<String>,
    /// The device has the answers of all ops up to this one; the server may forget them.
    pub acknowledged_op: u64,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// Done; the entry as it is now. For a delete of a folder: the folder, deleted or (with survivors) not.
    Applied {
        /// The entry.
        entry: Entry,
    },
    /// The same content was there already; version vectors are joined.
    Merged {
        /// The entry.
        entry: Entry,
    },
    /// Somebody else's version stands; the device's content became a file of its own.
    ConflictCopy {
        /// The entry that stands, as it is now.
        entry: Entry,
        /// The copy that holds the device's content.
        copy: Entry,
    },
    /// Not done.
    Refused {
        /// One of the item codes in [`code`].
        code: String,
        /// What, where, what to do.
        message: String,
        /// For `need_blocks`: which.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<BlockHash>,
    },
}

/// The answer to one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemResult {
    /// Its number.
    pub op: u64,
    /// Its outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The answer to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// One for each item, in order.
    pub results: Vec<ItemResult>,
    /// The namespace's journal sequence after the commit.
    pub sequence: u64,
}

/// Asks what changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// Which namespace.
    pub namespace: NamespaceId,
    /// From where; none lists everything.
    pub cursor: Option<String>,
    /// At most so many entries, up to 5,000.
    pub limit: u32,
    /// When there is nothing: wait so long for a change, milliseconds, up to 60,000.
    #[serde(default)]
    pub wait_ms: u64,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Entries at their newest revision, those deleted included (not in a first listing). A folder may come after
    /// what is in it; the whole is consistent once `has_more` is false.
    pub entries: Vec<Entry>,
    /// Where to go on.
    pub cursor: String,
    /// The journal sequence that the cursor stands at.
    pub sequence: u64,
    /// There is more: ask again at once.
    pub has_more: bool,
    /// The cursor given is not of this journal (a restored server, or too old): `entries` is empty; list anew,
    /// after asking the person.
    #[serde(default)]
    pub reset: bool,
}

/// A signed URL for one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlock {
    /// The block.
    pub hash: BlockHash,
    /// Absolute, on a frontend.
    pub url: String,
}

/// A signed URL for a list of small blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedList {
    /// The blocks, in the order the URL was signed for.
    pub hashes: Vec<BlockHash>,
    /// Absolute, on a frontend.
    pub url: String,
}

/// How to deliver blocks. Blocks that the account possesses are in no list: nothing needs to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UploadPlan {
    /// Large blocks.
    pub single: Vec<SignedBlock>,
    /// Small ones.
    pub lists: Vec<SignedList>,
}

/// How to fetch blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DownloadPlan {
    /// Large blocks.
    pub single: Vec<SignedBlock>,
    /// Small ones.
    pub lists: Vec<SignedList>,
    /// Blocks that the account may not read, or that do not exist: both look the same.
    pub refused: Vec<BlockHash>,
}

/// Links a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
    /// What the device is called, for the person to recognise.
    pub device_name: String,
}

/// A linked device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// The device; a new one at every login.
    pub device: DeviceId,
    /// Its access token, for `/v1` and API v2 alike. Shown once.
    pub token: String,
    /// The account.
    pub account: AccountId,
    /// The account's root namespace.
    pub namespace: NamespaceId,
}

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Me {
    /// The user's name.
    pub user: String,
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// The account's root namespace.
    pub namespace: NamespaceId,
}

/// Makes a user (role admin).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateUser {
    /// The name, unique.
    pub user: String,
    /// The password.
    pub password: String,
}
