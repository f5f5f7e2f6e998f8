//! Removing extents: an order of the volume manager puts one into the trash, where it stands until its retention is
//! over; then its slot is made free. Until that it can be restored.
//!
//! Invariants:
//! - D1. An order names volume, slot, slot generation and term; if anything differs from what stands there, or a later
//!   leader was heard of, nothing is done. That the extent may go at all, the volume manager has checked.
//! - D3. What is taken out by the order for a copy was read from its first byte to its last for that, and came to its digest.
//!   What has another one is marked as damaged, and stays in the trash; what cannot be read may be the next time. An operator
//!   may take out anything.
//! - D4. What is being read back is not erased, however old it is, until whoever reads it has given up.
//! - D5. Nothing comes out of the trash beside another extent of its volume that stands, or comes.
//! - Only what an order put into the trash is erased, and only past its retention (`watcher.rs` sees to it again).
//! - Ages are disk uptime: seconds that this disk was mounted. No wall clock can make trash look old, nor can a disk
//!   that lay on a shelf.
//! - The space of an erased extent is given up only when the slot is durably free, and before it can be taken again.

use std::time::Duration;

use holdfast_libs_types::VolumeId;

use super::copy::hex;
use super::slot::Role;
use super::watcher::Warrant;
use super::{Engine, Slot};
use crate::error::{EngineError, ExtentState};
use crate::reactor::TaskLockGuard;
use crate::slot_header::{SlotHeader, SlotState};
use crate::status::{Erased, Named, TrashOrder};
use crate::table::ScrubCursor;

/// Most extents that one call erases; the next goes on.
const MAX_ERASES: usize = 256;

/// An extent of the trash that is old enough.
struct Expired {
    volume: VolumeId,
    slot: u32,
    warrant: Warrant,
}

impl Engine {
    /// See `Disk::trash`.
    pub(crate) async fn trash(&self, order: TrashOrder) -> Result<(), EngineError> {
        self.shared.writable()?;
        check_order(&order)?;
        let volume = order.volume;
        let (slot, _guard) = self.lock_found(|| self.find_named(volume, order.slot)).await?;
        let header = self.check_names(slot, (order.slot, order.slot_generation))?;
        if header.state == SlotState::Trashed && header.order == order.order {
            return Ok(());
        }
        self.check_term(order.term)?;
        match header.state {
            SlotState::Open | SlotState::Fenced | SlotState::Sealed => {}
            SlotState::Trashed => {
                return Err(self.wrong_order(format!("volume {volume} is in the trash already, by another order")));
            }
            SlotState::Copying | SlotState::Free => {
                return Err(EngineError::WrongState { volume, state: ExtentState::Copying });
            }
        }
        self.put_into_trash(slot, header, &order).await
    }

    /// Puts an extent that stands into the trash. The caller holds its lock, and has checked the order.
    pub(super) async fn put_into_trash(
        &self,
        slot: u32,
        header: SlotHeader,
        order: &TrashOrder,
    ) -> Result<(), EngineError> {
        let trashed = SlotHeader {
            state: SlotState::Trashed,
            state_before: header.state,
            term: order.term.max(header.term),
            trashed_at: self.shared.uptime_s(),
            order: order.order,
            ..header
        };
        // A writer's append that waits for the lock must not find it open again after a restore.
        self.with_slot(slot, |at| {
            if let Some(live) = at.live.as_mut() {
                live.no_appends = Some("it was in the trash".to_owned());
            }
        });
        self.commit_slot(slot, trashed).await?;
        let volume = header.volume;
        tracing::info!(disk = %self.shared.id, %volume, slot, order = %hex(&order.order), "extent is in the trash");
        Ok(())
    }

    /// See `Disk::restore`.
    pub(crate) async fn restore(
        &self,
        volume: VolumeId,
        slot: u32,
        slot_generation: u32,
        term: u64,
    ) -> Result<(), EngineError> {
        self.shared.writable()?;
        let (at, _guard) = self.lock_found(|| self.find_named(volume, slot)).await?;
        let header = self.check_names(at, (slot, slot_generation))?;
        self.check_term(term)?;
        if header.state != SlotState::Trashed {
            return Ok(());
        }
        self.take_out(slot, header, term).await
    }

    /// See `Disk::read_back_trashed`.
    pub(crate) async fn read_back_trashed(&self, named: Named, max_bytes: u64) -> Result<u64, EngineError> {
        self.shared.writable()?;
        let (slot, _guard, header) = self.lock_sealed_trash(named).await?;
        self.read_on_back(slot, &header, max_bytes).await
    }

