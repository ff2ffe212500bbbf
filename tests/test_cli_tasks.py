"""The commands that list and cancel the long work of servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from tests.conftest import MakeTree
from tests.test_cli_migration import Run, answer_of, run, run_in, said

__all__ = ["run", "run_in"]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder."""
    return make_tree({"a.png": b"a"})


def test_tasks_are_listed_with_their_progress_or_with_what_went_wrong(
    run: Run, output_root: Path
) -> None:
    assert said(run("tasks")) == ["No work took longer than a request."]
    with FileManager(output_root) as manager:
        first = manager.begin_task("migrate", {"dry_run": True}, (3, 9, 2048))
        second = manager.begin_task("adopt", {})
        second.fail({"code": "storage", "detail": "The disk\x1b[2J is full."})
        lines = said(run("tasks"))
        first.release()
    first_at, second_at = (manager.get_task(task.task_id).started_at for task in (first, second))
    assert sorted(lines) == sorted(
        [
            f"{first_at}  {first.task_id}  migrate (rehearsal)  running, 3 of 9, 2.0 KB",
            f"{second_at}  {second.task_id}  adopt  failed, 0 of ?: The disk\\x1b[2J is full.",
        ]
    )
    answer = json.loads(run("tasks", "--json").output)
    assert [task["kind"] for task in answer["tasks"]] == ["adopt", "migrate"]
    assert [task["state"] for task in answer["tasks"]] == ["failed", "interrupted"]


def test_a_task_is_cancelled_by_its_id(run: Run, output_root: Path) -> None:
    with FileManager(output_root) as manager:
        task = manager.begin_task("verify", {})
        assert said(run("cancel", task.task_id))[0].endswith("  verify  cancelling, 0 of ?")
        task.release()
    assert answer_of(run("cancel", task.task_id, "--json"))["state"] == "cancelled"


def test_an_unknown_task_ends_with_3(run: Run) -> None:
    result = run("cancel", "0" * 32)
    assert result.exit_code == 3
    assert "No task" in result.stderr
