//! A cell: nodes in three zones, two volume managers of which one leads, two frontends. Every daemon is the real one, run by
//! its own `run_with`; what stands around it is simulated.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use holdfast_libs_presign::SigningKeys;
use holdfast_libs_sim::disk::Crash;
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_surroundings::{Ids, Surroundings, WallClock};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_transport::{HttpClient, Role as AccessRole, ServiceTokens};
use holdfast_libs_types::CellId;
use holdfast_node_server::{DiskPath, Machine, Memory, ScrubConfig, SmartConfig, TrashConfig};
use holdfast_volume_manager_catalog::{CatalogConfig, CatalogStore, FrontendCatalog, SimulatedCalls, SqliteCalls};
use holdfast_volume_manager_client::VolumeManagerClient;
use holdfast_volume_manager_server::{Copies, Timing};
use http::{Request, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use crate::catalog::{CatalogPort, CatalogWeather, Outside};
use crate::disks::{Chassis, DiskMaker, SLOT_BYTES};
use crate::network::{Network, Port};
use crate::process::Process;
use crate::trace::Trace;

/// The cell.
pub const CELL: CellId = CellId([0xce; 16]);
const SECRET: &str = "0707070707070707070707070707070707070707070707070707070707070707";
const MASTER_KEY: &str = "0909090909090909090909090909090909090909090909090909090909090909";
const SIGNING_KEY: &str = "1:0505050505050505050505050505050505050505050505050505050505050505";

/// Zones.
pub const ZONES: usize = 3;

/// How much a cell has of everything.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Nodes of each zone.
    pub nodes_a_zone: usize,
    /// Disks of each node.
    pub disks_a_node: usize,
}

impl Shape {
    /// Most seeds have disks to spare in each zone; in some each zone has one disk, and a replica no other place.
    fn draw(streams: &Streams) -> Self {
        match streams.stream("shape").chance(125) {
            true => Self { nodes_a_zone: 1, disks_a_node: 1 },
            false => Self { nodes_a_zone: 2, disks_a_node: 2 },
        }
    }

    /// Whether a disk of a zone can be lost for good.
    pub fn has_spares(self) -> bool {
        self.nodes_a_zone * self.disks_a_node > 1
    }
}

/// The name under which nodes and frontends know the volume manager: a load balancer's.
const BALANCER: &str = "volume-manager";
const BALANCER_LOOKS: Duration = Duration::from_millis(250);

/// The time of day when a seed begins, milliseconds since 1970.
const BEGINNING_MS: i64 = 1_800_000_000_000;

/// What a daemon is.
#[derive(Clone)]
pub enum Role {
    /// A node in a zone, with its bays.
    Node {
        /// Its zone's number.
        zone: usize,
        /// Its bays; they outlive it.
        chassis: Rc<Chassis>,
    },
    /// A volume manager.
    VolumeManager,
    /// A frontend.
    Frontend,
}

struct Daemon {
    role: Role,
    life: u64,
    process: Arc<Process>,
    running: Option<JoinHandle<()>>,
}

/// The cell and everything around it.
pub struct Cell {
    /// Its network.
    pub network: Arc<Network>,
    /// How its catalog is.
    pub catalog: Arc<CatalogWeather>,
    /// Makes its disks.
    pub disks: Rc<DiskMaker>,
    /// How much of everything it has.
    pub shape: Shape,
    /// When the seed began.
    pub start: Instant,
    folder: tempfile::TempDir,
    ids: Arc<Mutex<SimRng>>,
    /// How wrong each daemon's clock is, and that of the catalog's machine: milliseconds.
    skews: BTreeMap<String, Arc<AtomicI64>>,
    daemons: RefCell<BTreeMap<String, Daemon>>,
}

/// The name of a node.
pub fn node_name(zone: usize, number: usize) -> String {
    format!("node-{}-{}", zone + 1, number + 1)
}

/// The path of a bay.
pub fn bay(number: usize) -> PathBuf {
    PathBuf::from(format!("bay-{}", number + 1))
}

/// The keys that sign URLs.
pub fn signing_keys() -> SigningKeys {
    SigningKeys::parse(SIGNING_KEY).expect("the constant is a key")
}

