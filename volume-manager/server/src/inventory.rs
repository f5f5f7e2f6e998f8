//! The cell's disks with everything known of them at one moment.

use std::collections::HashMap;

use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_catalog::{CatalogError, Disk, Node, Volume};
use holdfast_volume_manager_client::{Replica, UnusableDisk};
use holdfast_volume_manager_planner::{Absences, Distinct, Inventory, InventoryDisk, Patience, Spread};
use tokio::time::Instant;

use crate::intents::{Drain, Intents, NodeIntent, Offline};
use crate::keyring::{self, Keyless};
use crate::liveness::{Away, Heard, NodeStanding, Standing};
use crate::manager::{Manager, Progress};

/// Where there are too few zones volumes take the best spread there is; [`crate::moves`] sets them apart again.
pub(crate) const DISTINCT: Distinct = Distinct::Nodes;

/// One disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskView {
    pub disk: Disk,
    pub zone: String,
    pub rack: String,
    pub address: String,
    pub standing: Standing,
    pub free_slots: u64,
    /// Damaged extents on it, as its node says.
    pub damaged_extents: u64,
    /// Slots that its trash holds.
    pub trashed_extents: u64,
    /// Why its node suspects that it is about to fail.
    pub failing: Option<String>,
    /// Why it does not take the keyring, so that nobody could read later what goes there now.
    pub keyless: Option<Keyless>,
    /// An operator has it offline.
    pub offline: Option<Offline>,
    /// It, or its node, is being drained.
    pub leaving: bool,
    /// Nothing new goes to its node.
    pub cordoned: bool,
}

impl DiskView {
    /// Whether new extents may go there.
    pub fn takes_new(&self) -> bool {
        self.is_well() && self.keyless.is_none() && !self.leaving && !self.cordoned
    }

    /// Whether it is in service and is to stay so: what counts when an extent elsewhere is given up.
    pub fn is_well(&self) -> bool {
        self.standing == Standing::Healthy && self.offline.is_none()
    }

    fn planned(&self) -> InventoryDisk {
        InventoryDisk {
            disk: self.disk.info.disk,
            node: self.disk.info.node.clone(),
            zone: self.zone.clone(),
            rack: self.rack.clone(),
            slots: self.disk.info.slots,
            free_slots: self.free_slots,
            eligible: self.takes_new(),
            leaving: self.leaving,
        }
    }
}

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct NodeView {
    pub node: Node,
    pub standing: NodeStanding,
    /// What was asked for it.
    pub intent: NodeIntent,
    /// Since it was heard of last, or since the start.
    pub silence_ms: u64,
    /// It was heard of since the start.
    pub heard: bool,
    pub unusable: Vec<UnusableDisk>,
}

impl NodeView {
    /// Whether its first heartbeat since the start may still come at any moment.
    pub fn is_awaited(&self) -> bool {
        !self.heard && self.standing == NodeStanding::Suspect
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// What was heard since may be missing.
    pub taken: Instant,
    pub nodes: Vec<NodeView>,
    pub disks: Vec<DiskView>,
    pub absences: Absences,
    /// What was asked for.
    pub intents: Intents,
    /// The disks as the planner sees them, in the same order.
    planned: Vec<InventoryDisk>,
    by_id: HashMap<DiskId, usize>,
}

impl Snapshot {
    pub fn disk(&self, disk: DiskId) -> Option<&DiskView> {
        self.by_id.get(&disk).map(|index| &self.disks[*index])
    }

    /// The planner's view of it.
    pub fn planner(&self) -> Inventory {
        Inventory { disks: self.planned.clone() }
    }

    /// The planner's view of it for moves: a disk that is lost for good is no place to wait for.
    pub fn for_moves(&self) -> Inventory {
        let is_lost = |view: &&DiskView| matches!(view.standing, Standing::Lost(_) | Standing::Failed(_));
        Inventory { disks: self.disks.iter().filter(|view| !is_lost(view)).map(DiskView::planned).collect() }
    }

    /// How far apart these disks stand, as far as they are known.
    pub fn spread(&self, disks: &[DiskId]) -> Spread {
        Spread::of(disks.iter().filter_map(|disk| self.by_id.get(disk)).map(|index| &self.planned[*index]))
    }

    /// The best spread that this cell has once everything is in service that does not leave.
    pub fn best_spread(&self) -> Spread {
        Spread::best(self.planned.iter().filter(|disk| !disk.leaving))
    }

    /// Disks in service whose node reports another number of damaged extents than when they were last audited.
    pub fn unaudited_damage(&self, progress: &Progress) -> impl Iterator<Item = &DiskView> {
        let known = |view: &DiskView| progress.audited_damage.get(&view.disk.info.disk).copied().unwrap_or(0);
        self.disks.iter().filter(move |view| view.is_well() && view.damaged_extents != known(view))
    }

    /// Those of a volume's replicas that can be read.
    pub fn live(&self, volume: &Volume) -> Vec<DiskId> {
        let holds = |disk: &DiskId| self.disk(*disk).is_some_and(|view| view.standing.holds_replicas());
        volume.replicas.iter().copied().filter(holds).collect()
    }

