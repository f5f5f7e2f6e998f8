//! The erase watcher: looks at every change of a slot where it is committed and again where its header is written, and
//! refuses what would destroy an extent without a right to. Whatever code asked for it, by whatever mistake.
//!
//! D2. A used slot becomes free, or another extent's, only when
//! - it is an unfinished copy that is given up; or
//! - it is in the trash, the order that the table holds for it is the one that the erase names, and its retention is
//!   over.
//!
//! Anything else is refused, counted and raised as an alarm.

use std::sync::atomic::Ordering;

use holdfast_libs_types::VolumeId;

use super::Engine;
use crate::error::EngineError;
use crate::slot_header::{SlotHeader, SlotState};

/// The right to erase one extent: what it is, and by which order it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Warrant {
    pub(super) volume: VolumeId,
    pub(super) slot_generation: u32,
    pub(super) order: [u8; 16],
    /// Seconds of disk uptime that it stays in the trash.
    pub(super) retention_s: u64,
}

/// Whether a slot that holds `before` may come to hold `after`; the error says why not.
fn judge(before: &SlotHeader, after: &SlotHeader, warrant: Option<&Warrant>, uptime_s: u64) -> Result<(), String> {
    let same_extent = (after.volume, after.slot_generation) == (before.volume, before.slot_generation);
    if before.state == SlotState::Free || (same_extent && after.state != SlotState::Free) {
        return Ok(());
    }
    if after.state != SlotState::Free {
        return Err(format!("volume {} would be written over by volume {}", before.volume, after.volume));
    }
    match before.state {
        SlotState::Copying => return Ok(()),
        SlotState::Trashed => {}
        _ => {
            return Err(format!(
                "it holds volume {}, {:?} and never ordered to the trash",
                before.volume, before.state
            ));
        }
    }
    let Some(warrant) = warrant else {
        return Err(format!("volume {} is in the trash and nobody names its order", before.volume));
    };
    if before.order == [0; 16] || warrant.order != before.order {
        return Err(format!("volume {} is in the trash by another order", before.volume));
    }
    if (warrant.volume, warrant.slot_generation) != (before.volume, before.slot_generation) {
        return Err(format!("the erase names volume {}, but {} stands there", warrant.volume, before.volume));
    }
    let age = uptime_s.saturating_sub(before.trashed_at);
    if age < warrant.retention_s {
        return Err(format!("volume {} is in the trash for {age} s of {} s", before.volume, warrant.retention_s));
    }
    Ok(())
}

impl Engine {
    /// Refuses a change of `slot` that would destroy what it holds. Called before anything of it is written.
    pub(super) fn watch_change(&self, slot: u32, after: &SlotHeader) -> Result<(), EngineError> {
        let before = self.with_slot(slot, |at| at.header());
        let warrant = self.warrants.borrow().get(&slot).copied();
        judge(&before, after, warrant.as_ref(), self.shared.uptime_s()).map_err(|detail| self.raise_alarm(slot, detail))
    }

    /// Refuses to empty the disk zones of a slot that holds, by the table, more than an unfinished copy.
    pub(super) fn watch_reset(&self, slot: u32) -> Result<(), EngineError> {
        let (state, is_lost) = self.with_slot(slot, |at| (at.state, at.is_lost()));
        let behind = self.entry_of(slot).behind;
        if !is_lost && !behind && matches!(state, SlotState::Free | SlotState::Copying) {
            return Ok(());
        }
        let state = if is_lost { "unknown".to_owned() } else { format!("{state:?}") };
        Err(self.raise_alarm(slot, format!("its disk zones would be reset, and what it holds is {state}")))
    }

