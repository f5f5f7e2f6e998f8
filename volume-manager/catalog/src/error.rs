//! What can go wrong in the catalog, by what a caller can do about it.

use std::fmt;
use std::path::PathBuf;

use holdfast_libs_types::{BlockHash, CellId, DiskId, KeyId, NodeId, VolumeId, WriteEpoch};

use crate::{Term, VolumeState};

/// Why the catalog did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Others held the locks for too long; try again.
    #[error("the catalog is busy: its locks were not free in time")]
    Busy,
    /// The file system has no room.
    #[error("the catalog's file system is full: make room, nothing was changed")]
    Full,
    /// SQLite refused for another reason.
    #[error("catalog database: {0}")]
    Sql(rusqlite::Error),
    /// A MySQL server refused, or could not be reached. When the connection was lost, what was asked for may have been
    /// carried out; every call can be repeated.
    #[error("{place}: {source}{}", outcome(source))]
    Database {
        /// Which database; without user and password.
        place: String,
        /// Why.
        source: Box<mysql_async::Error>,
    },
    /// A MySQL server may forget what it acknowledged, or cannot take what is sent.
    #[error("{place}: the server's {name} is {found}, must be {wanted}; set it in the server's configuration")]
    Setting {
        /// Which database.
        place: String,
        /// Which variable of the server.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A database's address cannot be used.
    #[error("{name}: {what}; a database is named mysql://USER:PASSWORD@HOST:PORT/DATABASE")]
    BadUrl {
        /// Which key of the configuration.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The configuration of the catalog cannot be used.
    #[error("[catalog]: {0}")]
    BadConfig(String),
    /// The folder or file cannot be made or opened.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The catalog is not there yet: the volume manager has never run on it.
    #[error("{place}: not there yet; the volume manager makes it at its first start")]
    Missing {
        /// Which file or database.
        place: String,
    },
    /// A pragma that durability rests on did not take effect.
    #[error("{}: pragma {pragma} is {found}, must be {wanted}; this file system or SQLite cannot keep the catalog", path.display())]
    Pragma {
        /// Which file.
        path: PathBuf,
        /// Which pragma.
        pragma: &'static str,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// Written by a newer version of Holdfast.
    #[error("{place}: schema version {found} is newer than this program knows ({known}); run the newer version")]
    NewerSchema {
        /// Which file or database.
        place: String,
        /// Version found there.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// The file belongs to another cell.
    #[error("{place}: belongs to cell {found}, this is cell {wanted}; check the configuration")]
    ForeignCell {
        /// Which file or database.
        place: String,
        /// Cell named there.
        found: CellId,
        /// Cell of the caller.
        wanted: CellId,
    },
    /// A database, but not this one.
    #[error("{place}: {what}")]
    NotCatalog {
        /// Which file or database.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A row holds what this program never writes.
    #[error("the catalog is damaged: {0}; restore it, or rebuild the index from the disks")]
    Damaged(String),
    /// A number does not fit a column (63 bits).
    #[error("{what} {value} is too large for the catalog")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A row that cannot be right: outside its insert's end, or empty.
    #[error("index row of block {hash} is impossible: {why}")]
    BadRow {
        /// The block.
        hash: BlockHash,
        /// What is wrong.
        why: String,
    },
    /// The key id is taken by other bytes; a wrapped key is never overwritten.
    #[error("key {0} is in the keyring with other bytes; a key is never overwritten")]
    KeyTaken(KeyId),
    /// A name or address that a leader cannot have.
    #[error("{what} of {length} bytes cannot lead: it must have {wanted}")]
    BadCandidate {
        /// Name or address.
        what: &'static str,
        /// Its bytes.
        length: usize,
        /// What would do.
        wanted: &'static str,
    },
    /// A setting that cannot be kept.
    #[error("the {what} of a setting has {length} bytes, must have {wanted}")]
    BadSetting {
        /// Key or value.
        what: &'static str,
        /// Its bytes.
        length: usize,
        /// What would do.
        wanted: &'static str,
    },
    /// Another leader has taken over since.
    #[error("term {given} is over: the leader's term is {current}")]
    StaleTerm {
        /// The caller's term.
        given: Term,
        /// The term in the catalog.
        current: Term,
    },
    /// The catalog is not known to be lost or restored.
    #[error(
        "the catalog is whole as far as it knows; volumes are taken in from the disks only when it is marked as lost"
    )]
    NotLost,
    /// A volume manager leads on this catalog.
    #[error("volume manager {holder} leads this catalog, at {address}, for {} s more unless it renews: stop it first", remaining.as_secs())]
    Led {
        /// Its name.
        holder: String,
        /// Where it is reached.
        address: String,
        /// How long its lease runs.
        remaining: std::time::Duration,
    },
    /// A catalog stands where one is to be restored.
    #[error("{}: a catalog stands there; --replace moves it aside", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// The process ends.
    #[error("the catalog is not asked any more: the process ends")]
    Stopped,
    /// No such volume.
    #[error("volume {0} is not in the replication table")]
    UnknownVolume(VolumeId),
    /// The id is taken by a volume with other content.
    #[error("volume {0} exists already")]
    VolumeExists(VolumeId),
    /// The volume is not in a state that allows this.
    #[error("volume {volume} is {state}, must be {wanted}")]
    WrongState {
        /// The volume.
        volume: VolumeId,
        /// Its state.
        state: VolumeState,
        /// The states that would do.
        wanted: &'static str,
    },
    /// The volume has another epoch.
    #[error("volume {volume} is at epoch {current}, not {given}")]
    WrongEpoch {
        /// The volume.
        volume: VolumeId,
        /// The caller's epoch.
        given: WriteEpoch,
        /// The volume's epoch.
        current: WriteEpoch,
    },
    /// The list of replicas is not the expected one any more.
    #[error("volume {volume} has other replicas by now: {found:?}")]
    ReplicasChanged {
        /// The volume.
        volume: VolumeId,
        /// Its replicas.
        found: Vec<DiskId>,
    },
    /// A seal contradicts what was committed before: another digest, other replicas, no length.
    #[error("volume {volume} cannot be sealed so: {why}")]
    SealConflict {
        /// The volume.
        volume: VolumeId,
        /// What contradicts.
        why: String,
    },
    /// A list of replicas that cannot be right.
    #[error("these replicas of volume {volume} are impossible: {why}")]
    BadReplicas {
        /// The volume.
        volume: VolumeId,
        /// What is wrong.
        why: String,
    },
    /// No such disk.
    #[error("disk {0} is not in the inventory")]
    UnknownDisk(DiskId),
    /// No such node.
    #[error("node {0} is not in the inventory")]
    UnknownNode(NodeId),
    /// Volumes still name the disk.
    #[error("disk {disk} cannot be forgotten: {volumes} volumes name it")]
    DiskInUse {
        /// The disk.
        disk: DiskId,
        /// How many.
        volumes: u64,
    },
    /// The node still has disks.
    #[error("node {node} cannot be forgotten: {disks} of its disks are in the inventory")]
    NodeInUse {
        /// The node.
        node: NodeId,
        /// How many.
        disks: u64,
    },
    /// The disk is registered by another node.
    #[error("disk {disk} is registered by node {node}; only a registration moves it")]
    DiskElsewhere {
        /// The disk.
        disk: DiskId,
        /// The node that registered it.
        node: NodeId,
    },
}

/// What may have become of a transaction, where that is not plain.
fn outcome(source: &mysql_async::Error) -> &'static str {
    match source {
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(mysql_async::DriverError::ConnectionClosed) => {
            " (whether a change was made is not known; it can be repeated)"
        }
        _ => "",
    }
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Busy,
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sql(error),
        }
    }
}

/// A volume's fence does not admit this writer. Put the blocks into another volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("volume {volume} is fenced: {reason}")]
pub struct Fenced {
    /// The volume.
    pub volume: VolumeId,
    /// Why.
    pub reason: FenceReason,
}

/// Why a fence does not admit a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceReason {
    /// There is no fence row.
    Missing,
    /// It is closed.
    Closed,
    /// It is open for another epoch.
    OtherEpoch(WriteEpoch),
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it has no fence row"),
            Self::Closed => f.write_str("its fence is closed"),
            Self::OtherEpoch(epoch) => write!(f, "its fence is open for epoch {epoch}"),
        }
    }
}

/// Why an insert into one volume, or the making of its fence, failed.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The fence does not admit it.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl From<rusqlite::Error> for InsertError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Catalog(error.into())
    }
}
