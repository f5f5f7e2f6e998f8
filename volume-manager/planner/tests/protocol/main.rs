//! Model check of the seal protocol (`docs/protocols.md`, "Volume manager"; design: one writer, fenced, sealed).
//!
//! One volume on three disks and a spare, its writer, its index shard and two volume managers of which the first may be
//! paused and go on after the second took over. Every interleaving of their steps with dead disks, damage, a partition,
//! restarts, lost answers, compaction and repair is visited; what must hold is checked in every state. The decisions are
//! those of the planner itself (`decide_length`, `decide_seal`), and the steps carry the letters of the protocol.
#![allow(clippy::unwrap_used)]

mod check;
mod explorer;
mod steps;
mod world;

use explorer::explore;
use std::collections::BTreeSet;

use world::{Budget, Bug, Scope, World};

/// Each fits into some seconds; together they have every pair of a fault with a takeover, and every pair of faults.
const SCOPES: [Scope; 6] = [
    Scope { budget: Budget { losses: 2, partitions: 0, restarts: 1 }, takeover: false, moves: false },
    Scope { budget: Budget { losses: 1, partitions: 1, restarts: 1 }, takeover: false, moves: false },
    Scope { budget: Budget { losses: 1, partitions: 0, restarts: 0 }, takeover: true, moves: false },
    Scope { budget: Budget { losses: 0, partitions: 1, restarts: 0 }, takeover: true, moves: false },
    Scope { budget: Budget { losses: 2, partitions: 0, restarts: 0 }, takeover: false, moves: true },
    Scope { budget: Budget { losses: 1, partitions: 0, restarts: 0 }, takeover: true, moves: true },
];

#[test]
fn every_invariant_holds_in_every_state() {
    let mut seen = BTreeSet::new();
    let mut states = 0;
    let explorations = SCOPES.map(|scope| std::thread::spawn(move || explore(World::new(scope), None)));
    for (scope, exploration) in SCOPES.into_iter().zip(explorations) {
        let visited = exploration.join().unwrap().unwrap_or_else(|trace| panic!("{scope:?}: {trace}"));
        println!("{scope:?}: {} states, {} steps, longest way {}", visited.states, visited.steps, visited.depth);
        states += visited.states;
        assert!(!scope.moves || visited.seen.contains("restored"), "nothing comes back from the trash: {scope:?}");
        seen.extend(visited.seen);
    }
    assert!(states > 1_000_000, "the model hardly moves: {states} states");
    for what in [
        "sealed",
        "repaired",
        "readmitted",
        "restored",
        "displaced",
        "retired",
        "erased",
        "second leader sealed",
        "late row refused",
    ] {
        assert!(seen.contains(what), "no way leads to `{what}`; {seen:?}");
    }
}

fn must_be_found(bug: Bug, expected: &str) {
    let all = Budget { losses: 2, partitions: 1, restarts: 1 };
    must_be_found_in(Scope { budget: all, takeover: true, moves: false }, bug, expected);
}

fn must_be_found_in(scope: Scope, bug: Bug, expected: &str) {
    let trace = explore(World::new(scope), Some(bug)).expect_err("the planted bug must be found");
    println!("{bug:?}: {trace}");
    assert!(trace.broken.contains(expected), "found something else: {trace}");
}

#[test]
fn answering_before_all_replicas_are_durable_is_found() {
    must_be_found(Bug::AnswerBeforeAllReplicas, "acknowledged");
}

#[test]
fn a_length_from_the_longest_tail_is_found() {
    must_be_found(Bug::LongestTail, "voted");
}

#[test]
fn an_append_without_a_look_at_the_epoch_is_found() {
    must_be_found(Bug::NoEpochCheck, "below its fence");
}

#[test]
fn a_damaged_tail_that_votes_is_found() {
    must_be_found(Bug::DamagedTailVotes, "outside of the sealed length");
}

#[test]
fn a_late_index_row_after_compaction_is_found() {
    must_be_found(Bug::LateRow, "an index row points");
}

#[test]
fn a_cut_before_the_length_is_committed_is_found() {
    must_be_found(Bug::CutBeforeCommit, "cut");
}

#[test]
fn erasing_a_returning_replica_early_is_found() {
    must_be_found(Bug::EraseEarly, "full number");
}

#[test]
fn a_replica_that_leaves_the_trash_unread_is_found() {
    // The way there is long: a move, the trash, damage there, and another loss.
    let budget = Budget { losses: 2, partitions: 0, restarts: 0 };
    must_be_found_in(Scope { budget, takeover: false, moves: true }, Bug::RestoreUnread, "out of the trash");
}

#[test]
fn an_extent_that_gives_way_and_was_not_asked_what_it_is_is_found() {
    must_be_found(Bug::DisplaceUnasked, "gave way");
}

#[test]
fn an_old_leader_whose_term_nobody_checks_is_found() {
    must_be_found(Bug::NoTermCheck, "old leader");
}
