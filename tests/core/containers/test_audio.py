from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import COMPLETE, CUT_SHORT, MP3, OPUS, UNKNOWN, facts_of

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


def test_an_ogg_page_that_only_seems_to_begin_in_the_sound_does_not_hide_the_last_one() -> None:
    page = b"OggS\0\x04" + bytes(20) + b"\x01\x0cOggS and more"[:14]
    assert len(page) == 27 + 1 + 12
    assert facts_of(OPUS.read_bytes() + page).completeness is COMPLETE
    assert facts_of(OPUS.read_bytes() + page.replace(b"\x04", b"\x00", 1)).completeness is UNKNOWN


@pytest.mark.parametrize(
    ("flags", "completeness"), [(0x04, COMPLETE), (0x06, COMPLETE), (0x03, UNKNOWN), (0, UNKNOWN)]
)
def test_an_ogg_file_of_one_page_is_complete_when_that_page_ends_the_stream(
    flags: int, completeness: Completeness
) -> None:
    page = b"OggS\0" + bytes([flags]) + bytes(20) + b"\x02\x03\x02sound"
    assert facts_of(page).completeness is completeness
    # The page that ends the stream does not end the file, so more was meant to come.
    assert facts_of(page + b"?").completeness is UNKNOWN
    assert facts_of(page[:-1]).completeness is UNKNOWN


def test_only_a_possible_frame_of_layer_three_is_taken_for_mp3() -> None:
    recognized = {
        second for second in range(256) if facts_of(bytes([0xFF, second, 0x90, 0])).extensions
    }
    assert recognized == {0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB}
    impossible = [0x00, 0x04, 0xF0, 0xF4, 0x9C, 0x1C]
    assert [
        third for third in impossible if facts_of(bytes([0xFF, 0xFB, third, 0])).extensions
    ] == []


@pytest.mark.parametrize("version", [2, 3, 4])
def test_an_mp3_cut_within_its_tag_is_cut_short(version: int) -> None:
    tag = b"ID3" + bytes([version, 0, 0, 0, 0, 1, 2]) + bytes(130)
    answers = [facts_of(content).completeness for content in (tag, tag[:-1], tag[:9])]
    assert answers == [UNKNOWN, CUT_SHORT, CUT_SHORT]


def test_an_mp3_is_recognized_by_its_tag_or_by_its_first_frame() -> None:
    content = MP3.read_bytes()
    assert ".mp3" in facts_of(content).extensions
    frame = facts_of(b"\xff\xfb\x90\x00" + bytes(100))
    assert frame.extensions == {".mp3"}
    assert frame.completeness is UNKNOWN
    assert facts_of(content[:200]).completeness is CUT_SHORT
