//! What a disk holds of one volume at the same time: an extent that stands, a copy under way, and trash.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sha2::{Digest, Sha256};

use crate::support::{EPOCH, aligned, batch, volume};
use crate::trash::Shelf;
use holdfast_libs_sim::zones::ZoneLayout;
use holdfast_libs_types::WriteEpoch;
use holdfast_node_engine::{Disk, EngineError, ExtentInfo, ExtentState, TrashOrder};

const SEALED_AT: WriteEpoch = WriteEpoch(2);

/// Turns of the engine in which everything ends.
const ENOUGH: usize = 1_000_000;

/// What the volume was sealed as.
struct Sealed {
    bytes: Vec<u8>,
    record: (u64, u32),
}

impl Sealed {
    fn new() -> Self {
        let (bytes, records) = batch(volume(1), EPOCH, 0, 0, &[vec![6; 30_000]]);
        Self { bytes, record: records[0] }
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    fn begin(&self, shelf: &mut Shelf, instead_of: Option<TrashOrder>) -> Result<(), EngineError> {
        let (length, digest) = (self.length(), self.digest());
        shelf.run(|disk| async move { disk.begin_copy(volume(1), SEALED_AT, length, digest, instead_of).await })
    }

    /// All of it, and no more.
    fn write(&self, shelf: &mut Shelf) {
        let part = aligned(&self.bytes);
        shelf.run(|disk| async move { disk.copy_write(volume(1), 0, &mut Some(part)).await }).unwrap();
    }

    async fn copy(&self, disk: &Disk, instead_of: Option<TrashOrder>) -> Result<(), EngineError> {
        disk.begin_copy(volume(1), SEALED_AT, self.length(), self.digest(), instead_of).await?;
        disk.copy_write(volume(1), 0, &mut Some(aligned(&self.bytes))).await?;
        disk.finish_copy(volume(1), instead_of).await
    }
}

fn finish(shelf: &mut Shelf, instead_of: Option<TrashOrder>) -> Result<(), EngineError> {
    shelf.run(|disk| async move { disk.finish_copy(volume(1), instead_of).await })
}

fn all(shelf: &mut Shelf) -> Vec<ExtentInfo> {
    shelf.run(|disk| async move { disk.extents_of(volume(1)).await }).unwrap()
}

fn states(shelf: &mut Shelf) -> Vec<ExtentState> {
    all(shelf).iter().map(|extent| extent.state).collect()
}

#[test]
fn a_copy_is_made_beside_what_the_trash_holds_and_each_goes_its_own_way() {
    let (sealed, mut shelf) = (Sealed::new(), Shelf::new(1));
    shelf.fill(volume(1));
    let first = shelf.order(volume(1));
    shelf.trash(first).unwrap();
    sealed.begin(&mut shelf, None).unwrap();
    assert_eq!(states(&mut shelf), [ExtentState::Trashed, ExtentState::Copying]);
    let early = shelf.restore(first).unwrap_err();
    assert!(matches!(early, EngineError::AlreadyExists { state: ExtentState::Copying, .. }), "{early}");
    sealed.write(&mut shelf);
    finish(&mut shelf, None).unwrap();
    for _ in 0..2 {
        assert_eq!(states(&mut shelf), [ExtentState::Trashed, ExtentState::Sealed]);
        assert_eq!(shelf.extent(volume(1)).state, ExtentState::Sealed, "what stands answers for the volume");
        shelf.read_record(volume(1), sealed.record).unwrap();
        let beside = shelf.restore(first).unwrap_err();
        assert!(matches!(beside, EngineError::AlreadyExists { state: ExtentState::Sealed, .. }), "{beside}");
        shelf.restart();
    }
    // Into the trash too: the other is found by its slot, and by its digest.
    let second = TrashOrder { order: [0xa2; 16], ..shelf.order(volume(1)) };
    shelf.trash(second).unwrap();
    shelf.restart();
    assert_eq!(states(&mut shelf), [ExtentState::Trashed, ExtentState::Trashed]);
    for TrashOrder { slot, .. } in [first, second] {
        let bytes = shelf.run(|disk| async move { disk.read_slot(volume(1), slot, 0, 4096).await }).unwrap();
        assert_eq!(bytes[..] == sealed.bytes[..4096], slot == second.slot);
    }
    let error = shelf.run(|disk| async move { disk.read_slot(volume(1), 9, 0, 4096).await }).unwrap_err();
    assert!(matches!(error, EngineError::WrongOrder { .. }), "{error}");
    let named = all(&mut shelf)[1].named();
    assert_eq!(named.slot, second.slot);
    let left = shelf.run(|disk| async move { disk.read_back_trashed(named, u64::MAX).await }).unwrap();
    assert_eq!(left, 0);
    shelf.run(|disk| async move { disk.restore_read_back(named, 5).await }).unwrap();
    shelf.read_record(volume(1), sealed.record).unwrap();
    let erased = shelf.erase(std::time::Duration::ZERO);
    assert_eq!(erased.iter().map(|one| (one.slot, one.order)).collect::<Vec<_>>(), [(first.slot, first.order)]);
    assert_eq!(states(&mut shelf), [ExtentState::Sealed]);
    shelf.read_record(volume(1), sealed.record).unwrap();
}

#[test]
fn what_stands_gives_way_only_when_it_is_named_and_is_no_sound_replica() {
    let (sealed, mut shelf) = (Sealed::new(), Shelf::new(2));
    let old = shelf.fill(volume(1));
    shelf.fill(volume(2));
    let (order, other) = (shelf.order(volume(1)), shelf.order(volume(2)));
    let unnamed = sealed.begin(&mut shelf, None).unwrap_err();
    assert!(matches!(unnamed, EngineError::AlreadyExists { state: ExtentState::Open, .. }), "{unnamed}");
    let next = order.slot_generation + 1;
    for wrong in [TrashOrder { slot: other.slot, ..order }, TrashOrder { slot_generation: next, ..order }] {
        let error = sealed.begin(&mut shelf, Some(wrong)).unwrap_err();
        assert!(matches!(error, EngineError::WrongOrder { .. }), "{error}");
    }
    let nameless = sealed.begin(&mut shelf, Some(TrashOrder { order: [0; 16], ..order })).unwrap_err();
    assert!(matches!(nameless, EngineError::InvalidArgument(_)), "{nameless}");
    assert_eq!(states(&mut shelf), [ExtentState::Open]);
    sealed.begin(&mut shelf, Some(order)).unwrap();
    sealed.write(&mut shelf);
    assert_eq!(states(&mut shelf), [ExtentState::Open, ExtentState::Copying]);
    shelf.read_record(volume(1), old).unwrap();
    // The end is asked for as strictly as the beginning, and a refusal takes nothing away.
    let unnamed = finish(&mut shelf, None).unwrap_err();
    assert!(matches!(unnamed, EngineError::AlreadyExists { state: ExtentState::Open, .. }), "{unnamed}");
    let wrong = finish(&mut shelf, Some(TrashOrder { slot_generation: next, ..order })).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongOrder { .. }), "{wrong}");
    shelf.run(|disk| async move { disk.fence(volume(2), SEALED_AT, 6).await }).unwrap();
    shelf.trash(TrashOrder { term: 6, ..other }).unwrap();
    for stale in [finish(&mut shelf, Some(order)), sealed.begin(&mut shelf, Some(order))] {
        assert!(matches!(stale, Err(EngineError::StaleTerm { given: 5, current: 6 })), "{stale:?}");
    }
    assert_eq!(states(&mut shelf), [ExtentState::Open, ExtentState::Copying]);
    shelf.read_record(volume(1), old).unwrap();
    let order = TrashOrder { term: 6, ..order };
    finish(&mut shelf, Some(order)).unwrap();
    finish(&mut shelf, Some(order)).unwrap();
    for _ in 0..2 {
        let held = all(&mut shelf);
        assert_eq!(
            held.iter().map(|extent| extent.state).collect::<Vec<_>>(),
            [ExtentState::Trashed, ExtentState::Sealed]
        );
        assert_eq!(
            (held[0].slot, held[0].order, held[1].digest),
            (order.slot, Some(order.order), Some(sealed.digest()))
        );
        shelf.read_record(volume(1), sealed.record).unwrap();
        shelf.restart();
    }
    // Now it is sound.
    let sound = TrashOrder { term: 6, ..shelf.order(volume(1)) };
    let error = sealed.begin(&mut shelf, Some(sound)).unwrap_err();
    assert!(matches!(error, EngineError::AlreadyExists { state: ExtentState::Sealed, .. }), "{error}");
}

