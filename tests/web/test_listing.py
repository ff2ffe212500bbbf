"""Lists over HTTP: their pages, their links, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_comfy_files.core import listing
from flask_comfy_files.web.schemas.listing import PartQuery
from tests.web.answers import BATCH, PREFIX, Json, answer_of, assert_problem, organized
from tests.web.conftest import MakeHost

LISTS = {"files": PREFIX, "jobs": f"{PREFIX}/jobs", "projects": f"{PREFIX}/projects"}


@pytest.fixture
def library(client: FlaskClient) -> FlaskClient:
    """Return a client of a library with three jobs in two projects."""
    organized(client, {"job_id": "batch", "project_id": "tokyo"})
    organized(client, {"job_id": "loop", "project_id": "tokyo"})
    organized(client, {"job_id": "mix", "project_id": "osaka"})
    client.patch(f"{PREFIX}/jobs/loop", json={"pinned": True, "tags": ["hero shot"]})
    return client


def followed(client: FlaskClient, address: str, key: str) -> list[Json]:
    """Return what stands on all pages, each found by the link of the one before."""
    found: list[Json] = []
    base = address.partition("?")[0]
    while True:
        response = client.get(address)
        page = answer_of(response)
        found += page[key]
        link = response.headers.get("Link")
        assert (link is None) == (page["next_cursor"] is None)
        if link is None:
            return found
        target, relation = link.split("; ")
        assert relation == 'rel="next"'
        address = base + target[1:-1]


def test_a_listed_file_is_the_record_that_its_own_address_answers(library: FlaskClient) -> None:
    page = answer_of(library.get(PREFIX))
    assert list(page) == ["files", "next_cursor"]
    assert page["next_cursor"] is None
    assert len(page["files"]) == len({file["file_id"] for file in page["files"]}) == 7
    for file in page["files"]:
        assert file == answer_of(library.get(f"{PREFIX}/{file['file_id']}"))


def test_a_listed_job_and_a_listed_project_have_these_keys(library: FlaskClient) -> None:
    (job,) = answer_of(library.get(f"{LISTS['jobs']}?pinned=true"))["jobs"]
    whole = answer_of(library.get(f"{PREFIX}/jobs/loop"))
    keys = ["job_id", "project_id", "file_count", "total_size", "created_at", "pinned", "tags"]
    assert job == {key: whole[key] for key in keys}
    (project,) = answer_of(library.get(f"{LISTS['projects']}?q=toky"))["projects"]
    whole = answer_of(library.get(f"{PREFIX}/projects/tokyo"))
    keys = ["project_id", "job_count", "file_count", "total_size"]
    assert project == {key: whole[key] for key in keys}


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("sort", ["", "&sort=-total_size"])
def test_the_links_lead_through_the_whole_list(library: FlaskClient, key: str, sort: str) -> None:
    sort = sort.replace("total", "file") if key == "files" else sort
    whole = answer_of(library.get(f"{LISTS[key]}?limit=200{sort}"))[key]
    assert len(whole) > 1
    assert followed(library, f"{LISTS[key]}?limit=1{sort}", key) == whole


def test_a_link_asks_the_same_question(library: FlaskClient) -> None:
    filters = "project=tokyo&type=image&since=2020-01-01T00:00:00%2B01:00&q=%C3%A9&pinned=false"
    assert answer_of(library.get(f"{PREFIX}?{filters}"))["files"] == []
    found = followed(library, f"{PREFIX}?limit=1&{filters.replace('%C3%A9', 'BATCH')}", "files")
    assert {file["original_path"] for file in found} == set(BATCH)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("job=loop", {"loop"}),
        ("project=osaka", {"mix"}),
        ("tag=hero%20shot", {"loop"}),
        ("pinned=true", {"loop"}),
        ("pinned=false&project=tokyo", {"batch"}),
        ("q=BATCH_", {"batch"}),
        ("type=latent", set()),
        ("until=2020-01-01", set()),
        ("since=2020-01-01&min_size=1", {"batch", "loop", "mix"}),
    ],
)
def test_the_words_of_the_address_choose_files(
    library: FlaskClient, words: str, expected: set[str]
) -> None:
    files = answer_of(library.get(f"{PREFIX}?{words}"))["files"]
    assert {file["job_id"] for file in files} == expected


@pytest.mark.parametrize(
    ("key", "words", "field", "code"),
    [
        ("files", "limit=201", "limit", "invalid_input"),
        ("files", "limit=0", "limit", "invalid_input"),
        ("files", "limit=ten", "limit", "invalid_body"),
        ("files", "sort=name", "sort", "invalid_input"),
        ("files", "type=picture", "type", "invalid_body"),
        ("files", "file_type=image", "file_type", "invalid_body"),
        ("files", "since=2026-02-03T00:00:00+01:00", "since", "invalid_input"),
        ("files", "until=soon", "until", "invalid_input"),
        ("files", "pinned=1", "pinned", "invalid_body"),
        ("files", "pinned=True", "pinned", "invalid_body"),
        ("files", "min_size=1KB", "min_size", "invalid_body"),
        ("files", "tag=", "tag", "invalid_input"),
        ("files", "project=..", "project", "invalid_identifier"),
        ("files", "cursor=abc", "cursor", "invalid_input"),
        ("files", "prefix=x", "prefix", "invalid_body"),
        ("jobs", "type=image", "type", "invalid_body"),
        ("jobs", "sort=path", "sort", "invalid_input"),
        ("jobs", "limit=1000", "limit", "invalid_input"),
        ("projects", "tag=hero", "tag", "invalid_body"),
        ("projects", "sort=created_at", "sort", "invalid_input"),
        ("files", "tag=hero&tag=other", "tag", "invalid_body"),
        ("jobs", "q=a&q=a", "q", "invalid_body"),
        ("projects", "limit=1&limit=2", "limit", "invalid_body"),
    ],
)
def test_what_a_list_does_not_know_is_a_422_that_names_it(
    library: FlaskClient, key: str, words: str, field: str, code: str
) -> None:
    assert_problem(library.get(f"{LISTS[key]}?{words}"), 422, code, field)


def test_a_cursor_of_another_question_is_a_422_that_says_so(library: FlaskClient) -> None:
    cursor = answer_of(library.get(f"{PREFIX}?limit=1"))["next_cursor"]
    problem = assert_problem(
        library.get(f"{PREFIX}?limit=1&sort=path&cursor={cursor}"), 422, "invalid_input", "cursor"
    )
    assert "another list, sort or filter" in problem["detail"]


@pytest.mark.parametrize("key", LISTS)
def test_a_list_is_not_sent_again_to_who_has_it(library: FlaskClient, key: str) -> None:
    etag = library.get(LISTS[key]).headers["ETag"]
    again = library.get(LISTS[key], headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    organized(library, {"job_id": "pv", "project_id": "another"})
    assert library.get(LISTS[key], headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("address", LISTS.values())
def test_a_list_answers_only_who_asks(library: FlaskClient, address: str) -> None:
    response = library.post(address, json={})
    assert_problem(response, 405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


def test_a_list_shows_no_absolute_path_where_paths_are_hidden(make_host: MakeHost) -> None:
    client = make_host(show_paths=False).test_client()
    organized(client, {"job_id": "batch"})
    response = client.get(PREFIX)
    assert len(answer_of(response)["files"]) == 4
    assert "file_path" not in response.text


# A job or a project in parts


@pytest.mark.parametrize(
    "address", [f"{PREFIX}/jobs/batch", "/api/jobs/batch/files", f"{PREFIX}/projects/tokyo"]
)
def test_a_large_answer_comes_in_parts_that_its_links_lead_through(
    library: FlaskClient, address: str
) -> None:
    whole = answer_of(library.get(address))
    assert whole["next_cursor"] is None
    parts = followed(library, f"{address}?limit=3", "files")
    by_id: Any = lambda file: file["file_id"]  # noqa: E731 - a key
    assert sorted(parts, key=by_id) == sorted(whole["files"], key=by_id)
    first = answer_of(library.get(f"{address}?limit=3"))
    assert (first["file_count"], first["total_size"]) == (whole["file_count"], whole["total_size"])
    assert_problem(library.get(f"{address}?limit=1001"), 422, "invalid_input", "limit")


def test_without_a_limit_an_answer_has_a_thousand_files_at_most(
    library: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PartQuery().load({})["limit"] == listing.MOST_FILES == 1000
    monkeypatch.setattr(PartQuery._declared_fields["limit"], "load_default", 3)  # noqa: SLF001
    page = answer_of(library.get(f"{PREFIX}/jobs/batch"))
    assert (len(page["files"]), page["file_count"]) == (3, 4)
    assert page["next_cursor"] is not None
