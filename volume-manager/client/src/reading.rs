//! Messages of the calls by which an operator looks at a cell: its inventory, its volumes page by page, what its space
//! and its work come to.

use holdfast_libs_types::{CellId, DiskId, NodeId, VolumeId, WriteEpoch};
use serde::{Deserialize, Serialize};

use crate::messages::NodeRow;

/// Most volumes of one [`VolumePage`].
pub const MAX_PAGE_VOLUMES: usize = 1000;

/// The answer to `GET /v1/inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The cell.
    pub cell: CellId,
    /// Its nodes, by name.
    pub nodes: Vec<NodeRow>,
    /// Its disks, by id.
    pub disks: Vec<DiskDetail>,
    /// Why the catalog does not know all that the disks hold, and what to do; absent when nothing shows that.
    #[serde(default)]
    pub catalog_lost: Option<String>,
}

/// All that the volume manager knows of a disk without looking at what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDetail {
    /// Its id.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// The node's zone.
    pub zone: String,
    /// The node's rack; empty when it names none.
    pub rack: String,
    /// The node's address, `https://HOST:PORT`.
    pub address: String,
    /// Device or file there.
    pub path: String,
    /// `healthy`, `suspect`, `down`, `read_only`, `failed` or `lost`.
    pub state: String,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Why its node suspects that it is about to fail, though it still answers.
    pub failing: Option<String>,
    /// Extents on it that are known to be damaged.
    pub damaged_extents: u64,
    /// Extents on it whose volumes the catalog does not know: after the catalog was lost, restored from an older copy, or made again
    /// while the disk was away.
    #[serde(default)]
    pub unknown_extents: u64,
    /// Replicas on it count: they can be read, or soon again.
    pub in_service: bool,
    /// Slots in all.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// Free slots that are kept back for repair.
    pub reserved_slots: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Data bytes one volume can hold.
    pub volume_bytes: u64,
    /// The incarnation that was accepted last.
    pub incarnation: u64,
    /// What an operator asked for: `offline`, `draining`, and `cordoned` where that was asked for its node.
    #[serde(default)]
    pub asked: Vec<String>,
    /// When it counts again as it is, if it is offline for a time: Unix milliseconds.
    #[serde(default)]
    pub offline_until_ms: Option<u64>,
    /// Of a disk that is being drained: volumes that still have a replica there; at 0 it is drained. None while the
    /// catalog is lost.
    #[serde(default)]
    pub drain_left: Option<u64>,
}

/// Asks for volumes, `POST /v1/volumes/find`. What is left out lets all of them through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeQuery {
    /// Those behind this one.
    pub after: Option<VolumeId>,
    /// No more than so many, at most [`MAX_PAGE_VOLUMES`]; 0 is as many as one page holds.
    pub limit: usize,
    /// Those whose id begins with these hex digits.
    pub prefix: Option<String>,
    /// Those in this state.
    pub state: Option<String>,
    /// Those with a replica on this disk.
    pub disk: Option<DiskId>,
    /// Those with a replica on this node.
    pub node: Option<NodeId>,
    /// Those with a replica in this zone.
    pub zone: Option<String>,
    /// Those that hold something and could not lose two more disks.
    pub at_risk: bool,
}

/// Some of the volumes that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePage {
    /// In order of their ids.
    pub volumes: Vec<VolumeDetail>,
    /// There may be more: ask again with this as `after`. A page may be empty and have more behind it.
    pub next: Option<VolumeId>,
    /// Why the catalog does not know all volumes that the disks hold, and what to do; absent when nothing shows that.
    #[serde(default)]
    pub catalog_lost: Option<String>,
}

/// A volume with where it is and why it is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDetail {
    /// The volume.
    pub volume: VolumeId,
    /// `creating`, `open`, `sealing`, `sealed` or `failed`.
    pub state: String,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Most data bytes it may hold.
    pub capacity: u64,
    /// Its length, once sealed; bytes.
    pub length: Option<u64>,
    /// SHA-256 of `[0, length)` in hex, once sealed.
    pub digest: Option<String>,
    /// How many more disks it can lose; none where it holds nothing.
    pub can_lose: Option<u64>,
    /// None of its replicas can be read now.
    pub unreadable: bool,
    /// Why it was sealed, or failed.
    pub reason: Option<String>,
    /// What is being done with it, or what that waits for.
    pub work: Option<String>,
    /// Its replicas, in order.
    pub replicas: Vec<ReplicaDetail>,
}

/// One replica's place, and how its disk is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaDetail {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// The node's zone.
    pub zone: String,
    /// The node's address, `https://HOST:PORT`.
    pub address: String,
    /// Device or file there.
    pub path: String,
    /// The disk's state.
    pub state: String,
    /// Why the disk is not healthy.
    pub reason: Option<String>,
    /// It counts: it can be read, or soon again.
    pub counts: bool,
}

/// What the cell's space comes to. Raw bytes are those of slots, three of which hold one volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Of all disks in service.
    pub raw_bytes: u64,
    /// Of it, in use: extents, also those in the trash.
    pub used_bytes: u64,
    /// Of it, free, the reserve included.
    pub free_bytes: u64,
    /// Free, but kept back for repair.
    pub reserve_bytes: u64,
    /// Of the bytes in use, those of extents in the trash: free again when their retention is over.
    #[serde(default)]
    pub trash_bytes: u64,
    /// Those extents.
    #[serde(default)]
    pub trash_extents: u64,
    /// Of disks that are not in service.
    pub lost_bytes: u64,
    /// Data that would fit if the disks that take new extents were empty but for the reserve, three replicas of it in distinct
    /// zones, or on distinct nodes while fewer than three zones take any.
    pub usable_bytes: u64,
    /// Data that still fits, in the same way; 0 while nothing is leased because the catalog is lost.
    pub usable_free_bytes: u64,
}

/// All work of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkSummary {
    /// `repair`, `seal` and so on.
    pub kind: String,
    /// Volumes that are being worked on.
    pub running: u64,
    /// Volumes that wait: for their turn, or for what their detail says.
    pub waiting: u64,
    /// Bytes that are still to be copied, where that is known.
    pub bytes_left: Option<u64>,
    /// Bytes a second, as measured.
    pub bytes_s: Option<f64>,
    /// Seconds until it is done at that rate; absent while nothing is copied for it.
    pub eta_s: Option<f64>,
}
