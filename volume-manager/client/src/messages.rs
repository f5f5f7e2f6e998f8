//! Messages of the volume manager's protocol, all JSON.

use std::collections::BTreeMap;

use holdfast_libs_types::{CellId, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use serde::{Deserialize, Serialize};

use crate::operate::{DrainRow, RebalanceRow};
use crate::reading::{Capacity, WorkSummary};

/// Error codes of the volume manager, each with its HTTP status.
pub mod code {
    /// 507: too few zones (of three, or of those in service if these are fewer) or too few nodes have a free slot above the
    /// reserve. The message says what is missing.
    pub const CELL_FULL: &str = "cell_full";
    /// 503: fewer than three nodes have a disk that takes new extents and is none that the frontend avoids.
    pub const TOO_FEW_DOMAINS: &str = "too_few_domains";
    /// 404: no such volume.
    pub const UNKNOWN_VOLUME: &str = "unknown_volume";
    /// 409: another cell's node or disk.
    pub const WRONG_CELL: &str = "wrong_cell";
    /// 409: the node's name is taken by a node that is alive.
    pub const DUPLICATE_NODE: &str = "duplicate_node";
    /// 404: no such disk.
    pub const UNKNOWN_DISK: &str = "unknown_disk";
    /// 404: no such node.
    pub const UNKNOWN_NODE: &str = "unknown_node";
    /// 409: an operator's order that would harm. The message says why; detail: `{"reasons", "numbers"}`.
    pub const UNSAFE: &str = "unsafe";
    /// 503: this volume manager is not the leader. Detail: `{"leader"}`, its address, where that is known.
    pub const NOT_LEADER: &str = "not_leader";
    /// 503: the catalog was lost or comes from an older copy, and nothing is leased or ordered until it is rebuilt.
    pub const CATALOG_LOST: &str = "catalog_lost";
}

/// A node tells its disks, at start and whenever they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The node's cell.
    pub cell: CellId,
    /// Its name.
    pub node: NodeId,
    /// This start of its process.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: String,
    /// Its rack within the zone; empty when it names none.
    #[serde(default)]
    pub rack: String,
    /// Where it listens, `https://HOST:PORT`.
    pub address: String,
    /// Its disks.
    pub disks: Vec<DiskReport>,
    /// Files and devices it was given and cannot use.
    #[serde(default)]
    pub unusable: Vec<UnusableDisk>,
    /// The highest leader's term that it or any of its disks was ever told; 0 when there was none.
    #[serde(default)]
    pub term: u64,
}

/// A file or device that a node cannot use as a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableDisk {
    /// Device or file there.
    pub path: String,
    /// `unformatted`, `foreign`, `duplicate`, `missing`, `in_use` or `unusable`.
    #[serde(default)]
    pub cause: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// A disk as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its id.
    pub disk: DiskId,
    /// Device or file.
    pub path: String,
    /// Incarnation proposed for this registration.
    pub incarnation: u64,
    /// Random number that goes with the proposed incarnation.
    pub nonce: u64,
    /// The nonce of the last incarnation that was confirmed; 0 for a new disk.
    pub previous_nonce: u64,
    /// `healthy`, `suspect` (it does not answer at the moment), `gone` (it was in use and is not there any more), `read_only`
    /// or `failed`.
    pub state: String,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Data bytes one volume can hold.
    pub volume_bytes: u64,
    /// Slots in all.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// Extents on it that are known to be damaged. When it changes, the volume manager looks at what the disk holds.
    #[serde(default)]
    pub damaged_extents: u64,
    /// Slots that extents in its trash hold.
    #[serde(default)]
    pub trashed_extents: u64,
    /// Why its node suspects that it is about to fail, though it still answers; `state` tells nothing of that.
    #[serde(default)]
    pub failing: Option<String>,
    /// What its foreground bears of background work.
    #[serde(default)]
    pub pace: Option<DiskPace>,
}

