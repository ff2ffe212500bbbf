"""What a route is: what it takes, what it does, what it answers, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import Request, Response
from marshmallow import Schema
from werkzeug.exceptions import HTTPException

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.parsing import body_parser, read_body
from flask_comfy_files.web.schemas.base import NothingSaid
from flask_comfy_files.web.works import Work

View = Callable[..., Json | Response | Work]
"""Takes the API and, by name, what path, query and body say. Answers, or says which work is to be done."""

FILE_ID: Final = "<string(length=32):file_id>"
"""How long a file's id is tells it from the names of our other routes."""

_BODILESS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Outlasting:
    """The view of work that may outlast its request: what was said are its arguments."""

    kind: str

    def __call__(self, _api: FileManagerAPI, **said: Any) -> Work:
        """Return the work."""
        return Work(self.kind, said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """An answer that is no JSON of ours: of which types it may be, and what it is."""

    media_types: tuple[str, ...]
    description: str
    has_etag: bool = True
    has_ranges: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint."""

    name: str
    method: str
    rule: str
    """Below the prefix."""
    action: Action | None
    """What the caller must be allowed; ``None`` is open to all."""
    summary: str
    view: View
    answer: type[Any] | Bytes
    """The record whose JSON is answered."""
    query: type[Schema] = NothingSaid
    body: type[Schema] | None = None
    optional_body: type[Schema] | None = None
    errors: tuple[type[ComfyFilesError | HTTPException], ...] = ()
    """Those that this route has, beyond what its input and its access can make of any."""
    exact: Callable[[FileManagerAPI], Action] | None = None
    """Says what one request does, where that may be less than ``action``, or more."""
    subject: str = ""
    """Under which heading it is described."""
    setting: str | None = None
    """The setting without which there is no such route."""

    @property
    def has_etag(self) -> bool:
        """Whether the answer is sent only to those who do not have it."""
        is_asked = self.method == "GET"
        return is_asked and (not isinstance(self.answer, Bytes) or self.answer.has_etag)

    def is_wanted(self, settings: Settings) -> bool:
        """Say whether an app with some settings has this route."""
        return self.setting is None or bool(getattr(settings, self.setting))

    def read(self, request: Request) -> dict[str, Any]:
        """Return what a request says in its query and its body.

        Raises:
            MalformedBodyError: It says something else than what this route takes.
            UnsupportedMediaType: There is a body, and it is not called ``application/json``.
        """
        said: dict[str, Any] = body_parser.parse(self.query(), request, location="query")
        return {**said, **self._read_body(request)}

    def _read_body(self, request: Request) -> dict[str, Any]:
        schema = self.body or self.optional_body or NothingSaid
        if request.method in _BODILESS:
            return {}
        if self.body is None and not read_body(request):
            nothing: dict[str, Any] = schema().load({})
            return nothing
        said: dict[str, Any] = body_parser.parse(schema(), request, location="json")
        return said
