//! Hands the wrapped keyring to every node, for the key areas of its disks.
//!
//! A frontend's data key is in the catalog before the frontend asks for a volume to write with it. The nodes of that volume have the
//! keyring before the lease is answered: so no block is acknowledged whose key only the catalog has.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::{ApiError, CallError};
use holdfast_libs_types::{DiskId, NodeId};
use holdfast_node_client::{KeyArea, KeyringBody, KeyringMissing, KeyringStored, code};
use holdfast_volume_manager_catalog::{CatalogError, WrappedKeys};
use holdfast_volume_manager_client::Replica;
use http::StatusCode;
use tokio::time::Instant;

use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::manager::{Manager, within};
use crate::operate::{count, is};
use crate::room;

const LIMIT: Duration = Duration::from_secs(10);

/// From here on the operator is told how full a key area is.
const NEARLY_FULL_PERCENT: u64 = 80;

/// A disk that did not take it is asked again after so many heartbeats.
const AGAIN_HEARTBEATS: u64 = 10;

/// What a node was given. Another registration may be about other disks, and asks for it again.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    registered: Instant,
    generation: u64,
    at: Instant,
    /// Which disks took it.
    taken: KeyringStored,
}

/// Starts to give the keyring to each node that is up and does not have this generation of it on all its disks.
pub(crate) async fn start(manager: &Arc<Manager>, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let up = snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up);
    let lacking = |generation| up.clone().filter(move |view| is_due(manager, &view.node.node, generation));
    if lacking(manager.catalog.index.keyring_generation().await?).next().is_none() {
        return Ok(());
    }
    let (generation, keys) = manager.catalog.index.keys().await?;
    for view in lacking(generation) {
        let name = view.node.node.clone();
        let Some(registered) = registered(manager, &name) else { continue };
        if !manager.progress().pushing.insert(name.clone()) {
            continue;
        }
        let body = body(generation, &keys);
        let (address, manager) = (view.node.address.clone(), Arc::clone(manager));
        manager.tasks.clone().spawn(async move {
            let taken = within(LIMIT, &address, manager.node(&address).put_keyring(&body)).await;
            manager.progress().pushing.remove(&name);
            match taken {
                Ok(taken) => note(&manager, &name, Given { registered, generation, at: Instant::now(), taken }),
                Err(error) => tracing::debug!(node = %name, %error, "keyring not taken yet"),
            }
        });
    }
    Ok(())
}

/// Sees to it that the disks of these replicas have the keyring as it is now. Answers those that did not take it.
pub(crate) async fn ensure(manager: &Manager, replicas: &[Replica]) -> Result<Vec<(DiskId, CallError)>, CatalogError> {
    let generation = manager.catalog.index.keyring_generation().await?;
    if replicas.iter().all(|replica| has(manager, replica, generation)) {
        return Ok(Vec::new());
    }
    let (generation, keys) = manager.catalog.index.keys().await?;
    let body = body(generation, &keys);
    let pushes = replicas.iter().map(|replica| async {
        if has(manager, replica, generation) {
            return Ok(());
        }
        let registered = registered(manager, &replica.node);
        let taken = within(LIMIT, &replica.address, manager.node(&replica.address).put_keyring(&body)).await;
        let taken = taken.map_err(|error| (replica.disk, error))?;
        let failure = match taken.missing.iter().find(|missing| missing.disk == replica.disk) {
            Some(missing) => Some((missing.code.clone(), missing.reason.clone())),
            None if taken.stored.contains(&replica.disk) => None,
            None => Some((code::UNKNOWN_DISK.to_owned(), "its node does not have it in use".to_owned())),
        };
        if let Some(registered) = registered {
            note(manager, &replica.node, Given { registered, generation, at: Instant::now(), taken });
        }
        failure.map_or(Ok(()), |(code, reason)| {
            let message = format!("it does not take the keyring: {reason}");
            Err((replica.disk, CallError::Api(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, &code, message))))
        })
    });
    Ok(join_all(pushes).await.into_iter().filter_map(Result::err).collect())
}

/// Why a disk does not have the keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keyless {
    /// Its key area is full. So will be that of every other disk.
    Full,
    /// What its node says.
    Refused(String),
}

/// The disks that did not take the keyring when it was last given to them, and why.
pub(crate) fn lacking(manager: &Manager) -> HashMap<DiskId, Keyless> {
    let progress = manager.progress();
    let missing = progress.keyrings.values().flat_map(|given| &given.taken.missing);
    let why = |missing: &KeyringMissing| match missing.code.as_str() {
        code::KEY_AREA_FULL => Keyless::Full,
        _ => Keyless::Refused(missing.reason.clone()),
    };
    missing.map(|missing| (missing.disk, why(missing))).collect()
}

