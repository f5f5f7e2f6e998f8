//! One slot's state in the extent table and its log.
//!
//! ```text
//! offset  size  field
//!      0     1  state (as in the slot header)
//!      1     1  flags: bit 0, the extent holds no records; bit 1, the header may be behind; bit 2, lost;
//!               bit 3, a scrub found damage in it
//!      2     1  state before it went to trash
//!      3     1  home: the header page (0 or 1) that holds, or is to hold, this state
//!      4     4  generation of the slot
//!      8     8  generation of the header
//!     16     4  records: rows of the footer's record table
//!     20     4  footer offset, pages
//!     24    16  volume id
//!     40     8  write epoch
//!     48     8  epoch that the batches of this extent carry
//!     56     8  highest leader term seen for it
//!     64     8  length, bytes
//!     72    32  SHA-256 of [0, length)
//!    104     8  disk uptime at which it went to trash, seconds
//!    112    16  order by which it went to trash
//! ```
//! The digest is in it, so that a mount needs no header of a sealed slot to know what it holds.

use holdfast_libs_types::{VolumeId, WriteEpoch};

use crate::geometry::Geometry;
use crate::page::PageReader;
use crate::slot_header::{SlotHeader, SlotHeaderError, SlotState};

/// Bytes of one entry.
pub(crate) const ENTRY_BYTES: usize = 128;

const NO_RECORDS: u8 = 1;
const BEHIND: u8 = 2;
const LOST: u8 = 4;
const DAMAGED: u8 = 8;
const FLAGS: u8 = NO_RECORDS | BEHIND | LOST | DAMAGED;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) header: SlotHeader,
    /// The header page that holds it.
    pub(crate) page: u8,
    /// The header pages may not say so yet: a mount writes them.
    pub(crate) behind: bool,
    /// When the table was rebuilt, no header of the slot could be believed: kept out of use, looked at again at every
    /// mount.
    pub(crate) lost: bool,
}

