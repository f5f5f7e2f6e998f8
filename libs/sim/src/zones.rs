//! The rules of a zoned disk, host managed SMR or ZNS: sequential zones are written only at their write pointer, only so
//! many of them may be open, and only a reset makes room again. What stands above the write pointer cannot be read.
//!
//! Sources: ZBC/ZAC and the NVMe Zoned Namespace command set, as the kernel shows them (`linux/blkzoned.h`,
//! `Documentation/filesystems/zonefs`): a write elsewhere fails with EIO, one beyond the capacity too, one too many open
//! zones with ETOOMANYREFS. Whether reads above the write pointer fail differs from drive to drive; here they do.

use std::ops::Range;

const EIO: i32 = 5;
const ETOOMANYREFS: i32 = 109;

/// How the zones of a disk lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneLayout {
    /// From one zone's start to the next, bytes.
    pub zone_bytes: u64,
    /// Bytes of a zone that can be written; less than `zone_bytes` on ZNS.
    pub capacity_bytes: u64,
    /// Zones at the front that can be written anywhere.
    pub conventional: u32,
    /// Most sequential zones that are neither empty nor full; 0: no limit.
    pub max_open: u32,
}

/// What a zone is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneHealth {
    /// Everything.
    Good,
    /// It can be read, and neither written nor reset.
    ReadOnly,
    /// Nothing.
    Offline,
}

/// What a report tells of one zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneState {
    /// First byte.
    pub start: u64,
    /// Bytes that can be written.
    pub capacity: u64,
    /// Where the next write must start; the start of an empty zone, the end of its capacity when it is full.
    pub write_pointer: u64,
    /// Whether it must be written in sequence.
    pub sequential: bool,
    /// Whether it still works.
    pub health: ZoneHealth,
}

impl ZoneState {
    fn end(&self) -> u64 {
        self.start + self.capacity
    }

    /// Whether it counts against the limit: neither empty nor full.
    pub fn is_open(&self) -> bool {
        self.sequential && self.write_pointer > self.start && self.write_pointer < self.end()
    }
}

/// All zones of a disk.
#[derive(Debug, Clone)]
pub struct Zones {
    layout: ZoneLayout,
    zones: Vec<ZoneState>,
}

impl Zones {
    /// Empty zones over `disk_bytes`.
    ///
    /// # Panics
    /// When the zones do not fill the disk: the test's numbers are wrong then.
    pub fn new(layout: ZoneLayout, disk_bytes: u64) -> Self {
        assert!(disk_bytes.is_multiple_of(layout.zone_bytes) && layout.capacity_bytes <= layout.zone_bytes);
        let zone = |n: u64| {
            let sequential = n >= u64::from(layout.conventional);
            let start = n * layout.zone_bytes;
            let capacity = if sequential { layout.capacity_bytes } else { layout.zone_bytes };
            ZoneState { start, capacity, write_pointer: start, sequential, health: ZoneHealth::Good }
        };
        Self { layout, zones: (0..disk_bytes / layout.zone_bytes).map(zone).collect() }
    }

    /// How they lie.
    pub fn layout(&self) -> ZoneLayout {
        self.layout
    }

    /// Every zone, in order.
    pub fn report(&self) -> &[ZoneState] {
        &self.zones
    }

    fn at(&mut self, offset: u64) -> &mut ZoneState {
        &mut self.zones[(offset / self.layout.zone_bytes) as usize]
    }

    /// Whether `len` bytes may be written at `offset` now; the errno if not.
    ///
    /// # Errors
    /// EIO for a place that is not the write pointer, or beyond the zone; ETOOMANYREFS when it would be one open zone
    /// too many.
    pub fn admit(&mut self, offset: u64, len: u64) -> Result<(), i32> {
        let open = self.zones.iter().filter(|zone| zone.is_open()).count();
        let max_open = self.layout.max_open as usize;
        let zone = *self.at(offset);
        if zone.health != ZoneHealth::Good {
            return Err(EIO);
        }
        if !zone.sequential {
            return if offset + len <= zone.end() { Ok(()) } else { Err(EIO) };
        }
        if offset != zone.write_pointer || offset + len > zone.end() {
            return Err(EIO);
        }
        if max_open > 0 && !zone.is_open() && offset + len < zone.end() && open >= max_open {
            return Err(ETOOMANYREFS);
        }
        Ok(())
    }

    /// Moves the write pointer over what was written.
    pub fn wrote(&mut self, offset: u64, len: u64) {
        let zone = self.at(offset);
        if zone.sequential && offset == zone.write_pointer {
            zone.write_pointer += len;
        }
    }

