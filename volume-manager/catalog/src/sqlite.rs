//! The catalog in two SQLite files, `index.db` and `table.db`, for a cell whose volume manager and frontends share a machine.
//!
//! `calls` tells how a call gets to a file.

mod calls;
pub mod copies;
mod database;
mod index;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_libs_types::{BlockHash, CellId, DiskId, InstanceId, KeyId, NodeId, VolumeId, WriteEpoch};

pub use self::calls::{SimulatedCalls, SqliteCalls};
use self::index::IndexFile;
use self::table::{TableFile, TableFileReader};
use crate::index::{BlockIndex, Fence, IndexRow, VolumeInsert, WrappedKeys};
use crate::table::{
    Candidate, Disk, DiskInfo, FoundVolume, Leader, Leadership, LengthCommitted, NewVolume, Node, Registration,
    ReplicationTable, TableReader, Term, Volume, VolumeLocations, VolumeState,
};
use crate::{CatalogError, Fenced, InsertError};

/// `index.db`.
#[derive(Debug, Clone)]
pub struct SqliteIndex {
    file: IndexFile,
    calls: SqliteCalls,
}

impl SqliteIndex {
    /// Opens `index.db` in its folder, making it when it is missing.
    ///
    /// # Errors
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Pragma`, `File`, `Busy`.
    pub async fn open(calls: &SqliteCalls, cell: CellId) -> Result<Self, CatalogError> {
        let (folder, clock) = (calls.folder.clone(), calls.clock.clone());
        let file = calls.make(move || IndexFile::open(&folder, cell, clock)).await?;
        Ok(Self { file, calls: calls.clone() })
    }

    async fn ask<T: Send + 'static, E: From<CatalogError> + Send + 'static>(
        &self,
        work: impl FnOnce(&IndexFile) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let file = self.file.clone();
        self.calls.make(move || work(&file)).await
    }
}

#[async_trait]
impl BlockIndex for SqliteIndex {
    async fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError> {
        let hashes = hashes.to_vec();
        self.ask(move |file| file.lookup(&hashes)).await
    }

    async fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError> {
        let hashes = hashes.to_vec();
        self.ask(move |file| file.touch(&hashes)).await
    }

    async fn insert_many(&self, inserts: &[VolumeInsert]) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
        let inserts = inserts.to_vec();
        self.ask(move |file| file.insert_many(&inserts)).await
    }

    async fn create_fence(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError> {
        self.ask(move |file| file.create_fence(volume, epoch)).await
    }

    async fn close_fence(&self, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
        self.ask(move |file| file.close_fence(volume, new_epoch)).await
    }

    async fn fence(&self, volume: VolumeId) -> Result<Option<Fence>, CatalogError> {
        self.ask(move |file| file.fence(volume)).await
    }

    async fn put_key(&self, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
        let (key, wrapped) = (*key, wrapped.to_vec());
        self.ask(move |file| file.put_key(&key, &wrapped)).await
    }

    async fn keys(&self) -> Result<(u64, WrappedKeys), CatalogError> {
        self.ask(IndexFile::keys).await
    }

    async fn keyring_generation(&self) -> Result<u64, CatalogError> {
        self.ask(IndexFile::keyring_generation).await
    }

    async fn count(&self) -> Result<u64, CatalogError> {
        self.ask(IndexFile::count).await
    }

    async fn scan(&self, after: Option<BlockHash>, limit: usize) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
        self.ask(move |file| file.scan(after, limit)).await
    }
}

/// `table.db`, for reading.
#[derive(Debug, Clone)]
pub struct SqliteReader {
    file: TableFileReader,
    calls: SqliteCalls,
}

impl SqliteReader {
    /// Opens `table.db` in its folder; it must be there.
    ///
    /// # Errors
    /// `Missing` before the volume manager's first start; otherwise as [`SqliteTable::open`].
    pub async fn open(calls: &SqliteCalls, cell: CellId) -> Result<Self, CatalogError> {
        let (folder, clock) = (calls.folder.clone(), calls.clock.clone());
        let file = calls.make(move || TableFile::open_read_only(&folder, cell, clock)).await?;
        Ok(Self { file, calls: calls.clone() })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TableFileReader) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let file = self.file.clone();
        self.calls.make(move || work(&file)).await
    }
}

#[async_trait]
impl TableReader for SqliteReader {
    async fn term(&self) -> Result<Term, CatalogError> {
        self.ask(TableFileReader::term).await
    }

    async fn leader(&self) -> Result<Option<Leader>, CatalogError> {
        self.ask(TableFileReader::leader).await
    }

    async fn generation(&self) -> Result<u32, CatalogError> {
        self.ask(TableFileReader::generation).await
    }

    async fn lost(&self) -> Result<Option<String>, CatalogError> {
        self.ask(TableFileReader::lost).await
    }

    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, CatalogError> {
        self.ask(move |file| file.volume(volume)).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, CatalogError> {
        self.ask(TableFileReader::volumes).await
    }

    async fn volumes_after(
        &self,
        after: Option<VolumeId>,
        on: Option<DiskId>,
        limit: usize,
    ) -> Result<Vec<Volume>, CatalogError> {
        self.ask(move |file| file.volumes_after(after, on, limit)).await
    }

    async fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
        let states = states.to_vec();
        self.ask(move |file| file.volumes_in(&states)).await
    }

    async fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError> {
        self.ask(move |file| file.expired_leases(now_ms)).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        self.ask(TableFileReader::nodes).await
    }

    async fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        self.ask(TableFileReader::disks).await
    }

    async fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        self.ask(TableFileReader::settings).await
    }

    async fn locations(&self, volume: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
        self.ask(move |file| file.locations(volume)).await
    }
}

/// `table.db`.
#[derive(Debug, Clone)]
pub struct SqliteTable {
    file: TableFile,
    reader: SqliteReader,
}

impl SqliteTable {
    /// Opens `table.db` in its folder, making it when it is missing.
    ///
    /// # Errors
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Pragma`, `File`, `Busy`.
    pub async fn open(calls: &SqliteCalls, cell: CellId) -> Result<Self, CatalogError> {
        let (folder, clock) = (calls.folder.clone(), calls.clock.clone());
        let file = calls.make(move || TableFile::open(&folder, cell, clock)).await?;
        Ok(Self { reader: SqliteReader { file: file.reader().clone(), calls: calls.clone() }, file })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TableFile) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let file = self.file.clone();
        self.reader.calls.make(move || work(&file)).await
    }
}

