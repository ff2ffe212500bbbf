"""Comparing document, index and files: what is found, what is not, and that nothing is changed by it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import course, durable, looking, verification
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.errors import InvalidInputError, LibraryUnavailableError
from flask_comfy_files.core.findings import Finding, VerifyReport
from flask_comfy_files.core.layout import DOCUMENT, INDEX, TRASH
from flask_comfy_files.core.records import Tally
from flask_comfy_files.core.walking import walk
from tests.conftest import MakeTree, OpenManager
from tests.core.test_migration import clip, image
from tests.crash.library_check import abandoned_by, delete_index, organize
from tests.crash.test_crash import lock_held_by_another
from tests.trees import (
    AN_HOUR_AGO,
    NOW,
    Fifo,
    Link,
    Tree,
    library,
    organized_image,
    recording,
    set_modified,
    write_tree,
)

TREE: Tree = {
    "a_00001_.png": image("a1"),
    "a_00002_.png": image("a2"),
    "a_00003_.mp4": clip("a3"),
    "b_00001_.png": image("b1"),
    "gone_00001_.png": image("gone1"),
    "gone_00002_.png": image("gone2"),
    "nobodys.txt": b"nobody's",
    "sub/nobodys.png": image("nobody"),
}
FIRST, SECOND = organized_image("a"), organized_image("a", 2)
OTHER = organized_image("b")


def build(root: Path, open_manager: OpenManager) -> FileManager:
    """Make a library of two jobs, a third in the trash, and two files of nobody."""
    manager = open_manager(root)
    for job_id in ("a", "b", "gone"):
        manager.organize_output(job_id)
    manager.migrate_legacy_files(recursive=True)
    manager.delete_job_files("gone")
    return manager


@pytest.fixture
def root(make_tree: MakeTree) -> Path:
    """Return an output folder."""
    return make_tree(TREE)


@pytest.fixture
def manager(root: Path, open_manager: OpenManager) -> FileManager:
    """Return a manager of the library."""
    return build(root, open_manager)


def found(report: VerifyReport) -> set[tuple[str, str]]:
    """Return kind and path of what was found by one call that came to its end, each once."""
    assert (report.is_complete, report.cursor, report.failed) == (True, None, ())
    pairs = {(finding.kind, finding.path) for finding in report}
    assert len(pairs) == len(report)
    return pairs


def rewrite(path: Path, content: bytes, at: datetime = AN_HOUR_AGO) -> None:
    """Put other bytes into a file, and set its time."""
    path.write_bytes(content)
    set_modified(path, at)


def flip(path: Path) -> None:
    """Change one bit of a file, and let it look as before."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    rewrite(path, bytes(content))


def in_trash(root: Path, number: int) -> str:
    """Return where a file of the deleted job lies."""
    name = organized_image("gone", number).rpartition("/")[2]
    (path,) = (root / TRASH).rglob(name)
    return str(path.relative_to(root))


@pytest.mark.parametrize("read_bytes", [False, True])
def test_a_sound_library_has_no_findings_and_stays_as_it_is(
    manager: FileManager, root: Path, *, read_bytes: bool
) -> None:
    before = library(root)
    report = manager.verify_files(read_bytes=read_bytes)
    assert found(report) == set()
    size = sum(len(content) for content in TREE.values() if isinstance(content, bytes))
    assert report.checked == Tally(files=len(TREE), bytes=size)
    assert library(root) == before


def test_an_output_folder_without_a_library_stays_without_one(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": b"a", "projects/p/j/x.png": b"x"})
    before = set(root.rglob("*"))
    report = open_manager(root).verify_files()
    assert found(report) == {("untracked", "projects/p/j/x.png")}
    assert report.checked == Tally()
    assert set(root.rglob("*")) == before


def test_a_root_that_is_missing_is_refused(tmp_path: Path, open_manager: OpenManager) -> None:
    with pytest.raises(LibraryUnavailableError):
        open_manager(tmp_path / "nowhere").verify_files()


CHANGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "deleted": (Path.unlink, "missing", False),
    "longer": (lambda path: rewrite(path, b"x" * 9999), "changed", False),
    "shorter at the same time": (lambda path: rewrite(path, b"x"), "changed", False),
    "other bytes later": (
        lambda path: rewrite(path, path.read_bytes()[::-1], NOW),
        "changed",
        False,
    ),
    "one bit": (flip, "changed", True),
}