/// What the foreground of a disk (appends and reads of records) takes, and how much background work its node lets it bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPace {
    /// 99th percentile of its foreground of the last seconds, microseconds.
    pub recent_p99_us: Option<u64>,
    /// The same without background work.
    pub usual_p99_us: Option<u64>,
    /// Background I/Os under way on average while there is foreground, in hundredths: 5 is a twentieth of the disk's time.
    pub level_percent: u32,
    /// Bytes of background I/Os since the disk was opened.
    pub moved_bytes: u64,
}

/// What becomes of a registered disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredDisk {
    /// The disk.
    pub disk: DiskId,
    /// Its proposed incarnation stands; otherwise the disk must be set read-only.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<String>,
    /// It may be accepted a little later: open it anew and register again.
    #[serde(default)]
    pub retry: bool,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// One for each disk.
    pub disks: Vec<RegisteredDisk>,
    /// The leader's term.
    pub term: u64,
    /// How often to send a heartbeat, milliseconds.
    pub heartbeat_ms: u64,
}

/// A node is alive, and how its disks are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node.
    pub node: NodeId,
    /// This start of its process.
    pub instance: InstanceId,
    /// Its disks.
    pub disks: Vec<DiskReport>,
    /// Files and devices it was given and cannot use.
    #[serde(default)]
    pub unusable: Vec<UnusableDisk>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The volume manager does not know this instance: register again.
    pub register: bool,
    /// The leader's term.
    pub term: u64,
    /// How background work is done from now on.
    #[serde(default)]
    pub background: Option<Background>,
}

/// How nodes pace background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Background {
    /// How much longer the foreground's 99th percentile may take for its sake, percent; `None` for no limit.
    pub max_client_impact: Option<u32>,
    /// Copies are under way in the cell.
    pub copies: bool,
}

/// One replica's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// The node's zone.
    pub zone: String,
    /// The node's address, `https://HOST:PORT`.
    pub address: String,
}

/// A frontend asks for a volume to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// This start of the frontend.
    pub frontend: InstanceId,
    /// Disks that have just failed it, to be left out for a while.
    pub avoid: Vec<DiskId>,
}

/// A volume the frontend may append to, from offset 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Its write epoch.
    pub epoch: WriteEpoch,
    /// Its three replicas, on distinct nodes, and in distinct zones as far as so many are in service.
    pub replicas: Vec<Replica>,
    /// Most data bytes it may hold.
    pub capacity: u64,
    /// The lease ends so many milliseconds after its last renewal.
    pub lease_ms: u64,
}

/// A frontend is alive and still writes to these volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// This start of the frontend.
    pub frontend: InstanceId,
    /// Its open volumes.
    pub volumes: Vec<VolumeId>,
}

/// Asks to seal a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealAsk {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch it was leased under.
    pub epoch: WriteEpoch,
    /// The disk that failed, if that is why.
    pub failed_disk: Option<DiskId>,
    /// What it answered.
    pub reason: Option<String>,
}

/// How far a volume's seal has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealState {
    /// `open`, `sealing` or `sealed`.
    pub state: String,
}

/// A volume and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// The volume.
    pub volume: VolumeId,
    /// `creating`, `open`, `sealing`, `sealed` or `failed`.
    pub state: String,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Its length, once sealed; bytes.
    pub length: Option<u64>,
    /// SHA-256 of `[0, length)` in hex, once sealed.
    pub digest: Option<String>,
    /// Its replicas, in service or not; those on disks that are off the inventory are left out.
    pub replicas: Vec<Replica>,
    /// They stand closer together than the cell allows.
    #[serde(default)]
    pub crowded: bool,
}

/// How many volumes there are, and how many more disks they can lose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeCounts {
    /// All volumes.
    pub total: u64,
    /// `"0"`, `"1"`, `"2"` -> volumes that can lose that many more disks and no more.
    pub can_lose: BTreeMap<String, u64>,
}

/// A node as the cell sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Its rack within the zone; empty when it names none.
    #[serde(default)]
    pub rack: String,
    /// Where it listens.
    pub address: String,
    /// `up`, `suspect` or `down`.
    pub state: String,
    /// What an operator asked for: `cordoned`, `draining`.
    #[serde(default)]
    pub asked: Vec<String>,
    /// Milliseconds since its last heartbeat; `None` when there was none since the volume manager began to lead.
    pub last_heartbeat_ms: Option<u64>,
    /// Files and devices it was given and cannot use.
    #[serde(default)]
    pub unusable: Vec<UnusableDisk>,
}

