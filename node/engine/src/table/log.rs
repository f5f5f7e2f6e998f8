//! A block of the table's log: one page, with the states that slots took.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFTL"
//!      4     1  version (1)
//!      5     1  zero
//!      6     2  entries
//!      8     8  generation of the checkpoint that it goes on from; it stands in the first half when even
//!     16    16  disk id
//!     32     8  sequence: one more than that of the block before, over checkpoints
//!     40    56  facts
//!     96  3828  up to 29 times: slot number (4), entry (128)
//!   3924   168  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//! ```

use holdfast_libs_types::{DiskId, PAGE_BYTES};

use super::entry::{ENTRY_BYTES, Entry};
use super::{Facts, TableFault};
use crate::page::{MOST_COUNT, PageReader, PageWriter};

const MAGIC: &[u8; 4] = b"HFTL";
const VERSION: u8 = 1;
const FACTS_AT: usize = 40;
const ENTRIES_AT: usize = 96;
const STEP: usize = 4 + ENTRY_BYTES;

/// Most entries of one block.
pub(crate) const MAX_BLOCK_ENTRIES: usize = 29;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogBlock {
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) facts: Facts,
    /// Slots with their new states, at most [`MAX_BLOCK_ENTRIES`]; of two for one slot the later holds.
    pub(crate) entries: Vec<(u32, Entry)>,
}

impl LogBlock {
    pub(crate) fn encode(&self, disk: DiskId) -> Box<[u8; PAGE_BYTES]> {
        let mut page = PageWriter::new();
        page.put(0, MAGIC);
        page.put(4, &[VERSION]);
        let entries = &self.entries[..self.entries.len().min(MAX_BLOCK_ENTRIES)];
        page.put(6, &(entries.len() as u16).to_le_bytes());
        page.put_u64(8, self.generation);
        page.put(16, disk.as_bytes());
        page.put_u64(32, self.sequence);
        self.facts.put(&mut page, FACTS_AT);
        for (n, (slot, entry)) in entries.iter().enumerate() {
            page.put_u32(ENTRIES_AT + n * STEP, *slot);
            page.put(ENTRIES_AT + n * STEP + 4, &entry.encode());
        }
        page.finish()
    }

    /// The block in half `half` (0 or 1) of the log of a table of `slots`.
    pub(crate) fn decode(bytes: &[u8], disk: DiskId, half: u64, slots: u32) -> Result<Self, TableFault> {
        let page = PageReader::open(bytes, MAGIC)?;
        if page.u8(4) != VERSION {
            return Err(TableFault::Version(page.u8(4)));
        }
        let (generation, sequence) = (page.u64(8), page.u64(32));
        if page.array(16) != disk.0 || generation % 2 != half {
            return Err(TableFault::Elsewhere);
        }
        let count = usize::from(u16::from_le_bytes(page.array(6)));
        if count > MAX_BLOCK_ENTRIES || generation > MOST_COUNT || sequence > MOST_COUNT {
            return Err(TableFault::Impossible("with numbers that nobody counts up to".to_owned()));
        }
        let entries = (0..count).map(|n| {
            let slot = page.u32(ENTRIES_AT + n * STEP);
            let entry = Entry::decode(&page.array(ENTRIES_AT + n * STEP + 4)).filter(|_| slot < slots);
            Ok((slot, entry.ok_or_else(|| TableFault::Impossible(format!("no state of slot {slot}")))?))
        });
        let entries = entries.collect::<Result<_, TableFault>>()?;
        Ok(Self { generation, sequence, facts: Facts::get(&page, FACTS_AT), entries })
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, PAGE_BYTES};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::super::entry::tests::{entries, sample};
    use super::super::{Facts, ScrubCursor};
    use super::{LogBlock, TableFault};

    const DISK: DiskId = DiskId([0xd1; 16]);

    fn block() -> LogBlock {
        let facts = Facts { uptime_s: 3600, term: 12, scrub: ScrubCursor::default() };
        LogBlock { generation: 6, sequence: 78, facts, entries: vec![(3, sample()), (7, sample())] }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_a_log_block() {
        let page = block().encode(DISK);
        let golden = concat!(
            "4846544c01000200",
            "0600000000000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "4e00000000000000",
            "100e0000000000000c00000000000000",
            "00000000000000000000000000000000",
            "00000000000000000000000000000000",
            "0000000000000000",
        );
        assert_eq!(hex(&page[..96]), golden);
        assert_eq!((&page[96..100], &page[100..228]), (&[3, 0, 0, 0][..], &sample().encode()[..]));
        assert_eq!((&page[228..232], &page[232..360]), (&[7, 0, 0, 0][..], &sample().encode()[..]));
        assert!(page[360..4092].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&page[4092..]), "78e48cdc");
        assert_eq!(LogBlock::decode(&page[..], DISK, 0, 8), Ok(block()));
    }

    #[test]
    fn a_block_in_the_wrong_half_or_of_another_disk_or_slot_is_not_believed() {
        let page = block().encode(DISK);
        assert_eq!(LogBlock::decode(&page[..], DISK, 1, 8), Err(TableFault::Elsewhere));
        assert_eq!(LogBlock::decode(&page[..], DiskId([1; 16]), 0, 8), Err(TableFault::Elsewhere));
        assert!(matches!(LogBlock::decode(&page[..], DISK, 0, 7), Err(TableFault::Impossible(_))));
        assert_eq!(LogBlock::decode(&[0; PAGE_BYTES], DISK, 0, 8), Err(TableFault::Blank));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(
            numbers in any::<[u32; 9]>(), list in prop::collection::vec((0u32..1000, entries()), 0..30)
        ) {
            let number = |n: usize| u64::from(numbers[n]);
            let scrub = ScrubCursor {
                slot: numbers[4],
                round: number(5),
                round_began_s: number(6),
                last_round_ended_s: number(7),
                found_total: number(8),
            };
            let facts = Facts { uptime_s: number(2), term: number(3), scrub };
            let block = LogBlock { generation: number(0), sequence: number(1), facts, entries: list };
            let page = block.encode(DISK);
            prop_assert_eq!(LogBlock::decode(&page[..], DISK, number(0) % 2, 1000), Ok(block));
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..PAGE_BYTES * 8) {
            let mut page = block().encode(DISK);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(LogBlock::decode(&page[..], DISK, 0, 8).is_err());
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000), at in 4usize..4000) {
            prop_assert!(LogBlock::decode(&bytes, DISK, 0, 8).is_err());
            let mut page = block().encode(DISK);
            let len = bytes.len().min(4092 - at);
            page[at..at + len].copy_from_slice(&bytes[..len]);
            let crc = crc32fast::hash(&page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
            let _ = LogBlock::decode(&page[..], DISK, 0, 8);
        }
    }
}
