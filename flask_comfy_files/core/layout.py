"""Names on disk: which ids are allowed, where a job's files lie, and what is ours. Touches no disk."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flask_comfy_files.core.errors import InvalidIdentifierError, UnsafePathError

DOCUMENT: Final = "file_metadata.json"
NEW_DOCUMENT: Final = f".{DOCUMENT}.new"
"""The document while it is being created; a leftover is written over."""
PROJECTS: Final = "projects"
LEGACY: Final = "legacy"
INBOX: Final = "inbox"
STATE: Final = ".comfy_files"
SENTINEL: Final = f"{STATE}/library.json"
LOCK: Final = f"{STATE}/lock"
INDEX: Final = f"{STATE}/index.sqlite3"
COPIES: Final = f"{STATE}/copies"
"""One file for each job whose files are being copied from another file system; it lists the copies."""
TRASH: Final = f"{STATE}/trash"
PLANS: Final = f"{STATE}/plans"
"""Cleanups that were planned, each with its report once it was carried out."""
OPERATIONS: Final = f"{STATE}/operations"
"""What operations have answered, a note for each."""
TASKS: Final = f"{STATE}/tasks"
"""Work that outlasted its request, a folder for each piece."""
THUMBNAILS: Final = f"{STATE}/thumbnails"
"""Thumbnails, which can be made again at any time."""
MIGRATION_LOCK: Final = f"{STATE}/migration.lock"
MIGRATION: Final = f"{STATE}/migration.json"
"""Which migration is under way; one that was interrupted goes on under the same id."""
IMPORT: Final = f"{STATE}/import.json"
"""Which import of an older installation's list is under way, and under which name that lies."""
CLEANUP_LOCK: Final = f"{STATE}/cleanup.lock"
LAST_CLEANUP: Final = f"{STATE}/cleanup.json"
OLDER_DOCUMENTS: Final = f"{STATE}/history"
"""What the document was before each time that it was written anew, by generation."""
COMPACTED: Final = f"{STATE}/compacted.new"
"""A document that is being written anew, beside the one that holds."""
COMPACTION_LOCK: Final = f"{STATE}/compaction.lock"
INDEX_BEFORE: Final = f"{STATE}/index-before.sqlite3"
"""The index of a document that was damaged: it tells what the document does not any more."""
REBUILD: Final = f"{STATE}/rebuild.json"
"""What became of a document that was damaged or lost."""
REBUILD_LOCK: Final = f"{STATE}/rebuild.lock"
METRICS: Final = f"{STATE}/metrics.sqlite3"
"""What all processes together have counted."""
COMFYUI_PLACEHOLDER: Final = "_output_images_will_be_put_here"

LONGEST_ID: Final = 100
LONGEST_PATH: Final = 4096  # bytes, Linux's PATH_MAX
LONGEST_NAME: Final = 255  # bytes, NAME_MAX of every file system we know

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TARGET_ENDING: Final = re.compile(r"_([0-9]{1,11})_([0-9a-z]+)(?:_[0-9]+)*", re.ASCII)
_ORGANIZED_NAME: Final = re.compile(r"(.+)_[0-9]+_[0-9a-z]+(?:_[0-9]+)?(?:\.[^.]*)?\Z", re.ASCII)
_WINDOWS_DEVICES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{n}" for port in ("COM", "LPT") for n in range(10)],
)


def require_identifier(field: str, value: object) -> str:
    """Return a job or project id that may name a folder on any file system.

    Raises:
        InvalidIdentifierError: It is none; the error quotes the value and says which rule it
        breaks.
    """
    problem = _identifier_problem(value)
    if problem is not None:
        raise InvalidIdentifierError(field, value, problem)
    return str(value)


def is_identifier(value: str) -> bool:
    """Say whether a job or project id may name a folder on any file system."""
    return _identifier_problem(value) is None


def _identifier_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return "is not a string"
    if not value:
        return "is empty"
    if len(value) > LONGEST_ID:
        return f"is longer than {LONGEST_ID} characters"
    if _IDENTIFIER.fullmatch(value) is None:
        return (
            "may hold only letters, digits, '.', '_' and '-' and must start with a letter or digit"
        )
    if ".." in value or value.endswith("."):
        return "must not contain '..' nor end with a dot"
    if value.partition(".")[0].upper() in _WINDOWS_DEVICES:
        return "is the name of a device on Windows"
    return None


def comparable(identifier: str) -> str:
    """Return the form in which two ids that differ only in case are equal."""
    return identifier.lower()


def require_relative_path(field: str, value: object) -> str:
    """Return a caller's path in our form: relative to the output root, ``/`` between, no empty or ``.`` parts.

    Raises:
        UnsafePathError: It is absolute, has a ``..`` part, a NUL, nothing in it, or is no path.
    """
    if not isinstance(value, str):
        raise UnsafePathError(field, value, "is not a string")
    if "\0" in value:
        raise UnsafePathError(field, value, "contains a NUL character")
    if value.startswith("/"):
        raise UnsafePathError(
            field, value, "is absolute; give the path relative to the output root"
        )
    parts = [part for part in value.split("/") if part not in {"", "."}]
    if not parts:
        raise UnsafePathError(field, value, "names no file")
    if ".." in parts:
        raise UnsafePathError(field, value, "must not contain '..'")
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:
        raise UnsafePathError(
            field, value, "holds half a surrogate pair, which no file name can"
        ) from None
    if sum(sizes) + len(sizes) > LONGEST_PATH or max(sizes) > LONGEST_NAME:
        raise UnsafePathError(field, value, "is longer than a path may be")
    return "/".join(parts)


