from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.web import worker

MakeHost = Callable[..., Flask]

# No fixture is called `app`: pytest-flask would push a request context for it and hide a missing one.


@pytest.fixture(autouse=True)
def no_worker_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads that finish pending jobs wait for longer than any test takes."""
    monkeypatch.setattr(worker, "_FIRST_DELAY_S", 3600.0)


@pytest.fixture
def register() -> Iterator[Callable[..., FileManager]]:
    """Return what adds the extension to a host app, and closes its library when the test ends."""
    with contextlib.ExitStack() as stack:

        def add(host: Flask, *arguments: Any, **settings: Any) -> FileManager:
            add_file_manager_routes(host, *arguments, **settings)
            manager: FileManager = host.extensions["comfy_files"]
            stack.callback(manager.close)
            return manager

        yield add


@pytest.fixture
def make_host(output_root: Path, register: Callable[..., FileManager]) -> MakeHost:
    """Return what makes a host app without routes of its own over real recordings."""

    def make(**settings: Any) -> Flask:
        host = Flask("host")
        register(host, **{"output_dir": output_root, **settings})
        return host

    return make


@pytest.fixture
def client(make_host: MakeHost) -> FlaskClient:
    """Return a client, on this machine, of a host without settings for access."""
    return make_host().test_client()
