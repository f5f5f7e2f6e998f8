//! Disk files, looked into behind their node's back.

use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_libs_types::BlockHash;
use holdfast_libs_types::record::RecordHeader;

const PAGE: usize = 4096;

/// Where the record of a block starts in a disk file, bytes.
pub fn find_record(path: &Path, hash: &BlockHash) -> Option<u64> {
    let all = std::fs::read(path).unwrap();
    let zeros = [0; PAGE];
    for (page, start) in all.chunks(PAGE).zip((0..).step_by(PAGE)) {
        if page == &zeros[..page.len()] {
            continue;
        }
        for at in start..start + page.len() {
            if all[at] == b'H' && all[at..].starts_with(b"HFRC") && all[at + 8..].starts_with(hash.as_bytes()) {
                return Some(at as u64);
            }
        }
    }
    None
}

/// Flips one bit of the record of a block: bit `bit` counted from the start of its header, modulo its length.
pub fn flip(path: &Path, hash: &BlockHash, bit: usize) {
    let at = find_record(path, hash).expect("the record is on the disk");
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut header = [0; 128];
    file.read_exact_at(&mut header, at).unwrap();
    let length = RecordHeader::decode(&header).unwrap().record_len();
    let bit = bit % (length * 8);
    let place = at + (bit / 8) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], place).unwrap();
    file.sync_all().unwrap();
}

/// Changes the payload of a block's record and makes its checksums right again, as no disk would.
pub fn forge(path: &Path, hash: &BlockHash) {
    let at = find_record(path, hash).expect("the record is on the disk");
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; 128];
    file.read_exact_at(&mut bytes, at).unwrap();
    let mut header = RecordHeader::decode(&bytes).unwrap();
    let mut payload = vec![0; header.stored_len as usize];
    file.read_exact_at(&mut payload, at + 128).unwrap();
    payload[0] ^= 1;
    header.payload_crc = crc32fast::hash(&payload);
    bytes.clear();
    header.encode(&mut bytes);
    bytes.extend_from_slice(&payload);
    file.write_all_at(&bytes, at).unwrap();
    file.sync_all().unwrap();
}

/// Whether the bytes stand anywhere in a file.
pub fn contains(path: &Path, needle: &[u8]) -> bool {
    let all = std::fs::read(path).unwrap();
    let zeros = [0; PAGE];
    all.chunks(PAGE).zip((0..).step_by(PAGE)).any(|(page, start): (&[u8], usize)| {
        page != &zeros[..page.len()]
            && (start..start + page.len()).any(|at| all[at] == needle[0] && all[at..].starts_with(needle))
    })
}
