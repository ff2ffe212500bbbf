"""Finding out all there is to know about a job's files, before anything is changed and without the lock."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Final

from flask_comfy_files.core import attribution, durable, history, inspection
from flask_comfy_files.core.attribution import Attribution, Candidate, NamedFile, Shared
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.comfyui import ComfyUI, Run, UnreachableError
from flask_comfy_files.core.errors import (
    ComfyUIAnswerError,
    HistoryUnavailableError,
    RunNotFinishedError,
)
from flask_comfy_files.core.filing import Arrival
from flask_comfy_files.core.history import Verdict
from flask_comfy_files.core.inspection import Failure, Inspected
from flask_comfy_files.core.records import Evidence, LeftFile, SkipReason
from flask_comfy_files.core.request import Budget, Request
from flask_comfy_files.core.reuse import Search
from flask_comfy_files.core.standing import Ledger, Standing

_POLL_S: Final = 0.1


class Asked:
    """What ComfyUI said of the run that a call names; ``problem`` says why it said nothing."""

    def __init__(self, server: ComfyUI | None, run: Run | None, problem: str | None = None) -> None:
        """Keep the server, for what may have to be asked about the run's neighbours."""
        self._server = server
        self.run = run
        self.problem = problem

    @cached_property
    def others(self) -> tuple[Run, ...]:
        """The newest runs that the server remembers; asked for once, and only when it matters."""
        try:
            return () if self._server is None else self._server.recent_runs()
        except (UnreachableError, ComfyUIAnswerError):
            return ()


def ask_history(server: ComfyUI | None, request: Request, budget: Budget | None) -> Asked:
    """Ask ComfyUI for the run that a call names; where the caller can wait, wait for its history.

    Raises:
        RunNotFinishedError: The run still goes on.
        ComfyUIAnswerError: What answers is no ComfyUI.
    """
    if server is None or request.prompt_id is None:
        return Asked(None, None)
    if request.files is not None:
        return _ask_in_passing(server, request.prompt_id)
    ends_at = time.monotonic() + (0.0 if budget is None else budget.history_wait_s)
    while True:
        try:
            is_queued = server.is_queued(request.prompt_id)
            run = None if is_queued else server.find_run(request.prompt_id)
        except UnreachableError as error:
            return Asked(None, None, f"the server does not answer: {error}")
        if run is not None:
            return Asked(server, run)
        if time.monotonic() >= ends_at:
            break
        time.sleep(_POLL_S)
    if is_queued:
        raise RunNotFinishedError(request.prompt_id)
    return Asked(server, None, "it does not have this run")


def _ask_in_passing(server: ComfyUI, prompt_id: str) -> Asked:
    """Ask for what is nice to know of a run whose files the caller names."""
    try:
        return Asked(server, server.find_run(prompt_id))
    except (UnreachableError, ComfyUIAnswerError):
        return Asked(None, None)


