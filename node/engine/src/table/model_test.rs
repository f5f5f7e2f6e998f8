//! The table against a map of slots, over random histories: torn ends, failed writes, checkpoints cut anywhere, and
//! damage. The rule for all of it: the replay gives the state that was acknowledged, or (of what was under way) the
//! one after it, or it refuses and asks for a rebuild; never anything else.

use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_types::{DiskId, PAGE_BYTES, VolumeId};

use super::checkpoint::{CheckpointHeader, Pages, generation_of_page};
use super::entry::Entry;
use super::log::LogBlock;
use super::replay::{self, Place, Stand};
use super::{Facts, TableFault};
use crate::slot_header::{SlotHeader, SlotState};

const DISK: DiskId = DiskId([0xd1; 16]);
const SLOTS: u32 = 40;
const HALF_BLOCKS: usize = 12;

type Page = Box<[u8; PAGE_BYTES]>;

/// Two copies (header page first) and two halves.
struct Media {
    copies: [Vec<Page>; 2],
    halves: [Vec<Page>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Yes,
    /// It failed, and any part of it may stand.
    Failed,
    /// The power went, and any part of it may stand.
    Crashed,
}

struct History {
    rng: SimRng,
    media: Media,
    /// What was acknowledged.
    model: Vec<Entry>,
    /// States that a cut or failed write may have left instead.
    maybe: Vec<Vec<Entry>>,
    place: Place,
    /// A checkpoint must come before the next block.
    forced: bool,
    facts: Facts,
}

fn blank_page() -> Page {
    Box::new([0; PAGE_BYTES])
}

impl History {
    fn new(seed: u64) -> Self {
        let pages = || (0..3).map(|_| blank_page()).collect();
        let half = || (0..HALF_BLOCKS).map(|_| blank_page()).collect();
        let mut history = Self {
            rng: Streams::new(seed).stream("table"),
            media: Media { copies: [pages(), pages()], halves: [half(), half()] },
            model: vec![Entry::blank(); SLOTS as usize],
            maybe: Vec::new(),
            place: Place { generation: 0, sequence: 1, blocks: 0, entries: 0 },
            forced: true,
            facts: Facts::default(),
        };
        assert!(history.checkpoint(1, false));
        history
    }

    /// Writes a page, or tears it.
    fn write(rng: &mut SimRng, place: &mut Page, page: &Page, may_fail: u64) -> Wrote {
        if !rng.chance(may_fail) {
            place.copy_from_slice(&page[..]);
            return Wrote::Yes;
        }
        let kind = rng.below(3);
        for (sector, new) in place.chunks_mut(512).zip(page.chunks(512)) {
            if kind == 0 || (kind == 1 && rng.chance(500)) {
                sector.copy_from_slice(new);
            }
        }
        if rng.chance(500) { Wrote::Failed } else { Wrote::Crashed }
    }

    /// `false` when the power went (or it failed twice, which ends a life as well).
    fn checkpoint(&mut self, generation: u64, may_fail: bool) -> bool {
        let chance = if may_fail { 20 } else { 0 };
        'attempt: for _ in 0..2 {
            let copy = &mut self.media.copies[(generation % 2) as usize];
            let mut pages = Pages::new(DISK, generation, SLOTS);
            let mut at = 1;
            while !pages.is_done() {
                let page = pages.encode_next(|slot| self.model[slot as usize].clone());
                match Self::write(&mut self.rng, &mut copy[at], &page, chance) {
                    Wrote::Yes => at += 1,
                    Wrote::Failed => continue 'attempt,
                    Wrote::Crashed => return false,
                }
            }
            let first_sequence = self.place.sequence;
            let header = CheckpointHeader {
                generation,
                first_sequence,
                slots: SLOTS,
                pages_crc: pages.crc(),
                facts: self.facts,
            };
            match Self::write(&mut self.rng, &mut copy[0], &header.encode(DISK), chance) {
                Wrote::Yes => {
                    self.place = Place { generation, sequence: first_sequence, blocks: 0, entries: 0 };
                    self.forced = false;
                    return true;
                }
                Wrote::Failed => {}
                Wrote::Crashed => return false,
            }
        }
        false
    }

    fn random_entry(&mut self, slot: u32) -> Entry {
        let before = &self.model[slot as usize];
        let state = SlotState::from_code(self.rng.below(6) as u8).unwrap();
        let header = SlotHeader {
            state,
            damaged: self.rng.chance(200),
            generation: before.header.generation + 1,
            volume: VolumeId(self.rng.bytes()),
            length: self.rng.next_u64(),
            ..SlotHeader::blank()
        };
        Entry { header, page: 1 - before.page, behind: false, lost: false }
    }

