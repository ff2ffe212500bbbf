from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.core.containers.samples import (
    COMPLETE,
    CUT_SHORT,
    GLB,
    LATENT,
    UNKNOWN,
    declared_json,
    facts_of,
    tensors,
)

if TYPE_CHECKING:
    from flask_comfy_files.core.containers import Completeness


def test_a_latent_cut_behind_its_header_is_cut_short() -> None:
    assert facts_of(LATENT.read_bytes()[:-1]).completeness is CUT_SHORT


@pytest.mark.parametrize(
    ("content", "completeness"),
    [
        pytest.param(tensors([0, 4]) + bytes(4), COMPLETE, id="one tensor"),
        pytest.param(tensors([4, 9], [0, 4]) + bytes(8), CUT_SHORT, id="a byte is missing"),
        pytest.param(declared_json(b'{"__metadata__": {}}'), COMPLETE, id="no tensor"),
    ],
)
def test_tensors_are_complete_when_the_last_one_fits(
    content: bytes, completeness: Completeness
) -> None:
    facts = facts_of(content)
    assert facts.extensions == {".latent", ".safetensors"}
    assert facts.completeness is completeness


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(declared_json(b'{"a":' * 100_000), id="nested too deep"),
        pytest.param(declared_json(b'{"a": ' + b"1" * 5000 + b"}"), id="a number too long"),
        pytest.param(
            declared_json(b'{"a": {"data_offsets": [4, 0]}}'), id="an end before its start"
        ),
        pytest.param(declared_json(b'{"a": {"data_offsets": [0, 4.5]}}'), id="half a byte"),
        pytest.param(declared_json(b'{"a": 5}'), id="no tensor"),
        pytest.param(declared_json(b'{"\xff": {}}'), id="no UTF-8"),
        pytest.param(struct.pack("<Q", 2**63) + b'{"a": {}}', id="a header beyond the end"),
        pytest.param(declared_json(b"{" + b" " * 2**20 + b"}"), id="a header too long to parse"),
    ],
)
def test_what_only_resembles_tensors_is_not_recognized(content: bytes) -> None:
    facts = facts_of(content)
    assert (facts.extensions, facts.completeness) == (frozenset(), UNKNOWN)


def test_a_glb_with_bytes_after_its_length_is_complete_and_one_of_no_length_is_not_judged() -> None:
    content = GLB.read_bytes()
    assert facts_of(content + b"more").completeness is COMPLETE
    assert facts_of(content[:8] + bytes(4) + content[12:]).completeness is UNKNOWN


@pytest.mark.parametrize("version", [1, 2])
def test_a_glb_of_a_header_only_is_complete(version: int) -> None:
    facts = facts_of(b"glTF" + struct.pack("<II", version, 12))
    assert facts.extensions == {".glb"}
    assert facts.completeness is COMPLETE
