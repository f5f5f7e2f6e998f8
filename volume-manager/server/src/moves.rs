//! Moves replicas: off disks that are drained, apart where volumes stand closer together than they must, and to disks that
//! hold less than their share while a rebalance is under way.
//!
//! - What is to move is planned from the table and kept in memory only. What the operator asked for is in the catalog; a new
//!   leader plans anew, and finds what was done.
//! - A move is three steps, each of which may be the last one a leader takes: the copy, which its node reads back and compares;
//!   the new list by compare-and-set; the order that puts the old extent into the trash ([`discard`]). After the first the
//!   target holds an extent that is on no list, after the second the old disk does: the audit finds either.
//! - Only sealed volumes all of whose replicas are in service are moved. So a zone that vanishes makes nothing move. All others
//!   count where they are when shares are dealt.
//! - Repair comes first: no move begins while a repair waits for its turn.
//! - A plan names no place that a move would not take, and a rebalance ends with the plan that has nothing to move for it and
//!   knows of nothing that only waits.

mod plan;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{CatalogError, Volume};
use holdfast_volume_manager_planner::{Inventory, MoveReason, RepairAction};
use tokio::time::Instant;

use crate::discard::{discard_moved, is_hollow};
use crate::intents::Intents;
use crate::inventory::{DiskView, Snapshot};
use crate::manager::Manager;
use crate::repair::{self, Failure};

use plan::{instead, spread};

pub(crate) use plan::{Plan, Volumes, is_movable, place_off, plan_aside};

/// After a plan of which nothing could be done, when nothing changed that it was made from: first this, then twice that, and so
/// on.
const IDLE: Duration = Duration::from_secs(1);
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Steps that are looked at for one whose turn it is.
const LOOKAHEAD: usize = 1000;

/// One replica to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub volume: VolumeId,
    pub from: DiskId,
    /// None: wherever there is a place when its turn comes.
    pub to: Option<DiskId>,
    pub reason: MoveReason,
    /// Bytes to copy.
    pub bytes: u64,
}

/// What the steps were planned from, besides the volumes. Another one asks for another plan.
/// First when the rebalance under way was asked for, Unix milliseconds.
type Basis = (Option<u64>, Vec<Place>);

/// What of a disk a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    disk: DiskId,
    takes_new: bool,
    leaving: bool,
    less_spread: bool,
}

/// What is to move, and what moves.
#[derive(Debug, Default)]
pub(crate) struct Moves(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Step>,
    running: BTreeMap<VolumeId, Step>,
    is_planning: bool,
    basis: Option<Basis>,
    /// When to plan again although the basis is the same.
    next_plan: Option<Instant>,
    /// Plans in a row of which nothing could be done.
    idle_plans: u32,
    /// Something was moved since the last plan: the next plan is another one.
    is_outdated: bool,
    /// What the last plan says a rebalance waits for, by why, with how many volumes.
    held_back: BTreeMap<String, u64>,
    /// Steps for a rebalance that came to nothing and are tried again, and why.
    undone: BTreeMap<VolumeId, (Step, String)>,
}

/// How far the moves for a rebalance are.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What is left was counted, for this rebalance.
    pub is_counted: bool,
    pub waiting: Vec<Step>,
    pub moving: Vec<Step>,
    /// Those that came to nothing and are tried again, and why.
    pub undone: Vec<(Step, String)>,
    /// What else it waits for, with how many volumes.
    pub held_back: BTreeMap<String, u64>,
}

impl State {
    fn is_busy(&self) -> bool {
        self.is_planning || !self.queue.is_empty() || !self.running.is_empty()
    }

    /// Nothing of the last plan could be done.
    fn rest(&mut self) {
        self.next_plan = Some(Instant::now() + IDLE_MAX.min(IDLE * 2_u32.saturating_pow(self.idle_plans.min(6))));
        self.idle_plans += 1;
    }
}

impl Moves {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps that wait, and those that are being taken.
    pub fn steps(&self) -> (Vec<Step>, Vec<Step>) {
        let state = self.state();
        (state.queue.iter().copied().collect(), state.running.values().copied().collect())
    }

