//! Page-aligned memory: small pieces from the allocator, large ones mapped and kept for the next who needs one.
//!
//! Fresh memory costs a page fault for every 4 KiB, and the kernel pins and maps it page by page at each I/O: for a
//! batch of 4 MiB that is more CPU than its checksum. So large pieces start on a huge page, ask for huge pages, and
//! are reused warm. What is kept is bounded for the whole process, however many disks it has.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use holdfast_libs_types::PAGE_BYTES;

/// From this size on memory is mapped.
const LARGE_BYTES: usize = 1 << 20;
/// The kernel's huge page.
const HUGE_BYTES: usize = 2 << 20;
/// Most bytes kept for reuse: a few batches in flight. Above it memory goes back to the system at once.
const MOST_SPARE_BYTES: usize = 64 << 20;

static SPARE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// A piece of memory that starts on a page; not initialised, or with what stood there before.
#[derive(Debug)]
pub(crate) struct Memory {
    pointer: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives the address only.
unsafe impl Sync for Memory {}

impl Memory {
    /// At least `bytes` (whole pages, not 0), from what is kept if a piece fits without wasting more than half of it.
    pub(crate) fn take(bytes: usize) -> Self {
        if bytes >= LARGE_BYTES {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            // The last one given back is the warmest.
            if let Some(at) = spare.iter().rposition(|piece| piece.bytes >= bytes && piece.bytes / 2 <= bytes) {
                return spare.remove(at);
            }
        }
        Self::fresh(bytes)
    }

    /// Exactly `bytes` (whole pages, not 0).
    pub(crate) fn fresh(bytes: usize) -> Self {
        let layout = layout(bytes);
        // SAFETY: the size is not 0 by contract.
        let pointer = if bytes < LARGE_BYTES { unsafe { alloc(layout) } } else { map(bytes) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout));
        Self { pointer, bytes }
    }

    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Keeps it for the next, or gives it back to the system.
    pub(crate) fn give_back(self) {
        if self.bytes >= LARGE_BYTES {
            let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.iter().map(|piece| piece.bytes).sum::<usize>() + self.bytes <= MOST_SPARE_BYTES {
                spare.push(self);
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes < LARGE_BYTES {
            // SAFETY: allocated with this very layout; `self` is its only owner.
            unsafe { dealloc(self.pointer.as_ptr(), layout(self.bytes)) };
        } else {
            // SAFETY: mapped with this length; `self` is its only owner.
            unsafe { libc::munmap(self.pointer.as_ptr().cast(), self.bytes) };
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE_BYTES).expect("the page size is a power of two and sizes are bounded")
}

/// Maps `bytes` from a huge page on; null when there is no memory.
fn map(bytes: usize) -> *mut u8 {
    let whole = bytes + HUGE_BYTES;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, of which the parts before and behind the wanted one are taken down again before anybody
    // knows of them. All addresses and lengths are whole pages.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let before = start.align_offset(HUGE_BYTES);
        let wanted = start.byte_add(before);
        if before > 0 {
            libc::munmap(start, before);
        }
        if HUGE_BYTES > before {
            libc::munmap(wanted.byte_add(bytes), HUGE_BYTES - before);
        }
        // A kernel without huge pages refuses; small ones do.
        libc::madvise(wanted, bytes, libc::MADV_HUGEPAGE);
        wanted.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGE_BYTES, MOST_SPARE_BYTES, Memory, SPARE};

    #[test]
    fn large_memory_is_whole_reused_and_what_is_kept_is_bounded() {
        let pieces: Vec<_> = (0..MOST_SPARE_BYTES / LARGE_BYTES + 8)
            .map(|n| {
                let piece = Memory::take(LARGE_BYTES + 4096);
                // SAFETY: the test owns the memory, all of it.
                unsafe { piece.pointer().write_bytes(n as u8, LARGE_BYTES + 4096) };
                piece
            })
            .collect();
        for (n, piece) in pieces.iter().enumerate() {
            // SAFETY: as above.
            let (first, last) = unsafe { (piece.pointer().read(), piece.pointer().add(LARGE_BYTES + 4095).read()) };
            assert_eq!((first, last), (n as u8, n as u8), "no two pieces overlap");
        }
        pieces.into_iter().for_each(Memory::give_back);
        let spare = SPARE.lock().unwrap();
        let kept: usize = spare.iter().map(|piece| piece.bytes).sum();
        assert!(kept > MOST_SPARE_BYTES / 2, "{kept} bytes are kept");
        assert!(kept <= MOST_SPARE_BYTES, "{kept} bytes are kept");
    }
}
