//! Collects a footer while the bytes of an extent pass by in order, in memory bounded by the number of records.

use holdfast_libs_types::batch::{BATCH_HEADER_BYTES, BatchHeader};
use holdfast_libs_types::record::{RECORD_HEADER_BYTES, RecordHeader};
use holdfast_libs_types::{MAX_VOLUME_RECORDS, VolumeId, WriteEpoch};

use super::{Footer, RecordRow};
use crate::geometry::CRC_SPAN_BYTES;

/// See the module's header. The caller has checked, or will check, that the bytes are the right ones: what is built here
/// describes them as they came.
pub(crate) struct FooterBuilder {
    span: crc32fast::Hasher,
    span_fill: u64,
    checksums: Vec<u32>,
    walk: RecordWalk,
}

impl FooterBuilder {
    /// For an extent of `volume`.
    pub(crate) fn new(volume: VolumeId) -> Self {
        Self { span: crc32fast::Hasher::new(), span_fill: 0, checksums: Vec::new(), walk: RecordWalk::new(volume) }
    }

    /// The next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.walk.feed(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (CRC_SPAN_BYTES - self.span_fill) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.span.update(now);
            self.span_fill += now.len() as u64;
            rest = later;
            if self.span_fill == CRC_SPAN_BYTES {
                self.end_span();
            }
        }
    }

    fn end_span(&mut self) {
        self.checksums.push(std::mem::take(&mut self.span).finalize());
        self.span_fill = 0;
    }

    /// The epoch that the batches carry; `None` when there are none.
    pub(crate) fn append_epoch(&self) -> Option<WriteEpoch> {
        self.walk.epoch
    }

    /// The footer of the bytes so far. It has no rows when they are no batches of the volume.
    pub(crate) fn finish(mut self) -> Footer {
        if self.span_fill > 0 {
            self.end_span();
        }
        Footer { checksums: self.checksums, rows: self.walk.finish() }
    }
}

/// Finds the records in batches that come in pieces of any length.
struct RecordWalk {
    volume: VolumeId,
    /// Of the first batch; all others must have it.
    epoch: Option<WriteEpoch>,
    /// Offset of the next byte that comes.
    position: u64,
    batch_end: u64,
    records_left: u32,
    /// Bytes to pass over before the next header.
    skip: u64,
    /// The header that is being collected, batch or record.
    header: Vec<u8>,
    rows: Vec<RecordRow>,
    /// These are no batches.
    lost: bool,
}

