//! A catalog that was lost is never silently replaced by an empty one, and is made whole again from the disks.

use std::collections::BTreeMap;

use crate::support::{APPLY, Call, Cell, FRONTEND, FakeNode, PAGE, code_of, eventually, rows, timing};
use holdfast_libs_types::{BlockHash, DiskId, KeyId, VolumeId};
use holdfast_node_client::{ExtentState, code};
use holdfast_volume_manager_catalog::{IndexRow, Volume, VolumeState};
use holdfast_volume_manager_client::{
    DurabilityAsk, LeaseRequest, LeasedVolume, NotReached, Order, RebuildState, RebuildStatus, VolumeQuery,
};
use holdfast_volume_manager_server::{Timing, copies};

const KEY: KeyId = KeyId([0x4e; 16]);

/// What was acknowledged, and where it was.
type Blocks = BTreeMap<BlockHash, IndexRow>;

async fn blocks(cell: &Cell) -> Blocks {
    cell.index().await.scan(None, 1000).await.unwrap().into_iter().collect()
}

/// Puts a volume's bytes up to `pages` on one disk, which no other replica has.
fn lengthen(cell: &Cell, leased: &LeasedVolume, replica: usize, pages: u64) {
    let disk = leased.replicas[replica].disk;
    cell.node_of(disk).extent(disk, leased.volume, |extent| extent.tail = pages * PAGE);
}

/// A cell with a key, a sealed volume and an open one; each has three acknowledged blocks.
async fn written(cell: &Cell) -> (LeasedVolume, LeasedVolume) {
    cell.index().await.put_key(&KEY, b"wrapped").await.unwrap();
    let mut leased = Vec::new();
    for _ in 0..2 {
        let volume = cell.written(3).await;
        for pages in [1, 2] {
            cell.acknowledge(volume.volume, pages).await;
        }
        leased.push(volume);
    }
    let (open, sealed) = (leased.pop().unwrap(), leased.pop().unwrap());
    cell.ask_to_seal(sealed.volume).await;
    cell.sealed(sealed.volume).await;
    (sealed, open)
}

/// Starts a volume manager on the empty catalog, and waits until it says that it is one.
async fn start_on_nothing(cell: &mut Cell) {
    cell.start_manager().await;
    eventually("the loss is told", async || {
        let status = cell.admin().status().await.ok()?;
        let told = status.reasons.iter().any(|reason| reason.contains("`holdfast admin catalog rebuild`"));
        (status.health == "critical" && told && status.nodes.len() == 3).then_some(())
    })
    .await;
}

async fn rebuild(cell: &Cell) -> RebuildStatus {
    eventually("a rebuild can be asked for", async || cell.admin().rebuild().await.ok()).await;
    ended(cell).await
}

async fn ended(cell: &Cell) -> RebuildStatus {
    eventually("the rebuild has ended", async || {
        let status = cell.admin().rebuild_status().await.ok()?;
        (status.state != RebuildState::Running).then_some(status)
    })
    .await
}

async fn in_service(cell: &Cell) -> LeasedVolume {
    cell.wait_for_nodes().await;
    eventually("a volume is leased", async || {
        cell.frontend().lease(&LeaseRequest { frontend: FRONTEND, avoid: Vec::new() }).await.ok()
    })
    .await
}

/// What the answers say of a catalog that is not whole: all of them the same.
async fn says_lost(cell: &Cell) -> Option<String> {
    let admin = cell.admin();
    let said = [
        admin.status().await.unwrap().catalog_lost,
        admin.repair().await.unwrap().catalog_lost,
        admin.inventory().await.unwrap().catalog_lost,
        admin.find_volumes(&VolumeQuery::default()).await.unwrap().catalog_lost,
    ];
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    said.into_iter().next().flatten()
}

fn replicas(leased: &LeasedVolume) -> Vec<DiskId> {
    let mut disks: Vec<DiskId> = leased.replicas.iter().map(|replica| replica.disk).collect();
    disks.sort();
    disks
}

fn sealed_row(volume: &Volume) -> (VolumeState, Option<u64>, Vec<DiskId>) {
    let mut disks = volume.replicas.clone();
    disks.sort();
    (volume.state, volume.length, disks)
}

