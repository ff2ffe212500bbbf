"""What requests say of ComfyUI's names and workflows, and of the bytes of a file."""

from __future__ import annotations

from marshmallow import fields, validate

from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import Loose, Strict


class StampBody(Strict):
    """``POST /stamp``."""

    prompt = fields.Dict(required=True, metadata=forms.GRAPH)
    job_id = fields.String(required=True, metadata=forms.IDENTIFIER)
    project_id = fields.String(load_default=None, allow_none=True, metadata=forms.IDENTIFIER)
    extra_data = fields.Dict(load_default=None, allow_none=True, metadata=forms.EXTRA_DATA)


class NameQuery(Loose):
    """``GET /resolve`` and ``GET /view``: the words by which ComfyUI's ``/view`` names a file, and a run.

    ComfyUI's clients add words of their own, such as ``preview`` and ``rand``.
    """

    filename = fields.String(required=True, metadata=forms.NAME)
    subfolder = fields.String(load_default="", metadata=forms.SUBFOLDER)
    comfyui_type = fields.String(
        data_key="type", load_default="output", metadata={"enum": ["output", "temp", "input"]}
    )
    prompt_id = fields.String(load_default=None, metadata=forms.PROMPT_ID)


class ContentQuery(Strict):
    """``GET /{file_id}/content``."""

    download = fields.String(load_default="0", validate=validate.OneOf(["0", "1"]))