/// A disk as the cell sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRow {
    /// Its id.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// Device or file there.
    pub path: String,
    /// `healthy`, `suspect`, `down`, `read_only`, `failed` or `lost`.
    pub state: String,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// Of a disk that is suspect or down: seconds until it is lost and its volumes are repaired, if it stays away. `None`
    /// also while nothing is given up.
    #[serde(default)]
    pub repair_in_s: Option<u64>,
    /// Slots in all.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Volumes with a replica on it.
    pub volumes: u64,
    /// What an operator asked for: `offline`, `draining`.
    #[serde(default)]
    pub asked: Vec<String>,
    /// When it counts again as it is, if it is offline for a time: Unix milliseconds.
    #[serde(default)]
    pub offline_until_ms: Option<u64>,
}

/// Something the volume manager is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// `repair`, `seal`, `move` or `trash`.
    pub kind: String,
    /// The volume.
    pub volume: VolumeId,
    /// What is going on, or what it waits for.
    pub detail: String,
}

/// The answer to `GET /v1/status`: what `admin status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellStatus {
    /// `ok`, `degraded` or `critical`.
    pub health: String,
    /// Why the catalog does not know all that the disks hold, and what to do; absent when nothing shows that. It stands among the
    /// reasons, too.
    #[serde(default)]
    pub catalog_lost: Option<String>,
    /// Nothing is leased or ordered, because the catalog is lost: nothing more fits.
    #[serde(default)]
    pub nothing_leased: bool,
    /// How many nodes this volume manager still has to hear from, or whose disks it is still to compare with the catalog, since it
    /// began to lead or they came back: numbers may be too good until then. Absent once it has tried with all.
    #[serde(default)]
    pub settling: Option<String>,
    /// Why it is not `ok`, one sentence each.
    pub reasons: Vec<String>,
    /// The cell.
    pub cell: CellId,
    /// The leader's term.
    pub term: u64,
    /// Volumes by what they can lose.
    pub volumes: VolumeCounts,
    /// Nodes.
    pub nodes: Vec<NodeRow>,
    /// Disks.
    pub disks: Vec<DiskRow>,
    /// Volumes whose replicas stand closer together than the cell allows.
    #[serde(default)]
    pub crowded: u64,
    /// Disks that are being drained.
    #[serde(default)]
    pub drains: Vec<DrainRow>,
    /// The rebalance under way.
    #[serde(default)]
    pub rebalance: Option<RebalanceRow>,
    /// Work under way: the first hundred volumes of it.
    pub work: Vec<Work>,
    /// All of it, by kind.
    #[serde(default)]
    pub work_summary: Vec<WorkSummary>,
    /// What its space comes to.
    #[serde(default)]
    pub capacity: Capacity,
}

/// What an operator says of the disks; what is left out is measured, or assumed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DurabilityAsk {
    /// Share of the disks that fails within a year, between 0 and 1.
    #[serde(default)]
    pub yearly_failures: Option<f64>,
    /// Unreadable bits for each bit read.
    #[serde(default)]
    pub unreadable_bits: Option<f64>,
    /// Bytes a second that each disk gives to repair.
    #[serde(default)]
    pub repair_bytes_s: Option<f64>,
    /// Count every slot as in use, instead of what is held now.
    #[serde(default)]
    pub full: bool,
}

/// One input of the durability model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DurabilityInput {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Where it comes from: counted, configured, measured, given, asked or assumed.
    pub source: String,
}

