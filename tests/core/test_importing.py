from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager, FileManagerAPI
from flask_comfy_files.core import carrying, durable, importing, lock
from flask_comfy_files.core.errors import (
    InvalidInputError,
    LibraryUnavailableError,
    MigrationRunningError,
    OlderInstallationError,
    OutOfSpaceError,
)
from flask_comfy_files.core.layout import DOCUMENT, IMPORT, MIGRATION_LOCK, STATE
from flask_comfy_files.core.records import LeftFile, Tally
from flask_comfy_files.core.transfer import ImportReport
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound, changes_of
from tests.trees import (
    AN_HOUR_AGO,
    BATCH,
    NOW,
    Clock,
    Link,
    library,
    outputs,
    read_tree,
    recording,
    write_tree,
)

PICTURE = recording(BATCH[0])
SHA = hashlib.sha256(PICTURE).hexdigest()
THEN = "2025-11-06T05:13:30Z"
STAMP = "1762406010"
OLD_ID = "0123456789abcdef0123456789abcdef"
PLACE = "projects/tokyo/job_1/job_1_1762406010_image.png"
LIST = f"{DOCUMENT}.imported-20260203T040506Z"

RECORD: dict[str, Any] = {
    "file_id": OLD_ID,
    "job_id": "job_1",
    "project_id": "tokyo",
    "timestamp": STAMP,
    "created_at": THEN,
    "file_type": "image",
    "file_extension": ".png",
    "generation_type": "video",
    "file_size": len(PICTURE),
    "checksum": SHA,
    "original_path": "kai_00001_.png",
}


def record(root: Path, path: str = PLACE, **facts: Any) -> dict[str, Any]:
    """Return a record as an older installation wrote them: with absolute paths."""
    return {**RECORD, "file_path": str(root / path), **facts}


def reasons(left: Iterable[LeftFile]) -> dict[str, str]:
    return {entry.path: str(entry.reason) for entry in left}


def assert_reconciles(report: ImportReport) -> None:
    """Check that a report accounts for everything it was given, in files and in bytes."""
    tallies = [report.adopted, report.moved, report.moved_to_legacy, report.already_there]
    tallies += [Tally(files=1, bytes=left.bytes) for left in (*report.skipped, *report.failed)]
    assert report.found == Tally(
        files=sum(tally.files for tally in tallies), bytes=sum(tally.bytes for tally in tallies)
    )


def done(report: ImportReport) -> tuple[int, int, int, int]:
    """Return what became of the files of a report that adds up and left none."""
    assert_reconciles(report)
    assert (report.skipped, report.failed) == ((), ())
    tallies = report.adopted, report.moved, report.moved_to_legacy, report.already_there
    adopted, moved, legacy, known = (tally.files for tally in tallies)
    return adopted, moved, legacy, known


def exported(manager: FileManager) -> list[dict[str, Any]]:
    """Return what a library exports, without what depends on where it lies."""
    return [
        {key: value for key, value in entry.items() if key != "file_path"}
        for entry in manager.export_records()
    ]


@pytest.fixture
def root(make_tree: MakeTree) -> Path:
    return make_tree({PLACE: PICTURE})


@pytest.fixture
def manager(root: Path, open_manager: OpenManager) -> FileManager:
    return open_manager(root)


# An export goes back in.


@pytest.fixture
def full(make_tree: MakeTree, open_manager: OpenManager, clock: Clock) -> FileManager:
    """Return a library in which everything occurs that an export can hold."""
    names = [*BATCH, "mix_00001_.png", "pv_00001_.png", "AnimateDiff_00001.mp4"]
    strange = os.fsdecode(b"\xff\xfe.txt")
    manager = open_manager(
        make_tree({**{name: recording(name) for name in names}, strange: b"text"})
    )
    manager.organize_output("batch", "tokyo", files=BATCH[:2])
    clock.advance(60.5)
    manager.organize_output("mix", "osaka")
    manager.organize_output("batch", files=BATCH[2:])
    manager.organize_output("pv")
    manager.migrate_legacy_files()
    manager.update_job("batch", pinned=True, tags=["hero", "wide shot"])
    manager.update_job("mix", tags=["draft"])
    return manager