    /// Whether what is written at `offset` lands from its front on, and nowhere else.
    pub fn in_sequence(&mut self, offset: u64) -> bool {
        self.at(offset).sequential
    }

    /// Whether a range can be read.
    pub fn can_read(&self, range: Range<u64>) -> bool {
        let size = self.layout.zone_bytes;
        let zones = self.zones.iter().skip((range.start / size) as usize);
        zones.take_while(|zone| zone.start < range.end).all(|zone| {
            let end = range.end.min(zone.start + size);
            zone.health != ZoneHealth::Offline && (!zone.sequential || end <= zone.write_pointer)
        })
    }

    /// Makes the zone at `offset` work less well.
    pub fn set_health(&mut self, offset: u64, health: ZoneHealth) {
        self.at(offset).health = health;
    }

    /// Empties the zones of a range; the errno when it is not whole zones.
    ///
    /// # Errors
    /// As [`Zones::whole`].
    pub fn reset(&mut self, range: Range<u64>) -> Result<(), i32> {
        self.whole(range)?.iter_mut().for_each(|zone| zone.write_pointer = zone.start);
        Ok(())
    }

    /// Makes the zones of a range full, whatever was written of them.
    ///
    /// # Errors
    /// As [`Zones::whole`].
    pub fn finish(&mut self, range: Range<u64>) -> Result<(), i32> {
        self.whole(range)?.iter_mut().for_each(|zone| zone.write_pointer = zone.end());
        Ok(())
    }

    /// The zones of a range that may be changed as wholes.
    ///
    /// # Errors
    /// EIO for a range that does not start and end with a zone, or that has one that is conventional, or not good.
    fn whole(&mut self, range: Range<u64>) -> Result<&mut [ZoneState], i32> {
        let size = self.layout.zone_bytes;
        if !range.start.is_multiple_of(size) || !range.end.is_multiple_of(size) {
            return Err(EIO);
        }
        let zones = (range.start / size) as usize..(range.end / size) as usize;
        let zones = self.zones.get_mut(zones).ok_or(EIO)?;
        if zones.iter().any(|zone| !zone.sequential || zone.health != ZoneHealth::Good) {
            return Err(EIO);
        }
        Ok(zones)
    }
}

#[cfg(test)]
mod tests {
    use super::{EIO, ETOOMANYREFS, ZoneHealth, ZoneLayout, Zones};
    use crate::disk::{Crash, SimAnswer, SimDisk, SimOp};
    use crate::streams::Streams;

    const ZONE: u64 = 1 << 20;

    fn zones(max_open: u32) -> Zones {
        let layout = ZoneLayout { zone_bytes: ZONE, capacity_bytes: ZONE - 65_536, conventional: 1, max_open };
        Zones::new(layout, 8 * ZONE)
    }

    fn write(zones: &mut Zones, offset: u64, len: u64) -> Result<(), i32> {
        zones.admit(offset, len)?;
        zones.wrote(offset, len);
        Ok(())
    }

    #[test]
    fn a_sequential_zone_takes_writes_at_its_pointer_only() {
        let mut zones = zones(0);
        assert_eq!(write(&mut zones, ZONE + 4096, 4096), Err(EIO));
        assert_eq!(write(&mut zones, ZONE, 4096), Ok(()));
        assert_eq!(write(&mut zones, ZONE, 4096), Err(EIO));
        assert_eq!(write(&mut zones, ZONE + 4096, 4096), Ok(()));
        assert_eq!(zones.report()[1].write_pointer, ZONE + 8192);
    }

    #[test]
    fn a_conventional_zone_takes_them_anywhere() {
        let mut zones = zones(0);
        assert_eq!(write(&mut zones, 8192, 4096), Ok(()));
        assert_eq!(write(&mut zones, 0, 4096), Ok(()));
        assert_eq!(zones.reset(0..ZONE), Err(EIO));
    }

    #[test]
    fn nothing_is_written_beyond_the_capacity() {
        let mut zones = zones(0);
        assert_eq!(write(&mut zones, ZONE, ZONE - 65_536), Ok(()));
        assert_eq!(write(&mut zones, 2 * ZONE - 65_536, 4096), Err(EIO));
    }

