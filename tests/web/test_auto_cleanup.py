"""``AUTO_CLEANUP``: a completion starts one cleanup a day, once its answer was sent."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import CLEANUP_LOCK, LAST_CLEANUP
from flask_comfy_files.core.lock import hold
from flask_comfy_files.core.reports import CleanupReport
from flask_comfy_files.web import worker
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import recording
from tests.web.answers import BATCH, PREFIX, answer_of, post
from tests.web.conftest import MakeHost, lock_held_elsewhere

COMPLETE = "/api/jobs/batch/complete"
THREAD = "comfy-files-cleanup"

MakeClient = Callable[..., FlaskClient]


def cleaners() -> list[threading.Thread]:
    """Return the threads that clean up."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def until_it_is_clean() -> None:
    """Wait until nobody cleans up any more."""
    for thread in cleaners():
        thread.join(timeout=20)
    assert cleaners() == []


@pytest.fixture(autouse=True)
def no_thread_is_left(
    caplog: pytest.LogCaptureFixture,
    make_client: MakeClient,  # noqa: ARG001 - its libraries are closed after this
) -> Iterator[None]:
    """Fail a test that leaves a thread which cleans up, and log what they say."""
    caplog.set_level(logging.INFO, worker.__name__)
    yield
    assert cleaners() == []


def organize_long_ago(root: Path, job_id: str, days: float = 40) -> None:
    """Organize a job that was there before."""
    (root / f"{job_id}.png").write_bytes(recording(BATCH[0]))
    with FileManager(root, clock=ago(days)) as manager:
        manager.organize_output(job_id, files=[f"{job_id}.png"])


