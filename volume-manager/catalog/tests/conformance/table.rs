//! The replication table: the life of a volume, and the term that guards it.

use std::sync::Arc;

use holdfast_libs_types::{DiskId, InstanceId, NodeId, WriteEpoch};
use holdfast_volume_manager_catalog::{
    CatalogError, DiskInfo, LengthCommitted, NewVolume, Node, Registration, ReplicationTable, Term, Volume, VolumeState,
};
use proptest::prelude::{Strategy, prop, prop_oneof};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::index::{EPOCH, volume};
use crate::subject::Subject;

pub const HOLDER: InstanceId = InstanceId([5; 16]);

pub fn disk(number: u8) -> DiskId {
    DiskId([number; 16])
}

pub fn node(number: u8) -> Node {
    Node {
        node: NodeId(format!("node-{number}")),
        zone: format!("zone-{number}"),
        rack: format!("rack-{}", number % 2),
        address: format!("https://127.0.0.1:{number}"),
        instance: InstanceId([number; 16]),
        last_seen_ms: 1000,
    }
}

pub fn info(number: u8) -> DiskInfo {
    DiskInfo {
        disk: disk(number),
        node: node(number).node,
        path: format!("/dev/disk{number}"),
        state: "healthy".to_owned(),
        reason: None,
        slot_bytes: 64 << 20,
        volume_bytes: 60 << 20,
        slots: 100,
        free_slots: 90,
    }
}

pub fn new(number: u8) -> NewVolume {
    NewVolume {
        volume: volume(number),
        epoch: EPOCH,
        disks: vec![disk(3), disk(1), disk(2)],
        holder: HOLDER,
        lease_expires_ms: 5000,
        capacity: 60 << 20,
    }
}

/// A table with a leader and the nodes and disks 1 to 5.
pub async fn open(subject: &Subject) -> (Arc<dyn ReplicationTable>, Term) {
    let table = subject.open().await.table;
    let term = table.take_leadership().await.unwrap();
    for number in 1..=5 {
        table.upsert_node(term, &node(number)).await.unwrap();
        let registered = table.register_disk_incarnation(term, &info(number), 0, 1, u64::from(number)).await.unwrap();
        assert_eq!(registered, Registration::Accepted);
    }
    (table, term)
}

pub async fn find(table: &dyn ReplicationTable, number: u8) -> Volume {
    table.volume(volume(number)).await.unwrap().unwrap()
}

pub async fn a_volume_lives_from_creating_to_sealed_and_each_step_can_be_repeated(subject: Subject) {
    let (table, term) = open(&subject).await;
    let mut expected = Volume {
        volume: volume(7),
        state: VolumeState::Creating,
        epoch: EPOCH,
        capacity: 60 << 20,
        length: None,
        digest: None,
        holder: Some(HOLDER),
        lease_expires_ms: Some(5000),
        seal_reason: None,
        replicas: vec![disk(3), disk(1), disk(2)],
    };
    for _ in 0..2 {
        table.create_volume(term, &new(7)).await.unwrap();
        assert_eq!(find(&*table, 7).await, expected);
    }
    expected.state = VolumeState::Open;
    for _ in 0..2 {
        table.open_volume(term, volume(7)).await.unwrap();
        assert_eq!(find(&*table, 7).await, expected);
    }
    expected.state = VolumeState::Sealing;
    expected.epoch = WriteEpoch(2);
    expected.seal_reason = Some("full".to_owned());
    for reason in ["full", "again"] {
        assert_eq!(table.begin_seal(term, volume(7), EPOCH, reason).await.unwrap(), WriteEpoch(2));
        assert_eq!(find(&*table, 7).await, expected);
    }
    expected.length = Some(8192);
    for length in [8192, 4096] {
        let committed = table.commit_length(term, volume(7), WriteEpoch(2), length).await.unwrap();
        assert_eq!(committed, LengthCommitted(8192));
        assert_eq!(find(&*table, 7).await, expected);
    }
    expected = Volume {
        state: VolumeState::Sealed,
        digest: Some([9; 32]),
        holder: None,
        lease_expires_ms: None,
        replicas: vec![disk(1), disk(3)],
        ..expected
    };
    for _ in 0..2 {
        table.commit_seal(term, volume(7), [9; 32], &[disk(1), disk(3)]).await.unwrap();
        assert_eq!(find(&*table, 7).await, expected);
    }
    assert_eq!(table.begin_seal(term, volume(7), EPOCH, "late").await.unwrap(), WriteEpoch(2));
    assert_eq!(table.volumes().await.unwrap(), [expected]);
}

