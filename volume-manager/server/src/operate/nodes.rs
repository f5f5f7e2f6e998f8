//! Orders about a node: drain, cordon, uncordon, forget.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{Order, OrderPlan, code};
use holdfast_volume_manager_planner::{COPIES, choose_disks};

use super::disks::unknown_extents;
use super::forget::{for_good, forget};
use super::{Case, count, drain, on_disk, unknown};
use crate::error::answer;
use crate::intents::{Drain, NodeIntent};
use crate::inventory::{DISTINCT, NodeView, Snapshot};
use crate::liveness::{NodeStanding, in_words};
use crate::manager::Manager;
use crate::routes::Message;
use crate::{repair, room};

/// `POST /v1/nodes/N/ORDER`
pub(crate) async fn order_node(
    State(manager): State<Arc<Manager>>,
    Path((name, order)): Path<(String, String)>,
    Message(ask): Message<Order>,
) -> Result<Json<OrderPlan>, ApiError> {
    let node = NodeId(name);
    let _turn = manager.ordering.lock().await;
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let volumes = manager.catalog.table.volumes().await.map_err(|error| answer(&error))?;
    let Some(view) = snapshot.nodes.iter().find(|view| view.node.node == node) else {
        return Err(unknown(code::UNKNOWN_NODE, &format!("node {node}")));
    };
    let disks: HashSet<DiskId> = disks_of(&snapshot, &node);
    let held: u64 = disks.iter().map(|disk| on_disk(&volumes, *disk).count() as u64).sum();
    let (now_ms, intent) = (manager.now_ms(), view.intent);
    let mut case = Case::default();
    case.number("disks", disks.len() as u64);
    let (what, wanted) = match order.as_str() {
        "drain" => {
            for disk in &disks {
                if let Some(why) = unknown_extents(&mut case, &manager, *disk) {
                    case.refuse(why);
                }
            }
            let drain = Drain { since_ms: now_ms, replicas: held, less_spread: ask.less_spread }.again(intent.drain);
            drain::drain(&mut case, &snapshot, &volumes, &disks, &repair::barred(&manager).0, drain.less_spread);
            drain::say_accepted(&mut case, &snapshot, &disks, &ask);
            ("draining", NodeIntent { drain: Some(drain), ..intent })
        }
        "cordon" => {
            cordon(&mut case, &snapshot, &node, held);
            ("cordoning", NodeIntent { cordoned_ms: intent.cordoned_ms.or(Some(now_ms)), ..intent })
        }
        "uncordon" => {
            uncordon(&mut case, intent, held);
            ("uncordoning", NodeIntent::default())
        }
        "forget" => {
            let its = snapshot.disks.iter().filter(|view| disks.contains(&view.disk.info.disk));
            forget(&mut case, &volumes, &its.collect::<Vec<_>>());
            forgettable(&mut case, view, manager.config.timing.down());
            ("forgetting", NodeIntent::default())
        }
        _ => return Err(ApiError::bad_request(format!("{order:?} is none of drain, cordon, uncordon, forget"))),
    };
    case.plan.nothing_to_do = order != "forget" && wanted == intent;
    let mut plan = case.judge(&format!("{what} node {node}"))?;
    if ask.apply {
        if order == "forget" {
            forget_all(&manager, &node, &snapshot, &volumes).await?;
        } else {
            manager.set_node_intent(&node, wanted).await.map_err(|error| answer(&error))?;
        }
        tracing::info!(%node, order, "an operator's order");
        plan.applied = true;
    }
    Ok(Json(plan))
}

fn disks_of(snapshot: &Snapshot, node: &NodeId) -> HashSet<DiskId> {
    let its = snapshot.disks.iter().filter(|view| view.disk.info.node == *node);
    its.map(|view| view.disk.info.disk).collect()
}

async fn forget_all(
    manager: &Arc<Manager>,
    node: &NodeId,
    snapshot: &Snapshot,
    volumes: &[Volume],
) -> Result<(), ApiError> {
    manager.set_node_intent(node, NodeIntent::default()).await.map_err(|error| answer(&error))?;
    for view in snapshot.disks.iter().filter(|view| view.disk.info.node == *node) {
        for_good(manager, view, volumes).await?;
    }
    let (table, term, name) = (Arc::clone(&manager.catalog.table), manager.term, node.clone());
    let forgotten = manager.to_the_end(async move { table.forget_node(term, &name).await }).await;
    forgotten.map_err(|error| answer(&error))?;
    manager.liveness().forget_node(node);
    Ok(())
}

fn cordon(case: &mut Case, snapshot: &Snapshot, node: &NodeId, held: u64) {
    let mut without = snapshot.planner();
    without.disks.retain(|disk| disk.node != *node);
    if let Err(error) = choose_disks(&without, VolumeId::default(), &[], COPIES, DISTINCT) {
        let why = room::explained(snapshot, &error);
        case.warn(format!("no new volume can be made without it, so writes stop: {why}"));
    }
    case.number("replicas", held);
    case.say(format!("nothing new goes to node {node}; its {} stay and are read", count(held, "replica")));
}

fn uncordon(case: &mut Case, intent: NodeIntent, held: u64) {
    case.number("replicas", held);
    match (intent.cordoned_ms, intent.drain) {
        (None, None) => case.say("it is neither cordoned nor drained: nothing changes"),
        (_, Some(drain)) => case.say(format!(
            "the drain ends with {held} of {} replicas still there; what has moved stays where it is",
            drain.replicas
        )),
        (Some(_), None) => case.say("the node takes new extents again"),
    }
}

/// Whether a node can go off the inventory; after `down` of silence it counts as down.
fn forgettable(case: &mut Case, view: &NodeView, down: Duration) {
    match view.standing {
        NodeStanding::Up => {
            case.refuse(format!("node {} is up, and would register again: stop it first", view.node.node));
        }
        NodeStanding::Suspect if view.intent.drain.is_none() => {
            let heard = match view.heard {
                true => format!("was heard {} s ago", view.silence_ms / 1000),
                false => "was not heard of yet since this volume manager began to lead".to_owned(),
            };
            let left = in_words(down.saturating_sub(Duration::from_millis(view.silence_ms)));
            case.refuse(format!(
                "node {} {heard}, may come back at any moment, and was not drained; it counts as down in {left} if it stays \
                 silent: try again then",
                view.node.node
            ));
        }
        NodeStanding::Suspect | NodeStanding::Down => {}
    }
    case.say(format!("node {} goes off the inventory", view.node.node));
    case.say(
        "if it is started again it joins as a new one, with its disks, and no drain, cordon or offline from before holds; to keep it \
         out, see to it that it is not started",
    );
}
