//! How much SQLite does for a change, in steps of its virtual machine. They are as many on a slow machine as on a fast one, and a
//! search without an index takes some for each row.

#[path = "../tests/bench/mod.rs"]
mod bench;

use std::cell::Cell;
use std::ffi::c_int;

use holdfast_metadata_model::EntryId;
use rusqlite::Connection;

use self::bench::{Bench, commit, known, path, put};
use crate::{Actor, BatchItem, BatchParent, BatchWish, Store, StoreError};

/// Steps are counted by so many.
const EVERY: u8 = 10;

/// Files of a batch, and batches.
const FILES: u64 = 1000;
const BATCHES: u64 = 8;

thread_local! {
    /// Taken by statements of this thread.
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the steps of this connection, for the thread that takes them.
pub(crate) fn count(connection: &mut Connection) -> Result<(), StoreError> {
    let go_on = || {
        STEPS.set(STEPS.get() + u64::from(EVERY));
        false
    };
    Ok(connection.progress_handler(c_int::from(EVERY), Some(go_on))?)
}

/// Those that writes have taken so far.
async fn taken(store: &Store) -> u64 {
    store.write(|_| Ok(STEPS.get())).await.unwrap()
}

async fn folder(bench: &Bench, actor: &Actor, name: &str) -> EntryId {
    let wish = BatchWish::MakeFolder { parent: BatchParent::Entry(EntryId::ROOT), name: name.to_owned() };
    let made = bench.store.commit(actor.clone(), commit(vec![BatchItem { op: 1_000_000, wish }], Vec::new()));
    let answer = made.await.unwrap().answers.remove(0);
    EntryId(answer.strip_prefix("applied ").unwrap().parse().unwrap())
}

/// Commits the next files into a folder; answers the steps that takes.
async fn add(bench: &Bench, actor: &Actor, parent: EntryId, batch: u64) -> u64 {
    let files = || batch * FILES + 1..(batch + 1) * FILES + 1;
    let items = files().map(|number| put(number, parent, &format!("file {number}.txt"), number)).collect();
    let mut commit = commit(items, files().map(known).collect());
    commit.acknowledged_op = batch * FILES;
    let before = taken(&bench.store).await;
    let done = bench.store.commit(actor.clone(), commit).await.unwrap();
    assert!(done.answers.iter().all(|answer| answer.starts_with("applied")));
    taken(&bench.store).await - before
}

#[tokio::test]
async fn new_files_take_no_more_steps_among_many_and_a_move_takes_few_whatever_is_below() {
    let bench = Bench::start();
    bench.user("ada", 1 << 40).await;
    let actor = bench.device("ada").await;
    let parent = folder(&bench, &actor, "d").await;
    let mut steps = Vec::new();
    for batch in 0..BATCHES {
        steps.push(add(&bench, &actor, parent, batch).await);
    }
    let (among_few, among_many) = (steps[1], steps[steps.len() - 1]);
    assert!(among_few >= FILES, "they are counted: {steps:?}");
    assert!(among_many < among_few * 3 / 2, "{steps:?}");
    let before = taken(&bench.store).await;
    bench.store.relocate(actor.clone(), path("/d"), path("/moved"), false, false).await.unwrap().unwrap();
    let moved = taken(&bench.store).await - before;
    assert!(moved < FILES, "{moved} steps move a folder of {} files", BATCHES * FILES);
}
