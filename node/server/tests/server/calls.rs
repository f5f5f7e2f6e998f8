//! What each call of the node does, and who may make it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{self, TestNode, VolumeManager, batch, certificates, config, eventually, folder, http};
use holdfast_libs_transport::{CallError, Role, ServiceTokens};
use holdfast_libs_types::{DiskId, MAX_BATCH_BYTES, VolumeId, WriteEpoch};
use holdfast_node_client::{
    CancelCopy, CopyRequest, CreateExtent, DiskState, ExtentInfo, ExtentState, FenceRequest, GivesWay, KeyringBody,
    RestoreRequest, SealRequest, Source, TrashRequest, code,
};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VOLUME: VolumeId = VolumeId([5; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);
const DEADLINE: Duration = Duration::from_secs(10);

fn code_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> (String, serde_json::Value) {
    match result.unwrap_err() {
        CallError::Api(error) => (error.code, error.detail),
        other => panic!("no answer of the protocol: {other}"),
    }
}

struct Setup {
    node: TestNode,
    _dir: tempfile::TempDir,
}

async fn setup() -> Setup {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 1, &volume_manager.address)).await;
    Setup { node, _dir: dir }
}

async fn create(node: &TestNode, volume: VolumeId) {
    let order = CreateExtent { disk: node.disk().await, volume, epoch: EPOCH, term: 1 };
    assert_eq!(node.client(Role::VolumeManager).create_extent(&order).await.unwrap().tail, 0);
}

#[tokio::test]
async fn a_batch_is_appended_read_fenced_sealed_and_listed() {
    let Setup { node, _dir } = setup().await;
    let disk = node.disk().await;
    create(&node, VOLUME).await;
    let (frontend, leader) = (node.client(Role::Frontend), node.client(Role::VolumeManager));

    let (bytes, places) = batch(VOLUME, 0, &[vec![1; 10], vec![2; 100_000]]);
    let tail = frontend.append(disk, VOLUME, EPOCH, 0, bytes.clone(), DEADLINE).await.unwrap().tail;
    assert_eq!(tail, bytes.len() as u64);
    let again = frontend.append(disk, VOLUME, EPOCH, 0, bytes.clone(), DEADLINE).await.unwrap().tail;
    assert_eq!(again, tail, "the same bytes again are acknowledged");
    for (offset, length) in places {
        let record = frontend.read_record(disk, VOLUME, offset, length, DEADLINE).await.unwrap();
        assert_eq!(record, bytes.slice(offset as usize..(offset + u64::from(length)) as usize));
    }

    let fence = FenceRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), term: 1 };
    assert_eq!(leader.fence(&fence).await.unwrap().tail, tail);
    let (next, _) = batch(VOLUME, tail, &[vec![3; 10]]);
    let (refused, detail) = code_of(frontend.append(disk, VOLUME, EPOCH, tail, next, DEADLINE).await);
    assert_eq!((refused.as_str(), &detail["epoch"]), (code::FENCED, &serde_json::json!(2)));

    let seal = SealRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), length: tail, term: 1 };
    let sealed = leader.seal(&seal).await.unwrap();
    assert_eq!(sealed.digest, holdfast_libs_types::BlockHash::of(&bytes).to_string());
    let extents = leader.extents(disk).await.unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!((extents[0].state, extents[0].tail), (ExtentState::Sealed, tail));
    assert_eq!(extents[0].digest.as_ref(), Some(&sealed.digest));
    assert_eq!(leader.extent(disk, VOLUME).await.unwrap(), extents[0]);
    assert_eq!(code_of(leader.extent(disk, VolumeId([9; 16])).await).0, code::UNKNOWN_VOLUME);
    assert_eq!(node.client(Role::Node).read_bytes(disk, VOLUME, 0, tail as u32).await.unwrap(), bytes);

    let status = node.client(Role::Admin).status().await.unwrap();
    assert_eq!((status.disks[0].state.clone(), status.disks[0].direct), (DiskState::Healthy, true));
    assert_eq!(status.disks[0].free_slots, status.disks[0].slots - 1);
    node.stop().await;
}

