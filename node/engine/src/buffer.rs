//! Page-aligned buffers from a bounded pool.
//!
//! A body is copied once: from the socket into an [`AlignedBuf`], which then travels, owned, down to the kernel
//! and back. Nothing but its owner can free it, so a dropped future never frees memory the kernel still holds.
//!
//! The pool has an arena that the disk's ring registers (pinned once instead of at every I/O) and a byte budget.
//! When the arena has no gap, buffers have memory of their own until the budget is spent; then the disk is `Busy`.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_libs_types::PAGE_BYTES;

use crate::memory::Memory;

/// An [`AlignedBuf`] was asked to hold more than its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("buffer of {capacity} bytes cannot take {asked} bytes")]
pub struct BufferFull {
    /// Bytes it can hold.
    pub capacity: usize,
    /// Bytes it should have held.
    pub asked: usize,
}

/// A bounded source of [`AlignedBuf`]s.
#[derive(Clone)]
pub struct BufferPool(Arc<PoolInner>);

struct PoolInner {
    /// Never from what is kept for reuse, nor given to it: a ring registers it.
    arena: Option<Memory>,
    arena_bytes: usize,
    /// Free ranges of the arena: start -> length, in bytes, neighbours merged.
    gaps: Mutex<BTreeMap<usize, usize>>,
    budget: usize,
    used: AtomicUsize,
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferPool")
            .field("arena_bytes", &self.0.arena_bytes)
            .field("budget", &self.0.budget)
            .field("used", &self.0.used.load(Ordering::Relaxed))
            .finish()
    }
}

impl BufferPool {
    /// A pool with an arena of `arena_bytes` (rounded down to pages, may be 0) and at most `budget` bytes in use.
    pub fn new(arena_bytes: usize, budget: usize) -> Self {
        let arena_bytes = arena_bytes.min(budget) / PAGE_BYTES * PAGE_BYTES;
        let arena = (arena_bytes > 0).then(|| Memory::fresh(arena_bytes));
        let gaps = if arena_bytes == 0 { BTreeMap::new() } else { BTreeMap::from([(0, arena_bytes)]) };
        Self(Arc::new(PoolInner { arena, arena_bytes, gaps: Mutex::new(gaps), budget, used: AtomicUsize::new(0) }))
    }

    /// A buffer that can hold `capacity` bytes (rounded up to whole pages); `None` when the budget is spent.
    pub fn take(&self, capacity: usize) -> Option<AlignedBuf> {
        let bytes = capacity.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let pool = &*self.0;
        pool.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|total| *total <= pool.budget)
            })
            .ok()?;
        let (pointer, home) = match (&pool.arena, pool.carve(bytes)) {
            // SAFETY: `start + bytes` lies within the arena.
            (Some(arena), Some(start)) => (unsafe { arena.pointer().add(start) }, Home::Arena { start }),
            _ => Home::own(bytes),
        };
        Some(AlignedBuf { pointer, capacity: bytes, len: 0, home, pool: Some(self.clone()) })
    }

    /// Bytes of buffers in use.
    pub fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The arena, for registration with a ring; `None` when there is none.
    pub(crate) fn arena(&self) -> Option<(*mut u8, usize)> {
        self.0.arena.as_ref().map(|arena| (arena.pointer().as_ptr(), self.0.arena_bytes))
    }
}

impl PoolInner {
    fn carve(&self, bytes: usize) -> Option<usize> {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, len) = gaps.iter().map(|(start, len)| (*start, *len)).find(|(_, len)| *len >= bytes)?;
        gaps.remove(&start);
        if len > bytes {
            gaps.insert(start + bytes, len - bytes);
        }
        Some(start)
    }

    fn give_back(&self, mut start: usize, mut len: usize) {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, before_len)) = gaps.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + before_len == start
        {
            gaps.remove(&before);
            start = before;
            len += before_len;
        }
        if let Some(after_len) = gaps.remove(&(start + len)) {
            len += after_len;
        }
        gaps.insert(start, len);
    }
}

#[derive(Debug)]
enum Home {
    /// A range of the pool's arena.
    Arena { start: usize },
    /// Memory of its own; `None` only while it is dropped.
    Own(Option<Memory>),
}

impl Home {
    fn own(bytes: usize) -> (NonNull<u8>, Self) {
        let memory = Memory::take(bytes);
        (memory.pointer(), Self::Own(Some(memory)))
    }
}

