//! Mounting: from what stands on the disk to what stands in memory.
//!
//! First a flush: a process that was killed may have left a completed but not yet durable write in the device's
//! cache, and a tail answered from it would be a promise that a power cut breaks.
//!
//! Then the extent table: the newest checkpoint and its log, or the one before it and both logs. The headers of the
//! slots that the log names are compared, and written where a crash kept them behind. What cannot be read by the
//! rules of the table is not guessed at: the table is rebuilt from all slot headers (`rebuild.rs`).
//!
//! After any mount no extent takes appends. The writer's lease ended with the process, and only the volume manager
//! can tell what the other replicas hold.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use holdfast_libs_types::PAGE_BYTES;

use super::scan::Stop;
use super::slot::Role;
use super::table::CHUNK_PAGES;
use super::{Engine, Slot};
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::planted::planted;
use crate::raw::Work;
use crate::slot_header::{SlotHeaderError, SlotState};
use crate::table::TableFault;
use crate::table::checkpoint::{CheckpointHeader, generation_of_page};
use crate::table::log::LogBlock;
use crate::table::replay::{self, Course, Found, Stand};

/// Both superblocks were read before the engine was there.
const SUPERBLOCK_BYTES: u64 = 2 * PAGE_BYTES as u64;

/// Bad pages of the table that a mount names; of a log that is all bad, the first ones do.
const MOST_BAD_PAGES_TOLD: usize = 16;

impl Engine {
    /// Reads the table and finds the tail of every extent that is not sealed.
    pub(crate) async fn mount(&self) -> Result<(), EngineError> {
        if !planted!(SkipFlush)
            && let (Err(source), _) = self.io.start(0, Work::Flush).await
        {
            return Err(self.write_failed(source, "flushing before the mount", 1));
        }
        let stand = self.read_stand().await;
        self.table.facts.set(replay::newest_facts(&stand));
        if let Err(why) = self.follow_table(&stand).await {
            tracing::error!(
                disk = %self.shared.id, why,
                "the extent table cannot be believed; it is rebuilt from the slot headers, and open extents take no more appends"
            );
            self.tell_bad_pages(&stand);
            self.shared.rebuilt.store(true, Ordering::Relaxed);
            self.table.place.set(replay::next_place(&stand, None).before());
            self.table.forced.set(true);
            self.rebuild().await;
        }
        drop(stand);
        self.look_at_lost_slots().await;
        self.enter_slots();
        self.resume_facts();
        self.look_at_space().await?;
        let used = self.slots.borrow().indexed();
        for slot in used {
            if self.with_slot(slot, |slot| slot.live.is_some() && !slot.header().has_length()) {
                self.find_tail(slot).await;
            }
        }
        self.checkpoint_after_mount().await;
        let lost = self.slots.borrow().list().iter().filter(|slot| slot.is_lost()).count();
        self.shared.lost_slots.fetch_add(lost as u32, Ordering::Relaxed);
        self.count_free();
        self.count_slots();
        let read = self.shared.counters.read_bytes() + SUPERBLOCK_BYTES;
        self.shared.mount_read_bytes.store(read, Ordering::Relaxed);
        Ok(())
    }

    /// All that says what the table is.
    async fn read_stand(&self) -> Stand {
        let (disk, geometry) = (self.shared.id, self.geometry().clone());
        let mut headers = Vec::new();
        let mut begun = [None, None];
        for (copy, area) in [geometry.table_a, geometry.table_b].into_iter().enumerate() {
            let pages = self.read_each_page(area.offset, 2).await;
            headers.push(match &pages[0] {
                Ok(page) => CheckpointHeader::decode(page, disk, copy as u64, geometry.slots),
                Err(fault) => Err(fault.clone()),
            });
            begun[copy] = pages[1].as_ref().ok().and_then(|page| generation_of_page(page, disk));
        }
        let mut halves = [Vec::new(), Vec::new()];
        for (n, half) in halves.iter_mut().enumerate() {
            let area = geometry.log_half(n as u64);
            let pages = (area.len / PAGE_BYTES as u64) as usize;
            for first in (0..pages).step_by(CHUNK_PAGES) {
                let offset = area.offset + (first * PAGE_BYTES) as u64;
                let chunk = self.read_each_page(offset, CHUNK_PAGES.min(pages - first)).await;
                let decode = |page: &[u8]| LogBlock::decode(page, disk, n as u64, geometry.slots);
                half.extend(chunk.into_iter().map(|page| -> Found { page.and_then(|page| decode(&page)) }));
            }
        }
        let [a, b] = headers.try_into().unwrap_or([Err(TableFault::Blank), Err(TableFault::Blank)]);
        Stand { headers: [a, b], halves, begun }
    }

