//! Which replicas move so that every disk holds its share, that volumes stand as far apart as the cell allows, and that
//! what is drained gets empty.
//!
//! - A disk's share follows its capacity, as far as the domains allow: a zone cannot hold more replicas of a volume than
//!   distinctness leaves it. Shares are dealt from the top of the tree down.
//! - Nothing moves between disks that are within the band of their shares, so a new disk draws its share from all others
//!   and nothing else moves.
//! - What moves for the shares brings the two zones, or the two disks of a zone, closer to them, so that plans come to an end
//!   whatever cannot move.
//! - A plan moves one replica of a volume at most, and never one to a place where the volume would stand closer together
//!   than it does. What could not move yet is for the next plan.
//! - The same question gets the same answer.

mod lots;
mod share;

use std::collections::HashMap;

use holdfast_libs_types::{DiskId, VolumeId};

use crate::spread::{Domains, number_domains, spread_of};
use crate::{COPIES, Inventory, InventoryDisk, Spread};
use lots::{Draws, Lots};
use share::{Flows, brings_closer, deal, level};

/// Tries to draw a disk in a zone before the zone counts as having none that fits.
const DRAWS: usize = 16;

/// What a plan may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RebalancePolicy {
    /// Disks within this fraction of their share are left alone.
    pub band: f64,
    /// Most moves of a plan.
    pub most: usize,
}

impl Default for RebalancePolicy {
    fn default() -> Self {
        Self { band: 0.03, most: usize::MAX }
    }
}

/// Why a replica moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MoveReason {
    /// Its disk is drained.
    Drain,
    /// The volume's replicas stand closer together than they must.
    Spread,
    /// Its disk holds more than its share.
    Fill,
}

/// One replica to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The volume.
    pub volume: VolumeId,
    /// The disk that gives it up once the other copy is verified.
    pub from: DiskId,
    /// The disk that gets it.
    pub to: DiskId,
    /// Why.
    pub reason: MoveReason,
}

/// A disk before and after a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskFill {
    /// The disk.
    pub disk: DiskId,
    /// Replicas on it.
    pub has: u64,
    /// Replicas on it once all moves are done.
    pub after: u64,
    /// Its share.
    pub share: f64,
}

/// What to move.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RebalancePlan {
    /// The moves, in the order of the volumes' ids.
    pub moves: Vec<Move>,
    /// Every disk. One that neither takes new extents nor leaves has no share, and keeps what it holds.
    pub disks: Vec<DiskFill>,
    /// Volumes that stand closer together than the cell allows and found no better place now.
    pub crowded: u64,
    /// Replicas that should move and found no place now, without those on disks that leave.
    pub left_over: u64,
}

/// Disks that take no copy of a volume now, though others of its kind do.
pub type Barred = HashMap<VolumeId, Vec<DiskId>>;

/// Plans moves for `volumes`, which come in the order of their ids, each with the disks of its replicas. They are gone
/// through two or three times. No replica goes where its volume is `barred`. Replicas of `still`, those of volumes that cannot
/// move now, count where they are.
pub fn plan_rebalance<'a>(
    inventory: &Inventory,
    volumes: impl Iterator<Item = (VolumeId, &'a [DiskId])> + Clone,
    still: impl Iterator<Item = &'a [DiskId]>,
    barred: &Barred,
    policy: &RebalancePolicy,
) -> RebalancePlan {
    let mut planner = Planner::new(inventory, barred, policy);
    for replicas in still {
        planner.count(replicas);
    }
    for (volume, replicas) in volumes.clone() {
        planner.count(replicas);
        planner.set_apart(volume, replicas);
    }
    planner.set_flows();
    for (volume, replicas) in volumes.clone() {
        planner.fill(volume, replicas);
    }
    if planner.zones.iter().any(Zone::lacks) {
        planner.sort_moves();
        for (volume, replicas) in volumes {
            planner.fill_from_others(volume, replicas);
        }
    }
    planner.finish()
}

