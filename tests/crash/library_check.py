"""What must hold of a library at all times, the work during which it is disturbed, and children to die in it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.layout import (
    COPIES,
    DOCUMENT,
    INDEX,
    PROJECTS,
    REBUILD_LOCK,
    SENTINEL,
    STATE,
    TRASH,
)
from flask_comfy_files.core.records import CompletionReport, OrganizeReport, RetryReport
from tests.trees import Clock, recording, write_tree

DIED = 137
"""Exit code of a child that a test let die; what a shell says of SIGKILL, too."""

_CHILD_TIMEOUT_S = 60
_NEXT_SOURCE, _NEXT_JOB = "mix_00001_.png", "next"

Complaints = list[str]
"""What a call says it could not do, each with its reason; empty when it claims to have done everything."""

Act = Callable[[FileManager], Complaints]


def open_library(root: Path, **settings: Any) -> FileManager:
    """Make a manager on the clock of the tests; a context manager."""
    return FileManager(root, **{"clock": Clock(), "min_free_bytes": 0, **settings})


def organize(job_id: str, files: Sequence[str] | None = None) -> Act:
    """Return the act of organizing a job."""

    def act(manager: FileManager) -> Complaints:
        return _complaints(manager.organize_output(job_id, "night_watch", files=files))

    return act


def complete(job_id: str, files: Sequence[str] | None = None) -> Act:
    """Return the act of completing a job, as a request does it."""

    def act(manager: FileManager) -> Complaints:
        return _complaints(manager.complete_job(job_id, "night_watch", files=files))

    return act


def retry(manager: FileManager) -> Complaints:
    """Organize the jobs that are pending."""
    return _complaints(manager.retry_pending_jobs())


def _complaints(report: OrganizeReport | CompletionReport | RetryReport) -> Complaints:
    if isinstance(report, OrganizeReport):
        tallies = [report.moved, report.already_there]
        left = [*report.skipped, *report.failed]
        assert report.found.files == sum(tally.files for tally in tallies) + len(left)
        assert report.found.bytes == sum(tally.bytes for tally in tallies) + sum(
            entry.bytes for entry in left
        )
        return [f"{entry.path}: {entry.reason}" for entry in left]
    if isinstance(report, CompletionReport):
        return [] if report.organize_error is None else [report.organize_error]
    return [f"{job.job_id}: {job.reason}" for job in (*report.still_pending, *report.given_up)]


def _nothing(_root: Path) -> None:
    pass


def delete_index(root: Path) -> None:
    """Delete the index, as anybody may at any time."""
    for suffix in ("", "-wal", "-shm"):
        (root / f"{INDEX}{suffix}").unlink(missing_ok=True)


@dataclass(frozen=True)
class Scenario:
    """A library, and a piece of work on it that is disturbed somewhere."""

    act: Act
    """What is disturbed."""
    sources: Mapping[str, str]
    """The files that lie about: place below the output root → recording."""
    expected: Sequence[str]
    """The job's original paths in the end, in order."""
    job_id: str = "job_1"
    build: Callable[[Path], None] = _nothing
    """What was done before, undisturbed."""
    finish: Act | None = None
    """What completes the job afterwards, where doing the same again is not all."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The manager's settings during the act."""

    def lay_out(self, root: Path) -> None:
        """Make the output root as it is when the act begins."""
        places = {**self.sources, _NEXT_SOURCE: _NEXT_SOURCE}
        write_tree(root, {place: recording(path) for place, path in places.items()})
        self.build(root)

    def disturbed(self, root: Path) -> Complaints:
        """Do what is to be disturbed, in a process of its own."""
        with open_library(root, **self.settings) as manager:
            return self.act(manager)

    def finished(self, root: Path) -> None:
        """Do it again until nothing is left to do, and expect no complaint."""
        with open_library(root, **self.settings) as manager:
            if self.finish is not None:
                self.act(manager)
        with open_library(root) as manager:
            assert (self.finish or self.act)(manager) == []

    def recovered(self, root: Path) -> None:
        """Make the next change and expect a sound library; do the work again and expect all of it to be done."""
        check_nothing_is_lost(root, self.inputs)
        make_next_change(root)
        check_library(root, self.inputs)
        self.finished(root)
        check_library(root, self.inputs)
        assert sorted(original_paths(root, self.job_id)) == sorted(self.expected)

    @property
    def inputs(self) -> Counter[str]:
        """The checksums of all files that there must be."""
        return checksums_of([*self.sources.values(), _NEXT_SOURCE])


