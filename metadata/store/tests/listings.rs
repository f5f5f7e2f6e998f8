//! Listings that are followed while the namespace changes come to the same end as a listing made afterwards.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;

use std::collections::BTreeMap;

use bench::{Bench, commit, file, known, path, put};
use holdfast_metadata_model::{Cursor, EntryId, Scope, UploadMode, UploadOptions};
use holdfast_metadata_store::{Actor, FolderPage, ListedItem, PageRequest, Store, Upload};
use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};
use proptest::test_runner::{Config, TestCaseError};

#[derive(Debug, Clone)]
enum Step {
    Upload(String),
    Delete(String),
    Move(String, String),
    Copy(String, String),
    /// The follower of this number reads a page.
    Page(usize),
    /// It reads all there is.
    CatchUp(usize),
}

/// Few names, so that things collide; `A` and `a` are one.
fn any_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("A"), Just("b"), Just("c")];
    prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_path().prop_map(Step::Upload),
        2 => any_path().prop_map(Step::Delete),
        4 => (any_path(), any_path()).prop_map(|(from, to)| Step::Move(from, to)),
        1 => (any_path(), any_path()).prop_map(|(from, to)| Step::Copy(from, to)),
        4 => (0..4_usize).prop_map(Step::Page),
        2 => (0..4_usize).prop_map(Step::CatchUp),
    ]
}

/// What a client knows: by lower path, the shown path, the entry and its revision.
type Tree = BTreeMap<String, (String, EntryId, u64)>;

struct Follower {
    scope: Scope,
    cursor: Option<Cursor>,
    tree: Tree,
    done: bool,
}

impl Follower {
    fn new(folder: EntryId, recursive: bool, include_deleted: bool, limit: u32) -> Self {
        let scope = Scope::Folder { folder, recursive, include_deleted, limit };
        Self { scope, cursor: None, tree: Tree::new(), done: false }
    }

    /// Reads one page as the documentation of API v2 says a client does; answers whether there is more.
    async fn page(&mut self, store: &Store, actor: &Actor) -> bool {
        let request = match &self.cursor {
            None => PageRequest::Start(actor.namespace, self.scope),
            Some(cursor) => PageRequest::Continue(cursor.clone()),
        };
        match store.list_folder(actor.clone(), request).await.unwrap() {
            FolderPage::Reset | FolderPage::NotFound => {
                let root = matches!(self.scope, Scope::Folder { folder: EntryId::ROOT, .. });
                assert!(!root, "the root is always there and never moves");
                self.done = true;
                false
            }
            FolderPage::Page(page) => {
                for item in &page.items {
                    self.apply(item);
                }
                self.cursor = Some(page.cursor);
                page.has_more
            }
        }
    }

    fn apply(&mut self, item: &ListedItem) {
        match item {
            ListedItem::Gone { path, .. } => {
                let gone = path.to_lowercase();
                self.tree.retain(|known, _| *known != gone && !known.starts_with(&format!("{gone}/")));
            }
            ListedItem::There(entry) => {
                let here = entry.path.to_lowercase();
                if !entry.state.is_folder() {
                    self.tree.retain(|known, _| !known.starts_with(&format!("{here}/")));
                }
                let value = (entry.path.clone(), entry.state.id, entry.state.revision.rev.0);
                self.tree.insert(here, value);
            }
        }
    }
}

async fn upload(store: &Store, actor: &Actor, to: &str, content: u64) {
    let options =
        UploadOptions { mode: UploadMode::Overwrite, autorename: false, strict_conflict: false, explicit_mtime: false };
    let upload =
        Upload { path: path(to), content: file(content), options, proven: vec![known(content)], session: None };
    // A conflict is fine here: then nothing changes.
    let _ = store.upload(actor.clone(), upload).await.unwrap();
}

