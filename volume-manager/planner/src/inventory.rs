//! The disks a plan may use.

use holdfast_libs_types::{DiskId, NodeId};

/// One disk, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryDisk {
    /// Its id.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// The node's zone.
    pub zone: String,
    /// The node's rack within the zone; empty when it names none, and is then a rack of its own.
    pub rack: String,
    /// Slots in all.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// It may take new extents: healthy, and its node is up.
    pub eligible: bool,
    /// It is being drained: what it holds is to go elsewhere.
    pub leaving: bool,
}

impl InventoryDisk {
    /// What tells its rack from all others of the cell.
    pub fn rack_key(&self) -> (&str, bool, &str) {
        let alone = self.rack.is_empty();
        (&self.zone, alone, if alone { &self.node.0 } else { &self.rack })
    }

    /// Slots kept back for repair: 5 % of all, at least one. Without them a full cell could not repair a lost disk.
    pub fn reserved_slots(&self) -> u64 {
        self.slots.div_ceil(20).max(1)
    }

    /// Free slots that new volumes may take.
    pub fn free_above_reserve(&self) -> u64 {
        self.free_slots.saturating_sub(self.reserved_slots())
    }
}

/// All disks of the cell, those that take nothing new included: a replica on one of them still occupies its zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The disks; their order does not matter.
    pub disks: Vec<InventoryDisk>,
}

impl Inventory {
    /// The disk with this id.
    pub fn disk(&self, disk: DiskId) -> Option<&InventoryDisk> {
        self.disks.iter().find(|candidate| candidate.disk == disk)
    }

    /// Notes that a plan takes one slot of a disk.
    pub fn take_slot(&mut self, disk: DiskId) {
        if let Some(taken) = self.disks.iter_mut().find(|candidate| candidate.disk == disk) {
            taken.free_slots = taken.free_slots.saturating_sub(1);
        }
    }
}
