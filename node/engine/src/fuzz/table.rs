//! The extent table: checkpoints, blocks of its log, and what a mount makes of all that stands there.

use std::ops::Range;

use holdfast_libs_types::PAGE_BYTES;

use super::{DISK, put_u32, repair_last_page, repair_pages, sample_header, u64_at};
use crate::geometry::{Geometry, table_pages};
use crate::slot_header::{SlotHeader, SlotHeaderError, SlotState};
use crate::table::checkpoint::{CheckpointHeader, Pages, generation_of_page};
use crate::table::entry::Entry;
use crate::table::log::{LogBlock, MAX_BLOCK_ENTRIES};
use crate::table::replay::{self, Course, Stand};
use crate::table::{Facts, TableFault};

/// Three pages of entries.
const SLOTS: u32 = 70;
const DISK_BYTES: u64 = 128 << 20;
const SLOT_BYTES: u64 = 1 << 20;
const PAGE_CRC_IN_HEAD_AT: usize = 124;

/// A slot in each of its states.
fn entry(slot: u32) -> Entry {
    let sealed = sample_header();
    let header = match slot % 5 {
        0 => SlotHeader::blank(),
        1 => SlotHeader { state: SlotState::Open, footer_offset: 0, length: 0, digest: [0; 32], ..sealed },
        2 => sealed,
        3 => SlotHeader { state: SlotState::Trashed, state_before: SlotState::Sealed, order: [8; 16], ..sealed },
        _ => SlotHeader::freed(3),
    };
    Entry { header, page: (slot % 2) as u8, behind: slot.is_multiple_of(7), lost: slot == 9 }
}

fn facts() -> Facts {
    Facts { uptime_s: 1000, term: 3, ..Facts::default() }
}

fn header(generation: u64, first_sequence: u64) -> CheckpointHeader {
    CheckpointHeader { generation, first_sequence, slots: SLOTS, pages_crc: 0, facts: facts() }
}

fn block(generation: u64, sequence: u64, entries: usize) -> Vec<u8> {
    let entries = (0..entries as u32).map(|slot| (slot * 2, entry(slot))).collect();
    LogBlock { generation, sequence, facts: facts(), entries }.encode(DISK).to_vec()
}

pub(super) fn checkpoints() -> Vec<Vec<u8>> {
    let of = |generation| {
        let mut pages = Pages::new(DISK, generation, SLOTS);
        let mut all = Vec::new();
        while !pages.is_done() {
            all.extend_from_slice(&pages.encode_next(entry)[..]);
        }
        let header = CheckpointHeader { pages_crc: pages.crc(), ..header(generation, 40) };
        [&header.encode(DISK)[..], &all].concat()
    };
    vec![of(1), of(8)]
}

/// The checksums of the pages of entries first, the checksum over these then, the header's last.
pub(super) fn repair_checkpoint(bytes: &mut [u8]) {
    let mut all = crc32fast::Hasher::new();
    for page in bytes.chunks_exact_mut(PAGE_BYTES).skip(1) {
        repair_page_of_entries(page);
        all.update(&page[PAGE_CRC_IN_HEAD_AT..PAGE_CRC_IN_HEAD_AT + 4]);
    }
    if let Some(page) = bytes.get_mut(..PAGE_BYTES) {
        put_u32(page, 44, all.finalize());
        repair_last_page(page);
    }
}

fn repair_page_of_entries(page: &mut [u8]) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page[..PAGE_CRC_IN_HEAD_AT]);
    crc.update(&page[PAGE_CRC_IN_HEAD_AT + 4..]);
    put_u32(page, PAGE_CRC_IN_HEAD_AT, crc.finalize());
}

/// What the engine asks of an entry that it read.
fn look_at(entry: &Entry, geometry: &Geometry) {
    assert_eq!(Entry::decode(&entry.encode()).as_ref(), Some(entry), "what was read encodes to the same");
    if entry.is_beyond(geometry) {
        return;
    }
    let same = Ok(entry.header.clone());
    assert!(!entry.page_is_behind(entry.page, &same), "a header is not behind itself");
    let _ = entry.pages_behind([&same, &Err(SlotHeaderError::Blank)]);
}

fn geometry() -> Result<Geometry, String> {
    Geometry::plan(DISK_BYTES, SLOT_BYTES).map_err(|error| format!("{error:?}"))
}

pub(super) fn checkpoint(bytes: &[u8]) -> Result<(), String> {
    let fails = |fault: TableFault| fault.to_string();
    let geometry = geometry()?;
    let copy = u64_at(bytes, 8) % 2;
    let header = CheckpointHeader::decode(bytes, DISK, copy, SLOTS).map_err(fails)?;
    let again = CheckpointHeader::decode(&header.encode(DISK)[..], DISK, copy, SLOTS);
    assert_eq!(again.as_ref(), Ok(&header), "what was read encodes to the same");
    let mut pages = Pages::new(DISK, header.generation, SLOTS);
    let mut next = 0;
    for page in bytes[PAGE_BYTES..].chunks(PAGE_BYTES).take(table_pages(SLOTS) as usize) {
        assert!(generation_of_page(page, DISK).is_none_or(|generation| generation <= 1 << 62));
        let take = |slot, entry: Entry| {
            assert_eq!(slot, next, "entries come in the order of the slots");
            look_at(&entry, &geometry);
            next += 1;
        };
        pages.decode_next(page, take).map_err(fails)?;
    }
    if !pages.is_done() {
        return Err("pages are missing".to_owned());
    }
    assert_eq!(next, SLOTS);
    if pages.crc() == header.pages_crc { Ok(()) } else { Err("pages of another checkpoint".to_owned()) }
}

