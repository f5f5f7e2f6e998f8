//! The block index over several databases, by hash.
//!
//! Every shard has a fence row for every volume. A volume's rows go to the shards of their hashes, each share in a
//! transaction that checks and raises that shard's own fence row; the insert counts as done when all of them took it. Nothing spans two
//! databases, and nothing needs to:
//!
//! - A fence closes shard by shard, and `close_fence` answers after the last, with the highest of all ends. While it is
//!   under way one shard may take its share of an insert that another refuses. The insert is refused then, and the writer
//!   puts the blocks elsewhere; but the rows that were taken are true: all replicas had the bytes before, and the shard that
//!   took them had raised its highest end, which the floor includes, because that shard was closed later.
//! - Making a fence that stops half-way leaves open rows in some shards: nobody holds the volume yet, so nobody inserts.
//!   Repeating it makes the others, closing it closes them all.
//! - An insert that stops half-way is repeated by its writer, or was never acknowledged.
//!
//! The keyring is in shard 0 and not beside the replication table: frontends add keys to it, and so need no right to write to the
//! table's database.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{BlockHash, CellId, KeyId, VolumeId, WriteEpoch};

use super::database::{Database, bytes, column, number, retry, to_the_end, values};
use super::schema::{Identity, Part, prepare};
use super::url::DatabaseUrl;
use super::{fence, rows};
use crate::index::{BlockIndex, Fence, IndexRow, VolumeInsert, WrappedKeys, check, today};
use crate::{CatalogError, Fenced, InsertError};

/// Most databases an index may be split over.
pub(crate) const MAX_SHARDS: usize = 256;

/// The index in one or more MySQL databases.
#[derive(Debug, Clone)]
pub struct MysqlIndex(Arc<Vec<Database>>);

impl MysqlIndex {
    /// Opens the databases, in their order; with `make`, schemas that are missing are made.
    ///
    /// # Errors
    /// `BadUrl`, `Setting`, `Missing`, `NewerSchema`, `ForeignCell`, `NotCatalog`, `Database`.
    pub async fn open(urls: &[DatabaseUrl], cell: CellId, make: bool) -> Result<Self, CatalogError> {
        let shards = urls.iter().map(Database::new).collect::<Result<Vec<_>, _>>()?;
        for (shard, database) in shards.iter().enumerate() {
            let identity = Identity { cell, part: Part::Index(shard), shards: shards.len() };
            prepare(database, identity, make).await?;
        }
        Ok(Self(Arc::new(shards)))
    }

    /// The shards that have some of these, each with their places in the list.
    fn split<'a>(&self, hashes: impl Iterator<Item = &'a BlockHash>) -> Vec<(usize, Vec<usize>)> {
        let mut places = vec![Vec::new(); self.0.len()];
        for (at, hash) in hashes.enumerate() {
            places[shard_of(*hash, self.0.len())].push(at);
        }
        places.into_iter().enumerate().filter(|(_, places)| !places.is_empty()).collect()
    }

    /// Asks the shards that have some of the blocks, all at once, and puts the answers in the order asked for.
    async fn each<T, F>(
        &self,
        hashes: &[BlockHash],
        none: T,
        ask: impl Fn(Database, Vec<BlockHash>) -> F,
    ) -> Result<Vec<T>, CatalogError>
    where
        T: Clone,
        F: Future<Output = Result<Vec<T>, CatalogError>>,
    {
        let split = self.split(hashes.iter());
        let calls = split
            .iter()
            .map(|(shard, places)| ask(self.0[*shard].clone(), places.iter().map(|place| hashes[*place]).collect()));
        let answers = join_all(calls).await;
        let mut found = vec![none; hashes.len()];
        for ((_, places), answer) in split.iter().zip(answers) {
            for (place, value) in places.iter().zip(answer?) {
                found[*place] = value;
            }
        }
        Ok(found)
    }

    /// Does the same in every shard at once, and ends when all have.
    async fn all<T: Send + 'static, F>(&self, work: impl Fn(Database) -> F) -> Result<Vec<T>, CatalogError>
    where
        F: Future<Output = Result<T, CatalogError>> + Send + 'static,
    {
        let tasks: Vec<_> = self.0.iter().map(|database| work(database.clone())).collect();
        to_the_end(async move { join_all(tasks).await.into_iter().collect() }).await
    }

    fn keyring(&self) -> Result<Database, CatalogError> {
        // A configuration names at least one.
        self.0.first().cloned().ok_or(CatalogError::Stopped)
    }
}

/// The shard of a block: an even split of the first 16 bits, in order.
pub(super) fn shard_of(hash: BlockHash, shards: usize) -> usize {
    let bytes = hash.as_bytes();
    (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) * shards) >> 16
}

#[async_trait]
impl BlockIndex for MysqlIndex {
    async fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError> {
        let ask = async |database: Database, hashes: Vec<BlockHash>| {
            retry(&database, || rows::lookup(&database, &hashes)).await
        };
        self.each(hashes, None, ask).await
    }

    async fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError> {
        let (this, hashes, day) = (self.clone(), hashes.to_vec(), today(&WallClock::system()));
        to_the_end(async move {
            let ask = async |database: Database, hashes: Vec<BlockHash>| {
                retry(&database, || rows::touch(&database, &hashes, day)).await
            };
            this.each(&hashes, false, ask).await
        })
        .await
    }

