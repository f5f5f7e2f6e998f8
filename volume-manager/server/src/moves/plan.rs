//! What is to move, from the table and the disks as they are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::{
    Barred, COPIES, Inventory, MoveReason, RebalancePolicy, Spread, choose_move_disk, plan_rebalance,
};

use super::Step;
use crate::discard::is_hollow;
use crate::drains::unwhole;
use crate::inventory::{DiskView, Snapshot};
use crate::manager::Manager;

/// A plan for fewer volumes takes no longer than a few milliseconds.
const MOST_PLANNED_INLINE: usize = 10_000;

/// Disks are as good as level, however much they hold, while nobody asked for a rebalance.
const NO_FILL: f64 = 1e9;

/// The volumes that have replicas, by whether these can move.
pub(crate) struct Volumes {
    /// In the order of their ids, as are the others.
    pub sealed: Vec<Volume>,
    /// Those that are made, written or sealed at the moment.
    pub unsealed: Vec<Volume>,
}

impl Volumes {
    /// All of them as of one moment: a volume that is being sealed is in one of the two, and not in both.
    pub async fn read(manager: &Manager) -> Result<Self, CatalogError> {
        let states = [VolumeState::Creating, VolumeState::Open, VolumeState::Sealing, VolumeState::Sealed];
        let mut sealed = manager.catalog.table.volumes_in(&states).await?;
        let unsealed = sealed.extract_if(.., |volume| volume.state != VolumeState::Sealed).collect();
        Ok(Self { sealed, unsealed })
    }
}

/// What there is to move.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub steps: Vec<Step>,
    /// Volumes that are not whole at the moment, so that none of their replicas moves.
    pub held_back: u64,
    /// The same by why, and what else keeps replicas from moving for now.
    pub held_back_by: BTreeMap<String, u64>,
    /// Volumes that are not sealed: theirs do not move, and count where they are.
    pub unsealed: u64,
    /// Replicas that should move and found no place, without those on disks that leave.
    pub left_over: u64,
    /// What each disk holds, will hold, and its share.
    pub disks: Vec<holdfast_volume_manager_planner::DiskFill>,
}

/// Whether all replicas of a volume are there and in service.
pub(crate) fn is_movable(snapshot: &Snapshot, volume: &Volume) -> bool {
    let is_well = |disk: &DiskId| snapshot.disk(*disk).is_some_and(DiskView::is_well);
    volume.state == VolumeState::Sealed && volume.replicas.len() >= COPIES && volume.replicas.iter().all(is_well)
}

/// How far apart these disks stand, those that are lost for good left out.
pub(super) fn spread(inventory: &Inventory, disks: &[DiskId]) -> Spread {
    Spread::of(disks.iter().filter_map(|disk| inventory.disk(*disk)))
}

/// Whether a volume would stand nearer together with its replica elsewhere.
fn lessens_spread(inventory: &Inventory, volume: &Volume, from: DiskId, to: DiskId) -> bool {
    spread(inventory, &instead(&volume.replicas, from, to)) < spread(inventory, &volume.replicas)
}

/// The list with one disk in place of another.
pub(super) fn instead(replicas: &[DiskId], from: DiskId, to: DiskId) -> Vec<DiskId> {
    replicas.iter().map(|disk| if *disk == from { to } else { *disk }).collect()
}

/// Where a replica of a volume goes off a disk that is drained, or why it stays there: unless `less_spread` is accepted the
/// volume stands over as many zones as before, also when its zone loses its other disks while the drain runs.
pub(crate) fn place_off(
    inventory: &Inventory,
    (volume, replicas): (VolumeId, &[DiskId]),
    from: DiskId,
    avoid: &[DiskId],
    less_spread: bool,
) -> Result<DiskId, String> {
    let mut others = replicas.to_vec();
    others.retain(|disk| *disk != from);
    let to = choose_move_disk(inventory, volume, &others, avoid).map_err(|error| error.to_string())?;
    let (now, then) = (spread(inventory, replicas).zones, spread(inventory, &instead(replicas, from, to)).zones);
    if then >= now || less_spread {
        return Ok(to);
    }
    let zone = inventory.disk(from).map_or("its zone", |disk| &disk.zone);
    Err(format!(
        "the volume stands over {now} zones and would stand over {then}, for no other disk of {zone} can take it (a drain ordered with \
         --less-spread accepts that)"
    ))
}

