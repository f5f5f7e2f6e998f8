//! Both sides changed.

use super::cell::Cell;
use super::client::{Client, assert_same, settle_all};

fn contents(client: &Client) -> Vec<String> {
    let read = |path: std::path::PathBuf| client.read(path.to_str().unwrap());
    let mut found: Vec<String> = client.picture().into_keys().filter_map(read).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_edit_ends_as_a_conflict_copy_on_both_sides() {
    let cell = Cell::new();
    let (one, mut other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    one.write("file", "base");
    settle_all(&[&one, &other]).await;
    other.stop().await;
    one.write("file", "from one");
    one.settle().await;
    other.write("file", "from the other");
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(contents(&one), ["from one", "from the other"]);
    assert_eq!(one.read("file").as_deref(), Some("from one"));
    assert_eq!(other.ask("status").await.conflicts, 1);
    assert_eq!(one.ask("status").await.conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_beats_a_delete_whichever_comes_first() {
    let cell = Cell::new();
    let (one, mut other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    one.write("folder/kept by edit", "base");
    one.write("folder/kept too", "base");
    settle_all(&[&one, &other]).await;
    other.stop().await;
    std::fs::remove_dir_all(one.folder().join("folder")).unwrap();
    one.settle().await;
    other.write("folder/kept by edit", "edited");
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(contents(&one), ["edited"]);
    other.stop().await;
    one.write("folder/kept by edit", "edited again");
    one.settle().await;
    std::fs::remove_dir_all(other.folder().join("folder")).unwrap();
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(contents(&one), ["edited again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_tree_on_two_new_devices_merges_without_copies_or_blocks() {
    let cell = Cell::new();
    let one = Client::start(&cell, 1).await;
    let mut other = Client::stopped(&cell, 2);
    for client in [&one, &other] {
        client.write("a/b/file", "same");
        client.write("other", "same too");
        client.write("differs", format!("{:?}", client.folder()));
    }
    one.settle().await;
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_eq!(one.picture().len(), 6);
    let names = |client: &Client| client.picture().into_keys().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    assert_eq!(contents(&one), contents(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_against_a_folder_becomes_the_copy() {
    let cell = Cell::new();
    let (one, mut other) = (Client::start(&cell, 1).await, Client::start(&cell, 2).await);
    settle_all(&[&one, &other]).await;
    other.stop().await;
    one.write("name", "a file");
    one.settle().await;
    other.write("name/inside", "in a folder");
    other.resume().await;
    settle_all(&[&one, &other]).await;
    assert_same(&one, &other);
    assert_eq!(contents(&one), ["a file", "in a folder"]);
    assert_eq!(one.read("name/inside").as_deref(), Some("in a folder"));
}
