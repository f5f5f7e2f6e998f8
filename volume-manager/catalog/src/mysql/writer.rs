//! Writing the table.
//!
//! Each transaction begins by reading the leader's row with a shared lock and comparing the term. Whoever becomes the leader
//! locks that row for itself first. So a transaction of the leader before either commits before the new term is there, and the new
//! leader sees what it did; or it begins after that, and is refused.

use std::time::Duration;

use holdfast_libs_types::{DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};

use super::database::{Database, Transaction, Values, column, number, text, values};
use super::reader::{LEADER, decode_leader, decode_term, lock};
use crate::CatalogError;
use crate::number::int;
use crate::rules::{self, LeaderRow, Next, Registrant};
use crate::table::{
    Candidate, DiskInfo, Leadership, LengthCommitted, NewVolume, Node, Registration, Term, Volume, VolumeState,
};

/// Compares the term, and keeps it until the transaction ends.
pub(super) async fn check_term(tx: &mut Transaction<'_>, term: Term) -> Result<(), CatalogError> {
    let current = tx.first("SELECT term FROM leader WHERE one = 1 LOCK IN SHARE MODE", values![]).await?;
    rules::check_term(term, decode_term(current)?)
}

async fn known(tx: &mut Transaction<'_>, volume: VolumeId) -> Result<Volume, CatalogError> {
    lock(tx, volume).await?.ok_or(CatalogError::UnknownVolume(volume))
}

pub(super) async fn take_leadership(database: &Database) -> Result<Term, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let take = "UPDATE leader SET term = term + 1, holder = NULL, address = NULL, expires_ms = NULL WHERE one = 1";
    tx.change(take, values![]).await?;
    let term = decode_term(tx.first("SELECT term FROM leader WHERE one = 1", values![]).await?)?;
    tx.commit().await?;
    Ok(term)
}

pub(super) async fn acquire_leadership(
    database: &Database,
    candidate: &Candidate,
    ttl: Duration,
) -> Result<Leadership, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    // Whoever waits here for the lock has the time from before; it may take a lease for one that still runs, never the
    // other way round.
    let row = decode_leader(tx.first(&format!("{LEADER} FOR UPDATE"), values![]).await?)?;
    if let Some(leader) = rules::in_the_way(&row, candidate) {
        return Ok(Leadership::Held(leader));
    }
    let (term, expires) = (Term(row.term.0 + 1), row.now_ms + rules::lease_ms(ttl));
    let take = "UPDATE leader SET term = ?, holder = ?, address = ?, expires_ms = ? WHERE one = 1";
    let number = int("the leader's term", term.0)?;
    tx.change(take, values![number, &candidate.holder, &candidate.address, expires]).await?;
    tx.commit().await?;
    Ok(Leadership::Taken(term))
}

/// Locks the leader's row for writing, and compares the term.
async fn own_row(tx: &mut Transaction<'_>, term: Term) -> Result<LeaderRow, CatalogError> {
    let row = decode_leader(tx.first(&format!("{LEADER} FOR UPDATE"), values![]).await?)?;
    rules::check_term(term, row.term)?;
    Ok(row)
}

pub(super) async fn renew_leadership(database: &Database, term: Term, ttl: Duration) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let expires = own_row(&mut tx, term).await?.now_ms + rules::lease_ms(ttl);
    tx.change("UPDATE leader SET expires_ms = ? WHERE one = 1", values![expires]).await?;
    tx.commit().await
}

pub(super) async fn release_leadership(database: &Database, term: Term) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    own_row(&mut tx, term).await?;
    let release = "UPDATE leader SET holder = NULL, address = NULL, expires_ms = NULL WHERE one = 1";
    tx.change(release, values![]).await?;
    tx.commit().await
}

