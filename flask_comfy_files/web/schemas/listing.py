"""What requests say of lists: filters, a sort, and which page."""

from __future__ import annotations

from typing import Final

from marshmallow import fields, validate

from flask_comfy_files.core.listing import (
    LARGEST_SIZE,
    LONGEST_TEXT,
    MOST_FILES,
    MOST_LISTED,
    SORTS,
)
from flask_comfy_files.core.records import FileType
from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import Strict

_TIME: Final = {"anyOf": [{"format": "date-time"}, {"format": "date"}]}
_TEXT: Final = {"pattern": r"^[^\x00]*$", "maxLength": LONGEST_TEXT}
_SIZE: Final = {"minimum": 0, "maximum": LARGEST_SIZE}


def _sort_of(kind: str) -> dict[str, list[str]]:
    return {"enum": [f"{sign}{word}" for word in SORTS[kind] for sign in ("", "-")]}


class ProjectsQuery(Strict):
    """``GET /projects``; what the words may be is checked in the core."""

    min_size = fields.Integer(load_default=None, metadata=_SIZE)
    q = fields.String(load_default=None, metadata=_TEXT)
    sort = fields.String(load_default="project_id", metadata=_sort_of("projects"))
    limit = fields.Integer(load_default=50, metadata={"minimum": 1, "maximum": MOST_LISTED})
    cursor = fields.String(load_default=None, metadata=forms.CURSOR)


class JobsQuery(ProjectsQuery):
    """``GET /jobs``."""

    project = fields.String(load_default=None, metadata=forms.IDENTIFIER)
    since = fields.String(load_default=None, metadata=_TIME)
    until = fields.String(load_default=None, metadata=_TIME)
    tag = fields.String(load_default=None, metadata=forms.TAG)
    pinned = fields.Boolean(
        truthy={"true"},
        falsy={"false"},
        load_default=None,
        metadata={"description": "Only those of pinned jobs, or with false only those of others."},
    )
    sort = fields.String(load_default="-created_at", metadata=_sort_of("jobs"))


class FilesQuery(JobsQuery):
    """``GET`` of the prefix itself."""

    job = fields.String(load_default=None, metadata=forms.IDENTIFIER)
    # Checked here, since the core calls it otherwise.
    file_type = fields.String(
        data_key="type",
        load_default=None,
        validate=validate.OneOf(list(FileType)),
        metadata={"description": "Only files of this type.", "examples": ["video"]},
    )
    sort = fields.String(load_default="-created_at", metadata=_sort_of("files"))


class PartQuery(Strict):
    """``GET /jobs/{job_id}`` and ``GET /projects/{project_id}``: which of the files are answered."""

    limit = fields.Integer(load_default=MOST_FILES, metadata={"minimum": 1, "maximum": MOST_FILES})
    cursor = fields.String(load_default=None, metadata=forms.CURSOR)
