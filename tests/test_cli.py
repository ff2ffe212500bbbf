from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import DOCUMENT
from tests.conftest import MakeTree
from tests.trees import outputs, read_tree, recording
from tests.web.answers import BATCH, BATCH_BYTES, assert_reconciles, kept, tally
from tests.web.conftest import lock_held_elsewhere

Run = Callable[..., Result]


@pytest.fixture
def run_in(output_root: Path) -> Iterator[Callable[..., Run]]:
    """Return what makes a host with some settings, and returns what runs its ``files`` command."""
    managers: list[FileManager] = []

    def make(**settings: Any) -> Run:
        host = Flask("host")
        add_file_manager_routes(host, **{"output_dir": output_root, **settings})
        managers.append(host.extensions["comfy_files"])

        def run(*arguments: str) -> Result:
            result = host.test_cli_runner().invoke(args=["files", *arguments])
            assert result.exception is None or isinstance(result.exception, SystemExit)
            return result

        return run

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def run(run_in: Callable[..., Run]) -> Run:
    """Return what runs ``flask files`` over real recordings."""
    return run_in()


def answer_of(result: Result) -> dict[str, Any]:
    """Return the answer of a command that was asked for JSON: one document and nothing else."""
    answer: dict[str, Any] = json.loads(result.output)
    return answer


def test_organize_moves_a_job_and_says_what_became_of_each_file(
    run: Run, output_root: Path
) -> None:
    result = run("organize", "batch", "--project", "anime")
    (head, *lines) = result.output.splitlines()
    assert result.exit_code == 0
    assert head == "Job batch in project anime: 4 moved, 0 already there."
    assert len(lines) == 4
    for line, name in zip(lines, BATCH, strict=True):
        path, size, origin = line.strip().split("  ")
        assert (output_root / path).read_bytes() == recording(name)
        assert path.startswith("projects/anime/batch/batch_")
        assert size == f"{len(recording(name)) / 1024:.1f} KB"
        assert origin == f"from {name}"


def test_organize_again_moves_nothing_and_says_so(run: Run, output_root: Path) -> None:
    run("organize", "batch")
    before = kept(output_root)
    result = run("organize", "batch")
    assert result.exit_code == 0
    assert "0 moved, 4 already there" in result.output
    assert kept(output_root) == before


def test_organize_takes_the_files_that_are_named_and_no_others(run: Run, output_root: Path) -> None:
    arguments = ["--file", BATCH[2], "--file", "ep01/key_00001_.png", "--file", "gone.png"]
    result = run("organize", "job_9", *arguments, "--prompt-id", "run-1", "--json")
    answer = answer_of(result)
    assert result.exit_code == 0
    assert [
        (record["original_path"], record["prompt_id"], record["evidence"])
        for record in answer["organized_files"]
    ] == [(BATCH[2], "run-1", "files"), ("ep01/key_00001_.png", "run-1", "files")]
    assert answer["skipped"] == [{"path": "gone.png", "reason": "not_found", "bytes": 0}]
    assert_reconciles(answer)
    assert (output_root / BATCH[0]).exists()
    assert "  skipped gone.png: not_found\n" in run("organize", "x", "--file", "gone.png").output


@pytest.mark.parametrize("command", ["job", "project", "status"])
def test_each_command_says_as_json_what_the_python_api_says(
    run: Run, output_root: Path, command: str
) -> None:
    organized = answer_of(run("organize", "batch", "--json"))
    assert organized["moved"] == tally(4, BATCH_BYTES)
    arguments = {"job": ["batch"], "project": ["default"], "status": []}[command]
    result = run(command, *arguments, "--json")
    answer = answer_of(result)
    assert result.exit_code == 0
    if command == "status":
        assert (answer["total_files"], answer["total_size"]) == (4, BATCH_BYTES)
        assert answer["health"] == {"state": "ok", "messages": []}
    else:
        assert answer["files"] == organized["organized_files"]
        assert answer["total_size"] == BATCH_BYTES
    assert (output_root / organized["organized_files"][0]["path"]).is_file()


def test_job_shows_a_job_and_why_it_has_no_files(run: Run) -> None:
    run("organize", "batch")
    shown = run("job", "batch")
    assert shown.output.splitlines()[0] == "Job batch in project default: 4 files, 14.6 KB."
    run("organize", "lost", "--file", "lost.png")
    shown = run("job", "lost")
    assert (shown.exit_code, "0 files, 0 bytes" in shown.output) == (0, True)
    assert "not_found" in shown.output