pub async fn what_contradicts_an_earlier_step_is_refused(subject: Subject) {
    let (table, term) = open(&subject).await;
    table.create_volume(term, &new(1)).await.unwrap();
    let other = NewVolume { disks: vec![disk(1), disk(2), disk(4)], ..new(1) };
    assert!(matches!(table.create_volume(term, &other).await, Err(CatalogError::VolumeExists(_))));
    let unknown = NewVolume { disks: vec![disk(1), disk(2), disk(9)], ..new(2) };
    assert!(
        matches!(table.create_volume(term, &unknown).await, Err(CatalogError::UnknownDisk(found)) if found == disk(9))
    );
    let twice = NewVolume { disks: vec![disk(1), disk(2), disk(1)], ..new(2) };
    assert!(matches!(table.create_volume(term, &twice).await, Err(CatalogError::BadReplicas { .. })));
    assert_eq!(table.volume(volume(2)).await.unwrap(), None);

    let begun = table.begin_seal(term, volume(1), EPOCH, "").await;
    assert!(matches!(begun, Err(CatalogError::WrongState { state: VolumeState::Creating, .. })));
    table.open_volume(term, volume(1)).await.unwrap();
    assert!(matches!(table.fail_volume(term, volume(1), "").await, Err(CatalogError::WrongState { .. })));
    assert!(matches!(table.begin_seal(term, volume(1), WriteEpoch(2), "").await, Err(CatalogError::WrongEpoch { .. })));
    assert!(matches!(table.commit_length(term, volume(1), EPOCH, 0).await, Err(CatalogError::WrongState { .. })));
    let epoch = table.begin_seal(term, volume(1), EPOCH, "").await.unwrap();
    assert!(matches!(table.open_volume(term, volume(1)).await, Err(CatalogError::WrongState { .. })));
    let seal = async |digest, disks: &[DiskId]| table.commit_seal(term, volume(1), digest, disks).await;
    assert!(matches!(seal([9; 32], &[disk(1)]).await, Err(CatalogError::SealConflict { .. })));
    assert!(matches!(table.commit_length(term, volume(1), EPOCH, 0).await, Err(CatalogError::WrongEpoch { .. })));
    let beyond = table.commit_length(term, volume(1), epoch, (60 << 20) + 1).await;
    assert!(matches!(beyond, Err(CatalogError::SealConflict { .. })));
    table.commit_length(term, volume(1), epoch, 4096).await.unwrap();
    assert!(matches!(seal([9; 32], &[]).await, Err(CatalogError::BadReplicas { .. })));
    assert!(matches!(seal([9; 32], &[disk(1), disk(4)]).await, Err(CatalogError::BadReplicas { .. })));
    assert_eq!(find(&*table, 1).await.state, VolumeState::Sealing);
    seal([9; 32], &[disk(1)]).await.unwrap();
    assert!(matches!(seal([8; 32], &[disk(1)]).await, Err(CatalogError::SealConflict { .. })));
    assert!(matches!(table.open_volume(term, volume(8)).await, Err(CatalogError::UnknownVolume(_))));
}

