//! Who was heard of when. In memory only: after a restart every node and disk gets its full time again, counted from
//! the start, before anything counts as lost.
//!
//! A disk that is not heard of, that does not answer its node, or that is gone from its node, is
//! 1. suspect from `suspect_ms` on: nothing new goes there,
//! 2. down from `down_ms` on: its replicas count as missing, but are still waited for,
//! 3. lost from `lost_ms` on: its volumes are repaired. With a zone that vanished as a whole it is from `zone_lost_ms` on, and
//!    never while so much is silent that the volume manager itself may be cut off (`absences` of the planner).
//!
//! Back in time it is healthy again, and nothing was copied. A disk that its node reports as failed is not waited for.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_libs_types::{DiskId, InstanceId, NodeId};
use holdfast_volume_manager_client::{DiskReport, UnusableDisk};
use tokio::time::Instant;

use holdfast_volume_manager_planner::{AbsenceLimits, Absences, NodeSilence, Patience, absences};

use crate::config::Timing;

/// A node as it was heard of last.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub instance: InstanceId,
    pub address: String,
    /// When it registered last, which it does whenever its disks come or go.
    pub registered: Instant,
    pub at: Instant,
    /// What it was given as disks and cannot use.
    pub unusable: Vec<UnusableDisk>,
    /// Disks it registered that are in use at another node: copies of those, which say nothing about them.
    pub copies: Vec<(DiskId, UnusableDisk)>,
}

impl Heard {
    /// All that it has and cannot use.
    pub fn out_of_use(&self) -> Vec<UnusableDisk> {
        self.unusable.iter().chain(self.copies.iter().map(|(_, copy)| copy)).cloned().collect()
    }
}

/// A disk as it was reported last.
#[derive(Debug, Clone)]
struct Reported {
    report: DiskReport,
    /// Who reported it.
    node: NodeId,
    at: Instant,
    /// When it was last reported to answer.
    answered: Instant,
    /// Why its incarnation was refused, if it was.
    refused: Option<String>,
}

/// A disk that may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away {
    /// What is the matter with it.
    pub reason: String,
    /// Until it counts as lost if it stays away; `None` while nothing does.
    pub lost_in: Option<Duration>,
}

/// What can be done with a disk now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Reads and writes.
    Healthy,
    /// Not heard of for a while, or it does not answer its node; may come back at any moment.
    Suspect(Away),
    /// For longer; it is still waited for.
    Down(Away),
    /// Reads.
    ReadOnly(String),
    /// Its node says it is broken, or it is not the disk it claims to be.
    Failed(String),
    /// Away for too long.
    Lost(String),
}

impl Standing {
    /// The word for it in `admin status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect(_) => "suspect",
            Self::Down(_) => "down",
            Self::ReadOnly(_) => "read_only",
            Self::Failed(_) => "failed",
            Self::Lost(_) => "lost",
        }
    }

    /// Why it is not healthy.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Healthy => None,
            Self::Suspect(away) | Self::Down(away) => Some(&away.reason),
            Self::ReadOnly(reason) | Self::Failed(reason) | Self::Lost(reason) => Some(reason),
        }
    }

    /// Whether a replica there can be read, or could a moment ago.
    pub fn holds_replicas(&self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect(_) | Self::ReadOnly(_))
    }

    /// Whether a replica there need not be replaced.
    pub fn keeps_replicas(&self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect(_) | Self::Down(_))
    }

    /// What is waited for.
    pub fn away(&self) -> Option<&Away> {
        match self {
            Self::Suspect(away) | Self::Down(away) => Some(away),
            Self::Healthy | Self::ReadOnly(_) | Self::Failed(_) | Self::Lost(_) => None,
        }
    }
}

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeStanding {
    Up,
    Suspect,
    Down,
}

impl NodeStanding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// Everything that was heard since the start.
#[derive(Debug)]
pub(crate) struct Liveness {
    started: Instant,
    nodes: HashMap<NodeId, Heard>,
    disks: HashMap<DiskId, Reported>,
    /// When so much was silent last that the volume manager itself may have been cut off.
    cut_off: Option<Instant>,
}