#[tokio::test]
async fn each_refusal_has_its_code_and_detail() {
    let Setup { node, _dir } = setup().await;
    let disk = node.disk().await;
    create(&node, VOLUME).await;
    let (frontend, leader) = (node.client(Role::Frontend), node.client(Role::VolumeManager));
    let (first, places) = batch(VOLUME, 0, &[vec![1; 10]]);
    frontend.append(disk, VOLUME, EPOCH, 0, first, DEADLINE).await.unwrap();
    let append = |volume, offset, bytes| frontend.append(disk, volume, EPOCH, offset, bytes, DEADLINE);

    let (other, _) = batch(VOLUME, 0, &[vec![9; 10]]);
    assert_eq!(code_of(append(VOLUME, 0, other).await).0, code::CONFLICTING_REPEAT);
    let (ahead, _) = batch(VOLUME, 8192, &[vec![9; 10]]);
    let (not_tail, detail) = code_of(append(VOLUME, 8192, ahead).await);
    assert_eq!((not_tail.as_str(), &detail["tail"]), (code::NOT_TAIL, &serde_json::json!(4096)));
    assert_eq!(code_of(append(VOLUME, 4096, vec![0; 4096].into()).await).0, code::INVALID_BATCH);
    assert_eq!(code_of(append(VOLUME, 4096, vec![0; MAX_BATCH_BYTES + 4096].into()).await).0, code::INVALID_BATCH);
    let full = batch(VOLUME, 4096, &vec![vec![1; 4 << 20]; 4]).0;
    assert_eq!(code_of(append(VOLUME, 4096, full).await).0, code::VOLUME_FULL);
    let elsewhere = VolumeId([6; 16]);
    let (lost, _) = batch(elsewhere, 0, &[vec![9; 10]]);
    assert_eq!(code_of(append(elsewhere, 0, lost).await).0, code::UNKNOWN_VOLUME);

    let (offset, length) = places[0];
    let read = |disk, offset, length| frontend.read_record(disk, VOLUME, offset, length, DEADLINE);
    assert_eq!(code_of(read(DiskId([1; 16]), offset, length).await).0, code::UNKNOWN_DISK);
    let (damaged, detail) = code_of(read(disk, offset + 1, length).await);
    assert_eq!((damaged.as_str(), &detail["offset"]), (code::DAMAGED, &serde_json::json!(offset + 1)));
    let (beyond, detail) = code_of(read(disk, 4096, length).await);
    assert_eq!((beyond.as_str(), &detail["tail"]), (code::OUT_OF_RANGE, &serde_json::json!(4096)));
    assert_eq!(code_of(read(disk, 0, u32::MAX).await).0, "bad_request");

    let fence = |term| FenceRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), term };
    leader.fence(&fence(7)).await.unwrap();
    let (stale, detail) = code_of(leader.fence(&fence(6)).await);
    assert_eq!((stale.as_str(), &detail["term"]), (code::STALE_TERM, &serde_json::json!(7)));
    let seal = |length| SealRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), length, term: 7 };
    let (short, detail) = code_of(leader.seal(&seal(8192)).await);
    assert_eq!((short.as_str(), &detail["tail"]), (code::TOO_SHORT, &serde_json::json!(4096)));
    leader.seal(&seal(4096)).await.unwrap();
    assert_eq!(code_of(leader.seal(&seal(0)).await).0, code::SEALED_OTHERWISE);
    node.stop().await;
}

