//! One seed: random operations on the simulated disk, several at a time, crashes at any I/O, and after every mount
//! the comparison with the model.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use holdfast_libs_sim::disk::{Crash, Faults, SimDisk};
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_sim::zones::ZoneLayout;
use holdfast_libs_types::VolumeId;
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{EngineError, ExtentState, Finding, Place};

use sha2::Digest;

use crate::model::{Known, Model};
use crate::operations::EPOCH;
use crate::support::{CELL, aligned, batch, drive};

pub const SLOT_BYTES: u64 = 256 * 1024;
/// Every so many seeds the disk is a zoned one.
const ZONED_EVERY: u64 = 4;
const DISK_BYTES: u64 = 16 << 20;
/// Of a zoned disk: room for everything but the slots' data.
const CONVENTIONAL_BYTES: u64 = 7 << 20;
/// A seed counts only with as many.
pub const LEAST_OPERATIONS: u64 = 200;
pub const LEAST_CRASHES: u64 = 3;
const MOST_OUTSTANDING: usize = 5;

/// What is done wrong, to see that the test notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Each test binary uses its own part.
pub enum Mutation {
    None,
    DataWithoutDsync,
    HeadersWithoutDsync,
    /// Superblocks and key area.
    AreasWithoutDsync,
    MountWithoutFlush,
    /// One of the engine's own.
    #[cfg(feature = "planted-bugs")]
    Planted(holdfast_node_engine::PlantedBug),
}

impl Mutation {
    fn is_planted(self) -> bool {
        !matches!(
            self,
            Self::None
                | Self::DataWithoutDsync
                | Self::HeadersWithoutDsync
                | Self::AreasWithoutDsync
                | Self::MountWithoutFlush
        )
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub seeds: u64,
    /// I/Os of the disk.
    pub completed: u64,
    pub operations: u64,
    pub crashes: u64,
    pub acknowledged_appends: u64,
    pub seals: u64,
    pub copies: u64,
    /// Pieces of scrubs among the operations, and bytes that they and the rounds after mounts read.
    pub scrubs: u64,
    pub scrubbed_bytes: u64,
    /// Extents in which a scrub found damage.
    pub marked: u64,
    pub trashed: u64,
    pub restored: u64,
    pub erased: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, one: Self) {
        self.completed += one.completed;
        self.operations += one.operations;
        self.crashes += one.crashes;
        self.acknowledged_appends += one.acknowledged_appends;
        self.seals += one.seals;
        self.copies += one.copies;
        self.scrubs += one.scrubs;
        self.scrubbed_bytes += one.scrubbed_bytes;
        self.marked += one.marked;
        self.trashed += one.trashed;
        self.restored += one.restored;
        self.erased += one.erased;
    }
}

/// How an operation ended; the model is told.
pub type Observe = Box<dyn FnOnce(&mut Model, &mut Summary) -> Result<(), String>>;
pub type Running = Pin<Box<dyn Future<Output = Observe>>>;

pub struct Simulation {
    disk: SharedSimDisk,
    pub ops: SimRng,
    pub model: Model,
    summary: Summary,
    pub next_volume: u32,
    /// What goes wrong in this life.
    pub faults: Faults,
    /// A write to the extent table was cut or failed, now or earlier: a mount may have to rebuild it.
    table_was_cut: bool,
}

/// Runs one seed; `Err` says what was lost.
pub fn run(seed: u64, mutation: Mutation) -> Result<Summary, String> {
    let streams = Streams::new(seed);
    let disk: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(DISK_BYTES, &streams)));
    // The cache of a sequential zone is not simulated: nothing that is written there forgets that it was durable.
    let can_be_zoned = matches!(mutation, Mutation::None) || mutation.is_planted();
    if can_be_zoned && seed % ZONED_EVERY == ZONED_EVERY - 1 {
        disk.borrow_mut().set_zones(zones(&mut streams.stream("zones")));
    }
    simulated::format(&disk, CELL, SLOT_BYTES, &mut streams.stream("format"));
    mutate(&disk, mutation);
    let mut simulation = Simulation {
        disk,
        ops: streams.stream("operations"),
        model: Model::new(),
        summary: Summary::default(),
        next_volume: 0,
        faults: Faults::default(),
        table_was_cut: false,
    };
    while simulation.summary.operations < LEAST_OPERATIONS || simulation.summary.crashes < LEAST_CRASHES {
        simulation.life()?;
    }
    let mut engine = simulation.mount()?;
    simulation.scrub_rounds(&mut engine)?;
    simulation.go_on(&mut engine)?;
    simulation.summary.completed = simulation.disk.borrow().completed();
    Ok(simulation.summary)
}

