"""Whether what stands in the document's place is the list of files that an older installation kept there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from flask_comfy_files.core.errors import OlderInstallationError
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.records import KNOWN_KEYS

_LARGEST_BYTES: Final = 256 * 1024**2
"""A list of half a million files; what is larger is not looked into."""

_OURS: Final = frozenset({"format", "changes"})
"""Keys of a document of this library, however damaged it is."""

_OUR_BEGINNING: Final = b'{"format":'


def refuse_older(descriptor: int) -> None:
    """Refuse a document that is none of ours, where an older installation wrote it.

    Raises:
        OlderInstallationError: It did. Nothing was changed.
    """
    if is_older(descriptor):
        raise OlderInstallationError(DOCUMENT)


def is_older(descriptor: int) -> bool:
    """Say whether an open file holds records of an older installation, and is no document of ours."""
    facts = os.fstat(descriptor)
    if not 0 < facts.st_size <= _LARGEST_BYTES:
        return False
    return _holds_records(
        _Seen(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, descriptor)
    )


def is_record(entry: Any) -> bool:
    """Say whether a JSON value may be the record of a file."""
    return isinstance(entry, dict) and not KNOWN_KEYS.isdisjoint(entry)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it stands; how to reach it is not a part of what it is."""

    device: int
    inode: int
    size: int
    modified_ns: int
    descriptor: int = field(compare=False)


@lru_cache(maxsize=8)
def _holds_records(seen: _Seen) -> bool:
    """Read a file whole, once as long as it stays as it is: every call that is refused asks again."""
    try:
        if os.pread(seen.descriptor, len(_OUR_BEGINNING), 0) == _OUR_BEGINNING:
            return False  # however large, it need not be read
        content = json.loads(os.pread(seen.descriptor, seen.size, 0))
    except (ValueError, RecursionError, OSError):
        return False
    if isinstance(content, dict):
        return _OURS.isdisjoint(content) and _are_records(content.values())
    return isinstance(content, list) and _are_records(content)


def _are_records(entries: Iterable[Any]) -> bool:
    values = list(entries)
    return all(isinstance(entry, dict) for entry in values) and any(map(is_record, values))
