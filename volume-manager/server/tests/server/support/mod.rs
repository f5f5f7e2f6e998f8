//! A cell for tests: the real volume manager, each start of it in a runtime of its own so that a crash ends all of it at
//! once, and fake nodes that speak the node's protocol over TLS.

pub mod node;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{CallError, HttpClient, Role, ServiceTokens};
use holdfast_libs_types::{BlockHash, CellId, DiskId, InstanceId, VolumeId, WriteEpoch};
use holdfast_node_client::RecordInfo;
use holdfast_tests_certificates::certificates;
use holdfast_volume_manager_catalog::{BlockIndex, Catalog, CatalogConfig, NewRow, Volume, VolumeInsert};
use holdfast_volume_manager_client::{LeaseRequest, LeasedVolume, Order, SealAsk, VolumeManagerClient};
use holdfast_volume_manager_server::{Config, Copies, ServerError, Timing, run_on};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use node::{Call, FakeNode};

pub const CELL: CellId = CellId([0xce; 16]);
pub const SECRET: [u8; 32] = [7; 32];
pub const FRONTEND: InstanceId = InstanceId([0xf0; 16]);
pub const PAGE: u64 = 4096;

/// An order that is not only planned.
pub const APPLY: Order = Order { apply: true, for_s: None, less_spread: false };

/// Polls until `condition` gives something, for at most ten seconds.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(found) = condition().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not come to pass within ten seconds: {what}");
}

/// The code of a refusal.
pub fn code_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result.unwrap_err() {
        CallError::Api(error) => error.code,
        other => panic!("no answer of the protocol: {other}"),
    }
}

/// Times that no test waits for; a test shortens the one it is about.
pub fn timing() -> Timing {
    Timing {
        heartbeat_ms: 50,
        suspect_ms: 20_000,
        down_ms: 40_000,
        lost_ms: 60_000,
        zone_lost_ms: 120_000,
        leader_ttl_ms: 60_000,
        lease_ms: 60_000,
        seal_grace_ms: 600,
        audit_ms: 60_000,
    }
}

/// One start of the volume manager.
pub struct Started {
    pub address: String,
    pub task: JoinHandle<Result<(), ServerError>>,
    /// Stops it cleanly.
    pub stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A connection to a catalog that closes late would take away the log of the one that is made in its place. Waited for
            // on a thread, since a test's runtime ends none itself.
            std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(10))).join().unwrap();
        }
    }
}

impl Started {
    pub fn new(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = runtime
            .spawn(async move { run_on(tokio::net::TcpListener::from_std(listener).unwrap(), config, stop).await });
        Self { address, task, stop: stopped, runtime: Some(runtime) }
    }

    /// Ends it as a kill would: nothing in it runs on.
    pub fn crash(self) {
        drop(self);
    }
}

/// Nodes, their volume manager and its catalog.
pub struct Cell {
    pub tls: TlsFiles,
    pub config: Config,
    pub nodes: Vec<FakeNode>,
    pub manager: Option<Started>,
    pub dir: TempDir,
    catalog: OnceCell<Catalog>,
}

impl Cell {
    /// Three nodes in three zones, `disks` disks each, registered.
    pub async fn start(timing: Timing, disks: u8) -> Self {
        let mut cell = Self::without_manager(timing, disks).await;
        cell.start_manager().await;
        cell
    }

    /// So many zones of two nodes with `disks` disks each, registered.
    pub async fn start_pairs(timing: Timing, zones: u8, disks: u8) -> Self {
        let mut cell = Self::without_nodes(timing);
        for number in 1..=zones * 2 {
            cell.nodes.push(FakeNode::start_in(&cell.tls, number, disks, number.div_ceil(2)).await);
        }
        cell.start_manager().await;
        cell
    }

    /// Three nodes that know no volume manager yet.
    pub async fn without_manager(timing: Timing, disks: u8) -> Self {
        let mut cell = Self::without_nodes(timing);
        for number in 1..=3 {
            cell.nodes.push(FakeNode::start(&cell.tls, number, disks).await);
        }
        cell
    }

    /// Adds a node with `disks` disks to a zone, and waits until it is up.
    pub async fn add_node(&mut self, number: u8, disks: u8, zone: u8) {
        let node = FakeNode::start_in(&self.tls, number, disks, zone).await;
        node.follow(self.address());
        self.nodes.push(node);
        self.wait_for_nodes().await;
    }

    /// Sealed volumes of two pages.
    pub async fn sealed_volumes(&self, count: usize) -> Vec<Volume> {
        let mut sealed = Vec::new();
        for _ in 0..count {
            let leased = self.written(2).await;
            self.ask_to_seal(leased.volume).await;
            sealed.push(self.sealed(leased.volume).await);
        }
        sealed
    }

    pub fn zone_of(&self, disk: DiskId) -> &str {
        &self.node_of(disk).zone
    }

    /// In how many zones the replicas of a volume stand, by the catalog.
    pub async fn zones(&self, volume: VolumeId) -> usize {
        let row = self.row(volume).await;
        row.replicas.iter().map(|disk| self.zone_of(*disk)).collect::<std::collections::HashSet<_>>().len()
    }

