//! What goes on behind the calls: scrub, trash, health, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Recorded, TestNode, VolumeManager, batch, certificates, config, eventually, folder, http};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{BlockHash, DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{
    CreateExtent, ExtentInfo, ExtentState, FenceRequest, HealthState, OperatorRestore, RestoreRequest, ScrubOrder,
    ScrubState, SealRequest, TrashRequest, code,
};
use holdfast_node_server::{Config, DiskPath, Machine, ScrubConfig, TrashConfig};
use tempfile::TempDir;

const VOLUME: VolumeId = VolumeId([5; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);
const DEADLINE: Duration = Duration::from_secs(10);

struct Setup {
    node: TestNode,
    disk: DiskId,
    volume_manager: VolumeManager,
    _dir: TempDir,
}

async fn setup(change: impl FnOnce(&mut Config)) -> Setup {
    let dir = folder();
    let tls = certificates(dir.path());
    let volume_manager = VolumeManager::start(&tls).await;
    let mut config = config(dir.path(), &tls, "node-1", 1, &volume_manager.address);
    change(&mut config);
    let smartctl = Recorded { installed: true, ..Recorded::default() };
    let node = TestNode::start_on(Machine::new(dir.path(), Arc::new(smartctl)), config).await;
    let disk = node.disk().await;
    Setup { node, disk, volume_manager, _dir: dir }
}

impl Setup {
    /// Writes two blocks and seals them.
    async fn sealed(&self) -> ExtentInfo {
        let (frontend, leader) = (self.node.client(Role::Frontend), self.node.client(Role::VolumeManager));
        let disk = self.disk;
        leader.create_extent(&CreateExtent { disk, volume: VOLUME, epoch: EPOCH, term: 1 }).await.unwrap();
        let (bytes, _) = batch(VOLUME, 0, &[vec![0xa5; 200_000], vec![7; 10]]);
        let length = frontend.append(disk, VOLUME, EPOCH, 0, bytes, DEADLINE).await.unwrap().tail;
        leader.fence(&FenceRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), term: 1 }).await.unwrap();
        leader.seal(&SealRequest { disk, volume: VOLUME, epoch: WriteEpoch(2), length, term: 1 }).await.unwrap();
        self.extent().await.unwrap()
    }

    /// An order to put this extent into the trash.
    fn trash_order(&self, extent: &ExtentInfo) -> TrashRequest {
        TrashRequest {
            disk: self.disk,
            volume: VOLUME,
            slot: u32::try_from(extent.slot).unwrap(),
            slot_generation: u32::try_from(extent.slot_generation).unwrap(),
            term: 1,
            order: "0b".repeat(16),
        }
    }

    async fn extent(&self) -> Option<ExtentInfo> {
        self.node.client(Role::Admin).extents(self.disk).await.unwrap().pop()
    }

    /// The value of a metric whose line begins so.
    async fn metric(&self, line: &str) -> f64 {
        let text = self.metrics().await;
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no `{line}` in\n{text}"))
    }

    async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.node.address);
        let text = http(&self.node.tls, Some(Role::Admin)).get(&url, 1 << 20, DEADLINE).await.unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// Health and metric name one damaged extent now, and so does the next heartbeat.
    async fn tells_of_damage(&self) {
        let health = self.node.client(Role::Admin).health().await.unwrap();
        let reason = format!("disk {} ({}) has 1 damaged extent", self.disk, self.node.disk_file(0).display());
        assert!(health.state == HealthState::Degraded && health.reasons.contains(&reason), "{health:?}");
        let line = format!("holdfast_node_disk_slots_by_state{{disk=\"{}\",state=\"damaged\"}} ", self.disk);
        assert_eq!(self.metric(&line).await, 1.0);
        let told = || self.volume_manager.heard.lock().unwrap().heartbeats.len();
        let before = told();
        // One may have been under way.
        eventually("two heartbeats more", async || (told() >= before + 2).then_some(())).await;
        let heard = self.volume_manager.heard.lock().unwrap();
        assert_eq!(heard.heartbeats.last().unwrap().disks[0].damaged_extents, 1);
    }

    /// Flips a bit in the first block, behind the node's back.
    fn damage(&self) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(self.node.disk_file(0)).unwrap();
        let all = std::fs::read(self.node.disk_file(0)).unwrap();
        let at = all.windows(64).position(|window| window == [0xa5; 64]).expect("the payload is on the disk");
        file.write_all_at(&[0xa4], at as u64 + 70_000).unwrap();
    }
}