#[tokio::test]
async fn every_call_is_open_to_its_roles_only() {
    let Setup { node, _dir } = setup().await;
    let disk = node.disk().await;
    let all = [Role::Frontend, Role::VolumeManager, Role::Node, Role::Metadata, Role::Admin];
    let volume = format!("/v1/disks/{disk}/volumes/{VOLUME}");
    let table: Vec<(Method, String, Vec<Role>)> = vec![
        (Method::GET, "/v1/status".to_owned(), all.to_vec()),
        (Method::GET, "/metrics".to_owned(), all.to_vec()),
        (Method::GET, format!("/v1/disks/{disk}/extents"), vec![Role::VolumeManager, Role::Admin]),
        (Method::POST, "/v1/extents".to_owned(), vec![Role::VolumeManager]),
        (Method::PUT, format!("{volume}/append?epoch=1&offset=0"), vec![Role::Frontend]),
        (Method::GET, format!("{volume}/record?offset=0&length=1"), vec![Role::Frontend, Role::Admin]),
        (Method::GET, format!("{volume}/bytes?offset=0&length=1"), vec![Role::Node, Role::VolumeManager, Role::Admin]),
        (Method::POST, "/v1/fence".to_owned(), vec![Role::VolumeManager]),
        (Method::POST, "/v1/seal".to_owned(), vec![Role::VolumeManager]),
        (Method::POST, "/v1/copy".to_owned(), vec![Role::VolumeManager]),
        (Method::POST, "/v1/keyring".to_owned(), vec![Role::VolumeManager]),
        (Method::POST, "/v1/trash".to_owned(), vec![Role::VolumeManager]),
        (Method::POST, "/v1/restore".to_owned(), vec![Role::VolumeManager]),
        (Method::GET, format!("/v1/disks/{disk}/trash"), vec![Role::VolumeManager, Role::Admin]),
        (Method::GET, format!("/v1/disks/{disk}/records/{VOLUME}"), vec![Role::VolumeManager, Role::Admin]),
        (Method::GET, format!("/v1/disks/{disk}/scrub"), vec![Role::VolumeManager, Role::Admin]),
        (Method::POST, format!("/v1/disks/{disk}/scrub"), vec![Role::VolumeManager, Role::Admin]),
        (Method::POST, "/v1/disks/rescan".to_owned(), vec![Role::Admin]),
        (Method::GET, "/v1/health".to_owned(), all.to_vec()),
    ];
    for (method, path, accepted) in table {
        let status = async |role: Option<Role>| {
            let request = Request::builder().method(&method).uri(format!("{}{path}", node.address));
            let request = request.body(Full::default()).unwrap();
            http(&node.tls, role).send(request, DEADLINE).await.unwrap().status()
        };
        assert_eq!(status(None).await, StatusCode::UNAUTHORIZED, "{path} without a token");
        for role in all {
            let refused = status(Some(role)).await == StatusCode::FORBIDDEN;
            assert_eq!(refused, !accepted.contains(&role), "{path} as {}", role.name());
        }
    }
    assert_eq!(http(&node.tls, None).get(&format!("{}/healthz", node.address), 100, DEADLINE).await.unwrap(), "ok");
    let url = format!("{}/metrics", node.address);
    let metrics = http(&node.tls, Some(Role::Admin)).get(&url, 1 << 20, DEADLINE).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains(&format!("holdfast_node_disk_healthy{{disk=\"{disk}\"}} 1")), "{metrics}");
    node.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_to_use_tls() {
    let Setup { node, _dir } = setup().await;
    let mut stream = tokio::net::TcpStream::connect(node.address.strip_prefix("https://").unwrap()).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("HTTPS only"), "{answer}");
    node.stop().await;
}

