//! Disks that come, go, come back, are not what they claim to be, or are no disks at all, while the node runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{
    CELL, DISK_BYTES, SLOT_BYTES, TestNode, VolumeManager, batch, certificates, config, eventually, folder,
};
use holdfast_libs_transport::Role;
use holdfast_libs_types::{CellId, DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, DiskState, DiskStatus, code};
use holdfast_node_engine::FormatOptions;
use holdfast_node_server::{Config, DiskPath};
use holdfast_volume_manager_client::{Heartbeat, Register, UnusableDisk};
use tempfile::TempDir;

const EPOCH: WriteEpoch = WriteEpoch(1);
const DEADLINE: Duration = Duration::from_secs(10);

struct Setup {
    node: TestNode,
    volume_manager: VolumeManager,
    dir: TempDir,
}

/// A node that uses whatever is called `bay-*`, with one disk there.
async fn setup() -> Setup {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    format(&dir.path().join("bay-1"), CELL);
    let pattern = vec![DiskPath { path: dir.path().join("bay-*") }];
    let config = Config {
        disks: pattern,
        create_size_bytes: None,
        ..config(dir.path(), &tls, "node-1", 0, &volume_manager.address)
    };
    Setup { node: TestNode::start(config).await, volume_manager, dir }
}

fn format(path: &Path, cell: CellId) -> DiskId {
    let options = FormatOptions { cell, slot_bytes: SLOT_BYTES, size_bytes: Some(DISK_BYTES) };
    holdfast_node_engine::format(path, &options).unwrap()
}

impl Setup {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn disks(&self) -> Vec<DiskStatus> {
        self.node.client(Role::Admin).status().await.unwrap().disks
    }

    fn last_register(&self) -> Option<Register> {
        self.volume_manager.heard.lock().unwrap().registers.last().cloned()
    }

    fn last_heartbeat(&self) -> Option<Heartbeat> {
        self.volume_manager.heard.lock().unwrap().heartbeats.last().cloned()
    }

    /// Waits until a registration reports the disk as healthy, under an incarnation of at least `incarnation`.
    async fn registered(&self, disk: DiskId, incarnation: u64) {
        eventually("the disk is registered", async || {
            let register = self.last_register()?;
            let report = register.disks.into_iter().find(|report| report.disk == disk)?;
            (report.state == "healthy" && report.incarnation >= incarnation && report.nonce != 0).then_some(())
        })
        .await;
    }

    /// Waits until the volume manager is told that this path cannot be used.
    async fn told_unusable(&self, path: &Path) -> UnusableDisk {
        eventually("the volume manager is told", async || {
            let unusable = self.last_heartbeat()?.unusable;
            unusable.into_iter().find(|disk| Path::new(&disk.path) == path)
        })
        .await
    }

    async fn write(&self, disk: DiskId, volume: VolumeId) -> Result<u64, String> {
        let order = CreateExtent { disk, volume, epoch: EPOCH, term: 1 };
        let text = |error: holdfast_libs_transport::CallError| error.code().unwrap_or_default().to_owned();
        self.node.client(Role::VolumeManager).create_extent(&order).await.map_err(text)?;
        let (bytes, _) = batch(volume, 0, &[vec![1; 1000]]);
        let frontend = self.node.client(Role::Frontend);
        Ok(frontend.append(disk, volume, EPOCH, 0, bytes, DEADLINE).await.map_err(text)?.tail)
    }
}

#[tokio::test]
async fn a_disk_that_appears_is_used_and_registered_without_a_restart() {
    let setup = setup().await;
    format(&setup.at("elsewhere"), CELL);
    let elsewhere = setup.at("elsewhere");
    std::fs::rename(&elsewhere, setup.at("bay-2")).unwrap();
    let second = eventually("the disk is in use", async || setup.disks().await.get(1).and_then(|disk| disk.disk)).await;
    setup.registered(second, 1).await;
    assert_eq!(setup.write(second, VolumeId([1; 16])).await, Ok(4096));
    setup.node.stop().await;
}

