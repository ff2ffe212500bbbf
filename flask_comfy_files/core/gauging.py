"""A library in numbers for who watches it: what its index keeps as totals, and nothing that has to be counted.

Asking costs the same however many files there are; it grows with the number of projects alone.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask_comfy_files.core import plans, tasks
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.metering import Totals
from flask_comfy_files.core.records import DiskUsage, Health, PendingJob, Tally
from flask_comfy_files.core.tasks import TaskState

MOST_PROJECTS: Final = 200
"""How many projects are told apart: each is a few time series of whoever collects them."""

OTHERS: Final = "(other)"
"""The name under which all further projects are added up; no project can have it."""

_UNDER_WAY: Final = (TaskState.RUNNING, TaskState.CANCELLING, TaskState.INTERRUPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How a library stands just now; bytes that records share are counted once.

    ``files`` are by project and file type. Of more than 200 projects those with the most files stand for
    themselves, and the rest is added up under ``(other)``. ``tasks`` are by state, those that have ended
    apart. A time is ``None`` where there is none.
    """

    files: Mapping[tuple[str, str], Tally]
    jobs: int
    projects: int
    legacy: Tally
    trash: Tally
    pending_jobs: int
    oldest_pending_at: datetime | None
    tasks: Mapping[str, int]
    cleanup_began_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryMetrics:
    """What there is to watch: how the library stands, and what its processes have counted so far.

    ``gauges`` and ``disk`` are ``None`` where they cannot be had. ``counted`` has by metric and labels what
    ``docs/how-to/monitor.md`` lists, of all processes together; it is empty where nothing is counted.
    """

    health: Health
    disk: DiskUsage | None
    gauges: Gauges | None
    counted: Totals


def gauge(root: str, reader: Reader, waiting: Iterable[PendingJob]) -> Gauges:
    """Return how a library stands in which some completions wait."""
    totals = reader.totals()
    pending = list(waiting)
    states = Counter(task.state for task in tasks.list_tasks(root))
    return Gauges(
        files=_largest(reader.kept_totals()),
        jobs=totals.jobs,
        projects=totals.projects,
        legacy=Tally(files=totals.legacy_files, bytes=totals.legacy_size),
        trash=reader.trash_totals(),
        pending_jobs=len({job.job_id for job in pending}),
        oldest_pending_at=min((datetime.fromisoformat(job.since) for job in pending), default=None),
        tasks={str(state): states[state] for state in _UNDER_WAY},
        cleanup_began_at=plans.last_attempt(root),
    )


def _largest(kept: Mapping[tuple[str, str], Tally]) -> dict[tuple[str, str], Tally]:
    """Return totals of projects and types, those of all but the largest projects added up."""
    numbers: Counter[str] = Counter()
    for (project_id, _), tally in kept.items():
        numbers[project_id] += tally.files
    names = heapq.nlargest(MOST_PROJECTS, numbers, key=lambda name: (numbers[name], name))
    shown = frozenset(names)
    gauged: dict[tuple[str, str], Tally] = {}
    for (project_id, file_type), tally in sorted(kept.items()):
        key = (project_id if project_id in shown else OTHERS), file_type
        before = gauged.get(key, Tally())
        gauged[key] = Tally(files=before.files + tally.files, bytes=before.bytes + tally.bytes)
    return gauged
