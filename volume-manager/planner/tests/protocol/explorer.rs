//! Breadth-first over all states, so that the first trace found is a shortest one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use crate::check::broken;
use crate::steps::{Step, steps};
use crate::world::{Bug, World};

/// A model with more states than this is not small any more.
const MOST_STATES: usize = 20_000_000;

/// What was visited.
#[derive(Debug, Default)]
pub struct Visited {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// What happened somewhere.
    pub seen: BTreeSet<&'static str>,
}

/// A way to a state in which an invariant is broken.
#[derive(Debug)]
pub struct Trace {
    pub broken: String,
    pub way: Vec<Step>,
    pub states: usize,
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}, after {} states, by {} steps:", self.broken, self.states, self.way.len())?;
        self.way.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

/// Names are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only names are keys");
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}

type CameFrom = HashMap<u64, (u64, Step), BuildHasherDefault<AsItIs>>;

/// 64 bits name a state: among ten million, two share a name with a chance of about three in a million.
fn name(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits everything that can happen from `start`.
pub fn explore(start: World, bug: Option<Bug>) -> Result<Visited, Trace> {
    let start = start.canonical();
    let mut came_from = CameFrom::default();
    let first = name(&start);
    came_from.insert(first, (first, Step::Begin));
    let mut open = VecDeque::from([(start, 0)]);
    let mut visited = Visited { states: 1, ..Visited::default() };
    while let Some((world, depth)) = open.pop_front() {
        visited.depth = visited.depth.max(depth);
        let from = name(&world);
        for (step, next, what) in steps(&world, bug) {
            visited.steps += 1;
            visited.seen.extend(what);
            let next = next.canonical();
            let to = name(&next);
            if came_from.contains_key(&to) {
                continue;
            }
            came_from.insert(to, (from, step));
            visited.states += 1;
            assert!(visited.states < MOST_STATES, "more than {MOST_STATES} states");
            if let Some(broken) = broken(&next) {
                return Err(Trace { broken, way: way(&came_from, to), states: visited.states });
            }
            open.push_back((next, depth + 1));
        }
    }
    Ok(visited)
}

fn way(came_from: &CameFrom, end: u64) -> Vec<Step> {
    let mut way = Vec::new();
    let mut at = end;
    while let Some((before, step)) = came_from.get(&at) {
        if *before == at {
            break;
        }
        way.push(*step);
        at = *before;
    }
    way.reverse();
    way
}
