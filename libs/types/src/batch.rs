//! The unit of an append: a 64-byte header, records back to back, zero padding to a whole page.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFBT"
//!      4     1  version (1)
//!      5     3  zero
//!      8    16  volume id
//!     24     8  offset of this batch in the volume, bytes (a multiple of 4096)
//!     32     8  write epoch
//!     40     8  durable before: the volume's length that every replica had acknowledged when the batch was built
//!     48     4  batch length, bytes: header, records and padding (a multiple of 4096)
//!     52     4  number of records
//!     56     4  CRC-32 (IEEE) of everything after the header, padding included
//!     60     4  CRC-32 (IEEE) of bytes 0..60
//! ```
//! All integers are little-endian.
//!
//! `durable before` is what lets a reader after a crash tell damage from a torn tail: a bad batch that starts
//! below it was acknowledged and is damage.

use crate::layout::{Reader, Writer};
use crate::record::{CheckedRecord, RECORD_HEADER_BYTES, RecordError, RecordHeader};
use crate::{MAX_BATCH_BYTES, PAGE_BYTES, VolumeId, WriteEpoch};

/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"HFBT";
const VERSION: u8 = 1;
const CRC_AT: usize = BATCH_HEADER_BYTES - 4;

/// The fields of a batch header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    /// The volume it was written to.
    pub volume: VolumeId,
    /// Where the batch starts in the volume, in bytes.
    pub offset: u64,
    /// The writer's epoch.
    pub epoch: WriteEpoch,
    /// Length of the volume that was durable on all replicas when the batch was built, in bytes.
    pub durable_before: u64,
    /// Bytes of the whole batch.
    pub batch_len: u32,
    /// Records in it.
    pub record_count: u32,
    /// CRC-32 (IEEE) of records and padding.
    pub body_crc: u32,
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch needs.
    #[error("batch is cut short: {have} of {need} bytes")]
    Short {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// No batch starts here.
    #[error("no batch header here (magic is wrong)")]
    Magic,
    /// Written by a newer version of the format.
    #[error("batch version {0} is not known")]
    Version(u8),
    /// The header's own checksum does not match.
    #[error("batch header checksum does not match")]
    HeaderChecksum,
    /// The checksum over records and padding does not match.
    #[error("batch body checksum does not match")]
    BodyChecksum,
    /// The length is no whole number of pages, or outside its limits.
    #[error("batch length {0} is impossible")]
    Length(u32),
    /// No volume is that long.
    #[error("batch offset {0} is impossible")]
    Offset(u64),
    /// The records do not fill the batch as its header says.
    #[error("batch holds other records than its header says")]
    RecordCount,
    /// A valid batch, but of another volume or offset.
    #[error("batch belongs elsewhere: volume {volume} offset {offset}")]
    Elsewhere {
        /// The volume named in the header.
        volume: VolumeId,
        /// The offset named in the header.
        offset: u64,
    },
    /// One of its records is bad.
    #[error("record at offset {offset}: {source}")]
    Record {
        /// Where the record starts in the volume, in bytes.
        offset: u64,
        /// What is wrong with it.
        source: RecordError,
    },
}

