//! Random streams by name: each consumer draws from its own, so that one more draw in one place does not shift all
//! the others.
//!
//! The generator is xoshiro256** (Blackman and Vigna, public domain), seeded by SplitMix64 over the seed and the
//! name. It is written out here so that no update of a dependency changes what a seed means.

/// The seed of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// All streams of one run.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed they come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream called `name`, from its start.
    pub fn stream(&self, name: &str) -> SimRng {
        // FNV-1a, for nothing but to tell names apart.
        let name_hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        SimRng::from_seed(self.seed ^ name_hash)
    }
}

/// One stream of random numbers. Not for secrets.
#[derive(Debug, Clone)]
pub struct SimRng {
    state: [u64; 4],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl SimRng {
    /// A stream from a bare seed.
    pub fn from_seed(mut seed: u64) -> Self {
        Self { state: std::array::from_fn(|_| split_mix(&mut seed)) }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the multiplication is far below anything a test could see.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `range`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// True `per_mille` times of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An index into something of `len` things; 0 when there are none.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    /// Puts `things` into random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for n in (1..things.len()).rev() {
            things.swap(n, self.index(n + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Streams;

    #[test]
    fn a_stream_repeats_from_its_seed_and_name() {
        let draw = |seed, name: &str| {
            let mut rng = Streams::new(seed).stream(name);
            [rng.next_u64(), rng.below(1000), rng.next_u64()]
        };
        assert_eq!(draw(7, "disk"), draw(7, "disk"));
        assert_ne!(draw(7, "disk"), draw(7, "network"));
        assert_ne!(draw(7, "disk"), draw(8, "disk"));
    }

    #[test]
    fn the_meaning_of_a_seed_never_changes() {
        assert_eq!(Streams::new(1).stream("golden").next_u64(), 15_680_886_806_208_828_396);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let mut rng = Streams::new(3).stream("bounds");
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.below(0), 0);
    }
}