def test_an_export_gives_the_same_library_in_another_place(
    full: FileManager, tmp_path: Path, open_manager: OpenManager, clock: Clock
) -> None:
    there = tmp_path / "elsewhere"
    tree = outputs(tmp_path / "output")
    shutil.copytree(
        tmp_path / "output", there, ignore=shutil.ignore_patterns(DOCUMENT, ".comfy_files")
    )
    backup = tmp_path / "backup.json"
    backup.write_text(json.dumps(list(full.export_records())))
    clock.advance(86_400)
    manager = open_manager(there)
    report = manager.import_records(backup)
    assert done(report) == (8, 0, 0, 0)
    assert (report.jobs, report.changed) == (3, ())
    assert outputs(there) == tree
    by_id = {entry["file_id"]: entry for entry in exported(full)}
    assert {entry["file_id"]: entry for entry in exported(manager)} == by_id
    for job_id in ("batch", "mix", "pv"):
        ours, theirs = manager.get_job_files(job_id), full.get_job_files(job_id)
        assert (ours.pinned, ours.tags) == (theirs.pinned, theirs.tags)
        assert (ours.created_at, ours.project_id) == (theirs.created_at, theirs.project_id)
        assert [file.file_id for file in ours] == [file.file_id for file in theirs]
    assert_sound(there)
    before = library(there)
    assert done(manager.import_records(backup)) == (0, 0, 0, 8)
    assert {key: before[key] for key in before if key != IMPORT} == library(there)


def test_an_import_in_many_batches_is_the_same(
    full: FileManager,
    tmp_path: Path,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importing, "RECORDS_AT_ONCE", 1)
    there = tmp_path / "elsewhere"
    shutil.copytree(
        tmp_path / "output", there, ignore=shutil.ignore_patterns(DOCUMENT, ".comfy_files")
    )
    manager = open_manager(there)
    assert done(manager.import_records(list(full.export_records()))) == (8, 0, 0, 0)
    assert exported(manager) == exported(full)
    operations = {change["operation"]["id"] for change in changes_of(there)}
    assert len(operations) == 1
    assert {change["operation"]["kind"] for change in changes_of(there)} == {"import"}


