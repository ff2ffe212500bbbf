"""Lists of files, jobs and projects: what they hold, in which order, and a page at a time."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog import listing
from flask_comfy_files.core.errors import InvalidIdentifierError, InvalidInputError
from flask_comfy_files.core.records import FileRecord
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import delete_index
from tests.trees import Clock

NOT_UTF8 = os.fsdecode(b"caf\xe9.txt")
A_DAY = timedelta(days=1)


@pytest.fixture(params=[listing.MOST_ROWS, 2], ids=["as-it-is", "two-rows-a-page"])
def most_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how many rows a page may look at."""
    number: int = request.param
    monkeypatch.setattr(listing, "MOST_ROWS", number)
    return number


@pytest.fixture
def library(make_tree: MakeTree, open_manager: OpenManager, clock: Clock) -> FileManager:
    """Return a library in which a job was organized every day, and files of none on the last one."""
    root = make_tree(
        {
            "Hero_Front.png": b"12345",
            "notes.txt": b"1",
            "clip.mp4": b"123",
            "b.png": b"1234",
            "c.png": b"1234",
        }
    )
    manager = open_manager(root, min_free_bytes=0)
    for job_id, project_id, names in (
        ("shot_1", "tokyo", ["Hero_Front.png", "notes.txt"]),
        ("shot_2", "tokyo", ["clip.mp4"]),
        ("still", "osaka", ["b.png", "c.png"]),
        ("empty", "osaka", []),
    ):
        manager.organize_output(job_id, project_id, files=names)
        clock.advance(A_DAY.total_seconds())
    make_tree({NOT_UTF8: b"123456789"})
    manager.migrate_legacy_files()
    manager.update_job("shot_2", pinned=True, tags=["Hero shot", "night"])
    manager.update_job("still", tags=["night"])
    return manager


def walk(ask: Callable[..., Any], **asked: Any) -> list[Any]:
    """Return what stands on all pages of a list."""
    found, cursor = [], None
    while True:
        page = ask(cursor=cursor, **asked)
        assert len(list(page)) <= asked.get("limit", 50)
        found += page
        cursor = page.next_cursor
        if cursor is None:
            return found


def names(files: list[FileRecord]) -> list[str]:
    """Return the names under which ComfyUI wrote files, as one may compare them."""
    return [os.fsencode(record.original_path).decode("latin-1") for record in files]


ALL = {"Hero_Front.png", "notes.txt", "clip.mp4", "b.png", "c.png", "café.txt"}


@pytest.mark.usefixtures("most_rows")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ALL),
        ({"project": "tokyo"}, {"Hero_Front.png", "notes.txt", "clip.mp4"}),
        ({"job": "still"}, {"b.png", "c.png"}),
        ({"job": "still", "project": "tokyo"}, set()),
        ({"file_type": "image"}, {"Hero_Front.png", "b.png", "c.png"}),
        ({"file_type": "text", "project": "tokyo"}, {"notes.txt"}),
        ({"file_type": "text", "job": "shot_1"}, {"notes.txt"}),
        ({"tag": "night"}, {"clip.mp4", "b.png", "c.png"}),
        ({"tag": "Night"}, set()),
        ({"tag": "night", "project": "osaka", "file_type": "image"}, {"b.png", "c.png"}),
        ({"pinned": True}, {"clip.mp4"}),
        ({"pinned": False}, ALL - {"clip.mp4"}),
        ({"pinned": True, "tag": "night"}, {"clip.mp4"}),
        ({"pinned": False, "tag": "night"}, {"b.png", "c.png"}),
        ({"min_size": 4}, {"Hero_Front.png", "b.png", "c.png", "café.txt"}),
        ({"min_size": 5, "project": "osaka"}, set()),
        ({"since": "2026-02-04T04:05:06Z"}, {"clip.mp4", "b.png", "c.png", "café.txt"}),
        ({"until": "2026-02-04T04:05:06Z"}, {"Hero_Front.png", "notes.txt"}),
        ({"since": "2026-02-04", "until": "2026-02-05"}, {"clip.mp4"}),
        ({"since": "2026-02-04", "min_size": 4, "project": "osaka"}, {"b.png", "c.png"}),
        ({"q": "hero"}, {"Hero_Front.png", "clip.mp4"}),
        ({"q": "SHOT_"}, {"Hero_Front.png", "notes.txt", "clip.mp4"}),
        ({"q": "osaKA"}, {"b.png", "c.png"}),
        ({"q": "hero", "project": "tokyo", "pinned": False}, {"Hero_Front.png"}),
        ({"q": "_video.mp4"}, {"clip.mp4"}),
        ({"q": "\udce9"}, {"café.txt"}),
        ({"q": "projects/"}, set()),
        ({"q": ""}, ALL),
        ({"job": "nobody"}, set()),
        ({"project": "nothing", "sort": "path"}, set()),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),  # a set has no order
)
@pytest.mark.parametrize("sort", ["created_at", "-file_size", "path"])
def test_a_list_holds_what_passes_its_filters_once_each(
    library: FileManager, asked: dict[str, Any], expected: set[str], sort: str
) -> None:
    found = names(walk(library.list_files, **{"sort": sort, **asked}, limit=2))
    assert sorted(found) == sorted(expected)