#[tokio::test]
async fn no_disk_counts_as_drained_while_the_catalog_is_lost() {
    let mut cell = Cell::start(timing(), 2).await;
    let disk = cell.nodes[0].disks()[0];
    assert!(cell.admin().order_disk(disk, "drain", &APPLY).await.unwrap().applied);
    let left = async |cell: &Cell| {
        let disks = cell.admin().inventory().await.unwrap().disks;
        let row = disks.into_iter().find(|row| row.disk == disk).unwrap();
        assert_eq!(row.asked, ["draining"]);
        row.drain_left
    };
    assert_eq!(left(&cell).await, Some(0));
    let table = cell.catalog().await.table;
    table.mark_lost(table.leader().await.unwrap().unwrap().term, "it was put back").await.unwrap();
    cell.crash_manager();
    cell.start_manager().await;
    assert_eq!(left(&cell).await, None);
}

#[tokio::test]
async fn a_lost_catalog_is_made_again_with_every_acknowledged_block_and_key() {
    let mut cell = Cell::start(timing(), 2).await;
    let (sealed, open) = written(&cell).await;
    // One replica has a batch that was never acknowledged.
    lengthen(&cell, &open, 1, 4);
    let before = (blocks(&cell).await, cell.row(sealed.volume).await);
    let calls: Vec<usize> = cell.nodes.iter().map(|node| node.calls().len()).collect();
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;

    let lease = cell.frontend().lease(&LeaseRequest { frontend: FRONTEND, avoid: Vec::new() }).await;
    assert_eq!(code_of(lease), "catalog_lost");
    // To this catalog every disk looks empty.
    let disk = replicas(&open)[0];
    for what in ["drain", "offline", "forget"] {
        assert_eq!(code_of(cell.admin().order_disk(disk, what, &APPLY).await), "catalog_lost", "{what}");
    }
    assert_eq!(code_of(cell.admin().order_node(&cell.nodes[0].name, "drain", &APPLY).await), "catalog_lost");
    assert_eq!(code_of(cell.admin().rebalance().await), "catalog_lost");
    assert_eq!(code_of(cell.admin().order_rebalance("apply").await), "catalog_lost");
    assert_eq!(blocks(&cell).await, Blocks::new());
    let told = says_lost(&cell).await.unwrap();
    assert!(told.starts_with("the catalog is not whole (") && told.contains("run `holdfast admin catalog rebuild`"));
    let status = cell.admin().status().await.unwrap();
    assert_eq!((status.nothing_leased, status.settling, status.capacity.usable_free_bytes), (true, None, 0));
    assert!(status.capacity.usable_bytes > 0, "{:?}", status.capacity);
    assert!(cell.admin().durability(&DurabilityAsk::default()).await.unwrap().catalog_lost.is_some());
    for (node, before) in cell.nodes.iter().zip(calls) {
        assert_eq!(node.calls()[before..], [], "a node was given orders before the rebuild");
    }

    let status = rebuild(&cell).await;
    assert_eq!(status.state, RebuildState::Done, "{status:?}");
    let counts = (status.volumes, status.taken_in, status.sealed, status.records, status.blocks, status.keys);
    assert_eq!(counts, (2, 2, 1, 6, 6, 1), "{status:?}");
    assert_eq!((status.not_recovered_total, status.short_of_replicas, status.lost), (0, 0, None));
    let after = cell.row(sealed.volume).await;
    assert_eq!(blocks(&cell).await, before.0);
    assert_eq!((after.digest, sealed_row(&after)), (before.1.digest, sealed_row(&before.1)));
    let opened = cell.row(open.volume).await;
    assert_eq!(sealed_row(&opened), (VolumeState::Sealed, Some(3 * PAGE), replicas(&open)));
    assert_eq!(cell.index().await.keys().await.unwrap().1, [(KEY, b"wrapped".to_vec())]);

    let leased = in_service(&cell).await;
    assert!(leased.volume.generation() > sealed.volume.generation());
    // A frontend that slept through it.
    for of in [&sealed, &open] {
        let late = cell.index().await.insert(&rows(of.volume, 4)).await;
        assert!(matches!(late, Err(holdfast_volume_manager_catalog::InsertError::Fenced(_))), "{late:?}");
        assert!(cell.index().await.fence(of.volume).await.unwrap().unwrap().closed, "the next rebuild reads it again");
    }
    assert_eq!(cell.admin().status().await.unwrap().health, "ok");
    assert_eq!(says_lost(&cell).await, None);
    for node in &cell.nodes {
        assert!(!node.calls().contains(&Call::Trash));
    }
}

