"""What a caller asks for, and how much one call may do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask_comfy_files.core.attribution import NamedFile
from flask_comfy_files.core.errors import BudgetExceededError

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: the files of a job, filed under a project; ids are checked already.

    ``project_id`` is ``None`` for the job's own project where it is known, else
    ``default_project``. ``operation_id`` is given where the operation was announced before it could
    be carried out.
    """

    job_id: str
    project_id: str | None
    default_project: str
    prompt_id: str | None = None
    files: tuple[NamedFile, ...] | None = None
    operation_id: str | None = None

    @property
    def named(self) -> list[list[str]] | None:
        """The files that the caller named, in the form in which a waiting completion keeps them."""
        if self.files is None:
            return None
        return [[entry.path, entry.comfyui_type] for entry in self.files]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one call may do before the work belongs to a worker; ``ends_at`` is on the monotonic clock."""

    bytes: int
    ends_at: float
    history_wait_s: float = 0.0
    """How long the caller can wait for ComfyUI's history, which lags behind the end of a run."""

    def require_bytes(self, job_id: str, size: int) -> None:
        """Refuse work that is too large.

        Raises:
            BudgetExceededError: It does not fit.
        """
        if size > self.bytes:
            raise BudgetExceededError(job_id, f"{size} bytes, {self.bytes} at most")

    def require_time(self, job_id: str) -> None:
        """Refuse to go on when the time is over.

        Raises:
            BudgetExceededError: It is over.
        """
        if time.monotonic() > self.ends_at:
            raise BudgetExceededError(job_id, "its time is over")

    @property
    def time_left_s(self) -> float:
        """How long there is left to wait for a lock."""
        return max(0.0, self.ends_at - time.monotonic())
