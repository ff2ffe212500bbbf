"""What a host says of its old jobs: a list of them with their files, or a history of ComfyUI's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flask_comfy_files.core.attribution import require_named_files
from flask_comfy_files.core.comfyui import Run, read_run
from flask_comfy_files.core.errors import (
    ComfyUIAnswerError,
    InvalidIdentifierError,
    InvalidInputError,
)
from flask_comfy_files.core.history import Verdict, judge, siblings
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.provenance import Owner
from flask_comfy_files.core.records import Evidence

_KEYS = frozenset({"job_id", "project_id", "files"})


@dataclass(slots=True)
class HostList:
    """Which job a host gives a file to."""

    named: dict[str, Owner] = field(default_factory=dict)
    """By path, as the host lists it."""
    claimed: dict[str, list[tuple[Run, Owner]]] = field(default_factory=dict)
    """By path, the runs whose history names it; the file's time decides."""
    projects: dict[str, str] = field(default_factory=dict)
    """By job, its project, where the host says it."""

    def owner_of(self, path: str, modified_ns: int) -> Owner | None:
        """Return the one job that a file is given to, if it is one."""
        if path in self.named:
            owner = self.named[path]
            return replace(owner, project_id=self.projects.get(owner.job_id))
        fitting = [
            owner
            for run, owner in self.claimed.get(path, ())
            if judge(run, modified_ns) in {Verdict.MADE, Verdict.UNSURE}
        ]
        return fitting[0] if len(fitting) == 1 else None


def read_host_list(jobs: object) -> HostList:
    """Read what a host says of its jobs.

    Raises:
        InvalidInputError: It is neither a list of jobs nor a history, or gives a file to two jobs; the
            error says which entry.
        InvalidIdentifierError: An id cannot name a folder.
        UnsafePathError: A path leads astray.
    """
    if jobs is None:
        return HostList()
    if isinstance(jobs, Mapping):
        return _read_history(jobs)
    if isinstance(jobs, str | bytes) or not isinstance(jobs, Sequence):
        raise InvalidInputError(
            "jobs", jobs, "is neither a list of jobs nor a history of ComfyUI's"
        )
    found = HostList()
    for place, entry in enumerate(jobs):
        _read_job(f"jobs[{place}]", entry, found)
    return found


def _read_job(field_name: str, entry: object, found: HostList) -> None:
    if not isinstance(entry, Mapping) or not {"job_id", "files"} <= set(entry) <= _KEYS:
        problem = 'is no object with "job_id", "files" and perhaps "project_id"'
        raise InvalidInputError(field_name, entry, problem)
    job_id = require_identifier(f"{field_name}.job_id", entry["job_id"])
    project_id = entry.get("project_id")
    if project_id is not None:
        require_identifier(f"{field_name}.project_id", project_id)
        known = found.projects.setdefault(job_id, project_id)
        if known != project_id:
            problem = f"is not {known!r}, which another entry says of job {job_id!r}"
            raise InvalidInputError(f"{field_name}.project_id", project_id, problem)
    owner = Owner(job_id, None, Evidence.LIST)
    for named in _named_files(field_name, entry["files"]):
        if found.named.setdefault(named, owner) != owner:
            other = found.named[named].job_id
            raise InvalidInputError(field_name, named, f"is given to job {other!r} as well")


def _named_files(field_name: str, files: object) -> Iterable[str]:
    try:
        named = require_named_files(files)
    except InvalidInputError as error:
        error.field = f"{field_name}.{error.field}"
        raise
    return [entry.path for entry in named if entry.comfyui_type == "output"]


def _read_history(history: Mapping[Any, Any]) -> HostList:
    found = HostList()
    for prompt_id, item in history.items():
        try:
            run = read_run(str(prompt_id), item)
            owner = _owner_of(str(prompt_id), item)
        except ComfyUIAnswerError as error:
            raise InvalidInputError(
                f"jobs.{prompt_id}", "the item", f"is {error.problem}"
            ) from error
        for path in dict.fromkeys(_made_by(run)):
            found.claimed.setdefault(path, []).append((run, owner))
    return found


def _made_by(run: Run) -> Iterable[str]:
    for output in run.outputs:
        if output.node_id not in run.cached_nodes:
            yield output.path
            yield from siblings(output.path)


def _owner_of(prompt_id: str, item: Mapping[str, Any]) -> Owner:
    """Return the job that a run was stamped for; without a stamp the run is the job."""
    match item.get("prompt"):
        case [_, _, _, {"extra_pnginfo": {"comfy_files": {"job_id": job_id, **tag}}}, *_]:
            project_id = tag.get("project_id")
            with contextlib.suppress(InvalidIdentifierError):  # a tag of somebody else's
                if project_id is not None:
                    project_id = require_identifier("project_id", project_id)
                return Owner(require_identifier("job_id", job_id), project_id, Evidence.LIST)
    return Owner(require_identifier("jobs", prompt_id), None, Evidence.LIST)