pub(super) async fn raise_generation(database: &Database, term: Term) -> Result<u32, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    // At once for writing: two that hold a shared lock would wait for each other.
    let row = tx.first("SELECT term, generation FROM leader WHERE one = 1 FOR UPDATE", values![]).await?;
    let mut row = row.ok_or_else(|| CatalogError::Damaged("the leader's row is gone".to_owned()))?;
    rules::check_term(term, Term(number(&mut row, 0, "the leader's term")?))?;
    let generation: u32 = column(&mut row, 1, "the catalog's generation")?;
    let raised = generation.checked_add(1).ok_or(CatalogError::TooLarge { what: "generation", value: u64::MAX })?;
    tx.change("UPDATE leader SET generation = ? WHERE one = 1", values![raised]).await?;
    tx.commit().await?;
    Ok(raised)
}

pub(super) async fn create_volume(database: &Database, term: Term, new: &NewVolume) -> Result<(), CatalogError> {
    let epoch = int("write epoch", new.epoch.0)?;
    let capacity = int("capacity", new.capacity)?;
    let expires = int("the lease's end", new.lease_expires_ms)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    if !rules::create(lock(&mut tx, new.volume).await?.as_ref(), new)? {
        return Ok(());
    }
    rules::check_replicas(new.volume, &new.disks)?;
    let add = "INSERT INTO volumes (volume, state, epoch, capacity, holder, lease_expires_ms)
               VALUES (?, 'creating', ?, ?, ?, ?)";
    tx.change(add, values![new.volume.as_bytes(), epoch, capacity, new.holder.as_bytes(), expires]).await?;
    write_replicas(&mut tx, new.volume, &new.disks).await?;
    tx.commit().await
}

pub(super) async fn open_volume(database: &Database, term: Term, volume: VolumeId) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    if rules::leave_creating(&known(&mut tx, volume).await?, VolumeState::Open)? {
        tx.change("UPDATE volumes SET state = 'open' WHERE volume = ?", values![volume.as_bytes()]).await?;
    }
    tx.commit().await
}

pub(super) async fn fail_volume(
    database: &Database,
    term: Term,
    volume: VolumeId,
    reason: &str,
) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    if rules::leave_creating(&known(&mut tx, volume).await?, VolumeState::Failed)? {
        let fail = "UPDATE volumes SET state = 'failed', seal_reason = ?, holder = NULL, lease_expires_ms = NULL
                    WHERE volume = ?";
        tx.change(fail, values![reason, volume.as_bytes()]).await?;
    }
    tx.commit().await
}

pub(super) async fn renew_leases(
    database: &Database,
    term: Term,
    holder: InstanceId,
    volumes: &[VolumeId],
    expires_ms: u64,
) -> Result<Vec<VolumeId>, CatalogError> {
    let expires = int("the lease's end", expires_ms)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let mut kept = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let find = "SELECT 1 FROM volumes WHERE volume = ? AND state = 'open' AND holder = ? FOR UPDATE";
        if tx.first(find, values![volume.as_bytes(), holder.as_bytes()]).await?.is_some() {
            let renew =
                "UPDATE volumes SET lease_expires_ms = greatest(coalesce(lease_expires_ms, 0), ?) WHERE volume = ?";
            tx.change(renew, values![expires, volume.as_bytes()]).await?;
            kept.push(*volume);
        }
    }
    tx.commit().await?;
    Ok(kept)
}

pub(super) async fn set_replicas(
    database: &Database,
    term: Term,
    volume: VolumeId,
    expected_old: &[DiskId],
    new: &[DiskId],
) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    if rules::set_replicas(&known(&mut tx, volume).await?, expected_old, new)? {
        write_replicas(&mut tx, volume, new).await?;
    }
    tx.commit().await
}

pub(super) async fn begin_seal(
    database: &Database,
    term: Term,
    volume: VolumeId,
    from_epoch: WriteEpoch,
    reason: &str,
) -> Result<WriteEpoch, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let epoch = match rules::begin_seal(&known(&mut tx, volume).await?, from_epoch)? {
        Next::Stands(epoch) => epoch,
        Next::Write(epoch) => {
            let begin = "UPDATE volumes SET state = 'sealing', epoch = ?, seal_reason = ? WHERE volume = ?";
            tx.change(begin, values![int("write epoch", epoch.0)?, reason, volume.as_bytes()]).await?;
            epoch
        }
    };
    tx.commit().await?;
    Ok(epoch)
}

