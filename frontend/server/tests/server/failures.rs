//! Nodes that die, disks that lie, a cell that is full.

use crate::cluster::{self, Cluster, Options, block, disk_file, eventually};
use holdfast_frontend_client::code;
use holdfast_libs_presign::{Method, Subject};
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
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
    let volume = cluster.status().await.open_volumes[0];
    let (n, dead) = cluster.replica_of(volume).await;
    cluster.nodes[n].kill();
    let during: Vec<_> = (100..132).map(|n| block(n, 30_000)).collect();
    let answers = cluster::at_once(during.len() as u64, |n| cluster.put(&during[n as usize])).await;
    for answer in answers {
        answer.unwrap();
    }
    for block in before.iter().chain(&during) {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let (row, reason) = cluster.sealed(volume).await;
    assert!(row.replicas.len() >= 2 && !row.replicas.contains(&dead), "{row:?}");
    assert!(reason.contains(&format!("disk {dead} failed the writer")), "the seal names the disk: {reason}");
    for open in cluster.status().await.open_volumes {
        let next = cluster.volumes().await.into_iter().find(|row| row.volume == open).unwrap();
        assert!(!next.replicas.contains(&dead), "the next volume avoids it");
    }
    let counters = cluster.status().await.counters;
    assert!(counters["failed_appends"] >= 1 && counters["failed_puts"] == 0, "{counters:?}");
}

#[tokio::test]
async fn a_restarted_node_takes_no_more_appends_to_its_open_volumes_and_the_frontend_takes_another() {
    let mut cluster = Cluster::start().await;
    let first = block(1, 10_000);
    cluster.put(&first).await.unwrap();
    let volume = cluster.status().await.open_volumes[0];
    cluster.restart_node(1).await;
    let second = block(2, 10_000);
    cluster.put(&second).await.unwrap();
    assert_eq!(cluster.counter("volumes_leased").await, 2);
    let (row, reason) = cluster.sealed(volume).await;
    assert_eq!(row.replicas.len(), 3, "all replicas agree: {row:?}");
    assert!(!reason.contains("failed the writer"), "the volume is over, the disk is well: {reason}");
    for block in [first, second] {
        assert_eq!(cluster.get(BlockHash::of(&block)).await.unwrap(), block);
    }
}

#[tokio::test]
async fn gets_go_on_when_a_node_dies() {
    let mut cluster = Cluster::start().await;
    let blocks: Vec<_> = (0..12).map(|n| block(n, 20_000)).collect();
    cluster.put_list(&blocks).await.unwrap();
    let volume = cluster.status().await.open_volumes[0];
    let (dead, _) = cluster.replica_of(volume).await;
    cluster.nodes[dead].kill();
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert!(cluster.counter("failed_reads").await >= 1);
}

#[tokio::test]
async fn a_replica_that_is_slow_gets_company() {
    let cluster = Cluster::start_with(Options { hedge_ms: 1, ..Options::default() }).await;
    let blocks: Vec<_> = (0..4).map(|n| block(n, MAX_BLOCK_BYTES)).collect();
    for block in &blocks {
        cluster.put(block).await.unwrap();
        // No disk, TLS and node of this world give 4 MiB within a millisecond, verified.
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert!(cluster.counter("hedged_reads").await >= 4);
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
async fn a_full_cell_refuses_puts_with_its_own_code_and_still_answers_gets() {
    let cluster = Cluster::start_with(Options { slots: 2, ..Options::default() }).await;
    let mut stored = Vec::new();
    let refused = loop {
        assert!(stored.len() < 30, "two slots a disk take no thirty blocks of 4 MiB");
        let block = block(stored.len() as u64, MAX_BLOCK_BYTES);
        match cluster.put(&block).await {
            Ok(_) => stored.push(block),
            refused => break refused,
        }
    };
    assert_eq!(code_of(refused), code::CELL_FULL);
    assert!(stored.len() >= 3, "{} blocks were stored", stored.len());
    for block in &stored {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert!(cluster.put(&stored[0]).await.unwrap().deduplicated);
}

#[tokio::test]
async fn a_put_waits_for_a_volume_manager_that_is_away_and_gets_do_not_need_one() {
    let mut cluster = Cluster::start().await;
    let before = block(1, 5000);
    cluster.put(&before).await.unwrap();
    cluster.restart_frontend();
    cluster.volume_manager.kill();
    assert_eq!(cluster.get(BlockHash::of(&before)).await.unwrap(), before);
    let (client, after) = (cluster.client(), block(2, 5000));
    let url = cluster.url(&cluster.grant(Method::Put, Subject::Block(BlockHash::of(&after))));
    let put = tokio::spawn(async move { client.put(&url, after).await });
    eventually("a lease was refused", async || (cluster.counter("failed_leases").await >= 1).then_some(())).await;
    assert!(!put.is_finished(), "the put waits");
    cluster.restart_volume_manager();
    put.await.unwrap().unwrap();
}

#[tokio::test]
async fn writes_to_leased_volumes_go_on_while_the_volume_manager_is_away() {
    let mut cluster = Cluster::start().await;
    cluster.put(&block(1, 5000)).await.unwrap();
    cluster.volume_manager.kill();
    for n in 2..10 {
        cluster.put(&block(n, 5000)).await.unwrap();
    }
    assert_eq!(cluster.counter("volumes_leased").await, 1);
}

#[tokio::test]
async fn blocks_whose_index_rows_are_fenced_go_into_another_volume() {
    let cluster = Cluster::start().await;
    let first = block(1, 5000);
    cluster.put(&first).await.unwrap();
    let volume = cluster.status().await.open_volumes[0];
    cluster.close_fence(volume).await;
    let blocks: Vec<_> = (2..12).map(|n| block(n, 5000)).collect();
    assert_eq!(cluster.put_list(&blocks).await.unwrap().receipts.len(), 10);
    for block in blocks.iter().chain([&first]) {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let counters = cluster.status().await.counters;
    assert!(counters["fenced_inserts"] >= 1 && counters["volumes_leased"] >= 2, "{counters:?}");
    assert!(!cluster.status().await.open_volumes.contains(&volume));
    let (_, reason) = cluster.sealed(volume).await;
    assert!(reason.contains("fenced"), "{reason}");
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
