"""Work that outlasts its request: a folder on the disk for each piece, about which any process can be asked.

Who works holds a lock on a file in it, and the kernel ends that with the process: so what says that it is
running, and is not locked, was interrupted. Whoever wants the work to stop writes into that file.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core import announcing, durable, looking
from flask_comfy_files.core.errors import ComfyFilesError, TaskNotFoundError
from flask_comfy_files.core.layout import TASKS
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.records import iso_utc
from flask_comfy_files.core.request import Clock

_log = logging.getLogger(__name__)

_KEPT_FOR: Final = timedelta(days=7)
_WRITES_EVERY_S: Final = 1.0
"""How often progress is written down: each time costs a few syncs."""
_TASK_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)

_TASK: Final = "task.json"
_ARGUMENTS: Final = "arguments.json"
_RESULT: Final = "result.json"
_WORKER: Final = "worker"
"""Locked by who works; who wants that to stop writes into it."""

Progress = tuple[int, int | None, int | None]
"""How much of how much is done, and how many bytes that had; ``None`` is not known."""


class TaskState(enum.StrEnum):
    """How it stands with a task."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


_READING: Final = frozenset({"verify"})
"""Kinds that change nothing."""
_ENDED: Final = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED})


class TaskCancelledError(Exception):
    """Somebody wants the work to stop; raised where it can, and never as an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One task in short; ``done`` of ``total`` are files, or what else ``kind`` counts.

    Times are ISO 8601 UTC. ``error`` is what a request would have answered instead of a report.
    """

    task_id: str
    kind: str
    dry_run: bool
    state: str
    done: int
    total: int | None
    bytes: int | None
    started_at: str
    updated_at: str
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One task with what was asked, and with its report once it has finished."""

    task_id: str
    kind: str
    dry_run: bool
    state: str
    done: int
    total: int | None
    bytes: int | None
    started_at: str
    updated_at: str
    error: Mapping[str, Any] | None
    arguments: Mapping[str, Any]
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskList:
    """The tasks that are remembered, newest first."""

    tasks: tuple[TaskSummary, ...]

    def __iter__(self) -> Iterator[TaskSummary]:
        """Iterate over the tasks."""
        return iter(self.tasks)


class TaskAtWork:
    """A task as who works on it sees it. One thread at a time uses it."""

    def __init__(self, root: str, clock: Clock, taken: int, facts: dict[str, Any]) -> None:
        """Take over the locked file; the end of the work closes it."""
        self._root = root
        self._clock = clock
        self._taken = taken
        self._facts = facts
        self._written_at = time.monotonic()

    @property
    def task_id(self) -> str:
        """The id by which others know it."""
        return str(self._facts["task_id"])

    def advance(self, done: int, total: int | None, size: int | None = None) -> None:
        """Note how far the work has come; at most every second it is written down.

        Raises:
            TaskCancelledError: The work is to stop here.
        """
        self._facts.update(done=done, total=total, bytes=size)
        if announcing.is_asked_to_stop(self._taken):
            raise TaskCancelledError
        now = time.monotonic()
        if now - self._written_at >= _WRITES_EVERY_S:
            self._written_at = now
            self._write()

    def finish(self, result: Mapping[str, Any]) -> None:
        """End it with a report."""
        self._end(TaskState.FINISHED, result=result)

    def fail(self, error: Mapping[str, Any]) -> None:
        """End it with what went wrong."""
        self._end(TaskState.FAILED, error=error)

    def cancel(self) -> None:
        """End it because somebody wants that."""
        self._end(TaskState.CANCELLED)

    def release(self) -> None:
        """Leave it as one that was interrupted."""
        announcing.give_back(self._taken)

    def _end(
        self,
        state: TaskState,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the end down; a task that has ended already stays as it is."""
        try:
            if self._facts["state"] != TaskState.RUNNING:
                return
            if result is not None:
                write_note(self._root, _place(self.task_id, _RESULT), dict(result))
            self._facts.update(state=str(state), error=error)
            self._write()
        except ComfyFilesError as failure:
            _log.error("task %s has ended, and cannot say so: %s", self.task_id, failure)
        finally:
            announcing.give_back(self._taken)

    def _write(self) -> None:
        self._facts["updated_at"] = iso_utc(self._clock())
        try:
            write_note(self._root, _place(self.task_id, _TASK), self._facts)
        except ComfyFilesError as error:
            if self._facts["state"] != TaskState.RUNNING:
                raise
            _log.warning("the progress of task %s cannot be kept: %s", self.task_id, error)


