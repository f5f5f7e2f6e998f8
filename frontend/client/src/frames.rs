//! Many blocks in one body: hash (32 bytes) | length u32 big-endian | bytes, back to back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};

/// Bytes before each block.
pub const FRAME_HEADER_BYTES: usize = 36;

/// The length that means "no bytes: not found, or not readable now".
pub const ABSENT: u32 = u32::MAX;

/// A body that is not a row of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It ends inside a frame.
    #[error("the body ends inside frame {0}")]
    Cut(usize),
    /// A frame is longer than a block may be.
    #[error("frame {index} says {length} bytes; a block has at most 4194304")]
    TooLong {
        /// Which frame, from 0.
        index: usize,
        /// What it says.
        length: u32,
    },
    /// More frames than asked for.
    #[error("the body holds more than {0} frames")]
    TooMany(usize),
}

/// Appends a frame; `None` for an absent block.
pub fn put(out: &mut BytesMut, hash: &BlockHash, block: Option<&[u8]>) {
    out.put_slice(hash.as_bytes());
    match block {
        Some(block) => {
            out.put_u32(block.len() as u32);
            out.put_slice(block);
        }
        None => out.put_u32(ABSENT),
    }
}

/// Reads all frames of a body without copying, at most `max_frames`.
///
/// # Errors
/// See [`FrameError`].
pub fn parse(mut body: Bytes, max_frames: usize) -> Result<Vec<(BlockHash, Option<Bytes>)>, FrameError> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let index = frames.len();
        if index == max_frames {
            return Err(FrameError::TooMany(max_frames));
        }
        if body.len() < FRAME_HEADER_BYTES {
            return Err(FrameError::Cut(index));
        }
        let mut hash = [0; 32];
        body.copy_to_slice(&mut hash);
        let length = body.get_u32();
        let block = match length {
            ABSENT => None,
            length if length as usize > MAX_BLOCK_BYTES => return Err(FrameError::TooLong { index, length }),
            length if length as usize > body.len() => return Err(FrameError::Cut(index)),
            length => Some(body.split_to(length as usize)),
        };
        frames.push((BlockHash(hash), block));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use holdfast_libs_types::BlockHash;

    use super::{FrameError, parse, put};

    #[test]
    fn golden_bytes_of_two_frames_that_read_back() {
        let mut out = BytesMut::new();
        put(&mut out, &BlockHash([1; 32]), Some(b"ab"));
        put(&mut out, &BlockHash([2; 32]), None);
        let golden = format!("{}000000026162{}ffffffff", "01".repeat(32), "02".repeat(32));
        assert_eq!(hex::encode(&out), golden);
        let frames = parse(out.freeze(), 2).unwrap();
        assert_eq!(frames[0], (BlockHash([1; 32]), Some(Bytes::from_static(b"ab"))));
        assert_eq!(frames[1], (BlockHash([2; 32]), None));
    }

    #[test]
    fn cut_long_and_surplus_frames_are_refused() {
        let mut out = BytesMut::new();
        put(&mut out, &BlockHash([1; 32]), Some(b"ab"));
        let whole = out.freeze();
        assert_eq!(parse(whole.slice(..37), 9), Err(FrameError::Cut(0)));
        assert_eq!(parse(whole.slice(..20), 9), Err(FrameError::Cut(0)));
        assert_eq!(parse(whole, 0), Err(FrameError::TooMany(0)));
        let mut long = vec![0; 32];
        long.extend_from_slice(&4_194_305_u32.to_be_bytes());
        assert!(matches!(parse(Bytes::from(long), 9), Err(FrameError::TooLong { .. })));
    }
}
