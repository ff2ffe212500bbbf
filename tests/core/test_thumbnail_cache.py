from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_comfy_files.core import thumbnail_cache
from flask_comfy_files.core.layout import THUMBNAILS
from flask_comfy_files.core.thumbnail_cache import FOLDERS, MOST_IN_FOLDER, ThumbnailCache

NO_LIMIT = FOLDERS * 10**9


def path_of(number: int, side: int = 64) -> str:
    """Return the place of a picture; all of them lie in one folder."""
    path = thumbnail_cache.place_of(f"aa{number:062x}", side)
    assert path is not None
    return path


def names_in(root: Path) -> set[str]:
    return {path.name for path in (root / THUMBNAILS).rglob("*") if path.is_file()}


def age(root: Path, path: str, seconds: int) -> None:
    """Make a kept picture older, so that it is known which one is the oldest."""
    os.utime(root / path, (1_700_000_000 - seconds, 1_700_000_000 - seconds))


def test_what_was_kept_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    cache = ThumbnailCache(str(tmp_path), NO_LIMIT, 0)
    assert cache.find(path_of(1)) is None
    assert cache.keep(path_of(1), b"one")
    assert cache.keep(path_of(1), b"another")
    assert (cache.find(path_of(1)), cache.find(path_of(2))) == (b"another", None)
    assert len(names_in(tmp_path)) == 1


def test_the_oldest_pictures_of_a_folder_go_where_there_are_too_many_bytes(tmp_path: Path) -> None:
    cache = ThumbnailCache(str(tmp_path), FOLDERS * 100, 0)
    for number in range(4):
        assert cache.keep(path_of(number), bytes(30))
        age(tmp_path, path_of(number), -number)
    assert [cache.find(path_of(number)) is not None for number in range(4)] == [False, *[True] * 3]
    assert cache.keep(path_of(4), bytes(90))
    assert names_in(tmp_path) == {Path(path_of(4)).name}
    assert not cache.keep(path_of(5), bytes(101))
    assert names_in(tmp_path) == {Path(path_of(4)).name}


def test_the_oldest_go_where_there_are_too_many_files_half_written_ones_among_them(
    tmp_path: Path,
) -> None:
    cache = ThumbnailCache(str(tmp_path), NO_LIMIT, 0)
    folder = tmp_path / Path(path_of(0)).parent
    folder.mkdir(parents=True)
    half_written = folder / ".0123.part"
    half_written.write_bytes(b"half")
    os.utime(half_written, (1, 1))
    for number in range(MOST_IN_FOLDER + 50):
        (tmp_path / path_of(number)).write_bytes(b"x")
        age(tmp_path, path_of(number), -number)
    assert cache.keep(path_of(10**6), b"the newest")
    names = names_in(tmp_path)
    assert len(names) == MOST_IN_FOLDER
    assert half_written.name not in names
    kept = {Path(path_of(number)).name for number in (10**6, MOST_IN_FOLDER + 49)}
    assert kept < names
    assert Path(path_of(0)).name not in names


def test_what_is_no_picture_of_ours_is_left_alone(tmp_path: Path) -> None:
    cache = ThumbnailCache(str(tmp_path), FOLDERS * 100, 0)
    assert cache.keep(path_of(1), bytes(60))
    folder = tmp_path / Path(path_of(1)).parent
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(tmp_path)
    assert cache.keep(path_of(2), bytes(60))
    assert {path.name for path in folder.iterdir()} == {"folder", "link", Path(path_of(2)).name}
    (folder / Path(path_of(3)).name).mkdir()
    assert cache.find(path_of(3)) is None
    assert not cache.keep(path_of(3), b"x")


def test_all_sizes_of_what_is_deleted_for_good_are_forgotten(tmp_path: Path) -> None:
    cache = ThumbnailCache(str(tmp_path), NO_LIMIT, 0)
    thumbnail_cache.forget(str(tmp_path), f"aa{1:062x}")
    for side in thumbnail_cache.SIZES:
        cache.keep(path_of(1, side), b"x")
        cache.keep(path_of(2, side), b"x")
    thumbnail_cache.forget(str(tmp_path), f"aa{1:062x}")
    assert names_in(tmp_path) == {Path(path_of(2, side)).name for side in thumbnail_cache.SIZES}


@pytest.mark.parametrize("checksum", ["", "../" * 21 + "x", "A" * 64, "0" * 63])
def test_what_is_no_checksum_has_no_place(tmp_path: Path, checksum: str) -> None:
    assert thumbnail_cache.place_of(checksum, 64) is None
    thumbnail_cache.forget(str(tmp_path), checksum)
