"""Whatever a list of another program holds, it leads nowhere outside the root, and fails in one way only."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from flask_comfy_files.core.accession import Entry, read_record
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.marking import require_tags
from flask_comfy_files.core.records import EPOCH, KNOWN_KEYS, iso_utc

ROOTS = ("/output", "/mnt/disk/output")
MODIFIED_AT = datetime(2026, 1, 2, tzinfo=UTC)

paths = st.lists(
    st.sampled_from(
        [
            *("", "/", "/output", "/outputs", "..", ".", " ", "\0", "\udcff", "\ud800", "a" * 300),
            *("projects", "tokyo", "job_1", "legacy", "x.png"),
        ]
    ),
    max_size=6,
).map("/".join)
times = st.sampled_from(
    ["2025-11-06T05:13:30Z", "2025-11-06", "0001-01-01T00:00:00", "9999-12-31T23:59:59-12:00"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | paths | times
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars, max_size=2)
facts = st.dictionaries(st.sampled_from(sorted({*KNOWN_KEYS, "pinned", "tags"})), values)


@given(key=st.text() | paths, value=values | facts)
def test_any_record_is_read_or_refused_and_stays_below_the_root(key: str, value: object) -> None:
    try:
        said = read_record(Entry("[0]", key, value), ROOTS)
    except InvalidInputError:
        return
    for path in said.paths:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        os.fsencode(path)
        owner = said.owner_at(path)
        if owner is not None:
            require_identifier("job_id", owner.job_id)
        kept = said.kept_facts(path, ROOTS)
        original = kept["original_path"]
        assert not original.startswith("/")
        assert ".." not in original.split("/")
        assert len(said.derived_id(path)) == 32
    at = said.at(MODIFIED_AT)
    assert at >= EPOCH
    assert datetime.fromisoformat(iso_utc(at)) == at
    require_tags(said.marks().get("tags", []))
