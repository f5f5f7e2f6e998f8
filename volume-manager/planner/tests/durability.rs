//! The durability model against a simulation that knows nothing of states: disks that fail at random, volumes with their own
//! replicas, copied again in order of danger.
//!
//! The simulated cell fails far more often than a real one, or nothing would be lost in the time of a test.

#![allow(clippy::unwrap_used)]

use holdfast_volume_manager_planner::{DurabilityInputs, durability};

/// SplitMix64, as uniform numbers in (0, 1).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 4.0
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() * bound as f64) as usize).min(bound - 1)
    }

    fn exponential(&mut self, rate: f64) -> f64 {
        -self.next().ln() / rate
    }
}

/// A volume: its disks, and for each since when that replica is missing.
struct Volume {
    disks: [usize; 3],
    missing: [Option<f64>; 3],
}

impl Volume {
    fn live(&self) -> usize {
        self.missing.iter().filter(|missing| missing.is_none()).count()
    }

    /// Missing replicas whose disk was noticed to have failed by now.
    fn noticed(&self, now: f64, notice_s: f64) -> usize {
        self.missing.iter().flatten().filter(|since| **since + notice_s <= now).count()
    }
}

fn volumes(inputs: &DurabilityInputs, random: &mut Random) -> Vec<Volume> {
    let (zones, per_zone) = (inputs.zones as usize, (inputs.disks / inputs.zones) as usize);
    let count = (inputs.disk_bytes / inputs.volume_bytes * inputs.disks as f64 / 3.0) as usize;
    let mut volume = || {
        let mut order: Vec<usize> = (0..zones).collect();
        for at in 0..3 {
            let other = at + random.below(zones - at);
            order.swap(at, other);
        }
        let disks = [0, 1, 2].map(|at| order[at] * per_zone + random.below(per_zone));
        Volume { disks, missing: [None; 3] }
    };
    (0..count).map(|_| volume()).collect()
}

/// Seconds until a cell loses a first volume. A failed disk is replaced by an empty one at once; copies go to the emptiest disk
/// of the same zone, so that all stay equally full, one after the other, each as fast as all disks together.
fn simulate(inputs: &DurabilityInputs, random: &mut Random) -> f64 {
    let disks = inputs.disks as usize;
    let per_zone = disks / inputs.zones as usize;
    let rate = -(1.0 - inputs.yearly_failures).ln() / (8766.0 * 3600.0) * disks as f64;
    let copy_s = inputs.volume_bytes / (inputs.repair_bytes_s * (inputs.disks as f64 - 1.0));
    let unreadable = 1.0 - (-inputs.volume_bytes * 8.0 * inputs.unreadable_bits).exp();
    let mut volumes = volumes(inputs, random);
    // Replicas that are missing, as (volume, place), in the order in which they were lost; and the volumes that lack two.
    let mut missing: Vec<(usize, usize)> = Vec::new();
    let mut endangered: Vec<usize> = Vec::new();
    let mut held = vec![0; disks];
    volumes.iter().flat_map(|volume| volume.disks).for_each(|disk| held[disk] += 1);
    let mut now = 0.0;
    let mut failure = random.exponential(rate);
    loop {
        // The most endangered volume, as far as its failures were noticed; of equals, the one that waits longest.
        let noticed = |volume: usize| volumes[volume].noticed(now, inputs.notice_s);
        let urgent = endangered.iter().find(|volume| noticed(**volume) == 2);
        let next = match urgent {
            Some(urgent) => missing.iter().position(|(volume, _)| volume == urgent),
            None => missing.first().filter(|(volume, _)| noticed(*volume) > 0).map(|_| 0),
        };
        let first_notice = || {
            let since = missing.iter().filter_map(|(volume, place)| volumes[*volume].missing[*place]);
            since.map(|since| since + inputs.notice_s).filter(|at| *at > now).fold(f64::INFINITY, f64::min)
        };
        let until = if next.is_some() { now + copy_s } else { first_notice() };
        if until < failure {
            now = until;
            let Some(at) = next else { continue };
            let (number, place) = missing.remove(at);
            let volume = &mut volumes[number];
            // A copy of the last replica finds out whether it can be read.
            if volume.live() == 1 && random.next() < unreadable {
                return now;
            }
            let zone = volume.disks[place] / per_zone * per_zone;
            let emptiest = (zone..zone + per_zone).min_by_key(|disk| held[*disk]).unwrap();
            held[emptiest] += 1;
            volume.disks[place] = emptiest;
            volume.missing[place] = None;
            endangered.retain(|endangered| *endangered != number);
            continue;
        }
        now = failure;
        failure = now + random.exponential(rate);
        let failed = random.below(disks);
        held[failed] = 0;
        for (number, volume) in volumes.iter_mut().enumerate() {
            for place in 0..3 {
                if volume.disks[place] == failed && volume.missing[place].is_none() {
                    volume.missing[place] = Some(now);
                    missing.push((number, place));
                }
            }
            match volume.live() {
                0 => return now,
                1 if !endangered.contains(&number) => endangered.push(number),
                _ => {}
            }
        }
    }
}

/// The mean of many simulated cells over the model's.
fn ratio(inputs: &DurabilityInputs, cells: u32, seed: u64) -> f64 {
    let mut random = Random(seed);
    let total: f64 = (0..cells).map(|_| simulate(inputs, &mut random)).sum();
    let simulated = total / f64::from(cells) / (8766.0 * 3600.0);
    simulated / durability(inputs).unwrap().mean_years_to_loss
}

fn env<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The model knows two failed disks at most. Here a third and a fourth are no rarity, so the simulation loses somewhat sooner;
/// at a yearly failure rate of 0.25 the two meet (0.88 to 1.06 with 400 cells).
#[test]
fn the_model_and_the_simulation_agree() {
    let hours = 3600.0;
    let cells = env("HOLDFAST_CELLS", 100);
    let base = DurabilityInputs {
        disks: 30,
        zones: 5,
        disk_bytes: 60e9,
        volume_bytes: 1e9,
        yearly_failures: env("HOLDFAST_YEARLY_FAILURES", 0.45),
        notice_s: 12.0 * hours,
        repair_bytes_s: 60e9 / 29.0 / (24.0 * hours),
        unreadable_bits: 0.0,
    };
    for (name, inputs) in [
        ("failures alone", base),
        ("three zones", DurabilityInputs { zones: 3, ..base }),
        ("a late notice", DurabilityInputs { notice_s: 48.0 * hours, ..base }),
        ("a slow repair", DurabilityInputs { repair_bytes_s: base.repair_bytes_s / 2.0, ..base }),
        ("unreadable replicas", DurabilityInputs { unreadable_bits: 1e-11, ..base }),
    ] {
        let ratio = ratio(&inputs, cells, 7);
        println!("{name}: the simulation lasts {ratio:.2} of what the model says");
        assert!((0.6..1.25).contains(&ratio), "{name}: {ratio}");
    }
}
