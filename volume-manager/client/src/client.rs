//! Calls to the volume manager.

use std::time::Duration;

use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::VolumeId;
use serde_json::Value;

use crate::messages::{
    CellStatus, DurabilityAnswer, DurabilityAsk, Heartbeat, HeartbeatAnswer, LeaseRequest, LeasedVolume, Register,
    RegisterAnswer, RenewRequest, RepairOrder, RepairStatus, SealAsk, SealState, VolumeRow,
};
use crate::reading::{Inventory, VolumePage, VolumeQuery};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A client for the volume manager.
#[derive(Debug, Clone)]
pub struct VolumeManagerClient {
    pub(crate) http: HttpClient,
    address: String,
}

impl VolumeManagerClient {
    /// `address` is `https://HOST:PORT`; `http` carries the caller's service token.
    pub fn new(http: HttpClient, address: impl Into<String>) -> Self {
        Self { http, address: address.into() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// Registers a node and its disks (role node).
    ///
    /// # Errors
    /// `wrong_cell`, `duplicate_node`, `not_leader`.
    pub async fn register(&self, request: &Register) -> Result<RegisterAnswer, CallError> {
        self.http.post_json(&self.url("/v1/register"), request, DEADLINE).await
    }

    /// Reports a node and its disks alive (role node).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatAnswer, CallError> {
        self.http.post_json(&self.url("/v1/heartbeat"), request, DEADLINE).await
    }

    /// Leases a new open volume (role frontend).
    ///
    /// # Errors
    /// `cell_full`, `too_few_domains`, `not_leader`.
    pub async fn lease(&self, request: &LeaseRequest) -> Result<LeasedVolume, CallError> {
        self.http.post_json(&self.url("/v1/leases"), request, DEADLINE).await
    }

    /// Keeps leases alive (role frontend). A volume that is no longer leased is simply not kept; its next append is
    /// refused by a fence.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn renew(&self, request: &RenewRequest) -> Result<Value, CallError> {
        self.http.post_json(&self.url("/v1/leases/renew"), request, DEADLINE).await
    }

    /// Asks for a seal (role frontend); answers as soon as the wish is durable.
    ///
    /// # Errors
    /// `unknown_volume`, `not_leader`.
    pub async fn seal(&self, request: &SealAsk) -> Result<SealState, CallError> {
        self.http.post_json(&self.url("/v1/seal"), request, DEADLINE).await
    }

    /// One volume (roles frontend, admin).
    ///
    /// # Errors
    /// `unknown_volume`.
    pub async fn volume(&self, volume: VolumeId) -> Result<VolumeRow, CallError> {
        self.http.get_json(&self.url(&format!("/v1/volumes/{volume}")), DEADLINE).await
    }

    /// All volumes (role admin); of a large cell they are better asked for by [`Self::find_volumes`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn volumes(&self) -> Result<Vec<VolumeRow>, CallError> {
        self.http.get_json(&self.url("/v1/volumes"), DEADLINE).await
    }

    /// Some of the volumes, those behind a page's `next` with the next call (role admin).
    ///
    /// # Errors
    /// `bad_request`.
    pub async fn find_volumes(&self, query: &VolumeQuery) -> Result<VolumePage, CallError> {
        self.http.post_json(&self.url("/v1/volumes/find"), query, DEADLINE).await
    }

    /// Nodes and disks (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn inventory(&self) -> Result<Inventory, CallError> {
        self.http.get_json(&self.url("/v1/inventory"), DEADLINE).await
    }

    /// The cell's state (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn status(&self) -> Result<CellStatus, CallError> {
        self.http.get_json(&self.url("/v1/status"), DEADLINE).await
    }

    /// What is to be repaired (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn repair(&self) -> Result<RepairStatus, CallError> {
        self.http.get_json(&self.url("/v1/repair"), DEADLINE).await
    }

    /// Pauses repair, resumes it, or says how much clients may feel of it (role admin); answers what holds then.
    ///
    /// # Errors
    /// `bad_request`, `not_leader`.
    pub async fn order_repair(&self, order: &RepairOrder) -> Result<RepairStatus, CallError> {
        self.http.post_json(&self.url("/v1/repair"), order, DEADLINE).await
    }

    /// How long the cell's data lasts on paper (role admin).
    ///
    /// # Errors
    /// `not_measured`, `bad_request`.
    pub async fn durability(&self, ask: &DurabilityAsk) -> Result<DurabilityAnswer, CallError> {
        self.http.post_json(&self.url("/v1/durability"), ask, DEADLINE).await
    }
}