    /// Reads pages at once, or one by one when one of them cannot be read.
    pub(super) async fn read_each_page(&self, offset: u64, pages: usize) -> Vec<Result<Vec<u8>, TableFault>> {
        let len = pages * PAGE_BYTES;
        if let Ok(all) = self.read_pages(offset, len, AlignedBuf::with_capacity(len)).await {
            return all.chunks(PAGE_BYTES).map(|page| Ok(page.to_vec())).collect();
        }
        let mut found = Vec::new();
        for n in 0..pages {
            let buffer = AlignedBuf::with_capacity(PAGE_BYTES);
            let page = self.read_pages(offset + (n * PAGE_BYTES) as u64, PAGE_BYTES, buffer).await;
            found.push(match page {
                Ok(page) => Ok(page.to_vec()),
                Err(error) => Err(TableFault::Unreadable(error.to_string())),
            });
        }
        found
    }

    /// Fills the slots from the table; an error says why it must be rebuilt.
    async fn follow_table(&self, stand: &Stand) -> Result<(), String> {
        let mut course = replay::newest(stand)?;
        if let Err(fault) = self.read_checkpoint(&course.checkpoint).await {
            course = replay::older(stand, &course, &fault)?;
            let generation = course.checkpoint.generation;
            self.read_checkpoint(&course.checkpoint)
                .await
                .map_err(|fault| format!("checkpoint {generation}, too, has a page that is {fault}"))?;
        }
        let touched = self.replay_log(stand, &course)?;
        for slot in touched {
            self.redo_headers(slot).await?;
        }
        match course.resume {
            Some(place) => self.table.place.set(place),
            None => self.table.place.set(replay::next_place(stand, Some(&course.checkpoint)).before()),
        }
        self.table.forced.set(course.resume.is_none());
        if let Some(note) = &course.note {
            tracing::error!(disk = %self.shared.id, %note, "the older copy of the extent table is used, with both logs");
            self.tell_bad_pages(stand);
        }
        Ok(())
    }

    /// Names the places that a mount could not believe, headers first; pages of entries were named when they were read.
    fn tell_bad_pages(&self, stand: &Stand) {
        let headers = stand.headers.iter().enumerate().map(|(copy, header)| {
            let offset = self.geometry().table_copy(copy as u64).offset;
            (offset, header.as_ref().err())
        });
        let blocks = stand.halves.iter().enumerate().flat_map(|(n, half)| {
            let start = self.geometry().log_half(n as u64).offset;
            half.iter().zip(0..).map(move |(block, page)| (start + page * PAGE_BYTES as u64, block.as_ref().err()))
        });
        let bad = headers.chain(blocks).filter_map(|(offset, fault)| Some((offset, fault?)));
        for (offset, fault) in bad.filter(|(_, fault)| **fault != TableFault::Blank).take(MOST_BAD_PAGES_TOLD) {
            self.tell_bad_page(offset, fault);
        }
    }

    pub(super) fn tell_bad_page(&self, offset: u64, fault: &TableFault) {
        tracing::error!(disk = %self.shared.id, offset, %fault, "a page of the extent table is bad");
    }

    /// Applies the log; returns the slots whose headers may be behind.
    fn replay_log(&self, stand: &Stand, course: &Course) -> Result<BTreeSet<u32>, String> {
        let mut slots = self.slots.borrow_mut();
        let flagged = slots.list().iter().enumerate().filter(|(_, slot)| slot.is_behind());
        let mut touched: BTreeSet<u32> = flagged.map(|(slot, _)| slot as u32).collect();
        for (half, blocks) in &course.logs {
            for (slot, entry) in stand.halves[*half][..*blocks].iter().flatten().flat_map(|block| &block.entries) {
                if entry.is_beyond(self.geometry()) {
                    return Err(format!("the log has a state that slot {slot} cannot hold"));
                }
                *slots.get_mut(*slot) = Slot::of_entry(entry, &self.io);
                touched.insert(*slot);
            }
        }
        Ok(touched)
    }

    /// Writes the headers of a slot that say less than the table.
    pub(super) async fn redo_headers(&self, slot: u32) -> Result<(), String> {
        let entry = self.entry_of(slot);
        if entry.lost {
            return Ok(());
        }
        let [a, b] = self.read_slot_headers(slot).await;
        let behind = entry.pages_behind([&a, &b]).map_err(|why| format!("slot {slot}: {why}"))?;
        for (page, found) in [&a, &b].into_iter().enumerate() {
            // Rotten, or cut by a crash: nobody can tell. A blank one was never written.
            if let Err(fault) = found
                && *fault != SlotHeaderError::Blank
            {
                let at = page * PAGE_BYTES;
                tracing::warn!(
                    disk = %self.shared.id, slot, what = %format_args!("torn or damaged at {at}: {fault}"),
                    "a header page of a slot is bad; it is written again from the table"
                );
            }
        }
        let mut written = true;
        for page in [entry.page, 1 - entry.page] {
            if behind[usize::from(page)] {
                // The log has it: the mount goes on, and whatever is asked of the slot tries again.
                written &= self.write_header(slot, &entry, page).await.is_ok();
            }
        }
        self.with_slot(slot, |at| at.set_behind(!written));
        Ok(())
    }

