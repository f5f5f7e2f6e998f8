//! A disk that forgets, tears and lies as real ones do.
//!
//! # Fault model
//!
//! The unit is a sector of 512 bytes: it is written whole or not at all. Everything random is drawn from the seeded
//! streams of the run. Beyond that:
//!
//! **Order and durability**
//! - Operations in flight complete in any order; some stall while others overtake them ([`Faults::stalls`]).
//! - A write without DSYNC, once completed, is visible to reads but sits in a cache. Its sectors reach the media when
//!   the cache is flushed, or one by one in the background, or never.
//! - A write with DSYNC is on the media when it completes.
//! - A discard makes its sectors zero the way a write without DSYNC would.
//! - **Power loss** ([`Crash::PowerLoss`]): of every cached write, and of every write in flight (DSYNC or not), any
//!   subset of sectors reaches the media: all, none, or a torn mixture. Writes in flight land in any order.
//! - **Process kill** ([`Crash::ProcessKill`]): writes in flight may still happen, wholly, in part or not, but end in
//!   the cache: visible afterwards, and lost by a later power loss if nobody flushes.
//!
//! **Errors**
//! - A write may fail with EIO after any subset of its sectors was written, or be short.
//! - A reset or a finish of zones may fail with EIO, and was not done ([`SimDisk::keep_zones`]: all of them).
//! - A read may fail with EIO, for once or for a range for good ([`SimDisk::make_unreadable`]).
//! - **Latent sector errors** ([`SimDisk::make_latent`], [`Faults::latent_errors_per_million`]): reads that touch the
//!   sectors fail with EIO until they are written again.
//! - **Full** ([`SimDisk::set_space_left`]): allocations, and writes to pages that were neither allocated nor written,
//!   fail with ENOSPC once the space is used up.
//! - **Dead** ([`SimDisk::die`], [`SimDisk::die_after`]): from some moment on everything answers one errno; what was in
//!   flight does, too, after any part of it was done. [`SimDisk::revive`] brings it back.
//! - **Stale** ([`SimDisk::snapshot`], [`SimDisk::put_back`]): the disk comes back with what it held earlier.
//!
//! **Lies**
//! - **Bit rot** ([`SimDisk::flip_bit`], [`Faults::bit_rot_per_million`]): a bit of a written page flips.
//! - **Misdirected writes** ([`SimDisk::misdirect_next`], [`Faults::misdirected_per_million`]): a write lands, durably, at
//!   another place, is answered as done, and its target keeps the old bytes.
//!
//! What was done by chance is listed in [`SimDisk::harm`].
//!
//! **Time** ([`SimDisk::set_service_time`]): an operation completes only when its service time has passed on the disk's
//! own clock, which whoever drives it moves on ([`SimDisk::set_now`]). Without service times everything is due at once.
//!
//! **Size** ([`SimDisk::set_source`]): pages that were never written can be made up, so that a disk of any size costs
//! only the memory of what is written to it.
//!
//! **Zones** ([`SimDisk::set_zones`]): a zoned disk keeps the rules of [`crate::zones`]. Of a write in a sequential zone
//! that is torn, a run of sectors from its front reaches the media, and the write pointer stands behind it. Zones that a
//! crash finds being reset or finished are, or are not.
//!
//! Not modelled: sectors that are torn within, and a device that claims durability it does not have. The latter can be
//! shown by [`SimDisk::ignore_dsync`], which treats chosen writes as if their DSYNC flag had been forgotten, and
//! [`SimDisk::ignore_flush`], which drops flushes: the switches for mutation tests.

mod cache;
mod faults;
mod media;
mod service;

use std::ops::Range;
use std::time::Duration;

use cache::{Cached, Fate};
use faults::FaultState;
pub use faults::{Faults, Harm};
use media::Media;
pub use media::PageSource;
use service::Service;
pub use service::{Request, ServiceTime};

use crate::streams::{SimRng, Streams};
use crate::zones::{ZoneHealth, ZoneLayout, ZoneState, Zones};

/// The unit of writing, bytes.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: u64 = media::PAGE_BYTES as u64;

