from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.errors import DocumentDamagedError, LibraryUnavailableError

CHANGES: list[dict[str, Any]] = [
    {
        "seq": 1,
        "kind": "job",
        "job_id": "job_1",
        "files": [{"original_path": 'キャラ "1"\n\\.png'}],
    },
    {"seq": 2, "kind": "add", "job_id": "job_1", "files": [{"original_path": "not utf-8 \udcff"}]},
    {"seq": 3, "kind": "state", "job_id": "job_1", "state": {"pinned": True, "tags": ["]}", ", "]}},
]
FIRST_LINE = (
    b'{"format": 1, "library_id": "abc", "generation": 1, "check": "f1448d8a", "changes": ['
)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=[]))
JSON = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=8
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / ".comfy_files").mkdir()
    return str(tmp_path)


@pytest.fixture
def descriptor(root: str) -> Iterator[int]:
    document.create(root, "abc")
    with document.open_document(root, os.O_RDWR) as opened:
        assert opened is not None
        yield opened


def raw(root: str) -> bytes:
    return Path(root, "file_metadata.json").read_bytes()


def append_all(descriptor: int) -> list[document.Line]:
    header = document.read_header(descriptor)
    lines = document.append(descriptor, header, header.end, CHANGES[:2])
    return lines + document.append(descriptor, header, lines[-1].end, CHANGES[2:])


@settings(max_examples=50)
@given(st.dictionaries(TEXTS, JSON, min_size=1, max_size=5))
def test_a_line_gives_back_what_was_written(change: dict[str, Any]) -> None:
    line = document.encode(change)
    assert b"\n" not in line
    decoded = document.decode(line)
    assert decoded is not None
    expected = {key: value for key, value in change.items() if key != "check"}
    assert {key: value for key, value in decoded.items() if key != "check"} == expected
    assert json.loads(line)["check"] == json.loads(line[-12:-1])


@given(st.data())
def test_a_line_with_any_other_byte_is_none(data: st.DataObject) -> None:
    line = document.encode(CHANGES[0])
    place = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[place]))
    assert document.decode(line[:place] + bytes([byte]) + line[place + 1 :]) is None
    assert document.decode(line[:place]) is None


def test_a_new_document_is_json_and_says_which_library_it_is(root: str) -> None:
    header = document.create(root, "abc")
    assert raw(root) == FIRST_LINE + b"\n]}\n"
    assert (header.library_id, header.generation, header.end) == ("abc", 1, len(FIRST_LINE))
    assert json.loads(raw(root))["changes"] == []


def test_the_check_of_a_line_can_be_computed_by_anybody(root: str, descriptor: int) -> None:
    append_all(descriptor)
    for line in raw(root).splitlines()[1:-1]:
        found = re.fullmatch(rb'(.*), "check": "([0-9a-f]{8})"\}', line.removesuffix(b","))
        assert found is not None
        assert zlib.crc32(found[1] + b"}") == int(found[2], 16)


def test_a_document_is_never_created_over_another_one(root: str, descriptor: int) -> None:
    append_all(descriptor)
    before = raw(root)
    with pytest.raises(FileExistsError):
        document.create(root, "other")
    assert raw(root) == before


def test_an_append_writes_the_line_and_at_most_64_bytes_more_and_leaves_the_rest(
    root: str, descriptor: int
) -> None:
    append_all(descriptor)
    before = raw(root)
    header = document.read_header(descriptor)
    change = {"seq": 4, "kind": "job", "job_id": "job_2", "files": [{}] * 100}
    (line,) = document.append(descriptor, header, len(before) - len(document.CLOSING), [change])
    assert raw(root).startswith(before[: -len(document.CLOSING)])
    assert len(raw(root)) - len(before) <= line.length + 64
    assert [entry["seq"] for entry in json.loads(raw(root))["changes"]] == [1, 2, 3, 4]


