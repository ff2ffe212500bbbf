from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, jsonify, redirect, request, stream_with_context
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.web import worker
from tests.conftest import MakeTree
from tests.trees import outputs, recording
from tests.web.answers import (
    BATCH,
    PREFIX,
    Json,
    answer_of,
    assert_problem,
    history_files,
    kept,
    post,
)
from tests.web.conftest import MakeHost, Register, lock_held_elsewhere

ROUTE = "/api/jobs/<job_id>/complete"
NOTHING: Json = {"organized_files": [], "file_count": 0}

Answer = Callable[[], ResponseReturnValue]
MakeAnimeApi = Callable[..., Flask]

ORDERS = pytest.mark.parametrize("order", ["route-first", "route-last"])
"""Whether the host registers its route before or after us."""


@pytest.fixture
def make_anime_api(register: Register, output_root: Path) -> MakeAnimeApi:
    """Return what makes a host with a completion route that answers as it is told."""

    def make(
        answer: Answer, rule: str = ROUTE, *, order: str = "route-first", **settings: Any
    ) -> Flask:
        host = Flask("anime_api")

        def complete(**_: object) -> ResponseReturnValue:
            return answer()

        if order == "route-first":
            host.add_url_rule(rule, "complete", complete, methods=["POST"])
        register(host, **{"output_dir": output_root, **settings})
        if order == "route-last":
            host.add_url_rule(rule, "complete", complete, methods=["POST"])
        return host

    return make


@pytest.fixture
def anime_api(make_anime_api: MakeAnimeApi) -> FlaskClient:
    """Return a client of a host that answers ``{"status": "ok"}``."""
    return make_anime_api(lambda: {"status": "ok"}).test_client()


def complete(client: FlaskClient, job_id: str = "batch", body: object = None) -> TestResponse:
    return post(client, f"/api/jobs/{job_id}/complete", {} if body is None else body)


def names_of(answer: Json) -> list[str]:
    return [record["original_path"] for record in answer["organized_files"]]


def status_of(client: FlaskClient) -> Json:
    return answer_of(client.get(f"{PREFIX}/status"))


# What the host answers, and what stays of it.


def text_with_a_type() -> ResponseReturnValue:
    return Response('{"status": "ok"}', mimetype="application/vnd.anime+json")


OBJECTS: dict[str, Answer] = {
    "dict": lambda: {"status": "ok"},
    "tuple-with-status": lambda: ({"status": "ok"}, 201),
    "tuple-with-headers": lambda: ({"status": "ok"}, {"X-Host": "anime"}),
    "tuple-with-both": lambda: ({"status": "ok"}, 202, {"X-Host": "anime"}),
    "jsonify": lambda: jsonify(status="ok"),
    "response": lambda: Response('{"status": "ok"}', mimetype="application/json"),
    "response-in-parts": lambda: Response(['{"status"', ': "ok"}'], mimetype="application/json"),
    "response-with-a-json-type-of-its-own": text_with_a_type,
}


@ORDERS
@pytest.mark.parametrize("answer", OBJECTS.values(), ids=OBJECTS)
def test_the_answer_of_the_host_gets_the_two_keys(
    make_anime_api: MakeAnimeApi, output_root: Path, answer: Answer, order: str
) -> None:
    bare = Flask("bare")
    bare.add_url_rule("/", view_func=answer, methods=["POST"])
    alone = bare.test_client().post("/")

    client = make_anime_api(answer, order=order).test_client()
    response = complete(client)
    answered = response.get_json()
    assert names_of(answered) == BATCH
    assert answered == {
        "status": "ok",
        "organized_files": answer_of(client.get(f"{PREFIX}/jobs/batch"))["files"],
        "file_count": 4,
    }
    assert response.status_code == alone.status_code
    assert response.content_length == len(response.data)
    without_length = [header for header in response.headers if header[0] != "Content-Length"]
    assert without_length == [header for header in alone.headers if header[0] != "Content-Length"]
    assert not (output_root / BATCH[0]).exists()


def streamed() -> ResponseReturnValue:
    def parts() -> Iterator[str]:
        yield '{"status": '
        yield '"ok"}'

    return Response(stream_with_context(parts()), mimetype="application/json")


def encoded(body: bytes, encoding: str) -> Answer:
    headers = {"Content-Encoding": encoding}
    return lambda: Response(body, mimetype="application/json", headers=headers)