impl Cell {
    /// A cell with new disks, none of its daemons started.
    ///
    /// # Panics
    /// When there is no folder in memory for the catalog.
    pub async fn new(streams: &Streams, trace: Trace) -> Rc<Self> {
        let start = Instant::now();
        let network = Network::new(streams.stream("network"), trace);
        let disks = DiskMaker::new(streams, CELL, start);
        let shape = Shape::draw(streams);
        let mut daemons = BTreeMap::new();
        let mut add = |name: String, role: Role| {
            let process = Arc::new(Process::new(&name, 0));
            process.kill();
            daemons.insert(name, Daemon { role, life: 0, process, running: None });
        };
        for zone in 0..ZONES {
            for number in 0..shape.nodes_a_zone {
                let chassis = Rc::new(Chassis::default());
                (0..shape.disks_a_node).for_each(|number| drop(chassis.insert(&bay(number), disks.make())));
                add(node_name(zone, number), Role::Node { zone, chassis });
            }
        }
        for number in 1..=2 {
            add(format!("vm-{number}"), Role::VolumeManager);
            add(format!("frontend-{number}"), Role::Frontend);
        }
        let skewed = daemons.keys().cloned().chain(["catalog".to_owned()]);
        let skews = skewed.map(|name| (name, Arc::new(AtomicI64::new(0)))).collect();
        Rc::new(Self {
            network,
            catalog: CatalogWeather::new(streams.stream("catalog")),
            disks,
            shape,
            start,
            folder: new_catalog().await,
            ids: Arc::new(Mutex::new(streams.stream("ids"))),
            skews,
            daemons: RefCell::new(daemons),
        })
    }