/// A zone in the making of a plan. Disks are numbered within it.
#[derive(Default)]
struct Zone {
    /// Its disks that take part.
    disks: Vec<usize>,
    /// Room for replicas that come for the spread.
    room: Lots,
    /// What its disks still take for their share.
    takes: Lots,
    /// Replicas that still move within it.
    inner: u64,
    /// Replicas that still leave it, ...
    outward: u64,
    /// ... or come to it.
    inward: u64,
    /// Replicas in it, with the moves so far done, ...
    has: u64,
    /// ... and its share.
    share: f64,
}

impl Zone {
    /// Whether it should get replicas from other zones, and found none.
    fn lacks(&self) -> bool {
        self.inward > 0 && self.takes.left() > 0
    }

    /// What it has, and its share.
    fn level(&self) -> (u64, f64) {
        (self.has, self.share)
    }
}

struct Planner<'i> {
    policy: RebalancePolicy,
    disks: &'i [InventoryDisk],
    barred: &'i Barred,
    by_id: HashMap<DiskId, usize>,
    domains: Vec<Domains>,
    /// The zone of each disk, and its number there.
    places: Vec<(usize, usize)>,
    zones: Vec<Zone>,
    best: Spread,
    volumes: u64,
    before: Vec<u64>,
    /// With the moves so far done.
    has: Vec<u64>,
    /// Replicas that came to each disk for the spread.
    arrived: Vec<u64>,
    shares: Vec<f64>,
    /// What each disk still gives for its share.
    gives: Vec<u64>,
    /// Moves at the front of the plan that are in the order of the volumes.
    sorted: usize,
    plan: RebalancePlan,
}

impl<'i> Planner<'i> {
    fn new(inventory: &'i Inventory, barred: &'i Barred, policy: &RebalancePolicy) -> Self {
        let disks = &inventory.disks[..];
        let mut numbers = HashMap::new();
        let mut zones: Vec<Zone> = Vec::new();
        let mut places = Vec::with_capacity(disks.len());
        for (at, disk) in disks.iter().enumerate() {
            let zone = *numbers.entry(disk.zone.as_str()).or_insert_with(|| {
                zones.push(Zone::default());
                zones.len() - 1
            });
            places.push((zone, zones[zone].disks.len()));
            zones[zone].disks.push(at);
        }
        for zone in &mut zones {
            let room = |at: &usize| if disks[*at].eligible { disks[*at].free_above_reserve() } else { 0 };
            zone.room = Lots::new(&zone.disks.iter().map(room).collect::<Vec<_>>());
        }
        Self {
            policy: *policy,
            disks,
            barred,
            by_id: disks.iter().enumerate().map(|(at, disk)| (disk.disk, at)).collect(),
            domains: number_domains(disks),
            places,
            zones,
            best: Spread::best(disks.iter().filter(|disk| disk.eligible)),
            volumes: 0,
            before: vec![0; disks.len()],
            has: vec![0; disks.len()],
            arrived: vec![0; disks.len()],
            shares: vec![0.0; disks.len()],
            gives: vec![0; disks.len()],
            sorted: 0,
            plan: RebalancePlan::default(),
        }
    }

    /// The disks of a volume's replicas, as far as they are known.
    fn known(&self, replicas: &[DiskId]) -> Vec<usize> {
        replicas.iter().filter_map(|disk| self.by_id.get(disk).copied()).collect()
    }

    fn is_barred(&self, volume: VolumeId, disk: usize) -> bool {
        self.barred.get(&volume).is_some_and(|barred| barred.contains(&self.disks[disk].disk))
    }

    fn spread(&self, disks: &[usize]) -> Spread {
        spread_of(disks.iter().map(|at| self.domains[*at]))
    }

    fn count(&mut self, replicas: &[DiskId]) {
        self.volumes += 1;
        for at in self.known(replicas) {
            self.before[at] += 1;
            self.has[at] += 1;
        }
    }

