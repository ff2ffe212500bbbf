from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from flask_comfy_files.web.parsing import LARGEST_BODY_BYTES
from flask_comfy_files.web.schemas.base import MOST_ENTRIES
from tests.conftest import MakeTree
from tests.trees import read_tree, recording
from tests.web.answers import BATCH, PREFIX, assert_problem, organize, organized, post
from tests.web.conftest import MakeHost, Register

COMPLETE = "/api/jobs/batch/complete"


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


NO_JSON = {
    "empty": b"",
    "blank": b" \n",
    "cut-short": b'{"job_id": "batch"',
    "text": b"job_id=batch",
    "two-values": b'{"job_id": "batch"} {}',
    "trailing-comma": b'{"job_id": "batch",}',
    "single-quotes": b"{'job_id': 'batch'}",
    "comment": b'{"job_id": "batch"} // done',
    "raw-control-character": b'{"job_id": "bat\nch"}',
    "raw-nul": b'{"job_id": "batch"}\0',
    "nan": b'{"job_id": "batch", "files": [NaN]}',
    "infinity": b'{"job_id": "batch", "files": [Infinity]}',
    "minus-infinity": b'{"job_id": "batch", "files": [-Infinity]}',
    "too-large-a-number": b'{"job_id": "batch", "files": [1e999]}',
    "too-long-a-number": b'{"job_id": "batch", "files": [' + b"9" * 5000 + b"]}",
    "key-twice": b'{"job_id": "batch", "job_id": "mix"}',
    "key-twice-inside": b'{"job_id": "batch", "files": [{"filename": "a", "filename": "b"}]}',
    "half-a-surrogate-pair": b'{"job_id": "batch", "prompt_id": "\\ud800"}',
    "half-a-surrogate-pair-as-key": b'{"job_id": "batch", "\\udfff": 1}',
    "half-a-surrogate-pair-in-files": b'{"job_id": "batch", "files": ["\\udc80.png"]}',
    "not-utf-8": b'{"job_id": "batch", "prompt_id": "\xff\xfe"}',
    "overlong-utf-8": b'{"job_id": "batch", "prompt_id": "\xc0\xaf"}',
    "utf-16": '{"job_id": "batch"}'.encode("utf-16"),
    "utf-32": '{"job_id": "batch"}'.encode("utf-32"),
    "byte-order-mark": b'\xef\xbb\xbf{"job_id": "batch"}',
    "deep-list": nested(100_000).encode(),
    "deep-list-in-files": f'{{"job_id": "batch", "files": [{nested(50_000)}]}}'.encode(),
    "deep-object": (b'{"a":' * 50_000) + b"1" + b"}" * 50_000,
}

NO_OBJECT = {
    "list": b'[{"job_id": "batch"}]',
    "empty-list": b"[]",
    "string": b'"batch"',
    "number": b"7",
    "true": b"true",
    "null": b"null",
}

LONG = "a" * 10_000

