//! The cell's disks with everything known of them at one moment.

use std::collections::HashMap;

use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_catalog::{CatalogError, Disk, Node, Volume};
use holdfast_volume_manager_client::{Replica, UnusableDisk};
use holdfast_volume_manager_planner::{Absences, Distinct, Inventory, InventoryDisk, Patience};
use tokio::time::Instant;

use crate::liveness::{NodeStanding, Standing};
use crate::manager::{Manager, Progress};

/// Nothing moves replicas apart again that had to share a zone, so they never do.
pub(crate) const DISTINCT: Distinct = Distinct::Zones;

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
    /// Why its node suspects that it is about to fail.
    pub failing: Option<String>,
}

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct NodeView {
    pub node: Node,
    pub standing: NodeStanding,
    pub silence_ms: u64,
    pub unusable: Vec<UnusableDisk>,
}

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// What was heard since may be missing.
    pub taken: Instant,
    pub nodes: Vec<NodeView>,
    pub disks: Vec<DiskView>,
    pub absences: Absences,
    by_id: HashMap<DiskId, usize>,
}

impl Snapshot {
    pub fn disk(&self, disk: DiskId) -> Option<&DiskView> {
        self.by_id.get(&disk).map(|index| &self.disks[*index])
    }

    /// The planner's view of it.
    pub fn planner(&self) -> Inventory {
        let disks = self.disks.iter().map(|view| InventoryDisk {
            disk: view.disk.info.disk,
            node: view.disk.info.node.clone(),
            zone: view.zone.clone(),
            rack: view.rack.clone(),
            slots: view.disk.info.slots,
            free_slots: view.free_slots,
            eligible: view.standing == Standing::Healthy,
            leaving: false,
        });
        Inventory { disks: disks.collect() }
    }

    /// Disks in service whose node reports another number of damaged extents than when they were last audited.
    pub fn unaudited_damage(&self, progress: &Progress) -> impl Iterator<Item = &DiskView> {
        let known = |view: &DiskView| progress.audited_damage.get(&view.disk.info.disk).copied().unwrap_or(0);
        self.disks.iter().filter(move |view| view.standing == Standing::Healthy && view.damaged_extents != known(view))
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
        let now = Instant::now();
        let liveness = self.liveness();
        let places: HashMap<NodeId, [String; 3]> = nodes
            .iter()
            .map(|node| (node.node.clone(), [&node.zone, &node.rack, &node.address].map(Clone::clone)))
            .collect();
        let zones: Vec<(&NodeId, &str)> = nodes.iter().map(|node| (&node.node, node.zone.as_str())).collect();
        let absences = liveness.absences(&zones, now, &self.config.timing);
        let patience: HashMap<NodeId, Patience> =
            nodes.iter().map(|node| node.node.clone()).zip(absences.patience.iter().copied()).collect();
        let mut snapshot = Snapshot { taken, nodes: Vec::new(), disks: Vec::new(), absences, by_id: HashMap::new() };
        for disk in disks {
            let Some([zone, rack, address]) = places.get(&disk.info.node).cloned() else { continue };
            let id = disk.info.disk;
            let node = &disk.info.node;
            let patience = patience.get(node).copied().unwrap_or_default();
            let standing = liveness.disk_standing(id, node, now, &self.config.timing, patience);
            let report = liveness.report(id);
            let free_slots = report.map_or(disk.info.free_slots, |report| report.free_slots);
            let damaged_extents = report.map_or(0, |report| report.damaged_extents);
            let failing = report.and_then(|report| report.failing.clone());
            snapshot.by_id.insert(id, snapshot.disks.len());
            snapshot.disks.push(DiskView { disk, zone, rack, address, standing, free_slots, damaged_extents, failing });
        }
        for node in nodes {
            let standing = liveness.node_standing(&node.node, now, &self.config.timing);
            let silence = liveness.silence(&node.node, now).as_millis();
            let silence_ms = u64::try_from(silence).unwrap_or(u64::MAX);
            let unusable = liveness.node(&node.node).map(|heard| heard.unusable.clone()).unwrap_or_default();
            snapshot.nodes.push(NodeView { node, standing, silence_ms, unusable });
        }
        Ok(snapshot)
    }
}