    /// One block with a few changes; `false` when the power went.
    fn change(&mut self) -> bool {
        let full = self.place.blocks as usize == HALF_BLOCKS || self.rng.chance(40);
        if (full || self.forced) && !self.checkpoint(self.place.generation + 1, true) {
            return false;
        }
        let mut after = self.model.clone();
        let mut entries = Vec::new();
        for _ in 0..self.rng.below(4) {
            let slot = self.rng.below(u64::from(SLOTS)) as u32;
            let entry = self.random_entry(slot);
            after[slot as usize] = entry.clone();
            entries.push((slot, entry));
        }
        self.facts.uptime_s += 1;
        let block =
            LogBlock { generation: self.place.generation, sequence: self.place.sequence, facts: self.facts, entries };
        let half = &mut self.media.halves[(self.place.generation % 2) as usize];
        let place = &mut half[self.place.blocks as usize];
        match Self::write(&mut self.rng, place, &block.encode(DISK), 20) {
            Wrote::Yes => {
                self.place.sequence += 1;
                self.place.blocks += 1;
                self.model = after;
                // Nothing that was cut before this one can come back.
                self.maybe.clear();
                true
            }
            Wrote::Failed => {
                self.maybe.push(after);
                self.checkpoint(self.place.generation + 1, true)
            }
            Wrote::Crashed => {
                self.maybe.push(after);
                false
            }
        }
    }

    fn stand(&self) -> Stand {
        let copies = &self.media.copies;
        let headers = [0, 1].map(|n| CheckpointHeader::decode(&copies[n][0][..], DISK, n as u64, SLOTS));
        let half = |n: usize| {
            let pages = self.media.halves[n].iter();
            pages.map(|page| LogBlock::decode(&page[..], DISK, n as u64, SLOTS)).collect()
        };
        let begun = [0, 1].map(|n| generation_of_page(&copies[n][1][..], DISK));
        Stand { headers, halves: [half(0), half(1)], begun }
    }

    fn pages(&self, header: &CheckpointHeader) -> Result<Vec<Entry>, TableFault> {
        let copy = &self.media.copies[(header.generation % 2) as usize];
        let mut pages = Pages::new(DISK, header.generation, SLOTS);
        let mut entries = Vec::new();
        for page in &copy[1..] {
            pages.decode_next(&page[..], |_, entry| entries.push(entry))?;
        }
        if pages.crc() == header.pages_crc { Ok(entries) } else { Err(TableFault::Damaged) }
    }

    /// The state by the replay, and where the log goes on.
    fn replay(&self) -> Result<(Vec<Entry>, Place, bool), String> {
        let stand = self.stand();
        let mut course = replay::newest(&stand)?;
        let mut entries = match self.pages(&course.checkpoint) {
            Ok(entries) => entries,
            Err(fault) => {
                course = replay::older(&stand, &course, &fault)?;
                self.pages(&course.checkpoint).map_err(|fault| fault.to_string())?
            }
        };
        for (half, blocks) in &course.logs {
            for (slot, entry) in stand.halves[*half][..*blocks].iter().flatten().flat_map(|block| &block.entries) {
                entries[*slot as usize] = entry.clone();
            }
        }
        assert_eq!(replay::newest_facts(&stand).uptime_s / 1_000_000, 0);
        let forced = course.resume.is_none();
        Ok((entries, course.resume.unwrap_or_else(|| replay::next_place(&stand, Some(&course.checkpoint))), forced))
    }

    /// After a crash: what the replay says must be possible, and the history goes on from it.
    fn mount(&mut self) -> Result<bool, String> {
        let rebuilt = match self.replay() {
            Ok((entries, place, forced)) => {
                if entries != self.model && !self.maybe.contains(&entries) {
                    return Err(format!("another state than any that was written, at {place:?}"));
                }
                (self.model, self.place, self.forced) = (entries, place, forced);
                false
            }
            // The headers have everything that was acknowledged.
            Err(_) => {
                let place = replay::next_place(&self.stand(), None);
                (self.place, self.forced) = (place, true);
                true
            }
        };
        if self.forced {
            self.place.generation -= 1;
        }
        self.maybe.clear();
        Ok(rebuilt)
    }
}

