//! What must hold of every placement.

#![allow(clippy::unwrap_used)]

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_planner::{Inventory, InventoryDisk, PlacementError, choose_disks, choose_repair_disk};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

/// A disk whose slots above the reserve are `room`.
fn disk(number: u8, zone: &str, room: u64) -> InventoryDisk {
    InventoryDisk {
        disk: DiskId([number; 16]),
        node: NodeId(format!("node-{number}")),
        zone: zone.to_owned(),
        slots: 20,
        free_slots: room + 1,
        eligible: true,
    }
}

fn volume(number: u32) -> VolumeId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    VolumeId(bytes)
}

fn inventories() -> impl Strategy<Value = Inventory> {
    let one = (0..5u8, 0..6u64, any::<bool>(), any::<bool>());
    prop::collection::vec(one, 0..14).prop_map(|disks| {
        let make = |(at, (zone, free_slots, sick, very_sick)): (usize, (u8, u64, bool, bool))| InventoryDisk {
            free_slots,
            eligible: !(sick && very_sick),
            ..disk(at as u8, &format!("zone-{zone}"), 0)
        };
        Inventory { disks: disks.into_iter().enumerate().map(make).collect() }
    })
}

/// How many zones have a disk that `fits`.
fn zones_with(inventory: &Inventory, fits: impl Fn(&InventoryDisk) -> bool) -> usize {
    let mut zones: Vec<&str> =
        inventory.disks.iter().filter(|disk| fits(disk)).map(|disk| disk.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}

#[test]
fn golden_placements() {
    // Computed by an independent program (Python's hashlib, decimal and fractions).
    let rooms = [10, 20, 30, 10, 50, 5];
    let zones = ["a", "a", "b", "b", "c", "c"];
    let disks = (1..=6u8).map(|at| disk(at, zones[usize::from(at) - 1], rooms[usize::from(at) - 1]));
    let inventory = Inventory { disks: disks.map(|disk| InventoryDisk { slots: 20, ..disk }).collect() };
    let golden = [[4, 5, 2], [5, 3, 1], [5, 3, 1], [5, 2, 4], [1, 5, 4], [2, 5, 3]];
    for (at, expected) in (1u8..).zip(golden) {
        let chosen = choose_disks(&inventory, VolumeId([at; 16]), &[], 3).unwrap();
        assert_eq!(chosen, expected.map(|number| DiskId([number; 16])), "volume {at}");
    }
}

#[test]
fn a_disks_share_of_volumes_is_its_share_of_free_slots() {
    let rooms = [10u64, 20, 40, 80, 50];
    let disks = rooms.iter().zip(0..).map(|(room, at)| disk(at, &format!("zone-{at}"), *room)).collect();
    let inventory = Inventory { disks };
    let mut counts = [0u32; 5];
    for number in 0..20_000 {
        counts[usize::from(choose_disks(&inventory, volume(number), &[], 1).unwrap()[0].0[0])] += 1;
    }
    for (count, room) in counts.iter().zip(rooms) {
        let expected = f64::from(20_000) * room as f64 / 200.0;
        assert!((f64::from(*count) - expected).abs() < 4.0 * expected.sqrt(), "{counts:?}");
    }
}

#[test]
fn a_new_disk_gets_its_share_and_nothing_else_moves() {
    let mut inventory = Inventory { disks: (0..9).map(|at| disk(at, &format!("zone-{}", at % 3), 30)).collect() };
    let before: Vec<_> = (0..4000).map(|at| choose_disks(&inventory, volume(at), &[], 3).unwrap()).collect();
    inventory.disks.push(disk(9, "zone-0", 30));
    let mut moved = 0;
    for (at, old) in (0..).zip(before) {
        let new = choose_disks(&inventory, volume(at), &[], 3).unwrap();
        let gained: Vec<_> = new.iter().filter(|disk| !old.contains(disk)).collect();
        assert!(gained.is_empty() || gained == [&DiskId([9; 16])], "{old:?} {new:?}");
        moved += gained.len();
    }
    // One disk of four in its zone: a quarter of 4000.
    assert!((900..1100).contains(&moved), "{moved}");
}

#[test]
fn a_full_zone_is_named_with_its_numbers() {
    let full = |at| InventoryDisk { free_slots: 1, ..disk(at, "zone-2", 0) };
    let disks = vec![disk(0, "zone-1", 5), full(1), full(2), disk(3, "zone-3", 5)];
    let error = choose_disks(&Inventory { disks }, volume(1), &[], 3).unwrap_err();
    assert!(matches!(error, PlacementError::Full { needed: 3, available: 2, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the cell is full: 3 zones with a free slot needed, 2 there: zone-2 has no disk with a free slot (2 disks, 0 free \
         slots above the reserve)"
    );
}

#[test]
fn a_zone_without_a_disk_in_service_is_not_called_full() {
    let away = InventoryDisk { eligible: false, ..disk(1, "zone-2", 5) };
    let disks = vec![disk(0, "zone-1", 5), away, disk(3, "zone-3", 5)];
    let inventory = Inventory { disks };
    let error = choose_disks(&inventory, volume(1), &[], 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 more zones with a disk in service needed, 2 there: zone-2 has no disk in service (1 disk)"
    );
    let error = choose_disks(&inventory, volume(1), &[DiskId([3; 16])], 2).unwrap_err();
    assert!(error.to_string().contains("zone-3 has no disk to use (1 disk, 1 avoided after a failure)"), "{error}");
    let error = choose_repair_disk(&inventory, volume(1), &[DiskId([0; 16]), DiskId([1; 16]), DiskId([3; 16])], &[]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "1 more zone with a disk in service needed, 0 there: there is no further zone"
    );
}

#[test]
fn the_reserve_is_for_repair_only() {
    let last = |at: u8| InventoryDisk { free_slots: 1, ..disk(at, &format!("zone-{at}"), 0) };
    let inventory = Inventory { disks: (0..3).map(last).collect() };
    assert!(matches!(choose_disks(&inventory, volume(1), &[], 3), Err(PlacementError::Full { .. })));
    let live = [DiskId([0; 16]), DiskId([1; 16])];
    assert_eq!(choose_repair_disk(&inventory, volume(1), &live, &[]), Ok(DiskId([2; 16])));
    assert_eq!(InventoryDisk { slots: 200, ..disk(0, "", 0) }.reserved_slots(), 10);
    assert_eq!(InventoryDisk { slots: 4, ..disk(0, "", 0) }.reserved_slots(), 1);
}

proptest! {
    #[test]
    fn new_volumes_go_to_distinct_zones_with_room_or_the_error_counts_right(
        inventory in inventories(), avoided in prop::collection::vec(0..14u8, 0..3), number in any::<u32>(), copies in 1..5usize,
    ) {
        let avoid: Vec<DiskId> = avoided.iter().map(|at| DiskId([*at; 16])).collect();
        let usable = |disk: &InventoryDisk| disk.eligible && !avoid.contains(&disk.disk);
        let room = |disk: &InventoryDisk| usable(disk) && disk.free_above_reserve() > 0;
        match choose_disks(&inventory, volume(number), &avoid, copies) {
            Ok(chosen) => {
                prop_assert_eq!(chosen.len(), copies);
                let picked: Vec<_> = chosen.iter().map(|disk| inventory.disk(*disk).unwrap()).collect();
                prop_assert!(picked.iter().all(|disk| room(disk)));
                let distinct = Inventory { disks: picked.into_iter().cloned().collect() };
                prop_assert_eq!(zones_with(&distinct, |_| true), copies);
            }
            Err(PlacementError::TooFewDomains { needed, available, .. }) => {
                prop_assert_eq!((needed, available), (copies, zones_with(&inventory, usable)));
                prop_assert!(available < needed);
            }
            Err(PlacementError::Full { needed, available, .. }) => {
                prop_assert_eq!((needed, available), (copies, zones_with(&inventory, room)));
                prop_assert!(available < needed && zones_with(&inventory, usable) >= needed);
            }
        }
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(inventory in inventories(), number in any::<u32>()) {
        let mut turned = inventory.clone();
        turned.disks.reverse();
        prop_assert_eq!(choose_disks(&inventory, volume(number), &[], 3), choose_disks(&turned, volume(number), &[], 3));
    }

    #[test]
    fn a_repair_goes_to_a_zone_without_a_live_replica(inventory in inventories(), number in any::<u32>(), held in 0..14u8) {
        let live: Vec<DiskId> = inventory.disks.iter().map(|disk| disk.disk).filter(|disk| disk.0[0] == held).collect();
        let zone = live.first().and_then(|disk| inventory.disk(*disk)).map(|disk| disk.zone.clone());
        let fits = |disk: &InventoryDisk| disk.eligible && disk.free_slots > 0 && Some(&disk.zone) != zone.as_ref();
        match choose_repair_disk(&inventory, volume(number), &live, &[]) {
            Ok(target) => prop_assert!(fits(inventory.disk(target).unwrap())),
            Err(_) => prop_assert!(!inventory.disks.iter().any(fits)),
        }
    }
}
