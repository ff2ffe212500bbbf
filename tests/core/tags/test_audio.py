from __future__ import annotations

import struct

import pytest

from flask_comfy_files.core.tags import KEY
from tests.core.tags.samples import (
    TAG,
    TAG_TEXT,
    comments,
    flac_block,
    id3,
    laced,
    ogg_page,
    opus,
    tag_of,
    user_text,
)

COMMENTS = comments([(KEY, TAG_TEXT)])
FRAME = user_text(f"\3{KEY}\0{TAG_TEXT}".encode())
OPUS_HEAD = ogg_page(7, b"\x13", b"OpusHead" + bytes(11))


def test_a_comment_block_is_found_behind_any_other_and_not_behind_the_last() -> None:
    picture = flac_block(6, b"fLaC" + COMMENTS)
    assert tag_of(b"fLaC" + picture + flac_block(4, COMMENTS), ".flac") == TAG
    assert tag_of(b"fLaC" + picture, ".flac") is None
    assert tag_of(b"fLaC" + flac_block(0x80, b"") + flac_block(4, COMMENTS), ".flac") is None
    assert tag_of(b"ID3\4" + flac_block(0x84, COMMENTS), ".flac") is None


@pytest.mark.parametrize("name", [KEY, KEY.upper(), KEY.title()])
def test_the_case_of_a_comments_name_does_not_matter(name: str) -> None:
    content = COMMENTS.replace(KEY.upper().encode(), name.encode())
    assert tag_of(b"fLaC" + flac_block(0x84, content), ".flac") == TAG


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff\xff\xff" + COMMENTS[4:], id="a long vendor"),
        pytest.param(COMMENTS[:8] + bytes(4) + COMMENTS[12:], id="no comments"),
        pytest.param(COMMENTS[:12] + b"\xff\xff\xff\xff" + COMMENTS[16:], id="a long comment"),
        pytest.param(COMMENTS[:-1], id="cut"),
        pytest.param(COMMENTS.replace(b"=", b":"), id="no equals sign"),
    ],
)
def test_comments_that_lie_about_their_lengths_are_none(block: bytes) -> None:
    assert tag_of(b"fLaC" + flac_block(0x84, block), ".flac") is None


def test_a_count_of_comments_that_lies_leaves_the_ones_that_are_there() -> None:
    more = COMMENTS[:8] + b"\xff\xff\xff\xff" + COMMENTS[12:]
    assert tag_of(b"fLaC" + flac_block(0x84, more), ".flac") == TAG


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(OPUS_HEAD, id="no second packet"),
        pytest.param(
            OPUS_HEAD + ogg_page(7, laced(b"OpusText" + COMMENTS), b"OpusText" + COMMENTS),
            id="no comments",
        ),
        pytest.param(
            OPUS_HEAD + ogg_page(8, laced(b"OpusTags" + COMMENTS), b"OpusTags" + COMMENTS),
            id="another stream",
        ),
        pytest.param(OPUS_HEAD + b"Oggs" + opus([(KEY, TAG_TEXT)])[51:], id="no page"),
        pytest.param(
            ogg_page(7, b"\x05", b"other") + ogg_page(7, laced(COMMENTS), COMMENTS), id="Theora"
        ),
    ],
)
def test_an_ogg_has_no_tag_but_in_the_second_packet_of_its_first_stream(content: bytes) -> None:
    assert tag_of(content, ".opus") is None


def test_a_comment_packet_may_end_with_its_page_or_share_it() -> None:
    for padding in range(256):
        packet = b"OpusTags" + comments([("x", "y" * padding), (KEY, TAG_TEXT)])
        page = ogg_page(7, laced(packet), packet)
        assert tag_of(OPUS_HEAD + page, ".opus") == TAG
        both = ogg_page(7, b"\x13" + laced(packet), b"OpusHead" + bytes(11) + packet)
        assert tag_of(both, ".opus") == TAG


@pytest.mark.parametrize(
    ("version", "content"),
    [
        (3, b"\0" + f"{KEY}\0{TAG_TEXT}".encode("latin-1")),
        (3, b"\1" + f"{KEY}\0".encode("utf-16") + TAG_TEXT.encode("utf-16")),
        (3, b"\1\xfe\xff" + f"{KEY}\0\ufeff{TAG_TEXT}\0".encode("utf-16-be")),
        (4, b"\2" + f"{KEY}\0{TAG_TEXT}\0".encode("utf-16-be")),
        (4, b"\3" + f"{KEY}\0{TAG_TEXT}\0".encode()),
    ],
)
def test_a_user_text_is_read_in_each_encoding(version: int, content: bytes) -> None:
    long = user_text(b"\3" + b"x" * 300, version=version)
    frames = long + user_text(content, version=version)
    assert tag_of(id3(version, frames), ".mp3") == TAG


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(id3(4, FRAME, flags=0x80), id="unsynchronised"),
        pytest.param(id3(4, FRAME, flags=0x40), id="an extended header"),
        pytest.param(id3(2, FRAME), id="version 2.2"),
        pytest.param(id3(5, FRAME), id="version 2.5"),
        pytest.param(id3(4, bytes(10) + FRAME), id="behind padding"),
        pytest.param(id3(4, b"") + FRAME, id="behind the tag"),
        pytest.param(id3(4, b"COMM" + FRAME[4:]), id="another frame"),
        pytest.param(id3(4, FRAME.replace(b"\3", b"\4")), id="no encoding"),
        pytest.param(id3(4, user_text(b"")), id="empty"),
        pytest.param(id3(4, FRAME)[:6] + bytes(3) + b"\x20" + FRAME, id="longer than the tag"),
        pytest.param(b"ID4" + id3(4, FRAME)[3:], id="another signature"),
    ],
)
def test_an_mp3_has_no_tag_but_in_a_plain_user_text(content: bytes) -> None:
    assert tag_of(content, ".mp3") is None


@pytest.mark.parametrize(
    ("version", "flag", "is_read"),
    [(4, flag, flag not in {0x40, 8, 4, 2, 1}) for flag in (1 << bit for bit in range(8))]
    + [(3, flag, flag not in {0x80, 0x40, 0x20}) for flag in (1 << bit for bit in range(8))],
)
def test_a_frame_that_is_not_stored_as_it_is_is_skipped(
    version: int, flag: int, *, is_read: bool
) -> None:
    content = f"\0{KEY}\0{TAG_TEXT}".encode()
    frame = user_text(content, version=version, flags=flag)
    assert tag_of(id3(version, frame), ".mp3") == (TAG if is_read else None)


def test_sizes_have_seven_bits_a_byte_in_version_4_and_eight_in_version_3() -> None:
    content = f"\0{KEY}\0{' ' * 200}{TAG_TEXT}".encode()
    for version in (3, 4):
        assert tag_of(id3(version, user_text(content, version=version)), ".mp3") == TAG
    swapped = b"TXXX" + struct.pack(">I", len(content)) + bytes(2) + content
    assert tag_of(id3(4, swapped), ".mp3") is None
