//! How far apart the replicas of a volume stand.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::{COPIES, InventoryDisk};

/// Distinct zones, racks and nodes of a set of disks. More zones are better than any number of racks, more racks than any
/// number of nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spread {
    /// Distinct zones.
    pub zones: usize,
    /// Distinct racks; a node that names none is a rack of its own.
    pub racks: usize,
    /// Distinct nodes.
    pub nodes: usize,
}

impl Spread {
    /// The spread of these disks.
    pub fn of<'a>(disks: impl IntoIterator<Item = &'a InventoryDisk>) -> Self {
        let (mut zones, mut racks, mut nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for disk in disks {
            zones.insert(disk.zone.as_str());
            racks.insert(disk.rack_key());
            nodes.insert(&disk.node);
        }
        Self { zones: zones.len(), racks: racks.len(), nodes: nodes.len() }
    }

    /// The best one that [`COPIES`] replicas can have on these disks.
    pub fn best<'a>(disks: impl IntoIterator<Item = &'a InventoryDisk>) -> Self {
        let all = Self::of(disks);
        Self { zones: all.zones.min(COPIES), racks: all.racks.min(COPIES), nodes: all.nodes.min(COPIES) }
    }
}

/// The numbers of a disk's zone, rack and node among all of an inventory.
pub(crate) type Domains = [u32; 3];

/// Numbers the domains of each disk, in the order of the disks.
pub(crate) fn number_domains(disks: &[InventoryDisk]) -> Vec<Domains> {
    let (mut zones, mut racks, mut nodes) = (HashMap::new(), HashMap::new(), HashMap::new());
    disks
        .iter()
        .map(|disk| {
            [
                number(&mut zones, disk.zone.as_str()),
                number(&mut racks, disk.rack_key()),
                number(&mut nodes, disk.node.0.as_str()),
            ]
        })
        .collect()
}

fn number<K: Hash + Eq>(known: &mut HashMap<K, u32>, key: K) -> u32 {
    let next = known.len() as u32;
    *known.entry(key).or_insert(next)
}

/// The spread of a few disks with these domains.
pub(crate) fn spread_of(disks: impl Iterator<Item = Domains> + Clone) -> Spread {
    let distinct = |level: usize| {
        let first =
            |(at, domains): &(usize, Domains)| disks.clone().take(*at).all(|other| other[level] != domains[level]);
        disks.clone().enumerate().filter(first).count()
    };
    Spread { zones: distinct(0), racks: distinct(1), nodes: distinct(2) }
}