    /// How far the rebalance is that was asked for then, Unix milliseconds.
    pub fn progress(&self, since_ms: u64) -> Progress {
        let state = self.state();
        if state.basis.as_ref().is_none_or(|(asked, _)| *asked != Some(since_ms)) {
            return Progress::default();
        }
        let of = |step: &&Step| step.reason == MoveReason::Fill;
        let waiting: Vec<Step> = state.queue.iter().filter(of).copied().collect();
        let moving: Vec<Step> = state.running.values().filter(of).copied().collect();
        Progress {
            is_counted: state.is_busy() && !state.is_planning || state.next_plan.is_some(),
            waiting,
            moving,
            undone: state.undone.values().cloned().collect(),
            held_back: state.held_back.clone(),
        }
    }

    /// The next step whose disk takes one more copy. `copies` are those to each disk that are no moves.
    fn next(&self, mut copies: HashMap<DiskId, usize>, per_disk: usize) -> Option<Step> {
        let mut state = self.state();
        for to in state.running.values().filter_map(|step| step.to) {
            *copies.entry(to).or_default() += 1;
        }
        let has_turn = |step: &Step| step.to.is_none_or(|to| copies.get(&to).copied().unwrap_or(0) < per_disk);
        let place = state.queue.iter().take(LOOKAHEAD).position(has_turn)?;
        let step = state.queue.remove(place)?;
        state.running.insert(step.volume, step);
        Some(step)
    }

    /// Notes where a step goes that had no target; false when that disk takes no more copies now.
    fn aim(&self, step: &Step, target: DiskId, per_disk: usize) -> bool {
        let mut state = self.state();
        let there = |other: &&Step| other.volume != step.volume && other.to == Some(target);
        let has_turn = state.running.values().filter(there).count() < per_disk;
        if let Some(running) = state.running.get_mut(&step.volume).filter(|_| has_turn) {
            running.to = Some(target);
        }
        has_turn
    }

    /// Whether that was the last one of a plan after which another one is worth it at once.
    fn ended(&self, step: &Step, outcome: Outcome) -> bool {
        let mut state = self.state();
        state.running.remove(&step.volume);
        state.undone.remove(&step.volume);
        match outcome {
            Outcome::Busy => state.queue.push_back(*step),
            Outcome::Moved => (state.is_outdated, state.idle_plans) = (true, 0),
            Outcome::Not(why) if step.reason == MoveReason::Fill => {
                state.undone.insert(step.volume, (*step, why));
            }
            Outcome::Not(_) => {}
        }
        if state.is_busy() {
            return false;
        }
        if !std::mem::take(&mut state.is_outdated) {
            state.rest();
            return false;
        }
        true
    }

    /// Whether a replica of the volume is being moved.
    pub fn is_running(&self, volume: VolumeId) -> bool {
        self.state().running.contains_key(&volume)
    }

    /// Whether it is time to plan again.
    fn is_due(&self) -> bool {
        let state = self.state();
        !state.is_busy() && state.next_plan.is_some_and(|at| at <= Instant::now())
    }
}

/// Plans moves when there may be something to move, and takes out of the queue what nobody wants any more.
pub(crate) fn start(manager: &Arc<Manager>, snapshot: &Arc<Snapshot>, volumes: Volumes) {
    let rebalance = snapshot.intents.rebalance.map(|asked| asked.since_ms);
    let place = |view: &DiskView| Place {
        disk: view.disk.info.disk,
        takes_new: view.takes_new(),
        leaving: view.leaving,
        less_spread: snapshot.accepts_less_spread(view),
    };
    let basis: Basis = (rebalance, snapshot.disks.iter().map(place).collect());
    {
        let mut state = manager.moves.state();
        if state.basis.as_ref() != Some(&basis) {
            state.queue.clear();
            state.undone.clear();
            (state.next_plan, state.idle_plans) = (None, 0);
        }
        if state.is_busy() || state.next_plan.is_some_and(|at| Instant::now() < at) {
            return;
        }
        state.is_planning = true;
        if let Some((_, before)) = &state.basis {
            audit_those_back(manager, snapshot, before);
        }
    }
    let (inventory, unaudited) = audited(manager, snapshot);
    let (barred, failed) = repair::barred(manager);
    let (manager, snapshot) = (Arc::clone(manager), Arc::clone(snapshot));
    manager.tasks.clone().spawn(async move {
        let mut plan = plan_aside(inventory, &snapshot, volumes, barred, rebalance.is_some()).await;
        plan.held_back_by.extend(unaudited);
        let is_level = {
            let mut state = manager.moves.state();
            (state.is_planning, state.basis, state.next_plan) = (false, Some(basis), None);
            state.queue = plan.steps.iter().copied().collect();
            // What is planned again, or may go nowhere for the better, waits for nothing.
            let planned: HashSet<VolumeId> = plan.steps.iter().map(|step| step.volume).collect();
            state.undone.retain(|volume, _| failed.contains(volume) && !planned.contains(volume));
            state.held_back = std::mem::take(&mut plan.held_back_by);
            if state.queue.is_empty() {
                state.rest();
            }
            let is_none = !plan.steps.iter().any(|step| step.reason == MoveReason::Fill);
            is_none && state.held_back.is_empty() && state.undone.is_empty()
        };
        if let Some(since_ms) = rebalance.filter(|_| is_level) {
            tracing::info!(left_over = plan.left_over, "rebalance done");
            if let Err(error) = end_rebalance(&manager, since_ms).await {
                tracing::error!(%error, "the end of the rebalance is not written");
            }
        }
        pump(&manager);
    });
}

