from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.containers import Completeness, ContainerFacts
from flask_comfy_files.core.filing import Arrival, Filing, JobIdentity
from flask_comfy_files.core.inspection import Identity, Inspected
from flask_comfy_files.core.records import (
    Evidence,
    FileRecord,
    file_from_stored,
    file_to_dict,
    file_to_stored,
    iso_utc,
)
from tests.trees import NOW

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=30)
MAYBE = st.none() | TEXTS
SIZES = st.integers(0, 2**63 - 1)
RECORDS = st.builds(
    FileRecord,
    **dict.fromkeys(
        (
            *("file_id", "path", "timestamp", "created_at", "file_type", "file_extension"),
            *("media_type", "generation_type", "modified_at", "checksum", "original_path"),
            "evidence",
        ),
        TEXTS,
    ),
    **dict.fromkeys(("job_id", "project_id", "same_file_as", "prompt_id", "node_id"), MAYBE),
    file_path=st.just("/srv/output/x"),
    file_size=SIZES,
    width=st.none() | SIZES,
    height=st.none() | SIZES,
    duration_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    missing=st.just(False),  # noqa: FBT003 - what no record says of itself when it is written
)

NAMES = st.text("aéb \n_.-", min_size=1, max_size=12).flatmap(
    lambda stem: st.sampled_from([".png", ".PNG", ".webp", ".mp4", ".gif", ".txt", "", ".x y"]).map(
        lambda extension: stem + extension
    )
)


@given(RECORDS)
def test_a_record_comes_back_from_the_document_as_it_went_in(record: FileRecord) -> None:
    line = document.encode({"files": [file_to_stored(record)]})
    change = document.decode(line)
    assert change is not None
    assert file_from_stored(change["files"][0], "/srv/output/x") == record
    moved = file_from_stored(change["files"][0], "/elsewhere/x")
    assert file_to_dict(moved) == {**file_to_dict(record), "file_path": "/elsewhere/x"}


@given(RECORDS)
def test_a_record_is_json_for_everybody(record: FileRecord) -> None:
    assert json.loads(json.dumps(file_to_dict(record))) == file_to_dict(record)


@given(RECORDS, TEXTS)
def test_a_key_of_a_newer_version_is_passed_over(record: FileRecord, value: str) -> None:
    stored = {**file_to_stored(record), "a_key_of_tomorrow": value}
    assert file_from_stored(stored, "/srv/output/x") == record


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 - the zone is drawn
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_a_moment_is_written_in_utc_and_read_back_as_the_same(
    moment: datetime, zone: timezone
) -> None:
    written = iso_utc(moment.replace(tzinfo=zone))
    assert written.endswith("Z")
    assert datetime.fromisoformat(written) == moment.replace(tzinfo=zone)
    assert datetime.fromisoformat(written).tzinfo == UTC


def arrival(name: str, number: int) -> Arrival:
    facts = ContainerFacts(
        extensions=frozenset(),
        completeness=Completeness.UNKNOWN,
        width=None,
        height=None,
        duration_s=None,
    )
    inspected = Inspected(
        candidate=Candidate(name, Evidence.FILES),
        identity=Identity(1, number, 1, 0),
        checksum="0" * 64,
        facts=facts,
        media_type="x/y",
        tag=None,
        mount="1",
    )
    return Arrival(f"{number:032x}", inspected)


@given(st.lists(NAMES, max_size=30), st.data())
def test_no_two_files_of_a_plan_get_one_name_nor_one_that_is_taken(
    names: list[str], data: st.DataObject
) -> None:
    prefix = "projects/tokyo/job_1/job_1_1770091506_image"
    possible = [f"{prefix}{n}{x}" for n in ("", "_2", "_3", "_7") for x in (".png", ".webp", "")]
    taken = data.draw(st.sets(st.sampled_from(possible)))
    standing = data.draw(st.sets(st.sampled_from(possible)))
    filing = Filing(
        JobIdentity("/srv/output", "job_1", "tokyo", None),
        NOW,
        taken=taken,
        originals=names,
        exists=standing.__contains__,
    )
    records = [filing.record(arrival(name, number)) for number, name in enumerate(names)]
    paths = [record.path for record in records]
    stems = [path.rpartition("/")[2].partition(".")[0] for path in paths]
    assert len(set(stems)) == len(stems)
    assert not {*paths} & {*taken, *standing}
    assert all(path.startswith("projects/tokyo/job_1/job_1_1770091506_") for path in paths)
    for kind in {record.file_type for record in records}:
        numbers = [
            int(stem.rpartition("_")[2]) if stem[-1].isdigit() else 1
            for stem, record in zip(stems, records, strict=True)
            if record.file_type == kind
        ]
        assert numbers == sorted(numbers)
