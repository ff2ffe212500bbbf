"""What happened to one file, told from what was written about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import RecordNotFoundError
from flask_comfy_files.core.reports import FileEvent, FileHistory

_FILE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def tell(reader: Reader, key: str) -> FileHistory:
    """Return what happened to a file that is named by its id, or by the path that it has now.

    Raises:
        RecordNotFoundError: Nothing was ever written about it.
    """
    record = reader.find_file(key)
    file_id = key if record is None else record.file_id
    if _FILE_ID.fullmatch(file_id) is None:
        raise RecordNotFoundError(key)
    events = tuple(_Story(file_id).events(reader))
    if not events:
        raise RecordNotFoundError(key)
    return FileHistory(file_id=file_id, events=events)


class _Story:
    """Follows one file through the changes; ``entry`` names the deletion by which it rests in the trash."""

    def __init__(self, file_id: str) -> None:
        self._file_id = file_id
        self._job_id: str | None = None
        self._entry: str | None = None

    def events(self, reader: Reader) -> Iterator[FileEvent]:
        for change in reader.changes_of(self._file_id):
            for what, facts in self._told(change):
                operation = change["operation"]
                yield FileEvent(
                    what=what,
                    at=operation["at"],
                    operation_id=operation["id"],
                    operation_kind=operation["kind"],
                    job_id=self._job_id,
                    facts=facts,
                )

    def _told(self, change: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if change["kind"] == "state":
            overlay = change.get("files", {}).get(self._file_id, {})
        else:
            overlay = {}
            yield from self._recorded(change)
        twin = change.get("twins", {}).get(self._file_id, {})
        changed = {**overlay, **twin}
        if changed:
            yield "withdrawn" if changed.get("withdrawn") else "changed", changed
        yield from self._moved(change)

    def _recorded(self, change: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for stored in change["files"]:
            if stored["file_id"] == self._file_id:
                self._job_id = stored["job_id"]
                keys = ("path", "original_path", "evidence", "checksum", "file_size")
                facts = {key: stored[key] for key in keys}
                if "moved_from" in stored:
                    yield "assigned", {**facts, "moved_from": stored["moved_from"]}
                else:
                    yield "recorded", facts

    def _moved(self, change: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield that its job was deleted, or came back, if the file went with it."""
        if change["job_id"] != self._job_id:
            return
        trash = change.get("trash")
        if trash and self._entry is None and self._file_id not in trash["kept"]:
            self._entry = trash["entry"]
            yield "deleted", {"entry": self._entry}
        for part, what in (("restore", "restored"), ("purge", "purged")):
            if part in change and change[part]["entry"] == self._entry:
                yield what, {"entry": self._entry}
                self._entry = None
