from __future__ import annotations

import struct
import zlib

import pytest

from flask_comfy_files.core.tags import KEY
from tests.core.containers.samples import riff
from tests.core.tags.samples import (
    OTHER_TEXT,
    TAG,
    TAG_TEXT,
    chunk,
    exif,
    exr_attribute,
    plain_png,
    png,
    riff_chunk,
    svg,
    tag_of,
)

NAME = KEY.encode()
TEXT = TAG_TEXT.encode()
TAG_CHUNK = chunk(b"tEXt", NAME + b"\0" + TEXT)
EXR_START = b"\x76\x2f\x31\x01\2\0\0\0"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(TAG_CHUNK[:-1] + bytes([TAG_CHUNK[-1] ^ 1])), id="a wrong checksum"),
        pytest.param(png(chunk(b"tEXt", NAME + TEXT)), id="no NUL"),
        pytest.param(png(chunk(b"tEXt", NAME.upper() + b"\0" + TEXT)), id="capitals"),
        pytest.param(png(chunk(b"tExt", NAME + b"\0" + TEXT)), id="another chunk"),
        pytest.param(png(chunk(b"zTXt", NAME + b"\0\0" + TEXT)), id="not packed"),
        pytest.param(png(chunk(b"zTXt", NAME + b"\0")), id="nothing packed"),
        pytest.param(png(chunk(b"iTXt", NAME + b"\0\0\0" + TEXT)), id="no language"),
        pytest.param(png(chunk(b"iTXt", NAME + b"\0")), id="an empty international text"),
        pytest.param(png() + TAG_CHUNK, id="behind the end"),
        pytest.param(png(chunk(b"IDAT", TAG_CHUNK)), id="among the pixels"),
        pytest.param(b"\x8aPNG" + plain_png([(KEY, TAG_TEXT)])[4:], id="another signature"),
    ],
)
def test_a_png_has_no_tag_but_in_a_sound_text_chunk_of_that_name(content: bytes) -> None:
    assert tag_of(content, ".png") is None


def test_a_text_in_latin_1_counts_as_well_as_an_international_one() -> None:
    text = TAG_TEXT.replace("}", ', "by": "José"}')
    assert tag_of(plain_png([(KEY, text)]), ".png") == TAG
    packed = chunk(b"iTXt", NAME + b"\0\1\0pt\0nome\0" + zlib.compress(text.encode()))
    assert tag_of(png(packed), ".png") == TAG


def test_a_fault_ends_the_search_and_leaves_what_was_found_before_it() -> None:
    fault = chunk(b"zTXt", NAME + b"\0\0no zlib")
    assert tag_of(png(TAG_CHUNK, fault), ".png") == TAG
    assert tag_of(png(fault, TAG_CHUNK), ".png") is None
    assert tag_of(png(TAG_CHUNK)[:-20], ".png") is None
    assert tag_of(png(TAG_CHUNK)[:-8], ".png") == TAG


def webp(tiff: bytes) -> bytes:
    return riff(b"WEBP", riff_chunk(b"EXIF", tiff) + riff_chunk(b"VP8 ", TEXT))


@pytest.mark.parametrize(
    "tiff",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Exif\0\0", id="only the prefix"),
        pytest.param(b"MM*\0" + exif([(KEY, TAG_TEXT)], ">")[4:], id="no byte order"),
        pytest.param(b"MM\0*\xff\xff\xff\xff", id="a directory beyond the end"),
        pytest.param(
            exif([(KEY, TAG_TEXT)], ">").replace(b"\1\x0f\0\2", b"\1\x0f\0\7"), id="no ASCII"
        ),
        pytest.param(exif([(f"x{KEY}", TAG_TEXT)], ">"), id="within another name"),
        pytest.param(exif([(KEY, TAG_TEXT)], ">").replace(b"files:", b"files="), id="no colon"),
        pytest.param(
            b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHII", 0x10F, 2, 200, 2**32 - 9), id="far away"
        ),
    ],
)
def test_a_webp_has_no_tag_but_in_an_ascii_field_that_begins_with_the_name(tiff: bytes) -> None:
    assert tag_of(webp(tiff), ".webp") is None


def test_a_value_that_stands_in_its_own_entry_is_passed_over() -> None:
    fields = exif([("x", ""), (KEY, TAG_TEXT)], ">")
    short = fields[:14] + struct.pack(">I4s", 4, b"R98\0") + fields[22:]
    assert tag_of(webp(short), ".webp") == TAG


def test_a_field_may_not_reach_beyond_the_exif_chunk() -> None:
    entry = exif([(KEY, TAG_TEXT)], ">")
    assert tag_of(webp(entry), ".webp") == TAG
    inside = riff_chunk(b"EXIF", entry[:-10]) + riff_chunk(b"VP8 ", entry[-10:])
    assert tag_of(riff(b"WEBP", inside), ".webp") is None
    assert tag_of(riff(b"WAVE", riff_chunk(b"EXIF", entry)), ".webp") is None


@pytest.mark.parametrize(
    ("drawing", "is_found"),
    [
        ("<svg><metadata><![CDATA[{}]]></metadata></svg>", True),
        ("<svg><metadata>\r\n\t<![CDATA[\r\n{}\r\n]]>\r\n</metadata></svg>", True),
        ("<svg><style><![CDATA[.a {{}}]]></style><metadata><![CDATA[{}]]></metadata></svg>", True),
        ("<svg><metadata><![CDATA[ <rdf/> ]]><metadata><![CDATA[{}]]>", True),
        ("<svg><metadata>{}</metadata></svg>", False),
        ("<svg><desc><![CDATA[{}]]></desc></svg>", False),
        ("<svg><metadata><![CDATA[[{}]]]></metadata></svg>", False),
        ("<svg><metadata><![CDATA[{}", False),
    ],
)
def test_an_svg_has_its_tag_in_the_json_that_opens_a_metadata_element(
    drawing: str, *, is_found: bool
) -> None:
    content = drawing.format(f'{{"{KEY}": {TAG_TEXT}}}').encode()
    assert tag_of(content, ".svg") == (TAG if is_found else None)


def test_an_svg_tag_may_be_json_in_a_string_and_two_elements_must_agree() -> None:
    quoted = TAG_TEXT.replace('"', '\\"')
    assert tag_of(svg([(KEY, f'"{quoted}"')]), ".svg") == TAG
    both = svg([(KEY, TAG_TEXT)]) + svg([(KEY, OTHER_TEXT)])
    assert tag_of(both, ".svg") is None
    unreadable = svg([(KEY, '"\\ud800"')])
    assert tag_of(unreadable + svg([(KEY, TAG_TEXT)]), ".svg") is None


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(exr_attribute(KEY, "bytes", TEXT), id="no string"),
        pytest.param(
            exr_attribute("", "x", b"") + exr_attribute(KEY, "string", TEXT), id="behind the header"
        ),
        pytest.param(exr_attribute("x", "string", exr_attribute(KEY, "string", TEXT)), id="inside"),
        pytest.param(exr_attribute("x" * 600, "string", TEXT), id="an endless name"),
        pytest.param(exr_attribute(KEY, "string", TEXT)[:-1], id="a longer value"),
    ],
)
def test_an_exr_has_no_tag_but_in_a_string_attribute_of_its_header(attributes: bytes) -> None:
    assert tag_of(EXR_START + attributes, ".exr") is None
    assert tag_of(EXR_START + exr_attribute(KEY, "string", TEXT) + attributes, ".exr") == TAG
