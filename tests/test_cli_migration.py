"""The commands that migrate, list what belongs to nobody, and assign it: what they say, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import add_file_manager_routes
from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.layout import MIGRATION_LOCK
from tests.conftest import MakeTree
from tests.core.test_migration import (
    TIME,
    check_library,
    clip,
    image,
    operations,
    refuse_to_move,
    tagged,
)
from tests.test_cli_keeping import Shell
from tests.trees import Tree, library, outputs, read_tree
from tests.web.conftest import lock_held_elsewhere

Run = Callable[..., Result]
RunIn = Callable[..., Run]

STEM = f"x_{TIME}_00001"
TREE: Tree = {
    f"{STEM}.mp4": clip("x"),
    f"{STEM}.png": image("x"),
    "a.txt": b"the same",
    "b.txt": b"the same",
    "tagged.png": tagged("job_1", "anime"),
    "sub/c.txt": b"c",
    ".hidden": b"h",
}
TIMED = f"projects/legacy_migration/legacy_{TIME}"


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder with files of all kinds."""
    return make_tree(TREE)


@pytest.fixture
def run_in(output_root: Path) -> Iterator[RunIn]:
    """Return what makes a host with some settings, and returns what runs its ``files`` command."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Run:
            host = Flask("host")
            add_file_manager_routes(host, **{"output_dir": output_root, **settings})
            stack.callback(host.extensions["comfy_files"].close)

            def run(*arguments: str, **options: Any) -> Result:
                result = host.test_cli_runner().invoke(args=["files", *arguments], **options)
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


def folders_of(answer: dict[str, Any]) -> dict[str, str]:
    """Return the folder into which each file went."""
    return {move["path"]: move["target"].rpartition("/")[0] for move in answer["moves"]}


FLAT = {
    f"{STEM}.mp4": TIMED,
    f"{STEM}.png": TIMED,
    "a.txt": "legacy",
    "b.txt": "legacy",
    "tagged.png": "projects/anime/job_1",
}


TOTAL = sum(len(entry) for name in FLAT if isinstance(entry := TREE[name], bytes))


def size_text(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size / 1024:.1f} KB"


def test_migrate_says_what_became_of_the_files_in_numbers(run: Run, output_root: Path) -> None:
    counted = "Migrated 3 of 6 files into 2 jobs, 2 to legacy/; 0 left, 1 skipped, 0 failed"
    assert said(run("migrate")) == [
        f"{counted}; {size_text(TOTAL)} in all.",
        "  the same 8 bytes: a.txt, b.txt",
        "  skipped .hidden: hidden",
    ]
    assert len(check_library(output_root)) == 5
    assert said(run("migrate"))[0].startswith("Migrated 0 of 1 files into 0 jobs, 0 to legacy/;")


def test_migrate_as_json_is_one_document_that_names_each_move(run: Run, output_root: Path) -> None:
    answer = answer_of(run("migrate", "--json"))
    assert folders_of(answer) == FLAT
    assert answer["found"] == {"files": 6, "bytes": TOTAL}
    assert (answer["dry_run"], len(answer["operation_id"])) == (False, 32)
    assert {move["target"] for move in answer["moves"]} == set(check_library(output_root))


def test_a_rehearsal_shows_a_tree_of_what_would_go_where_and_changes_nothing(
    run: Run, output_root: Path
) -> None:
    before = read_tree(output_root)
    lines = said(run("migrate", "--dry-run"))
    now = r"\d{10}"
    expected = [
        *(r"legacy/", r"  a\.txt  from a\.txt", r"  b\.txt  from b\.txt"),
        *(r"projects/anime/job_1/", rf"  job_1_{now}_image\.png  from tagged\.png"),
        rf"{TIMED}/",
        rf"  legacy_{TIME}_{now}_image\.png  from {STEM}\.png",
        rf"  legacy_{TIME}_{now}_video\.mp4  from {STEM}\.mp4",
        r"Would migrate 3 of 6 files into 2 jobs, 2 to legacy/; 0 left, 1 skipped, 0 failed; .*",
        *(r"  the same 8 bytes: a\.txt, b\.txt", r"  skipped \.hidden: hidden"),
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert read_tree(output_root) == before


def test_a_rehearsal_as_json_says_what_the_migration_after_it_does(
    run: Run, output_root: Path
) -> None:
    before = read_tree(output_root)
    plan = answer_of(run("migrate", "--dry-run", "--json"))
    assert read_tree(output_root) == before
    done = answer_of(run("migrate", "--json"))
    assert (plan.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert plan.pop("operation_id") is None
    assert done.pop("operation_id") is not None
    assert folders_of(plan) == folders_of(done)
    assert {**plan, "moves": 0} == {**done, "moves": 0}


def test_a_long_rehearsal_shows_every_file(run: Run, make_tree: MakeTree) -> None:
    make_tree({f"n_{number:03}.txt": b"%d" % number for number in range(100)})
    lines = said(run("migrate", "--dry-run"))
    assert len([line for line in lines if "  from n_" in line]) == 100


def test_each_option_is_heard(run: Run, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    listed = [{"job_id": "job_9", "project_id": "p", "files": ["a.txt", "sub/c.txt"]}]
    jobs.write_text(json.dumps(listed), encoding="utf-8")

    def plan(*options: str, **more: Any) -> dict[str, str]:
        return folders_of(answer_of(run("migrate", "--dry-run", "--json", *options, **more)))

    assert plan() == plan("--quiet") == FLAT
    assert plan("--recursive") == {**FLAT, "sub/c.txt": "legacy/sub"}
    by_list = {**FLAT, "a.txt": "projects/p/job_9", "sub/c.txt": "projects/p/job_9"}
    assert plan("--jobs", str(jobs)) == by_list
    assert plan("--jobs", "-", input=jobs.read_bytes()) == by_list
    assert {name: plan("--leave-unmatched").get(name) for name in ("a.txt", "b.txt")} == {
        "a.txt": None,
        "b.txt": None,
    }
    day = "projects/legacy_migration/legacy_day_20260203"
    assert plan("--group-by", "day") == {**FLAT, "a.txt": day, "b.txt": day}
    assert plan("--group-by", "workflow") == FLAT


def test_what_is_left_is_counted(run: Run, output_root: Path) -> None:
    lines = said(run("migrate", "--leave-unmatched"))
    assert "0 to legacy/; 2 left, 1 skipped, 0 failed" in lines[0]
    assert {"a.txt", "b.txt"} < set(outputs(output_root))


def test_a_history_of_comfyui_is_read_from_a_file(run: Run, tmp_path: Path) -> None:
    item = {"outputs": {"9": {"text": ["no file"], "files": [{"filename": "a.txt"}]}}}
    (tmp_path / "history.json").write_text(json.dumps({"run-1": item}))
    answer = answer_of(run("migrate", "--jobs", str(tmp_path / "history.json"), "--json"))
    assert folders_of(answer)["a.txt"] == "projects/default/run-1"


def test_a_file_that_failed_ends_with_1_and_is_named_and_the_others_go(
    run: Run, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "a.txt")
        lines = said(run("migrate"), exit_code=1)
    assert (
        "Migrated 3 of 6 files into 2 jobs, 1 to legacy/; 0 left, 1 skipped, 1 failed" in lines[0]
    )
    assert lines[-1] == f"  failed  a.txt: Operation not permitted (uid {os.geteuid()})"
    assert (output_root / "a.txt").read_bytes() == b"the same"
    assert answer_of(run("migrate", "--json"))["moved_to_legacy"]["files"] == 1
    check_library(output_root)


def test_ctrl_c_ends_with_1_and_the_next_call_goes_on_under_the_same_id(
    run: Run, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    run("organize", "first", "--file", "nothing.png")  # so that there is a library
    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", interrupt)
        assert "Aborted!" in said(run("migrate"), exit_code=1)[-1]
    answer = answer_of(run("migrate", "--json"))
    assert (answer["failed"], operations(output_root)) == ([], [answer["operation_id"]])
    assert len(check_library(output_root)) == 5


BAD_JOBS = {
    "no JSON": b"job_1: a.txt",
    "nothing": b"",
    "not UTF-8": b'[{"job_id": "\xff", "files": []}]',
    "deep": b"[" * 100_000,
    "text": b'"a.txt"',
    "no list of jobs": b'["a.txt"]',
    "an impossible id": b'[{"job_id": "..", "files": []}]',
    "a file outside": b'[{"job_id": "job_1", "files": ["../x"]}]',
    "a file of two jobs": b'[{"job_id": "a", "files": ["x"]}, {"job_id": "b", "files": ["x"]}]',
    "no history": b'{"run-1": {}}',
}


@pytest.mark.parametrize("content", BAD_JOBS.values(), ids=BAD_JOBS)
def test_a_list_of_jobs_that_cannot_be_used_ends_with_3_and_changes_nothing(
    run: Run, output_root: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "jobs.json").write_bytes(content)
    before = read_tree(output_root)
    for options in ([], ["--dry-run"], ["--json"]):
        (line,) = said(run("migrate", "--jobs", str(tmp_path / "jobs.json"), *options), 3)
        assert line.startswith(("Error: jobs", "Error: --jobs: "))
    assert read_tree(output_root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        *(["migrate", "now"], ["migrate", "--group-by", "week"]),
        *(["migrate", "--jobs", "nowhere.json"], ["migrate", "--dryrun"], ["legacy", "x"]),
        *(["assign"], ["assign", "job_1"], ["assign", "job_1", "x", "--projekt", "p"]),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_changes_nothing(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    before = read_tree(output_root)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output
    assert read_tree(output_root) == before


def test_what_is_busy_ends_with_4_and_what_is_missing_with_5(
    run_in: RunIn, output_root: Path, tmp_path: Path
) -> None:
    run = run_in(lock_timeout=0.05)
    run("migrate", "--leave-unmatched")
    with lock.hold(str(output_root / MIGRATION_LOCK), 1):
        (line,) = said(run("migrate"), exit_code=4)
        assert line.startswith("Error: A migration of this library is under way already.")
    with lock_held_elsewhere(output_root):
        (line,) = said(run("migrate"), exit_code=4)
        assert line.startswith("Error: Another process has been changing the library")
        assert said(run("assign", "job_1", "x"), exit_code=4)
    nowhere = run_in(output_dir=tmp_path / "not mounted")
    for arguments in (["migrate"], ["migrate", "--dry-run"], ["legacy"], ["assign", "job_1", "x"]):
        (line,) = said(nowhere(*arguments), exit_code=5)
        assert "does not exist" in line
        assert "COMFY_FILES_OUTPUT_DIR" in line


# legacy and assign


def test_legacy_lists_what_belongs_to_nobody(run: Run) -> None:
    assert said(run("legacy")) == ["0 files belong to no job, 0 bytes."]
    run("migrate")
    assert said(run("legacy")) == [
        "2 files belong to no job, 16 bytes.",
        "  legacy/a.txt  8 bytes",
        "  legacy/b.txt  8 bytes",
    ]
    answer = answer_of(run("legacy", "--json"))
    assert (answer["file_count"], answer["total_size"]) == (2, 16)
    assert [record["original_path"] for record in answer["files"]] == ["a.txt", "b.txt"]


def test_assign_moves_chosen_files_and_says_so(run: Run, output_root: Path) -> None:
    run("migrate")
    file_id = answer_of(run("legacy", "--json"))["files"][1]["file_id"]
    assert said(run("assign", "job_1", "legacy/a.txt")) == [
        "Job job_1 in project anime: 1 assigned, 0 already there, 2 files in all."
    ]
    answer = answer_of(run("assign", "job_2", file_id, "--project", "anime", "--json"))
    assert (answer["assigned"], answer["skipped"]) == ({"files": 1, "bytes": 8}, [])
    assert answer["files"][0]["file_id"] == file_id
    assert said(run("assign", "job_2", file_id)) == [
        "Job job_2 in project anime: 0 assigned, 1 already there, 1 files in all."
    ]
    check_library(output_root)


def test_assign_ends_with_1_where_files_were_left_and_names_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("migrate")
    assert said(run("assign", "job_2", "gone.txt", "legacy/a.txt"), exit_code=1) == [
        "Job job_2 in project default: 1 assigned, 0 already there, 1 files in all.",
        "  left gone.txt: not_found",
    ]
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "b.txt")
        lines = said(run("assign", "job_2", "legacy/b.txt"), exit_code=1)
    assert lines[-1] == f"  failed legacy/b.txt: Operation not permitted (uid {os.geteuid()})"


@pytest.mark.parametrize(
    "arguments",
    [
        ["..", "legacy/a.txt"],
        ["JOB_1", "legacy/a.txt"],
        ["job_1", "legacy/a.txt", "--project", "manga"],
        ["job_2", "legacy/a.txt", "--project", "Anime"],
        ["job_2", "legacy/a.txt", "--project", ""],
    ],
)
def test_an_owner_that_is_refused_ends_with_3_and_changes_nothing(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    run("migrate")
    before = library(output_root)
    for options in ([], ["--json"]):
        (line,) = said(run("assign", *arguments, *options), exit_code=3)
        assert line.startswith("Error: ")
    assert library(output_root) == before


HOSTILE = "x\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\x7f\u202e.png"


def test_control_characters_of_names_never_reach_the_terminal(
    run: Run, make_tree: MakeTree, tmp_path: Path
) -> None:
    make_tree({HOSTILE: b"1", "not\udcffutf8.png": b"2"})
    (tmp_path / "jobs.json").write_text(json.dumps([{"job_id": "j", "files": [f"{HOSTILE}.no"]}]))
    results = [
        run("migrate", "--dry-run"),
        run("migrate", "--dry-run", "--jobs", str(tmp_path / "jobs.json")),
        run("migrate", "--json"),
        run("legacy"),
        run("assign", "job_2", HOSTILE),
        run("assign", HOSTILE, "legacy/a.txt"),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0, 0, 1, 3]
    for result in results:
        shown = result.output.replace("\n", "")
        assert "owned" in shown
        assert shown.isprintable(), [sign for sign in shown if not sign.isprintable()]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "migrate",
            [
                *("--dry-run", "--recursive", "--jobs", "--group-by", "workflow|day", "--json"),
                *("--leave-unmatched", "--quiet", "EXCLUDE", "legacy/", "Interrupted, it goes on"),
            ],
        ),
        ("legacy", ["--json", "belong to no job"]),
        ("assign", ["JOB_ID", "FILES", "--project", "--json", "by path or id"]),
    ],
)
def test_help_says_what_a_command_does_and_takes(
    run: Run, output_root: Path, command: str, words: list[str]
) -> None:
    before = read_tree(output_root)
    text = " ".join("\n".join(said(run(command, "--help"))).split())
    assert [word for word in words if word not in text] == []
    assert read_tree(output_root) == before


# In a shell


def test_progress_is_shown_on_a_terminal_alone_and_never_in_the_answer(
    output_root: Path, tmp_path: Path, make_tree: MakeTree
) -> None:
    shell = Shell(output_root, tmp_path)
    make_tree({f"n_{number:03}.txt": b"%d" % number for number in range(300)})
    code, out, seen = shell.type("", "migrate", "--json")
    assert code == 0
    assert json.loads(out)["found"]["files"] == 306
    assert "Migrating, " in seen
    assert re.search(r"\d files/s, [0-9.]+ (bytes|KB|MB|GB)/s", seen)
    assert seen.rpartition("\r")[2].removesuffix("\x1b[?25h\n").endswith("  305/305")

    make_tree({"later.txt": b"later"})
    code, out, seen = shell.type("", "migrate", "--quiet")
    assert (code, seen) == (0, "")
    assert out.startswith("Migrated 0 of 2 files into 0 jobs, 1 to legacy/;")

    code, out, seen = shell.type("", "migrate")
    assert (code, seen) == (0, "")
    assert out.startswith("Migrated 0 of 1 files")

    make_tree({"at_last.txt": b"at last"})
    code, out, err = shell.run("migrate")
    assert (code, err) == (0, "")
    assert out.startswith("Migrated 0 of 2 files")
