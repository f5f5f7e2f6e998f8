//! The rows of blocks in one shard.
//!
//! Statements name many blocks at once, in a few sizes, so that each connection keeps them prepared; a list that is shorter
//! than its size is filled up with its last element, which changes nothing.

use std::collections::HashMap;

use holdfast_libs_types::{BlockHash, VolumeId};
use mysql_async::{Row, Value};

use super::database::{Database, Transaction, Values, bytes, column, number, values};
use super::fence;
use crate::index::{IndexRow, NewRow, VolumeInsert, admit};
use crate::number::int;
use crate::{CatalogError, Fenced};

/// How many blocks a statement names.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

/// The lists that statements get: in order, each filled up to one of [`SIZES`].
fn portions<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    list.chunks(SIZES[SIZES.len() - 1]).map(|chunk| {
        let size = SIZES.into_iter().find(|size| *size >= chunk.len()).unwrap_or(chunk.len());
        let last = chunk.last().into_iter().cycle().take(size - chunk.len());
        chunk.iter().chain(last).cloned().collect()
    })
}

/// `piece` so many times, with commas between.
fn repeated(piece: &str, times: usize) -> String {
    vec![piece; times].join(", ")
}

fn names(hashes: &[BlockHash]) -> Values {
    hashes.iter().map(|hash| Value::from(hash.as_bytes())).collect()
}

/// What [`decode`] reads.
const FROM_BLOCKS: &str = "volume, start, length, plain_len, hash FROM blocks JOIN fences USING (small)";

fn decode(mut row: Row) -> Result<(BlockHash, IndexRow), CatalogError> {
    let found = IndexRow {
        volume: VolumeId(bytes(&mut row, 0, "an index row's volume")?),
        offset: number(&mut row, 1, "an index row's offset")?,
        length: column(&mut row, 2, "an index row's length")?,
        plain_len: column(&mut row, 3, "an index row's plain length")?,
    };
    Ok((BlockHash(bytes(&mut row, 4, "an index row's hash")?), found))
}

pub(super) async fn lookup(database: &Database, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError> {
    let mut session = database.session().await?;
    let mut found = HashMap::with_capacity(hashes.len());
    for portion in portions(hashes) {
        let sql = format!("SELECT {FROM_BLOCKS} WHERE hash IN ({})", repeated("?", portion.len()));
        for row in session.rows(&sql, names(&portion)).await? {
            let (hash, row) = decode(row)?;
            found.insert(hash, row);
        }
    }
    Ok(hashes.iter().map(|hash| found.get(hash).copied()).collect())
}

pub(super) async fn scan(
    database: &Database,
    after: Option<BlockHash>,
    limit: usize,
) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Every hash is above the empty one.
    let after = after.map_or_else(Vec::new, |hash| hash.as_bytes().to_vec());
    let mut session = database.session().await?;
    let sql = format!("SELECT {FROM_BLOCKS} WHERE hash > ? ORDER BY hash LIMIT ?");
    session.rows(&sql, values![after, limit]).await?.into_iter().map(decode).collect()
}

pub(super) async fn count(database: &Database) -> Result<u64, CatalogError> {
    let mut session = database.session().await?;
    let row = session.first("SELECT count(*) FROM blocks", values![]).await?;
    row.map_or(Ok(0), |mut row| number(&mut row, 0, "the number of rows"))
}

