"""Work that outlasts a request: what is under way, cancelling it, and going on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_comfy_files.core import tasks
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.tasks import Progress, TaskAtWork, TaskList, TaskRecord


class Tasking(Base):
    """What a manager knows of long work, in this process and in others."""

    def get_tasks(self) -> TaskList:
        """Return the tasks that are under way or have ended in the last seven days, newest first."""
        return tasks.list_tasks(self._root)

    def get_task(self, task_id: str) -> TaskRecord:
        """Return how it stands with a task, and its report once it has finished.

        Raises:
            TaskNotFoundError: It is not known.
        """
        return tasks.get_task(self._root, _require_text(task_id))

    def cancel_task(self, task_id: str) -> TaskRecord:
        """Ask who works on a task to stop as soon as nothing is half done; what is done stays done.

        One that was interrupted is cancelled at once; one that has ended stays as it is.

        Raises:
            TaskNotFoundError: It is not known.
            StorageError: That cannot be written down.
        """
        return tasks.cancel(self._root, self._clock, _require_text(task_id))

    def begin_task(
        self, kind: str, arguments: Mapping[str, Any], progress: Progress = (0, None, None)
    ) -> TaskAtWork:
        """Write down work that is under way, so that any process can be asked about it.

        It is for who answers requests: ``arguments`` are what it needs to do the same again. The answer is told
        of progress and of the end. If this process dies before, the task counts as interrupted.

        Raises:
            StorageError: That cannot be written down.
        """
        return tasks.begin(self._root, self._clock, kind, arguments, progress)

    def resume_task(self, task_id: str) -> TaskAtWork | None:
        """Take over a task that was interrupted, was cancelled or failed, to do its work once more.

        ``None`` where it has finished, or somebody works on it.

        Raises:
            TaskNotFoundError: It is not known.
            StorageError: That cannot be written down.
        """
        return tasks.resume(self._root, self._clock, _require_text(task_id))


def _require_text(task_id: Any) -> str:
    if not isinstance(task_id, str):
        raise InvalidInputError("task_id", task_id, "is not a string")
    return task_id