/// Takes the wish for a rebalance back, unless it is another one by now.
async fn end_rebalance(manager: &Manager, since_ms: u64) -> Result<(), CatalogError> {
    let _turn = manager.ordering.lock().await;
    let intents = Intents::read(&manager.catalog.table.settings().await?);
    match intents.rebalance.is_some_and(|asked| asked.since_ms == since_ms) {
        true => manager.set_rebalance(None).await,
        false => Ok(()),
    }
}

/// Has nodes audited whose disks are back in service: they may still hold what a move would bring.
fn audit_those_back(manager: &Manager, snapshot: &Snapshot, before: &[Place]) {
    let took_none: HashSet<DiskId> = before.iter().filter(|place| !place.takes_new).map(|place| place.disk).collect();
    let is_back = |view: &&DiskView| view.takes_new() && took_none.contains(&view.disk.info.disk);
    let mut progress = manager.progress();
    for view in snapshot.disks.iter().filter(is_back) {
        progress.audits.insert(view.disk.info.node.clone(), Instant::now());
    }
}

/// [`targets`], and what a rebalance waits for because of the nodes that are left out.
fn audited(manager: &Manager, snapshot: &Snapshot) -> (Inventory, BTreeMap<String, u64>) {
    let (all, audited) = (snapshot.for_moves(), targets(manager, snapshot));
    let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
    for (disk, _) in all.disks.iter().zip(&audited.disks).filter(|(disk, audited)| disk.eligible && !audited.eligible) {
        let why = format!("what node {} holds is being compared with the catalog", disk.node);
        left_out.insert(why, 0);
    }
    (audited, left_out)
}

/// Where replicas may go. A node that has just registered is left out until its audit is over: it may still hold what a copy
/// would bring.
fn targets(manager: &Manager, snapshot: &Snapshot) -> Inventory {
    repair::without_unaudited(manager, snapshot.for_moves())
}

/// Begins as many moves as may run beside the repairs.
pub(crate) fn pump(manager: &Arc<Manager>) {
    if manager.moves.is_due() {
        manager.progress().stale = true;
    }
    while !manager.shutdown.is_cancelled() && may_begin(manager) {
        let Ok(place) = Arc::clone(&manager.copies).try_acquire_owned() else { break };
        let mut copies: HashMap<DiskId, usize> = HashMap::new();
        manager.progress().copying.values().for_each(|copy| *copies.entry(copy.target).or_default() += 1);
        let Some(step) = manager.moves.next(copies, per_disk(manager)) else { break };
        let manager = Arc::clone(manager);
        manager.tasks.clone().spawn(async move {
            let outcome = take(&manager, &step).await;
            drop(place);
            let outcome = outcome.unwrap_or_else(|error| {
                tracing::error!(volume = %step.volume, %error, "move");
                Outcome::Not(error.to_string())
            });
            let again = outcome == Outcome::Busy;
            if manager.moves.ended(&step, outcome) {
                manager.progress().stale = true;
                manager.wake.notify_one();
            }
            // One that is busy is asked again in the next round, not at once.
            if !again {
                pump(&manager);
            }
        });
    }
}

/// Copies to one disk at once.
fn per_disk(manager: &Manager) -> usize {
    manager.config.copies.per_disk.max(1)
}

/// Whether copies may begin that are no repairs.
fn may_begin(manager: &Manager) -> bool {
    !manager.progress().repair_waits && manager.wishes.pause(manager.now_ms()).is_none()
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Moved,
    /// Why it stays where it is: it is not wanted any more, or there is no place for it now.
    Not(String),
    /// The node takes no copy at the moment.
    Busy,
}

