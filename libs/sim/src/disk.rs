//! A disk that forgets, tears and lies as real ones do.
//!
//! # Fault model
//!
//! The unit is a sector of 512 bytes: it is written whole or not at all. Beyond that:
//!
//! - Operations in flight complete in any order; some stall while others overtake them.
//! - A write without DSYNC, once completed, is visible to reads but sits in a cache. Its sectors reach the media when
//!   the cache is flushed, or one by one in the background, or never.
//! - A write with DSYNC is on the media when it completes.
//! - **Power loss** ([`Crash::PowerLoss`]): of every cached write, and of every write in flight (DSYNC or not), any
//!   subset of sectors reaches the media: all, none, or a torn mixture. Writes in flight land in any order.
//! - **Process kill** ([`Crash::ProcessKill`]): writes in flight may still happen, wholly, in part or not, but end in
//!   the cache: visible afterwards, and lost by a later power loss if nobody flushes.
//! - A write may fail with EIO after any subset of its sectors was written, or be short.
//! - A read may fail with EIO, for once or for a range for good.
//! - Bits flip ([`SimDisk::flip_bit`]).
//! - Space may run out when it is allocated (ENOSPC).
//! - A zoned disk ([`SimDisk::set_zones`]) keeps the rules of [`crate::zones`]. Of a write in a sequential zone that is
//!   torn, a run of sectors from its front reaches the media, and the write pointer stands behind it.
//!
//! Not modelled: sectors that are torn within, writes that land in the wrong place, and a device that claims
//! durability it does not have. The latter two can be shown by `flip_bit` and [`SimDisk::ignore_dsync`]; what holds
//! an engine against them is its checksums and its replicas.
//!
//! The switch for mutation tests: [`SimDisk::ignore_dsync`] treats chosen writes as if their DSYNC flag had been
//! forgotten, [`SimDisk::ignore_flush`] drops flushes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::streams::{SimRng, Streams};
use crate::zones::{ZoneLayout, ZoneState, Zones};

/// The unit of writing, bytes.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: u64 = 4096;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// An operation on the disk. Offsets and lengths of writes are whole sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimOp {
    /// Read `len` bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Write.
    Write {
        /// First byte.
        offset: u64,
        /// What to write.
        bytes: Vec<u8>,
        /// Durable when it completes.
        dsync: bool,
    },
    /// Make completed writes durable.
    Flush,
    /// Take space.
    Allocate {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Empty whole zones of a zoned disk.
    ResetZones {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimAnswer {
    /// Bytes read; fewer than asked for at the disk's end.
    Read(Vec<u8>),
    /// Bytes written, or 0.
    Done(usize),
    /// An errno.
    Error(i32),
}

/// What ends the user of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Everything that is not on the media may be lost.
    PowerLoss,
    /// The process dies, the machine goes on.
    ProcessKill,
}

/// Probabilities of faults, each of a thousand operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Reads that fail with EIO, once.
    pub read_errors: u64,
    /// Writes that fail with EIO after any part of them was done.
    pub write_errors: u64,
    /// Reads and writes that are short.
    pub short: u64,
    /// Operations that are overtaken by many others.
    pub stalls: u64,
    /// Chance, at every completion, that the oldest cached write goes to the media.
    pub write_back: u64,
}

/// Which writes lose their DSYNC: by offset and length.
pub type WriteFilter = Box<dyn Fn(u64, usize) -> bool>;

struct Flying {
    id: u64,
    op: SimOp,
    stall: u32,
}

/// A completed write that is not on the media; sectors that were overwritten durably since are gone from it.
struct Cached {
    offset: u64,
    sectors: Vec<Option<[u8; SECTOR_BYTES]>>,
}

/// The simulated disk. See the module's header for what it may do.
pub struct SimDisk {
    size: u64,
    media: BTreeMap<u64, Box<[u8; PAGE_BYTES as usize]>>,
    cache: Vec<Cached>,
    flying: Vec<Flying>,
    order: SimRng,
    fault_rng: SimRng,
    crash_rng: SimRng,
    faults: Faults,
    unreadable: Vec<Range<u64>>,
    space_left: u64,
    ignore_dsync: Option<WriteFilter>,
    ignore_flush: bool,
    completed: u64,
    zones: Option<Zones>,
}

