//! Nodes and disks, and what the operator asked for.

use holdfast_libs_types::NodeId;
use holdfast_volume_manager_catalog::{CatalogError, DiskInfo, NewVolume, Node, Registration};

use crate::index::{EPOCH, volume};
use crate::subject::Subject;
use crate::table::{disk, find, info, new, node, open};

pub async fn a_disk_registers_with_the_nonce_it_was_given_or_not_at_all(subject: Subject) {
    let (table, term) = open(&subject).await;
    let register = async |info: &DiskInfo, previous, incarnation, nonce| {
        table.register_disk_incarnation(term, info, previous, incarnation, nonce).await.unwrap()
    };
    let moved = DiskInfo { node: node(2).node, path: "/dev/elsewhere".to_owned(), ..info(1) };
    let find = async || table.disks().await.unwrap().swap_remove(0);
    // The answer was lost: the disk proposes the same again.
    assert_eq!(register(&info(1), 0, 1, 1).await, Registration::Accepted);
    assert_eq!(register(&info(1), 1, 2, u64::MAX).await, Registration::Accepted);
    let stands = find().await;
    assert_eq!((stands.incarnation, stands.nonce, &stands.info), (2, u64::MAX, &info(1)));
    // A clone from before that.
    for (previous, nonce) in [(1, 77), (0, 78), (5, 1)] {
        let Registration::Refused(why) = register(&moved, previous, 2, nonce).await else { panic!("accepted") };
        assert!(why.contains("node node-1") && why.contains("clone"), "{why}");
        assert_eq!(find().await, stands);
    }
    assert!(matches!(register(&info(1), u64::MAX, 3, 0).await, Registration::Refused(_)));
    // The disk itself, put into another node.
    assert_eq!(register(&moved, u64::MAX, 3, 79).await, Registration::Accepted);
    assert_eq!(find().await.info, moved);
    let stranger = DiskInfo { node: NodeId("node-99".to_owned()), ..info(9) };
    let refused = table.register_disk_incarnation(term, &stranger, 0, 1, 5).await;
    assert!(matches!(refused, Err(CatalogError::UnknownNode(_))));
}

pub async fn a_heartbeat_updates_a_disk_but_takes_it_from_nobody(subject: Subject) {
    let (table, term) = open(&subject).await;
    let sick = DiskInfo { state: "failed".to_owned(), reason: Some("EIO".to_owned()), free_slots: 3, ..info(2) };
    table.upsert_disk(term, &sick).await.unwrap();
    let found = table.disks().await.unwrap().swap_remove(1);
    assert_eq!((found.info, found.nonce), (sick, 2));
    let stolen = DiskInfo { node: node(1).node, ..info(2) };
    assert!(
        matches!(table.upsert_disk(term, &stolen).await, Err(CatalogError::DiskElsewhere { node, .. }) if node.0 == "node-2")
    );
    assert!(matches!(table.upsert_disk(term, &info(9)).await, Err(CatalogError::UnknownDisk(_))));
    let moved = Node { address: "https://127.0.0.1:99".to_owned(), last_seen_ms: 2000, ..node(2) };
    table.upsert_node(term, &moved).await.unwrap();
    assert_eq!(table.nodes().await.unwrap(), [node(1), moved, node(3), node(4), node(5)]);
}

pub async fn what_no_volume_needs_is_forgotten_and_nothing_else(subject: Subject) {
    let (table, term) = open(&subject).await;
    // One that failed, one sealed empty, one open, one sealed with something in it.
    for number in 1..=4 {
        table.create_volume(term, &NewVolume { disks: vec![disk(1), disk(2)], ..new(number) }).await.unwrap();
    }
    table.fail_volume(term, volume(1), "").await.unwrap();
    for number in 2..=4 {
        table.open_volume(term, volume(number)).await.unwrap();
    }
    let seal = async |number, length| {
        let epoch = table.begin_seal(term, volume(number), EPOCH, "").await.unwrap();
        table.commit_length(term, volume(number), epoch, length).await.unwrap();
        table.commit_seal(term, volume(number), [9; 32], &[disk(1), disk(2)]).await.unwrap();
    };
    seal(2, 0).await;
    let refused = async |left: u64| {
        let refused = table.forget_disk(term, disk(1)).await;
        assert!(matches!(refused, Err(CatalogError::DiskInUse { volumes, .. }) if volumes == left), "{refused:?}");
        assert_eq!(find(&*table, 1).await.replicas, [disk(1), disk(2)]);
    };
    refused(2).await;
    seal(3, 4096).await;
    seal(4, 4096).await;
    refused(2).await;
    table.set_replicas(term, volume(3), &[disk(1), disk(2)], &[disk(2)]).await.unwrap();
    refused(1).await;
    let in_use = table.forget_node(term, &node(1).node).await;
    assert!(matches!(in_use, Err(CatalogError::NodeInUse { disks: 1, .. })), "{in_use:?}");
    table.set_replicas(term, volume(4), &[disk(1), disk(2)], &[disk(2)]).await.unwrap();
    for _ in 0..2 {
        table.forget_disk(term, disk(1)).await.unwrap();
        table.forget_node(term, &node(1).node).await.unwrap();
    }
    for number in 1..=4 {
        assert_eq!(find(&*table, number).await.replicas, [disk(2)]);
    }
    let ids = table.disks().await.unwrap().into_iter().map(|disk| disk.info.disk).collect::<Vec<_>>();
    assert_eq!(ids, [disk(2), disk(3), disk(4), disk(5)]);
    assert_eq!(table.nodes().await.unwrap(), [node(2), node(3), node(4), node(5)]);
    assert!(matches!(table.upsert_disk(term, &info(1)).await, Err(CatalogError::UnknownDisk(_))));
    let again = table.register_disk_incarnation(term, &info(1), 1, 2, 77).await;
    assert!(matches!(again, Err(CatalogError::UnknownNode(_))));
    table.upsert_node(term, &node(1)).await.unwrap();
    let again = table.register_disk_incarnation(term, &info(1), 1, 2, 77).await.unwrap();
    assert_eq!(again, Registration::Accepted, "a disk that was forgotten is a new one");
}

pub async fn a_setting_stands_until_it_is_replaced_or_removed(subject: Subject) {
    let (table, term) = open(&subject).await;
    let other = subject.open_for_frontend().await.unwrap().table;
    let all = async || other.settings().await.unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(all().await, []);
    let long = ("k".repeat(255), "ä".repeat(32_767));
    for _ in 0..2 {
        table.set_setting(term, "b", Some("{\"one\": 1}")).await.unwrap();
        table.set_setting(term, "B ", Some("")).await.unwrap();
        table.set_setting(term, &long.0, Some(&long.1)).await.unwrap();
    }
    table.set_setting(term, "b", Some("2")).await.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(all().await, [pair("B ", ""), pair("b", "2"), long]);
    for key in ["b", "b", "never"] {
        table.set_setting(term, key, None).await.unwrap();
    }
    assert_eq!(all().await.len(), 2);
    for (key, value) in [("", "v".to_owned()), (&*"k".repeat(256), "v".to_owned()), ("k", "v".repeat(65_536))] {
        let refused = table.set_setting(term, key, Some(&value)).await;
        assert!(matches!(refused, Err(CatalogError::BadSetting { .. })), "{refused:?}");
    }
}
