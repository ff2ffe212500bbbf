"""Looking at candidates: is the file finished, what is it, and what is its checksum? Changes nothing.

A digest that was read from the page cache proves nothing about the disk, so the bytes are synced
before anybody vouches for them.
"""

from __future__ import annotations

import enum
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.containers import Completeness, ContainerFacts, read_facts
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of, media_type_of
from flask_comfy_files.core.records import LeftFile, SkipReason
from flask_comfy_files.core.tags import Tag, read_tag

_log = logging.getLogger(__name__)

QUIET_TIME: Final = timedelta(seconds=2)
"""How long a file must not have changed where neither its content nor the kernel tells that it is finished."""

GIVEN_UP_AFTER: Final = timedelta(days=1)
"""A file cut short that nobody has touched for so long is not being written; it is broken, and kept as it is."""

_WORTH_THREADS_BYTES: Final = 32 * 1024**2

_COMMON_EXTENSIONS: Final = (".png", ".mp4", ".webm", ".mkv", ".mp3")
"""What content that could have several extensions most likely is; each comes before its rarer kin."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from one that took its place, or from its own later state."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Identity:
        """Take it from what the system says of a file."""
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


class Reading(enum.Enum):
    """How much of a file is read: all of it, or what tells it apart, which leaves the checksum empty."""

    WHOLE = enum.auto()
    HEAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A finished file with what is known of it; ``mount`` tells whether it can be renamed into the library."""

    candidate: Candidate
    identity: Identity
    checksum: str
    facts: ContainerFacts
    media_type: str
    tag: Tag | None
    mount: str

    @property
    def modified_at(self) -> datetime:
        """The file's own modification time."""
        return datetime.fromtimestamp(self.identity.modified_ns / 1e9, UTC)


def look(root: str, candidate: Candidate) -> os.stat_result | LeftFile:
    """Return what lstat says of a regular file, or why a candidate cannot be taken; opens nothing.

    Raises:
        OSError: The folder cannot be looked into.
    """
    status = durable.find_status(root, candidate.path)
    if status is None:
        return LeftFile(path=candidate.path, reason=SkipReason.NOT_FOUND)
    reason = why_not_regular(status)
    return status if reason is None else LeftFile(path=candidate.path, reason=reason)


def why_not_regular(status: os.stat_result) -> SkipReason | None:
    """Say what something is that is no regular file."""
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISLNK(status.st_mode):
        return SkipReason.LINK
    return SkipReason.DIRECTORY if stat.S_ISDIR(status.st_mode) else SkipReason.NOT_A_REGULAR_FILE


def inspect_all(
    root: str,
    candidates: Iterable[tuple[Candidate, int]],
    now: datetime,
    reading: Reading = Reading.WHOLE,
) -> Iterator[Inspected | LeftFile | Failure]:
    """Inspect files in their order, several at a time where there is enough to read."""
    sized = list(candidates)
    # A future for each small file costs more than it saves; a disk that reads two large ones at
    # once saves half.
    if len(sized) > 1 and sum(size for _, size in sized) >= _WORTH_THREADS_BYTES:
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(lambda pair: _inspect(root, pair[0], now, reading), sized)
    else:
        for candidate, _ in sized:
            yield _inspect(root, candidate, now, reading)


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that the system did not let us read, or move."""

    path: str
    size: int
    error: OSError

    def as_left(self) -> LeftFile:
        """Return it as a report shows it."""
        name = os.strerror(self.error.errno or 0)
        return LeftFile(path=self.path, reason=f"{name} (uid {os.geteuid()})", bytes=self.size)


def _inspect(
    root: str, candidate: Candidate, now: datetime, reading: Reading
) -> Inspected | LeftFile | Failure:
    folder, name = split(candidate.source)
    size = 0
    try:
        with (
            durable.open_folder(root, folder) as parent,
            durable.open_regular(parent, name) as descriptor,
        ):
            before = Identity.of(os.fstat(descriptor))
            size = before.size
            facts = read_facts(descriptor, size)
            if _is_being_written(descriptor, before, facts, now):
                return LeftFile(
                    path=candidate.path, reason=SkipReason.STILL_BEING_WRITTEN, bytes=size
                )
            checksum = _vouch_for(descriptor) if reading is Reading.WHOLE else ""
            # Read again by name: the name may by now stand for another file.
            after = Identity.of(os.stat(name, dir_fd=parent, follow_symlinks=False))
            if after != before:
                return LeftFile(
                    path=candidate.path, reason=SkipReason.STILL_BEING_WRITTEN, bytes=after.size
                )
            media_type = _media_type(extension_of(name), facts)
            tag = read_tag(descriptor, size, extension_of(name))
            mount = looking.mount_id(parent)
            return Inspected(candidate, before, checksum, facts, media_type, tag, mount)
    except FileNotFoundError:
        return LeftFile(path=candidate.path, reason=SkipReason.NOT_FOUND)
    except OSError as error:
        return Failure(candidate.path, size, error)


def _vouch_for(descriptor: int) -> str:
    """Return the checksum of a file whose bytes are on the disk."""
    checksum = durable.checksum(descriptor)
    durable.sync_bytes(descriptor)
    return checksum


def _is_being_written(
    descriptor: int, identity: Identity, facts: ContainerFacts, now: datetime
) -> bool:
    if looking.has_writer(descriptor):
        return True
    # A time of the future says nothing about quiet, so the distance counts in both directions.
    age = abs(now - datetime.fromtimestamp(identity.modified_ns / 1e9, UTC))
    if facts.completeness is Completeness.CUT_SHORT:
        return age < GIVEN_UP_AFTER
    return facts.completeness is Completeness.UNKNOWN and age < QUIET_TIME


def _media_type(extension: str, facts: ContainerFacts) -> str:
    """Return the MIME type: of the extension, unless the content is known to be something else."""
    if not facts.extensions or extension in facts.extensions:
        return media_type_of(extension)
    _log.info(
        "a file named %s holds something else: %s",
        extension or "without extension",
        min(facts.extensions),
    )
    likely = (common for common in _COMMON_EXTENSIONS if common in facts.extensions)
    return media_type_of(next(likely, min(facts.extensions)))
