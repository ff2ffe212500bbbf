from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core import gathering
from flask_comfy_files.core.manager import jobs as manager_module
from flask_comfy_files.web import worker
from tests.comfyui.recordings import clock_afterwards, copy_with_times
from tests.comfyui.replay import Replay, replaying
from tests.comfyui.world import Deliver, World, by_hook, by_manager
from tests.conftest import OpenManager
from tests.trees import Clock


@pytest.fixture
def clock() -> Clock:
    """Return a time of day after all recordings."""
    return clock_afterwards()


@pytest.fixture(autouse=True)
def no_waiting_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hook wait for a late history for a moment only, and no thread try again."""
    monkeypatch.setattr(gathering, "_POLL_S", 0.001)
    monkeypatch.setattr(manager_module, "_HISTORY_WAIT_S", 0.05)
    monkeypatch.setattr(worker, "_FIRST_DELAY_S", 3600.0)


@pytest.fixture
def comfyui() -> Iterator[Replay]:
    """Return a ComfyUI that answers what was recorded."""
    with replaying() as server:
        yield server


@pytest.fixture
def recorded_root(tmp_path: Path) -> Path:
    """Return a copy of the recorded tree whose files are as old as their runs say."""
    return copy_with_times(tmp_path / "output")


@pytest.fixture
def empty_root(tmp_path: Path) -> Path:
    """Return an output folder that ComfyUI has not written to yet."""
    root = tmp_path / "output"
    root.mkdir()
    return root


@pytest.fixture
def manager(empty_root: Path, open_manager: OpenManager, comfyui: Replay) -> FileManager:
    """Return a manager that asks ComfyUI."""
    return open_manager(empty_root, comfyui_url=comfyui.url)


@pytest.fixture
def host(empty_root: Path, comfyui: Replay) -> Iterator[Flask]:
    """Return a host app that asks ComfyUI and has a completion route of its own."""
    app = Flask("anime_api")
    app.add_url_rule(
        "/api/jobs/<job_id>/complete", "complete", lambda job_id: {"id": job_id}, methods=["POST"]
    )
    add_file_manager_routes(app, output_dir=empty_root, comfyui_url=comfyui.url)
    yield app
    app.extensions["comfy_files"].close()


@pytest.fixture(params=["organize", "hook"])
def deliver(request: pytest.FixtureRequest) -> Deliver:
    """Return what tells the library that a job's run has ended: by a call, or by the host's own route."""
    if request.param == "organize":
        return by_manager(request.getfixturevalue("manager"))
    return by_hook(request.getfixturevalue("host").test_client())


@pytest.fixture
def world(empty_root: Path, comfyui: Replay) -> World:
    """Return an output folder and the ComfyUI that writes to it."""
    return World(empty_root, comfyui)
