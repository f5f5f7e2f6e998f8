//! Makes a catalog whole from the disks that was lost, or restored from an older copy.
//!
//! While the catalog is marked so, this volume manager takes registrations, answers for its state, and rebuilds when it is told
//! to. It leases nothing, seals and repairs nothing by itself, and orders no removal: what it does not know may be
//! the only trace of what was acknowledged. `docs/catalog.md`, "Rebuild", has the invariants:
//!
//! 1. A volume is taken in only with its length, digest and holders as the disks have them, after all of its index rows.
//! 2. Nothing is removed from a disk.
//! 3. The mark goes last, and only when every disk that is there was read to its end. A rebuild that stops anywhere, for whatever
//!    reason, is begun again from the beginning; what it did stands and costs no second time.
//! 4. Data keys come first: without its key a block that is found is not readable.
//! 5. Memory: a line for each extent in the cell, and the records of a few volumes at a time.

mod progress;
mod records;
mod volume;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::stream::{StreamExt as _, iter};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{NodeId, VolumeId};
use holdfast_node_client::{ExtentInfo, ExtentState, code};
use holdfast_volume_manager_catalog::{CatalogError, Term, Volume, VolumeState};
use holdfast_volume_manager_client::{NotReached, RebuildStatus};
use holdfast_volume_manager_planner::{Found, FoundExtent};

use crate::error::{ServerError, answer};
use crate::inventory::{DiskView, Snapshot};
use crate::liveness::{NodeStanding, Standing};
use crate::manager::{Manager, within};

pub(crate) use progress::Rebuild;
use volume::Ended;

/// What runs at once: lists of extents, and volumes.
const PARALLEL: usize = 8;

const LIST_LIMIT: Duration = Duration::from_secs(60);

/// Nodes that were there when the rebuild was asked for must be there again within this.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

const LOOK: Duration = Duration::from_millis(100);

/// The new term lies so far above the highest that any disk knows: one that is away may have heard of some more.
const TERM_MARGIN: u64 = 1 << 20;

/// Why a rebuild stopped before its end.
#[derive(Debug)]
enum Stopped {
    /// For a reason that may pass.
    Because(String),
    /// It goes on under another term.
    Anew,
}

impl From<CatalogError> for Stopped {
    fn from(error: CatalogError) -> Self {
        Self::Because(error.to_string())
    }
}

/// The call that begins a rebuild.
pub(crate) async fn begin(State(manager): State<Arc<Manager>>) -> Result<Json<RebuildStatus>, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let up = snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up);
    let asked = manager.rebuild.ask(up.map(|view| view.node.node.clone()).collect());
    if asked && manager.lost.is_none() {
        let why = "an operator asked for a rebuild";
        manager.catalog.table.mark_lost(manager.term, why).await.map_err(|error| answer(&error))?;
        manager.begin_anew();
    }
    Ok(Json(status_of(&manager)))
}

/// The call that tells how far it is.
pub(crate) async fn status(State(manager): State<Arc<Manager>>) -> Json<RebuildStatus> {
    Json(status_of(&manager))
}

fn status_of(manager: &Manager) -> RebuildStatus {
    RebuildStatus { lost: manager.lost.clone(), ..manager.rebuild.status() }
}

/// The work of a volume manager whose catalog is not whole, until that is done or shutdown.
///
/// # Errors
/// `Deposed` when the term is over.
pub(crate) async fn run(manager: Arc<Manager>) -> Result<(), ServerError> {
    let why = manager.lost.as_deref().unwrap_or_default();
    tracing::error!(why, "the catalog is not whole: nothing is leased until `holdfast admin catalog rebuild` has run");
    loop {
        tokio::select! {
            biased;
            () = manager.shutdown.cancelled() => return Ok(()),
            () = manager.rebuild.asked() => {}
        }
        let ended = tokio::select! {
            biased;
            () = manager.shutdown.cancelled() => return Ok(()),
            ended = all(&manager) => ended,
        };
        match ended {
            Ok(()) => {
                tracing::info!("the catalog is whole again");
                manager.rebuild.whole();
                manager.begin_anew();
            }
            Err(Stopped::Anew) => manager.begin_anew(),
            Err(Stopped::Because(why)) => {
                let current = manager.catalog.table.term().await.unwrap_or(manager.term);
                if current != manager.term {
                    return Err(ServerError::Deposed { given: manager.term, current });
                }
                tracing::error!(why, "the rebuild stopped before its end");
                manager.rebuild.stopped(why);
            }
        }
    }
}

