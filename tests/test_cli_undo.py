"""The commands that list operations, and undo them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes
from tests.conftest import MakeTree
from tests.trees import Tree, outputs, recording
from tests.web.answers import BATCH, BATCH_BYTES

Run = Callable[..., Result]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return a library with one job."""
    root = make_tree({name: recording(name) for name in BATCH})
    with FileManager(root) as manager:
        assert manager.organize_output("batch").moved.files == len(BATCH)
    return root


@pytest.fixture
def run(output_root: Path) -> Iterator[Run]:
    """Return what runs ``flask files`` in a place without a terminal."""
    host = Flask("host")
    add_file_manager_routes(host, output_dir=output_root)
    yield lambda *arguments: host.test_cli_runner().invoke(args=["files", *arguments])
    host.extensions["comfy_files"].close()


def files_in(root: Path) -> Tree:
    """Return all files but our own."""
    return {path: content for path, content in outputs(root).items() if content is not None}


def newest(run: Run) -> str:
    """Return the id of what was done last."""
    answer = json.loads(run("operations", "--limit", "1", "--json").output)
    return str(answer["operations"][0]["operation_id"])


def test_operations_are_listed_in_words(run: Run) -> None:
    operation_id = newest(run)
    assert f"{operation_id}  organize  1 jobs, 4 files, {BATCH_BYTES / 1024:.1f} KB" in (
        run("operations").output
    )
    assert run("operations", "--kind", "delete").output == "Nothing was done yet.\n"
    assert run("operations", "--limit", "0").exit_code == 3


def test_undo_puts_back_and_says_how_to_undo_that(run: Run, output_root: Path) -> None:
    operation_id, tree = newest(run), files_in(output_root)
    rehearsal = run("undo", operation_id, "--dry-run").output
    assert rehearsal.startswith(f"Would undo organize {operation_id}: 4 files, ")
    assert files_in(output_root) == tree
    head, tail = run("undo", operation_id, "--yes").output.splitlines()
    assert head == rehearsal.splitlines()[0].replace("Would undo", "Undid")
    assert tail == f"flask files undo {newest(run)} undoes that."
    assert files_in(output_root) == {name: recording(name) for name in BATCH}
    again = run("undo", newest(run), "--yes", "--json")
    assert (again.exit_code, files_in(output_root)) == (0, tree)
    assert json.loads(again.output)["undone"] == {"files": 4, "bytes": BATCH_BYTES}


def test_undo_says_what_it_left_and_why(run: Run) -> None:
    operation_id = newest(run)
    assert run("delete", "batch", "--yes").exit_code == 0
    result = run("undo", operation_id, "--yes")
    assert result.exit_code == 0
    assert result.output.count(": in_trash. Restore job batch first.\n") == 4


def test_undo_asks_and_does_nothing_where_nobody_can_answer(run: Run, output_root: Path) -> None:
    tree = files_in(output_root)
    result = run("undo", newest(run))
    assert (result.exit_code, "Add --yes" in result.output) == (2, True)
    assert run("undo", "nothing", "--yes").exit_code == 3
    assert files_in(output_root) == tree


@pytest.mark.parametrize("is_meant", [True, False], ids=["yes", "no"])
def test_a_person_at_a_terminal_is_asked(
    run: Run,
    output_root: Path,
    tmp_path: Path,
    is_meant: bool,  # noqa: FBT001
) -> None:
    app = tmp_path / "host.py"
    app.write_text(
        "from flask import Flask\nfrom flask_comfy_files import add_file_manager_routes\n"
        f"app = Flask('host')\nadd_file_manager_routes(app, output_dir={str(output_root)!r})\n"
    )
    tree = files_in(output_root)
    command = [sys.executable, "-m", "flask", "--app", str(app), "files", "undo", newest(run)]
    person, terminal = pty.openpty()
    try:
        os.write(person, b"y\n" if is_meant else b"n\n")
        ended = subprocess.run(
            command, stdin=terminal, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        os.close(person)
        os.close(terminal)
    assert "Would undo organize" in ended.stderr
    assert ended.returncode == (0 if is_meant else 1)
    assert (files_in(output_root) == tree) is not is_meant
