"""All routes, and their description."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.config import Settings
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.openapi.document import describe
from flask_comfy_files.web.route import Bytes, Route
from flask_comfy_files.web.routes import (
    delivering,
    describing,
    files,
    jobs,
    keeping,
    listing,
    migrating,
    naming,
    operating,
    trusting,
    watching,
)
from flask_comfy_files.web.routing import yielding


def below_prefix(settings: Settings) -> tuple[Route, ...]:
    """Return the routes below the prefix that an app has."""
    return tuple(route for route in ROUTES if route.is_wanted(settings))


def placed(settings: Settings) -> tuple[tuple[str, Route], ...]:
    """Return all routes with the rule at which an app answers it: below the prefix, and beside the host's."""
    return (
        *((settings.url_prefix + route.rule, route) for route in below_prefix(settings)),
        (yielding(settings.complete_route), _COMPLETION),
        (yielding(_JOB_FILES.rule), _JOB_FILES),
    )


def description_of(settings: Settings) -> dict[str, Any]:
    """Return the description of an app's routes; it is shared, and not to be changed."""
    is_open = {Action.READ} if settings.public_read else set()
    behind_token = frozenset(Action) - is_open if settings.token else frozenset()
    return describe(placed(settings), settings.url_prefix, behind_token)


def get_description(api: FileManagerAPI) -> dict[str, Any]:
    """Return the description of the routes."""
    return description_of(api.manager.settings)


_DESCRIPTION: Final = Route(
    name="get_description",
    method="GET",
    rule="/openapi.json",
    action=None,
    summary="Get this description.",
    view=get_description,
    answer=Bytes(media_types=("application/json",), description="OpenAPI 3.1."),
)


def _about(subject: str, *routes: Route) -> tuple[Route, ...]:
    return tuple(replace(route, subject=subject) for route in routes)


ROUTES: Final = (
    *_about("Files, jobs and projects", *listing.ROUTES, *jobs.ROUTES, *files.ROUTES),
    *_about("Thumbnails and archives", *delivering.ROUTES),
    *_about("Names and workflows of ComfyUI", *naming.ROUTES),
    *_about("Older files", *migrating.ROUTES),
    *_about("Trash and cleanup", *keeping.ROUTES),
    *_about("Verify and repair", *trusting.ROUTES),
    *_about("Operations and tasks", *operating.ROUTES),
    *_about("The library", *watching.ROUTES),
    *_about("This description", *describing.ROUTES, _DESCRIPTION),
)
"""Those below the prefix, for whatever settings."""

_COMPLETION, _JOB_FILES = _about("Beside the app's own job routes", jobs.COMPLETION, jobs.JOB_FILES)
