//! Possession: what must be delivered, what may be fetched, which receipts count.

use std::sync::atomic::Ordering;

use crate::bench::{Bench, applied, block, keys, named, put_file, refused};
use bytes::Bytes;
use holdfast_libs_presign::Receipt;
use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, EntryId, Outcome, code};

const ROOT: EntryId = EntryId::ROOT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_delivered_is_answered_per_account() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    bench.user("bob").await;
    let (mut a, mut a2) = (bench.device("ada").await, bench.device("ada").await);
    let mut b = bench.device("bob").await;
    a.put(named(ROOT, "a"), None, b"shared bytes").await;
    assert_eq!(a2.deliver(b"shared bytes").await, 0, "the account possesses it");
    let plan = b.client.download(&[block(b"shared bytes")]).await.unwrap();
    assert_eq!(plan.refused, [block(b"shared bytes").hash], "bob may not read what he never showed");
    let refusal = b.one(put_file(named(ROOT, "a"), None, b"shared bytes")).await;
    let Outcome::Refused { code, missing, .. } = refusal else { panic!("not possessed") };
    assert_eq!((code.as_str(), missing), (code::NEED_BLOCKS, vec![block(b"shared bytes").hash]));
    assert_eq!(b.deliver(b"shared bytes").await, 1, "present in the cell or not, bob must deliver");
    // The same op may be repeated once the block is there.
    b.op -= 1;
    let done = b.one(put_file(named(ROOT, "a"), None, b"shared bytes")).await;
    assert!(matches!(done, Outcome::Applied { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_another_account_altered_or_expired_ones_do_not_count() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    bench.user("bob").await;
    let (mut a, mut b) = (bench.device("ada").await, bench.device("bob").await);
    a.deliver(b"secret").await;
    b.receipts = a.receipts.clone();
    let stolen = b.request(vec![put_file(named(ROOT, "a"), None, b"secret")]);
    assert_eq!(b.client.commit(&stolen).await.unwrap_err().code(), Some(code::FORBIDDEN));
    b.receipts = vec![a.receipts[0].replace('A', "B") + "x"];
    assert_eq!(refused(&b.one(put_file(named(ROOT, "a"), None, b"secret")).await), code::NEED_BLOCKS);
    let old = Receipt { account: b.me.account, hash: block(b"secret").hash, length: 6, expires: 1000 };
    b.receipts = vec![old.sign(&keys())];
    assert_eq!(refused(&b.one(put_file(named(ROOT, "a"), None, b"secret")).await), code::NEED_BLOCKS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_blocks_travel_in_lists_and_large_ones_alone() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let mut a = bench.device("ada").await;
    let small: Vec<Bytes> = (0..300_u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    let large = Bytes::from(vec![5; 256 * 1024 + 1]);
    let asked: Vec<BlockRef> = small.iter().chain([&large, &small[0]]).map(|bytes| block(bytes)).collect();
    let plan = a.client.upload(&asked).await.unwrap();
    let sizes: Vec<_> = plan.lists.iter().map(|list| list.hashes.len()).collect();
    assert_eq!((sizes.as_slice(), plan.single.len()), (&[256, 44][..], 1));
    let by_hash: std::collections::HashMap<BlockHash, Bytes> =
        small.iter().map(|bytes| (BlockHash::of(bytes), bytes.clone())).collect();
    for list in &plan.lists {
        let blocks: Vec<_> = list.hashes.iter().map(|hash| (*hash, by_hash[hash].clone())).collect();
        a.receipts.extend(a.frontend.put_list(&list.url, &blocks).await.unwrap().receipts);
    }
    a.receipts.push(a.frontend.put(&plan.single[0].url, large.clone()).await.unwrap().receipt);
    assert_eq!(bench.blocks.puts.load(Ordering::SeqCst), 301);
    let done = a.one(put_file(named(ROOT, "large"), None, &large)).await;
    assert_eq!(applied(&done).size, large.len() as u64);
    let plan = a.client.download(&asked).await.unwrap();
    assert_eq!((plan.lists.len(), plan.single.len(), plan.refused.len()), (2, 1, 0));
    let back = a.frontend.get(&plan.single[0].url, &plan.single[0].hash).await.unwrap();
    assert_eq!(back, large);
    let back = a.frontend.get_list(&plan.lists[0].url, &plan.lists[0].hashes).await.unwrap();
    assert_eq!(back[7].as_ref(), Some(&small[7]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_block_lists_are_refused() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let a = bench.device("ada").await;
    for length in [0, 4 * 1024 * 1024 + 1] {
        let asked = [BlockRef { hash: BlockHash([1; 32]), length }];
        assert_eq!(a.client.upload(&asked).await.unwrap_err().code(), Some("bad_request"));
    }
    let many = vec![BlockRef { hash: BlockHash([1; 32]), length: 1 }; 10_001];
    assert_eq!(a.client.download(&many).await.unwrap_err().code(), Some("bad_request"));
}