pub(super) async fn touch(database: &Database, hashes: &[BlockHash], day: i64) -> Result<Vec<bool>, CatalogError> {
    let mut session = database.session().await?;
    let mut marks = HashMap::with_capacity(hashes.len());
    for portion in portions(hashes) {
        let sql = format!("SELECT hash, touched FROM blocks WHERE hash IN ({})", repeated("?", portion.len()));
        for mut row in session.rows(&sql, names(&portion)).await? {
            let hash = BlockHash(bytes(&mut row, 0, "an index row's hash")?);
            marks.insert(hash, column::<i64>(&mut row, 1, "the day a block was touched")?);
        }
    }
    let mut stale: Vec<BlockHash> = marks.iter().filter(|(_, mark)| **mark < day).map(|(hash, _)| *hash).collect();
    // In one order, so that two who touch the same blocks wait for each other and not in a circle.
    stale.sort_unstable();
    if !stale.is_empty() {
        let mut tx = session.begin().await?;
        for portion in portions(&stale) {
            // A row may have gone since it was read, so the answer for these is this transaction's.
            let there = mark(&mut tx, &portion, day).await?;
            for hash in portion.iter().filter(|hash| !there.contains(hash)) {
                marks.remove(hash);
            }
        }
        tx.commit().await?;
    }
    Ok(hashes.iter().map(|hash| marks.contains_key(hash)).collect())
}

/// Marks blocks with the day, and answers those that are there.
async fn mark(tx: &mut Transaction<'_>, hashes: &[BlockHash], day: i64) -> Result<Vec<BlockHash>, CatalogError> {
    let list = repeated("?", hashes.len());
    let mut values = values![day];
    values.extend(names(hashes));
    values.push(Value::from(day));
    tx.change(&format!("UPDATE blocks SET touched = ? WHERE hash IN ({list}) AND touched < ?"), values).await?;
    let rows = tx.rows(&format!("SELECT hash FROM blocks WHERE hash IN ({list})"), names(hashes)).await?;
    rows.into_iter().map(|mut row| Ok(BlockHash(bytes(&mut row, 0, "an index row's hash")?))).collect()
}

/// Inserts this shard's share of several inserts. Locks are taken in one order, fence rows by volume and blocks by hash.
pub(super) async fn insert(
    database: &Database,
    inserts: &[(usize, VolumeInsert)],
    day: i64,
) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let mut fences = HashMap::new();
    let mut volumes: Vec<VolumeId> = inserts.iter().map(|(_, insert)| insert.volume).collect();
    volumes.sort_unstable();
    volumes.dedup();
    for volume in volumes {
        fences.insert(volume, fence::lock(&mut tx, volume).await?);
    }
    let (mut results, mut rows, mut raised) = (Vec::with_capacity(inserts.len()), Vec::new(), HashMap::new());
    for (_, insert) in inserts {
        let found = fences.get(&insert.volume).copied().flatten();
        let admitted = admit(found.map(|found| found.fence).as_ref(), insert.volume, insert.epoch);
        if let (Ok(()), Some(found)) = (&admitted, found) {
            let highest = raised.entry(found.small).or_insert(found.fence.highest_end);
            *highest = insert.end.max(*highest);
            rows.extend(insert.rows.iter().map(|row| (found.small, row)));
        }
        results.push(admitted);
    }
    for (small, highest) in raised {
        let raise = "UPDATE fences SET highest_end = ? WHERE small = ? AND highest_end < ?";
        let highest = int("the end of a batch", highest)?;
        tx.change(raise, values![highest, small, highest]).await?;
    }
    // Stable: of two rows of one block the first one stays, as it would one by one.
    rows.sort_by_key(|(_, row)| row.hash);
    rows.dedup_by_key(|(_, row)| row.hash);
    for portion in portions(&rows) {
        add(&mut tx, &portion, day).await?;
    }
    tx.commit().await?;
    Ok(results)
}

async fn add(tx: &mut Transaction<'_>, rows: &[(u32, &NewRow)], day: i64) -> Result<(), CatalogError> {
    let sql = format!(
        "INSERT INTO blocks (hash, small, start, length, plain_len, touched) VALUES {}
         ON DUPLICATE KEY UPDATE touched = greatest(touched, VALUES(touched))",
        repeated("(?, ?, ?, ?, ?, ?)", rows.len())
    );
    let mut values = Vec::with_capacity(rows.len() * 6);
    for (small, row) in rows {
        let start = int("offset", row.offset)?;
        values.extend(values![row.hash.as_bytes(), *small, start, row.length, row.plain_len, day]);
    }
    tx.change(&sql, values).await?;
    Ok(())
}
