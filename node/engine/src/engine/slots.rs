//! All slots of a disk and their index by volume. Nothing else in memory grows with the disk: a slot and its share of
//! the index take at most [`MAX_SLOT_MEMORY_BYTES`].
//!
//! Of one volume a disk holds at most one extent that stands, at most one copy under way, and any number in the trash.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use holdfast_libs_types::VolumeId;

use super::slot::{Role, Slot};

/// Most bytes of memory for one slot, index included. A hundred disks of 20 TB have 1.9 million slots of 1 GiB.
#[cfg(test)]
pub(super) const MAX_SLOT_MEMORY_BYTES: usize = 128;

pub(super) struct Slots {
    list: Vec<Slot>,
    /// Slots by the volume in them; the keys stand in `list`.
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), index: HashTable::new(), hasher: RandomState::new() }
    }

    /// Forgets everything, and makes room for `slots`.
    pub(super) fn reset(&mut self, slots: u32) {
        self.list = Vec::with_capacity(slots as usize);
        self.index = HashTable::new();
    }

    /// Adds the next slot; it is not in the index.
    pub(super) fn push(&mut self, slot: Slot) {
        self.list.push(slot);
    }

    pub(super) fn list(&self) -> &[Slot] {
        &self.list
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.list[slot as usize]
    }

    /// The slots of a volume, in no order.
    pub(super) fn of(&self, volume: VolumeId) -> impl Iterator<Item = u32> {
        let all = self.index.iter_hash(self.hasher.hash_one(volume)).copied();
        all.filter(move |slot| self.list[*slot as usize].volume == volume)
    }

    /// What is there of a volume: what stands, else a copy under way, else the first in the trash.
    pub(super) fn find(&self, volume: VolumeId) -> Option<u32> {
        self.of(volume).min_by_key(|slot| (self.list[*slot as usize].role(), *slot))
    }

    /// What a disk holds of a volume once at most.
    pub(super) fn find_role(&self, volume: VolumeId, role: Role) -> Option<u32> {
        self.of(volume).find(|slot| self.list[*slot as usize].role() == role)
    }

    /// Enters `slot` under the volume that it holds, which must not change while it is in the index.
    pub(super) fn index(&mut self, slot: u32) {
        let (list, hasher) = (&self.list, &self.hasher);
        let hash = |slot: &u32| hasher.hash_one(list[*slot as usize].volume);
        self.index.insert_unique(hash(&slot), slot, hash);
    }

    /// Takes a slot out of the index.
    pub(super) fn unindex(&mut self, slot: u32) {
        let hash = self.hasher.hash_one(self.list[slot as usize].volume);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
    }

    /// Slots in the index, in the order of the disk: a mount reads them in sequence, and every time in the same order.
    pub(super) fn indexed(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.index.iter().copied().collect();
        slots.sort_unstable();
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SLOT_MEMORY_BYTES, Slot, Slots};
    use std::sync::Arc;

    use crate::clock::SimulatedClock;
    use crate::reactor::Io;
    use crate::slot_header::{SlotHeader, SlotState};
    use holdfast_libs_types::VolumeId;

    fn sealed(n: u32) -> SlotHeader {
        let mut volume = [0; 16];
        volume[..4].copy_from_slice(&n.to_le_bytes());
        SlotHeader { state: SlotState::Sealed, volume: VolumeId(volume), ..SlotHeader::blank() }
    }

    #[test]
    fn a_slot_and_its_share_of_the_index_take_at_most_128_bytes() {
        let io = Io::new(Arc::new(SimulatedClock::new()));
        let mut most: f64 = 0.0;
        let mut slots = Slots::new();
        for n in 0..40_000 {
            slots.push(Slot::new(&sealed(n), 0, &io));
            slots.index(n);
            if n > 1000 {
                most = most.max(slots.index.allocation_size() as f64 / f64::from(n + 1));
            }
        }
        let bytes = size_of::<Slot>() as f64 + most;
        println!("{} bytes a slot, up to {most:.1} more in the index", size_of::<Slot>());
        assert!(bytes <= MAX_SLOT_MEMORY_BYTES as f64, "{bytes}");
    }

    #[test]
    fn the_index_finds_what_is_in_it_and_nothing_else() {
        let io = Io::new(Arc::new(SimulatedClock::new()));
        let mut slots = Slots::new();
        slots.reset(2000);
        for n in 0..2000 {
            slots.push(Slot::new(&sealed(n), 0, &io));
            slots.index(n);
        }
        for n in (0..2000).step_by(3) {
            slots.unindex(n);
        }
        for n in 0..2000 {
            assert_eq!(slots.find(sealed(n).volume), (n % 3 != 0).then_some(n));
        }
        assert_eq!(slots.find(sealed(2000).volume), None);
    }
}
