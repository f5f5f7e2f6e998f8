//! How long the disks of a silent node are waited for before they count as lost.
//!
//! The nodes that are silent are dealt into events, from the one that has been silent for longest: an event holds all that
//! went silent before its first node would have been lost on its own. So an event only grows while nobody in it has been
//! given up, and what falls silent later never changes an earlier event.
//!
//! - More than one zone, or more than half of the nodes that were there, within one event: rather this volume manager is cut
//!   off. Nothing is lost while that lasts, whatever else is silent.
//! - All nodes of a zone, and more than one: the zone has vanished, and is waited for longer than a disk.
//! - Anything else: as long as for a disk. A zone of one node is no more than that node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node, and for how long it has not been heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSilence<'a> {
    /// Its zone.
    pub zone: &'a str,
    /// Since it was heard of last.
    pub silence: Duration,
}

/// From which silence on something is suspect, and a disk that is away on its own is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsenceLimits {
    /// Suspect.
    pub suspect: Duration,
    /// Lost.
    pub lost: Duration,
}

/// With what a node's disks are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// As long as for a single disk.
    #[default]
    Disk,
    /// As long as for a zone: all of its zone is silent.
    Zone,
    /// Until it is heard again: so much is silent that it is rather the volume manager that is cut off.
    Cell,
}

/// What is silent at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absences {
    /// One for each node, in the order in which they were given.
    pub patience: Vec<Patience>,
    /// Zones that have vanished as a whole.
    pub zones: BTreeSet<String>,
    /// So much is gone that nothing is given up.
    pub cut_off: Option<CutOff>,
}

/// What went silent at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// Silent nodes.
    pub nodes: usize,
    /// Nodes there before.
    pub of_nodes: usize,
    /// Zones without a node that is heard of.
    pub zones: usize,
    /// Zones there before.
    pub of_zones: usize,
}

