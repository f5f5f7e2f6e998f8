//! One disk hangs for 30 s of virtual time: the whole node in this process, from its routes down to the engine, on
//! simulated disks. Latencies are virtual too, so the numbers are the same on every machine.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use holdfast_hw_profiles::profile::Limits;
use holdfast_libs_sim::disk::SimDisk;
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_transport::{HttpClient, Role, ServiceTokens};
use holdfast_libs_types::batch::BatchBuilder;
use holdfast_libs_types::record::RecordHeader;
use holdfast_libs_types::{BlockHash, CellId, DiskId, KeyId, NodeId, VolumeId, WriteEpoch};
use holdfast_node_client::code;
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{OpenOptions, SimulatedClock};
use holdfast_tests_certificates::certificates;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use super::answers::DEADLINE;
use super::finding::FileIdentity;
use super::{Disks, OpenDisk, Watcher};
use crate::config::{Config, Memory, ScrubConfig};
use crate::copy::Copies;
use crate::memory::share;
use crate::scrub::Scrub;
use crate::{DiskPath, Node, routes, upkeep};

const CELL: CellId = CellId([0xce; 16]);
const SECRET: [u8; 32] = [7; 32];
const EPOCH: WriteEpoch = WriteEpoch(1);

const DISKS: usize = 4;
const WRITERS: usize = 2;
const END: Duration = Duration::from_secs(45);
const HANGS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(35));

/// By then the disk is known to hang, and whatever was asked before is answered.
const KNOWN: Duration = Duration::from_secs(18);

/// Virtual time is counted in milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// What hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hang {
    Nothing,
    /// The device completes nothing.
    Device,
    /// The disk's thread is stuck in the kernel: it takes no orders and looks at no clock.
    Thread,
}

/// One request as its caller saw it.
#[derive(Debug, Clone)]
struct Seen {
    disk: usize,
    at: Duration,
    took: Duration,
    /// `None`: it was done.
    code: Option<String>,
    message: String,
}

struct Cluster {
    router: Router,
    tokens: ServiceTokens,
    ids: Vec<DiskId>,
    start: Instant,
    seen: RefCell<Vec<Seen>>,
}

