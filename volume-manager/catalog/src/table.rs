//! The replication table and the inventory: volumes with their replicas, nodes, disks, the leader's term.
//!
//! One process writes it, the leader. Each write is one transaction that first compares the leader's term, so that a leader
//! that was replaced, and does not know it yet, changes nothing. Frontends read it ([`ReplicationTable::open_read_only`]), so
//! that reads of blocks go on while no volume manager runs.

mod inventory;
mod reader;
mod seal;
#[cfg(test)]
mod tests;
mod volumes;

use std::fmt;
use std::path::Path;

use holdfast_libs_types::{CellId, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use rusqlite::{OptionalExtension, Transaction};

pub use reader::TableReader;

use crate::CatalogError;
use crate::database::{Database, Schema, int, uint};

pub(crate) const SCHEMA: Schema = Schema {
    file: "table.db",
    version: 2,
    // Nonces are 64 random bits, stored as the signed number with the same bits.
    create: "
        CREATE TABLE leader (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            term INTEGER NOT NULL,
            generation INTEGER NOT NULL
        ) STRICT;
        INSERT INTO leader (one, term, generation) VALUES (1, 0, 1);
        CREATE TABLE volumes (
            volume BLOB PRIMARY KEY NOT NULL,
            state TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            capacity INTEGER NOT NULL,
            length INTEGER,
            digest BLOB,
            holder BLOB,
            lease_expires_ms INTEGER,
            seal_reason TEXT
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX volumes_by_state ON volumes (state);
        CREATE TABLE nodes (
            node TEXT PRIMARY KEY NOT NULL,
            zone TEXT NOT NULL,
            rack TEXT NOT NULL,
            address TEXT NOT NULL,
            instance BLOB NOT NULL,
            last_seen_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE disks (
            disk BLOB PRIMARY KEY NOT NULL,
            node TEXT NOT NULL REFERENCES nodes (node),
            path TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            nonce INTEGER NOT NULL,
            state TEXT NOT NULL,
            reason TEXT,
            slot_bytes INTEGER NOT NULL,
            volume_bytes INTEGER NOT NULL,
            slots INTEGER NOT NULL,
            free_slots INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE replicas (
            volume BLOB NOT NULL REFERENCES volumes (volume),
            place INTEGER NOT NULL,
            disk BLOB NOT NULL REFERENCES disks (disk),
            PRIMARY KEY (volume, place),
            UNIQUE (disk, volume)
        ) STRICT, WITHOUT ROWID;
    ",
};

/// A leader's term. Only [`ReplicationTable::take_leadership`] raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
    const ALL: [Self; 5] = [Self::Creating, Self::Open, Self::Sealing, Self::Sealed, Self::Failed];

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

    fn parse(text: &str) -> Result<Self, CatalogError> {
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

/// The replication table, for the volume manager.
///
/// Every method that takes a [`Term`] is one transaction, is refused with `StaleTerm` when that is not the current one, and
/// can be repeated after a lost answer.
#[derive(Debug, Clone)]
pub struct ReplicationTable {
    db: Database,
    reader: TableReader,
}

impl ReplicationTable {
    /// Opens `table.db` in `dir`, making it when it is missing.
    ///
    /// # Errors
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Pragma`, `File`, `Busy`.
    pub fn open(dir: &Path, cell: CellId) -> Result<Self, CatalogError> {
        let db = Database::open(dir, &SCHEMA, cell)?;
        Ok(Self { reader: TableReader::new(db.clone()), db })
    }

    /// Opens `table.db` for reading, in any process.
    ///
    /// # Errors
    /// `Missing` before the volume manager's first start; otherwise as [`ReplicationTable::open`].
    pub fn open_read_only(dir: &Path, cell: CellId) -> Result<TableReader, CatalogError> {
        Ok(TableReader::new(Database::open_read_only(dir, &SCHEMA, cell)?))
    }

    /// Becomes the leader: raises the term, so that every earlier leader's writes are refused from now on.
    ///
    /// # Errors
    /// `Busy`, `Full`, `Sql`.
    pub fn take_leadership(&self) -> Result<Term, CatalogError> {
        self.db.write(|tx| {
            tx.execute("UPDATE leader SET term = term + 1", [])?;
            current_term(tx)
        })
    }

    /// The current term; 0 when there never was a leader.
    ///
    /// # Errors
    /// `Sql`.
    pub fn term(&self) -> Result<Term, CatalogError> {
        self.db.read(current_term)
    }

    /// The catalog's generation, for [`VolumeId::from_parts`]. It starts at 1.
    ///
    /// # Errors
    /// `Sql`.
    pub fn generation(&self) -> Result<u32, CatalogError> {
        self.db.read(generation)
    }

    /// Raises the generation, to be done after the catalog was restored from a copy: ids issued after that copy was made
    /// are then never issued again. Unlike the other methods a repeat raises it again, which does no harm.
    ///
    /// # Errors
    /// `StaleTerm`, `Sql`.
    pub fn raise_generation(&self, term: Term) -> Result<u32, CatalogError> {
        self.write(term, |tx| {
            tx.execute("UPDATE leader SET generation = generation + 1", [])?;
            generation(tx)
        })
    }

    /// All reading methods, as frontends have them.
    pub fn reader(&self) -> &TableReader {
        &self.reader
    }

    /// See [`TableReader::volume`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, CatalogError> {
        self.reader.volume(volume)
    }

    /// See [`TableReader::volumes`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn volumes(&self) -> Result<Vec<Volume>, CatalogError> {
        self.reader.volumes()
    }

    /// See [`TableReader::volumes_in`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
        self.reader.volumes_in(states)
    }

    /// See [`TableReader::expired_leases`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError> {
        self.reader.expired_leases(now_ms)
    }

    /// See [`TableReader::nodes`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        self.reader.nodes()
    }

    /// See [`TableReader::disks`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        self.reader.disks()
    }

    /// See [`TableReader::locations`].
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn locations(&self, volume: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
        self.reader.locations(volume)
    }

    /// Runs `work` in a write transaction of the current leader.
    fn write<T>(
        &self,
        term: Term,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        self.db.write(|tx| {
            let current = current_term(tx)?;
            if current != term {
                return Err(CatalogError::StaleTerm { given: term, current });
            }
            work(tx)
        })
    }
}

fn current_term(tx: &Transaction<'_>) -> Result<Term, CatalogError> {
    let term = tx.prepare_cached("SELECT term FROM leader")?.query_row([], |row| row.get(0))?;
    Ok(Term(uint("the leader's term", term)?))
}

fn generation(tx: &Transaction<'_>) -> Result<u32, CatalogError> {
    let generation: i64 = tx.query_row("SELECT generation FROM leader", [], |row| row.get(0))?;
    u32::try_from(generation).map_err(|_| CatalogError::Damaged(format!("the catalog's generation is {generation}")))
}

/// The volume, which must be there.
fn known(tx: &Transaction<'_>, volume: VolumeId) -> Result<Volume, CatalogError> {
    reader::volume(tx, volume)?.ok_or(CatalogError::UnknownVolume(volume))
}

/// Replaces a volume's list of replicas.
fn write_replicas(tx: &Transaction<'_>, volume: VolumeId, disks: &[DiskId]) -> Result<(), CatalogError> {
    let bad = |why: &str| Err(CatalogError::BadReplicas { volume, why: why.to_owned() });
    if disks.is_empty() {
        return bad("the list is empty");
    }
    if (1..disks.len()).any(|at| disks[..at].contains(&disks[at])) {
        return bad("a disk stands in the list twice");
    }
    tx.prepare_cached("DELETE FROM replicas WHERE volume = ?1")?.execute([volume.as_bytes()])?;
    let mut there = tx.prepare_cached("SELECT 1 FROM disks WHERE disk = ?1")?;
    let mut add = tx.prepare_cached("INSERT INTO replicas (volume, place, disk) VALUES (?1, ?2, ?3)")?;
    for (place, disk) in disks.iter().enumerate() {
        if there.query_row([disk.as_bytes()], |_| Ok(())).optional()?.is_none() {
            return Err(CatalogError::UnknownDisk(*disk));
        }
        add.execute((volume.as_bytes(), int("place", place as u64)?, disk.as_bytes()))?;
    }
    Ok(())
}
