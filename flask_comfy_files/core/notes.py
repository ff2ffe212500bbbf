"""Small JSON files of our own, beside the document: written whole, and what cannot be read says nothing."""

from __future__ import annotations

import json
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import split

_LARGEST_BYTES: Final = 1024**3


def write_note(root: str, path: str, facts: dict[str, Any]) -> None:
    """Write a note in the place of the one that is there; its folder must exist.

    Raises:
        StorageError: The disk refused; the old note is as it was.
    """
    folder, name = split(path)
    try:
        with durable.open_folder(root, folder) as parent:
            durable.replace(parent, name, json.dumps(facts).encode("ascii"), f"{name}.new")
    except OSError as error:
        durable.refuse("Writing", path, error)


def read_note(root: str, path: str) -> dict[str, Any]:
    """Return what a note says; one that is not there, or is none of ours, says nothing."""
    folder, name = split(path)
    try:
        with (
            durable.open_folder(root, folder) as parent,
            durable.open_regular(parent, name) as descriptor,
            open(descriptor, "rb", closefd=False) as source,
        ):
            facts = json.loads(source.read(_LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
