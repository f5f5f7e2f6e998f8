//! The replication table in one MySQL database.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_libs_types::{CellId, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};

use super::database::{Database, retry, to_the_end, values};
use super::schema::{Identity, Part, prepare};
use super::url::DatabaseUrl;
use super::{reader, recovery, writer};
use crate::number::int;
use crate::table::{
    Candidate, Disk, DiskInfo, FoundVolume, Leader, Leadership, LengthCommitted, NewVolume, Node, Registration,
    ReplicationTable, TableReader, Term, Volume, VolumeLocations, VolumeState,
};
use crate::{CatalogError, rules};

/// The table in a MySQL database. Whoever only reads it needs no other right there than SELECT.
#[derive(Debug, Clone)]
pub struct MysqlTable(Database);

impl MysqlTable {
    /// Opens the database of a catalog whose index has `shards` databases; with `make`, a schema that is missing is made.
    ///
    /// # Errors
    /// `BadUrl`, `Setting`, `Missing`, `NewerSchema`, `ForeignCell`, `NotCatalog`, `Database`.
    pub async fn open(url: &DatabaseUrl, shards: usize, cell: CellId, make: bool) -> Result<Self, CatalogError> {
        let database = Database::new(url)?;
        prepare(&database, Identity { cell, part: Part::Table, shards }, make).await?;
        Ok(Self(database))
    }
}

/// A write: tried until it is done, and to its end.
macro_rules! write {
    ($self:ident, $write:ident($($argument:expr),*)) => { write!($self, writer::$write($($argument),*)) };
    ($self:ident, $place:ident::$write:ident($($argument:expr),*)) => {{
        let database = $self.0.clone();
        to_the_end(async move { retry(&database, || $place::$write(&database, $($argument),*)).await }).await
    }};
}

#[async_trait]
impl TableReader for MysqlTable {
    async fn term(&self) -> Result<Term, CatalogError> {
        retry(&self.0, || reader::term(&self.0)).await
    }

    async fn leader(&self) -> Result<Option<Leader>, CatalogError> {
        retry(&self.0, || reader::leader(&self.0)).await
    }

    async fn generation(&self) -> Result<u32, CatalogError> {
        retry(&self.0, || reader::generation(&self.0)).await
    }

    async fn lost(&self) -> Result<Option<String>, CatalogError> {
        retry(&self.0, || recovery::lost(&self.0)).await
    }

    async fn volume(&self, volume: VolumeId) -> Result<Option<Volume>, CatalogError> {
        retry(&self.0, || reader::volume(&self.0, volume)).await
    }

    async fn volumes(&self) -> Result<Vec<Volume>, CatalogError> {
        retry(&self.0, || reader::volumes(&self.0, "", values![])).await
    }

    async fn volumes_after(
        &self,
        after: Option<VolumeId>,
        on: Option<DiskId>,
        limit: usize,
    ) -> Result<Vec<Volume>, CatalogError> {
        retry(&self.0, || reader::volumes_after(&self.0, after, on, limit)).await
    }

    async fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
        retry(&self.0, || reader::volumes_in(&self.0, states)).await
    }

    async fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError> {
        let now = int("the time", now_ms)?;
        let expired = "WHERE state IN ('creating', 'open') AND lease_expires_ms <= ?";
        retry(&self.0, || reader::volumes(&self.0, expired, values![now])).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        retry(&self.0, || reader::nodes(&self.0)).await
    }

    async fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        retry(&self.0, || reader::disks(&self.0)).await
    }

    async fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        retry(&self.0, || reader::settings(&self.0)).await
    }

    async fn locations(&self, volume: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
        retry(&self.0, || reader::locations(&self.0, volume)).await
    }
}

#[async_trait]
impl ReplicationTable for MysqlTable {
    async fn acquire_leadership(&self, candidate: &Candidate, ttl: Duration) -> Result<Leadership, CatalogError> {
        rules::check_candidate(candidate)?;
        let candidate = candidate.clone();
        write!(self, acquire_leadership(&candidate, ttl))
    }

    async fn renew_leadership(&self, term: Term, ttl: Duration) -> Result<(), CatalogError> {
        write!(self, renew_leadership(term, ttl))
    }

