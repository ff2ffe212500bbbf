"""Nginx sends the bytes of files, with the configuration of the page on reverse proxies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from flask_comfy_files import FileManager
from flask_comfy_files.core.records import FileRecord
from tests.docs.pages import Page
from tests.programs import path_of
from tests.trees import copy_recordings, recording
from tests.web.answers import PREFIX
from tests.web.conftest import MakeHost
from tests.web.proxies import Answer, fetch, nginx, nginx_of, python_of
from tests.web.server import gunicorn

PAGE = Page("docs/how-to/reverse-proxy.md")
pytestmark = pytest.mark.programs

TOKEN = "s3cret-of-the-workers"
WITH_TOKEN = ("-H", f"Authorization: Bearer {TOKEN}")

IMAGE = "batch_00002_.png"
OTHER = "batch_00004_.png"
BYTES = recording(IMAGE)
ETAG = f'"{hashlib.sha256(BYTES).hexdigest()}"'


class Site(NamedTuple):
    """The app, alone and behind nginx."""

    app: str
    proxied: str
    root: Path

    def fetch(self, path: str, *options: str) -> Answer:
        """Ask nginx for something, with the token."""
        return fetch(f"{self.proxied}{path}", *WITH_TOKEN, *options)

    def content(self, name: str = IMAGE) -> str:
        """Return the address of the bytes of a file that was recorded."""
        return f"{PREFIX}/{self.record(name).file_id}/content"

    def record(self, name: str = IMAGE) -> FileRecord:
        """Return the record of such a file."""
        with FileManager(self.root) as manager:
            (record,) = manager.resolve_name(name).matches
        return record


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the app of the page, with two files recorded, behind the nginx of the page."""
    folder = tmp_path_factory.mktemp("site")
    root = copy_recordings(folder / "output")
    with FileManager(root) as manager:
        manager.organize_output("job_1", files=[IMAGE, OTHER])
    with contextlib.ExitStack() as stack:
        module = python_of(PAGE)
        app = stack.enter_context(gunicorn(folder, module, COMFY_FILES_OUTPUT_DIR=str(root)))
        replacing = {"http://127.0.0.1:8000": app.address, "/srv/comfyui/output": str(root)}
        proxied = stack.enter_context(nginx(folder, nginx_of(PAGE), replacing))
        yield Site(app.address, proxied, root)


def test_nginx_sends_the_bytes_with_the_headers_that_the_app_gives(
    site: Site, make_host: MakeHost
) -> None:
    path = site.content()
    answered = site.fetch(path)
    assert (answered.status, answered.body) == (200, BYTES)
    alone = make_host(output_dir=site.root).test_client()
    expected = alone.get(path, buffered=True).headers
    for name in (
        *("Content-Type", "Content-Length", "Content-Disposition", "ETag", "Last-Modified"),
        *("X-Content-Type-Options", "Content-Security-Policy", "Cache-Control", "Accept-Ranges"),
    ):
        assert answered.headers.get_all(name) == expected.getlist(name), name
    assert "X-Accel-Redirect" not in answered.headers
    from_app = fetch(f"{site.app}{path}", *WITH_TOKEN)
    assert (from_app.status, from_app.body) == (200, b"")
    assert from_app.headers["X-Accel-Redirect"] == f"/_comfy_files/{site.record().path}"


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        (["Range: bytes=5-9"], 206, BYTES[5:10]),
        (["Range: bytes=-7"], 206, BYTES[-7:]),
        (["Range: bytes=100-", f"If-Range: {ETAG}"], 206, BYTES[100:]),
        (["Range: bytes=100-", 'If-Range: "another"'], 200, BYTES),
        ([f"If-None-Match: {ETAG}"], 304, b""),
        ([f"If-None-Match: {ETAG}", "Range: bytes=5-9"], 304, b""),
        (['If-None-Match: "another"'], 200, BYTES),
        (["If-None-Match: *"], 304, b""),
        (["If-Modified-Since: Tue, 01 Jan 2036 00:00:00 GMT"], 304, b""),
        (["If-Modified-Since: Tue, 01 Jan 1996 00:00:00 GMT"], 200, BYTES),
        ([f"If-Match: {ETAG}"], 200, BYTES),
        ([f"If-Match: {ETAG}", "Range: bytes=5-9"], 206, BYTES[5:10]),
    ],
    ids=lambda asked: ", ".join(asked) if isinstance(asked, list) else "",
)
def test_conditions_and_ranges_mean_what_they_mean_without_nginx(
    site: Site, asked: list[str], status: int, body: bytes
) -> None:
    answered = site.fetch(site.content(), *(word for header in asked for word in ("-H", header)))
    assert (answered.status, answered.body) == (status, body)
    assert answered.headers.get_all("ETag") == [ETAG]


def test_what_cannot_be_met_is_refused(site: Site) -> None:
    path = site.content()
    assert site.fetch(path, "-H", "Range: bytes=999999-").status == 416
    assert site.fetch(path, "-H", 'If-Match: "another"').status == 412
    several = site.fetch(path, "-H", "Range: bytes=0-1,5-6")
    assert (several.status, several.headers.get_content_type()) == (206, "multipart/byteranges")
    head = site.fetch(path, "--head")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(BYTES)))