def test_project_shows_its_jobs(run: Run) -> None:
    run("organize", "batch", "--project", "anime")
    run("organize", "mix", "--project", "anime")
    result = run("project", "anime")
    head, first, second = result.output.splitlines()
    assert result.exit_code == 0
    assert head == f"Project anime: 2 jobs, 5 files, {(BATCH_BYTES + 3629) / 1024:.1f} KB."
    assert first.split() == ["batch", "4", "files,", "14.6", "KB,", first.split()[-1]]
    assert second.split()[:2] == ["mix", "1"]


def test_status_shows_the_library_in_numbers(run: Run) -> None:
    run("organize", "batch")
    run("organize", "AnimateDiff")
    result = run("status")
    assert result.exit_code == 0
    for line in ("State    ok", "Files    9 (", "6 image", "3 video", "2 in 1 projects, 0 pending"):
        assert line in result.output
    assert "free of" in result.output


def test_status_of_a_library_that_cannot_be_used_says_why_and_ends_with_5(
    run_in: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_in(output_dir=tmp_path / "not" / "mounted")
    result = run("status")
    assert result.exit_code == 5
    assert "State    unavailable" in result.output
    assert "does not exist" in result.output
    as_json = run("status", "--json")
    assert (as_json.exit_code, answer_of(as_json)["health"]["state"]) == (5, "unavailable")


def test_retry_organizes_what_is_pending(
    run: Run, output_root: Path, run_in: Callable[..., Run]
) -> None:
    assert run("retry").output == "No job is pending.\n"
    with FileManager(output_root) as manager, (output_root / BATCH[1]).open("ab"):
        manager.complete_job("batch", "anime")
        waiting = run("retry")
        assert waiting.exit_code == 1
        assert waiting.output == "batch: still pending: still_being_written\n"
        assert answer_of(run("retry", "--json"))["still_pending"][0]["job_id"] == "batch"
        assert "1 pending" in run("status").output
    done = run_in()("retry", "--json")
    answer = answer_of(done)
    assert done.exit_code == 0
    assert [(report["job_id"], report["file_count"]) for report in answer["organized"]] == [
        ("batch", 4)
    ]
    assert (answer["still_pending"], answer["given_up"]) == ([], [])
    assert run("retry").output == "No job is pending.\n"


def test_organize_with_a_file_that_failed_ends_with_1_and_names_it(
    run: Run, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksum = durable.checksum

    def fail_at_the_second(descriptor: int) -> str:
        if os.fstat(descriptor).st_ino == second:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return checksum(descriptor)

    second = (output_root / BATCH[1]).stat().st_ino
    monkeypatch.setattr(durable, "checksum", fail_at_the_second)
    result = run("organize", "batch")
    assert result.exit_code == 1
    assert "3 moved" in result.output
    assert f"  failed  {BATCH[1]}: Input/output error" in result.output
    assert (output_root / BATCH[1]).read_bytes() == recording(BATCH[1])
    again = run("organize", "batch", "--json")
    assert again.exit_code == 1
    assert_reconciles(answer_of(again))


def test_a_folder_that_cannot_be_made_ends_with_5_and_moves_nothing(
    run: Run, make_tree: MakeTree, output_root: Path
) -> None:
    make_tree({"projects/blocked": b"a file where a folder has to be"})
    before = outputs(output_root)
    result = run("organize", "batch", "--project", "blocked")
    assert result.exit_code == 5
    assert "projects/blocked" in result.output
    assert outputs(output_root) == before


REFUSED = {
    "no-id": ["organize", "../batch"],
    "an-empty-id": ["organize", ""],
    "no-project-id": ["organize", "batch", "--project", "a/b"],
    "an-empty-project-id": ["organize", "batch", "--project", ""],
    "no-prompt-id": ["organize", "batch", "--prompt-id", ""],
    "an-absolute-file": ["organize", "batch", "--file", "/etc/passwd"],
    "a-file-outside": ["organize", "batch", "--file", "../x.png"],
    "an-empty-file": ["organize", "batch", "--file", ""],
    "an-unknown-job": ["job", "nobody"],
    "an-impossible-job": ["job", ".."],
    "an-unknown-project": ["project", "nothing"],
    "an-impossible-project": ["project", "a b"],
    "a-job-of-another-project": ["organize", "mix", "--project", "second"],
    "a-job-in-another-case": ["organize", "MIX"],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_ends_with_3_and_changes_nothing(
    run: Run, output_root: Path, arguments: list[str]
) -> None:
    run("organize", "mix", "--project", "first")
    before = kept(output_root)
    for options in ([], ["--json"]):
        result = run(*arguments, *options)
        assert result.exit_code == 3
        assert result.output.startswith("Error: ")
        assert len(result.output.splitlines()) == 1
    assert kept(output_root) == before


def test_a_library_that_somebody_else_is_changing_ends_with_4(
    run_in: Callable[..., Run], output_root: Path
) -> None:
    run = run_in(lock_timeout=0.05)
    run("organize", "mix")
    before = kept(output_root)
    with lock_held_elsewhere(output_root):
        result = run("organize", "batch")
        assert (result.exit_code, result.output.startswith("Error: Another process")) == (4, True)
        assert run("job", "mix").exit_code == 0
    assert kept(output_root) == before


@pytest.mark.parametrize("arguments", [["organize", "batch"], ["job", "batch"], ["retry"]])
def test_a_missing_root_ends_with_5_and_advice(
    run_in: Callable[..., Run], tmp_path: Path, arguments: list[str]
) -> None:
    result = run_in(output_dir=tmp_path / "not" / "mounted")(*arguments)
    assert result.exit_code == 5
    assert "does not exist" in result.output
    assert "COMFY_FILES_OUTPUT_DIR" in result.output


def test_a_full_volume_ends_with_5(run_in: Callable[..., Run], output_root: Path) -> None:
    before = outputs(output_root)
    result = run_in(min_free_bytes=1024**6)("organize", "batch")
    assert (result.exit_code, "bytes are needed" in result.output) == (5, True)
    assert outputs(output_root) == before


def test_a_document_that_cannot_be_opened_ends_with_5_and_stays_as_it_is(
    run: Run, output_root: Path
) -> None:
    (output_root / DOCUMENT).symlink_to("nowhere")
    before = kept(output_root)
    for arguments in (["organize", "batch"], ["job", "batch"], ["status"]):
        result = run(*arguments)
        assert result.exit_code == 5
        assert DOCUMENT in result.output
    assert kept(output_root) == before


def test_a_damaged_document_is_kept_aside_and_status_says_so_until_somebody_has_seen_it(
    run: Run, output_root: Path
) -> None:
    (output_root / DOCUMENT).write_bytes(b"no JSON at all")
    assert run("organize", "batch").exit_code == 0
    assert f"{DOCUMENT}.damaged-" in run("status").output
    refused = run("adopt")
    assert (refused.exit_code, "--yes" in refused.output) == (2, True)
    adopted = run("adopt", "--yes")
    assert (adopted.exit_code, "4 files looked for, 0 of them missing" in adopted.output) == (
        0,
        True,
    )
    assert f"{DOCUMENT}.damaged-" not in run("status").output
    (aside,) = output_root.glob(f"{DOCUMENT}.damaged-*")
    assert aside.read_bytes() == b"no JSON at all"


def test_the_document_is_written_anew_and_a_files_history_is_told_all_the_same(
    run: Run, output_root: Path
) -> None:
    run("organize", "batch")
    run("delete", "batch", "--yes")
    run("restore", "batch")
    (first, *_) = json.loads(run("job", "batch", "--json").output)["files"]
    told = run("history", first["path"]).output
    assert [line.split()[1] for line in told.splitlines()[1:]] == [
        *("recorded", "deleted", "restored")
    ]
    compacted = json.loads(run("compact", "--json").output)
    assert compacted["bytes_after"] < compacted["bytes_before"]
    assert (output_root / compacted["kept_as"]).is_file()
    assert run("history", first["file_id"]).output == told
    assert "before" in run("compact").output
    assert run("history", "f" * 32).exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        *(["organize"], ["organize", "a", "b"], ["organize", "batch", "--colour", "red"]),
        *(["job"], ["project"], ["status", "batch"], ["retry", "batch"], ["tidy"]),
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


HOSTILE = "job_9_x\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\x7f\u202e\u2028\u200b_00001_.png"


def test_control_characters_of_names_never_reach_the_terminal(
    run: Run, make_tree: MakeTree, output_root: Path
) -> None:
    not_utf_8 = os.fsdecode(b"job_9_y\xff\xfe_00002_.png")
    link = f"job_9_z{HOSTILE}"
    make_tree({HOSTILE: recording(BATCH[0]), not_utf_8: recording(BATCH[1])})
    (output_root / link).symlink_to("nowhere")
    answers = [
        run("organize", "job_9"),
        run("job", "job_9"),
        run("organize", "job_9", "--json"),
        run("job", "job_9", "--json"),
        run("project", "default", "--json"),
        run("organize", "job_8", "--file", f"gone{HOSTILE}"),
        run("organize", "job_8", "--file", f"gone{HOSTILE}", "--json"),
        run("job", f"gone{HOSTILE}"),
        run("organize", "job_8", "--file", f"/{HOSTILE}"),
        run("organize", f"gone{HOSTILE}"),
        run("organize", "job_8", "--prompt-id", HOSTILE),
    ]
    assert "2 moved" in answers[0].output
    assert [answer.exit_code for answer in answers] == [0] * 7 + [3] * 4
    for answer in answers:
        shown = answer.output.replace("\n", "")
        assert shown.isprintable(), [sign for sign in shown if not sign.isprintable()]
        assert "owned" in answer.output
    assert "job_9_x\\x1b]0;owned\\x07\\x1b[2J\\r\\n\\x9b31m\\x7f\\u202e" in answers[0].output
    assert "job_9_y\\udcff\\udcfe_00002_.png" in answers[0].output
    names = [record["original_path"] for record in answer_of(answers[3])["files"]]
    assert sorted(names) == sorted([HOSTILE, not_utf_8])


def test_names_in_other_scripts_are_shown_as_they_are(run: Run) -> None:
    name = "アニメ/キャラ 01 – été_00001_.png"
    assert f"from {name}\n" in run("organize", "chara", "--file", name).output


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["organize", "job", "project", "status", "retry"]),
        ("organize", ["JOB_ID", "--project", "--prompt-id", "--file", "--json", "may be repeated"]),
        ("job", ["JOB_ID", "--json"]),
        ("project", ["PROJECT_ID", "--json"]),
        ("status", ["--json", "Exit code 5"]),
        ("retry", ["--json", "pending"]),
    ],
)
def test_help_says_what_a_command_does_and_takes(
    run: Run, output_root: Path, command: str, words: list[str]
) -> None:
    before = read_tree(output_root)
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    text = " ".join(result.output.split())
    assert [word for word in words if word not in text] == []
    assert read_tree(output_root) == before


