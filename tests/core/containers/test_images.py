from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import (
    COMPLETE,
    CUT_SHORT,
    JPEG_FRAME,
    JPEG_SCAN,
    PNG,
    PNG_END,
    UNKNOWN,
    chunk,
    facts_of,
    jpeg,
    png,
    segment,
)

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(PNG.read_bytes() + b"appended", COMPLETE, id="bytes after the end"),
        pytest.param(png(chunk(b"tEXt", PNG_END)[:-4]), CUT_SHORT, id="the end is in a chunk"),
        pytest.param(png(chunk(b"IDAT", bytes(50)), bytes(500)), CUT_SHORT, id="zeros for chunks"),
        pytest.param(png(chunk(b"\x01\x02\x03\x04"), PNG_END), UNKNOWN, id="no chunk"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + PNG_END * 3, UNKNOWN, id="no header"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(12)) + PNG_END, UNKNOWN, id="a short header"
        ),
        pytest.param(png(chunk(b"IDAT") * 20_000, PNG_END), COMPLETE, id="many chunks"),
        pytest.param(png(chunk(b"IDAT") * 20_000), CUT_SHORT, id="many chunks, no end"),
    ],
)
def test_a_png_is_complete_when_its_chunks_lead_to_the_end(
    content: bytes, completeness: Completeness
) -> None:
    assert facts_of(content).completeness is completeness


@pytest.mark.parametrize("side", [1, 1_000_000])
def test_the_extremes_of_width_and_height_are_believed(side: int) -> None:
    facts = facts_of(png(PNG_END, width=side, height=side))
    assert (facts.width, facts.height) == (side, side)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (2**31, 5), (5, 1_000_001)])
def test_an_absurd_width_or_height_takes_the_other_with_it(width: int, height: int) -> None:
    facts = facts_of(png(PNG_END, width=width, height=height))
    assert (facts.width, facts.height, facts.completeness) == (None, None, COMPLETE)


@pytest.mark.parametrize(
    ("content", "completeness", "extent"),
    [
        pytest.param(jpeg(JPEG_FRAME, JPEG_SCAN, b"\xff\xd9"), COMPLETE, (640, 480), id="whole"),
        pytest.param(
            jpeg(b"\xff\xff\xff", b"\xff\xd0", JPEG_FRAME, JPEG_SCAN, b"\xff\xd9"),
            COMPLETE,
            (640, 480),
            id="fill bytes",
        ),
        pytest.param(jpeg(JPEG_FRAME, JPEG_SCAN), UNKNOWN, (640, 480), id="no end"),
        pytest.param(
            jpeg(segment(0xE1, b"thumbnail \xff\xd9 more")[:-5]),
            CUT_SHORT,
            (None, None),
            id="cut behind its thumbnail",
        ),
        pytest.param(
            jpeg(segment(0xE1, b"thumbnail \xff\xd9")), CUT_SHORT, (None, None), id="no scan"
        ),
        pytest.param(jpeg(b"\xff\xd9" * 4), UNKNOWN, (None, None), id="an end without a scan"),
        pytest.param(b"\xff\xd8" + b"\xff" * 90_000, UNKNOWN, (None, None), id="fill bytes only"),
    ],
)
def test_a_jpeg_is_complete_when_an_end_follows_its_scan(
    content: bytes, completeness: Completeness, extent: tuple[int | None, int | None]
) -> None:
    facts = facts_of(content)
    assert facts.extensions == {".jpg", ".jpeg", ".jfif"}
    assert (facts.completeness, (facts.width, facts.height)) == (completeness, extent)


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(b"\xef\xbb\xbf\n<?xml?><!-- x --><svg></svg>\r\n", COMPLETE, id="preamble"),
        pytest.param(b"<svg><svg></svg>", COMPLETE, id="the end of an inner drawing, a known gap"),
        pytest.param(b"<!-- made by --><svg></svg>", COMPLETE, id="comment first"),
        pytest.param(b"<!DOCTYPE svg><svg></svg>", COMPLETE, id="document type first"),
        pytest.param(b"<svg><path/>", CUT_SHORT, id="between two elements"),
    ],
)
def test_an_svg_is_complete_when_it_ends_with_its_closing_tag(
    content: bytes, completeness: Completeness
) -> None:
    assert facts_of(content).completeness is completeness


def test_the_extent_of_a_jpeg_is_read_from_its_frame_header_and_no_other_segment() -> None:
    others = {0xC4, 0xC8, 0xCC}
    extents = {}
    for marker in range(0xC0, 0xD0):
        facts = facts_of(jpeg(segment(marker, JPEG_FRAME[4:]), JPEG_SCAN))
        extents[marker] = (facts.width, facts.height)
    found = {marker for marker, extent in extents.items() if extent == (640, 480)}
    assert found == extents.keys() - others


def test_a_jpeg_is_followed_over_every_marker_that_has_no_length() -> None:
    for marker in (0x01, *range(0xD0, 0xD8)):
        facts = facts_of(jpeg(bytes([0xFF, marker]), JPEG_FRAME, JPEG_SCAN))
        assert facts.width == 640
    assert facts_of(jpeg(b"\xff\x00", JPEG_FRAME, JPEG_SCAN, b"\xff\xd9")).completeness is UNKNOWN


@pytest.mark.parametrize("version", [b"GIF87a", b"GIF89a"])
def test_a_gif_is_complete_when_a_closed_block_precedes_its_trailer(version: bytes) -> None:
    start = version + struct.pack("<HH", 4, 2) + bytes(3)
    whole = facts_of(start + b"pixels\0;")
    assert whole.extensions == {".gif"}
    assert (whole.completeness, whole.width, whole.height) == (COMPLETE, 4, 2)
    assert facts_of(start + b"pixels;").completeness is UNKNOWN
    assert facts_of(start + b"pixels").completeness is CUT_SHORT