def test_files_are_found_by_their_own_id(library: FileManager) -> None:
    (record, *_) = library.get_job_files("still")
    assert list(library.list_files(q=record.file_id.upper())) == [record]


@pytest.mark.usefixtures("most_rows")
@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("created_at", lambda record: (record.created_at, record.file_id)),
        ("file_size", lambda record: (record.file_size, record.file_id)),
        ("path", lambda record: os.fsencode(record.path)),
    ],
)
@pytest.mark.parametrize("project", [None, "osaka"])
def test_files_are_sorted_both_ways_and_equal_ones_by_their_ids(
    library: FileManager, sort: str, key: Callable[[FileRecord], Any], project: str | None
) -> None:
    rising = walk(library.list_files, sort=sort, limit=2, project=project)
    assert rising == sorted(rising, key=key)
    assert walk(library.list_files, sort=f"-{sort}", limit=2, project=project) == rising[::-1]


def test_the_newest_files_come_first_unless_one_asks_otherwise(library: FileManager) -> None:
    found = names(walk(library.list_files))
    assert found[0] == "café.txt"
    assert set(found[-2:]) == {"Hero_Front.png", "notes.txt"}


def test_a_file_of_no_job_is_listed_without_one(library: FileManager) -> None:
    (record,) = library.list_files(min_size=9)
    assert (record.job_id, record.project_id) == (None, None)
    assert record == library.get_file_metadata(record.path)


def test_what_rests_in_the_trash_is_not_listed_until_it_is_back(library: FileManager) -> None:
    library.update_job("shot_2", pinned=False)
    library.delete_job_files("shot_2")
    assert names(walk(library.list_files)).count("clip.mp4") == 0
    for asked in ({"tag": "Hero shot"}, {"q": "shot_2"}):
        assert list(library.list_files(**asked)) == []  # type: ignore[arg-type]
        assert list(library.list_jobs(**asked)) == []  # type: ignore[arg-type]
    assert [project.job_count for project in library.list_projects(q="tokyo")] == [1]
    library.restore_job_files("shot_2")
    assert names(walk(library.list_files, tag="Hero shot")) == ["clip.mp4"]


def test_a_job_restored_beside_a_new_one_of_its_id_has_the_marks_of_both(
    library: FileManager, make_tree: MakeTree
) -> None:
    library.delete_job_files("still")
    make_tree({"d.png": b"d"})
    library.organize_output("still", "osaka", files=["d.png"])
    library.update_job("still", pinned=True)
    assert names(walk(library.list_files, tag="night", project="osaka")) == []
    library.restore_job_files("still")
    assert set(names(walk(library.list_files, tag="night", project="osaka"))) == {
        "b.png",
        "c.png",
        "d.png",
    }
    assert [job.job_id for job in library.list_jobs(pinned=True)] == ["shot_2", "still"][::-1]