#[tokio::test]
async fn while_the_catalog_is_made_again_every_answer_tells_that_it_is_not_whole_and_how_far_that_is() {
    let mut cell = Cell::start(timing(), 1).await;
    written(&cell).await;
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    cell.nodes[1].hang(Call::Extents);
    eventually("a rebuild can be asked for", async || cell.admin().rebuild().await.ok()).await;
    eventually("it waits for the list of a disk", async || {
        let status = cell.admin().rebuild_status().await.ok()?;
        (status.detail == "listing the extents of every disk").then_some(())
    })
    .await;
    let told = says_lost(&cell).await.unwrap();
    assert!(
        told.contains("that is under way, 0 of 0 volumes are looked at; `holdfast admin catalog rebuild --status`")
    );
    cell.nodes[1].unhang();
    assert_eq!(ended(&cell).await.state, RebuildState::Done);
    in_service(&cell).await;
    assert_eq!(says_lost(&cell).await, None);
}

#[tokio::test]
async fn a_replica_whose_end_may_be_torn_does_not_cut_off_what_the_others_have() {
    let mut cell = Cell::start(timing(), 2).await;
    let open = cell.written(2).await;
    let torn = open.replicas[0].disk;
    lengthen(&cell, &open, 0, 1);
    cell.node_of(torn).tear(torn, open.volume);
    // The next term's repair does not go before the look at what the rebuild has made.
    cell.node_of(torn).hang(Call::Copy);
    let before = blocks(&cell).await;
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.short_of_replicas), (RebuildState::Done, 1), "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    let row = cell.row(open.volume).await;
    assert_eq!((row.length, row.replicas.contains(&torn)), (Some(2 * PAGE), false));
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_does_not_cut_off_what_the_others_have() {
    let mut cell = Cell::start(timing(), 2).await;
    let (_, open) = written(&cell).await;
    let before = blocks(&cell).await;
    let stuck = open.replicas[0].disk;
    for call in [Call::Fence, Call::Seal] {
        cell.node_of(stuck).refuse(call, stuck, code::READ_ONLY);
    }
    cell.node_of(stuck).hang(Call::Copy);
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.not_recovered_total), (RebuildState::Done, 0), "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    let others: Vec<DiskId> = replicas(&open).into_iter().filter(|disk| *disk != stuck).collect();
    let row = cell.row(open.volume).await;
    assert_eq!(sealed_row(&row), (VolumeState::Sealed, Some(3 * PAGE), others));
}

#[tokio::test]
async fn a_rebuild_that_stops_after_any_number_of_calls_is_begun_again_and_ends_the_same() {
    let mut cell = Cell::start(timing(), 1).await;
    let (sealed, open) = written(&cell).await;
    let before = blocks(&cell).await;
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    let mut stops = 0;
    let done = loop {
        for node in &cell.nodes {
            node.answer_only(Some(stops));
        }
        let status = rebuild(&cell).await;
        if status.state == RebuildState::Done {
            break status;
        }
        assert_eq!(status.state, RebuildState::Stopped, "{status:?}");
        let lease = cell.frontend().lease(&LeaseRequest { frontend: FRONTEND, avoid: Vec::new() }).await;
        assert_eq!(code_of(lease), "catalog_lost");
        if stops % 2 == 1 {
            // Another volume manager goes on.
            cell.crash_manager();
            start_on_nothing(&mut cell).await;
        }
        stops += 1;
    };
    assert!(stops >= 3, "it hardly stopped: {stops} times");
    assert_eq!((done.volumes, done.not_recovered_total), (2, 0), "{done:?}");
    assert_eq!(blocks(&cell).await, before);
    for leased in [&sealed, &open] {
        assert_eq!(sealed_row(&cell.row(leased.volume).await).1, Some(3 * PAGE));
    }
}

#[tokio::test]
async fn what_cannot_be_sealed_is_told_stays_and_is_taken_in_when_it_can() {
    let mut cell = Cell::start(timing(), 1).await;
    let (_, open) = written(&cell).await;
    let before = blocks(&cell).await;
    let each = |cell: &Cell, state: ExtentState| {
        for disk in replicas(&open) {
            cell.node_of(disk).extent(disk, open.volume, |extent| extent.state = state);
        }
    };
    each(&cell, ExtentState::Damaged);
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.not_recovered_total), (RebuildState::Done, 1), "{status:?}");
    assert_eq!(status.not_recovered[0].volume, open.volume);
    assert!(status.not_recovered[0].why.contains("damaged before it was sealed"), "{status:?}");
    in_service(&cell).await;
    let unknown = "does not know the volumes of 3 extents on 3 disks";
    eventually("the unknown extents are told", async || {
        let status = cell.admin().status().await.unwrap();
        let told = status.reasons.iter().any(|reason| reason.contains(unknown));
        (told && status.health == "critical").then_some(())
    })
    .await;
    assert_eq!(cell.catalog().await.table.volume(open.volume).await.unwrap(), None);
    // Nothing that the catalog knows is on them, and yet they are not empty.
    let disk = replicas(&open)[0];
    let shown = cell.admin().inventory().await.unwrap().disks.into_iter().find(|shown| shown.disk == disk);
    assert_eq!(shown.map(|shown| shown.unknown_extents), Some(1));
    assert!(says_lost(&cell).await.unwrap().contains(unknown), "blocks of volumes that no list shows cannot be read");
    let refused = cell.admin().order_disk(disk, "drain", &Order::default()).await.unwrap_err().to_string();
    assert!(refused.contains("does not know the volumes of 1 extent"), "{refused}");
    assert!(replicas(&open).iter().all(|disk| cell.node_of(*disk).find(*disk, open.volume).is_some()));

    // As when disks come that were away: a catalog that is in service takes them in.
    each(&cell, ExtentState::Open);
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.not_recovered_total), (RebuildState::Done, 0), "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    in_service(&cell).await;
}

