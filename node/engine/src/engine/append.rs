//! Appends: one at a time per volume, durable before they are answered, never two different ones at one place.

use holdfast_libs_types::batch::CheckedBatch;
use holdfast_libs_types::{MAX_VOLUME_RECORDS, VolumeId, WriteEpoch};

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::slot_header::SlotState;

/// A batch whose checksums and whose place were checked, in the caller's task.
pub(crate) struct AppendBatch {
    volume: VolumeId,
    epoch: WriteEpoch,
    offset: u64,
    records: u32,
    bytes: AlignedBuf,
}

impl AppendBatch {
    /// Checks all that can be checked without knowing the volume's state.
    pub(crate) fn check(
        volume: VolumeId,
        epoch: WriteEpoch,
        offset: u64,
        bytes: AlignedBuf,
    ) -> Result<Self, EngineError> {
        let invalid = |detail: String| Err(EngineError::InvalidBatch { detail });
        let header = CheckedBatch::decode(&bytes, volume, offset)?.header;
        if header.epoch != epoch {
            return invalid(format!("it carries write epoch {}, not {epoch}", header.epoch));
        }
        if header.batch_len as usize != bytes.len() {
            return invalid(format!("it is {} bytes long, but {} were sent", header.batch_len, bytes.len()));
        }
        if header.durable_before > offset {
            return invalid(format!("durable before {} lies beyond its own offset {offset}", header.durable_before));
        }
        Ok(Self { volume, epoch, offset, records: header.record_count, bytes })
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

/// What an append turns out to be.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// At the tail: write it.
    Tail,
    /// Wholly below the tail: compare it.
    Repeat,
}

impl Engine {
    /// Appends, or acknowledges a repeat; returns the end of the batch.
    pub(crate) async fn append(&self, batch: AppendBatch) -> Result<u64, EngineError> {
        self.shared.writable()?;
        let (slot, _guard) = self.lock_extent(batch.volume).await?;
        let end = batch.end();
        if self.place(slot, &batch)? == Place::Repeat {
            self.compare(slot, &batch).await?;
            self.shared.counters.appended();
            return Ok(end);
        }
        // The disk's state may have changed while this append waited for its turn.
        self.shared.writable()?;
        let written = self.write_data("appending", slot, batch.offset, batch.bytes).await;
        self.with_slot(slot, |slot| {
            let Some(live) = slot.live.as_mut() else { return };
            match &written {
                Ok(_) => {
                    live.tail = end;
                    live.readable_end = end;
                    live.records += u64::from(batch.records);
                }
                Err(error) => live.no_appends = Some(format!("a write to it failed: {error}")),
            }
        });
        written?;
        self.shared.counters.appended();
        Ok(end)
    }

    fn place(&self, slot: u32, batch: &AppendBatch) -> Result<Place, EngineError> {
        let capacity = self.geometry().volume_capacity_bytes();
        self.with_slot(slot, |slot| {
            let volume = batch.volume;
            let fenced = EngineError::Fenced { volume, current: slot.epoch };
            let Some(live) = slot.live.as_deref() else { return Err(fenced) };
            match slot.state {
                SlotState::Open if slot.epoch == batch.epoch => {}
                SlotState::Copying | SlotState::Trashed => {
                    return Err(EngineError::WrongState { volume, state: slot.state() });
                }
                _ => return Err(fenced),
            }
            if batch.end() <= live.tail {
                return Ok(Place::Repeat);
            }
            if let Some(reason) = &live.no_appends {
                return Err(EngineError::NoAppends { volume, reason: reason.clone() });
            }
            if batch.offset != live.tail {
                return Err(EngineError::NotTail { tail: live.tail });
            }
            if batch.end() > capacity {
                let (tail, len) = (live.tail, batch.bytes.len());
                return Err(EngineError::VolumeFull {
                    detail: format!("{len} bytes do not fit between {tail} and {capacity}"),
                });
            }
            let records = live.records + u64::from(batch.records);
            if records > u64::from(MAX_VOLUME_RECORDS) {
                return Err(EngineError::VolumeFull {
                    detail: format!("it would hold {records} records, more than {MAX_VOLUME_RECORDS}"),
                });
            }
            Ok(Place::Tail)
        })
    }

    /// A repeat is right only when the very same bytes stand on the disk.
    async fn compare(&self, slot: u32, batch: &AppendBatch) -> Result<(), EngineError> {
        let len = batch.bytes.len();
        let buffer = self.shared.buffer(len)?;
        let there = self
            .read_data(slot, batch.offset, len, buffer)
            .await
            .map_err(|error| self.unreadable(slot, batch.volume, batch.offset, error))?;
        if *there == *batch.bytes {
            return Ok(());
        }
        // Either the writer sent other bytes, or these went bad: their own checksums tell.
        match CheckedBatch::decode(&there, batch.volume, batch.offset) {
            Err(error) if self.starts_a_batch(slot, batch.offset).await => {
                Err(self.damaged(slot, batch.volume, batch.offset, error.to_string()))
            }
            _ => Err(EngineError::ConflictingRepeat { volume: batch.volume, offset: batch.offset }),
        }
    }

    /// Whether the durable batch that covers `offset` starts right there, as far as headers can be read.
    async fn starts_a_batch(&self, slot: u32, offset: u64) -> bool {
        let _alone = self.scan_lock.lock().await;
        let scan = self.scan_batches(slot, offset, None).await;
        scan.tail == offset
    }
}
