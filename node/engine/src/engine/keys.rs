//! The key area: the wrapped keyring, which every disk of the cell carries. Two copies, each a header page and the
//! content; written one after the other, the newer valid one is read.
//!
//! ```text
//! offset  size  field (header page of a copy)
//!      0     4  magic "HFKA"
//!      4     4  version (1)
//!      8     8  generation: raised by every write
//!     16    16  disk id
//!     32     8  length of the content, bytes
//!     40     4  CRC-32 (IEEE) of the content
//!     44  4048  zero
//!   4092     4  CRC-32 (IEEE) of bytes 0..4092
//!   4096     …  content, zero padded to a page
//! ```

use holdfast_libs_types::PAGE_BYTES;

use super::Engine;
use crate::buffer::AlignedBuf;
use crate::error::EngineError;
use crate::page::{PageFault, PageReader, PageWriter};

const MAGIC: &[u8; 4] = b"HFKA";
const VERSION: u32 = 1;
const PAGE: u64 = PAGE_BYTES as u64;

/// A copy as found.
enum Copy {
    Blank,
    Bad(String),
    /// Nobody knows what stands there; perhaps the only good one.
    Unreadable(String),
    Good {
        generation: u64,
        content: Vec<u8>,
    },
}

/// The newer valid copy.
struct Newest {
    /// 0 or 1.
    index: usize,
    generation: u64,
    content: Vec<u8>,
}

/// What is known of the two copies.
struct FoundKeys {
    newest: Option<Newest>,
    /// The copy, 0 or 1, that could not be read.
    unreadable: Option<usize>,
}

/// What the scrub sees of the two copies.
pub(super) struct KeyCopies {
    pub(super) read_bytes: u64,
    /// Where a bad copy starts on the disk, and what is wrong with it.
    pub(super) bad: Vec<(u64, String)>,
    /// A bad one could not be read, so it may be a good one.
    pub(super) unreadable: bool,
    /// One copy is older than the other, as a crash between their writes leaves it.
    pub(super) behind: bool,
    /// The newer good one's.
    pub(super) content: Option<Vec<u8>>,
}

impl Engine {
    fn key_copy_offsets(&self) -> [u64; 2] {
        let area = self.geometry().keys;
        [area.offset, area.offset + area.len / 2]
    }

    /// See `Disk::read_key_area`.
    pub(crate) async fn read_key_area(&self) -> Result<Option<Vec<u8>>, EngineError> {
        self.shared.readable()?;
        let _guard = self.keys_lock.lock().await;
        let found = self.find_keys().await?;
        if found.newest.is_none() && found.unreadable.is_some() {
            return Err(self.no_keys("one copy cannot be read, and nothing was written to the other".to_owned()));
        }
        Ok(found.newest.map(|newest| newest.content))
    }

    /// See `Disk::write_key_area`.
    pub(crate) async fn write_key_area(&self, content: Vec<u8>) -> Result<(), EngineError> {
        self.shared.writable()?;
        let most = self.geometry().key_area_bytes();
        if content.len() as u64 > most {
            return Err(EngineError::InvalidArgument(format!(
                "the key area holds {most} bytes, not {}",
                content.len()
            )));
        }
        let _guard = self.keys_lock.lock().await;
        self.write_keys(content).await
    }

    /// Writes both copies. The caller holds the lock.
    pub(super) async fn write_keys(&self, content: Vec<u8>) -> Result<(), EngineError> {
        let FoundKeys { newest, unreadable } = self.find_keys().await?;
        let generation = newest.as_ref().map_or(0, |newest| newest.generation) + 1;
        let copy = encode(self.shared.id.as_bytes(), generation, &content);
        let offsets = self.key_copy_offsets();
        // Never first the copy that is valid, or may be: the other may be torn by an earlier failure.
        let first = newest.map(|newest| newest.index).or(unreadable).map_or(0, |valid| 1 - valid);
        for offset in [offsets[first], offsets[1 - first]] {
            self.write("writing the key area", offset, AlignedBuf::copy_of(&copy)).await?;
        }
        Ok(())
    }

    /// Makes a copy what it was before the first write of the keys. The caller holds the lock.
    pub(super) async fn blank_key_copy(&self, offset: u64) -> Result<(), EngineError> {
        self.write("blanking the key area", offset, AlignedBuf::copy_of(&[0; PAGE_BYTES])).await?;
        Ok(())
    }

    /// Reads both copies for the scrub. The caller holds the lock.
    pub(super) async fn check_keys(&self) -> KeyCopies {
        let mut copies = KeyCopies { read_bytes: 0, bad: Vec::new(), unreadable: false, behind: false, content: None };
        // 0 of one that is blank.
        let mut generations = Vec::new();
        for offset in self.key_copy_offsets() {
            copies.read_bytes += PAGE;
            match self.read_key_copy(offset).await {
                Copy::Blank => generations.push(0),
                Copy::Bad(what) => copies.bad.push((offset, what)),
                Copy::Unreadable(what) => {
                    copies.bad.push((offset, what));
                    copies.unreadable = true;
                }
                Copy::Good { generation, content } => {
                    copies.read_bytes += (content.len() as u64).next_multiple_of(PAGE).max(PAGE);
                    if generations.iter().all(|earlier| *earlier < generation) {
                        copies.content = Some(content);
                    }
                    generations.push(generation);
                }
            }
        }
        copies.behind = generations.windows(2).any(|two| two[0] != two[1]);
        copies
    }

