"""What a cleanup leaves on the disk beside its effects: plans with their reports, and when the last one was."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core import durable, lock, looking
from flask_comfy_files.core.errors import CleanupRunningError, LockTimeoutError, PlanNotFoundError
from flask_comfy_files.core.layout import CLEANUP_LOCK, LAST_CLEANUP, PLANS, file_path
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.records import Tally, iso_utc
from flask_comfy_files.core.reports import CleanupPlan, CleanupReport, KeptJobs, cleanup_from_dict
from flask_comfy_files.core.retention import Choice, JobAge, LastCleanup, Reason, Selection

PLAN_LIFETIME: Final = timedelta(days=1)
_PLAN_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@contextlib.contextmanager
def only_cleanup(root: str) -> Iterator[None]:
    """Be the only one who cleans a library up.

    Raises:
        CleanupRunningError: Somebody else is at it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(file_path(root, CLEANUP_LOCK), 0))
        except LockTimeoutError as error:
            raise CleanupRunningError from error
        except OSError as error:
            durable.refuse("Locking", CLEANUP_LOCK, error)
        yield  # outside of the try: what goes wrong in here is not the lock's


class StoredPlan:
    """A plan as it lies on the disk: which jobs it takes, and its report once it was carried out."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """Take what the file says."""
        self.facts = facts
        self.plan_id: str = facts["plan_id"]

    @classmethod
    def new(
        cls, plan_id: str, now: datetime, selection: Selection, rehearsal: CleanupReport
    ) -> StoredPlan:
        """Return the plan of a cleanup that was rehearsed just now."""
        return cls(
            {
                "plan_id": plan_id,
                "created_at": iso_utc(now),
                "expires_at": iso_utc(now + PLAN_LIFETIME),
                "is_applied": False,
                "taken": [[*choice.job, choice.reason] for choice in selection.taken],
                "found": asdict(selection.found),
                "kept": [asdict(kept) for kept in selection.kept],
                "report": asdict(rehearsal),
            }
        )

    def as_record(self) -> CleanupPlan:
        """Return what is told of it."""
        shown = {key: self.facts[key] for key in ("plan_id", "created_at", "expires_at")}
        return CleanupPlan(**shown, report=self.report)

    @property
    def found(self) -> Tally:
        """All files that the library had."""
        return Tally(**self.facts["found"])

    @property
    def kept(self) -> list[KeptJobs]:
        """The jobs that rules keep."""
        return [KeptJobs(**kept) for kept in self.facts["kept"]]

    @property
    def taken(self) -> list[Choice]:
        """The jobs that it takes."""
        return [Choice(JobAge(*job), Reason(reason)) for *job, reason in self.facts["taken"]]

    @property
    def report(self) -> CleanupReport:
        """What the rehearsal said, or what was done once it was applied."""
        return cleanup_from_dict(self.facts["report"])

    @property
    def is_applied(self) -> bool:
        """Whether it was carried out to its end."""
        return bool(self.facts["is_applied"])

    def applied(self, report: CleanupReport) -> StoredPlan:
        """Return it with the report of what was done."""
        return StoredPlan({**self.facts, "is_applied": True, "report": asdict(report)})


def save_plan(root: str, plan: StoredPlan, now: datetime) -> None:
    """Keep a plan, and remove those that are too old."""
    try:
        durable.sync_folders(root, durable.make_folders(root, PLANS))
        with durable.open_folder(root, PLANS) as folder:
            for name, status in looking.list_folder(root, PLANS):
                if status.st_mtime < (now - 2 * PLAN_LIFETIME).timestamp():
                    durable.remove(folder, name)
    except OSError as error:
        durable.refuse("Keeping a plan in", PLANS, error)
    write_note(root, _place_of(plan.plan_id), plan.facts)


def _place_of(plan_id: str) -> str:
    return f"{PLANS}/{plan_id}.json"


def find_plan(root: str, plan_id: str, now: datetime) -> StoredPlan:
    """Return a plan that is still good.

    Raises:
        PlanNotFoundError: There is none, or it is too old.
    """
    facts = read_note(root, _place_of(plan_id)) if _PLAN_ID.fullmatch(plan_id) else {}
    if not facts:
        raise PlanNotFoundError(plan_id)
    created_at = datetime.fromisoformat(facts["created_at"])
    if not created_at - PLAN_LIFETIME <= now <= datetime.fromisoformat(facts["expires_at"]):
        raise PlanNotFoundError(plan_id)
    return StoredPlan(facts)


def last_cleanup(root: str) -> LastCleanup | None:
    """Return when the last cleanup ended, or ``None`` when there was none."""
    facts = read_note(root, LAST_CLEANUP)
    at = _moment(facts.get("ended_at"))
    return (
        None if at is None else LastCleanup(at=at, left_unexpired=bool(facts.get("left_unexpired")))
    )


def last_attempt(root: str) -> datetime | None:
    """Return when a cleanup was last begun, whatever became of it."""
    return _moment(read_note(root, LAST_CLEANUP).get("begun_at"))


def _moment(noted: object) -> datetime | None:
    """Return a time that a note tells; what is none, or has no zone, was not written by us."""
    try:
        moment = datetime.fromisoformat(str(noted))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment


def note_begin(root: str, now: datetime) -> None:
    """Note that a cleanup begins."""
    write_note(root, LAST_CLEANUP, {**read_note(root, LAST_CLEANUP), "begun_at": iso_utc(now)})


def note_end(root: str, now: datetime, *, left_unexpired: bool) -> None:
    """Note that a cleanup has ended, and whether it left jobs that were not expired."""
    ended = {"ended_at": iso_utc(now), "left_unexpired": left_unexpired}
    write_note(root, LAST_CLEANUP, {**read_note(root, LAST_CLEANUP), **ended})
