//! `index.db`: the block index, its fence rows and the keyring.
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

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};

use super::database::{Database, Schema};
use crate::index::{Fence, IndexRow, VolumeInsert, WrappedKeys, today};
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
    migrations: &[],
};

/// `index.db`: what `BlockIndex` promises, as calls that block on the disk.
#[derive(Debug, Clone)]
pub struct IndexFile {
    db: Database,
    clock: WallClock,
}

impl IndexFile {
    pub fn open(dir: &Path, cell: CellId, clock: WallClock) -> Result<Self, CatalogError> {
        Ok(Self { db: Database::open(dir, &SCHEMA, cell)?, clock })
    }

    pub fn open_read_only(dir: &Path, cell: CellId, clock: WallClock) -> Result<Self, CatalogError> {
        Ok(Self { db: Database::open_read_only(dir, &SCHEMA, cell)?, clock })
    }

    pub fn copy_into(&self, path: &Path) -> Result<(), CatalogError> {
        self.db.copy_into(path)
    }

    pub fn settle(&self) -> Result<(), CatalogError> {
        self.db.settle()
    }

    pub fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError> {
        self.db.read(|tx| hashes.iter().map(|hash| rows::lookup(tx, *hash)).collect())
    }

    pub fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError> {
        rows::touch(&self.db, hashes, today(&self.clock))
    }

    pub fn insert_many(&self, inserts: &[VolumeInsert]) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
        rows::insert_many(&self.db, inserts, today(&self.clock))
    }

    pub fn create_fence(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError> {
        fence::create(&self.db, volume, epoch)
    }

    pub fn close_fence(&self, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
        fence::close(&self.db, volume, new_epoch)
    }

    pub fn fence(&self, volume: VolumeId) -> Result<Option<Fence>, CatalogError> {
        self.db.read(|tx| Ok(fence::find(tx, volume)?.map(|(_, fence)| fence)))
    }

    pub fn put_key(&self, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
        keyring::put(&self.db, key, wrapped)
    }

    pub fn keys(&self) -> Result<(u64, WrappedKeys), CatalogError> {
        keyring::all(&self.db)
    }

    pub fn keyring_generation(&self) -> Result<u64, CatalogError> {
        keyring::generation(&self.db)
    }

    pub fn count(&self) -> Result<u64, CatalogError> {
        rows::count(&self.db)
    }

    pub fn scan(&self, after: Option<BlockHash>, limit: usize) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
        rows::scan(&self.db, after, limit)
    }
}
