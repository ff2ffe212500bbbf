"""Retention: the trash, and cleaning up."""

from __future__ import annotations

import contextlib
from typing import Final

from flask import request
from werkzeug.exceptions import HTTPException

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors
from flask_comfy_files.core.reports import CleanupPlan, CleanupReport, PurgeReport, Trash
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.parsing import body_parser
from flask_comfy_files.web.route import Outlasting, Route
from flask_comfy_files.web.schemas.keeping import CleanupBody, PlanBody
from flask_comfy_files.web.works import Work, action_of


def _cleans_up(api: FileManagerAPI) -> Action:
    """Return what a cleanup is: nothing but reading when it is rehearsed."""
    is_rehearsal = False
    # What is wrong is said to those who may delete.
    with contextlib.suppress(errors.ComfyFilesError, HTTPException):
        is_rehearsal = body_parser.parse(CleanupBody(), request, location="json")["dry_run"]
    return action_of(api, Work("cleanup", {"dry_run": is_rehearsal}))


ROUTES: Final = (
    Route(
        name="get_trash",
        method="GET",
        rule="/trash",
        action=Action.READ,
        summary="List the deleted jobs that can be restored.",
        view=FileManagerAPI.get_trash_api,
        answer=Trash,
    ),
    Route(
        name="empty_trash",
        method="DELETE",
        rule="/trash",
        action=Action.DESTROY,
        summary="Delete everything in the trash for good.",
        view=Outlasting("empty_trash"),
        answer=PurgeReport,
    ),
    Route(
        name="cleanup",
        method="POST",
        rule="/cleanup",
        action=Action.DELETE,
        exact=_cleans_up,
        summary="Delete what has expired, carry a plan out, or say what would go.",
        view=Outlasting("cleanup"),
        body=CleanupBody,
        answer=CleanupReport,
        errors=(
            errors.PlanNotFoundError,
            errors.CleanupRefusedError,
            errors.PlanStaleError,
            errors.InvalidInputError,
            errors.CleanupRunningError,
        ),
    ),
    Route(
        name="plan_cleanup",
        method="POST",
        rule="/cleanup/plan",
        action=Action.DELETE,
        summary="Rehearse a cleanup, and keep it as a plan.",
        view=Outlasting("plan_cleanup"),
        body=PlanBody,
        answer=CleanupPlan,
        errors=(errors.CleanupRefusedError, errors.InvalidInputError),
    ),
)