def of_bytes(body: bytes, mimetype: str = "application/json") -> Answer:
    return lambda: Response(body, mimetype=mimetype)


NO_OBJECTS: dict[str, Answer] = {
    "plain-text": lambda: "done",
    "html": lambda: "<p>done</p>",
    "text-that-looks-like-json": of_bytes(b'{"status": "ok"}', "text/plain"),
    "json-list": lambda: ["done", {"status": "ok"}],
    "json-string": of_bytes(b'"done"'),
    "json-null": of_bytes(b"null"),
    "nothing": lambda: ("", 204),
    "nothing-called-json": of_bytes(b""),
    "no-json-at-all": of_bytes(b'{"status": ok}'),
    "guarded-json": of_bytes(b')]}\',\n{"status": "ok"}'),
    "two-values": of_bytes(b'{"status": "ok"}\n{"status": "ok"}'),
    "utf-16": of_bytes('{"status": "ok"}'.encode("utf-16")),
    "utf-16-without-a-mark": of_bytes('{"status": "ok"}'.encode("utf-16-le")),
    "utf-32": of_bytes('{"status": "ok"}'.encode("utf-32")),
    "latin-1": of_bytes('{"status": "é"}'.encode("latin-1")),
    "byte-order-mark": of_bytes(b'\xef\xbb\xbf{"status": "ok"}'),
    "nested-too-deeply-to-look-into": of_bytes(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "number-too-long-to-look-into": of_bytes(b'{"status": ' + b"9" * 5000 + b"}"),
    "streamed": streamed,
    "compressed": encoded(gzip.compress(b'{"status": "ok"}', mtime=0), "gzip"),
    "encoded-and-json-by-chance": encoded(b'{"status": "ok"}', "br"),
}


@pytest.mark.parametrize("answer", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_an_answer_that_is_no_json_object_stays_as_it_is_and_the_job_is_organized(
    make_anime_api: MakeAnimeApi, answer: Answer
) -> None:
    bare = Flask("bare")
    bare.add_url_rule("/", view_func=answer, methods=["POST"])
    alone = bare.test_client().post("/")

    client = make_anime_api(answer).test_client()
    response = complete(client)
    assert (response.status_code, list(response.headers)) == (
        alone.status_code,
        list(alone.headers),
    )
    assert response.data == alone.data
    assert answer_of(client.get(f"{PREFIX}/jobs/batch"))["file_count"] == 4


BYTES = {
    "floats": b'{"b": 1.0, "a": 1e2, "c": 0.10000000000000000555, "d": -0.0}',
    "large-integers": b'{"n": 123456789012345678901234567890}',
    "no-numbers": b'{"n": NaN, "i": -Infinity}',
    "order-of-keys": b'{"z": 1, "a": 2, "m": 3}',
    "a-key-twice": b'{"a": 1, "a": 2}',
    "unicode": '{"title": "東京 – été 🎬"}'.encode(),
    "escapes": rb'{"title": "\u6771\/\u4eac \ud83c\udfac \ud800"}',
    "spaces": b' \r\n{ "a" :\t[ ] , "b" : { } \n }',
    "braces-in-strings": b'{"a": "}", "b": {"c": "}{"}}',
}


@pytest.mark.parametrize("tail", [b"", b"\n", b" \n\n"], ids=["", "newline", "newlines"])
@pytest.mark.parametrize("body", BYTES.values(), ids=BYTES)
def test_the_bytes_of_the_host_are_kept_exactly(
    make_anime_api: MakeAnimeApi, body: bytes, tail: bytes
) -> None:
    response = complete(make_anime_api(of_bytes(body + tail)).test_client())
    whole = body.rstrip().removesuffix(b"}").rstrip()
    assert response.data.startswith(whole + b', "organized_files": [')
    assert response.data.endswith(b'"file_count": 4}' + tail)
    assert names_of(json.loads(response.data)) == BATCH


@pytest.mark.parametrize("body", [b"{}", b" { \n} \n"])
def test_an_empty_object_gets_the_two_keys(make_anime_api: MakeAnimeApi, body: bytes) -> None:
    answered = complete(make_anime_api(of_bytes(body)).test_client()).get_json()
    assert names_of(answered) == BATCH
    assert set(answered) == {"organized_files", "file_count"}


@pytest.mark.parametrize("value", [None, [], "mine", 0])
def test_a_key_that_the_host_answers_is_not_overwritten(
    make_anime_api: MakeAnimeApi, value: Any
) -> None:
    host = make_anime_api(lambda: jsonify(organized_files=value))
    answered = complete(host.test_client()).get_json()
    assert answered == {"organized_files": value, "file_count": 4}

    host = make_anime_api(lambda: jsonify(file_count=value, organized_files=value))
    assert complete(host.test_client()).get_json() == {
        "organized_files": value,
        "file_count": value,
    }


def test_an_entity_tag_of_the_host_is_that_of_the_bytes_that_are_sent(
    make_anime_api: MakeAnimeApi,
) -> None:
    def tagged() -> ResponseReturnValue:
        response = jsonify(status="ok")
        response.add_etag()
        return response

    response = complete(make_anime_api(tagged).test_client())
    sent = Response(response.data)
    sent.add_etag()
    assert response.get_etag() == sent.get_etag()


def fails() -> ResponseReturnValue:
    message = "the database of the host is down"
    raise RuntimeError(message)


NO_SUCCESS: dict[str, tuple[Answer, int]] = {
    "bad-request": (lambda: ({"error": "no"}, 400), 400),
    "unauthorized": (lambda: abort(401), 401),
    "not-found": (lambda: abort(404), 404),
    "conflict": (lambda: ({"error": "already complete"}, 409), 409),
    "redirect": (lambda: redirect("/elsewhere"), 302),
    "not-modified": (lambda: ("", 304), 304),
    "error": (lambda: ({"error": "down"}, 503), 503),
    "exception": (fails, 500),
}


@pytest.mark.parametrize(("answer", "status"), NO_SUCCESS.values(), ids=NO_SUCCESS)
def test_a_completion_that_the_host_refuses_organizes_nothing(
    make_anime_api: MakeAnimeApi, output_root: Path, answer: Answer, status: int
) -> None:
    before = kept(output_root)
    client = make_anime_api(answer).test_client()
    response = complete(client)
    assert response.status_code == status
    assert "organized_files" not in response.text
    assert kept(output_root) == before
    assert_problem(client.get(f"{PREFIX}/jobs/batch"), 404, "job_not_found")


def test_a_completion_that_the_host_stops_before_its_route_organizes_nothing(
    register: Register, output_root: Path
) -> None:
    for order in ("check-first", "check-last"):
        host = Flask("anime_api")
        if order == "check-last":
            register(host, output_dir=output_root)

        @host.before_request
        def require_login() -> None:
            abort(401)

        if order == "check-first":
            register(host, output_dir=output_root)
        host.add_url_rule(ROUTE, "complete", lambda job_id: {"id": job_id}, methods=["POST"])
        before = kept(output_root)
        assert complete(host.test_client()).status_code == 401
        assert kept(output_root) == before


def test_the_functions_that_the_host_runs_after_requests_see_the_two_keys(
    make_anime_api: MakeAnimeApi,
) -> None:
    seen: list[list[str]] = []
    host = make_anime_api(lambda: {"status": "ok"})

    @host.after_request
    def look(response: Response) -> Response:
        seen.append(sorted(response.get_json()))
        response.headers["X-Seen"] = str(len(response.get_data()))
        return response

    response = complete(host.test_client())
    assert seen == [["file_count", "organized_files", "status"]]
    assert int(response.headers["X-Seen"]) == len(response.data) == response.content_length


def test_other_routes_of_the_host_are_none_of_our_business(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    host = make_anime_api(lambda: {"status": "ok"})
    host.add_url_rule("/api/jobs/<job_id>/complete", "look", lambda job_id: {"id": job_id})
    host.add_url_rule("/api/jobs/<job_id>/cancel", "cancel", lambda **_: {}, methods=["POST"])
    before = kept(output_root)
    client = host.test_client()
    assert client.get("/api/jobs/batch/complete").get_json() == {"id": "batch"}
    assert client.post("/api/jobs/batch/cancel").get_json() == {}
    assert kept(output_root) == before


# Where the host has its route.

RULES = {
    "another-name": "/api/jobs/<identifier>/complete",
    "string": "/api/jobs/<string(minlength=2):name>/complete",
    "path": "/api/jobs/<path:job>/complete",
    "any": "/api/jobs/<any(batch, mix):which>/complete",
    "slash-at-the-end": "/api/jobs/<job_id>/complete/",
}


@ORDERS
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_variable_of_the_route_may_be_called_and_converted_as_the_host_likes(
    make_anime_api: MakeAnimeApi, rule: str, order: str
) -> None:
    host = make_anime_api(lambda: {"status": "ok"}, rule, order=order)
    url = rule.replace(rule[rule.index("<") : rule.index(">") + 1], "batch")
    answered = post(host.test_client(), url, {}).get_json()
    assert answered["status"] == "ok"
    assert names_of(answered) == BATCH


@ORDERS
@pytest.mark.parametrize(
    ("rule", "job_id"),
    [
        ("/api/jobs/<int:number>/complete", "7"),
        ("/api/jobs/<uuid:job_id>/complete", "33333333-3333-4333-8333-333333333333"),
    ],
)
def test_an_id_that_is_converted_is_used_as_text(
    make_anime_api: MakeAnimeApi, make_tree: MakeTree, rule: str, job_id: str, order: str
) -> None:
    make_tree({f"{job_id}_00001_.png": recording(BATCH[0])})
    client = make_anime_api(lambda: {"status": "ok"}, rule, order=order).test_client()
    answered = complete(client, job_id).get_json()
    assert answered["status"] == "ok"
    assert f"{job_id}_00001_.png" in names_of(answered)
    assert {record["job_id"] for record in answered["organized_files"]} == {job_id}


@ORDERS
def test_an_id_that_the_route_of_the_host_does_not_take_is_not_taken_by_ours(
    make_anime_api: MakeAnimeApi, output_root: Path, order: str
) -> None:
    rule = "/api/jobs/<int:number>/complete"
    host = make_anime_api(lambda: {"status": "ok"}, rule, order=order)
    host.register_error_handler(404, lambda _: ("the page of the host", 404))
    before = kept(output_root)
    response = complete(host.test_client())
    assert (response.status_code, response.text) == (404, "the page of the host")
    assert kept(output_root) == before


@ORDERS
def test_the_route_may_be_one_of_a_blueprint(
    register: Register, output_root: Path, order: str
) -> None:
    jobs = Blueprint("jobs", "jobs", url_prefix="/jobs")
    jobs.add_url_rule("/<job_id>/complete", "complete", lambda **_: {"ok": 1}, methods=["POST"])
    api = Blueprint("api", "api", url_prefix="/api")
    api.register_blueprint(jobs)
    host = Flask("anime_api")
    if order == "route-first":
        host.register_blueprint(api)
    register(host, output_dir=output_root)
    if order == "route-last":
        host.register_blueprint(api)
    answered = complete(host.test_client()).get_json()
    assert (answered["ok"], answered["file_count"]) == (1, 4)


def test_the_route_may_be_another_by_a_setting(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    rule = "/v2/renders/<render>/done"
    host = make_anime_api(lambda: {"ok": 1}, rule, complete_route="/v2/renders/<job_id>/done")
    client = host.test_client()
    before = kept(output_root)
    assert complete(client).status_code == 404
    assert kept(output_root) == before
    assert post(client, "/v2/renders/batch/done", {}).get_json()["file_count"] == 4


def test_the_defaults_of_a_route_are_not_taken_for_its_job(
    register: Register, output_root: Path
) -> None:
    host = Flask("anime_api")
    host.add_url_rule(
        ROUTE, "complete", lambda **_: {"ok": 1}, methods=["POST"], defaults={"a": "mix"}
    )
    register(host, output_dir=output_root)
    assert names_of(complete(host.test_client()).get_json()) == BATCH


# A host without the route.


def test_a_host_without_the_route_gets_one(make_host: MakeHost) -> None:
    client = make_host().test_client()
    answered = answer_of(complete(client, "clip", {"files": history_files("vhs_mp4")}))
    assert answered == {
        "status": "completed",
        "job_id": "clip",
        "organized_files": answer_of(client.get(f"{PREFIX}/jobs/clip"))["files"],
        "file_count": 2,
    }


def test_our_own_route_takes_a_completion_without_a_body(client: FlaskClient) -> None:
    answered = answer_of(client.post("/api/jobs/batch/complete"))
    assert (answered["status"], names_of(answered)) == ("completed", BATCH)


def test_our_own_route_yields_to_one_that_the_host_registers_later(
    make_host: MakeHost,
) -> None:
    host = make_host()
    host.add_url_rule(ROUTE, "complete", lambda job_id: {"host": job_id}, methods=["POST"])
    answered = complete(host.test_client()).get_json()
    assert (answered["host"], answered["file_count"]) == ("batch", 4)
    assert "status" not in answered


def test_our_own_route_answers_a_job_of_another_project_with_a_conflict(
    client: FlaskClient, output_root: Path
) -> None:
    answer_of(complete(client, body={"project_id": "first"}))
    before = kept(output_root)
    response = complete(client, body={"project_id": "second"})
    assert_problem(response, 409, "job_in_other_project")
    assert kept(output_root) == before


# What the completion says of its files.


def test_project_run_and_files_are_taken_from_the_body_of_the_completion(
    anime_api: FlaskClient, output_root: Path
) -> None:
    body = {
        "project_id": "tokyo_debt_series",
        "prompt_id": "1cf6549e-dcba-4ea2-968b-6168c1a7daf4",
        "files": history_files("multi_outputs")[:6],
        "seconds": 12.5,
    }
    answered = complete(anime_api, "job_9", body).get_json()
    assert names_of(answered) == [f"ep01/key_0000{number}_.png" for number in range(1, 7)]
    for record in answered["organized_files"]:
        assert record["project_id"] == "tokyo_debt_series"
        assert record["prompt_id"] == body["prompt_id"]
        assert record["evidence"] == "files"
        assert record["path"].startswith("projects/tokyo_debt_series/job_9/job_9_")
        assert (output_root / record["path"]).is_file()


def test_a_later_completion_that_names_no_project_keeps_that_of_the_job(
    anime_api: FlaskClient,
) -> None:
    first = complete(anime_api, body={"project_id": "anime"}).get_json()
    second = complete(anime_api).get_json()
    assert second == first
    assert {record["project_id"] for record in second["organized_files"]} == {"anime"}


SAYS_NOTHING = {
    "empty": b"",
    "text": b"done",
    "list": b'["done"]',
    "null": b"null",
    "cut-short": b'{"project_id": "anime"',
    "not-utf-8": b'{"project_id": "\xff\xfe"}',
    "too-deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", SAYS_NOTHING.values(), ids=SAYS_NOTHING)
def test_a_body_that_says_nothing_to_us_leaves_the_files_to_be_found_by_their_names(
    anime_api: FlaskClient, body: bytes
) -> None:
    answered = complete(anime_api, body=body).get_json()
    assert names_of(answered) == BATCH
    assert {record["project_id"] for record in answered["organized_files"]} == {"default"}


AS_THE_HOST_READS_IT = {
    "no-number": b'{"project_id": "anime", "files": ["batch_00003_.png"], "loss": NaN}',
    "large-number": b'{"project_id": "anime", "files": ["batch_00003_.png"], "loss": 1e999}',
    "key-twice": b'{"a": 1, "a": 2, "project_id": "anime", "files": ["batch_00003_.png"]}',
    "half-a-pair": b'{"a": "\\ud800", "project_id": "anime", "files": ["batch_00003_.png"]}',
    "utf-16": '{"project_id": "anime", "files": ["batch_00003_.png"]}'.encode("utf-16"),
}


@pytest.mark.parametrize("body", AS_THE_HOST_READS_IT.values(), ids=AS_THE_HOST_READS_IT)
def test_a_body_that_the_host_can_read_is_not_passed_over_for_its_form(
    anime_api: FlaskClient, body: bytes
) -> None:
    answered = complete(anime_api, body=body).get_json()
    assert names_of(answered) == ["batch_00003_.png"]
    assert answered["organized_files"][0]["project_id"] == "anime"


@pytest.mark.parametrize("reader", ["host", "nobody"])
def test_a_large_upload_of_the_host_does_not_keep_the_job_from_being_organized(
    make_anime_api: MakeAnimeApi, reader: str
) -> None:
    def answer() -> ResponseReturnValue:
        return {"bytes": len(request.get_data()) if reader == "host" else -1}

    client = make_anime_api(answer).test_client()
    body = b"\0" * (5 * 1024**2)
    response = post(
        client, "/api/jobs/batch/complete", body, content_type="application/octet-stream"
    )
    answered = response.get_json()
    assert answered["bytes"] == (len(body) if reader == "host" else -1)
    assert names_of(answered) == BATCH


REFUSED: dict[str, tuple[str, Any, str]] = {
    "project-id-flag": ("batch", {"project_id": True}, "project_id"),
    "project-id-list": ("batch", {"project_id": ["anime"]}, "project_id"),
    "project-id-parent": ("batch", {"project_id": "../anime"}, "project_id"),
    "prompt-id-object": ("batch", {"prompt_id": {}}, "prompt_id"),
    "prompt-id-nul": ("batch", {"prompt_id": "a\0"}, "prompt_id"),
    "files-string": ("batch", {"files": BATCH[0]}, "files"),
    "files-object": ("batch", {"files": {"filename": BATCH[0]}}, "files"),
    "files-of-numbers": ("batch", {"files": [1]}, "files[0]"),
    "files-of-null": ("batch", {"files": [None]}, "files[0]"),
    "file-absolute": ("batch", {"files": ["/etc/passwd"]}, "files[0]"),
    "file-parent": ("batch", {"files": [BATCH[0], "../x"]}, "files[1]"),
    "file-type-list": ("batch", {"files": [{"filename": BATCH[0], "type": []}]}, "files[0].type"),
    "too-many-files": ("batch", {"files": ["a"] * 20_001}, "files"),
    "job-id-dot": (".batch", {}, "job_id"),
    "job-id-long": ("a" * 101, {}, "job_id"),
    "job-id-space": ("bat%20ch", {}, "job_id"),
    "too-large": ("batch", b'{"status": "%s"}' % (b"a" * 5 * 1024**2), "body"),
}


def test_a_host_may_keep_its_ids_as_numbers(anime_api: FlaskClient) -> None:
    answered = complete(anime_api, "batch", {"project_id": 7, "prompt_id": 12}).get_json()
    assert {record["project_id"] for record in answered["organized_files"]} == {"7"}
    assert {record["prompt_id"] for record in answered["organized_files"]} == {"12"}


@pytest.mark.parametrize(("job_id", "body", "field"), REFUSED.values(), ids=REFUSED)
def test_what_we_refuse_is_said_and_the_success_of_the_host_stays(
    anime_api: FlaskClient, output_root: Path, job_id: str, body: object, field: str
) -> None:
    before = kept(output_root)
    response = complete(anime_api, job_id, body)
    answered = response.get_json()
    error = answered.pop("organize_error")
    assert response.status_code == 200
    assert answered == {"status": "ok", **NOTHING}
    assert field in error
    assert len(error) < 1000
    assert kept(output_root) == before
    assert status_of(anime_api)["pending_jobs"] == 0


def test_a_conflict_is_said_and_the_success_of_the_host_stays(
    anime_api: FlaskClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complete(anime_api, body={"project_id": "first"})
    before = kept(output_root)
    answered = complete(anime_api, body={"project_id": "second"}).get_json()
    assert "first" in answered.pop("organize_error")
    assert answered == {"status": "ok", **NOTHING}
    assert kept(output_root) == before
    assert status_of(anime_api)["pending_jobs"] == 0
    assert any("batch" in record.getMessage() for record in caplog.records)


# What cannot be done now is pending, and is finished later.


@pytest.fixture
def unfinished(output_root: Path) -> Iterator[Callable[[], None]]:
    """Have the second file of the batch open for writing; return what closes it."""
    with (output_root / BATCH[1]).open("ab") as writer:
        yield writer.close


def assert_pending(client: FlaskClient, answered: Json, *, because: str = "") -> None:
    """Check that a completion was answered as pending, and that the status shows it."""
    assert (answered["status"], answered["file_count"]) == ("ok", len(answered["organized_files"]))
    assert isinstance(answered["organize_error"], str)
    assert answered["organize_error"]
    assert len(answered["organize_operation_id"]) == 32
    assert set(answered) == {
        *("status", "organized_files", "file_count"),
        *("organize_error", "organize_operation_id"),
    }
    status = status_of(client)
    assert status["pending_jobs"] == 1
    assert because in answered["organize_error"]


def test_a_file_that_is_still_being_written_leaves_the_job_pending(
    anime_api: FlaskClient, unfinished: Callable[[], None], output_root: Path
) -> None:
    answered = complete(anime_api).get_json()
    assert_pending(anime_api, answered)
    assert answered["organize_error"] == "still_being_written"
    assert names_of(answered) == [BATCH[0], *BATCH[2:]]
    assert (output_root / BATCH[1]).exists()
    assert "pending" in status_of(anime_api)["health"]["messages"][0]
    unfinished()


def test_the_same_completion_again_finishes_a_pending_job(
    anime_api: FlaskClient, unfinished: Callable[[], None]
) -> None:
    complete(anime_api)
    unfinished()
    answered = complete(anime_api).get_json()
    assert sorted(names_of(answered)) == BATCH
    assert set(answered) == {"status", "organized_files", "file_count"}
    assert status_of(anime_api)["pending_jobs"] == 0
    assert status_of(anime_api)["health"] == {"state": "ok", "messages": []}


def test_the_completion_of_another_job_finishes_a_pending_one(
    anime_api: FlaskClient, unfinished: Callable[[], None]
) -> None:
    complete(anime_api, body={"project_id": "anime"})
    unfinished()
    answered = complete(anime_api, "mix").get_json()
    assert names_of(answered) == ["mix_00001_.png"]
    job = answer_of(anime_api.get(f"{PREFIX}/jobs/batch"))
    assert sorted(record["original_path"] for record in job["files"]) == BATCH
    assert (job["project_id"], job["reason"]) == ("anime", None)
    assert status_of(anime_api)["pending_jobs"] == 0


def test_the_command_finishes_a_pending_job(
    make_anime_api: MakeAnimeApi, unfinished: Callable[[], None]
) -> None:
    host = make_anime_api(lambda: {"status": "ok"})
    complete(host.test_client())
    unfinished()
    result = host.test_cli_runner().invoke(args=["files", "retry"])
    assert (result.exit_code, "batch: organized, 4 files" in result.output) == (0, True)
    assert status_of(host.test_client())["pending_jobs"] == 0


def test_a_pending_job_survives_a_restart_with_all_that_its_completion_said(
    make_anime_api: MakeAnimeApi, unfinished: Callable[[], None]
) -> None:
    body = {"project_id": "anime", "prompt_id": "run-1", "files": BATCH[1:3]}
    before = make_anime_api(lambda: {"status": "ok"})
    answered = complete(before.test_client(), "job_9", body).get_json()
    assert_pending(before.test_client(), answered)
    before.extensions["comfy_files"].close()

    after = make_anime_api(lambda: {"status": "ok"})
    assert status_of(after.test_client())["pending_jobs"] == 1
    unfinished()
    manager: FileManager = after.extensions["comfy_files"]
    (report,) = manager.retry_pending_jobs().organized
    assert report.operation_id == answered["organize_operation_id"]
    job = answer_of(after.test_client().get(f"{PREFIX}/jobs/job_9"))
    assert job["project_id"] == "anime"
    assert sorted(record["original_path"] for record in job["files"]) == BATCH[1:3]
    assert {record["prompt_id"] for record in job["files"]} == {"run-1"}
    assert status_of(after.test_client())["pending_jobs"] == 0


def test_a_thread_finishes_a_pending_job_and_ends(
    anime_api: FlaskClient,
    unfinished: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_FIRST_DELAY_S", 0.01)
    others = set(threading.enumerate())
    assert_pending(anime_api, complete(anime_api).get_json())
    (thread,) = [one for one in threading.enumerate() if one not in others]
    assert thread.daemon
    unfinished()
    thread.join(timeout=20)
    assert not thread.is_alive()
    job = answer_of(anime_api.get(f"{PREFIX}/jobs/batch"))
    assert sorted(record["original_path"] for record in job["files"]) == BATCH
    assert status_of(anime_api)["pending_jobs"] == 0


def test_no_thread_is_started_where_nothing_is_pending(anime_api: FlaskClient) -> None:
    others = set(threading.enumerate())
    assert complete(anime_api).get_json()["file_count"] == 4
    complete(anime_api, "batch", {"project_id": 7})
    assert [one for one in threading.enumerate() if one not in others] == []


def test_a_lock_that_another_process_holds_leaves_the_job_pending(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    host = make_anime_api(lambda: {"status": "ok"}, lock_timeout=0.05, request_budget_seconds=0.1)
    client = host.test_client()
    complete(client, "mix")
    before = kept(output_root)
    with lock_held_elsewhere(output_root):
        answered = complete(client).get_json()
        assert_pending(client, answered)
        assert (answered["organized_files"], answered["file_count"]) == ([], 0)
        assert kept(output_root) == before
    complete(client, "pv")
    job = answer_of(client.get(f"{PREFIX}/jobs/batch"))
    assert [record["original_path"] for record in job["files"]] == BATCH
    assert status_of(client)["pending_jobs"] == 0


def test_more_bytes_than_a_request_may_organize_leave_the_job_to_the_command(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    host = make_anime_api(lambda: {"status": "ok"}, request_budget_bytes=10_000)
    client = host.test_client()
    before = outputs(output_root)
    answered = complete(client).get_json()
    assert_pending(client, answered, because="larger than one request may organize")
    assert (answered["organized_files"], answered["file_count"]) == ([], 0)
    assert outputs(output_root) == before
    known = answer_of(client.get(f"{PREFIX}/jobs/batch"))
    assert (known["files"], "larger" in known["reason"]) == ([], True)

    complete(client, "mix")
    assert status_of(client)["pending_jobs"] == 1
    assert host.test_cli_runner().invoke(args=["files", "retry"]).exit_code == 0
    assert answer_of(client.get(f"{PREFIX}/jobs/batch"))["file_count"] == 4
    assert status_of(client)["pending_jobs"] == 0


def test_more_time_than_a_request_may_take_leaves_the_job_pending(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    host = make_anime_api(lambda: {"status": "ok"}, request_budget_seconds=1e-9)
    before = outputs(output_root)
    answered = complete(host.test_client()).get_json()
    assert_pending(host.test_client(), answered, because="its time is over")
    assert outputs(output_root) == before
    assert host.test_cli_runner().invoke(args=["files", "retry"]).exit_code == 0
    assert status_of(host.test_client())["pending_jobs"] == 0


def test_a_missing_root_leaves_the_job_pending_and_the_next_completion_finishes_it(
    make_anime_api: MakeAnimeApi, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_anime_api(lambda: {"status": "ok"}).test_client()
    away = output_root.rename(output_root.with_name("away"))
    answered = complete(client, body={"project_id": "anime"}).get_json()
    assert_pending(client, answered, because="does not exist")
    assert (answered["organized_files"], answered["file_count"]) == ([], 0)
    assert not output_root.exists()
    assert any(
        record.levelno >= logging.WARNING and "batch" in record.getMessage()
        for record in caplog.records
    )

    away.rename(output_root)
    assert names_of(complete(client, "mix").get_json()) == ["mix_00001_.png"]
    job = answer_of(client.get(f"{PREFIX}/jobs/batch"))
    assert (job["project_id"], job["file_count"]) == ("anime", 4)
    assert status_of(client)["pending_jobs"] == 0


def test_a_thread_finishes_the_job_when_a_missing_root_is_back(
    make_anime_api: MakeAnimeApi, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_FIRST_DELAY_S", 0.01)
    client = make_anime_api(lambda: {"status": "ok"}).test_client()
    away = output_root.rename(output_root.with_name("away"))
    others = set(threading.enumerate())
    complete(client)
    (thread,) = [one for one in threading.enumerate() if one not in others]
    away.rename(output_root)
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert answer_of(client.get(f"{PREFIX}/jobs/batch"))["file_count"] == 4


def test_a_full_volume_leaves_the_job_pending(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    host = make_anime_api(lambda: {"status": "ok"}, min_free_bytes=1024**6)
    before = outputs(output_root)
    answered = complete(host.test_client()).get_json()
    assert_pending(host.test_client(), answered, because="bytes are needed")
    assert outputs(output_root) == before


def test_a_damaged_document_is_rebuilt_by_the_completion(
    make_anime_api: MakeAnimeApi, output_root: Path
) -> None:
    client = make_anime_api(lambda: {"status": "ok"}).test_client()
    (output_root / DOCUMENT).write_bytes(b"no JSON at all\n")
    answered = complete(client).get_json()
    assert (answered["status"], answered["file_count"]) == ("ok", 4)
    assert len(list(output_root.glob(f"{DOCUMENT}.damaged-*"))) == 1


def test_our_own_route_answers_what_is_pending_with_success_and_says_so(
    client: FlaskClient, unfinished: Callable[[], None]
) -> None:
    answered = answer_of(complete(client))
    assert answered["status"] == "completed"
    assert answered["organize_error"] == "still_being_written"
    assert len(answered["organize_operation_id"]) == 32
    unfinished()


def test_organizing_by_the_other_route_finishes_a_pending_job(
    anime_api: FlaskClient, unfinished: Callable[[], None]
) -> None:
    complete(anime_api)
    unfinished()
    answer = answer_of(post(anime_api, f"{PREFIX}/organize", {"job_id": "batch"}))
    assert answer["file_count"] == 4
    assert status_of(anime_api)["pending_jobs"] == 0