    fn raise_alarm(&self, slot: u32, detail: String) -> EngineError {
        self.shared.erase_alarms.fetch_add(1, Ordering::Relaxed);
        let volume = self.with_slot(slot, |at| at.volume);
        tracing::error!(
            disk = %self.shared.id, slot, %volume, detail,
            "ALARM: an erase that nobody ordered was refused; restart this node and report it, its memory or program is at fault"
        );
        EngineError::EraseRefused { disk: self.shared.id, slot, detail }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    use holdfast_libs_sim::disk::{SimDisk, SimOp};
    use holdfast_libs_sim::streams::{SimRng, Streams};
    use holdfast_libs_sim::zones::ZoneLayout;
    use holdfast_libs_types::{CellId, VolumeId, WriteEpoch};

    use super::{Warrant, judge};
    use crate::error::EngineError;
    use crate::mailbox::Lane;
    use crate::raw::simulated::{self, SharedSimDisk, SimulatedDisk};
    use crate::slot_header::{SlotHeader, SlotState};
    use crate::table::entry::Entry;

    const VOLUME: VolumeId = VolumeId([7; 16]);
    const ORDER: [u8; 16] = [9; 16];

    fn held(state: SlotState) -> SlotHeader {
        let (order, trashed_at) = if state == SlotState::Trashed { (ORDER, 100) } else { ([0; 16], 0) };
        SlotHeader { state, volume: VOLUME, slot_generation: 3, order, trashed_at, ..SlotHeader::blank() }
    }

    fn warrant() -> Warrant {
        Warrant { volume: VOLUME, slot_generation: 3, order: ORDER, retention_s: 50 }
    }

    #[test]
    fn only_ordered_trash_past_its_retention_and_unfinished_copies_become_free() {
        let free = SlotHeader::freed(3);
        for state in [SlotState::Open, SlotState::Fenced, SlotState::Sealed] {
            assert!(judge(&held(state), &free, Some(&warrant()), 1000).is_err());
        }
        assert!(judge(&held(SlotState::Copying), &free, None, 0).is_ok());
        let trash = held(SlotState::Trashed);
        assert!(judge(&trash, &free, Some(&warrant()), 150).is_ok());
        assert!(judge(&trash, &free, Some(&warrant()), 149).is_err(), "too early");
        assert!(judge(&trash, &free, Some(&warrant()), 99).is_err(), "an uptime that went back");
        assert!(judge(&trash, &free, None, 1000).is_err());
        for wrong in [
            Warrant { order: [8; 16], ..warrant() },
            Warrant { volume: VolumeId([1; 16]), ..warrant() },
            Warrant { slot_generation: 2, ..warrant() },
        ] {
            assert!(judge(&trash, &free, Some(&wrong), 1000).is_err(), "{wrong:?}");
        }
        let unordered = SlotHeader { order: [0; 16], ..trash };
        let nothing = Warrant { order: [0; 16], ..warrant() };
        assert!(judge(&unordered, &free, Some(&nothing), 1000).is_err());
    }

    #[test]
    fn an_extent_changes_its_state_and_is_not_written_over() {
        let sealed = held(SlotState::Sealed);
        assert!(judge(&sealed, &held(SlotState::Trashed), None, 0).is_ok());
        let other = SlotHeader { volume: VolumeId([1; 16]), ..held(SlotState::Open) };
        assert!(judge(&sealed, &other, Some(&warrant()), 1000).is_err());
        let again = SlotHeader { slot_generation: 4, ..held(SlotState::Open) };
        assert!(judge(&sealed, &again, Some(&warrant()), 1000).is_err());
        assert!(judge(&SlotHeader::freed(3), &again, None, 0).is_ok());
    }

    fn drive<T>(disk: &mut SimulatedDisk, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
            disk.turn();
        }
    }

    /// Bytes, the disk mounted from them, in zones or not, and the slot of an open extent on it.
    fn disk_with_an_extent(zones: Option<ZoneLayout>) -> (SharedSimDisk, SimulatedDisk, u32) {
        let streams = Streams::new(1);
        let cell = CellId([1; 16]);
        let media: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(24 << 20, &streams)));
        if let Some(layout) = zones {
            media.borrow_mut().set_zones(layout);
        }
        simulated::format(&media, cell, 1 << 20, &mut streams.stream("format"));
        let mut disk = SimulatedDisk::begin_mount(&media, cell, SimRng::from_seed(1)).unwrap();
        while !disk.is_mounted() {
            disk.turn();
        }
        let handle = disk.handle().clone();
        drive(&mut disk, handle.create_extent(VOLUME, WriteEpoch(1))).unwrap();
        let slot = drive(&mut disk, handle.extent(VOLUME)).unwrap().slot;
        (media, disk, slot)
    }

    #[test]
    fn an_erase_that_a_fault_in_the_engine_asks_for_is_refused_at_both_doors_and_raises_an_alarm() {
        let (_, mut disk, slot) = disk_with_an_extent(None);
        let handle = disk.handle().clone();
        let writes = handle.status().counters.writes;
        let planted = handle
            .call(Lane::Control, move |engine| async move { engine.commit_slot(slot, SlotHeader::freed(1)).await });
        let error = drive(&mut disk, planted).unwrap_err();
        assert!(matches!(error, EngineError::EraseRefused { slot: refused, .. } if refused == slot), "{error}");
        let free = Entry { header: SlotHeader::freed(1), ..Entry::blank() };
        let planted =
            handle.call(Lane::Control, move |engine| async move { engine.write_header(slot, &free, 0).await });
        assert!(matches!(drive(&mut disk, planted).unwrap_err(), EngineError::EraseRefused { .. }));
        assert_eq!((handle.status().erase_alarms, handle.status().counters.writes), (2, writes));
        let info = drive(&mut disk, handle.extent(VOLUME)).unwrap();
        assert!(info.takes_appends, "refused before anything of it was begun");
    }

    #[test]
    fn zones_of_a_slot_that_holds_an_extent_are_not_reset_whoever_asks() {
        let layout = ZoneLayout { zone_bytes: 1 << 20, capacity_bytes: 1 << 20, conventional: 7, max_open: 0 };
        let (media, mut disk, slot) = disk_with_an_extent(Some(layout));
        let handle = disk.handle().clone();
        let reset = |slot| {
            handle.call(Lane::Control, move |engine| async move {
                let zones = engine.geometry().zones.clone().unwrap();
                engine.reset_zones(&zones, slot).await
            })
        };
        let at = disk.data_range(slot).start;
        media.borrow_mut().submit(u64::MAX, SimOp::Write { offset: at, bytes: vec![7; 4096], dsync: true });
        media.borrow_mut().complete_one().unwrap();
        let error = drive(&mut disk, reset(slot)).unwrap_err();
        assert!(matches!(error, EngineError::EraseRefused { slot: refused, .. } if refused == slot), "{error}");
        assert_eq!((handle.status().erase_alarms, media.borrow().peek(at, 4096)), (1, vec![7; 4096]));
        drive(&mut disk, reset(slot + 1)).unwrap();
        assert_eq!(handle.status().erase_alarms, 1);
    }
}
