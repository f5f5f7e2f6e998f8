//! The process that is killed: four threads, each with volumes of its own, and every operation of the engine.

use std::path::Path;
use std::time::Duration;

use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_engine::{Disk, EngineError, ExtentState, IoMode, TrashOrder};

use crate::history::{Event, Step};
use crate::support::{EPOCH, aligned, batch, block_on, open};

pub const DISK: &str = "HOLDFAST_TEST_KILL_DISK";
pub const SEED: &str = "HOLDFAST_TEST_KILL_SEED";

const THREADS: u8 = 4;
const SEALED: WriteEpoch = WriteEpoch(2);
const TERM: u64 = 1;

/// The batch that belongs to a place, as both processes know it.
pub fn batch_at(volume: VolumeId, offset: u64) -> Vec<u8> {
    let name = volume.0.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut rng = SimRng::from_seed(offset ^ name);
    let payloads: Vec<Vec<u8>> = (0..1 + rng.index(3))
        .map(|_| {
            let mut payload = vec![0; 16 + rng.index(20_000)];
            rng.fill(&mut payload);
            payload
        })
        .collect();
    batch(volume, EPOCH, offset, offset, &payloads).0
}

/// Nothing, unless it is the child of a test: then it works until it is killed.
#[test]
fn works_until_it_is_killed() {
    let (Ok(path), Ok(seed)) = (std::env::var(DISK), std::env::var(SEED)) else { return };
    let seed: u64 = seed.parse().unwrap();
    let disk = open(Path::new(&path), IoMode::Auto);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let worker = Worker {
                disk: disk.clone(),
                thread,
                seed,
                made: 0,
                rng: SimRng::from_seed(seed * 8 + u64::from(thread)),
            };
            scope.spawn(move || worker.run());
        }
    });
}

struct Worker {
    disk: Disk,
    thread: u8,
    seed: u64,
    made: u8,
    rng: SimRng,
}

impl Worker {
    fn run(mut self) {
        let mut open = None;
        loop {
            match self.rng.below(100) {
                0..74 => open = self.append(open),
                74..82 => {
                    self.seal();
                    open = None;
                }
                82..87 => self.trash(),
                87..88 => self.restore(),
                88..100 if self.thread == 0 => self.erase(),
                88..90 if self.thread == 1 => {
                    let step = block_on(self.disk.scrub_step(1 << 20)).unwrap();
                    assert!(step.found.is_empty(), "{:?}", step.found);
                }
                _ => {}
            }
        }
    }

    /// Its volumes in this state.
    fn volumes(&self, state: ExtentState) -> Vec<VolumeId> {
        let extents = block_on(self.disk.extents()).unwrap();
        let mine = extents.into_iter().filter(|info| info.volume.0[15] == self.thread && info.state == state);
        mine.map(|info| info.volume).collect()
    }

    fn pick(&mut self, state: ExtentState) -> Option<VolumeId> {
        let volumes = self.volumes(state);
        (!volumes.is_empty()).then(|| volumes[self.rng.index(volumes.len())])
    }

    /// Says that a step begins, takes it, and says that it was acknowledged.
    fn take(
        &self,
        volume: VolumeId,
        step: Step,
        result: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        Event::begun(volume, step).say();
        let result = result();
        match &result {
            Ok(()) => Event::acknowledged(volume, step).say(),
            Err(_) => Event::Refused { volume }.say(),
        }
        result
    }

    /// Appends to the open volume, or to a new one when there is none or it is full.
    fn append(&mut self, open: Option<(VolumeId, u64)>) -> Option<(VolumeId, u64)> {
        let Some((volume, tail)) = open else { return self.create() };
        let bytes = batch_at(volume, tail);
        let end = tail + bytes.len() as u64;
        let step = Step::Append { start: tail, end };
        match self.take(volume, step, || block_on(self.disk.append(volume, EPOCH, tail, aligned(&bytes))).map(drop)) {
            Ok(()) => Some((volume, end)),
            Err(EngineError::VolumeFull { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn create(&mut self) -> Option<(VolumeId, u64)> {
        let mut name = [0; 12];
        name[..8].copy_from_slice(&self.seed.to_be_bytes());
        (name[10], name[11]) = (self.made, self.thread);
        self.made = self.made.checked_add(1)?;
        let volume = VolumeId::from_parts(1, name);
        match self.take(volume, Step::Create, || block_on(self.disk.create_extent(volume, EPOCH))) {
            Ok(()) => Some((volume, 0)),
            Err(EngineError::NoSpace { .. }) => {
                self.seal();
                self.trash();
                if self.thread == 0 {
                    self.erase();
                } else {
                    // There is nothing to do before that.
                    std::thread::sleep(Duration::from_millis(3));
                }
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn seal(&mut self) {
        let Some(volume) = self.pick(ExtentState::Open).or_else(|| self.pick(ExtentState::Fenced)) else { return };
        let mut length = 0;
        self.take(volume, Step::Fence, || {
            length = block_on(self.disk.fence(volume, SEALED, TERM))?;
            Ok(())
        })
        .unwrap();
        if self.rng.chance(125) {
            return;
        }
        let seal = || block_on(self.disk.seal(volume, SEALED, length, TERM)).map(drop);
        self.take(volume, Step::Seal { length }, seal).unwrap();
    }

    fn trash(&mut self) {
        let Some(volume) = self.pick(ExtentState::Sealed) else { return };
        let info = block_on(self.disk.extent(volume)).unwrap();
        let (slot, slot_generation) = (info.slot, info.slot_generation);
        let order = TrashOrder { volume, slot, slot_generation, term: TERM, order: [self.thread + 1; 16] };
        self.take(volume, Step::Trash, || block_on(self.disk.trash(order))).unwrap();
    }

    fn restore(&mut self) {
        let Some(volume) = self.pick(ExtentState::Trashed) else { return };
        // The thread that erases may have been quicker.
        let Ok(info) = block_on(self.disk.extent(volume)) else { return };
        let restore = || block_on(self.disk.restore(volume, info.slot, info.slot_generation, TERM));
        match self.take(volume, Step::Restore, restore) {
            Ok(()) | Err(EngineError::UnknownVolume { .. } | EngineError::WrongOrder { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn erase(&self) {
        Event::EraseBegun.say();
        let erased = block_on(self.disk.erase_expired(Duration::ZERO)).unwrap();
        Event::Erased(erased.into_iter().map(|erased| erased.volume).collect()).say();
    }
}
