"""Everything that lies below a folder, in an order in which one can go on later. Follows no link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.records import LeftFile


def walk(root: str, top: str, after: str) -> Iterator[tuple[str, os.stat_result] | LeftFile]:
    """Yield what lies behind a path, the folders before what lies in them; or why it cannot be looked at.

    ``after`` need not exist; with ``""`` everything is yielded, ``top`` included. No more is held in memory
    than the names of the folders on the way.
    """
    behind = _parts(after)
    waiting = [top]
    while waiting:
        path = waiting.pop()
        parts = _parts(path)
        if parts < behind[: len(parts)]:
            continue
        try:
            status = durable.find_status(root, path)
            if status is None:
                continue
            if parts > behind:
                yield path, status
            if stat.S_ISDIR(status.st_mode):
                names = looking.sorted_names(root, path)
                waiting += [f"{path}/{name}" for name in reversed(names)]
        except FileNotFoundError:
            continue  # it was there just now
        except OSError as error:
            yield Failure(path, 0, error).as_left()


def _parts(path: str) -> list[str]:
    return path.split("/") if path else []
