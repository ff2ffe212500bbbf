from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files.core.attribution import attribute_by_scan
from tests.trees import write_tree

PARTS = ["a", "b2", "00001", "2", "x", "_", "-", ".", " ", "__", "0001_"]
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join)
IDS = st.from_regex(r"[ab][ab0-2_-]{0,5}", fullmatch=True)


def candidates(root: Path, job_id: str, known: set[str]) -> set[str]:
    def known_among(ids: Iterable[str]) -> set[str]:
        return {longer for longer in ids if longer in known}

    attributed = attribute_by_scan(str(root), job_id, known_among)
    found = [candidate.path for candidate in attributed.candidates]
    left = [entry.path for entry in attributed.skipped]
    assert len({*found, *left}) == len(found) + len(left), "a file is answered twice"
    return set(found)


@settings(max_examples=60)
@given(st.sets(IDS, min_size=2, max_size=6), st.data())
def test_no_file_in_a_flat_folder_is_the_file_of_two_known_jobs(
    known: set[str], data: st.DataObject
) -> None:
    names = data.draw(st.sets(st.builds("{}{}.png".format, st.sampled_from(sorted(known)), NAMES)))
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder), dict.fromkeys(names, b""))
        taken = [candidates(root, job_id, known) for job_id in known]
    assert sum(map(len, taken)) == len(set().union(*taken))


SAVED = ["_00001_.png", "_00002.mp4", "_00002-audio.mp4", "-0001.webp", "_00001.001.png", ".png"]


@settings(max_examples=60)
@given(IDS, st.sets(st.sampled_from(SAVED)), st.sampled_from(["", "sub/", "sub/er/"]))
def test_a_job_finds_every_file_that_a_saver_wrote_under_its_id(
    job_id: str, endings: set[str], folder: str
) -> None:
    names = {f"{folder}{job_id}{ending}" for ending in endings}
    with tempfile.TemporaryDirectory() as root:
        write_tree(Path(root), dict.fromkeys(names, b""))
        assert candidates(Path(root), job_id, set()) == names


@settings(max_examples=60)
@given(st.sets(NAMES, max_size=8), IDS, st.sets(IDS, max_size=4))
def test_knowing_more_jobs_never_gives_a_job_more_files(
    names: set[str], job_id: str, known: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder), {f"{job_id}{name}.png": b"" for name in names})
        assert candidates(root, job_id, known) <= candidates(root, job_id, set())
