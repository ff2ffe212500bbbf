"""The library as a whole."""

from __future__ import annotations

from typing import Final

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core.records import SystemStats
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.route import Route

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
)
