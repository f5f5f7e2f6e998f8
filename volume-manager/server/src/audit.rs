//! Compares what nodes really hold with the table.
//!
//! - A sealed volume's replica that is not there, or is not what was sealed, is taken off the list, unless it is the last
//!   one.
//! - A replica that was away while its volume was sealed or repaired is cut to the length, verified, and put on the list
//!   again when the volume lacks one, or stands farther apart with it: that costs one read, a new copy costs a slot.
//! - Any other extent of a volume that is sealed, or has failed, goes into the trash of its disk ([`discard`]).
//! - An extent of a volume that the catalog does not know is told of, and left alone.
//!
//! All disks of a node are compared when it registers, and all disks of all nodes now and then. A disk whose node reports
//! another number of damaged extents than at its last audit is compared at once. That is one audit of a node at a time
//! with a rest between two, however many findings there are: the next one sees them all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_node_client::{CancelCopy, ExtentInfo, ExtentState, SealRequest, code};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::COPIES;
use tokio::time::Instant;

use crate::discard::{self, ASK_LIMIT};
use crate::inventory::{DiskView, Snapshot};
use crate::liveness::NodeStanding;
use crate::manager::{Manager, within};
use crate::repair::CANCEL_LIMIT;
use crate::seal::SEAL_LIMIT;

const EXTENTS_LIMIT: Duration = Duration::from_secs(30);

/// Extents of unknown volumes that are looked for in the catalog again, for each disk.
const RECHECKED: usize = 16;

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
    let volumes = manager.catalog.table.volumes().await?;
    for view in snapshot.disks.iter().filter(|view| view.disk.info.node == *node && view.is_well()) {
        let disk = view.disk.info.disk;
        if only.is_some_and(|only| !only.contains(&disk)) {
            continue;
        }
        // What is found while the disk is listed changes the number again.
        let damage = manager.liveness().report(disk).map_or(0, |report| report.damaged_extents);
        let listed = within(EXTENTS_LIMIT, &view.address, manager.node(&view.address).extents(disk)).await;
        match listed {
            Ok(extents) => {
                audit_disk(manager, snapshot, view, &volumes, &extents).await?;
                manager.progress().audited_damage.insert(disk, damage);
            }
            Err(error) => tracing::debug!(%disk, %error, "no list of extents"),
        }
        if manager.shutdown.is_cancelled() {
            return Ok(());
        }
    }
    Ok(())
}

/// Compares what a disk holds with the table.
async fn audit_disk(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    view: &DiskView,
    volumes: &[Volume],
    extents: &[ExtentInfo],
) -> Result<(), CatalogError> {
    let disk = view.disk.info.disk;
    let mut held: BTreeMap<VolumeId, Held<'_>> = BTreeMap::new();
    extents.iter().for_each(|extent| held.entry(extent.volume).or_default().add(extent));
    let holding = || volumes.iter().filter(|volume| volume.state == VolumeState::Sealed && !discard::is_hollow(volume));
    let such = |is_such: fn(&Volume, &Held<'_>) -> bool| {
        let such = holding().filter(|volume| held.get(&volume.volume).is_some_and(|held| is_such(volume, held)));
        such.map(|volume| volume.volume).collect()
    };
    let occupied = such(|_, held| held.stands.is_some_and(|extent| extent.state == ExtentState::Damaged));
    let restorable = such(|volume, held| held.can_restore(volume));
    {
        let mut progress = manager.progress();
        progress.damaged.retain(|(_, on), _| *on != disk);
        progress.refused.retain(|(_, on), _| *on != disk);
        // Before a replica is dropped: its next copy should not go here.
        progress.occupied.insert(disk, occupied);
        progress.restorable.insert(disk, restorable);
    }
    for volume in volumes {
        if manager.shutdown.is_cancelled() {
            return Ok(());
        }
        let held = held.remove(&volume.volume).unwrap_or_default();
        let extent = held.stands;
        if held.comes {
            clean_up(manager, volume.volume, view).await;
        }
        match volume.state {
            _ if discard::is_hollow(volume) => {
                if let Some(extent) = extent {
                    discard::discard(manager, view, extent, true).await?;
                }
            }
            VolumeState::Sealed if !volume.replicas.contains(&disk) => {
                if let Some(extent) = extent {
                    unlisted(manager, snapshot, volume, view, extent).await?;
                }
            }
            VolumeState::Sealed => {
                if mismatch(volume, extent).is_some()
                    && let Some(why) = ask_again(manager, view, volume).await
                {
                    drop_replica(manager, snapshot, volume, disk, why).await?;
                }
            }
            VolumeState::Creating | VolumeState::Open | VolumeState::Sealing | VolumeState::Failed => {}
        }
    }
    // An unfinished copy is of no volume yet, and what is in the trash of none any more.
    held.retain(|_, held| held.stands.is_some());
    note_strangers(manager, disk, held.into_keys().collect()).await
}

