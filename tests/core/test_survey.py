"""What a migration looks at: found by name alone, listed once, and told of where it is not taken."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import LibraryUnavailableError
from flask_comfy_files.core.layout import DOCUMENT, INDEX
from flask_comfy_files.core.records import Tally
from flask_comfy_files.core.survey import family_of, survey, survey_all
from tests.conftest import MakeTree, OpenManager
from tests.core.test_migration import assert_reconciles, chaos, image, reasons, targets
from tests.trees import RECORDINGS, Fifo, Link, Tree, outputs, read_tree

# What is taken, and what never is


def recorded_files() -> dict[str, bytes]:
    """Return what a real ComfyUI has written, by path."""
    return {
        str(path.relative_to(RECORDINGS)): path.read_bytes()
        for path in RECORDINGS.rglob("*")
        if path.is_file()
    }


def test_of_a_recorded_folder_only_what_lies_directly_in_it_is_taken(
    manager: FileManager, output_root: Path
) -> None:
    before = outputs(output_root)
    report = manager.migrate_legacy_files()
    direct = {name for name in recorded_files() if "/" not in name}
    assert len(direct) == 23
    assert targets(report) == {name: f"legacy/{name}" for name in direct}
    assert reasons(report.skipped) == {}
    kept = {path: entry for path, entry in before.items() if "/" in path}
    moved = {f"legacy/{name}": before[name] for name in direct}
    assert outputs(output_root) == {**kept, **moved}


def test_a_recursive_migration_takes_sub_folders_but_not_the_librarys_own(
    manager: FileManager, output_root: Path
) -> None:
    files = recorded_files()
    report = manager.migrate_legacy_files(recursive=True)
    own = {path for path in files if path.partition("/")[0] in {"projects", "inbox", "legacy"}}
    assert own
    empty = {path for path, content in files.items() if not content}
    taken = files.keys() - own - empty
    assert targets(report) == {path: f"legacy/{path}" for path in taken}
    assert reasons(report.skipped) == dict.fromkeys(empty, "still_being_written")
    assert report.failed == ()
    after = {path: entry for path, entry in outputs(output_root).items() if entry is not None}
    assert after == {f"legacy/{path}" if path in taken else path: files[path] for path in files}
    same = Counter(hashlib.sha256(files[path]).hexdigest() for path in taken)
    assert {found.checksum: len(found.paths) for found in report.duplicates} == {
        checksum: number for checksum, number in same.items() if number > 1
    }


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["keep"], ["keep/a.png", "keep/deep/b.png"]),
        (["keep/*"], ["keep/a.png", "keep/deep/b.png"]),
        (["keep/deep"], ["keep/deep/b.png"]),
        (["*.png"], ["a.png", "keep/a.png", "keep/deep/b.png", "other/a.png"]),
        (["*/a.png", "x.txt"], ["keep/a.png", "other/a.png", "x.txt"]),
        (["KEEP", "a"], []),
    ],
)
def test_what_exclude_names_stays_and_is_not_even_counted(
    make_tree: MakeTree, open_manager: OpenManager, patterns: list[str], left: list[str]
) -> None:
    names = ["a.png", "x.txt", "keep/a.png", "keep/deep/b.png", "other/a.png"]
    root = make_tree({name: image(name) for name in names})
    report = open_manager(root, exclude=patterns).migrate_legacy_files(recursive=True)
    assert targets(report) == {name: f"legacy/{name}" for name in names if name not in left}
    assert report.found.files == len(names) - len(left)
    files = [path for path, entry in outputs(root).items() if entry is not None]
    assert sorted(path for path in files if not path.startswith("legacy/")) == left


@pytest.mark.usefixtures("no_waiting")
def test_links_hidden_unfinished_and_own_files_stay_and_are_told_of(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    never: Tree = {
        "link.png": Link("sub/real.png"),
        "folder_link": Link("sub"),
        "dangling_1762406010_00001.png": Link("/nowhere"),
        ".hidden_1762406010.png": b"hidden",
        "x_1762406010_00001_.png.part": b"part",
        "_output_images_will_be_put_here": b"",
        "pipe_1762406010_00001.mp4": Fifo(),
        f"{DOCUMENT}.damaged-1": b"a damaged document",
        "projects/p/j/stray_1762406010.png": b"stray",
        "inbox/job/run/a_1762406010.png": b"arriving",
        "legacy/old_1762406010.png": b"migrated by hand",
        "sub/real.png": b"real",
        ".dot/x.png": b"x",
    }
    root = make_tree({**never, "a.txt": b"one that goes"})
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    report = open_manager(root).migrate_legacy_files()
    assert targets(report) == {"a.txt": "legacy/a.txt"}
    assert reasons(report.skipped) == {
        "link.png": "link",
        "folder_link": "link",
        "dangling_1762406010_00001.png": "link",
        ".hidden_1762406010.png": "hidden",
        "x_1762406010_00001_.png.part": "unfinished_name",
        "_output_images_will_be_put_here": "placeholder",
        "pipe_1762406010_00001.mp4": "not_a_regular_file",
        "socket": "not_a_regular_file",
    }
    (root / "socket").unlink()
    assert outputs(root) == {**never, "legacy/a.txt": b"one that goes"}


def test_a_recursive_migration_follows_no_link_and_enters_no_hidden_folder(
    make_tree: MakeTree, open_manager: OpenManager, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x.png").write_bytes(b"not ours")
    tree: Tree = {"sub/link": Link("../../elsewhere"), "sub/.git/config": b"c", ".v/x.png": b"v"}
    root = make_tree({**tree, "sub/a.png": b"taken"})
    report = open_manager(root).migrate_legacy_files(recursive=True)
    assert targets(report) == {"sub/a.png": "legacy/sub/a.png"}
    assert reasons(report.skipped) == {"sub/link": "link"}
    assert outputs(root) == {**tree, "legacy/sub/a.png": b"taken"}


def test_a_sub_folder_that_cannot_be_listed_is_told_of_as_failed(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"shut/a.png": b"a", "open/b.png": b"b"})
    open_folder = durable.open_folder

    def refuse(root: str, folder: str) -> Any:
        if folder == "shut":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_folder(root, folder)

    monkeypatch.setattr(durable, "open_folder", refuse)
    report = open_manager(root).migrate_legacy_files(recursive=True)
    assert targets(report) == {"open/b.png": "legacy/open/b.png"}
    assert reasons(report.failed) == {"shut": f"Permission denied (uid {os.geteuid()})"}


def test_a_root_that_is_not_there_is_unavailable(open_manager: OpenManager, tmp_path: Path) -> None:
    manager = open_manager(tmp_path / "not mounted")
    for act in (manager.plan_migration, manager.migrate_legacy_files):
        with pytest.raises(LibraryUnavailableError, match="does not exist"):
            act()
    assert not (tmp_path / "not mounted").exists()


def test_nothing_to_migrate_makes_no_library(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"sub/a.png": b"a", "link": Link("sub")})
    report = open_manager(root).migrate_legacy_files()
    assert_reconciles(report)
    assert report.found == Tally(files=1, bytes=0)
    assert read_tree(root) == {"sub/a.png": b"a", "link": Link("sub")}


def test_a_second_migration_finds_nothing_and_changes_nothing(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({name: content for name, (content, _) in chaos(5, families=15).items()})
    manager = open_manager(root)
    first = manager.migrate_legacy_files()
    before = read_tree(root)
    again = manager.migrate_legacy_files(recursive=True)
    assert again.found == Tally()
    assert again.operation_id != first.operation_id
    after = read_tree(root)
    assert {path: before[path] for path in before if not path.startswith(INDEX)} == {
        path: after[path] for path in after if not path.startswith(INDEX)
    }


# The list itself


@pytest.mark.parametrize(
    ("names", "are_one"),
    [
        (["x.mp4", "x.png", "x-audio.mp4", "x.txt", "x", "x.PNG"], True),
        (["sub/x.mp4", "sub/x.png"], True),
        (["x.tar", "x.tar.gz"], False),
        (["x.png", "X.png"], False),
        (["x.png", "sub/x.png"], False),
        (["x_00001.png", "x_00001_.png"], False),
        (["x.001.png", "x.002.png"], False),
        (["caf\u00e9.png", "cafe\u0301.txt"], False),
        ([".png", ".txt"], False),
        (["-audio.mp4", "x.mp4"], False),
    ],
)
def test_a_family_is_what_differs_in_its_endings_only(names: list[str], are_one: bool) -> None:  # noqa: FBT001 - an expectation
    assert (len({family_of(name) for name in names}) == 1) == are_one


def test_a_family_lies_side_by_side_in_the_list_whatever_sorts_in_between(
    make_tree: MakeTree,
) -> None:
    names = ["a.mp4", "a-audio.mp4", "a-.png", "a-audio2.mp4", "a.png", "a b.png", "a.txt", "A.txt"]
    root = make_tree(dict.fromkeys(names, b"x"))
    paths = survey(str(root), ()).paths
    assert sorted(paths) == sorted(names)
    places = [place for place, path in enumerate(paths) if family_of(path) == ("", "a")]
    assert places == list(range(places[0], places[0] + 4))


def test_the_list_is_the_same_each_time_and_names_no_folder(make_tree: MakeTree) -> None:
    names = ["b.png", "a.png", "sub/a.png", "sub/deep/a.png", "a/b.png", "z"]
    root = make_tree({**dict.fromkeys(names, b"x"), "empty": None})
    assert survey(str(root), ()).paths == ["a.png", "b.png", "z"]
    found = survey_all(str(root), ())
    assert found.paths == [*("a.png", "b.png", "z", "a/b.png", "sub/a.png", "sub/deep/a.png")]
    assert (found.skipped, found.failed) == ([], [])


def test_no_entry_is_looked_at_to_decide(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": b"a", "sub/b.png": b"b", "l": Link("a.png"), "p": Fifo()})
    looked = Counter[str]()
    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, lambda *_, name=name, **__: looked.update([name]))
    found = survey_all(str(root), ())
    monkeypatch.undo()
    assert looked == {}
    assert found.paths == ["a.png", "sub/b.png"]
    assert reasons(found.skipped) == {"l": "link", "p": "not_a_regular_file"}


def test_a_folder_that_vanishes_meanwhile_is_no_failure(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": b"a", "gone/b.png": b"b"})
    open_folder = durable.open_folder

    def vanishing(root: str, folder: str) -> Any:
        if folder == "gone":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return open_folder(root, folder)

    monkeypatch.setattr(durable, "open_folder", vanishing)
    found = survey_all(str(root), ())
    assert (found.paths, found.failed) == (["a.png"], [])
