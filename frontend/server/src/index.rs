//! The catalog, in the frontend's words.

use std::time::Duration;

use holdfast_libs_crypto::WrappedKey;
use holdfast_libs_types::{BlockHash, CellId, VolumeId};
use holdfast_volume_manager_catalog::{
    CatalogError, CatalogStore, FrontendCatalog, IndexRow, ReplicaLocation, VolumeInsert,
};
use holdfast_volume_manager_client::Replica;
use tokio::time::Instant;

/// How long a frontend waits for the volume manager to make the catalog, at the cell's first start.
const FIRST_START: Duration = Duration::from_secs(60);
const FIRST_START_STEP: Duration = Duration::from_millis(100);

/// Where a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) hash: BlockHash,
    pub(crate) volume: VolumeId,
    /// Where its record starts in the volume, bytes.
    pub(crate) offset: u64,
    /// Bytes of the record.
    pub(crate) length: u32,
    /// Bytes of the block.
    pub(crate) plain_len: u32,
}

/// What became of a batch's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// They are durable.
    Done,
    /// The volume's fence refused them.
    Fenced,
}

/// The catalog, as the frontend uses it: it writes the index and reads the table.
#[derive(Debug, Clone)]
pub(crate) struct Index(FrontendCatalog);

impl Index {
    /// Opens the catalog; waits for a volume manager that is just making it.
    ///
    /// # Errors
    /// When it belongs to another cell, is of a newer version, or is not there.
    pub(crate) async fn open(store: &CatalogStore, cell: CellId) -> Result<Self, CatalogError> {
        let until = Instant::now() + FIRST_START;
        loop {
            match store.open_for_frontend(cell).await {
                Ok(catalog) => return Ok(Self(catalog)),
                Err(CatalogError::Missing { .. }) if Instant::now() < until => {
                    tokio::time::sleep(FIRST_START_STEP).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Which blocks are there; those are durably marked as wanted today.
    pub(crate) async fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError> {
        self.0.index.touch(hashes).await
    }

    /// Where blocks are, in the order asked for.
    pub(crate) async fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<Row>>, CatalogError> {
        let rows = self.0.index.lookup(hashes).await?;
        let row = |(hash, row): (&BlockHash, Option<IndexRow>)| {
            row.map(|IndexRow { volume, offset, length, plain_len }| Row {
                hash: *hash,
                volume,
                offset,
                length,
                plain_len,
            })
        };
        Ok(hashes.iter().zip(rows).map(row).collect())
    }

    /// Inserts the rows of several batches durably.
    pub(crate) async fn insert(&self, batches: &[VolumeInsert]) -> Result<Vec<Inserted>, CatalogError> {
        let results = self.0.index.insert_many(batches).await?;
        Ok(results.into_iter().map(|result| result.map_or(Inserted::Fenced, |()| Inserted::Done)).collect())
    }

    /// Stores a wrapped data key durably.
    pub(crate) async fn put_key(&self, key: &WrappedKey) -> Result<(), CatalogError> {
        self.0.index.put_key(&key.id, &key.bytes).await.map(drop)
    }

    /// All wrapped keys.
    pub(crate) async fn keys(&self) -> Result<Vec<WrappedKey>, CatalogError> {
        let (_, keys) = self.0.index.keys().await?;
        Ok(keys.into_iter().map(|(id, bytes)| WrappedKey { id, bytes }).collect())
    }

    /// Why the catalog may lack what the disks have, if so: it was lost, or restored from an older copy, and is not rebuilt yet.
    pub(crate) async fn not_whole(&self) -> Result<Option<String>, CatalogError> {
        self.0.table.lost().await
    }

    /// Where the replicas of a volume are; none when there is no such volume.
    pub(crate) async fn locations(&self, volume: VolumeId) -> Result<Vec<Replica>, CatalogError> {
        let found = self.0.table.locations(volume).await?;
        let replicas = found.map(|found| found.replicas).unwrap_or_default();
        let replica = |place: ReplicaLocation| Replica {
            disk: place.disk,
            node: place.node,
            zone: place.zone,
            address: place.address,
        };
        Ok(replicas.into_iter().map(replica).collect())
    }
}
