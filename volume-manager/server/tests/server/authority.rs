//! Who may still speak: a leader that was replaced, a node with a copy of a disk, a disk that failed a copy.

use crate::support::{Call, Cell, FRONTEND, PAGE, eventually, timing};
use holdfast_libs_transport::Role;
use holdfast_libs_types::{DiskId, InstanceId};
use holdfast_volume_manager_catalog::VolumeState;
use holdfast_volume_manager_client::{Heartbeat, LeaseRequest};

#[tokio::test]
async fn a_clone_of_a_disk_is_refused_and_its_reports_do_not_unseat_the_disk() {
    let cell = Cell::start(timing(), 1).await;
    let client = cell.client(Role::Node);
    let mut clone = cell.nodes[0].registration();
    let disk = clone.disks[0].disk;
    clone.node.0 = "node-9".to_owned();
    clone.address = "https://127.0.0.1:1".to_owned();
    clone.instance = InstanceId([99; 16]);
    (clone.disks[0].previous_nonce, clone.disks[0].nonce) = (10, 12);
    let judged = client.register(&clone).await.unwrap().disks.remove(0);
    assert!(!judged.accepted);
    assert!(judged.reason.unwrap().contains("clone"));
    clone.disks[0].state = "read_only".to_owned();
    // The node's own heartbeat would put it right again within 50 ms.
    cell.nodes[0].silence(true);
    let leased = cell.lease().await;
    let heartbeat = Heartbeat { node: clone.node, instance: clone.instance, disks: clone.disks, unusable: Vec::new() };
    assert!(!client.heartbeat(&heartbeat).await.unwrap().register);
    let status = cell.admin().status().await.unwrap();
    let state = status.disks.iter().find(|row| row.disk == disk).unwrap().state.clone();
    assert_eq!((state.as_str(), cell.row(leased.volume).await.state), ("healthy", VolumeState::Open));
}

#[tokio::test]
async fn a_copy_that_fails_is_tried_on_another_disk() {
    let cell = Cell::start(timing(), 3).await;
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    let volume = cell.sealed(leased.volume).await;
    let node = &cell.nodes[0];
    let lost = *volume.replicas.iter().find(|disk| node.disks().contains(disk)).unwrap();
    let spares: Vec<DiskId> = node.disks().into_iter().filter(|disk| *disk != lost).collect();
    for spare in &spares {
        node.refuse(Call::Copy, *spare, "disk_failed");
    }
    node.report(lost, |report| report.state = "failed".to_owned());
    eventually("both spares have failed", async || (node.count(Call::Copy, volume.volume) >= 2).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
    let admin = cell.admin();
    eventually("the status says that nothing is left to try", async || {
        let status = admin.status().await.unwrap();
        let said =
            |text: &String| text.contains("repair") && text.contains("zone-1") && text.contains("a copy failed there");
        (status.health != "ok" && status.reasons.iter().any(said)).then_some(())
    })
    .await;
    assert_eq!(node.count(Call::Copy, volume.volume), 2, "a disk that failed the copy rests for a while");
}

#[tokio::test]
async fn an_old_leader_changes_nothing_and_stops() {
    let mut times = timing();
    times.seal_grace_ms = 8000;
    let mut cell = Cell::start(times, 1).await;
    let leased = cell.written(2).await;
    let volume = leased.volume;
    for node in &cell.nodes {
        node.hang(Call::Fence);
    }
    cell.ask_to_seal(volume).await;
    eventually("fences are under way", async || {
        cell.nodes.iter().all(|node| node.count(Call::Fence, volume) > 0).then_some(())
    })
    .await;
    let old_frontend = cell.frontend();
    let old = cell.manager.take().unwrap();
    cell.start_manager().await;
    let lease = LeaseRequest { frontend: FRONTEND, avoid: Vec::new() };
    // It refuses, or it has stopped already.
    let error = old_frontend.lease(&lease).await.unwrap_err();
    assert!(!error.is_answer() || error.code() == Some("not_leader"), "{error}");
    assert_eq!(cell.admin().volumes().await.unwrap().len(), 1);
    for node in &cell.nodes {
        node.unhang();
    }
    eventually("the old leader stops", async || old.task.is_finished().then_some(())).await;
    let row = cell.sealed(volume).await;
    assert_eq!((row.length, row.replicas.len()), (Some(2 * PAGE), 3));
    old.crash();
}

#[tokio::test]
async fn an_idle_old_leader_stops_too() {
    let mut cell = Cell::start(timing(), 1).await;
    let old = cell.manager.take().unwrap();
    cell.start_manager().await;
    eventually("the old leader stops", async || old.task.is_finished().then_some(())).await;
    cell.lease().await;
    old.crash();
}
