use std::time::Duration;

use super::{Crash, ENODEV, Faults, Harm, SECTOR_BYTES, SimAnswer, SimDisk, SimOp};
use crate::streams::Streams;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(1 << 20, &Streams::new(seed))
}

fn write(disk: &mut SimDisk, offset: u64, byte: u8, dsync: bool) -> SimAnswer {
    disk.submit(1, SimOp::Write { offset, bytes: vec![byte; 4096], dsync });
    disk.complete_one().unwrap().1
}

#[test]
fn a_durable_write_survives_every_crash() {
    for seed in 0..50 {
        let mut disk = disk(seed);
        write(&mut disk, 4096, 7, false);
        assert_eq!(write(&mut disk, 4096, 9, true), SimAnswer::Done(4096));
        disk.crash(Crash::ProcessKill);
        disk.crash(Crash::PowerLoss);
        assert_eq!(disk.peek(4096, 4096), [9; 4096]);
    }
}

#[test]
fn what_was_not_flushed_is_seen_before_a_crash_and_may_be_kept_lost_or_torn_by_it() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let mut disk = disk(seed);
        write(&mut disk, 0, 5, false);
        assert_eq!(disk.peek(0, 4096), [5; 4096]);
        disk.crash(Crash::PowerLoss);
        let after = disk.peek(0, 4096);
        for sector in after.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
        }
        match after.iter().filter(|byte| **byte == 5).count() {
            0 => lost += 1,
            4096 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "kept {kept}, lost {lost}, torn {torn}");
}

#[test]
fn a_flush_makes_durable_unless_it_is_ignored() {
    let lost = |ignore: bool| {
        (0..50).any(|seed| {
            let mut disk = disk(seed);
            if ignore {
                disk.ignore_flush();
            }
            write(&mut disk, 0, 5, false);
            disk.submit(2, SimOp::Flush);
            disk.complete_one();
            disk.crash(Crash::PowerLoss);
            disk.peek(0, 4096) != [5; 4096]
        })
    };
    assert!(!lost(false));
    assert!(lost(true));
}