#[tokio::test]
async fn a_disk_that_vanishes_is_closed_and_reported_and_is_the_same_disk_when_it_comes_back_elsewhere() {
    let setup = setup().await;
    let disk = setup.node.disk().await;
    setup.registered(disk, 1).await;
    setup.write(disk, VolumeId([1; 16])).await.unwrap();
    std::fs::rename(setup.at("bay-1"), setup.at("out")).unwrap();
    eventually("the disk is reported as gone", async || {
        let reports = setup.last_heartbeat()?.disks;
        let report = reports.into_iter().find(|report| report.disk == disk)?;
        (report.state == "gone" && report.reason?.contains("bay-1")).then_some(())
    })
    .await;
    let refused = eventually("it is closed", async || {
        setup.write(disk, VolumeId([2; 16])).await.err().filter(|c| c == code::UNKNOWN_DISK)
    })
    .await;
    assert_eq!(refused, code::UNKNOWN_DISK);
    // Nobody holds it any more, so another process could use it.
    eventually("its file is let go", async || {
        holdfast_node_engine::Candidate::open(
            &setup.at("out"),
            FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: None },
        )
        .ok()
        .map(|_| ())
    })
    .await;
    std::fs::rename(setup.at("out"), setup.at("bay-7")).unwrap();
    setup.registered(disk, 2).await;
    assert_eq!(setup.write(disk, VolumeId([3; 16])).await, Ok(4096));
    let disks = setup.disks().await;
    assert_eq!((disks.len(), &disks[0].state), (1, &DiskState::Healthy), "{disks:?}");
    assert!(disks[0].path.ends_with("bay-7"));
    setup.node.stop().await;
}

#[tokio::test]
async fn a_blank_file_is_listed_as_unformatted_left_as_it_is_and_used_once_somebody_formats_it() {
    let setup = setup().await;
    let blank = setup.at("bay-2");
    std::fs::File::create(setup.at("made")).unwrap().set_len(DISK_BYTES).unwrap();
    std::fs::rename(setup.at("made"), &blank).unwrap();
    let told = setup.told_unusable(&blank).await;
    assert!(told.cause == "unformatted" && told.reason.contains("format it first"), "{told:?}");
    assert_eq!(std::fs::read(&blank).unwrap(), vec![0; DISK_BYTES as usize], "nothing was written to it");
    let listed = setup.disks().await;
    assert!(listed[1].disk.is_none() && listed[1].reason.as_ref().is_some_and(|reason| reason.contains("format")));
    format(&blank, CELL);
    let rescanned = setup.node.client(Role::Admin).rescan().await.unwrap().disks;
    let id = rescanned[1].disk.expect("the rescan takes it in at once");
    setup.registered(id, 1).await;
    eventually("it is told no more", async || setup.last_heartbeat()?.unusable.is_empty().then_some(())).await;
    setup.node.stop().await;
}

#[tokio::test]
async fn a_clone_beside_its_original_is_refused_and_the_original_goes_on() {
    let setup = setup().await;
    let disk = setup.node.disk().await;
    setup.registered(disk, 1).await;
    std::fs::copy(setup.at("bay-1"), setup.at("copy")).unwrap();
    std::fs::rename(setup.at("copy"), setup.at("bay-0")).unwrap();
    let told = setup.told_unusable(&setup.at("bay-0")).await;
    assert!(told.cause == "duplicate" && told.reason.contains("bay-1"), "{told:?}");
    assert_eq!(setup.write(disk, VolumeId([1; 16])).await, Ok(4096));
    let registered = setup.last_register().unwrap().disks;
    assert_eq!(registered.iter().filter(|report| report.disk == disk).count(), 1);
    setup.node.stop().await;
}

#[tokio::test]
async fn a_disk_of_another_cell_that_is_put_in_is_reported_and_stops_nothing() {
    let setup = setup().await;
    let disk = setup.node.disk().await;
    format(&setup.at("foreign"), CellId([1; 16]));
    std::fs::rename(setup.at("foreign"), setup.at("bay-2")).unwrap();
    let told = setup.told_unusable(&setup.at("bay-2")).await;
    assert!(told.cause == "foreign" && told.reason.contains("belongs to cell"), "{told:?}");
    assert_eq!(setup.write(disk, VolumeId([1; 16])).await, Ok(4096));
    setup.node.stop().await;
}

