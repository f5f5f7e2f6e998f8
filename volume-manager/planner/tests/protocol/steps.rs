//! Everything that can happen next. Steps a to f are those of the seal in `docs/protocols.md`; d and e are one step
//! here, for nothing that others see happens between them.

use holdfast_volume_manager_planner::{LengthDecision, SealDecision, decide_length, decide_seal};

use crate::world::{
    BATCHES, Bug, DISKS, Disk, Extent, Flight, HOMES, Heard, Place, State, Vote, World, Writer, disk_id,
};

/// A step, with the leader (0 or 1) and the disk where they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Begin,
    Send,
    Land { disk: usize, answered: bool },
    IndexRow,
    AnswerClient,
    GiveUp,
    TakeOver,
    A { leader: usize },
    B { leader: usize },
    C { leader: usize, disk: usize },
    DE { leader: usize },
    CutEarly { leader: usize, disk: usize },
    F { leader: usize, disk: usize },
    CommitSeal { leader: usize },
    Drop { leader: usize, disk: usize },
    Repair { leader: usize, disk: usize },
    Displace { leader: usize, disk: usize },
    DisplaceHalfway { leader: usize, disk: usize },
    Move { leader: usize, from: usize, to: usize },
    Readmit { leader: usize, disk: usize },
    Restore { leader: usize, disk: usize },
    CommitRemoval { leader: usize, disk: usize },
    Trash { disk: usize },
    Erase { disk: usize },
    Compact { leader: usize },
    Retire { leader: usize },
    Die { disk: usize },
    Damage { disk: usize, batch: u8 },
    Part { disk: usize },
    Heal { disk: usize },
    Restart { disk: usize },
}