def test_a_broken_off_download_goes_on(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "download.png"
    target.write_bytes(BYTES[:1000])
    command = [path_of("curl"), "-sS", "-C", "-", "-o", str(target), *WITH_TOKEN]
    subprocess.run([*command, f"{site.proxied}{site.content()}"], check=True, timeout=30)
    assert target.read_bytes() == BYTES


@pytest.mark.parametrize(
    "name",
    [
        *("two words.png", "100%.png", "50%2e.png", "what?.png", "a#b.png", "a&b=c;d+e.png"),
        *("back\\slash.png", "'quoted\".png", "line\nbreak.png", "キャラ – été.png", "..dots..png"),
        *("<script>.png", "[1]{2}.png", "~tilde.png", "%2e%2e%2fx.png"),
    ],
    ids=ascii,
)
def test_a_file_of_any_name_is_sent(site: Site, name: str) -> None:
    """By the name that ComfyUI gave it, before it is organized."""
    (site.root / name).write_bytes(BYTES)
    answered = site.fetch(f"{PREFIX}/view?filename={quote(name)}")
    assert (answered.status, answered.body) == (200, BYTES)
    assert answered.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_file_whose_name_is_no_text_is_sent(site: Site) -> None:
    """In the folder of what belongs to no job, names stay what they were."""
    name = os.fsdecode(b"caf\xe9 \xff_00001_.png")
    shutil.copy2(site.root / "batch_00003_.png", site.root / name)
    with FileManager(site.root) as manager:
        manager.migrate_legacy_files()
        (record,) = (stray for stray in manager.get_legacy_files() if stray.original_path == name)
    path = f"{PREFIX}/{record.file_id}/content"
    told = fetch(f"{site.app}{path}", *WITH_TOKEN).headers["X-Accel-Redirect"]
    assert told == "/_comfy_files/legacy/caf%E9%20%FF_00001_.png"
    answered = site.fetch(path)
    assert (answered.status, answered.body) == (200, recording("batch_00003_.png"))


def test_what_could_hold_a_script_is_a_download(site: Site) -> None:
    answered = site.fetch(f"{PREFIX}/view?filename=ComfyUI_00001_.svg&subfolder=svg")
    assert answered.body == recording("svg/ComfyUI_00001_.svg")
    assert answered.headers["Content-Disposition"].startswith("attachment")
    assert answered.headers["X-Content-Type-Options"] == "nosniff"


def test_what_has_changed_since_it_was_recorded_does_not_go_by_its_checksum(site: Site) -> None:
    before = site.fetch(site.content(OTHER))
    Path(site.record(OTHER).file_path).write_bytes(b"other")
    answered = site.fetch(site.content(OTHER))
    assert (answered.status, answered.body) == (200, b"other")
    assert answered.headers["ETag"] not in {before.headers["ETag"], None}


def test_strangers_get_nothing_from_nginx_but_what_the_app_allows(site: Site) -> None:
    path = site.content()
    stored = f"_comfy_files/{site.record().path}"
    for address in (path, f"{PREFIX}/view?filename={IMAGE}", f"{PREFIX}/status"):
        refused = fetch(f"{site.proxied}{address}")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (
            401,
            'Bearer realm="comfy_files"',
        )
        assert BYTES not in refused.body
    # The location of the bytes is nobody's, with a token or without.
    for address in (stored, "_comfy_files/file_metadata.json", f"x/../{stored}"):
        assert site.fetch(f"/{address}", "--path-as-is").status == 404
        assert fetch(f"{site.proxied}/{address}", "--path-as-is").status == 404


CARELESS = """
from flask import Flask, request

app = Flask(__name__)

@app.get("/")
def tell():
    return "", {"X-Accel-Redirect": "/_comfy_files/" + request.args["path"]}
"""


def test_the_location_of_the_page_follows_no_link_and_leads_nowhere_else(
    output_root: Path, tmp_path: Path
) -> None:
    """Here an app names files without having looked at them, as if they had changed since it looked."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (output_root / "link.png").symlink_to(tmp_path / "secret.png")
    (output_root / "folder").symlink_to(tmp_path)
    with gunicorn(tmp_path, CARELESS) as app:
        replacing = {
            "http://127.0.0.1:8000": app.address,
            "/srv/comfyui/output": str(output_root),
        }
        with nginx(tmp_path, nginx_of(PAGE), replacing) as proxied:
            assert fetch(f"{proxied}/?path={IMAGE}").body == BYTES
            for path in ("link.png", "folder/secret.png"):
                refused = fetch(f"{proxied}/?path={path}")
                assert refused.status in {403, 404}
                assert b"secret" not in refused.body
            assert fetch(f"{proxied}/?path=../secret.png").status == 404
            assert fetch(f"{proxied}/?path=missing.png").status == 404


def test_the_same_is_checked_before_nginx_is_told(make_host: MakeHost, output_root: Path) -> None:
    client: FlaskClient = make_host(x_accel_prefix="/_comfy_files/").test_client()
    (output_root / "link.png").symlink_to(output_root / IMAGE)
    for name in ("link.png", "missing.png", "ep01"):
        refused = client.get(f"{PREFIX}/view", query_string={"filename": name})
        assert (refused.status_code, refused.get_json()["code"]) == (404, "name_not_found")
        assert "X-Accel-Redirect" not in refused.headers
    told = client.get(f"{PREFIX}/view", query_string={"filename": IMAGE})
    assert (told.data, told.content_length) == (b"", 0)
    assert told.headers["X-Accel-Redirect"] == f"/_comfy_files/{IMAGE}"