/// The answer to `POST /v1/durability`: what `admin durability --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DurabilityAnswer {
    /// Why the catalog does not know all that the disks hold, and what to do: the figures are of what it knows. Absent when
    /// nothing shows that.
    #[serde(default)]
    pub catalog_lost: Option<String>,
    /// Bytes that the catalog knows of, all replicas. While there are none the figures are of a cell with a volume on each disk.
    #[serde(default)]
    pub stored_bytes: Option<u64>,
    /// What it was computed from.
    pub inputs: Vec<DurabilityInput>,
    /// Mean time until the cell loses a first volume, years.
    pub mean_years_to_loss: f64,
    /// Chance that it loses any within a year.
    pub yearly_loss: f64,
    /// Expected share of all volumes that is lost within a year.
    pub yearly_share: f64,
    /// How many nines of a volume's chance to outlive a year.
    pub nines: f64,
    /// From a disk's failure until its volumes are whole again, seconds.
    pub repair_s: f64,
    /// How long volumes that two failed disks share have one replica, seconds.
    pub urgent_repair_s: f64,
    /// Volumes that two disks of different zones share, on average.
    pub shared_by_two: f64,
    /// Chance that a third disk has the last replica of one of these.
    pub third_disk_matters: f64,
    /// Chance that one of the last replicas cannot be read when it is copied.
    pub last_replica_unreadable: f64,
}

/// What an operator asks of repair; what is left out stays as it is. It outlives the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairOrder {
    /// `pause` (begin no more copies; those under way come to their end) or `resume`.
    #[serde(default)]
    pub action: Option<String>,
    /// How much longer the foreground's 99th percentile may take for the sake of copies: a whole number of percent, at most
    /// 1,000,000, `unlimited`, or `configured` for what the configuration says.
    #[serde(default)]
    pub max_client_impact: Option<String>,
    /// Who asks, for whoever looks later; at most 500 bytes.
    #[serde(default)]
    pub by: String,
    /// Why; at most 500 bytes.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Who paused repair, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairPause {
    /// As they called themselves, `USER@HOST` with the operator's commands; empty when they did not.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// For so many seconds.
    pub since_s_ago: u64,
    /// When that was, Unix milliseconds.
    #[serde(default)]
    pub since_ms: u64,
}

/// Volumes at the same risk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRisk {
    /// How many.
    pub volumes: u64,
    /// Bytes to copy until they have all their replicas.
    pub bytes: u64,
}

/// A copy under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairCopy {
    /// The volume.
    pub volume: VolumeId,
    /// The disk it is read from first.
    pub from: DiskId,
    /// The disk it goes to.
    pub to: DiskId,
    /// Its length.
    pub bytes: u64,
    /// One replica was left: it has half of the disks' time, whatever clients feel.
    pub urgent: bool,
    /// Seconds since it was ordered.
    pub for_s: u64,
}

/// Volumes that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairWait {
    /// For what.
    pub why: String,
    /// How many.
    pub volumes: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What clients feel on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairDisk {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// As its node reported last.
    pub pace: DiskPace,
}

/// The answer to `GET` and `POST /v1/repair`: what `admin repair status --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Why the catalog does not know all that the disks hold, so that more may be to repair, and what to do; absent when nothing
    /// shows that.
    #[serde(default)]
    pub catalog_lost: Option<String>,
    /// Who paused it, if anybody did.
    pub paused: Option<RepairPause>,
    /// How much longer the foreground's 99th percentile may take, percent; `None` for no limit.
    pub max_client_impact: Option<u32>,
    /// What is to be repaired, by how many more disks the volumes can lose: `unreadable`, `0`, `1`, or `2` where three replicas can be
    /// read and one of them is on a disk that takes no more writes.
    pub to_repair: BTreeMap<String, RepairRisk>,
    /// Bytes to copy.
    pub bytes_left: u64,
    /// Bytes a second of late, over all copies.
    pub bytes_per_s: Option<u64>,
    /// Seconds until all that can be copied now is copied at that rate; absent while no copy is under way.
    pub eta_s: Option<u64>,
    /// Copies under way.
    pub under_way: Vec<RepairCopy>,
    /// What waits, and for what; volumes that are not to be repaired yet, because a disk may come back, too.
    pub waiting: Vec<RepairWait>,
    /// Disks with what their foreground takes.
    pub disks: Vec<RepairDisk>,
    /// What is at risk.
    pub warnings: Vec<String>,
}
