"""Deleting one job, bringing it back, and emptying the trash."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core import durable, trash
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.queries import JobRow, TrashRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.disposal import Purged, Restored, purge_jobs, restore_job, trash_jobs
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    JobInOtherProjectError,
    JobNotFoundError,
    JobPinnedError,
    JobTrashedError,
)
from flask_comfy_files.core.examination import Examined, examine
from flask_comfy_files.core.layout import STATE, is_in, trash_folder
from flask_comfy_files.core.records import FileRecord, LeftFile, SkipReason, Tally, add_up, iso_utc
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.reports import (
    DeletionReport,
    Outcome,
    PurgeReport,
    RestoreReport,
    Trash,
    TrashedJob,
)
from flask_comfy_files.core.request import Clock

JOBS_AT_ONCE: Final = 256
"""How many jobs share one append to the document, and one turn with the library's lock."""


class Deletion:
    """Deletes and restores jobs of one library; safe for threads and processes."""

    def __init__(self, root: str, catalog: Catalog, clock: Clock, *, trash_days: int) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock
        self._trash_days = trash_days

    def destroy(self, job_id: str) -> Outcome[DeletionReport]:
        """Delete a job for good, whether it rests in the trash already or not.

        Raises:
            JobNotFoundError: It is not known.
            JobPinnedError: It is pinned.
        """
        deleted = self.delete(job_id)
        report = deleted.report
        purged = Purged()
        operation = {**new_operation("purge", self._clock()), "id": report.operation_id}
        with changing(self._root, self._catalog) as writer:
            is_alive = writer.find_job(job_id) is not None
            rows = [
                row
                for row in writer.trash(job_id)
                if row.entry == report.operation_id or not is_alive
            ]
            self._purge(writer, operation, rows, purged)
        own = trash_folder(report.operation_id, job_id)
        staying = sum(is_in(left.path, own) for left in purged.failed)
        report = replace(
            report,
            deleted_files=report.deleted_files - staying,
            bytes_trashed=0,
            bytes_freed=purged.freed.bytes,
            failed=(*report.failed, *purged.failed),
            restorable_until=None,
        )
        return Outcome(report, is_new=deleted.is_new or purged.jobs > 0)

    def restore(self, job_id: str) -> RestoreReport:
        """Bring a job back to where it was; of several deletions under its id, that of the last one.

        Raises:
            JobNotFoundError: It is neither known nor in the trash.
            ConflictError: Meanwhile its id belongs to another project, or is known in another case.
        """
        operation = new_operation("restore", self._clock())
        with reading(self._root, self._catalog) as reader:  # where nothing is, nothing is begun
            if reader.find_job(job_id) is None and find_last_deletion(reader, job_id) is None:
                raise JobNotFoundError(job_id)
        with changing(self._root, self._catalog) as writer:
            row = find_last_deletion(writer, job_id)
            before = writer.files_of_job(job_id)
            if row is None:
                if writer.find_job(job_id) is None:
                    raise JobNotFoundError(job_id)
                return _restored(writer, job_id, before, Restored(()), None)
            require_free(writer, row)
            try:
                restored = restore_job(self._root, writer, operation, row)
            except OSError as error:
                durable.refuse("Restoring", job_id, error)
            report = _restored(writer, job_id, before, restored, str(operation["id"]))
            return replace(report, project_id=row.project_id)

    def get_trash(self) -> Trash:
        """Return everything in the trash, oldest first."""
        with reading(self._root, self._catalog) as reader:
            totals = reader.trash_totals()
            jobs = tuple(self._as_trashed(row) for row in reader.trash())
        return Trash(jobs=jobs, files=totals.files, bytes=totals.bytes)

    def empty_trash(self) -> PurgeReport:
        """Delete everything in the trash for good."""
        operation = new_operation("purge", self._clock())
        purged = Purged()
        # Where no library was begun, none is begun by this.
        is_empty = durable.find_status(self._root, STATE) is None and not self.get_trash().jobs
        while not is_empty:
            with changing(self._root, self._catalog) as writer:
                rows = list(itertools.islice(writer.trash(), JOBS_AT_ONCE))
                self.purge(writer, operation, rows, purged)
                is_empty = not rows
        return PurgeReport(
            purged_jobs=purged.jobs,
            purged_files=purged.files,
            bytes_freed=purged.freed.bytes,
            failed=tuple(purged.failed),
            operation_id=operation["id"] if purged.jobs else None,
        )

    def purge(
        self,
        writer: Writer,
        operation: dict[str, Any],
        rows: Sequence[TrashRow],
        purged: Purged,
    ) -> None:
        """Delete some jobs in the trash for good, and what crashes have left there; for the holder of the lock."""
        self._purge(writer, operation, rows, purged)
        if len(rows) < JOBS_AT_ONCE:  # the last of several batches
            trash.sweep(self._root, writer.trash_entries())

    def _purge(
        self,
        writer: Writer,
        operation: dict[str, Any],
        rows: Sequence[TrashRow],
        purged: Purged,
    ) -> None:
        try:
            for start in range(0, len(rows), JOBS_AT_ONCE):
                batch = rows[start : start + JOBS_AT_ONCE]
                purge_jobs(self._root, writer, operation, batch, purged)
        except OSError as error:
            durable.refuse("Emptying the trash of", "", error)

    def restorable_until(self, trashed_at: str) -> datetime:
        """Return from when on a cleanup may delete for good what was deleted at a time."""
        return datetime.fromisoformat(trashed_at) + timedelta(days=self._trash_days)

    def why_not_known(self, reader: Reader, job_id: str) -> JobNotFoundError:
        """Return the error for a job that is not known, or that rests in the trash."""
        row = find_last_deletion(reader, job_id)
        if row is None:
            return JobNotFoundError(job_id)
        trashed = self._as_trashed(row)
        return JobTrashedError(job_id, trashed.trashed_at, trashed.restorable_until)

    def delete(self, job_id: str) -> Outcome[DeletionReport]:
        """Move a job into the trash; for one that is there already, answer what its deletion did.

        Raises:
            JobNotFoundError: It is not known.
            JobPinnedError: It is pinned.
        """
        operation = new_operation("delete", self._clock())
        while True:
            with reading(self._root, self._catalog) as reader:
                job = reader.find_job(job_id)
                if job is None:
                    return Outcome(self._report_again(reader, job_id), is_new=False)
                _require_unpinned(job)
                examined = examine(self._root, job_id, job.project_id, reader.files_of_job(job_id))
            with changing(self._root, self._catalog) as writer:
                now = writer.find_job(job_id)
                if now is None or now.seq != job.seq:
                    continue  # it has changed since it was looked at
                if examined.failed or (examined.held and not examined.doomed):
                    # Nothing of it may go.
                    return Outcome(_report(examined, operation), is_new=False)
                try:
                    trashed = trash_jobs(self._root, writer, operation, [examined])
                except OSError as error:
                    durable.refuse("Deleting", job_id, error)
            if trashed.failed:
                failed = tuple(trashed.failed.values())
                return Outcome(_report(examined, operation, failed), is_new=False)
            report = replace(
                _report(examined, operation),
                deleted_files=len(examined.doomed),
                bytes_trashed=examined.size,
                removed_directories=trashed.folders,
                restorable_until=self._until(str(operation["at"])),
            )
            return Outcome(report, is_new=True)

    def _until(self, trashed_at: str) -> str:
        return iso_utc(self.restorable_until(trashed_at))

    def _as_trashed(self, row: TrashRow) -> TrashedJob:
        return TrashedJob(
            job_id=row.job_id,
            project_id=row.project_id,
            file_count=row.file_count,
            total_size=row.total_size,
            trashed_at=row.facts["at"],
            restorable_until=self._until(row.facts["at"]),
            operation_id=row.entry,
        )

    def _report_again(self, reader: Reader, job_id: str) -> DeletionReport:
        """Return what the deletion of a job in the trash answered."""
        row = find_last_deletion(reader, job_id)
        if row is None:
            raise JobNotFoundError(job_id)
        facts = row.facts
        return DeletionReport(
            job_id=job_id,
            project_id=row.project_id,
            deleted_files=row.file_count,
            bytes_trashed=row.total_size,
            bytes_freed=0,
            removed_directories=facts["directories"],
            skipped=tuple(LeftFile(**left) for left in facts["skipped"]),
            failed=tuple(LeftFile(**left) for left in facts["failed"]),
            restorable_until=self._until(facts["at"]),
            operation_id=row.entry,
        )