pub async fn replicas_of_a_sealed_volume_change_by_compare_and_set(subject: Subject) {
    let (table, term) = open(&subject).await;
    table.create_volume(term, &new(1)).await.unwrap();
    let set = async |old: &[DiskId], new: &[DiskId]| table.set_replicas(term, volume(1), old, new).await;
    assert!(matches!(set(&new(1).disks, &[disk(4)]).await, Err(CatalogError::WrongState { .. })));
    table.open_volume(term, volume(1)).await.unwrap();
    let epoch = table.begin_seal(term, volume(1), EPOCH, "").await.unwrap();
    table.commit_length(term, volume(1), epoch, 4096).await.unwrap();
    table.commit_seal(term, volume(1), [9; 32], &[disk(1), disk(2)]).await.unwrap();
    let (old, repaired) = ([disk(1), disk(2)], [disk(1), disk(2), disk(4)]);
    set(&old, &repaired).await.unwrap();
    set(&old, &repaired).await.unwrap();
    let late = set(&old, &[disk(1), disk(2), disk(5)]).await;
    assert!(matches!(late, Err(CatalogError::ReplicasChanged { found, .. }) if found == repaired));
    assert!(matches!(set(&repaired, &[]).await, Err(CatalogError::BadReplicas { .. })));
    assert!(matches!(set(&repaired, &[disk(1), disk(8)]).await, Err(CatalogError::UnknownDisk(_))));
    assert_eq!(find(&*table, 1).await.replicas, repaired);
}

pub async fn a_lease_is_renewed_for_its_holder_only_and_runs_out_otherwise(subject: Subject) {
    let (table, term) = open(&subject).await;
    for number in 1..=3 {
        table.create_volume(term, &new(number)).await.unwrap();
    }
    table.open_volume(term, volume(1)).await.unwrap();
    table.open_volume(term, volume(2)).await.unwrap();
    let ids = |volumes: Vec<Volume>| volumes.iter().map(|volume| volume.volume.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(table.expired_leases(4999).await.unwrap()), [0u8; 0]);
    assert_eq!(ids(table.expired_leases(5000).await.unwrap()), [1, 2, 3]);
    let all = [volume(1), volume(3), volume(8)];
    assert_eq!(table.renew_leases(term, InstanceId([6; 16]), &all, 9000).await.unwrap(), []);
    assert_eq!(table.renew_leases(term, HOLDER, &all, 9000).await.unwrap(), [volume(1)]);
    assert_eq!(table.renew_leases(term, HOLDER, &all, 8000).await.unwrap(), [volume(1)]);
    assert_eq!(ids(table.expired_leases(8999).await.unwrap()), [2, 3]);
    table.begin_seal(term, volume(2), EPOCH, "lease ran out").await.unwrap();
    table.fail_volume(term, volume(3), "no answer from node-1").await.unwrap();
    table.fail_volume(term, volume(3), "again").await.unwrap();
    assert_eq!(ids(table.expired_leases(9000).await.unwrap()), [1]);
    assert_eq!(table.renew_leases(term, HOLDER, &[volume(2)], 9000).await.unwrap(), []);
    assert_eq!(find(&*table, 3).await.seal_reason.as_deref(), Some("no answer from node-1"));
    assert_eq!(ids(table.volumes_in(&[VolumeState::Failed, VolumeState::Open]).await.unwrap()), [1, 3]);
    assert_eq!(ids(table.volumes_in(&[]).await.unwrap()), [0u8; 0]);
}

pub async fn volumes_are_read_page_by_page_all_of_them_or_those_of_a_disk(subject: Subject) {
    let (table, term) = open(&subject).await;
    for number in 1..=7 {
        let disks = vec![disk(1), disk(2), disk(if number % 2 == 0 { 4 } else { 5 })];
        table.create_volume(term, &NewVolume { disks, ..new(number) }).await.unwrap();
    }
    for (on, expected) in [
        (None, vec![1, 2, 3, 4, 5, 6, 7]),
        (Some(disk(2)), vec![1, 2, 3, 4, 5, 6, 7]),
        (Some(disk(4)), vec![2, 4, 6]),
        (Some(disk(3)), vec![]),
    ] {
        for limit in 1..=8 {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = table.volumes_after(after, on, limit).await.unwrap();
                assert!(page.len() <= limit && page.iter().all(|volume| volume.replicas.len() == 3), "{page:?}");
                let Some(last) = page.last() else { break };
                after = Some(last.volume);
                found.extend(page.iter().map(|volume| volume.volume.0[0]));
            }
            assert_eq!(found, expected, "{on:?}, {limit} a page");
        }
    }
}

