from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files.core.media import MEDIA, extension_of
from flask_comfy_files.core.tags import KEY, Tag, read_graph, read_tag
from tests.core.tags.samples import FORMATS, OTHER_TEXT, TAG, TAG_TEXT, tag_of
from tests.trees import RECORDINGS

TAGGED = sorted((RECORDINGS / "tagged").iterdir())
HOSTS_KEY = "anime_api"
HOSTS_TAG = Tag(job_id="22222222-3333-4444-8555-666666666666", project_id="proj-7", run=None)
HOLD_NO_TAG = {"t_00011.txt"}
ONE_OF_A_KIND = ("adv_00001.exr", "t_00007_.png", "t_00010_.png", "vhs_00001.mp4")
CARRIERS = [
    path
    for path in TAGGED
    if path.name in ONE_OF_A_KIND or path.suffix not in {".exr", ".png", ".txt"}
]
EXTENSIONS = sorted({*MEDIA, ""})
EACH_FORMAT = pytest.mark.parametrize("name", FORMATS)


def recorded_tag(path: Path, *, size: int | None = None) -> Tag | None:
    with path.open("rb") as file:
        length = path.stat().st_size if size is None else size
        return read_tag(file.fileno(), length, extension_of(path.name), key=HOSTS_KEY)


def graph_of(content: bytes, extension: str) -> dict[str, Any] | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_graph(file.fileno(), len(content), extension)


@pytest.mark.parametrize("path", TAGGED, ids=lambda path: path.name)
def test_the_hosts_tag_is_read_from_every_recording_that_carries_it(path: Path) -> None:
    assert recorded_tag(path) == (None if path.name in HOLD_NO_TAG else HOSTS_TAG)


def test_no_other_recording_has_a_tag_but_the_one_of_a_cached_rerun() -> None:
    found = {
        path.name: tag
        for path in RECORDINGS.rglob("*")
        if path.is_file() and path not in TAGGED and (tag := recorded_tag(path))
    }
    assert found == {"c_00001_.png": Tag(job_id="job-A", project_id=None, run=None)}


@pytest.mark.parametrize("path", TAGGED, ids=lambda path: path.name)
def test_the_graph_in_a_recording_is_the_one_that_was_queued(path: Path) -> None:
    responses = RECORDINGS.parents[1] / "responses"
    history = json.loads((responses / "history.tagged_job_id_embedded.json").read_bytes())
    (item,) = history.values()
    expected = None if path.name in HOLD_NO_TAG else item["prompt"][2]
    assert graph_of(path.read_bytes(), path.suffix) == expected


@EACH_FORMAT
def test_our_tag_is_read_from_each_format_whatever_stands_beside_it(name: str) -> None:
    extension, build = FORMATS[name]
    texts = [("prompt", '{"1": {}}'), (f"{KEY}2", OTHER_TEXT), (KEY, TAG_TEXT), ("workflow", "{}")]
    assert tag_of(build(texts), extension) == TAG
    assert tag_of(build(texts[:2] + texts[3:]), extension) is None
    assert graph_of(build(texts), extension) == {"1": {}}
    assert graph_of(build(texts[1:]), extension) is None


@EACH_FORMAT
def test_different_tags_in_one_file_are_none(name: str) -> None:
    extension, build = FORMATS[name]
    assert tag_of(build([(KEY, TAG_TEXT), (KEY, OTHER_TEXT)]), extension) is None
    assert tag_of(build([(KEY, TAG_TEXT), (KEY, "[]")]), extension) is None
    assert tag_of(build([(KEY, "[]"), (KEY, TAG_TEXT)]), extension) is None
    assert graph_of(build([("prompt", "{}"), ("prompt", '{"1": {}}')]), extension) is None


def test_one_tag_written_twice_is_one_tag() -> None:
    extension, build = FORMATS["png"]
    reordered = '{"run": "r1", "project_id": "ep01", "job_id": "job_1", "more": [1]}'
    assert tag_of(build([(KEY, TAG_TEXT), (KEY, reordered)]), extension) == TAG
    assert graph_of(build([("prompt", '{"1": {}}')] * 2), extension) == {"1": {}}


