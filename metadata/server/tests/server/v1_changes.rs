//! Cursors: listing, replaying, waiting, and the ones that do not count.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::bench::{self, Bench, applied, named, put_file};
use holdfast_metadata_client::{Change, Changes, ChangesRequest, EntryId, Parent, code};

const ROOT: EntryId = EntryId::ROOT;

async fn ask(device: &bench::Device, cursor: Option<&str>, limit: u32, wait_ms: u64) -> Changes {
    let request = ChangesRequest { namespace: device.me.namespace, cursor: cursor.map(str::to_owned), limit, wait_ms };
    device.client.changes(&request).await.unwrap()
}

fn names(changes: &Changes) -> BTreeSet<String> {
    changes.entries.iter().map(|entry| entry.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_listing_misses_nothing_that_changes_meanwhile() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let mut a = bench.device("ada").await;
    let items = (0..50).map(|n| put_file(named(ROOT, &format!("f{n}")), None, b"")).collect();
    let made = a.commit(items).await;
    let id = |n: usize| applied(&made.results[n].outcome).id;
    let mut page = ask(&a, None, 20, 0).await;
    let mut known = names(&page);
    assert!(page.has_more && page.entries.len() == 20);
    // One already listed and one not yet go, one is renamed, one comes.
    let delete = |entry| Change::Delete { entry, known_sequence: made.sequence };
    let rename = Change::Move { entry: id(1), parent: Parent::Entry(ROOT), name: "renamed".to_owned() };
    a.commit(vec![delete(id(0)), delete(id(49)), rename, put_file(named(ROOT, "new"), None, b"")]).await;
    let mut told = page.entries.len();
    while page.has_more {
        page = ask(&a, Some(&page.cursor), 20, 0).await;
        for entry in &page.entries {
            let old = entry.id == id(1);
            if old {
                known.remove("f1");
            }
            if entry.deleted {
                known.remove(&entry.name)
            } else {
                known.insert(entry.name.clone())
            };
        }
        told += page.entries.len();
    }
    let mut expected: BTreeSet<String> = (2..49).map(|n| format!("f{n}")).collect();
    expected.extend(["renamed".to_owned(), "new".to_owned()]);
    assert_eq!(known, expected);
    assert!(told <= 54, "{told}");
    assert_eq!(page.sequence, 54);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_device_is_woken_by_a_commit_and_otherwise_waits_its_time() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let (mut a, b) = (bench.device("ada").await, bench.device("ada").await);
    let start = ask(&b, None, 100, 10_000).await;
    let began = Instant::now();
    let quiet = ask(&b, Some(&start.cursor), 100, 200).await;
    assert!(quiet.entries.is_empty() && began.elapsed() >= Duration::from_millis(200));
    let mut cursor = quiet.cursor;
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let asked = cursor.clone();
        let name = format!("f{round}");
        let waiting = async {
            let woken = ask(&b, Some(&asked), 100, 30_000).await;
            (woken, Instant::now())
        };
        let committing = async {
            // The other request waits by now, or it finds the change at once: both must hold.
            tokio::time::sleep(Duration::from_millis(5)).await;
            a.one(put_file(named(ROOT, &name), None, b"")).await;
            Instant::now()
        };
        let ((woken, heard), answered) = tokio::join!(waiting, committing);
        assert_eq!(names(&woken), [name.clone()].into());
        slowest = slowest.max(heard.saturating_duration_since(answered));
        cursor = woken.cursor;
    }
    assert!(slowest < Duration::from_millis(250), "woken {slowest:?} after the commit was answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_of_others_are_refused_and_those_of_no_journal_here_are_reset() {
    let mut bench = Bench::start().await;
    bench.user("ada").await;
    bench.user("bob").await;
    let (mut a, b) = (bench.device("ada").await, bench.device("bob").await);
    a.one(put_file(named(ROOT, "a"), None, b"")).await;
    let cursor = ask(&a, None, 100, 0).await.cursor;
    let stolen = ChangesRequest { namespace: b.me.namespace, cursor: Some(cursor.clone()), limit: 9, wait_ms: 0 };
    assert_eq!(b.client.changes(&stolen).await.unwrap_err().code(), Some(code::FORBIDDEN));
    let altered = cursor.replacen(&cursor[60..61], if &cursor[60..61] == "A" { "B" } else { "A" }, 1);
    assert!(ask(&a, Some(&altered), 9, 0).await.reset);
    assert!(ask(&a, Some("nonsense"), 9, 0).await.reset);
    assert!(!ask(&a, Some(&cursor), 9, 0).await.reset);
    // A server that was restored from a copy, and went on differently: the numbers are the same, the journal is not.
    let copy = bench.directory.path().join("copy");
    bench.restart(|data| copy_directory(data, &copy)).await;
    let a = relinked(&bench, a);
    let mut a = a;
    a.one(put_file(named(ROOT, "lost"), None, b"")).await;
    let ahead = ask(&a, None, 100, 0).await.cursor;
    bench.restart(|data| copy_directory(&copy, data)).await;
    let mut a = relinked(&bench, a);
    assert!(!ask(&a, Some(&cursor), 9, 0).await.reset, "what both histories share still counts");
    assert!(ask(&a, Some(&ahead), 9, 0).await.reset, "the item is not there");
    a.op += 10;
    a.one(put_file(named(ROOT, "another"), None, b"")).await;
    assert!(ask(&a, Some(&ahead), 9, 0).await.reset, "an item of this number is there, but another one");
}

fn relinked(bench: &Bench, device: bench::Device) -> bench::Device {
    bench::Device { client: bench.client(Some(&device.me.token)), ..device }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
