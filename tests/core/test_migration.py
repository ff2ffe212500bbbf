from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import random
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import carrying, detection, durable, lock, migration, recovery
from flask_comfy_files.core.detection import FILES_AT_ONCE
from flask_comfy_files.core.errors import (
    LockTimeoutError,
    MigrationRunningError,
    OutOfSpaceError,
    RecordNotFoundError,
    StorageError,
)
from flask_comfy_files.core.layout import DOCUMENT, INDEX, LOCK, MIGRATION, STATE
from flask_comfy_files.core.records import LeftFile, Tally
from flask_comfy_files.core.relocation import MigrationReport
from tests.conftest import MakeTree, OpenManager
from tests.core.tags.samples import mp4, plain_png
from tests.crash.library_check import delete_index
from tests.trees import (
    AN_HOUR_AGO,
    BATCH,
    NOW,
    TIMESTAMP,
    Fifo,
    Link,
    Tree,
    organized_image,
    outputs,
    read_tree,
    recording,
    set_modified,
)

TIME = 1762406010
"""The time in the names of the first job of Tower Anime Production's own folder."""


def image(title: str, graph: object = None) -> bytes:
    """Return a picture unlike all others, with the graph that made it."""
    texts = [] if graph is None else [("prompt", json.dumps(graph))]
    return plain_png([("Title", ascii(title)), *texts])


def tagged(job_id: str, project_id: str | None = None, title: str = "") -> bytes:
    """Return a picture that says whose it is."""
    tag = {"job_id": job_id} | ({} if project_id is None else {"project_id": project_id})
    return plain_png([("Title", title), ("comfy_files", json.dumps(tag))])


def clip(title: str) -> bytes:
    """Return a video unlike all others."""
    return mp4([("title", ascii(title))])


def seeded(seed: object) -> dict[str, Any]:
    """Return a graph with a seed."""
    return {"3": {"class_type": "KSampler", "inputs": {"seed": seed, "steps": 20}}}


def migrated(job_id: str, ending: str, project_id: str = "legacy_migration") -> str:
    """Return where a file of a job lies that was migrated at ``NOW``."""
    return f"projects/{project_id}/{job_id}/{job_id}_{TIMESTAMP}_{ending}"


def by_time(ending: str, time: int = TIME) -> str:
    """Return where a file lies whose name held a time."""
    return migrated(f"legacy_{time}", ending)


def targets(report: MigrationReport) -> dict[str, str]:
    """Return where each file went, after checking that the report adds up."""
    assert_reconciles(report)
    found = {move.path: move.target for move in report.moves}
    assert len(found) == len(report.moves) == report.migrated.files + report.moved_to_legacy.files
    return found


def reasons(left: Iterable[LeftFile]) -> dict[str, str]:
    """Return why each file was left."""
    entries = list(left)
    found = {entry.path: str(entry.reason) for entry in entries}
    assert len(found) == len(entries), "a file is left twice"
    return found


def assert_reconciles(report: MigrationReport) -> None:
    """Check that a report accounts for everything it found, in files and in bytes."""
    left = [*report.skipped, *report.failed]
    assert len({entry.path for entry in left}) == len(left)
    tallies = [report.migrated, report.moved_to_legacy, report.left]
    tallies += [Tally(files=1, bytes=entry.bytes) for entry in left]
    assert report.found.files == sum(tally.files for tally in tallies)
    assert report.found.bytes == sum(tally.bytes for tally in tallies)
    of_jobs = sum(job.files for job in report.jobs), sum(job.bytes for job in report.jobs)
    assert of_jobs == (report.migrated.files, report.migrated.bytes)
    assert sum(report.file_types.values()) == len(report.moves)


def stored_in(root: Path) -> dict[str, dict[str, Any]]:
    """Return every record of the document by path, folded with nothing of the library's own code."""
    records: dict[str, dict[str, Any]] = {}
    for change in json.loads((root / DOCUMENT).read_bytes())["changes"]:
        if change["kind"] == "state":
            for file_id, overlay in change.get("files", {}).items():
                records[file_id] |= overlay
        else:
            records |= {stored["file_id"]: stored for stored in change["files"]}
    there = [record for record in records.values() if not record.get("withdrawn")]
    by_path = {record["path"]: record for record in there}
    assert len(by_path) == len(there), "two records name one file"
    return by_path


def check_library(root: Path) -> dict[str, dict[str, Any]]:
    """Expect each recorded file in its place and none without a record; return the records by path."""
    records = stored_in(root)
    tree = outputs(root)
    organized = {path for path in tree if path.partition("/")[0] in {"projects", "legacy"}}
    assert {path for path in organized if tree[path] is not None} == set(records)
    for path, record in records.items():
        content = tree[path]
        assert isinstance(content, bytes)
        assert record["checksum"] == hashlib.sha256(content).hexdigest()
        assert record["file_size"] == len(content)
        assert (record["job_id"] is None) == path.startswith("legacy/")
    with FileManager(root) as manager:
        answered = list(manager.get_legacy_files())
        for job_id in {record["job_id"] for record in records.values()} - {None}:
            answered += manager.get_job_files(job_id).files
        stats = manager.get_system_stats()
    assert {record.path: record.file_id for record in answered} == {
        path: record["file_id"] for path, record in records.items()
    }
    unowned = [record for record in records.values() if record["job_id"] is None]
    assert (stats.total_files, stats.legacy.files) == (len(records), len(unowned))
    assert stats.legacy.bytes == sum(record["file_size"] for record in unowned)
    return records


