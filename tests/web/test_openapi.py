"""The description of the REST interface: valid, complete, and what a real server does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from flask_comfy_files.web.openapi import examples
from flask_comfy_files.web.problems import status_of
from flask_comfy_files.web.route import Bytes
from flask_comfy_files.web.table import ROUTES
from tests.web.answers import PREFIX
from tests.web.conftest import MakeHost

Json = dict[str, Any]
WANTED = [route for route in ROUTES if route.setting is None]
"""The routes that an app has without any setting."""

HERE = Path(__file__).parent
TOKEN = "sesame"


@pytest.fixture
def document(client: FlaskClient) -> Json:
    response = client.get(f"{PREFIX}/openapi.json")
    assert (response.status_code, response.content_type) == (200, "application/json")
    found: Json = response.get_json()
    return found


def operations(document: Json) -> Iterator[Json]:
    for methods in document["paths"].values():
        yield from methods.values()


def contents(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield what can be sent and answered, each behind the name of its operation."""
    for operation in operations(document):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for part in parts:
            for content in part.get("content", {}).values():
                yield operation["operationId"], content


def validator(document: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


def test_it_is_valid(document: Json) -> None:
    validate(document)


def test_it_has_every_route_with_the_access_that_it_needs(document: Json) -> None:
    described = {
        operation["operationId"]: (method.upper(), operation["x-access"])
        for methods in document["paths"].values()
        for method, operation in methods.items()
    }
    assert described == {
        **{route.name: (route.method, route.action and str(route.action)) for route in WANTED},
        "complete_job": ("POST", "write"),
        "get_job_beside_host": ("GET", "read"),
    }


def test_each_operation_says_what_it_does_and_each_word_what_it_is(document: Json) -> None:
    schemas = document["components"]["schemas"].values()
    described = [
        *operations(document),
        *(word for operation in operations(document) for word in operation["parameters"]),
        *(key for schema in schemas for key in schema["properties"].values()),
    ]
    assert [entry for entry in described if len(entry.get("description", "")) < 4] == []


def test_every_body_and_every_answer_has_an_example_that_is_one(document: Json) -> None:
    for name, content in contents(document):
        if not content["schema"]:
            continue  # bytes
        given = [content["example"]] if "example" in content else []
        given += [example["value"] for example in content.get("examples", {}).values()]
        assert given, name
        for example in given:
            errors = list(validator(document, content["schema"]).iter_errors(example))
            assert errors == [], (name, errors[0].message)


def tallies(value: Any) -> tuple[int, int]:
    """Return how many files and bytes a part of a report tells of."""
    if isinstance(value, Mapping):
        return value["files"], value["bytes"]
    return len(value), sum(entry["bytes"] for entry in value)


def test_the_numbers_of_an_example_add_up(document: Json) -> None:
    parts = ["moved", "already_there", "restored", "assigned", "migrated", "moved_to_legacy"]
    parts += ["left", "undone", "already_undone", "skipped", "failed"]
    seen = 0
    for name, content in contents(document):
        example = content.get("example")
        if not isinstance(example, dict) or not isinstance(example.get("found"), dict):
            continue
        if "deleted_files" in example:  # a cleanup counts jobs
            assert example["found"]["files"] == example["deleted_files"], name
            continue
        told = [tallies(example[part]) for part in parts if part in example]
        assert tuple(map(sum, zip(*told, strict=True))) == tallies(example["found"]), name
        seen += 1
    assert seen > 3


def test_null_is_spoken_of_only_where_it_may_be(document: Json) -> None:
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        for key, described in schema["properties"].items():
            kinds = described.get("type", [part.get("type") for part in described.get("anyOf", [])])
            if re.search(r"\bnull\b", described["description"], re.IGNORECASE):
                seen += 1
                assert "null" in kinds, (name, key)
    assert seen > 20
    for operation in operations(document):
        for word in operation["parameters"]:
            assert "null" not in word["description"].lower(), word
            assert None not in word["schema"].get("enum", []), word


def test_the_example_of_a_task_is_of_the_kind_that_was_asked_for(document: Json) -> None:
    answer = document["paths"][f"{PREFIX}/migrate"]["post"]["responses"]["202"]
    assert answer["content"]["application/json"]["example"]["kind"] == "migrate"


def test_the_changes_in_the_example_of_an_operation_look_like_real_ones(
    client: FlaskClient, document: Json
) -> None:
    operation_id = client.post(f"{PREFIX}/organize", json={"job_id": "batch"}).get_json()[
        "operation_id"
    ]
    real = client.get(f"{PREFIX}/operations/{operation_id}").get_json()["changes"][0]
    answer = document["paths"][f"{PREFIX}/operations/{{operation_id}}"]["get"]["responses"]["200"]
    example = answer["content"]["application/json"]["example"]["changes"][0]
    assert (example.keys(), example["what"]) == (real.keys(), real["what"])


def test_every_error_of_a_route_is_described_with_its_status_and_its_code(document: Json) -> None:
    by_name = {operation["operationId"]: operation for operation in operations(document)}
    for route in WANTED:
        responses = by_name[route.name]["responses"]
        for kind in route.errors:
            error = examples.ERRORS.get(kind)  # type: ignore[arg-type]
            if error is not None:
                content = responses[str(int(status_of(error)))]["content"]
                assert error.code in content["application/problem+json"]["examples"]
        assert {"500"} <= set(responses)
        assert ("401" in responses) == ("403" in responses) == (route.action is not None)


def test_what_may_take_long_may_be_answered_with_a_task(document: Json) -> None:
    accepted = {
        operation["operationId"]
        for operation in operations(document)
        if "202" in operation["responses"]
    }
    assert accepted == {
        *("migrate", "cleanup", "plan_cleanup", "verify", "repair", "undo_operation"),
        *("empty_trash", "adopt", "cancel_task", "resume_task"),
    }


@pytest.mark.parametrize("public_read", [False, True])
def test_where_a_token_is_set_the_document_says_what_needs_it(
    make_host: MakeHost, *, public_read: bool
) -> None:
    host = make_host(token=TOKEN, public_read=public_read)
    response = host.test_client().get(f"{PREFIX}/openapi.json")
    assert TOKEN not in response.text
    open_actions = {None, "read"} if public_read else {None}
    for operation in operations(response.get_json()):
        needs_token = operation["x-access"] not in open_actions
        assert operation["security"] == ([{"token": []}] if needs_token else [])


@pytest.mark.parametrize(
    ("prefix", "server"), [("/files", ".."), ("/api/files", "../.."), ("/a/b/c", "../../..")]
)
def test_the_address_of_the_server_is_relative_to_the_document(
    make_host: MakeHost, prefix: str, server: str
) -> None:
    document = make_host(url_prefix=prefix).test_client().get(f"{prefix}/openapi.json").get_json()
    assert document["servers"] == [{"url": server}]
    assert f"{prefix}/status" in document["paths"]


def test_the_rule_of_the_completion_is_the_one_that_is_set(make_host: MakeHost) -> None:
    host = make_host(complete_route="/studio/<int:number>/done")
    paths = host.test_client().get(f"{PREFIX}/openapi.json").get_json()["paths"]
    assert paths["/studio/{job_id}/done"]["post"]["operationId"] == "complete_job"


def test_only_bytes_are_described_without_a_schema(document: Json) -> None:
    bytes_of = {route.name for route in WANTED if isinstance(route.answer, Bytes)}
    assert {name for name, content in contents(document) if not content["schema"]} == bytes_of
