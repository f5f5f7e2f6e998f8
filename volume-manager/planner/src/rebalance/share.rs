//! How many replicas each domain should hold, and how many it gives and takes to come near that.

/// Deals `total` among domains in proportion to their weights, none beyond its cap. What the caps hold back goes to the
/// others; what no cap leaves room for is not dealt.
pub(super) fn deal(total: f64, weights: &[f64], caps: &[f64]) -> Vec<f64> {
    let mut shares = vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|at| weights[*at] > 0.0).collect();
    let mut left = total;
    loop {
        let weight: f64 = open.iter().map(|at| weights[*at]).sum();
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|at| left * weights[**at] >= caps[**at] * weight);
        if full.is_empty() {
            for at in rest {
                shares[at] = left * weights[at] / weight;
            }
            return shares;
        }
        for at in full {
            shares[at] = caps[at];
            left -= caps[at];
        }
        open = rest;
    }
}

/// What each domain gives away and takes in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flows {
    pub gives: Vec<u64>,
    pub takes: Vec<u64>,
}

/// Levels domains that hold `has` to their `targets`. Those within `band` (a fraction) of their target count as level; what
/// the others lack or have too much is taken from the relatively fullest and given to the relatively emptiest. `net` more
/// are given than taken; below zero, the other way round.
pub(super) fn level(has: &[u64], targets: &[f64], band: f64, net: i64) -> Flows {
    let mut lacking = 0.0;
    let mut surplus = 0.0;
    for (has, target) in has.iter().zip(targets) {
        let has = *has as f64;
        if has < target * (1.0 - band) - 1.0 {
            lacking += target - has;
        } else if has > target * (1.0 + band) + 1.0 || *target == 0.0 {
            surplus += has - target;
        }
    }
    let (lacking, surplus) = (lacking.round() as i64, surplus.round() as i64);
    let gives = surplus.max(lacking + net).max(0);
    let takes = (gives - net).max(0);
    let full: Vec<f64> = has.iter().map(|has| *has as f64).collect();
    Flows { gives: above_a_level(&full, targets, gives), takes: below_a_level(&full, targets, takes) }
}

/// Whether one replica less in the first domain and one more in the second, each by what it has and its share, brings the two
/// closer to their shares: the sum of `(has - share)^2 / share` falls.
pub(super) fn brings_closer(from: (u64, f64), to: (u64, f64)) -> bool {
    (from.0 as f64 - 0.5) / from.1 > (to.0 as f64 + 0.5) / to.1
}

/// Cuts `amount` off the domains that are fullest in relation to their targets, down to one level.
fn above_a_level(has: &[f64], targets: &[f64], amount: i64) -> Vec<u64> {
    let cut = |level: f64| -> Vec<f64> {
        has.iter().zip(targets).map(|(has, target)| (has - target * level).max(0.0)).collect()
    };
    // What stands on domains with no target goes at any level.
    let ceiling = has.iter().zip(targets).filter(|(_, target)| **target > 0.0).map(|(has, target)| has / target);
    let (mut low, mut high) = (0.0, ceiling.fold(0.0, f64::max));
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if cut(middle).iter().sum::<f64>() > amount as f64 { low = middle } else { high = middle }
    }
    whole(&cut(low), amount)
}

/// Fills the domains that are emptiest in relation to their targets with `amount`, up to one level.
fn below_a_level(has: &[f64], targets: &[f64], amount: i64) -> Vec<u64> {
    let fill = |level: f64| -> Vec<f64> {
        has.iter().zip(targets).map(|(has, target)| (target * level - has).max(0.0)).collect()
    };
    let dealt: f64 = targets.iter().sum();
    if dealt <= 0.0 {
        return vec![0; has.len()];
    }
    let (mut low, mut high) = (0.0, (has.iter().sum::<f64>() + amount as f64) / dealt + 1.0);
    while fill(high).iter().sum::<f64>() < amount as f64 {
        high *= 2.0;
    }
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if fill(middle).iter().sum::<f64>() < amount as f64 { low = middle } else { high = middle }
    }
    whole(&fill(high), amount)
}

/// Whole numbers near `parts` that add up to at most `amount`, the largest remainders first.
fn whole(parts: &[f64], amount: i64) -> Vec<u64> {
    let mut numbers: Vec<u64> = parts.iter().map(|part| part.floor() as u64).collect();
    let mut left = (amount.max(0) as u64).saturating_sub(numbers.iter().sum());
    let mut order: Vec<usize> = (0..parts.len()).filter(|at| parts[*at].fract() > 0.0).collect();
    order.sort_by(|a, b| parts[*b].fract().total_cmp(&parts[*a].fract()).then(a.cmp(b)));
    for at in order {
        if left == 0 {
            break;
        }
        numbers[at] += 1;
        left -= 1;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::{Flows, brings_closer, deal, level};

    #[test]
    fn what_a_cap_holds_back_goes_to_the_others() {
        assert_eq!(deal(30.0, &[1.0, 2.0, 3.0], &[100.0, 100.0, 9.0]), [7.0, 14.0, 9.0]);
        assert_eq!(deal(30.0, &[1.0, 0.0, 1.0], &[100.0; 3]), [15.0, 0.0, 15.0]);
        assert_eq!(deal(30.0, &[1.0, 1.0], &[5.0, 6.0]), [5.0, 6.0], "there is no room for more");
    }

    #[test]
    fn only_what_leaves_the_band_moves_and_a_leaving_domain_gives_all() {
        assert_eq!(level(&[100, 102, 98], &[100.0; 3], 0.05, 0), Flows { gives: vec![0; 3], takes: vec![0; 3] });
        assert_eq!(level(&[100, 100, 0], &[66.7, 66.7, 66.6], 0.05, 0).gives, [34, 33, 0]);
        let drained = level(&[100, 104, 96], &[0.0, 150.0, 150.0], 0.05, 0);
        assert_eq!(drained, Flows { gives: vec![100, 0, 0], takes: vec![0, 46, 54] });
        let sends_ten = level(&[100, 100], &[95.0, 95.0], 0.1, 10);
        assert_eq!(sends_ten, Flows { gives: vec![5, 5], takes: vec![0, 0] });
    }

    #[test]
    fn a_move_brings_closer_when_it_does_more_than_swap_two_domains() {
        assert!(brings_closer((10, 9.5), (8, 9.5)) && !brings_closer((10, 9.5), (9, 9.5)));
        assert!(brings_closer((20, 20.0), (4, 5.0)) && !brings_closer((18, 20.0), (4, 5.0)));
        assert!(brings_closer((1, 0.0), (30, 20.0)), "what leaves goes anywhere");
    }
}
