//! What stands on a disk: the engine's pages, batches and records.

use holdfast_libs_types::batch::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, CheckedBatch};
use holdfast_libs_types::record::{CheckedRecord, RECORD_HEADER_BYTES, RecordHeader};
use holdfast_libs_types::{BlockHash, KeyId, VolumeId, WriteEpoch};
use holdfast_node_engine::fuzz::PARSERS;

use super::of_bytes;
use crate::driver::{Outcome, Target};

pub fn targets() -> Vec<Target> {
    let mut targets: Vec<Target> = PARSERS
        .iter()
        .map(|parser| Target {
            repair: Box::new(|bytes| (parser.repair)(bytes)),
            most_bytes: 256 << 10,
            ..of_bytes(parser.name, (parser.seeds)(), parser.run)
        })
        .collect();
    targets.push(Target { repair: Box::new(|bytes| repair_batch(bytes)), ..of_bytes("batch", batches(), batch) });
    targets.push(Target {
        repair: Box::new(|bytes| {
            repair_record(bytes);
        }),
        ..of_bytes("record", records(), record)
    });
    targets
}

/// A valid batch of so many records.
pub fn sample_batch(volume: VolumeId, offset: u64, payloads: &[usize]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(volume, WriteEpoch(1), offset, offset);
    for len in payloads {
        let header = RecordHeader {
            flags: 0,
            hash: BlockHash([7; 32]),
            volume,
            offset: 0,
            epoch: WriteEpoch(1),
            stored_len: 0,
            plain_len: len.saturating_sub(16) as u32,
            key: KeyId([1; 16]),
            nonce: [2; 12],
            payload_crc: 0,
        };
        builder.push(header, &vec![0xab; *len]);
    }
    builder.finish()
}

fn batches() -> Vec<Vec<u8>> {
    let volume = VolumeId([3; 16]);
    vec![
        sample_batch(volume, 0, &[16]),
        sample_batch(volume, 8192, &[16, 100, 3000, 16]),
        sample_batch(volume, !4095, &[16]),
        sample_batch(volume, 4096, &[]),
    ]
}

fn records() -> Vec<Vec<u8>> {
    batches().into_iter().map(|batch| batch[BATCH_HEADER_BYTES..].to_vec()).collect()
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()) as usize)
}

/// Both checksums of a record; answers its length.
fn repair_record(bytes: &mut [u8]) -> usize {
    let stored = number(bytes, 72);
    let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.saturating_add(stored)).map(crc32fast::hash);
    if let Some(crc) = payload {
        put_crc(bytes, 120, crc);
    }
    if let Some(header) = bytes.get(..RECORD_HEADER_BYTES - 4) {
        let crc = crc32fast::hash(header);
        put_crc(bytes, RECORD_HEADER_BYTES - 4, crc);
    }
    RECORD_HEADER_BYTES.saturating_add(stored)
}

/// The checksums of the records first, of the body then, of the header last.
fn repair_batch(bytes: &mut [u8]) {
    let mut at = BATCH_HEADER_BYTES;
    for _ in 0..number(bytes, 52).min(10_000) {
        if at >= bytes.len() {
            break;
        }
        at = at.saturating_add(repair_record(&mut bytes[at..]));
    }
    if let Some(body) = bytes.get(BATCH_HEADER_BYTES..number(bytes, 48)) {
        let crc = crc32fast::hash(body);
        put_crc(bytes, 56, crc);
    }
    if let Some(header) = bytes.get(..BATCH_HEADER_BYTES - 4) {
        let crc = crc32fast::hash(header);
        put_crc(bytes, BATCH_HEADER_BYTES - 4, crc);
    }
}

/// Volume and offset are the header's own: who sends a batch chooses them.
fn batch(bytes: &[u8]) -> Outcome {
    let header = BatchHeader::decode(bytes).map_err(|error| error.to_string())?;
    assert_eq!(BatchHeader::decode(&header.encode()).as_ref(), Ok(&header), "what was read encodes to the same");
    let batch = CheckedBatch::decode(bytes, header.volume, header.offset).map_err(|error| error.to_string())?;
    assert_eq!(batch.records().count(), header.record_count as usize);
    for record in batch.records() {
        // A payload that does not match is refused here, and only here.
        let _ = batch.record_at(record.offset);
    }
    for strange in [0, header.offset.wrapping_sub(1), u64::MAX] {
        let _ = batch.record_at(strange);
    }
    Ok(())
}

fn record(bytes: &[u8]) -> Outcome {
    let header = RecordHeader::decode(bytes).map_err(|error| error.to_string())?;
    let mut encoded = Vec::new();
    header.encode(&mut encoded);
    assert_eq!(RecordHeader::decode(&encoded).as_ref(), Ok(&header), "what was read encodes to the same");
    let record = CheckedRecord::decode(bytes, header.volume, header.offset).map_err(|error| error.to_string())?;
    assert_eq!(record.payload.len() + RECORD_HEADER_BYTES, header.record_len());
    Ok(())
}
