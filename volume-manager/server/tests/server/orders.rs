//! An operator's orders: each tried where it is not safe, and refused with the numbers; and what they do where it is.

use crate::support::node::Extent;
use crate::support::{APPLY, Call, Cell, FRONTEND, FakeNode, eventually, timing};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{DiskId, NodeId};
use holdfast_node_client::{ExtentState, code};
use holdfast_volume_manager_client::{CellStatus, LeaseRequest, Order, OrderPlan, RepairOrder};
use holdfast_volume_manager_server::Timing;

async fn status(cell: &Cell) -> CellStatus {
    cell.admin().status().await.unwrap()
}

/// The refusal's message, and one of its numbers.
fn refusal(result: Result<OrderPlan, CallError>, number: &str) -> (String, u64) {
    match result.unwrap_err() {
        CallError::Api(error) => {
            assert_eq!(error.code, "unsafe", "{error:?}");
            (error.message.clone(), error.detail["numbers"][number].as_u64().unwrap_or(u64::MAX))
        }
        other => panic!("no answer of the protocol: {other}"),
    }
}

fn gone(cell: &Cell, disk: DiskId) {
    cell.node_of(disk).report(disk, |report| report.state = "gone".to_owned());
}

/// These disks have no more free slots than the reserve, which is 5 of their 100, and the volume manager knows it.
async fn fill(cell: &Cell, disks: &[DiskId]) {
    disks.iter().for_each(|disk| cell.node_of(*disk).report(*disk, |report| report.free_slots = 5));
    eventually("they are known to be full", async || {
        let known = status(cell).await.disks;
        let full = |disk: &DiskId| known.iter().any(|row| row.disk == *disk && row.free_slots == 5);
        disks.iter().all(full).then_some(())
    })
    .await;
}

/// Four sealed volumes, all with a replica on `full`, and none on the other node of its zone.
async fn hold_on(cell: &Cell, full: &FakeNode, empty: &FakeNode) {
    assert_eq!(full.zone, empty.zone);
    let admin = cell.admin();
    assert!(admin.order_node(&empty.name, "cordon", &APPLY).await.unwrap().applied);
    cell.sealed_volumes(4).await;
    assert!(admin.order_node(&empty.name, "uncordon", &APPLY).await.unwrap().applied);
}

