//! Copies of sealed volumes from another replica. A copy serves nothing until it was read back whole from the disk
//! and had the digest it should.
//!
//! A copy may be made beside what else the disk holds of the volume:
//! - C1. What is in the trash stays there.
//! - C2. What stands serves on, until the copy was read back and compared. Then it goes into the trash, by an order that names
//!   it (D1), and after that the copy is sealed: two never stand. A crash between the two leaves the one in the trash, and a
//!   copy to be begun anew.
//! - C3. A sound replica, sealed as the copy would be, gives way to none.

use holdfast_libs_types::{PAGE_BYTES, VolumeId, WriteEpoch};

use super::Engine;
use super::footer::ReadBack;
use super::slot::{Live, Role};
use super::trash::check_order;
use crate::buffer::AlignedBuf;
use crate::error::{EngineError, ExtentState};
use crate::reactor::TaskLockGuard;
use crate::slot_header::{SlotHeader, SlotState};
use crate::status::TrashOrder;

const PAGE: u64 = PAGE_BYTES as u64;

impl Engine {
    /// Takes a slot for a copy, or begins the one there is anew. `instead_of` names what stands, if that is to give way.
    pub(crate) async fn begin_copy(
        &self,
        volume: VolumeId,
        (epoch, length, digest): (WriteEpoch, u64, [u8; 32]),
        instead_of: Option<TrashOrder>,
    ) -> Result<(), EngineError> {
        self.shared.writable()?;
        let capacity = self.geometry().volume_capacity_bytes();
        if !length.is_multiple_of(PAGE) || length > capacity {
            return Err(EngineError::InvalidArgument(format!(
                "a copy of {length} bytes: must be whole pages, at most {capacity}"
            )));
        }
        let header = SlotHeader {
            state: SlotState::Copying,
            volume,
            epoch,
            append_epoch: epoch,
            length,
            digest,
            ..SlotHeader::blank()
        };
        if let Ok(stands) = self.find_role(volume, Role::Standing) {
            self.check_gives_way(stands, &header, instead_of)?;
        }
        if self.find_role(volume, Role::Coming).is_err() {
            return self.occupy(header).await;
        }
        let (slot, _guard) = self.lock_coming(volume).await?;
        let (state, old) = self.with_slot(slot, |slot| (slot.state(), slot.header()));
        if old.state != SlotState::Copying {
            return Err(EngineError::AlreadyExists { volume, state });
        }
        // Also when nothing differs: an earlier attempt may have got only one page written.
        self.commit_slot(slot, SlotHeader { slot_generation: old.slot_generation, ..header }).await?;
        self.set_copied(slot, 0, Some("it could not be begun anew".to_owned()));
        self.restart_data(slot).await?;
        self.set_copied(slot, 0, None);
        Ok(())
    }

    /// How much of a copy is written, and why no more may be.
    fn set_copied(&self, slot: u32, end: u64, no_more: Option<String>) {
        self.with_slot(slot, |slot| {
            if let Some(live) = slot.live.as_mut() {
                (live.tail, live.no_appends, live.read_back) = (end, no_more, None);
            }
        });
    }

    /// Writes a part of a copy: the next.
    pub(crate) async fn copy_write(&self, volume: VolumeId, offset: u64, part: AlignedBuf) -> Result<(), EngineError> {
        self.shared.writable()?;
        let (slot, _guard, header) = self.lock_copy(volume).await?;
        // A header that could not be written may stand on the disk all the same and say "sealed": what it vouches
        // for must not be written over before a newer one says "copying" again.
        let copied = self.with_slot(slot, |slot| slot.live.as_ref().map(|live| (live.tail, live.no_appends.clone())));
        let tail = match copied.unwrap_or_default() {
            (_, Some(reason)) => return Err(EngineError::NoAppends { volume, reason }),
            (tail, None) => tail,
        };
        let len = part.len() as u64;
        if !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || len == 0 {
            return Err(EngineError::InvalidArgument(format!("a part of {len} bytes at {offset} is not whole pages")));
        }
        if offset.checked_add(len).is_none_or(|end| end > header.length) {
            return Err(EngineError::OutOfRange { offset, len, end: header.length });
        }
        if offset != tail {
            return Err(EngineError::NotTail { tail });
        }
        let written = self.write_data("writing a copy", slot, offset, part).await;
        match &written {
            Ok(()) => self.set_copied(slot, offset + len, None),
            Err(error) => self.set_copied(slot, tail, Some(format!("a write to it failed: {error}"))),
        }
        written
    }

    /// Verifies a copy and makes it a sealed extent. `instead_of` names what stands, if that is to give way.
    pub(crate) async fn finish_copy(
        &self,
        volume: VolumeId,
        instead_of: Option<TrashOrder>,
    ) -> Result<(), EngineError> {
        self.shared.writable()?;
        let (slot, _guard) = self.lock_coming(volume).await?;
        let header = self.with_slot(slot, |slot| slot.header());
        let is_other =
            instead_of.is_some_and(|order| (order.slot, order.slot_generation) == (slot, header.slot_generation));
        if header.state == SlotState::Sealed && !is_other {
            return self.refuse_damaged(slot);
        }
        self.require_copying(slot, &header)?;
        let (_, back) = {
            let _alone = self.scan_lock.lock().await;
            self.read_back(slot, &header, u64::MAX).await?
        };
        let (found, footer) = back.end();
        if found != header.digest {
            return Err(EngineError::CopyMismatch { volume, found: hex(&found), expected: hex(&header.digest) });
        }
        let append_epoch = footer.append_epoch().unwrap_or(header.append_epoch);
        let footer = footer.finish();
        let sealed = SlotHeader {
            state: SlotState::Sealed,
            append_epoch,
            no_records: footer.rows.is_none(),
            records: footer.row_count(),
            ..header
        };
        let sealed = self.append_footer(slot, header.length, sealed, &footer).await?;
        self.give_way(&header, instead_of).await?;
        self.commit_slot(slot, sealed).await?;
        self.end_writing(slot).await;
        self.with_slot(slot, |slot| slot.live = None);
        Ok(())
    }