/// The whole rebuild.
async fn all(manager: &Arc<Manager>) -> Result<(), Stopped> {
    manager.rebuild.started();
    let snapshot = wait_for_nodes(manager).await?;
    raise_term(manager).await?;
    let disks: Vec<&DiskView> = snapshot.disks.iter().filter(|view| is_readable(view)).collect();
    let not_reached = not_reached(&snapshot);
    manager.rebuild.change(|status| status.not_reached = not_reached);
    if disks.is_empty() {
        return Err(Stopped::Because("no node has registered a disk that can be read: start the nodes".to_owned()));
    }
    let nodes: BTreeMap<&NodeId, &str> =
        disks.iter().map(|view| (&view.disk.info.node, view.address.as_str())).collect();
    manager.rebuild.change(|status| (status.nodes, status.disks) = (nodes.len() as u64, disks.len() as u64));
    collect_keys(manager, &nodes).await?;
    let table = &manager.catalog.table;
    table.forget_unsealed(manager.term).await?;
    let known: BTreeMap<VolumeId, Volume> =
        table.volumes().await?.into_iter().map(|volume| (volume.volume, volume)).collect();
    let found = list(manager, &disks).await?;
    let newest = found.keys().map(VolumeId::generation).max().unwrap_or(0);
    take_in_all(manager, &snapshot, &found, &known).await?;
    let blocks = manager.catalog.index.count().await?;
    manager.rebuild.change(|status| status.blocks = blocks);
    table.recovered(manager.term, newest).await?;
    Ok(())
}

/// What the catalog knows of and nobody can read now. A catalog that was lost knows none that did not register.
fn not_reached(snapshot: &Snapshot) -> Vec<NotReached> {
    let mut found = Vec::new();
    for view in &snapshot.nodes {
        let node = &view.node.node;
        let its = || snapshot.disks.iter().filter(|disk| disk.disk.info.node == *node);
        if view.standing != NodeStanding::Up {
            let disks = its().map(|disk| disk.disk.info.disk).collect();
            found.push(NotReached { node: node.clone(), disks, why: format!("the node is {}", view.standing.name()) });
            continue;
        }
        found.extend(its().filter(|disk| !is_readable(disk)).map(|disk| {
            let why = disk.standing.reason().unwrap_or("no reason given");
            let why = format!("the disk is {}: {why}", disk.standing.name());
            NotReached { node: node.clone(), disks: vec![disk.disk.info.disk], why }
        }));
    }
    found
}

fn is_readable(view: &DiskView) -> bool {
    matches!(view.standing, Standing::Healthy | Standing::ReadOnly(_))
}

