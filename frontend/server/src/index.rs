//! The catalog, off the async threads: SQLite waits for the disk and for other processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_crypto::WrappedKey;
use holdfast_libs_types::{BlockHash, CellId, VolumeId};
use holdfast_volume_manager_catalog::{
    BlockIndex, CatalogError, IndexRow, ReplicaLocation, ReplicationTable, TableReader, VolumeInsert,
};
use holdfast_volume_manager_client::Replica;
use tokio::time::Instant;

/// How long a frontend waits for the volume manager to make the catalog, at the cell's first start.
const FIRST_START: Duration = Duration::from_secs(60);
const FIRST_START_STEP: Duration = Duration::from_millis(100);

/// Why the catalog gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// The database says no.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process ends.
    #[error("the catalog is not asked any more: the frontend stops")]
    Stopped,
}

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
pub(crate) struct Index(Arc<Databases>);

#[derive(Debug)]
struct Databases {
    blocks: BlockIndex,
    table: TableReader,
}

impl Index {
    /// Opens the catalog in `folder`; waits for a volume manager that is just making it.
    ///
    /// # Errors
    /// When it belongs to another cell, is of a newer version, or is not there.
    pub(crate) async fn open(folder: &Path, cell: CellId) -> Result<Self, IndexError> {
        let until = Instant::now() + FIRST_START;
        loop {
            let dir = folder.to_owned();
            let opened = off_thread(move || {
                // The table first: only the volume manager makes it. A frontend that made an index in a wrong folder
                // would answer "not found" to everything.
                let table = ReplicationTable::open_read_only(&dir, cell)?;
                Ok(Databases { blocks: BlockIndex::open(&dir, cell)?, table })
            });
            match opened.await {
                Ok(databases) => return Ok(Self(Arc::new(databases))),
                Err(IndexError::Catalog(CatalogError::Missing { .. })) if Instant::now() < until => {
                    tokio::time::sleep(FIRST_START_STEP).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Databases) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let databases = self.0.clone();
        off_thread(move || question(&databases)).await
    }

    /// Which blocks are there; those are durably marked as wanted today.
    pub(crate) async fn touch(&self, hashes: Vec<BlockHash>) -> Result<Vec<bool>, IndexError> {
        self.ask(move |databases| databases.blocks.touch(&hashes)).await
    }

    /// Where blocks are, in the order asked for.
    pub(crate) async fn lookup(&self, hashes: Vec<BlockHash>) -> Result<Vec<Option<Row>>, IndexError> {
        self.ask(move |databases| {
            let rows = databases.blocks.lookup(&hashes)?;
            let row = |(hash, row): (BlockHash, Option<IndexRow>)| {
                row.map(|IndexRow { volume, offset, length, plain_len }| Row {
                    hash,
                    volume,
                    offset,
                    length,
                    plain_len,
                })
            };
            Ok(hashes.into_iter().zip(rows).map(row).collect())
        })
        .await
    }

    /// Inserts the rows of several batches in one durable transaction.
    pub(crate) async fn insert(&self, batches: Arc<Vec<VolumeInsert>>) -> Result<Vec<Inserted>, IndexError> {
        self.ask(move |databases| {
            let results = databases.blocks.insert_many(&batches)?;
            Ok(results.into_iter().map(|result| result.map_or(Inserted::Fenced, |()| Inserted::Done)).collect())
        })
        .await
    }

    /// Stores a wrapped data key durably.
    pub(crate) async fn put_key(&self, key: WrappedKey) -> Result<(), IndexError> {
        self.ask(move |databases| databases.blocks.put_key(&key.id, &key.bytes)).await.map(drop)
    }

    /// All wrapped keys.
    pub(crate) async fn keys(&self) -> Result<Vec<WrappedKey>, IndexError> {
        self.ask(|databases| {
            let (_, keys) = databases.blocks.keys()?;
            Ok(keys.into_iter().map(|(id, bytes)| WrappedKey { id, bytes }).collect())
        })
        .await
    }

    /// Where the replicas of a volume are; none when there is no such volume.
    pub(crate) async fn locations(&self, volume: VolumeId) -> Result<Vec<Replica>, IndexError> {
        self.ask(move |databases| {
            let found = databases.table.locations(volume)?;
            let replicas = found.map(|found| found.replicas).unwrap_or_default();
            let replica = |place: ReplicaLocation| Replica {
                disk: place.disk,
                node: place.node,
                zone: place.zone,
                address: place.address,
            };
            Ok(replicas.into_iter().map(replica).collect())
        })
        .await
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, IndexError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(IndexError::Stopped),
        },
    }
}
