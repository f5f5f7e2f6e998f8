//! The header of a slot: which extent stands there and in which state. Two pages; every change is written to the one
//! that is not the newest valid, so that a torn write never loses the state before it.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFSL"
//!      4     1  version (1)
//!      5     1  state (0 free, 1 copying, 2 open, 3 fenced, 4 sealed)
//!      6     2  zero
//!      8     4  slot number
//!     12     4  zero
//!     16    16  disk id
//!     32     8  generation of the header: raised by every write, the newest valid wins
//!     40     8  generation of the slot: raised at every new use
//!     48    16  volume id
//!     64     8  write epoch: raised by fences
//!     72     8  epoch that the batches of this extent carry
//!     80     8  highest leader term seen
//!     88     8  length, bytes: sealed or copying; else 0
//!     96    32  SHA-256 of [0, length): sealed, or expected while copying; else zero
//!    128  3964  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//! ```
//! All integers are little-endian. Disk id and slot number are in it so that a header that landed in the wrong place
//! is not believed.

use holdfast_libs_types::{DiskId, PAGE_BYTES, VolumeId, WriteEpoch};

use crate::page::{PageFault, PageReader, PageWriter};

const MAGIC: &[u8; 4] = b"HFSL";
const VERSION: u8 = 1;

/// State of a slot as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free = 0,
    Copying = 1,
    Open = 2,
    Fenced = 3,
    Sealed = 4,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) state: SlotState,
    /// Generation of the header.
    pub(crate) generation: u64,
    pub(crate) slot_generation: u64,
    pub(crate) volume: VolumeId,
    pub(crate) epoch: WriteEpoch,
    pub(crate) append_epoch: WriteEpoch,
    pub(crate) term: u64,
    pub(crate) length: u64,
    pub(crate) digest: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotHeaderError {
    #[error("blank")]
    Blank,
    #[error("damaged or torn")]
    Damaged,
    #[error("unreadable")]
    Unreadable,
    #[error("of another disk or slot")]
    Elsewhere,
    #[error("of version {0}, which this program does not know")]
    Version(u8),
    #[error("in state {0}, which this program does not know")]
    State(u8),
}

impl From<PageFault> for SlotHeaderError {
    fn from(fault: PageFault) -> Self {
        if fault == PageFault::Blank { Self::Blank } else { Self::Damaged }
    }
}

impl SlotHeader {
    /// The header of a slot that was never used.
    pub(crate) fn blank() -> Self {
        Self {
            state: SlotState::Free,
            generation: 0,
            slot_generation: 0,
            volume: VolumeId([0; 16]),
            epoch: WriteEpoch(0),
            append_epoch: WriteEpoch(0),
            term: 0,
            length: 0,
            digest: [0; 32],
        }
    }

    pub(crate) fn encode(&self, disk: DiskId, slot: u32) -> Box<[u8; PAGE_BYTES]> {
        let mut page = PageWriter::new();
        page.put(0, MAGIC);
        page.put(4, &[VERSION, self.state as u8]);
        page.put_u32(8, slot);
        page.put(16, disk.as_bytes());
        page.put_u64(32, self.generation);
        page.put_u64(40, self.slot_generation);
        page.put(48, self.volume.as_bytes());
        page.put_u64(64, self.epoch.0);
        page.put_u64(72, self.append_epoch.0);
        page.put_u64(80, self.term);
        page.put_u64(88, self.length);
        page.put(96, &self.digest);
        page.finish()
    }

    pub(crate) fn decode(bytes: &[u8], disk: DiskId, slot: u32) -> Result<Self, SlotHeaderError> {
        let page = PageReader::open(bytes, MAGIC)?;
        if page.u8(4) != VERSION {
            return Err(SlotHeaderError::Version(page.u8(4)));
        }
        if page.u32(8) != slot || page.array(16) != disk.0 {
            return Err(SlotHeaderError::Elsewhere);
        }
        let state = match page.u8(5) {
            0 => SlotState::Free,
            1 => SlotState::Copying,
            2 => SlotState::Open,
            3 => SlotState::Fenced,
            4 => SlotState::Sealed,
            other => return Err(SlotHeaderError::State(other)),
        };
        Ok(Self {
            state,
            generation: page.u64(32),
            slot_generation: page.u64(40),
            volume: VolumeId(page.array(48)),
            epoch: WriteEpoch(page.u64(64)),
            append_epoch: WriteEpoch(page.u64(72)),
            term: page.u64(80),
            length: page.u64(88),
            digest: page.array(96),
        })
    }
}

/// What the two header pages of a slot say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlotContents {
    /// A header, the page it stands on, and what is wrong with the other page, if anything is.
    Known { header: SlotHeader, page: u8, other: Option<SlotHeaderError> },
    /// Neither page can be believed, and something was written: an extent may stand here. Never reused.
    Lost { a: SlotHeaderError, b: SlotHeaderError },
}

