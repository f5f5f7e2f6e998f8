//! A block as stored: a 128-byte header, then the encrypted payload.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFRC"
//!      4     1  version (1)
//!      5     1  flags (bit 0: plaintext was compressed before encryption; others zero)
//!      6     2  zero
//!      8    32  block hash: SHA-256 of the plaintext
//!     40    16  volume id
//!     56     8  offset of this header in the volume, bytes
//!     64     8  write epoch
//!     72     4  stored length: payload bytes that follow the header (ciphertext and tag)
//!     76     4  plain length: bytes of the block
//!     80    16  key id of the data key
//!     96    12  nonce of AES-256-GCM
//!    108     8  zero
//!    116     4  zero
//!    120     4  CRC-32 (IEEE) of the payload
//!    124     4  CRC-32 (IEEE) of bytes 0..124
//! ```
//! All integers are little-endian.
//!
//! Volume, offset and epoch stand inside the checksummed header, so that bytes left over from an earlier life of
//! a slot never validate. They are not part of the cipher's associated data, so that repair and compaction copy
//! ciphertext without keys. The checksums come last because they cover what precedes them.

use crate::layout::{Reader, Writer};
use crate::{BlockHash, KeyId, MAX_BLOCK_BYTES, VolumeId, WriteEpoch};

/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 128;

/// Bytes that AES-256-GCM adds to a block.
pub const TAG_BYTES: usize = 16;

/// Largest payload of a record, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = MAX_BLOCK_BYTES + TAG_BYTES;

/// Set when the plaintext was compressed before encryption.
pub const FLAG_COMPRESSED: u8 = 1;

const MAGIC: [u8; 4] = *b"HFRC";
const VERSION: u8 = 1;
const CRC_AT: usize = RECORD_HEADER_BYTES - 4;

/// The fields of a record header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bit set of `FLAG_*`.
    pub flags: u8,
    /// SHA-256 of the plaintext.
    pub hash: BlockHash,
    /// The volume this record was written to.
    pub volume: VolumeId,
    /// Where the header stands in the volume, in bytes.
    pub offset: u64,
    /// The epoch it was written under.
    pub epoch: WriteEpoch,
    /// Payload bytes.
    pub stored_len: u32,
    /// Bytes of the block.
    pub plain_len: u32,
    /// The data key that sealed the payload.
    pub key: KeyId,
    /// The nonce it was sealed with.
    pub nonce: [u8; 12],
    /// CRC-32 (IEEE) of the payload.
    pub payload_crc: u32,
}

/// Why bytes are not the record that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Fewer bytes than the record needs.
    #[error("record is cut short: {have} of {need} bytes")]
    Short {
        /// Bytes given.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// No record starts here.
    #[error("no record header here (magic is wrong)")]
    Magic,
    /// Written by a newer version of the format.
    #[error("record version {0} is not known")]
    Version(u8),
    /// The header's own checksum does not match.
    #[error("record header checksum does not match")]
    HeaderChecksum,
    /// The payload's checksum does not match.
    #[error("record payload checksum does not match")]
    PayloadChecksum,
    /// A length field is outside its limits.
    #[error("record lengths are impossible: stored {stored}, plain {plain}")]
    Lengths {
        /// Stored length.
        stored: u32,
        /// Plain length.
        plain: u32,
    },
    /// A valid record, but of another volume, offset or epoch.
    #[error("record belongs elsewhere: volume {volume} offset {offset}")]
    Elsewhere {
        /// The volume named in the header.
        volume: VolumeId,
        /// The offset named in the header.
        offset: u64,
    },
}

impl RecordHeader {
    /// Header and payload bytes together.
    pub fn record_len(&self) -> usize {
        RECORD_HEADER_BYTES + self.stored_len as usize
    }

