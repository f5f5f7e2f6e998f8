//! Calls to one node.

use std::time::Duration;

use bytes::Bytes;
use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
use http::Method;

use crate::messages::{
    CancelCopy, CopyRequest, CreateExtent, ExtentInfo, FenceRequest, Health, KeyringBody, KeyringStored, NodeStatus,
    OperatorRestore, RecordInfo, RestoreRequest, ScrubOrder, ScrubStatus, SealRequest, Sealed, Tail, TrashRequest,
    TrashStatus,
};
use crate::places::{Adopted, LocateOrder, Located, Place, PlaceAsk};

/// Control calls answer within this; a copy of a whole volume has [`COPY_DEADLINE`].
const DEADLINE: Duration = Duration::from_secs(30);

/// A seal reads the whole volume back, a copy moves it.
const COPY_DEADLINE: Duration = Duration::from_secs(600);

/// Most raw bytes one read may ask for.
pub const MAX_READ_BYTES: usize = 8 * 1024 * 1024;

/// A client for the node at one address.
#[derive(Debug, Clone)]
pub struct NodeClient {
    http: HttpClient,
    address: String,
    deadline: Duration,
}

impl NodeClient {
    /// `address` is `https://HOST:PORT`; `http` carries the caller's service token.
    pub fn new(http: HttpClient, address: impl Into<String>) -> Self {
        Self { http, address: address.into(), deadline: DEADLINE }
    }