#[tokio::test]
async fn nodes_and_disks_that_the_catalog_knows_and_a_rebuild_did_not_read_are_named_until_one_reads_them() {
    let cell = Cell::start_pairs(Timing { suspect_ms: 1000, ..timing() }, 3, 1).await;
    written(&cell).await;
    let (away, broken) = (&cell.nodes[1], &cell.nodes[4]);
    let disks = [away.disks()[0], broken.disks()[0]];
    away.silence(true);
    broken.report(disks[1], |report| {
        (report.state, report.reason) = ("gone".to_owned(), Some("it was pulled".to_owned()));
    });
    eventually("they are missed", async || {
        let status = cell.admin().status().await.unwrap();
        let disk = status.disks.iter().any(|row| row.disk == disks[1] && row.state == "down");
        (disk && status.nodes.iter().any(|row| row.node == away.name && row.state == "suspect")).then_some(())
    })
    .await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.nodes, status.disks), (RebuildState::Done, 4, 4), "{status:?}");
    let named = |node: &FakeNode, disk: DiskId, why: &str| NotReached {
        node: node.name.clone(),
        disks: vec![disk],
        why: why.to_owned(),
    };
    let expected =
        [named(away, disks[0], "the node is suspect"), named(broken, disks[1], "the disk is down: it was pulled")];
    assert_eq!(status.not_reached, expected);
    away.silence(false);
    broken.report(disks[1], |report| (report.state, report.reason) = ("healthy".to_owned(), None));
    cell.wait_for_nodes().await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.disks, status.not_reached), (RebuildState::Done, 6, Vec::new()));
}