def test_shared_bytes_stay_shared_where_both_files_come(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    second = "projects/tokyo/job_2/job_2_1762406010_image.png"
    third = "projects/tokyo/job_2/job_2_1762406010_image_2.png"
    make_tree({second: PICTURE, third: PICTURE})
    shared = {"job_id": "job_2", "evidence": "cached"}
    manager.import_records(
        [
            {**record(root), "file_path": None, "path": PLACE},
            record(root, second, **shared, file_id="1" * 32, same_file_as=OLD_ID),
            record(root, third, **shared, file_id="2" * 32, same_file_as="9" * 32),
        ]
    )
    assert [file.same_file_as for file in manager.get_job_files("job_2")] == [OLD_ID, None]
    assert_sound(root)


# An older installation's records.


def test_a_file_in_its_jobs_folder_stays_there_and_keeps_what_is_known_of_it(
    root: Path, manager: FileManager
) -> None:
    before = outputs(root)
    assert done(manager.import_records([record(root)])) == (1, 0, 0, 0)
    assert outputs(root) == before
    (file,) = manager.get_job_files("job_1")
    assert (file.file_id, file.path, file.original_path) == (OLD_ID, PLACE, "kai_00001_.png")
    assert (file.created_at, file.timestamp, file.project_id) == (THEN, STAMP, "tokyo")
    assert (file.checksum, file.file_size) == (SHA, len(PICTURE))
    assert (file.evidence, file.generation_type, file.media_type) == ("list", "video", "image/png")
    assert manager.get_job_files("job_1").created_at == THEN
    assert_sound(root)


@pytest.mark.parametrize(
    "key",
    [PLACE, "/absolute", OLD_ID, "anything"],
    ids=["path", "absolute", "id", "anything"],
)
def test_records_may_stand_in_an_object_by_path_or_id(
    root: Path, manager: FileManager, key: str
) -> None:
    said = record(root)
    if key in {PLACE, "/absolute"}:
        del said["file_path"]
    if key == OLD_ID:
        del said["file_id"]
    key = str(root / PLACE) if key == "/absolute" else key
    assert done(manager.import_records({key: said})) == (1, 0, 0, 0)
    assert manager.get_file_metadata(OLD_ID).path == PLACE


def test_a_file_elsewhere_goes_to_its_job_and_one_of_nobody_to_legacy(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({"organized/a/x.png": PICTURE + b"x", "b.txt": b"b", "c.txt": b"c"})
    report = manager.import_records(
        [
            record(root),
            record(root, "organized/a/x.png", file_id="1" * 32, checksum=None),
            {"file_path": str(root / "b.txt"), "job_id": "job_2", "timestamp": int(STAMP)},
            {"path": "c.txt"},
        ]
    )
    assert done(report) == (1, 2, 1, 0)
    moved = {
        "projects/tokyo/job_1/job_1_1762406010_image_2.png": PICTURE + b"x",
        "projects/default/job_2/job_2_1762406010_text.txt": b"b",
        "legacy/c.txt": b"c",
    }
    assert outputs(root) == {PLACE: PICTURE, "organized/a": None, **moved}
    files = {path: manager.get_file_metadata(path) for path in moved}
    assert [file.evidence for file in files.values()] == ["list", "list", "none"]
    assert [file.original_path for file in files.values()] == ["kai_00001_.png", "b.txt", "c.txt"]
    assert files["legacy/c.txt"].created_at == AN_HOUR_AGO.isoformat().replace("+00:00", "Z")
    assert_sound(root)
    assert_sound_again(root, manager)


def assert_sound_again(root: Path, manager: FileManager) -> None:
    """Import once more what was moved: nothing comes of it, though no file is where the list says."""
    before = outputs(root)
    report = manager.import_records(
        [
            record(root, "organized/a/x.png", file_id="1" * 32, checksum=None),
            {"file_path": str(root / "b.txt"), "job_id": "job_2", "timestamp": int(STAMP)},
            {"path": "c.txt"},
        ]
    )
    assert done(report) == (0, 0, 0, 3)
    assert outputs(root) == before


def test_a_new_file_under_the_name_of_one_that_was_moved_is_not_taken_for_it(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({"x.png": PICTURE + b"x"})
    source = [record(root, "x.png", checksum=None)]
    assert done(manager.import_records(source)) == (0, 1, 0, 0)
    make_tree({"x.png": PICTURE + b"another"})
    report = manager.import_records(source)
    assert reasons(report.skipped) == {"x.png": "name_reused"}
    assert (root / "x.png").read_bytes() == PICTURE + b"another"
    assert_reconciles(report)


def test_a_file_that_is_not_what_its_record_says_is_recorded_as_it_is_and_told(
    root: Path, manager: FileManager
) -> None:
    report = manager.import_records([record(root, checksum="f" * 64, file_size=1)])
    assert done(report) == (1, 0, 0, 0)
    (changed,) = report.changed
    assert (changed.path, changed.recorded_checksum, changed.checksum) == (PLACE, "f" * 64, SHA)
    assert manager.get_file_metadata(OLD_ID).checksum == SHA


def test_an_id_that_is_taken_or_none_is_replaced_by_one_that_stays_the_same(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    second = PLACE.replace("image", "image_2")
    third = PLACE.replace("image", "image_3")
    make_tree({second: PICTURE + b"2", third: PICTURE + b"3"})
    source = [
        record(root),
        record(root, second, checksum=None),
        record(root, third, checksum=None, file_id=17),
    ]
    assert done(manager.import_records(source)) == (3, 0, 0, 0)
    ids = [file.file_id for file in manager.get_job_files("job_1")]
    assert ids[0] == OLD_ID
    assert len(set(ids)) == 3
    assert done(manager.import_records(source)) == (0, 0, 0, 3)
    assert_sound(root)


def test_the_id_of_a_file_in_the_trash_is_not_given_away(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    manager.import_records([record(root)])
    manager.delete_job_files("job_1")
    make_tree({PLACE: PICTURE})
    assert done(manager.import_records([record(root)])) == (1, 0, 0, 0)
    assert manager.get_job_files("job_1").files[0].file_id != OLD_ID
    assert_sound(root)
    manager.restore_job_files("job_1")
    assert manager.get_job_files("job_1").file_count == 2
    assert_sound(root)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"created_at": "2025-11-06T06:13:30+01:00", "timestamp": "5"}, THEN),
        ({"created_at": "2025-11-06T09:13:30", "timestamp": STAMP}, THEN),
        ({"created_at": "2025-11-06T00:13:30", "timestamp": None}, THEN),
        ({"created_at": None, "timestamp": float(STAMP)}, THEN),
        ({"created_at": "yesterday", "timestamp": "nan"}, "2026-02-03T03:05:06Z"),
        ({"created_at": "0001-01-01T00:00:00", "timestamp": True}, "2026-02-03T03:05:06Z"),
        ({"created_at": 17, "timestamp": "9" * 30}, "2026-02-03T03:05:06Z"),
    ],
    ids=["zone", "naive and unix", "naive", "unix", "no times", "too early", "too late"],
)
def test_a_time_is_what_the_record_says_of_it(
    root: Path,
    manager: FileManager,
    facts: dict[str, Any],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A time without a zone is one of this machine, here New York's."""
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    try:
        manager.import_records([record(root, **facts)])
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    file = manager.get_file_metadata(OLD_ID)
    assert file.created_at == expected
    assert int(file.timestamp) == int(datetime.fromisoformat(expected).timestamp())


def test_a_record_without_a_job_is_of_that_of_its_folder(manager: FileManager) -> None:
    assert done(manager.import_records([{"path": PLACE}])) == (1, 0, 0, 0)
    assert manager.get_file_metadata(PLACE).job_id == "job_1"
    assert manager.get_job_files("job_1").project_id == "tokyo"


def test_marks_of_a_job_that_is_known_stay_as_they_are(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({BATCH[1]: recording(BATCH[1])})
    manager.organize_output("job_1", "tokyo", files=[BATCH[1]])
    manager.update_job("job_1", tags=["mine"])
    manager.import_records([record(root, pinned=True, tags=["theirs", 17, " x"])])
    job = manager.get_job_files("job_1")
    assert (job.file_count, job.pinned, job.tags) == (2, False, ("mine",))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("text", "invalid_input"),
        ({"job_id": "job_1"}, "invalid_input"),
        ({"path": PLACE, "job_id": "../x"}, "invalid_identifier"),
        ({"path": PLACE, "job_id": "a", "project_id": 17}, "invalid_identifier"),
        ({"path": "../x.png"}, "unsafe_path"),
        ({"path": 17}, "unsafe_path"),
        ({"file_path": "/elsewhere/x.png"}, "outside_library"),
        ({"file_path": "{root}/../x.png"}, "unsafe_path"),
        ({"path": "gone.png"}, "not_found"),
        ({"path": "link.png"}, "link"),
        ({"path": "folder"}, "directory"),
        ({"path": "folder/link/x.png"}, "not_found"),
        ({"path": ".comfy_files/lock"}, "reserved"),
        ({"path": "new.npz"}, "still_being_written"),
    ],
    ids=str,
)
def test_a_record_of_no_use_is_skipped_with_the_reason(
    root: Path,
    manager: FileManager,
    make_tree: MakeTree,
    said: Any,
    reason: str,
) -> None:
    make_tree({"link.png": Link(PLACE), "folder/a.txt": b"a", "folder/link": Link("../projects")})
    make_tree({"new.npz": b"x"}, NOW)
    if isinstance(said, dict) and "file_path" in said:
        said = {"file_path": said["file_path"].replace("{root}", str(root))}
    before = outputs(root)
    report = manager.import_records([said, record(root)])
    assert_reconciles(report)
    assert [str(left.reason) for left in report.skipped] == [reason]
    assert (report.adopted.files, report.failed) == (1, ())
    assert outputs(root) == before


def test_a_file_of_another_job_and_a_job_of_another_project_are_left(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({"x.png": PICTURE + b"x"})
    manager.import_records([record(root)])
    report = manager.import_records(
        [
            record(root, job_id="job_2"),
            record(root, "x.png", file_id=None, project_id="osaka"),
            record(root, "x.png", file_id=None, job_id="JOB_1"),
        ]
    )
    assert_reconciles(report)
    assert reasons(report.skipped) == {PLACE: "belongs_to_another_job"}
    assert reasons(report.failed) == {"x.png": "job_in_other_project"}
    assert (root / "x.png").is_file()


def test_a_file_that_cannot_be_moved_is_told_and_has_no_record(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({"x.png": PICTURE + b"x", "projects/osaka": b"no folder"})
    other = record(root, "x.png", job_id="job_2", project_id="osaka", file_id=None)
    report = manager.import_records([other, record(root)])
    assert_reconciles(report)
    assert list(reasons(report.failed)) == ["x.png"]
    assert (root / "x.png").is_file()
    assert manager.get_system_stats().total_files == 1


@pytest.mark.parametrize(
    "source",
    [17, "x" * 5000, {}, [], {"files": [1]}, ["a"], {"changes": [], "format": 1}, b"[]"],
    ids=lambda source: str(source)[:20],
)
def test_what_is_no_list_of_records_is_refused_and_nothing_is_changed(
    root: Path, manager: FileManager, source: Any
) -> None:
    if source in ({}, []):
        assert manager.import_records(source).found.files == 0
        return
    with pytest.raises(InvalidInputError):
        manager.import_records(source)
    assert read_tree(root) == {PLACE: PICTURE}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000], ids=lambda c: str(c[:5]))
def test_a_file_that_is_no_json_is_refused_and_nothing_is_changed(
    root: Path, manager: FileManager, tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "list.json"
    source.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is no JSON"):
        manager.import_records(source)
    assert read_tree(root) == {PLACE: PICTURE}


def test_a_rehearsal_says_the_same_and_changes_nothing(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    make_tree({"x.png": PICTURE + b"x", "c.txt": b"c"})
    source = [
        record(root, checksum="f" * 64),
        record(root, "x.png", file_id="1" * 32, checksum=None),
        {"path": "c.txt"},
        {"path": "gone.png"},
        {"path": PLACE},
    ]
    before = read_tree(root)
    api = FileManagerAPI(manager)
    told = api.import_records_api(source, dry_run=True)
    assert read_tree(root) == before
    did = api.import_records_api(source)
    assert (told.pop("dry_run"), did.pop("dry_run")) == (True, False)
    assert told.pop("operation_id") is None
    assert len(did.pop("operation_id")) == 32
    assert told == did
    assert json.dumps(did)
    counts = {key: did[key]["files"] for key in ("adopted", "moved", "moved_to_legacy")}
    assert counts == {"adopted": 1, "moved": 1, "moved_to_legacy": 1}
    assert did["already_there"]["files"] == 1


def test_without_room_for_the_records_nothing_is_begun(
    root: Path, open_manager: OpenManager
) -> None:
    with pytest.raises(OutOfSpaceError):
        open_manager(root, min_free_bytes=10**18).import_records([record(root)])
    assert read_tree(root) == {PLACE: PICTURE}


def test_a_path_that_leads_over_a_link_to_the_root_is_below_it(
    root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    (tmp_path / "link").symlink_to(root)
    manager = open_manager(tmp_path / "link")
    assert done(manager.import_records([record(root)])) == (1, 0, 0, 0)
    assert done(manager.import_records([record(tmp_path / "link")])) == (0, 0, 0, 1)


# The list of an older installation in the place of our document.


@pytest.fixture
def older(root: Path, make_tree: MakeTree) -> bytes:
    """Put the list of an older installation into the output root, and return it."""
    content = json.dumps({OLD_ID: record(root)}, indent=2).encode()
    make_tree({DOCUMENT: content})
    return content


def test_an_older_installations_list_is_said_to_be_one_and_is_not_touched(
    root: Path, manager: FileManager, older: bytes
) -> None:
    before = read_tree(root)
    for call in (
        lambda: manager.get_job_files("job_1"),
        lambda: manager.import_records([record(root)]),
        manager.migrate_legacy_files,
        lambda: next(manager.export_records()),
    ):
        with pytest.raises(OlderInstallationError, match="run `flask files import`"):
            call()
    health = manager.get_system_stats().health
    assert health.state == "unavailable"
    assert "run `flask files import`" in health.messages[0]
    assert outputs(root) == {path: before[path] for path in before if path != DOCUMENT}
    assert (root / DOCUMENT).read_bytes() == older


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'{"a": 1}',
        b'{"a": {"b": 1}}',
        b'[{"path": "x"}, 1]',
        b'{"format": 1, "changes": [{"path": "x"}]}',
        b'{"changes": {"path": "x"}}',
        b'[{"path": "x"}',
    ],
    ids=lambda content: content.decode(),
)
def test_anything_else_in_its_place_is_a_damaged_document(
    root: Path, manager: FileManager, content: bytes
) -> None:
    (root / DOCUMENT).write_bytes(content)
    manager.organize_output("job_1", files=["none.txt"])
    (aside,) = root.glob(f"{DOCUMENT}.damaged-*")
    assert aside.read_bytes() == content


def test_a_document_of_ours_whose_head_was_changed_is_no_older_list(
    root: Path, manager: FileManager
) -> None:
    manager.import_records([record(root)])
    manager.close()
    document = root / DOCUMENT
    document.write_bytes(document.read_bytes().replace(b'"generation": 1', b'"generation": 2', 1))
    assert manager.get_job_files("job_1").file_count == 1
    assert len(list(root.glob(f"{DOCUMENT}.damaged-*"))) == 1


def test_an_older_installations_list_is_kept_under_another_name_and_its_files_are_taken_over(
    root: Path, manager: FileManager, older: bytes
) -> None:
    told = manager.import_records(dry_run=True)
    assert read_tree(root) == {PLACE: PICTURE, DOCUMENT: older}
    report = manager.import_records()
    assert done(report) == done(told) == (1, 0, 0, 0)
    assert report.document == LIST
    assert outputs(root) == {PLACE: PICTURE, LIST: older}
    assert manager.get_file_metadata(OLD_ID).path == PLACE
    assert manager.get_system_stats().health.state == "ok"
    assert_sound(root)
    assert done(manager.import_records(dry_run=True)) == (0, 0, 0, 1)
    again = manager.import_records()
    assert (done(again), again.document) == ((0, 0, 0, 1), LIST)
    assert again.operation_id != report.operation_id


def test_without_room_for_the_records_the_list_stays_in_its_place(
    root: Path, open_manager: OpenManager, older: bytes
) -> None:
    with pytest.raises(OutOfSpaceError):
        open_manager(root, min_free_bytes=10**18).import_records()
    assert read_tree(root) == {PLACE: PICTURE, DOCUMENT: older}


def test_where_links_do_not_work_the_list_is_renamed(
    root: Path, manager: FileManager, older: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(durable, "link", refuse)
    assert done(manager.import_records()) == (1, 0, 0, 0)
    assert (root / LIST).read_bytes() == older
    assert_sound(root)


def test_the_library_that_a_setting_names_is_not_begun_over_a_list(
    root: Path, open_manager: OpenManager, older: bytes
) -> None:
    with pytest.raises(LibraryUnavailableError, match="is expected"):
        open_manager(root, library_id="0" * 32).import_records()
    assert (root / DOCUMENT).read_bytes() == older


@pytest.mark.usefixtures("older")
def test_another_list_is_refused_while_one_is_in_the_documents_place(
    root: Path, manager: FileManager
) -> None:
    for dry_run in (True, False):
        with pytest.raises(OlderInstallationError):
            manager.import_records([record(root)], dry_run=dry_run)


def test_while_somebody_migrates_nothing_is_imported(
    root: Path, manager: FileManager, older: bytes
) -> None:
    (root / STATE).mkdir()
    with lock.hold(str(root / MIGRATION_LOCK), 0), pytest.raises(MigrationRunningError):
        manager.import_records()
    assert (root / DOCUMENT).read_bytes() == older


def test_a_migration_leaves_the_kept_list_alone(
    root: Path, manager: FileManager, older: bytes
) -> None:
    manager.import_records()
    assert manager.migrate_legacy_files(recursive=True).found.files == 0
    assert (root / LIST).read_bytes() == older


def test_without_a_list_an_import_of_none_is_refused(root: Path, manager: FileManager) -> None:
    for dry_run in (True, False):
        with pytest.raises(InvalidInputError, match="names no list"):
            manager.import_records(dry_run=dry_run)
    assert read_tree(root) == {PLACE: PICTURE}


def test_a_list_in_the_place_of_a_library_that_we_know_is_not_taken_over(
    root: Path, manager: FileManager, open_manager: OpenManager
) -> None:
    manager.import_records([record(root)])
    manager.close()
    content = json.dumps([record(root)]).encode()
    (root / DOCUMENT).write_bytes(content)
    with pytest.raises(LibraryUnavailableError, match="is expected"):
        open_manager(root).import_records()
    assert (root / DOCUMENT).read_bytes() == content


@pytest.mark.usefixtures("older")
def test_an_import_that_was_interrupted_is_told_and_gone_on_with(
    root: Path, manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            manager.import_records()
    assert not list(manager.export_records())
    health = manager.get_system_stats().health
    assert health.state == "degraded"
    assert health.messages == ("an import was interrupted; flask files import goes on with it",)
    operation_id = json.loads((root / IMPORT).read_bytes())["id"]
    report = manager.import_records()
    assert (done(report), report.operation_id) == ((1, 0, 0, 0), operation_id)
    assert manager.get_system_stats().health.state == "ok"
    assert_sound(root)


def test_a_file_that_cannot_be_moved_after_a_crash_stays_for_the_next_import(
    root: Path, manager: FileManager, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree({"x.png": PICTURE + b"x"})
    source = [record(root, "x.png", project_id="osaka", checksum=None)]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carrying, "place", die)
        with pytest.raises(KeyboardInterrupt):
            manager.import_records(source)
    (root / "projects/osaka/job_1").rmdir()
    make_tree({"projects/osaka/job_1": b"no folder"})
    assert manager.get_system_stats().pending_jobs == 0
    assert list(manager.export_records()) == []
    assert (root / "x.png").read_bytes() == PICTURE + b"x"
    (root / "projects/osaka/job_1").unlink()
    assert done(manager.import_records(source)) == (0, 1, 0, 0)
    assert_sound(root)


def test_every_byte_is_there_once_after_an_import(
    root: Path, manager: FileManager, make_tree: MakeTree
) -> None:
    files = {f"old/{n}.txt": b"%d" % n for n in range(600)}
    make_tree({**files})
    before = Counter(outputs(root).values())
    report = manager.import_records(
        [record(root), *({"path": path, "job_id": f"job_{n % 7}"} for n, path in enumerate(files))]
    )
    assert done(report) == (1, 600, 0, 0)
    after = Counter(entry for entry in outputs(root).values() if entry is not None)
    assert after == before
    assert_sound(root)


def test_an_import_can_be_undone(root: Path, manager: FileManager) -> None:
    write_tree(root, {"loose.png": PICTURE, "nobody.png": PICTURE})
    before = outputs(root)
    listed = [
        record(root),
        {"path": "loose.png", "job_id": "job_2", "original_path": "elsewhere/old.png"},
        {"path": "nobody.png"},
    ]
    report = manager.import_records(listed)
    assert len(outputs(root)) == 3
    undone = manager.undo_operation(str(report.operation_id))
    assert (undone.undone.files, undone.skipped, undone.failed) == (3, (), ())
    assert outputs(root) in (before, {**before, "legacy": None})
    again = manager.undo_operation(str(undone.operation_id))
    assert again.undone.files == 3
    assert manager.get_job_files("job_2").file_count == 1
    assert_sound(root)
