//! What a process that died had done on the disk is known to the next one.

#![allow(clippy::unwrap_used)]

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, EntryId, Timestamp};
use holdfast_sync_client_planner::{
    Content, Inode, LocalId, NodeKind, Operation, Remote, RemoteEntry, Stat, Synced, SyncedEntry, Trees, Whereabouts,
    outcome,
};

const ENTRY: EntryId = EntryId(1);

fn stat(kind: NodeKind, number: u64, ctime: i64) -> Stat {
    let time = |secs| Timestamp { secs, nanos: 0 };
    Stat {
        kind,
        inode: Inode { number, birth: Some(time(1)) },
        size: number,
        mtime: time(5),
        ctime: time(ctime),
        executable: false,
        target: None,
    }
}

fn content(of: u8) -> Content {
    let block = BlockRef { hash: BlockHash([of; 32]), length: 1 };
    Content::File { size: 1, blocks: [block].into(), mtime: Timestamp::default(), executable: false }
}

fn row(name: &str, rev: &str, of: u8, stat: Stat) -> SyncedEntry {
    let local = Whereabouts::Unknown;
    let (name, rev) = (name.to_owned(), rev.to_owned());
    SyncedEntry { parent: EntryId::ROOT, name, rev, content: content(of), stat, racy: false, local }
}

/// The server is at `name` with rev 2; what was agreed on before the crash is rev 1 at `file`, inode 10.
fn trees(name: &str, of: u8) -> Trees {
    let remote = RemoteEntry {
        parent: EntryId::ROOT,
        name: name.to_owned(),
        exact_name: None,
        rev: "2".to_owned(),
        sequence: 2,
        content: content(of),
    };
    let synced = [(ENTRY, row("file", "1", 1, stat(NodeKind::File, 10, 7)))];
    Trees::new(Remote::load([(ENTRY, remote)], 2), Synced::load(synced), stat(NodeKind::Folder, 1, 1))
}

#[test]
fn a_file_put_in_place_before_the_crash_is_agreed_on_and_an_edit_of_it_starts_from_its_revision() {
    let mut trees = trees("file", 2);
    // The temporary file had inode 20; the rename moved its change time.
    trees.observe(LocalId::ROOT, "file", Some(stat(NodeKind::File, 20, 9)));
    outcome::was_written(&mut trees, ENTRY, row("file", "2", 2, stat(NodeKind::File, 20, 8)));
    assert_eq!(trees.plan(), []);
    let edited = Stat { size: 99, ..stat(NodeKind::File, 20, 11) };
    let (local, _) = trees.observe(LocalId::ROOT, "file", Some(edited)).unwrap();
    assert_eq!(trees.plan(), [Operation::Upload { local, entry: Some(ENTRY), base: Some("2".to_owned()) }]);
}

#[test]
fn a_file_that_was_not_put_in_place_is_fetched_again() {
    let mut trees = trees("file", 2);
    trees.observe(LocalId::ROOT, "file", Some(stat(NodeKind::File, 10, 7)));
    outcome::was_written(&mut trees, ENTRY, row("file", "2", 2, stat(NodeKind::File, 20, 8)));
    assert_eq!(trees.plan(), [Operation::Download { entry: ENTRY }]);
}

#[test]
fn a_move_carried_out_before_the_crash_is_not_taken_for_a_persons() {
    // Meanwhile the server has it elsewhere.
    let mut trees = trees("elsewhere", 1);
    trees.observe(LocalId::ROOT, "moved", Some(stat(NodeKind::File, 10, 7)));
    trees.resolve();
    outcome::was_moved(&mut trees, ENTRY, EntryId::ROOT, "moved");
    let plan = trees.plan();
    assert!(matches!(plan.as_slice(), [Operation::MoveLocal { entry: ENTRY, .. }]), "{plan:?}");
}