@pytest.mark.parametrize(
    ("act", "kind", "needs_reading"), CHANGES.values(), ids=[str(name) for name in CHANGES]
)
@pytest.mark.parametrize("place", [FIRST, "legacy/sub/nobodys.png", "trash"])
def test_a_file_that_is_not_as_recorded_is_found(
    manager: FileManager,
    root: Path,
    place: str,
    act: Callable[[Path], None],
    kind: str,
    *,
    needs_reading: bool,
) -> None:
    path = in_trash(root, 1) if place == "trash" else place
    act(root / path)
    assert found(manager.verify_files(read_bytes=True)) == {(kind, path)}
    quickly = manager.verify_files()
    assert found(quickly) == (set() if needs_reading else {(kind, path)})
    for finding in quickly:
        assert finding.job_id == {FIRST: "a", "trash": "gone"}.get(place)
        assert finding.file_id is not None
        assert finding.detail


def test_a_file_that_was_only_touched_is_no_finding(manager: FileManager, root: Path) -> None:
    set_modified(root / FIRST, NOW)
    assert found(manager.verify_files()) == set()
    assert found(manager.verify_files(read_bytes=True)) == set()


def test_a_time_that_no_calendar_has_is_told_and_stops_nothing(
    manager: FileManager, root: Path
) -> None:
    os.utime(root / FIRST, (10**13, 10**13))
    (root / SECOND).unlink()
    report = manager.verify_files()
    assert [(finding.kind, finding.path) for finding in report] == [("missing", SECOND)]
    assert [left.path for left in report.failed] in ([FIRST], [])  # not every file system has it


STANDING_IN = {
    "link": (Link("elsewhere.png"), "link"),
    "folder": (None, "directory"),
    "pipe": (Fifo(), "not_a_regular_file"),
}


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("entry", "reason"), STANDING_IN.values(), ids=list(STANDING_IN))
def test_what_stands_in_a_files_place_and_is_none_makes_it_missing(
    manager: FileManager, root: Path, entry: Any, reason: str
) -> None:
    (root / FIRST).rename(root / "elsewhere.png")
    write_tree(root, {FIRST: entry})
    report = manager.verify_files(read_bytes=True)
    assert found(report) == {("missing", FIRST)}
    assert reason in report.findings[0].detail


def test_a_folder_that_became_a_link_is_not_followed(
    manager: FileManager, root: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    (root / "projects/default/b").rename(away)
    (root / "projects/default/b").symlink_to(away)
    (away / "stranger.png").write_bytes(b"s")
    report = manager.verify_files(read_bytes=True)
    assert found(report) == {("missing", OTHER)}
    assert "link" in report.findings[0].detail


def test_a_record_that_says_missing_is_told_until_its_file_is_back(
    manager: FileManager, root: Path
) -> None:
    content = (root / FIRST).read_bytes()
    (root / FIRST).unlink()
    manager.repair_files(manager.verify_files())
    assert manager.get_file_metadata(FIRST).missing
    (finding,) = manager.verify_files()
    assert (finding.kind, finding.detail.endswith("as recorded")) == ("missing", True)
    rewrite(root / FIRST, content)
    (finding,) = manager.verify_files()
    assert (finding.kind, finding.path) == ("missing", FIRST)
    assert "it is there" in finding.detail


def test_what_the_trash_does_not_hold_as_recorded_is_no_news(
    manager: FileManager, root: Path
) -> None:
    (root / in_trash(root, 1)).unlink()
    manager.repair_files(manager.verify_files())
    assert found(manager.verify_files()) == set()


# Files without a record


@pytest.mark.usefixtures("no_waiting")
def test_files_without_a_record_are_found_and_nothing_else_is(
    manager: FileManager, root: Path
) -> None:
    strangers = [
        "legacy/stranger.png",
        "legacy/sub/deeper/stranger",
        "projects/in_no_project.txt",
        "projects/default/in_no_job.txt",
        "projects/default/a/stranger.png",
        "projects/default/a/.hidden",
        "projects/default/a/sub/too_deep.png",
        "projects/new/job/x.png",
        os.fsdecode(b"legacy/not_utf8_\xff.png"),
    ]
    others: Tree = {
        f"projects/default/a/.{'0a' * 16}.part": b"on its way",
        "projects/default/a/link.png": Link("../../../nobodys.txt"),
        "projects/default/a/pipe": Fifo(),
        "projects/default/empty": None,
        "elsewhere/x.png": b"x",
        "inbox/job/run/x.png": b"x",
    }
    write_tree(root, {**dict.fromkeys(strangers, b"s"), **others})
    report = manager.verify_files()
    assert found(report) == {("untracked", path) for path in strangers}
    jobs = {finding.path: finding.job_id for finding in report}
    assert {path: job_id for path, job_id in jobs.items() if job_id} == {
        "projects/default/a/stranger.png": "a",
        "projects/default/a/.hidden": "a",
        "projects/new/job/x.png": "job",
    }
    assert {finding.file_id for finding in report} == {None}


# Files with the wrong owner


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (FIRST, f"projects/default/b/{FIRST.rpartition('/')[2]}"),
        (FIRST, f"projects/default/a/sub/{FIRST.rpartition('/')[2]}"),
        (FIRST, f"legacy/{FIRST.rpartition('/')[2]}"),
        ("legacy/nobodys.txt", "projects/default/b/nobodys.txt"),
    ],
)
def test_a_file_that_was_moved_elsewhere_is_found_there_and_is_not_missing_as_well(
    manager: FileManager, root: Path, source: str, target: str
) -> None:
    record = manager.get_file_metadata(source)
    (root / target).parent.mkdir(exist_ok=True)
    (root / source).rename(root / target)
    report = manager.verify_files()
    assert found(report) == {("wrong_owner", target)}
    finding = report.findings[0]
    assert (finding.job_id, finding.file_id) == (record.job_id, record.file_id)
    assert source in finding.detail


