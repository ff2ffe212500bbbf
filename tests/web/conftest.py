from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core.layout import LOCK
from flask_comfy_files.web import worker
from tests.web.described import DescribedClient

MakeHost = Callable[..., Flask]
Register = Callable[..., FileManager]

# No fixture is called `app`: pytest-flask would push a request context for it and hide a missing one.


@pytest.fixture(autouse=True)
def no_worker_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads that finish pending jobs wait for longer than any test takes."""
    monkeypatch.setattr(worker, "_FIRST_DELAY_S", 3600.0)


@pytest.fixture
def register() -> Iterator[Register]:
    """Return what adds the extension to a host app, and closes its library when the test ends."""
    with contextlib.ExitStack() as stack:

        def add(host: Flask, *arguments: Any, **settings: Any) -> FileManager:
            add_file_manager_routes(host, *arguments, **settings)
            host.test_client_class = DescribedClient
            manager: FileManager = host.extensions["comfy_files"]
            stack.callback(manager.close)
            return manager

        yield add


@pytest.fixture
def make_host(output_root: Path, register: Register) -> MakeHost:
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


_HOLD_THE_LOCK = """
import sys
from flask_comfy_files.core.lock import hold
with hold(sys.argv[1], 5):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def lock_held_elsewhere(root: Path) -> Iterator[None]:
    """Hold the lock of a library in another process."""
    lock = root / LOCK
    lock.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-c", _HOLD_THE_LOCK, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()
