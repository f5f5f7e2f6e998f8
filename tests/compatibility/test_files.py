"""Uploads, downloads, metadata, revisions."""

import datetime
import hashlib
import json
import os
import re

import dropbox
import pytest
from dropbox.files import DeletedMetadata, FileMetadata, FolderMetadata, WriteMode

MIB = 1024 * 1024


def content_hash(data):
    blocks = (data[at : at + 4 * MIB] for at in range(0, len(data), 4 * MIB))
    return hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).hexdigest()


def test_a_file_comes_back_with_its_metadata(dbx, folder):
    modified = datetime.datetime(1969, 7, 20, 20, 17, 40)
    meta = dbx.files_upload(b"hello", folder + "/A File.TXT", client_modified=modified)
    assert isinstance(meta, FileMetadata)
    assert (meta.name, meta.size) == ("A File.TXT", 5)
    assert (meta.path_display, meta.path_lower) == (folder + "/A File.TXT", folder + "/a file.txt")
    assert meta.client_modified == modified
    assert abs(meta.server_modified - datetime.datetime.utcnow()) < datetime.timedelta(minutes=1)
    assert re.fullmatch("[0-9a-f]{9,}", meta.rev) and re.fullmatch("id:.+", meta.id)
    assert meta.content_hash == content_hash(b"hello")
    assert meta.is_downloadable
    for path in (folder + "/a file.txt", meta.id, "rev:" + meta.rev):
        assert dbx.files_get_metadata(path).id == meta.id
    got, response = dbx.files_download(folder + "/a FILE.txt")
    assert (got.rev, response.content) == (meta.rev, b"hello")


@pytest.mark.parametrize("size", [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 13 * MIB + 5])
def test_sizes_around_a_block_come_back(dbx, folder, size):
    data = os.urandom(size)
    meta = dbx.files_upload(data, folder + "/a", content_hash=content_hash(data))
    assert (meta.size, meta.content_hash) == (size, content_hash(data))
    assert dbx.files_download(folder + "/a")[1].content == data


