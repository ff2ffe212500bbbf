"""What the world does: somebody else is at it, the disk refuses, another server fails, or access is denied."""

from __future__ import annotations

from flask_comfy_files.core.errors.base import ComfyFilesError, quoted


class BusyError(ComfyFilesError, TimeoutError):
    """It cannot be done just now; nothing was changed, and a later call may succeed."""

    code = "busy"


class LockTimeoutError(BusyError):
    """Another process or thread held the library's lock for too long."""

    code = "lock_timeout"
    template = "Another process has been changing the library for {timeout_s:g} seconds. Try again in a moment."

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s


class BudgetExceededError(BusyError):
    """The work is larger than one request may do; it belongs to a worker."""

    code = "budget_exceeded"
    template = "Job {job_id} is larger than one request may organize ({limit}). It is finished in the background."

    def __init__(self, job_id: str, limit: str) -> None:
        super().__init__(job_id, limit)
        self.job_id, self.limit = quoted(job_id), limit


class RunNotFinishedError(BusyError):
    """ComfyUI still runs what the job waits for."""

    code = "run_not_finished"
    template = "ComfyUI has not finished the run {prompt_id} yet. Try again when it has."

    def __init__(self, prompt_id: str) -> None:
        super().__init__(prompt_id)
        self.prompt_id = quoted(prompt_id)


class HistoryUnavailableError(BusyError):
    """ComfyUI cannot tell which files a run made, and nothing else names any."""

    code = "history_unavailable"
    template = (
        "ComfyUI's history of run {prompt_id} is not to be had ({problem}), and no file was found without it. "
        "Name the job's files, or try again."
    )

    def __init__(self, prompt_id: str, problem: str) -> None:
        super().__init__(prompt_id, problem)
        self.prompt_id, self.problem = quoted(prompt_id), problem


class CleanupRunningError(BusyError):
    """A cleanup of this library is under way."""

    code = "cleanup_running"
    template = "A cleanup of this library is under way already. Try again when it has finished."


class MigrationRunningError(BusyError):
    """A migration of this library is under way."""

    code = "migration_running"
    template = "A migration of this library is under way already. Try again when it has finished."


class TasksRunningError(BusyError):
    """A server process works on as many tasks as it may."""

    code = "tasks_running"
    template = (
        "This server process works on {number} tasks already. "
        "Try again when one has ended, or cancel one."
    )

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class IntegrityError(ComfyFilesError):
    """Bytes are not what their record says."""

    code = "integrity"


class ChecksumMismatchError(IntegrityError):
    """A copy differs from its source; the source was left where it is."""

    code = "checksum_mismatch"
    template = "The copy of {path} differs from it, and it was left where it is. The target disk may be failing."

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = quoted(path)


class ArchiveBrokenOffError(IntegrityError):
    """A file of an archive is not what its record says; what was sent of the archive is none."""

    code = "archive_broken_off"
    template = (
        "The archive was broken off at {path}: {problem}. Run `flask files verify --read-bytes`, "
        "or ask for the archive again if the job has just changed."
    )

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = quoted(path), problem


class DocumentDamagedError(IntegrityError):
    """The tracking document is there but cannot be read as one."""

    code = "document_damaged"
    template = "{name} is damaged: {problem}. The next change keeps it aside, and rebuilds it from what is left."

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem


class StorageError(ComfyFilesError):
    """The disk refused; the operation is either undone or finished by the next change."""

    code = "storage"
    template = "{action} {path} failed: {reason}. {advice}"

    def __init__(self, action: str, path: str, reason: str, advice: str = "") -> None:
        super().__init__(action, path, reason, advice)
        self.action, self.path, self.reason, self.advice = action, quoted(path), reason, advice

    def __str__(self) -> str:
        """Return the message, without a gap where there is no advice."""
        return super().__str__().rstrip()


class OutOfSpaceError(StorageError):
    """The volume is too full for the operation; no file was moved."""

    code = "out_of_space"
    template = (
        "{needed_bytes} bytes are needed and only {free_bytes} are free beyond the reserve. "
        "Free some space on the volume of the output root; nothing was changed."
    )

    def __init__(self, needed_bytes: int, free_bytes: int) -> None:
        ComfyFilesError.__init__(self, needed_bytes, free_bytes)
        self.needed_bytes, self.free_bytes = needed_bytes, free_bytes


class LibraryUnavailableError(StorageError):
    """The library cannot be changed as it stands: root missing, wrong disk, no permission."""

    code = "library_unavailable"
    template = "The library cannot be used: {reason}. {advice}"

    def __init__(self, reason: str, advice: str) -> None:
        ComfyFilesError.__init__(self, reason, advice)
        self.reason, self.advice = reason, advice


class OlderInstallationError(LibraryUnavailableError):
    """An older installation's list of files stands where the tracking document would."""

    code = "older_installation"
    template = (
        "{name} is of an older installation: run `flask files import` to take its files over. "
        "Nothing was changed."
    )

    def __init__(self, name: str) -> None:
        ComfyFilesError.__init__(self, name)
        self.name = name


class AccessError(ComfyFilesError):
    """The caller may not do this."""

    code = "access"


class TokenRequiredError(AccessError):
    """A bearer token is configured and the request has none, or a wrong one."""

    code = "token_required"
    template = "This needs a valid token: send the header Authorization: Bearer <token>."


class AccessDeniedError(AccessError):
    """The request is not one that may do this."""

    code = "access_denied"
    template = "{reason}"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpstreamError(ComfyFilesError):
    """Another server did not do its part."""

    code = "upstream"


class ComfyUIAnswerError(UpstreamError):
    """ComfyUI answered something that it never says; nothing was moved."""

    code = "comfyui_answer"
    template = "ComfyUI answered with {problem}. Is COMFY_FILES_COMFYUI_URL its address?"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class MissingExtraError(ComfyFilesError, ImportError):
    """A feature needs a package that is not installed; everything else works without it."""

    code = "missing_extra"
    template = (
        "{feature} needs a package that is not installed: pip install 'flask-comfy-files[{extra}]'"
    )

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)
        self.feature, self.extra = feature, extra