def checksums_of(paths: Iterable[str]) -> Counter[str]:
    """Return the checksums of recordings."""
    return Counter(hashlib.sha256(recording(path)).hexdigest() for path in paths)


def made_by(*acts: Act, **settings: Any) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        with open_library(root, **settings) as manager:
            for act in acts:
                act(manager)

    return build


def abandoned_by(
    act: Act, then: Callable[[Path], None] = _nothing, *, after: str = "append"
) -> Callable[[Path], None]:
    """Return what leaves an act behind that died after its first call of a function; ``append`` is its line."""

    def build(root: Path) -> None:
        def die_on_the_way() -> None:
            wire(Fuse(2, only=f" {after}"))
            with open_library(root) as manager:
                act(manager)

        assert in_child(die_on_the_way).status == DIED
        then(root)

    return build


# Two files are enough for one to be done while the other is not.
_BATCH = ("batch_00001_.png", "batch_00002_.png")
_OTHERS = ("bn_0_00001_.png", "bn_1_00002_.png")
_CLIP = ("AnimateDiff_00002-audio.mp4", "AnimateDiff_00002.png")
_BATCH_AND_OTHERS = {path: path for path in (*_BATCH, *_OTHERS)}
_SMALL_BUDGET = {"request_budget_bytes": 1}
_SCATTERED = {
    "inbox/job_1/run_1/c_00001_.png": "inbox/33333333-3333-4333-8333-333333333333/c_00001_.png",
    "audio/job_1_00001.flac": "audio/ComfyUI_00001.flac",
    "job_1/clip_00001_.mp4": "ep01/clip_00001_.mp4",
    "job_1_00001_.png": "mix_00001_.png",
    "job_10_00001_.png": "pv_00001_.png",  # another job's
}

SCENARIOS = {
    "first job": Scenario(organize("job_1", _BATCH), {path: path for path in _BATCH}, _BATCH),
    "second job": Scenario(
        organize("job_1", _BATCH),
        _BATCH_AND_OTHERS,
        _BATCH,
        build=made_by(organize("job_0", _OTHERS)),
    ),
    "added files": Scenario(
        organize("job_1", [*_OTHERS, *_CLIP]),
        {path: path for path in (*_OTHERS, *_CLIP)},
        [*_OTHERS, *_CLIP],
        build=made_by(organize("job_1", _OTHERS)),
    ),
    "several folders": Scenario(organize("job_1"), _SCATTERED, list(_SCATTERED)[:-1]),
    "pending job recorded": Scenario(
        complete("job_1", _BATCH),
        _BATCH_AND_OTHERS,
        _BATCH,
        build=made_by(organize("job_0", _OTHERS)),
        settings=_SMALL_BUDGET,
        finish=retry,
    ),
    "pending job retried": Scenario(
        retry,
        _BATCH_AND_OTHERS,
        _BATCH,
        build=made_by(organize("job_0", _OTHERS), complete("job_1", _BATCH), **_SMALL_BUDGET),
    ),
    "recovery": Scenario(
        organize("job_1", _BATCH),
        {path: path for path in _BATCH},
        _BATCH,
        build=abandoned_by(organize("job_1", _BATCH)),
    ),
    "recovery without index": Scenario(
        organize("job_1", _BATCH),
        {path: path for path in (*_BATCH, *_OTHERS)},
        _BATCH,
        build=abandoned_by(organize("job_1", _BATCH), then=delete_index),
    ),
}
"""The library's work, piece by piece, over files that a real ComfyUI has written."""

