//! The engine on real files: O_DIRECT, io_uring and the thread fallback, in the build's own directory.

use std::os::unix::fs::FileExt;

use crate::support::{CELL, EPOCH, aligned, batch, block_on, directory, make_disk, open, options, volume};
use holdfast_libs_types::{CellId, WriteEpoch};
use holdfast_node_engine::{
    Disk, DiskState, EngineError, ExtentState, FormatError, FormatOptions, Incarnation, IoMode, IoPath, OpenError,
    OpenOptions, format,
};

const SIZE: u64 = 32 << 20;
const SLOT: u64 = 1 << 20;

fn each_mode(test: impl Fn(IoMode)) {
    test(IoMode::Uring);
    test(IoMode::Threads);
}

#[test]
fn an_append_reads_back_before_and_after_a_restart() {
    each_mode(|mode| {
        let dir = directory();
        let path = make_disk(dir.path(), "disk", SIZE, SLOT);
        let disk = open(&path, mode);
        let v = volume(1);
        block_on(disk.create_extent(v, EPOCH)).unwrap();
        let (first, records) = batch(v, EPOCH, 0, 0, &[vec![7; 5000], vec![8; 100]]);
        let tail = block_on(disk.append(v, EPOCH, 0, aligned(&first))).unwrap();
        assert_eq!(tail, first.len() as u64);
        let (second, more) = batch(v, EPOCH, tail, tail, &[vec![9; 70_000]]);
        let end = block_on(disk.append(v, EPOCH, tail, aligned(&second))).unwrap();

        let check = |disk: &Disk| {
            for (offset, len) in records.iter().chain(&more) {
                let record = block_on(disk.read_record(v, *offset, *len)).unwrap();
                assert_eq!(record.len(), *len as usize);
            }
            let all = block_on(disk.read(v, 0, end as u32)).unwrap();
            assert_eq!(all[..first.len()], first[..]);
            assert_eq!(all[first.len()..], second[..]);
        };
        check(&disk);
        let status = disk.status();
        assert!(status.o_direct, "the build's directory takes O_DIRECT");
        assert_eq!(status.io, if mode == IoMode::Uring { IoPath::UringRegistered } else { IoPath::Threads });
        assert_eq!(status.counters.appends, 2);
        drop(disk);

        let disk = open(&path, mode);
        check(&disk);
        let info = block_on(disk.extent(v)).unwrap();
        assert_eq!((info.state, info.length, info.takes_appends), (ExtentState::Open, end, false));
        let (third, _) = batch(v, EPOCH, end, end, &[vec![1; 10]]);
        let error = block_on(disk.append(v, EPOCH, end, aligned(&third))).unwrap_err();
        assert!(matches!(error, EngineError::NoAppends { .. }), "{error}");
        assert_eq!(block_on(disk.append(v, EPOCH, tail, aligned(&second))).unwrap(), end, "a repeat of what stands");
        assert_eq!(block_on(disk.fence(v, WriteEpoch(2), 1)).unwrap(), end);
        let digest = block_on(disk.seal(v, WriteEpoch(2), tail, 1)).unwrap();
        assert_eq!(block_on(disk.seal(v, WriteEpoch(2), tail, 1)).unwrap(), digest);
        assert!(matches!(
            block_on(disk.seal(v, WriteEpoch(2), end, 1)).unwrap_err(),
            EngineError::SealedOtherwise { .. }
        ));
        assert!(matches!(block_on(disk.read(v, tail, 1)).unwrap_err(), EngineError::OutOfRange { .. }));
    });
}

#[test]
fn a_copy_is_served_only_once_it_was_read_back_and_is_right() {
    each_mode(|mode| {
        let dir = directory();
        let (from, to) = (make_disk(dir.path(), "a", SIZE, SLOT), make_disk(dir.path(), "b", SIZE, SLOT));
        let (from, to) = (open(&from, mode), open(&to, mode));
        let v = volume(1);
        block_on(from.create_extent(v, EPOCH)).unwrap();
        let (bytes, records) = batch(v, EPOCH, 0, 0, &[vec![7; 300_000]]);
        let length = block_on(from.append(v, EPOCH, 0, aligned(&bytes))).unwrap();
        let digest = block_on(from.seal(v, EPOCH, length, 1)).unwrap();

        block_on(to.begin_copy(v, EPOCH, length, digest, None)).unwrap();
        assert!(matches!(block_on(to.read(v, 0, 1)).unwrap_err(), EngineError::WrongState { .. }));
        let bytes = block_on(from.read(v, 0, length as u32)).unwrap();
        block_on(to.copy_write(v, 0, &mut Some(aligned(&bytes[..8192])))).unwrap();
        let error = block_on(to.finish_copy(v, None)).unwrap_err();
        assert!(matches!(error, EngineError::TooShort { tail: 8192, .. }), "{error}");
        block_on(to.copy_write(v, 8192, &mut Some(aligned(&bytes[8192..])))).unwrap();
        block_on(to.finish_copy(v, None)).unwrap();
        block_on(to.finish_copy(v, None)).unwrap();
        let (offset, len) = records[0];
        assert_eq!(block_on(to.read_record(v, offset, len)).unwrap().len(), len as usize);

        let before = to.status().free_slots;
        block_on(to.begin_copy(volume(2), EPOCH, length, digest, None)).unwrap();
        assert_eq!(to.status().free_slots, before - 1);
        block_on(to.abort_copy(volume(2))).unwrap();
        assert_eq!(to.status().free_slots, before);
    });
}

