//! The scrub: reads everything that is live on the disk, compares it with its checksums and copies, and says what it
//! found. It goes on where it stopped, a bounded piece at a time; whoever calls it sets the pace.
//!
//! What is live, and what it is compared with:
//! - both superblocks and both copies of the keys: each must validate;
//! - the extent table: the checkpoint in use and the one before it, with their logs (`scrub/table.rs`);
//! - both header pages of every slot: the newest must be the one that memory has;
//! - a sealed extent: the page checksums of its footer over every byte of data; trailer, checksums and record table of
//!   the footer by their own;
//! - an open or fenced extent: the checksums of its batches below the tail.
//!
//! Not live, and not looked at: a copy that is not finished (it is read back whole before it counts), trash (nobody's
//! data; a restored extent is looked at again), and what stands behind the tail or the length.
//!
//! Invariants:
//! - A bad copy of metadata is written again from what is known to be right: the other copy, or for a footer the data, if
//!   that has its digest. Data is never written: another replica has it, and only the volume manager knows where.
//! - An extent in which damage was found is marked, and stays so over restarts (`scrub/mark.rs`).
//! - What changes while it is looked at is not called damaged: a finding counts only when the slot is still the same.
//! - Foreground work goes first: one small read at a time.
//! - A step reads `max_bytes` and at most one batch and one footer, or one of the areas before the slots, more; only a
//!   footer that is bad costs a whole extent, and a table that is bad its other copy.

mod extents;
mod mark;
mod table;

use holdfast_libs_types::PAGE_BYTES;

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::findings::{Finding, Place, ScrubStep};
use crate::slot_header::{SlotHeader, SlotHeaderError, SlotState};
use crate::superblock::Superblock;
use crate::table::ScrubCursor;
use crate::table::entry::Entry;
use extents::Reading;

/// Most findings that one step reports; the next goes on from there.
const MAX_FINDINGS: usize = 256;

/// Where the scrub stands.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The next slot (at 0 the areas before the slots come first), and what else outlives the process.
    pub(super) cursor: ScrubCursor,
    /// How many of the areas before the slots were looked at in this round.
    areas_done: u64,
    /// The extent that is being read, and how far.
    reading: Option<Reading>,
}

/// The areas before the slots: superblocks, keys, both copies of the table with their halves of the log.
const AREAS: u64 = 4;

/// Collects what one step does.
struct Step {
    left: u64,
    read_bytes: u64,
    found: Vec<Finding>,
}

impl Step {
    fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    fn is_spent(&self) -> bool {
        self.left == 0 || self.found.len() >= MAX_FINDINGS
    }
}

impl Engine {
    /// See `Disk::scrub_step`.
    pub(crate) async fn scrub_step(&self, max_bytes: u64) -> Result<ScrubStep, EngineError> {
        self.shared.readable()?;
        let _one = self.scrub_lock.lock().await;
        let mut step = Step { left: max_bytes.max(1), read_bytes: 0, found: Vec::new() };
        let mut finished_round = false;
        while !step.is_spent() && !finished_round {
            self.shared.readable()?;
            let (slot, areas_done) = (self.scrub.borrow().cursor.slot, self.scrub.borrow().areas_done);
            // A round that was begun before the mount has looked at them.
            if slot == 0 && areas_done < AREAS {
                let done = self.scrub_area(areas_done, &mut step).await;
                self.scrub.borrow_mut().areas_done += done;
            } else if self.scrub_slot(slot, &mut step).await {
                finished_round = self.advance();
            }
        }
        self.scrub.borrow_mut().cursor.found_total += step.found.len() as u64;
        for finding in &step.found {
            self.shared.counters.damaged();
            // Whoever asked for the step tells it, once for each place.
            tracing::debug!(disk = %self.shared.id, place = %finding.place, slot = finding.slot, volume = ?finding.volume,
                offset = finding.offset, repaired = finding.repaired, what = finding.what, "scrub found damage");
        }
        // What is lost of it by a crash is looked at again.
        let _ = self.remember_facts(finished_round).await;
        Ok(ScrubStep { read_bytes: step.read_bytes, finished_round, found: step.found })
    }

