//! Copies for sealed volumes that lack a replica.
//!
//! - `operator`: what an operator asked of it
//! - `status`: what is to be done, and how far it is

pub(crate) mod operator;
pub(crate) mod status;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_client::{CancelCopy, CopyRequest, ExtentInfo, ExtentState, Sealed, Source, code};
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_planner::{
    Barred, COPIES, Inventory, PlacementError, RepairAction, VolumeReplicas, plan_repairs,
};
use tokio::time::Instant;

use crate::audit::{self, Unverified};
use crate::discard;
use crate::inventory::{DISTINCT, DiskView, Snapshot};
use crate::liveness::Standing;
use crate::manager::{CopyUnderWay, Manager, Progress, within};
use crate::repair_rate::Copying;

/// A disk that failed a copy of a volume is left out for it so long.
const AVOID: Duration = Duration::from_secs(30);

const COPY_LIMIT: Duration = Duration::from_secs(600);

/// Nobody waits longer for one answer of a node: it may be lost, with its node or without. The copy goes on all the same, and
/// its order is repeated, after a moment.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const REPEAT: Duration = Duration::from_secs(2);

pub(crate) const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// Starts copies for all volumes that lack a replica, as many as may run at once.
pub(crate) fn start(manager: &Arc<Manager>, snapshot: &Arc<Snapshot>, sealed: &[Volume]) {
    let volumes = lacking(manager, snapshot, sealed);
    let plan = plan_repairs(&targets(manager, snapshot), &volumes, DISTINCT);
    let by_id: HashMap<VolumeId, &Volume> = sealed.iter().map(|volume| (volume.volume, volume)).collect();
    manager.progress().repair_waits = false;
    give_up_needless(manager, snapshot, &by_id);
    note_blocked(manager, plan.blocked, plan.unreadable);
    if manager.wishes.pause(manager.now_ms()).is_some() {
        return;
    }
    let mut turns = Turns::now(manager);
    for mut action in plan.actions {
        if !turns.take(&mut action, snapshot) {
            continue;
        }
        let Ok(place) = Arc::clone(&manager.copies).try_acquire_owned() else {
            manager.progress().repair_waits = true;
            break;
        };
        let Some(volume) = by_id.get(&action.volume) else { continue };
        let detail = format!("copying to disk {}", action.target);
        let Some(claim) = manager.claim(action.volume, "repair", &detail) else { continue };
        let Some(copying) = UnderWay::begin(manager, snapshot, volume, &action) else { continue };
        let (manager, snapshot, volume) = (Arc::clone(manager), Arc::clone(snapshot), (*volume).clone());
        if !is_restorable(&manager, action.volume, action.target) {
            manager.liveness().take_slot(action.target);
        }
        manager.tasks.clone().spawn(async move {
            let again = copy(&manager, &snapshot, &volume, &action).await;
            drop((copying, claim, place));
            if again {
                manager.progress().stale = true;
                manager.wake.notify_one();
            }
        });
    }
}

/// Remembers what cannot be repaired now, and why.
fn note_blocked(manager: &Manager, blocked: Vec<(VolumeId, PlacementError)>, unreadable: Vec<VolumeId>) {
    let mut all: Vec<(VolumeId, String)> =
        blocked.into_iter().map(|(volume, error)| (volume, error.to_string())).collect();
    all.extend(unreadable.into_iter().map(|volume| (volume, "it has no live replica".to_owned())));
    manager.progress().blocked = all;
}

/// How many copies each disk has, to it and from it.
struct Turns {
    per_disk: usize,
    to: HashMap<DiskId, usize>,
    from: HashMap<DiskId, usize>,
}

impl Turns {
    fn now(manager: &Manager) -> Self {
        let mut turns =
            Self { per_disk: manager.config.copies.per_disk.max(1), to: HashMap::new(), from: HashMap::new() };
        for copy in manager.progress().copying.values() {
            turns.count(copy.target, copy.source);
        }
        turns
    }

