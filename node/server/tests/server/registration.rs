//! How a node comes into the cell: its start, its registration, its heartbeats.

use std::time::Duration;

use crate::support::{DISK_BYTES, SLOT_BYTES, TestNode, VolumeManager, certificates, config, eventually, folder, http};
use holdfast_libs_transport::Role;
use holdfast_libs_types::{CellId, VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, DiskState, HealthState, code};
use holdfast_node_engine::FormatOptions;
use holdfast_node_server::{Config, DiskPath, ServerError, run};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn each_start_proposes_the_next_incarnation_of_its_disks() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let registers = || volume_manager.heard.lock().unwrap().registers.clone();
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 2, &volume_manager.address)).await;
    let status = || async { node.client(Role::Admin).status().await.unwrap() };
    eventually("the incarnation is confirmed", async || (status().await.disks[1].incarnation == 1).then_some(())).await;
    let node = node.restart().await;
    eventually("the second start registers", async || (registers().len() == 2).then_some(())).await;
    let [first, second] = registers().try_into().unwrap();
    assert_ne!(first.instance, second.instance);
    assert_eq!((second.address.as_str(), second.zone.as_str()), (node.address.as_str(), "zone-of-node-1"));
    assert_eq!(second.disks.len(), 2);
    for (before, after) in first.disks.iter().zip(&second.disks) {
        assert_eq!((before.incarnation, before.previous_nonce), (1, 0));
        assert_eq!((after.incarnation, after.previous_nonce), (2, before.nonce));
        assert_eq!((after.state.as_str(), after.disk), ("healthy", before.disk));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_disk_whose_incarnation_is_refused_becomes_read_only() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    volume_manager.heard.lock().unwrap().refuse = Some("this disk is a clone".to_owned());
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 1, &volume_manager.address)).await;
    let disk = eventually("the disk is read-only", async || {
        let disk = node.client(Role::Admin).status().await.unwrap().disks.remove(0);
        (disk.state == DiskState::ReadOnly).then_some(disk)
    })
    .await;
    assert_eq!(disk.reason.as_deref(), Some("this disk is a clone"));
    let order = CreateExtent { disk: disk.disk.unwrap(), volume: VolumeId([1; 16]), epoch: WriteEpoch(1), term: 1 };
    let error = node.client(Role::VolumeManager).create_extent(&order).await.unwrap_err();
    assert_eq!(error.code(), Some(code::READ_ONLY));
    eventually("the heartbeat says so", async || {
        let heard = volume_manager.heard.lock().unwrap();
        heard.heartbeats.last().filter(|heartbeat| heartbeat.disks[0].state == "read_only").map(|_| ())
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_serves_while_the_volume_manager_is_away_and_registers_once_it_comes() {
    let dir = folder();
    let tls = certificates(dir.path());
    // The address is held, and nobody answers there yet.
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = place.local_addr().unwrap();
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 1, &format!("https://{address}"))).await;
    assert_eq!(node.client(Role::Admin).status().await.unwrap().disks[0].state, DiskState::Healthy);
    let volume_manager = VolumeManager::start_on(place.listen(16).unwrap(), &tls);
    let registers = || volume_manager.heard.lock().unwrap().registers.len();
    eventually("it registers", async || (registers() == 1).then_some(())).await;
    volume_manager.heard.lock().unwrap().ask_again = true;
    eventually("it registers again when asked to", async || (registers() == 2).then_some(())).await;
    node.stop().await;
}

/// Does something to the file of the second of two disks and waits for the heartbeat that reports it in `state`.
async fn is_reported(state: &str, harm: fn(&std::path::Path)) {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let node = TestNode::start(config(dir.path(), &tls, "node-1", 2, &volume_manager.address)).await;
    eventually("a heartbeat comes", async || {
        let heard = volume_manager.heard.lock().unwrap();
        heard.heartbeats.last().filter(|heartbeat| heartbeat.disks[1].state == "healthy").map(|_| ())
    })
    .await;
    harm(&node.disk_file(1));
    let reports = eventually("the disk is reported", async || {
        let heard = volume_manager.heard.lock().unwrap();
        heard.heartbeats.last().filter(|heartbeat| heartbeat.disks[1].state == state).map(|h| h.disks.clone())
    })
    .await;
    assert_eq!(reports[0].state, "healthy");
    assert!(reports[1].reason.as_ref().is_some_and(|reason| !reason.is_empty()));
    node.stop().await;
}

#[tokio::test]
async fn a_vanished_disk_file_is_reported_as_gone() {
    is_reported("gone", |path| std::fs::remove_file(path).unwrap()).await;
}

#[tokio::test]
async fn a_truncated_disk_file_is_reported_as_failed() {
    is_reported("failed", |path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(DISK_BYTES / 2).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_overwritten_disk_file_is_reported_as_failed() {
    is_reported("failed", |path| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&vec![0x5a; 8 << 20], 0).unwrap();
    })
    .await;
}

