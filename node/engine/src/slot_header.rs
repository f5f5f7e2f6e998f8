//! The header of a slot: which extent stands there and in which state. Two pages; every change is written to the one
//! that is not the newest valid, so that a torn write never loses the state before it.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFSL"
//!      4     1  version (2)
//!      5     1  state (0 free, 1 copying, 2 open, 3 fenced, 4 sealed, 5 trashed)
//!      6     1  flags: bit 0, the extent holds no records (parity); bit 1, a scrub found damage in it
//!      7     1  state before it went to trash; else 0
//!      8     4  slot number
//!     12     4  records: rows of the footer's record table
//!     16    16  disk id
//!     32     8  generation of the header: raised by every change, the newest valid wins
//!     40     4  generation of the slot: raised at every new use
//!     44     4  footer offset: pages from the start of the slot's data; 0: no footer
//!     48    16  volume id
//!     64     8  write epoch: raised by fences
//!     72     8  epoch that the batches of this extent carry
//!     80     8  highest leader term seen
//!     88     8  length, bytes: sealed or copying; else 0
//!     96    32  SHA-256 of [0, length): sealed, or expected while copying; else zero
//!    128     8  disk uptime at which it went to trash, seconds; else 0
//!    136    16  order by which it went to trash; else zero
//!    152  3940  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//! ```
//! All integers are little-endian. Disk id and slot number are in it so that a header that landed in the wrong place
//! is not believed.

use holdfast_libs_types::{DiskId, MAX_VOLUME_RECORDS, PAGE_BYTES, VolumeId, WriteEpoch};

use crate::footer::FooterShape;
use crate::geometry::Geometry;
use crate::page::{MOST_COUNT, PageFault, PageReader, PageWriter};

const MAGIC: &[u8; 4] = b"HFSL";
const VERSION: u8 = 2;
/// Bit of the flags: the extent holds no records.
const NO_RECORDS: u8 = 1;
/// Bit of the flags: a scrub found damage in the extent.
const DAMAGED: u8 = 2;

/// State of a slot as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free = 0,
    Copying = 1,
    Open = 2,
    Fenced = 3,
    Sealed = 4,
    /// Removed by an order, and kept for a while all the same.
    Trashed = 5,
}

impl SlotState {
    /// The state that is written as `code`.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Free, Self::Copying, Self::Open, Self::Fenced, Self::Sealed, Self::Trashed]
            .into_iter()
            .find(|state| *state as u8 == code)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotHeader {
    pub(crate) state: SlotState,
    /// The extent holds no records: it is parity.
    pub(crate) no_records: bool,
    /// A scrub found damage in its data, and none has found every byte right since.
    pub(crate) damaged: bool,
    /// The state that a restore brings back: of trash only, else `Free`.
    pub(crate) state_before: SlotState,
    /// Rows of the footer's record table.
    pub(crate) records: u32,
    /// Generation of the header.
    pub(crate) generation: u64,
    pub(crate) slot_generation: u32,
    /// Where the footer starts, pages from the start of the slot's data; 0: there is none.
    pub(crate) footer_offset: u32,
    pub(crate) volume: VolumeId,
    pub(crate) epoch: WriteEpoch,
    pub(crate) append_epoch: WriteEpoch,
    pub(crate) term: u64,
    pub(crate) length: u64,
    pub(crate) digest: [u8; 32],
    /// Disk uptime at which it went to trash, seconds.
    pub(crate) trashed_at: u64,
    /// The order by which it went to trash.
    pub(crate) order: [u8; 16],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotHeaderError {
    #[error("blank")]
    Blank,
    #[error("damaged or torn")]
    Damaged,
    #[error("unreadable")]
    Unreadable,
    #[error("of another slot")]
    Elsewhere,
    /// As a disk that was formatted anew may still have them.
    #[error("of another disk, or of an earlier life of this one")]
    OtherDisk,
    #[error("of version {0}, which this program does not know")]
    Version(u8),
    #[error("in state {0}, which this program does not know")]
    State(u8),
    #[error("naming places that are not in the slot, or impossible counters")]
    Impossible,
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
            no_records: false,
            damaged: false,
            state_before: SlotState::Free,
            records: 0,
            generation: 0,
            slot_generation: 0,
            footer_offset: 0,
            volume: VolumeId([0; 16]),
            epoch: WriteEpoch(0),
            append_epoch: WriteEpoch(0),
            term: 0,
            length: 0,
            digest: [0; 32],
            trashed_at: 0,
            order: [0; 16],
        }
    }

