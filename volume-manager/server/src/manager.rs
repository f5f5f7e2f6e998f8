//! What all calls and workers share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_libs_surroundings::Surroundings;
use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_node_client::NodeClient;
use holdfast_volume_manager_catalog::{Catalog, CatalogError, Term, Volume, VolumeState};
use holdfast_volume_manager_client::Work;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::error::ServerError;
use crate::keyring::Given;
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::moves::Moves;
use crate::rebuild::Rebuild;
use crate::repair::operator::Wishes;
use crate::repair_rate::RepairRate;

/// Volumes that are sealed at once.
const PARALLEL_SEALS: usize = 4;

/// A volume that is `creating` becomes `failed`. Its fence is closed first: whatever happens to the table's row then, nothing
/// can point into the volume.
pub(crate) async fn give_up(catalog: &Catalog, term: Term, volume: &Volume, reason: &str) -> Result<(), CatalogError> {
    catalog.index.close_fence(volume.volume, volume.epoch.next()).await?;
    catalog.table.fail_volume(term, volume.volume, reason).await
}

/// The volume manager.
pub(crate) struct Manager {
    pub config: Config,
    pub catalog: Catalog,
    pub term: Term,
    /// The catalog's generation, for new volume ids.
    pub generation: u32,
    /// Why the catalog was not whole when this leadership began: then nothing is leased, ordered or repaired, but rebuilt.
    pub lost: Option<String>,
    pub rebuild: Arc<Rebuild>,
    /// The highest term that any node says it was told.
    pub highest_term: AtomicU64,
    /// When this leadership began, Unix milliseconds.
    pub started_ms: u64,
    pub shutdown: CancellationToken,
    pub metrics: Metrics,
    pub repair_rate: RepairRate,
    /// What the operator asked of repair.
    pub wishes: Wishes,
    /// As for repairs, of moves.
    pub move_rate: RepairRate,
    pub moves: Moves,
    pub surroundings: Surroundings,
    /// Wakes the reconciler before its time.
    pub wake: Notify,
    /// Wakes all seals that wait, when a node has registered.
    pub returned: Notify,
    pub tasks: TaskTracker,
    /// Held while an operator's order is looked at and written.
    pub ordering: tokio::sync::Mutex<()>,
    pub seals: Arc<Semaphore>,
    pub copies: Arc<Semaphore>,
    /// This leadership ends for the next one to begin at once, in this process.
    anew: AtomicBool,
    http: HttpClient,
    liveness: Mutex<Liveness>,
    progress: Mutex<Progress>,
}

/// What is being done, for the status and so that nothing is begun twice.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Seals, repairs and moves under way or waiting, by volume.
    pub work: BTreeMap<VolumeId, Work>,
    /// Copies under way, by volume.
    pub copying: BTreeMap<VolumeId, CopyUnderWay>,
    /// Disks that failed a copy of a volume, and when that may be forgotten.
    pub failed_copies: HashMap<(VolumeId, DiskId), Instant>,
    /// The keyring that a node's disks have.
    pub keyrings: HashMap<NodeId, Given>,
    /// Nodes that registered and whose disks are yet to be compared with the table; when they did.
    pub audits: HashMap<NodeId, Instant>,
    /// Nodes whose disks are being compared; whether that is because they registered.
    pub auditing: HashMap<NodeId, bool>,
    /// Last replicas that an audit found not to be what was sealed, and why.
    pub damaged: HashMap<(VolumeId, DiskId), String>,
    /// Damaged extents that a disk had by its node's report when it was last compared with the table.
    pub audited_damage: HashMap<DiskId, u64>,
    /// When disks of a node may be compared again because of new damage: each finding asks for it.
    pub next_damage_audit: HashMap<NodeId, Instant>,
    /// Sealed volumes of which a disk holds a damaged extent, as the last audit saw: it is the last choice for a copy of them.
    pub occupied: HashMap<DiskId, HashSet<VolumeId>>,
    /// Sealed volumes that a disk has a replica of in its trash, as the last audit saw: it can have that back.
    pub restorable: HashMap<DiskId, HashSet<VolumeId>>,
    /// Disks that were away when a volume was sealed: its replica there is not on the list, and may be again after an audit.
    pub left_out: HashMap<VolumeId, Vec<DiskId>>,
    /// Extents that a node would not put into the trash, and why.
    pub refused: HashMap<(VolumeId, DiskId), String>,
    /// Extents of volumes that the catalog does not know, by disk.
    pub strangers: HashMap<DiskId, u64>,
    /// Nodes that are being given the keyring.
    pub pushing: HashSet<NodeId>,
    /// Volumes that lack a replica and cannot get one now, each with the reason.
    pub blocked: Vec<(VolumeId, String)>,
    /// A repair that could be made waits for its turn.
    pub repair_waits: bool,
    /// Something may lack a replica since the last look.
    pub stale: bool,
}

