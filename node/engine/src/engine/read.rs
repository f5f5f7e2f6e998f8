//! Reads of any bytes below an extent's end.

use bytes::Bytes;
use holdfast_libs_types::{MAX_BATCH_BYTES, PAGE_BYTES, VolumeId};

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::{EngineError, ExtentState};
use crate::slot_header::SlotState;

const PAGE: u64 = PAGE_BYTES as u64;

/// Bytes, and the slot they came from (for the report, should they prove damaged).
pub(crate) struct ReadAnswer {
    pub(crate) bytes: Bytes,
    pub(crate) slot: u32,
}

impl Engine {
    /// As `read`, of what is not in the trash.
    pub(crate) async fn read_live(&self, volume: VolumeId, offset: u64, len: u32) -> Result<ReadAnswer, EngineError> {
        self.refuse_trash(volume)?;
        self.read(volume, offset, len).await
    }

    /// Reads `len` bytes at `offset` of the volume as they stand.
    pub(crate) async fn read(&self, volume: VolumeId, offset: u64, len: u32) -> Result<ReadAnswer, EngineError> {
        self.read_slot(volume, self.find(volume)?, offset, len).await
    }

    /// The same of what `slot` holds of the volume.
    pub(crate) async fn read_slot(
        &self,
        volume: VolumeId,
        slot: u32,
        offset: u64,
        len: u32,
    ) -> Result<ReadAnswer, EngineError> {
        self.shared.readable()?;
        if len as usize > MAX_BATCH_BYTES {
            return Err(EngineError::InvalidArgument(format!("a read may span {MAX_BATCH_BYTES} bytes, not {len}")));
        }
        let found = self.find_named(volume, slot)?;
        let slot_generation = self.with_slot(found, |at| at.slot_generation);
        self.check_names(found, (slot, slot_generation))?;
        let end = self.readable_end(slot)?;
        let wanted = u64::from(len);
        let stop = offset.checked_add(wanted).filter(|stop| *stop <= end).ok_or(EngineError::OutOfRange {
            offset,
            len: wanted,
            end,
        })?;
        if len == 0 {
            return Ok(ReadAnswer { bytes: Bytes::new(), slot });
        }
        let first_page = offset / PAGE * PAGE;
        let span = (stop.next_multiple_of(PAGE) - first_page) as usize;
        let buffer = self.shared.buffer(span)?;
        let pages = self
            .read_data(slot, first_page, span, buffer)
            .await
            .map_err(|error| self.unreadable(slot, volume, offset, error))?;
        // It may have been erased meanwhile, and its slot may be another extent's by now.
        if !self.holds_still(slot, volume, slot_generation) {
            return Err(EngineError::UnknownVolume { disk: self.shared.id, volume });
        }
        let skip = (offset - first_page) as usize;
        Ok(ReadAnswer { bytes: Bytes::from_owner(pages).slice(skip..skip + len as usize), slot })
    }

    /// Whether the same extent is in a slot as before.
    pub(super) fn holds_still(&self, slot: u32, volume: VolumeId, slot_generation: u32) -> bool {
        let now = self.with_slot(slot, |at| (at.volume, at.slot_generation, at.state == SlotState::Free));
        now == (volume, slot_generation, false)
    }

    /// Reads `len` bytes at a page of the disk, twice if need be: where much hangs on it, what passes is no damage.
    pub(super) async fn read_twice(&self, offset: u64, len: usize) -> std::io::Result<AlignedBuf> {
        match self.read_pages(offset, len, AlignedBuf::with_capacity(len)).await {
            Err(_) => self.read_pages(offset, len, AlignedBuf::with_capacity(len)).await,
            read => read,
        }
    }

    fn readable_end(&self, slot: u32) -> Result<u64, EngineError> {
        self.with_slot(slot, |slot| match (slot.state, slot.live.as_deref()) {
            (SlotState::Copying, _) => {
                Err(EngineError::WrongState { volume: slot.volume, state: ExtentState::Copying })
            }
            (SlotState::Trashed, _) if slot.header().has_length() => Ok(slot.length),
            (SlotState::Sealed, _) | (_, None) => Ok(slot.length),
            (_, Some(live)) => Ok(live.readable_end),
        })
    }
}
