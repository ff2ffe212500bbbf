"""Which jobs a cleanup takes, and why it keeps the others. Touches nothing.

A job is taken whole or not at all. Its age is that of its newest file, or of its last return from the
trash, and exactly ``days`` old is not yet expired.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, NoReturn

from flask_comfy_files.core.errors import CleanupRefusedError
from flask_comfy_files.core.policy import Allowance, RetentionPolicy, Rules
from flask_comfy_files.core.records import EPOCH, Tally, iso_utc
from flask_comfy_files.core.reports import KeptJobs

_MICROSECOND: Final = timedelta(microseconds=1)
_DAY_US: Final = 24 * 60 * 60 * 1_000_000
_FUTURE: Final = timedelta(minutes=5)
"""By how much the clocks of two machines that share a library may differ."""

_JUMP: Final = timedelta(days=2)
"""Since the last cleanup; a daily one is at most a day late before it is worth a look."""


class Reason(enum.StrEnum):
    """Why a job is taken or kept."""

    EXPIRED = "expired"
    PROJECT_MAX_BYTES = "project_max_bytes"
    MAX_BYTES = "max_bytes"
    MIN_FREE_BYTES = "min_free_bytes"
    NOT_EXPIRED = "not_expired"
    PINNED = "pinned"
    PENDING = "pending"
    PROTECTED_JOB = "protected_job"
    PROTECTED_PROJECT = "protected_project"
    PROTECTED_TAG = "protected_tag"
    KEEP_LAST = "keep_last"
    KEEP_DAILY = "keep_daily"
    KEEP_WITHIN = "keep_within"
    RESTORED = "recently_restored"


_COUNTED_TOGETHER: Final = frozenset(
    {Reason.NOT_EXPIRED, Reason.PROTECTED_PROJECT, Reason.KEEP_WITHIN}
)
"""Reasons that thousands of jobs may share; each of the others is told by job."""


class JobAge(NamedTuple):
    """What a decision about a job needs; sizes in bytes, times in microseconds since 1970.

    ``counted_size`` leaves out bytes that another job's record counts.
    """

    job_id: str
    project_id: str
    newest_us: int
    restored_us: int
    files: int
    size: int
    counted_size: int
    seq: int
    is_pinned: bool
    is_pending: bool
    tags: Sequence[str]

    @property
    def created_at(self) -> str:
        """When the job's newest file was organized."""
        return iso_utc(EPOCH + self.newest_us * _MICROSECOND)


class Choice(NamedTuple):
    """A job that is taken, and why."""

    job: JobAge
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much there is room for: bytes that are free now, and bytes that rest in the trash."""

    free: int
    in_trash: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastCleanup:
    """When the last cleanup ended, and whether it left jobs that were not expired."""

    at: datetime
    left_unexpired: bool


@dataclass(slots=True)
class Selection:
    """What one pass over all jobs has found."""

    taken: list[Choice] = field(default_factory=list)
    kept: list[KeptJobs] = field(default_factory=list)
    found: Tally = field(default_factory=Tally)
    newest_us: int = 0
    unexpired: int = 0
    """How many jobs are not older than the days allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """How old a job may get: what the caller asked for, else what the setting says.

    A project's own number of days holds where nobody asked, and otherwise where it is larger.
    """

    asked: int | None
    default: int

    def of(self, rules: Rules) -> int:
        """Return the number of days that holds under some rules."""
        if self.asked is None:
            return self.default if rules.days is None else rules.days
        return max(self.asked, rules.days or 0)