const EIO: i32 = 5;
/// "No such device": what a disk that was pulled answers.
pub const ENODEV: i32 = 19;
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
    /// Forget what stands there, whole sectors: they read as zeroes.
    Discard {
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
    /// Make whole zones of a zoned disk full.
    FinishZones {
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

/// Which writes lose their DSYNC: by offset and length.
pub type WriteFilter = Box<dyn Fn(u64, usize) -> bool>;

struct Flying {
    id: u64,
    op: SimOp,
    stall: u32,
    due: Duration,
}

/// What a disk held at a moment.
pub struct Snapshot {
    media: media::Copy,
    cache: Vec<Cached>,
    zones: Option<Zones>,
}

/// The simulated disk. See the module's header for what it may do.
pub struct SimDisk {
    size: u64,
    media: Media,
    cache: Vec<Cached>,
    flying: Vec<Flying>,
    order: SimRng,
    fault_rng: SimRng,
    crash_rng: SimRng,
    faults: Faults,
    fault_state: FaultState,
    decay_rng: SimRng,
    space_left: u64,
    /// Ranges that were allocated while space was limited.
    allocated: Vec<Range<u64>>,
    service: Service,
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
            media: Media::default(),
            cache: Vec::new(),
            flying: Vec::new(),
            order: streams.stream("disk-order"),
            fault_rng: streams.stream("disk-faults"),
            crash_rng: streams.stream("disk-crash"),
            faults: Faults::default(),
            fault_state: FaultState::default(),
            decay_rng: streams.stream("disk-decay"),
            space_left: u64::MAX,
            allocated: Vec::new(),
            service: Service::default(),
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

    /// Zones can be neither reset nor finished from now on, or can be again.
    pub fn keep_zones(&mut self, keep: bool) {
        self.fault_state.zones_stay = keep;
    }

    /// Makes the zone at `offset` of a zoned disk work less well.
    pub fn set_zone_health(&mut self, offset: u64, health: ZoneHealth) {
        if let Some(zones) = &mut self.zones {
            zones.set_health(offset, health);
        }
    }

    /// How its zones lie; `None` of a disk without.
    pub fn zone_layout(&self) -> Option<ZoneLayout> {
        self.zones.as_ref().map(Zones::layout)
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

    /// Reads that touch `range` fail from now on, for good.
    pub fn make_unreadable(&mut self, range: Range<u64>) {
        self.fault_state.unreadable.push(range);
    }

    /// Writes that touch `range` fail from now on, after any part of them was done, until [`SimDisk::make_writable`].
    pub fn make_unwritable(&mut self, range: Range<u64>) {
        self.fault_state.unwritable.push(range);
    }

    /// Everything can be written again.
    pub fn make_writable(&mut self) {
        self.fault_state.unwritable.clear();
    }

    /// Reads that touch the sectors of `range` fail until these are written again.
    pub fn make_latent(&mut self, range: Range<u64>) {
        self.fault_state.make_latent(range);
    }

    /// The next write lands at `offset` instead of where it should.
    pub fn misdirect_next(&mut self, offset: u64) {
        self.fault_state.misdirect_next = Some(offset);
    }

    /// Harm done by chance, and misdirected writes, in order.
    pub fn harm(&self) -> &[Harm] {
        &self.fault_state.harm
    }

    /// From now on everything answers `errno`; of writes in flight any part may have been done.
    pub fn die(&mut self, errno: i32) {
        self.fault_state.dead = Some(errno);
    }

    /// Dies with `errno` after that many completions.
    pub fn die_after(&mut self, completions: u64, errno: i32) {
        self.fault_state.dies_after = Some((completions, errno));
    }

    /// A dead disk works again.
    pub fn revive(&mut self) {
        (self.fault_state.dead, self.fault_state.dies_after) = (None, None);
    }

    /// What it holds now, durable or not; for [`SimDisk::put_back`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { media: self.media.copy(), cache: self.cache.clone(), zones: self.zones.clone() }
    }

    /// The disk of an earlier moment comes back. Nothing may be in flight.
    ///
    /// # Panics
    /// When something is in flight.
    pub fn put_back(&mut self, snapshot: &Snapshot) {
        assert!(self.flying.is_empty(), "a disk in use cannot be replaced");
        self.media.put_back(&snapshot.media);
        self.cache.clone_from(&snapshot.cache);
        self.zones.clone_from(&snapshot.zones);
    }

    /// Pages that were never written come from `source`.
    pub fn set_source(&mut self, source: PageSource) {
        self.media.set_source(source);
    }

    /// Operations take as long as `time_of` tells, by the disk's clock.
    pub fn set_service_time(&mut self, time_of: ServiceTime) {
        self.service.time_of = Some(time_of);
    }

    /// The disk's clock.
    pub fn now(&self) -> Duration {
        self.service.now
    }

    /// Moves the disk's clock on; it never goes back.
    pub fn set_now(&mut self, now: Duration) {
        self.service.now = self.service.now.max(now);
    }

    /// When the first operation in flight can complete; `None` when there is none.
    pub fn next_due(&self) -> Option<Duration> {
        self.flying.iter().map(|flying| flying.due).min()
    }

    /// Bytes that can still be taken: by allocations, and by writes to pages neither allocated nor written.
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

    /// Whether a write that touches `range` is under way, or completed and not durable.
    pub fn is_writing(&self, range: &Range<u64>) -> bool {
        let touches = |at: u64, len: usize| at < range.end && range.start < at + len as u64;
        let flying =
            |flying: &Flying| matches!(&flying.op, SimOp::Write { offset, bytes, .. } if touches(*offset, bytes.len()));
        self.flying.iter().any(flying) || self.cache.iter().any(|cached| touches(cached.offset, cached.len()))
    }

    /// Starts an operation.
    pub fn submit(&mut self, id: u64, op: SimOp) {
        let stall = if self.fault_rng.chance(self.faults.stalls) { self.fault_rng.within(5..60) as u32 } else { 0 };
        let (offset, len, is_read) = match &op {
            SimOp::Read { offset, len } => (*offset, *len, true),
            SimOp::Write { offset, bytes, .. } => (*offset, bytes.len(), false),
            SimOp::Flush => (0, 0, false),
            SimOp::Allocate { offset, .. }
            | SimOp::Discard { offset, .. }
            | SimOp::ResetZones { offset, .. }
            | SimOp::FinishZones { offset, .. } => (*offset, 0, false),
        };
        let queued = self.flying.len();
        let due = self.service.due(Request { at: self.service.now, offset, len, is_read, queued });
        self.flying.push(Flying { id, op, stall, due });
    }

    /// Completes one operation in flight that is due, any one; `None` when there is none.
    pub fn complete_one(&mut self) -> Option<(u64, SimAnswer)> {
        if self.order.chance(self.faults.write_back) && !self.cache.is_empty() {
            let oldest = self.cache.remove(0);
            self.settle(&oldest);
        }
        for flying in &mut self.flying {
            flying.stall = flying.stall.saturating_sub(1);
        }
        let now = self.service.now;
        let due = |flying: &Flying| flying.due <= now;
        let eligible = self.flying.iter().filter(|flying| due(flying) && flying.stall == 0).count();
        let index = if eligible == 0 {
            // Everything stalls: the one that is nearest its end goes on.
            let (index, _) =
                self.flying.iter().enumerate().filter(|(_, f)| due(f)).min_by_key(|(_, flying)| flying.stall)?;
            index
        } else {
            let pick = self.order.index(eligible);
            self.flying.iter().enumerate().filter(|(_, flying)| due(flying) && flying.stall == 0).nth(pick)?.0
        };
        let Flying { id, op, .. } = self.flying.swap_remove(index);
        self.completed += 1;
        Some((id, self.answer(op)))
    }

    fn answer(&mut self, op: SimOp) -> SimAnswer {
        if let Some((left, errno)) = self.fault_state.dies_after {
            self.fault_state.dies_after = left.checked_sub(1).map(|left| (left, errno));
            if left == 0 {
                self.die(errno);
            }
        }
        if let Some(errno) = self.fault_state.dead {
            if let SimOp::Write { offset, bytes, .. } = op {
                self.land(offset, bytes, Crash::PowerLoss);
            }
            return SimAnswer::Error(errno);
        }
        if (self.faults.bit_rot_per_million | self.faults.latent_errors_per_million) > 0
            && let Some((offset, bit)) = self.fault_state.decay(&self.faults, &mut self.decay_rng, &self.media)
        {
            self.rot(offset, bit);
        }
        self.perform(op)
    }

    fn perform(&mut self, op: SimOp) -> SimAnswer {
        match op {
            SimOp::Read { offset, len } => self.read(offset, len),
            SimOp::Write { offset, bytes, dsync } => self.write(offset, bytes, dsync),
            SimOp::Flush => {
                if !self.ignore_flush {
                    for cached in std::mem::take(&mut self.cache) {
                        self.settle(&cached);
                    }
                }
                SimAnswer::Done(0)
            }
            SimOp::Allocate { offset, len } => match self.take_space(offset, len) {
                Ok(()) => SimAnswer::Done(0),
                Err(code) => SimAnswer::Error(code),
            },
            SimOp::Discard { offset, len } => {
                self.cache.push(Cached::new(offset, vec![0; len as usize]));
                SimAnswer::Done(0)
            }
            SimOp::ResetZones { .. } | SimOp::FinishZones { .. }
                if self.fault_state.zones_stay || self.fault_rng.chance(self.faults.write_errors) =>
            {
                SimAnswer::Error(EIO)
            }
            SimOp::ResetZones { offset, len } => self.reset_zones(offset, len),
            SimOp::FinishZones { offset, len } => self.finish_zones(offset, len),
        }
    }

    fn reset_zones(&mut self, offset: u64, len: u64) -> SimAnswer {
        match self.zones.as_mut().map_or(Err(EIO), |zones| zones.reset(offset..offset + len)) {
            Ok(()) => {
                self.media.blank(offset / PAGE_BYTES..(offset + len) / PAGE_BYTES);
                SimAnswer::Done(0)
            }
            Err(code) => SimAnswer::Error(code),
        }
    }

    fn finish_zones(&mut self, offset: u64, len: u64) -> SimAnswer {
        match self.zones.as_mut().map_or(Err(EIO), |zones| zones.finish(offset..offset + len)) {
            Ok(()) => SimAnswer::Done(0),
            Err(code) => SimAnswer::Error(code),
        }
    }

    /// Takes what a range needs and does not have; all of an allocation, the blank pages of a write.
    fn take_space(&mut self, offset: u64, len: u64) -> Result<(), i32> {
        if self.space_left == u64::MAX {
            return Ok(());
        }
        self.space_left = self.space_left.checked_sub(len).ok_or(ENOSPC)?;
        self.allocated.push(offset..offset + len);
        Ok(())
    }

    fn take_space_for_write(&mut self, offset: u64, len: u64) -> Result<(), i32> {
        if self.space_left == u64::MAX {
            return Ok(());
        }
        for page in offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES) {
            let at = page * PAGE_BYTES;
            if !self.media.is_written(page) && !self.allocated.iter().any(|range| range.contains(&at)) {
                self.take_space(at, PAGE_BYTES)?;
            }
        }
        Ok(())
    }

    /// Whether a write at `offset` lands in sequence, from its front.
    fn in_sequence(&mut self, offset: u64) -> bool {
        self.zones.as_mut().is_some_and(|zones| zones.in_sequence(offset))
    }

    fn read(&mut self, offset: u64, len: usize) -> SimAnswer {
        let end = offset + len as u64;
        let above = self.zones.as_ref().is_some_and(|zones| !zones.can_read(offset..end.min(self.size)));
        if above || self.fault_state.cannot_read(offset, end) || self.fault_rng.chance(self.faults.read_errors) {
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
        if let Err(code) = self.take_space_for_write(offset, bytes.len() as u64) {
            return SimAnswer::Error(code);
        }
        // The drive's cache of a sequential zone is not modelled: what completed there is on the media.
        let sequential = self.in_sequence(offset);
        let dsync =
            sequential || dsync && !self.ignore_dsync.as_ref().is_some_and(|filter| filter(offset, bytes.len()));
        let fails = self.fault_state.cannot_write(offset, offset + bytes.len() as u64);
        if fails || self.fault_rng.chance(self.faults.write_errors) {
            let kept = Fate::draw(&mut self.fault_rng, sequential);
            self.tear(offset, bytes, kept);
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
        let landed = self.fault_state.direct(&self.faults, &mut self.fault_rng, offset, len, self.size);
        if dsync || landed != offset {
            self.write_durable(landed, &bytes);
        } else {
            self.cache.push(Cached::new(offset, bytes));
        }
        SimAnswer::Done(len)
    }

    /// Puts bytes on the media at once, past queue and faults.
    pub fn write_durable(&mut self, offset: u64, bytes: &[u8]) {
        // Older cached writes to these sectors must not come back over them.
        let end = offset + bytes.len() as u64;
        self.cache.retain_mut(|cached| !cached.overlaps(offset, end) || cached.give_up(offset, end));
        self.put(offset, bytes);
    }

    /// What a read would see now: the media under the cache. Past queue and faults.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = self.media.read(offset, len);
        let end = offset + len as u64;
        for cached in self.cache.iter().filter(|cached| cached.overlaps(offset, end)) {
            cached.runs().for_each(|(at, bytes)| overlay(&mut out, offset, at, bytes));
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

    /// Flips one bit of the media, and heals nothing.
    fn rot(&mut self, offset: u64, bit: u8) {
        let byte = self.media.read(offset, 1);
        self.media.write(offset, &[byte[0] ^ 1 << bit]);
    }

    /// Ends everything in flight the way `crash` does. The disk can be used again at once.
    pub fn crash(&mut self, crash: Crash) {
        let mut flying: Vec<_> = self.flying.drain(..).collect();
        self.crash_rng.shuffle(&mut flying);
        let cached = if crash == Crash::PowerLoss { std::mem::take(&mut self.cache) } else { Vec::new() };
        for mut write in cached {
            write.thin(&mut Fate::draw(&mut self.crash_rng, false));
            self.settle(&write);
        }
        for Flying { op, .. } in flying {
            match op {
                SimOp::Write { offset, bytes, .. } => self.land(offset, bytes, crash),
                SimOp::Discard { offset, len } => self.land(offset, vec![0; len as usize], crash),
                SimOp::ResetZones { offset, len } if self.crash_rng.chance(500) => {
                    self.reset_zones(offset, len);
                }
                SimOp::FinishZones { offset, len } if self.crash_rng.chance(500) => {
                    self.finish_zones(offset, len);
                }
                _ => {}
            }
        }
    }

    /// Any part of a write whose end nobody saw.
    fn land(&mut self, offset: u64, bytes: Vec<u8>, crash: Crash) {
        let sequential = self.in_sequence(offset);
        let mut fate = Fate::draw(&mut self.crash_rng, sequential);
        if sequential {
            // Only what the zone would have taken.
            if self.zones.as_mut().is_some_and(|zones| zones.admit(offset, bytes.len() as u64).is_ok()) {
                self.tear(offset, bytes, fate);
            }
            return;
        }
        let mut write = Cached::new(offset, bytes);
        write.thin(&mut fate);
        match crash {
            Crash::PowerLoss => self.settle(&write),
            Crash::ProcessKill => self.cache.push(write),
        }
    }

    /// Puts on the media what is left of a write, and the write pointer behind it.
    fn tear(&mut self, offset: u64, bytes: Vec<u8>, mut fate: Fate) {
        let mut write = Cached::new(offset, bytes);
        write.thin(&mut fate);
        let kept: usize = write.runs().map(|(_, bytes)| bytes.len()).sum();
        self.settle(&write);
        if let Some(zones) = &mut self.zones {
            zones.wrote(offset, kept as u64);
        }
    }

    fn settle(&mut self, cached: &Cached) {
        cached.runs().for_each(|(at, bytes)| self.put(at, bytes));
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.fault_state.written(offset, bytes.len() as u64);
        self.media.write(offset, bytes);
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
mod tests;
