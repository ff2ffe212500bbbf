"""The commands that verify and repair: what they say, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from tests.conftest import MakeTree
from tests.core.test_migration import image
from tests.test_cli_keeping import Shell
from tests.test_cli_migration import Run, RunIn, answer_of, run, run_in, said
from tests.trees import Tree, library, write_tree

__all__ = ["run", "run_in"]

TREE: Tree = {f"shot_0000{number}_.png": image(str(number)) for number in (1, 2, 3)}


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return a library of one job."""
    root = make_tree(TREE)
    with FileManager(root) as manager:
        manager.organize_output("shot", "pilot")
    return root


@pytest.fixture
def paths(output_root: Path) -> list[str]:
    """Return where the files of the job lie."""
    with FileManager(output_root) as manager:
        return [record.path for record in manager.get_job_files("shot")]


@pytest.fixture
def spoiled(output_root: Path, paths: list[str]) -> Path:
    """Return the library with something wrong of three kinds."""
    (output_root / paths[0]).unlink()
    write_tree(output_root, {paths[1]: b"x", "projects/pilot/shot/\x1b[2J.png": image("s")})
    return output_root


def test_a_sound_library_ends_with_0(run: Run, output_root: Path) -> None:
    before = library(output_root)
    size = sum(path.stat().st_size for path in (output_root / "projects").rglob("*.png"))
    assert said(run("verify")) == [f"Verified 3 files, {size} bytes: 0 findings, 0 failed."]
    answer = answer_of(run("verify", "--json", "--read-bytes"))
    assert (answer["findings"], answer["is_complete"]) == ([], True)
    assert library(output_root) == before


def test_findings_are_shown_by_kind_without_obeying_names_and_end_with_1(
    run: Run, spoiled: Path, paths: list[str]
) -> None:
    lines = said(run("verify"), 1)
    assert lines[0].endswith(": 3 findings, 0 failed.")
    assert lines[1:] == [
        "missing: 1",
        f"  {paths[0]}: it is not there: not_found",
        "changed: 1",
        f"  {paths[1]}: it has 1 bytes, and was recorded with {len(image('2'))}",
        "untracked: 1",
        "  projects/pilot/shot/\\x1b[2J.png: no record names it",
    ]
    answer = answer_of(run("verify", "--json"), 1)
    assert [finding["kind"] for finding in answer["findings"]].count("missing") == 1
    assert spoiled.is_dir()


def test_without_time_a_cursor_is_printed_by_which_it_goes_on(run: Run, spoiled: Path) -> None:
    assert spoiled.is_dir()
    lines = said(run("verify", "--max-seconds", "1e-9"))
    assert lines[-1].startswith("Not finished; go on with --cursor ")
    found: list[str] = []
    cursor = lines[-1].rpartition(" ")[2]
    for _ in range(20):
        result = run("verify", "--json", "--max-seconds", "1e-9", "--cursor", cursor)
        answer = answer_of(result, result.exit_code)
        assert (result.exit_code == 1) == bool(answer["findings"])
        found += [finding["kind"] for finding in answer["findings"]]
        if answer["is_complete"]:
            break
        cursor = answer["cursor"]
    assert sorted(found) == ["changed", "missing", "untracked"]


def test_kinds_are_rehearsed_and_repaired(run: Run, spoiled: Path, paths: list[str]) -> None:
    before = library(spoiled)
    chosen = ("--kind", "missing", "--kind", "changed")
    done = [
        f"  missing {paths[0]}: recorded as missing",
        f"  changed {paths[1]}: its size, time and checksum are recorded anew",
    ]
    assert said(run("repair", *chosen, "--dry-run")) == [
        "Would repair 2 of 2 findings; 0 skipped, 0 failed.",
        *done,
    ]
    assert library(spoiled) == before
    assert said(run("repair", *chosen)) == ["Repaired 2 of 2 findings; 0 skipped, 0 failed.", *done]
    answer = answer_of(run("repair", "--kind", "untracked", "--json"))
    assert [entry["kind"] for entry in answer["repaired"]] == ["untracked"]
    left = answer_of(run("verify", "--json"), 1)["findings"]
    assert [finding["detail"] for finding in left] == ["it is not there: not_found, as recorded"]
    assert said(run("repair", "--kind", "wrong_owner")) == [
        "Repaired 0 of 0 findings; 0 skipped, 0 failed."
    ]


def test_findings_come_from_a_file_and_what_is_stale_ends_with_1(
    run: Run, spoiled: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(run("verify", "--json").stdout)
    one = answer_of(run("repair", "--findings", str(report), "--kind", "changed", "--json"))
    assert [entry["kind"] for entry in one["repaired"]] == ["changed"]
    lines = said(run("repair", "--findings", str(report)), 1)
    assert lines[0] == "Repaired 2 of 3 findings; 1 skipped, 0 failed."
    assert lines[-1].startswith("  skipped projects/pilot/shot/")
    assert lines[-1].endswith(": stale")
    assert len(list((spoiled / "projects/pilot/shot").iterdir())) == 3


def test_findings_may_come_by_a_pipe(run: Run, spoiled: Path) -> None:
    assert spoiled.is_dir()
    findings = answer_of(run("verify", "--json"), 1)["findings"]
    answer = answer_of(run("repair", "--findings", "-", "--json", input=json.dumps(findings)))
    assert len(answer["repaired"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "--max-seconds", "0"], 2),
        (["verify", "--max-seconds", "soon"], 2),
        (["verify", "--max-seconds", "nan"], 3),
        (["verify", "--cursor", "x"], 3),
        (["repair"], 2),
        (["repair", "--kind", "lost"], 2),
        (["repair", "--findings", "nowhere.json"], 2),
        (["repair", "--findings", "-"], 3),
    ],
)
def test_wrong_usage_ends_with_2_and_what_is_refused_with_3(
    run: Run, output_root: Path, arguments: list[str], code: int
) -> None:
    before = library(output_root)
    said(run(*arguments, input="{"), code)
    assert library(output_root) == before


def test_a_library_that_cannot_be_used_ends_with_5(run_in: RunIn, tmp_path: Path) -> None:
    run = run_in(output_dir=tmp_path / "nowhere")
    assert said(run("verify"), 5)
    assert said(run("repair", "--kind", "missing"), 5)


def test_progress_is_shown_on_a_terminal_alone(output_root: Path, tmp_path: Path) -> None:
    shell = Shell(output_root, tmp_path)
    code, out, seen = shell.type("", "verify")
    assert (code, out.splitlines()[0].partition(" files")[0]) == (0, "Verified 3")
    assert "Verifying" in seen
    assert "3/3" in seen
    assert shell.type("", "verify", "--quiet")[2] == ""
