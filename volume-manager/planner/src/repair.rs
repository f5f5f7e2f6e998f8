//! Which sealed volumes are copied, from where, to where, and in which order.

use holdfast_libs_types::{DiskId, VolumeId};

use crate::{COPIES, Distinct, Inventory, PlacementError, choose_repair_disk, choose_restore_disk};

/// A sealed volume and the state of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReplicas {
    /// The volume.
    pub volume: VolumeId,
    /// Disks in service with a verified replica.
    pub live: Vec<DiskId>,
    /// Disks with a verified replica that can still be read, but take no more writes: they are sources, and are to be
    /// replaced.
    pub failing: Vec<DiskId>,
    /// Disks with a verified replica that do not answer, and are still waited for: they are no sources, and need not be
    /// replaced.
    pub away: Vec<DiskId>,
    /// Disks that must not get one: that failed a copy of it just now.
    pub avoid: Vec<DiskId>,
    /// Disks with an extent of this volume that is damaged. It gives way to a copy; but a disk that has spoiled it once is the
    /// last choice.
    pub occupied: Vec<DiskId>,
    /// Disks in service that have a replica in their trash, and may have it back: there it costs one read, and no slot.
    pub restorable: Vec<DiskId>,
}

/// One copy to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairAction {
    /// The volume.
    pub volume: VolumeId,
    /// Where it can be read, in the order to try; none when only a trash has it, that of the target.
    pub sources: Vec<DiskId>,
    /// Where the new replica goes.
    pub target: DiskId,
    /// The replicas once the copy is verified, those that are away included. Failing disks stay among them only while the others are too few.
    pub replicas: Vec<DiskId>,
}

/// What to do, and what cannot be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// Copies to make, the most endangered volume first. A volume that lacks two replicas gets its second copy from the
    /// next plan, once the first is committed.
    pub actions: Vec<RepairAction>,
    /// Volumes that lack replicas and have no place for one.
    pub blocked: Vec<(VolumeId, PlacementError)>,
    /// Volumes without a live replica or one in a trash: nothing can be copied until a disk comes back.
    pub unreadable: Vec<VolumeId>,
}

/// Plans one copy for each volume with fewer than [`COPIES`] replicas on disks that are in service or waited for: fewest
/// readable replicas first, then fewest in service, then by id. Slots that earlier actions of the plan take are counted.
pub fn plan_repairs(inventory: &Inventory, volumes: &[VolumeReplicas], distinct: Distinct) -> RepairPlan {
    let mut inventory = inventory.clone();
    let mut lacking: Vec<&VolumeReplicas> =
        volumes.iter().filter(|volume| volume.live.len() + volume.away.len() < COPIES).collect();
    lacking.sort_by_key(|volume| (volume.live.len() + volume.failing.len(), volume.live.len(), volume.volume));
    let mut plan = RepairPlan::default();
    for VolumeReplicas { volume, live, failing, away, avoid, occupied, restorable } in lacking {
        let avoid: Vec<DiskId> = avoid.iter().chain(failing).copied().collect();
        let kept: Vec<DiskId> = live.iter().chain(away).copied().collect();
        let chosen = match live.is_empty() && failing.is_empty() {
            false => {
                let elsewhere = [&avoid[..], occupied].concat();
                let choose = |avoid| choose_repair_disk(&inventory, *volume, &kept, restorable, avoid, distinct);
                choose(&elsewhere).or_else(|_| choose(&avoid))
            }
            true => match choose_restore_disk(&inventory, &kept, restorable, &avoid, distinct) {
                Some(disk) => Ok(disk),
                None => {
                    plan.unreadable.push(*volume);
                    continue;
                }
            },
        };
        match chosen {
            Ok(target) => {
                if !restorable.contains(&target) {
                    inventory.take_slot(target);
                }
                let mut replicas: Vec<DiskId> = kept.iter().copied().chain([target]).collect();
                let missing = COPIES.saturating_sub(replicas.len());
                replicas.extend(failing.iter().take(missing));
                plan.actions.push(RepairAction {
                    volume: *volume,
                    sources: sources(*volume, live, failing),
                    target,
                    replicas,
                });
            }
            Err(error) => plan.blocked.push((*volume, error)),
        }
    }
    plan
}

/// Disks in service first, starting at a place that differs from volume to volume, so that not every copy reads the same
/// disk.
fn sources(volume: VolumeId, live: &[DiskId], failing: &[DiskId]) -> Vec<DiskId> {
    let mut sources = live.to_vec();
    let start = usize::from(volume.as_bytes()[15]).checked_rem(live.len()).unwrap_or(0);
    sources.rotate_left(start);
    sources.extend(failing);
    sources
}
