//! Compares what nodes really hold with the table.
//!
//! - A sealed volume's replica that is not there, or is not what was sealed, is taken off the list, unless it is the last
//!   one. Its bytes stay where they are, unless they are damaged: then they go into the trash of their disk once the volume
//!   is whole without them.
//! - A replica that was away while its volume was sealed or repaired is cut to the length, verified, and put on the list
//!   again when the volume lacks one: that costs one read, a new copy costs a slot.
//!
//! All disks of a node are compared when it registers, and all disks of all nodes now and then. A disk whose node reports
//! another number of damaged extents than at its last audit is compared at once. That is one audit of a node at a time
//! with a rest between two, however many findings there are: the next one sees them all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_node_client::{CancelCopy, ExtentInfo, ExtentState, SealRequest, TrashRequest};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::COPIES;
use tokio::time::Instant;

use crate::inventory::{DiskView, Snapshot};
use crate::liveness::{NodeStanding, Standing};
use crate::manager::{Manager, within};
use crate::repair::CANCEL_LIMIT;
use crate::seal::SEAL_LIMIT;

const EXTENTS_LIMIT: Duration = Duration::from_secs(30);

const TRASH_LIMIT: Duration = Duration::from_secs(10);

/// Between two audits of disks of one node for damage on them.
const DAMAGE_REST: Duration = Duration::from_secs(2);

/// Starts to audit the nodes that registered since the last round, or all of them, and disks with new damage.
pub(crate) fn start(manager: &Arc<Manager>, snapshot: &Arc<Snapshot>, all: bool) {
    let mut progress = manager.progress();
    let now = Instant::now();
    progress.next_damage_audit.retain(|_, at| *at > now);
    let mut harmed: HashMap<NodeId, HashSet<DiskId>> = HashMap::new();
    for view in snapshot.unaudited_damage(&progress) {
        let info = &view.disk.info;
        if !progress.next_damage_audit.contains_key(&info.node) {
            harmed.entry(info.node.clone()).or_default().insert(info.disk);
        }
    }
    for view in snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up) {
        let name = &view.node.node;
        // Who registered after the snapshot was taken is not in it as it is now: that is the next round's turn.
        let returned = progress.audits.get(name).is_some_and(|at| *at <= snapshot.taken);
        let harmed = harmed.remove(name);
        // What is under way may have asked before it registered.
        if !(returned || all || harmed.is_some()) || progress.auditing.contains_key(name) {
            continue;
        }
        if returned {
            progress.audits.remove(name);
        }
        progress.auditing.insert(name.clone(), returned);
        let only = harmed.filter(|_| !returned && !all);
        let (manager, snapshot, name) = (Arc::clone(manager), Arc::clone(snapshot), name.clone());
        manager.tasks.clone().spawn(async move {
            if let Err(error) = audit(&manager, &snapshot, &name, only.as_ref()).await {
                tracing::error!(node = %name, %error, "audit");
            }
            let mut progress = manager.progress();
            progress.auditing.remove(&name);
            progress.next_damage_audit.insert(name, Instant::now() + DAMAGE_REST);
            progress.stale = true;
            manager.wake.notify_one();
        });
    }
}