/// What a disk holds of one volume.
#[derive(Default)]
struct Held<'a> {
    stands: Option<&'a ExtentInfo>,
    /// An unfinished copy is there.
    comes: bool,
    trash: Vec<&'a ExtentInfo>,
}

impl<'a> Held<'a> {
    fn add(&mut self, extent: &'a ExtentInfo) {
        match extent.state {
            ExtentState::Copying => self.comes = true,
            ExtentState::Trashed => self.trash.push(extent),
            _ => self.stands = Some(extent),
        }
    }

    /// Whether a replica can come out of the trash: nothing comes out beside what stands.
    fn can_restore(&self, volume: &Volume) -> bool {
        self.stands.is_none() && self.trash.iter().any(|extent| is_restorable(volume, extent))
    }
}

/// Whether an extent in the trash is a replica of its sealed volume, as far as its node knows: the order for a copy has it read
/// back, compared, and taken out.
pub(crate) fn is_restorable(volume: &Volume, extent: &ExtentInfo) -> bool {
    extent.state == ExtentState::Trashed
        && extent.note.is_none()
        && Some(extent.tail) == volume.length
        && extent.digest.is_some()
        && extent.digest == volume.digest.map(hex::encode)
}

/// Counts extents of volumes that the catalog does not know. They are left as they are.
async fn note_strangers(manager: &Manager, disk: DiskId, strangers: Vec<VolumeId>) -> Result<(), CatalogError> {
    let mut count = strangers.len() as u64;
    // A volume that was made since the table was read is none, so a few are asked for again.
    for volume in strangers.iter().take(RECHECKED) {
        if manager.catalog.table.volume(*volume).await?.is_some() {
            count -= 1;
        }
    }
    let mut progress = manager.progress();
    match count {
        0 => drop(progress.strangers.remove(&disk)),
        _ => drop(progress.strangers.insert(disk, count)),
    }
    Ok(())
}

