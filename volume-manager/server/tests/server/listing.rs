//! What an operator sees of disks and volumes, page by page.

use crate::support::{Cell, code_of, eventually, timing};
use holdfast_libs_types::VolumeId;
use holdfast_volume_manager_client::{VolumeDetail, VolumeManagerClient, VolumeQuery};

/// All that a query finds, `limit` a page.
async fn all(admin: &VolumeManagerClient, query: &VolumeQuery, limit: usize) -> Vec<VolumeDetail> {
    let (mut found, mut query) = (Vec::new(), VolumeQuery { limit, ..query.clone() });
    loop {
        let page = admin.find_volumes(&query).await.unwrap();
        assert!(page.volumes.len() <= limit);
        found.extend(page.volumes);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return found,
        }
    }
}

fn ids(volumes: &[VolumeDetail]) -> Vec<VolumeId> {
    volumes.iter().map(|volume| volume.volume).collect()
}

#[tokio::test]
async fn volumes_are_found_by_what_an_operator_knows_of_them_whatever_the_size_of_a_page() {
    let cell = Cell::start(timing(), 2).await;
    let admin = cell.admin();
    let mut volumes = Vec::new();
    while volumes.len() < 6 {
        let leased = cell.written(2).await;
        if volumes.len() < 4 {
            cell.ask_to_seal(leased.volume).await;
            cell.sealed(leased.volume).await;
        }
        volumes.push(leased.volume);
    }
    volumes.sort();
    let query = VolumeQuery::default();
    for limit in [1, 2, 5, 6, 1000] {
        assert_eq!(ids(&all(&admin, &query, limit).await), volumes, "{limit}");
    }
    let sealed = VolumeQuery { state: Some("sealed".to_owned()), ..query.clone() };
    assert_eq!(all(&admin, &sealed, 3).await.len(), 4);
    let disk = cell.nodes[1].disks()[0];
    let on_disk = all(&admin, &VolumeQuery { disk: Some(disk), ..query.clone() }, 1).await;
    assert!(on_disk.iter().all(|volume| volume.replicas.iter().any(|replica| replica.disk == disk)));
    let node =
        on_disk.first().map(|volume| volume.replicas.iter().find(|replica| replica.disk == disk).unwrap().clone());
    for one in &volumes {
        let text = one.to_string();
        for digits in [12, 20, 32] {
            let found = all(&admin, &VolumeQuery { prefix: Some(text[..digits].to_owned()), ..query.clone() }, 2).await;
            assert!(ids(&found).contains(one) && found.len() <= 2, "{text}");
        }
    }
    if let Some(replica) = node {
        let there = VolumeQuery { node: Some(replica.node), ..query.clone() };
        assert_eq!(ids(&all(&admin, &there, 4).await), volumes, "each node has one of each volume");
        let nowhere = VolumeQuery { zone: Some("atlantis".to_owned()), ..query.clone() };
        assert_eq!(all(&admin, &nowhere, 4).await, []);
    }
    for wrong in [
        VolumeQuery { state: Some("melted".to_owned()), ..query.clone() },
        VolumeQuery { prefix: Some("xyz".to_owned()), ..query.clone() },
        VolumeQuery { prefix: Some("0".repeat(33)), ..query.clone() },
    ] {
        assert_eq!(code_of(admin.find_volumes(&wrong).await), "bad_request", "{wrong:?}");
    }
}

#[tokio::test]
async fn a_volume_that_lost_a_replica_is_at_risk_and_says_what_is_done_and_the_status_counts_what_is_left() {
    let cell = Cell::start(timing(), 1).await;
    let admin = cell.admin();
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    let row = cell.sealed(leased.volume).await;
    let at_risk = VolumeQuery { at_risk: true, ..VolumeQuery::default() };
    assert_eq!(all(&admin, &at_risk, 10).await, []);
    let lost = row.replicas[0];
    let whole = admin.status().await.unwrap();
    cell.node_of(lost).report(lost, |report| {
        report.state = "failed".to_owned();
        report.reason = Some("I/O error".to_owned());
    });
    let found = eventually("it is at risk, and why it is not repaired", async || {
        all(&admin, &at_risk, 10).await.pop().filter(|volume| volume.work.is_some())
    })
    .await;
    assert_eq!((found.volume, found.can_lose, found.unreadable), (leased.volume, Some(1), false));
    assert!(found.work.unwrap().starts_with("repair: waits: "));
    let replica = found.replicas.iter().find(|replica| replica.disk == lost).unwrap();
    assert_eq!((replica.state.as_str(), replica.counts), ("failed", false));
    assert_eq!(replica.reason.as_deref(), Some("I/O error"));
    let status = admin.status().await.unwrap();
    let repair = status.work_summary.iter().find(|work| work.kind == "repair").unwrap();
    assert_eq!((repair.running, repair.waiting, repair.bytes_left), (0, 1, row.length));
    let (before, now) = (&whole.capacity, &status.capacity);
    assert_eq!((before.lost_bytes, now.raw_bytes + now.lost_bytes), (0, before.raw_bytes));
    assert!(before.usable_free_bytes > 0 && now.usable_free_bytes == 0, "two nodes are too few for a volume");
    assert_eq!(before.used_bytes + before.free_bytes, before.raw_bytes);
    let inventory = admin.inventory().await.unwrap();
    let detail = inventory.disks.iter().find(|disk| disk.disk == lost).unwrap();
    assert_eq!((detail.state.as_str(), detail.in_service), ("failed", false));
}
