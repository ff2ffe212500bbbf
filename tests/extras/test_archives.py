from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_comfy_files import FileManager, add_file_manager_routes
from flask_comfy_files.core.archiving import archive_of
from flask_comfy_files.core.errors import (
    ArchiveBrokenOffError,
    JobNotFoundError,
    JobTrashedError,
)
from flask_comfy_files.core.records import FileRecord, file_to_stored
from tests.conftest import MakeTree, OpenManager
from tests.trees import AN_HOUR_AGO, BATCH, NOW, Link, recording, set_modified


def archived(manager: FileManager, job_id: str) -> bytes:
    """Return a job's archive, which has the size that was announced."""
    archive = manager.stream_archive(job_id)
    content = b"".join(archive)
    assert len(content) == archive.size
    return content


def unzipped(archive: bytes) -> dict[str, bytes]:
    """Return what `unzip` finds in an archive, after it has tested it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        return {name: entries.read(name) for name in entries.namelist()}


def first_file(manager: FileManager, job_id: str = "batch") -> Path:
    return Path(manager.get_job_files(job_id).files[0].file_path)


@pytest.fixture
def batch(manager: FileManager) -> tuple[FileRecord, ...]:
    """Return the files of a job of four images."""
    return manager.organize_output("batch", "tokyo").organized_files


def test_an_archive_holds_every_file_of_a_job_under_its_own_name_and_says_what_each_is(
    manager: FileManager, batch: tuple[FileRecord, ...]
) -> None:
    manager.update_job("batch", tags=["hero"])
    entries = unzipped(archived(manager, "batch"))
    manifest = json.loads(entries.pop("manifest.json"))
    assert entries == {
        record.path.rpartition("/")[2]: recording(record.original_path) for record in batch
    }
    files = manifest.pop("files")
    job = manager.get_job_files("batch")
    assert manifest == {
        "job_id": "batch",
        "project_id": "tokyo",
        "created_at": job.created_at,
        "file_count": 4,
        "total_size": job.total_size,
        "pinned": False,
        "tags": ["hero"],
    }
    assert files == [
        {"name": record.path.rpartition("/")[2], **file_to_stored(record)} for record in batch
    ]
    for file in files:
        assert file["checksum"] == hashlib.sha256(entries[file["name"]]).hexdigest()
        assert "file_path" not in file, "a place of the server"


@pytest.mark.usefixtures("batch")
def test_an_archive_has_the_name_of_its_job_and_stores_files_with_their_times(
    manager: FileManager,
) -> None:
    assert manager.stream_archive("batch").name == "batch.zip"
    with zipfile.ZipFile(io.BytesIO(archived(manager, "batch"))) as entries:
        of_files = [entry for entry in entries.infolist() if entry.filename != "manifest.json"]
    local = datetime.fromtimestamp(AN_HOUR_AGO.timestamp()).timetuple()[:5]  # noqa: DTZ006 - ZIP has it so
    assert [entry.date_time[:5] for entry in of_files] == [local] * 4
    assert {entry.compress_type for entry in of_files} == {zipfile.ZIP_STORED}


def test_a_job_without_files_has_an_archive_of_its_manifest(manager: FileManager) -> None:
    report = manager.organize_output("nothing")
    assert report.file_count == 0
    entries = unzipped(archived(manager, "nothing"))
    assert list(entries) == ["manifest.json"]
    assert json.loads(entries["manifest.json"])["files"] == []


def test_an_empty_file_is_in_the_archive(make_tree: MakeTree, open_manager: OpenManager) -> None:
    long_ago = NOW - timedelta(days=3)  # else it is taken for one that is still being written
    manager = open_manager(make_tree({"job_1_a.txt": b"", "job_1_b.txt": b"words"}, long_ago))
    manager.organize_output("job_1")
    entries = unzipped(archived(manager, "job_1"))
    del entries["manifest.json"]
    assert sorted(entries.values()) == [b"", b"words"]


@pytest.mark.usefixtures("batch")
def test_a_file_that_is_known_to_be_missing_is_in_the_manifest_alone(manager: FileManager) -> None:
    first_file(manager).unlink()
    manager.repair_files([asdict(finding) for finding in manager.verify_files().findings])
    assert manager.get_job_files("batch").files[0].missing
    entries = unzipped(archived(manager, "batch"))
    assert len(entries) == 4
    files = json.loads(entries["manifest.json"])["files"]
    assert [file["name"] in entries for file in files] == [False, True, True, True]


@pytest.mark.usefixtures("batch")
def test_the_archive_of_an_unknown_or_deleted_job_is_not_found_before_it_begins(
    manager: FileManager,
) -> None:
    with pytest.raises(JobNotFoundError):
        manager.stream_archive("unknown")
    manager.delete_job_files("batch")
    with pytest.raises(JobTrashedError):
        manager.stream_archive("batch")


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_link(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.with_name("elsewhere").write_bytes(content)
    path.symlink_to("elsewhere")


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


CHANGES: dict[str, Callable[[Path], None]] = {
    "vanished": os.unlink,
    "shorter": lambda path: os.truncate(path, 100),
    "longer": lengthen,
    "another byte": change_a_byte,
    "a link": replace_by_a_link,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.usefixtures("batch")
def test_an_archive_is_broken_off_where_a_file_is_not_what_its_record_says(
    manager: FileManager, change: str
) -> None:
    path = Path(manager.get_job_files("batch").files[1].file_path)
    archive = manager.stream_archive("batch")
    CHANGES[change](path)
    sent: list[bytes] = []
    with pytest.raises(ArchiveBrokenOffError, match=path.name) as refused:
        sent.extend(archive)
    assert str(path.parent.parent) not in str(refused.value)
    content = b"".join(sent)
    assert archive.size is not None
    assert recording(BATCH[0]) in content
    assert len(content) < archive.size
    is_sent = recording(BATCH[1])[1000:1100] in content
    assert is_sent == (change == "another byte"), "what has another size is not even begun"
    with pytest.raises(zipfile.BadZipFile):
        unzipped(content)


@pytest.mark.usefixtures("batch")
def test_a_file_that_grows_while_it_is_read_breaks_the_archive_off(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    manager = open_manager(make_tree({"big_00001.txt": bytes(3_000_000)}))
    manager.organize_output("big")
    archive = manager.stream_archive("big")
    content = archive.content
    read = 0
    while read < 100_000:
        read += len(next(content))
    lengthen(first_file(manager, "big"))
    with pytest.raises(ArchiveBrokenOffError):
        list(content)


@pytest.mark.usefixtures("batch")
def test_nothing_is_opened_before_its_turn_and_nothing_stays_open_when_the_client_goes(
    manager: FileManager,
) -> None:
    """What is left open, a fixture of all tests tells."""
    archive = manager.stream_archive("batch")
    assert archived_files_open(manager) == []
    content = archive.content
    while not archived_files_open(manager):
        next(content)
    assert set(archived_files_open(manager)) == {str(first_file(manager))}
    assert isinstance(content, Iterator)
    content.close()  # type: ignore[attr-defined]
    assert archived_files_open(manager) == []


def archived_files_open(manager: FileManager) -> list[str]:
    below = f"{manager.settings.output_dir}/projects/"
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    targets = [os.readlink(link) for link in links if os.path.islink(link)]  # noqa: PTH114, PTH115
    return [target for target in targets if target.startswith(below) and Path(target).is_file()]


def test_files_of_one_name_get_names_of_their_own_also_where_case_does_not_count(
    manager: FileManager, batch: tuple[FileRecord, ...], make_tree: MakeTree
) -> None:
    paths = ["a/shot.png", "b/Shot.png", "b/shot_2.png", "c/manifest.json"]
    root = make_tree({path: recording(name) for path, name in zip(paths, BATCH, strict=True)})
    records = [replace(record, path=path) for record, path in zip(batch, paths, strict=True)]
    job = replace(manager.get_job_files("batch"), files=tuple(records))
    entries = unzipped(b"".join(archive_of(str(root), job)))
    assert list(entries) == [
        *("manifest.json", "shot.png", "Shot_2.png", "shot_2_2.png", "manifest_2.json")
    ]
    assert entries["Shot_2.png"] == recording(BATCH[1])


def test_a_size_that_would_be_wrong_is_not_announced(
    manager: FileManager, batch: tuple[FileRecord, ...]
) -> None:
    job = manager.get_job_files("batch")
    records = [replace(batch[0], path=f"{number}.png") for number in range(65_534)]
    assert archive_of("", replace(job, files=tuple(records))).size is None


MEASURE = """
import resource, sys
from flask_comfy_files import FileManager
with FileManager(sys.argv[1]) as manager:
    manager.get_job_files("huge")
    archive = manager.stream_archive("huge")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = sum(map(len, archive))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(sent == archive.size, sent, after - before)
