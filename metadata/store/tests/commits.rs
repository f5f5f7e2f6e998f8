//! Commits: durable, grouped and chained.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::sync::atomic::Ordering;

use bench::{Bench, commit, file, known, path, put};
use holdfast_libs_types::DeviceId;
use holdfast_metadata_model::{
    ChangeKind, EntryId, JournalItem, NamespaceId, Origin, Rev, Scope, UploadMode, UploadOptions,
};
use holdfast_metadata_store::{PageRequest, Store, Upload, WriteFailure};

const ROOT: EntryId = EntryId::ROOT;

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopen_and_every_hash_follows_from_the_one_before() {
    let bench = Bench::start();
    bench.user("ada", 1 << 30).await;
    let actor = bench.device("ada").await;
    let items = (1..=20).map(|n| put(n, ROOT, &format!("f{n}"), n)).collect();
    let done = bench.store.commit(actor.clone(), commit(items, (1..=20).map(known).collect())).await.unwrap();
    assert_eq!((done.sequence, bench.told.load(Ordering::SeqCst)), (20, 20));
    bench.store.relocate(actor.clone(), path("/f1"), path("/d/g"), false, false).await.unwrap().unwrap();
    bench.store.delete(actor.clone(), path("/f2"), None).await.unwrap().unwrap();
    let Bench { directory, store, .. } = bench;
    drop(store);
    let store = Store::open(directory.path(), Box::new(|_, _| ())).unwrap();
    let found = store.at(actor.clone(), path("/D/G"), false).await.unwrap().unwrap();
    assert_eq!(found.entry.path, "/d/g");
    let repeat = store.commit(actor, commit(vec![put(1, ROOT, "other", 1)], Vec::new())).await.unwrap();
    assert_eq!(repeat.answers, [done.answers[0].clone()], "the first answer outlives a restart");
    drop(store);
    check_chain(&directory.path().join("metadata.db"));
}

fn check_chain(database: &std::path::Path) {
    let db = rusqlite::Connection::open(database).unwrap();
    let (mut hash, head): ([u8; 32], [u8; 32]) =
        db.query_row("SELECT genesis, hash FROM namespaces", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let sql = "SELECT sequence, entry, revision, device, kind, at_ms, from_parent, from_name, state, hash
               FROM journal ORDER BY sequence";
    let mut statement = db.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut count = 0;
    while let Some(row) = rows.next().unwrap() {
        count += 1;
        let item = JournalItem {
            sequence: row.get(0).unwrap(),
            entry: EntryId(row.get(1).unwrap()),
            revision: Rev(row.get(2).unwrap()),
            device: DeviceId(row.get(3).unwrap()),
            kind: ChangeKind::from_number(row.get(4).unwrap()).unwrap(),
            at_ms: row.get(5).unwrap(),
            from: row
                .get::<_, Option<u64>>(6)
                .unwrap()
                .map(|parent| Origin { parent: EntryId(parent), name: row.get(7).unwrap() }),
        };
        assert_eq!(item.sequence, count);
        hash = item.chain(&hash, &row.get(8).unwrap());
        assert_eq!(hash, row.get::<_, [u8; 32]>(9).unwrap(), "item {count}");
    }
    assert_eq!((hash, count), (head, 23));
}

#[tokio::test]
async fn commits_that_come_together_are_all_kept_and_one_that_fails_fails_alone() {
    let bench = Bench::start();
    bench.user("ada", 1 << 30).await;
    let mut devices = Vec::new();
    for _ in 0..8 {
        devices.push(bench.device("ada").await);
    }
    let mut waiting = Vec::new();
    for round in 1..=20 {
        for device in &devices {
            let content = device.device.0 * 1000 + round;
            let item = put(round, ROOT, &format!("f{content}"), content);
            let (store, device) = (bench.store.clone(), device.clone());
            let batch = commit(vec![item], vec![known(content)]);
            waiting.push(tokio::spawn(async move { store.commit(device, batch).await }));
        }
        // A namespace that does not exist makes its job fail inside the shared transaction.
        let mut stranger = devices[0].clone();
        stranger.namespace = NamespaceId(99);
        let failing = commit(vec![put(1000 + round, ROOT, "x", 1)], Vec::new());
        assert!(bench.store.commit(stranger, failing).await.is_err());
    }
    for commit in waiting {
        assert!(commit.await.unwrap().unwrap().answers[0].starts_with("applied"));
    }
    let listed =
        bench.store.changes(devices[0].clone(), PageRequest::Start(devices[0].namespace, Scope::Namespace), 1000);
    assert_eq!(listed.await.unwrap().unwrap().items.len(), 160);
}

#[tokio::test]
async fn an_account_takes_no_more_than_its_quota() {
    let bench = Bench::start();
    bench.user("ada", 20).await;
    let actor = bench.device("ada").await;
    let items = (1..=3).map(|n| put(n, ROOT, &format!("f{n}"), n)).collect();
    let done = bench.store.commit(actor.clone(), commit(items, (1..=3).map(known).collect())).await.unwrap();
    assert_eq!(done.answers, ["applied 1", "applied 2", "full"]);
    let options =
        UploadOptions { mode: UploadMode::Add, autorename: false, strict_conflict: false, explicit_mtime: false };
    let upload = Upload { path: path("/d/x"), content: file(3), options, proven: Vec::new(), session: None };
    let refused = bench.store.upload(actor.clone(), upload.clone()).await.unwrap();
    assert_eq!(refused, Err(WriteFailure::InsufficientSpace));
    let folder = bench.store.at(actor.clone(), path("/d"), false).await.unwrap();
    assert!(folder.is_err(), "a refused upload leaves no folder behind");
    let copied = bench.store.relocate(actor.clone(), path("/f1"), path("/copy"), false, true).await.unwrap();
    assert!(copied.is_err());
    bench.store.delete(actor.clone(), path("/f1"), None).await.unwrap().unwrap();
    assert!(bench.store.upload(actor.clone(), upload).await.unwrap().is_ok());
    assert_eq!(bench.store.usage(actor).await.unwrap().used, 16);
}
