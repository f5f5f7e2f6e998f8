//! The mark of an extent in which a scrub or a read found damage: a flag in its slot's header and in the table, so that listings,
//! metrics and the volume manager know of it after a restart, before a scrub has come round again.
//!
//! Invariants:
//! - M1. The mark is a change of the slot like any other (T1, T2 of the table): log, then header, then memory. What could
//!   not be written is shown all the same, and written when the next round finds the damage again.
//! - M2. A mark says "not every byte of this was right when it was read last". It is taken back only by a pass that began
//!   after it was set, read the extent from its first byte to its last without a restart, a failed read or a bad
//!   checksum, and came to the SHA-256 that the volume manager knows it by; or by a seal, which reads just as much before
//!   it vouches for anything. A pass that was cut short begins anew and proves nothing. So a sector that reads well only
//!   now and then does not make a replica look whole: the pass that meets its bad moment sets the mark again, for good
//!   until the next whole pass.
//! - M3. An open or fenced extent has no digest that could prove it. Its mark stays until a seal, or its end.
//! - M4. The mark forbids nothing that the damage itself does not: records are served, since each has checksums of its
//!   own. But nobody vouches for the extent as a whole: no repeat of its seal or copy is answered.
//! - M5. Trash keeps the mark, and a restore brings it back with the extent.

use std::rc::Rc;

use crate::engine::slot::Live;
use crate::engine::{Engine, Slot};
use crate::reactor::{Io, TaskLock};
use crate::slot_header::SlotHeader;

impl Engine {
    /// Marks the extent in `slot`. The caller holds `held`, the lock of the extent.
    pub(super) async fn mark(&self, slot: u32, held: &Rc<TaskLock>, note: &str) {
        self.with_slot(slot, |at| at.mark_damaged(note, &self.io));
        // A sealed one has a lock of its own from now on, which nobody else can have taken yet.
        let own = self.lock_of(slot);
        let _guard = if Rc::ptr_eq(&own, held) { None } else { Some(own.lock().await) };
        let header = self.with_slot(slot, |at| at.header());
        if header.damaged || self.shared.writable().is_err() {
            return;
        }
        let volume = header.volume;
        if let Err(error) = self.commit_slot(slot, SlotHeader { damaged: true, ..header }).await {
            tracing::warn!(
                disk = %self.shared.id, %volume, slot, %error,
                "extent is damaged, which could not be written down; until a scrub finds it again, a restart forgets it"
            );
        }
    }

    /// After a pass over all of a sealed, marked extent in which every page checksum was right: with the right digest, the
    /// mark goes.
    pub(super) async fn take_mark_back(&self, slot: u32, header: &SlotHeader, digest: [u8; 32]) {
        let lock = self.lock_of(slot);
        let _guard = lock.lock().await;
        if !self.is_still(slot, header) || digest != header.digest || self.shared.writable().is_err() {
            return;
        }
        let now = self.with_slot(slot, |at| at.header());
        let volume = now.volume;
        if now.damaged
            && let Err(error) = self.commit_slot(slot, SlotHeader { damaged: false, ..now }).await
        {
            tracing::warn!(disk = %self.shared.id, %volume, slot, %error, "extent is whole again, but stays marked as damaged");
            return;
        }
        self.with_slot(slot, |at| at.live = None);
        tracing::warn!(
            disk = %self.shared.id, %volume, slot,
            "extent was marked as damaged and reads whole again, every byte of it; what made it read otherwise may come back"
        );
    }
}

impl Slot {
    /// Shows it as damaged. Its records are served as before: each has checksums of its own.
    pub(in crate::engine) fn mark_damaged(&mut self, note: &str, io: &Rc<Io>) {
        let length = self.length;
        let live =
            self.live.get_or_insert_with(|| Box::new(Live { tail: length, readable_end: length, ..Live::empty(io) }));
        live.damaged = true;
        live.no_appends = Some("it is damaged".to_owned());
        live.note.get_or_insert_with(|| note.to_owned());
    }
}
