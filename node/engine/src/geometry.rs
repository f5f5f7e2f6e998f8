//! Where everything stands on a disk. `docs/on-disk-format.md` tells why in this order.
//!
//! ```text
//! superblock A | superblock B | extent table A | extent table B | table log (two halves) | key area | slots…
//! slot: header page A | header page B | data | footer reserve
//! ```
//! On a zoned disk the header pages of all slots stand behind the key area, with everything else that is written in
//! place, in conventional zones; a slot is data and footer reserve, in whole sequential zones (`geometry/zoned.rs`).

pub(crate) mod zoned;

use holdfast_libs_types::{MAX_VOLUME_RECORDS, PAGE_BYTES};

use zoned::SlotZones;

const PAGE: u64 = PAGE_BYTES as u64;
const MIB: u64 = 1 << 20;

/// Superblock A stands at the very start; B a whole MiB later, so that no one slip of a head or a partitioning tool
/// takes both.
pub(crate) const SUPERBLOCK_OFFSETS: [u64; 2] = [0, MIB];
/// Room kept for each superblock, bytes.
const SUPERBLOCK_AREA_BYTES: u64 = MIB;
/// Entries on one page of the extent table.
pub(crate) const ENTRIES_PER_PAGE: u32 = 31;
/// Least and most bytes of one half of the table log; and what it is a multiple of.
const LOG_HALF_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=2 * MIB;
const LOG_HALF_UNIT_BYTES: u64 = 64 * 1024;
/// Room for the wrapped keyring, both copies, bytes.
const KEY_AREA_BYTES: u64 = 4 * MIB;
/// Slots start on a multiple of this, bytes.
const SLOTS_ALIGN_BYTES: u64 = MIB;

/// Header pages A and B, bytes.
pub(crate) const SLOT_HEADER_BYTES: u64 = 2 * PAGE;
/// A sealed extent has one CRC-32 for each of these many bytes.
pub(crate) const CRC_SPAN_BYTES: u64 = 64 * 1024;
/// A row of the record table: hash 32, offset 8, length 4, flags 4.
pub(crate) const RECORD_ROW_BYTES: u64 = 48;
/// Least bytes of a record: its header and the cipher's tag. Bounds the rows a small slot can need.
const LEAST_RECORD_BYTES: u64 = 128 + 16;
/// Trailer of the footer, bytes.
const TRAILER_BYTES: u64 = PAGE;

/// Smallest slot, bytes.
pub(crate) const MIN_SLOT_BYTES: u64 = 256 * 1024;
/// Largest slot, bytes.
pub(crate) const MAX_SLOT_BYTES: u64 = 16 << 30;
/// Most slots on a disk: bounds the memory and the time a mount takes.
pub(crate) const MAX_SLOTS: u64 = 1 << 22;

/// A run of bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Area {
    pub(crate) fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}

/// Offsets and lengths of every area. Read from the superblock, never computed again after formatting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) disk_bytes: u64,
    pub(crate) slot_bytes: u64,
    pub(crate) slots: u32,
    pub(crate) superblock_a: Area,
    pub(crate) superblock_b: Area,
    pub(crate) table_a: Area,
    pub(crate) table_b: Area,
    pub(crate) log: Area,
    pub(crate) keys: Area,
    pub(crate) slot_area: Area,
    pub(crate) data_bytes: u64,
    pub(crate) footer_bytes: u64,
    /// How slots stand in the zones of a zoned disk.
    pub(crate) zones: Option<SlotZones>,
}

/// Bytes of a slot's data and footer that stand one behind the other on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

/// Why no disk can be laid out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PlanError {
    SlotSize,
    TooSmall {
        need: u64,
    },
    TooManySlots {
        slots: u64,
    },
    /// Bytes in conventional zones at the front of a zoned disk, and how many its slots need.
    Conventional {
        have: u64,
        need: u64,
    },
}

/// Pages of entries in one copy of the extent table; its header page comes before them.
pub(crate) fn table_pages(slots: u32) -> u64 {
    u64::from(slots.div_ceil(ENTRIES_PER_PAGE))
}

/// Bytes of one half of the table log: a page for each slot to change once, within bounds that keep a mount short.
fn log_half_bytes(slots: u32) -> u64 {
    (u64::from(slots) * PAGE)
        .clamp(*LOG_HALF_BYTES.start(), *LOG_HALF_BYTES.end())
        .next_multiple_of(LOG_HALF_UNIT_BYTES)
}

/// Bytes a slot keeps for the footer of a sealed extent.
fn footer_reserve(slot_bytes: u64) -> u64 {
    let page_crcs = (slot_bytes.div_ceil(CRC_SPAN_BYTES) * 4).next_multiple_of(PAGE);
    let rows = u64::from(MAX_VOLUME_RECORDS).min(slot_bytes / LEAST_RECORD_BYTES);
    page_crcs + (rows * RECORD_ROW_BYTES).next_multiple_of(PAGE) + TRAILER_BYTES
}