def test_ranges(raw, dbx, folder):
    data = os.urandom(9 * MIB)
    meta = dbx.files_upload(data, folder + "/a")
    arg = {"Dropbox-API-Arg": json.dumps({"path": folder + "/a"})}
    for text, start, end in [
        ("bytes=0-9", 0, 10),
        ("bytes=4194300-4194310", 4194300, 4194311),
        ("bytes=4194304-8388607", 4 * MIB, 8 * MIB),
        ("bytes=-7", 9 * MIB - 7, 9 * MIB),
        ("bytes=9437180-", 9437180, 9 * MIB),
        ("bytes=100-99999999", 100, 9 * MIB),
    ]:
        answer = raw("files/download", headers={**arg, "Range": text})
        assert answer.status_code == 206, text
        assert answer.content == data[start:end], text
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{9 * MIB}"
        assert json.loads(answer.headers["dropbox-api-result"])["rev"] == meta.rev
    answer = raw("files/download", headers={**arg, "Range": "bytes=9437184-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{9 * MIB}")
    # GET, with the argument as a parameter.
    answer = raw("files/download", method="GET", params={"arg": arg["Dropbox-API-Arg"]})
    assert (answer.status_code, answer.content) == (200, data)


def test_names_beyond_ascii_travel_in_headers(dbx, folder):
    for name in ("naïve", "日本語 \U0001f600", 'quote" back\\slash', "new\nline", "tab\tdel\x7f"):
        meta = dbx.files_upload(name.encode(), f"{folder}/{name}")
        assert meta.name == name
        got, response = dbx.files_download(f"{folder}/{name}")
        assert (got.name, response.content) == (name, name.encode())


def test_write_modes(dbx, folder, refuses):
    path = folder + "/a.txt"
    first = dbx.files_upload(b"1", path)
    # Equal content is no conflict, unless it must be.
    assert dbx.files_upload(b"1", path).rev == first.rev
    refuses("path/conflict/file", dbx.files_upload, b"1", path, strict_conflict=True)
    refuses("path/conflict/file", dbx.files_upload, b"2", path)
    assert dbx.files_upload(b"2", path, autorename=True).name == "a (2).txt"
    assert dbx.files_upload(b"3", path, autorename=True).name == "a (3).txt"
    second = dbx.files_upload(b"2", path, mode=WriteMode.overwrite)
    assert second.id == first.id and second.rev != first.rev
    third = dbx.files_upload(b"3", path, mode=WriteMode.update(second.rev))
    assert third.id == first.id
    # The same token, an older revision: still a conflict.
    refuses("path/conflict/file", dbx.files_upload, b"4", path, mode=WriteMode.update(second.rev))
    refuses("path/conflict/file", dbx.files_upload, b"4", path, mode=WriteMode.update("fffffffff"))
    copy = dbx.files_upload(b"4", path, mode=WriteMode.update(first.rev), autorename=True)
    assert copy.name.startswith("a (conflicted copy from ") and copy.name.endswith(").txt")
    assert dbx.files_download(path)[1].content == b"3"
    # Equal content merges even then.
    assert dbx.files_upload(b"3", path, mode=WriteMode.update(first.rev)).rev == third.rev
    dbx.files_create_folder_v2(folder + "/dir")
    refuses("path/conflict/folder", dbx.files_upload, b"1", folder + "/dir", mode=WriteMode.overwrite)
    assert dbx.files_upload(b"1", folder + "/dir", mode=WriteMode.overwrite, autorename=True).name == "dir (2)"
    refuses("path/conflict/file_ancestor", dbx.files_upload, b"1", path + "/below")
    # Folders above are made.
    assert dbx.files_upload(b"1", folder + "/x/Y/z").path_display == folder + "/x/Y/z"
    assert isinstance(dbx.files_get_metadata(folder + "/X/y"), FolderMetadata)


def test_a_content_hash_that_is_not_the_bodys_is_refused(dbx, folder, refuses):
    refuses("content_hash_mismatch", dbx.files_upload, b"1", folder + "/a", content_hash=content_hash(b"2"))
    refuses("path/not_found", dbx.files_get_metadata, folder + "/a")


def test_impossible_paths(dbx, folder, refuses):
    for name in ("..", ".", "x" * 300, "../x", "a//b", "a/"):
        refuses("path/malformed_path", dbx.files_upload, b"1", f"{folder}/{name}")
        refuses("path/malformed_path", dbx.files_create_folder_v2, f"{folder}/{name}")
        refuses("path/malformed_path", dbx.files_get_metadata, f"{folder}/{name}")
    assert dbx.files_upload(b"1", f"{folder}/{'x' * 255}").size == 1


def test_a_body_over_150_mib_is_refused(raw, folder):
    arg = {"Dropbox-API-Arg": json.dumps({"path": folder + "/big"}), "Content-Type": "application/octet-stream"}
    pieces = (b"\0" * MIB for _ in range(151))
    answer = raw("files/upload", headers=arg, data=pieces)
    assert (answer.status_code, answer.json()["error_summary"]) == (409, "payload_too_large/..")


def test_metadata_errors(dbx, folder, refuses):
    refuses("path/not_found", dbx.files_get_metadata, folder + "/none")
    refuses("path/not_found", dbx.files_get_metadata, "id:none")
    refuses("path/not_found", dbx.files_get_metadata, "rev:ffffffffffff")
    refuses("path/not_found", dbx.files_download, folder + "/none")
    refuses("path/not_file", dbx.files_download, folder)
    meta = dbx.files_upload(b"1", folder + "/a")
    dbx.files_delete_v2(folder + "/a")
    refuses("path/not_found", dbx.files_get_metadata, folder + "/a")
    gone = dbx.files_get_metadata(folder + "/a", include_deleted=True)
    assert isinstance(gone, DeletedMetadata) and gone.path_display == folder + "/a"
    # A past revision can still be read.
    assert dbx.files_download("rev:" + meta.rev)[1].content == b"1"


def test_revisions_and_restore(dbx, folder, refuses):
    path = folder + "/a"
    revs = []
    for content in (b"1", b"2", b"3"):
        revs.insert(0, dbx.files_upload(content, path, mode=WriteMode.overwrite).rev)
    listed = dbx.files_list_revisions(path)
    assert ([entry.rev for entry in listed.entries], listed.is_deleted) == (revs, False)
    page = dbx.files_list_revisions(path, limit=2)
    assert ([entry.rev for entry in page.entries], page.has_more) == (revs[:2], True)
    page = dbx.files_list_revisions(path, limit=2, before_rev=page.entries[-1].rev)
    assert [entry.rev for entry in page.entries] == revs[2:]
    by_id = dbx.files_list_revisions(listed.entries[0].id, mode=dropbox.files.ListRevisionsMode.id)
    assert len(by_id.entries) == 3
    restored = dbx.files_restore(path, revs[2])
    assert restored.rev not in revs
    assert dbx.files_download(path)[1].content == b"1"
    dbx.files_delete_v2(path)
    listed = dbx.files_list_revisions(path)
    assert listed.is_deleted and listed.server_deleted and len(listed.entries) == 4
    # From the dead, with the folder above it.
    dbx.files_delete_v2(folder)
    assert dbx.files_restore(path, revs[1]).path_display == path
    assert dbx.files_download(path)[1].content == b"2"
    other = dbx.files_upload(b"o", folder + "/other")
    refuses("invalid_revision", dbx.files_restore, path, other.rev)
    refuses("invalid_revision", dbx.files_restore, path, "ffffffffffff")
    refuses("path_lookup/not_found", dbx.files_restore, folder + "/never", revs[0])
    refuses("path/not_found", dbx.files_list_revisions, folder + "/never")
    refuses("path/not_file", dbx.files_list_revisions, folder)


def test_sessions(dbx, folder, refuses):
    data = os.urandom(11 * MIB + 7)
    pieces = [data[:100], data[100 : 6 * MIB], data[6 * MIB : 6 * MIB], data[6 * MIB : 11 * MIB]]
    started = dbx.files_upload_session_start(pieces[0])
    cursor = dropbox.files.UploadSessionCursor(started.session_id, 100)
    for piece in pieces[1:]:
        dbx.files_upload_session_append_v2(piece, cursor, content_hash=content_hash(piece))
        cursor.offset += len(piece)
    wrong = dropbox.files.UploadSessionCursor(started.session_id, 5)
    error = refuses("incorrect_offset", dbx.files_upload_session_append_v2, b"x", wrong)
    assert error.error.get_incorrect_offset().correct_offset == 11 * MIB
    commit = dropbox.files.CommitInfo(folder + "/big", mode=WriteMode.overwrite)
    refuses("lookup_failed/incorrect_offset", dbx.files_upload_session_finish, b"x", wrong, commit)
    refuses("content_hash_mismatch", dbx.files_upload_session_append_v2, b"x", cursor, content_hash=content_hash(b"y"))
    bad = dropbox.files.CommitInfo(folder + "/..")
    refuses("path/malformed_path", dbx.files_upload_session_finish, b"", cursor, bad)
    meta = dbx.files_upload_session_finish(data[11 * MIB :], cursor, commit)
    assert (meta.size, meta.content_hash) == (len(data), content_hash(data))
    assert dbx.files_download(folder + "/big")[1].content == data
    refuses("lookup_failed/not_found", dbx.files_upload_session_finish, b"", cursor, commit)
    refuses("not_found", dbx.files_upload_session_append_v2, b"x", cursor)
    unknown = dropbox.files.UploadSessionCursor("nonsense", 0)
    refuses("not_found", dbx.files_upload_session_append_v2, b"x", unknown)


def test_a_closed_session_takes_no_more(dbx, folder, refuses):
    started = dbx.files_upload_session_start(b"abc", close=True)
    cursor = dropbox.files.UploadSessionCursor(started.session_id, 3)
    refuses("closed", dbx.files_upload_session_append_v2, b"x", cursor)
    commit = dropbox.files.CommitInfo(folder + "/closed")
    assert dbx.files_upload_session_finish(b"", cursor, commit).size == 3
    # A conflict leaves the session as it was, to be finished elsewhere.
    started = dbx.files_upload_session_start(b"other", close=True)
    cursor = dropbox.files.UploadSessionCursor(started.session_id, 5)
    refuses("path/conflict/file", dbx.files_upload_session_finish, b"", cursor, commit)
    commit = dropbox.files.CommitInfo(folder + "/elsewhere")
    assert dbx.files_upload_session_finish(b"", cursor, commit).size == 5
