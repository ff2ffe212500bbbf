"""Several processes and threads on one library: a real gunicorn, and the command beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import TRASH
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import outputs, recording
from tests.web.answers import BATCH, PREFIX, Json
from tests.web.server import faultless_gunicorn

STUDIO = """
import json
import logging
import os
from flask import Flask
from flask_comfy_files import add_file_manager_routes

app = Flask(__name__)
if "LOG" in os.environ:
    logging.basicConfig(filename=os.environ["LOG"], level=logging.INFO)

@app.post("/api/jobs/<job_id>/complete")
def complete(job_id):
    return {"status": "completed", "process": os.getpid()}

add_file_manager_routes(app, **json.loads(os.environ.get("SETTINGS", "{}")))
if os.environ.get("USED_BEFORE_THE_FORK"):
    manager = app.extensions["comfy_files"]
    assert manager.organize_output("early").file_count == 1
    assert manager.get_job_files("early").file_count == 1
"""

JOBS = [f"job_{number}" for number in range(1, 11)]
CLIENTS = 8

Call = Callable[..., Json]
"""Takes a method, an address, a body or nothing, and statuses other than 200 that are no failure."""


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder with four images for each of many jobs."""
    tree = {
        f"{job_id}_0000{number}_.png": recording(name)
        for job_id in JOBS
        for number, name in enumerate(BATCH, 1)
    }
    return make_tree({**tree, "early_00001_.png": recording("pv_00001_.png")})


