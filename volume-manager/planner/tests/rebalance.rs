//! What must hold of every plan that moves replicas.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::iter::empty;

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_planner::{
    Barred, COPIES, Distinct, Inventory, InventoryDisk, MoveReason, RebalancePlan, RebalancePolicy, Spread,
    choose_disks, plan_rebalance,
};
use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, proptest};

type Volumes = BTreeMap<VolumeId, Vec<DiskId>>;

fn disk(number: u32, zone: usize, node: usize, slots: u64) -> InventoryDisk {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    InventoryDisk {
        disk: DiskId(id),
        node: NodeId(format!("node-{zone}-{node}")),
        zone: format!("zone-{zone}"),
        rack: String::new(),
        slots,
        free_slots: slots,
        eligible: true,
        leaving: false,
    }
}

fn volume(number: u32) -> VolumeId {
    // Spread over all numbers, as random ids are.
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    VolumeId::from_parts(1, std::array::from_fn(|at| if at < 8 { mixed.to_be_bytes()[at] } else { at as u8 }))
}

/// Places volumes as a cell does, and takes their slots.
fn fill(inventory: &mut Inventory, count: u32) -> Volumes {
    let mut volumes = Volumes::new();
    for number in 0..count {
        let disks = choose_disks(inventory, volume(number), &[], COPIES, Distinct::Zones).unwrap();
        for disk in &disks {
            inventory.take_slot(*disk);
        }
        volumes.insert(volume(number), disks);
    }
    volumes
}

fn plan(inventory: &Inventory, volumes: &Volumes) -> RebalancePlan {
    let places = volumes.iter().map(|(volume, disks)| (*volume, &disks[..]));
    plan_rebalance(inventory, places, empty(), &Barred::new(), &RebalancePolicy::default())
}

/// Does what a plan says; panics where it says what cannot be.
fn apply(inventory: &mut Inventory, volumes: &mut Volumes, plan: &RebalancePlan) {
    for step in &plan.moves {
        let replicas = volumes.get_mut(&step.volume).unwrap();
        let from = replicas.iter().position(|disk| *disk == step.from).unwrap();
        assert!(!replicas.contains(&step.to), "{step:?}");
        replicas[from] = step.to;
        let to = inventory.disk(step.to).unwrap();
        assert!(to.eligible && to.free_above_reserve() > 0, "{step:?}: {to:?}");
        inventory.take_slot(step.to);
        inventory.disks.iter_mut().find(|disk| disk.disk == step.from).unwrap().free_slots += 1;
    }
}

/// Plans and moves until nothing moves.
fn settle(inventory: &mut Inventory, volumes: &mut Volumes) -> usize {
    for round in 0..20 {
        let plan = plan(inventory, volumes);
        if plan.moves.is_empty() {
            return round;
        }
        apply(inventory, volumes, &plan);
    }
    panic!("still moving after 20 plans");
}

fn counts(volumes: &Volumes) -> HashMap<DiskId, u64> {
    let mut counts = HashMap::new();
    for disk in volumes.values().flatten() {
        *counts.entry(*disk).or_default() += 1;
    }
    counts
}

fn spread(inventory: &Inventory, disks: &[DiskId]) -> Spread {
    Spread::of(disks.iter().map(|disk| inventory.disk(*disk).unwrap()))
}

/// The lowest level that the fullest disk can have: every disk holds `level` times its slots, unless a node or a zone of it
/// can hold no more for distinctness. Found by trying levels, unlike the planner, which deals shares.
fn best_level(inventory: &Inventory, volumes: u64) -> f64 {
    let zones = inventory.disks.iter().filter(|disk| disk.eligible).map(|disk| &disk.zone);
    let in_use = zones.collect::<std::collections::BTreeSet<_>>().len();
    let holds = |level: f64| -> f64 {
        let mut nodes: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for disk in inventory.disks.iter().filter(|disk| disk.eligible) {
            *nodes.entry((&disk.zone, &disk.node.0)).or_default() += level * disk.slots as f64;
        }
        let mut zones: BTreeMap<&str, f64> = BTreeMap::new();
        for ((zone, _), held) in nodes {
            *zones.entry(zone).or_default() += held.min(volumes as f64);
        }
        zones.values().map(|held| held.min((volumes as usize * COPIES.div_ceil(in_use)) as f64)).sum()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if holds(middle) < (volumes as usize * COPIES) as f64 { low = middle } else { high = middle }
    }
    high
}

