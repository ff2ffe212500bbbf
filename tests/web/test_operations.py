"""Listing and undoing operations over REST."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from flask_comfy_files.core.layout import STATE
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import outputs, recording
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
from tests.web.conftest import MakeHost

OPERATIONS = f"{PREFIX}/operations"
STRANGER = {"environ_base": {"REMOTE_ADDR": "203.0.113.9"}}


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return the files of one job."""
    return make_tree({name: recording(name) for name in BATCH})


def operations(client: FlaskClient, query: str = "") -> list[Json]:
    """Return what was done, newest first."""
    found: list[Json] = answer_of(client.get(f"{OPERATIONS}{query}"))["operations"]
    return found


def undo_url(client: FlaskClient, kind: str) -> str:
    """Return where the newest operation of a kind is undone."""
    return f"{OPERATIONS}/{operations(client, f'?kind={kind}')[0]['operation_id']}/undo"


def test_operations_are_listed_page_by_page(client: FlaskClient) -> None:
    organized(client, {"job_id": "batch"})
    client.delete(f"{PREFIX}/jobs/batch")
    first = answer_of(client.get(f"{OPERATIONS}?limit=1"))
    assert list(first) == ["operations", "next_cursor"]
    second = answer_of(client.get(f"{OPERATIONS}?limit=1&cursor={first['next_cursor']}"))
    deleted, organize = first["operations"][0], second["operations"][0]
    assert second["next_cursor"] is None
    assert organize == {
        "operation_id": organize["operation_id"],
        "kind": "organize",
        "at": organize["at"],
        "jobs": 1,
        "files": 4,
        "bytes": BATCH_BYTES,
        "undone_by": None,
        "undoes": None,
        "report": {"moved": tally(4, BATCH_BYTES)},
    }
    assert (deleted["kind"], deleted["report"]["deleted_files"]) == ("delete", 4)


def test_one_operation_tells_its_changes(client: FlaskClient) -> None:
    records = organized(client, {"job_id": "batch"})["organized_files"]
    operation_id = operations(client)[0]["operation_id"]
    answer = answer_of(client.get(f"{OPERATIONS}/{operation_id}?limit=3"))
    assert [(change["from"], change["to"]) for change in answer["changes"]] == [
        (record["original_path"], record["path"]) for record in records[:3]
    ]
    rest = client.get(f"{OPERATIONS}/{operation_id}?cursor={answer['next_cursor']}")
    assert [change["file_id"] for change in answer_of(rest)["changes"]] == [records[3]["file_id"]]
    assert_problem(client.get(f"{OPERATIONS}/{'0' * 32}"), 404, "operation_not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "kinds=delete"])
def test_a_question_that_cannot_be_meant_is_refused(client: FlaskClient, query: str) -> None:
    assert client.get(f"{OPERATIONS}?{query}").status_code == 422


def test_an_operation_is_rehearsed_and_undone(client: FlaskClient, output_root: Path) -> None:
    before = outputs(output_root)
    organized(client, {"job_id": "batch"})
    url, tree = undo_url(client, "organize"), outputs(output_root)
    rehearsal = answer_of(post(client, url, {"dry_run": True}))
    assert (rehearsal["undone"], outputs(output_root)) == (tally(4, BATCH_BYTES), tree)
    answer = answer_of(client.post(url))
    assert answer == {
        "undoes": url.split("/")[-2],
        "kind": "organize",
        "found": tally(4, BATCH_BYTES),
        "undone": tally(4, BATCH_BYTES),
        "already_undone": tally(0, 0),
        "skipped": [],
        "failed": [],
        "beside": [],
        "dry_run": False,
        "operation_id": operations(client)[0]["operation_id"],
    }
    assert rehearsal == answer | {"dry_run": True, "operation_id": None}
    files = {path: content for path, content in outputs(output_root).items() if content is not None}
    assert files == before
    assert answer_of(client.post(url)) == answer
    assert_sound(output_root)
    assert_problem(post(client, url, {"dry-run": True}), 422, "invalid_body", "dry-run")
    assert_problem(client.post(f"{url}?dry_run=true"), 422, "invalid_body", "dry_run")


def test_what_cannot_be_undone_is_a_conflict(client: FlaskClient) -> None:
    organized(client, {"job_id": "batch"})
    client.patch(f"{PREFIX}/jobs/batch", json={"pinned": True})
    assert_problem(client.post(undo_url(client, "mark")), 409, "operation_not_undoable")
    assert_problem(client.post(f"{OPERATIONS}/nothing/undo"), 404, "operation_not_found")


def test_undoing_asks_for_the_right_to_do_what_it_does(make_host: MakeHost) -> None:
    asked: list[str] = []

    def allow(_request: object, action: str) -> bool:
        asked.append(str(action))
        return True

    client = make_host(authorize=allow).test_client()
    organized(client, {"job_id": "batch"})
    client.delete(f"{PREFIX}/jobs/batch")
    deletion = undo_url(client, "delete")
    client.post(f"{PREFIX}/jobs/batch/restore")
    restoration = undo_url(client, "restore")
    for url, body, expected in (
        (restoration, {"dry_run": True}, "read"),
        (restoration, {}, "delete"),
        (deletion, {}, "write"),
        (undo_url(client, "organize"), {}, "write"),
        (f"{OPERATIONS}/nothing/undo", {}, "write"),
    ):
        asked.clear()
        post(client, url, body)
        assert asked == [expected]
    latest = operations(client, "?kind=undo")
    undone_deletion = next(entry for entry in latest if entry["undoes"] == deletion.split("/")[-2])
    asked.clear()
    client.post(f"{OPERATIONS}/{undone_deletion['operation_id']}/undo")
    assert asked == ["delete"]


def test_a_stranger_reads_and_undoes_nothing(client: FlaskClient, output_root: Path) -> None:
    organized(client, {"job_id": "batch"})
    tree, url = outputs(output_root), undo_url(client, "organize")
    response = client.post(url, **STRANGER)
    assert_problem(response, 403, "access_denied")
    assert client.get(OPERATIONS, **STRANGER).status_code == 200
    assert outputs(output_root) == tree


def test_listing_where_nothing_was_done_begins_nothing(
    client: FlaskClient, output_root: Path
) -> None:
    assert answer_of(client.get(OPERATIONS)) == {"operations": [], "next_cursor": None}
    assert not (output_root / STATE).exists()
