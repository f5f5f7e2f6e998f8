//! Stops, crashes, lost answers and lost notifications.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cell::Cell;
use super::client::{Client, assert_same, settle_all, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_lost_answer_is_asked_for_again_and_changes_nothing() {
    let cell = Cell::new();
    cell.lose_answers.store(true, Ordering::SeqCst);
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for n in 0..20 {
        one.write(&format!("folder {}/{n}", n % 3), n.to_string());
    }
    settle_all(&[&one, &other]).await;
    for n in 0..20 {
        other.write(&format!("folder {}/{n}", n % 3), format!("{n} edited"));
    }
    std::fs::rename(other.folder().join("folder 1"), other.folder().join("moved")).unwrap();
    settle_all(&[&other, &one]).await;
    assert_same(&one, &other);
    assert_eq!(one.picture().len(), 23);
    assert_eq!(one.ask("status").await.conflicts + other.ask("status").await.conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_pulls_alone_bring_changes() {
    let cell = Cell::new();
    let (mut one, mut other) = (Client::stopped(&cell, 1), Client::stopped(&cell, 2));
    (one.notifications, other.notifications) = (false, false);
    one.resume().await;
    other.resume().await;
    one.write("file", "text");
    until("the file", || other.read("file").as_deref() == Some("text")).await;
    other.write("file", "back");
    until("the edit", || one.read("file").as_deref() == Some("back")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_off_at_any_moment_goes_on_where_it_was() {
    let cell = Cell::new();
    let (mut one, mut other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    for round in 0..12_u64 {
        for n in 0..40 {
            one.write(&format!("{}/{n}", n % 4), format!("{n} in round {round}"));
        }
        if round % 3 == 1 {
            let from = one.folder().join("1");
            std::fs::rename(&from, one.folder().join(format!("moved {round}"))).unwrap();
        }
        if round % 4 == 2 {
            std::fs::remove_dir_all(one.folder().join("2")).unwrap();
        }
        // Cut both somewhere in the middle, each round somewhere else.
        tokio::time::sleep(Duration::from_millis(round * 17 % 90)).await;
        one.crash().await;
        tokio::time::sleep(Duration::from_millis(round * 29 % 70)).await;
        other.crash().await;
        one.resume().await;
        other.resume().await;
    }
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    let status = (one.ask("status").await, other.ask("status").await);
    assert_eq!((status.0.conflicts, status.1.conflicts), (0, 0));
    assert!(!one.picture().keys().any(|path| path.to_string_lossy().contains("conflict")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_it_was_stopped_is_found_at_the_start() {
    let cell = Cell::new();
    let (mut one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    one.write("stays", "stays");
    one.write("edited", "before");
    one.write("deleted", "x");
    one.write("folder/moved", "moved");
    settle_all(&[&one, &other]).await;
    let puts = cell.puts.load(Ordering::SeqCst);
    one.stop().await;
    one.write("edited", "after");
    std::fs::remove_file(one.folder().join("deleted")).unwrap();
    std::fs::rename(one.folder().join("folder"), one.folder().join("renamed")).unwrap();
    other.write("from other", "new");
    other.settle().await;
    one.resume().await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(one.picture().len(), 5);
    assert_eq!(cell.puts.load(Ordering::SeqCst) - puts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_waited_for_and_named() {
    let cell = Cell::new();
    let one = Client::start(&cell, 1).await;
    one.settle().await;
    cell.is_down.store(true, Ordering::SeqCst);
    one.write("file", "text");
    let mut reason = String::new();
    for _ in 0..200 {
        let status = one.ask("status").await;
        assert_ne!(status.state, "idle");
        reason = status.reason;
        if !reason.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reason.contains("cannot be reached"), "{reason:?}");
    cell.is_down.store(false, Ordering::SeqCst);
    one.settle().await;
    assert_eq!(cell.lock().server.alive().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_finds_what_the_watcher_cannot_tell() {
    let cell = Cell::new();
    let one = Client::start(&cell, 1).await;
    one.write("folder/in/file", "text");
    one.settle().await;
    // A write through another name of the file, outside the root, makes no event in the folder.
    let outside = one.folder().parent().unwrap().join("other name");
    std::fs::hard_link(one.folder().join("folder/in/file"), &outside).unwrap();
    one.settle().await;
    std::fs::write(&outside, "longer text").unwrap();
    one.ask("rescan").await;
    one.settle().await;
    assert_eq!(cell.lock().server.alive().map(|entry| entry.size).max(), Some(11));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_unanswered_items_are_sent_again_under_their_numbers_and_none_is_used_twice() {
    let cell = Cell::new();
    let mut one = Client::start(&cell, 1).await;
    one.write("before", "x");
    one.settle().await;
    let arrived = || cell.arrived.lock().unwrap().clone();
    let known = arrived().len();
    cell.lose_answers.store(true, Ordering::SeqCst);
    one.write("file", "text");
    until("the commit", || arrived().len() > known).await;
    one.crash().await;
    cell.lose_answers.store(false, Ordering::SeqCst);
    let sent = arrived();
    one.write("later", "text");
    one.resume().await;
    one.settle().await;
    let after = arrived().split_off(sent.len());
    assert_eq!(after[0], *sent.last().unwrap(), "{sent:?} then {after:?}");
    assert!(after[1..].iter().flatten().all(|op| *op > *sent.last().unwrap().last().unwrap()), "{after:?}");
    assert_eq!(one.picture().len(), 3);
    assert_eq!(cell.lock().server.alive().count(), 3);
}
