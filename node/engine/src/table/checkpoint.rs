//! A copy of the extent table: a header page, then pages of entries, in slot order.
//!
//! ```text
//! offset  size  field (header page)
//!      0     4  magic "HFTC"
//!      4     1  version (1)
//!      5     3  zero
//!      8     8  generation of the checkpoint; it stands in copy A when even, in B when odd
//!     16    16  disk id
//!     32     8  sequence that the first block of its log has
//!     40     4  slots
//!     44     4  CRC-32 (IEEE) of the pages' checksums, in order
//!     48    56  facts
//!    104  3988  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//!
//! offset  size  field (page of entries)
//!      0     4  magic "HFTP"
//!      4     1  version (1)
//!      5     3  zero
//!      8     8  generation of the checkpoint
//!     16    16  disk id
//!     32     4  number of the page
//!     36    88  zero
//!    124     4  CRC-32 (IEEE) of bytes 0..124 and 128..4096
//!    128  3968  31 entries of 128 bytes; past the last slot zero
//! ```

use holdfast_libs_types::{DiskId, PAGE_BYTES};

use super::entry::{ENTRY_BYTES, Entry};
use super::{Facts, TableFault};
use crate::geometry::{ENTRIES_PER_PAGE, table_pages};
use crate::page::{MOST_COUNT, PageReader, PageWriter, is_blank};

const HEADER_MAGIC: &[u8; 4] = b"HFTC";
const PAGE_MAGIC: &[u8; 4] = b"HFTP";
const VERSION: u8 = 1;
/// Generation of a new disk's checkpoint.
pub(crate) const FRESH_GENERATION: u64 = 1;
const FACTS_AT: usize = 48;
const CRC_AT: usize = 124;
const ENTRIES_AT: usize = 128;

/// What a checkpoint says about itself; written when all of its pages are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) generation: u64,
    /// Sequence of the first block of its log.
    pub(crate) first_sequence: u64,
    pub(crate) slots: u32,
    pub(crate) pages_crc: u32,
    pub(crate) facts: Facts,
}

impl CheckpointHeader {
    pub(crate) fn encode(&self, disk: DiskId) -> Box<[u8; PAGE_BYTES]> {
        let mut page = PageWriter::new();
        page.put(0, HEADER_MAGIC);
        page.put(4, &[VERSION]);
        page.put_u64(8, self.generation);
        page.put(16, disk.as_bytes());
        page.put_u64(32, self.first_sequence);
        page.put_u32(40, self.slots);
        page.put_u32(44, self.pages_crc);
        self.facts.put(&mut page, FACTS_AT);
        page.finish()
    }

    /// The header in copy `copy` (0 or 1) of a table of `slots`.
    pub(crate) fn decode(bytes: &[u8], disk: DiskId, copy: u64, slots: u32) -> Result<Self, TableFault> {
        let page = PageReader::open(bytes, HEADER_MAGIC)?;
        if page.u8(4) != VERSION {
            return Err(TableFault::Version(page.u8(4)));
        }
        let header = Self {
            generation: page.u64(8),
            first_sequence: page.u64(32),
            slots: page.u32(40),
            pages_crc: page.u32(44),
            facts: Facts::get(&page, FACTS_AT),
        };
        if page.array(16) != disk.0 || header.generation % 2 != copy {
            return Err(TableFault::Elsewhere);
        }
        if header.slots != slots {
            return Err(TableFault::Impossible(format!("of {} slots, but the disk has {slots}", header.slots)));
        }
        if header.generation == 0 || header.generation > MOST_COUNT || header.first_sequence > MOST_COUNT {
            return Err(TableFault::Impossible("with numbers that nobody counts up to".to_owned()));
        }
        Ok(header)
    }
}

/// One page of entries. `entries` are those of the slots from `number * 31` on, at most 31.
pub(crate) fn encode_page(
    disk: DiskId,
    generation: u64,
    number: u32,
    entries: impl Iterator<Item = Entry>,
) -> Box<[u8; PAGE_BYTES]> {
    let mut page = Box::new([0; PAGE_BYTES]);
    page[..4].copy_from_slice(PAGE_MAGIC);
    page[4] = VERSION;
    page[8..16].copy_from_slice(&generation.to_le_bytes());
    page[16..32].copy_from_slice(disk.as_bytes());
    page[32..36].copy_from_slice(&number.to_le_bytes());
    for (place, entry) in page[ENTRIES_AT..].chunks_exact_mut(ENTRY_BYTES).zip(entries) {
        place.copy_from_slice(&entry.encode());
    }
    let crc = page_crc(&page);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    page
}

fn page_crc(page: &[u8; PAGE_BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&page[..CRC_AT]);
    crc.update(&page[ENTRIES_AT..]);
    crc.finalize()
}