    fn count(&mut self, to: DiskId, from: DiskId) {
        *self.to.entry(to).or_default() += 1;
        *self.from.entry(from).or_default() += 1;
    }

    /// Whether it is the action's turn: no disk takes or gives more copies than it may. The source that gives the fewest comes
    /// first, a disk that may not answer comes last.
    fn take(&mut self, action: &mut RepairAction, snapshot: &Snapshot) -> bool {
        let from = |disk: &DiskId| self.from.get(disk).copied().unwrap_or(0);
        let is_well = |disk: &DiskId| snapshot.disk(*disk).is_some_and(|view| view.standing.away().is_none());
        // Stable: of equals the plan's choice, which differs from volume to volume.
        action.sources.sort_by_key(|disk| (!is_well(disk), from(disk)));
        let source = first_source(action);
        let to = self.to.get(&action.target).copied().unwrap_or(0);
        let free = to < self.per_disk && from(&source) < self.per_disk;
        if free {
            self.count(action.target, source);
        }
        free
    }
}

/// Where a copy is read first.
fn first_source(action: &RepairAction) -> DiskId {
    // What no source has the target has in its trash.
    action.sources.first().copied().unwrap_or(action.target)
}

/// Whether the next failure may take the volume's data.
fn is_urgent(snapshot: &Snapshot, volume: &Volume) -> bool {
    snapshot.live(volume).len() <= 1
}

/// Counts a copy as under way until it is dropped.
struct UnderWay {
    manager: Arc<Manager>,
    volume: VolumeId,
}

impl UnderWay {
    fn begin(manager: &Arc<Manager>, snapshot: &Snapshot, volume: &Volume, action: &RepairAction) -> Option<Self> {
        let copy = CopyUnderWay {
            target: action.target,
            address: snapshot.disk(action.target)?.address.clone(),
            source: first_source(action),
            bytes: volume.length.unwrap_or(0),
            urgent: is_urgent(snapshot, volume),
            since: Instant::now(),
            cancelled: false,
        };
        manager.progress().copying.insert(volume.volume, copy);
        Some(Self { manager: Arc::clone(manager), volume: volume.volume })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.manager.progress().copying.remove(&self.volume);
    }
}

/// Has copies given up whose volume is whole without them, because a disk came back.
fn give_up_needless(manager: &Arc<Manager>, snapshot: &Snapshot, sealed: &HashMap<VolumeId, &Volume>) {
    let mut progress = manager.progress();
    for (id, copy) in progress.copying.iter_mut().filter(|(_, copy)| !copy.cancelled) {
        let whole = sealed.get(id).is_some_and(|volume| snapshot.kept(volume).len() >= COPIES);
        if !whole {
            continue;
        }
        copy.cancelled = true;
        let (manager, address) = (Arc::clone(manager), copy.address.clone());
        let order = CancelCopy { disk: copy.target, volume: *id, under_way: true, term: manager.term.0 };
        manager.tasks.clone().spawn(async move {
            if let Err(error) = within(CANCEL_LIMIT, &address, manager.node(&address).cancel_copy(&order)).await {
                tracing::info!(volume = %order.volume, disk = %order.disk, %error, "needless copy goes on");
            }
        });
    }
}

/// Where copies may go. A node that has just registered is left out until its audit is over: it may still hold what a copy
/// would bring.
fn targets(manager: &Manager, snapshot: &Snapshot) -> Inventory {
    without_unaudited(manager, snapshot.planner())
}

/// An inventory in which nodes take nothing whose audit after their registration is not over.
pub(crate) fn without_unaudited(manager: &Manager, mut inventory: Inventory) -> Inventory {
    let progress = manager.progress();
    for disk in &mut inventory.disks {
        let audited = progress.audits.contains_key(&disk.node) || progress.auditing.get(&disk.node) == Some(&true);
        disk.eligible &= !audited;
    }
    inventory
}

