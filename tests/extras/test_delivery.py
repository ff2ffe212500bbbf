"""Thumbnails and archives as a client gets them, from a test client and from a real server."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from flask_comfy_files import FileManager, add_file_manager_routes
from tests.conftest import MakeTree, OpenManager
from tests.extras.pictures import encoded, file_of, halves, png_of
from tests.programs import path_of
from tests.trees import AN_HOUR_AGO, BATCH, recording, set_modified
from tests.web.answers import PREFIX, assert_problem
from tests.web.server import Server, gunicorn

SOUND = "audio/ComfyUI_00001.flac"


@pytest.fixture
def client(manager: FileManager) -> Iterator[FlaskClient]:
    """Return a client of an app over the manager's library."""
    app = Flask("studio")
    add_file_manager_routes(app, output_dir=manager.settings.output_dir)
    yield app.test_client()
    app.extensions["comfy_files"].close()


def thumbnail_url(file_id: str, query: str = "") -> str:
    return f"{PREFIX}/{file_id}/thumbnail{query}"


def test_a_thumbnail_is_answered_as_a_picture_that_a_browser_may_keep_but_not_run(
    client: FlaskClient, manager: FileManager
) -> None:
    file_id = file_of(manager, "batch_00001_.png")
    answered = client.get(thumbnail_url(file_id, "?size=64"))
    assert (answered.status_code, answered.content_type) == (200, "image/webp")
    with Image.open(io.BytesIO(answered.data)) as image:
        assert image.size == (64, 64)
    assert answered.headers["X-Content-Type-Options"] == "nosniff"
    assert answered.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answered.headers["Cache-Control"] == "private, max-age=3600"
    assert "X-Comfy-Files-Placeholder" not in answered.headers
    by_default = client.get(thumbnail_url(file_id))
    assert by_default.data == manager.get_thumbnail(file_id).content


