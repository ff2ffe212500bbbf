"""Putting right what a verification has found: what is done, what is left, and what is never done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable, repair
from flask_comfy_files.core.errors import (
    InvalidInputError,
    LibraryUnavailableError,
    LockTimeoutError,
)
from flask_comfy_files.core.findings import RepairReport
from flask_comfy_files.core.layout import DOCUMENT, INDEX
from flask_comfy_files.core.recovery import changing
from tests.conftest import MakeTree, OpenManager
from tests.core.test_deletion import share
from tests.core.test_migration import check_library, clip, image, refuse_to_move
from tests.core.test_verification import (
    FIRST,
    OTHER,
    SECOND,
    TREE,
    build,
    damage_line,
    flip,
    in_trash,
    rename_in_document,
    rewrite,
)
from tests.crash.library_check import delete_index
from tests.trees import (
    AN_HOUR_AGO,
    NOW,
    Clock,
    Fifo,
    Link,
    library,
    organized_image,
    outputs,
    set_modified,
    write_tree,
)
from tests.web.conftest import lock_held_elsewhere

NAME = FIRST.rpartition("/")[2]
ELSEWHERE = f"projects/default/b/{NAME}"
LATER = NOW.replace(hour=23)


@pytest.fixture
def root(make_tree: MakeTree) -> Path:
    """Return an output folder."""
    return make_tree(TREE)


@pytest.fixture
def manager(root: Path, open_manager: OpenManager, clock: Clock) -> FileManager:
    """Return a manager of a library, some hours after it was made."""
    manager = build(root, open_manager)
    clock.now = LATER
    return manager


def repaired(manager: FileManager, *kinds: str) -> RepairReport:
    """Verify, repair everything, and return the report; a rehearsal before it must say the same."""
    findings = list(manager.verify_files(read_bytes=True))
    assert [finding.kind for finding in findings] == list(kinds)
    before = library(Path(manager.settings.output_dir))
    plan = manager.plan_repair(findings)
    assert library(Path(manager.settings.output_dir)) == before
    report = manager.repair_files(findings)
    assert_reconciles(report)
    assert (plan.dry_run, plan.operation_id, report.dry_run) == (True, None, False)
    assert (plan.found, plan.skipped, plan.failed) == (report.found, report.skipped, report.failed)
    done = [
        [(entry.kind, entry.path, entry.detail) for entry in made.repaired]
        for made in (plan, report)
    ]
    assert done[0] == done[1]
    return report


def assert_reconciles(report: RepairReport) -> None:
    assert report.found == len(report.repaired) + len(report.skipped) + len(report.failed)
    assert (report.operation_id is None) == (not report.repaired or report.dry_run)


def is_sound(manager: FileManager) -> bool:
    """Say whether nothing is found any more, with this index and with one that is made anew."""
    sound = not list(manager.verify_files(read_bytes=True))
    manager.close()
    delete_index(Path(manager.settings.output_dir))
    return sound and not list(manager.verify_files(read_bytes=True))


def check_whole(manager: FileManager) -> None:
    """Expect each record in its place, and none too few, when nothing rests in the trash any more."""
    manager.restore_job_files("gone")
    check_library(Path(manager.settings.output_dir))


def changes(root: Path) -> list[dict[str, Any]]:
    """Return the lines that repairs have written."""
    lines = json.loads((root / DOCUMENT).read_bytes())["changes"]
    return [line for line in lines if line["operation"]["kind"] == "repair"]


def asked(kind: str, path: str, file_id: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "path": path, "file_id": file_id}


def reasons(report: RepairReport) -> dict[str, str]:
    assert_reconciles(report)
    return {entry.path: entry.reason for entry in report.skipped}


def test_a_file_that_is_gone_is_recorded_as_missing_and_as_there_when_it_is_back(
    manager: FileManager, root: Path
) -> None:
    record = manager.get_file_metadata(FIRST)
    (root / FIRST).rename(root / "away.png")
    (done,) = repaired(manager, "missing").repaired
    assert (done.job_id, done.file_id) == ("a", record.file_id)
    assert manager.get_file_metadata(record.file_id).missing
    assert len(manager.get_job_files("a")) == 3
    (root / "away.png").rename(root / FIRST)
    repaired(manager, "missing")
    assert manager.get_file_metadata(record.file_id) == record
    assert is_sound(manager)
    check_whole(manager)


def test_the_record_of_a_changed_file_takes_over_what_it_is_now(
    manager: FileManager, root: Path
) -> None:
    record = manager.get_file_metadata(FIRST)
    size = manager.get_system_stats().total_size
    shutil.copyfile(Path(__file__), root / FIRST)
    os.utime(root / FIRST, (AN_HOUR_AGO.timestamp(), AN_HOUR_AGO.timestamp()))
    report = repaired(manager, "changed")
    now = manager.get_file_metadata(record.file_id)
    assert (now.width, record.width is None) == (None, False)
    assert (now.created_at, now.path) == (record.created_at, record.path)
    assert now.file_size == (root / FIRST).stat().st_size
    grown = now.file_size - record.file_size
    assert manager.get_system_stats().total_size == size + grown
    assert (
        manager.get_project_summary("default").total_size
        == manager.get_project_files("default").total_size
    )
    (line,) = changes(root)
    assert (line["kind"], line["job_id"], line["operation"]["id"]) == (
        "state",
        "a",
        report.operation_id,
    )
    assert set(line["files"][record.file_id]) > {"file_size", "checksum"}
    assert is_sound(manager)
    check_whole(manager)


def test_bytes_that_changed_without_a_trace_are_taken_over(
    manager: FileManager, root: Path
) -> None:
    flip(root / "legacy/nobodys.txt")
    repaired(manager, "changed")
    assert next(iter(changes(root)[0]["files"].values())).keys() == {"checksum"}
    assert is_sound(manager)
    check_whole(manager)


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "changed in its place"])
@pytest.mark.parametrize("whose", ["the original's", "the guest's"])
def test_files_that_share_their_bytes_no_more_are_counted_each(
    manager: FileManager, root: Path, whose: str, *, is_replaced: bool
) -> None:
    original = manager.get_file_metadata(FIRST)
    guest = share(root, original, "guest")
    changed = root / (FIRST if whose == "the original's" else guest.path)
    before = manager.get_system_stats().total_size
    if is_replaced:
        changed.unlink()
    changed.write_bytes(b"other")
    set_modified(changed, AN_HOUR_AGO)
    repaired(manager, *["changed"] * (1 if is_replaced else 2))
    now = manager.get_file_metadata(guest.file_id)
    assert now.same_file_as == (None if is_replaced else original.file_id)
    grown = 5 if is_replaced else 5 - original.file_size
    assert manager.get_system_stats().total_size == before + grown
    assert is_sound(manager)
    check_whole(manager)


def test_files_in_the_trash_are_recorded_anew_and_come_back_as_they_are(
    manager: FileManager, root: Path
) -> None:
    rewrite(root / in_trash(root, 1), b"other bytes")
    (root / in_trash(root, 2)).unlink()
    before = manager.get_system_stats()
    repaired(
        manager, *(["changed", "missing"] if first_is_first(manager) else ["missing", "changed"])
    )
    stats = manager.get_system_stats()
    assert (stats.trash.files, stats.trash.bytes) == (1, len(b"other bytes"))
    assert (stats.total_files, stats.total_size) == (before.total_files, before.total_size)
    assert is_sound(manager)
    restored = manager.restore_job_files("gone")
    assert [(record.file_size, record.missing) for record in restored] == [
        (len(b"other bytes"), False),
        (len(image("gone2")), True),
    ]


def first_is_first(manager: FileManager) -> bool:
    """Say whether the changed file of the trash is found first, which its random id decides."""
    return next(finding.kind for finding in manager.verify_files()) == "changed"


def test_files_without_a_record_get_one_that_counts_as_new(
    manager: FileManager, root: Path
) -> None:
    strangers = {
        "legacy/x/stranger.mp4": clip("s"),
        "projects/default/a/stranger.png": image("s"),
        "projects/new/job_9/one.png": image("1"),
        "projects/new/job_9/two": b"2",
    }
    write_tree(root, strangers)
    report = repaired(manager, *["untracked"] * 4)
    assert {entry.path for entry in report.repaired} == set(strangers)
    for path, (job_id, project_id, file_type) in {
        "legacy/x/stranger.mp4": (None, None, "video"),
        "projects/default/a/stranger.png": ("a", "default", "image"),
        "projects/new/job_9/two": ("job_9", "new", "other"),
    }.items():
        record = manager.get_file_metadata(path)
        assert (record.job_id, record.project_id, record.file_type) == (
            job_id,
            project_id,
            file_type,
        )
        assert (record.evidence, record.original_path) == ("rebuilt", path)
        assert record.created_at == "2026-02-03T23:05:06Z"
        assert record.modified_at == "2026-02-03T03:05:06Z"
    ids = {entry.path: entry.file_id for entry in report.repaired}
    assert ids == {path: manager.get_file_metadata(path).file_id for path in strangers}
    assert [record.path for record in manager.get_job_files("job_9")] == [*strangers][2:]
    assert [record.path for record in manager.get_job_files("a")][-1] == [*strangers][1]
    assert {line["operation"]["id"] for line in changes(root)} == {report.operation_id}
    assert is_sound(manager)
    check_whole(manager)


def test_no_cleanup_takes_what_was_recorded_just_now(
    manager: FileManager, root: Path, clock: Clock
) -> None:
    clock.advance(40 * 86400)
    write_tree(root, {"projects/default/a/s.png": image("s"), "projects/p/j/x.png": image("x")})
    repaired(manager, "untracked", "untracked")
    report = manager.plan_cleanup(30)
    assert [job.job_id for job in report.jobs] == ["b"]


@pytest.mark.usefixtures("no_waiting")
def test_what_no_record_can_name_stays_without_one(manager: FileManager, root: Path) -> None:
    reserved = "projects/default/a/sub/x.png"
    strangers = {
        reserved: "outside_library",
        "projects/x.png": "outside_library",
        "projects/default/CON/x.png": "outside_library",
        "projects/default/A/x.png": "identifier_case",
        "projects/other/a/x.png": "job_in_other_project",
        "projects/DEFAULT/c/x.png": "identifier_case",
        "elsewhere.png": "outside_library",
        "projects/default/a/nothing.png": "not_found",
        "projects/default/a/link.png": "link",
        "projects/default/a/pipe": "not_a_regular_file",
        FIRST: "stale",
    }
    made = {path: b"x" for path in strangers if path.endswith("x.png") or path == "elsewhere.png"}
    write_tree(root, {**made, "projects/default/a/link.png": Link(NAME)})
    write_tree(root, {"projects/default/a/pipe": Fifo()})
    before = library(root)
    report = manager.repair_files([asked("untracked", path) for path in strangers])
    assert reasons(report) == strangers
    assert library(root) == before


def test_of_new_jobs_that_contradict_each_other_one_becomes_known(
    manager: FileManager, root: Path
) -> None:
    paths = [
        "projects/new/job/x.png",
        "projects/new/JOB/x.png",
        "projects/newer/job/x.png",
        "projects/NEW/job_2/x.png",
    ]
    write_tree(root, {path: image(path) for path in paths})
    report = manager.repair_files([asked("untracked", path) for path in paths])
    assert [entry.path for entry in report.repaired] == paths[:1]
    assert list(reasons(report).values()) == [
        "identifier_case",
        "job_in_other_project",
        "identifier_case",
    ]
    assert [record.path for record in manager.get_job_files("job")] == paths[:1]


@pytest.mark.parametrize("place", [ELSEWHERE, f"projects/default/c/{NAME}", f"legacy/sub/{NAME}"])
def test_a_strayed_file_is_moved_back_under_its_own_record(
    manager: FileManager, root: Path, place: str
) -> None:
    record = manager.get_file_metadata(FIRST)
    files = {entry.file_id: entry for entry in manager.get_job_files("a")}
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / FIRST).rename(root / place)
    before = manager.get_system_stats()
    (done,) = repaired(manager, "wrong_owner").repaired
    assert (done.path, done.file_id) == (place, record.file_id)
    assert {entry.file_id: entry for entry in manager.get_job_files("a")} == files
    assert manager.get_system_stats().total_size == before.total_size
    assert not (root / "projects/default/c").exists()
    assert is_sound(manager)
    check_whole(manager)


def test_a_strayed_file_that_was_noted_as_missing_is_so_no_more(
    manager: FileManager, root: Path
) -> None:
    (root / FIRST).rename(root / "away.png")
    repaired(manager, "missing")
    (root / "away.png").rename(root / ELSEWHERE)
    repaired(manager, "wrong_owner")
    assert not manager.get_file_metadata(FIRST).missing
    assert is_sound(manager)


def test_a_file_is_never_moved_onto_another(manager: FileManager, root: Path) -> None:
    (root / FIRST).rename(root / ELSEWHERE)
    findings = list(manager.verify_files())
    write_tree(root, {FIRST: b"another"})
    before = outputs(root)
    assert reasons(manager.repair_files(findings)) == {ELSEWHERE: "already_there"}
    assert outputs(root) == before


def test_a_file_that_came_in_between_is_not_replaced_and_the_record_is_as_before(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = manager.get_file_metadata(FIRST)
    (root / FIRST).rename(root / ELSEWHERE)
    findings = list(manager.verify_files())
    refuse_to_move(monkeypatch, NAME)
    report = manager.repair_files(findings)
    assert_reconciles(report)
    assert [entry.path for entry in report.failed] == [ELSEWHERE]
    assert manager.get_file_metadata(record.file_id) == record
    assert (root / ELSEWHERE).read_bytes() == TREE["a_00001_.png"]
    monkeypatch.undo()
    repaired(manager, "wrong_owner")
    assert is_sound(manager)
    check_whole(manager)


def test_a_strayed_file_comes_back_from_another_file_system(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / FIRST).rename(root / ELSEWHERE)
    move = durable.move

    def move_within(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if os.fstat(source_folder).st_ino != os.fstat(target_folder).st_ino:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", move_within)
    repaired(manager, "wrong_owner")
    assert is_sound(manager)
    check_whole(manager)


@pytest.mark.parametrize(
    ("place", "home"),
    [
        ("projects/default/b/x.png", "projects/default/a/x.png"),
        ("legacy/x.png", "projects/default/a/x.png"),
        ("x.png", "projects/default/a/x.png"),
        (
            f"projects/default/b/{SECOND.rpartition('/')[2]}",
            organized_image("a", 2)[:-4] + "_2.png",
        ),
    ],
)
def test_a_file_whose_record_names_another_folder_is_brought_home(
    manager: FileManager, root: Path, place: str, home: str
) -> None:
    record = manager.get_file_metadata(FIRST)
    manager.close()
    (root / FIRST).rename(root / place)
    rename_in_document(root, FIRST, place)
    repaired(manager, "wrong_owner")
    now = manager.get_file_metadata(record.file_id)
    assert (now.path, now.job_id, now.checksum) == (home, "a", record.checksum)
    assert is_sound(manager)
    check_whole(manager)


def test_an_index_that_contradicts_the_document_is_made_anew(
    manager: FileManager, root: Path, open_manager: OpenManager
) -> None:
    other = open_manager(root)
    assert len(other.get_job_files("b")) == 1
    with sqlite3.connect(root / INDEX) as connection:
        connection.execute("DELETE FROM files WHERE job_id = 'b'")
        connection.execute("UPDATE jobs SET file_count = 0 WHERE job_id = 'b'")
    connection.close()
    findings = [finding for finding in manager.verify_files() if finding.kind == "index"]
    assert len(manager.get_job_files("b")) == 0
    report = manager.repair_files(findings)
    assert (len(report.repaired), report.skipped) == (len(findings), ())
    assert len(manager.get_job_files("b")) == len(other.get_job_files("b")) == 1
    assert list(manager.verify_files()) == []
    assert {*reasons(manager.repair_files(findings)).values()} == {"stale"}
    assert changes(root) == []


def test_an_index_is_not_thrown_away_for_a_document_that_is_damaged(
    manager: FileManager, root: Path
) -> None:
    damage_line(root, b"gone_00002_.png")
    findings = [finding for finding in manager.verify_files() if finding.kind == "index"]
    before = library(root)
    report = manager.repair_files(findings)
    assert_reconciles(report)
    assert [entry.path for entry in report.failed] == [DOCUMENT] * len(
        {(finding.path, finding.file_id) for finding in findings}
    )
    assert len(manager.get_job_files("b")) == 1
    assert library(root) == before


# What does not hold any more


def spoil(root: Path) -> None:
    (root / FIRST).unlink()
    rewrite(root / SECOND, b"other")
    (root / OTHER).rename(root / f"projects/default/a/{OTHER.rpartition('/')[2]}")
    write_tree(root, {"legacy/s.png": image("s"), "projects/p/j/x.png": image("x")})


def test_findings_are_repaired_once_and_then_are_stale(manager: FileManager, root: Path) -> None:
    spoil(root)
    findings = list(manager.verify_files())
    kinds = {finding.kind for finding in findings}
    assert kinds == {"missing", "changed", "wrong_owner", "untracked"}
    report = manager.repair_files(findings)
    assert (report.found, len(report.repaired)) == (5, 5)
    assert {line["operation"]["id"] for line in changes(root)} == {report.operation_id}
    before = library(root)
    again = manager.repair_files(findings)
    assert reasons(again) == {finding.path: "stale" for finding in findings}
    assert library(root) == before


def test_findings_whose_files_are_well_again_are_stale(
    manager: FileManager, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path / "before")
    spoil(root)
    findings = list(manager.verify_files())
    for name in ("projects", "legacy"):
        shutil.rmtree(root / name)
        shutil.copytree(tmp_path / "before" / name, root / name)
    report = manager.repair_files(findings)
    assert set(reasons(report).values()) <= {"stale", "not_found", "already_there"}
    assert (report.repaired, changes(root)) == ((), [])


def test_a_finding_counts_once_and_two_that_mean_one_file_repair_it_once(
    manager: FileManager, root: Path
) -> None:
    file_id = manager.get_file_metadata(FIRST).file_id
    (root / FIRST).unlink()
    one, other = asked("missing", FIRST), asked("missing", FIRST, file_id)
    report = manager.repair_files([one, one, other])
    assert (report.found, len(report.repaired)) == (2, 1)
    assert reasons(report) == {FIRST: "stale"}


def test_a_record_that_lies_elsewhere_by_now_is_not_touched(
    manager: FileManager, root: Path
) -> None:
    file_id = manager.get_file_metadata(FIRST).file_id
    (root / FIRST).unlink()
    findings = [asked("missing", SECOND, file_id), asked("missing", FIRST, "0" * 32)]
    assert reasons(manager.repair_files(findings)) == {SECOND: "stale", FIRST: "stale"}


MEANWHILE: dict[str, Callable[[Path], None]] = {
    "untracked": lambda root: rewrite(root / "legacy/s.png", b"more", NOW),
    "changed": lambda root: rewrite(root / SECOND, b"again other", NOW),
    "wrong_owner": lambda root: rewrite(next((root / "projects/default/a").glob("b_*")), b"o", NOW),
}


@pytest.mark.parametrize("kind", list(MEANWHILE))
def test_a_file_that_changes_between_being_read_and_being_recorded_is_left(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spoil(root)
    findings = [found for found in manager.verify_files() if found.kind == kind][:1]

    def changing_late(*arguments: Any) -> Any:
        MEANWHILE[kind](root)
        return changing(*arguments)

    monkeypatch.setattr(repair, "changing", changing_late)
    report = manager.repair_files(findings)
    assert reasons(report) == {findings[0].path: "changed"}
    assert changes(root) == []


def test_what_the_system_does_not_let_us_read_has_failed_and_the_rest_is_repaired(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(root)
    findings = list(manager.verify_files())
    open_regular = durable.open_regular

    def refusing(folder: int, name: str) -> Any:
        if name == "x.png":
            raise PermissionError(13, os.strerror(13))
        return open_regular(folder, name)

    monkeypatch.setattr(durable, "open_regular", refusing)
    report = manager.repair_files(findings)
    assert_reconciles(report)
    assert [entry.path for entry in report.failed] == ["projects/p/j/x.png"]
    assert "Permission denied" in report.failed[0].reason
    assert len(report.repaired) == 4


# What is refused


@pytest.mark.parametrize(
    "findings",
    [
        None,
        "missing",
        {"kind": "missing", "path": "x"},
        [None],
        [{"kind": "missing"}],
        [{"kind": "lost", "path": "x"}],
        [{"kind": ["missing"], "path": "x"}],
        [{"kind": "missing", "path": "../x"}],
        [{"kind": "missing", "path": "/x"}],
        [{"kind": "missing", "path": "x\0"}],
        [{"kind": "missing", "path": "x", "file_id": 7}],
        [{"kind": "missing", "path": "x", "file_id": "\ud800"}],
    ],
)
def test_what_is_no_finding_is_refused(manager: FileManager, root: Path, findings: Any) -> None:
    before = library(root)
    with pytest.raises(InvalidInputError, match="findings"):
        manager.repair_files(findings)
    with pytest.raises(InvalidInputError, match="findings"):
        manager.plan_repair(findings)
    assert library(root) == before


def test_a_library_of_another_disk_is_not_repaired(
    manager: FileManager, root: Path, open_manager: OpenManager
) -> None:
    (root / FIRST).unlink()
    before = library(root)
    stranger = open_manager(root, library_id="0" * 32)
    with pytest.raises(LibraryUnavailableError):
        stranger.repair_files([asked("missing", FIRST)])
    manager.close()
    assert library(root) == before


@pytest.mark.usefixtures("manager")
def test_a_library_that_somebody_else_changes_is_not_repaired(
    root: Path, open_manager: OpenManager
) -> None:
    (root / FIRST).unlink()
    before = library(root)
    hasty = open_manager(root, lock_timeout=0.01)
    with lock_held_elsewhere(root), pytest.raises(LockTimeoutError):
        hasty.repair_files([asked("missing", FIRST)])
    assert library(root) == before


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few findings share one turn."""
    monkeypatch.setattr(repair, "_AT_ONCE", 2)


