"""Finishing what a crash has left between a line in the document and the files on the disk."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask_comfy_files.core import disposal, durable, reversal, trash
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.document import Change, Line
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import (
    ChecksumMismatchError,
    ComfyFilesError,
    DocumentDamagedError,
    LockTimeoutError,
)
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.legacy import given_back_line
from flask_comfy_files.core.placement import (
    WITHDRAWN,
    IsTaken,
    Stored,
    alone_again,
    free_path_beside,
    is_in_place,
    is_shared,
    settle,
    source_of,
    sweep_copies,
)
from flask_comfy_files.core.rebuilding import PATIENCE_S, adopt_lost, is_unfinished

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def changing(root: str, catalog: Catalog, lock_timeout_s: float | None = None) -> Iterator[Writer]:
    """Open a library for a change, after finishing what a crash or damage has left unfinished."""
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(_settled(root, catalog, lock_timeout_s))
        if is_unfinished(root):
            stack.close()  # what takes long is not done with the lock in the hand
            adopt_lost(root, catalog, PATIENCE_S)
            writer = stack.enter_context(_settled(root, catalog, lock_timeout_s))
        yield writer


@contextlib.contextmanager
def _settled(root: str, catalog: Catalog, lock_timeout_s: float | None) -> Iterator[Writer]:
    """Open a library for a change, with every file where its record says."""
    with catalog.changing(lock_timeout_s) as writer:
        if writer.unfinished:
            recover(root, writer)
        sweep_copies(root)
        yield writer


@contextlib.contextmanager
def reading(root: str, catalog: Catalog) -> Iterator[Reader]:
    """Read a library, after finishing what a crash or damage has left, if nobody else is at it."""
    if catalog.is_behind():
        with (
            contextlib.suppress(ComfyFilesError, OSError),
            changing(root, catalog, lock_timeout_s=0),
        ):
            _log.info("the index of %s was behind its document", root)
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(catalog.reading())
        except DocumentDamagedError as damage:
            _rebuild(root, catalog, damage)
            reader = stack.enter_context(catalog.reading())
        try:
            yield reader
        except DocumentDamagedError as damage:
            # Who asked hears of it, and who asks again finds it mended.
            stack.close()
            catalog.is_suspect = True
            with contextlib.suppress(DocumentDamagedError):
                _rebuild(root, catalog, damage)
            raise


def _rebuild(root: str, catalog: Catalog, damage: DocumentDamagedError) -> None:
    """Rebuild the document if nobody else is at it.

    Raises:
        DocumentDamagedError: It cannot be rebuilt, and why.
    """
    try:
        with changing(root, catalog, lock_timeout_s=0):
            pass
    except LockTimeoutError:
        raise damage from None
    except (ComfyFilesError, OSError) as error:
        problem = f"{damage.problem}, and it cannot be rebuilt: {error}"
        raise DocumentDamagedError(damage.name, problem) from error


def recover(root: str, writer: Writer) -> None:
    """Bring every file of the unfinished lines to where its record says, and let readers see them.

    A file that is neither at its source nor at its target is recorded as missing; its record is kept. One
    that the system does not let us move stays where it is, its record is taken back, and its job waits as
    pending: one file must not keep the library from going on. Doing it twice does no harm, so a crash in
    here is followed by the same again.

    Raises:
        StorageError: The disk refused; the operation stays unfinished.
    """
    lines = writer.unfinished
    corrections: dict[str, _Correction] = {}
    touched: dict[str, None] = {}
    disowned: list[dict[str, Any]] = []
    try:
        unfinished = list(_iter_files(lines))
        taken = {stored["path"] for _, stored in unfinished}
        for change, stored in unfinished:
            overlay = _settle(
                root, stored, lambda path: path in taken or writer.owner_of(path) is not None
            )
            if overlay is not None and "path" in overlay:
                taken.add(overlay["path"])
            for path in (stored["path"], source_of(stored)):
                touched |= dict.fromkeys(_with_parents(split(path)[0]))
            record = writer.find_file(stored["file_id"]) if "moved_from" in stored else None
            if overlay is WITHDRAWN and record is not None:
                disowned.append(given_back_line(record, _recovery_of(change)))
            elif overlay is not None:
                correction = corrections.setdefault(change["job_id"], _Correction(change))
                correction.add(stored, overlay)
        moved_back = [
            *_finish_deletions(root, writer, touched),
            *_finish_undoing(root, writer, touched),
        ]
        durable.sync_folders(root, touched)
        corrected = writer.append(
            [*(entry.as_change() for entry in corrections.values()), *disowned, *moved_back]
        )
    except OSError as error:
        durable.refuse("Finishing what a crash has left in", str(error.filename or ""), error)
    writer.advance([*lines, *corrected])
    _log.info("%d changes behind the index were looked at, and are finished", len(lines))


def _finish_deletions(root: str, writer: Writer, touched: dict[str, None]) -> list[dict[str, Any]]:
    """Bring deleted jobs into the trash and restored ones out of it, or as they were; return the corrections."""
    corrections: list[dict[str, Any]] = []
    for change, moves in disposal.interrupted(writer, writer.unfinished):
        finished = trash.finish(root, moves)
        for folder in trash.folders_of(moves):
            touched |= dict.fromkeys(_with_parents(folder))
        taken_back = disposal.take_back(writer, change) if finished.is_undone else {}
        disposal.tidy(root, writer, change, moves)
        if taken_back or finished.overlays:
            corrections.append(
                {
                    "kind": "state",
                    "job_id": change["job_id"],
                    **taken_back,
                    "operation": _recovery_of(change),
                    "files": {**taken_back.get("files", {}), **finished.overlays},
                }
            )
    disposal.finish_purges(root, writer, writer.unfinished)
    return corrections


def _recovery_of(change: Change) -> dict[str, Any]:
    """Return the operation of what corrects a change."""
    operation = dict(change["operation"])
    operation.pop("undoes", None)
    return {"corrects": operation["id"], **operation, "id": uuid.uuid4().hex, "kind": "recover"}


def _finish_undoing(root: str, writer: Writer, touched: dict[str, None]) -> list[dict[str, Any]]:
    """Bring the files of an undo to where they came from, or give their records back; return the corrections."""
    corrections = []
    for line in writer.unfinished:
        corrections += reversal.finish(root, writer, line.change, _recovery_of(line.change))
        for path in reversal.paths_of(line.change):
            touched |= dict.fromkeys(_with_parents(split(path)[0]))
    return corrections


class _Correction:
    """What turned out otherwise for the files of one job."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._overlays: dict[str, Mapping[str, Any]] = {}
        self._left: list[Stored] = []

    def add(self, stored: Stored, overlay: Mapping[str, Any]) -> None:
        self._overlays[stored["file_id"]] = overlay
        if overlay is WITHDRAWN:
            self._left.append(stored)
            self._overlays |= alone_again(self._change, [stored["file_id"]])

    def as_change(self) -> dict[str, Any]:
        operation = _recovery_of(self._change)
        return {
            "kind": "state",
            "job_id": self._change["job_id"],
            "operation": operation,
            "state": self._state(operation),
            "files": self._overlays,
        }

    def _state(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        """Return that the job waits for what was left, where completing it has brought it."""
        if not self._left or self._change["operation"]["kind"] in {"migrate", "import", "undo"}:
            return {}
        return {"pending": {operation["id"]: self._pending(operation)}}

    def _files(self) -> list[list[str]] | None:
        """Return the files to be named again; a shared one is another job's, and only its run leads to it."""
        if any(is_shared(stored) for stored in self._left):
            return None
        return [[stored["original_path"], "output"] for stored in self._left]

    def _pending(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        said = {
            "prompt_id": operation.get("prompt_id"),
            "files": self._files(),
            "reason": "a file could not be moved after a crash",
            "since": operation["at"],
        }
        return {key: value for key, value in said.items() if value is not None}


def _iter_files(lines: Sequence[Line]) -> Iterator[tuple[Change, Stored]]:
    """Yield the files of lines, as later lines among them have left them."""
    later: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        if line.change["kind"] == "state":
            for file_id, overlay in line.change.get("files", {}).items():
                later[file_id] = {**later.get(file_id, {}), **overlay}
    for line in lines:
        if line.change["kind"] != "state":
            for stored in line.change["files"]:
                overlay = later.get(stored["file_id"], {})
                if not overlay.get("withdrawn") and not overlay.get("missing"):
                    yield line.change, {**stored, **overlay}


def _settle(root: str, stored: Stored, is_taken: IsTaken) -> Mapping[str, Any] | None:
    try:
        try:
            return settle(root, stored)
        except FileExistsError:
            # Somebody else's file has our target's name: ours goes beside it.
            beside = {"path": free_path_beside(root, stored["path"], is_taken)}
            return settle(root, {**stored, **beside}) or beside
    except (OSError, ChecksumMismatchError) as error:
        is_untouched = durable.find_status(root, source_of(stored)) is not None
        if is_untouched and not is_in_place(root, stored):
            _log.error("%r stays where it is: %s", stored["original_path"], error)
            return WITHDRAWN
        raise


def _with_parents(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) + 1)]
