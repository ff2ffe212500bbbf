from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManagerAPI
from flask_comfy_files.core.errors import ComfyFilesError
from tests.conftest import MakeTree, OpenManager
from tests.trees import Clock, recording

FILE_KEYS = [
    *("file_id", "file_path", "path", "job_id", "project_id", "timestamp", "created_at"),
    *("file_type", "file_extension", "media_type", "generation_type", "file_size", "modified_at"),
    *("checksum", "original_path", "evidence", "same_file_as", "prompt_id", "node_id"),
    *("width", "height", "duration_s"),
]
ORGANIZE_KEYS = {
    *("job_id", "project_id", "organized_files", "file_count", "found", "moved"),
    *("already_there", "skipped", "failed", "operation_id"),
}
JOB_KEYS = {
    *("job_id", "project_id", "files", "file_count", "total_size", "created_at"),
    *("pinned", "tags", "runs", "reason"),
}
PROJECT_KEYS = {"project_id", "jobs", "files", "file_count", "total_size"}
DELETION_KEYS = {
    *("job_id", "project_id", "deleted_files", "bytes_trashed", "bytes_freed"),
    *("removed_directories", "skipped", "failed", "restorable_until", "operation_id"),
}
RESTORE_KEYS = {
    *("job_id", "project_id", "files", "file_count", "found", "restored", "already_there"),
    *("skipped", "failed", "operation_id"),
}
CLEANUP_KEYS = {
    *("days", "found", "deleted_files", "bytes_trashed", "bytes_freed", "purged_files"),
    *("removed_directories", "kept", "skipped", "failed", "jobs", "projects", "dry_run"),
    "operation_id",
}
PLAN_KEYS = {"plan_id", "created_at", "expires_at", "report"}
TRASH_KEYS = {"jobs", "files", "bytes"}
PURGE_KEYS = {"purged_jobs", "purged_files", "bytes_freed", "failed", "operation_id"}
STATUS_KEYS = {
    *("total_files", "total_size", "total_size_mb", "total_size_gb", "projects", "jobs"),
    *("file_types", "legacy", "trash", "pending_jobs", "disk", "health"),
}


@pytest.fixture
def api(output_root: Path, open_manager: OpenManager) -> FileManagerAPI:
    return FileManagerAPI(open_manager(output_root))


