"""The library in numbers, and whether anything keeps it from working."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from flask_comfy_files.core import tasks
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.glance import glancing
from flask_comfy_files.core.catalog.identity import require_root
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import ComfyFilesError, DocumentDamagedError
from flask_comfy_files.core.layout import IMPORT
from flask_comfy_files.core.notes import read_note
from flask_comfy_files.core.presence import find_absence, why_absent
from flask_comfy_files.core.rebuilding import what_happened
from flask_comfy_files.core.records import DiskUsage, Health, SystemStats, Tally

_NONE: Final = Tally()
_MB: Final = 1024**2
_GB: Final = 1024**3


def measure(root: str, reader: Reader, *, min_free_bytes: int, waiting: int) -> SystemStats:
    """Return the numbers of a library that can be read, in which so many jobs wait to be organized.

    Raises:
        OSError: The volume cannot be asked.
    """
    disk = disk_usage(root)
    totals = reader.totals()
    return _stats(
        files=totals.files,
        size=totals.size,
        projects=totals.projects,
        jobs=totals.jobs,
        file_types=dict(totals.types),
        legacy=Tally(files=totals.legacy_files, bytes=totals.legacy_size),
        trash=reader.trash_totals(),
        pending_jobs=waiting,
        disk=disk,
        health=_health([*_problems(root, disk, min_free_bytes, waiting)]),
    )


def check(root: str, catalog: Catalog, *, min_free_bytes: int, unwritten: int) -> Health:
    """Say whether anything keeps a library from working; ``unwritten`` completions wait in this process alone.

    It takes no time: nobody is waited for, nothing is mended, and what would have to be counted is left out.
    """
    try:
        require_root(root)
        why_read_only = catalog.why_read_only()
        disk = disk_usage(root)
        with glancing(root) as reader:
            waiting = unwritten + (0 if reader is None else len(reader.pending_jobs()))
            is_absent = reader is not None and find_absence(root, reader) is not None
        if is_absent and why_read_only is None:
            why_read_only = why_absent(root, catalog)
    except DocumentDamagedError as error:
        return _health([str(error)])  # whoever asks for anything next has it rebuilt
    except (ComfyFilesError, OSError, sqlite3.Error) as error:
        return Health(state="unavailable", messages=(str(error),))
    problems = [*_problems(root, disk, min_free_bytes, waiting)]
    if why_read_only is not None:
        return Health(state="unavailable", messages=(why_read_only, *problems))
    return _health(problems)


def _health(problems: list[str]) -> Health:
    return Health(state="degraded" if problems else "ok", messages=tuple(problems))


def with_warning(stats: SystemStats, why_read_only: str | None) -> SystemStats:
    """Return the numbers of a library that must not be changed, with the reason."""
    if why_read_only is None:
        return stats
    messages = (why_read_only, *stats.health.messages)
    return replace(stats, health=Health(state="unavailable", messages=messages))


def unavailable(root: str, error: Exception, waiting: int) -> SystemStats:
    """Return what can be said of a library that cannot be read: why, and how many jobs wait for it here."""
    try:
        disk = disk_usage(root)
    except OSError:
        disk = None
    health = Health(state="unavailable", messages=(str(error),))
    return _stats(pending_jobs=waiting, disk=disk, health=health)


def _stats(
    *,
    files: int = 0,
    size: int = 0,
    projects: int = 0,
    jobs: int = 0,
    file_types: dict[str, int] | None = None,
    legacy: Tally = _NONE,
    trash: Tally = _NONE,
    pending_jobs: int,
    disk: DiskUsage | None,
    health: Health,
) -> SystemStats:
    return SystemStats(
        total_files=files,
        total_size=size,
        total_size_mb=round(size / _MB, 2),
        total_size_gb=round(size / _GB, 2),
        projects=projects,
        jobs=jobs,
        file_types=file_types or {},
        legacy=legacy,
        trash=trash,
        pending_jobs=pending_jobs,
        disk=disk,
        health=health,
    )


def disk_usage(root: str) -> DiskUsage:
    """Return how full the volume of a library is.

    Raises:
        OSError: It cannot be asked.
    """
    volume = os.statvfs(root)
    return DiskUsage(
        total=volume.f_blocks * volume.f_frsize,
        used=(volume.f_blocks - volume.f_bfree) * volume.f_frsize,
        free=volume.f_bavail * volume.f_frsize,
    )


def _problems(root: str, disk: DiskUsage, min_free_bytes: int, waiting: int) -> Iterator[str]:
    if not os.access(root, os.W_OK | os.X_OK):
        yield (
            f"the output root cannot be written by uid {os.geteuid()}, so nothing can be organized;"
            " give the server's user write permission on it"
        )
    if not read_note(root, IMPORT).get("is_finished", True):
        yield "an import was interrupted; flask files import goes on with it"
    for task in tasks.interrupted(root):
        yield f"task {task.task_id} ({task.kind}) was interrupted; resume it, or cancel it"
    if disk.free < min_free_bytes:
        yield f"{disk.free} bytes are free on the volume, less than the {min_free_bytes} that MIN_FREE_BYTES keeps"
    rebuilt = what_happened(root)
    if rebuilt is not None:
        yield rebuilt
    if waiting:
        yield f"{waiting} jobs are pending; flask files retry organizes them now"
