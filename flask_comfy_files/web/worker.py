"""Threads that finish pending jobs, and clean up once a day; none is started before it is needed."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.manager import FileManager

_log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 2.5  # a file that cannot prove its end is taken after two quiet seconds
_LONGEST_ANSWER_S: Final = 5.0  # not every server says when an answer was sent
_LONGEST_DELAY_S: Final = 15 * 60.0  # what has failed so often waits for a person

Wait = Callable[[float], object]


class Worker:
    """At most one thread of this process that retries the pending jobs of one library, and one that cleans up."""

    def __init__(self, manager: FileManager, wait: Wait = time.sleep) -> None:
        """Start nothing yet; ``wait`` lets a number of seconds pass."""
        self._manager = manager
        self._wait = wait
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()
        self._cleaning: threading.Thread | None = None

    def wake(self) -> None:
        """See to it that pending jobs are being worked on, if there are any."""
        try:
            if not self._manager.get_pending_jobs():
                return
        except (ComfyFilesError, OSError) as error:
            _log.warning("pending jobs cannot be looked at: %s", error)
            return
        with self._lock:
            is_mine = self._owner == os.getpid()
            if is_mine and self._thread is not None and self._thread.is_alive():
                return
            self._owner = os.getpid()
            # A daemon: a worker that is killed in the middle leaves nothing that recovery does not finish.
            thread = threading.Thread(target=self._run, name="comfy-files-pending", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads for this process
                _log.warning("pending jobs wait for the next completion: %s", error)
            else:
                self._thread = thread

    def clean_up(self, answered: threading.Event) -> None:
        """Clean up in a thread if that is wanted and due, as soon as the answer was sent."""
        manager = self._manager
        if not manager.settings.auto_cleanup or not manager.is_cleanup_due():
            return
        with self._lock:
            # After a fork the thread is the parent's, and not alive here.
            if self._cleaning is not None and self._cleaning.is_alive():
                return
            thread = threading.Thread(
                target=self._clean_up, args=(answered,), name="comfy-files-cleanup", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads for this process
                _log.warning("the cleanup waits for the next completion: %s", error)
            else:
                self._cleaning = thread

    def _clean_up(self, answered: threading.Event) -> None:
        answered.wait(_LONGEST_ANSWER_S)
        try:
            report = self._manager.cleanup_if_due()
            if report is not None:
                self._manager.compact_if_worthwhile()
        except (ComfyFilesError, OSError) as error:
            _log.error("the daily cleanup did not go: %s", error)
            return
        except Exception:  # noqa: BLE001 - above it there is nobody but the interpreter
            _log.exception("the daily cleanup did not go")
            return
        if report is not None:
            _log.info("the daily cleanup has deleted %d files", report.deleted_files)

    def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            self._wait(delay_s)
            try:
                self._manager.retry_pending_jobs()
                if self._has_finished():
                    return
            except (ComfyFilesError, OSError) as error:
                _log.warning("pending jobs are tried again later: %s", error)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _has_finished(self) -> bool:
        """Say whether nothing is pending; who wakes us meanwhile waits, and then starts another thread."""
        with self._lock:
            if self._manager.get_pending_jobs():
                return False
            self._thread = None
            return True
