//! The extent table: the checkpoint in use with its log, and the one before it, which stands in should that go bad.
//!
//! Invariants:
//! - A copy that is bad is not mended in place: a new checkpoint is written from memory, which has the whole state. It
//!   goes to the copy that is bad; only when both are, there is none to spare.
//! - Damage of what is in use is mended by two checkpoints, so that the one to fall back to is good, too.
//! - What stands behind the end of a log is nobody's: a torn write that was never answered, or blocks of earlier
//!   generations. Bad pages there are no findings. They are blanked, for a mount that comes upon one at the end of the
//!   log could not tell it from an answered block that rotted.
//! - The log is held for one copy at a time, since changes of slots wait for it. A fault counts when it is found a
//!   second time with the log held over both.

use holdfast_libs_types::PAGE_BYTES;

use super::Step;
use crate::engine::Engine;
use crate::engine::table::CHUNK_PAGES;
use crate::error::EngineError;
use crate::findings::{Finding, Place};
use crate::geometry::{Area, table_pages};
use crate::table::TableFault;
use crate::table::checkpoint::{CheckpointHeader, FRESH_GENERATION, Pages, generation_of_page};
use crate::table::log::LogBlock;

const PAGE: u64 = PAGE_BYTES as u64;

/// What was seen of one copy and its half of the log.
#[derive(Default)]
struct Seen {
    /// Places on the disk, and what is wrong there.
    bad: Vec<(u64, String)>,
    /// The checkpoint itself is among them.
    bad_checkpoint: bool,
    /// Bad pages behind the end of the log.
    behind_end: Vec<u64>,
    /// No checkpoint that could stand in, as a crash or a rebuild leaves it.
    missing: bool,
}

impl Seen {
    fn is_sound(&self) -> bool {
        self.bad.is_empty() && self.behind_end.is_empty() && !self.missing
    }

    fn places(&self) -> impl Iterator<Item = u64> {
        self.bad.iter().map(|(at, _)| *at)
    }

    fn in_checkpoint(&mut self, at: u64, what: String) {
        self.bad_checkpoint = true;
        self.bad.push((at, what));
    }
}

impl Engine {
    /// One copy of the extent table (0 or 1) and its half of the log; true when the other one was looked at, too.
    pub(super) async fn scrub_table(&self, copy: u64, step: &mut Step) -> bool {
        let sound = {
            let _guard = self.table.lock.lock().await;
            self.check_table_copy(copy, step).await.is_none_or(|seen| seen.is_sound())
        };
        if !sound {
            self.mend_table(step).await;
        }
        !sound
    }

    /// Looks at both copies again, with the log held, reports what is wrong, and mends it.
    async fn mend_table(&self, step: &mut Step) {
        let _guard = self.table.lock.lock().await;
        let Some([own, standby]) = self.check_table(step).await else { return };
        if own.is_sound() && standby.is_sound() {
            return;
        }
        let mut still_bad: Vec<u64> = own.places().chain(standby.places()).collect();
        if self.shared.writable().is_ok() && self.renew_table(&own, &standby).await.is_ok() {
            // What is bad for good is bad again, whatever is written there.
            if let Some([own, standby]) = self.check_table(step).await {
                still_bad = own.places().chain(standby.places()).collect();
            }
        }
        for (at, what) in own.bad.into_iter().chain(standby.bad) {
            let repaired = !still_bad.contains(&at);
            step.found.push(Finding { repaired, ..Finding::area(Place::ExtentTable, at, what) });
        }
    }

    /// The copy in use and the other one. The caller holds the log.
    async fn check_table(&self, step: &mut Step) -> Option<[Seen; 2]> {
        let own = self.table.place.get().generation % 2;
        Some([self.check_table_copy(own, step).await?, self.check_table_copy(1 - own, step).await?])
    }

    /// `None` when nobody knows yet what stands there: a checkpoint comes first. The caller holds the log.
    async fn check_table_copy(&self, copy: u64, step: &mut Step) -> Option<Seen> {
        if self.table.forced.get() {
            return None;
        }
        let mut seen = Seen::default();
        let place = self.table.place.get();
        let in_use = place.generation % 2 == copy;
        // The first checkpoint of a disk has none before it.
        if !in_use && place.generation == FRESH_GENERATION {
            return Some(seen);
        }
        let generation = if in_use { place.generation } else { place.generation - 1 };
        let header = self.check_checkpoint(generation, in_use, &mut seen, step).await;
        let first_in_use = place.sequence - place.blocks;
        let first = match &header {
            _ if in_use => first_in_use,
            Some(header) => header.first_sequence,
            // Of its log nothing can be used, then.
            None => first_in_use,
        };
        let blocks = if in_use { place.blocks } else { first_in_use.saturating_sub(first) };
        self.check_log_half(generation, first..first + blocks, &mut seen, step).await;
        Some(seen)
    }