#[test]
fn over_random_histories_the_replay_gives_what_was_acknowledged_or_refuses() {
    let (mut mounts, mut rebuilt) = (0, 0);
    for seed in 0..400 {
        let mut history = History::new(seed);
        for _ in 0..12 {
            for _ in 0..history.rng.below(40) {
                if !history.change() {
                    break;
                }
            }
            mounts += 1;
            match history.mount() {
                Ok(again) => rebuilt += u32::from(again),
                Err(wrong) => panic!("seed {seed}: {wrong}"),
            }
        }
    }
    println!("{mounts} mounts, {rebuilt} rebuilt");
    assert!(mounts > 4000 && rebuilt > 50 && rebuilt < mounts / 3, "{rebuilt} of {mounts} rebuilt");
}

/// A history without a fault, of `generations` checkpoints, the last log with a few blocks.
fn clean(seed: u64, generations: u64) -> History {
    let mut history = History::new(seed);
    while history.place.generation < generations || history.place.blocks < 3 {
        let before = (history.rng.clone(), history.place, history.model.clone());
        let media = Media { copies: history.media.copies.clone(), halves: history.media.halves.clone() };
        let facts = history.facts;
        if !history.change() || !history.maybe.is_empty() {
            // This step met a fault: as if it had not been, and with other luck.
            (history.rng, history.place, history.model) = before;
            (history.media, history.facts, history.forced) = (media, facts, false);
            history.maybe.clear();
            history.rng.next_u64();
        }
    }
    history
}

#[test]
fn when_the_newest_checkpoint_goes_bad_the_one_before_it_gives_the_same_state() {
    for seed in 0..60 {
        for page in 0..3 {
            let mut history = clean(seed, 3 + seed % 4);
            let copy = (history.place.generation % 2) as usize;
            let bit = history.rng.index(PAGE_BYTES * 8);
            history.media.copies[copy][page][bit / 8] ^= 1 << (bit % 8);
            let (entries, next, forced) = history.replay().unwrap();
            assert!(entries == history.model, "seed {seed}, page {page}");
            assert!(forced && next.sequence == history.place.sequence);
            assert_eq!(next.generation % 2, history.place.generation % 2, "the good copy is left alone");
            assert!(next.generation > history.place.generation);
        }
    }
}

#[test]
fn the_checkpoint_before_a_bad_one_is_used_only_with_the_whole_log_between_them() {
    for seed in 0..60 {
        let mut history = clean(seed, 3 + seed % 4);
        let newest = (history.place.generation % 2) as usize;
        let before = CheckpointHeader::decode(&history.media.copies[1 - newest][0][..], DISK, 1 - newest as u64, SLOTS);
        let after = CheckpointHeader::decode(&history.media.copies[newest][0][..], DISK, newest as u64, SLOTS);
        let between = (after.unwrap().first_sequence - before.unwrap().first_sequence) as usize;
        history.media.copies[newest][1][300] ^= 1;
        if between > 0 {
            let block = history.rng.index(between);
            history.media.halves[1 - newest][block][200] ^= 1;
            let why = history.replay().unwrap_err();
            assert!(why.contains(&format!("log block {block} of checkpoint")), "{why}");
        }
    }
}

#[test]
fn a_bit_flipped_in_any_block_of_the_log_is_answered_by_a_rebuild() {
    for seed in 0..100 {
        let mut history = clean(seed, 2);
        let half = (history.place.generation % 2) as usize;
        let block = history.rng.index(history.place.blocks as usize);
        let bit = history.rng.index(PAGE_BYTES * 8);
        history.media.halves[half][block][bit / 8] ^= 1 << (bit % 8);
        let why = history.replay().unwrap_err();
        assert!(why.contains(&format!("{block} of checkpoint")), "{why}");
    }
}

#[test]
fn a_block_that_the_disk_lost_below_a_later_one_is_damage_and_not_the_end() {
    let mut history = clean(7, 2);
    let half = (history.place.generation % 2) as usize;
    history.media.halves[half][1] = blank_page();
    let why = history.replay().unwrap_err();
    assert!(why.contains("missing"), "{why}");
}

#[test]
fn a_blank_table_is_never_taken_for_an_empty_one() {
    let mut history = clean(8, 3);
    for copy in &mut history.media.copies {
        copy[0] = blank_page();
    }
    assert!(history.replay().unwrap_err().contains("neither copy has a valid header"));
}

#[test]
fn both_checkpoints_bad_is_a_rebuild() {
    let mut history = clean(9, 4);
    for copy in &mut history.media.copies {
        copy[1][200] ^= 1;
    }
    let why = history.replay().unwrap_err();
    assert!(why.contains("damaged"), "{why}");
}
