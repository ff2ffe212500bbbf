"""Migrating, listing what belongs to nobody, and assigning it, over REST."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files.core import lock
from flask_comfy_files.core.layout import MIGRATION_LOCK
from tests.conftest import MakeTree
from tests.core.test_migration import TIME, check_library, clip, image, tagged
from tests.trees import Tree, library, outputs, read_tree
from tests.web.answers import (
    FILE_KEYS,
    PREFIX,
    Json,
    answer_of,
    assert_problem,
    organized,
    post,
    tally,
)
from tests.web.conftest import MakeHost, lock_held_elsewhere

MIGRATE, LEGACY, ASSIGN = (f"{PREFIX}/{rest}" for rest in ("migrate", "legacy", "legacy/assign"))
STEM = f"x_{TIME}_00001"
TREE: Tree = {
    f"{STEM}.mp4": clip("x"),
    f"{STEM}.png": image("x"),
    "a.txt": b"the same",
    "b.bin": b"the same",
    "tagged.png": tagged("job_1", "anime"),
    "sub/c.png": image("c"),
    ".hidden": b"h",
}
KEYS = [
    *("found", "migrated", "moved_to_legacy", "left", "skipped", "failed", "jobs", "file_types"),
    *("duplicates", "moves", "dry_run", "operation_id"),
]
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder with files of all kinds."""
    return make_tree(TREE)


def migrate(client: FlaskClient, **body: Any) -> Json:
    """Migrate, or rehearse it, and return the answer, which must add up."""
    answer = answer_of(post(client, MIGRATE, body))
    assert list(answer) == KEYS
    left = [*answer["skipped"], *answer["failed"]]
    for key, of_left in (("files", len(left)), ("bytes", sum(entry["bytes"] for entry in left))):
        parts = [answer[part][key] for part in ("migrated", "moved_to_legacy", "left")]
        assert answer["found"][key] == sum(parts) + of_left
    return answer


def size_of(*names: str) -> int:
    """Return how many bytes some files of the tree have."""
    return sum(len(entry) for name in names if isinstance(entry := TREE[name], bytes))


def folders_of(answer: Json) -> dict[str, str]:
    """Return the folder into which each file went."""
    return {move["path"]: move["target"].rpartition("/")[0] for move in answer["moves"]}


TIMED = f"projects/legacy_migration/legacy_{TIME}"
FLAT = {
    f"{STEM}.mp4": TIMED,
    f"{STEM}.png": TIMED,
    "a.txt": "legacy",
    "b.bin": "legacy",
    "tagged.png": "projects/anime/job_1",
}


def test_a_migration_answers_what_became_of_each_file(
    client: FlaskClient, output_root: Path
) -> None:
    answer = migrate(client)
    timed, signed = (f"{STEM}.mp4", f"{STEM}.png"), ("tagged.png",)
    assert answer == {
        "found": tally(6, size_of(*FLAT)),
        "migrated": tally(3, size_of(*timed, *signed)),
        "moved_to_legacy": tally(2, 16),
        "left": tally(0, 0),
        "skipped": [{"path": ".hidden", "reason": "hidden", "bytes": 0}],
        "failed": [],
        "jobs": [
            {
                "job_id": job_id,
                "project_id": project_id,
                "files": len(names),
                "bytes": size_of(*names),
                "evidence": evidence,
            }
            for job_id, project_id, names, evidence in (
                ("job_1", "anime", signed, "tag"),
                (f"legacy_{TIME}", "legacy_migration", timed, "time"),
            )
        ],
        "file_types": {"image": 2, "other": 1, "text": 1, "video": 1},
        "duplicates": [
            {
                "checksum": hashlib.sha256(b"the same").hexdigest(),
                "bytes": 8,
                "paths": ["a.txt", "b.bin"],
            }
        ],
        "moves": answer["moves"],
        "dry_run": False,
        "operation_id": answer["operation_id"],
    }
    assert folders_of(answer) == FLAT
    assert {move["target"]: TREE[move["path"]] for move in answer["moves"]} == {
        path: entry for path, entry in outputs(output_root).items() if "/" in path[4:]
    }
    check_library(output_root)
    status = answer_of(client.get(f"{PREFIX}/status"))
    assert status["legacy"] == tally(2, 16)