    /// The header of a slot that was used and is free again.
    pub(crate) fn freed(slot_generation: u32) -> Self {
        Self { slot_generation, ..Self::blank() }
    }

    /// Whether `length` and `digest` mean something: of what is sealed or copying, in trash or not.
    pub(crate) fn has_length(&self) -> bool {
        let state = if self.state == SlotState::Trashed { self.state_before } else { self.state };
        matches!(state, SlotState::Sealed | SlotState::Copying)
    }

    pub(crate) fn encode(&self, disk: DiskId, slot: u32) -> Box<[u8; PAGE_BYTES]> {
        let mut page = PageWriter::new();
        page.put(0, MAGIC);
        let flag = |on, bit| if on { bit } else { 0 };
        let flags = flag(self.no_records, NO_RECORDS) | flag(self.damaged, DAMAGED);
        page.put(4, &[VERSION, self.state as u8, flags, self.state_before as u8]);
        page.put_u32(8, slot);
        page.put_u32(12, self.records);
        page.put(16, disk.as_bytes());
        page.put_u64(32, self.generation);
        page.put_u32(40, self.slot_generation);
        page.put_u32(44, self.footer_offset);
        page.put(48, self.volume.as_bytes());
        page.put_u64(64, self.epoch.0);
        page.put_u64(72, self.append_epoch.0);
        page.put_u64(80, self.term);
        page.put_u64(88, self.length);
        page.put(96, &self.digest);
        page.put_u64(128, self.trashed_at);
        page.put(136, &self.order);
        page.finish()
    }

    pub(crate) fn decode(bytes: &[u8], disk: DiskId, slot: u32) -> Result<Self, SlotHeaderError> {
        let page = PageReader::open(bytes, MAGIC)?;
        if page.u8(4) != VERSION {
            return Err(SlotHeaderError::Version(page.u8(4)));
        }
        if page.array(16) != disk.0 {
            return Err(SlotHeaderError::OtherDisk);
        }
        if page.u32(8) != slot {
            return Err(SlotHeaderError::Elsewhere);
        }
        let state = |at| SlotState::from_code(page.u8(at)).ok_or(SlotHeaderError::State(page.u8(at)));
        Ok(Self {
            state: state(5)?,
            no_records: page.u8(6) & NO_RECORDS != 0,
            damaged: page.u8(6) & DAMAGED != 0,
            state_before: state(7)?,
            records: page.u32(12),
            generation: page.u64(32),
            slot_generation: page.u32(40),
            footer_offset: page.u32(44),
            volume: VolumeId(page.array(48)),
            epoch: WriteEpoch(page.u64(64)),
            append_epoch: WriteEpoch(page.u64(72)),
            term: page.u64(80),
            length: page.u64(88),
            digest: page.array(96),
            trashed_at: page.u64(128),
            order: page.array(136),
        })
    }