def test_a_tag_that_was_taken_away_finds_nothing(library: FileManager) -> None:
    library.update_job("still", tags=["day"], pinned=True)
    assert [job.job_id for job in library.list_jobs(tag="night")] == ["shot_2"]
    assert [job.job_id for job in library.list_jobs(tag="day")] == ["still"]
    library.update_job("still", tags=[], pinned=False)
    assert list(library.list_jobs(tag="day")) == []
    assert [job.job_id for job in library.list_jobs(pinned=True)] == ["shot_2"]


# Jobs and projects


def test_a_listed_job_has_its_numbers_and_its_marks(library: FileManager) -> None:
    (job,) = library.list_jobs(pinned=True)
    assert (job.job_id, job.project_id, job.pinned) == ("shot_2", "tokyo", True)
    assert (job.file_count, job.total_size, job.tags) == (1, 3, ("Hero shot", "night"))
    assert job.created_at == library.get_job_files("shot_2").created_at


@pytest.mark.usefixtures("most_rows")
@pytest.mark.parametrize("limit", [1, 200])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["empty", "still", "shot_2", "shot_1"]),
        ({"sort": "created_at"}, ["shot_1", "shot_2", "still", "empty"]),
        ({"sort": "job_id"}, ["empty", "shot_1", "shot_2", "still"]),
        ({"sort": "-job_id", "project": "osaka"}, ["still", "empty"]),
        ({"sort": "total_size"}, ["empty", "shot_2", "shot_1", "still"]),
        ({"sort": "-total_size", "min_size": 6}, ["still", "shot_1"]),
        ({"sort": "total_size", "min_size": 6}, ["shot_1", "still"]),
        ({"project": "tokyo"}, ["shot_2", "shot_1"]),
        ({"tag": "night"}, ["still", "shot_2"]),
        ({"tag": "night", "project": "tokyo"}, ["shot_2"]),
        ({"pinned": False, "min_size": 1}, ["still", "shot_1"]),
        ({"since": "2026-02-05"}, ["empty", "still"]),
        ({"until": "2026-02-05T04:05:06Z"}, ["shot_2", "shot_1"]),
        ({"q": "HOT"}, ["shot_2", "shot_1"]),
        ({"q": "hero"}, ["shot_2"]),
        ({"q": "osa"}, ["empty", "still"]),
    ],
    ids=str,
)
def test_jobs_are_listed_by_what_one_asks(
    library: FileManager, asked: dict[str, Any], expected: list[str], limit: int
) -> None:
    assert [job.job_id for job in walk(library.list_jobs, **asked, limit=limit)] == expected


@pytest.mark.usefixtures("most_rows")
@pytest.mark.parametrize("limit", [1, 200])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["osaka", "tokyo"]),
        ({"sort": "-project_id"}, ["tokyo", "osaka"]),
        ({"sort": "total_size"}, ["osaka", "tokyo"]),
        ({"sort": "-total_size"}, ["tokyo", "osaka"]),
        ({"min_size": 9}, ["tokyo"]),
        ({"sort": "total_size", "min_size": 9}, ["tokyo"]),
        ({"q": "OK"}, ["tokyo"]),
    ],
    ids=str,
)
def test_projects_are_listed_by_what_one_asks(
    library: FileManager, asked: dict[str, Any], expected: list[str], limit: int
) -> None:
    found = walk(library.list_projects, **asked, limit=limit)
    assert [project.project_id for project in found] == expected


def test_a_listed_project_has_the_numbers_of_its_summary(library: FileManager) -> None:
    for project in library.list_projects():
        summary = library.get_project_summary(project.project_id)
        for name in ("job_count", "file_count", "total_size"):
            assert getattr(project, name) == getattr(summary, name)


