"""Pages of lists: files, jobs and projects, with what leads to the next page. Named as the JSON keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flask_comfy_files.core.records import FileRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedJob:
    """A job as a list shows it, without its files; ``total_size`` counts bytes."""

    job_id: str
    project_id: str
    file_count: int
    total_size: int
    created_at: str
    pinned: bool
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedProject:
    """A project as a list shows it; ``total_size`` counts bytes, those that files share once."""

    project_id: str
    job_count: int
    file_count: int
    total_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesPage:
    """Files in the order that was asked for, a page of them.

    ``next_cursor`` is ``None`` on the last page. A page may hold fewer files than were asked for, or none, though
    more are to come.
    """

    files: tuple[FileRecord, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over the files."""
        return iter(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPage:
    """Jobs in the order that was asked for, a page of them, which ends as a ``FilesPage`` does."""

    jobs: tuple[ListedJob, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[ListedJob]:
        """Iterate over the jobs."""
        return iter(self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectsPage:
    """Projects in the order that was asked for, a page of them, which ends as a ``FilesPage`` does."""

    projects: tuple[ListedProject, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[ListedProject]:
        """Iterate over the projects."""
        return iter(self.projects)
