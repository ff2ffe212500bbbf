"""Files: their records, their bytes, and what happened to them."""

from __future__ import annotations

from typing import Final

from flask import Response

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core import errors
from flask_comfy_files.core.records import FileRecord
from flask_comfy_files.core.reports import FileHistory
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.content import send
from flask_comfy_files.web.route import FILE_ID, Bytes, Route
from flask_comfy_files.web.schemas.naming import ContentQuery

BYTES_OF_FILE: Final = Bytes(
    media_types=("*/*",), description="The bytes of the file.", has_ranges=True
)


def get_file(api: FileManagerAPI, file_id: str) -> Json:
    """Return one file's record."""
    return api.get_file_api(file_id)


def get_content(api: FileManagerAPI, file_id: str, download: str) -> Response:
    """Return the bytes of one file."""
    content = api.manager.get_content(file_id)
    return send(api.manager.settings, content, as_download=download == "1")


def get_file_history(api: FileManagerAPI, file_id: str) -> Json:
    """Return what happened to one file."""
    return api.get_file_history_api(file_id)


ROUTES: Final = (
    Route(
        name="get_file",
        method="GET",
        rule=f"/{FILE_ID}",
        action=Action.READ,
        summary="Get one file's record.",
        view=get_file,
        answer=FileRecord,
        errors=(errors.RecordNotFoundError,),
    ),
    Route(
        name="get_content",
        method="GET",
        rule=f"/{FILE_ID}/content",
        action=Action.READ,
        summary="Get the bytes of one file.",
        view=get_content,
        query=ContentQuery,
        answer=BYTES_OF_FILE,
        errors=(errors.RecordNotFoundError, errors.NameNotFoundError),
    ),
    Route(
        name="get_file_history",
        method="GET",
        rule=f"/{FILE_ID}/history",
        action=Action.READ,
        summary="Get what happened to one file.",
        view=get_file_history,
        answer=FileHistory,
        errors=(errors.RecordNotFoundError,),
    ),
)