def ago(days: float) -> Callable[[], datetime]:
    """Return the clock of somebody who worked that long ago."""
    return lambda: datetime.now(UTC) - timedelta(days=days)


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return a library with one job that has expired, and the files of jobs to complete."""
    root = make_tree({name: recording(name) for name in [*BATCH, "mix_00001_.png"]})
    organize_long_ago(root, "old")
    return root


@pytest.fixture(params=["our-route", "the-hosts-route"])
def make_client(make_host: MakeHost, request: pytest.FixtureRequest) -> MakeClient:
    """Return what makes a client of an app that has a completion of its own, or takes ours."""

    def complete(job_id: str) -> tuple[dict[str, str], int]:
        return {"status": "completed", "job_id": job_id}, 500 if job_id == "broken" else 200

    def make(**settings: Any) -> FlaskClient:
        host: Flask = make_host(**{"auto_cleanup": True, **settings})
        if request.param == "the-hosts-route":
            host.add_url_rule("/api/jobs/<job_id>/complete", view_func=complete, methods=["POST"])
        return host.test_client()

    return make


def complete(client: FlaskClient, job_id: str = "batch", **options: Any) -> TestResponse:
    """Complete a job and take the whole answer, as a server does that has sent it."""
    response = post(client, f"/api/jobs/{job_id}/complete", {}, **options)
    response.close()
    return response


def is_there(root: Path, job_id: str = "old") -> bool:
    """Say whether a job still has its file in its place."""
    return any((root / "projects/default").glob(f"{job_id}/*"))


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Return what was logged of daily cleanups."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == worker.__name__
    ]


DONE = (logging.INFO, "the daily cleanup has deleted 1 files")


def test_without_the_setting_a_completion_cleans_nothing_up(
    make_client: MakeClient, output_root: Path
) -> None:
    client = make_client(auto_cleanup=None)
    assert complete(client).get_json()["file_count"] == 4
    assert cleaners() == []
    assert is_there(output_root)
    assert not (output_root / LAST_CLEANUP).exists()


def test_a_completion_cleans_up_once_its_answer_was_sent_and_not_before(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    response = post(client, COMPLETE, {})
    answer = response.get_json()
    assert (answer["status"], answer["job_id"], answer["file_count"]) == ("completed", "batch", 4)
    assert answer.keys() == {"status", "job_id", "organized_files", "file_count"}
    (cleaner,) = cleaners()
    cleaner.join(0.3)
    assert is_there(output_root), "it was cleaned up while the answer is under way"
    assert cleaner.is_alive()
    response.close()
    until_it_is_clean()
    assert not is_there(output_root)
    assert answer_of(client.get(f"{PREFIX}/trash"))["jobs"][0]["job_id"] == "old"
    assert answer_of(client.get(f"{PREFIX}/jobs/batch"))["files"] == answer["organized_files"]
    assert said(caplog) == [DONE]
    assert_sound(output_root)


def test_an_answer_whose_end_nobody_tells_keeps_a_cleanup_waiting_for_some_seconds_only(
    make_client: MakeClient, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LONGEST_ANSWER_S", 0.01)
    post(make_client(), COMPLETE, {})
    until_it_is_clean()
    assert not is_there(output_root)


def test_there_is_one_cleanup_a_day_however_many_jobs_complete(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    complete(client)
    until_it_is_clean()
    organize_long_ago(output_root, "older")
    for job_id in ("batch", "mix", "batch"):
        complete(client, job_id)
        assert cleaners() == []
    assert is_there(output_root, "older")
    assert said(caplog) == [DONE]


@pytest.mark.parametrize(("hours", "is_due"), [(23.9, False), (24.1, True), (-24.1, True)])
def test_a_cleanup_is_due_a_day_after_the_last_one_whoever_made_it(
    make_client: MakeClient, output_root: Path, hours: float, *, is_due: bool
) -> None:
    with FileManager(output_root, clock=ago(hours / 24)) as manager:
        manager.cleanup_old_files(allow=["clock_jump"])
    facts = json.loads((output_root / LAST_CLEANUP).read_bytes())
    del facts["ended_at"], facts["left_unexpired"]  # or it may be taken for a clock that jumped
    (output_root / LAST_CLEANUP).write_text(json.dumps(facts))
    organize_long_ago(output_root, "older")
    complete(make_client())
    until_it_is_clean()
    assert is_there(output_root, "older") is not is_due


def test_a_cleanup_over_rest_is_that_of_the_day_and_a_rehearsal_is_not(
    make_client: MakeClient, output_root: Path
) -> None:
    client = make_client()
    for url in (f"{PREFIX}/cleanup", f"{PREFIX}/cleanup/plan"):
        answer_of(post(client, url, {"dry_run": True} if url.endswith("cleanup") else {}))
    complete(client)
    until_it_is_clean()
    assert not is_there(output_root)
    (output_root / LAST_CLEANUP).unlink()
    answer_of(post(client, f"{PREFIX}/cleanup", {}))
    organize_long_ago(output_root, "older")
    complete(client)
    assert cleaners() == []
    assert is_there(output_root, "older")


def test_many_threads_of_several_apps_make_one_cleanup(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clients = [make_client() for _ in range(3)]
    start = threading.Barrier(9)

    def complete_one(number: int) -> int:
        app = clients[number % 3].application
        start.wait(20)
        response = complete(app.test_client(), ("batch", "mix")[number % 2])
        return int(response.get_json()["file_count"])

    with ThreadPoolExecutor(9) as pool:
        counts = list(pool.map(complete_one, range(9)))
    until_it_is_clean()
    assert counts == [(4, 1)[number % 2] for number in range(9)]
    assert said(caplog) == [DONE]
    assert_sound(output_root)


@pytest.mark.parametrize("make_client", ["our-route"], indirect=True)
def test_whoever_learns_late_that_somebody_else_has_cleaned_up_does_not_do_it_again(
    output_root: Path,
) -> None:
    facts = {"begun_at": ago(2)().isoformat()}
    (output_root / LAST_CLEANUP).write_text(json.dumps(facts))
    done: list[CleanupReport | None] = []

    def clock() -> datetime:
        if not done:  # it is being asked whether the cleanup that was noted is a day old
            with FileManager(output_root) as another:
                done.append(another.cleanup_if_due())
            organize_long_ago(output_root, "older")
        return datetime.now(UTC)

    with FileManager(output_root, clock=clock) as manager:
        assert manager.cleanup_if_due() is None
    assert [report and report.deleted_files for report in done] == [1]
    assert is_there(output_root, "older")


def test_a_completion_beside_a_cleanup_starts_none_and_waits_for_none(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    with hold(str(output_root / CLEANUP_LOCK), 0):
        assert complete(client).get_json()["file_count"] == 4
        until_it_is_clean()
    assert is_there(output_root)
    assert said(caplog) == []


def test_a_cleanup_that_is_refused_is_logged_and_tried_no_more_that_day(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    organize_long_ago(output_root, "another", days=39)
    client = make_client(retention_policy={"keep_within": 7, "max_share": 0.1})
    for job_id in ("batch", "mix"):
        answer = complete(client, job_id).get_json()
        assert answer.keys() == {"status", "job_id", "organized_files", "file_count"}
        until_it_is_clean()
    assert is_there(output_root)
    ((level, message),) = said(caplog)
    assert (level, "allow large_share" in message) == (logging.ERROR, True)


def test_a_library_that_vanishes_after_the_answer_is_logged_and_nothing_more(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    response = post(client, COMPLETE, {})
    away = output_root.rename(output_root.with_name("away"))
    response.close()
    until_it_is_clean()
    assert not output_root.exists()
    ((level, message),) = said(caplog)
    assert (level, "does not exist" in message) == (logging.ERROR, True)
    away.rename(output_root)
    assert is_there(output_root)
    complete(client, "mix")
    until_it_is_clean()
    assert not is_there(output_root)


def test_a_library_that_was_never_there_changes_no_answer(
    make_client: MakeClient, tmp_path: Path
) -> None:
    root = tmp_path / "not" / "mounted"
    client, plain = make_client(output_dir=root), make_client(output_dir=root, auto_cleanup=False)
    answers = [complete(client), complete(plain)]
    until_it_is_clean()
    for response in answers:
        assert response.status_code == 200
        assert "does not exist" in response.get_json()["organize_error"]
    assert answers[0].get_json().keys() == answers[1].get_json().keys()
    assert not root.parent.exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b'{"begun_at": %s}' % moment for moment in (b'"then"', b"5", b'"2026-01-01T00:00:00"')),
        *(b"no JSON", b"[]", b"\xff", b"[" * 100_000),
    ],
    ids=["words", "number", "no-zone", "no-json", "list", "no-text", "deep"],
)
def test_a_note_of_the_last_cleanup_that_is_none_changes_no_answer(
    make_client: MakeClient, output_root: Path, content: bytes
) -> None:
    (output_root / LAST_CLEANUP).write_bytes(content)
    response = complete(make_client())
    until_it_is_clean()
    assert response.status_code == 200
    assert response.get_json()["file_count"] == 4
    assert "organize_error" not in response.get_json()


def test_a_fault_that_nobody_expects_is_logged_and_ends_the_thread_alone(
    make_client: MakeClient,
    output_root: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        message = "nobody expects this"
        raise RuntimeError(message)

    response = post(make_client(), COMPLETE, {})
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", fail)
        response.close()
        until_it_is_clean()
    assert is_there(output_root)
    (record,) = [record for record in caplog.records if record.name == worker.__name__]
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "the daily cleanup did not go")
    assert record.exc_info is not None


def test_a_process_without_threads_to_spare_completes_and_leaves_the_cleanup_to_the_next(
    make_client: MakeClient,
    output_root: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = make_client()

    def fail(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        assert complete(client).get_json()["file_count"] == 4
    ((level, message),) = said(caplog)
    assert (level, "can't start new thread" in message) == (logging.WARNING, True)
    complete(client, "mix")
    until_it_is_clean()
    assert not is_there(output_root)


@pytest.mark.parametrize("make_client", ["our-route"], indirect=True)
def test_a_cleanup_for_which_the_library_was_too_busy_is_logged(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    response = post(make_client(lock_timeout=0.05), COMPLETE, {})
    with lock_held_elsewhere(output_root):
        response.close()
        until_it_is_clean()
    assert is_there(output_root)
    ((level, message),) = said(caplog)
    assert (level, "0.05 seconds" in message) == (logging.ERROR, True)


@pytest.mark.parametrize("make_client", ["our-route"], indirect=True)
@pytest.mark.parametrize(
    ("job_id", "options", "status"),
    [
        ("batch", {"environ_overrides": {"REMOTE_ADDR": "203.0.113.9"}}, 403),
        ("batch", {"headers": {"Origin": "https://evil.example"}}, 403),
        ("batch", {"content_type": "text/plain"}, 415),
        ("..", {}, 422),
    ],
    ids=["stranger", "another-site", "no-json", "no-id"],
)
def test_a_completion_that_is_refused_cleans_nothing_up(
    make_client: MakeClient, output_root: Path, job_id: str, options: dict[str, Any], status: int
) -> None:
    assert complete(make_client(), job_id, **options).status_code == status
    assert cleaners() == []
    assert is_there(output_root)


@pytest.mark.parametrize("make_client", ["the-hosts-route"], indirect=True)
def test_a_completion_that_fails_in_the_host_cleans_nothing_up(
    make_client: MakeClient, output_root: Path
) -> None:
    assert complete(make_client(), "broken").status_code == 500
    assert cleaners() == []
    assert is_there(output_root)