#[tokio::test]
async fn a_disk_with_slots_of_another_size_is_reported_and_left_as_it_is() {
    let setup = setup().await;
    let options = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES / 2, size_bytes: Some(DISK_BYTES) };
    holdfast_node_engine::format(&setup.at("other"), &options).unwrap();
    std::fs::rename(setup.at("other"), setup.at("bay-2")).unwrap();
    let told = setup.told_unusable(&setup.at("bay-2")).await;
    let sizes = [SLOT_BYTES / 2, SLOT_BYTES].map(|size| size.to_string());
    assert!(told.cause == "unusable" && sizes.iter().all(|size| told.reason.contains(size)), "{told:?}");
    assert_eq!(setup.disks().await.iter().filter(|disk| disk.disk.is_some()).count(), 1);
    eventually("nobody holds it", async || {
        let any = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: None };
        holdfast_node_engine::Candidate::open(&setup.at("bay-2"), any).ok().map(|_| ())
    })
    .await;
    setup.node.stop().await;
}

#[tokio::test]
async fn a_configured_device_that_is_not_there_is_reported_and_no_file_takes_its_place() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let device = PathBuf::from(format!("/dev/holdfast-test-{}", std::process::id()));
    let mut with_device = config(dir.path(), &tls, "node-1", 1, &volume_manager.address);
    with_device.disks.push(DiskPath { path: device.clone() });
    let node = TestNode::start(with_device).await;
    let disks = node.client(Role::Admin).status().await.unwrap().disks;
    let made = std::fs::remove_file(&device).is_ok();
    assert!(!made && disks[0].disk.is_some() && disks[1].disk.is_none(), "{disks:?}");
    assert!(disks[1].reason.as_ref().is_some_and(|reason| reason.contains("does not exist")), "{disks:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_disk_that_was_refused_for_the_moment_is_opened_anew_and_writable_once_it_is_believed() {
    let setup = setup().await;
    let disk = setup.node.disk().await;
    setup.registered(disk, 1).await;
    {
        let mut heard = setup.volume_manager.heard.lock().unwrap();
        (heard.refuse, heard.retry, heard.ask_again) = (Some("in use at node node-2".to_owned()), true, true);
    }
    eventually("it is read-only", async || (setup.disks().await.first()?.state == DiskState::ReadOnly).then_some(()))
        .await;
    setup.volume_manager.heard.lock().unwrap().refuse = None;
    eventually("it takes writes", async || setup.write(disk, VolumeId([1; 16])).await.ok()).await;
    setup.node.stop().await;
}

#[tokio::test]
async fn a_node_whose_bays_are_empty_waits_for_disks_and_says_that_it_serves_nothing() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let empty = Config {
        disks: vec![DiskPath { path: dir.path().join("bay-*") }],
        create_size_bytes: None,
        ..config(dir.path(), &tls, "node-1", 0, &volume_manager.address)
    };
    let node = TestNode::start(empty).await;
    let admin = node.client(Role::Admin);
    let health = admin.health().await.unwrap();
    assert_eq!(health.state, holdfast_node_client::HealthState::Failed);
    assert!(health.reasons[0].contains("no disk"), "{health:?}");
    format(&dir.path().join("bay-1"), CELL);
    eventually("the node is sound", async || {
        (admin.health().await.unwrap().state == holdfast_node_client::HealthState::Ok).then_some(())
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn the_bays_of_a_profile_are_searched_for_disks() {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let profile = dir.path().join("files.toml");
    let text = format!(
        "name = 'files'\n[chassis]\nname = 'files'\n[[bays]]\nname = 'file-{{1..2}}'\npath = '{}/bay-*'\nmedia = 'file'\n",
        dir.path().display()
    );
    std::fs::write(&profile, text).unwrap();
    let ids = ["bay-1", "bay-2"].map(|name| format(&dir.path().join(name), CELL));
    let by_profile = Config {
        profile: Some(profile.display().to_string()),
        ..config(dir.path(), &tls, "node-1", 0, &volume_manager.address)
    };
    let node = TestNode::start(by_profile.clone()).await;
    let disks = node.client(Role::Admin).status().await.unwrap().disks;
    assert_eq!(disks.iter().map(|disk| disk.disk).collect::<Vec<_>>(), ids.map(Some));
    node.stop().await;
    let unknown = Config { profile: Some("dense-4u-103".to_owned()), listen: "127.0.0.1:0".to_owned(), ..by_profile };
    let error = holdfast_node_server::run(unknown, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `dense-4u-102`"), "{error}");
}
