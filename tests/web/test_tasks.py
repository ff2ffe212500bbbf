"""Work that outlasts its request: 202, asking any worker about it, cancelling it, and going on with it."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager, FileManagerAPI
from flask_comfy_files.core import carrying, detection, migration
from flask_comfy_files.core.layout import STATE, TASKS
from flask_comfy_files.web import tasks, works
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import outputs, recording, write_tree
from tests.web.answers import BATCH, PREFIX, Json, answer_of, assert_problem, organized, post
from tests.web.conftest import MakeHost, Register
from tests.web.test_servers import Call, serving

MIGRATE, LIST = f"{PREFIX}/migrate", f"{PREFIX}/tasks"
AT_ONCE = {"request_budget_seconds": 1e-6}
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}
KEYS = [
    *("task_id", "kind", "dry_run", "state", "done", "total", "bytes", "started_at", "updated_at"),
    *("error", "arguments", "result"),
]
FILES = {f"image_{number}_00001_.png": recording(BATCH[number % 4]) for number in range(6)}
UNDER_WAY = {"running", "cancelling"}


class Gate:
    """Holds work up until a test lets it go on."""

    def __init__(self) -> None:
        self._here = threading.Semaphore(0)
        self._goes_on = threading.Semaphore(0)
        self._is_open = threading.Event()

    def wait(self) -> None:
        """Stand before it, as the work does."""
        self._here.release()
        if not self._is_open.is_set():
            assert self._goes_on.acquire(timeout=20)

    def until_somebody_waits(self) -> None:
        assert self._here.acquire(timeout=20)

    def let_one_go_on(self) -> None:
        self.until_somebody_waits()
        self._goes_on.release()

    def open(self) -> None:
        self._is_open.set()
        self._goes_on.release(100)


def threads_at_work() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "comfy-files-task"]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder with six files of nobody."""
    return make_tree(FILES)


@pytest.fixture
def gate(register: Register) -> Iterator[Gate]:
    """Return a gate; in the end it is open, and nobody works any more on a library that is closed."""
    del register  # but it closes the library after this
    held = Gate()
    yield held
    held.open()
    for thread in threads_at_work():
        thread.join(timeout=20)
    assert threads_at_work() == []


@pytest.fixture
def held(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Return a gate before the work of every request."""

    def carry_out(*arguments: Any) -> Json:
        gate.wait()
        return real(*arguments)

    real = works.carry_out
    monkeypatch.setattr(tasks, "carry_out", carry_out)
    return gate


@pytest.fixture
def held_at_batches(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Return a gate before each batch of a migration, which has two files."""

    def carry_out(*arguments: Any) -> None:
        gate.wait()
        real(*arguments)

    real = carrying.carry_out
    monkeypatch.setattr(migration, "carry_out", carry_out)
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 2)
    return gate


@pytest.fixture
def client(make_host: MakeHost) -> FlaskClient:
    """Return a client of a host that waits for no work."""
    return make_host(**AT_ONCE, trust_loopback=True).test_client()


@pytest.fixture
def elsewhere(make_host: MakeHost) -> FlaskClient:
    """Return a client of another worker, which knows only what is on the disk."""
    return make_host().test_client()


def accepted(response: TestResponse) -> Json:
    """Return the task as which a request was answered."""
    assert (response.status_code, response.content_type) == (202, "application/json"), response.text
    task: Json = response.get_json()
    assert list(task) == KEYS
    assert response.headers["Location"] == f"{LIST}/{task['task_id']}"
    return task


def task_of(client: FlaskClient, task_id: str) -> Json:
    task = answer_of_any(client.get(f"{LIST}/{task_id}"))
    assert list(task) == KEYS
    return task


def answer_of_any(response: TestResponse) -> Json:
    assert response.status_code in {200, 202}, response.text
    answer: Json = response.get_json()
    return answer


def ended(client: FlaskClient, task_id: str) -> Json:
    """Ask until a task has ended."""
    return until(lambda: task_of(client, task_id), lambda task: task["state"] not in UNDER_WAY)


