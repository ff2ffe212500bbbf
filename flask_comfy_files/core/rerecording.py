"""Giving records again to files that a rebuilt document does not speak of any more."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.adoption import inspect_paths
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.remembering import (
    Remembered,
    RememberedDeletion,
    RememberedFile,
    RememberedJob,
)
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.filing import Arrival, unowned_record
from flask_comfy_files.core.inspection import Inspected
from flask_comfy_files.core.layout import PROJECTS, job_folder, split
from flask_comfy_files.core.legacy import unowned_line
from flask_comfy_files.core.records import EPOCH, FileRecord, file_to_stored

_LONG_AFTER: Final = datetime.max.replace(tzinfo=UTC)
"""What lies in the library is not being written, however young it is."""

_LOST_PROJECT: Final = "rebuilt"
"""The project of a deleted job of which nothing tells it."""

Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A file without a record; one in ``legacy/`` is nobody's, and its name tells no time.

    One in the trash has the ``entry`` of its deletion, and its path tells no project.
    """

    path: str
    project_id: str | None = None
    job_id: str | None = None
    organized_at: datetime | None = None
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class Rerecording:
    """The one operation that gives records to all files of a rebuilt library."""

    root: str
    catalog: Catalog
    operation: Mapping[str, Any]
    memory: Remembered

    def record(self, batch: Sequence[Found]) -> int:
        """Record files of the library where they lie; return how many could be."""
        records = [
            self._record(found, inspected, found.path, self.memory.file(found.path))
            for found, inspected in self._inspected(batch)
        ]
        if not records:
            return 0
        with self.catalog.changing() as writer:
            lines = list(self._lines(writer, records))
            self._write(writer, lines)
        return sum(len(line["files"]) for line in lines)

    def record_trashed(self, batch: Sequence[Found]) -> int:
        """Record the files of one deleted job where they rest; return how many could be."""
        if not batch:
            return 0
        job_id, entry = str(batch[0].job_id), str(batch[0].entry)
        before = self.memory.deletion(job_id, entry)
        project_id = before.project_id if before else self._project_of(job_id)
        records = []
        for found, inspected in self._inspected(batch):
            path = f"{job_folder(project_id, job_id)}/{split(found.path)[1]}"
            known = self.memory.trashed_file(job_id, entry, path)
            owned = replace(found, project_id=project_id)
            records.append(self._record(owned, inspected, path, known))
        with self.catalog.changing() as writer:
            if not records or not _fits(writer, project_id, job_id):
                return 0
            files = [file_to_stored(_fitted(writer, record)) for record in records]
            alive_ids = [record.file_id for record in writer.files_of_job(job_id)]
            job_line = self._job_line(writer, files, None if before is None else before.job)
            self._write(writer, [job_line, self._trash_line(job_id, entry, before, alive_ids)])
        return len(files)

    def _project_of(self, job_id: str) -> str:
        """Return the project of a deleted job: that in which the job is known, or has a folder."""
        with self.catalog.reading() as reader:
            alive = reader.find_job(job_id)
        if alive is not None:
            return alive.project_id
        for project_id in sorted(looking.names_in(self.root, PROJECTS)):
            if durable.find_status(self.root, job_folder(project_id, job_id)) is not None:
                return project_id
        return _LOST_PROJECT

    def _inspected(self, batch: Sequence[Found]) -> list[tuple[Found, Inspected]]:
        results = inspect_paths(self.root, [found.path for found in batch], _LONG_AFTER)
        pairs = zip(batch, results, strict=True)
        return [(found, result) for found, result in pairs if isinstance(result, Inspected)]

    def _write(self, writer: Writer, lines: Sequence[Change]) -> None:
        try:
            appended = writer.append(lines)
        except OSError as error:
            durable.refuse("Recording", PROJECTS, error)
        if appended:
            writer.advance(appended)

    def _record(
        self, found: Found, inspected: Inspected, path: str, known: RememberedFile | None
    ) -> FileRecord:
        """Return the record of a file, with what was known of it and its path does not tell."""
        at = found.organized_at or datetime.fromisoformat(self.operation["at"])
        if known is not None:
            at = EPOCH + timedelta(microseconds=known.created_us)
        file_id = uuid.uuid4().hex if known is None else known.file_id
        return replace(
            unowned_record(self.root, Arrival(file_id, inspected), path, at),
            job_id=found.job_id,
            project_id=found.project_id,
            prompt_id=None if known is None else known.prompt_id,
            original_path=path if known is None else known.original_path,
            same_file_as=None if known is None else known.same_file_as,
        )

    def _lines(self, reader: Reader, records: Iterable[FileRecord]) -> Iterator[Change]:
        fresh = [_fitted(reader, record) for record in records if not reader.owner_of(record.path)]
        for (project_id, job_id), group in groupby(fresh, key=lambda r: (r.project_id, r.job_id)):
            files = [file_to_stored(record) for record in group]
            if project_id is None or job_id is None:
                yield from (unowned_line(stored, self.operation) for stored in files)
            elif _fits(reader, project_id, job_id):
                yield self._job_line(reader, files, self.memory.job(job_id))

    def _job_line(
        self, reader: Reader, files: Sequence[Mapping[str, Any]], before: RememberedJob | None
    ) -> Change:
        job_id = files[0]["job_id"]
        is_known = reader.find_job(job_id) is not None
        first = min(stored["created_at"] for stored in files)
        # As after a deletion that was undone, no cleanup takes it for the time of retention.
        state = {"reason": None, "restored_at": self.operation["at"]}
        return {
            "kind": "add" if is_known else "job",
            "job_id": job_id,
            "project_id": files[0]["project_id"],
            "created_at": first if before is None else before.created_at,
            "operation": self.operation,
            "state": state if before is None or is_known else {**before.state, **state},
            "files": files,
        }

    def _trash_line(
        self, job_id: str, entry: str, before: RememberedDeletion | None, alive: Iterable[str]
    ) -> Change:
        unknown = {"at": self.operation["at"], "directories": 0, "skipped": [], "failed": []}
        facts = unknown if before is None else before.facts
        kept = dict.fromkeys(alive, "restored_meanwhile")
        return {
            "kind": "state",
            "job_id": job_id,
            "operation": self.operation,
            "files": {},
            "trash": {**facts, "entry": entry, "kept": kept},
        }


def _fitted(reader: Reader, record: FileRecord) -> FileRecord:
    """Return a record with an id that is free, and that shares bytes with none that is lost."""
    if reader.find_file(record.file_id) is not None:
        record = replace(record, file_id=uuid.uuid4().hex)
    if record.same_file_as is not None and reader.find_file(record.same_file_as) is None:
        record = replace(record, same_file_as=None)
    return record


def _fits(reader: Reader, project_id: str, job_id: str) -> bool:
    """Say whether a folder is that of a job as the library knows it, or of one that it does not know."""
    job = reader.find_job(job_id)
    if job is not None:
        return job.project_id == project_id
    spellings = {None, project_id}
    return reader.known_job(job_id) is None and reader.known_project(project_id) in spellings
