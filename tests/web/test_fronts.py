"""The pages on Flask-Login and API gateways, each tried with a real server and what stands before it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from tests.docs.pages import Page
from tests.trees import copy_recordings
from tests.web.answers import PREFIX
from tests.web.proxies import Answer, fetch, nginx, nginx_of, python_of
from tests.web.server import gunicorn

LOGIN = Page("docs/how-to/flask-login.md")
PROXY = Page("docs/how-to/reverse-proxy.md")
GATEWAY = Page("docs/how-to/api-gateway.md")
pytestmark = pytest.mark.programs

SECRET = "s3cret-of-the-gateway"

VERIFIER = """
from flask import Flask, request

app = Flask(__name__)
KEYS = {"key-of-mia": "mia", "key-of-kai": "kai", "key-of-yuki": "yuki"}

@app.get("/verify")
def verify():
    name = KEYS.get(request.headers.get("X-Api-Key"))
    return ("", 401) if name is None else ("", {"X-Studio-User": name})
"""


def saying(body: object) -> tuple[str, ...]:
    """Return curl's options for a body of JSON."""
    return ("-H", "Content-Type: application/json", "--data", json.dumps(body))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an output root in it."""
    folder = tmp_path_factory.mktemp("front")
    copy_recordings(folder / "output")
    return folder


@pytest.fixture(scope="module")
def logging_in(folder: Path) -> Iterator[str]:
    """Return the address of the app whose users log in."""
    environ = {"COMFY_FILES_OUTPUT_DIR": str(folder / "output")}
    app_alone = next(block.text for block in LOGIN.blocks if block.language == "python")
    assert "os.urandom(32)" in app_alone  # of which each worker would have its own
    module = app_alone.replace("os.urandom(32)", "'one for all workers'")
    with gunicorn(folder, module, **environ) as app:
        yield app.address


@contextlib.contextmanager
def behind_a_gateway(
    folder: Path, module: str, replacing: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Run an app behind the gateway of the page; yield the addresses of the gateway and of the app."""
    for name in ("app", "verifier", "gate"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        environ = {"COMFY_FILES_OUTPUT_DIR": str(folder / "output")}
        app = stack.enter_context(gunicorn(folder / "app", module, **environ))
        verifier = stack.enter_context(gunicorn(folder / "verifier", VERIFIER))
        replacing = {
            "http://127.0.0.1:8000": app.address,
            "http://127.0.0.1:9000": verifier.address,
            **replacing,
        }
        gate = stack.enter_context(nginx(folder / "gate", nginx_of(GATEWAY), replacing))
        yield f"{gate}/library", app.address


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[tuple[str, str]]:
    """Return the addresses of the gateway of the page, and of its app."""
    with behind_a_gateway(folder, python_of(GATEWAY), {}) as addresses:
        yield addresses


def test_each_user_who_logs_in_may_do_what_the_page_says(logging_in: str, folder: Path) -> None:
    allowed = {}
    for name in ("mia", "kai", "yuki"):
        jar = str(folder / f"cookies-of-{name}")
        said = ("--data-urlencode", f"name={name}", "--data-urlencode")
        answered = fetch(f"{logging_in}/login", "-c", jar, *said, f"password={name}'s password")
        assert answered.status == 200
        organize = saying({"job_id": "batch"})
        allowed[name] = [
            fetch(f"{logging_in}{PREFIX}/status", "-b", jar).status,
            fetch(f"{logging_in}{PREFIX}/organize", "-b", jar, *organize).status,
            fetch(f"{logging_in}{PREFIX}/jobs/batch", "-b", jar, "-X", "DELETE").status,
        ]
    assert allowed == {"mia": [200, 403, 403], "kai": [200, 200, 403], "yuki": [200, 200, 200]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{PREFIX}/status", None, 403),
        (f"{PREFIX}/jobs/batch", None, 403),
        (f"{PREFIX}/view?filename=batch_00001_.png", None, 403),
        (f"{PREFIX}/organize", {"job_id": "batch"}, 403),
        ("/api/jobs/batch/complete", {}, 401),
    ],
)
def test_who_has_not_logged_in_gets_nothing(
    logging_in: str, folder: Path, path: str, body: object, status: int
) -> None:
    answered = fetch(f"{logging_in}{path}", *(() if body is None else saying(body)))
    assert answered.status == status
    assert str(folder).encode() not in answered.body
    assert b"Traceback" not in answered.body


def test_a_completion_of_a_user_organizes_the_job(logging_in: str, folder: Path) -> None:
    jar = str(folder / "cookies-for-a-completion")
    said = ("--data-urlencode", "name=kai", "--data-urlencode", "password=kai's password")
    fetch(f"{logging_in}/login", "-c", jar, *said)
    answered = fetch(f"{logging_in}/api/jobs/mix/complete", "-b", jar, *saying({}))
    answer = json.loads(answered.body)
    assert (answer["status"], answer["file_count"]) == ("completed", 1)
    assert "file_path" not in answer["organized_files"][0]


