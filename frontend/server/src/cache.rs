//! The least recently used plaintext blocks, bounded in bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use holdfast_libs_types::BlockHash;

/// Memory that an entry takes besides its block, so that a million tiny blocks do not count as nothing.
const ENTRY_BYTES: usize = 256;

/// The cache. What is in it has been verified.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    blocks: HashMap<BlockHash, (Bytes, u64)>,
    /// When each was last used -> which.
    by_age: BTreeMap<u64, BlockHash>,
    clock: u64,
    bytes: usize,
}

impl Cache {
    /// A cache of at most `limit` bytes; 0 keeps nothing.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, inner: Mutex::new(Inner::default()) }
    }

    /// Whether it keeps anything at all.
    pub(crate) fn is_on(&self) -> bool {
        self.limit > 0
    }

    pub(crate) fn get(&self, hash: &BlockHash) -> Option<Bytes> {
        if self.limit == 0 {
            return None;
        }
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *guard;
        let (block, used) = inner.blocks.get_mut(hash)?;
        let block = block.clone();
        inner.clock += 1;
        inner.by_age.remove(used);
        *used = inner.clock;
        inner.by_age.insert(inner.clock, *hash);
        Some(block)
    }

    /// Keeps a verified block. `block` must not be a slice of something larger, which would stay in memory with it.
    pub(crate) fn put(&self, hash: BlockHash, block: Bytes) {
        let size = block.len() + ENTRY_BYTES;
        if size > self.limit {
            return;
        }
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *guard;
        inner.clock += 1;
        if let Some((old, used)) = inner.blocks.insert(hash, (block, inner.clock)) {
            inner.by_age.remove(&used);
            inner.bytes -= old.len() + ENTRY_BYTES;
        }
        inner.by_age.insert(inner.clock, hash);
        inner.bytes += size;
        while inner.bytes > self.limit {
            let Some((_, oldest)) = inner.by_age.pop_first() else { break };
            if let Some((block, _)) = inner.blocks.remove(&oldest) {
                inner.bytes -= block.len() + ENTRY_BYTES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_libs_types::BlockHash;

    use super::{Cache, ENTRY_BYTES};

    fn block(n: u8) -> (BlockHash, Bytes) {
        (BlockHash([n; 32]), Bytes::from(vec![n; 1000]))
    }

    #[test]
    fn the_least_recently_used_block_goes_first() {
        let cache = Cache::new(3 * (1000 + ENTRY_BYTES));
        for n in 0..3 {
            let (hash, bytes) = block(n);
            cache.put(hash, bytes);
        }
        assert!(cache.get(&block(0).0).is_some());
        cache.put(block(3).0, block(3).1);
        cache.put(block(3).0, block(3).1);
        assert!(cache.get(&block(1).0).is_none());
        for n in [0, 2, 3] {
            assert_eq!(cache.get(&block(n).0), Some(block(n).1), "{n}");
        }
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = Cache::new(0);
        cache.put(block(1).0, block(1).1);
        assert_eq!(cache.get(&block(1).0), None);
        assert!(!cache.is_on());
    }
}
