//! The footers of sealed extents on the disk.
//!
//! Invariants:
//! - A footer is durable before its extent is called sealed.
//! - It stands behind everything that was ever written to the extent, so that a seal that does not come to its end has
//!   destroyed nothing.
//! - What is taken from a footer was checked against its trailer, and the trailer against the extent.

use holdfast_libs_types::VolumeId;
use sha2::{Digest, Sha256};

use super::Engine;
use super::scan::MANY_READS;
use crate::buffer::AlignedBuf;
use crate::error::{EngineError, ExtentState};
use crate::footer::{Footer, FooterBuilder, FooterError, FooterOf, FooterShape, RecordRow, Trailer};
use crate::slot_header::{SlotHeader, SlotState};

const PAGE: u64 = holdfast_libs_types::PAGE_BYTES as u64;

/// A copy, or an extent in the trash, that is being read back: its SHA-256 and its footer in the making.
pub(super) struct ReadBack {
    /// Bytes read.
    pub(super) at: u64,
    sha: Sha256,
    footer: FooterBuilder,
}

impl ReadBack {
    pub(super) fn new(volume: VolumeId) -> Self {
        Self { at: 0, sha: Sha256::new(), footer: FooterBuilder::new(volume) }
    }

    /// The digest of what was read, and its footer.
    pub(super) fn end(self) -> ([u8; 32], FooterBuilder) {
        (self.sha.finalize().into(), self.footer)
    }
}

impl Engine {
    /// Reads on up to `end`.
    pub(super) async fn read_on(&self, slot: u32, back: &mut ReadBack, end: u64) -> std::io::Result<()> {
        let begin = back.at;
        let ReadBack { at, sha, footer } = back;
        let see = |bytes: &[u8]| {
            sha.update(bytes);
            footer.update(bytes);
            *at += bytes.len() as u64;
        };
        self.read_range(slot, begin..end, MANY_READS, see).await
    }

    /// Writes the footer of the extent that `sealed` describes behind all that was ever written to it, which reaches to
    /// `end` at least; returns `sealed` with the footer's place.
    pub(super) async fn append_footer(
        &self,
        slot: u32,
        end: u64,
        sealed: SlotHeader,
        footer: &Footer,
    ) -> Result<SlotHeader, EngineError> {
        let encode = |at: u64| footer.encode(&FooterOf { footer_offset: at, ..self.footer_of(slot, &sealed) });
        let at = self.append_at_end(slot, sealed.volume, end, &encode).await?;
        Ok(SlotHeader { footer_offset: (at / PAGE) as u32, ..sealed })
    }

    /// Writes the footer of a sealed extent again, at its place.
    pub(super) async fn write_footer(
        &self,
        slot: u32,
        sealed: &SlotHeader,
        footer: &Footer,
    ) -> Result<(), EngineError> {
        let of = self.footer_of(slot, sealed);
        let bytes = footer.encode(&of);
        self.write_data("writing a footer", slot, of.footer_offset, AlignedBuf::copy_of(&bytes)).await
    }

    /// Reads `[0, length)` once; its SHA-256, and its footer in the making.
    pub(super) async fn build_footer(
        &self,
        slot: u32,
        volume: VolumeId,
        length: u64,
    ) -> std::io::Result<([u8; 32], FooterBuilder)> {
        let (mut sha, mut footer) = (Sha256::new(), FooterBuilder::new(volume));
        let see = |bytes: &[u8]| {
            sha.update(bytes);
            footer.update(bytes);
        };
        self.read_through(slot, length, see).await?;
        Ok((sha.finalize().into(), footer))
    }

    fn footer_of<'a>(&self, slot: u32, header: &'a SlotHeader) -> FooterOf<'a> {
        FooterOf {
            disk: self.shared.id,
            slot,
            slot_generation: header.slot_generation,
            volume: header.volume,
            append_epoch: header.append_epoch,
            length: header.length,
            digest: &header.digest,
            footer_offset: u64::from(header.footer_offset) * PAGE,
        }
    }

    /// The trailer of a sealed extent, checked.
    pub(super) async fn read_trailer(&self, slot: u32, header: &SlotHeader) -> Result<Trailer, EngineError> {
        let of = self.footer_of(slot, header);
        let shape = FooterShape::of(header.length, header.records);
        let page = self.read_footer_part(slot, &of, shape.checksums + shape.rows, PAGE).await?;
        Trailer::decode(&page, &of).map_err(|error| self.bad_footer(slot, &of, &error))
    }

    /// The CRC-32 of every 64 KiB of a sealed extent.
    pub(super) async fn read_checksums(&self, slot: u32, header: &SlotHeader) -> Result<Vec<u32>, EngineError> {
        let trailer = self.read_trailer(slot, header).await?;
        let of = self.footer_of(slot, header);
        let shape = FooterShape::of(header.length, header.records);
        let part = self.read_footer_part(slot, &of, 0, shape.checksums).await?;
        trailer.checksums(&part).map_err(|error| self.bad_footer(slot, &of, &error))
    }

    /// The record table of a sealed extent.
    pub(super) async fn read_rows(&self, slot: u32, header: &SlotHeader) -> Result<Vec<RecordRow>, EngineError> {
        let trailer = self.read_trailer(slot, header).await?;
        let of = self.footer_of(slot, header);
        let shape = FooterShape::of(header.length, header.records);
        let part = self.read_footer_part(slot, &of, shape.checksums, shape.rows).await?;
        trailer.rows(&part).map_err(|error| self.bad_footer(slot, &of, &error))
    }

    async fn read_footer_part(
        &self,
        slot: u32,
        of: &FooterOf<'_>,
        skip: u64,
        len: u64,
    ) -> Result<AlignedBuf, EngineError> {
        if len == 0 {
            return Ok(AlignedBuf::with_capacity(0));
        }
        let buffer = AlignedBuf::with_capacity(len as usize);
        self.read_data(slot, of.footer_offset + skip, len as usize, buffer).await.map_err(|error| {
            self.damaged(slot, of.volume, of.footer_offset + skip, format!("its footer cannot be read: {error}"))
        })
    }

    fn bad_footer(&self, slot: u32, of: &FooterOf<'_>, error: &FooterError) -> EngineError {
        self.damaged(slot, of.volume, of.footer_offset, format!("footer: {error}"))
    }

    /// See `Disk::records`.
    pub(crate) async fn records(&self, volume: VolumeId) -> Result<Vec<RecordRow>, EngineError> {
        self.shared.readable()?;
        let slot = self.find(volume)?;
        let (header, state) = self.with_slot(slot, |slot| (slot.header(), slot.state()));
        if header.state != SlotState::Sealed {
            return Err(EngineError::WrongState { volume, state });
        }
        // Up to 3 MiB: one at a time, as other long reads.
        let _alone = self.scan_lock.lock().await;
        let rows = self.read_rows(slot, &header).await?;
        // It may have been moved to trash and erased while this waited.
        match self.holds_still(slot, volume, header.slot_generation) {
            true => Ok(rows),
            false => Err(EngineError::WrongState { volume, state: ExtentState::Copying }),
        }
    }
}
