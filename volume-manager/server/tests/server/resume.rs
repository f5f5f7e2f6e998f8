//! A volume manager that died after any step of a seal or a lease: the table says which step comes next.

use crate::support::node::Extent;
use crate::support::{Call, Cell, FRONTEND, PAGE, eventually, rows, timing};
use holdfast_libs_types::WriteEpoch;
use holdfast_node_client::ExtentState;
use holdfast_volume_manager_catalog::{FenceReason, InsertError, NewVolume, VolumeState};

const SEALING: WriteEpoch = WriteEpoch(2);

/// The steps that the leader before carried out. A later one implies those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum DiedAfter {
    Epoch,
    FenceRow,
    Fences,
    Length,
    OneSeal,
    AllSeals,
}

/// Carries a seal so far by hand, as a leader that dies there does, and lets the next one finish it.
async fn resume(died: DiedAfter) {
    let mut cell = Cell::start(timing(), 1).await;
    let leased = cell.written(2).await;
    let volume = leased.volume;
    // One replica has more than was acknowledged.
    let longest = leased.replicas[0].disk;
    cell.node_of(longest).extent(longest, volume, |extent| extent.tail = 3 * PAGE);
    cell.crash_manager();

    let table = cell.catalog().await.table;
    let term = table.take_leadership().await.unwrap();
    assert_eq!(table.begin_seal(term, volume, WriteEpoch(1), "by hand").await.unwrap(), SEALING);
    if died >= DiedAfter::FenceRow {
        assert_eq!(cell.index().await.close_fence(volume, SEALING).await.unwrap(), 2 * PAGE);
    }
    if died >= DiedAfter::Fences {
        for replica in &leased.replicas {
            let node = cell.node_of(replica.disk);
            node.extent(replica.disk, volume, |extent| (extent.state, extent.epoch) = (ExtentState::Fenced, SEALING));
        }
    }
    if died >= DiedAfter::Length {
        table.commit_length(term, volume, SEALING, 2 * PAGE).await.unwrap();
    }
    let sealed = match died {
        DiedAfter::OneSeal => 1,
        DiedAfter::AllSeals => 3,
        _ => 0,
    };
    for replica in &leased.replicas[..sealed] {
        let node = cell.node_of(replica.disk);
        node.extent(replica.disk, volume, |extent| {
            extent.digest = Some(extent.digest_of(2 * PAGE));
            (extent.state, extent.tail) = (ExtentState::Sealed, 2 * PAGE);
        });
    }
    drop(table);
    cell.start_manager().await;

    let row = cell.sealed(volume).await;
    assert_eq!((row.state, row.length, row.epoch), (VolumeState::Sealed, Some(2 * PAGE), SEALING), "{died:?}");
    assert_eq!(row.replicas, leased.replicas.iter().map(|replica| replica.disk).collect::<Vec<_>>(), "{died:?}");
    for disk in row.replicas {
        let extent = cell.node_of(disk).find(disk, volume).unwrap();
        assert_eq!((extent.state, extent.tail), (ExtentState::Sealed, 2 * PAGE), "{died:?}");
    }
    // A writer that slept through all of it.
    let late = cell.index().await.insert(&rows(volume, 3)).await.unwrap_err();
    assert!(matches!(late, InsertError::Fenced(fenced) if fenced.reason == FenceReason::Closed), "{died:?}");
    assert_eq!(cell.index().await.fence(volume).await.unwrap().unwrap().highest_end, 2 * PAGE);
}

#[tokio::test]
async fn a_seal_is_finished_whichever_step_was_the_last() {
    for died in [
        DiedAfter::Epoch,
        DiedAfter::FenceRow,
        DiedAfter::Fences,
        DiedAfter::Length,
        DiedAfter::OneSeal,
        DiedAfter::AllSeals,
    ] {
        resume(died).await;
    }
}