@pytest.mark.parametrize("name", ["png", "svg", "latent"])
def test_the_project_and_the_run_may_be_missing_or_null(name: str) -> None:
    extension, build = FORMATS[name]
    only_job = Tag(job_id="job_1", project_id=None, run=None)
    assert tag_of(build([(KEY, '{"job_id": "job_1"}')]), extension) == only_job
    nulls = '{"job_id": "job_1", "project_id": null, "run": null}'
    assert tag_of(build([(KEY, nulls)]), extension) == only_job


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("job_1", id="no JSON"),
        pytest.param('"job_1"', id="a string"),
        pytest.param('["job_1"]', id="a list"),
        pytest.param("null", id="null"),
        pytest.param("{}", id="no job"),
        pytest.param('{"job_id": null}', id="a null job"),
        pytest.param('{"job_id": 1}', id="a number"),
        pytest.param('{"job_id": ""}', id="an empty id"),
        pytest.param('{"job_id": "../../etc"}', id="a path"),
        pytest.param('{"job_id": "job\\u0000"}', id="a NUL"),
        pytest.param('{"job_id": "\\ud800"}', id="half a surrogate pair"),
        pytest.param('{"job_id": "job_1", "project_id": "a/b"}', id="a project that is a path"),
        pytest.param('{"job_id": "job_1", "project_id": ""}', id="an empty project"),
        pytest.param('{"job_id": "job_1", "run": ".."}', id="a run that is a parent folder"),
        pytest.param('{"job_id": "job_1", "run": 7}', id="a run that is a number"),
        pytest.param('{"job_id": "job_1", "job_id": "job_2"}', id="two jobs"),
        pytest.param('{"job_id": "job_1"} {}', id="more behind it"),
        pytest.param('{"job_id": "job_1", "n": ' + "9" * 5000 + "}", id="a huge number"),
        pytest.param('{"job_id": "job_1", "x": ' + "[" * 200_000, id="deeply nested"),
        pytest.param('{"job_id": "job_1", "x": "' + "x" * 2**20 + '"}', id="above 1 MiB"),
    ],
)
@pytest.mark.parametrize("name", ["png", "packed png", "mp3", "mp4", "glb"])
def test_what_is_no_valid_tag_is_none(name: str, text: str) -> None:
    extension, build = FORMATS[name]
    assert tag_of(build([(KEY, text)]), extension) is None


@pytest.mark.parametrize(
    "name",
    ["webp", "svg", "exr", "mp4", "webm", "flac", "opus", "mp3", "older mp3", "glb", "latent"],
)
def test_a_text_that_is_not_encoded_as_its_format_says_is_none(name: str) -> None:
    extension, build = FORMATS[name]
    content = build([(KEY, TAG_TEXT)])
    sixteen_bits = "older" in name
    broken = content.replace(
        b"j\0o\0b\0_\0" if sixteen_bits else b"job_1",
        b"job\xff1\0\0\xd8"[: 8 if sixteen_bits else 5],
    )
    assert len(broken) == len(content)
    assert broken != content
    assert tag_of(broken, extension) is None


def test_the_extension_decides_which_format_is_looked_for() -> None:
    read_by = {
        name: {extension for extension in EXTENSIONS if tag_of(content, extension)}
        for name, (_, build) in FORMATS.items()
        if (content := build([(KEY, TAG_TEXT)]))
    }
    assert read_by == {
        **{name: {".png", ".apng"} for name in FORMATS if "png" in name},
        **{name: {".webp"} for name in FORMATS if "webp" in name},
        **{name: {".mp4", ".m4v", ".m4a", ".mov"} for name in ("mp4", "quicktime")},
        **{name: {".mkv", ".webm"} for name in ("matroska", "webm")},
        **{name: {".opus", ".ogg", ".oga"} for name in ("opus", "vorbis")},
        **{name: {".mp3"} for name in FORMATS if "mp3" in name},
        **{name: {f".{name}"} for name in ("svg", "exr", "flac", "glb")},
        "latent": {".latent", ".safetensors"},
    }


@pytest.mark.parametrize("path", CARRIERS, ids=lambda path: path.name)
def test_a_recording_cut_anywhere_has_its_own_tag_or_none(path: Path) -> None:
    content = path.read_bytes()
    # The pixels of an EXR, which lie behind its tag, are many and all alike.
    content = content[:6000] if path.suffix == ".exr" else content
    for found in zip(*tags_at_every_cut(content, path.suffix, HOSTS_KEY), strict=True):
        # Once all of it is there, more bytes behind it make no difference.
        whole_at = found.index(HOSTS_TAG)
        assert set(found[:whole_at]) == {None}
        assert set(found[whole_at:]) == {HOSTS_TAG}