impl Entry {
    /// A slot that was never used. Its first header goes to page A.
    pub(crate) fn blank() -> Self {
        Self { header: SlotHeader::blank(), page: 1, behind: false, lost: false }
    }

    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let header = &self.header;
        let flag = |on, bit| if on { bit } else { 0 };
        let of_header = flag(header.no_records, NO_RECORDS) | flag(header.damaged, DAMAGED);
        let flags = of_header | flag(self.behind, BEHIND) | flag(self.lost, LOST);
        put(0, &[header.state as u8, flags, header.state_before as u8, self.page]);
        put(4, &header.slot_generation.to_le_bytes());
        put(8, &header.generation.to_le_bytes());
        put(16, &header.records.to_le_bytes());
        put(20, &header.footer_offset.to_le_bytes());
        put(24, header.volume.as_bytes());
        put(40, &header.epoch.0.to_le_bytes());
        put(48, &header.append_epoch.0.to_le_bytes());
        put(56, &header.term.to_le_bytes());
        put(64, &header.length.to_le_bytes());
        put(72, &header.digest);
        put(104, &header.trashed_at.to_le_bytes());
        put(112, &header.order);
        out
    }

    /// `None` when no entry looks like that, though the checksum around it is right.
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let u32_at = |at| u32::from_le_bytes(PageReader::array_of(bytes, at));
        let u64_at = |at| u64::from_le_bytes(PageReader::array_of(bytes, at));
        let [state, flags, state_before, page] = PageReader::array_of(bytes, 0);
        if flags & !FLAGS != 0 || page > 1 {
            return None;
        }
        let header = SlotHeader {
            state: SlotState::from_code(state)?,
            no_records: flags & NO_RECORDS != 0,
            damaged: flags & DAMAGED != 0,
            state_before: SlotState::from_code(state_before)?,
            records: u32_at(16),
            generation: u64_at(8),
            slot_generation: u32_at(4),
            footer_offset: u32_at(20),
            volume: VolumeId(PageReader::array_of(bytes, 24)),
            epoch: WriteEpoch(u64_at(40)),
            append_epoch: WriteEpoch(u64_at(48)),
            term: u64_at(56),
            length: u64_at(64),
            digest: PageReader::array_of(bytes, 72),
            trashed_at: u64_at(104),
            order: PageReader::array_of(bytes, 112),
        };
        Some(Self { header, page, behind: flags & BEHIND != 0, lost: flags & LOST != 0 })
    }

    /// Whether it would lead outside of its slot, which this engine never writes.
    pub(crate) fn is_beyond(&self, geometry: &Geometry) -> bool {
        self.header.clone().within(geometry).is_err()
    }

    /// Which header pages (A, B) must be written so that they agree with this entry; an error when a header is newer
    /// than the table, which the order of writes excludes.
    ///
    /// The home page must hold exactly this state. The other one may be a state behind, but of the same use: free or
    /// used as this one is, and of the same slot generation, so that one damaged page never hides that.
    pub(crate) fn pages_behind(&self, found: [&Result<SlotHeader, SlotHeaderError>; 2]) -> Result<[bool; 2], String> {
        let newest = found.iter().filter_map(|page| page.as_ref().ok()).map(|header| header.generation).max();
        if let Some(newest) = newest.filter(|newest| *newest > self.header.generation) {
            let known = self.header.generation;
            return Err(format!("a header of generation {newest} is newer than the table, which knows {known}"));
        }
        let [a, b] = found;
        Ok([self.page_is_behind(0, a), self.page_is_behind(1, b)])
    }

    /// Whether header page `page`, which holds `found`, must be written.
    pub(crate) fn page_is_behind(&self, page: u8, found: &Result<SlotHeader, SlotHeaderError>) -> bool {
        match found {
            Ok(found) if page == self.page => *found != self.header,
            Ok(found) => {
                let use_of = |header: &SlotHeader| (header.state == SlotState::Free, header.slot_generation);
                use_of(found) != use_of(&self.header)
            }
            // Of a slot that was never used; what an earlier life of the disk left is as good as nothing.
            Err(SlotHeaderError::Blank | SlotHeaderError::OtherDisk) => self.header != SlotHeader::blank(),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::{ENTRY_BYTES, Entry};
    use crate::slot_header::{self, SlotHeader, SlotHeaderError, SlotState};

    pub(crate) fn sample() -> Entry {
        Entry { header: slot_header::tests::sample(), page: 1, behind: true, lost: false }
    }

    pub(crate) fn entries() -> impl Strategy<Value = Entry> {
        (slot_header::tests::headers(), 0..2u8, any::<[bool; 2]>()).prop_map(|(header, page, [behind, lost])| Entry {
            header,
            page,
            behind,
            lost,
        })
    }

    #[test]
    fn golden_bytes_of_an_entry() {
        let text: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "050b040102000000",
            "0900000000000000",
            "0700000011000000",
            "22222222222222222222222222222222",
            "0600000000000000",
            "0500000000000000",
            "0c00000000000000",
            "0000010000000000",
            "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            "0403020100000000",
            "77777777777777777777777777777777",
        );
        assert_eq!(text, golden);
    }

    #[test]
    fn a_header_page_that_says_less_than_the_table_is_found_and_one_that_says_more_is_refused() {
        let entry = Entry { behind: false, ..sample() };
        let now = || Ok(entry.header.clone());
        let before = || Ok(SlotHeader { state: SlotState::Sealed, generation: 8, ..entry.header.clone() });
        let earlier_use = || Ok(SlotHeader { generation: 8, ..SlotHeader::freed(1) });
        let newer = || Ok(SlotHeader { generation: 10, ..entry.header.clone() });
        let behind = |a, b| entry.pages_behind([&a, &b]);
        assert_eq!(behind(before(), now()), Ok([false, false]), "the other page may be one state behind");
        assert_eq!(behind(now(), before()), Ok([false, true]), "the home page may not");
        assert_eq!(behind(earlier_use(), now()), Ok([true, false]), "nor may a page deny the use");
        assert_eq!(behind(Err(SlotHeaderError::Damaged), now()), Ok([true, false]));
        assert_eq!(behind(Err(SlotHeaderError::Blank), Err(SlotHeaderError::Unreadable)), Ok([true, true]));
        assert!(behind(now(), newer()).is_err());
        let blank = Entry::blank();
        assert_eq!(blank.pages_behind([&Err(SlotHeaderError::Blank), &Err(SlotHeaderError::Blank)]), Ok([false; 2]));
        assert_eq!(
            blank.pages_behind([&Err(SlotHeaderError::Damaged), &Err(SlotHeaderError::Blank)]),
            Ok([true, false])
        );
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(entry in entries()) {
            prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }

        #[test]
        fn any_bytes_decode_to_what_encodes_to_them_or_to_nothing(bytes in any::<[[u8; 32]; 4]>()) {
            let bytes: [u8; ENTRY_BYTES] = std::array::from_fn(|n| bytes[n / 32][n % 32]);
            if let Some(entry) = Entry::decode(&bytes) {
                prop_assert!(entry.encode() == bytes);
            }
        }
    }
}