def test_other_bytes_under_a_lost_files_name_are_not_that_file(
    manager: FileManager, root: Path
) -> None:
    target = f"projects/default/b/{FIRST.rpartition('/')[2]}"
    (root / FIRST).rename(root / target)
    flip(root / target)
    assert found(manager.verify_files()) == {("missing", FIRST), ("untracked", target)}


def rename_in_document(root: Path, before: str, after: str) -> None:
    """Let a record name another place, as if that had been written from the beginning."""
    first, *lines, last = (root / DOCUMENT).read_bytes().split(b"\n")[:-1]
    edited = [first]
    for line in lines:
        change = document.decode(line.removesuffix(b","))
        assert change is not None
        for stored in change.get("files", ()):
            if isinstance(stored, dict) and stored["path"] == before:
                stored["path"] = after
        edited.append(document.encode(change) + b","[: line.endswith(b",")])
    (root / DOCUMENT).write_bytes(b"\n".join([*edited, last, b""]))
    delete_index(root)


@pytest.mark.parametrize("place", ["projects/default/b/x.png", "legacy/x.png", "x.png"])
def test_a_record_that_names_a_place_outside_of_its_jobs_folder_is_found(
    manager: FileManager, root: Path, place: str
) -> None:
    manager.close()
    (root / FIRST).rename(root / place)
    rename_in_document(root, FIRST, place)
    assert found(manager.verify_files()) == {("wrong_owner", place)}


def test_a_record_that_leads_out_of_the_root_is_found_and_not_followed(
    manager: FileManager, root: Path
) -> None:
    manager.close()
    (root / FIRST).rename(root.parent / "x.png")
    rename_in_document(root, FIRST, "../x.png")
    report = manager.verify_files(read_bytes=True)
    assert found(report) == {("wrong_owner", "../x.png"), ("missing", "../x.png")}


# The index, and the document


INDEX_DAMAGE = {
    "a total": "UPDATE projects SET total_size = total_size + 1",
    "a count": "UPDATE types SET file_count = 7 WHERE project_id = ''",
    "a path": "UPDATE files SET path = CAST('x' AS BLOB) WHERE job_id = 'b'",
    "a row too few": "DELETE FROM files WHERE job_id = 'b'",
    "a row too many": "INSERT INTO jobs (job_id, comparable, state) VALUES ('c', 'c', '{}')",
    "a job's size": "UPDATE jobs SET total_size = 0 WHERE job_id = 'a'",
    "the trash": "UPDATE trash SET file_count = 0",
    "a file in the trash": "UPDATE trashed SET overlay = '{\"missing\": true}'",
}


