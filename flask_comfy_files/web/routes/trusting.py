"""Trust: comparing document, index and files, putting right, and saying that what is there is right."""

from __future__ import annotations

from typing import Final

from flask_comfy_files.core import errors
from flask_comfy_files.core.findings import RepairReport, VerifyReport
from flask_comfy_files.core.reports import AdoptionReport
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.route import Outlasting, Route
from flask_comfy_files.web.schemas.operating import RepairBody, VerifyBody

ROUTES: Final = (
    Route(
        name="verify",
        method="POST",
        rule="/verify",
        action=Action.READ,
        summary="Compare document, index and files.",
        view=Outlasting("verify"),
        body=VerifyBody,
        answer=VerifyReport,
        errors=(errors.InvalidInputError, errors.DocumentDamagedError),
    ),
    Route(
        name="repair",
        method="POST",
        rule="/repair",
        action=Action.WRITE,
        summary="Put right what a verification has found, or say what would be done.",
        view=Outlasting("repair"),
        body=RepairBody,
        answer=RepairReport,
        errors=(errors.UnsafePathError, errors.InvalidInputError, errors.OutOfSpaceError),
    ),
    Route(
        name="adopt",
        method="POST",
        rule="/adopt",
        action=Action.DESTROY,
        summary="Say that what is in the output root is right.",
        view=Outlasting("adopt"),
        answer=AdoptionReport,
    ),
)
