//! Keeps the node registered with the volume manager, and looks after the disks between heartbeats.
//!
//! The node serves whether or not the volume manager answers: reads and appends to leased volumes do not need it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, InstanceId};
use holdfast_node_client::DiskState;
use holdfast_node_engine::{Disk, Incarnation};
use holdfast_volume_manager_client::{DiskReport, Heartbeat, Register, RegisterAnswer, VolumeManagerClient};
use tokio_util::sync::CancellationToken;

use crate::Node;

/// First and longest wait between attempts to register.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Until a volume manager says how often it wants heartbeats.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);

/// A disk that does not answer within this is left to the next round; its own thread may be stuck in the kernel.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);

/// Registers, then sends heartbeats, until `shutdown`.
pub(crate) async fn keep_registered(
    node: Arc<Node>,
    instance: InstanceId,
    volume_manager: VolumeManagerClient,
    shutdown: CancellationToken,
) {
    let mut registration = Registration { node, instance, volume_manager, incarnations: HashMap::new(), away: false };
    let forever = async {
        loop {
            let period = registration.register().await;
            registration.send_heartbeats(period).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = forever => {}
    }
}

struct Registration {
    node: Arc<Node>,
    instance: InstanceId,
    volume_manager: VolumeManagerClient,
    incarnations: HashMap<DiskId, Incarnation>,
    /// The last call to the volume manager failed and was logged.
    away: bool,
}

impl Registration {
    /// Tries until the volume manager takes the registration; answers how often it wants heartbeats.
    async fn register(&mut self) -> Duration {
        let mut wait = RETRY_MIN;
        loop {
            self.check_disks().await;
            self.propose_incarnations().await;
            let node = &self.node;
            let request = Register {
                cell: node.config.cell,
                node: node.name.clone(),
                instance: self.instance,
                zone: node.config.zone.clone(),
                address: node.config.address.clone(),
                disks: self.reports(),
            };
            match self.volume_manager.register(&request).await {
                Ok(answer) => {
                    self.node.term.fetch_max(answer.term, Ordering::Relaxed);
                    self.apply(&answer).await;
                    self.away = false;
                    tracing::info!(node = %self.node.name, term = answer.term, "registered with the volume manager");
                    return match answer.heartbeat_ms {
                        0 => HEARTBEAT_DEFAULT,
                        ms => Duration::from_millis(ms),
                    };
                }
                Err(error) => self.note_failure(&error, "cannot register with the volume manager; will keep trying"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Ends when the volume manager asks for a new registration.
    async fn send_heartbeats(&mut self, period: Duration) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.check_disks().await;
            let heartbeat = Heartbeat { node: self.node.name.clone(), instance: self.instance, disks: self.reports() };
            match self.volume_manager.heartbeat(&heartbeat).await {
                Ok(answer) => {
                    self.node.term.fetch_max(answer.term, Ordering::Relaxed);
                    if self.away {
                        self.away = false;
                        tracing::info!("the volume manager answers again");
                    }
                    if answer.register {
                        return;
                    }
                }
                Err(error) => self.note_failure(&error, "the volume manager takes no heartbeat; will keep trying"),
            }
        }
    }

    fn note_failure(&mut self, error: &CallError, what: &str) {
        if !self.away {
            tracing::warn!(%error, "{what}");
            self.away = true;
        }
    }

    /// Looks whether each disk is still the one that was opened. One that is not becomes failed, and the report that
    /// follows says so.
    async fn check_disks(&self) {
        let check = |disk: Disk| async move {
            match tokio::time::timeout(CHECK_DEADLINE, disk.check_present()).await {
                // The engine has logged and keeps what it found; the report has it from the disk's status.
                Ok(_) => {}
                Err(_) => tracing::warn!(disk = %disk.id(), "disk does not answer within {CHECK_DEADLINE:?}"),
            }
        };
        join_all(self.node.disks.iter().cloned().map(check)).await;
    }

    async fn propose_incarnations(&mut self) {
        for disk in self.node.disks.iter() {
            match disk.propose_incarnation().await {
                Ok(proposal) => {
                    self.incarnations.insert(disk.id(), proposal);
                }
                // Read-only or failed: it is reported as it is, under its last incarnation.
                Err(error) => tracing::debug!(disk = %disk.id(), %error, "no new incarnation"),
            }
        }
    }

    /// Confirms what the volume manager accepted and takes the rest out of writing.
    async fn apply(&mut self, answer: &RegisterAnswer) {
        for result in &answer.disks {
            let Ok(disk) = self.node.disks.get(result.disk) else { continue };
            if !result.accepted {
                let reason = result.reason.as_deref().unwrap_or("the volume manager refused this disk's incarnation");
                disk.set_read_only(reason);
                continue;
            }
            let Some(proposal) = self.incarnations.get(&result.disk).filter(|proposal| !proposal.confirmed) else {
                continue;
            };
            match disk.confirm_incarnation(*proposal).await {
                Ok(()) => {
                    self.incarnations.insert(result.disk, Incarnation { confirmed: true, ..*proposal });
                }
                // The same proposal is made again by the next start, and the catalog knows it then.
                Err(error) => tracing::warn!(disk = %result.disk, %error, "incarnation accepted but not recorded"),
            }
        }
    }

    fn reports(&self) -> Vec<DiskReport> {
        self.node.disks.iter().map(|disk| report(disk, self.incarnations.get(&disk.id()))).collect()
    }
}

fn report(disk: &Disk, incarnation: Option<&Incarnation>) -> DiskReport {
    let status = disk.status();
    let (state, reason) = crate::disks::state(&status.state);
    let state = match state {
        DiskState::Healthy => "healthy",
        DiskState::ReadOnly => "read_only",
        DiskState::Failed => "failed",
    };
    DiskReport {
        disk: status.id,
        path: status.path.display().to_string(),
        incarnation: incarnation.map_or(status.incarnation, |proposal| proposal.incarnation),
        nonce: incarnation.map_or(0, |proposal| short_nonce(proposal.nonce)),
        previous_nonce: incarnation.map_or(0, |proposal| short_nonce(proposal.previous_nonce)),
        state: state.to_owned(),
        reason,
        slot_bytes: status.slot_bytes,
        volume_bytes: status.volume_capacity_bytes,
        slots: status.slots.into(),
        free_slots: status.free_slots.into(),
    }
}

/// The first half of an incarnation's nonce: the protocol carries 64 bits of it.
fn short_nonce(nonce: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = nonce;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
