from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import config
from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import ConfigurationError

GIVEN = {"COMFY_FILES_OUTPUT_DIR": "/srv/output"}


def read(
    mapping: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, **given: Any
) -> Settings:
    return Settings.from_mapping(GIVEN if mapping is None else mapping, given, environ or {})


def test_the_defaults_are_those_that_the_documentation_promises() -> None:
    assert asdict(read()) == {
        "output_dir": "/srv/output",
        "url_prefix": "/api/files",
        "complete_route": "/api/jobs/<job_id>/complete",
        "default_project": "default",
        "retention_days": 30,
        "trash_days": 7,
        "retention_policy": None,
        "auto_cleanup": False,
        "exclude": (),
        "comfyui_url": None,
        "authorize": None,
        "token": (),
        "trust_loopback": False,
        "public_read": False,
        "show_paths": True,
        "x_accel_prefix": None,
        "min_free_bytes": 16 * 1024**2,
        "library_id": None,
        "lock_timeout": 10.0,
        "request_budget_seconds": 10.0,
        "request_budget_bytes": 2 * 1024**3,
        "metrics_route": False,
        "metrics_registry": None,
        "thumbnail_cache_bytes": 1024**3,
    }


def test_a_keyword_wins_over_the_config_and_the_config_over_the_environment() -> None:
    environ = {"COMFY_FILES_OUTPUT_DIR": "/from/environment"}
    assert read(GIVEN, environ, output_dir="/from/keyword").output_dir == "/from/keyword"
    assert read(GIVEN, environ).output_dir == "/srv/output"
    assert read({}, environ).output_dir == "/from/environment"


def test_only_our_keys_of_a_host_config_are_looked_at() -> None:
    assert read({**GIVEN, "SECRET_KEY": object(), "COMFY": 1, "RETENTION_DAYS": "x"}) == read()


def test_none_stands_for_not_set_in_a_keyword_and_in_the_config() -> None:
    given = {**GIVEN, "COMFY_FILES_TRASH_DAYS": 3, "COMFY_FILES_RETENTION_DAYS": None}
    settings = read(given, trash_days=None, url_prefix=None)
    assert (settings.trash_days, settings.retention_days, settings.url_prefix) == (
        3,
        30,
        "/api/files",
    )


def test_without_any_output_folder_the_start_fails_and_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "DEFAULT_OUTPUT_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="COMFY_FILES_OUTPUT_DIR is None: set it to"):
        read({})


def test_the_default_output_folder_is_taken_where_it_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "DEFAULT_OUTPUT_DIR", str(tmp_path))
    assert read({}).output_dir == str(tmp_path)


def test_a_configured_folder_that_is_missing_does_not_stop_the_start(tmp_path: Path) -> None:
    assert read(output_dir=tmp_path / "unplugged").output_dir == str(tmp_path / "unplugged")


def test_a_relative_folder_is_fixed_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read(output_dir="out/../put/")
    monkeypatch.chdir("/")
    assert settings.output_dir == str(tmp_path / "put")


