"""What a newcomer sees first: the demo runs, and shows what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the demo needs, so that a demo in use is not disturbed."""
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    shutil.copy(ROOT / "example_app.py", tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return tmp_path


def run_demo(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, checkout / "demo/run.py"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_the_demo_succeeds_and_shows_the_organized_tree(checkout: Path) -> None:
    ran = run_demo(checkout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    tree = ran.stdout[ran.stdout.rindex("projects/tokyo_debt_series/\n") :]
    shown = re.sub(r"_\d{10}_", "_", tree).partition("\n\n")[0].splitlines()
    assert shown == [
        "projects/tokyo_debt_series/",
        "├── clip_8/",
        "│   ├── clip_8_image.png",
        "│   └── clip_8_video.mp4",
        "└── portraits_7/",
        "    ├── portraits_7_image.png",
        "    ├── portraits_7_image_2.png",
        "    ├── portraits_7_image_3.png",
        "    └── portraits_7_image_4.png",
    ]
    assert "no file could be taken: 1 not_found" in ran.stdout
    assert "\nState    ok\n" in ran.stdout


def test_the_demo_fails_and_says_what_is_wrong_when_a_file_is_not_organized(
    checkout: Path,
) -> None:
    script = checkout / "demo/run.py"
    source = script.read_text(encoding="utf-8")
    script.write_text(source.replace("batch_{n:05}_.png", "gone_{n:05}_.png"), encoding="utf-8")
    ran = run_demo(checkout)
    assert ran.returncode == 1
    assert ran.stderr.strip() == "FAILED: portraits_7 should have 4 files and be completed"
