from __future__ import annotations

import struct

import pytest

from flask_comfy_files.core.tags import KEY
from tests.core.containers.samples import FTYP, MDAT, box
from tests.core.tags.samples import (
    TAG,
    TAG_TEXT,
    element,
    keys_and_items,
    matroska,
    mp4,
    quicktime,
    simple_tags,
    tag_of,
)

TEXTS = [("prompt", "{}"), (KEY, TAG_TEXT)]
METADATA = box(b"meta", bytes(4) + keys_and_items(TEXTS))
HEAD = element("1a45dfa3", b"")
TAGS = simple_tags(TEXTS)


def long_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(FTYP + box(b"moov", METADATA), id="right in the header"),
        pytest.param(FTYP + box(b"moov", box(b"udta", METADATA)), id="in the user data"),
        pytest.param(FTYP + long_box(b"mdat", b"x" * 99) + box(b"moov", METADATA), id="long box"),
        pytest.param(FTYP + long_box(b"moov", METADATA), id="a long header"),
        pytest.param(FTYP + b"\0\0\0\0moov" + METADATA, id="to the end of the file"),
        pytest.param(FTYP + box(b"moov", METADATA) + b"\0\0\0\7free", id="a fault behind it"),
    ],
)
def test_the_metadata_of_a_movie_is_found_where_writers_put_it(content: bytes) -> None:
    assert tag_of(content, ".mp4") == TAG


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(FTYP + METADATA, id="beside the header"),
        pytest.param(box(b"moov", METADATA), id="no file type"),
        pytest.param(FTYP + box(b"mdat", box(b"moov", METADATA)), id="among the pictures"),
        pytest.param(FTYP + b"\0\0\0\4" + box(b"moov", METADATA), id="behind a fault"),
        pytest.param(
            mp4(TEXTS).replace(b"mdta" + KEY.encode(), b"udta" + KEY.encode()), id="space"
        ),
        pytest.param(mp4([(f"{KEY}2", TAG_TEXT)]), id="a longer name"),
        pytest.param(
            FTYP + box(b"moov", box(b"meta", keys_and_items(TEXTS, kind=21))), id="no UTF-8"
        ),
        pytest.param(mp4(TEXTS).replace(b"ilst\0\0", b"ilst\xff\xff"), id="a long item"),
        pytest.param(
            mp4(TEXTS).replace(struct.pack(">I", 2) + b"\0\0\0\x46data", b"\0\0\0\3\0\0\0\x46data"),
            id="no such key",
        ),
        pytest.param(FTYP + box(b"moov", box(b"meta", b"")), id="empty metadata"),
    ],
)
def test_a_movie_has_no_tag_but_in_a_metadata_item_of_that_name(content: bytes) -> None:
    assert tag_of(content, ".mp4") is None


def test_an_item_shorter_than_its_own_head_is_no_tag() -> None:
    item = box(b"\0\0\0\1", box(b"data", struct.pack(">I", 1)))
    keys = box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", KEY.encode()))
    metadata = box(b"meta", bytes(4) + keys + box(b"ilst", item))
    assert tag_of(FTYP + box(b"moov", metadata) + MDAT, ".mp4") is None


def test_a_text_ends_with_what_holds_it() -> None:
    long_item = box(b"\0\0\0\1", box(b"data", struct.pack(">II", 1, 0) + TAG_TEXT.encode()))
    item = struct.pack(">I", len(long_item) - 9) + long_item[4:]
    keys = box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", KEY.encode()))
    metadata = box(b"meta", bytes(4) + keys + box(b"ilst", item))
    assert tag_of(FTYP + box(b"moov", metadata), ".mp4") is None
    text = element("4487", TAG_TEXT.encode())
    tag = short_element("67c8", short_element("45a3", KEY.encode()) + text[:-9]) + text[-9:]
    tags = element("1254c367", element("7373", tag))
    assert tag_of(HEAD + element("18538067", tags), ".mkv") is None


def test_the_pictures_may_still_be_missing() -> None:
    assert tag_of(quicktime(TEXTS)[:-4], ".mov") == TAG


def short_element(identifier: str, content: bytes) -> bytes:
    return bytes.fromhex(identifier) + bytes([0x80 | len(content)]) + content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(HEAD + element("18538067", TAGS), id="a known size"),
        pytest.param(HEAD + bytes.fromhex("18538067ff") + TAGS, id="an unknown size"),
        pytest.param(
            HEAD + bytes.fromhex("18538067") + b"\1" + b"\xff" * 7 + TAGS, id="long unknown"
        ),
        pytest.param(HEAD + element("18538067", TAGS + bytes(99))[:-80], id="cut short"),
        pytest.param(HEAD + element("18538067", TAGS + b"\0"), id="a fault behind it"),
        pytest.param(matroska([(KEY, TAG_TEXT + "\0\0")]), id="padded"),
        pytest.param(
            HEAD + element("18538067", TAGS.replace(KEY.upper().encode(), KEY.encode())), id="case"
        ),
    ],
)
def test_the_tags_of_a_segment_are_found_whatever_its_size_says(content: bytes) -> None:
    assert tag_of(content, ".mkv") == TAG


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(element("18538067", TAGS), id="no EBML header"),
        pytest.param(HEAD + TAGS, id="no segment"),
        pytest.param(HEAD + element("18538067", b"\x08\0\0\0\0\x80" + TAGS), id="behind a fault"),
        pytest.param(HEAD + element("18538067", element("1f43b675", TAGS)), id="in a cluster"),
        pytest.param(matroska([(f"{KEY}2", TAG_TEXT)]), id="a longer name"),
        pytest.param(matroska([(KEY[:-1], TAG_TEXT)]), id="a shorter name"),
        pytest.param(
            HEAD + element("18538067", TAGS.replace(b"\x44\x87", b"\x44\x85")), id="no string"
        ),
    ],
)
def test_a_matroska_has_no_tag_but_in_a_simple_tag_of_that_name(content: bytes) -> None:
    assert tag_of(content, ".mkv") is None


def test_a_name_is_read_only_when_it_is_as_long_as_ours() -> None:
    named = element("7373", element("67c8", element("45a3", bytes(5 * 2**20))))
    assert tag_of(HEAD + element("18538067", element("1254c367", named) + TAGS), ".mkv") == TAG


@pytest.mark.parametrize("end", [b"\x45", b"\x45\xa3", b"\x45\xa3\x40", b"\x01", b"\x80", b"\0"])
def test_an_element_whose_head_is_cut_by_its_parent_is_a_fault(end: bytes) -> None:
    tag = short_element("67c8", short_element("45a3", KEY.encode()) + end)
    segment = element("18538067", element("1254c367", element("7373", tag)) + TAGS)
    assert tag_of(HEAD + segment, ".mkv") is None