pub(super) async fn commit_length(
    database: &Database,
    term: Term,
    volume: VolumeId,
    epoch: WriteEpoch,
    length: u64,
) -> Result<LengthCommitted, CatalogError> {
    let number = int("length", length)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let stands = match rules::commit_length(&known(&mut tx, volume).await?, epoch, length)? {
        Next::Stands(stands) => stands,
        Next::Write(length) => {
            let commit = "UPDATE volumes SET length = ? WHERE volume = ? AND length IS NULL";
            tx.change(commit, values![number, volume.as_bytes()]).await?;
            length
        }
    };
    tx.commit().await?;
    Ok(stands)
}

pub(super) async fn commit_seal(
    database: &Database,
    term: Term,
    volume: VolumeId,
    digest: &[u8; 32],
    replicas: &[DiskId],
) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    if rules::commit_seal(&known(&mut tx, volume).await?, digest, replicas)? {
        let seal = "UPDATE volumes SET state = 'sealed', digest = ?, holder = NULL, lease_expires_ms = NULL
                    WHERE volume = ?";
        tx.change(seal, values![digest.as_slice(), volume.as_bytes()]).await?;
        write_replicas(&mut tx, volume, replicas).await?;
    }
    tx.commit().await
}

/// Replaces a volume's list of replicas by one that was checked.
pub(super) async fn write_replicas(
    tx: &mut Transaction<'_>,
    volume: VolumeId,
    disks: &[DiskId],
) -> Result<(), CatalogError> {
    tx.change("DELETE FROM replicas WHERE volume = ?", values![volume.as_bytes()]).await?;
    for (place, disk) in disks.iter().enumerate() {
        if tx.first("SELECT 1 FROM disks WHERE disk = ?", values![disk.as_bytes()]).await?.is_none() {
            return Err(CatalogError::UnknownDisk(*disk));
        }
        let add = "INSERT INTO replicas (volume, place, disk) VALUES (?, ?, ?)";
        tx.change(add, values![volume.as_bytes(), int("place", place as u64)?, disk.as_bytes()]).await?;
    }
    Ok(())
}

pub(super) async fn upsert_node(database: &Database, term: Term, node: &Node) -> Result<(), CatalogError> {
    let seen = int("the time a node was seen", node.last_seen_ms)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let write = "INSERT INTO nodes (node, zone, rack, address, instance, last_seen_ms) VALUES (?, ?, ?, ?, ?, ?)
                 ON DUPLICATE KEY UPDATE zone = VALUES(zone), rack = VALUES(rack), address = VALUES(address),
                 instance = VALUES(instance), last_seen_ms = VALUES(last_seen_ms)";
    let (name, instance) = (node.node.0.as_str(), node.instance.as_bytes());
    tx.change(write, values![name, &node.zone, &node.rack, &node.address, instance, seen]).await?;
    tx.commit().await
}

pub(super) async fn upsert_disk(database: &Database, term: Term, info: &DiskInfo) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    rules::check_report(registrant(&mut tx, info).await?, info)?;
    write_info(&mut tx, info).await?;
    tx.commit().await
}

pub(super) async fn register_disk_incarnation(
    database: &Database,
    term: Term,
    info: &DiskInfo,
    previous_nonce: u64,
    incarnation: u64,
    nonce: u64,
) -> Result<Registration, CatalogError> {
    let number = int("incarnation", incarnation)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let name = info.node.0.as_str();
    if tx.first("SELECT 1 FROM nodes WHERE node = ?", values![name]).await?.is_none() {
        return Err(CatalogError::UnknownNode(info.node.clone()));
    }
    if let Some(why) = rules::refusal(registrant(&mut tx, info).await?, info, previous_nonce, nonce) {
        return Ok(Registration::Refused(why));
    }
    let write =
        "INSERT INTO disks (disk, node, path, incarnation, nonce, state, slot_bytes, volume_bytes, slots, free_slots)
                 VALUES (?, ?, '', ?, ?, '', 0, 0, 0, 0)
                 ON DUPLICATE KEY UPDATE node = VALUES(node), incarnation = VALUES(incarnation), nonce = VALUES(nonce)";
    tx.change(write, values![info.disk.as_bytes(), name, number, nonce.cast_signed()]).await?;
    write_info(&mut tx, info).await?;
    tx.commit().await?;
    Ok(Registration::Accepted)
}

