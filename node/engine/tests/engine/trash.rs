//! Orders to remove extents: what they must name, how long trash is kept, and what is left after the erase.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{CELL, EPOCH, aligned, batch, block_on, directory, drive, make_disk, open, volume};
use holdfast_libs_sim::disk::{Crash, SimDisk};
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_sim::zones::ZoneLayout;
use holdfast_libs_types::VolumeId;
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{
    Disk, EngineError, Erased, ExtentInfo, ExtentState, IoMode, Named, OpenOptions, SimulatedClock, TrashOrder,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A simulated disk, whose clock starts anew at each mount, as real ones do.
pub struct Shelf {
    pub media: SharedSimDisk,
    pub engine: SimulatedDisk,
    clock: Arc<SimulatedClock>,
}

impl Shelf {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, None)
    }

    /// In disk zones, or not.
    pub fn with(seed: u64, zones: Option<ZoneLayout>) -> Self {
        let streams = Streams::new(seed);
        let media: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(24 << 20, &streams)));
        if let Some(layout) = zones {
            media.borrow_mut().set_zones(layout);
        }
        simulated::format(&media, CELL, 1 << 20, &mut streams.stream("format"));
        let (engine, clock) = Self::mounted(&media);
        Self { media, engine, clock }
    }

    fn mounted(media: &SharedSimDisk) -> (SimulatedDisk, Arc<SimulatedClock>) {
        let clock = Arc::new(SimulatedClock::new());
        let options = OpenOptions::new(CELL);
        let mut engine = SimulatedDisk::begin_mount_with(media, &options, clock.clone(), SimRng::from_seed(1)).unwrap();
        while !engine.is_mounted() {
            engine.turn();
        }
        (engine, clock)
    }

    pub fn restart(&mut self) {
        self.media.borrow_mut().crash(Crash::PowerLoss);
        (self.engine, self.clock) = Self::mounted(&self.media);
    }

    pub fn run<T, F: Future<Output = T>>(&mut self, operation: impl FnOnce(Disk) -> F) -> T {
        let future = operation(self.engine.handle().clone());
        drive(&mut self.engine, future)
    }

    pub fn extent(&mut self, volume: VolumeId) -> ExtentInfo {
        self.run(|disk| async move { disk.extent(volume).await }).unwrap()
    }

    /// A volume with one record, and where that stands.
    pub fn fill(&mut self, volume: VolumeId) -> (u64, u32) {
        let (bytes, records) = batch(volume, EPOCH, 0, 0, &[vec![5; 3000]]);
        self.run(|disk| async move {
            disk.create_extent(volume, EPOCH).await?;
            disk.append(volume, EPOCH, 0, aligned(&bytes)).await
        })
        .unwrap();
        records[0]
    }

    pub fn seal(&mut self, volume: VolumeId) {
        self.run(|disk| async move { disk.seal(volume, EPOCH, 4096, 1).await }).unwrap();
    }

    pub fn order(&mut self, volume: VolumeId) -> TrashOrder {
        let info = self.extent(volume);
        TrashOrder { volume, slot: info.slot, slot_generation: info.slot_generation, term: 5, order: [0xa1; 16] }
    }

    pub fn trash(&mut self, order: TrashOrder) -> Result<(), EngineError> {
        self.run(|disk| async move { disk.trash(order).await })
    }

    pub fn restore(&mut self, order: TrashOrder) -> Result<(), EngineError> {
        let TrashOrder { volume, slot, slot_generation, term, .. } = order;
        self.run(|disk| async move { disk.restore(volume, slot, slot_generation, term).await })
    }

    pub fn erase(&mut self, retention: Duration) -> Vec<Erased> {
        self.run(|disk| async move { disk.erase_expired(retention).await }).unwrap()
    }

    pub fn read_record(&mut self, volume: VolumeId, (offset, len): (u64, u32)) -> Result<bytes::Bytes, EngineError> {
        self.run(|disk| async move { disk.read_record(volume, offset, len).await })
    }
}

