//! The node and the machine it runs on: kernel settings of the profile, the disks' own view of their health, disks that the
//! profile expects. The machine is a written tree, and smartctl answers what was recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    CELL, DISK_BYTES, Recorded, SLOT_BYTES, TestNode, VolumeManager, certificates, config, eventually, folder, http,
};
use holdfast_libs_transport::Role;
use holdfast_node_client::{Health, HealthState};
use holdfast_node_engine::FormatOptions;
use holdfast_node_server::{Config, DiskPath, Machine, SmartConfig};

const PROFILE: &str = "name = 'two'
[chassis]
name = 'two'
[[bays]]
name = '{1..2}'
path = 'PATH'
media = 'file'
[settings]
queue_depth = 7
scheduler = 'none'
readahead = '0'
[limits.smart]
reallocated_sectors = 5
temperature_celsius = 60
[expected]
disks = 2
";

struct Setup {
    root: tempfile::TempDir,
    runner: Arc<Recorded>,
    node: TestNode,
    _volume_manager: VolumeManager,
}

impl Setup {
    /// A machine with one disk, `sdx`, in one of two bays.
    async fn new(installed: bool) -> Self {
        let root = folder();
        let tls = certificates(root.path());
        let volume_manager = VolumeManager::start(&tls).await;
        let queue = root.path().join("sys/class/block/sdx/queue");
        std::fs::create_dir_all(&queue).unwrap();
        std::fs::create_dir_all(root.path().join("sys/class/block/sdx/device")).unwrap();
        for (file, text) in
            [("queue/scheduler", "none"), ("queue/read_ahead_kb", "128\n"), ("device/queue_depth", "32\n")]
        {
            std::fs::write(queue.parent().unwrap().join(file), text).unwrap();
        }
        let by_path = root.path().join("dev/disk/by-path");
        std::fs::create_dir_all(&by_path).unwrap();
        let format = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: Some(DISK_BYTES) };
        holdfast_node_engine::format(&root.path().join("dev/sdx"), &format).unwrap();
        std::os::unix::fs::symlink("../../sdx", by_path.join("pci-0-sas-phy7-lun-0")).unwrap();
        let profile = root.path().join("two.toml");
        let bays = by_path.join("pci-0-sas-phy*-lun-0").display().to_string();
        std::fs::write(&profile, PROFILE.replace("PATH", &bays)).unwrap();
        let runner = Arc::new(Recorded { installed, ..Recorded::default() });
        let config = Config {
            profile: Some(profile.display().to_string()),
            smart: SmartConfig { every_ms: 20 },
            create_size_bytes: None,
            ..config(root.path(), &tls, "node-1", 0, &volume_manager.address)
        };
        let node = TestNode::start_on(Machine::new(root.path(), runner.clone()), config).await;
        Self { root, runner, node, _volume_manager: volume_manager }
    }

    fn sysfs(&self, file: &str) -> String {
        std::fs::read_to_string(self.root.path().join("sys/class/block/sdx").join(file)).unwrap()
    }

    async fn health(&self) -> Health {
        self.node.client(Role::Admin).health().await.unwrap()
    }

    async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.node.address);
        let client = http(&self.node.tls, Some(Role::Admin));
        String::from_utf8(client.get(&url, 1 << 20, Duration::from_secs(10)).await.unwrap().to_vec()).unwrap()
    }
}

#[tokio::test]
async fn settings_of_the_profile_are_written_for_the_disk_behind_a_bays_name() {
    let setup = Setup::new(false).await;
    let written = ["queue/read_ahead_kb", "device/queue_depth"].map(|file| setup.sysfs(file));
    assert_eq!(written, ["0", "7"]);
    setup.node.stop().await;
}

#[tokio::test]
async fn smart_figures_past_their_limits_show_in_health_and_metrics() {
    let setup = Setup::new(true).await;
    let reason = eventually("it is told", async || {
        setup.health().await.reasons.into_iter().find(|reason| reason.contains("SMART"))
    })
    .await;
    assert!(reason.contains("7 reallocated sectors, the limit is 5") && reason.contains("sas-phy7"), "{reason}");
    assert_eq!(setup.runner.asked.lock().unwrap()[0], "smartctl --json --xall /dev/sdx");
    let metrics = setup.metrics().await;
    let disk = setup.node.disk().await;
    for line in [
        format!("disk_smart{{disk=\"{disk}\",figure=\"reallocated_sectors\"}} 7"),
        format!("disk_smart{{disk=\"{disk}\",figure=\"temperature_celsius\"}} 31"),
        format!("disk_smart_breaches{{disk=\"{disk}\"}} 1"),
    ] {
        assert!(metrics.contains(&format!("holdfast_node_{line}\n")), "{line} in {metrics}");
    }
    setup.node.stop().await;
}

#[tokio::test]
async fn without_smartctl_and_with_an_empty_bay_the_disk_is_used_and_the_empty_bay_told() {
    let setup = Setup::new(false).await;
    eventually("it was asked again and again", async || (setup.runner.asked.lock().unwrap().len() > 3).then_some(()))
        .await;
    let fewer = |health: &Health| {
        health.reasons.iter().any(|reason| reason.contains("1 of the 2 disks that the profile two expects"))
    };
    let health = setup.health().await;
    assert!(health.state == HealthState::Degraded && fewer(&health), "{health:?}");
    assert!(!health.reasons.iter().any(|reason| reason.contains("SMART")), "{health:?}");
    let second: &Path = &setup.root.path().join("dev/sdy");
    let format = FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: Some(DISK_BYTES) };
    holdfast_node_engine::format(second, &format).unwrap();
    std::os::unix::fs::symlink("../../sdy", setup.root.path().join("dev/disk/by-path/pci-0-sas-phy8-lun-0")).unwrap();
    eventually("both bays are filled", async || (!fewer(&setup.health().await)).then_some(())).await;
    setup.node.stop().await;
}

#[tokio::test]
async fn a_disk_file_outside_of_dev_has_no_settings_and_is_not_asked() {
    let root = folder();
    let tls = certificates(root.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let runner = Arc::new(Recorded::default());
    let with_file = Config {
        disks: vec![DiskPath { path: PathBuf::from(root.path()).join("disk") }],
        smart: SmartConfig { every_ms: 1 },
        ..config(root.path(), &tls, "node-1", 0, &volume_manager.address)
    };
    let node = TestNode::start_on(Machine::new(root.path(), runner.clone()), with_file).await;
    eventually("it is registered", async || {
        (node.client(Role::Admin).health().await.ok()?.state == HealthState::Ok).then_some(())
    })
    .await;
    node.stop().await;
    assert!(runner.asked.lock().unwrap().is_empty());
}
