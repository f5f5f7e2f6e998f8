"""Accounts, tokens and the shape of errors."""

import dropbox
import pytest
from conftest import DEV, client


def test_the_current_account_has_an_id_of_40_characters(dbx):
    account = dbx.users_get_current_account()
    assert len(account.account_id) == 40 and account.account_id.startswith("dbid:")
    assert account.name.display_name == DEV["user"]
    assert account.account_type.is_basic()


def test_the_space_usage_grows_with_a_file_and_shrinks_with_its_deletion(dbx, folder):
    before = dbx.users_get_space_usage()
    assert before.allocation.get_individual().allocated > 0
    dbx.files_upload(b"x" * 1000, folder + "/a")
    assert dbx.users_get_space_usage().used == before.used + 1000
    dbx.files_upload(b"x" * 10, folder + "/a", mode=dropbox.files.WriteMode.overwrite)
    assert dbx.users_get_space_usage().used == before.used + 10
    dbx.files_delete_v2(folder)
    assert dbx.users_get_space_usage().used == before.used


def test_a_wrong_token_is_an_auth_error():
    with pytest.raises(dropbox.exceptions.AuthError) as caught:
        client("nonsense").files_list_folder("")
    assert caught.value.error.is_invalid_access_token()


def test_content_types_are_exactly_those_the_sdks_compare_with(raw):
    answer = raw("users/get_current_account", data="null")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-dropbox-request-id"]
    for token in (None, "nonsense"):
        answer = raw("users/get_current_account", token=token)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
        assert answer.json() == {
            "error_summary": "invalid_access_token/..",
            "error": {".tag": "invalid_access_token"},
        }
    answer = raw("files/get_metadata", json={"path": "/no/such"})
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/json")
    assert answer.json()["error_summary"] == "path/not_found/.."
    assert answer.json()["error"] == {".tag": "path", "path": {".tag": "not_found"}}


@pytest.mark.parametrize(
    "route, document",
    [
        ("files/get_metadata", {"path": "no-slash"}),
        ("files/get_metadata", {"path": ""}),
        ("files/get_metadata", {}),
        ("files/list_folder", {"path": "/"}),
        ("files/list_folder", {"path": "", "limit": 0}),
        ("files/list_folder", {"path": "", "limit": 2001}),
        ("files/restore", {"path": "/a", "rev": "xyz"}),
        ("files/list_folder/longpoll", {"cursor": "x", "timeout": 1}),
        ("files/no_such_function", {}),
    ],
)
def test_bad_input_is_400_in_plain_text(raw, route, document):
    answer = raw(route, json=document)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text


def test_a_body_that_is_no_json_is_400(raw):
    assert raw("files/get_metadata", data="{").status_code == 400
    assert raw("files/download", headers={"Dropbox-API-Arg": "{"}).status_code == 400
    assert raw("files/download").status_code == 400
