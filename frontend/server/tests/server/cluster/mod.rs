//! A cell in this process: real nodes on real disk files, a volume manager, a frontend, TLS between all of them.
//!
//! Each daemon has a runtime of its own, so that it can be killed: its sockets close and nothing of it runs on.

mod daemon;
pub mod disk_file;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_frontend_client::{FrontendClient, FrontendStatus, ListReceipts, PutAnswer};
use holdfast_frontend_server::{CacheConfig, Config, LimitsConfig, WriterConfig};
use holdfast_libs_presign::{Grant, Method, SigningKeys, Subject, list_digest};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{CallError, HttpClient, Role, ServiceTokens};
use holdfast_libs_types::{AccountId, BlockHash, CellId, DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::NodeClient;
use holdfast_node_server::{DiskPath, Memory, ScrubConfig, SmartConfig, TrashConfig};
use holdfast_tests_certificates::certificates;
use holdfast_volume_manager_catalog::{CatalogConfig, CatalogStore, FrontendCatalog, SqliteCalls, Volume, VolumeState};
use holdfast_volume_manager_client::{CellStatus, VolumeManagerClient, VolumeManagers};
use holdfast_volume_manager_server::{Copies, Timing};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use daemon::Daemon;

pub const CELL: CellId = CellId([0xce; 16]);
pub const ACCOUNT: AccountId = AccountId([0xac; 16]);
pub const SECRET: [u8; 32] = [7; 32];
const SLOT_BYTES: u64 = 16 << 20;

/// Zones of the four nodes: one zone has two, so that the cell can lose a node and still write.
const ZONES: [&str; 4] = ["zone-1", "zone-2", "zone-3", "zone-1"];

/// Polls until `condition` gives something, for at most twenty seconds.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = condition().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("did not come to pass within twenty seconds: {what}");
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Bytes that no other seed gives.
pub fn block(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What differs from one test to the next.
#[derive(Debug, Clone)]
pub struct Options {
    pub cache_bytes: usize,
    /// Long by default, so that a loaded machine does not make reads of a second replica.
    pub hedge_ms: u64,
    pub writer: WriterConfig,
    pub nodes: usize,
    /// Slots of each disk.
    pub slots: u64,
    /// A second volume manager stands by.
    pub standby: bool,
}

impl Default for Options {
    fn default() -> Self {
        let writer = WriterConfig { append_deadline_ms: 3000, ..WriterConfig::default() };
        Self { cache_bytes: 0, hedge_ms: 10_000, writer, nodes: 4, slots: 8, standby: false }
    }
}

pub struct Cluster {
    pub dir: TempDir,
    pub tls: TlsFiles,
    pub keys: SigningKeys,
    pub volume_manager: Daemon,
    pub standby: Option<Daemon>,
    pub nodes: Vec<Daemon>,
    pub frontend: Daemon,
    pub options: Options,
    anyone: HttpClient,
    catalog: OnceCell<FrontendCatalog>,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let tls = certificates(dir.path());
        let keys = SigningKeys::parse(&signing_keys()).unwrap();
        let volume_manager = start_volume_manager(dir.path(), &tls, None, "one", &options);
        if options.standby {
            let admin = http(&tls, Some(Role::Admin));
            let one = VolumeManagerClient::new(admin, volume_manager.address.as_str());
            eventually("the first one leads", async || one.status().await.ok().map(drop)).await;
        }
        let standby = options.standby.then(|| start_volume_manager(dir.path(), &tls, None, "two", &options));
        let managers = VolumeManagers(
            std::iter::once(&volume_manager).chain(&standby).map(|daemon| daemon.address.clone()).collect(),
        );
        let nodes: Vec<_> =
            (0..options.nodes).map(|n| start_node(dir.path(), &tls, n, &managers, &options, None)).collect();
        let frontend = start_frontend(dir.path(), &tls, &managers, &options);
        let anyone = http(&tls, None);
        let cluster = Self {
            dir,
            tls,
            keys,
            volume_manager,
            standby,
            nodes,
            frontend,
            options,
            anyone,
            catalog: OnceCell::new(),
        };
        cluster.wait_for_nodes(cluster.nodes.len()).await;
        cluster
    }

    /// Waits until so many nodes with a healthy disk are up, as the volume manager sees it.
    pub async fn wait_for_nodes(&self, count: usize) {
        eventually("the nodes are up", async || {
            let status = self.cell_status().await?;
            let up = status.nodes.iter().filter(|node| node.state == "up").count();
            let healthy = status.disks.iter().filter(|disk| disk.state == "healthy").count();
            (up == count && healthy == count).then_some(())
        })
        .await;
    }

    pub async fn restart_node(&mut self, n: usize) {
        let address = self.nodes[n].address.clone();
        self.nodes[n].kill();
        self.nodes[n] = start_node(self.dir.path(), &self.tls, n, &self.managers(), &self.options, Some(&address));
        let disk = self.disk_of(n).await;
        eventually("the new incarnation of its disk is confirmed", async || {
            let status = self.node_client(n, Role::Admin).status().await.ok()?;
            (status.disks[0].disk == Some(disk) && status.disks[0].incarnation == 2).then_some(())
        })
        .await;
    }

    pub fn restart_frontend(&mut self) {
        self.frontend.stop();
        self.start_frontend();
    }

    /// Starts a frontend in the place of the one that was killed.
    pub fn start_frontend(&mut self) {
        self.frontend = start_frontend(self.dir.path(), &self.tls, &self.managers(), &self.options);
    }

    /// Where the volume managers are.
    pub fn managers(&self) -> VolumeManagers {
        let all = std::iter::once(&self.volume_manager).chain(&self.standby);
        VolumeManagers(all.map(|daemon| daemon.address.clone()).collect())
    }

    /// The volume manager and the frontend die, and the catalog is gone; then a volume manager starts where none is.
    pub fn lose_catalog(&mut self) {
        let address = self.volume_manager.address.clone();
        self.volume_manager.kill();
        self.frontend.kill();
        self.catalog = OnceCell::new();
        std::fs::remove_dir_all(self.dir.path().join("catalog")).unwrap();
        self.volume_manager = start_volume_manager(self.dir.path(), &self.tls, Some(&address), "one", &self.options);
    }

    /// What an operator speaks to the volume managers with.
    pub fn operator(&self) -> VolumeManagerClient {
        VolumeManagerClient::new(self.http(Some(Role::Admin)), self.managers())
    }

    pub fn restart_volume_manager(&mut self) {
        let address = self.volume_manager.address.clone();
        self.volume_manager.kill();
        self.volume_manager = start_volume_manager(self.dir.path(), &self.tls, Some(&address), "one", &self.options);
    }

    pub async fn cell_status(&self) -> Option<CellStatus> {
        self.operator().status().await.ok()
    }

    /// The volumes that were ever leased, as the replication table has them.
    pub async fn volumes(&self) -> Vec<Volume> {
        let table = self.catalog().await.table;
        table.volumes_in(&[VolumeState::Open, VolumeState::Sealing, VolumeState::Sealed]).await.unwrap()
    }

    async fn catalog(&self) -> FrontendCatalog {
        let store = CatalogStore::Sqlite(SqliteCalls::new(&self.dir.path().join("catalog")));
        self.catalog.get_or_init(async || store.open_for_frontend(CELL).await.unwrap()).await.clone()
    }

    /// Waits until a volume is sealed; answers why.
    pub async fn sealed(&self, volume: VolumeId) -> (Volume, String) {
        eventually("the volume is sealed", async || {
            let row = self.volumes().await.into_iter().find(|row| row.volume == volume)?;
            let reason = row.seal_reason.clone().unwrap_or_default();
            (row.state == VolumeState::Sealed).then_some((row, reason))
        })
        .await
    }

    /// Step b of a seal, alone.
    pub async fn close_fence(&self, volume: VolumeId) {
        self.catalog().await.index.close_fence(volume, WriteEpoch(2)).await.unwrap();
    }

    pub fn disk_file(&self, n: usize) -> PathBuf {
        disk_file_of(self.dir.path(), n)
    }

    pub fn http(&self, role: Option<Role>) -> HttpClient {
        http(&self.tls, role)
    }

    pub fn client(&self) -> FrontendClient {
        FrontendClient::new(&self.anyone)
    }

    pub fn grant(&self, method: Method, subject: Subject) -> Grant {
        Grant { cell: CELL, method, subject, account: ACCOUNT, max_bytes: 64 << 20, expires: now() + 60 }
    }

    pub fn url(&self, grant: &Grant) -> String {
        format!("{}{}", self.frontend.address, grant.sign(&self.keys))
    }

    pub async fn put(&self, block: &Bytes) -> Result<PutAnswer, CallError> {
        self.put_to(&self.frontend.address, block).await
    }

    pub async fn put_to(&self, frontend: &str, block: &Bytes) -> Result<PutAnswer, CallError> {
        let grant = self.grant(Method::Put, Subject::Block(BlockHash::of(block)));
        self.client().put(&format!("{frontend}{}", grant.sign(&self.keys)), block.clone()).await
    }

    pub async fn get(&self, hash: BlockHash) -> Result<Bytes, CallError> {
        self.client().get(&self.url(&self.grant(Method::Get, Subject::Block(hash))), &hash).await
    }

    pub async fn put_list(&self, blocks: &[Bytes]) -> Result<ListReceipts, CallError> {
        let blocks: Vec<_> = blocks.iter().map(|block| (BlockHash::of(block), block.clone())).collect();
        let digest = list_digest(blocks.iter().map(|(hash, _)| hash));
        self.client().put_list(&self.url(&self.grant(Method::Put, Subject::List(digest))), &blocks).await
    }

    pub async fn get_list(&self, hashes: &[BlockHash]) -> Result<Vec<Option<Bytes>>, CallError> {
        let digest = list_digest(hashes);
        self.client().get_list(&self.url(&self.grant(Method::Get, Subject::List(digest))), hashes).await
    }

    pub async fn status(&self) -> FrontendStatus {
        holdfast_frontend_client::status(&self.http(Some(Role::Admin)), &self.frontend.address).await.unwrap()
    }

    pub async fn counter(&self, name: &str) -> u64 {
        self.status().await.counters[name]
    }

    pub fn node_client(&self, n: usize, role: Role) -> NodeClient {
        NodeClient::new(self.http(Some(role)), self.nodes[n].address.clone())
    }

    /// The node in zone-1, which has two, that holds a replica of a volume; with its disk.
    pub async fn replica_of(&self, volume: VolumeId) -> (usize, DiskId) {
        let row = self.volumes().await.into_iter().find(|row| row.volume == volume).unwrap();
        for (n, _) in ZONES.iter().enumerate().filter(|(_, zone)| **zone == "zone-1") {
            let disk = self.disk_of(n).await;
            if row.replicas.contains(&disk) {
                return (n, disk);
            }
        }
        panic!("no replica of {volume} in zone-1");
    }

    pub async fn disk_of(&self, n: usize) -> DiskId {
        let disk = async || self.node_client(n, Role::Admin).status().await.ok()?.disks.first()?.disk;
        eventually("the node tells its disk", disk).await
    }
}

pub fn signing_keys() -> String {
    format!("1:{}", hex(&[9; 32]))
}

pub fn http(tls: &TlsFiles, role: Option<Role>) -> HttpClient {
    let token = role.map(|role| ServiceTokens::new(&SECRET).token(role));
    HttpClient::new(&tls.client().unwrap(), token.as_deref())
}

fn disk_file_of(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("disk-{n}"))
}