@pytest.mark.parametrize("statement", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_an_index_that_contradicts_the_document_is_found_and_left(
    manager: FileManager, root: Path, statement: str
) -> None:
    manager.close()
    with sqlite3.connect(root / INDEX) as connection:
        connection.execute(statement)
    connection.close()
    for _ in range(2):
        kinds = [finding for finding in manager.verify_files() if finding.kind == "index"]
        assert kinds
        assert {finding.path for finding in kinds} == {INDEX}


def test_an_index_that_cannot_be_read_is_found_and_the_rest_is_verified_without_it(
    manager: FileManager, root: Path
) -> None:
    manager.close()
    with sqlite3.connect(root / INDEX) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'trashed'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    with (root / INDEX).open("r+b") as index:
        index.seek((page - 1) * size)
        index.write(b"\xff" * size)
    (root / OTHER).unlink()
    report = manager.verify_files()
    pairs = [(finding.kind, finding.path) for finding in report]
    assert pairs == [("index", INDEX), ("missing", OTHER)]
    assert report.checked.files == len(TREE)


def test_an_index_that_is_gone_or_behind_is_no_finding(manager: FileManager, root: Path) -> None:
    manager.close()
    delete_index(root)
    assert found(manager.verify_files()) == set()


def test_an_index_after_much_coming_and_going_is_that_of_the_document(
    root: Path, manager: FileManager
) -> None:
    manager.restore_job_files("gone")
    manager.update_job("a", pinned=True, tags=["x"])
    legacy = manager.get_legacy_files().files[0]
    manager.assign_legacy_files([legacy.file_id], "b")
    manager.delete_job_files("b")
    manager.destroy_job_files("gone")
    write_tree(root, {"b_00009_.png": image("b9")})
    manager.organize_output("b")
    manager.restore_job_files("b")
    assert found(manager.verify_files(read_bytes=True)) == set()


def damage_line(root: Path, text: bytes) -> None:
    """Change a letter in the first line that holds a text."""
    content = (root / DOCUMENT).read_bytes()
    assert text in content
    (root / DOCUMENT).write_bytes(content.replace(text, text[:-1] + b"#", 1))


def test_each_line_that_fails_its_check_is_found_and_the_rest_is_verified_all_the_same(
    manager: FileManager, root: Path
) -> None:
    damage_line(root, b"a_00002_.png")
    damage_line(root, b"gone_00002_.png")
    (root / OTHER).unlink()
    before = (root / DOCUMENT).read_bytes()
    report = manager.verify_files()
    of_document = [finding for finding in report if finding.kind == "index"]
    assert {finding.path for finding in of_document} == {DOCUMENT}
    assert len({finding.detail for finding in of_document if "at byte" in finding.detail}) >= 2
    assert {finding.job_id for finding in of_document} == {None, "a", "gone"}
    assert ("missing", OTHER) in {(finding.kind, finding.path) for finding in report}
    assert (root / DOCUMENT).read_bytes() == before


# Time, and who else is at work


def go_on(manager: FileManager, **options: Any) -> tuple[list[Finding], list[VerifyReport]]:
    """Verify bit by bit; return all findings, and the reports."""
    reports: list[VerifyReport] = []
    cursor = None
    while not reports or cursor is not None:
        assert len(reports) < 100, "it does not come to an end"
        reports.append(manager.verify_files(cursor=cursor, **options))
        cursor = reports[-1].cursor
        assert reports[-1].is_complete == (cursor is None)
    return [finding for report in reports for finding in report], reports


def spoil(root: Path) -> None:
    """Do something of every kind."""
    (root / FIRST).unlink()
    flip(root / SECOND)
    flip(root / in_trash(root, 2))
    (root / in_trash(root, 1)).unlink()
    (root / "legacy/nobodys.txt").unlink()
    write_tree(root, {"legacy/x/y/z.png": b"z", "projects/default/b/s.png": b"s"})


@pytest.mark.parametrize("read_bytes", [False, True])
def test_a_verification_without_time_goes_on_by_its_cursor_and_looks_at_everything_once(
    manager: FileManager, root: Path, *, read_bytes: bool
) -> None:
    spoil(root)
    whole = manager.verify_files(read_bytes=read_bytes)
    findings, reports = go_on(manager, read_bytes=read_bytes, max_seconds=1e-9)
    assert sorted(findings, key=str) == sorted(whole, key=str)
    assert sum(report.checked.files for report in reports) == whole.checked.files == len(TREE)
    assert max(report.checked.files for report in reports) == 1
    assert len(reports) > len(TREE)


def test_an_index_for_which_the_time_is_not_enough_is_told_and_the_rest_goes_on(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / FIRST).unlink()
    now = 0.0

    def later() -> float:
        nonlocal now
        now += 20
        return now

    monkeypatch.setattr("time.monotonic", later)
    findings, reports = go_on(manager, max_seconds=10)
    monkeypatch.undo()
    assert [(finding.kind, finding.path) for finding in findings] == [("missing", FIRST)]
    assert [left.path for report in reports for left in report.failed] == [INDEX]
    assert sum(report.checked.files for report in reports) == len(TREE)


def test_a_report_holds_only_so_many_findings_and_the_next_has_the_rest(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(root)
    whole = manager.verify_files(read_bytes=True)
    monkeypatch.setattr(course, "MOST_FINDINGS", 2)
    findings, reports = go_on(manager, read_bytes=True)
    assert sorted(findings, key=str) == sorted(whole, key=str)
    assert len(reports) > 2


def test_a_cursor_goes_on_when_what_it_names_is_gone(manager: FileManager) -> None:
    report = manager.verify_files(max_seconds=1e-9)
    while report.checked.files == 0:
        report = manager.verify_files(max_seconds=1e-9, cursor=report.cursor)
    manager.delete_job_files("a")
    report = manager.verify_files(cursor=report.cursor)
    assert (report.is_complete, found(report)) == (True, set())
    assert report.checked.files == 8  # b's, two of nobody, and five in the trash by now


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "W10=", "WyJqb2JzIl0=", "WyJub3doZXJlIl0=", "WyJqb2JzIiwgMSwgMl0=", "é", 7, b"x"],
)
def test_a_cursor_that_was_never_answered_is_refused(manager: FileManager, cursor: Any) -> None:
    with pytest.raises(InvalidInputError, match="cursor"):
        manager.verify_files(cursor=cursor)


