"""The metrics of a library as Prometheus reads them: for the route, or for a registry of the host's.

All numbers are those of the library, and not of this process: whichever worker is asked, the answer is the
same. ``prometheus_client`` is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from flask_comfy_files.core.errors import ConfigurationError, MissingExtraError
from flask_comfy_files.core.gauging import Gauges, LibraryMetrics
from flask_comfy_files.core.manager import FileManager
from flask_comfy_files.core.metering import ABOVE, BUCKETS, Labels, Totals

_PREFIX: Final = "comfy_files_"
_STATES: Final = ("ok", "degraded", "unavailable")

_Described = Mapping[str, tuple[str, tuple[str, ...]]]
"""By name: what a metric tells, and its labels."""

GAUGES: Final[_Described] = {
    "health": ("Which state the library is in: 1, and 0 for the others.", ("state",)),
    "free_bytes": ("Bytes of the volume that may still be filled.", ()),
    "volume_bytes": ("Bytes that the volume of the output root has.", ()),
    "files": ("Files of jobs, by project and file type.", ("project", "type")),
    "bytes": ("Bytes of files of jobs, those that are shared counted once.", ("project", "type")),
    "jobs": ("Jobs that are known, those in the trash apart.", ()),
    "projects": ("Projects that are known.", ()),
    "legacy_files": ("Files that belong to no job.", ()),
    "legacy_bytes": ("Bytes of files that belong to no job.", ()),
    "trash_files": ("Files in the trash.", ()),
    "trash_bytes": ("Bytes in the trash.", ()),
    "pending_jobs": ("Jobs that were completed and wait to be organized.", ()),
    "oldest_pending_timestamp_seconds": ("Since when the oldest pending job waits.", ()),
    "tasks": ("Long work that has not ended, by state.", ("state",)),
    "last_cleanup_timestamp_seconds": ("When a cleanup was last begun.", ()),
    "last_operation_timestamp_seconds": (
        "When an operation of a kind last ended with a result.",
        ("kind", "result"),
    ),
}
COUNTERS: Final[_Described] = {
    "operations_total": ("Operations, by kind and result.", ("kind", "result")),
    "organized_files_total": ("Files that were organized.", ()),
    "organized_bytes_total": ("Bytes of files that were organized.", ()),
    "left_files_total": ("Files that operations skipped, or failed at.", ("outcome",)),
}
_AT_FIRST: Final[Totals] = {
    "organized_files_total": {(): 0},
    "organized_bytes_total": {(): 0},
    "left_files_total": {("skipped",): 0, ("failed",): 0},
}
"""Counters that are there before there is anything to count, so that the first is seen as an increase."""

HISTOGRAMS: Final[_Described] = {
    "operation_duration_seconds": ("How long operations took, by kind.", ("kind",)),
    "lock_wait_seconds": ("How long somebody waited for the library's lock.", ()),
}


def exposition(manager: FileManager, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics of a library as text, and its media type, by what the asker accepts.

    Raises:
        MissingExtraError: ``prometheus_client`` is not installed.
    """
    prometheus = _prometheus()
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(manager, prometheus))
    encode, media_type = prometheus.exposition.choose_encoder(accept)
    return encode(registry), media_type


def register(manager: FileManager, registry: Any) -> None:
    """Have a registry of the host's ask a library for its metrics whenever it is collected itself.

    Raises:
        ConfigurationError: It has the metrics of a library already.
        MissingExtraError: ``prometheus_client`` is not installed.
    """
    collector = _Collector(manager, _prometheus())
    try:
        registry.register(collector)
    except ValueError as error:
        raise ConfigurationError(
            "COMFY_FILES_METRICS_REGISTRY",
            registry,
            "it has the metrics of a library already; give each library a registry of its own.",
        ) from error


def _prometheus() -> ModuleType:
    try:
        import prometheus_client  # noqa: PLC0415 - the extra
        import prometheus_client.exposition  # noqa: PLC0415
        import prometheus_client.metrics_core  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("Metrics", "metrics") from error
    return prometheus_client


