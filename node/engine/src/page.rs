//! Fields at fixed places in a 4 KiB page whose last four bytes are the CRC-32 (IEEE) of all before them.

use holdfast_libs_types::PAGE_BYTES;

/// Where the checksum of a page stands.
pub(crate) const PAGE_CRC_AT: usize = PAGE_BYTES - 4;

/// Counters are raised by one at a write: one beyond this was never counted to, and could not be raised for ever.
pub(crate) const MOST_COUNT: u64 = 1 << 62;

/// A page under construction.
pub(crate) struct PageWriter(Box<[u8; PAGE_BYTES]>);

impl PageWriter {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; PAGE_BYTES]))
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Fills in the checksum.
    pub(crate) fn finish(mut self) -> Box<[u8; PAGE_BYTES]> {
        let crc = crc32fast::hash(&self.0[..PAGE_CRC_AT]);
        self.put_u32(PAGE_CRC_AT, crc);
        self.0
    }
}

/// A page whose checksum was found right.
pub(crate) struct PageReader<'a>(&'a [u8]);

/// Why bytes are no such page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageFault {
    /// Nothing was ever written here.
    Blank,
    Short,
    Magic,
    Checksum,
}

/// Whether bytes, a page at most, are all zero. Compared at once: a mount looks at every page of a disk's areas, and most were
/// never written.
pub(crate) fn is_blank(bytes: &[u8]) -> bool {
    [0; PAGE_BYTES].starts_with(bytes)
}

impl<'a> PageReader<'a> {
    pub(crate) fn open(bytes: &'a [u8], magic: &[u8]) -> Result<Self, PageFault> {
        let page = bytes.get(..PAGE_BYTES).ok_or(PageFault::Short)?;
        if !page.starts_with(magic) {
            return Err(if is_blank(page) { PageFault::Blank } else { PageFault::Magic });
        }
        let reader = Self(page);
        if crc32fast::hash(&page[..PAGE_CRC_AT]) != reader.u32(PAGE_CRC_AT) {
            return Err(PageFault::Checksum);
        }
        Ok(reader)
    }

    pub(crate) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        Self::array_of(self.0, at)
    }

    /// The `N` bytes at `at` of any bytes that reach that far.
    pub(crate) fn array_of<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&bytes[at..at + N]);
        out
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}