impl SimDisk {
    /// A blank disk of `size` bytes (whole pages), without faults.
    pub fn new(size: u64, streams: &Streams) -> Self {
        Self {
            size,
            media: BTreeMap::new(),
            cache: Vec::new(),
            flying: Vec::new(),
            order: streams.stream("disk-order"),
            fault_rng: streams.stream("disk-faults"),
            crash_rng: streams.stream("disk-crash"),
            faults: Faults::default(),
            unreadable: Vec::new(),
            space_left: u64::MAX,
            ignore_dsync: None,
            ignore_flush: false,
            completed: 0,
            zones: None,
        }
    }

    /// Makes it a zoned disk, all zones empty.
    pub fn set_zones(&mut self, layout: ZoneLayout) {
        self.zones = Some(Zones::new(layout, self.size));
    }

    /// The zones of a zoned disk, in order; none of another.
    pub fn zone_report(&self) -> &[ZoneState] {
        self.zones.as_ref().map_or(&[], Zones::report)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Sets the probabilities of faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Reads that touch `range` fail from now on.
    pub fn make_unreadable(&mut self, range: Range<u64>) {
        self.unreadable.push(range);
    }

    /// Bytes that can still be allocated.
    pub fn set_space_left(&mut self, bytes: u64) {
        self.space_left = bytes;
    }

    /// From now on, writes that `filter` picks are treated as if they had no DSYNC.
    pub fn ignore_dsync(&mut self, filter: WriteFilter) {
        self.ignore_dsync = Some(filter);
    }

    /// From now on, flushes do nothing.
    pub fn ignore_flush(&mut self) {
        self.ignore_flush = true;
    }

    /// Operations completed so far.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Operations submitted and not completed.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Starts an operation.
    pub fn submit(&mut self, id: u64, op: SimOp) {
        let stall = if self.fault_rng.chance(self.faults.stalls) { self.fault_rng.within(5..60) as u32 } else { 0 };
        self.flying.push(Flying { id, op, stall });
    }

    /// Completes one operation in flight, any one; `None` when there is none.
    pub fn complete_one(&mut self) -> Option<(u64, SimAnswer)> {
        if self.order.chance(self.faults.write_back) && !self.cache.is_empty() {
            let oldest = self.cache.remove(0);
            self.settle(&oldest, |_| true);
        }
        for flying in &mut self.flying {
            flying.stall = flying.stall.saturating_sub(1);
        }
        let eligible = self.flying.iter().filter(|flying| flying.stall == 0).count();
        let index = if eligible == 0 {
            // Everything stalls: the one that is nearest its end goes on.
            (0..self.flying.len()).min_by_key(|n| self.flying[*n].stall)?
        } else {
            let pick = self.order.index(eligible);
            self.flying.iter().enumerate().filter(|(_, flying)| flying.stall == 0).nth(pick)?.0
        };
        let Flying { id, op, .. } = self.flying.swap_remove(index);
        self.completed += 1;
        Some((id, self.perform(op)))
    }

    fn perform(&mut self, op: SimOp) -> SimAnswer {
        match op {
            SimOp::Read { offset, len } => self.read(offset, len),
            SimOp::Write { offset, bytes, dsync } => self.write(offset, bytes, dsync),
            SimOp::Flush => {
                if !self.ignore_flush {
                    for cached in std::mem::take(&mut self.cache) {
                        self.settle(&cached, |_| true);
                    }
                }
                SimAnswer::Done(0)
            }
            SimOp::Allocate { len, .. } => match self.space_left.checked_sub(len) {
                Some(left) => {
                    self.space_left = left;
                    SimAnswer::Done(0)
                }
                None => SimAnswer::Error(ENOSPC),
            },
            SimOp::ResetZones { offset, len } => self.reset_zones(offset, len),
        }
    }

    fn reset_zones(&mut self, offset: u64, len: u64) -> SimAnswer {
        match self.zones.as_mut().map_or(Err(EIO), |zones| zones.reset(offset..offset + len)) {
            Ok(()) => {
                let pages: Vec<u64> =
                    self.media.range(offset / PAGE_BYTES..(offset + len) / PAGE_BYTES).map(|(page, _)| *page).collect();
                for page in pages {
                    self.media.remove(&page);
                }
                SimAnswer::Done(0)
            }
            Err(code) => SimAnswer::Error(code),
        }
    }

    /// Whether a write at `offset` lands in sequence, from its front.
    fn in_sequence(&mut self, offset: u64) -> bool {
        self.zones.as_mut().is_some_and(|zones| zones.in_sequence(offset))
    }

    fn read(&mut self, offset: u64, len: usize) -> SimAnswer {
        let end = offset + len as u64;
        let bad = self.unreadable.iter().any(|range| range.start < end && offset < range.end);
        if bad || self.fault_rng.chance(self.faults.read_errors) {
            return SimAnswer::Error(EIO);
        }
        let mut len = len.min(self.size.saturating_sub(offset) as usize);
        if self.fault_rng.chance(self.faults.short) {
            len = self.fault_rng.index(len / SECTOR_BYTES + 1) * SECTOR_BYTES;
        }
        SimAnswer::Read(self.peek(offset, len))
    }

    fn write(&mut self, offset: u64, mut bytes: Vec<u8>, dsync: bool) -> SimAnswer {
        debug_assert!(offset.is_multiple_of(SECTOR_BYTES as u64) && bytes.len().is_multiple_of(SECTOR_BYTES));
        if offset + bytes.len() as u64 > self.size {
            return SimAnswer::Error(ENOSPC);
        }
        if let Some(code) = self.zones.as_mut().and_then(|zones| zones.admit(offset, bytes.len() as u64).err()) {
            return SimAnswer::Error(code);
        }
        // The drive's cache of a sequential zone is not modelled: what completed there is on the media.
        let sequential = self.in_sequence(offset);
        let dsync =
            sequential || dsync && !self.ignore_dsync.as_ref().is_some_and(|filter| filter(offset, bytes.len()));
        if self.fault_rng.chance(self.faults.write_errors) {
            let kept = Fate::draw(&mut self.fault_rng, sequential);
            self.tear(offset, &bytes, kept);
            return SimAnswer::Error(EIO);
        }
        if self.fault_rng.chance(self.faults.short) {
            let sectors = self.fault_rng.index(bytes.len() / SECTOR_BYTES);
            bytes.truncate(sectors * SECTOR_BYTES);
        }
        let len = bytes.len();
        if let Some(zones) = &mut self.zones {
            zones.wrote(offset, len as u64);
        }
        if dsync {
            self.write_durable(offset, &bytes);
        } else {
            self.cache.push(Cached::of(offset, &bytes));
        }
        SimAnswer::Done(len)
    }

    /// Puts bytes on the media at once, past queue and faults.
    pub fn write_durable(&mut self, offset: u64, bytes: &[u8]) {
        // Older cached writes to these sectors must not come back over them.
        let end = offset + bytes.len() as u64;
        for cached in &mut self.cache {
            for (n, sector) in cached.sectors.iter_mut().enumerate() {
                let at = cached.offset + (n * SECTOR_BYTES) as u64;
                if (offset..end).contains(&at) {
                    *sector = None;
                }
            }
        }
        self.cache.retain(|cached| cached.sectors.iter().any(Option::is_some));
        self.put(offset, bytes);
    }

    /// What a read would see now: the media under the cache. Past queue and faults.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let end = offset + len as u64;
        let first = offset / PAGE_BYTES;
        for (page, bytes) in self.media.range(first..end.div_ceil(PAGE_BYTES)) {
            overlay(&mut out, offset, page * PAGE_BYTES, &bytes[..]);
        }
        for cached in &self.cache {
            if cached.offset >= end || cached.offset + ((cached.sectors.len() * SECTOR_BYTES) as u64) <= offset {
                continue;
            }
            for (n, sector) in cached.sectors.iter().enumerate() {
                if let Some(sector) = sector {
                    overlay(&mut out, offset, cached.offset + (n * SECTOR_BYTES) as u64, sector);
                }
            }
        }
        out
    }

