//! The steps of a replacement, and which one is next. Decided from facts alone.

use holdfast_node_client::Occupant;
use holdfast_volume_manager_client::NodeRow;

use super::facts::{Facts, Held, Known};
use crate::show;

/// What is to be done or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It would not be safe, or cannot be done.
    Refused(String),
    /// What the disk holds goes elsewhere.
    Drain,
    /// Somebody pulls the old disk.
    Pull,
    /// Somebody puts the new disk in.
    Insert,
    /// What stands there cannot be used.
    Unfit,
    /// The new device is made a disk.
    Adopt,
    /// The volume manager takes the new disk in.
    Join,
    /// Volumes get back the replicas that they lack.
    Refill,
    /// Other disks give the new one its share.
    Level,
    /// All that is left is to compare.
    Done,
}

/// The next step.
pub fn next(facts: &Facts) -> Step {
    match facts.place.occupant {
        Occupant::Disk if facts.place.disk == Some(facts.old.disk) => with_the_old_disk(facts),
        Occupant::Disk => match &facts.new {
            _ if facts.is_whole() && facts.rebalance.is_none() && facts.level.short == 0 => Step::Done,
            _ if facts.is_whole() => Step::Level,
            Some(new) if new.state == "healthy" => Step::Refill,
            _ => Step::Join,
        },
        Occupant::Empty => Step::Insert,
        Occupant::Unformatted => Step::Adopt,
        Occupant::Unusable => Step::Unfit,
    }
}

/// Whether what the disk holds does not count any more.
fn is_dead(facts: &Facts) -> bool {
    !facts.old.in_service
}

fn with_the_old_disk(facts: &Facts) -> Step {
    let (held, unknown) = (facts.held, facts.old.unknown_extents);
    if unknown > 0 {
        return Step::Refused(format!(
            "the catalog does not know the volumes of {unknown} extents on it, so it would look empty too soon; `holdfast admin catalog \
             rebuild` takes them in"
        ));
    }
    if is_dead(facts) && held.last_hope > 0 {
        return Step::Refused(format!(
            "it is {}, and of {} of its {} volumes no other replica can be read: pulled, their last bytes are gone. Bring it or the \
             other disks of these volumes back first (`holdfast admin volume ls --disk {} --at-risk` lists them)",
            facts.old.state, held.last_hope, held.total, facts.old.disk
        ));
    }
    if is_dead(facts) || held.total == 0 { Step::Pull } else { Step::Drain }
}

/// A warning while the old disk, out of its bay, may hold the last bytes of something.
fn keep(held: &Held) -> String {
    match held.last_hope {
        0 => String::new(),
        volumes => format!(
            ". KEEP THE OLD DISK: of {volumes} of its volumes no other replica can be read; where their other disks do not come back, \
             it must"
        ),
    }
}

/// What is waited for while the disk's node does not answer, with what is known without it.
pub fn without_node(known: &Known) -> String {
    let (old, held) = (&known.old, &known.held);
    let node = match &known.node {
        Some(row) if row.state == "up" => format!("node {} does not answer", old.node),
        Some(NodeRow { state, last_heartbeat_ms: Some(ms), .. }) => {
            format!("node {} is {state}, not heard of for {}", old.node, show::duration(*ms as f64 / 1000.0))
        }
        Some(row) => {
            format!("node {} is {}, not heard of since the volume manager began to lead", old.node, row.state)
        }
        None => format!("node {} is not in the inventory", old.node),
    };
    let why = old.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let holds = match held.total {
        0 => "no volume counts on it".to_owned(),
        total => format!(
            "has replicas of {}: {} of them cannot be read now, {} have one replica left",
            show::count(total, "volume"),
            held.last_hope,
            held.one_left
        ),
    };
    format!(
        "{node}, so it is not known what is in the disk's place. The disk is {}{why} and {holds}; {} of the cell lack a replica. Start \
         the node, or see why it does not answer. Where it is gone for good, what it held is made again elsewhere, and then `holdfast admin node forget {}`{}",
        old.state,
        show::count(known.lacking, "volume"),
        old.node,
        keep(held)
    )
}

