//! Writing an empty disk: areas zeroed, then the first checkpoint of the extent table, superblocks last, so that a
//! disk half formatted is none. A blank table is never taken for that of an empty disk.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};

use crate::buffer::AlignedBuf;
use crate::candidate::{Candidate, Consent};
use crate::error::FormatError;
use crate::geometry::{Geometry, MAX_SLOT_BYTES, MAX_SLOTS, MIN_SLOT_BYTES, PlanError};
use crate::raw::file::{DiskFile, DiskZones, FileError};
use crate::raw::zones::shape;
use crate::status::FormatOptions;
use crate::superblock::Superblock;
use crate::table::checkpoint::{self, FRESH_GENERATION};

/// Bytes zeroed by one write.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;

/// Media as the superblock names it.
const MEDIA_UNKNOWN: u8 = 0;
const MEDIA_FILE: u8 = 1;

/// See [`crate::format`].
pub(crate) fn format_path(path: &Path, options: &FormatOptions) -> Result<DiskId, FormatError> {
    Candidate::open(path, options.clone())?.format(Consent::OnlyIfBlank).map(|formatted| formatted.disk)
}

/// Whether disks can have slots of this size, bytes.
///
/// # Errors
/// `SlotSize`, with what is allowed.
pub fn check_slot_bytes(slot_bytes: u64) -> Result<(), FormatError> {
    crate::geometry::check_slot_bytes(slot_bytes).map_err(|_| FormatError::SlotSize {
        slot_bytes,
        min: MIN_SLOT_BYTES,
        max: MAX_SLOT_BYTES,
    })
}

/// Opens and locks `path`; makes the file when a size is given.
pub(crate) fn open_for_format(path: &Path, options: &FormatOptions) -> Result<DiskFile, FormatError> {
    if let Some(size) = options.size_bytes {
        // Before a file is made: a wrong number must leave nothing behind.
        plan(path, size, options.slot_bytes)?;
    }
    DiskFile::open(path, options.size_bytes.is_some()).map_err(|error| match error {
        FileError::InUse => FormatError::InUse { path: path.display().to_string() },
        FileError::Io { what, source } => FormatError::io(path, what, source),
    })
}

/// Writes an empty disk over whatever stands there.
pub(crate) fn write_disk(path: &Path, file: &DiskFile, options: &FormatOptions) -> Result<Superblock, FormatError> {
    let io = |what| move |source| FormatError::io(path, what, source);
    let before = file.size().map_err(io("reading its size"))?;
    let size = before.max(options.size_bytes.filter(|_| !file.is_block_device).unwrap_or(0));
    let zones = file.zones().map_err(io("asking for its zones"))?;
    let geometry = plan_on(path, zones.as_ref(), size, options.slot_bytes)?;
    if size > before {
        file.grow(size).map_err(io("setting its size"))?;
    }
    if before > 0 {
        zero_areas(file, &geometry).map_err(io("zeroing its areas"))?;
    }
    if let Some(zones) = &zones {
        file.reset_zones(&zones.zones).map_err(io("resetting its zones"))?;
    }
    let media = if file.is_block_device { MEDIA_UNKNOWN } else { MEDIA_FILE };
    let superblock = fresh_superblock(options.cell, geometry, rand::random(), media, file.logical_block_bytes());
    // The log must not run out of space when a file's slots have taken it all.
    file.allocate(0, superblock.geometry.slot_area.offset).map_err(io("taking the space of its areas"))?;
    write_table(file, &superblock).map_err(io("writing the extent table"))?;
    let page = AlignedBuf::copy_of(&superblock.encode()[..]);
    for area in [superblock.geometry.superblock_b, superblock.geometry.superblock_a] {
        file.write_pages(&page, area.offset).map_err(io("writing a superblock"))?;
    }
    file.sync().map_err(io("making it durable"))?;
    sync_parent(path).map_err(io("making its name durable"))?;
    Ok(superblock)
}

/// The superblock of a disk that was never registered.
pub(crate) fn fresh_superblock(
    cell: CellId,
    geometry: Geometry,
    id: [u8; 16],
    media: u8,
    logical_block_bytes: u32,
) -> Superblock {
    Superblock {
        generation: 1,
        disk: DiskId(id),
        cell,
        incarnation: 0,
        nonce: [0; 16],
        previous_nonce: [0; 16],
        proposed: None,
        media,
        logical_block_bytes,
        geometry,
        // A clock before 1970 says nothing; the field is for people.
        formatted_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

/// Lays out a device or file that is there, by its zones if it has some.
pub(crate) fn plan_on(
    path: &Path,
    zones: Option<&DiskZones>,
    have: u64,
    slot_bytes: u64,
) -> Result<Geometry, FormatError> {
    let Some(DiskZones { limits, zones }) = zones else { return plan(path, have, slot_bytes) };
    let shape =
        shape(zones, *limits).map_err(|why| FormatError::io(path, "laying out its zones", io::Error::other(why)))?;
    Geometry::plan_zoned(shape, slot_bytes).map_err(|error| refusal(path, have, slot_bytes, error))
}

pub(crate) fn plan(path: &Path, have: u64, slot_bytes: u64) -> Result<Geometry, FormatError> {
    Geometry::plan(have, slot_bytes).map_err(|error| refusal(path, have, slot_bytes, error))
}

fn refusal(path: &Path, have: u64, slot_bytes: u64, error: PlanError) -> FormatError {
    let path = || path.display().to_string();
    match error {
        PlanError::SlotSize => FormatError::SlotSize { slot_bytes, min: MIN_SLOT_BYTES, max: MAX_SLOT_BYTES },
        PlanError::TooSmall { need } => FormatError::TooSmall { path: path(), have, need, slot_bytes },
        PlanError::TooManySlots { slots } => FormatError::TooManySlots { path: path(), slots, max: MAX_SLOTS },
        PlanError::Conventional { have, need } => FormatError::NoConventional { path: path(), have, need },
    }
}

/// Zeroes everything that is read before it is written: all areas but the slots' data.
fn zero_areas(file: &DiskFile, geometry: &Geometry) -> io::Result<()> {
    let fixed =
        [geometry.superblock_a, geometry.superblock_b, geometry.table_a, geometry.table_b, geometry.log, geometry.keys];
    for area in fixed.into_iter().chain(geometry.header_areas()) {
        let mut done = 0;
        while done < area.len {
            let len = ZERO_CHUNK_BYTES.min(area.len - done);
            file.write_pages(&AlignedBuf::copy_of(&vec![0; len as usize]), area.offset + done)?;
            done += len;
        }
    }
    Ok(())
}

/// The first checkpoint, in chunks.
fn write_table(file: &DiskFile, superblock: &Superblock) -> io::Result<()> {
    let geometry = &superblock.geometry;
    let copy = geometry.table_copy(FRESH_GENERATION).offset;
    let mut chunk: Vec<u8> = Vec::new();
    let mut start = PAGE_BYTES as u64;
    for (at, page) in checkpoint::fresh(superblock.disk, geometry.slots) {
        let is_header = at == 0;
        if chunk.len() as u64 == ZERO_CHUNK_BYTES || (is_header && !chunk.is_empty()) {
            file.write_pages(&AlignedBuf::copy_of(&chunk), copy + start)?;
            start += chunk.len() as u64;
            chunk.clear();
        }
        if is_header {
            file.write_pages(&AlignedBuf::copy_of(&page[..]), copy)?;
        } else {
            chunk.extend_from_slice(&page[..]);
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent)?.sync_all()
}
