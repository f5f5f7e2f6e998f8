//! The footer of a sealed extent: what tells good bytes from bad ones without knowing what they are, and which records
//! stand where. Written right behind the data, found through the extent table.
//!
//! ```text
//! page checksums   one CRC-32 (IEEE) for each 64 KiB of the data, the last for what is left; zero padded to a page
//! record table     rows of 48 bytes, in the order of the volume; zero padded to a page; absent without records
//! trailer          one page
//!
//! row:     0  32  block hash
//!         32   8  offset of the record in the volume, bytes
//!         40   4  length of the record, header and payload, bytes
//!         44   4  flags of the record
//!
//! trailer: 0   4  magic "HFFT"
//!          4   1  version (1)
//!          5   1  flags (bit 0: the extent holds no records, as parity does)
//!          6   2  zero
//!          8  16  disk id
//!         24   4  slot number
//!         28   4  generation of the slot
//!         32  16  volume id
//!         48   8  epoch that the batches carry
//!         56   8  length of the data, bytes
//!         64  32  SHA-256 of the data
//!         96   8  where the footer starts in the slot's data, bytes
//!        104   4  number of page checksums
//!        108   4  number of rows
//!        112   4  CRC-32 (IEEE) of the page checksums, padding included
//!        116   4  CRC-32 (IEEE) of the record table, padding included
//!        120 3972  zero
//!       4092   4  CRC-32 (IEEE) of bytes 0..4092
//! ```
//! All integers are little-endian. The trailer is last, so that everything before it is written in sequence and its
//! place follows from the numbers in the extent table alone.

mod builder;

use holdfast_libs_types::{BlockHash, DiskId, MAX_VOLUME_RECORDS, PAGE_BYTES, VolumeId, WriteEpoch};

pub(crate) use builder::FooterBuilder;

use crate::geometry::{CRC_SPAN_BYTES, RECORD_ROW_BYTES};
use crate::page::{PageFault, PageReader, PageWriter};

const MAGIC: &[u8; 4] = b"HFFT";
const VERSION: u8 = 1;
const NO_RECORDS: u8 = 1;
const PAGE: u64 = PAGE_BYTES as u64;
const ROW: usize = RECORD_ROW_BYTES as usize;

/// Where one record of a sealed volume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRow {
    /// The block it holds.
    pub hash: BlockHash,
    /// Where its header starts in the volume, bytes.
    pub offset: u64,
    /// Header and payload, bytes.
    pub length: u32,
    /// Flags of the record.
    pub flags: u32,
}

/// A trailer that was found to belong to its extent: what the other parts are read by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) length: u64,
    pub(crate) has_records: bool,
    pub(crate) rows: u32,
    checksums_crc: u32,
    rows_crc: u32,
}

/// Why bytes are not the footer that should stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FooterError {
    #[error("its trailer is blank")]
    Blank,
    #[error("its trailer is damaged")]
    Trailer,
    #[error("its trailer has version {0}, which this program does not know")]
    Version(u8),
    #[error("its trailer is of another extent or place")]
    Elsewhere,
    #[error("its page checksums are damaged")]
    Checksums,
    #[error("its record table is damaged")]
    Rows,
}

impl From<PageFault> for FooterError {
    fn from(fault: PageFault) -> Self {
        if fault == PageFault::Blank { Self::Blank } else { Self::Trailer }
    }
}

/// How long the parts of a footer are, bytes; each is whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FooterShape {
    pub(crate) checksums: u64,
    pub(crate) rows: u64,
}

impl FooterShape {
    /// Of an extent of `length` bytes with `rows` records.
    pub(crate) fn of(length: u64, rows: u32) -> Self {
        Self {
            checksums: (length.div_ceil(CRC_SPAN_BYTES) * 4).next_multiple_of(PAGE),
            rows: (u64::from(rows) * RECORD_ROW_BYTES).next_multiple_of(PAGE),
        }
    }

    /// With the trailer, bytes.
    pub(crate) fn len(self) -> u64 {
        self.checksums + self.rows + PAGE
    }
}

/// Everything a footer is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) checksums: Vec<u32>,
    /// `None` for an extent that holds no records.
    pub(crate) rows: Option<Vec<RecordRow>>,
}

/// Which extent a footer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FooterOf<'a> {
    pub(crate) disk: DiskId,
    pub(crate) slot: u32,
    pub(crate) slot_generation: u32,
    pub(crate) volume: VolumeId,
    pub(crate) append_epoch: WriteEpoch,
    pub(crate) length: u64,
    pub(crate) digest: &'a [u8; 32],
    pub(crate) footer_offset: u64,
}

