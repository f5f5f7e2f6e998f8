//! Questions instead of mass deletes, and servers that are not to be trusted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, Entry, EntryId, Kind};
use holdfast_sync_client_engine::{EngineError, SystemClock, run_with};
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, Device};
use super::client::{Client, LIMIT, assert_same, settle_all};

async fn until_asking(client: &Client) -> String {
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let status = client.ask("status").await;
        if status.state == "asking" {
            return status.reason;
        }
        assert!(std::time::Instant::now() < end, "{status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn with_ten_files() -> (std::sync::Arc<Cell>, Client, Client) {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for n in 0..10 {
        one.write(&format!("folder/{n}"), n.to_string());
    }
    settle_all(&[&one, &other]).await;
    (cell, one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_root_is_a_question_and_restore_brings_all_back() {
    let (cell, one, other) = with_ten_files().await;
    let aside = one.folder().parent().unwrap().join("aside");
    std::fs::rename(one.folder().join("folder"), &aside).unwrap();
    assert!(until_asking(&one).await.contains("gone at once"));
    assert_eq!(cell.lock().server.alive().count(), 11);
    assert_eq!(other.picture().len(), 11);
    one.ask("restore").await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(one.picture().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_root_is_deleted_on_the_server_once_a_person_says_so() {
    let (cell, mut one, other) = with_ten_files().await;
    one.stop().await;
    std::fs::remove_dir_all(one.folder().join("folder")).unwrap();
    one.resume().await;
    until_asking(&one).await;
    one.ask("proceed").await;
    settle_all(&[&one, &other]).await;
    assert_eq!(other.picture().len(), 0);
    assert_eq!(cell.lock().server.alive().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_root_is_a_question_until_it_is_back() {
    let (cell, mut one, other) = with_ten_files().await;
    let aside = one.folder().parent().unwrap().join("aside");
    std::fs::rename(one.folder(), &aside).unwrap();
    assert!(until_asking(&one).await.contains("not there"));
    // An empty folder in its place is another folder.
    std::fs::create_dir(one.folder()).unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(one.ask("status").await.state, "asking");
    std::fs::remove_dir(one.folder()).unwrap();
    std::fs::rename(&aside, one.folder()).unwrap();
    settle_until_idle(&one).await;
    settle_all(&[&one, &other]).await;
    assert_eq!(cell.lock().server.alive().count(), 11);
    assert_same(&one, &other);
    // The same when it vanished while the client was stopped.
    one.stop().await;
    std::fs::rename(one.folder(), &aside).unwrap();
    one.resume().await;
    assert!(until_asking(&one).await.contains("not there"));
    assert!(!one.folder().exists());
    one.ask("restore").await;
    settle_until_idle(&one).await;
    settle_all(&[&one, &other]).await;
    assert_eq!(one.picture().len(), 11);
    assert_same(&one, &other);
}

async fn settle_until_idle(client: &Client) {
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let status = client.ask("settle 1").await;
        if status.state == "idle" {
            return;
        }
        assert!(std::time::Instant::now() < end, "{status:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_cursor_is_a_question_and_a_new_listing_loses_nothing() {
    let (cell, mut one, other) = with_ten_files().await;
    other.write("folder/3", "newer there");
    settle_all(&[&other, &one]).await;
    one.stop().await;
    one.write("folder/3", "newer here");
    cell.reset.store(true, Ordering::SeqCst);
    one.resume().await;
    assert!(until_asking(&one).await.contains("proceed"));
    cell.reset.store(false, Ordering::SeqCst);
    one.ask("proceed").await;
    settle_until_idle(&one).await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(one.picture().len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_out_of_the_folder_are_refused() {
    let cell = Cell::new();
    let block = BlockHash::of(b"evil");
    cell.lock().blocks.insert(block, bytes::Bytes::from_static(b"evil"));
    let names = ["../evil", "a/b", "", ".", "..", "zero\0byte", &"x".repeat(256)];
    for (at, name) in names.into_iter().chain(["fine"]).enumerate() {
        cell.plant(Entry {
            id: EntryId(at as u64 + 1),
            parent: EntryId::ROOT,
            name: name.to_owned(),
            exact_name: None,
            kind: Kind::File,
            rev: format!("{at:09x}"),
            sequence: 0,
            deleted: false,
            size: 4,
            blocks: vec![BlockRef { hash: block, length: 4 }],
            mtime: None,
            executable: false,
            target: None,
        });
    }
    let one = Client::start(&cell, 1).await;
    let status = one.settle().await;
    assert_eq!(status.not_synced, 7, "{status:#?}");
    assert_eq!(one.picture().into_keys().collect::<Vec<_>>(), [std::path::PathBuf::from("fine")]);
    assert!(!one.folder().parent().unwrap().join("evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_a_folder_is_not_written_through() {
    let cell = Cell::new();
    let (one, mut other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    one.write("folder/file", "first");
    settle_all(&[&one, &other]).await;
    other.stop().await;
    let outside = other.folder().parent().unwrap().join("outside");
    std::fs::rename(other.folder().join("folder"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, other.folder().join("folder")).unwrap();
    one.write("folder/file", "second");
    one.write("folder/new", "third");
    one.settle().await;
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "first");
    assert!(!outside.join("new").exists());
    assert_same(&one, &other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_client_on_the_same_state_or_folder_is_refused() {
    let cell = Cell::new();
    let one = Client::start(&cell, 1).await;
    one.settle().await;
    let network = || std::sync::Arc::new(Device { cell: std::sync::Arc::clone(&cell), device: 3 });
    let start = async |config| {
        let clock = std::sync::Arc::new(SystemClock);
        let running = run_with(config, network(), clock, CancellationToken::new());
        tokio::time::timeout(LIMIT, running).await.expect("it was not refused")
    };
    assert!(matches!(start(one.config()).await, Err(EngineError::Busy(_))));
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = one.config();
    config.state_dir = elsewhere.path().join("state");
    assert!(matches!(start(config).await, Err(EngineError::Busy(_))));
    let mut config = one.config();
    config.state_dir = one.folder().join("state");
    let error = start(config).await.unwrap_err().to_string();
    assert!(error.contains("lie in each other"), "{error}");
}
