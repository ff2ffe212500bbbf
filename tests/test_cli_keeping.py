"""The commands that delete, bring back and mark: what they say, how they end, and whom they ask."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import CLEANUP_LOCK, DOCUMENT, TRASH
from tests.conftest import MakeTree
from tests.invariants import assert_sound
from tests.trees import Tree, library, outputs, recording
from tests.web.answers import BATCH, BATCH_BYTES, tally
from tests.web.conftest import lock_held_elsewhere

Run = Callable[..., Result]
RunIn = Callable[..., Run]

MIX = "mix_00001_.png"
PV = "pv_00001_.png"
MIX_BYTES = len(recording(MIX))
BOTH_BYTES = BATCH_BYTES + MIX_BYTES
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
HOSTILE = "x\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\x7f\u202e.png"


def organize_long_ago(root: Path, job_id: str, project_id: str, days: int) -> None:
    """Organize a job as if that many days ago."""
    with FileManager(root, clock=lambda: datetime.now(UTC) - timedelta(days=days)) as manager:
        assert manager.organize_output(job_id, project_id).file_count


def lasting(root: Path) -> Tree:
    """Return everything below an output root, the index and the locks apart."""
    return {path: entry for path, entry in library(root).items() if path != CLEANUP_LOCK}


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return a library: ``batch`` and ``mix`` of one project are expired, ``pv`` of another is not."""
    root = make_tree({name: recording(name) for name in [*BATCH, MIX, PV]})
    organize_long_ago(root, "batch", "anime", 40)
    organize_long_ago(root, "mix", "anime", 35)
    organize_long_ago(root, "pv", "pvs", 3)
    return root


