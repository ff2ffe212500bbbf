"""The commands that write every record out and take records in: what they say, and how they end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import add_file_manager_routes
from tests.conftest import MakeTree
from tests.test_cli_keeping import Shell
from tests.trees import BATCH, recording

Run = Callable[..., Result]
RunIn = Callable[..., Run]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    return make_tree({name: recording(name) for name in BATCH})


@pytest.fixture
def run_in(output_root: Path) -> Iterator[RunIn]:
    """Return what makes a host with some settings, and returns what runs its ``files`` command."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Run:
            host = Flask("host")
            add_file_manager_routes(host, **{"output_dir": output_root, **settings})
            stack.callback(host.extensions["comfy_files"].close)

            def run(*arguments: str) -> Result:
                result = host.test_cli_runner().invoke(args=["files", *arguments])
                assert result.exception is None or isinstance(result.exception, SystemExit)
                return result

            return run

        yield make


@pytest.fixture
def run(run_in: RunIn) -> Run:
    """Return what runs ``flask files`` on a library with one job."""
    run = run_in()
    assert run("organize", "batch", "--project", "tokyo").exit_code == 0
    return run


def test_export_writes_json_that_names_every_file(run: Run) -> None:
    job = json.loads(run("job", "batch", "--json").stdout)
    records = json.loads(run("export").stdout)
    assert records == [{**record, "pinned": False, "tags": []} for record in job["files"]]


def test_export_writes_csv(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("export", "--format", "csv").stdout, newline="")))
    assert [row["original_path"] for row in rows] == BATCH


def test_export_leaves_paths_of_the_server_out_where_the_host_hides_them(
    run: Run, run_in: RunIn
) -> None:
    shown, hidden = run("export"), run_in(show_paths=False)("export")
    assert "file_path" in shown.stdout
    assert "file_path" not in hidden.stdout


def test_export_keeps_a_file_that_is_there_unless_forced(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "backup.json"
    target.write_text("mine")
    refused = run("export", "--output", str(target))
    assert (refused.exit_code, target.read_text()) == (3, "mine")
    assert refused.stderr == f"Error: output: '{target}' is there already, and is kept.\n"
    done = run("export", "--output", str(target), "--force")
    assert (done.exit_code, done.output) == (0, "")
    assert target.read_text() == run("export").stdout


def test_export_ends_without_a_word_when_nobody_reads_on(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    root = make_tree({f"x_{n}.txt": b"%d" % n for n in range(200)})
    shell = Shell(root, tmp_path)
    assert shell.run("migrate")[0] == 0
    program = shlex.join([sys.executable, "-m", "flask", "--app", "studio", "files", "export"])
    done = subprocess.run(
        ["sh", "-c", f"{program} | head -n 1"],
        cwd=tmp_path,
        env={**shell._environ},  # noqa: SLF001 - a pipe is what it does not offer
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"[\n", b"")
