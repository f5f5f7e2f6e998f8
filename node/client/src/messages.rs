//! Messages of the node protocol. JSON; the bytes of batches and records travel raw.

use holdfast_libs_types::{CellId, DiskId, NodeId, VolumeId, WriteEpoch};
use serde::{Deserialize, Serialize};

/// Error codes of the node, each with its HTTP status.
pub mod code {
    /// 503: the disk's queue is full; repeat later.
    pub const BUSY: &str = "busy";
    /// 507: no free slot, or no space for one.
    pub const NO_SPACE: &str = "no_space";
    /// 507: the batch does not fit into the volume; seal it and take another.
    pub const VOLUME_FULL: &str = "volume_full";
    /// 404: no such disk here.
    pub const UNKNOWN_DISK: &str = "unknown_disk";
    /// 404: the disk holds no extent of the volume.
    pub const UNKNOWN_VOLUME: &str = "unknown_volume";
    /// 409: the disk already holds an extent of the volume.
    pub const ALREADY_EXISTS: &str = "already_exists";
    /// 409: the epoch is not the current one (detail: `{"epoch"}`), or the extent takes no more appends since the node
    /// restarted or a write failed (no detail).
    pub const FENCED: &str = "fenced";
    /// 409: a leader with a higher term has given orders. Detail: `{"term"}`.
    pub const STALE_TERM: &str = "stale_term";
    /// 409: the offset is not the tail. Detail: `{"tail"}`.
    pub const NOT_TAIL: &str = "not_tail";
    /// 409: other bytes were sent before for the same volume, epoch and offset.
    pub const CONFLICTING_REPEAT: &str = "conflicting_repeat";
    /// 400: the batch fails its own checks.
    pub const INVALID_BATCH: &str = "invalid_batch";
    /// 403: the disk takes no writes. The message says why.
    pub const READ_ONLY: &str = "read_only";
    /// 410: the bytes on this disk are damaged. Detail: `{"disk", "slot", "offset"}`.
    pub const DAMAGED: &str = "damaged";
    /// 416: the range is not inside the extent. Detail: `{"tail"}`.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// 409: sealing asks for more bytes than this replica has. Detail: `{"tail"}`.
    pub const TOO_SHORT: &str = "too_short";
    /// 409: the length to seal at does not end a batch of this replica. Detail: `{"start", "end"}` of that batch.
    pub const NOT_A_BOUNDARY: &str = "not_a_boundary";
    /// 409: this replica is sealed already, at another length. Detail: `{"length"}`.
    pub const SEALED_OTHERWISE: &str = "sealed_otherwise";
    /// 409: the call does not apply to an extent in its state. Detail: `{"state"}`.
    pub const WRONG_STATE: &str = "wrong_state";
    /// 502: the disk has failed. The message says how.
    pub const DISK_FAILED: &str = "disk_failed";
}

/// Makes an empty extent for a new volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateExtent {
    /// On which disk.
    pub disk: DiskId,
    /// The new volume.
    pub volume: VolumeId,
    /// Its first write epoch.
    pub epoch: WriteEpoch,
    /// The leader's term.
    pub term: u64,
}

/// Refuses every append of an epoch older than `epoch` from now on, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceRequest {
    /// On which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// The new epoch.
    pub epoch: WriteEpoch,
    /// The leader's term.
    pub term: u64,
}

/// The durable length of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Bytes from the start of the volume.
    pub tail: u64,
}

/// Ends a replica at an agreed length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRequest {
    /// On which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// The epoch of the seal.
    pub epoch: WriteEpoch,
    /// The committed length, bytes.
    pub length: u64,
    /// The leader's term.
    pub term: u64,
}

/// What a sealed replica holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Bytes.
    pub length: u64,
    /// SHA-256 of `[0, length)` in hex.
    pub digest: String,
}

/// Where a replica can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The node's address, `https://HOST:PORT`.
    pub address: String,
    /// The disk there.
    pub disk: DiskId,
}

/// Pulls a replica of a sealed volume from other nodes. Answered when the copy was read back from the disk and its
/// digest compared. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// Onto which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// Its epoch when it was sealed.
    pub epoch: WriteEpoch,
    /// Its length, bytes.
    pub length: u64,
    /// SHA-256 of `[0, length)` in hex.
    pub digest: String,
    /// Tried in order; a source whose bytes do not give the digest is left for the next.
    pub sources: Vec<Source>,
    /// The leader's term.
    pub term: u64,
}

/// The state of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Reads and writes.
    Healthy,
    /// Reads only.
    ReadOnly,
    /// Neither.
    Failed,
}

/// A disk as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its id; absent when the superblock could not be read.
    pub disk: Option<DiskId>,
    /// Device or file.
    pub path: String,
    /// What can be done with it.
    pub state: DiskState,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Slots in all.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// Data bytes one volume can hold here.
    pub volume_bytes: u64,
    /// `io_uring` or `threads`.
    pub io: String,
    /// Whether the descriptor is O_DIRECT.
    pub direct: bool,
    /// Registrations so far.
    pub incarnation: u64,
}

/// A node's answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its cell.
    pub cell: CellId,
    /// Its zone.
    pub zone: String,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
}

/// The state of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtentState {
    /// A copy is being pulled; not yet a replica.
    Copying,
    /// Takes appends (unless the node restarted since).
    Open,
    /// Fenced for a seal.
    Fenced,
    /// Never changes again.
    Sealed,
    /// Found damaged; has no vote and is no source.
    Damaged,
    /// Removed by an order; kept for a while, serves no reads.
    Trashed,
}

/// One extent on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentInfo {
    /// The disk.
    pub disk: DiskId,
    /// The volume.
    pub volume: VolumeId,
    /// The slot.
    pub slot: u64,
    /// How often the slot was used.
    pub slot_generation: u64,
    /// Its state.
    pub state: ExtentState,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Durable length, bytes.
    pub tail: u64,
    /// SHA-256 in hex, once sealed.
    pub digest: Option<String>,
    /// Torn tail or damage, in words.
    pub note: Option<String>,
}

/// The wrapped keyring, kept in the key area of every disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringBody {
    /// Grows with every key.
    pub generation: u64,
    /// Key id and wrapped key, both in hex.
    pub keys: Vec<(String, String)>,
}