#[tokio::test]
async fn after_a_restart_open_extents_take_no_appends_and_still_serve_reads() {
    let Setup { node, _dir } = setup().await;
    let disk = node.disk().await;
    create(&node, VOLUME).await;
    let (bytes, places) = batch(VOLUME, 0, &[vec![1; 10]]);
    let tail = node.client(Role::Frontend).append(disk, VOLUME, EPOCH, 0, bytes, DEADLINE).await.unwrap().tail;
    let node = node.restart().await;
    let frontend = node.client(Role::Frontend);
    let (next, _) = batch(VOLUME, tail, &[vec![2; 10]]);
    assert_eq!(code_of(frontend.append(disk, VOLUME, EPOCH, tail, next, DEADLINE).await).0, code::FENCED);
    let (offset, length) = places[0];
    frontend.read_record(disk, VOLUME, offset, length, DEADLINE).await.unwrap();
    node.stop().await;
}

/// Announces an append of the largest size and sends nothing of it.
async fn stalled_append(node: &TestNode, disk: DiskId) -> impl Sized {
    let place = node.address.strip_prefix("https://").unwrap();
    let stream = tokio::net::TcpStream::connect(place).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(node.tls.client().unwrap());
    let mut stream = connector.connect(name, stream).await.unwrap();
    let token = ServiceTokens::new(&support::SECRET).token(Role::Frontend);
    let head = format!(
        "PUT /v1/disks/{disk}/volumes/{VOLUME}/append?epoch=1&offset=0 HTTP/1.1\r\nHost: {place}\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {MAX_BATCH_BYTES}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_do_not_come_cannot_take_more_than_the_memory_for_bodies() {
    let Setup { node, _dir } = setup().await;
    let disk = node.disk().await;
    create(&node, VOLUME).await;
    let frontend = node.client(Role::Frontend);
    let mut stalled = Vec::new();
    for _ in 0..6 {
        stalled.push(stalled_append(&node, disk).await);
    }
    let (bytes, _) = batch(VOLUME, 0, &[vec![1; 4 << 20], vec![1; 4 << 20], vec![1; 3 << 20]]);
    let append = || frontend.append(disk, VOLUME, EPOCH, 0, bytes.clone(), DEADLINE);
    eventually("the node is busy", async || (append().await.err()?.code() == Some(code::BUSY)).then_some(())).await;
    drop(stalled);
    eventually("it takes appends again", async || append().await.ok()).await;
    node.stop().await;
}

/// A batch, and where its records stand.
fn two_records() -> (bytes::Bytes, Vec<(u64, u32)>) {
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 3) as u8).collect();
    batch(VOLUME, 0, &[payload.clone(), payload])
}

/// Two nodes that hold the same sealed volume, and a third that holds nothing.
async fn three_nodes(dir: &tempfile::TempDir) -> (Vec<TestNode>, CopyRequest) {
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(TestNode::start(config(dir.path(), &tls, &format!("node-{n}"), 1, &volume_manager.address)).await);
    }
    let (bytes, _) = two_records();
    let mut sources = Vec::new();
    let mut sealed = None;
    for node in &nodes[..2] {
        let disk = node.disk().await;
        create(node, VOLUME).await;
        let tail =
            node.client(Role::Frontend).append(disk, VOLUME, EPOCH, 0, bytes.clone(), DEADLINE).await.unwrap().tail;
        let leader = node.client(Role::VolumeManager);
        leader.fence(&FenceRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), term: 1 }).await.unwrap();
        let seal = SealRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), length: tail, term: 1 };
        sealed = Some(leader.seal(&seal).await.unwrap());
        sources.push(Source { address: node.address.clone(), disk });
    }
    let sealed = sealed.unwrap();
    let order = CopyRequest {
        disk: nodes[2].disk().await,
        volume: VOLUME,
        epoch: WriteEpoch(2),
        length: sealed.length,
        digest: sealed.digest,
        sources,
        urgent: false,
        instead_of: None,
        term: 1,
    };
    (nodes, order)
}

