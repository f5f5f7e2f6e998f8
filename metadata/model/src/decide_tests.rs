//! The rows of the table in `docs/protocols.md`, "Commit", and the rules around it.

use holdfast_libs_types::DeviceId;

use crate::memory::{Told, Tree, file};
use crate::{Answer, Content, EntryId, Location, NameError, Refusal, Rev, Timestamp, Wish};

const A: DeviceId = DeviceId(1);
const B: DeviceId = DeviceId(2);
const ROOT: EntryId = EntryId::ROOT;

#[derive(Default)]
struct Bench {
    tree: Tree,
    op: u64,
}

impl Bench {
    fn wish(&mut self, device: DeviceId, wish: Wish) -> Result<Told, Refusal> {
        self.op += 1;
        self.tree.commit(device, self.op, wish)
    }

    fn put(&mut self, device: DeviceId, parent: EntryId, name: &str, content: Content) -> Told {
        let at = Location::Name { parent, name: name.to_owned() };
        self.wish(device, Wish::Put { at, base: None, content }).unwrap()
    }

    fn edit(&mut self, device: DeviceId, entry: EntryId, base: Rev, content: Content) -> Told {
        self.wish(device, Wish::Put { at: Location::Entry(entry), base: Some(base), content }).unwrap()
    }

    fn folder(&mut self, device: DeviceId, parent: EntryId, name: &str) -> Told {
        self.wish(device, Wish::MakeFolder { parent, name: name.to_owned() }).unwrap()
    }

    fn rename(&mut self, device: DeviceId, entry: EntryId, parent: EntryId, name: &str) -> Result<Told, Refusal> {
        self.wish(device, Wish::Move { entry, parent, name: name.to_owned() })
    }

    fn delete(&mut self, device: DeviceId, entry: EntryId, known_sequence: u64) -> Told {
        self.wish(device, Wish::Delete { entry, known_sequence }).unwrap()
    }
}

#[test]
fn an_edit_that_knew_the_current_version_is_applied() {
    let mut bench = Bench::default();
    let first = bench.put(A, ROOT, "a", file(1));
    let second = bench.edit(B, first.entry.id, first.entry.revision.rev, file(2));
    assert_eq!((second.answer, second.entry.id), (Answer::Applied, first.entry.id));
    assert_eq!(bench.tree.entries.len(), 1);
}

#[test]
fn an_edit_from_a_revision_that_the_device_itself_replaced_is_concurrent() {
    let mut bench = Bench::default();
    let first = bench.put(A, ROOT, "a", file(1)).entry;
    bench.edit(A, first.id, first.revision.rev, file(2));
    // The device's state was restored from before its edit.
    assert!(matches!(bench.edit(A, first.id, first.revision.rev, file(3)).answer, Answer::ConflictCopy(_)));
    assert!(matches!(bench.put(A, ROOT, "a", file(4)).answer, Answer::ConflictCopy(_)));
}

#[test]
fn concurrent_edits_with_equal_content_merge_and_both_sides_may_go_on() {
    let mut bench = Bench::default();
    let base = bench.put(A, ROOT, "a", file(1)).entry;
    let left = bench.edit(A, base.id, base.revision.rev, file(2)).entry;
    let mut same = file(2);
    same.executable = true;
    same.mtime = Some(Timestamp { secs: 9, nanos: 0 });
    let right = bench.edit(B, base.id, base.revision.rev, same);
    assert_eq!(right.answer, Answer::Merged);
    assert!(right.entry.revision.content.executable, "the executable bit that was changed wins");
    assert_eq!(right.entry.revision.content.mtime, Some(Timestamp { secs: 9, nanos: 0 }));
    assert!(right.entry.revision.vector.covers(&left.revision.vector));
    // Another device that made the same edit and left the bit alone does not clear it.
    let third = bench.edit(DeviceId(3), base.id, base.revision.rev, file(2));
    assert!(third.answer == Answer::Merged && third.entry.revision.content.executable);
    assert_eq!(bench.edit(A, base.id, third.entry.revision.rev, file(3)).answer, Answer::Applied);
}

#[test]
fn concurrent_edits_with_other_content_make_a_copy_in_the_devices_name() {
    let mut bench = Bench::default();
    let base = bench.put(A, ROOT, "a.txt", file(1)).entry;
    bench.edit(A, base.id, base.revision.rev, file(2));
    for (content, name) in [
        (3, "a (conflicted copy from user2 on 2026-03-01).txt"),
        (4, "a (conflicted copy from user2 on 2026-03-01) (2).txt"),
    ] {
        let told = bench.edit(B, base.id, base.revision.rev, file(content));
        assert_eq!(told.answer, Answer::ConflictCopy(base.id));
        assert_eq!((told.entry.name.as_str(), &told.entry.revision.content), (name, &file(content)));
    }
    assert_eq!(bench.tree.entries[&base.id].revision.content, file(2));
}

