//! Puts and gets of one block and of lists, and what is refused.

use std::time::Duration;

use crate::cluster::{self, ACCOUNT, Cluster, Options, block, disk_file, eventually, now};
use bytes::Bytes;
use holdfast_frontend_client::code;
use holdfast_libs_presign::{Grant, Method, Receipt, Subject, list_digest};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{BlockHash, CellId, MAX_BLOCK_BYTES};
use holdfast_volume_manager_catalog::VolumeState;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(10);

fn code_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> (u16, String) {
    match result.unwrap_err() {
        CallError::Api(error) => (error.status.as_u16(), error.code),
        other => panic!("no answer of the protocol: {other}"),
    }
}

#[tokio::test]
async fn blocks_of_every_size_come_back_as_they_were_put() {
    let cluster = Cluster::start().await;
    for (seed, length) in [0, 1, 4095, 4096, 100_000, MAX_BLOCK_BYTES].into_iter().enumerate() {
        let block = block(seed as u64, length);
        assert!(!cluster.put(&block).await.unwrap().deduplicated);
        assert_eq!(cluster.get(BlockHash::of(&block)).await.unwrap(), block, "{length} bytes");
    }
    let status = cluster.status().await;
    assert_eq!((status.counters["puts"], status.counters["gets"], status.counters["appends"]), (6, 6, 6));
    assert_eq!(status.cell, cluster::CELL);
    assert_eq!(code_of(cluster.get(BlockHash([1; 32])).await), (404, code::NOT_FOUND.to_owned()));
}

#[tokio::test]
async fn a_block_stands_on_three_disks_and_its_plaintext_on_none() {
    let cluster = Cluster::start().await;
    let block = block(1, 50_000);
    cluster.put(&block).await.unwrap();
    let copies = (0..4).filter(|n| disk_file::find_record(&cluster.disk_file(*n), &BlockHash::of(&block)).is_some());
    assert_eq!(copies.count(), 3);
    for n in 0..4 {
        assert!(!disk_file::contains(&cluster.disk_file(n), &block[100..164]), "plaintext on disk {n}");
    }
}

#[tokio::test]
async fn a_block_that_is_there_is_not_stored_again_and_still_gives_a_receipt() {
    let cluster = Cluster::start().await;
    let block = block(1, 10_000);
    assert!(!cluster.put(&block).await.unwrap().deduplicated);
    let again = cluster.put(&block).await.unwrap();
    assert!(again.deduplicated);
    assert!(Receipt::verify(&again.receipt, &cluster.keys, ACCOUNT, now()).is_ok());
    let counters = cluster.status().await.counters;
    assert_eq!((counters["puts"], counters["dedup_hits"], counters["appends"]), (2, 1, 1));
}

#[tokio::test]
async fn the_same_block_put_by_many_at_once_is_stored_once() {
    let cluster = Cluster::start().await;
    let block = block(1, 200_000);
    let answers = cluster::at_once(16, |_| cluster.put(&block)).await;
    let new = answers.into_iter().filter(|answer| !answer.as_ref().unwrap().deduplicated).count();
    assert_eq!(new, 1);
    assert_eq!(cluster.counter("appends").await, 1);
}

#[tokio::test]
async fn a_receipt_names_account_block_and_length_for_a_day() {
    let cluster = Cluster::start().await;
    let block = block(1, 1234);
    let text = cluster.put(&block).await.unwrap().receipt;
    let receipt = Receipt::verify(&text, &cluster.keys, ACCOUNT, now()).unwrap();
    assert_eq!((receipt.account, receipt.hash, receipt.length), (ACCOUNT, BlockHash::of(&block), 1234));
    let day = 24 * 60 * 60;
    assert!((now() + day - 60..=now() + day).contains(&receipt.expires), "{}", receipt.expires);
}

#[tokio::test]
async fn a_thousand_small_blocks_travel_in_one_request_each_way() {
    let cluster = Cluster::start().await;
    let blocks: Vec<Bytes> = (0..1000).map(|n| block(n, 16 + (n as usize * 37) % 8000)).collect();
    let answer = cluster.put_list(&blocks).await.unwrap();
    assert_eq!((answer.receipts.len(), answer.deduplicated), (1000, 0));
    for (text, block) in answer.receipts.iter().zip(&blocks) {
        let receipt = Receipt::verify(text, &cluster.keys, ACCOUNT, now()).unwrap();
        assert_eq!((receipt.hash, receipt.length as usize), (BlockHash::of(block), block.len()));
    }
    let counters = cluster.status().await.counters;
    assert!(counters["batches"] < 20, "{} batches for one list", counters["batches"]);

    let mut hashes: Vec<_> = blocks.iter().map(|block| BlockHash::of(block)).collect();
    hashes.insert(500, BlockHash([0xee; 32]));
    let mut got = cluster.get_list(&hashes).await.unwrap();
    assert_eq!(got.remove(500), None, "an absent block has no bytes");
    assert!(got.into_iter().zip(&blocks).all(|(got, block)| got.as_ref() == Some(block)));

    assert_eq!(cluster.put_list(&blocks[990..]).await.unwrap().deduplicated, 10);
    let twice = [block(5000, 100), block(5000, 100)];
    assert_eq!(cluster.put_list(&twice).await.unwrap().deduplicated, 1, "a block twice in one list");
}

