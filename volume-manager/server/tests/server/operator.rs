//! What the operator asks of repair holds, also for the next leader.

use crate::support::{Cell, code_of, eventually, timing};
use holdfast_libs_transport::Role;
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{Background, Heartbeat, RepairOrder};

async fn sealed(cell: &Cell) -> Volume {
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    cell.sealed(leased.volume).await
}

fn order(action: &str) -> RepairOrder {
    RepairOrder { action: Some(action.to_owned()), by: "ann".to_owned(), ..RepairOrder::default() }
}

#[tokio::test]
async fn a_pause_outlives_the_leader_says_what_stays_at_risk_and_ends_with_resume() {
    let mut cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let pause = RepairOrder { reason: Some("racks are moved".to_owned()), ..order("pause") };
    cell.admin().order_repair(&pause).await.unwrap();
    cell.crash_manager();
    cell.start_manager().await;
    cell.settled().await;
    let lost = volume.replicas[0];
    cell.node_of(lost).report(lost, |report| report.state = "failed".to_owned());
    let repair = eventually("it is told", async || {
        let repair = cell.admin().repair().await.unwrap();
        repair.to_repair.contains_key("1").then_some(repair)
    })
    .await;
    let paused = repair.paused.unwrap();
    assert_eq!((paused.by.as_str(), paused.reason.as_deref()), ("ann", Some("racks are moved")));
    let left = repair.to_repair["1"];
    assert_eq!((left.volumes, left.bytes, repair.bytes_left), (1, volume.length.unwrap(), volume.length.unwrap()));
    assert_eq!(repair.waiting[0].why, "repair is paused");
    assert!(repair.warnings[0].starts_with("1 volume with two replicas left"), "{:?}", repair.warnings);
    let status = cell.admin().status().await.unwrap();
    let said = status.reasons.iter().find(|reason| reason.starts_with("repair is paused by")).unwrap();
    let since = holdfast_libs_types::told::moment(paused.since_ms);
    assert!(said.starts_with(&format!("repair is paused by ann since {since}, ")), "{said}");
    assert!(paused.since_ms > 1_700_000_000_000, "{paused:?}");
    let copies = || cell.nodes.iter().flat_map(|node| node.disks().into_iter().map(|disk| node.copies_to(disk))).sum();
    let before: usize = copies();
    assert_eq!(before, 0);
    let resumed = cell.admin().order_repair(&order("resume")).await.unwrap();
    assert_eq!(resumed.paused, None);
    eventually("it is repaired", async || (!cell.row(volume.volume).await.replicas.contains(&lost)).then_some(()))
        .await;
    assert!(cell.admin().repair().await.unwrap().to_repair.is_empty());
}

#[tokio::test]
async fn the_impact_on_clients_that_was_asked_for_goes_to_the_nodes_and_outlives_the_leader() {
    let mut cell = Cell::start(timing(), 1).await;
    let set = |impact: &str| RepairOrder { max_client_impact: Some(impact.to_owned()), ..RepairOrder::default() };
    let told = async |cell: &Cell| {
        let of = cell.nodes[0].registration();
        let heartbeat = Heartbeat { node: of.node, instance: of.instance, disks: of.disks, unusable: of.unusable };
        cell.client(Role::Node).heartbeat(&heartbeat).await.unwrap().background
    };
    let background = |percent| Some(Background { max_client_impact: percent, copies: false });
    assert_eq!(told(&cell).await, background(Some(50)), "as configured");
    for (impact, percent) in [("0", Some(0)), ("unlimited", None), ("120", Some(120))] {
        assert_eq!(cell.admin().order_repair(&set(impact)).await.unwrap().max_client_impact, percent);
        assert_eq!(told(&cell).await, background(percent));
    }
    cell.crash_manager();
    cell.start_manager().await;
    assert_eq!(told(&cell).await, background(Some(120)));
    for wrong in ["fast", "-1", "2000000", "1.5", ""] {
        assert_eq!(code_of(cell.admin().order_repair(&set(wrong)).await), "bad_request", "{wrong}");
    }
    assert_eq!(code_of(cell.admin().order_repair(&order("stop")).await), "bad_request");
    assert_eq!(cell.admin().order_repair(&set("configured")).await.unwrap().max_client_impact, Some(50));
}
