//! How contents and stats stand in the state file, laid out by hand, numbers big-endian. Frozen by `golden` tests; a
//! change needs another version byte.

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, Timestamp};
use holdfast_sync_client_planner::{Content, Inode, NodeKind, Stat};

const VERSION: u8 = 1;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp { secs: self.array().map(i64::from_be_bytes)?, nanos: self.u32()? })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.secs.to_be_bytes());
    out.extend_from_slice(&time.nanos.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn kind_code(kind: NodeKind) -> u8 {
    match kind {
        NodeKind::File => 1,
        NodeKind::Folder => 2,
        NodeKind::Symlink => 3,
        NodeKind::Other => 4,
    }
}

fn kind_of(code: u8) -> Option<NodeKind> {
    match code {
        1 => Some(NodeKind::File),
        2 => Some(NodeKind::Folder),
        3 => Some(NodeKind::Symlink),
        4 => Some(NodeKind::Other),
        _ => None,
    }
}

/// version | kind | for a file: size u64, mtime, executable u8, count u32, count x (hash, length u32);
/// for a link: mtime, target. A time is seconds i64, nanoseconds u32; a text is length u32, bytes.
pub(crate) fn encode_content(content: &Content) -> Vec<u8> {
    let mut out = vec![VERSION, kind_code(content.kind())];
    match content {
        Content::File { size, blocks, mtime, executable } => {
            out.extend_from_slice(&size.to_be_bytes());
            put_time(&mut out, *mtime);
            out.push(u8::from(*executable));
            out.extend_from_slice(&(blocks.len() as u32).to_be_bytes());
            for block in blocks.iter() {
                out.extend_from_slice(block.hash.as_bytes());
                out.extend_from_slice(&block.length.to_be_bytes());
            }
        }
        Content::Folder => {}
        Content::Symlink { target, mtime } => {
            put_time(&mut out, *mtime);
            put_text(&mut out, target);
        }
    }
    out
}

pub(crate) fn decode_content(bytes: &[u8]) -> Option<Content> {
    let mut reader = Reader(bytes);
    if reader.u8()? != VERSION {
        return None;
    }
    let content = match kind_of(reader.u8()?)? {
        NodeKind::File => {
            let (size, mtime, executable) = (reader.u64()?, reader.time()?, reader.u8()? != 0);
            let count = reader.u32()? as usize;
            let block =
                |reader: &mut Reader<'_>| Some(BlockRef { hash: BlockHash(reader.array()?), length: reader.u32()? });
            let blocks: Option<Vec<_>> = (0..count).map(|_| block(&mut reader)).collect();
            Content::File { size, blocks: blocks?.into(), mtime, executable }
        }
        NodeKind::Folder => Content::Folder,
        NodeKind::Symlink => {
            let mtime = reader.time()?;
            Content::Symlink { target: reader.text()?, mtime }
        }
        NodeKind::Other => return None,
    };
    reader.0.is_empty().then_some(content)
}

/// version | kind | inode u64 | has birth u8, birth | size u64 | mtime | ctime | executable u8 | has target u8, target.
pub(crate) fn encode_stat(stat: &Stat) -> Vec<u8> {
    let mut out = vec![VERSION, kind_code(stat.kind)];
    out.extend_from_slice(&stat.inode.number.to_be_bytes());
    out.push(u8::from(stat.inode.birth.is_some()));
    put_time(&mut out, stat.inode.birth.unwrap_or_default());
    out.extend_from_slice(&stat.size.to_be_bytes());
    put_time(&mut out, stat.mtime);
    put_time(&mut out, stat.ctime);
    out.push(u8::from(stat.executable));
    out.push(u8::from(stat.target.is_some()));
    if let Some(target) = &stat.target {
        put_text(&mut out, target);
    }
    out
}

pub(crate) fn decode_stat(bytes: &[u8]) -> Option<Stat> {
    let mut reader = Reader(bytes);
    if reader.u8()? != VERSION {
        return None;
    }
    let kind = kind_of(reader.u8()?)?;
    let number = reader.u64()?;
    let has_birth = reader.u8()? != 0;
    let birth = Some(reader.time()?).filter(|_| has_birth);
    let (size, mtime, ctime) = (reader.u64()?, reader.time()?, reader.time()?);
    let executable = reader.u8()? != 0;
    let target = if reader.u8()? != 0 { Some(reader.text()?) } else { None };
    reader.0.is_empty().then_some(Stat { kind, inode: Inode { number, birth }, size, mtime, ctime, executable, target })
}

#[cfg(test)]
mod golden {
    use holdfast_libs_types::BlockHash;
    use holdfast_metadata_client::{BlockRef, Timestamp};
    use holdfast_sync_client_planner::{Content, Inode, NodeKind, Stat};

    use super::{decode_content, decode_stat, encode_content, encode_stat};

    const TIME: Timestamp = Timestamp { secs: -2, nanos: 5 };

    #[test]
    fn contents_stand_as_they_always_stood_and_read_back() {
        let block = BlockRef { hash: BlockHash([7; 32]), length: 3 };
        let file = Content::File { size: 3, blocks: [block].into(), mtime: TIME, executable: true };
        let link = Content::Symlink { target: "é".to_owned(), mtime: TIME };
        let time = "fffffffffffffffe00000005";
        let golden_file = format!("01010000000000000003{time}0100000001{}00000003", "07".repeat(32));
        assert_eq!(hex::encode(encode_content(&file)), golden_file);
        assert_eq!(hex::encode(encode_content(&link)), format!("0103{time}00000002c3a9"));
        assert_eq!(hex::encode(encode_content(&Content::Folder)), "0102");
        for content in [file, link, Content::Folder] {
            let bytes = encode_content(&content);
            assert_eq!(decode_content(&bytes), Some(content));
            assert_eq!(decode_content(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn stats_stand_as_they_always_stood_and_read_back() {
        let stat = Stat {
            kind: NodeKind::Symlink,
            inode: Inode { number: 9, birth: Some(TIME) },
            size: 1,
            mtime: TIME,
            ctime: TIME,
            executable: false,
            target: Some("t".to_owned()),
        };
        let time = "fffffffffffffffe00000005";
        let golden = format!("0103000000000000000901{time}0000000000000001{time}{time}00010000000174");
        assert_eq!(hex::encode(encode_stat(&stat)), golden);
        assert_eq!(decode_stat(&encode_stat(&stat)), Some(stat.clone()));
        let plain = Stat { target: None, inode: Inode { number: 9, birth: None }, ..stat };
        assert_eq!(decode_stat(&encode_stat(&plain)), Some(plain));
        assert_eq!(decode_stat(&[2]), None);
    }
}
