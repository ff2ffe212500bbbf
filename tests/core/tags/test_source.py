from __future__ import annotations

import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError
from flask_comfy_files.core.tags import KEY
from flask_comfy_files.core.tags.source import LONGEST_UNPACKED, READ_BUDGET_BYTES, Source
from tests.core.containers.samples import declared_json
from tests.core.tags.samples import FORMATS, TAG, TAG_TEXT, chunk, png, tag_of

MIB = 2**20
TAG_CHUNK = chunk(b"comf", f"{KEY}\0{TAG_TEXT}".encode())


@pytest.fixture
def source() -> Iterator[Source]:
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * READ_BUDGET_BYTES)
        yield Source(file.fileno(), 2 * READ_BUDGET_BYTES)


def many(name: str, texts: list[tuple[str, str]]) -> bytes:
    return FORMATS[name][1]([*texts, (KEY, TAG_TEXT)])


EXHAUSTING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "chunks": (".png", lambda: png(chunk(b"IDAT") * 20_000, TAG_CHUNK)),
    "RIFF chunks": (".webp", lambda: b"RIFF\0\0\0\0WEBP" + bytes(500_000)),
    "boxes": (".mp4", lambda: b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 50_000),
    "elements": (".mkv", lambda: b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 200_000),
    "blocks": (".flac", lambda: b"fLaC" + bytes(400_000)),
    "pages": (".ogg", lambda: (b"OggS" + bytes(23)) * 50_000),
    "frames": (".mp3", lambda: b"ID3\3\0\0\x7f\x7f\x7f\x7f" + b"TXXX\0\0\0\0\0\0" * 50_000),
    "attributes": (".exr", lambda: b"\x76\x2f\x31\x01\2\0\0\0" + b"a\0b\0\0\0\0\0" * 50_000),
    "openings": (".svg", lambda: b"<metadata><![CDATA[" * 60_000),
    "objects": (".svg", lambda: b"<metadata><![CDATA[{}]]>" * 50_000),
    "brackets": (".latent", lambda: declared_json(b'{"__metadata__": ' + b"[" * 1_000_000)),
    "empty objects": (".latent", lambda: declared_json(b"[" + b"{}," * 300_000 + b"{}]")),
    "bombs": (
        ".png",
        lambda: many("packed png", [(KEY, f'["{n}"' + ",{}" * 300_000 + "]") for n in "abcdefgh"]),
    ),
    "a bomb": (".png", lambda: many("packed png", [(KEY, " " * 50 * MIB)])),
    "an international bomb": (
        ".png",
        lambda: many("packed international png", [(KEY, " " * 50 * MIB)]),
    ),
    "comments": (".flac", lambda: many("flac", [("x", "")] * 200_000)),
    "EXIF fields": (".webp", lambda: many("webp", [("x", "")] * 2000)),
    "keys": (".mp4", lambda: many("mp4", [("x", "")] * 2000)),
    "a packet": (".opus", lambda: many("opus", [("x", "y" * 5 * MIB)])),
    "a header": (".latent", lambda: many("latent", [("x", "y" * 2 * MIB)])),
}


@pytest.mark.parametrize("name", EXHAUSTING)
@pytest.mark.usefixtures("no_waiting")
def test_a_file_made_to_exhaust_us_has_no_tag_and_costs_little(name: str) -> None:
    extension, build = EXHAUSTING[name]
    content = build()
    tracemalloc.start()
    try:
        assert tag_of(content, extension) is None
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()


def test_a_tag_behind_the_pixels_of_a_long_animation_is_found() -> None:
    assert tag_of(png(chunk(b"IDAT") * 19_000, TAG_CHUNK), ".png") == TAG


@pytest.mark.parametrize("name", ["png", "apng", "packed png", "webp", "exr", "mp4", "webm", "mp3"])
def test_a_tag_behind_a_workflow_of_any_size_is_found(name: str) -> None:
    extension, build = FORMATS[name]
    beside = [("workflow", f'"{"x" * 5 * MIB}"')]
    assert tag_of(build([*beside, (KEY, TAG_TEXT)]), extension) == TAG


@pytest.mark.parametrize("name", ["flac", "opus"])
def test_a_tag_in_a_comment_header_of_3_mib_is_found(name: str) -> None:
    extension, build = FORMATS[name]
    assert tag_of(build([("workflow", "x" * 3 * MIB), (KEY, TAG_TEXT)]), extension) == TAG


def test_reads_are_limited_in_bytes_and_in_number(source: Source) -> None:
    assert source.read(9, READ_BUDGET_BYTES - 1) == bytes(READ_BUDGET_BYTES - 1)
    with pytest.raises(BudgetSpentError):
        source.read(0, 2)
    for _ in range(20_000 - 2):
        source.read(0, 0)
    with pytest.raises(BudgetSpentError):
        source.read(0, 0)


def test_reading_past_the_end_is_refused(source: Source) -> None:
    assert source.read(source.size - 1, 1) == b"\0"
    with pytest.raises(PastEndError):
        source.read(source.size - 1, 2)


def test_what_is_unpacked_is_limited_at_once_and_in_all(source: Source) -> None:
    largest = bytes(LONGEST_UNPACKED)
    with pytest.raises(BudgetSpentError):
        source.unpack(zlib.compress(largest + b"\0"))
    for _ in range(READ_BUDGET_BYTES // LONGEST_UNPACKED):
        assert source.unpack(zlib.compress(largest)) == largest
    assert source.unpack(zlib.compress(b"")) == b""
    with pytest.raises(BudgetSpentError):
        source.unpack(zlib.compress(b"\0"))


@pytest.mark.parametrize("packed", [b"", b"no zlib", zlib.compress(b"text" * 100)[:-1]])
def test_what_is_no_whole_zlib_stream_is_malformed(source: Source, packed: bytes) -> None:
    with pytest.raises(MalformedError):
        source.unpack(packed)
