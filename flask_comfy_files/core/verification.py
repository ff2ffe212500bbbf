"""Comparing everything that the document says with the index and the disk. Changes nothing.

It goes in stages, and in each from one key to the next, so that it can stop at any time and go on later from
where it was. It reads a page of records at a time, as any reader does, and looks at the files in between;
what it suspects then it looks up again, since others may have been at work meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.adoption import owner_by_path
from flask_comfy_files.core.auditing import Audit, Resting, Scrutiny, audit
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.comparison import LateError
from flask_comfy_files.core.catalog.index import is_failure_of_index
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.course import (
    Course,
    Key,
    Progress,
    Stage,
    cursor_of,
    index_finding,
    read_cursor,
)
from flask_comfy_files.core.errors import DocumentDamagedError, StorageError
from flask_comfy_files.core.findings import Finding, FindingKind, VerifyReport
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import (
    INDEX,
    LEGACY,
    PROJECTS,
    job_folder,
    job_of_name,
    split,
)
from flask_comfy_files.core.placement import checksum_of, is_copy
from flask_comfy_files.core.records import FileRecord, LeftFile
from flask_comfy_files.core.recovery import reading
from flask_comfy_files.core.trash import place_in_trash
from flask_comfy_files.core.walking import walk

_MOST_OF_INDEX: Final = 100
"""Of an index that is altogether wrong; it is made anew as a whole."""

_INDEX_SECONDS: Final = 5.0
"""What the index gets at least: it is compared as a whole, and not by and by."""

_PAGE: Final = 256
"""How many records, at least, are read at once."""

_END: Final = "~"
"""Comes behind every file id."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Records in groups that follow each other by their keys: those of the jobs, or those in the trash."""

    groups: Callable[[Reader, Key], list[Key]]
    records: Callable[[Reader, Key], list[Resting]]
    first: Key