def test_a_thumbnail_that_the_client_has_is_not_sent_again(
    client: FlaskClient, manager: FileManager
) -> None:
    url = thumbnail_url(file_of(manager, "batch_00001_.png"))
    first = client.get(url)
    again = client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    head = client.head(url)
    assert (head.status_code, head.data) == (200, b"")
    assert head.content_length == len(first.data)
    other = client.get(f"{url}?size=64", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


def test_a_placeholder_says_that_it_is_one_and_is_kept_for_a_minute(
    client: FlaskClient, manager: FileManager
) -> None:
    answered = client.get(thumbnail_url(file_of(manager, SOUND)))
    assert (answered.status_code, answered.content_type) == (200, "image/png")
    assert answered.headers["X-Comfy-Files-Placeholder"] == "no_picture"
    assert answered.headers["Cache-Control"] == "private, max-age=60"


def test_what_is_asked_for_wrongly_is_refused(client: FlaskClient, manager: FileManager) -> None:
    file_id = file_of(manager, "batch_00001_.png")
    answered = client.get(thumbnail_url(file_id, "?size=65"))
    body = assert_problem(answered, 422, "invalid_body", "size")
    assert "64, 128, 256, 512, 1024" in body["errors"]["size"][0]
    assert_problem(client.get(thumbnail_url(file_id, "?size=x")), 422, "invalid_body", "size")
    assert_problem(client.get(thumbnail_url(file_id, "?width=64")), 422, "invalid_body", "width")
    assert_problem(client.get(thumbnail_url("0" * 32)), 404, "record_not_found")
    assert_problem(client.get(f"{PREFIX}/jobs/unknown/archive"), 404, "job_not_found")
    assert_problem(client.post(thumbnail_url(file_id)), 405, "method_not_allowed")


def test_nothing_of_a_deleted_job_is_answered(client: FlaskClient, manager: FileManager) -> None:
    url = thumbnail_url(file_of(manager, "batch_00001_.png"))
    assert client.get(url).status_code == 200
    client.delete(f"{PREFIX}/jobs/job_1")
    assert_problem(client.get(url), 404, "record_not_found")
    assert_problem(client.get(f"{PREFIX}/jobs/job_1/archive"), 404, "job_trashed")


def test_a_file_that_has_vanished_is_not_found(client: FlaskClient, manager: FileManager) -> None:
    file_id = file_of(manager, "batch_00001_.png")
    assert client.get(thumbnail_url(file_id)).status_code == 200
    Path(manager.get_file_metadata(file_id).file_path).unlink()
    assert_problem(client.get(thumbnail_url(file_id)), 404, "name_not_found")


def test_an_archive_is_answered_with_its_name_and_its_size(
    client: FlaskClient, manager: FileManager
) -> None:
    manager.organize_output("batch")
    url = f"{PREFIX}/jobs/batch/archive"
    answered = client.get(url, buffered=True)
    assert (answered.status_code, answered.content_type) == (200, "application/zip")
    assert answered.headers["Content-Disposition"] == 'attachment; filename="batch.zip"'
    assert answered.content_length == len(answered.data)
    with zipfile.ZipFile(io.BytesIO(answered.data)) as entries:
        assert entries.testzip() is None
        assert len(entries.namelist()) == 5
    head = client.head(url)
    assert (head.status_code, head.data) == (200, b"")
    assert head.content_length == answered.content_length
    assert_problem(client.get(f"{url}?x=1"), 422, "invalid_body", "x")


# A real server


HOST = """
from flask import Flask
from flask_comfy_files import add_file_manager_routes

app = Flask(__name__)
add_file_manager_routes(app)
"""


def url_of(server: Server, path: str) -> str:
    return f"{server.address}{PREFIX}{path}"


def open_files(server: Server) -> list[str]:
    """Return what the workers of a server have open below a job's folder."""
    children = Path(f"/proc/{server.process_id}/task/{server.process_id}/children").read_text()
    links = [link for child in children.split() for link in Path("/proc", child, "fd").glob("*")]
    found = []
    for link in links:
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [path for path in found if "/projects/" in path]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return recordings of one job, an image for each of many, a bomb, and a large file."""
    images = {
        f"image_{number}.png": encoded(halves(900 + number, 900), "PNG") for number in range(6)
    }
    names = [*BATCH, "vhs/loop_00001.gif", SOUND, "anim/webp_00001_.webp"]
    tree = {name: recording(name) for name in names}
    root = make_tree({**tree, **images, "bomb.png": png_of(50_000, 50_000)})
    with (root / "large.bin").open("wb") as file:
        file.truncate(256 * 1024**2)
    set_modified(root / "large.bin", AN_HOUR_AGO)
    return root


@pytest.fixture
def server(output_root: Path, tmp_path: Path) -> Iterator[Server]:
    """Run gunicorn with two workers of four threads."""
    with gunicorn(tmp_path, HOST, COMFY_FILES_OUTPUT_DIR=str(output_root)) as server:
        yield server


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [path_of("curl"), "--silent", "--show-error", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.programs
@pytest.mark.slow
def test_clients_of_a_server_get_the_same_thumbnails_at_once(
    server: Server, open_manager: OpenManager, output_root: Path
) -> None:
    manager = open_manager(output_root)
    file_ids = [file_of(manager, f"image_{number}.png") for number in range(6)]
    bomb = file_of(manager, "bomb.png")
    urls = [
        url_of(server, f"/{file_id}/thumbnail?size={size}")
        for file_id in file_ids
        for size in (64, 512)
    ]

    def fetched(url: str) -> bytes:
        with urlopen(url, timeout=60) as response:  # noqa: S310 - of this machine
            content: bytes = response.read()
            return content

    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(fetched, urls * 3))
    for number, url in enumerate(urls):
        assert contents[number] == contents[number + len(urls)] == fetched(url)
        with Image.open(io.BytesIO(contents[number])) as image:
            assert f"size={max(image.size)}" in url
    answered = curl("--head", url_of(server, f"/{bomb}/thumbnail")).stdout.decode().lower()
    assert "x-comfy-files-placeholder: too_large" in answered
    assert "bomb" not in answered
    assert "Traceback" not in server.log.read_text()


@pytest.mark.programs
@pytest.mark.slow
def test_an_archive_that_curl_has_fetched_passes_the_test_of_unzip(
    server: Server, open_manager: OpenManager, output_root: Path, tmp_path: Path
) -> None:
    manager = open_manager(output_root)
    names = [*BATCH, "vhs/loop_00001.gif", SOUND, "anim/webp_00001_.webp", "large.bin"]
    files = manager.organize_output("show", files=names).organized_files
    fetched = curl(
        *("--remote-name", "--remote-header-name", "--output-dir", str(tmp_path)),
        *(
            "--write-out",
            "%header{content-length} %{size_download}",
            url_of(server, "/jobs/show/archive"),
        ),
    )
    assert (fetched.returncode, fetched.stderr) == (0, b"")
    announced, received = fetched.stdout.split()
    assert announced == received
    archive = tmp_path / "show.zip"
    tested = subprocess.run([path_of("unzip"), "-t", str(archive)], capture_output=True, check=True)
    assert b"No errors detected" in tested.stdout
    with zipfile.ZipFile(archive) as entries:
        manifest = json.loads(entries.read("manifest.json"))
    assert [file["checksum"] for file in manifest["files"]] == [file.checksum for file in files]


@pytest.mark.programs
@pytest.mark.slow
@pytest.mark.parametrize("change", ["a byte", "a file"])
def test_curl_notices_an_archive_that_was_broken_off(
    server: Server, open_manager: OpenManager, output_root: Path, tmp_path: Path, change: str
) -> None:
    manager = open_manager(output_root)
    files = manager.organize_output("show", files=["batch_00001_.png", "large.bin"]).organized_files
    last = Path(next(file.file_path for file in files if file.file_size > 1024**2))
    if change == "a file":
        last.unlink()
    else:
        with last.open("r+b") as file:
            file.seek(200 * 1024**2)
            file.write(b"x")
    target = tmp_path / "show.zip"
    fetched = curl("--output", str(target), url_of(server, "/jobs/show/archive"))
    assert fetched.returncode in {18, 56}, fetched.stderr
    assert subprocess.run(
        [path_of("unzip"), "-t", str(target)], capture_output=True, check=False
    ).returncode
    log = server.log.read_text()
    assert log.count(f"The archive was broken off at '{last.relative_to(output_root)}'") >= 1
    assert curl("--fail", url_of(server, "/status")).returncode == 0


@pytest.mark.slow
def test_a_client_that_goes_away_leaves_nothing_open(
    server: Server, open_manager: OpenManager, output_root: Path
) -> None:
    open_manager(output_root).organize_output("show", files=["large.bin"])
    pause, ends_at = threading.Event(), time.monotonic() + 30
    port = int(server.address.rpartition(":")[2])
    clients = []
    for _ in range(3):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(
            f"GET {PREFIX}/jobs/show/archive HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        clients.append(client)
    while not open_files(server):
        assert time.monotonic() < ends_at, "it was never read"
        pause.wait(0.02)
    for client in clients:
        client.close()
    while open_files(server):
        assert time.monotonic() < ends_at, open_files(server)
        pause.wait(0.02)
