//! Plans for a cell of 10,000 disks and 10 million volumes after nodes were added; prints time, memory and what moves.
//!
//! `cargo run --release -p holdfast-volume-manager-planner --example rebalance_scale [DISKS [VOLUMES]]`

use std::time::Instant;

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_planner::{Barred, Inventory, InventoryDisk, RebalancePolicy, plan_rebalance};

const ZONES: usize = 5;
const DISKS_OF_A_NODE: usize = 100;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let disks = arguments.next().unwrap_or(10_000);
    let volumes = arguments.next().unwrap_or(10_000_000);
    let old = disks - DISKS_OF_A_NODE;
    let inventory = Inventory { disks: (0..disks).map(disk).collect() };
    let table: Vec<(VolumeId, [DiskId; 3])> = (0..volumes).map(|number| placed(number, old)).collect();
    println!(
        "{disks} disks in {ZONES} zones, the last node new; {volumes} volumes; {} MiB before planning",
        resident_mib()
    );
    let started = Instant::now();
    let places = table.iter().map(|(volume, disks)| (*volume, &disks[..]));
    let plan = plan_rebalance(&inventory, places, std::iter::empty(), &Barred::new(), &RebalancePolicy::default());
    println!(
        "planned in {:.2} s; {} MiB at most, the volumes included",
        started.elapsed().as_secs_f64(),
        resident_mib()
    );
    let to_new = plan.moves.iter().filter(|step| number_of(step.to) >= old).count();
    println!(
        "{} moves, {to_new} of them to the new node, whose share is {}; {} left over",
        plan.moves.len(),
        volumes * 3 * DISKS_OF_A_NODE / disks,
        plan.left_over
    );
}

fn disk(number: usize) -> InventoryDisk {
    let node = number / DISKS_OF_A_NODE;
    InventoryDisk {
        disk: id(number),
        node: NodeId(format!("node-{node}")),
        zone: format!("zone-{}", node % ZONES),
        rack: format!("rack-{}", node / ZONES / 4),
        slots: 16_000,
        free_slots: 12_000,
        eligible: true,
        leaving: false,
    }
}

fn id(number: usize) -> DiskId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    DiskId(bytes)
}

fn number_of(disk: DiskId) -> usize {
    disk.0[..8].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// A volume on three old disks in distinct zones, in the order of the ids.
fn placed(number: usize, old: usize) -> (VolumeId, [DiskId; 3]) {
    let mut random = [0; 12];
    random[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let mix = |salt: u64| {
        let mut z = (number as u64 ^ salt << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 32)) as usize
    };
    let first = mix(1) % ZONES;
    let nodes = old / DISKS_OF_A_NODE;
    let disks = [0, 1, 2].map(|step| {
        let zone = (first + step) % ZONES;
        let in_zone = (nodes - zone).div_ceil(ZONES);
        let node = zone + ZONES * (mix(2 + step as u64) % in_zone);
        id(node * DISKS_OF_A_NODE + mix(7 + step as u64) % DISKS_OF_A_NODE)
    });
    (VolumeId::from_parts(1, random), disks)
}

/// The most memory this process had, MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