#[tokio::test]
async fn where_the_trash_has_the_replica_it_is_read_back_and_taken_out_and_no_source_is_asked() {
    for damaged in [false, true] {
        let dir = folder();
        let (nodes, order) = three_nodes(&dir).await;
        let leader = nodes[0].client(Role::VolumeManager);
        let disk = nodes[0].disk().await;
        let extent = leader.extent(disk, VOLUME).await.unwrap();
        let trash = TrashRequest {
            disk,
            volume: VOLUME,
            slot: extent.slot.try_into().unwrap(),
            slot_generation: extent.slot_generation.try_into().unwrap(),
            term: 2,
            order: "0c".repeat(16),
        };
        leader.trash(&trash).await.unwrap();
        let order = CopyRequest { disk, sources: Vec::new(), term: 2, ..order };
        let other = CopyRequest { digest: "00".repeat(32), ..order.clone() };
        assert_eq!(code_of(leader.copy(&other).await).0, code::DAMAGED, "it names no source");
        assert_eq!(code_of(leader.copy(&CopyRequest { term: 1, ..order.clone() }).await).0, code::STALE_TERM);
        if damaged {
            damage(&nodes[0]);
            assert_eq!(code_of(leader.copy(&order).await).0, code::DAMAGED);
            let extent = leader.extent(disk, VOLUME).await.unwrap();
            assert!(extent.state == ExtentState::Trashed && extent.note.is_some(), "{extent:?}");
            let from_others = CopyRequest {
                sources: vec![Source { address: nodes[1].address.clone(), disk: nodes[1].disk().await }],
                ..order
            };
            let copied = leader.copy(&from_others).await.unwrap();
            assert!(!copied.restored, "what is damaged stays in the trash, beside the copy");
            let held: Vec<ExtentState> = leader.extents(disk).await.unwrap().iter().map(|one| one.state).collect();
            assert_eq!(held, [ExtentState::Trashed, ExtentState::Sealed]);
            continue;
        }
        let restored = leader.copy(&order).await.unwrap();
        assert_eq!((restored.length, &restored.digest, restored.restored), (order.length, &order.digest, true));
        let extent = leader.extent(disk, VOLUME).await.unwrap();
        assert_eq!((extent.state, extent.digest.as_ref()), (ExtentState::Sealed, Some(&order.digest)));
        assert!(!leader.copy(&order).await.unwrap().restored, "a repeat finds it there");
    }
}

