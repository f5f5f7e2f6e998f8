//! The replication table and the inventory: volumes with their replicas, nodes, disks, the leader's term.
//!
//! One process writes it, the leader. Each write is one transaction that first compares the leader's term, so that a leader
//! that was replaced, and does not know it yet, changes nothing. Frontends read it, so that reads of blocks go on while no
//! volume manager runs.
//!
//! Who leads is a matter of two things in the leader's row, which must not be confused:
//! - The **term** keeps a leader that was replaced from changing anything. It is compared in the transaction of every write, and
//!   rises whenever somebody becomes the leader. No clock is asked.
//! - The **lease** says when a standby may become the leader: when it is free, has run out by the database's clock, or is the candidate's
//!   own. A clock that is wrong makes leaders change too often or too late, and nothing worse: the term holds.
//!
//! Invariants, checked over every state in `tests/conformance/leadership.rs`:
//! 1. At any time writes of at most one term are taken: the one in the row.
//! 2. Terms only rise, and nobody is given a term that another was given.
//! 3. While a lease of another runs, a candidate changes nothing.
//! 4. Whoever was replaced, however long it slept, can neither write nor renew nor release.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_libs_types::{DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};

use crate::CatalogError;

/// A leader's term. It rises whenever somebody becomes the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who wants to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name among the cell's volume managers, 1 to 255 bytes. A lease under the same name is its own, from an earlier start.
    pub holder: String,
    /// Where others reach it, `https://HOST:PORT`; at most 1024 bytes.
    pub address: String,
}

/// Who leads, as far as its lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub holder: String,
    /// Where others reach it.
    pub address: String,
    /// Its term.
    pub term: Term,
    /// How long its lease runs, by the database's clock; zero when it has run out.
    pub remaining: Duration,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// It leads, in this term.
    Taken(Term),
    /// Another does, and nothing was changed.
    Held(Leader),
}

/// Where a volume stands in its life; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VolumeState {
    /// Its extents and fence row are being made; no writer has it yet.
    Creating,
    /// Leased to a writer.
    Open,
    /// On its way to a length and a digest.
    Sealing,
    /// It never changes again.
    Sealed,
    /// It could not be made; no writer ever had it.
    Failed,
}

impl VolumeState {
    pub(crate) const ALL: [Self; 5] = [Self::Creating, Self::Open, Self::Sealing, Self::Sealed, Self::Failed];

    /// The word for it in the protocol: `creating`, `open`, `sealing`, `sealed` or `failed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Open => "open",
            Self::Sealing => "sealing",
            Self::Sealed => "sealed",
            Self::Failed => "failed",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, CatalogError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| CatalogError::Damaged(format!("a volume's state is {text:?}")))
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A volume to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id, of the current generation ([`ReplicationTable::generation`]).
    pub volume: VolumeId,
    /// Its first epoch.
    pub epoch: WriteEpoch,
    /// Its disks, in order.
    pub disks: Vec<DiskId>,
    /// The frontend that will write it.
    pub holder: InstanceId,
    /// When its lease ends unless renewed, milliseconds since 1970.
    pub lease_expires_ms: u64,
    /// Most data bytes it may hold.
    pub capacity: u64,
}

/// A volume's row with its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The volume.
    pub volume: VolumeId,
    /// Where it stands.
    pub state: VolumeState,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Most data bytes it may hold.
    pub capacity: u64,
    /// Its length in bytes, once committed.
    pub length: Option<u64>,
    /// SHA-256 of `[0, length)`, once sealed.
    pub digest: Option<[u8; 32]>,
    /// The frontend that holds its lease; none once sealed.
    pub holder: Option<InstanceId>,
    /// When the lease ends, milliseconds since 1970; none once sealed.
    pub lease_expires_ms: Option<u64>,
    /// Why it was sealed or failed.
    pub seal_reason: Option<String>,
    /// Its disks, in order.
    pub replicas: Vec<DiskId>,
}

/// The length that stands, whichever call committed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthCommitted(
    /// Bytes.
    pub u64,
);

/// A sealed volume as the disks tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundVolume {
    /// The volume.
    pub volume: VolumeId,
    /// The highest epoch that any of its extents has.
    pub epoch: WriteEpoch,
    /// Most data bytes it may hold.
    pub capacity: u64,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of `[0, length)`.
    pub digest: [u8; 32],
    /// The disks that hold it so, in order.
    pub replicas: Vec<DiskId>,
}