/// The disks, once every node is there that was when the rebuild was asked for.
async fn wait_for_nodes(manager: &Manager) -> Result<Snapshot, Stopped> {
    let until = tokio::time::Instant::now() + RETURN_LIMIT;
    loop {
        let snapshot = manager.snapshot().await?;
        let is_up = |name: &NodeId| {
            snapshot.nodes.iter().any(|view| view.node.node == *name && view.standing == NodeStanding::Up)
        };
        let Some(missing) = manager.rebuild.expected().into_iter().find(|name| !is_up(name)) else {
            return Ok(snapshot);
        };
        manager.rebuild.tell(format!("waiting for node {missing}"));
        if tokio::time::Instant::now() >= until {
            let what = "was up when the rebuild was asked for and is not now: start it, or begin again without it";
            return Err(Stopped::Because(format!("node {missing} {what}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nodes refuse a leader whose term is below one that they obeyed under the catalog that was lost.
async fn raise_term(manager: &Manager) -> Result<(), Stopped> {
    let highest = manager.highest_term.load(Ordering::Relaxed);
    if highest <= manager.term.0 {
        return Ok(());
    }
    let above = Term(highest.saturating_add(TERM_MARGIN));
    tracing::info!(
        term = manager.term.0,
        highest,
        "the nodes know of a later term than this catalog; taking one above it"
    );
    manager.catalog.table.raise_term(manager.term, above).await?;
    manager.rebuild.ask_again();
    Err(Stopped::Anew)
}

/// Every data key that any disk has goes into the index.
async fn collect_keys(manager: &Manager, nodes: &BTreeMap<&NodeId, &str>) -> Result<(), Stopped> {
    manager.rebuild.tell("reading the keyrings");
    for (node, address) in nodes {
        let keyring = match within(LIST_LIMIT, address, manager.node(address).keyring()).await {
            Ok(keyring) => keyring,
            // Every disk of the cell has the keyring; but one that has what the others lack may only be slow.
            Err(error) if error.is_answer() && ![Some(code::BUSY), Some(code::STALLED)].contains(&error.code()) => {
                tracing::warn!(%node, %error, "no keyring from this node");
                continue;
            }
            Err(error) => return Err(Stopped::Because(format!("the keyring of node {node}: {error}"))),
        };
        for (id, wrapped) in keyring.keys {
            let (Ok(key), Ok(wrapped)) = (id.parse(), hex::decode(&wrapped)) else {
                tracing::error!(%node, id, "the node has a key that is none");
                continue;
            };
            match manager.catalog.index.put_key(&key, &wrapped).await {
                Ok(_) => {}
                Err(CatalogError::KeyTaken(_)) => {
                    tracing::warn!(%node, %key, "a data key is wrapped otherwise on this node; the first one stays");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let (_, keys) = manager.catalog.index.keys().await?;
    manager.rebuild.change(|status| status.keys = keys.len() as u64);
    Ok(())
}

/// All extents that say something of a volume.
async fn list(manager: &Manager, disks: &[&DiskView]) -> Result<BTreeMap<VolumeId, Vec<FoundExtent>>, Stopped> {
    manager.rebuild.tell("listing the extents of every disk");
    let lists: Vec<_> = disks.iter().map(|view| list_one(manager, view)).collect();
    let mut lists = iter(lists).buffer_unordered(PARALLEL);
    let mut found: BTreeMap<VolumeId, Vec<FoundExtent>> = BTreeMap::new();
    while let Some(listed) = lists.next().await {
        let (view, extents) = listed?;
        for extent in &extents {
            if let Some(told) = told(view, extent) {
                found.entry(extent.volume).or_default().push(told);
            }
        }
    }
    for extents in found.values_mut() {
        extents.sort_by_key(|extent| extent.disk);
    }
    manager.rebuild.change(|status| status.volumes = found.len() as u64);
    Ok(found)
}

async fn list_one<'a>(manager: &Manager, view: &'a DiskView) -> Result<(&'a DiskView, Vec<ExtentInfo>), Stopped> {
    let disk = view.disk.info.disk;
    let listed = within(LIST_LIMIT, &view.address, manager.node(&view.address).extents(disk)).await;
    let extents = listed.map_err(|error| {
        Stopped::Because(format!("disk {disk} of node {} does not list its extents: {error}", view.disk.info.node))
    })?;
    Ok((view, extents))
}

/// What an extent says of its volume. A copy that was under way says nothing, and what was put into the trash is not
/// taken out again.
fn told(view: &DiskView, extent: &ExtentInfo) -> Option<FoundExtent> {
    let mut digest = [0; 32];
    let has_digest = extent.digest.as_ref().is_some_and(|text| hex::decode_to_slice(text, &mut digest).is_ok());
    let found = match (extent.state, has_digest) {
        (ExtentState::Copying | ExtentState::Trashed, _) => return None,
        (ExtentState::Sealed, true) => Found::Sealed { length: extent.tail, digest },
        (ExtentState::Damaged, true) => Found::DamagedSealed { length: extent.tail, digest },
        (ExtentState::Sealed | ExtentState::Damaged, false) => Found::Damaged,
        (ExtentState::Open | ExtentState::Fenced, _) => Found::Unsealed { ends_badly: extent.note.is_some() },
    };
    Some(FoundExtent { disk: extent.disk, zone: view.zone.clone(), epoch: extent.epoch, found })
}

/// Takes in volume after volume, several at once. Those that cannot be are told; one that could not be asked about stops the
/// rebuild, after all others were done.
async fn take_in_all(
    manager: &Arc<Manager>,
    snapshot: &Snapshot,
    found: &BTreeMap<VolumeId, Vec<FoundExtent>>,
    known: &BTreeMap<VolumeId, Volume>,
) -> Result<(), Stopped> {
    let total = found.len();
    manager.rebuild.tell(format!("taking in {total} volumes"));
    let sealed = |id| known.get(id).filter(|known| known.state == VolumeState::Sealed);
    let volumes: Vec<_> =
        found.iter().map(|(id, extents)| volume::take_in(manager, snapshot, *id, extents, sealed(id))).collect();
    let mut volumes = iter(volumes).buffer_unordered(PARALLEL);
    let (mut open, mut first) = (0, None);
    while let Some((id, ended)) = volumes.next().await {
        match ended {
            Ok(Ended::Later(why)) => {
                open += 1;
                first.get_or_insert_with(|| format!("volume {id}: {why}"));
            }
            Ok(ended) => manager.rebuild.ended(id, ended),
            Err(error) => return Err(error.into()),
        }
    }
    match first {
        None => Ok(()),
        Some(first) => Err(Stopped::Because(format!(
            "{open} of {total} volumes could not be looked at now; the first: {first}. Begin it again when the nodes answer"
        ))),
    }
}