async fn disk_is(cell: &Cell, disk: DiskId, state: &str) {
    eventually(state, async || {
        let status = status(cell).await;
        status.disks.iter().any(|row| row.disk == disk && row.state == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_is_refused_when_the_other_disks_have_too_few_slots_above_the_reserve() {
    let cell = Cell::start_pairs(timing(), 3, 1).await;
    let volumes = cell.sealed_volumes(8).await;
    let disk = volumes[0].replicas[0];
    let held = volumes.iter().filter(|volume| volume.replicas.contains(&disk)).count() as u64;
    let zone = cell.zone_of(disk).to_owned();
    let twin = cell.nodes.iter().find(|node| node.zone == zone && !node.disks().contains(&disk)).unwrap();
    let admin = cell.admin();
    fill(&cell, &twin.disks()).await;
    let (why, without) = refusal(admin.order_disk(disk, "drain", &APPLY).await, "replicas_without_place");
    assert_eq!(without, held, "{why}");
    assert!(why.contains(&format!("{zone} has no disk with a free slot")), "{why}");
    // No other zone has any either.
    fill(&cell, &cell.nodes.iter().flat_map(FakeNode::disks).collect::<Vec<_>>()).await;
    let (why, there) = refusal(admin.order_disk(disk, "drain", &APPLY).await, "slots_there");
    let need = format!("{held} replica");
    assert!(there == 0 && why.contains(&need) && why.contains("0 free slots above the reserve"), "{why}");
    assert!(status(&cell).await.drains.is_empty());
}

#[tokio::test]
async fn where_there_is_no_room_the_disks_out_of_use_and_the_slots_of_the_trash_are_told_with_numbers() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 2).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let admin = cell.admin();
    let disk = |node: usize, at: usize| cell.nodes[node].disks()[at];
    assert!(admin.order_node(&cell.nodes[1].name, "cordon", &APPLY).await.unwrap().applied);
    assert!(admin.order_disk(disk(2, 1), "offline", &APPLY).await.unwrap().applied);
    assert!(admin.order_disk(disk(4, 0), "drain", &APPLY).await.unwrap().applied);
    gone(&cell, disk(4, 1));
    disk_is(&cell, disk(4, 1), "down").await;
    cell.nodes[0].report(disk(0, 0), |report| report.trashed_extents = 3);
    cell.nodes[4].report(disk(4, 0), |report| report.trashed_extents = 2);
    let in_use = [0, 3, 5].into_iter().flat_map(|node| cell.nodes[node].disks()).chain([disk(2, 0)]);
    fill(&cell, &in_use.collect::<Vec<_>>()).await;
    let expected = [
        "the cell is full: ".to_owned(),
        format!("of 12 disks some take nothing new: 1 down ({})", disk(4, 1)),
        format!("1 drained by an operator's order ({})", disk(4, 0)),
        format!("1 offline by an operator's order ({})", disk(2, 1)),
        format!("2 on a cordoned node ({})", cell.nodes[1].name),
        "the trash holds 3 slots on 1 disk until its retention is over".to_owned(),
    ];
    let told = |text: &str| expected.iter().all(|said| text.contains(said));
    eventually("a lease is refused with the reasons", async || {
        let lease = LeaseRequest { frontend: FRONTEND, avoid: Vec::new() };
        let refused = cell.frontend().lease(&lease).await.err()?;
        (refused.code() == Some("cell_full") && told(&refused.to_string())).then_some(())
    })
    .await;
    let now = eventually("the trash of all disks that count is counted", async || {
        Some(status(&cell).await).filter(|now| now.capacity.trash_extents == 5)
    })
    .await;
    assert_eq!(now.capacity.trash_bytes, 5 * now.disks[0].slot_bytes);
    let said = now.reasons;
    assert!(said.iter().any(|said| said.starts_with("no new volume can be made") && told(said)), "{said:?}");
    let full = volume.replicas.iter().find(|disk| !cell.nodes[4].disks().contains(disk)).unwrap();
    let (why, _) = refusal(admin.order_disk(*full, "drain", &APPLY).await, "slots_there");
    assert!(expected[1..].iter().all(|said| why.contains(said)), "{why}");
}

#[tokio::test]
async fn a_drain_is_refused_when_too_few_nodes_or_zones_would_be_left_unless_less_spread_is_accepted() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let volumes = cell.sealed_volumes(4).await;
    let admin = cell.admin();
    let [first, last] = [4, 5].map(|at: usize| cell.nodes[at].name.clone());
    let empty = async |disks: usize| {
        eventually("they are empty", async || {
            let drains = status(&cell).await.drains;
            (drains.len() == disks && drains.iter().all(|row| row.left == 0)).then_some(())
        })
        .await;
    };
    assert!(admin.order_node(&first, "drain", &APPLY).await.unwrap().applied);
    empty(1).await;
    let (why, fewer) = refusal(admin.order_node(&last, "drain", &APPLY).await, "volumes_with_less_spread");
    assert!(why.contains("it takes the last disks of zone-3") && why.contains("would stand over 2"), "{why}");
    assert_eq!(fewer, 4);
    let accepted = Order { less_spread: true, ..APPLY };
    let plan = admin.order_node(&last, "drain", &accepted).await.unwrap();
    assert!(plan.applied && plan.warnings.iter().any(|said| said.contains("zone-3")), "{plan:?}");
    empty(2).await;
    for volume in &volumes {
        assert_eq!(cell.zones(volume.volume).await, 2);
    }
    let now = status(&cell).await;
    assert_eq!(now.crowded, 0, "a zone that leaves is none to wait for");
    // Each of four nodes has 95 slots above the reserve but for those taken since its last report; a volume needs three of them.
    let fit = now.capacity.usable_free_bytes >> 20;
    assert!((95 * 4 / 3 - 8..=95 * 4 / 3).contains(&fit), "{fit} volumes fit over two zones");
    assert!(admin.order_node(&cell.nodes[3].name, "drain", &APPLY).await.unwrap().applied);
    let (why, left) = refusal(admin.order_node(&cell.nodes[1].name, "drain", &accepted).await, "nodes_left");
    assert!(left == 2 && why.contains("volumes have 3 replicas on as many nodes, and 2 nodes would be left"), "{why}");
}

#[tokio::test]
async fn a_drain_that_would_leave_a_zone_to_a_node_that_is_away_names_that_node() {
    let cell = Cell::start_pairs(Timing { suspect_ms: 1000, down_ms: 1100, lost_ms: 1200, ..timing() }, 3, 1).await;
    cell.sealed_volumes(2).await;
    let [drained, away] = [&cell.nodes[4], &cell.nodes[5]];
    away.silence(true);
    disk_is(&cell, away.disks()[0], "lost").await;
    let (why, _) = refusal(cell.admin().order_node(&drained.name, "drain", &APPLY).await, "volumes_with_less_spread");
    assert!(why.contains("the last disks of zone-3") && why.contains("; node node-6 there is down"), "{why}");
}

#[tokio::test]
async fn a_drain_is_refused_when_it_takes_the_places_of_one_that_runs() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let admin = cell.admin();
    let [drained, spare] = [&cell.nodes[4], &cell.nodes[5]];
    hold_on(&cell, drained, spare).await;
    fill(&cell, &cell.nodes[..4].iter().flat_map(FakeNode::disks).collect::<Vec<_>>()).await;
    cell.nodes.iter().for_each(|node| node.hang(Call::Copy));
    assert!(admin.order_node(&drained.name, "drain", &APPLY).await.unwrap().applied);
    let (why, fewer) = refusal(admin.order_node(&spare.name, "drain", &APPLY).await, "volumes_with_less_spread");
    assert_eq!(fewer, 4, "{why}");
    let accepted = Order { less_spread: true, ..APPLY };
    let (why, others) = refusal(admin.order_node(&spare.name, "drain", &accepted).await, "replicas_of_other_drains");
    assert!(others == 4 && why.contains("4 of 4 replicas of other drains would find no place any more"), "{why}");
    cell.nodes.iter().for_each(FakeNode::unhang);
    eventually("the first is empty", async || status(&cell).await.drains.iter().any(|row| row.left == 0).then_some(()))
        .await;
    // It has replicas of its own now, which nothing else competes with.
    let (why, others) = refusal(admin.order_node(&spare.name, "drain", &accepted).await, "replicas_of_other_drains");
    assert!(others == 0 && why.contains("4 replicas must find a place"), "{why}");
}

