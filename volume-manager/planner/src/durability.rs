//! How long the cell's data lasts on paper: a Markov model of disks that fail and volumes that are copied again.
//!
//! The states are the failed disks whose volumes are not yet whole again: none, one, two. What is lost beyond three
//! replicas is lost for good, hence the fourth state:
//!
//! ```text
//!          N·λ              (N - N/z)·λ             (N - 2N/z)·λ·p
//!   none -------> one disk ------------> two disks ----------------> loss
//!        <-------          <------------           ----------------> loss
//!          1/T1             (1 - q)/T2                  q/T2
//! ```
//!
//! N equally full disks in z zones fail at rate λ each. T1 is the time to notice a failure and copy a disk's bytes with
//! all other disks taking part; T2 how long volumes that two failed disks share have one replica only: they are copied
//! first once both failures are noticed. p is the chance that a third disk holds the last replica of some volume, q that
//! a last replica cannot be read. Replicas of a volume stand in distinct zones.
//!
//! The shape of the model is that of Greenan, Plank and Wylie, "Mean time to meaningless" (HotStorage 2010), which also tells
//! what such a number is not: a promise. Failures here are independent; a flood is not in it.

use crate::COPIES;

const HOURS_OF_A_YEAR: f64 = 8766.0;

/// What the model starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DurabilityInputs {
    /// Disks.
    pub disks: u64,
    /// Zones with an equal share of the disks, at least three.
    pub zones: u64,
    /// Bytes of data on a disk.
    pub disk_bytes: f64,
    /// Bytes of a volume.
    pub volume_bytes: f64,
    /// Share of the disks that fail within a year, between 0 and 1 (annualised failure rate).
    pub yearly_failures: f64,
    /// From a disk's failure to the first copy, seconds.
    pub notice_s: f64,
    /// Bytes a second that each disk gives to repair.
    pub repair_bytes_s: f64,
    /// Unreadable bits for each bit read, when the last replica is read. Scrubbing keeps it near the drive's own rate.
    pub unreadable_bits: f64,
}

/// Why no figure can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurabilityError {
    /// An input is out of its range.
    #[error("{what} must be {range}")]
    Range {
        /// The input.
        what: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

/// What the model says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Durability {
    /// Mean time until the cell loses a first volume, years.
    pub mean_years_to_loss: f64,
    /// Chance that it loses any within a year.
    pub yearly_loss: f64,
    /// Expected share of all volumes that is lost within a year.
    pub yearly_share: f64,
    /// How many nines of a volume's chance to outlive a year.
    pub nines: f64,
    /// To make a failed disk's volumes whole again, seconds.
    pub repair_s: f64,
    /// To make those whole again that two disks share, seconds.
    pub urgent_repair_s: f64,
    /// Volumes that two disks of different zones share, on average.
    pub shared_by_two: f64,
    /// Chance that a third disk has the last replica of one of these.
    pub third_disk_matters: f64,
    /// Chance that one of the last replicas cannot be read when it is copied.
    pub last_replica_unreadable: f64,
}

impl DurabilityInputs {
    fn check(&self) -> Result<(), DurabilityError> {
        let bad = |what, range| Err(DurabilityError::Range { what, range });
        let positive = |number: f64| number > 0.0 && number.is_finite();
        if self.zones < COPIES as u64 {
            return bad("zones", "at least 3");
        }
        if self.disks < self.zones {
            return bad("disks", "at least one for each zone");
        }
        if !positive(self.disk_bytes) || !positive(self.volume_bytes) {
            return bad("bytes of a disk and of a volume", "above 0");
        }
        if !(self.yearly_failures > 0.0 && self.yearly_failures < 1.0) {
            return bad("yearly failures", "above 0 and below 1");
        }
        if !(self.notice_s >= 0.0 && self.notice_s.is_finite() && positive(self.repair_bytes_s)) {
            return bad("repair: the time to notice and the rate", "at least 0, and above 0");
        }
        if !(0.0..1.0).contains(&self.unreadable_bits) {
            return bad("unreadable bits", "at least 0 and below 1");
        }
        Ok(())
    }
}