/// Moves one replica, if that is still right.
async fn take(manager: &Arc<Manager>, step: &Step) -> Result<Outcome, CatalogError> {
    let detail = format!("moving from disk {} ({})", step.from, reason(step.reason));
    let not = |why: &str| Ok(Outcome::Not(why.to_owned()));
    let Some(claim) = manager.claim(step.volume, "move", &detail) else { return not("its volume is being worked on") };
    let snapshot = manager.snapshot().await?;
    let Some(volume) = manager.catalog.table.volume(step.volume).await? else { return not("its volume is gone") };
    let Some(target) = target(manager, &snapshot, &volume, step) else {
        return not("it need not move any more, or the disk that it was to go to has no place for it now");
    };
    if !manager.moves.aim(step, target, per_disk(manager)) {
        return Ok(Outcome::Busy);
    }
    manager.note(step.volume, "move", format!("{detail} to disk {target}"));
    if !repair::is_restorable(manager, step.volume, target) {
        manager.liveness().take_slot(target);
    }
    // Another first one for each volume, so that not every copy off a disk reads that disk.
    let mut sources = volume.replicas.clone();
    sources.rotate_left(usize::from(step.volume.as_bytes()[15]) % volume.replicas.len());
    let replicas = instead(&volume.replicas, step.from, target);
    let action = RepairAction { volume: step.volume, sources, target, replicas };
    let copying = manager.move_rate.begin();
    match repair::try_copy(manager, &snapshot, &volume, &action).await {
        Ok(how) => {
            how.count(manager, copying, step.bytes);
            manager.metrics.moves.inc();
            let (from, why) = (step.from, reason(step.reason));
            tracing::info!(volume = %step.volume, %from, to = %target, why, ?how, "replica moved");
        }
        Err(Failure::Busy) => return Ok(Outcome::Busy),
        Err(Failure::Failed(why)) => {
            manager.metrics.failed_moves.inc();
            tracing::warn!(volume = %step.volume, from = %step.from, to = %target, why, "move failed");
            repair::avoid(manager, step.volume, target);
            return Ok(Outcome::Not(format!("the copy to disk {target} failed: {why}")));
        }
    }
    discard_moved(manager, &claim, step.from).await?;
    Ok(Outcome::Moved)
}

/// Where the replica goes; `None` when it is to stay.
fn target(manager: &Manager, snapshot: &Snapshot, volume: &Volume, step: &Step) -> Option<DiskId> {
    let wanted = match step.reason {
        MoveReason::Drain => snapshot.disk(step.from).is_some_and(|view| view.leaving),
        MoveReason::Fill => snapshot.intents.rebalance.is_some(),
        MoveReason::Spread => true,
    };
    if !wanted || is_hollow(volume) || !is_movable(snapshot, volume) || !volume.replicas.contains(&step.from) {
        return None;
    }
    let avoid = repair::avoided(manager, step.volume);
    let inventory = targets(manager, snapshot);
    if let Some(to) = step.to.filter(|to| fits(&inventory, volume, step, *to) && !avoid.contains(to)) {
        return Some(to);
    }
    match step.reason {
        MoveReason::Drain => {
            let less_spread = snapshot.accepts_less_spread(snapshot.disk(step.from)?);
            place_off(&inventory, (step.volume, &volume.replicas), step.from, &avoid, less_spread).ok()
        }
        MoveReason::Spread | MoveReason::Fill => None,
    }
}

/// Whether a planned target is still as good as it was.
fn fits(inventory: &Inventory, volume: &Volume, step: &Step, to: DiskId) -> bool {
    let has_room = inventory.disk(to).is_some_and(|disk| disk.eligible && disk.free_above_reserve() > 0);
    let after = instead(&volume.replicas, step.from, to);
    let (now, then) = (spread(inventory, &volume.replicas), spread(inventory, &after));
    let apart = if step.reason == MoveReason::Spread { then > now } else { then >= now };
    has_room && apart && !volume.replicas.contains(&to)
}

/// In a word.
pub(crate) fn reason(reason: MoveReason) -> &'static str {
    match reason {
        MoveReason::Drain => "drain",
        MoveReason::Spread => "spread",
        MoveReason::Fill => "fill",
    }
}
