"""The account of one migration: every file that was looked at is in it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask_comfy_files.core.placement import checksum_of
from flask_comfy_files.core.records import FileRecord, LeftFile, Tally, add_up


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratedJob:
    """A job that a migration has brought files, with the evidence for them; ``bytes`` are those of the files."""

    job_id: str
    project_id: str
    files: int
    bytes: int
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Files with the same bytes, by where they lay; each has ``bytes`` bytes."""

    checksum: str
    bytes: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where a file lay, and where it goes."""

    path: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What a migration did, or would do.

    ``found`` = ``migrated`` + ``moved_to_legacy`` + ``left`` + ``skipped`` + ``failed``, in files and in bytes.
    ``jobs`` are those that got files, ``moves`` says of each file where it went; ``duplicates`` were kept.
    """

    found: Tally
    migrated: Tally
    moved_to_legacy: Tally
    left: Tally
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    jobs: tuple[MigratedJob, ...]
    file_types: Mapping[str, int]
    duplicates: tuple[Duplicates, ...]
    moves: tuple[Move, ...]
    dry_run: bool
    operation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyFiles:
    """The files that belong to no job, in the order in which they were recorded; ``total_size`` counts bytes."""

    files: tuple[FileRecord, ...]
    file_count: int
    total_size: int

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over the files."""
        return iter(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignReport:
    """What became of files that were to be given to a job, with all files that it now has.

    ``found`` = ``assigned`` + ``already_there`` + ``skipped`` + ``failed``, in files and in bytes.
    """

    job_id: str
    project_id: str
    files: tuple[FileRecord, ...]
    file_count: int
    found: Tally
    assigned: Tally
    already_there: Tally
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    operation_id: str | None

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over all files that the job now has."""
        return iter(self.files)


class Relocation:
    """What became of each file so far."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.skipped: list[LeftFile] = []
        self.failed: list[LeftFile] = []
        self._counts: dict[str, list[int]] = {
            key: [0, 0] for key in ("migrated", "moved_to_legacy", "left")
        }
        self._jobs: dict[str, dict[str, Any]] = {}
        self._types: Counter[str] = Counter()
        self._moves: list[Move] = []
        self._alike: dict[tuple[str, int], list[str]] = {}

    def enter(self, stored: Mapping[str, Any]) -> None:
        """Enter a file that was moved, or would be."""
        size = stored["file_size"]
        self._count("moved_to_legacy" if stored["job_id"] is None else "migrated", size)
        self._types[stored["file_type"]] += 1
        self._moves.append(Move(path=stored["original_path"], target=stored["path"]))
        self._alike.setdefault((stored["checksum"], size), []).append(stored["original_path"])
        if stored["job_id"] is not None:
            job = self._jobs.setdefault(
                stored["job_id"],
                {
                    "job_id": stored["job_id"],
                    "project_id": stored["project_id"],
                    "files": 0,
                    "bytes": 0,
                    "evidence": stored["evidence"],
                },
            )
            job["files"] += 1
            job["bytes"] += size

    def leave(self, size: int) -> None:
        """Enter a file that nobody owns and that stays, since that was asked for."""
        self._count("left", size)

    def _count(self, key: str, size: int) -> None:
        self._counts[key][0] += 1
        self._counts[key][1] += size

    @property
    def files(self) -> int:
        """How many files were entered so far."""
        return sum(number for number, _ in self._counts.values())

    @property
    def bytes(self) -> int:
        """How many bytes were entered so far."""
        return sum(size for _, size in self._counts.values())

    def report(self, root: str, operation_id: str | None) -> MigrationReport:
        """Return the account as a report; a rehearsal is no operation."""
        tallies = {
            key: Tally(files=files, bytes=size) for key, (files, size) in self._counts.items()
        }
        left = [*self.skipped, *self.failed]
        return MigrationReport(
            found=add_up(tallies.values(), left),
            **tallies,
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            jobs=tuple(MigratedJob(**self._jobs[job_id]) for job_id in sorted(self._jobs)),
            file_types=dict(sorted(self._types.items())),
            duplicates=tuple(sorted(_duplicates(root, self._alike), key=lambda found: found.paths)),
            moves=tuple(self._moves),
            dry_run=operation_id is None,
            operation_id=operation_id,
        )


def _duplicates(root: str, alike: Mapping[tuple[str, int], list[str]]) -> Iterable[Duplicates]:
    """Return what is there more than once; a rehearsal reads only what has the size of another."""
    for (checksum, size), paths in alike.items():
        if len(paths) < 2:  # noqa: PLR2004 - a duplicate has two places
            continue
        by_checksum: dict[str, list[str]] = {}
        for path in paths:
            by_checksum.setdefault(checksum or checksum_of(root, path) or path, []).append(path)
        for found, same in by_checksum.items():
            if len(same) > 1:
                yield Duplicates(checksum=found, bytes=size, paths=tuple(same))