#[tokio::test]
async fn a_drain_that_has_no_place_whatever_is_done_keeps_no_other_one_from_its() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let admin = cell.admin();
    let [drained, spare] = [&cell.nodes[4], &cell.nodes[5]];
    hold_on(&cell, drained, spare).await;
    cell.nodes.iter().for_each(|node| node.hang(Call::Copy));
    assert!(admin.order_node(&drained.name, "drain", &APPLY).await.unwrap().applied);
    fill(&cell, &spare.disks()).await;
    let plan = admin.order_node(&cell.nodes[0].name, "drain", &APPLY).await.unwrap();
    assert!(plan.applied && plan.numbers["replicas_of_other_drains"] == 4, "{plan:?}");
}

#[tokio::test]
async fn a_drain_that_cannot_go_on_says_what_it_waits_for() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let volumes = cell.sealed_volumes(4).await;
    let disk = volumes[0].replicas[0];
    let zone = cell.zone_of(disk).to_owned();
    let twin = cell.nodes.iter().find(|node| node.zone == zone && !node.disks().contains(&disk)).unwrap();
    cell.nodes.iter().for_each(|node| node.hang(Call::Copy));
    assert!(cell.admin().order_disk(disk, "drain", &APPLY).await.unwrap().applied);
    twin.report(twin.disks()[0], |report| report.free_slots = 3);
    let waits = async |text: &str| {
        let row = status(&cell).await.drains.into_iter().find(|row| row.disk == disk)?;
        row.waits.iter().any(|why| why.contains(text)).then_some(())
    };
    eventually("it waits for a slot", async || waits("no disk with a free slot").await).await;
    gone(&cell, twin.disks()[0]);
    eventually("it waits for a disk", async || waits("no disk in service").await).await;
    let other = volumes[0].replicas[1];
    gone(&cell, other);
    eventually("it waits for the other replica", async || {
        waits(&format!("disk {other} is on a disk that is down")).await
    })
    .await;
    let said = status(&cell).await.reasons;
    assert!(said.iter().any(|said| said.starts_with(&format!("the drain of disk {disk} waits"))), "{said:?}");
}

