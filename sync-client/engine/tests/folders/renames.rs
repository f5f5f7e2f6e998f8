//! Renames are moves, not copies.

use std::sync::atomic::Ordering;

use super::cell::Cell;
use super::client::{Client, assert_same, settle_all};

#[tokio::test(flavor = "multi_thread")]
async fn renaming_a_folder_of_a_thousand_files_is_one_item_and_no_block() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for n in 0..1000 {
        one.write(&format!("many/{}/file {n}", n % 10), format!("content {n}"));
    }
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    let counts = || {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
        (load(&cell.committed_items), load(&cell.puts), load(&cell.gets))
    };
    let before = counts();
    std::fs::rename(one.folder().join("many"), one.folder().join("renamed")).unwrap();
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert!(other.folder().join("renamed/3/file 3").exists());
    assert_eq!(counts(), (before.0 + 1, before.1, before.2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_folder_is_one_item() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for n in 0..50 {
        one.write(&format!("many/{}/file {n}", n % 5), format!("content {n}"));
    }
    one.write("stays", "stays");
    settle_all(&[&one, &other]).await;
    let items = cell.committed_items.load(Ordering::SeqCst);
    std::fs::rename(one.folder().join("many"), one.folder().parent().unwrap().join("trash")).unwrap();
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(other.picture().len(), 1);
    assert_eq!(cell.committed_items.load(Ordering::SeqCst) - items, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_and_rotated_names_arrive() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for name in ["a", "b", "c"] {
        one.write(&format!("{name}/in {name}"), name);
    }
    settle_all(&[&one, &other]).await;
    let puts = cell.puts.load(Ordering::SeqCst);
    let at = |name: &str| one.folder().join(name);
    for (from, to) in [("a", "aside"), ("b", "a"), ("c", "b"), ("aside", "c")] {
        std::fs::rename(at(from), at(to)).unwrap();
    }
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(other.read("c/in a").as_deref(), Some("a"));
    assert_eq!(other.picture().len(), 6);
    assert_eq!(cell.puts.load(Ordering::SeqCst), puts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_saved_by_rename_keeps_its_entry() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    one.write("text", "first");
    settle_all(&[&one, &other]).await;
    let entry = || cell.lock().server.alive().map(|entry| entry.id).collect::<Vec<_>>();
    let before = entry();
    one.write(".text.swp", "second");
    std::fs::rename(one.folder().join(".text.swp"), one.folder().join("text")).unwrap();
    settle_all(&[&one, &other]).await;
    assert_eq!(other.read("text").as_deref(), Some("second"));
    assert_eq!(entry(), before);
}
