"""What an older record says of a file, read with care: it was written by another program, perhaps by hand.

Touches no disk. What is not as it should be is passed over where the file itself tells better, and refused where
it would lead astray.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flask_comfy_files.core.catalog.older import is_record
from flask_comfy_files.core.errors import InvalidInputError, UnsafePathError
from flask_comfy_files.core.layout import (
    LEGACY,
    is_in,
    is_organized,
    path_below,
    require_identifier,
    require_relative_path,
)
from flask_comfy_files.core.policy import is_tag
from flask_comfy_files.core.provenance import Owner
from flask_comfy_files.core.records import EPOCH, Evidence, FileType

_FILE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LONGEST_TEXT: Final = 200
_FOLDERS: Final = 3  # projects/{project}/{job}


@dataclass(frozen=True, slots=True)
class Said:
    """One older record; ``paths`` are where its file may lie below the root, the likeliest place first."""

    label: str
    paths: tuple[str, ...]
    owner: Owner | None
    file_id: str | None
    checksum: str | None
    facts: Mapping[str, Any]

    def owner_at(self, path: str) -> Owner | None:
        """Return whose the file is: in a job's folder that says nothing else, that job's."""
        parts = path.split("/")
        if self.owner is not None and self.owner.project_id is not None:
            return self.owner
        if len(parts) != _FOLDERS + 1 or not is_organized(path, parts[1], parts[2]):
            return self.owner
        if self.owner is not None and self.owner.job_id != parts[2]:
            return self.owner
        return Owner(parts[2], parts[1], Evidence.LIST)

    def stays_at(self, path: str) -> bool:
        """Say whether a path is one where its file belongs."""
        owner = self.owner_at(path)
        if owner is None:
            return is_in(path, LEGACY)
        return owner.project_id is not None and is_organized(path, owner.project_id, owner.job_id)

    def derived_id(self, path: str) -> str:
        """Return the id of a file whose record has none: the same whenever it is imported."""
        owner = self.owner_at(path)
        said = f"{'' if owner is None else owner.job_id}\0{path}"
        return hashlib.sha256(b"import\0" + os.fsencode(said)).hexdigest()[:32]

    def at(self, modified_at: datetime) -> datetime:
        """Return when the file was organized; a time without a zone is one of this machine.

        A Unix time is never ambiguous, so it comes before such a one. Without either it is when the file was
        modified.
        """
        created_at, timestamp = _iso(self.facts.get("created_at")), _unix(self.facts)
        if created_at is not None and (created_at.tzinfo is not None or timestamp is None):
            created_at = _in_utc(created_at)
        else:
            created_at = timestamp
        return created_at if created_at is not None and created_at >= EPOCH else modified_at

    def kept_facts(self, path: str, roots: Sequence[str]) -> dict[str, Any]:
        """Return what its record here takes over of it."""
        facts = self.facts
        original = _place(facts.get("original_path"), roots)
        kept: dict[str, Any] = {
            "original_path": original if isinstance(original, str) else path,
            "evidence": str(Evidence.LIST if self.owner_at(path) is not None else Evidence.NONE),
        }
        if self.stays_at(path) and facts.get("evidence") in list(Evidence):
            kept["evidence"] = facts["evidence"]
        if facts.get("generation_type") in list(FileType):
            kept["generation_type"] = facts["generation_type"]
        kept |= {key: text for key in ("prompt_id", "node_id") if (text := _text(facts.get(key)))}
        shared = facts.get("same_file_as")
        if isinstance(shared, str) and _FILE_ID.fullmatch(shared):
            kept["same_file_as"] = shared
        return kept

    def marks(self) -> dict[str, Any]:
        """Return what people said of its job."""
        tags = self.facts.get("tags")
        valid = sorted({tag for tag in tags if is_tag(tag)}) if isinstance(tags, list) else []
        pinned = {"pinned": True} if self.facts.get("pinned") is True else {}
        return pinned | ({"tags": valid} if valid else {})


def parse(content: bytes, name: str) -> Any:
    """Return the JSON value of a file.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("source", name, f"is no JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list: how it is called in a report, under which key it stands, and what it is."""

    label: str
    key: str
    value: Any


def require_entries(source: Any) -> list[Entry]:
    """Return the entries of a list of records, or of an object of them by path or id.

    Raises:
        InvalidInputError: It is neither.
    """
    if isinstance(source, Mapping):
        if "changes" in source:
            problem = (
                "is a document of this library; put it in the place of file_metadata.json instead"
            )
            raise InvalidInputError("source", "it", problem)
        entries = [Entry(str(key), str(key), value) for key, value in source.items()]
    elif isinstance(source, list | tuple):
        entries = [Entry(f"[{place}]", "", value) for place, value in enumerate(source)]
    else:
        raise InvalidInputError("source", source, "is neither an array nor an object of records")
    if entries and not any(is_record(entry.value) for entry in entries):
        raise InvalidInputError("source", "it", "holds no record of a file")
    return entries


def read_record(entry: Entry, roots: Sequence[str]) -> Said:
    """Read one record; ``roots`` are the names of the output root.

    Raises:
        InvalidInputError: It is no record, or names no file.
        InvalidIdentifierError: An id cannot name a folder.
        UnsafePathError: Its only path leads astray.
    """
    facts = entry.value
    if not isinstance(facts, Mapping):
        raise InvalidInputError(entry.label, facts, "is no record")
    job_id, project_id = facts.get("job_id"), facts.get("project_id")
    if job_id is not None:
        require_identifier("job_id", job_id)
    if project_id is not None:
        require_identifier("project_id", project_id)
    key_id = _match(_FILE_ID, entry.key)
    named = [facts.get("path"), facts.get("file_path"), "" if key_id else entry.key]
    if not any(named):
        raise InvalidInputError(entry.label, "it", "names no file")
    return Said(
        label=entry.label,
        paths=tuple(dict.fromkeys(_places(named, roots))),
        owner=None if job_id is None else Owner(job_id, project_id, Evidence.LIST),
        file_id=_match(_FILE_ID, facts.get("file_id")) or key_id,
        checksum=_match(_CHECKSUM, facts.get("checksum")),
        facts=facts,
    )


def _places(named: Iterable[object], roots: Sequence[str]) -> Iterator[str]:
    problem: UnsafePathError | None = None
    is_any = False
    for value in named:
        place = _place(value, roots) if value else None
        if isinstance(place, str):
            is_any = True
            yield place
        elif place is not None:
            problem = problem or place
    if problem is not None and not is_any:
        raise problem


def _place(value: object, roots: Sequence[str]) -> str | UnsafePathError | None:
    """Return a path as one below the root, the error that it is, or ``None`` where it lies elsewhere."""
    if isinstance(value, str) and value.startswith("/"):
        below = (path_below(root, value) for root in roots)
        value = next((path for path in below if path is not None), None)
        if value is None:
            return None
    try:
        return require_relative_path("path", value)
    except UnsafePathError as error:
        return error


def _match(pattern: re.Pattern[str], value: object) -> str | None:
    text = value.lower() if isinstance(value, str) else ""
    return text if pattern.fullmatch(text) else None


def _text(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    is_usable = isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()
    return value if is_usable and isinstance(value, str) and value else None


def _iso(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _in_utc(moment: datetime) -> datetime | None:
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _unix(facts: Mapping[str, Any]) -> datetime | None:
    value = facts.get("timestamp")
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, OverflowError, OSError):
        return None
