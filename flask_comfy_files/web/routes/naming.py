"""ComfyUI's own words: the workflows that it runs, and the names that it gives to files."""

from __future__ import annotations

from typing import Any, Final

from flask import Response

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors
from flask_comfy_files.core.records import Resolution, StampedPrompt
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.content import send
from flask_comfy_files.web.route import Route
from flask_comfy_files.web.routes.files import BYTES_OF_FILE
from flask_comfy_files.web.schemas.naming import NameQuery, StampBody


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
        answer=BYTES_OF_FILE,
        errors=(
            errors.NameNotFoundError,
            errors.AmbiguousNameError,
            errors.UnsafePathError,
            errors.InvalidInputError,
        ),
    ),
)