pub(crate) fn check_slot_bytes(slot_bytes: u64) -> Result<(), PlanError> {
    let fits = (MIN_SLOT_BYTES..=MAX_SLOT_BYTES).contains(&slot_bytes) && slot_bytes.is_multiple_of(CRC_SPAN_BYTES);
    if fits { Ok(()) } else { Err(PlanError::SlotSize) }
}

impl Geometry {
    /// Lays out a disk of `disk_bytes` with as many slots of `slot_bytes` as fit.
    pub(crate) fn plan(disk_bytes: u64, slot_bytes: u64) -> Result<Self, PlanError> {
        check_slot_bytes(slot_bytes)?;
        let mut slots = disk_bytes / slot_bytes;
        if slots > MAX_SLOTS {
            return Err(PlanError::TooManySlots { slots });
        }
        while slots > 0 {
            let geometry = Self::with_slots(disk_bytes, slot_bytes, slots as u32);
            if geometry.slot_area.end().is_some_and(|end| end <= disk_bytes) {
                return Ok(geometry);
            }
            slots -= 1;
        }
        let least = Self::with_slots(disk_bytes, slot_bytes, 1).slot_area;
        Err(PlanError::TooSmall { need: least.offset + least.len })
    }

    fn with_slots(disk_bytes: u64, slot_bytes: u64, slots: u32) -> Self {
        let slot_count = u64::from(slots);
        let mut at = 0;
        let mut area = |len: u64| {
            let area = Area { offset: at, len };
            at += len;
            area
        };
        let superblock_a = area(SUPERBLOCK_AREA_BYTES);
        let superblock_b = area(SUPERBLOCK_AREA_BYTES);
        let table_bytes = (PAGE + table_pages(slots) * PAGE).next_multiple_of(64 * 1024);
        let table_a = area(table_bytes);
        let table_b = area(table_bytes);
        let log = area(2 * log_half_bytes(slots));
        let keys = area(KEY_AREA_BYTES);
        let offset = at.next_multiple_of(SLOTS_ALIGN_BYTES);
        let footer_bytes = footer_reserve(slot_bytes);
        Self {
            disk_bytes,
            slot_bytes,
            slots,
            superblock_a,
            superblock_b,
            table_a,
            table_b,
            log,
            keys,
            slot_area: Area { offset, len: slot_count * slot_bytes },
            data_bytes: slot_bytes - SLOT_HEADER_BYTES - footer_bytes,
            footer_bytes,
            zones: None,
        }
    }

    /// Whether the numbers, as read from a superblock, can be a disk; the text says what cannot.
    pub(crate) fn check(&self) -> Result<(), String> {
        let areas = [
            ("superblock A", self.superblock_a),
            ("superblock B", self.superblock_b),
            ("extent table A", self.table_a),
            ("extent table B", self.table_b),
            ("table log", self.log),
            ("key area", self.keys),
        ];
        let headers = self.zones.as_ref().map(|zones| ("slot headers", zones.headers));
        let mut before = 0;
        for (name, area) in areas.into_iter().chain(headers).chain([("slots", self.slot_area)]) {
            let end = area.end().ok_or_else(|| format!("{name} has no end"))?;
            if area.offset < before || end > self.disk_bytes || !area.offset.is_multiple_of(PAGE) || area.len < PAGE {
                return Err(format!("{name} at {}+{} does not fit", area.offset, area.len));
            }
            before = end;
        }
        if !(MIN_SLOT_BYTES..=MAX_SLOT_BYTES).contains(&self.slot_bytes) || !self.slot_bytes.is_multiple_of(PAGE) {
            return Err(format!("slot size {} is not allowed", self.slot_bytes));
        }
        if self.slots == 0 || u64::from(self.slots) > MAX_SLOTS {
            return Err(format!("{} slots are not allowed", self.slots));
        }
        if let Some(zones) = &self.zones {
            zones.check(self)?;
        }
        if self.slot_area.len != u64::from(self.slots) * self.slot_stride() {
            return Err("the slots do not fill their area".to_owned());
        }
        let parts = self.data_bytes.checked_add(self.footer_bytes).and_then(|n| n.checked_add(SLOT_HEADER_BYTES));
        if parts != Some(self.slot_bytes) || !self.data_bytes.is_multiple_of(PAGE) || self.data_bytes == 0 {
            return Err("data and footer do not fill a slot".to_owned());
        }
        let table_bytes = (1 + table_pages(self.slots)) * PAGE;
        if self.table_a.len < table_bytes || self.table_b.len < table_bytes {
            return Err(format!("a table of {} slots does not fit into its area", self.slots));
        }
        let half = self.log.len / 2;
        if !LOG_HALF_BYTES.contains(&half) || !self.log.len.is_multiple_of(2 * LOG_HALF_UNIT_BYTES) {
            return Err("the table log is no two halves".to_owned());
        }
        if self.keys.len < 4 * PAGE || !self.keys.len.is_multiple_of(2 * PAGE) {
            return Err("the key area is no two copies".to_owned());
        }
        Ok(())
    }