/// No disk is more than 5 % above the best level, nor one that no domain holds back more than 5 % below it; one replica
/// more or less is rounding.
fn assert_level(inventory: &Inventory, volumes: &Volumes, only: impl Fn(&InventoryDisk) -> bool) {
    let counts = counts(volumes);
    let level = best_level(inventory, volumes.len() as u64);
    for disk in inventory.disks.iter().filter(|disk| disk.eligible) {
        let has = counts.get(&disk.disk).copied().unwrap_or(0) as f64;
        let best = level * disk.slots as f64;
        assert!(has <= best * 1.05 + 2.0, "{disk:?} has {has}, at best {best}");
        assert!(!only(disk) || has >= best * 0.95 - 2.0, "{disk:?} has {has}, at best {best}");
    }
}

#[test]
fn a_new_node_gets_its_share_and_nothing_else_moves() {
    for zones in [3, 4, 5] {
        let mut inventory = Inventory::default();
        for number in 0..zones * 12u32 {
            let zone = number as usize % zones as usize;
            inventory.disks.push(disk(number, zone, number as usize / 4 / zones as usize, 400));
        }
        let mut volumes = fill(&mut inventory, zones * 800);
        settle(&mut inventory, &mut volumes);
        for number in 0..4 {
            inventory.disks.push(disk(1000 + number, 0, 9, 400));
        }
        let first = plan(&inventory, &volumes);
        let new = |disk: DiskId| inventory.disk(disk).unwrap().node.0 == "node-0-9";
        assert!(first.moves.iter().all(|step| new(step.to) && !new(step.from)), "{zones} zones");
        assert!(first.moves.iter().all(|step| step.reason == MoveReason::Fill));
        assert_eq!((first.crowded, first.left_over), (0, 0), "{zones} zones");
        let moved = first.moves.len();
        apply(&mut inventory, &mut volumes, &first);
        assert_eq!(plan(&inventory, &volumes).moves, []);
        let counts = counts(&volumes);
        let share = best_level(&inventory, volumes.len() as u64) * 400.0;
        for number in 0..4 {
            let has = counts[&disk(1000 + number, 0, 9, 400).disk] as f64;
            // With three zones the new node relieves its own zone alone.
            let share = if zones == 3 { f64::from(zones) * 800.0 / 16.0 } else { share };
            assert!((has - share).abs() <= share * 0.05, "{zones} zones: {has} of {share}");
        }
        println!("{zones} zones: {moved} of {} replicas move", volumes.len() * COPIES);
    }
}

#[test]
fn what_is_drained_gets_empty_and_nothing_else_moves() {
    let mut inventory =
        Inventory { disks: (0..24).map(|at| disk(at, at as usize % 3, at as usize / 6, 300)).collect() };
    let mut volumes = fill(&mut inventory, 900);
    settle(&mut inventory, &mut volumes);
    let gone = inventory.disks[4].disk;
    (inventory.disks[4].eligible, inventory.disks[4].leaving) = (false, true);
    let before = counts(&volumes)[&gone];
    let first = plan(&inventory, &volumes);
    assert!(first.moves.iter().all(|step| step.from == gone && step.reason == MoveReason::Drain));
    assert_eq!(first.moves.len() as u64, before);
    apply(&mut inventory, &mut volumes, &first);
    assert!(!counts(&volumes).contains_key(&gone));
    let held = [vec![gone, inventory.disks[3].disk, inventory.disks[5].disk]];
    let places = volumes.iter().map(|(volume, disks)| (*volume, &disks[..]));
    let policy = RebalancePolicy::default();
    let waits = plan_rebalance(&inventory, places, held.iter().map(|disks| &disks[..]), &Barred::new(), &policy);
    assert_eq!((waits.moves.len(), waits.left_over), (0, 0), "what cannot leave yet is the drain's matter");
    assert!(volumes.values().all(|disks| spread(&inventory, disks).zones == 3));
}

