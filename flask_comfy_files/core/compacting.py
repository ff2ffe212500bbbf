"""When the document is written anew, and by whom: never in a request, and by one at a time."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import LockTimeoutError
from flask_comfy_files.core.layout import COMPACTION_LOCK, DOCUMENT, file_path, older_document
from flask_comfy_files.core.records import iso_utc
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.reports import CompactionReport
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import require_room

_LEAST_BYTES: Final = 1024**2
"""Below so many bytes of lines that hold no more the work is not worth it."""


def is_worthwhile(catalog: Catalog) -> bool:
    """Say whether more of the document holds no more than still holds, and that is much."""
    with catalog.reading() as reader:
        superseded, live = reader.superseded_bytes()
    return superseded > max(live, _LEAST_BYTES)


def compact(
    root: str, catalog: Catalog, clock: Clock, min_free_bytes: int
) -> CompactionReport | None:
    """Write the document anew without the lines that hold no more; ``None`` if somebody else is at it.

    Everybody can go on meanwhile. The document before is kept, and tells what happened until then.

    Raises:
        OutOfSpaceError: There is no room for another one.
    """
    with changing(root, catalog):
        pass  # so that there is an index, and it reaches to the end
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(file_path(root, COMPACTION_LOCK), 0))
        except LockTimeoutError:
            return None
        before = os.path.getsize(file_path(root, DOCUMENT))
        require_room(root, before, min_free_bytes)
        try:
            with reading(root, catalog) as reader:
                copy = reader.compact(iso_utc(clock()))
            if copy is None:
                return None
            with changing(root, catalog) as writer:
                if not writer.exchange(copy):
                    return None
        except OSError as error:
            durable.refuse("Compacting", DOCUMENT, error)
        with changing(root, catalog):
            pass  # the index of the new document is made at once, and not by the next job
    return CompactionReport(
        bytes_before=before,
        bytes_after=os.path.getsize(file_path(root, DOCUMENT)),
        kept_as=older_document(copy.mark.generation),
    )