#[tokio::test]
async fn a_body_that_is_not_its_hash_is_refused_and_not_stored() {
    let cluster = Cluster::start().await;
    let (promised, sent) = (block(1, 5000), block(2, 5000));
    let hash = BlockHash::of(&promised);
    let url = cluster.url(&cluster.grant(Method::Put, Subject::Block(hash)));
    assert_eq!(code_of(cluster.client().put(&url, sent.clone()).await), (400, code::HASH_MISMATCH.to_owned()));
    assert_eq!(code_of(cluster.get(hash).await).1, code::NOT_FOUND);
    assert_eq!(code_of(cluster.get(BlockHash::of(&sent)).await).1, code::NOT_FOUND);

    let digest = list_digest([&hash]);
    let url = cluster.url(&cluster.grant(Method::Put, Subject::List(digest)));
    let wrong_bytes = [(hash, sent.clone())];
    assert_eq!(code_of(cluster.client().put_list(&url, &wrong_bytes).await).1, code::HASH_MISMATCH);
    let wrong_list = [(BlockHash::of(&sent), sent)];
    assert_eq!(code_of(cluster.client().put_list(&url, &wrong_list).await).1, code::HASH_MISMATCH);
    let anyone = cluster.http(None);
    let cut = anyone.send_bytes(http::Method::POST, &url, Bytes::from_static(&[1; 40]), 1000, DEADLINE).await;
    assert_eq!(code_of(cut), (400, "bad_request".to_owned()));
    assert_eq!(cluster.counter("refused_puts").await, 4);
}

#[tokio::test]
async fn what_is_longer_than_a_block_a_list_or_the_url_allows_is_refused() {
    let cluster = Cluster::start().await;
    let long = block(1, MAX_BLOCK_BYTES + 1);
    assert_eq!(code_of(cluster.put(&long).await), (413, code::TOO_LARGE.to_owned()));

    let short = block(2, 1001);
    let hash = BlockHash::of(&short);
    let narrow = Grant { max_bytes: 1000, ..cluster.grant(Method::Put, Subject::Block(hash)) };
    assert_eq!(code_of(cluster.client().put(&cluster.url(&narrow), short.clone()).await).1, code::TOO_LARGE);
    cluster.put(&short).await.unwrap();
    let narrow = Grant { method: Method::Get, ..narrow };
    assert_eq!(code_of(cluster.client().get(&cluster.url(&narrow), &hash).await).1, code::TOO_LARGE);

    let list: Vec<_> = (10..15).map(|n| block(n, MAX_BLOCK_BYTES)).collect();
    assert_eq!(code_of(cluster.put_list(&list).await).1, code::TOO_LARGE);
    for block in &list {
        cluster.put(block).await.unwrap();
    }
    let hashes: Vec<_> = list.iter().map(|block| BlockHash::of(block)).collect();
    assert_eq!(code_of(cluster.get_list(&hashes).await).1, code::TOO_LARGE);
    assert_eq!(cluster.get_list(&hashes[1..]).await.unwrap().into_iter().flatten().count(), 4);
}

