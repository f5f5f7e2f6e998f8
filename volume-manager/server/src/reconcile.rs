//! The loop that makes the cell what the table says it should be: seals what must be sealed, repairs what lacks a
//! replica, hands out the keyring. It keeps no plans: each round looks anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_volume_manager_catalog::{CatalogError, VolumeState};

use crate::inventory::Snapshot;
use crate::liveness::Standing;
use crate::manager::{Manager, now_ms};
use crate::seal::{Sealed, seal};
use crate::{keyring, repair};

/// Between rounds when nothing wakes the loop.
const ROUND: Duration = Duration::from_millis(500);

/// A seal that must wait is tried again after this.
const SEAL_RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(manager: Arc<Manager>) {
    let mut next_audit = Instant::now() + manager.config.timing.audit();
    if let Err(error) = give_up_unfinished(&manager).await {
        tracing::error!(%error, "volumes that were being made could not be given up");
    }
    while !manager.shutdown.is_cancelled() {
        if Instant::now() >= next_audit {
            next_audit = Instant::now() + manager.config.timing.audit();
            match manager.catalog(|catalog, _| catalog.table.nodes()).await {
                Ok(nodes) => manager.progress().audits.extend(nodes.into_iter().map(|node| node.node)),
                Err(error) => tracing::error!(%error, "audit"),
            }
        }
        match round(&manager).await {
            Ok(()) => {}
            Err(error @ CatalogError::StaleTerm { .. }) => {
                tracing::error!(%error, "another volume manager leads this cell; stopping");
                manager.shutdown.cancel();
            }
            Err(error) => tracing::error!(%error, "reconcile"),
        }
        tokio::select! {
            () = manager.shutdown.cancelled() => {}
            () = manager.wake.notified() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
    // Tasks stop between steps; a copy on a node goes on there and is found done by the next leader.
    manager.tasks.close();
    if tokio::time::timeout(Duration::from_secs(2), manager.tasks.wait()).await.is_err() {
        tracing::info!("leaving work to the next start");
    }
}

/// Volumes that were being made when the last leader died: no frontend has them.
async fn give_up_unfinished(manager: &Manager) -> Result<(), CatalogError> {
    let creating = manager.catalog(|catalog, _| catalog.table.volumes_in(&[VolumeState::Creating])).await?;
    for volume in creating {
        manager
            .catalog(move |catalog, term| {
                catalog.index.close_fence(volume.volume, volume.epoch.next())?;
                catalog.table.fail_volume(term, volume.volume, "its volume manager died while making it")
            })
            .await?;
    }
    Ok(())
}

async fn round(manager: &Arc<Manager>) -> Result<(), CatalogError> {
    let audits: Vec<_> = manager.progress().audits.drain().collect();
    for node in audits {
        repair::audit(manager, &node).await?;
    }
    let snapshot = manager.snapshot().await?;
    begin_seals(manager, &snapshot).await?;
    let sealing = manager.catalog(|catalog, _| catalog.table.volumes_in(&[VolumeState::Sealing])).await?;
    for volume in sealing {
        start_seal(manager, volume.volume);
    }
    let sealed = manager.catalog(|catalog, _| catalog.table.volumes_in(&[VolumeState::Sealed])).await?;
    repair::start(manager, &snapshot, &sealed);
    keyring::push(manager, &snapshot).await
}

/// Open volumes that nobody writes to any more, or that lost a disk.
async fn begin_seals(manager: &Manager, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let open = manager.catalog(|catalog, _| catalog.table.volumes_in(&[VolumeState::Open])).await?;
    let now = now_ms();
    for volume in open {
        let broken = volume.replicas.iter().find_map(|disk| {
            let standing = snapshot.disk(*disk).map(|view| view.standing.clone());
            match standing {
                Some(Standing::Healthy | Standing::Suspect) => None,
                Some(standing) => Some(format!("disk {disk} is {}", standing.name())),
                None => Some(format!("disk {disk} is not in the inventory")),
            }
        });
        let expired = volume.lease_expires_ms.is_none_or(|expires| expires < now);
        let reason = match broken {
            Some(reason) => reason,
            None if expired => "its lease ran out".to_owned(),
            None => continue,
        };
        let (id, epoch): (VolumeId, WriteEpoch) = (volume.volume, volume.epoch);
        manager.catalog(move |catalog, term| catalog.table.begin_seal(term, id, epoch, &reason)).await?;
    }
    Ok(())
}

fn start_seal(manager: &Arc<Manager>, volume: VolumeId) {
    let Some(claim) = manager.claim(volume, "seal", "waiting for its turn") else { return };
    let manager = Arc::clone(manager);
    manager.tasks.clone().spawn(async move {
        let place = Arc::clone(&manager.seals).acquire_owned().await;
        match seal(&manager, volume).await {
            Ok(Sealed::Done) => manager.wake.notify_one(),
            Ok(Sealed::Waits(why)) => {
                tracing::warn!(%volume, why, "the seal must wait");
                manager.note(volume, "seal", format!("waits: {why}"));
                // The place is free for others meanwhile; the claim keeps the reason in the status.
                drop(place);
                manager.pause(SEAL_RETRY).await;
            }
            Err(error) => {
                tracing::error!(%volume, %error, "seal");
                drop(place);
                manager.pause(SEAL_RETRY).await;
            }
        }
        drop(claim);
    });
}