#[tokio::test]
async fn a_volume_that_was_being_made_is_given_up_by_the_next_and_can_never_be_written() {
    let mut cell = Cell::start(timing(), 1).await;
    let disks: Vec<_> = cell.nodes.iter().map(|node| node.disks()[0]).collect();
    cell.crash_manager();
    let table = cell.catalog().await.table;
    let term = table.take_leadership().await.unwrap();
    let new = |number: u8| NewVolume {
        volume: holdfast_libs_types::VolumeId([number; 16]),
        epoch: WriteEpoch(1),
        disks: disks.clone(),
        holder: FRONTEND,
        lease_expires_ms: u64::MAX / 4,
        capacity: 1 << 20,
    };
    let (bare, fenced) = (new(1), new(2));
    table.create_volume(term, &bare).await.unwrap();
    table.create_volume(term, &fenced).await.unwrap();
    cell.index().await.create_fence(fenced.volume, WriteEpoch(1)).await.unwrap();
    drop(table);
    cell.start_manager().await;
    for new in [bare, fenced] {
        assert_eq!(cell.row(new.volume).await.state, VolumeState::Failed);
        let error = cell.index().await.insert(&rows(new.volume, 1)).await.unwrap_err();
        assert!(matches!(error, InsertError::Fenced(fenced) if fenced.reason == FenceReason::Closed));
    }
}

#[tokio::test]
async fn a_replica_that_was_away_during_the_seal_is_verified_and_readmitted_without_a_copy() {
    let mut times = timing();
    times.seal_grace_ms = 200;
    let mut cell = Cell::start(times, 1).await;
    let leased = cell.written(2).await;
    let (volume, away) = (leased.volume, leased.replicas[1].disk);
    cell.node_of(away).refuse(Call::Fence, away, "busy");
    cell.node_of(away).refuse(Call::Seal, away, "busy");
    cell.node_of(away).hang(Call::Copy);
    cell.ask_to_seal(volume).await;
    assert!(!cell.sealed(volume).await.replicas.contains(&away));
    // Its node is back, with a tail that nobody acknowledged.
    let node = cell.node_of(away);
    node.extent(away, volume, |extent| extent.tail = 3 * PAGE);
    node.admit();
    // The manager before asks for one copy, which hangs; it is not to be taken for one that the next asks for.
    eventually("a copy is asked for", async || (node.count(Call::Copy, volume) == 1).then_some(())).await;
    cell.crash_manager();
    cell.start_manager().await;
    eventually("it is a replica again", async || cell.row(volume).await.replicas.contains(&away).then_some(())).await;
    let extent = cell.node_of(away).find(away, volume).unwrap();
    assert_eq!((extent.state, extent.tail), (ExtentState::Sealed, 2 * PAGE));
    assert_eq!(cell.node_of(away).count(Call::Copy, volume), 1, "no copy was needed");
    assert_eq!(cell.row(volume).await.replicas.len(), 3);
}

#[tokio::test]
async fn other_bytes_are_never_readmitted() {
    let mut times = timing();
    times.audit_ms = 200;
    let cell = Cell::start(times, 1).await;
    let leased = cell.written(2).await;
    let (volume, liar) = (leased.volume, leased.replicas[1].disk);
    cell.node_of(liar).vanish(liar, volume);
    cell.node_of(liar).refuse(Call::Copy, liar, "disk_failed");
    cell.ask_to_seal(volume).await;
    assert!(!cell.sealed(volume).await.replicas.contains(&liar));
    let seals = cell.node_of(liar).count(Call::Seal, volume);
    let other = Extent { tail: 2 * PAGE, epoch: SEALING, state: ExtentState::Fenced, content: 9, digest: None };
    cell.node_of(liar).place(liar, volume, other);
    // What was sealed so is asked again by each audit, and answers the same.
    eventually("it was asked twice", async || {
        (cell.node_of(liar).count(Call::Seal, volume) >= seals + 2).then_some(())
    })
    .await;
    assert!(!cell.row(volume).await.replicas.contains(&liar));
}
