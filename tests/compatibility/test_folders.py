"""Folders, moves, copies, deletes."""

import pytest
from dropbox.files import DeletedMetadata, FileMetadata, FolderMetadata


def test_folders(dbx, folder, refuses):
    made = dbx.files_create_folder_v2(folder + "/A/B").metadata
    assert isinstance(made, FolderMetadata)
    assert (made.name, made.path_display, made.path_lower) == ("B", folder + "/A/B", folder + "/a/b")
    refuses("path/conflict/folder", dbx.files_create_folder_v2, folder + "/a/b")
    assert dbx.files_create_folder_v2(folder + "/a/b", autorename=True).metadata.name == "b (2)"
    dbx.files_upload(b"1", folder + "/file")
    refuses("path/conflict/file", dbx.files_create_folder_v2, folder + "/FILE")
    refuses("path/conflict/file_ancestor", dbx.files_create_folder_v2, folder + "/file/below")


def test_deletes(dbx, folder, refuses):
    meta = dbx.files_upload(b"1", folder + "/d/a")
    refuses("path_write/conflict/file", dbx.files_delete_v2, folder + "/d/a", parent_rev="fffffffff")
    refuses("path_lookup/not_file", dbx.files_delete_v2, folder + "/d", parent_rev=meta.rev)
    gone = dbx.files_delete_v2(folder + "/d/a", parent_rev=meta.rev).metadata
    assert isinstance(gone, FileMetadata) and gone.id == meta.id
    refuses("path_lookup/not_found", dbx.files_delete_v2, folder + "/d/a")
    dbx.files_upload(b"1", folder + "/d/b/c")
    assert isinstance(dbx.files_delete_v2(folder + "/D").metadata, FolderMetadata)
    refuses("path/not_found", dbx.files_get_metadata, folder + "/d/b/c")
    assert isinstance(dbx.files_get_metadata(folder + "/d/b/c", include_deleted=True), DeletedMetadata)


def test_moves(dbx, folder, refuses):
    meta = dbx.files_upload(b"1", folder + "/d/sub/a")
    moved = dbx.files_move_v2(folder + "/d", folder + "/e/f").metadata
    assert (moved.path_display, isinstance(moved, FolderMetadata)) == (folder + "/e/f", True)
    assert dbx.files_get_metadata(folder + "/e/f/sub/a").id == meta.id
    refuses("path/not_found", dbx.files_get_metadata, folder + "/d")
    # Only the case, of a folder.
    assert dbx.files_move_v2(folder + "/e/f", folder + "/e/F").metadata.name == "F"
    refuses("from_lookup/not_found", dbx.files_move_v2, folder + "/none", folder + "/x")
    dbx.files_upload(b"2", folder + "/taken")
    refuses("to/conflict/file", dbx.files_move_v2, folder + "/e", folder + "/taken")
    refuses("to/conflict/file_ancestor", dbx.files_move_v2, folder + "/e", folder + "/taken/x")
    refuses("to/conflict/folder", dbx.files_move_v2, folder + "/taken", folder + "/e")
    assert dbx.files_move_v2(folder + "/taken", folder + "/e", autorename=True).metadata.name == "e (2)"
    refuses("cant_move_folder_into_itself", dbx.files_move_v2, folder + "/e", folder + "/e/f/x")
    refuses("to/malformed_path", dbx.files_move_v2, folder + "/e", folder + "/../x")
    # By id.
    assert dbx.files_move_v2(meta.id, folder + "/by-id").metadata.id == meta.id


def test_copies(dbx, folder, refuses):
    for name in ("a", "sub/b", "sub/c/d"):
        dbx.files_upload(name.encode(), f"{folder}/from/{name}")
    copied = dbx.files_copy_v2(folder + "/from", folder + "/to").metadata
    assert copied.path_display == folder + "/to"
    for name in ("a", "sub/b", "sub/c/d"):
        original = dbx.files_get_metadata(f"{folder}/from/{name}")
        copy, response = dbx.files_download(f"{folder}/to/{name}")
        assert (response.content, copy.content_hash) == (name.encode(), original.content_hash)
        assert copy.id != original.id and copy.rev != original.rev
    refuses("to/conflict/folder", dbx.files_copy_v2, folder + "/from", folder + "/to")
    refuses("to/conflict/file", dbx.files_copy_v2, folder + "/from/a", folder + "/to/a")
    assert dbx.files_copy_v2(folder + "/from/a", folder + "/to/a", autorename=True).metadata.name == "a (2)"
    refuses("from_lookup/not_found", dbx.files_copy_v2, folder + "/none", folder + "/x")
    refuses("cant_move_folder_into_itself", dbx.files_copy_v2, folder + "/from", folder + "/from/x")


@pytest.mark.parametrize("twin", ["Straße", "ÉCOLE", "a\u030angstro\u0308m"])
def test_names_that_differ_in_case_or_form_are_one(dbx, folder, twin):
    import unicodedata

    meta = dbx.files_upload(b"1", f"{folder}/{twin}")
    other = unicodedata.normalize("NFC", twin).swapcase() if "ß" not in twin else "sTRAßE"
    assert dbx.files_get_metadata(f"{folder}/{other}").id == meta.id
