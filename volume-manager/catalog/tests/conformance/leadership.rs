//! Term and lease: every state that two leaders can bring about, with every step from it, against a model. A leader that is
//! paused is one that takes no steps for a while; the model lets the other take any number meanwhile, and the lease run out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_volume_manager_catalog::{Candidate, CatalogError, Leadership, ReplicationTable, Term};

use tokio::sync::Barrier;

use crate::subject::Subject;
use crate::table::node;

const TTL: Duration = Duration::from_secs(3600);

/// Terms that the model goes to: five take-overs, so that a leader can be replaced, come back and be replaced again.
const MOST: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    term: u64,
    /// Whose lease it is, and whether it runs.
    lease: Option<(usize, bool)>,
    /// The term that each of the two last became the leader with; it does not know of the other's.
    believes: [Option<u64>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Acquire(usize),
    Renew(usize),
    Write(usize),
    Release(usize),
    /// Time passes until the lease has run out.
    Expire,
}

const STEPS: [Step; 9] = [
    Step::Acquire(0),
    Step::Acquire(1),
    Step::Renew(0),
    Step::Renew(1),
    Step::Write(0),
    Step::Write(1),
    Step::Release(0),
    Step::Release(1),
    Step::Expire,
];

/// What a step must come to: the world after it, and whether it is taken.
fn step(world: World, step: Step) -> Option<(World, bool)> {
    let mut after = world;
    let leads = |who: usize| world.believes[who].map(|term| term == world.term);
    let taken = match step {
        Step::Acquire(_) if world.term == MOST => return None,
        Step::Acquire(who) => {
            let free = !matches!(world.lease, Some((holder, true)) if holder != who);
            if free {
                after.term += 1;
                (after.lease, after.believes[who]) = (Some((who, true)), Some(after.term));
            }
            free
        }
        Step::Write(who) => leads(who)?,
        Step::Renew(who) => {
            let leads = leads(who)?;
            if let (true, Some((_, runs))) = (leads, after.lease.as_mut()) {
                *runs = true;
            }
            leads
        }
        Step::Release(who) => {
            let leads = leads(who)?;
            if leads {
                after.lease = None;
            }
            leads
        }
        Step::Expire => {
            let (_, runs) = after.lease.as_mut()?;
            std::mem::replace(runs, false).then_some(true)?
        }
    };
    Some((after, taken))
}

pub fn candidate(who: usize) -> Candidate {
    Candidate { holder: format!("manager-{who}"), address: format!("https://127.0.0.1:{who}") }
}