#[test]
fn a_write_whose_dsync_is_ignored_can_be_lost() {
    let lost = (0..50).any(|seed| {
        let mut disk = disk(seed);
        disk.ignore_dsync(Box::new(|offset, _| offset == 0));
        write(&mut disk, 0, 5, true);
        write(&mut disk, 8192, 5, true);
        disk.crash(Crash::PowerLoss);
        assert_eq!(disk.peek(8192, 4096), [5; 4096]);
        disk.peek(0, 4096) != [5; 4096]
    });
    assert!(lost);
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_seen_and_can_still_be_lost() {
    let (mut seen, mut lost_later) = (0, 0);
    for seed in 0..200 {
        let mut disk = disk(seed);
        disk.submit(1, SimOp::Write { offset: 0, bytes: vec![5; 4096], dsync: true });
        disk.crash(Crash::ProcessKill);
        if disk.peek(0, 4096) == [5; 4096] {
            seen += 1;
            disk.crash(Crash::PowerLoss);
            lost_later += u32::from(disk.peek(0, 4096) != [5; 4096]);
        }
    }
    assert!(seen > 20 && lost_later > 10, "seen {seen}, lost later {lost_later}");
}

#[test]
fn operations_overtake_each_other_and_all_complete() {
    let mut disk = disk(1);
    disk.set_faults(Faults { stalls: 100, ..Faults::default() });
    for id in 0..100 {
        disk.submit(id, SimOp::Read { offset: id * 512, len: 512 });
    }
    let mut order: Vec<_> = std::iter::from_fn(|| disk.complete_one().map(|(id, _)| id)).collect();
    assert!(!order.is_sorted());
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn errors_and_short_transfers_come_as_often_as_asked() {
    let mut disk = disk(1);
    disk.set_faults(Faults { write_errors: 300, short: 300, ..Faults::default() });
    let answers: Vec<_> = (0..200).map(|_| write(&mut disk, 0, 1, true)).collect();
    assert!(answers.iter().filter(|answer| **answer == SimAnswer::Error(5)).count() > 30);
    assert!(answers.iter().filter(|answer| matches!(answer, SimAnswer::Done(n) if *n < 4096)).count() > 30);
}

#[test]
fn a_flipped_bit_is_one_bit() {
    let mut disk = disk(1);
    write(&mut disk, 0, 0, true);
    disk.flip_bit(1000, 3);
    let ones: u32 = disk.peek(0, 4096).iter().map(|byte| byte.count_ones()).sum();
    assert_eq!((ones, disk.peek(1000, 1)), (1, vec![8]));
}

fn read(disk: &mut SimDisk, offset: u64, len: usize) -> SimAnswer {
    disk.submit(2, SimOp::Read { offset, len });
    disk.complete_one().unwrap().1
}

#[test]
fn written_pages_rot_in_the_background_bit_by_bit_as_often_as_asked() {
    let mut disk = disk(1);
    write(&mut disk, 8192, 0, true);
    write(&mut disk, 40_960, 0, true);
    disk.set_faults(Faults { bit_rot_per_million: 100_000, ..Faults::default() });
    for _ in 0..200 {
        assert!(matches!(read(&mut disk, 0, 512), SimAnswer::Read(_)));
    }
    let mut expected = vec![0; 1 << 20];
    for harm in disk.harm() {
        let Harm::BitRot { offset, bit } = *harm else { panic!("{harm:?}") };
        expected[offset as usize] ^= 1 << bit;
    }
    assert_eq!(disk.peek(0, 1 << 20), expected);
    assert!((5..50).contains(&disk.harm().len()), "{:?}", disk.harm());
    assert!(expected[..8192].iter().all(|byte| *byte == 0), "what was never written does not rot");
}

#[test]
fn a_latent_sector_fails_reads_until_it_is_written_again() {
    let mut disk = disk(1);
    write(&mut disk, 4096, 3, true);
    disk.make_latent(4608..5632);
    assert_eq!(read(&mut disk, 4096, 4096), SimAnswer::Error(5));
    assert_eq!(read(&mut disk, 4096, 512), SimAnswer::Read(vec![3; 512]));
    disk.submit(1, SimOp::Write { offset: 4608, bytes: vec![4; 512], dsync: true });
    disk.complete_one();
    assert_eq!(read(&mut disk, 4608, 512), SimAnswer::Read(vec![4; 512]));
    assert_eq!(read(&mut disk, 5120, 512), SimAnswer::Error(5));
}

#[test]
fn sectors_fail_by_chance_and_are_told() {
    let mut disk = disk(1);
    write(&mut disk, 4096, 3, true);
    disk.set_faults(Faults { latent_errors_per_million: 500_000, ..Faults::default() });
    (0..20).for_each(|_| drop(read(&mut disk, 65_536, 512)));
    disk.set_faults(Faults::default());
    let [Harm::Latent { offset }, ..] = disk.harm() else { panic!("{:?}", disk.harm()) };
    let offset = *offset;
    assert_eq!(read(&mut disk, offset, 512), SimAnswer::Error(5));
}

#[test]
fn a_misdirected_write_is_answered_lands_elsewhere_and_its_target_keeps_the_old_bytes() {
    let mut disk = disk(1);
    write(&mut disk, 4096, 1, true);
    disk.misdirect_next(12_288);
    assert_eq!(write(&mut disk, 4096, 2, true), SimAnswer::Done(4096));
    assert_eq!((disk.peek(4096, 4096), disk.peek(12_288, 4096)), (vec![1; 4096], vec![2; 4096]));
    assert_eq!(disk.harm(), [Harm::Misdirected { meant: 4096, landed: 12_288, len: 4096 }]);
    assert_eq!(write(&mut disk, 4096, 3, true), SimAnswer::Done(4096));
    assert_eq!(disk.peek(4096, 4096), [3; 4096]);
    disk.set_faults(Faults { misdirected_per_million: 500_000, ..Faults::default() });
    (0..20).for_each(|_| drop(write(&mut disk, 4096, 4, true)));
    assert!((3..20).contains(&disk.harm().len()), "{:?}", disk.harm());
}

#[test]
fn a_full_disk_still_takes_writes_to_what_was_allocated_or_written() {
    let mut disk = disk(1);
    write(&mut disk, 0, 1, true);
    disk.set_space_left(16_384);
    let allocate = |disk: &mut SimDisk, offset, len| {
        disk.submit(3, SimOp::Allocate { offset, len });
        disk.complete_one().unwrap().1
    };
    assert_eq!(allocate(&mut disk, 65_536, 12_288), SimAnswer::Done(0));
    assert_eq!(allocate(&mut disk, 131_072, 8192), SimAnswer::Error(28));
    assert_eq!(write(&mut disk, 131_072, 2, true), SimAnswer::Done(4096));
    assert_eq!(write(&mut disk, 135_168, 2, true), SimAnswer::Error(28));
    for offset in [0, 65_536, 65_536 + 8192, 131_072] {
        assert_eq!(write(&mut disk, offset, 2, true), SimAnswer::Done(4096));
    }
}

#[test]
fn a_dead_disk_answers_nothing_but_its_errno_and_comes_back_with_what_was_durable() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut disk = disk(seed);
        write(&mut disk, 0, 1, true);
        disk.die_after(1, ENODEV);
        assert_eq!(write(&mut disk, 0, 2, true), SimAnswer::Done(4096));
        assert_eq!(write(&mut disk, 8192, 3, true), SimAnswer::Error(ENODEV));
        assert_eq!(read(&mut disk, 0, 512), SimAnswer::Error(ENODEV));
        disk.revive();
        assert_eq!(read(&mut disk, 0, 512), SimAnswer::Read(vec![2; 512]));
        lost += u64::from(disk.peek(8192, 4096) != [3; 4096]);
    }
    assert!((1..20).contains(&lost), "{lost}");
}