/// Reads or checks pages one after the other; at the end, their checksums in one.
pub(crate) struct Pages {
    disk: DiskId,
    generation: u64,
    slots: u32,
    next: u32,
    crc: crc32fast::Hasher,
}

impl Pages {
    pub(crate) fn new(disk: DiskId, generation: u64, slots: u32) -> Self {
        Self { disk, generation, slots, next: 0, crc: crc32fast::Hasher::new() }
    }

    /// From page `number` on, for whoever makes up single pages; `None` past the last.
    pub(crate) fn starting_at(disk: DiskId, generation: u64, slots: u32, number: u32) -> Option<Self> {
        let pages = Self { next: number, ..Self::new(disk, generation, slots) };
        (u64::from(number) < table_pages(slots)).then_some(pages)
    }

    /// Encodes the next page, with the entries that `entry_of` knows.
    pub(crate) fn encode_next(&mut self, entry_of: impl FnMut(u32) -> Entry) -> Box<[u8; PAGE_BYTES]> {
        let slots = self.next_slots();
        let page = encode_page(self.disk, self.generation, self.next, slots.map(entry_of));
        self.passed(&page);
        page
    }

    /// Checks the next page and hands its entries to `take`, in slot order.
    pub(crate) fn decode_next(&mut self, bytes: &[u8], mut take: impl FnMut(u32, Entry)) -> Result<(), TableFault> {
        let page: &[u8; PAGE_BYTES] = bytes.try_into().map_err(|_| TableFault::Damaged)?;
        if !page.starts_with(PAGE_MAGIC) {
            return Err(if is_blank(page) { TableFault::Blank } else { TableFault::Damaged });
        }
        let stands = PageReader::array_of(page, CRC_AT);
        if page_crc(page) != u32::from_le_bytes(stands) {
            return Err(TableFault::Damaged);
        }
        if page[4] != VERSION {
            return Err(TableFault::Version(page[4]));
        }
        let generation = u64::from_le_bytes(PageReader::array_of(page, 8));
        let number = u32::from_le_bytes(PageReader::array_of(page, 32));
        if PageReader::array_of(page, 16) != self.disk.0 || (generation, number) != (self.generation, self.next) {
            return Err(TableFault::Elsewhere);
        }
        for (n, slot) in self.next_slots().enumerate() {
            let entry = Entry::decode(&PageReader::array_of(page, ENTRIES_AT + n * ENTRY_BYTES));
            take(slot, entry.ok_or_else(|| TableFault::Impossible(format!("no state of slot {slot}")))?);
        }
        self.passed(page);
        Ok(())
    }

    fn next_slots(&self) -> std::ops::Range<u32> {
        let first = self.next.saturating_mul(ENTRIES_PER_PAGE);
        first..first.saturating_add(ENTRIES_PER_PAGE).min(self.slots)
    }

    fn passed(&mut self, page: &[u8; PAGE_BYTES]) {
        self.crc.update(&page[CRC_AT..CRC_AT + 4]);
        self.next += 1;
    }

    /// Goes on behind a page that is bad; the checksum is no longer of all pages.
    pub(crate) fn skip(&mut self) {
        self.next += 1;
    }

    /// Whether every page went by.
    pub(crate) fn is_done(&self) -> bool {
        u64::from(self.next) == table_pages(self.slots)
    }

    /// The checksum over all pages' checksums.
    pub(crate) fn crc(self) -> u32 {
        self.crc.finalize()
    }
}

/// The first checkpoint of a disk on which no slot was ever used: its pages in order, then its header, each with its
/// place in bytes from the start of the copy ([`FRESH_GENERATION`] tells which).
pub(crate) fn fresh(disk: DiskId, slots: u32) -> impl Iterator<Item = (u64, Box<[u8; PAGE_BYTES]>)> {
    let mut pages = Some(Pages::new(disk, FRESH_GENERATION, slots));
    let mut at = 0;
    std::iter::from_fn(move || {
        at += PAGE_BYTES as u64;
        if let Some(pages) = pages.as_mut().filter(|pages| !pages.is_done()) {
            return Some((at, pages.encode_next(|_| Entry::blank())));
        }
        let pages_crc = pages.take()?.crc();
        let facts = Facts::default();
        let header = CheckpointHeader { generation: FRESH_GENERATION, first_sequence: 1, slots, pages_crc, facts };
        Some((0, header.encode(disk)))
    })
}