/// Solves the model.
///
/// # Errors
/// `Range`.
pub fn durability(inputs: &DurabilityInputs) -> Result<Durability, DurabilityError> {
    inputs.check()?;
    let (disks, zones) = (inputs.disks as f64, inputs.zones as f64);
    let of_a_zone = disks / zones;
    let (elsewhere, in_third_zones) = (disks - of_a_zone, disks - 2.0 * of_a_zone);
    // A failure rate an hour under which the given share fails within a year.
    let rate = -(1.0 - inputs.yearly_failures).ln() / HOURS_OF_A_YEAR;
    let all_disks = inputs.repair_bytes_s * (disks - 1.0);
    let copying = inputs.disk_bytes / all_disks;
    let repair_s = inputs.notice_s + copying;
    let on_a_disk = inputs.disk_bytes / inputs.volume_bytes;
    // Each volume of a failed disk has two more replicas, anywhere in the other zones.
    let shared_by_two = on_a_disk * (COPIES as f64 - 1.0) / elsewhere;
    let copy_s = inputs.volume_bytes / all_disks;
    let exposure = Exposure::of(inputs.notice_s, copying, copy_s, shared_by_two, in_third_zones);
    let urgent_repair_s = exposure.exposed_s;
    let third_disk_matters = exposure.disk_s / (in_third_zones * exposure.exposed_s);
    // A second disk that fails at any moment of the first one's repair finds these not copied yet.
    let urgent = shared_by_two * (inputs.notice_s + copying / 2.0) / repair_s;
    let bits = urgent * inputs.volume_bytes * 8.0;
    let last_replica_unreadable = 1.0 - (-bits * inputs.unreadable_bits).exp();

    let (first, second) = (disks * rate, elsewhere * rate);
    let third = in_third_zones * rate * third_disk_matters;
    let (back, urgent_done) = (3600.0 / repair_s, 3600.0 / urgent_repair_s);
    let urgent_back = urgent_done * (1.0 - last_replica_unreadable);
    // Mean hours to loss from each state: t0 = 1/first + t1, and so on; solved for t0.
    let leave_one = back + second;
    let leave_two = urgent_done + third;
    // t2 = c2 + d2·t1; t1 = c1 + a1·t0 + b1·t2.
    let c2 = 1.0 / leave_two;
    let (c1, a1, b1) = (1.0 / leave_one, back / leave_one, second / leave_one);
    // 1 - a1 - b1·d2, without taking nearly equal numbers from each other: a1 + b1 = 1.
    let lost = b1 * ((urgent_done - urgent_back + third) / leave_two);
    let t1 = (c1 + a1 / first + b1 * c2) / lost;
    let hours = 1.0 / first + t1;
    let years = hours / HOURS_OF_A_YEAR;
    let lost_at_once = (urgent / in_third_zones).max(1.0);
    let volumes = on_a_disk * disks / COPIES as f64;
    let yearly_share = (lost_at_once / volumes).min(1.0) / years;
    Ok(Durability {
        mean_years_to_loss: years,
        yearly_loss: -(-1.0 / years).exp_m1(),
        yearly_share,
        nines: -yearly_share.log10(),
        repair_s,
        urgent_repair_s,
        shared_by_two,
        third_disk_matters,
        last_replica_unreadable,
    })
}

/// What a second failure costs, on average over all moments at which it may come while the first is repaired.
struct Exposure {
    /// How long some volume has one replica only, seconds.
    exposed_s: f64,
    /// Summed over the disks: how long each has the last replica of some volume, seconds.
    disk_s: f64,
}

impl Exposure {
    /// Steps of each of the two integrals.
    const STEPS: u32 = 400;

    /// `shared` volumes stand on both disks. The copies of the first begin `notice` after it failed and take `copying`; those of
    /// the shared volumes that are left when the second is noticed go first, each for `copy` seconds. Their last replicas
    /// are on any of `disks` disks. All times in seconds.
    fn of(notice: f64, copying: f64, copy: f64, shared: f64, disks: f64) -> Self {
        let whole = notice + copying;
        let steps = f64::from(Self::STEPS);
        let middles = || (0..Self::STEPS).map(|step| (f64::from(step) + 0.5) / steps);
        // Shared volumes that are not copied yet so long after the first failure, were there no second one.
        let left = |after: f64| shared * ((whole - after) / copying).clamp(0.0, 1.0);
        let mut total = Self { exposed_s: 0.0, disk_s: 0.0 };
        for second in middles().map(|part| part * whole) {
            let urgent_s = left(second + notice) * copy;
            // Until the second is noticed; then until the urgent copies are made.
            let noticed = |at: f64| left(second + at);
            let urgent = |at: f64| left(second + notice) * (1.0 - (at - notice) / urgent_s);
            let mut add = |exposed: f64, seconds: f64| {
                total.exposed_s += seconds * -(-exposed).exp_m1() / steps;
                total.disk_s += seconds * disks * -(-exposed / disks).exp_m1() / steps;
            };
            for part in middles() {
                add(noticed(part * notice), notice / steps);
                if urgent_s > 0.0 {
                    add(urgent(notice + part * urgent_s), urgent_s / steps);
                }
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::{DurabilityInputs, durability};

    fn inputs() -> DurabilityInputs {
        DurabilityInputs {
            disks: 100,
            zones: 5,
            disk_bytes: 16e12,
            volume_bytes: 1e9,
            yearly_failures: 0.02,
            notice_s: 900.0,
            repair_bytes_s: 20e6,
            unreadable_bits: 1e-15,
        }
    }

    #[test]
    fn each_input_pulls_the_way_it_should() {
        let base = durability(&inputs()).unwrap().mean_years_to_loss;
        let years = |change: fn(&mut DurabilityInputs)| {
            let mut inputs = inputs();
            change(&mut inputs);
            durability(&inputs).unwrap().mean_years_to_loss
        };
        assert!(years(|i| i.yearly_failures = 0.04) < base / 4.0);
        assert!(years(|i| i.repair_bytes_s *= 2.0) > base * 1.5);
        assert!(years(|i| i.notice_s = 86_400.0) < base / 4.0);
        assert!(years(|i| i.unreadable_bits = 1e-14) < base / 2.0);
        assert!(years(|i| i.disk_bytes *= 2.0) < base);
    }

    #[test]
    fn inputs_that_mean_nothing_are_refused() {
        for change in [
            |i: &mut DurabilityInputs| i.zones = 2,
            |i: &mut DurabilityInputs| i.disks = 4,
            |i: &mut DurabilityInputs| i.yearly_failures = 1.0,
            |i: &mut DurabilityInputs| i.repair_bytes_s = 0.0,
            |i: &mut DurabilityInputs| i.notice_s = f64::NAN,
            |i: &mut DurabilityInputs| i.unreadable_bits = 1.0,
        ] {
            let mut inputs = inputs();
            change(&mut inputs);
            assert!(durability(&inputs).is_err(), "{inputs:?}");
        }
    }
}