#[tokio::test]
async fn a_drain_is_refused_when_what_the_only_place_holds_of_a_volume_is_damaged() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let volumes = cell.sealed_volumes(2).await;
    let disk = volumes[0].replicas[0];
    let zone = cell.zone_of(disk).to_owned();
    let twin = cell.nodes.iter().find(|node| node.zone == zone && !node.disks().contains(&disk)).unwrap();
    let plan = cell.admin().order_disk(disk, "drain", &Order::default()).await.unwrap();
    let held = plan.numbers["replicas"];
    assert!((1..=2).contains(&held), "{plan:?}");
    let copy = cell.node_of(disk).find(disk, volumes[0].volume).unwrap();
    // It would go into the trash soon.
    twin.refuse(Call::Trash, twin.disks()[0], code::BUSY);
    twin.place(twin.disks()[0], volumes[0].volume, Extent { state: ExtentState::Damaged, ..copy });
    let refused = eventually("an audit has seen it", async || {
        cell.admin().order_disk(disk, "drain", &Order::default()).await.err()
    })
    .await;
    let why = format!(
        "1 of {} would find no place, those that do counted in: the volume stands over 3 zones and would stand over 2, \
         for no other disk of {zone} can take it",
        if held == 1 { "1 replica" } else { "2 replicas" }
    );
    assert!(refused.to_string().contains(&why), "{refused}");
}

#[tokio::test]
async fn a_drain_waits_when_its_zone_loses_its_other_node_until_less_spread_is_accepted() {
    let cell = Cell::start_pairs(Timing { suspect_ms: 1000, down_ms: 1100, lost_ms: 1200, ..timing() }, 3, 1).await;
    let [drained, twin] = [&cell.nodes[4], &cell.nodes[5]];
    let disk = drained.disks()[0];
    hold_on(&cell, drained, twin).await;
    twin.refuse(Call::Copy, twin.disks()[0], code::BUSY);
    assert!(cell.admin().order_node(&drained.name, "drain", &APPLY).await.unwrap().applied);
    twin.silence(true);
    disk_is(&cell, twin.disks()[0], "lost").await;
    let left = async || status(&cell).await.drains.into_iter().find(|row| row.disk == disk);
    let why = "the volume stands over 3 zones and would stand over 2, for no other disk of zone-3 can take it";
    eventually("it waits, and says why", async || {
        left().await?.waits.iter().any(|said| said.contains(why)).then_some(())
    })
    .await;
    let copied = || cell.nodes[..4].iter().map(FakeNode::copies_made).sum::<usize>();
    assert_eq!((left().await.unwrap().left, copied()), (4, 0));
    let numbers = cell.admin().rebalance().await.unwrap().plan.numbers;
    assert_eq!(numbers["drain_moves"], 0, "a plan tells what waits apart from what moves: {numbers:?}");
    // What becomes of this zone is no concern of a drain elsewhere.
    eventually("another drain is safe", async || {
        cell.admin().order_node(&cell.nodes[0].name, "drain", &Order::default()).await.ok()
    })
    .await;
    let accepted = Order { less_spread: true, ..APPLY };
    assert!(cell.admin().order_node(&drained.name, "drain", &accepted).await.unwrap().applied);
    let again = cell.admin().order_node(&drained.name, "drain", &APPLY).await.unwrap();
    assert!(again.nothing_to_do, "what was accepted holds on: {again:?}");
    assert!(again.plan.iter().any(|said| said.contains("--less-spread was accepted before")), "{again:?}");
    eventually("it goes on", async || (left().await?.left == 0).then_some(())).await;
}