#[test]
fn an_order_that_names_anything_else_than_what_stands_there_is_refused() {
    let mut shelf = Shelf::new(1);
    for n in 1..=2 {
        shelf.fill(volume(n));
        shelf.seal(volume(n));
    }
    let order = shelf.order(volume(1));
    let other = shelf.order(volume(2));
    let wrong = [
        TrashOrder { slot: other.slot, ..order },
        TrashOrder { volume: volume(2), ..order },
        TrashOrder { slot_generation: order.slot_generation + 1, ..order },
        TrashOrder { slot_generation: 0, ..order },
    ];
    for wrong in wrong {
        let error = shelf.trash(wrong).unwrap_err();
        assert!(matches!(error, EngineError::WrongOrder { .. }), "{wrong:?}: {error}");
    }
    let unknown = shelf.trash(TrashOrder { volume: volume(3), ..order }).unwrap_err();
    assert!(matches!(unknown, EngineError::UnknownVolume { .. }), "{unknown}");
    let nameless = shelf.trash(TrashOrder { order: [0; 16], ..order }).unwrap_err();
    assert!(matches!(nameless, EngineError::InvalidArgument(_)), "{nameless}");
    // The same order, at another disk.
    let mut elsewhere = Shelf::new(2);
    assert!(matches!(elsewhere.trash(order).unwrap_err(), EngineError::UnknownVolume { .. }));
    assert_eq!(shelf.extent(volume(1)).state, ExtentState::Sealed);
    assert_eq!(shelf.erase(Duration::ZERO), []);

    shelf.trash(other).unwrap();
    let error = shelf.trash(TrashOrder { term: 4, ..order }).unwrap_err();
    assert!(matches!(error, EngineError::StaleTerm { given: 4, current: 5 }), "another extent told of term 5: {error}");
    shelf.restart();
    let error = shelf.trash(TrashOrder { term: 4, ..order }).unwrap_err();
    assert!(matches!(error, EngineError::StaleTerm { .. }), "{error}");
    let error = shelf.restore(TrashOrder { term: 4, ..other }).unwrap_err();
    assert!(matches!(error, EngineError::StaleTerm { .. }), "{error}");
    let error = shelf.restore(TrashOrder { slot: order.slot, ..other }).unwrap_err();
    assert!(matches!(error, EngineError::WrongOrder { .. }), "{error}");
}

#[test]
fn trash_serves_no_records_can_be_inspected_and_comes_back_as_it_was() {
    let mut shelf = Shelf::new(3);
    let record = shelf.fill(volume(1));
    shelf.seal(volume(1));
    let before = shelf.extent(volume(1));
    let order = shelf.order(volume(1));
    shelf.trash(order).unwrap();
    shelf.trash(order).unwrap();
    let again = shelf.trash(TrashOrder { order: [2; 16], ..order }).unwrap_err();
    assert!(matches!(again, EngineError::WrongOrder { .. }), "{again}");
    for _ in 0..2 {
        let info = shelf.extent(volume(1));
        assert_eq!((info.state, info.order, info.trashed_at_s), (ExtentState::Trashed, Some(order.order), Some(0)));
        assert_eq!((info.length, info.digest), (before.length, before.digest));
        let error = shelf.read_record(volume(1), record).unwrap_err();
        assert!(matches!(error, EngineError::Trashed { .. }), "{error}");
        let raw = shelf.run(|disk| async move { disk.read(volume(1), 0, 4096).await }).unwrap();
        assert_eq!(raw.len(), 4096);
        let exists = shelf.run(|disk| async move { disk.create_extent(volume(1), EPOCH).await }).unwrap_err();
        assert!(matches!(exists, EngineError::AlreadyExists { state: ExtentState::Trashed, .. }), "{exists}");
        shelf.restart();
    }
    shelf.restore(order).unwrap();
    shelf.restore(order).unwrap();
    for _ in 0..2 {
        let info = shelf.extent(volume(1));
        assert_eq!(info, ExtentInfo { term: 5, ..before.clone() });
        shelf.read_record(volume(1), record).unwrap();
        shelf.restart();
    }
    assert_eq!(shelf.erase(Duration::ZERO), []);
}