def as_seen_by_a_client(answer: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    assert seen == answer, "it is not plain JSON"
    return seen


def test_organizing_answers_what_the_contract_says(api: FileManagerAPI, output_root: Path) -> None:
    answer = as_seen_by_a_client(
        api.organize_job_files("batch", "tokyo", files=["batch_00001_.png", "gone.png"])
    )
    assert answer.keys() >= ORGANIZE_KEYS
    (record,) = answer["organized_files"]
    assert list(record) == FILE_KEYS
    assert record["file_path"] == str(output_root / record["path"])
    size = record["file_size"]
    assert answer["found"] == {"files": 2, "bytes": size}
    assert answer["moved"] == {"files": 1, "bytes": size}
    assert answer["already_there"] == {"files": 0, "bytes": 0}
    assert answer["skipped"] == [{"path": "gone.png", "reason": "not_found", "bytes": 0}]
    assert answer["failed"] == []


def test_reading_answers_what_the_contract_says(api: FileManagerAPI) -> None:
    organized = api.organize_job_files("batch", "tokyo")
    job = as_seen_by_a_client(api.get_job_files_api("batch"))
    assert job.keys() >= JOB_KEYS
    assert job["files"] == organized["organized_files"]
    assert (job["pinned"], job["tags"], job["reason"]) == (False, [], None)
    project = as_seen_by_a_client(api.get_project_files_api("tokyo"))
    assert project.keys() >= PROJECT_KEYS
    assert project["files"] == job["files"]
    assert project["jobs"] == [
        {key: job[key] for key in ("job_id", "file_count", "total_size", "created_at")}
    ]
    for record in job["files"]:
        assert as_seen_by_a_client(api.get_file_api(record["file_id"])) == record


def test_the_status_answers_what_the_contract_says(api: FileManagerAPI) -> None:
    api.organize_job_files("loop")
    status = as_seen_by_a_client(api.get_system_status_api())
    assert status.keys() >= STATUS_KEYS
    assert status["file_types"] == {"gif": 1, "image": 1}
    assert status["legacy"] == status["trash"] == {"files": 0, "bytes": 0}
    assert status["disk"].keys() == {"total", "used", "free"}
    assert status["health"] == {"state": "ok", "messages": []}


def test_completing_answers_files_and_an_error_only_where_there_is_one(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    png = recording("batch_00001_.png")
    api = FileManagerAPI(open_manager(make_tree({"job_1.png": png, "job_2.png": png[:-12]})))
    done = as_seen_by_a_client(api.complete_job_api("job_1"))
    assert done.keys() == {"organized_files", "file_count"}
    assert (done["file_count"], list(done["organized_files"][0])) == (1, FILE_KEYS)
    waiting = as_seen_by_a_client(api.complete_job_api("job_2"))
    assert waiting["organize_error"] == "still_being_written"
    assert len(waiting["organize_operation_id"]) == 32
    assert (waiting["file_count"], waiting["organized_files"]) == (0, [])
    retried = as_seen_by_a_client(api.retry_pending_jobs_api())
    assert [job["job_id"] for job in retried["still_pending"]] == ["job_2"]


def test_marking_deleting_and_restoring_answer_what_the_contract_says(api: FileManagerAPI) -> None:
    organized = api.organize_job_files("batch", "tokyo")
    marked = as_seen_by_a_client(api.update_job_api("batch", pinned=True, tags=["best"]))
    assert marked.keys() >= JOB_KEYS
    assert (marked["pinned"], marked["tags"]) == (True, ["best"])
    api.update_job_api("batch", pinned=False)
    deleted = as_seen_by_a_client(api.delete_job_files_api("batch"))
    assert deleted.keys() == DELETION_KEYS
    assert (deleted["deleted_files"], deleted["bytes_freed"]) == (4, 0)
    assert deleted["restorable_until"].endswith("Z")
    trash = as_seen_by_a_client(api.get_trash_api())
    assert trash.keys() == TRASH_KEYS
    assert [job["operation_id"] for job in trash["jobs"]] == [deleted["operation_id"]]
    restored = as_seen_by_a_client(api.restore_job_files_api("batch"))
    assert restored.keys() == RESTORE_KEYS
    assert restored["files"] == organized["organized_files"]
    assert restored["restored"] == organized["found"]
    gone = as_seen_by_a_client(api.destroy_job_files_api("batch"))
    assert gone.keys() == DELETION_KEYS
    assert (gone["bytes_trashed"], gone["restorable_until"]) == (0, None)
    assert gone["bytes_freed"] == organized["found"]["bytes"]


def test_cleaning_up_answers_what_the_contract_says(api: FileManagerAPI, clock: Clock) -> None:
    size = api.organize_job_files("batch", "tokyo")["found"]["bytes"]
    clock.advance(24 * 3600)
    planned = as_seen_by_a_client(api.save_cleanup_plan_api(0))
    assert planned.keys() == PLAN_KEYS
    rehearsed = as_seen_by_a_client(api.plan_cleanup_api(0))
    assert rehearsed == planned["report"]
    assert rehearsed.keys() == CLEANUP_KEYS
    assert (rehearsed["deleted_files"], rehearsed["dry_run"]) == (4, True)
    assert as_seen_by_a_client(api.cleanup_old_files_api())["deleted_files"] == 0
    steps: list[tuple[int, int]] = []
    done = as_seen_by_a_client(
        api.apply_cleanup_plan_api(planned["plan_id"], on_progress=lambda *step: steps.append(step))
    )
    assert done == {**rehearsed, "dry_run": False, "operation_id": planned["plan_id"]}
    assert (steps[0], steps[-1]) == ((0, 1), (1, 1))
    assert api.get_system_status_api()["trash"] == {"files": 4, "bytes": size}
    purged = as_seen_by_a_client(api.empty_trash_api())
    assert purged.keys() == PURGE_KEYS
    assert (purged["purged_files"], purged["bytes_freed"]) == (4, size)


def test_paths_of_the_server_are_left_out_where_the_setting_says_so(
    output_root: Path, open_manager: OpenManager
) -> None:
    api = FileManagerAPI(open_manager(output_root, show_paths=False))
    answers = [
        api.organize_job_files("mix"),
        api.update_job_api("mix", tags=["best"]),
        api.save_cleanup_plan_api(0),
        api.delete_job_files_api("mix"),
        api.get_trash_api(),
        api.restore_job_files_api("mix"),
        api.organize_job_files("batch"),
        api.complete_job_api("loop"),
        api.get_job_files_api("batch"),
        api.get_project_files_api("default"),
        api.get_file_api(api.get_job_files_api("batch")["files"][0]["file_id"]),
    ]
    assert "file_path" not in json.dumps(answers)
    assert str(output_root) not in json.dumps(answers)
    assert list(answers[-1]) == [key for key in FILE_KEYS if key != "file_path"]


def test_a_name_that_is_not_utf_8_can_be_answered(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1_x\udcff.txt": b"x", "job_1_\udcfe.txt": b"x"})
    answer = as_seen_by_a_client(FileManagerAPI(open_manager(root)).organize_job_files("job_1"))
    assert [record["original_path"] for record in answer["organized_files"]] == [
        "job_1_x\udcff.txt"
    ]
    assert [left["path"] for left in answer["skipped"]] == ["job_1_\udcfe.txt"]


def test_what_the_manager_refuses_the_api_refuses(api: FileManagerAPI) -> None:
    calls: list[Callable[[], object]] = [
        lambda: api.get_job_files_api("nobody"),
        lambda: api.get_project_files_api("nobody"),
        lambda: api.get_file_api("nothing"),
        lambda: api.organize_job_files("../x"),
        lambda: api.complete_job_api("x", files=["/etc/passwd"]),
        lambda: api.update_job_api("nobody", pinned=True),
        lambda: api.delete_job_files_api("nobody"),
        lambda: api.destroy_job_files_api(".."),
        lambda: api.restore_job_files_api("nobody"),
        lambda: api.cleanup_old_files_api(-1),
        lambda: api.plan_cleanup_api(36_501),
        lambda: api.save_cleanup_plan_api(allow=["everything"]),
        lambda: api.apply_cleanup_plan_api("none"),
    ]
    for call in calls:
        with pytest.raises(ComfyFilesError):
            call()


def test_without_a_manager_the_default_settings_are_used(
    output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_FILES_OUTPUT_DIR", str(output_root))
    api = FileManagerAPI()
    assert api.organize_job_files("batch")["file_count"] == 4
    api.manager.close()