def test_a_rehearsal_answers_the_same_and_changes_nothing(
    client: FlaskClient, output_root: Path
) -> None:
    before = read_tree(output_root)
    plan = migrate(client, dry_run=True)
    assert read_tree(output_root) == before
    assert (plan.pop("dry_run"), plan.pop("operation_id")) == (True, None)
    done = migrate(client, dry_run=False)
    assert (done.pop("dry_run"), len(done.pop("operation_id"))) == (False, 32)
    names = [[move.pop("target") for move in answer["moves"]] for answer in (plan, done)]
    assert plan == done
    assert [len(targets) for targets in names] == [5, 5]


def test_each_wish_of_the_body_is_heard(client: FlaskClient) -> None:
    assert migrate(client, dry_run=True, recursive=True)["found"]["files"] == 7
    left = migrate(client, dry_run=True, leave_unmatched=True)
    assert (left["left"], left["moved_to_legacy"]) == (tally(2, 16), tally(0, 0))
    jobs = [{"job_id": "job_9", "project_id": "p", "files": ["a.txt", "sub/c.png"]}]
    listed = folders_of(migrate(client, dry_run=True, jobs=jobs))
    assert listed["a.txt"] == listed["sub/c.png"] == "projects/p/job_9"
    by_day = migrate(client, dry_run=True, group_by="day")
    assert [job["job_id"] for job in by_day["jobs"]][-1] == "legacy_day_20260203"
    nothing = {"recursive": False, "leave_unmatched": False, "jobs": None, "group_by": None}
    assert folders_of(migrate(client, dry_run=True, **nothing)) == FLAT


def test_a_history_is_taken_as_a_list_of_jobs(client: FlaskClient) -> None:
    run = {
        "prompt": [0, "run-1", {}, {}, []],
        "outputs": {"9": {"images": [{"filename": "a.txt", "subfolder": "", "type": "output"}]}},
        "status": {"messages": []},
    }
    answer = migrate(client, dry_run=True, jobs={"run-1": run})
    assert folders_of(answer)["a.txt"] == "projects/default/run-1"


JOB = {"job_id": "job_1", "files": ["a.txt"]}
# For each: the body, the code of the error, and the field that it names.
UNUSABLE: dict[str, tuple[Any, str, str]] = {
    "dry-run-word": ({"dry_run": "false"}, "invalid_body", "dry_run"),
    "dry-run-number": ({"dry_run": 1}, "invalid_body", "dry_run"),
    "dry-run-null": ({"dry_run": None}, "invalid_body", "dry_run"),
    "recursive-word": ({"recursive": "yes"}, "invalid_body", "recursive"),
    "leave-unmatched-number": ({"leave_unmatched": 0}, "invalid_body", "leave_unmatched"),
    "unknown-key": ({"dryrun": True}, "invalid_body", "dryrun"),
    "command-line-key": ({"dry-run": True}, "invalid_body", "dry-run"),
    "group-by-number": ({"group_by": 1}, "invalid_body", "group_by"),
    "group-by-list": ({"group_by": ["day"]}, "invalid_body", "group_by"),
    "group-by-unknown": ({"group_by": "week"}, "invalid_input", "group_by"),
    "group-by-empty": ({"group_by": ""}, "invalid_input", "group_by"),
    "jobs-text": ({"jobs": "a.txt"}, "invalid_input", "jobs"),
    "jobs-number": ({"jobs": 1}, "invalid_input", "jobs"),
    "jobs-false": ({"jobs": False}, "invalid_input", "jobs"),
    "jobs-of-text": ({"jobs": ["a.txt"]}, "invalid_input", "jobs[0]"),
    "jobs-unknown-key": ({"jobs": [{**JOB, "name": 1}]}, "invalid_input", "jobs[0]"),
    "jobs-no-files": ({"jobs": [{"job_id": "j"}]}, "invalid_input", "jobs[0]"),
    "jobs-job-id": ({"jobs": [{**JOB, "job_id": ".."}]}, "invalid_identifier", "jobs[0].job_id"),
    "jobs-project-id": (
        {"jobs": [{**JOB, "project_id": 7}]},
        "invalid_identifier",
        "jobs[0].project_id",
    ),
    "jobs-files": ({"jobs": [{**JOB, "files": "a"}]}, "invalid_input", "jobs[0].files"),
    "jobs-absolute": ({"jobs": [{**JOB, "files": ["/x"]}]}, "unsafe_path", "jobs[0].files[0]"),
    "jobs-outside": ({"jobs": [{**JOB, "files": ["../x"]}]}, "unsafe_path", "jobs[0].files[0]"),
    "jobs-file-twice": (
        {"jobs": [JOB, {"job_id": "job_2", "files": ["a.txt"]}]},
        "invalid_input",
        "jobs[1]",
    ),
    "jobs-no-history": ({"jobs": {"run-1": {}}}, "invalid_input", "jobs.run-1"),
    "list": ([], "invalid_body", "body"),
    "null": (None, "invalid_body", "body"),
}