    fn without_nodes(timing: Timing) -> Self {
        let dir = TempDir::new().unwrap();
        let tls = certificates(dir.path());
        let config = Config {
            listen: String::new(),
            name: None,
            address: None,
            cell: CELL,
            cell_secret: SECRET.iter().map(|byte| format!("{byte:02x}")).collect(),
            data_dir: dir.path().join("catalog"),
            catalog: CatalogConfig::default(),
            tls: tls.clone(),
            timing,
            copies: Copies::default(),
        };
        Self { tls, config, nodes: Vec::new(), manager: None, dir, catalog: OnceCell::new() }
    }

    /// Starts a volume manager on the catalog and waits until all nodes have registered with it.
    pub async fn start_manager(&mut self) {
        let started = Started::new(self.config.clone());
        self.follow(started).await;
    }

    /// Has all nodes register with a volume manager, and waits until they have.
    pub async fn follow(&mut self, started: Started) {
        for node in &self.nodes {
            node.follow(&started.address);
        }
        self.manager = Some(started);
        self.wait_for_nodes().await;
    }

    pub async fn wait_for_nodes(&self) {
        let admin = self.admin();
        eventually("all nodes are up", async || {
            let status = admin.status().await.ok()?;
            let up = status.nodes.iter().filter(|node| node.state == "up").count();
            (up == self.nodes.len()).then_some(())
        })
        .await;
    }

    /// Waits until what the nodes hold was compared with the catalog.
    pub async fn settled(&self) {
        eventually("everything is compared", async || {
            self.admin().status().await.unwrap().settling.is_none().then_some(())
        })
        .await;
    }

    pub fn crash_manager(&mut self) {
        self.manager.take().unwrap().crash();
    }

    pub fn address(&self) -> &str {
        &self.manager.as_ref().unwrap().address
    }

    pub fn http(&self, role: Role) -> HttpClient {
        HttpClient::new(&self.tls.client().unwrap(), Some(&ServiceTokens::new(&SECRET).token(role)))
    }

    pub fn client(&self, role: Role) -> VolumeManagerClient {
        VolumeManagerClient::new(self.http(role), self.address())
    }

    pub fn frontend(&self) -> VolumeManagerClient {
        self.client(Role::Frontend)
    }

    pub fn admin(&self) -> VolumeManagerClient {
        self.client(Role::Admin)
    }

    /// The catalog, as another process opens it.
    pub async fn catalog(&self) -> Catalog {
        let store = self.config.catalog.store(&self.config.data_dir).unwrap();
        self.catalog.get_or_init(async || store.open(CELL).await.unwrap()).await.clone()
    }

    pub async fn index(&self) -> Arc<dyn BlockIndex> {
        self.catalog().await.index
    }

    /// A volume as the catalog has it.
    pub async fn row(&self, volume: VolumeId) -> Volume {
        self.catalog().await.table.volume(volume).await.unwrap().unwrap()
    }

    pub async fn lease(&self) -> LeasedVolume {
        self.frontend().lease(&LeaseRequest { frontend: FRONTEND, avoid: Vec::new() }).await.unwrap()
    }

    /// A leased volume with `pages` pages on all its replicas, all of them acknowledged.
    pub async fn written(&self, pages: u64) -> LeasedVolume {
        let leased = self.lease().await;
        for replica in &leased.replicas {
            self.node_of(replica.disk).extent(replica.disk, leased.volume, |extent| extent.tail = pages * PAGE);
        }
        self.acknowledge(leased.volume, pages).await;
        leased
    }

    /// Inserts an index row that ends where `pages` pages end.
    pub async fn acknowledge(&self, volume: VolumeId, pages: u64) {
        for node in &self.nodes {
            let row = rows(volume, pages).rows.remove(0);
            node.write_record(volume, RecordInfo { hash: row.hash, offset: row.offset, length: row.length, flags: 0 });
        }
        self.index().await.insert(&rows(volume, pages)).await.unwrap();
    }

    /// The volume manager dies and its catalog is gone; the disks are as they were.
    pub fn lose_catalog(&mut self) {
        self.crash_manager();
        self.catalog = OnceCell::new();
        std::fs::remove_dir_all(&self.config.data_dir).unwrap();
        for node in &self.nodes {
            node.confirm_incarnations();
        }
    }

    pub async fn ask_to_seal(&self, volume: VolumeId) {
        let ask = SealAsk { volume, epoch: WriteEpoch(1), failed_disk: None, reason: None };
        self.frontend().seal(&ask).await.unwrap();
    }

    pub async fn sealed(&self, volume: VolumeId) -> Volume {
        eventually("the volume is sealed", async || {
            let row = self.row(volume).await;
            row.digest.is_some().then_some(row)
        })
        .await
    }

    pub fn node_of(&self, disk: DiskId) -> &FakeNode {
        self.nodes.iter().find(|node| node.disks().contains(&disk)).unwrap()
    }
}

/// One row at the end of a batch.
pub fn rows(volume: VolumeId, pages: u64) -> VolumeInsert {
    let end = pages * PAGE;
    let hash = BlockHash::of(&[volume.as_bytes().as_slice(), &end.to_le_bytes()].concat());
    let row = NewRow { hash, offset: end - 200, length: 200, plain_len: 56 };
    VolumeInsert { volume, epoch: WriteEpoch(1), end, rows: vec![row] }
}
