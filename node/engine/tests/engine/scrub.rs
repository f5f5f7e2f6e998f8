//! The scrub: damage of every kind is found and named, copies of metadata are mended, and a sound disk is left alone
//! whatever goes on beside it.

mod marks;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{Appended, Bench, EPOCH, aligned, batch, volume};
use holdfast_libs_sim::disk::Faults;
use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_engine::simulated::{self, TableAreas};
use holdfast_node_engine::{Disk, EngineError, ExtentInfo, ExtentState, Finding, Place, TrashOrder};
use sha2::Digest;

const NEXT: WriteEpoch = WriteEpoch(2);
const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

const SEALED: u8 = 1;
const OPEN: u8 = 2;
const FENCED: u8 = 3;
const PARITY: u8 = 4;
const COPYING: u8 = 5;
const TRASHED: u8 = 6;

/// A disk with an extent in every state, a used and freed slot, keys and an incarnation.
struct Cell {
    bench: Bench,
    records: Vec<Appended>,
}

impl Cell {
    fn new(seed: u64) -> Self {
        let mut bench = Bench::new(seed);
        let mut records = Vec::new();
        for n in [SEALED, OPEN, FENCED, TRASHED] {
            bench.create(volume(n));
            for _ in 0..3 {
                records.extend(bench.append(volume(n), &[70_000, 16, 30_000]).0);
            }
        }
        let length = info(&mut bench, SEALED).length;
        for n in [SEALED, TRASHED] {
            bench.run(|disk| async move { disk.seal(volume(n), NEXT, length, 1).await }).unwrap();
        }
        let order = order_for(&info(&mut bench, TRASHED));
        bench.run(|disk| async move { disk.trash(order).await }).unwrap();
        records.retain(|record| record.volume != volume(TRASHED));
        bench.run(|disk| async move { disk.fence(volume(FENCED), NEXT, 1).await }).unwrap();
        let parity = vec![7; 200 * 1024];
        begin_copy(&mut bench, PARITY, &parity);
        bench.run(|disk| async move { disk.finish_copy(volume(PARITY), None).await }).unwrap();
        begin_copy(&mut bench, 9, &parity);
        bench.run(|disk| async move { disk.abort_copy(volume(9)).await }).unwrap();
        begin_copy(&mut bench, COPYING, &parity);
        // The freed slot was taken again; one more is freed, and stays so.
        begin_copy(&mut bench, 9, &parity);
        bench.run(|disk| async move { disk.abort_copy(volume(9)).await }).unwrap();
        bench.run(|disk| async move { disk.write_key_area(vec![0xab; 5000]).await }).unwrap();
        bench.run(|disk| async move { disk.propose_incarnation().await }).unwrap();
        Self { bench, records }
    }

    fn info(&mut self, n: u8) -> ExtentInfo {
        info(&mut self.bench, n)
    }

    /// Where the header pages of a slot start on the disk.
    fn slot_start(&self, slot: u32) -> u64 {
        self.bench.engine.data_range(slot).start - 2 * PAGE
    }

    /// Where the two copies of the keys start on the disk.
    fn key_copies(&self) -> Vec<u64> {
        self.pages_with(b"HFKA")
    }

    /// Where pages with `magic` stand before the slots.
    fn pages_with(&self, magic: &[u8; 4]) -> Vec<u64> {
        let disk = self.bench.disk.borrow();
        let slots = simulated::slot_area(disk.size(), Bench::SLOT_BYTES);
        (0..slots.start).step_by(PAGE as usize).filter(|at| disk.peek(*at, 4) == *magic).collect()
    }

    fn table(&self) -> TableAreas {
        simulated::table_areas(self.bench.disk.borrow().size(), Bench::SLOT_BYTES)
    }

    /// Fills the log until a checkpoint is written, and goes some way into the log behind it.
    fn fill_log(&mut self) {
        let halves = self.table().halves;
        let blocks = (halves[0].end - halves[0].start) / PAGE;
        let from = self.info(FENCED).epoch.0;
        for epoch in from + 1..from + blocks + 3 {
            self.bench.run(|disk| async move { disk.fence(volume(FENCED), WriteEpoch(epoch), 1).await }).unwrap();
        }
    }

