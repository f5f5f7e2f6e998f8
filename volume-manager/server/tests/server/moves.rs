//! Replicas move when they must, and what they leave behind goes into the trash, never too early.

use crate::support::node::Extent;
use crate::support::{self, APPLY, Call, Cell, FakeNode, eventually, timing};
use holdfast_libs_types::DiskId;
use holdfast_node_client::ExtentState;
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{CellStatus, DrainRow, Order, RepairOrder};
use holdfast_volume_manager_server::Timing;

fn audited() -> Timing {
    Timing { audit_ms: 200, ..timing() }
}

async fn status(cell: &Cell) -> CellStatus {
    cell.admin().status().await.unwrap()
}

async fn drain_of(cell: &Cell, disk: DiskId) -> Option<DrainRow> {
    status(cell).await.drains.into_iter().find(|row| row.disk == disk)
}

/// No extent is left that no list names, but for those in the trash; every volume is whole in `zones` zones.
async fn tidy(cell: &Cell, volumes: &[Volume], zones: usize) -> Option<()> {
    for volume in volumes {
        let row = cell.row(volume.volume).await;
        assert!(row.replicas.len() == 3 && row.digest == volume.digest, "{row:?}");
        let is_held = |disk: &DiskId| {
            cell.node_of(*disk).find(*disk, volume.volume).is_some_and(|extent| extent.state == ExtentState::Sealed)
        };
        if !row.replicas.iter().all(is_held) {
            // It moved between the two looks, or it is not there.
            assert_ne!(cell.row(volume.volume).await.replicas, row.replicas, "a listed replica is not there");
            return None;
        }
        let all = cell.nodes.iter().flat_map(|node| node.held()).filter(|(_, of, _)| *of == volume.volume);
        let stray = all.filter(|(disk, _, state)| !row.replicas.contains(disk) && *state != ExtentState::Trashed);
        if stray.count() > 0 || cell.zones(volume.volume).await != zones {
            return None;
        }
    }
    Some(())
}

async fn drained(cell: &Cell, disk: DiskId) {
    eventually("the disk is empty", async || (drain_of(cell, disk).await?.left == 0).then_some(())).await;
}

/// Has every disk hold its share of what is there already.
async fn level(cell: &Cell) {
    cell.admin().order_rebalance("apply").await.unwrap();
    eventually("the disks are level", async || status(cell).await.rebalance.is_none().then_some(())).await;
}

async fn audits_go_on(cell: &Cell) {
    let least = || cell.nodes.iter().map(|node| node.asked(Call::Extents)).min().unwrap();
    let before = least();
    eventually("two more audits", async || (least() >= before + 4).then_some(())).await;
}

fn trashed(cell: &Cell) -> usize {
    cell.nodes.iter().map(|node| node.asked(Call::Trash)).sum()
}

fn copied(cell: &Cell) -> usize {
    cell.nodes.iter().map(|node| node.asked(Call::Copy)).sum()
}

