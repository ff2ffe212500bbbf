"""The page on which a person reads and tries the description of the REST interface."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from typing import Final

from flask import Response
from werkzeug.exceptions import NotFound

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core.errors import MissingExtraError
from flask_comfy_files.web.conditional import heed_conditions
from flask_comfy_files.web.route import Bytes, Route

_PACKAGE: Final = "flask_swagger_ui"
"""Of it only the files that it ships are used: its blueprint does not work below another path."""

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "png": "image/png",
}
_OURS: Final = frozenset({"docs.js"})
_THEIRS: Final = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def get_docs(_api: FileManagerAPI) -> Response:
    """Return the page.

    Raises:
        MissingExtraError: What it shows the description with is not installed.
    """
    _shipped()
    return _send(_our_file("docs.html"))


def get_docs_file(_api: FileManagerAPI, name: str) -> Response:
    """Return a file that the page needs, all of which come from here.

    Raises:
        MissingExtraError: As above.
        NotFound: The page needs no file of this name.
    """
    theirs = _shipped()
    if name in _OURS:
        return _send(_our_file(name))
    if name in _THEIRS:
        return _send(theirs / name)
    raise NotFound


def _shipped() -> Traversable:
    if find_spec(_PACKAGE) is None:
        raise MissingExtraError("The interactive page", "docs")
    return files(_PACKAGE) / "dist"


def _our_file(name: str) -> Traversable:
    return files("flask_comfy_files") / "web" / "static" / name


def _send(file: Traversable) -> Response:
    media_type = _MEDIA_TYPES[file.name.rpartition(".")[2]]
    response = Response(file.read_bytes(), content_type=media_type)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    return heed_conditions(response)


ROUTES: Final = (
    Route(
        name="get_docs",
        method="GET",
        rule="/docs",
        action=None,
        summary="Read and try this description on a page.",
        view=get_docs,
        answer=Bytes(media_types=("text/html",), description="The page."),
        errors=(MissingExtraError,),
    ),
    Route(
        name="get_docs_file",
        method="GET",
        rule="/docs/<name>",
        action=None,
        summary="Get a file that the page needs.",
        view=get_docs_file,
        answer=Bytes(
            media_types=("text/css", "text/javascript", "image/png"), description="The file."
        ),
        errors=(MissingExtraError, NotFound),
    ),
)