/// Which key areas are full, or how full the fullest is once that is much.
pub(crate) fn full(manager: &Manager, snapshot: &Snapshot) -> Option<String> {
    let progress = manager.progress();
    let areas = progress.keyrings.values().flat_map(|given| &given.taken.key_areas);
    let fullest = areas.max_by_key(|area| percent_of(area))?;
    let full = snapshot.disks.iter().filter(|view| view.is_well() && view.keyless == Some(Keyless::Full));
    let full: BTreeSet<String> = full.map(|view| view.disk.info.disk.to_string()).collect();
    if full.is_empty() { nearly_full(fullest) } else { Some(of_full(fullest, full)) }
}

fn of_full(fullest: &KeyArea, disks: BTreeSet<String>) -> String {
    let areas = if disks.len() == 1 {
        "the key area of 1 disk is".to_owned()
    } else {
        format!("the key areas of {} disks are", disks.len())
    };
    format!(
        "{areas} full ({}): {} {} to be there and about {} fit. No volume is leased on such a disk, and writes stop once too few \
         others are left; what is stored is read on. Every disk gets all keys and none ever leaves, so neither a drain nor a new disk \
         makes room: stop what starts frontends over and over, and see docs/catalog.md",
        room::named(disks),
        count(fullest.keys, "key"),
        is(fullest.keys),
        fit(fullest)
    )
}

fn percent_of(area: &KeyArea) -> u64 {
    area.used_bytes.saturating_mul(100) / area.most_bytes.max(1)
}

/// How many keys it holds; all are as long.
fn fit(area: &KeyArea) -> u64 {
    area.most_bytes.saturating_mul(area.keys) / area.used_bytes.max(1)
}

fn nearly_full(area: &KeyArea) -> Option<String> {
    let (percent, fit) = (percent_of(area), fit(area));
    (percent >= NEARLY_FULL_PERCENT).then(|| {
        format!(
            "the key area of disk {} is {percent} % full: it has {} of about {fit} keys. Each start of a frontend adds one to every \
             disk and none ever leaves, also where a disk is drained or replaced; once it is full no volume is leased, so writes stop. \
             Start frontends only when they must",
            area.disk, area.keys
        )
    })
}

/// Remembers what a node was given.
fn note(manager: &Manager, node: &NodeId, given: Given) {
    let mut progress = manager.progress();
    let known = |disk: DiskId| {
        let before = progress.keyrings.get(node).map(|before| &before.taken.missing);
        before.is_some_and(|before| before.iter().any(|missing| missing.disk == disk))
    };
    for missing in given.taken.missing.iter().filter(|missing| !known(missing.disk)) {
        tracing::warn!(%node, disk = %missing.disk, reason = missing.reason, "this disk does not take the keyring");
    }
    progress.keyrings.insert(node.clone(), given);
}

fn registered(manager: &Manager, node: &NodeId) -> Option<Instant> {
    Some(manager.liveness().node(node)?.registered)
}

/// What a node was given of this generation with the disks that it has now.
fn given(manager: &Manager, node: &NodeId, generation: u64) -> Option<Given> {
    let known = manager.progress().keyrings.get(node).cloned()?;
    (known.generation == generation && registered(manager, node) == Some(known.registered)).then_some(known)
}

/// Whether a replica's disk has this generation. Nobody lacks a keyring without keys.
fn has(manager: &Manager, replica: &Replica, generation: u64) -> bool {
    let has_disk = |given: Given| given.taken.stored.contains(&replica.disk);
    generation == 0 || given(manager, &replica.node, generation).is_some_and(has_disk)
}

/// Whether a node is to be given this generation: it was not, or some time ago a disk did not take it.
fn is_due(manager: &Manager, node: &NodeId, generation: u64) -> bool {
    let again = Duration::from_millis(manager.config.timing.heartbeat_ms * AGAIN_HEARTBEATS);
    let has_all = |given: Given| given.taken.missing.is_empty() || given.at.elapsed() < again;
    generation != 0 && !given(manager, node, generation).is_some_and(has_all)
}

fn body(generation: u64, keys: &WrappedKeys) -> KeyringBody {
    KeyringBody { generation, keys: keys.iter().map(|(id, wrapped)| (id.to_string(), hex::encode(wrapped))).collect() }
}
