from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files.core.media import MEDIA, extension_of, file_type_of, media_type_of
from flask_comfy_files.core.records import FileType

RECORDED = Path(__file__).parents[1] / "data/comfyui/media_types.json"
TYPE_OF_CLASS = {
    "image": FileType.IMAGE,
    "vector": FileType.IMAGE,
    "video": FileType.VIDEO,
    "audio": FileType.AUDIO,
    "3d": FileType.MODEL_3D,
    "text": FileType.TEXT,
    "tensor": FileType.LATENT,
}


def test_the_table_agrees_with_every_extension_that_comfyui_was_seen_to_write() -> None:
    expected = {
        f".{row['ext']}": (TYPE_OF_CLASS[row["class"]], row["media_type"])
        for row in json.loads(RECORDED.read_text())
    }
    expected[".gif"] = (FileType.GIF, "image/gif")
    assert {extension: MEDIA[extension] for extension in expected} == expected


def test_every_extension_of_the_table_is_one_that_a_name_can_have() -> None:
    assert [extension for extension in MEDIA if extension_of("x" + extension) != extension] == []


@pytest.mark.parametrize("extension", ["", ".zzz", ".html", "png", ".PNG"])
def test_an_unlisted_extension_is_other_and_never_run_by_a_browser(extension: str) -> None:
    assert file_type_of(extension) is FileType.OTHER
    assert media_type_of(extension) == "application/octet-stream"


def test_spellings_of_one_format_share_one_media_type() -> None:
    assert {media_type_of(spelling) for spelling in (".jpg", ".jpeg", ".jfif")} == {"image/jpeg"}
    assert file_type_of(".jfif") is FileType.IMAGE


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("ComfyUI_00001_.png", ".png"),
        ("x.PNG", ".png"),
        ("a.tar.GZ", ".gz"),
        ("folder.mp4/name", ""),
        ("folder.mp4/name.Json", ".json"),
        (".hidden", ""),
        ("..png", ""),
        (".hidden.txt", ".txt"),
        ("a", ""),
        ("a.", ""),
        ("", ""),
        ("x." + "a" * 16, "." + "a" * 16),
    ],
)
def test_an_extension_is_what_follows_the_last_dot_in_lower_case(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x.p ng", id="space"),
        pytest.param("x.png\n", id="newline at the end"),
        pytest.param("x.png\x00", id="nul"),
        pytest.param('x.p"ng', id="quote"),
        pytest.param("x.p\\ng", id="backslash"),
        pytest.param("x.p%2f", id="percent"),
        pytest.param("x.m\N{KELVIN SIGN}v", id="a sign whose lower case is ASCII"),
        pytest.param("x.\N{FULLWIDTH LATIN SMALL LETTER P}ng", id="full width"),
        pytest.param("x.mp\N{ARABIC-INDIC DIGIT FOUR}", id="a digit of another script"),
        pytest.param("x." + "a" * 17, id="17 characters"),
        pytest.param("x.png_", id="underscore"),
    ],
)
def test_an_extension_that_is_not_plain_counts_as_none(name: str) -> None:
    assert extension_of(name) == ""


@given(st.text(max_size=40))
@settings(derandomize=True, deadline=None)
def test_whatever_the_name_its_extension_is_empty_or_safe_in_a_new_name(name: str) -> None:
    assert re.fullmatch(r"(\.[a-z0-9]{1,16})?", extension_of(name + ".x" + name))
