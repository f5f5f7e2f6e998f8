use holdfast_libs_types::{CellId, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::{DiskInfo, LengthCommitted, NewVolume, Node, Registration, ReplicationTable, Term, Volume, VolumeState};
use crate::CatalogError;

const CELL: CellId = CellId([1; 16]);
const HOLDER: InstanceId = InstanceId([5; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);

fn volume(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

fn disk(number: u8) -> DiskId {
    DiskId([number; 16])
}

fn node(number: u8) -> Node {
    Node {
        node: NodeId(format!("node-{number}")),
        zone: format!("zone-{number}"),
        rack: format!("rack-{}", number % 2),
        address: format!("https://127.0.0.1:{number}"),
        instance: InstanceId([number; 16]),
        last_seen_ms: 1000,
    }
}

fn info(number: u8) -> DiskInfo {
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

fn new(number: u8) -> NewVolume {
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
fn open() -> (TempDir, ReplicationTable, Term) {
    let dir = TempDir::new().unwrap();
    let table = ReplicationTable::open(dir.path(), CELL).unwrap();
    let term = table.take_leadership().unwrap();
    for number in 1..=5 {
        table.upsert_node(term, &node(number)).unwrap();
        let registered = table.register_disk_incarnation(term, &info(number), 0, 1, u64::from(number)).unwrap();
        assert_eq!(registered, Registration::Accepted);
    }
    (dir, table, term)
}

fn find(table: &ReplicationTable, number: u8) -> Volume {
    table.volume(volume(number)).unwrap().unwrap()
}

#[test]
fn a_volume_lives_from_creating_to_sealed_and_each_step_can_be_repeated() {
    let (_dir, table, term) = open();
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
        table.create_volume(term, &new(7)).unwrap();
        assert_eq!(find(&table, 7), expected);
    }
    expected.state = VolumeState::Open;
    for _ in 0..2 {
        table.open_volume(term, volume(7)).unwrap();
        assert_eq!(find(&table, 7), expected);
    }
    expected.state = VolumeState::Sealing;
    expected.epoch = WriteEpoch(2);
    expected.seal_reason = Some("full".to_owned());
    for reason in ["full", "again"] {
        assert_eq!(table.begin_seal(term, volume(7), EPOCH, reason).unwrap(), WriteEpoch(2));
        assert_eq!(find(&table, 7), expected);
    }
    expected.length = Some(8192);
    for length in [8192, 4096] {
        let committed = table.commit_length(term, volume(7), WriteEpoch(2), length).unwrap();
        assert_eq!(committed, LengthCommitted(8192));
        assert_eq!(find(&table, 7), expected);
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
        table.commit_seal(term, volume(7), [9; 32], &[disk(1), disk(3)]).unwrap();
        assert_eq!(find(&table, 7), expected);
    }
    assert_eq!(table.begin_seal(term, volume(7), EPOCH, "late").unwrap(), WriteEpoch(2));
    assert_eq!(table.volumes().unwrap(), [expected]);
}

#[test]
fn what_contradicts_an_earlier_step_is_refused() {
    let (_dir, table, term) = open();
    table.create_volume(term, &new(1)).unwrap();
    let other = NewVolume { disks: vec![disk(1), disk(2), disk(4)], ..new(1) };
    assert!(matches!(table.create_volume(term, &other), Err(CatalogError::VolumeExists(_))));
    let unknown = NewVolume { disks: vec![disk(1), disk(2), disk(9)], ..new(2) };
    assert!(matches!(table.create_volume(term, &unknown), Err(CatalogError::UnknownDisk(found)) if found == disk(9)));
    let twice = NewVolume { disks: vec![disk(1), disk(2), disk(1)], ..new(2) };
    assert!(matches!(table.create_volume(term, &twice), Err(CatalogError::BadReplicas { .. })));
    assert_eq!(table.volume(volume(2)).unwrap(), None);

    let begun = table.begin_seal(term, volume(1), EPOCH, "");
    assert!(matches!(begun, Err(CatalogError::WrongState { state: VolumeState::Creating, .. })));
    table.open_volume(term, volume(1)).unwrap();
    assert!(matches!(table.fail_volume(term, volume(1), ""), Err(CatalogError::WrongState { .. })));
    assert!(matches!(table.begin_seal(term, volume(1), WriteEpoch(2), ""), Err(CatalogError::WrongEpoch { .. })));
    assert!(matches!(table.commit_length(term, volume(1), EPOCH, 0), Err(CatalogError::WrongState { .. })));
    let epoch = table.begin_seal(term, volume(1), EPOCH, "").unwrap();
    assert!(matches!(table.open_volume(term, volume(1)), Err(CatalogError::WrongState { .. })));
    let seal = |digest, disks: &[DiskId]| table.commit_seal(term, volume(1), digest, disks);
    assert!(matches!(seal([9; 32], &[disk(1)]), Err(CatalogError::SealConflict { .. })));
    assert!(matches!(table.commit_length(term, volume(1), EPOCH, 0), Err(CatalogError::WrongEpoch { .. })));
    let beyond = table.commit_length(term, volume(1), epoch, (60 << 20) + 1);
    assert!(matches!(beyond, Err(CatalogError::SealConflict { .. })));
    table.commit_length(term, volume(1), epoch, 4096).unwrap();
    assert!(matches!(seal([9; 32], &[]), Err(CatalogError::BadReplicas { .. })));
    assert!(matches!(seal([9; 32], &[disk(1), disk(4)]), Err(CatalogError::BadReplicas { .. })));
    assert_eq!(find(&table, 1).state, VolumeState::Sealing);
    seal([9; 32], &[disk(1)]).unwrap();
    assert!(matches!(seal([8; 32], &[disk(1)]), Err(CatalogError::SealConflict { .. })));
    assert!(matches!(table.open_volume(term, volume(8)), Err(CatalogError::UnknownVolume(_))));
}

#[test]
fn replicas_of_a_sealed_volume_change_by_compare_and_set() {
    let (_dir, table, term) = open();
    table.create_volume(term, &new(1)).unwrap();
    let set = |old: &[DiskId], new: &[DiskId]| table.set_replicas(term, volume(1), old, new);
    assert!(matches!(set(&new(1).disks, &[disk(4)]), Err(CatalogError::WrongState { .. })));
    table.open_volume(term, volume(1)).unwrap();
    let epoch = table.begin_seal(term, volume(1), EPOCH, "").unwrap();
    table.commit_length(term, volume(1), epoch, 4096).unwrap();
    table.commit_seal(term, volume(1), [9; 32], &[disk(1), disk(2)]).unwrap();
    let (old, repaired) = ([disk(1), disk(2)], [disk(1), disk(2), disk(4)]);
    set(&old, &repaired).unwrap();
    set(&old, &repaired).unwrap();
    let late = set(&old, &[disk(1), disk(2), disk(5)]);
    assert!(matches!(late, Err(CatalogError::ReplicasChanged { found, .. }) if found == repaired));
    assert!(matches!(set(&repaired, &[]), Err(CatalogError::BadReplicas { .. })));
    assert!(matches!(set(&repaired, &[disk(1), disk(8)]), Err(CatalogError::UnknownDisk(_))));
    assert_eq!(find(&table, 1).replicas, repaired);
}

#[test]
fn a_lease_is_renewed_for_its_holder_only_and_runs_out_otherwise() {
    let (_dir, table, term) = open();
    for number in 1..=3 {
        table.create_volume(term, &new(number)).unwrap();
    }
    table.open_volume(term, volume(1)).unwrap();
    table.open_volume(term, volume(2)).unwrap();
    let ids = |volumes: Vec<Volume>| volumes.iter().map(|volume| volume.volume.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(table.expired_leases(4999).unwrap()), [0u8; 0]);
    assert_eq!(ids(table.expired_leases(5000).unwrap()), [1, 2, 3]);
    let all = [volume(1), volume(3), volume(8)];
    assert_eq!(table.renew_leases(term, InstanceId([6; 16]), &all, 9000).unwrap(), []);
    assert_eq!(table.renew_leases(term, HOLDER, &all, 9000).unwrap(), [volume(1)]);
    assert_eq!(table.renew_leases(term, HOLDER, &all, 8000).unwrap(), [volume(1)]);
    assert_eq!(ids(table.expired_leases(8999).unwrap()), [2, 3]);
    table.begin_seal(term, volume(2), EPOCH, "lease ran out").unwrap();
    table.fail_volume(term, volume(3), "no answer from node-1").unwrap();
    table.fail_volume(term, volume(3), "again").unwrap();
    assert_eq!(ids(table.expired_leases(9000).unwrap()), [1]);
    assert_eq!(table.renew_leases(term, HOLDER, &[volume(2)], 9000).unwrap(), []);
    assert_eq!(find(&table, 3).seal_reason.as_deref(), Some("no answer from node-1"));
    assert_eq!(ids(table.volumes_in(&[VolumeState::Failed, VolumeState::Open]).unwrap()), [1, 3]);
    assert_eq!(ids(table.volumes_in(&[]).unwrap()), [0u8; 0]);
}

#[test]
fn a_disk_registers_with_the_nonce_it_was_given_or_not_at_all() {
    let (_dir, table, term) = open();
    let register = |info: &DiskInfo, previous, incarnation, nonce| {
        table.register_disk_incarnation(term, info, previous, incarnation, nonce).unwrap()
    };
    let moved = DiskInfo { node: node(2).node, path: "/dev/elsewhere".to_owned(), ..info(1) };
    let find = || table.disks().unwrap().swap_remove(0);
    // The answer was lost: the disk proposes the same again.
    assert_eq!(register(&info(1), 0, 1, 1), Registration::Accepted);
    assert_eq!(register(&info(1), 1, 2, u64::MAX), Registration::Accepted);
    let stands = find();
    assert_eq!((stands.incarnation, stands.nonce, &stands.info), (2, u64::MAX, &info(1)));
    // A clone from before that.
    for (previous, nonce) in [(1, 77), (0, 78), (5, 1)] {
        let Registration::Refused(why) = register(&moved, previous, 2, nonce) else { panic!("accepted") };
        assert!(why.contains("node node-1") && why.contains("clone"), "{why}");
        assert_eq!(find(), stands);
    }
    assert!(matches!(register(&info(1), u64::MAX, 3, 0), Registration::Refused(_)));
    // The disk itself, put into another node.
    assert_eq!(register(&moved, u64::MAX, 3, 79), Registration::Accepted);
    assert_eq!(find().info, moved);
    let stranger = DiskInfo { node: NodeId("node-99".to_owned()), ..info(9) };
    let refused = table.register_disk_incarnation(term, &stranger, 0, 1, 5);
    assert!(matches!(refused, Err(CatalogError::UnknownNode(_))));
}

#[test]
fn a_heartbeat_updates_a_disk_but_takes_it_from_nobody() {
    let (_dir, table, term) = open();
    let sick = DiskInfo { state: "failed".to_owned(), reason: Some("EIO".to_owned()), free_slots: 3, ..info(2) };
    table.upsert_disk(term, &sick).unwrap();
    let found = table.disks().unwrap().swap_remove(1);
    assert_eq!((found.info, found.nonce), (sick, 2));
    let stolen = DiskInfo { node: node(1).node, ..info(2) };
    assert!(
        matches!(table.upsert_disk(term, &stolen), Err(CatalogError::DiskElsewhere { node, .. }) if node.0 == "node-2")
    );
    assert!(matches!(table.upsert_disk(term, &info(9)), Err(CatalogError::UnknownDisk(_))));
    let moved = Node { address: "https://127.0.0.1:99".to_owned(), last_seen_ms: 2000, ..node(2) };
    table.upsert_node(term, &moved).unwrap();
    assert_eq!(table.nodes().unwrap(), [node(1), moved, node(3), node(4), node(5)]);
}

/// Every row of every table.
fn dump(dir: &TempDir) -> Vec<Vec<Value>> {
    let raw = Connection::open(dir.path().join("table.db")).unwrap();
    let mut rows = Vec::new();
    for table in ["meta", "leader", "volumes", "nodes", "disks", "replicas"] {
        let mut statement = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let found = statement.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

#[test]
fn a_leader_that_was_replaced_changes_nothing() {
    let (dir, table, old) = open();
    table.create_volume(old, &new(1)).unwrap();
    table.create_volume(old, &new(2)).unwrap();
    table.open_volume(old, volume(2)).unwrap();
    table.create_volume(old, &new(3)).unwrap();
    table.open_volume(old, volume(3)).unwrap();
    let epoch = table.begin_seal(old, volume(3), EPOCH, "").unwrap();
    table.create_volume(old, &new(4)).unwrap();
    table.open_volume(old, volume(4)).unwrap();
    table.begin_seal(old, volume(4), EPOCH, "").unwrap();
    table.commit_length(old, volume(4), epoch, 0).unwrap();
    table.create_volume(old, &new(5)).unwrap();
    table.open_volume(old, volume(5)).unwrap();
    table.begin_seal(old, volume(5), EPOCH, "").unwrap();
    table.commit_length(old, volume(5), epoch, 0).unwrap();
    table.commit_seal(old, volume(5), [1; 32], &[disk(1)]).unwrap();

    let current = ReplicationTable::open(dir.path(), CELL).unwrap().take_leadership().unwrap();
    assert!(current > old);
    assert_eq!(table.term().unwrap(), current);
    let before = dump(&dir);
    let sick = DiskInfo { state: "failed".to_owned(), ..info(1) };
    for term in [old, Term(current.0 + 1)] {
        let results = [
            table.create_volume(term, &new(6)),
            table.open_volume(term, volume(1)),
            table.fail_volume(term, volume(1), ""),
            table.renew_leases(term, HOLDER, &[volume(2)], 9000).map(|_| ()),
            table.begin_seal(term, volume(2), EPOCH, "").map(|_| ()),
            table.commit_length(term, volume(3), epoch, 4096).map(|_| ()),
            table.commit_seal(term, volume(4), [2; 32], &[disk(1)]),
            table.set_replicas(term, volume(5), &[disk(1)], &[disk(1), disk(2)]),
            table.upsert_node(term, &Node { last_seen_ms: 9, ..node(1) }),
            table.upsert_disk(term, &sick),
            table.register_disk_incarnation(term, &info(1), 1, 2, 77).map(|_| ()),
            table.raise_generation(term).map(|_| ()),
        ];
        for (at, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(matches!(error, CatalogError::StaleTerm { .. }), "call {at}: {error}");
        }
    }
    assert_eq!(dump(&dir), before);
}

#[test]
fn frontends_read_locations_from_a_handle_of_their_own() {
    let nowhere = TempDir::new().unwrap();
    let missing = ReplicationTable::open_read_only(nowhere.path(), CELL);
    assert!(matches!(missing, Err(CatalogError::Missing { .. })));

    let (dir, table, term) = open();
    let reader = ReplicationTable::open_read_only(dir.path(), CELL).unwrap();
    assert_eq!(reader.locations(volume(1)).unwrap(), None);
    table.create_volume(term, &new(1)).unwrap();
    let found = reader.locations(volume(1)).unwrap().unwrap();
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
    assert_eq!(reader.locations(volume(1)).unwrap().unwrap(), found);
}

#[test]
fn a_generation_rises_when_it_is_told_to() {
    let (dir, table, term) = open();
    assert_eq!(table.generation().unwrap(), 1);
    assert_eq!(table.raise_generation(term).unwrap(), 2);
    assert_eq!(ReplicationTable::open(dir.path(), CELL).unwrap().generation().unwrap(), 2);
}

#[test]
fn a_state_nobody_writes_is_reported_as_damage() {
    let (dir, table, term) = open();
    table.create_volume(term, &new(1)).unwrap();
    let raw = Connection::open(dir.path().join("table.db")).unwrap();
    raw.execute("UPDATE volumes SET state = 'molten'", []).unwrap();
    let error = table.volume(volume(1)).unwrap_err();
    assert!(error.to_string().contains("a volume's state is \"molten\""), "{error}");
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

fn apply(table: &ReplicationTable, term: Term, step: &Step) -> Result<Option<u64>, CatalogError> {
    let first = |count: u8| (1..=count).map(disk).collect::<Vec<_>>();
    match step {
        Step::Open => table.open_volume(term, volume(1)).map(|()| None),
        Step::Fail => table.fail_volume(term, volume(1), "").map(|()| None),
        Step::BeginSeal(epoch) => table.begin_seal(term, volume(1), WriteEpoch(*epoch), "").map(|_| None),
        Step::CommitLength(epoch, length) => {
            table.commit_length(term, volume(1), WriteEpoch(*epoch), *length).map(|length| Some(length.0))
        }
        Step::CommitSeal(digest, holders) => {
            table.commit_seal(term, volume(1), [*digest; 32], &first(*holders)).map(|()| None)
        }
        Step::SetReplicas(old, new) => table.set_replicas(term, volume(1), &first(*old), &first(*new)).map(|()| None),
    }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn length_and_digest_are_committed_once_whatever_is_called(steps in steps()) {
        let (dir, table, term) = open();
        let handles = [table, ReplicationTable::open(dir.path(), CELL).unwrap()];
        handles[0].create_volume(term, &new(1)).unwrap();
        let mut before = find(&handles[0], 1);
        for (second, step) in &steps {
            let result = apply(&handles[usize::from(*second)], term, step);
            let after = find(&handles[usize::from(!*second)], 1);
            prop_assert!(progress(after.state) >= progress(before.state), "{:?}", step);
            prop_assert!(before.state != VolumeState::Sealed || after.state == VolumeState::Sealed);
            prop_assert!(before.length.is_none() || after.length == before.length, "{:?}", step);
            prop_assert!(before.digest.is_none() || after.digest == before.digest, "{:?}", step);
            prop_assert_eq!(after.epoch.0, if matches!(progress(after.state), 2 | 3) { 2 } else { 1 });
            prop_assert_eq!(after.state == VolumeState::Sealed, after.digest.is_some());
            prop_assert!(after.state != VolumeState::Sealed || after.length.is_some());
            prop_assert!(!after.replicas.is_empty());
            match result {
                Ok(Some(length)) => prop_assert_eq!(after.length, Some(length)),
                Ok(None) => {}
                Err(_) => prop_assert_eq!(&after, &before),
            }
            before = after;
        }
    }
}
