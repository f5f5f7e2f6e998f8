//! What the engine's integration tests share: a tiny executor, temporary disks and batches.
#![allow(dead_code)] // Each test binary uses its own part.

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use holdfast_libs_sim::disk::{Crash, SimDisk};
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_types::batch::BatchBuilder;
use holdfast_libs_types::record::RecordHeader;
use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{AlignedBuf, Disk, EngineError, FormatOptions, IoMode, OpenOptions, format};

pub const CELL: CellId = CellId([0xce; 16]);
pub const EPOCH: WriteEpoch = WriteEpoch(1);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs one future on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

/// A directory on the disk that holds the build, so that O_DIRECT means something (/tmp may be memory).
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn volume(n: u8) -> VolumeId {
    VolumeId::from_parts(1, [n; 12])
}

pub fn make_disk(directory: &Path, name: &str, size: u64, slot: u64) -> PathBuf {
    let path = directory.join(name);
    format(&path, &FormatOptions { cell: CELL, slot_bytes: slot, size_bytes: Some(size) }).unwrap();
    path
}

pub fn options(io: IoMode) -> OpenOptions {
    OpenOptions { io, registered_bytes: 1 << 20, ..OpenOptions::new(CELL) }
}

pub fn open(path: &Path, io: IoMode) -> Disk {
    Disk::open(path, options(io)).unwrap()
}

/// A batch of records with the given payloads; also each record's offset and length.
pub fn batch(
    volume: VolumeId,
    epoch: WriteEpoch,
    offset: u64,
    durable_before: u64,
    payloads: &[Vec<u8>],
) -> (Vec<u8>, Vec<(u64, u32)>) {
    let mut builder = BatchBuilder::new(volume, epoch, offset, durable_before);
    let records = payloads
        .iter()
        .map(|payload| {
            let header = RecordHeader {
                flags: 0,
                hash: BlockHash([payload.first().copied().unwrap_or(0); 32]),
                volume,
                offset: 0,
                epoch,
                stored_len: 0,
                plain_len: payload.len().saturating_sub(16) as u32,
                key: KeyId([1; 16]),
                nonce: [2; 12],
                payload_crc: 0,
            };
            builder.push(header, payload)
        })
        .collect();
    (builder.finish(), records)
}

pub fn aligned(bytes: &[u8]) -> AlignedBuf {
    AlignedBuf::copy_of(bytes)
}

/// Drives one future with the loop of a simulated disk until it is done.
pub fn drive<T>(engine: &mut SimulatedDisk, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        engine.turn();
    }
}

/// A record as it was appended.
#[derive(Debug, Clone)]
pub struct Appended {
    pub volume: VolumeId,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// A simulated disk with an engine on it, driven step by step.
pub struct Bench {
    pub disk: SharedSimDisk,
    pub engine: SimulatedDisk,
    pub rng: SimRng,
}

impl Bench {
    pub const SLOT_BYTES: u64 = 1 << 20;

    pub fn new(seed: u64) -> Self {
        let streams = Streams::new(seed);
        let disk: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(24 << 20, &streams)));
        simulated::format(&disk, CELL, Self::SLOT_BYTES, &mut streams.stream("format"));
        let engine = mounted(&disk);
        Self { disk, engine, rng: streams.stream("bench") }
    }

    pub fn handle(&self) -> Disk {
        self.engine.handle().clone()
    }

    /// Power loss and a mount.
    pub fn restart(&mut self) {
        self.disk.borrow_mut().crash(Crash::PowerLoss);
        self.engine = mounted(&self.disk);
    }

    pub fn run<T, F: Future<Output = T>>(&mut self, operation: impl FnOnce(Disk) -> F) -> T {
        let future = operation(self.handle());
        drive(&mut self.engine, future)
    }

    pub fn create(&mut self, volume: VolumeId) {
        self.run(|disk| async move { disk.create_extent(volume, EPOCH).await }).unwrap();
    }

    /// Appends a batch of random records at the tail and returns them with the new tail.
    pub fn append(&mut self, volume: VolumeId, payload_bytes: &[usize]) -> (Vec<Appended>, u64) {
        let tail = self.run(|disk| async move { disk.extent(volume).await }).unwrap().length;
        let payloads: Vec<Vec<u8>> = payload_bytes
            .iter()
            .map(|len| {
                let mut payload = vec![0; *len];
                self.rng.fill(&mut payload);
                payload
            })
            .collect();
        let (bytes, records) = batch(volume, EPOCH, tail, tail, &payloads);
        let end = self.try_append(volume, tail, &bytes).unwrap();
        let at = |offset: u64| (offset - tail) as usize;
        let record = |(offset, len): (u64, u32)| Appended {
            volume,
            offset,
            bytes: bytes[at(offset)..][..len as usize].to_vec(),
        };
        (records.into_iter().map(record).collect(), end)
    }

    pub fn try_append(&mut self, volume: VolumeId, offset: u64, bytes: &[u8]) -> Result<u64, EngineError> {
        let buffer = aligned(bytes);
        self.run(|disk| async move { disk.append(volume, EPOCH, offset, buffer).await })
    }

    pub fn read_record(&mut self, record: &Appended) -> Result<Vec<u8>, EngineError> {
        let (volume, offset, len) = (record.volume, record.offset, record.bytes.len() as u32);
        self.run(|disk| async move { disk.read_record(volume, offset, len).await }).map(|bytes| bytes.to_vec())
    }

    /// Flips a bit in the header of both copies of the extent table: the next mount rebuilds it from the slot headers.
    pub fn harm_table(&mut self) {
        let mut disk = self.disk.borrow_mut();
        for copy in simulated::table_areas(disk.size(), Self::SLOT_BYTES).copies {
            disk.flip_bit(copy.start + 60, 0);
        }
    }

    pub fn slot(&mut self, volume: VolumeId) -> u32 {
        self.run(|disk| async move { disk.extent(volume).await }).unwrap().slot
    }

    /// Flips one bit of a volume's data, under the engine's feet.
    pub fn flip(&mut self, volume: VolumeId, offset: u64, bit: u8) {
        let slot = self.slot(volume);
        let start = self.engine.data_range(slot).start;
        self.disk.borrow_mut().flip_bit(start + offset, bit);
    }
}

pub fn mounted(disk: &SharedSimDisk) -> SimulatedDisk {
    let mut engine = SimulatedDisk::begin_mount(disk, CELL, SimRng::from_seed(1)).unwrap();
    while !engine.is_mounted() {
        engine.turn();
    }
    engine
}