/// A node of the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub node: NodeId,
    /// Its zone.
    pub zone: String,
    /// Its rack within the zone; empty when it names none.
    pub rack: String,
    /// Where it listens, `https://HOST:PORT`.
    pub address: String,
    /// The start of its process that registered last.
    pub instance: InstanceId,
    /// When it was last heard, milliseconds since 1970, as of the last write of this row.
    pub last_seen_ms: u64,
}

/// What a node reports of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// Device or file there.
    pub path: String,
    /// `healthy`, `suspect`, `read_only`, `failed` or `lost`; the server's words, kept as they are.
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
}

/// A disk of the cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What its node reported last.
    pub info: DiskInfo,
    /// The incarnation that was accepted last.
    pub incarnation: u64,
    /// The nonce that goes with it.
    pub nonce: u64,
}

/// What became of a disk's proposed incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// It stands, and the disk's row is up to date.
    Accepted,
    /// It does not stand and nothing was changed: the disk must be set read-only. Holds why.
    Refused(String),
}

/// Where a volume's replicas can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeLocations {
    /// Where the volume stands.
    pub state: VolumeState,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Its length in bytes, once committed.
    pub length: Option<u64>,
    /// Its replicas, in order.
    pub replicas: Vec<ReplicaLocation>,
}

/// Where one replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaLocation {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// The node's zone.
    pub zone: String,
    /// Where the node listens, `https://HOST:PORT`.
    pub address: String,
}

/// The replication table, for reading only: what frontends have of it.
#[async_trait]
pub trait TableReader: fmt::Debug + Send + Sync {
    /// The current term; 0 when there never was a leader.
    ///
    /// # Errors
    /// `Sql`, `Database`.
    async fn term(&self) -> Result<Term, CatalogError>;

    /// Who holds the lease, run out or not; None when it is free.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn leader(&self) -> Result<Option<Leader>, CatalogError>;

    /// The catalog's generation, for [`VolumeId::from_parts`]. It starts at 1.
    ///
    /// # Errors
    /// `Sql`, `Database`.
    async fn generation(&self) -> Result<u32, CatalogError>;

    /// Why this catalog is not the whole truth: it was lost and made anew, or restored from an older copy. None in ordinary
    /// life. While it says so, nothing may rest on what the catalog does not know.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn lost(&self) -> Result<Option<String>, CatalogError>;

    /// One volume.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, CatalogError>;

    /// All volumes, in order of their ids.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn volumes(&self) -> Result<Vec<Volume>, CatalogError>;

    /// The volumes behind `after`, in order of their ids, no more than `limit` of them; with `on`, only those that have a
    /// replica there. What a caller goes through page by page need not fit into memory.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn volumes_after(
        &self,
        after: Option<VolumeId>,
        on: Option<DiskId>,
        limit: usize,
    ) -> Result<Vec<Volume>, CatalogError>;

    /// The volumes in any of these states, in order of their ids.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError>;

    /// The volumes in state `creating` or `open` whose lease ended at `now_ms` (milliseconds since 1970) or before.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`, `TooLarge`.
    async fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError>;

    /// All nodes, in order of their names.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn nodes(&self) -> Result<Vec<Node>, CatalogError>;

    /// All disks, in order of their ids.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn disks(&self) -> Result<Vec<Disk>, CatalogError>;

    /// What the operator asked for and no leader may forget, by key. What a value means is its owner's matter.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError>;

    /// Where a volume can be read; None when there is no such volume.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn locations(&self, volume: VolumeId) -> Result<Option<VolumeLocations>, CatalogError>;
}

/// The replication table, for the volume manager.
///
/// Every method that takes a [`Term`] is one transaction, is refused with `StaleTerm` when that is not the current one, and
/// can be repeated after a lost answer. A call whose future is dropped goes on to its end. The errors that every call may
/// answer (`Busy`, `Full`, `Sql`, `Database`) are not named at each.
#[async_trait]
pub trait ReplicationTable: TableReader {
    /// Becomes the leader if nobody else's lease runs: raises the term, so that every earlier leader's writes are refused from
    /// now on, and leases the leadership for `ttl`. A repeat raises the term again.
    ///
    /// # Errors
    /// `BadCandidate`.
    async fn acquire_leadership(&self, candidate: &Candidate, ttl: Duration) -> Result<Leadership, CatalogError>;

