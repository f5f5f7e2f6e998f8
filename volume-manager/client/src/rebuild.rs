//! Messages about the catalog's rebuild from the disks, all JSON.

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildState {
    /// None was begun since this volume manager leads.
    #[default]
    None,
    /// Under way.
    Running,
    /// Everything that is on the disks is in the catalog, but for `not_recovered` and what only those have that were `not_reached`;
    /// the cell is in service.
    Done,
    /// It stopped before its end, for the reason given. The catalog counts as lost still; begin it again.
    Stopped,
}

/// The answer to `POST` and `GET /v1/catalog/rebuild`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// How far it is.
    pub state: RebuildState,
    /// What it is doing, or why it stopped.
    pub detail: String,
    /// Why the catalog counts as lost; None when it does not.
    pub lost: Option<String>,
    /// Nodes whose disks are read.
    pub nodes: u64,
    /// Disks that are read.
    pub disks: u64,
    /// Volumes found on them.
    pub volumes: u64,
    /// Those of them that have been looked at.
    pub volumes_done: u64,
    /// Volumes that the catalog did not have so, and now has.
    pub taken_in: u64,
    /// Volumes that were still open, and were sealed.
    pub sealed: u64,
    /// Volumes of which fewer replicas were found than a volume has: they are repaired afterwards.
    pub short_of_replicas: u64,
    /// Records of volumes that went into the index.
    pub records: u64,
    /// Blocks in the index at the end; a block that stands in several volumes counts once.
    pub blocks: u64,
    /// Data keys found on the disks.
    pub keys: u64,
    /// Seconds since it began.
    pub seconds: u64,
    /// Seconds that are left, as far as can be told.
    pub seconds_left: Option<u64>,
    /// How many volumes could not be taken in.
    pub not_recovered_total: u64,
    /// The first of them, and why.
    pub not_recovered: Vec<NotRecovered>,
    /// Nodes and disks that the catalog knew before and that were not read. What only they have is not in the catalog: another
    /// rebuild takes it in when they are back.
    #[serde(default)]
    pub not_reached: Vec<NotReached>,
}

/// A node that was not up, or a disk of one that was up and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReached {
    /// The node.
    pub node: NodeId,
    /// The disks that were not read for that.
    pub disks: Vec<DiskId>,
    /// How it is.
    pub why: String,
}

/// A volume that could not be taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRecovered {
    /// The volume.
    pub volume: VolumeId,
    /// Why.
    pub why: String,
}