    /// Whether length, footer and records lie within a slot of `geometry`, and counters can be raised. A header where
    /// they do not was never written by this engine; followed, it would lead into other slots.
    ///
    /// # Errors
    /// `Impossible`.
    pub(crate) fn within(self, geometry: &Geometry) -> Result<Self, SlotHeaderError> {
        let footer_at = u64::from(self.footer_offset) * PAGE_BYTES as u64;
        let room = geometry.data_bytes + geometry.footer_bytes;
        let fits = self.generation <= MOST_COUNT
            && self.slot_generation < u32::MAX
            && self.length <= geometry.data_bytes
            && self.records <= MAX_VOLUME_RECORDS
            && (self.footer_offset == 0
                || footer_at >= self.length && footer_at + FooterShape::of(self.length, self.records).len() <= room);
        if fits { Ok(self) } else { Err(SlotHeaderError::Impossible) }
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
        use SlotHeaderError::{Blank, Damaged, Elsewhere, OtherDisk};
        // What an earlier life of the disk left was never written by this one.
        let blank = |page| if page == Err(OtherDisk) { Err(Blank) } else { page };
        match (blank(a), blank(b)) {
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
pub(crate) mod tests {
    use holdfast_libs_types::{DiskId, PAGE_BYTES, VolumeId, WriteEpoch};
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{SlotContents, SlotHeader, SlotHeaderError, SlotState};
    use crate::geometry::Geometry;

    const DISK: DiskId = DiskId([0xd1; 16]);

    pub(crate) fn sample() -> SlotHeader {
        SlotHeader {
            state: SlotState::Trashed,
            no_records: true,
            damaged: true,
            state_before: SlotState::Sealed,
            records: 7,
            generation: 9,
            slot_generation: 2,
            footer_offset: 17,
            volume: VolumeId([0x22; 16]),
            epoch: WriteEpoch(6),
            append_epoch: WriteEpoch(5),
            term: 12,
            length: 0x10000,
            digest: [0x5a; 32],
            trashed_at: 0x0102_0304,
            order: [0x77; 16],
        }
    }

    /// Any header at all.
    pub(crate) fn headers() -> impl Strategy<Value = SlotHeader> {
        let numbers = (any::<[u64; 6]>(), any::<[u32; 3]>(), any::<[bool; 2]>());
        (any::<[u8; 2]>(), numbers, any::<[[u8; 16]; 2]>(), any::<[u8; 32]>()).prop_map(
            |(codes, (numbers, small, [no_records, damaged]), ids, digest)| SlotHeader {
                state: SlotState::from_code(codes[0] % 6).unwrap(),
                no_records,
                damaged,
                state_before: SlotState::from_code(codes[1] % 6).unwrap(),
                records: small[0],
                generation: numbers[0],
                slot_generation: small[1],
                footer_offset: small[2],
                volume: VolumeId(ids[0]),
                epoch: WriteEpoch(numbers[1]),
                append_epoch: WriteEpoch(numbers[2]),
                term: numbers[3],
                length: numbers[4],
                digest,
                trashed_at: numbers[5],
                order: ids[1],
            },
        )
    }

    #[test]
    fn places_outside_of_the_slot_are_not_followed() {
        let geometry = Geometry::plan(64 << 20, 1 << 20).unwrap();
        let good = SlotHeader { length: 8192, footer_offset: 2, records: 3, ..sample() };
        assert_eq!(good.clone().within(&geometry), Ok(good.clone()));
        let (data, room) = (geometry.data_bytes, geometry.data_bytes + geometry.footer_bytes);
        let full = SlotHeader { length: data, footer_offset: (data / 4096) as u32, ..good.clone() };
        assert!(full.within(&geometry).is_ok());
        for bad in [
            SlotHeader { length: u64::MAX, ..good.clone() },
            SlotHeader { length: data + 4096, footer_offset: 0, ..good.clone() },
            SlotHeader { footer_offset: 1, ..good.clone() },
            SlotHeader { footer_offset: (room / 4096) as u32, ..good.clone() },
            SlotHeader { footer_offset: u32::MAX, ..good.clone() },
            SlotHeader { records: 65_537, ..good.clone() },
            SlotHeader { generation: u64::MAX, ..good.clone() },
            SlotHeader { slot_generation: u32::MAX, ..good.clone() },
        ] {
            assert_eq!(bad.within(&geometry), Err(SlotHeaderError::Impossible));
        }
    }

    #[test]
    fn golden_bytes_of_a_slot_header() {
        let page = sample().encode(DISK, 3);
        let text: String = page[..152].iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "4846534c02050304",
            "0300000007000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "09000000000000000200000011000000",
            "22222222222222222222222222222222",
            "06000000000000000500000000000000",
            "0c000000000000000000010000000000",
            "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            "0403020100000000",
            "77777777777777777777777777777777",
        );
        assert_eq!(text, golden);
        assert!(page[152..4092].iter().all(|byte| *byte == 0));
        assert_eq!(page[4092..], [85, 212, 151, 194]);
        assert_eq!(SlotHeader::decode(&page[..], DISK, 3), Ok(sample()));
    }

    #[test]
    fn a_header_in_the_wrong_place_is_not_believed() {
        let page = sample().encode(DISK, 3);
        assert_eq!(SlotHeader::decode(&page[..], DISK, 4), Err(SlotHeaderError::Elsewhere));
        assert_eq!(SlotHeader::decode(&page[..], DiskId([1; 16]), 3), Err(SlotHeaderError::OtherDisk));
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
        let newer = SlotContents::of(Err(SlotHeaderError::Version(3)), Err(SlotHeaderError::Blank));
        assert!(matches!(newer, SlotContents::Lost { .. }));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(header in headers(), disk in any::<[u8; 16]>(), slot in any::<u32>()) {
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