/// A possible next step, the world after it, and what it shows to be reachable.
pub type Next = (Step, World, Option<&'static str>);

/// All of them.
pub fn steps(world: &World, bug: Option<Bug>) -> Vec<Next> {
    let mut next = Vec::new();
    writer(world, bug, &mut next);
    for leader in 0..2 {
        seal(world, bug, leader, &mut next);
        after_seal(world, bug, leader, &mut next);
    }
    trash(world, &mut next);
    faults(world, &mut next);
    next
}

fn with(world: &World, change: impl FnOnce(&mut World)) -> World {
    let mut next = world.clone();
    change(&mut next);
    next
}

fn writer(world: &World, bug: Option<Bug>, next: &mut Vec<Next>) {
    let bit = 1u8 << world.batch;
    match world.writer {
        Writer::Idle => next.push((
            Step::Send,
            with(world, |w| {
                w.writer = Writer::Sent;
                w.disks[..HOMES].iter_mut().for_each(|disk| disk.flight = Flight::Sent);
            }),
            None,
        )),
        Writer::Sent => {
            let answered = world.disks[..HOMES].iter().filter(|disk| disk.flight == Flight::Answered).count();
            let enough = if bug == Some(Bug::AnswerBeforeAllReplicas) { 1 } else { HOMES };
            if answered >= enough {
                let refused = world.index.closed && bug != Some(Bug::LateRow);
                let after = with(world, |w| {
                    if refused {
                        w.writer = Writer::Gone;
                    } else {
                        w.index.rows |= bit;
                        w.index.highest = w.index.highest.max(w.batch);
                        w.writer = Writer::Indexed;
                    }
                });
                next.push((Step::IndexRow, after, refused.then_some("late row refused")));
            }
        }
        Writer::Indexed => next.push((
            Step::AnswerClient,
            with(world, |w| {
                w.acknowledged |= bit;
                w.writer = if w.batch < BATCHES { Writer::Idle } else { Writer::Gone };
                w.batch = (w.batch + 1).min(BATCHES);
            }),
            None,
        )),
        Writer::Gone => {}
    }
    if world.writer != Writer::Gone {
        next.push((Step::GiveUp, with(world, |w| w.writer = Writer::Gone), None));
    }
    for disk in 0..HOMES {
        if world.disks[disk].flight == Flight::Sent && world.disks[disk].works() {
            next.push((Step::Land { disk, answered: true }, with(world, |w| land(w, disk, bug, true)), None));
            next.push((Step::Land { disk, answered: false }, with(world, |w| land(w, disk, bug, false)), None));
        }
    }
}

fn land(world: &mut World, disk: usize, bug: Option<Bug>, answered: bool) {
    let batch = world.batch;
    let disk = &mut world.disks[disk];
    let current = disk.extent == Extent::Open;
    let passes = disk.extent == Extent::Fenced && bug == Some(Bug::NoEpochCheck);
    let taken = (current || passes) && !disk.restarted && disk.tail + 1 == batch;
    disk.flight = if taken && answered { Flight::Answered } else { Flight::Lost };
    if taken {
        disk.tail = batch;
        disk.passed_fence |= passes;
    }
}

/// Whether the catalog takes a write of this leader; with the planted bug it does not look, and that is noted.
fn catalog_takes(world: &World, bug: Option<Bug>, leader: usize) -> bool {
    world.table.term == term(leader) || bug == Some(Bug::NoTermCheck)
}

fn term(leader: usize) -> u8 {
    leader as u8 + 1
}

/// A change of the catalog by a leader.
fn commit(world: &World, leader: usize, change: impl FnOnce(&mut World)) -> World {
    with(world, |w| {
        w.table.taken_from_old_leader |= w.table.term != term(leader);
        change(w);
    })
}

fn seal(world: &World, bug: Option<Bug>, leader: usize, next: &mut Vec<Next>) {
    let go = |place: Place| move |w: &mut World| w.leaders[leader] = place;
    match world.leaders[leader] {
        Place::Absent => {}
        Place::Waiting => next.push((
            Step::TakeOver,
            with(world, |w| {
                w.leaders[leader] = Place::Start;
                w.table.term = term(leader);
            }),
            None,
        )),
        Place::Start => match (world.table.state, world.table.length) {
            (State::Open, _) if catalog_takes(world, bug, leader) => {
                let after = commit(world, leader, |w| {
                    w.table.state = State::Sealing;
                    w.leaders[leader] = Place::Sealing;
                });
                next.push((Step::A { leader }, after, None));
            }
            (State::Sealing, _) => next.push((Step::A { leader }, with(world, go(Place::Sealing)), None)),
            (State::Sealed | State::Retired, Some(length)) => {
                next.push((Step::A { leader }, with(world, go(Place::Sealed { length })), None));
            }
            _ => {}
        },
        Place::Sealing => {
            let after = with(world, |w| {
                w.index.closed = true;
                let floor = w.index.highest;
                w.leaders[leader] = match w.table.length {
                    Some(length) => Place::Verifying { length },
                    None => Place::Fencing { floor },
                };
            });
            next.push((Step::B { leader }, after, None));
        }
        Place::Fencing { floor } => fencing(world, bug, leader, floor, next),
        Place::Verifying { length } => verifying(world, bug, leader, length, next),
        Place::Sealed { .. } => {}
    }
}

fn fencing(world: &World, bug: Option<Bug>, leader: usize, floor: u8, next: &mut Vec<Next>) {
    for disk in 0..DISKS {
        let at = &world.disks[disk];
        let answers = matches!(at.extent, Extent::Open | Extent::Fenced);
        if at.listed && at.heeds(leader) && answers && at.heard[leader].vote.is_none() {
            next.push((Step::C { leader, disk }, with(world, |w| fence(&mut w.disks[disk], leader)), None));
        }
    }
    let Some((length, short_voter)) = decide(world, bug, leader, floor) else { return };
    if catalog_takes(world, bug, leader) {
        let after = commit(world, leader, |w| {
            if w.table.length.is_none() {
                w.table.length = Some(length);
                w.table.voter_dropped |= short_voter;
            }
            w.leaders[leader] = Place::Verifying { length: w.table.length.unwrap_or(length) };
        });
        next.push((Step::DE { leader }, after, None));
    }
    if bug == Some(Bug::CutBeforeCommit) {
        for disk in 0..DISKS {
            if world.disks[disk].heard[leader].vote.is_some() && world.disks[disk].heeds(leader) {
                let after = with(world, |w| cut(w, leader, disk, length));
                next.push((Step::CutEarly { leader, disk }, after, None));
            }
        }
    }
}

fn fence(disk: &mut Disk, leader: usize) {
    disk.term = term(leader);
    disk.extent = Extent::Fenced;
    let damaged = disk.restarted && disk.damaged != 0 && disk.damaged < disk.tail;
    disk.heard[leader].vote = Some(Vote { tail: disk.known_tail(), damaged });
}

/// Step d: the planner's decision over the votes of this leader, and whether a voter is shorter than it.
fn decide(world: &World, bug: Option<Bug>, leader: usize, floor: u8) -> Option<(u8, bool)> {
    let listed = || world.disks.iter().enumerate().filter(|(_, disk)| disk.listed);
    let votes: Vec<_> = listed()
        .map(|(n, disk)| {
            let vote = disk.heard[leader].vote;
            holdfast_volume_manager_planner::Vote {
                disk: disk_id(n),
                tail: vote.map(|vote| u64::from(vote.tail)),
                damaged: vote.is_some_and(|vote| vote.damaged) && bug != Some(Bug::DamagedTailVotes),
            }
        })
        .collect();
    let floor = if bug == Some(Bug::DamagedTailVotes) { 0 } else { u64::from(floor) };
    let LengthDecision::Length { length, voters } = decide_length(&votes, floor) else { return None };
    let tails = || votes.iter().filter(|vote| voters.contains(&vote.disk)).filter_map(|vote| vote.tail);
    let length = if bug == Some(Bug::LongestTail) { tails().max()? } else { length };
    Some((length as u8, tails().any(|tail| tail < length)))
}

fn cut(world: &mut World, leader: usize, disk: usize, length: u8) {
    let committed = world.table.length == Some(length);
    let disk = &mut world.disks[disk];
    let verified = disk.holds(length);
    disk.term = disk.term.max(term(leader));
    disk.heard[leader].verified = Some(verified);
    if verified {
        disk.cut_early |= !committed;
        (disk.extent, disk.tail) = (Extent::Sealed(length), length);
    }
}

fn verifying(world: &World, bug: Option<Bug>, leader: usize, length: u8, next: &mut Vec<Next>) {
    for disk in 0..DISKS {
        let at = &world.disks[disk];
        if at.listed && at.extent.is_there() && at.heeds(leader) && at.heard[leader].verified.is_none() {
            next.push((Step::F { leader, disk }, with(world, |w| cut(w, leader, disk, length)), None));
        }
    }
    if world.table.state != State::Sealing {
        next.push((Step::CommitSeal { leader }, with(world, |w| w.leaders[leader] = Place::Sealed { length }), None));
        return;
    }
    let answers: Vec<_> = world
        .disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| disk.listed)
        .map(|(n, disk)| {
            let verified = disk.heard[leader].verified == Some(true);
            (disk_id(n), if verified { Ok([1; 32]) } else { Err("not verified".to_owned()) })
        })
        .collect();
    if let SealDecision::Digest { holders, .. } = decide_seal(&answers)
        && catalog_takes(world, bug, leader)
    {
        let after = commit(world, leader, |w| {
            w.table.state = State::Sealed;
            w.leaders[leader] = Place::Sealed { length };
            for (n, disk) in w.disks.iter_mut().enumerate() {
                disk.listed = holders.contains(&disk_id(n));
            }
        });
        next.push((Step::CommitSeal { leader }, after, Some(["sealed", "second leader sealed"][leader])));
    }
}