    /// Moves a replica of a volume when it stands too close together.
    fn set_apart(&mut self, volume: VolumeId, replicas: &[DiskId]) {
        let known = self.known(replicas);
        if known.len() < COPIES || self.spread(&known) >= self.best {
            return;
        }
        if !self.spread_out(volume, &known) {
            self.plan.crowded += 1;
        }
    }

    fn spread_out(&mut self, volume: VolumeId, known: &[usize]) -> bool {
        let now = self.spread(known);
        let mut draws = Draws::of(volume);
        let mut found: Option<(Spread, usize, usize)> = None;
        for (place, from) in known.iter().enumerate() {
            if !self.disks[*from].eligible && !self.disks[*from].leaving {
                continue;
            }
            for zone in 0..self.zones.len() {
                for _ in 0..DRAWS {
                    let Some(number) = self.zones[zone].room.draw(draws.next()) else { break };
                    let to = self.zones[zone].disks[number];
                    let then = self.spread(&with(known, place, to));
                    if self.is_barred(volume, to) {
                        continue;
                    }
                    if !known.contains(&to) && then > found.map_or(now, |(best, ..)| best) {
                        found = Some((then, *from, to));
                    }
                    if then >= self.best {
                        break;
                    }
                }
            }
        }
        let Some((_, from, to)) = found.filter(|_| self.plan.moves.len() < self.policy.most) else { return false };
        let (zone, number) = self.places[to];
        self.zones[zone].room.take(number);
        self.arrived[to] += 1;
        self.note(volume, from, to, MoveReason::Spread);
        true
    }

    /// From what was counted: what every disk gives and takes.
    fn set_flows(&mut self) {
        self.sort_moves();
        let weight = |at: &usize| {
            let disk = &self.disks[*at];
            if disk.eligible { disk.slots as f64 } else { 0.0 }
        };
        let takes_part = |at: &usize| self.disks[*at].eligible || self.disks[*at].leaving;
        let members: Vec<Vec<usize>> =
            self.zones.iter().map(|zone| zone.disks.iter().copied().filter(takes_part).collect()).collect();
        let counts: Vec<u64> = members.iter().map(|disks| disks.iter().map(|at| self.has[*at]).sum()).collect();
        let weights: Vec<f64> = members.iter().map(|disks| disks.iter().map(weight).sum()).collect();
        let in_use = weights.iter().filter(|weight| **weight > 0.0).count().max(1);
        let volumes = self.volumes as f64;
        let most = volumes * COPIES.div_ceil(in_use) as f64;
        let caps: Vec<f64> = weights.iter().map(|weight| weight.min(most)).collect();
        let total: u64 = counts.iter().sum();
        let zone_shares = deal(total as f64, &weights, &caps);
        let between = level(&counts, &zone_shares, self.policy.band, 0);
        for (zone, disks) in members.iter().enumerate() {
            let (outward, inward) = (between.gives[zone], between.takes[zone]);
            let goal = counts[zone] + inward - outward;
            let shares = self.shares_in_zone(disks, goal as f64, weight);
            let has: Vec<u64> = disks.iter().map(|at| self.has[*at]).collect();
            let net = outward.cast_signed() - inward.cast_signed();
            let Flows { gives, takes } = level(&has, &shares, self.policy.band, net);
            let mut places = vec![0; self.zones[zone].disks.len()];
            for (number, at) in disks.iter().enumerate() {
                self.shares[*at] = shares[number];
                self.gives[*at] = gives[number];
                let room = self.disks[*at].free_above_reserve().saturating_sub(self.arrived[*at]);
                places[self.places[*at].1] = takes[number].min(room);
            }
            let (has_now, share) = (counts[zone], zone_shares[zone]);
            let zone = &mut self.zones[zone];
            zone.takes = Lots::new(&places);
            zone.inner = gives.iter().sum::<u64>().saturating_sub(outward);
            (zone.outward, zone.inward) = (outward, inward);
            (zone.has, zone.share) = (has_now, share);
        }
    }