fn code_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result.unwrap_err() {
        CallError::Api(error) => error.code,
        other => panic!("no answer of the protocol: {other}"),
    }
}

#[tokio::test]
async fn damage_is_found_by_the_scrub_counted_and_told() {
    let fast = ScrubConfig { start_after_ms: 0, round_ms: 0, bytes_per_second: 1 << 40, ..ScrubConfig::default() };
    let setup = setup(|config| config.scrub = fast).await;
    let admin = setup.node.client(Role::Admin);
    setup.sealed().await;
    let rounds = admin.scrub(setup.disk).await.unwrap().rounds;
    let sound = eventually("a round ends", async || {
        admin.scrub(setup.disk).await.ok().filter(|scrub| scrub.rounds > rounds + 1)
    })
    .await;
    assert_eq!(sound.found, 0);
    eventually("it is registered", async || (admin.health().await.ok()?.state == HealthState::Ok).then_some(())).await;
    setup.damage();
    eventually("the damage is found", async || (admin.scrub(setup.disk).await.ok()?.found > 0).then_some(())).await;
    // Nobody has listed the extents since.
    setup.tells_of_damage().await;
    assert_eq!(setup.extent().await.unwrap().state, ExtentState::Damaged);
    let label = format!("{{disk=\"{}\"}} ", setup.disk);
    assert!(setup.metric(&format!("holdfast_node_disk_scrub_findings_total{label}")).await >= 1.0);
    assert!(setup.metric(&format!("holdfast_node_disk_scrub_read_bytes_total{label}")).await > 200_000.0);
    // The mark on the disk tells it again, before any scrub.
    let Setup { mut node, disk, volume_manager, _dir } = setup;
    node.config.scrub.enabled = false;
    let setup = Setup { node: node.restart().await, disk, volume_manager, _dir };
    setup.tells_of_damage().await;
    setup.node.stop().await;
}

#[tokio::test]
async fn an_operator_starts_pauses_and_paces_the_scrub() {
    let setup = setup(|config| config.scrub.enabled = false).await;
    let admin = setup.node.client(Role::Admin);
    let order = async |action: Option<&str>, bytes_per_second: Option<u64>| {
        let order = ScrubOrder { action: action.map(str::to_owned), bytes_per_second };
        admin.order_scrub(setup.disk, &order).await
    };
    assert_eq!(admin.scrub(setup.disk).await.unwrap().state, ScrubState::Paused);
    assert_eq!(order(None, Some(70_000)).await.unwrap().bytes_per_second, 70_000);
    order(Some("start"), None).await.unwrap();
    eventually("it reads", async || (admin.scrub(setup.disk).await.ok()?.read_bytes > 0).then_some(())).await;
    assert_eq!(order(Some("pause"), None).await.unwrap().state, ScrubState::Paused);
    assert_ne!(order(Some("resume"), None).await.unwrap().state, ScrubState::Paused);
    assert_eq!(code_of(order(Some("stop"), None).await), "bad_request");
    assert_eq!(code_of(order(None, Some(1)).await), "bad_request");
    setup.node.stop().await;
}

#[tokio::test]
async fn the_records_of_a_sealed_extent_are_listed() {
    let setup = setup(|_| {}).await;
    let admin = setup.node.client(Role::Admin);
    setup.sealed().await;
    let records = admin.records(setup.disk, VOLUME).await.unwrap();
    let hashes: Vec<BlockHash> = records.iter().map(|record| record.hash).collect();
    assert_eq!(hashes, [BlockHash::of(&vec![0xa5; 200_000]), BlockHash::of(&[7; 10])]);
    let frontend = setup.node.client(Role::Frontend);
    for record in &records {
        frontend.read_record(setup.disk, VOLUME, record.offset, record.length, DEADLINE).await.unwrap();
    }
    assert_eq!(code_of(admin.records(setup.disk, VolumeId([6; 16])).await), code::UNKNOWN_VOLUME);
    setup.node.stop().await;
}