    /// Flips a bit of a page of the table, and sees that the scrub names it, mends it, and that the mount after it goes
    /// by the table; also when the other copy, or the next half of the log, is harmed after it was mended.
    fn is_mended(&mut self, page: u64) {
        self.flip_in(page..page + PAGE);
        let found = self.round();
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { place, slot, volume, offset, repaired, .. } = found[0].clone();
        assert_eq!((place, slot, volume, offset, repaired), (Place::ExtentTable, None, None, page, true));
        assert_eq!(self.round(), []);
        let shown = |bench: &mut Bench| bench.run(|disk| async move { disk.extents().await }).unwrap();
        let states = |bench: &mut Bench| -> Vec<_> {
            shown(bench).iter().map(|info| (info.volume, info.state, info.length, info.epoch, info.term)).collect()
        };
        let before = states(&mut self.bench);
        self.bench.restart();
        assert!(!self.bench.handle().status().rebuilt);
        assert_eq!(states(&mut self.bench), before);
        self.reads_well();
    }

    fn flip_in(&mut self, range: std::ops::Range<u64>) -> u64 {
        let at = self.bench.rng.within(range);
        let bit = self.bench.rng.below(8) as u8;
        self.bench.disk.borrow_mut().flip_bit(at, bit);
        at
    }

    /// Scrubs to the end of a round.
    fn round(&mut self) -> Vec<Finding> {
        round(&mut self.bench, MIB)
    }

    fn reads_well(&mut self) {
        for record in self.records.clone() {
            assert_eq!(self.bench.read_record(&record).unwrap(), record.bytes);
        }
    }
}

fn info(bench: &mut Bench, n: u8) -> ExtentInfo {
    bench.run(|disk| async move { disk.extent(volume(n)).await }).unwrap()
}

fn order_for(extent: &ExtentInfo) -> TrashOrder {
    let ExtentInfo { volume, slot, slot_generation, .. } = *extent;
    TrashOrder { volume, slot, slot_generation, term: 1, order: [5; 16] }
}

fn begin_copy(bench: &mut Bench, n: u8, bytes: &[u8]) {
    let (length, digest) = (bytes.len() as u64, sha2::Sha256::digest(bytes).into());
    let part = aligned(bytes);
    bench.run(|disk| async move { disk.begin_copy(volume(n), EPOCH, length, digest, None).await }).unwrap();
    bench.run(|disk| async move { disk.copy_write(volume(n), 0, &mut Some(part)).await }).unwrap();
}

fn round(bench: &mut Bench, step_bytes: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    loop {
        let step = bench.run(|disk| async move { disk.scrub_step(step_bytes).await }).unwrap();
        found.extend(step.found);
        if step.finished_round {
            return found;
        }
    }
}

#[test]
fn a_sound_disk_has_no_findings_before_and_after_a_restart() {
    let mut cell = Cell::new(1);
    for step_bytes in [1, 100_000, u64::MAX] {
        assert_eq!(round(&mut cell.bench, step_bytes), []);
    }
    cell.bench.restart();
    assert_eq!(cell.round(), []);
    cell.reads_well();
}

#[test]
fn flipped_bits_in_superblocks_are_named_and_the_copy_is_mended() {
    for seed in 0..20 {
        let mut cell = Cell::new(seed);
        let start = (seed % 2) * MIB;
        cell.flip_in(start..start + PAGE);
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].place, found[0].slot, found[0].offset), (Place::Superblock, None, start));
        assert!(found[0].repaired);
        assert_eq!(cell.round(), []);
        // Mended for good: the other copy may go now.
        let other = MIB - start;
        cell.flip_in(other..other + PAGE);
        cell.bench.restart();
        let found = cell.round();
        assert_eq!((found.len(), found[0].place, found[0].offset), (1, Place::Superblock, other));
    }
}

