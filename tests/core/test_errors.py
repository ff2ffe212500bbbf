from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from flask_comfy_files.core import errors
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web.openapi import examples

EXAMPLES: list[ComfyFilesError] = [
    *examples.ERRORS.values(),
    errors.ConfigurationError("COMFY_FILES_TRASH_DAYS", "x", "write a whole number"),
]


def subclasses(kind: type[ComfyFilesError] = ComfyFilesError) -> Iterator[type[ComfyFilesError]]:
    for below in kind.__subclasses__():
        if below.__module__.startswith("flask_comfy_files."):
            yield below
            yield from subclasses(below)


def by_name(error: ComfyFilesError) -> str:
    return type(error).__name__


def test_every_error_has_a_code_of_its_own() -> None:
    kinds: list[type[ComfyFilesError]] = [ComfyFilesError, *subclasses()]
    assert [kind.__name__ for kind in kinds if "code" not in vars(kind)] == []
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_every_error_that_is_raised_says_more_than_that_something_went_wrong() -> None:
    leaves = [kind for kind in subclasses() if not kind.__subclasses__()]
    assert [kind.__name__ for kind in leaves if kind.template == ComfyFilesError.template] == []


def test_every_error_of_the_core_that_is_raised_has_an_example_here() -> None:
    examples = {type(error) for error in EXAMPLES}
    families = {kind for kind in subclasses() if kind.__subclasses__()}
    ours = [kind for kind in subclasses() if kind.__module__.startswith(errors.__name__)]
    assert [kind.__name__ for kind in ours if kind not in examples | families] == []


@pytest.mark.parametrize("error", EXAMPLES, ids=by_name)
def test_an_error_survives_the_way_between_two_processes(error: ComfyFilesError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy).keys() == vars(error).keys()


@pytest.mark.parametrize("error", EXAMPLES, ids=by_name)
def test_a_message_holds_the_facts_and_no_empty_place(error: ComfyFilesError) -> None:
    message = str(error)
    assert "{" not in message
    assert message == message.strip()
    for fact in error.args:
        if isinstance(fact, tuple | dict):
            continue  # what an answer gives apart
        assert str(fact).rstrip("0").rstrip(".") in message


@pytest.mark.parametrize(
    ("error", "built_in"),
    [
        (errors.UnsafePathError("f", "x", "y"), ValueError),
        (errors.JobNotFoundError("x"), LookupError),
        (errors.LockTimeoutError(1), TimeoutError),
    ],
    ids=["input", "absence", "lock"],
)
def test_who_knows_only_python_can_catch_the_built_in(
    error: ComfyFilesError, built_in: type[Exception]
) -> None:
    assert isinstance(error, built_in)


def test_a_hostile_value_is_quoted_in_a_message_short_and_in_ascii() -> None:
    message = str(errors.InvalidInputError("job_id", "\x1b[31m\n\u202e" + "é" * 10_000, "is bad"))
    assert len(message) < 900
    assert message.replace("…", "").isprintable()
    assert message.replace("…", "").isascii()
    assert "10007 characters" in message


def test_a_storage_error_without_advice_ends_with_its_reason() -> None:
    assert str(errors.StorageError("Syncing", "a", "I/O error")) == "Syncing 'a' failed: I/O error."