fn after_seal(world: &World, bug: Option<Bug>, leader: usize, next: &mut Vec<Next>) {
    let Place::Sealed { length } = world.leaders[leader] else { return };
    if !catalog_takes(world, bug, leader) {
        return;
    }
    let verified = world.verified(length);
    let listed = world.disks.iter().filter(|disk| disk.listed).count();
    let source = world.disks.iter().any(|disk| disk.listed && disk.heeds(leader) && disk.holds(length));
    for disk in 0..DISKS {
        let at = &world.disks[disk];
        if world.table.state == State::Sealed {
            // Dead, or its node shows that it is not what was sealed; never the last.
            let others = verified - usize::from(at.listed && at.alive && at.holds(length));
            if at.listed && others > 0 && (!at.alive || (at.heeds(leader) && !at.holds(length))) {
                let after = commit(world, leader, |w| w.disks[disk].listed = false);
                next.push((Step::Drop { leader, disk }, after, None));
            }
            // Beside what lies in the trash, which is forgotten here: at worst it is erased before anybody wants it.
            let empty = !at.extent.is_there();
            if listed < HOMES && !at.listed && at.heeds(leader) && empty && source {
                let after = commit(world, leader, |w| copy(&mut w.disks[disk], leader, length));
                next.push((Step::Repair { leader, disk }, after, Some("repaired")));
            }
            if listed < HOMES && !at.listed && at.heeds(leader) && at.removal.is_none() && at.holds(length) {
                let after = commit(world, leader, |w| {
                    cut(w, leader, disk, length);
                    w.disks[disk].listed = true;
                });
                next.push((Step::Readmit { leader, disk }, after, Some("readmitted")));
            }
            // What is no replica goes into the trash when the copy is whole.
            let gives_way = at.extent.is_there() && (!at.holds(length) || bug == Some(Bug::DisplaceUnasked));
            if listed < HOMES && !at.listed && at.heeds(leader) && gives_way && source {
                let after = commit(world, leader, |w| {
                    w.table.displaced_sound |= at.holds(length);
                    copy(&mut w.disks[disk], leader, length);
                });
                next.push((Step::Displace { leader, disk }, after, Some("displaced")));
                // The disk crashed after the one went and before the other was sealed.
                if world.moves {
                    let after = with(world, |w| {
                        let at = &mut w.disks[disk];
                        // Only what was sealed comes back from there.
                        let is_sealed = matches!(at.extent, Extent::Sealed(_));
                        at.extent = if is_sealed { Extent::Trashed } else { Extent::Erased };
                        (at.removal, at.term) = (None, term(leader));
                    });
                    next.push((Step::DisplaceHalfway { leader, disk }, after, None));
                }
            }
            let may_move = world.moves && listed == HOMES && verified == HOMES;
            for from in (0..DISKS).filter(|_| may_move && !at.listed && at.heeds(leader) && empty && source) {
                if world.disks[from].listed {
                    let after = commit(world, leader, |w| {
                        copy(&mut w.disks[disk], leader, length);
                        w.disks[from].listed = false;
                    });
                    next.push((Step::Move { leader, from, to: disk }, after, Some("moved")));
                }
            }
            // Its node reads it first, and needs no source.
            let whole = Disk { extent: Extent::Sealed(length), ..*at }.holds(length) || bug == Some(Bug::RestoreUnread);
            if listed < HOMES && !at.listed && at.heeds(leader) && at.extent == Extent::Trashed && whole {
                let after = commit(world, leader, |w| restore(w, leader, disk, length));
                next.push((Step::Restore { leader, disk }, after, Some("restored")));
            }
        }
        let retired = world.table.state == State::Retired;
        let full = verified >= HOMES || (bug == Some(Bug::EraseEarly) && verified > 0);
        if at.extent.is_there() && at.removal.is_none() && (retired || (!at.listed && full)) {
            let after = commit(world, leader, |w| {
                w.table.erased_early |= !retired && verified < HOMES;
                w.disks[disk].removal = Some(term(leader));
                w.disks[disk].listed = false;
            });
            next.push((Step::CommitRemoval { leader, disk }, after, None));
        }
    }
    compaction(world, leader, length, next);
}