def until(ask: Callable[[], Json], is_enough: Callable[[Json], bool]) -> Json:
    ends_at = time.monotonic() + 20
    pause = threading.Event()
    while not is_enough(answer := ask()):
        assert time.monotonic() < ends_at, answer
        pause.wait(0.01)
    return answer


def test_small_work_is_answered_at_once_and_leaves_no_task(
    elsewhere: FlaskClient, output_root: Path
) -> None:
    report = answer_of(post(elsewhere, MIGRATE, {}))
    assert report["found"]["files"] == len(FILES)
    assert answer_of(elsewhere.get(LIST)) == {"tasks": []}
    assert not (output_root / TASKS).exists()


def test_no_thread_is_started_before_it_is_needed(elsewhere: FlaskClient) -> None:
    organized(elsewhere, {"job_id": "image_1"})
    assert answer_of(elsewhere.get(f"{PREFIX}/status"))["total_files"] == 1
    assert threads_at_work() == []


def test_a_migration_that_takes_long_is_a_task_of_which_every_worker_knows(
    client: FlaskClient, elsewhere: FlaskClient, output_root: Path, held_at_batches: Gate
) -> None:
    task = accepted(post(client, MIGRATE, {}))
    assert (task["kind"], task["state"], task["dry_run"]) == ("migrate", "running", False)
    assert (task["result"], task["error"]) == (None, None)
    held_at_batches.until_somebody_waits()
    seen = task_of(elsewhere, task["task_id"])
    assert (seen["state"], seen["arguments"]) == ("running", task["arguments"])
    listed = answer_of(elsewhere.get(LIST))["tasks"]
    assert listed == [{key: seen[key] for key in KEYS[:-2]}]

    held_at_batches.open()
    done = ended(elsewhere, task["task_id"])
    assert (done["state"], done["done"], done["total"]) == ("finished", 6, 6)
    assert done["bytes"] == sum(map(len, FILES.values()))
    report = done["result"]
    assert report["moved_to_legacy"]["files"] == len(FILES)
    operations = answer_of(elsewhere.get(f"{PREFIX}/operations"))["operations"]
    assert [entry["operation_id"] for entry in operations] == [report["operation_id"]]
    assert_sound(output_root)


def test_a_cancelled_migration_leaves_nothing_half_done_and_can_be_gone_on_with(
    client: FlaskClient, elsewhere: FlaskClient, output_root: Path, held_at_batches: Gate
) -> None:
    task_id = accepted(post(client, MIGRATE, {}))["task_id"]
    held_at_batches.let_one_go_on()
    held_at_batches.until_somebody_waits()  # two files are moved, and two are about to be
    response = elsewhere.delete(f"{LIST}/{task_id}")
    assert accepted(response)["state"] == "cancelling"
    held_at_batches.open()
    stopped = ended(elsewhere, task_id)
    assert (stopped["state"], stopped["done"], stopped["result"]) == ("cancelled", 4, None)
    lying = [path for path in outputs(output_root) if path in FILES]
    assert len(lying) == 2
    assert_sound(output_root)

    response = elsewhere.post(f"{LIST}/{task_id}/resume")
    assert response.status_code == 200, "it is done in time here"
    report = response.get_json()["result"]
    assert report["moved_to_legacy"]["files"] == 2
    operations = answer_of(elsewhere.get(f"{PREFIX}/operations"))["operations"]
    assert [(entry["operation_id"], entry["files"]) for entry in operations] == [
        (report["operation_id"], len(FILES))
    ]
    moved = {path for path in outputs(output_root) if path.startswith("legacy/image")}
    assert moved == {f"legacy/{name}" for name in FILES}
    assert_sound(output_root)
    again = elsewhere.post(f"{LIST}/{task_id}/resume")
    assert (again.status_code, again.get_json()) == (200, response.get_json())


