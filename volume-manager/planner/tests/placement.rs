//! What must hold of every placement.

#![allow(clippy::unwrap_used)]

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_planner::{
    Distinct, Inventory, InventoryDisk, PlacementError, Spread, choose_disks, choose_move_disk, choose_repair_disk,
};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

/// A disk whose slots above the reserve are `room`.
fn disk(number: u8, zone: &str, room: u64) -> InventoryDisk {
    InventoryDisk {
        disk: DiskId([number; 16]),
        node: NodeId(format!("node-{number}")),
        zone: zone.to_owned(),
        rack: String::new(),
        slots: 20,
        free_slots: room + 1,
        eligible: true,
        leaving: false,
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

/// How far apart the disks that `fits` finds stand.
fn spread(inventory: &Inventory, fits: impl Fn(&InventoryDisk) -> bool) -> Spread {
    Spread::of(inventory.disks.iter().filter(|disk| fits(disk)))
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
        let chosen = choose_disks(&inventory, VolumeId([at; 16]), &[], 3, Distinct::Zones).unwrap();
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
        counts[usize::from(choose_disks(&inventory, volume(number), &[], 1, Distinct::Zones).unwrap()[0].0[0])] += 1;
    }
    for (count, room) in counts.iter().zip(rooms) {
        let expected = f64::from(20_000) * room as f64 / 200.0;
        assert!((f64::from(*count) - expected).abs() < 4.0 * expected.sqrt(), "{counts:?}");
    }
}

#[test]
fn a_new_disk_gets_its_share_and_nothing_else_moves() {
    let mut inventory = Inventory { disks: (0..9).map(|at| disk(at, &format!("zone-{}", at % 3), 30)).collect() };
    let before: Vec<_> =
        (0..4000).map(|at| choose_disks(&inventory, volume(at), &[], 3, Distinct::Zones).unwrap()).collect();
    inventory.disks.push(disk(9, "zone-0", 30));
    let mut moved = 0;
    for (at, old) in (0..).zip(before) {
        let new = choose_disks(&inventory, volume(at), &[], 3, Distinct::Zones).unwrap();
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
    let error = choose_disks(&Inventory { disks }, volume(1), &[], 3, Distinct::Zones).unwrap_err();
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
    let error = choose_disks(&inventory, volume(1), &[], 3, Distinct::Zones).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 zones with a disk in service needed, 2 there: zone-2 has no disk in service (1 disk)"
    );
    let error = choose_disks(&inventory, volume(1), &[DiskId([3; 16])], 2, Distinct::Zones).unwrap_err();
    assert!(
        error.to_string().contains("zone-3 has no disk to use (1 disk, 1 avoided: a copy failed there just now,"),
        "{error}"
    );
    let mut two = inventory.clone();
    two.disks[1].zone = "zone-1".to_owned();
    let error = choose_repair_disk(&two, volume(1), &[DiskId([0; 16]), DiskId([3; 16])], &[], &[], Distinct::Nodes);
    let why = "zone-1 has no other disk in service (2 disks, 1 on nodes that have a replica)";
    assert!(error.as_ref().unwrap_err().to_string().ends_with(why), "{error:?}");
    let error = choose_repair_disk(
        &inventory,
        volume(1),
        &[DiskId([0; 16]), DiskId([1; 16]), DiskId([3; 16])],
        &[],
        &[],
        Distinct::Zones,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "1 more zone with a disk in service needed, 0 there: the cell has 3 zones and 3 nodes"
    );
}

#[test]
fn the_reserve_is_for_repair_only() {
    let last = |at: u8| InventoryDisk { free_slots: 1, ..disk(at, &format!("zone-{at}"), 0) };
    let inventory = Inventory { disks: (0..3).map(last).collect() };
    assert!(matches!(choose_disks(&inventory, volume(1), &[], 3, Distinct::Zones), Err(PlacementError::Full { .. })));
    let live = [DiskId([0; 16]), DiskId([1; 16])];
    assert_eq!(choose_repair_disk(&inventory, volume(1), &live, &[], &[], Distinct::Zones), Ok(DiskId([2; 16])));
    assert_eq!(InventoryDisk { slots: 200, ..disk(0, "", 0) }.reserved_slots(), 10);
    assert_eq!(InventoryDisk { slots: 4, ..disk(0, "", 0) }.reserved_slots(), 1);
}

#[test]
fn while_a_zone_is_away_volumes_go_to_both_others_and_to_distinct_racks() {
    let at = |number: u8, zone: &str, rack: &str| InventoryDisk { rack: rack.to_owned(), ..disk(number, zone, 9) };
    let mut inventory = Inventory {
        disks: vec![
            at(0, "zone-1", "r1"),
            at(1, "zone-1", "r1"),
            at(2, "zone-1", "r2"),
            at(3, "zone-2", "r1"),
            at(4, "zone-2", "r1"),
            InventoryDisk { eligible: false, ..at(5, "zone-3", "r1") },
        ],
    };
    let chosen = |inventory: &Inventory, number| {
        let disks = choose_disks(inventory, volume(number), &[], 3, Distinct::Nodes).unwrap();
        spread(inventory, |disk| disks.contains(&disk.disk))
    };
    for number in 0..200 {
        let found = chosen(&inventory, number);
        assert_eq!((found.zones, found.nodes), (2, 3));
        // Two replicas in zone-2 have to share its one rack.
        assert!(found.racks >= 2);
    }
    assert!((0..200).any(|number| chosen(&inventory, number).racks == 3));
    inventory.disks[5].eligible = true;
    assert!((0..200).all(|number| chosen(&inventory, number).zones == 3));
}

#[test]
fn a_copy_in_the_same_zone_is_better_than_none() {
    let inventory = Inventory {
        disks: vec![
            disk(0, "zone-1", 5),
            disk(1, "zone-1", 5),
            InventoryDisk { free_slots: 0, ..disk(2, "zone-2", 0) },
        ],
    };
    assert_eq!(
        choose_repair_disk(&inventory, volume(1), &[DiskId([0; 16])], &[], &[], Distinct::Nodes),
        Ok(DiskId([1; 16]))
    );
}

#[test]
fn a_move_waits_rather_than_bring_replicas_nearer_to_each_other() {
    let zones = ["a", "a", "b", "c", "c", "c"];
    let mut inventory = Inventory { disks: (1..).zip(zones).map(|(number, zone)| disk(number, zone, 5)).collect() };
    let ids = |numbers: &[u8]| numbers.iter().map(|number| DiskId([*number; 16])).collect::<Vec<_>>();
    let choose = |inventory: &Inventory| choose_move_disk(inventory, volume(1), &ids(&[1, 3]), &ids(&[6]));
    (inventory.disks[3].leaving, inventory.disks[3].eligible) = (true, false);
    assert_eq!(choose(&inventory), Ok(DiskId([5; 16])), "the only one of zone c");
    inventory.disks[4].free_slots = 1;
    assert!(matches!(choose(&inventory), Err(PlacementError::Full { domain: "zone", .. })), "its slot is the reserve");
    inventory.disks[4].eligible = false;
    let away = choose(&inventory).unwrap_err();
    assert!(matches!(away, PlacementError::TooFewDomains { domain: "zone", .. }), "{away}");
    assert!(away.to_string().contains("c has no disk"), "{away}");
    // Once the zone leaves for good, the next best is another node.
    inventory.disks[4].leaving = true;
    inventory.disks[5].leaving = true;
    assert_eq!(choose(&inventory), Ok(DiskId([2; 16])));
}

proptest! {
    #[test]
    fn new_volumes_stand_as_far_apart_as_the_cell_allows_or_the_error_counts_right(
        inventory in inventories(), avoided in prop::collection::vec(0..14u8, 0..3), number in any::<u32>(), copies in 1..5usize,
        alone in any::<bool>(),
    ) {
        let distinct = if alone { Distinct::Zones } else { Distinct::Nodes };
        let avoid: Vec<DiskId> = avoided.iter().map(|at| DiskId([*at; 16])).collect();
        let usable = |disk: &InventoryDisk| disk.eligible && !avoid.contains(&disk.disk);
        let room = |disk: &InventoryDisk| usable(disk) && disk.free_above_reserve() > 0;
        let (in_service, with_room) = (spread(&inventory, usable), spread(&inventory, room));
        let zones = copies.min(in_service.zones);
        match choose_disks(&inventory, volume(number), &avoid, copies, distinct) {
            Ok(chosen) => {
                prop_assert_eq!(chosen.len(), copies);
                prop_assert!(chosen.iter().all(|disk| room(inventory.disk(*disk).unwrap())));
                let found = spread(&inventory, |disk| chosen.contains(&disk.disk));
                prop_assert_eq!((found.zones, found.nodes), (if alone { copies } else { zones }, copies));
            }
            Err(PlacementError::TooFewDomains { needed, available, domain, .. }) => {
                let there = if alone { ("zone", in_service.zones) } else { ("node", in_service.nodes) };
                prop_assert_eq!((needed, (domain, available)), (copies, there));
                prop_assert!(available < needed);
            }
            Err(PlacementError::Full { needed, available, domain, .. }) => {
                let expected =
                    if with_room.zones < zones { ("zone", zones, with_room.zones) } else { ("node", copies, with_room.nodes) };
                prop_assert_eq!((domain, needed, available), expected);
                prop_assert!(available < needed && in_service.nodes >= copies && (!alone || in_service.zones >= copies));
            }
        }
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(inventory in inventories(), number in any::<u32>()) {
        let mut turned = inventory.clone();
        turned.disks.reverse();
        prop_assert_eq!(choose_disks(&inventory, volume(number), &[], 3, Distinct::Nodes), choose_disks(&turned, volume(number), &[], 3, Distinct::Nodes));
    }

    #[test]
    fn a_repair_goes_to_a_zone_without_a_live_replica_if_one_has_room(
        inventory in inventories(), number in any::<u32>(), held in 0..14u8, alone in any::<bool>(),
    ) {
        let distinct = if alone { Distinct::Zones } else { Distinct::Nodes };
        let live: Vec<DiskId> = inventory.disks.iter().map(|disk| disk.disk).filter(|disk| disk.0[0] == held).collect();
        let zone = live.first().and_then(|disk| inventory.disk(*disk)).map(|disk| disk.zone.clone());
        let fits = |disk: &InventoryDisk| disk.eligible && disk.free_slots > 0 && !live.contains(&disk.disk);
        let far = |disk: &InventoryDisk| fits(disk) && Some(&disk.zone) != zone.as_ref();
        match choose_repair_disk(&inventory, volume(number), &live, &[], &[], distinct) {
            Ok(target) => {
                let target = inventory.disk(target).unwrap();
                prop_assert!(fits(target) && (far(target) || !alone && !inventory.disks.iter().any(far)));
            }
            Err(_) => prop_assert_eq!(inventory.disks.iter().find(|disk| far(disk) || !alone && fits(disk)), None),
        }
    }
}