    async fn release_leadership(&self, term: Term) -> Result<(), CatalogError> {
        write!(self, release_leadership(term))
    }

    async fn take_leadership(&self) -> Result<Term, CatalogError> {
        write!(self, take_leadership())
    }

    async fn raise_generation(&self, term: Term) -> Result<u32, CatalogError> {
        write!(self, raise_generation(term))
    }

    async fn mark_lost(&self, term: Term, why: &str) -> Result<(), CatalogError> {
        let why = why.to_owned();
        write!(self, recovery::mark_lost(term, &why))
    }

    async fn raise_term(&self, term: Term, above: Term) -> Result<(), CatalogError> {
        write!(self, recovery::raise_term(term, above))
    }

    async fn take_in(&self, term: Term, found: &FoundVolume) -> Result<(), CatalogError> {
        let found = found.clone();
        write!(self, recovery::take_in(term, &found))
    }

    async fn forget_unsealed(&self, term: Term) -> Result<u64, CatalogError> {
        write!(self, recovery::forget_unsealed(term))
    }

    async fn recovered(&self, term: Term, above: u32) -> Result<(), CatalogError> {
        write!(self, recovery::recovered(term, above))
    }

    async fn create_volume(&self, term: Term, new: &NewVolume) -> Result<(), CatalogError> {
        let new = new.clone();
        write!(self, create_volume(term, &new))
    }

    async fn open_volume(&self, term: Term, volume: VolumeId) -> Result<(), CatalogError> {
        write!(self, open_volume(term, volume))
    }

    async fn fail_volume(&self, term: Term, volume: VolumeId, reason: &str) -> Result<(), CatalogError> {
        let reason = reason.to_owned();
        write!(self, fail_volume(term, volume, &reason))
    }

    async fn renew_leases(
        &self,
        term: Term,
        holder: InstanceId,
        volumes: &[VolumeId],
        expires_ms: u64,
    ) -> Result<Vec<VolumeId>, CatalogError> {
        let volumes = volumes.to_vec();
        write!(self, renew_leases(term, holder, &volumes, expires_ms))
    }

    async fn set_replicas(
        &self,
        term: Term,
        volume: VolumeId,
        expected_old: &[DiskId],
        new: &[DiskId],
    ) -> Result<(), CatalogError> {
        let (old, new) = (expected_old.to_vec(), new.to_vec());
        write!(self, set_replicas(term, volume, &old, &new))
    }

    async fn begin_seal(
        &self,
        term: Term,
        volume: VolumeId,
        from_epoch: WriteEpoch,
        reason: &str,
    ) -> Result<WriteEpoch, CatalogError> {
        let reason = reason.to_owned();
        write!(self, begin_seal(term, volume, from_epoch, &reason))
    }

    async fn commit_length(
        &self,
        term: Term,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
    ) -> Result<LengthCommitted, CatalogError> {
        write!(self, commit_length(term, volume, epoch, length))
    }

    async fn commit_seal(
        &self,
        term: Term,
        volume: VolumeId,
        digest: [u8; 32],
        replicas: &[DiskId],
    ) -> Result<(), CatalogError> {
        let replicas = replicas.to_vec();
        write!(self, commit_seal(term, volume, &digest, &replicas))
    }

    async fn upsert_node(&self, term: Term, node: &Node) -> Result<(), CatalogError> {
        let node = node.clone();
        write!(self, upsert_node(term, &node))
    }

    async fn upsert_disk(&self, term: Term, info: &DiskInfo) -> Result<(), CatalogError> {
        let info = info.clone();
        write!(self, upsert_disk(term, &info))
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
        write!(self, register_disk_incarnation(term, &info, previous_nonce, incarnation, nonce))
    }

    async fn forget_disk(&self, term: Term, disk: DiskId) -> Result<(), CatalogError> {
        write!(self, forget_disk(term, disk))
    }

    async fn forget_node(&self, term: Term, node: &NodeId) -> Result<(), CatalogError> {
        let node = node.clone();
        write!(self, forget_node(term, &node))
    }

    async fn set_setting(&self, term: Term, key: &str, value: Option<&str>) -> Result<(), CatalogError> {
        rules::check_setting(key, value)?;
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        write!(self, set_setting(term, &key, value.as_deref()))
    }
}