#[test]
fn volumes_that_stand_too_close_move_apart_once_there_is_a_third_zone() {
    let mut inventory =
        Inventory { disks: (0..12).map(|at| disk(at, at as usize % 2, at as usize / 4, 200)).collect() };
    let mut volumes = Volumes::new();
    for number in 0..300 {
        let at = number as usize;
        let disks = [at % 12, (at + 1) % 12, (at + 4) % 12].map(|at| inventory.disks[at].disk);
        volumes.insert(volume(number), disks.to_vec());
    }
    assert_eq!(plan(&inventory, &volumes).moves, [], "two zones and three nodes are the best there is");
    inventory.disks.extend((20..26).map(|at| disk(at, 2, at as usize / 2, 200)));
    let first = plan(&inventory, &volumes);
    assert_eq!(first.moves.iter().filter(|step| step.reason == MoveReason::Spread).count(), 300);
    apply(&mut inventory, &mut volumes, &first);
    assert!(volumes.values().all(|disks| spread(&inventory, disks).zones == 3));
}

#[test]
fn a_plan_has_at_most_so_many_moves_and_is_the_same_each_time() {
    let mut inventory = Inventory { disks: (0..9).map(|at| disk(at, at as usize % 3, at as usize / 3, 100)).collect() };
    let volumes = fill(&mut inventory, 200);
    inventory.disks.extend((20..23).map(|at| disk(at, at as usize % 3, 5, 100)));
    let policy = RebalancePolicy { most: 7, ..RebalancePolicy::default() };
    let places = || volumes.iter().map(|(volume, disks)| (*volume, &disks[..]));
    let short = plan_rebalance(&inventory, places(), empty(), &Barred::new(), &policy);
    assert_eq!(short.moves.len(), 7);
    assert!(short.left_over > 0);
    assert_eq!(plan_rebalance(&inventory, places(), empty(), &Barred::new(), &policy), short);
}

#[test]
fn nothing_goes_where_its_volume_is_barred_and_what_finds_no_other_place_is_left_over() {
    let mut inventory = Inventory { disks: (0..9).map(|at| disk(at, at as usize % 3, at as usize / 3, 100)).collect() };
    let volumes = fill(&mut inventory, 60);
    inventory.disks.push(disk(20, 0, 5, 100));
    let new = inventory.disks[9].disk;
    let to_new = |barred: &Barred| {
        let places = volumes.iter().map(|(volume, disks)| (*volume, &disks[..]));
        let plan = plan_rebalance(&inventory, places, empty(), barred, &RebalancePolicy::default());
        (plan.moves.iter().filter(|step| step.to == new).map(|step| step.volume).collect::<Vec<_>>(), plan.left_over)
    };
    let (free, left_over) = to_new(&Barred::new());
    assert!(free.len() > 4 && left_over == 0, "{free:?}");
    let barred: Barred = free.iter().map(|volume| (*volume, vec![new])).collect();
    let (others, _) = to_new(&barred);
    assert!(!others.is_empty() && others.iter().all(|volume| !barred.contains_key(volume)), "{others:?}");
    let barred: Barred = volumes.keys().map(|volume| (*volume, vec![new])).collect();
    let (none, left_over) = to_new(&barred);
    assert!(none.is_empty() && left_over > 0, "{none:?}, {left_over}");
}