    /// The header and all pages of a checkpoint; the header, if it is right.
    async fn check_checkpoint(
        &self,
        generation: u64,
        in_use: bool,
        seen: &mut Seen,
        step: &mut Step,
    ) -> Option<CheckpointHeader> {
        let (disk, slots) = (self.shared.id, self.geometry().slots);
        let start = self.geometry().table_copy(generation).offset;
        let header = match self.scrub_read(start, PAGE, step).await {
            Ok(page) => CheckpointHeader::decode(&page, disk, generation % 2, slots),
            Err(error) => Err(TableFault::Unreadable(error.to_string())),
        };
        let header = match header {
            Ok(header) if header.generation == generation => header,
            Ok(header) if !in_use && header.generation < generation => {
                seen.missing = true;
                return None;
            }
            Ok(header) => {
                seen.in_checkpoint(start, format!("is of checkpoint {}, not {generation}", header.generation));
                return None;
            }
            Err(fault) => {
                seen.in_checkpoint(start, format!("the header of checkpoint {generation} is {fault}"));
                return None;
            }
        };
        let mut pages = Pages::new(disk, generation, slots);
        let body = Area { offset: start + PAGE, len: table_pages(slots) * PAGE };
        let mut whole = true;
        for first in (0..body.len).step_by(CHUNK_PAGES * PAGE_BYTES) {
            for (at, page) in self.scrub_pages(body, first, step).await {
                let fault = match &page {
                    Ok(bytes) => pages.decode_next(bytes, |_, _| {}).err(),
                    Err(fault) => Some(fault.clone()),
                };
                let Some(fault) = fault else { continue };
                whole = false;
                pages.skip();
                // A checkpoint that was cut short had begun to write this copy over.
                let begun = page.ok().and_then(|bytes| generation_of_page(&bytes, disk));
                if !in_use && begun.is_some_and(|begun| begun > generation) {
                    seen.missing = true;
                } else {
                    seen.in_checkpoint(at, format!("a page of checkpoint {generation} is {fault}"));
                }
            }
        }
        if whole && pages.crc() != header.pages_crc {
            seen.in_checkpoint(start, format!("checkpoint {generation} has other pages than its header says"));
        }
        Some(header)
    }

    /// The half of the log that belongs to checkpoint `generation`: the blocks of `sequences`, and what stands behind.
    async fn check_log_half(&self, generation: u64, sequences: std::ops::Range<u64>, seen: &mut Seen, step: &mut Step) {
        let (disk, slots, half) = (self.shared.id, self.geometry().slots, self.geometry().log_half(generation));
        for first in (0..half.len).step_by(CHUNK_PAGES * PAGE_BYTES) {
            for (at, page) in self.scrub_pages(half, first, step).await {
                let index = (at - half.offset) / PAGE;
                let due = sequences.start + index;
                let is_live = sequences.contains(&due);
                let block = page.and_then(|bytes| LogBlock::decode(&bytes, disk, generation % 2, slots));
                if !is_live {
                    if block.is_err_and(|fault| fault != TableFault::Blank) {
                        seen.behind_end.push(at);
                    }
                    continue;
                }
                let fault = match block {
                    Ok(block) if (block.generation, block.sequence) == (generation, due) => continue,
                    Ok(block) => format!("{} of checkpoint {}", block.sequence, block.generation),
                    Err(fault) => fault.to_string(),
                };
                seen.bad.push((at, format!("block {index} of the log of checkpoint {generation} is {fault}")));
            }
        }
    }

    /// A chunk of pages of `area` from `first` on, in bytes, each with its place on the disk.
    async fn scrub_pages(&self, area: Area, first: u64, step: &mut Step) -> Vec<(u64, Result<Vec<u8>, TableFault>)> {
        let (start, len) = (area.offset + first, (area.len - first).min(CHUNK_PAGES as u64 * PAGE));
        step.read(len);
        let pages = self.read_each_page(start, (len / PAGE) as usize).await;
        pages.into_iter().enumerate().map(|(n, page)| (start + n as u64 * PAGE, page)).collect()
    }

    /// Writes what is bad, or missing, anew. The caller holds the log.
    async fn renew_table(&self, own: &Seen, standby: &Seen) -> Result<(), EngineError> {
        let place = self.table.place.get();
        if own.bad_checkpoint && standby.bad.is_empty() && !standby.missing {
            // The other copy, with both logs, is all that the disk has until this one is good again.
            self.table.forced.set(true);
            self.table.place.set(crate::table::replay::Place { generation: place.generation + 1, ..place });
        }
        if !own.bad.is_empty() || !standby.bad.is_empty() || standby.missing {
            self.checkpoint().await?;
        }
        if !own.bad.is_empty() {
            self.checkpoint().await?;
        }
        // Both halves have ended where these stand, or begin anew.
        let log = self.geometry().log;
        let in_log = own.places().chain(standby.places()).filter(|at| (log.offset..log.offset + log.len).contains(at));
        for at in in_log.chain(own.behind_end.iter().chain(&standby.behind_end).copied()) {
            let blank = self.page_buffer(&[0; PAGE_BYTES]);
            self.write("blanking a page of the table's log", at, blank).await?;
        }
        Ok(())
    }
}
