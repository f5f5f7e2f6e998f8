//! Sealed volumes get back what they lost, and the table says only what was verified.

use crate::support::node::Extent;
use crate::support::{APPLY, Call, Cell, FakeNode, eventually, timing};
use holdfast_libs_types::{DiskId, InstanceId};
use holdfast_node_client::{ExtentState, code};
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{DurabilityAnswer, DurabilityAsk};
use holdfast_volume_manager_server::Timing;

/// A sealed volume with three replicas, in a cell of three zones.
async fn sealed(cell: &Cell) -> Volume {
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    let row = cell.sealed(leased.volume).await;
    assert_eq!(row.replicas.len(), 3);
    row
}

/// Sealed volumes with a replica on `disk`. Where a volume goes is chance: as many as it takes.
async fn sealed_on(cell: &Cell, disk: DiskId, count: usize) -> Vec<Volume> {
    let mut hit = Vec::new();
    while hit.len() < count {
        hit.extend(Some(sealed(cell).await).filter(|volume| volume.replicas.contains(&disk)));
    }
    hit
}

fn fail(cell: &Cell, disk: DiskId) {
    cell.node_of(disk).report(disk, |report| {
        report.state = "failed".to_owned();
        report.reason = Some("I/O error".to_owned());
    });
}

fn others(cell: &Cell, disk: DiskId) -> Vec<DiskId> {
    cell.node_of(disk).disks().into_iter().filter(|other| *other != disk).collect()
}

#[tokio::test]
async fn a_lost_replica_is_made_again_in_its_zone_and_listed_only_once_the_copy_is_answered() {
    let cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let lost = volume.replicas[1];
    let node = cell.node_of(lost);
    node.hang(Call::Copy);
    fail(&cell, lost);
    eventually("a copy is ordered", async || (node.count(Call::Copy, volume.volume) > 0).then_some(())).await;
    let status = cell.admin().status().await.unwrap();
    assert!(status.work.iter().any(|work| work.kind == "repair" && work.volume == volume.volume), "{:?}", status.work);
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
    node.unhang();
    let spare = others(&cell, lost)[0];
    let row = eventually("the list is set", async || {
        let row = cell.row(volume.volume).await;
        (row.replicas != volume.replicas).then_some(row)
    })
    .await;
    let expected: Vec<DiskId> = volume.replicas.iter().copied().filter(|disk| *disk != lost).chain([spare]).collect();
    let sorted = |mut disks: Vec<DiskId>| {
        disks.sort();
        disks
    };
    assert_eq!(sorted(row.replicas), sorted(expected));
    assert_eq!((row.length, row.digest, row.epoch), (volume.length, volume.digest, volume.epoch));
}

#[tokio::test]
async fn the_second_disk_takes_the_copy_that_the_first_refused() {
    let cell = Cell::start(timing(), 3).await;
    let node = &cell.nodes[0];
    let [lost, one, other] = node.disks()[..] else { panic!("a node of three disks") };
    let volume = sealed_on(&cell, lost, 1).await.remove(0);
    // Which spare is asked first depends on the volume.
    node.hang(Call::Copy);
    fail(&cell, lost);
    let first =
        eventually("a copy is ordered", async || [one, other].into_iter().find(|disk| node.copies_to(*disk) > 0)).await;
    node.refuse(Call::Copy, first, "disk_failed");
    node.unhang();
    let row = eventually("repaired", async || {
        let row = cell.row(volume.volume).await;
        (!row.replicas.contains(&lost)).then_some(row)
    })
    .await;
    let second = if first == one { other } else { one };
    assert!(row.replicas.contains(&second) && !row.replicas.contains(&first), "{row:?}");
}

#[tokio::test]
async fn an_audit_drops_a_replica_that_is_not_there_and_it_is_made_again() {
    let mut times = timing();
    times.audit_ms = 200;
    let cell = Cell::start(times, 1).await;
    let volume = sealed(&cell).await;
    let gone = volume.replicas[2];
    let node = cell.node_of(gone);
    node.hang(Call::Copy);
    node.vanish(gone, volume.volume);
    eventually("it is dropped", async || (!cell.row(volume.volume).await.replicas.contains(&gone)).then_some(())).await;
    node.unhang();
    eventually("it is back", async || cell.row(volume.volume).await.replicas.contains(&gone).then_some(())).await;
    assert!(node.find(gone, volume.volume).is_some());
}

