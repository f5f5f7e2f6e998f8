//! Nodes that die, disks that lie, a cell that is full.

#![allow(missing_docs, clippy::unwrap_used)]

mod cluster;

use cluster::{Cluster, block, disk_file, eventually};
use holdfast_frontend_client::code;
use holdfast_libs_transport::{ApiError, CallError};
use holdfast_libs_types::BlockHash;
use http::StatusCode;

fn code_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result.unwrap_err() {
        CallError::Api(error) => error.code,
        other => panic!("no answer of the protocol: {other}"),
    }
}

#[tokio::test]
async fn puts_go_on_in_another_volume_when_a_node_dies_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start().await;
    let before: Vec<_> = (0..4).map(|n| block(n, 30_000)).collect();
    for block in &before {
        cluster.put(block).await.unwrap();
    }
    let dead = cluster.disk_of(0).await;
    cluster.nodes[0].kill();
    let during: Vec<_> = (100..132).map(|n| block(n, 30_000)).collect();
    let answers = cluster::at_once(during.len() as u64, |n| cluster.put(&during[n as usize])).await;
    for answer in answers {
        answer.unwrap();
    }
    for block in before.iter().chain(&during) {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let seals = eventually("its volume is to be sealed", async || {
        Some(cluster.volume_manager.seals()).filter(|seals| !seals.is_empty())
    })
    .await;
    assert_eq!(seals[0].failed_disk, Some(dead), "the seal names the disk: {seals:?}");
    let last = cluster.volume_manager.leases().pop().unwrap();
    assert!(last.replicas.iter().all(|replica| replica.disk != dead), "the next volume avoids it");
    let counters = cluster.status().await.counters;
    assert!(counters["failed_appends"] >= 1 && counters["failed_puts"] == 0, "{counters:?}");
}

#[tokio::test]
async fn a_restarted_node_takes_no_more_appends_to_its_open_volumes_and_the_frontend_takes_another() {
    let mut cluster = Cluster::start().await;
    let first = block(1, 10_000);
    cluster.put(&first).await.unwrap();
    cluster.restart_node(1).await;
    let second = block(2, 10_000);
    cluster.put(&second).await.unwrap();
    assert_eq!(cluster.counter("volumes_leased").await, 2);
    let seals = cluster.volume_manager.seals();
    assert_eq!((seals.len(), seals[0].failed_disk), (1, None), "the volume is over, the disk is well: {seals:?}");
    for block in [first, second] {
        assert_eq!(cluster.get(BlockHash::of(&block)).await.unwrap(), block);
    }
}

#[tokio::test]
async fn gets_go_on_when_a_node_dies() {
    let mut cluster = Cluster::start().await;
    let blocks: Vec<_> = (0..12).map(|n| block(n, 20_000)).collect();
    cluster.put_list(&blocks).await.unwrap();
    cluster.nodes[1].kill();
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert!(cluster.counter("failed_reads").await >= 1);
}

#[tokio::test]
async fn a_flipped_bit_is_never_answered_and_counted_whenever_it_is_read() {
    let cluster = Cluster::start().await;
    let blocks: Vec<_> = (0..30).map(|n| block(n, 500 + n as usize * 100)).collect();
    cluster.put_list(&blocks).await.unwrap();
    let replicas: Vec<_> = (0..4)
        .filter(|n| disk_file::find_record(&cluster.disk_file(*n), &BlockHash::of(&blocks[0])).is_some())
        .collect();
    assert_eq!(replicas.len(), 3);
    // The replica that is asked first follows from the hash: this one is first for about a third of the blocks.
    for (n, block) in blocks.iter().enumerate() {
        disk_file::flip(&cluster.disk_file(replicas[1]), &BlockHash::of(block), n * 977);
    }
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let once = cluster.counter("damaged_records_detected").await;
    assert!((3..=27).contains(&once), "{once} of 30 reads met the damaged replica");
    let hashes: Vec<_> = blocks.iter().map(|block| BlockHash::of(block)).collect();
    let list = cluster.get_list(&hashes).await.unwrap();
    assert!(list.into_iter().zip(&blocks).all(|(got, block)| got.as_ref() == Some(block)));
    assert_eq!(cluster.counter("damaged_records_detected").await, 2 * once);
    assert_eq!(cluster.counter("unreadable_blocks").await, 0);
}

