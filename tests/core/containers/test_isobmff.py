from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import (
    COMPLETE,
    CUT_SHORT,
    FTYP,
    MDAT,
    MOOV,
    UNKNOWN,
    box,
    facts_of,
)

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(FTYP + MOOV + MDAT, COMPLETE, id="header first"),
        pytest.param(FTYP + MDAT + MOOV, COMPLETE, id="header last"),
        pytest.param(FTYP + MOOV, CUT_SHORT, id="cut before the pictures"),
        pytest.param(FTYP + MDAT, CUT_SHORT, id="cut before the header"),
        pytest.param(FTYP + MOOV + MDAT + b"\0\0\0", CUT_SHORT, id="cut in the size of a box"),
        pytest.param(FTYP + MOOV + b"\0\0\0\0mdat...", UNKNOWN, id="pictures up to the end"),
        pytest.param(FTYP + b"\0\0\0\0mdat...", CUT_SHORT, id="ffmpeg at work"),
        pytest.param(
            FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 20) + b"1234", COMPLETE, id="64 bits"
        ),
        pytest.param(
            FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 16), COMPLETE, id="64 bits, empty"
        ),
        pytest.param(
            FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1), CUT_SHORT, id="huge"
        ),
        pytest.param(FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 0), UNKNOWN, id="64 zero bits"),
        pytest.param(FTYP + MOOV + MDAT + b"\0\0\0\x07free", UNKNOWN, id="too small a box"),
        pytest.param(FTYP + MOOV + MDAT + box(b"moof") + MDAT, UNKNOWN, id="fragments"),
        pytest.param(
            FTYP + box(b"moov", box(b"mvex")) + MDAT, UNKNOWN, id="cut before the first fragment"
        ),
        pytest.param(
            FTYP + MOOV + box(b"moof") + MDAT + box(b"mfra"), COMPLETE, id="fragments and index"
        ),
        pytest.param(FTYP + MOOV + MDAT + box(b"free") * 20_000, UNKNOWN, id="boxes without end"),
    ],
)
def test_an_mp4_is_complete_when_whole_boxes_fill_it(
    content: bytes, completeness: Completeness
) -> None:
    facts = facts_of(content)
    assert facts.extensions == {".mp4", ".m4v", ".m4a", ".mov"}
    assert facts.completeness is completeness


def test_an_mp4_with_64_bit_times_tells_its_duration() -> None:
    header = b"\x01" + bytes(19) + struct.pack(">IQ", 2, 5) + b"\xff" * 76
    facts = facts_of(FTYP + box(b"moov", box(b"mvhd", header)) + MDAT)
    assert facts.duration_s == 2.5


def test_an_mp4_whose_64_bit_duration_is_not_set_has_none() -> None:
    header = b"\x01" + bytes(19) + struct.pack(">IQ", 2**32 - 1, 2**64 - 1)
    assert facts_of(FTYP + box(b"moov", box(b"mvhd", header)) + MDAT).duration_s is None


def test_an_mp4_whose_header_runs_to_the_end_is_read_but_not_judged() -> None:
    facts = facts_of(FTYP + MDAT + b"\0\0\0\0" + MOOV[4:])
    assert (facts.completeness, facts.duration_s) == (UNKNOWN, 2.5)


@pytest.mark.parametrize("times", [(1000, 0), (0, 1000), (1000, 2**32 - 1), (1, 2**31)])
def test_an_mp4_without_a_believable_duration_has_none(times: tuple[int, int]) -> None:
    header = box(b"mvhd", bytes(12) + struct.pack(">II", *times))
    facts = facts_of(FTYP + box(b"moov", header) + MDAT)
    assert (facts.duration_s, facts.completeness) == (None, COMPLETE)


def test_a_duration_of_a_whole_year_is_believed() -> None:
    header = box(b"mvhd", bytes(12) + struct.pack(">II", 1, 366 * 86_400))
    assert facts_of(FTYP + box(b"moov", header) + MDAT).duration_s == 366 * 86_400


def test_an_mp4_takes_its_extent_from_the_first_track_of_pictures() -> None:
    def track(handler: bytes, width: int, height: int) -> bytes:
        header = box(b"tkhd", b"\x01" + bytes(87) + struct.pack(">II", width << 16, height << 16))
        return box(b"trak", header + box(b"mdia", box(b"hdlr", bytes(8) + handler)))

    tracks = track(b"text", 9, 9) + track(b"vide", 640, 480) + track(b"vide", 8, 8)
    facts = facts_of(FTYP + box(b"moov", tracks) + MDAT)
    assert (facts.width, facts.height) == (640, 480)


@pytest.mark.parametrize(
    ("brands", "extensions"),
    [
        (b"avif\0\0\0\0mif1miaf", {".avif"}),
        (b"mif1\0\0\0\0avif", {".avif"}),
        (b"avis\0\0\0\0msf1", {".avif"}),
        (b"heic\0\0\0\0", {".heic", ".heif"}),
        (b"hevc\0\0\0\0", {".heic", ".heif"}),
        (b"mif1\0\0\0\0isomheix", {".heic", ".heif"}),
    ],
)
def test_a_still_image_of_boxes_needs_its_description_and_its_pixels(
    brands: bytes, extensions: set[str]
) -> None:
    ftyp, meta = box(b"ftyp", brands), box(b"meta")
    assert facts_of(ftyp + meta + MDAT).extensions == extensions
    open_ended = meta + b"\0\0\0\0" + MDAT[4:]
    rests = (meta + MDAT, meta, MDAT, open_ended)
    answers = [facts_of(ftyp + rest).completeness for rest in rests]
    assert answers == [COMPLETE, UNKNOWN, CUT_SHORT, UNKNOWN]
