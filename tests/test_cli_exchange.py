"""The commands that write every record out and take records in: what they say, and how they end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_comfy_files import add_file_manager_routes
from tests.conftest import MakeTree
from tests.test_cli_keeping import Shell
from tests.trees import BATCH, library, recording

Run = Callable[..., Result]
RunIn = Callable[..., Run]


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    return make_tree({name: recording(name) for name in BATCH})


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
    """Return what runs ``flask files`` on a library with one job."""
    run = run_in()
    assert run("organize", "batch", "--project", "tokyo").exit_code == 0
    return run


def test_export_writes_json_that_names_every_file(run: Run) -> None:
    job = json.loads(run("job", "batch", "--json").stdout)
    records = json.loads(run("export").stdout)
    assert records == [{**record, "pinned": False, "tags": []} for record in job["files"]]


def test_export_writes_csv(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("export", "--format", "csv").stdout, newline="")))
    assert [row["original_path"] for row in rows] == BATCH


def test_export_leaves_paths_of_the_server_out_where_the_host_hides_them(
    run: Run, run_in: RunIn
) -> None:
    shown, hidden = run("export"), run_in(show_paths=False)("export")
    assert "file_path" in shown.stdout
    assert "file_path" not in hidden.stdout


def test_export_keeps_a_file_that_is_there_unless_forced(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "backup.json"
    target.write_text("mine")
    refused = run("export", "--output", str(target))
    assert (refused.exit_code, target.read_text()) == (3, "mine")
    assert refused.stderr == f"Error: output: '{target}' is there already, and is kept.\n"
    done = run("export", "--output", str(target), "--force")
    assert (done.exit_code, done.output) == (0, "")
    assert target.read_text() == run("export").stdout


def test_export_ends_without_a_word_when_nobody_reads_on(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    root = make_tree({f"x_{n}.txt": b"%d" % n for n in range(200)})
    shell = Shell(root, tmp_path)
    assert shell.run("migrate")[0] == 0
    program = shlex.join([sys.executable, "-m", "flask", "--app", "studio", "files", "export"])
    done = subprocess.run(
        ["sh", "-c", f"{program} | head -n 1"],
        cwd=tmp_path,
        env={**shell._environ},  # noqa: SLF001 - a pipe is what it does not offer
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (b"[\n", b"")


@pytest.fixture
def backup(run: Run, tmp_path: Path) -> Path:
    """Return an export of the library, whose document is gone since."""
    target = tmp_path / "backup.json"
    assert run("export", "--output", str(target)).exit_code == 0
    return target


@pytest.fixture
def bare(backup: Path, output_root: Path, tmp_path: Path) -> Path:
    """Return an output folder with the files of the export, and one file less."""
    assert backup.is_file()
    bare = tmp_path / "bare"
    shutil.copytree(output_root / "projects", bare / "projects")
    min(bare.rglob("*.png")).unlink()
    return bare


def test_import_says_what_became_of_each_record(run_in: RunIn, backup: Path, bare: Path) -> None:
    run = run_in(output_dir=bare)
    missing = min(record["path"] for record in json.loads(backup.read_text()))
    size = f"{sum(path.stat().st_size for path in bare.rglob('*.png')) / 1024:.1f} KB in all."
    rest = (
        "3 stay where they are, 0 moved, 0 to legacy/; 0 already there, 1 skipped, 0 failed; "
        + size
    )
    skipped = f"  skipped {missing}: not_found"
    told = run("import", str(backup), "--dry-run")
    assert told.output.splitlines() == [f"Would import 3 of 4 files into 1 jobs: {rest}", skipped]
    did = run("import", str(backup))
    assert (did.exit_code, did.output.splitlines()) == (
        0,
        [f"Imported 3 of 4 files into 1 jobs: {rest}", skipped],
    )
    again = json.loads(run("import", str(backup), "--json").stdout)
    assert again["already_there"]["files"] == 3
    assert (again["dry_run"], again["document"]) == (False, None)


def test_import_of_a_changed_file_says_so(run_in: RunIn, backup: Path, bare: Path) -> None:
    path = max(bare.rglob("*.png"))
    path.write_bytes(path.read_bytes() + b"\n")
    result = run_in(output_dir=bare)("import", str(backup))
    name = path.relative_to(bare)
    assert f"  changed {name}: not as its record says" in result.output.splitlines()


def test_import_ends_with_1_if_a_file_failed(run_in: RunIn, backup: Path, bare: Path) -> None:
    records = json.loads(backup.read_text())
    lost = bare / "lost.png"
    max(bare.rglob("*.png")).rename(lost)
    (bare / "projects/osaka").write_bytes(b"no folder")
    backup.write_text(
        json.dumps([{**records[-1], "path": "lost.png", "job_id": "a", "project_id": "osaka"}])
    )
    result = run_in(output_dir=bare)("import", str(backup))
    assert (result.exit_code, result.output.count("  failed  lost.png: ")) == (1, 1)
    assert lost.is_file()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("17", "17 is neither an array nor an object of records"),
        ('[{"a": 1}]', "holds no record of a file"),
        ('{"format": 1, "changes": []}', "is a document of this library"),
        (None, "cannot be read: "),
    ],
    ids=["no JSON", "number", "no record", "our document", "missing"],
)
def test_import_of_what_is_no_list_is_refused(
    run: Run, tmp_path: Path, output_root: Path, content: str | None, said: str
) -> None:
    source = tmp_path / "list.json"
    if content is not None:
        source.write_text(content)
    before = library(output_root)
    result = run("import", str(source))
    assert (result.exit_code, said in result.stderr) == (3, True), result.output
    assert library(output_root) == before


def test_a_library_of_an_older_installation_starts_with_an_import(
    run_in: RunIn, backup: Path, bare: Path
) -> None:
    older = backup.read_bytes()
    (bare / "file_metadata.json").write_bytes(older)
    run = run_in(output_dir=bare)
    for refused in (run("job", "batch"), run("export"), run("migrate"), run("organize", "batch")):
        assert refused.exit_code == 5
        assert "is of an older installation: run `flask files import`" in refused.stderr
    assert "run `flask files import`" in run("status").output
    assert (bare / "file_metadata.json").read_bytes() == older
    told = run("import", "--dry-run")
    assert told.output.startswith("Would import 3 of 4 files into 1 jobs")
    did = run("import")
    assert did.exit_code == 0
    kept = re.search(r"^  the list is kept as (\S+)$", did.output, re.MULTILINE)
    assert kept is not None
    assert (bare / kept[1]).read_bytes() == older
    assert len(json.loads(run("job", "batch", "--json").stdout)["files"]) == 3
    assert json.loads(run("status", "--json").stdout)["health"]["state"] == "ok"


def test_over_http_a_library_of_an_older_installation_is_unavailable(
    backup: Path, bare: Path
) -> None:
    (bare / "file_metadata.json").write_bytes(backup.read_bytes())
    host = Flask("host")
    add_file_manager_routes(host, output_dir=bare)
    client = host.test_client()
    answer = client.get("/api/files/jobs/batch")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "older_installation")
    completed = client.post("/api/jobs/batch/complete", json={})
    assert completed.status_code == 200
    assert "older installation" in completed.get_json()["organize_error"]
    health = client.get("/api/files/status").get_json()["health"]
    assert health["state"] == "unavailable"
    host.extensions["comfy_files"].close()