/// One zone or several for a slot, with and without a hole behind each, and more or less open at a time.
fn zones(rng: &mut SimRng) -> ZoneLayout {
    let (zone_bytes, capacity_bytes) = match rng.below(4) {
        0 => (SLOT_BYTES, SLOT_BYTES),
        1 => (2 * SLOT_BYTES, SLOT_BYTES - 8192),
        2 => (SLOT_BYTES / 4, SLOT_BYTES / 4),
        _ => (SLOT_BYTES / 4, SLOT_BYTES / 4 - 8192),
    };
    let max_open = if rng.chance(300) { 0 } else { 3 + rng.below(10) as u32 };
    ZoneLayout { zone_bytes, capacity_bytes, conventional: (CONVENTIONAL_BYTES / zone_bytes) as u32, max_open }
}

fn mutate(disk: &SharedSimDisk, mutation: Mutation) {
    // Slots start at a multiple of 1 MiB and are 256 KiB long, so a header is what stands in the first two pages of
    // such a stretch; everything below the slots is neither.
    let slots = simulated::slot_area(DISK_BYTES, SLOT_BYTES);
    let is_header = move |offset: u64| slots.contains(&offset) && (offset - slots.start) % SLOT_BYTES < 8192;
    let is_slot = {
        let slots = simulated::slot_area(DISK_BYTES, SLOT_BYTES);
        move |offset: u64| slots.contains(&offset)
    };
    let mut disk = disk.borrow_mut();
    #[cfg(feature = "planted-bugs")]
    holdfast_node_engine::plant(None);
    match mutation {
        #[cfg(feature = "planted-bugs")]
        Mutation::Planted(bug) => holdfast_node_engine::plant(Some(bug)),
        Mutation::None => {}
        Mutation::DataWithoutDsync => {
            disk.ignore_dsync(Box::new(move |offset, _| is_slot(offset) && !is_header(offset)));
        }
        Mutation::HeadersWithoutDsync => disk.ignore_dsync(Box::new(move |offset, _| is_header(offset))),
        Mutation::AreasWithoutDsync => disk.ignore_dsync(Box::new(move |offset, _| !is_slot(offset))),
        Mutation::MountWithoutFlush => disk.ignore_flush(),
    }
}

impl Simulation {
    fn crash(&mut self, mut engine: Option<SimulatedDisk>) {
        let kind = if self.ops.chance(700) { Crash::PowerLoss } else { Crash::ProcessKill };
        drop(engine.take());
        let table = simulated::table_areas_on(&self.disk, SLOT_BYTES);
        let mut areas = table.copies.iter().chain(&table.halves);
        self.table_was_cut |= areas.any(|area| self.disk.borrow().is_writing(area));
        self.disk.borrow_mut().crash(kind);
        self.summary.crashes += 1;
    }

    /// Mounts, sometimes crashing on the way, and compares everything with the model.
    fn mount(&mut self) -> Result<SimulatedDisk, String> {
        self.disk.borrow_mut().set_faults(Faults { stalls: 20, ..Faults::default() });
        loop {
            let entropy = SimRng::from_seed(self.ops.next_u64());
            let mut engine =
                SimulatedDisk::begin_mount(&self.disk, CELL, entropy).map_err(|error| error.to_string())?;
            let crash_at = self.ops.chance(100).then(|| self.disk.borrow().completed() + self.ops.below(60));
            while !engine.is_mounted() && crash_at.is_none_or(|at| self.disk.borrow().completed() < at) {
                engine.turn();
            }
            if !engine.is_mounted() {
                self.crash(Some(engine));
                continue;
            }
            if engine.handle().status().rebuilt && !self.table_was_cut {
                return Err("the extent table was rebuilt, though no write of it was ever cut or failed".to_owned());
            }
            self.compare(&mut engine)?;
            if self.ops.chance(150) {
                self.scrub_rounds(&mut engine)?;
            }
            if self.ops.chance(60)
                && let Some(id) = self.pick(|v| v.sealed.is_some_and(|length| length > 0) && v.trashed == Known::No)
            {
                self.harm(engine, id)?;
                continue;
            }
            return Ok(engine);
        }
    }

