//! What stands on the media: pages that were written, over pages that a source makes up, over zeroes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// A page, bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// Makes up the pages of a disk that were never written, by their number: a disk of 20 TB full of extents needs no memory
/// but for what is written to it. `None` is a page of zeroes.
pub type PageSource = Box<dyn Fn(u64) -> Option<Box<[u8; PAGE_BYTES]>>>;

/// Page numbers spread well enough by one multiplication; the default hasher would be a tenth of a simulation's time.
#[derive(Debug, Clone, Copy, Default)]
struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, page: u64) {
        self.0 = (self.0 ^ page).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    }
}

type Pages = HashMap<u64, Box<[u8; PAGE_BYTES]>, BuildHasherDefault<PageHasher>>;

/// The pages.
#[derive(Default)]
pub(super) struct Media {
    written: Pages,
    source: Option<PageSource>,
}

/// The written pages of a moment.
pub(super) struct Copy(Pages);

impl Media {
    pub(super) fn set_source(&mut self, source: PageSource) {
        self.source = Some(source);
    }

    pub(super) fn copy(&self) -> Copy {
        Copy(self.written.clone())
    }

    pub(super) fn put_back(&mut self, copy: &Copy) {
        self.written = copy.0.clone();
    }

    pub(super) fn is_written(&self, page: u64) -> bool {
        self.written.contains_key(&page)
    }

    /// The `len` bytes that stand at `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        for (page, within, part) in parts(offset, len) {
            let made_up;
            let bytes = match (self.written.get(&page), &self.source) {
                (None, Some(source)) => {
                    made_up = source(page);
                    made_up.as_ref()
                }
                (written, _) => written,
            };
            match bytes {
                Some(bytes) => out.extend_from_slice(&bytes[within..within + part.len()]),
                None => out.resize(part.end, 0),
            }
        }
        out
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, part) in parts(offset, bytes.len()) {
            let bytes = &bytes[part];
            if let Ok(whole) = <&[u8; PAGE_BYTES]>::try_from(bytes) {
                match self.written.get_mut(&page) {
                    Some(there) => **there = *whole,
                    None => drop(self.written.insert(page, Box::new(*whole))),
                }
                continue;
            }
            let source = self.source.as_ref();
            let blank = || source.and_then(|source| source(page)).unwrap_or_else(|| Box::new([0; PAGE_BYTES]));
            self.written.entry(page).or_insert_with(blank)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Makes whole pages zero.
    pub(super) fn blank(&mut self, pages: Range<u64>) {
        if self.source.is_some() {
            pages.for_each(|page| drop(self.written.insert(page, Box::new([0; PAGE_BYTES]))));
        } else if pages.end - pages.start < self.written.len() as u64 {
            pages.for_each(|page| drop(self.written.remove(&page)));
        } else {
            self.written.retain(|page, _| !pages.contains(page));
        }
    }

    /// The written pages, in order.
    pub(super) fn written_pages(&self) -> Vec<u64> {
        let mut pages: Vec<u64> = self.written.keys().copied().collect();
        pages.sort_unstable();
        pages
    }
}

/// Cuts a run of bytes at pages: page, first byte within it, place within the run.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let start = done;
        done += (PAGE_BYTES - within).min(len - done);
        Some((at / PAGE_BYTES as u64, within, start..done))
    })
}

#[cfg(test)]
mod tests {
    use super::{Media, PAGE_BYTES};

    #[test]
    fn what_was_written_stands_over_what_the_source_makes_up() {
        let mut media = Media::default();
        media.set_source(Box::new(|page| (page > 0).then(|| Box::new([page as u8; PAGE_BYTES]))));
        let far = 5_000_000_000 * PAGE_BYTES as u64;
        media.write(4096 + 512, &[9; 512]);
        media.write(far, &[8; PAGE_BYTES]);
        assert_eq!(media.read(4000, 700), [vec![0; 96], vec![1; 512], vec![9; 92]].concat());
        assert_eq!(media.read(far - 1, 3), [(4_999_999_999_u64 % 256) as u8, 8, 8]);
        media.blank(1..2);
        assert_eq!(media.read(4096, 4096), [0; 4096]);
    }
}