"""


@pytest.mark.slow
def test_an_archive_of_gigabytes_takes_no_more_memory_than_a_small_one(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    size = 2 * 1024**3 + 1  # from there on a ZIP archive needs larger fields (ZIP64)
    root = make_tree({})
    for number in (1, 2):
        path = root / f"huge_0000{number}.bin"
        with path.open("wb") as file:
            file.truncate(size if number == 1 else 1)
        set_modified(path, AN_HOUR_AGO)
    assert open_manager(root).organize_output("huge").file_count == 2
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path.cwd(),
    )
    is_as_announced, sent, grown_kb = measured.stdout.split()
    assert is_as_announced == "True"
    assert int(sent) > size
    assert int(grown_kb) < 8 * 1024


# The command


@pytest.fixture
def run(
    manager: FileManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlaskCliRunner]:
    """Return what runs the command, in an empty folder."""
    app = Flask("studio")
    add_file_manager_routes(app, output_dir=manager.settings.output_dir)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield app.test_cli_runner()
    app.extensions["comfy_files"].close()


@pytest.mark.usefixtures("batch")
def test_the_command_writes_an_archive_and_never_over_a_file(
    run: FlaskCliRunner, manager: FileManager
) -> None:
    result = run.invoke(args=["files", "archive", "batch"])
    assert (result.exit_code, result.output) == (
        0,
        f"Wrote batch.zip ({Path('batch.zip').stat().st_size / 1024:.1f} KB).\n",
    )
    assert unzipped(Path("batch.zip").read_bytes()) == unzipped(archived(manager, "batch"))
    before = Path("batch.zip").read_bytes()
    again = run.invoke(args=["files", "archive", "batch"])
    assert (again.exit_code, "is there already" in again.output) == (3, True)
    assert Path("batch.zip").read_bytes() == before
    named = run.invoke(args=["files", "archive", "batch", "-o", "other.zip"])
    assert named.exit_code == 0
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["batch.zip", "other.zip"]


@pytest.mark.usefixtures("batch")
def test_the_command_writes_to_standard_output(run: FlaskCliRunner) -> None:
    result = run.invoke(args=["files", "archive", "batch", "-o", "-"])
    assert result.exit_code == 0
    assert len(unzipped(result.stdout_bytes)) == 5


@pytest.mark.usefixtures("batch")
def test_the_command_leaves_nothing_where_the_archive_is_broken_off(
    run: FlaskCliRunner, manager: FileManager
) -> None:
    change_a_byte(first_file(manager))
    result = run.invoke(args=["files", "archive", "batch"])
    assert (result.exit_code, "was broken off at" in result.output) == (5, True)
    assert list(Path.cwd().iterdir()) == []
    assert run.invoke(args=["files", "archive", "unknown"]).exit_code == 3


def test_a_link_to_a_folder_elsewhere_breaks_an_archive_off(
    manager: FileManager, batch: tuple[FileRecord, ...], make_tree: MakeTree
) -> None:
    folder = Path(batch[0].file_path).parent
    moved = folder.with_name("moved")
    folder.rename(moved)
    make_tree({str(folder.relative_to(manager.settings.output_dir)): Link(str(moved))})
    with pytest.raises(ArchiveBrokenOffError):
        list(manager.stream_archive("batch"))