impl SlotContents {
    /// Decides by both pages.
    ///
    /// A page that is damaged beside one that is free or blank is the torn first write of a new use, which was never
    /// acknowledged: a use is acknowledged only when both pages carry it. So one damaged page never frees a slot
    /// that is in use.
    pub(crate) fn of(a: Result<SlotHeader, SlotHeaderError>, b: Result<SlotHeader, SlotHeaderError>) -> Self {
        use SlotHeaderError::{Blank, Damaged, Elsewhere};
        match (a, b) {
            (Ok(a), Ok(b)) if b.generation > a.generation => Self::Known { header: b, page: 1, other: None },
            (Ok(header), Ok(_)) => Self::Known { header, page: 0, other: None },
            (Ok(header), Err(b)) => Self::Known { header, page: 0, other: Some(b).filter(|b| *b != Blank) },
            (Err(a), Ok(header)) => Self::Known { header, page: 1, other: Some(a).filter(|a| *a != Blank) },
            (Err(Blank), Err(Blank)) => Self::Known { header: SlotHeader::blank(), page: 1, other: None },
            // The first use ever writes page A first, so the blank one is B.
            (Err(other @ (Damaged | Elsewhere)), Err(Blank | Elsewhere)) | (Err(Blank), Err(other @ Elsewhere)) => {
                Self::Known { header: SlotHeader::blank(), page: 1, other: Some(other) }
            }
            (Err(a), Err(b)) => Self::Lost { a, b },
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, PAGE_BYTES, VolumeId, WriteEpoch};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{SlotContents, SlotHeader, SlotHeaderError, SlotState};

    const DISK: DiskId = DiskId([0xd1; 16]);

    fn sample() -> SlotHeader {
        SlotHeader {
            state: SlotState::Sealed,
            generation: 9,
            slot_generation: 2,
            volume: VolumeId([0x22; 16]),
            epoch: WriteEpoch(6),
            append_epoch: WriteEpoch(5),
            term: 12,
            length: 0x10000,
            digest: [0x5a; 32],
        }
    }

    #[test]
    fn golden_bytes_of_a_slot_header() {
        let page = sample().encode(DISK, 3);
        let text: String = page[..128].iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "4846534c01040000",
            "0300000000000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "09000000000000000200000000000000",
            "22222222222222222222222222222222",
            "06000000000000000500000000000000",
            "0c000000000000000000010000000000",
            "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
        );
        assert_eq!(text, golden);
        assert!(page[128..4092].iter().all(|byte| *byte == 0));
        assert_eq!(page[4092..], [82, 42, 4, 7]);
        assert_eq!(SlotHeader::decode(&page[..], DISK, 3), Ok(sample()));
    }

    #[test]
    fn a_header_in_the_wrong_place_is_not_believed() {
        let page = sample().encode(DISK, 3);
        assert_eq!(SlotHeader::decode(&page[..], DISK, 4), Err(SlotHeaderError::Elsewhere));
        assert_eq!(SlotHeader::decode(&page[..], DiskId([1; 16]), 3), Err(SlotHeaderError::Elsewhere));
    }

    #[test]
    fn the_newest_valid_page_wins_whichever_it_is() {
        let old = SlotHeader { generation: 8, state: SlotState::Fenced, ..sample() };
        for (a, b, page) in [(old.clone(), sample(), 1), (sample(), old.clone(), 0)] {
            let expected = SlotContents::Known { header: sample(), page, other: None };
            assert_eq!(SlotContents::of(Ok(a), Ok(b)), expected);
        }
        let torn = SlotContents::of(Ok(old.clone()), Err(SlotHeaderError::Damaged));
        assert_eq!(torn, SlotContents::Known { header: old, page: 0, other: Some(SlotHeaderError::Damaged) });
    }

    #[test]
    fn a_slot_whose_two_pages_are_damaged_is_never_taken_for_free() {
        let lost = SlotContents::of(Err(SlotHeaderError::Damaged), Err(SlotHeaderError::Damaged));
        assert!(matches!(lost, SlotContents::Lost { .. }));
        let newer = SlotContents::of(Err(SlotHeaderError::Version(2)), Err(SlotHeaderError::Blank));
        assert!(matches!(newer, SlotContents::Lost { .. }));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(
            state in 0u8..5, numbers in any::<[u64; 6]>(), volume in any::<[u8; 16]>(), digest in any::<[u8; 32]>(),
            disk in any::<[u8; 16]>(), slot in any::<u32>()
        ) {
            use SlotState::{Copying, Fenced, Free, Open, Sealed};
            let header = SlotHeader {
                state: [Free, Copying, Open, Fenced, Sealed][usize::from(state)],
                generation: numbers[0],
                slot_generation: numbers[1],
                volume: VolumeId(volume),
                epoch: WriteEpoch(numbers[2]),
                append_epoch: WriteEpoch(numbers[3]),
                term: numbers[4],
                length: numbers[5],
                digest,
            };
            let page = header.encode(DiskId(disk), slot);
            prop_assert_eq!(SlotHeader::decode(&page[..], DiskId(disk), slot), Ok(header));
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..PAGE_BYTES * 8) {
            let mut page = sample().encode(DISK, 3);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SlotHeader::decode(&page[..], DISK, 3).is_err());
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(SlotHeader::decode(&bytes, DISK, 3).is_err());
        }
    }
}
