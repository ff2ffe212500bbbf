"""Thumbnails: a small picture of any file, or an honest placeholder; each is drawn once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flask_comfy_files.core import pictures, thumbnail_cache
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import ComfyFilesError, InvalidInputError
from flask_comfy_files.core.opening import opened
from flask_comfy_files.core.pictures import NoPicture, NoPictureError
from flask_comfy_files.core.records import FileRecord
from flask_comfy_files.core.thumbnail_cache import SIZES, ThumbnailCache

_log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 2
"""Pictures that one process draws at the same time: each may take 512 MiB for a moment, and a core."""

_WAIT_S: Final = 2.0
"""How long another one waits for its turn; a page of many is there again in a moment."""

_MOST_REMEMBERED: Final = 10_000
"""Files without a picture that a process knows of; then it forgets all, and looks at them again."""

_SETTLED: Final = frozenset({NoPicture.TOO_LARGE, NoPicture.UNREADABLE})
"""What is so for as long as a file has these bytes, and is not tried again with each request."""

_SETTLED_FOR_S: Final = 3600.0
"""Then it is: a disk that failed for a moment looks like a damaged file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small picture of a file, or the placeholder where there is none.

    ``size`` is the longer side in pixels that was asked for; a picture is never larger than its file's.
    ``content`` is the picture itself, of ``media_type``; ``etag`` changes with it. ``path`` is where it is kept
    below the output root, or ``None`` where it is not kept: the disk refused, or it is the placeholder.
    ``placeholder`` says why there is no picture: ``no_picture``, ``too_large``, ``unreadable``, ``too_slow`` or
    ``busy``; else it is ``None``.
    """

    file_id: str
    size: int
    media_type: str
    etag: str
    content: bytes
    path: str | None = None
    placeholder: str | None = None


def require_size(size: object) -> int:
    """Return the longer side of a thumbnail.

    Raises:
        InvalidInputError: There is none of this size.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size not in SIZES:
        known = ", ".join(str(side) for side in SIZES[:-1])
        raise InvalidInputError("size", size, f"is not one of {known} and {SIZES[-1]}")
    return size


class Thumbnails:
    """Makes and keeps the thumbnails of one library. One object serves all threads of a process."""

    def __init__(
        self, root: str, catalog: Catalog, *, cache_bytes: int, min_free_bytes: int
    ) -> None:
        """Keep so many bytes of them, and none where less than the reserve would be free."""
        self._root = root
        self._catalog = catalog
        self._cache = ThumbnailCache(root, cache_bytes, min_free_bytes)
        self._turns = _Turns()
        self._hopeless: dict[str, tuple[NoPicture, float]] = {}
        """By checksum, with the time of the monotonic clock until which it is taken for certain."""
        self._told: set[str] = set()

    def get(self, record: FileRecord, size: int) -> Thumbnail:
        """Return the thumbnail of a file that is in the library.

        Raises:
            NameNotFoundError: The file is gone, or is no regular file any more.
            StorageError: The server's user may not read it.
            MissingExtraError: The package that would draw it is not installed.
        """
        with opened(self._root, record.path) as descriptor:
            file_size = os.fstat(descriptor).st_size
            path = None
            if file_size == record.file_size:  # else the checksum is that of other bytes
                path = thumbnail_cache.place_of(record.checksum, size)
            try:
                kept = self._found(path) or self._drawn(record, descriptor, size, path)
            except NoPictureError as error:
                self._note(record, path, error.reason)
                return _placeholder(record, size, error.reason)
        content, kept_at = kept
        return _thumbnail(record, size, content, kept_at)

    def _found(self, path: str | None) -> tuple[bytes, str | None] | None:
        content = None if path is None else self._cache.find(path)
        return None if content is None else (content, path)

    def _drawn(
        self, record: FileRecord, descriptor: int, size: int, path: str | None
    ) -> tuple[bytes, str | None]:
        """Draw a picture, when it is its turn, and keep it.

        Raises:
            NoPictureError: There is none.
        """
        if path is not None:
            self._require_hope(record.checksum)
        with self._turns.taken():
            found = self._found(path)  # somebody else may have drawn it meanwhile
            if found is not None:
                return found
            file_size = os.fstat(descriptor).st_size
            content = pictures.draw(descriptor, file_size, record.file_extension, size)
        is_kept = path is not None and self._may_keep() and self._cache.keep(path, content)
        return content, path if is_kept else None

    def _require_hope(self, checksum: str) -> None:
        """Save the work that has failed before.

        Raises:
            NoPictureError: It has.
        """
        reason = self._why_hopeless(checksum)
        if reason is not None:
            raise NoPictureError(reason)

    def _why_hopeless(self, checksum: str) -> NoPicture | None:
        """Return why a picture is not to be tried again yet; ``None`` where it is."""
        reason, ends_at = self._hopeless.get(checksum, (None, 0.0))
        return reason if time.monotonic() < ends_at else None

    def _may_keep(self) -> bool:
        """Say whether what lies in the output root is the library that we know."""
        with contextlib.suppress(ComfyFilesError):
            return self._catalog.why_read_only() is None
        return False

    def _note(self, record: FileRecord, path: str | None, reason: NoPicture) -> None:
        """Remember a file of which no picture can be made, and say so once."""
        if reason in {NoPicture.NO_PICTURE, NoPicture.BUSY}:
            return
        if len(self._told) >= _MOST_REMEMBERED:
            self._told.clear()
            self._hopeless.clear()
        if path is not None and reason in _SETTLED and self._why_hopeless(record.checksum) is None:
            self._hopeless[record.checksum] = reason, time.monotonic() + _SETTLED_FOR_S
        if record.file_id not in self._told:
            self._told.add(record.file_id)
            _log.warning("%r has no thumbnail: it is %s", record.path, _WORDS[reason])


_WORDS: Final = {
    NoPicture.TOO_LARGE: "larger than what is decoded",
    NoPicture.UNREADABLE: "damaged, cut short, or not what its name says",
    NoPicture.TOO_SLOW: "too slow to be decoded",
}


class _Turns:
    """So many at a time in one process; a child that is forked meanwhile begins with all."""

    def __init__(self) -> None:
        self._free: dict[int, threading.BoundedSemaphore] = {}

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait a little for a turn, and have it for the time of a block.

        Raises:
            NoPictureError: There was none.
        """
        free = self._free.setdefault(os.getpid(), threading.BoundedSemaphore(MOST_AT_ONCE))
        if not free.acquire(timeout=_WAIT_S):
            raise NoPictureError(NoPicture.BUSY)
        try:
            yield
        finally:
            free.release()


def _thumbnail(record: FileRecord, size: int, content: bytes, path: str | None) -> Thumbnail:
    return Thumbnail(
        file_id=record.file_id,
        size=size,
        media_type=pictures.MEDIA_TYPE,
        etag=_etag(content),
        content=content,
        path=path,
    )


def _placeholder(record: FileRecord, size: int, reason: NoPicture) -> Thumbnail:
    content = pictures.placeholder()
    return Thumbnail(
        file_id=record.file_id,
        size=size,
        media_type=pictures.PLACEHOLDER_MEDIA_TYPE,
        etag=_etag(content),
        content=content,
        placeholder=str(reason),
    )


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
