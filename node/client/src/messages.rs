//! Messages of the node protocol. JSON; the bytes of batches and records travel raw.

use holdfast_libs_types::{BlockHash, CellId, DiskId, NodeId, VolumeId, WriteEpoch};
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
    /// 404: the node's configuration wants no disk at that path.
    pub const UNKNOWN_PLACE: &str = "unknown_place";
    /// 409: the place of a disk has no light that can be switched. The message says why.
    pub const NO_LIGHT: &str = "no_light";
    /// 409: what stands there is not blank, or is in use by something else, or nothing is there. Nothing was changed.
    /// Detail: `{"reasons"}`.
    pub const NOT_BLANK: &str = "not_blank";
    /// 409: a disk is in use there already. Detail: `{"disk"}`.
    pub const IN_USE: &str = "in_use";
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
    /// 409: the slot, its generation or the order it is in the trash by is not the one named.
    pub const WRONG_ORDER: &str = "wrong_order";
    /// 500: a slot would have been freed that no order had removed. A fault of the node; nothing was freed.
    pub const ERASE_REFUSED: &str = "erase_refused";
    /// 504: the disk does not answer. When the message does not say that nothing was tried, the outcome is not known.
    /// Detail: `{"disk"}`. Try another replica.
    pub const STALLED: &str = "stalled";
    /// 409: the copy was given up by an order.
    pub const CANCELLED: &str = "cancelled";
    /// 502: the disk has failed. The message says how.
    pub const DISK_FAILED: &str = "disk_failed";
    /// Of a disk in the answer to a keyring: its key area is too small for all the keys.
    pub const KEY_AREA_FULL: &str = "key_area_full";
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
    /// It was in the trash of its disk, so that nothing had to be copied.
    #[serde(default)]
    pub restored: bool,
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
/// digest compared. Where the disk has the replica in its trash, that is read back and taken out instead. Repeating it is
/// harmless.
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
    /// The volume has one replica left: the copy gets half of the disks' time, whatever the foreground bears.
    #[serde(default)]
    pub urgent: bool,
    /// What the disk holds of the volume and is no replica: it goes into the trash once the copy was read back and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<GivesWay>,
    /// The leader's term.
    pub term: u64,
}

/// An extent that gives way to a copy of its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivesWay {
    /// The slot it stands in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
    /// Random; names its removal: 32 hex digits.
    pub order: String,
}

/// Gives a copy up that is not needed any more, and frees its slot. Harmless when there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelCopy {
    /// On which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// Also one that is under way; otherwise only what an earlier one left unfinished.
    pub under_way: bool,
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

/// What the scrub of a disk is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubState {
    /// It reads at its pace.
    Busy,
    /// It reads, slower than its pace because the disk has other work.
    Throttled,
    /// It waits for its next round, or for the disk.
    Idle,
    /// An operator stopped it, or it is not enabled.
    Paused,
}

/// The scrub of a disk since it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// What it is doing.
    pub state: ScrubState,
    /// Its pace, bytes a second.
    pub bytes_per_second: u64,
    /// Rounds ended.
    pub rounds: u64,
    /// Seconds since the round that is under way was begun, or gone on with.
    pub round_began_s_ago: Option<u64>,
    /// Bytes read in it.
    pub round_read_bytes: u64,
    /// Bytes read in all rounds.
    pub read_bytes: u64,
    /// Seconds since a round last ended.
    pub last_round_ended_s_ago: Option<u64>,
    /// Damaged places found.
    pub found: u64,
    /// Those of them that were written again from a good copy.
    pub repaired: u64,
}

/// Changes the scrub of a disk until its next start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubOrder {
    /// `start` (now), `pause` or `resume`.
    #[serde(default)]
    pub action: Option<String>,
    /// A new pace, at least 65,536.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

/// Whether a node can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It can.
    Ok,
    /// Somebody should look; the rest is served.
    Degraded,
    /// Nothing is served.
    Failed,
}

/// A node's answer to `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub state: HealthState,
    /// Why it is not `ok`, one sentence each.
    pub reasons: Vec<String>,
}

/// One record of a sealed extent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordInfo {
    /// The block's hash.
    pub hash: BlockHash,
    /// Bytes from the start of the volume.
    pub offset: u64,
    /// Bytes of the record, header included.
    pub length: u32,
    /// As in the record's header.
    pub flags: u32,
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
    /// Records in it, where that is known.
    #[serde(default)]
    pub records: Option<u32>,
    /// Disk uptime at which it went to the trash, seconds.
    #[serde(default)]
    pub trashed_at_s: Option<u64>,
    /// The order by which it did, 32 hex digits.
    #[serde(default)]
    pub order: Option<String>,
}

/// Puts an extent into the trash. Repeating it with the same order is harmless. That the bytes stand elsewhere, or are not
/// needed, whoever sends it has made sure of and committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashRequest {
    /// On which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// The slot its extent stands in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
    /// The leader's term.
    pub term: u64,
    /// Random; names this removal: 32 hex digits.
    pub order: String,
}

/// Takes an extent out of the trash, back to the state that it had. Harmless when it is not in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// On which disk.
    pub disk: DiskId,
    /// Which volume.
    pub volume: VolumeId,
    /// The slot its extent stands in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
    /// The leader's term.
    pub term: u64,
}

/// As [`RestoreRequest`], by an operator, who stands beside the leaders: it takes the term that the disk knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRestore {
    /// Which volume.
    pub volume: VolumeId,
    /// The slot its extent stands in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
}

/// The trash of a disk, and what the watcher over erasures saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashStatus {
    /// How long extents are kept, seconds of the disk's uptime.
    pub retention_s: u64,
    /// Seconds the disk was mounted in all its life.
    pub uptime_s: u64,
    /// Attempts to free a slot that no order had removed, since the disk was opened. Anything but 0 is a fault.
    pub erase_alarms: u64,
    /// Extents erased since the disk was opened.
    pub erased: u64,
    /// What is in the trash.
    pub extents: Vec<ExtentInfo>,
}

/// The wrapped keyring, kept in the key area of every disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringBody {
    /// Grows with every key.
    pub generation: u64,
    /// Key id and wrapped key, both in hex.
    pub keys: Vec<(String, String)>,
}

/// What became of a keyring on the disks that a node has open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringStored {
    /// Those that have it.
    pub stored: Vec<DiskId>,
    /// Those that did not take it.
    pub missing: Vec<KeyringMissing>,
    /// How full the key areas are of those that have it, and of those that did not take it because theirs are full.
    #[serde(default)]
    pub key_areas: Vec<KeyArea>,
}

/// How full the key area of a disk is with all keys that it is to have. When these take more than it holds none of them was
/// added. No key leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyArea {
    /// The disk.
    pub disk: DiskId,
    /// Keys that it is to have.
    pub keys: u64,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Bytes that it holds.
    pub most_bytes: u64,
}

impl KeyArea {
    /// Whether the keys do not fit.
    pub fn is_too_small(&self) -> bool {
        self.used_bytes > self.most_bytes
    }
}

/// A disk that did not take a keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringMissing {
    /// The disk.
    pub disk: DiskId,
    /// One of [`code`].
    pub code: String,
    /// Why, for people.
    pub reason: String,
}
