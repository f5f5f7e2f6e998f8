//! Orders extents into the trash of their disks.
//!
//! An extent may go when its volume never had anything in it, or when all of this is so:
//! 1. The volume is sealed, and the extent's disk is not on its list: the catalog's removal came first.
//! 2. As many disks as a volume has replicas are on the list, in service, and just said that they hold the volume sealed with its
//!    digest. What a disk that is away may hold does not count, nor what the table says alone.
//! 3. With this extent in place of one of theirs the volume would not stand farther apart; or it is no replica.
//!
//! What its node just said is no replica also gives way to a copy of its volume on the same disk, as the one order for both
//! ([`name`]): the node puts it into the trash once the copy was read back and compared. No other disk may have a place for one.
//!
//! The volume is claimed from before the list is read until the order was answered. Repair, moves and readmissions claim it
//! too, so none of them can put the extent on the list meanwhile; another leader that did so gave its node an order of a later
//! term, and then this one's is refused. The order names the slot and how often it was used: what is there now, or nothing.
//!
//! What goes can be restored from the trash for as long as the node keeps it (`docs/trash.md`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_client::{ExtentInfo, ExtentState, GivesWay, TrashRequest};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::COPIES;

use crate::inventory::{DiskView, Snapshot};
use crate::manager::{Claim, Manager, within};
use crate::repair;

pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(5);

const TRASH_LIMIT: Duration = Duration::from_secs(10);

/// Whether a volume never held a byte that anybody was told is kept: no writer had it, or it was sealed empty.
pub(crate) fn is_hollow(volume: &Volume) -> bool {
    match volume.state {
        VolumeState::Failed => true,
        VolumeState::Sealed => volume.length == Some(0),
        VolumeState::Creating | VolumeState::Open | VolumeState::Sealing => false,
    }
}

/// Gives up what `view` holds of a volume, if it may go. `worthless`: it is no replica, so it is no use for the spread.
pub(crate) async fn discard(
    manager: &Arc<Manager>,
    view: &DiskView,
    extent: &ExtentInfo,
    worthless: bool,
) -> Result<(), CatalogError> {
    let detail = format!("giving up what disk {} holds", view.disk.info.disk);
    // Whoever works on the volume may want it; the next audit comes by again.
    let Some(claim) = manager.claim(extent.volume, "trash", &detail) else { return Ok(()) };
    discard_claimed(manager, &claim, view, extent, worthless).await
}

/// Gives up the extent that a move has left behind. When that cannot be now the next audit does it.
pub(crate) async fn discard_moved(manager: &Manager, claim: &Claim, from: DiskId) -> Result<(), CatalogError> {
    let snapshot = manager.snapshot().await?;
    let Some(view) = snapshot.disk(from).filter(|view| view.is_well()) else { return Ok(()) };
    match within(ASK_LIMIT, &view.address, manager.node(&view.address).extent(from, claim.volume)).await {
        Ok(extent) => discard_claimed(manager, claim, view, &extent, false).await,
        Err(error) => {
            tracing::debug!(volume = %claim.volume, disk = %from, %error, "what was moved away stays for now");
            Ok(())
        }
    }
}

/// Names what a disk holds of a volume, and how it goes into the trash when it gives way to a copy. Whoever orders that has
/// claimed the volume, and was told that it is no replica.
///
/// # Errors
/// In words: the node does not say what it holds.
pub(crate) async fn name(manager: &Manager, view: &DiskView, volume: VolumeId) -> Result<GivesWay, String> {
    let node = manager.node(&view.address);
    let there = within(ASK_LIMIT, &view.address, node.extent(view.disk.info.disk, volume)).await;
    removal(manager, &there.map_err(|error| error.to_string())?)
}

/// Names an extent as an order does, and the order itself.
fn removal(manager: &Manager, extent: &ExtentInfo) -> Result<GivesWay, String> {
    let order = manager.surroundings.ids.draw::<16>().map_err(|error| error.to_string())?;
    match (extent.slot.try_into(), extent.slot_generation.try_into()) {
        (Ok(slot), Ok(slot_generation)) => Ok(GivesWay { slot, slot_generation, order: hex::encode(order) }),
        _ => Err(format!("slot {} of generation {} is none", extent.slot, extent.slot_generation)),
    }
}