#[tokio::test]
async fn an_audit_never_drops_the_last_replica() {
    let mut times = timing();
    times.audit_ms = 200;
    let cell = Cell::start(times, 1).await;
    let volume = sealed(&cell).await;
    for disk in &volume.replicas {
        cell.node_of(*disk).hang(Call::Copy);
        cell.node_of(*disk).vanish(*disk, volume.volume);
    }
    eventually("one is left", async || (cell.row(volume.volume).await.replicas.len() == 1).then_some(())).await;
    let asked = |cell: &Cell| -> usize {
        let all = holdfast_libs_types::VolumeId::default();
        cell.nodes.iter().map(|node| node.count(Call::Extents, all)).min().unwrap()
    };
    let before = asked(&cell);
    eventually("two more audits", async || (asked(&cell) >= before + 2).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas.len(), 1);
}

/// The node of `disk` finds its extent of the volume damaged, and says so from now on.
fn harm(cell: &Cell, disk: DiskId, volume: &Volume) {
    let node = cell.node_of(disk);
    node.extent(disk, volume.volume, |extent| extent.state = ExtentState::Damaged);
    node.report(disk, |report| report.damaged_extents += 1);
}

#[tokio::test]
async fn damage_that_a_heartbeat_tells_of_is_looked_at_at_once_and_repaired_on_another_disk() {
    let cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let bad = volume.replicas[1];
    let node = cell.node_of(bad);
    let listed = || node.count(Call::Extents, holdfast_libs_types::VolumeId::default());
    eventually("the audit after the registration", async || (listed() >= 2).then_some(())).await;
    node.hang(Call::Extents);
    let before = listed();
    harm(&cell, bad, &volume);
    let says = async |text: &str| {
        let status = cell.admin().status().await.unwrap();
        let found = status.reasons.iter().any(|reason| reason.contains(text));
        found.then_some(status)
    };
    let text = format!("disk {bad} (/dev/{bad}) of node {} reports damaged extents (1)", node.name);
    let status = eventually("the status tells", async || says(&text).await).await;
    assert_eq!(status.health, "degraded");
    eventually("its list is asked for", async || (listed() > before).then_some(())).await;
    // However many more are found meanwhile, nothing more is asked.
    for count in 2..8 {
        node.report(bad, |report| report.damaged_extents = count);
        let text = format!("reports damaged extents ({count})");
        eventually("the status tells of more", async || says(&text).await).await;
    }
    assert_eq!(listed(), before + 1, "one audit runs");
    node.unhang();
    let spare = others(&cell, bad)[0];
    let row = eventually("it is repaired", async || {
        let row = cell.row(volume.volume).await;
        (row.replicas.len() == 3 && !row.replicas.contains(&bad)).then_some(row)
    })
    .await;
    assert!(row.replicas.contains(&spare));
    let copies = node.copies_to(bad);
    assert_eq!(copies, 0, "the disk that holds the damaged extent is not asked");
    eventually("all is well", async || (cell.admin().status().await.unwrap().health == "ok").then_some(())).await;
    assert!(listed() <= before + 2, "{} audits", listed() - before);
}

#[tokio::test]
async fn a_damaged_extent_goes_into_the_trash_once_its_volume_is_whole_without_it() {
    let cell = Cell::start(Timing { audit_ms: 100, ..timing() }, 2).await;
    let volume = sealed(&cell).await;
    let bad = volume.replicas[1];
    let node = cell.node_of(bad);
    node.hang(Call::Copy);
    harm(&cell, bad, &volume);
    eventually("a copy is ordered", async || (node.count(Call::Copy, volume.volume) > 0).then_some(())).await;
    let audits = || node.count(Call::Extents, holdfast_libs_types::VolumeId::default());
    let before = audits();
    eventually("audits go on", async || (audits() > before + 3).then_some(())).await;
    assert_eq!(node.count(Call::Trash, volume.volume), 0, "it has two replicas");
    node.unhang();
    let state = || node.find(bad, volume.volume).unwrap().state;
    eventually("it is in the trash", async || (state() == ExtentState::Trashed).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas.len(), 3);
    let before = audits();
    eventually("audits go on", async || (audits() > before + 3).then_some(())).await;
    assert_eq!(node.count(Call::Trash, volume.volume), 1, "ordered once");
}

