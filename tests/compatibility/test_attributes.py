"""What API v2 has no word for, and how it shows."""

import dropbox
from dropbox.files import FileMetadata, WriteMode


def test_a_link_is_a_file_that_cannot_be_downloaded(dbx, folder, device, refuses):
    parent = device.entry(folder[1:])["id"]
    at = {"name": {"parent": {"entry": parent}, "name": "link"}}
    mtime = {"secs": -5, "nanos": 1}
    made = device.commit({"kind": "put_symlink", "at": at, "base": None, "target": "../ö", "mtime": mtime})
    assert made["result"] == "applied"
    meta = dbx.files_get_metadata(folder + "/link")
    assert isinstance(meta, FileMetadata)
    assert (meta.symlink_info.target, meta.is_downloadable, meta.size) == ("../ö", False, 0)
    assert meta.client_modified.year == 1969
    refuses("unsupported_file", dbx.files_download, folder + "/link")
    refuses("path/conflict/file", dbx.files_upload, b"1", folder + "/link")
    assert dbx.files_upload(b"1", folder + "/link", mode=WriteMode.overwrite).symlink_info is None


def test_an_overwrite_keeps_the_executable_bit(dbx, folder, device):
    parent = device.entry(folder[1:])["id"]
    at = {"name": {"parent": {"entry": parent}, "name": "tool" + folder[5:]}}
    change = {"kind": "put_file", "at": at, "base": None, "size": 0, "blocks": [], "executable": True}
    device.commit({**change, "mtime": {"secs": 0, "nanos": 0}})
    dbx.files_upload(b"new", f"{folder}/tool{folder[5:]}", mode=WriteMode.overwrite)
    entry = device.entry("tool" + folder[5:])
    assert (entry["executable"], entry["size"]) == (True, 3)


def test_a_case_twin_shows_under_its_stored_name(dbx, folder, device):
    parent = device.entry(folder[1:])["id"]
    for name in ("a.txt", "A.TXT"):
        at = {"name": {"parent": {"entry": parent}, "name": name}}
        change = {"kind": "put_file", "at": at, "base": None, "size": 0, "blocks": [], "executable": False}
        device.commit({**change, "mtime": {"secs": 0, "nanos": 0}})
    names = {entry.name for entry in dbx.files_list_folder(folder).entries}
    assert names == {"a.txt", "A (case conflict).TXT"}


def test_an_edit_through_the_api_is_descended_from_by_a_device(dbx, folder, device):
    meta = dbx.files_upload(b"1", folder + "/shared")
    entry = int(meta.id[3:], 16)
    change = {"kind": "put_file", "at": {"entry": entry}, "size": 0, "blocks": [], "executable": False}
    change["mtime"] = {"secs": 0, "nanos": 0}
    newer = dbx.files_upload(b"2", folder + "/shared", mode=WriteMode.update(meta.rev))
    late = device.commit({**change, "base": meta.rev})
    assert late["result"] == "conflict_copy" and late["copy"]["name"].startswith("shared (conflicted copy from ")
    assert device.commit({**change, "base": newer.rev})["result"] == "applied"
    assert dbx.files_get_metadata(folder + "/shared").size == 0
    try:
        dbx.files_upload(b"3", folder + "/shared", mode=WriteMode.update(newer.rev))
        raise AssertionError("a device's edit came between")
    except dropbox.exceptions.ApiError as error:
        assert error.error.is_path()
