//! Slots on a zoned disk: each takes whole sequential zones, which stand behind the conventional zones that hold
//! everything that is written in place. `docs/decisions/0012-zoned-disks.md` tells why.

use super::{Area, Geometry, MAX_SLOTS, PAGE, PlanError, SLOT_HEADER_BYTES, check_slot_bytes};

/// How the zones of a disk lie, as far as slots can stand in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZoneShape {
    /// From one zone's start to the next, bytes.
    pub(crate) zone_bytes: u64,
    /// Bytes of a sequential zone that can be written, whole pages.
    pub(crate) capacity_bytes: u64,
    /// Conventional zones at the front.
    pub(crate) conventional: u32,
    /// Sequential zones right behind them.
    pub(crate) sequential: u32,
    /// Most zones that may be partly written at a time; 0: any number.
    pub(crate) limit: u32,
}

/// How the slots of a disk stand in its zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotZones {
    /// The header pages of all slots, A and B of each together.
    pub(crate) headers: Area,
    pub(crate) zone_bytes: u64,
    /// Bytes of a zone that can be written.
    pub(crate) capacity_bytes: u64,
    /// Zones of one slot.
    pub(crate) zones: u32,
    /// Most zones that may be partly written at a time; 0: any number.
    pub(crate) limit: u32,
}

/// Where something stands, from the start of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunInSlot {
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl SlotZones {
    pub(crate) fn slot_stride(&self) -> u64 {
        u64::from(self.zones) * self.zone_bytes
    }

    /// Where byte `offset` of what is written to a slot stands; the run ends with its zone.
    pub(crate) fn run(&self, offset: u64) -> RunInSlot {
        let (zone, within) = (offset / self.capacity_bytes, offset % self.capacity_bytes);
        RunInSlot { at: zone * self.zone_bytes + within, len: self.capacity_bytes - within }
    }

    /// Whether the numbers, as read from a superblock, fit `geometry`; the text says what does not.
    pub(super) fn check(&self, geometry: &Geometry) -> Result<(), String> {
        if self.zone_bytes == 0 || !self.zone_bytes.is_multiple_of(PAGE) {
            return Err(format!("zones of {} bytes are not allowed", self.zone_bytes));
        }
        let capacity = self.capacity_bytes;
        if capacity == 0 || capacity > self.zone_bytes || !capacity.is_multiple_of(PAGE) {
            return Err(format!("zones of {} bytes with room for {capacity} are not allowed", self.zone_bytes));
        }
        let stride = u64::from(self.zones).checked_mul(self.zone_bytes);
        if stride.and_then(|stride| stride.checked_mul(u64::from(geometry.slots))).is_none() {
            return Err("the slots have no end".to_owned());
        }
        let room = geometry.data_bytes.checked_add(geometry.footer_bytes);
        if room.is_none_or(|room| room > u64::from(self.zones) * capacity) {
            return Err(format!("a slot does not fit into {} zones", self.zones));
        }
        if !geometry.slot_area.offset.is_multiple_of(self.zone_bytes) {
            return Err("the slots do not start with a zone".to_owned());
        }
        if self.headers.len < u64::from(geometry.slots) * SLOT_HEADER_BYTES {
            return Err("the slot headers do not fit into their area".to_owned());
        }
        Ok(())
    }
}

impl Geometry {
    /// Lays out a zoned disk with as many slots as its sequential zones hold. A slot has as much room as one of
    /// `slot_bytes` on any other disk.
    pub(crate) fn plan_zoned(shape: ZoneShape, slot_bytes: u64) -> Result<Self, PlanError> {
        check_slot_bytes(slot_bytes)?;
        let (front, zone_bytes) = (u64::from(shape.conventional), shape.zone_bytes);
        let zones = (slot_bytes - SLOT_HEADER_BYTES).div_ceil(shape.capacity_bytes.max(1));
        let slots = u64::from(shape.sequential) / zones;
        if slots > MAX_SLOTS {
            return Err(PlanError::TooManySlots { slots });
        }
        if slots == 0 {
            return Err(PlanError::TooSmall { need: (front.max(1) + zones) * zone_bytes });
        }
        let disk_bytes = (front + u64::from(shape.sequential)) * zone_bytes;
        let plain = Self::with_slots(disk_bytes, slot_bytes, slots as u32);
        let headers = Area { offset: plain.keys.offset + plain.keys.len, len: slots * SLOT_HEADER_BYTES };
        let (have, need) = (front * zone_bytes, headers.offset + headers.len);
        if have < need {
            return Err(PlanError::Conventional { have, need });
        }
        let slot_area = Area { offset: have, len: slots * zones * zone_bytes };
        let (capacity_bytes, limit) = (shape.capacity_bytes, shape.limit);
        let zones = SlotZones { headers, zone_bytes, capacity_bytes, zones: zones as u32, limit };
        Ok(Self { slot_area, zones: Some(zones), ..plain })
    }
}

