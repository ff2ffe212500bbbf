from __future__ import annotations

from tests.core.containers.samples import COMPLETE, CUT_SHORT, MP3, OPUS, UNKNOWN, facts_of


def test_an_ogg_page_that_only_seems_to_begin_in_the_sound_does_not_hide_the_last_one() -> None:
    page = b"OggS\0\x04" + bytes(20) + b"\x01\x0cOggS and more"[:14]
    assert len(page) == 27 + 1 + 12
    assert facts_of(OPUS.read_bytes() + page).completeness is COMPLETE
    assert facts_of(OPUS.read_bytes() + page.replace(b"\x04", b"\x00", 1)).completeness is UNKNOWN


def test_an_mp3_is_recognized_by_its_tag_or_by_its_first_frame() -> None:
    content = MP3.read_bytes()
    assert ".mp3" in facts_of(content).extensions
    assert facts_of(b"\xff\xfb\x90\x00" + bytes(100)).extensions == {".mp3"}
    assert facts_of(content[:200]).completeness is CUT_SHORT
