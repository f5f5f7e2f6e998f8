//! Walking an extent batch by batch, in bounded memory.
//!
//! A batch was checked record by record before it was written, so a matching checksum over header and body proves
//! the same batch; records are not walked again.
//!
//! What ends a walk is either the end of what was written, or a bad batch. A bad batch that is followed, anywhere,
//! by the header of a later one of the same volume and epoch is damage: with one append in flight per volume, the
//! later batch was sent only after this one was durable (which also covers every `durable before` above it). A bad
//! batch with nothing behind it may be a torn append that nobody was told of, or damage: it is reported as either.
//!
//! Space that was used before is not blank: not every disk can give space back, and a format writes over headers and
//! areas only. So a valid batch header that names another volume, in the very place that it names, is neither torn nor
//! damaged: it is left of an earlier use of the slot, or of an earlier life of the disk; unless this disk holds that
//! volume, for then a write may have gone astray.

use holdfast_libs_types::batch::{BATCH_HEADER_BYTES, BatchHeader};
use holdfast_libs_types::{PAGE_BYTES, VolumeId, WriteEpoch};

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::page::is_blank;
use crate::planted::planted;
use crate::raw::Work;
use crate::reactor::IoFuture;

/// Bytes of one read. Small enough that hashing it does not hold up the disk's other operations for long.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Reads kept in flight ahead of the walk.
const READ_AHEAD: usize = 3;

/// The same for walks that must not get in the way of anybody.
pub(super) const ONE_READ: usize = 1;

/// The same for copies that are read back, whose caller says how much at a time: beside writes of some MiB each, a few small
/// reads get little of the disk.
pub(super) const MANY_READS: usize = 16;

/// Is shown all bytes of a walk, in order.
pub(super) type See<'a> = &'a mut dyn FnMut(&[u8]);

/// How far a walk came.
#[derive(Debug)]
pub(super) struct Scan {
    /// End of the last good batch, bytes.
    pub(super) tail: u64,
    /// Records in the good batches.
    pub(super) records: u64,
    /// What stands at the tail.
    pub(super) stop: Stop,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The limit was reached, exactly at the end of a batch.
    Limit,
    /// A batch spans the limit.
    Spans { end: u64 },
    /// A page that was never written.
    Blank,
    /// No valid batch of this extent; perhaps one that another volume had at this very place.
    Bad { detail: String, other: Option<VolumeId> },
    /// The disk could not read it, this time.
    Unreadable { detail: String },
}

/// The batch being walked.
struct Current {
    start: u64,
    end: u64,
    records: u32,
    expected_crc: u32,
    crc: crc32fast::Hasher,
}

/// Reads an extent in order, some chunks ahead.
struct Chunks<'a> {
    engine: &'a Engine,
    slot: u32,
    next: u64,
    limit: u64,
    /// Reads in flight at most.
    ahead: usize,
    flying: std::collections::VecDeque<(u64, usize, IoFuture)>,
}

impl<'a> Chunks<'a> {
    fn new(engine: &'a Engine, slot: u32, start: u64, limit: u64) -> Self {
        Self { engine, slot, next: start, limit, ahead: READ_AHEAD, flying: std::collections::VecDeque::new() }
    }

    /// The next chunk with its offset; `None` at the limit. An unreadable chunk is an error, and the one after it
    /// can still be asked for.
    async fn next(&mut self) -> Option<(u64, std::io::Result<AlignedBuf>)> {
        while self.flying.len() < self.ahead && self.next < self.limit {
            let run = self.engine.geometry().data_run(self.slot, self.next);
            let len = CHUNK_BYTES.min(self.limit - self.next).min(run.len) as usize;
            let buffer = AlignedBuf::with_capacity(len);
            let future = self.engine.io.start(run.at, Work::Read { buffer, len });
            self.flying.push_back((self.next, len, future));
            self.next += len as u64;
        }
        let (offset, len, future) = self.flying.pop_front()?;
        let chunk = match future.await {
            (Ok(got), Some(buffer)) if got == len => {
                self.engine.shared.counters.read(len);
                Ok(buffer)
            }
            // The slow path tries again and draws the consequences.
            (_, buffer) => {
                let buffer = buffer.unwrap_or_else(|| AlignedBuf::with_capacity(len));
                self.engine.read_data(self.slot, offset, len, buffer).await
            }
        };
        Some((offset, chunk))
    }
}

impl Engine {
    /// Walks the batches of `slot` from its start up to `limit` (whole pages), showing all bytes read to `see`.
    pub(super) async fn scan_batches(&self, slot: u32, limit: u64, see: Option<See<'_>>) -> Scan {
        self.scan_range(slot, 0..limit, READ_AHEAD, see).await
    }

