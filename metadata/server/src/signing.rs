//! Signed URLs to the frontend.

use holdfast_frontend_client::FrontendClient;
use holdfast_libs_presign::{Grant, Method, SigningKeys, Subject, list_digest};
use holdfast_libs_transport::HttpClient;
use holdfast_libs_types::{AccountId, BlockHash, CellId};
use holdfast_metadata_client::{SignedBlock, SignedList};
use holdfast_metadata_store::KnownBlock;

use crate::Config;
use crate::app::unix_now;

/// How long a signed URL counts, seconds.
const URL_SECONDS: u64 = 3600;

/// Blocks up to this length travel in lists.
const SMALL_BLOCK_BYTES: u32 = 256 * 1024;

/// Most blocks and bytes of one list.
const LIST_BLOCKS: usize = 256;
const LIST_BYTES: u64 = 4 * 1024 * 1024;

/// Signs URLs, and moves blocks itself for API v2.
pub(crate) struct Signer {
    cell: CellId,
    frontend: String,
    keys: SigningKeys,
    pub client: FrontendClient,
}

impl Signer {
    pub fn new(config: &Config, keys: SigningKeys, http: &HttpClient) -> Self {
        let frontend = config.frontend.trim_end_matches('/').to_owned();
        Self { cell: config.cell, frontend, keys, client: FrontendClient::new(http) }
    }

    fn url(&self, method: Method, subject: Subject, account: AccountId, max_bytes: u64) -> String {
        let expires = unix_now() + URL_SECONDS;
        let grant = Grant { cell: self.cell, method, subject, account, max_bytes, expires };
        format!("{}{}", self.frontend, grant.sign(&self.keys))
    }

    /// A URL for one block.
    pub fn block(&self, method: Method, account: AccountId, block: KnownBlock) -> String {
        self.url(method, Subject::Block(block.hash), account, u64::from(block.length))
    }

    /// URLs for many: lists for the small, single ones for the rest.
    pub fn blocks(
        &self,
        method: Method,
        account: AccountId,
        blocks: &[KnownBlock],
    ) -> (Vec<SignedBlock>, Vec<SignedList>) {
        let (small, large): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.length <= SMALL_BLOCK_BYTES);
        let single = large
            .into_iter()
            .map(|block: &KnownBlock| SignedBlock { hash: block.hash, url: self.block(method, account, *block) });
        let lists = grouped(&small).into_iter().map(|(hashes, bytes)| {
            let subject = Subject::List(list_digest(&hashes));
            SignedList { url: self.url(method, subject, account, bytes), hashes }
        });
        (single.collect(), lists.collect())
    }
}

/// Cuts a row of blocks into lists, each with its bytes.
fn grouped(blocks: &[&KnownBlock]) -> Vec<(Vec<BlockHash>, u64)> {
    let mut lists: Vec<(Vec<BlockHash>, u64)> = Vec::new();
    for block in blocks {
        let length = u64::from(block.length);
        match lists.last_mut() {
            Some((hashes, bytes)) if hashes.len() < LIST_BLOCKS && *bytes + length <= LIST_BYTES => {
                hashes.push(block.hash);
                *bytes += length;
            }
            _ => lists.push((vec![block.hash], length)),
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::BlockHash;
    use holdfast_metadata_store::KnownBlock;

    use super::grouped;

    #[test]
    fn a_list_has_at_most_256_blocks_and_4_mib() {
        let of = |count: usize, length: u32| {
            let blocks = vec![KnownBlock { hash: BlockHash([1; 32]), length }; count];
            let blocks: Vec<_> = blocks.iter().collect();
            grouped(&blocks).into_iter().map(|(hashes, bytes)| (hashes.len(), bytes)).collect::<Vec<_>>()
        };
        assert_eq!(of(600, 10), [(256, 2560), (256, 2560), (88, 880)]);
        assert_eq!(of(17, 256 * 1024), [(16, 4 << 20), (1, 256 << 10)]);
        assert!(of(0, 1).is_empty());
    }
}