    #[test]
    fn one_open_zone_too_many_is_refused_until_one_is_full_or_reset() {
        let mut zones = zones(2);
        assert_eq!(write(&mut zones, ZONE, 4096), Ok(()));
        assert_eq!(write(&mut zones, 2 * ZONE, 4096), Ok(()));
        assert_eq!(write(&mut zones, 3 * ZONE, 4096), Err(ETOOMANYREFS));
        assert_eq!(write(&mut zones, ZONE + 4096, ZONE - 65_536 - 4096), Ok(()));
        assert_eq!(write(&mut zones, 3 * ZONE, 4096), Ok(()));
        assert_eq!(write(&mut zones, 4 * ZONE, 4096), Err(ETOOMANYREFS));
        assert_eq!(zones.reset(2 * ZONE..3 * ZONE), Ok(()));
        assert_eq!(write(&mut zones, 4 * ZONE, 4096), Ok(()));
    }

    #[test]
    fn only_whole_zones_are_reset() {
        let mut zones = zones(0);
        assert_eq!(zones.reset(ZONE..ZONE + 4096), Err(EIO));
        assert_eq!(zones.reset(7 * ZONE..9 * ZONE), Err(EIO));
    }

    #[test]
    fn a_finished_zone_is_full_and_no_longer_open() {
        let mut zones = zones(1);
        assert_eq!(write(&mut zones, ZONE, 4096), Ok(()));
        assert_eq!(write(&mut zones, 2 * ZONE, 4096), Err(ETOOMANYREFS));
        assert_eq!(zones.finish(ZONE..2 * ZONE), Ok(()));
        assert_eq!(write(&mut zones, ZONE + 4096, 4096), Err(EIO));
        assert_eq!(write(&mut zones, 2 * ZONE, 4096), Ok(()));
        assert_eq!(zones.finish(0..ZONE), Err(EIO));
    }

    #[test]
    fn only_what_was_written_can_be_read_and_nothing_of_a_zone_that_is_offline() {
        let mut zones = zones(0);
        assert_eq!(write(&mut zones, ZONE, 8192), Ok(()));
        assert!(zones.can_read(0..ZONE + 8192) && zones.can_read(ZONE + 4096..ZONE + 8192));
        assert!(!zones.can_read(ZONE + 4096..ZONE + 8193) && !zones.can_read(2 * ZONE..2 * ZONE + 1));
        zones.set_health(ZONE, ZoneHealth::ReadOnly);
        assert!(zones.can_read(ZONE..ZONE + 4096));
        assert_eq!((write(&mut zones, ZONE + 8192, 4096), zones.reset(ZONE..2 * ZONE)), (Err(EIO), Err(EIO)));
        zones.set_health(ZONE, ZoneHealth::Offline);
        assert!(!zones.can_read(ZONE..ZONE + 4096));
    }

    #[test]
    fn a_torn_write_leaves_its_front_and_the_pointer_behind_it() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut disk = SimDisk::new(4 * ZONE, &Streams::new(seed));
            disk.set_zones(ZoneLayout { zone_bytes: ZONE, capacity_bytes: ZONE, conventional: 1, max_open: 0 });
            let bytes: Vec<u8> = (0..16_384).map(|n| (n / 512) as u8 + 1).collect();
            disk.submit(1, SimOp::Write { offset: ZONE, bytes: bytes.clone(), dsync: true });
            disk.crash(Crash::PowerLoss);
            let kept = (disk.zone_report()[1].write_pointer - ZONE) as usize;
            let found = disk.peek(ZONE, bytes.len());
            assert_eq!(found[..kept], bytes[..kept]);
            assert!(found[kept..].iter().all(|byte| *byte == 0));
            lengths.insert(kept);
        }
        assert!(lengths.contains(&0) && lengths.contains(&16_384) && lengths.len() > 5, "{lengths:?}");
    }

    #[test]
    fn a_reset_zone_reads_as_zeroes_and_takes_writes_from_its_start() {
        let mut disk = SimDisk::new(4 * ZONE, &Streams::new(1));
        disk.set_zones(ZoneLayout { zone_bytes: ZONE, capacity_bytes: ZONE, conventional: 0, max_open: 0 });
        let run = |disk: &mut SimDisk, op| {
            disk.submit(1, op);
            disk.complete_one().unwrap().1
        };
        let write = |offset| SimOp::Write { offset, bytes: vec![7; 4096], dsync: true };
        assert_eq!(run(&mut disk, write(ZONE)), SimAnswer::Done(4096));
        assert_eq!(run(&mut disk, write(ZONE)), SimAnswer::Error(EIO));
        assert_eq!(run(&mut disk, SimOp::ResetZones { offset: ZONE, len: ZONE }), SimAnswer::Done(0));
        assert_eq!(disk.peek(ZONE, 4096), vec![0; 4096]);
        assert_eq!(run(&mut disk, write(ZONE)), SimAnswer::Done(4096));
    }
}
