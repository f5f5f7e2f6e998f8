//! Copies for sealed volumes that lack a replica, and audits of what nodes really hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_node_client::{CopyRequest, ExtentInfo, ExtentState, Source};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::{RepairAction, VolumeReplicas, plan_repairs};

use crate::inventory::Snapshot;
use crate::liveness::{NodeStanding, Standing};
use crate::manager::{Claim, Manager, within};

/// A disk that failed a copy of a volume is left out for it so long.
const AVOID: Duration = Duration::from_secs(30);

const EXTENTS_LIMIT: Duration = Duration::from_secs(30);
const COPY_LIMIT: Duration = Duration::from_secs(600);

/// What lacks a place for a replica, in words for the status.
pub(crate) type Blocked = Vec<String>;

/// Starts copies for all volumes that lack a replica, as many as may run at once.
pub(crate) fn start(manager: &Arc<Manager>, snapshot: &Snapshot, sealed: &[Volume]) -> Blocked {
    let volumes = lacking(manager, snapshot, sealed);
    let plan = plan_repairs(&snapshot.planner(), &volumes);
    let by_id: HashMap<VolumeId, &Volume> = sealed.iter().map(|volume| (volume.volume, volume)).collect();
    for action in plan.actions {
        let Ok(place) = Arc::clone(&manager.copies).try_acquire_owned() else { break };
        let Some(volume) = by_id.get(&action.volume) else { continue };
        let detail = format!("copying to disk {}", action.target);
        let Some(claim) = manager.claim(action.volume, "repair", &detail) else { continue };
        let (manager, snapshot, volume) = (Arc::clone(manager), snapshot.clone(), (*volume).clone());
        manager.tasks.clone().spawn(async move {
            copy(&manager, &snapshot, &volume, &action, claim).await;
            drop(place);
            manager.wake.notify_one();
        });
    }
    let mut blocked: Blocked =
        plan.blocked.iter().map(|(volume, error)| format!("volume {volume} cannot be repaired: {error}")).collect();
    blocked.extend(plan.unreadable.iter().map(|volume| format!("volume {volume} has no live replica")));
    blocked
}

/// Volumes that hold something, with their live replicas. An empty volume has nothing to copy.
fn lacking(manager: &Manager, snapshot: &Snapshot, sealed: &[Volume]) -> Vec<VolumeReplicas> {
    let now = Instant::now();
    let mut progress = manager.progress();
    progress.failed_copies.retain(|_, until| *until > now);
    let avoid = |volume: VolumeId| {
        progress.failed_copies.keys().filter(|(failed, _)| *failed == volume).map(|(_, disk)| *disk).collect()
    };
    let holding = sealed.iter().filter(|volume| volume.length.is_some_and(|length| length > 0));
    holding
        .map(|volume| VolumeReplicas {
            volume: volume.volume,
            live: snapshot.live(volume),
            avoid: avoid(volume.volume),
        })
        .collect()
}

async fn copy(manager: &Manager, snapshot: &Snapshot, volume: &Volume, action: &RepairAction, claim: Claim) {
    match try_copy(manager, snapshot, volume, action).await {
        Ok(()) => {
            manager.metrics.repairs.inc();
            tracing::info!(volume = %volume.volume, disk = %action.target, "replica made again");
        }
        Err(why) => {
            manager.metrics.failed_repairs.inc();
            tracing::warn!(volume = %volume.volume, disk = %action.target, why, "repair failed");
            let until = Instant::now() + AVOID;
            manager.progress().failed_copies.insert((volume.volume, action.target), until);
        }
    }
    drop(claim);
}

/// The node answers a copy only after it read the new extent back and compared its digest.
async fn try_copy(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: &Volume,
    action: &RepairAction,
) -> Result<(), String> {
    let (Some(length), Some(digest)) = (volume.length, volume.digest) else {
        return Err("it is not sealed".to_owned());
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
        term: manager.term.0,
    };
    let copied = within(COPY_LIMIT, manager.node(&target.address).copy(&request)).await;
    let copied = copied.map_err(|error| error.to_string())?;
    if copied.digest != request.digest || copied.length != length {
        return Err("the node answered another digest or length".to_owned());
    }
    let mut replicas: Vec<DiskId> =
        volume.replicas.iter().copied().filter(|disk| action.sources.contains(disk)).collect();
    replicas.push(action.target);
    let (id, old) = (volume.volume, volume.replicas.clone());
    let committed = manager.catalog(move |catalog, term| catalog.table.set_replicas(term, id, &old, &replicas)).await;
    committed.map_err(|error| error.to_string())
}

/// Compares what the disks of a node hold with the table. A sealed volume's replica that is not there, or is not what was
/// sealed, is taken off the list, unless it is the last one.
pub(crate) async fn audit(manager: &Manager, node: &NodeId) -> Result<(), CatalogError> {
    let snapshot = manager.snapshot().await?;
    let up = |view: &&crate::inventory::NodeView| view.node.node == *node && view.standing == NodeStanding::Up;
    if snapshot.nodes.iter().find(up).is_none() {
        return Ok(());
    }
    for view in snapshot.disks.iter().filter(|view| view.disk.info.node == *node) {
        if view.standing != Standing::Healthy {
            continue;
        }
        let disk = view.disk.info.disk;
        // The table is read before the disk: what it names by now must be on the disk by then.
        let sealed = manager.catalog(|catalog, _| catalog.table.volumes_in(&[VolumeState::Sealed])).await?;
        let listed = within(EXTENTS_LIMIT, manager.node(&view.address).extents(disk)).await;
        let Ok(extents) = listed else { continue };
        let held: HashMap<VolumeId, &ExtentInfo> = extents.iter().map(|extent| (extent.volume, extent)).collect();
        for volume in sealed.iter().filter(|volume| volume.replicas.contains(&disk)) {
            if let Some(why) = mismatch(volume, held.get(&volume.volume).copied()) {
                drop_replica(manager, &snapshot, volume, disk, &why).await?;
            }
        }
    }
    Ok(())
}

fn mismatch(volume: &Volume, extent: Option<&ExtentInfo>) -> Option<String> {
    let Some(extent) = extent else { return Some("the disk holds no extent of it".to_owned()) };
    if extent.state != ExtentState::Sealed {
        let note = extent.note.as_deref().unwrap_or("no note");
        return Some(format!("its extent is {:?} ({note})", extent.state));
    }
    let digest = volume.digest.map(hex::encode);
    (extent.digest != digest).then(|| "its extent has another digest".to_owned())
}

async fn drop_replica(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: &Volume,
    disk: DiskId,
    why: &str,
) -> Result<(), CatalogError> {
    let kept: Vec<DiskId> = volume.replicas.iter().copied().filter(|other| *other != disk).collect();
    if !snapshot.live(volume).iter().any(|live| *live != disk) {
        tracing::error!(volume = %volume.volume, %disk, why, "the last replica is not what was sealed");
        return Ok(());
    }
    tracing::warn!(volume = %volume.volume, %disk, why, "replica dropped");
    let (id, old) = (volume.volume, volume.replicas.clone());
    match manager.catalog(move |catalog, term| catalog.table.set_replicas(term, id, &old, &kept)).await {
        // A repair was quicker; the next audit sees what it left.
        Err(CatalogError::ReplicasChanged { .. }) => Ok(()),
        result => result,
    }
}
