"""The library as a whole: in numbers, whether it works, and metrics for who collects them."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from flask_comfy_files import metrics
from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core import errors
from flask_comfy_files.core.records import HealthState, SystemStats
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.route import Bytes, Route


def get_health(api: FileManagerAPI) -> Json:
    """Return whether the library works.

    Raises:
        LibraryUnavailableError: It does not; strangers are not told why.
    """
    health = api.get_health_api()
    if health["state"] == "unavailable":
        raise errors.LibraryUnavailableError(
            "what is in the way is not for everybody to know", "See flask files health."
        )
    return health


def get_metrics(api: FileManagerAPI) -> Response:
    """Return the metrics in the form that the asker prefers."""
    text, media_type = metrics.exposition(api.manager, request.headers.get("Accept", ""))
    response = Response(text, content_type=media_type)
    response.headers["Cache-Control"] = "no-store"
    return response


ROUTES: Final = (
    Route(
        name="get_status",
        method="GET",
        rule="/status",
        action=Action.READ,
        summary="Get the library in numbers, and how it is.",
        view=FileManagerAPI.get_system_status_api,
        answer=SystemStats,
    ),
    Route(
        name="get_health",
        method="GET",
        rule="/health",
        action=None,
        summary="Whether the library works; for load balancers.",
        view=get_health,
        answer=HealthState,
        errors=(errors.LibraryUnavailableError,),
    ),
    Route(
        name="get_metrics",
        method="GET",
        rule="/metrics",
        action=Action.READ,
        summary="Metrics, as Prometheus reads them.",
        view=get_metrics,
        answer=Bytes(
            media_types=("text/plain", "application/openmetrics-text"),
            description="The metrics of the library, of all processes together.",
            has_etag=False,
        ),
        errors=(errors.MissingExtraError,),
        setting="metrics_route",
    ),
)
