//! The reference: what the engine may and must hold, from what it was asked and what it answered.
//!
//! An operation that was asked and not answered (a crash, an error, a caller that went away) may have happened or
//! not: `Maybe`. What was answered, or seen after a mount, is `Yes` for good.

use std::collections::BTreeMap;

use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_engine::{ExtentInfo, ExtentState, Incarnation};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    No,
    Maybe,
    Yes,
}

#[derive(Clone)]
pub struct Batch {
    pub offset: u64,
    pub bytes: Vec<u8>,
    pub records: Vec<(u64, u32)>,
    pub acknowledged: bool,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.acknowledged { "acknowledged" } else { "sent" };
        write!(f, "{}..{} {what}", self.offset, self.end())
    }
}

impl Batch {
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// One volume on the disk.
#[derive(Debug)]
pub struct Volume {
    pub id: VolumeId,
    pub exists: Known,
    /// In order, without gaps; only the last may be unacknowledged.
    pub batches: Vec<Batch>,
    /// Whether the writer still goes on: no error, no crash, no fence so far.
    pub writer: bool,
    pub epoch_known: u64,
    pub epoch_asked: u64,
    pub term_known: u64,
    pub fenced: Known,
    pub sealed: Option<u64>,
    pub seals_asked: Vec<u64>,
    /// A copy comes whole, sealed at its full length.
    pub is_copy: bool,
    /// Copies under way, or whose caller went away.
    pub copying: u32,
    /// It is on its way into the trash or back, or being given up.
    pub moving: bool,
    pub trashed: Known,
    /// The outcome of an order is not known since the mount.
    pub trash_failed: bool,
    /// Every order that asked for it.
    pub orders: Vec<[u8; 16]>,
    /// A scrub found damage in it, or could not read it, and wrote that down.
    pub marked: Known,
    /// Somebody has been writing wrong bytes into the copy since the mount, and may spoil a right one.
    pub miscopied: bool,
}

impl Volume {
    pub fn new(id: VolumeId, epoch: WriteEpoch, is_copy: bool) -> Self {
        Self {
            id,
            exists: Known::Maybe,
            batches: Vec::new(),
            writer: false,
            epoch_known: epoch.0,
            epoch_asked: epoch.0,
            term_known: 0,
            fenced: Known::No,
            sealed: None,
            seals_asked: Vec::new(),
            is_copy,
            copying: 0,
            moving: false,
            trashed: Known::No,
            trash_failed: false,
            orders: Vec::new(),
            marked: Known::No,
            miscopied: false,
        }
    }

    /// End of what was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.batches.iter().filter(|batch| batch.acknowledged).map(Batch::end).max().unwrap_or(0)
    }

    /// End of what was ever sent.
    pub fn sent(&self) -> u64 {
        self.batches.last().map_or(0, Batch::end)
    }