/// A copy that a node makes.
#[derive(Debug, Clone)]
pub(crate) struct CopyUnderWay {
    /// Where to, and the address of its node.
    pub target: DiskId,
    pub address: String,
    /// Where it is read first.
    pub source: DiskId,
    pub bytes: u64,
    /// One replica was left.
    pub urgent: bool,
    pub since: Instant,
    /// It was ordered to be given up.
    pub cancelled: bool,
}

impl Manager {
    /// Begins to lead: gives up the volumes that the last leader was making when it died, since no frontend has them.
    pub async fn open(
        config: Config,
        catalog: Catalog,
        term: Term,
        http: HttpClient,
        surroundings: Surroundings,
        shutdown: CancellationToken,
        rebuild: Arc<Rebuild>,
    ) -> Result<Self, ServerError> {
        let generation = catalog.table.generation().await?;
        let lost = catalog.table.lost().await?;
        let creating = match lost {
            // What the disks have of them is not known yet.
            Some(_) => Vec::new(),
            None => catalog.table.volumes_in(&[VolumeState::Creating]).await?,
        };
        for volume in creating {
            give_up(&catalog, term, &volume, "its volume manager died while making it").await?;
        }
        let wishes = Wishes::load(&catalog).await?;
        let copies = Arc::new(Semaphore::new(config.copies.max_parallel.max(1)));
        Ok(Self {
            config,
            catalog,
            term,
            generation,
            lost,
            rebuild,
            highest_term: AtomicU64::new(0),
            anew: AtomicBool::new(false),
            started_ms: surroundings.clock.unix_ms(),
            shutdown,
            metrics: Metrics::default(),
            repair_rate: RepairRate::default(),
            wishes,
            move_rate: RepairRate::default(),
            moves: Moves::default(),
            surroundings,
            wake: Notify::new(),
            returned: Notify::new(),
            tasks: TaskTracker::new(),
            ordering: tokio::sync::Mutex::default(),
            seals: Arc::new(Semaphore::new(PARALLEL_SEALS)),
            copies,
            http,
            liveness: Mutex::new(Liveness::new(Instant::now())),
            progress: Mutex::default(),
        })
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.surroundings.clock.unix_ms()
    }

    /// Ends this leadership, for the next one to begin at once: the catalog was found not to be whole, or has become so.
    pub fn begin_anew(&self) {
        self.anew.store(true, Ordering::Relaxed);
        self.shutdown.cancel();
    }

    /// Whether it ended by [`Manager::begin_anew`].
    pub fn begins_anew(&self) -> bool {
        self.anew.load(Ordering::Relaxed)
    }

    /// Runs several steps to their end, also when the caller hangs up between two of them.
    pub async fn to_the_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Tasks are cancelled only when the runtime ends, and then nobody waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }

    pub fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is copied in the cell, for repair or because it moves.
    pub fn copies_are_under_way(&self) -> bool {
        self.repair_rate.is_under_way() || self.move_rate.is_under_way()
    }

    /// How much longer the foreground's 99th percentile may take for the sake of copies, percent; `None` for no limit.
    pub fn max_client_impact(&self) -> Option<u32> {
        self.wishes.impact(self.config.copies.max_client_impact)
    }

    pub fn node(&self, address: &str) -> NodeClient {
        NodeClient::new(self.http.clone(), address)
    }

    /// Says in the status what goes on with a volume.
    pub fn note(&self, volume: VolumeId, kind: &str, detail: impl Into<String>) {
        let work = Work { kind: kind.to_owned(), volume, detail: detail.into() };
        self.progress().work.insert(volume, work);
    }

    /// Says in the status, and in its reasons, that a volume's work waits.
    pub fn wait_note(&self, volume: VolumeId, kind: &str, why: &str) {
        self.note(volume, kind, format!("waits: {why}"));
    }

    /// Takes a volume's work for one task. `None` when somebody has it.
    pub fn claim(self: &Arc<Self>, volume: VolumeId, kind: &str, detail: &str) -> Option<Claim> {
        let mut progress = self.progress();
        if progress.work.contains_key(&volume) {
            return None;
        }
        let work = Work { kind: kind.to_owned(), volume, detail: detail.to_owned() };
        progress.work.insert(volume, work);
        Some(Claim { manager: Arc::clone(self), volume })
    }

    /// Waits, or answers false at once when the daemon stops.
    pub async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// The right to work on a volume; given back when dropped.
pub(crate) struct Claim {
    manager: Arc<Manager>,
    pub volume: VolumeId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.manager.progress().work.remove(&self.volume);
    }
}

/// A call to the node at `address`, cut off after `limit`: an order that hangs must not hold up a volume.
pub(crate) async fn within<T>(
    limit: Duration,
    address: &str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Timeout { url: address.to_owned(), after: limit }),
    }
}
