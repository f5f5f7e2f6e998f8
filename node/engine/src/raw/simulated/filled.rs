//! A disk that is full of sealed extents without anybody having written it: its pages are made up when they are read.

use holdfast_libs_sim::disk::PageSource;
use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES, VolumeId, WriteEpoch};

use crate::format::fresh_superblock;
use crate::geometry::{Geometry, SLOT_HEADER_BYTES};
use crate::slot_header::{SlotHeader, SlotState};
use crate::table::Facts;
use crate::table::checkpoint::{CheckpointHeader, FRESH_GENERATION, Pages};
use crate::table::entry::Entry;

const PAGE: u64 = PAGE_BYTES as u64;

/// What a sealed slot holds: all of its capacity.
fn entry(disk: DiskId, geometry: &Geometry, sealed: u32, slot: u32) -> Entry {
    if slot >= sealed {
        return Entry::blank();
    }
    let mut volume = [0; 16];
    volume[..4].copy_from_slice(&slot.to_be_bytes());
    volume[4..].copy_from_slice(&disk.0[..12]);
    let header = SlotHeader {
        state: SlotState::Sealed,
        records: 256,
        generation: 3,
        slot_generation: 1,
        footer_offset: (geometry.data_bytes / PAGE) as u32,
        volume: VolumeId(volume),
        epoch: WriteEpoch(2),
        append_epoch: WriteEpoch(1),
        term: 1,
        length: geometry.data_bytes,
        digest: [0x5a; 32],
        ..SlotHeader::blank()
    };
    Entry { header, page: 0, behind: false, lost: false }
}

/// The pages of a disk of `disk_bytes` whose first `sealed` slots are sealed and whose other ones were never used:
/// superblocks, extent table and slot headers. Their data reads as zeroes.
///
/// # Panics
/// When the disk is too small for one slot: the test's numbers are wrong then.
pub fn filled(disk_bytes: u64, cell: CellId, slot_bytes: u64, id: [u8; 16], sealed: u32) -> PageSource {
    let geometry = Geometry::plan(disk_bytes, slot_bytes).expect("the test chooses sizes that fit");
    let superblock = fresh_superblock(cell, geometry.clone(), id, 0, 512);
    let (disk, slots) = (superblock.disk, geometry.slots);
    let mut pages = Pages::new(disk, FRESH_GENERATION, slots);
    while !pages.is_done() {
        pages.encode_next(|slot| entry(disk, &geometry, sealed, slot));
    }
    let pages_crc = pages.crc();
    let header =
        CheckpointHeader { generation: FRESH_GENERATION, first_sequence: 1, slots, pages_crc, facts: Facts::default() };
    let copy = geometry.table_copy(FRESH_GENERATION);
    Box::new(move |page| {
        let at = page * PAGE;
        if at == geometry.superblock_a.offset || at == geometry.superblock_b.offset {
            return Some(superblock.encode());
        }
        if at == copy.offset {
            return Some(header.encode(disk));
        }
        if (copy.offset..copy.offset + copy.len).contains(&at) {
            let number = ((at - copy.offset) / PAGE - 1) as u32;
            return Pages::starting_at(disk, FRESH_GENERATION, slots, number)
                .map(|mut pages| pages.encode_next(|slot| entry(disk, &geometry, sealed, slot)));
        }
        let within = at.checked_sub(geometry.slot_area.offset)?;
        let slot = (within / slot_bytes) as u32;
        (slot < sealed && within % slot_bytes < SLOT_HEADER_BYTES)
            .then(|| entry(disk, &geometry, sealed, slot).header.encode(disk, slot))
    })
}
