//! API v2's upload sessions: files that arrive in several requests.
//!
//! Whole blocks are in the cell already; what is left over waits in the row, so a session survives a restart. A session
//! changes only from the size its caller knew, so two appends at once cannot both be kept.

use holdfast_libs_types::BlockHash;
use holdfast_metadata_model::BlockRef;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{Actor, KnownBlock, Store, StoreError, now_ms, possession};

/// Sessions untouched for so long are forgotten: seven days, as in API v2.
const LIFE_MS: i64 = 7 * 24 * 3600 * 1000;

/// How far a session has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Its id.
    pub id: [u8; 16],
    /// Bytes received.
    pub size: u64,
    /// Whole blocks of 4 MiB, in order.
    pub blocks: Vec<BlockHash>,
    /// The bytes after them.
    pub tail: Vec<u8>,
    /// It takes no more.
    pub closed: bool,
}

/// Why a session takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFailure {
    /// No such session of this account.
    NotFound,
    /// The caller's offset is not its size.
    IncorrectOffset {
        /// Its size.
        correct: u64,
    },
    /// It was closed.
    Closed,
}

fn load(db: &Connection, actor: &Actor, id: &[u8; 16]) -> Result<Option<SessionState>, StoreError> {
    let sql = "SELECT size, tail, closed FROM upload_sessions WHERE id = ? AND account = ? AND touched_ms > ?";
    let found = db
        .prepare_cached(sql)?
        .query_row(params![id, actor.account.as_bytes(), now_ms() - LIFE_MS], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((size, tail, closed)) = found else { return Ok(None) };
    let mut statement = db.prepare_cached("SELECT hash FROM upload_blocks WHERE session = ? ORDER BY number")?;
    let blocks = statement.query_map([id], |row| row.get(0).map(BlockHash))?.collect::<Result<_, _>>()?;
    Ok(Some(SessionState { id: *id, size, blocks, tail, closed }))
}

/// Forgets a session.
pub(crate) fn remove(db: &Connection, id: &[u8; 16]) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM upload_sessions WHERE id = ?")?.execute([id])?;
    db.prepare_cached("DELETE FROM upload_blocks WHERE session = ?")?.execute([id])?;
    Ok(())
}

impl SessionState {
    /// The blocks of the whole file, the tail being `last` if there is one.
    pub fn block_refs(&self, last: Option<BlockRef>) -> Vec<BlockRef> {
        let whole = holdfast_libs_types::MAX_BLOCK_BYTES as u32;
        self.blocks.iter().map(|hash| BlockRef { hash: *hash, length: whole }).chain(last).collect()
    }
}

impl Store {
    /// A new, empty session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn start_session(&self, actor: Actor) -> Result<SessionState, StoreError> {
        let id: [u8; 16] = holdfast_libs_crypto::random()?;
        self.write(move |write| {
            let old = now_ms() - LIFE_MS;
            let forget = "DELETE FROM upload_blocks WHERE session IN
                          (SELECT id FROM upload_sessions WHERE touched_ms <= ?)";
            write.db.prepare_cached(forget)?.execute([old])?;
            write.db.prepare_cached("DELETE FROM upload_sessions WHERE touched_ms <= ?")?.execute([old])?;
            write
                .db
                .prepare_cached("INSERT INTO upload_sessions (id, account, device, touched_ms) VALUES (?, ?, ?, ?)")?
                .execute(params![id, actor.account.as_bytes(), actor.device.0, now_ms()])?;
            Ok(SessionState { id, size: 0, blocks: Vec::new(), tail: Vec::new(), closed: false })
        })
        .await
    }

    /// A session as it is, if the caller's offset is its size.
    ///
    /// # Errors
    /// When the database fails; the inner error says why not.
    pub async fn session(
        &self,
        actor: Actor,
        id: [u8; 16],
        offset: u64,
    ) -> Result<Result<SessionState, SessionFailure>, StoreError> {
        self.read(move |db| {
            Ok(match load(db, &actor, &id)? {
                None => Err(SessionFailure::NotFound),
                Some(state) if state.size != offset => Err(SessionFailure::IncorrectOffset { correct: state.size }),
                Some(state) => Ok(state),
            })
        })
        .await
    }

    /// Keeps what was received: `state` is the session as it shall be, `from` its size before.
    ///
    /// # Errors
    /// When the database fails; the inner error says that somebody else came first.
    pub async fn extend_session(
        &self,
        actor: Actor,
        state: SessionState,
        from: u64,
        proven: Vec<KnownBlock>,
    ) -> Result<Result<(), SessionFailure>, StoreError> {
        self.write(move |write| {
            possession::record(write.db, actor.account, &proven)?;
            let before = match load(write.db, &actor, &state.id)? {
                None => return Ok(Err(SessionFailure::NotFound)),
                Some(before) if before.closed => return Ok(Err(SessionFailure::Closed)),
                Some(before) if before.size != from => {
                    return Ok(Err(SessionFailure::IncorrectOffset { correct: before.size }));
                }
                Some(before) => before,
            };
            for (number, hash) in state.blocks.iter().enumerate().skip(before.blocks.len()) {
                write
                    .db
                    .prepare_cached("INSERT INTO upload_blocks (session, number, hash) VALUES (?, ?, ?)")?
                    .execute(params![state.id, number, hash.as_bytes()])?;
            }
            write
                .db
                .prepare_cached(
                    "UPDATE upload_sessions SET size = ?, tail = ?, closed = ?, touched_ms = ? WHERE id = ?",
                )?
                .execute(params![state.size, state.tail, state.closed, now_ms(), state.id])?;
            Ok(Ok(()))
        })
        .await
    }
}