    /// Starts every daemon and the load balancer.
    pub fn start_all(self: &Rc<Self>) {
        self.daemon_names().iter().for_each(|name| self.start(name));
        let cell = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            while let Some(cell) = cell.upgrade() {
                cell.balance().await;
                drop(cell);
                sleep(BALANCER_LOOKS).await;
            }
        });
    }

    /// Points the balancer at the volume manager that is ready.
    async fn balance(&self) {
        for name in ["vm-1", "vm-2"] {
            let Some(router) = self.network.router(name) else { continue };
            let Ok(request) = Request::get("/readyz").body(Body::empty()) else { continue };
            if router.oneshot(request).await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                self.network.point(BALANCER, name);
                return;
            }
        }
    }

    /// The names of all daemons, in order.
    pub fn daemon_names(&self) -> Vec<String> {
        self.daemons.borrow().keys().cloned().collect()
    }

    /// The nodes: name, zone and bays.
    pub fn nodes(&self) -> Vec<(String, usize, Rc<Chassis>)> {
        let daemons = self.daemons.borrow();
        let node = |(name, daemon): (&String, &Daemon)| match &daemon.role {
            Role::Node { zone, chassis } => Some((name.clone(), *zone, Rc::clone(chassis))),
            _ => None,
        };
        daemons.iter().filter_map(node).collect()
    }

    /// The bays of a node.
    pub fn chassis(&self, name: &str) -> Option<Rc<Chassis>> {
        self.nodes().into_iter().find(|(node, ..)| node == name).map(|(.., chassis)| chassis)
    }

    /// The process of a daemon: the present one, or the last.
    ///
    /// # Panics
    /// When there is no such daemon.
    pub fn process(&self, name: &str) -> Arc<Process> {
        Arc::clone(&self.daemons.borrow()[name].process)
    }

    /// Sets the clock of a daemon, or of the catalog's machine, forward or back.
    pub fn jump_clock(&self, name: &str, by_ms: i64) {
        self.skews[name].fetch_add(by_ms, Ordering::Relaxed);
    }

    /// All clocks are right again.
    pub fn set_clocks_right(&self) {
        self.skews.values().for_each(|skew| skew.store(0, Ordering::Relaxed));
    }

    fn clock(&self, name: &str) -> WallClock {
        let (start, skew) = (self.start, Arc::clone(&self.skews[name]));
        WallClock::given(move || {
            let passed = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX / 2);
            u64::try_from(BEGINNING_MS + passed + skew.load(Ordering::Relaxed)).unwrap_or_default()
        })
    }

    fn surroundings(&self, name: &str) -> Surroundings {
        let ids = Arc::clone(&self.ids);
        let draw = move |bytes: &mut [u8]| ids.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Surroundings { clock: self.clock(name), ids: Ids::given(draw) }
    }

    fn store(&self, calls: Arc<dyn SimulatedCalls>) -> CatalogStore {
        let folder = self.folder.path().to_owned();
        CatalogStore::Sqlite(SqliteCalls { folder, simulated: Some(calls), clock: self.clock("catalog") })
    }

    /// The folder of the catalog's files.
    pub fn catalog_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The catalog, for who looks at it from outside.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn look_into_catalog(&self) -> FrontendCatalog {
        let opened = self.store(Arc::new(Outside)).open_for_frontend(CELL).await;
        opened.expect("a volume manager has made it")
    }

    /// Starts a daemon that is dead.
    pub fn start(self: &Rc<Self>, name: &str) {
        let (process, role) = {
            let mut daemons = self.daemons.borrow_mut();
            let Some(daemon) = daemons.get_mut(name).filter(|daemon| daemon.process.is_dead()) else { return };
            daemon.life += 1;
            daemon.process = Arc::new(Process::new(name, daemon.life));
            (Arc::clone(&daemon.process), daemon.role.clone())
        };
        self.network.note(format_args!("start {name}, life {}", process.life));
        let running = match role {
            Role::Node { zone, chassis } => self.run_node(&process, zone, &chassis),
            Role::VolumeManager => self.run_volume_manager(&process),
            Role::Frontend => self.run_frontend(&process),
        };
        if let Some(daemon) = self.daemons.borrow_mut().get_mut(name) {
            daemon.running = Some(running);
        }
    }

    /// Runs a daemon to its end, whatever that is; what it left undone then nobody does.
    fn run<E: std::fmt::Display>(
        self: &Rc<Self>,
        process: &Arc<Process>,
        daemon: impl Future<Output = Result<(), E>> + 'static,
    ) -> JoinHandle<()> {
        let (cell, process) = (Rc::downgrade(self), Arc::clone(process));
        tokio::task::spawn_local(async move {
            let ended = daemon.await;
            let Some(cell) = cell.upgrade().filter(|_| !process.is_dead()) else { return };
            let why = ended.map_or_else(|error| error.to_string(), |()| "as asked".to_owned());
            cell.network.note(format_args!("{} ends: {} bytes of reason", process.name, why.len()));
            tracing::debug!(daemon = process.name, why, "ended");
            cell.kill(&process.name, Crash::ProcessKill);
        })
    }

    /// Kills a daemon that lives; the disks of a node end as `crash` says.
    pub fn kill(&self, name: &str, crash: Crash) {
        let daemons = self.daemons.borrow();
        let daemon = &daemons[name];
        if daemon.process.is_dead() {
            return;
        }
        self.network.note(format_args!("{name} dies"));
        daemon.process.kill();
        self.network.close(name);
        if let Role::Node { chassis, .. } = &daemon.role {
            chassis.disks().iter().for_each(|(_, disk)| disk.crash(crash));
        }
    }

    /// Asks a daemon to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn stop(&self, name: &str, limit: Duration) -> Result<(), String> {
        let running = {
            let mut daemons = self.daemons.borrow_mut();
            let Some(daemon) = daemons.get_mut(name).filter(|daemon| !daemon.process.is_dead()) else { return Ok(()) };
            daemon.process.stop.cancel();
            daemon.running.take()
        };
        let Some(running) = running else { return Ok(()) };
        let ended = tokio::time::timeout(limit, running).await;
        ended.map(drop).map_err(|_| format!("{name} does not end within {limit:?}"))
    }

    /// A client of the volume manager with an operator's token.
    pub fn operator(&self) -> VolumeManagerClient {
        let secret = holdfast_libs_crypto::key_from_hex(SECRET).expect("the constant is a key");
        let token = ServiceTokens::new(&secret).token(AccessRole::Admin);
        VolumeManagerClient::new(self.outsider("operator").with_token(Some(&token)), format!("https://{BALANCER}"))
    }

    /// A process of nobody's: a client's, or an operator's.
    pub fn outsider(&self, name: &str) -> HttpClient {
        let port = Port { network: Arc::clone(&self.network), process: Arc::new(Process::new(name, 1)) };
        HttpClient::over(Arc::new(port), None)
    }

    fn run_node(self: &Rc<Self>, process: &Arc<Process>, zone: usize, chassis: &Rc<Chassis>) -> JoinHandle<()> {
        let port = Port { network: Arc::clone(&self.network), process: Arc::clone(process) };
        let parts = holdfast_node_server::Parts {
            listener: Box::new(port.clone()),
            http: HttpClient::over(Arc::new(port), None),
            machine: Machine::simulated(self.disks.connect(chassis, process)),
            surroundings: self.surroundings(&process.name),
        };
        let config = holdfast_node_server::Config {
            listen: String::new(),
            node: process.name.clone(),
            zone: format!("zone-{}", zone + 1),
            rack: String::new(),
            cell: CELL,
            address: format!("https://{}", process.name),
            cell_secret: SECRET.to_owned(),
            volume_manager: format!("https://{BALANCER}").into(),
            slot_bytes: SLOT_BYTES,
            create_size_bytes: None,
            tls: no_files(),
            disks: (0..self.shape.disks_a_node).map(|number| DiskPath { path: bay(number) }).collect(),
            profile: None,
            watch_ms: 3000,
            scrub: ScrubConfig { enabled: true, bytes_per_second: 4 << 20, start_after_ms: 10_000, round_ms: 30_000 },
            trash: TrashConfig { retention_s: 5, erase_every_ms: 5000 },
            smart: SmartConfig { every_ms: 0 },
            memory: Memory::default(),
        };
        self.run(process, holdfast_node_server::run_with(parts, config, process.stop.clone()))
    }

    fn run_volume_manager(self: &Rc<Self>, process: &Arc<Process>) -> JoinHandle<()> {
        let port = Port { network: Arc::clone(&self.network), process: Arc::clone(process) };
        let calls = CatalogPort { weather: Arc::clone(&self.catalog), process: Arc::clone(process) };
        let parts = holdfast_volume_manager_server::Parts {
            listener: Box::new(port.clone()),
            http: HttpClient::over(Arc::new(port), None),
            catalog: self.store(Arc::new(calls)),
            surroundings: self.surroundings(&process.name),
        };
        let config = holdfast_volume_manager_server::Config {
            listen: String::new(),
            name: Some(process.name.clone()),
            address: Some(format!("https://{}", process.name)),
            cell: CELL,
            cell_secret: SECRET.to_owned(),
            data_dir: PathBuf::new(),
            catalog: CatalogConfig::default(),
            tls: no_files(),
            timing: Timing {
                heartbeat_ms: 1000,
                suspect_ms: 2500,
                down_ms: 5000,
                lost_ms: 8000,
                zone_lost_ms: 15_000,
                leader_ttl_ms: 2000,
                lease_ms: 4000,
                seal_grace_ms: 1500,
                audit_ms: 10_000,
            },
            copies: Copies { max_parallel: 4, ..Copies::default() },
        };
        self.run(process, holdfast_volume_manager_server::run_with(parts, config, process.stop.clone()))
    }

    fn run_frontend(self: &Rc<Self>, process: &Arc<Process>) -> JoinHandle<()> {
        let port = Port { network: Arc::clone(&self.network), process: Arc::clone(process) };
        let calls = CatalogPort { weather: Arc::clone(&self.catalog), process: Arc::clone(process) };
        let parts = holdfast_frontend_server::Parts {
            listener: Box::new(port.clone()),
            http: HttpClient::over(Arc::new(port), None),
            catalog: self.store(Arc::new(calls)),
            surroundings: self.surroundings(&process.name),
        };
        let config = holdfast_frontend_server::Config {
            listen: String::new(),
            address: format!("https://{}", process.name),
            cell: CELL,
            cell_secret: SECRET.to_owned(),
            signing_keys: SIGNING_KEY.to_owned(),
            master_key: MASTER_KEY.to_owned(),
            catalog_dir: PathBuf::new(),
            catalog: CatalogConfig::default(),
            volume_manager: format!("https://{BALANCER}").into(),
            hedge_ms: 100,
            tls: no_files(),
            // Reads shall come from the disks.
            cache: holdfast_frontend_server::CacheConfig { bytes: 0 },
            writer: holdfast_frontend_server::WriterConfig {
                open_volumes: 2,
                max_batch_bytes: 64 << 10,
                append_deadline_ms: 2000,
                fault_after_append: 0,
            },
            limits: holdfast_frontend_server::LimitsConfig::default(),
        };
        self.run(process, holdfast_frontend_server::run_with(parts, config, process.stop.clone()))
    }
}

fn new_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder can be made")
}

/// A folder with the files of an empty catalog. They are made once in a process; making them is as much work as a whole
/// seed of trouble.
async fn new_catalog() -> tempfile::TempDir {
    static EMPTY: OnceLock<Vec<(std::ffi::OsString, Vec<u8>)>> = OnceLock::new();
    let folder = new_folder();
    if EMPTY.get().is_none() {
        let made = new_folder();
        let calls = SqliteCalls { simulated: Some(Arc::new(Outside)), ..SqliteCalls::new(made.path()) };
        drop(CatalogStore::Sqlite(calls).open(CELL).await.expect("an empty folder takes a catalog"));
        let files = std::fs::read_dir(made.path()).into_iter().flatten().flatten();
        let files = files.filter_map(|file| Some((file.file_name(), std::fs::read(file.path()).ok()?)));
        let _ = EMPTY.set(files.collect());
    }
    for (name, bytes) in EMPTY.get().into_iter().flatten() {
        std::fs::write(folder.path().join(name), bytes).expect("there is room for a small file");
    }
    folder
}

/// Nobody reads them.
fn no_files() -> TlsFiles {
    TlsFiles { certificate: PathBuf::new(), key: PathBuf::new(), ca: PathBuf::new() }
}