impl Cluster {
    /// Makes a request of a disk and notes it.
    async fn call(&self, disk: usize, method: Method, path: String, role: Role, body: Vec<u8>) -> bool {
        let token = self.tokens.token(role);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-length", body.len())
            .body(Body::from(body))
            .unwrap();
        let at = self.start.elapsed();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let done = answer.status() == StatusCode::OK;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let error: Value = if done { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
        let seen = Seen {
            disk,
            at,
            took: self.start.elapsed() - at,
            code: (!done).then(|| text("code")),
            message: text("message"),
        };
        self.seen.borrow_mut().push(seen);
        done
    }

    async fn create(&self, disk: usize, volume: VolumeId) -> bool {
        let order = json!({"disk": self.ids[disk], "volume": volume, "epoch": 1, "term": 1});
        let body = serde_json::to_vec(&order).unwrap();
        self.call(disk, Method::POST, "/v1/extents".to_owned(), Role::VolumeManager, body).await
    }

    async fn append(&self, disk: usize, volume: VolumeId, offset: u64, bytes: Vec<u8>) -> bool {
        let path = format!("/v1/disks/{}/volumes/{volume}/append?epoch=1&offset={offset}", self.ids[disk]);
        self.call(disk, Method::PUT, path, Role::Frontend, bytes).await
    }

    /// Appends and reads, one after the other, as a frontend does that is not told to stop.
    async fn write_and_read(&self, disk: usize, number: u8) {
        let mut volume = volume(disk, number, 0);
        let mut made = 0u8;
        let mut tail = 0;
        let mut open = self.create(disk, volume).await;
        while self.start.elapsed() < END {
            if !open {
                // As after a failure: another volume.
                sleep(Duration::from_millis(100)).await;
                made = made.wrapping_add(1);
                (volume, tail) = (self::volume(disk, number, made), 0);
                open = self.create(disk, volume).await;
                continue;
            }
            let (bytes, length) = batch(volume, tail, 500);
            let end = tail + bytes.len() as u64;
            open = self.append(disk, volume, tail, bytes).await;
            for _ in 0..3 {
                let path = format!(
                    "/v1/disks/{}/volumes/{volume}/record?offset={}&length={length}",
                    self.ids[disk],
                    tail + holdfast_libs_types::batch::BATCH_HEADER_BYTES as u64
                );
                open = open && self.call(disk, Method::GET, path, Role::Frontend, Vec::new()).await;
            }
            tail = end;
        }
    }

    /// Appends to one disk, all at once, again and again: more than the node's memory for appends, down to the last page
    /// of it.
    async fn flood(&self, disk: usize, number: u8) {
        sleep_until(self.start + HANGS.0 - Duration::from_millis(500)).await;
        let volume = volume(disk, 100 + number % 32, 0);
        self.create(disk, volume).await;
        let len = match number {
            0..32 => 2 << 20,
            32..64 => 100 << 10,
            _ => 3 << 10,
        };
        while self.start.elapsed() < END {
            self.append(disk, volume, 0, batch(volume, 0, len).0).await;
            sleep(Duration::from_secs(2)).await;
        }
    }
}

fn volume(disk: usize, number: u8, made: u8) -> VolumeId {
    let mut id = [number; 16];
    (id[0], id[1]) = (u8::try_from(disk).unwrap(), made);
    VolumeId(id)
}

fn batch(volume: VolumeId, offset: u64, len: usize) -> (Vec<u8>, u32) {
    let payload = vec![3; len];
    let mut builder = BatchBuilder::new(volume, EPOCH, offset, offset);
    let header = RecordHeader {
        flags: 0,
        hash: BlockHash::of(&payload),
        volume,
        offset: 0,
        epoch: EPOCH,
        stored_len: 0,
        plain_len: u32::try_from(len).unwrap(),
        key: KeyId([1; 16]),
        nonce: [2; 12],
        payload_crc: 0,
    };
    let (_, length) = builder.push(header, &payload);
    (builder.finish(), length)
}

fn config(dir: &std::path::Path) -> Config {
    Config {
        listen: String::new(),
        node: "node-1".to_owned(),
        zone: "zone-1".to_owned(),
        rack: String::new(),
        cell: CELL,
        address: String::new(),
        cell_secret: String::new(),
        volume_manager: holdfast_volume_manager_client::VolumeManagers(Vec::new()),
        slot_bytes: 16 << 20,
        create_size_bytes: None,
        tls: certificates(dir),
        disks: vec![DiskPath { path: PathBuf::from("nowhere") }],
        watch_ms: 1000,
        profile: None,
        scrub: ScrubConfig { enabled: false, ..ScrubConfig::default() },
        trash: crate::TrashConfig::default(),
        smart: crate::SmartConfig::default(),
        // Little, so that one disk could take it all.
        memory: Memory { append_bytes: 64 << 20, ..Memory::default() },
    }
}

/// A simulated disk whose reads and writes take 8 to 12 ms, and which may hang.
fn disk(seed: u64, hangs: bool, clock: &Arc<SimulatedClock>, options: &OpenOptions) -> SimulatedDisk {
    let streams = Streams::new(seed);
    let media: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(1 << 30, &streams)));
    simulated::format(&media, CELL, 16 << 20, &mut streams.stream("format"));
    let rng = SimRng::from_seed(seed);
    let mut engine = SimulatedDisk::begin_mount_with(&media, options, clock.clone(), rng).unwrap();
    while !engine.is_mounted() {
        engine.turn();
    }
    let mut rng = streams.stream("pace");
    media.borrow_mut().set_service_time(Box::new(move |io| {
        let hung = hangs && (HANGS.0..HANGS.1).contains(&io.at);
        let hangs = if hung { HANGS.1 - io.at } else { Duration::ZERO };
        hangs + Duration::from_micros(8000 + rng.below(4000))
    }));
    engine
}

/// Turns the loops of all disks as time passes.
async fn drive(mut disks: Vec<SimulatedDisk>, clock: Arc<SimulatedClock>, start: Instant, hang: Hang) {
    loop {
        let now = start.elapsed();
        clock.set(now);
        for (n, disk) in disks.iter_mut().enumerate() {
            let stuck = n == 0 && hang == Hang::Thread && (HANGS.0..HANGS.1).contains(&now);
            while !stuck && disk.next_due().is_some_and(|due| due <= now) {
                disk.turn();
            }
        }
        sleep(TICK).await;
    }
}