def through(gateway: tuple[str, str], path: str, *options: str) -> Answer:
    return fetch(f"{gateway[0]}{path}", *options)


def test_the_gateways_key_decides_who_somebody_is(gateway: tuple[str, str]) -> None:
    organize = saying({"job_id": "ep01"})
    allowed = {}
    for key in ("wrong", "key-of-mia", "key-of-kai", "key-of-yuki"):
        brought = ("-H", f"X-Api-Key: {key}")
        allowed[key] = [
            through(gateway, f"{PREFIX}/status", *brought).status,
            through(gateway, f"{PREFIX}/organize", *brought, *organize).status,
            through(gateway, f"{PREFIX}/jobs/ep01", *brought, "-X", "DELETE").status,
        ]
    assert allowed == {
        "wrong": [401, 401, 401],
        "key-of-mia": [200, 403, 403],
        "key-of-kai": [200, 200, 403],
        "key-of-yuki": [200, 200, 200],
    }


@pytest.mark.parametrize(
    "claimed",
    [
        ["X-Studio-User: yuki"],
        ["X-Studio-User: yuki", f"X-Gateway-Secret: {SECRET}"],
        ["X-Studio-User: yuki", "X-Api-Key: key-of-mia"],
        ["x-studio-user: yuki", "X-Studio-User: yuki", "X-Api-Key: key-of-mia"],
        [f"Authorization: Bearer {SECRET}", "X-Forwarded-For: 127.0.0.1"],
    ],
    ids=", ".join,
)
def test_what_a_client_claims_about_itself_is_worth_nothing(
    gateway: tuple[str, str], claimed: list[str]
) -> None:
    headers = [word for header in claimed for word in ("-H", header)]
    answered = through(gateway, f"{PREFIX}/jobs/nothing", "-X", "DELETE", *headers)
    assert answered.status in {401, 403}


def test_past_the_gateway_a_name_alone_is_worth_nothing(gateway: tuple[str, str]) -> None:
    _, app = gateway
    for headers in ((), ("-H", "X-Studio-User: yuki"), ("-H", "X-Gateway-Secret: wrong")):
        answered = fetch(f"{app}{PREFIX}/status", *headers)
        assert (answered.status, json.loads(answered.body)["code"]) == (403, "access_denied")


def test_addresses_in_answers_hold_below_the_gateways_path(
    gateway: tuple[str, str], folder: Path
) -> None:
    with FileManager(folder / "output") as manager:
        task = manager.begin_task("verify", {}, (0, None, None))
        task.release()
    brought = ("-H", "X-Api-Key: key-of-yuki")
    cancelled = through(gateway, f"{PREFIX}/tasks/{task.task_id}", *brought, "-X", "DELETE")
    assert cancelled.headers["Location"] == f"/library{PREFIX}/tasks/{task.task_id}"
    missing = through(gateway, f"{PREFIX}/nothing/here", *brought)
    assert (missing.status, json.loads(missing.body)["code"]) == (404, "not_found")


def test_a_sub_path_without_a_proxy_that_cuts_it_off(folder: Path, tmp_path: Path) -> None:
    environ = {"COMFY_FILES_OUTPUT_DIR": str(folder / "output"), "SCRIPT_NAME": "/library"}
    named = ("-H", "X-Studio-User: mia", "-H", f"X-Gateway-Secret: {SECRET}")
    with gunicorn(tmp_path, python_of(GATEWAY), **environ) as app:
        assert fetch(f"{app.address}/library{PREFIX}/status", *named).status == 200


def test_a_gateway_may_bring_the_one_token_for_all(output_root: Path, tmp_path: Path) -> None:
    assert output_root.is_relative_to(tmp_path)
    token = "Bearer s3cret-of-the-workers"
    sent = {'Authorization ""': f'Authorization "{token}"'}
    with behind_a_gateway(tmp_path, python_of(PROXY), sent) as (gate, app):
        for address, key, status in (
            (gate, "key-of-mia", 200),
            (gate, "wrong", 401),
            (app, "key-of-mia", 401),
        ):
            answered = fetch(f"{address}{PREFIX}/status", "-H", f"X-Api-Key: {key}")
            assert answered.status == status
            assert "s3cret" not in str(answered.headers) + answered.body.decode()


def test_the_gateways_secret_and_the_clients_key_stay_where_they_are(
    gateway: tuple[str, str], folder: Path
) -> None:
    brought = ("-H", "X-Api-Key: key-of-kai")
    for path in ("/status", "/jobs/batch", "/trash", "/nothing/here", "/view?filename=../x"):
        answered = through(gateway, f"{PREFIX}{path}", *brought)
        told = answered.body + str(answered.headers).encode()
        assert SECRET.encode() not in told
        assert b"key-of-kai" not in told
        assert str(folder).encode() not in told
    for log in folder.rglob("*.log"):
        written = log.read_text()
        assert SECRET not in written
        assert "key-of-" not in written