# For each: the body, the code of the error, and the field that it names.
UNUSABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-job-id": ({}, "invalid_body", "job_id"),
    "unknown-key": ({"job_id": "batch", "project": "anime"}, "invalid_body", "project"),
    "key-in-another-case": ({"job_id": "batch", "Files": []}, "invalid_body", "Files"),
    "empty-key": ({"job_id": "batch", "": 1}, "invalid_body", ""),
    "job-id-number": ({"job_id": 7}, "invalid_body", "job_id"),
    "job-id-null": ({"job_id": None}, "invalid_body", "job_id"),
    "job-id-true": ({"job_id": True}, "invalid_body", "job_id"),
    "job-id-list": ({"job_id": ["batch"]}, "invalid_body", "job_id"),
    "job-id-object": ({"job_id": {"a": "batch"}}, "invalid_body", "job_id"),
    "job-id-empty": ({"job_id": ""}, "invalid_identifier", "job_id"),
    "job-id-long": ({"job_id": LONG}, "invalid_identifier", "job_id"),
    "job-id-of-101": ({"job_id": "a" * 101}, "invalid_identifier", "job_id"),
    "job-id-nul": ({"job_id": "batch\0"}, "invalid_identifier", "job_id"),
    "job-id-newline": ({"job_id": "batch\n"}, "invalid_identifier", "job_id"),
    "job-id-slash": ({"job_id": "a/batch"}, "invalid_identifier", "job_id"),
    "job-id-dots": ({"job_id": ".."}, "invalid_identifier", "job_id"),
    "job-id-dot-at-the-end": ({"job_id": "batch."}, "invalid_identifier", "job_id"),
    "job-id-other-digits": ({"job_id": "batch٣"}, "invalid_identifier", "job_id"),
    "job-id-space": ({"job_id": "bat ch"}, "invalid_identifier", "job_id"),
    "job-id-device": ({"job_id": "nul.batch"}, "invalid_identifier", "job_id"),
    "project-id-number": ({"job_id": "batch", "project_id": 1.5}, "invalid_body", "project_id"),
    "project-id-list": ({"job_id": "batch", "project_id": []}, "invalid_body", "project_id"),
    "project-id-empty": ({"job_id": "batch", "project_id": ""}, "invalid_identifier", "project_id"),
    "project-id-long": (
        {"job_id": "batch", "project_id": LONG},
        "invalid_identifier",
        "project_id",
    ),
    "project-id-parent": (
        {"job_id": "batch", "project_id": "../x"},
        "invalid_identifier",
        "project_id",
    ),
    "prompt-id-object": ({"job_id": "batch", "prompt_id": {}}, "invalid_body", "prompt_id"),
    "prompt-id-empty": ({"job_id": "batch", "prompt_id": ""}, "invalid_input", "prompt_id"),
    "prompt-id-long": ({"job_id": "batch", "prompt_id": LONG}, "invalid_input", "prompt_id"),
    "prompt-id-nul": ({"job_id": "batch", "prompt_id": "a\0"}, "invalid_input", "prompt_id"),
    "prompt-id-newline": ({"job_id": "batch", "prompt_id": "a\nb"}, "invalid_input", "prompt_id"),
    "files-string": ({"job_id": "batch", "files": "batch_00001_.png"}, "invalid_body", "files"),
    "files-object": ({"job_id": "batch", "files": {"filename": "a"}}, "invalid_body", "files"),
    "files-number": ({"job_id": "batch", "files": 4}, "invalid_body", "files"),
    "files-too-many": ({"job_id": "batch", "files": ["a"] * 20_001}, "invalid_body", "files"),
    "file-null": ({"job_id": "batch", "files": [None]}, "invalid_input", "files[0]"),
    "file-number": ({"job_id": "batch", "files": ["a", 4]}, "invalid_input", "files[1]"),
    "file-list": ({"job_id": "batch", "files": [[]]}, "invalid_input", "files[0]"),
    "file-empty": ({"job_id": "batch", "files": [""]}, "unsafe_path", "files[0]"),
    "file-dot": ({"job_id": "batch", "files": ["./."]}, "unsafe_path", "files[0]"),
    "file-absolute": ({"job_id": "batch", "files": ["/etc/passwd"]}, "unsafe_path", "files[0]"),
    "file-parent": (
        {"job_id": "batch", "files": ["batch_00001_.png", "ep01/../../x"]},
        "unsafe_path",
        "files[1]",
    ),
    "file-nul": ({"job_id": "batch", "files": ["batch_00001_.png\0"]}, "unsafe_path", "files[0]"),
    "file-long": ({"job_id": "batch", "files": [LONG]}, "unsafe_path", "files[0]"),
    "file-no-filename": ({"job_id": "batch", "files": [{}]}, "unsafe_path", "files[0].filename"),
    "file-filename-number": (
        {"job_id": "batch", "files": [{"filename": 1}]},
        "unsafe_path",
        "files[0].filename",
    ),
    "file-filename-parent": (
        {"job_id": "batch", "files": [{"filename": "../x", "subfolder": "ep01"}]},
        "unsafe_path",
        "files[0].filename",
    ),
    "file-subfolder-parent": (
        {"job_id": "batch", "files": [{"filename": "x", "subfolder": ".."}]},
        "unsafe_path",
        "files[0].subfolder",
    ),
    "file-subfolder-absolute": (
        {"job_id": "batch", "files": [{"filename": "passwd", "subfolder": "/etc"}]},
        "unsafe_path",
        "files[0].subfolder",
    ),
    "file-subfolder-false": (
        {"job_id": "batch", "files": [{"filename": "x", "subfolder": False}]},
        "unsafe_path",
        "files[0].subfolder",
    ),
    "file-type-unknown": (
        {"job_id": "batch", "files": [{"filename": "x", "type": "secret"}]},
        "invalid_input",
        "files[0].type",
    ),
    "file-type-list": (
        {"job_id": "batch", "files": [{"filename": "x", "type": []}]},
        "invalid_input",
        "files[0].type",
    ),
    "file-type-object": (
        {"job_id": "batch", "files": [{"filename": "x", "type": {"a": 1}}]},
        "invalid_input",
        "files[0].type",
    ),
}


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder that is small, since it is made for very many tests."""
    return make_tree({name: recording(name) for name in [*BATCH, "ep01/key_00001_.png"]})


@pytest.fixture
def unchanged(output_root: Path) -> Any:
    """Check at the end that nothing at all has changed below the output root."""
    before = read_tree(output_root)
    yield
    assert read_tree(output_root) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_a_400(client: FlaskClient, body: bytes) -> None:
    assert_problem(organize(client, body), 400, "invalid_json", "body")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", [body for body in NO_JSON.values() if body], ids=list(NO_JSON)[1:])
def test_what_is_no_json_does_not_complete_a_job(client: FlaskClient, body: bytes) -> None:
    assert_problem(post(client, COMPLETE, body), 400, "invalid_json", "body")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("body", NO_OBJECT.values(), ids=NO_OBJECT)
def test_json_that_is_no_object_is_a_422_that_says_so(client: FlaskClient, body: bytes) -> None:
    for url in (f"{PREFIX}/organize", COMPLETE):
        assert_problem(post(client, url, body), 422, "invalid_body", "body")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("body", "code", "field"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_value_that_cannot_be_used_is_a_422_that_names_its_field(
    client: FlaskClient, body: dict[str, Any], code: str, field: str
) -> None:
    response = organize(client, body)
    problem = assert_problem(response, 422, code, field)
    assert field in problem["detail"]
    assert len(response.data) < 3000


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "code", "field"),
    [case for case in UNUSABLE.values() if case[2] in {"project_id", "prompt_id"}]
    + [case for case in UNUSABLE.values() if case[2].startswith("files")],
)
def test_our_own_completion_refuses_the_same_values(
    client: FlaskClient, body: dict[str, Any], code: str, field: str
) -> None:
    assert_problem(post(client, COMPLETE, body), 422, code, field)


@pytest.mark.usefixtures("unchanged")
def test_several_fields_that_are_wrong_are_all_named(client: FlaskClient) -> None:
    body = {"job_id": 1, "project_id": 2, "colour": 3}
    assert_problem(organize(client, body), 422, "invalid_body", "job_id", "project_id", "colour")


def test_a_completion_may_say_more_than_we_look_at(client: FlaskClient) -> None:
    body = {"status": "done", "seconds": 1.5, "files": ["batch_00002_.png"]}
    response = post(client, COMPLETE, body)
    (record,) = response.get_json()["organized_files"]
    assert record["original_path"] == "batch_00002_.png"


def test_null_stands_for_a_key_that_is_left_out(client: FlaskClient) -> None:
    body = {"job_id": "batch", "project_id": None, "prompt_id": None, "files": None}
    assert organized(client, body)["file_count"] == 4


def test_as_many_files_as_are_allowed_can_be_named(client: FlaskClient) -> None:
    named = [f"lost_{number}.png" for number in range(MOST_ENTRIES)]
    assert organized(client, {"job_id": "lost", "files": named})["found"]["files"] == MOST_ENTRIES


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "body",
    [
        '{"job_id": "batch", "files": [%s]}',
        '{"job_id": "batch", "files": [{"filename": %s}]}',
        '{"job_id": %s}',
    ],
)
def test_no_depth_of_nesting_is_an_error_of_ours(client: FlaskClient, body: str) -> None:
    answered = {organize(client, body % nested(depth)).status_code for depth in range(800, 1000)}
    assert answered == {400, 422}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "text/plain; charset=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/vnd.api+json",
        "text/json",
    ],
)
def test_a_body_that_is_not_called_json_is_a_415(
    client: FlaskClient, content_type: str | None
) -> None:
    for url in (f"{PREFIX}/organize", COMPLETE):
        response = post(client, url, {"job_id": "batch"}, content_type=content_type)
        assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_the_name_of_json_is_understood_in_all_its_forms(
    client: FlaskClient, content_type: str
) -> None:
    response = organize(client, {"job_id": "batch"}, content_type=content_type)
    assert response.get_json()["file_count"] == 4


class Endless(io.RawIOBase):
    """A body that never ends, and counts how much of it was read."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = b" " * len(buffer)
        self.taken += len(buffer)
        assert self.taken < 64 * 1024**2, "it is read without end"
        return len(buffer)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("url", [f"{PREFIX}/organize", COMPLETE])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(
    client: FlaskClient, url: str
) -> None:
    body = Endless()
    response = client.post(
        url,
        content_type="application/json",
        environ_overrides={"wsgi.input": body, "CONTENT_LENGTH": str(2 * LARGEST_BODY_BYTES)},
    )
    assert_problem(response, 413, "request_entity_too_large")
    assert body.taken == 0


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("url", [f"{PREFIX}/organize", COMPLETE])
def test_a_chunked_body_is_read_up_to_the_limit_and_no_further(
    client: FlaskClient, url: str
) -> None:
    body = Endless()
    tracemalloc.start()
    try:
        response = client.post(
            url,
            content_type="application/json",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={
                "wsgi.input": body,
                "wsgi.input_terminated": True,
                "CONTENT_LENGTH": "",
            },
        )
        most_memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_problem(response, 413, "request_entity_too_large")
    assert body.taken <= LARGEST_BODY_BYTES + 1024**2
    assert most_memory < 8 * LARGEST_BODY_BYTES