async fn check(steps: &[Step], limit: u32) -> Result<(), TestCaseError> {
    let bench = Bench::start();
    bench.user("ada", 1 << 30).await;
    let actor = bench.device("ada").await;
    let store = &bench.store;
    let folder = store.create_folder(actor.clone(), path("/a"), false).await.unwrap().unwrap().state.id;
    let mut followers = [
        Follower::new(EntryId::ROOT, true, false, limit),
        Follower::new(EntryId::ROOT, false, false, limit),
        Follower::new(folder, true, true, limit),
        Follower::new(folder, false, false, limit),
    ];
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Upload(to) => upload(store, &actor, to, number as u64).await,
            Step::Delete(at) => drop(store.delete(actor.clone(), path(at), None).await.unwrap()),
            Step::Move(from, to) => {
                drop(store.relocate(actor.clone(), path(from), path(to), false, false).await.unwrap());
            }
            Step::Copy(from, to) => {
                drop(store.relocate(actor.clone(), path(from), path(to), false, true).await.unwrap());
            }
            Step::Page(follower) if !followers[*follower].done => {
                followers[*follower].page(store, &actor).await;
            }
            Step::CatchUp(follower) => {
                while !followers[*follower].done && followers[*follower].page(store, &actor).await {}
            }
            Step::Page(_) => {}
        }
    }
    for follower in &mut followers {
        while !follower.done && follower.page(store, &actor).await {}
        if follower.done {
            continue;
        }
        let mut fresh = Follower::new(EntryId::ROOT, false, false, 2000);
        if let Scope::Folder { folder, recursive, .. } = follower.scope {
            fresh = Follower::new(folder, recursive, false, 2000);
        }
        while fresh.page(store, &actor).await {}
        if follower.tree != fresh.tree {
            return Err(TestCaseError::fail(format!(
                "{:?}\nfollowed {:#?}\nfresh {:#?}",
                follower.scope, follower.tree, fresh.tree
            )));
        }
    }
    bytes_add_up(&bench, &actor).await;
    Ok(())
}

/// The bytes that are counted along the way are those of the live files.
async fn bytes_add_up(bench: &Bench, actor: &Actor) {
    let page = bench.store.changes(actor.clone(), PageRequest::Start(actor.namespace, Scope::Namespace), 100_000);
    let live: u64 = page.await.unwrap().unwrap().items.iter().map(|entry| entry.revision.content.size).sum();
    assert_eq!(bench.store.usage(actor.clone()).await.unwrap().used, live);
}

proptest! {
    #![proptest_config(Config { cases: 60, max_shrink_iters: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn following_a_listing_ends_where_a_fresh_one_begins(
        steps in prop::collection::vec(step(), 1..40),
        limit in 1_u32..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(&steps, limit))?;
    }
}

#[tokio::test]
async fn a_v1_cursor_tells_each_entry_once_at_its_newest() {
    let bench = Bench::start();
    bench.user("ada", 1 << 30).await;
    let actor = bench.device("ada").await;
    let items = (1..=3).map(|n| put(n, EntryId::ROOT, &format!("f{n}"), n)).collect();
    bench.store.commit(actor.clone(), commit(items, (1..=3).map(known).collect())).await.unwrap();
    let start = PageRequest::Start(actor.namespace, Scope::Namespace);
    let page = bench.store.changes(actor.clone(), start, 10).await.unwrap().unwrap();
    for to in ["/x", "/y", "/z"] {
        bench.store.relocate(actor.clone(), path("/f1"), path(to), false, false).await.unwrap().ok();
        bench.store.relocate(actor.clone(), path(to), path("/f1"), false, false).await.unwrap().ok();
    }
    let next = bench.store.changes(actor, PageRequest::Continue(page.cursor), 10).await.unwrap().unwrap();
    assert_eq!(next.items.len(), 1);
    assert_eq!((next.items[0].name.as_str(), next.cursor.sequence, next.has_more), ("f1", 9, false));
}

#[tokio::test]
async fn a_folder_that_was_moved_away_takes_all_below_it_along_even_if_its_name_is_taken_again() {
    let (a, b) = ("/a".to_owned(), "/b".to_owned());
    let steps = [Step::Upload("/a/a/a".to_owned()), Step::Page(0), Step::Move(a, b), Step::Upload("/a/b".to_owned())];
    check(&steps, 2).await.unwrap();
}
