"""Under which name and with which record an inspected file enters its job. Touches no disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from flask_comfy_files.core.inspection import Inspected
from flask_comfy_files.core.layout import file_path, job_folder, target_name
from flask_comfy_files.core.media import extension_of, file_type_of
from flask_comfy_files.core.records import FileRecord, FileType, iso_utc

_CLIPS: Final = frozenset({FileType.VIDEO, FileType.GIF})
_SOUND_SUFFIX: Final = "-audio"  # Video Combine writes X_00002-audio.mp4 beside X_00002.png


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """Whose files are filed, below which output root."""

    root: str
    job_id: str
    project_id: str
    prompt_id: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A finished file of a job, about to be recorded."""

    file_id: str
    inspected: Inspected

    @property
    def path(self) -> str:
        """Where it lies now."""
        return self.inspected.candidate.path

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.inspected.identity.size


class Filing:
    """The names and records that one operation gives to the files of one job."""

    def __init__(
        self,
        job: JobIdentity,
        at: datetime,
        *,
        taken: Iterable[str],
        originals: Iterable[str],
        exists: Callable[[str], bool],
    ) -> None:
        """Name files at a moment.

        ``taken`` are the paths that the job's records have, ``originals`` where ComfyUI wrote all
        its files, to tell a preview from a picture; ``exists`` says whether anything else stands at
        a path.
        """
        self._job = job
        self._at = at
        self._timestamp = str(int(at.timestamp()))
        self._exists = exists
        self._taken_stems = {_stem(path) for path in taken}
        self._clips = {
            _clip_stem(path): kind for path in originals if (kind := _type_of(path)) in _CLIPS
        }
        self._numbers: dict[FileType, int] = {}

    def record(self, arrival: Arrival, path: str | None = None) -> FileRecord:
        """Return the record of a file at a path, or else with the next free name of its type."""
        extension = extension_of(arrival.path)
        file_type = file_type_of(extension)
        path = path or self.free_path(file_type, extension)
        unowned = unowned_record(self._job.root, arrival, path, self._at)
        return replace(
            unowned,
            job_id=self._job.job_id,
            project_id=self._job.project_id,
            prompt_id=self._job.prompt_id,
            generation_type=self.generation_type(arrival.path, file_type),
        )

    def free_path(self, file_type: FileType, extension: str) -> str:
        """Return the next path of a type that no record and no other file has."""
        folder = job_folder(self._job.project_id, self._job.job_id)
        number = self._numbers.get(file_type, 0) + 1
        while True:
            stem = (
                f"{folder}/{target_name(self._job.job_id, self._timestamp, file_type, number, '')}"
            )
            if stem not in self._taken_stems and not self._exists(stem + extension):
                self._numbers[file_type] = number
                return stem + extension
            number += 1

    def generation_type(self, original_path: str, file_type: FileType) -> str:
        """Return what was generated: for a picture that ComfyUI wrote beside a clip of the same name, the clip."""
        if file_type is FileType.IMAGE:
            return str(self._clips.get(_clip_stem(original_path), file_type))
        return str(file_type)


def unowned_record(root: str, arrival: Arrival, path: str, at: datetime) -> FileRecord:
    """Return the record of a file that belongs to no job, at a path."""
    inspected, candidate = arrival.inspected, arrival.inspected.candidate
    extension = extension_of(arrival.path)
    file_type = str(file_type_of(extension))
    return FileRecord(
        file_id=arrival.file_id,
        file_path=file_path(root, path),
        path=path,
        job_id=None,
        project_id=None,
        timestamp=str(int(at.timestamp())),
        created_at=iso_utc(at),
        file_type=file_type,
        file_extension=extension,
        media_type=inspected.media_type,
        generation_type=file_type,
        file_size=arrival.size,
        modified_at=iso_utc(inspected.modified_at),
        checksum=inspected.checksum,
        original_path=arrival.path,
        evidence=str(candidate.evidence),
        same_file_as=None if candidate.shared is None else candidate.shared.file_id,
        node_id=candidate.node_id,
        width=inspected.facts.width,
        height=inspected.facts.height,
        duration_s=inspected.facts.duration_s,
    )


def _type_of(path: str) -> FileType:
    return file_type_of(extension_of(path))


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _clip_stem(path: str) -> str:
    return _stem(path).removesuffix(_SOUND_SUFFIX)