@pytest.mark.parametrize(
    "options",
    [
        *({"max_seconds": seconds} for seconds in (0, -1, True, "5", float("nan"), float("inf"))),
        {"read_bytes": 1},
    ],
)
def test_an_option_that_is_none_is_refused(manager: FileManager, options: Any) -> None:
    with pytest.raises(InvalidInputError):
        manager.verify_files(**options)


def test_progress_tells_how_many_files_of_all_and_their_bytes(manager: FileManager) -> None:
    told: list[tuple[int, ...]] = []
    report = manager.verify_files(on_progress=lambda *numbers: told.append(numbers))
    assert [number for number, _, _ in told] == list(range(1, len(TREE) + 1))
    assert {total for _, total, _ in told} == {len(TREE)}
    assert told[-1][2] == report.checked.bytes


def test_what_cannot_be_read_is_told_with_the_reason_and_the_rest_is_verified(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / SECOND).unlink()
    open_regular, sorted_names = durable.open_regular, looking.sorted_names

    def refusing_to_open(folder: int, name: str) -> Any:
        if name == FIRST.rpartition("/")[2]:
            raise PermissionError(13, os.strerror(13))
        return open_regular(folder, name)

    def refusing_to_list(where: str, folder: str) -> list[str]:
        if folder == "legacy/sub":
            raise PermissionError(13, os.strerror(13))
        return sorted_names(where, folder)

    monkeypatch.setattr(durable, "open_regular", refusing_to_open)
    monkeypatch.setattr(looking, "sorted_names", refusing_to_list)
    report = manager.verify_files(read_bytes=True)
    assert [(finding.kind, finding.path) for finding in report] == [("missing", SECOND)]
    assert {left.path for left in report.failed} == {FIRST, "legacy/sub"}
    assert {"Permission denied" in left.reason for left in report.failed} == {True}
    assert report.is_complete


def test_a_job_that_is_being_organized_is_no_finding(root: Path, open_manager: OpenManager) -> None:
    manager = build(root, open_manager)
    names = ["batch_00001_.png", "batch_00002_.png"]
    write_tree(root, {name: recording(name) for name in names})
    abandoned_by(organize("batch", names), after="move")(root)
    with lock_held_by_another(root):
        assert list((root / "projects").rglob("batch_*"))
        assert found(manager.verify_files()) == set()


def test_a_job_that_is_deleted_meanwhile_is_no_finding(
    manager: FileManager, open_manager: OpenManager, root: Path
) -> None:
    other = open_manager(root)

    def delete(done: int, _total: int, _size: int) -> None:
        if done == 1:  # its records have been read
            other.delete_job_files("a")

    assert found(manager.verify_files(on_progress=delete)) == set()


def test_a_file_that_leaves_with_its_record_after_it_was_seen_is_no_finding(
    manager: FileManager,
    open_manager: OpenManager,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = open_manager(root)

    def walk_slowly(*arguments: Any) -> Iterator[Any]:
        seen = list(walk(*arguments))
        if arguments[1] == "projects":
            other.delete_job_files("a")
        yield from seen

    monkeypatch.setattr(verification, "walk", walk_slowly)
    assert found(manager.verify_files()) == set()


def test_a_library_may_be_older_than_a_day(manager: FileManager, root: Path) -> None:
    set_modified(root / "legacy/nobodys.txt", NOW - timedelta(days=4000))
    assert found(manager.verify_files()) == set()
