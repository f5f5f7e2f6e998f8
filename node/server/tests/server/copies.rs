//! Copies to the disks of a node, many at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::support::{TestNode, VolumeManager, batch, certificates, config, eventually, folder, http};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{BlockHash, DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{CancelCopy, CopyRequest, ExtentState, NodeClient, Source, code};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What pieces of copies may occupy of a node's memory (`docs/node.md`, "Copies and the foreground").
const MOST_BYTES: usize = 64 << 20;

/// Bytes of a piece at most.
const PIECE_BYTES: usize = 4 << 20;

/// A node that has sealed volumes, and gives what it is asked for once it is told to.
#[derive(Default)]
struct Giver {
    volumes: HashMap<String, Bytes>,
    may_give: CancellationToken,
    /// Bytes that it was asked for and has not given yet: now, and the most there were.
    asked: Mutex<(usize, usize)>,
}

#[derive(Deserialize)]
struct Piece {
    offset: usize,
    length: usize,
}

async fn give(
    State(giver): State<Arc<Giver>>,
    Path((_, volume)): Path<(String, String)>,
    Query(piece): Query<Piece>,
) -> Bytes {
    {
        let mut asked = giver.asked.lock().unwrap();
        asked.0 += piece.length;
        asked.1 = asked.1.max(asked.0);
    }
    giver.may_give.cancelled().await;
    giver.asked.lock().unwrap().0 -= piece.length;
    giver.volumes[&volume].slice(piece.offset..piece.offset + piece.length)
}

#[tokio::test]
async fn what_pieces_occupy_is_bounded_however_many_copies_a_node_makes_and_all_of_them_end() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 2, &volume_manager.address)).await;
    let leader = node.client(Role::VolumeManager);
    let disks: Vec<DiskId> = leader.status().await.unwrap().disks.iter().map(|disk| disk.disk.unwrap()).collect();

    // Three pieces each: as many as a copy asks for ahead.
    let volumes: Vec<VolumeId> = (1..=8).map(|number| VolumeId([number; 16])).collect();
    let content = |volume: &VolumeId| batch(*volume, 0, &vec![vec![volume.as_bytes()[0]; 4_000_000]; 3]).0;
    let giver = Giver {
        volumes: volumes.iter().map(|volume| (volume.to_string(), content(volume))).collect(),
        ..Giver::default()
    };
    assert!(giver.volumes.values().map(Bytes::len).sum::<usize>() > MOST_BYTES + PIECE_BYTES);
    let giver = Arc::new(giver);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/disks/{disk}/volumes/{volume}/bytes", get(give));
    let server = router.with_state(Arc::clone(&giver));
    tokio::spawn(holdfast_libs_transport::serve(listener, tls.server().unwrap(), server, CancellationToken::new()));

    let orders = volumes.iter().zip(disks.iter().cycle()).map(|(volume, disk)| CopyRequest {
        disk: *disk,
        volume: *volume,
        epoch: WriteEpoch(2),
        length: giver.volumes[&volume.to_string()].len() as u64,
        digest: BlockHash::of(&giver.volumes[&volume.to_string()]).to_string(),
        sources: vec![Source { address: address.clone(), disk: *disk }],
        urgent: false,
        instead_of: None,
        term: 1,
    });
    let copies: Vec<_> = orders
        .map(|order| {
            let leader = node.client(Role::VolumeManager);
            tokio::spawn(async move { leader.copy(&order).await })
        })
        .collect();
    eventually("all copies have begun, and no more pieces fit", async || {
        let mut begun = 0;
        for disk in &disks {
            let extents = leader.extents(*disk).await.unwrap();
            begun += extents.iter().filter(|extent| extent.state == ExtentState::Copying).count();
        }
        (begun == volumes.len() && giver.asked.lock().unwrap().0 > MOST_BYTES - PIECE_BYTES).then_some(())
    })
    .await;
    giver.may_give.cancel();
    for copy in copies {
        copy.await.unwrap().unwrap();
    }
    let (left, most) = *giver.asked.lock().unwrap();
    assert!(left == 0 && most <= MOST_BYTES, "{left} bytes are still asked for, {most} were at once");
    node.stop().await;
}

