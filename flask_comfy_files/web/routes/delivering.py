"""The bytes of files in other forms: thumbnails, and archives."""

from __future__ import annotations

from typing import Final

from flask import Response

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors, pictures
from flask_comfy_files.core.archiving import MEDIA_TYPE
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.delivery import send_archive, send_thumbnail
from flask_comfy_files.web.route import FILE_ID, Bytes, Route
from flask_comfy_files.web.schemas.delivering import ThumbnailQuery


def get_thumbnail(api: FileManagerAPI, file_id: str, size: int) -> Response:
    """Return the thumbnail of one file."""
    return send_thumbnail(api.manager.get_thumbnail(file_id, size))


def get_archive(api: FileManagerAPI, job_id: str) -> Response:
    """Return all files of a job in one archive."""
    return send_archive(api.manager.stream_archive(job_id))


ROUTES: Final = (
    Route(
        name="get_thumbnail",
        method="GET",
        rule=f"/{FILE_ID}/thumbnail",
        action=Action.READ,
        summary="Get the thumbnail of one file.",
        view=get_thumbnail,
        query=ThumbnailQuery,
        answer=Bytes(
            media_types=(pictures.MEDIA_TYPE, pictures.PLACEHOLDER_MEDIA_TYPE),
            description="The picture as WebP, or a placeholder as PNG where there is none.",
        ),
        errors=(
            errors.RecordNotFoundError,
            errors.NameNotFoundError,
            errors.MissingExtraError,
        ),
    ),
    Route(
        name="get_archive",
        method="GET",
        rule="/jobs/<job_id>/archive",
        action=Action.READ,
        summary="Get all files of a job in one ZIP archive.",
        view=get_archive,
        answer=Bytes(
            media_types=(MEDIA_TYPE,),
            description="The archive, made while it is sent.",
            has_etag=False,
        ),
        errors=(errors.JobNotFoundError, errors.JobTrashedError, errors.MissingExtraError),
    ),
)