#[test]
fn a_stale_disk_holds_what_it_held() {
    let mut disk = disk(1);
    write(&mut disk, 0, 1, true);
    let old = disk.snapshot();
    write(&mut disk, 0, 2, true);
    write(&mut disk, 4096, 2, true);
    disk.put_back(&old);
    assert_eq!(disk.peek(0, 8192), [vec![1; 4096], vec![0; 4096]].concat());
}

#[test]
fn an_operation_completes_when_its_time_has_come_by_the_disks_clock() {
    let mut disk = disk(1);
    disk.set_service_time(Box::new(|request| {
        if request.is_read { Duration::from_secs(30) } else { Duration::from_millis(1 + request.queued as u64) }
    }));
    disk.set_now(Duration::from_secs(1));
    disk.submit(1, SimOp::Read { offset: 0, len: 512 });
    disk.submit(2, SimOp::Write { offset: 0, bytes: vec![1; 512], dsync: true });
    assert_eq!(disk.complete_one(), None);
    assert_eq!(disk.next_due(), Some(Duration::from_millis(1002)));
    disk.set_now(Duration::from_millis(1002));
    assert_eq!(disk.complete_one(), Some((2, SimAnswer::Done(512))));
    assert_eq!(disk.complete_one(), None);
    disk.set_now(Duration::from_secs(31));
    assert_eq!(disk.complete_one(), Some((1, SimAnswer::Read(vec![1; 512]))));
}

#[test]
fn a_discard_reads_as_zeroes_and_may_be_undone_by_a_power_loss_until_a_flush() {
    let mut came_back = 0;
    for seed in 0..50 {
        let mut disk = disk(seed);
        write(&mut disk, 4096, 5, true);
        disk.submit(1, SimOp::Discard { offset: 4096, len: 4096 });
        disk.complete_one();
        assert_eq!(disk.peek(4096, 4096), [0; 4096]);
        if seed % 2 == 0 {
            disk.submit(1, SimOp::Flush);
            disk.complete_one();
        }
        disk.crash(Crash::PowerLoss);
        let zero = disk.peek(4096, 4096) == [0; 4096];
        assert!(zero || seed % 2 == 1);
        came_back += u64::from(!zero);
    }
    assert!(came_back > 5);
}
