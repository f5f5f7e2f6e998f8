//! Keeps the node registered with the volume manager: anew whenever disks came or went.
//!
//! The node serves whether or not the volume manager answers: reads and appends to leased volumes do not need it. No disk
//! that hangs holds up a heartbeat: what is said of a disk is what is known of it, and nothing here waits for one longer
//! than [`DISK_DEADLINE`], all at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, InstanceId};
use holdfast_node_client::DiskState;
use holdfast_node_engine::{DiskStatus, Incarnation};
use holdfast_volume_manager_client::{
    Background, DiskPace, DiskReport, Heartbeat, Register, RegisterAnswer, RegisteredDisk, VolumeManagerClient,
};
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::disks::OpenDisk;
use crate::pace::PaceReport;

/// First and longest wait between attempts to register.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Until a volume manager says how often it wants heartbeats.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(1);

/// A disk that proposes or confirms no incarnation within this is registered without one.
const DISK_DEADLINE: Duration = Duration::from_secs(2);

/// A disk that was refused, but may be believed later, is opened anew after so many looks of the watcher, then after twice
/// as long, up to the longest.
const REOPEN_LOOKS: u32 = 2;
const REOPEN_MAX: Duration = Duration::from_secs(300);

/// Registers, then sends heartbeats, until `shutdown`.
pub(crate) async fn keep_registered(
    node: Arc<Node>,
    instance: InstanceId,
    volume_manager: VolumeManagerClient,
    shutdown: CancellationToken,
) {
    let mut registration = Registration {
        node,
        instance,
        volume_manager,
        incarnations: HashMap::new(),
        reopen: HashMap::new(),
        away: false,
    };
    let forever = async {
        loop {
            let period = registration.register().await;
            registration.send_heartbeats(period).await;
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = forever => {}
    }
}

struct Registration {
    node: Arc<Node>,
    instance: InstanceId,
    volume_manager: VolumeManagerClient,
    incarnations: HashMap<DiskId, Incarnation>,
    /// How long to wait before a disk that was refused is opened anew.
    reopen: HashMap<DiskId, Duration>,
    /// The last call to the volume manager failed and was logged.
    away: bool,
}

impl Registration {
    /// Tries until the volume manager takes the registration; answers how often it wants heartbeats.
    async fn register(&mut self) -> Duration {
        let mut wait = RETRY_MIN;
        loop {
            self.propose_incarnations().await;
            let node = &self.node;
            let request = Register {
                cell: node.config.cell,
                node: node.name.clone(),
                instance: self.instance,
                zone: node.config.zone.clone(),
                rack: node.config.rack.clone(),
                address: node.config.address.clone(),
                disks: self.reports(),
                unusable: self.node.disks.unusable_reports(),
                term: self.term(),
            };
            match self.volume_manager.register(&request).await {
                Ok(answer) => {
                    self.node.term.fetch_max(answer.term, Ordering::Relaxed);
                    self.apply(&answer).await;
                    self.away = false;
                    self.node.registered.store(true, Ordering::Relaxed);
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

    /// Ends when the volume manager asks for a new registration, or when disks came or went.
    async fn send_heartbeats(&mut self, period: Duration) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = self.node.disks.changed.notified() => return,
            }
            let heartbeat = Heartbeat {
                node: self.node.name.clone(),
                instance: self.instance,
                disks: self.reports(),
                unusable: self.node.disks.unusable_reports(),
            };
            match self.volume_manager.heartbeat(&heartbeat).await {
                Ok(answer) => {
                    self.node.term.fetch_max(answer.term, Ordering::Relaxed);
                    self.node.registered.store(true, Ordering::Relaxed);
                    if let Some(Background { max_client_impact, copies }) = answer.background {
                        self.node.disks.policy.set(max_client_impact.map(f64::from), copies);
                    }
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
        self.node.registered.store(false, Ordering::Relaxed);
        if !self.away {
            tracing::warn!(%error, "{what}");
            self.away = true;
        }
    }

    async fn propose_incarnations(&mut self) {
        let propose = |disk: Arc<OpenDisk>| async move {
            let proposed = tokio::time::timeout(DISK_DEADLINE, disk.engine().propose_incarnation()).await;
            (disk.id(), proposed)
        };
        let open = self.node.disks.open();
        self.incarnations.retain(|id, _| open.iter().any(|disk| disk.id() == *id));
        for (disk, proposed) in join_all(open.into_iter().map(propose)).await {
            match proposed {
                Ok(Ok(proposal)) => {
                    self.incarnations.insert(disk, proposal);
                }
                // Read-only or failed: it is reported as it is, under its last incarnation.
                Ok(Err(error)) => tracing::debug!(%disk, %error, "no new incarnation"),
                Err(_) => tracing::warn!(%disk, "disk proposes no incarnation: it does not answer"),
            }
        }
    }

    /// Confirms what the volume manager accepted and takes the rest out of writing.
    async fn apply(&mut self, answer: &RegisterAnswer) {
        let mut confirming = Vec::new();
        for result in &answer.disks {
            let Ok(disk) = self.node.disks.get(result.disk) else { continue };
            if !result.accepted {
                self.refused(&disk, result);
                continue;
            }
            self.reopen.remove(&result.disk);
            let Some(proposal) = self.incarnations.get(&result.disk).filter(|proposal| !proposal.confirmed) else {
                continue;
            };
            let proposal = *proposal;
            confirming.push(async move {
                let confirmed = tokio::time::timeout(DISK_DEADLINE, disk.engine().confirm_incarnation(proposal)).await;
                (disk.id(), proposal, confirmed)
            });
        }
        for (disk, proposal, confirmed) in join_all(confirming).await {
            match confirmed {
                Ok(Ok(())) => {
                    self.incarnations.insert(disk, Incarnation { confirmed: true, ..proposal });
                }
                // The same proposal is made again by the next registration, and the catalog knows it then.
                Ok(Err(error)) => tracing::warn!(%disk, %error, "incarnation accepted but not recorded"),
                Err(_) => tracing::warn!(%disk, "incarnation accepted but not recorded: the disk does not answer"),
            }
        }
    }

    fn refused(&mut self, disk: &OpenDisk, result: &RegisteredDisk) {
        disk.engine()
            .set_read_only(result.reason.as_deref().unwrap_or("the volume manager refused this disk's incarnation"));
        if result.retry {
            let least = self.node.config.watch() * REOPEN_LOOKS;
            let wait = self.reopen.get(&result.disk).map_or(least, |last| (*last * 2).clamp(least, REOPEN_MAX));
            self.reopen.insert(result.disk, wait);
            disk.reopen_after(wait);
        }
    }

    /// The highest leader's term that this node or any of its disks was ever told.
    fn term(&self) -> u64 {
        let disks = self.node.disks.open();
        let disks = disks.iter().map(|disk| disk.engine().status().term);
        disks.max().unwrap_or(0).max(self.node.term.load(Ordering::Relaxed))
    }

    fn reports(&self) -> Vec<DiskReport> {
        let open = self.node.disks.open();
        let open = open.iter().map(|disk| {
            let mut report = report(&disk.engine().status(), self.incarnations.get(&disk.id()));
            report.failing = disk.failing();
            report.pace = Some(pace(&disk.pace.report()));
            match disk.stalled() {
                Some(why) if report.state != "failed" => {
                    DiskReport { state: "suspect".to_owned(), reason: Some(why), ..report }
                }
                _ => report,
            }
        });
        let gone = self.node.disks.gone().into_iter().map(|gone| {
            let report = report(&gone.status, None);
            DiskReport { state: "gone".to_owned(), reason: Some(gone.reason), ..report }
        });
        open.chain(gone).collect()
    }
}

fn report(status: &DiskStatus, incarnation: Option<&Incarnation>) -> DiskReport {
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
        damaged_extents: status.slots_by_state.damaged.into(),
        trashed_extents: status.slots_by_state.trashed.into(),
        failing: None,
        pace: None,
    }
}

fn pace(report: &PaceReport) -> DiskPace {
    DiskPace {
        recent_p99_us: report.recent_us,
        usual_p99_us: report.usual_us,
        level_percent: (report.level * 100.0).round() as u32,
        moved_bytes: report.moved_bytes,
    }
}

/// The first half of an incarnation's nonce: the protocol carries 64 bits of it.
fn short_nonce(nonce: [u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = nonce;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