async fn start_error(config: Config) -> ServerError {
    run(Config { listen: "127.0.0.1:0".to_owned(), ..config }, CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_node_without_one_usable_disk_does_not_start_and_says_why_for_each() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let good = config(dir.path(), &tls, "node-1", 1, &volume_manager.address);
    TestNode::start(good.clone()).await.stop().await;

    let foreign = start_error(Config { cell: CellId([1; 16]), ..good.clone() }).await;
    assert!(matches!(foreign, ServerError::NoUsableDisk(_)), "{foreign}");
    assert!(
        foreign.to_string().contains("node-1-disk-0") && foreign.to_string().contains("belongs to cell"),
        "{foreign}"
    );

    let small = dir.path().join("small");
    std::fs::write(&small, [0; 5000]).unwrap();
    let only_small = Config { disks: vec![DiskPath { path: small.clone() }], ..good.clone() };
    let error = start_error(only_small).await;
    assert!(matches!(error, ServerError::NoUsableDisk(_)) && error.to_string().contains("small"), "{error}");

    let missing =
        Config { disks: vec![DiskPath { path: dir.path().join("nowhere") }], create_size_bytes: None, ..good };
    let error = start_error(missing.clone()).await;
    assert!(matches!(error, ServerError::NoUsableDisk(_)) && error.to_string().contains("nowhere"), "{error}");
    assert!(matches!(start_error(Config { disks: Vec::new(), ..missing }).await, ServerError::NoDisks));
}

#[tokio::test]
async fn values_that_cannot_be_right_end_the_start_with_the_key() {
    let dir = folder();
    let tls = certificates(dir.path());
    let good =
        Config { address: "https://10.0.0.1:7000".to_owned(), ..config(dir.path(), &tls, "n", 1, "https://vm:7001") };
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 6] = [
        ("slot_bytes", |config| config.slot_bytes = 1),
        ("slot_bytes", |config| config.slot_bytes = (1 << 20) + 1),
        ("volume_manager", |config| config.volume_manager = "127.0.0.1".into()),
        ("volume_manager", |config| config.volume_manager = "http://vm:7001".into()),
        ("address", |config| config.address = "10.0.0.1:7000".to_owned()),
        ("node", |config| config.node = " ".to_owned()),
    ];
    for (key, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = start_error(bad).await.to_string();
        assert!(error.starts_with(&format!("`{key}`: ")), "{key}: {error}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().all(|entry| entry.unwrap().path().extension().is_some()), "no disk");
}

#[tokio::test]
async fn disks_that_cannot_be_used_are_told_everywhere_and_do_not_keep_the_others_from_serving() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let mut mixed = config(dir.path(), &tls, "node-1", 4, &volume_manager.address);
    let path = |n: usize| mixed.disks[n].path.clone();
    let foreign = FormatOptions { cell: CellId([1; 16]), slot_bytes: SLOT_BYTES, size_bytes: Some(DISK_BYTES) };
    holdfast_node_engine::format(&path(0), &foreign).unwrap();
    std::fs::write(path(1), [0; 5000]).unwrap();
    std::fs::create_dir(path(2)).unwrap();
    mixed.disks.swap(0, 3);
    let node = TestNode::start(mixed).await;
    let admin = node.client(Role::Admin);
    let disks = admin.status().await.unwrap().disks;
    let states: Vec<DiskState> = disks.iter().map(|disk| disk.state.clone()).collect();
    assert_eq!(states, [DiskState::Healthy, DiskState::Failed, DiskState::Failed, DiskState::Failed], "{disks:?}");
    let told = eventually("the volume manager is told", async || {
        volume_manager.heard.lock().unwrap().heartbeats.last().map(|heartbeat| heartbeat.unusable.clone())
    })
    .await;
    let health = admin.health().await.unwrap();
    for (n, why) in [(0, "belongs to cell"), (1, "small"), (2, "directory")] {
        let name = format!("node-1-disk-{n}");
        let tells = |reason: &str| reason.contains(&name) && reason.contains(why);
        assert!(disks.iter().any(|disk| disk.reason.as_deref().is_some_and(tells)), "{n}: {disks:?}");
        assert!(told.iter().any(|disk| disk.path.ends_with(&name) && tells(&disk.reason)), "{n}: {told:?}");
        assert!(health.reasons.iter().any(|reason| tells(reason)), "{n}: {health:?}");
    }
    assert_eq!(health.state, HealthState::Degraded);
    let url = format!("{}/metrics", node.address);
    let metrics = http(&node.tls, Some(Role::Admin)).get(&url, 1 << 20, Duration::from_secs(10)).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in ["disks_open 1", "disks_unusable{cause=\"foreign\"} 1", "disks_unusable{cause=\"unusable\"} 2"] {
        assert!(metrics.contains(&format!("holdfast_node_{line}\n")), "{metrics}");
    }
    node.stop().await;
}

#[test]
fn an_unknown_key_in_the_configuration_is_named() {
    let dir = folder();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, "listen = '127.0.0.1:1'\nslot_byts = 1\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("slot_byts") && error.contains("did you mean `slot_bytes`?"), "{error}");
}
