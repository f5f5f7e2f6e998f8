//! The superblock: what a disk is. Two copies, equal but for a crash between their writes; the newer valid one wins.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "HOLDFAST"
//!      8     4  format version (2)
//!     12     4  page size, bytes (4096)
//!     16     8  generation of the superblock: raised by every write of it
//!     24    16  disk id
//!     40    16  cell id
//!     56     8  incarnation that the catalog confirmed last (0: never registered)
//!     64    16  nonce of that incarnation
//!     80    16  nonce of the incarnation before it
//!     96     8  incarnation proposed and not yet confirmed (0: none)
//!    104    16  nonce of the proposed incarnation
//!    120     1  media (0 unknown, 1 file, 2 flash, 3 rotating)
//!    121     1  disk zone model (0 none, 2 host managed)
//!    122     2  zero
//!    124     4  logical block size, bytes
//!    128     8  size of a disk zone, bytes (0: none)
//!    136     8  size of the disk, bytes
//!    144     8  slot size, bytes
//!    152     4  number of slots
//!    156     4  bytes at a slot's start that its two header pages take (8192; 0 on a zoned disk)
//!    160     8  data bytes of a slot
//!    168     8  footer reserve of a slot, bytes
//!    176   112  seven areas, each offset (8) and length (8): superblock A, superblock B, extent table A,
//!               extent table B, table log, key area, slots
//!    288     8  time of formatting, seconds since 1970
//!    296    16  slot headers of a zoned disk, offset (8) and length (8); 0 on any other, as the rest
//!    312     8  capacity of a disk zone, bytes
//!    320     4  disk zones of a slot
//!    324     4  most disk zones that may be partly written at a time (0: any number)
//!    328  3764  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//! ```
//! All integers are little-endian. Magic, version and the checksum's place are the same in every version, so that a
//! newer disk is told from a damaged one.

use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};

use crate::geometry::zoned::SlotZones;
use crate::geometry::{Area, Geometry, SLOT_HEADER_BYTES};
use crate::page::{MOST_COUNT, PageFault, PageReader, PageWriter};
use crate::status::Incarnation;

