//! Orders about a disk: drain, offline, online, forget.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{Order, OrderPlan, code};
use holdfast_volume_manager_planner::{COPIES, choose_disks};

use super::forget::{for_good, forget};
use super::{Case, count, drain, is, on_disk, unknown};
use crate::error::answer;
use crate::intents::{DiskIntent, Drain, Offline};
use crate::inventory::{DISTINCT, DiskView, Snapshot};
use crate::liveness::Standing;
use crate::manager::Manager;
use crate::routes::Message;
use crate::{repair, room};

/// A disk that is away for longer is drained, or forgotten.
const LONGEST_OFFLINE_S: u64 = 30 * 24 * 3600;

/// `POST /v1/disks/D/ORDER`
pub(crate) async fn order_disk(
    State(manager): State<Arc<Manager>>,
    Path((id, order)): Path<(String, String)>,
    Message(ask): Message<Order>,
) -> Result<Json<OrderPlan>, ApiError> {
    let disk: DiskId =
        id.parse().map_err(|error: holdfast_libs_types::ids::InvalidId| ApiError::bad_request(error.to_string()))?;
    // One order at a time: two that are safe alone may not be so together.
    let _turn = manager.ordering.lock().await;
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let volumes = manager.catalog.table.volumes().await.map_err(|error| answer(&error))?;
    let Some(view) = snapshot.disk(disk) else { return Err(unknown(code::UNKNOWN_DISK, &format!("disk {disk}"))) };
    let mut case = Case::default();
    let (now_ms, intent) = (manager.now_ms(), snapshot.intents.disk(disk));
    let (what, wanted) = match order.as_str() {
        "drain" => {
            if let Some(why) = unknown_extents(&mut case, &manager, disk) {
                case.refuse(why);
            }
            let disks = HashSet::from([disk]);
            let replicas = on_disk(&volumes, disk).count() as u64;
            let drain = Drain { since_ms: now_ms, replicas, less_spread: ask.less_spread }.again(intent.drain);
            drain::drain(&mut case, &snapshot, &volumes, &disks, &repair::barred(&manager).0, drain.less_spread);
            drain::say_accepted(&mut case, &snapshot, &disks, &ask);
            ("draining", DiskIntent { drain: Some(drain), ..intent })
        }
        "offline" => {
            offline(&mut case, &snapshot, &volumes, view, &ask)?;
            let until_ms = ask.for_s.map(|seconds| now_ms + seconds * 1000);
            // One that is offline for good already stays so.
            let stands = intent.offline.filter(|offline| offline.until_ms.is_none() && until_ms.is_none());
            let offline = stands.unwrap_or(Offline { since_ms: now_ms, until_ms });
            ("taking offline", DiskIntent { offline: Some(offline), ..intent })
        }
        "online" => {
            online(&mut case, &volumes, view, intent);
            ("bringing online", DiskIntent::default())
        }
        "forget" => {
            if let Some(why) = unknown_extents(&mut case, &manager, disk) {
                case.warn(why);
            }
            forget(&mut case, &volumes, &[view]);
            ("forgetting", DiskIntent::default())
        }
        _ => return Err(ApiError::bad_request(format!("{order:?} is none of drain, offline, online, forget"))),
    };
    case.plan.nothing_to_do = order != "forget" && wanted == intent;
    let mut plan = case.judge(&format!("{what} disk {disk}"))?;
    if ask.apply {
        if order == "forget" {
            for_good(&manager, view, &volumes).await?;
        } else {
            manager.set_disk_intent(disk, wanted).await.map_err(|error| answer(&error))?;
        }
        tracing::info!(%disk, order, "an operator's order");
        plan.applied = true;
    }
    Ok(Json(plan))
}

/// What a disk holds that the catalog does not know of: it only looks empty once the rest has moved.
pub(super) fn unknown_extents(case: &mut Case, manager: &Manager, disk: DiskId) -> Option<String> {
    let unknown = manager.progress().strangers.get(&disk).copied()?;
    case.number("unknown_extents", unknown);
    let extents = count(unknown, "extent");
    Some(format!(
        "the catalog does not know the volumes of {extents} on disk {disk}; `holdfast admin catalog rebuild` takes them in"
    ))
}

/// What is left of each volume while the disk is away.
fn offline(
    case: &mut Case,
    snapshot: &Snapshot,
    volumes: &[Volume],
    view: &DiskView,
    ask: &Order,
) -> Result<(), ApiError> {
    if ask.for_s.is_some_and(|seconds| seconds == 0 || seconds > LONGEST_OFFLINE_S) {
        return Err(ApiError::bad_request(format!("a disk is offline for 1 to {LONGEST_OFFLINE_S} seconds")));
    }
    let disk = view.disk.info.disk;
    let readable = |other: &DiskId| {
        let other = snapshot.disk(*other).filter(|view| view.offline.is_none());
        other.is_some_and(|view| matches!(view.standing, Standing::Healthy | Standing::ReadOnly(_)))
    };
    let (mut none, mut one, mut open) = (0, 0, 0);
    for volume in on_disk(volumes, disk) {
        let others = volume.replicas.iter().filter(|other| **other != disk && readable(other)).count();
        none += u64::from(others == 0);
        one += u64::from(others == 1);
        open += u64::from(volume.state != VolumeState::Sealed);
    }
    let replicas = on_disk(volumes, disk).count() as u64;
    case.number("replicas", replicas);
    case.number("volumes_without_readable_replica", none);
    case.number("volumes_with_one_readable_replica", one);
    case.number("open_volumes", open);
    if none > 0 {
        case.refuse(format!(
            "{} of the {replicas} with a replica there would have no readable replica left",
            count(none, "volume")
        ));
    }
    if one > 0 {
        case.warn(format!("{} would have one readable replica left", count(one, "volume")));
    }
    if open > 0 {
        let volumes = count(open, "open volume");
        case.say(format!("{volumes} there {} sealed first; pull the disk once none names it", is(open)));
    }
    let mut without = snapshot.planner();
    without.disks.retain(|other| other.disk != disk);
    if let Err(error) = choose_disks(&without, VolumeId::default(), &[], COPIES, DISTINCT) {
        let why = room::explained(snapshot, &error);
        case.warn(format!("no new volume can be made meanwhile, so writes stop: {why}"));
    }
    let how_long = match ask.for_s {
        Some(seconds) => format!("for {seconds} s"),
        None => "until it is brought online".to_owned(),
    };
    case.say(format!(
        "nothing new goes to disk {disk} {how_long}, and its {} are not repaired meanwhile",
        count(replicas, "replica")
    ));
    Ok(())
}

fn online(case: &mut Case, volumes: &[Volume], view: &DiskView, intent: DiskIntent) {
    let disk = view.disk.info.disk;
    if let Some(drain) = intent.drain {
        let left = on_disk(volumes, disk).count() as u64;
        case.number("replicas_left", left);
        case.say(format!(
            "the drain ends with {left} of {} replicas still there; what has moved stays where it is",
            drain.replicas
        ));
    }
    match (intent.offline, &view.standing) {
        (Some(_), Standing::Healthy) => case.say("the disk takes new extents again"),
        (Some(_), standing) => case.say(format!(
            "the disk counts as what it is, {}: once it is lost its volumes are repaired",
            standing.name()
        )),
        (None, _) if intent.drain.is_none() => case.say("it is neither offline nor drained: nothing changes"),
        (None, _) => {}
    }
    if view.leaving && intent.drain.is_none() {
        case.warn(format!("its node {} is being drained: `node uncordon` ends that", view.disk.info.node));
    }
}
