//! Rebalances: the plan, the order, and how far the one under way is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, NodeId, told};
use holdfast_volume_manager_catalog::CatalogError;
use holdfast_volume_manager_client::{DiskShare, MoveGroup, OrderPlan, RebalanceAnswer, RebalanceRow};
use holdfast_volume_manager_planner::{DiskFill, MoveReason};

use super::{Case, count};
use crate::drains;
use crate::error::answer;
use crate::intents::Rebalance;
use crate::inventory::Snapshot;
use crate::manager::Manager;
use crate::moves::{self, Plan, Step, Volumes};
use crate::{repair, room};

/// `GET /v1/rebalance`
pub(crate) async fn rebalance(State(manager): State<Arc<Manager>>) -> Result<Json<RebalanceAnswer>, ApiError> {
    let snapshot = Arc::new(manager.snapshot().await.map_err(|error| answer(&error))?);
    look(&manager, &snapshot).await.map(|(answer, _)| Json(answer)).map_err(|error| answer(&error))
}

/// `POST /v1/rebalance/ORDER`
pub(crate) async fn order_rebalance(
    State(manager): State<Arc<Manager>>,
    Path(order): Path<String>,
) -> Result<Json<RebalanceAnswer>, ApiError> {
    let _turn = manager.ordering.lock().await;
    let snapshot = Arc::new(manager.snapshot().await.map_err(|error| answer(&error))?);
    let (planned, fills) = look(&manager, &snapshot).await.map_err(|error| answer(&error))?;
    let wanted = match order.as_str() {
        "apply" => {
            let since_ms = manager.now_ms();
            let (moves, bytes) = (fills.len() as u64, fills.iter().map(|step| step.bytes).sum());
            // One that is under way ends by itself, also when all that it has left waits now.
            snapshot.intents.rebalance.or((moves > 0).then_some(Rebalance { since_ms, moves, bytes }))
        }
        "cancel" => None,
        _ => return Err(ApiError::bad_request(format!("{order:?} is none of apply, cancel"))),
    };
    manager.set_rebalance(wanted).await.map_err(|error| answer(&error))?;
    tracing::info!(order, moves = fills.len(), "an operator's order about the rebalance");
    let mut answered = planned;
    answered.plan.applied = true;
    if order == "cancel" {
        answered.plan =
            OrderPlan { applied: true, plan: vec![ended(answered.under_way.as_ref())], ..OrderPlan::default() };
    }
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    answered.under_way = drains::rebalance_row(&manager, &snapshot);
    Ok(Json(answered))
}

/// What a cancellation ends.
fn ended(row: Option<&RebalanceRow>) -> String {
    let Some(row) = row else { return "no rebalance was under way: nothing changes".to_owned() };
    let moving = match row.moving {
        0 => String::new(),
        moving => format!("; {} being copied, and arrive all the same", are(moving, "replica")),
    };
    format!("the rebalance of {} has ended with {} of them left{moving}", count(row.moves, "move"), row.left)
}

