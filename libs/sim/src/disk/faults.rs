//! What goes wrong while the disk is in use, by chance or by order of a test.

use std::collections::BTreeSet;
use std::ops::Range;

use super::SECTOR_BYTES;
use super::media::{Media, PAGE_BYTES};
use crate::streams::SimRng;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// Probabilities of faults, each of a thousand operations unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Reads that fail with EIO, once.
    pub read_errors: u64,
    /// Writes that fail with EIO after any part of them was done.
    pub write_errors: u64,
    /// Reads and writes that are short.
    pub short: u64,
    /// Operations that are overtaken by many others.
    pub stalls: u64,
    /// Chance, at every completion, that the oldest cached write goes to the media.
    pub write_back: u64,
    /// Chance, of a million completions, that a bit flips in a page that was written.
    pub bit_rot_per_million: u64,
    /// Chance, of a million completions, that a written sector can no longer be read, until it is written again.
    pub latent_errors_per_million: u64,
    /// Chance, of a million writes, that one lands at another page and its target keeps the old bytes.
    pub misdirected_per_million: u64,
}

/// Harm that was done, for tests to compare with what was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A bit flipped.
    BitRot {
        /// Byte on the disk.
        offset: u64,
        /// Which bit of it.
        bit: u8,
    },
    /// A sector cannot be read until it is written again.
    Latent {
        /// Its first byte.
        offset: u64,
    },
    /// A write landed elsewhere.
    Misdirected {
        /// Where it should have gone.
        meant: u64,
        /// Where it went.
        landed: u64,
        /// Bytes.
        len: usize,
    },
}

/// The state that faults leave behind.
#[derive(Debug, Default)]
pub(super) struct FaultState {
    pub(super) unreadable: Vec<Range<u64>>,
    pub(super) unwritable: Vec<Range<u64>>,
    /// Sectors, by number.
    latent: BTreeSet<u64>,
    pub(super) misdirect_next: Option<u64>,
    pub(super) zones_stay: bool,
    /// The errno that everything answers.
    pub(super) dead: Option<i32>,
    /// Completions left until it dies, and with what.
    pub(super) dies_after: Option<(u64, i32)>,
    pub(super) harm: Vec<Harm>,
}

impl FaultState {
    pub(super) fn cannot_read(&self, offset: u64, end: u64) -> bool {
        self.unreadable.iter().any(|range| range.start < end && offset < range.end)
            || self.latent.range(offset / SECTOR..end.div_ceil(SECTOR)).next().is_some()
    }

    pub(super) fn cannot_write(&self, offset: u64, end: u64) -> bool {
        self.unwritable.iter().any(|range| range.start < end && offset < range.end)
    }

    pub(super) fn make_latent(&mut self, range: Range<u64>) {
        self.latent.extend(range.start / SECTOR..range.end.div_ceil(SECTOR));
    }

    /// A sector that is written can be read again.
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        if !self.latent.is_empty() {
            let sectors = offset / SECTOR..(offset + len) / SECTOR;
            self.latent.retain(|sector| !sectors.contains(sector));
        }
    }

    /// One step of decay: a bit that flips, or a sector that goes bad. Returns the bit to flip.
    pub(super) fn decay(&mut self, faults: &Faults, rng: &mut SimRng, media: &Media) -> Option<(u64, u8)> {
        let rots = rng.below(1_000_000) < faults.bit_rot_per_million;
        let fails = rng.below(1_000_000) < faults.latent_errors_per_million;
        if !rots && !fails {
            return None;
        }
        let pages = media.written_pages();
        let page = *pages.get(rng.index(pages.len()))? * PAGE_BYTES as u64;
        if fails {
            let offset = page + rng.below(PAGE_BYTES as u64 / SECTOR) * SECTOR;
            self.make_latent(offset..offset + SECTOR);
            self.harm.push(Harm::Latent { offset });
        }
        if !rots {
            return None;
        }
        let (offset, bit) = (page + rng.below(PAGE_BYTES as u64), rng.below(8) as u8);
        self.harm.push(Harm::BitRot { offset, bit });
        Some((offset, bit))
    }

    /// Where a write lands.
    pub(super) fn direct(&mut self, faults: &Faults, rng: &mut SimRng, meant: u64, len: usize, disk_bytes: u64) -> u64 {
        let by_chance = faults.misdirected_per_million > 0 && rng.below(1_000_000) < faults.misdirected_per_million;
        let landed = match self.misdirect_next.take() {
            Some(landed) => landed,
            None if by_chance => rng.below((disk_bytes - len as u64) / PAGE_BYTES as u64 + 1) * PAGE_BYTES as u64,
            None => return meant,
        };
        self.harm.push(Harm::Misdirected { meant, landed, len });
        landed
    }
}
