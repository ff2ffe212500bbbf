"""Finishing what a crash has left between a line in the document and the files on the disk."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.document import Line
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.placement import Stored, settle

_log = logging.getLogger(__name__)

Overlays = Mapping[str, Mapping[str, Any]]
"""What changed of some files since their line was written, by file id."""


def recover(root: str, writer: Writer) -> None:
    """Bring every file of the unfinished lines to where its record says, and let readers see them.

    A file that is neither at its source nor at its target is recorded as missing; its record is
    kept. Doing it twice does no harm, so a crash in here is followed by the same again.

    Raises:
        StorageError: The disk refused; the operation stays unfinished.
    """
    lines = writer.unfinished
    known: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        if line.change["kind"] == "state":
            known.update(line.change.get("files", {}))
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    touched: dict[str, None] = {}
    for line, stored in _files_of(lines, known):
        overlay = _settle(root, stored)
        touched |= dict.fromkeys(split(stored[key])[0] for key in ("path", "original_path"))
        if overlay is not None:
            found.setdefault(line.change["job_id"], {})[stored["file_id"]] = overlay
    try:
        for folder in list(touched):
            touched |= dict.fromkeys(_parents(folder))
        durable.sync_folders(root, touched)
    except OSError as error:
        durable.refuse("Syncing", "", error)
    at = lines[-1].change["operation"]["at"]
    corrections = [
        {
            "kind": "state",
            "job_id": job_id,
            "operation": {"id": uuid.uuid4().hex, "kind": "recover", "at": at},
            "state": {},
            "files": overlays,
        }
        for job_id, overlays in found.items()
    ]
    writer.advance([*lines, *(writer.append(corrections) if corrections else [])])
    _log.info("%d changes behind the index were looked at, and are finished", len(lines))


def _files_of(lines: Iterable[Line], known: Overlays) -> Iterable[tuple[Line, Stored]]:
    for line in lines:
        if line.change["kind"] == "state":
            continue
        for stored in line.change["files"]:
            overlay = known.get(stored["file_id"], {})
            if not overlay.get("withdrawn") and not overlay.get("missing"):
                yield line, {**stored, **overlay}


def _settle(root: str, stored: Stored) -> Mapping[str, Any] | None:
    try:
        try:
            return settle(root, stored)
        except FileExistsError:
            # Somebody else's file has our target's name: ours goes beside it.
            beside = {"path": _beside(root, stored["path"])}
            return settle(root, {**stored, **beside}) or beside
    except OSError as error:
        durable.refuse("Finishing the move of", stored["original_path"], error)


def _beside(root: str, path: str) -> str:
    stem, dot, extension = path.rpartition(".")
    stem, extension = (stem, dot + extension) if dot and "/" not in extension else (path, "")
    number = 2
    while durable.find_status(root, f"{stem}_{number}{extension}") is not None:
        number += 1
    return f"{stem}_{number}{extension}"


def _parents(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts))]