/// An extent of a sealed volume that is not on its list: a replica to have back, or nothing to keep.
async fn unlisted(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    volume: &Volume,
    view: &DiskView,
    extent: &ExtentInfo,
) -> Result<(), CatalogError> {
    match extent.state {
        ExtentState::Trashed | ExtentState::Copying => Ok(()),
        ExtentState::Damaged => discard::discard(manager, view, extent, true).await,
        ExtentState::Open | ExtentState::Fenced | ExtentState::Sealed => {
            match readmit(manager, snapshot, volume, view).await? {
                Readmitted::Yes => Ok(()),
                Readmitted::NotNeeded => discard::discard(manager, view, extent, false).await,
                Readmitted::NoReplica => discard::discard(manager, view, extent, true).await,
            }
        }
    }
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

/// What is wrong with a replica by its node's word now: it may have come back since its disk was listed.
async fn ask_again(manager: &Manager, view: &DiskView, volume: &Volume) -> Option<String> {
    let disk = view.disk.info.disk;
    match within(ASK_LIMIT, &view.address, manager.node(&view.address).extent(disk, volume.volume)).await {
        Ok(extent) => mismatch(volume, Some(&extent)),
        Err(CallError::Api(error)) if error.code == code::UNKNOWN_VOLUME => mismatch(volume, None),
        Err(error) => {
            tracing::debug!(volume = %volume.volume, %disk, %error, "a replica is looked at by the next audit");
            None
        }
    }
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

/// What became of an extent that is on no list.
enum Readmitted {
    /// It is on the list again, or somebody works on its volume.
    Yes,
    /// The volume has no use for it.
    NotNeeded,
    /// Its bytes are not those of the volume.
    NoReplica,
}

/// Frees the slot of a copy that nobody makes any more: its node died over it, and the volume was copied elsewhere since.
async fn clean_up(manager: &Manager, volume: VolumeId, view: &DiskView) {
    let disk = view.disk.info.disk;
    if manager.moves.is_running(volume) || manager.progress().copying.contains_key(&volume) {
        return;
    }
    let order = CancelCopy { disk, volume, under_way: false, term: manager.term.0 };
    match within(CANCEL_LIMIT, &view.address, manager.node(&view.address).cancel_copy(&order)).await {
        Ok(_) => tracing::info!(%volume, %disk, "unfinished copy given up"),
        Err(error) => tracing::warn!(%volume, %disk, %error, "unfinished copy stays"),
    }
}

/// Puts a replica that was away on the list again, when the volume lacks one, or in place of one that stands too close to the
/// others.
async fn readmit(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    volume: &Volume,
    view: &DiskView,
) -> Result<Readmitted, CatalogError> {
    let disk = view.disk.info.disk;
    let live = snapshot.kept(volume);
    let replicas = match live.len() {
        // One that leaves is as good as any while there are too few.
        ..COPIES if is_welcome(snapshot, &live, view) => live.into_iter().chain([disk]).collect(),
        COPIES.. if view.takes_new() => match discard::farther_apart(snapshot, &volume.replicas, disk) {
            Some(replicas) => replicas,
            None => return Ok(Readmitted::NotNeeded),
        },
        _ => return Ok(Readmitted::NotNeeded),
    };
    let Some(_claim) = manager.claim(volume.volume, "repair", &format!("verifying what disk {disk} still holds"))
    else {
        return Ok(Readmitted::Yes);
    };
    // While the volume is not whole it stays, whatever the answer.
    if let Err(Unverified::NoReplica(why) | Unverified::NotNow(why)) = verify(manager, volume, view).await {
        tracing::info!(volume = %volume.volume, %disk, why, "what the disk still holds is no replica");
        return Ok(Readmitted::NoReplica);
    }
    tracing::info!(volume = %volume.volume, %disk, "replica readmitted");
    manager.metrics.readmitted.inc();
    let table = &manager.catalog.table;
    unless_changed(table.set_replicas(manager.term, volume.volume, &volume.replicas, &replicas).await)?;
    Ok(Readmitted::Yes)
}

/// Whether the volume is better off with this replica than with a copy somewhere else.
fn is_welcome(snapshot: &Snapshot, live: &[DiskId], view: &DiskView) -> bool {
    let others: Vec<&DiskView> = live.iter().filter_map(|disk| snapshot.disk(*disk)).collect();
    let is_new = |view: &DiskView| others.iter().all(|other| other.zone != view.zone);
    let same_node = others.iter().any(|other| other.disk.info.node == view.disk.info.node);
    !same_node && (is_new(view) || !snapshot.disks.iter().any(|view| view.takes_new() && is_new(view)))
}

/// Why an extent was not verified, in words.
pub(crate) enum Unverified {
    /// It is no replica of its volume.
    NoReplica(String),
    /// Its node did not say what it is.
    NotNow(String),
}

/// Has a node cut and verify what it holds of a sealed volume; `Ok` when it is a replica of it.
pub(crate) async fn verify(manager: &Manager, volume: &Volume, view: &DiskView) -> Result<(), Unverified> {
    let (Some(length), Some(digest)) = (volume.length, volume.digest) else {
        return Err(Unverified::NotNow("the volume is not sealed".to_owned()));
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
        Ok(_) => Err(Unverified::NoReplica("its bytes are others".to_owned())),
        Err(CallError::Api(error)) if says_no_replica(&error.code) => Err(Unverified::NoReplica(error.message)),
        Err(error) => Err(Unverified::NotNow(error.to_string())),
    }
}

/// Answers to a seal that tell of the extent, and not of its disk or the moment. What cannot be read is damaged.
fn says_no_replica(answered: &str) -> bool {
    [code::TOO_SHORT, code::DAMAGED, code::SEALED_OTHERWISE, code::NOT_A_BOUNDARY].contains(&answered)
}

/// A repair was quicker; the next audit sees what it left.
fn unless_changed(result: Result<(), CatalogError>) -> Result<(), CatalogError> {
    match result {
        Err(CatalogError::ReplicasChanged { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
    use holdfast_node_client::{ExtentInfo, ExtentState};
    use holdfast_volume_manager_catalog::{Volume, VolumeState};

    use super::Held;

    #[test]
    fn a_replica_comes_out_of_the_trash_whatever_else_lies_there_and_not_beside_what_stands() {
        let volume = Volume {
            volume: VolumeId([1; 16]),
            state: VolumeState::Sealed,
            epoch: WriteEpoch(2),
            capacity: 1 << 20,
            length: Some(4096),
            digest: Some([7; 32]),
            holder: None,
            lease_expires_ms: None,
            seal_reason: None,
            replicas: Vec::new(),
        };
        let extent = |state, digest: u8| ExtentInfo {
            disk: DiskId([2; 16]),
            volume: volume.volume,
            slot: 0,
            slot_generation: 1,
            state,
            epoch: volume.epoch,
            tail: 4096,
            digest: Some(hex::encode([digest; 32])),
            note: None,
            records: None,
            trashed_at_s: None,
            order: None,
        };
        let [good, other] = [7, 8].map(|digest| extent(ExtentState::Trashed, digest));
        let [damaged, copying] = [ExtentState::Damaged, ExtentState::Copying].map(|state| extent(state, 7));
        let can_restore = |all: &[&ExtentInfo]| {
            let mut held = Held::default();
            all.iter().for_each(|extent| held.add(extent));
            held.can_restore(&volume)
        };
        assert!(can_restore(&[&good]) && can_restore(&[&other, &good]) && can_restore(&[&good, &other]));
        assert!(can_restore(&[&good, &copying]), "an unfinished copy is given up first");
        assert!(!can_restore(&[&other]) && !can_restore(&[&good, &damaged]) && !can_restore(&[&damaged, &good]));
    }
}
