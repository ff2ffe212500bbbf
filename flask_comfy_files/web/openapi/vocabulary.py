"""What each key of our JSON means, with an example: a name means one thing, wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flask_comfy_files.core.records import Evidence, FileType

FILE_ID: Final = "3f2a9c5e8b7d4f10a6c4e2d98b5f7a13"
OPERATION_ID: Final = "7b1d0f6a4c3e42d8b9a5c6e7f8091a2b"
CHECKSUM: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
PROMPT_ID: Final = "d6cf22c3-5a4e-4c0e-9d1b-6f3e2a7b8c90"
MOMENT: Final = "2026-02-03T04:05:06Z"
LATER: Final = "2026-02-10T04:05:06Z"
PATH: Final = "projects/tokyo_debt_series/clip_8/clip_8_1770091506_video.mp4"


@dataclass(frozen=True, slots=True)
class Word:
    """A key: what it is, an example, what a JSON Schema can say of it, and what null says where it may be."""

    text: str
    example: Any = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    null: str = ""


_TIME: Final = {"format": "date-time"}
_OF_NONE: Final = "Null where a file belongs to none."
_UNKNOWN: Final = "Null where it is not known."

WORDS: Final[Mapping[str, Word]] = {
    # Identity
    "file_id": Word(
        "Id of a file, 32 hex digits; it stays the same when the file is moved.", FILE_ID
    ),
    "job_id": Word("Id of a job.", "clip_8", null=_OF_NONE),
    "project_id": Word("Id of a project.", "tokyo_debt_series", null=_OF_NONE),
    "operation_id": Word("Id of the operation.", OPERATION_ID, null="Null where nothing was done."),
    "plan_id": Word("Id of a planned cleanup.", OPERATION_ID),
    "task_id": Word("Id of work that has outlasted its request.", OPERATION_ID),
    "library_id": Word("Id of the library.", OPERATION_ID),
    "prompt_id": Word("Id of the ComfyUI run.", PROMPT_ID, null=_UNKNOWN),
    "node_id": Word("Id of the node of ComfyUI's graph.", "9", null=_UNKNOWN),
    "class_type": Word("Class of the node.", "SaveImage"),
    "run": Word("Name of the folder in the inbox into which this run writes.", "5f0c2a9d"),
    "cursor": Word("Where an earlier answer has ended."),
    "next_cursor": Word(
        "What to give as cursor for what comes next.", null="Null where there is no more."
    ),
    # A file
    "file_path": Word(
        "Absolute path on the server; left out when SHOW_PATHS is false.", f"/srv/output/{PATH}"
    ),
    "path": Word("Path relative to the output root, with / between.", PATH),
    "paths": Word("Paths relative to the output root.", [PATH]),
    "target": Word("Where it goes, relative to the output root.", PATH),
    "original_path": Word(
        "Where ComfyUI wrote it, relative to the output root.", "AnimateDiff_00001.mp4"
    ),
    "timestamp": Word("When it was organized: Unix seconds, as text.", "1770091506"),
    "created_at": Word("When it was organized or became known, ISO 8601 in UTC.", MOMENT, _TIME),
    "modified_at": Word(
        "The file's own modification time when it was organized, ISO 8601 in UTC.", MOMENT, _TIME
    ),
    "file_type": Word(
        "What the file is, by its extension.", "video", {"enum": [*map(str, FileType)]}
    ),
    "generation_type": Word(
        "What the job generated; for a picture beside a clip, the clip's type.",
        "video",
        {"enum": [*map(str, FileType)]},
    ),
    "file_extension": Word("Extension in lower case with the dot; may be empty.", ".mp4"),
    "media_type": Word("MIME type, by the content where that is recognized.", "video/mp4"),
    "file_size": Word("Bytes.", 1048576),
    "size": Word("Longer side of the thumbnail in pixels.", 256),
    "checksum": Word("SHA-256 of the bytes, 64 lower-case hex digits.", CHECKSUM),
    "evidence": Word(
        "The rule by which it was attributed.", "history", {"enum": [*map(str, Evidence)]}
    ),
    "same_file_as": Word(
        "The file_id of the record with which it shares its bytes.",
        null="Null where it shares none.",
    ),
    "width": Word("Pixels.", 1024, null=_UNKNOWN),
    "height": Word("Pixels.", 576, null=_UNKNOWN),
    "duration_s": Word("Seconds.", 5.0, null=_UNKNOWN),
    "missing": Word(
        "True for a file that has gone; the key is there only then.", True, {"const": True}
    ),
    # Jobs, projects and lists of them
    "files": Word("The records of the files.", ["AnimateDiff_00001.mp4"]),
    "organized_files": Word("The records of all files that the job now has."),
    "job_count": Word("How many jobs there are.", 1),
    "file_count": Word("How many files there are.", 1),
    "total_size": Word("Their bytes.", 1048576),
    "jobs": Word("The jobs.", [{"job_id": "clip_8", "files": ["AnimateDiff_00001.mp4"]}]),
    "projects": Word("The projects."),
    "pinned": Word("Whether nothing may delete the job.", True),
    "tags": Word("The job's tags.", ["hero"]),
    "runs": Word(
        "The job's runs as far as they are known.",
        [
            {
                "prompt_id": PROMPT_ID,
                "status": "success",
                "started_at": MOMENT,
                "finished_at": MOMENT,
                "error": None,
            }
        ],
    ),
    "reason": Word("Why.", "still_being_written"),
    "exact": Word("Whether the name stands for one thing.", True),
    "matches": Word("The records, oldest first; all candidates where it is not exact."),
    "status": Word("What became of the completion.", "completed"),
    "organize_error": Word("Only if the job is pending: why.", "The disk is full."),
    "organize_operation_id": Word(
        "Only if the job is pending: the id of the operation that will finish it.", OPERATION_ID
    ),
    "unavailable": Word(
        "The sources of evidence that could not be asked; there only if one could not.",
        ["history"],
    ),
    # What an operation did
    "found": Word("Everything that was looked at."),
    "moved": Word("What was moved."),
    "already_there": Word("What was there before."),
    "skipped": Word("What was left where it is, and why."),
    "failed": Word("What the system refused, and why."),
    "restored": Word("What came back."),
    "assigned": Word("What was given to the job."),
    "migrated": Word("What went to a job."),
    "moved_to_legacy": Word("What went to legacy/."),
    "left": Word("What stays where it is."),
    "moves": Word("What goes where."),
    "duplicates": Word("Files with the same bytes."),
    "file_types": Word("How many files there are of each type.", {"video": 1}),
    "deleted_files": Word("How many files were deleted.", 1),
    "deleted_jobs": Word("How many jobs were deleted.", 1),
    "deleted_bytes": Word("The bytes of what was deleted.", 1048576),
    "kept": Word("What stays, and why."),
    "kept_jobs": Word("How many jobs stay.", 0),
    "kept_files": Word("How many files stay.", 0),
    "kept_bytes": Word("The bytes of what stays.", 0),
    "bytes_trashed": Word("The bytes that rest in the trash now.", 1048576),
    "bytes_freed": Word("The bytes by which the volume has grown.", 0),
    "purged_jobs": Word("How many jobs were deleted for good.", 1),
    "purged_files": Word("How many files were deleted for good.", 0),
    "removed_directories": Word("How many folders were empty then, and were removed.", 1),
    "restorable_until": Word(
        "Until when it can be restored.", LATER, _TIME, null="Null where it cannot."
    ),
    "trashed_at": Word("When it was deleted.", MOMENT, _TIME),
    "expires_at": Word("Until when it can be carried out.", MOMENT, _TIME),
    "report": Word("What the operation has answered.", null="Null where that was not kept."),
    "undone": Word("What was undone."),
    "already_undone": Word("What had been undone before."),
    "beside": Word("What came back under another name, because its own was taken."),
    "advice": Word("What to do.", "Restore the job first."),
    "undoes": Word(
        "The operation that this one has undone.",
        OPERATION_ID,
        null="Null where it has undone none.",
    ),
    "undone_by": Word("The operation that has undone this one.", null="Null where none has."),
    "operations": Word("The operations, newest first."),
    "changes": Word(
        "What it changed, in order.",
        [
            {
                "file_id": FILE_ID,
                "job_id": "clip_8",
                "from": "AnimateDiff_00001.mp4",
                "to": PATH,
                "what": "moved",
            }
        ],
    ),
    "at": Word("When, ISO 8601 in UTC.", MOMENT, _TIME),
    "kind": Word("Of what kind it is.", "organize"),
    "events": Word("What happened, oldest first."),
    "what": Word("What happened.", "recorded"),
    "operation_kind": Word("The kind of the operation.", "organize"),
    "facts": Word("What the document says of it.", {"path": PATH}),
    # Trust
    "findings": Word(
        "In what respect document, index and files disagree.", [{"kind": "missing", "path": PATH}]
    ),
    "checked": Word("The recorded files that were compared."),
    "checked_files": Word("How many recorded files were looked for.", 64),
    "missing_files": Word("How many of them are not there.", 0),
    "is_complete": Word("Whether everything was looked at; else cursor says where to go on.", True),
    "repaired": Word("What was put right, and how."),
    "detail": Word("What is wrong, in words.", "it is not there: not_found"),
    "read_bytes": Word("Whether the bytes of all files are read and compared.", True),
    "max_seconds": Word("After how many seconds to stop.", 20),
    # Long work
    "tasks": Word("The work, newest first."),
    "state": Word("How it stands.", "ok"),
    "done": Word("How much is done.", 1),
    "total": Word("Of how much.", 2000000000000, null=_UNKNOWN),
    "arguments": Word("With what it was asked for.", {"dry_run": False}),
    "result": Word("The report.", null="Null until it has finished."),
    "error": Word("The problem with which it has ended.", null="Null where it has not."),
    "started_at": Word("When it began.", MOMENT, _TIME),
    "updated_at": Word("When it last said how far it is.", MOMENT, _TIME),
    # The library
    "total_files": Word("How many files there are.", 1),
    "total_size_mb": Word("The bytes of all files in units of 1024².", 1.0),
    "total_size_gb": Word("The bytes of all files in units of 1024³.", 0.0),
    "legacy": Word("What lies in legacy/ and belongs to no job."),
    "trash": Word("What rests in the trash."),
    "pending_jobs": Word("How many jobs wait to be organized.", 0),
    "disk": Word("The volume, in bytes.", null="Null when it cannot be asked."),
    "used": Word("Bytes that are used.", 1200000000000),
    "free": Word("Bytes that are free.", 800000000000),
    "health": Word("How the library is."),
    "messages": Word("Why, and what to do.", []),
    # Stamping
    "prompt": Word(
        "The workflow, in ComfyUI's API format.",
        {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "hero"}}},
    ),
    "extra_data": Word("What goes beside the workflow.", {"client_id": "anime_api"}),
    "unstamped": Word("The output nodes whose files will not lie in the inbox, and why."),
    # What only requests say
    "name": Word("Name of the file.", "docs.js"),
    "filename": Word("The name that ComfyUI gave the file.", "AnimateDiff_00001.mp4"),
    "subfolder": Word("The folder below the output root.", ""),
    "type": Word("ComfyUI's type of the file.", "output"),
    "download": Word("1 offers the file as a download, under its original name.", "1"),
    "permanent": Word("true deletes for good, past the trash.", "false"),
    "days": Word("How many days old a job may get.", 30),
    "allow": Word("What is refused otherwise.", ["large_share"]),
    "dry_run": Word("true rehearses: nothing is changed.", True),
    "recursive": Word("Whether folders are looked into.", False),
    "leave_unmatched": Word("Whether what belongs to no job stays where it is.", False),
    "group_by": Word("By what is put together that nothing else attributes.", "workflow"),
    "limit": Word("How many to answer at most.", 50),
    "sort": Word("What the list is sorted by; with - in front the other way round.", None),
    "project": Word("Only those of this project.", "tokyo_debt_series"),
    "job": Word("Only files of this job.", "clip_8"),
    "since": Word(
        "Only those of this time on: ISO 8601 with an offset or Z, or a date, which is its beginning in UTC.",
        MOMENT,
    ),
    "until": Word("Only those before this time, which is itself excluded.", LATER),
    "tag": Word("Only those of jobs with this tag.", "hero"),
    "min_size": Word("Only those of at least so many bytes.", 1048576),
    "q": Word(
        "Only those with this text in a name, an id or a tag, in any case of letters.", "clip"
    ),
}

NUMBERS: Final[Mapping[str, Word]] = {
    "files": Word("How many files.", 1),
    "bytes": Word("Their bytes.", 1048576, null="Null where bytes are not counted."),
    "jobs": Word("How many jobs.", 1),
    "projects": Word("How many projects.", 1),
    "found": Word("How many findings were given.", 1),
}
"""Keys that are numbers in some records, and something else in others."""

TEXTS: Final[Mapping[str, Mapping[str, str]]] = {
    "CleanupPlan": {"created_at": "When it was planned.", "report": "What it would do."},
    "DiskUsage": {"total": "Bytes that the volume has."},
    "JobRecord": {"reason": "Why it has no files, or fewer than it may yet get; null for most."},
    "KeptJobs": {"job_id": "Id of the job. Null for several that are kept for the same reason."},
    "UndoReport": {"undoes": "The operation that was undone.", "kind": "Its kind."},
    "VerifyReport": {"cursor": "By what to go on. Null where everything was looked at."},
}
"""What a key means in a record where it means something of its own."""

OPTIONAL: Final = frozenset(
    {"file_path", "missing", "unavailable", "organize_error", "organize_operation_id"}
)
"""Keys that are there only where there is something to say."""

_NOTHING: Final = {"files": 0, "bytes": 0}
_OWNED_BY_NOBODY: Final = {
    **dict.fromkeys(("job_id", "project_id", "prompt_id", "node_id")),
    "path": "legacy/AnimateDiff_00001.mp4",
    "file_path": "/srv/output/legacy/AnimateDiff_00001.mp4",
    "evidence": "none",
}

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "FileRecord": {"missing": ...},
    "LegacyFiles": {"files": _OWNED_BY_NOBODY},
    "OrganizeReport": {
        "already_there": _NOTHING,
        "skipped": [],
        "failed": [],
        "unavailable": ...,
    },
    "JobRecord": {"reason": None},
    "DeletionReport": {"skipped": [], "failed": []},
    "RestoreReport": {"already_there": _NOTHING, "skipped": [], "failed": []},
    "MigrationReport": {
        "moved_to_legacy": _NOTHING,
        "left": _NOTHING,
        "already_there": _NOTHING,
        "skipped": [],
        "failed": [],
        "duplicates": [],
        "dry_run": False,
    },
    "AssignReport": {"already_there": _NOTHING, "skipped": [], "failed": []},
    "PurgeReport": {"failed": [], "purged_files": 1, "bytes_freed": 1048576},
    "CleanupReport": {
        "kept": [],
        "skipped": [],
        "failed": [],
        "dry_run": False,
    },
    "DeletedJob": {"reason": "expired"},
    "RepairReport": {
        "repaired": {"detail": "recorded as missing"},
        "skipped": [],
        "failed": [],
        "dry_run": False,
    },
    "CleanupPlan": {
        "expires_at": "2026-02-04T04:05:06Z",
        "report": {"dry_run": True, "operation_id": None},
    },
    "Move": {"path": "AnimateDiff_00001.mp4"},
    "Finding": {"kind": "missing"},
    "VerifyReport": {"failed": []},
    "UndoReport": {
        "already_undone": _NOTHING,
        "skipped": [],
        "failed": [],
        "beside": [],
        "dry_run": False,
    },
    "OperationSummary": {"undoes": None},
    "OperationRecord": {"undoes": None},
    "TaskSummary": {"kind": "verify", "state": "running", "dry_run": False, "total": 2},
    "TaskRecord": {"kind": "verify", "state": "running", "dry_run": False, "total": 2},
    "StampedPrompt": {
        "prompt": {
            "9": {
                "class_type": "SaveImage",
                "inputs": {"filename_prefix": "inbox/clip_8/5f0c2a9d/hero"},
            }
        },
        "unstamped": [],
    },
    "CompletedJob": {"organize_error": ..., "organize_operation_id": ...},
}
"""What the example of a record says besides, so that its numbers add up.

A mapping is what a record in it says besides; ``...`` leaves the key out.
"""
