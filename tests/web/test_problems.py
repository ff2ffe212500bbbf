from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import pytest

from flask_comfy_files.cli.exits import exit_code_of
from flask_comfy_files.core import errors
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web import problems

FAMILIES: Final[dict[type[ComfyFilesError], tuple[int, int]]] = {
    errors.InvalidInputError: (422, 3),
    problems.MalformedJsonError: (400, 3),
    errors.NotFoundError: (404, 3),
    errors.ConflictError: (409, 3),
    errors.BusyError: (503, 4),
    errors.IntegrityError: (500, 5),
    errors.StorageError: (503, 5),
    errors.OutOfSpaceError: (507, 5),
    errors.MissingExtraError: (501, 5),
    errors.UpstreamError: (502, 5),
    errors.AccessError: (403, 5),
    errors.TokenRequiredError: (401, 5),
}
"""The status and the exit code of each family; a command never meets those of access."""

NEVER_ANSWERED: Final = frozenset({errors.ConfigurationError})
"""What stops an app at its start."""


def subclasses_of(kind: type[ComfyFilesError]) -> Iterator[type[ComfyFilesError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses_of(below)


ALL = [
    kind
    for kind in subclasses_of(ComfyFilesError)
    if kind not in NEVER_ANSWERED and kind.__module__.startswith("flask_comfy_files.")
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_an_exit_code(kind: type[ComfyFilesError]) -> None:
    family = next((base for base in kind.__mro__ if base in FAMILIES), None)
    assert family is not None, "it belongs to no family, and would be answered with 500"
    status, exit_code = FAMILIES[family]
    error = kind.__new__(kind)
    assert (problems.status_of(error), exit_code_of(error)) == (HTTPStatus(status), exit_code)


def test_every_family_is_looked_at() -> None:
    assert set(FAMILIES) <= set(ALL)
    assert len(ALL) >= 20


@pytest.mark.parametrize("kind", [*ALL, *NEVER_ANSWERED], ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own(kind: type[ComfyFilesError]) -> None:
    assert "code" in vars(kind)
    assert kind.code.replace("_", "").isalpha()
    assert kind.code == kind.code.lower()
    others: list[type[ComfyFilesError]]
    others = [other for other in (*ALL, *NEVER_ANSWERED, ComfyFilesError) if other is not kind]
    assert kind.code not in {other.code for other in others}