def _place(task_id: str, name: str = "") -> str:
    return f"{TASKS}/{task_id}/{name}".removesuffix("/")


def begin(
    root: str, clock: Clock, kind: str, arguments: Mapping[str, Any], progress: Progress
) -> TaskAtWork:
    """Write down work that is under way; what ended long ago is forgotten.

    Raises:
        StorageError: That cannot be.
    """
    now = clock()
    _forget_old(root, now)
    task_id = uuid.uuid4().hex
    done, total, size = progress
    at = iso_utc(now)
    facts: dict[str, Any] = {
        "task_id": task_id,
        "kind": kind,
        "dry_run": bool(arguments.get("dry_run")),
        "state": str(TaskState.RUNNING),
        "done": done,
        "total": total,
        "bytes": size,
        "started_at": at,
        "updated_at": at,
        "error": None,
    }
    try:
        durable.sync_folders(root, durable.make_folders(root, _place(task_id)))
    except OSError as error:
        durable.refuse("Keeping a task in", TASKS, error)
    taken = _take(root, task_id)
    if taken is None:  # nobody else knows the id
        raise TaskNotFoundError(task_id)
    with _closing_on_failure(taken):
        write_note(root, _place(task_id, _ARGUMENTS), dict(arguments))
        write_note(root, _place(task_id, _TASK), facts)
    return TaskAtWork(root, clock, taken, facts)


def resume(root: str, clock: Clock, task_id: str) -> TaskAtWork | None:
    """Take over a task that has stopped before its end; ``None`` if it has finished, or somebody works on it.

    Raises:
        TaskNotFoundError: It is not known.
        StorageError: That cannot be written down.
    """
    _require_facts(root, task_id)
    taken = _take(root, task_id)
    if taken is None:
        return None
    with _closing_on_failure(taken):
        facts = _require_facts(root, task_id)  # somebody may have gone on with it meanwhile
        if facts["state"] == TaskState.FINISHED:
            announcing.give_back(taken)
            return None
        facts.update(state=str(TaskState.RUNNING), error=None, updated_at=iso_utc(clock()))
        facts.update(done=0, total=None, bytes=None)
        write_note(root, _place(task_id, _TASK), facts)
    return TaskAtWork(root, clock, taken, facts)


def cancel(root: str, clock: Clock, task_id: str) -> TaskRecord:
    """Ask who works on a task to stop; one that was interrupted is cancelled at once.

    Raises:
        TaskNotFoundError: It is not known.
        StorageError: That cannot be written down.
    """
    if _require_facts(root, task_id)["state"] == TaskState.RUNNING:
        taken = _take(root, task_id)
        if taken is None:
            _ask_to_stop(root, task_id)
        else:
            with _closing_on_failure(taken):
                facts = _require_facts(root, task_id)
            TaskAtWork(root, clock, taken, facts).cancel()
    return get_task(root, task_id)


def get_task(root: str, task_id: str) -> TaskRecord:
    """Return what is known of a task, whoever works on it.

    Raises:
        TaskNotFoundError: Nothing is.
    """
    summary = _find_summary(root, task_id)
    if summary is None:
        raise TaskNotFoundError(task_id)
    result = None
    if summary["state"] == TaskState.FINISHED:
        result = read_note(root, _place(task_id, _RESULT)) or None
    arguments = read_note(root, _place(task_id, _ARGUMENTS))
    return TaskRecord(**summary, arguments=arguments, result=result)


