//! The state of the model: as small as it can be and still go wrong.

use holdfast_libs_types::DiskId;

/// Disks in all: the volume's three homes, and a spare for repair.
pub const DISKS: usize = 4;
/// Replicas of a volume.
pub const HOMES: usize = 3;
/// Batches the writer sends, one after the other. Lengths and tails count batches.
pub const BATCHES: u8 = 2;

/// A fault of the protocol, planted to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    AnswerBeforeAllReplicas,
    LongestTail,
    NoEpochCheck,
    DamagedTailVotes,
    LateRow,
    CutBeforeCommit,
    EraseEarly,
    RestoreUnread,
    DisplaceUnasked,
    NoTermCheck,
}

/// What a disk holds of the volume. Open stands for the lease's epoch; all else for the seal's, which is one higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    None,
    Open,
    Fenced,
    /// Cut to this length, for good.
    Sealed(u8),
    /// Sealed before, and given up by an order: it serves nothing.
    Trashed,
    Erased,
}

/// An append on its way to one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flight {
    /// Nothing was sent, or nobody waits for it.
    None,
    /// Sent; may land at any later time, or never.
    Sent,
    /// Durable on the disk, and the writer knows.
    Answered,
    /// It was refused, or it landed and the answer was lost: the writer waits in vain.
    Lost,
}

/// A replica's answer to the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vote {
    pub tail: u8,
    pub damaged: bool,
}

/// What one volume manager heard from one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Heard {
    /// Step c.
    pub vote: Option<Vote>,
    /// Step f: whether it verified `[0, length)`.
    pub verified: Option<bool>,
}

/// A disk with its extent, and what others know of it. Kept together so that the homes can be sorted: which of them is
/// which makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Disk {
    pub alive: bool,
    pub reachable: bool,
    /// Since a restart an open extent takes no appends, and its tail is what validates.
    pub restarted: bool,
    pub extent: Extent,
    /// Durable batches.
    pub tail: u8,
    /// One of them is damaged: its number, from 1; 0 for none.
    pub damaged: u8,
    /// Highest leader's term it has seen.
    pub term: u8,
    pub flight: Flight,
    pub heard: [Heard; 2],
    /// Listed in the replication table.
    pub listed: bool,
    /// The catalog committed its removal under this term, and the order to erase it is on its way.
    pub removal: Option<u8>,
    /// It was cut at a moment when no such length was committed.
    pub cut_early: bool,
    /// It took an append below its fence.
    pub passed_fence: bool,
}

/// The writer's batch under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Ready for the next batch.
    Idle,
    /// Sent, waiting for the disks.
    Sent,
    /// Its index row stands; the client is not answered yet.
    Indexed,
    /// Gave up: the blocks go into another volume.
    Gone,
}

/// The index shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Index {
    pub closed: bool,
    /// The fence row's highest end, batches.
    pub highest: u8,
    /// Rows that point into the volume, a bit for each batch.
    pub rows: u8,
    /// Rows that compaction moved to another volume.
    pub moved: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Open,
    Sealing,
    Sealed,
    Retired,
}

/// The replication table's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    pub state: State,
    pub length: Option<u8>,
    /// The term in force.
    pub term: u8,
    /// A write of a leader whose term is over was taken.
    pub taken_from_old_leader: bool,
    /// A voter that was sound was left out of the list at the seal.
    pub voter_dropped: bool,
    /// A replica was erased while the volume lacked verified ones and was not retired.
    pub erased_early: bool,
    /// An extent came out of the trash and onto the list that is not what was sealed.
    pub restored_unread: bool,
    /// A sound replica gave way to a copy.
    pub displaced_sound: bool,
}

/// Where a volume manager stands in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// There is no such leader.
    Absent,
    /// Not elected yet.
    Waiting,
    /// About to read the table.
    Start,
    /// After step a.
    Sealing,
    /// After step b, with the floor it read.
    Fencing { floor: u8 },
    /// After step e.
    Verifying { length: u8 },
    /// After step f; repairs, readmits, compacts.
    Sealed { length: u8 },
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Disks that die or get damaged: fewer than there are replicas.
    pub losses: u8,
    pub partitions: u8,
    pub restarts: u8,
}

