from __future__ import annotations

import os
import posixpath

from hypothesis import given
from hypothesis import strategies as st

from flask_comfy_files.core.errors import InvalidIdentifierError, UnsafePathError
from flask_comfy_files.core.layout import (
    LONGEST_ID,
    LONGEST_NAME,
    copy_name,
    file_path,
    inbox_folder,
    inbox_owner,
    job_folder,
    require_identifier,
    require_relative_path,
    split,
    target_name,
)
from flask_comfy_files.core.media import extension_of
from flask_comfy_files.core.records import FileType

ROOT = "/srv/output"

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=120)
LOOKS_LIKE_A_PATH = st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "b.png", "~", "...", "\\", "é", "-rf", "\udcff", "a\0", "\n"]
    ),
    max_size=8,
).map("/".join)
LOOKS_LIKE_AN_ID = st.text("aZ0._-/ \\é\n", max_size=LONGEST_ID + 5)


def accepted(value: str) -> bool:
    try:
        return require_identifier("job_id", value) == value
    except InvalidIdentifierError:
        return False


IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True).filter(accepted)


def lies_below(path: str, folder: str) -> bool:
    return posixpath.normpath(path).startswith(f"{folder}/")


@given(ANY_TEXT | LOOKS_LIKE_A_PATH | LOOKS_LIKE_AN_ID)
def test_an_accepted_id_is_one_plain_name_on_every_system(value: str) -> None:
    if accepted(value):
        assert value.isascii()
        assert value.isprintable()
        assert not set(value) & set('/\\:*?"<>| ')
        assert value == os.path.normpath(value)
        assert 1 <= len(value) <= LONGEST_ID
        assert value.strip(".- ") == value.lstrip(".- ") or value[-1] == "-"


@given(IDS, IDS, st.sampled_from(FileType), st.integers(1, 10**6), ANY_TEXT)
def test_no_id_and_no_name_ever_leads_out_of_the_folder_of_its_job(
    job_id: str, project_id: str, file_type: FileType, number: int, original: str
) -> None:
    folder = job_folder(project_id, job_id)
    name = target_name(job_id, "1770091506", file_type, number, extension_of(original))
    path = file_path(ROOT, f"{folder}/{name}")
    assert posixpath.normpath(path) == path
    assert posixpath.dirname(path) == f"{ROOT}/projects/{project_id}/{job_id}"
    assert len(name) <= LONGEST_NAME
    assert lies_below(file_path(ROOT, copy_name(folder, "0" * 32)), f"{ROOT}/{folder}")
    assert inbox_owner(f"{inbox_folder(job_id)}/x.png") == job_id


@given(ANY_TEXT | LOOKS_LIKE_A_PATH)
def test_no_accepted_path_ever_leads_out_of_the_root(value: str) -> None:
    try:
        path = require_relative_path("files[0]", value)
    except UnsafePathError:
        return
    assert lies_below(file_path(ROOT, path), ROOT)
    assert file_path(ROOT, path) == posixpath.normpath(file_path(ROOT, path))
    assert "\0" not in path
    assert require_relative_path("files[0]", path) == path
    folder, name = split(path)
    assert (f"{folder}/{name}" if folder else name) == path
    assert max(len(os.fsencode(part)) for part in path.split("/")) <= LONGEST_NAME


@given(LOOKS_LIKE_A_PATH | ANY_TEXT)
def test_a_path_is_refused_only_for_a_reason(value: str) -> None:
    parts = [part for part in value.split("/") if part not in {"", "."}]
    is_unsafe = value.startswith("/") or ".." in parts or not parts or "\0" in value
    try:
        path = require_relative_path("files[0]", value)
    except UnsafePathError as error:
        assert is_unsafe or "surrogate" in str(error) or "longer" in str(error)  # noqa: PT017
    else:
        assert not is_unsafe
        assert path == "/".join(parts)