    /// To the next slot; true at the end of a round.
    fn advance(&self) -> bool {
        let mut scrub = self.scrub.borrow_mut();
        (scrub.reading, scrub.areas_done) = (None, 0);
        scrub.cursor.slot += 1;
        if scrub.cursor.slot < self.geometry().slots {
            return false;
        }
        let now = self.shared.uptime_s();
        let (round, found_total) = (scrub.cursor.round + 1, scrub.cursor.found_total);
        scrub.cursor = ScrubCursor { slot: 0, round, round_began_s: now, last_round_ended_s: now, found_total };
        true
    }

    async fn scrub_read(&self, offset: u64, len: u64, step: &mut Step) -> std::io::Result<AlignedBuf> {
        step.read(len);
        self.read_twice(offset, len as usize).await
    }

    /// As `read_twice`, of a slot's data.
    async fn scrub_read_data(&self, slot: u32, offset: u64, len: u64, step: &mut Step) -> std::io::Result<AlignedBuf> {
        step.read(len);
        let len = len as usize;
        match self.read_data(slot, offset, len, AlignedBuf::with_capacity(len)).await {
            Err(_) => self.read_data(slot, offset, len, AlignedBuf::with_capacity(len)).await,
            read => read,
        }
    }

    /// Looks at one area; how many were looked at.
    async fn scrub_area(&self, area: u64, step: &mut Step) -> u64 {
        match area {
            0 => self.scrub_superblocks(step).await,
            1 => self.scrub_keys(step).await,
            copy => return if self.scrub_table(copy % 2, step).await { AREAS - area } else { 1 },
        }
        1
    }

