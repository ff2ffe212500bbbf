"""Deleting, restoring, marking and cleaning up over REST, on libraries whose jobs are of different ages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import CLEANUP_LOCK, INDEX, LOCK, PLANS, STATE, TRASH
from flask_comfy_files.core.lock import hold
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import outputs, read_tree, recording
from tests.web.answers import (
    BATCH,
    BATCH_BYTES,
    PREFIX,
    Json,
    answer_of,
    assert_problem,
    organized,
    post,
    tally,
)
from tests.web.conftest import MakeHost, lock_held_elsewhere

MIX = "mix_00001_.png"
PV = "pv_00001_.png"
MIX_BYTES, PV_BYTES = (len(recording(name)) for name in (MIX, PV))

BATCH_JOB, TRASH_URL = f"{PREFIX}/jobs/batch", f"{PREFIX}/trash"
CLEANUP, PLAN = f"{PREFIX}/cleanup", f"{PREFIX}/cleanup/plan"
RESTORE = f"{BATCH_JOB}/restore"

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


def ago(days: float) -> Callable[[], datetime]:
    """Return the clock of somebody who worked that long ago."""
    return lambda: datetime.now(UTC) - timedelta(days=days)


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return a library: ``batch`` and ``mix`` of one project are expired, ``pv`` of another is not."""
    root = make_tree({name: recording(name) for name in [*BATCH, MIX, PV]})
    for job_id, project_id, days in (
        ("batch", "anime", 40),
        ("mix", "anime", 35),
        ("pv", "pvs", 3),
    ):
        with FileManager(root, clock=ago(days)) as manager:
            manager.organize_output(job_id, project_id)
    return root


@pytest.fixture
def trusted(make_host: MakeHost) -> FlaskClient:
    """Return a client that may do what cannot be undone, too."""
    return make_host(trust_loopback=True).test_client()


def asked(client: FlaskClient, url: str, body: object | None = None) -> Json:
    """Post, and return the answer."""
    return answer_of(client.post(url) if body is None else post(client, url, body))


def deleted(client: FlaskClient, url: str) -> Json:
    """Delete, and return the answer."""
    return answer_of(client.delete(url))


def patched(client: FlaskClient, body: object, url: str = BATCH_JOB) -> Json:
    """Patch, and return the answer."""
    return answer_of(client.patch(url, json=body))


def got(client: FlaskClient, url: str) -> Json:
    """Get, and return the answer."""
    return answer_of(client.get(url))


