//! Disks and nodes as a volume manager could tell them, for tests.

use holdfast_libs_types::{CellId, DiskId, NodeId};
use holdfast_volume_manager_client::{DiskDetail, Inventory, NodeRow};

/// A disk of ten slots, half of them free.
pub fn disk(disk: DiskId, node: &str, path: &str, state: &str) -> DiskDetail {
    DiskDetail {
        disk,
        node: NodeId(node.to_owned()),
        zone: "zone-1".to_owned(),
        rack: String::new(),
        address: String::new(),
        path: path.to_owned(),
        state: state.to_owned(),
        reason: None,
        failing: None,
        damaged_extents: 0,
        unknown_extents: 0,
        in_service: ["healthy", "suspect", "read_only"].contains(&state),
        slots: 10,
        free_slots: 5,
        reserved_slots: 1,
        slot_bytes: 1,
        volume_bytes: 1,
        incarnation: 1,
        asked: Vec::new(),
        offline_until_ms: None,
        drain_left: None,
    }
}

/// A node that is up.
pub fn node(name: &str) -> NodeRow {
    NodeRow {
        node: NodeId(name.to_owned()),
        zone: "zone-1".to_owned(),
        rack: String::new(),
        address: format!("https://{name}"),
        state: "up".to_owned(),
        asked: Vec::new(),
        last_heartbeat_ms: Some(10),
        unusable: Vec::new(),
    }
}

/// A cell of them.
pub fn inventory(nodes: Vec<NodeRow>, disks: Vec<DiskDetail>) -> Inventory {
    Inventory { cell: CellId([1; 16]), nodes, disks, catalog_lost: None }
}
