//! What the cell says of a disk that is replaced, and of what stands in its place.

use anyhow::{Context as _, bail};
use holdfast_libs_types::DiskId;
use holdfast_node_client::{ExtentState, NodeClient, Occupant, Place, PlaceAsk};
use holdfast_volume_manager_client::{DiskDetail, DrainRow, NodeRow, RebalanceRow, VolumeDetail};

use crate::admin::cell::Cell;
use crate::admin::disk::each_volume_on;

/// Volumes that have a replica on a disk, by the catalog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them.
    pub total: u64,
    /// Those of which no replica counts any more: this disk may hold the last bytes.
    pub last_hope: u64,
    /// Those that cannot lose one more disk, this one included.
    pub one_left: u64,
}

/// All that decides on the next step.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The disk that is replaced.
    pub old: DiskDetail,
    /// What it holds.
    pub held: Held,
    /// What stands in its place now.
    pub place: Place,
    /// The new disk, once the volume manager knows it.
    pub new: Option<DiskDetail>,
    /// Volumes of the cell that lack a replica.
    pub lacking: u64,
    /// The drain of the old disk, once it was ordered.
    pub drain: Option<DrainRow>,
    /// The rebalance under way.
    pub rebalance: Option<RebalanceRow>,
    /// How level the new disk is. Looked up once no volume lacks a replica and no rebalance is under way.
    pub level: Level,
}

/// What a disk holds of its share.
#[derive(Debug, Clone, Default)]
pub struct Level {
    /// Replicas on it, and its share; none as long as that was not looked up.
    pub holds: Option<(u64, f64)>,
    /// Replicas that a rebalance would bring to it.
    pub short: u64,
    /// What a rebalance would leave where it is.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Whether the new disk is in use, the old one does not count any more and no volume lacks a replica.
    pub fn is_whole(&self) -> bool {
        self.new.as_ref().is_some_and(|new| new.state == "healthy") && self.held.total == 0 && self.lacking == 0
    }
}

/// What the volume manager says, whether the disk's node answers or not.
#[derive(Debug, Clone)]
pub struct Known {
    /// The disk that is replaced.
    pub old: DiskDetail,
    /// Its node.
    pub node: Option<NodeRow>,
    /// The other disks.
    others: Vec<DiskDetail>,
    /// What the disk holds.
    pub held: Held,
    /// Volumes of the cell that lack a replica.
    pub lacking: u64,
    drain: Option<DrainRow>,
    rebalance: Option<RebalanceRow>,
}

#[cfg(test)]
impl Known {
    /// A disk, its node and what it holds, and no more.
    pub fn of(old: DiskDetail, node: NodeRow, held: Held) -> Self {
        Self { old, node: Some(node), others: Vec::new(), held, lacking: 0, drain: None, rebalance: None }
    }
}

/// Asks the volume manager.
pub async fn known(cell: &Cell, old: DiskId) -> anyhow::Result<Known> {
    if let Some(why) = cell.volume_manager().rebuild_status().await?.lost {
        bail!(
            "the catalog is not whole ({why}), so every disk looks empty to it; first: `holdfast admin catalog rebuild`"
        );
    }
    let mut inventory = cell.volume_manager().inventory().await?;
    let Some(at) = inventory.disks.iter().position(|disk| disk.disk == old) else {
        bail!("the cell has no disk {old} any more");
    };
    let disk = inventory.disks.swap_remove(at);
    let held = held(cell, old).await?;
    let status = cell.volume_manager().status().await?;
    let whole = status.volumes.can_lose.get("2").copied().unwrap_or(0);
    Ok(Known {
        node: inventory.nodes.into_iter().find(|node| node.node == disk.node),
        old: disk,
        others: inventory.disks,
        held,
        lacking: status.volumes.total.saturating_sub(whole),
        drain: status.drains.into_iter().find(|row| row.disk == old),
        rebalance: status.rebalance,
    })
}

/// Asks for all of it.
pub async fn gather(cell: &Cell, old: DiskId) -> anyhow::Result<Facts> {
    let known = known(cell, old).await?;
    let place = look(&cell.node(&known.old.address), &known.old).await?;
    of_place(cell, known, place).await
}

/// Asks the disk's node what is in its place.
pub async fn look(node: &NodeClient, disk: &DiskDetail) -> anyhow::Result<Place> {
    let asked = node.look_at_place(&PlaceAsk { path: disk.path.clone() }).await;
    asked.with_context(|| format!("node {} is asked what is in the disk's place", disk.node))
}

/// All of it, with what stands in the disk's place.
pub async fn of_place(cell: &Cell, known: Known, mut place: Place) -> anyhow::Result<Facts> {
    let Known { old: disk, others, held, lacking, drain, rebalance, node: _ } = known;
    let new = place.disk.filter(|there| *there != disk.disk && place.occupant == Occupant::Disk);
    let new = others.into_iter().find(|other| Some(other.disk) == new);
    if let Some(other) = new.as_ref().filter(|new| (&new.node, &new.path) != (&disk.node, &disk.path)) {
        place.occupant = Occupant::Unusable;
        place.reason =
            Some(format!("it says that it is disk {}, which is in use at {}:{}", other.disk, other.node, other.path));
    }
    let mut facts = Facts { old: disk, held, place, new, lacking, drain, rebalance, level: Level::default() };
    if let Some(new) = facts.new.as_ref().filter(|_| facts.is_whole() && facts.rebalance.is_none()) {
        facts.level = level(cell, new.disk).await?;
    }
    Ok(facts)
}

async fn level(cell: &Cell, disk: DiskId) -> anyhow::Result<Level> {
    let answer = cell.volume_manager().rebalance().await?;
    let share = answer.disks.iter().find(|share| share.disk == disk);
    Ok(Level {
        holds: share.map(|share| (share.has, share.share)),
        short: share.map_or(0, |share| share.after.saturating_sub(share.has)),
        warnings: answer.plan.warnings,
    })
}

async fn held(cell: &Cell, disk: DiskId) -> anyhow::Result<Held> {
    let mut held = Held::default();
    each_volume_on(cell, disk, None, |volume| {
        held.total += u64::from(has_data(&volume));
        held.last_hope += u64::from(has_data(&volume) && volume.unreadable);
        held.one_left += u64::from(volume.can_lose == Some(0) && !volume.unreadable);
    })
    .await?;
    Ok(held)
}

fn has_data(volume: &VolumeDetail) -> bool {
    volume.can_lose.is_some()
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Verified {
    pub volumes: u64,
    pub bytes: u64,
}

/// Compares what the node holds on a disk with what was sealed. A copy's digest is that of its bytes read back.
pub async fn verify(cell: &Cell, disk: &DiskDetail) -> anyhow::Result<Verified> {
    let node = cell.node(&disk.address);
    let mut verified = Verified::default();
    // No more than the disk has slots.
    let mut sealed = Vec::new();
    each_volume_on(cell, disk.disk, Some("sealed"), |volume| sealed.extend(has_data(&volume).then_some(volume)))
        .await?;
    for volume in sealed {
        let extent = node.extent(disk.disk, volume.volume).await?;
        let is_same = extent.state == ExtentState::Sealed && extent.digest == volume.digest;
        if !is_same || Some(extent.tail) != volume.length {
            bail!(
                "volume {} on the new disk {} is not what was sealed ({:?}, {} bytes); the next audit drops it and it is made again",
                volume.volume,
                disk.disk,
                extent.state,
                extent.tail
            );
        }
        verified.volumes += 1;
        verified.bytes += extent.tail;
    }
    Ok(verified)
}