    fn compare(&mut self, engine: &mut SimulatedDisk) -> Result<(), String> {
        let disk = engine.handle().clone();
        let extents = drive(engine, disk.extents()).map_err(|error| error.to_string())?;
        self.model.settle(&extents)?;
        for volume in self.model.volumes.values().filter(|volume| !volume.is_copy || volume.sealed.is_some()) {
            let end = volume.sealed.unwrap_or_else(|| volume.sent());
            let bytes = drive(engine, disk.read(volume.id, 0, end as u32)).map_err(|error| error.to_string())?;
            if bytes[..] != volume.bytes(end)[..] {
                let at = bytes.iter().zip(volume.bytes(end)).position(|(found, sent)| *found != sent);
                return Err(format!("reads back other bytes than were acknowledged, from {at:?}: {volume:?}"));
            }
            let past = drive(engine, disk.read(volume.id, end, 1));
            if !matches!(past, Err(EngineError::OutOfRange { .. })) {
                return Err(format!("volume {} can be read past its end {end}", volume.id));
            }
        }
        let keys = drive(engine, disk.read_key_area()).map_err(|error| error.to_string())?;
        self.model.keys.see(&key_name(&keys))?;
        self.model.keys_busy = false;
        let proposal = drive(engine, disk.propose_incarnation()).map_err(|error| error.to_string())?;
        self.model.incarnation.see(&(proposal.incarnation - 1, proposal.previous_nonce))?;
        if let Some(known) = self.model.proposal.filter(|known| known.incarnation == proposal.incarnation)
            && known != proposal
        {
            return Err(format!("proposed {known:?}, then {proposal:?}"));
        }
        self.model.proposal = Some(proposal);
        Ok(())
    }