impl BatchHeader {
    /// The 64 bytes of the header.
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES);
        let mut w = Writer(&mut bytes);
        w.bytes(&MAGIC);
        w.u8(VERSION);
        w.zeros(3);
        w.bytes(self.volume.as_bytes());
        w.u64(self.offset);
        w.u64(self.epoch.0);
        w.u64(self.durable_before);
        w.u32(self.batch_len);
        w.u32(self.record_count);
        w.u32(self.body_crc);
        let crc = crc32fast::hash(w.0);
        w.u32(crc);
        let mut out = [0; BATCH_HEADER_BYTES];
        out.copy_from_slice(&bytes);
        out
    }

    /// Reads a header from the front of `bytes`; says nothing about the body.
    ///
    /// # Errors
    /// `Short`, `Magic`, `Version`, `HeaderChecksum`, `Length` or `Offset`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.get(..BATCH_HEADER_BYTES) else {
            return Err(BatchError::Short { have: bytes.len(), need: BATCH_HEADER_BYTES });
        };
        if header[..4] != MAGIC {
            return Err(BatchError::Magic);
        }
        if crc32fast::hash(&header[..CRC_AT]) != Reader(&header[CRC_AT..]).u32() {
            return Err(BatchError::HeaderChecksum);
        }
        let mut r = Reader(&header[4..]);
        let version = r.u8();
        if version != VERSION {
            return Err(BatchError::Version(version));
        }
        r.array::<3>();
        let decoded = Self {
            volume: VolumeId(r.array()),
            offset: r.u64(),
            epoch: WriteEpoch(r.u64()),
            durable_before: r.u64(),
            batch_len: r.u32(),
            record_count: r.u32(),
            body_crc: r.u32(),
        };
        let len = decoded.batch_len as usize;
        if len < PAGE_BYTES || !len.is_multiple_of(PAGE_BYTES) || len > MAX_BATCH_BYTES {
            return Err(BatchError::Length(decoded.batch_len));
        }
        if decoded.offset.checked_add(len as u64).is_none() {
            return Err(BatchError::Offset(decoded.offset));
        }
        Ok(decoded)
    }
}

/// A whole batch whose every checksum was found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch<'a> {
    /// The decoded header.
    pub header: BatchHeader,
    body: &'a [u8],
}

impl<'a> CheckedBatch<'a> {
    /// Checks the batch at the front of `bytes`: its checksums, that it names `volume` and `offset`, and that each
    /// record in it names its own place. Bytes after the batch are ignored.
    ///
    /// The body checksum covers every payload byte, so payload checksums are compared only by readers of single
    /// records ([`CheckedRecord::decode`]) and not a second time here.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn decode(bytes: &'a [u8], volume: VolumeId, offset: u64) -> Result<Self, BatchError> {
        let header = BatchHeader::decode(bytes)?;
        if header.volume != volume || header.offset != offset {
            return Err(BatchError::Elsewhere { volume: header.volume, offset: header.offset });
        }
        let need = header.batch_len as usize;
        let Some(body) = bytes.get(BATCH_HEADER_BYTES..need) else {
            return Err(BatchError::Short { have: bytes.len(), need });
        };
        if crc32fast::hash(body) != header.body_crc {
            return Err(BatchError::BodyChecksum);
        }
        let batch = Self { header, body };
        batch.check_records()?;
        Ok(batch)
    }

    fn check_records(&self) -> Result<(), BatchError> {
        let mut at = 0;
        for _ in 0..self.header.record_count {
            let offset = self.header.offset + (BATCH_HEADER_BYTES + at) as u64;
            let record =
                RecordHeader::decode(&self.body[at..]).map_err(|source| BatchError::Record { offset, source })?;
            if record.volume != self.header.volume || record.offset != offset || record.epoch != self.header.epoch {
                let source = RecordError::Elsewhere { volume: record.volume, offset: record.offset };
                return Err(BatchError::Record { offset, source });
            }
            at += record.record_len();
            if at > self.body.len() {
                return Err(BatchError::RecordCount);
            }
        }
        let padding = &self.body[at..];
        if padding.len() >= PAGE_BYTES || padding.iter().any(|byte| *byte != 0) {
            return Err(BatchError::RecordCount);
        }
        Ok(())
    }

    /// The headers of its records, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordHeader> + '_ {
        let mut at = 0;
        (0..self.header.record_count).map_while(move |_| {
            let record = RecordHeader::decode(&self.body[at..]).ok()?;
            at += record.record_len();
            Some(record)
        })
    }

    /// One record with its payload checksum compared, `offset` being its place in the volume.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn record_at(&self, offset: u64) -> Result<CheckedRecord<'a>, RecordError> {
        let start = offset.saturating_sub(self.header.offset + BATCH_HEADER_BYTES as u64);
        let bytes = usize::try_from(start).ok().and_then(|start| self.body.get(start..)).unwrap_or(&[]);
        CheckedRecord::decode(bytes, self.header.volume, offset)
    }
}