pub async fn a_leader_that_was_replaced_changes_nothing(subject: Subject) {
    let (table, old) = open(&subject).await;
    table.create_volume(old, &new(1)).await.unwrap();
    table.create_volume(old, &new(2)).await.unwrap();
    table.open_volume(old, volume(2)).await.unwrap();
    table.create_volume(old, &new(3)).await.unwrap();
    table.open_volume(old, volume(3)).await.unwrap();
    let epoch = table.begin_seal(old, volume(3), EPOCH, "").await.unwrap();
    table.create_volume(old, &new(4)).await.unwrap();
    table.open_volume(old, volume(4)).await.unwrap();
    table.begin_seal(old, volume(4), EPOCH, "").await.unwrap();
    table.commit_length(old, volume(4), epoch, 0).await.unwrap();
    table.create_volume(old, &new(5)).await.unwrap();
    table.open_volume(old, volume(5)).await.unwrap();
    table.begin_seal(old, volume(5), EPOCH, "").await.unwrap();
    table.commit_length(old, volume(5), epoch, 0).await.unwrap();
    table.commit_seal(old, volume(5), [1; 32], &[disk(1)]).await.unwrap();

    table.set_setting(old, "key", Some("early")).await.unwrap();

    let current = subject.open().await.table.take_leadership().await.unwrap();
    assert!(current > old);
    assert_eq!(table.term().await.unwrap(), current);
    let before = subject.dump().await;
    let sick = DiskInfo { state: "failed".to_owned(), ..info(1) };
    for term in [old, Term(current.0 + 1)] {
        let results = [
            table.create_volume(term, &new(6)).await,
            table.open_volume(term, volume(1)).await,
            table.fail_volume(term, volume(1), "").await,
            table.renew_leases(term, HOLDER, &[volume(2)], 9000).await.map(|_| ()),
            table.begin_seal(term, volume(2), EPOCH, "").await.map(|_| ()),
            table.commit_length(term, volume(3), epoch, 4096).await.map(|_| ()),
            table.commit_seal(term, volume(4), [2; 32], &[disk(1)]).await,
            table.set_replicas(term, volume(5), &[disk(1)], &[disk(1), disk(2)]).await,
            table.upsert_node(term, &Node { last_seen_ms: 9, ..node(1) }).await,
            table.upsert_disk(term, &sick).await,
            table.register_disk_incarnation(term, &info(1), 1, 2, 77).await.map(|_| ()),
            table.raise_generation(term).await.map(|_| ()),
            table.set_setting(term, "key", Some("late")).await,
            table.set_setting(term, "key", None).await,
            table.forget_disk(term, disk(5)).await,
            table.forget_node(term, &node(9).node).await,
        ];
        for (at, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(matches!(error, CatalogError::StaleTerm { .. }), "call {at}: {error}");
        }
    }
    assert_eq!(subject.dump().await, before);
}

pub async fn frontends_read_locations_from_a_handle_of_their_own(subject: Subject) {
    let missing = subject.open_for_frontend().await;
    assert!(matches!(missing, Err(CatalogError::Missing { .. })), "{missing:?}");

    let (table, term) = open(&subject).await;
    let reader = subject.open_for_frontend().await.unwrap().table;
    assert_eq!(reader.locations(volume(1)).await.unwrap(), None);
    table.create_volume(term, &new(1)).await.unwrap();
    let found = reader.locations(volume(1)).await.unwrap().unwrap();
    assert_eq!((found.state, found.epoch, found.length), (VolumeState::Creating, EPOCH, None));
    let places: Vec<_> = found
        .replicas
        .iter()
        .map(|replica| (replica.disk, replica.node.0.as_str(), replica.address.as_str()))
        .collect();
    let expected = [
        (disk(3), "node-3", "https://127.0.0.1:3"),
        (disk(1), "node-1", "https://127.0.0.1:1"),
        (disk(2), "node-2", "https://127.0.0.1:2"),
    ];
    assert_eq!(places, expected);
    assert_eq!(found.replicas[0].zone, "zone-3");
    // Reads go on when the volume manager is gone.
    drop(table);
    assert_eq!(reader.locations(volume(1)).await.unwrap().unwrap(), found);
}