pub(super) fn log_blocks() -> Vec<Vec<u8>> {
    vec![block(4, 17, 1), block(5, 18, MAX_BLOCK_ENTRIES), block(4, 19, 0)]
}

pub(super) fn log_block(bytes: &[u8]) -> Result<(), String> {
    let geometry = geometry()?;
    let half = u64_at(bytes, 8) % 2;
    let found = LogBlock::decode(bytes, DISK, half, SLOTS).map_err(|fault| fault.to_string())?;
    let again = LogBlock::decode(&found.encode(DISK)[..], DISK, half, SLOTS);
    assert_eq!(again.as_ref(), Ok(&found), "what was read encodes to the same");
    for (slot, entry) in &found.entries {
        assert!(*slot < SLOTS);
        look_at(entry, &geometry);
    }
    Ok(())
}

/// Pages of a table: the headers of both copies, the first page of entries of each, then both halves of the log, equally
/// long.
const HEADERS: Range<usize> = 0..2;
const ENTRIES: Range<usize> = 2..4;

pub(super) fn tables() -> Vec<Vec<u8>> {
    let page = |generation| Pages::new(DISK, generation, SLOTS).encode_next(entry).to_vec();
    let blank = || vec![0; PAGE_BYTES];
    let run = |generation, first, blocks| (first..first + blocks).map(move |n| block(generation, n, 2));
    let table = |headers: [Vec<u8>; 2], halves: [Vec<Vec<u8>>; 2]| {
        let mut pages = [headers.to_vec(), vec![page(6), page(7)]].concat();
        for half in halves {
            let mut half = half;
            half.resize(8, blank());
            pages.extend(half);
        }
        pages.concat()
    };
    let [six, seven] = [header(6, 10), header(7, 15)].map(|header| header.encode(DISK).to_vec());
    let older: Vec<_> = run(6, 10, 5).collect();
    let newer: Vec<_> = run(7, 15, 3).collect();
    vec![
        table([six.clone(), seven.clone()], [older.clone(), newer.clone()]),
        table([six.clone(), blank()], [older, newer]),
        table([six, seven], [run(6, 10, 8).collect(), Vec::new()]),
    ]
}

pub(super) fn repair_table(bytes: &mut [u8]) {
    repair_pages(bytes);
    for page in bytes.chunks_exact_mut(PAGE_BYTES).skip(ENTRIES.start).take(ENTRIES.len()) {
        repair_page_of_entries(page);
    }
}

pub(super) fn table(bytes: &[u8]) -> Result<(), String> {
    let pages: Vec<&[u8]> = bytes.chunks(PAGE_BYTES).collect();
    let (first, log) = pages.split_at_checked(ENTRIES.end).ok_or("short")?;
    let halves = log.split_at(log.len() / 2);
    let [a, b] = [0, 1].map(|copy: usize| first[HEADERS][copy]);
    let half = |pages: &[&[u8]], half| pages.iter().map(|page| LogBlock::decode(page, DISK, half, SLOTS)).collect();
    let stand = Stand {
        headers: [CheckpointHeader::decode(a, DISK, 0, SLOTS), CheckpointHeader::decode(b, DISK, 1, SLOTS)],
        halves: [half(halves.0, 0), half(halves.1, 1)],
        begun: [0, 1].map(|copy: usize| generation_of_page(first[ENTRIES][copy], DISK)),
    };
    let _ = replay::newest_facts(&stand);
    let fresh = replay::next_place(&stand, None);
    for header in stand.headers.iter().flatten() {
        assert!(fresh.generation > header.generation && fresh.sequence >= header.first_sequence);
        let kept = replay::next_place(&stand, Some(header));
        assert!(kept.generation % 2 != header.generation % 2, "the copy that is kept is not written over");
    }
    let course = replay::newest(&stand)?;
    follow(&stand, &course);
    if let Ok(older) = replay::older(&stand, &course, &TableFault::Damaged) {
        assert!(older.checkpoint.generation < course.checkpoint.generation && older.resume.is_none());
        follow(&stand, &older);
    }
    Ok(())
}

/// Every block of a course is there, and one goes on from the other.
fn follow(stand: &Stand, course: &Course) {
    let blocks = course.logs.iter().flat_map(|(half, blocks)| &stand.halves[*half][..*blocks]);
    let mut due = course.checkpoint.first_sequence;
    for block in blocks {
        assert_eq!(block.as_ref().map(|block| block.sequence), Ok(due));
        due += 1;
    }
    if let Some(resume) = course.resume {
        assert_eq!((resume.generation, resume.sequence), (course.checkpoint.generation, due));
    }
}