@pytest.mark.usefixtures("small_batches")
def test_many_findings_are_one_operation_in_several_turns(manager: FileManager, root: Path) -> None:
    paths = [f"projects/p/job_{number % 3}/x_{number}.png" for number in range(7)]
    write_tree(root, {path: image(path) for path in paths})
    report = repaired(manager, *["untracked"] * 7)
    assert {entry.path for entry in report.repaired} == set(paths)
    assert {line["operation"]["id"] for line in changes(root)} == {report.operation_id}
    assert is_sound(manager)
    check_whole(manager)


def test_a_repair_can_be_undone_and_that_as_well(root: Path, manager: FileManager) -> None:
    tracked = {job: manager.get_job_files(job) for job in ("a", "b")}
    (root / FIRST).write_bytes(b"another picture")
    (root / SECOND).unlink()
    write_tree(root, {f"projects/default/a/{'a'}_1770091506_text.txt": b"untracked"})
    before = outputs(root)
    report = repaired(manager, "untracked", "changed", "missing")
    assert report.operation_id is not None
    after = {job: manager.get_job_files(job) for job in ("a", "b")}
    assert after != tracked
    undone = manager.undo_operation(report.operation_id)
    assert (undone.undone.files, undone.skipped, undone.failed) == (3, (), ())
    assert {job: manager.get_job_files(job) for job in ("a", "b")} == tracked
    assert outputs(root) == before
    kinds = sorted(finding.kind for finding in manager.verify_files(read_bytes=True))
    assert kinds == ["changed", "missing", "untracked"]
    assert manager.undo_operation(report.operation_id) == undone
    again = manager.undo_operation(str(undone.operation_id))
    assert again.undone.files == 3
    assert {job: manager.get_job_files(job) for job in ("a", "b")} == after
    assert outputs(root) == before


def test_what_was_moved_back_strays_again_when_that_is_undone(
    root: Path, manager: FileManager
) -> None:
    (root / ELSEWHERE).parent.mkdir(parents=True, exist_ok=True)
    (root / FIRST).rename(root / ELSEWHERE)
    before = outputs(root)
    report = repaired(manager, "wrong_owner")
    undone = manager.undo_operation(str(report.operation_id))
    assert (undone.undone.files, undone.skipped, undone.failed) == (1, (), ())
    assert outputs(root) == before
    assert [finding.kind for finding in manager.verify_files()] == ["wrong_owner"]
    repaired(manager, "wrong_owner")
    assert (root / FIRST).is_file()