impl Step {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Drain => "drain",
            Self::Pull => "pull",
            Self::Insert => "insert",
            Self::Unfit => "unfit",
            Self::Adopt => "adopt",
            Self::Join => "join",
            Self::Refill => "refill",
            Self::Level => "level",
            Self::Done => "done",
        }
    }

    /// What it waits for, with numbers.
    pub fn waits_for(&self, facts: &Facts) -> String {
        let (old, held, path) = (&facts.old, &facts.held, &facts.old.path);
        let bay = facts.place.bay.as_ref().map(|bay| format!(", bay {bay}")).unwrap_or_default();
        let place = format!("{path} of node {}{bay}", old.node);
        let reason = facts.place.reason.as_deref().unwrap_or("no reason given");
        match self {
            Self::Refused(why) => why.clone(),
            Self::Drain => match &facts.drain {
                None if old.state == "healthy" => format!("it is in use, and {} volumes are to leave it", held.total),
                None => format!("it is {}, and {} volumes are still to leave it", old.state, held.total),
                Some(row) if row.waits.is_empty() => format!("{} volumes are still to leave it", held.total),
                Some(row) => format!("{} volumes are still to leave it; waits: {}", held.total, row.waits.join("; ")),
            },
            Self::Pull if is_dead(facts) => format!(
                "the disk is {}, so it is not drained: its {} volumes are made again from their other replicas ({} of them have one \
                 left). Pull it: {place}",
                old.state, held.total, held.one_left
            ),
            Self::Pull => format!("nothing is left on it. Pull it: {place}"),
            Self::Insert => {
                let hint = if path.contains("/by-id/") {
                    "; the node's configuration names the old disk by itself there, and no other: change it to a path by place"
                } else {
                    ""
                };
                format!(
                    "a new disk at {place}; {} volumes of the cell lack a replica{hint}{}",
                    facts.lacking,
                    keep(held)
                )
            }
            Self::Unfit => format!("what stands at {place} cannot be used: {reason}"),
            Self::Adopt => format!("the new device at {place} is to be made a disk{}", keep(held)),
            Self::Join => format!("the volume manager takes in the new disk at {place}"),
            Self::Refill => format!(
                "{} volumes of the cell lack a replica, {} of them still count on the old disk{}",
                facts.lacking,
                held.total,
                keep(held)
            ),
            Self::Level => match &facts.rebalance {
                Some(row) => {
                    let waits: String = row.waits.iter().map(|why| format!("; it waits: {why}")).collect();
                    format!("a rebalance of {} moves is under way: {} are left{waits}", row.moves, row.left)
                }
                None => format!(
                    "a rebalance is to bring the new disk the {} replicas that it lacks to its share",
                    facts.level.short
                ),
            },
            Self::Done => "the new disk is in use and no volume lacks a replica".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::DiskId;
    use holdfast_node_client::{Occupant, Place};
    use holdfast_volume_manager_client::{DiskDetail, NodeRow};

    use super::super::facts::{Facts, Held, Known, Level};
    use super::{Step, next, without_node};
    use crate::admin::examples;

    const OLD: DiskId = DiskId([1; 16]);
    const NEW: DiskId = DiskId([2; 16]);

    fn detail(disk: DiskId, state: &str) -> DiskDetail {
        examples::disk(disk, "node-1", "/dev/x", state)
    }

    fn facts(state: &str, total: u64, occupant: Occupant, there: Option<DiskId>) -> Facts {
        let place = Place { path: "/dev/x".to_owned(), occupant, disk: there, reason: None, bay: None, no_light: None };
        let held = Held { total, last_hope: 0, one_left: 0 };
        Facts {
            old: detail(OLD, state),
            held,
            place,
            new: None,
            lacking: 0,
            drain: None,
            rebalance: None,
            level: Level::default(),
        }
    }

    #[test]
    fn a_disk_in_use_is_pulled_only_once_nothing_is_left_on_it_and_a_dead_one_at_once() {
        for (state, total, expected) in [
            ("healthy", 3, Step::Drain),
            ("read_only", 3, Step::Drain),
            ("suspect", 1, Step::Drain),
            ("healthy", 0, Step::Pull),
            ("failed", 3, Step::Pull),
            ("lost", 3, Step::Pull),
        ] {
            assert_eq!(next(&facts(state, total, Occupant::Disk, Some(OLD))), expected, "{state}, {total}");
        }
    }

    #[test]
    fn a_dead_disk_that_may_hold_the_last_bytes_of_a_volume_is_not_pulled_and_the_refusal_has_the_numbers() {
        let mut facts = facts("failed", 7, Occupant::Disk, Some(OLD));
        facts.held.last_hope = 2;
        let Step::Refused(why) = next(&facts) else { panic!("it is refused") };
        assert!(why.contains("2 of its 7 volumes"), "{why}");
        facts.place.occupant = Occupant::Empty;
        assert_eq!(next(&facts), Step::Insert, "it was pulled already");
        assert!(Step::Insert.waits_for(&facts).contains("KEEP THE OLD DISK: of 2 of its volumes"));
        facts.held.last_hope = 0;
        assert!(!Step::Insert.waits_for(&facts).contains("KEEP"));
    }

    #[test]
    fn a_disk_that_holds_what_the_catalog_does_not_know_is_neither_drained_nor_pulled() {
        let mut facts = facts("healthy", 0, Occupant::Disk, Some(OLD));
        facts.old.unknown_extents = 4;
        let Step::Refused(why) = next(&facts) else { panic!("it is refused") };
        assert!(why.contains("the volumes of 4 extents"), "{why}");
    }

    #[test]
    fn of_a_disk_whose_node_is_down_is_told_what_is_known_and_since_when_the_node_is_silent() {
        let node = |state: &str, last_heartbeat_ms| NodeRow {
            state: state.to_owned(),
            last_heartbeat_ms,
            ..examples::node("node-1")
        };
        let told = |node: NodeRow| {
            let held = Held { total: 3, last_hope: 1, one_left: 2 };
            without_node(&Known::of(detail(OLD, "down"), node, held))
        };
        let text = told(node("down", Some(125_000)));
        assert!(text.starts_with("node node-1 is down, not heard of for 2 min 5 s, so it is not known"), "{text}");
        assert!(
            text.contains("The disk is down and has replicas of 3 volumes: 1 of them cannot be read now, 2 have one"),
            "{text}"
        );
        assert!(text.contains("KEEP THE OLD DISK"), "{text}");
        assert!(told(node("down", None)).contains("not heard of since the volume manager began to lead"));
        assert!(told(node("up", Some(5))).starts_with("node node-1 does not answer"));
    }

    #[test]
    fn the_new_disk_is_adopted_taken_in_refilled_and_done_when_it_lacks_nothing_to_its_share() {
        assert_eq!(next(&facts("failed", 3, Occupant::Empty, None)), Step::Insert);
        assert_eq!(next(&facts("failed", 3, Occupant::Unusable, None)), Step::Unfit);
        assert_eq!(next(&facts("failed", 3, Occupant::Unformatted, None)), Step::Adopt);
        let mut facts = facts("failed", 3, Occupant::Disk, Some(NEW));
        assert_eq!(next(&facts), Step::Join);
        facts.new = Some(detail(NEW, "suspect"));
        assert_eq!(next(&facts), Step::Join);
        facts.new = Some(detail(NEW, "healthy"));
        facts.lacking = 3;
        assert_eq!(next(&facts), Step::Refill);
        facts.lacking = 0;
        assert_eq!(next(&facts), Step::Refill, "the catalog still counts on the old one");
        facts.held.total = 0;
        facts.level.short = 2;
        assert_eq!(next(&facts), Step::Level);
        assert!(Step::Level.waits_for(&facts).contains("the 2 replicas"));
        facts.level.short = 0;
        assert_eq!(next(&facts), Step::Done);
    }
}