    /// See `Disk::forget_read_back`.
    pub(crate) async fn forget_read_back(&self, named: Named) -> Result<(), EngineError> {
        let (slot, _guard, _) = self.lock_sealed_trash(named).await?;
        self.with_slot(slot, |at| {
            if let Some(live) = at.live.as_mut() {
                live.read_back = None;
            }
        });
        Ok(())
    }

    /// See `Disk::restore_read_back`.
    pub(crate) async fn restore_read_back(&self, named: Named, term: u64) -> Result<(), EngineError> {
        self.shared.writable()?;
        let (slot, guard, header) = self.lock_sealed_trash(named).await?;
        self.check_term(term)?;
        let (_, back) = self.read_back(slot, &header, u64::MAX).await?;
        let (found, _) = back.end();
        if found == header.digest {
            return self.take_out(slot, header, term).await;
        }
        drop(guard);
        let what = format!("its bytes have the digest {}", hex(&found));
        self.mark_at(slot, &header, 0, &what).await;
        Err(self.damaged(slot, header.volume, 0, what))
    }

    /// An extent that was sealed, lies in the trash, and is not known to be damaged.
    async fn lock_sealed_trash(
        &self,
        Named { volume, slot, slot_generation }: Named,
    ) -> Result<(u32, TaskLockGuard, SlotHeader), EngineError> {
        let (at, guard) = self.lock_found(|| self.find_named(volume, slot)).await?;
        let header = self.check_names(at, (slot, slot_generation))?;
        if header.state != SlotState::Trashed || header.state_before != SlotState::Sealed {
            let state = self.with_slot(slot, |at| at.state());
            return Err(EngineError::WrongState { volume, state });
        }
        self.refuse_damaged(slot)?;
        Ok((slot, guard, header))
    }

    /// Back to the state that it had. The caller holds the lock of the extent.
    async fn take_out(&self, slot: u32, header: SlotHeader, term: u64) -> Result<(), EngineError> {
        let volume = header.volume;
        let other = self.find(volume)?;
        let (role, state) = self.with_slot(other, |at| (at.role(), at.state()));
        if role != Role::Trash {
            return Err(EngineError::AlreadyExists { volume, state });
        }
        self.with_slot(slot, |at| at.set_leaves_trash(true));
        let restored = SlotHeader {
            state: header.state_before,
            state_before: SlotState::Free,
            term: term.max(header.term),
            trashed_at: 0,
            order: [0; 16],
            ..header
        };
        let done = self.commit_slot(slot, restored).await;
        self.with_slot(slot, |at| at.set_leaves_trash(false));
        done?;
        self.with_slot(slot, |at| {
            // A sealed extent needs nothing of its own in memory, unless something is wrong with it.
            if at.state == SlotState::Sealed && !at.is_damaged() {
                at.live = None;
            }
        });
        tracing::info!(disk = %self.shared.id, %volume, slot, "extent is restored from the trash");
        Ok(())
    }

