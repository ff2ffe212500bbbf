"""Organizing jobs, and asking what is in the library."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flask_comfy_files.core import health, marking, names, presence, stamping, summaries
from flask_comfy_files.core.attribution import require_named_files
from flask_comfy_files.core.errors import (
    ComfyFilesError,
    InvalidInputError,
    JobNotFoundError,
    RecordNotFoundError,
)
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.listing import files_of
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.records import (
    CompletionReport,
    FileRecord,
    JobRecord,
    OrganizeReport,
    PendingJob,
    ProjectRecord,
    ProjectSummary,
    Resolution,
    RetryReport,
    StampedPrompt,
    SystemStats,
)
from flask_comfy_files.core.request import Budget, Request
from flask_comfy_files.core.standing import what_remains

_LONGEST_PROMPT_ID: Final = 255
_HISTORY_WAIT_S: Final = 3.0
"""For the history of a run that has just ended; it was seen to lag by 750 ms."""

Files = Iterable[Any]
"""Relative paths, or objects with ``filename``, ``subfolder`` and ``type`` as in ComfyUI's history."""


class Jobs(Base):
    """What a manager does with jobs, and what it answers of them."""

    @operation("organize")
    def organize_output(
        self,
        job_id: str,
        project_id: str | None = None,
        *,
        prompt_id: str | None = None,
        files: Files | None = None,
    ) -> OrganizeReport:
        """Move a job's files to ``projects/{project_id}/{job_id}/`` and record them.

        ``project_id`` is by default the job's own project, else the setting ``DEFAULT_PROJECT``.
        ``files`` names the job's files and excludes all others; without it they are found in the
        job's inbox and by its name. On return everything is on the disk. Calling it again changes
        nothing that is settled, and adds what is new.

        Raises:
            InvalidIdentifierError: An id cannot name a folder. InvalidInputError: ``prompt_id`` or
            an entry of ``files`` is none; ``UnsafePathError`` if it leads astray. ConflictError:
            The job belongs to another project, or an id is known in another case. OutOfSpaceError:
            The volume is too full; nothing was moved. LockTimeoutError: Somebody else kept the
            library busy; nothing was moved. LibraryUnavailableError: The output root is missing,
            unwritable, or holds another library.
        """
        report = self._organizer.organize(self._request(job_id, project_id, prompt_id, files))
        self._witness.organized(report)
        remaining = what_remains(report.skipped, report.failed)
        if remaining is not None:
            self._witness.left_behind(report, remaining)
        return report

    @operation("complete")
    def complete_job(
        self,
        job_id: str,
        project_id: str | None = None,
        *,
        prompt_id: str | None = None,
        files: Files | None = None,
    ) -> CompletionReport:
        """Organize a job within the request budget, and remember it as pending where that cannot be done now.

        Raises:
            InvalidInputError: As ``organize_output``; such a job is not remembered.
            ConflictError: Likewise.
        """
        settings = self.settings
        budget = Budget(
            settings.request_budget_bytes,
            time.monotonic() + settings.request_budget_seconds,
            history_wait_s=min(_HISTORY_WAIT_S, settings.request_budget_seconds),
        )
        request = self._request(job_id, project_id, prompt_id, files)
        return self._completion.complete(request, budget)

    def get_pending_jobs(self) -> list[PendingJob]:
        """Return the jobs that were completed and wait to be organized, by id.

        Raises:
            LibraryUnavailableError: The library cannot be read.
        """
        return self._completion.pending_jobs()

    @operation("retry")
    def retry_pending_jobs(self, job_ids: Sequence[str] | None = None) -> RetryReport:
        """Organize the jobs that are pending, or those of them that are named.

        Raises:
            LibraryUnavailableError: The library cannot be read.
        """
        waiting = [
            job for job in self.get_pending_jobs() if job_ids is None or job.job_id in job_ids
        ]
        return self._completion.retry(waiting)

    def get_job_files(
        self, job_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> JobRecord:
        """Return a job with its files, in the order in which they were organized.

        With ``limit``, a job of more files is answered a page at a time, by ``created_at`` and then by id;
        ``cursor`` is the ``next_cursor`` of the page before.

        Raises:
            InvalidIdentifierError: No job can have such an id.
            InvalidInputError: ``limit`` is no whole number from 1 to 1000, or ``cursor`` none of this job.
            JobNotFoundError: It is not known; ``JobTrashedError`` where it rests in the trash.
        """
        require_identifier("job_id", job_id)
        part = files_of(job_id=job_id, limit=limit, cursor=cursor)
        with self._reading() as reader:
            job = summaries.find_job_record(reader, job_id, part)
            if job is None:
                raise self._deletion.why_not_known(reader, job_id)
            return job

    @operation("update")
    def update_job(
        self, job_id: str, *, pinned: bool | None = None, tags: Iterable[str] | None = None
    ) -> JobRecord:
        """Set whether a job is pinned, or its tags; ``None`` leaves them as they are.

        Nothing deletes a pinned job. Tags are sorted, and each is kept once.

        Raises:
            InvalidInputError: ``pinned`` is no bool, or ``tags`` are no tags.
            JobNotFoundError: The job is not known.
        """
        require_identifier("job_id", job_id)
        if pinned is not None and not isinstance(pinned, bool):
            raise InvalidInputError("pinned", pinned, "is neither true nor false")
        checked = None if tags is None else marking.require_tags(tags)
        # Where it is not known, the next call says whether it rests in the trash.
        with contextlib.suppress(JobNotFoundError):
            marking.mark(
                self._root, self._catalog, self._clock, job_id, pinned=pinned, tags=checked
            )
        return self.get_job_files(job_id)

    def get_project_files(
        self, project_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> ProjectRecord:
        """Return a project with its jobs and all their files, oldest job first.

        With ``limit``, a project of more files or jobs is answered a page at a time: its files by ``created_at``
        and then by id, and the jobs to which these belong. ``cursor`` is the ``next_cursor`` of the page before.

        Raises:
            InvalidIdentifierError: No project can have such an id.
            InvalidInputError: ``limit`` is no whole number from 1 to 1000, or ``cursor`` none of this project.
            ProjectNotFoundError: It is not known.
        """
        require_identifier("project_id", project_id)
        part = files_of(project_id=project_id, limit=limit, cursor=cursor)
        with self._reading() as reader:
            return summaries.project_record(reader, project_id, part)

    def get_project_summary(self, project_id: str) -> ProjectSummary:
        """Return a project in numbers.

        Raises:
            InvalidIdentifierError: No project can have such an id.
            ProjectNotFoundError: It is not known.
        """
        require_identifier("project_id", project_id)
        with self._reading() as reader:
            return summaries.project_summary(reader, project_id)

    def get_file_metadata(self, file_id_or_path: str | os.PathLike[str]) -> FileRecord:
        """Return the record of a file by its id, its path below the output root, or its absolute path.

        Raises:
            RecordNotFoundError: Nothing of the kind is recorded.
        """
        key = (
            os.fspath(file_id_or_path)
            if isinstance(file_id_or_path, os.PathLike)
            else file_id_or_path
        )
        if not isinstance(key, str):
            raise InvalidInputError("file_id_or_path", key, "is neither an id nor a path")
        with self._reading() as reader:
            record = reader.find_file(key.removeprefix(f"{self._root}/"))
        if record is None:
            raise RecordNotFoundError(key)
        return record

    def stamp_prompt(
        self,
        graph: Mapping[str, Any],
        *,
        job_id: str,
        project_id: str | None = None,
        extra_data: Mapping[str, Any] | None = None,
    ) -> StampedPrompt:
        """Return a workflow that writes into the job's inbox, so that its files are the job's by construction.

        ``graph`` is in ComfyUI's API format; what is returned goes to ``POST /prompt`` with its
        ``extra_data``. Each call is a run with a folder of its own, so no name is ever used twice.

        Raises:
            InvalidInputError: The graph or ``extra_data`` is none, or a path in it leads out of the output
                folder.
            InvalidIdentifierError: An id cannot name a folder.
        """
        run = uuid.uuid4().hex
        return stamping.stamp_prompt(
            graph, job_id=job_id, project_id=project_id, run=run, extra_data=extra_data
        )

    def resolve_name(
        self,
        filename: str,
        *,
        subfolder: str = "",
        comfyui_type: str = "output",
        prompt_id: str | None = None,
    ) -> Resolution:
        """Return the records of the files that ComfyUI wrote under a name.

        Raises:
            NameNotFoundError: There is none.
            InvalidInputError: The name is none.
        """
        path = names.require_name(filename, subfolder, comfyui_type)
        with self._reading() as reader:
            return names.resolve(self._root, reader, path, prompt_id)

    def find_content(
        self,
        filename: str,
        *,
        subfolder: str = "",
        comfyui_type: str = "output",
        prompt_id: str | None = None,
    ) -> names.Content:
        """Return where the bytes lie for which a name of ComfyUI's stands, organized or not yet.

        Raises:
            NameNotFoundError: There are none.
            AmbiguousNameError: The name was used for several files.
            InvalidInputError: The name is none.
        """
        path = names.require_name(filename, subfolder, comfyui_type)
        with self._reading() as reader:
            return names.find_content(self._root, reader, path, prompt_id)

    def get_content(self, key: str) -> names.Content:
        """Return where the bytes of a recorded file lie, by its id or its path.

        Raises:
            RecordNotFoundError: There is no such file, or its bytes are missing.
        """
        with self._reading() as reader:
            return names.content_of(reader, key)

    def get_system_stats(self) -> SystemStats:
        """Return the library in numbers, and how it is; never fails, but says why where it cannot tell."""
        try:
            with self._reading() as reader:
                measured = health.measure(
                    self._root,
                    reader,
                    min_free_bytes=self.settings.min_free_bytes,
                    waiting=len({job.job_id for job in self._completion.pending_jobs()}),
                )
            why_read_only = self._catalog.why_read_only() or presence.why_absent(
                self._root, self._catalog
            )
            return health.with_warning(measured, why_read_only)
        except (ComfyFilesError, OSError) as error:
            return health.unavailable(self._root, error, self._completion.unwritten_count)

    def _request(
        self, job_id: str, project_id: str | None, prompt_id: str | None, files: Files | None
    ) -> Request:
        return Request(
            job_id=require_identifier("job_id", job_id),
            project_id=None if project_id is None else require_identifier("project_id", project_id),
            default_project=self.settings.default_project,
            prompt_id=None if prompt_id is None else _require_prompt_id(prompt_id),
            files=None if files is None else require_named_files(files),
        )


def _require_prompt_id(prompt_id: object) -> str:
    """Return the id of a ComfyUI run; older servers take any string, so that only its form is looked at."""
    if not isinstance(prompt_id, str):
        raise InvalidInputError("prompt_id", prompt_id, "is not a string")
    if not 0 < len(prompt_id) <= _LONGEST_PROMPT_ID or not prompt_id.isprintable():
        raise InvalidInputError(
            "prompt_id", prompt_id, f"is not 1 to {_LONGEST_PROMPT_ID} printable characters"
        )
    return prompt_id