/// Disks to which a volume does not move now: they failed a copy of it, or what they hold of it is damaged.
pub(crate) fn avoided(manager: &Manager, volume: VolumeId) -> Vec<DiskId> {
    let now = Instant::now();
    let progress = manager.progress();
    let failed = progress.failed_copies.iter().filter(|((of, _), until)| *of == volume && **until > now);
    let occupied = progress.occupied.iter().filter(|(_, volumes)| volumes.contains(&volume));
    failed.map(|((_, disk), _)| *disk).chain(occupied.map(|(disk, _)| *disk)).collect()
}

/// The same for all volumes, and the volumes of which a disk failed a copy of late.
pub(crate) fn barred(manager: &Manager) -> (Barred, HashSet<VolumeId>) {
    let now = Instant::now();
    let progress = manager.progress();
    let late = progress.failed_copies.iter().filter(|(_, until)| **until > now);
    let failed: Vec<(VolumeId, DiskId)> = late.map(|(pair, _)| *pair).collect();
    let barred = by_volume(failed.iter().copied().chain(pairs(&progress.occupied)));
    (barred, failed.into_iter().map(|(volume, _)| volume).collect())
}

fn pairs(of: &HashMap<DiskId, HashSet<VolumeId>>) -> impl Iterator<Item = (VolumeId, DiskId)> {
    of.iter().flat_map(|(disk, volumes)| volumes.iter().map(|volume| (*volume, *disk)))
}

fn by_volume(pairs: impl Iterator<Item = (VolumeId, DiskId)>) -> HashMap<VolumeId, Vec<DiskId>> {
    let mut by_volume: HashMap<VolumeId, Vec<DiskId>> = HashMap::new();
    pairs.for_each(|(volume, disk)| by_volume.entry(volume).or_default().push(disk));
    by_volume
}

/// Whether a disk has a replica of the volume in its trash, as far as is known.
pub(crate) fn is_restorable(manager: &Manager, volume: VolumeId, disk: DiskId) -> bool {
    manager.progress().restorable.get(&disk).is_some_and(|volumes| volumes.contains(&volume))
}

/// Remembers what an extent is good for, now that it is in the trash.
pub(crate) fn note_trashed(manager: &Manager, volume: &Volume, extent: &ExtentInfo) {
    let trashed = ExtentInfo { state: ExtentState::Trashed, ..extent.clone() };
    let mut progress = manager.progress();
    progress.occupied.entry(extent.disk).or_default().remove(&volume.volume);
    if audit::is_restorable(volume, &trashed) {
        progress.restorable.entry(extent.disk).or_default().insert(volume.volume);
    }
}

/// Leaves a disk out for copies of a volume for a while.
pub(crate) fn avoid(manager: &Manager, volume: VolumeId, disk: DiskId) {
    manager.progress().failed_copies.insert((volume, disk), Instant::now() + AVOID);
}

/// Volumes that hold something and lack a replica. An empty volume has nothing to copy.
fn lacking(manager: &Manager, snapshot: &Snapshot, sealed: &[Volume]) -> Vec<VolumeReplicas> {
    let now = Instant::now();
    let (left_out, mut avoid, mut occupied, mut restorable) = {
        let mut progress = manager.progress();
        progress.failed_copies.retain(|_, until| *until > now);
        waited_for(&mut progress, snapshot);
        let avoid = by_volume(progress.failed_copies.keys().copied());
        let [occupied, restorable] = [&progress.occupied, &progress.restorable].map(|of| by_volume(pairs(of)));
        (progress.left_out.clone(), avoid, occupied, restorable)
    };
    let mut lacking = Vec::new();
    for volume in sealed.iter().filter(|volume| volume.length.is_some_and(|length| length > 0)) {
        let keeps = |disk: &DiskId| snapshot.disk(*disk).is_some_and(|view| view.standing.keeps_replicas());
        let (live, failing): (Vec<DiskId>, Vec<DiskId>) = snapshot.live(volume).into_iter().partition(keeps);
        let mut away = snapshot.kept(volume);
        away.retain(|disk| !live.contains(disk));
        let back_soon = left_out.get(&volume.volume).map_or(0, Vec::len);
        if live.len() + away.len() + back_soon < COPIES {
            let [avoid, occupied, mut restorable] =
                [&mut avoid, &mut occupied, &mut restorable].map(|of| of.remove(&volume.volume).unwrap_or_default());
            // Of a disk that is to be emptied only what nobody else has.
            let is_last = live.is_empty() && failing.is_empty();
            restorable
                .retain(|disk| snapshot.disk(*disk).is_some_and(|view| view.takes_new() || is_last && view.is_well()));
            lacking.push(VolumeReplicas { volume: volume.volume, live, failing, away, avoid, occupied, restorable });
        }
    }
    lacking
}