    /// Appends the 128 bytes of the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut w = Writer(out);
        w.bytes(&MAGIC);
        w.u8(VERSION);
        w.u8(self.flags);
        w.zeros(2);
        w.bytes(self.hash.as_bytes());
        w.bytes(self.volume.as_bytes());
        w.u64(self.offset);
        w.u64(self.epoch.0);
        w.u32(self.stored_len);
        w.u32(self.plain_len);
        w.bytes(self.key.as_bytes());
        w.bytes(&self.nonce);
        w.zeros(12);
        w.u32(self.payload_crc);
        let crc = crc32fast::hash(&out[start..]);
        Writer(out).u32(crc);
    }

    /// Reads a header from the front of `bytes`.
    ///
    /// # Errors
    /// Any [`RecordError`] but `PayloadChecksum` and `Elsewhere`.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(header) = bytes.get(..RECORD_HEADER_BYTES) else {
            return Err(RecordError::Short { have: bytes.len(), need: RECORD_HEADER_BYTES });
        };
        if header[..4] != MAGIC {
            return Err(RecordError::Magic);
        }
        if crc32fast::hash(&header[..CRC_AT]) != Reader(&header[CRC_AT..]).u32() {
            return Err(RecordError::HeaderChecksum);
        }
        let mut r = Reader(&header[4..]);
        let version = r.u8();
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let flags = r.u8();
        r.array::<2>();
        let hash = BlockHash(r.array());
        let volume = VolumeId(r.array());
        let offset = r.u64();
        let epoch = WriteEpoch(r.u64());
        let stored_len = r.u32();
        let plain_len = r.u32();
        let key = KeyId(r.array());
        let nonce = r.array();
        r.array::<12>();
        let payload_crc = r.u32();
        if stored_len as usize > MAX_PAYLOAD_BYTES || plain_len as usize > MAX_BLOCK_BYTES {
            return Err(RecordError::Lengths { stored: stored_len, plain: plain_len });
        }
        Ok(Self { flags, hash, volume, offset, epoch, stored_len, plain_len, key, nonce, payload_crc })
    }
}

/// A record whose two checksums were found right: header and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRecord<'a> {
    /// The decoded header.
    pub header: RecordHeader,
    /// Ciphertext and tag.
    pub payload: &'a [u8],
}

impl<'a> CheckedRecord<'a> {
    /// Checks the record at the front of `bytes`: both checksums, and that it names `volume` and `offset`.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(bytes: &'a [u8], volume: VolumeId, offset: u64) -> Result<Self, RecordError> {
        let header = RecordHeader::decode(bytes)?;
        if header.volume != volume || header.offset != offset {
            return Err(RecordError::Elsewhere { volume: header.volume, offset: header.offset });
        }
        let need = header.record_len();
        let Some(payload) = bytes.get(RECORD_HEADER_BYTES..need) else {
            return Err(RecordError::Short { have: bytes.len(), need });
        };
        if crc32fast::hash(payload) != header.payload_crc {
            return Err(RecordError::PayloadChecksum);
        }
        Ok(Self { header, payload })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{CheckedRecord, RECORD_HEADER_BYTES, RecordError, RecordHeader};
    use crate::{BlockHash, KeyId, VolumeId, WriteEpoch};

    pub(crate) fn sample(payload: &[u8]) -> RecordHeader {
        RecordHeader {
            flags: 0,
            hash: BlockHash([0x11; 32]),
            volume: VolumeId([0x22; 16]),
            offset: 64,
            epoch: WriteEpoch(3),
            stored_len: payload.len() as u32,
            plain_len: 5,
            key: KeyId([0x33; 16]),
            nonce: [0x44; 12],
            payload_crc: crc32fast::hash(payload),
        }
    }

    #[test]
    fn golden_bytes_of_a_record_header() {
        let mut bytes = Vec::new();
        sample(b"payload").encode(&mut bytes);
        assert_eq!(bytes.len(), RECORD_HEADER_BYTES);
        let golden = concat!(
            "4846524301000000",
            "1111111111111111111111111111111111111111111111111111111111111111",
            "22222222222222222222222222222222",
            "40000000000000000300000000000000",
            "0700000005000000",
            "33333333333333333333333333333333",
            "444444444444444444444444",
            "000000000000000000000000",
            "156a2c420ac0f1f6"
        );
        assert_eq!(hex::encode(bytes), golden);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        let header = sample(b"payload");
        header.encode(&mut bytes);
        bytes.extend_from_slice(b"payload");
        let good = CheckedRecord::decode(&bytes, header.volume, header.offset).unwrap();
        assert_eq!(good.header, header);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckedRecord::decode(&bad, header.volume, header.offset).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_read_at_another_place_is_refused() {
        let mut bytes = Vec::new();
        let header = sample(b"payload");
        header.encode(&mut bytes);
        bytes.extend_from_slice(b"payload");
        let error = CheckedRecord::decode(&bytes, header.volume, 4096).unwrap_err();
        assert!(matches!(error, RecordError::Elsewhere { .. }));
    }
}