#[tokio::test]
async fn a_drain_and_a_rebalance_that_stand_are_not_told_when_they_are_done() {
    let mut cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let volumes = cell.sealed_volumes(12).await;
    let (admin, disk) = (cell.admin(), volumes[0].replicas[0]);
    assert!(admin.order_disk(disk, "drain", &APPLY).await.unwrap().applied);
    eventually("it is empty", async || status(&cell).await.drains.iter().any(|row| row.left == 0).then_some(())).await;
    assert!(admin.order_disk(disk, "online", &APPLY).await.unwrap().applied);
    let eta = |status: &CellStatus, kind: &str| {
        let work = status.work_summary.iter().find(|work| work.kind == kind).unwrap().clone();
        assert!(work.bytes_s.is_some() && work.running == 0 && work.waiting > 0, "{work:?}");
        work.eta_s
    };
    let pause = RepairOrder { action: Some("pause".to_owned()), by: "ann".to_owned(), ..RepairOrder::default() };
    admin.order_repair(&pause).await.unwrap();
    cell.add_node(7, 1, 1).await;
    let begun = admin.order_rebalance("apply").await.unwrap().under_way.unwrap();
    let standing = eventually("it stands", async || {
        let status = status(&cell).await;
        let waits = &status.rebalance.as_ref()?.waits;
        waits.iter().any(|why| why.contains("an operator has paused repair")).then_some(status)
    })
    .await;
    assert!(begun.eta_s.is_none() && standing.rebalance.as_ref().unwrap().eta_s.is_none(), "{standing:?}");
    assert_eq!(eta(&standing, "rebalance"), None);
    assert!(admin.order_disk(volumes[0].replicas[1], "drain", &APPLY).await.unwrap().applied);
    let standing = status(&cell).await;
    assert!(standing.drains[0].left > 0 && standing.drains[0].eta_s.is_none(), "{standing:?}");
    assert_eq!(eta(&standing, "drain"), None);
}