/// Takes the step for real. Answers whether it was taken.
async fn take(subject: &Subject, table: &dyn ReplicationTable, world: World, step: Step) -> bool {
    let term = |who: usize| Term(world.believes[who].unwrap());
    let result = match step {
        Step::Acquire(who) => match table.acquire_leadership(&candidate(who), TTL).await.unwrap() {
            Leadership::Taken(term) => {
                assert_eq!(term.0, world.term + 1);
                return true;
            }
            Leadership::Held(leader) => {
                assert_eq!((leader.holder, leader.term.0), (candidate(1 - who).holder, world.term));
                return false;
            }
        },
        Step::Renew(who) => table.renew_leadership(term(who), TTL).await,
        Step::Write(who) => table.upsert_node(term(who), &node(who as u8 + 1)).await,
        Step::Release(who) => table.release_leadership(term(who)).await,
        Step::Expire => {
            subject.lease_runs_out().await;
            Ok(())
        }
    };
    match result {
        Ok(()) => true,
        Err(CatalogError::StaleTerm { given, current }) => {
            assert_eq!((Some(given.0), current.0), (Some(term_of(world, step)), world.term));
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn term_of(world: World, step: Step) -> u64 {
    match step {
        Step::Acquire(who) | Step::Renew(who) | Step::Write(who) | Step::Release(who) => world.believes[who].unwrap(),
        Step::Expire => world.term,
    }
}

pub async fn in_every_state_two_leaders_can_do_what_the_model_says_and_no_more(subject: Subject) {
    let table = subject.open().await.table;
    let start = World { term: 0, lease: None, believes: [None; 2] };
    let (mut seen, mut open) = (HashSet::from([start]), VecDeque::from([start]));
    let mut steps = 0;
    while let Some(world) = open.pop_front() {
        assert!(world.believes[0].is_none() || world.believes[0] != world.believes[1], "one term for two: {world:?}");
        for next in STEPS {
            let Some((after, taken)) = step(world, next) else { continue };
            subject.set_leader(world.term, world.lease.map(|(who, runs)| (candidate(who), runs))).await;
            assert_eq!(take(&subject, &*table, world, next).await, taken, "{next:?} in {world:?}");
            let leader = table.leader().await.unwrap();
            let lease =
                leader.map(|leader| (leader.holder.clone(), leader.address.clone(), !leader.remaining.is_zero()));
            let expected = after.lease.map(|(who, runs)| (candidate(who).holder, candidate(who).address, runs));
            assert_eq!(lease, expected, "after {next:?} in {world:?}");
            assert_eq!(table.term().await.unwrap().0, after.term, "after {next:?} in {world:?}");
            steps += 1;
            if seen.insert(after) {
                open.push_back(after);
            }
        }
    }
    assert_eq!((seen.len(), steps), (STATES, TAKEN));
}

/// Counted, so that a change of the model that leaves half of it out is seen.
const STATES: usize = 91;
const TAKEN: usize = 602;

pub async fn a_lease_ends_by_itself_and_only_then_another_leads(subject: Subject) {
    let table = subject.open().await.table;
    let short = Duration::from_millis(400);
    let Leadership::Taken(old) = table.acquire_leadership(&candidate(0), short).await.unwrap() else { panic!("held") };
    let begun = std::time::Instant::now();
    let standby = subject.open().await.table;
    let new = loop {
        match standby.acquire_leadership(&candidate(1), TTL).await.unwrap() {
            Leadership::Taken(term) => break term,
            Leadership::Held(leader) => {
                assert_eq!((leader.holder.as_str(), leader.term), ("manager-0", old));
                assert!(leader.remaining <= short && begun.elapsed() < Duration::from_secs(20));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    assert_eq!(new, Term(old.0 + 1));
    for refused in [table.renew_leadership(old, TTL).await, table.release_leadership(old).await] {
        assert!(matches!(refused, Err(CatalogError::StaleTerm { .. })));
    }
    // Its own from an earlier start is taken at once.
    let again = table.acquire_leadership(&candidate(1), TTL).await.unwrap();
    assert_eq!(again, Leadership::Taken(Term(new.0 + 1)));
    // So is one that was given up.
    table.release_leadership(Term(new.0 + 1)).await.unwrap();
    assert_eq!(table.leader().await.unwrap(), None);
    assert_eq!(table.acquire_leadership(&candidate(0), TTL).await.unwrap(), Leadership::Taken(Term(new.0 + 2)));
    for bad in
        [Candidate { holder: String::new(), ..candidate(0) }, Candidate { holder: "x".repeat(256), ..candidate(0) }]
    {
        let refused = table.acquire_leadership(&bad, TTL).await;
        assert!(matches!(refused, Err(CatalogError::BadCandidate { .. })), "{refused:?}");
    }
}

pub async fn of_many_candidates_one_leads(subject: Subject) {
    let mut tables = Vec::new();
    for _ in 0..6 {
        tables.push(subject.open().await.table);
    }
    for round in 0..20 {
        subject.set_leader(round, None).await;
        let begin = Arc::new(Barrier::new(tables.len()));
        let candidates = tables.iter().enumerate().map(|(who, table)| {
            let (table, begin) = (Arc::clone(table), Arc::clone(&begin));
            tokio::spawn(async move {
                begin.wait().await;
                table.acquire_leadership(&candidate(who), TTL).await.unwrap()
            })
        });
        let mut terms = Vec::new();
        for candidate in candidates.collect::<Vec<_>>() {
            if let Leadership::Taken(term) = candidate.await.unwrap() {
                terms.push(term);
            }
        }
        assert_eq!(terms, [Term(round + 1)]);
    }
}