    /// Flips one bit of the media (and of a cached copy of that byte, if there is one).
    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        let sector_start = offset / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
        let mut sector = self.peek(sector_start, SECTOR_BYTES);
        sector[(offset - sector_start) as usize] ^= 1 << (bit % 8);
        self.write_durable(sector_start, &sector);
    }

    /// Ends everything in flight the way `crash` does. The disk can be used again at once.
    pub fn crash(&mut self, crash: Crash) {
        let mut flying: Vec<_> = self.flying.drain(..).collect();
        let mut rng = self.crash_rng.clone();
        rng.shuffle(&mut flying);
        let cached = if crash == Crash::PowerLoss { std::mem::take(&mut self.cache) } else { Vec::new() };
        for write in cached {
            let fate = Fate::draw(&mut rng, false);
            self.settle_by(&write, fate);
        }
        for Flying { op, .. } in flying {
            let SimOp::Write { offset, bytes, .. } = op else { continue };
            let sequential = self.in_sequence(offset);
            let mut fate = Fate::draw(&mut rng, sequential);
            if sequential {
                // Only what the zone would have taken.
                if self.zones.as_mut().is_some_and(|zones| zones.admit(offset, bytes.len() as u64).is_ok()) {
                    self.tear(offset, &bytes, fate);
                }
                continue;
            }
            let mut write = Cached::of(offset, &bytes);
            match crash {
                Crash::PowerLoss => self.settle_by(&write, fate),
                Crash::ProcessKill => {
                    for sector in &mut write.sectors {
                        *sector = sector.filter(|_| fate.keeps());
                    }
                    self.cache.push(write);
                }
            }
        }
        self.crash_rng = rng;
    }

    /// Puts on the media what is left of a write, and the write pointer behind it.
    fn tear(&mut self, offset: u64, bytes: &[u8], mut fate: Fate) {
        let write = Cached::of(offset, bytes);
        let mut kept = 0;
        self.settle(&write, |_| {
            let keeps = fate.keeps();
            kept += u64::from(keeps);
            keeps
        });
        if let Some(zones) = &mut self.zones {
            zones.wrote(offset, kept * SECTOR_BYTES as u64);
        }
    }

    fn settle_by(&mut self, cached: &Cached, mut fate: Fate) {
        self.settle(cached, |_| fate.keeps());
    }

    fn settle(&mut self, cached: &Cached, mut keep: impl FnMut(usize) -> bool) {
        for (n, sector) in cached.sectors.iter().enumerate() {
            if let Some(sector) = sector
                && keep(n)
            {
                self.put(cached.offset + (n * SECTOR_BYTES) as u64, sector);
            }
        }
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let page = self.media.entry(at / PAGE_BYTES).or_insert_with(|| Box::new([0; PAGE_BYTES as usize]));
            let within = (at % PAGE_BYTES) as usize;
            let take = (page.len() - within).min(bytes.len() - done);
            page[within..within + take].copy_from_slice(&bytes[done..done + take]);
            done += take;
        }
    }
}

