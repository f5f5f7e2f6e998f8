//! The parsers of what stands on a disk, and of what its driver answers, for `tests/fuzz`. No part of the API of this
//! crate.

mod table;

use holdfast_libs_signatures::Edges;
use holdfast_libs_types::{BlockHash, CellId, DiskId, PAGE_BYTES, VolumeId, WriteEpoch};

use crate::engine::keys;
use crate::footer::{Footer, FooterOf, FooterShape, RecordRow, Trailer};
use crate::format::fresh_superblock;
use crate::geometry::Geometry;
use crate::geometry::zoned::ZoneShape;
use crate::page::PAGE_CRC_AT;
use crate::raw::zones::{self, Condition, Zone};
use crate::slot_header::{SlotContents, SlotHeader, SlotState};
use crate::superblock::Superblock;

/// One parser.
#[derive(Debug, Clone, Copy)]
pub struct Parser {
    /// What it reads.
    pub name: &'static str,
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums right again.
    pub repair: fn(&mut [u8]),
    /// Parses; asserts what holds of every value that was parsed.
    pub run: fn(&[u8]) -> Result<(), String>,
}

/// All of them.
pub const PARSERS: [Parser; 9] = [
    Parser { name: "superblock", seeds: superblocks, repair: repair_pages, run: superblock },
    Parser { name: "slot-header", seeds: slot_headers, repair: repair_pages, run: slot_header },
    Parser { name: "footer", seeds: footers, repair: repair_footer, run: footer },
    Parser { name: "checkpoint", seeds: table::checkpoints, repair: table::repair_checkpoint, run: table::checkpoint },
    Parser { name: "log-block", seeds: table::log_blocks, repair: repair_pages, run: table::log_block },
    Parser { name: "table", seeds: table::tables, repair: table::repair_table, run: table::table },
    Parser { name: "key-area", seeds: key_areas, repair: repair_keys, run: key_area },
    Parser { name: "signatures", seeds: foreign_disks, repair: |_| {}, run: signatures },
    Parser { name: "zone-report", seeds: zone_reports, repair: |_| {}, run: zone_report },
];

const DISK: DiskId = DiskId([0xd1; 16]);
const SLOT: u32 = 3;
const PAGE: u64 = PAGE_BYTES as u64;

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The checksum at the end of each whole page.
pub fn repair_pages(bytes: &mut [u8]) {
    for page in bytes.chunks_exact_mut(PAGE_BYTES) {
        let crc = crc32fast::hash(&page[..PAGE_CRC_AT]);
        put_u32(page, PAGE_CRC_AT, crc);
    }
}

fn superblocks() -> Vec<Vec<u8>> {
    let plans = [(8 << 30, 64 << 20), (20_000_000_000_000, 1 << 30), (64 << 20, 1 << 20)];
    let shape =
        ZoneShape { zone_bytes: 256 << 20, capacity_bytes: 252 << 20, conventional: 2, sequential: 80, limit: 128 };
    let zoned = Geometry::plan_zoned(shape, 1 << 30).ok();
    let plain = plans.into_iter().filter_map(|(disk, slot)| Geometry::plan(disk, slot).ok());
    let blocks = plain.chain(zoned).map(|geometry| {
        let fresh = fresh_superblock(CellId([0xce; 16]), geometry, DISK.0, 1, 512);
        Superblock { proposed: Some((4, [7; 16])), ..fresh }.encode().to_vec()
    });
    blocks.collect()
}

fn superblock(bytes: &[u8]) -> Result<(), String> {
    let found = Superblock::decode(bytes).map_err(|error| error.to_string())?;
    let again = Superblock::decode(&found.encode()[..]);
    assert_eq!(again.as_ref(), Ok(&found), "what was read encodes to the same");
    // Every place that a believed geometry names lies on the disk.
    let geometry = &found.geometry;
    for slot in [0, geometry.slots / 2, geometry.slots - 1] {
        assert!(geometry.header_offset(slot, 1) + PAGE <= geometry.disk_bytes);
        let last = geometry.data_run(slot, geometry.room_bytes() - 1);
        assert!(last.len == 1 && last.at < geometry.slot_offset(slot) + geometry.slot_stride());
        assert!(geometry.slot_offset(slot) + geometry.slot_stride() <= geometry.disk_bytes);
    }
    let _ = (geometry.volume_capacity_bytes(), found.identity());
    Ok(())
}

