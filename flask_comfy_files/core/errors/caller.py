"""What the caller can put right: the input, what is asked for, or what contradicts the library."""

from __future__ import annotations

from flask_comfy_files.core.errors.base import ComfyFilesError, quoted


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


class OperationNotFoundError(NotFoundError):
    """No operation has this id."""

    code = "operation_not_found"
    template = "No operation {operation_id} is known. List the operations to see their ids."

    def __init__(self, operation_id: str) -> None:
        super().__init__(operation_id)
        self.operation_id = quoted(operation_id)


class TaskNotFoundError(NotFoundError):
    """No task has this id, or it ended too long ago."""

    code = "task_not_found"
    template = "No task {task_id} is known. A task is remembered for seven days after its end."

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = quoted(task_id)


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


class OperationNotUndoableError(ConflictError):
    """What the operation did cannot be undone as a whole; nothing was changed."""

    code = "operation_not_undoable"
    template = "Operation {operation_id} is of kind {kind} and cannot be undone: {reason}"

    def __init__(self, operation_id: str, kind: str, reason: str) -> None:
        super().__init__(operation_id, kind, reason)
        self.operation_id, self.kind, self.reason = quoted(operation_id), quoted(kind), reason