#[tokio::test]
async fn a_disk_with_a_last_readable_replica_is_not_taken_offline() {
    let cell = Cell::start(timing(), 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let admin = cell.admin();
    let [a, b, c] = [0, 1, 2].map(|at: usize| volume.replicas[at]);
    gone(&cell, a);
    disk_is(&cell, a, "down").await;
    let plan = admin.order_disk(b, "offline", &Order::default()).await.unwrap();
    assert_eq!((plan.numbers["volumes_with_one_readable_replica"], plan.applied), (1, false));
    assert!(plan.warnings.iter().any(|said| said.contains("so writes stop")), "{plan:?}");
    assert!(admin.order_disk(b, "offline", &APPLY).await.unwrap().applied);
    let (why, none) = refusal(admin.order_disk(c, "offline", &APPLY).await, "volumes_without_readable_replica");
    assert!(
        none == 1 && why.contains("1 volume of the 1 with a replica there would have no readable replica"),
        "{why}"
    );
    for bad in [0, u64::MAX] {
        let refused = admin.order_disk(b, "offline", &Order { for_s: Some(bad), ..APPLY }).await.unwrap_err();
        assert_eq!(refused.code(), Some("bad_request"));
    }
}

#[tokio::test]
async fn a_disk_that_is_offline_takes_nothing_new_and_is_not_repaired_until_it_is_online() {
    let mut cell = Cell::start_pairs(timing(), 3, 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let open = cell.written(1).await;
    let disk = volume.replicas[0];
    let plan = cell.admin().order_disk(disk, "offline", &Order { for_s: Some(3600), ..APPLY }).await.unwrap();
    assert!(plan.applied, "{plan:?}");
    if open.replicas.iter().any(|replica| replica.disk == disk) {
        cell.sealed(open.volume).await;
    }
    for _ in 0..6 {
        assert!(cell.lease().await.replicas.iter().all(|replica| replica.disk != disk));
    }
    cell.node_of(disk).report(disk, |report| report.state = "failed".to_owned());
    disk_is(&cell, disk, "down").await;
    // The next leader keeps to it.
    cell.crash_manager();
    cell.start_manager().await;
    disk_is(&cell, disk, "down").await;
    let row = status(&cell).await.disks.into_iter().find(|row| row.disk == disk).unwrap();
    assert!(row.asked == ["offline"] && row.offline_until_ms.is_some(), "{row:?}");
    assert!(row.reason.unwrap().starts_with("offline by an operator's order"));
    let copied = || cell.nodes.iter().map(|node| node.count(Call::Copy, volume.volume)).sum::<usize>();
    assert_eq!(copied(), 0);
    let plan = cell.admin().order_disk(disk, "online", &APPLY).await.unwrap();
    assert!(plan.plan.iter().any(|said| said.contains("its volumes are repaired")), "{plan:?}");
    eventually("it is repaired", async || (!cell.row(volume.volume).await.replicas.contains(&disk)).then_some(()))
        .await;
}

#[tokio::test]
async fn an_offline_disk_is_not_repaired_whatever_its_node_says_of_it_until_its_time_is_over() {
    let cell = Cell::start_pairs(Timing { audit_ms: 200, ..timing() }, 3, 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let disk = volume.replicas[0];
    let node = cell.node_of(disk);
    let admin = cell.admin();
    assert!(admin.order_disk(disk, "offline", &Order { for_s: Some(3600), ..APPLY }).await.unwrap().applied);
    let audited = async || {
        let asked = || cell.nodes.iter().map(|node| node.asked(Call::Extents)).sum::<usize>();
        let before = asked();
        eventually("audits go on", async || (asked() > before + 12).then_some(())).await;
    };
    // As a disk that is pulled: writes fail, then its node cannot write a new incarnation, then it is another disk's copy.
    let pulled = "writing the superblock: Input/output error";
    let reports = [("read_only", 11, 0, "suspect"), ("healthy", 0, 0, "down"), ("healthy", 13, 12, "down")];
    for (state, nonce, previous_nonce, standing) in reports {
        node.report(disk, |report| {
            (report.state, report.reason) = (state.to_owned(), Some(pulled.to_owned()));
            (report.nonce, report.previous_nonce) = (nonce, previous_nonce);
        });
        if state == "healthy" {
            cell.client(Role::Node).register(&node.registration()).await.unwrap();
        }
        disk_is(&cell, disk, standing).await;
        audited().await;
        let row = status(&cell).await.disks.into_iter().find(|row| row.disk == disk).unwrap();
        assert!(row.state == standing && row.reason.unwrap().starts_with("offline by an operator's order"), "{state}");
        assert_eq!(cell.nodes.iter().map(|node| node.asked(Call::Copy)).sum::<usize>(), 0, "{state}");
        assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas, "{state}");
    }
    let repair = admin.repair().await.unwrap();
    let why = format!("disk {disk} of node {}, which is offline by an operator's order", node.name);
    let waits: Vec<(&str, u64)> = repair.waiting.iter().map(|wait| (wait.why.as_str(), wait.volumes)).collect();
    assert!(repair.to_repair.is_empty() && waits == [(why.as_str(), 1)], "{repair:?}");
    assert!(admin.order_disk(disk, "offline", &Order { for_s: Some(1), ..APPLY }).await.unwrap().applied);
    eventually("it is repaired", async || (!cell.row(volume.volume).await.replicas.contains(&disk)).then_some(()))
        .await;
}

#[tokio::test]
async fn what_is_in_use_or_may_come_back_is_not_forgotten() {
    let mut cell = Cell::start_pairs(timing(), 3, 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let admin = cell.admin();
    let disk = volume.replicas[0];
    let (why, held) = refusal(admin.order_disk(disk, "forget", &APPLY).await, "replicas");
    assert!(
        held == 1 && why.contains("1 volume still names it") && why.contains("in service, and would register"),
        "{why}"
    );
    gone(&cell, disk);
    disk_is(&cell, disk, "down").await;
    let (why, _) = refusal(admin.order_disk(disk, "forget", &APPLY).await, "replicas");
    assert!(why.contains("may come back at any moment"), "{why}");
    let (soon, left) = refusal(admin.order_disk(disk, "forget", &APPLY).await, "lost_in_s");
    let when = format!("it counts as lost in {left} s if it stays away: try again then");
    assert!((1..=60).contains(&left) && soon.contains(&when), "{soon}");
    let node = &cell.node_of(disk).name;
    let (why, disks) = refusal(admin.order_node(node, "forget", &APPLY).await, "disks");
    assert!(disks == 1 && why.contains(&format!("node {node} is up")), "{why}");
    // The node has disks of its own to name.
    let path = format!("/dev/{disk}");
    assert!(why.contains(&format!("disk {disk} ({path}): 1 volume still names it")), "{why}");
    assert!(why.contains("; it may come back at any moment"), "{why}");
    assert_eq!(why.matches(&disk.to_string()).count(), 2, "once as what the order is about, once in its path: {why}");
    // From here on silence is noticed soon.
    cell.crash_manager();
    cell.config.timing.suspect_ms = 1000;
    cell.start_manager().await;
    let (admin, silent) = (cell.admin(), cell.node_of(disk));
    let node = &silent.name;
    silent.silence(true);
    eventually("the node is missed", async || {
        status(&cell).await.nodes.iter().any(|row| row.node == *node && row.state == "suspect").then_some(())
    })
    .await;
    let (why, _) = refusal(admin.order_node(node, "forget", &APPLY).await, "disks");
    assert!(why.contains("was heard") && why.contains("and was not drained; it counts as down in "), "{why}");
    let strange = admin.order_node(&NodeId("a/b".to_owned()), "drain", &APPLY).await.unwrap_err();
    assert_eq!(strange.code(), Some("unknown_node"), "{strange}");
    let strange = admin.order_disk(DiskId([9; 16]), "drain", &APPLY).await.unwrap_err();
    assert_eq!(strange.code(), Some("unknown_disk"), "{strange}");
    let strange = admin.order_disk(disk, "burn", &APPLY).await.unwrap_err();
    assert_eq!(strange.code(), Some("bad_request"), "{strange}");
}

#[tokio::test]
async fn a_forgotten_node_that_comes_back_joins_as_a_new_one_also_while_the_cell_holds_no_volume() {
    let timing = Timing { suspect_ms: 1000, down_ms: 1100, lost_ms: 1200, ..timing() };
    let cell = Cell::start_pairs(timing, 3, 1).await;
    let (admin, node) = (cell.admin(), &cell.nodes[5]);
    assert!(admin.order_node(&node.name, "cordon", &APPLY).await.unwrap().applied);
    node.silence(true);
    disk_is(&cell, node.disks()[0], "lost").await;
    let plan = admin.order_node(&node.name, "forget", &APPLY).await.unwrap();
    assert!(plan.applied && plan.plan.iter().any(|said| said.contains("joins as a new one")), "{plan:?}");
    assert_eq!(status(&cell).await.nodes.len(), 5);
    // Its disk shows that it was registered before.
    node.report(node.disks()[0], |report| (report.previous_nonce, report.nonce) = (report.nonce, 77));
    node.silence(false);
    cell.wait_for_nodes().await;
    eventually("that it was forgotten is forgotten", async || {
        cell.catalog().await.table.settings().await.unwrap().is_empty().then_some(())
    })
    .await;
    let status = status(&cell).await;
    assert_eq!((status.catalog_lost, status.nodes.len()), (None, 6), "it was forgotten, and not lost with the catalog");
    assert!(status.nodes.iter().all(|node| node.asked.is_empty()), "what was asked for it before does not hold");
}

#[tokio::test]
async fn a_forgotten_disk_that_is_not_as_it_was_shows_that_the_catalog_is_lost() {
    let timing = Timing { suspect_ms: 1000, down_ms: 1100, lost_ms: 1200, ..timing() };
    // It holds something, or was registered since.
    for (used_slots, last) in [(1, 11), (0, 55)] {
        let cell = Cell::start_pairs(timing.clone(), 3, 1).await;
        let (admin, node) = (cell.admin(), &cell.nodes[5]);
        let disk = node.disks()[0];
        node.silence(true);
        disk_is(&cell, disk, "lost").await;
        assert!(admin.order_node(&node.name, "forget", &APPLY).await.unwrap().applied);
        node.report(disk, |report| {
            (report.previous_nonce, report.nonce) = (last, 77);
            report.free_slots -= used_slots;
        });
        node.silence(false);
        let why = eventually("it is marked", async || admin.status().await.ok()?.catalog_lost).await;
        assert!(why.contains(&disk.to_string()), "{why}");
    }
}

#[tokio::test]
async fn an_order_that_changes_nothing_is_told_as_such() {
    let cell = Cell::start_pairs(timing(), 3, 1).await;
    let (admin, node) = (cell.admin(), &cell.nodes[0]);
    let (name, disk, ask) = (&node.name, node.disks()[0], Order::default());
    let of_node = async |order: &str, ask: &Order| admin.order_node(name, order, ask).await.unwrap();
    let of_disk = async |order: &str, ask: &Order| admin.order_disk(disk, order, ask).await.unwrap();
    for (there, back) in [("cordon", "uncordon"), ("drain", "uncordon")] {
        assert!(of_node(back, &ask).await.nothing_to_do && of_node(back, &APPLY).await.nothing_to_do, "{back}");
        assert!(!of_node(there, &ask).await.nothing_to_do && !of_node(there, &APPLY).await.nothing_to_do, "{there}");
        assert!(of_node(there, &ask).await.nothing_to_do, "{there}");
        assert!(!of_node(back, &APPLY).await.nothing_to_do, "{back}");
    }
    for (there, back) in [("offline", "online"), ("drain", "online")] {
        assert!(of_disk(back, &ask).await.nothing_to_do && of_disk(back, &APPLY).await.nothing_to_do, "{back}");
        assert!(!of_disk(there, &ask).await.nothing_to_do && !of_disk(there, &APPLY).await.nothing_to_do, "{there}");
        assert!(of_disk(there, &ask).await.nothing_to_do, "{there}");
        assert!(!of_disk(back, &APPLY).await.nothing_to_do, "{back}");
    }
    assert!(of_disk("offline", &Order { for_s: Some(60), ..APPLY }).await.applied);
    assert!(!of_disk("offline", &ask).await.nothing_to_do, "it had an end, and would have none");
    let rebalance = admin.rebalance().await.unwrap().plan;
    assert!(rebalance.nothing_to_do && rebalance.moves.is_empty(), "{rebalance:?}");
}

#[tokio::test]
async fn a_cordoned_node_takes_nothing_new_and_keeps_what_it_has() {
    let cell = Cell::start_pairs(timing(), 3, 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let disk = volume.replicas[0];
    let node = cell.node_of(disk).name.clone();
    let admin = cell.admin();
    assert!(admin.order_node(&node, "cordon", &APPLY).await.unwrap().applied);
    for _ in 0..6 {
        assert!(cell.lease().await.replicas.iter().all(|replica| replica.node != node));
    }
    let row = status(&cell).await.nodes.into_iter().find(|row| row.node == node).unwrap();
    assert_eq!(row.asked, ["cordoned"]);
    assert!(cell.row(volume.volume).await.replicas.contains(&disk));
    assert!(admin.order_node(&node, "uncordon", &APPLY).await.unwrap().applied);
    let taken = async || cell.lease().await.replicas.iter().any(|replica| replica.node == node).then_some(());
    eventually("it is used again", taken).await;
}
