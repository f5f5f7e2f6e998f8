//! Commits over real TLS against a real database.

use crate::bench::{Bench, applied, block, named, put_file, refused};
use holdfast_libs_transport::CallError;
use holdfast_metadata_client::{Change, CommitItem, EntryId, Kind, Outcome, Parent, Place, Timestamp, code};

const ROOT: EntryId = EntryId::ROOT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_repeated_gets_its_first_answer_and_changes_nothing() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let (mut a, mut b) = (bench.device("ada").await, bench.device("ada").await);
    a.deliver(b"one").await;
    let folder = Change::MakeFolder { parent: Parent::Entry(ROOT), name: "f".to_owned() };
    let inside = Place::Name { parent: Parent::Op(1), name: "a".to_owned() };
    let request = a.request(vec![folder, put_file(inside, None, b"one")]);
    let first = a.client.commit(&request).await.unwrap();
    let entry = applied(&first.results[1].outcome).clone();
    assert_eq!(entry.parent, applied(&first.results[0].outcome).id);
    assert_eq!(entry.mtime, Some(Timestamp { secs: 1_000_000_000, nanos: 123_456_789 }));
    b.put(Place::Entry(entry.id), Some(&entry.rev), b"two").await;
    let again = a.client.commit(&request).await.unwrap();
    assert_eq!(again.results, first.results);
    assert_eq!(again.sequence, 3, "only b's edit came after");
    // A device that has its answers may let the server forget them; such an op is never done twice.
    let mut acknowledging = a.request(Vec::new());
    acknowledging.acknowledged_op = 2;
    a.client.commit(&acknowledging).await.unwrap();
    let forgotten = a.client.commit(&request).await.unwrap();
    assert_eq!(refused(&forgotten.results[1].outcome), code::INVALID_ITEM);
    assert_eq!(forgotten.sequence, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_devices_with_clocks_a_day_apart_conflict_only_when_concurrent() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let mut devices = [bench.device("ada").await, bench.device("ada").await, bench.device("ada").await];
    let day = 86_400;
    let put = |at, base: Option<&str>, content: &[u8], clock: i64| match put_file(at, base, content) {
        Change::PutFile { at, base, size, blocks, executable, .. } => {
            let mtime = Timestamp { secs: 1_700_000_000 + clock * day, nanos: 0 };
            Change::PutFile { at, base, size, blocks, mtime, executable }
        }
        other => other,
    };
    for device in &mut devices {
        for content in [&b"first"[..], b"second", b"third", b"left", b"right"] {
            device.deliver(content).await;
        }
    }
    let made = devices[0].one(put(named(ROOT, "a.txt"), None, b"first", 1)).await;
    let first = applied(&made).clone();
    // The second device's clock is a day behind, the third's a day ahead; each knew the version before.
    let second = devices[1].one(put(Place::Entry(first.id), Some(&first.rev), b"second", -1)).await;
    let second = applied(&second).clone();
    let third = devices[2].one(put(Place::Entry(first.id), Some(&second.rev), b"third", 1)).await;
    let third = applied(&third).clone();
    assert!(matches!(
        devices[0].one(put(Place::Entry(first.id), Some(&third.rev), b"left", -1)).await,
        Outcome::Applied { .. }
    ));
    let Outcome::ConflictCopy { entry, copy } =
        devices[1].one(put(Place::Entry(first.id), Some(&third.rev), b"right", 1)).await
    else {
        panic!("concurrent edits conflict");
    };
    assert_eq!((entry.blocks[0], copy.blocks[0]), (block(b"left"), block(b"right")));
    let today = copy.name.strip_prefix("a (conflicted copy from ada on ").unwrap();
    assert!(today.ends_with(").txt") && today.len() == "2026-01-01).txt".len(), "{}", copy.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_of_the_protocols_table_holds() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let (mut a, mut b) = (bench.device("ada").await, bench.device("ada").await);
    let base = applied(&a.put(named(ROOT, "x"), None, b"1").await).clone();
    // Descends: applied.
    let left = a.put(Place::Entry(base.id), Some(&base.rev), b"2").await;
    assert!(matches!(left, Outcome::Applied { .. }));
    // Concurrent, equal content: merged.
    assert!(matches!(b.put(Place::Entry(base.id), Some(&base.rev), b"2").await, Outcome::Merged { .. }));
    // Concurrent, other content: a copy.
    let conflict = b.put(Place::Entry(base.id), Some(&base.rev), b"3").await;
    assert!(matches!(conflict, Outcome::ConflictCopy { .. }));
    // A name that the device did not know: merged or a copy.
    a.put(named(ROOT, "y"), None, b"1").await;
    assert!(matches!(b.put(named(ROOT, "y"), None, b"1").await, Outcome::Merged { .. }));
    assert!(matches!(b.put(named(ROOT, "y"), None, b"9").await, Outcome::ConflictCopy { .. }));
    // Deleted: revived, with the folders above.
    let folder =
        applied(&a.one(Change::MakeFolder { parent: Parent::Entry(ROOT), name: "f".to_owned() }).await).clone();
    let inner = applied(&a.put(named(folder.id, "i"), None, b"1").await).clone();
    let gone = b.one(Change::Delete { entry: folder.id, known_sequence: inner.sequence }).await;
    assert!(applied(&gone).deleted);
    let revived = a.put(Place::Entry(inner.id), Some(&inner.rev), b"2").await;
    assert_eq!((applied(&revived).id, applied(&revived).deleted), (inner.id, false));
    // File against folder: the file becomes the copy, whichever came first.
    let Outcome::ConflictCopy { entry, .. } = b.put(named(ROOT, "f"), None, b"1").await else { panic!("a copy") };
    assert_eq!((entry.id, entry.kind), (folder.id, Kind::Folder));
    let over = b.one(Change::MakeFolder { parent: Parent::Entry(ROOT), name: "y".to_owned() }).await;
    assert_eq!((applied(&over).kind, applied(&over).name.as_str()), (Kind::Folder, "y"));
    // Moves and deletes.
    let down = Change::Move { entry: folder.id, parent: Parent::Entry(folder.id), name: "z".to_owned() };
    assert_eq!(refused(&b.one(down).await), code::CYCLE);
    let late = a.put(named(folder.id, "late"), None, b"7").await;
    let kept = b.one(Change::Delete { entry: folder.id, known_sequence: inner.sequence }).await;
    assert!(!applied(&kept).deleted && !applied(&late).deleted);
    // Case twins.
    let twin = a.put(named(ROOT, "X"), None, b"twin").await;
    assert_eq!(applied(&twin).exact_name.as_deref(), Some("X"));
    assert_eq!(applied(&twin).name, "X (case conflict)");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_attributes_and_empty_files_come_back_as_they_were() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    let mut a = bench.device("ada").await;
    let before_1970 = Timestamp { secs: -86_400, nanos: 999_999_999 };
    let link = Change::PutSymlink {
        at: named(ROOT, "link\nline"),
        base: None,
        target: "../no such/\u{301}".to_owned(),
        mtime: before_1970,
    };
    let link = a.one(link).await;
    assert_eq!(applied(&link).target.as_deref(), Some("../no such/\u{301}"));
    assert_eq!(applied(&link).mtime, Some(before_1970));
    let empty = Change::PutFile {
        at: named(ROOT, "empty"),
        base: None,
        size: 0,
        blocks: Vec::new(),
        mtime: before_1970,
        executable: true,
    };
    let empty = a.one(empty).await;
    assert!(applied(&empty).executable && applied(&empty).size == 0);
    assert!(applied(&empty).rev.len() >= 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_items_and_requests_get_clear_errors() {
    let bench = Bench::start().await;
    bench.user("ada").await;
    bench.user("bob").await;
    let (mut a, b) = (bench.device("ada").await, bench.device("bob").await);
    a.deliver(b"1").await;
    let long = "x".repeat(300);
    for name in ["", ".", "..", "a/b", "nul\0", &long] {
        assert_eq!(refused(&a.one(put_file(named(ROOT, name), None, b"1")).await), code::INVALID_NAME, "{name}");
    }
    assert_eq!(refused(&a.one(put_file(named(EntryId(999), "a"), None, b"1")).await), code::NOT_FOUND);
    assert_eq!(refused(&a.one(put_file(named(EntryId(u64::MAX), "a"), None, b"1")).await), code::NOT_FOUND);
    assert_eq!(refused(&a.one(put_file(named(ROOT, "a"), Some("xyz"), b"1")).await), code::INVALID_ITEM);
    assert_eq!(refused(&a.one(put_file(named(ROOT, "a"), Some("0000000ff"), b"1")).await), code::INVALID_ITEM);
    let mut wrong_length = put_file(named(ROOT, "a"), None, b"1");
    if let Change::PutFile { blocks, size, .. } = &mut wrong_length {
        (blocks[0].length, *size) = (2, 2);
    }
    assert_eq!(refused(&a.one(wrong_length).await), code::INVALID_ITEM);
    let mut wrong_sum = put_file(named(ROOT, "a"), None, b"1");
    if let Change::PutFile { size, .. } = &mut wrong_sum {
        *size = 5;
    }
    assert_eq!(refused(&a.one(wrong_sum).await), code::INVALID_ITEM);
    let mut foreign = a.request(Vec::new());
    foreign.namespace = b.me.namespace;
    assert_eq!(a.client.commit(&foreign).await.unwrap_err().code(), Some(code::FORBIDDEN));
    let mut zero = a.request(Vec::new());
    zero.items = vec![CommitItem { op: 0, change: put_file(named(ROOT, "a"), None, b"") }];
    assert_eq!(a.client.commit(&zero).await.unwrap_err().code(), Some("bad_request"));
    let many = (0..1001).map(|n| put_file(named(ROOT, &n.to_string()), None, b"")).collect();
    let many = a.request(many);
    assert_eq!(a.client.commit(&many).await.unwrap_err().code(), Some("bad_request"));
    for token in [None, Some("nonsense"), Some(bench.admin_token.as_str())] {
        let error = bench.client(token).me().await.unwrap_err();
        assert_eq!(error.code(), Some(code::UNAUTHORIZED), "{token:?}");
        assert!(matches!(error, CallError::Api(error) if error.status == 401));
    }
}
