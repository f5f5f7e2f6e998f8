//! Zones, racks, nodes and disks as they stand in each other, with what each holds.

use std::collections::BTreeMap;

use holdfast_volume_manager_client::{DiskDetail, Inventory, NodeRow};
use serde::Serialize;

use super::{disk, names, node};
use crate::show;

/// How full some disks are. Disks out of service neither hold nor take anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fill {
    /// Disks in all.
    pub disks: u64,
    /// Of them, healthy.
    pub healthy_disks: u64,
    /// Raw bytes of those in service.
    pub size_bytes: u64,
    /// Of them, in use.
    pub used_bytes: u64,
}

impl Fill {
    /// Of these disks.
    pub fn of<'a>(disks: impl IntoIterator<Item = &'a DiskDetail>) -> Self {
        let mut fill = Self::default();
        for disk in disks {
            fill.disks += 1;
            fill.healthy_disks += u64::from(disk.state == "healthy");
            if disk.in_service {
                fill.size_bytes += disk.slots * disk.slot_bytes;
                fill.used_bytes += disk.slots.saturating_sub(disk.free_slots) * disk.slot_bytes;
            }
        }
        fill
    }

    /// `1.5 GiB of 8.0 GiB (18 %)`.
    pub fn shown(&self) -> String {
        if self.size_bytes == 0 {
            return "out of service".to_owned();
        }
        let share = show::percent(self.used_bytes, self.size_bytes);
        format!("{} of {} ({share})", show::bytes(self.used_bytes), show::bytes(self.size_bytes))
    }

    /// `5 of 6 healthy`, or just how many.
    pub fn health(&self) -> String {
        match self.disks - self.healthy_disks {
            0 => self.disks.to_string(),
            _ => format!("{} of {} healthy", self.healthy_disks, self.disks),
        }
    }
}

/// The whole cell, or the part of it that a filter lets through.
#[derive(Debug, Serialize)]
pub struct Tree<'a> {
    zones: Vec<Zone<'a>>,
}

#[derive(Debug, Serialize)]
struct Zone<'a> {
    zone: &'a str,
    fill: Fill,
    racks: Vec<Rack<'a>>,
}

#[derive(Debug, Serialize)]
struct Rack<'a> {
    /// Empty: its nodes name none.
    rack: &'a str,
    fill: Fill,
    nodes: Vec<Node<'a>>,
}

#[derive(Debug, Serialize)]
struct Node<'a> {
    #[serde(flatten)]
    node: &'a NodeRow,
    fill: Fill,
    disks: Vec<&'a DiskDetail>,
}