#[async_trait]
impl TableReader for SqliteTable {
    async fn term(&self) -> Result<Term, CatalogError> {
        self.reader.term().await
    }

    async fn leader(&self) -> Result<Option<Leader>, CatalogError> {
        self.reader.leader().await
    }

    async fn generation(&self) -> Result<u32, CatalogError> {
        self.reader.generation().await
    }

    async fn lost(&self) -> Result<Option<String>, CatalogError> {
        self.reader.lost().await
    }

    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, CatalogError> {
        self.reader.volume(volume).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, CatalogError> {
        self.reader.volumes().await
    }

    async fn volumes_after(
        &self,
        after: Option<VolumeId>,
        on: Option<DiskId>,
        limit: usize,
    ) -> Result<Vec<Volume>, CatalogError> {
        self.reader.volumes_after(after, on, limit).await
    }

    async fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
        self.reader.volumes_in(states).await
    }

    async fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError> {
        self.reader.expired_leases(now_ms).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        self.reader.nodes().await
    }

    async fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        self.reader.disks().await
    }

    async fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        self.reader.settings().await
    }

    async fn locations(&self, volume: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
        self.reader.locations(volume).await
    }
}

#[async_trait]
impl ReplicationTable for SqliteTable {
    async fn acquire_leadership(&self, candidate: &Candidate, ttl: Duration) -> Result<Leadership, CatalogError> {
        let candidate = candidate.clone();
        self.ask(move |file| file.acquire_leadership(&candidate, ttl)).await
    }

    async fn renew_leadership(&self, term: Term, ttl: Duration) -> Result<(), CatalogError> {
        self.ask(move |file| file.renew_leadership(term, ttl)).await
    }

    async fn release_leadership(&self, term: Term) -> Result<(), CatalogError> {
        self.ask(move |file| file.release_leadership(term)).await
    }

    async fn take_leadership(&self) -> Result<Term, CatalogError> {
        self.ask(TableFile::take_leadership).await
    }

    async fn raise_generation(&self, term: Term) -> Result<u32, CatalogError> {
        self.ask(move |file| file.raise_generation(term)).await
    }