async fn discard_claimed(
    manager: &Manager,
    claim: &Claim,
    view: &DiskView,
    extent: &ExtentInfo,
    worthless: bool,
) -> Result<(), CatalogError> {
    let (id, disk) = (claim.volume, view.disk.info.disk);
    if matches!(extent.state, ExtentState::Copying | ExtentState::Trashed) {
        return Ok(());
    }
    // An extent of an unknown volume is nobody's to give up.
    let Some(volume) = manager.catalog.table.volume(id).await? else { return Ok(()) };
    let snapshot = manager.snapshot().await?;
    if !is_hollow(&volume)
        && let Err(why) = may_go(manager, &snapshot, &volume, disk, worthless).await
    {
        tracing::debug!(volume = %id, %disk, why, "an extent that is on no list stays");
        return Ok(());
    }
    let Ok(GivesWay { slot, slot_generation, order }) = removal(manager, extent) else { return Ok(()) };
    let request = TrashRequest { disk, volume: id, slot, slot_generation, term: manager.term.0, order };
    match within(TRASH_LIMIT, &view.address, manager.node(&view.address).trash(&request)).await {
        Ok(_) => {
            manager.metrics.trashed.inc();
            repair::note_trashed(manager, &volume, extent);
            let (order, state) = (request.order, extent.state);
            tracing::info!(volume = %id, %disk, slot, order, ?state, "extent ordered into the trash");
        }
        Err(error) => {
            tracing::warn!(volume = %id, %disk, slot, %error, "extent not ordered into the trash");
            manager.progress().refused.insert((id, disk), error.to_string());
        }
    }
    Ok(())
}

/// Whether a volume that holds something is whole without what `disk` has of it.
async fn may_go(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: &Volume,
    disk: DiskId,
    worthless: bool,
) -> Result<(), String> {
    if volume.state != VolumeState::Sealed {
        return Err(format!("the volume is {}", volume.state));
    }
    if volume.replicas.contains(&disk) {
        return Err("it is on the list".to_owned());
    }
    let well: Vec<&DiskView> =
        volume.replicas.iter().filter_map(|disk| snapshot.disk(*disk)).filter(|view| view.is_well()).collect();
    let asked = join_all(well.iter().map(|view| holds(manager, view, volume))).await;
    let verified: Vec<DiskId> =
        well.iter().zip(asked).filter(|(_, holds)| *holds).map(|(view, _)| view.disk.info.disk).collect();
    if verified.len() < COPIES {
        return Err(format!("{} of {COPIES} replicas are verified on disks in service", verified.len()));
    }
    let leaves = snapshot.disk(disk).is_some_and(|view| view.leaving);
    if !worthless && !leaves && farther_apart(snapshot, &verified, disk).is_some() {
        return Err("the volume would stand farther apart with it".to_owned());
    }
    Ok(())
}

/// Whether a disk says that it holds the volume as it was sealed.
async fn holds(manager: &Manager, view: &DiskView, volume: &Volume) -> bool {
    let disk = view.disk.info.disk;
    let asked = within(ASK_LIMIT, &view.address, manager.node(&view.address).extent(disk, volume.volume)).await;
    asked.is_ok_and(|extent| {
        extent.state == ExtentState::Sealed
            && Some(extent.tail) == volume.length
            && extent.digest.is_some()
            && extent.digest == volume.digest.map(hex::encode)
    })
}

/// The list with `disk` in place of one of its own, when that stands farther apart.
pub(crate) fn farther_apart(snapshot: &Snapshot, list: &[DiskId], disk: DiskId) -> Option<Vec<DiskId>> {
    let instead = |place: usize| {
        let mut other = list.to_vec();
        other[place] = disk;
        other
    };
    let now = snapshot.spread(list);
    let best = (0..list.len()).map(instead).max_by_key(|other| snapshot.spread(other))?;
    (snapshot.spread(&best) > now).then_some(best)
}