def operations(root: Path) -> list[str]:
    """Return the ids of the migrations that the document tells of, each once, in their order."""
    changes = json.loads((root / DOCUMENT).read_bytes())["changes"]
    found = (change["operation"] for change in changes)
    return list(dict.fromkeys(entry["id"] for entry in found if entry["kind"] == "migrate"))


def stop_when_moved(root: Path) -> Callable[[int, int, int], None]:
    """Return what interrupts a migration once something has moved."""
    before = set(root.iterdir())

    def stop(_done: int, _total: int, _size: int) -> None:
        if before - set(root.iterdir()):
            raise KeyboardInterrupt

    return stop


# Tower Anime Production's own folder


def production() -> dict[str, tuple[bytes, str]]:
    """Return 360 files as they lie in that folder, by name, each with where it must go."""
    files = {}
    for number in range(47):
        time = TIME + 97 * number
        stem = f"animatediff_context_120frames_{time}_00001"
        files[f"{stem}.png"] = image(stem), by_time("image.png", time)
        if number:  # one has lost its video
            files[f"{stem}.mp4"] = clip(stem), by_time("video.mp4", time)
    shapes = ("kai_nakamura_56321_{:05}_", "intelligent_AOM3A1B_{:05}_", "AnimateDiff_{:05}")
    for number in range(267):
        stem = shapes[number % 3].format(number + 1)
        name = f"{stem}.mp4" if number % 5 == 0 else f"{stem}.png"
        files[name] = clip(name) if number % 5 == 0 else image(name), f"legacy/{name}"
    return files


