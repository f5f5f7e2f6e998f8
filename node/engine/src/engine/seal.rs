//! Fences and seals: orders of the volume manager that end a writer, and then the volume.
//!
//! The epoch only rises. A seal is decided by what is read back from the disk, never by what memory believes.

use holdfast_libs_types::{PAGE_BYTES, VolumeId, WriteEpoch};
use sha2::{Digest, Sha256};

use super::Engine;
use super::scan::Stop;
use crate::error::EngineError;
use crate::footer::{Footer, FooterBuilder};
use crate::slot_header::{SlotHeader, SlotState};

const PAGE: u64 = PAGE_BYTES as u64;

impl Engine {
    /// Raises the epoch and ends appends; returns the tail.
    pub(crate) async fn fence(&self, volume: VolumeId, epoch: WriteEpoch, term: u64) -> Result<u64, EngineError> {
        self.shared.writable()?;
        let (slot, _guard) = self.lock_extent(volume).await?;
        let header = self.with_slot(slot, |slot| slot.header());
        check_order(&header, epoch, term)?;
        match header.state {
            SlotState::Sealed => return Err(EngineError::SealedOtherwise { volume, length: header.length }),
            SlotState::Copying | SlotState::Free | SlotState::Trashed => {
                let state = self.with_slot(slot, |slot| slot.state());
                return Err(EngineError::WrongState { volume, state });
            }
            SlotState::Open | SlotState::Fenced => {}
        }
        if header.state != SlotState::Fenced || header.epoch != epoch || header.term != term {
            let fenced = SlotHeader { state: SlotState::Fenced, epoch, term, ..header };
            self.commit_slot(slot, fenced).await?;
        }
        self.shared.hear_term(term);
        Ok(self.with_slot(slot, |slot| slot.live.as_ref().map_or(0, |live| live.tail)))
    }

    /// Ends the volume at `length`; returns its digest.
    pub(crate) async fn seal(
        &self,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
        term: u64,
    ) -> Result<[u8; 32], EngineError> {
        let (slot, _guard) = self.lock_extent(volume).await?;
        let (header, tail) =
            self.with_slot(slot, |slot| (slot.header(), slot.live.as_ref().map_or(0, |live| live.tail)));
        if header.state == SlotState::Sealed {
            check_term(&header, term)?;
            self.refuse_damaged(slot)?;
            // Sealed is for good, whatever epoch asks again.
            return if header.length == length {
                Ok(header.digest)
            } else {
                Err(EngineError::SealedOtherwise { volume, length: header.length })
            };
        }
        self.shared.writable()?;
        check_order(&header, epoch, term)?;
        if matches!(header.state, SlotState::Copying | SlotState::Trashed) {
            let state = self.with_slot(slot, |slot| slot.state());
            return Err(EngineError::WrongState { volume, state });
        }
        if length > tail {
            return Err(self.too_short(slot, volume, tail, length));
        }
        let (digest, footer) = self.verify_batches(slot, volume, length).await?;
        // Behind all that was ever written here: until the seal is durable, nothing is overwritten.
        let end = self.with_slot(slot, |slot| slot.live.as_ref().map_or(length, |live| live.readable_end)).max(length);
        let sealed = SlotHeader {
            state: SlotState::Sealed,
            epoch,
            term,
            length,
            digest,
            records: footer.row_count(),
            // Every byte that counts from now on was just read, and is right.
            damaged: false,
            ..header
        };
        let sealed = self.append_footer(slot, end, sealed, &footer).await?;
        self.commit_slot(slot, sealed).await?;
        self.shared.hear_term(term);
        self.end_writing(slot).await;
        self.with_slot(slot, |slot| slot.live = None);
        tracing::debug!(%volume, slot, length, "sealed");
        Ok(digest)
    }

    /// Refuses to vouch for a sealed extent in which damage was found.
    pub(super) fn refuse_damaged(&self, slot: u32) -> Result<(), EngineError> {
        let damage = self.with_slot(slot, |slot| {
            let note = slot.live.as_ref().filter(|live| live.damaged).map(|live| live.note.clone().unwrap_or_default());
            note.map(|note| (slot.volume, note))
        });
        damage.map_or(Ok(()), |(volume, note)| Err(self.damaged(slot, volume, 0, note)))
    }

    /// A damaged extent is short because of the damage; callers should be told so.
    fn too_short(&self, slot: u32, volume: VolumeId, tail: u64, length: u64) -> EngineError {
        let damage = self.with_slot(slot, |slot| {
            slot.live
                .as_ref()
                .filter(|live| live.damaged && live.readable_end >= length)
                .and_then(|live| live.note.clone())
        });
        match damage {
            Some(detail) => self.damaged(slot, volume, tail, detail),
            None => EngineError::TooShort { tail, length },
        }
    }

    /// Re-reads every batch of `[0, length)`; returns the SHA-256 of those bytes and their footer.
    async fn verify_batches(
        &self,
        slot: u32,
        volume: VolumeId,
        length: u64,
    ) -> Result<([u8; 32], Footer), EngineError> {
        if !length.is_multiple_of(PAGE) {
            return Err(EngineError::InvalidArgument(format!("a volume's length is whole pages, not {length}")));
        }
        let _alone = self.scan_lock.lock().await;
        let (mut sha, mut footer) = (Sha256::new(), FooterBuilder::new(volume));
        let mut see = |bytes: &[u8]| {
            sha.update(bytes);
            footer.update(bytes);
        };
        let scan = self.scan_batches(slot, length, Some(&mut see)).await;
        let detail = match scan.stop {
            Stop::Limit => match footer.finish() {
                footer @ Footer { rows: Some(_), .. } => return Ok((sha.finalize().into(), footer)),
                // Its batches validate, yet hold other records than they say: they were checked before they were
                // written, so memory or disk has changed them in a way that a CRC-32 cannot tell.
                Footer { rows: None, .. } => "a batch holds other records than its header says".to_owned(),
            },
            Stop::Spans { end } => return Err(EngineError::NotABoundary { length, start: scan.tail, end }),
            Stop::Blank => format!("nothing was written at {}", scan.tail),
            // It may be readable the next time; what memory knows of the extent still holds.
            Stop::Unreadable { detail } => return Err(self.damaged(slot, volume, scan.tail, detail)),
            Stop::Bad { detail, .. } => detail,
        };
        self.with_slot(slot, |slot| {
            if let Some(live) = slot.live.as_mut() {
                live.damaged = true;
                live.tail = scan.tail;
                live.no_appends = Some("it is damaged".to_owned());
                live.note = Some(detail.clone());
            }
        });
        Err(self.damaged(slot, volume, scan.tail, detail))
    }
}

/// Refuses what comes from an earlier leader than one that this extent has heard of.
fn check_term(header: &SlotHeader, term: u64) -> Result<(), EngineError> {
    if term < header.term {
        return Err(EngineError::StaleTerm { given: term, current: header.term });
    }
    Ok(())
}

/// Refuses what comes from an earlier leader or names an earlier epoch.
pub(super) fn check_order(header: &SlotHeader, epoch: WriteEpoch, term: u64) -> Result<(), EngineError> {
    check_term(header, term)?;
    if epoch < header.epoch {
        return Err(EngineError::Fenced { volume: header.volume, current: header.epoch });
    }
    Ok(())
}