impl RecordWalk {
    fn new(volume: VolumeId) -> Self {
        Self {
            volume,
            epoch: None,
            position: 0,
            batch_end: 0,
            records_left: 0,
            skip: 0,
            header: Vec::new(),
            rows: Vec::new(),
            lost: false,
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            if self.skip > 0 {
                let take = self.skip.min(bytes.len() as u64);
                self.skip -= take;
                self.position += take;
                bytes = &bytes[take as usize..];
                continue;
            }
            let in_batch = self.records_left > 0;
            let want = if in_batch { RECORD_HEADER_BYTES } else { BATCH_HEADER_BYTES };
            let take = (want - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..take]);
            self.position += take as u64;
            bytes = &bytes[take..];
            if self.header.len() == want {
                let taken = if in_batch { self.record() } else { self.batch() };
                self.lost = taken.is_none();
                self.header.clear();
            }
        }
    }

    fn batch(&mut self) -> Option<()> {
        let start = self.position - BATCH_HEADER_BYTES as u64;
        let header = BatchHeader::decode(&self.header).ok()?;
        let epoch = *self.epoch.get_or_insert(header.epoch);
        if (header.volume, header.offset, header.epoch) != (self.volume, start, epoch) {
            return None;
        }
        self.batch_end = start + u64::from(header.batch_len);
        self.records_left = header.record_count;
        if self.records_left == 0 {
            self.skip = self.batch_end - self.position;
        }
        Some(())
    }

    fn record(&mut self) -> Option<()> {
        let start = self.position - RECORD_HEADER_BYTES as u64;
        let header = RecordHeader::decode(&self.header).ok()?;
        let end = start + header.record_len() as u64;
        let fits = (header.volume, header.offset) == (self.volume, start) && end <= self.batch_end;
        if !fits || self.rows.len() >= MAX_VOLUME_RECORDS as usize {
            return None;
        }
        self.rows.push(RecordRow {
            hash: header.hash,
            offset: start,
            length: header.record_len() as u32,
            flags: u32::from(header.flags),
        });
        self.records_left -= 1;
        let next = if self.records_left > 0 { end } else { self.batch_end };
        self.skip = next - self.position;
        Some(())
    }

    fn finish(self) -> Option<Vec<RecordRow>> {
        let whole = self.records_left == 0 && self.skip == 0 && self.header.is_empty() && !self.lost;
        whole.then_some(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::batch::BatchBuilder;
    use holdfast_libs_types::record::RecordHeader;
    use holdfast_libs_types::{BlockHash, KeyId, VolumeId, WriteEpoch};
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Footer, FooterBuilder, RecordRow};

    const VOLUME: VolumeId = VolumeId([7; 16]);

    /// Batches of records with payloads of these lengths, and the rows they should give.
    fn extent(batches: &[Vec<usize>]) -> (Vec<u8>, Vec<RecordRow>) {
        let (mut bytes, mut rows) = (Vec::new(), Vec::new());
        for lengths in batches {
            let at = bytes.len() as u64;
            let mut builder = BatchBuilder::new(VOLUME, WriteEpoch(5), at, at);
            for (n, length) in lengths.iter().enumerate() {
                let header = RecordHeader {
                    flags: (n % 2) as u8,
                    hash: BlockHash([n as u8; 32]),
                    volume: VOLUME,
                    offset: 0,
                    epoch: WriteEpoch(5),
                    stored_len: 0,
                    plain_len: 0,
                    key: KeyId([1; 16]),
                    nonce: [2; 12],
                    payload_crc: 0,
                };
                let (hash, flags) = (header.hash, u32::from(header.flags));
                let (offset, length) = builder.push(header, &vec![n as u8; 16 + length]);
                rows.push(RecordRow { hash, offset, length, flags });
            }
            bytes.extend_from_slice(&builder.finish());
        }
        (bytes, rows)
    }

    fn build(bytes: &[u8], piece: usize) -> Footer {
        let mut builder = FooterBuilder::new(VOLUME);
        bytes.chunks(piece).for_each(|piece| builder.update(piece));
        builder.finish()
    }

    #[test]
    fn bytes_that_are_no_batches_have_checksums_and_no_rows() {
        let footer = build(&vec![9; 65_536 + 1], 1000);
        assert_eq!(
            footer,
            Footer { checksums: vec![crc32fast::hash(&[9; 65_536]), crc32fast::hash(&[9])], rows: None }
        );
    }

    #[test]
    fn an_empty_extent_has_an_empty_table() {
        assert_eq!(build(&[], 1), Footer { checksums: Vec::new(), rows: Some(Vec::new()) });
    }

    #[test]
    fn a_batch_of_another_volume_or_epoch_ends_the_table() {
        let (mut bytes, _) = extent(&[vec![100], vec![100]]);
        let mut other = FooterBuilder::new(VolumeId([8; 16]));
        other.update(&bytes);
        assert_eq!(other.finish().rows, None);
        let second = bytes.len() / 2;
        bytes[second + 100] ^= 1;
        assert_eq!(build(&bytes, 4096).rows, None);
    }

    proptest! {
        #[test]
        fn every_record_has_its_row_however_the_bytes_come(
            batches in prop::collection::vec(prop::collection::vec(0usize..9000, 1..6), 0..6), piece in 1usize..70_000
        ) {
            let (bytes, rows) = extent(&batches);
            let checksums = bytes.chunks(65_536).map(crc32fast::hash).collect();
            prop_assert_eq!(build(&bytes, piece), Footer { checksums, rows: Some(rows) });
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000), piece in 1usize..500) {
            build(&bytes, piece);
        }
    }
}