    /// See `Disk::erase_expired`.
    pub(crate) async fn erase_expired(&self, retention: Duration) -> Result<Vec<Erased>, EngineError> {
        self.shared.writable()?;
        self.remember_facts(false).await?;
        let mut erased = Vec::new();
        for expired in self.expired(retention.as_secs() + u64::from(retention.subsec_nanos() > 0)) {
            match self.erase(&expired).await {
                Ok(Some(one)) => erased.push(one),
                Ok(None) => {}
                // What was erased must be told; what was not is tried again by the next call.
                Err(error) if !erased.is_empty() => {
                    tracing::warn!(disk = %self.shared.id, volume = %expired.volume, %error, "erasing stopped");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(erased)
    }

    fn expired(&self, retention_s: u64) -> Vec<Expired> {
        let uptime = self.shared.uptime_s();
        let is_old = |header: &SlotHeader| {
            header.state == SlotState::Trashed && uptime.saturating_sub(header.trashed_at) >= retention_s
        };
        let slots = self.slots.borrow();
        let is_trash = |at: &Slot| at.state == SlotState::Trashed && !at.is_lost() && !at.is_read_back();
        let trash = slots.list().iter().enumerate().filter(|(_, at)| is_trash(at));
        let old = trash.map(|(slot, at)| (slot as u32, at.header())).filter(|(_, header)| is_old(header));
        let expired = old.map(|(slot, header)| {
            let SlotHeader { volume, slot_generation, order, .. } = header;
            Expired { volume, slot, warrant: Warrant { volume, slot_generation, order, retention_s } }
        });
        expired.take(MAX_ERASES).collect()
    }

    /// Frees the slot of one extent; `None` when it was restored meanwhile, or is being read for that.
    async fn erase(&self, expired: &Expired) -> Result<Option<Erased>, EngineError> {
        let &Expired { volume, slot, warrant } = expired;
        let Warrant { slot_generation, order, .. } = warrant;
        let Ok((at, _guard)) = self.lock_found(|| self.find_named(volume, slot)).await else { return Ok(None) };
        let header = self.with_slot(at, |at| at.header());
        let same = (at, header.slot_generation, header.order) == (slot, slot_generation, order);
        if header.state != SlotState::Trashed || !same || self.with_slot(at, |at| at.is_read_back()) {
            return Ok(None);
        }
        self.warrants.borrow_mut().insert(slot, warrant);
        let freed = self.commit_slot(slot, SlotHeader::freed(slot_generation)).await;
        self.warrants.borrow_mut().remove(&slot);
        freed?;
        tracing::info!(disk = %self.shared.id, %volume, slot, order = %hex(&order), "extent is erased");
        self.give_up_space(slot).await;
        Ok(Some(Erased { volume, slot, slot_generation, order }))
    }

    /// The slot that an order names, if something of the volume is there; else what there is of it.
    pub(super) fn find_named(&self, volume: VolumeId, named: u32) -> Result<u32, EngineError> {
        let is_there = self.slots.borrow().of(volume).any(|slot| slot == named);
        if is_there { Ok(named) } else { self.find(volume) }
    }

    /// The header of `slot`, where a volume stands, if the order's slot and slot generation name the same extent.
    pub(super) fn check_names(&self, slot: u32, named: (u32, u32)) -> Result<SlotHeader, EngineError> {
        let header = self.with_slot(slot, |at| at.header());
        if named.0 != slot {
            let detail = format!("volume {} stands in slot {slot}, not in {}", header.volume, named.0);
            return Err(self.wrong_order(detail));
        }
        if named.1 != header.slot_generation {
            let detail = format!("slot {slot} has generation {}, the order names {}", header.slot_generation, named.1);
            return Err(self.wrong_order(detail));
        }
        Ok(header)
    }

    fn wrong_order(&self, detail: String) -> EngineError {
        EngineError::WrongOrder { disk: self.shared.id, detail }
    }

    /// Refuses an order of a leader whose successor was heard of by this disk, whatever extent that was about.
    pub(super) fn check_term(&self, term: u64) -> Result<(), EngineError> {
        let current = self.highest_term.get();
        if term < current {
            return Err(EngineError::StaleTerm { given: term, current });
        }
        self.highest_term.set(term);
        self.shared.hear_term(term);
        Ok(())
    }

    /// After the mount: uptime, term and the scrub's place go on from what the disk knows.
    pub(super) fn resume_facts(&self) {
        let facts = self.table.facts.get();
        let slots = self.slots.borrow();
        // After a rebuild the headers may know more.
        let headers = || slots.list().iter().filter(|at| at.state != SlotState::Free).map(|at| at.header());
        let trashed_at = headers().map(|header| header.trashed_at).max().unwrap_or(0);
        self.shared.resume_uptime(trashed_at.max(facts.uptime_s));
        self.highest_term.set(headers().map(|header| header.term).max().unwrap_or(0).max(facts.term));
        self.shared.hear_term(self.highest_term.get());
        self.scrub.borrow_mut().cursor = match facts.scrub.within(self.geometry().slots) {
            Some(cursor) => cursor,
            None => {
                tracing::warn!(disk = %self.shared.id, found = ?facts.scrub, "the scrub's place is none on this disk; it begins anew");
                ScrubCursor::default()
            }
        };
    }

    /// Refuses reads of records from the trash.
    pub(super) fn refuse_trash(&self, volume: VolumeId) -> Result<(), EngineError> {
        let slot = self.find(volume)?;
        if self.with_slot(slot, |at| at.state) == SlotState::Trashed {
            return Err(EngineError::Trashed { disk: self.shared.id, volume, slot });
        }
        Ok(())
    }
}

/// What stands in the trash without a name could never be erased.
pub(super) fn check_order(order: &TrashOrder) -> Result<(), EngineError> {
    match order.order == [0; 16] {
        true => Err(EngineError::InvalidArgument("an order must have a name that is not zero".to_owned())),
        false => Ok(()),
    }
}