/// Forgets replicas that were left out of a seal once their disk is lost, or is back and was audited: it holds no replica then.
fn waited_for(progress: &mut Progress, snapshot: &Snapshot) {
    let Progress { left_out, audits, auditing, .. } = progress;
    for disks in left_out.values_mut() {
        disks.retain(|disk| {
            snapshot.disk(*disk).is_some_and(|view| {
                let node = &view.disk.info.node;
                let audited = !audits.contains_key(node) && !auditing.contains_key(node);
                view.standing.away().is_some() || view.standing == Standing::Healthy && !audited
            })
        });
    }
    left_out.retain(|_, disks| !disks.is_empty());
}

/// Answers whether to plan anew at once.
async fn copy(manager: &Manager, snapshot: &Snapshot, volume: &Volume, action: &RepairAction) -> bool {
    // It was planned from a list that may have changed before the volume was claimed: then another copy may be one too many.
    if !matches!(manager.catalog.table.volume(volume.volume).await, Ok(Some(now)) if now.replicas == volume.replicas) {
        return true;
    }
    let copying = manager.repair_rate.begin();
    match try_copy(manager, snapshot, volume, action).await {
        Ok(how) => {
            how.count(manager, copying, volume.length.unwrap_or(0));
            manager.metrics.repairs.inc();
            tracing::info!(volume = %volume.volume, disk = %action.target, ?how, "replica made again");
            true
        }
        // The node makes as many copies as it may, or this one already, or gave it up: the same disk again, a little later.
        Err(Failure::Busy) => false,
        Err(Failure::Failed(why)) => {
            manager.metrics.failed_repairs.inc();
            tracing::warn!(volume = %volume.volume, disk = %action.target, why, "repair failed");
            avoid(manager, volume.volume, action.target);
            true
        }
    }
}

/// How a disk came by a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obtained {
    Copied,
    /// It had the replica in its trash.
    Restored,
    /// It had it all the time, on no list.
    Found,
}

impl Obtained {
    /// Counts the bytes for the rate of copies if they were copied.
    pub fn count(self, manager: &Manager, copying: Copying<'_>, bytes: u64) {
        match self {
            Self::Copied => copying.made(bytes),
            Self::Restored => {
                manager.metrics.restored.inc();
            }
            Self::Found => {}
        }
    }
}

/// Why a copy was not made.
pub(crate) enum Failure {
    /// The node takes no copy at the moment.
    Busy,
    /// In words.
    Failed(String),
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self::Failed(why.to_owned())
    }
}

