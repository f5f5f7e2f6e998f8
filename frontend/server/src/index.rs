//! The catalog, off the async threads: SQLite waits for the disk. Interim: in memory until the catalog's library is in.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_libs_crypto::WrappedKey;
use holdfast_libs_types::{BlockHash, VolumeId, WriteEpoch};
use holdfast_volume_manager_client::Replica;

/// Why the catalog gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct IndexError(String);

/// Where a block is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) hash: BlockHash,
    pub(crate) volume: VolumeId,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// The rows of one batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchRows {
    pub(crate) volume: VolumeId,
    pub(crate) epoch: WriteEpoch,
    /// The batch's end in the volume, bytes.
    pub(crate) end: u64,
    pub(crate) rows: Vec<Row>,
}

/// What became of a batch's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// They are durable.
    Done,
    /// The volume's fence refused them.
    Fenced,
}

/// The catalog, as the frontend uses it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index(Arc<Mutex<(HashMap<BlockHash, Row>, Vec<WrappedKey>)>>);

impl Index {
    pub(crate) async fn open(_: &Path) -> Result<Self, IndexError> {
        Ok(Self::default())
    }
    pub(crate) async fn touch(&self, hashes: Vec<BlockHash>) -> Result<Vec<bool>, IndexError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(hashes.iter().map(|hash| inner.0.contains_key(hash)).collect())
    }
    pub(crate) async fn lookup(&self, hashes: Vec<BlockHash>) -> Result<Vec<Option<Row>>, IndexError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(hashes.iter().map(|hash| inner.0.get(hash).cloned()).collect())
    }
    pub(crate) async fn insert(&self, batches: Arc<Vec<BatchRows>>) -> Result<Vec<Inserted>, IndexError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in batches.iter().flat_map(|batch| &batch.rows) {
            inner.0.insert(row.hash, row.clone());
        }
        Ok(batches.iter().map(|_| Inserted::Done).collect())
    }
    pub(crate) async fn put_key(&self, key: WrappedKey) -> Result<(), IndexError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(key);
        Ok(())
    }
    pub(crate) async fn keys(&self) -> Result<Vec<WrappedKey>, IndexError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone())
    }
    pub(crate) async fn locations(&self, volume: VolumeId) -> Result<Vec<Replica>, IndexError> {
        let leases = LEASES.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(leases.iter().find(|lease| lease.volume == volume).map(|lease| lease.replicas.clone()).unwrap_or_default())
    }
}
pub(crate) static LEASES: Mutex<Vec<holdfast_volume_manager_client::LeasedVolume>> = Mutex::new(Vec::new());