    /// Lets the lease run for `ttl` from now, also one that has run out but was not taken.
    ///
    /// # Errors
    /// `StaleTerm`.
    async fn renew_leadership(&self, term: Term, ttl: Duration) -> Result<(), CatalogError>;

    /// Gives the lease up, for the next one to take at once. The term stays, so a write that is under way still counts.
    ///
    /// # Errors
    /// `StaleTerm`.
    async fn release_leadership(&self, term: Term) -> Result<(), CatalogError>;

    /// Becomes the leader whoever else is, without a lease: raises the term and frees the lease. For tools that are used while no
    /// volume manager runs.
    ///
    /// # Errors
    /// See the trait.
    async fn take_leadership(&self) -> Result<Term, CatalogError>;

    /// Raises the generation, to be done after the catalog was restored from a copy: ids issued after that copy was made
    /// are then never issued again. Unlike the other methods a repeat raises it again, which does no harm.
    ///
    /// # Errors
    /// `StaleTerm`.
    async fn raise_generation(&self, term: Term) -> Result<u32, CatalogError>;

    /// Marks the catalog as one that does not know everything ([`TableReader::lost`]), and why; it is kept until
    /// [`ReplicationTable::recovered`]. Which nonces the disks have is not known from then on: each may register with any, once. A
    /// mark that is there already stays as it is, and then nothing is changed.
    ///
    /// # Errors
    /// `StaleTerm`.
    async fn mark_lost(&self, term: Term, why: &str) -> Result<(), CatalogError>;

    /// Raises the term to `above` and frees the lease, when nodes obeyed that term before this catalog was made. The next
    /// leader's term is higher. Whoever calls it leads no longer.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    async fn raise_term(&self, term: Term, above: Term) -> Result<(), CatalogError>;

    /// Takes in a volume that was found sealed on the disks, whatever the catalog knew of it, unless that was sealed too: then
    /// only its list of replicas becomes what was found.
    ///
    /// # Errors
    /// `NotLost` when the catalog is not marked so; `SealConflict` when it is known to be sealed otherwise; `BadReplicas`,
    /// `UnknownDisk`, `TooLarge`, `StaleTerm`.
    async fn take_in(&self, term: Term, found: &FoundVolume) -> Result<(), CatalogError>;

    /// Forgets all volumes that are not sealed; answers how many they were. What stands on the disks of them is taken in by
    /// [`ReplicationTable::take_in`], and if it cannot be found now, it is not known afterwards and can be taken in later.
    ///
    /// # Errors
    /// `NotLost`, `StaleTerm`.
    async fn forget_unsealed(&self, term: Term) -> Result<u64, CatalogError>;

    /// Takes the mark away, and raises the generation above `above`, the highest in the id of any volume that was found.
    /// Nothing happens without the mark.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    async fn recovered(&self, term: Term, above: u32) -> Result<(), CatalogError>;

    /// Writes down a volume that is about to be made, in state `creating`.
    ///
    /// # Errors
    /// `StaleTerm`; `VolumeExists` when the id is taken by anything but this very volume in state `creating`; `UnknownDisk`,
    /// `BadReplicas`.
    async fn create_volume(&self, term: Term, new: &NewVolume) -> Result<(), CatalogError>;

    /// `creating` -> `open`.
    ///
    /// # Errors
    /// `StaleTerm`, `UnknownVolume`, `WrongState`.
    async fn open_volume(&self, term: Term, volume: VolumeId) -> Result<(), CatalogError>;

    /// `creating` -> `failed`: it could not be made. A volume that a writer may have is sealed instead.
    ///
    /// # Errors
    /// `StaleTerm`, `UnknownVolume`, `WrongState`.
    async fn fail_volume(&self, term: Term, volume: VolumeId, reason: &str) -> Result<(), CatalogError>;

