//! The mark of a damaged extent: what keeps it, and what alone takes it back.

use holdfast_node_engine::{EngineError, ExtentState, TrashOrder};

use super::{Cell, FENCED, NEXT, OPEN, PAGE, PARITY, SEALED, flip_data, order_for};
use crate::support::volume;

#[test]
fn the_mark_of_a_damaged_extent_survives_a_restart_and_a_rebuild_of_the_table() {
    for n in [SEALED, PARITY] {
        let mut cell = Cell::new(20);
        flip_data(&mut cell, n, 66_000);
        assert_eq!(cell.round().len(), 1);
        assert_eq!(cell.bench.handle().status().slots_by_state.damaged, 1, "before anybody lists the extents");
        // It reads well again, for what anybody can tell without reading it.
        flip_data(&mut cell, n, 66_000);
        for harm in [false, true] {
            if harm {
                cell.bench.harm_table();
            }
            cell.bench.restart();
            let shown = cell.info(n);
            assert_eq!(shown.state, ExtentState::Damaged);
            assert!(shown.note.unwrap().contains("a scrub before the mount"));
            let status = cell.bench.handle().status();
            assert_eq!((status.rebuilt, status.slots_by_state.damaged), (harm, 1));
            let length = shown.length;
            let error = cell.bench.run(|disk| async move { disk.seal(volume(n), NEXT, length, 1).await }).unwrap_err();
            assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
            cell.reads_well();
        }
    }
}

#[test]
fn a_read_that_meets_damage_marks_the_extent_and_one_of_a_wrong_place_does_not() {
    for n in [SEALED, PARITY] {
        let mut cell = Cell::new(22);
        let rows = cell.bench.run(|disk| async move { disk.records(volume(n)).await }).unwrap();
        let length = cell.info(n).length;
        let read = |cell: &mut Cell, offset: u64, len: u32| {
            cell.bench.run(|disk| async move { disk.read_record(volume(n), offset, len).await.map(drop) })
        };
        let damaged = |result| matches!(result, Err(EngineError::Damaged { .. }));
        for offset in [0, 1, length - 100] {
            assert!(damaged(read(&mut cell, offset, 100)), "no record stands there");
        }
        assert_eq!(cell.info(n).state, ExtentState::Sealed, "nothing is wrong with it");
        let (offset, len) = rows.first().map_or((4096, 4096), |row| (row.offset, row.length));
        flip_data(&mut cell, n, offset + 70);
        assert!(damaged(read(&mut cell, offset, len)));
        assert_eq!(cell.info(n).state, ExtentState::Damaged);
        cell.bench.restart();
        assert_eq!(cell.info(n).state, ExtentState::Damaged, "the mark stands on the disk");
    }
}

#[test]
fn only_a_whole_pass_that_found_every_byte_right_takes_the_mark_back() {
    for n in [SEALED, PARITY] {
        let mut cell = Cell::new(21);
        let length = cell.info(n).length;
        flip_data(&mut cell, n, 100);
        flip_data(&mut cell, n, length - 100);
        assert_eq!(cell.round().len(), 2);
        assert_eq!(cell.round().len(), 2);
        flip_data(&mut cell, n, 100);
        cell.bench.restart();
        // The last span is bad still.
        assert_eq!(cell.round().len(), 1);
        assert_eq!(cell.info(n).state, ExtentState::Damaged);
        flip_data(&mut cell, n, length - 100);
        // Passes that are cut short do not add up to one.
        for _ in 0..20 {
            cell.bench.run(|disk| async move { disk.scrub_step(1).await }).unwrap();
            if n == SEALED {
                cell.bench.restart();
                assert_eq!(cell.info(n).state, ExtentState::Damaged);
            }
        }
        assert_eq!(cell.round(), []);
        cell.round();
        assert_eq!((cell.info(n).state, cell.info(n).note), (ExtentState::Sealed, None));
        let sealed = cell.bench.run(|disk| async move { disk.seal(volume(n), NEXT, length, 1).await });
        assert!(sealed.is_ok(), "{sealed:?}");
        cell.bench.harm_table();
        cell.bench.restart();
        assert_eq!(cell.info(n).state, ExtentState::Sealed);
        cell.reads_well();
    }
}