    /// A round of the scrub may find copies of metadata that a crash tore, and mends them; the next finds nothing. The
    /// first goes on where one before the crash had come to, so it takes two to have looked at everything. A round
    /// compares both header pages of every slot with memory, and all that is sealed with its footer.
    fn scrub_rounds(&mut self, engine: &mut SimulatedDisk) -> Result<(), String> {
        let disk = engine.handle().clone();
        for round in 0..3 {
            loop {
                let step = drive(engine, disk.scrub_step(1 << 20)).map_err(|error| error.to_string())?;
                self.summary.scrubbed_bytes += step.read_bytes;
                let wrong = |finding: &Finding| round > 1 || finding.place == Place::Data || !finding.repaired;
                if let Some(finding) = step.found.into_iter().find(wrong) {
                    return Err(format!("scrub round {round} after a mount found {finding:?}"));
                }
                if step.finished_round {
                    break;
                }
            }
        }
        // All that is sealed was read from end to end, and is right.
        for info in drive(engine, disk.extents()).map_err(|error| error.to_string())? {
            match self.model.volumes.get_mut(&info.volume) {
                Some(volume) if info.state == ExtentState::Sealed => volume.marked = Known::No,
                Some(volume) if info.state == ExtentState::Damaged && info.digest.is_some() => {
                    return Err(format!("is marked as damaged though every byte of it is right: {volume:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Flips a bit of a sealed extent, lets a scrub find it, and crashes. The bit is right again at the next mount, which
    /// must know all the same that the extent is not to be trusted.
    fn harm(&mut self, mut engine: SimulatedDisk, id: VolumeId) -> Result<(), String> {
        let disk = engine.handle().clone();
        let info = drive(&mut engine, disk.extent(id)).map_err(|error| error.to_string())?;
        let offset = self.ops.below(info.length);
        let at = engine.data_at(info.slot, offset);
        self.disk.borrow_mut().flip_bit(at, 1);
        // The pass takes the marks of others back.
        self.model.volumes.values_mut().for_each(|volume| volume.marked = volume.marked.min(Known::Maybe));
        let mut rounds = 0;
        loop {
            let step = drive(&mut engine, disk.scrub_step(1 << 20)).map_err(|error| error.to_string())?;
            if step.found.iter().any(|finding| (finding.place, finding.volume) == (Place::Data, Some(id))) {
                break;
            }
            rounds += u32::from(step.finished_round);
            if rounds > 1 {
                return Err(format!("no scrub finds the flipped bit at {offset} of {info:?}"));
            }
        }
        self.crash(Some(engine));
        self.disk.borrow_mut().flip_bit(at, 1);
        self.summary.marked += 1;
        self.model.volumes.get_mut(&id).ok_or("the model lost a volume")?.marked = Known::Yes;
        Ok(())
    }

    /// The engine goes on: what is open can be sealed, and new extents take appends.
    fn go_on(&mut self, engine: &mut SimulatedDisk) -> Result<(), String> {
        let disk = engine.handle().clone();
        for info in drive(engine, disk.extents()).map_err(|error| error.to_string())? {
            if !matches!(info.state, ExtentState::Open | ExtentState::Fenced) {
                continue;
            }
            let sealed = drive(engine, disk.seal(info.volume, info.epoch, info.length, info.term));
            match sealed {
                Ok(digest) if digest == self.model.volumes[&info.volume].digest(info.length) => {}
                Err(EngineError::NoSpace { detail, .. }) if detail.contains("does not fit") => {}
                other => return Err(format!("seal of {info:?} after all: {other:?}")),
            }
        }
        let id = self.fresh_volume();
        match drive(engine, disk.create_extent(id, EPOCH)) {
            Ok(()) => {}
            Err(EngineError::NoSpace { .. }) if disk.status().is_full() => return Ok(()),
            Err(error) => return Err(format!("takes no new extent: {error}")),
        }
        let (bytes, records) = batch(id, EPOCH, 0, 0, &[vec![1; 3000], vec![2; 5000]]);
        drive(engine, disk.append(id, EPOCH, 0, aligned(&bytes))).map_err(|error| error.to_string())?;
        for (offset, len) in records {
            let record = drive(engine, disk.read_record(id, offset, len)).map_err(|error| error.to_string())?;
            if record[..] != bytes[offset as usize..][..len as usize] {
                return Err("a new extent reads back other bytes".to_owned());
            }
        }
        Ok(())
    }

    /// From a mount to a crash.
    fn life(&mut self) -> Result<(), String> {
        let mut engine = self.mount()?;
        self.faults = self.choose_faults();
        self.table_was_cut |= self.faults.write_errors > 0;
        self.disk.borrow_mut().set_faults(self.faults);
        let span = if self.ops.chance(300) { 30 } else { 400 };
        let crash_at = self.disk.borrow().completed() + 1 + self.ops.below(span);
        let mut left = 20 + self.ops.below(80);
        let mut running: Vec<Running> = Vec::new();
        while self.disk.borrow().completed() < crash_at && (left > 0 || !running.is_empty()) {
            while left > 0 && running.len() < MOST_OUTSTANDING && self.ops.chance(800) {
                left -= 1;
                // Not all can be begun: there may be nothing to seal or to read.
                if let Some(begun) = self.operation(engine.handle()) {
                    self.summary.operations += 1;
                    running.push(begun);
                }
            }
            self.poll(&mut running)?;
            engine.turn();
            // A caller that goes away neither undoes its operation nor learns of it.
            if self.ops.chance(3) && !running.is_empty() {
                let index = self.ops.index(running.len());
                drop(running.swap_remove(index));
            }
        }
        drop(running);
        self.crash(Some(engine));
        Ok(())
    }

    fn poll(&mut self, running: &mut Vec<Running>) -> Result<(), String> {
        let mut n = 0;
        while n < running.len() {
            match running[n].as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => n += 1,
                Poll::Ready(observe) => {
                    drop(running.swap_remove(n));
                    observe(&mut self.model, &mut self.summary)?;
                }
            }
        }
        Ok(())
    }

    fn choose_faults(&mut self) -> Faults {
        if self.ops.chance(600) {
            return Faults { stalls: 30, write_back: 5, ..Faults::default() };
        }
        let write_errors = if self.ops.chance(500) { 5 } else { 40 };
        Faults { read_errors: 5, write_errors, short: 10, stalls: 30, write_back: 5, ..Faults::default() }
    }
}

/// A number that stands for all of a content; 0 for none.
pub fn key_name(content: &Option<Vec<u8>>) -> u64 {
    content.as_ref().map_or(0, |content| {
        let hash = sha2::Sha256::digest(content);
        u64::from_le_bytes(std::array::from_fn(|n| hash[n]))
    })
}