#[test]
fn a_name_that_the_device_did_not_know_of_merges_or_makes_a_copy() {
    let mut bench = Bench::default();
    bench.put(A, ROOT, "a", file(1));
    assert_eq!(bench.put(B, ROOT, "a", file(1)).answer, Answer::Merged);
    assert!(matches!(bench.put(B, ROOT, "a", file(2)).answer, Answer::ConflictCopy(_)));
}

#[test]
fn an_edit_of_a_deleted_entry_revives_it_with_the_folders_above() {
    let mut bench = Bench::default();
    let outer = bench.folder(A, ROOT, "outer").entry.id;
    let inner = bench.folder(A, outer, "inner").entry.id;
    let base = bench.put(A, inner, "a", file(1)).entry;
    bench.delete(B, outer, bench.tree.sequence);
    assert!(bench.tree.entries.values().all(|entry| entry.deleted));
    let told = bench.edit(A, base.id, base.revision.rev, file(2));
    assert_eq!((told.answer, told.entry.id), (Answer::Applied, base.id));
    assert!(bench.tree.entries.values().all(|entry| !entry.deleted));
    let new = bench.put(A, inner, "new", file(3));
    assert_eq!(new.answer, Answer::Applied);
}

#[test]
fn a_name_that_was_deleted_goes_on_with_its_history() {
    let mut bench = Bench::default();
    let past = bench.put(A, ROOT, "a", file(1)).entry;
    bench.delete(A, past.id, bench.tree.sequence);
    assert_eq!(bench.put(B, ROOT, "a", file(2)).entry.id, past.id);
    bench.delete(B, past.id, bench.tree.sequence);
    let folder = bench.folder(B, ROOT, "a").entry;
    assert_ne!(folder.id, past.id, "a file never becomes a folder");
}

#[test]
fn file_against_folder_the_file_becomes_the_copy() {
    let mut bench = Bench::default();
    let folder = bench.folder(A, ROOT, "x").entry.id;
    let told = bench.put(B, ROOT, "x", file(1));
    assert_eq!(told.answer, Answer::ConflictCopy(folder));
    let file_there = bench.put(A, ROOT, "y", file(2)).entry.id;
    let told = bench.folder(B, ROOT, "y");
    assert_eq!(told.answer, Answer::Applied);
    assert_eq!(bench.tree.live(ROOT, "y").unwrap().id, told.entry.id);
    assert_eq!(bench.tree.entries[&file_there].name, "y (conflicted copy from user2 on 2026-03-01)");
}

#[test]
fn case_twins_both_stand_and_the_exact_name_decides_which_is_meant() {
    let mut bench = Bench::default();
    let small = bench.put(A, ROOT, "a.jpg", file(1)).entry;
    let big = bench.put(A, ROOT, "A.JPG", file(2)).entry;
    assert_eq!((big.name.as_str(), big.exact_name()), ("A (case conflict).JPG", "A.JPG"));
    assert_eq!(bench.put(B, ROOT, "A.JPG", file(2)).entry.id, big.id);
    assert_eq!(bench.put(B, ROOT, "a.jpg", file(1)).entry.id, small.id);
    let folder = bench.folder(A, ROOT, "Docs").entry.id;
    let twin = bench.folder(A, ROOT, "docs").entry;
    assert_ne!(twin.id, folder);
    assert_eq!(twin.exact_name(), "docs");
    // The twin is free to take its own name once the other is gone.
    bench.delete(A, small.id, bench.tree.sequence);
    let moved = bench.rename(A, big.id, ROOT, "a.jpg").unwrap().entry;
    assert_eq!((moved.name.as_str(), moved.exact_name), ("a.jpg", None));
}

#[test]
fn the_later_of_two_moves_wins_and_a_taken_name_gets_a_copys_name() {
    let mut bench = Bench::default();
    let entry = bench.put(A, ROOT, "a", file(1)).entry.id;
    let folder = bench.folder(A, ROOT, "f").entry.id;
    bench.rename(A, entry, folder, "a").unwrap();
    assert_eq!(bench.rename(B, entry, ROOT, "b").unwrap().entry.name, "b");
    let other = bench.put(A, ROOT, "c", file(2)).entry.id;
    let moved = bench.rename(B, other, ROOT, "b").unwrap().entry;
    assert_eq!(moved.name, "b (conflicted copy from user2 on 2026-03-01)");
    let twin = bench.rename(B, other, ROOT, "B").unwrap().entry;
    assert_eq!((twin.name.as_str(), twin.exact_name()), ("B (case conflict)", "B"));
    assert_eq!(bench.rename(B, entry, ROOT, "b").unwrap().answer, Answer::Merged);
}

