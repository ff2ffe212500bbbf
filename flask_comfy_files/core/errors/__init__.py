"""Everything that can go wrong, as one tree.

::

    ComfyFilesError
    ├── ConfigurationError
    ├── InvalidInputError(ValueError)    InvalidIdentifierError, UnsafePathError
    ├── NotFoundError(LookupError)       JobNotFoundError (JobTrashedError), ProjectNotFoundError,
    │                                    RecordNotFoundError, NameNotFoundError, PlanNotFoundError,
    │                                    OperationNotFoundError, TaskNotFoundError
    ├── ConflictError                    IdentifierCaseError, JobInOtherProjectError, AmbiguousNameError,
    │                                    JobPinnedError, CleanupRefusedError, PlanStaleError,
    │                                    OperationNotUndoableError
    ├── BusyError(TimeoutError)          LockTimeoutError, BudgetExceededError, RunNotFinishedError,
    │                                    HistoryUnavailableError, CleanupRunningError,
    │                                    MigrationRunningError, TasksRunningError
    ├── IntegrityError                   ChecksumMismatchError, ArchiveBrokenOffError, DocumentDamagedError
    ├── StorageError                     OutOfSpaceError, LibraryUnavailableError (OlderInstallationError)
    ├── AccessError                      TokenRequiredError, AccessDeniedError
    ├── UpstreamError                    ComfyUIAnswerError
    └── MissingExtraError(ImportError)   a feature needs a package that is not installed

An error is built from facts and says its message itself, so it survives pickling and a caller can
ask for the facts. No message holds an absolute path of the server, but for ``ConfigurationError``,
which only the person who starts the app reads.
"""

from flask_comfy_files.core.errors.base import (
    LONGEST_QUOTE,
    ComfyFilesError,
    ConfigurationError,
    quoted,
)
from flask_comfy_files.core.errors.caller import (
    AmbiguousNameError,
    CleanupRefusedError,
    ConflictError,
    IdentifierCaseError,
    InvalidIdentifierError,
    InvalidInputError,
    JobInOtherProjectError,
    JobNotFoundError,
    JobPinnedError,
    JobTrashedError,
    NameNotFoundError,
    NotFoundError,
    OperationNotFoundError,
    OperationNotUndoableError,
    PlanNotFoundError,
    PlanStaleError,
    ProjectNotFoundError,
    RecordNotFoundError,
    TaskNotFoundError,
    UnsafePathError,
)
from flask_comfy_files.core.errors.world import (
    AccessDeniedError,
    AccessError,
    ArchiveBrokenOffError,
    BudgetExceededError,
    BusyError,
    ChecksumMismatchError,
    CleanupRunningError,
    ComfyUIAnswerError,
    DocumentDamagedError,
    HistoryUnavailableError,
    IntegrityError,
    LibraryUnavailableError,
    LockTimeoutError,
    MigrationRunningError,
    MissingExtraError,
    OlderInstallationError,
    OutOfSpaceError,
    RunNotFinishedError,
    StorageError,
    TasksRunningError,
    TokenRequiredError,
    UpstreamError,
)

__all__ = [
    "LONGEST_QUOTE",
    "AccessDeniedError",
    "AccessError",
    "AmbiguousNameError",
    "ArchiveBrokenOffError",
    "BudgetExceededError",
    "BusyError",
    "ChecksumMismatchError",
    "CleanupRefusedError",
    "CleanupRunningError",
    "ComfyFilesError",
    "ComfyUIAnswerError",
    "ConfigurationError",
    "ConflictError",
    "DocumentDamagedError",
    "HistoryUnavailableError",
    "IdentifierCaseError",
    "IntegrityError",
    "InvalidIdentifierError",
    "InvalidInputError",
    "JobInOtherProjectError",
    "JobNotFoundError",
    "JobPinnedError",
    "JobTrashedError",
    "LibraryUnavailableError",
    "LockTimeoutError",
    "MigrationRunningError",
    "MissingExtraError",
    "NameNotFoundError",
    "NotFoundError",
    "OlderInstallationError",
    "OperationNotFoundError",
    "OperationNotUndoableError",
    "OutOfSpaceError",
    "PlanNotFoundError",
    "PlanStaleError",
    "ProjectNotFoundError",
    "RecordNotFoundError",
    "RunNotFinishedError",
    "StorageError",
    "TaskNotFoundError",
    "TasksRunningError",
    "TokenRequiredError",
    "UnsafePathError",
    "UpstreamError",
    "quoted",
]
