//! A volume manager that dies with another one standing by, and a catalog that is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cluster::{self, Cluster, Options, block, eventually};
use bytes::Bytes;
use holdfast_frontend_client::code;
use holdfast_libs_presign::{Grant, Method, Subject};
use holdfast_libs_transport::CallError;
use holdfast_libs_types::BlockHash;
use holdfast_volume_manager_catalog::VolumeState;
use holdfast_volume_manager_client::{RebuildState, RebuildStatus};

const BLOCK_BYTES: usize = 256 << 10;

/// Fills two volumes, so that new ones have to be leased all the time.
const BLOCKS: u64 = 100;

async fn put_all(cluster: &Cluster, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    let mut blocks = Vec::new();
    for number in numbers {
        let block = block(number, BLOCK_BYTES);
        cluster.put(&block).await.unwrap();
        blocks.push(block);
    }
    blocks
}

async fn read_all(cluster: &Cluster, blocks: &[Bytes]) {
    for block in blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
}

#[tokio::test]
async fn writes_go_on_when_another_volume_manager_takes_over() {
    let slots = 40;
    let mut cluster = Cluster::start_with(Options { standby: true, slots, ..Options::default() }).await;
    let first = cluster.volume_manager.address.clone();
    let (stop, put) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (stop, put) = (Arc::clone(&stop), Arc::clone(&put));
        let (client, keys, frontend) = (cluster.client(), cluster.keys.clone(), cluster.frontend.address.clone());
        async move {
            let mut blocks = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let block = block(blocks.len() as u64, BLOCK_BYTES);
                let subject = Subject::Block(BlockHash::of(&block));
                let (cell, account) = (cluster::CELL, cluster::ACCOUNT);
                let expires = cluster::now() + 60;
                let grant = Grant { cell, method: Method::Put, subject, account, max_bytes: 64 << 20, expires };
                // None may fail: whoever has no volume waits for the next leader.
                client.put(&format!("{frontend}{}", grant.sign(&keys)), block.clone()).await.unwrap();
                blocks.push(block);
                put.fetch_add(1, Ordering::Relaxed);
            }
            blocks
        }
    });
    let leased = async |cluster: &Cluster, least| {
        eventually("so many volumes are leased", async || {
            let leased = cluster.counter("volumes_leased").await;
            (leased >= least).then_some(leased)
        })
        .await
    };
    leased(&cluster, 3).await;
    cluster.volume_manager.kill();
    let (before, acknowledged) = (leased(&cluster, 0).await, put.load(Ordering::Relaxed));
    // By the other one.
    leased(&cluster, before + 2).await;
    assert!(put.load(Ordering::Relaxed) > acknowledged);
    stop.store(true, Ordering::Relaxed);
    let blocks = writer.await.unwrap();
    // The nodes came along, too.
    cluster.wait_for_nodes(cluster.nodes.len()).await;
    assert_ne!(cluster.standby.as_ref().unwrap().address, first);
    read_all(&cluster, &blocks).await;
}

/// Waits until the volume manager knows that its catalog is lost.
async fn loss_is_told(cluster: &Cluster) {
    eventually("all nodes are there, and the loss is told", async || {
        let status = cluster.cell_status().await?;
        let up = status.nodes.iter().filter(|node| node.state == "up").count();
        let told = status.reasons.iter().any(|reason| reason.contains("holdfast admin catalog rebuild"));
        (up == cluster.nodes.len() && told && status.health == "critical").then_some(())
    })
    .await;
}

async fn rebuilt(cluster: &Cluster) -> RebuildStatus {
    loss_is_told(cluster).await;
    cluster.operator().rebuild().await.unwrap();
    eventually("the rebuild has ended", async || {
        let status = cluster.operator().rebuild_status().await.ok()?;
        (status.state != RebuildState::Running).then_some(status)
    })
    .await
}

#[tokio::test]
async fn every_block_is_read_again_after_the_catalog_was_lost_and_rebuilt() {
    let mut cluster = Cluster::start_with(Options { slots: 40, ..Options::default() }).await;
    let mut blocks = put_all(&cluster, 0..BLOCKS).await;
    let volumes = cluster.volumes().await;
    let in_state = |state| volumes.iter().filter(|volume| volume.state == state).count();
    assert!(in_state(VolumeState::Open) >= 1 && volumes.len() >= 2, "{volumes:?}");
    cluster.lose_catalog();
    let status = rebuilt(&cluster).await;
    assert_eq!((status.state, status.not_recovered_total), (RebuildState::Done, 0), "{status:?}");
    assert_eq!((status.volumes, status.blocks, status.keys), (volumes.len() as u64, BLOCKS, 1), "{status:?}");
    cluster.start_frontend();
    read_all(&cluster, &blocks).await;
    blocks.extend(put_all(&cluster, BLOCKS..BLOCKS + 20).await);
    // And again, with what the rebuilt catalog made.
    cluster.lose_catalog();
    let status = rebuilt(&cluster).await;
    assert_eq!((status.state, status.blocks, status.keys), (RebuildState::Done, BLOCKS + 20, 2), "{status:?}");
    cluster.start_frontend();
    read_all(&cluster, &blocks).await;
    let generations: std::collections::BTreeSet<u32> =
        cluster.volumes().await.iter().map(|volume| volume.volume.generation()).collect();
    assert!(generations.len() >= 2, "{generations:?}");
}

#[tokio::test]
async fn a_put_does_not_wait_for_a_lost_catalog_and_no_block_counts_as_absent_for_it() {
    let mut cluster = Cluster::start().await;
    let stored = block(1, 5000);
    cluster.put(&stored).await.unwrap();
    cluster.lose_catalog();
    loss_is_told(&cluster).await;
    cluster.start_frontend();
    let told = |refused: CallError| {
        assert_eq!(refused.code(), Some(code::UNAVAILABLE), "{refused}");
        assert!(refused.to_string().contains("holdfast admin catalog rebuild"), "{refused}");
    };
    told(cluster.put(&block(2, 5000)).await.unwrap_err());
    assert_eq!(cluster.counter("failed_leases").await, 1, "the first refusal is the answer");
    told(cluster.get(BlockHash::of(&stored)).await.unwrap_err());
    rebuilt(&cluster).await;
    read_all(&cluster, &[stored]).await;
    assert_eq!(cluster.get(BlockHash([1; 32])).await.unwrap_err().code(), Some(code::NOT_FOUND));
}