#[test]
fn a_disk_is_told_from_what_is_none_and_from_another_cells() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", SIZE, SLOT);
    let again = format(&path, &FormatOptions { cell: CELL, slot_bytes: SLOT, size_bytes: None }).unwrap_err();
    assert!(matches!(again, FormatError::AlreadyFormatted { .. }), "{again}");

    let foreign = dir.path().join("foreign");
    let mut data = vec![0; 16 << 20];
    data[1_500_000] = 7;
    std::fs::write(&foreign, &data).unwrap();
    let error = format(&foreign, &FormatOptions { cell: CELL, slot_bytes: SLOT, size_bytes: None }).unwrap_err();
    assert!(error.to_string().contains("something stands at byte 1500000"), "{error}");
    assert_eq!(std::fs::read(&foreign).unwrap(), data, "it was left alone");
    data[1_500_000] = 0;
    data[9 << 20..14 << 20].fill(0xff);
    *data.last_mut().unwrap() = 1;
    std::fs::write(&foreign, &data).unwrap();
    let error = format(&foreign, &FormatOptions { cell: CELL, slot_bytes: SLOT, size_bytes: None }).unwrap_err();
    assert!(error.to_string().contains("something stands at byte 16777215"), "{error}");
    *data.last_mut().unwrap() = 0;
    std::fs::write(&foreign, &data).unwrap();
    format(&foreign, &FormatOptions { cell: CELL, slot_bytes: SLOT, size_bytes: None }).unwrap();
    let disk = open(&foreign, IoMode::Auto);
    assert_eq!(
        (disk.status().free_slots, disk.status().lost_slots),
        (disk.status().slots, 0),
        "old bytes are no slots"
    );

    let other = CellId([1; 16]);
    let error = Disk::open(&path, OpenOptions::new(other)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&other.to_string()) && text.contains(&CELL.to_string()), "{text}");

    let small = dir.path().join("small");
    let error = format(&small, &FormatOptions { cell: CELL, slot_bytes: 64 << 20, size_bytes: Some(1 << 20) });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("1048576 bytes, need at least"), "{text}");
    assert!(!small.exists(), "a refused format leaves no file behind");

    std::fs::write(&small, vec![1; 100]).unwrap();
    assert!(matches!(Disk::open(&small, options(IoMode::Auto)).unwrap_err(), OpenError::TooSmall { .. }));
    std::fs::write(&small, vec![1; 3 << 20]).unwrap();
    assert!(matches!(Disk::open(&small, options(IoMode::Auto)).unwrap_err(), OpenError::NoSuperblock { .. }));
    let missing = Disk::open(&dir.path().join("missing"), options(IoMode::Auto)).unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");

    let disk = open(&path, IoMode::Auto);
    assert!(matches!(Disk::open(&path, options(IoMode::Auto)).unwrap_err(), OpenError::AlreadyOpen { .. }));
    drop(disk);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(20 << 20).unwrap();
    let error = Disk::open(&path, options(IoMode::Auto)).unwrap_err();
    assert!(matches!(error, OpenError::TooSmall { have: 20_971_520, need: SIZE, .. }), "{error}");
}

#[test]
fn a_disk_that_vanished_was_cut_or_overwritten_is_noticed() {
    let dir = directory();
    for (n, harm) in ["remove", "cut", "overwrite"].into_iter().enumerate() {
        let path = make_disk(dir.path(), &format!("disk{n}"), SIZE, SLOT);
        let disk = open(&path, IoMode::Auto);
        block_on(disk.check_present()).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        match harm {
            "remove" => std::fs::remove_file(&path).unwrap(),
            "cut" => file.set_len(4 << 20).unwrap(),
            _ => file.write_all_at(&vec![0; 2 << 20], 0).unwrap(),
        }
        let error = block_on(disk.check_present()).unwrap_err();
        assert!(matches!(error, EngineError::Failed { .. }), "{harm}: {error}");
        assert!(matches!(disk.status().state, DiskState::Failed { .. }));
        assert!(matches!(block_on(disk.create_extent(volume(1), EPOCH)).unwrap_err(), EngineError::Failed { .. }));
    }
}