    /// Index and free list, from the slots.
    fn enter_slots(&self) {
        let mut slots = self.slots.borrow_mut();
        let mut free = self.free.borrow_mut();
        for slot in 0..self.geometry().slots {
            let at = slots.get_mut(slot);
            if at.is_lost() {
                continue;
            }
            if at.state == SlotState::Free {
                // One that cannot be made to say so stays out of use.
                if !at.is_behind() {
                    free.insert(slot);
                }
                continue;
            }
            if planted!(ForgetFence) && at.state == SlotState::Fenced {
                at.state = SlotState::Open;
            }
            if let Some(live) = at.live.as_mut() {
                // A copy, too, must be begun anew: its header may be the older of two, the newer being unreadable.
                live.no_appends = Some("it was open across a restart".to_owned());
            }
            let (volume, role) = (at.volume, at.role());
            if let Some(earlier) = slots.find_role(volume, role).filter(|_| role != Role::Trash) {
                // Never written by this engine; kept out of use, never erased.
                tracing::error!(disk = %self.shared.id, %volume, slot, earlier, "two slots claim one volume; the first is used");
                slots.get_mut(slot).set_lost(true);
                continue;
            }
            slots.index(slot);
        }
    }

    /// Finds where the valid batches of an extent end, and what stands behind them.
    async fn find_tail(&self, slot: u32) {
        let written = match self.written(slot).await {
            Ok(written) => written,
            Err(error) => return self.tail_is_unknown(slot, &format!("damaged: {error}")),
        };
        let scan = self.scan_batches(slot, written.end, None).await;
        let tail = scan.tail - if planted!(CutOnePageTooMany) { scan.tail.min(PAGE_BYTES as u64) } else { 0 };
        let (is_bad, other) = if let Stop::Bad { other, .. } = scan.stop { (true, other) } else { (false, None) };
        let what = match scan.stop {
            Stop::Limit => (written.torn > 0).then(|| format!("{} bytes of a page were written", written.torn)),
            Stop::Blank => Some("nothing stands there".to_owned()),
            Stop::Bad { detail, .. } | Stop::Unreadable { detail } => Some(detail),
            Stop::Spans { end } => {
                Some(format!("a batch claims to end at {end}, and what was written ends at {}", written.end))
            }
        };
        let (behind, earlier) = match &what {
            Some(_) => self.batches_behind(slot, tail, written.end).await,
            None => (None, None),
        };
        // Its first page tells that nothing of this extent was ever written there.
        let clean = other.is_some_and(|other| self.is_of_earlier_use(other));
        let blank = what.as_deref() == Some("nothing stands there");
        let note = match (what, behind, earlier.filter(|_| is_bad)) {
            (Some(what), Some(end), _) => Some(format!("damaged at {tail}: {what}; later batches reach to {end}")),
            (Some(_), None, _) if blank || clean => None,
            (Some(what), None, Some(earlier)) => Some(format!(
                "ends at {tail}; behind it stands what volume {earlier} left in an earlier use of the slot, or a last batch \
                 that is torn or damaged ({what})"
            )),
            (Some(what), None, None) => Some(format!("torn or damaged at the end, at {tail}: {what}")),
            (None, _, _) => None,
        };
        let volume = self.with_slot(slot, |at| {
            if let Some(live) = at.live.as_mut() {
                live.tail = tail;
                live.records = scan.records;
                live.readable_end = behind.unwrap_or(tail);
                live.damaged |= behind.is_some();
                live.note = note.clone().or(live.note.take());
            }
            at.volume
        });
        if let Some(note) = note {
            tracing::warn!(disk = %self.shared.id, %volume, slot, %note, "extent does not end cleanly");
        }
    }

    /// The disk does not tell how far an extent was written.
    fn tail_is_unknown(&self, slot: u32, note: &str) {
        let volume = self.with_slot(slot, |at| {
            if let Some(live) = at.live.as_mut() {
                (live.damaged, live.note) = (true, Some(note.to_owned()));
            }
            at.volume
        });
        tracing::error!(disk = %self.shared.id, %volume, slot, note, "extent is damaged");
    }
}
