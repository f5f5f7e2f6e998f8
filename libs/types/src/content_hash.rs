//! The content hash of a whole file, as the HTTP API (v2) defines it: SHA-256 over the SHA-256 digests of its 4 MiB
//! blocks. See the vendor's page "Content hash".

use sha2::{Digest as _, Sha256};

use crate::MAX_BLOCK_BYTES;

/// Hashes a file as its bytes come.
#[derive(Default)]
pub struct ContentHasher {
    whole: Sha256,
    block: Sha256,
    filled: usize,
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentHasher").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl ContentHasher {
    /// Takes the next bytes, any number of them.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(MAX_BLOCK_BYTES - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == MAX_BLOCK_BYTES {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn end_block(&mut self) {
        self.whole.update(std::mem::take(&mut self.block).finalize());
        self.filled = 0;
    }

    /// The hash in hex: 64 digits.
    pub fn finish(mut self) -> String {
        if self.filled > 0 {
            self.end_block();
        }
        hex::encode(self.whole.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::ContentHasher;
    use crate::{BlockHash, MAX_BLOCK_BYTES};

    #[test]
    fn the_hash_is_over_the_digests_of_whole_blocks_however_the_bytes_come() {
        let bytes = vec![7; MAX_BLOCK_BYTES + 1];
        let mut pieces = ContentHasher::default();
        for piece in bytes.chunks(1000) {
            pieces.update(piece);
        }
        let digests = [&bytes[..MAX_BLOCK_BYTES], &bytes[MAX_BLOCK_BYTES..]].map(|block| BlockHash::of(block).0);
        assert_eq!(pieces.finish(), BlockHash::of(&digests.concat()).to_string());
        assert_eq!(ContentHasher::default().finish(), BlockHash::of(b"").to_string());
    }
}