def test_the_production_folder_is_migrated_file_by_file_and_the_report_says_so(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    files = production()
    root = make_tree({name: content for name, (content, _) in files.items()})
    size = Counter[str]()
    for content, target in files.values():
        size[target.partition("/")[0]] += len(content)
    report = open_manager(root).migrate_legacy_files()
    assert targets(report) == {name: target for name, (_, target) in files.items()}
    assert report.found == Tally(files=360, bytes=size.total())
    assert report.migrated == Tally(files=93, bytes=size["projects"])
    assert report.moved_to_legacy == Tally(files=267, bytes=size["legacy"])
    assert report.left == Tally()
    assert (report.skipped, report.failed, report.duplicates) == ((), (), ())
    assert len(report.jobs) == 47
    assert {(job.project_id, job.evidence) for job in report.jobs} == {("legacy_migration", "time")}
    assert sorted({job.files for job in report.jobs}) == [1, 2]
    assert report.file_types == {"image": 47 + 213, "video": 46 + 54}
    assert not report.dry_run
    assert outputs(root) == {target: content for content, target in files.values()}
    records = check_library(root)
    assert operations(root) == [report.operation_id]
    for name, (_, target) in files.items():
        record = records[target]
        assert record["original_path"] == name
        assert record["evidence"] == ("time" if target.startswith("projects/") else "none")
    preview = records[by_time("image.png", TIME + 97)]
    assert (preview["file_type"], preview["generation_type"]) == ("image", "video")


def test_the_example_of_the_requirements_goes_where_they_say(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    stem = "animatediff_context_120frames_1762406010_00001"
    root = make_tree({f"{stem}.mp4": clip("one"), f"{stem}.png": image("one")})
    report = open_manager(root).migrate_legacy_files()
    folder = "projects/legacy_migration/legacy_1762406010"
    assert targets(report) == {
        f"{stem}.mp4": f"{folder}/legacy_1762406010_{TIMESTAMP}_video.mp4",
        f"{stem}.png": f"{folder}/legacy_1762406010_{TIMESTAMP}_image.png",
    }
    job = open_manager(root).get_job_files("legacy_1762406010")
    assert [(record.generation_type, record.evidence) for record in job] == [("video", "time")] * 2


# A folder in which each file's owner is known


PREFIXES = (
    *("kai_nakamura", "job_1", "job_10", "job_1_2", "-rf", "two words", "percent%20name"),
    *("[set]*?", "caf\u00e9", "cafe\u0301", "東京", "UPPER", "upper", "dots...inside", "new\nline"),
    *("quote'and\"quote", "a" * 180, "tab\t", "\\back", "#&;$(x)", os.fsdecode(b"not\xffutf8")),
)
# A name, and which part of it is its job's time; {s} is the seed of the graph.
STYLES: tuple[tuple[str, str | None], ...] = (
    ("{p}_{n:05}_", None),  # SaveImage
    ("{p}_{n:05}", None),  # Video Combine
    ("{p}{n:05}", None),
    ("{p}_{t}_{n:05}", "{t}"),
    ("{p}_{t}_{n:05}_", "{t}"),
    ("{t}-{p}-{n:04}", "{t}"),
    ("{p}x{t}x{n}", "{t}"),
    ("{p}_{t}123_{n:05}_", None),  # milliseconds
    ("{p}_20251105_{n:05}_", None),
    ("{p}_{s}_{n:05}_", None),
    ("{p}_{s}_{t}_{n:05}_", "{t}"),
    ("{p}_{t}_{u}_{n:05}_", None),  # two times
    ("{p}_{t}_{t}_{n:05}_", "{t}"),  # one, twice
    ("{p}_0999999999_{n:05}_", None),
    ("{p}_9999999999_{n:05}_", None),
)
FAMILIES = (
    *((".png",), (".png", ".txt"), (".mp4", ".png"), (".mp4", "-audio.mp4", ".png", ".json")),
    *((".gif",), ("",), (".tar.gz",), (".PNG", ".caption"), (".webm", ".png")),
)


def chaos(seed: int, families: int) -> dict[str, tuple[bytes, str | None]]:
    """Return files with names that trip a careless reader, each with its job, or ``None``."""
    rng = random.Random(seed)  # noqa: S311 - the same each time
    files: dict[str, tuple[bytes, str | None]] = {}
    for number in range(families):
        style, owner = STYLES[number % len(STYLES)]
        time = TIME + rng.randrange(9) * 60
        words = {"p": rng.choice(PREFIXES), "n": number, "t": time, "u": time + 1}
        words["s"] = rng.randrange(1_000_000_000, 1_750_000_000)
        stem = style.format_map(words)
        has_graph = "{s}" in style
        job_id = None if owner is None else f"legacy_{owner.format_map(words)}"
        family = rng.choice(FAMILIES)
        for ending in FAMILIES[1] if has_graph else family:
            name = stem + ending
            graph = seeded(words["s"]) if has_graph else None
            is_image = ending.lower() == ".png"
            content = image(name, graph) if is_image else os.fsencode(f"{name} {number}")
            files[name] = content, job_id
    return files


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_file_of_a_chaos_goes_to_the_job_that_made_it_or_to_legacy(
    make_tree: MakeTree, open_manager: OpenManager, seed: int
) -> None:
    files = chaos(seed, families=90)
    assert len({owner for _, owner in files.values()}) > 8
    root = make_tree({name: content for name, (content, _) in files.items()})
    manager = open_manager(root)
    plan, report = manager.plan_migration(), manager.migrate_legacy_files()
    went = targets(report)
    assert targets(plan) == went
    assert went.keys() == files.keys()
    assert (report.skipped, report.failed) == ((), ())
    for name, (_, job_id) in files.items():
        if job_id is None:
            assert went[name] == f"legacy/{name}"
        else:
            assert went[name].startswith(migrated(job_id, ""))
    after = {went[name]: content for name, (content, _) in files.items()}
    assert outputs(root) == after
    records = check_library(root)
    assert {records[went[name]]["original_path"] for name in files} == files.keys()
    owners = Counter(owner for _, owner in files.values() if owner is not None)
    assert {job.job_id: job.files for job in report.jobs} == owners


def test_a_recursive_migration_of_a_chaos_keeps_the_same_stem_of_two_folders_apart(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    flat = chaos(4, families=30)
    files = {
        f"{folder}{name}": (content + folder.encode(), owner)
        for folder in ("", "ep01/", "ep01/deep er/", "アニメ/")
        for name, (content, owner) in flat.items()
    }
    root = make_tree({name: content for name, (content, _) in files.items()})
    report = open_manager(root).migrate_legacy_files(recursive=True)
    went = targets(report)
    assert went.keys() == files.keys()
    for name, (_, job_id) in files.items():
        expected = f"legacy/{name}" if job_id is None else migrated(job_id, "")
        assert went[name].startswith(expected)
    tree = {path: entry for path, entry in outputs(root).items() if entry is not None}
    assert tree == {went[name]: content for name, (content, _) in files.items()}
    check_library(root)


# legacy/


def test_names_that_trip_others_are_kept_as_they_are_in_legacy(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = [
        *("same.png", "same.txt", "same", "Same.png", "SAME.PNG", "two.tar.gz", "two.tar", ".."),
        *(unicodedata.normalize(form, "été アニメガ.png") for form in ("NFC", "NFD")),
        *("line\nbreak.png", "tab\t.png", "back\\slash.png", " .png", "end. ", "-rf", "*?[a].png"),
        *(os.fsdecode(b"\xff\xfe.png"), os.fsdecode(b"caf\xe9"), "x" * 251 + ".png", "だ" * 85),
        *("...", "a.", ".png."),
    ]
    tree = {name: name.encode("utf-8", "surrogateescape") for name in names if name != ".."}
    root = make_tree(tree)
    report = open_manager(root).migrate_legacy_files()
    hidden = {name for name in tree if name.startswith(".")}
    assert reasons(report.skipped) == dict.fromkeys(hidden, "hidden")
    taken = tree.keys() - hidden
    assert len(taken) == len(tree) - 2
    assert targets(report) == {name: f"legacy/{name}" for name in taken}
    assert outputs(root) == {
        **{f"legacy/{name}": tree[name] for name in taken},
        **{name: tree[name] for name in hidden},
    }
    records = check_library(root)
    for name in taken:
        record = records[f"legacy/{name}"]
        assert (record["job_id"], record["project_id"], record["evidence"]) == (None, None, "none")
        assert record["original_path"] == name


def test_a_name_taken_in_legacy_gets_a_number_before_the_extension(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["a.png", "plain", "x.tar.gz", "sub/a.png", "n\nl.png"]
    root = make_tree(dict.fromkeys(names, b"first"))
    manager = open_manager(root)
    manager.migrate_legacy_files(recursive=True)
    make_tree({"legacy/plain_2": b"somebody else's"})
    for number in (2, 3):
        make_tree({name: f"{number} {name}".encode() for name in names})
        report = manager.migrate_legacy_files(recursive=True)
        assert targets(report) == {
            "a.png": f"legacy/a_{number}.png",
            "plain": f"legacy/plain_{number + 1}",
            "x.tar.gz": f"legacy/x.tar_{number}.gz",
            "sub/a.png": f"legacy/sub/a_{number}.png",
            "n\nl.png": f"legacy/n\nl_{number}.png",
        }
    assert (root / "legacy/plain_2").read_bytes() == b"somebody else's"
    (root / "legacy/plain_2").unlink()
    check_library(root)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("x" * 251 + ".png", "x" * 249 + "_2.png"),
        ("x" * 255, "x" * 253 + "_2"),
        ("だ" * 85, "だ" * 84 + "_2"),
        ("だ" * 83 + "xy.png", "だ" * 83 + "_2.png"),
        (os.fsdecode(b"\xff" * 251) + ".png", os.fsdecode(b"\xff" * 249) + "_2.png"),
        ("x." + "b" * 253, "x." + "b" * 251 + "_2"),
    ],
    ids=["ascii", "no extension", "three bytes a sign", "mixed", "not UTF-8", "all extension"],
)
def test_a_number_fits_into_255_bytes(
    make_tree: MakeTree, open_manager: OpenManager, name: str, second: str
) -> None:
    root = make_tree({name: b"1"})
    manager = open_manager(root)
    manager.migrate_legacy_files()
    make_tree({name: b"2"})
    assert targets(manager.migrate_legacy_files()) == {name: f"legacy/{second}"}
    assert outputs(root) == {f"legacy/{name}": b"1", f"legacy/{second}": b"2"}
    check_library(root)


def test_two_files_of_one_migration_never_get_one_name_in_legacy(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["a.png", "a_2.png", "a_2_2.png", "a_3.png"]
    root = make_tree({"legacy/a.png": b"taken", **{name: name.encode() for name in names}})
    manager = open_manager(root)
    plan, report = manager.plan_migration(), manager.migrate_legacy_files()
    went = targets(report)
    assert went == targets(plan)
    assert went["a.png"] == "legacy/a_2.png"
    assert len({*went.values(), "legacy/a.png"}) == 5
    assert {path: outputs(root)[path] for path in went.values()} == {
        went[name]: name.encode() for name in names
    }
    assert (root / "legacy/a.png").read_bytes() == b"taken"


def test_what_nobody_owns_stays_when_that_is_asked_for(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({f"x_{TIME}_.png": image("x"), "a.png": b"12345", "b.txt": b"123"})
    manager = open_manager(root)
    plan = manager.plan_migration(leave_unmatched=True)
    report = manager.migrate_legacy_files(leave_unmatched=True)
    assert targets(report) == targets(plan) == {f"x_{TIME}_.png": by_time("image.png")}
    assert report.left == plan.left == Tally(files=2, bytes=8)
    assert set(outputs(root)) == {"a.png", "b.txt", by_time("image.png")}
    assert manager.get_legacy_files().file_count == 0
    check_library(root)


def test_a_folder_that_cannot_be_made_in_legacy_fails_its_own_files_only(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    tree: Tree = {"legacy/notes": b"a file", "legacy/to": Link("/tmp")}  # noqa: S108 - never followed
    rest: Tree = {"notes/a/b.png": b"1", "notes/c.png": b"2", "to/d.png": b"3"}
    root = make_tree({**tree, **rest, "good/e.png": b"4"})
    report = open_manager(root).migrate_legacy_files(recursive=True)
    assert targets(report) == {"good/e.png": "legacy/good/e.png"}
    assert set(reasons(report.failed)) == set(rest)
    assert all(reason.startswith("Not a directory") for reason in reasons(report.failed).values())
    kept = {path: entry for path, entry in outputs(root).items() if entry is not None}
    assert kept == {**tree, **rest, "legacy/good/e.png": b"4"}
    assert set(stored_in(root)) == {"legacy/good/e.png"}


def test_a_folder_of_a_job_that_cannot_be_made_leaves_no_trace_of_the_job(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {
            "projects/anime": b"a file",
            **{f"{number}.png": tagged("job_1", "anime", str(number)) for number in range(3)},
            "x.txt": b"goes",
        }
    )
    manager = open_manager(root)
    report = manager.migrate_legacy_files()
    assert targets(report) == {"x.txt": "legacy/x.txt"}
    assert set(reasons(report.failed)) == {"0.png", "1.png", "2.png"}
    assert manager.get_system_stats().jobs == 0
    (root / "projects/anime").unlink()
    again = manager.migrate_legacy_files()
    assert again.migrated.files == 3
    check_library(root)


# Rehearsal


def everything_below(root: Path) -> list[Path]:
    """Return the paths of everything below a root but the index and the lock, and the root itself."""
    thrown_away = {root / STATE, root / INDEX, root / LOCK}
    thrown_away |= {root / f"{INDEX}{suffix}" for suffix in ("-wal", "-shm")}
    return sorted({root, *root.rglob("*")} - thrown_away)


def age_accesses(paths: Iterable[Path]) -> None:
    """Say that nothing was read for years, so that reading anything would show."""
    for path in paths:
        os.utime(path, ns=(10**18, path.lstat().st_mtime_ns), follow_symlinks=False)


def facts_of(paths: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """Return what lstat says of paths; looking at them leaves no trace."""
    found: dict[Path, tuple[int, ...]] = {}
    for path in paths:
        facts = path.lstat()
        found[path] = (
            *(facts.st_mode, facts.st_ino, facts.st_size, facts.st_nlink),
            *(facts.st_mtime_ns, facts.st_ctime_ns, facts.st_atime_ns),
        )
    return found


WISHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "recursive": {"recursive": True},
    "by list": {
        "recursive": True,
        "jobs": [{"job_id": "listed", "files": [*BATCH, "ep01/key_00001_.png", "gone.png"]}],
    },
    "by workflow": {"recursive": True, "group_by": "workflow"},
    "by day, the rest left": {"group_by": "day", "leave_unmatched": True},
    "left": {"recursive": True, "leave_unmatched": True},
}


def add_troubles(root: Path) -> None:
    """Add what makes a migration differ from a plain one to a library."""
    trouble: Tree = {
        **{name: content for name, (content, _) in chaos(6, families=20).items()},
        "link.png": Link("nowhere"),
        ".hidden.png": b"hidden",
        "pipe": Fifo(),
        "of_known_job.png": tagged("KNOWN"),
        "twin_a.bin": b"the same bytes",
        "twin_b.bin": b"the same bytes",
        "other.bin": b"the same size!",
        "t1.png": tagged("job_t", "p1"),
        "legacy/batch_00001_.png": b"taken",
    }
    for name, entry in trouble.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(entry, Link):
            path.symlink_to(entry.target)
        elif isinstance(entry, Fifo):
            os.mkfifo(path)
        elif entry is not None:
            path.write_bytes(entry)
            set_modified(path, AN_HOUR_AGO)
    (root / "now.png").write_bytes(b"just written")
    set_modified(root / "now.png", NOW)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    "known",
    [{}, {"known": "adv_00001.png", f"legacy_{TIME}": "adv_00002.exr"}],
    ids=["new library", "known jobs"],
)
@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_a_rehearsal_says_what_happens_and_changes_nothing(
    output_root: Path,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
    wish: dict[str, Any],
    known: dict[str, str],
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 7)  # so that jobs are met again and again
    manager = open_manager(output_root)
    for job_id, name in known.items():
        manager.organize_output(job_id, "mine", files=[name])
    add_troubles(output_root)
    paths = everything_below(output_root)
    age_accesses(paths)
    before = facts_of(paths)
    plan = manager.plan_migration(**wish)
    assert facts_of(paths) == before
    assert everything_below(output_root) == paths
    assert (output_root / STATE).exists() == bool(known)
    content = read_tree(output_root)
    report = manager.migrate_legacy_files(**wish)
    planned, done = dataclasses.asdict(plan), dataclasses.asdict(report)
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert (planned.pop("operation_id"), done.pop("operation_id") is None) == (None, False)
    assert planned == done
    went = targets(report)
    after = read_tree(output_root)
    assert {path: after[went.get(path, path)] for path in recorded(content)} == recorded(content)
    twins = [found for found in report.duplicates if found.bytes == len(b"the same bytes")]
    assert [found.paths for found in twins] == (
        [("twin_a.bin", "twin_b.bin")] if "twin_a.bin" in went else []
    )


def recorded(tree: Tree) -> dict[str, bytes]:
    """Return the files of a tree but the library's own."""
    return {
        path: entry
        for path, entry in tree.items()
        if isinstance(entry, bytes) and path != DOCUMENT and not path.startswith(STATE)
    }


def test_a_rehearsal_does_not_create_anything_in_an_empty_root(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({})
    plan = open_manager(root).plan_migration(recursive=True)
    assert (plan.found, plan.dry_run, plan.operation_id) == (Tally(), True, None)
    assert list(root.iterdir()) == []


# Files that are being written, are broken, or are no files


def test_what_was_modified_within_a_minute_waits_with_its_family(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    seconds = {"old.png": -61, "new.png": -59, "future.png": 59, "far.png": 61, "clip.mp4": -59}
    root = make_tree({**{name: image(name) for name in seconds}, "clip.png": image("preview")})
    for name, number in seconds.items():
        set_modified(root / name, NOW + timedelta(seconds=number))
    report = open_manager(root).migrate_legacy_files()
    assert set(targets(report)) == {"old.png", "far.png"}
    waiting = {"new.png", "future.png", "clip.mp4", "clip.png"}
    assert reasons(report.skipped) == dict.fromkeys(waiting, "still_being_written")
    sizes = {left.path: left.bytes for left in report.skipped}
    assert sizes == {name: (root / name).stat().st_size for name in waiting}


def test_what_is_open_for_writing_waits_with_its_family(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = [f"a_{TIME}_00001{ending}" for ending in (".mp4", "-audio.mp4", ".png", ".txt")]
    root = make_tree({**{name: name.encode() for name in names}, "b.txt": b"b"})
    manager = open_manager(root)
    with (root / names[1]).open("ab"):
        report = manager.migrate_legacy_files()
        assert targets(report) == {"b.txt": "legacy/b.txt"}
        assert reasons(report.skipped) == dict.fromkeys(names, "still_being_written")
    assert targets(manager.migrate_legacy_files()).keys() == set(names)


def test_what_is_changed_or_taken_after_it_was_looked_at_stays(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.txt": b"a", "b.txt": b"b", "c.txt": b"c"})
    manager = open_manager(root)
    manager.migrate_legacy_files(leave_unmatched=True)
    changing = recovery.changing

    def change_something(*arguments: Any) -> Any:
        if not (root / "a.txt").exists() or (root / "a.txt").read_bytes() != b"a":
            return changing(*arguments)
        (root / "a.txt").write_bytes(b"a changed one")
        (root / "b.txt").unlink()
        return changing(*arguments)

    calls = Counter[str]()

    def not_the_first(*arguments: Any) -> Any:
        calls["all"] += 1
        return changing(*arguments) if calls["all"] == 1 else change_something(*arguments)

    monkeypatch.setattr(migration, "changing", not_the_first)
    report = manager.migrate_legacy_files()
    assert targets(report) == {"c.txt": "legacy/c.txt"}
    assert reasons(report.skipped) == {"a.txt": "still_being_written", "b.txt": "not_found"}
    assert (root / "a.txt").read_bytes() == b"a changed one"
    check_library(root)


def test_a_file_cut_short_or_empty_waits_for_a_day_and_then_goes_as_it_is(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    tree = {"short.png": recording(BATCH[0])[:200], "empty.png": b"", "empty": b""}
    root = make_tree(tree)
    manager = open_manager(root)
    assert reasons(manager.migrate_legacy_files().skipped) == dict.fromkeys(
        tree, "still_being_written"
    )
    for name in tree:
        set_modified(root / name, NOW - timedelta(hours=25))
    assert targets(manager.migrate_legacy_files()) == {name: f"legacy/{name}" for name in tree}
    assert outputs(root) == {f"legacy/{name}": content for name, content in tree.items()}


@pytest.mark.parametrize("year", [-1, 1601, 9998])
def test_a_file_of_another_age_is_migrated_with_its_time(
    make_tree: MakeTree, open_manager: OpenManager, year: int
) -> None:
    root = make_tree({"a.txt": b"a", "b.txt": b"b"})
    seconds = (year - 1970) * 31_556_952
    os.utime(root / "a.txt", (seconds, seconds))
    # Several file systems keep the nearest time that they can write instead.
    kept = (root / "a.txt").stat().st_mtime
    report = open_manager(root).migrate_legacy_files()
    if kept < datetime.min.replace(tzinfo=UTC).timestamp():
        assert reasons(report.failed)["a.txt"].startswith("Value too large")
        assert (root / "a.txt").stat().st_mtime == kept
        assert targets(report) == {"b.txt": "legacy/b.txt"}
    else:
        assert len(targets(report)) == 2
        assert (root / "legacy/a.txt").stat().st_mtime == kept


@pytest.mark.usefixtures("no_waiting")
def test_pipes_that_the_host_names_are_not_opened(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"pipe.png": Fifo(), "sub/pipe.png": Fifo(), "a.png": b"a"})
    jobs = [{"job_id": "job_1", "files": ["pipe.png", "sub/pipe.png", "sub"]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {"a.png": "legacy/a.png"}
    assert reasons(report.skipped) == {
        "pipe.png": "not_a_regular_file",
        "sub/pipe.png": "not_a_regular_file",
        "sub": "directory",
    }


# One that fails does not hold up the others


def refuse_to_move(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the system refuse to move files of some names."""
    move = durable.move

    def moving(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source in names:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", moving)


def test_a_file_that_cannot_be_moved_stays_without_a_record_and_the_others_go(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = [f"x_{TIME}_00001.png", "stuck.txt"]
    tree = {stuck[0]: image("stuck"), f"x_{TIME}_00001.mp4": clip("x"), stuck[1]: b"s", "a": b"a"}
    root = make_tree(tree)
    manager = open_manager(root)
    with monkeypatch.context() as patch:
        refuse_to_move(patch, *stuck)
        report = manager.migrate_legacy_files()
    assert targets(report) == {f"x_{TIME}_00001.mp4": by_time("video.mp4"), "a": "legacy/a"}
    assert reasons(report.failed) == dict.fromkeys(
        stuck, f"Operation not permitted (uid {os.geteuid()})"
    )
    assert all((root / name).read_bytes() == tree[name] for name in stuck)
    for key in (*stuck, "legacy/stuck.txt", by_time("image.png")):
        with pytest.raises(RecordNotFoundError):
            manager.get_file_metadata(key)
    check_library(root)
    delete_index(root)
    check_library(root)
    assert targets(manager.migrate_legacy_files()) == {
        stuck[0]: by_time("image.png"),
        stuck[1]: "legacy/stuck.txt",
    }
    check_library(root)


def test_a_job_none_of_whose_files_could_be_moved_says_why_until_it_has_some(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": tagged("job_1")})
    manager = open_manager(root)
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "a.png")
        assert reasons(manager.migrate_legacy_files().failed).keys() == {"a.png"}
    job = manager.get_job_files("job_1")
    assert (job.file_count, job.reason) == (0, "no file could be moved")
    manager.migrate_legacy_files()
    job = manager.get_job_files("job_1")
    assert (job.file_count, job.reason) == (1, None)


def test_a_file_that_cannot_be_read_fails_and_the_others_go(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"bad.txt": b"bad", "good.txt": b"good"})
    checksum, bad = durable.checksum, (root / "bad.txt").stat().st_ino

    def reading(descriptor: int) -> str:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return checksum(descriptor)

    monkeypatch.setattr(durable, "checksum", reading)
    report = open_manager(root).migrate_legacy_files()
    assert targets(report) == {"good.txt": "legacy/good.txt"}
    assert reasons(report.failed) == {"bad.txt": f"Input/output error (uid {os.geteuid()})"}
    assert report.found.bytes == 7
    assert (root / "bad.txt").read_bytes() == b"bad"


def test_a_volume_without_room_for_the_records_is_refused_before_anything_moves(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.txt": b"a"})
    with pytest.raises(OutOfSpaceError):
        open_manager(root, min_free_bytes=1024**6).migrate_legacy_files()
    assert read_tree(root) == {"a.txt": b"a"}


# Batches


def batches_of(root: Path) -> list[int]:
    """Return how many files were recorded with each append of a migration."""
    changes = json.loads((root / DOCUMENT).read_bytes())["changes"]
    sizes = Counter[int]()
    for change in changes:
        sizes[change.get("batch", change["seq"])] += len(change["files"])
    return list(sizes.values())


@pytest.mark.parametrize("group_by", [None, "day"])
def test_many_files_are_listed_once_and_recorded_in_batches_of_256(
    make_tree: MakeTree,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
    group_by: str | None,
) -> None:
    root = make_tree({f"f_{number:04}_.txt": f"{number}".encode() for number in range(600)})
    (root / "sub").mkdir()
    listed, appended = Counter[str](), Counter[str]()
    scandir, append = os.scandir, durable.append

    def listing(folder: int) -> Any:
        listed[str(Path(f"/proc/self/fd/{folder}").readlink())] += 1
        return scandir(folder)

    def appending(*arguments: Any) -> None:
        appended["all"] += 1
        append(*arguments)

    monkeypatch.setattr(os, "scandir", listing)
    monkeypatch.setattr(durable, "append", appending)
    told: list[tuple[int, int, int]] = []
    report = open_manager(root).migrate_legacy_files(
        recursive=True, group_by=group_by, on_progress=lambda *done: told.append(done)
    )
    monkeypatch.undo()
    assert FILES_AT_ONCE == 256
    assert len(targets(report)) == 600
    assert batches_of(root) == [256, 256, 88]
    assert appended["all"] == 3
    assert listed == {str(root): 1, str(root / "sub"): 1}
    assert [done for done, _, _ in told if done] == [256, 512, 600]
    assert {total for _, total, _ in told} == {600}
    assert told[-1][2] == report.found.bytes
    check_library(root)


def test_what_is_left_counts_as_done_for_the_progress(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    tree: Tree = {
        "1_skipped.png": image("1"),
        "2_failed.png": tagged("KNOWN"),
        "3.txt": b"goes",
        "4_left.txt": b"left",
        ".hidden": b"never counted",
        "5_stuck.txt": b"stuck",
        "known.png": image("known"),
    }
    root = make_tree(tree)
    set_modified(root / "1_skipped.png", NOW)
    manager = open_manager(root)
    manager.organize_output("known", files=["known.png"])
    told: list[tuple[int, int]] = []
    refuse_to_move(monkeypatch, "5_stuck.txt")
    report = manager.migrate_legacy_files(
        jobs=[{"job_id": "job_1", "files": ["3.txt", "5_stuck.txt"]}],
        leave_unmatched=True,
        on_progress=lambda done, total, _: told.append((done, total)),
    )
    assert told == [(number, 5) for number in (1, 2, 3, 4, 5)]
    assert set(targets(report)) == {"3.txt"}


def test_a_family_is_never_parted_by_a_batch(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 3)
    names = [f"{stem}_{TIME}_{end}" for stem in "abc" for end in ("1.mp4", "1.png")]
    root = make_tree({name: clip(name) for name in names})
    report = open_manager(root).migrate_legacy_files()
    assert len(targets(report)) == 6
    assert batches_of(root) == [2, 2, 2]
    assert set(report.file_types.items()) == {("image", 3), ("video", 3)}
    numbered = [by_time(f"{kind}{end}") for kind, end in (("image", ".png"), ("video", ".mp4"))]
    assert set(numbered) < set(targets(report).values())
    assert {record["generation_type"] for record in check_library(root).values()} == {"video"}


# Interrupted


def test_what_was_interrupted_goes_on_under_the_same_id_and_the_next_gets_its_own(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    tree = {f"f_{number:04}_.txt": f"{number}".encode() for number in range(600)}
    root = make_tree(tree)
    manager = open_manager(root)
    with pytest.raises(KeyboardInterrupt):
        manager.migrate_legacy_files(on_progress=stop_when_moved(root))
    (operation_id,) = operations(root)
    assert len(check_library(root)) == 256
    report = open_manager(root).migrate_legacy_files()
    assert report.operation_id == operation_id
    assert report.found.files == 344
    assert (report.skipped, report.failed) == ((), ())
    assert operations(root) == [operation_id]
    assert outputs(root) == {f"legacy/{name}": content for name, content in tree.items()}
    make_tree({"later.txt": b"later"})
    later = manager.migrate_legacy_files()
    assert operations(root) == [operation_id, later.operation_id]
    check_library(root)


def test_one_that_was_interrupted_after_its_last_file_has_ended_at_the_next_call(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.txt": b"a"})
    manager = open_manager(root)
    with pytest.raises(KeyboardInterrupt):
        manager.migrate_legacy_files(on_progress=stop_when_moved(root))
    (operation_id,) = operations(root)
    report = manager.migrate_legacy_files()
    assert (report.operation_id, report.found) == (operation_id, Tally())
    make_tree({"b.txt": b"b"})
    assert manager.migrate_legacy_files().operation_id != operation_id


def test_an_interrupted_one_goes_on_with_the_same_list_without_complaint(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    names = ["a.png", "b.png", "sub/c.png"]
    root = make_tree({name: image(name) for name in names})
    jobs = [{"job_id": "job_1", "files": [*names, "never_there.png"]}]
    manager = open_manager(root)
    with pytest.raises(KeyboardInterrupt):
        manager.migrate_legacy_files(jobs=jobs, on_progress=stop_when_moved(root))
    report = manager.migrate_legacy_files(jobs=jobs)
    assert reasons(report.skipped) == {"never_there.png": "not_found"}
    assert [record.original_path for record in manager.get_job_files("job_1")] == names
    check_library(root)


def keep_index(_root: Path) -> None:
    """Leave everything as it is."""


def full_disk() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def stopping(patch: pytest.MonkeyPatch, point: int, fail: Callable[[], NoReturn]) -> Counter[str]:
    """Let the n-th call into ``durable`` fail; count the calls."""
    calls = Counter[str]()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls["all"] += 1
            if calls["all"] == point:
                fail()
            return function(*arguments, **options)

        return call

    for name, function in list(vars(durable).items()):
        if getattr(function, "__module__", "") == durable.__name__ and name != "refuse":
            patch.setattr(durable, name, counted(function))
    return calls


@pytest.mark.parametrize("prepare", [keep_index, delete_index])
@pytest.mark.parametrize("fail", [interrupt, full_disk])
def test_it_is_stopped_by_an_error_at_any_call_and_the_next_finishes_the_rest(
    make_tree: MakeTree,
    tmp_path: Path,
    fail: Callable[[], NoReturn],
    prepare: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    open_manager: OpenManager,
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 2)
    stem = f"x_{TIME}_00001"
    tree: dict[str, Any] = {
        f"{stem}.mp4": clip("x"),
        f"{stem}.png": image("x"),
        "sub/a.txt": b"a",
    }
    untouched = make_tree(tree).rename(tmp_path / "untouched")
    went = {
        by_time("video.mp4"): tree[f"{stem}.mp4"],
        by_time("image.png"): tree[f"{stem}.png"],
        "legacy/sub/a.txt": b"a",
    }
    point = 0
    while True:
        point += 1
        root = shutil.copytree(untouched, tmp_path / "output")
        with open_manager(root) as manager:
            with monkeypatch.context() as patch:
                calls = stopping(patch, point, fail)
                with contextlib.suppress(KeyboardInterrupt, StorageError):
                    manager.migrate_legacy_files(recursive=True)
            prepare(root)
            report = manager.migrate_legacy_files(recursive=True)
            assert_reconciles(report)
            assert (report.skipped, report.failed) == ((), ())
        after = {path: entry for path, entry in outputs(root).items() if entry is not None}
        assert after == went, f"stopped at call {point}"
        check_library(root)
        if fail is interrupt:
            assert len(operations(root)) == 1
        shutil.rmtree(root)
        if calls["all"] < point:
            break
    assert point > 60


@pytest.mark.parametrize("name", ["a.txt", "x" * 251 + ".txt"], ids=["short", "long"])
def test_after_a_crash_a_file_whose_place_was_taken_is_not_lost(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = make_tree({name: b"ours"})
    manager = open_manager(root)

    def die(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carrying, "place", die)
        with pytest.raises(KeyboardInterrupt):
            manager.migrate_legacy_files()
    (root / "legacy" / name).write_bytes(b"somebody else's")
    manager.organize_output("next", files=["nothing.png"])
    report = manager.migrate_legacy_files()
    assert (report.skipped, report.failed) == ((), ())
    (beside,) = (record.path for record in manager.get_legacy_files())
    assert re.fullmatch(r"legacy/(a|x+)_2\.txt", beside)
    assert outputs(root) == {f"legacy/{name}": b"somebody else's", beside: b"ours"}
    (root / "legacy" / name).unlink()
    check_library(root)


# Two at once


def test_of_two_at_once_the_second_is_told_that_one_is_running(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.txt": b"a", f"x_{TIME}.txt": b"b"})
    other, refused = open_manager(root), []

    def at_the_same_time(_done: int, _total: int, _size: int) -> None:
        make_tree({"late.txt": b"late"})
        with pytest.raises(MigrationRunningError) as error:
            other.migrate_legacy_files()
        refused.append(error.value.code)
        assert other.plan_migration().found.files == 1

    report = open_manager(root).migrate_legacy_files(on_progress=at_the_same_time)
    assert refused == ["migration_running"]
    assert len(targets(report)) == 2
    assert targets(other.migrate_legacy_files()) == {"late.txt": "legacy/late.txt"}
    check_library(root)


def test_one_that_finds_nothing_does_not_end_one_that_is_running(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.txt": b"a"})
    other = open_manager(root)

    def at_the_same_time(_done: int, _total: int, _size: int) -> None:
        with pytest.raises(MigrationRunningError):
            other.migrate_legacy_files()
        note = json.loads((root / MIGRATION).read_bytes())
        assert note["is_finished"] is False

    open_manager(root).migrate_legacy_files(on_progress=at_the_same_time)
    assert json.loads((root / MIGRATION).read_bytes())["is_finished"] is True


def test_a_library_that_somebody_keeps_busy_is_no_second_migration(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    root = make_tree({"a.txt": b"a", "b.txt": b"b"})
    manager = open_manager(root, lock_timeout=0.05)
    held = lock.hold(str(root / LOCK), 1)

    def get_in_the_way(done: int, _total: int, _size: int) -> None:
        if done == 1:
            held.__enter__()

    with pytest.raises(LockTimeoutError):
        manager.migrate_legacy_files(on_progress=get_in_the_way)
    held.__exit__(None, None, None)
    assert set(targets(manager.migrate_legacy_files())) == {"b.txt"}
    assert len(operations(root)) == 1


def test_identical_files_are_all_kept_and_told_of_once(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    same, other = b"same bytes", b"also same!"
    root = make_tree(
        {"a.txt": same, f"b_{TIME}.txt": same, "c.bin": same, "d.txt": other, "e.txt": other}
    )
    report = open_manager(root).migrate_legacy_files()
    assert {frozenset(found.paths) for found in report.duplicates} == {
        frozenset({"a.txt", f"b_{TIME}.txt", "c.bin"}),
        frozenset({"d.txt", "e.txt"}),
    }
    assert {found.bytes for found in report.duplicates} == {10}
    assert len(targets(report)) == 5
    assert Counter(outputs(root).values()) == {same: 3, other: 2}
    assert all(record["same_file_as"] is None for record in check_library(root).values())


def test_a_job_that_is_organized_meanwhile_keeps_its_files(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    root = make_tree({"a.txt": b"a", "job_1_00001_.png": image("1")})
    other = open_manager(root)

    def organize(done: int, _total: int, _size: int) -> None:
        if done == 1:
            other.organize_output("job_1")

    report = open_manager(root).migrate_legacy_files(on_progress=organize)
    assert targets(report) == {"a.txt": "legacy/a.txt"}
    assert reasons(report.skipped) == {"job_1_00001_.png": "not_found"}
    assert set(check_library(root)) == {"legacy/a.txt", organized_image("job_1")}
