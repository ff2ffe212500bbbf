"""Folders as values: written from a dict, read back into one, so that a test compares whole trees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask_comfy_files.core.layout import DOCUMENT, INDEX, LOCK, STATE

RECORDINGS = Path(__file__).parent / "data/comfyui/outputs/output"
"""The output folder that a real ComfyUI has written."""

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
TIMESTAMP = "1770091506"
"""``NOW`` as the names of organized files show it."""

AN_HOUR_AGO = NOW - timedelta(hours=1)


BATCH = [f"batch_{number:05}_.png" for number in (1, 2, 3, 4)]
"""The recorded images of one job."""


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Fifo:
    """A named pipe, which blocks whoever opens it."""


Entry = bytes | Link | Fifo | None
"""``None`` stands for an empty folder."""

Tree = dict[str, Entry]
"""What stands in a folder, by path; folders are named only where they are empty."""


class Clock:
    """The time of day as the test sets it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def recording(path: str) -> bytes:
    """Return the bytes of a file that a real ComfyUI has written."""
    return (RECORDINGS / path).read_bytes()


def copy_recordings(root: Path) -> Path:
    """Put a fresh and writable copy of the recorded output folder at a path, an hour old."""
    shutil.copytree(RECORDINGS, root, copy_function=shutil.copyfile)
    for folder, _, names in os.walk(root):
        Path(folder).chmod(0o755)
        for name in names:
            set_modified(Path(folder, name), AN_HOUR_AGO)
    return root


def set_modified(path: Path, at: datetime) -> None:
    """Set when a file was last modified, without following a link."""
    os.utime(path, (at.timestamp(), at.timestamp()), follow_symlinks=False)


def write_tree(root: Path, tree: Mapping[str, Entry], modified_at: datetime = AN_HOUR_AGO) -> Path:
    """Write a tree into a folder, which is made where it is missing."""
    root.mkdir(parents=True, exist_ok=True)
    for name, entry in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry is None:
            path.mkdir()
        elif isinstance(entry, Link):
            path.symlink_to(entry.target)
        elif isinstance(entry, Fifo):
            os.mkfifo(path)
        else:
            path.write_bytes(entry)
            set_modified(path, modified_at)
    return root


def read_tree(root: Path) -> Tree:
    """Return everything below a folder, links and pipes unopened."""
    tree: Tree = {}
    for folder, folders, names in os.walk(root):
        inside = Path(folder)
        if not folders and not names and inside != root:
            tree[str(inside.relative_to(root))] = None
        for name in [*names, *(name for name in folders if (inside / name).is_symlink())]:
            path = inside / name
            tree[str(path.relative_to(root))] = _entry(path)
    return tree


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        return Link(str(path.readlink()))
    return Fifo() if path.is_fifo() else path.read_bytes()


def outputs(root: Path) -> Tree:
    """Return what ``read_tree`` does, but for the document and our own folder."""
    return {
        path: entry
        for path, entry in read_tree(root).items()
        if path != DOCUMENT and path.partition("/")[0] != STATE
    }


def library(root: Path) -> Tree:
    """Return what ``read_tree`` does, but for the throw-away index and the lock."""
    thrown_away = {INDEX, f"{INDEX}-wal", f"{INDEX}-shm", LOCK}
    return {path: entry for path, entry in read_tree(root).items() if path not in thrown_away}


def organized_image(
    job_id: str, number: int = 1, project_id: str = "default", extension: str = "png"
) -> str:
    """Return where an image of a job lies that was organized at ``NOW``."""
    counter = "" if number == 1 else f"_{number}"
    return f"projects/{project_id}/{job_id}/{job_id}_{TIMESTAMP}_image{counter}.{extension}"
