"""The page of the REST interface, as a person with a browser finds it; needs Debian's ``chromium``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.programs import path_of
from tests.web.server import faultless_gunicorn

pytestmark = pytest.mark.programs

TOKEN = "sesame"
STUDIO = """
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from flask_comfy_files import add_file_manager_routes

studio = Flask("studio")
add_file_manager_routes(studio, output_dir={root!r}, token={token!r})
app = DispatcherMiddleware(Flask("site"), {{"/anime/studio": studio}})
"""


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path_of("chromium"), args=["--no-sandbox"]
        )
        yield browser.new_page()
        browser.close()


@pytest.fixture
def address(output_root: Path, tmp_path: Path) -> Iterator[str]:
    studio = STUDIO.format(root=str(output_root), token=TOKEN)
    with faultless_gunicorn(tmp_path, studio) as server:
        yield f"{server.address}/anime/studio/api/files"


def test_a_person_reads_the_interface_and_tries_it_below_a_path_of_its_own(
    page: Page, address: str
) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    answer = page.goto(f"{address}/docs")
    assert answer is not None
    assert "'unsafe" not in answer.headers["content-security-policy"]

    expect(page.get_by_role("heading", name="flask-comfy-files")).to_be_visible()
    page.get_by_text("Get the library in numbers, and how it is.").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response(f"{address}/status") as stranger:
        page.get_by_role("button", name="Execute").click()
    assert stranger.value.status == 401

    page.get_by_role("button", name="Authorize", exact=True).click()
    page.get_by_role("textbox").fill(TOKEN)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").click()
    with page.expect_response(f"{address}/status") as friend:
        page.get_by_role("button", name="Execute").click()
    assert friend.value.status == 200
    expect(page.locator(".live-responses-table")).to_contain_text('"total_files": 0')

    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert [text for text in complaints if "401" not in text] == []


def test_the_page_can_be_used_without_a_mouse(page: Page, address: str) -> None:
    page.goto(f"{address}/docs")
    line = page.get_by_role("button", name="Get the library in numbers")
    line.wait_for()
    line.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Try it out")).to_be_visible()