#[test]
fn a_replica_leaves_the_trash_read_back_whole_or_stays_there_marked_as_damaged() {
    let back = |shelf: &mut Shelf, named: Named, piece: u64| loop {
        match shelf.run(|disk| async move { disk.read_back_trashed(named, piece).await }) {
            Ok(0) => break shelf.run(|disk| async move { disk.restore_read_back(named, 5).await }),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    for (flipped, piece) in [(false, 4096), (false, 1 << 20), (true, 4096)] {
        let mut shelf = Shelf::new(8);
        let (bytes, records) = batch(volume(1), EPOCH, 0, 0, &[vec![5; 30_000]]);
        let length = bytes.len() as u64;
        shelf
            .run(|disk| async move {
                disk.create_extent(volume(1), EPOCH).await?;
                disk.append(volume(1), EPOCH, 0, aligned(&bytes)).await
            })
            .unwrap();
        shelf.run(|disk| async move { disk.seal(volume(1), EPOCH, length, 1).await }).unwrap();
        let before = shelf.extent(volume(1));
        let named = before.named();
        let error = back(&mut shelf, named, piece).unwrap_err();
        assert!(matches!(error, EngineError::WrongState { state: ExtentState::Sealed, .. }), "{error}");
        let order = shelf.order(volume(1));
        shelf.trash(order).unwrap();
        for other in [Named { slot: 9, ..named }, Named { slot_generation: 9, ..named }] {
            let error = back(&mut shelf, other, piece).unwrap_err();
            assert!(matches!(error, EngineError::WrongOrder { .. }), "{error}");
        }
        let stale = shelf.run(|disk| async move { disk.restore_read_back(named, 4).await }).unwrap_err();
        assert!(matches!(stale, EngineError::StaleTerm { .. }), "{stale}");
        shelf.restart();
        if flipped {
            let start = shelf.engine.data_range(before.slot).start;
            shelf.media.borrow_mut().flip_bit(start + length - 5000, 3);
            let error = back(&mut shelf, named, piece).unwrap_err();
            assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
            for _ in 0..2 {
                let info = shelf.extent(volume(1));
                assert!(info.state == ExtentState::Trashed && info.note.is_some(), "{info:?}");
                let error = back(&mut shelf, named, piece).unwrap_err();
                assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
                shelf.restart();
            }
            continue;
        }
        // It is old enough to be erased, and stays while it is read.
        let read = async |disk: &Disk| disk.read_back_trashed(named, 4096).await;
        assert!(shelf.run(|disk| async move { read(&disk).await }).unwrap() > 0);
        assert_eq!(shelf.erase(Duration::ZERO), []);
        back(&mut shelf, named, piece).unwrap();
        assert_eq!(shelf.extent(volume(1)), ExtentInfo { term: 5, ..before.clone() });
        shelf.read_record(volume(1), records[0]).unwrap();
        shelf.trash(TrashOrder { order: [0xa2; 16], ..order }).unwrap();
        assert!(shelf.run(|disk| async move { read(&disk).await }).unwrap() > 0);
        shelf.run(|disk| async move { disk.forget_read_back(named).await }).unwrap();
        assert_eq!(shelf.erase(Duration::ZERO).len(), 1, "nobody reads it any more");
    }
}

#[test]
fn an_open_extent_does_not_leave_the_trash_as_a_replica() {
    let mut shelf = Shelf::new(9);
    shelf.fill(volume(1));
    let (order, named) = (shelf.order(volume(1)), shelf.extent(volume(1)).named());
    shelf.trash(order).unwrap();
    let error = shelf.run(|disk| async move { disk.restore_read_back(named, 5).await }).unwrap_err();
    assert!(matches!(error, EngineError::WrongState { state: ExtentState::Trashed, .. }), "{error}");
}

#[test]
fn an_open_extent_comes_back_from_the_trash_with_its_tail_and_takes_no_appends() {
    for remount in [false, true] {
        let mut shelf = Shelf::new(4);
        let record = shelf.fill(volume(1));
        let order = shelf.order(volume(1));
        shelf.trash(order).unwrap();
        if remount {
            shelf.restart();
        }
        let (bytes, _) = batch(volume(1), EPOCH, 4096, 4096, &[vec![1; 100]]);
        let append = |disk: Disk| {
            let bytes = aligned(&bytes);
            async move { disk.append(volume(1), EPOCH, 4096, bytes).await }
        };
        let error = shelf.run(append).unwrap_err();
        assert!(matches!(error, EngineError::WrongState { state: ExtentState::Trashed, .. }), "{error}");
        shelf.restore(order).unwrap();
        let info = shelf.extent(volume(1));
        assert_eq!((info.state, info.length, info.takes_appends), (ExtentState::Open, 4096, false));
        assert!(matches!(shelf.run(append).unwrap_err(), EngineError::NoAppends { .. }));
        shelf.read_record(volume(1), record).unwrap();
        shelf.run(|disk| async move { disk.seal(volume(1), EPOCH, 4096, 5).await }).unwrap();
    }
}

#[test]
fn an_unfinished_copy_is_aborted_and_not_trashed() {
    let mut shelf = Shelf::new(5);
    shelf.run(|disk| async move { disk.begin_copy(volume(1), EPOCH, 4096, [1; 32], None).await }).unwrap();
    let order = shelf.order(volume(1));
    let error = shelf.trash(order).unwrap_err();
    assert!(matches!(error, EngineError::WrongState { state: ExtentState::Copying, .. }), "{error}");
    shelf.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap();
    assert_eq!(shelf.engine.handle().status().erase_alarms, 0);
}

#[test]
fn trash_is_erased_when_its_retention_has_passed_in_disk_uptime_over_all_mounts() {
    let mut shelf = Shelf::new(6);
    for n in 1..=3 {
        shelf.fill(volume(n));
    }
    let free = shelf.engine.handle().status().free_slots;
    let (first, second) = (shelf.order(volume(1)), shelf.order(volume(2)));
    shelf.trash(first).unwrap();
    shelf.clock.advance(HOUR * 20);
    assert_eq!(shelf.erase(DAY), []);
    shelf.trash(second).unwrap();
    // What was mounted counts, the shelf does not.
    shelf.restart();
    assert!(shelf.engine.handle().status().uptime_s >= 20 * 3600);
    shelf.clock.advance(HOUR * 3);
    assert_eq!(shelf.erase(DAY), []);
    shelf.clock.advance(HOUR + Duration::from_secs(1));
    let TrashOrder { volume: gone, slot, slot_generation, order, .. } = first;
    assert_eq!(shelf.erase(DAY), [Erased { volume: gone, slot, slot_generation, order }]);
    assert_eq!(shelf.erase(DAY), []);
    assert_eq!(shelf.engine.handle().status().free_slots, free + 1);
    for _ in 0..2 {
        let error = shelf.run(|disk| async move { disk.extent(gone).await }).unwrap_err();
        assert!(matches!(error, EngineError::UnknownVolume { .. }), "{error}");
        assert!(matches!(shelf.trash(first).unwrap_err(), EngineError::UnknownVolume { .. }), "a repeat finds nothing");
        assert!(matches!(shelf.restore(first).unwrap_err(), EngineError::UnknownVolume { .. }));
        shelf.restart();
    }
    shelf.run(|disk| async move { disk.extents().await }).unwrap();
    let counts = shelf.engine.handle().status().slots_by_state;
    assert_eq!((counts.trashed, counts.open, counts.free), (1, 1, free + 1));
    assert_eq!(shelf.extent(volume(2)).state, ExtentState::Trashed);
    assert_eq!(shelf.extent(volume(3)).state, ExtentState::Open);
    // The slot is another extent's now, and the old order does not touch it.
    shelf.fill(volume(1));
    let anew = shelf.extent(volume(1));
    assert_eq!((anew.slot, anew.slot_generation), (slot, slot_generation + 1));
    assert!(matches!(shelf.trash(first).unwrap_err(), EngineError::WrongOrder { .. }));
    assert_eq!(shelf.engine.handle().status().erase_alarms, 0);
}

#[test]
fn what_is_restored_while_the_erase_waits_for_it_is_not_erased() {
    let mut shelf = Shelf::new(7);
    shelf.fill(volume(1));
    let order = shelf.order(volume(1));
    shelf.trash(order).unwrap();
    let (disk, other) = (shelf.engine.handle().clone(), shelf.engine.handle().clone());
    let TrashOrder { slot, slot_generation, term, .. } = order;
    let mut restore = Box::pin(async move { disk.restore(volume(1), slot, slot_generation, term).await });
    let mut erase = Box::pin(async move { other.erase_expired(Duration::ZERO).await });
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(restore.as_mut().poll(&mut context).is_pending());
    assert!(erase.as_mut().poll(&mut context).is_pending());
    assert_eq!(drive(&mut shelf.engine, erase).unwrap(), []);
    drive(&mut shelf.engine, restore).unwrap();
    assert_eq!(shelf.extent(volume(1)).state, ExtentState::Open);
}

#[test]
fn the_space_of_an_erased_extent_goes_back_to_the_file_system() {
    for io in [IoMode::Auto, IoMode::Threads] {
        let dir = directory();
        let path = make_disk(dir.path(), "disk", 32 << 20, 4 << 20);
        let disk = open(&path, io);
        let held = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let before = held();
        block_on(disk.create_extent(volume(1), EPOCH)).unwrap();
        let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![7; 50_000]]);
        block_on(disk.append(volume(1), EPOCH, 0, aligned(&bytes))).unwrap();
        let used = held();
        assert!(used >= before + (3 << 20), "{before} {used}");
        let info = block_on(disk.extent(volume(1))).unwrap();
        let (slot, slot_generation) = (info.slot, info.slot_generation);
        let order = TrashOrder { volume: volume(1), slot, slot_generation, term: 1, order: [1; 16] };
        block_on(disk.trash(order)).unwrap();
        assert_eq!(held(), used, "trash keeps its space");
        assert_eq!(block_on(disk.erase_expired(Duration::ZERO)).unwrap().len(), 1);
        assert!(held() <= before + (1 << 20), "{before} {}", held());
        block_on(disk.create_extent(volume(2), EPOCH)).unwrap();
        assert_eq!(block_on(disk.extent(volume(2))).unwrap().slot, slot);
        assert!(held() >= before + (3 << 20));
    }
}