#[test]
fn a_copy_of_other_bytes_takes_nothing_away_and_can_be_given_up() {
    let (sealed, mut shelf) = (Sealed::new(), Shelf::new(3));
    shelf.fill(volume(1));
    shelf.seal(volume(1));
    let order = shelf.order(volume(1));
    sealed.begin(&mut shelf, Some(order)).unwrap();
    let mut wrong = sealed.bytes.clone();
    wrong[10_000] ^= 1;
    Sealed { bytes: wrong, ..sealed }.write(&mut shelf);
    let error = finish(&mut shelf, Some(order)).unwrap_err();
    assert!(matches!(error, EngineError::CopyMismatch { .. }), "{error}");
    assert_eq!(states(&mut shelf), [ExtentState::Sealed, ExtentState::Copying]);
    shelf.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap();
    assert_eq!(states(&mut shelf), [ExtentState::Sealed]);
    // What was to give way is not taken for the copy that is no more.
    let error = finish(&mut shelf, Some(order)).unwrap_err();
    assert!(matches!(error, EngineError::WrongState { state: ExtentState::Sealed, .. }), "{error}");
    let error = shelf.run(|disk| async move { disk.abort_copy(volume(1)).await }).unwrap_err();
    assert!(matches!(error, EngineError::WrongState { state: ExtentState::Sealed, .. }), "{error}");
}