    async fn insert_many(&self, inserts: &[VolumeInsert]) -> Result<Vec<Result<(), Fenced>>, CatalogError> {
        check(inserts)?;
        let (this, inserts, day) = (self.clone(), inserts.to_vec(), today(&WallClock::system()));
        to_the_end(async move {
            let shares = shares(&inserts, this.0.len());
            let calls = shares.iter().map(async |(shard, inserts)| {
                let database = &this.0[*shard];
                retry(database, || rows::insert(database, inserts, day)).await
            });
            let mut results = vec![Ok(()); inserts.len()];
            for ((_, share), answer) in shares.iter().zip(join_all(calls).await) {
                for ((at, _), result) in share.iter().zip(answer?) {
                    if results[*at].is_ok() {
                        results[*at] = result;
                    }
                }
            }
            Ok(results)
        })
        .await
    }

    async fn create_fence(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError> {
        crate::number::int("write epoch", epoch.0)?;
        let made =
            self.all(move |database| async move { retry(&database, || fence::create(&database, volume, epoch)).await });
        for made in made.await? {
            made?;
        }
        Ok(())
    }

    async fn close_fence(&self, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
        crate::number::int("write epoch", new_epoch.0)?;
        let ends = self
            .all(move |database| async move { retry(&database, || fence::close(&database, volume, new_epoch)).await });
        Ok(ends.await?.into_iter().max().unwrap_or(0))
    }

    async fn fence(&self, volume: VolumeId) -> Result<Option<Fence>, CatalogError> {
        let found = self.all(move |database| async move { retry(&database, || fence::find(&database, volume)).await });
        let merge = |one: Fence, other: Fence| Fence {
            epoch: one.epoch.max(other.epoch),
            closed: one.closed || other.closed,
            highest_end: one.highest_end.max(other.highest_end),
        };
        Ok(found.await?.into_iter().flatten().reduce(merge))
    }

    async fn put_key(&self, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
        let (database, key, wrapped) = (self.keyring()?, *key, wrapped.to_vec());
        to_the_end(async move { retry(&database, || put_key(&database, key, &wrapped)).await }).await
    }

    async fn keys(&self) -> Result<(u64, WrappedKeys), CatalogError> {
        let database = self.keyring()?;
        retry(&database, || keys(&database)).await
    }

    async fn keyring_generation(&self) -> Result<u64, CatalogError> {
        let database = self.keyring()?;
        retry(&database, || keyring_generation(&database)).await
    }

    async fn count(&self) -> Result<u64, CatalogError> {
        let counts = self.all(async |database| retry(&database, || rows::count(&database)).await);
        Ok(counts.await?.into_iter().sum())
    }

    async fn scan(&self, after: Option<BlockHash>, limit: usize) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError> {
        let first = after.map_or(0, |hash| shard_of(hash, self.0.len()));
        let mut found = Vec::new();
        for database in &self.0[first..] {
            if found.len() >= limit {
                break;
            }
            found.extend(retry(database, || rows::scan(database, after, limit - found.len())).await?);
        }
        Ok(found)
    }
}

/// What of each insert goes to which shard: the insert's place in the list, and its rows there. One without rows still
/// checks its fence and raises the highest end, in shard 0.
fn shares(inserts: &[VolumeInsert], shards: usize) -> Vec<(usize, Vec<(usize, VolumeInsert)>)> {
    let mut split: Vec<Vec<(usize, VolumeInsert)>> = vec![Vec::new(); shards];
    for (at, insert) in inserts.iter().enumerate() {
        let empty = |insert: &VolumeInsert| VolumeInsert { rows: Vec::new(), ..*insert };
        if insert.rows.is_empty() {
            split[0].push((at, empty(insert)));
        }
        for row in &insert.rows {
            let share = &mut split[shard_of(row.hash, shards)];
            if share.last().is_none_or(|(last, _)| *last != at) {
                share.push((at, empty(insert)));
            }
            if let Some((_, insert)) = share.last_mut() {
                insert.rows.push(row.clone());
            }
        }
    }
    split.into_iter().enumerate().filter(|(_, share)| !share.is_empty()).collect()
}

async fn put_key(database: &Database, key: KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let newest = tx.first("SELECT coalesce(max(generation), 0) FROM wrapped_keys FOR UPDATE", values![]).await?;
    let newest = newest.map(|mut row| number(&mut row, 0, "the keyring's generation")).transpose()?.unwrap_or(0);
    let find = "SELECT wrapped FROM wrapped_keys WHERE id = ? FOR UPDATE";
    let found = tx.first(find, values![key.as_bytes()]).await?;
    match found.map(|mut row| column::<Vec<u8>>(&mut row, 0, "a wrapped key")).transpose()? {
        Some(found) if found == wrapped => return Ok(newest),
        Some(_) => return Err(CatalogError::KeyTaken(key)),
        None => {}
    }
    let add = "INSERT INTO wrapped_keys (id, wrapped, generation) VALUES (?, ?, ?)";
    tx.change(add, values![key.as_bytes(), wrapped, newest + 1]).await?;
    tx.commit().await?;
    Ok(newest + 1)
}

async fn keyring_generation(database: &Database) -> Result<u64, CatalogError> {
    let mut session = database.session().await?;
    let newest = session.first("SELECT coalesce(max(generation), 0) FROM wrapped_keys", values![]).await?;
    newest.map_or(Ok(0), |mut row| number(&mut row, 0, "the keyring's generation"))
}

async fn keys(database: &Database) -> Result<(u64, WrappedKeys), CatalogError> {
    let mut session = database.session().await?;
    let sql = "SELECT generation, id, wrapped FROM wrapped_keys ORDER BY generation";
    let (mut generation, mut keys) = (0, Vec::new());
    for mut row in session.rows(sql, values![]).await? {
        generation = number(&mut row, 0, "the keyring's generation")?;
        keys.push((KeyId(bytes(&mut row, 1, "a key's id")?), column(&mut row, 2, "a wrapped key")?));
    }
    Ok((generation, keys))
}
