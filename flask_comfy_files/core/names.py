"""ComfyUI's names after the move: which recorded file, or file not organized yet, does a name stand for?"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from flask_comfy_files.core import durable
from flask_comfy_files.core.attribution import COMFYUI_TYPES
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import (
    AmbiguousNameError,
    InvalidInputError,
    NameNotFoundError,
    RecordNotFoundError,
)
from flask_comfy_files.core.layout import is_reserved, require_relative_path
from flask_comfy_files.core.records import FileRecord, Resolution


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to be served: where they lie below the output root, and their record where they have one."""

    path: str
    record: FileRecord | None


def require_name(filename: object, subfolder: object, comfyui_type: object) -> str:
    """Return the path for which ComfyUI's three words stand.

    Raises:
        InvalidInputError: They stand for none; ``UnsafePathError`` if they lead out of the output root.
        NameNotFoundError: It is no output: temporary and input files are not the library's.
    """
    if not isinstance(filename, str) or "/" in filename:
        raise InvalidInputError(
            "filename", filename, "is no file name; give the folder as subfolder"
        )
    path = require_relative_path("filename", filename)
    if subfolder not in ("", None):
        path = f"{require_relative_path('subfolder', subfolder)}/{path}"
    if comfyui_type not in COMFYUI_TYPES:
        raise InvalidInputError("type", comfyui_type, 'is not one of "output", "temp" and "input"')
    if comfyui_type != "output" or is_reserved(path):
        raise NameNotFoundError(path)
    return path


def resolve(root: str, reader: Reader, path: str, prompt_id: str | None) -> Resolution:
    """Return the records of the files that ComfyUI wrote under a name.

    The answer is exact where they all have the same bytes: one file, or one that cached runs share. A file
    that stands under the name and is not organized yet makes it inexact, unless a run decides.

    Raises:
        NameNotFoundError: No file is recorded under the name, or none of that run.
    """
    records = [record for record in reader.files_named(path) if not record.missing]
    if prompt_id is not None:
        records = [record for record in records if record.prompt_id == prompt_id]
    if not records:
        raise NameNotFoundError(path)
    is_free = prompt_id is not None or not _is_another(root, path, records)
    is_exact = is_free and len({record.checksum for record in records}) == 1
    return Resolution(exact=is_exact, matches=tuple(records))


def find_content(root: str, reader: Reader, path: str, prompt_id: str | None) -> Content:
    """Return the one file for which a name stands, organized or not yet.

    Raises:
        NameNotFoundError: There is none.
        AmbiguousNameError: There are several; the error lists them.
    """
    try:
        resolution = resolve(root, reader, path, prompt_id)
    except NameNotFoundError:
        if prompt_id is not None or _standing(root, path) is None:
            raise
        return Content(path, None)
    if resolution.exact:
        record = resolution.matches[-1]
        return Content(record.path, record)
    raise AmbiguousNameError(path, tuple(record.file_id for record in resolution.matches))


def content_of(reader: Reader, key: str) -> Content:
    """Return a recorded file by its id or its path.

    Raises:
        RecordNotFoundError: There is none, or its bytes are missing.
    """
    record = reader.find_file(key)
    if record is None or record.missing:
        raise RecordNotFoundError(key)
    return Content(record.path, record)


def _is_another(root: str, path: str, records: list[FileRecord]) -> bool:
    """Say whether what stands under a name is none of the recorded files; a cached run links what stays there."""
    standing = _standing(root, path)
    if standing is None:
        return False
    recorded = [durable.find_status(root, record.path) for record in records]
    return not any(status is not None and os.path.samestat(status, standing) for status in recorded)


def _standing(root: str, path: str) -> os.stat_result | None:
    """Return what is known of a regular file under a name, reached over no link."""
    status = durable.find_status(root, path)
    return status if status is not None and stat.S_ISREG(status.st_mode) else None
