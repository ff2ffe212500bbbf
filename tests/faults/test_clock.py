"""The machine's clock jumps by years; a cleanup says so and deletes nothing (libfaketime)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.trees import outputs, read_tree, recording, write_tree

pytestmark = pytest.mark.faults

# The wrapper program of the same package wants to write to /dev/shm; the loader fills $LIB in (ld.so(8)).
PRELOADED = {"LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1", "FAKETIME_DISABLE_SHM": "1"}

STUDIO = """
from flask import Flask
from flask_comfy_files import add_file_manager_routes

app = Flask("studio")
add_file_manager_routes(app, output_dir="output", min_free_bytes=0, trash_days=0)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an output root with two files, written just now."""
    (tmp_path / "studio.py").write_text(STUDIO)
    files = {name: recording(name) for name in ("batch_00001_.png", "mix_00001_.png")}
    return write_tree(tmp_path / "output", files, datetime.now(UTC) - timedelta(hours=1))


@pytest.fixture
def run(root: Path) -> Run:
    """Return what runs ``flask files`` on a clock that is so many years or days off."""

    def on_a_clock(off_by: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=root.parent,
            env={**os.environ, **PRELOADED, "FAKETIME": off_by},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def run_files(off_by: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        told = on_a_clock(off_by, "-c", "import time; print(time.time())")
        days = int(off_by[:-1]) * {"d": 1, "y": 365}[off_by[-1]]
        assert abs(float(told.stdout) - time.time() - days * 86_400) < 3600, told
        return on_a_clock(off_by, "-m", "flask", "--app", "studio", "files", *arguments)

    return run_files


def expect_refusal(ended: subprocess.CompletedProcess[str], reason: str) -> None:
    """Expect that a cleanup was stopped, and said why and what to do."""
    assert (ended.returncode, ended.stdout) == (3, ""), ended
    for words in (
        "The cleanup was stopped: ",
        reason,
        "it may have jumped",
        "If this is what you want, allow clock_jump.",
    ):
        assert words in ended.stderr


def test_a_cleanup_on_a_clock_years_ahead_stops_and_deletes_nothing(run: Run, root: Path) -> None:
    for off_by, job in (("-20d", "batch"), ("-10d", "mix")):
        assert run(off_by, "organize", job).returncode == 0
    assert run("-5d", "cleanup", "--yes").returncode == 0
    before = outputs(root)
    assert len(before) == 2
    for arguments in (["--yes"], ["--dry-run"], ["--make-plan"]):
        expect_refusal(
            run("+10y", "cleanup", *arguments), "every job has expired since the last cleanup at"
        )
    assert outputs(root) == before
    assert not list((root / ".comfy_files").glob("trash/*/*/*"))
    done = run("+0d", "cleanup", "--yes")
    assert done.returncode == 0, done
    assert outputs(root) == before


def test_a_cleanup_on_a_clock_years_back_stops_and_deletes_nothing(run: Run, root: Path) -> None:
    for off_by, job in (("-40d", "batch"), ("+0d", "mix")):
        assert run(off_by, "organize", job).returncode == 0
    before = read_tree(root / "projects")
    assert len(before) == 2
    expect_refusal(run("-10y", "cleanup", "--yes"), "and a job was organized at")
    assert read_tree(root / "projects") == before
    assert not list((root / ".comfy_files").glob("trash/*/*/*"))
    done = run("+0d", "cleanup", "--yes")
    assert done.returncode == 0, done
    (left,) = read_tree(root / "projects")
    assert "/mix/" in left


def test_who_says_that_the_clock_is_right_is_believed(run: Run, root: Path) -> None:
    assert run("-10d", "organize", "batch").returncode == 0
    assert run("-5d", "cleanup", "--yes").returncode == 0
    done = run("+10y", "cleanup", "--yes", "--allow", "clock_jump")
    assert done.returncode == 0, done
    assert [path for path in outputs(root) if path.startswith("projects/")] == []