impl Footer {
    /// Number of rows.
    pub(crate) fn row_count(&self) -> u32 {
        // The walk ends at MAX_VOLUME_RECORDS.
        self.rows.as_ref().map_or(0, |rows| rows.len() as u32)
    }

    /// The bytes as they stand on the disk.
    pub(crate) fn encode(&self, of: &FooterOf<'_>) -> Vec<u8> {
        let shape = FooterShape::of(of.length, self.row_count());
        let mut bytes = Vec::with_capacity(shape.len() as usize);
        self.checksums.iter().for_each(|crc| bytes.extend_from_slice(&crc.to_le_bytes()));
        bytes.resize(shape.checksums as usize, 0);
        let checksums_crc = crc32fast::hash(&bytes);
        for row in self.rows.iter().flatten() {
            bytes.extend_from_slice(row.hash.as_bytes());
            bytes.extend_from_slice(&row.offset.to_le_bytes());
            bytes.extend_from_slice(&row.length.to_le_bytes());
            bytes.extend_from_slice(&row.flags.to_le_bytes());
        }
        bytes.resize((shape.checksums + shape.rows) as usize, 0);
        let rows_crc = crc32fast::hash(&bytes[shape.checksums as usize..]);
        let mut page = PageWriter::new();
        page.put(0, MAGIC);
        page.put(4, &[VERSION, if self.rows.is_none() { NO_RECORDS } else { 0 }]);
        page.put(8, of.disk.as_bytes());
        page.put_u32(24, of.slot);
        page.put_u32(28, of.slot_generation);
        page.put(32, of.volume.as_bytes());
        page.put_u64(48, of.append_epoch.0);
        page.put_u64(56, of.length);
        page.put(64, of.digest);
        page.put_u64(96, of.footer_offset);
        page.put_u32(104, self.checksums.len() as u32);
        page.put_u32(108, self.row_count());
        page.put_u32(112, checksums_crc);
        page.put_u32(116, rows_crc);
        bytes.extend_from_slice(&page.finish()[..]);
        bytes
    }
}

impl Trailer {
    /// Reads a trailer and compares it with the extent it should belong to. Says nothing about the other parts.
    pub(crate) fn decode(bytes: &[u8], of: &FooterOf<'_>) -> Result<Self, FooterError> {
        let page = PageReader::open(bytes, MAGIC)?;
        if page.u8(4) != VERSION {
            return Err(FooterError::Version(page.u8(4)));
        }
        let place = (DiskId(page.array(8)), page.u32(24), page.u32(28), VolumeId(page.array(32)));
        let trailer = Self {
            length: page.u64(56),
            has_records: page.u8(5) & NO_RECORDS == 0,
            rows: page.u32(108),
            checksums_crc: page.u32(112),
            rows_crc: page.u32(116),
        };
        let same = place == (of.disk, of.slot, of.slot_generation, of.volume)
            && trailer.length == of.length
            && page.array(64) == *of.digest
            && page.u64(96) == of.footer_offset
            && u64::from(page.u32(104)) == of.length.div_ceil(CRC_SPAN_BYTES)
            && trailer.rows <= MAX_VOLUME_RECORDS;
        if same { Ok(trailer) } else { Err(FooterError::Elsewhere) }
    }

    /// The page checksums, from the bytes of their part.
    pub(crate) fn checksums(&self, part: &[u8]) -> Result<Vec<u32>, FooterError> {
        let count = self.length.div_ceil(CRC_SPAN_BYTES) as usize;
        if part.len() < count * 4 || crc32fast::hash(part) != self.checksums_crc {
            return Err(FooterError::Checksums);
        }
        Ok(part.chunks_exact(4).take(count).map(|crc| u32::from_le_bytes(array(crc))).collect())
    }

    /// The record table, from the bytes of its part.
    pub(crate) fn rows(&self, part: &[u8]) -> Result<Vec<RecordRow>, FooterError> {
        let count = self.rows as usize;
        if part.len() < count * ROW || crc32fast::hash(part) != self.rows_crc {
            return Err(FooterError::Rows);
        }
        let row = |bytes: &[u8]| RecordRow {
            hash: BlockHash(array(&bytes[..32])),
            offset: u64::from_le_bytes(array(&bytes[32..40])),
            length: u32::from_le_bytes(array(&bytes[40..44])),
            flags: u32::from_le_bytes(array(&bytes[44..48])),
        };
        Ok(part.chunks_exact(ROW).take(count).map(row).collect())
    }
}

