"""Cleaning a library up: choose the jobs, look at their files, move them to the trash, and purge what lay there.

A rehearsal does the first two and says what the rest would do. Choosing is one pass over the index; deleting
goes in batches, each with one append and one turn with the library's lock.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core import durable, looking, plans, trash
from flask_comfy_files.core.accounting import Account
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.queries import AgeRow, TrashRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.deletion import JOBS_AT_ONCE, Deletion, new_operation
from flask_comfy_files.core.disposal import Purged, Trashed, trash_jobs
from flask_comfy_files.core.errors import CleanupRunningError, PlanStaleError
from flask_comfy_files.core.examination import Examined, examine
from flask_comfy_files.core.layout import PROJECTS, STATE
from flask_comfy_files.core.plans import StoredPlan
from flask_comfy_files.core.policy import Allowance, RetentionPolicy
from flask_comfy_files.core.presence import require_present
from flask_comfy_files.core.records import LeftFile, iso_utc, microseconds
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.reports import CleanupPlan, CleanupReport, Outcome
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.retention import (
    Choice,
    Days,
    JobAge,
    Room,
    Selection,
    require_moderation,
    require_steady_clock,
    select,
)
from flask_comfy_files.core.room import free_bytes

Progress = Callable[[int, int], None]
"""Told how many of how many jobs are done."""

_A_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What the settings say of keeping and deleting; ``min_free_bytes`` should stay free on the volume."""

    policy: RetentionPolicy | None
    days: int
    min_free_bytes: int

    @property
    def floor_bytes(self) -> int:
        """How many bytes should be free, or the trash is emptied early."""
        policy_floor = self.policy.min_free_bytes if self.policy else None
        return max(self.min_free_bytes, policy_floor or 0)