    /// Deals what a zone holds to its nodes, and what a node holds to its disks.
    fn shares_in_zone(&self, disks: &[usize], total: f64, weight: impl Fn(&usize) -> f64) -> Vec<f64> {
        let volumes = self.volumes as f64;
        let mut numbers = HashMap::new();
        let mut nodes: Vec<Vec<usize>> = Vec::new();
        for (number, at) in disks.iter().enumerate() {
            let node = *numbers.entry(&self.disks[*at].node).or_insert_with(|| {
                nodes.push(Vec::new());
                nodes.len() - 1
            });
            nodes[node].push(number);
        }
        let weights = |numbers: &[usize]| numbers.iter().map(|number| weight(&disks[*number])).collect::<Vec<f64>>();
        let node_weights: Vec<f64> = nodes.iter().map(|numbers| weights(numbers).iter().sum()).collect();
        let node_caps: Vec<f64> = node_weights.iter().map(|weight| weight.min(volumes)).collect();
        let node_shares = deal(total, &node_weights, &node_caps);
        let mut shares = vec![0.0; disks.len()];
        for (numbers, share) in nodes.iter().zip(node_shares) {
            let weights = weights(numbers);
            for (number, share) in numbers.iter().zip(deal(share, &weights, &weights)) {
                shares[*number] = share;
            }
        }
        shares
    }

    /// Moves a replica of a volume off a disk that gives, to one that takes.
    fn fill(&mut self, volume: VolumeId, replicas: &[DiskId]) {
        let known = self.known(replicas);
        if known.iter().all(|at| self.gives[*at] == 0) || self.moved(volume) {
            return;
        }
        let mut draws = Draws::of(volume);
        let first = draws.next() as usize % known.len();
        for place in (0..known.len()).map(|step| (first + step) % known.len()) {
            let from = known[place];
            if self.gives[from] == 0 || self.plan.moves.len() >= self.policy.most {
                continue;
            }
            let Some(to) = self.target(volume, &known, place, &mut draws) else { continue };
            self.take(volume, from, to);
            return;
        }
    }

    /// Moves a replica of a volume to a zone that still lacks some and has none of this one, though its disk does not give
    /// any: where nearly every volume has a replica in a zone, those of the disks that give may all have one. The next plan
    /// fills the gap that this leaves. Only from a zone that lacks none and is fuller: zones that all lack what cannot move now
    /// would else hand their gaps around for ever.
    fn fill_from_others(&mut self, volume: VolumeId, replicas: &[DiskId]) {
        let known = self.known(replicas);
        if known.is_empty() || self.plan.moves.len() >= self.policy.most || self.moved(volume) {
            return;
        }
        let lacking = (0..self.zones.len())
            .filter(|zone| self.zones[*zone].lacks() && known.iter().all(|at| self.places[*at].0 != *zone));
        let fullness = |at: usize| self.has[at] as f64 / self.shares[at];
        let mut found = lacking.filter_map(|zone| {
            let gives = |home: &Zone| home.inward == 0 && brings_closer(home.level(), self.zones[zone].level());
            let can_give = |at: usize| self.shares[at] > 0.0 && gives(&self.zones[self.places[at].0]);
            let giving = (0..known.len()).filter(|place| can_give(known[*place]));
            Some((zone, giving.max_by(|a, b| fullness(known[*a]).total_cmp(&fullness(known[*b])))?))
        });
        let Some((zone, place)) = found.next() else { return };
        let now = self.spread(&known);
        let mut draws = Draws::of(volume);
        let fits = |to: usize| self.fits(volume, &known, place, to, now);
        if let Some(to) = self.target_in(zone, &fits, &mut draws) {
            self.take(volume, known[place], to);
        }
    }

