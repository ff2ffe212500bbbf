"""Whose a file of old is, as far as the file and its name tell. Touches nothing.

A time in a name says when its job began, and files of one job carry the same; a graph says what made a file.
Neither names the job, so these jobs get ids of their own, in a project of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core.layout import split
from flask_comfy_files.core.records import Evidence

PROJECT: Final = "legacy_migration"
"""The project of jobs that a migration makes up."""

_TEN_DIGITS: Final = re.compile(r"(?<![0-9])[0-9]{10}(?![0-9])", re.ASCII)
_FIRST_TIME: Final = 1_000_000_000
_TOMORROW: Final = timedelta(days=1)
_DEEPEST: Final = 20


@dataclass(frozen=True, slots=True)
class Owner:
    """The job that a file is attributed to, and by which evidence; no project where it is the job's own."""

    job_id: str
    project_id: str | None
    evidence: Evidence


def has_ten_digits(path: str) -> bool:
    """Say whether a name may hold a time, so that it is worth to know the seeds of its graph."""
    return _TEN_DIGITS.search(split(path)[1]) is not None


def owner_by_time(path: str, seeds: frozenset[str], now: datetime) -> Owner | None:
    """Return the job for which the one Unix time in a file's name stands.

    A number of ten digits is none where it is a seed of the graph that made the file, or lies before 2001
    or after tomorrow; where several are left, none is taken.
    """
    latest = (now + _TOMORROW).timestamp()
    numbers = set(_TEN_DIGITS.findall(split(path)[1])) - seeds
    times = [number for number in numbers if _FIRST_TIME <= int(number) <= latest]
    if len(times) != 1:
        return None
    return Owner(f"legacy_{times[0]}", PROJECT, Evidence.TIME)


def owner_by_day(modified_at: datetime) -> Owner:
    """Return the job that gathers what was last written on one day, in UTC."""
    return Owner(f"legacy_day_{modified_at:%Y%m%d}", PROJECT, Evidence.DAY)


def owners_by_workflow(made: Iterable[tuple[str, str, datetime]]) -> dict[str, Owner]:
    """Return for files, given with the digest of their graph and their time, the jobs that made them.

    A job is what one graph made without another graph's files in between; it is named by its first time.
    """
    owners: dict[str, Owner] = {}
    current, owner = "", None
    for path, digest, modified_at in sorted(made, key=lambda entry: (entry[2], entry[0])):
        if digest != current or owner is None:
            current = digest
            job_id = f"legacy_workflow_{int(modified_at.timestamp())}_{digest[:8]}"
            owner = Owner(job_id, PROJECT, Evidence.WORKFLOW)
        owners[path] = owner
    return owners


def seeds_of(graph: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the seeds of a graph, as a name would show them; one may come from another node."""
    return frozenset() if graph is None else frozenset(_iter_seeds(graph, graph, 0))


def _iter_seeds(graph: Mapping[str, Any], value: object, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if "seed" in str(key).lower():
                yield from _as_seeds(graph, entry)
            yield from _iter_seeds(graph, entry, depth + 1)
    elif isinstance(value, list):
        for entry in value:
            yield from _iter_seeds(graph, entry, depth + 1)


def _as_seeds(graph: Mapping[str, Any], entry: object) -> Iterator[str]:
    match entry:
        case int() | str():
            yield str(entry)
        case [str(node_id), int()]:
            match graph.get(node_id):
                case {"inputs": dict(inputs)}:
                    yield from (str(held) for held in inputs.values() if isinstance(held, int))


def digest_of(graph: Mapping[str, Any]) -> str:
    """Return what tells a graph from others."""
    return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()
