"""What was only asked for comes with an ETag, and is not sent twice."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.web.answers import PREFIX, assert_problem, organize, post

JOB = f"{PREFIX}/jobs/batch"


@pytest.fixture(autouse=True)
def batch(client: FlaskClient) -> None:
    assert organize(client, {"job_id": "batch"}).status_code == 200


@pytest.mark.parametrize(
    "address",
    [JOB, "/api/jobs/batch/files", f"{PREFIX}/projects/default", f"{PREFIX}/operations"],
)
def test_an_answer_that_the_client_has_is_not_sent_again(client: FlaskClient, address: str) -> None:
    first = client.get(address)
    again = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"


def test_a_change_makes_another_answer_of_it(client: FlaskClient) -> None:
    first = client.get(JOB)
    assert client.patch(JOB, json={"tags": ["hero"]}).status_code == 200
    again = client.get(JOB, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200
    assert again.headers["ETag"] != first.headers["ETag"]
    assert again.get_json()["tags"] == ["hero"]


def test_the_etag_of_an_answer_can_be_asked_for_alone(client: FlaskClient) -> None:
    head = client.head(JOB)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == client.get(JOB).headers["ETag"]


def test_what_changes_something_has_no_etag(client: FlaskClient) -> None:
    response = organize(client, {"job_id": "batch"})
    assert "ETag" not in response.headers


def test_the_address_of_the_next_page_stands_in_the_header_link(client: FlaskClient) -> None:
    post(client, f"{PREFIX}/organize", {"job_id": "solo"})
    client.patch(JOB, json={"tags": ["hero"]})
    first = client.get(f"{PREFIX}/operations?limit=1&kind=organize")
    target, relation = first.headers["Link"].split("; ")
    assert relation == 'rel="next"'
    second = client.get(f"{PREFIX}/operations{target[1:-1]}")
    assert second.status_code == 200
    assert len(second.get_json()["operations"]) <= 1
    assert second.get_json()["operations"] != first.get_json()["operations"]


@pytest.mark.parametrize("address", [JOB, "/api/jobs/batch/files", f"{PREFIX}/status"])
def test_a_word_in_an_address_that_says_nothing_there_is_refused(
    client: FlaskClient, address: str
) -> None:
    response = client.get(f"{address}?permanent=true")
    assert (response.status_code, response.get_json()["code"]) == (422, "invalid_body")


@pytest.mark.parametrize("address", [JOB, f"{PREFIX}/view?filename=batch_00001_.png"])
def test_what_is_asked_of_another_state_is_not_answered(client: FlaskClient, address: str) -> None:
    response = client.get(address, headers={"If-Match": '"another"'})
    assert_problem(response, 412, "precondition_failed")
    tag = client.get(address, buffered=True).headers["ETag"]
    for right in (tag, "*", f'"another", {tag}'):
        answered = client.get(address, headers={"If-Match": right}, buffered=True)
        assert answered.status_code == 200