impl Cached {
    fn of(offset: u64, bytes: &[u8]) -> Self {
        let sectors = bytes.chunks_exact(SECTOR_BYTES).map(|chunk| {
            let mut sector = [0; SECTOR_BYTES];
            sector.copy_from_slice(chunk);
            Some(sector)
        });
        Self { offset, sectors: sectors.collect() }
    }
}

/// What becomes of the sectors of a write that was not durable.
enum Fate {
    All,
    None,
    /// A run from the front, as a write torn by a power cut leaves it.
    Front(u64),
    /// Each by a coin.
    Mixed(SimRng),
}

impl Fate {
    /// `in_sequence`: sectors land from the front on, without gaps.
    fn draw(rng: &mut SimRng, in_sequence: bool) -> Self {
        match rng.below(if in_sequence { 3 } else { 4 }) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Front(rng.below(16)),
            _ => Self::Mixed(SimRng::from_seed(rng.next_u64())),
        }
    }

    /// Asked for each sector in turn.
    fn keeps(&mut self) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Front(left) => {
                let keep = *left > 0;
                *left = left.saturating_sub(1);
                keep
            }
            Self::Mixed(rng) => rng.chance(500),
        }
    }
}

/// Copies what `bytes` at `at` has in common with `out` at `offset`.
fn overlay(out: &mut [u8], offset: u64, at: u64, bytes: &[u8]) {
    let start = at.max(offset);
    let end = (at + bytes.len() as u64).min(offset + out.len() as u64);
    if start < end {
        let len = (end - start) as usize;
        let (to, from) = ((start - offset) as usize, (start - at) as usize);
        out[to..to + len].copy_from_slice(&bytes[from..from + len]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Crash, Faults, SECTOR_BYTES, SimAnswer, SimDisk, SimOp};
    use crate::streams::Streams;

    fn disk(seed: u64) -> SimDisk {
        SimDisk::new(1 << 20, &Streams::new(seed))
    }

    fn write(disk: &mut SimDisk, offset: u64, byte: u8, dsync: bool) -> SimAnswer {
        disk.submit(1, SimOp::Write { offset, bytes: vec![byte; 4096], dsync });
        disk.complete_one().unwrap().1
    }

    #[test]
    fn a_durable_write_survives_every_crash() {
        for seed in 0..50 {
            let mut disk = disk(seed);
            write(&mut disk, 4096, 7, false);
            assert_eq!(write(&mut disk, 4096, 9, true), SimAnswer::Done(4096));
            disk.crash(Crash::ProcessKill);
            disk.crash(Crash::PowerLoss);
            assert_eq!(disk.peek(4096, 4096), [9; 4096]);
        }
    }

    #[test]
    fn what_was_not_flushed_is_seen_before_a_crash_and_may_be_kept_lost_or_torn_by_it() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut disk = disk(seed);
            write(&mut disk, 0, 5, false);
            assert_eq!(disk.peek(0, 4096), [5; 4096]);
            disk.crash(Crash::PowerLoss);
            let after = disk.peek(0, 4096);
            for sector in after.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
            }
            match after.iter().filter(|byte| **byte == 5).count() {
                0 => lost += 1,
                4096 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 20 && lost > 20 && torn > 20, "kept {kept}, lost {lost}, torn {torn}");
    }

    #[test]
    fn a_flush_makes_durable_unless_it_is_ignored() {
        let lost = |ignore: bool| {
            (0..50).any(|seed| {
                let mut disk = disk(seed);
                if ignore {
                    disk.ignore_flush();
                }
                write(&mut disk, 0, 5, false);
                disk.submit(2, SimOp::Flush);
                disk.complete_one();
                disk.crash(Crash::PowerLoss);
                disk.peek(0, 4096) != [5; 4096]
            })
        };
        assert!(!lost(false));
        assert!(lost(true));
    }

    #[test]
    fn a_write_whose_dsync_is_ignored_can_be_lost() {
        let lost = (0..50).any(|seed| {
            let mut disk = disk(seed);
            disk.ignore_dsync(Box::new(|offset, _| offset == 0));
            write(&mut disk, 0, 5, true);
            write(&mut disk, 8192, 5, true);
            disk.crash(Crash::PowerLoss);
            assert_eq!(disk.peek(8192, 4096), [5; 4096]);
            disk.peek(0, 4096) != [5; 4096]
        });
        assert!(lost);
    }

    #[test]
    fn what_a_killed_process_left_in_the_cache_is_seen_and_can_still_be_lost() {
        let (mut seen, mut lost_later) = (0, 0);
        for seed in 0..200 {
            let mut disk = disk(seed);
            disk.submit(1, SimOp::Write { offset: 0, bytes: vec![5; 4096], dsync: true });
            disk.crash(Crash::ProcessKill);
            if disk.peek(0, 4096) == [5; 4096] {
                seen += 1;
                disk.crash(Crash::PowerLoss);
                lost_later += u32::from(disk.peek(0, 4096) != [5; 4096]);
            }
        }
        assert!(seen > 20 && lost_later > 10, "seen {seen}, lost later {lost_later}");
    }

    #[test]
    fn operations_overtake_each_other_and_all_complete() {
        let mut disk = disk(1);
        disk.set_faults(Faults { stalls: 100, ..Faults::default() });
        for id in 0..100 {
            disk.submit(id, SimOp::Read { offset: id * 512, len: 512 });
        }
        let mut order: Vec<_> = std::iter::from_fn(|| disk.complete_one().map(|(id, _)| id)).collect();
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn errors_and_short_transfers_come_as_often_as_asked() {
        let mut disk = disk(1);
        disk.set_faults(Faults { write_errors: 300, short: 300, ..Faults::default() });
        let answers: Vec<_> = (0..200).map(|_| write(&mut disk, 0, 1, true)).collect();
        assert!(answers.iter().filter(|answer| **answer == SimAnswer::Error(5)).count() > 30);
        assert!(answers.iter().filter(|answer| matches!(answer, SimAnswer::Done(n) if *n < 4096)).count() > 30);
    }

    #[test]
    fn a_flipped_bit_is_one_bit() {
        let mut disk = disk(1);
        write(&mut disk, 0, 0, true);
        disk.flip_bit(1000, 3);
        let ones: u32 = disk.peek(0, 4096).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!((ones, disk.peek(1000, 1)), (1, vec![8]));
    }
}