/// How much may happen in one exploration: all at once is too much to visit.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub budget: Budget,
    /// Whether a second leader takes over, and the first goes on all the same.
    pub takeover: bool,
    /// Whether replicas move, and what they leave behind lies in the trash for a while; otherwise that is erased at once.
    pub moves: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub disks: [Disk; DISKS],
    pub writer: Writer,
    /// The batch that is under way or comes next, from 1.
    pub batch: u8,
    /// Batches the client was answered for, a bit each.
    pub acknowledged: u8,
    pub index: Index,
    pub table: Table,
    pub leaders: [Place; 2],
    pub budget: Budget,
    pub moves: bool,
}

impl World {
    pub fn new(scope: Scope) -> Self {
        let home = Disk {
            alive: true,
            reachable: true,
            restarted: false,
            extent: Extent::Open,
            tail: 0,
            damaged: 0,
            term: 1,
            flight: Flight::None,
            heard: [Heard::default(); 2],
            listed: true,
            removal: None,
            cut_early: false,
            passed_fence: false,
        };
        let spare = Disk { extent: Extent::None, listed: false, ..home };
        Self {
            disks: [home, home, home, spare],
            writer: Writer::Idle,
            batch: 1,
            acknowledged: 0,
            index: Index { closed: false, highest: 0, rows: 0, moved: 0 },
            table: Table {
                state: State::Open,
                length: None,
                term: 1,
                taken_from_old_leader: false,
                voter_dropped: false,
                erased_early: false,
                restored_unread: false,
                displaced_sound: false,
            },
            leaders: [Place::Start, if scope.takeover { Place::Waiting } else { Place::Absent }],
            budget: scope.budget,
            moves: scope.moves,
        }
    }

    /// The same world without what nobody can see any more, and with its homes in order.
    pub fn canonical(mut self) -> Self {
        let writes = self.writer != Writer::Gone;
        for disk in &mut self.disks {
            for (heard, leader) in disk.heard.iter_mut().zip(self.leaders) {
                match leader {
                    Place::Verifying { .. } => heard.vote = None,
                    Place::Sealed { .. } => *heard = Heard::default(),
                    _ => {}
                }
            }
            if !disk.alive {
                (disk.extent, disk.tail, disk.damaged, disk.removal) = (Extent::None, 0, 0, None);
                (disk.restarted, disk.reachable, disk.term) = (false, true, 0);
            }
            let takes_nothing = !matches!(disk.extent, Extent::Open | Extent::Fenced);
            if takes_nothing {
                disk.restarted = false;
            }
            let waited_for = writes && disk.flight == Flight::Answered;
            if !waited_for && (takes_nothing || disk.flight != Flight::Sent) {
                disk.flight = if writes { Flight::Lost } else { Flight::None };
            }
        }
        self.disks[..HOMES].sort_unstable();
        self
    }

    /// Disks that are listed, alive and hold `[0, length)`, undamaged.
    pub fn verified(&self, length: u8) -> usize {
        self.disks.iter().filter(|disk| disk.listed && disk.alive && disk.holds(length)).count()
    }
}

impl Extent {
    /// Whether it can be read, fenced, cut or given up.
    pub fn is_there(self) -> bool {
        !matches!(self, Self::None | Self::Trashed | Self::Erased)
    }
}

impl Disk {
    /// Whether it could be verified at `length`.
    pub fn holds(&self, length: u8) -> bool {
        let whole = match self.extent {
            Extent::None | Extent::Trashed | Extent::Erased => false,
            Extent::Open | Extent::Fenced => self.tail >= length,
            Extent::Sealed(at) => at == length && self.tail >= length,
        };
        whole && (self.damaged == 0 || self.damaged > length)
    }

    /// Whether batch `n` can be read here.
    pub fn reads(&self, n: u8) -> bool {
        self.alive && self.extent.is_there() && self.tail >= n && self.damaged != n
    }

    /// The tail as the node knows it: after a restart it ends before the first batch that does not validate.
    pub fn known_tail(&self) -> u8 {
        if self.restarted && self.damaged != 0 { self.damaged - 1 } else { self.tail }
    }
}

/// The number of a disk as the planner wants it.
pub fn disk_id(n: usize) -> DiskId {
    DiskId([n as u8; 16])
}
