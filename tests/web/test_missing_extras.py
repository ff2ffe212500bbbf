"""What needs a package that is not installed says which, and all else works; with the packages or without."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_comfy_files.core.errors import ConfigurationError, MissingExtraError
from tests.web.answers import PREFIX, answer_of, assert_problem, organize, organized
from tests.web.conftest import MakeHost


class AnyRegistry:
    """What a host can give that has no ``prometheus_client``."""

    def register(self, collector: Any) -> None: ...

    def unregister(self, collector: Any) -> None: ...

    def collect(self) -> list[Any]:
        return []


def test_without_the_extra_the_app_starts_and_metrics_say_what_to_install(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    host = make_host(metrics_route=True)
    host.extensions["comfy_files"].organize_output("batch")
    answer = host.test_client().get("/api/files/metrics")
    problem = assert_problem(answer, 501, "missing_extra")
    assert problem["detail"] == (
        "Metrics needs a package that is not installed: pip install 'flask-comfy-files[metrics]'"
    )


def test_without_the_extra_there_is_nothing_to_register(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"flask-comfy-files\[metrics\]"):
        make_host(metrics_registry=AnyRegistry())


@pytest.mark.parametrize("value", ["REGISTRY", True, AnyRegistry])
def test_what_is_no_registry_stops_the_app(make_host: MakeHost, value: object) -> None:
    with pytest.raises(ConfigurationError, match="CollectorRegistry"):
        make_host(metrics_registry=value)


def file_id_of(client: FlaskClient, name: str) -> str:
    answer = organized(client, {"job_id": "job_1", "files": [name]})
    (found,) = (
        file["file_id"] for file in answer["organized_files"] if file["original_path"] == name
    )
    return str(found)


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("PIL", "batch_00001_.png", "media"),
        ("PIL", "vhs/loop_00001.gif", "media"),
        ("PIL", "video/ComfyUI_00001_.mp4", "video"),
        ("av", "video/ComfyUI_00001_.mp4", "video"),
    ],
)
def test_a_thumbnail_without_the_package_that_would_draw_it_says_which_one_to_install(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, missing: str, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    file_id = file_id_of(client, name)
    body = assert_problem(client.get(f"{PREFIX}/{file_id}/thumbnail"), 501, "missing_extra")
    assert f"pip install 'flask-comfy-files[{extra}]'" in body["detail"]


@pytest.mark.parametrize("name", ["audio/ComfyUI_00001.flac", "captions/cap_00001.txt"])
def test_a_file_that_shows_nothing_has_its_placeholder_without_any_package(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "av", None)
    answered = client.get(f"{PREFIX}/{file_id_of(client, name)}/thumbnail")
    assert answered.status_code == 200
    assert answered.headers["X-Comfy-Files-Placeholder"] == "no_picture"


def test_an_archive_without_its_package_says_which_one_to_install(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zipstream", None)
    organize(client, {"job_id": "batch"})
    url = f"{PREFIX}/jobs/batch"
    body = assert_problem(client.get(f"{url}/archive"), 501, "missing_extra")
    assert "pip install 'flask-comfy-files[archive]'" in body["detail"]
    assert_problem(client.get(f"{PREFIX}/jobs/unknown/archive"), 404, "job_not_found")
    assert answer_of(client.get(url))["file_count"] == 4


def test_the_command_says_as_well_which_package_to_install(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "zipstream", None)
    organize(client, {"job_id": "batch"})
    target = tmp_path / "batch.zip"
    result = client.application.test_cli_runner().invoke(
        args=["files", "archive", "batch", "-o", str(target)]
    )
    assert (result.exit_code, "[archive]" in result.output) == (5, True)
    assert not target.exists()


def test_the_page_of_the_interface_without_its_package_says_which_one_to_install(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flask_swagger_ui", None)
    for url in (f"{PREFIX}/docs", f"{PREFIX}/docs/docs.js"):
        body = assert_problem(client.get(url), 501, "missing_extra")
        assert "pip install 'flask-comfy-files[docs]'" in body["detail"]
    assert client.get(f"{PREFIX}/openapi.json").status_code == 200