    /// Goes on reading back a copy that is written to its end, for `max_bytes`; answers how many bytes are left. What was read
    /// back counts until the copy is written to, or begun, anew. Not alone: the caller bounds the load of several copies.
    pub(crate) async fn read_back_copy(&self, volume: VolumeId, max_bytes: u64) -> Result<u64, EngineError> {
        self.shared.writable()?;
        let (slot, _guard, header) = self.lock_copy(volume).await?;
        self.read_on_back(slot, &header, max_bytes).await
    }

    /// As far as `max_bytes` from where it was, which is kept; the bytes left.
    pub(super) async fn read_on_back(
        &self,
        slot: u32,
        header: &SlotHeader,
        max_bytes: u64,
    ) -> Result<u64, EngineError> {
        let (left, back) = self.read_back(slot, header, max_bytes).await?;
        self.with_slot(slot, |slot| {
            if let Some(live) = slot.live.as_mut() {
                live.read_back = Some(back);
            }
        });
        Ok(left)
    }

    /// As far as `max_bytes` from where it was; the bytes left.
    pub(super) async fn read_back(
        &self,
        slot: u32,
        header: &SlotHeader,
        max_bytes: u64,
    ) -> Result<(u64, Box<ReadBack>), EngineError> {
        let live = |live: &mut Box<Live>| (live.tail, live.read_back.take());
        let (tail, begun) = self.with_slot(slot, |slot| slot.live.as_mut().map_or((0, None), live));
        if tail < header.length {
            return Err(EngineError::TooShort { tail, length: header.length });
        }
        let mut back = begun.unwrap_or_else(|| Box::new(ReadBack::new(header.volume)));
        let end = back.at.saturating_add(max_bytes).min(header.length);
        let read = self.read_on(slot, &mut back, end).await;
        read.map_err(|error| self.damaged(slot, header.volume, back.at, format!("cannot be read back: {error}")))?;
        Ok((header.length - back.at, back))
    }

    /// Frees the slot of a copy. Free is durable in both pages before the slot can be taken again.
    pub(crate) async fn abort_copy(&self, volume: VolumeId) -> Result<(), EngineError> {
        self.shared.writable()?;
        let (slot, _guard, header) = self.lock_copy(volume).await?;
        self.commit_slot(slot, SlotHeader::freed(header.slot_generation)).await?;
        self.give_up_space(slot).await;
        Ok(())
    }

    /// Puts what stands of a copied volume into the trash. The caller holds the lock of the copy, and nobody who holds that of
    /// what stands waits for another.
    async fn give_way(&self, copy: &SlotHeader, instead_of: Option<TrashOrder>) -> Result<(), EngineError> {
        let stands = || self.find_role(copy.volume, Role::Standing);
        let (slot, _guard) = match self.lock_found(stands).await {
            Err(EngineError::UnknownVolume { .. }) => return Ok(()),
            locked => locked?,
        };
        let order = self.check_gives_way(slot, copy, instead_of)?;
        let header = self.with_slot(slot, |at| at.header());
        self.put_into_trash(slot, header, &order).await
    }

    /// C2 and C3: the order by which what stands gives way to a copy.
    fn check_gives_way(
        &self,
        slot: u32,
        copy: &SlotHeader,
        instead_of: Option<TrashOrder>,
    ) -> Result<TrashOrder, EngineError> {
        let (state, stands) = self.with_slot(slot, |at| (at.state(), at.header()));
        let is_sound = state == ExtentState::Sealed && (stands.length, stands.digest) == (copy.length, copy.digest);
        let Some(order) = instead_of.filter(|_| !is_sound) else {
            return Err(EngineError::AlreadyExists { volume: copy.volume, state });
        };
        check_order(&order)?;
        self.check_names(slot, (order.slot, order.slot_generation))?;
        self.check_term(order.term)?;
        Ok(order)
    }

    fn find_role(&self, volume: VolumeId, role: Role) -> Result<u32, EngineError> {
        let found = self.slots.borrow().find_role(volume, role);
        found.ok_or(EngineError::UnknownVolume { disk: self.shared.id, volume })
    }

    /// Locks what is coming of a volume, else what there is.
    async fn lock_coming(&self, volume: VolumeId) -> Result<(u32, TaskLockGuard), EngineError> {
        self.lock_found(|| self.find_role(volume, Role::Coming).or_else(|_| self.find(volume))).await
    }

    async fn lock_copy(&self, volume: VolumeId) -> Result<(u32, TaskLockGuard, SlotHeader), EngineError> {
        let (slot, guard) = self.lock_coming(volume).await?;
        let header = self.with_slot(slot, |slot| slot.header());
        self.require_copying(slot, &header)?;
        Ok((slot, guard, header))
    }

    fn require_copying(&self, slot: u32, header: &SlotHeader) -> Result<(), EngineError> {
        if header.state == SlotState::Copying {
            return Ok(());
        }
        let state = self.with_slot(slot, |slot| slot.state());
        Err(EngineError::WrongState { volume: header.volume, state })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
