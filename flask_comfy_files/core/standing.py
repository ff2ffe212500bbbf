"""What the library knows of a job before a call, and what the call finds out about its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.comfyui import Run
from flask_comfy_files.core.errors import IdentifierCaseError, JobInOtherProjectError
from flask_comfy_files.core.filing import Arrival
from flask_comfy_files.core.history import dataset_folders
from flask_comfy_files.core.records import (
    LeftFile,
    OrganizeReport,
    SkipReason,
    Tally,
    add_up,
    iso_utc,
)
from flask_comfy_files.core.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the library knows of a job before a call."""

    project_id: str
    is_known: bool
    file_count: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    paths: frozenset[str] = frozenset()
    originals: frozenset[str] = frozenset()
    """Where ComfyUI wrote the job's files."""
    settled: frozenset[str] = frozenset()
    """Those of them that a call with this prompt id cannot bring again."""


@dataclass(slots=True)
class Ledger:
    """What became of each file that one call looked at."""

    originals: frozenset[str]
    skipped: list[LeftFile] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    moved: Tally = field(default_factory=Tally)
    run: Run | None = None
    unavailable: tuple[str, ...] = ()

    def skip(self, path: str, reason: str, size: int) -> None:
        """Note a file that stays; one that is not there, since the job has it already, is no news."""
        if reason != SkipReason.NOT_FOUND or path not in self.originals:
            self.skipped.append(LeftFile(path=path, reason=reason, bytes=size))

    @property
    def what_remains(self) -> str | None:
        """Why a later call may take more than this one did; ``None`` when there is nothing left to take."""
        return what_remains(self.skipped, self.failed)


def what_remains(skipped: Sequence[LeftFile], failed: Sequence[LeftFile]) -> str | None:
    """Say why a later call may take more; ``None`` when there is nothing left to take."""
    if failed:
        return f"{failed[0].path}: {failed[0].reason}"
    if any(left.reason == SkipReason.STILL_BEING_WRITTEN for left in skipped):
        return str(SkipReason.STILL_BEING_WRITTEN)
    return None


def find_standing(reader: Reader, request: Request) -> Standing:
    """Say what the library knows of a job, and refuse ids that contradict it."""
    _require_spelling("job_id", request.job_id, reader.known_job(request.job_id))
    if request.project_id is not None:
        _require_spelling(
            "project_id", request.project_id, reader.known_project(request.project_id)
        )
    job = reader.find_job(request.job_id)
    if job is None:
        project_id = request.project_id or request.default_project
        _require_spelling("project_id", project_id, reader.known_project(project_id))
        return Standing(project_id=project_id, is_known=False)
    if request.project_id not in {None, job.project_id}:
        raise JobInOtherProjectError(request.job_id, str(request.project_id), job.project_id)
    files = reader.paths_of_job(request.job_id)
    return Standing(
        project_id=job.project_id,
        is_known=True,
        file_count=job.file_count,
        state=job.state,
        paths=frozenset(path for path, _, _ in files),
        originals=frozenset(original for _, original, _ in files),
        settled=frozenset(
            original for _, original, run in files if request.prompt_id in {None, run}
        ),
    )


def _require_spelling(field: str, given: str, known: str | None) -> None:
    if known not in {None, given}:
        raise IdentifierCaseError(field, given, str(known))


def new_state(standing: Standing, ledger: Ledger, request: Request) -> dict[str, Any]:
    """Return what changes of a job's state, as a merge patch.

    That is the reason why it has no files, what its run was, and which waiting completions are done.
    """
    has_files = bool(standing.file_count or ledger.arrivals)
    reason = None if has_files else why_no_files(ledger)
    patch: dict[str, Any] = {}
    if reason != standing.state.get("reason"):
        patch["reason"] = reason
    if ledger.run is not None:
        facts = _run_facts(ledger.run)
        if facts != standing.state.get("runs", {}).get(ledger.run.prompt_id):
            patch["runs"] = {ledger.run.prompt_id: facts}
    done = _completions_done(standing, request) if ledger.what_remains is None else []
    if done:
        patch["pending"] = dict.fromkeys(done)
    return patch


def _completions_done(standing: Standing, request: Request) -> list[str]:
    """Return the waiting completions that a call which left nothing has answered: its own, and its equals."""
    asked = request.prompt_id, request.named
    return [
        operation_id
        for operation_id, pending in standing.state.get("pending", {}).items()
        if operation_id == request.operation_id
        or (pending.get("prompt_id"), pending.get("files")) == asked
    ]


def _run_facts(run: Run) -> dict[str, Any]:
    """Return what is kept of a run, which ComfyUI forgets: how it went, and what made each file."""
    savers = {output.node_id for output in run.outputs} | {node for node, _ in dataset_folders(run)}
    nodes = {node_id: run.signature(node_id) for node_id in sorted(savers)}
    facts = {
        "status": run.status,
        "started_at": None if run.started_at is None else iso_utc(run.started_at),
        "finished_at": None if run.finished_at is None else iso_utc(run.finished_at),
        "error": run.error,
        "nodes": {node_id: made_by for node_id, made_by in nodes.items() if made_by is not None},
    }
    # In a merge patch null removes a key, so what is not known is left out.
    return {key: value for key, value in facts.items() if value is not None}


def why_no_files(ledger: Ledger) -> str:
    """Say in words why a call has found no file for its job."""
    reasons = Counter(str(left.reason) for left in (*ledger.skipped, *ledger.failed))
    if not reasons:
        return "no file of this job was found"
    counted = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return f"no file could be taken: {counted}"


def changes_nothing(standing: Standing, ledger: Ledger, request: Request) -> bool:
    """Say whether a call leaves a job as it is."""
    is_same = not ledger.arrivals and not new_state(standing, ledger, request)
    return standing.is_known and is_same


def make_report(reader: Reader, request: Request, ledger: Ledger) -> OrganizeReport:
    """Return what a call found and did, with all files that the job now has."""
    job = reader.find_job(request.job_id)
    files = reader.files_of_job(request.job_id)
    total = Tally(files=len(files), bytes=sum(record.file_size for record in files))
    already = Tally(files=total.files - ledger.moved.files, bytes=total.bytes - ledger.moved.bytes)
    # Another call may have taken a file after this one found its name: it is not missing.
    originals = {record.original_path for record in files}
    skipped = [
        entry
        for entry in ledger.skipped
        if entry.reason != SkipReason.NOT_FOUND or entry.path not in originals
    ]
    left = [*skipped, *ledger.failed]
    return OrganizeReport(
        job_id=request.job_id,
        project_id=request.default_project if job is None else job.project_id,
        organized_files=files,
        file_count=total.files,
        found=add_up([total], left),
        moved=ledger.moved,
        already_there=already,
        skipped=tuple(skipped),
        failed=tuple(ledger.failed),
        operation_id=None if job is None else job.operation_id,
        unavailable=ledger.unavailable,
    )
