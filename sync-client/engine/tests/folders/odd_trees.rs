//! What a tree can hold, there and back.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::cell::Cell;
use super::client::{Client, assert_same, settle_all};

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = TimeSpec::new(secs, nanos);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn grow_odd_tree(root: &Path) {
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file("empty", b"", 0o644);
    file("plain", b"plain", 0o600);
    file("run me", b"#!/bin/sh\n", 0o755);
    file("read only", b"0444", 0o444);
    file("read only, runs", b"0555", 0o555);
    file("with\nnewline", b"n", 0o644);
    file(&"x".repeat(255), b"long", 0o644);
    file(&format!("{}/é", "é".repeat(127)), b"long folder", 0o644);
    file("nfd e\u{301}", b"decomposed", 0o644);
    file("Photo.JPG", b"upper", 0o644);
    file("photo.jpg", b"lower", 0o644);
    file("Twins/a", b"1", 0o644);
    file("twins/a", b"2", 0o644);
    file("ancient", b"old", 0o644);
    file("two blocks", &vec![7; 5 * 1024 * 1024], 0o644);
    file("many same blocks", &vec![0; 17 * 1024 * 1024 + 3], 0o644);
    file("deep/a/b/c/d/e", b"deep", 0o644);
    std::fs::create_dir_all(root.join("no files/in here")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("deep/a", root.join("to a folder")).unwrap();
    symlink("..", root.join("deep/up")).unwrap();
    set_mtime(&root.join("ancient"), -1_000_000_001, 123_456_789);
    set_mtime(&root.join("dangling"), -5, 1);
    set_mtime(&root.join("empty"), 1, 999_999_999);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_tree_becomes_the_same_on_another_device() {
    let cell = Cell::new();
    let one = Client::stopped(&cell, 1);
    grow_odd_tree(&one.folder());
    let before = one.picture();
    let mut one = one;
    one.resume().await;
    let other = Client::start(&cell, 2).await;
    settle_all(&[&one, &other]).await;
    assert_eq!(one.picture(), before, "the origin was left alone");
    assert_same(&one, &other);
    let status = other.ask("status").await;
    // Three distinct blocks of the large files are fetched once each: 4 MiB of sevens, 1 MiB of them, 4 MiB and a bit of nothing.
    assert!(status.block_bytes_received > 9 * 1024 * 1024, "{status:?}");
    assert!(status.block_bytes_received < 12 * 1024 * 1024, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_while_both_run_arrive_on_both_sides() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    settle_all(&[&one, &other]).await;
    grow_odd_tree(&one.folder());
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    // And back: a read-only file is edited, another deleted, bits and times change.
    let edit = |name: &str| other.folder().join(name);
    std::fs::remove_file(edit("read only")).unwrap();
    std::fs::write(edit("read only"), "new").unwrap();
    std::fs::remove_file(edit("read only, runs")).unwrap();
    std::fs::set_permissions(edit("plain"), std::fs::Permissions::from_mode(0o700)).unwrap();
    set_mtime(&edit("photo.jpg"), 77, 7);
    std::fs::remove_dir_all(edit("deep")).unwrap();
    std::fs::remove_file(edit("to a folder")).unwrap();
    symlink("elsewhere", edit("to a folder")).unwrap();
    settle_all(&[&other, &one]).await;
    assert_same(&one, &other);
    assert_eq!(one.read("read only").unwrap(), "new");
    assert!(!one.folder().join("deep").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_seen_on_the_other_side_soon() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    settle_all(&[&one, &other]).await;
    let mut worst = Duration::ZERO;
    for round in 0..10 {
        let text = format!("edit {round}");
        let begun = SystemTime::now();
        one.write("file", &text);
        super::client::until("the edit", || other.read("file").as_deref() == Some(&text)).await;
        worst = worst.max(begun.elapsed().unwrap());
    }
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    println!("slowest of 10 edits: {worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_a_large_file_sends_and_fetches_one_block() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    let mut bytes: Vec<u8> = (0..40 * 1024 * 1024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    one.write("large", &bytes);
    settle_all(&[&one, &other]).await;
    let (puts, gets) = (cell.puts.load(Ordering::SeqCst), cell.gets.load(Ordering::SeqCst));
    bytes[21 * 1024 * 1024..][..4096].fill(1);
    one.write("large", &bytes);
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(cell.puts.load(Ordering::SeqCst) - puts, 1);
    assert_eq!(cell.gets.load(Ordering::SeqCst) - gets, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_synced_stays_local_and_is_listed_with_its_reason() {
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    let root = one.folder();
    nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    std::fs::write(root.join(OsStr::from_bytes(b"not utf-8 \xff")), "x").unwrap();
    symlink(OsStr::from_bytes(b"\xfe"), root.join("odd link")).unwrap();
    one.write("fine", "fine");
    settle_all(&[&one, &other]).await;
    let status = one.ask("status").await;
    assert_eq!(status.not_synced, 4, "{status:#?}");
    let reason = |path: &str| {
        let entry = status.not_synced_entries.iter().find(|entry| entry.path.starts_with(path));
        entry.map(|entry| entry.reason.clone()).unwrap_or_default()
    };
    assert_eq!(reason("fifo"), "a fifo");
    assert_eq!(reason("socket"), "a socket");
    assert_eq!(reason("not utf-8"), "the name is not UTF-8");
    assert!(reason("odd link").contains("target is not UTF-8"), "{status:#?}");
    assert_eq!(other.picture().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_not_committed() {
    use std::io::Write;
    let cell = Cell::new();
    let (one, other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    settle_all(&[&one, &other]).await;
    let items = cell.committed_items.load(Ordering::SeqCst);
    let mut file = std::fs::File::create(one.folder().join("growing")).unwrap();
    for _ in 0..20 {
        file.write_all(&[1; 10_000]).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(cell.committed_items.load(Ordering::SeqCst), items);
    }
    drop(file);
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(cell.committed_items.load(Ordering::SeqCst), items + 1);
}
