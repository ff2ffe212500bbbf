"""The values that the library speaks in: frozen, without effects, named as the JSON keys."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final


class FileType(enum.StrEnum):
    """What a file is, by its extension."""

    IMAGE = "image"
    VIDEO = "video"
    GIF = "gif"
    AUDIO = "audio"
    MODEL_3D = "3d"
    TEXT = "text"
    LATENT = "latent"
    OTHER = "other"


class Evidence(enum.StrEnum):
    """The rule by which a file was attributed to its job, strongest first."""

    FILES = "files"
    HISTORY = "history"
    INBOX = "inbox"
    TAG = "tag"
    PREFIX = "prefix"
    CACHED = "cached"
    LIST = "list"
    TIME = "time"
    WORKFLOW = "workflow"
    DAY = "day"
    ASSIGNED = "assigned"
    NONE = "none"
    REBUILT = "rebuilt"


class SkipReason(enum.StrEnum):
    """Why a file was left where it is."""

    NOT_FOUND = "not_found"
    NOT_AN_OUTPUT = "not_an_output"
    LINK = "link"
    DIRECTORY = "directory"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    PLACEHOLDER = "placeholder"
    HIDDEN = "hidden"
    UNFINISHED_NAME = "unfinished_name"
    RESERVED = "reserved"
    BELONGS_TO_ANOTHER_JOB = "belongs_to_another_job"
    AMBIGUOUS_PREFIX = "ambiguous_prefix"
    NAME_REUSED = "name_reused"
    NOT_FROM_THIS_RUN = "not_from_this_run"
    AMBIGUOUS_NAME = "ambiguous_name"
    TAGGED_FOR_ANOTHER_JOB = "tagged_for_another_job"
    STILL_BEING_WRITTEN = "still_being_written"
    ALREADY_GONE = "already_gone"
    CHANGED = "changed"
    OUTSIDE_LIBRARY = "outside_library"
    UNTRACKED = "untracked"


def iso_utc(moment: datetime) -> str:
    """Return an aware time as ISO 8601 in UTC with ``Z``, to the microsecond where it has any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def microseconds(moment: str) -> int:
    """Return a stored time as whole microseconds since 1970, which sort as they follow each other."""
    return (datetime.fromisoformat(moment) - EPOCH) // _MICROSECOND


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One recorded file.

    ``path`` and ``original_path`` are relative to the output root with ``/`` between; ``file_path``
    is absolute and is computed when the record is read. ``timestamp`` is the Unix time in seconds,
    as text, at which the file was organized, ``created_at`` the same as ISO 8601; ``file_size``
    counts bytes; ``checksum`` is the SHA-256 in 64 lower-case hex digits; ``width`` and ``height``
    count pixels.
    """

    file_id: str
    file_path: str
    path: str
    job_id: str | None
    project_id: str | None
    timestamp: str
    created_at: str
    file_type: str
    file_extension: str
    media_type: str
    generation_type: str
    file_size: int
    modified_at: str
    checksum: str
    original_path: str
    evidence: str
    same_file_as: str | None = None
    prompt_id: str | None = None
    node_id: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    missing: bool = False


_FILE_KEYS: Final = tuple(entry.name for entry in fields(FileRecord))
_STORED_KEYS: Final = tuple(key for key in _FILE_KEYS if key not in {"file_path", "missing"})
KNOWN_KEYS: Final = frozenset(_FILE_KEYS)
"""The keys of a file record."""
_all_of = attrgetter(*_FILE_KEYS)
_stored_of = attrgetter(*_STORED_KEYS)


def file_to_dict(record: FileRecord) -> dict[str, Any]:
    """Return a file record as a JSON-ready dict, keys in the order of the contract."""
    as_dict = dict(zip(_FILE_KEYS, _all_of(record), strict=True))
    if not record.missing:
        del as_dict["missing"]
    return as_dict


def file_to_stored(record: FileRecord) -> dict[str, Any]:
    """Return the part of a file record that the document keeps."""
    return dict(zip(_STORED_KEYS, _stored_of(record), strict=True))


def file_from_stored(stored: Mapping[str, Any], file_path: str) -> FileRecord:
    """Build a record from what the document keeps; keys of a newer version are passed over."""
    known = {key: value for key, value in stored.items() if key in KNOWN_KEYS}
    known["file_path"] = file_path
    return FileRecord(**known)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job with its files, in the order in which they were organized.

    ``file_count`` and ``total_size``, in bytes, are those of the whole job, also where ``files`` are only some of
    them and ``next_cursor`` leads to more. ``reason`` says why a known job has no files, or fewer than it may yet
    get.
    """

    job_id: str
    project_id: str
    files: tuple[FileRecord, ...]
    file_count: int
    total_size: int
    created_at: str
    pinned: bool = False
    tags: tuple[str, ...] = ()
    runs: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over the job's files."""
        return iter(self.files)

    def __len__(self) -> int:
        """Return how many files the job has."""
        return self.file_count


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job without its files."""

    job_id: str
    file_count: int
    total_size: int
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A project with its jobs and all their files, oldest first; sizes in bytes.

    ``job_count``, ``file_count`` and ``total_size`` are those of the whole project. Where ``files`` are only some
    of them, ``jobs`` are those to which these belong, and ``next_cursor`` leads to more.
    """

    project_id: str
    jobs: tuple[JobSummary, ...]
    files: tuple[FileRecord, ...]
    job_count: int
    file_count: int
    total_size: int
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over the project's files."""
        return iter(self.files)

    def __len__(self) -> int:
        """Return how many files the project has."""
        return self.file_count


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSummary:
    """A project in numbers; ``total_size`` counts bytes."""

    project_id: str
    job_count: int
    file_count: int
    total_size: int
    file_types: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A number of files and of their bytes."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFile:
    """A file that an operation left where it was, and why; ``bytes`` is 0 where the size is not known."""

    path: str
    reason: str
    bytes: int = 0


