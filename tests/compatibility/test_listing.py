"""Listings, cursors and the long poll."""

import threading
import time

import pytest
from conftest import client
from dropbox.files import DeletedMetadata, FileMetadata, FolderMetadata


def apply(tree, entries):
    """What the documentation says a client does with a listing."""
    for entry in entries:
        path = entry.path_lower
        if isinstance(entry, DeletedMetadata):
            for below in [known for known in tree if known == path or known.startswith(path + "/")]:
                del tree[below]
        else:
            if isinstance(entry, FileMetadata):
                for below in [known for known in tree if known.startswith(path + "/")]:
                    del tree[below]
            tree[path] = entry


def follow(dbx, tree, result):
    pages = 1
    apply(tree, result.entries)
    while result.has_more:
        result = dbx.files_list_folder_continue(result.cursor)
        apply(tree, result.entries)
        pages += 1
    return result.cursor, pages


def test_a_listing_in_pages_is_complete(dbx, folder):
    names = {f"f{n:03}" for n in range(45)}
    for name in names:
        dbx.files_upload(b"", f"{folder}/{name}")
    dbx.files_upload(b"", folder + "/sub/deep/x")
    tree = {}
    _, pages = follow(dbx, tree, dbx.files_list_folder(folder, limit=10))
    assert set(tree) == {f"{folder}/{name}" for name in names} | {folder + "/sub"}
    assert pages >= 5
    recursive = {}
    _, pages = follow(dbx, recursive, dbx.files_list_folder(folder, recursive=True, limit=10))
    assert set(recursive) == set(tree) | {folder + "/sub/deep", folder + "/sub/deep/x"}
    assert pages >= 5
    root = {}
    follow(dbx, root, dbx.files_list_folder(""))
    assert folder in root and isinstance(root[folder], FolderMetadata)


@pytest.mark.parametrize("recursive", [False, True])
def test_a_folder_that_changes_while_it_is_listed_is_told_right(dbx, folder, recursive):
    for n in range(30):
        dbx.files_upload(b"", f"{folder}/f{n:02}")
        if n % 10 == 0:
            dbx.files_upload(b"", f"{folder}/d{n}/x")
    outside = folder + "-outside"
    dbx.files_upload(b"", outside + "/y/z")
    tree = {}
    result = dbx.files_list_folder(folder, recursive=recursive, limit=7)
    apply(tree, result.entries)
    changes = iter(
        [
            lambda: dbx.files_delete_v2(folder + "/f00"),
            lambda: dbx.files_move_v2(folder + "/f29", folder + "/F00 moved"),
            lambda: dbx.files_upload(b"", folder + "/new"),
            lambda: dbx.files_move_v2(outside, folder + "/d-in"),
            lambda: dbx.files_move_v2(folder + "/d10", folder + "/d-renamed"),
            lambda: dbx.files_move_v2(folder + "/d20", folder + "-out"),
            lambda: dbx.files_move_v2(folder + "/f05", folder + "/F05"),
        ]
    )
    for change in changes:
        change()
        result = dbx.files_list_folder_continue(result.cursor)
        apply(tree, result.entries)
    follow(dbx, tree, result)
    fresh = {}
    follow(dbx, fresh, dbx.files_list_folder(folder, recursive=recursive))
    assert {path: entry.path_display for path, entry in tree.items()} == {
        path: entry.path_display for path, entry in fresh.items()
    }
    assert (folder + "/d-in/y/z" in fresh) == recursive
    dbx.files_delete_v2(folder + "-out")


def test_swapped_names_and_a_file_that_became_a_folder(dbx, folder):
    dbx.files_upload(b"a", folder + "/a")
    dbx.files_upload(b"b", folder + "/b")
    tree = {}
    cursor, _ = follow(dbx, tree, dbx.files_list_folder(folder, recursive=True))
    dbx.files_move_v2(folder + "/a", folder + "/t")
    dbx.files_move_v2(folder + "/b", folder + "/a")
    dbx.files_move_v2(folder + "/t", folder + "/b")
    dbx.files_upload(b"c", folder + "/c")
    dbx.files_delete_v2(folder + "/c")
    dbx.files_upload(b"c", folder + "/c/inside")
    follow(dbx, tree, dbx.files_list_folder_continue(cursor))
    fresh = {}
    follow(dbx, fresh, dbx.files_list_folder(folder, recursive=True))
    assert {path: entry.id for path, entry in tree.items()} == {path: entry.id for path, entry in fresh.items()}


def test_deleted_entries_are_listed_when_asked_for(dbx, folder):
    dbx.files_upload(b"", folder + "/gone")
    dbx.files_upload(b"", folder + "/stays")
    dbx.files_delete_v2(folder + "/gone")
    tree = {}
    follow(dbx, tree, dbx.files_list_folder(folder))
    assert set(tree) == {folder + "/stays"}
    entries = dbx.files_list_folder(folder, include_deleted=True).entries
    kinds = {entry.name: type(entry) for entry in entries}
    assert kinds == {"gone": DeletedMetadata, "stays": FileMetadata}


def test_listing_errors(dbx, folder, refuses, raw):
    refuses("path/not_found", dbx.files_list_folder, folder + "/none")
    dbx.files_upload(b"", folder + "/file")
    refuses("path/not_folder", dbx.files_list_folder, folder + "/file")
    refuses("path/malformed_path", dbx.files_list_folder, folder + "/..")
    refuses("path/not_found", dbx.files_list_folder_get_latest_cursor, folder + "/none")
    refuses("reset", dbx.files_list_folder_continue, "nonsense")
    refuses("reset", dbx.files_list_folder_longpoll, "nonsense")
    cursor = dbx.files_list_folder(folder).cursor
    altered = cursor[:40] + ("A" if cursor[40] != "A" else "B") + cursor[41:]
    refuses("reset", dbx.files_list_folder_continue, altered)
    dbx.files_delete_v2(folder)
    refuses("path/not_found", dbx.files_list_folder_continue, cursor)


def test_the_latest_cursor_tells_only_what_comes_after(dbx, folder):
    dbx.files_upload(b"", folder + "/before")
    cursor = dbx.files_list_folder_get_latest_cursor(folder).cursor
    assert dbx.files_list_folder_continue(cursor).entries == []
    dbx.files_upload(b"", folder + "/after")
    entries = dbx.files_list_folder_continue(cursor).entries
    assert [entry.name for entry in entries] == ["after"]


def test_the_long_poll_is_woken_by_a_change_and_needs_no_token(dbx, folder, raw):
    cursor = dbx.files_list_folder(folder).cursor
    outside = folder + "-elsewhere"
    woken = []

    def wait():
        with client() as waiting:
            result = waiting.files_list_folder_longpoll(cursor, timeout=30)
            woken.append((result.changes, time.monotonic()))

    thread = threading.Thread(target=wait)
    thread.start()
    # A change elsewhere is none of this listing's.
    dbx.files_upload(b"", outside)
    time.sleep(0.3)
    assert woken == []
    dbx.files_upload(b"", folder + "/x")
    changed = time.monotonic()
    thread.join(10)
    assert woken and woken[0][0] is True
    assert woken[0][1] - changed < 2
    # What has changed already is told at once, and without any token.
    answer = raw("files/list_folder/longpoll", token=None, json={"cursor": cursor, "timeout": 30})
    assert (answer.status_code, answer.json()) == (200, {"changes": True})
    dbx.files_delete_v2(outside)
