//! What the extents of one volume say about it, when the catalog says nothing.
//!
//! What may be concluded, and why (`docs/catalog.md`, "Rebuild"):
//! - A node seals an extent only after the volume's length was committed. So one sealed extent tells the length, and nothing
//!   longer or shorter is a replica.
//! - A block was acknowledged only after it was durable on all replicas. So every acknowledged block lies below the tail of
//!   each replica that lost nothing, and the shortest of these tails is a length that cuts none off. The longest would leave a
//!   volume with fewer replicas than the acknowledged blocks in it had.
//! - A replica that is damaged has no vote. One whose end may be torn or damaged votes only when there are no others: that its
//!   last batch was acknowledged, and was damaged afterwards, cannot be told from a batch that never was.

use holdfast_libs_types::{DiskId, WriteEpoch};

/// The state of an extent, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Never sealed.
    Unsealed {
        /// What stands behind its last batch may be a torn or damaged one.
        ends_badly: bool,
    },
    /// Sealed, and as far as is known right.
    Sealed {
        /// Bytes.
        length: u64,
        /// SHA-256 of `[0, length)`.
        digest: [u8; 32],
    },
    /// Sealed, and damaged since: some of its records can be read.
    DamagedSealed {
        /// Bytes.
        length: u64,
        /// What the SHA-256 of `[0, length)` was.
        digest: [u8; 32],
    },
    /// Damaged before it was sealed.
    Damaged,
}

/// One extent of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundExtent {
    /// Its disk.
    pub disk: DiskId,
    /// The domain that replicas should not share.
    pub zone: String,
    /// Its epoch.
    pub epoch: WriteEpoch,
    /// Its state.
    pub found: Found,
}

/// What to do with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// It was sealed: take it in.
    TakeIn {
        /// Bytes.
        length: u64,
        /// SHA-256 of `[0, length)`.
        digest: [u8; 32],
        /// The disks that hold it, in distinct zones first; at most as many as asked for.
        holders: Vec<DiskId>,
        /// All holders are damaged.
        damaged: bool,
    },
    /// It was never sealed: fence these, and seal it at the shortest of their tails.
    Seal {
        /// The disks that vote on the length.
        voters: Vec<DiskId>,
        /// Disks without a vote whose replica may do all the same.
        others: Vec<DiskId>,
    },
    /// It cannot be taken in; why.
    Nothing(String),
}

/// The highest epoch of a volume's extents.
pub fn highest_epoch(extents: &[FoundExtent]) -> WriteEpoch {
    extents.iter().map(|extent| extent.epoch).max().unwrap_or_default()
}

/// Decides about a volume with these extents, of which it needs `copies`. `known` are the length and digest at which the catalog
/// knows it sealed: they stand, whatever the disks say.
pub fn recover(extents: &[FoundExtent], known: Option<(u64, [u8; 32])>, copies: usize) -> Recovery {
    let sealed = |extent: &FoundExtent| match extent.found {
        Found::Sealed { length, digest } => Some((length, digest)),
        _ => None,
    };
    let damaged = |extent: &FoundExtent| match extent.found {
        Found::DamagedSealed { length, digest } => Some((length, digest)),
        _ => None,
    };
    // What is known to be damaged is no witness while there is another.
    for (kind, is_damaged) in [(&sealed as &dyn Fn(&FoundExtent) -> Option<_>, false), (&damaged, true)] {
        let stands = |told: &(u64, [u8; 32])| known.is_none_or(|known| known == *told);
        let told: Vec<(u64, [u8; 32])> = extents.iter().filter_map(kind).filter(stands).collect();
        if told.is_empty() {
            continue;
        }
        let votes = |of: &(u64, [u8; 32])| told.iter().filter(|other| *other == of).count();
        let Some((length, digest)) = told.iter().find(|of| votes(of) * 2 > told.len()).copied() else {
            return Recovery::Nothing(format!(
                "its {} sealed replicas disagree and none is in the majority",
                told.len()
            ));
        };
        let holders = extents.iter().filter(|extent| kind(extent) == Some((length, digest)));
        return Recovery::TakeIn { length, digest, holders: spread(holders, copies), damaged: is_damaged };
    }
    if known.is_some() {
        return Recovery::Nothing("it is known to be sealed, and no disk that is there holds it so".to_owned());
    }
    let unsealed = |badly: bool| {
        let ends = move |extent: &&FoundExtent| extent.found == Found::Unsealed { ends_badly: badly };
        extents.iter().filter(ends).map(|extent| extent.disk).collect::<Vec<_>>()
    };
    match (unsealed(false), unsealed(true)) {
        (voters, others) if !voters.is_empty() => Recovery::Seal { voters, others },
        (_, voters) if !voters.is_empty() => Recovery::Seal { voters, others: Vec::new() },
        _ => Recovery::Nothing("every replica of it was damaged before it was sealed".to_owned()),
    }
}