@pytest.fixture
def environ(output_root: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a server and of the commands beside it, with the folder of the app."""
    return {**os.environ, "COMFY_FILES_OUTPUT_DIR": str(output_root), "PYTHONPATH": str(tmp_path)}


@contextlib.contextmanager
def serving(environ: dict[str, str], *options: str, module: str = STUDIO) -> Iterator[Call]:
    """Run gunicorn with four workers; yield what calls it."""
    folder = Path(environ["PYTHONPATH"])
    with faultless_gunicorn(
        folder, module, "--workers", "4", "--threads", "1", *options, **environ
    ) as server:

        def call(method: str, url: str, body: object = None, *others: int) -> Json:
            host = server.address.removeprefix("http://")
            connection = http.client.HTTPConnection(host, timeout=60)
            with contextlib.closing(connection):
                content = None if body is None else json.dumps(body)
                headers = {"Content-Type": "application/json"} if content else {}
                connection.request(method, url, content, headers)
                response = connection.getresponse()
                answer: Json = json.loads(response.read())
                assert response.status in {200, *others}, answer
                return answer

        yield call


def complete_all(call: Call, jobs: Sequence[str]) -> list[Json]:
    """Complete jobs one after the other, as one client does."""
    return [{"job_id": job, **call("POST", f"/api/jobs/{job}/complete", {})} for job in jobs]


def turned(places: int) -> list[str]:
    """Return the jobs in another order for each client, so that they meet at some and not at others."""
    return JOBS[places:] + JOBS[:places] if places % 2 else JOBS[places::-1] + JOBS[:places:-1]


def by_command(environ: dict[str, str], *arguments: str) -> Json:
    """Ask for something in a process of its own."""
    command = [sys.executable, "-m", "flask", "--app", "served", "files", *arguments]
    result = subprocess.run(
        [*command, "--json"], env=environ, capture_output=True, check=True, timeout=60
    )
    answer: Json = json.loads(result.stdout)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "early"),
    [([], ""), (["--preload", "--threads", "4"], "yes")],
    ids=["workers", "preload-with-threads-and-used-before-the-fork"],
)
def test_clients_workers_and_the_command_complete_the_same_jobs_at_once_and_nothing_is_lost(
    environ: dict[str, str], output_root: Path, options: list[str], early: str
) -> None:
    sources = {path: content for path, content in outputs(output_root).items() if path[0] == "j"}
    with (
        serving({**environ, "USED_BEFORE_THE_FORK": early}, *options) as call,
        ThreadPoolExecutor(CLIENTS + 2) as pool,
    ):
        clients = [pool.submit(complete_all, call, turned(place)) for place in range(CLIENTS)]
        commands = [
            pool.submit(by_command, environ, "organize", job) for job in (JOBS[0], JOBS[-1])
        ]
        completed = [answer for client in clients for answer in client.result()]
        organized = [command.result() for command in commands]
        status = call("GET", f"{PREFIX}/status")
        known = {job: call("GET", f"{PREFIX}/jobs/{job}")["files"] for job in JOBS}

    assert len(completed) == CLIENTS * len(JOBS)
    for answer in completed:
        assert "organize_error" not in answer
    for answer in [*completed, *organized]:
        assert answer["organized_files"] == known[answer["job_id"]]
        assert answer["file_count"] == len(BATCH)
    assert len({answer["process"] for answer in completed}) > 1

    files = [record for records in known.values() for record in records]
    placed = outputs(output_root)
    assert {record["original_path"]: placed[record["path"]] for record in files} == sources
    assert len({record["path"] for record in files}) == len(files) == len(sources)
    rest = {"early_00001_.png"} if not early else set()
    assert {path for path in placed if not path.startswith("projects/")} == rest
    assert len(placed) == len(sources) + 1
    assert (status["total_files"], status["pending_jobs"]) == (len(files) + len(early[:1]), 0)
    assert status["health"] == {"state": "ok", "messages": []}

    assert_sound(output_root)


@pytest.mark.slow
def test_a_thread_of_a_worker_that_was_forked_finishes_what_is_pending(
    environ: dict[str, str], output_root: Path
) -> None:
    with serving({**environ, "USED_BEFORE_THE_FORK": "yes"}, "--preload") as call:
        with (output_root / "job_1_00002_.png").open("ab"):
            answer = call("POST", "/api/jobs/job_1/complete", {})
            assert answer["organize_error"] == "still_being_written"
            assert call("GET", f"{PREFIX}/status")["pending_jobs"] == 1
        ends_at = time.monotonic() + 30
        pause = threading.Event()
        while call("GET", f"{PREFIX}/status")["pending_jobs"]:
            assert time.monotonic() < ends_at, "it is still pending"
            pause.wait(0.05)
        files = call("GET", f"{PREFIX}/jobs/job_1")["files"]
    assert sorted(record["original_path"] for record in files) == [
        f"job_1_0000{number}_.png" for number in range(1, 5)
    ]


def delete_and_restore(call: Call, jobs: Sequence[str]) -> list[Json]:
    """Delete jobs and bring them back, and look at them between; the others do the same meanwhile."""
    answers = []
    for job in jobs:
        url = f"{PREFIX}/jobs/{job}"
        answers.append(call("DELETE", url, None, 404))
        answers.append(call("GET", url, None, 404))
        answers.append(call("PATCH", url, {"tags": [job]}, 404))
        answers.append(call("POST", f"{url}/restore", None, 404))
        answers.append(call("GET", url, None, 404))
    return answers


def clean_up_and_restore(call: Call, jobs: Sequence[str]) -> list[Json]:
    """Delete all jobs that are there, and bring them back one by one."""
    answers = []
    for job in jobs[:5]:
        answers.append(call("POST", f"{PREFIX}/cleanup", {"days": 0}, 503))
        answers.append(call("POST", f"{PREFIX}/jobs/{job}/restore", None, 404))
    return answers


def empty_the_trash(call: Call, jobs: Sequence[str]) -> list[Json]:
    """Delete for good what is in the trash, a few times while the others are at it."""
    answers = []
    for _ in range(3):
        answers += [call("GET", f"{PREFIX}/jobs/{job}", None, 404) for job in jobs]
        answers.append(call("DELETE", f"{PREFIX}/trash"))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("empties", [False, True], ids=["for-a-while", "for-good"])
def test_clients_workers_and_the_command_delete_and_restore_the_same_jobs_at_once(
    environ: dict[str, str], output_root: Path, *, empties: bool
) -> None:
    with FileManager(output_root) as manager:
        for job in JOBS:
            assert manager.organize_output(job).file_count == 4
    before = outputs(output_root)
    settings = json.dumps({"trust_loopback": True, "retention_days": 0})
    others = [empty_the_trash] if empties else [clean_up_and_restore] * 3
    acts = [*others, *[delete_and_restore] * (CLIENTS - len(others))]
    with (
        serving({**environ, "SETTINGS": settings}) as call,
        ThreadPoolExecutor(CLIENTS + 1) as pool,
    ):
        clients = [pool.submit(act, call, turned(place)) for place, act in enumerate(acts)]
        command = ["trash", "--empty"] if empties else ["delete", JOBS[0]]
        commanded = pool.submit(by_command, environ, *command, "--yes")
        answers = [answer for client in clients for answer in client.result()]
        assert commanded.result()["failed"] == []
        for job in JOBS:
            call("POST", f"{PREFIX}/jobs/{job}/restore", None, 404)
        known = {job: call("GET", f"{PREFIX}/jobs/{job}", None, 404) for job in JOBS}
        status = call("GET", f"{PREFIX}/status")

    lost = {"job_not_found"} if empties else set()
    codes = {answer.get("code") for answer in answers}
    assert codes <= {None, "cleanup_running", "job_trashed", *lost}
    assert {"deleted_files", "restored"} <= set().union(*answers), "nothing went its way"
    for answer in [*answers, *known.values()]:
        assert answer.get("file_count", 4) == 4, "half a job was seen"
        assert answer.get("failed", []) == answer.get("skipped", []) == []
    gone = {job for job, answer in known.items() if "code" in answer}
    left = {path: content for path, content in outputs(output_root).items() if content is not None}
    assert left == {
        path: content for path, content in before.items() if not gone.intersection(path.split("/"))
    }
    assert {known[job]["code"] for job in gone} <= lost
    assert status["trash"] == {"files": 0, "bytes": 0}
    assert status["health"] == {"state": "ok", "messages": []}
    assert not list((output_root / TRASH).glob("*"))
    assert_sound(output_root)


def organize_long_ago(root: Path, job_id: str) -> None:
    """Organize a job that has expired since."""
    (root / f"{job_id}.png").write_bytes(recording(BATCH[0]))
    with FileManager(root, clock=lambda: datetime.now(UTC) - timedelta(days=40)) as manager:
        assert manager.organize_output(job_id).file_count == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "early"),
    [([], ""), (["--preload", "--threads", "4"], "yes")],
    ids=["workers", "preload-with-threads-and-used-before-the-fork"],
)
def test_all_workers_together_clean_up_once_a_day(
    environ: dict[str, str], output_root: Path, tmp_path: Path, options: list[str], early: str
) -> None:
    organize_long_ago(output_root, "old")
    log = tmp_path / "log"
    settings = {"SETTINGS": json.dumps({"auto_cleanup": True}), "LOG": str(log)}
    with (
        serving({**environ, **settings, "USED_BEFORE_THE_FORK": early}, *options) as call,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        clients = [pool.submit(complete_all, call, turned(place)) for place in range(CLIENTS)]
        completed = [answer for client in clients for answer in client.result()]
        ends_at = time.monotonic() + 30
        pause = threading.Event()
        while "the daily cleanup has" not in log.read_text():
            assert time.monotonic() < ends_at, "nobody has cleaned up"
            pause.wait(0.05)
        assert [job["job_id"] for job in call("GET", f"{PREFIX}/trash")["jobs"]] == ["old"]
        organize_long_ago(output_root, "older")
        completed += complete_all(call, JOBS)
        older = call("GET", f"{PREFIX}/jobs/older")

    for answer in completed:
        assert "organize_error" not in answer
        assert answer["file_count"] == len(BATCH)
    assert len({answer["process"] for answer in completed}) > 1
    assert older["file_count"] == 1
    lines = [line for line in log.read_text().splitlines() if "daily cleanup" in line]
    assert [line.partition("the daily")[2] for line in lines] == [" cleanup has deleted 1 files"]
    assert_sound(output_root)