    /// The copy of the extent table that checkpoint `generation` goes to.
    pub(crate) fn table_copy(&self, generation: u64) -> Area {
        if generation.is_multiple_of(2) { self.table_a } else { self.table_b }
    }

    /// The half of the table log that belongs to checkpoint `generation`.
    pub(crate) fn log_half(&self, generation: u64) -> Area {
        let len = self.log.len / 2;
        Area { offset: self.log.offset + (generation % 2) * len, len }
    }

    /// Bytes of data one extent can hold.
    pub(crate) fn volume_capacity_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes that the key area holds: each half has a copy of them behind a header page.
    pub(crate) fn key_area_bytes(&self) -> u64 {
        self.keys.len / 2 - PAGE
    }

    /// From one slot's start to the next, bytes.
    pub(crate) fn slot_stride(&self) -> u64 {
        self.zones.as_ref().map_or(self.slot_bytes, SlotZones::slot_stride)
    }

    /// Where a slot starts.
    pub(crate) fn slot_offset(&self, slot: u32) -> u64 {
        self.slot_area.offset + u64::from(slot) * self.slot_stride()
    }

    /// Where header page A (0) or B (1) of a slot stands.
    pub(crate) fn header_offset(&self, slot: u32, page: u8) -> u64 {
        let headers = match &self.zones {
            Some(zones) => zones.headers.offset + u64::from(slot) * SLOT_HEADER_BYTES,
            None => self.slot_offset(slot),
        };
        headers + u64::from(page) * PAGE
    }

    /// Where the header pages of all slots stand.
    pub(crate) fn header_areas(&self) -> impl Iterator<Item = Area> {
        let together = self.zones.as_ref().map(|zones| zones.headers);
        let each = if together.is_some() { 0 } else { self.slots };
        let each = (0..each).map(|slot| Area { offset: self.header_offset(slot, 0), len: SLOT_HEADER_BYTES });
        together.into_iter().chain(each)
    }

    /// Bytes of data and footer that a slot has room for.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.data_bytes + self.footer_bytes
    }

    /// Where byte `offset` of a slot's data (and, behind it, footer) stands, and how many of those after it follow it
    /// on the disk.
    pub(crate) fn data_run(&self, slot: u32, offset: u64) -> Run {
        let start = self.slot_offset(slot);
        let left = self.room_bytes().saturating_sub(offset);
        match &self.zones {
            Some(zones) => {
                let run = zones.run(offset);
                Run { at: start + run.at, len: run.len.min(left) }
            }
            None => Run { at: start + SLOT_HEADER_BYTES + offset, len: left },
        }
    }

    /// Whether `offset` is in an area that every extent depends on.
    pub(crate) fn is_in_areas(&self, offset: u64) -> bool {
        offset < self.keys.offset + self.keys.len
    }
}

#[cfg(test)]
mod tests {
    use super::{Geometry, PlanError};

    #[test]
    fn a_development_disk_has_the_slots_it_should() {
        let geometry = Geometry::plan(8 << 30, 64 << 20).unwrap();
        geometry.check().unwrap();
        assert_eq!(geometry.slots, 127);
        assert_eq!(geometry.slot_area.offset, 8 << 20);
        assert_eq!(geometry.footer_bytes, 4096 + 65_536 * 48 + 4096);
        assert_eq!(geometry.data_bytes, (64 << 20) - 8192 - geometry.footer_bytes);
    }

    #[test]
    fn a_disk_of_20_tb_has_a_table_that_is_read_in_no_time() {
        let geometry = Geometry::plan(20_000_000_000_000, 1 << 30).unwrap();
        geometry.check().unwrap();
        assert_eq!((geometry.slots, geometry.log_half(7).len), (18_626, 2 << 20));
        assert_eq!(geometry.table_a.len, (1 + 601 + 6) * 4096);
        assert_eq!(geometry.log_half(4).offset + geometry.log_half(4).len, geometry.log_half(5).offset);
        assert_eq!((geometry.table_copy(4), geometry.table_copy(5)), (geometry.table_a, geometry.table_b));
    }

    #[test]
    fn every_plan_passes_its_own_check() {
        for slot_bytes in [256 << 10, 1 << 20, 64 << 20, 1 << 30] {
            for disk_bytes in (1..60).map(|n| n * 173_111_552 + 1234) {
                match Geometry::plan(disk_bytes, slot_bytes) {
                    Ok(geometry) => geometry.check().unwrap(),
                    Err(PlanError::TooSmall { need }) => {
                        assert!(need > disk_bytes);
                        assert_eq!(Geometry::plan(need, slot_bytes).unwrap().slots, 1);
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn slot_sizes_out_of_bounds_are_refused() {
        for slot_bytes in [0, 4096, 100_000, (256 << 10) + 4096, 17 << 30] {
            assert_eq!(Geometry::plan(1 << 40, slot_bytes), Err(PlanError::SlotSize));
        }
    }
}