/// The bytes of a slice whose length is known to be `N`.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|n| bytes[n])
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{BlockHash, DiskId, VolumeId, WriteEpoch};
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{Footer, FooterError, FooterOf, FooterShape, RecordRow, Trailer};

    const DIGEST: [u8; 32] = [0x5a; 32];

    fn of(length: u64) -> FooterOf<'static> {
        FooterOf {
            disk: DiskId([0xd1; 16]),
            slot: 3,
            slot_generation: 2,
            volume: VolumeId([0x22; 16]),
            append_epoch: WriteEpoch(5),
            length,
            digest: &DIGEST,
            footer_offset: length,
        }
    }

    fn sample() -> Footer {
        let row = |n: u8| RecordRow {
            hash: BlockHash([n; 32]),
            offset: 64 + u64::from(n) * 1000,
            length: 1000,
            flags: u32::from(n),
        };
        Footer { checksums: vec![0x0102_0304, 0x0506_0708], rows: Some(vec![row(0), row(1)]) }
    }

    const LENGTH: u64 = 72 * 1024;

    #[test]
    fn golden_bytes_of_a_footer() {
        let bytes = sample().encode(&of(LENGTH));
        assert_eq!(bytes.len(), 3 * 4096);
        assert!(bytes == include_bytes!("../tests/fixtures/v2/footer.bin"), "the format has changed");
        assert_eq!(hex(&bytes[..8]), "0403020108070605");
        assert_eq!(hex(&bytes[4096 + 48..4096 + 96]), format!("{}2804000000000000e803000001000000", "01".repeat(32)));
        let trailer = concat!(
            "4846465401000000",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "0300000002000000",
            "22222222222222222222222222222222",
            "05000000000000000020010000000000",
            "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            "00200100000000000200000002000000",
        );
        assert_eq!(hex(&bytes[8192..8192 + 112]), trailer);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(bytes: &[u8], of: &FooterOf<'_>) -> Result<Footer, FooterError> {
        let trailer = Trailer::decode(&bytes[bytes.len() - 4096..], of)?;
        let shape = FooterShape::of(trailer.length, trailer.rows);
        let checksums = trailer.checksums(&bytes[..shape.checksums as usize])?;
        let rows = trailer.rows(&bytes[shape.checksums as usize..(shape.checksums + shape.rows) as usize])?;
        Ok(Footer { checksums, rows: trailer.has_records.then_some(rows) })
    }

    #[test]
    fn what_was_encoded_decodes_with_and_without_records() {
        assert_eq!(decode(&sample().encode(&of(LENGTH)), &of(LENGTH)), Ok(sample()));
        let parity = Footer { rows: None, ..sample() };
        assert_eq!(decode(&parity.encode(&of(LENGTH)), &of(LENGTH)), Ok(parity));
    }

    #[test]
    fn the_footer_of_another_extent_is_not_believed() {
        let bytes = sample().encode(&of(LENGTH));
        let others = [
            FooterOf { slot: 4, ..of(LENGTH) },
            FooterOf { slot_generation: 1, ..of(LENGTH) },
            FooterOf { volume: VolumeId([1; 16]), ..of(LENGTH) },
            FooterOf { disk: DiskId([1; 16]), ..of(LENGTH) },
            FooterOf { digest: &[0; 32], ..of(LENGTH) },
            FooterOf { footer_offset: 4096, ..of(LENGTH) },
            of(LENGTH + 4096),
        ];
        for other in others {
            assert_eq!(decode(&bytes, &other), Err(FooterError::Elsewhere), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..3 * 4096 * 8usize) {
            let mut bytes = sample().encode(&of(LENGTH));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, &of(LENGTH)).is_err());
        }

        #[test]
        fn any_rows_come_back(rows in prop::collection::vec(any::<([u8; 32], u64, u32, u32)>(), 0..200)) {
            let rows = rows.into_iter().map(|(hash, offset, length, flags)| {
                RecordRow { hash: BlockHash(hash), offset, length, flags }
            });
            let footer = Footer { rows: Some(rows.collect()), ..sample() };
            prop_assert_eq!(decode(&footer.encode(&of(LENGTH)), &of(LENGTH)), Ok(footer));
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(Trailer::decode(&bytes, &of(LENGTH)).is_err());
        }
    }
}
