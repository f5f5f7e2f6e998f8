//! What is away for a while is waited for, and costs nothing when it comes back in time.

use crate::support::{Call, Cell, FakeNode, eventually, timing};
use holdfast_libs_types::VolumeId;
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{CellStatus, DiskRow};
use holdfast_volume_manager_server::Timing;

/// Suspect and down within moments; what is away is waited for as long as `lost_ms` and `zone_lost_ms` say.
fn impatient(lost_ms: u64, zone_lost_ms: u64) -> Timing {
    Timing { suspect_ms: 250, down_ms: 350, lost_ms, zone_lost_ms, ..timing() }
}

/// Has the volume manager go on with these times. What is written is written before, when no pause of the machine counts as
/// silence.
async fn go_on(cell: &mut Cell, timing: Timing) {
    cell.crash_manager();
    cell.config.timing = timing;
    cell.start_manager().await;
}

async fn sealed(cell: &Cell) -> Volume {
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    let row = cell.sealed(leased.volume).await;
    assert_eq!(row.replicas.len(), 3);
    row
}

fn copies(cell: &Cell) -> usize {
    cell.nodes.iter().flat_map(|node| node.disks().into_iter().map(|disk| node.copies_to(disk))).sum()
}

async fn status(cell: &Cell) -> CellStatus {
    cell.admin().status().await.unwrap()
}

async fn rows_of(cell: &Cell, node: &FakeNode) -> Vec<DiskRow> {
    status(cell).await.disks.into_iter().filter(|row| row.node == node.name).collect()
}

async fn all_are(cell: &Cell, nodes: &[&FakeNode], state: &str) {
    eventually(state, async || {
        for node in nodes {
            if rows_of(cell, node).await.iter().any(|row| row.state != state) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// Until nodes have been silent for so long.
async fn silent_for(cell: &Cell, ms: u64) {
    eventually("it is silent for long", async || {
        status(cell).await.nodes.iter().any(|node| node.last_heartbeat_ms.is_some_and(|at| at > ms)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_back_in_time_costs_no_copy_and_no_replica_is_taken_off_the_list() {
    let mut cell = Cell::start_pairs(timing(), 3, 1).await;
    let volume = sealed(&cell).await;
    go_on(&mut cell, impatient(60_000, 60_000)).await;
    let node = cell.node_of(volume.replicas[1]);
    node.silence(true);
    all_are(&cell, &[node], "down").await;
    let rows = rows_of(&cell, node).await;
    assert!(rows.iter().all(|row| row.repair_in_s.is_some_and(|left| (50..60).contains(&left))), "{rows:?}");
    let told = status(&cell).await;
    assert_eq!((told.health.as_str(), told.volumes.can_lose.get("1")), ("degraded", Some(&1)), "two can be read");
    assert!(told.reasons.iter().any(|reason| reason.contains("repair starts in 5")), "{:?}", told.reasons);
    let verified = node.count(Call::Seal, volume.volume);
    node.silence(false);
    all_are(&cell, &[node], "healthy").await;
    eventually("all is well", async || (status(&cell).await.health == "ok").then_some(())).await;
    assert_eq!(
        (copies(&cell), node.count(Call::Seal, volume.volume)),
        (0, verified),
        "nothing is copied or read again"
    );
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
}

#[tokio::test]
async fn a_volume_sealed_while_a_disk_was_away_is_not_copied_for_its_sake_and_gets_its_replica_back() {
    let mut cell = Cell::start_pairs(timing(), 3, 1).await;
    let leased = cell.written(2).await;
    go_on(&mut cell, impatient(60_000, 60_000)).await;
    let node = cell.node_of(leased.replicas[2].disk);
    node.silence(true);
    for call in [Call::Fence, Call::Seal] {
        node.refuse(call, leased.replicas[2].disk, "stalled");
    }
    all_are(&cell, &[node], "down").await;
    cell.ask_to_seal(leased.volume).await;
    let row = cell.sealed(leased.volume).await;
    assert_eq!(row.replicas.len(), 2);
    let asked = |node: &FakeNode| node.count(Call::Extents, VolumeId::default());
    // Whatever wakes the volume manager: another node registers, and its audit ends with a look at all volumes.
    let other = cell.node_of(row.replicas[0]);
    for _ in 0..3 {
        let before = asked(other);
        cell.client(holdfast_libs_transport::Role::Node).register(&other.registration()).await.unwrap();
        eventually("another look", async || (asked(other) > before).then_some(())).await;
    }
    assert_eq!(copies(&cell), 0);
    node.admit();
    node.silence(false);
    eventually("it is on the list again", async || (cell.row(leased.volume).await.replicas.len() == 3).then_some(()))
        .await;
    assert_eq!(copies(&cell), 0);
}

#[tokio::test]
async fn a_vanished_zone_is_waited_for_longer_than_a_node_and_then_repaired() {
    let mut cell = Cell::start_pairs(timing(), 4, 2).await;
    let mut volume = sealed(&cell).await;
    while !volume.replicas.iter().any(|disk| cell.node_of(*disk).zone == "zone-1") {
        volume = sealed(&cell).await;
    }
    go_on(&mut cell, impatient(600, 3000)).await;
    let zone: Vec<&FakeNode> = cell.nodes.iter().filter(|node| node.zone == "zone-1").collect();
    zone.iter().for_each(|node| node.silence(true));
    silent_for(&cell, 1200).await;
    all_are(&cell, &zone, "down").await;
    assert_eq!(copies(&cell), 0, "it is away for longer than a disk may be");
    let reasons = status(&cell).await.reasons;
    assert!(reasons.iter().any(|reason| reason.starts_with("zone zone-1 has vanished")), "{reasons:?}");
    all_are(&cell, &zone, "lost").await;
    eventually("it is repaired", async || {
        let row = cell.row(volume.volume).await;
        (row.replicas.len() == 3 && row.replicas.iter().all(|disk| cell.node_of(*disk).zone != "zone-1")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn when_two_zones_fall_silent_at_once_nothing_is_given_up_and_the_status_says_so() {
    let mut cell = Cell::start_pairs(timing(), 4, 2).await;
    for _ in 0..6 {
        sealed(&cell).await;
    }
    go_on(&mut cell, impatient(600, 700)).await;
    let gone: Vec<&FakeNode> = cell.nodes.iter().filter(|node| ["zone-1", "zone-2"].contains(&&*node.zone)).collect();
    gone.iter().for_each(|node| node.silence(true));
    silent_for(&cell, 2000).await;
    all_are(&cell, &gone, "down").await;
    let told = status(&cell).await;
    let cut = "4 of 8 nodes, 2 of 4 zones";
    assert!(told.reasons.iter().any(|reason| reason.contains(cut)), "{:?}", told.reasons);
    assert!(told.disks.iter().filter(|row| row.state == "down").all(|row| row.repair_in_s.is_none()));
    assert_eq!(copies(&cell), 0);
    gone.iter().for_each(|node| node.silence(false));
    eventually("all is well", async || (status(&cell).await.health == "ok").then_some(())).await;
    assert_eq!(copies(&cell), 0);
}
