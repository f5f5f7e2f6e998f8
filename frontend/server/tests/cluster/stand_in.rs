//! A volume manager that leases and seals, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{ApiError, HttpClient};
use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, NodeClient};
use holdfast_volume_manager_client::{
    Heartbeat, HeartbeatAnswer, LeaseRequest, LeasedVolume, Register, RegisterAnswer, RegisteredDisk, Replica, SealAsk,
    SealState, code,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::Daemon;

#[derive(Default)]
pub struct State {
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

impl VolumeManager {
    pub fn start(tls: &TlsFiles, http: HttpClient) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
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
    state.lock().unwrap().leases.push(lease.clone());
    Ok(lease)
}