/// An owned buffer that starts on a page, has room for whole pages, and is filled from the front.
///
/// Bytes past `len` are not initialised and cannot be seen.
pub struct AlignedBuf {
    pointer: NonNull<u8>,
    capacity: usize,
    len: usize,
    home: Home,
    pool: Option<BufferPool>,
}

// SAFETY: an AlignedBuf is the only owner of its range of memory.
unsafe impl Send for AlignedBuf {}
// SAFETY: `&AlignedBuf` gives read access only.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer outside of any pool, with room for `capacity` bytes (rounded up to whole pages).
    pub fn with_capacity(capacity: usize) -> Self {
        let bytes = capacity.max(1).next_multiple_of(PAGE_BYTES);
        let (pointer, home) = Home::own(bytes);
        Self { pointer, capacity: bytes, len: 0, home, pool: None }
    }

    /// A copy of `bytes`, outside of any pool.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.append(bytes);
        buffer
    }

    /// Bytes filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was filled in yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// [`BufferFull`] when they do not fit; nothing is added then.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), BufferFull> {
        if bytes.len() > self.capacity - self.len {
            return Err(BufferFull { capacity: self.capacity, asked: self.len.saturating_add(bytes.len()) });
        }
        self.append(bytes);
        Ok(())
    }

    /// Adds bytes that are known to fit.
    fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.capacity - self.len);
        // SAFETY: the assertion keeps the copy within the allocation; the source cannot overlap with it, as `self`
        // is borrowed exclusively.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer.as_ptr().add(self.len), bytes.len()) };
        self.len += bytes.len();
    }

    /// Forgets what was filled in.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The start of the memory, for the kernel.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Whether it lies in the arena that the ring of `pool` registered.
    pub(crate) fn is_in_arena_of(&self, pool: &BufferPool) -> bool {
        matches!(self.home, Home::Arena { .. }) && self.pool.as_ref().is_some_and(|own| Arc::ptr_eq(&own.0, &pool.0))
    }

    /// Declares the first `len` bytes filled.
    ///
    /// # Safety
    /// They must have been written (by the kernel), and `len` must not exceed the capacity.
    pub(crate) unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity);
        self.len = len;
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and belong to `self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match (&mut self.home, &self.pool) {
            (Home::Arena { start }, Some(pool)) => pool.0.give_back(*start, self.capacity),
            (Home::Own(memory), _) => memory.take().map_or((), Memory::give_back),
            // Only pools have arenas.
            (Home::Arena { .. }, None) => {}
        }
        if let Some(pool) = &self.pool {
            pool.0.used.fetch_sub(self.capacity, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AlignedBuf, BufferPool};
    use holdfast_libs_types::PAGE_BYTES;

    #[test]
    fn buffers_start_on_a_page_and_keep_what_was_put_in() {
        let pool = BufferPool::new(4 * PAGE_BYTES, 16 * PAGE_BYTES);
        let mut buffers: Vec<_> = (0..6).map(|_| pool.take(5000).unwrap()).collect();
        for (n, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.as_mut_ptr() as usize % PAGE_BYTES, 0);
            buffer.extend_from_slice(&[n as u8; 100]).unwrap();
            buffer.extend_from_slice(&[n as u8; 8000]).unwrap();
            assert!(buffer.extend_from_slice(&[0; 100]).is_err());
        }
        for (n, buffer) in buffers.iter().enumerate() {
            assert_eq!(**buffer, [n as u8; 8100]);
        }
        assert_eq!(buffers.iter().filter(|buffer| buffer.is_in_arena_of(&pool)).count(), 2);
    }

    #[test]
    fn the_budget_bounds_what_is_in_use_and_returned_buffers_can_be_taken_again() {
        let pool = BufferPool::new(4 * PAGE_BYTES, 8 * PAGE_BYTES);
        for _ in 0..3 {
            let a = pool.take(PAGE_BYTES).unwrap();
            let b = pool.take(2 * PAGE_BYTES).unwrap();
            let c = pool.take(PAGE_BYTES).unwrap();
            drop(b);
            drop(a);
            drop(c);
            let whole = pool.take(4 * PAGE_BYTES).unwrap();
            assert!(whole.is_in_arena_of(&pool), "gaps are merged");
            let _heap = pool.take(4 * PAGE_BYTES).unwrap();
            assert!(pool.take(1).is_none());
        }
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_copy_holds_the_same_bytes() {
        assert_eq!(*AlignedBuf::copy_of(b"abc"), *b"abc");
    }
}