    async fn scrub_superblocks(&self, step: &mut Step) {
        let _guard = self.superblock_lock.lock().await;
        let expected = self.superblock.borrow().clone();
        let mut found = Vec::new();
        let mut behind = false;
        for area in [expected.geometry.superblock_a, expected.geometry.superblock_b] {
            let read = self.scrub_read(area.offset, PAGE_BYTES as u64, step).await;
            let what = match read.map(|page| Superblock::decode(&page)) {
                Ok(Ok(one)) if one == expected => continue,
                // A crash between the writes of the two leaves one behind, a failed write one that never counted.
                Ok(Ok(one))
                    if (one.disk, one.cell) == (expected.disk, expected.cell)
                        && one.generation <= expected.generation =>
                {
                    behind = true;
                    continue;
                }
                Ok(Ok(other)) => {
                    format!("is of disk {} in cell {}, generation {}", other.disk, other.cell, other.generation)
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => format!("cannot be read: {error}"),
            };
            found.push(Finding::area(Place::Superblock, area.offset, what));
        }
        if (!found.is_empty() || behind) && self.shared.writable().is_ok() {
            let repaired = self.write_superblock(expected).await.is_ok();
            found.iter_mut().for_each(|finding| finding.repaired = repaired);
        }
        step.found.append(&mut found);
    }

    async fn scrub_keys(&self, step: &mut Step) {
        let _guard = self.keys_lock.lock().await;
        let copies = self.check_keys().await;
        step.read(copies.read_bytes);
        let mut found: Vec<Finding> =
            copies.bad.into_iter().map(|(offset, what)| Finding::area(Place::KeyArea, offset, what)).collect();
        if (!found.is_empty() || copies.behind) && self.shared.writable().is_ok() {
            let repaired = match (copies.content, &found[..]) {
                (Some(content), _) => self.write_keys(content).await.is_ok(),
                // Beside a blank copy: the first write ever was torn, and nobody was told that it was done.
                (None, [torn]) if !copies.unreadable => self.blank_key_copy(torn.offset).await.is_ok(),
                (None, _) => false,
            };
            found.iter_mut().for_each(|finding| finding.repaired = repaired);
        }
        step.found.append(&mut found);
    }

    /// Checks one slot, or goes on with it; true when it is done.
    async fn scrub_slot(&self, slot: u32, step: &mut Step) -> bool {
        if self.scrub.borrow().reading.is_none() && !self.scrub_headers(slot, step).await {
            return true;
        }
        let header = self.with_slot(slot, |slot| slot.header());
        match header.state {
            SlotState::Sealed => self.scrub_sealed(slot, &header, step).await,
            SlotState::Open | SlotState::Fenced => self.scrub_batches(slot, &header, step).await,
            SlotState::Free | SlotState::Copying | SlotState::Trashed => true,
        }
    }

    /// Both header pages of a slot; false when the slot must be left alone.
    async fn scrub_headers(&self, slot: u32, step: &mut Step) -> bool {
        let lock = self.lock_of(slot);
        let _guard = lock.lock().await;
        // A header that could not be written is no damage; the slot is looked at when it could.
        if self.settle_slot(slot).await.is_err() {
            return false;
        }
        let known = self.entry_of(slot);
        let lost = known.lost;
        let mut bad = Vec::new();
        for at in [0, 1u8] {
            let read = self.scrub_read(self.geometry().header_offset(slot, at), PAGE_BYTES as u64, step).await;
            let contents = match read {
                Ok(bytes) => {
                    let header = SlotHeader::decode(&bytes, self.shared.id, slot);
                    header.and_then(|header| header.within(self.geometry()))
                }
                Err(_) => Err(SlotHeaderError::Unreadable),
            };
            if let Some(what) = header_fault(&known, at, contents) {
                bad.push((at, what));
            }
        }
        // Taken or changed in the meantime (by somebody who holds another lock by now): the next round looks again.
        let same = std::rc::Rc::ptr_eq(&lock, &self.lock_of(slot)) && self.entry_of(slot) == known;
        if !same {
            return false;
        }
        let volume = (known.header.state != SlotState::Free).then_some(known.header.volume);
        let mut found: Vec<Finding> = bad
            .iter()
            .map(|(at, what)| {
                let what = what.clone();
                let offset = u64::from(*at) * PAGE_BYTES as u64;
                Finding { place: Place::SlotHeader, slot: Some(slot), volume, offset, what, repaired: false }
            })
            .collect();
        // Of a lost slot nobody knows what it holds: it is reported and never written.
        if !lost && !found.is_empty() && self.shared.writable().is_ok() {
            // Nobody locks a free slot before taking it: it cannot be taken while its headers are written.
            let was_free = self.free.borrow_mut().remove(&slot);
            if !was_free && known.header.state == SlotState::Free {
                return false;
            }
            // The home page first: the other may be all that is left of the state before.
            for page in [known.page, 1 - known.page] {
                if let Some(n) = bad.iter().position(|(at, _)| *at == page) {
                    found[n].repaired = self.write_header(slot, &known, page).await.is_ok();
                }
            }
            if was_free {
                self.free.borrow_mut().insert(slot);
            }
        }
        step.found.append(&mut found);
        !lost
    }
}

/// What is wrong with header page `at` of a slot of which the table says `known`, if anything is.
fn header_fault(known: &Entry, at: u8, found: Result<SlotHeader, SlotHeaderError>) -> Option<String> {
    let (home, fault) = (known.page == at, found.as_ref().err().copied());
    let newer = |header: &SlotHeader| header.generation > known.header.generation;
    if found.as_ref().is_ok_and(newer) {
        return Some("is newer than the header that was written last".to_owned());
    }
    if !known.page_is_behind(at, &found) {
        return None;
    }
    Some(match fault {
        Some(fault) => fault.to_string(),
        None if home => "is not the header that was written last".to_owned(),
        None => "is of an earlier use of the slot".to_owned(),
    })
}
