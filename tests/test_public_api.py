from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import flask_comfy_files
from flask_comfy_files import FileManager, FileManagerAPI
from flask_comfy_files.core.records import FileRecord
from tests.test_api import FILE_KEYS

NO_FLASK = """
import pkgutil, sys
import flask_comfy_files.core
from flask_comfy_files import FileManager, FileManagerAPI

with FileManager(sys.argv[1]) as manager:
    api = FileManagerAPI(manager)
    assert api.organize_job_files("batch")["file_count"] == 4
    assert api.complete_job_api("loop")["file_count"] == 2
    assert api.get_job_files_api("batch")["file_count"] == 4
    assert api.get_project_files_api("default")["file_count"] == 6
    assert api.get_system_status_api()["health"]["state"] == "ok"
for module in pkgutil.walk_packages(flask_comfy_files.core.__path__, "flask_comfy_files.core."):
    __import__(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

WEB = {"flask", "werkzeug", "click", "jinja2", "marshmallow", "webargs", "apispec"}


def python(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_exports_the_names_that_hosts_rely_on_in_their_order() -> None:
    assert flask_comfy_files.__all__ == [
        "ComfyFiles",
        "FileManager",
        "FileManagerAPI",
        "add_file_manager_routes",
    ]
    for name in flask_comfy_files.__all__:
        assert callable(getattr(flask_comfy_files, name))
    assert set(flask_comfy_files.__all__) <= set(dir(flask_comfy_files))


def test_a_name_that_is_not_exported_is_missing_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'flask_comfy_files' has no attribute 'Nope'"):
        flask_comfy_files.Nope  # noqa: B018 - the look-up itself is the test


def test_the_library_works_in_a_process_without_flask(output_root: Path) -> None:
    loaded = set(python("-c", NO_FLASK, output_root).split())
    assert "flask_comfy_files" in loaded
    assert loaded & WEB == set()


def test_importing_the_package_does_nothing_but_define_names() -> None:
    code = "import flask_comfy_files, threading; print(threading.active_count())"
    assert python("-c", code) == "1\n"


PART = ", *, limit=None, cursor=None)"
ORGANIZE = "(self, job_id, project_id=None, *, prompt_id=None, files=None)"


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (FileManager.organize_output, ORGANIZE),
        (FileManager.complete_job, ORGANIZE),
        (FileManager.get_job_files, f"(self, job_id{PART}"),
        (FileManager.get_project_files, f"(self, project_id{PART}"),
        (FileManager.get_file_metadata, "(self, file_id_or_path)"),
        (FileManager.get_project_summary, "(self, project_id)"),
        (FileManager.get_system_stats, "(self)"),
        (FileManagerAPI.__init__, "(self, manager=None)"),
        (FileManagerAPI.organize_job_files, ORGANIZE),
        (FileManagerAPI.get_job_files_api, f"(self, job_id{PART}"),
        (FileManagerAPI.get_project_files_api, f"(self, project_id{PART}"),
        (FileManagerAPI.get_system_status_api, "(self)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_signature_stays_as_hosts_call_it(function: Callable[..., Any], signature: str) -> None:
    found = inspect.signature(function)
    bare = found.replace(
        parameters=[
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in found.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == signature


def test_a_manager_takes_the_root_first_and_settings_by_name(output_root: Path) -> None:
    with FileManager(output_root, default_project="tokyo") as manager:
        assert manager.settings.output_dir == str(output_root)
        assert manager.organize_output("batch").project_id == "tokyo"


def test_a_file_record_has_the_keys_of_the_contract_and_cannot_be_changed(
    output_root: Path,
) -> None:
    names = [entry.name for entry in fields(FileRecord)]
    assert names[: len(FILE_KEYS)] == FILE_KEYS
    with FileManager(output_root) as manager:
        (record, *_) = manager.organize_output("batch")
    with pytest.raises(AttributeError):
        record.path = "elsewhere"  # type: ignore[misc]


def test_every_public_name_of_the_facade_is_documented() -> None:
    bare = [
        f"{kind.__name__}.{name}"
        for kind in (FileManager, FileManagerAPI)
        for name, member in inspect.getmembers(kind, callable)
        if not name.startswith("_") and not inspect.getdoc(member)
    ]
    assert bare == []


def test_the_installed_version_is_the_only_one_there_is() -> None:
    assert importlib.metadata.version("flask-comfy-files").count(".") == 2
    assert not hasattr(flask_comfy_files, "__version__")