#[tokio::test]
async fn what_is_no_replica_serves_on_until_the_copy_is_whole_and_gives_way_only_to_that() {
    let dir = folder();
    let (nodes, order) = three_nodes(&dir).await;
    let disk = nodes[0].disk().await;
    let [leader, frontend] = [Role::VolumeManager, Role::Frontend].map(|role| nodes[0].client(role));
    let stands = leader.extent(disk, VOLUME).await.unwrap();
    let named = GivesWay {
        slot: stands.slot.try_into().unwrap(),
        slot_generation: stands.slot_generation.try_into().unwrap(),
        order: "0d".repeat(16),
    };
    let from = async |node: &TestNode| vec![Source { address: node.address.clone(), disk: node.disk().await }];
    let order = CopyRequest { disk, sources: from(&nodes[1]).await, instead_of: Some(named.clone()), term: 2, ..order };
    assert!(!leader.copy(&order).await.unwrap().restored, "a sound replica is the answer itself");
    assert_eq!(leader.extents(disk).await.unwrap().len(), 1);

    damage(&nodes[0]);
    let (at, length) = two_records().1[0];
    let read = async || frontend.read_record(disk, VOLUME, at, length, DEADLINE).await;
    assert_eq!(code_of(read().await).0, code::DAMAGED);
    let unnamed = CopyRequest { instead_of: None, ..order.clone() };
    assert_eq!(code_of(leader.copy(&unnamed).await).0, code::ALREADY_EXISTS);
    let bad = GivesWay { order: "0d".to_owned(), ..named.clone() };
    let wrong = GivesWay { slot_generation: named.slot_generation + 1, ..named.clone() };
    for (instead_of, expected) in [(bad, "bad_request"), (wrong, code::WRONG_ORDER)] {
        let order = CopyRequest { instead_of: Some(instead_of), ..order.clone() };
        assert_eq!(code_of(leader.copy(&order).await).0, expected);
    }
    let away =
        CopyRequest { sources: vec![Source { address: "https://127.0.0.1:1".to_owned(), disk }], ..order.clone() };
    assert_eq!(code_of(leader.copy(&away).await).0, code::DAMAGED, "no source gives it");
    let held = leader.extents(disk).await.unwrap();
    assert_eq!((held.len(), held[0].state, held[0].slot), (1, ExtentState::Damaged, stands.slot));

    assert!(!leader.copy(&order).await.unwrap().restored);
    let held = leader.extents(disk).await.unwrap();
    let states: Vec<ExtentState> = held.iter().map(|extent| extent.state).collect();
    assert_eq!(states, [ExtentState::Trashed, ExtentState::Sealed]);
    assert_eq!(held[0].order, Some(named.order));
    assert_eq!(held[1].digest.as_ref(), Some(&order.digest));
    assert!(!leader.copy(&order).await.unwrap().restored, "a repeat finds it there");
    read().await.unwrap();

    // The other way round: a sound replica lies in the trash beside what stands and is damaged.
    let slot_of = |extent: &ExtentInfo| -> (u32, u32) {
        (extent.slot.try_into().unwrap(), extent.slot_generation.try_into().unwrap())
    };
    let (slot, slot_generation) = slot_of(&held[1]);
    let away = TrashRequest { disk, volume: VOLUME, slot, slot_generation, term: 2, order: "0e".repeat(16) };
    leader.trash(&away).await.unwrap();
    let (slot, slot_generation) = slot_of(&held[0]);
    leader.restore(&RestoreRequest { disk, volume: VOLUME, slot, slot_generation, term: 2 }).await.unwrap();
    assert_eq!(code_of(read().await).0, code::DAMAGED);
    let named = GivesWay { order: "0f".repeat(16), ..order.instead_of.clone().unwrap() };
    let order = CopyRequest { instead_of: Some(named), ..order };
    assert!(!leader.copy(&order).await.unwrap().restored, "it is pulled");
    let held: Vec<ExtentState> = leader.extents(disk).await.unwrap().iter().map(|extent| extent.state).collect();
    assert_eq!(held, [ExtentState::Trashed, ExtentState::Trashed, ExtentState::Sealed]);
    read().await.unwrap();
}

/// Flips one bit of a volume on a disk file, behind the node's back.
fn damage(node: &TestNode) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(node.disk_file(0)).unwrap();
    let all = std::fs::read(node.disk_file(0)).unwrap();
    let pattern: Vec<u8> = (80_000..80_064_u32).map(|n| (n >> 3) as u8).collect();
    let at = all.windows(64).position(|window| window == pattern).expect("the payload is on the disk");
    file.write_all_at(&[all[at] ^ 1], at as u64).unwrap();
}

