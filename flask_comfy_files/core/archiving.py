"""All files of a job as one ZIP archive, made while it is sent: nothing is held in memory but a piece of a file.

A ZIP archive has its table at its end, so that one that was broken off opens nowhere; and its size is known
before its first byte, so that a client notices even without opening it. That is what happens where a file is
not what its record says: rather no archive than a wrong one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from flask_comfy_files.core.errors import (
    ArchiveBrokenOffError,
    MissingExtraError,
    NameNotFoundError,
    StorageError,
)
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.opening import opened
from flask_comfy_files.core.records import FileRecord, JobRecord, file_to_stored

MANIFEST: Final = "manifest.json"
"""The entry that says what the others are."""

MEDIA_TYPE: Final = "application/zip"

_UNSURE_COUNT: Final = 0xFFFF
"""With just so many entries zipstream-ng reckons 76 bytes too few (1.8 and 1.9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A job's archive that is about to be sent.

    ``name`` is that of the file in which it is to be kept. ``size`` counts its bytes, ``None`` where that is not
    known. ``content`` yields them once, in pieces of no certain size, and opens the files one by one; closing it
    closes what is open.

    Raises:
        ArchiveBrokenOffError: While ``content`` is read: a file has vanished, or is not what its record says.
            What was sent until then is no archive.
    """

    name: str
    size: int | None
    content: Iterator[bytes]

    def __iter__(self) -> Iterator[bytes]:
        """Return the pieces."""
        return self.content


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    record: FileRecord


def archive_of(root: str, job: JobRecord) -> Archive:
    """Return the archive of a job: its files under their own names, and ``manifest.json``.

    Files that are known to be missing are in the manifest alone.

    Raises:
        MissingExtraError: zipstream-ng is not installed.
    """
    zipstream = _require_zipstream()
    entries = _entries(record for record in job.files if not record.missing)
    return Archive(
        name=f"{job.job_id}.zip",
        size=_size(zipstream, job, entries),
        content=_content(root, zipstream, job, entries),
    )


def _require_zipstream() -> ModuleType:
    try:
        return importlib.import_module("zipstream")
    except ImportError as error:
        raise MissingExtraError("An archive", "archive") from error


def _entries(records: Iterable[FileRecord]) -> Sequence[_Entry]:
    """Give each file a name of its own, also where case does not count."""
    taken = {MANIFEST.lower()}
    entries = []
    for record in records:
        name = split(record.path)[1].encode("utf-8", "replace").decode()
        stem, extension = os.path.splitext(name)
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}{extension}"
        taken.add(name.lower())
        entries.append(_Entry(name, record))
    return entries


def _size(zipstream: ModuleType, job: JobRecord, entries: Sequence[_Entry]) -> int | None:
    if len(entries) + 1 == _UNSURE_COUNT:
        return None
    # Only reckoned with; what is sent is another one, to which each file is added when its turn has come.
    reckoning = zipstream.ZipStream(sized=True)
    manifest_size = sum(len(line) for line in _manifest(job, entries))
    reckoning.add(iter(()), MANIFEST, size=manifest_size)
    for entry in entries:
        reckoning.add(iter(()), entry.name, size=entry.record.file_size)
    return len(reckoning)


def _content(
    root: str, zipstream: ModuleType, job: JobRecord, entries: Sequence[_Entry]
) -> Iterator[bytes]:
    archive = zipstream.ZipStream()
    manifest_size = sum(len(line) for line in _manifest(job, entries))
    archive.add(_manifest(job, entries), MANIFEST, size=manifest_size)
    yield from archive.file()
    for entry in entries:
        yield from _checked(root, archive, entry)
    yield from archive.finalize()


def _checked(root: str, archive: Any, entry: _Entry) -> Iterator[bytes]:
    """Yield the part of an archive that is one file.

    Raises:
        ArchiveBrokenOffError: It is not the file that was recorded; the part has not been ended.
    """
    record = entry.record
    try:
        with opened(root, record.path) as descriptor:
            if os.fstat(descriptor).st_size != record.file_size:
                raise ArchiveBrokenOffError(record.path, "its size has changed")
            # By its descriptor, so that it is this file whatever stands under its name by now.
            archive.add_path(f"/proc/self/fd/{descriptor}", entry.name, recurse=False)
            yield from _with_checksum(archive.file(), record)
    except (NameNotFoundError, StorageError) as error:
        raise ArchiveBrokenOffError(record.path, "it is gone, or cannot be read") from error
    except OSError as error:
        raise ArchiveBrokenOffError(record.path, os.strerror(error.errno or 0)) from error


def _with_checksum(pieces: Iterator[bytes], record: FileRecord) -> Iterator[bytes]:
    """Yield a file's header, bytes and end, and the end only where the bytes are those that were recorded.

    Raises:
        ArchiveBrokenOffError: They are not.
    """
    checksum = hashlib.sha256()
    yield next(pieces)
    size, held = 0, b""
    for piece in pieces:  # one is held back, as only the next one tells that it was not the end
        checksum.update(held)
        size += len(held)
        if held:
            yield held
        held = piece
        if size > record.file_size:
            break
    if checksum.hexdigest() != record.checksum:
        raise ArchiveBrokenOffError(record.path, "its bytes are not those that were recorded")
    yield held


def _manifest(job: JobRecord, entries: Sequence[_Entry]) -> Iterator[bytes]:
    """Yield the lines of the manifest: JSON, what is known of the job, and one line for each file."""
    names = {entry.record.file_id: entry.name for entry in entries}
    facts = {
        "job_id": job.job_id,
        "project_id": job.project_id,
        "created_at": job.created_at,
        "file_count": job.file_count,
        "total_size": job.total_size,
        "pinned": job.pinned,
        "tags": list(job.tags),
    }
    yield _json(facts)[:-1] + b', "files": ['
    before = b"\n"
    for record in job.files:
        yield before + _json({"name": names.get(record.file_id), **file_to_stored(record)})
        before = b",\n"
    yield b"\n]}\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