    async fn mark_lost(&self, term: Term, why: &str) -> Result<(), CatalogError> {
        let why = why.to_owned();
        self.ask(move |file| file.mark_lost(term, &why)).await
    }

    async fn raise_term(&self, term: Term, above: Term) -> Result<(), CatalogError> {
        self.ask(move |file| file.raise_term(term, above)).await
    }

    async fn take_in(&self, term: Term, found: &FoundVolume) -> Result<(), CatalogError> {
        let found = found.clone();
        self.ask(move |file| file.take_in(term, &found)).await
    }

    async fn forget_unsealed(&self, term: Term) -> Result<u64, CatalogError> {
        self.ask(move |file| file.forget_unsealed(term)).await
    }

    async fn recovered(&self, term: Term, above: u32) -> Result<(), CatalogError> {
        self.ask(move |file| file.recovered(term, above)).await
    }

    async fn create_volume(&self, term: Term, new: &NewVolume) -> Result<(), CatalogError> {
        let new = new.clone();
        self.ask(move |file| file.create_volume(term, &new)).await
    }

    async fn open_volume(&self, term: Term, volume: VolumeId) -> Result<(), CatalogError> {
        self.ask(move |file| file.open_volume(term, volume)).await
    }

    async fn fail_volume(&self, term: Term, volume: VolumeId, reason: &str) -> Result<(), CatalogError> {
        let reason = reason.to_owned();
        self.ask(move |file| file.fail_volume(term, volume, &reason)).await
    }

    async fn renew_leases(
        &self,
        term: Term,
        holder: InstanceId,
        volumes: &[VolumeId],
        expires_ms: u64,
    ) -> Result<Vec<VolumeId>, CatalogError> {
        let volumes = volumes.to_vec();
        self.ask(move |file| file.renew_leases(term, holder, &volumes, expires_ms)).await
    }

    async fn set_replicas(
        &self,
        term: Term,
        volume: VolumeId,
        expected_old: &[DiskId],
        new: &[DiskId],
    ) -> Result<(), CatalogError> {
        let (old, new) = (expected_old.to_vec(), new.to_vec());
        self.ask(move |file| file.set_replicas(term, volume, &old, &new)).await
    }

    async fn begin_seal(
        &self,
        term: Term,
        volume: VolumeId,
        from_epoch: WriteEpoch,
        reason: &str,
    ) -> Result<WriteEpoch, CatalogError> {
        let reason = reason.to_owned();
        self.ask(move |file| file.begin_seal(term, volume, from_epoch, &reason)).await
    }

    async fn commit_length(
        &self,
        term: Term,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
    ) -> Result<LengthCommitted, CatalogError> {
        self.ask(move |file| file.commit_length(term, volume, epoch, length)).await
    }

    async fn commit_seal(
        &self,
        term: Term,
        volume: VolumeId,
        digest: [u8; 32],
        replicas: &[DiskId],
    ) -> Result<(), CatalogError> {
        let replicas = replicas.to_vec();
        self.ask(move |file| file.commit_seal(term, volume, digest, &replicas)).await
    }

    async fn upsert_node(&self, term: Term, node: &Node) -> Result<(), CatalogError> {
        let node = node.clone();
        self.ask(move |file| file.upsert_node(term, &node)).await
    }

    async fn upsert_disk(&self, term: Term, info: &DiskInfo) -> Result<(), CatalogError> {
        let info = info.clone();
        self.ask(move |file| file.upsert_disk(term, &info)).await
    }

    async fn register_disk_incarnation(
        &self,
        term: Term,
        info: &DiskInfo,
        previous_nonce: u64,
        incarnation: u64,
        nonce: u64,
    ) -> Result<Registration, CatalogError> {
        let info = info.clone();
        self.ask(move |file| file.register_disk_incarnation(term, &info, previous_nonce, incarnation, nonce)).await
    }

    async fn forget_disk(&self, term: Term, disk: DiskId) -> Result<(), CatalogError> {
        self.ask(move |file| file.forget_disk(term, disk)).await
    }

    async fn forget_node(&self, term: Term, node: &NodeId) -> Result<(), CatalogError> {
        let node = node.clone();
        self.ask(move |file| file.forget_node(term, &node)).await
    }

    async fn set_setting(&self, term: Term, key: &str, value: Option<&str>) -> Result<(), CatalogError> {
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        self.ask(move |file| file.set_setting(term, &key, value.as_deref())).await
    }
}