def new_operation(kind: str, at: datetime) -> dict[str, Any]:
    """Return an operation that begins now, as its lines name it."""
    return {"id": uuid.uuid4().hex, "kind": kind, "at": iso_utc(at)}


def find_last_deletion(reader: Reader, job_id: str) -> TrashRow | None:
    """Return the newest of the deletions that rest in the trash under a job's id."""
    *_, row = [None, *reader.trash(job_id)]
    return row


def _require_unpinned(job: JobRow) -> None:
    if job.state.get("pinned"):
        raise JobPinnedError(job.job_id)


def require_free(reader: Reader, row: TrashRow) -> None:
    """Refuse to restore a job whose ids mean something else by now.

    Raises:
        ConflictError: They do.
    """
    for field, identifier, known in (
        ("job_id", row.job_id, reader.known_job(row.job_id)),
        ("project_id", row.project_id, reader.known_project(row.project_id)),
    ):
        if known not in {None, identifier}:
            raise IdentifierCaseError(field, identifier, str(known))
    job = reader.find_job(row.job_id)
    if job is not None and job.project_id != row.project_id:
        raise JobInOtherProjectError(row.job_id, row.project_id, job.project_id)


def _report(
    examined: Examined, operation: dict[str, Any], failed: tuple[LeftFile, ...] = ()
) -> DeletionReport:
    """Return the report of a deletion by which nothing was deleted."""
    return DeletionReport(
        job_id=examined.job_id,
        project_id=examined.project_id,
        deleted_files=0,
        bytes_trashed=0,
        bytes_freed=0,
        removed_directories=0,
        skipped=examined.skipped,
        failed=(*(left for _, left in examined.failed), *failed),
        restorable_until=None,
        operation_id=operation["id"],
    )


def _restored(
    reader: Reader,
    job_id: str,
    before: Iterable[FileRecord],
    restored: Restored,
    operation_id: str | None,
) -> RestoreReport:
    files = reader.files_of_job(job_id)
    came = [record for record in restored.records if not record.missing]
    lost = [
        LeftFile(path=record.path, reason=SkipReason.NOT_FOUND, bytes=record.file_size)
        for record in restored.records
        if record.missing
    ]
    failed = [] if restored.failed is None else [restored.failed]
    moved, already = _tally(came), _tally(before)
    left = [*lost, *failed]
    job = reader.find_job(job_id)
    return RestoreReport(
        job_id=job_id,
        project_id="" if job is None else job.project_id,
        files=files,
        file_count=len(files),
        found=add_up([moved, already], left),
        restored=moved,
        already_there=already,
        skipped=tuple(lost),
        failed=tuple(failed),
        operation_id=operation_id,
    )


def _tally(records: Iterable[FileRecord]) -> Tally:
    sizes = [record.file_size for record in records]
    return Tally(files=len(sizes), bytes=sum(sizes))