    /// Moves the end of the leases that `holder` has on these volumes to `expires_ms` (never to an earlier time). Answers
    /// those that were kept: the open ones of this holder. A lease that ran out is kept too, as long as no seal has begun.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    async fn renew_leases(
        &self,
        term: Term,
        holder: InstanceId,
        volumes: &[VolumeId],
        expires_ms: u64,
    ) -> Result<Vec<VolumeId>, CatalogError>;

    /// Replaces the replicas of a sealed volume by compare-and-set.
    ///
    /// # Errors
    /// `ReplicasChanged` when the list is neither `expected_old` nor already `new`; `WrongState` before it is sealed;
    /// `StaleTerm`, `UnknownVolume`, `UnknownDisk`, `BadReplicas`.
    async fn set_replicas(
        &self,
        term: Term,
        volume: VolumeId,
        expected_old: &[DiskId],
        new: &[DiskId],
    ) -> Result<(), CatalogError>;

    /// Step a of the seal: `open` -> `sealing` with the epoch raised by one. Answers the sealing epoch; a volume that is
    /// sealing or sealed already answers the one it has, and keeps its reason.
    ///
    /// # Errors
    /// `WrongEpoch` when an open volume is not at `from_epoch`, or any volume is below it; `WrongState` when it is `creating`
    /// or `failed`; `StaleTerm`, `UnknownVolume`.
    async fn begin_seal(
        &self,
        term: Term,
        volume: VolumeId,
        from_epoch: WriteEpoch,
        reason: &str,
    ) -> Result<WriteEpoch, CatalogError>;

    /// Step e: commits the length, in bytes, if none is committed yet. Answers the one that stands: it is the first, ever.
    ///
    /// # Errors
    /// `WrongEpoch` when `epoch` is not the sealing epoch; `WrongState` when the volume is not sealing or sealed;
    /// `SealConflict` when the length exceeds its capacity; `StaleTerm`, `UnknownVolume`.
    async fn commit_length(
        &self,
        term: Term,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
    ) -> Result<LengthCommitted, CatalogError>;

    /// Step f: commits digest and holders, `sealing` -> `sealed`. `replicas` are those of the volume's disks that verified
    /// this digest. Repeating it on a sealed volume with the same digest changes nothing, whatever its replicas are by then.
    ///
    /// # Errors
    /// `SealConflict` without a committed length or with another digest committed; `BadReplicas` when the list is empty or
    /// names a disk that is no replica; `WrongState`, `StaleTerm`, `UnknownVolume`.
    async fn commit_seal(
        &self,
        term: Term,
        volume: VolumeId,
        digest: [u8; 32],
        replicas: &[DiskId],
    ) -> Result<(), CatalogError>;

    /// Writes a node's row. It must come before its disks.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    async fn upsert_node(&self, term: Term, node: &Node) -> Result<(), CatalogError>;

    /// Writes what a node reports of a disk that it registered. Its incarnation and nonce stay as they are.
    ///
    /// # Errors
    /// `UnknownDisk` before its first registration; `DiskElsewhere` when another node registered it (so that a clone's node
    /// cannot take the disk over by a heartbeat); `StaleTerm`, `TooLarge`.
    async fn upsert_disk(&self, term: Term, info: &DiskInfo) -> Result<(), CatalogError>;

    /// A disk proposes its next incarnation. It is accepted, and the disk's whole row written, when the disk is new, when
    /// it shows the nonce that was accepted last, or when it repeats the accepted proposal after a lost answer. Anything
    /// else is a copy of the disk, or an old disk put back: refused, and nothing is changed.
    ///
    /// # Errors
    /// `UnknownNode` when the node has no row; `StaleTerm`, `TooLarge`.
    async fn register_disk_incarnation(
        &self,
        term: Term,
        info: &DiskInfo,
        previous_nonce: u64,
        incarnation: u64,
        nonce: u64,
    ) -> Result<Registration, CatalogError>;

    /// Takes a disk off the inventory. Where volumes that hold nothing (failed ones, and those sealed empty) name it, it is taken off their
    /// lists. A disk that is not there is forgotten already.
    ///
    /// # Errors
    /// `DiskInUse` while any other volume names it; `StaleTerm`.
    async fn forget_disk(&self, term: Term, disk: DiskId) -> Result<(), CatalogError>;

    /// Takes a node off the inventory. One that is not there is forgotten already.
    ///
    /// # Errors
    /// `NodeInUse` while it has disks; `StaleTerm`.
    async fn forget_node(&self, term: Term, node: &NodeId) -> Result<(), CatalogError>;

    /// Writes a setting in place of the one that stands under the key, or removes it. A key has 1 to 255 bytes, a value
    /// at most 65,535.
    ///
    /// # Errors
    /// `BadSetting`, `StaleTerm`.
    async fn set_setting(&self, term: Term, key: &str, value: Option<&str>) -> Result<(), CatalogError>;
}