@pytest.fixture
def run_in(output_root: Path) -> Iterator[RunIn]:
    """Return what makes a host with some settings, and returns what runs its ``files`` command."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Run:
            host = Flask("host")
            add_file_manager_routes(host, **{"output_dir": output_root, **settings})
            stack.callback(host.extensions["comfy_files"].close)

            def run(*arguments: str) -> Result:
                result = host.test_cli_runner().invoke(args=["files", *arguments])
                assert result.exception is None or isinstance(result.exception, SystemExit)
                return result

            return run

        yield make


@pytest.fixture
def run(run_in: RunIn) -> Run:
    """Return what runs ``flask files`` in a place without a terminal."""
    return run_in()


def said(result: Result, exit_code: int = 0) -> list[str]:
    """Return the lines that a command has printed."""
    assert result.exit_code == exit_code, result.output
    return result.output.splitlines()


def answer_of(result: Result, exit_code: int = 0) -> dict[str, Any]:
    """Return the answer of a command that was asked for JSON: one document and nothing else."""
    assert result.exit_code == exit_code, result.output
    answer: dict[str, Any] = json.loads(result.output)
    return answer


def job_of(run: Run, job_id: str = "batch") -> dict[str, Any]:
    """Return a job as the library has it."""
    return answer_of(run("job", job_id, "--json"))


# What each command says.


def test_cleanup_says_what_it_deleted_and_what_it_kept_and_why(run: Run, output_root: Path) -> None:
    head, batch, mix, kept = said(run("cleanup", "--yes"))
    assert head == (
        f"Deleted 5 files of 2 jobs, {BOTH_BYTES / 1024:.1f} KB into the trash, with 3 folders;"
        " 0 files leave the trash for good, 0 bytes freed."
    )
    size = f"{BATCH_BYTES / 1024:.1f} KB"
    assert re.fullmatch(f"  delete anime/batch  4 files, {size}, {MOMENT}: expired", batch)
    assert re.fullmatch(f"  delete anime/mix  1 files, .* KB, {MOMENT}: expired", mix)
    assert re.fullmatch(r"  keep   pvs/\*  1 jobs, 1 files, .* KB: not_expired", kept)
    assert not (output_root / "projects/anime").exists()
    head, _ = said(run("cleanup", "--yes"))
    assert head.startswith("Deleted 0 files of 0 jobs, 0 bytes into the trash, with 0 folders;")


def test_a_rehearsal_says_what_would_go_and_changes_nothing(run: Run, output_root: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in (output_root / "projects").rglob("*")}
    tree = outputs(output_root)
    rehearsed = said(run("cleanup", "--dry-run"))
    assert rehearsed[0].startswith("Would delete 5 files of 2 jobs, ")
    assert outputs(output_root) == tree
    assert before == {
        path: path.lstat().st_mtime_ns for path in (output_root / "projects").rglob("*")
    }
    cleaned = said(run("cleanup", "--yes"))
    assert cleaned == [rehearsed[0].replace("Would delete", "Deleted"), *rehearsed[1:]]


def test_cleanup_says_as_json_what_it_says_in_words(run: Run) -> None:
    rehearsed = answer_of(run("cleanup", "--dry-run", "--json", "--days", "36"))
    assert rehearsed["found"] == tally(6, BOTH_BYTES + len(recording(PV)))
    assert [(job["job_id"], job["reason"]) for job in rehearsed["jobs"]] == [("batch", "expired")]
    assert (rehearsed["days"], rehearsed["dry_run"], rehearsed["operation_id"]) == (36, True, None)
    answer = answer_of(run("cleanup", "--days", "36", "--yes", "--json"))
    operation_id = answer["operation_id"]
    assert answer == {**rehearsed, "dry_run": False, "operation_id": operation_id}
    assert len(operation_id) == 32


def test_cleanup_says_the_first_jobs_to_people_and_all_in_json(
    run: Run, make_tree: MakeTree, output_root: Path
) -> None:
    jobs = [f"many_{number}" for number in range(23)]
    make_tree({f"{job}.png": recording(PV) for job in jobs})
    for job in jobs:
        organize_long_ago(output_root, job, "many", 50)
    lines = said(run("cleanup", "--dry-run"))
    assert sum(line.startswith("  delete ") for line in lines) == 20
    assert "  … and 5 more like that" in lines
    assert len(answer_of(run("cleanup", "--dry-run", "--json"))["jobs"]) == 25


def test_a_plan_is_made_carried_out_once_and_answered_again(run: Run, output_root: Path) -> None:
    head, *lines = said(run("cleanup", "--make-plan", "--days", "36"))
    matched = re.fullmatch(f"Plan ([0-9a-f]{{32}}), good until {MOMENT}:", head)
    assert matched is not None
    assert lines[0].startswith("Would delete 4 files of 1 jobs, ")
    assert (output_root / "projects/anime/batch").exists()
    organize = outputs(output_root)
    done = said(run("cleanup", "--plan", matched[1], "--yes"))
    assert done == [lines[0].replace("Would delete", "Deleted"), *lines[1:]]
    assert outputs(output_root) != organize
    again = answer_of(run("cleanup", "--plan", matched[1], "--yes", "--json"))
    assert (again["operation_id"], again["deleted_files"]) == (matched[1], 4)
    assert [job["job_id"] for job in answer_of(run("trash", "--json"))["jobs"]] == ["batch"]


def test_a_plan_as_json_has_the_id_that_carries_it_out(run: Run) -> None:
    plan = answer_of(run("cleanup", "--make-plan", "--json"))
    assert plan.keys() == {"plan_id", "created_at", "expires_at", "report"}
    answer = answer_of(run("cleanup", "--plan", plan["plan_id"], "--yes", "--json"))
    assert answer == {**plan["report"], "dry_run": False, "operation_id": plan["plan_id"]}


def test_a_plan_whose_job_has_changed_ends_with_3_and_deletes_nothing(
    run: Run, output_root: Path
) -> None:
    plan_id = answer_of(run("cleanup", "--make-plan", "--json"))["plan_id"]
    run("update", "mix", "--tag", "best")
    before = outputs(output_root)
    (line,) = said(run("cleanup", "--plan", plan_id, "--yes"), 3)
    assert line == "Error: Job 'mix' has changed since the cleanup was planned. Make a new plan."
    assert outputs(output_root) == before


def test_what_a_policy_refuses_ends_with_3_until_it_is_allowed(
    run_in: RunIn, output_root: Path
) -> None:
    run = run_in(retention_policy={"keep_within": 10})
    before = outputs(output_root)
    for options in (["--dry-run"], ["--make-plan"], ["--yes"], ["--yes", "--json"]):
        (line,) = said(run("cleanup", *options), 3)
        assert line.startswith("Error: The cleanup was stopped: ")
        assert line.endswith("allow empty_project.")
    (line,) = said(run("cleanup", "--yes", "--allow", "empty_project"), 3)
    assert line.endswith("allow large_share.")
    assert outputs(output_root) == before
    allowed = ["--allow", "empty_project", "--allow", "large_share"]
    assert said(run("cleanup", "--yes", *allowed))[0].startswith("Deleted 5 files")


def test_delete_says_until_when_a_job_can_be_restored(run: Run, output_root: Path) -> None:
    (line,) = said(run("delete", "batch", "--yes"))
    size = f"{BATCH_BYTES / 1024:.1f} KB"
    matched = re.fullmatch(
        f"Job batch: deleted 4 files, {size} into the trash; they can be restored until ({MOMENT}).",
        line,
    )
    assert matched is not None
    assert said(run("delete", "batch", "--yes")) == [line]
    (shown,) = said(run("job", "batch"), 3)
    assert matched[1] in shown
    answer = answer_of(run("delete", "batch", "--yes", "--json"))
    assert (answer["deleted_files"], answer["restorable_until"]) == (4, matched[1])
    assert not (output_root / "projects/anime/batch").exists()
    assert_sound(output_root)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [(["--permanent"], {}), ([], {"trash_days": 0})],
    ids=["permanent", "no-trash"],
)
def test_delete_for_good_says_so_and_leaves_nothing(
    run_in: RunIn, output_root: Path, arguments: list[str], settings: dict[str, Any]
) -> None:
    run = run_in(**settings)
    (line,) = said(run("delete", "batch", "--yes", *arguments))
    assert line == f"Job batch: deleted 4 files for good, {BATCH_BYTES / 1024:.1f} KB freed."
    assert [path for path in lasting(output_root) if "batch" in path] == []
    (line,) = said(run("restore", "batch"), 3)
    assert line.startswith("Error: No job 'batch' is known.")


def test_delete_says_which_files_it_left_and_why(run: Run, output_root: Path) -> None:
    files = job_of(run)["files"]
    (output_root / files[0]["path"]).write_bytes(b"painted over")
    head, left = said(run("delete", "batch", "--yes"))
    assert "deleted 3 files" in head
    assert left == f"  left   {files[0]['path']}: changed"
    (mix,) = job_of(run, "mix")["files"]
    (output_root / mix["path"]).write_bytes(b"painted over")
    assert said(run("delete", "mix", "--yes")) == [
        "Job mix: nothing was deleted.",
        f"  left   {mix['path']}: changed",
    ]


def test_restore_brings_a_job_back_and_says_so(run: Run, output_root: Path) -> None:
    before = outputs(output_root), job_of(run)
    run("delete", "batch", "--yes")
    (line,) = said(run("restore", "batch"))
    size = f"{BATCH_BYTES / 1024:.1f} KB"
    assert line == f"Job batch in project anime: 4 files restored, {size}, 0 already there."
    assert (outputs(output_root), job_of(run)) == before
    (line,) = said(run("restore", "batch"))
    assert line == "Job batch in project anime: 0 files restored, 0 bytes, 4 already there."
    answer = answer_of(run("restore", "batch", "--json"))
    assert answer["already_there"] == tally(4, BATCH_BYTES)
    assert answer["files"] == before[1]["files"]


def test_trash_lists_what_can_be_restored_and_empties_it_when_told(
    run: Run, output_root: Path
) -> None:
    assert said(run("trash")) == ["0 jobs in the trash, 0 files, 0 bytes."]
    run("delete", "mix", "--yes")
    run("delete", "batch", "--yes")
    head, mix, batch = said(run("trash"))
    size = f"{BOTH_BYTES / 1024:.1f} KB"
    assert head == f"2 jobs in the trash, 5 files, {size}."
    assert re.fullmatch(f"  mix  1 files, .* KB, deleted {MOMENT}, until {MOMENT}", mix)
    assert re.fullmatch(f"  batch  4 files, .* KB, deleted {MOMENT}, until {MOMENT}", batch)
    answer = answer_of(run("trash", "--json"))
    assert [job["job_id"] for job in answer["jobs"]] == ["mix", "batch"]
    assert (answer["files"], answer["bytes"]) == (5, BOTH_BYTES)
    assert f"Trash    5 files, {size}" in said(run("status"))
    before = outputs(output_root)
    (line,) = said(run("trash", "--empty", "--yes"))
    assert line == f"Deleted 5 files of 2 jobs for good, {size} freed."
    assert outputs(output_root) == before
    assert not list((output_root / TRASH).rglob("*.png"))
    answer = answer_of(run("trash", "--empty", "--yes", "--json"))
    assert (answer["purged_jobs"], answer["failed"]) == (0, [])


def test_update_pins_and_tags_a_job_and_shows_it(run: Run) -> None:
    head, marks, *files = said(run("update", "batch", "--pin", "--tag", "best", "--tag", "第1話"))
    assert head.startswith("Job batch in project anime: 4 files, ")
    assert marks == "  pinned, best, 第1話"
    assert len(files) == 4
    (line,) = said(run("delete", "batch", "--yes"), 3)
    assert line == "Error: Job 'batch' is pinned, so it is not deleted. Unpin it first."
    assert "  keep   anime/batch  1 jobs" in run("cleanup", "--yes").output
    assert said(run("update", "batch", "--unpin"))[1] == "  best, 第1話"
    assert said(run("update", "batch", "--tag", "other"))[1] == "  other"
    assert said(run("update", "batch"))[1] == "  other"
    answer = answer_of(run("update", "batch", "--no-tags", "--pin", "--json"))
    assert (answer["tags"], answer["pinned"]) == ([], True)
    assert job_of(run) == answer


# How they end.

DELETING = {
    "cleanup": ["cleanup"],
    "cleanup-json": ["cleanup", "--json"],
    "cleanup-days": ["cleanup", "--days", "0"],
    "plan": ["cleanup", "--plan", "0" * 32],
    "delete": ["delete", "batch"],
    "delete-json": ["delete", "batch", "--json"],
    "delete-permanent": ["delete", "batch", "--permanent"],
    "delete-unknown": ["delete", "nobody"],
    "empty": ["trash", "--empty"],
    "empty-json": ["trash", "--empty", "--json"],
}


@pytest.mark.parametrize("arguments", DELETING.values(), ids=DELETING)
def test_without_a_terminal_nothing_is_deleted_unless_yes_is_said(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    run("delete", "mix", "--yes")
    before = lasting(output_root)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Add --yes" in result.output
    assert len(result.output.splitlines()) == 4, "usage, a hint, an empty line, and the error"
    assert lasting(output_root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        *(["cleanup", "--days", word] for word in ("x", "1.5", "", "true", "1e3")),
        ["cleanup", "--dry-run", "--make-plan"],
        ["cleanup", "--dry-run", "--plan", "x"],
        ["cleanup", "--make-plan", "--plan", "x"],
        ["cleanup", "--plan", "x", "--days", "0", "--yes"],
        ["cleanup", "--plan", "x", "--allow", "large_share", "--yes"],
        ["cleanup", "batch", "--yes"],
        ["delete", "--yes"],
        ["delete", "batch", "mix", "--yes"],
        ["delete", "batch", "--dry-run", "--yes"],
        ["restore"],
        ["trash", "batch", "--empty", "--yes"],
        ["update"],
        ["update", "batch", "--tag", "a", "--no-tags"],
        ["update", "batch", "--pinned"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_changes_nothing(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    before = lasting(output_root)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert lasting(output_root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["cleanup", "--days", "-1", "--yes"],
        ["cleanup", "--days", "36501", "--yes"],
        ["cleanup", "--days", "-1", "--dry-run"],
        ["cleanup", "--days", "36501", "--make-plan"],
        ["cleanup", "--allow", "everything", "--yes"],
        ["cleanup", "--plan", "0" * 32, "--yes"],
        ["cleanup", "--plan", "../file_metadata", "--yes"],
        ["delete", "nobody", "--yes"],
        ["delete", "nobody", "--permanent", "--yes"],
        ["delete", "../anime/batch", "--yes"],
        ["delete", "", "--yes"],
        ["restore", "nobody"],
        ["restore", ".."],
        ["update", "nobody", "--pin"],
        ["update", "batch", "--pin", "--tag", ""],
        ["update", "batch", "--tag", "a" * 101],
        ["update", "batch", "--tag", "be\nst"],
    ],
    ids=" ".join,
)
def test_what_is_refused_ends_with_3_and_changes_nothing(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    before = lasting(output_root)
    for options in ([], ["--json"]):
        (line,) = said(run(*arguments, *options), 3)
        assert line.startswith("Error: ")
        assert str(output_root) not in line
    assert lasting(output_root) == before


_HOLD = """
import sys
from flask_comfy_files.core.lock import hold
with hold(sys.argv[1], 5):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def cleanup_running_elsewhere(root: Path) -> Iterator[None]:
    """Hold what a cleanup holds as long as it runs, in another process."""
    command = [sys.executable, "-c", _HOLD, str(root / CLEANUP_LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


def test_a_cleanup_beside_another_ends_with_4(run: Run, output_root: Path) -> None:
    plan_id = answer_of(run("cleanup", "--make-plan", "--json"))["plan_id"]
    before = outputs(output_root)
    with cleanup_running_elsewhere(output_root):
        for arguments in (["--yes"], ["--yes", "--json"], ["--plan", plan_id, "--yes"]):
            (line,) = said(run("cleanup", *arguments), 4)
            assert line.startswith("Error: A cleanup of this library is under way already.")
        assert said(run("cleanup", "--dry-run"))[0].startswith("Would delete 5 files")
        assert outputs(output_root) == before
        assert said(run("delete", "mix", "--yes"))  # only cleanups exclude each other
    assert said(run("cleanup", "--yes"))[0].startswith("Deleted 4 files")


def test_a_library_that_somebody_else_is_changing_ends_with_4(
    run_in: RunIn, output_root: Path
) -> None:
    run = run_in(lock_timeout=0.05)
    before = outputs(output_root)
    with lock_held_elsewhere(output_root):
        for arguments in (
            ["cleanup", "--yes"],
            ["delete", "batch", "--yes"],
            ["restore", "batch"],
            ["trash", "--empty", "--yes"],
            ["update", "batch", "--pin"],
        ):
            assert run(*arguments).exit_code == 4
        assert run("trash").exit_code == 0
    assert outputs(output_root) == before


EVERYTHING = [
    ["cleanup", "--yes"],
    ["cleanup", "--dry-run"],
    ["cleanup", "--make-plan"],
    ["delete", "batch", "--yes"],
    ["restore", "batch"],
    ["trash"],
    ["trash", "--empty", "--yes"],
    ["update", "batch", "--pin"],
]


def test_a_library_that_cannot_be_used_ends_with_5_and_advice(
    run_in: RunIn, output_root: Path, tmp_path: Path
) -> None:
    run = run_in(output_dir=tmp_path / "not" / "mounted")
    for arguments in EVERYTHING:
        (line,) = said(run(*arguments), 5)
        assert "does not exist" in line
    assert not (tmp_path / "not").exists()

    (output_root / DOCUMENT).unlink()
    (output_root / DOCUMENT).symlink_to("nowhere")
    before = outputs(output_root)
    run = run_in()
    for arguments in EVERYTHING:
        (line,) = said(run(*arguments), 5)
        assert DOCUMENT in line
    assert outputs(output_root) == before


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a disk refuse to move the second image of a job."""
    move = durable.move

    def refuse(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source.endswith("_image_2.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", refuse)


@pytest.mark.usefixtures("stubborn")
def test_a_cleanup_in_which_a_file_failed_ends_with_1_and_its_job_stays_whole(
    run: Run, output_root: Path
) -> None:
    second = job_of(run)["files"][1]["path"]
    head, *lines = said(run("cleanup", "--yes"), 1)[-5:]
    assert head.startswith("Deleted 1 files of 1 jobs")
    assert any(line.startswith("  keep   anime/batch  1 jobs, 3 files") for line in lines)
    assert lines[-1].startswith(f"  failed {second}: Input/output error")
    assert job_of(run)["file_count"] == 4
    assert len(list((output_root / "projects/anime/batch").iterdir())) == 4
    result = run("cleanup", "--yes", "--json")
    assert result.exit_code == 1
    assert second in result.output
    assert_sound(output_root)


@pytest.mark.usefixtures("stubborn")
def test_a_deletion_in_which_a_file_failed_ends_with_1_and_the_job_stays_whole(
    run: Run, output_root: Path
) -> None:
    before = outputs(output_root), job_of(run)
    *_, head, failed = said(run("delete", "batch", "--yes"), 1)
    assert head == "Job batch: nothing was deleted."
    assert failed.startswith(f"  failed {before[1]['files'][1]['path']}: Input/output error")
    assert (outputs(output_root), job_of(run)) == before


def test_emptying_a_trash_that_does_not_let_go_of_a_file_ends_with_1_and_names_it(
    run: Run, output_root: Path
) -> None:
    run("delete", "batch", "--yes")
    name = next((output_root / TRASH).rglob("*_image_2.png"))
    name.unlink()
    name.mkdir()
    *_, head, failed = said(run("trash", "--empty", "--yes"), 1)
    assert head.startswith("Deleted 3 files of 1 jobs for good, ")
    assert failed == f"  failed {name.relative_to(output_root)}: Is a directory"


# Names that would do something to a terminal.


def test_control_characters_of_names_never_reach_the_terminal(run: Run, output_root: Path) -> None:
    folder = output_root / "projects/anime/mix"
    (folder / HOSTILE).write_bytes(b"mine")
    (folder / os.fsdecode(b"not-utf-8-\xff")).write_bytes(b"mine")
    results = [
        (run("cleanup", "--dry-run"), 0),
        (run("cleanup", "--yes"), 0),
        (run("cleanup", "--yes", "--json"), 0),
        (run("restore", "mix"), 0),
        (run("delete", "mix", "--yes"), 0),
        (run("delete", "mix", "--yes", "--json"), 0),
        (run("delete", HOSTILE, "--yes"), 3),
        (run("delete", HOSTILE, "--permanent"), 2),
        (run("restore", HOSTILE), 3),
        (run("update", "mix", "--tag", HOSTILE), 3),
        (run("update", HOSTILE, "--pin"), 3),
        (run("cleanup", "--plan", HOSTILE, "--yes"), 3),
        (run("cleanup", "--allow", HOSTILE, "--yes"), 3),
        (run("cleanup", "--days", HOSTILE, "--yes"), 2),
    ]
    for result, exit_code in results:
        assert result.exit_code == exit_code, result.output
        shown = result.output.replace("\n", "")
        assert shown.isprintable(), [sign for sign in shown if not sign.isprintable()]
    for result in (results[0][0], results[1][0], results[4][0]):
        assert (
            "mix/x\\x1b]0;owned\\x07\\x1b[2J\\r\\n\\x9b31m\\x7f\\u202e.png: untracked"
            in result.output
        )
        assert "mix/not-utf-8-\\udcff: untracked" in result.output


def test_help_says_what_each_command_does_and_takes(run: Run, output_root: Path) -> None:
    before = lasting(output_root)
    words = {
        "cleanup": ["--days", "--dry-run", "--make-plan", "--plan", "--allow", "--yes", "--json"],
        "delete": ["JOB_ID", "--permanent", "--yes", "--json", "trash"],
        "restore": ["JOB_ID", "--json", "trash"],
        "trash": ["--empty", "--yes", "--json", "restored"],
        "update": ["JOB_ID", "--pin / --unpin", "--tag", "--no-tags", "--json"],
    }
    listed = run("--help").output.partition("Commands:\n")[2].split()
    for command, expected in words.items():
        text = " ".join(said(run(command, "--help")))
        assert [word for word in expected if word not in text] == []
        assert command in listed
    assert lasting(output_root) == before


# In a shell: streams, terminals, questions.

STUDIO = """
from flask import Flask
from flask_comfy_files import add_file_manager_routes

app = Flask(__name__)
add_file_manager_routes(app, token="so that nothing is said at start")
"""


class Shell:
    """Runs ``flask files`` in a process of its own, with a terminal or without."""

    def __init__(self, root: Path, folder: Path) -> None:
        (folder / "studio.py").write_text(STUDIO)
        self._environ = {**os.environ, "COMFY_FILES_OUTPUT_DIR": str(root)}
        self._folder = folder

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "flask", "--app", "studio", "files", *arguments]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command as cron does; return how it ended, and what it wrote to its two streams."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def type(self, keys: str, *arguments: str) -> tuple[int, str, str]:
        """Run a command on a terminal, and type; return its end, its standard output, and what is seen."""
        ours, its = pty.openpty()
        try:
            with subprocess.Popen(
                self._command(arguments),
                cwd=self._folder,
                env=self._environ,
                stdin=its,
                stdout=subprocess.PIPE,
                stderr=its,
            ) as running:
                os.close(its)
                os.write(ours, keys.encode())
                seen = b"".join(_chunks(ours)).decode()
                out = running.communicate(timeout=60)[0].decode()
        finally:
            os.close(ours)
        return running.returncode, out, seen.replace("\r\n", "\n")


def _chunks(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until nobody has it open any more."""
    with contextlib.suppress(OSError):  # EIO: that is how Linux says it
        while chunk := os.read(terminal, 4096):
            yield chunk


@pytest.fixture
def shell(output_root: Path, tmp_path: Path) -> Shell:
    """Return what runs commands over the library."""
    return Shell(output_root, tmp_path)


def test_without_a_terminal_the_report_is_all_that_is_said(shell: Shell) -> None:
    code, out, err = shell.run("cleanup", "--yes", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["deleted_files"] == 5
    code, out, err = shell.run("cleanup")
    assert (code, out) == (2, "")
    assert "Add --yes" in err
    assert "delete" not in err.splitlines()[0]
    code, out, err = shell.run("delete", "nobody", "--yes")
    assert (code, out) == (3, "")
    assert err.startswith("Error: No job 'nobody' is known.")


ASKING = {
    "cleanup": (["cleanup"], "Do that? [y/N]: "),
    "plan": (["cleanup", "--plan", "PLAN"], "Delete what plan PLAN says? [y/N]: "),
    "delete": (["delete", "batch"], "Delete job batch into the trash? [y/N]: "),
    "permanent": (
        ["delete", "batch", "--permanent"],
        "Delete job batch for good; nothing brings it back? [y/N]: ",
    ),
    "empty": (
        ["trash", "--empty"],
        "Delete everything in the trash for good? Nothing brings it back. [y/N]: ",
    ),
}


@pytest.mark.parametrize(("arguments", "question"), ASKING.values(), ids=ASKING)
def test_on_a_terminal_a_person_is_asked_and_decides(
    run: Run, shell: Shell, output_root: Path, arguments: list[str], question: str
) -> None:
    run("delete", "mix", "--yes")
    plan_id = answer_of(run("cleanup", "--make-plan", "--json"))["plan_id"]
    arguments = [word.replace("PLAN", plan_id) for word in arguments]
    before = lasting(output_root)

    code, out, seen = shell.type("n\n", *arguments)
    assert (code, out) == (1, "")
    assert question.replace("PLAN", plan_id) in seen
    assert seen.endswith("Aborted!\n")
    assert lasting(output_root) == before

    code, out, seen = shell.type("y\n", *arguments)
    assert code == 0
    assert "eleted " in out
    assert question.replace("PLAN", plan_id) in seen
    assert lasting(output_root) != before


@pytest.mark.parametrize("keys", ["\n", "\x04"], ids=["return", "end"])
def test_whoever_does_not_say_yes_has_said_no(shell: Shell, output_root: Path, keys: str) -> None:
    before = lasting(output_root)
    code, out, _ = shell.type(keys, "cleanup", "--days", "0")
    assert (code != 0, out) == (True, "")
    assert lasting(output_root) == before


def test_a_cleanup_shows_what_would_go_before_it_asks_and_how_far_it_is_on_a_terminal_alone(
    shell: Shell,
) -> None:
    code, out, seen = shell.type("y\n", "cleanup", "--json")
    assert code == 0
    assert json.loads(out)["deleted_files"] == 5
    shown, asked, progress = seen.partition("Do that? [y/N]: ")
    assert asked
    assert "Would delete 5 files of 2 jobs" in shown
    assert "  delete anime/batch  4 files" in shown
    assert "Deleting" in progress
    assert progress.rpartition("\r")[2].removesuffix("\x1b[?25h\n").endswith("]  2/2")


def test_nothing_to_do_shows_no_progress(shell: Shell) -> None:
    code, _, seen = shell.type("", "cleanup", "--days", "36500", "--yes")
    assert (code, seen) == (0, "")
    code, _, seen = shell.type("", "cleanup", "--days", "39", "--yes")
    assert code == 0
    assert "Deleting" in seen
    assert "1/1" in seen
