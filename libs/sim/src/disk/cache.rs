//! Writes that completed and are not on the media, and what becomes of them.

use super::SECTOR_BYTES;
use crate::streams::SimRng;

/// A completed write that is not on the media.
#[derive(Clone)]
pub(super) struct Cached {
    pub(super) offset: u64,
    bytes: Vec<u8>,
    /// Which sectors are still its own; those that were written durably since are not.
    live: Vec<bool>,
}

impl Cached {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn new(offset: u64, bytes: Vec<u8>) -> Self {
        let live = vec![true; bytes.len() / SECTOR_BYTES];
        Self { offset, bytes, live }
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    pub(super) fn overlaps(&self, offset: u64, end: u64) -> bool {
        self.offset < end && offset < self.end()
    }

    /// Gives the sectors within `offset..end` up; false when none is left.
    pub(super) fn give_up(&mut self, offset: u64, end: u64) -> bool {
        for (n, live) in self.live.iter_mut().enumerate() {
            let at = self.offset + (n * SECTOR_BYTES) as u64;
            *live &= !(offset..end).contains(&at);
        }
        self.live.contains(&true)
    }

    /// Keeps the sectors that `fate` lets live.
    pub(super) fn thin(&mut self, fate: &mut Fate) {
        self.live.iter_mut().filter(|live| **live).for_each(|live| *live = fate.keeps());
    }

    /// Runs of sectors that are its own: where, and the bytes.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = from + self.live[from..].iter().position(|live| *live)?;
            let end = self.live[start..].iter().position(|live| !live).map_or(self.live.len(), |len| start + len);
            from = end;
            Some((self.offset + (start * SECTOR_BYTES) as u64, &self.bytes[start * SECTOR_BYTES..end * SECTOR_BYTES]))
        })
    }
}

/// What becomes of the sectors of a write that was not durable.
pub(super) enum Fate {
    All,
    None,
    /// A run from the front, as a write torn by a power cut leaves it.
    Front(u64),
    /// Each by a coin.
    Mixed(SimRng),
}

impl Fate {
    /// `in_sequence`: sectors land from the front on, without gaps.
    pub(super) fn draw(rng: &mut SimRng, in_sequence: bool) -> Self {
        match rng.below(if in_sequence { 3 } else { 4 }) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Front(rng.below(16)),
            _ => Self::Mixed(SimRng::from_seed(rng.next_u64())),
        }
    }

    /// Asked for each sector in turn.
    fn keeps(&mut self) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Front(left) => {
                let keep = *left > 0;
                *left = left.saturating_sub(1);
                keep
            }
            Self::Mixed(rng) => rng.chance(500),
        }
    }
}