#[tokio::test]
async fn an_extent_is_trashed_by_order_restored_and_kept_for_the_retention() {
    let setup = setup(|config| config.trash = TrashConfig { erase_every_ms: 20, ..TrashConfig::default() }).await;
    let leader = setup.node.client(Role::VolumeManager);
    let order = setup.trash_order(&setup.sealed().await);
    let wrong = TrashRequest { slot_generation: order.slot_generation + 1, ..order.clone() };
    assert_eq!(code_of(leader.trash(&wrong).await), code::WRONG_ORDER);
    assert_eq!(code_of(leader.trash(&TrashRequest { order: "0b".to_owned(), ..order.clone() }).await), "bad_request");
    for _ in 0..2 {
        leader.trash(&order).await.unwrap();
    }
    let trash = leader.trash_of(setup.disk).await.unwrap();
    assert_eq!((trash.erase_alarms, trash.retention_s, trash.extents.len()), (0, 86400, 1));
    let lying = &trash.extents[0];
    assert_eq!((lying.state, lying.order.as_deref()), (ExtentState::Trashed, Some(order.order.as_str())));
    eventually("a heartbeat tells of the slot that it holds", async || {
        let heard = setup.volume_manager.heard.lock().unwrap();
        (heard.heartbeats.last()?.disks[0].trashed_extents == 1).then_some(())
    })
    .await;
    let read = setup.node.client(Role::Frontend).read_record(setup.disk, VOLUME, 64, 100, DEADLINE).await;
    assert_eq!(code_of(read), code::WRONG_STATE);
    let TrashRequest { disk, volume, slot, slot_generation, term, .. } = order;
    leader.restore(&RestoreRequest { disk, volume, slot, slot_generation, term }).await.unwrap();
    assert_eq!(setup.extent().await.unwrap().state, ExtentState::Sealed);
    let stale = RestoreRequest { disk, volume, slot, slot_generation, term: 0 };
    assert_eq!(code_of(leader.restore(&stale).await), code::STALE_TERM);
    setup.node.stop().await;
}

#[tokio::test]
async fn an_operator_takes_an_extent_out_of_the_trash_also_after_a_restart_and_leaders_go_on() {
    let setup = setup(|_| {}).await;
    let leader = setup.node.client(Role::VolumeManager);
    let order = TrashRequest { term: 7, ..setup.trash_order(&setup.sealed().await) };
    leader.trash(&order).await.unwrap();
    // The node knows of term 1 by its registration at most, the disk of 7.
    let Setup { node, disk, volume_manager, _dir } = setup;
    let setup = Setup { node: node.restart().await, disk, volume_manager, _dir };
    let admin = setup.node.client(Role::Admin);
    let lying = admin.trash_of(disk).await.unwrap().extents.pop().unwrap();
    let (slot, slot_generation) = (lying.slot.try_into().unwrap(), lying.slot_generation.try_into().unwrap());
    let restore = OperatorRestore { volume: lying.volume, slot, slot_generation };
    let wrong = OperatorRestore { slot_generation: slot_generation + 1, ..restore.clone() };
    assert_eq!(code_of(admin.restore_by_operator(disk, &wrong).await), code::WRONG_ORDER);
    admin.restore_by_operator(disk, &restore).await.unwrap();
    assert_eq!(setup.extent().await.unwrap().state, ExtentState::Sealed);
    let leader = setup.node.client(Role::VolumeManager);
    assert_eq!(code_of(leader.restore_by_operator(disk, &restore).await), "forbidden");
    leader.trash(&order).await.unwrap();
    setup.node.stop().await;
}

#[tokio::test]
async fn trash_is_erased_after_the_retention_and_counted() {
    let setup = setup(|config| config.trash = TrashConfig { retention_s: 0, erase_every_ms: 20 }).await;
    let leader = setup.node.client(Role::VolumeManager);
    let order = setup.trash_order(&setup.sealed().await);
    leader.trash(&order).await.unwrap();
    let trash = eventually("it is erased", async || {
        leader.trash_of(setup.disk).await.ok().filter(|trash| trash.erased == 1 && trash.extents.is_empty())
    })
    .await;
    assert_eq!(trash.erase_alarms, 0);
    let label = format!("{{disk=\"{}\"}} ", setup.disk);
    assert_eq!(setup.metric(&format!("holdfast_node_disk_erased_extents_total{label}")).await, 1.0);
    setup.node.stop().await;
}

/// A node with every kind of metric in its answer.
async fn setup_with_all_metrics() -> Setup {
    let setup = setup(|config| {
        let folder = config.disks[0].path.parent().unwrap().join("dev");
        std::fs::create_dir(&folder).unwrap();
        let unusable = folder.join("small");
        std::fs::write(&unusable, [0; 10_000]).unwrap();
        config.disks = [folder.join("sdx"), unusable].map(|path| DiskPath { path }).to_vec();
    })
    .await;
    setup.sealed().await;
    let read = setup.node.client(Role::Frontend).read_record(setup.disk, VolumeId([9; 16]), 0, 100, DEADLINE).await;
    assert_eq!(code_of(read), code::UNKNOWN_VOLUME);
    eventually("the disk was asked", async || setup.metrics().await.contains("disk_smart{").then_some(())).await;
    setup
}

