//! Who may join the cell, who may call what, and how volumes are leased.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Call, Cell, FRONTEND, code_of, eventually, rows, timing};
use holdfast_libs_transport::{CallError, HttpClient, Role, ServiceTokens};
use holdfast_libs_types::{CellId, DiskId, InstanceId, VolumeId, WriteEpoch};
use holdfast_node_client::{ExtentState, code as node_code};
use holdfast_volume_manager_catalog::{Fence, FenceReason, InsertError, VolumeState};
use holdfast_volume_manager_client::{LeaseRequest, Register, RenewRequest, code};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_lease_makes_three_extents_in_three_zones_then_the_fence_then_opens() {
    let cell = Cell::start(timing(), 2).await;
    let leased = cell.lease().await;
    let zones: BTreeSet<_> = leased.replicas.iter().map(|replica| replica.zone.clone()).collect();
    assert_eq!((leased.replicas.len(), zones.len()), (3, 3));
    for replica in &leased.replicas {
        let extent = cell.node_of(replica.disk).find(replica.disk, leased.volume).unwrap();
        assert_eq!((extent.state, extent.epoch, extent.tail), (ExtentState::Open, leased.epoch, 0));
    }
    let fence = Fence { epoch: leased.epoch, closed: false, highest_end: 0 };
    assert_eq!(cell.index().await.fence(leased.volume).await.unwrap(), Some(fence));
    let row = cell.row(leased.volume).await;
    assert_eq!((row.state, row.holder), (VolumeState::Open, Some(FRONTEND)));
    let disks: Vec<DiskId> = leased.replicas.iter().map(|replica| replica.disk).collect();
    assert_eq!(row.replicas, disks);
}

#[tokio::test]
async fn a_disk_that_makes_no_extent_is_left_out_and_the_first_try_can_never_be_written() {
    let cell = Cell::start(timing(), 2).await;
    let sick = cell.nodes[0].disks()[0];
    cell.nodes[0].refuse(Call::Create, sick, node_code::DISK_FAILED);
    // Whether a volume is to have a replica there is chance.
    let failed = loop {
        let leased = cell.lease().await;
        assert!(leased.replicas.iter().all(|replica| replica.disk != sick));
        let volumes = cell.admin().volumes().await.unwrap();
        if let Some(failed) = volumes.into_iter().find(|row| row.state == "failed") {
            break failed;
        }
    };
    let error = cell.index().await.insert(&rows(failed.volume, 1)).await.unwrap_err();
    assert!(matches!(error, InsertError::Fenced(fenced) if fenced.reason == FenceReason::Closed));
}

#[tokio::test]
async fn a_full_cell_is_told_with_words() {
    let cell = Cell::start(timing(), 1).await;
    for node in &cell.nodes {
        node.report(node.disks()[0], |report| report.free_slots = 0);
    }
    let refused = eventually("the cell is full", async || {
        let request = LeaseRequest { frontend: FRONTEND, avoid: Vec::new() };
        match cell.frontend().lease(&request).await {
            // The three nodes tell it by heartbeats of their own, in any order.
            Err(CallError::Api(error)) if error.message.contains("zone-1") => Some(error),
            _ => None,
        }
    })
    .await;
    assert_eq!((refused.status.as_u16(), refused.code.as_str()), (507, code::CELL_FULL));
    assert!(refused.message.contains("the cell is full"), "{}", refused.message);
}

#[tokio::test]
async fn another_cells_node_and_a_second_node_of_one_name_are_refused() {
    let cell = Cell::start(timing(), 1).await;
    let client = cell.client(Role::Node);
    let known = cell.nodes[0].registration();
    let foreign = Register { cell: CellId([9; 16]), ..known.clone() };
    assert_eq!(code_of(client.register(&foreign).await), code::WRONG_CELL);
    let twin = Register { instance: InstanceId([99; 16]), address: "https://127.0.0.1:1".to_owned(), ..known.clone() };
    assert_eq!(code_of(client.register(&twin).await), code::DUPLICATE_NODE);
    // The same place with another instance is that node, started again.
    let restarted = Register { instance: InstanceId([98; 16]), ..known };
    assert!(client.register(&restarted).await.unwrap().disks[0].accepted);
}

#[tokio::test]
async fn every_call_is_open_to_its_roles_only() {
    let cell = Cell::start(timing(), 1).await;
    let volume = format!("/v1/volumes/{}", cell.lease().await.volume);
    let nothing = Some(json!({}));
    let table: Vec<(&str, Option<Value>, &[Role])> = vec![
        ("/v1/register", nothing.clone(), &[Role::Node]),
        ("/v1/heartbeat", nothing.clone(), &[Role::Node]),
        ("/v1/leases", nothing.clone(), &[Role::Frontend]),
        ("/v1/leases/renew", nothing.clone(), &[Role::Frontend]),
        ("/v1/seal", nothing, &[Role::Frontend]),
        (&volume, None, &[Role::Frontend, Role::Admin]),
        ("/v1/volumes", None, &[Role::Admin]),
        ("/v1/status", None, &[Role::Admin]),
    ];
    let call = async |http: &HttpClient, path: &str, body: &Option<Value>| -> u16 {
        let url = format!("{}{path}", cell.address());
        let answer: Result<Value, CallError> = match body {
            Some(body) => http.post_json(&url, body, DEADLINE).await,
            None => http.get_json(&url, DEADLINE).await,
        };
        match answer {
            Ok(_) => 200,
            Err(CallError::Api(error)) => error.status.as_u16(),
            Err(other) => panic!("{path}: {other}"),
        }
    };
    let tls = cell.tls.client().unwrap();
    let nobody = HttpClient::new(&tls, None);
    for (path, body, roles) in table {
        assert_eq!(call(&nobody, path, &body).await, 401, "{path} without a token");
        for role in Role::ALL {
            let foreign = HttpClient::new(&tls, Some(&ServiceTokens::new(&[8; 32]).token(role)));
            assert_eq!(call(&foreign, path, &body).await, 401, "{path} with a foreign cell's {}", role.name());
            let refused = [401, 403].contains(&call(&cell.http(role), path, &body).await);
            assert_eq!(refused, !roles.contains(&role), "{path} as {}", role.name());
        }
    }
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_sealed_and_one_that_is_renewed_is_not() {
    let mut times = timing();
    times.lease_ms = 1500;
    let cell = Cell::start(times, 1).await;
    let (left, kept) = (cell.written(2).await.volume, cell.written(1).await.volume);
    let renew = RenewRequest { frontend: FRONTEND, volumes: vec![kept] };
    let row = eventually("the lease ran out", async || {
        assert_eq!(cell.frontend().renew(&renew).await.unwrap()["kept"], json!([kept]));
        let row = cell.row(left).await;
        (row.state == VolumeState::Sealed).then_some(row)
    })
    .await;
    assert_eq!((row.length, row.epoch), (Some(8192), WriteEpoch(2)));
    assert_eq!(cell.row(kept).await.state, VolumeState::Open);
    let stranger = RenewRequest { frontend: InstanceId([1; 16]), volumes: vec![kept, VolumeId([1; 16])] };
    assert_eq!(cell.frontend().renew(&stranger).await.unwrap()["kept"], json!([]));
}
