//! The seal protocol: one length and one digest, whatever crashes, hangs or lies in between.

use crate::support::{Call, Cell, PAGE, eventually, rows, timing};
use holdfast_libs_types::VolumeId;
use holdfast_node_client::ExtentState;
use holdfast_volume_manager_catalog::{FenceReason, InsertError, VolumeState};
use holdfast_volume_manager_client::LeasedVolume;

/// The table's list, each extent on it and what the nodes hold agree on one length and one digest.
async fn assert_one_truth(cell: &Cell, volume: VolumeId, pages: u64, replicas: usize) {
    let row = cell.row(volume).await;
    assert_eq!((row.state, row.length, row.replicas.len()), (VolumeState::Sealed, Some(pages * PAGE), replicas));
    let digest: String = row.digest.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    for disk in row.replicas {
        let extent = cell.node_of(disk).find(disk, volume).unwrap();
        assert_eq!(
            (extent.state, extent.tail, extent.digest),
            (ExtentState::Sealed, pages * PAGE, Some(digest.clone()))
        );
    }
}

/// Three replicas of 2, 3 and 4 pages, one of them acknowledged.
async fn uneven(cell: &Cell) -> LeasedVolume {
    let leased = cell.written(1).await;
    for (replica, pages) in leased.replicas.iter().zip([2, 3, 4]) {
        cell.node_of(replica.disk).extent(replica.disk, leased.volume, |extent| extent.tail = pages * PAGE);
    }
    leased
}

/// Crashes the volume manager while `call` hangs on the first `hanging` replicas, and lets the next one finish.
async fn crash_while(call: Call, hanging: usize) {
    let mut times = timing();
    times.seal_grace_ms = 8000;
    let mut cell = Cell::start(times, 1).await;
    let leased = uneven(&cell).await;
    let volume = leased.volume;
    for replica in &leased.replicas[..hanging] {
        cell.node_of(replica.disk).hang(call);
    }
    cell.ask_to_seal(volume).await;
    eventually("the step is under way on all nodes", async || {
        cell.nodes.iter().all(|node| node.count(call, volume) > 0).then_some(())
    })
    .await;
    cell.crash_manager();
    let row = cell.row(volume).await;
    assert_eq!((row.state, row.digest), (VolumeState::Sealing, None));
    assert_eq!(row.length, (call == Call::Seal).then_some(2 * PAGE));
    for node in &cell.nodes {
        node.unhang();
    }
    cell.start_manager().await;
    cell.sealed(volume).await;
    assert_one_truth(&cell, volume, 2, 3).await;
}

#[tokio::test]
async fn a_crash_before_any_replica_is_fenced_is_finished_by_the_next() {
    crash_while(Call::Fence, 3).await;
}

#[tokio::test]
async fn a_crash_while_some_replicas_are_fenced_is_finished_by_the_next() {
    crash_while(Call::Fence, 1).await;
}

#[tokio::test]
async fn a_crash_after_the_length_is_committed_is_finished_by_the_next() {
    crash_while(Call::Seal, 3).await;
}

#[tokio::test]
async fn a_crash_while_some_replicas_are_sealed_is_finished_by_the_next() {
    crash_while(Call::Seal, 1).await;
}

#[tokio::test]
async fn a_committed_length_stands_when_the_replica_that_gave_it_is_gone() {
    let mut cell = Cell::start(timing(), 1).await;
    let leased = uneven(&cell).await;
    for node in &cell.nodes {
        node.hang(Call::Seal);
    }
    cell.ask_to_seal(leased.volume).await;
    eventually("the length is committed", async || cell.row(leased.volume).await.length).await;
    cell.crash_manager();
    let shortest = leased.replicas[0].disk;
    cell.node_of(shortest).vanish(shortest, leased.volume);
    for node in &cell.nodes {
        node.unhang();
    }
    cell.node_of(shortest).hang(Call::Copy);
    cell.start_manager().await;
    let row = cell.sealed(leased.volume).await;
    assert!(!row.replicas.contains(&shortest));
    cell.node_of(shortest).unhang();
    eventually("repaired", async || (cell.row(leased.volume).await.replicas.len() == 3).then_some(())).await;
    assert_one_truth(&cell, leased.volume, 2, 3).await;
}

