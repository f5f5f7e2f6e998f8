//! The rows of blocks.

use holdfast_libs_types::{BlockHash, VolumeId};
use rusqlite::{OptionalExtension, Row, Transaction};

use super::fence;
use crate::index::{IndexRow, VolumeInsert, check};
use crate::number::{int, uint};
use crate::sqlite::database::Database;
use crate::{CatalogError, Fenced};

/// The columns that [`decode`] reads.
const FROM_BLOCKS: &str = "fences.volume, start, length, plain_len, hash FROM blocks JOIN fences USING (small)";

type RawRow = ([u8; 16], i64, u32, u32, [u8; 32]);

fn raw(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn decode((volume, start, length, plain_len, hash): RawRow) -> Result<(BlockHash, IndexRow), CatalogError> {
    let offset = uint("an index row's offset", start)?;
    Ok((BlockHash(hash), IndexRow { volume: VolumeId(volume), offset, length, plain_len }))
}

pub(super) fn lookup(tx: &Transaction<'_>, hash: BlockHash) -> Result<Option<IndexRow>, CatalogError> {
    let mut statement = tx.prepare_cached(&format!("SELECT {FROM_BLOCKS} WHERE hash = ?1"))?;
    let found = statement.query_row([hash.as_bytes()], raw).optional()?;
    Ok(found.map(decode).transpose()?.map(|(_, row)| row))
}

pub(super) fn scan(
    db: &Database,
    after: Option<BlockHash>,
    limit: usize,
) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Every hash is above the empty one.
    let after = after.map_or_else(Vec::new, |hash| hash.as_bytes().to_vec());
    db.read(|tx| {
        let mut statement =
            tx.prepare_cached(&format!("SELECT {FROM_BLOCKS} WHERE hash > ?1 ORDER BY hash LIMIT ?2"))?;
        let found = statement.query_map((after, limit), raw)?;
        found.map(|row| decode(row?)).collect()
    })
}

pub(super) fn count(db: &Database) -> Result<u64, CatalogError> {
    let rows = db.read(|tx| Ok(tx.query_row("SELECT count(*) FROM blocks", [], |row| row.get(0))?))?;
    uint("the number of rows", rows)
}

pub(super) fn touch(db: &Database, hashes: &[BlockHash], day: i64) -> Result<Vec<bool>, CatalogError> {
    let marks: Vec<Option<i64>> = db.read(|tx| hashes.iter().map(|hash| mark(tx, *hash)).collect())?;
    let stale = |mark: &Option<i64>| mark.is_some_and(|touched| touched < day);
    if !marks.iter().any(stale) {
        return Ok(marks.iter().map(Option::is_some).collect());
    }
    // A row may have gone since it was read, so the answer for these is the write transaction's.
    db.write(|tx| {
        let mut set = tx.prepare_cached("UPDATE blocks SET touched = ?2 WHERE hash = ?1 AND touched < ?2")?;
        let mut there = Vec::with_capacity(hashes.len());
        for (hash, seen) in hashes.iter().zip(&marks) {
            if stale(seen) {
                set.execute((hash.as_bytes(), day))?;
                there.push(mark(tx, *hash)?.is_some());
            } else {
                there.push(seen.is_some());
            }
        }
        Ok(there)
    })
}

/// The day a block was last touched; None when it has no row.
pub(super) fn mark(tx: &Transaction<'_>, hash: BlockHash) -> Result<Option<i64>, CatalogError> {
    let mut statement = tx.prepare_cached("SELECT touched FROM blocks WHERE hash = ?1")?;
    Ok(statement.query_row([hash.as_bytes()], |row| row.get(0)).optional()?)
}

pub(super) fn insert_many(
    db: &Database,
    inserts: &[VolumeInsert],
    day: i64,
) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
    check(inserts)?;
    if inserts.is_empty() {
        return Ok(Vec::new());
    }
    db.write(|tx| inserts.iter().map(|insert| insert_one(tx, insert, day)).collect())
}

fn insert_one(tx: &Transaction<'_>, insert: &VolumeInsert, day: i64) -> Result<Result<(), Fenced>, CatalogError> {
    let (small, highest_end) = match fence::admit(tx, insert.volume, insert.epoch)? {
        Ok(admitted) => admitted,
        Err(fenced) => return Ok(Err(fenced)),
    };
    if insert.end > highest_end {
        tx.prepare_cached("UPDATE fences SET highest_end = ?2 WHERE small = ?1")?
            .execute((small, int("the end of a batch", insert.end)?))?;
    }
    let mut add = tx.prepare_cached(
        "INSERT INTO blocks (hash, small, start, length, plain_len, touched) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (hash) DO UPDATE SET touched = excluded.touched WHERE touched < excluded.touched",
    )?;
    for row in &insert.rows {
        let start = int("offset", row.offset)?;
        add.execute((row.hash.as_bytes(), small, start, row.length, row.plain_len, day))?;
    }
    Ok(Ok(()))
}