/// Who registered the disk; its row is kept from changing until the transaction ends.
async fn registrant(tx: &mut Transaction<'_>, info: &DiskInfo) -> Result<Registrant, CatalogError> {
    let sql = "SELECT node, nonce FROM disks WHERE disk = ? FOR UPDATE";
    let Some(mut row) = tx.first(sql, values![info.disk.as_bytes()]).await? else { return Ok(None) };
    let node = NodeId(text(&mut row, 0, "a disk's node")?);
    Ok(Some((node, column::<i64>(&mut row, 1, "a nonce")?.cast_unsigned())))
}

async fn write_info(tx: &mut Transaction<'_>, info: &DiskInfo) -> Result<(), CatalogError> {
    let write = "UPDATE disks SET path = ?, state = ?, reason = ?, slot_bytes = ?, volume_bytes = ?, slots = ?,
                 free_slots = ? WHERE disk = ?";
    let values = values![
        &info.path,
        &info.state,
        &info.reason,
        int("bytes of a slot", info.slot_bytes)?,
        int("bytes of a volume", info.volume_bytes)?,
        int("slots", info.slots)?,
        int("free slots", info.free_slots)?,
        info.disk.as_bytes(),
    ];
    tx.change(write, values).await?;
    Ok(())
}

pub(super) async fn forget_disk(database: &Database, term: Term, disk: DiskId) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    // All writes are those of one leader, who may name the disk in a new volume at the same time: that one is refused then
    // by the key that its replicas refer to, or counts here.
    tx.first("SELECT 1 FROM disks WHERE disk = ? FOR UPDATE", values![disk.as_bytes()]).await?;
    let count = "SELECT count(*) FROM replicas r JOIN volumes v ON v.volume = r.volume
                 WHERE r.disk = ? AND v.state <> 'failed' AND (v.state <> 'sealed' OR v.length > 0)";
    let volumes = counted(&mut tx, count, values![disk.as_bytes()]).await?;
    if volumes > 0 {
        return Err(CatalogError::DiskInUse { disk, volumes });
    }
    tx.change("DELETE FROM replicas WHERE disk = ?", values![disk.as_bytes()]).await?;
    tx.change("DELETE FROM disks WHERE disk = ?", values![disk.as_bytes()]).await?;
    tx.commit().await
}

pub(super) async fn forget_node(database: &Database, term: Term, node: &NodeId) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    let name = node.0.as_str();
    tx.first("SELECT 1 FROM nodes WHERE node = ? FOR UPDATE", values![name]).await?;
    let disks = counted(&mut tx, "SELECT count(*) FROM disks WHERE node = ?", values![name]).await?;
    if disks > 0 {
        return Err(CatalogError::NodeInUse { node: node.clone(), disks });
    }
    tx.change("DELETE FROM nodes WHERE node = ?", values![name]).await?;
    tx.commit().await
}

async fn counted(tx: &mut Transaction<'_>, sql: &str, values: Values) -> Result<u64, CatalogError> {
    let row = tx.first(sql, values).await?;
    row.map_or(Ok(0), |mut row| number(&mut row, 0, "a count"))
}

pub(super) async fn set_setting(
    database: &Database,
    term: Term,
    key: &str,
    value: Option<&str>,
) -> Result<(), CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    check_term(&mut tx, term).await?;
    match value {
        Some(value) => {
            let write =
                "INSERT INTO settings (name, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)";
            tx.change(write, values![key, value]).await?;
        }
        None => tx.change("DELETE FROM settings WHERE name = ?", values![key]).await?,
    }
    tx.commit().await
}