/// The plan as of now, and its moves for the shares.
async fn look(manager: &Manager, snapshot: &Arc<Snapshot>) -> Result<(RebalanceAnswer, Vec<Step>), CatalogError> {
    let volumes = Volumes::read(manager).await?;
    let (barred, _) = repair::barred(manager);
    let plan = moves::plan_aside(snapshot.for_moves(), snapshot, volumes, barred, true).await;
    let mut case = Case::default();
    // What leaves a drained disk and has no place yet is in no plan.
    let of = |reason| plan.steps.iter().filter(move |step| step.reason == reason && step.to.is_some());
    for (reason, why) in [
        (MoveReason::Fill, "to bring every disk to its share"),
        (MoveReason::Spread, "because their volumes stand closer together than they must (that goes on by itself)"),
        (MoveReason::Drain, "off disks that are drained (that goes on by itself)"),
    ] {
        let (moves, bytes) = (of(reason).count() as u64, of(reason).map(|step| step.bytes).sum::<u64>());
        case.number(&format!("{}_moves", moves::reason(reason)), moves);
        case.number(&format!("{}_bytes", moves::reason(reason)), bytes);
        if moves > 0 {
            case.say(format!("{} ({}) move {why}", count(moves, "replica"), told::bytes(bytes)));
        }
    }
    let waiting = plan.steps.iter().filter(|step| step.to.is_none()).count() as u64;
    case.number("drain_waiting", waiting);
    if waiting > 0 {
        case.warn(format!(
            "{} on disks that are drained {} no place in this plan; `holdfast admin status` says what the drains wait for",
            count(waiting, "replica"),
            if waiting == 1 { "has" } else { "have" }
        ));
    }
    case.number("held_back", plan.held_back);
    case.number("unsealed", plan.unsealed);
    case.number("left_over", plan.left_over);
    if of(MoveReason::Fill).next().is_none() {
        let is_left = |fill: &DiskFill| fill.has > 0 && snapshot.disk(fill.disk).is_some_and(|view| view.leaving);
        case.say(match plan.left_over {
            0 if plan.disks.iter().any(is_left) => {
                "no disk but those that are drained holds more than its share and the band of 3 %: a rebalance has nothing to move"
            }
            0 => "no disk is further from its share than the band of 3 %: a rebalance has nothing to move",
            _ => "what would bring disks to their shares cannot move now: a rebalance has nothing to move",
        });
    }
    if plan.held_back > 0 {
        case.warn(format!("{} not whole and in service, and move later", are(plan.held_back, "volume")));
    }
    if plan.left_over > 0 {
        case.warn(format!("{} should move and find no place now", count(plan.left_over, "replica")));
    }
    if plan.left_over > 0 && plan.unsealed > 0 {
        case.warn(format!("{} not sealed yet, and count where they are until then", are(plan.unsealed, "volume")));
    }
    let fills: Vec<Step> = of(MoveReason::Fill).copied().collect();
    case.plan.nothing_to_do = fills.is_empty();
    let disks: Vec<DiskShare> = plan.disks.iter().filter_map(|fill| share(snapshot, fill)).collect();
    left_out(&mut case, snapshot, &disks);
    case.plan.moves = groups(snapshot, &plan);
    let under_way = drains::rebalance_row(manager, snapshot);
    Ok((RebalanceAnswer { under_way, plan: case.plan, disks }, fills))
}

/// A disk's line of the plan. One that is drained takes part: what it holds goes elsewhere.
fn share(snapshot: &Snapshot, fill: &DiskFill) -> Option<DiskShare> {
    let view = snapshot.disk(fill.disk)?;
    let left_out = view.out_of_use().filter(|_| !view.leaving).map(str::to_owned);
    let node = view.disk.info.node.clone();
    Some(DiskShare { disk: fill.disk, node, has: fill.has, after: fill.after, share: fill.share, left_out })
}

/// Says which disks take no part.
fn left_out(case: &mut Case, snapshot: &Snapshot, disks: &[DiskShare]) {
    let rows: Vec<&DiskShare> = disks.iter().filter(|row| row.left_out.is_some()).collect();
    case.number("disks_left_out", rows.len() as u64);
    if rows.is_empty() {
        return;
    }
    let held = count(rows.iter().map(|row| row.has).sum(), "replica");
    let why = room::out_of_use(rows.iter().filter_map(|row| snapshot.disk(row.disk)));
    case.warn(format!("{} left out, and the {held} there stay: {}", are(rows.len() as u64, "disk"), why.join(", ")));
}

fn are(number: u64, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "is" } else { "are" })
}

fn groups(snapshot: &Snapshot, plan: &Plan) -> Vec<MoveGroup> {
    let mut groups: BTreeMap<(DiskId, NodeId, &'static str), (String, u64, u64)> = BTreeMap::new();
    for step in &plan.steps {
        let Some(to) = step.to.and_then(|to| snapshot.disk(to)) else { continue };
        let key = (step.from, to.disk.info.node.clone(), moves::reason(step.reason));
        let group = groups.entry(key).or_insert((to.zone.clone(), 0, 0));
        group.1 += 1;
        group.2 += step.bytes;
    }
    let group = |((from, to, reason), (zone, replicas, bytes)): (_, (String, u64, u64))| {
        let reason: &str = reason;
        MoveGroup { from, to, zone, reason: reason.to_owned(), replicas, bytes }
    };
    groups.into_iter().map(group).collect()
}
