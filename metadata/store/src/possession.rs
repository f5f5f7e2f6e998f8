//! Which blocks an account may name in a commit.
//!
//! A row says that the account showed a receipt for the block. Every block of a revision was committed by somebody who
//! possessed it, so for a namespace of one account these rows are all there is to ask; shared namespaces will ask
//! their revisions too.

use std::collections::HashMap;

use holdfast_libs_types::{AccountId, BlockHash};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{Actor, Store, StoreError};

/// A block that the account possesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownBlock {
    /// Its name.
    pub hash: BlockHash,
    /// Its length in bytes.
    pub length: u32,
}

pub(crate) fn length_of(db: &Connection, account: AccountId, hash: &BlockHash) -> Result<Option<u32>, StoreError> {
    let sql = "SELECT length FROM possession WHERE account = ? AND hash = ?";
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_row(params![account.as_bytes(), hash.as_bytes()], |row| row.get(0)).optional()?)
}

/// Remembers what receipts proved.
pub(crate) fn record(db: &Connection, account: AccountId, proven: &[KnownBlock]) -> Result<(), StoreError> {
    let mut statement =
        db.prepare_cached("INSERT OR IGNORE INTO possession (account, hash, length) VALUES (?, ?, ?)")?;
    for block in proven {
        statement.execute(params![account.as_bytes(), block.hash.as_bytes(), block.length])?;
    }
    Ok(())
}

impl Store {
    /// The lengths of those blocks that the account possesses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn possessed(
        &self,
        actor: &Actor,
        hashes: Vec<BlockHash>,
    ) -> Result<HashMap<BlockHash, u32>, StoreError> {
        let account = actor.account;
        self.read(move |db| {
            let mut known = HashMap::new();
            for hash in hashes {
                if let Some(length) = length_of(db, account, &hash)? {
                    known.insert(hash, length);
                }
            }
            Ok(known)
        })
        .await
    }
}