def test_a_library_that_was_not_begun_has_empty_lists(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    manager = open_manager(make_tree({"a.png": b"a"}))
    for sort in ("created_at", "file_size", "path"):
        assert list(manager.list_files(sort=sort, project="p", tag="t")) == []
        assert list(manager.list_files(sort=sort)) == []
    assert [*manager.list_jobs(sort="total_size"), *manager.list_projects(sort="total_size")] == []


# Pages


def test_a_page_that_looked_at_many_may_be_empty_and_leads_on(
    library: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_ROWS", 2)
    page = library.list_files(q="Hero_Front", sort="-created_at")
    assert list(page) == []
    assert page.next_cursor is not None
    assert names(walk(library.list_files, q="Hero_Front")) == ["Hero_Front.png"]


def test_the_last_page_leads_nowhere(library: FileManager) -> None:
    assert library.list_files(limit=6).next_cursor is None
    assert library.list_files(limit=5).next_cursor is not None


def test_a_cursor_holds_no_absolute_path(library: FileManager) -> None:
    cursor = library.list_files(limit=5, sort="path").next_cursor
    assert cursor is not None
    said = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    assert len(said) == 2
    assert bytes.fromhex(said[1]).startswith(b"projects/")


def test_a_cursor_holds_after_the_index_was_made_anew(library: FileManager) -> None:
    for sort in ("created_at", "-file_size", "path"):
        first = library.list_files(limit=3, sort=sort)
        expected = library.list_files(limit=3, sort=sort, cursor=first.next_cursor)
        delete_index(Path(library.settings.output_dir))
        library.update_job("empty", tags=[sort])
        assert library.list_files(limit=3, sort=sort, cursor=first.next_cursor) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "-created_at"},
        {"sort": "file_size"},
        {"project": "tokyo"},
        {"q": "a"},
        {"since": "2026-01-01"},
        {"pinned": False},
    ],
    ids=str,
)
def test_a_cursor_of_another_question_is_refused_and_says_so(
    library: FileManager, other: dict[str, Any]
) -> None:
    asked = {"limit": 2, "sort": "created_at"}
    cursor = library.list_files(**asked).next_cursor  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"^cursor: .* belongs to another list"):
        library.list_files(**{**asked, **other}, cursor=cursor)
    with pytest.raises(InvalidInputError, match="belongs to another list"):
        library.list_jobs(sort="created_at", cursor=cursor)
    # How many one wants is no part of the question, nor how a time or a text is written.
    assert len(list(library.list_files(sort="created_at", limit=200, cursor=cursor))) == 4


def test_one_time_may_be_said_in_several_ways(library: FileManager) -> None:
    tokyo = timezone(timedelta(hours=9))
    page = library.list_files(since="2026-02-04", limit=1)
    for same in (
        "2026-02-04T00:00:00Z",
        "2026-02-04T09:00:00+09:00",
        date(2026, 2, 4),
        datetime(2026, 2, 4, tzinfo=UTC),
        datetime(2026, 2, 4, 9, tzinfo=tokyo),
    ):
        again = library.list_files(since=same, limit=1)
        assert (list(again), again.next_cursor) == (list(page), page.next_cursor)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def digest(manager: FileManager, sort: str) -> str:
    cursor = manager.list_files(limit=1, sort=sort).next_cursor
    assert cursor is not None
    found: list[str] = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return found[0]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "\udce9",
        "W10",
        "e30",
        "[" * 9000,
        7,
        b"",
        forged(),
        forged(None),
        "A" * 20_000,
    ],
)
def test_what_is_no_cursor_is_refused(library: FileManager, cursor: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^cursor: "):
        library.list_files(cursor=cursor)


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("created_at", []),
        ("created_at", [1]),
        ("created_at", [1, "a", "b"]),
        ("created_at", ["1", "a"]),
        ("created_at", [True, "a"]),
        ("created_at", [1.5, "a"]),
        ("created_at", [2**70, "a"]),
        ("created_at", [1, None]),
        ("created_at", [1, "\udce9"]),
        ("path", ["zz"]),
        ("path", [7]),
    ],
    ids=str,
)
def test_a_forged_cursor_is_refused(library: FileManager, sort: str, key: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="is no cursor of an earlier answer"):
        library.list_files(sort=sort, cursor=forged(digest(library, sort), *key))


def test_a_forged_cursor_shows_nothing_but_what_the_filters_let_pass(library: FileManager) -> None:
    page = library.list_files(since="2026-02-05", sort="created_at", limit=1)
    assert page.next_cursor is not None
    said = json.loads(base64.urlsafe_b64decode(page.next_cursor + "=="))
    before_all = forged(said[0], 0, "")
    found = library.list_files(since="2026-02-05", sort="created_at", cursor=before_all)
    assert set(names(list(found))) == {"b.png", "c.png", "café.txt"}


