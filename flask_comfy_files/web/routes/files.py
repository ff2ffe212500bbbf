"""Files: their records, their bytes, what happened to them, and the names that ComfyUI gave them."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core import errors
from flask_comfy_files.core.records import FileRecord, Resolution, StampedPrompt
from flask_comfy_files.core.reports import FileHistory
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.content import send
from flask_comfy_files.web.route import FILE_ID, Bytes, Route
from flask_comfy_files.web.schemas.naming import ContentQuery, NameQuery, StampBody

_BYTES_OF_FILE: Final = Bytes(
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


def view(api: FileManagerAPI, **asked: Any) -> Response:
    """Return the bytes for which a name of ComfyUI's stands, as ComfyUI's own ``/view`` does."""
    return send(api.manager.settings, api.manager.find_content(**asked))


ROUTES: Final = (
    Route(
        name="stamp",
        method="POST",
        rule="/stamp",
        action=Action.WRITE,
        summary="Point a workflow's savers into the inbox of a job.",
        view=FileManagerAPI.stamp_prompt_api,
        body=StampBody,
        answer=StampedPrompt,
        errors=(errors.InvalidInputError,),
    ),
    Route(
        name="resolve",
        method="GET",
        rule="/resolve",
        action=Action.READ,
        summary="Get the records for which a name of ComfyUI's stands.",
        view=FileManagerAPI.resolve_name_api,
        query=NameQuery,
        answer=Resolution,
        errors=(errors.NameNotFoundError, errors.UnsafePathError, errors.InvalidInputError),
    ),
    Route(
        name="view",
        method="GET",
        rule="/view",
        action=Action.READ,
        summary="Get the bytes for which a name of ComfyUI's stands, as from ComfyUI's own /view.",
        view=view,
        query=NameQuery,
        answer=_BYTES_OF_FILE,
        errors=(
            errors.NameNotFoundError,
            errors.AmbiguousNameError,
            errors.UnsafePathError,
            errors.InvalidInputError,
        ),
    ),
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
        answer=_BYTES_OF_FILE,
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
