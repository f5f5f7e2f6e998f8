//! A node in this process: real TLS, real disk files, and a volume manager that only takes registrations.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use holdfast_hw_profiles::runner::{Output, RunError, Runner};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{HttpClient, Role, ServiceTokens};
use holdfast_libs_types::batch::BatchBuilder;
use holdfast_libs_types::record::RecordHeader;
use holdfast_libs_types::{BlockHash, CellId, DiskId, KeyId, VolumeId, WriteEpoch};
use holdfast_node_client::NodeClient;
use holdfast_node_server::{
    Config, DiskPath, Machine, Memory, ScrubConfig, ServerError, SmartConfig, TrashConfig, run_on_machine,
};
use holdfast_volume_manager_client::{Heartbeat, HeartbeatAnswer, Register, RegisterAnswer, RegisteredDisk};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use holdfast_tests_certificates::certificates;

pub const CELL: CellId = CellId([0xce; 16]);
pub const SECRET: [u8; 32] = [7; 32];
pub const SLOT_BYTES: u64 = 16 << 20;
pub const DISK_BYTES: u64 = 72 << 20;

/// What smartctl said of a SAS disk.
const SAS: &str = include_str!("../../../../../hw-profiles/tests/smartctl/sas.json");

/// A folder on a file system that takes O_DIRECT.
pub fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn http(tls: &TlsFiles, role: Option<Role>) -> HttpClient {
    let token = role.map(|role| ServiceTokens::new(&SECRET).token(role));
    HttpClient::new(&tls.client().unwrap(), token.as_deref())
}

/// Polls until `condition` gives something, for at most ten seconds.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = condition().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come to pass within ten seconds: {what}");
}

/// What the stand-in for the volume manager heard, and what it answers.
#[derive(Debug, Default)]
pub struct Heard {
    pub registers: Vec<Register>,
    pub heartbeats: Vec<Heartbeat>,
    /// Why disks are refused.
    pub refuse: Option<String>,
    /// But not the first one of a node.
    pub accept_first: bool,
    pub retry: bool,
    pub ask_again: bool,
}

/// Takes registrations and heartbeats.
pub struct VolumeManager {
    pub heard: Arc<Mutex<Heard>>,
    pub address: String,
}

impl VolumeManager {
    pub async fn start(tls: &TlsFiles) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), tls)
    }

    pub fn start_on(listener: TcpListener, tls: &TlsFiles) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (for_register, for_heartbeat) = (heard.clone(), heard.clone());
        let router = Router::new()
            .route(
                "/v1/register",
                post(async move |Json(register): Json<Register>| {
                    let mut heard = for_register.lock().unwrap();
                    let answer = |(index, disk)| {
                        let reason = heard.refuse.clone().filter(|_| index > 0 || !heard.accept_first);
                        RegisteredDisk { disk, accepted: reason.is_none(), reason, retry: heard.retry }
                    };
                    let disks = register.disks.iter().map(|report| report.disk).enumerate().map(answer).collect();
                    heard.ask_again = false;
                    heard.registers.push(register);
                    Json(RegisterAnswer { disks, term: 1, heartbeat_ms: 50 })
                }),
            )
            .route(
                "/v1/heartbeat",
                post(async move |Json(heartbeat): Json<Heartbeat>| {
                    let mut heard = for_heartbeat.lock().unwrap();
                    heard.heartbeats.push(heartbeat);
                    Json(HeartbeatAnswer { register: heard.ask_again, term: 1, background: None })
                }),
            );
        let server = holdfast_libs_transport::serve(listener, tls.server().unwrap(), router, CancellationToken::new());
        tokio::spawn(server);
        Self { heard, address }
    }
}

/// Answers for smartctl; notes what was asked.
#[derive(Default)]
pub struct Recorded {
    pub installed: bool,
    pub asked: Mutex<Vec<String>>,
}

impl Runner for Recorded {
    fn run(&self, program: &str, arguments: &[&str], _: Duration) -> Result<Output, RunError> {
        self.asked.lock().unwrap().push(format!("{program} {}", arguments.join(" ")));
        if !self.installed {
            return Err(RunError::Absent(program.to_owned()));
        }
        Ok(Output { code: Some(4), stdout: SAS.to_owned(), stderr: String::new() })
    }
}

/// A running node.
pub struct TestNode {
    pub tls: TlsFiles,
    pub address: String,
    pub config: Config,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServerError>>,
}

/// A configuration of one node with `disks` disk files in `dir`, which are made when missing.
pub fn config(dir: &Path, tls: &TlsFiles, name: &str, disks: usize, volume_manager: &str) -> Config {
    let path = |n: usize| DiskPath { path: dir.join(format!("{name}-disk-{n}")) };
    Config {
        listen: String::new(),
        node: name.to_owned(),
        zone: format!("zone-of-{name}"),
        rack: String::new(),
        cell: CELL,
        address: "https://127.0.0.1:1".to_owned(),
        cell_secret: hex(&SECRET),
        volume_manager: volume_manager.into(),
        slot_bytes: SLOT_BYTES,
        create_size_bytes: Some(DISK_BYTES),
        tls: tls.clone(),
        disks: (0..disks).map(path).collect(),
        watch_ms: 50,
        scrub: ScrubConfig::default(),
        memory: Memory::default(),
        trash: TrashConfig::default(),
        smart: SmartConfig::default(),
        profile: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl TestNode {
    pub async fn start(config: Config) -> Self {
        Self::start_on(Machine::this(), config).await
    }

    pub async fn start_on(machine: Machine, mut config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        config.address.clone_from(&address);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run_on_machine(listener, machine, config.clone(), shutdown.clone()));
        let node = Self { tls: config.tls.clone(), address, config, shutdown, task };
        eventually("the node serves", async || node.client(Role::Admin).status().await.ok()).await;
        node
    }

    pub fn client(&self, role: Role) -> NodeClient {
        NodeClient::new(http(&self.tls, Some(role)), self.address.clone())
    }

    pub async fn disk(&self) -> DiskId {
        self.client(Role::Admin).status().await.unwrap().disks[0].disk.unwrap()
    }

    pub fn disk_file(&self, n: usize) -> PathBuf {
        self.config.disks[n].path.clone()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub async fn restart(self) -> Self {
        let config = self.config.clone();
        self.stop().await;
        Self::start(config).await
    }
}

/// A batch of one record for each payload, with each record's offset and length.
pub fn batch(volume: VolumeId, offset: u64, payloads: &[Vec<u8>]) -> (bytes::Bytes, Vec<(u64, u32)>) {
    let mut builder = BatchBuilder::new(volume, WriteEpoch(1), offset, offset);
    let mut places = Vec::new();
    for payload in payloads {
        let header = RecordHeader {
            flags: 0,
            hash: BlockHash::of(payload),
            volume,
            offset: 0,
            epoch: WriteEpoch(1),
            stored_len: 0,
            plain_len: payload.len() as u32,
            key: KeyId([1; 16]),
            nonce: [2; 12],
            payload_crc: 0,
        };
        places.push(builder.push(header, payload));
    }
    (builder.finish().into(), places)
}
