from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.trees import recording
from tests.web.answers import PREFIX, assert_problem

IMAGE = "batch_00002_.png"
VIEW = f"{PREFIX}/view"


@pytest.fixture
def recorded(client: FlaskClient) -> Path:
    """Return where a file lies that was organized."""
    client.post(f"{PREFIX}/organize", json={"job_id": "job_1", "files": [IMAGE]})
    matches = client.get(f"{PREFIX}/resolve", query_string={"filename": IMAGE}).get_json()[
        "matches"
    ]
    return Path(matches[0]["file_path"])


def test_bytes_are_the_same_before_and_after_a_file_is_organized(client: FlaskClient) -> None:
    before = client.get(VIEW, buffered=True, query_string={"filename": IMAGE, "preview": "webp;90"})
    client.post(f"{PREFIX}/organize", json={"job_id": "job_1", "files": [IMAGE]})
    after = client.get(VIEW, buffered=True, query_string={"filename": IMAGE, "type": "output"})
    assert before.data == after.data == recording(IMAGE)
    assert before.content_type == after.content_type == "image/png"
    assert after.headers["ETag"] == f'"{hashlib.sha256(after.data).hexdigest()}"'


def test_a_part_is_answered_and_what_the_client_has_is_not_sent_again(
    client: FlaskClient, recorded: Path
) -> None:
    asked = {"filename": IMAGE}
    part = client.get(VIEW, buffered=True, query_string=asked, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.data) == (206, recorded.read_bytes()[5:10])
    assert part.headers["Content-Range"] == f"bytes 5-9/{recorded.stat().st_size}"
    tag = part.headers["ETag"]
    assert (
        client.get(
            VIEW, buffered=True, query_string=asked, headers={"If-None-Match": tag}
        ).status_code
        == 304
    )
    head = client.head(VIEW, buffered=True, query_string=asked)
    assert (head.data, head.content_length) == (b"", recorded.stat().st_size)
    beyond = client.get(VIEW, buffered=True, query_string=asked, headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.content_type) == (416, "application/problem+json")


def test_what_could_hold_a_script_is_offered_as_a_download(client: FlaskClient) -> None:
    asked = {"filename": "ComfyUI_00001_.svg", "subfolder": "svg"}
    answered = client.get(VIEW, buffered=True, query_string=asked)
    assert answered.headers["Content-Disposition"].startswith("attachment")
    assert answered.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answered.headers["Content-Security-Policy"]


@pytest.mark.parametrize("replaced", ["file", "folder"])
def test_a_link_in_the_place_of_a_recorded_file_is_not_followed(
    client: FlaskClient, recorded: Path, tmp_path: Path, replaced: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / recorded.name).write_bytes(b"secret")
    if replaced == "file":
        recorded.unlink()
        recorded.symlink_to(elsewhere / recorded.name)
    else:
        shutil.rmtree(recorded.parent)
        recorded.parent.symlink_to(elsewhere)
    answered = client.get(VIEW, buffered=True, query_string={"filename": IMAGE})
    assert (answered.status_code, answered.get_json()["code"]) == (404, "name_not_found")


def test_bytes_that_were_changed_do_not_go_by_the_old_checksum(
    client: FlaskClient, recorded: Path
) -> None:
    before = client.get(VIEW, buffered=True, query_string={"filename": IMAGE}).headers["ETag"]
    recorded.write_bytes(b"other")
    assert (
        client.get(VIEW, buffered=True, query_string={"filename": IMAGE}).headers["ETag"] != before
    )


@pytest.mark.parametrize(
    "name", ["x\ny_00001_.png", "\u202ex.png", "\u00e9t\u00e9 \u65e5.png"], ids=ascii
)
def test_an_odd_name_is_served(client: FlaskClient, output_root: Path, name: str) -> None:
    (output_root / name).write_bytes(recording(IMAGE))
    answered = client.get(VIEW, buffered=True, query_string={"filename": name})
    assert (answered.status_code, answered.data) == (200, recording(IMAGE))


def test_a_name_that_was_used_again_lists_the_candidates(
    client: FlaskClient, recorded: Path, output_root: Path
) -> None:
    (output_root / IMAGE).write_bytes(recording("batch_00003_.png"))
    answered = client.get(VIEW, buffered=True, query_string={"filename": IMAGE})
    assert (answered.status_code, answered.get_json()["code"]) == (409, "ambiguous_name")
    resolved = client.get(f"{PREFIX}/resolve", query_string={"filename": IMAGE}).get_json()
    assert resolved["exact"] is False
    candidates = [record["file_id"] for record in resolved["matches"]]
    assert answered.get_json()["candidates"] == candidates
    assert resolved["matches"][0]["file_path"] == str(recorded)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 422),
        ({"filename": "../x"}, 422),
        ({"filename": "x", "subfolder": "../.."}, 422),
        ({"filename": "x", "type": "other"}, 422),
        ({"filename": "ComfyUI_temp_mfhpp_00001_.png", "type": "temp"}, 404),
        ({"filename": "file_metadata.json"}, 404),
        ({"filename": "lock", "subfolder": ".comfy_files"}, 404),
        ({"filename": IMAGE, "prompt_id": "another"}, 404),
        ({"filename": "ep01"}, 404),
    ],
    ids=str,
)
def test_what_is_no_output_is_not_served(
    client: FlaskClient, recorded: Path, asked: dict[str, str], status: int
) -> None:
    assert recorded.exists()
    for route in ("view", "resolve"):
        answered = client.get(f"{PREFIX}/{route}", query_string=asked)
        assert (answered.status_code, answered.content_type) == (status, "application/problem+json")


