"""Signals by which a host hears of what happened in its library, whoever asked for it.

They are sent once the change is durable and the library's lock is free, in the process and thread that made
the change, before its caller gets the answer. The sender is the ``FileManager``, so that two libraries of
one process can be told apart; the payload comes as keyword arguments. What a receiver raises is logged, and
neither the operation nor the other receivers are disturbed. A receiver may call the sender.

A process that dies between a change and its signal sends none: what must not be missed belongs in a look at
the library.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any, Final

from blinker import Namespace, Signal

_log = logging.getLogger(__name__)

_NAMESPACE: Final = Namespace()

job_organized: Final[Signal] = _NAMESPACE.signal(
    "job_organized",
    """A job got new files: ``report`` is the ``OrganizeReport``.

    Sent by a call, a completion or a retry that recorded at least one file, and not by one that found
    everything in place. A migration, an import and an assignment send none.
    """,
)

job_incomplete: Final[Signal] = _NAMESPACE.signal(
    "job_incomplete",
    """A job may yet get more files: ``job_id``, ``reason``, ``is_pending`` and ``operation_id``.

    Sent when a completion becomes pending (``is_pending`` is true, and ``operation_id`` is the one under which
    it is finished), when a pending one is given up, and when a call to organize left files that failed or
    are still being written. A retry after which a job is as pending as before sends none.
    """,
)

files_deleted: Final[Signal] = _NAMESPACE.signal(
    "files_deleted",
    """Files left the library, or the trash: ``report``, ``deleted_files`` and ``purged_files``.

    ``deleted_files`` of the library were moved to the trash or deleted for good, ``purged_files`` were deleted
    for good. ``report`` is a ``DeletionReport`` (one job), a ``CleanupReport``, a ``PurgeReport`` (the trash was
    emptied) or an ``UndoReport`` (a restoration was undone). Once for each operation.
    """,
)

cleanup_finished: Final[Signal] = _NAMESPACE.signal(
    "cleanup_finished",
    """A cleanup was carried out to its end, even if nothing had expired: ``report`` is the ``CleanupReport``.

    A rehearsal sends none, nor does a plan that is applied again.
    """,
)

disk_low: Final[Signal] = _NAMESPACE.signal(
    "disk_low",
    """Space runs out: ``free_bytes``, ``min_free_bytes`` and ``needed_bytes``.

    Sent when an operation was refused for want of space (``needed_bytes`` is what it asked for), or when after
    an operation less is free than ``MIN_FREE_BYTES`` (``needed_bytes`` is ``None``); at most once in five minutes
    for each manager.
    """,
)


def send(signal: Signal, sender: object, **payload: Any) -> None:
    """Send a signal to each of its receivers, whatever the others raise."""
    if not signal.receivers or signal.is_muted:
        return
    for receiver in signal.receivers_for(sender):
        try:
            if inspect.iscoroutinefunction(receiver):
                raise TypeError(f"{receiver!r} is a coroutine function, which nobody awaits")  # noqa: TRY301 - told like any other failure
            receiver(sender, **payload)
        except (Exception, SystemExit):  # noqa: BLE001 - it is the host's, and the change is done
            _log.exception("a receiver of %s has failed", getattr(signal, "name", signal))
