"""Verifying and repairing over REST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_comfy_files.core.layout import DOCUMENT
from tests.trees import library, outputs, recording, write_tree
from tests.web.answers import (
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

VERIFY, REPAIR = f"{PREFIX}/verify", f"{PREFIX}/repair"
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}
STRAY = "projects/pilot/batch/stray.png"


@pytest.fixture
def paths(client: FlaskClient, output_root: Path) -> list[str]:
    """Return where four files lie that were organized; what lay in the library before is gone."""
    for path in list(outputs(output_root)):
        if path.startswith("projects/"):
            (output_root / path).unlink()
    answer = organized(client, {"job_id": "batch", "project_id": "pilot"})
    return [record["path"] for record in answer["organized_files"]]


def verify(client: FlaskClient, **body: Any) -> Json:
    """Verify, and return the answer."""
    answer = answer_of(post(client, VERIFY, body))
    assert list(answer) == ["findings", "failed", "checked", "is_complete", "cursor"]
    for finding in answer["findings"]:
        assert list(finding) == ["kind", "path", "job_id", "file_id", "detail"]
    return answer


def repair(client: FlaskClient, **body: Any) -> Json:
    """Repair, and return the answer, which must add up."""
    answer = answer_of(post(client, REPAIR, body))
    keys = ["found", "repaired", "skipped", "failed", "dry_run", "operation_id"]
    assert list(answer) == keys
    assert answer["found"] == sum(len(answer[key]) for key in keys[1:4])
    return answer


def spoil(root: Path, paths: list[str]) -> None:
    (root / paths[0]).unlink()
    write_tree(root, {paths[1]: b"x", STRAY: recording("mix_00001_.png")})


def test_a_sound_library_is_answered_as_such(client: FlaskClient, paths: list[str]) -> None:
    assert verify(client, read_bytes=True) == {
        "findings": [],
        "failed": [],
        "checked": tally(len(paths), BATCH_BYTES),
        "is_complete": True,
        "cursor": None,
    }


def test_what_is_found_can_be_rehearsed_and_repaired(
    client: FlaskClient, output_root: Path, paths: list[str]
) -> None:
    spoil(output_root, paths)
    findings = verify(client)["findings"]
    assert {finding["kind"]: finding["path"] for finding in findings} == {
        "missing": paths[0],
        "changed": paths[1],
        "untracked": STRAY,
    }
    before = library(output_root)
    plan = repair(client, findings=findings, dry_run=True)
    assert library(output_root) == before
    assert (plan["dry_run"], plan["operation_id"], len(plan["repaired"])) == (True, None, 3)
    done = repair(client, findings=findings)
    assert len(done["repaired"]) == 3
    assert len(done["operation_id"]) == 32
    record = answer_of(client.get(f"{PREFIX}/{done['repaired'][-1]['file_id']}"))
    assert (record["path"], record["evidence"]) == (STRAY, "rebuilt")
    again = repair(client, findings=findings)
    assert again["skipped"] == [
        {"kind": entry["kind"], "path": entry["path"], "reason": "stale"}
        for entry in done["repaired"]
    ]
    assert [finding["kind"] for finding in verify(client)["findings"]] == ["missing"]


def test_an_answer_whose_time_was_over_is_gone_on_with(
    client: FlaskClient,
    output_root: Path,
    paths: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(output_root, paths)
    whole = verify(client)
    ticks = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    answers = [verify(client, max_seconds=1)]
    while not answers[-1]["is_complete"]:
        assert len(answers) < 50
        answers.append(verify(client, max_seconds=1, cursor=answers[-1]["cursor"]))
    monkeypatch.undo()
    assert len(answers) > 4
    found = [str(finding) for answer in answers for finding in answer["findings"]]
    assert sorted(found) == sorted(map(str, whole["findings"]))
    assert sum(answer["checked"]["files"] for answer in answers) == 4


def test_a_request_stops_when_it_was_told_to_and_else_at_the_end(
    client: FlaskClient, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths
    ticks = iter(range(0, 10**9, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    complete = [verify(client)["is_complete"], verify(client, max_seconds=25)["is_complete"]]
    monkeypatch.undo()
    assert complete == [True, False]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"max_seconds": 26}, "invalid_body", "max_seconds"),
        ({"max_seconds": 0}, "invalid_body", "max_seconds"),
        ({"max_seconds": "5"}, "invalid_body", "max_seconds"),
        ({"max_seconds": True}, "invalid_body", "max_seconds"),
        ({"read_bytes": "yes"}, "invalid_body", "read_bytes"),
        ({"cursor": 7}, "invalid_body", "cursor"),
        ({"dry_run": True}, "invalid_body", "dry_run"),
    ],
)
def test_a_wrong_word_to_verify_is_refused(
    client: FlaskClient, body: Json, code: str, field: str
) -> None:
    assert_problem(post(client, VERIFY, body), 422, code, field)


def test_a_cursor_that_is_none_is_refused(client: FlaskClient) -> None:
    body = assert_problem(post(client, VERIFY, {"cursor": "x"}), 422, "invalid_input", "cursor")
    assert "cursor" in body["detail"]


@pytest.mark.parametrize(
    ("body", "code", "fields"),
    [
        ({}, "invalid_body", ["findings"]),
        ({"findings": {}}, "invalid_body", ["findings"]),
        ({"findings": [], "dry_run": 1}, "invalid_body", ["dry_run"]),
        ({"findings": [], "kind": "missing"}, "invalid_body", ["kind"]),
        ({"findings": [None]}, "invalid_input", ["findings[0]"]),
        ({"findings": [{"kind": "lost", "path": "x"}]}, "invalid_input", ["findings[0].kind"]),
        ({"findings": [{"kind": "missing", "path": "../x"}]}, "unsafe_path", ["findings[0].path"]),
    ],
)
def test_a_wrong_word_to_repair_is_refused_and_nothing_is_changed(
    client: FlaskClient,
    output_root: Path,
    paths: list[str],
    body: Json,
    code: str,
    fields: list[str],
) -> None:
    spoil(output_root, paths)
    before = library(output_root)
    assert_problem(post(client, REPAIR, body), 422, code, *fields)
    assert library(output_root) == before


def test_strangers_may_verify_and_not_repair(
    client: FlaskClient, output_root: Path, paths: list[str]
) -> None:
    spoil(output_root, paths)
    answer = answer_of(post(client, VERIFY, {}, environ_base=STRANGER))
    before = library(output_root)
    body = {"findings": answer["findings"]}
    assert_problem(post(client, REPAIR, body, environ_base=STRANGER), 403, "access_denied")
    assert_problem(
        post(client, REPAIR, {**body, "dry_run": True}, environ_base=STRANGER), 403, "access_denied"
    )
    assert library(output_root) == before


def test_with_a_token_verifying_needs_it_too(make_host: MakeHost) -> None:
    client = make_host(token="secret-and-long-enough").test_client()
    assert_problem(post(client, VERIFY, {}), 401, "token_required")


def test_a_busy_library_is_verified_and_repaired_later(
    make_host: MakeHost, output_root: Path, client: FlaskClient, paths: list[str]
) -> None:
    spoil(output_root, paths)
    hasty = make_host(lock_timeout=0.01).test_client()
    with lock_held_elsewhere(output_root):
        findings = verify(client)["findings"]
        assert len(findings) == 3
        response = post(hasty, REPAIR, {"findings": findings})
        assert_problem(response, 503, "lock_timeout")
        assert response.headers["Retry-After"]


def test_a_document_that_is_none_is_rebuilt_first(
    client: FlaskClient, output_root: Path, paths: list[str]
) -> None:
    assert paths
    (output_root / DOCUMENT).write_bytes(b"{}")
    report = answer_of(post(client, VERIFY, {}))
    assert (report["findings"], report["is_complete"]) == ([], True)
    assert len(list(output_root.glob(f"{DOCUMENT}.damaged-*"))) == 1