/// The generation that a page of entries carries, if it is one of this disk; says which generations were ever begun.
pub(crate) fn generation_of_page(bytes: &[u8], disk: DiskId) -> Option<u64> {
    let page: &[u8; PAGE_BYTES] = bytes.try_into().ok()?;
    let whole = page.starts_with(PAGE_MAGIC)
        && page_crc(page) == u32::from_le_bytes(PageReader::array_of(page, CRC_AT))
        && PageReader::array_of(page, 16) == disk.0;
    whole.then(|| u64::from_le_bytes(PageReader::array_of(page, 8))).filter(|generation| *generation <= MOST_COUNT)
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, PAGE_BYTES};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::super::entry::tests::{entries, sample};
    use super::super::{Facts, ScrubCursor};
    use super::{CheckpointHeader, Entry, Pages, TableFault};

    const DISK: DiskId = DiskId([0xd1; 16]);

    pub(crate) fn header() -> CheckpointHeader {
        CheckpointHeader {
            generation: 5,
            first_sequence: 77,
            slots: 33,
            pages_crc: 0xdead_beef,
            facts: Facts {
                uptime_s: 3600,
                term: 12,
                scrub: ScrubCursor { slot: 9, round: 2, round_began_s: 1800, last_round_ended_s: 1700, found_total: 3 },
            },
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_a_checkpoint_header() {
        let page = header().encode(DISK);
        let golden = concat!(
            "4846544301000000",
            "0500000000000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "4d00000000000000",
            "21000000efbeadde",
            "100e0000000000000c00000000000000",
            "09000000000000000200000000000000",
            "0807000000000000a406000000000000",
            "0300000000000000",
        );
        assert_eq!(hex(&page[..104]), golden);
        assert!(page[104..4092].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&page[4092..]), "bfe7816e");
        assert_eq!(CheckpointHeader::decode(&page[..], DISK, 1, 33), Ok(header()));
    }

    #[test]
    fn golden_bytes_of_a_page_of_entries() {
        let mut pages = Pages::new(DISK, 5, 33);
        pages.encode_next(|_| Entry::blank());
        let page = pages.encode_next(|slot| if slot == 31 { sample() } else { Entry::blank() });
        assert_eq!(hex(&page[..36]), "48465450010000000500000000000000d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d101000000");
        assert!(page[36..124].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&page[124..128]), "df0f2731");
        assert_eq!(page[128..256], sample().encode());
        assert_eq!(page[256..384], Entry::blank().encode());
        assert!(page[384..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_header_in_the_wrong_copy_or_of_another_disk_is_not_believed() {
        let page = header().encode(DISK);
        assert_eq!(CheckpointHeader::decode(&page[..], DISK, 0, 33), Err(TableFault::Elsewhere));
        assert_eq!(CheckpointHeader::decode(&page[..], DiskId([1; 16]), 1, 33), Err(TableFault::Elsewhere));
        assert!(CheckpointHeader::decode(&page[..], DISK, 1, 34).is_err());
    }

    #[test]
    fn pages_out_of_order_or_of_another_checkpoint_are_not_believed() {
        let mut writer = Pages::new(DISK, 5, 40);
        let (first, second) = (writer.encode_next(|_| sample()), writer.encode_next(|_| sample()));
        let read = |page: &[u8], generation| Pages::new(DISK, generation, 40).decode_next(page, |_, _| {});
        assert_eq!(read(&first[..], 5), Ok(()));
        assert_eq!(read(&second[..], 5), Err(TableFault::Elsewhere));
        assert_eq!(read(&first[..], 7), Err(TableFault::Elsewhere));
        assert_eq!(read(&[0; PAGE_BYTES], 5), Err(TableFault::Blank));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(list in prop::collection::vec(entries(), 1..100)) {
            let slots = list.len() as u32;
            let (mut writer, mut reader) = (Pages::new(DISK, 8, slots), Pages::new(DISK, 8, slots));
            let mut read = Vec::new();
            while !writer.is_done() {
                let page = writer.encode_next(|slot| list[slot as usize].clone());
                prop_assert_eq!(reader.decode_next(&page[..], |_, entry| read.push(entry)), Ok(()));
            }
            prop_assert!(reader.is_done() && reader.crc() == writer.crc());
            prop_assert_eq!(read, list);
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..PAGE_BYTES * 8) {
            let mut page = header().encode(DISK);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(CheckpointHeader::decode(&page[..], DISK, 1, 33).is_err());
            let mut page = Pages::new(DISK, 5, 33).encode_next(|_| sample());
            page[bit / 8] ^= 1 << (bit % 8);
            let read = Pages::new(DISK, 5, 33).decode_next(&page[..], |_, _| {});
            prop_assert!(read.is_err());
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000), at in 0usize..4000) {
            prop_assert!(CheckpointHeader::decode(&bytes, DISK, 0, 3).is_err());
            let read = Pages::new(DISK, 5, 33).decode_next(&bytes, |_, _| {});
            prop_assert!(read.is_err());
            // And with the right frame around them.
            let mut page = *Pages::new(DISK, 5, 33).encode_next(|_| sample());
            let len = bytes.len().min(PAGE_BYTES - at);
            page[at..at + len].copy_from_slice(&bytes[..len]);
            let crc = super::page_crc(&page);
            page[124..128].copy_from_slice(&crc.to_le_bytes());
            let _ = Pages::new(DISK, 5, 33).decode_next(&page, |_, _| {});
        }
    }
}
