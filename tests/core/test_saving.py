from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.saving import Existing, save


def test_a_file_that_comes_while_another_is_written_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def pieces() -> Iterator[bytes]:
        yield b"ours"
        target.write_bytes(b"theirs")

    with pytest.raises(InvalidInputError, match="is there already"):
        save(pieces(), str(target), Existing.KEEP)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"theirs"}


def test_nothing_is_made_where_the_name_is_taken_already(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"theirs")
    pieces = iter([b"ours"])
    with pytest.raises(InvalidInputError, match="is there already"):
        save(pieces, str(target), Existing.KEEP)
    assert list(pieces) == [b"ours"], "it was asked for in vain"