    /// Notes a move for the shares.
    fn take(&mut self, volume: VolumeId, from: usize, to: usize) {
        let (home, (zone, number)) = (self.places[from].0, self.places[to]);
        self.zones[zone].takes.take(number);
        self.gives[from] = self.gives[from].saturating_sub(1);
        if zone == home {
            self.zones[zone].inner -= 1;
        } else {
            self.zones[home].outward = self.zones[home].outward.saturating_sub(1);
            self.zones[zone].inward -= 1;
            self.zones[home].has -= 1;
            self.zones[zone].has += 1;
        }
        let reason = if self.disks[from].leaving { MoveReason::Drain } else { MoveReason::Fill };
        self.note(volume, from, to, reason);
    }

    /// A disk that takes the replica at `place`: in another zone while this one is to give some away.
    fn target(&self, volume: VolumeId, known: &[usize], place: usize, draws: &mut Draws) -> Option<usize> {
        let now = self.spread(known);
        let fits = |to: usize| self.fits(volume, known, place, to, now);
        let home = self.places[known[place]].0;
        let mut zones: Vec<(usize, u64)> = Vec::new();
        if self.zones[home].outward > 0 {
            let inward = |(at, zone): (usize, &Zone)| (at, zone.inward.min(zone.takes.left()));
            let others = self.zones.iter().enumerate().filter(|(at, _)| *at != home);
            let emptier = others.filter(|(_, zone)| brings_closer(self.zones[home].level(), zone.level()));
            zones.extend(emptier.map(inward).filter(|(_, room)| *room > 0));
        }
        while !zones.is_empty() {
            let lots = Lots::new(&zones.iter().map(|(_, room)| *room).collect::<Vec<_>>());
            let drawn = lots.draw(draws.next())?;
            let (zone, _) = zones.swap_remove(drawn);
            if let Some(to) = self.target_in(zone, &fits, draws) {
                return Some(to);
            }
        }
        let disk = |at: usize| (self.has[at], self.shares[at]);
        let fits = |to: usize| brings_closer(disk(known[place]), disk(to)) && fits(to);
        (self.zones[home].inner > 0).then(|| self.target_in(home, &fits, draws)).flatten()
    }

    fn target_in(&self, zone: usize, fits: &impl Fn(usize) -> bool, draws: &mut Draws) -> Option<usize> {
        let zone = &self.zones[zone];
        (0..DRAWS).find_map(|_| {
            let to = zone.disks[zone.takes.draw(draws.next())?];
            fits(to).then_some(to)
        })
    }

    /// Whether the replica at `place` may go to a disk, where its volume stands as far apart as it does `now`.
    fn fits(&self, volume: VolumeId, known: &[usize], place: usize, to: usize, now: Spread) -> bool {
        !known.contains(&to) && !self.is_barred(volume, to) && self.spread(&with(known, place, to)) >= now
    }

    fn sort_moves(&mut self) {
        self.plan.moves.sort_by_key(|step| step.volume);
        self.sorted = self.plan.moves.len();
    }

    /// Whether a replica of it moves, by what was planned when the volumes were gone through before.
    fn moved(&self, volume: VolumeId) -> bool {
        self.plan.moves[..self.sorted].binary_search_by_key(&volume, |step| step.volume).is_ok()
    }

    fn note(&mut self, volume: VolumeId, from: usize, to: usize, reason: MoveReason) {
        self.has[from] -= 1;
        self.has[to] += 1;
        self.plan.moves.push(Move { volume, from: self.disks[from].disk, to: self.disks[to].disk, reason });
    }

    fn finish(mut self) -> RebalancePlan {
        self.sort_moves();
        let stays = |at: &usize| !self.disks[*at].leaving;
        self.plan.left_over = (0..self.disks.len()).filter(stays).map(|at| self.gives[at]).sum();
        self.plan.disks = (0..self.disks.len())
            .map(|at| DiskFill {
                disk: self.disks[at].disk,
                has: self.before[at],
                after: self.has[at],
                share: self.shares[at],
            })
            .collect();
        self.plan
    }
}

/// The disks with the one at `place` replaced.
fn with(disks: &[usize], place: usize, by: usize) -> Vec<usize> {
    let mut disks = disks.to_vec();
    disks[place] = by;
    disks
}
