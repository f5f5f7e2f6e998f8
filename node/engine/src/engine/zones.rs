//! Slots that are whole zones of a host-managed disk (SMR, ZNS). `docs/decisions/0012-zoned-disks.md` has the layout.
//!
//! Invariants:
//! - Z1. Between two resets a byte of a slot is written once, at the write pointer, with one write of the slot under way
//!   (its extent's lock is held). A write that came back short goes on behind what was written. After a failed write, or
//!   a crash, only the disk knows where the pointer stands: it is asked.
//! - Z2. A zone of a slot is written only when those before it are full. So a slot has one write pointer.
//! - Z3. Zones are reset in one place, which the erase watcher guards: the slot is durably free, or holds a copy that was
//!   durably begun anew.
//! - Z4. A slot is reset before each new use.
//! - Z5. No more slots hold a partly written zone than the disk allows. A slot counts from before it is taken until its
//!   zone is finished (at the seal) or reset; what could be finished or reset earlier is, before a new one is refused.
//! - Z6. What stands above the write pointer does not exist. A sealed extent that reaches above it is damaged.
//! - Z7. A footer stands at the write pointer, rounded up to a page; a page that an append left torn is filled with what
//!   cannot make its batch whole. Where there is no room, it is the rest of the one that an earlier seal began; if there
//!   is none, the seal fails.
//! - Z8. A zone that is read-only or offline costs its slot, not the disk.

use std::sync::atomic::Ordering;

use holdfast_libs_types::{PAGE_BYTES, VolumeId};

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::footer::FooterShape;
use crate::geometry::zoned::SlotZones;
use crate::io_error::{Action, Place};
use crate::raw::Work;
use crate::raw::zones::{Condition, Zone, decode_report, report_bytes};
use crate::slot_header::{SlotHeader, SlotState};

const PAGE: u64 = PAGE_BYTES as u64;

/// Zones that a mount asks for at once.
const REPORT_ZONES: u32 = 1024;

/// Bytes written to a slot from its start; an error says why that is not known.
fn written(zones: &[Zone]) -> Result<u64, String> {
    let mut sum = 0;
    let mut full = true;
    for zone in zones {
        if zone.condition == Condition::Offline {
            return Err(format!("the disk zone at byte {} is offline", zone.start));
        }
        if zone.written > 0 && !full {
            return Err(format!(
                "the disk zone at byte {} was written before the one in front of it was full",
                zone.start
            ));
        }
        sum += zone.written;
        full = zone.written == zone.capacity;
    }
    Ok(sum)
}

fn is_sick(zone: &Zone) -> bool {
    matches!(zone.condition, Condition::ReadOnly | Condition::Offline)
}

fn is_partial(zone: &Zone) -> bool {
    zone.condition == Condition::Partial
}

impl Engine {
    async fn report(&self, zones: &SlotZones, slot: u32, slots: u32) -> std::io::Result<Vec<Zone>> {
        let (offset, count) = (self.geometry().slot_offset(slot), (slots * zones.zones) as usize);
        let len = report_bytes(count);
        let buffer = AlignedBuf::with_capacity(len);
        let (result, buffer) = self.io.start(offset, Work::ReportZones { buffer, len }).await;
        result?;
        let buffer = buffer.ok_or_else(|| std::io::Error::other("the buffer was lost"))?;
        let found = decode_report(&buffer).map_err(std::io::Error::other)?;
        let at = |n: usize| offset + n as u64 * zones.zone_bytes;
        let fits = |(n, zone): (usize, &Zone)| {
            let told = zone.condition == Condition::Offline || zone.capacity == zones.capacity_bytes;
            zone.start == at(n) && zone.len == zones.zone_bytes && zone.condition != Condition::Conventional && told
        };
        if found.len() == count && found.iter().enumerate().all(fits) {
            return Ok(found);
        }
        Err(std::io::Error::other("its zones are not those it was formatted with: is it the same disk?"))
    }