fn start_volume_manager(dir: &Path, tls: &TlsFiles, address: Option<&str>, name: &str, options: &Options) -> Daemon {
    let timing = Timing {
        heartbeat_ms: 100,
        suspect_ms: 1000,
        lost_ms: 3_600_000,
        // Under its own name a volume manager takes its lease again at once; another one waits for its end.
        leader_ttl_ms: if options.standby { 2000 } else { 60_000 },
        lease_ms: 5000,
        seal_grace_ms: 200,
        audit_ms: 60_000,
        ..Timing::default()
    };
    let data_dir = dir.join("catalog");
    std::fs::create_dir_all(&data_dir).unwrap();
    let config = holdfast_volume_manager_server::Config {
        listen: String::new(),
        name: Some(name.to_owned()),
        address: None,
        cell: CELL,
        cell_secret: hex(&SECRET),
        data_dir,
        catalog: CatalogConfig::default(),
        tls: tls.clone(),
        timing,
        copies: Copies::default(),
    };
    Daemon::start(address, |listener, _, shutdown| async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        holdfast_volume_manager_server::run_on(listener, config, shutdown).await.unwrap();
    })
}

fn start_node(
    dir: &Path,
    tls: &TlsFiles,
    n: usize,
    volume_managers: &VolumeManagers,
    options: &Options,
    address: Option<&str>,
) -> Daemon {
    let mut config = holdfast_node_server::Config {
        listen: String::new(),
        node: format!("node-{}", n + 1),
        zone: ZONES[n].to_owned(),
        rack: String::new(),
        cell: CELL,
        address: String::new(),
        cell_secret: hex(&SECRET),
        volume_manager: volume_managers.clone(),
        slot_bytes: SLOT_BYTES,
        // The areas in front of the slots take a few MiB.
        create_size_bytes: Some(options.slots * SLOT_BYTES + (8 << 20)),
        tls: tls.clone(),
        disks: vec![DiskPath { path: disk_file_of(dir, n) }],
        profile: None,
        watch_ms: 2000,
        scrub: ScrubConfig::default(),
        trash: TrashConfig::default(),
        smart: SmartConfig::default(),
        memory: Memory::default(),
    };
    Daemon::start(address, |listener, address, shutdown| {
        config.address = address;
        async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            holdfast_node_server::run_on(listener, config, shutdown).await.unwrap();
        }
    })
}

