"""``FileManagerAPI``: the library's operations as JSON-ready dicts, for any web framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from flask_comfy_files.core.cleanup import Progress
from flask_comfy_files.core.manager import FileManager
from flask_comfy_files.core.migration import Progress as MigrationProgress
from flask_comfy_files.core.records import FileRecord, file_to_dict

Json = dict[str, Any]


class FileManagerAPI:
    """One method for each endpoint; each answers a dict that ``json.dumps`` takes.

    They raise what the manager raises. The keys are those of ``docs/reference/http.md``; ``file_path``
    is left out when the setting ``SHOW_PATHS`` is false.
    """

    def __init__(self, manager: FileManager | None = None) -> None:
        """Work on a manager; without one, on that of the default settings."""
        self.manager = FileManager() if manager is None else manager
        self._hidden = frozenset() if self.manager.settings.show_paths else frozenset({"file_path"})

    def organize_job_files(
        self,
        job_id: str,
        project_id: str | None = None,
        *,
        prompt_id: str | None = None,
        files: Iterable[Any] | None = None,
    ) -> Json:
        """Organize a job's files; see ``FileManager.organize_output``."""
        return self._as_json(
            self.manager.organize_output(job_id, project_id, prompt_id=prompt_id, files=files)
        )

    def complete_job_api(
        self,
        job_id: str,
        project_id: str | None = None,
        *,
        prompt_id: str | None = None,
        files: Iterable[Any] | None = None,
    ) -> Json:
        """Organize a completed job, or remember it; see ``FileManager.complete_job``.

        Answers ``organized_files`` and ``file_count``, and where it is not finished
        ``organize_error`` and ``organize_operation_id``.
        """
        report = self.manager.complete_job(job_id, project_id, prompt_id=prompt_id, files=files)
        answer = self._as_json(report)
        is_finished = report.organize_error is None
        left_out = {"job_id", "project_id"} | (
            {"organize_error", "organize_operation_id"} if is_finished else set()
        )
        return {key: value for key, value in answer.items() if key not in left_out}

    def retry_pending_jobs_api(self) -> Json:
        """Organize the jobs that are pending; see ``FileManager.retry_pending_jobs``."""
        return self._as_json(self.manager.retry_pending_jobs())

    def get_job_files_api(
        self, job_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Json:
        """Return a job with its files, all or a page of them; see ``FileManager.get_job_files``."""
        return self._as_json(self.manager.get_job_files(job_id, limit=limit, cursor=cursor))

    def get_project_files_api(
        self, project_id: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Json:
        """Return a project with its files, all or a page of them; see ``FileManager.get_project_files``."""
        return self._as_json(self.manager.get_project_files(project_id, limit=limit, cursor=cursor))

    def list_files_api(self, **asked: Any) -> Json:
        """Return a page of files; the keywords are those of ``FileManager.list_files``."""
        return self._as_json(self.manager.list_files(**asked))

    def list_jobs_api(self, **asked: Any) -> Json:
        """Return a page of jobs; the keywords are those of ``FileManager.list_jobs``."""
        return self._as_json(self.manager.list_jobs(**asked))

    def list_projects_api(self, **asked: Any) -> Json:
        """Return a page of projects; the keywords are those of ``FileManager.list_projects``."""
        return self._as_json(self.manager.list_projects(**asked))

    def get_file_api(self, file_id_or_path: str) -> Json:
        """Return one file's record."""
        return self._as_json(self.manager.get_file_metadata(file_id_or_path))

    def update_job_api(
        self, job_id: str, *, pinned: bool | None = None, tags: Iterable[str] | None = None
    ) -> Json:
        """Set a job's pin or tags; see ``FileManager.update_job``."""
        return self._as_json(self.manager.update_job(job_id, pinned=pinned, tags=tags))

    def delete_job_files_api(self, job_id: str) -> Json:
        """Move a job into the trash; see ``FileManager.delete_job_files``."""
        return self._as_json(self.manager.delete_job_files(job_id))

    def destroy_job_files_api(self, job_id: str) -> Json:
        """Delete a job for good; see ``FileManager.destroy_job_files``."""
        return self._as_json(self.manager.destroy_job_files(job_id))

    def restore_job_files_api(self, job_id: str) -> Json:
        """Bring a job back from the trash; see ``FileManager.restore_job_files``."""
        return self._as_json(self.manager.restore_job_files(job_id))

    def get_trash_api(self) -> Json:
        """Return the deleted jobs that can be restored."""
        return self._as_json(self.manager.get_trash())

    def empty_trash_api(self) -> Json:
        """Delete everything in the trash for good."""
        return self._as_json(self.manager.empty_trash())

    def cleanup_old_files_api(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> Json:
        """Delete what has expired; see ``FileManager.cleanup_old_files``."""
        return self._as_json(
            self.manager.cleanup_old_files(days, allow=allow, on_progress=on_progress)
        )

    def plan_cleanup_api(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> Json:
        """Return what a cleanup would do now; nothing is changed."""
        return self._as_json(self.manager.plan_cleanup(days, allow=allow, on_progress=on_progress))

    def save_cleanup_plan_api(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> Json:
        """Rehearse a cleanup and keep it as a plan; see ``FileManager.save_cleanup_plan``."""
        plan = self.manager.save_cleanup_plan(days, allow=allow, on_progress=on_progress)
        return self._as_json(plan)

    def apply_cleanup_plan_api(self, plan_id: str, *, on_progress: Progress | None = None) -> Json:
        """Carry a plan out; see ``FileManager.apply_cleanup_plan``."""
        return self._as_json(self.manager.apply_cleanup_plan(plan_id, on_progress=on_progress))

    def migrate_legacy_files_api(
        self,
        *,
        recursive: bool = False,
        jobs: Any = None,
        group_by: str | None = None,
        leave_unmatched: bool = False,
        on_progress: MigrationProgress | None = None,
    ) -> Json:
        """Migrate what lies about from before; see ``FileManager.migrate_legacy_files``."""
        report = self.manager.migrate_legacy_files(
            recursive=recursive,
            jobs=jobs,
            group_by=group_by,
            leave_unmatched=leave_unmatched,
            on_progress=on_progress,
        )
        return self._as_json(report)

    def plan_migration_api(
        self,
        *,
        recursive: bool = False,
        jobs: Any = None,
        group_by: str | None = None,
        leave_unmatched: bool = False,
        on_progress: MigrationProgress | None = None,
    ) -> Json:
        """Return what a migration would do now; nothing is changed."""
        report = self.manager.plan_migration(
            recursive=recursive,
            jobs=jobs,
            group_by=group_by,
            leave_unmatched=leave_unmatched,
            on_progress=on_progress,
        )
        return self._as_json(report)

    def get_legacy_files_api(self) -> Json:
        """Return the files that belong to no job."""
        return self._as_json(self.manager.get_legacy_files())

    def assign_legacy_files_api(
        self, files: Iterable[str], job_id: str, project_id: str | None = None
    ) -> Json:
        """Give files that belong to no job to one; see ``FileManager.assign_legacy_files``."""
        return self._as_json(self.manager.assign_legacy_files(files, job_id, project_id))

    def adopt_library_api(self) -> Json:
        """Say that what is there is right; see ``FileManager.adopt_library``."""
        return self._as_json(self.manager.adopt_library())

    def compact_document_api(self) -> Json | None:
        """Write the document anew; see ``FileManager.compact_document``."""
        report = self.manager.compact_document()
        return None if report is None else self._as_json(report)

    def get_file_history_api(self, key: str) -> Json:
        """Return what happened to a file; see ``FileManager.get_file_history``."""
        return self._as_json(self.manager.get_file_history(key))

    def export_records_api(self) -> Iterator[Json]:
        """Yield every record, with ``pinned`` and ``tags`` of its job; see ``FileManager.export_records``."""
        for record in self.manager.export_records():
            yield {key: value for key, value in record.items() if key not in self._hidden}

    def import_records_api(self, source: Any = None, *, dry_run: bool = False) -> Json:
        """Take over files by their older records; see ``FileManager.import_records``."""
        return self._as_json(self.manager.import_records(source, dry_run=dry_run))

    def get_operations_api(
        self, *, kind: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Json:
        """Return operations, newest first; see ``FileManager.get_operations``."""
        return self._as_json(self.manager.get_operations(kind=kind, limit=limit, cursor=cursor))

    def get_operation_api(
        self, operation_id: str, *, limit: int = 1000, cursor: str | None = None
    ) -> Json:
        """Return an operation with what it changed; see ``FileManager.get_operation``."""
        return self._as_json(self.manager.get_operation(operation_id, limit=limit, cursor=cursor))

    def plan_undo_api(
        self, operation_id: str, *, on_progress: MigrationProgress | None = None
    ) -> Json:
        """Return what undoing an operation would do now; nothing is changed."""
        return self._as_json(self.manager.plan_undo(operation_id, on_progress=on_progress))

    def undo_operation_api(
        self, operation_id: str, *, on_progress: MigrationProgress | None = None
    ) -> Json:
        """Undo an operation; see ``FileManager.undo_operation``."""
        return self._as_json(self.manager.undo_operation(operation_id, on_progress=on_progress))

    def get_tasks_api(self) -> Json:
        """Return the long work of the last days, newest first; see ``FileManager.get_tasks``."""
        return self._as_json(self.manager.get_tasks())

    def get_task_api(self, task_id: str) -> Json:
        """Return how it stands with long work; see ``FileManager.get_task``."""
        return self._as_json(self.manager.get_task(task_id))

    def cancel_task_api(self, task_id: str) -> Json:
        """Ask long work to stop; see ``FileManager.cancel_task``."""
        return self._as_json(self.manager.cancel_task(task_id))

    def verify_files_api(
        self,
        *,
        read_bytes: bool = False,
        max_seconds: float | None = None,
        cursor: str | None = None,
        on_progress: MigrationProgress | None = None,
    ) -> Json:
        """Compare document, index and files; see ``FileManager.verify_files``."""
        report = self.manager.verify_files(
            read_bytes=read_bytes, max_seconds=max_seconds, cursor=cursor, on_progress=on_progress
        )
        return self._as_json(report)

    def repair_files_api(
        self, findings: Iterable[Mapping[str, Any]], *, on_progress: Progress | None = None
    ) -> Json:
        """Put right what was found; see ``FileManager.repair_files``."""
        return self._as_json(self.manager.repair_files(findings, on_progress=on_progress))

    def plan_repair_api(
        self, findings: Iterable[Mapping[str, Any]], *, on_progress: Progress | None = None
    ) -> Json:
        """Return what a repair would do now; nothing is changed."""
        return self._as_json(self.manager.plan_repair(findings, on_progress=on_progress))

    def stamp_prompt_api(
        self,
        prompt: Json,
        *,
        job_id: str,
        project_id: str | None = None,
        extra_data: Json | None = None,
    ) -> Json:
        """Return a workflow that writes into the job's inbox; see ``FileManager.stamp_prompt``."""
        return self._as_json(
            self.manager.stamp_prompt(
                prompt, job_id=job_id, project_id=project_id, extra_data=extra_data
            )
        )

    def resolve_name_api(
        self,
        filename: str,
        *,
        subfolder: str = "",
        comfyui_type: str = "output",
        prompt_id: str | None = None,
    ) -> Json:
        """Return the records of the files that ComfyUI wrote under a name."""
        return self._as_json(
            self.manager.resolve_name(
                filename, subfolder=subfolder, comfyui_type=comfyui_type, prompt_id=prompt_id
            )
        )

    def get_health_api(self) -> Json:
        """Return whether the library works, and nothing that only its users may know."""
        return {"state": self.manager.get_health().state}

    def get_system_status_api(self) -> Json:
        """Return the library in numbers, and how it is."""
        return self._as_json(self.manager.get_system_stats())

    def _as_json(self, record: object) -> Json:
        answer: Json = self._plain(record)
        return answer

    def _plain(self, value: Any) -> Any:
        if isinstance(value, FileRecord):
            as_dict = file_to_dict(value)
            for key in self._hidden:
                del as_dict[key]
            return as_dict
        if is_dataclass(value):
            named = ((entry.name, getattr(value, entry.name)) for entry in fields(value))
            # What is said only where there is something to say.
            return {
                name: self._plain(part) for name, part in named if part or name != "unavailable"
            }
        if isinstance(value, Mapping):
            return {key: self._plain(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return [self._plain(part) for part in value]
        return value
