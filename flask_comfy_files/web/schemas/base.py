"""What the schemas of requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate

from flask_comfy_files.web.schemas import forms

MOST_ENTRIES: Final = 20_000
"""What a list in a request may hold."""


class Strict(Schema):
    """Something said, in which every word counts."""

    form: ClassVar[forms.Form] = {}
    """What holds of several of its words together."""

    example: ClassVar[Mapping[str, Any]] = {}
    """What is usually said; without it, the words that have to be."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE


class Loose(Schema):
    """Something said that may hold words that are for others."""

    class Meta:
        """They are passed over."""

        unknown = EXCLUDE


class NothingSaid(Strict):
    """An address or a body in which nothing may stand: ``?dry_run=true`` must not delete anything."""


class Flag(fields.Field[bool]):
    """JSON's own true and false: a word or a number that might mean one of them is a mistake."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> bool:  # noqa: ARG002
        if not isinstance(value, bool):
            raise ValidationError("Not true or false.")
        return value


class Whole(fields.Field[Any]):
    """A whole number, in any way in which JSON can write it; what is none is left to the core."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:  # noqa: ARG002
        return int(value) if isinstance(value, float) and value.is_integer() else value


class FilesOfJob(Schema):
    """What a completion and an organize call have in common."""

    project_id = fields.String(load_default=None, allow_none=True, metadata=forms.IDENTIFIER)
    prompt_id = fields.String(load_default=None, allow_none=True, metadata=forms.PROMPT_ID)
    files = fields.List(
        # What an entry may be is checked in the core, by its place.
        fields.Raw(allow_none=True, metadata=forms.NAMED_FILE),
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=MOST_ENTRIES),
        metadata={"description": "The job's files, as ComfyUI names them or by their paths."},
    )
