"""Migrating what lies about from before, and giving to a job what nobody owned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask_comfy_files.core import assigning
from flask_comfy_files.core.detection import Grouping
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.hostlist import read_host_list
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.migration import Progress, Wish
from flask_comfy_files.core.relocation import AssignReport, LegacyFiles, MigrationReport
from flask_comfy_files.core.request import Request


class Migrating(Base):
    """What a manager does with files that were there before it."""

    def plan_migration(
        self,
        *,
        recursive: bool = False,
        jobs: Any = None,
        group_by: str | None = None,
        leave_unmatched: bool = False,
        on_progress: Progress | None = None,
    ) -> MigrationReport:
        """Return what ``migrate_legacy_files`` would do now, and change nothing.

        Raises:
            InvalidInputError: As ``migrate_legacy_files``.
        """
        wish = _wish(recursive, jobs, group_by, leave_unmatched)
        return self._migration.rehearse(wish, on_progress)

    @operation("migrate")
    def migrate_legacy_files(
        self,
        *,
        recursive: bool = False,
        jobs: Any = None,
        group_by: str | None = None,
        leave_unmatched: bool = False,
        on_progress: Progress | None = None,
    ) -> MigrationReport:
        """Move every file that lies directly in the output root to its job, or to ``legacy/``.

        ``recursive`` takes sub-folders, too, but for what ``EXCLUDE`` names. ``jobs`` says whose files are
        whose: a list of objects with ``job_id``, ``files`` and perhaps ``project_id``, or a history of
        ComfyUI's. ``group_by`` puts together what nothing else attributes: ``"workflow"`` or ``"day"``.
        With ``leave_unmatched`` what nobody owns stays where it is. Interrupted, it goes on when it is
        called again. ``on_progress`` is told how many of how many files are done, and their bytes.

        Raises:
            InvalidInputError: An argument is of no use; nothing was moved.
            MigrationRunningError: Another one is under way.
            OutOfSpaceError: The records would not fit; nothing was moved.
        """
        wish = _wish(recursive, jobs, group_by, leave_unmatched)
        return self._kept(self._migration.run(wish, on_progress))

    def get_legacy_files(self) -> LegacyFiles:
        """Return the files in ``legacy/``, which belong to no job.

        Raises:
            LibraryUnavailableError: The library cannot be read.
        """
        with self._reading() as reader:
            return assigning.get_legacy(reader)

    @operation("assign")
    def assign_legacy_files(
        self, files: Iterable[str], job_id: str, project_id: str | None = None
    ) -> AssignReport:
        """Move files out of ``legacy/``, named by path or id, to a new or known job.

        Raises:
            InvalidInputError: ``files`` is no list of paths and ids.
            ConflictError: The job belongs to another project, or an id is known in another case.
            OutOfSpaceError: The records would not fit; nothing was moved.
        """
        keys = [] if isinstance(files, str | bytes) else list(files)
        if not keys or not all(isinstance(key, str) for key in keys):
            raise InvalidInputError("files", files, "is no list of paths and file ids")
        request = Request(
            job_id=require_identifier("job_id", job_id),
            project_id=None if project_id is None else require_identifier("project_id", project_id),
            default_project=self.settings.default_project,
        )
        self._require_room(lambda _: len(keys))
        report = assigning.assign(self._root, self._catalog, self._clock, request, keys)
        return self._kept(report)


def _wish(recursive: Any, jobs: Any, group_by: Any, leave_unmatched: Any) -> Wish:
    for name, value in (("recursive", recursive), ("leave_unmatched", leave_unmatched)):
        if not isinstance(value, bool):
            raise InvalidInputError(name, value, "is neither true nor false")
    known = [str(grouping) for grouping in Grouping]
    if group_by is not None and group_by not in known:
        raise InvalidInputError("group_by", group_by, f"is none of {', '.join(known)}")
    return Wish(
        hosts=read_host_list(jobs),
        recursive=recursive,
        grouping=None if group_by is None else Grouping(group_by),
        leave_unmatched=leave_unmatched,
    )
