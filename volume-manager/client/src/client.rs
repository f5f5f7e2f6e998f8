//! Calls to the volume manager.

use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::VolumeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::RebuildStatus;
use crate::leader::{Leader, VolumeManagers};
use crate::messages::{
    CellStatus, DurabilityAnswer, DurabilityAsk, Heartbeat, HeartbeatAnswer, LeaseRequest, LeasedVolume, Register,
    RegisterAnswer, RenewRequest, RepairOrder, RepairStatus, SealAsk, SealState, VolumeRow,
};
use crate::reading::{Inventory, VolumePage, VolumeQuery};

const DEADLINE: Duration = Duration::from_secs(20);

/// A client for the volume manager: the one that leads, of those that are known. Clones share who that is.
#[derive(Debug, Clone)]
pub struct VolumeManagerClient {
    http: HttpClient,
    leader: Arc<Leader>,
}

impl VolumeManagerClient {
    /// `known` are one or more addresses, each `https://HOST:PORT`; `http` carries the caller's service token.
    pub fn new(http: HttpClient, known: impl Into<VolumeManagers>) -> Self {
        Self { http, leader: Arc::new(Leader::new(known.into())) }
    }

    pub(crate) async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, CallError> {
        let post = |address: String, deadline| async move {
            self.http.post_json(&format!("{address}{path}"), question, deadline).await
        };
        self.leader.call(DEADLINE, post).await
    }

    pub(crate) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, CallError> {
        let get =
            |address: String, deadline| async move { self.http.get_json(&format!("{address}{path}"), deadline).await };
        self.leader.call(DEADLINE, get).await
    }

    /// Registers a node and its disks (role node).
    ///
    /// # Errors
    /// `wrong_cell`, `duplicate_node`, `not_leader`.
    pub async fn register(&self, request: &Register) -> Result<RegisterAnswer, CallError> {
        self.post("/v1/register", request).await
    }

    /// Reports a node and its disks alive (role node).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn heartbeat(&self, request: &Heartbeat) -> Result<HeartbeatAnswer, CallError> {
        self.post("/v1/heartbeat", request).await
    }

    /// Leases a new open volume (role frontend).
    ///
    /// # Errors
    /// `cell_full`, `too_few_domains`, `not_leader`.
    pub async fn lease(&self, request: &LeaseRequest) -> Result<LeasedVolume, CallError> {
        self.post("/v1/leases", request).await
    }

    /// Keeps leases alive (role frontend). A volume that is no longer leased is simply not kept; its next append is
    /// refused by a fence.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn renew(&self, request: &RenewRequest) -> Result<Value, CallError> {
        self.post("/v1/leases/renew", request).await
    }

    /// Asks for a seal (role frontend); answers as soon as the wish is durable.
    ///
    /// # Errors
    /// `unknown_volume`, `not_leader`.
    pub async fn seal(&self, request: &SealAsk) -> Result<SealState, CallError> {
        self.post("/v1/seal", request).await
    }

    /// One volume (roles frontend, admin).
    ///
    /// # Errors
    /// `unknown_volume`.
    pub async fn volume(&self, volume: VolumeId) -> Result<VolumeRow, CallError> {
        self.get(&format!("/v1/volumes/{volume}")).await
    }

    /// All volumes (role admin); of a large cell they are better asked for by [`Self::find_volumes`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn volumes(&self) -> Result<Vec<VolumeRow>, CallError> {
        self.get("/v1/volumes").await
    }

    /// Some of the volumes, those behind a page's `next` with the next call (role admin).
    ///
    /// # Errors
    /// `bad_request`.
    pub async fn find_volumes(&self, query: &VolumeQuery) -> Result<VolumePage, CallError> {
        self.post("/v1/volumes/find", query).await
    }

    /// Nodes and disks (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn inventory(&self) -> Result<Inventory, CallError> {
        self.get("/v1/inventory").await
    }

    /// The cell's state (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn status(&self) -> Result<CellStatus, CallError> {
        self.get("/v1/status").await
    }

    /// Begins to make the catalog whole from the disks (role admin), unless that is under way.
    ///
    /// # Errors
    /// `not_leader`.
    pub async fn rebuild(&self) -> Result<RebuildStatus, CallError> {
        self.post("/v1/catalog/rebuild", &serde_json::json!({})).await
    }

    /// How far a rebuild is (role admin).
    ///
    /// # Errors
    /// `not_leader`.
    pub async fn rebuild_status(&self) -> Result<RebuildStatus, CallError> {
        self.get("/v1/catalog/rebuild").await
    }

    /// What is to be repaired (role admin).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn repair(&self) -> Result<RepairStatus, CallError> {
        self.get("/v1/repair").await
    }

    /// Pauses repair, resumes it, or says how much clients may feel of it (role admin); answers what holds then.
    ///
    /// # Errors
    /// `bad_request`, `not_leader`.
    pub async fn order_repair(&self, order: &RepairOrder) -> Result<RepairStatus, CallError> {
        self.post("/v1/repair", order).await
    }

    /// How long the cell's data lasts on paper (role admin).
    ///
    /// # Errors
    /// `bad_request`.
    pub async fn durability(&self, ask: &DurabilityAsk) -> Result<DurabilityAnswer, CallError> {
        self.post("/v1/durability", ask).await
    }
}
