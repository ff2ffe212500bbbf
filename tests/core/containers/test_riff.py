from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import COMPLETE, CUT_SHORT, UNKNOWN, facts_of, riff, wav

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


@pytest.mark.parametrize(
    ("content", "extent"),
    [
        pytest.param(b"VP8L\0\0\0\0\x2f" + struct.pack("<I", 99 | 49 << 14), (100, 50), id="VP8L"),
        pytest.param(b"VP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x64\x40\x32\x80", (100, 50), id="VP8"),
        pytest.param(b"VP8 \0\0\0\0\0\0\0\0\0\0\x64\0\x32\0", (None, None), id="no key frame"),
        pytest.param(b"VP9 " + bytes(14), (None, None), id="unknown"),
    ],
)
def test_the_extent_of_a_webp_is_read_from_its_first_frame(
    content: bytes, extent: tuple[int | None, int | None]
) -> None:
    facts = facts_of(riff(b"WEBP", content + bytes(8)))
    assert (facts.width, facts.height) == extent
    assert facts.completeness is COMPLETE


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(riff(b"AVI ", b"movie"), COMPLETE, id="one part"),
        pytest.param(riff(b"AVI ", b"movie")[:-1], CUT_SHORT, id="one part, cut"),
        pytest.param(riff(b"AVI ", b"a") + riff(b"AVIX", b"b"), COMPLETE, id="two parts"),
        pytest.param(
            riff(b"AVI ", b"a") + riff(b"AVIX", b"b")[:-1], CUT_SHORT, id="second part cut"
        ),
        pytest.param(riff(b"AVI ") + riff(b"AVIX") * 10_000, UNKNOWN, id="parts without end"),
        pytest.param(
            riff(b"AVI ", b"a") + riff(b"JUNK", b"b")[:-1], COMPLETE, id="not a second part"
        ),
        pytest.param(riff(b"AVI ", b"a", size=0), UNKNOWN, id="size not yet known"),
        pytest.param(riff(b"WEBP", b"a" * 20, size=2**32 - 1), UNKNOWN, id="size never known"),
        pytest.param(riff(b"WEBP", b"a" * 20, size=3), UNKNOWN, id="size below its own type"),
    ],
)
def test_a_riff_file_is_complete_when_it_holds_what_it_declares(
    content: bytes, completeness: Completeness
) -> None:
    assert facts_of(content).completeness is completeness


def test_a_wav_tells_its_duration_and_a_cut_one_is_cut_short() -> None:
    whole = facts_of(wav())
    assert whole.extensions == {".wav"}
    assert (whole.completeness, whole.duration_s) == (COMPLETE, 0.5)
    assert facts_of(wav()[:-1]).completeness is CUT_SHORT


def test_the_duration_of_a_wav_is_found_behind_chunks_of_odd_length() -> None:
    content = wav()
    chunks = content[12:36] + b"LIST\x03\0\0\0abc\0" + content[36:]
    assert facts_of(riff(b"WAVE", chunks)).duration_s == 0.5


def test_a_wav_of_never_known_length_has_no_duration() -> None:
    content = wav()
    facts = facts_of(riff(b"WAVE", content[12:40] + b"\xff" * 4 + content[44:]))
    assert (facts.completeness, facts.duration_s) == (COMPLETE, None)


def test_a_wav_without_sound_is_not_complete() -> None:
    facts = facts_of(riff(b"WAVE", wav()[12:36]))
    assert (facts.completeness, facts.duration_s) == (UNKNOWN, None)


def test_a_wav_whose_writer_has_not_corrected_its_header_yet_is_not_complete() -> None:
    unfinished = bytearray(wav())
    struct.pack_into("<I", unfinished, 4, 36)
    struct.pack_into("<I", unfinished, 40, 0)
    facts = facts_of(bytes(unfinished))
    assert (facts.completeness, facts.duration_s) == (UNKNOWN, None)
