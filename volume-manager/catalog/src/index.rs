//! The block index: hash -> (volume, offset, length), the fence rows that guard it, and the keyring.
//!
//! A block that has a row is there: frontends answer a put only after its row is durable, and look blocks up here. The index
//! may be split by hash into several databases (shards), each with fence rows of its own.
//!
//! What every store keeps, whether it has one database or many:
//! - An insert checks the volume's fence, raises its highest end and writes the rows in one transaction of each database it
//!   touches. It counts as done when all of them took it.
//! - `close_fence` answers only once every database has closed the volume's fence, with the highest of their ends. So no row
//!   is inserted afterwards, and every row that ever was lies below that floor, those of refused inserts included.

use async_trait::async_trait;
use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{BlockHash, KeyId, VolumeId, WriteEpoch};

use crate::number::int;
use crate::{CatalogError, FenceReason, Fenced, InsertError};

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRow {
    /// The volume that holds its record.
    pub volume: VolumeId,
    /// Where the record starts in the volume, in bytes.
    pub offset: u64,
    /// Bytes of the record, its header included.
    pub length: u32,
    /// Bytes of the block itself.
    pub plain_len: u32,
}

/// A row to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// The block.
    pub hash: BlockHash,
    /// Where its record starts in the volume, in bytes.
    pub offset: u64,
    /// Bytes of the record, its header included.
    pub length: u32,
    /// Bytes of the block itself.
    pub plain_len: u32,
}

/// The rows of one batch that all replicas have made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInsert {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch it is leased under.
    pub epoch: WriteEpoch,
    /// Where the batch ends in the volume, in bytes; no row reaches beyond it.
    pub end: u64,
    /// Its blocks.
    pub rows: Vec<NewRow>,
}

/// Data keys, each wrapped by the master key, oldest first.
pub type WrappedKeys = Vec<(KeyId, Vec<u8>)>;

/// A volume's fence row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The epoch that may insert while it is open; the closing one afterwards.
    pub epoch: WriteEpoch,
    /// Nothing is inserted any more.
    pub closed: bool,
    /// The highest end of a batch with rows, in bytes: the floor of the volume's length.
    pub highest_end: u64,
}

/// The block index of a cell. Frontends open it in their own process, beside the volume manager.
///
/// A call whose future is dropped goes on to its end. Every call can be repeated, so a lost answer is no harm: after an
/// error, repeat it or treat the outcome as not known.
#[async_trait]
pub trait BlockIndex: std::fmt::Debug + Send + Sync {
    /// Where each block is, in the order asked for; None when the index has no row.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn lookup(&self, hashes: &[BlockHash]) -> Result<Vec<Option<IndexRow>>, CatalogError>;

    /// Whether each block is there, in the order asked for. "There" is durably marked with today's date, so that garbage
    /// collection keeps the block for its grace; a block marked today already costs no write.
    ///
    /// # Errors
    /// `Busy`, `Full`, `Sql`, `Database`.
    async fn touch(&self, hashes: &[BlockHash]) -> Result<Vec<bool>, CatalogError>;

    /// Inserts the rows of several volumes. Each volume's fence must be open for its epoch, otherwise that volume gets
    /// `Fenced`; the others are not affected. A block that has a row already keeps it (and counts as touched). Durable when
    /// this returns; can be repeated. With one database all of it is one transaction, and a volume that gets `Fenced` got
    /// none of its rows. With several, those that took rows keep them: they are true, and lie below the floor.
    ///
    /// # Errors
    /// `BadRow` and `TooLarge` for impossible rows (nothing at all is inserted), `Busy`, `Full`, `Sql`, `Database`.
    async fn insert_many(&self, inserts: &[VolumeInsert]) -> Result<Vec<Result<(), Fenced>>, CatalogError>;

    /// [`BlockIndex::insert_many`] for one volume.
    ///
    /// # Errors
    /// `Fenced`, or those of `insert_many`.
    async fn insert(&self, insert: &VolumeInsert) -> Result<(), InsertError> {
        for result in self.insert_many(std::slice::from_ref(insert)).await? {
            result?;
        }
        Ok(())
    }

    /// Makes the open fence row of a new volume. Can be repeated while it is open at the same epoch.
    ///
    /// # Errors
    /// `Fenced` when the row is closed or of another epoch.
    async fn create_fence(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError>;

    /// Closes a volume's fence for good and answers the floor: the highest end that was inserted, in bytes. Makes a closed
    /// row with floor 0 when there is none, so that a late `create_fence` or `insert` is refused. Can be repeated.
    ///
    /// # Errors
    /// `Busy`, `Full`, `Sql`, `Database`.
    async fn close_fence(&self, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError>;

    /// A volume's fence. Where several databases have it: closed when any has closed it, with the highest of their epochs
    /// and ends.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn fence(&self, volume: VolumeId) -> Result<Option<Fence>, CatalogError>;

    /// Keeps a wrapped data key. It must be durable here before the key seals its first block. Answers the keyring's new
    /// generation; the same key again changes nothing.
    ///
    /// # Errors
    /// `KeyTaken` when the id has other bytes.
    async fn put_key(&self, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError>;

    /// The keyring: its generation (0 when empty, raised by each new key) and all wrapped keys, oldest first.
    ///
    /// # Errors
    /// `Sql`, `Database`.
    async fn keys(&self) -> Result<(u64, WrappedKeys), CatalogError>;

    /// The keyring's generation alone: one look at an index, however many keys there are.
    ///
    /// # Errors
    /// `Sql`, `Database`.
    async fn keyring_generation(&self) -> Result<u64, CatalogError>;

    /// How many blocks have a row. Reads the whole index: for tests and reports.
    ///
    /// # Errors
    /// `Sql`, `Database`.
    async fn count(&self) -> Result<u64, CatalogError>;

    /// At most `limit` rows with hashes above `after`, in order of the hash.
    ///
    /// # Errors
    /// `Sql`, `Database`, `Damaged`.
    async fn scan(&self, after: Option<BlockHash>, limit: usize) -> Result<Vec<(BlockHash, IndexRow)>, CatalogError>;
}

/// Days since 1970. A clock before that counts as day 0: a touch then writes nothing and marks never go back.
pub(crate) fn today(clock: &WallClock) -> i64 {
    i64::try_from(clock.unix_s() / 86_400).unwrap_or(i64::MAX)
}

/// Whether a fence admits an insert at `epoch`.
pub(crate) fn admit(fence: Option<&Fence>, volume: VolumeId, epoch: WriteEpoch) -> Result<(), Fenced> {
    let reason = match fence {
        None => FenceReason::Missing,
        Some(fence) if fence.closed => FenceReason::Closed,
        Some(fence) if fence.epoch != epoch => FenceReason::OtherEpoch(fence.epoch),
        Some(_) => return Ok(()),
    };
    Err(Fenced { volume, reason })
}

/// Refuses rows that cannot be right: those beyond the batch's end would outlive a seal that cuts there.
pub(crate) fn check(inserts: &[VolumeInsert]) -> Result<(), CatalogError> {
    for insert in inserts {
        int("the end of a batch", insert.end)?;
        for row in &insert.rows {
            let end = row.offset.checked_add(u64::from(row.length));
            let why = if row.length == 0 {
                "its record has no bytes".to_owned()
            } else if end.is_none_or(|end| end > insert.end) {
                format!("offset {} + {} bytes is beyond the batch's end {}", row.offset, row.length, insert.end)
            } else {
                continue;
            };
            return Err(CatalogError::BadRow { hash: row.hash, why });
        }
    }
    Ok(())
}