#[tokio::test]
async fn an_expired_altered_or_foreign_url_grants_nothing() {
    let cluster = Cluster::start().await;
    let block = block(1, 3000);
    let hash = BlockHash::of(&block);
    cluster.put(&block).await.unwrap();
    let put = cluster.grant(Method::Put, Subject::Block(hash));
    let client = cluster.client();
    let refused = async |url: String| {
        let (status, code) = code_of(client.put(&url, block.clone()).await);
        assert_eq!(status, 403, "{code}");
        code
    };
    assert_eq!(refused(cluster.url(&Grant { expires: now() - 10, ..put })).await, code::URL_EXPIRED);
    assert_eq!(refused(cluster.url(&put).replace("l=", "l=1")).await, code::URL_SIGNATURE);
    assert_eq!(refused(cluster.url(&Grant { cell: CellId([1; 16]), ..put })).await, code::URL_SIGNATURE);
    assert_eq!(refused(cluster.url(&Grant { method: Method::Get, ..put })).await, code::URL_SIGNATURE);
    assert_eq!(refused(cluster.url(&put).split('?').next().unwrap().to_owned()).await, code::URL_MALFORMED);
    assert_eq!(code_of(client.get(&cluster.url(&put), &hash).await).1, code::URL_SIGNATURE);
    let other = Grant { subject: Subject::Block(BlockHash([1; 32])), ..put };
    let moved = cluster.url(&other).replace(&"01".repeat(32), &hash.to_string());
    assert_eq!(refused(moved).await, code::URL_SIGNATURE);
    let list = Grant { subject: Subject::List(list_digest([&hash])), method: Method::Get, ..put };
    let expired = cluster.url(&Grant { expires: 1, ..list });
    assert_eq!(code_of(client.get_list(&expired, &[hash]).await).1, code::URL_EXPIRED);
    let no_hash = format!("{}/v1/blocks/xyz?a=1", cluster.frontend.address);
    assert_eq!(code_of(client.put(&no_hash, block.clone()).await), (400, "bad_request".to_owned()));
}

#[tokio::test]
async fn status_needs_a_token_and_plain_http_is_told_to_use_tls() {
    let cluster = Cluster::start().await;
    let url = format!("{}/v1/status", cluster.frontend.address);
    let status = async |role| {
        let request = Request::builder().uri(&url).body(Full::default()).unwrap();
        cluster.http(role).send(request, DEADLINE).await.unwrap().status()
    };
    assert_eq!(status(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(Some(Role::Node)).await, StatusCode::FORBIDDEN);
    assert_eq!(status(Some(Role::Metadata)).await, StatusCode::OK);
    let metrics = cluster.http(Some(Role::Node));
    let metrics = metrics.get(&format!("{}/metrics", cluster.frontend.address), 1 << 20, DEADLINE).await.unwrap();
    assert!(String::from_utf8(metrics.to_vec()).unwrap().contains("holdfast_frontend_puts_total 0"));
    let health = cluster.http(None);
    assert_eq!(health.get(&format!("{}/healthz", cluster.frontend.address), 10, DEADLINE).await.unwrap(), "ok");
    let place = cluster.frontend.address.strip_prefix("https://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("HTTPS only"), "{answer}");
}

#[tokio::test]
async fn the_cache_answers_without_the_disks_and_only_when_it_is_on() {
    let cluster = Cluster::start_with(Options { cache_bytes: 1 << 20, ..Options::default() }).await;
    let small = block(1, 1000);
    let large = block(2, 2 << 20);
    for block in [&small, &large] {
        cluster.put(block).await.unwrap();
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    assert_eq!(cluster.counter("cache_hits").await, 1);
    let list = [BlockHash::of(&small), BlockHash::of(&large)];
    assert_eq!(cluster.get_list(&list).await.unwrap(), [Some(small), Some(large)]);
    assert_eq!(cluster.counter("cache_hits").await, 2);
}

#[tokio::test]
async fn volumes_are_leased_at_the_first_put_and_given_back_at_the_end() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.counter("volumes_leased").await, 0);
    for n in 0..5 {
        cluster.put(&block(n, 100)).await.unwrap();
    }
    let status = cluster.status().await;
    assert_eq!(status.counters["volumes_leased"], 1, "one put at a time needs one volume");
    cluster.frontend.stop();
    let (row, reason) = cluster.sealed(status.open_volumes[0]).await;
    assert_eq!((row.replicas.len(), reason.as_str()), (3, "the frontend stops"));
}

#[tokio::test]
async fn a_full_volume_is_followed_by_another() {
    let cluster = Cluster::start().await;
    let blocks: Vec<_> = (0..8).map(|n| block(n, MAX_BLOCK_BYTES)).collect();
    for block in &blocks {
        cluster.put(block).await.unwrap();
    }
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block);
    }
    let leased = cluster.counter("volumes_leased").await;
    assert!(leased >= 3, "{leased} volumes of 13 MiB for 32 MiB");
    eventually("the full ones are sealed", async || {
        let sealed = cluster.volumes().await.into_iter().filter(|row| row.state == VolumeState::Sealed).count() as u64;
        (sealed >= leased - 2).then_some(())
    })
    .await;
    for block in &blocks {
        assert_eq!(cluster.get(BlockHash::of(block)).await.unwrap(), *block, "from sealed volumes too");
    }
    assert_eq!(cluster.counter("failed_appends").await, 0, "a full volume is no failure");
}
