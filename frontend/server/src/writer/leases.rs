//! Leases: taken, renewed and given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, InstanceId, VolumeId};
use holdfast_volume_manager_client::{LeaseRequest, LeasedVolume, RenewRequest, SealAsk, VolumeManagerClient, code};
use tokio_util::sync::CancellationToken;

use crate::answers::PutFailure;
use crate::counters::Counters;
use crate::suspects::Suspects;

/// How long a disk that failed us is left out of new leases.
const AVOID_FOR: Duration = Duration::from_secs(60);

/// A wish to seal is repeated with growing waits for about ten minutes; the lease has run out long before.
const SEAL_TRIES: u32 = 30;
const SEAL_WAIT_MAX: Duration = Duration::from_secs(30);

/// Giving volumes back at the end must not hold up the end.
const GIVE_BACK_DEADLINE: Duration = Duration::from_secs(3);

/// Renewals are never further apart than this, so that a new lease is not forgotten.
const RENEW_MAX: Duration = Duration::from_secs(1);

/// The frontend's dealings with the volume manager.
#[derive(Debug)]
pub(crate) struct Leases {
    instance: InstanceId,
    volume_manager: VolumeManagerClient,
    avoid: Suspects,
    /// Open volume -> milliseconds its lease lives.
    open: Mutex<BTreeMap<VolumeId, u64>>,
    counters: Arc<Counters>,
}

impl Leases {
    pub(crate) fn new(instance: InstanceId, volume_manager: VolumeManagerClient, counters: Arc<Counters>) -> Self {
        let avoid = Suspects::new(AVOID_FOR);
        Self { instance, volume_manager, avoid, open: Mutex::default(), counters }
    }

    /// The volumes leased at this moment.
    pub(crate) fn open_volumes(&self) -> Vec<VolumeId> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Leases a volume without the disks that failed us of late; with them when there are no others.
    pub(crate) async fn take(&self) -> Result<LeasedVolume, CallError> {
        let avoid = self.avoid.all();
        let choosy = !avoid.is_empty();
        let mut lease = self.volume_manager.lease(&LeaseRequest { frontend: self.instance, avoid }).await;
        if choosy && lease.as_ref().is_err_and(CallError::is_answer) {
            lease = self.volume_manager.lease(&LeaseRequest { frontend: self.instance, avoid: Vec::new() }).await;
        }
        let lease = lease?;
        self.counters.volumes_leased.one();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.volume, lease.lease_ms);
        tracing::info!(volume = %lease.volume, epoch = %lease.epoch, "volume leased");
        Ok(lease)
    }

    /// Gives a volume up: it is not renewed any more, and its seal is asked for until the volume manager has heard it.
    pub(crate) fn give_up(&self, lease: &LeasedVolume, failed_disk: Option<DiskId>, reason: String) {
        if let Some(disk) = failed_disk {
            self.avoid.note(disk);
        }
        self.forget(lease.volume);
        self.counters.seals_asked.one();
        let ask = SealAsk { volume: lease.volume, epoch: lease.epoch, failed_disk, reason: Some(reason) };
        let volume_manager = self.volume_manager.clone();
        tokio::spawn(async move { keep_asking(&volume_manager, &ask).await });
    }

    /// Asks to seal a volume at the end of the process.
    pub(crate) async fn give_back(&self, lease: &LeasedVolume) {
        self.forget(lease.volume);
        self.counters.seals_asked.one();
        let reason = Some("the frontend stops".to_owned());
        let ask = SealAsk { volume: lease.volume, epoch: lease.epoch, failed_disk: None, reason };
        match tokio::time::timeout(GIVE_BACK_DEADLINE, self.volume_manager.seal(&ask)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(volume = %lease.volume, %error, "seal not asked for; the lease runs out"),
            Err(_) => tracing::warn!(volume = %lease.volume, "seal not asked for in time; the lease runs out"),
        }
    }

    fn forget(&self, volume: VolumeId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&volume);
    }

    /// Renews the open volumes three times in the life of a lease. A volume manager that is away stops nobody from
    /// writing; what has run out meanwhile is refused by its fence.
    pub(crate) async fn keep_renewed(self: Arc<Self>, stop: CancellationToken) {
        let mut away = false;
        loop {
            let lives = self.open.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied();
            let wait = lives.map_or(RENEW_MAX, |ms| Duration::from_millis((ms / 3).max(10)).min(RENEW_MAX));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let volumes = self.open_volumes();
            if volumes.is_empty() {
                continue;
            }
            match self.volume_manager.renew(&RenewRequest { frontend: self.instance, volumes }).await {
                Ok(_) => away = false,
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(%error, "leases not renewed; will keep trying");
                }
                Err(_) => {}
            }
        }
    }
}

async fn keep_asking(volume_manager: &VolumeManagerClient, ask: &SealAsk) {
    let mut wait = Duration::from_millis(200);
    for _ in 0..SEAL_TRIES {
        match volume_manager.seal(ask).await {
            Ok(_) => return,
            Err(error) if error.code() == Some(code::UNKNOWN_VOLUME) => return,
            Err(error) => tracing::debug!(volume = %ask.volume, %error, "seal not asked for yet"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(SEAL_WAIT_MAX);
    }
    tracing::warn!(volume = %ask.volume, "the volume manager never heard the wish to seal; the lease has run out");
}

/// What waiting puts are told when no volume can be leased, and whether it is worth waiting for one.
pub(crate) fn lease_failure(error: &CallError) -> (PutFailure, bool) {
    match error.code() {
        Some(code::CELL_FULL) => (PutFailure::CellFull(error.to_string()), false),
        // It stays lost until an operator has it rebuilt.
        code => (PutFailure::Unavailable(format!("no volume to write to: {error}")), code != Some(code::CATALOG_LOST)),
    }
}