@pytest.mark.parametrize(
    ("route", "kind", "body", "is_right"),
    [
        ("verify", "verify", {"read_bytes": True}, lambda report: report["is_complete"]),
        ("migrate", "migrate", {"dry_run": True}, lambda report: report["found"]["files"] == 5),
        ("migrate", "migrate", {}, lambda report: not report["failed"]),
        ("repair", "repair", {"dry_run": True}, lambda report: report["dry_run"]),
        ("repair", "repair", {}, lambda report: report["found"] == 1 != report["dry_run"]),
        ("cleanup", "cleanup", {"days": 0}, lambda report: report["found"]["files"] == 1),
        ("cleanup", "cleanup", {"dry_run": True}, lambda report: report["dry_run"]),
        ("cleanup", "cleanup", {"plan_id": ""}, lambda report: report["found"]["files"] == 1),
        ("cleanup/plan", "plan_cleanup", {"days": 0}, lambda report: report["plan_id"]),
        ("operations/{}/undo", "undo", {"dry_run": True}, lambda report: report["dry_run"]),
        ("operations/{}/undo", "undo", {}, lambda report: report["undone"]["files"] == 1),
        ("adopt", "adopt", None, lambda report: report["library_id"]),
        ("trash", "empty_trash", None, lambda report: report["purged_files"] == 1),
    ],
)
def test_all_long_work_can_outlast_its_request_and_be_gone_on_with(
    client: FlaskClient,
    elsewhere: FlaskClient,
    output_root: Path,
    held: Gate,
    route: str,
    kind: str,
    body: Json | None,
    is_right: Callable[[Json], bool],
) -> None:
    said = body
    with FileManager(output_root) as manager:
        report = manager.organize_output("image_1")
        if kind == "empty_trash":
            manager.delete_job_files("image_1")
        if body is not None and "plan_id" in body:
            said = {"plan_id": manager.save_cleanup_plan(0).plan_id}
    if kind == "repair" and body is not None:
        said = {**body, "findings": [{"kind": "untracked", "path": "projects/x.png"}]}
    url = f"{PREFIX}/{route.format(report.operation_id)}"
    act = client.delete if kind == "empty_trash" else client.post
    response = act(url) if said is None else post(client, url, said)
    task = accepted(response)
    assert (task["kind"], task["dry_run"]) == (kind, bool(body and body.get("dry_run")))
    assert client.delete(f"{LIST}/{task['task_id']}").status_code == 202
    held.let_one_go_on()
    stopped = ended(elsewhere, task["task_id"])
    if kind in {"adopt", "empty_trash"}:  # nothing tells them to stop
        assert is_right(stopped["result"]), stopped
        return
    if stopped["state"] != "finished":
        assert stopped["state"] == "cancelled"
        held.open()
        stopped = answer_of_any(elsewhere.post(f"{LIST}/{task['task_id']}/resume"))
    assert stopped["state"] == "finished"
    assert is_right(stopped["result"]), stopped
    assert_sound(output_root)


