//! Rebuilding the extent table from the slot headers: every answered change stands in them. Reads every header, so it
//! is slow on a large disk, and it is said loudly.

use std::collections::VecDeque;

use holdfast_libs_types::PAGE_BYTES;

use super::{Engine, Slot};
use crate::buffer::AlignedBuf;
use crate::raw::Work;
use crate::reactor::IoFuture;
use crate::slot_header::{SlotContents, SlotHeader, SlotHeaderError};
use crate::table::entry::Entry;

/// Slot headers read at once.
const HEADERS_AHEAD: usize = 32;

type FoundHeaders = [Result<SlotHeader, SlotHeaderError>; 2];

impl Engine {
    /// Fills the slots from their headers, and makes both pages of each tell the same use.
    pub(super) async fn rebuild(&self) {
        let slots = self.geometry().slots;
        self.slots.borrow_mut().reset(slots);
        let mut flying: VecDeque<IoFuture> = VecDeque::new();
        let mut asked = 0;
        for slot in 0..slots {
            while asked < slots && flying.len() < HEADERS_AHEAD {
                let buffer = AlignedBuf::with_capacity(2 * PAGE_BYTES);
                let work = Work::Read { buffer, len: 2 * PAGE_BYTES };
                flying.push_back(self.io.start(self.geometry().header_offset(asked, 0), work));
                asked += 1;
            }
            let Some(future) = flying.pop_front() else { return };
            let [a, b] = self.headers_of(slot, future.await).await;
            let entry = self.believe(slot, a.clone(), b.clone());
            let uneven = !entry.lost && entry.pages_behind([&a, &b]).is_ok_and(|behind| behind != [false; 2]);
            self.slots.borrow_mut().push(Slot::of_entry(&Entry { behind: uneven, ..entry }, &self.io));
        }
        for slot in 0..slots {
            if self.with_slot(slot, |slot| slot.is_behind()) {
                // It cannot be behind itself: it was read from there. A failed write is tried again when it is used.
                let _ = self.redo_headers(slot).await;
            }
        }
    }

    /// What a slot was at the last rebuild may have been for want of a read that succeeds today.
    pub(super) async fn look_at_lost_slots(&self) {
        for slot in 0..self.geometry().slots {
            if self.with_slot(slot, |slot| slot.is_lost()) {
                let [a, b] = self.read_slot_headers(slot).await;
                let entry = self.believe(slot, a, b);
                *self.slots.borrow_mut().get_mut(slot) = Slot::of_entry(&entry, &self.io);
            }
        }
    }

    pub(super) async fn read_slot_headers(&self, slot: u32) -> FoundHeaders {
        let work = Work::Read { buffer: AlignedBuf::with_capacity(2 * PAGE_BYTES), len: 2 * PAGE_BYTES };
        let read = self.io.start(self.geometry().header_offset(slot, 0), work).await;
        self.headers_of(slot, read).await
    }

    async fn headers_of(&self, slot: u32, read: (std::io::Result<usize>, Option<AlignedBuf>)) -> FoundHeaders {
        let decode = |bytes: &[u8]| {
            SlotHeader::decode(bytes, self.shared.id, slot).and_then(|header| header.within(self.geometry()))
        };
        if let (Ok(got), Some(pages)) = &read
            && *got == 2 * PAGE_BYTES
        {
            self.shared.counters.read(*got);
            let (a, b) = pages.split_at(PAGE_BYTES);
            return [decode(a), decode(b)];
        }
        // Page by page: one that cannot be read must not take the other with it.
        let mut found = [Err(SlotHeaderError::Unreadable), Err(SlotHeaderError::Unreadable)];
        for (page, found) in found.iter_mut().enumerate() {
            let buffer = AlignedBuf::with_capacity(PAGE_BYTES);
            let offset = self.geometry().header_offset(slot, page as u8);
            if let Ok(bytes) = self.read_pages(offset, PAGE_BYTES, buffer).await {
                *found = decode(&bytes);
            }
        }
        found
    }

    fn believe(
        &self,
        slot: u32,
        a: Result<SlotHeader, SlotHeaderError>,
        b: Result<SlotHeader, SlotHeaderError>,
    ) -> Entry {
        let disk = self.shared.id;
        match SlotContents::of(a, b) {
            SlotContents::Known { header, page, other } => {
                if let Some(other) = other {
                    tracing::warn!(%disk, slot, state = ?header.state, %other, "one header page of a slot is bad");
                }
                Entry { header, page, behind: false, lost: false }
            }
            SlotContents::Lost { a, b } => {
                tracing::error!(%disk, slot, %a, %b, "both header pages of a slot are bad; it stays out of use");
                Entry { lost: true, ..Entry::blank() }
            }
        }
    }
}