pub fn frontend_config(dir: &Path, tls: &TlsFiles, volume_managers: &VolumeManagers, options: &Options) -> Config {
    Config {
        listen: String::new(),
        address: String::new(),
        cell: CELL,
        cell_secret: hex(&SECRET),
        signing_keys: signing_keys(),
        master_key: hex(&[3; 32]),
        catalog_dir: dir.join("catalog"),
        catalog: CatalogConfig::default(),
        volume_manager: volume_managers.clone(),
        hedge_ms: options.hedge_ms,
        tls: tls.clone(),
        cache: CacheConfig { bytes: options.cache_bytes },
        writer: options.writer.clone(),
        limits: LimitsConfig::default(),
    }
}

fn start_frontend(dir: &Path, tls: &TlsFiles, volume_managers: &VolumeManagers, options: &Options) -> Daemon {
    let mut config = frontend_config(dir, tls, volume_managers, options);
    Daemon::start(None, |listener, address, shutdown| {
        config.address = address;
        async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            holdfast_frontend_server::run_on(listener, config, shutdown).await.unwrap();
        }
    })
}

/// Runs `tasks` at the same time, each with a share of the cluster.
pub async fn at_once<T: Send + 'static, F>(count: u64, task: impl Fn(u64) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    futures_util::future::join_all((0..count).map(task)).await
}