def test_work_that_ends_while_it_is_written_down_is_answered_as_a_task_all_the_same(
    client: FlaskClient, held: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_task_api(api: FileManagerAPI, task_id: str) -> Json:
        held.open()
        return until(lambda: real(api, task_id), lambda task: task["state"] not in UNDER_WAY)

    real = FileManagerAPI.get_task_api
    monkeypatch.setattr(FileManagerAPI, "get_task_api", get_task_api)
    task = accepted(post(client, f"{PREFIX}/verify", {}))
    assert (task["state"], task["result"]["is_complete"]) == ("finished", True)


def test_what_goes_wrong_in_time_is_answered_as_ever(
    elsewhere: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_problem(
        post(elsewhere, MIGRATE, {"group_by": "color"}), 422, "invalid_input", "group_by"
    )
    url = f"{PREFIX}/operations/{'0' * 32}/undo"
    assert_problem(elsewhere.post(url), 404, "operation_not_found")
    monkeypatch.setattr(migration, "carry_out", lambda *_: 1 / 0)
    assert_problem(post(elsewhere, MIGRATE, {}), 500, "internal_server_error")


def test_what_goes_wrong_later_is_told_as_a_request_would_have_been(
    client: FlaskClient, elsewhere: FlaskClient, held: Gate
) -> None:
    task_id = accepted(post(client, MIGRATE, {"group_by": "color"}))["task_id"]
    held.let_one_go_on()
    task = ended(elsewhere, task_id)
    assert (task["state"], task["result"]) == ("failed", None)
    assert (task["error"]["status"], task["error"]["code"]) == (422, "invalid_input")
    assert list(task["error"]["errors"]) == ["group_by"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
@pytest.mark.usefixtures("no_waiting")
def test_a_failure_that_nobody_foresaw_is_answered_in_time(
    make_host: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[BaseException],
) -> None:
    def fail(*_: object) -> None:
        raise kind("the secret")

    monkeypatch.setattr(migration, "carry_out", fail)
    client = make_host().test_client()
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    answered = post(client, MIGRATE, {})
    assert_problem(answered, 500, "internal_server_error")
    assert "secret" not in answered.text
    assert "the secret" in caplog.text


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_failure_that_nobody_foresaw_is_logged_and_its_words_are_not_told(
    client: FlaskClient,
    elsewhere: FlaskClient,
    held: Gate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[BaseException],
) -> None:
    def fail(*_: object) -> None:
        raise kind("the secret")

    monkeypatch.setattr(migration, "carry_out", fail)
    task_id = accepted(post(client, MIGRATE, {}))["task_id"]
    held.let_one_go_on()
    task = ended(elsewhere, task_id)
    assert (task["state"], task["error"]["status"]) == ("failed", 500)
    assert "secret" not in json.dumps(task)
    assert "the secret" in caplog.text


@pytest.mark.parametrize("task_id", ["0" * 32, "x", "..%2f..", "é"])
def test_an_unknown_task_is_not_found(elsewhere: FlaskClient, task_id: str) -> None:
    url = f"{LIST}/{task_id}"
    if "%2f" in task_id:
        assert elsewhere.get(url).status_code == 404
        return
    for response in (elsewhere.get(url), elsewhere.delete(url), elsewhere.post(f"{url}/resume")):
        assert_problem(response, 404, "task_not_found")


def interrupted(root: Path, kind: str, arguments: Json) -> str:
    with FileManager(root) as manager:
        task = manager.begin_task(kind, arguments)
        task.release()
        return task.task_id


VERIFY = {"read_bytes": False, "max_seconds": None, "cursor": None}
CLEANUP = {"days": 0, "allow": [], "dry_run": False, "plan_id": None}


@pytest.mark.parametrize(
    ("kind", "arguments", "status"),
    [
        ("verify", VERIFY, 200),
        ("cleanup", {**CLEANUP, "dry_run": True}, 200),
        ("cleanup", CLEANUP, 403),
        ("empty_trash", {}, 403),
        ("of a later version", {}, 403),
    ],
)
def test_who_may_not_do_the_work_may_not_go_on_with_it(
    elsewhere: FlaskClient, output_root: Path, kind: str, arguments: Json, status: int
) -> None:
    task_id = interrupted(output_root, kind, arguments)
    url = f"{LIST}/{task_id}"
    response = elsewhere.post(f"{url}/resume", environ_base=STRANGER)
    assert response.status_code == status, response.text
    assert elsewhere.get(url, environ_base=STRANGER).status_code == 200
    assert_problem(elsewhere.delete(url, environ_base=STRANGER), 403, "access_denied")


def test_what_cannot_be_undone_is_not_resumed_by_who_may_only_write(
    elsewhere: FlaskClient, output_root: Path
) -> None:
    task_id = interrupted(output_root, "empty_trash", {})
    assert_problem(elsewhere.post(f"{LIST}/{task_id}/resume"), 403, "access_denied")
    assert task_of(elsewhere, task_id)["state"] == "interrupted"


def test_an_interrupted_task_worries_the_status_until_it_is_gone_on_with_or_cancelled(
    elsewhere: FlaskClient, output_root: Path
) -> None:
    for act in ("resume", "cancel"):
        task_id = interrupted(output_root, "cleanup", CLEANUP)
        health = answer_of(elsewhere.get(f"{PREFIX}/status"))["health"]
        assert (health["state"], len(health["messages"])) == ("degraded", 1)
        assert task_id in health["messages"][0]
        url = f"{LIST}/{task_id}"
        response = elsewhere.post(f"{url}/resume") if act == "resume" else elsewhere.delete(url)
        assert response.get_json()["state"] == ("finished" if act == "resume" else "cancelled")
        assert answer_of(elsewhere.get(f"{PREFIX}/status"))["health"]["state"] == "ok"


def test_words_where_none_are_expected_do_not_cancel_or_resume(
    elsewhere: FlaskClient, output_root: Path
) -> None:
    url = f"{LIST}/{interrupted(output_root, 'verify', VERIFY)}"
    for response in (
        elsewhere.delete(f"{url}?force=1"),
        post(elsewhere, f"{url}/resume", {"x": 1}),
    ):
        assert response.status_code == 422
    assert elsewhere.get(url).get_json()["state"] == "interrupted"


def test_a_process_takes_on_so_many_tasks_and_no_more(
    client: FlaskClient, output_root: Path, held: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MOST_TASKS", 2)
    for _ in range(2):
        accepted(post(client, f"{PREFIX}/verify", {}))
    response = post(client, f"{PREFIX}/verify", {})
    assert_problem(response, 503, "tasks_running")
    assert response.headers["Retry-After"] == "1"
    task_id = interrupted(output_root, "verify", VERIFY)
    assert_problem(client.post(f"{LIST}/{task_id}/resume"), 503, "tasks_running")
    held.open()
    assert task_of(client, task_id)["state"] == "interrupted"


class _Opener(logging.Handler):
    """Opens a gate as soon as something is logged."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def emit(self, record: logging.LogRecord) -> None:
        if "waits for its work" in record.getMessage():
            self._gate.open()


def test_where_a_task_cannot_be_written_down_its_request_waits(
    client: FlaskClient, output_root: Path, held: Gate
) -> None:
    write_tree(output_root, {f"{STATE}/tasks": b"in the way"})
    opener = _Opener(held)
    logging.getLogger(tasks.__name__).addHandler(opener)
    try:
        assert answer_of(post(client, MIGRATE, {}))["found"]["files"] == len(FILES)
    finally:
        logging.getLogger(tasks.__name__).removeHandler(opener)


def test_a_verification_that_was_told_when_to_stop_is_waited_for(client: FlaskClient) -> None:
    assert answer_of(post(client, f"{PREFIX}/verify", {"max_seconds": 20}))["is_complete"]


ENDS_AT_WORK = """
import concurrent.futures.thread as pools
import sys
import threading
from flask import Flask
from flask_comfy_files import add_file_manager_routes
from flask_comfy_files.web import tasks

app = Flask("host")
add_file_manager_routes(app, output_dir=sys.argv[1], request_budget_seconds=1e-6)
goes_on, carry_out = threading.Event(), tasks.carry_out

def later(*arguments):
    goes_on.wait()
    return carry_out(*arguments)

def at_the_end(work):
    while not pools._shutdown:
        pass
    goes_on.set()
    work.join()

tasks.carry_out = later
said = {"read_bytes": True}
print(app.test_client().post("/api/files/verify", json=said).get_json()["task_id"])
work = next(thread for thread in threading.enumerate() if thread.name == "comfy-files-task")
threading.Thread(target=at_the_end, args=[work]).start()
"""


def test_work_that_is_cut_off_by_the_end_of_its_process_was_interrupted_and_has_not_failed(
    elsewhere: FlaskClient, output_root: Path
) -> None:
    organized(elsewhere, {"job_id": "image_1"})
    command = [sys.executable, "-c", ENDS_AT_WORK, str(output_root)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    url = f"{LIST}/{result.stdout.strip()}"
    assert elsewhere.get(url).get_json()["state"] == "interrupted", result.stderr
    assert elsewhere.post(f"{url}/resume").get_json()["state"] == "finished"


STUDIO = """
import json
import os
import time
from flask import Flask, request
from flask_comfy_files import add_file_manager_routes
from flask_comfy_files.core import detection, migration

app = Flask(__name__)
add_file_manager_routes(app, **json.loads(os.environ["SETTINGS"]))
carry_out = migration.carry_out
batches = 0

def slowly(*arguments):
    global batches
    batches += 1
    if batches == 2:  # one is moved
        with open("worker", "w") as note:
            note.write(str(os.getpid()))
        while not os.path.exists("open"):
            time.sleep(0.01)
    carry_out(*arguments)

detection.FILES_AT_ONCE = 2
migration.carry_out = slowly

@app.after_request
def note(response):
    if request.method == "GET" and "/tasks/" in request.path:
        with open("pollers", "a") as notes:
            print(os.getpid(), file=notes)
    return response

if os.environ.get("USED_BEFORE_THE_FORK"):
    said = {"max_seconds": 20}
    assert app.test_client().post("/api/files/verify", json=said).status_code == 200
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "early"), [([], ""), (["--preload"], "yes")], ids=["workers", "preload"]
)
def test_a_worker_is_killed_over_a_migration_and_another_one_goes_on_with_it(
    output_root: Path, tmp_path: Path, options: list[str], early: str
) -> None:
    environ = {
        **os.environ,
        "COMFY_FILES_OUTPUT_DIR": str(output_root),
        "PYTHONPATH": str(tmp_path),
        "SETTINGS": json.dumps({"request_budget_seconds": 0.01}),
        "USED_BEFORE_THE_FORK": early,
    }
    place = ["--workers", "2", "--chdir", str(tmp_path)]
    with serving(environ, *place, *options, module=STUDIO) as call:
        url = f"{LIST}/{call('POST', MIGRATE, {}, 202)['task_id']}"
        wait_for(tmp_path / "worker")
        worker = (tmp_path / "worker").read_text()
        until(lambda: call("GET", url), lambda _: others_than(worker, tmp_path / "pollers"))
        assert call("GET", url)["state"] == "running"
        os.kill(int(worker), signal.SIGKILL)
        until(lambda: asked(call, url), lambda task: task["state"] == "interrupted")
        assert "was interrupted" in call("GET", f"{PREFIX}/status")["health"]["messages"][0]
        lying = [path for path in outputs(output_root) if path in FILES]
        assert 0 < len(lying) < len(FILES)

        (tmp_path / "open").touch()
        call("POST", f"{url}/resume", None, 202)
        task = until(lambda: call("GET", url), lambda task: task["state"] not in UNDER_WAY)
        assert task["state"] == "finished", task
        status = call("GET", f"{PREFIX}/status")
        operations = call("GET", f"{PREFIX}/operations")["operations"]
    assert task["result"]["failed"] == task["result"]["skipped"] == []
    assert status["legacy"]["files"] == len(FILES)
    assert status["health"] == {"state": "ok", "messages": []}
    assert [(entry["operation_id"], entry["files"]) for entry in operations] == [
        (task["result"]["operation_id"], len(FILES))
    ]
    assert {path: content for path, content in outputs(output_root).items() if content} == {
        f"legacy/{name}": content for name, content in FILES.items()
    }
    assert_sound(output_root)


def wait_for(path: Path) -> None:
    until(lambda: {"there": path.exists() and path.stat().st_size > 0}, lambda seen: seen["there"])


def others_than(worker: str, pollers: Path) -> bool:
    return bool(set(pollers.read_text().split()) - {worker})


def asked(call: Call, url: str) -> Json:
    """Ask about a task while a worker dies: a connection that it had taken is lost."""
    try:
        return call("GET", url)
    except (OSError, http.client.HTTPException):
        return {"state": "unknown"}