#[tokio::test]
async fn a_copy_is_pulled_from_the_first_source_whose_bytes_have_the_digest() {
    let dir = folder();
    let (nodes, mut order) = three_nodes(&dir).await;
    let away = Source { address: "https://127.0.0.1:1".to_owned(), disk: order.disk };
    order.sources.insert(0, away);
    damage(&nodes[0]);
    let leader = nodes[2].client(Role::VolumeManager);
    let copied = leader.copy(&order).await.unwrap();
    assert_eq!((copied.length, &copied.digest), (order.length, &order.digest));
    assert_eq!(leader.copy(&order).await.unwrap(), copied, "a repeat is harmless");
    let extents = leader.extents(order.disk).await.unwrap();
    assert_eq!((extents[0].state, extents[0].digest.as_ref()), (ExtentState::Sealed, Some(&order.digest)));
    let length = order.length as u32;
    let original = nodes[1].disk().await;
    let first = nodes[1].client(Role::Node).read_bytes(original, VOLUME, 0, length).await.unwrap();
    let second = nodes[2].client(Role::Node).read_bytes(order.disk, VOLUME, 0, length).await.unwrap();
    assert_eq!(first, second);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_copy_that_no_source_can_give_is_refused_and_takes_no_slot() {
    let dir = folder();
    let (nodes, order) = three_nodes(&dir).await;
    damage(&nodes[0]);
    damage(&nodes[1]);
    let leader = nodes[2].client(Role::VolumeManager);
    assert_eq!(code_of(leader.copy(&order).await).0, code::DAMAGED);
    assert_eq!(leader.extents(order.disk).await.unwrap(), Vec::new());
    let none = CopyRequest { sources: Vec::new(), ..order.clone() };
    assert_eq!(code_of(leader.copy(&none).await).0, code::DAMAGED);
    let bad = CopyRequest { digest: "x".to_owned(), ..order };
    assert_eq!(code_of(leader.copy(&bad).await).0, "bad_request");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_copy_that_is_not_needed_any_more_is_given_up_by_an_order_and_takes_no_slot() {
    let dir = folder();
    let (nodes, mut order) = three_nodes(&dir).await;
    // It takes connections and answers nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    order.sources = vec![Source { address: format!("https://{}", silent.local_addr().unwrap()), disk: order.disk }];
    let leader = nodes[2].client(Role::VolumeManager);
    let copying = tokio::spawn({
        let (leader, order) = (leader.clone(), order.clone());
        async move { leader.copy(&order).await }
    });
    let extents = async || leader.extents(order.disk).await.unwrap().len();
    eventually("it is begun", async || (extents().await == 1).then_some(())).await;
    let cancel = |under_way| CancelCopy { disk: order.disk, volume: VOLUME, under_way, term: order.term };
    leader.cancel_copy(&cancel(false)).await.unwrap();
    assert_eq!(extents().await, 1, "it is under way");
    leader.cancel_copy(&cancel(true)).await.unwrap();
    assert_eq!(code_of(copying.await.unwrap()).0, code::CANCELLED);
    assert_eq!(extents().await, 0);
    leader.cancel_copy(&cancel(true)).await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}

fn keyring<const N: usize>(generation: u64, keys: [(u8, u8); N]) -> KeyringBody {
    KeyringBody { generation, keys: keys.map(|(id, key)| (hex::encode([id; 16]), format!("{key:02x}"))).to_vec() }
}

#[tokio::test]
async fn no_key_is_lost_from_the_disks_by_a_keyring_that_does_not_have_it() {
    let Setup { node, _dir } = setup().await;
    let leader = node.client(Role::VolumeManager);
    // A catalog that was made again from other disks counts anew, and does not know what only these disks have.
    leader.put_keyring(&keyring(6, [(1, 0xaa), (2, 0xbb)])).await.unwrap();
    for (generation, key) in [(5, 3), (6, 4), (7, 5)] {
        leader.put_keyring(&keyring(generation, [(1, 0xaa), (key, 0xcc)])).await.unwrap();
    }
    let has = leader.keyring().await.unwrap();
    let ids: BTreeSet<String> = has.keys.into_iter().map(|(id, _)| id).collect();
    assert_eq!((has.generation, ids), (7, [1, 2, 3, 4, 5].map(|id: u8| hex::encode([id; 16])).into()));
    node.stop().await;
}

#[tokio::test]
async fn no_key_is_lost_when_keyrings_come_at_once() {
    let Setup { node, _dir } = setup().await;
    let leader = node.client(Role::VolumeManager);
    let given: Vec<KeyringBody> = (1..=8).map(|number| keyring(number.into(), [(number, 0xaa)])).collect();
    for stored in join_all(given.iter().map(|keyring| leader.put_keyring(keyring))).await {
        assert_eq!(stored.unwrap().missing, []);
    }
    let ids: BTreeSet<String> = leader.keyring().await.unwrap().keys.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (1..=8).map(|id: u8| hex::encode([id; 16])).collect());
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_does_not_take_the_keyring_is_named() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    {
        let mut heard = volume_manager.heard.lock().unwrap();
        (heard.refuse, heard.accept_first) = (Some("not this one".to_owned()), true);
    }
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 2, &volume_manager.address)).await;
    let disks = eventually("the second disk is read-only", async || {
        let disks = node.client(Role::Admin).status().await.unwrap().disks;
        (disks[1].state == DiskState::ReadOnly).then_some(disks)
    })
    .await;
    let stored = node.client(Role::VolumeManager).put_keyring(&keyring(2, [(1, 0xaa)])).await.unwrap();
    let missing: Vec<_> = stored.missing.iter().map(|missing| (missing.disk, missing.code.as_str())).collect();
    let [taken, refused] = [0, 1].map(|at: usize| disks[at].disk.unwrap());
    assert_eq!((stored.stored, missing), (vec![taken], vec![(refused, code::READ_ONLY)]));
    node.stop().await;
}