    async fn find_keys(&self) -> Result<FoundKeys, EngineError> {
        let mut found = FoundKeys { newest: None, unreadable: None };
        let mut bad = Vec::new();
        for (index, offset) in self.key_copy_offsets().into_iter().enumerate() {
            match self.read_key_copy(offset).await {
                Copy::Blank => {}
                Copy::Bad(detail) => bad.push(detail),
                Copy::Unreadable(detail) => {
                    bad.push(detail);
                    found.unreadable = Some(index);
                }
                Copy::Good { generation, content } => {
                    if found.newest.as_ref().is_none_or(|newest| generation > newest.generation) {
                        found.newest = Some(Newest { index, generation, content });
                    }
                }
            }
        }
        // A bad copy beside a blank one is the torn first write ever: nothing was acknowledged.
        if found.newest.is_none() && bad.len() == 2 {
            return Err(self.no_keys(format!("both copies are damaged (A: {}; B: {})", bad[0], bad[1])));
        }
        Ok(found)
    }

    fn no_keys(&self, detail: String) -> EngineError {
        EngineError::Io { disk: self.shared.id, what: "reading the key area", source: std::io::Error::other(detail) }
    }

    async fn read_key_copy(&self, offset: u64) -> Copy {
        let read = |offset, len| self.read_twice(offset, len);
        let header = match read(offset, PAGE_BYTES).await {
            Ok(header) => header,
            Err(error) => return Copy::Unreadable(format!("cannot be read: {error}")),
        };
        let most = self.geometry().key_area_bytes();
        let header = match KeyHeader::decode(&header, &self.shared.id.0, most) {
            Ok(header) => header,
            Err(bad) => return bad,
        };
        match read(offset + PAGE, header.padded_len()).await {
            Ok(content) => header.accept(&content),
            Err(error) => Copy::Unreadable(format!("cannot be read: {error}")),
        }
    }
}

/// What the header page of a copy says.
struct KeyHeader {
    generation: u64,
    len: usize,
    crc: u32,
}

impl KeyHeader {
    /// Reads it; `most` is the longest content that fits, bytes.
    fn decode(bytes: &[u8], disk: &[u8; 16], most: u64) -> Result<Self, Copy> {
        let page = match PageReader::open(bytes, MAGIC) {
            Ok(page) => page,
            Err(PageFault::Blank) => return Err(Copy::Blank),
            Err(fault) => return Err(Copy::Bad(format!("{fault:?}"))),
        };
        let len = page.u64(32);
        if page.u32(4) != VERSION || page.array(16) != *disk || len > most {
            return Err(Copy::Bad("of another version, disk or size".to_owned()));
        }
        Ok(Self { generation: page.u64(8), len: len as usize, crc: page.u32(40) })
    }

    /// How many bytes the content takes with its padding.
    fn padded_len(&self) -> usize {
        self.len.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES)
    }

    fn accept(&self, padded: &[u8]) -> Copy {
        match padded.get(..self.len) {
            Some(content) if crc32fast::hash(content) == self.crc => {
                Copy::Good { generation: self.generation, content: content.to_vec() }
            }
            _ => Copy::Bad("its checksum does not match".to_owned()),
        }
    }
}

/// One copy from its bytes alone, for `fuzz`: its content, or what is wrong with it.
pub(crate) fn decode(bytes: &[u8], disk: &[u8; 16], most: u64) -> Result<Vec<u8>, String> {
    let what = |copy| match copy {
        Copy::Good { content, .. } => Ok(content),
        Copy::Blank => Err("blank".to_owned()),
        Copy::Bad(what) | Copy::Unreadable(what) => Err(what),
    };
    match KeyHeader::decode(bytes, disk, most) {
        Ok(header) => what(header.accept(bytes.get(PAGE_BYTES..).unwrap_or_default())),
        Err(bad) => what(bad),
    }
}

pub(crate) fn encode(disk: &[u8; 16], generation: u64, content: &[u8]) -> Vec<u8> {
    let mut page = PageWriter::new();
    page.put(0, MAGIC);
    page.put_u32(4, VERSION);
    page.put_u64(8, generation);
    page.put(16, disk);
    page.put_u64(32, content.len() as u64);
    page.put_u32(40, crc32fast::hash(content));
    let mut copy = page.finish().to_vec();
    copy.extend_from_slice(content);
    copy.resize(copy.len().next_multiple_of(PAGE_BYTES).max(2 * PAGE_BYTES), 0);
    copy
}