class _Collector:
    """What a registry asks, each time for the library as it stands."""

    def __init__(self, manager: FileManager, prometheus: ModuleType) -> None:
        self._manager = manager
        self._kinds = prometheus.metrics_core

    def describe(self) -> Iterator[Any]:
        """Yield what may come, without a look at the library."""
        yield from self._families({}, {})

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        metrics = self._manager.get_metrics()
        yield from self._families(_gauged(metrics), metrics.counted)

    def _families(self, gauged: Totals, counted: Totals) -> Iterator[Any]:
        yield from _filled(self._kinds.GaugeMetricFamily, GAUGES, gauged)
        begun = {name: {**amounts, **counted.get(name, {})} for name, amounts in _AT_FIRST.items()}
        yield from _filled(self._kinds.CounterMetricFamily, COUNTERS, {**counted, **begun})
        for name, (text, labels) in HISTOGRAMS.items():
            family = self._kinds.HistogramMetricFamily(_PREFIX + name, text, labels=labels)
            for values, buckets, total in _histogram(name, counted):
                family.add_metric(values, buckets=buckets, sum_value=total)
            yield family


def _filled(kind: Callable[..., Any], described: _Described, amounts: Totals) -> Iterator[Any]:
    for name, (text, labels) in described.items():
        family = kind(_PREFIX + name, text, labels=labels)
        for values, amount in amounts.get(name, {}).items():
            family.add_metric(values, amount)
        yield family


def _histogram(
    name: str, counted: Totals
) -> Iterator[tuple[Labels, list[tuple[str, float]], float]]:
    """Yield for each set of labels the numbers up to each bound, and the sum."""
    entered = counted.get(f"{name}_bucket", {})
    for values, total in counted.get(f"{name}_sum", {}).items():
        numbers = {
            float(bound): number
            for (*others, bound), number in entered.items()
            if tuple(others) == values
        }
        bounds = [*map(str, BUCKETS[name]), ABOVE]
        yield values, [(bound, _up_to(float(bound), numbers)) for bound in bounds], total


def _up_to(bound: float, numbers: Mapping[float, float]) -> float:
    return sum(number for upper, number in numbers.items() if upper <= bound)


def _gauged(metrics: LibraryMetrics) -> Totals:
    """Return the gauges of a library, by name and labels; what is not known has no value."""
    noted = metrics.counted.get("last_operation_timestamp_seconds", {})
    gauged: dict[str, dict[Labels, float]] = {
        "health": {(state,): float(state == metrics.health.state) for state in _STATES},
        "last_operation_timestamp_seconds": dict(noted),
    }
    plain = _plain(metrics.gauges) if metrics.gauges is not None else {}
    if metrics.disk is not None:
        plain |= {"free_bytes": metrics.disk.free, "volume_bytes": metrics.disk.total}
    gauged |= {name: {(): amount} for name, amount in plain.items()}
    if metrics.gauges is not None:
        files = metrics.gauges.files
        gauged["files"] = {key: tally.files for key, tally in files.items()}
        gauged["bytes"] = {key: tally.bytes for key, tally in files.items()}
        gauged["tasks"] = {(state,): number for state, number in metrics.gauges.tasks.items()}
    return gauged


def _plain(gauges: Gauges) -> dict[str, float]:
    """Return those that have no labels; a moment that never was has no value."""
    amounts: dict[str, float] = {
        "jobs": gauges.jobs,
        "projects": gauges.projects,
        "legacy_files": gauges.legacy.files,
        "legacy_bytes": gauges.legacy.bytes,
        "trash_files": gauges.trash.files,
        "trash_bytes": gauges.trash.bytes,
        "pending_jobs": gauges.pending_jobs,
    }
    moments = {
        "oldest_pending_timestamp_seconds": gauges.oldest_pending_at,
        "last_cleanup_timestamp_seconds": gauges.cleanup_began_at,
    }
    known = {name: at.timestamp() for name, at in moments.items() if at is not None}
    return {**amounts, **known}
