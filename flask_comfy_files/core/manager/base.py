"""What all parts of ``FileManager`` share: the collaborators it makes, and reading the library."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from flask_comfy_files.config import Settings
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.index import is_failure_of_index
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.cleanup import Cleanup, Retention
from flask_comfy_files.core.comfyui import ComfyUI
from flask_comfy_files.core.completion import Completion
from flask_comfy_files.core.deletion import Deletion
from flask_comfy_files.core.errors import ComfyFilesError, StorageError
from flask_comfy_files.core.importing import Importing
from flask_comfy_files.core.manager.observing import observed
from flask_comfy_files.core.metering import Meter
from flask_comfy_files.core.migration import Migration
from flask_comfy_files.core.operations import keep_report
from flask_comfy_files.core.organizer import Organizer
from flask_comfy_files.core.recovery import reading
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import require_room_for_records
from flask_comfy_files.core.thumbnails import Thumbnails
from flask_comfy_files.core.undoing import Undoing
from flask_comfy_files.core.witness import Witness

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)


class Report(Protocol):
    """What an operation answers."""

    @property
    def operation_id(self) -> str | None:
        """The operation; ``None`` where nothing was done."""


Answer = TypeVar("Answer", bound=Report)


def _asked_again(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is called once more when the index fails it; what it has done is not done twice."""

    @functools.wraps(method)
    def call(self: Base, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except StorageError as error:
            # What can be read only once tells nothing the second time.
            is_read = any(isinstance(given, Iterator) for given in (*arguments, *named.values()))
            if is_read or not is_failure_of_index(error):
                raise
            _log.warning("%s", error)
            return method(self, *arguments, **named)

    return call


class Base:
    """The settings and the collaborators of one manager."""

    def __init_subclass__(cls) -> None:
        """Let no caller hear of an index that fails, which is a cache; and see how operations go."""
        super().__init_subclass__()
        for name, attribute in list(vars(cls).items()):
            if inspect.isfunction(attribute) and not name.startswith("_"):
                setattr(cls, name, observed(_asked_again(attribute)))

    def __init__(
        self,
        output_dir: str | os.PathLike[str] | None = None,
        *,
        clock: Clock = utc_now,
        **settings: Any,
    ) -> None:
        """Take the output root and further settings, in lower case; what is not given has its default."""
        given = settings if output_dir is None else {**settings, "output_dir": output_dir}
        self._set_up(Settings.from_mapping({}, given, os.environ), clock)

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock = utc_now) -> Self:
        """Make one from settings that were read and checked already."""
        manager = cls.__new__(cls)
        manager._set_up(settings, clock)  # noqa: SLF001 - its own
        return manager

    def _set_up(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self._root = settings.output_dir
        self._meter = Meter(self._root) if settings.counts_operations else None
        self._catalog = Catalog(
            self._root,
            lock_timeout_s=settings.lock_timeout,
            pinned_library_id=settings.library_id,
            on_waited=None if self._meter is None else self._meter.waited,
        )
        self._witness = Witness(
            self, self._root, clock, min_free_bytes=settings.min_free_bytes, meter=self._meter
        )
        self._organizer = Organizer(
            self._root,
            self._catalog,
            clock,
            server=None if settings.comfyui_url is None else ComfyUI(settings.comfyui_url),
            min_free_bytes=settings.min_free_bytes,
        )
        self._clock = clock
        self._deletion = Deletion(self._root, self._catalog, clock, trash_days=settings.trash_days)
        retention = Retention(
            policy=settings.retention_policy,
            days=settings.retention_days,
            min_free_bytes=settings.min_free_bytes,
        )
        self._cleanup = Cleanup(self._root, self._catalog, self._deletion, clock, retention)
        self._undoing = Undoing(self._root, self._catalog, clock)
        self._migration = Migration(
            self._root,
            self._catalog,
            clock,
            default_project=settings.default_project,
            exclude=settings.exclude,
            min_free_bytes=settings.min_free_bytes,
        )
        self._thumbnails = Thumbnails(
            self._root,
            self._catalog,
            cache_bytes=settings.thumbnail_cache_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        self._importing = Importing(self._root, self._catalog, clock, settings=settings)
        self._completion = Completion(
            self._root,
            self._catalog,
            self._organizer,
            clock,
            self._witness,
            default_project=settings.default_project,
        )

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close what is open; the manager can be used again and opens it anew."""
        self._catalog.close()
        if self._meter is not None:
            self._meter.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Reader]:
        """Read the library, after finishing what a crash has left, if nobody else is at it."""
        with reading(self._root, self._catalog) as reader:
            yield reader

    def _require_room(self, count: Callable[[Reader], int]) -> None:
        """Refuse to record what a question to the library says how many files it is of, where that would not fit.

        Raises:
            OutOfSpaceError: It would not.
        """
        with self._reading() as reader:
            files = count(reader)
        if files:
            require_room_for_records(self._root, files, self.settings.min_free_bytes)

    def _kept(self, report: Answer) -> Answer:
        """Keep what an operation answers, for the list of operations, and return it."""
        with contextlib.suppress(ComfyFilesError), self._reading() as reader:
            # One that changed nothing is not known, and nothing is begun for it.
            if report.operation_id is not None and reader.find_operation(report.operation_id):
                keep_report(self._root, report.operation_id, report)
        return report