#[cfg(test)]
mod tests {
    use super::ZoneShape;
    use crate::geometry::{Area, Geometry, PlanError, Run, SLOT_HEADER_BYTES};

    const MIB: u64 = 1 << 20;
    const SMR: ZoneShape = ZoneShape {
        zone_bytes: 256 * MIB,
        capacity_bytes: 256 * MIB,
        conventional: 745,
        sequential: 73_761,
        limit: 128,
    };

    #[test]
    fn a_slot_of_a_zoned_disk_has_the_room_of_any_other() {
        let zoned = Geometry::plan_zoned(SMR, 1 << 30).unwrap();
        zoned.check().unwrap();
        let plain = Geometry::plan(20_000_000_000_000, 1 << 30).unwrap();
        assert_eq!((zoned.data_bytes, zoned.footer_bytes), (plain.data_bytes, plain.footer_bytes));
        assert_eq!((zoned.slots, zoned.slot_stride()), (18_440, 1 << 30));
        assert_eq!(zoned.slot_offset(1), 749 * 256 * MIB);
        assert_eq!(zoned.header_offset(1, 1), zoned.keys.offset + zoned.keys.len + 3 * 4096);
        assert!(zoned.header_offset(zoned.slots - 1, 1) < zoned.slot_offset(0));
    }

    #[test]
    fn zones_with_less_room_than_they_are_long_are_used_up_to_it() {
        let shape =
            ZoneShape { zone_bytes: MIB, capacity_bytes: MIB - 65_536, conventional: 8, sequential: 40, limit: 0 };
        let geometry = Geometry::plan_zoned(shape, 4 * MIB).unwrap();
        geometry.check().unwrap();
        assert_eq!((geometry.slots, geometry.slot_stride()), (8, 5 * MIB));
        let start = geometry.slot_offset(2);
        assert_eq!(start, (8 + 10) * MIB);
        assert_eq!(geometry.data_run(2, 0), Run { at: start, len: MIB - 65_536 });
        assert_eq!(geometry.data_run(2, 4096), Run { at: start + 4096, len: MIB - 65_536 - 4096 });
        assert_eq!(geometry.data_run(2, MIB - 65_536), Run { at: start + MIB, len: MIB - 65_536 });
        let last = geometry.room_bytes() - 4096;
        assert_eq!(geometry.data_run(2, last).len, 4096);
    }

    #[test]
    fn a_disk_without_room_for_what_is_written_in_place_is_refused_with_what_it_lacks() {
        let refused = Geometry::plan_zoned(ZoneShape { conventional: 0, ..SMR }, 1 << 30);
        assert_eq!(refused, Err(PlanError::Conventional { have: 0, need: 10 * MIB + 2 * 2_490_368 + 18_440 * 8192 }));
        assert!(Geometry::plan_zoned(ZoneShape { conventional: 1, ..SMR }, 1 << 30).is_ok());
        let refused = Geometry::plan_zoned(ZoneShape { sequential: 3, ..SMR }, 1 << 30);
        assert!(matches!(refused, Err(PlanError::TooSmall { .. })));
        assert_eq!(Geometry::plan_zoned(SMR, 4096), Err(PlanError::SlotSize));
    }

    #[test]
    fn impossible_zones_are_refused() {
        let good = Geometry::plan_zoned(SMR, 1 << 30).unwrap();
        let zones = good.zones.clone().unwrap();
        for wrong in [
            super::SlotZones { zone_bytes: 0, ..zones.clone() },
            super::SlotZones { zone_bytes: u64::MAX / 4096 * 4096, ..zones.clone() },
            super::SlotZones { zone_bytes: 255 * MIB, ..zones.clone() },
            super::SlotZones { capacity_bytes: 0, ..zones.clone() },
            super::SlotZones { capacity_bytes: 257 * MIB, ..zones.clone() },
            super::SlotZones { capacity_bytes: 100 * MIB, ..zones.clone() },
            super::SlotZones { zones: 0, ..zones.clone() },
            super::SlotZones { zones: 5, ..zones.clone() },
            super::SlotZones { headers: Area { len: SLOT_HEADER_BYTES, ..zones.headers }, ..zones.clone() },
            super::SlotZones { headers: Area { offset: 4096, ..zones.headers }, ..zones.clone() },
        ] {
            assert!(Geometry { zones: Some(wrong.clone()), ..good.clone() }.check().is_err(), "{wrong:?}");
        }
    }
}