#[tokio::test]
async fn with_no_other_disk_what_is_no_replica_gives_way_to_a_copy_on_the_same_disk() {
    for state in [ExtentState::Damaged, ExtentState::Fenced, ExtentState::Sealed] {
        let cell = Cell::start(timing(), 1).await;
        let volume = sealed(&cell).await;
        let bad = volume.replicas[0];
        let node = cell.node_of(bad);
        // A damaged one, one that is too short, one with other bytes.
        node.extent(bad, volume.volume, |extent| match state {
            ExtentState::Fenced => (extent.state, extent.tail, extent.digest) = (state, 0, None),
            ExtentState::Sealed => extent.digest = Some("00".repeat(32)),
            _ => extent.state = state,
        });
        node.extent(bad, volume.volume, |extent| extent.content = 9);
        node.report(bad, |report| report.damaged_extents += 1);
        eventually("a copy is there, and the other in the trash", async || {
            let held: Vec<ExtentState> = node.held().into_iter().map(|(.., state)| state).collect();
            (held == [ExtentState::Sealed, ExtentState::Trashed]).then_some(())
        })
        .await;
        assert_eq!(node.copies_made(), 1);
        eventually("it is listed", async || (cell.row(volume.volume).await.replicas.len() == 3).then_some(())).await;
        node.report(bad, |report| report.damaged_extents = 0);
        eventually("all is well", async || (cell.admin().status().await.unwrap().health == "ok").then_some(())).await;
    }
}