class Cleanup:
    """Cleans one library up; safe for threads and processes, of which one at a time does it."""

    def __init__(
        self, root: str, catalog: Catalog, deletion: Deletion, clock: Clock, retention: Retention
    ) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._deletion = deletion
        self._clock = clock
        self._retention = retention

    def rehearse(
        self, days: int | None, allow: Collection[Allowance], progress: Progress | None = None
    ) -> CleanupReport:
        """Return what a cleanup would do now; nothing is changed.

        Raises:
            CleanupRefusedError: It would be refused.
        """
        now = self._clock()
        require_present(self._root, self._catalog)
        with reading(self._root, self._catalog) as reader:
            selection = self._select(reader, days, allow, now)
            return self._rehearse(reader, selection, days, now, progress)

    def save_plan(
        self, days: int | None, allow: Collection[Allowance], progress: Progress | None = None
    ) -> CleanupPlan:
        """Rehearse a cleanup, and keep what it would take, to be carried out within a day.

        Raises:
            CleanupRefusedError: It would be refused.
        """
        now = self._clock()
        require_present(self._root, self._catalog)
        with reading(self._root, self._catalog) as reader:
            selection = self._select(reader, days, allow, now)
            rehearsal = self._rehearse(reader, selection, days, now, progress)
        plan = StoredPlan.new(uuid.uuid4().hex, now, selection, rehearsal)
        plans.save_plan(self._root, plan, now)
        return plan.as_record()

    def run(
        self, days: int | None, allow: Collection[Allowance], progress: Progress | None = None
    ) -> CleanupReport:
        """Delete what has expired, and purge what was long enough in the trash.

        Raises:
            CleanupRefusedError: It would do what probably nobody wants; nothing was deleted.
            CleanupRunningError: Another one is under way.
        """
        with self._alone():
            return self._run(days, allow, progress)

    def run_if_due(self) -> CleanupReport | None:
        """Clean up if nobody has begun to within a day; ``None`` if somebody has, or is at it.

        Raises:
            CleanupRefusedError: It would do what probably nobody wants; it is not due again today.
        """
        if not self.is_due():
            return None
        try:
            with self._alone():
                return self._run(None, (), None) if self.is_due() else None
        except CleanupRunningError:
            return None

    def apply(self, plan_id: str, progress: Progress | None = None) -> Outcome[CleanupReport]:
        """Carry a plan out, or answer what it did when it was carried out before.

        Raises:
            PlanNotFoundError: There is none, or it is more than a day old.
            PlanStaleError: A job of it has changed; nothing was deleted.
            CleanupRunningError: A cleanup is under way.
        """
        with self._alone():
            now = self._clock()
            plan = plans.find_plan(self._root, plan_id, now)
            if plan.is_applied:
                return Outcome(plan.report, is_new=False)
            account = Account(plan.found, plan.kept)
            require_present(self._root, self._catalog)
            with reading(self._root, self._catalog) as reader:
                taken = list(_still_to_do(reader, plan, account))
            plans.note_begin(self._root, now)
            operation = {**new_operation("cleanup", now), "id": plan_id}
            report = self._execute(account, taken, plan.report.days, operation, progress)
            plans.save_plan(self._root, plan.applied(report), now)
            return Outcome(report, is_new=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if durable.find_status(self._root, STATE) is None:
            yield  # no library was begun, so there is nothing to clean up
            return
        with plans.only_cleanup(self._root):
            self._catalog.examine()
            # Or jobs that a crash has left half deleted would be chosen again.
            if self._catalog.is_behind():
                with changing(self._root, self._catalog):
                    pass
            yield

    def missing_bytes(self) -> int:
        """Return how many bytes are less free than should be; while there are any, the trash is emptied early."""
        return max(0, self._retention.floor_bytes - free_bytes(self._root))

    def is_due(self) -> bool:
        """Say whether no cleanup was begun for more than a day."""
        begun_at = plans.last_attempt(self._root)
        return begun_at is None or abs(self._clock() - begun_at) > _A_DAY

    def _run(
        self, days: int | None, allow: Collection[Allowance], progress: Progress | None
    ) -> CleanupReport:
        now = self._clock()
        if durable.find_status(self._root, STATE) is not None:
            plans.note_begin(self._root, now)
        require_present(self._root, self._catalog)
        with reading(self._root, self._catalog) as reader:
            selection = self._select(reader, days, allow, now)
        operation = new_operation("cleanup", now)
        account = Account(selection.found, selection.kept)
        report = self._execute(account, selection.taken, self._days(days), operation, progress)
        if selection.found.files:
            plans.note_end(self._root, now, left_unexpired=selection.unexpired > 0)
        return report

    def _days(self, asked: int | None) -> int:
        return self._retention.days if asked is None else asked

    def _select(
        self, reader: Reader, days: int | None, allow: Collection[Allowance], now: datetime
    ) -> Selection:
        policy = self._retention.policy
        allowed = {*allow, *(policy.allow if policy else ())}
        selection = select(
            map(_age, reader.jobs_by_age()),
            policy=policy,
            days=Days(asked=days, default=self._retention.days),
            now=now,
            room=Room(free=free_bytes(self._root), in_trash=reader.trash_totals().bytes),
        )
        last = plans.last_cleanup(self._root)
        require_steady_clock(selection, last, now, days=days, allow=allowed)
        require_moderation(selection, policy, allowed)
        return selection

    def _rehearse(
        self,
        reader: Reader,
        selection: Selection,
        days: int | None,
        now: datetime,
        progress: Progress | None,
    ) -> CleanupReport:
        account = Account(selection.found, selection.kept)
        emptied: dict[str, set[str]] = {}
        deleted = []
        for number, choice in enumerate(selection.taken):
            if progress is not None:
                progress(number, len(selection.taken))
            examined = self._examine(reader, choice)
            if examined.held or examined.failed:
                account.hold(choice, examined)
                continue
            account.delete(choice, len(examined.doomed), examined.size, examined.skipped)
            deleted.append(_as_trashed(choice, examined, now))
            if examined.empties_folder or not examined.has_folder:
                own = {examined.job_id} if examined.has_folder else set()
                emptied.setdefault(examined.project_id, set()).update(own)
        account.folders = sum(map(len, emptied.values())) + self._emptied_projects(emptied)
        self._rehearse_purge(reader, account, deleted, now)
        return account.report(self._days(days), None)

    def _examine(self, reader: Reader, choice: Choice) -> Examined:
        job = choice.job
        return examine(self._root, job.job_id, job.project_id, reader.files_of_job(job.job_id))

    def _emptied_projects(self, emptied: dict[str, set[str]]) -> int:
        number = 0
        for project_id, job_ids in emptied.items():
            with contextlib.suppress(OSError):
                entries = looking.list_folder(self._root, f"{PROJECTS}/{project_id}")
                number += {name for name, _ in entries} <= job_ids
        return number

    def _rehearse_purge(
        self, reader: Reader, account: Account, deleted: Iterable[TrashRow], now: datetime
    ) -> None:
        freed = trash.Freed()
        newest = sorted(deleted, key=lambda row: row.job_id)  # as they will lie in the trash
        for row in self._due([*reader.trash(), *newest], now):
            account.purged_files += row.file_count
            if row.entry:
                records = reader.trashed_files(row.job_id, row.entry)
                paths = [trash.place_in_trash(record, row.entry) for record in records]
            else:
                account.purged_at_once += row.total_size
                paths = [record.path for record in reader.files_of_job(row.job_id)]
            for path in paths:
                status = durable.find_status(self._root, path)
                if status is not None:
                    freed.count(status)
        account.freed = freed.bytes

    def _due(self, rows: Iterable[TrashRow], now: datetime) -> list[TrashRow]:
        """Return what is to be purged: what was long enough in the trash, and more while space is short."""
        short = self.missing_bytes()
        due = []
        for row in rows:
            if short > 0 or self._deletion.restorable_until(row.facts["at"]) <= now:
                due.append(row)
                short -= row.counted_size
        return due

    def _execute(
        self,
        account: Account,
        taken: Sequence[Choice],
        days: int,
        operation: dict[str, Any],
        progress: Progress | None,
    ) -> CleanupReport:
        for start in range(0, len(taken), JOBS_AT_ONCE):
            if progress is not None:
                progress(start, len(taken))
            self._delete_batch(account, taken[start : start + JOBS_AT_ONCE], operation)
        if progress is not None and taken:
            progress(len(taken), len(taken))
        self._purge(account, operation)
        return account.report(days, operation["id"])

    def _delete_batch(
        self, account: Account, batch: Sequence[Choice], operation: dict[str, Any]
    ) -> None:
        with self._catalog.reading() as reader:
            looked_at = [(choice, self._examine(reader, choice)) for choice in batch]
        with changing(self._root, self._catalog) as writer:
            changed = {
                choice.job.job_id
                for choice, _ in looked_at
                if (job := writer.find_job(choice.job.job_id)) is None or job.seq != choice.job.seq
            }
            going = [
                examined
                for _, examined in looked_at
                if not (examined.job_id in changed or examined.held or examined.failed)
            ]
            try:
                trashed = trash_jobs(self._root, writer, operation, going) if going else Trashed()
            except OSError as error:
                durable.refuse("Moving to the trash in", "", error)
        account.folders += trashed.folders
        for choice, examined in looked_at:
            failure = trashed.failed.get(examined.job_id)
            if examined.job_id in changed:
                account.pass_over(choice)
            elif failure or examined.held or examined.failed:
                account.hold(choice, examined, failure)
            else:
                account.delete(choice, len(examined.doomed), examined.size, examined.skipped)

    def _purge(self, account: Account, operation: dict[str, Any]) -> None:
        with self._catalog.reading() as reader:
            due = self._due(reader.trash(), datetime.fromisoformat(operation["at"]))
        purged = Purged()
        for start in range(0, len(due), JOBS_AT_ONCE):
            with changing(self._root, self._catalog) as writer:
                batch = [
                    row
                    for row in due[start : start + JOBS_AT_ONCE]
                    if row.entry in {other.entry for other in writer.trash(row.job_id)}
                ]  # without those that were restored meanwhile
                self._deletion.purge(writer, operation, batch, purged)
        account.left_in_trash = purged.failed
        account.purged_files = purged.files
        account.purged_at_once = sum(row.total_size for row in due if row.entry == operation["id"])
        account.freed = purged.freed.bytes


def _age(row: AgeRow) -> JobAge:
    state = row.state
    return JobAge(
        job_id=row.job_id,
        project_id=row.project_id,
        newest_us=row.newest_us,
        restored_us=microseconds(state["restored_at"]) if "restored_at" in state else 0,
        files=row.file_count,
        size=row.total_size,
        counted_size=row.counted_size,
        seq=row.seq,
        is_pinned=bool(state.get("pinned")),
        is_pending=bool(state.get("pending")),
        tags=state.get("tags", ()),
    )


def _as_trashed(choice: Choice, examined: Examined, now: datetime) -> TrashRow:
    """Return a job as it would lie in the trash; it has no entry there."""
    return TrashRow(
        job_id=examined.job_id,
        entry="",
        project_id=examined.project_id,
        file_count=len(examined.doomed),
        total_size=examined.size,
        counted_size=choice.job.counted_size,
        facts={"at": iso_utc(now)},
    )


def _still_to_do(reader: Reader, plan: StoredPlan, account: Account) -> Iterator[Choice]:
    """Yield the jobs of a plan that are not deleted yet; enter the others, which a crash came after.

    Raises:
        PlanStaleError: One has changed since the plan was made.
    """
    for choice in plan.taken:
        job = reader.find_job(choice.job.job_id)
        if job is not None and job.seq == choice.job.seq:
            yield choice
            continue
        rows = [row for row in reader.trash(choice.job.job_id) if row.entry == plan.plan_id]
        if job is not None or not rows:
            raise PlanStaleError(choice.job.job_id)
        skipped = [LeftFile(**left) for left in rows[0].facts["skipped"]]
        account.delete(choice, rows[0].file_count, rows[0].total_size, skipped)
        account.folders += rows[0].facts["directories"]
