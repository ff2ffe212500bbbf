from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import COMPLETE, CUT_SHORT, MKV, UNKNOWN, WEBM, facts_of

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


def test_a_matroska_file_of_unknown_length_is_not_judged() -> None:
    content = MKV.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    assert content[at] == 0x01
    live = content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 :]
    assert (facts_of(live).completeness, facts_of(live[:-9]).completeness) == (UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(b"\x80\x18\x53\x80\x67\x80", COMPLETE, id="an empty segment"),
        pytest.param(b"\x80\x18\x53\x80\x67\x81", CUT_SHORT, id="a byte is missing"),
        pytest.param(b"\x80\x18\x53\x80\x67\x08", CUT_SHORT, id="the size is cut"),
        pytest.param(b"\x80\x18\x53\x80\x68\x80", UNKNOWN, id="no segment"),
        pytest.param(b"\x80\x08\x53\x80\x67\x80\x80", UNKNOWN, id="an ID of five bytes"),
        pytest.param(b"\x80\x18\x53\x80\x67\x00" + bytes(9), UNKNOWN, id="no size"),
        pytest.param(b"\xff" + bytes(20), UNKNOWN, id="a header of unknown length"),
    ],
)
def test_a_matroska_file_is_complete_when_it_holds_its_whole_segment(
    content: bytes, completeness: Completeness
) -> None:
    assert facts_of(b"\x1a\x45\xdf\xa3" + content).completeness is completeness


def test_matroska_and_webm_are_told_apart() -> None:
    assert ".webm" in facts_of(WEBM.read_bytes()).extensions
    assert ".webm" not in facts_of(MKV.read_bytes()).extensions
