//! A table that was lost, or comes from an older copy: what is written to it while it is made whole from the disks.

use super::database::{Database, Transaction, column, text, values};
use super::reader::{decode_term, lock};
use super::writer::{check_term, write_replicas};
use crate::number::int;
use crate::table::{FoundVolume, Term};
use crate::{CatalogError, rules};

/// The row of `meta` that says so, and why.
const MARK: &str = "lost";

const FIND: &str = "SELECT value FROM meta WHERE name = ?";

pub(super) async fn lost(database: &Database) -> Result<Option<String>, CatalogError> {
    let mut session = database.session().await?;
    let row = session.first(FIND, values![MARK]).await?;
    row.map(|mut row| text(&mut row, 0, "why the catalog is lost")).transpose()
}

async fn mark(tx: &mut Transaction<'_>) -> Result<Option<String>, CatalogError> {
    let row = tx.first(&format!("{FIND} FOR UPDATE"), values![MARK]).await?;
    row.map(|mut row| text(&mut row, 0, "why the catalog is lost")).transpose()
}

pub(super) async fn mark_lost(database: &Database, term: Term, why: &str) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    // The column holds 255 bytes.
    let why: String = why.chars().take(60).collect();
    if mark(&mut tx).await?.is_none() {
        tx.change("INSERT INTO meta (name, value) VALUES (?, ?)", values![MARK, why]).await?;
        // An older copy has nonces that no disk shows any more.
        tx.change("UPDATE disks SET nonce = 0", values![]).await?;
    }
    tx.commit().await
}

pub(super) async fn raise_term(database: &Database, term: Term, above: Term) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let current = decode_term(tx.first("SELECT term FROM leader WHERE one = 1 FOR UPDATE", values![]).await?)?;
    if rules::raise_term(term, above, current)? {
        let raise = "UPDATE leader SET term = ?, holder = NULL, address = NULL, expires_ms = NULL WHERE one = 1";
        tx.change(raise, values![int("the leader's term", above.0)?]).await?;
    }
    tx.commit().await
}

pub(super) async fn take_in(database: &Database, term: Term, found: &FoundVolume) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    rules::check_lost(mark(&mut tx).await?)?;
    if rules::take_in(lock(&mut tx, found.volume).await?.as_ref(), found)? {
        let write = "INSERT INTO volumes (volume, state, epoch, capacity, length, digest, seal_reason)
                     VALUES (?, 'sealed', ?, ?, ?, ?, ?)
                     ON DUPLICATE KEY UPDATE state = 'sealed', epoch = VALUES(epoch), capacity = VALUES(capacity),
                     length = VALUES(length), digest = VALUES(digest), holder = NULL, lease_expires_ms = NULL,
                     seal_reason = VALUES(seal_reason)";
        let row = values![
            found.volume.as_bytes(),
            int("write epoch", found.epoch.0)?,
            int("capacity", found.capacity)?,
            int("length", found.length)?,
            found.digest.as_slice(),
            rules::FOUND,
        ];
        tx.change(write, row).await?;
    }
    write_replicas(&mut tx, found.volume, &found.replicas).await?;
    tx.commit().await
}

pub(super) async fn forget_unsealed(database: &Database, term: Term) -> Result<u64, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    rules::check_lost(mark(&mut tx).await?)?;
    let unsealed = tx.rows("SELECT volume FROM volumes WHERE state <> 'sealed' FOR UPDATE", values![]).await?.len();
    let replicas = "DELETE FROM replicas WHERE volume IN (SELECT volume FROM volumes WHERE state <> 'sealed')";
    tx.change(replicas, values![]).await?;
    tx.change("DELETE FROM volumes WHERE state <> 'sealed'", values![]).await?;
    tx.commit().await?;
    Ok(unsealed as u64)
}

pub(super) async fn recovered(database: &Database, term: Term, above: u32) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    // At once for writing: two that hold a shared lock would wait for each other.
    let row = tx.first("SELECT term, generation FROM leader WHERE one = 1 FOR UPDATE", values![]).await?;
    let mut row = row.ok_or_else(|| CatalogError::Damaged("the leader's row is gone".to_owned()))?;
    let generation: u32 = column(&mut row, 1, "the catalog's generation")?;
    rules::check_term(term, decode_term(Some(row))?)?;
    if mark(&mut tx).await?.is_some() {
        let raised = rules::generation_above(generation, above)?;
        tx.change("UPDATE leader SET generation = ? WHERE one = 1", values![raised]).await?;
        tx.change("DELETE FROM meta WHERE name = ?", values![MARK]).await?;
    }
    tx.commit().await
}
