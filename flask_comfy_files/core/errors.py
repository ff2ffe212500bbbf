"""Everything that can go wrong, as one tree.

::

    ComfyFilesError
    ├── ConfigurationError
    ├── InvalidInputError(ValueError)    InvalidIdentifierError, UnsafePathError
    ├── NotFoundError(LookupError)       JobNotFoundError (JobTrashedError), ProjectNotFoundError,
    │                                    RecordNotFoundError, NameNotFoundError, PlanNotFoundError
    ├── ConflictError                    IdentifierCaseError, JobInOtherProjectError, AmbiguousNameError,
    │                                    JobPinnedError, CleanupRefusedError, PlanStaleError
    ├── BusyError(TimeoutError)          LockTimeoutError, BudgetExceededError, RunNotFinishedError,
    │                                    HistoryUnavailableError, CleanupRunningError
    ├── IntegrityError                   ChecksumMismatchError, DocumentDamagedError
    ├── StorageError                     OutOfSpaceError, LibraryUnavailableError
    ├── AccessError                      TokenRequiredError, AccessDeniedError
    └── UpstreamError                    ComfyUIAnswerError

An error is built from facts and says its message itself, so it survives pickling and a caller can
ask for the facts. No message holds an absolute path of the server, but for ``ConfigurationError``,
which only the person who starts the app reads.
"""

from __future__ import annotations

from typing import ClassVar, Final

LONGEST_QUOTE: Final = 120  # characters of a refused value that a message repeats


def quoted(value: object) -> str:
    """Return a value as a message may show it: escaped, and shortened when it is long."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= LONGEST_QUOTE:
        return ascii(text) if isinstance(value, str) else text
    return f"{text[:LONGEST_QUOTE]!a}… ({len(text)} characters)"


class ComfyFilesError(Exception):
    """Base of every error that this package raises on purpose."""

    code: ClassVar[str] = "error"
    """Stable slug, and the anchor of the error's entry in ``docs/reference/errors.md``."""

    template: ClassVar[str] = "Something went wrong."

    def __str__(self) -> str:
        """Return what happened, to which thing, and what the reader can do."""
        return self.template.format_map(vars(self))


class ConfigurationError(ComfyFilesError):
    """A setting cannot be used; raised when the app starts, never as an answer."""

    code = "configuration"
    template = "{setting} is {value}: {advice}"

    def __init__(self, setting: str, value: object, advice: str) -> None:
        super().__init__(setting, value, advice)
        self.setting, self.value, self.advice = setting, quoted(value), advice


class InvalidInputError(ComfyFilesError, ValueError):
    """A value given by the caller cannot be used; nothing was changed."""

    code = "invalid_input"
    template = "{field}: {value} {problem}."

    def __init__(self, field: str, value: object, problem: str) -> None:
        super().__init__(field, value, problem)
        self.field, self.value, self.problem = field, quoted(value), problem


class InvalidIdentifierError(InvalidInputError):
    """A job or project id breaks the rules of ``core.layout``."""

    code = "invalid_identifier"


class UnsafePathError(InvalidInputError):
    """A path is absolute, leads out of the output root, or is no path at all."""

    code = "unsafe_path"


class NotFoundError(ComfyFilesError, LookupError):
    """What was asked for is not known."""

    code = "not_found"


class JobNotFoundError(NotFoundError):
    """No job of this id is known."""

    code = "job_not_found"
    template = "No job {job_id} is known. A job becomes known when it is first organized."

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = quoted(job_id)


class JobTrashedError(JobNotFoundError):
    """The job was deleted and rests in the trash."""

    code = "job_trashed"
    template = "Job {job_id} was deleted at {trashed_at}; it can be restored until {until}."

    def __init__(self, job_id: str, trashed_at: str, restorable_until: str) -> None:
        ComfyFilesError.__init__(self, job_id, trashed_at, restorable_until)
        self.job_id, self.trashed_at, self.until = quoted(job_id), trashed_at, restorable_until


class ProjectNotFoundError(NotFoundError):
    """No project of this id is known."""

    code = "project_not_found"
    template = "No project {project_id} is known. A project becomes known with its first job."

    def __init__(self, project_id: str) -> None:
        super().__init__(project_id)
        self.project_id = quoted(project_id)


class RecordNotFoundError(NotFoundError):
    """No file has this id or path."""

    code = "record_not_found"
    template = "No recorded file has the id or path {key}. Ask for its job to see the files that are there."

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = quoted(key)


class NameNotFoundError(NotFoundError):
    """ComfyUI's name stands for no file that is here."""

    code = "name_not_found"
    template = "No file that ComfyUI wrote as {path} is here, or none of that run."

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = quoted(path)


class PlanNotFoundError(NotFoundError):
    """No cleanup was planned under this id, or it is too long ago."""

    code = "plan_not_found"
    template = "No cleanup plan {plan_id} is there. A plan is kept for 24 hours; make a new one."

    def __init__(self, plan_id: str) -> None:
        super().__init__(plan_id)
        self.plan_id = quoted(plan_id)


class ConflictError(ComfyFilesError):
    """The call contradicts what the library already knows; nothing was changed."""

    code = "conflict"


class IdentifierCaseError(ConflictError):
    """An id differs only in case from one that is known."""

    code = "identifier_case"
    template = (
        "{field} {value} differs only in case from {known}, which is known already. "
        "Use {known}, or an id that differs in more than case."
    )

    def __init__(self, field: str, value: str, known: str) -> None:
        super().__init__(field, value, known)
        self.field, self.value, self.known = field, quoted(value), quoted(known)


class JobInOtherProjectError(ConflictError):
    """A job belongs to one project, and this one to another."""

    code = "job_in_other_project"
    template = "Job {job_id} belongs to {known}, not to {project_id}. Leave project_id out, or use another job_id."

    def __init__(self, job_id: str, project_id: str, known: str) -> None:
        super().__init__(job_id, project_id, known)
        self.job_id, self.project_id, self.known = map(quoted, (job_id, project_id, known))


class AmbiguousNameError(ConflictError):
    """A name of ComfyUI's was used for several files, and nothing says which is meant."""

    code = "ambiguous_name"
    template = "ComfyUI has used the name {path} more than once. Give the prompt_id of the one."

    def __init__(self, path: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(path, candidates)
        self.path, self.candidates = quoted(path), candidates


class JobPinnedError(ConflictError):
    """The job is pinned, and nothing deletes a pinned job."""

    code = "job_pinned"
    template = "Job {job_id} is pinned, so it is not deleted. Unpin it first."

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = quoted(job_id)


class CleanupRefusedError(ConflictError):
    """A cleanup would do what probably nobody wants, and nobody said so; nothing was deleted."""

    code = "cleanup_refused"
    template = "The cleanup was stopped: {reason}. If this is what you want, allow {allowance}."

    def __init__(self, reason: str, allowance: str) -> None:
        super().__init__(reason, allowance)
        self.reason, self.allowance = reason, allowance


class PlanStaleError(ConflictError):
    """A job of a cleanup plan has changed since the plan was made; nothing was deleted."""

    code = "plan_stale"
    template = "Job {job_id} has changed since the cleanup was planned. Make a new plan."

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = quoted(job_id)


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


class DocumentDamagedError(IntegrityError):
    """The tracking document is there but cannot be read as one."""

    code = "document_damaged"
    template = "{name} is damaged: {problem}. Nothing was changed. Put a copy from before the damage in its place."

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