#[test]
fn a_folder_cannot_be_moved_below_itself() {
    let mut bench = Bench::default();
    let outer = bench.folder(A, ROOT, "outer").entry.id;
    let inner = bench.folder(A, outer, "inner").entry.id;
    assert_eq!(bench.rename(A, outer, inner, "x"), Err(Refusal::Cycle));
    assert_eq!(bench.rename(A, outer, outer, "x"), Err(Refusal::Cycle));
}

#[test]
fn what_the_device_did_not_know_of_survives_its_delete() {
    let mut bench = Bench::default();
    let folder = bench.folder(A, ROOT, "f").entry.id;
    let old = bench.put(A, folder, "old", file(1)).entry.id;
    let sub = bench.folder(A, folder, "sub").entry.id;
    let known = bench.tree.sequence;
    let new = bench.put(B, sub, "new", file(2)).entry.id;
    let own = bench.put(A, folder, "own", file(3)).entry.id;
    let told = bench.delete(A, folder, known);
    assert!(!told.entry.deleted);
    let gone = |id: EntryId| bench.tree.entries[&id].deleted;
    assert!(gone(old) && gone(own) && !gone(sub) && !gone(new) && !gone(folder));
}

#[test]
fn a_folder_moved_into_a_deleted_one_unseen_survives_whole() {
    let mut bench = Bench::default();
    let photos = bench.folder(A, ROOT, "photos").entry.id;
    let photo = bench.put(A, photos, "p", file(1)).entry.id;
    let bin = bench.folder(A, ROOT, "bin").entry.id;
    let known = bench.tree.sequence;
    bench.rename(B, photos, bin, "photos").unwrap();
    bench.delete(A, bin, known);
    assert!([photos, photo, bin].iter().all(|id| !bench.tree.entries[id].deleted));
}

#[test]
fn impossible_items_are_refused_with_the_reason() {
    let mut bench = Bench::default();
    let entry = bench.put(A, ROOT, "a", file(1)).entry;
    let other = bench.put(A, ROOT, "b", file(1)).entry;
    let folder = bench.folder(A, ROOT, "f").entry.id;
    let put = |at, base| Wish::Put { at, base, content: file(2) };
    let name = |parent, name: &str| Location::Name { parent, name: name.to_owned() };
    let code = |wish: Wish, bench: &mut Bench| bench.wish(A, wish).unwrap_err().code();
    assert_eq!(code(put(Location::Entry(entry.id), Some(other.revision.rev)), &mut bench), "invalid_item");
    assert_eq!(code(put(Location::Entry(entry.id), Some(Rev(99))), &mut bench), "invalid_item");
    assert_eq!(code(put(Location::Entry(folder), None), &mut bench), "invalid_item");
    assert_eq!(code(put(name(entry.id, "x"), None), &mut bench), "invalid_item");
    assert_eq!(code(put(name(EntryId(99), "x"), None), &mut bench), "not_found");
    assert_eq!(code(put(Location::Entry(EntryId(99)), None), &mut bench), "not_found");
    assert_eq!(code(Wish::Delete { entry: ROOT, known_sequence: 9 }, &mut bench), "invalid_item");
    let long = bench.wish(A, put(name(ROOT, &"x".repeat(300)), None)).unwrap_err();
    assert_eq!(long, Refusal::InvalidName(NameError::TooLong(300)));
    assert_eq!(code(Wish::MakeFolder { parent: ROOT, name: "..".to_owned() }, &mut bench), "invalid_name");
}

#[test]
fn an_edit_follows_its_entry_to_where_it_was_moved() {
    let mut bench = Bench::default();
    let entry = bench.put(A, ROOT, "a", file(1)).entry;
    bench.rename(B, entry.id, ROOT, "b").unwrap();
    let at = Location::Name { parent: ROOT, name: "a".to_owned() };
    let told = bench.wish(A, Wish::Put { at, base: Some(entry.revision.rev), content: file(2) }).unwrap();
    assert_eq!((told.entry.id, told.entry.name.as_str()), (entry.id, "b"));
}
