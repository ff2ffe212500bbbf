"""Every example of the documentation runs, in the order of its page, over real output; so does the example app."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import example_app
from flask_comfy_files import FileManager, FileManagerAPI
from tests.docs.pages import Block, Page, pages

PAGES = list(pages())
LANGUAGES = {"python", "console", "json", "text"}
"""``text`` is what cannot run here: other programs, trees, and packages that are no dependency."""

SHOWS_EXIT_CODE = "; echo $?"


class Reader:
    """Does what a person does who follows one page from its beginning."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._names: dict[str, Any] = {"__name__": "example"}
        self._stack = stack
        self._closed: set[int] = set()

    def follow(self, page: Page) -> None:
        for block in page.blocks:
            if block.language == "python":
                self._run(page, block)
            elif block.language == "console":
                for command, expected in read_session(block.text):
                    assert_matches(self._call(command), expected, f"{page.name}: {command}")

    def _run(self, page: Page, block: Block) -> None:
        source = "\n" * (block.line - 1) + block.text
        try:
            exec(compile(source, page.name, "exec"), self._names)  # noqa: S102 - our own pages
        finally:
            self._see_to_closing()

    def _call(self, command: str) -> list[str]:
        app = self._names.get("app")
        if not isinstance(app, Flask):
            app = self._names["app"] = example_app.create_app()
            self._see_to_closing()
        words = shlex.split(command.removesuffix(SHOWS_EXIT_CODE))
        assert words[:2] == ["flask", "files"]
        result = app.test_cli_runner().invoke(args=words[1:])
        lines = result.output.splitlines()
        if command.endswith(SHOWS_EXIT_CODE):
            return [*lines, str(result.exit_code)]
        assert (result.exit_code, result.exception) == (0, None), result.output
        return lines

    def _see_to_closing(self) -> None:
        for value in self._names.values():
            if id(value) not in self._closed and (manager := manager_of(value)) is not None:
                self._closed.add(id(value))
                self._stack.callback(manager.close)


def manager_of(value: object) -> FileManager | None:
    if isinstance(value, Flask):
        manager: FileManager | None = value.extensions.get("comfy_files")
        return manager
    if isinstance(value, FileManagerAPI):
        return value.manager
    return value if isinstance(value, FileManager) else None


def read_session(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with the lines that it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.splitlines()
        yield command, lines


def assert_matches(actual: list[str], expected: list[str], where: str) -> None:
    """Compare lines, in which ``…`` stands for anything; a command that shows none may print any."""
    if not expected:
        return
    patterns = [re.escape(line).replace("…", ".+") for line in expected]
    matches = len(actual) == len(patterns) and all(map(re.fullmatch, patterns, actual))
    assert matches, f"{where}\n" + "\n".join(actual)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if {block.language for block in page.blocks} & {"python", "console"}],
    ids=lambda page: page.name,
)
def test_the_examples_of_a_page_run(
    page: Page, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_FILES_OUTPUT_DIR", str(output_root))
    monkeypatch.chdir(output_root.parent)
    with contextlib.ExitStack() as stack:
        Reader(stack).follow(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Page) -> None:
    assert {block.language for block in page.blocks} <= LANGUAGES
    assert page.text.count("```") == 2 * len(page.blocks)
    for block in page.blocks:
        if block.language == "console":
            assert block.text.startswith("$ flask files ")
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "text":
            assert "$ flask files" not in block.text


def test_the_example_app_creates_completes_and_lists_a_job(output_root: Path) -> None:
    app = example_app.create_app(output_dir=output_root)
    client = app.test_client()

    created = client.post("/api/jobs", json={"job_id": "batch", "project_id": "tokyo"})
    assert (created.status_code, created.json["status"]) == (201, "queued")  # type: ignore[index]

    completed = client.post("/api/jobs/batch/complete", json={"project_id": "tokyo"}).json
    assert completed is not None
    assert (completed["status"], completed["file_count"]) == ("completed", 4)
    assert (output_root / completed["organized_files"][0]["path"]).is_file()

    assert client.get("/api/jobs").json == {
        "jobs": [{"job_id": "batch", "project_id": "tokyo", "status": "completed"}]
    }
    job = client.get("/api/files/jobs/batch").json
    assert job is not None
    assert job["files"] == completed["organized_files"]

    assert client.post("/api/jobs/unknown/complete", json={}).status_code == 404
    assert client.get("/api/files/jobs/unknown").status_code == 404
    app.extensions["comfy_files"].close()
