//! Seals decided over every possible set of answers, repairs and health.

#![allow(clippy::unwrap_used)]

use holdfast_libs_types::{DiskId, NodeId, VolumeId};
use holdfast_volume_manager_planner::{
    DigestAnswer, Distinct, HealthCounts, Inventory, InventoryDisk, LengthDecision, RepairAction, SealDecision,
    VolumeReplicas, Vote, can_lose, decide_length, decide_seal, health_counts, plan_repairs,
};

fn disk(number: u8) -> DiskId {
    DiskId([number; 16])
}

/// Every list of at most `longest` of the choices.
fn lists<T: Clone>(choices: &[T], longest: usize) -> Vec<Vec<T>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..longest {
        let until = all.len();
        for at in from..until {
            for choice in choices {
                let mut longer = all[at].clone();
                longer.push(choice.clone());
                all.push(longer);
            }
        }
        from = until;
    }
    all
}

#[test]
fn a_length_is_the_longest_that_every_sound_replica_is_known_to_hold_and_never_below_the_floor() {
    let mut answers: Vec<(Option<u64>, bool)> = vec![(None, false), (None, true)];
    answers.extend((0..5).flat_map(|tail| [(Some(tail), false), (Some(tail), true)]));
    let mut checked = 0;
    for answers in lists(&answers, 3) {
        let votes: Vec<Vote> = (0..)
            .zip(&answers)
            .map(|(at, (tail, damaged))| Vote { disk: disk(at), tail: *tail, damaged: *damaged })
            .collect();
        for floor in 0..6 {
            let has_vote = |vote: &&Vote| !vote.damaged && vote.tail.is_some_and(|tail| tail >= floor);
            let electors: Vec<&Vote> = votes.iter().filter(has_vote).collect();
            // One that was not reached holds what was acknowledged.
            let unreached = votes.iter().any(|vote| vote.tail.is_none());
            let held = |vote: &&Vote, length: &u64| vote.tail.is_some_and(|tail| tail >= *length);
            let held_by_all =
                |length: &u64| electors.iter().all(|vote| held(vote, length)) && (*length == floor || !unreached);
            match decide_length(&votes, floor) {
                LengthDecision::Length { length, voters } => {
                    assert_eq!(Some(length), (floor..6).rev().find(held_by_all), "{votes:?} {floor}");
                    assert!(!voters.is_empty());
                    assert_eq!(voters, electors.iter().map(|vote| vote.disk).collect::<Vec<_>>());
                }
                LengthDecision::Wait { why } => assert!(electors.is_empty() && !why.is_empty(), "{votes:?} {floor}"),
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 6 * (1 + 12 + 144 + 1728));
}

#[test]
fn waiting_for_a_length_says_what_each_replica_lacks() {
    let votes = [
        Vote { disk: disk(1), tail: None, damaged: false },
        Vote { disk: disk(2), tail: Some(8192), damaged: true },
        Vote { disk: disk(3), tail: Some(4096), damaged: false },
    ];
    let LengthDecision::Wait { why } = decide_length(&votes, 8192) else { panic!("decided") };
    let expected = format!(
        "no replica holds all 8192 acknowledged bytes: disk {} was not reached, disk {} is damaged, disk {} holds only 4096 \
         bytes",
        disk(1),
        disk(2),
        disk(3)
    );
    assert_eq!(why, expected);
}

#[test]
fn a_digest_is_the_one_that_outnumbers_all_others() {
    let (a, b, c) = ([0xa; 32], [0xb; 32], [0xc; 32]);
    let choices = [Ok(a), Ok(b), Ok(c), Err("checksum".to_owned())];
    for answers in lists(&choices, 5) {
        let answers: Vec<DigestAnswer> = (0..).map(disk).zip(answers).collect();
        let count = |digest| answers.iter().filter(|(_, answer)| *answer == Ok(digest)).count();
        let others = |digest| answers.iter().filter(|(_, answer)| answer.is_ok() && *answer != Ok(digest)).count();
        let expected = [a, b, c].into_iter().find(|digest| count(*digest) > others(*digest));
        match decide_seal(&answers) {
            SealDecision::Digest { digest, holders, dropped } => {
                assert_eq!(Some(digest), expected, "{answers:?}");
                for (disk, answer) in &answers {
                    assert_eq!(holders.contains(disk), *answer == Ok(digest));
                    assert_eq!(dropped.iter().any(|(gone, _)| gone == disk), *answer != Ok(digest));
                }
                assert_eq!(holders.len() + dropped.len(), answers.len());
            }
            SealDecision::Wait { why } => assert!(expected.is_none() && !why.is_empty(), "{answers:?}"),
        }
    }
}

#[test]
fn two_replicas_that_disagree_wait() {
    let answers = [(disk(1), Ok([1; 32])), (disk(2), Ok([2; 32])), (disk(3), Err("away".to_owned()))];
    let SealDecision::Wait { why } = decide_seal(&answers) else { panic!("decided") };
    assert_eq!(why, "2 replicas disagree and none is in the majority");
}

fn in_zone(number: u8, zone: u8, free_slots: u64) -> InventoryDisk {
    InventoryDisk {
        disk: disk(number),
        node: NodeId(format!("node-{number}")),
        zone: format!("zone-{zone}"),
        slots: 20,
        free_slots,
        eligible: true,
        rack: String::new(),
        leaving: false,
    }
}

fn volume(number: u8, live: &[u8]) -> VolumeReplicas {
    VolumeReplicas {
        volume: VolumeId([number; 16]),
        live: live.iter().map(|at| disk(*at)).collect(),
        failing: Vec::new(),
        away: Vec::new(),
        avoid: Vec::new(),
        occupied: Vec::new(),
        restorable: Vec::new(),
    }
}

#[test]
fn the_most_endangered_volume_gets_the_last_slot() {
    let inventory = Inventory { disks: vec![in_zone(1, 1, 0), in_zone(2, 2, 0), in_zone(3, 3, 1), in_zone(4, 1, 0)] };
    let volumes = [volume(1, &[1, 2]), volume(2, &[1, 2, 3]), volume(9, &[1]), volume(4, &[])];
    let plan = plan_repairs(&inventory, &volumes, Distinct::Zones);
    let first = RepairAction {
        volume: VolumeId([9; 16]),
        sources: vec![disk(1)],
        target: disk(3),
        replicas: vec![disk(1), disk(3)],
    };
    assert_eq!(plan.actions, [first]);
    assert_eq!(plan.unreadable, [VolumeId([4; 16])]);
    assert_eq!(plan.blocked.len(), 1);
    assert_eq!(plan.blocked[0].0, VolumeId([1; 16]));
    assert_eq!(
        plan.blocked[0].1.to_string(),
        "the cell is full: 1 zone with a free slot needed, 0 there: zone-3 has no disk with a free slot (1 disk, 0 free slots)"
    );
}

#[test]
fn a_disk_that_failed_a_copy_is_no_target_and_one_that_holds_no_replica_is_the_last_choice() {
    let inventory = Inventory { disks: vec![in_zone(1, 1, 9), in_zone(2, 2, 9), in_zone(3, 3, 9), in_zone(4, 3, 1)] };
    for number in 0..20 {
        let [avoids, spares] = [
            VolumeReplicas { avoid: vec![disk(3)], ..volume(number, &[1, 2]) },
            VolumeReplicas { occupied: vec![disk(3)], ..volume(number, &[1, 2]) },
        ];
        for lacking in [avoids.clone(), spares.clone()] {
            let plan = plan_repairs(&inventory, &[lacking], Distinct::Zones);
            assert_eq!(plan.actions[0].target, disk(4));
            let mut sources = plan.actions[0].sources.clone();
            sources.sort();
            assert_eq!(sources, [disk(1), disk(2)]);
        }
        let [avoids, spares] =
            [avoids, spares].map(|volume| VolumeReplicas { avoid: [&volume.avoid[..], &[disk(4)]].concat(), ..volume });
        assert_eq!(plan_repairs(&inventory, &[avoids], Distinct::Zones).blocked.len(), 1);
        assert_eq!(plan_repairs(&inventory, &[spares], Distinct::Zones).actions[0].target, disk(3));
    }
}

#[test]
fn a_replica_in_a_trash_is_had_back_before_one_is_copied_as_far_away() {
    let full = |number, zone| in_zone(number, zone, 0);
    let disks = vec![in_zone(1, 1, 9), in_zone(2, 2, 9), in_zone(3, 3, 9), in_zone(4, 3, 9), full(5, 3), full(6, 2)];
    let inventory = Inventory { disks };
    let target = |number, restorable: &[u8], avoid: &[u8]| {
        let [restorable, avoid] = [restorable, avoid].map(|of| of.iter().map(|at| disk(*at)).collect());
        let lacking = VolumeReplicas { avoid, restorable, ..volume(number, &[1, 2]) };
        plan_repairs(&inventory, &[lacking], Distinct::Nodes).actions[0].target
    };
    for number in 0..20 {
        assert_eq!(target(number, &[4], &[]), disk(4));
        // It needs no slot.
        assert_eq!(target(number, &[5], &[]), disk(5));
        // That in another zone than all others is better, and costs a copy.
        assert!([disk(3), disk(4)].contains(&target(number, &[6], &[])));
        assert_eq!(target(number, &[5, 4], &[4]), disk(5));
        // On the node of a replica it would be none more.
        assert!([disk(3), disk(4)].contains(&target(number, &[1], &[])));
    }
}

#[test]
fn where_nothing_takes_a_copy_what_a_trash_has_is_had_back_as_it_is() {
    let disks = vec![
        in_zone(1, 1, 0),
        in_zone(2, 2, 0),
        in_zone(3, 2, 0),
        InventoryDisk { eligible: false, ..in_zone(4, 3, 9) },
    ];
    let inventory = Inventory { disks };
    let with = |number, live: &[u8], restorable| {
        let volume = VolumeReplicas { restorable, ..volume(number, live) };
        plan_repairs(&inventory, &[volume], Distinct::Nodes)
    };
    let plan = with(1, &[1, 2], vec![disk(3)]);
    assert_eq!((plan.actions[0].target, plan.blocked.len()), (disk(3), 0));
    assert_eq!(with(1, &[1, 2], Vec::new()).blocked.len(), 1);
    // A volume of which nothing else is left, on a disk that takes nothing new.
    let plan = with(1, &[], vec![disk(4)]);
    let last = RepairAction { volume: VolumeId([1; 16]), sources: vec![], target: disk(4), replicas: vec![disk(4)] };
    assert_eq!((plan.actions, plan.unreadable.len()), (vec![last], 0));
    assert_eq!(with(1, &[], Vec::new()).unreadable, [VolumeId([1; 16])]);
}

#[test]
fn a_replica_that_can_only_be_read_is_replaced_and_serves_as_a_source_meanwhile() {
    let inventory = Inventory { disks: vec![in_zone(1, 1, 9), in_zone(2, 2, 9), in_zone(3, 3, 9), in_zone(4, 3, 9)] };
    let one = VolumeReplicas { failing: vec![disk(3)], ..volume(1, &[1, 2]) };
    let none = VolumeReplicas { failing: vec![disk(2), disk(3)], ..volume(2, &[]) };
    let plan = plan_repairs(&inventory, &[one, none, volume(3, &[1])], Distinct::Zones);
    assert_eq!(plan.actions.iter().map(|action| action.volume.0[0]).collect::<Vec<_>>(), [3, 2, 1]);
    let [_, second, third] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!((third.target, &third.replicas), (disk(4), &vec![disk(1), disk(2), disk(4)]));
    assert_eq!(third.sources, [disk(2), disk(1), disk(3)]);
    assert_eq!(second.sources, [disk(2), disk(3)]);
    assert_eq!(second.replicas, [second.target, disk(2), disk(3)]);
    assert!(![disk(2), disk(3)].contains(&second.target));
}

#[test]
fn a_replica_that_is_waited_for_is_neither_copied_nor_a_source_and_keeps_its_place() {
    let inventory = Inventory { disks: vec![in_zone(1, 1, 9), in_zone(2, 2, 9), in_zone(3, 3, 9), in_zone(4, 3, 9)] };
    let whole = VolumeReplicas { away: vec![disk(3)], ..volume(1, &[1, 2]) };
    let short = VolumeReplicas { away: vec![disk(2)], ..volume(2, &[1]) };
    let silent = VolumeReplicas { away: vec![disk(1), disk(2)], ..volume(3, &[]) };
    let plan = plan_repairs(&inventory, &[whole, short, silent], Distinct::Zones);
    let [action] = &plan.actions[..] else { panic!("{plan:?}") };
    assert_eq!((action.volume, &action.sources), (VolumeId([2; 16]), &vec![disk(1)]));
    assert_eq!(action.replicas, [disk(1), disk(2), action.target]);
    assert_eq!(plan.unreadable, [VolumeId([3; 16])]);
}

#[test]
fn volumes_are_counted_by_what_they_can_lose() {
    assert_eq!([0, 1, 2, 3, 4].map(can_lose), [0, 0, 1, 2, 2]);
    let expected = HealthCounts { total: 7, can_lose: [3, 1, 3], unreadable: 1 };
    assert_eq!(health_counts([3, 3, 1, 0, 1, 2, 3]), expected);
}
