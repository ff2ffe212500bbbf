"""Whatever is asked, and however the library is: no answer holds a token, a path of the server, or a trace."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import DOCUMENT, INDEX, STATE
from flask_comfy_files.web.table import ROUTES
from tests.web.answers import PREFIX, organized
from tests.web.conftest import MakeHost
from tests.web.proxies import fetch
from tests.web.server import gunicorn

TOKEN = "tok-3f9c27e5d1"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
VARIABLE = re.compile(r"<(?:[^<>]*:)?(\w+)>")
BODIES: tuple[object, ...] = (
    None,
    {},
    {"dry_run": True},
    {"job_id": "batch"},
    {"job_id": "../x", "days": "x"},
    ["x"],
)
QUERIES = ("", "?filename=batch_00001_.png", "?limit=1", "?permanent=true", "?nonsense=1")

Break = Callable[[Path], object]


def nothing(_root: Path) -> None:
    """Leave the library as it is."""


def lose_root(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def put_a_file_for_the_root(root: Path) -> None:
    lose_root(root)
    root.write_bytes(b"")


def damage_document(root: Path) -> None:
    (root / DOCUMENT).write_bytes(b'{"format": 1, "changes": [\nnonsense\n]}\n')
    (root / INDEX).unlink()


def put_a_folder_for_the_document(root: Path) -> None:
    (root / DOCUMENT).unlink()
    (root / DOCUMENT).mkdir()


def put_a_file_for_our_folder(root: Path) -> None:
    shutil.rmtree(root / STATE)
    (root / STATE).write_bytes(b"")


def put_a_folder_for_the_index(root: Path) -> None:
    for path in (root / STATE).glob("index*"):
        path.unlink()
    (root / INDEX).mkdir()


def lose_files(root: Path) -> None:
    shutil.rmtree(root / "projects")


HARM: list[Break] = [
    nothing,
    lose_root,
    put_a_file_for_the_root,
    damage_document,
    put_a_folder_for_the_document,
    put_a_file_for_our_folder,
    put_a_folder_for_the_index,
    lose_files,
]


@pytest.fixture
def host(make_host: MakeHost) -> Flask:
    """Return a host whose library has a job, another one in the trash, and work that was interrupted."""
    host = make_host(token=TOKEN, show_paths=False, request_budget_seconds=0.5, lock_timeout=0.5)
    client = host.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    organized(client, {"job_id": "batch"})
    organized(client, {"job_id": "mix"})
    assert client.delete(f"{PREFIX}/jobs/mix").status_code == 200
    manager: FileManager = host.extensions["comfy_files"]
    manager.begin_task("verify", {}, (0, None, None)).release()
    return host


def addresses(host: Flask) -> list[tuple[str, str]]:
    """Return method and address of each of our routes, with names that stand for something, and of none."""
    manager: FileManager = host.extensions["comfy_files"]
    names = {
        "job_id": "batch",
        "project_id": "default",
        "file_id": manager.get_job_files("batch").files[0].file_id,
        "operation_id": next(iter(manager.get_operations())).operation_id,
        "task_id": next(iter(manager.get_tasks())).task_id,
    }
    rules = [
        *((route.method, f"{PREFIX}{route.rule}") for route in ROUTES),
        *(("POST", "/api/jobs/<job_id>/complete"), ("GET", "/api/jobs/<job_id>/files")),
        ("GET", f"{PREFIX}/nothing/here"),
    ]
    return [
        (method, VARIABLE.sub(lambda match: names.get(match[1], "x"), rule))
        for method, rule in rules
    ]


OPEN = tuple(f"{PREFIX}{route.rule.partition('<')[0]}" for route in ROUTES if route.action is None)
"""What strangers may ask for, too."""


def assert_nothing_is_told(answered: TestResponse, root: Path) -> None:
    told = answered.get_data() + str(answered.headers).encode()
    for secret in (TOKEN, str(root), str(root.parent), "Traceback", __file__, "site-packages"):
        assert secret.encode() not in told, (answered.request.path, secret, told[:2000])


@pytest.mark.parametrize("harm", HARM)
def test_no_answer_of_any_route_tells_a_path_or_a_token(
    harm: Break, host: Flask, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client: FlaskClient = host.test_client()
    everything = addresses(host)
    harm(output_root)
    statuses = set()
    for method, address in everything:
        stranger = client.open(address, method=method)
        assert stranger.status_code in {401, 404} or address.startswith(OPEN)
        assert_nothing_is_told(stranger, output_root)
        for query in QUERIES:
            for body in BODIES if method != "GET" else (None,):
                content = None if body is None else json.dumps(body)
                answered = client.open(
                    address + query,
                    method=method,
                    headers={**WITH_TOKEN, "Content-Type": "application/json"},
                    data=content,
                    buffered=True,
                )
                assert_nothing_is_told(answered, output_root)
                statuses.add(answered.status_code)
    assert statuses & {401} == set()
    assert 422 in statuses
    assert TOKEN not in caplog.text


FAILING = f"""
import os
from flask import Flask
from flask_comfy_files import FileManager, add_file_manager_routes

def fail(manager):
    raise RuntimeError("a secret: {TOKEN}")

FileManager.get_system_stats = fail
app = Flask(__name__)
app.debug = os.environ["MODE"] == "debug"
app.config["PROPAGATE_EXCEPTIONS"] = os.environ["MODE"] == "propagate" or None
add_file_manager_routes(app, token="{TOKEN}")
"""


@pytest.mark.parametrize("mode", ["production", "debug", "propagate"])
def test_a_failing_view_tells_nothing_about_itself(
    mode: str, output_root: Path, tmp_path: Path
) -> None:
    environ = {"COMFY_FILES_OUTPUT_DIR": str(output_root), "MODE": mode}
    with gunicorn(tmp_path, FAILING, **environ) as server:
        token = ("-H", f"Authorization: Bearer {TOKEN}")
        answered = fetch(f"{server.address}{PREFIX}/status", *token)
    assert answered.status == 500
    for secret in ("Traceback", "RuntimeError", "a secret", TOKEN, str(tmp_path), "served.py"):
        assert secret.encode() not in answered.body
    if mode == "production":
        assert answered.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answered.body)["code"] == "internal_server_error"
    # Whoever keeps the server is told.
    assert "RuntimeError" in server.log.read_text()
