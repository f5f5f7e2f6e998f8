//! `GET /v1/repair`: what is to be repaired, how fast, and what waits for what.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{VolumeId, told};
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{RepairCopy, RepairDisk, RepairRisk, RepairStatus, RepairWait};
use holdfast_volume_manager_planner::COPIES;

use crate::error::answer;
use crate::inventory::{DiskView, Snapshot};
use crate::liveness::{Away, in_words};
use crate::manager::{Manager, Progress};
use crate::reasons::not_whole;

/// Most reasons that are told.
const MAX_WAITS: usize = 50;

pub(crate) async fn get(State(manager): State<Arc<Manager>>) -> Result<Json<RepairStatus>, ApiError> {
    of(&manager).await.map(Json)
}

/// As it is now.
pub(crate) async fn of(manager: &Manager) -> Result<RepairStatus, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let sealed = manager.catalog.table.volumes_in(&[VolumeState::Sealed]).await.map_err(|error| answer(&error))?;
    let (paused, catalog_lost) = (manager.wishes.pause(manager.now_ms()), not_whole(manager));
    let progress = manager.progress();
    let blocked: HashMap<VolumeId, &String> = progress.blocked.iter().map(|(volume, why)| (*volume, why)).collect();
    let mut found = Found::default();
    for volume in sealed.iter().filter(|volume| volume.length.is_some_and(|length| length > 0)) {
        found.look(&snapshot, &progress, &blocked, volume, paused.is_some());
    }
    let bytes_left = found.risks.values().map(|risk| risk.bytes).sum();
    let bytes_per_s = manager.repair_rate.recent_bytes_s().map(|rate| rate as u64);
    // What stands has no end that a rate tells.
    let goes_on = paused.is_none() && !progress.copying.is_empty();
    let eta_s = bytes_per_s.filter(|rate| *rate > 0 && goes_on).map(|rate| found.moving_bytes.div_ceil(rate));
    let under_way = progress.copying.iter().map(|(volume, copy)| RepairCopy {
        volume: *volume,
        from: copy.source,
        to: copy.target,
        bytes: copy.bytes,
        urgent: copy.urgent,
        for_s: copy.since.elapsed().as_secs(),
    });
    let waiting = found.waits.into_iter().map(|(why, (volumes, bytes))| RepairWait { why, volumes, bytes });
    Ok(RepairStatus {
        warnings: warnings(&found.risks, paused.is_some()),
        catalog_lost,
        paused,
        max_client_impact: manager.max_client_impact(),
        bytes_left,
        bytes_per_s,
        eta_s,
        under_way: under_way.collect(),
        waiting: waiting.take(MAX_WAITS).collect(),
        disks: disks(manager, &snapshot),
        to_repair: found.risks,
    })
}

/// What the volumes need.
#[derive(Default)]
struct Found {
    /// By how many more disks they can lose, or `unreadable`.
    risks: BTreeMap<String, RepairRisk>,
    /// Of the bytes to copy those of volumes that can be copied now.
    moving_bytes: u64,
    waits: BTreeMap<String, (u64, u64)>,
}

impl Found {
    fn look(
        &mut self,
        snapshot: &Snapshot,
        progress: &Progress,
        blocked: &HashMap<VolumeId, &String>,
        volume: &Volume,
        paused: bool,
    ) {
        let (live, kept) = (snapshot.live(volume).len(), snapshot.kept(volume).len());
        let back_soon = progress.left_out.get(&volume.volume).map_or(0, Vec::len);
        let bytes = volume.length.unwrap_or(0);
        if live >= COPIES && kept >= COPIES {
            return;
        }
        if kept + back_soon >= COPIES {
            self.wait(awaited(snapshot, volume), bytes);
            return;
        }
        let risk = if live == 0 { "unreadable".to_owned() } else { (live.min(COPIES) - 1).to_string() };
        let entry = self.risks.entry(risk).or_default();
        let lacking = bytes * (COPIES.saturating_sub(kept + back_soon) as u64);
        entry.volumes += 1;
        entry.bytes += lacking;
        let blocked = blocked.get(&volume.volume);
        if blocked.is_none() {
            self.moving_bytes += lacking;
        }
        if progress.copying.contains_key(&volume.volume) {
            return;
        }
        let why = match blocked {
            Some(why) => (*why).clone(),
            None if paused => "repair is paused".to_owned(),
            None if progress.copying.is_empty() => "the next look for what can be copied".to_owned(),
            None => "its turn: the disks that can give or take it have as many copies as they may".to_owned(),
        };
        self.wait(why, bytes);
    }

    fn wait(&mut self, why: String, bytes: u64) {
        let (volumes, all) = self.waits.entry(why).or_default();
        *volumes += 1;
        *all += bytes;
    }
}

/// The disks of a volume that are waited for, and until when. Volumes that wait for the same are one line.
fn awaited(snapshot: &Snapshot, volume: &Volume) -> String {
    let views = volume.replicas.iter().filter_map(|disk| snapshot.disk(*disk));
    let away: Vec<(&DiskView, &Away)> = views.filter_map(|view| Some((view, view.standing.away()?))).collect();
    let one = |(view, away): &(&DiskView, &Away)| {
        let (disk, node) = (view.disk.info.disk, &view.disk.info.node);
        match (view.offline, away.lost_in) {
            (Some(_), _) => format!("disk {disk} of node {node}, which is offline by an operator's order"),
            (None, Some(left)) => {
                format!("disk {disk} of node {node}, which may come back: repair starts in {}", in_words(left))
            }
            (None, None) => format!("disk {disk} of node {node}, which may come back"),
        }
    };
    match away.is_empty() {
        // It was away when the volume was sealed, and is not on its list.
        true => "a disk that may come back".to_owned(),
        false => away.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

/// What stays at risk.
fn warnings(risks: &BTreeMap<String, RepairRisk>, paused: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut say = |risk: &str, what: &str| {
        if let Some(RepairRisk { volumes, bytes }) = risks.get(risk) {
            let (volumes, bytes) = (told::count(*volumes, "volume"), told::bytes(*bytes));
            warnings.push(format!("{volumes} {what} ({bytes} to copy)"));
        }
    };
    say("unreadable", "cannot be read now");
    if paused {
        say("0", "with one replica left: while repair is paused, the loss of one more disk loses data");
        say("1", "with two replicas left: while repair is paused, the loss of two more disks loses data");
    }
    warnings
}

/// Those on which clients are felt, or copies go on.
fn disks(manager: &Manager, snapshot: &Snapshot) -> Vec<RepairDisk> {
    let liveness = manager.liveness();
    let row = |view: &DiskView| {
        let pace = liveness.report(view.disk.info.disk)?.pace?;
        Some(RepairDisk { disk: view.disk.info.disk, node: view.disk.info.node.clone(), pace })
    };
    snapshot.disks.iter().filter_map(row).collect()
}
