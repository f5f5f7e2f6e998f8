"""The official Python SDK against a running Holdfast.

The address, the CA and a token come from the `dev.json` in the folder that HOLDFAST_DEV names (`holdfast dev` writes it).
Each test works in a folder of its own, so one server serves many runs.
"""

import json
import os
import pathlib
import urllib.parse
import uuid

import pytest

_FOLDER = os.environ.get("HOLDFAST_DEV")
if not _FOLDER:
    raise pytest.UsageError("set HOLDFAST_DEV to the folder of a running `holdfast dev`")
DEV = json.loads((pathlib.Path(_FOLDER) / "dev.json").read_text())
_HOST = urllib.parse.urlsplit(DEV["api"]).netloc
# Read by the SDK when it is imported.
for _name in ("DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST"):
    os.environ[_name] = _HOST
# requests prefers these to a session's own CA, which is what `ca_certs` sets; pass both ways.
os.environ["REQUESTS_CA_BUNDLE"] = DEV["ca_cert"]
os.environ.pop("CURL_CA_BUNDLE", None)

import dropbox  # noqa: E402
import requests  # noqa: E402


def client(token=None):
    """A client of the SDK that trusts the server's CA and does not retry, so that a 5xx fails the test."""
    return dropbox.Dropbox(
        token or DEV["access_token"], ca_certs=DEV["ca_cert"], max_retries_on_error=0, timeout=120
    )


@pytest.fixture
def dbx():
    with client() as connected:
        yield connected


@pytest.fixture
def folder(dbx):
    """A fresh folder; gone after the test."""
    path = "/sdk-" + uuid.uuid4().hex
    dbx.files_create_folder_v2(path)
    yield path
    try:
        dbx.files_delete_v2(path)
    except dropbox.exceptions.ApiError:
        pass


@pytest.fixture
def raw():
    """Requests without the SDK: raw(route, json=..., data=..., headers=..., token=...)."""
    session = requests.Session()
    session.verify = DEV["ca_cert"]

    def call(route, method="POST", token=DEV["access_token"], headers=None, **rest):
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = "Bearer " + token
        return session.request(method, DEV["api"] + "/2/" + route, headers=headers, timeout=120, **rest)

    yield call
    session.close()


@pytest.fixture
def tag():
    """The tags of an ApiError from the outside in, as in `error_summary`."""

    def tags(error):
        union, names = error.error, []
        while hasattr(union, "_tag"):
            names.append(union._tag)
            union = union._value
            if hasattr(union, "reason"):
                union = union.reason
        return "/".join(names)

    return tags


@pytest.fixture
def refuses(tag):
    """refuses("path/not_found", call, ...): the call fails with exactly these tags."""

    def check(expected, call, *args, **kwargs):
        with pytest.raises(dropbox.exceptions.ApiError) as caught:
            call(*args, **kwargs)
        assert tag(caught.value) == expected
        return caught.value

    return check


class Device:
    """A linked device of the same account, over /v1."""

    def __init__(self):
        self.session = requests.Session()
        self.session.verify = DEV["ca_cert"]
        login = {"user": DEV["user"], "password": DEV["password"], "device_name": "compatibility"}
        self.me = self.post("login", login)
        self.session.headers["Authorization"] = "Bearer " + self.me["token"]
        self.op = 0

    def post(self, call, document):
        answer = self.session.post(DEV["api"] + "/v1/" + call, json=document, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def commit(self, change):
        self.op += 1
        items = [{"op": self.op, "change": change}]
        document = {"namespace": self.me["namespace"], "items": items, "receipts": [], "acknowledged_op": 0}
        return self.post("commit", document)["results"][0]

    def entry(self, name):
        """The entry of this name in the root folder."""
        question = {"namespace": self.me["namespace"], "cursor": None, "limit": 5000}
        while True:
            page = self.post("changes", question)
            for entry in page["entries"]:
                if entry["name"] == name and not entry.get("deleted"):
                    return entry
            if not page["has_more"]:
                return None
            question["cursor"] = page["cursor"]


@pytest.fixture
def device():
    linked = Device()
    yield linked
    linked.session.close()