#[test]
fn an_unconfirmed_proposal_is_repeated_and_a_confirmed_one_stands() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", SIZE, SLOT);
    let disk = open(&path, IoMode::Auto);
    let first = block_on(disk.propose_incarnation()).unwrap();
    assert_eq!((first.incarnation, first.previous_nonce, first.confirmed), (1, [0; 16], false));
    drop(disk);
    let disk = open(&path, IoMode::Auto);
    assert_eq!(block_on(disk.propose_incarnation()).unwrap(), first);
    block_on(disk.confirm_incarnation(first)).unwrap();
    block_on(disk.confirm_incarnation(first)).unwrap();
    assert_eq!(disk.status().incarnation, 1);
    drop(disk);
    let disk = open(&path, IoMode::Auto);
    let second = block_on(disk.propose_incarnation()).unwrap();
    assert_eq!((second.incarnation, second.previous_nonce), (2, first.nonce));
    assert!(block_on(disk.confirm_incarnation(first)).is_err());
}

#[test]
fn the_key_area_keeps_what_was_written_last() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", SIZE, SLOT);
    let disk = open(&path, IoMode::Auto);
    assert_eq!(block_on(disk.read_key_area()).unwrap(), None);
    for content in [b"one".to_vec(), vec![5; 100_000], Vec::new(), b"four".to_vec()] {
        block_on(disk.write_key_area(content.clone())).unwrap();
        assert_eq!(block_on(disk.read_key_area()).unwrap(), Some(content));
    }
    assert!(matches!(block_on(disk.write_key_area(vec![0; 8 << 20])).unwrap_err(), EngineError::InvalidArgument(_)));
    drop(disk);
    assert_eq!(block_on(open(&path, IoMode::Auto).read_key_area()).unwrap(), Some(b"four".to_vec()));
}

#[test]
fn a_full_queue_and_spent_buffers_answer_busy_and_a_read_only_disk_says_why() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", SIZE, SLOT);
    let small = OpenOptions { max_operations: 1, max_buffer_bytes: 64 << 10, ..options(IoMode::Auto) };
    let disk = Disk::open(&path, small).unwrap();
    let held = disk.buffer(64 << 10).unwrap();
    assert!(matches!(disk.buffer(1).unwrap_err(), EngineError::Busy { .. }));
    drop(held);
    assert!(disk.buffer(1).is_ok());
    disk.set_read_only("an order");
    let error = block_on(disk.create_extent(volume(1), EPOCH)).unwrap_err();
    assert!(error.to_string().contains("an order"), "{error}");
}

#[test]
fn the_handle_and_its_futures_can_be_sent_to_other_threads() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    fn shareable<T: Clone + Send + Sync>(_: &T) {}
    let dir = directory();
    let disk = open(&make_disk(dir.path(), "disk", SIZE, SLOT), IoMode::Auto);
    shareable(&disk);
    drop(sendable(disk.append(volume(1), EPOCH, 0, aligned(&[0; 4096]))));
    drop(sendable(disk.read_record(volume(1), 0, 1)));
    drop(sendable(disk.seal(volume(1), EPOCH, 0, 1)));
}

/// What the catalog does with a registration (design section 5, Identity).
fn catalog_accepts(known: &mut (u64, [u8; 16]), shown: &Incarnation) -> bool {
    let repeated = (shown.incarnation, shown.nonce) == *known;
    let next = shown.incarnation == known.0 + 1 && shown.previous_nonce == known.1;
    if next {
        *known = (shown.incarnation, shown.nonce);
    }
    next || repeated
}

#[test]
fn a_clone_and_an_old_disk_put_back_are_told_apart_by_their_incarnation() {
    let dir = directory();
    let (path, snapshot) = (make_disk(dir.path(), "disk", SIZE, SLOT), dir.path().join("snapshot"));
    let mut known = (0, [0; 16]);
    let mut register = |path: &std::path::Path, confirm: bool| {
        let disk = open(path, IoMode::Auto);
        let shown = block_on(disk.propose_incarnation()).unwrap();
        let accepted = catalog_accepts(&mut known, &shown);
        if accepted && confirm {
            block_on(disk.confirm_incarnation(shown)).unwrap();
        }
        accepted
    };
    assert!(register(&path, true));
    assert!(register(&path, false), "the answer is lost");
    assert!(register(&path, true), "the same proposal again");
    std::fs::copy(&path, &snapshot).unwrap();
    assert!(register(&path, true), "the disk goes on");
    assert!(!register(&snapshot, true), "its clone does not");
    assert!(register(&path, true));
}