const MAGIC: &[u8; 8] = b"HOLDFAST";
/// The version this program writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;
const AREAS_AT: usize = 176;
const ZONE_MODEL_NONE: u8 = 0;
const ZONE_MODEL_HOST_MANAGED: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) generation: u64,
    pub(crate) disk: DiskId,
    pub(crate) cell: CellId,
    pub(crate) incarnation: u64,
    pub(crate) nonce: [u8; 16],
    pub(crate) previous_nonce: [u8; 16],
    /// Number and nonce of the proposal that waits for the catalog.
    pub(crate) proposed: Option<(u64, [u8; 16])>,
    pub(crate) media: u8,
    pub(crate) logical_block_bytes: u32,
    pub(crate) geometry: Geometry,
    pub(crate) formatted_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SuperblockError {
    #[error("blank")]
    Blank,
    #[error("no superblock (magic is wrong)")]
    Magic,
    #[error("its checksum does not match")]
    Checksum,
    #[error("format version {0}")]
    Version(u32),
    #[error("impossible geometry: {0}")]
    Geometry(String),
    #[error("impossible counters")]
    Counters,
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl From<PageFault> for SuperblockError {
    fn from(fault: PageFault) -> Self {
        match fault {
            PageFault::Blank => Self::Blank,
            PageFault::Short => Self::Unreadable("the disk is too short".to_owned()),
            PageFault::Magic => Self::Magic,
            PageFault::Checksum => Self::Checksum,
        }
    }
}

fn header_bytes_in_slot(zone_model: u8) -> u32 {
    if zone_model == ZONE_MODEL_NONE { SLOT_HEADER_BYTES as u32 } else { 0 }
}

impl Superblock {
    pub(crate) fn encode(&self) -> Box<[u8; PAGE_BYTES]> {
        let geometry = &self.geometry;
        let mut page = PageWriter::new();
        page.put(0, MAGIC);
        page.put_u32(8, FORMAT_VERSION);
        page.put_u32(12, PAGE_BYTES as u32);
        page.put_u64(16, self.generation);
        page.put(24, self.disk.as_bytes());
        page.put(40, self.cell.as_bytes());
        page.put_u64(56, self.incarnation);
        page.put(64, &self.nonce);
        page.put(80, &self.previous_nonce);
        if let Some((incarnation, nonce)) = &self.proposed {
            page.put_u64(96, *incarnation);
            page.put(104, nonce);
        }
        let zone_model = if geometry.zones.is_some() { ZONE_MODEL_HOST_MANAGED } else { ZONE_MODEL_NONE };
        page.put(120, &[self.media, zone_model]);
        page.put_u32(124, self.logical_block_bytes);
        page.put_u64(136, geometry.disk_bytes);
        page.put_u64(144, geometry.slot_bytes);
        page.put_u32(152, geometry.slots);
        page.put_u32(156, header_bytes_in_slot(zone_model));
        page.put_u64(160, geometry.data_bytes);
        page.put_u64(168, geometry.footer_bytes);
        let areas = [
            geometry.superblock_a,
            geometry.superblock_b,
            geometry.table_a,
            geometry.table_b,
            geometry.log,
            geometry.keys,
            geometry.slot_area,
        ];
        for (n, area) in areas.iter().enumerate() {
            page.put_u64(AREAS_AT + 16 * n, area.offset);
            page.put_u64(AREAS_AT + 16 * n + 8, area.len);
        }
        page.put_u64(288, self.formatted_at);
        if let Some(zones) = &geometry.zones {
            page.put_u64(128, zones.zone_bytes);
            page.put_u64(296, zones.headers.offset);
            page.put_u64(304, zones.headers.len);
            page.put_u64(312, zones.capacity_bytes);
            page.put_u32(320, zones.zones);
            page.put_u32(324, zones.limit);
        }
        page.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let page = PageReader::open(bytes, MAGIC)?;
        let version = page.u32(8);
        if version != FORMAT_VERSION {
            return Err(SuperblockError::Version(version));
        }
        let zone_model = page.u8(121);
        if !matches!(zone_model, ZONE_MODEL_NONE | ZONE_MODEL_HOST_MANAGED) {
            return Err(SuperblockError::Geometry(format!("zone model {zone_model} is unknown")));
        }
        if page.u32(12) as usize != PAGE_BYTES || page.u32(156) != header_bytes_in_slot(zone_model) {
            return Err(SuperblockError::Geometry("page or header size is unknown".to_owned()));
        }
        let area = |n: usize| Area { offset: page.u64(AREAS_AT + 16 * n), len: page.u64(AREAS_AT + 16 * n + 8) };
        let geometry = Geometry {
            disk_bytes: page.u64(136),
            slot_bytes: page.u64(144),
            slots: page.u32(152),
            superblock_a: area(0),
            superblock_b: area(1),
            table_a: area(2),
            table_b: area(3),
            log: area(4),
            keys: area(5),
            slot_area: area(6),
            data_bytes: page.u64(160),
            footer_bytes: page.u64(168),
            zones: (zone_model == ZONE_MODEL_HOST_MANAGED).then(|| SlotZones {
                headers: Area { offset: page.u64(296), len: page.u64(304) },
                zone_bytes: page.u64(128),
                capacity_bytes: page.u64(312),
                zones: page.u32(320),
                limit: page.u32(324),
            }),
        };
        geometry.check().map_err(SuperblockError::Geometry)?;
        let proposed = page.u64(96);
        if [page.u64(16), page.u64(56), proposed].iter().any(|counter| *counter > MOST_COUNT) {
            return Err(SuperblockError::Counters);
        }
        Ok(Self {
            generation: page.u64(16),
            disk: DiskId(page.array(24)),
            cell: CellId(page.array(40)),
            incarnation: page.u64(56),
            nonce: page.array(64),
            previous_nonce: page.array(80),
            proposed: (proposed > 0).then(|| (proposed, page.array(104))),
            media: page.u8(120),
            logical_block_bytes: page.u32(124),
            geometry,
            formatted_at: page.u64(288),
        })
    }

    /// The newer valid copy of the two, and which one it is: the one that must not be written next.
    pub(crate) fn newest(
        copies: [Result<Self, SuperblockError>; 2],
    ) -> Result<(Self, usize), (SuperblockError, SuperblockError)> {
        let (one, index, error) = match copies {
            [Ok(a), Ok(b)] if b.generation > a.generation => return Ok((b, 1)),
            [Ok(a), Ok(_)] => return Ok((a, 0)),
            [Ok(a), Err(error)] => (a, 0, error),
            [Err(error), Ok(b)] => (b, 1, error),
            [Err(a), Err(b)] => return Err((a, b)),
        };
        tracing::warn!(disk = %one.disk, %error, "one of the two superblocks is damaged");
        Ok((one, index))
    }

    /// The incarnation to show to the catalog: the proposal if one waits, else the confirmed one.
    pub(crate) fn identity(&self) -> Incarnation {
        match self.proposed {
            Some((incarnation, nonce)) => {
                Incarnation { incarnation, nonce, previous_nonce: self.nonce, confirmed: false }
            }
            None => Incarnation {
                incarnation: self.incarnation,
                nonce: self.nonce,
                previous_nonce: self.previous_nonce,
                confirmed: true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::{Superblock, SuperblockError};
    use crate::geometry::Geometry;
    use crate::geometry::zoned::ZoneShape;

    pub(crate) fn sample() -> Superblock {
        Superblock {
            generation: 7,
            disk: DiskId([0xd1; 16]),
            cell: CellId([0xce; 16]),
            incarnation: 3,
            nonce: [0x0a; 16],
            previous_nonce: [0x0b; 16],
            proposed: Some((4, [0x0c; 16])),
            media: 1,
            logical_block_bytes: 512,
            geometry: Geometry::plan(8 << 30, 64 << 20).unwrap(),
            formatted_at: 0x6000_0000,
        }
    }

    #[test]
    fn golden_bytes_of_a_superblock() {
        let page = sample().encode();
        let golden = concat!(
            "484f4c44464153540200000000100000",
            "0700000000000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "cececececececececececececececece",
            "0300000000000000",
            "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "0400000000000000",
            "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c",
            "0100000000020000",
            "0000000000000000",
            "0000000002000000",
            "0000000400000000",
            "7f00000000200000",
            "00c0cf0300000000",
            "0020300000000000",
            "0000000000000000",
            "0000100000000000",
            "0000100000000000",
            "0000100000000000",
            "0000200000000000",
            "0000010000000000",
            "0000210000000000",
            "0000010000000000",
            "0000220000000000",
            "0000100000000000",
            "0000320000000000",
            "0000400000000000",
            "0000800000000000",
            "000000fc01000000",
            "0000006000000000",
        );
        assert_eq!(hex(&page[..296]), golden);
        assert!(page[296..4092].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&page[4092..]), "3707ba66");
        assert_eq!(Superblock::decode(&page[..]), Ok(sample()));
    }

    #[test]
    fn golden_bytes_of_what_a_superblock_says_of_zones() {
        let shape =
            ZoneShape { zone_bytes: 256 << 20, capacity_bytes: 252 << 20, conventional: 2, sequential: 80, limit: 128 };
        let geometry = Geometry::plan_zoned(shape, 1 << 30).unwrap();
        let zoned = Superblock { geometry, ..sample() };
        let page = zoned.encode();
        assert_eq!(hex(&page[120..132]), "010200000002000000000010");
        assert_eq!(hex(&page[156..160]), "00000000");
        let golden = concat!("0000640000000000", "0000020000000000", "0000c00f00000000", "05000000", "80000000");
        assert_eq!(hex(&page[296..328]), golden);
        assert!(page[328..4092].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::decode(&page[..]), Ok(zoned));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut page = sample().encode();
        page[8] = 9;
        assert_eq!(Superblock::decode(&page[..]), Err(SuperblockError::Checksum));
        let crc = crc32fast::hash(&page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&page[..]), Err(SuperblockError::Version(9)));
    }

    #[test]
    fn a_disk_of_the_time_before_the_format_was_frozen_is_refused_with_what_to_do() {
        let mut page = sample().encode();
        page[8] = 1;
        let crc = crc32fast::hash(&page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
        let copies = [Superblock::decode(&page[..]), Superblock::decode(&page[..])];
        let path = std::path::Path::new("/dev/bay7");
        let error = crate::thread::accept_superblock(copies, path, 8 << 30, sample().cell).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/dev/bay7") && text.contains("before the format was frozen"), "{text}");
        assert!(text.contains("format it anew"), "{text}");
    }

    #[test]
    fn the_newer_copy_wins_and_a_damaged_one_does_not() {
        let old = sample();
        let new = Superblock { generation: 8, incarnation: 9, ..sample() };
        let newest = |a, b| Superblock::newest([a, b]).map(|(one, index)| (one.generation, index)).unwrap();
        assert_eq!(newest(Ok(old.clone()), Ok(new.clone())), (8, 1));
        assert_eq!(newest(Ok(new.clone()), Ok(old.clone())), (8, 0));
        assert_eq!(newest(Ok(old.clone()), Err(SuperblockError::Checksum)), (7, 0));
        assert_eq!(newest(Err(SuperblockError::Checksum), Ok(old)), (7, 1));
        assert!(Superblock::newest([Err(SuperblockError::Blank), Err(SuperblockError::Magic)]).is_err());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..PAGE_BYTES * 8) {
            let mut page = sample().encode();
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Superblock::decode(&page[..]).is_err());
        }

        #[test]
        fn any_fields_with_a_right_checksum_decode_without_a_panic(
            at in 8usize..300, bytes in prop::collection::vec(any::<u8>(), 1..64)
        ) {
            let mut page = sample().encode();
            page[at..at + bytes.len()].copy_from_slice(&bytes);
            let crc = crc32fast::hash(&page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
            if let Ok(superblock) = Superblock::decode(&page[..]) {
                prop_assert!(superblock.geometry.check().is_ok());
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(Superblock::decode(&bytes).is_err());
        }
    }
}