@pytest.mark.parametrize(("body", "code", "field"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("rehearsal", [{}, {"dry_run": True}], ids=["done", "rehearsed"])
def test_a_body_that_cannot_be_used_is_refused_by_its_field_and_nothing_moves(
    client: FlaskClient,
    output_root: Path,
    body: Any,
    code: str,
    field: str,
    rehearsal: dict[str, bool],
) -> None:
    before = read_tree(output_root)
    whole = {**rehearsal, **body} if isinstance(body, dict) else body
    assert_problem(post(client, MIGRATE, whole), 422, code, field)
    assert read_tree(output_root) == before


def test_a_body_that_is_no_json_is_refused(client: FlaskClient, output_root: Path) -> None:
    before = read_tree(output_root)
    assert_problem(post(client, MIGRATE, b"{"), 400, "invalid_json", "body")
    assert_problem(post(client, MIGRATE, b""), 400, "invalid_json", "body")
    answer = post(client, MIGRATE, b"dry_run=1", content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 415
    assert read_tree(output_root) == before


def test_what_belongs_to_nobody_is_listed_with_every_key(
    client: FlaskClient, output_root: Path
) -> None:
    assert answer_of(client.get(LEGACY)) == {"files": [], "file_count": 0, "total_size": 0}
    migrate(client)
    answer = answer_of(client.get(LEGACY))
    assert list(answer) == ["files", "file_count", "total_size"]
    assert (answer["file_count"], answer["total_size"]) == (2, 16)
    for record, name in zip(answer["files"], ("a.txt", "b.bin"), strict=True):
        assert list(record) == FILE_KEYS
        assert (record["job_id"], record["project_id"], record["evidence"]) == (None, None, "none")
        assert (record["path"], record["original_path"]) == (f"legacy/{name}", name)
        assert record["file_path"] == f"{output_root}/legacy/{name}"
        assert record["checksum"] == hashlib.sha256(b"the same").hexdigest()
        assert answer_of(client.get(f"{PREFIX}/{record['file_id']}")) == record


def test_paths_of_the_server_are_hidden_where_that_is_set(make_host: MakeHost) -> None:
    client = make_host(show_paths=False).test_client()
    migrate(client)
    (record, _) = answer_of(client.get(LEGACY))["files"]
    assert "file_path" not in record
    answer = answer_of(post(client, ASSIGN, {"files": [record["path"]], "job_id": "job_1"}))
    assert all("file_path" not in record for record in answer["files"])


ASSIGN_KEYS = [
    *("job_id", "project_id", "files", "file_count", "found", "assigned", "already_there"),
    *("skipped", "failed", "operation_id"),
]


def test_chosen_files_are_assigned_by_path_and_id(client: FlaskClient, output_root: Path) -> None:
    migrate(client)
    first, second = answer_of(client.get(LEGACY))["files"]
    body = {"files": [first["path"], second["file_id"], "gone"], "job_id": "job_1"}
    answer = answer_of(post(client, ASSIGN, body))
    assert list(answer) == ASSIGN_KEYS
    assert (answer["job_id"], answer["project_id"], answer["file_count"]) == ("job_1", "anime", 3)
    assert answer["found"] == tally(3, 16)
    assert answer["assigned"] == tally(2, 16)
    assert answer["skipped"] == [{"path": "gone", "reason": "not_found", "bytes": 0}]
    assert [record["evidence"] for record in answer["files"]] == ["tag", "assigned", "assigned"]
    assert answer["files"][1]["file_id"] == first["file_id"]
    assert answer_of(client.get(f"{PREFIX}/jobs/job_1"))["files"] == answer["files"]
    assert answer_of(client.get(LEGACY))["files"] == []
    again = answer_of(post(client, ASSIGN, {"files": [first["file_id"]], "job_id": "job_1"}))
    assert (again["already_there"], again["operation_id"]) == (tally(1, 8), None)
    check_library(output_root)


CHOICE = {"files": ["legacy/a.txt"], "job_id": "job_2"}
UNUSABLE_CHOICES: dict[str, tuple[Any, str, str]] = {
    "no-files": ({"job_id": "job_2"}, "invalid_body", "files"),
    "no-job": ({"files": ["x"]}, "invalid_body", "job_id"),
    "files-empty": ({**CHOICE, "files": []}, "invalid_body", "files"),
    "files-text": ({**CHOICE, "files": "legacy/a.txt"}, "invalid_body", "files"),
    "files-null": ({**CHOICE, "files": None}, "invalid_body", "files"),
    "files-of-numbers": ({**CHOICE, "files": [1]}, "invalid_body", "files"),
    "job-number": ({**CHOICE, "job_id": 7}, "invalid_body", "job_id"),
    "job-path": ({**CHOICE, "job_id": "../x"}, "invalid_identifier", "job_id"),
    "project-path": ({**CHOICE, "project_id": "a/b"}, "invalid_identifier", "project_id"),
    "project-number": ({**CHOICE, "project_id": 7}, "invalid_body", "project_id"),
    "unknown-key": ({**CHOICE, "project": "x"}, "invalid_body", "project"),
    "list": ([CHOICE], "invalid_body", "body"),
}


@pytest.mark.parametrize(("body", "code", "field"), UNUSABLE_CHOICES.values(), ids=UNUSABLE_CHOICES)
def test_a_choice_that_cannot_be_used_is_refused_by_its_field_and_nothing_moves(
    client: FlaskClient, output_root: Path, body: Any, code: str, field: str
) -> None:
    migrate(client)
    before = library(output_root)
    assert_problem(post(client, ASSIGN, body), 422, code, field)
    assert library(output_root) == before


def test_an_owner_that_contradicts_the_library_is_a_conflict(
    client: FlaskClient, output_root: Path
) -> None:
    migrate(client)
    before = library(output_root)
    for body, code in (
        ({**CHOICE, "job_id": "job_1", "project_id": "manga"}, "job_in_other_project"),
        ({**CHOICE, "job_id": "JOB_1"}, "identifier_case"),
        ({**CHOICE, "project_id": "Anime"}, "identifier_case"),
    ):
        assert_problem(post(client, ASSIGN, body), 409, code)
    assert library(output_root) == before


def test_a_conflict_with_the_library_fails_the_files_of_a_migration_and_answers_200(
    client: FlaskClient, make_tree: MakeTree
) -> None:
    make_tree({"other.png": image("other")})
    organized(client, {"job_id": "JOB_1", "files": ["other.png"]})
    answer = migrate(client)
    size = size_of("tagged.png")
    assert answer["failed"] == [{"path": "tagged.png", "reason": "identifier_case", "bytes": size}]


Call = Callable[..., TestResponse]


def rehearse(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, MIGRATE, {"dry_run": True}, **options)


def carry_out(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, MIGRATE, {}, **options)


def assign(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, ASSIGN, CHOICE, **options)


def get_legacy(client: FlaskClient, **options: Any) -> TestResponse:
    return client.get(LEGACY, **options)


CHANGES = pytest.mark.parametrize("call", [rehearse, carry_out, assign])


@CHANGES
def test_a_stranger_may_neither_migrate_nor_rehearse_it_nor_assign(
    client: FlaskClient, output_root: Path, call: Call
) -> None:
    before = read_tree(output_root)
    assert_problem(call(client, environ_overrides=STRANGER), 403, "access_denied")
    crossing = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert_problem(call(client, headers=crossing), 403, "access_denied")
    assert read_tree(output_root) == before
    assert answer_of(get_legacy(client, environ_overrides=STRANGER))["files"] == []


@CHANGES
def test_with_a_token_only_its_holder_may(make_host: MakeHost, call: Call) -> None:
    client = make_host(token="correct-horse-battery-staple").test_client()
    bearer = {"Authorization": "Bearer correct-horse-battery-staple"}
    assert_problem(call(client), 401, "token_required")
    assert_problem(get_legacy(client), 401, "token_required")
    assert call(client, headers=bearer).status_code == 200
    assert get_legacy(client, headers=bearer).status_code == 200


@pytest.mark.parametrize(
    ("call", "action"),
    [(rehearse, "write"), (carry_out, "write"), (assign, "write"), (get_legacy, "read")],
)
def test_a_host_that_authorizes_is_asked_for_the_right_action(
    make_host: MakeHost, output_root: Path, call: Call, action: str
) -> None:
    asked = []

    def authorize(_request: Request, wanted: str) -> bool:
        asked.append(str(wanted))
        return False

    before = read_tree(output_root)
    assert_problem(call(make_host(authorize=authorize).test_client()), 403, "access_denied")
    assert asked == [action]
    assert read_tree(output_root) == before


def test_a_second_migration_is_told_to_try_again(client: FlaskClient, output_root: Path) -> None:
    migrate(client, leave_unmatched=True)
    with lock.hold(str(output_root / MIGRATION_LOCK), 1):
        response = carry_out(client)
        assert_problem(response, 503, "migration_running")
        assert response.headers["Retry-After"] == "1"
        assert migrate(client, dry_run=True)["moved_to_legacy"] == tally(2, 16)
    assert migrate(client)["moved_to_legacy"] == tally(2, 16)


def test_a_library_that_is_busy_or_missing_says_so(
    make_host: MakeHost, output_root: Path, tmp_path: Path
) -> None:
    client = make_host(lock_timeout=0.05).test_client()
    migrate(client, leave_unmatched=True)
    with lock_held_elsewhere(output_root):
        assert_problem(carry_out(client), 503, "lock_timeout")
        assert_problem(assign(client), 503, "lock_timeout")
    nowhere = make_host(output_dir=tmp_path / "not mounted").test_client()
    for call in (rehearse, carry_out, assign, get_legacy):
        assert_problem(call(nowhere), 503, "library_unavailable")


def test_names_of_any_bytes_come_through(client: FlaskClient, make_tree: MakeTree) -> None:
    names = ["not\udcffutf8.png", "new\nline.png", "アニメ.png", 'quote".png']
    make_tree({name: image(name) for name in names})
    migrate(client)
    answer = client.get(LEGACY).data
    listed = json.loads(answer.decode("utf-8"))["files"]
    assert {record["original_path"] for record in listed} >= set(names)


@pytest.mark.parametrize(
    ("method", "url"), [("GET", MIGRATE), ("POST", LEGACY), ("GET", ASSIGN), ("DELETE", LEGACY)]
)
def test_other_methods_are_refused(client: FlaskClient, method: str, url: str) -> None:
    response = client.open(url, method=method)
    assert_problem(response, 405, "method_not_allowed")