    /// Walks the batches of a part of `slot`, which starts where a batch starts, with `ahead` reads in flight at most.
    pub(super) async fn scan_range(
        &self,
        slot: u32,
        range: std::ops::Range<u64>,
        ahead: usize,
        mut see: Option<See<'_>>,
    ) -> Scan {
        let (volume, epoch) = self.with_slot(slot, |slot| (slot.volume, slot.append_epoch));
        let mut scan = Scan { tail: range.start, records: 0, stop: Stop::Limit };
        let mut current = None;
        let mut chunks = Chunks { ahead, ..Chunks::new(self, slot, range.start, range.end) };
        while let Some((offset, chunk)) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    scan.stop = Stop::Unreadable { detail: format!("cannot be read: {error}") };
                    return scan;
                }
            };
            if let Err(stop) = walk(&mut scan, &mut current, offset, &chunk, volume, epoch) {
                scan.stop = stop;
                return scan;
            }
            if let Some(see) = see.as_deref_mut() {
                see(&chunk[..]);
            }
        }
        if let Some(Current { end, .. }) = current {
            scan.stop = Stop::Spans { end };
        }
        scan
    }

    /// Whether a batch of `other`, found in the place that it names, is left of an earlier use of its slot.
    pub(super) fn is_of_earlier_use(&self, other: VolumeId) -> bool {
        self.find(other).is_err()
    }

    /// Looks behind a bad batch, up to `limit`, for headers of later batches; returns the end of the last one, and a
    /// volume that stood there in an earlier use of the slot.
    pub(super) async fn batches_behind(&self, slot: u32, bad: u64, limit: u64) -> (Option<u64>, Option<VolumeId>) {
        let (volume, epoch) = self.with_slot(slot, |slot| (slot.volume, slot.append_epoch));
        let (mut last, mut earlier) = (None, None);
        let mut chunks = Chunks::new(self, slot, bad + PAGE_BYTES as u64, limit);
        while let Some((offset, chunk)) = chunks.next().await {
            let Ok(chunk) = chunk else { continue };
            for (n, page) in chunk.chunks(PAGE_BYTES).enumerate() {
                let at = offset + (n * PAGE_BYTES) as u64;
                let Some(header) = BatchHeader::decode(page).ok().filter(|header| header.offset == at) else {
                    continue;
                };
                if (header.volume, header.epoch) == (volume, epoch) {
                    last = Some((at + u64::from(header.batch_len)).min(limit));
                } else if header.volume != volume && self.is_of_earlier_use(header.volume) {
                    earlier = earlier.or(Some(header.volume));
                }
            }
        }
        (last, earlier)
    }

    /// Shows `[0, length)` to `see`, as it stands on the disk.
    pub(super) async fn read_through(&self, slot: u32, length: u64, see: impl FnMut(&[u8])) -> std::io::Result<()> {
        self.read_range(slot, 0..length, READ_AHEAD, see).await
    }

    /// Shows all bytes of a range, in order, with `ahead` reads in flight at most.
    pub(super) async fn read_range(
        &self,
        slot: u32,
        range: std::ops::Range<u64>,
        ahead: usize,
        mut see: impl FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let mut chunks = Chunks { ahead, ..Chunks::new(self, slot, range.start, range.end) };
        while let Some((_, chunk)) = chunks.next().await {
            see(&chunk?[..]);
        }
        Ok(())
    }
}

/// Walks over one chunk; `Err` says why the walk ends inside of it, with `scan.tail` before the batch at fault.
fn walk(
    scan: &mut Scan,
    current: &mut Option<Current>,
    offset: u64,
    chunk: &[u8],
    volume: VolumeId,
    epoch: WriteEpoch,
) -> Result<(), Stop> {
    let mut at = 0;
    while at < chunk.len() {
        let position = offset + at as u64;
        let mut skip = 0;
        let mut batch = match current.take() {
            Some(batch) => batch,
            None => {
                skip = BATCH_HEADER_BYTES;
                begin(&chunk[at..], position, volume, epoch)?
            }
        };
        let take = usize::try_from(batch.end - position).unwrap_or(usize::MAX).min(chunk.len() - at);
        batch.crc.update(&chunk[at + skip..at + take]);
        at += take;
        if batch.end > offset + at as u64 {
            *current = Some(batch);
        } else if batch.crc.finalize() != batch.expected_crc {
            let detail = format!("batch at {}: body checksum does not match", batch.start);
            return Err(Stop::Bad { detail, other: None });
        } else {
            scan.tail = batch.end;
            scan.records += u64::from(batch.records);
        }
    }
    Ok(())
}

fn begin(bytes: &[u8], position: u64, volume: VolumeId, epoch: WriteEpoch) -> Result<Current, Stop> {
    let bad = |detail: String, other| Stop::Bad { detail: format!("batch at {position}: {detail}"), other };
    let header = match BatchHeader::decode(bytes) {
        Ok(header) => header,
        Err(_) if is_blank(&bytes[..PAGE_BYTES.min(bytes.len())]) => return Err(Stop::Blank),
        Err(error) => return Err(bad(error.to_string(), None)),
    };
    let is_own = (header.volume, header.epoch, header.offset) == (volume, epoch, position);
    if !is_own && !planted!(AcceptStaleRecord) {
        let detail =
            format!("belongs elsewhere: volume {} epoch {} offset {}", header.volume, header.epoch, header.offset);
        return Err(bad(detail, (header.offset == position && header.volume != volume).then_some(header.volume)));
    }
    Ok(Current {
        start: position,
        end: position + u64::from(header.batch_len),
        records: header.record_count,
        expected_crc: header.body_crc,
        crc: crc32fast::Hasher::new(),
    })
}
