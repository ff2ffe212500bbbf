"""What requests say of thumbnails."""

from __future__ import annotations

from marshmallow import fields, validate

from flask_comfy_files.core.thumbnail_cache import SIZES
from flask_comfy_files.web.schemas.base import Strict


class ThumbnailQuery(Strict):
    """``GET /{file_id}/thumbnail``: the longer side in pixels."""

    size = fields.Integer(load_default=256, validate=validate.OneOf(SIZES))