def list_tasks(root: str) -> TaskList:
    """Return the tasks that are remembered, newest first."""
    found = [_find_summary(root, name) for name in looking.names_in(root, TASKS)]
    tasks = [TaskSummary(**summary) for summary in found if summary is not None]
    tasks.sort(key=lambda task: (task.started_at, task.task_id), reverse=True)
    return TaskList(tasks=tuple(tasks))


def interrupted(root: str) -> Iterator[TaskSummary]:
    """Yield the tasks that were changing the library when their process died."""
    for task in list_tasks(root):
        is_harmless = task.dry_run or task.kind in _READING
        if task.state == TaskState.INTERRUPTED and not is_harmless:
            yield task


def _find_summary(root: str, task_id: str) -> dict[str, Any] | None:
    is_held = _is_held(root, task_id)  # before its state is read, or its end may come between
    facts = _find_facts(root, task_id)
    if facts is not None and facts["state"] == TaskState.RUNNING:
        if not is_held:
            facts["state"] = str(TaskState.INTERRUPTED)
        elif _is_asked_to_stop(root, task_id):
            facts["state"] = str(TaskState.CANCELLING)
    return facts


def _find_facts(root: str, task_id: str) -> dict[str, Any] | None:
    """Return what was written down of a task, with the keys of a summary; ``None`` where nothing was."""
    if _TASK_ID.fullmatch(task_id) is None:
        return None
    facts = read_note(root, _place(task_id, _TASK))
    is_ours = facts.keys() == TaskSummary.__dataclass_fields__.keys()
    return facts if is_ours else None


def _require_facts(root: str, task_id: str) -> dict[str, Any]:
    facts = _find_facts(root, task_id)
    if facts is None:
        raise TaskNotFoundError(task_id)
    return facts


def _take(root: str, task_id: str) -> int | None:
    try:
        with durable.open_folder(root, _place(task_id)) as folder:
            return announcing.take(folder, _WORKER)
    except OSError as error:
        durable.refuse("Working on a task in", TASKS, error)


@contextlib.contextmanager
def _closing_on_failure(taken: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        announcing.give_back(taken)
        raise


def _is_held(root: str, task_id: str) -> bool:
    if _TASK_ID.fullmatch(task_id) is None:
        return False
    try:
        with durable.open_folder(root, _place(task_id)) as folder:
            return announcing.is_taken(folder, _WORKER)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it cannot be told, and nothing dead may be made of what is alive
        return True


def _is_asked_to_stop(root: str, task_id: str) -> bool:
    status = durable.find_status(root, _place(task_id, _WORKER))
    return status is not None and status.st_size > 0


def _ask_to_stop(root: str, task_id: str) -> None:
    try:
        with durable.open_folder(root, _place(task_id)) as folder:
            announcing.ask_to_stop(folder, _WORKER)
    except OSError as error:
        durable.refuse("Cancelling a task in", TASKS, error)


def _forget_old(root: str, now: datetime) -> None:
    """Remove the tasks that ended long ago, and what a crash has left of one that never began."""
    oldest = now - _KEPT_FOR
    for task_id in looking.names_in(root, TASKS):
        facts = _find_facts(root, task_id)
        if facts is None:
            status = durable.find_status(root, _place(task_id))
            is_old = status is not None and status.st_mtime < oldest.timestamp()
        else:
            is_old = (
                facts["state"] in _ENDED and datetime.fromisoformat(facts["updated_at"]) < oldest
            )
        if is_old and _TASK_ID.fullmatch(task_id) and not _is_held(root, task_id):
            _forget(root, task_id)


def _forget(root: str, task_id: str) -> None:
    with contextlib.suppress(OSError):
        with durable.open_folder(root, _place(task_id)) as folder:
            for name in looking.names_in(root, _place(task_id)):
                durable.remove(folder, name)
        durable.remove_empty_folders(root, _place(task_id), TASKS)