    /// The same with another deadline for every call that has no own one and is none for minutes: 30 s without this.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The node's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The node and its disks.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn status(&self) -> Result<NodeStatus, CallError> {
        self.http.get_json(&format!("{}/v1/status", self.address), self.deadline).await
    }

    /// Whether the node can do its work, and why not.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn health(&self) -> Result<Health, CallError> {
        self.http.get_json(&format!("{}/v1/health", self.address), self.deadline).await
    }

    /// All extents of a disk.
    ///
    /// # Errors
    /// `unknown_disk`.
    pub async fn extents(&self, disk: DiskId) -> Result<Vec<ExtentInfo>, CallError> {
        self.http.get_json(&format!("{}/v1/disks/{disk}/extents", self.address), self.deadline).await
    }

    /// What a disk holds of one volume, as the disk knows it; nothing is read for it.
    ///
    /// # Errors
    /// `unknown_disk`, `unknown_volume`.
    pub async fn extent(&self, disk: DiskId, volume: VolumeId) -> Result<ExtentInfo, CallError> {
        self.http.get_json(&format!("{}/v1/disks/{disk}/extents/{volume}", self.address), self.deadline).await
    }

    /// The records of a sealed extent, in the order of the volume.
    ///
    /// # Errors
    /// `unknown_disk`, `unknown_volume`, `wrong_state` (not sealed), `damaged` (its footer is).
    pub async fn records(&self, disk: DiskId, volume: VolumeId) -> Result<Vec<RecordInfo>, CallError> {
        self.http.get_json(&format!("{}/v1/disks/{disk}/records/{volume}", self.address), self.deadline).await
    }

    /// Puts an extent into the trash.
    ///
    /// # Errors
    /// `wrong_order`, `stale_term`, `unknown_volume`, `wrong_state` (an unfinished copy), `read_only`.
    pub async fn trash(&self, request: &TrashRequest) -> Result<serde_json::Value, CallError> {
        self.http.post_json(&format!("{}/v1/trash", self.address), request, self.deadline).await
    }

    /// Takes an extent out of the trash again.
    ///
    /// # Errors
    /// `wrong_order`, `stale_term`, `unknown_volume` (erased already).
    pub async fn restore(&self, request: &RestoreRequest) -> Result<serde_json::Value, CallError> {
        self.http.post_json(&format!("{}/v1/restore", self.address), request, self.deadline).await
    }

    /// What is in the trash of a disk, and what the watcher over erasures saw.
    ///
    /// # Errors
    /// `unknown_disk`.
    pub async fn trash_of(&self, disk: DiskId) -> Result<TrashStatus, CallError> {
        self.http.get_json(&format!("{}/v1/disks/{disk}/trash", self.address), self.deadline).await
    }

    /// Takes an extent out of the trash, by an operator's order.
    ///
    /// # Errors
    /// `wrong_order`, `unknown_volume` (erased already).
    pub async fn restore_by_operator(
        &self,
        disk: DiskId,
        request: &OperatorRestore,
    ) -> Result<serde_json::Value, CallError> {
        self.http.post_json(&format!("{}/v1/disks/{disk}/restore", self.address), request, self.deadline).await
    }

    /// Has the node look for disks at once, also at those that could not be opened before; answers what it found.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn rescan(&self) -> Result<NodeStatus, CallError> {
        self.http.post_json(&format!("{}/v1/disks/rescan", self.address), &serde_json::json!({}), self.deadline).await
    }

    /// What stands at the place of a disk now (role admin).
    ///
    /// # Errors
    /// `unknown_place`.
    pub async fn look_at_place(&self, ask: &PlaceAsk) -> Result<Place, CallError> {
        self.http.post_json(&format!("{}/v1/places/look", self.address), ask, self.deadline).await
    }

    /// Switches the light of a disk's place (role admin).
    ///
    /// # Errors
    /// `no_light`.
    pub async fn locate(&self, order: &LocateOrder) -> Result<Located, CallError> {
        self.http.post_json(&format!("{}/v1/places/locate", self.address), order, self.deadline).await
    }

    /// Has the node make a disk of the blank device or file at a place, and use it (role admin).
    ///
    /// # Errors
    /// `unknown_place`, `not_blank`, `in_use`.
    pub async fn adopt(&self, ask: &PlaceAsk) -> Result<Adopted, CallError> {
        self.http.post_json(&format!("{}/v1/places/adopt", self.address), ask, COPY_DEADLINE).await
    }

    /// How far the scrub of a disk is.
    ///
    /// # Errors
    /// `unknown_disk`.
    pub async fn scrub(&self, disk: DiskId) -> Result<ScrubStatus, CallError> {
        self.http.get_json(&format!("{}/v1/disks/{disk}/scrub", self.address), self.deadline).await
    }

    /// Starts, pauses or resumes the scrub of a disk, or changes its pace.
    ///
    /// # Errors
    /// `unknown_disk`, `bad_request`.
    pub async fn order_scrub(&self, disk: DiskId, order: &ScrubOrder) -> Result<ScrubStatus, CallError> {
        self.http.post_json(&format!("{}/v1/disks/{disk}/scrub", self.address), order, self.deadline).await
    }

    /// Makes an extent. Repeating it with the same epoch is harmless while the extent is empty.
    ///
    /// # Errors
    /// `no_space`, `already_exists`, `read_only`, `stale_term`.
    pub async fn create_extent(&self, request: &CreateExtent) -> Result<Tail, CallError> {
        self.http.post_json(&format!("{}/v1/extents", self.address), request, self.deadline).await
    }

    /// Appends one batch; the answer means durable.
    ///
    /// # Errors
    /// `busy`, `fenced`, `not_tail`, `conflicting_repeat`, `invalid_batch`, `volume_full`, `read_only`,
    /// `disk_failed`. After `Unreachable` or `Timeout` only the very same bytes may be sent again.
    pub async fn append(
        &self,
        disk: DiskId,
        volume: VolumeId,
        epoch: WriteEpoch,
        offset: u64,
        batch: Bytes,
        deadline: Duration,
    ) -> Result<Tail, CallError> {
        let url = format!("{}/v1/disks/{disk}/volumes/{volume}/append?epoch={epoch}&offset={offset}", self.address);
        let answer = self.http.send_bytes(Method::PUT, &url, batch, 64 * 1024, deadline).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| CallError::Malformed { url: self.address.clone(), detail: error.to_string() })
    }

    /// Reads one record; the node has compared its checksums.
    ///
    /// # Errors
    /// `damaged`, `out_of_range`, `unknown_volume`, `busy`, `disk_failed`.
    pub async fn read_record(
        &self,
        disk: DiskId,
        volume: VolumeId,
        offset: u64,
        length: u32,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let url = format!("{}/v1/disks/{disk}/volumes/{volume}/record?offset={offset}&length={length}", self.address);
        self.http.get(&url, MAX_READ_BYTES, deadline).await
    }

    /// Reads raw bytes of a replica, at most [`MAX_READ_BYTES`]; nothing is checked.
    ///
    /// # Errors
    /// `out_of_range`, `unknown_volume`, `busy`, `disk_failed`.
    pub async fn read_bytes(
        &self,
        disk: DiskId,
        volume: VolumeId,
        offset: u64,
        length: u32,
    ) -> Result<Bytes, CallError> {
        self.http.get(&self.bytes_url(disk, volume, offset, length, false), MAX_READ_BYTES, self.deadline).await
    }

    /// As [`NodeClient::read_bytes`], for a copy that may be `urgent`: shows the bytes to `see` as they come, in order. After an
    /// error it has seen some of them.
    ///
    /// # Errors
    /// As [`NodeClient::read_bytes`]; after `busy` it is worth asking again.
    pub async fn read_for_copy(
        &self,
        disk: DiskId,
        volume: VolumeId,
        offset: u64,
        length: u32,
        urgent: bool,
        see: impl FnMut(&[u8]) + Send,
    ) -> Result<(), CallError> {
        let url = self.bytes_url(disk, volume, offset, length, urgent);
        self.http.get_pieces(&url, MAX_READ_BYTES, self.deadline, see).await
    }

    fn bytes_url(&self, disk: DiskId, volume: VolumeId, offset: u64, length: u32, urgent: bool) -> String {
        let at = format!("offset={offset}&length={length}&urgent={urgent}");
        format!("{}/v1/disks/{disk}/volumes/{volume}/bytes?{at}", self.address)
    }

    /// Fences a replica and answers its tail.
    ///
    /// # Errors
    /// `stale_term`, `fenced` (a higher epoch is in force), `damaged`.
    pub async fn fence(&self, request: &FenceRequest) -> Result<Tail, CallError> {
        self.http.post_json(&format!("{}/v1/fence", self.address), request, self.deadline).await
    }

    /// Seals a replica: cut, verify, digest. Repeating it is harmless.
    ///
    /// # Errors
    /// `too_short`, `damaged`, `stale_term`, `fenced`.
    pub async fn seal(&self, request: &SealRequest) -> Result<Sealed, CallError> {
        self.http.post_json(&format!("{}/v1/seal", self.address), request, COPY_DEADLINE).await
    }

    /// Has the node pull a replica.
    ///
    /// # Errors
    /// `no_space`, `read_only`, `stale_term`; `damaged` when no source gave bytes with the digest.
    pub async fn copy(&self, request: &CopyRequest) -> Result<Sealed, CallError> {
        self.http.post_json(&format!("{}/v1/copy", self.address), request, COPY_DEADLINE).await
    }

    /// Has the node give a copy up.
    ///
    /// # Errors
    /// `unknown_disk`, `stale_term`.
    pub async fn cancel_copy(&self, request: &CancelCopy) -> Result<serde_json::Value, CallError> {
        self.http.post_json(&format!("{}/v1/copy/cancel", self.address), request, self.deadline).await
    }

    /// All wrapped keys that any disk of the node has.
    ///
    /// # Errors
    /// `damaged`, `disk_failed`.
    pub async fn keyring(&self) -> Result<KeyringBody, CallError> {
        self.http.get_json(&format!("{}/v1/keyring", self.address), self.deadline).await
    }

    /// Adds wrapped keys to the keyring on every disk of the node; the answer names the disks that did not take them.
    ///
    /// # Errors
    /// `bad_request`.
    pub async fn put_keyring(&self, keyring: &KeyringBody) -> Result<KeyringStored, CallError> {
        self.http.post_json(&format!("{}/v1/keyring", self.address), keyring, self.deadline).await
    }
}
