"""The command that lists files, jobs and projects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes
from tests.conftest import MakeTree

Run = Callable[..., Result]


@pytest.fixture
def run(make_tree: MakeTree) -> Iterator[Run]:
    """Return what runs ``flask files`` on a library of three files in two jobs."""
    root: Path = make_tree({"a.png": b"12345", "b.txt": b"1", "c.mp4": b"x" * 2048})
    with FileManager(root, min_free_bytes=0) as manager:
        manager.organize_output("shot", "tokyo", files=["a.png", "b.txt"])
        manager.organize_output("clip", "osaka", files=["c.mp4"])
        manager.update_job("clip", pinned=True, tags=["hero", "night"])
    host = Flask("host")
    add_file_manager_routes(host, output_dir=root)
    yield lambda *arguments: host.test_cli_runner().invoke(args=["files", "list", *arguments])
    host.extensions["comfy_files"].close()


def test_files_are_listed_in_columns(run: Run) -> None:
    result = run("--sort", "-file_size")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["2.0", "KB", "video"],
        ["5", "bytes", "image"],
        ["1", "bytes", "text"],
    ]
    assert len({line.index("projects/") for line in lines}) == 1
    assert lines == [line.rstrip() for line in lines]


def test_jobs_are_listed_with_their_marks(run: Run) -> None:
    shot, clip = run("jobs", "--sort", "total_size").output.splitlines()
    assert re.search(r"  6 bytes  2 files  tokyo/shot$", shot)
    assert re.search(r"  2\.0 KB   1 files  osaka/clip  pinned, hero, night$", clip)


def test_projects_are_listed_in_numbers(run: Run) -> None:
    assert run("projects").output.splitlines() == [
        "2.0 KB   1 jobs  1 files  osaka",
        "6 bytes  1 jobs  2 files  tokyo",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--project", "tokyo"], {"a.png", "b.txt"}),
        (["--job", "clip"], {"c.mp4"}),
        (["--type", "text"], {"b.txt"}),
        (["--tag", "hero"], {"c.mp4"}),
        (["--pinned"], {"c.mp4"}),
        (["--unpinned"], {"a.png", "b.txt"}),
        (["--min-size", "5"], {"a.png", "c.mp4"}),
        (["--q", "B.T"], {"b.txt"}),
        (["--since", "2020-01-01", "--until", "2020-01-02"], set()),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),  # a set has no order
)
def test_options_choose_files(run: Run, arguments: list[str], expected: set[str]) -> None:
    answer = json.loads(run(*arguments, "--json").output)
    assert {file["original_path"] for file in answer["files"]} == expected


def test_a_page_says_how_to_go_on(run: Run) -> None:
    first = run("--limit", "2").output.splitlines()
    assert len(first) == 3
    cursor = first[-1].removeprefix("There is more: --cursor ")
    assert len(run("--limit", "2", "--cursor", cursor).output.splitlines()) == 1


def test_all_pages_come_one_after_the_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_comfy_files.cli.listing.MOST_LISTED", 1)
    assert len(run("--all").output.splitlines()) == 3
    decoder, text, pages = json.JSONDecoder(), run("--all", "--json").output, []
    while text.strip():
        page, end = decoder.raw_decode(text.lstrip())
        pages.append(page)
        text = text.lstrip()[end:]
    assert [len(page["files"]) for page in pages] == [1, 1, 1]


def test_an_empty_list_says_so(run: Run) -> None:
    assert run("jobs", "--tag", "none").output == "There is nothing of the kind.\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["--limit", "500"], 3, "limit: 500 is not a whole number from 1 to 200"),
        (["--sort", "name"], 3, "sort: 'name' is none of created_at"),
        (["--cursor", "x"], 3, "cursor: 'x' is no cursor"),
        (["jobs", "--type", "text"], 2, "--type is no condition for jobs"),
        (["projects", "--unpinned"], 2, "--pinned is no condition for projects"),
        (["projects", "--since", "2026-01-01"], 2, "--since is no condition for projects"),
        (["--type", "picture"], 2, "'picture' is not one of"),
        (["folders"], 2, "'folders' is not one of"),
    ],
    ids=str,
)
def test_what_cannot_be_listed_is_refused(
    run: Run, arguments: list[str], exit_code: int, said: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, said in result.output) == (exit_code, True), result.output
