from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files.core.containers import Completeness, ContainerFacts, read_facts
from flask_comfy_files.core.media import extension_of
from tests.core.containers.samples import (
    APNG,
    COMPLETE,
    CUT_SHORT,
    FLAC,
    GIF,
    GLB,
    JPEG_FRAME,
    JPEG_SCAN,
    LATENT,
    MKV,
    MP4_HEADER_FIRST,
    MP4_HEADER_LAST,
    OPUS,
    OUTPUT,
    PNG,
    RECORDINGS,
    SVG,
    UNKNOWN,
    WEBM,
    WEBP,
    box,
    facts_of,
    jpeg,
    riff,
    wav,
)

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_A_SIGNATURE = {".txt", ".md", ".json", ".csv"}
WITHOUT_A_MARK_AT_THE_END = {".flac", ".mp3", ".exr"} | WITHOUT_A_SIGNATURE


def completeness_at_every_cut(recording: Path) -> dict[int, Completeness]:
    with tempfile.TemporaryFile() as file:
        file.write(recording.read_bytes())
        file.flush()
        found = {}
        for size in reversed(range(1, recording.stat().st_size)):
            os.ftruncate(file.fileno(), size)
            found[size] = read_facts(file.fileno(), size).completeness
        return found


def recordings() -> list[Path]:
    return [path for path in OUTPUT.rglob("*") if path.is_file() and path.stat().st_size]


def test_every_recording_is_recognized_as_what_its_name_says() -> None:
    mistaken = {
        path.name: facts.extensions
        for path in recordings()
        if (extension := extension_of(path.name))
        not in (facts := facts_of(path.read_bytes())).extensions
        and not (extension in WITHOUT_A_SIGNATURE and facts.extensions == frozenset())
    }
    assert mistaken == {}


def test_every_recording_whose_format_marks_its_end_is_complete_and_no_other() -> None:
    unexpected = {
        path.name: completeness
        for path in recordings()
        if (completeness := facts_of(path.read_bytes()).completeness)
        is not (UNKNOWN if extension_of(path.name) in WITHOUT_A_MARK_AT_THE_END else COMPLETE)
    }
    assert unexpected == {}


@pytest.mark.parametrize(
    ("recording", "extent"),
    [
        (PNG, (64, 48)),
        (OUTPUT / "2026-11-23/shot_96x64_033436_00001_.png", (96, 64)),
        (APNG, (64, 64)),
        (GIF, (64, 64)),
        (WEBP, (64, 64)),
        (MP4_HEADER_LAST, (64, 64)),
        (MP4_HEADER_FIRST, (64, 64)),
        (FLAC, (None, None)),
        (GLB, (None, None)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_width_and_height_of_recordings_are_read(
    recording: Path, extent: tuple[int | None, int | None]
) -> None:
    facts = facts_of(recording.read_bytes())
    assert (facts.width, facts.height) == extent


@pytest.mark.parametrize(
    ("recording", "duration_s"),
    [
        (FLAC, 0.5),
        (OUTPUT / "ep01/voice_00001.flac", 0.4),
        (MP4_HEADER_LAST, 1.0),
        (MP4_HEADER_FIRST, 1.0),
        (PNG, None),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_durations_of_recordings_are_read(recording: Path, duration_s: float | None) -> None:
    assert facts_of(recording.read_bytes()).duration_s == duration_s


@pytest.mark.parametrize(
    "recording",
    [PNG, APNG, WEBP, MP4_HEADER_LAST, MP4_HEADER_FIRST, GLB, SVG, MKV, WEBM],
    ids=lambda path: path.name,
)
def test_a_recording_cut_anywhere_behind_its_first_bytes_is_cut_short(recording: Path) -> None:
    found = completeness_at_every_cut(recording)
    # In fewer bytes than these no signature can be told.
    assert {found.pop(size) for size in range(1, 12)} <= {UNKNOWN, CUT_SHORT}
    assert set(found.values()) == {CUT_SHORT}


@pytest.mark.parametrize("recording", [OPUS, FLAC, LATENT], ids=lambda path: path.name)
def test_a_recording_cut_anywhere_is_never_complete(recording: Path) -> None:
    assert COMPLETE not in completeness_at_every_cut(recording).values()


def test_a_gif_cut_anywhere_is_complete_only_where_it_ends_like_a_whole_one() -> None:
    content = GIF.read_bytes()
    wrong = [
        size
        for size, completeness in completeness_at_every_cut(GIF).items()
        if completeness is COMPLETE and content[size - 2 : size] != b"\0;"
    ]
    assert wrong == []


def test_an_empty_file_is_cut_short_and_nothing_is_said_of_it() -> None:
    assert facts_of(b"") == ContainerFacts(
        extensions=frozenset(), completeness=CUT_SHORT, width=None, height=None, duration_s=None
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"hello", id="text"),
        pytest.param(b"ID3 is a kind of tag, not a song", id="text that begins like a tag"),
        pytest.param(b"glTF is a format for models", id="text that begins like a model"),
        pytest.param(
            "caption".encode("utf-16"), id="UTF-16, whose mark resembles a frame of sound"
        ),
        pytest.param(b'{"caption": "<svg"}', id="JSON that names a tag"),
        pytest.param(b"<!-- page --><html><svg></svg></html>", id="a web page with a drawing"),
        pytest.param(bytes(4096), id="zeros"),
        pytest.param(b"\xff\xf1\x50\x80", id="AAC"),
        pytest.param(b"PK\x03\x04", id="a ZIP archive"),
    ],
)
def test_other_content_is_neither_recognized_nor_judged(content: bytes) -> None:
    facts = facts_of(content)
    assert (facts.extensions, facts.completeness) == (frozenset(), UNKNOWN)


def test_reading_leaves_the_offset_of_the_descriptor_where_it_was() -> None:
    with PNG.open("rb") as file:
        file.seek(7)
        read_facts(file.fileno(), PNG.stat().st_size)
        assert file.tell() == 7


def test_a_file_that_has_shrunk_since_its_size_was_taken_is_cut_short() -> None:
    with PNG.open("rb") as file:
        assert read_facts(file.fileno(), 10**6).completeness is CUT_SHORT


SAMPLES = [
    *(path.read_bytes() for path in RECORDINGS),
    wav(),
    jpeg(JPEG_FRAME, JPEG_SCAN, b"\xff\xd9"),
    riff(b"AVI "),
    box(b"ftyp", b"avif"),
]


def assert_sensible(facts: ContainerFacts) -> None:
    assert (facts.width is None) == (facts.height is None)
    assert facts.width is None or 0 < facts.width <= 1_000_000
    assert facts.duration_s is None or facts.duration_s > 0
    assert facts.extensions or facts.completeness is not COMPLETE


@given(st.sampled_from(SAMPLES), st.integers(2, 64), st.binary(max_size=300))
@settings(derandomize=True, deadline=None, max_examples=600)
def test_random_bytes_behind_the_start_of_any_format_give_a_sensible_answer(
    sample: bytes, kept: int, rest: bytes
) -> None:
    assert_sensible(facts_of(sample[:kept] + rest))


@given(st.sampled_from(SAMPLES), st.data())
@settings(derandomize=True, deadline=None, max_examples=600)
def test_a_recording_with_bytes_overwritten_gives_a_sensible_answer(
    sample: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(sample)))
    patch = data.draw(st.sampled_from([b"\0" * 8, b"\xff" * 8]) | st.binary(max_size=8))
    assert_sensible(facts_of(sample[:at] + patch + sample[at + len(patch) :]))
