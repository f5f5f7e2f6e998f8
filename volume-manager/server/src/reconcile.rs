//! The loop that makes the cell what the table says it should be: seals what must be sealed, repairs what lacks a
//! replica, hands out the keyring. It keeps no plans: each round looks anew. It waits for no node: calls to nodes are tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{CatalogError, VolumeState};
use tokio::time::Instant;

use crate::error::ServerError;
use crate::inventory::Snapshot;
use crate::liveness::Standing;
use crate::manager::{Manager, give_up};
use crate::seal::{Sealed, seal};
use crate::{audit, keyring, moves, repair};

/// Between rounds when nothing wakes the loop.
const ROUND: Duration = Duration::from_millis(500);

/// Sealed volumes are looked through when something happened that may have cost one a replica, and after this anyway.
const LOOK: Duration = Duration::from_secs(5);

/// A seal that must wait is tried again after this, then after twice that, and so on, or when a node registers.
const SEAL_RETRY: Duration = Duration::from_secs(1);
const SEAL_RETRY_MAX: Duration = Duration::from_secs(15);

/// What the last round saw, to tell what changed.
#[derive(Default)]
struct Seen {
    standings: HashMap<DiskId, &'static str>,
    looked: Option<Instant>,
}

/// Runs until shutdown.
///
/// # Errors
/// `Deposed` when the term is over.
pub(crate) async fn run(manager: Arc<Manager>) -> Result<(), ServerError> {
    let mut next_audit = Instant::now() + manager.config.timing.audit();
    let mut seen = Seen::default();
    let mut ended = Ok(());
    while !manager.shutdown.is_cancelled() {
        let audit_all = Instant::now() >= next_audit;
        if audit_all {
            next_audit = Instant::now() + manager.config.timing.audit();
        }
        match round(&manager, audit_all, &mut seen).await {
            Ok(()) => {}
            Err(CatalogError::StaleTerm { given, current }) => {
                ended = Err(ServerError::Deposed { given, current });
                break;
            }
            Err(error) => tracing::error!(%error, "reconcile"),
        }
        tokio::select! {
            biased;
            () = manager.shutdown.cancelled() => {}
            () = manager.wake.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
    // Tasks stop between steps; a copy on a node goes on there and is found done by the next leader.
    manager.shutdown.cancel();
    manager.tasks.close();
    if tokio::time::timeout(Duration::from_secs(2), manager.tasks.wait()).await.is_err() {
        tracing::info!("leaving work to the next start");
    }
    ended
}

async fn round(manager: &Arc<Manager>, audit_all: bool, seen: &mut Seen) -> Result<(), CatalogError> {
    // Writes check the term by themselves. A leader that has nothing to write must notice too.
    let (term, current) = (manager.term, manager.catalog.table.term().await?);
    if current != term {
        return Err(CatalogError::StaleTerm { given: term, current });
    }
    let snapshot = Arc::new(manager.snapshot().await?);
    audit::start(manager, &snapshot, audit_all);
    keyring::start(manager, &snapshot).await?;
    give_up_overdue(manager).await?;
    begin_seals(manager, &snapshot).await?;
    let sealing = manager.catalog.table.volumes_in(&[VolumeState::Sealing]).await?;
    for volume in sealing {
        start_seal(manager, volume.volume);
    }
    look(manager, &snapshot, seen).await?;
    moves::pump(manager);
    Ok(())
}

/// Looks for sealed volumes that lack a replica.
async fn look(manager: &Arc<Manager>, snapshot: &Arc<Snapshot>, seen: &mut Seen) -> Result<(), CatalogError> {
    let standings: HashMap<DiskId, &'static str> =
        snapshot.disks.iter().map(|view| (view.disk.info.disk, view.standing.name())).collect();
    let stale = std::mem::take(&mut manager.progress().stale);
    let due = seen.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
    if !stale && !due && standings == seen.standings {
        return Ok(());
    }
    let volumes = moves::Volumes::read(manager).await?;
    repair::start(manager, snapshot, &volumes.sealed);
    moves::start(manager, snapshot, volumes);
    *seen = Seen { standings, looked: Some(Instant::now()) };
    Ok(())
}

/// Volumes whose making took longer than a lease: whoever made them is gone or has failed.
async fn give_up_overdue(manager: &Manager) -> Result<(), CatalogError> {
    let now = manager.now_ms();
    for volume in manager.catalog.table.volumes_in(&[VolumeState::Creating]).await? {
        if volume.lease_expires_ms.is_none_or(|expires| expires < now) {
            give_up(&manager.catalog, manager.term, &volume, "it could not be made in time").await?;
        }
    }
    Ok(())
}

/// Open volumes that nobody writes to any more, or that lost a disk.
async fn begin_seals(manager: &Manager, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let now = manager.now_ms();
    // Nobody could renew while no volume manager ran.
    let renewable = now < manager.started_ms + manager.config.timing.lease_ms;
    let table = &manager.catalog.table;
    for volume in table.volumes_in(&[VolumeState::Open]).await? {
        let broken = volume.replicas.iter().find_map(|disk| broken(snapshot, *disk));
        let expired = !renewable && volume.lease_expires_ms.is_none_or(|expires| expires < now);
        let reason = match broken {
            Some(reason) => reason,
            None if expired => "its lease ran out".to_owned(),
            None => continue,
        };
        table.begin_seal(manager.term, volume.volume, volume.epoch, &reason).await?;
    }
    Ok(())
}

/// Why a volume on this disk cannot be written any more.
fn broken(snapshot: &Snapshot, disk: DiskId) -> Option<String> {
    let Some(view) = snapshot.disk(disk) else { return Some(format!("disk {disk} is not in the inventory")) };
    match &view.standing {
        _ if view.offline.is_some() => Some(format!("disk {disk} is offline by an operator's order")),
        _ if view.leaving => Some(format!("disk {disk} is being drained")),
        Standing::Healthy | Standing::Suspect(_) | Standing::Down(_) => None,
        standing => Some(format!("disk {disk} is {}", standing.name())),
    }
}

fn start_seal(manager: &Arc<Manager>, volume: VolumeId) {
    let Some(claim) = manager.claim(volume, "seal", "waiting for its turn") else { return };
    let manager = Arc::clone(manager);
    manager.tasks.clone().spawn(async move {
        let _claim = claim;
        let mut wait = SEAL_RETRY;
        loop {
            // Also those that register during the attempt.
            let returned = manager.returned.notified();
            tokio::pin!(returned);
            returned.as_mut().enable();
            let place = Arc::clone(&manager.seals).acquire_owned().await;
            let why = match seal(&manager, volume).await {
                Ok(Sealed::Done) => break,
                Ok(Sealed::Waits(why)) => why,
                // The loop sees it too, and ends the daemon.
                Err(CatalogError::StaleTerm { .. }) => break,
                Err(error) => error.to_string(),
            };
            if manager.shutdown.is_cancelled() {
                break;
            }
            tracing::warn!(%volume, why, "the seal must wait");
            manager.wait_note(volume, "seal", &why);
            // The place is free for others meanwhile; the claim keeps the reason in the status.
            drop(place);
            tokio::select! {
                biased;
                going_on = manager.pause(wait) => if !going_on { break },
                () = returned => {}
            }
            wait = (wait * 2).min(SEAL_RETRY_MAX);
        }
        manager.progress().stale = true;
        manager.wake.notify_one();
    });
}
