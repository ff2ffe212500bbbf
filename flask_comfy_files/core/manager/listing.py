"""Lists of what is in the library, a page at a time."""

from __future__ import annotations

from flask_comfy_files.core.listing import (
    Moment,
    files_page,
    jobs_page,
    listing,
    projects_page,
    require_filters,
)
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.pages import FilesPage, JobsPage, ProjectsPage


class Listing(Base):
    """What a manager answers of many files, jobs and projects.

    ``cursor`` is the ``next_cursor`` of the page before, asked for with the same sort and filters. What is added
    or deleted meanwhile does not move the pages: nothing that stays is shown twice or left out, as long as what it
    is sorted by stays. A page costs the same wherever it stands; where few of very many pass the filters, it holds
    fewer than ``limit``, or none, and leads on all the same. Nothing that rests in the trash is listed.
    """

    def list_files(
        self,
        *,
        project: str | None = None,
        job: str | None = None,
        file_type: str | None = None,
        since: Moment = None,
        until: Moment = None,
        tag: str | None = None,
        pinned: bool | None = None,
        min_size: int | None = None,
        q: str | None = None,
        sort: str = "-created_at",
        limit: int = 50,
        cursor: str | None = None,
    ) -> FilesPage:
        """Return files of a project, a job, a type, and so on; those of no job have ``job_id`` ``None``.

        ``since`` is included, ``until`` is not; both are of ``created_at``. ``tag`` and ``pinned`` are those of
        the file's job, ``min_size`` counts bytes. ``q`` is part of the file's name, of its original name, of its
        id, its job's, its project's, or of a tag of its job, in any case of letters. ``sort`` is ``created_at``,
        ``file_size`` or ``path``, each with ``-`` in front for the other way round; equal ones come by id.

        Raises:
            InvalidInputError: ``limit`` is no whole number from 1 to 200, ``cursor`` belongs to another
                question, or a filter cannot be.
        """
        wanted = listing(
            "files",
            require_filters(
                project=project,
                job=job,
                file_type=file_type,
                since=since,
                until=until,
                tag=tag,
                pinned=pinned,
                min_size=min_size,
                q=q,
            ),
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
        with self._reading() as reader:
            return files_page(reader, wanted)

    def list_jobs(
        self,
        *,
        project: str | None = None,
        since: Moment = None,
        until: Moment = None,
        tag: str | None = None,
        pinned: bool | None = None,
        min_size: int | None = None,
        q: str | None = None,
        sort: str = "-created_at",
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobsPage:
        """Return jobs, without their files.

        ``min_size`` counts the bytes of all files of a job; ``q`` is part of its id, its project's, or of a tag.
        ``sort`` is ``created_at``, ``total_size`` or ``job_id``, each with ``-`` in front for the other way
        round; the rest is as in ``list_files``.

        Raises:
            InvalidInputError: As ``list_files``.
        """
        wanted = listing(
            "jobs",
            require_filters(
                project=project,
                since=since,
                until=until,
                tag=tag,
                pinned=pinned,
                min_size=min_size,
                q=q,
            ),
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
        with self._reading() as reader:
            return jobs_page(reader, wanted)

    def list_projects(
        self,
        *,
        min_size: int | None = None,
        q: str | None = None,
        sort: str = "project_id",
        limit: int = 50,
        cursor: str | None = None,
    ) -> ProjectsPage:
        """Return projects in numbers.

        ``min_size`` counts the bytes of all files of a project; ``q`` is part of its id. ``sort`` is
        ``project_id`` or ``total_size``, each with ``-`` in front for the other way round.

        Raises:
            InvalidInputError: As ``list_files``.
        """
        wanted = listing(
            "projects",
            require_filters(min_size=min_size, q=q),
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
        with self._reading() as reader:
            return projects_page(reader, wanted)
