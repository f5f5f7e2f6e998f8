//! Mounting: from what stands on the disk to what stands in memory.
//!
//! First a flush: a process that was killed may have left a completed but not yet durable write in the device's
//! cache, and a tail answered from it would be a promise that a power cut breaks.
//!
//! After any mount no extent takes appends. The writer's lease ended with the process, and only the volume manager
//! can tell what the other replicas hold.

use std::sync::atomic::Ordering;

use holdfast_libs_types::{PAGE_BYTES, VolumeId};

use super::scan::Stop;
use super::{Engine, Slot};
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::planted::planted;
use crate::raw::Work;
use crate::reactor::IoFuture;
use crate::slot_header::{SlotContents, SlotHeader, SlotHeaderError, SlotState};

/// Slot headers read at once.
const HEADERS_AHEAD: usize = 32;

impl Engine {
    /// Reads all slot headers and finds the tail of every extent that is not sealed.
    pub(crate) async fn mount(&self) -> Result<(), EngineError> {
        if !planted!(SkipFlush)
            && let (Err(source), _) = self.io.start(0, Work::Flush).await
        {
            return Err(self.write_failed(source, "flushing before the mount", 1));
        }
        self.read_headers().await;
        self.resume_uptime_and_term();
        let unsealed: Vec<u32> = self.index.borrow().values().copied().collect();
        for slot in unsealed {
            if self.with_slot(slot, |slot| slot.live.is_some() && !slot.header().has_length()) {
                self.find_tail(slot).await;
            }
        }
        let lost = self.slots.borrow().iter().filter(|slot| slot.is_lost()).count();
        self.shared.lost_slots.store(lost as u32, Ordering::Relaxed);
        self.count_free();
        self.count_slots();
        Ok(())
    }

    async fn read_headers(&self) {
        let slots = self.geometry().slots;
        let mut flying: std::collections::VecDeque<IoFuture> = std::collections::VecDeque::new();
        let mut asked = 0;
        for slot in 0..slots {
            while asked < slots && flying.len() < HEADERS_AHEAD {
                let buffer = AlignedBuf::with_capacity(2 * PAGE_BYTES);
                let work = Work::Read { buffer, len: 2 * PAGE_BYTES };
                flying.push_back(self.io.start(self.geometry().header_offset(asked, 0), work));
                asked += 1;
            }
            let contents = match flying.pop_front() {
                Some(future) => self.slot_contents(slot, future.await).await,
                None => return,
            };
            self.enter_slot(slot, contents);
        }
    }

    async fn slot_contents(&self, slot: u32, read: (std::io::Result<usize>, Option<AlignedBuf>)) -> SlotContents {
        let decode = |bytes: &[u8]| {
            SlotHeader::decode(bytes, self.shared.id, slot).and_then(|header| header.within(self.geometry()))
        };
        if let (Ok(got), Some(pages)) = &read
            && *got == 2 * PAGE_BYTES
        {
            self.shared.counters.read(*got);
            let (a, b) = pages.split_at(PAGE_BYTES);
            return SlotContents::of(decode(a), decode(b));
        }
        // Page by page: one that cannot be read must not take the other with it.
        let mut found = Vec::new();
        for page in 0..2 {
            let buffer = AlignedBuf::with_capacity(PAGE_BYTES);
            let bytes = self.read_pages(self.geometry().header_offset(slot, page), PAGE_BYTES, buffer).await;
            found.push(match bytes {
                Ok(bytes) => decode(&bytes),
                Err(_) => Err(SlotHeaderError::Unreadable),
            });
        }
        match <[_; 2]>::try_from(found) {
            Ok([a, b]) => SlotContents::of(a, b),
            Err(_) => SlotContents::Lost { a: SlotHeaderError::Unreadable, b: SlotHeaderError::Unreadable },
        }
    }

    fn enter_slot(&self, slot: u32, contents: SlotContents) {
        let disk = self.shared.id;
        let (header, page, lost) = match contents {
            SlotContents::Known { header, page, other } => {
                if let Some(other) = other {
                    tracing::warn!(%disk, slot, state = ?header.state, %other, "one header page of a slot is bad");
                }
                (header, page, false)
            }
            SlotContents::Lost { a, b } => {
                tracing::error!(%disk, slot, %a, %b, "both header pages of a slot are bad; it stays out of use");
                (SlotHeader::blank(), 0, true)
            }
        };
        let mut entry = Slot::new(&header, page, &self.io);
        if planted!(ForgetFence) && entry.state == SlotState::Fenced {
            entry.state = SlotState::Open;
        }
        if lost {
            entry.set_lost();
        }
        if entry.state == SlotState::Free && !lost {
            self.free.borrow_mut().insert(slot);
        } else if !lost {
            self.enter_extent(slot, &mut entry);
        }
        self.slots.borrow_mut().push(entry);
    }

    fn enter_extent(&self, slot: u32, entry: &mut Slot) {
        let volume: VolumeId = entry.volume;
        let earlier = self.index.borrow().get(&volume).copied();
        if let Some(earlier) = earlier {
            // Never written by this engine; kept out of use, never erased.
            tracing::error!(disk = %self.shared.id, %volume, slot, earlier, "two slots claim one volume; the first is used");
            entry.set_lost();
            return;
        }
        self.index.borrow_mut().insert(volume, slot);
        if let Some(live) = entry.live.as_mut() {
            // A copy, too, must be begun anew: its header may be the older of two, the newer being unreadable.
            live.no_appends = Some("it was open across a restart".to_owned());
        }
    }

    /// Finds where the valid batches of an extent end, and what stands behind them.
    async fn find_tail(&self, slot: u32) {
        let capacity = self.geometry().volume_capacity_bytes();
        let scan = self.scan_batches(slot, capacity, None).await;
        let tail = scan.tail - if planted!(CutOnePageTooMany) { scan.tail.min(PAGE_BYTES as u64) } else { 0 };
        let what = match scan.stop {
            Stop::Limit => None,
            Stop::Blank => Some("nothing stands there".to_owned()),
            Stop::Bad { detail } | Stop::Unreadable { detail } => Some(detail),
            Stop::Spans { end } => Some(format!("a batch claims to end at {end}, beyond the extent")),
        };
        let behind = match &what {
            Some(_) => self.last_batch_behind(slot, tail).await,
            None => None,
        };
        let blank = what.as_deref() == Some("nothing stands there");
        let note = match (what, behind) {
            (Some(what), Some(end)) => Some(format!("damaged at {tail}: {what}; later batches reach to {end}")),
            (Some(what), None) if !blank => Some(format!("torn or damaged at the end, at {tail}: {what}")),
            _ => None,
        };
        let volume = self.with_slot(slot, |at| {
            if let Some(live) = at.live.as_mut() {
                live.tail = tail;
                live.records = scan.records;
                live.readable_end = behind.unwrap_or(tail);
                live.damaged = behind.is_some();
                live.note = note.clone();
            }
            at.volume
        });
        if let Some(note) = note {
            tracing::warn!(disk = %self.shared.id, %volume, slot, %note, "extent does not end cleanly");
        }
    }
}