fn sample_header() -> SlotHeader {
    SlotHeader {
        state: SlotState::Sealed,
        generation: 7,
        records: 12,
        footer_offset: 9,
        volume: VolumeId([2; 16]),
        epoch: WriteEpoch(5),
        append_epoch: WriteEpoch(4),
        term: 6,
        length: 36_864,
        digest: [9; 32],
        ..SlotHeader::freed(2)
    }
}

fn slot_headers() -> Vec<Vec<u8>> {
    let [sealed, blank] = [sample_header(), SlotHeader::blank()].map(|header| header.encode(DISK, SLOT));
    let trashed = SlotHeader { state: SlotState::Trashed, state_before: SlotState::Sealed, ..sample_header() };
    let trashed = SlotHeader { trashed_at: 99, order: [8; 16], generation: 8, ..trashed }.encode(DISK, SLOT);
    let states = [SlotState::Free, SlotState::Copying, SlotState::Open, SlotState::Fenced, SlotState::Sealed];
    let others = states.map(|state| {
        let trashed = SlotHeader { state: SlotState::Trashed, state_before: state, ..sample_header() };
        [SlotHeader { state, ..sample_header() }, trashed].map(|header| header.encode(DISK, SLOT).to_vec()).concat()
    });
    let mut seeds = vec![
        [&sealed[..], &trashed[..]].concat(),
        [&blank[..], &sealed[..]].concat(),
        [&sealed[..], &[0; PAGE_BYTES]].concat(),
    ];
    seeds.extend(others);
    seeds
}

/// Both pages of a slot.
fn slot_header(bytes: &[u8]) -> Result<(), String> {
    let (a, b) = bytes.split_at(bytes.len().min(PAGE_BYTES));
    let pages = [a, b].map(|page| SlotHeader::decode(page, DISK, SLOT));
    for header in pages.iter().flatten() {
        let again = SlotHeader::decode(&header.encode(DISK, SLOT)[..], DISK, SLOT);
        assert_eq!(again.as_ref(), Ok(header), "what was read encodes to the same");
        let _ = header.has_length();
    }
    let [a, b] = pages;
    match SlotContents::of(a, b) {
        SlotContents::Known { other: None, .. } => Ok(()),
        SlotContents::Known { other: Some(other), .. } => Err(format!("one page: {other}")),
        SlotContents::Lost { a, b } => Err(format!("{a}, {b}")),
    }
}

const DIGEST: [u8; 32] = [0x5a; 32];

fn footer_of(length: u64) -> FooterOf<'static> {
    FooterOf {
        disk: DISK,
        slot: SLOT,
        slot_generation: 2,
        volume: VolumeId([0x22; 16]),
        append_epoch: WriteEpoch(5),
        length,
        digest: &DIGEST,
        footer_offset: length,
    }
}

fn footers() -> Vec<Vec<u8>> {
    let row = |n: u8| RecordRow { hash: BlockHash([n; 32]), offset: 64 + 1000 * u64::from(n), length: 1000, flags: 1 };
    let checksums = |length: u64| (0..length.div_ceil(64 << 10)).map(|n| n as u32).collect();
    let with = |length, rows| Footer { checksums: checksums(length), rows }.encode(&footer_of(length));
    vec![
        with(73_728, Some((0..2).map(row).collect())),
        with(20 << 20, Some((0..200).map(row).collect())),
        with(73_728, None),
    ]
}

/// The length is the extent table's and not the footer's own; here it comes from the trailer, so that every length is
/// tried.
fn footer_parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.len().checked_sub(PAGE_BYTES)?)
}

fn repair_footer(bytes: &mut [u8]) {
    let Some((parts, trailer)) = footer_parts(bytes) else { return };
    let (length, rows) = (u64_at(trailer, 56), u64_at(trailer, 108) as u32);
    let shape = FooterShape::of(length, rows);
    let split = usize::try_from(shape.checksums).unwrap_or(usize::MAX).min(parts.len());
    let crcs = [&parts[..split], &parts[split..]].map(crc32fast::hash);
    let at = parts.len();
    put_u32(&mut bytes[at..], 104, length.div_ceil(64 << 10) as u32);
    put_u32(&mut bytes[at..], 112, crcs[0]);
    put_u32(&mut bytes[at..], 116, crcs[1]);
    repair_last_page(bytes);
}