/// Deals with the silent nodes among all nodes of the cell.
pub fn absences(nodes: &[NodeSilence<'_>], limits: &AbsenceLimits) -> Absences {
    let mut silent: Vec<usize> = (0..nodes.len()).filter(|index| nodes[*index].silence > limits.suspect).collect();
    silent.sort_by_key(|index| std::cmp::Reverse(nodes[*index].silence));
    let mut found = Absences { patience: vec![Patience::Disk; nodes.len()], ..Absences::default() };
    // Nodes of each zone that no earlier event took.
    let mut there: BTreeMap<&str, usize> = BTreeMap::new();
    nodes.iter().for_each(|node| *there.entry(node.zone).or_default() += 1);
    let mut left = silent.as_slice();
    while let Some(first) = left.first() {
        let oldest = nodes[*first].silence;
        let together = |index: &&usize| oldest - nodes[**index].silence + limits.suspect < limits.lost;
        // The first belongs to it, however short the limits are.
        let (event, later) = left.split_at(left.iter().take_while(together).count().max(1));
        left = later;
        deal(nodes, event, &mut there, &mut found);
    }
    if found.cut_off.is_some() {
        silent.into_iter().for_each(|index| found.patience[index] = Patience::Cell);
    }
    found
}

/// One event; takes its nodes out of those that are `there`.
fn deal<'a>(nodes: &[NodeSilence<'a>], event: &[usize], there: &mut BTreeMap<&'a str, usize>, found: &mut Absences) {
    let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
    event.iter().for_each(|index| *gone.entry(nodes[*index].zone).or_default() += 1);
    let before: usize = there.values().sum();
    let zones_before = there.values().filter(|count| **count > 0).count();
    let vanished: Vec<&str> =
        gone.iter().filter(|(zone, count)| there[*zone] == **count).map(|(zone, _)| *zone).collect();
    if vanished.len() > 1 || event.len() * 2 > before {
        found.cut_off.get_or_insert(CutOff {
            nodes: event.len(),
            of_nodes: before,
            zones: vanished.len(),
            of_zones: zones_before,
        });
    }
    for zone in vanished.into_iter().filter(|zone| gone[zone] > 1) {
        found.zones.insert(zone.to_owned());
        event.iter().filter(|index| nodes[**index].zone == zone).for_each(|index| {
            found.patience[*index] = Patience::Zone;
        });
    }
    for (zone, count) in gone {
        there.entry(zone).and_modify(|there| *there -= count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AbsenceLimits, Absences, CutOff, NodeSilence, Patience, absences};

    const LIMITS: AbsenceLimits = AbsenceLimits { suspect: Duration::from_secs(3), lost: Duration::from_secs(900) };

    /// Nodes by zone and seconds of silence.
    fn of(nodes: &[(&'static str, u64)]) -> Absences {
        let nodes: Vec<NodeSilence<'_>> =
            nodes.iter().map(|(zone, s)| NodeSilence { zone, silence: Duration::from_secs(*s) }).collect();
        absences(&nodes, &LIMITS)
    }

    const fn nine(silence: [u64; 9]) -> [(&'static str, u64); 9] {
        let [a, b, c, d, e, f, g, h, i] = silence;
        [("1", a), ("1", b), ("1", c), ("2", d), ("2", e), ("2", f), ("3", g), ("3", h), ("3", i)]
    }

    use Patience::{Cell, Disk, Zone};

    #[test]
    fn a_node_alone_or_two_of_a_zone_are_waited_for_as_a_disk() {
        assert_eq!(of(&nine([60, 0, 0, 0, 0, 0, 0, 0, 0])).patience, [Disk; 9]);
        let two = of(&nine([60, 61, 2, 0, 0, 50, 0, 0, 0]));
        assert_eq!((two.patience, two.cut_off), (vec![Disk; 9], None));
        assert_eq!(of(&[("1", 60), ("2", 0), ("3", 0), ("4", 0)]).patience, [Disk; 4], "its zone is that node");
    }

    #[test]
    fn a_zone_of_which_nobody_speaks_is_waited_for_as_a_zone() {
        let found = of(&nine([0, 0, 0, 60, 61, 60, 0, 0, 1]));
        assert_eq!(found.patience, [Disk, Disk, Disk, Zone, Zone, Zone, Disk, Disk, Disk]);
        assert_eq!((found.zones.len(), found.cut_off), (1, None));
        // With a node that was gone before.
        assert_eq!(of(&nine([0, 0, 5000, 60, 61, 60, 0, 0, 1])).patience[2..6], [Disk, Zone, Zone, Zone]);
    }

    #[test]
    fn a_node_that_was_given_up_before_the_rest_of_its_zone_fell_silent_stays_given_up() {
        for (first, expected) in [(960, [Disk, Zone, Zone]), (956, [Zone, Zone, Zone])] {
            assert_eq!(of(&nine([first, 60, 60, 0, 0, 0, 0, 0, 0])).patience[..3], expected, "{first}");
        }
        assert_eq!(of(&nine([5000, 3000, 60, 0, 0, 0, 0, 0, 0])).patience, [Disk; 9], "one after the other");
    }

    #[test]
    fn more_than_a_zone_or_more_than_half_at_once_is_no_loss_at_all() {
        let zones = of(&nine([60, 60, 60, 61, 61, 61, 0, 0, 0]));
        assert_eq!(zones.cut_off, Some(CutOff { nodes: 6, of_nodes: 9, zones: 2, of_zones: 3 }));
        assert_eq!(zones.patience, [Cell, Cell, Cell, Cell, Cell, Cell, Disk, Disk, Disk]);
        let half = of(&nine([60, 60, 0, 61, 61, 0, 61, 0, 0]));
        assert_eq!(half.cut_off, Some(CutOff { nodes: 5, of_nodes: 9, zones: 0, of_zones: 3 }));
        assert_eq!(of(&[("1", 60), ("2", 60), ("3", 0)]).cut_off.map(|cut| cut.zones), Some(2));
        assert_eq!(of(&[("1", 0), ("1", 60)]).cut_off, None, "half of them");
        // Who is silent besides is not given up either.
        assert_eq!(of(&nine([2000, 60, 60, 61, 61, 61, 0, 0, 0])).patience[..3], [Cell; 3]);
    }

    #[test]
    fn nodes_lost_long_ago_count_no_more_and_what_comes_later_changes_no_earlier_event() {
        let old = nine([9000, 9000, 9000, 9000, 0, 0, 0, 0, 60]);
        let found = of(&old);
        assert_eq!((found.zones.len(), found.cut_off), (1, None));
        assert_eq!((found.patience[0], found.patience[8]), (Zone, Disk));
        // Five of nine at once, ten minutes before a sixth: still cut off, an hour later too.
        for minutes in [0, 60, 600] {
            let since = minutes * 60;
            let found = of(&nine([600 + since, 600 + since, 0, 590 + since, 590 + since, 0, 600 + since, 4, 0]));
            assert!(found.cut_off.is_some(), "{minutes}");
        }
    }
}
