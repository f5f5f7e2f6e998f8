//! A table that is marked as lost: what may be written to it then, and only then.

use std::sync::Arc;

use holdfast_libs_types::WriteEpoch;
use holdfast_volume_manager_catalog::{
    CatalogError, FoundVolume, Leadership, Registration, ReplicationTable, Term, VolumeState,
};

use crate::index::{EPOCH, volume};
use crate::subject::Subject;
use crate::table::{disk, info, new, open};

fn found(number: u8, digest: u8) -> FoundVolume {
    FoundVolume {
        volume: volume(number),
        epoch: WriteEpoch(7),
        capacity: 1 << 20,
        length: 8192,
        digest: [digest; 32],
        replicas: vec![disk(2), disk(3)],
    }
}

/// A table with volume 1 sealed, 2 open and 3 being made.
async fn written(subject: &Subject) -> (Arc<dyn ReplicationTable>, Term) {
    let (table, term) = open(subject).await;
    for number in 1..=3 {
        table.create_volume(term, &new(number)).await.unwrap();
    }
    for number in 1..=2 {
        table.open_volume(term, volume(number)).await.unwrap();
    }
    let epoch = table.begin_seal(term, volume(1), EPOCH, "").await.unwrap();
    table.commit_length(term, volume(1), epoch, 8192).await.unwrap();
    table.commit_seal(term, volume(1), [1; 32], &[disk(1)]).await.unwrap();
    (table, term)
}

pub async fn volumes_are_taken_in_from_the_disks_while_the_table_is_marked_as_lost(subject: Subject) {
    let (table, term) = written(&subject).await;
    let refused = table.take_in(term, &found(4, 4)).await.unwrap_err();
    assert!(matches!(refused, CatalogError::NotLost), "{refused}");
    assert!(matches!(table.forget_unsealed(term).await, Err(CatalogError::NotLost)));
    assert_eq!(table.lost().await.unwrap(), None);

    table.mark_lost(term, "because").await.unwrap();
    table.mark_lost(term, "for another reason").await.unwrap();
    let other = subject.open().await.table;
    assert_eq!(other.lost().await.unwrap().as_deref(), Some("because"));

    let conflict = table.take_in(term, &found(1, 9)).await.unwrap_err();
    assert!(matches!(conflict, CatalogError::SealConflict { .. }), "{conflict}");
    let unknown = FoundVolume { replicas: vec![disk(99)], ..found(4, 4) };
    assert!(matches!(table.take_in(term, &unknown).await, Err(CatalogError::UnknownDisk(_))));
    let nowhere = FoundVolume { replicas: Vec::new(), ..found(4, 4) };
    assert!(matches!(table.take_in(term, &nowhere).await, Err(CatalogError::BadReplicas { .. })));
    assert_eq!(table.volume(volume(4)).await.unwrap(), None);

    // One that is known to be sealed, one that was open, and one that is new; each twice.
    for number in [1, 2, 4, 1, 2, 4] {
        table.take_in(term, &found(number, number)).await.unwrap();
        let row = table.volume(volume(number)).await.unwrap().unwrap();
        let FoundVolume { epoch, length, digest, replicas, .. } = found(number, number);
        assert_eq!((row.state, row.epoch, row.length), (VolumeState::Sealed, epoch, Some(length)));
        assert_eq!((row.digest, row.replicas, row.holder, row.lease_expires_ms), (Some(digest), replicas, None, None));
    }
    assert_eq!(table.forget_unsealed(term).await.unwrap(), 1);
    assert_eq!(table.forget_unsealed(term).await.unwrap(), 0);
    let left: Vec<_> = table.volumes().await.unwrap().into_iter().map(|row| row.volume).collect();
    assert_eq!(left, [1, 2, 4].map(volume));

    table.recovered(term, 40).await.unwrap();
    table.recovered(term, 90).await.unwrap();
    assert_eq!((other.lost().await.unwrap(), other.generation().await.unwrap()), (None, 41));
    assert!(matches!(table.take_in(term, &found(5, 5)).await, Err(CatalogError::NotLost)));
}

pub async fn once_it_is_marked_a_disk_may_register_with_any_nonce_once(subject: Subject) {
    let (table, term) = open(&subject).await;
    let register = async |previous, nonce| {
        table.register_disk_incarnation(term, &info(1), previous, 9, nonce).await.unwrap() == Registration::Accepted
    };
    assert!(!register(500, 501).await);
    table.mark_lost(term, "because").await.unwrap();
    assert!(register(500, 501).await);
    table.mark_lost(term, "again").await.unwrap();
    assert!(!register(600, 601).await);
    assert!(register(501, 502).await);
}

pub async fn a_term_is_raised_above_what_the_nodes_know(subject: Subject) {
    let (table, term) = open(&subject).await;
    let above = Term(term.0 + 1000);
    table.raise_term(term, Term(term.0 - 1)).await.unwrap();
    assert_eq!(table.term().await.unwrap(), term);
    table.raise_term(term, above).await.unwrap();
    // As after a lost answer.
    table.raise_term(term, above).await.unwrap();
    assert_eq!((table.term().await.unwrap(), table.leader().await.unwrap()), (above, None));
    assert!(matches!(table.mark_lost(term, "").await, Err(CatalogError::StaleTerm { .. })));
    assert!(matches!(table.raise_term(term, Term(above.0 + 1)).await, Err(CatalogError::StaleTerm { .. })));
    let candidate = crate::leadership::candidate(0);
    let next = table.acquire_leadership(&candidate, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(next, Leadership::Taken(Term(above.0 + 1)));
}

pub async fn a_leader_that_was_replaced_recovers_nothing(subject: Subject) {
    let (table, old) = written(&subject).await;
    table.mark_lost(old, "because").await.unwrap();
    let current = table.take_leadership().await.unwrap();
    let before = subject.dump().await;
    for term in [old, Term(current.0 + 1)] {
        let results = [
            table.mark_lost(term, "").await,
            table.raise_term(term, Term(current.0 + 9)).await,
            table.take_in(term, &found(2, 2)).await,
            table.forget_unsealed(term).await.map(drop),
            table.recovered(term, 9).await,
        ];
        for (at, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert!(matches!(error, CatalogError::StaleTerm { .. }), "call {at}: {error}");
        }
    }
    assert_eq!(subject.dump().await, before);
}