#[test]
fn volumes_that_cannot_move_count_on_their_disks_so_that_nothing_is_brought_there_for_their_sake() {
    let mut inventory = Inventory { disks: (0..9).map(|at| disk(at, at as usize % 3, at as usize / 3, 100)).collect() };
    let mut volumes = fill(&mut inventory, 60);
    settle(&mut inventory, &mut volumes);
    let full = inventory.disks[0].disk;
    let (still, movable): (Vec<_>, Vec<_>) = volumes.iter().partition(|(_, disks)| disks.contains(&full));
    let places = movable.iter().map(|(volume, disks)| (**volume, &disks[..]));
    let held = still.iter().map(|(_, disks)| &disks[..]);
    let found = plan_rebalance(&inventory, places, held, &Barred::new(), &RebalancePolicy::default());
    assert_eq!(found.moves, []);
    let row = found.disks.iter().find(|row| row.disk == full).unwrap();
    assert!(row.has == still.len() as u64 && row.after == row.has && row.share > 0.0, "{row:?}");
}

/// Plans and moves what is not in `still` until nothing moves; the number of plans that moved something.
fn settle_beside(inventory: &mut Inventory, volumes: &mut Volumes, still: &Volumes) -> usize {
    for round in 0..20 {
        let places = volumes.iter().map(|(volume, disks)| (*volume, &disks[..]));
        let held = still.values().map(|disks| &disks[..]);
        let plan = plan_rebalance(inventory, places, held, &Barred::new(), &RebalancePolicy::default());
        if plan.moves.is_empty() {
            return round;
        }
        apply(inventory, volumes, &plan);
    }
    panic!("still moving after 20 plans");
}

#[test]
fn what_a_zone_has_too_much_and_cannot_give_makes_nothing_go_around_among_the_others() {
    let disks =
        (0..5).flat_map(|zone| (0..3).map(move |node| disk(zone * 3 + node, zone as usize, node as usize, 100)));
    let mut inventory = Inventory { disks: disks.collect() };
    let in_zone = |zone: usize, node: usize| inventory.disks[zone * 3 + node % 3].disk;
    // Of 120 replicas a zone's share is 24. The first holds 36, none of which can move; the others 21, of which 3 can.
    let place = |number: usize, zones: [usize; 3]| {
        (volume(number as u32), zones.map(|zone| in_zone(zone, number / 4 + number)).to_vec())
    };
    let others = |number: usize| (1 + number % 4, 1 + (number + 1) % 4, 1 + (number + 2) % 4);
    let still: Volumes = (0..36).map(|number| place(number, [0, others(number).0, others(number).1])).collect();
    let mut volumes: Volumes =
        (36..40).map(|number| place(number, [others(number).0, others(number).1, others(number).2])).collect();
    let held = still.values().chain(volumes.values()).flatten().fold(BTreeMap::new(), |mut held, at| {
        *held.entry(&inventory.disk(*at).unwrap().zone).or_insert(0) += 1;
        held
    });
    assert_eq!(held.into_values().collect::<Vec<_>>(), [36, 21, 21, 21, 21]);
    assert_eq!(
        settle_beside(&mut inventory, &mut volumes, &still),
        0,
        "there is nothing that could move for the better"
    );
}

