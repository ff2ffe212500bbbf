from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager, FileManagerAPI
from flask_comfy_files.core import exporting
from flask_comfy_files.core.errors import (
    DocumentDamagedError,
    InvalidInputError,
    LibraryUnavailableError,
    StorageError,
)
from flask_comfy_files.core.exporting import ExportFormat
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.records import file_to_dict
from flask_comfy_files.core.saving import Existing, save
from tests.conftest import MakeTree, OpenManager
from tests.trees import BATCH, recording

HOSTILE = os.fsdecode(b'=cmd|"x"\xff\n.png')


@pytest.fixture
def manager(make_tree: MakeTree, open_manager: OpenManager) -> FileManager:
    """Return a library of two jobs and a file that is nobody's."""
    names = [*BATCH, "mix_00001_.png"]
    manager = open_manager(
        make_tree({**{name: recording(name) for name in names}, HOSTILE: recording(BATCH[0])})
    )
    manager.organize_output("batch", "tokyo")
    manager.organize_output("mix", "osaka")
    manager.update_job("batch", pinned=True, tags=["hero, wide", "=sum"])
    manager.migrate_legacy_files()
    return manager


def written(manager: FileManager, export_format: ExportFormat) -> str:
    lines = exporting.lines_of(manager.export_records(), export_format)
    return b"".join(lines).decode("utf-8")


def test_an_export_holds_every_record_with_what_people_said_of_its_job(
    manager: FileManager,
) -> None:
    files = [
        *manager.get_job_files("batch"),
        *manager.get_job_files("mix"),
        *manager.get_legacy_files(),
    ]
    unmarked: dict[str, Any] = {"pinned": False, "tags": []}
    marked = {"pinned": True, "tags": ["=sum", "hero, wide"]}
    assert list(manager.export_records()) == [
        file_to_dict(record) | (marked if record.job_id == "batch" else unmarked)
        for record in files
    ]
    assert len(files) == 6


def test_json_is_an_array_with_one_record_a_line(manager: FileManager) -> None:
    text = written(manager, ExportFormat.JSON)
    first, *lines, last, end = text.split("\n")
    assert (first, last, end) == ("[", "]", "")
    records = list(manager.export_records())
    assert [json.loads(line.removesuffix(",")) for line in lines] == records
    assert json.loads(text) == records


def test_the_export_of_an_empty_library_is_an_empty_array(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(tmp_path)
    assert json.loads(written(manager, ExportFormat.JSON)) == []
    assert written(manager, ExportFormat.CSV).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_csv_has_a_column_for_each_key_and_nothing_that_a_spreadsheet_would_run(
    manager: FileManager,
) -> None:
    manager.update_job("mix", tags=["x"])
    text = written(manager, ExportFormat.CSV)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    records = list(manager.export_records())
    assert list(rows[0]) == list(exporting.COLUMNS)
    assert {key for record in records for key in record} <= set(rows[0])
    for row, record in zip(rows, records, strict=True):
        assert row["checksum"] == record["checksum"]
        assert int(row["file_size"]) == record["file_size"]
        assert json.loads(row["tags"]) == record["tags"]
        assert row["pinned"] == str(record["pinned"]).lower()
    assert rows[-1]["original_path"] == "'" + HOSTILE.replace("\udcff", "\\udcff")
    assert rows[-1]["job_id"] == ""
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


def test_an_export_is_of_one_moment(manager: FileManager) -> None:
    before = list(manager.export_records())
    export = manager.export_records()
    first = next(export)
    manager.delete_job_files("mix")
    manager.update_job("batch", tags=[])
    assert [first, *export] == before
    assert len(list(manager.export_records())) == len(before) - 1


def test_an_export_needs_no_more_memory_for_more_records(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({f"x_{n}.txt": b"%d" % n for n in range(600)})
    manager = open_manager(root)
    manager.migrate_legacy_files()

    def peak(most: int) -> int:
        tracemalloc.start()
        for _ in islice(manager.export_records(), most):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(5)
    assert peak(600) < peak(5) + 50_000


def test_paths_of_the_server_are_left_out_where_the_host_hides_them(
    manager: FileManager, open_manager: OpenManager, make_tree: MakeTree
) -> None:
    root = make_tree({})
    shown = list(FileManagerAPI(manager).export_records_api())
    hidden = list(FileManagerAPI(open_manager(root, show_paths=False)).export_records_api())
    assert shown == list(manager.export_records())
    assert [{**record, "file_path": f"{root}/{record['path']}"} for record in hidden] == shown


def json_lines(manager: FileManager) -> Iterator[bytes]:
    return exporting.lines_of(manager.export_records(), ExportFormat.JSON)


def test_a_saved_export_is_whole_and_never_replaces_a_file_unless_asked(
    manager: FileManager, tmp_path: Path
) -> None:
    target = tmp_path / "backup.json"
    save(json_lines(manager), str(target), Existing.KEEP)
    saved = target.read_text()
    assert json.loads(saved) == list(manager.export_records())
    manager.delete_job_files("mix")
    with pytest.raises(InvalidInputError, match="is there already"):
        save(json_lines(manager), str(target), Existing.KEEP)
    assert target.read_text() == saved
    save(json_lines(manager), str(target), Existing.REPLACE)
    assert len(json.loads(target.read_text())) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.json", "output"]


@pytest.mark.parametrize("existing", Existing)
def test_an_export_that_fails_leaves_what_was_there(
    manager: FileManager, tmp_path: Path, existing: Existing
) -> None:
    """A line that was edited is found in the middle of the export."""
    target = tmp_path / "backup.json"
    if existing is Existing.REPLACE:
        target.write_text("before")
    document = tmp_path / "output" / DOCUMENT
    raw = document.read_bytes()
    at = raw.index(b'"osaka"')
    document.write_bytes(raw[:at] + b'"kyoto"' + raw[at + 7 :])
    with pytest.raises(DocumentDamagedError):
        save(json_lines(manager), str(target), existing)
    assert [path.name for path in tmp_path.iterdir() if path.name != "output"] == (
        ["backup.json"] if existing is Existing.REPLACE else []
    )
    assert existing is Existing.KEEP or target.read_text() == "before"


@pytest.mark.parametrize("path", ["missing/backup.json", "output/file_metadata.json/x"])
def test_an_export_to_no_file_says_so(manager: FileManager, tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInputError, match="is no file in a folder that exists"):
        save(json_lines(manager), str(tmp_path / path), Existing.KEEP)


def test_an_export_over_a_folder_is_refused(manager: FileManager, tmp_path: Path) -> None:
    with pytest.raises((InvalidInputError, StorageError)):
        save(json_lines(manager), str(tmp_path / "output"), Existing.REPLACE)
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_the_export_of_a_library_that_cannot_be_read_fails(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    with pytest.raises(LibraryUnavailableError):
        next(open_manager(tmp_path / "missing").export_records())