impl Liveness {
    pub fn new(now: Instant) -> Self {
        Self { started: now, nodes: HashMap::new(), disks: HashMap::new(), cut_off: None }
    }

    /// Notes a sign of life of a node, with what it says of disks that are its own.
    pub fn hear(&mut self, node: &NodeId, heard: Heard, disks: &[DiskReport]) {
        for report in disks {
            let known = self.disks.get(&report.disk);
            let refused = known.and_then(|known| known.refused.clone());
            let answered = match known {
                Some(known) if matches!(report.state.as_str(), "suspect" | "gone") => known.answered,
                _ => heard.at,
            };
            let reported = Reported { report: report.clone(), node: node.clone(), at: heard.at, answered, refused };
            self.disks.insert(report.disk, reported);
        }
        self.nodes.insert(node.clone(), heard);
    }

    /// Notes what became of a disk's incarnation.
    pub fn judge(&mut self, disk: DiskId, refused: Option<String>) {
        if let Some(known) = self.disks.get_mut(&disk) {
            known.refused = refused;
        }
    }

    /// Those of a node's reports that are about disks it registered. Another one's are about a copy of a disk, and say
    /// nothing about the disk that the catalog knows.
    pub fn own<'a>(&'a self, node: &'a NodeId, disks: &'a [DiskReport]) -> impl Iterator<Item = &'a DiskReport> {
        disks.iter().filter(move |report| self.disks.get(&report.disk).is_some_and(|known| known.node == *node))
    }

    /// Whether a disk may be in use at `owner`, the node that registered it last: the node said so a moment ago, or could
    /// not say anything since the start. It is not in use there once the node says that the disk has failed or is gone, or
    /// speaks without naming it.
    pub fn may_live_at(&self, disk: DiskId, owner: &NodeId, now: Instant, timing: &Timing) -> bool {
        let known = self.disks.get(&disk).filter(|known| known.node == *owner);
        let spoke = self.nodes.get(owner).map(|heard| heard.at);
        let last = match (known, spoke) {
            (Some(known), _) if matches!(known.report.state.as_str(), "failed" | "gone") => return false,
            (Some(known), Some(spoke)) if spoke > known.at => return false,
            (None, Some(_)) => return false,
            (Some(known), _) => known.at,
            (None, None) => self.started,
        };
        now.saturating_duration_since(last) < timing.suspect()
    }

    /// Counts a slot that was just taken, until the node's next report.
    pub fn take_slot(&mut self, disk: DiskId) {
        if let Some(known) = self.disks.get_mut(&disk) {
            known.report.free_slots = known.report.free_slots.saturating_sub(1);
        }
    }

    /// Notes that a disk had no free slot, until its node's next report.
    pub fn no_slot(&mut self, disk: DiskId) {
        if let Some(known) = self.disks.get_mut(&disk) {
            known.report.free_slots = 0;
        }
    }

    /// Forgets a disk that is off the inventory.
    pub fn forget_disk(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
    }

    /// Forgets a node that is off the inventory.
    pub fn forget_node(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    pub fn node(&self, node: &NodeId) -> Option<&Heard> {
        self.nodes.get(node)
    }

    /// A disk's last report.
    pub fn report(&self, disk: DiskId) -> Option<&DiskReport> {
        self.disks.get(&disk).map(|reported| &reported.report)
    }

    /// How long a node has been silent.
    pub fn silence(&self, node: &NodeId, now: Instant) -> Duration {
        let last = self.nodes.get(node).map_or(self.started, |heard| heard.at);
        now.saturating_duration_since(last)
    }

    pub fn node_standing(&self, node: &NodeId, now: Instant, timing: &Timing) -> NodeStanding {
        let silence = self.silence(node, now);
        if silence > timing.down() {
            NodeStanding::Down
        } else if silence > timing.suspect() || !self.nodes.contains_key(node) {
            NodeStanding::Suspect
        } else {
            NodeStanding::Up
        }
    }

    /// How long the disks of each of these nodes, all of the cell's, are waited for. Each is given with its zone.
    pub fn absences(&self, nodes: &[(&NodeId, &str)], now: Instant, timing: &Timing) -> Absences {
        let silences: Vec<NodeSilence<'_>> =
            nodes.iter().map(|(node, zone)| NodeSilence { zone, silence: self.silence(node, now) }).collect();
        absences(&silences, &AbsenceLimits { suspect: timing.suspect(), lost: timing.lost() })
    }

    /// Keeps up the patience for the whole cell for a moment after it was cut off: its nodes are not heard again all at once, and
    /// those that come last must not count as lost for that.
    pub fn settle(&mut self, absences: &mut Absences, now: Instant, timing: &Timing) {
        if absences.cut_off.is_some() {
            self.cut_off = Some(now);
        } else if self.cut_off.is_some_and(|at| now.saturating_duration_since(at) < timing.suspect()) {
            absences.patience.iter_mut().for_each(|patience| *patience = Patience::Cell);
        }
    }

    /// What can be done with a disk of `node`, for which there is this patience.
    pub fn disk_standing(
        &self,
        disk: DiskId,
        node: &NodeId,
        now: Instant,
        timing: &Timing,
        patience: Patience,
    ) -> Standing {
        let silence = self.silence(node, now);
        // It has the patience for its node only when it went with it.
        let until_lost = |away: Duration| match patience {
            _ if away.saturating_sub(silence) > timing.suspect() => Some(timing.lost()),
            Patience::Disk => Some(timing.lost()),
            Patience::Zone => Some(timing.zone_lost()),
            Patience::Cell => None,
        };
        let unreported = |away: Duration| {
            let reason = format!("its node has not reported it for {}", in_words(away));
            waited_for(reason, away, until_lost(away), away > timing.down())
        };
        let Some(known) = self.disks.get(&disk) else {
            return unreported(now.saturating_duration_since(self.started));
        };
        if let Some(reason) = &known.refused {
            return Standing::Failed(reason.clone());
        }
        let away = now.saturating_duration_since(known.at);
        let reason = || known.report.reason.clone().unwrap_or_else(|| "its node gave no reason".to_owned());
        let unanswered = now.saturating_duration_since(known.answered);
        match known.report.state.as_str() {
            "failed" => Standing::Failed(reason()),
            _ if away > timing.suspect() => unreported(away),
            "healthy" => Standing::Healthy,
            "suspect" => waited_for(reason(), unanswered, Some(timing.lost()), unanswered > timing.down()),
            "gone" => waited_for(reason(), unanswered, Some(timing.lost()), true),
            _ => Standing::ReadOnly(reason()),
        }
    }
}

