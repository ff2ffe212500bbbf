"""Watching a library: whether it works, and numbers for who collects them."""

from __future__ import annotations

import contextlib

from flask_comfy_files.core import gauging, health
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.gauging import LibraryMetrics
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.records import Health


class Watching(Base):
    """What a manager tells of itself to who watches it."""

    def get_health(self) -> Health:
        """Return whether the library works, within moments: it waits for nobody, and mends nothing.

        ``state`` is that of ``get_system_stats``, but for what only a look at the whole document would show.
        """
        return health.check(
            self._root,
            self._catalog,
            min_free_bytes=self.settings.min_free_bytes,
            unwritten=self._completion.unwritten_count,
        )

    def get_metrics(self) -> LibraryMetrics:
        """Return what there is to watch, of all processes that share the library; never fails.

        It costs the same however many files there are. Operations are counted where ``METRICS_ROUTE`` or
        ``METRICS_REGISTRY`` is set.
        """
        disk, gauges = None, None
        with contextlib.suppress(OSError):
            disk = health.disk_usage(self._root)
        with contextlib.suppress(ComfyFilesError, OSError):
            waiting = self._completion.pending_jobs()
            with self._reading() as reader:
                gauges = gauging.gauge(self._root, reader, waiting)
        return LibraryMetrics(
            health=self.get_health(),
            disk=disk,
            gauges=gauges,
            counted={} if self._meter is None else self._meter.read(),
        )