def file_path(root: str, path: str) -> str:
    """Return the absolute path of a file that is recorded under a relative one."""
    return f"{root}/{path}" if path else root


def split(path: str) -> tuple[str, str]:
    """Return a relative path as its folder (``""`` for the root itself) and its name."""
    folder, _, name = path.rpartition("/")
    return folder, name


def top_folder(path: str) -> str:
    """Return the first part of a relative path."""
    return path.partition("/")[0]


def is_in(path: str, folder: str) -> bool:
    """Say whether a path lies somewhere below a folder."""
    return path.startswith(f"{folder}/")


def is_reserved(path: str) -> bool:
    """Say whether a path is one of our own files and can be nobody's output."""
    return (
        path in {DOCUMENT, NEW_DOCUMENT}
        or path.startswith((f"{DOCUMENT}.damaged-", f"{DOCUMENT}.imported-"))
        or top_folder(path) == STATE
    )


def imported_document(at: datetime) -> str:
    """Return the name under which an older installation's list is kept, once it is imported."""
    return f"{DOCUMENT}.imported-{at:%Y%m%dT%H%M%SZ}"


def is_imported_document(name: str) -> bool:
    """Say whether a path is such a name."""
    return name.startswith(f"{DOCUMENT}.imported-") and "/" not in name and "\0" not in name


def path_below(root: str, file_path: str) -> str | None:
    """Return an absolute path as one relative to the root, or ``None`` where it does not lie below it."""
    return file_path.removeprefix(f"{root}/") if is_in(file_path, root) else None


def job_folder(project_id: str, job_id: str) -> str:
    """Return the folder of a job, relative to the output root."""
    return f"{PROJECTS}/{project_id}/{job_id}"


def legacy_path(path: str, number: int) -> str:
    """Return where a file that belongs to nobody goes; ``number`` counts from 1 while the name is taken."""
    folder, name = split(f"{LEGACY}/{path}")
    if number == 1:
        return f"{folder}/{name}"
    stem, extension = os.path.splitext(name)
    ending = f"_{number}{extension}"
    if len(os.fsencode(ending)) >= LONGEST_NAME:  # so long an extension is a part of the name
        stem, ending = name, f"_{number}"
    room = LONGEST_NAME - len(os.fsencode(ending))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return f"{folder}/{stem}{ending}"


def trash_folder(entry: str, job_id: str) -> str:
    """Return where the files of a job rest that an operation deleted; ``entry`` is the operation's id."""
    return f"{TRASH}/{entry}/{job_id}"


def thumbnail_path(checksum: str, side: int, extension: str) -> str:
    """Return where the thumbnail lies of all files that have these bytes, by its longer side in pixels.

    The first two digits spread the pictures over 256 folders.
    """
    return f"{THUMBNAILS}/{checksum[:2]}/{checksum}_{side}{extension}"


def is_organized(path: str, project_id: str, job_id: str) -> bool:
    """Say whether a path is that of a file in its job's own folder, and nothing that leads elsewhere."""
    folder, name = split(path)
    ids = project_id, job_id
    return (
        all(_identifier_problem(identifier) is None for identifier in ids)
        and folder == job_folder(project_id, job_id)
        and name not in {"", ".", ".."}
        and "\0" not in name
    )


def inbox_folder(job_id: str) -> str:
    """Return the folder into which a job's stamped workflows write."""
    return f"{INBOX}/{job_id}"


def inbox_owner(path: str) -> str | None:
    """Return the job in whose inbox a path lies, or ``None``."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == INBOX else None  # noqa: PLR2004 - inbox/{job}/…


def target_name(job_id: str, timestamp: str, file_type: str, number: int, extension: str) -> str:
    """Return the name of an organized file; ``number`` counts from 1 within job, second and type."""
    counter = "" if number == 1 else f"_{number}"
    return f"{job_id}_{timestamp}_{file_type}{counter}{extension}"


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What the name of an organized file tells: the Unix time in seconds, as text, and the file type."""

    timestamp: str
    file_type: str


def read_target_name(job_id: str, name: str) -> NameFacts | None:
    """Return what a name tells that ``target_name`` may have given, or ``None`` for any other."""
    stem = os.path.splitext(name)[0]
    found = _TARGET_ENDING.fullmatch(stem, len(job_id)) if stem.startswith(job_id) else None
    return None if found is None else NameFacts(found[1], found[2])


def older_document(generation: int) -> str:
    """Return where a document is kept once it was written anew."""
    return f"{OLDER_DOCUMENTS}/{generation}.json"


def job_of_name(name: str) -> str | None:
    """Return the job whose organized file has such a name, or ``None`` where it is no job's."""
    match = _ORGANIZED_NAME.match(name)
    return None if match is None else match[1]


def copy_name(folder: str, file_id: str) -> str:
    """Return the temporary path of a copy that is made beside its target."""
    return f"{folder}/.{file_id}.part"
