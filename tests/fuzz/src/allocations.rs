//! How much memory a parser asks for: every allocation of the process is counted.

#![allow(unsafe_code)] // An allocator is an unsafe trait; this one only counts and hands on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes asked for since the process started; what grows in place counts by its growth.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// One request above this ends the process: no input of a target is a hundredth as long.
const MOST_AT_ONCE_BYTES: usize = 1 << 30;

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counted;

// SAFETY: every call goes to the system's allocator with the very arguments, or answers null, which says "none left".
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_AT_ONCE_BYTES {
            return std::ptr::null_mut();
        }
        ASKED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps GlobalAlloc's contract, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_AT_ONCE_BYTES {
            return std::ptr::null_mut();
        }
        ASKED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        if new_bytes > MOST_AT_ONCE_BYTES {
            return std::ptr::null_mut();
        }
        ASKED.fetch_add(new_bytes.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Bytes asked for so far.
pub fn asked() -> u64 {
    ASKED.load(Ordering::Relaxed)
}
