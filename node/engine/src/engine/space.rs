//! The one place that knows where the bytes of a slot stand on the disk, and how its space is taken, written and given
//! up. On a plain disk a slot is a run of bytes that can be written anywhere; on a zoned one it is whole disk zones
//! (`zones.rs`). Nobody else asks which of the two it is.

use holdfast_libs_types::{PAGE_BYTES, VolumeId};

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::raw::Work;

const PAGE: u64 = PAGE_BYTES as u64;

/// How far a slot was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// The end of what may stand there, bytes. On a plain disk nobody knows: the end of the slot's data.
    pub(super) end: u64,
    /// Bytes of a page behind the last whole one that were written.
    pub(super) torn: u64,
}

impl Engine {
    /// Takes the space of a free slot: later writes to it cannot run out of it, and it holds nothing.
    pub(super) async fn take_space(&self, slot: u32) -> Result<(), EngineError> {
        match &self.geometry().zones {
            Some(zones) => self.take_zones(zones, slot).await,
            None => self.allocate_slot(slot).await,
        }
    }

    async fn allocate_slot(&self, slot: u32) -> Result<(), EngineError> {
        let geometry = self.geometry();
        let (offset, len) = (geometry.slot_offset(slot), geometry.slot_bytes);
        match self.io.start(offset, Work::Allocate { len }).await {
            (Ok(_), _) => Ok(()),
            (Err(source), _) => Err(match source.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => EngineError::NoSpace {
                    disk: self.shared.id,
                    detail: format!("the file system under {} is full", self.shared.path.display()),
                },
                _ => self.write_failed(source, "taking a slot's space", 1),
            }),
        }
    }

    /// Gives the space of a slot back to the file system, or tells the device that it is not needed. Called at once,
    /// without awaiting anything, when the slot became free; nobody can take it until this is done.
    pub(super) async fn give_up_space(&self, slot: u32) {
        if !self.free.borrow_mut().remove(&slot) {
            return;
        }
        self.count_free();
        let given_up = match &self.geometry().zones {
            Some(zones) => self.empty_zones(zones, slot).await,
            None => {
                let data = self.geometry().data_run(slot, 0);
                self.io.start(data.at, Work::Deallocate { len: data.len }).await.0.map(drop).map_err(Into::into)
            }
        };
        if let Err(error) = given_up {
            // The slot is free all the same; its space is taken again with it.
            let error: Box<dyn std::error::Error> = error;
            tracing::warn!(disk = %self.shared.id, slot, %error, "the space of a free slot could not be given back");
        }
        self.offer(slot);
    }

    /// Begins the data of a copy anew: what was written of it before is void.
    pub(super) async fn restart_data(&self, slot: u32) -> Result<(), EngineError> {
        match &self.geometry().zones {
            Some(zones) => self.reset_zones(zones, slot).await,
            None => Ok(()),
        }
    }

    /// Nothing more will be written to a sealed slot.
    pub(super) async fn end_writing(&self, slot: u32) {
        if let Some(zones) = &self.geometry().zones {
            self.finish_zones(zones, slot).await;
        }
    }

    /// Writes `buffer` at `offset` of a slot's data, durably. After an error any part of it may stand there.
    pub(super) async fn write_data(
        &self,
        what: &'static str,
        slot: u32,
        offset: u64,
        buffer: AlignedBuf,
    ) -> Result<(), EngineError> {
        match &self.geometry().zones {
            Some(_) => self.write_in_sequence(what, slot, offset, buffer).await,
            None => self.write(what, self.geometry().data_run(slot, offset).at, buffer).await.map(drop),
        }
    }

    /// Reads `len` bytes at `offset` of a slot's data, whole pages, into `buffer`.
    pub(super) async fn read_data(
        &self,
        slot: u32,
        offset: u64,
        len: usize,
        mut buffer: AlignedBuf,
    ) -> std::io::Result<AlignedBuf> {
        let run = self.geometry().data_run(slot, offset);
        if len as u64 <= run.len {
            return self.read_pages(run.at, len, buffer).await;
        }
        buffer.clear();
        while buffer.len() < len {
            let run = self.geometry().data_run(slot, offset + buffer.len() as u64);
            let take = run.len.min((len - buffer.len()) as u64) as usize;
            if take == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the slot ends before that"));
            }
            let part = self.read_pages(run.at, take, AlignedBuf::with_capacity(take)).await?;
            buffer.extend_from_slice(&part).map_err(std::io::Error::other)?;
        }
        Ok(buffer)
    }

    /// How far batches can stand in a slot.
    pub(super) async fn written(&self, slot: u32) -> std::io::Result<Written> {
        let capacity = self.geometry().volume_capacity_bytes();
        match &self.geometry().zones {
            Some(zones) => {
                let written = self.write_pointer(zones, slot).await?.min(capacity);
                Ok(Written { end: written / PAGE * PAGE, torn: written % PAGE })
            }
            None => Ok(Written { end: capacity, torn: 0 }),
        }
    }

    /// Writes what `encode` makes for a place behind all that was ever written to a slot, which reaches to `least` at
    /// least, in whole pages; returns that place.
    pub(super) async fn append_at_end(
        &self,
        slot: u32,
        volume: VolumeId,
        least: u64,
        encode: &dyn Fn(u64) -> Vec<u8>,
    ) -> Result<u64, EngineError> {
        let (at, stands) = match &self.geometry().zones {
            Some(zones) => self.place_at_pointer(zones, (slot, volume), least, encode).await?,
            None => (least, 0),
        };
        let rest = AlignedBuf::copy_of(&encode(at)[stands..]);
        self.write_data("writing a footer", slot, at + stands as u64, rest).await?;
        Ok(at)
    }

    /// Whether a footer that was damaged can be written again at its place.
    pub(super) fn can_rewrite_data(&self) -> bool {
        self.geometry().zones.is_none()
    }

    /// After the table is known: what the disk itself tells of its slots.
    pub(super) async fn look_at_space(&self) -> Result<(), EngineError> {
        match &self.geometry().zones {
            Some(zones) => self.look_at_zones(zones).await,
            None => Ok(()),
        }
    }
}