/// Polls for so many turns of the engine; how the future ended, if it did.
fn turns<T>(shelf: &mut Shelf, most: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..=most {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(done);
        }
        shelf.engine.turn();
    }
    None
}

/// What ends it in the middle.
#[derive(Debug, Clone, Copy)]
enum End {
    PowerLoss,
    /// The disk does nothing more, then it is there again.
    WritesFail,
}

#[test]
fn of_a_restore_and_a_copy_that_meet_one_is_refused() {
    let sealed = Sealed::new();
    let mut refused = [0, 0];
    for turn in 0.. {
        let mut shelf = Shelf::new(4);
        shelf.fill(volume(1));
        let TrashOrder { slot, slot_generation, .. } = shelf.order(volume(1));
        let order = shelf.order(volume(1));
        shelf.trash(order).unwrap();
        let disk = shelf.engine.handle().clone();
        let mut restore = pin!(disk.restore(volume(1), slot, slot_generation, 5));
        let mut poll = |shelf: &mut Shelf| {
            shelf.engine.turn();
            restore.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        let early = (0..turn).map(|_| poll(&mut shelf)).find(Poll::is_ready);
        let begun = sealed.begin(&mut shelf, None);
        let restored = match early {
            Some(Poll::Ready(done)) => done,
            _ => loop {
                if let Poll::Ready(done) = poll(&mut shelf) {
                    break done;
                }
            },
        };
        assert!(begun.is_ok() != restored.is_ok(), "turn {turn}: {begun:?}, {restored:?}");
        refused[usize::from(begun.is_ok())] += 1;
        let expected =
            if begun.is_ok() { vec![ExtentState::Trashed, ExtentState::Copying] } else { vec![ExtentState::Open] };
        assert_eq!(states(&mut shelf), expected);
        if turn == 30 {
            break;
        }
    }
    assert!(refused[0] > 3 && refused[1] > 0, "each comes first in some: {refused:?}");
}

#[test]
fn a_crash_or_a_failed_write_at_any_moment_leaves_one_that_stands_or_the_old_one_in_the_trash() {
    let layout = ZoneLayout { zone_bytes: 1 << 20, capacity_bytes: 1 << 20, conventional: 7, max_open: 0 };
    for zones in [None, Some(layout)] {
        sweep(zones.as_ref(), End::PowerLoss);
        sweep(zones.as_ref(), End::WritesFail);
    }
}

fn sweep(zones: Option<&ZoneLayout>, end: End) {
    let sealed = Sealed::new();
    let mut seen = std::collections::BTreeSet::new();
    for turn in 0.. {
        let mut shelf = Shelf::with(100 + turn as u64, zones.cloned());
        let old = shelf.fill(volume(1));
        shelf.seal(volume(1));
        let before = shelf.extent(volume(1));
        let order = shelf.order(volume(1));
        let disk = shelf.engine.handle().clone();
        let mut copying = Box::pin(sealed.copy(&disk, Some(order)));
        let ended = match end {
            End::PowerLoss => turns(&mut shelf, turn, &mut copying),
            End::WritesFail => {
                shelf.media.borrow_mut().die_after(turn as u64, 5);
                turns(&mut shelf, ENOUGH, &mut copying)
            }
        };
        let ended = ended.is_some_and(|done| done.is_ok());
        drop(copying);
        shelf.media.borrow_mut().revive();
        shelf.restart();
        let held = all(&mut shelf);
        let states: Vec<ExtentState> = held.iter().map(|extent| extent.state).collect();
        let is_old_there =
            (held[0].slot, held[0].digest, held[0].length) == (before.slot, before.digest, before.length);
        assert!(is_old_there, "turn {turn}: {held:?}");
        match states[..] {
            [ExtentState::Sealed] | [ExtentState::Sealed, ExtentState::Copying] => {
                assert!(!ended, "turn {turn}: it was answered");
                drop(shelf.read_record(volume(1), old).unwrap());
            }
            [ExtentState::Trashed, ExtentState::Copying] => assert!(!ended, "turn {turn}: it was answered"),
            [ExtentState::Trashed, ExtentState::Sealed] => {
                assert_eq!(held[1].digest, Some(sealed.digest()));
                drop(shelf.read_record(volume(1), sealed.record).unwrap());
            }
            _ => panic!("turn {turn}: {held:?}"),
        }
        seen.insert(format!("{states:?}"));
        // From wherever that was it is done by the same order, if what stands is still to give way.
        let instead_of = (held[0].state == ExtentState::Sealed).then_some(order);
        if states[1..] != [ExtentState::Sealed] {
            let disk = shelf.engine.handle().clone();
            let done = turns(&mut shelf, ENOUGH, sealed.copy(&disk, instead_of));
            done.expect("it hangs").unwrap();
        }
        shelf.read_record(volume(1), sealed.record).unwrap();
        assert_eq!(shelf.engine.handle().status().erase_alarms, 0);
        if ended {
            assert_eq!(seen.len(), 4, "each of the moments comes up: {seen:?}, {end:?}");
            return;
        }
    }
}