OTHER_FOLDER = "other"
"""Where the sources of ``OTHER_FILE_SYSTEM`` lie."""

OTHER_FILE_SYSTEM = Scenario(
    organize("job_1", [f"{OTHER_FOLDER}/{path}" for path in _CLIP]),
    {f"{OTHER_FOLDER}/{path}": path for path in _CLIP},
    [f"{OTHER_FOLDER}/{path}" for path in _CLIP],
)
"""For tests that put a file system border between the library and ``OTHER_FOLDER``."""


def tracked(root: Path) -> dict[str, dict[str, Any]]:
    """Return every record that the document holds, by file id, folded here and not by the code under test."""
    document = json.loads((root / DOCUMENT).read_bytes())
    records: dict[str, dict[str, Any]] = {}
    for place, change in enumerate(document["changes"], 1):
        assert change["seq"] == place
        if change["kind"] == "state":
            for file_id, overlay in change.get("files", {}).items():
                records[file_id] |= overlay
        else:
            records |= {stored["file_id"]: dict(stored) for stored in change["files"]}
    return {file_id: record for file_id, record in records.items() if "withdrawn" not in record}


def found(root: Path) -> dict[str, str]:
    """Return the checksum of each file below a root by its path, the library's own files apart."""
    checksums = {}
    for folder, folders, names in os.walk(root):
        if Path(folder) == root / STATE:
            folders[:] = [name for name in folders if f"{STATE}/{name}" == TRASH]
            continue
        for name in names:
            path = Path(folder, name)
            checksums[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    checksums.pop(DOCUMENT, None)
    return checksums


@dataclass
class Story:
    """What the document says of jobs, standing and deleted; folded here, not by the code under test."""

    alive: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """The records of each job, by file id."""
    trashed: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Those of each deletion in the trash, by job and operation."""

    @property
    def places(self) -> dict[str, dict[str, Any]]:
        """Every record whose file is there, by where it must be."""
        places = {
            record["path"]: record for files in self.alive.values() for record in files.values()
        }
        for (job_id, entry), files in self.trashed.items():
            for record in files.values():
                places[f"{STATE}/trash/{entry}/{job_id}/{Path(record['path']).name}"] = record
        return {place: record for place, record in places.items() if not record.get("missing")}


def story_of(root: Path) -> Story:
    """Read the document as any JSON program would."""
    story = Story()
    for change in json.loads((root / DOCUMENT).read_bytes())["changes"]:
        job_id = change["job_id"]
        if change["kind"] != "state":
            files = story.alive.setdefault(job_id, {})
            files |= {stored["file_id"]: dict(stored) for stored in change["files"]}
            continue
        _overlay(story, {**change.get("files", {}), **change.get("twins", {})})
        if "purge" in change:
            del story.trashed[job_id, change["purge"]["entry"]]
        if "restore" in change:
            back = story.trashed.pop((job_id, change["restore"]["entry"]))
            story.alive.setdefault(job_id, {}).update(back)
        if "trash" in change:
            files, kept = story.alive.pop(job_id), change["trash"]["kept"]
            stay = {file_id: files.pop(file_id) for file_id in list(files) if file_id in kept}
            story.trashed[job_id, change["trash"]["entry"]] = files
            if stay:
                story.alive[job_id] = stay
    return story


def _overlay(story: Story, overlays: Mapping[str, Mapping[str, Any]]) -> None:
    for files in (*story.alive.values(), *story.trashed.values()):
        for file_id in overlays.keys() & files.keys():
            files[file_id] |= overlays[file_id]
            if files[file_id].get("withdrawn"):
                del files[file_id]


def check_deletions(root: Path, *, may_leave_folders: bool = False) -> Story:
    """Expect every recorded file in its place or in the trash, nothing else there, and an index that says so.

    Before its line was written, a deletion has made folders at most, of which nothing tells.
    """
    story = story_of(root)
    deletions = {
        (change["trash"]["entry"], change["job_id"])
        for change in json.loads((root / DOCUMENT).read_bytes())["changes"]
        if "trash" in change
    }
    told = deletions | {(entry,) for entry, _ in deletions}
    owned = {}
    for top in (PROJECTS, TRASH):
        for folder, folders, names in os.walk(root / top):
            inside = Path(folder).relative_to(root / top).parts
            is_needed = folders or names or not inside
            is_unsaid = top == TRASH and inside not in told
            assert is_needed or is_unsaid or may_leave_folders, f"empty: {folder}"
            for name in names:
                path = Path(folder, name)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                owned[str(path.relative_to(root))] = digest
    assert owned == {place: record["checksum"] for place, record in story.places.items()}
    assert list(root.rglob("*.part")) == []
    with open_library(root) as manager:
        said = {
            job_id: [(record.file_id, record.path) for record in manager.get_job_files(job_id)]
            for job_id in story.alive
        }
        trash, stats = manager.get_trash(), manager.get_system_stats()
    assert said == {
        job_id: [(file_id, record["path"]) for file_id, record in files.items()]
        for job_id, files in story.alive.items()
    }
    in_trash = {(job.job_id, job.operation_id): job for job in trash}
    assert in_trash.keys() == story.trashed.keys()
    for key, files in story.trashed.items():
        there = [record for record in files.values() if not record.get("missing")]
        assert in_trash[key].file_count == len(there)
        assert in_trash[key].total_size == sum(record["file_size"] for record in there)
    assert (stats.trash.files, stats.trash.bytes) == (trash.files, trash.bytes)
    assert stats.total_files == sum(map(len, story.alive.values()))
    assert stats.total_size == sum(
        record["file_size"]
        for files in story.alive.values()
        for record in files.values()
        if not record.get("same_file_as")
    )
    assert stats.jobs == len(story.alive)
    return story


def check_nothing_is_lost(root: Path, inputs: Counter[str]) -> None:
    """Expect every input file somewhere, whatever else is there: what must hold before recovery, too."""
    lost = inputs - Counter(found(root).values())
    assert not lost, f"lost: {sorted(lost)}; there are {found(root)}"


def check_library(root: Path, inputs: Counter[str]) -> None:
    """Expect a library that nothing is wrong with, after a change to it.

    Every input file exists exactly once; document, index and files agree; nothing temporary is
    left.
    """
    files = found(root)
    assert Counter(files.values()) == inputs, files
    records = tracked(root)
    for record in records.values():
        path = root / record["path"]
        assert "missing" not in record, record
        assert files.get(record["path"]) == record["checksum"], record
        assert path.stat().st_size == record["file_size"]
        assert path.stat().st_mtime == datetime.fromisoformat(record["modified_at"]).timestamp()
    # As many, so each path is recorded once and nothing lies in the library without a record.
    organized = [path for path in files if path.startswith("projects/")]
    assert sorted(organized) == sorted(record["path"] for record in records.values())
    assert _answered(root) == {
        file_id: (record["path"], record["checksum"]) for file_id, record in records.items()
    }
    _check_own_folder(root)


def _answered(root: Path) -> dict[str, tuple[str, str]]:
    """Return what a manager says the library holds."""
    projects = {record["project_id"] for record in tracked(root).values()}
    with open_library(root) as manager:
        records = [record for project in projects for record in manager.get_project_files(project)]
        assert manager.get_system_stats().total_files == len(records)
    return {record.file_id: (record.path, record.checksum) for record in records}


def _check_own_folder(root: Path) -> None:
    index = {INDEX, f"{INDEX}-wal", f"{INDEX}-shm"}
    allowed = {SENTINEL, *index, f"{STATE}/lock", REBUILD_LOCK, COPIES}
    own = {str(path.relative_to(root)) for path in (root / STATE).rglob("*")}
    assert {path for path in own - allowed if not path.startswith(f"{STATE}/torn-tail-")} == set()
    assert SENTINEL in own


def make_next_change(root: Path) -> None:
    """Organize another job, and so let the library finish what was left unfinished."""
    with open_library(root) as manager:
        assert organize(_NEXT_JOB, [_NEXT_SOURCE])(manager) == []


def original_paths(root: Path, job_id: str) -> list[str]:
    """Return where the files of a job came from, in their order; none where it is not known."""
    with open_library(root) as manager, contextlib.suppress(JobNotFoundError):
        return [record.original_path for record in manager.get_job_files(job_id)]
    return []


def expect_recovery(scenario: Scenario, root: Path) -> None:
    """Make the next change and expect a sound library; do the work again and expect all of it to be done."""
    scenario.recovered(root)


@dataclass(frozen=True)
class End:
    """How a child ended: its exit code, or minus the signal; and what it said: its result as JSON, or why not."""

    status: int
    said: str

    @property
    def result(self) -> Any:
        """What the child's action returned."""
        assert self.status == 0, self.said
        return json.loads(self.said)


def start_child(action: Callable[[], object]) -> tuple[int, int]:
    """Fork a process that does something; return its id and the descriptor on which it will answer."""
    answer, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        _live_and_die(action, said)
    os.close(said)
    return child, answer


def _live_and_die(action: Callable[[], object], said: int) -> NoReturn:
    signal.alarm(_CHILD_TIMEOUT_S)
    _voice.append(said)
    code = 1
    try:
        os.write(said, json.dumps(action()).encode())
        code = 0
    except BaseException:  # noqa: BLE001 - the parent shows it
        os.write(said, traceback.format_exc().encode(errors="replace")[-60_000:])
    finally:
        os._exit(code)


def end_of(child: int, answer: int) -> End:
    """Wait for a child's end."""
    with open(answer, "rb") as said:
        text = said.read().decode()
    return End(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text)


def in_child(action: Callable[[], object]) -> End:
    """Do something in a forked process, and wait for it."""
    return end_of(*start_child(action))


_voice: list[int] = []
"""In a child: the descriptor on which it answers."""


def die(last_words: str) -> NoReturn:
    """End this child at once, as a kill or a crash would, but for its last words."""
    os.write(_voice[0], last_words.encode())
    os._exit(DIED)


class Fuse:
    """Ends the child when it is asked for the n-th time, at all calls or at those of one function."""

    def __init__(self, burns_at: int, *, only: str = "") -> None:
        self._left = burns_at
        self._only = only

    def burn(self, where: str) -> None:
        """Count, and end the child if it is time."""
        self._left -= where.endswith(self._only)
        if self._left == 0:
            die(where)


_LOOKING = frozenset({"open_folder", "open_regular", "find_status", "checksum"})
"""What changes nothing: the disk is as before it, or behind it."""


def wire(fuse: Fuse) -> None:
    """Put a fuse before and after every public function of ``durable`` that has an effect, for good."""
    for name, function in list(vars(durable).items()):
        is_ours = getattr(function, "__module__", "") == durable.__name__
        if is_ours and not name.startswith("_") and name not in _LOOKING:
            setattr(durable, name, _fused(function, name, fuse))


def _fused(function: Callable[..., Any], name: str, fuse: Fuse) -> Callable[..., Any]:
    @functools.wraps(function)
    def fused(*args: Any, **options: Any) -> Any:
        fuse.burn(f"before {name}")
        result = function(*args, **options)
        fuse.burn(f"after {name}")
        return result

    @functools.wraps(function)
    @contextlib.contextmanager
    def fused_context(*args: Any, **options: Any) -> Iterator[Any]:
        # Before it is entered and after it is left, the disk is as at the fuse before or behind.
        with function(*args, **options) as entered:
            fuse.burn(f"after entering {name}")
            yield entered
            fuse.burn(f"before leaving {name}")

    is_context = inspect.isgeneratorfunction(inspect.unwrap(function))
    return fused_context if is_context else fused