/// Orders a copy until its node says what became of it, or is silent altogether.
async fn order(manager: &Manager, target: &DiskView, request: &CopyRequest) -> Result<Sealed, CallError> {
    let until = Instant::now() + COPY_LIMIT;
    let mut is_repeat = false;
    loop {
        let answer = within(ANSWER_LIMIT, &target.address, manager.node(&target.address).copy(request)).await;
        let goes_on = match &answer {
            Err(CallError::Timeout { .. }) => true,
            Err(CallError::Api(error)) => is_repeat && error.code == code::BUSY,
            _ => false,
        };
        is_repeat = true;
        let node = &target.disk.info.node;
        let is_up = || manager.liveness().silence(node, Instant::now()) < manager.config.timing.suspect();
        if !goes_on || Instant::now() >= until || !is_up() || !manager.pause(REPEAT).await {
            return answer;
        }
    }
}

/// Has a copy made and commits the new list. The node answers a copy only after it read the new extent back and compared its
/// digest.
pub(crate) async fn try_copy(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: &Volume,
    action: &RepairAction,
) -> Result<Obtained, Failure> {
    let (Some(length), Some(digest)) = (volume.length, volume.digest) else {
        return Err("it is not sealed".into());
    };
    let target = snapshot.disk(action.target).ok_or("the disk is gone")?;
    let sources = action.sources.iter().filter_map(|disk| snapshot.replica(*disk));
    let request = CopyRequest {
        disk: action.target,
        volume: volume.volume,
        epoch: volume.epoch,
        length,
        digest: hex::encode(digest),
        sources: sources.map(|replica| Source { address: replica.address, disk: replica.disk }).collect(),
        urgent: is_urgent(snapshot, volume),
        instead_of: None,
        term: manager.term.0,
    };
    let how = match obtain(manager, target, &request).await? {
        Some(how) => how,
        // It still holds an extent of the volume, from before; that may be all it takes.
        None => match audit::verify(manager, volume, target).await {
            Ok(()) => Obtained::Found,
            Err(Unverified::NotNow(why)) => return Err(Failure::Failed(why)),
            Err(Unverified::NoReplica(why)) => displace(manager, target, request, why).await?,
        },
    };
    let table = &manager.catalog.table;
    let committed = table.set_replicas(manager.term, volume.volume, &volume.replicas, &action.replicas).await;
    committed.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(how)
}

/// Has a node obtain a replica; `None` when an extent stands there already.
async fn obtain(manager: &Manager, target: &DiskView, request: &CopyRequest) -> Result<Option<Obtained>, Failure> {
    // An answer that was lost is followed by one that says only that it is there.
    let was_in_trash = is_restorable(manager, request.volume, request.disk);
    match order(manager, target, request).await {
        Ok(Sealed { digest, length, restored }) if digest == request.digest && length == request.length => {
            Ok(Some(if restored || was_in_trash { Obtained::Restored } else { Obtained::Copied }))
        }
        Ok(_) => Err("the node answered another digest or length".into()),
        Err(CallError::Api(error)) if [code::BUSY, code::CANCELLED].contains(&&*error.code) => Err(Failure::Busy),
        // A busy disk is copied to slowly, and the node goes on: whoever asks again finds the copy under way, or made.
        Err(CallError::Timeout { .. }) => Err(Failure::Busy),
        Err(CallError::Api(error)) if error.code == code::ALREADY_EXISTS => Ok(None),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}

/// Has a copy made in place of what the disk holds, which its node just said is no replica, and why. It goes into the trash when
/// the copy is whole: no other disk may have a place for one.
async fn displace(
    manager: &Manager,
    target: &DiskView,
    request: CopyRequest,
    why: String,
) -> Result<Obtained, Failure> {
    let (disk, volume) = (request.disk, request.volume);
    let named = discard::name(manager, target, volume).await.map_err(Failure::Failed)?;
    tracing::info!(%volume, %disk, slot = named.slot, order = named.order, why, "what the disk holds gives way to a copy");
    let instead_of = Some(named);
    let made = obtain(manager, target, &CopyRequest { instead_of, ..request }).await?;
    let how = made.ok_or("what it holds of the volume changed meanwhile")?;
    manager.metrics.trashed.inc();
    manager.progress().occupied.entry(disk).or_default().remove(&volume);
    Ok(how)
}