    /// Those of a volume's replicas that need not be replaced: they are well, or waited for.
    pub fn kept(&self, volume: &Volume) -> Vec<DiskId> {
        let keeps = |disk: &DiskId| self.disk(*disk).is_some_and(|view| view.standing.keeps_replicas());
        volume.replicas.iter().copied().filter(keeps).collect()
    }

    /// The drains that a disk is under, its own and that of its node.
    pub fn drains(&self, disk: &Disk) -> impl Iterator<Item = Drain> {
        let asked = [self.intents.disk(disk.info.disk).drain, self.intents.node(&disk.info.node).drain];
        asked.into_iter().flatten()
    }

    /// Whether volumes may stand over fewer zones once this disk is drained.
    pub fn accepts_less_spread(&self, view: &DiskView) -> bool {
        self.drains(&view.disk).any(|drain| drain.less_spread)
    }

    pub fn replica(&self, disk: DiskId) -> Option<Replica> {
        let view = self.disk(disk)?;
        Some(Replica {
            disk,
            node: view.disk.info.node.clone(),
            zone: view.zone.clone(),
            address: view.address.clone(),
        })
    }
}

impl Manager {
    pub async fn snapshot(&self) -> Result<Snapshot, CatalogError> {
        let taken = Instant::now();
        let (nodes, disks) = (self.catalog.table.nodes().await?, self.catalog.table.disks().await?);
        let intents = Intents::read(&self.catalog.table.settings().await?);
        let mut keyless = keyring::lacking(self);
        let (now, now_ms) = (Instant::now(), self.now_ms());
        let mut liveness = self.liveness();
        let places: HashMap<NodeId, [String; 3]> = nodes
            .iter()
            .map(|node| (node.node.clone(), [&node.zone, &node.rack, &node.address].map(Clone::clone)))
            .collect();
        let zones: Vec<(&NodeId, &str)> = nodes.iter().map(|node| (&node.node, node.zone.as_str())).collect();
        let mut absences = liveness.absences(&zones, now, &self.config.timing);
        liveness.settle(&mut absences, now, &self.config.timing);
        let patience: HashMap<NodeId, Patience> =
            nodes.iter().map(|node| node.node.clone()).zip(absences.patience.iter().copied()).collect();
        let mut snapshot = Snapshot {
            taken,
            nodes: Vec::new(),
            disks: Vec::new(),
            absences,
            intents,
            planned: Vec::new(),
            by_id: HashMap::new(),
        };
        for disk in disks {
            let Some([zone, rack, address]) = places.get(&disk.info.node).cloned() else { continue };
            let id = disk.info.disk;
            let node = &disk.info.node;
            let patience = patience.get(node).copied().unwrap_or_default();
            let standing = liveness.disk_standing(id, node, now, &self.config.timing, patience);
            let report = liveness.report(id);
            let free_slots = report.map_or(disk.info.free_slots, |report| report.free_slots);
            let damaged_extents = report.map_or(0, |report| report.damaged_extents);
            let trashed_extents = report.map_or(0, |report| report.trashed_extents);
            let failing = report.and_then(|report| report.failing.clone());
            let (asked, of_node) = (snapshot.intents.disk(id), snapshot.intents.node(&disk.info.node));
            let offline = asked.offline.filter(|offline| offline.holds(now_ms));
            snapshot.by_id.insert(id, snapshot.disks.len());
            snapshot.disks.push(DiskView {
                disk,
                zone,
                rack,
                address,
                standing: if offline.is_some() { expected_back(standing) } else { standing },
                free_slots,
                damaged_extents,
                trashed_extents,
                failing,
                keyless: keyless.remove(&id),
                offline,
                leaving: asked.drain.is_some() || of_node.drain.is_some(),
                cordoned: of_node.cordoned_ms.is_some(),
            });
        }
        snapshot.planned = snapshot.disks.iter().map(DiskView::planned).collect();
        for node in nodes {
            let standing = liveness.node_standing(&node.node, now, &self.config.timing);
            let silence = liveness.silence(&node.node, now).as_millis();
            let silence_ms = u64::try_from(silence).unwrap_or(u64::MAX);
            let known = liveness.node(&node.node);
            let (heard, unusable) = (known.is_some(), known.map(Heard::out_of_use).unwrap_or_default());
            let intent = snapshot.intents.node(&node.node);
            snapshot.nodes.push(NodeView { node, standing, intent, silence_ms, heard, unusable });
        }
        Ok(snapshot)
    }
}

/// A disk that is offline by an operator's order is away because of that, however long it takes: it is not given up. Whatever its
/// node says of it meanwhile comes from its being pulled: that it failed, takes no writes, or is not the disk that it was.
fn expected_back(standing: Standing) -> Standing {
    let waits = |reason: &str| Away { reason: format!("offline by an operator's order: {reason}"), lost_in: None };
    match standing {
        Standing::Suspect(away) => Standing::Suspect(waits(&away.reason)),
        // It can still be read.
        Standing::ReadOnly(why) => Standing::Suspect(waits(&why)),
        Standing::Down(away) => Standing::Down(waits(&away.reason)),
        Standing::Lost(why) | Standing::Failed(why) => Standing::Down(waits(&why)),
        Standing::Healthy => Standing::Healthy,
    }
}