#[tokio::test]
async fn every_documented_metric_is_served_and_none_else() {
    let setup = setup_with_all_metrics().await;
    let document = include_str!("../../../../docs/metrics.md");
    let documented: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `holdfast_node_")?.split('`').next()).collect();
    let text = setup.metrics().await;
    let served: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE holdfast_node_")?.split(' ').next()).collect();
    assert_eq!(served, documented);
    for name in &served {
        assert!(text.lines().any(|line| line.starts_with(&format!("holdfast_node_{name}"))), "no value of {name}");
    }
    setup.node.stop().await;
}

/// A sample's name, labels as they stand, and value.
fn sample(line: &str) -> (&str, &str, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| {
        (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end: {line}")))
    });
    let plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !text.starts_with(char::is_numeric)
    };
    assert!(plain(name), "{line}");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        assert!(plain(key) && inside.is_some_and(|value| !value.contains(['"', '\\', '\n'])), "{line}");
    }
    (name, labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Buckets rise, end at infinity, and there they are all that was counted.
fn check_histogram(name: &str, buckets: &[(f64, f64)], count: f64) {
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
}

#[tokio::test]
async fn all_metrics_are_valid_by_the_text_format() {
    let setup = setup_with_all_metrics().await;
    let text = setup.metrics().await;
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut histograms: BTreeMap<String, (Vec<(f64, f64)>, f64)> = BTreeMap::new();
    let mut family = "";
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap_or_else(|| panic!("no text: {line}"));
            assert!(text.len() > 5 && helped.insert(name), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name) && kinds.insert(name, kind).is_none(), "{line}");
            family = name;
        } else {
            let (name, labels, value) = sample(line);
            assert!(value.is_finite() && value >= 0.0 && seen.insert((name, labels)), "{line}");
            let part = name.strip_prefix(family).unwrap_or_else(|| panic!("not of {family}: {line}"));
            match (kinds[family], part) {
                ("counter", "_total") | ("gauge", "") | ("histogram", "_sum") => {}
                ("histogram", "_count") => {
                    histograms.entry(format!("{family}{{{labels}}}")).or_default().1 = value;
                }
                ("histogram", "_bucket") => {
                    let (bound, others): (Vec<&str>, Vec<&str>) =
                        labels.split(',').partition(|label| label.starts_with("le="));
                    let bound = bound[0].trim_start_matches("le=").trim_matches('"').parse().unwrap();
                    let of = histograms.entry(format!("{family}{{{}}}", others.join(","))).or_default();
                    of.0.push((bound, value));
                }
                (kind, _) => panic!("a {kind} has no such sample: {line}"),
            }
        }
    }
    assert!(histograms.len() > 8, "{histograms:?}");
    for (name, (buckets, count)) in &histograms {
        check_histogram(name, buckets, *count);
    }
    setup.node.stop().await;
}

#[tokio::test]
async fn metrics_move_with_the_work() {
    let setup = setup(|_| {}).await;
    let disk = setup.disk;
    let of = |name: &str, more: &str| format!("holdfast_node_{name}{{disk=\"{disk}\"{more}}} ");
    let appends = of("disk_operation_seconds_count", ",operation=\"append\"");
    let writes = of("disk_io_seconds_count", ",direction=\"write\"");
    let sealed = of("disk_slots_by_state", ",state=\"sealed\"");
    let free = of("disk_slots_by_state", ",state=\"free\"");
    let before = [setup.metric(&appends).await, setup.metric(&sealed).await, setup.metric(&free).await];
    let written = setup.metric(&writes).await;
    setup.sealed().await;
    let after = [setup.metric(&appends).await, setup.metric(&sealed).await, setup.metric(&free).await];
    assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [1.0, 1.0, -1.0]);
    assert!(setup.metric(&writes).await > written);
    assert!(setup.metric(&of("disk_written_bytes_total", "")).await > 200_000.0);
    let missing = setup.node.client(Role::Frontend).read_record(disk, VolumeId([9; 16]), 0, 100, DEADLINE).await;
    assert_eq!(code_of(missing), code::UNKNOWN_VOLUME);
    let errors = of("disk_operation_errors_total", ",code=\"unknown_volume\"");
    assert_eq!(setup.metric(&errors).await, 1.0);
    let text = setup.metrics().await;
    assert!(text.ends_with("# EOF\n"));
    setup.node.stop().await;
}