    pub fn bytes(&self, end: u64) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.sent() as usize);
        self.batches.iter().for_each(|batch| all.extend_from_slice(&batch.bytes));
        all.truncate(end as usize);
        all
    }

    pub fn digest(&self, end: u64) -> [u8; 32] {
        Sha256::digest(self.bytes(end)).into()
    }

    /// Ends of batches: the only lengths it can be sealed at.
    pub fn boundaries(&self) -> Vec<u64> {
        std::iter::once(0).chain(self.batches.iter().filter(|b| b.acknowledged).map(Batch::end)).collect()
    }

    pub fn ended(&self) -> bool {
        self.fenced == Known::Yes || self.sealed.is_some()
    }

    /// Compares with what the engine shows after a mount, and from then on knows what was only possible before.
    pub fn settle(&mut self, info: &ExtentInfo) -> Result<(), String> {
        let fail = |what: &str| Err(format!("volume {}: {what}: {info:?}, model {self:?}", self.id));
        if info.takes_appends {
            return fail("takes appends after a mount");
        }
        if !(self.epoch_known..=self.epoch_asked).contains(&info.epoch.0) {
            return fail("its epoch was never asked for, or went back");
        }
        if info.term < self.term_known {
            return fail("its term went back");
        }
        match info.state {
            ExtentState::Damaged if self.marked == Known::No => return fail("is damaged, though nothing was harmed"),
            ExtentState::Open | ExtentState::Fenced | ExtentState::Sealed if self.marked == Known::Yes => {
                return fail("lost the mark that it is damaged");
            }
            ExtentState::Trashed if !info.order.is_some_and(|order| self.orders.contains(&order)) => {
                return fail("is in the trash by an order that nobody gave");
            }
            ExtentState::Trashed if self.trashed == Known::No => {
                return fail("is in the trash, though nobody ordered it");
            }
            _ if info.state != ExtentState::Trashed && self.trashed == Known::Yes => {
                return fail("is out of the trash, though nobody restored it");
            }
            // What is damaged or in the trash stays what it was.
            ExtentState::Sealed | ExtentState::Damaged | ExtentState::Trashed if info.digest.is_some() => {
                let allowed = match self.sealed {
                    Some(length) => length == info.length,
                    None => self.seals_asked.contains(&info.length),
                };
                if !allowed || info.digest != Some(self.digest(info.length)) {
                    return fail("is sealed otherwise than asked");
                }
                self.sealed = Some(info.length);
            }
            _ if self.sealed.is_some() => return fail("lost its seal"),
            ExtentState::Copying if self.is_copy => {}
            ExtentState::Copying => return fail("became a copy"),
            ExtentState::Open if self.fenced == Known::Yes => return fail("lost its fence"),
            ExtentState::Fenced if self.fenced == Known::No => return fail("was fenced by nobody"),
            // The sealed ones among them came above.
            ExtentState::Sealed => return fail("is sealed without a digest"),
            ExtentState::Open | ExtentState::Fenced | ExtentState::Damaged | ExtentState::Trashed => {
                let ends: Vec<u64> = std::iter::once(0).chain(self.batches.iter().map(Batch::end)).collect();
                if info.length < self.acknowledged() || !ends.contains(&info.length) {
                    return fail("lost acknowledged appends, or holds what nobody sent");
                }
                self.batches.retain(|batch| batch.end() <= info.length);
                self.batches.iter_mut().for_each(|batch| batch.acknowledged = true);
                self.fenced = match info.state {
                    ExtentState::Fenced => Known::Yes,
                    ExtentState::Damaged | ExtentState::Trashed => self.fenced,
                    _ => Known::No,
                };
            }
        }
        self.exists = Known::Yes;
        self.trashed = if info.state == ExtentState::Trashed { Known::Yes } else { Known::No };
        self.trash_failed = false;
        self.marked = match info.state {
            ExtentState::Damaged => Known::Yes,
            ExtentState::Trashed => self.marked,
            _ => Known::No,
        };
        (self.writer, self.miscopied, self.moving, self.copying) = (false, false, false, 0);
        (self.epoch_known, self.epoch_asked, self.term_known) = (info.epoch.0, info.epoch.0, info.term);
        Ok(())
    }
}

/// A value written whole: the last acknowledged, or any asked for since.
#[derive(Debug)]
pub struct Register<T> {
    pub possible: Vec<T>,
}

impl<T: PartialEq + Clone + std::fmt::Debug> Register<T> {
    pub fn new(value: T) -> Self {
        Self { possible: vec![value] }
    }

    pub fn ask(&mut self, value: T) {
        self.possible.push(value);
    }

    pub fn see(&mut self, value: &T) -> Result<(), String> {
        if !self.possible.contains(value) {
            return Err(format!("read {value:?}, possible were {:?}", self.possible));
        }
        self.possible = vec![value.clone()];
        Ok(())
    }
}

/// The disk.
#[derive(Debug)]
pub struct Model {
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Names of contents of the key area.
    pub keys: Register<u64>,
    /// A write of the key area is under way, or its caller went away.
    pub keys_busy: bool,
    /// Confirmed incarnations: number and nonce.
    pub incarnation: Register<(u64, [u8; 16])>,
    pub proposal: Option<Incarnation>,
    /// A scrub was begun since the mount that may not be able to read something. It goes on whoever waits for it, and may
    /// come to extents that were made after it began.
    pub may_mark: bool,
    term: u64,
}

impl Model {
    pub fn new() -> Self {
        Self {
            volumes: BTreeMap::new(),
            keys: Register::new(0),
            keys_busy: false,
            incarnation: Register::new((0, [0; 16])),
            proposal: None,
            may_mark: false,
            term: 0,
        }
    }

    /// A volume that was asked for.
    pub fn insert(&mut self, mut volume: Volume) {
        volume.marked = if self.may_mark { Known::Maybe } else { Known::No };
        self.volumes.insert(volume.id, volume);
    }

    /// The term of the newest leader that any order came from.
    pub fn highest_term(&mut self) -> u64 {
        self.term = self.volumes.values().map(|volume| volume.term_known + 1).fold(self.term, u64::max);
        self.term
    }

    /// After a mount: every volume against what the engine shows.
    pub fn settle(&mut self, extents: &[ExtentInfo]) -> Result<(), String> {
        for info in extents {
            let Some(volume) = self.volumes.get_mut(&info.volume) else {
                return Err(format!("nobody asked for {info:?}"));
            };
            volume.settle(info)?;
        }
        let shown = |id: &VolumeId| extents.iter().any(|info| info.volume == *id);
        for volume in self.volumes.values() {
            if volume.exists == Known::Yes && !shown(&volume.id) {
                return Err(format!("volume {} is gone: {volume:?}", volume.id));
            }
        }
        self.volumes.retain(|id, _| shown(id));
        self.may_mark = false;
        Ok(())
    }
}
