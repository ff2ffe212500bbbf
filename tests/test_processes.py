"""Several processes on one library: no file is lost or moved twice, and nobody sees half a job."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from tests.conftest import MakeTree
from tests.crash.library_check import check_deletions
from tests.invariants import assert_sound, changes_of
from tests.trees import outputs, recording

TIMEOUT_S = 90

PREAMBLE = """
import json, os, sys
from flask_comfy_files import FileManager

root, *names = sys.argv[1:]
manager = FileManager(root, lock_timeout=60)

def wait_for_the_start():
    print("ready", flush=True)
    sys.stdin.readline()

def organize(*args, **kwargs):
    report = manager.organize_output(*args, **kwargs)
    return {
        "job_id": report.job_id,
        "file_ids": [record.file_id for record in report],
        "moved": report.moved.files,
        "left": [[left.path, str(left.reason)] for left in (*report.skipped, *report.failed)],
    }
"""

ORGANIZE_ALL = """
wait_for_the_start()
print(json.dumps([organize(name) for name in names]))
"""

ORGANIZE_NAMED = """
files = json.loads(names.pop())
wait_for_the_start()
print(json.dumps([organize(name, prompt_id="run-1", files=files[name]) for name in names]))
"""

READ_UNTIL_ALL_ARE_THERE = """
expected = int(names.pop())
wait_for_the_start()
seen = {}
rounds = 0
while min(seen.get(name, 0) for name in names) < expected:
    rounds += 1
    stats = manager.get_system_stats()
    assert stats.health.state == "ok", stats.health
    assert stats.total_files % expected == 0, stats.total_files
    for name in names:
        try:
            job = manager.get_job_files(name)
        except LookupError:
            assert name not in seen, f"{name} was forgotten"
            continue
        assert len(job.files) == job.file_count == expected, (name, len(job.files), job.file_count)
        for record in job:
            assert os.path.getsize(record.file_path) == record.file_size
        seen[name] = len(job.files)
print(json.dumps({"rounds": rounds}))
"""

TAKE_AND_BRING_BACK = """
from flask_comfy_files.core.errors import ConflictError, NotFoundError

acts = {
    "delete": lambda name: manager.delete_job_files(name).operation_id,
    "destroy": lambda name: manager.destroy_job_files(name).deleted_files,
    "restore": lambda name: manager.restore_job_files(name).file_count,
    "organize": lambda name: organize(name)["moved"],
    "empty": lambda name: manager.empty_trash().purged_files,
    "clean": lambda name: manager.cleanup_old_files(0).deleted_files,
}
act, rounds = names.pop(), int(names.pop())
wait_for_the_start()
answers = []
for _ in range(rounds):
    for name in names:
        try:
            answers.append(acts[act](name))
        except (ConflictError, NotFoundError) as error:
            answers.append(error.code)
print(json.dumps(answers))
"""

LOOK_AT_ALL = """
expected, rounds = int(names.pop()), int(names.pop())
wait_for_the_start()
for _ in range(rounds):
    for name in names:
        try:
            assert manager.get_job_files(name).file_count == expected, name
        except LookupError:
            pass
    stats = manager.get_system_stats()
    assert stats.health.state == "ok", stats.health
    assert stats.total_files % expected == 0, stats.total_files
    assert stats.trash.files % expected == 0, stats.trash
    assert stats.total_files + stats.trash.files == len(names) * expected, stats
print(json.dumps("seen"))
"""

FORK = """
print(json.dumps(organize(names[0])))
sys.stdout.flush()
children = []
for name in names[1:]:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert manager.get_job_files(names[0]).file_count == 2
            assert organize(name)["moved"] == 2
            assert manager.get_job_files(name).file_count == 2
            manager.close()
            status = 0
        finally:
            os._exit(status)
    children.append(child)