#[tokio::test]
async fn a_catalog_that_is_older_than_what_the_nodes_obeyed_is_found_out_and_takes_a_later_term() {
    let mut cell = Cell::start(timing(), 1).await;
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    cell.sealed(leased.volume).await;
    let before = blocks(&cell).await;
    cell.crash_manager();
    // As if an old copy of the table had been put back by hand: later leaders were obeyed, and made volumes.
    let later = VolumeId::from_parts(700, [1; 12]);
    let epoch = holdfast_libs_types::WriteEpoch(1);
    let extent = crate::support::node::Extent { tail: 0, epoch, state: ExtentState::Open, content: 1, digest: None };
    for node in &cell.nodes {
        node.obey(900);
        node.place(node.disks()[0], later, extent.clone());
    }
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!(status.state, RebuildState::Done, "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    assert!(in_service(&cell).await.volume.generation() > 700, "ids may be drawn twice");
    assert!(cell.catalog().await.table.term().await.unwrap().0 > 900);
}

#[tokio::test]
async fn a_rebuild_waits_for_a_slow_keyring_and_does_without_one_that_is_damaged() {
    let mut cell = Cell::start(timing(), 1).await;
    cell.index().await.put_key(&KEY, b"wrapped").await.unwrap();
    cell.written(2).await;
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    for (code, ended, keys) in [("stalled", RebuildState::Stopped, 0), ("damaged", RebuildState::Done, 1)] {
        cell.nodes[0].refuse(Call::Keyring, cell.nodes[0].disks()[0], code);
        let status = rebuild(&cell).await;
        assert_eq!((status.state, status.keys), (ended, keys), "{status:?}");
        assert_eq!(status.detail.contains("the keyring of node"), ended == RebuildState::Stopped, "{status:?}");
    }
}

#[tokio::test]
async fn the_nodes_of_a_volume_have_every_key_before_it_is_leased() {
    let cell = Cell::start(timing(), 1).await;
    for generation in 1..=5u8 {
        cell.index().await.put_key(&KeyId([generation; 16]), b"wrapped").await.unwrap();
        let leased = cell.lease().await;
        for replica in &leased.replicas {
            let has = cell.node_of(replica.disk).keyrings().iter().map(|keyring| keyring.generation).max();
            assert_eq!(has, Some(u64::from(generation)));
        }
    }
}

#[tokio::test]
async fn blocks_that_stand_in_two_volumes_are_found_in_one_of_them() {
    let mut cell = Cell::start(timing(), 1).await;
    let first = cell.written(2).await;
    let second = cell.written(2).await;
    // The same block again, in the other volume: as after a lost answer of the index.
    let row = rows(first.volume, 2).rows.remove(0);
    let record = holdfast_node_client::RecordInfo { hash: row.hash, offset: 0, length: row.length, flags: 0 };
    for node in &cell.nodes {
        node.write_record(second.volume, record.clone());
    }
    cell.lose_catalog();
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!((status.records, status.blocks), (3, 2), "{status:?}");
    let found = cell.index().await.lookup(&[row.hash]).await.unwrap()[0].unwrap();
    let expected: [(VolumeId, u64); 2] = [(first.volume, row.offset), (second.volume, 0)];
    assert!(expected.contains(&(found.volume, found.offset)));
}

#[tokio::test]
async fn an_open_volume_is_not_cut_below_what_a_copy_that_is_put_back_knows_to_be_acknowledged() {
    let mut cell = Cell::start(timing(), 1).await;
    let open = cell.written(3).await;
    let copy = cell.dir.path().join("copy");
    copies::back_up(&cell.config, &copy).unwrap();
    let before = blocks(&cell).await;
    // One replica has lost its end since, and does not say so. No repair mends it before the look at the row.
    lengthen(&cell, &open, 0, 1);
    cell.node_of(open.replicas[0].disk).hang(Call::Copy);
    cell.lose_catalog();
    copies::restore(&cell.config, &copy, false).unwrap();
    start_on_nothing(&mut cell).await;
    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.short_of_replicas), (RebuildState::Done, 1), "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    let row = cell.row(open.volume).await;
    assert_eq!((row.length, row.replicas.contains(&open.replicas[0].disk)), (Some(3 * PAGE), false));
}

#[tokio::test]
async fn a_copy_that_is_put_back_is_completed_with_what_was_written_since_it_was_made() {
    let mut cell = Cell::start(timing(), 2).await;
    let (sealed, open) = written(&cell).await;
    let unwritten = cell.lease().await;
    let copy = cell.dir.path().join("copy");
    copies::back_up(&cell.config, &copy).unwrap();
    // Of one volume that the copy has as open no disk has anything, another one goes on, a third is begun, and a disk registers
    // again.
    for disk in replicas(&unwritten) {
        cell.node_of(disk).vanish(disk, unwritten.volume);
    }
    lengthen(&cell, &open, 0, 5);
    lengthen(&cell, &open, 1, 5);
    lengthen(&cell, &open, 2, 5);
    cell.acknowledge(open.volume, 5).await;
    let later = cell.written(2).await;
    cell.index().await.put_key(&KeyId([0x4f; 16]), b"later").await.unwrap();
    cell.ask_to_seal(open.volume).await;
    let row = cell.sealed(open.volume).await;
    cell.lease().await;
    let before = blocks(&cell).await;
    cell.lose_catalog();
    for node in &cell.nodes {
        node.confirm_incarnations();
    }
    copies::restore(&cell.config, &copy, false).unwrap();
    start_on_nothing(&mut cell).await;
    assert_eq!(blocks(&cell).await.len(), 6, "what the copy has can be read at once");

    let status = rebuild(&cell).await;
    assert_eq!((status.state, status.not_recovered_total), (RebuildState::Done, 0), "{status:?}");
    assert_eq!(blocks(&cell).await, before);
    // The second key was given to the nodes by the second lease.
    assert_eq!(cell.index().await.keys().await.unwrap().1.len(), 2);
    assert_eq!(cell.row(open.volume).await.digest, row.digest);
    for (leased, pages) in [(&sealed, 3), (&open, 5), (&later, 2)] {
        let row = cell.row(leased.volume).await;
        assert_eq!(sealed_row(&row), (VolumeState::Sealed, Some(pages * PAGE), replicas(leased)));
    }
    let states: Vec<_> = cell.catalog().await.table.volumes().await.unwrap().iter().map(|row| row.state).collect();
    assert!(states.iter().all(|state| *state == VolumeState::Sealed), "{states:?}");
    let leased = in_service(&cell).await;
    assert!(leased.volume.generation() > later.volume.generation());
}