#[tokio::test]
async fn a_replica_that_its_disk_did_not_have_yet_when_it_was_listed_stays_on_the_list() {
    let cell = Cell::start(Timing { audit_ms: 100, ..timing() }, 1).await;
    let volume = sealed(&cell).await;
    let disk = volume.replicas[0];
    let node = cell.node_of(disk);
    node.list_without(disk, volume.volume);
    let asked = node.count(Call::Holds, volume.volume);
    eventually("it is asked again", async || (node.count(Call::Holds, volume.volume) > asked + 2).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
    node.vanish(disk, volume.volume);
    eventually("it is copied", async || (node.copies_made() > 0).then_some(())).await;
}

#[tokio::test]
async fn an_unfinished_copy_is_given_up_also_beside_a_replica_that_is_listed() {
    let cell = Cell::start(Timing { audit_ms: 100, ..timing() }, 1).await;
    let volume = sealed(&cell).await;
    let disk = volume.replicas[0];
    let node = cell.node_of(disk);
    let copy = Extent { state: ExtentState::Copying, ..node.find(disk, volume.volume).unwrap() };
    node.place_beside(disk, volume.volume, copy);
    eventually("it is given up", async || (node.held().len() == 1).then_some(())).await;
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
}

#[tokio::test]
async fn a_disk_that_failed_a_copy_is_asked_again_once_its_node_has_registered_anew() {
    let cell = Cell::start(timing(), 1).await;
    let volume = sealed(&cell).await;
    let disk = volume.replicas[0];
    let node = cell.node_of(disk);
    node.refuse(Call::Copy, disk, code::DISK_FAILED);
    node.vanish(disk, volume.volume);
    node.report(disk, |report| report.damaged_extents = 1);
    eventually("its copy failed", async || (node.copies_to(disk) > 0).then_some(())).await;
    node.admit();
    node.restart(InstanceId([77; 16]));
    eventually("it is copied", async || (node.copies_made() > 0).then_some(())).await;
    node.report(disk, |report| report.damaged_extents = 0);
    eventually("all is well", async || (cell.admin().status().await.unwrap().health == "ok").then_some(())).await;
}

#[tokio::test]
async fn what_a_disk_reports_no_more_is_no_damage() {
    let cell = Cell::start(Timing { audit_ms: 60_000, ..timing() }, 1).await;
    let volume = sealed(&cell).await;
    let disk = volume.replicas[0];
    let node = cell.node_of(disk);
    let asked = || node.asked(Call::Extents);
    let says = async || {
        let reasons = cell.admin().status().await.unwrap().reasons;
        reasons.iter().any(|reason| reason.contains("reports damaged extents"))
    };
    node.hang(Call::Extents);
    node.report(disk, |report| report.damaged_extents = 1);
    eventually("it is told", async || says().await.then_some(())).await;
    node.unhang();
    eventually("it was compared", async || (!says().await).then_some(())).await;
    node.hang(Call::Extents);
    let before = asked();
    node.report(disk, |report| report.damaged_extents = 0);
    eventually("it is being compared", async || (asked() > before).then_some(())).await;
    assert!(!says().await, "there is no damage");
    node.unhang();
}

#[tokio::test]
async fn what_may_be_a_replica_gives_way_to_nothing() {
    let cell = Cell::start(timing(), 1).await;
    let volume = sealed(&cell).await;
    let bad = volume.replicas[0];
    let node = cell.node_of(bad);
    // Its node cannot say: the disk has no time.
    node.refuse(Call::Seal, bad, code::BUSY);
    let asked = node.count(Call::Seal, volume.volume);
    harm(&cell, bad, &volume);
    eventually("it is dropped", async || (!cell.row(volume.volume).await.replicas.contains(&bad)).then_some(())).await;
    eventually("it is asked", async || (node.count(Call::Seal, volume.volume) > asked).then_some(())).await;
    let status = eventually("the repair waits", async || {
        let status = cell.admin().status().await.unwrap();
        status.reasons.iter().any(|reason| reason.contains("repair waits")).then_some(status)
    })
    .await;
    assert_eq!((status.health.as_str(), status.volumes.can_lose.get("1")), ("degraded", Some(&1)));
    let held: Vec<ExtentState> = node.held().into_iter().map(|(.., state)| state).collect();
    assert_eq!(held, [ExtentState::Damaged]);
}

#[tokio::test]
async fn volumes_that_wait_for_the_same_are_one_reason() {
    let cell = Cell::start(timing(), 1).await;
    let volumes = [sealed(&cell).await, sealed(&cell).await, sealed(&cell).await, sealed(&cell).await];
    fail(&cell, volumes[0].replicas[0]);
    let told = eventually("all of them wait", async || {
        let status = cell.admin().status().await.unwrap();
        let mut waits: Vec<String> = status.reasons;
        waits.retain(|reason| reason.contains("repair waits"));
        waits.iter().any(|reason| reason.starts_with("4 volumes: repair waits: ")).then_some(waits)
    })
    .await;
    assert!(told.len() == 1 && told[0].ends_with(" and 1 more)"), "{told:?}");
}

#[tokio::test]
async fn what_has_no_place_to_be_repaired_to_is_told_why_and_not_when_it_is_done() {
    let cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let (first, admin) = (volume.replicas[0], cell.admin());
    fail(&cell, first);
    eventually("it is repaired", async || (!cell.row(volume.volume).await.replicas.contains(&first)).then_some(()))
        .await;
    let second = cell.node_of(first).disks().into_iter().find(|disk| *disk != first).unwrap();
    fail(&cell, second);
    let repair = eventually("it stands", async || {
        let repair = admin.repair().await.unwrap();
        repair.waiting.iter().any(|wait| wait.why.contains("no disk in service")).then_some(repair)
    })
    .await;
    assert!(repair.bytes_per_s.is_some() && repair.eta_s.is_none() && repair.bytes_left > 0, "{repair:?}");
    let work = admin.status().await.unwrap().work_summary;
    let work = work.iter().find(|work| work.kind == "repair").unwrap();
    assert!(work.bytes_s.is_some() && work.eta_s.is_none() && work.waiting == 1, "{work:?}");
}

#[tokio::test]
async fn a_disk_that_its_node_suspects_is_shown_as_degraded_and_stays_healthy() {
    let cell = Cell::start(timing(), 1).await;
    let disk = cell.nodes[1].disks()[0];
    cell.nodes[1].report(disk, |report| report.failing = Some("1 % of its reads took 262 ms".to_owned()));
    let status = eventually("the status tells", async || {
        let status = cell.admin().status().await.unwrap();
        (status.health == "degraded").then_some(status)
    })
    .await;
    let why = "suspected to be failing: 1 % of its reads took 262 ms";
    assert!(status.reasons.iter().any(|reason| reason.contains(&disk.to_string()) && reason.contains(why)));
    let row = status.disks.iter().find(|row| row.disk == disk).unwrap();
    assert_eq!((row.state.as_str(), row.reason.as_deref()), ("healthy", Some(why)));
    cell.nodes[1].report(disk, |report| report.failing = None);
    eventually("all is well", async || (cell.admin().status().await.unwrap().health == "ok").then_some(())).await;
}

#[tokio::test]
async fn durability_is_told_from_what_repairs_reached_and_every_input_says_where_it_is_from() {
    let cell = Cell::start(timing(), 2).await;
    let admin = cell.admin();
    let empty = admin.durability(&DurabilityAsk::default()).await.unwrap();
    assert_eq!((empty.stored_bytes, empty.catalog_lost), (Some(0), None));
    let volume = sealed(&cell).await;
    let given = DurabilityAsk { repair_bytes_s: Some(1e6), yearly_failures: Some(0.05), ..Default::default() };
    let answer = admin.durability(&given).await.unwrap();
    let source = |answer: &DurabilityAnswer, name: &str| {
        let input = answer.inputs.iter().find(|input| input.name == name).unwrap().clone();
        (input.value, input.source)
    };
    assert_eq!(source(&answer, "disks"), (6.0, "counted: in service, those being drained left out".to_owned()));
    assert_eq!(source(&answer, "zones").0, 3.0);
    assert_eq!(source(&answer, "repair by each disk"), (1e6, "given".to_owned()));
    assert_eq!(source(&answer, "unreadable bits").1, "assumed");
    let new = admin.durability(&DurabilityAsk::default()).await.unwrap();
    let assumed = "assumed: no repair has run since the volume manager started".to_owned();
    assert_eq!(source(&new, "repair by each disk"), (20e6, assumed));
    assert!(answer.mean_years_to_loss > 0.0 && answer.nines > 0.0, "{answer:?}");
    assert_eq!(answer.stored_bytes, Some(3 * volume.length.unwrap()));
    let worse = DurabilityAsk { yearly_failures: Some(0.5), ..given.clone() };
    assert!(admin.durability(&worse).await.unwrap().mean_years_to_loss < answer.mean_years_to_loss);
    let wrong = DurabilityAsk { yearly_failures: Some(2.0), ..given };
    assert_eq!(admin.durability(&wrong).await.unwrap_err().code(), Some("bad_request"));
    let spare = cell.nodes[0].disks().into_iter().find(|disk| !volume.replicas.contains(disk)).unwrap();
    assert!(admin.order_disk(spare, "drain", &APPLY).await.unwrap().applied);
    let drained = admin.durability(&DurabilityAsk::default()).await.unwrap();
    assert_eq!(source(&drained, "disks").0, 5.0, "a disk that is drained holds nothing in the end");
    assert!(admin.order_disk(spare, "online", &APPLY).await.unwrap().applied);
    fail(&cell, volume.replicas[0]);
    eventually("a copy was measured", async || {
        let answer = admin.durability(&DurabilityAsk::default()).await.ok()?;
        let (value, source) = source(&answer, "repair by each disk");
        (value > 0.0 && source.starts_with("measured")).then_some(())
    })
    .await;
    cell.nodes[0].disks().iter().for_each(|disk| fail(&cell, *disk));
    let refused =
        eventually("a zone has no disk in service", async || admin.durability(&DurabilityAsk::default()).await.err())
            .await;
    assert_eq!(refused.code(), Some("too_few_domains"));
    assert!(refused.to_string().contains("stand in 2 zones"), "{refused}");
}

/// Copies under way, after the volume manager was made to look for more.
async fn copies_after_another_look(cell: &Cell) -> usize {
    for _ in 0..3 {
        let node = cell.client(holdfast_libs_transport::Role::Node);
        node.register(&cell.nodes[0].registration()).await.unwrap();
    }
    let work = cell.admin().status().await.unwrap().work;
    work.iter().filter(|work| work.detail.starts_with("copying")).count()
}

#[tokio::test]
async fn no_disk_takes_more_copies_at_once_than_it_may_and_a_disk_that_comes_back_ends_them() {
    let mut cell = Cell::without_manager(timing(), 2).await;
    cell.config.copies.per_disk = 2;
    cell.start_manager().await;
    let node = &cell.nodes[0];
    let [lost, other] = node.disks()[..] else { panic!("a node of two disks") };
    let hit = sealed_on(&cell, lost, 5).await;
    node.hang(Call::Copy);
    fail(&cell, lost);
    eventually("the other disk takes two", async || (node.copies_to(other) == 2).then_some(())).await;
    assert_eq!((copies_after_another_look(&cell).await, node.copies_to(other)), (2, 2));
    node.report(lost, |report| report.state = "healthy".to_owned());
    let cancelled = || hit.iter().filter(|volume| node.count(Call::Cancel, volume.volume) > 0).count();
    eventually("needless copies are given up", async || (cancelled() == 2).then_some(())).await;
}

#[tokio::test]
async fn no_disk_gives_more_copies_at_once_than_it_may() {
    let mut cell = Cell::without_manager(timing(), 1).await;
    cell.nodes[0] = FakeNode::start(&cell.tls, 1, 3).await;
    cell.config.copies.per_disk = 2;
    cell.start_manager().await;
    let node = &cell.nodes[0];
    let (lost, gone) = (node.disks()[0], cell.nodes[1].disks()[0]);
    sealed_on(&cell, lost, 5).await;
    node.hang(Call::Copy);
    // From now on one disk alone can give what is lost next.
    fail(&cell, gone);
    eventually("its failure is known", async || {
        let status = cell.admin().status().await.unwrap();
        status.disks.iter().any(|row| row.disk == gone && row.state == "failed").then_some(())
    })
    .await;
    fail(&cell, lost);
    let ordered = || node.asked(Call::Copy);
    eventually("that disk gives two", async || (ordered() == 2).then_some(())).await;
    assert_eq!((copies_after_another_look(&cell).await, ordered()), (2, 2));
}
