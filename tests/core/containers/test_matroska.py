from __future__ import annotations

from tests.core.containers.samples import MKV, UNKNOWN, WEBM, facts_of


def test_a_matroska_file_of_unknown_length_is_not_judged() -> None:
    content = MKV.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    assert content[at] == 0x01
    live = content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 :]
    assert (facts_of(live).completeness, facts_of(live[:-9]).completeness) == (UNKNOWN, UNKNOWN)


def test_matroska_and_webm_are_told_apart() -> None:
    assert ".webm" in facts_of(WEBM.read_bytes()).extensions
    assert ".webm" not in facts_of(MKV.read_bytes()).extensions
