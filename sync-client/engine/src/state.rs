//! What survives a crash: one SQLite file (WAL, synchronous=FULL), changed only in transactions.
//!
//! | table | holds |
//! |---|---|
//! | `meta` | device, namespace, root's identity, cursor, numbers, counters |
//! | `remote`, `synced` | the two persisted trees |
//! | `pending` | the items of the commit whose answer is not known, and what is needed to take the answer in |
//! | `receipts` | proofs of blocks delivered for commits to come, so that an interrupted upload goes on |
//! | `intents` | effects on the disk that were begun |

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{Change, CommitItem, EntryId, Place};
use holdfast_sync_client_planner::outcome::{Sent, SentChange};
use holdfast_sync_client_planner::{Content, Remote, RemoteEntry, Stat, SyncedEntry, Whereabouts};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::error::EngineError;
use crate::state_rows::{decode_content, decode_stat, encode_content, encode_stat};

const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE remote (entry INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL, exact_name TEXT,
    rev TEXT NOT NULL, sequence INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE synced (entry INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name TEXT NOT NULL, rev TEXT NOT NULL,
    content BLOB NOT NULL, stat BLOB NOT NULL, racy INTEGER NOT NULL);
CREATE TABLE pending (op INTEGER PRIMARY KEY, item TEXT NOT NULL, name TEXT, parent INTEGER, stat BLOB,
    racy INTEGER NOT NULL);
CREATE TABLE receipts (hash BLOB PRIMARY KEY, receipt TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE intents (entry INTEGER PRIMARY KEY, kind INTEGER NOT NULL, parent INTEGER, name TEXT, rev TEXT,
    content BLOB, stat BLOB);
";

/// Keys of `meta`.
pub(crate) mod key {
    pub(crate) const ACCOUNT: &str = "account";
    pub(crate) const DEVICE: &str = "device";
    pub(crate) const NAMESPACE: &str = "namespace";
    pub(crate) const ROOT: &str = "root";
    pub(crate) const CURSOR: &str = "cursor";
    pub(crate) const SEQUENCE: &str = "sequence";
    /// The pull under way is complete up to its cursor.
    pub(crate) const COMPLETE: &str = "complete";
    pub(crate) const LAST_OP: &str = "last_op";
    pub(crate) const RECEIPTS: &str = "pending_receipts";
    pub(crate) const SENT: &str = "block_bytes_sent";
    pub(crate) const RECEIVED: &str = "block_bytes_received";
    pub(crate) const FILES: &str = "files_done";
    pub(crate) const CONFLICTS: &str = "conflicts";
}

/// An effect on the disk that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// A complete temporary file with this stat is put in place as this revision.
    Write { parent: EntryId, name: String, rev: String, content: Content, stat: Stat },
    /// The entry is moved here.
    Move { parent: EntryId, name: String },
    /// The entry's file is removed.
    Delete,
}

/// The state file.
#[derive(Debug)]
pub(crate) struct State {
    db: Connection,
    path: PathBuf,
}

fn bad_row(what: &'static str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnName(format!("a damaged {what}"))
}

fn content(row: &Row<'_>, column: &str) -> rusqlite::Result<Content> {
    decode_content(&row.get::<_, Vec<u8>>(column)?).ok_or_else(|| bad_row("content"))
}

fn stat(row: &Row<'_>, column: &str) -> rusqlite::Result<Stat> {
    decode_stat(&row.get::<_, Vec<u8>>(column)?).ok_or_else(|| bad_row("stat"))
}

fn id(row: &Row<'_>, column: &str) -> rusqlite::Result<EntryId> {
    Ok(EntryId(row.get::<_, i64>(column)? as u64))
}

impl State {
    /// Opens or makes the state of a client.
    pub(crate) fn open(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join("state.db");
        let failed = |source| EngineError::State { path: path.clone(), source };
        let db = Connection::open(&path).map_err(failed)?;
        let prepare = || -> rusqlite::Result<i64> {
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            db.busy_timeout(std::time::Duration::from_secs(5))?;
            db.pragma_query_value(None, "user_version", |row| row.get(0))
        };
        let version = prepare().map_err(failed)?;
        let full: i64 = db.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(failed)?;
        if full != 2 {
            let detail = "SQLite does not keep synchronous=FULL here; nothing would be safe".to_owned();
            return Err(EngineError::Foreign { path, detail });
        }
        match version {
            0 => {
                let schema = format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;");
                db.execute_batch(&schema).map_err(failed)?;
            }
            VERSION => {}
            other => {
                let detail = format!("a state of version {other}; this program knows {VERSION}: run a newer one");
                return Err(EngineError::Foreign { path, detail });
            }
        }
        Ok(Self { db, path })
    }

    /// Names the file in an error.
    pub(crate) fn failed(&self, source: rusqlite::Error) -> EngineError {
        EngineError::State { path: self.path.clone(), source }
    }

    pub(crate) fn meta(&self, key: &str) -> rusqlite::Result<Option<String>> {
        self.db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
    }

    pub(crate) fn number(&self, key: &str) -> rusqlite::Result<u64> {
        Ok(self.meta(key)?.and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    pub(crate) fn remote(&self) -> rusqlite::Result<Remote> {
        let mut query = self.db.prepare("SELECT * FROM remote")?;
        let rows = query.query_map([], |row| {
            let entry = RemoteEntry {
                parent: id(row, "parent")?,
                name: row.get("name")?,
                exact_name: row.get("exact_name")?,
                rev: row.get("rev")?,
                sequence: row.get::<_, i64>("sequence")? as u64,
                content: content(row, "content")?,
            };
            Ok((id(row, "entry")?, entry))
        })?;
        let rows: rusqlite::Result<Vec<_>> = rows.collect();
        Ok(Remote::load(rows?, self.number(key::SEQUENCE)?))
    }

    pub(crate) fn synced(&self) -> rusqlite::Result<Vec<(EntryId, SyncedEntry)>> {
        let mut query = self.db.prepare("SELECT * FROM synced")?;
        let rows = query.query_map([], |row| {
            let entry = SyncedEntry {
                parent: id(row, "parent")?,
                name: row.get("name")?,
                rev: row.get("rev")?,
                content: content(row, "content")?,
                stat: stat(row, "stat")?,
                racy: row.get("racy")?,
                local: Whereabouts::Unknown,
            };
            Ok((id(row, "entry")?, entry))
        })?;
        rows.collect()
    }

    /// The items of a commit whose answer is not known, in order.
    pub(crate) fn pending(&self) -> rusqlite::Result<Vec<(CommitItem, Sent)>> {
        let mut query = self.db.prepare("SELECT * FROM pending ORDER BY op")?;
        let rows = query.query_map([], |row| {
            let item: String = row.get("item")?;
            let item: CommitItem = serde_json::from_str(&item).map_err(|_| bad_row("item"))?;
            let sent = sent_of(row, &item)?;
            Ok((item, sent))
        })?;
        rows.collect()
    }

    pub(crate) fn receipts(&self) -> rusqlite::Result<HashMap<BlockHash, String>> {
        let mut query = self.db.prepare("SELECT hash, receipt FROM receipts")?;
        let rows = query.query_map([], |row| Ok((BlockHash(row.get(0)?), row.get(1)?)))?;
        rows.collect()
    }

    pub(crate) fn intents(&self) -> rusqlite::Result<Vec<(EntryId, Intent)>> {
        let mut query = self.db.prepare("SELECT * FROM intents")?;
        let rows = query.query_map([], |row| {
            let intent = match row.get::<_, i64>("kind")? {
                1 => Intent::Write {
                    parent: id(row, "parent")?,
                    name: row.get("name")?,
                    rev: row.get("rev")?,
                    content: content(row, "content")?,
                    stat: stat(row, "stat")?,
                },
                2 => Intent::Move { parent: id(row, "parent")?, name: row.get("name")? },
                3 => Intent::Delete,
                _ => return Err(bad_row("intent")),
            };
            Ok((id(row, "entry")?, intent))
        })?;
        rows.collect()
    }

    /// One transaction; durable when it answers.
    pub(crate) fn write<T>(&mut self, change: impl FnOnce(&Writing<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let transaction = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let value = change(&Writing(&transaction))?;
        transaction.commit()?;
        Ok(value)
    }
}

fn sent_of(row: &Row<'_>, item: &CommitItem) -> rusqlite::Result<Sent> {
    let parent = row.get::<_, Option<i64>>("parent")?.map(|parent| EntryId(parent as u64));
    let name: String = row.get::<_, Option<String>>("name")?.unwrap_or_default();
    let put = |at: Option<&Place>, content: Content| -> rusqlite::Result<SentChange> {
        let entry = match at {
            Some(Place::Entry(entry)) => Some(*entry),
            _ => None,
        };
        let name = name.clone();
        Ok(SentChange::Put { entry, name, parent, content, stat: stat(row, "stat")?, racy: row.get("racy")? })
    };
    let change = match &item.change {
        Change::PutFile { at, size, blocks, mtime, executable, .. } => {
            let blocks = blocks.as_slice().into();
            put(Some(at), Content::File { size: *size, blocks, mtime: *mtime, executable: *executable })?
        }
        Change::PutSymlink { at, target, mtime, .. } => {
            put(Some(at), Content::Symlink { target: target.clone(), mtime: *mtime })?
        }
        Change::MakeFolder { .. } => put(None, Content::Folder)?,
        Change::Move { entry, .. } => SentChange::Move { entry: *entry, parent, name },
        Change::Delete { entry, .. } => SentChange::Delete { entry: *entry },
    };
    Ok(Sent { change, local: None })
}

/// A transaction under way.
pub(crate) struct Writing<'a>(&'a Transaction<'a>);

impl Writing<'_> {
    pub(crate) fn set(&self, key: &str, value: impl ToString) -> rusqlite::Result<()> {
        let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?;
        put.execute(params![key, value.to_string()])?;
        Ok(())
    }

    pub(crate) fn unset(&self, key: &str) -> rusqlite::Result<()> {
        self.0.execute("DELETE FROM meta WHERE key = ?1", [key])?;
        Ok(())
    }

    pub(crate) fn remote(&self, id: EntryId, entry: Option<&RemoteEntry>) -> rusqlite::Result<()> {
        let Some(entry) = entry else {
            self.0.prepare_cached("DELETE FROM remote WHERE entry = ?1")?.execute([id.0 as i64])?;
            return Ok(());
        };
        let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO remote VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        put.execute(params![
            id.0 as i64,
            entry.parent.0 as i64,
            entry.name,
            entry.exact_name,
            entry.rev,
            entry.sequence as i64,
            encode_content(&entry.content),
        ])?;
        Ok(())
    }

    pub(crate) fn synced(&self, id: EntryId, entry: Option<&SyncedEntry>) -> rusqlite::Result<()> {
        let Some(entry) = entry else {
            self.0.prepare_cached("DELETE FROM synced WHERE entry = ?1")?.execute([id.0 as i64])?;
            return Ok(());
        };
        let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO synced VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        put.execute(params![
            id.0 as i64,
            entry.parent.0 as i64,
            entry.name,
            entry.rev,
            encode_content(&entry.content),
            encode_stat(&entry.stat),
            entry.racy,
        ])?;
        Ok(())
    }

    pub(crate) fn pending(&self, item: &CommitItem, sent: &Sent) -> rusqlite::Result<()> {
        let text =
            serde_json::to_string(item).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let (name, parent, stat, racy) = match &sent.change {
            SentChange::Put { name, parent, stat, racy, .. } => (Some(name), *parent, Some(encode_stat(stat)), *racy),
            SentChange::Move { parent, name, .. } => (Some(name), *parent, None, false),
            SentChange::Delete { .. } => (None, None, None, false),
        };
        let parent = parent.map(|parent| parent.0 as i64);
        let mut put = self.0.prepare_cached("INSERT INTO pending VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        put.execute(params![item.op as i64, text, name, parent, stat, racy])?;
        Ok(())
    }

    pub(crate) fn clear_pending(&self) -> rusqlite::Result<()> {
        self.0.execute("DELETE FROM pending", [])?;
        self.unset(key::RECEIPTS)
    }

    pub(crate) fn receipt(&self, hash: BlockHash, receipt: Option<&str>) -> rusqlite::Result<()> {
        match receipt {
            Some(receipt) => {
                let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO receipts VALUES (?1, ?2)")?;
                put.execute(params![hash.as_bytes(), receipt])?;
            }
            None => {
                self.0.prepare_cached("DELETE FROM receipts WHERE hash = ?1")?.execute([hash.as_bytes()])?;
            }
        }
        Ok(())
    }

    pub(crate) fn intent(&self, id: EntryId, intent: &Intent) -> rusqlite::Result<()> {
        let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO intents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
        let entry = id.0 as i64;
        match intent {
            Intent::Write { parent, name, rev, content, stat } => {
                let (content, stat) = (encode_content(content), encode_stat(stat));
                put.execute(params![entry, 1, parent.0 as i64, name, rev, content, stat])?;
            }
            Intent::Move { parent, name } => {
                put.execute(params![
                    entry,
                    2,
                    parent.0 as i64,
                    name,
                    None::<String>,
                    None::<Vec<u8>>,
                    None::<Vec<u8>>
                ])?;
            }
            Intent::Delete => {
                let none = None::<Vec<u8>>;
                put.execute(params![entry, 3, None::<i64>, None::<String>, None::<String>, none, none])?;
            }
        }
        Ok(())
    }

    pub(crate) fn clear_intents(&self) -> rusqlite::Result<()> {
        self.0.execute("DELETE FROM intents", [])?;
        Ok(())
    }

    /// Forgets what was agreed on: every local file becomes a new one, which the server merges or keeps beside its own.
    pub(crate) fn clear_synced(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("DELETE FROM synced; DELETE FROM intents;")
    }

    /// Forgets the server's tree, to list it anew.
    pub(crate) fn clear_remote(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("DELETE FROM remote; DELETE FROM receipts;")?;
        self.unset(key::CURSOR)?;
        self.unset(key::SEQUENCE)?;
        self.unset(key::COMPLETE)
    }
}