CONTENT = f"{PREFIX}/{{}}/content"


@pytest.fixture
def file_id(client: FlaskClient, recorded: Path) -> str:
    """Return the id of that file."""
    assert recorded.is_file()
    (record,) = client.get(f"{PREFIX}/jobs/job_1").get_json()["files"]
    return str(record["file_id"])


def test_a_recorded_files_bytes_are_served_by_its_id(client: FlaskClient, file_id: str) -> None:
    answered = client.get(CONTENT.format(file_id), buffered=True)
    assert (answered.data, answered.content_type) == (recording(IMAGE), "image/png")
    tag = f'"{hashlib.sha256(answered.data).hexdigest()}"'
    assert answered.headers["ETag"] == tag
    assert answered.headers["X-Content-Type-Options"] == "nosniff"
    assert "attachment" not in answered.headers["Content-Disposition"]
    known = client.get(CONTENT.format(file_id), headers={"If-None-Match": tag})
    assert (known.status_code, known.data) == (304, b"")
    head = client.head(CONTENT.format(file_id))
    assert (head.data, head.content_length) == (b"", len(answered.data))


def test_a_broken_off_download_goes_on_only_with_the_same_file(
    client: FlaskClient, file_id: str
) -> None:
    whole = client.get(CONTENT.format(file_id), buffered=True)
    for tag, status, expected in (
        (whole.headers["ETag"], 206, whole.data[100:]),
        ('"another"', 200, whole.data),
    ):
        rest = client.get(
            CONTENT.format(file_id),
            buffered=True,
            headers={"Range": "bytes=100-", "If-Range": tag},
        )
        assert (rest.status_code, rest.data) == (status, expected)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"If-Match": '"another"', "Range": "bytes=5-9"}, 412),
        ({"If-Match": "{etag}", "Range": "bytes=5-9"}, 206),
        ({"If-Match": "*"}, 200),
        ({"If-Match": "*", "Range": "bytes=5-9"}, 206),
        ({"If-Match": "W/{etag}"}, 412),
        ({"If-None-Match": "{etag}", "Range": "bytes=5-9"}, 304),
        ({"If-None-Match": '"another"', "Range": "bytes=5-9"}, 206),
        ({"If-Modified-Since": "Tue, 01 Jan 2036 00:00:00 GMT", "Range": "bytes=5-9"}, 304),
        ({"If-Unmodified-Since": "Mon, 01 Jan 1996 00:00:00 GMT", "Range": "bytes=5-9"}, 412),
        ({"If-Unmodified-Since": "Tue, 01 Jan 2036 00:00:00 GMT", "Range": "bytes=5-9"}, 206),
        ({"If-Range": "W/{etag}", "Range": "bytes=5-9"}, 200),
        ({"Range": "bytes=0-1,5-6"}, 200),
        ({"Range": "lines=0-1"}, 200),
        ({"Range": "bytes=a-b"}, 200),
    ],
    ids=str,
)
def test_conditions_are_looked_at_before_ranges_and_what_is_no_one_range_is_passed_over(
    client: FlaskClient, file_id: str, asked: dict[str, str], status: int
) -> None:
    whole = client.get(CONTENT.format(file_id), buffered=True)
    headers = {
        name: value.replace("{etag}", whole.headers["ETag"]) for name, value in asked.items()
    }
    answered = client.get(CONTENT.format(file_id), buffered=True, headers=headers)
    assert answered.status_code == status
    if status in {200, 206, 304}:
        assert answered.data == {200: whole.data, 206: whole.data[5:10], 304: b""}[status]


def test_it_can_be_downloaded_under_the_name_that_comfyui_gave_it(
    client: FlaskClient, output_root: Path
) -> None:
    name = "キャラ 01 – été.png"
    shutil.copy(output_root / IMAGE, output_root / name)
    (record,) = organize_named(client, name)
    answered = client.get(
        CONTENT.format(record["file_id"]), buffered=True, query_string={"download": "1"}
    )
    disposition = answered.headers["Content-Disposition"]
    assert disposition.startswith("attachment")
    assert quote(name) in disposition
    assert answered.data == recording(IMAGE)


def organize_named(client: FlaskClient, name: str) -> list[dict[str, str]]:
    """Organize one file, and return its record in a list."""
    said = {"job_id": "named", "files": [name]}
    answered = client.post(f"{PREFIX}/organize", json=said).get_json()
    records: list[dict[str, str]] = answered["organized_files"]
    return records


def test_what_is_gone_or_was_never_there_is_a_404(
    client: FlaskClient, file_id: str, recorded: Path
) -> None:
    assert_problem(client.get(CONTENT.format("f" * 32)), 404, "record_not_found")
    recorded.unlink()
    assert_problem(client.get(CONTENT.format(file_id)), 404, "name_not_found")
    client.delete(f"{PREFIX}/jobs/job_1")
    assert_problem(client.get(CONTENT.format(file_id)), 404, "record_not_found")
    answered = client.get(CONTENT.format(file_id), query_string={"downloads": "1"})
    assert_problem(answered, 422, "invalid_body", "downloads")
