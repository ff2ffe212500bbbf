"""Work that may outlast its request, in a thread: what is not done in time is written down, and becomes a task.

Small work is answered at once, and nothing is written for it. The thread needs no request and no app.
"""

from __future__ import annotations

import json
import logging
import threading
from http import HTTPStatus
from typing import Any, Final

from flask import Response, url_for
from werkzeug.exceptions import InternalServerError

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core.errors import ComfyFilesError, TasksRunningError
from flask_comfy_files.core.tasks import TaskAtWork, TaskCancelledError, TaskState
from flask_comfy_files.web import problems
from flask_comfy_files.web.works import Work, carry_out

_log = logging.getLogger(__name__)

_THREAD: Final = "comfy-files-task"
MOST_TASKS: Final = 8
"""In one process: each may keep a disk and a core busy for hours."""

_MARGIN_S: Final = 1.0
"""Work that was told when to stop needs a moment for its report."""

_UNDER_WAY: Final = frozenset({TaskState.RUNNING, TaskState.CANCELLING})


class Tasks:
    """Has the work of one library's requests done in threads of this process."""

    def __init__(self, api: FileManagerAPI) -> None:
        """Start nothing yet."""
        self._api = api

    def answer(self, work: Work) -> Json | Response:
        """Have some work done, and answer its report, or the task that it becomes if it takes too long.

        Raises:
            ComfyFilesError: What the work raises in time.
            TasksRunningError: This process has enough to do.
        """
        if work.resumes is not None:
            return self._resume(work, work.resumes)
        run = _Run(self._api, work)
        run.start()
        if run.has_ended(self._patience_s(work)):
            return run.outcome()
        try:
            task_id = run.write_down()
        except (ComfyFilesError, OSError) as error:
            _log.warning("a request waits for its work, which cannot be written down: %s", error)
            task_id = None
        if task_id is None:
            return run.outcome()
        # Even if it has ended by now: 200 would be taken for the report.
        return _answer(self._api.get_task_api(task_id), HTTPStatus.ACCEPTED)

    def _resume(self, work: Work, task_id: str) -> Response:
        _require_room()
        task = self._api.manager.resume_task(task_id)
        if task is not None:
            run = _Run(self._api, work, task)
            try:
                run.start()
            except TasksRunningError:
                task.release()
                raise
            run.has_ended(self._patience_s(work))
        return answer_task(self._api.get_task_api(task_id))

    def _patience_s(self, work: Work) -> float:
        budget_s = self._api.manager.settings.request_budget_seconds
        told_s = work.arguments.get("max_seconds")
        return budget_s if told_s is None else max(budget_s, told_s + _MARGIN_S)


def answer_task(task: Json) -> Response:
    """Answer how it stands with a task: 202 while somebody works on it."""
    return _answer(task, HTTPStatus.ACCEPTED if task["state"] in _UNDER_WAY else HTTPStatus.OK)


def _answer(task: Json, status: HTTPStatus) -> Response:
    response = Response(problems.as_json(task), status, mimetype="application/json")
    response.headers["Location"] = url_for(".get_task", task_id=task["task_id"])
    return response


def _require_room() -> None:
    # Counted by name, and not by a number of our own: a fork takes none of the threads along.
    number = sum(thread.name == _THREAD for thread in threading.enumerate())
    if number >= MOST_TASKS:
        raise TasksRunningError(number)


class _Run:
    """One piece of work in a thread, on which a request waits for a while."""

    def __init__(self, api: FileManagerAPI, work: Work, task: TaskAtWork | None = None) -> None:
        self._api = api
        self._work = work
        self._task = task
        self._progress: tuple[int, int | None, int | None] = (0, None, None)
        self._turn = threading.Lock()  # either it is written down, or it has ended before
        self._ended = threading.Event()
        self._report: Json | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start the thread.

        Raises:
            TasksRunningError: There are too many.
        """
        _require_room()
        # A daemon: a process that ends does not wait for it; the task is resumed in another.
        thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads for this process
            raise TasksRunningError(threading.active_count()) from error

    def has_ended(self, within_s: float) -> bool:
        return self._ended.wait(within_s)

    def outcome(self) -> Json:
        """Wait for the end, and return the report, or raise what went wrong."""
        self._ended.wait()
        if self._error is None:
            return self._report or {}
        if not isinstance(
            self._error, Exception
        ):  # it ended that thread, and is to end no other one
            _log.error("%s has failed", self._work.kind, exc_info=self._error)
            raise InternalServerError from self._error
        raise self._error

    def write_down(self) -> str | None:
        """Make a task of it, and return its id; ``None`` if it has ended at the last moment.

        Raises:
            StorageError: That cannot be.
        """
        with self._turn:
            if self._ended.is_set():
                return None
            work = self._work
            self._task = self._api.manager.begin_task(work.kind, work.arguments, self._progress)
            return self._task.task_id

    def _run(self) -> None:
        try:
            self._report = carry_out(self._api, self._work, self._advance)
        except BaseException as error:  # noqa: BLE001 - told to whoever asks; in a thread it would end nothing else
            self._error = error
        with self._turn:
            try:
                if self._task is not None:
                    self._settle(self._task)
            finally:
                self._ended.set()

    def _advance(self, done: int, total: int, size: int | None = None) -> None:
        self._progress = (done, total, size)
        if self._task is not None:
            self._task.advance(done, total, size)

    def _settle(self, task: TaskAtWork) -> None:
        if self._error is None:
            task.finish(self._report or {})
        elif isinstance(self._error, TaskCancelledError):
            task.cancel()
        elif _is_end_of_process(self._error):
            task.release()
        else:
            task.fail(_problem_of(self._error, task.task_id))


def _is_end_of_process(error: BaseException) -> bool:
    """Say whether work failed because a process that ends starts no more threads."""
    return isinstance(error, RuntimeError) and "interpreter shutdown" in str(error)


def _problem_of(error: BaseException, task_id: str) -> dict[str, Any]:
    """Return what a request would have answered."""
    if isinstance(error, ComfyFilesError):
        _log.warning("task %s has failed: %s", task_id, error)
        response = problems.answer_error(error)
    else:
        _log.error("task %s has failed", task_id, exc_info=error)
        response = problems.answer_http_error(InternalServerError())
    problem: dict[str, Any] = json.loads(response.get_data())
    return problem
