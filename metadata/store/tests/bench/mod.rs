//! A store in a temporary folder, with one account.

#![allow(dead_code, reason = "each test binary uses another part of this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_libs_types::BlockHash;
use holdfast_metadata_model::{BlockRef, Content, EntryId, Timestamp};
use holdfast_metadata_store::{
    Actor, BatchItem, BatchParent, BatchWish, Commit, ItemAnswer, ItemOutcome, KnownBlock, NewUser, PathRef, Store,
};

pub struct Bench {
    pub directory: tempfile::TempDir,
    pub store: Store,
    pub told: Arc<AtomicU64>,
}

impl Bench {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let told = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&told);
        let on_commit = Box::new(move |_, sequence| counter.store(sequence, Ordering::SeqCst));
        let store = Store::open(directory.path(), on_commit).unwrap();
        Self { directory, store, told }
    }

    pub async fn user(&self, user: &str, quota_bytes: u64) {
        let new = NewUser { user: user.to_owned(), password: "secret".to_owned(), quota_bytes };
        self.store.create_user(new).await.unwrap();
    }

    pub async fn device(&self, user: &str) -> Actor {
        self.store.login(user, "secret", "test").await.unwrap().unwrap().actor
    }
}

pub fn known(content: u64) -> KnownBlock {
    KnownBlock { hash: BlockHash::of(&content.to_be_bytes()), length: 8 }
}

pub fn file(content: u64) -> Content {
    let known = known(content);
    let block = BlockRef { hash: known.hash, length: known.length };
    Content::file(8, vec![block], Timestamp::default(), false).unwrap()
}

pub fn put(op: u64, parent: EntryId, name: &str, content: u64) -> BatchItem {
    let parent = BatchParent::Entry(parent);
    BatchItem { op, wish: BatchWish::PutNamed { parent, name: name.to_owned(), base: None, content: file(content) } }
}

pub fn commit(items: Vec<BatchItem>, proven: Vec<KnownBlock>) -> Commit {
    Commit { items, proven, acknowledged_op: 0, render }
}

/// The outcome's word and the entry's id.
fn render(answer: &ItemAnswer<'_>) -> String {
    match answer.outcome {
        ItemOutcome::Applied(entry) => format!("applied {}", entry.id.0),
        ItemOutcome::Merged(entry) => format!("merged {}", entry.id.0),
        ItemOutcome::ConflictCopy { stands, copy } => format!("copy {} {}", stands.id.0, copy.id.0),
        ItemOutcome::Refused(refusal) => format!("refused {}", refusal.code()),
        ItemOutcome::NeedBlocks(missing) => format!("need {}", missing.len()),
        ItemOutcome::NoSpace { .. } => "full".to_owned(),
    }
}

pub fn path(path: &str) -> PathRef {
    PathRef::Under(EntryId::ROOT, path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
