//! How the node's memory for buffers is divided over its disks.

use holdfast_libs_types::MAX_BATCH_BYTES;

use crate::config::Memory;

/// Nodes are divided for no fewer disks than this, so that some can be added later.
const LEAST_DISKS: usize = 8;

/// What a disk needs at least: two of the largest batches, one coming in and one being written, and some reads.
const LEAST_BUFFER_BYTES: usize = 2 * MAX_BATCH_BYTES + (8 << 20);

/// More than this does nothing for one disk.
const MOST_REGISTERED_BYTES: usize = 16 << 20;
const MOST_BUFFER_BYTES: usize = 256 << 20;

/// One disk's share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub registered_bytes: usize,
    pub buffer_bytes: usize,
    pub append_bytes: usize,
}

/// The share of the next disk on a node that will have `disks` of them, when those that are open hold `taken`.
pub(crate) fn share(memory: &Memory, disks: usize, taken: Share) -> Share {
    let disks = disks.max(LEAST_DISKS);
    let of = |budget: usize, taken: usize| (budget / disks).min(budget.saturating_sub(taken));
    let buffer_bytes = of(memory.buffer_bytes, taken.buffer_bytes).clamp(LEAST_BUFFER_BYTES, MOST_BUFFER_BYTES);
    Share {
        registered_bytes: of(memory.registered_bytes, taken.registered_bytes).min(MOST_REGISTERED_BYTES),
        buffer_bytes,
        append_bytes: (memory.append_bytes / disks).clamp(2 * MAX_BATCH_BYTES, buffer_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::{LEAST_BUFFER_BYTES, Share, share};
    use crate::config::Memory;

    #[test]
    fn a_hundred_disks_pin_no_more_than_the_budget_and_each_can_take_the_largest_batch() {
        let memory = Memory::default();
        let mut taken = Share::default();
        for _ in 0..100 {
            let next = share(&memory, 100, taken);
            assert_eq!(next.buffer_bytes, LEAST_BUFFER_BYTES);
            assert!(next.append_bytes <= next.buffer_bytes);
            taken.registered_bytes += next.registered_bytes;
            taken.buffer_bytes += next.buffer_bytes;
        }
        assert!(taken.registered_bytes <= memory.registered_bytes, "{taken:?}");
    }

    #[test]
    fn disks_that_come_one_by_one_never_pin_more_than_the_budget() {
        let memory = Memory::default();
        let mut taken = Share::default();
        for disks in 1..=100 {
            taken.registered_bytes += share(&memory, disks, taken).registered_bytes;
        }
        assert!(taken.registered_bytes <= memory.registered_bytes, "{taken:?}");
    }

    #[test]
    fn a_few_disks_get_more_each() {
        let few = share(&Memory::default(), 2, Share::default());
        assert_eq!((few.registered_bytes, few.buffer_bytes, few.append_bytes), (8 << 20, 128 << 20, 64 << 20));
    }
}