/// Runs the node under load; disk 0 hangs.
async fn run(hang: Hang) -> Vec<Seen> {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let watcher = Watcher::new(&config, crate::Machine::this()).unwrap();
    let disks: Arc<Disks> = watcher.disks();
    let clock = Arc::new(SimulatedClock::new());
    let share = share(&config.memory, DISKS, crate::memory::Share::default());
    let options = OpenOptions { max_buffer_bytes: share.buffer_bytes, ..OpenOptions::new(CELL) };
    let engines: Vec<_> =
        (0..DISKS).map(|n| disk(n as u64, n == 0 && hang == Hang::Device, &clock, &options)).collect();
    for engine in &engines {
        let handle = engine.handle().clone();
        let path = PathBuf::from("simulated");
        let scrub = Scrub::new(&config.scrub);
        let open = OpenDisk::new(handle, path, FileIdentity::NONE, share, scrub, Limits::default(), &disks);
        disks.insert(Arc::new(open));
    }
    let ids = engines.iter().map(|engine| engine.handle().id()).collect();
    let tokens = ServiceTokens::new(&SECRET);
    let http = HttpClient::new(&config.tls.client().unwrap(), None);
    let node = Arc::new(Node {
        name: NodeId("node-1".to_owned()),
        disks,
        watcher: tokio::sync::Mutex::new(watcher),
        append_bytes: Arc::new(Semaphore::new(config.memory.append_bytes)),
        copies: Copies::new(http),
        registered: AtomicBool::new(true),
        term: AtomicU64::new(0),
        config,
    });
    let router = routes::router(node.clone(), &tokens);
    let start = Instant::now();
    let cluster = Cluster { router, tokens, ids, start, seen: RefCell::default() };
    let writers = (0..DISKS * WRITERS).map(|n| cluster.write_and_read(n % DISKS, u8::try_from(n).unwrap()));
    let floods = (0..100).filter(|_| hang != Hang::Nothing).map(|n| cluster.flood(0, n));
    let load =
        futures_util::future::join(futures_util::future::join_all(writers), futures_util::future::join_all(floods));
    tokio::select! {
        _ = load => {}
        () = drive(engines, clock, start, hang) => {}
        () = upkeep::check(&node, Duration::from_secs(1)) => {}
    }
    drop(node);
    cluster.seen.into_inner()
}

/// The 99th percentile of what was asked of the sound disks while the other one hung, and how many that were.
fn sound(seen: &[Seen]) -> (Duration, usize) {
    let during = seen.iter().filter(|seen| seen.disk != 0 && (HANGS.0..HANGS.1).contains(&seen.at));
    let mut took: Vec<Duration> = during.map(|seen| seen.took).collect();
    took.sort();
    (took[took.len() * 99 / 100], took.len())
}

fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, future)
}

fn one_disk_hangs(hang: Hang) {
    // The same for both tests.
    static WITHOUT: OnceLock<(Duration, usize)> = OnceLock::new();
    let (before, asked_before) = *WITHOUT.get_or_init(|| sound(&in_virtual_time(run(Hang::Nothing))));
    let seen = in_virtual_time(run(hang));
    let (p99, asked) = sound(&seen);
    println!("{hang:?}: p99 {p99:?} of {asked}, without it {before:?} of {asked_before}");
    let failed: Vec<&Seen> = seen.iter().filter(|seen| seen.disk != 0 && seen.code.is_some()).collect();
    assert!(failed.is_empty(), "a sound disk refused: {:?}", failed[0]);
    assert!(p99.as_secs_f64() < before.as_secs_f64() * 1.1, "{p99:?} against {before:?}");
    assert!(asked as f64 > asked_before as f64 * 0.9, "{asked} against {asked_before}");

    let hung: Vec<&Seen> = seen.iter().filter(|seen| seen.disk == 0 && seen.at >= HANGS.0).collect();
    let latest = hung.iter().map(|seen| seen.took).max().unwrap();
    assert!(latest <= DEADLINE + TICK * 5, "{latest:?}");
    let known: Vec<_> = hung.iter().filter(|seen| (KNOWN..HANGS.1).contains(&seen.at)).collect();
    assert!(known.len() > 100);
    for seen in known {
        assert!(seen.took <= TICK * 5, "{seen:?}");
        // Only one request a time may find the disk's queue or memory full instead; it is refused at once as well.
        assert!(matches!(seen.code.as_deref(), Some(code::STALLED | code::BUSY)), "{seen:?}");
    }
    assert!(hung.iter().any(|seen| seen.code.as_deref() == Some(code::STALLED) && !seen.message.is_empty()));
    let again = hung.iter().find(|seen| seen.at >= HANGS.1 && seen.code.is_none());
    assert!(again.is_some(), "it is used again once it answers");
}

#[test]
fn a_device_that_hangs_changes_nothing_for_the_other_disks_and_is_refused_at_once() {
    one_disk_hangs(Hang::Device);
}

#[test]
fn a_disk_thread_that_is_stuck_in_the_kernel_changes_nothing_for_the_other_disks_either() {
    one_disk_hangs(Hang::Thread);
}