#[tokio::test]
async fn an_index_row_after_the_fence_was_closed_is_refused() {
    let cell = Cell::start(timing(), 1).await;
    let volume = cell.written(1).await.volume;
    for node in &cell.nodes {
        node.hang(Call::Fence);
    }
    cell.ask_to_seal(volume).await;
    // Fences are asked for only after the fence row was closed.
    eventually("fences are under way", async || (cell.nodes[0].count(Call::Fence, volume) > 0).then_some(())).await;
    let error = cell.index().await.insert(&rows(volume, 2)).await.unwrap_err();
    assert!(matches!(error, InsertError::Fenced(fenced) if fenced.reason == FenceReason::Closed));
    for node in &cell.nodes {
        node.unhang();
    }
    cell.sealed(volume).await;
    assert_one_truth(&cell, volume, 1, 3).await;
}

#[tokio::test]
async fn a_replica_below_the_floor_has_no_vote_and_is_dropped() {
    let cell = Cell::start(timing(), 1).await;
    let leased = cell.written(3).await;
    let short = leased.replicas[1].disk;
    cell.node_of(short).extent(short, leased.volume, |extent| extent.tail = 2 * PAGE);
    cell.node_of(short).refuse(Call::Copy, short, "disk_failed");
    cell.ask_to_seal(leased.volume).await;
    let row = cell.sealed(leased.volume).await;
    assert!(!row.replicas.contains(&short));
    assert_one_truth(&cell, leased.volume, 3, 2).await;
}

#[tokio::test]
async fn a_replica_that_differs_from_the_majority_or_is_damaged_is_dropped() {
    let cell = Cell::start(timing(), 1).await;
    let leased = cell.written(1).await;
    let liar = leased.replicas[2].disk;
    cell.node_of(liar).extent(liar, leased.volume, |extent| extent.content = 9);
    cell.node_of(liar).refuse(Call::Copy, liar, "disk_failed");
    cell.ask_to_seal(leased.volume).await;
    assert!(!cell.sealed(leased.volume).await.replicas.contains(&liar));
    assert_one_truth(&cell, leased.volume, 1, 2).await;
    cell.node_of(liar).admit();

    let leased = cell.written(1).await;
    let damaged = leased.replicas[0].disk;
    cell.node_of(damaged).extent(damaged, leased.volume, |extent| extent.state = ExtentState::Damaged);
    cell.node_of(damaged).refuse(Call::Copy, damaged, "disk_failed");
    cell.ask_to_seal(leased.volume).await;
    assert!(!cell.sealed(leased.volume).await.replicas.contains(&damaged));
    assert_one_truth(&cell, leased.volume, 1, 2).await;
}

#[tokio::test]
async fn without_a_voter_the_seal_waits_says_so_and_finishes_when_a_replica_is_back() {
    let mut times = timing();
    times.seal_grace_ms = 200;
    let cell = Cell::start(times, 1).await;
    let leased = cell.written(2).await;
    for replica in &leased.replicas {
        cell.node_of(replica.disk).refuse(Call::Fence, replica.disk, "busy");
    }
    cell.ask_to_seal(leased.volume).await;
    let id = leased.volume.to_string();
    eventually("the status says that the seal waits", async || {
        let status = cell.admin().status().await.unwrap();
        let said = |text: &String| text.contains(&id) && text.contains("no replica holds all 8192 acknowledged bytes");
        (status.health != "ok" && status.reasons.iter().any(said)).then_some(())
    })
    .await;
    assert_eq!(cell.row(leased.volume).await.length, None);
    for node in &cell.nodes {
        node.admit();
    }
    cell.sealed(leased.volume).await;
    assert_one_truth(&cell, leased.volume, 2, 3).await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_waited_for_within_the_grace() {
    let mut times = timing();
    times.seal_grace_ms = 8000;
    let cell = Cell::start(times, 1).await;
    let leased = uneven(&cell).await;
    let shortest = leased.replicas[0].disk;
    cell.node_of(shortest).refuse(Call::Fence, shortest, "busy");
    cell.ask_to_seal(leased.volume).await;
    eventually("it was asked again", async || {
        (cell.node_of(shortest).count(Call::Fence, leased.volume) > 2).then_some(())
    })
    .await;
    assert_eq!(cell.row(leased.volume).await.length, None);
    cell.node_of(shortest).admit();
    cell.sealed(leased.volume).await;
    assert_one_truth(&cell, leased.volume, 2, 3).await;
}