/// A tree of up to 1,000 disks of several sizes.
fn trees(zones: std::ops::Range<usize>) -> impl Strategy<Value = Inventory> {
    let node = prop::collection::vec(1..4u64, 1..12);
    let zone = prop::collection::vec(node, 2..14);
    prop::collection::vec(zone, zones).prop_map(|zones| {
        let mut disks = Vec::new();
        for (zone, nodes) in zones.into_iter().enumerate() {
            for (node, sizes) in nodes.into_iter().enumerate() {
                for size in sizes {
                    disks.push(disk(disks.len() as u32, zone, node, size * 100));
                }
            }
        }
        Inventory { disks }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_becomes_level_and_stays_spread(tree in trees(3..7), part in 10..60u64) {
        let mut inventory = tree;
        let room: u64 = best_room(&inventory);
        let mut volumes = fill(&mut inventory, (room * part / 100) as u32);
        settle(&mut inventory, &mut volumes);
        for disks in volumes.values() {
            prop_assert_eq!(spread(&inventory, disks).zones, COPIES);
        }
        assert_level(&inventory, &volumes, |_| false);
        // Nothing is left to do, and again the same.
        prop_assert!(plan(&inventory, &volumes).moves.is_empty());
    }

    #[test]
    fn plans_come_to_an_end_also_while_some_volumes_cannot_move(tree in trees(3..7), part in 10..60u64, every in 2..6usize) {
        let mut inventory = tree;
        let room: u64 = best_room(&inventory);
        let all = fill(&mut inventory, (room * part / 100) as u32);
        let (still, movable): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(at, _)| at % every == 0);
        let still: Volumes = still.into_iter().map(|(_, volume)| volume).collect();
        let mut movable: Volumes = movable.into_iter().map(|(_, volume)| volume).collect();
        settle_beside(&mut inventory, &mut movable, &still);
    }

    #[test]
    fn plans_come_to_an_end_also_while_one_place_has_too_much_that_cannot_move(
        tree in trees(4..8),
        part in 10..60u64,
        much in 5..100u64,
        place in 0..3,
    ) {
        let mut inventory = tree;
        let first = inventory.disks[0].clone();
        let is_there = |disk: &InventoryDisk| match place {
            0 => disk.zone == first.zone,
            1 => disk.node == first.node,
            _ => disk.disk == first.disk,
        };
        let room: u64 = inventory.disks.iter().filter(|disk| is_there(disk)).map(|disk| disk.free_above_reserve()).sum();
        let still = fill_one_place(&mut inventory, (room * much / 100) as u32, is_there);
        let room: u64 = best_room(&inventory);
        let mut movable = fill(&mut inventory, (room * part / 100) as u32);
        settle_beside(&mut inventory, &mut movable, &still);
    }
}

/// Places volumes all of which have a replica at one place of the first zone, and the others in two other zones, in turn.
fn fill_one_place(inventory: &mut Inventory, count: u32, is_there: impl Fn(&InventoryDisk) -> bool) -> Volumes {
    let first = inventory.disks[0].zone.clone();
    let zones: std::collections::BTreeSet<String> = inventory.disks.iter().map(|disk| disk.zone.clone()).collect();
    let others: Vec<String> = zones.into_iter().filter(|zone| *zone != first).collect();
    let mut volumes = Volumes::new();
    for number in 0..count {
        let at = number as usize;
        let pair = [&others[at % others.len()], &others[(at + 1) % others.len()]];
        for disk in &mut inventory.disks {
            disk.eligible = is_there(disk) || pair.contains(&&disk.zone);
        }
        let volume = volume(1_000_000 + number);
        let Ok(disks) = choose_disks(inventory, volume, &[], COPIES, Distinct::Zones) else { break };
        for disk in &disks {
            inventory.take_slot(*disk);
        }
        volumes.insert(volume, disks);
    }
    inventory.disks.iter_mut().for_each(|disk| disk.eligible = true);
    volumes
}

/// Volumes that fit, as distinct zones allow.
fn best_room(inventory: &Inventory) -> u64 {
    let mut zones: BTreeMap<&str, u64> = BTreeMap::new();
    for disk in &inventory.disks {
        *zones.entry(&disk.zone).or_default() += disk.free_above_reserve();
    }
    let (mut low, mut high) = (0, zones.values().sum::<u64>());
    while low < high {
        let middle = (low + high).div_ceil(2);
        let held: u64 = zones.values().map(|room| (*room).min(middle)).sum();
        if held >= middle * COPIES as u64 { low = middle } else { high = middle - 1 }
    }
    low
}
