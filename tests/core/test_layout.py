from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_comfy_files.core.errors import InvalidIdentifierError, UnsafePathError
from flask_comfy_files.core.layout import (
    DOCUMENT,
    comparable,
    file_path,
    inbox_owner,
    is_reserved,
    require_identifier,
    require_relative_path,
    split,
    target_name,
)


@pytest.mark.parametrize(
    "value",
    ["a", "7", "job_1", "kai_nakamura_56321", "Tower-Anime.s01", "a" * 100, "CONsole", "x.con"],
)
def test_an_id_that_can_name_a_folder_anywhere_is_taken_as_it_is(value: str) -> None:
    assert require_identifier("job_id", value) == value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("a" * 101, "longer than 100", id="101 characters"),
        pytest.param("x" * 10_000, "longer than 100", id="10,000 characters"),
        pytest.param("_job", "must start with a letter or digit", id="starts with underscore"),
        pytest.param(".job", "must start", id="starts with dot"),
        pytest.param("-rf", "must start", id="starts with dash"),
        pytest.param("a b", "may hold only", id="space"),
        pytest.param("a/b", "may hold only", id="slash"),
        pytest.param("a\\b", "may hold only", id="backslash"),
        pytest.param("..", "must start", id="two dots"),
        pytest.param("a..b", "'..'", id="two dots inside"),
        pytest.param("a.", "end with a dot", id="trailing dot"),
        pytest.param("job\n", "may hold only", id="trailing newline"),
        pytest.param("job\0", "may hold only", id="NUL"),
        pytest.param("été", "may hold only", id="accents"),
        pytest.param("٣٤", "must start", id="Arabic digits"),
        pytest.param("job_\udcff", "may hold only", id="not UTF-8"),
        pytest.param("NUL", "device", id="Windows device"),
        pytest.param("com1.png", "device", id="Windows device with extension"),
        pytest.param("lpt9", "device", id="Windows device in lower case"),
        pytest.param(7, "not a string", id="number"),
        pytest.param(None, "not a string", id="null"),
        pytest.param(["a"], "not a string", id="list"),
    ],
)
def test_an_id_that_some_system_cannot_use_is_refused_and_quoted(
    value: object, problem: str
) -> None:
    with pytest.raises(InvalidIdentifierError, match=problem) as caught:
        require_identifier("job_id", value)
    message = str(caught.value)
    assert message.startswith("job_id: ")
    assert (ascii(value)[:20] if isinstance(value, str) else repr(value)) in message
    assert len(message) < 400
    assert message.isascii() or "…" in message


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a.png", "a.png"),
        ("./sub//a.png", "sub/a.png"),
        ("sub/./a.png/", "sub/a.png"),
        ("-rf", "-rf"),
        ("a..b/...", "a..b/..."),
        ("アニメ/キャラ 01 – été_00001_.png", "アニメ/キャラ 01 – été_00001_.png"),
        ("two\nlines 'and' \"quotes\".png", "two\nlines 'and' \"quotes\".png"),
        ("not-utf-8-\udcff\udcfe.png", "not-utf-8-\udcff\udcfe.png"),
        ("é" * 127 + "x", "é" * 127 + "x"),
    ],
)
def test_a_path_below_the_root_is_taken_without_its_empty_parts(value: str, path: str) -> None:
    assert require_relative_path("files[0]", value) == path


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param("/etc/passwd", "absolute", id="absolute"),
        pytest.param("..", "'..'", id="parent"),
        pytest.param("a/../../b", "'..'", id="parent inside"),
        pytest.param("a/..", "'..'", id="parent at the end"),
        pytest.param("a\0b", "NUL", id="NUL"),
        pytest.param("", "names no file", id="empty"),
        pytest.param("./.", "names no file", id="the root itself"),
        pytest.param("a\ud800b", "surrogate", id="half a surrogate pair"),
        pytest.param("é" * 128, "longer", id="256 bytes in a name"),
        pytest.param("/".join(["a" * 200] * 21), "longer", id="longer than any path"),
        pytest.param(b"a.png", "not a string", id="bytes"),
        pytest.param(None, "not a string", id="null"),
    ],
)
def test_a_path_that_leads_elsewhere_or_nowhere_is_refused(value: object, problem: str) -> None:
    with pytest.raises(UnsafePathError, match=problem) as caught:
        require_relative_path("files[3]", value)
    assert str(caught.value).startswith("files[3]: ")


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        (DOCUMENT, True),
        (f".{DOCUMENT}.new", True),
        (f"{DOCUMENT}.damaged-20260101", True),
        (".comfy_files/index.sqlite3", True),
        (".comfy_files", True),
        (f"sub/{DOCUMENT}", False),
        (".comfy_files_mine/x.png", False),
        ("projects/p/j/x.png", False),
    ],
)
def test_only_our_own_files_are_reserved(path: str, reserved: bool) -> None:  # noqa: FBT001
    assert is_reserved(path) is reserved


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("inbox/job_1/run/x.png", "job_1"),
        ("inbox/job_1/x.png", "job_1"),
        ("inbox/x.png", None),
        ("sub/inbox/job_1/x.png", None),
        ("inboxes/job_1/x.png", None),
    ],
)
def test_the_folder_below_inbox_names_the_job(path: str, owner: str | None) -> None:
    assert inbox_owner(path) == owner


def test_the_first_file_of_its_kind_has_no_number_in_its_name() -> None:
    assert target_name("job_1", "1770091506", "image", 1, ".png") == "job_1_1770091506_image.png"
    assert target_name("job_1", "1770091506", "image", 2, "") == "job_1_1770091506_image_2"


def test_ids_that_differ_only_in_case_compare_equal() -> None:
    assert comparable("Job_A") == comparable("jOB_a") != comparable("job-a")


def test_a_path_splits_into_folder_and_name_and_joins_below_the_root(tmp_path: Path) -> None:
    assert split("a/b/c.png") == ("a/b", "c.png")
    assert split("c.png") == ("", "c.png")
    assert file_path(str(tmp_path), "a/c.png") == str(tmp_path / "a/c.png")
    assert os.path.isdir(file_path(str(tmp_path), ""))  # noqa: PTH112