fn repair_last_page(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(PAGE_BYTES) {
        let crc = crc32fast::hash(&bytes[at..at + PAGE_CRC_AT]);
        put_u32(&mut bytes[at..], PAGE_CRC_AT, crc);
    }
}

fn footer(bytes: &[u8]) -> Result<(), String> {
    let (parts, page) = footer_parts(bytes).ok_or("short")?;
    let of = FooterOf { footer_offset: u64_at(page, 96), ..footer_of(u64_at(page, 56)) };
    let trailer = Trailer::decode(page, &of).map_err(|error| error.to_string())?;
    let shape = FooterShape::of(trailer.length, trailer.rows);
    // As the engine does: it reads just these many bytes, after it has checked that they lie in the slot.
    let split = usize::try_from(shape.checksums).map_err(|_| "long".to_owned())?;
    let (checksums, rows) = parts.split_at_checked(split).ok_or("parts are short")?;
    let checksums = trailer.checksums(checksums).map_err(|error| error.to_string())?;
    let rows = trailer.rows(rows).map_err(|error| error.to_string())?;
    assert_eq!(checksums.len() as u64, trailer.length.div_ceil(64 << 10));
    assert_eq!(rows.len(), trailer.rows as usize);
    Ok(())
}

const MOST_KEYS: u64 = (2 << 20) - PAGE;

fn key_areas() -> Vec<Vec<u8>> {
    [0usize, 100, 5000].map(|len| keys::encode(&DISK.0, 3, &vec![7; len])).to_vec()
}

fn repair_keys(bytes: &mut [u8]) {
    let content = bytes.get(PAGE_BYTES..).unwrap_or_default();
    let len = usize::try_from(u64_at(bytes, 32)).unwrap_or(usize::MAX).min(content.len());
    let crc = crc32fast::hash(&content[..len]);
    put_u32(bytes, 40, crc);
    if let Some(page) = bytes.get_mut(..PAGE_BYTES) {
        repair_last_page(page);
    }
}

fn key_area(bytes: &[u8]) -> Result<(), String> {
    keys::decode(bytes, &DISK.0, MOST_KEYS).map(|content| assert!(content.len() <= bytes.len()))
}

fn foreign_disks() -> Vec<Vec<u8>> {
    let mut disk = vec![0; 160 << 10];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[450] = 0x83;
    disk[458] = 1;
    disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
    vec![disk, vec![0; 4096]]
}

/// The first bytes say how much is head, how much is tail, and how large the disk is.
fn signatures(bytes: &[u8]) -> Result<(), String> {
    let between = u64_at(bytes, 0);
    let head = bytes.len() - (between as usize % (bytes.len() + 1));
    let (head, tail) = bytes.split_at(head);
    let size = (bytes.len() as u64).saturating_add(between >> 8);
    let edges = Edges { head, tail, size };
    let data = edges.first_data();
    match edges.signatures().first() {
        Some(found) => Err(found.name.to_owned()),
        None if data.is_some() => Err("data".to_owned()),
        None => Ok(()),
    }
}

fn zone_reports() -> Vec<Vec<u8>> {
    const LEN: u64 = 256 << 20;
    let conditions = [
        Condition::Conventional,
        Condition::Empty,
        Condition::Partial,
        Condition::Full,
        Condition::ReadOnly,
        Condition::Offline,
    ];
    let zones = conditions.into_iter().enumerate().map(|(n, condition)| {
        let written = if condition == Condition::Partial { 1 << 20 } else { 0 };
        Zone { start: n as u64 * LEN, len: LEN, capacity: 252 << 20, written, condition }
    });
    let all: Vec<Zone> = zones.collect();
    vec![zones::encode_report(&all), zones::encode_report(&all[..1]), zones::encode_report(&[])]
}

fn zone_report(bytes: &[u8]) -> Result<(), String> {
    let zones = zones::decode_report(bytes).map_err(|error| error.to_string())?;
    assert!(zones::report_bytes(zones.len()) <= bytes.len());
    for zone in &zones {
        let end = zone.start.checked_add(zone.len);
        assert!(end.is_some() && zone.capacity <= zone.len && zone.written <= zone.capacity, "{zone:?}");
    }
    Ok(())
}