# What cannot be asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", 0),
        ("limit", 201),
        ("limit", True),
        ("limit", "10"),
        ("sort", "name"),
        ("sort", "--path"),
        ("sort", None),
        ("since", "yesterday"),
        ("since", "2026-02-04T00:00:00"),
        ("since", datetime(2026, 2, 4)),  # noqa: DTZ001 - without a zone on purpose
        ("until", 1770091506),
        ("tag", ""),
        ("tag", " x"),
        ("tag", "x" * 101),
        ("pinned", "true"),
        ("pinned", 1),
        ("min_size", -1),
        ("min_size", True),
        ("min_size", 2**63),
        ("q", "x" * 201),
        ("q", "a\0b"),
        ("q", 5),
        ("file_type", "picture"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_name(
    library: FileManager, field: str, value: object
) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{field}: ") as caught:
        library.list_files(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["project", "job"])
def test_an_id_that_no_job_and_no_project_can_have_is_refused(
    library: FileManager, field: str
) -> None:
    with pytest.raises(InvalidIdentifierError, match=rf"^{field}: "):
        library.list_files(**{field: "../x"})  # type: ignore[arg-type]


def test_times_before_and_after_all_others_can_be_asked(library: FileManager) -> None:
    everything = library.list_files(since="0001-01-01T00:00:00+23:59", until="9999-12-31")
    assert len(list(everything)) == len(ALL)


# A job or a project in parts


def test_a_job_is_answered_in_parts_where_that_is_asked(library: FileManager) -> None:
    first = library.get_job_files("shot_1", limit=1)
    assert first.next_cursor is not None
    last = library.get_job_files("shot_1", limit=1, cursor=first.next_cursor)
    assert last.next_cursor is None
    whole = library.get_job_files("shot_1")
    assert {*first.files, *last.files} == set(whole.files)
    for part in (first, last):
        assert (len(part.files), part.file_count, part.total_size) == (1, 2, 6)


def test_a_job_that_fits_is_answered_whole_and_in_its_order(library: FileManager) -> None:
    assert library.get_job_files("shot_1", limit=2) == library.get_job_files("shot_1")
    assert library.get_project_files("tokyo", limit=3) == library.get_project_files("tokyo")


def test_a_project_is_answered_in_parts_with_the_jobs_of_their_files(library: FileManager) -> None:
    parts = [library.get_project_files("tokyo", limit=1)]
    while parts[-1].next_cursor is not None:
        parts.append(library.get_project_files("tokyo", limit=1, cursor=parts[-1].next_cursor))
    whole = library.get_project_files("tokyo")
    assert [[job.job_id for job in part.jobs] for part in parts] == [
        ["shot_1"],
        ["shot_1"],
        ["shot_2"],
    ]
    assert {record for part in parts for record in part.files} == set(whole.files)
    for part in parts:
        numbers = (part.job_count, part.file_count, part.total_size)
        assert numbers == (2, 3, whole.total_size)


def test_a_project_of_more_jobs_than_asked_for_is_answered_in_parts(library: FileManager) -> None:
    assert len(library.get_project_files("osaka", limit=2).jobs) == 2
    library.organize_output("empty_too", "osaka", files=[])
    project = library.get_project_files("osaka", limit=2)
    assert ([job.job_id for job in project.jobs], project.job_count) == (["still"], 3)
    assert (len(project.files), project.next_cursor) == (2, None)


@pytest.mark.parametrize("limit", [0, 1001, "5"])
def test_a_part_has_one_to_a_thousand_files(library: FileManager, limit: Any) -> None:
    for ask in (library.get_job_files, library.get_project_files):
        with pytest.raises(InvalidInputError, match=r"^limit: .* from 1 to 1000"):
            ask("tokyo", limit=limit)


def test_a_cursor_of_one_job_is_none_of_another(library: FileManager) -> None:
    cursor = library.get_job_files("shot_1", limit=1).next_cursor
    with pytest.raises(InvalidInputError, match="belongs to another list"):
        library.get_job_files("still", cursor=cursor)