/// Builds a batch, record by record.
#[derive(Debug)]
pub struct BatchBuilder {
    volume: VolumeId,
    epoch: WriteEpoch,
    offset: u64,
    durable_before: u64,
    records: u32,
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// Starts an empty batch for `offset`, which must be a multiple of the page size.
    pub fn new(volume: VolumeId, epoch: WriteEpoch, offset: u64, durable_before: u64) -> Self {
        debug_assert!(offset.is_multiple_of(PAGE_BYTES as u64));
        let mut bytes = Vec::with_capacity(PAGE_BYTES);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Self { volume, epoch, offset, durable_before, records: 0, bytes }
    }

    /// Makes room for `additional` more bytes at once.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional + PAGE_BYTES);
    }

    /// Where the next record will start in the volume, in bytes.
    pub fn next_offset(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The batch's length if it were finished after one more record with `payload_len` bytes of payload.
    pub fn len_with(&self, payload_len: usize) -> usize {
        (self.bytes.len() + RECORD_HEADER_BYTES + payload_len).next_multiple_of(PAGE_BYTES)
    }

    /// Records added so far.
    pub fn record_count(&self) -> u32 {
        self.records
    }

    /// Adds a record; `header`'s place (volume, epoch, offset) and payload checksum and length are filled in here.
    /// Returns its offset in the volume and its length, both in bytes.
    pub fn push(&mut self, mut header: RecordHeader, payload: &[u8]) -> (u64, u32) {
        header.volume = self.volume;
        header.epoch = self.epoch;
        header.offset = self.next_offset();
        header.stored_len = payload.len() as u32;
        header.payload_crc = crc32fast::hash(payload);
        header.encode(&mut self.bytes);
        self.bytes.extend_from_slice(payload);
        self.records += 1;
        (header.offset, header.record_len() as u32)
    }

    /// Pads, checksums and returns the batch.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(PAGE_BYTES), 0);
        let header = BatchHeader {
            volume: self.volume,
            offset: self.offset,
            epoch: self.epoch,
            durable_before: self.durable_before,
            batch_len: self.bytes.len() as u32,
            record_count: self.records,
            body_crc: crc32fast::hash(&self.bytes[BATCH_HEADER_BYTES..]),
        };
        self.bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, CheckedBatch};
    use crate::record::tests::sample;
    use crate::{PAGE_BYTES, VolumeId, WriteEpoch};

    const VOLUME: VolumeId = VolumeId([7; 16]);

    fn build(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(VOLUME, WriteEpoch(2), 8192, 8192);
        for payload in payloads {
            let expected = builder.len_with(payload.len());
            builder.push(sample(payload), payload);
            assert_eq!(builder.bytes.len().next_multiple_of(PAGE_BYTES), expected);
        }
        builder.finish()
    }

    #[test]
    fn golden_bytes_of_a_batch_header() {
        let header = BatchHeader {
            volume: VOLUME,
            offset: 8192,
            epoch: WriteEpoch(2),
            durable_before: 4096,
            batch_len: 4096,
            record_count: 1,
            body_crc: 0x0403_0201,
        };
        let golden = concat!(
            "4846425401000000",
            "07070707070707070707070707070707",
            "00200000000000000200000000000000",
            "0010000000000000",
            "001000000100000001020304",
            "aa13d300"
        );
        assert_eq!(hex::encode(header.encode()), golden);
        assert_eq!(BatchHeader::decode(&header.encode()), Ok(header));
    }

    proptest! {
        #[test]
        fn what_was_built_reads_back(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 1..5)) {
            let bytes = build(&payloads);
            let batch = CheckedBatch::decode(&bytes, VOLUME, 8192).unwrap();
            let records: Vec<_> = batch.records().collect();
            prop_assert_eq!(records.len(), payloads.len());
            for (record, payload) in records.iter().zip(&payloads) {
                prop_assert_eq!(batch.record_at(record.offset).unwrap().payload, &payload[..]);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..3000), seed in any::<usize>()) {
            let mut bytes = build(&[payload]);
            let bit = seed % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(CheckedBatch::decode(&bytes, VOLUME, 8192).is_err());
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = build(&[vec![1; 10]])[..BATCH_HEADER_BYTES].to_vec();
            framed.extend_from_slice(&bytes);
            let _ = CheckedBatch::decode(&bytes, VOLUME, 8192);
            let _ = CheckedBatch::decode(&framed, VOLUME, 8192);
        }
    }
}