def test_every_command_has_a_line_of_help(run: Run) -> None:
    lines = run("--help").output.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in lines} >= {"organize", "job", "project", "status", "retry"}
    assert all(len(line.split()) > 3 for line in lines)


@pytest.fixture
def in_a_shell(
    output_root: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Return what runs ``flask files`` as a person does, in a process of its own."""
    module = tmp_path / "studio.py"
    module.write_text(
        "from flask import Flask\n"
        "from flask_comfy_files import add_file_manager_routes\n"
        "app = Flask(__name__)\n"
        "add_file_manager_routes(app)\n"
    )

    def run(*arguments: str | bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "studio", "files", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COMFY_FILES_OUTPUT_DIR": str(output_root), **environ},
            capture_output=True,
            check=False,
            timeout=60,
        )

    return run


def test_in_a_shell_answers_and_errors_have_streams_and_codes_of_their_own(
    in_a_shell: Callable[..., subprocess.CompletedProcess[bytes]], output_root: Path
) -> None:
    done = in_a_shell("organize", "batch", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["file_count"] == 4
    assert not (output_root / BATCH[0]).exists()
    refused = in_a_shell("job", "nobody")
    assert (refused.returncode, refused.stdout) == (3, b"")
    assert b"Error: No job 'nobody' is known." in refused.stderr


def test_in_a_shell_names_are_shown_whatever_the_terminal_can_show(
    in_a_shell: Callable[..., subprocess.CompletedProcess[bytes]], output_root: Path
) -> None:
    shutil.copyfile(
        output_root / BATCH[0], os.fsencode(output_root) + b"/job_9_x\xe9\xff_00001_.png"
    )
    name = "アニメ/キャラ 01 – été_00001_.png"
    result = in_a_shell("organize", "chara", "--file", name, PYTHONIOENCODING="latin-1")
    assert result.returncode == 0, result.stderr
    assert "\\u30a2\\u30cb\\u30e1/" in result.stdout.decode("latin-1")
    assert "01 \\u2013 été_00001_.png" in result.stdout.decode("latin-1")
    arguments = ["organize", "job_9", "--file", b"job_9_x\xe9\xff_00001_.png"]
    result = in_a_shell(*arguments)
    assert result.returncode == 0, result.stderr
    assert b"from job_9_x\\udce9\\udcff_00001_.png" in result.stdout