assert manager.get_job_files(names[0]).file_count == 2
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(json.dumps([statuses, [manager.get_job_files(name).file_count for name in names]]))
print(json.dumps(organize("after")))
"""


@contextmanager
def process(script: str, root: Path, *names: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PREAMBLE + script, root, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def answer(running: subprocess.Popen[str]) -> Any:
    out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def start_together(running: list[subprocess.Popen[str]]) -> None:
    """Let processes go at once, when all of them are ready."""
    for one in running:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()


def race(scripts: list[tuple[str, list[str]]], root: Path) -> list[Any]:
    """Start a process for each script at the same moment, and return what they answer."""
    running = []
    try:
        for script, names in scripts:
            context = process(script, root, *names)
            running.append((context, context.__enter__()))
        start_together([one for _, one in running])
        return [answer(one) for _, one in running]
    finally:
        for context, _ in running:
            context.__exit__(None, None, None)


def tree_of_jobs(jobs: list[str], files: int) -> dict[str, bytes]:
    png = recording("batch_00001_.png")
    return {f"{job}_{n:05}_.png": png for job in jobs for n in range(1, files + 1)}


@pytest.mark.parametrize("is_named", [False, True], ids=["found by name", "named"])
def test_processes_that_organize_the_same_jobs_give_the_same_answers_and_move_each_file_once(
    is_named: bool,  # noqa: FBT001
    make_tree: MakeTree,
) -> None:
    jobs = [f"job_{letter}" for letter in "abcdefgh"]
    tree = tree_of_jobs(jobs, 3)
    root = make_tree(tree)
    script, extra = ORGANIZE_ALL, list[str]()
    if is_named:
        files = {job: [name for name in tree if name.startswith(job)] for job in jobs}
        script, extra = ORGANIZE_NAMED, [json.dumps(files)]
    answers = race([(script, jobs + extra)] * 4, root)
    for of_one_job in zip(*answers, strict=True):
        assert sum(report["moved"] for report in of_one_job) == 3
        assert {tuple(report["file_ids"]) for report in of_one_job} == {
            tuple(of_one_job[0]["file_ids"])
        }
        assert [report["left"] for report in of_one_job] == [[]] * 4
    assert sorted(map(str, outputs(root).values())) == sorted(map(str, tree.values()))
    assert len(changes_of(root)) == len(jobs)
    assert_sound(root)


def test_processes_that_organize_different_jobs_lose_nothing(make_tree: MakeTree) -> None:
    shares = [[f"job-{process_}{letter}" for letter in "abcdefghij"] for process_ in "wxyz"]
    tree = tree_of_jobs([job for share in shares for job in share], 2)
    root = make_tree(tree)
    answers = race([(ORGANIZE_ALL, share) for share in shares], root)
    assert [report["moved"] for reports in answers for report in reports] == [2] * 40
    assert len(outputs(root)) == len(tree)
    assert not [path for path in outputs(root) if not path.startswith("projects/")]
    assert_sound(root)


def test_processes_begin_one_library_together(make_tree: MakeTree) -> None:
    jobs = ["job_a", "job_b", "job_c", "job_d"]
    root = make_tree(tree_of_jobs(jobs, 1))
    answers = race([(ORGANIZE_ALL, [job]) for job in jobs], root)
    assert [report["moved"] for (report,) in answers] == [1, 1, 1, 1]
    assert_sound(root)


def test_a_reader_in_another_process_never_sees_half_a_job(make_tree: MakeTree) -> None:
    shares = [[f"job-{process_}{letter}" for letter in "abcdefgh"] for process_ in "xy"]
    jobs = [job for share in shares for job in share]
    root = make_tree(tree_of_jobs(jobs, 4))
    *_, reader = race(
        [
            *((ORGANIZE_ALL, share) for share in shares),
            (READ_UNTIL_ALL_ARE_THERE, [*jobs, "4"]),
        ],
        root,
    )
    assert reader["rounds"] >= 2, "the reader came too late to see anything"
    assert_sound(root)


def test_a_manager_that_was_used_before_a_fork_works_in_parent_and_children(
    make_tree: MakeTree,
) -> None:
    jobs = ["parent", "child_a", "child_b", "child_c"]
    root = make_tree(tree_of_jobs([*jobs, "after"], 2))
    with process(FORK, root, *jobs) as running:
        out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, err
    first, forked, after = map(json.loads, out.splitlines())
    assert first["moved"] == 2
    assert forked == [[0, 0, 0], [2, 2, 2, 2]]
    assert after["moved"] == 2
    assert_sound(root)


def test_threads_of_one_process_share_a_manager(make_tree: MakeTree) -> None:
    jobs = [f"job_{letter}" for letter in "abcdefgh"]
    root = make_tree(tree_of_jobs(jobs, 2))
    counts: list[int] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    with FileManager(root, lock_timeout=60) as manager:

        def organize_all() -> None:
            try:
                barrier.wait(TIMEOUT_S)
                for job in jobs:
                    report = manager.organize_output(job)
                    assert manager.get_job_files(job).files == report.organized_files
                    assert manager.get_system_stats().health.state == "ok"
                    counts.append(report.moved.files)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test must hear of it
                errors.append(error)

        threads = [threading.Thread(target=organize_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert errors == []
    assert sum(counts) == 2 * len(jobs)
    assert len(counts) == 4 * len(jobs)
    assert_sound(root)


# --- deleting and restoring


def stocked(make_tree: MakeTree, jobs: list[str], files: int) -> Path:
    """Return a library in which jobs of so many files are organized."""
    root = make_tree(tree_of_jobs(jobs, files))
    with FileManager(root) as manager:
        for job in jobs:
            assert manager.organize_output(job).moved.files == files
    return root


def test_processes_that_delete_the_same_jobs_give_the_same_answers(make_tree: MakeTree) -> None:
    jobs = [f"job_{letter}" for letter in "abcdef"]
    root = stocked(make_tree, jobs, 3)
    answers = race([(TAKE_AND_BRING_BACK, [*jobs, "1", "delete"])] * 4, root)
    assert [len(set(of_one_job)) for of_one_job in zip(*answers, strict=True)] == [1] * len(jobs)
    assert len(changes_of(root)) == 2 * len(jobs)
    story = check_deletions(root)
    assert [len(files) for files in story.trashed.values()] == [3] * len(jobs)


def test_processes_that_restore_the_same_jobs_give_the_same_answers(make_tree: MakeTree) -> None:
    jobs = [f"job_{letter}" for letter in "abcdef"]
    root = stocked(make_tree, jobs, 3)
    with FileManager(root) as manager:
        for job in jobs:
            manager.delete_job_files(job)
    answers = race([(TAKE_AND_BRING_BACK, [*jobs, "1", "restore"])] * 4, root)
    assert answers == [[3] * len(jobs)] * 4
    assert len(changes_of(root)) == 3 * len(jobs)
    assert check_deletions(root).trashed == {}


def test_processes_that_delete_and_restore_one_job_lose_nothing_and_nobody_sees_half_of_it(
    make_tree: MakeTree,
) -> None:
    jobs = ["job_a", "job_b"]
    root = stocked(make_tree, jobs, 3)
    *_, seen = race(
        [
            (TAKE_AND_BRING_BACK, [*jobs, "12", "delete"]),
            (TAKE_AND_BRING_BACK, [*jobs, "12", "restore"]),
            (TAKE_AND_BRING_BACK, [*jobs, "12", "clean"]),
            (LOOK_AT_ALL, [*jobs, "12", "3"]),
        ],
        root,
    )
    assert seen == "seen"
    story = check_deletions(root)
    kept = [*story.alive.values(), *story.trashed.values()]
    assert sum(map(len, kept)) == 3 * len(jobs)


def test_what_is_organized_while_its_job_is_deleted_for_good_is_not_lost(
    make_tree: MakeTree,
) -> None:
    """Of two files one was organized before, and may go; the other goes only once it is of the job, too."""
    jobs = [f"job_{letter}" for letter in "abcd"]
    root = stocked(make_tree, jobs, 1)
    make_tree({f"{job}_later.png": recording("batch_00002_.png") for job in jobs})
    organized, destroyed, emptied = race(
        [
            (TAKE_AND_BRING_BACK, [*jobs, "1", "organize"]),
            (TAKE_AND_BRING_BACK, [*jobs, "1", "destroy"]),
            (TAKE_AND_BRING_BACK, [*jobs, "3", "empty"]),
        ],
        root,
    )
    assert organized == [1] * len(jobs)
    story = check_deletions(root)
    for job, gone in zip(jobs, destroyed, strict=True):
        assert gone in {1, 2}, emptied
        assert len(story.alive.get(job, {})) == 2 - gone
