//! The block index: hash -> (volume, offset, length), the fence rows that guard it, and the keyring.
//!
//! Rows are many (one a block in the cell) and small, so their size decides the catalog's. Measured with 300,000 random
//! hashes: 63 bytes of file a row as inserted, 56 packed; an ordinary table with the whole volume id takes 119. Two choices:
//! - The hash is the primary key of a table WITHOUT ROWID: the row lives in the key's own tree. An ordinary table holds the
//!   32-byte hash twice, in the table and in its unique index. (119 -> 79 bytes)
//! - The 16-byte volume id is replaced by a small integer (2 bytes up to 32,767 volumes). Its side table is the fence table:
//!   inserting reads the fence row anyway, so the number costs no further look-up. (79 -> 63 bytes)
//!
//! The test `a_row_takes_less_than_seventy_bytes` watches over it.

mod fence;
mod keyring;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};

use crate::database::{Database, Schema};
use crate::{CatalogError, Fenced, InsertError};

const SCHEMA: Schema = Schema {
    file: "index.db",
    version: 1,
    // `small` numbers the volume in `blocks`. `touched` is in days since 1970.
    create: "
        CREATE TABLE fences (
            small INTEGER PRIMARY KEY,
            volume BLOB NOT NULL UNIQUE,
            epoch INTEGER NOT NULL,
            closed INTEGER NOT NULL,
            highest_end INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE blocks (
            hash BLOB PRIMARY KEY NOT NULL,
            small INTEGER NOT NULL,
            start INTEGER NOT NULL,
            length INTEGER NOT NULL,
            plain_len INTEGER NOT NULL,
            touched INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE keys (
            id BLOB PRIMARY KEY NOT NULL,
            wrapped BLOB NOT NULL,
            generation INTEGER NOT NULL UNIQUE
        ) STRICT, WITHOUT ROWID;
    ",
};

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRow {
    /// The volume that holds its record.
    pub volume: VolumeId,
    /// Where the record starts in the volume, in bytes.
    pub offset: u64,
    /// Bytes of the record, its header included.
    pub length: u32,
    /// Bytes of the block itself.
    pub plain_len: u32,
}

/// A row to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// The block.
    pub hash: BlockHash,
    /// Where its record starts in the volume, in bytes.
    pub offset: u64,
    /// Bytes of the record, its header included.
    pub length: u32,
    /// Bytes of the block itself.
    pub plain_len: u32,
}

/// The rows of one batch that all replicas have made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInsert {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch it is leased under.
    pub epoch: WriteEpoch,
    /// Where the batch ends in the volume, in bytes; no row reaches beyond it.
    pub end: u64,
    /// Its blocks.
    pub rows: Vec<NewRow>,
}

/// Data keys, each wrapped by the master key, oldest first.
pub type WrappedKeys = Vec<(KeyId, Vec<u8>)>;

/// A volume's fence row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The epoch that may insert while it is open; the closing one afterwards.
    pub epoch: WriteEpoch,
    /// Nothing is inserted any more.
    pub closed: bool,
    /// The highest end of a batch with rows, in bytes: the floor of the volume's length.
    pub highest_end: u64,
}

/// The block index of a cell. Frontends open it in their own process, beside the volume manager.
#[derive(Debug, Clone)]
pub struct BlockIndex {
    db: Database,
}

impl BlockIndex {
    /// Opens `index.db` in `dir`, making it when it is missing.
    ///
    /// # Errors
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Pragma`, `File`, `Busy`.
    pub fn open(dir: &Path, cell: CellId) -> Result<Self, CatalogError> {
        Ok(Self { db: Database::open(dir, &SCHEMA, cell)? })
    }

    /// Where each block is, in the order asked for; None when the index has no row.
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError> {
        self.db.read(|tx| hashes.iter().map(|hash| rows::lookup(tx, *hash)).collect())
    }

    /// Whether each block is there, in the order asked for. "There" is durably marked with today's date, so that garbage
    /// collection keeps the block for its grace; a block marked today already costs no write.
    ///
    /// # Errors
    /// `Busy`, `Full`, `Sql`.
    pub fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError> {
        rows::touch(&self.db, hashes, today())
    }

    /// Inserts the rows of several volumes in one transaction. Each volume's fence must be open for its epoch, otherwise
    /// that volume gets `Fenced` and none of its rows; the others are not affected. A block that has a row already keeps it
    /// (and counts as touched). Durable when this returns; can be repeated.
    ///
    /// # Errors
    /// `BadRow` and `TooLarge` for impossible rows (nothing at all is inserted), `Busy`, `Full`, `Sql`.
    pub fn insert_many(&self, inserts: &[VolumeInsert]) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
        rows::insert_many(&self.db, inserts, today())
    }

    /// [`BlockIndex::insert_many`] for one volume.
    ///
    /// # Errors
    /// `Fenced`, or those of `insert_many`.
    pub fn insert(&self, insert: &VolumeInsert) -> Result<(), InsertError> {
        for result in self.insert_many(std::slice::from_ref(insert))? {
            result?;
        }
        Ok(())
    }

    /// Makes the open fence row of a new volume. Can be repeated while it is open at the same epoch.
    ///
    /// # Errors
    /// `Fenced` when the row is closed or of another epoch.
    pub fn create_fence(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError> {
        fence::create(&self.db, volume, epoch)
    }

    /// Closes a volume's fence for good and answers the floor: the highest end that was inserted, in bytes. Makes a closed
    /// row with floor 0 when there is none, so that a late `create_fence` or `insert` is refused. Can be repeated.
    ///
    /// # Errors
    /// `Busy`, `Full`, `Sql`.
    pub fn close_fence(&self, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
        fence::close(&self.db, volume, new_epoch)
    }

    /// A volume's fence row.
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn fence(&self, volume: VolumeId) -> Result<Option<Fence>, CatalogError> {
        self.db.read(|tx| Ok(fence::find(tx, volume)?.map(|(_, fence)| fence)))
    }

    /// Keeps a wrapped data key. It must be durable here before the key seals its first block. Answers the keyring's new
    /// generation; the same key again changes nothing.
    ///
    /// # Errors
    /// `KeyTaken` when the id has other bytes.
    pub fn put_key(&self, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
        keyring::put(&self.db, key, wrapped)
    }

    /// The keyring: its generation (0 when empty, raised by each new key) and all wrapped keys, oldest first.
    ///
    /// # Errors
    /// `Sql`.
    pub fn keys(&self) -> Result<(u64, WrappedKeys), CatalogError> {
        keyring::all(&self.db)
    }

    /// How many blocks have a row. Reads the whole index: for tests and reports.
    ///
    /// # Errors
    /// `Sql`.
    pub fn count(&self) -> Result<u64, CatalogError> {
        rows::count(&self.db)
    }

    /// At most `limit` rows with hashes above `after`, in order of the hash.
    ///
    /// # Errors
    /// `Sql`, `Damaged`.
    pub fn scan(&self, after: Option<BlockHash>, limit: usize) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
        rows::scan(&self.db, after, limit)
    }
}

/// Days since 1970. A clock before that counts as day 0: a touch then writes nothing and marks never go back.
fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / 86_400).unwrap_or(i64::MAX)
}