def select(
    jobs: Iterable[JobAge],
    *,
    policy: RetentionPolicy | None,
    days: Days,
    now: datetime,
    room: Room,
) -> Selection:
    """Decide on each job, given newest first."""
    chooser = _Chooser(policy or RetentionPolicy(), days, (now - EPOCH) // _MICROSECOND)
    for job in jobs:
        chooser.see(job)
    return chooser.finish(room)


class _Chooser:
    """The state of one pass: how many of each project's jobs were kept by which rule so far."""

    def __init__(self, policy: RetentionPolicy, days: Days, now_us: int) -> None:
        self._policy = policy
        self._days = days
        self._now_us = now_us
        self._seen: Counter[str] = Counter()
        self._seen_days: dict[str, set[int]] = {}
        self._remaining: Counter[str] = Counter()
        """Bytes by project that nothing has taken so far."""
        self._limits = {
            project_id: rules.max_bytes
            for project_id, rules in policy.projects.items()
            if rules.max_bytes is not None
        }
        self._is_limited = bool(self._limits) or not (
            policy.max_bytes is None and policy.min_free_bytes is None
        )
        self._candidates: list[JobAge] = []
        self._kept: dict[tuple[str, Reason], list[int]] = {}
        self._selection = Selection()
        self._found = [0, 0]

    def see(self, job: JobAge) -> None:
        rules = self._policy.rules_of(job.project_id)
        days = self._days.of(rules)
        selection = self._selection
        selection.newest_us = max(selection.newest_us, job.newest_us)
        self._found[0] += job.files
        self._found[1] += job.size
        self._remaining[job.project_id] += job.counted_size
        keeper = self._keeper(job, rules)
        is_old = self._is_older(job.newest_us, days)
        selection.unexpired += not is_old
        if keeper is None and not self._is_older(job.restored_us, days):
            keeper = Reason.RESTORED
        if is_old and keeper is None:
            self._take(job, Reason.EXPIRED)
        elif keeper is None and self._is_limited:
            self._candidates.append(job)
        else:
            is_told = is_old or keeper is Reason.RESTORED
            self._keep(job, keeper if is_told and keeper is not None else Reason.NOT_EXPIRED)

    def finish(self, room: Room) -> Selection:
        selection = self._selection
        taken_size = sum(choice.job.counted_size for choice in selection.taken)
        free = room.free + room.in_trash + taken_size
        for job in reversed(self._candidates):  # the oldest first
            reason = self._limit_reached(job, free)
            if reason is None:
                self._keep(job, Reason.NOT_EXPIRED)
            else:
                self._take(job, reason)
                free += job.counted_size
        selection.taken.sort(key=lambda choice: (choice.job.newest_us, choice.job.job_id))
        selection.found = Tally(files=self._found[0], bytes=self._found[1])
        for (project_id, reason), (jobs, files, size) in self._kept.items():
            together = KeptJobs(
                job_id=None,
                project_id=project_id,
                jobs=jobs,
                files=files,
                bytes=size,
                reason=str(reason),
            )
            selection.kept.append(together)
        return selection

    def _limit_reached(self, job: JobAge, free: int) -> Reason | None:
        """Return the limit that is still exceeded, so that a job has to go."""
        maximum, floor = self._policy.max_bytes, self._policy.min_free_bytes
        own = self._limits.get(job.project_id)
        if own is not None and self._remaining[job.project_id] > own:
            return Reason.PROJECT_MAX_BYTES
        if maximum is not None and self._remaining.total() > maximum:
            return Reason.MAX_BYTES
        return Reason.MIN_FREE_BYTES if floor is not None and free < floor else None

    def _take(self, job: JobAge, reason: Reason) -> None:
        self._selection.taken.append(Choice(job, reason))
        self._remaining[job.project_id] -= job.counted_size

    def _is_older(self, moment_us: int, days: int) -> bool:
        return self._now_us - moment_us > days * _DAY_US

    def _keeper(self, job: JobAge, rules: Rules) -> Reason | None:
        """Return the rule that keeps a job however old it is; the counting rules see every job."""
        is_last = self._is_among_last(job, rules)
        is_daily = self._is_newest_of_its_day(job, rules)
        protect = self._policy.protect
        within = rules.keep_within
        decisions = (
            (Reason.PINNED, job.is_pinned),
            (Reason.PENDING, job.is_pending),
            (Reason.PROTECTED_JOB, job.job_id in protect.jobs),
            (Reason.PROTECTED_PROJECT, job.project_id in protect.projects),
            (Reason.PROTECTED_TAG, not protect.tags.isdisjoint(job.tags)),
            (Reason.KEEP_LAST, is_last),
            (Reason.KEEP_DAILY, is_daily),
            (Reason.KEEP_WITHIN, bool(within) and not self._is_older(job.newest_us, within or 0)),
        )
        return next((reason for reason, holds in decisions if holds), None)

    def _is_among_last(self, job: JobAge, rules: Rules) -> bool:
        number = self._seen.get(job.project_id, 0)
        self._seen[job.project_id] = number + 1
        return number < (rules.keep_last or 0)

    def _is_newest_of_its_day(self, job: JobAge, rules: Rules) -> bool:
        if not rules.keep_daily:
            return False
        days = self._seen_days.setdefault(job.project_id, set())
        day = job.newest_us // _DAY_US
        if day in days or len(days) >= rules.keep_daily:
            return False
        days.add(day)
        return True

    def _keep(self, job: JobAge, reason: Reason) -> None:
        if reason in _COUNTED_TOGETHER:
            counts = self._kept.setdefault((job.project_id, reason), [0, 0, 0])
            for place, number in enumerate((1, job.files, job.size)):
                counts[place] += number
            return
        self._selection.kept.append(kept_job(job, str(reason)))


def kept_job(
    job: JobAge, reason: str, *, files: int | None = None, size: int | None = None
) -> KeptJobs:
    """Return one job as it is told that it stays, with all its files or with some."""
    return KeptJobs(
        job_id=job.job_id,
        project_id=job.project_id,
        jobs=1,
        files=job.files if files is None else files,
        bytes=job.size if size is None else size,
        reason=reason,
    )


def require_steady_clock(
    selection: Selection,
    last: LastCleanup | None,
    now: datetime,
    *,
    days: int | None,
    allow: Collection[Allowance],
) -> None:
    """Stop a cleanup whose clock cannot be right.

    Raises:
        CleanupRefusedError: A record or the last cleanup is in the future, or everything has expired
            suddenly since the last cleanup.
    """
    if Allowance.CLOCK_JUMP in allow:
        return
    newest = EPOCH + selection.newest_us * _MICROSECOND
    if newest > now + _FUTURE:
        _refuse_clock(
            f"the clock says {iso_utc(now)}, and a job was organized at {iso_utc(newest)}"
        )
    if last is None:
        return
    if last.at > now + _FUTURE:
        _refuse_clock(
            f"the clock says {iso_utc(now)}, and the last cleanup was at {iso_utc(last.at)}"
        )
    is_sudden = last.left_unexpired and not selection.unexpired and now - last.at > _JUMP
    if days == 0:
        return  # who says that takes everything, whatever the clock says
    if is_sudden and selection.found.files:
        _refuse_clock(
            f"every job has expired since the last cleanup at {iso_utc(last.at)}, and the clock says"
            f" {iso_utc(now)}"
        )


def _refuse_clock(reason: str) -> NoReturn:
    raise CleanupRefusedError(f"{reason}; it may have jumped", Allowance.CLOCK_JUMP)


def require_moderation(
    selection: Selection, policy: RetentionPolicy | None, allow: Collection[Allowance]
) -> None:
    """Stop a cleanup by a policy that takes more than anybody is likely to want.

    Raises:
        CleanupRefusedError: It would leave a project without files, or take too large a share.
    """
    if policy is None or not selection.taken:
        return
    if Allowance.EMPTY_PROJECT not in allow:
        kept = {entry.project_id for entry in selection.kept}
        emptied = sorted({choice.job.project_id for choice in selection.taken} - kept)
        if emptied:
            more = f" and {len(emptied) - 1} more" if len(emptied) > 1 else ""
            raise CleanupRefusedError(
                f"the policy would leave project {emptied[0]!r}{more} empty",
                Allowance.EMPTY_PROJECT,
            )
    if Allowance.LARGE_SHARE not in allow:
        files = sum(choice.job.files for choice in selection.taken)
        size = sum(choice.job.size for choice in selection.taken)
        found = selection.found
        share = max(files / found.files, size / found.bytes if found.bytes else 0)
        if share > policy.max_share:
            raise CleanupRefusedError(
                f"the policy would take {files} of {found.files} files, {size} of {found.bytes} bytes,"
                f" more than the share of {policy.max_share:g} that max_share allows",
                Allowance.LARGE_SHARE,
            )
