//! Weighted rendezvous hashing in whole numbers.
//!
//! Each (volume, disk) gets a number u in (0, 1) from a hash. `-log2(u) / weight` is then a waiting time of an exponential
//! clock that ticks as fast as the disk is heavy; the disk that rings first wins, with a probability that is exactly its share
//! of all weight. A new disk changes nobody else's time, so only what it wins moves, and only to it.
//!
//! The logarithm is computed bit by bit in fixed point and times are compared by cross-multiplication. `f64::ln` may differ
//! in its last bit between C libraries, and the golden vectors below must hold everywhere.

use std::cmp::Ordering;

use holdfast_libs_types::{BlockHash, DiskId, VolumeId};

/// Fraction bits of a [`Ticket::time`].
const FRACTION_BITS: u32 = 40;

/// One disk's time in the race for one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub disk: DiskId,
    /// `-log2(u)` with 40 fraction bits; to be divided by the weight.
    time: u64,
    /// Above zero.
    weight: u64,
}

impl Ticket {
    /// None for a weightless disk: it never rings.
    pub fn draw(volume: VolumeId, disk: DiskId, weight: u64) -> Option<Self> {
        (weight > 0).then(|| Self { disk, time: minus_log2(hash(volume, disk)), weight })
    }

    /// Orders by `time / weight`, the winner first; equal ones by disk id.
    pub fn compare(&self, other: &Self) -> Ordering {
        let mine = u128::from(self.time) * u128::from(other.weight);
        let theirs = u128::from(other.time) * u128::from(self.weight);
        mine.cmp(&theirs).then_with(|| self.disk.cmp(&other.disk))
    }
}

/// The first eight bytes, big-endian, of SHA-256("holdfast placement 1" | volume | disk).
pub(crate) fn hash(volume: VolumeId, disk: DiskId) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(b"holdfast placement 1");
    bytes.extend_from_slice(volume.as_bytes());
    bytes.extend_from_slice(disk.as_bytes());
    let digest = BlockHash::of(&bytes);
    digest.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `64 - log2(x)`, which is `-log2(x / 2^64)`, with 40 fraction bits. 0 counts as 1.
pub(crate) fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let whole = x.ilog2();
    // The mantissa in [1, 2), with 63 fraction bits. Each squaring shifts the next bit of its logarithm before the point.
    let mut mantissa = x << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = square >> 127;
        log = log << 1 | carry as u64;
        mantissa = (square >> (63 + carry)) as u64;
    }
    (64 << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, VolumeId};

    use super::{FRACTION_BITS, hash, minus_log2};

    #[test]
    fn the_logarithm_is_the_floating_point_one() {
        for x in [1, 2, 3, 5, 1 << 20, 12_345_678_901_234_567, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let expected = 64.0 - (x as f64).log2();
            let found = minus_log2(x) as f64 / 2f64.powi(FRACTION_BITS.cast_signed());
            assert!((expected - found).abs() < 1e-9, "{x}: {expected} {found}");
        }
    }

    #[test]
    fn golden_hashes() {
        // Computed by an independent program (Python's hashlib and decimal).
        let cases = [
            (0, 0, 0xc6e8_6682_ef7b_d0d0, 400_270_452_569),
            (1, 2, 0x69d6_6145_94cb_b9be, 1_401_101_056_800),
            (0xab, 0xcd, 0x26ad_8534_89ec_1659, 2_997_890_640_409),
        ];
        for (volume, disk, expected_hash, expected_time) in cases {
            let found = hash(VolumeId([volume; 16]), DiskId([disk; 16]));
            assert_eq!((found, minus_log2(found)), (expected_hash, expected_time), "volume {volume} disk {disk}");
        }
    }
}