/// A disk that has been away for some time, and is lost after `limit` of it.
fn waited_for(reason: String, away: Duration, limit: Option<Duration>, down: bool) -> Standing {
    match limit.map(|limit| limit.checked_sub(away)) {
        Some(None) => Standing::Lost(reason),
        left => {
            let away = Away { reason, lost_in: left.flatten() };
            if down { Standing::Down(away) } else { Standing::Suspect(away) }
        }
    }
}

/// A time for people: `45 s`, `9 m`, `1 h 5 m`.
pub(crate) fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 100 => format!("{seconds} s"),
        seconds if seconds < 3600 => format!("{} m", seconds / 60),
        seconds => format!("{} h {} m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_libs_types::{DiskId, InstanceId, NodeId};
    use holdfast_volume_manager_client::DiskReport;
    use tokio::time::Instant;

    use holdfast_volume_manager_planner::Patience;

    use super::{Away, Heard, Liveness, NodeStanding, Standing, in_words};
    use crate::config::Timing;

    const DISK: DiskId = DiskId([1; 16]);

    fn report(state: &str) -> DiskReport {
        DiskReport {
            disk: DISK,
            path: "/dev/x".to_owned(),
            incarnation: 1,
            nonce: 1,
            previous_nonce: 0,
            state: state.to_owned(),
            reason: Some("because".to_owned()),
            slot_bytes: 1,
            volume_bytes: 1,
            slots: 1,
            free_slots: 1,
            damaged_extents: 0,
            trashed_extents: 0,
            failing: None,
            pace: None,
        }
    }

    fn heard(at: Instant) -> Heard {
        Heard {
            instance: InstanceId([1; 16]),
            address: String::new(),
            registered: at,
            at,
            unusable: Vec::new(),
            copies: Vec::new(),
        }
    }

    impl Liveness {
        /// Of the one disk, at node-1 and away on its own.
        fn standing(&self, now: Instant, timing: &Timing) -> Standing {
            self.disk_standing(DISK, &NodeId("node-1".to_owned()), now, timing, Patience::Disk)
        }
    }

    #[test]
    fn silence_makes_suspect_then_down_then_lost_and_a_report_makes_healthy_again() {
        let timing = Timing { suspect_ms: 3000, down_ms: 5000, lost_ms: 10_000, ..Timing::default() };
        let start = Instant::now();
        let node = NodeId("node-1".to_owned());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let heard = |seconds| heard(at(seconds));
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.standing(at(9), &timing).name(), "down");
        assert!(matches!(liveness.standing(at(11), &timing), Standing::Lost(_)));
        liveness.hear(&node, heard(11), &[report("healthy")]);
        assert_eq!(liveness.standing(at(12), &timing), Standing::Healthy);
        let left = |seconds: u64| liveness.standing(at(seconds), &timing).away().and_then(|away| away.lost_in);
        for (seconds, name, lost_in) in [(15, "suspect", Some(6)), (17, "down", Some(4)), (22, "lost", None)] {
            assert_eq!(liveness.standing(at(seconds), &timing).name(), name, "{seconds}");
            assert_eq!(left(seconds), lost_in.map(Duration::from_secs), "{seconds}");
        }
        let standing = |seconds| liveness.node_standing(&node, at(seconds), &timing);
        assert_eq!([12, 15, 22].map(standing), [NodeStanding::Up, NodeStanding::Suspect, NodeStanding::Down]);
        // The node lives on without the disk: the disk is lost all the same.
        liveness.hear(&node, heard(22), &[]);
        assert!(matches!(liveness.standing(at(23), &timing), Standing::Lost(_)));
        liveness.hear(&node, heard(24), &[report("failed")]);
        assert_eq!(liveness.standing(at(24), &timing), Standing::Failed("because".to_owned()));
    }

    #[test]
    fn a_disk_that_is_gone_from_a_node_that_speaks_is_down_at_once_and_waited_for_from_then_on() {
        let timing = Timing { suspect_ms: 3000, down_ms: 5000, lost_ms: 10_000, ..Timing::default() };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let node = NodeId("node-1".to_owned());
        let mut liveness = Liveness::new(start);
        liveness.hear(&node, heard(at(1)), &[report("healthy")]);
        for second in 2..=11 {
            liveness.hear(&node, heard(at(second)), &[report("gone")]);
            let away = Away { reason: "because".to_owned(), lost_in: Some(Duration::from_secs(11 - second)) };
            assert_eq!(liveness.standing(at(second), &timing), Standing::Down(away));
        }
        liveness.hear(&node, heard(at(12)), &[report("gone")]);
        assert_eq!(liveness.standing(at(12), &timing).name(), "lost");
        liveness.hear(&node, heard(at(13)), &[report("healthy")]);
        assert_eq!(liveness.standing(at(13), &timing), Standing::Healthy);
    }

    #[test]
    fn the_disks_of_a_vanished_zone_are_waited_for_longer_than_those_that_went_before_it() {
        let timing =
            Timing { suspect_ms: 3000, down_ms: 5000, lost_ms: 10_000, zone_lost_ms: 30_000, ..Timing::default() };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let nodes = ["node-1", "node-2", "node-3", "node-4"].map(|name| NodeId(name.to_owned()));
        let zoned: Vec<(&NodeId, &str)> = nodes.iter().zip(["a", "a", "b", "c"]).collect();
        let earlier = DiskId([2; 16]);
        let mut liveness = Liveness::new(start);
        liveness.hear(&nodes[0], heard(at(1)), &[DiskReport { disk: earlier, ..report("healthy") }]);
        liveness.hear(&nodes[0], heard(at(20)), &[report("healthy")]);
        liveness.hear(&nodes[1], heard(at(20)), &[]);
        let standing = |liveness: &Liveness, disk, seconds| {
            let patience = liveness.absences(&zoned, at(seconds), &timing).patience[0];
            liveness.disk_standing(disk, &nodes[0], at(seconds), &timing, patience)
        };
        for second in [35, 49, 51] {
            (2..4).for_each(|other| liveness.hear(&nodes[other], heard(at(second)), &[]));
            let name = standing(&liveness, DISK, second).name();
            assert_eq!(name, if second > 50 { "lost" } else { "down" }, "{second}");
            assert_eq!(standing(&liveness, earlier, second).name(), "lost", "its node spoke without it");
        }
        // All of the others fall silent as well: it is the volume manager that hears nothing.
        let away = standing(&liveness, DISK, 100);
        assert_eq!((away.name(), away.away().and_then(|away| away.lost_in)), ("down", None));
        assert_eq!(standing(&liveness, earlier, 100).name(), "lost");
    }

    #[test]
    fn times_are_told_in_words() {
        let told = [0, 99, 100, 540, 3599, 3600, 3960].map(|seconds| in_words(Duration::from_secs(seconds)));
        assert_eq!(told, ["0 s", "99 s", "1 m", "9 m", "59 m", "1 h 0 m", "1 h 6 m"]);
    }

    #[test]
    fn a_refused_disk_holds_no_replicas() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let heard = heard(start);
        liveness.hear(&NodeId("n".to_owned()), heard, &[report("healthy")]);
        liveness.judge(DISK, Some("a clone".to_owned()));
        assert!(!liveness.standing(start, &Timing::default()).holds_replicas());
    }

    #[test]
    fn only_the_node_that_registered_a_disk_speaks_for_it() {
        let timing = Timing { suspect_ms: 3000, ..Timing::default() };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let [owner, other] = ["node-1", "node-2"].map(|name| NodeId(name.to_owned()));
        let mut liveness = Liveness::new(start);
        assert!(liveness.may_live_at(DISK, &owner, at(2), &timing), "it had no time to report");
        assert!(!liveness.may_live_at(DISK, &owner, at(3), &timing));
        liveness.hear(&owner, heard(at(10)), &[report("healthy")]);
        assert!(liveness.may_live_at(DISK, &owner, at(12), &timing));
        assert!(!liveness.may_live_at(DISK, &owner, at(13), &timing));
        let reports = [report("read_only")];
        assert_eq!(liveness.own(&owner, &reports).count(), 1);
        assert_eq!(liveness.own(&other, &reports).count(), 0);
    }

    #[test]
    fn a_disk_is_free_to_move_once_its_node_says_that_it_is_gone_or_speaks_without_it() {
        let timing = Timing { suspect_ms: 3000, ..Timing::default() };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let owner = NodeId("node-1".to_owned());
        let live = |reports: &[DiskReport]| {
            let mut liveness = Liveness::new(start);
            liveness.hear(&owner, heard(at(10)), &[report("healthy")]);
            liveness.hear(&owner, heard(at(11)), reports);
            liveness.may_live_at(DISK, &owner, at(11), &timing)
        };
        assert!(live(&[report("healthy")]));
        assert!(live(&[report("suspect")]), "it may answer again");
        assert!(!live(&[report("failed")]));
        assert!(!live(&[report("gone")]));
        assert!(!live(&[]));
        let mut liveness = Liveness::new(start);
        liveness.hear(&owner, heard(at(1)), &[]);
        assert!(!liveness.may_live_at(DISK, &owner, at(1), &timing), "it spoke since the start, and not of the disk");
    }

    #[test]
    fn a_disk_that_hangs_is_suspect_and_lost_when_that_lasts() {
        let timing = Timing { suspect_ms: 3000, lost_ms: 10_000, ..Timing::default() };
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let node = NodeId("node-1".to_owned());
        let mut liveness = Liveness::new(start);
        liveness.hear(&node, heard(at(1)), &[report("healthy")]);
        for second in 2..=20 {
            liveness.hear(&node, heard(at(second)), &[report("suspect")]);
            let name = liveness.standing(at(second), &timing).name();
            assert_eq!(name, if second > 11 { "lost" } else { "suspect" }, "{second}");
        }
        liveness.hear(&node, heard(at(21)), &[report("healthy")]);
        assert_eq!(liveness.standing(at(21), &timing), Standing::Healthy);
    }
}