class Verification:
    """Verifies one library; safe beside anything else that is done with it."""

    def __init__(self, root: str, catalog: Catalog) -> None:
        """Work on an output root, with the catalog that the manager made."""
        self._root = root
        self._catalog = catalog

    def run(
        self,
        scrutiny: Scrutiny,
        *,
        ends_at: float | None,
        cursor: str | None,
        on_progress: Progress | None,
    ) -> VerifyReport:
        """Verify the library, or go on with it; ``ends_at`` is on the monotonic clock.

        Raises:
            InvalidInputError: The cursor is none that was answered.
        """
        begun, after = (None, None) if cursor is None else read_cursor(cursor)
        course = Course(scrutiny, ends_at, self._progress(on_progress))
        stages = {
            Stage.INDEX: self._index,
            Stage.TREE: self._tree,
            Stage.JOBS: self._jobs,
            Stage.NOBODY: self._nobody,
            Stage.TRASH: self._trash,
        }
        ahead = itertools.dropwhile(lambda stage: begun not in {None, stage}, stages)
        for stage in ahead:
            for key in stages[stage](after if stage is begun else None, course):
                if course.is_over():
                    return course.report(cursor_of(stage, key))
        return course.report(None)

    def _progress(self, on_progress: Progress | None) -> Callable[[int, int], None]:
        if on_progress is None:
            return lambda _files, _bytes: None
        with self._reading() as reader:
            total = reader.totals().files + reader.trash_totals().files
        return lambda files, size: on_progress(files, total, size)

    def _reading(self) -> contextlib.AbstractContextManager[Reader]:
        return reading(self._root, self._catalog)

    def _index(self, after: Key | None, course: Course) -> Iterator[Key]:
        if after is not None:
            return
        is_late = course.deadline_after(_INDEX_SECONDS)
        try:
            with self._reading() as reader:
                found = [*itertools.islice(reader.discrepancies(is_late), _MOST_OF_INDEX)]
        except LateError:
            course.failed.append(LeftFile(path=INDEX, reason="it could not be compared in time"))
        except StorageError as error:
            if not is_failure_of_index(error):
                raise
            course.findings.append(index_finding(INDEX, str(error)))
        else:
            course.findings += [
                index_finding(entry.path, entry.detail, entry.job_id, entry.file_id)
                for entry in found
            ]
        course.steps += 1
        yield ()

    def _tree(self, after: Key | None, course: Course) -> Iterator[Key]:
        """Look for files that have no record."""
        behind = "" if after is None else after[0]
        tops = (LEGACY, PROJECTS)  # in the order of their names, as everything below them
        entries = itertools.chain.from_iterable(walk(self._root, top, behind) for top in tops)
        while batch := self._next_entries(entries, course):
            paths = [
                (path, status)
                for path, status in batch
                if stat.S_ISREG(status.st_mode) and not is_copy(split(path)[1])
            ]
            # The line of a file is there before the file is, so a later reader knows of what was seen.
            with self._reading() as reader:
                unseen = reader.unseen_jobs()
                for path, status in paths:
                    owner = owner_by_path(path)
                    is_known = (owner and owner[1]) in unseen or reader.owner_of(path) is not None
                    if not is_known and self._is_still_there(path, status):
                        self._take_stranger(reader, path, status, course)
            yield (batch[-1][0],)

    def _next_entries(
        self, entries: Iterator[tuple[str, os.stat_result] | LeftFile], course: Course
    ) -> list[tuple[str, os.stat_result]]:
        batch: list[tuple[str, os.stat_result]] = []
        for entry in entries:
            if isinstance(entry, LeftFile):
                course.failed.append(entry)
                continue
            batch.append(entry)
            course.steps += 1
            if len(batch) == _PAGE or course.is_late():
                break
        return batch

    def _is_still_there(self, path: str, status: os.stat_result) -> bool:
        """Say whether a file that was seen has not left since, with its record, for the trash or another place."""
        now = durable.find_status(self._root, path)
        return now is not None and os.path.samestat(now, status)

    def _take_stranger(
        self, reader: Reader, path: str, status: os.stat_result, course: Course
    ) -> None:
        owner = owner_by_path(path)
        kind, detail = FindingKind.UNTRACKED, "no record names it"
        job_id, file_id = None if owner is None else owner[1], None
        record = None
        try:
            record = self._find_strayed(reader, path, status)
        except OSError as error:
            course.failed.append(Failure(path, status.st_size, error).as_left())
        except DocumentDamagedError as error:
            course.damaged(job_id, error)
        if record is not None:
            kind, detail = FindingKind.WRONG_OWNER, f"it is the file that belongs to {record.path}"
            job_id, file_id = record.job_id, record.file_id
            course.strayed.add(file_id)
        course.findings.append(
            Finding(kind=str(kind), path=path, job_id=job_id, file_id=file_id, detail=detail)
        )

    def _find_strayed(self, reader: Reader, path: str, status: os.stat_result) -> FileRecord | None:
        """Return the record whose file this is, moved here by somebody; its name says where it was."""
        name = split(path)[1]
        job_id = job_of_name(name)
        job = None if job_id is None else reader.find_job(job_id)
        folders = [LEGACY] if job is None else [job_folder(job.project_id, job.job_id), LEGACY]
        for folder in folders:
            record = reader.find_file(f"{folder}/{name}")
            if (
                record is not None
                and record.file_size == status.st_size
                and durable.find_status(self._root, record.path) is None
                and checksum_of(self._root, path) == record.checksum
            ):
                return record
        return None

    def _jobs(self, after: Key | None, course: Course) -> Iterator[Key]:
        return self._grouped(_JOBS, after, course)

    def _trash(self, after: Key | None, course: Course) -> Iterator[Key]:
        return self._grouped(_TRASH, after, course)

    def _grouped(self, source: _Source, after: Key | None, course: Course) -> Iterator[Key]:
        *begun, last = (*source.first, "") if after is None else after
        group: Key | None = tuple(begun)
        while group is not None:
            begun_at = group
            page, group = self._next_page(source, begun_at, last, course)
            if group is not None:
                before, last = (*begun_at, last), _END
                yield self._audit_all(page, before, course) or (*group, last)

    def _next_page(
        self, source: _Source, begun: Key, last: str, course: Course
    ) -> tuple[list[Resting], Key | None]:
        """Return records with the group to which they reach, which is whole; ``None`` where there are no more."""
        page: list[Resting] = []
        done: Key | None = None
        with self._reading() as reader:
            for group in source.groups(reader, begun):
                if group == begun and last == _END:
                    continue
                try:
                    records = source.records(reader, group)
                except DocumentDamagedError as error:
                    course.damaged(group[0], error)
                    records = []
                page += [resting for resting in records if group != begun or resting.key[-1] > last]
                done = group
                if len(page) >= _PAGE:
                    break
        return page, done

    def _nobody(self, after: Key | None, course: Course) -> Iterator[Key]:
        last = "" if after is None else after[0]
        while True:
            try:
                with self._reading() as reader:
                    records = reader.legacy_files_after(last, _PAGE)
            except DocumentDamagedError as error:
                course.damaged(None, error)
                return
            if not records:
                return
            page = [Resting((record.file_id,), record, record.path) for record in records]
            yield self._audit_all(page, (last,), course) or page[-1].key
            last = page[-1].key[0]

    def _audit_all(self, page: list[Resting], before: Key, course: Course) -> Key | None:
        """Compare a page of records; return how far that came where the time was over, else ``None``."""
        suspects: list[tuple[Resting, Audit]] = []
        reached = before
        with self._audits(page, course) as audits:
            for resting, result in zip(page, audits, strict=True):
                if result is None:
                    break
                course.take(resting)
                reached = resting.key
                if result.findings or result.failed:
                    suspects.append((resting, result))
                if course.is_late():
                    break
        if suspects:
            self._take_suspects(suspects, course)
        return reached if page and reached != page[-1].key else None

    @contextlib.contextmanager
    def _audits(self, page: list[Resting], course: Course) -> Iterator[Iterator[Audit | None]]:
        """Compare records in their order; several at a time where their bytes are read."""

        def one(resting: Resting) -> Audit | None:
            return audit(self._root, resting, course.scrutiny, course.is_late)

        if course.scrutiny is Scrutiny.STATUS:
            yield map(one, page)
            return
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        try:
            yield pool.map(one, page)
        finally:
            pool.shutdown(cancel_futures=True)

    def _take_suspects(self, suspects: list[tuple[Resting, Audit]], course: Course) -> None:
        """Take what was found of records that are still what they were, and nobody is at work on."""
        with self._reading() as reader:
            unseen = reader.unseen_jobs()
            for resting, result in suspects:
                if resting.record.job_id not in unseen and _is_as_before(reader, resting):
                    course.failed += result.failed
                    course.findings += [
                        finding
                        for finding in result.findings
                        if finding.kind != FindingKind.MISSING
                        or finding.file_id not in course.strayed
                    ]


def _is_as_before(reader: Reader, resting: Resting) -> bool:
    file_id = resting.record.file_id
    if not resting.is_trashed:
        return reader.find_file(file_id) == resting.record
    found = reader.find_trashed(file_id)
    return found is not None and found == (resting.key[1], resting.record)


def _files_of_job(reader: Reader, group: Key) -> list[Resting]:
    records = sorted(reader.files_of_job(group[0]), key=lambda record: record.file_id)
    return [Resting((*group, record.file_id), record, record.path) for record in records]


def _trashed_files(reader: Reader, group: Key) -> list[Resting]:
    job_id, entry = group
    records = sorted(reader.trashed_files(job_id, entry), key=lambda record: record.file_id)
    return [
        Resting((*group, record.file_id), record, place_in_trash(record, entry), is_trashed=True)
        for record in records
    ]


_JOBS: Final = _Source(
    groups=lambda reader, key: [(job_id,) for job_id in reader.jobs_from(key[0], _PAGE)],
    records=_files_of_job,
    first=("",),
)
_TRASH: Final = _Source(
    groups=lambda reader, key: [*reader.trash_from(key[0], key[1], _PAGE)],
    records=_trashed_files,
    first=("", ""),
)
