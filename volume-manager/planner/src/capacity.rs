//! How many volumes fit.

use crate::COPIES;

/// How many volumes fit whose replicas stand in distinct domains (zones or nodes), when these are the slots of the domains that
/// volumes may take.
///
/// So many, n, fit exactly when no domain needs to hold more than one replica of each: the domains together, each counted with
/// no more than n of its slots, have room for all replicas.
pub fn volumes_that_fit(slots_of_domains: &[u64]) -> u64 {
    let copies = COPIES as u64;
    let capped = |n: u64| slots_of_domains.iter().fold(0_u64, |sum, slots| sum.saturating_add((*slots).min(n)));
    let fit = |n: u64| capped(n) / copies >= n;
    let (mut fits, mut too_many) = (0, capped(u64::MAX) / copies + 1);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        if fit(middle) { fits = middle } else { too_many = middle }
    }
    fits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::volumes_that_fit;

    /// The best there is: each volume into the three zones that have most left.
    fn one_by_one(mut zones: Vec<u64>) -> u64 {
        let mut placed = 0;
        loop {
            zones.sort_unstable_by(|a, b| b.cmp(a));
            if zones.get(2).is_none_or(|third| *third == 0) {
                return placed;
            }
            zones[..3].iter_mut().for_each(|slots| *slots -= 1);
            placed += 1;
        }
    }

    proptest! {
        #[test]
        fn as_many_fit_as_can_be_placed_one_by_one(zones in prop::collection::vec(0_u64..40, 0..7)) {
            prop_assert_eq!(volumes_that_fit(&zones), one_by_one(zones));
        }
    }

    #[test]
    fn zones_of_any_size_are_counted() {
        assert_eq!(volumes_that_fit(&[1 << 40; 3]), 1 << 40);
        assert_eq!(volumes_that_fit(&[u64::MAX, u64::MAX, 0]), 0);
    }
}