/// Audits the disks of a node, or some only.
async fn audit(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    node: &NodeId,
    only: Option<&HashSet<DiskId>>,
) -> Result<(), CatalogError> {
    // The table is read before the disks: what it names by now must be there by then.
    let sealed = manager.catalog.table.volumes_in(&[VolumeState::Sealed]).await?;
    let holding: Vec<&Volume> = sealed.iter().filter(|volume| volume.length.is_some_and(|length| length > 0)).collect();
    for view in snapshot.disks.iter().filter(|view| view.disk.info.node == *node) {
        if view.standing != Standing::Healthy {
            continue;
        }
        let disk = view.disk.info.disk;
        if only.is_some_and(|only| !only.contains(&disk)) {
            continue;
        }
        // What is found while the disk is listed changes the number again.
        let damage = manager.liveness().report(disk).map_or(0, |report| report.damaged_extents);
        let listed = within(EXTENTS_LIMIT, &view.address, manager.node(&view.address).extents(disk)).await;
        let extents = match listed {
            Ok(extents) => extents,
            Err(error) => {
                tracing::debug!(%disk, %error, "no list of extents");
                continue;
            }
        };
        let held: HashMap<VolumeId, &ExtentInfo> = extents.iter().map(|extent| (extent.volume, extent)).collect();
        let is_spoiled = |volume: &VolumeId| {
            held.get(volume).is_some_and(|at| matches!(at.state, ExtentState::Damaged | ExtentState::Trashed))
        };
        let spoiled: HashSet<VolumeId> = holding.iter().map(|volume| volume.volume).filter(is_spoiled).collect();
        {
            let mut progress = manager.progress();
            progress.damaged.retain(|(_, on), _| *on != disk);
            // Before a replica is dropped: its next copy must not go here.
            match spoiled.is_empty() {
                true => drop(progress.spoiled.remove(&disk)),
                false => drop(progress.spoiled.insert(disk, spoiled)),
            }
        }
        for volume in &holding {
            if manager.shutdown.is_cancelled() {
                return Ok(());
            }
            let extent = held.get(&volume.volume).copied();
            if !volume.replicas.contains(&disk) {
                match extent {
                    Some(extent) if extent.state == ExtentState::Damaged => {
                        discard(manager, snapshot, volume, view, extent).await?;
                    }
                    Some(extent) if extent.state == ExtentState::Copying => {
                        clean_up(manager, volume.volume, view).await;
                    }
                    Some(extent) => readmit(manager, snapshot, volume, view, extent).await?,
                    None => {}
                }
            } else if let Some(why) = mismatch(volume, extent) {
                drop_replica(manager, snapshot, volume, disk, why).await?;
            }
        }
        manager.progress().audited_damage.insert(disk, damage);
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
    why: String,
) -> Result<(), CatalogError> {
    let (id, old) = (volume.volume, &volume.replicas);
    if !snapshot.live(volume).iter().any(|live| *live != disk) {
        tracing::error!(volume = %id, %disk, why, "the last replica is not what was sealed");
        manager.progress().damaged.insert((id, disk), why);
        return Ok(());
    }
    let kept: Vec<DiskId> = old.iter().copied().filter(|other| *other != disk).collect();
    tracing::warn!(volume = %id, %disk, why, "replica dropped");
    unless_changed(manager.catalog.table.set_replicas(manager.term, id, old, &kept).await)
}

/// Orders a damaged extent into the trash once its volume has all its replicas, verified, on other disks that are well. It
/// can be restored from there for as long as the node keeps it.
async fn discard(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: &Volume,
    view: &DiskView,
    extent: &ExtentInfo,
) -> Result<(), CatalogError> {
    let (id, disk) = (volume.volume, view.disk.info.disk);
    let now = manager.catalog.table.volume(id).await?;
    let is_well = |disk: &&DiskId| snapshot.disk(**disk).is_some_and(|view| view.standing == Standing::Healthy);
    let is_whole = now.is_some_and(|now| now.replicas.iter().filter(is_well).count() >= COPIES);
    let (Ok(slot), Ok(slot_generation)) = (extent.slot.try_into(), extent.slot_generation.try_into()) else {
        return Ok(());
    };
    let (true, Ok(order)) = (is_whole, manager.surroundings.ids.draw::<16>()) else { return Ok(()) };
    let order = hex::encode(order);
    let request = TrashRequest { disk, volume: id, slot, slot_generation, term: manager.term.0, order };
    match within(TRASH_LIMIT, &view.address, manager.node(&view.address).trash(&request)).await {
        Ok(_) => {
            let order = request.order;
            tracing::info!(volume = %id, %disk, slot, order, "damaged extent ordered into the trash, its volume is whole");
        }
        Err(error) => tracing::warn!(volume = %id, %disk, slot, %error, "damaged extent not ordered into the trash"),
    }
    Ok(())
}

/// Frees the slot of a copy that nobody makes any more: its node died over it, and the volume was copied elsewhere since.
async fn clean_up(manager: &Manager, volume: VolumeId, view: &DiskView) {
    let disk = view.disk.info.disk;
    if manager.progress().copying.contains_key(&volume) {
        return;
    }
    let order = CancelCopy { disk, volume, under_way: false, term: manager.term.0 };
    match within(CANCEL_LIMIT, &view.address, manager.node(&view.address).cancel_copy(&order)).await {
        Ok(_) => tracing::info!(%volume, %disk, "unfinished copy given up"),
        Err(error) => tracing::warn!(%volume, %disk, %error, "unfinished copy stays"),
    }
}

async fn readmit(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    volume: &Volume,
    view: &DiskView,
    extent: &ExtentInfo,
) -> Result<(), CatalogError> {
    let disk = view.disk.info.disk;
    let live = snapshot.kept(volume);
    let same_zone = live.iter().filter_map(|disk| snapshot.disk(*disk)).any(|other| other.zone == view.zone);
    let usable = matches!(extent.state, ExtentState::Open | ExtentState::Fenced | ExtentState::Sealed);
    if live.len() >= COPIES || same_zone || !usable {
        return Ok(());
    }
    let Some(_claim) = manager.claim(volume.volume, "repair", &format!("verifying what disk {disk} still holds"))
    else {
        return Ok(());
    };
    if let Err(why) = verify(manager, volume, view).await {
        tracing::info!(volume = %volume.volume, %disk, why, "what the disk still holds is no replica");
        return Ok(());
    }
    tracing::info!(volume = %volume.volume, %disk, "replica readmitted");
    manager.metrics.readmitted.inc();
    let replicas: Vec<DiskId> = live.into_iter().chain([disk]).collect();
    let table = &manager.catalog.table;
    unless_changed(table.set_replicas(manager.term, volume.volume, &volume.replicas, &replicas).await)
}

/// Has a node cut and verify what it holds of a sealed volume; `Ok` when it is a replica of it.
pub(crate) async fn verify(manager: &Manager, volume: &Volume, view: &DiskView) -> Result<(), String> {
    let (Some(length), Some(digest)) = (volume.length, volume.digest) else {
        return Err("the volume is not sealed".to_owned());
    };
    let request = SealRequest {
        disk: view.disk.info.disk,
        volume: volume.volume,
        epoch: volume.epoch,
        length,
        term: manager.term.0,
    };
    match within(SEAL_LIMIT, &view.address, manager.node(&view.address).seal(&request)).await {
        Ok(sealed) if sealed.digest == hex::encode(digest) && sealed.length == length => Ok(()),
        Ok(_) => Err("its bytes are others".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A repair was quicker; the next audit sees what it left.
fn unless_changed(result: Result<(), CatalogError>) -> Result<(), CatalogError> {
    match result {
        Err(CatalogError::ReplicasChanged { .. }) => Ok(()),
        other => other,
    }
}