#[test]
fn a_pass_that_began_before_the_mark_does_not_take_it_back() {
    let mut cell = Cell::new(22);
    let length = cell.info(PARITY).length;
    flip_data(&mut cell, PARITY, length - 100);
    while cell.info(PARITY).state != ExtentState::Damaged {
        cell.bench.run(|disk| async move { disk.scrub_step(1).await }).unwrap();
    }
    flip_data(&mut cell, PARITY, length - 100);
    while !cell.bench.run(|disk| async move { disk.scrub_step(1).await }).unwrap().finished_round {}
    assert_eq!(cell.info(PARITY).state, ExtentState::Damaged);
    cell.round();
    assert_eq!(cell.info(PARITY).state, ExtentState::Sealed);
}

#[test]
fn data_that_passes_its_page_checksums_and_has_not_its_digest_keeps_the_mark() {
    let mut cell = Cell::new(23);
    let (slot, length) = (cell.info(PARITY).slot, cell.info(PARITY).length);
    flip_data(&mut cell, PARITY, 100);
    assert_eq!(cell.round().len(), 1);
    // Whoever wrote the wrong bytes wrote a footer that goes with them.
    let start = cell.bench.engine.data_range(slot).start;
    {
        let mut disk = cell.bench.disk.borrow_mut();
        let span = disk.peek(start, 65_536);
        let mut sums = disk.peek(start + length, PAGE as usize);
        sums[..4].copy_from_slice(&crc32fast::hash(&span).to_le_bytes());
        disk.write_durable(start + length, &sums);
        let mut trailer = disk.peek(start + length + PAGE, PAGE as usize);
        trailer[112..116].copy_from_slice(&crc32fast::hash(&sums).to_le_bytes());
        let crc = crc32fast::hash(&trailer[..4092]);
        trailer[4092..].copy_from_slice(&crc.to_le_bytes());
        disk.write_durable(start + length + PAGE, &trailer);
    }
    for _ in 0..2 {
        assert_eq!(cell.round(), []);
        assert_eq!(cell.info(PARITY).state, ExtentState::Damaged);
    }
}

#[test]
fn an_open_or_fenced_extent_keeps_its_mark_until_a_seal_has_read_it_whole() {
    for n in [OPEN, FENCED] {
        let mut cell = Cell::new(24);
        let tail = cell.info(n).length;
        flip_data(&mut cell, n, 300);
        assert_eq!(cell.round().len(), 1);
        flip_data(&mut cell, n, 300);
        cell.bench.restart();
        cell.round();
        assert_eq!((cell.info(n).state, cell.info(n).length), (ExtentState::Damaged, tail));
        cell.bench.run(|disk| async move { disk.seal(volume(n), NEXT, tail, 1).await }).unwrap();
        for _ in 0..2 {
            assert_eq!((cell.info(n).state, cell.info(n).note), (ExtentState::Sealed, None));
            cell.bench.restart();
        }
        cell.reads_well();
    }
}

#[test]
fn trash_keeps_the_mark_and_a_restore_brings_it_back() {
    let mut cell = Cell::new(25);
    flip_data(&mut cell, SEALED, 300);
    cell.round();
    let order = order_for(&cell.info(SEALED));
    cell.bench.run(|disk| async move { disk.trash(order).await }).unwrap();
    cell.bench.restart();
    assert_eq!(cell.info(SEALED).state, ExtentState::Trashed);
    let TrashOrder { volume, slot, slot_generation, .. } = order;
    cell.bench.run(|disk| async move { disk.restore(volume, slot, slot_generation, 1).await }).unwrap();
    assert_eq!(cell.info(SEALED).state, ExtentState::Damaged);
    cell.bench.restart();
    assert_eq!(cell.info(SEALED).state, ExtentState::Damaged);
}

#[test]
fn nobody_vouches_for_a_sealed_extent_in_which_damage_was_found() {
    let mut cell = Cell::new(5);
    let (slot, length) = (cell.info(SEALED).slot, cell.info(SEALED).length);
    let start = cell.bench.engine.data_range(slot).start;
    cell.flip_in(start..start + length);
    cell.round();
    let error = cell.bench.run(|disk| async move { disk.seal(volume(SEALED), NEXT, length, 1).await }).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { slot: named, .. } if named == slot), "{error}");
}
