//! Copies to the disks of a node, many at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::support::{TestNode, VolumeManager, batch, certificates, config, eventually, folder};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use bytes::Bytes;
use holdfast_libs_transport::Role;
use holdfast_libs_types::{BlockHash, DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{CopyRequest, ExtentState, Source};
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
