//! Who was heard of when. In memory only: after a restart every node and disk gets its full time again, counted from
//! the start, before anything counts as lost.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_libs_types::{DiskId, InstanceId, NodeId};
use holdfast_volume_manager_client::{DiskReport, UnusableDisk};
use tokio::time::Instant;

use crate::config::Timing;

/// A node as it was heard of last.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub instance: InstanceId,
    pub address: String,
    pub at: Instant,
    /// What it was given as disks and cannot use.
    pub unusable: Vec<UnusableDisk>,
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

/// What can be done with a disk now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Reads and writes.
    Healthy,
    /// Not heard of for a while, or it does not answer its node; may come back at any moment.
    Suspect(String),
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
            Self::ReadOnly(_) => "read_only",
            Self::Failed(_) => "failed",
            Self::Lost(_) => "lost",
        }
    }

    /// Why it is not healthy.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Healthy => None,
            Self::Suspect(reason) | Self::ReadOnly(reason) | Self::Failed(reason) | Self::Lost(reason) => Some(reason),
        }
    }

    /// Whether a replica there can still be read, or soon again.
    pub fn holds_replicas(&self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect(_) | Self::ReadOnly(_))
    }

    /// Whether a replica there need not be replaced.
    pub fn keeps_replicas(&self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect(_))
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
}

impl Liveness {
    pub fn new(now: Instant) -> Self {
        Self { started: now, nodes: HashMap::new(), disks: HashMap::new() }
    }

    /// Notes a sign of life of a node, with what it says of disks that are its own.
    pub fn hear(&mut self, node: &NodeId, heard: Heard, disks: &[DiskReport]) {
        for report in disks {
            let known = self.disks.get(&report.disk);
            let refused = known.and_then(|known| known.refused.clone());
            let answered = match known {
                Some(known) if report.state == "suspect" => known.answered,
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
            (Some(known), _) if known.report.state == "failed" => return false,
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
        if silence > timing.lost() {
            NodeStanding::Down
        } else if silence > timing.suspect() || !self.nodes.contains_key(node) {
            NodeStanding::Suspect
        } else {
            NodeStanding::Up
        }
    }

    pub fn disk_standing(&self, disk: DiskId, now: Instant, timing: &Timing) -> Standing {
        let Some(known) = self.disks.get(&disk) else {
            let away = now.saturating_duration_since(self.started);
            return if away > timing.lost() { Standing::Lost(lost(away)) } else { unheard() };
        };
        if let Some(reason) = &known.refused {
            return Standing::Failed(reason.clone());
        }
        let away = now.saturating_duration_since(known.at);
        let reason = || known.report.reason.clone().unwrap_or_else(|| "its node gave no reason".to_owned());
        match known.report.state.as_str() {
            "failed" => Standing::Failed(reason()),
            _ if away > timing.lost() => Standing::Lost(lost(away)),
            _ if away > timing.suspect() => unheard(),
            "healthy" => Standing::Healthy,
            "suspect" => {
                let hung = now.saturating_duration_since(known.answered);
                match hung > timing.lost() {
                    true => Standing::Lost(format!("it has not answered for {} s", hung.as_secs())),
                    false => Standing::Suspect(reason()),
                }
            }
            _ => Standing::ReadOnly(reason()),
        }
    }
}

fn unheard() -> Standing {
    Standing::Suspect("its node has not reported it for a while".to_owned())
}

fn lost(away: Duration) -> String {
    format!("not reported for {} s", away.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_libs_types::{DiskId, InstanceId, NodeId};
    use holdfast_volume_manager_client::DiskReport;
    use tokio::time::Instant;

    use super::{Heard, Liveness, NodeStanding, Standing};
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
            failing: None,
        }
    }

    fn heard(at: Instant) -> Heard {
        Heard { instance: InstanceId([1; 16]), address: String::new(), at, unusable: Vec::new() }
    }

    #[test]
    fn silence_makes_suspect_then_lost_and_a_report_makes_healthy_again() {
        let timing = Timing { suspect_ms: 3000, lost_ms: 10_000, ..Timing::default() };
        let start = Instant::now();
        let node = NodeId("node-1".to_owned());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let heard = |seconds| heard(at(seconds));
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.disk_standing(DISK, at(9), &timing).name(), "suspect");
        assert!(matches!(liveness.disk_standing(DISK, at(11), &timing), Standing::Lost(_)));
        liveness.hear(&node, heard(11), &[report("healthy")]);
        assert_eq!(liveness.disk_standing(DISK, at(12), &timing), Standing::Healthy);
        assert_eq!(liveness.disk_standing(DISK, at(15), &timing).name(), "suspect");
        assert!(matches!(liveness.disk_standing(DISK, at(22), &timing), Standing::Lost(_)));
        assert_eq!(liveness.node_standing(&node, at(12), &timing), NodeStanding::Up);
        assert_eq!(liveness.node_standing(&node, at(22), &timing), NodeStanding::Down);
        // The node lives on without the disk: the disk is lost all the same.
        liveness.hear(&node, heard(22), &[]);
        assert!(matches!(liveness.disk_standing(DISK, at(23), &timing), Standing::Lost(_)));
        liveness.hear(&node, heard(24), &[report("failed")]);
        assert_eq!(liveness.disk_standing(DISK, at(24), &timing), Standing::Failed("because".to_owned()));
    }

    #[test]
    fn a_refused_disk_holds_no_replicas() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        let heard = heard(start);
        liveness.hear(&NodeId("n".to_owned()), heard, &[report("healthy")]);
        liveness.judge(DISK, Some("a clone".to_owned()));
        assert!(!liveness.disk_standing(DISK, start, &Timing::default()).holds_replicas());
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
            let name = liveness.disk_standing(DISK, at(second), &timing).name();
            assert_eq!(name, if second > 11 { "lost" } else { "suspect" }, "{second}");
        }
        liveness.hear(&node, heard(at(21)), &[report("healthy")]);
        assert_eq!(liveness.disk_standing(DISK, at(21), &timing), Standing::Healthy);
    }
}