def add_up(tallies: Iterable[Tally], left: Sequence[LeftFile]) -> Tally:
    """Return of how many files and bytes a report tells, those that were left included."""
    parts = list(tallies)
    return Tally(
        files=sum(tally.files for tally in parts) + len(left),
        bytes=sum(tally.bytes for tally in parts) + sum(entry.bytes for entry in left),
    )


def left_to_dict(left: LeftFile) -> dict[str, Any]:
    """Return it as a JSON-ready dict."""
    return {"path": left.path, "reason": str(left.reason), "bytes": left.bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizeReport:
    """What one organize call found and did.

    Iterating it gives the job's organized files.
    ``found`` = ``moved`` + ``already_there`` + ``skipped`` + ``failed``, in files and in bytes.
    ``unavailable`` names the sources of evidence that could not be asked.
    """

    job_id: str
    project_id: str
    organized_files: tuple[FileRecord, ...]
    file_count: int
    found: Tally
    moved: Tally
    already_there: Tally
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    operation_id: str | None
    unavailable: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over all files that the job now has."""
        return iter(self.organized_files)

    def __len__(self) -> int:
        """Return how many files the job now has."""
        return self.file_count


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes of the volume that holds the output root."""

    total: int
    used: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """``state`` is ``ok``, ``degraded`` or ``unavailable``; the messages say why and what to do."""

    state: str
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthState:
    """What anybody may know of the health: its state alone."""

    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemStats:
    """The library in numbers: bytes, MB of 1024² and GB of 1024³; ``pending_jobs`` wait to be organized."""

    total_files: int
    total_size: int
    total_size_mb: float
    total_size_gb: float
    projects: int
    jobs: int
    file_types: Mapping[str, int]
    legacy: Tally
    trash: Tally
    pending_jobs: int
    disk: DiskUsage | None
    health: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """A completion that could not be organized yet, with what it said; a job may have several.

    ``files`` are pairs of a path and ComfyUI's type, or ``None`` where none were named; ``since``
    is ISO 8601.
    """

    job_id: str
    project_id: str | None
    prompt_id: str | None
    files: tuple[tuple[str, str], ...] | None
    reason: str
    operation_id: str
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionReport:
    """What became of a completed job.

    ``organize_error`` says why it is not (wholly) organized yet; it is then pending, and is finished under
    ``organize_operation_id``.
    """

    job_id: str
    project_id: str
    organized_files: tuple[FileRecord, ...]
    file_count: int
    organize_error: str | None = None
    organize_operation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryReport:
    """What became of the pending jobs: organized, still pending (with the reason), given up (with the reason)."""

    organized: tuple[OrganizeReport, ...] = ()
    still_pending: tuple[PendingJob, ...] = ()
    given_up: tuple[PendingJob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a name of ComfyUI's stands for.

    ``exact`` says that all matches have the same bytes and nothing else stands under the name; otherwise
    ``matches`` are all candidates, oldest first.
    """

    exact: bool
    matches: tuple[FileRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstampedNode:
    """An output node whose files will not lie in the job's inbox, and why."""

    node_id: str
    class_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedPrompt:
    """What to send to ComfyUI's ``POST /prompt``; ``unstamped`` is in the order of the graph."""

    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    run: str
    unstamped: tuple[UnstampedNode, ...]