fn restore(world: &mut World, leader: usize, disk: usize, length: u8) {
    let at = &mut world.disks[disk];
    (at.extent, at.term, at.listed) = (Extent::Sealed(length), term(leader), true);
    world.table.restored_unread |= !at.holds(length);
}

fn copy(disk: &mut Disk, leader: usize, length: u8) {
    *disk = Disk {
        extent: Extent::Sealed(length),
        tail: length,
        damaged: 0,
        term: term(leader),
        listed: true,
        removal: None,
        heard: [Heard::default(); 2],
        ..*disk
    };
}

/// Moves what is live to another volume, row by row, and retires this one.
fn compaction(world: &World, leader: usize, length: u8, next: &mut Vec<Next>) {
    if world.table.state != State::Sealed {
        return;
    }
    let whole = world.disks.iter().any(|disk| disk.listed && disk.works() && disk.holds(length));
    if world.index.rows == 0 {
        let after = commit(world, leader, |w| w.table.state = State::Retired);
        next.push((Step::Retire { leader }, after, Some("retired")));
    } else if whole {
        let after = commit(world, leader, |w| {
            w.index.moved |= w.index.rows;
            w.index.rows = 0;
        });
        next.push((Step::Compact { leader }, after, None));
    }
}

/// An order that was sent lands, perhaps long after its leader is gone. What was sealed may lie in the trash for good, or is as
/// good as erased: while it lies there nothing but a restore tells the two apart.
fn trash(world: &World, next: &mut Vec<Next>) {
    for disk in 0..DISKS {
        let at = &world.disks[disk];
        if !at.extent.is_there() || !at.works() || at.removal.is_none_or(|term| term < at.term) {
            continue;
        }
        let erased = with(world, |w| {
            let disk = &mut w.disks[disk];
            (disk.extent, disk.tail, disk.damaged, disk.removal) = (Extent::Erased, 0, 0, None);
        });
        next.push((Step::Erase { disk }, erased, Some("erased")));
        if world.moves && matches!(at.extent, Extent::Sealed(_)) {
            let kept = with(world, |w| (w.disks[disk].extent, w.disks[disk].removal) = (Extent::Trashed, None));
            next.push((Step::Trash { disk }, kept, None));
        }
    }
}