def test_a_folder_may_start_with_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/kai")
    assert read(output_dir="~/out").output_dir == "/home/kai/out"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("output_dir", 7, id="output_dir number"),
        pytest.param("output_dir", " ", id="output_dir blank"),
        pytest.param("output_dir", "a\0b", id="output_dir NUL"),
        pytest.param("output_dir", "/", id="output_dir root of the system"),
        pytest.param("output_dir", "/srv/..", id="output_dir root by detour"),
        pytest.param("url_prefix", "api", id="url_prefix without slash"),
        pytest.param("url_prefix", "/", id="url_prefix root"),
        pytest.param("url_prefix", "/<x>", id="url_prefix variable"),
        pytest.param("url_prefix", "/a?b", id="url_prefix query"),
        pytest.param("url_prefix", 1, id="url_prefix number"),
        pytest.param("complete_route", "/done", id="complete_route without variable"),
        pytest.param("complete_route", "/<a>/<b>", id="complete_route two variables"),
        pytest.param("complete_route", "<a>", id="complete_route without slash"),
        pytest.param("default_project", "a b", id="default_project space"),
        pytest.param("default_project", "", id="default_project empty"),
        pytest.param("retention_days", -1, id="retention_days negative"),
        pytest.param("retention_days", 1.5, id="retention_days fraction"),
        pytest.param("retention_days", True, id="retention_days flag"),
        pytest.param("retention_days", "30", id="retention_days text"),
        pytest.param("retention_days", 36_501, id="retention_days beyond a century"),
        pytest.param("trash_days", float("nan"), id="trash_days NaN"),
        pytest.param("comfyui_url", "127.0.0.1:8188", id="comfyui_url without scheme"),
        pytest.param("comfyui_url", "file:///etc/passwd", id="comfyui_url file"),
        pytest.param("comfyui_url", "http://", id="comfyui_url without host"),
        pytest.param("authorize", "yes", id="authorize text"),
        pytest.param("trust_loopback", "false", id="trust_loopback text"),
        pytest.param("public_read", 1, id="public_read number"),
        pytest.param("show_paths", "no", id="show_paths text"),
        pytest.param("x_accel_prefix", "/_comfy_files", id="x_accel_prefix without its last slash"),
        pytest.param(
            "x_accel_prefix", "_comfy_files/", id="x_accel_prefix without its first slash"
        ),
        pytest.param("x_accel_prefix", "/", id="x_accel_prefix of everything"),
        pytest.param("x_accel_prefix", "/a/../b/", id="x_accel_prefix with dots"),
        pytest.param("x_accel_prefix", "//a/", id="x_accel_prefix of another host"),
        pytest.param("x_accel_prefix", "/a b/", id="x_accel_prefix with a space"),
        pytest.param("x_accel_prefix", "/a/\r\nX: y/", id="x_accel_prefix with a header"),
        pytest.param("x_accel_prefix", True, id="x_accel_prefix flag"),
        pytest.param("min_free_bytes", -1, id="min_free_bytes negative"),
        pytest.param("library_id", "../x", id="library_id path"),
        pytest.param("lock_timeout", 0, id="lock_timeout zero"),
        pytest.param("lock_timeout", float("inf"), id="lock_timeout endless"),
        pytest.param("lock_timeout", True, id="lock_timeout flag"),
        pytest.param("request_budget_seconds", "10", id="request_budget_seconds text"),
        pytest.param("request_budget_bytes", 0, id="request_budget_bytes zero"),
        pytest.param("thumbnail_cache_bytes", -1, id="thumbnail_cache_bytes negative"),
    ],
)
@pytest.mark.parametrize("is_keyword", [True, False], ids=["keyword", "config key"])
def test_a_wrong_value_is_refused_with_its_key_its_value_and_what_to_write(
    name: str,
    value: object,
    is_keyword: bool,  # noqa: FBT001
) -> None:
    key = name if is_keyword else f"COMFY_FILES_{name.upper()}"
    config = GIVEN if is_keyword else {**GIVEN, key: value}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(config, {name: value} if is_keyword else {}, {})
    assert str(caught.value).startswith(f"{key} is ")
    assert any(word in str(caught.value) for word in ("write", "it ", "must"))


def test_every_setting_refuses_an_object_of_no_use() -> None:
    for name in asdict(read()):
        if name != "authorize":
            with pytest.raises(ConfigurationError, match=name):
                Settings.from_mapping(GIVEN, {name: object}, {})


def test_a_misspelt_key_is_refused_with_the_key_that_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"COMFY_FILES_RETENTON_DAYS.*RETENTION_DAYS"):
        read({**GIVEN, "COMFY_FILES_RETENTON_DAYS": 3})
    with pytest.raises(ConfigurationError, match="there is no such setting; remove it"):
        read(qqqqqq=1)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [("one", ("one",)), (["one", "two"], ("one", "two")), (("one",), ("one",)), ({"x"}, ("x",))],
)
def test_a_token_is_one_or_several(value: object, tokens: tuple[str, ...]) -> None:
    assert read(token=value).token == tokens


@pytest.mark.parametrize(
    "value", ["", " s3cret", "s3cret\n", [], ["s3cret", ""], ["s3cret", 7], b"s3cret", "s3crét", 7]
)
def test_a_wrong_token_is_refused_without_being_repeated(value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(token=value)
    assert "s3cr" not in str(caught.value)
    assert "s3cr" not in repr(caught.value)


def test_slashes_at_the_end_of_addresses_do_not_count() -> None:
    settings = read(url_prefix="/api/x/", comfyui_url="http://127.0.0.1:8188/")
    assert (settings.url_prefix, settings.comfyui_url) == ("/api/x", "http://127.0.0.1:8188")


def test_settings_cannot_be_changed_once_they_are_checked() -> None:
    with pytest.raises(AttributeError):
        read().trash_days = 0  # type: ignore[misc]