    /// Bytes written to a slot since its last reset.
    pub(super) async fn write_pointer(&self, zones: &SlotZones, slot: u32) -> std::io::Result<u64> {
        written(&self.report(zones, slot, 1).await?).map_err(std::io::Error::other)
    }

    /// Z3, Z4: empties the zones of a slot.
    pub(super) async fn reset_zones(&self, zones: &SlotZones, slot: u32) -> Result<(), EngineError> {
        self.watch_reset(slot)?;
        let work = Work::ResetZones { len: zones.slot_stride() };
        let (result, _) = self.io.start(self.geometry().slot_offset(slot), work).await;
        result.map(drop).map_err(|source| {
            self.put_out_of_use(slot, &format!("its disk zones cannot be reset: {source}"));
            self.write_failed(source, "resetting a slot's disk zones", 1)
        })
    }

    /// Empties the zones of a slot that nobody has.
    pub(super) async fn empty_zones(&self, zones: &SlotZones, slot: u32) -> Result<(), Box<dyn std::error::Error>> {
        self.reset_zones(zones, slot).await?;
        self.forget_open(slot);
        Ok(())
    }

    /// Z8: the slot is not offered again; until the next mount, which looks anew.
    fn put_out_of_use(&self, slot: u32, why: &str) {
        if self.out_of_use.borrow_mut().insert(slot) {
            tracing::error!(disk = %self.shared.id, slot, why, "a slot is out of use");
            self.shared.lost_slots.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_open(&self, slot: u32) {
        let mut open = self.open_zones.borrow_mut();
        open.insert(slot);
        self.shared.open_zones.store(open.len() as u32, Ordering::Relaxed);
    }

    /// The slot holds no partly written zone any more.
    pub(super) fn forget_open(&self, slot: u32) {
        let mut open = self.open_zones.borrow_mut();
        open.remove(&slot);
        self.shared.open_zones.store(open.len() as u32, Ordering::Relaxed);
    }

    /// Z5, Z4: counts the slot, and empties it.
    pub(super) async fn take_zones(&self, zones: &SlotZones, slot: u32) -> Result<(), EngineError> {
        let is_one_too_many = || {
            let open = self.open_zones.borrow();
            zones.limit > 0 && !open.contains(&slot) && open.len() >= zones.limit as usize
        };
        if is_one_too_many() {
            self.close_what_can_be(zones).await;
        }
        if is_one_too_many() {
            let detail = format!(
                "{} slots hold a partly written disk zone, and the disk can have no more open: seal or remove extents",
                zones.limit
            );
            return Err(EngineError::NoSpace { disk: self.shared.id, detail });
        }
        self.count_open(slot);
        self.reset_zones(zones, slot).await
    }

    /// Finishes and resets what was not when its time had come: after a failure, or a crash in between.
    async fn close_what_can_be(&self, zones: &SlotZones) {
        // Looked at again with the lock; but nobody waits here for an extent that is being written or sealed.
        let is_over = |slot: &u32| {
            let header = self.with_slot(*slot, |at| at.header());
            is_ended(&header) || self.free.borrow().contains(slot)
        };
        let over: Vec<u32> = self.open_zones.borrow().iter().copied().filter(is_over).collect();
        for slot in over {
            let lock = self.lock_of(slot);
            let _guard = lock.lock().await;
            let header = self.with_slot(slot, |at| at.header());
            if is_ended(&header) {
                self.finish_zones(zones, slot).await;
            } else if self.free.borrow().contains(&slot) {
                self.give_up_space(slot).await;
            }
        }
    }

    /// Makes the partly written zone of a slot full, so that it counts no more. A failure is only told: the zone counts
    /// on, and is tried again when it would be one too many.
    pub(super) async fn finish_zones(&self, zones: &SlotZones, slot: u32) {
        let finished = async {
            let found = self.report(zones, slot, 1).await?;
            for zone in found.iter().filter(|zone| is_partial(zone)) {
                self.io.start(zone.start, Work::FinishZones { len: zone.len }).await.0?;
            }
            std::io::Result::Ok(())
        };
        match finished.await {
            Ok(()) => self.forget_open(slot),
            Err(error) => {
                tracing::warn!(disk = %self.shared.id, slot, %error, "a disk zone could not be finished; it stays open");
            }
        }
    }

    /// Z1, Z2: piece by piece, each once, each only when the one before is durable.
    pub(super) async fn write_in_sequence(
        &self,
        what: &'static str,
        slot: u32,
        offset: u64,
        buffer: AlignedBuf,
    ) -> Result<(), EngineError> {
        let len = buffer.len();
        let (mut buffer, mut done, mut attempt) = (Some(buffer), 0, 1);
        while done < len {
            let run = self.geometry().data_run(slot, offset + done as u64);
            let take = run.len.min((len - done) as u64) as usize;
            let is_whole = take == len;
            let piece = match &buffer {
                Some(_) if is_whole => buffer.take(),
                Some(all) => Some(self.page_buffer(&all[done..done + take])),
                None => None,
            };
            let piece = piece.ok_or_else(|| self.lost_buffer())?;
            let (result, back) = self.io.start(run.at, Work::Write { buffer: piece }).await;
            if is_whole {
                buffer = back;
            }
            let error = match result {
                Ok(put) => {
                    self.shared.counters.wrote(put);
                    done += put;
                    if put == take {
                        continue;
                    }
                    std::io::Error::new(std::io::ErrorKind::WriteZero, format!("wrote {put} of {take} bytes"))
                }
                Err(error) => error,
            };
            if self.judge_write(&error, Place::Slot, attempt).action != Action::Retry {
                return Err(self.write_failed(error, what, attempt));
            }
            attempt += 1;
        }
        Ok(())
    }

    /// Z7: where a footer goes, and how many bytes of it stand there already.
    pub(super) async fn place_at_pointer(
        &self,
        zones: &SlotZones,
        (slot, volume): (u32, VolumeId),
        least: u64,
        encode: &dyn Fn(u64) -> Vec<u8>,
    ) -> Result<(u64, usize), EngineError> {
        let pointer = self.write_pointer(zones, slot).await;
        let written = pointer.map_err(|error| self.unreadable(slot, volume, least, error))?;
        if written < least {
            let detail = format!("its disk zones were written up to {written} only");
            return Err(self.damaged(slot, volume, written, detail));
        }
        let at = written.next_multiple_of(PAGE);
        let (len, room) = (encode(at).len() as u64, self.geometry().room_bytes());
        if at + len <= room {
            if written < at {
                self.fill_page(slot, written).await?;
            }
            return Ok((at, 0));
        }
        // Of the fullest extents only one footer fits: a seal that did not come to its end goes on with its own.
        let begun = (written - least) as usize;
        if self.stands(slot, least, &encode(least), begun).await {
            return Ok((least, begun));
        }
        let detail = format!("slot {slot} is written up to {written} of {room} bytes: a footer of {len} does not fit");
        Err(EngineError::NoSpace { disk: self.shared.id, detail })
    }

    /// Whether the first `len` bytes of `bytes`, as far as they are whole pages, and at least one, stand at `offset`.
    async fn stands(&self, slot: u32, offset: u64, bytes: &[u8], len: usize) -> bool {
        let pages = len / PAGE_BYTES * PAGE_BYTES;
        if pages == 0 || len > bytes.len() {
            return false;
        }
        let found = self.read_data(slot, offset, pages, AlignedBuf::with_capacity(pages)).await;
        found.is_ok_and(|found| found[..] == bytes[..pages])
    }

    /// Fills up a page that a torn append left. At random: zeroes would make the torn batch whole, if nothing but its
    /// padding is missing, and the tail that a fence has answered would rise.
    async fn fill_page(&self, slot: u32, written: u64) -> Result<(), EngineError> {
        let len = (written.next_multiple_of(PAGE) - written) as usize;
        let mut rest = vec![0xff; len];
        let random = (self.entropy)();
        rest.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
        self.write_in_sequence("filling up a torn page", slot, written, AlignedBuf::copy_of(&rest)).await
    }

    /// At the mount: the report of all zones, slot by slot.
    pub(super) async fn look_at_zones(&self, zones: &SlotZones) -> Result<(), EngineError> {
        let (slots, at_once) = (self.geometry().slots, (REPORT_ZONES / zones.zones).max(1));
        for first in (0..slots).step_by(at_once as usize) {
            let found = self.report(zones, first, at_once.min(slots - first)).await.map_err(|source| {
                EngineError::Io { disk: self.shared.id, what: "asking for a report of its disk zones", source }
            })?;
            for (n, found) in found.chunks(zones.zones as usize).enumerate() {
                self.look_at_slot(zones, first + n as u32, found).await;
            }
        }
        Ok(())
    }

    async fn look_at_slot(&self, zones: &SlotZones, slot: u32, found: &[Zone]) {
        let (header, is_lost) = self.with_slot(slot, |at| (at.header(), at.is_lost()));
        if is_lost {
            // Nobody knows what it holds: left as it is.
            if found.iter().any(is_partial) {
                self.count_open(slot);
            }
            return;
        }
        if header.state == SlotState::Free {
            if let Some(zone) = found.iter().find(|zone| is_sick(zone)) {
                self.free.borrow_mut().remove(&slot);
                self.put_out_of_use(slot, &format!("its disk zone at byte {} is {:?}", zone.start, zone.condition));
            } else if found.iter().any(|zone| zone.written > 0) {
                // An erase that a crash cut off before its reset.
                self.count_open(slot);
                if self.shared.writable().is_ok() {
                    self.give_up_space(slot).await;
                }
            }
            return;
        }
        if is_ended(&header) {
            self.look_at_sealed(slot, &header, written(found));
            if found.iter().any(is_partial) {
                self.count_open(slot);
                if self.shared.writable().is_ok() {
                    self.finish_zones(zones, slot).await;
                }
            }
            return;
        }
        self.count_open(slot);
    }

    /// Z6.
    fn look_at_sealed(&self, slot: u32, header: &SlotHeader, written: Result<u64, String>) {
        let end = u64::from(header.footer_offset) * PAGE + FooterShape::of(header.length, header.records).len();
        let note = match written {
            Ok(written) if written >= end => return,
            Ok(written) => format!("damaged: it ends at {end}, but its disk zones were written up to {written} only"),
            Err(why) => format!("damaged: {why}"),
        };
        tracing::error!(disk = %self.shared.id, volume = %header.volume, slot, note, "a sealed extent is damaged");
        self.shared.counters.damaged();
        self.with_slot(slot, |at| at.mark_damaged(&note, &self.io));
    }
}

/// Whether nothing will be written to the extent any more.
fn is_ended(header: &SlotHeader) -> bool {
    match header.state {
        SlotState::Sealed => true,
        SlotState::Trashed => header.state_before == SlotState::Sealed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::written;
    use crate::raw::zones::{Condition, Zone};

    fn zone(n: u64, written: u64) -> Zone {
        let condition = match written {
            0 => Condition::Empty,
            100 => Condition::Full,
            _ => Condition::Partial,
        };
        Zone { start: n * 128, len: 128, capacity: 100, written, condition }
    }

    #[test]
    fn a_slot_has_one_write_pointer_over_its_zones() {
        assert_eq!(written(&[zone(0, 0), zone(1, 0)]), Ok(0));
        assert_eq!(written(&[zone(0, 40), zone(1, 0)]), Ok(40));
        assert_eq!(written(&[zone(0, 100), zone(1, 7), zone(2, 0)]), Ok(107));
        assert!(written(&[zone(0, 40), zone(1, 7)]).unwrap_err().contains("128"));
        let offline = Zone { condition: Condition::Offline, ..zone(1, 0) };
        assert!(written(&[zone(0, 100), offline]).unwrap_err().contains("offline"));
    }
}