fn faults(world: &World, next: &mut Vec<Next>) {
    let budget = &world.budget;
    for disk in 0..DISKS {
        let at = &world.disks[disk];
        if !at.alive {
            continue;
        }
        // A spare that holds nothing has nothing to lose.
        if budget.losses > 0 && at.extent != Extent::None {
            let after = with(world, |w| {
                w.budget.losses -= 1;
                w.disks[disk].alive = false;
            });
            next.push((Step::Die { disk }, after, None));
            for batch in (1..=at.tail).filter(|_| at.damaged == 0) {
                let after = with(world, |w| {
                    w.budget.losses -= 1;
                    w.disks[disk].damaged = batch;
                });
                next.push((Step::Damage { disk, batch }, after, None));
            }
        }
        if at.reachable && budget.partitions > 0 {
            let after = with(world, |w| {
                w.budget.partitions -= 1;
                w.disks[disk].reachable = false;
            });
            next.push((Step::Part { disk }, after, None));
        }
        if !at.reachable {
            next.push((Step::Heal { disk }, with(world, |w| w.disks[disk].reachable = true), None));
        }
        if !at.restarted && budget.restarts > 0 && matches!(at.extent, Extent::Open | Extent::Fenced) {
            let after = with(world, |w| {
                w.budget.restarts -= 1;
                w.disks[disk].restarted = true;
            });
            next.push((Step::Restart { disk }, after, None));
        }
    }
}

impl Disk {
    /// Whether messages get through to it.
    fn works(&self) -> bool {
        self.alive && self.reachable
    }

    /// Whether it takes orders of this leader.
    fn heeds(&self, leader: usize) -> bool {
        self.works() && self.term <= term(leader)
    }
}