/// As [`plan`], on a thread of its own when there is much to go through.
pub(crate) async fn plan_aside(
    inventory: Inventory,
    snapshot: &Arc<Snapshot>,
    volumes: Volumes,
    barred: Barred,
    rebalance: bool,
) -> Plan {
    if volumes.sealed.len() < MOST_PLANNED_INLINE {
        return plan(&inventory, snapshot, &volumes, &barred, rebalance);
    }
    let snapshot = Arc::clone(snapshot);
    match tokio::task::spawn_blocking(move || plan(&inventory, &snapshot, &volumes, &barred, rebalance)).await {
        Ok(plan) => plan,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends. Nothing was planned, which is not to say that there is nothing to move.
            Err(_) => {
                let held_back_by = BTreeMap::from([("the volume manager ends".to_owned(), 1)]);
                Plan { held_back: 1, held_back_by, ..Plan::default() }
            }
        },
    }
}

/// Plans the moves of the sealed volumes. What the others hold is a part of what their disks hold.
fn plan(inventory: &Inventory, snapshot: &Snapshot, volumes: &Volumes, barred: &Barred, rebalance: bool) -> Plan {
    let mut plan = Plan { unsealed: volumes.unsealed.len() as u64, ..Plan::default() };
    let holding = volumes.sealed.iter().filter(|volume| !is_hollow(volume));
    let (movable, held_back): (Vec<&Volume>, Vec<&Volume>) = holding.partition(|volume| is_movable(snapshot, volume));
    plan.held_back = held_back.len() as u64;
    for volume in &held_back {
        *plan.held_back_by.entry(unwhole(snapshot, volume, None)).or_default() += 1;
    }
    let leaving: HashSet<DiskId> = inventory.disks.iter().filter(|disk| disk.leaving).map(|disk| disk.disk).collect();
    let best = Spread::best(inventory.disks.iter().filter(|disk| disk.eligible));
    let is_crowded = |volume: &&Volume| snapshot.spread(&volume.replicas) < best;
    if !rebalance && leaving.is_empty() && !movable.iter().any(is_crowded) {
        return plan;
    }
    let policy = match rebalance {
        true => RebalancePolicy::default(),
        false => RebalancePolicy { band: NO_FILL, ..RebalancePolicy::default() },
    };
    let may_move = movable.iter().map(|volume| (volume.volume, &volume.replicas[..]));
    let still = held_back.into_iter().chain(&volumes.unsealed).map(|volume| &volume.replicas[..]);
    let planned = plan_rebalance(inventory, may_move, still, barred, &policy);
    let by_id: HashMap<VolumeId, &Volume> = movable.iter().map(|volume| (volume.volume, *volume)).collect();
    let moved: HashSet<VolumeId> = planned.moves.iter().map(|step| step.volume).collect();
    plan.steps.extend(planned.moves.iter().filter_map(|step| {
        let volume = by_id.get(&step.volume)?;
        let bytes = volume.length.unwrap_or(0);
        let waits = step.reason == MoveReason::Drain && lessens_spread(inventory, volume, step.from, step.to);
        let to = (!waits).then_some(step.to);
        Some(Step { volume: step.volume, from: step.from, to, reason: step.reason, bytes })
    }));
    // What the plan by shares leaves on a disk that is drained is looked at one by one.
    for volume in movable.iter().filter(|volume| !moved.contains(&volume.volume)) {
        if let Some(from) = volume.replicas.iter().find(|disk| leaving.contains(disk)) {
            let bytes = volume.length.unwrap_or(0);
            plan.steps.push(Step { volume: volume.volume, from: *from, to: None, reason: MoveReason::Drain, bytes });
        }
    }
    let order = |step: &Step| match step.reason {
        MoveReason::Spread => 0,
        MoveReason::Drain => 1,
        MoveReason::Fill => 2,
    };
    plan.steps.sort_by_key(order);
    (plan.left_over, plan.disks) = (planned.left_over, planned.disks);
    plan
}