#[tokio::test]
async fn a_key_area_takes_as_many_keys_as_fit_says_how_full_it_is_and_refuses_more() {
    let Setup { node, _dir } = setup().await;
    let leader = node.client(Role::VolumeManager);
    // As long as a wrapped data key.
    let keyring = |keys: u32| {
        let key = |number: u32| (format!("{number:032x}"), "ab".repeat(60));
        KeyringBody { generation: keys.into(), keys: (0..keys).map(key).collect() }
    };
    let first = leader.put_keyring(&keyring(1)).await.unwrap().key_areas;
    assert_eq!((first.len(), first[0].keys, first[0].used_bytes), (1, 1, 20 + 78));
    let fit = u32::try_from((first[0].most_bytes - 20) / 78).unwrap();
    assert!((26_000..28_000).contains(&fit), "docs/catalog.md tells how many: {fit}");
    let full = leader.put_keyring(&keyring(fit)).await.unwrap();
    assert_eq!((full.missing.len(), full.key_areas[0].keys), (0, fit.into()), "{:?}", full.missing);
    let more = leader.put_keyring(&keyring(fit + 1)).await.unwrap();
    assert!(more.stored.is_empty() && more.missing[0].reason.contains("its key area is full"), "{:?}", more.missing);
    assert_eq!(more.missing[0].code, code::KEY_AREA_FULL);
    assert_eq!((more.key_areas[0].keys, more.key_areas[0].is_too_small()), (u64::from(fit) + 1, true));
    assert_eq!(leader.keyring().await.unwrap().keys.len(), fit as usize);
    node.stop().await;
}

#[tokio::test]
async fn the_newest_keyring_stays_on_the_disks() {
    let Setup { node, _dir } = setup().await;
    let leader = node.client(Role::VolumeManager);
    let keyring = |generation, key: u8| keyring(generation, [(0x11, key)]);
    leader.put_keyring(&keyring(2, 0xaa)).await.unwrap();
    leader.put_keyring(&keyring(1, 0xbb)).await.unwrap();
    let bad = KeyringBody { generation: 3, keys: vec![("zz".to_owned(), String::new())] };
    assert_eq!(code_of(leader.put_keyring(&bad).await).0, "bad_request");
    assert_eq!(leader.keyring().await.unwrap(), keyring(2, 0xaa));
    assert_eq!(code_of(node.client(Role::Frontend).keyring().await).0, "forbidden");
    let path = node.disk_file(0);
    node.stop().await;
    let stored = std::thread::spawn(move || {
        let options = holdfast_node_engine::OpenOptions::new(support::CELL);
        let disk = holdfast_node_engine::Disk::open(&path, options).unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(disk.read_key_area()).unwrap().unwrap()
    });
    let stored = stored.join().unwrap();
    assert_eq!((stored[8], stored.last()), (2, Some(&0xaa)));
}