@dataclass(frozen=True, slots=True)
class Gathering:
    """One call's look at the files that may be a job's."""

    root: str
    now: datetime
    request: Request
    standing: Standing
    asked: Asked

    def gather(self, reader: Reader, budget: Budget | None) -> Ledger:
        """Return which files have arrived, finished and hashed, and why the others stay.

        Raises:
            BudgetExceededError: It is more than one call may do.
            HistoryUnavailableError: ComfyUI could not be asked, and nothing else names a file.
            StorageError: The output root cannot be listed.
        """
        ledger = Ledger(self.standing.originals, run=self.asked.run)
        if self.asked.problem is not None:
            ledger.unavailable = ("history",)
        fresh = list(self._look(reader, ledger))
        if budget is not None:
            budget.require_bytes(self.request.job_id, sum(size for _, size in fresh))
        for result in inspection.inspect_all(self.root, fresh, self.now):
            if budget is not None:
                budget.require_time(self.request.job_id)
            self._enter(result, ledger)
        is_empty = not self.standing.file_count and not ledger.arrivals
        if self.asked.problem is not None and is_empty:
            raise HistoryUnavailableError(self.request.prompt_id or "", self.asked.problem)
        return ledger

    def _look(self, reader: Reader, ledger: Ledger) -> Iterator[tuple[Candidate, int]]:
        """Yield the candidates that are worth reading, with their size."""
        claimed, found = self._attribute(reader)
        others = {candidate.path: candidate for candidate in found.candidates}
        for candidate in claimed.candidates:
            accepted = self._judge(candidate, reader, ledger, is_last=candidate.path not in others)
            if accepted is not None:
                others.pop(candidate.path, None)
                yield accepted
        for candidate in others.values():
            accepted = self._judge(candidate, reader, ledger, is_last=True)
            if accepted is not None:
                yield accepted
        named = {candidate.path for candidate in (*claimed.candidates, *found.candidates)}
        for left in (*claimed.skipped, *found.skipped):
            if left.path not in named:
                ledger.skipped.append(left)

    def _attribute(self, reader: Reader) -> tuple[Attribution, Attribution]:
        """Return what the history claims, and what the other rules find."""
        job_id = self.request.job_id
        try:
            if self.request.files is not None:
                named = attribution.attribute_named(job_id, self.request.files, reader.owner_of)
                return Attribution(), self._with_siblings(named, reader)
            found = attribution.attribute_by_scan(self.root, job_id, reader.known_among)
            if self.asked.run is None:
                return Attribution(), found
            run = self.asked.run
            return (
                history.attribute_by_history(
                    self.root, job_id, run, reader.owner_of, reader.originals_beginning
                ),
                found,
            )
        except OSError as error:
            durable.refuse("Listing", "", error)

    def _with_siblings(self, named: Attribution, reader: Reader) -> Attribution:
        """Add to named files what savers put beside them; what is not there has nothing beside it."""
        known = {entry.path for entry in named.candidates}
        known |= {entry.path for entry in named.skipped}
        beside = [
            Candidate(path, Evidence.FILES, is_expected=False)
            for candidate in named.candidates
            if self._is_there(candidate)
            for path in history.siblings(candidate.path)
            if path not in known
            and reader.owner_of(path) is None
            and attribution.why_not(self.request.job_id, NamedFile(path), reader.owner_of) is None
        ]
        unique = {candidate.path: candidate for candidate in beside}
        return Attribution((*named.candidates, *unique.values()), named.skipped)

    def _is_there(self, candidate: Candidate) -> bool:
        if candidate.path in self.standing.originals:
            return True
        try:
            return not isinstance(inspection.look(self.root, candidate), LeftFile)
        except OSError:
            return False

    def _judge(
        self, candidate: Candidate, reader: Reader, ledger: Ledger, *, is_last: bool
    ) -> tuple[Candidate, int] | None:
        """Return a candidate that may be taken, with its size; note why another may not.

        One that fails is passed over without a word where another rule still speaks for it, or where
        it was only looked for.
        """
        try:
            seen = inspection.look(self.root, candidate)
        except OSError as error:
            if candidate.is_expected:
                ledger.failed.append(Failure(candidate.path, 0, error).as_left())
            return None
        status = None if isinstance(seen, LeftFile) else seen
        if self._is_cached(candidate):
            return self._share(candidate, status, reader, ledger)
        if isinstance(seen, LeftFile):
            refusal = seen
        else:
            reason = self._why_refused(candidate, seen)
            if reason is None:
                return candidate, seen.st_size
            refusal = LeftFile(path=candidate.path, reason=reason, bytes=seen.st_size)
        if is_last and (candidate.is_expected or refusal.reason == SkipReason.NAME_REUSED):
            ledger.skip(refusal.path, refusal.reason, refusal.bytes)
        return None

    def _why_refused(self, candidate: Candidate, status: os.stat_result) -> SkipReason | None:
        if candidate.path in self.standing.settled:
            return SkipReason.NAME_REUSED
        run = self.asked.run
        if candidate.evidence is not Evidence.HISTORY or run is None:
            return None
        verdict = history.judge(run, status.st_mtime_ns)
        if verdict is Verdict.MADE:
            return None
        if verdict is not Verdict.UNSURE:
            return SkipReason.NOT_FROM_THIS_RUN
        is_sure = history.is_the_only_one(
            run, self.asked.others, candidate.path, status.st_mtime_ns
        )
        return None if is_sure else SkipReason.AMBIGUOUS_NAME

    def _is_cached(self, candidate: Candidate) -> bool:
        run = self.asked.run
        is_claimed = candidate.evidence is Evidence.HISTORY
        return is_claimed and run is not None and candidate.node_id in run.cached_nodes

    def _share(
        self, candidate: Candidate, status: os.stat_result | None, reader: Reader, ledger: Ledger
    ) -> tuple[Candidate, int] | None:
        """Return a cached run's file with the place where the earlier run's file lies."""
        if candidate.path in self.standing.settled or self.asked.run is None:
            return None
        search = Search(self.root, reader, self.asked.run, self.asked.others)
        original = search.find(candidate, None if status is None else status.st_mtime_ns)
        if original is not None:
            size = durable.find_status(self.root, original.path)
            if size is not None:
                shared = Shared(original.path, original.file_id)
                cached = replace(candidate, evidence=Evidence.CACHED, shared=shared)
                return cached, size.st_size
        if candidate.is_expected:
            is_known = status is not None or reader.files_named(candidate.path)
            reason = SkipReason.AMBIGUOUS_NAME if is_known else SkipReason.NOT_FOUND
            ledger.skip(candidate.path, reason, 0 if status is None else status.st_size)
        return None

    def _enter(self, result: Inspected | LeftFile | Failure, ledger: Ledger) -> None:
        """Note an inspected file, unless it carries another job's tag."""
        if isinstance(result, Failure):
            ledger.failed.append(result.as_left())
        elif isinstance(result, LeftFile):
            ledger.skip(result.path, result.reason, result.bytes)
        else:
            candidate, tag = result.candidate, result.tag
            is_mine = tag is None or tag.job_id == self.request.job_id
            if not is_mine and candidate.evidence is not Evidence.CACHED:
                reason = SkipReason.TAGGED_FOR_ANOTHER_JOB
                ledger.skip(candidate.path, reason, result.identity.size)
                return
            if tag is not None and candidate.evidence is Evidence.PREFIX:
                result = replace(result, candidate=replace(candidate, evidence=Evidence.TAG))
            ledger.arrivals.append(Arrival(uuid.uuid4().hex, result))