def test_a_chunked_body_within_the_limit_is_taken(client: FlaskClient) -> None:
    response = client.post(
        f"{PREFIX}/organize",
        input_stream=io.BytesIO(b'{"job_id": "batch"}'),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.get_json()["file_count"] == 4


def test_a_body_of_the_largest_size_is_taken(client: FlaskClient) -> None:
    body = b'{"job_id": "batch"}'.ljust(LARGEST_BODY_BYTES)
    assert organize(client, body).get_json()["file_count"] == 4


@pytest.mark.usefixtures("unchanged")
def test_a_limit_of_the_host_that_is_lower_counts(make_host: MakeHost) -> None:
    host = make_host()
    host.config["MAX_CONTENT_LENGTH"] = 100
    client = host.test_client()
    body = b'{"job_id": "batch"}'
    assert_problem(organize(client, body.ljust(101)), 413, "request_entity_too_large")


def test_a_higher_limit_of_the_host_does_not_raise_ours(
    register: Register, output_root: Path
) -> None:
    host = Flask("host")
    host.config["MAX_CONTENT_LENGTH"] = 64 * 1024**2
    register(host, output_dir=output_root)

    @host.before_request
    def read_all() -> None:
        request.get_data()

    body = b'{"job_id": "batch"}'.ljust(LARGEST_BODY_BYTES + 1)
    assert_problem(organize(host.test_client(), body), 413, "request_entity_too_large")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_key_that_stands_twice_among_very_many_is_found_at_once(
    client: FlaskClient, where: str
) -> None:
    keys = [f'"{number}":1' for number in range(200_000)]
    keys.insert(0 if where == "first" else len(keys), '"7":1')
    body = assert_problem(organize(client, f"{{{','.join(keys)}}}"), 400, "invalid_json", "body")
    assert "'7'" in body["detail"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "identifier", [LONG, "%00", "%0A", "%ff", "%ED%A0%80", "%F0%9F%8E%AC", "a%5Cb", ".", "a%20b"]
)
def test_an_id_in_an_address_that_can_be_none_is_refused(
    client: FlaskClient, identifier: str
) -> None:
    for url, field in (
        (f"{PREFIX}/jobs/{identifier}", "job_id"),
        (f"/api/jobs/{identifier}/files", "job_id"),
        (f"{PREFIX}/projects/{identifier}", "project_id"),
    ):
        response = client.get(url)
        assert_problem(response, 422, "invalid_identifier", field)
        assert len(response.data) < 3000
    response = client.post(f"/api/jobs/{identifier}/complete")
    assert_problem(response, 422, "invalid_identifier", "job_id")
    assert_problem(client.get(f"{PREFIX}/{identifier}"), 404, "not_found")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "path", ["file_metadata.json", "batch_00001_.png", ".comfy_files", "%2e%2e", "*", "%25", "_"]
)
def test_a_name_is_no_file_id(client: FlaskClient, path: str) -> None:
    assert_problem(client.get(f"{PREFIX}/{path}"), 404, "not_found")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("sign", ["a", "_", "%25", "%2a", "%00", "%0A", "%ff", "é", "%22", "'"])
def test_what_only_has_the_length_of_a_file_id_is_none(client: FlaskClient, sign: str) -> None:
    assert_problem(client.get(f"{PREFIX}/{sign * 32}"), 404, "record_not_found")


@pytest.mark.usefixtures("unchanged")
def test_an_encoded_slash_leads_nowhere(client: FlaskClient) -> None:
    for url in (f"{PREFIX}/jobs/..%2f..%2fetc%2fpasswd", f"{PREFIX}/..%2f..%2fetc%2fpasswd"):
        assert_problem(client.get(url), 404, "not_found")


@pytest.mark.usefixtures("unchanged")
def test_a_refused_value_is_quoted_so_that_it_harms_no_reader(client: FlaskClient) -> None:
    hostile = "<script>\x1b[2J\u202e\"'"
    response = organize(client, {"job_id": hostile})
    body = assert_problem(response, 422, "invalid_identifier", "job_id")
    assert "\x1b" not in json.dumps(body, ensure_ascii=False)
    assert "\u202e" not in response.text
    assert "<script>" in body["detail"]
