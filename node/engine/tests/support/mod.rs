//! What the engine's integration tests share: a tiny executor, temporary disks and batches.
#![allow(dead_code)] // Each test binary uses its own part.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use holdfast_libs_types::batch::BatchBuilder;
use holdfast_libs_types::record::RecordHeader;
use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};
use holdfast_node_engine::{AlignedBuf, Disk, FormatOptions, IoMode, OpenOptions, format};

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
