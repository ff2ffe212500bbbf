from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from flask import Flask

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog.document import CLOSING
from flask_comfy_files.core.layout import DOCUMENT, INDEX, SENTINEL, STATE
from tests.trees import BATCH, library
from tests.web.answers import assert_problem
from tests.web.conftest import MakeHost, lock_held_elsewhere

HEALTH = "/api/files/health"
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}


UNAVAILABLE = (503, "library_unavailable")


def health(host: Flask) -> tuple[int, object]:
    """Return what a stranger is answered: the answer, or the code of the problem, which tells nothing else."""
    answer = host.test_client().get(HEALTH, environ_overrides=STRANGER)
    if answer.status_code == 200:
        return 200, answer.json
    problem = assert_problem(answer, 503, "library_unavailable")
    assert problem["detail"] == (
        "The library cannot be used: what is in the way is not for everybody to know. See flask files health."
    )
    return 503, problem["code"]


def test_a_library_that_works_is_ok_for_everybody(make_host: MakeHost) -> None:
    host = make_host(token="secret", authorize=lambda *_: False)
    assert health(host) == (200, {"state": "ok"})
    host.extensions["comfy_files"].organize_output("batch")
    assert health(host) == (200, {"state": "ok"})
    assert host.test_client().get("/api/files/status").status_code == 401


@pytest.mark.usefixtures("no_waiting")
def test_nothing_in_the_place_of_a_file_of_ours_makes_it_wait(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host()
    host.extensions["comfy_files"].organize_output("batch")
    sentinel = output_root / SENTINEL
    sentinel.unlink()
    os.mkfifo(sentinel)
    assert health(host) == (200, {"state": "ok"})
    assert host.test_client().get("/api/files/status").status_code == 200


def test_nobody_keeps_the_answer_without_asking_again(make_host: MakeHost) -> None:
    answer = make_host().test_client().head(HEALTH)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, no-cache")


def test_what_needs_attention_is_degraded_and_goes_on(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host()
    manager: FileManager = host.extensions["comfy_files"]
    with (output_root / BATCH[0]).open("ab"):
        manager.complete_job("batch")
    assert health(host) == (200, {"state": "degraded"})
    assert manager.get_health() == manager.get_system_stats().health
    manager.retry_pending_jobs()
    assert health(host) == (200, {"state": "ok"})


@pytest.mark.parametrize("damage", ["lost", "garbage"])
def test_a_document_that_the_next_call_rebuilds_takes_no_worker_out_of_service(
    make_host: MakeHost, output_root: Path, damage: str
) -> None:
    host = make_host()
    manager: FileManager = host.extensions["comfy_files"]
    manager.organize_output("batch")
    document = output_root / "file_metadata.json"
    document.unlink()
    if damage == "garbage":
        document.write_bytes(b"no JSON")
    assert health(host) == (200, {"state": "degraded"})
    assert manager.get_job_files("batch").file_count == 4
    assert health(host) == (200, {"state": "degraded"}), "it was rebuilt, and nobody has seen it"


def test_a_library_that_is_not_there_is_unavailable(make_host: MakeHost, output_root: Path) -> None:
    host = make_host()
    host.extensions["comfy_files"].organize_output("batch")
    output_root.rename(output_root.with_name("elsewhere"))
    assert health(host) == UNAVAILABLE
    (message,) = host.extensions["comfy_files"].get_health().messages
    assert "the output root does not exist" in message
    output_root.mkdir()
    assert health(host) == UNAVAILABLE, "a disk that is not mounted"


def test_a_library_whose_files_are_gone_is_unavailable(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host()
    manager: FileManager = host.extensions["comfy_files"]
    manager.organize_output("batch")
    (output_root / "projects").rename(output_root / "unmounted")
    assert health(host) == UNAVAILABLE
    assert manager.get_health() == manager.get_system_stats().health


def test_another_library_in_its_place_is_unavailable(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host(library_id="0123456789abcdef0123456789abcdef")
    with FileManager(output_root) as other:
        other.organize_output("batch")
    assert health(host) == UNAVAILABLE


def test_the_answer_waits_for_nobody_and_changes_nothing(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host()
    host.extensions["comfy_files"].organize_output("batch")
    with lock_held_elsewhere(output_root):
        before = library(output_root)
        began_at = time.monotonic()
        assert health(host) == (200, {"state": "ok"})
        assert time.monotonic() - began_at < 5
        assert library(output_root) == before


def test_an_unfinished_change_is_left_to_others(make_host: MakeHost, output_root: Path) -> None:
    host = make_host()
    host.extensions["comfy_files"].organize_output("batch")
    document = output_root / DOCUMENT
    torn = document.read_bytes().removesuffix(CLOSING) + b",\n{"
    document.write_bytes(torn)
    assert health(host) == (200, {"state": "ok"})
    assert document.read_bytes() == torn


def test_no_document_is_read_for_it(make_host: MakeHost, output_root: Path) -> None:
    host = make_host()
    host.extensions["comfy_files"].organize_output("batch")
    host.extensions["comfy_files"].close()
    for ending in ("", "-wal", "-shm"):
        (output_root / f"{INDEX}{ending}").unlink(missing_ok=True)
    assert health(host) == (200, {"state": "ok"})
    assert not (output_root / INDEX).exists()


@pytest.mark.parametrize(
    ("damage", "code", "first_line"),
    [(None, 0, "ok"), ("pending", 1, "degraded"), ("gone", 5, "unavailable")],
)
def test_the_command_ends_with_a_code_for_each_state(
    make_host: MakeHost, output_root: Path, damage: str | None, code: int, first_line: str
) -> None:
    host = make_host()
    manager: FileManager = host.extensions["comfy_files"]
    if damage == "pending":
        with (output_root / BATCH[0]).open("ab"):
            manager.complete_job("batch")
    elif damage == "gone":
        output_root.rename(output_root.with_name("elsewhere"))
    result = host.test_cli_runner().invoke(args=["files", "health"])
    assert (result.exit_code, result.output.splitlines()[0]) == (code, first_line)
    assert len(result.output.splitlines()) == (1 if damage is None else 2)


def test_nothing_is_begun_by_asking(make_host: MakeHost, output_root: Path) -> None:
    assert health(make_host()) == (200, {"state": "ok"})
    assert not (output_root / STATE).exists()


def test_without_the_setting_metrics_are_an_address_that_does_not_exist(
    make_host: MakeHost,
) -> None:
    client = make_host(token="secret").test_client()
    for method in ("GET", "POST"):
        answer = client.open("/api/files/metrics", method=method)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
