//! Drawing lots: places chosen in proportion to how much room is left at them.

use holdfast_libs_types::VolumeId;

/// Numbers of room at places, from which one is drawn in logarithmic time: a Fenwick tree (P. Fenwick, "A new data structure
/// for cumulative frequency tables", 1994).
#[derive(Debug, Default)]
pub(super) struct Lots {
    tree: Vec<u64>,
    left: u64,
}

impl Lots {
    pub fn new(room: &[u64]) -> Self {
        let mut tree = room.to_vec();
        for at in 1..=tree.len() {
            let parent = at + lowest_bit(at);
            if parent <= tree.len() {
                tree[parent - 1] += tree[at - 1];
            }
        }
        Self { tree, left: room.iter().sum() }
    }

    /// Room at all places together.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The place where the running sum of rooms passes `number`, which is taken modulo all that is left.
    pub fn draw(&self, number: u64) -> Option<usize> {
        let mut number = number.checked_rem(self.left)?;
        let mut at = 0;
        let mut step = self.tree.len().checked_next_power_of_two()?;
        while step > 0 {
            if at + step <= self.tree.len() && self.tree[at + step - 1] <= number {
                at += step;
                number -= self.tree[at - 1];
            }
            step /= 2;
        }
        Some(at)
    }

    /// Takes one off the room at a place, which has some.
    pub fn take(&mut self, place: usize) {
        self.left -= 1;
        let mut at = place + 1;
        while at <= self.tree.len() {
            self.tree[at - 1] -= 1;
            at += lowest_bit(at);
        }
    }
}

const fn lowest_bit(number: usize) -> usize {
    number & number.wrapping_neg()
}

/// The numbers that a volume draws with: the SplitMix64 sequence (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014) that starts at its id, so that the same question gets the same plan.
pub(super) struct Draws(u64);

impl Draws {
    pub fn of(volume: VolumeId) -> Self {
        let half = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let (high, low) = volume.as_bytes().split_at(8);
        Self(half(high).rotate_left(32) ^ half(low))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::{Draws, Lots};

    #[test]
    fn every_number_draws_the_place_it_falls_to_until_the_room_is_gone() {
        let mut room = vec![3, 0, 1, 5, 2];
        let mut lots = Lots::new(&room);
        while lots.left() > 0 {
            let drawn: Vec<usize> = (0..lots.left()).map(|number| lots.draw(number).unwrap()).collect();
            let expected: Vec<usize> =
                room.iter().enumerate().flat_map(|(at, room)| std::iter::repeat_n(at, *room as usize)).collect();
            assert_eq!(drawn, expected);
            let place = drawn[drawn.len() / 2];
            lots.take(place);
            room[place] -= 1;
        }
        assert_eq!(lots.draw(7), None);
        assert_eq!(Lots::new(&[]).draw(0), None);
    }

    #[test]
    fn the_sequence_is_the_published_one() {
        // The first outputs for the seed 0, as in the reference implementation.
        let mut draws = Draws(0);
        assert_eq!((draws.next(), draws.next()), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
    }
}
