"""Cached runs: the history of a run names a file that an earlier run made. Which file is meant?

ComfyUI keeps the outputs of a node for as long as nothing that flows into it changes, so the file is
that of the newest earlier execution of the same node with the same inputs. The library's own records
know their runs; a file that nobody has recorded yet is matched with the history, or with the graph that
is embedded in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from flask_comfy_files.core import durable, tags
from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.comfyui import Run, signature
from flask_comfy_files.core.history import TOLERANCE, Verdict, judge, makers
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of
from flask_comfy_files.core.records import FileRecord


@dataclass(frozen=True, slots=True)
class Original:
    """The file whose bytes a cached run shares: where it lies, and its record where it has one."""

    path: str
    file_id: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Search:
    """What is known about where a cached output may have come from."""

    root: str
    reader: Reader
    run: Run
    others: tuple[Run, ...]

    def find(self, candidate: Candidate, modified_ns: int | None) -> Original | None:
        """Return the original of a cached output, or ``None`` where it cannot be told.

        ``modified_ns`` is the time of the file that stands under the name, if there is one.
        """
        wanted = self.run.signature(candidate.node_id or "")
        if wanted is None:
            return None
        found = list(self._recorded(candidate.path, wanted))
        if modified_ns is not None:
            found += self._standing(candidate.path, modified_ns, wanted)
        return max(found, key=lambda original: original.made_at, default=None)

    def _recorded(self, path: str, wanted: str) -> Iterable[Original]:
        for record in self.reader.files_named(path):
            made_at = datetime.fromisoformat(record.modified_at)
            if record.missing or self._is_too_new(made_at):
                continue
            if self._signature_of(record) == wanted or self._embeds(record.path, wanted):
                yield Original(record.path, record.same_file_as or record.file_id, made_at)

    def _signature_of(self, record: FileRecord) -> str | None:
        job = self.reader.find_job(record.job_id or "")
        runs = {} if job is None else job.state.get("runs", {})
        nodes = runs.get(record.prompt_id, {}).get("nodes", {})
        found = nodes.get(record.node_id)
        return found if isinstance(found, str) else None

    def _standing(self, path: str, modified_ns: int, wanted: str) -> Iterable[Original]:
        made_at = datetime.fromtimestamp(modified_ns / 1e9, UTC)
        if self._is_too_new(made_at):
            return
        if self._is_made_by_another(path, modified_ns, wanted) or self._embeds(path, wanted):
            yield Original(path, None, made_at)

    def _is_made_by_another(self, path: str, modified_ns: int, wanted: str) -> bool:
        fitting = {
            other.signature(node_id)
            for other in self.others
            if judge(other, modified_ns) in {Verdict.MADE, Verdict.UNSURE}
            for node_id in makers(other, path)
        }
        return fitting == {wanted}

    def _is_too_new(self, made_at: datetime) -> bool:
        return self.run.started_at is None or made_at > self.run.started_at + TOLERANCE

    def _embeds(self, path: str, wanted: str) -> bool:
        """Say whether the graph that is embedded in a file has the node that we look for."""
        folder, name = split(path)
        graph = None
        with (
            contextlib.suppress(OSError),
            durable.open_folder(self.root, folder) as parent,
            durable.open_regular(parent, name) as descriptor,
        ):
            graph = tags.read_graph(descriptor, os.fstat(descriptor).st_size, extension_of(name))
        return graph is not None and any(signature(graph, node_id) == wanted for node_id in graph)