@EACH_FORMAT
def test_a_small_file_cut_anywhere_has_its_own_tag_or_none(name: str) -> None:
    extension, build = FORMATS[name]
    found = tags_at_every_cut(build([("prompt", "{}"), (KEY, TAG_TEXT)]), extension, KEY)
    assert {tag for both in found for tag in both} == {TAG, None}
    assert found[-1] == (TAG, TAG)


def tags_at_every_cut(
    content: bytes, extension: str, key: str
) -> list[tuple[Tag | None, Tag | None]]:
    """Return the tags at each length, as a whole file of it and as one shrunk since its size was taken."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        found = []
        for size in reversed(range(len(content) + 1)):
            os.ftruncate(file.fileno(), size)
            sizes = (size, len(content))
            whole, shrunk = (read_tag(file.fileno(), n, extension, key=key) for n in sizes)
            found.append((whole, shrunk))
        return found[::-1]


STARTS = {
    **{name: build([])[:12] for name, (_, build) in FORMATS.items()},
    "nothing": b"",
    "exif": FORMATS["webp"][1]([])[: -len(b"MM\0*") - 16],
    "movie": FORMATS["mp4"][1]([])[:40],
    "mp3": b"ID3\4\0\0\0\0\x7f\x7fTXXX",
    "flac": b"fLaC\x84\0\1\0",
    "opus": FORMATS["opus"][1]([])[:60],
    "exr": b"\x76\x2f\x31\x01\2\0\0\0comfy_files\0string\0",
    "glb": b'glTF\2\0\0\0\xff\xff\xff\xff\x10\0\0\0JSON{"asset":',
    "latent": b"\x10\0\0\0\0\0\0\0{",
    "svg": b"<metadata><![CDATA[",
}


@settings(max_examples=400)
@given(start=st.sampled_from(sorted(STARTS)), rest=st.binary(max_size=400), more=st.integers(0, 99))
def test_random_bytes_behind_any_start_have_no_tag(start: str, rest: bytes, more: int) -> None:
    content = STARTS[start] + rest
    for extension in sorted({extension for extension, _ in FORMATS.values()}):
        assert tag_of(content, extension, size=len(content) + more) is None
        assert graph_of(content, extension) is None


@settings(max_examples=400)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    where=st.floats(0, 1),
    what=st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"\xff" * 8, bytes(8)])),
)
def test_damage_anywhere_never_raises(name: str, where: float, what: bytes) -> None:
    extension, build = FORMATS[name]
    content = bytearray(build([("prompt", "{}"), (KEY, TAG_TEXT), ("workflow", "{}")]))
    at = int(where * len(content))
    content[at : at + len(what)] = what
    found = tag_of(bytes(content), extension)
    # Only what hits an id itself, where the format has no checksum, can lead to a different one.
    assert found in {TAG, None} or TAG_TEXT.encode() not in content


@settings(max_examples=100)
@given(where=st.integers(0, 10**6), what=st.binary(min_size=1, max_size=9))
def test_damage_in_a_png_never_gives_a_different_tag(where: int, what: bytes) -> None:
    content = bytearray(FORMATS["png"][1]([(KEY, TAG_TEXT)]))
    at = where % len(content)
    content[at : at + len(what)] = what
    assert tag_of(bytes(content), ".png") in {TAG, None}


def test_nothing_is_read_at_offsets_that_no_file_has() -> None:
    far = struct.pack(">I4sQ", 1, b"moov", 2**64 - 1)
    assert tag_of(b"\0\0\0\x08ftyp" + far, ".mp4", size=2**40) is None
    assert tag_of(struct.pack("<Q", 2**64 - 1), ".latent") is None


def test_the_descriptor_stays_where_it_was() -> None:
    with (RECORDINGS / "tagged/t_00007_.png").open("rb") as file:
        os.lseek(file.fileno(), 5, os.SEEK_SET)
        assert read_tag(file.fileno(), 7119, ".png", key=HOSTS_KEY) == HOSTS_TAG
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 5