#[test]
fn flipped_bits_in_a_copy_of_the_keys_are_named_and_the_copy_is_mended() {
    for seed in 0..20 {
        let mut cell = Cell::new(seed);
        let copies = cell.key_copies();
        assert_eq!(copies.len(), 2);
        let (hit, other) = if seed % 2 == 0 { (copies[0], copies[1]) } else { (copies[1], copies[0]) };
        // The header page, then the content.
        let range = if seed % 4 < 2 { hit..hit + PAGE } else { hit + PAGE..hit + PAGE + 5000 };
        cell.flip_in(range);
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].place, found[0].slot, found[0].offset), (Place::KeyArea, None, hit));
        assert!(found[0].repaired);
        assert_eq!(cell.round(), []);
        cell.flip_in(other..other + PAGE);
        let keys = cell.bench.run(|disk| async move { disk.read_key_area().await }).unwrap();
        assert_eq!(keys.unwrap(), vec![0xab; 5000]);
    }
}

#[test]
fn keys_that_are_damaged_in_both_copies_are_reported_again_and_again_and_never_written_over() {
    let mut cell = Cell::new(2);
    for copy in cell.key_copies() {
        cell.flip_in(copy + PAGE..copy + PAGE + 5000);
    }
    for _ in 0..2 {
        let found = cell.round();
        assert!(found.iter().all(|finding| finding.place == Place::KeyArea && !finding.repaired), "{found:?}");
        assert_eq!(found.len(), 2);
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_extent_table_or_its_log_is_named_and_the_table_is_mended() {
    for seed in 0..60 {
        let mut cell = Cell::new(seed);
        // Of the first checkpoint, which has none before it; then of later ones and the log of the one before.
        for _ in 0..seed % 3 {
            cell.fill_log();
        }
        let magic = [b"HFTC", b"HFTP", b"HFTL"][seed as usize / 3 % 3];
        let mut pages = cell.pages_with(magic);
        if magic == b"HFTL" {
            pages = live_log(&cell);
        }
        let page = pages[cell.bench.rng.index(pages.len())];
        cell.is_mended(page);
    }
}

/// Where the blocks of the two newest logs stand.
fn live_log(cell: &Cell) -> Vec<u64> {
    let disk = cell.bench.disk.borrow();
    let u64_at = |at: u64| u64::from_le_bytes(disk.peek(at, 8).try_into().unwrap());
    let newest = cell.pages_with(b"HFTC").into_iter().map(|at| u64_at(at + 8)).max().unwrap();
    cell.pages_with(b"HFTL").into_iter().filter(|at| u64_at(*at + 8) + 1 >= newest).collect()
}

#[test]
fn the_table_is_mended_in_both_copies_so_that_either_may_go() {
    for harmed in [b"HFTC", b"HFTP", b"HFTL"] {
        for (n, lost) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut cell = Cell::new(11);
            cell.fill_log();
            let pages = if harmed == b"HFTL" { live_log(&cell) } else { cell.pages_with(harmed) };
            let page = if n == 0 { pages[0] } else { pages[pages.len() - 1] };
            cell.is_mended(page);
            let lost = cell.table().copies[lost].start + PAGE;
            cell.flip_in(lost..lost + PAGE);
            cell.bench.restart();
            assert!(!cell.bench.handle().status().rebuilt);
            cell.reads_well();
        }
    }
}

#[test]
fn while_the_table_is_mended_a_crash_finds_a_copy_that_is_whole() {
    let mut torn = 0;
    for seed in 0..120 {
        let mut cell = Cell::new(seed);
        cell.fill_log();
        let table = cell.table();
        let page = table.copies[seed as usize % 2].start + PAGE;
        cell.flip_in(page..page + PAGE);
        // Reads beside it keep a write in flight for a while.
        cell.bench.disk.borrow_mut().set_faults(Faults { stalls: 700, ..Faults::default() });
        let disk = cell.bench.handle();
        let read = |disk: Disk| async move {
            for _ in 0..200 {
                disk.read(volume(SEALED), 0, 100).await.unwrap();
            }
        };
        let scrub = {
            let disk = disk.clone();
            async move { drop(disk.scrub_step(MIB).await) }
        };
        let mut running: Vec<Running> = vec![Box::pin(scrub), Box::pin(read(disk.clone())), Box::pin(read(disk))];
        let is_writing = |cell: &Cell| table.copies.iter().any(|area| cell.bench.disk.borrow().is_writing(area));
        let mut writes = seed / 2 % 8;
        while running.len() == 3 {
            running.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            cell.bench.engine.turn();
            if is_writing(&cell) {
                if writes == 0 {
                    torn += 1;
                    break;
                }
                writes -= 1;
            }
        }
        drop(running);
        cell.bench.restart();
        assert!(!cell.bench.handle().status().rebuilt, "seed {seed}");
        cell.reads_well();
        cell.round();
        assert_eq!(cell.round(), [], "seed {seed}");
    }
    assert!(torn > 20, "{torn} of them cut a write");
}

#[test]
fn a_page_behind_the_end_of_the_log_is_no_finding_and_does_not_make_the_next_mount_doubt_the_log() {
    let mut cell = Cell::new(12);
    // The end of a round is logged in the block before it.
    let end = live_log(&cell).into_iter().max().unwrap() + 2 * PAGE;
    cell.bench.disk.borrow_mut().write_durable(end, &[0x5a; 700]);
    assert_eq!(cell.round(), []);
    cell.bench.restart();
    assert!(!cell.bench.handle().status().rebuilt);
    cell.reads_well();
}

#[test]
fn a_page_of_the_table_that_is_bad_for_good_is_named_and_not_said_to_be_mended() {
    for copy in 0..2 {
        let mut cell = Cell::new(13);
        cell.fill_log();
        let page = cell.table().copies[copy].start + PAGE;
        cell.bench.disk.borrow_mut().make_unreadable(page..page + 1);
        for _ in 0..2 {
            let found = cell.round();
            assert_eq!((found.len(), found[0].place, found[0].offset), (1, Place::ExtentTable, page), "{found:?}");
            assert!(found[0].what.contains("cannot be read") && !found[0].repaired, "{found:?}");
            cell.bench.restart();
            assert!(!cell.bench.handle().status().rebuilt);
            cell.reads_well();
        }
    }
}

#[test]
fn flipped_bits_in_slot_headers_of_every_state_are_named_and_the_page_is_mended() {
    for seed in 0..35 {
        let mut cell = Cell::new(seed);
        let page = seed % 2;
        // The slot behind the last extent is the one that was freed.
        let freed = cell.info(COPYING).slot + 1;
        let held = [SEALED, OPEN, FENCED, PARITY, COPYING, TRASHED].get((seed / 2 % 7) as usize).copied();
        let slot = held.map_or(freed, |n| cell.info(n).slot);
        let before = cell.bench.run(|disk| async move { disk.extents().await }).unwrap();
        let start = cell.slot_start(slot) + page * PAGE;
        cell.flip_in(start..start + PAGE);
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { place, slot: named, volume: of, offset, repaired, .. } = found[0].clone();
        assert_eq!((place, named, of), (Place::SlotHeader, Some(slot), held.map(volume)));
        assert_eq!((offset, repaired), (page * PAGE, true));
        assert_eq!(cell.round(), []);
        // Mended for good: the other page may go now.
        let other = cell.slot_start(slot) + (1 - page) * PAGE;
        cell.flip_in(other..other + PAGE);
        cell.bench.restart();
        let after = cell.bench.run(|disk| async move { disk.extents().await }).unwrap();
        let states = |infos: &[ExtentInfo]| -> Vec<_> {
            infos.iter().map(|info| (info.volume, info.state, info.length, info.epoch, info.term)).collect()
        };
        assert_eq!(states(&after), states(&before));
    }
}

#[test]
fn a_header_that_was_never_really_written_is_noticed() {
    let mut cell = Cell::new(3);
    let slot = cell.info(FENCED).slot;
    let start = cell.slot_start(slot);
    let before = cell.bench.disk.borrow().peek(start, 2 * PAGE as usize);
    let tail = cell.info(FENCED).length;
    cell.bench.run(|disk| async move { disk.seal(volume(FENCED), NEXT, tail, 1).await }).unwrap();
    // The drive said it was durable, and lied.
    cell.bench.disk.borrow_mut().write_durable(start, &before);
    let found = cell.round();
    assert_eq!((found.len(), found[0].place, found[0].slot), (1, Place::SlotHeader, Some(slot)), "{found:?}");
    assert!(found[0].repaired);
    cell.bench.restart();
    assert_eq!(cell.info(FENCED).state, ExtentState::Sealed);
}

#[test]
fn a_slot_that_lost_both_of_its_headers_is_reported_and_never_written() {
    let mut cell = Cell::new(4);
    let slot = cell.info(SEALED).slot;
    let start = cell.slot_start(slot);
    cell.flip_in(start..start + PAGE);
    cell.flip_in(start + PAGE..start + 2 * PAGE);
    // Without the table, which would know it.
    cell.bench.harm_table();
    cell.bench.restart();
    let before = cell.bench.disk.borrow().peek(start, 2 * PAGE as usize);
    for _ in 0..2 {
        let mut found = cell.round();
        found.retain(|finding| finding.place != Place::ExtentTable);
        assert_eq!(found.len(), 2, "{found:?}");
        for finding in found {
            assert_eq!((finding.place, finding.slot, finding.repaired), (Place::SlotHeader, Some(slot), false));
        }
    }
    assert!(cell.bench.disk.borrow().peek(start, 2 * PAGE as usize) == before);
}

#[test]
fn a_flipped_bit_anywhere_in_sealed_data_is_named_and_the_extent_shown_as_damaged() {
    for seed in 0..20 {
        let mut cell = Cell::new(seed);
        let n = if seed % 2 == 0 { SEALED } else { PARITY };
        let (slot, length) = (cell.info(n).slot, cell.info(n).length);
        let start = cell.bench.engine.data_range(slot).start;
        let at = cell.flip_in(start..start + length) - start;
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { place, slot: named, volume: of, offset, repaired, .. } = found[0].clone();
        assert_eq!((place, named, of, repaired), (Place::Data, Some(slot), Some(volume(n)), false));
        assert!((offset..offset + 65_536).contains(&at), "bit at {at}, found at {offset}");
        let shown = cell.info(n);
        assert_eq!((shown.state, shown.length), (ExtentState::Damaged, length));
        assert!(shown.note.unwrap().contains(&offset.to_string()));
        assert_eq!(cell.round().len(), 1, "it is reported until somebody mends it");
        // What has its own checksum is served as before, and what is hit is not.
        for record in cell.records.clone() {
            let hit =
                record.volume == volume(n) && (record.offset..record.offset + record.bytes.len() as u64).contains(&at);
            match cell.bench.read_record(&record) {
                Ok(bytes) => assert!(!hit && bytes == record.bytes),
                Err(error) => assert!(hit && matches!(error, EngineError::Damaged { .. }), "{error}"),
            }
        }
    }
}

/// Flips a bit of a volume's data, or flips it back.
fn flip_data(cell: &mut Cell, n: u8, offset: u64) {
    cell.bench.flip(volume(n), offset, 3);
}

#[test]
fn a_flipped_bit_anywhere_in_a_footer_is_named_and_the_footer_is_mended_from_the_data() {
    for seed in 0..30 {
        let mut cell = Cell::new(seed);
        let n = if seed % 2 == 0 { SEALED } else { PARITY };
        let (slot, length, records) = (cell.info(n).slot, cell.info(n).length, cell.info(n).records.unwrap());
        let start = cell.bench.engine.data_range(slot).start + length;
        let pages = if records > 0 { 3 } else { 2 };
        let part = seed % pages * PAGE;
        let before = cell.bench.disk.borrow().peek(start, (pages * PAGE) as usize);
        cell.flip_in(start + part..start + part + PAGE);
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { place, slot: named, volume: of, offset, repaired, .. } = found[0].clone();
        assert_eq!((place, named, of, offset), (Place::Footer, Some(slot), Some(volume(n)), length));
        assert!(repaired);
        assert!(cell.bench.disk.borrow().peek(start, (pages * PAGE) as usize) == before);
        assert_eq!(cell.info(n).state, ExtentState::Sealed);
        assert_eq!(cell.round(), []);
    }
}

#[test]
fn a_footer_is_not_made_anew_from_data_that_is_damaged_too() {
    let mut cell = Cell::new(6);
    let (slot, length) = (cell.info(SEALED).slot, cell.info(SEALED).length);
    let start = cell.bench.engine.data_range(slot).start;
    cell.flip_in(start..start + length);
    cell.flip_in(start + length + 2 * PAGE..start + length + 3 * PAGE);
    let found = cell.round();
    let places: Vec<Place> = found.iter().map(|finding| finding.place).collect();
    assert_eq!(places, [Place::Data, Place::Footer]);
    assert!(found.iter().all(|finding| !finding.repaired));
    assert_eq!(cell.info(SEALED).state, ExtentState::Damaged);
}

#[test]
fn a_flipped_bit_in_a_batch_below_the_tail_is_named_and_the_extent_takes_no_more() {
    for seed in 0..20 {
        let mut cell = Cell::new(seed);
        let n = if seed % 2 == 0 { OPEN } else { FENCED };
        let (slot, tail) = (cell.info(n).slot, cell.info(n).length);
        let start = cell.bench.engine.data_range(slot).start;
        let at = cell.flip_in(start..start + tail) - start;
        let found = cell.round();
        assert_eq!(found.len(), 1, "{found:?}");
        let Finding { place, slot: named, volume: of, offset, repaired, .. } = found[0].clone();
        assert_eq!((place, named, of, repaired), (Place::Data, Some(slot), Some(volume(n)), false));
        // Three batches of the same length.
        assert_eq!(offset, at / (tail / 3) * (tail / 3));
        let shown = cell.info(n);
        assert_eq!((shown.state, shown.length, shown.takes_appends), (ExtentState::Damaged, offset, false));
        for record in cell.records.clone() {
            let hit =
                record.volume == volume(n) && (record.offset..record.offset + record.bytes.len() as u64).contains(&at);
            assert!(hit || cell.bench.read_record(&record).unwrap() == record.bytes);
        }
        cell.bench.restart();
        assert_eq!(cell.info(n).length, offset, "a mount comes to the same end");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut cell = Cell::new(7);
    let slot = cell.info(SEALED).slot;
    let start = cell.bench.engine.data_range(slot).start;
    cell.bench.disk.borrow_mut().make_unreadable(start + 70_000..start + 70_001);
    let found = cell.round();
    assert_eq!((found.len(), found[0].place, found[0].offset), (1, Place::Data, 0), "{found:?}");
    assert!(found[0].what.contains("cannot be read"));
}

#[test]
fn what_passes_is_no_damage() {
    let mut cell = Cell::new(8);
    cell.bench.disk.borrow_mut().set_faults(Faults { read_errors: 5, short: 100, ..Faults::default() });
    for _ in 0..10 {
        assert_eq!(cell.round(), []);
    }
    assert!(cell.bench.handle().status().counters.read_errors > 0);
}

#[test]
fn a_disk_that_takes_no_writes_is_scrubbed_and_not_mended() {
    let mut cell = Cell::new(9);
    cell.flip_in(0..PAGE);
    cell.bench.handle().set_read_only("to see");
    for _ in 0..2 {
        let found = cell.round();
        assert_eq!((found.len(), found[0].place, found[0].repaired), (1, Place::Superblock, false));
    }
}

#[test]
fn a_step_is_bounded_and_the_next_goes_on_where_it_stopped() {
    let mut cell = Cell::new(10);
    let before = cell.bench.handle().status().counters.read_bytes;
    let (mut steps, mut said, mut finished) = (0, 0, false);
    while !finished {
        let step = cell.bench.run(|disk| async move { disk.scrub_step(PAGE).await }).unwrap();
        // One read of 256 KiB, or one batch of 100,000 bytes in a piece of 256 KiB; or a footer.
        assert!(step.read_bytes <= 300_000, "{step:?}");
        (steps, said, finished) = (steps + 1, said + step.read_bytes, step.finished_round);
    }
    let read = cell.bench.handle().status().counters.read_bytes - before;
    assert!(steps > 20, "{steps} steps");
    let live: u64 = [SEALED, OPEN, FENCED, PARITY].into_iter().map(|n| cell.info(n).length).sum();
    assert!(read >= live && read < 3 * live, "{read} bytes read of {live} live ones");
    assert!(said.abs_diff(read) < read / 3, "said {said}, read {read}");
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Creates, fills and seals volumes, one after the other, and erases some.
async fn write_and_seal(disk: Disk, first: u8, count: u8) {
    for n in first..first + count {
        let id: VolumeId = volume(n);
        disk.create_extent(id, EPOCH).await.unwrap();
        let mut tail = 0;
        for size in [100, 90_000, 4000, 50_000] {
            let (bytes, _) = batch(id, EPOCH, tail, tail, &[vec![n; size], vec![size as u8; 16]]);
            tail = disk.append(id, EPOCH, tail, aligned(&bytes)).await.unwrap();
        }
        disk.fence(id, NEXT, 1).await.unwrap();
        disk.seal(id, NEXT, tail, 1).await.unwrap();
        // Its slot is taken again by the next one.
        if n % 2 == 0 {
            disk.trash(order_for(&disk.extent(id).await.unwrap())).await.unwrap();
            disk.erase_expired(Duration::ZERO).await.unwrap();
        }
    }
}

#[test]
fn a_scrub_finds_nothing_while_volumes_are_written_sealed_copied_and_erased_beside_it() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        bench.disk.borrow_mut().set_faults(Faults { stalls: 20, ..Faults::default() });
        let disk = bench.handle();
        let copies = {
            let disk = disk.clone();
            async move {
                let bytes = vec![9; 40_960];
                for _ in 0..3 {
                    disk.begin_copy(volume(99), EPOCH, 40_960, sha2::Sha256::digest(&bytes).into(), None)
                        .await
                        .unwrap();
                    disk.copy_write(volume(99), 0, &mut Some(aligned(&bytes))).await.unwrap();
                    disk.abort_copy(volume(99)).await.unwrap();
                }
            }
        };
        let mut running: Vec<Running> = vec![
            Box::pin(write_and_seal(disk.clone(), 10, 4)),
            Box::pin(write_and_seal(disk.clone(), 20, 4)),
            Box::pin(copies),
        ];
        let mut rounds = 0;
        let step_bytes = 1 + seed * 30_000;
        let mut step = Box::pin(disk.scrub_step(step_bytes));
        while !running.is_empty() || rounds < 2 {
            let mut context = Context::from_waker(Waker::noop());
            running.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            if let Poll::Ready(done) = step.as_mut().poll(&mut context) {
                let done = done.unwrap();
                assert_eq!(done.found, [], "seed {seed}");
                rounds += u32::from(done.finished_round);
                step = Box::pin(disk.scrub_step(step_bytes));
            }
            bench.engine.turn();
        }
    }
}

#[test]
fn a_free_slot_whose_headers_are_being_mended_is_not_taken_meanwhile() {
    for seed in 0..60 {
        let mut bench = Bench::new(seed);
        let first = bench.engine.data_range(0).start - 2 * PAGE;
        for n in 0..4 {
            bench.disk.borrow_mut().flip_bit(first + n * Bench::SLOT_BYTES, 1);
        }
        bench.restart();
        let disk = bench.handle();
        let create = {
            let disk = disk.clone();
            async move {
                for n in 1..=4 {
                    disk.create_extent(volume(n), EPOCH).await.unwrap();
                }
            }
        };
        let scrub = async move {
            disk.scrub_step(u64::MAX).await.unwrap();
        };
        let mut running: Vec<Running> = vec![Box::pin(scrub), Box::pin(create)];
        let mut turns = 0;
        while !running.is_empty() {
            // The creations come in when the scrub is somewhere on its way.
            let mut index = 0;
            running.retain_mut(|task| {
                index += 1;
                let waits = index == 2 && turns < seed;
                waits || task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            });
            turns += 1;
            bench.engine.turn();
        }
        bench.restart();
        for n in 1..=4 {
            assert_eq!(info(&mut bench, n).state, ExtentState::Open, "seed {seed}");
        }
        let free = bench.handle().status().free_slots;
        assert_eq!(free, bench.handle().status().slots - 4, "seed {seed}");
    }
}

#[test]
fn an_extent_that_is_erased_and_written_over_while_it_is_read_is_not_called_damaged() {
    for seed in 0..40 {
        let mut bench = Bench::new(seed);
        bench.create(volume(1));
        bench.append(volume(1), &[400_000]);
        let length = info(&mut bench, 1).length;
        bench.run(|disk| async move { disk.seal(volume(1), NEXT, length, 1).await }).unwrap();
        bench.create(volume(2));
        bench.append(volume(2), &[100]);
        // Up to the data, so that the next step goes on with page checksums in its hands.
        bench.run(|disk| async move { disk.scrub_step(PAGE).await }).unwrap();
        // The read that is sent first is overtaken by what comes later.
        bench.disk.borrow_mut().set_faults(Faults { stalls: 1000, ..Faults::default() });
        let order = order_for(&info(&mut bench, 1));
        let disk = bench.handle();
        let replace = {
            let disk = disk.clone();
            async move {
                disk.trash(order).await.unwrap();
                disk.erase_expired(Duration::ZERO).await.unwrap();
                write_and_seal(disk, 11, 1).await;
            }
        };
        // What the disk has to do meanwhile, so that a stalled read is not the only thing left.
        let busy = |disk: Disk| async move {
            for _ in 0..60 {
                disk.read(volume(2), 0, 100).await.unwrap();
            }
        };
        let (one, other) = (busy(disk.clone()), busy(disk.clone()));
        let scrub = async move {
            loop {
                let step = disk.scrub_step(100_000).await.unwrap();
                assert_eq!(step.found, [], "seed {seed}");
                if step.finished_round {
                    return;
                }
            }
        };
        let mut running: Vec<Running> = vec![Box::pin(scrub), Box::pin(replace), Box::pin(one), Box::pin(other)];
        while !running.is_empty() {
            running.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            bench.engine.turn();
            bench.disk.borrow_mut().set_faults(Faults::default());
        }
    }
}

#[test]
fn after_a_restart_the_scrub_goes_on_where_it_stopped() {
    let mut cell = Cell::new(12);
    let (early, late) = (cell.info(SEALED).slot, cell.info(PARITY).slot);
    assert!(early < late);
    let sealed_end = cell.info(SEALED).length;
    let mut read = 0;
    while read < sealed_end + 3 * MIB / 10 {
        read += cell.bench.run(|disk| async move { disk.scrub_step(100_000).await }).unwrap().read_bytes;
    }
    // The next change of a slot takes along how far it came.
    cell.bench.create(volume(30));
    cell.bench.restart();
    for n in [SEALED, PARITY] {
        cell.bench.flip(volume(n), 1000, 1);
    }
    let found = cell.round();
    let slots: Vec<Option<u32>> = found.iter().map(|finding| finding.slot).collect();
    assert_eq!(slots, [Some(late)], "the first slots were read before the restart");
    let slots: Vec<Option<u32>> = cell.round().iter().map(|finding| finding.slot).collect();
    assert_eq!(slots, [Some(early), Some(late)], "and are read again in the next round");
}