/// Gives pieces of one volume as it is told `how` to.
async fn give_otherwise(
    State(volume): State<Bytes>,
    Path((how, _, _)): Path<(String, String, String)>,
    Query(piece): Query<Piece>,
) -> Body {
    let right = volume.slice(piece.offset..piece.offset + piece.length);
    let half = || stream::iter([Ok(right.slice(..right.len() / 2))]);
    match how.as_str() {
        "less" => Body::from(right.slice(1..)),
        "more" => Body::from_stream(stream::iter([right, Bytes::from_static(&[0])].map(std::io::Result::Ok))),
        "endless" => Body::from_stream(stream::repeat_with(|| std::io::Result::Ok(Bytes::from(vec![0; 1 << 20])))),
        "broken" => Body::from_stream(half().chain(stream::iter([Err(std::io::Error::other("broken"))]))),
        "stuck" => Body::from_stream(half().chain(stream::pending::<std::io::Result<Bytes>>())),
        _ => Body::from(right),
    }
}

/// Bytes of pieces in a node's memory, as its metrics say.
async fn bytes_of_pieces(node: &TestNode) -> u64 {
    let url = format!("{}/metrics", node.address);
    let client = http(&node.tls, Some(Role::Admin));
    let text = client.get(&url, 1 << 20, std::time::Duration::from_secs(10)).await.unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    text.lines().find_map(|line| line.strip_prefix("holdfast_node_copy_bytes ")?.parse().ok()).unwrap()
}

async fn gives_all_room_back(node: &TestNode) {
    eventually("no piece is in memory", async || (bytes_of_pieces(node).await == 0).then_some(())).await;
}

async fn refused(leader: &NodeClient, order: &CopyRequest) -> (String, String) {
    match leader.copy(order).await {
        Err(CallError::Api(error)) => (error.code, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_source_that_gives_other_pieces_than_asked_for_is_left_and_what_they_occupied_is_free_again() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 1, &volume_manager.address)).await;
    let (leader, disk) = (node.client(Role::VolumeManager), node.disk().await);
    let volume = batch(VolumeId([1; 16]), 0, &[vec![1; 4_000_000], vec![2; 2_000_000]]).0;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let route = "/{how}/v1/disks/{disk}/volumes/{volume}/bytes";
    let server = Router::new().route(route, get(give_otherwise)).with_state(volume.clone());
    tokio::spawn(holdfast_libs_transport::serve(listener, tls.server().unwrap(), server, CancellationToken::new()));
    let source = |how: &str| Source { address: format!("{address}/{how}"), disk };
    let order = |sources: Vec<Source>| CopyRequest {
        disk,
        volume: VolumeId([1; 16]),
        epoch: WriteEpoch(2),
        length: volume.len() as u64,
        digest: BlockHash::of(&volume).to_string(),
        sources,
        urgent: false,
        instead_of: None,
        term: 1,
    };

    let bad = [
        ("less", " bytes instead of "),
        ("more", "more bytes instead of "),
        ("endless", "length limit"),
        ("broken", ""),
    ];
    for (how, why) in bad {
        let (code, message) = refused(&leader, &order(vec![source(how)])).await;
        assert!(code == code::DAMAGED && message.contains(why), "{how}: {code}: {message}");
        gives_all_room_back(&node).await;
    }

    let stuck = tokio::spawn({
        let (leader, order) = (leader.clone(), order(vec![source("stuck")]));
        async move { refused(&leader, &order).await }
    });
    eventually("pieces are on their way", async || (bytes_of_pieces(&node).await > 0).then_some(())).await;
    let cancel = CancelCopy { disk, volume: VolumeId([1; 16]), under_way: true, term: 1 };
    leader.cancel_copy(&cancel).await.unwrap();
    assert_eq!(stuck.await.unwrap().0, code::CANCELLED);
    gives_all_room_back(&node).await;

    let sources = bad.iter().map(|(how, _)| source(how)).chain([source("right")]).collect();
    leader.copy(&order(sources)).await.unwrap();
    let copied = node.client(Role::Node).read_bytes(disk, VolumeId([1; 16]), 0, 4096).await.unwrap();
    assert_eq!(copied, volume.slice(..4096));
    gives_all_room_back(&node).await;
    node.stop().await;
}