pub async fn a_generation_rises_when_it_is_told_to(subject: Subject) {
    let (table, term) = open(&subject).await;
    assert_eq!(table.generation().await.unwrap(), 1);
    assert_eq!(table.raise_generation(term).await.unwrap(), 2);
    assert_eq!(subject.open().await.table.generation().await.unwrap(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Fail,
    BeginSeal(u64),
    CommitLength(u64, u64),
    CommitSeal(u8, u8),
    SetReplicas(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        2 => proptest::strategy::Just(Step::Open),
        1 => proptest::strategy::Just(Step::Fail),
        3 => (1..4u64).prop_map(Step::BeginSeal),
        3 => (1..4u64, 0..4u64).prop_map(|(epoch, pages)| Step::CommitLength(epoch, pages * 4096)),
        3 => (0..2u8, 1..4u8).prop_map(|(digest, holders)| Step::CommitSeal(digest, holders)),
        2 => (1..4u8, 1..6u8).prop_map(|(old, new)| Step::SetReplicas(old, new)),
    ];
    prop::collection::vec((proptest::bool::ANY, step), 1..30)
}

async fn carry_out(table: &dyn ReplicationTable, term: Term, step: &Step) -> Result<Option<u64>, CatalogError> {
    let first = |count: u8| (1..=count).map(disk).collect::<Vec<_>>();
    match step {
        Step::Open => table.open_volume(term, volume(1)).await?,
        Step::Fail => table.fail_volume(term, volume(1), "").await?,
        Step::BeginSeal(epoch) => drop(table.begin_seal(term, volume(1), WriteEpoch(*epoch), "").await?),
        Step::CommitLength(epoch, length) => {
            return Ok(Some(table.commit_length(term, volume(1), WriteEpoch(*epoch), *length).await?.0));
        }
        Step::CommitSeal(digest, holders) => {
            table.commit_seal(term, volume(1), [*digest; 32], &first(*holders)).await?;
        }
        Step::SetReplicas(old, new) => table.set_replicas(term, volume(1), &first(*old), &first(*new)).await?,
    }
    Ok(None)
}

/// How far a volume has come; a volume never goes back, nor from failed to anything.
fn progress(state: VolumeState) -> u8 {
    match state {
        VolumeState::Creating => 0,
        VolumeState::Open => 1,
        VolumeState::Sealing => 2,
        VolumeState::Sealed => 3,
        VolumeState::Failed => 9,
    }
}

pub async fn length_and_digest_are_committed_once_whatever_is_called(subject: Subject) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..subject.cases() {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let subject = subject.another().await;
        let (table, term) = open(&subject).await;
        let handles = [table, subject.open().await.table];
        handles[0].create_volume(term, &new(1)).await.unwrap();
        let mut before = find(&*handles[0], 1).await;
        for (second, step) in &steps {
            let result = carry_out(&*handles[usize::from(*second)], term, step).await;
            let after = find(&*handles[usize::from(!*second)], 1).await;
            assert!(progress(after.state) >= progress(before.state), "{step:?} of {steps:?}");
            assert!(before.state != VolumeState::Sealed || after.state == VolumeState::Sealed);
            assert!(before.length.is_none() || after.length == before.length, "{step:?} of {steps:?}");
            assert!(before.digest.is_none() || after.digest == before.digest, "{step:?} of {steps:?}");
            assert_eq!(after.epoch.0, if matches!(progress(after.state), 2 | 3) { 2 } else { 1 });
            assert_eq!(after.state == VolumeState::Sealed, after.digest.is_some());
            assert!(after.state != VolumeState::Sealed || after.length.is_some());
            assert!(!after.replicas.is_empty());
            match result {
                Ok(Some(length)) => assert_eq!(after.length, Some(length)),
                Ok(None) => {}
                Err(_) => assert_eq!(after, before, "{step:?} of {steps:?}"),
            }
            before = after;
        }
    }
}
