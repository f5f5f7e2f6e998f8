//! A volume manager that leases and takes wishes to seal, over the real catalog, and does nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{ApiError, HttpClient};
use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, NodeClient};
use holdfast_volume_manager_catalog::{BlockIndex, DiskInfo, NewVolume, Node, ReplicationTable, Term};
use holdfast_volume_manager_client::{
    Heartbeat, HeartbeatAnswer, LeaseRequest, LeasedVolume, Register, RegisterAnswer, RegisteredDisk, Replica, SealAsk,
    SealState, code,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{CELL, Daemon, now};

pub struct State {
    table: ReplicationTable,
    index: BlockIndex,
    term: Term,
    nodes: BTreeMap<String, Register>,
    registrations: usize,
    pub leases: Vec<LeasedVolume>,
    pub seals: Vec<SealAsk>,
    pub refuse: Option<ApiError>,
}

pub struct VolumeManager {
    pub daemon: Daemon,
    pub state: Arc<Mutex<State>>,
}

impl State {
    fn enter(&self, register: &Register) {
        let node = Node {
            node: register.node.clone(),
            zone: register.zone.clone(),
            address: register.address.clone(),
            instance: register.instance,
            last_seen_ms: now() * 1000,
        };
        self.table.upsert_node(self.term, &node).unwrap();
        for disk in &register.disks {
            let info = DiskInfo {
                disk: disk.disk,
                node: register.node.clone(),
                path: disk.path.clone(),
                state: disk.state.clone(),
                reason: disk.reason.clone(),
                slot_bytes: disk.slot_bytes,
                volume_bytes: disk.volume_bytes,
                slots: disk.slots,
                free_slots: disk.free_slots,
            };
            let (previous, incarnation, nonce) = (disk.previous_nonce, disk.incarnation, disk.nonce);
            self.table.register_disk_incarnation(self.term, &info, previous, incarnation, nonce).unwrap();
        }
    }

    fn enter_volume(&self, lease: &LeasedVolume, request: &LeaseRequest) {
        let new = NewVolume {
            volume: lease.volume,
            epoch: lease.epoch,
            disks: lease.replicas.iter().map(|replica| replica.disk).collect(),
            holder: request.frontend,
            lease_expires_ms: now() * 1000 + 60_000,
            capacity: lease.capacity,
        };
        self.table.create_volume(self.term, &new).unwrap();
        self.index.create_fence(lease.volume, lease.epoch).unwrap();
        self.table.open_volume(self.term, lease.volume).unwrap();
    }
}

impl VolumeManager {
    /// Step b of a seal.
    pub fn close_fence(&self, volume: VolumeId) {
        self.state.lock().unwrap().index.close_fence(volume, WriteEpoch(2)).unwrap();
    }

    pub fn start(folder: &Path, tls: &TlsFiles, http: HttpClient) -> Self {
        std::fs::create_dir(folder).unwrap();
        let table = ReplicationTable::open(folder, CELL).unwrap();
        let state = Arc::new(Mutex::new(State {
            term: table.take_leadership().unwrap(),
            index: BlockIndex::open(folder, CELL).unwrap(),
            table,
            nodes: BTreeMap::new(),
            registrations: 0,
            leases: Vec::new(),
            seals: Vec::new(),
            refuse: None,
        }));
        let router = router(state.clone(), http);
        let tls = tls.server().unwrap();
        let daemon = Daemon::start(None, |listener, _, shutdown| async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            holdfast_libs_transport::serve(listener, tls, router, shutdown).await;
        });
        Self { daemon, state }
    }

    pub fn registered(&self) -> usize {
        self.state.lock().unwrap().nodes.len()
    }

    pub fn registrations(&self) -> usize {
        self.state.lock().unwrap().registrations
    }

    pub fn seals(&self) -> Vec<SealAsk> {
        self.state.lock().unwrap().seals.clone()
    }

    pub fn leases(&self) -> Vec<LeasedVolume> {
        self.state.lock().unwrap().leases.clone()
    }
}

fn router(state: Arc<Mutex<State>>, http: HttpClient) -> Router {
    let (for_register, for_lease, for_seal) = (state.clone(), state.clone(), state);
    Router::new()
        .route(
            "/v1/register",
            post(async move |Json(register): Json<Register>| {
                let answer = |disk| RegisteredDisk { disk, accepted: true, reason: None };
                let disks = register.disks.iter().map(|report| answer(report.disk)).collect();
                let mut state = for_register.lock().unwrap();
                state.registrations += 1;
                state.enter(&register);
                state.nodes.insert(register.node.0.clone(), register);
                Json(RegisterAnswer { disks, term: 1, heartbeat_ms: 200 })
            }),
        )
        .route(
            "/v1/heartbeat",
            post(async |Json(_): Json<Heartbeat>| Json(HeartbeatAnswer { register: false, term: 1 })),
        )
        .route(
            "/v1/leases",
            post(async move |Json(request): Json<LeaseRequest>| lease(&for_lease, &http, &request).await.map(Json)),
        )
        .route("/v1/leases/renew", post(async |Json(_): Json<Value>| Json(json!({}))))
        .route(
            "/v1/seal",
            post(async move |Json(ask): Json<SealAsk>| {
                for_seal.lock().unwrap().seals.push(ask);
                Json(SealState { state: "sealing".to_owned() })
            }),
        )
}

async fn lease(state: &Mutex<State>, http: &HttpClient, request: &LeaseRequest) -> Result<LeasedVolume, ApiError> {
    let (replicas, volume) = {
        let state = state.lock().unwrap();
        if let Some(refusal) = &state.refuse {
            return Err(refusal.clone());
        }
        let mut zones = BTreeMap::new();
        for register in state.nodes.values() {
            let disk = register.disks[0].disk;
            if !request.avoid.contains(&disk) {
                zones.entry(register.zone.clone()).or_insert(Replica {
                    disk,
                    node: register.node.clone(),
                    zone: register.zone.clone(),
                    address: register.address.clone(),
                });
            }
        }
        let mut random = [0; 12];
        random[0] = state.leases.len() as u8;
        random[1..].copy_from_slice(&rand::random::<[u8; 11]>());
        (zones.into_values().collect::<Vec<_>>(), VolumeId::from_parts(1, random))
    };
    let unavailable = |why: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::TOO_FEW_DOMAINS, why);
    if replicas.len() != 3 {
        return Err(unavailable(format!("{} zones", replicas.len())));
    }
    let epoch = WriteEpoch(1);
    for replica in &replicas {
        let order = CreateExtent { disk: replica.disk, volume, epoch, term: 1 };
        let node = NodeClient::new(http.clone(), replica.address.clone());
        node.create_extent(&order).await.map_err(|error| unavailable(error.to_string()))?;
    }
    let lease = LeasedVolume { volume, epoch, replicas, capacity: 13 << 20, lease_ms: 1000 };
    let mut state = state.lock().unwrap();
    state.enter_volume(&lease, request);
    state.leases.push(lease.clone());
    Ok(lease)
}