/// The disks of at most `copies` extents: first one of each zone, then the others.
fn spread<'a>(extents: impl Iterator<Item = &'a FoundExtent>, copies: usize) -> Vec<DiskId> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for extent in extents {
        let is_new = first.iter().all(|other: &&FoundExtent| other.zone != extent.zone);
        if is_new { first.push(extent) } else { again.push(extent) }
    }
    first.into_iter().chain(again).take(copies).map(|extent| extent.disk).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, WriteEpoch};

    use super::{Found, FoundExtent, Recovery, recover};

    const CLEAN: Found = Found::Unsealed { ends_badly: false };
    const TORN: Found = Found::Unsealed { ends_badly: true };

    fn sealed(length: u64, digest: u8) -> Found {
        Found::Sealed { length, digest: [digest; 32] }
    }

    fn damaged(length: u64, digest: u8) -> Found {
        Found::DamagedSealed { length, digest: [digest; 32] }
    }

    /// Extents on disks 1, 2, …, each in its zone.
    fn extents(found: &[Found]) -> Vec<FoundExtent> {
        let extent = |(disk, found): (u8, &Found)| FoundExtent {
            disk: DiskId([disk; 16]),
            zone: format!("zone-{disk}"),
            epoch: WriteEpoch(1),
            found: *found,
        };
        (1..).zip(found).map(extent).collect()
    }

    fn disks<const N: usize>(numbers: [u8; N]) -> Vec<DiskId> {
        numbers.map(|number| DiskId([number; 16])).to_vec()
    }

    fn take_in(length: u64, digest: u8, holders: Vec<DiskId>, damaged: bool) -> Recovery {
        Recovery::TakeIn { length, digest: [digest; 32], holders, damaged }
    }

    #[test]
    fn a_sealed_replica_tells_what_the_volume_is_whatever_the_others_hold() {
        let found = extents(&[CLEAN, sealed(8, 1), TORN, Found::Damaged, damaged(8, 1)]);
        assert_eq!(recover(&found, None, 3), take_in(8, 1, disks([2]), false));
    }

    #[test]
    fn the_majority_of_the_sealed_replicas_decides_and_a_tie_does_not() {
        let found = extents(&[sealed(8, 1), sealed(8, 2), sealed(8, 1)]);
        assert_eq!(recover(&found, None, 3), take_in(8, 1, disks([1, 3]), false));
        for other in [sealed(8, 2), sealed(4, 1)] {
            let Recovery::Nothing(why) = recover(&extents(&[sealed(8, 1), other]), None, 3) else { panic!("a guess") };
            assert!(why.contains("disagree"), "{why}");
        }
    }

    #[test]
    fn what_the_catalog_knows_to_be_sealed_stays_as_it_is() {
        let found = extents(&[sealed(8, 1), sealed(8, 2), sealed(8, 2)]);
        assert_eq!(recover(&found, Some((8, [1; 32])), 3), take_in(8, 1, disks([1]), false));
        assert!(matches!(recover(&extents(&[CLEAN]), Some((8, [1; 32])), 3), Recovery::Nothing(_)));
    }

    #[test]
    fn damaged_replicas_are_taken_when_there_are_no_others() {
        assert_eq!(recover(&extents(&[damaged(8, 1), CLEAN]), None, 3), take_in(8, 1, disks([1]), true));
        let Recovery::Nothing(why) = recover(&extents(&[Found::Damaged; 3]), None, 3) else {
            panic!("nothing is left")
        };
        assert!(why.contains("damaged before it was sealed"), "{why}");
    }

    #[test]
    fn a_replica_that_ends_badly_votes_only_among_its_like() {
        let (voters, others) = (disks([1, 3]), disks([2]));
        assert_eq!(
            recover(&extents(&[CLEAN, TORN, CLEAN, Found::Damaged]), None, 3),
            Recovery::Seal { voters, others }
        );
        let voters = disks([1, 2]);
        assert_eq!(recover(&extents(&[TORN, TORN]), None, 3), Recovery::Seal { voters, others: Vec::new() });
    }

    #[test]
    fn of_more_replicas_than_needed_those_in_distinct_zones_are_listed() {
        let mut found = extents(&[sealed(8, 1), sealed(8, 1), sealed(8, 1), sealed(8, 1)]);
        found[1].zone = found[0].zone.clone();
        assert_eq!(recover(&found, None, 3), take_in(8, 1, disks([1, 3, 4]), false));
        assert_eq!(recover(&found[..3], None, 3), take_in(8, 1, disks([1, 3, 2]), false));
    }
}