#[tokio::test]
async fn a_drained_disk_gets_empty_its_open_volume_is_sealed_and_it_can_be_forgotten() {
    let cell = Cell::start_pairs(audited(), 3, 2).await;
    let volumes = cell.sealed_volumes(8).await;
    let open = cell.written(1).await;
    let disk = open.replicas[0].disk;
    let held = volumes.iter().filter(|volume| volume.replicas.contains(&disk)).count() as u64;
    let admin = cell.admin();
    let plan = admin.order_disk(disk, "drain", &Order::default()).await.unwrap();
    assert!(!plan.applied && plan.plan.iter().any(|said| said.contains("1 open volume there is sealed")), "{plan:?}");
    assert_eq!((plan.numbers["replicas"], plan.numbers["slots_needed"]), (held + 1, held + 1));
    assert_eq!(plan.moves.iter().map(|group| group.replicas).sum::<u64>(), held + 1);
    let own_zone = cell.zone_of(disk);
    assert!(plan.moves.iter().all(|group| group.zone == own_zone && group.from == disk), "{plan:?}");
    assert_eq!((copied(&cell), cell.row(open.volume).await.state.as_str()), (0, "open"), "a plan moves nothing");

    for node in &cell.nodes {
        node.hang(Call::Copy);
    }
    assert!(admin.order_disk(disk, "drain", &APPLY).await.unwrap().applied);
    let sealed = cell.sealed(open.volume).await;
    eventually("copies are ordered", async || (copied(&cell) > 0).then_some(())).await;
    audits_go_on(&cell).await;
    assert_eq!(trashed(&cell), 0, "no copy was made yet");
    let row = drain_of(&cell, disk).await.unwrap();
    assert!(row.left == held + 1 && row.moving > 0, "{row:?}");
    for node in &cell.nodes {
        node.unhang();
    }
    drained(&cell, disk).await;
    let all: Vec<Volume> = volumes.into_iter().chain([sealed]).collect();
    eventually("all is tidy", async || tidy(&cell, &all, 3).await).await;

    let refused = admin.order_disk(disk, "forget", &APPLY).await.unwrap_err();
    assert!(
        refused.code() == Some("unsafe") && refused.to_string().contains("in service, and would register"),
        "{refused}"
    );
    cell.node_of(disk).report(disk, |report| report.state = "gone".to_owned());
    eventually("it is gone", async || {
        let status = status(&cell).await;
        status.disks.iter().any(|row| row.disk == disk && row.state == "down").then_some(())
    })
    .await;
    assert!(admin.order_disk(disk, "forget", &APPLY).await.unwrap().applied);
    let status = status(&cell).await;
    assert!(status.disks.iter().all(|row| row.disk != disk) && status.drains.is_empty(), "{:?}", status.drains);
    assert!(cell.catalog().await.table.settings().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_new_node_draws_its_share_and_nothing_else_moves() {
    let mut cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(24).await;
    level(&cell).await;
    let copies = copied(&cell);
    let held = |status: &CellStatus, disk: DiskId| status.disks.iter().find(|row| row.disk == disk).unwrap().volumes;
    let before = status(&cell).await;
    cell.add_node(7, 1, 1).await;
    let new = cell.nodes[6].disks()[0];
    let admin = cell.admin();
    let plan = admin.rebalance().await.unwrap();
    let moves = plan.plan.numbers["fill_moves"];
    assert!((7..=9).contains(&moves), "its share of 24 replicas over three disks: {plan:?}");
    let own = |group: &holdfast_volume_manager_client::MoveGroup| {
        group.to == cell.nodes[6].name && cell.zone_of(group.from) == "zone-1" && group.reason == "fill"
    };
    assert!(plan.plan.moves.iter().all(own) && plan.under_way.is_none(), "{plan:?}");
    audits_go_on(&cell).await;
    assert_eq!(copied(&cell), copies, "nothing moves by itself");
    let applied = admin.order_rebalance("apply").await.unwrap();
    assert_eq!(applied.under_way.unwrap().moves, moves);
    eventually("the rebalance is done", async || status(&cell).await.rebalance.is_none().then_some(())).await;
    let after = status(&cell).await;
    assert_eq!(held(&after, new), moves);
    for node in cell.nodes[2..6].iter() {
        let disk = node.disks()[0];
        assert_eq!(held(&after, disk), held(&before, disk), "a disk of another zone");
    }
    assert_eq!((copied(&cell) - copies) as u64, moves);
    eventually("all is tidy", async || tidy(&cell, &volumes, 3).await).await;
    assert_eq!(admin.rebalance().await.unwrap().plan.numbers["fill_moves"], 0);
}

#[tokio::test]
async fn volumes_that_are_being_written_stay_and_are_a_part_of_what_their_disks_hold() {
    let mut cell = Cell::start_pairs(audited(), 3, 1).await;
    // Six on each disk of the zone that gets a third: one that by chance had more than its share then could not come down to it.
    let mut open = Vec::new();
    for other in [1, 0] {
        assert!(cell.admin().order_node(&cell.nodes[other].name, "cordon", &APPLY).await.unwrap().applied);
        for _ in 0..6 {
            open.push(cell.written(1).await);
        }
        assert!(cell.admin().order_node(&cell.nodes[other].name, "uncordon", &APPLY).await.unwrap().applied);
    }
    cell.add_node(7, 1, 1).await;
    let (new, admin) = (cell.nodes[6].disks()[0], cell.admin());
    let plan = admin.order_rebalance("apply").await.unwrap();
    let numbers = &plan.plan.numbers;
    assert!(numbers["fill_moves"] == 0 && numbers["left_over"] > 0 && plan.under_way.is_none(), "{plan:?}");
    assert!(plan.plan.warnings.iter().any(|said| said.starts_with("12 volumes are not sealed yet")), "{plan:?}");

    // The new disk gets some of these, and no more than any other: its share is one of the open ones too.
    let sealed = cell.sealed_volumes(12).await;
    level(&cell).await;
    let (plan, status) = (admin.rebalance().await.unwrap(), status(&cell).await);
    assert_eq!((plan.plan.numbers["unsealed"], plan.disks.iter().map(|row| row.has).sum()), (12, 24 * 3_u64));
    let held = |disk: DiskId| status.disks.iter().find(|row| row.disk == disk).unwrap().volumes;
    for row in &plan.disks {
        assert_eq!(row.has, held(row.disk), "{row:?}");
        assert!((row.has as f64 - row.share).abs() <= 1.0 + 0.03 * row.share, "{row:?}");
    }
    assert!(held(new) >= 6, "{plan:?}");
    eventually("all is tidy", async || tidy(&cell, &sealed, 3).await).await;
    for volume in open {
        let replicas: Vec<DiskId> = volume.replicas.iter().map(|replica| replica.disk).collect();
        let row = cell.row(volume.volume).await;
        assert!(row.state.as_str() == "open" && row.replicas == replicas, "{row:?}");
    }
}

#[tokio::test]
async fn what_a_drain_still_waits_for_is_not_told_as_disks_that_cannot_come_to_their_shares() {
    let cell = Cell::start_pairs(audited(), 3, 2).await;
    cell.sealed_volumes(12).await;
    level(&cell).await;
    let open = cell.written(1).await;
    let (disk, admin) = (open.replicas[0].disk, cell.admin());
    cell.nodes.iter().for_each(|node| node.hang(Call::Seal));
    assert!(admin.order_disk(disk, "drain", &APPLY).await.unwrap().applied);
    eventually("it waits for a seal alone", async || (drain_of(&cell, disk).await?.left == 1).then_some(())).await;
    level(&cell).await;
    let plan = admin.rebalance().await.unwrap().plan;
    assert_eq!((plan.numbers["fill_moves"], plan.numbers["left_over"], plan.numbers["unsealed"]), (0, 0, 1));
    assert!(plan.plan.iter().any(|said| said.starts_with("no disk but those that are drained holds more")), "{plan:?}");
    assert!(!plan.warnings.iter().any(|said| said.contains("find no place")), "{plan:?}");
    cell.nodes.iter().for_each(|node| node.unhang());
    drained(&cell, disk).await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_new_is_left_out_of_the_plan_and_what_it_holds_counts_where_it_is() {
    let cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(24).await;
    level(&cell).await;
    let (admin, disk) = (cell.admin(), volumes[0].replicas[0]);
    assert!(admin.order_disk(disk, "offline", &APPLY).await.unwrap().applied);
    let cordoned = cell.nodes.iter().find(|node| node.zone != cell.zone_of(disk)).unwrap();
    assert!(admin.order_node(&cordoned.name, "cordon", &APPLY).await.unwrap().applied);
    let answer = admin.rebalance().await.unwrap();
    let status = status(&cell).await;
    let held = |disk: DiskId| status.disks.iter().find(|row| row.disk == disk).unwrap().volumes;
    for row in &answer.disks {
        assert_eq!(row.has, held(row.disk), "{row:?}");
    }
    let left_out = |disk: DiskId| answer.disks.iter().find(|row| row.disk == disk).unwrap().left_out.as_deref();
    assert_eq!(left_out(disk), Some("offline by an operator's order"));
    assert_eq!(left_out(cordoned.disks()[0]), Some("on a cordoned node"));
    assert_eq!((answer.disks.len(), answer.plan.numbers["disks_left_out"]), (6, 2));
    let said = format!("2 disks are left out, and the {} replicas there stay", held(disk) + held(cordoned.disks()[0]));
    let said = answer.plan.warnings.iter().find(|warning| warning.starts_with(&said));
    let said = said.unwrap_or_else(|| panic!("{:?}", answer.plan.warnings));
    assert!(said.contains(&format!("1 offline by an operator's order ({disk})")), "{said}");
    assert!(said.contains(&format!("1 on a cordoned node ({})", cordoned.name)), "{said}");
}

#[tokio::test]
async fn a_rebalance_that_is_cancelled_moves_no_more_than_what_was_under_way() {
    let mut cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(18).await;
    level(&cell).await;
    let copies = copied(&cell);
    cell.add_node(7, 1, 1).await;
    cell.nodes[6].hang(Call::Copy);
    let admin = cell.admin();
    admin.order_rebalance("apply").await.unwrap();
    let at_once = holdfast_volume_manager_server::Copies::default().per_disk;
    eventually("copies are under way", async || (copied(&cell) - copies == at_once).then_some(())).await;
    let row = status(&cell).await.rebalance.unwrap();
    assert!(row.moving == at_once as u64 && row.left > row.moving, "{row:?}");
    let cancelled = admin.order_rebalance("cancel").await.unwrap();
    let said = format!("the rebalance of {} moves has ended with {} of them left", row.moves, row.left);
    assert!(cancelled.under_way.is_none() && cancelled.plan.plan[0].starts_with(&said), "{cancelled:?}");
    let again = admin.order_rebalance("cancel").await.unwrap();
    assert_eq!(again.plan.plan, ["no rebalance was under way: nothing changes"]);
    cell.nodes[6].unhang();
    eventually("all is tidy", async || tidy(&cell, &volumes, 3).await).await;
    audits_go_on(&cell).await;
    assert_eq!(copied(&cell) - copies, at_once);
}

#[tokio::test]
async fn a_rebalance_fills_a_disk_that_has_other_bytes_of_all_its_volumes_in_the_trash() {
    // Also where no audit has seen that before the moves are tried.
    for audit_ms in [200, 60_000] {
        let mut cell = Cell::start_pairs(Timing { audit_ms, ..timing() }, 3, 1).await;
        let volumes = cell.sealed_volumes(12).await;
        level(&cell).await;
        cell.add_node(7, 1, 1).await;
        let (new, admin) = (cell.nodes[6].disks()[0], cell.admin());
        eventually("it is audited", async || (cell.nodes[6].asked(Call::Extents) > 0).then_some(())).await;
        for volume in &volumes {
            let source = volume.replicas[0];
            let extent = cell.node_of(source).find(source, volume.volume).unwrap();
            let other = Extent { state: ExtentState::Trashed, digest: Some("00".repeat(32)), ..extent };
            cell.nodes[6].place(new, volume.volume, other);
        }
        let planned = admin.order_rebalance("apply").await.unwrap().plan.numbers["fill_moves"];
        assert!(planned > 0);
        eventually("the rebalance ends", async || status(&cell).await.rebalance.is_none().then_some(())).await;
        let held = cell.nodes[6].held();
        let of = |state| held.iter().filter(|(.., found)| *found == state).count();
        assert_eq!((of(ExtentState::Sealed) as u64, of(ExtentState::Trashed)), (planned, volumes.len()));
        for volume in &volumes {
            assert!(cell.row(volume.volume).await.replicas.len() == 3);
        }
    }
}

#[tokio::test]
async fn a_rebalance_that_cannot_go_on_is_under_way_and_says_why_and_how_much_is_left_from_the_first_moment() {
    let mut cell = Cell::start_pairs(audited(), 3, 1).await;
    cell.sealed_volumes(12).await;
    level(&cell).await;
    cell.add_node(7, 1, 1).await;
    let (new, admin) = (cell.nodes[6].disks()[0], cell.admin());
    cell.nodes[6].refuse(Call::Copy, new, "disk_failed");
    let begun = admin.order_rebalance("apply").await.unwrap().under_way.unwrap();
    assert!(begun.moves > 0 && begun.left == begun.moves && begun.left_bytes == begun.bytes, "{begun:?}");
    let why = format!("the copy to disk {new} failed: ");
    eventually("it says why", async || {
        let row = status(&cell).await.rebalance.unwrap();
        (row.left > 0 && row.waits.iter().any(|said| said.contains(&why))).then_some(())
    })
    .await;
    let asked = cell.nodes[6].copies_to(new);
    audits_go_on(&cell).await;
    let row = status(&cell).await.rebalance.unwrap();
    assert!(row.left > 0 && !row.waits.is_empty(), "it is still under way after {asked} copies: {row:?}");
}

#[tokio::test]
async fn a_drain_goes_on_under_the_next_leader_wherever_the_last_one_died() {
    // At the copy, then between the new list and the trash.
    for call in [Call::Copy, Call::Trash] {
        let mut cell = Cell::start_pairs(audited(), 3, 2).await;
        let volumes = cell.sealed_volumes(6).await;
        let disk = volumes[0].replicas[0];
        cell.nodes.iter().for_each(|node| node.hang(call));
        assert!(cell.admin().order_disk(disk, "drain", &APPLY).await.unwrap().applied);
        let asked = || cell.nodes.iter().map(|node| node.asked(call)).sum::<usize>();
        eventually("it is at the step", async || (asked() > 0).then_some(())).await;
        cell.crash_manager();
        cell.nodes.iter().for_each(|node| node.unhang());
        cell.start_manager().await;
        drained(&cell, disk).await;
        eventually("all is tidy", async || tidy(&cell, &volumes, 3).await).await;
    }
}

#[tokio::test]
async fn volumes_of_two_zones_are_set_apart_once_there_is_a_third_without_anybody_asking() {
    let mut cell = Cell::start_pairs(audited(), 2, 2).await;
    let volumes = cell.sealed_volumes(6).await;
    for volume in &volumes {
        assert_eq!(cell.zones(volume.volume).await, 2, "the best there is");
    }
    let before = status(&cell).await;
    assert_eq!((before.health.as_str(), before.crowded), ("ok", 0), "{:?}", before.reasons);
    // Hung before they join: what they would be given moves at once.
    for number in 5..=6 {
        let node = FakeNode::start_in(&cell.tls, number, 2, 3).await;
        node.hang(Call::Copy);
        node.follow(cell.address());
        cell.nodes.push(node);
    }
    cell.wait_for_nodes().await;
    let marked = eventually("they are marked", async || {
        let status = status(&cell).await;
        (status.crowded > 0 && status.health == "degraded").then_some(status)
    })
    .await;
    assert!(marked.reasons.iter().any(|reason| reason.contains("closer together than the cell allows")));
    assert!(cell.admin().volumes().await.unwrap().iter().any(|row| row.crowded));
    cell.nodes.iter().for_each(|node| node.unhang());
    eventually("all stand in three zones", async || tidy(&cell, &volumes, 3).await).await;
    eventually("all is well", async || {
        let status = status(&cell).await;
        (status.health == "ok" && status.crowded == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_a_zone_is_away_writes_go_on_over_two_and_nothing_moves_until_it_is_back() {
    let cell = Cell::start_pairs(Timing { suspect_ms: 1000, ..audited() }, 3, 2).await;
    let old = cell.sealed_volumes(6).await;
    cell.nodes[4..].iter().for_each(|node| node.silence(true));
    eventually("the zone is missed", async || {
        let status = status(&cell).await;
        (status.nodes.iter().filter(|node| node.state == "suspect").count() == 2).then_some(())
    })
    .await;
    let new = cell.sealed_volumes(3).await;
    for volume in &new {
        assert_eq!(cell.zones(volume.volume).await, 2);
    }
    let marked = status(&cell).await;
    assert!(marked.crowded == 3 && marked.health == "degraded", "{:?}", marked.reasons);
    assert!(
        marked.reasons.iter().any(|reason| reason.contains("2 of 3 zones take new replicas")),
        "{:?}",
        marked.reasons
    );
    audits_of(&cell, 4).await;
    assert_eq!((copied(&cell), trashed(&cell)), (0, 0));
    cell.nodes[4..].iter().for_each(|node| node.silence(false));
    let all: Vec<Volume> = old.into_iter().chain(new).collect();
    eventually("all stand in three zones", async || tidy(&cell, &all, 3).await).await;
    assert_eq!(copied(&cell), 3, "only what was written meanwhile moved");
}

/// Two more audits of the first so many nodes.
async fn audits_of(cell: &Cell, nodes: usize) {
    let least = || cell.nodes[..nodes].iter().map(|node| node.asked(Call::Extents)).min().unwrap();
    let before = least();
    eventually("audits go on", async || (least() >= before + 4).then_some(())).await;
}

/// Drains one of the two disks of a zone and takes it into service again: what it held is in its trash. Answers it and the other
/// one, which holds all of the volumes' replicas of the zone then.
async fn drained_and_back(cell: &Cell, volumes: &[Volume]) -> (DiskId, DiskId) {
    let [emptied, other] = [4, 5].map(|at: usize| cell.nodes[at].disks()[0]);
    // Back and forth, so that the one has all of them in its trash, and the other none.
    for disk in [other, emptied] {
        assert!(cell.admin().order_disk(disk, "drain", &APPLY).await.unwrap().applied);
        drained(cell, disk).await;
        assert!(cell.admin().order_disk(disk, "online", &APPLY).await.unwrap().applied);
    }
    for volume in volumes {
        let in_trash = async || {
            let found = cell.node_of(emptied).find(emptied, volume.volume)?;
            (found.state == ExtentState::Trashed).then_some(())
        };
        eventually("it is in the trash", in_trash).await;
    }
    // A disk that is back in service gets nothing before it was compared with the table.
    audits_go_on(cell).await;
    (emptied, other)
}

fn fail(cell: &Cell, disk: DiskId) {
    cell.node_of(disk).report(disk, |report| report.state = "failed".to_owned());
}

#[tokio::test]
async fn what_a_volume_lacks_comes_out_of_the_trash_and_not_from_a_copy_though_its_disk_is_full() {
    let cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(4).await;
    let (back, lost) = drained_and_back(&cell, &volumes).await;
    let node = cell.node_of(back);
    let copies = cell.nodes.iter().map(FakeNode::copies_made).sum::<usize>();
    node.report(back, |report| report.free_slots = 0);
    eventually("it is known to be full", async || {
        status(&cell).await.disks.iter().any(|row| row.disk == back && row.free_slots == 0).then_some(())
    })
    .await;
    fail(&cell, lost);
    for volume in &volumes {
        eventually("it is whole again", async || {
            let row = cell.row(volume.volume).await;
            (row.replicas.len() == 3 && row.replicas.contains(&back)).then_some(())
        })
        .await;
        assert_eq!(node.find(back, volume.volume).unwrap().state, ExtentState::Sealed);
    }
    assert_eq!(cell.nodes.iter().map(FakeNode::copies_made).sum::<usize>(), copies, "nothing was copied");
}

#[tokio::test]
async fn a_volume_whose_last_replica_is_gone_comes_back_from_a_trash() {
    let cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(1).await;
    let (back, _) = drained_and_back(&cell, &volumes).await;
    // Also where nothing new goes.
    assert!(cell.admin().order_node(&cell.node_of(back).name, "cordon", &APPLY).await.unwrap().applied);
    let listed = cell.row(volumes[0].volume).await.replicas;
    let order =
        |action: &str| RepairOrder { action: Some(action.to_owned()), by: "ann".to_owned(), ..RepairOrder::default() };
    cell.admin().order_repair(&order("pause")).await.unwrap();
    listed.iter().for_each(|disk| fail(&cell, *disk));
    let unreadable = async || cell.admin().repair().await.unwrap().to_repair.contains_key("unreadable").then_some(());
    eventually("all are failed", unreadable).await;
    cell.admin().order_repair(&order("resume")).await.unwrap();
    eventually("it is whole again", async || {
        let row = cell.row(volumes[0].volume).await;
        let new = row.replicas.iter().all(|disk| !listed.contains(disk));
        (row.replicas.len() == 3 && row.replicas.contains(&back) && new).then_some(())
    })
    .await;
    assert_eq!(cell.row(volumes[0].volume).await.digest, volumes[0].digest);
}

#[tokio::test]
async fn what_the_trash_has_of_a_volume_and_is_not_what_was_sealed_stays_there() {
    let cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(2).await;
    let (back, lost) = drained_and_back(&cell, &volumes).await;
    let node = cell.node_of(back);
    // The bytes of the one have rotted, of the other the disk has something else altogether.
    node.extent(back, volumes[0].volume, |extent| extent.content = 9);
    node.extent(back, volumes[1].volume, |extent| extent.digest = Some("00".repeat(32)));
    audits_go_on(&cell).await;
    fail(&cell, lost);
    for volume in &volumes {
        eventually("it is copied", async || {
            let row = cell.row(volume.volume).await;
            (row.replicas.len() == 3 && !row.replicas.contains(&lost)).then_some(())
        })
        .await;
        let held = node.held();
        let trash = held.iter().filter(|(_, id, state)| (*id, *state) == (volume.volume, ExtentState::Trashed));
        assert_eq!(trash.count(), 1);
        if let Some(extent) = node.find(back, volume.volume).filter(|extent| extent.state == ExtentState::Sealed) {
            assert_eq!(extent.digest, volume.digest.map(hex::encode), "a copy, beside what is in the trash");
        }
    }
}

#[tokio::test]
async fn an_extent_that_no_list_names_stays_until_every_replica_of_the_list_is_verified_in_service() {
    let cell = Cell::start_pairs(Timing { suspect_ms: 1000, ..audited() }, 3, 1).await;
    let volume = cell.sealed_volumes(1).await.remove(0);
    let listed = volume.replicas[0];
    let away = cell.node_of(listed);
    let spare = cell.nodes.iter().find(|node| node.disks().iter().all(|disk| !volume.replicas.contains(disk))).unwrap();
    let disk = spare.disks()[0];
    let copy = cell.node_of(volume.replicas[1]).find(volume.replicas[1], volume.volume).unwrap();
    let state = || spare.find(disk, volume.volume).unwrap().state;
    let before = |count: usize| (spare.asked(Call::Extents) >= count + 2).then_some(());

    // One of the three is suspect.
    away.silence(true);
    eventually("it is suspect", async || {
        let status = status(&cell).await;
        status.disks.iter().any(|row| row.disk == listed && row.state == "suspect").then_some(())
    })
    .await;
    spare.place(disk, volume.volume, Extent { state: ExtentState::Sealed, ..copy });
    let asked = spare.asked(Call::Extents);
    eventually("audits go on", async || before(asked)).await;
    assert_eq!(state(), ExtentState::Sealed, "a suspect disk's replica counts for nothing");

    // One of the three is back and does not say what it should; no audit of it has told so.
    away.hang(Call::Extents);
    away.extent(listed, volume.volume, |extent| extent.digest = Some("00".repeat(32)));
    away.silence(false);
    eventually("it was asked", async || (away.count(Call::Holds, volume.volume) > 0).then_some(())).await;
    let asked = spare.asked(Call::Extents);
    eventually("audits go on", async || before(asked)).await;
    assert_eq!(state(), ExtentState::Sealed, "the table alone counts for nothing");

    away.extent(listed, volume.volume, |extent| extent.digest = volume.digest.map(hex::encode));
    away.unhang();
    eventually("it is in the trash", async || (state() == ExtentState::Trashed).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
}

#[tokio::test]
async fn a_node_that_returns_after_its_repair_has_its_replicas_back_without_a_copy() {
    let cell = Cell::start_pairs(audited(), 3, 1).await;
    let volumes = cell.sealed_volumes(4).await;
    let zone = &cell.nodes[4..];
    for node in zone {
        node.disks().iter().for_each(|disk| node.report(*disk, |report| report.state = "failed".to_owned()));
    }
    for volume in &volumes {
        eventually("it is repaired in two zones", async || {
            let row = cell.row(volume.volume).await;
            let here = row.replicas.iter().all(|disk| cell.zone_of(*disk) != "zone-3");
            (here && row.replicas.len() == 3).then_some(())
        })
        .await;
    }
    // The other one stays away, so that its volumes can only be copied here.
    let back = zone.iter().max_by_key(|node| node.held().len()).unwrap();
    let (disk, held, before) = (back.disks()[0], back.held(), back.copies_made());
    assert!(!held.is_empty());
    back.report(disk, |report| report.state = "healthy".to_owned());
    for volume in &volumes {
        eventually("it stands in three zones", async || {
            cell.row(volume.volume).await.replicas.contains(&disk).then_some(())
        })
        .await;
    }
    assert_eq!(back.copies_made() - before, volumes.len() - held.len(), "what it holds was verified instead");
}

#[tokio::test]
async fn a_volume_that_could_not_be_made_gives_its_slots_back() {
    let cell = Cell::start(audited(), 1).await;
    let bad = cell.nodes[2].disks()[0];
    cell.nodes[2].refuse(Call::Create, bad, "disk_failed");
    let ask = holdfast_volume_manager_client::LeaseRequest { frontend: support::FRONTEND, avoid: Vec::new() };
    cell.frontend().lease(&ask).await.unwrap_err();
    let left: usize = cell.nodes.iter().map(|node| node.held().len()).sum();
    assert!(left > 0);
    eventually("all is in the trash", async || {
        let all = cell.nodes.iter().flat_map(|node| node.held()).collect::<Vec<_>>();
        all.iter().all(|(.., state)| *state == ExtentState::Trashed).then_some(())
    })
    .await;
    // And an extent that the catalog knows nothing of is told of, and stays.
    let stranger = holdfast_libs_types::VolumeId([7; 16]);
    let disk = cell.nodes[0].disks()[0];
    let extent = Extent {
        tail: 0,
        epoch: holdfast_libs_types::WriteEpoch(1),
        state: ExtentState::Open,
        content: 1,
        digest: None,
    };
    cell.nodes[0].place(disk, stranger, extent);
    eventually("it is told of", async || {
        let said = status(&cell).await.reasons;
        said.iter().any(|said| said.contains("the catalog does not know (1)")).then_some(())
    })
    .await;
    assert_eq!(cell.nodes[0].find(disk, stranger).unwrap().state, ExtentState::Open);
}