def stamps(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of all that is below a root, the index and the locks apart."""
    passing = (INDEX, LOCK, CLEANUP_LOCK)
    found = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder, name)
            relative = str(path.relative_to(root))
            if relative != STATE and not relative.startswith(passing):
                status = path.lstat()
                found[relative] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def kept_entry(project_id: str, files: int, size: int, reason: str, **more: Any) -> Json:
    """Return one job, or those of a project together, as a cleanup says that they stay."""
    return {
        "job_id": None,
        "project_id": project_id,
        "jobs": 1,
        "files": files,
        "bytes": size,
        "reason": reason,
        **more,
    }


def assert_cleanup_reconciles(answer: Mapping[str, Any]) -> None:
    """Check found = deleted + kept + skipped + failed in files and bytes, and the same by project."""
    left = [*answer["skipped"], *answer["failed"]]
    kept = answer["kept"]
    files = [answer["deleted_files"], *(entry["files"] for entry in kept)]
    sizes = [entry["bytes"] for entry in (*answer["jobs"], *kept, *left)]
    assert answer["found"] == tally(sum(files) + len(left), sum(sizes))
    assert answer["deleted_files"] == sum(job["files"] for job in answer["jobs"])
    for project in answer["projects"]:
        name = project["project_id"]
        gone = [job for job in answer["jobs"] if job["project_id"] == name]
        stays = [entry for entry in kept if entry["project_id"] == name]
        assert project == {
            "project_id": name,
            "deleted_jobs": len(gone),
            "deleted_files": sum(job["files"] for job in gone),
            "deleted_bytes": sum(job["bytes"] for job in gone),
            "kept_jobs": sum(entry["jobs"] for entry in stays),
            "kept_files": sum(entry["files"] for entry in stays),
            "kept_bytes": sum(entry["bytes"] for entry in stays),
        }
    of_projects = {entry["project_id"] for entry in (*answer["jobs"], *kept)}
    assert {project["project_id"] for project in answer["projects"]} == of_projects


# Pins and tags.


def test_pinning_and_tagging_a_job_answers_the_job(client: FlaskClient) -> None:
    before = got(client, BATCH_JOB)
    answer = patched(client, {"pinned": True, "tags": ["été", "best", "best", "第1話"]})
    assert answer == {**before, "pinned": True, "tags": ["best", "été", "第1話"]}
    assert got(client, BATCH_JOB) == answer


def test_a_mark_that_is_not_named_stays_as_it_is(client: FlaskClient) -> None:
    patched(client, {"pinned": True, "tags": ["best"]})
    for body in ({}, {"pinned": True}, {"tags": ["best"]}, {"pinned": None, "tags": None}):
        answer = patched(client, body)
        assert (answer["pinned"], answer["tags"]) == (True, ["best"])
    assert patched(client, {"pinned": False})["tags"] == ["best"]
    answer = patched(client, {"tags": []})
    assert (answer["pinned"], answer["tags"]) == (False, [])


def test_marking_a_job_again_in_the_same_way_changes_nothing(
    client: FlaskClient, output_root: Path
) -> None:
    body = {"pinned": True, "tags": ["b", "a"]}
    first = patched(client, body)
    before = stamps(output_root)
    assert patched(client, {"pinned": True, "tags": ["a", "b", "a"]}) == first
    assert stamps(output_root) == before


def test_marks_survive_being_organized_deleted_and_restored(client: FlaskClient) -> None:
    patched(client, {"tags": ["best"]})
    deleted(client, BATCH_JOB)
    asked(client, RESTORE)
    patched(client, {"pinned": True})
    organized(client, {"job_id": "batch"})
    answer = got(client, BATCH_JOB)
    assert (answer["pinned"], answer["tags"]) == (True, ["best"])


def test_as_many_and_as_long_tags_as_are_allowed_can_be_set(client: FlaskClient) -> None:
    tags = [f"{number:03}".ljust(100, "é") for number in range(100)]
    assert patched(client, {"tags": tags})["tags"] == tags
    too_many = client.patch(BATCH_JOB, json={"tags": [*tags, "more"]})
    assert_problem(too_many, 422, "invalid_input", "tags")
    assert got(client, BATCH_JOB)["tags"] == tags


# Deleting and restoring one job.


def test_deleting_a_job_moves_it_into_the_trash_and_says_until_when_it_can_be_restored(
    client: FlaskClient, output_root: Path
) -> None:
    files = got(client, BATCH_JOB)["files"]
    answer = deleted(client, BATCH_JOB)
    operation_id, until = answer["operation_id"], answer["restorable_until"]
    assert answer == {
        "job_id": "batch",
        "project_id": "anime",
        "deleted_files": 4,
        "bytes_trashed": BATCH_BYTES,
        "bytes_freed": 0,
        "removed_directories": 1,
        "skipped": [],
        "failed": [],
        "restorable_until": until,
        "operation_id": operation_id,
    }
    assert re.fullmatch(r"[0-9a-f]{32}", operation_id)
    assert MOMENT.fullmatch(until)
    assert abs(datetime.fromisoformat(until) - datetime.now(UTC) - timedelta(days=7)) < timedelta(
        minutes=1
    )
    for record in files:
        rests = f"{TRASH}/{operation_id}/batch/{Path(record['path']).name}"
        assert (output_root / rests).read_bytes() == recording(record["original_path"])
        assert not (output_root / record["path"]).exists()
    assert not (output_root / "projects/anime/batch").exists()
    assert (output_root / "projects/anime/mix").exists()
    assert_sound(output_root)


def test_a_job_in_the_trash_is_a_404_that_says_until_when_it_can_be_restored(
    client: FlaskClient,
) -> None:
    until = deleted(client, BATCH_JOB)["restorable_until"]
    file_id = "0123456789abcdef0123456789abcdef"
    for response in (
        client.get(BATCH_JOB),
        client.get("/api/jobs/batch/files"),
        client.patch(BATCH_JOB, json={"pinned": True}),
    ):
        body = assert_problem(response, 404, "job_trashed")
        assert until in body["detail"]
        assert "restored" in body["detail"]
    assert_problem(client.get(f"{PREFIX}/{file_id}"), 404, "record_not_found")
    assert [job["job_id"] for job in got(client, f"{PREFIX}/projects/anime")["jobs"]] == ["mix"]


def test_deleting_a_job_again_answers_the_first_deletion_and_changes_nothing(
    client: FlaskClient, output_root: Path
) -> None:
    first = deleted(client, BATCH_JOB)
    before = stamps(output_root)
    assert deleted(client, BATCH_JOB) == first
    assert deleted(client, f"{BATCH_JOB}?permanent=false") == first
    assert stamps(output_root) == before


def test_the_status_counts_what_is_in_the_trash_apart(client: FlaskClient) -> None:
    before = got(client, f"{PREFIX}/status")
    deleted(client, BATCH_JOB)
    answer = got(client, f"{PREFIX}/status")
    assert answer["trash"] == tally(4, BATCH_BYTES)
    assert answer["total_files"] == before["total_files"] - 4
    assert answer["total_size"] == before["total_size"] - BATCH_BYTES
    assert answer["jobs"] == before["jobs"] - 1


@pytest.mark.parametrize("trashed_before", [False, True], ids=["at-once", "from-the-trash"])
def test_deleting_a_job_for_good_leaves_nothing_of_it(
    trusted: FlaskClient, output_root: Path, *, trashed_before: bool
) -> None:
    if trashed_before:
        deleted(trusted, BATCH_JOB)
    answer = deleted(trusted, f"{BATCH_JOB}?permanent=true")
    assert answer == {
        "job_id": "batch",
        "project_id": "anime",
        "deleted_files": 4,
        "bytes_trashed": 0,
        "bytes_freed": BATCH_BYTES,
        "removed_directories": 1,
        "skipped": [],
        "failed": [],
        "restorable_until": None,
        "operation_id": answer["operation_id"],
    }
    assert [path for path in read_tree(output_root) if "batch" in path] == []
    assert got(trusted, TRASH_URL) == {"jobs": [], "files": 0, "bytes": 0}
    for response in (trusted.get(BATCH_JOB), trusted.delete(BATCH_JOB), trusted.post(RESTORE)):
        assert_problem(response, 404, "job_not_found")
    assert deleted(trusted, f"{BATCH_JOB}?permanent=true") == answer
    assert_sound(output_root)


def test_a_job_that_left_the_trash_for_good_was_not_deleted_by_a_call_for_it(
    trusted: FlaskClient,
) -> None:
    deleted(trusted, BATCH_JOB)
    assert trusted.delete(TRASH_URL).status_code == 200
    again = trusted.delete(f"{BATCH_JOB}?permanent=true")
    assert_problem(again, 404, "job_not_found")


def test_without_days_for_the_trash_a_job_is_deleted_for_good(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(trash_days=0, trust_loopback=True).test_client()
    answer = deleted(client, BATCH_JOB)
    assert (answer["bytes_trashed"], answer["bytes_freed"]) == (0, BATCH_BYTES)
    assert answer["restorable_until"] is None
    assert [path for path in read_tree(output_root) if "batch" in path] == []


def test_a_file_that_is_not_as_it_was_recorded_stays_with_its_record(
    client: FlaskClient, output_root: Path
) -> None:
    first, *rest = got(client, BATCH_JOB)["files"]
    painted = output_root / first["path"]
    painted.write_bytes(b"painted over")
    stranger = painted.with_name("note.txt")
    stranger.write_bytes(b"mine")
    answer = deleted(client, BATCH_JOB)
    assert answer["skipped"] == [
        {"path": first["path"], "reason": "changed", "bytes": first["file_size"]},
        {"path": "projects/anime/batch/note.txt", "reason": "untracked", "bytes": 4},
    ]
    assert (answer["deleted_files"], answer["removed_directories"]) == (3, 0)
    assert answer["bytes_trashed"] == BATCH_BYTES - first["file_size"]
    assert (painted.read_bytes(), stranger.read_bytes()) == (b"painted over", b"mine")
    assert got(client, BATCH_JOB)["files"] == [first]

    restored = asked(client, RESTORE)
    assert restored["restored"] == tally(3, BATCH_BYTES - first["file_size"])
    assert restored["already_there"] == tally(1, first["file_size"])
    assert [record["file_id"] for record in restored["files"]] == [
        record["file_id"] for record in (first, *rest)
    ]


def test_a_pinned_job_is_deleted_by_nothing(make_host: MakeHost, output_root: Path) -> None:
    client = make_host(trust_loopback=True, retention_policy={"max_bytes": 0}).test_client()
    patched(client, {"pinned": True})
    before = stamps(output_root)
    for url in (BATCH_JOB, f"{BATCH_JOB}?permanent=true"):
        body = assert_problem(client.delete(url), 409, "job_pinned")
        assert "'batch'" in body["detail"]
    assert stamps(output_root) == before
    answer = asked(client, CLEANUP, {"days": 0, "allow": ["empty_project", "large_share"]})
    assert [job["job_id"] for job in answer["jobs"]] == ["mix", "pv"]
    assert kept_entry("anime", 4, BATCH_BYTES, "pinned", job_id="batch") in answer["kept"]
    assert got(client, BATCH_JOB)["file_count"] == 4
    patched(client, {"pinned": False})
    assert deleted(client, BATCH_JOB)["deleted_files"] == 4


def test_delete_and_restore_together_change_no_file_and_no_record(
    client: FlaskClient, output_root: Path
) -> None:
    urls = [BATCH_JOB, f"{PREFIX}/projects/anime", f"{PREFIX}/projects/pvs"]
    before = outputs(output_root), [got(client, url) for url in urls]
    times = {path: stamps(output_root)[path][2] for path in before[0]}
    operation = deleted(client, BATCH_JOB)
    answer = asked(client, RESTORE)
    assert answer == {
        "job_id": "batch",
        "project_id": "anime",
        "files": before[1][0]["files"],
        "file_count": 4,
        "found": tally(4, BATCH_BYTES),
        "restored": tally(4, BATCH_BYTES),
        "already_there": tally(0, 0),
        "skipped": [],
        "failed": [],
        "operation_id": answer["operation_id"],
    }
    assert answer["operation_id"] not in {None, operation["operation_id"]}
    assert (outputs(output_root), [got(client, url) for url in urls]) == before
    assert {path: stamps(output_root)[path][2] for path in before[0]} == times
    assert not list((output_root / TRASH).glob("*"))
    assert_sound(output_root)


@pytest.mark.parametrize("was_deleted", [False, True], ids=["never-deleted", "restored-before"])
def test_restoring_a_job_that_is_there_changes_nothing(
    client: FlaskClient, output_root: Path, *, was_deleted: bool
) -> None:
    if was_deleted:
        deleted(client, BATCH_JOB)
        asked(client, RESTORE)
    before = stamps(output_root)
    answer = asked(client, RESTORE)
    assert answer["found"] == answer["already_there"] == tally(4, BATCH_BYTES)
    assert answer["restored"] == tally(0, 0)
    assert answer["operation_id"] is None
    assert stamps(output_root) == before


def test_the_id_of_a_deleted_job_can_be_used_again_and_both_come_together(
    client: FlaskClient, make_tree: MakeTree, output_root: Path
) -> None:
    old = got(client, BATCH_JOB)["files"]
    deleted(client, BATCH_JOB)
    make_tree({"batch_00001_.png": recording(PV)})
    new = organized(client, {"job_id": "batch", "project_id": "anime"})["organized_files"]
    assert len(new) == 1
    answer = asked(client, RESTORE)
    assert answer["restored"] == tally(4, BATCH_BYTES)
    assert answer["already_there"] == tally(1, PV_BYTES)
    ids = {record["file_id"] for record in (*old, *new)}
    assert {record["file_id"] for record in answer["files"]} == ids
    assert answer["file_count"] == 5
    assert_sound(output_root)


@pytest.mark.parametrize(
    ("job_id", "project_id", "code", "named"),
    [
        ("batch", "other", "job_in_other_project", "'other'"),
        ("BATCH", "anime", "identifier_case", "'BATCH'"),
    ],
    ids=["another-project", "another-case"],
)
def test_a_job_whose_id_means_something_else_by_now_is_not_restored(
    client: FlaskClient,
    make_tree: MakeTree,
    output_root: Path,
    job_id: str,
    project_id: str,
    code: str,
    named: str,
) -> None:
    deleted(client, BATCH_JOB)
    make_tree({"new_00001_.png": recording(PV)})
    organized(client, {"job_id": job_id, "project_id": project_id, "files": ["new_00001_.png"]})
    before = stamps(output_root)
    body = assert_problem(client.post(RESTORE), 409, code)
    assert named in body["detail"]
    assert stamps(output_root) == before
    assert got(client, TRASH_URL)["files"] == 4


@pytest.mark.parametrize("identifier", ["nobody", "..", "a%20b", "a" * 101])
def test_no_verb_takes_a_job_that_is_not_known_or_none_at_all(
    trusted: FlaskClient, output_root: Path, identifier: str
) -> None:
    before = stamps(output_root)
    url = f"{PREFIX}/jobs/{identifier}"
    for response in (
        trusted.patch(url, json={"pinned": True}),
        trusted.delete(url),
        trusted.delete(f"{url}?permanent=true"),
        trusted.post(f"{url}/restore"),
    ):
        if identifier == "nobody":
            assert_problem(response, 404, "job_not_found")
        else:
            assert_problem(response, 422, "invalid_identifier", "job_id")
    assert stamps(output_root) == before


# The trash.


def test_the_trash_lists_what_was_deleted_oldest_first(client: FlaskClient) -> None:
    mix = deleted(client, f"{PREFIX}/jobs/mix")
    batch = deleted(client, BATCH_JOB)
    answer = got(client, TRASH_URL)
    jobs = [
        {
            "job_id": deletion["job_id"],
            "project_id": "anime",
            "file_count": deletion["deleted_files"],
            "total_size": deletion["bytes_trashed"],
            "trashed_at": listed["trashed_at"],
            "restorable_until": deletion["restorable_until"],
            "operation_id": deletion["operation_id"],
        }
        for deletion, listed in zip((mix, batch), answer["jobs"], strict=True)
    ]
    assert answer == {"jobs": jobs, "files": 5, "bytes": BATCH_BYTES + MIX_BYTES}
    for job in jobs:
        lasts = datetime.fromisoformat(job["restorable_until"]) - datetime.fromisoformat(
            job["trashed_at"]
        )
        assert lasts == timedelta(days=7)


def test_emptying_the_trash_deletes_it_for_good_and_nothing_else(
    trusted: FlaskClient, output_root: Path
) -> None:
    deleted(trusted, f"{PREFIX}/jobs/mix")
    deleted(trusted, BATCH_JOB)
    before = outputs(output_root)
    answer = deleted(trusted, TRASH_URL)
    assert answer == {
        "purged_jobs": 2,
        "purged_files": 5,
        "bytes_freed": BATCH_BYTES + MIX_BYTES,
        "failed": [],
        "operation_id": answer["operation_id"],
    }
    assert len(answer["operation_id"]) == 32
    assert outputs(output_root) == before
    assert not list((output_root / TRASH).glob("**/*"))
    assert got(trusted, TRASH_URL) == {"jobs": [], "files": 0, "bytes": 0}
    again = deleted(trusted, TRASH_URL)
    assert (again["purged_jobs"], again["bytes_freed"], again["operation_id"]) == (0, 0, None)
    assert_problem(trusted.get(BATCH_JOB), 404, "job_not_found")


# Cleaning up.

EXPIRED: list[Json] = [
    {"job_id": "batch", "project_id": "anime", "files": 4, "bytes": BATCH_BYTES},
    {"job_id": "mix", "project_id": "anime", "files": 1, "bytes": MIX_BYTES},
]


def test_a_rehearsal_says_what_would_go_and_changes_not_even_a_time_stamp(
    client: FlaskClient, output_root: Path
) -> None:
    created = {job: got(client, f"{PREFIX}/jobs/{job}")["created_at"] for job in ("batch", "mix")}
    before = stamps(output_root)
    answer = asked(client, CLEANUP, {"dry_run": True})
    jobs = [{**job, "created_at": created[job["job_id"]], "reason": "expired"} for job in EXPIRED]
    size = BATCH_BYTES + MIX_BYTES
    assert answer == {
        "days": 30,
        "found": tally(6, size + PV_BYTES),
        "deleted_files": 5,
        "bytes_trashed": size,
        "bytes_freed": 0,
        "purged_files": 0,
        "removed_directories": 3,
        "kept": [kept_entry("pvs", 1, PV_BYTES, "not_expired")],
        "skipped": [],
        "failed": [],
        "jobs": jobs,
        "projects": answer["projects"],
        "dry_run": True,
        "operation_id": None,
    }
    assert_cleanup_reconciles(answer)
    assert asked(client, CLEANUP, {"dry_run": True, "days": None}) == answer
    assert stamps(output_root) == before


def test_a_cleanup_does_what_its_rehearsal_said(client: FlaskClient, output_root: Path) -> None:
    rehearsed = asked(client, CLEANUP, {"dry_run": True})
    before = outputs(output_root)
    answer = asked(client, CLEANUP, {})
    operation_id = answer["operation_id"]
    assert answer == {**rehearsed, "dry_run": False, "operation_id": operation_id}
    assert outputs(output_root) == {
        path: content for path, content in before.items() if "/pvs/" in path
    }
    assert [(job["job_id"], job["operation_id"]) for job in got(client, TRASH_URL)["jobs"]] == [
        ("batch", operation_id),
        ("mix", operation_id),
    ]
    assert_problem(client.get(f"{PREFIX}/projects/anime"), 404, "project_not_found")
    again = asked(client, CLEANUP, {"dry_run": False})
    assert (again["deleted_files"], again["jobs"]) == (0, [])
    assert again["found"] == tally(1, PV_BYTES)
    assert_sound(output_root)


@pytest.mark.parametrize(
    ("days", "taken"),
    [
        *((days, ["batch", "mix", "pv"]) for days in (0, 2, 3)),
        *((4, ["batch", "mix"]), (36, ["batch"]), (40, ["batch"]), (41, []), (36_500, [])),
    ],
)
def test_the_days_of_a_request_say_how_old_a_job_may_get(
    client: FlaskClient, days: int, taken: list[str]
) -> None:
    answer = asked(client, CLEANUP, {"days": days})
    assert answer["days"] == days
    assert [job["job_id"] for job in answer["jobs"]] == taken
    assert [job["job_id"] for job in got(client, TRASH_URL)["jobs"]] == taken
    assert_cleanup_reconciles(answer)


def test_without_days_the_retention_days_of_the_host_hold(make_host: MakeHost) -> None:
    client = make_host(retention_days=36).test_client()
    answer = asked(client, CLEANUP, {"dry_run": True})
    assert (answer["days"], [job["job_id"] for job in answer["jobs"]]) == (36, ["batch"])
    assert asked(client, CLEANUP, {"dry_run": True, "days": 4})["deleted_files"] == 5


def test_a_cleanup_purges_what_was_long_enough_in_the_trash(
    client: FlaskClient, output_root: Path
) -> None:
    with FileManager(output_root, clock=ago(8)) as manager:
        manager.delete_job_files("batch")
    with FileManager(output_root, clock=ago(6)) as manager:
        manager.delete_job_files("mix")
    rehearsed = asked(client, CLEANUP, {"dry_run": True})
    answer = asked(client, CLEANUP, {})
    assert answer == {**rehearsed, "dry_run": False, "operation_id": answer["operation_id"]}
    assert (answer["purged_files"], answer["bytes_freed"]) == (4, BATCH_BYTES)
    assert (answer["deleted_files"], answer["bytes_trashed"]) == (0, 0)
    assert [job["job_id"] for job in got(client, TRASH_URL)["jobs"]] == ["mix"]
    assert_sound(output_root)


def test_a_cleanup_without_days_for_the_trash_frees_the_bytes_at_once(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(trash_days=0, trust_loopback=True).test_client()
    rehearsed = asked(client, CLEANUP, {"dry_run": True})
    answer = asked(client, CLEANUP, {})
    assert answer == {**rehearsed, "dry_run": False, "operation_id": answer["operation_id"]}
    size = BATCH_BYTES + MIX_BYTES
    assert (answer["bytes_trashed"], answer["bytes_freed"]) == (0, size)
    assert (answer["deleted_files"], answer["purged_files"]) == (5, 5)
    assert_cleanup_reconciles(answer)
    assert not [path for path in read_tree(output_root) if "batch" in path]


def test_a_cleanup_reports_what_it_may_not_touch(client: FlaskClient, output_root: Path) -> None:
    first = got(client, BATCH_JOB)["files"][0]
    (output_root / first["path"]).write_bytes(b"painted over")
    (mix,) = got(client, f"{PREFIX}/jobs/mix")["files"]
    (output_root / mix["path"]).unlink()
    (output_root / mix["path"]).with_name("note.txt").write_bytes(b"mine")
    answer = asked(client, CLEANUP, {})
    assert [(left["path"], left["reason"]) for left in answer["skipped"]] == [
        (first["path"], "changed"),
        (mix["path"], "already_gone"),
        ("projects/anime/mix/note.txt", "untracked"),
    ]
    size = BATCH_BYTES - first["file_size"]
    assert kept_entry("anime", 3, size, "changed", job_id="batch") in answer["kept"]
    assert [job["job_id"] for job in answer["jobs"]] == ["mix"]
    assert_cleanup_reconciles(answer)
    assert got(client, BATCH_JOB)["file_count"] == 4
    assert (output_root / "projects/anime/mix/note.txt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"protect": {"tags": ["best"]}}, "protected_tag"),
        ({"protect": {"jobs": ["batch"]}}, "protected_job"),
        ({"projects": {"anime": {"keep_within": 39, "days": 39}}}, "expired"),
    ],
    ids=["tag", "job", "days-of-a-project"],
)
def test_each_decision_of_a_policy_carries_its_reason(
    make_host: MakeHost, policy: Json, reason: str
) -> None:
    client = make_host(retention_policy=policy).test_client()
    patched(client, {"tags": ["best"]})
    answer = asked(client, CLEANUP, {"dry_run": True, "allow": ["large_share"]})
    decisions = {entry["job_id"]: entry["reason"] for entry in (*answer["kept"], *answer["jobs"])}
    assert decisions["batch"] == reason
    assert_cleanup_reconciles(answer)


def test_a_policy_that_takes_too_much_is_a_409_that_says_what_to_allow(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(retention_policy={"keep_within": 10}).test_client()
    before = read_tree(output_root)
    for allowed, missing in (([], "empty_project"), (["empty_project"], "large_share")):
        for body in ({"dry_run": True, "allow": allowed}, {"allow": allowed}):
            problem = assert_problem(post(client, CLEANUP, body), 409, "cleanup_refused")
            assert f"allow {missing}" in problem["detail"]
        response = post(client, PLAN, {"allow": allowed})
        assert_problem(response, 409, "cleanup_refused")
    assert outputs(output_root) == {
        path: content for path, content in before.items() if path.startswith("projects/")
    }
    answer = asked(client, CLEANUP, {"allow": ["empty_project", "large_share"]})
    assert answer["deleted_files"] == 5


def test_a_record_from_the_future_stops_a_cleanup_until_that_is_allowed(
    client: FlaskClient, make_tree: MakeTree, output_root: Path
) -> None:
    make_tree({"later_00001_.png": recording(PV)})
    with FileManager(output_root, clock=ago(-1)) as manager:
        manager.organize_output("later")
    for body in ({"dry_run": True}, {}):
        problem = assert_problem(post(client, CLEANUP, body), 409, "cleanup_refused")
        assert "clock" in problem["detail"]
        assert "allow clock_jump" in problem["detail"]
    assert got(client, BATCH_JOB)["file_count"] == 4
    assert asked(client, CLEANUP, {"allow": ["clock_jump"]})["deleted_files"] == 5


def test_a_cleanup_beside_another_is_a_503_to_try_again(
    client: FlaskClient, output_root: Path
) -> None:
    plan_id = asked(client, PLAN, {})["plan_id"]
    with hold(str(output_root / CLEANUP_LOCK), 0):
        before = stamps(output_root)
        for body in ({}, {"days": 0}, {"plan_id": plan_id}):
            response = post(client, CLEANUP, body)
            assert_problem(response, 503, "cleanup_running")
            assert int(response.headers["Retry-After"]) > 0
        assert asked(client, CLEANUP, {"dry_run": True})["deleted_files"] == 5
        assert stamps(output_root) == before
    assert asked(client, CLEANUP, {})["deleted_files"] == 5


def test_a_library_that_somebody_else_is_changing_is_a_503_for_all_that_deletes(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(lock_timeout=0.05, trust_loopback=True).test_client()
    before = outputs(output_root)
    with lock_held_elsewhere(output_root):
        for response in (
            client.delete(BATCH_JOB),
            client.delete(TRASH_URL),
            client.post(RESTORE),
            client.patch(BATCH_JOB, json={"pinned": True}),
        ):
            assert_problem(response, 503, "lock_timeout")
        assert post(client, CLEANUP, {}).status_code == 503
        assert got(client, TRASH_URL)["jobs"] == []
        assert asked(client, CLEANUP, {"dry_run": True})["deleted_files"] == 5
    assert outputs(output_root) == before
    assert deleted(client, BATCH_JOB)["deleted_files"] == 4


def test_a_cleanup_that_finds_the_library_busy_does_not_say_that_another_cleanup_is_running(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(lock_timeout=0.05).test_client()
    with lock_held_elsewhere(output_root):
        assert_problem(post(client, CLEANUP, {}), 503, "lock_timeout")


def test_a_file_that_is_gone_from_the_trash_does_not_keep_the_others_there(
    client: FlaskClient, output_root: Path
) -> None:
    operation_id = deleted(client, BATCH_JOB)["operation_id"]
    next((output_root / TRASH / operation_id / "batch").iterdir()).unlink()
    answer = asked(client, RESTORE)
    assert answer["restored"]["files"] == 3
    assert [left["reason"] for left in answer["skipped"]] == ["not_found"]


# Plan, then apply.


def test_a_plan_is_a_rehearsal_that_can_be_carried_out_for_24_hours(
    client: FlaskClient, output_root: Path
) -> None:
    rehearsed = asked(client, CLEANUP, {"dry_run": True, "days": 36})
    before = outputs(output_root)
    answer = asked(client, PLAN, {"days": 36})
    assert answer == {
        "plan_id": answer["plan_id"],
        "created_at": answer["created_at"],
        "expires_at": answer["expires_at"],
        "report": rehearsed,
    }
    assert re.fullmatch(r"[0-9a-f]{32}", answer["plan_id"])
    created, expires = (datetime.fromisoformat(answer[key]) for key in ("created_at", "expires_at"))
    assert expires - created == timedelta(hours=24)
    assert MOMENT.fullmatch(answer["expires_at"])
    assert outputs(output_root) == before
    assert asked(client, PLAN, {"days": 36})["plan_id"] != answer["plan_id"]


def test_applying_a_plan_does_exactly_what_it_says_and_answers_it_again_afterwards(
    client: FlaskClient, make_tree: MakeTree, output_root: Path
) -> None:
    plan = asked(client, PLAN, {"days": 36})
    make_tree({"late_00001_.png": recording(PV)})
    with FileManager(output_root, clock=ago(50)) as manager:
        manager.organize_output("late")  # it has expired, but nobody planned to delete it
    answer = asked(client, CLEANUP, {"plan_id": plan["plan_id"]})
    assert answer == {**plan["report"], "dry_run": False, "operation_id": plan["plan_id"]}
    assert [job["job_id"] for job in got(client, TRASH_URL)["jobs"]] == ["batch"]
    before = stamps(output_root)
    assert asked(client, CLEANUP, {"plan_id": plan["plan_id"], "days": None}) == answer
    assert stamps(output_root) == before
    asked(client, RESTORE)
    assert asked(client, CLEANUP, {"plan_id": plan["plan_id"]}) == answer
    assert got(client, BATCH_JOB)["file_count"] == 4
    assert_sound(output_root)


def pin(client: FlaskClient) -> None:
    patched(client, {"pinned": True})


def delete(client: FlaskClient) -> None:
    deleted(client, BATCH_JOB)


def delete_and_restore(client: FlaskClient) -> None:
    deleted(client, BATCH_JOB)
    asked(client, RESTORE)


@pytest.mark.parametrize("change", [pin, delete, delete_and_restore])
def test_a_plan_is_stale_when_a_job_of_it_has_changed(
    client: FlaskClient, output_root: Path, change: Callable[[FlaskClient], None]
) -> None:
    plan_id = asked(client, PLAN, {})["plan_id"]
    change(client)
    before = stamps(output_root)
    body = assert_problem(post(client, CLEANUP, {"plan_id": plan_id}), 409, "plan_stale")
    assert "'batch'" in body["detail"]
    assert stamps(output_root) == before


def test_a_plan_that_is_too_old_or_was_never_made_is_a_404(
    client: FlaskClient, output_root: Path
) -> None:
    with FileManager(output_root, clock=ago(1.001)) as manager:
        too_old = manager.save_cleanup_plan().plan_id
    with FileManager(output_root, clock=ago(0.999)) as manager:
        still_good = manager.save_cleanup_plan().plan_id
    before = stamps(output_root)
    for plan_id in (too_old, "0" * 32, "", "../../file_metadata", f"{still_good}\n", "x" * 10_000):
        response = post(client, CLEANUP, {"plan_id": plan_id})
        assert_problem(response, 404, "plan_not_found")
        assert len(response.data) < 3000
    assert stamps(output_root) == before
    assert asked(client, CLEANUP, {"plan_id": still_good})["deleted_files"] == 5


# What is not to be understood.


@pytest.fixture
def unchanged(output_root: Path) -> Any:
    """Check at the end that nothing at all has changed below the output root."""
    before = read_tree(output_root)
    yield
    assert read_tree(output_root) == before


LONG = "a" * 10_000

NO_DAYS = {
    "true": b"true",
    "false": b"false",
    "string": b'"30"',
    "empty-string": b'""',
    "fraction": b"1.5",
    "negative": b"-1",
    "too-many": b"36501",
    "far-too-many": b"9" * 400,
    "list": b"[30]",
    "object": b'{"days": 30}',
}


@pytest.mark.parametrize("days", [b"30.0", b"3e1"])
def test_a_whole_number_of_days_may_be_written_in_any_way_that_json_has(
    client: FlaskClient, days: bytes
) -> None:
    rehearsal = post(client, CLEANUP, b'{"days": %s, "dry_run": true}' % days)
    assert answer_of(rehearsal)["days"] == 30


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("url", [CLEANUP, PLAN])
@pytest.mark.parametrize("days", NO_DAYS.values(), ids=NO_DAYS)
def test_days_are_a_whole_number_from_0_to_36500_and_nothing_else(
    client: FlaskClient, url: str, days: bytes
) -> None:
    body = assert_problem(post(client, url, b'{"days": %s}' % days), 422, "invalid_input", "days")
    assert "from 0 to 36500" in body["errors"]["days"][0]
    if url == CLEANUP:
        rehearsal = post(client, url, b'{"days": %s, "dry_run": true}' % days)
        assert_problem(rehearsal, 422, "invalid_input", "days")


NO_JSON = {
    "empty": b"",
    "nan": b'{"days": NaN}',
    "infinity": b'{"days": Infinity}',
    "too-large": b'{"days": 1e400}',
    "too-long": b'{"days": %s}' % (b"9" * 5000),
    "key-twice": b'{"days": 30, "days": 30}',
    "dry-run-twice": b'{"dry_run": true, "dry_run": false}',
    "half-a-surrogate-pair": b'{"plan_id": "\\ud800"}',
    "not-utf-8": b'{"tags": ["\xff"]}',
    "half-a-pair-as-tag": b'{"tags": ["\\udfff"]}',
    "pinned-twice": b'{"pinned": true, "pinned": true}',
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_a_400_for_all_that_deletes(client: FlaskClient, body: bytes) -> None:
    for response in (
        post(client, CLEANUP, body),
        post(client, PLAN, body),
        client.patch(BATCH_JOB, data=body, content_type="application/json"),
    ):
        assert_problem(response, 400, "invalid_json", "body")


# For each: where it is sent, the body, the code of the error, and the fields that it names.
UNUSABLE: dict[str, tuple[str, object, str, tuple[str, ...]]] = {
    "unknown-key": (CLEANUP, {"day": 30}, "invalid_body", ("day",)),
    "key-in-another-case": (CLEANUP, {"Dry_run": True}, "invalid_body", ("Dry_run",)),
    "several-keys": (CLEANUP, {"older": 1, "dry_run": 1}, "invalid_body", ("dry_run", "older")),
    "dry-run-string": (CLEANUP, {"dry_run": "true"}, "invalid_body", ("dry_run",)),
    "dry-run-one": (CLEANUP, {"dry_run": 1}, "invalid_body", ("dry_run",)),
    "dry-run-null": (CLEANUP, {"dry_run": None}, "invalid_body", ("dry_run",)),
    "dry-run-list": (CLEANUP, {"dry_run": [True]}, "invalid_body", ("dry_run",)),
    "allow-string": (CLEANUP, {"allow": "large_share"}, "invalid_body", ("allow",)),
    "allow-object": (CLEANUP, {"allow": {"large_share": True}}, "invalid_body", ("allow",)),
    "allow-null": (CLEANUP, {"allow": None}, "invalid_body", ("allow",)),
    "allow-true": (CLEANUP, {"allow": [True]}, "invalid_body", ("allow",)),
    "allow-unknown": (CLEANUP, {"allow": ["everything"]}, "invalid_input", ("allow",)),
    "allow-long": (CLEANUP, {"allow": [LONG]}, "invalid_input", ("allow",)),
    "plan-id-number": (CLEANUP, {"plan_id": 7}, "invalid_body", ("plan_id",)),
    "plan-id-list": (CLEANUP, {"plan_id": ["a"]}, "invalid_body", ("plan_id",)),
    "plan-with-days": (CLEANUP, {"plan_id": "a", "days": 30}, "invalid_body", ("days",)),
    "plan-with-no-days": (CLEANUP, {"plan_id": "a", "days": 0}, "invalid_body", ("days",)),
    "plan-with-days-false": (CLEANUP, {"plan_id": "a", "days": False}, "invalid_body", ("days",)),
    "plan-with-allow": (
        CLEANUP,
        {"plan_id": "a", "allow": ["large_share"]},
        "invalid_body",
        ("allow",),
    ),
    "plan-to-rehearse": (CLEANUP, {"plan_id": "a", "dry_run": True}, "invalid_body", ("dry_run",)),
    "cleanup-list": (CLEANUP, [], "invalid_body", ("body",)),
    "cleanup-null": (CLEANUP, None, "invalid_body", ("body",)),
    "cleanup-number": (CLEANUP, 30, "invalid_body", ("body",)),
    "plan-dry-run": (PLAN, {"dry_run": False}, "invalid_body", ("dry_run",)),
    "plan-of-a-plan": (PLAN, {"plan_id": "a"}, "invalid_body", ("plan_id",)),
    "plan-allow-unknown": (PLAN, {"allow": [""]}, "invalid_input", ("allow",)),
    "plan-list": (PLAN, [30], "invalid_body", ("body",)),
    "mark-unknown-key": (BATCH_JOB, {"pin": True}, "invalid_body", ("pin",)),
    "mark-list": (BATCH_JOB, ["best"], "invalid_body", ("body",)),
    "pinned-string": (BATCH_JOB, {"pinned": "true"}, "invalid_body", ("pinned",)),
    "pinned-one": (BATCH_JOB, {"pinned": 1}, "invalid_body", ("pinned",)),
    "pinned-list": (BATCH_JOB, {"pinned": []}, "invalid_body", ("pinned",)),
    "tags-string": (BATCH_JOB, {"tags": "best"}, "invalid_body", ("tags",)),
    "tags-object": (BATCH_JOB, {"tags": {"best": True}}, "invalid_body", ("tags",)),
    "tags-number": (BATCH_JOB, {"tags": 1}, "invalid_body", ("tags",)),
    "tag-number": (BATCH_JOB, {"tags": ["best", 1]}, "invalid_body", ("tags",)),
    "tag-null": (BATCH_JOB, {"tags": [None]}, "invalid_body", ("tags",)),
    "tag-list": (BATCH_JOB, {"tags": [["best"]]}, "invalid_body", ("tags",)),
    "tag-empty": (BATCH_JOB, {"tags": [""]}, "invalid_input", ("tags",)),
    "tag-blank": (BATCH_JOB, {"tags": [" "]}, "invalid_input", ("tags",)),
    "tag-space-around": (BATCH_JOB, {"tags": ["best "]}, "invalid_input", ("tags",)),
    "tag-nul": (BATCH_JOB, {"tags": ["be\0st"]}, "invalid_input", ("tags",)),
    "tag-newline": (BATCH_JOB, {"tags": ["best\n"]}, "invalid_input", ("tags",)),
    "tag-escape": (BATCH_JOB, {"tags": ["\x1b[2J"]}, "invalid_input", ("tags",)),
    "tag-turned-around": (BATCH_JOB, {"tags": ["\u202ebest"]}, "invalid_input", ("tags",)),
    "tag-of-101": (BATCH_JOB, {"tags": ["a" * 101]}, "invalid_input", ("tags",)),
    "tag-long": (BATCH_JOB, {"tags": [LONG]}, "invalid_input", ("tags",)),
    "one-bad-tag": (BATCH_JOB, {"pinned": True, "tags": ["best", ""]}, "invalid_input", ("tags",)),
    "tags-too-many": (BATCH_JOB, {"tags": list(map(str, range(101)))}, "invalid_input", ("tags",)),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("url", "body", "code", "fields"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_value_that_cannot_be_used_is_a_422_that_names_its_field_and_deletes_nothing(
    client: FlaskClient, url: str, body: object, code: str, fields: tuple[str, ...]
) -> None:
    method = "PATCH" if url == BATCH_JOB else "POST"
    response = client.open(
        url, method=method, data=json.dumps(body), content_type="application/json"
    )
    problem = assert_problem(response, 422, code, *fields)
    assert all(field in problem["detail"] for field in fields)
    assert len(response.data) < 3000
    assert "\x1b" not in json.dumps(problem, ensure_ascii=False)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("method", "url", "field"),
    [
        ("DELETE", f"{BATCH_JOB}?permanent=maybe", "permanent"),
        ("DELETE", f"{BATCH_JOB}?permanent=", "permanent"),
        ("DELETE", f"{BATCH_JOB}?permanent=TRUE", "permanent"),
        ("DELETE", f"{BATCH_JOB}?permanent=1", "permanent"),
        ("DELETE", f"{BATCH_JOB}?dry_run=true", "dry_run"),
        ("DELETE", f"{TRASH_URL}?job_id=batch", "job_id"),
        ("DELETE", f"{TRASH_URL}?dry_run=true", "dry_run"),
        ("POST", f"{RESTORE}?project_id=anime", "project_id"),
        ("POST", f"{CLEANUP}?dry_run=true", "dry_run"),
        ("POST", f"{CLEANUP}?days=36500", "days"),
        ("POST", f"{PLAN}?days=36500", "days"),
    ],
)
def test_words_in_an_address_are_understood_or_refused_and_never_passed_over(
    trusted: FlaskClient, method: str, url: str, field: str
) -> None:
    body: Json | None = {} if method == "POST" else None
    assert_problem(trusted.open(url, method=method, json=body), 422, "invalid_body", field)


BODILESS = [("DELETE", BATCH_JOB), ("DELETE", TRASH_URL), ("POST", RESTORE)]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("method", "url"), BODILESS)
def test_a_body_where_none_is_needed_is_understood_or_refused_and_never_passed_over(
    trusted: FlaskClient, method: str, url: str
) -> None:
    said = trusted.open(url, method=method, json={"job_id": "mix"})
    assert_problem(said, 422, "invalid_body", "job_id")
    form = trusted.open(url, method=method, data={"job_id": "mix"})
    assert_problem(form, 415, "unsupported_media_type")
    broken = trusted.open(url, method=method, data=b"{", content_type="application/json")
    assert_problem(broken, 400, "invalid_json", "body")


@pytest.mark.parametrize(("method", "url"), BODILESS)
def test_an_empty_object_says_as_much_as_no_body(
    trusted: FlaskClient, method: str, url: str
) -> None:
    answer_of(trusted.open(url, method=method, json={}))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json"]
)
@pytest.mark.parametrize(
    ("method", "url"), [("POST", CLEANUP), ("POST", PLAN), ("PATCH", BATCH_JOB)]
)
def test_a_body_that_is_not_called_json_deletes_nothing(
    client: FlaskClient, method: str, url: str, content_type: str | None
) -> None:
    for content in (b"{}", b""):
        response = client.open(url, method=method, data=content, content_type=content_type)
        assert_problem(response, 415, "unsupported_media_type")


# Methods.


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("path", "allowed", "others"),
    [
        ("/jobs/batch", {"GET", "HEAD", "PATCH", "DELETE"}, {"POST", "PUT"}),
        ("/jobs/batch/restore", {"POST"}, {"GET", "PUT", "PATCH", "DELETE"}),
        ("/trash", {"GET", "HEAD", "DELETE"}, {"POST", "PUT", "PATCH"}),
        ("/cleanup", {"POST"}, {"GET", "PUT", "PATCH", "DELETE"}),
        ("/cleanup/plan", {"POST"}, {"GET", "PUT", "PATCH", "DELETE"}),
    ],
)
def test_each_address_takes_its_own_methods_and_names_them(
    trusted: FlaskClient, path: str, allowed: set[str], others: set[str]
) -> None:
    url = f"{PREFIX}{path}"
    options = trusted.options(url)
    assert (options.status_code, set(options.allow)) == (200, {*allowed, "OPTIONS"})
    for method in others:
        response = trusted.open(url, method=method)
        assert_problem(response, 405, "method_not_allowed")
        assert set(response.allow) >= allowed - {"HEAD"}
        assert method not in response.allow
    if "HEAD" in allowed:
        head, whole = trusted.head(url), trusted.get(url)
        assert (head.status_code, head.data) == (200, b"")
        assert head.content_length == len(whole.data)


# Paths of the server.


def every_answer(client: FlaskClient, root: Path) -> list[TestResponse]:
    """Ask for everything that is there for deleting, and get what is answered and what is refused."""
    plan = post(client, PLAN, {})
    said = [
        plan,
        client.patch(BATCH_JOB, json={"tags": ["best"]}),
        post(client, CLEANUP, {"plan_id": plan.get_json()["plan_id"]}),
        post(client, CLEANUP, {"dry_run": True}),
        client.delete(BATCH_JOB),
        client.delete(BATCH_JOB),
        client.get(BATCH_JOB),
        client.get(TRASH_URL),
        client.post(RESTORE),
        client.post(RESTORE),
        client.patch(BATCH_JOB, json={"pinned": True}),
        client.delete(BATCH_JOB),
        post(client, CLEANUP, {"days": 0}),
        post(client, CLEANUP, {"days": -1}),
        client.delete(TRASH_URL),
        client.delete(f"{PREFIX}/jobs/nobody"),
    ]
    # The disk has something else where the trash and the plans should lie.
    patched(client, {"pinned": False})
    for path in (TRASH, PLANS):
        (root / path).rename(root / f"{path}.away")
        (root / path).write_bytes(b"a file")
    said += [client.delete(BATCH_JOB), post(client, CLEANUP, {"days": 0}), post(client, PLAN, {})]
    assert [response.status_code for response in said[-3:]] == [503, 503, 503]
    return said


@pytest.mark.parametrize("show_paths", [True, False])
def test_no_message_names_a_path_of_the_server_and_no_answer_where_they_are_not_to_be_shown(
    make_host: MakeHost, output_root: Path, *, show_paths: bool
) -> None:
    client = make_host(trust_loopback=True, show_paths=show_paths).test_client()
    answers = every_answer(client, output_root)
    shown = 0
    for response in answers:
        if response.status_code == 200 and show_paths:
            shown += f'"file_path": "{output_root}/projects/anime/batch/' in response.text
        else:
            assert str(output_root) not in response.text
            assert "file_path" not in response.text
    assert shown == (4 if show_paths else 0)  # twice patched, twice restored


def test_a_library_whose_root_is_missing_is_a_503_for_all_of_it(
    make_host: MakeHost, tmp_path: Path
) -> None:
    root = tmp_path / "not" / "mounted"
    client = make_host(output_dir=root, trust_loopback=True).test_client()
    for response in (
        client.get(TRASH_URL),
        client.delete(TRASH_URL),
        client.delete(BATCH_JOB),
        client.post(RESTORE),
        client.patch(BATCH_JOB, json={}),
        post(client, CLEANUP, {}),
        post(client, CLEANUP, {"dry_run": True}),
        post(client, PLAN, {}),
    ):
        assert_problem(response, 503, "library_unavailable")
        assert str(tmp_path) not in response.text
        assert int(response.headers["Retry-After"]) > 0
    assert not root.parent.exists()


def test_a_library_that_was_never_begun_has_nothing_to_delete_and_stays_like_that(
    make_host: MakeHost, tmp_path: Path
) -> None:
    root = tmp_path / "fresh"
    root.mkdir()
    (root / MIX).write_bytes(recording(MIX))
    client = make_host(output_dir=root).test_client()
    assert got(client, TRASH_URL) == {"jobs": [], "files": 0, "bytes": 0}
    for body in ({"dry_run": True}, {"days": 0}):
        answer = asked(client, CLEANUP, body)
        assert (answer["found"], answer["deleted_files"]) == (tally(0, 0), 0)
    assert_problem(client.delete(f"{PREFIX}/jobs/mix"), 404, "job_not_found")
    assert read_tree(root) == {MIX: recording(MIX)}
