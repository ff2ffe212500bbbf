"""An output folder in which recorded runs happen, and the two doors by which the library hears of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from flask_comfy_files import FileManager
from flask_comfy_files.core.records import file_to_dict
from tests.comfyui.recordings import run, set_time, within
from tests.comfyui.replay import Replay

Json = dict[str, Any]
Records = dict[str, Json]
"""The records of a job, by the path at which ComfyUI wrote the file."""

Deliver = Callable[[str, str], Records]
"""Tells the library that a job's run has ended; returns all files that the job has then."""


def by_manager(manager: FileManager) -> Deliver:
    """Deliver by a call."""

    def deliver(job_id: str, prompt_id: str) -> Records:
        report = manager.organize_output(job_id, prompt_id=prompt_id)
        return {record.original_path: file_to_dict(record) for record in report}

    return deliver


def by_hook(client: FlaskClient) -> Deliver:
    """Deliver by the host's own completion route."""

    def deliver(job_id: str, prompt_id: str) -> Records:
        answer = client.post(f"/api/jobs/{job_id}/complete", json={"prompt_id": prompt_id})
        assert answer.status_code == 200
        body = json.loads(answer.data)
        assert "organize_error" not in body, body["organize_error"]
        return {record["original_path"]: record for record in body["organized_files"]}

    return deliver


@dataclass
class World:
    """What ComfyUI does."""

    root: Path
    comfyui: Replay
    written: dict[str, bytes] = field(default_factory=dict)
    """Everything that was ever written, by a name of the test's own."""

    def happens(self, name: str, files: Mapping[str, bytes] | None = None) -> str:
        """Have a recorded run happen, with what it writes; return its prompt id."""
        prompt_id, item = run(name)
        return self.ran(prompt_id, item, files)

    def ran(
        self, prompt_id: str, item: Mapping[str, Any], files: Mapping[str, bytes] | None = None
    ) -> str:
        """Have a run happen; return its prompt id."""
        for path, content in (files or {}).items():
            self.write(path, content, within(item))
        self.comfyui.history[prompt_id] = item
        return prompt_id

    def write(self, path: str, content: bytes, at_ns: int) -> None:
        """Write a file as ComfyUI does, over whatever stands there, as at a moment."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        set_time(place, at_ns)
        self.written[f"{path} at {at_ns}"] = content

    def move(self, path: str, target: str) -> None:
        """Move a file by hand."""
        place = self.root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.root / path, place)  # noqa: PTH104 - as anybody does

    def content(self, record: Mapping[str, Any]) -> bytes:
        """Return the bytes of a record's file."""
        path: Path = self.root / record["path"]
        return path.read_bytes()

    def records(self, job_id: str) -> Records:
        """Return the records of a job as the library has them now."""
        with FileManager(self.root) as manager:
            files = manager.get_job_files(job_id).files
        return {record.original_path: file_to_dict(record) for record in files}

    def contents(self, job_id: str) -> dict[str, bytes]:
        """Return what a job has, by the path at which ComfyUI wrote it."""
        found = self.records(job_id)
        return {path: self.content(record) for path, record in found.items()}

    def inode(self, path: str) -> int:
        return (self.root / path).stat().st_ino

    def total_size(self) -> int:
        with FileManager(self.root) as manager:
            return manager.get_system_stats().total_size