#[tokio::test]
async fn a_replica_whose_checksums_are_right_and_whose_bytes_are_not_is_caught_by_the_frontend() {
    let cluster = Cluster::start().await;
    let block = block(1, 9000);
    cluster.put(&block).await.unwrap();
    let hash = BlockHash::of(&block);
    for n in 0..4 {
        if disk_file::find_record(&cluster.disk_file(n), &hash).is_some() {
            disk_file::forge(&cluster.disk_file(n), &hash);
        }
    }
    assert_eq!(code_of(cluster.get(hash).await), code::UNREADABLE);
    assert_eq!(cluster.counter("damaged_records_detected").await, 3);
}

#[tokio::test]
async fn a_block_damaged_on_all_disks_is_an_error_and_never_bytes() {
    let cluster = Cluster::start().await;
    let (bad, good) = (block(1, 9000), block(2, 9000));
    cluster.put_list(&[bad.clone(), good.clone()]).await.unwrap();
    let hash = BlockHash::of(&bad);
    for n in 0..4 {
        if disk_file::find_record(&cluster.disk_file(n), &hash).is_some() {
            disk_file::flip(&cluster.disk_file(n), &hash, 8 * 128 + 4000 * (n + 1));
        }
    }
    match cluster.get(hash).await.unwrap_err() {
        CallError::Api(error) => {
            assert_eq!((error.status, error.code.as_str()), (StatusCode::BAD_GATEWAY, code::UNREADABLE));
        }
        other => panic!("{other}"),
    }
    let counters = cluster.status().await.counters;
    assert_eq!((counters["damaged_records_detected"], counters["unreadable_blocks"]), (3, 1));
    assert_eq!(cluster.get_list(&[hash, BlockHash::of(&good)]).await.unwrap(), [None, Some(good)]);
}

#[tokio::test]
async fn a_full_cell_refuses_puts_with_its_own_code_and_recovers() {
    let cluster = Cluster::start().await;
    let full = ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "cell_full", "no three disks have a free slot");
    cluster.volume_manager.state.lock().unwrap().refuse = Some(full);
    assert_eq!(code_of(cluster.put(&block(1, 100)).await), code::CELL_FULL);
    cluster.volume_manager.state.lock().unwrap().refuse = None;
    cluster.put(&block(1, 100)).await.unwrap();
}

#[tokio::test]
async fn a_put_waits_for_a_volume_manager_that_is_not_ready() {
    let cluster = Cluster::start().await;
    let not_yet = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_leader", "ask again");
    cluster.volume_manager.state.lock().unwrap().refuse = Some(not_yet);
    let data = block(1, 100);
    let put = cluster.put(&data);
    let relent = async {
        eventually("the put is being retried", async || {
            let waiting = cluster.counter("puts").await == 1;
            waiting.then_some(())
        })
        .await;
        cluster.volume_manager.state.lock().unwrap().refuse = None;
    };
    let (answer, ()) = tokio::join!(put, relent);
    answer.unwrap();
}

#[tokio::test]
async fn blocks_whose_index_rows_are_fenced_go_into_another_volume() {
    let cluster = Cluster::start().await;
    let first = block(1, 5000);
    cluster.put(&first).await.unwrap();
    let volume = cluster.status().await.open_volumes[0];
    cluster.volume_manager.close_fence(volume);
    let blocks: Vec<_> = (2..12).map(|n| block(n, 5000)).collect();
    assert_eq!(cluster.put_list(&blocks).await.unwrap().receipts.len(), 10);
    for block in blocks.iter().chain([&first]) {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let counters = cluster.status().await.counters;
    assert!(counters["fenced_inserts"] >= 1 && counters["volumes_leased"] >= 2, "{counters:?}");
    assert!(!cluster.status().await.open_volumes.contains(&volume));
    let seals = cluster.volume_manager.seals();
    assert!(seals.iter().any(|seal| seal.volume == volume && seal.failed_disk.is_none()), "{seals:?}");
}

#[tokio::test]
async fn a_restarted_frontend_reads_and_knows_what_the_one_before_it_stored() {
    let mut cluster = Cluster::start().await;
    let blocks: Vec<_> = (0..5).map(|n| block(n, 40_000)).collect();
    cluster.put_list(&blocks).await.unwrap();
    cluster.frontend.kill();
    cluster.restart_frontend();
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert_eq!(cluster.put_list(&blocks).await.unwrap().deduplicated, 5);
    assert_eq!(cluster.counter("volumes_leased").await, 0);
}
