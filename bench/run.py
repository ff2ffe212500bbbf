"""Measure what the library costs, as ratios of two things timed in turn in one run.

``python bench/run.py [--jobs 50000]`` prints ten: a job in a large library against one in an empty one, a job
against the bare system calls that its promises need, a reply against a bare Flask route that
has it at hand, choosing what a cleanup takes in a large library against one of a tenth (for each job), moving
to the trash and migrating a file against the bare system calls, and the last page of a list of everything against
the first one, in four orders and choices.
Absolute times depend on the disk and on what else the machine does; the ratios much less.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask, jsonify
from flask.testing import FlaskClient

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.listing import MOST_LISTED

FILES_PER_JOB = 4
FILE_BYTES = 75_000
ROUNDS = 60
MANY = 100
LISTS = (
    {"sort": "created_at"},
    {"sort": "-file_size"},
    {"sort": "path"},
    {"sort": "created_at", "project": "project_7"},
)
"""What is listed of the large library, from its first page to its last."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=50_000, help="jobs in the large library")
    jobs = parser.parse_args().jobs
    with library() as small, library() as large, library() as floor:
        fill(large, jobs)
        organize_small, organize_large = organizing(small), organizing(large)
        in_small, in_large = in_turn(organize_small, organize_large)
        report(f"organize a job: library of {jobs:,} jobs / empty library", in_large, in_small)
        ours, bare = in_turn(organizing(small), moving(floor))
        report("organize a job / hash, sync and rename alone", ours, bare)
        reply, bare = in_turn(*replying(small))
        report("GET a job / a bare route with jsonify of the same", reply, bare)
        for asked in LISTS:
            last, first = in_turn(*paging(large, asked))
            words = ", ".join(f"{name}={word}" for name, word in asked.items())
            report(f"the last page of files / the first, {words}", last, first)
    with library() as tenth, library() as large:
        fill(tenth, jobs // 10)
        fill(large, jobs)
        report(
            f"choose what a cleanup takes, a job: library of {jobs:,} jobs / {jobs // 10:,}",
            *in_turn(choosing(large, jobs), choosing(tenth, jobs // 10), rounds=5),
        )
    with library() as ours, library() as floor:
        report(
            "move a job to the trash / rename and sync alone",
            *in_turn(cleaning(ours), renaming(floor), rounds=5),
        )
    with library() as ours, library() as floor:
        report(
            "migrate a file / hash, sync and rename alone",
            *in_turn(migrating(ours), hashing(floor), rounds=5),
        )


@contextmanager
def library() -> Iterator[Path]:
    """Give an empty output root."""
    root = Path(tempfile.mkdtemp(prefix="comfy-files-bench-"))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def fill(root: Path, jobs: int) -> None:
    """Record many jobs, as a migration would, without files behind them."""
    catalog = Catalog(str(root), lock_timeout_s=10)
    with catalog.changing() as writer:
        for start in range(0, jobs, 256):
            changes = [change(number) for number in range(start, min(jobs, start + 256))]
            writer.advance(writer.append(changes))
    catalog.close()


def change(number: int) -> dict[str, object]:
    """Return the line of one made-up job."""
    job_id, project_id = f"old_{number}", f"project_{number % 100}"
    files = [stored(job_id, project_id, place) for place in range(1, FILES_PER_JOB + 1)]
    operation = {"id": f"{number:032x}", "kind": "organize", "at": "2026-01-01T00:00:00Z"}
    owner = {"kind": "job", "job_id": job_id, "project_id": project_id}
    return {**owner, "operation": operation, "state": {}, "files": files}


def stored(job_id: str, project_id: str, place: int) -> dict[str, object]:
    """Return a made-up record."""
    name = f"{job_id}_1767225600_image_{place}.png"
    unknown = dict.fromkeys(("same_file_as", "prompt_id", "node_id", "duration_s"))
    return {
        "file_id": hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
        "path": f"projects/{project_id}/{job_id}/{name}",
        "job_id": job_id,
        "project_id": project_id,
        "timestamp": "1767225600",
        "created_at": "2026-01-01T00:00:00Z",
        "file_type": "image",
        "file_extension": ".png",
        "media_type": "image/png",
        "generation_type": "image",
        "file_size": FILE_BYTES,
        "modified_at": "2026-01-01T00:00:00Z",
        "checksum": hashlib.sha256(name.encode()).hexdigest(),
        "original_path": f"{job_id}_{place:05}_.png",
        "evidence": "files",
        "width": 512,
        "height": 512,
        **unknown,
    }


def organizing(root: Path) -> Callable[[], float]:
    """Return a measurement: the seconds that one new job of a few files takes."""
    manager = FileManager(root)
    numbers = iter(range(10**9))
    label = os.urandom(4).hex()

    def measure() -> float:
        job_id = f"job_{label}_{next(numbers)}"
        names = write_files(root, job_id)
        start = time.perf_counter()
        manager.organize_output(job_id, "bench", files=names)
        return time.perf_counter() - start

    return measure


def moving(root: Path) -> Callable[[], float]:
    """Return a measurement of the floor: hash and sync each file, sync a line, rename, sync the folders."""
    numbers = iter(range(10**9))
    log = os.open(root / "log", os.O_CREAT | os.O_WRONLY)

    def measure() -> float:
        job_id = f"job_{next(numbers)}"
        names = write_files(root, job_id)
        start = time.perf_counter()
        for name in names:
            with (root / name).open("rb") as file:
                hashlib.file_digest(file, "sha256").hexdigest()
                os.fdatasync(file.fileno())
        os.write(log, b"x" * 3000)
        os.fdatasync(log)
        (root / job_id).mkdir()
        for name in names:
            (root / name).rename(root / job_id / name)
        for folder in (root / job_id, root):
            sync(folder)
        return time.perf_counter() - start

    return measure


def replying(root: Path) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return two measurements: one GET of a job, and of a bare route that has the same answer at hand."""
    FileManager(root).organize_output("reply", "bench", files=write_files(root, "reply"))
    app = Flask("bench")
    add_file_manager_routes(app, output_dir=root)
    answer = app.test_client().get("/api/files/jobs/reply").get_json()
    bare = Flask("bare")
    bare.add_url_rule("/reply", view_func=lambda: jsonify(answer))

    def getting(client: FlaskClient, address: str) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            client.get(address)
            return time.perf_counter() - start

        return measure

    ours = getting(app.test_client(), "/api/files/jobs/reply")
    return ours, getting(bare.test_client(), "/reply")


def paging(root: Path, asked: dict[str, str]) -> list[Callable[[], float]]:
    """Return measurements of the last full page of a list, and of its first one."""
    manager = FileManager(root)
    ask = functools.partial(manager.list_files, limit=MOST_LISTED, **asked)
    cursors: list[str | None] = [None]
    while (cursor := ask(cursor=cursors[-1]).next_cursor) is not None:
        cursors.append(cursor)

    def getting(cursor: str | None) -> Callable[[], float]:
        def measure() -> float:
            start = time.perf_counter()
            ask(cursor=cursor)
            return time.perf_counter() - start

        return measure

    return [getting(cursors[-2]), getting(None)]


def choosing(root: Path, jobs: int) -> Callable[[], float]:
    """Return a measurement: the seconds for each job that a plan takes in which nothing has expired."""
    manager = FileManager(root)

    def measure() -> float:
        start = time.perf_counter()
        manager.plan_cleanup(36_500)
        return (time.perf_counter() - start) / jobs

    return measure


def cleaning(root: Path) -> Callable[[], float]:
    """Return a measurement: the seconds for each of many jobs that a cleanup takes."""
    manager = FileManager(root)
    label = iter(range(10**9))

    def measure() -> float:
        for number in range(MANY):
            job_id = f"job_{next(label)}_{number}"
            manager.organize_output(job_id, "bench", files=write_files(root, job_id))
        start = time.perf_counter()
        manager.cleanup_old_files(0)
        return (time.perf_counter() - start) / MANY

    return measure


def renaming(root: Path) -> Callable[[], float]:
    """Return a measurement of the floor: rename the files of each job, and sync both folders."""
    label = iter(range(10**9))

    def measure() -> float:
        jobs = []
        for number in range(MANY):
            job_id = f"job_{next(label)}_{number}"
            (root / job_id).mkdir()
            names = write_files(root / job_id, job_id)
            (root / f"trash_{job_id}").mkdir()
            jobs.append((root / job_id, root / f"trash_{job_id}", names))
        start = time.perf_counter()
        for folder, trash, names in jobs:
            for name in names:
                (folder / name).rename(trash / name)
            sync(folder)
            sync(trash)
        return (time.perf_counter() - start) / MANY

    return measure


def migrating(root: Path) -> Callable[[], float]:
    """Return a measurement: the seconds for each of many files that lie about."""
    manager = FileManager(root)
    label = iter(range(10**9))

    def measure() -> float:
        names = [name for _ in range(MANY) for name in write_files(root, f"old_{next(label)}")]
        start = time.perf_counter()
        manager.migrate_legacy_files()
        return (time.perf_counter() - start) / len(names)

    return measure


def hashing(root: Path) -> Callable[[], float]:
    """Return a measurement of the floor: hash, sync and rename each of many files."""
    label = iter(range(10**9))
    (root / "legacy").mkdir()

    def measure() -> float:
        names = [name for _ in range(MANY) for name in write_files(root, f"old_{next(label)}")]
        start = time.perf_counter()
        for name in names:
            with (root / name).open("rb") as file:
                hashlib.file_digest(file, "sha256").hexdigest()
                os.fdatasync(file.fileno())
            (root / name).rename(root / "legacy" / name)
        return (time.perf_counter() - start) / len(names)

    return measure


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_files(root: Path, job_id: str) -> list[str]:
    """Write the files of one job, as ComfyUI would have, and return their names."""
    names = [f"{job_id}_{number:05}_.bin" for number in range(1, FILES_PER_JOB + 1)]
    an_hour_ago = time.time() - 3600
    for name in names:
        (root / name).write_bytes(os.urandom(FILE_BYTES))
        os.utime(root / name, (an_hour_ago, an_hour_ago))
    return names


def in_turn(*measurements: Callable[[], float], rounds: int = ROUNDS) -> tuple[list[float], ...]:
    """Take the measurements in turn, so that what disturbs one disturbs the other; the first round is dropped."""
    taken = [[measure() for measure in measurements] for _ in range(rounds + 1)]
    return tuple(list(column) for column in zip(*taken[1:], strict=True))


def report(what: str, counted: list[float], base: list[float]) -> None:
    """Print the medians of two measurements, and the median of their ratios pair by pair."""
    ratio = statistics.median(a / b for a, b in zip(counted, base, strict=True))
    first, second = (statistics.median(times) * 1000 for times in (counted, base))
    print(f"{what}: {ratio:.2f}  ({first:.4g} ms / {second:.4g} ms, medians of {len(base)})")


if __name__ == "__main__":
    main()