def test_a_scan_yields_each_line_and_where_it_stands(root: str, descriptor: int) -> None:
    lines = append_all(descriptor)
    header = document.read_header(descriptor)
    scan = document.Scan(descriptor, header, header.end)
    found = list(scan)
    assert [(line.offset, line.length) for line in found] == [
        (line.offset, line.length) for line in lines
    ]
    expected = [{**CHANGES[0], "batch": 1}, {**CHANGES[1], "batch": 1}, CHANGES[2]]
    assert [{**line.change, "check": None} for line in found] == [
        {**change, "check": None} for change in expected
    ]
    assert scan.is_closed
    assert scan.position == found[-1].end == len(raw(root)) - len(document.CLOSING)
    for line in found:
        assert document.read_line(descriptor, line.offset, line.length) == line.change


def test_a_scan_can_begin_behind_any_line(descriptor: int) -> None:
    lines = append_all(descriptor)
    header = document.read_header(descriptor)
    for place, line in enumerate(lines):
        scan = document.Scan(descriptor, header, line.end)
        assert [found.change["seq"] for found in scan] == [1, 2, 3][place + 1 :]
        assert scan.is_closed


@pytest.mark.parametrize("behind", [b"x", b"\0", b"\n", b"\n]}\n"], ids=repr)
def test_a_document_with_anything_behind_its_end_is_not_closed(
    behind: bytes, root: str, descriptor: int
) -> None:
    append_all(descriptor)
    Path(root, "file_metadata.json").write_bytes(raw(root) + behind)
    header = document.read_header(descriptor)
    scan = document.Scan(descriptor, header, header.end)
    assert len(list(scan)) == 3
    assert not scan.is_closed


def test_mending_a_tail_keeps_what_stood_there(root: str, descriptor: int) -> None:
    lines = append_all(descriptor)
    document.repair_tail(root, descriptor, lines[1].end, "1")
    assert [entry["seq"] for entry in json.loads(raw(root))["changes"]] == [1, 2]
    kept = Path(root, ".comfy_files/torn-tail-1").read_bytes()
    assert document.encode(CHANGES[2]) in kept


def test_a_line_that_is_not_as_it_was_written_is_refused(root: str, descriptor: int) -> None:
    (line, *_) = append_all(descriptor)
    path = Path(root, "file_metadata.json")
    path.write_bytes(raw(root).replace(b'"job_1"', b'"job_2"', 1))
    with pytest.raises(DocumentDamagedError, match=f"byte {line.offset} does not match"):
        document.read_line(descriptor, line.offset, line.length)


def with_first_line(facts: dict[str, Any]) -> bytes:
    return document.encode(facts)[:-1] + b', "changes": [\n]}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}",
        b'{"files": []}\n',
        FIRST_LINE[:-1],
        FIRST_LINE.replace(b"abc", b"xyz") + b"\n]}\n",
        FIRST_LINE.replace(b'"changes": [', b'"changes": {') + b"\n]}\n",
        b"\0" * 5000,
        b"x" * 10_000,
        b"[" * 4000 + b"\n",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_a_first_line_that_we_did_not_write_is_damaged(content: bytes, root: str) -> None:
    Path(root, "file_metadata.json").write_bytes(content)
    with document.open_document(root) as opened:
        assert opened is not None
        with pytest.raises(DocumentDamagedError):
            document.read_header(opened)


def test_a_document_of_a_newer_version_is_refused_and_not_called_damaged(root: str) -> None:
    facts = {"format": 2, "library_id": "abc", "generation": 1}
    Path(root, "file_metadata.json").write_bytes(with_first_line(facts))
    with document.open_document(root) as opened:
        assert opened is not None
        with pytest.raises(LibraryUnavailableError, match="format 2, and this version knows 1"):
            document.read_header(opened)


def test_there_may_be_no_document(root: str) -> None:
    with document.open_document(root) as opened:
        assert opened is None
