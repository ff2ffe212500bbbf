"""All routes below the prefix."""

from __future__ import annotations

from typing import Final

from flask_comfy_files.web.routes import (
    files,
    jobs,
    keeping,
    migrating,
    operating,
    system,
    trusting,
)

ROUTES: Final = (
    *jobs.ROUTES,
    *migrating.ROUTES,
    *keeping.ROUTES,
    *trusting.ROUTES,
    *operating.ROUTES,
    *system.ROUTES,
    *files.ROUTES,
)