impl<'a> Tree<'a> {
    /// The nodes that `wanted` lets through, with all their disks.
    pub fn of(inventory: &'a Inventory, wanted: impl Fn(&NodeRow) -> bool) -> Self {
        let mut zones: BTreeMap<&str, BTreeMap<&str, Vec<Node<'a>>>> = BTreeMap::new();
        for node in inventory.nodes.iter().filter(|node| wanted(node)) {
            let mut disks: Vec<&DiskDetail> = inventory.disks.iter().filter(|disk| disk.node == node.node).collect();
            disks.sort_by(|a, b| a.path.cmp(&b.path));
            let fill = Fill::of(disks.iter().copied());
            zones.entry(&node.zone).or_default().entry(&node.rack).or_default().push(Node { node, fill, disks });
        }
        let fill = |nodes: &[Node<'a>]| Fill::of(nodes.iter().flat_map(|node| node.disks.iter().copied()));
        let zone = |(zone, racks): (&'a str, BTreeMap<&'a str, Vec<Node<'a>>>)| Zone {
            zone,
            fill: Fill::of(racks.values().flatten().flat_map(|node| node.disks.iter().copied())),
            racks: racks.into_iter().map(|(rack, nodes)| Rack { rack, fill: fill(&nodes), nodes }).collect(),
        };
        Self { zones: zones.into_iter().map(zone).collect() }
    }

    /// One line for each thing, indented by what it stands in; nodes without a rack stand in their zone.
    pub fn shown(&self, inventory: &Inventory) -> String {
        let digits = names::short(inventory);
        let mut rows = vec![["PLACE", "STATE", "USED", "NOTE"].map(str::to_owned).to_vec()];
        let mut row = |depth: usize, name: &str, state: &str, used: String, note: &str| {
            let place = format!("{}{}", "  ".repeat(depth), show::name(name));
            rows.push(vec![place, show::name(state), used, show::name(note)]);
        };
        for zone in &self.zones {
            row(0, &format!("zone {}", zone.zone), "", zone.fill.shown(), "");
            for rack in &zone.racks {
                let depth = if rack.rack.is_empty() { 1 } else { 2 };
                if !rack.rack.is_empty() {
                    row(1, &format!("rack {}", rack.rack), "", rack.fill.shown(), "");
                }
                for node in &rack.nodes {
                    let Node { node, fill, disks } = node;
                    let asked = node::asked(inventory, node);
                    let note =
                        if asked.is_empty() { node.address.clone() } else { format!("{asked}; {}", node.address) };
                    row(depth, &format!("node {}", node.node), &node.state, fill.shown(), &note);
                    for disk in disks {
                        let name = format!("disk {}  {}", &disk.disk.to_string()[..digits], disk.path);
                        row(depth + 1, &name, &disk.state, Fill::of([*disk]).shown(), &disk::notes(disk));
                    }
                    for other in &node.unusable {
                        row(
                            depth + 1,
                            &format!("not in use  {}", other.path),
                            &other.cause,
                            String::new(),
                            &other.reason,
                        );
                    }
                }
            }
        }
        show::table(&rows)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::DiskId;

    use super::{DiskDetail, NodeRow, Tree};
    use crate::admin::examples;

    #[test]
    fn the_tree_says_what_was_asked_for_nodes_and_disks_and_what_is_out_of_service() {
        let node = |name: &str, asked: &[&str]| {
            let asked = asked.iter().map(|word| (*word).to_owned()).collect();
            NodeRow { asked, ..examples::node(name) }
        };
        let disk = |id: u8, node: &str, left: Option<u64>, unknown_extents: u64| {
            let asked = left.iter().map(|_| "draining".to_owned()).collect();
            let of = examples::disk(DiskId([id; 16]), node, &format!("/dev/{id}"), "healthy");
            DiskDetail { asked, drain_left: left, unknown_extents, ..of }
        };
        let nodes = vec![node("node-1", &["draining"]), node("node-2", &[])];
        let lost = examples::disk(DiskId([6; 16]), "node-2", "/dev/6", "lost");
        let drained = [disk(1, "node-1", Some(0), 0), disk(2, "node-1", Some(3), 0)];
        let others = [disk(3, "node-2", None, 0), disk(4, "node-2", Some(0), 0), disk(5, "node-2", Some(0), 2), lost];
        let inventory = examples::inventory(nodes, drained.into_iter().chain(others).collect());
        let shown = Tree::of(&inventory, |_| true).shown(&inventory);
        let ends = |of: &str| {
            let line = shown.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("no {of} in {shown}"));
            line.split("  ").filter(|part| !part.is_empty()).last().unwrap().trim().to_owned()
        };
        assert_eq!(ends("node-1"), "draining, 3 left; https://node-1");
        assert_eq!(ends("node-2"), "https://node-2");
        assert_eq!(ends("/dev/1"), "drained: it can be taken out, then `disk forget` ends it");
        assert_eq!(ends("/dev/2"), "draining: 3 volumes are still to leave it");
        assert_eq!(ends("/dev/3"), "5 B of 10 B (50 %)");
        assert_eq!(ends("/dev/4"), "drained: it can be taken out, then `disk forget` ends it");
        assert_eq!(ends("/dev/5"), "drained of what the catalog knows: keep it, 2 unknown extents on it");
        assert_eq!(ends("/dev/6"), "out of service");
    }
}
