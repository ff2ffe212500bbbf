from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Request, Response
from flask.testing import FlaskClient
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import TestResponse

from flask_comfy_files import FileManager
from flask_comfy_files.web.access import Action, is_local
from flask_comfy_files.web.table import ROUTES
from tests.conftest import MakeTree
from tests.trees import read_tree, recording
from tests.web.answers import BATCH, PREFIX, answer_of, assert_problem, organize, post
from tests.web.conftest import MakeHost

READS = [
    f"{PREFIX}/jobs/known",
    f"{PREFIX}/projects/default",
    f"{PREFIX}/status",
    "/api/jobs/known/files",
]
TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}

Change = Callable[..., TestResponse]


def organize_job(client: FlaskClient, **options: Any) -> TestResponse:
    return organize(client, {"job_id": "batch"}, **options)


def complete_job(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, "/api/jobs/batch/complete", {}, **options)


CHANGES = pytest.mark.parametrize("change", [organize_job, complete_job])


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder that is small, with a job that is known already."""
    return make_tree({name: recording(name) for name in [*BATCH, "pv_00001_.png"]})


@pytest.fixture
def make_client(make_host: MakeHost) -> Callable[..., FlaskClient]:
    """Return what makes a client of a host with a known job; the settings are those for access."""

    def make(**settings: Any) -> FlaskClient:
        make_host().extensions["comfy_files"].organize_output("known", files=["pv_00001_.png"])
        return make_host(**settings).test_client()

    return make


MakeClient = Callable[..., FlaskClient]


def assert_allowed(response: TestResponse) -> None:
    assert answer_of(response)["file_count"] == 4


def assert_refused(
    change: Change, client: FlaskClient, root: Path, status: int, code: str, **options: Any
) -> dict[str, Any]:
    """Check that a change is refused, in the one body, and that it has changed nothing."""
    before = read_tree(root)
    response = change(client, **options)
    body = assert_problem(response, status, code)
    assert read_tree(root) == before
    if status == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    return body


LOCAL_PEERS = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"]
LOCAL_HOSTS = [
    *("localhost", "localhost:5000", "LOCALHOST", "127.0.0.1", "127.0.0.1:5000"),
    *("127.1.2.3", "[::1]", "[::1]:5000", "[::ffff:127.0.0.1]:80"),
]


@CHANGES
@pytest.mark.parametrize("peer", LOCAL_PEERS)
def test_a_request_from_this_machine_may_change(
    make_client: MakeClient, change: Change, peer: str
) -> None:
    assert_allowed(change(make_client(), environ_overrides={"REMOTE_ADDR": peer}))


@CHANGES
@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_a_request_for_a_loopback_name_may_change(
    make_client: MakeClient, change: Change, host: str
) -> None:
    assert_allowed(change(make_client(), headers={"Host": host}))


@CHANGES
@pytest.mark.parametrize(
    "peer",
    [
        *("203.0.113.9", "10.0.0.1", "192.168.0.2", "0.0.0.0", "2001:db8::1", "::", "fe80::1"),  # noqa: S104 - a peer, not a bind
        *("::ffff:203.0.113.9", "localhost", "127.0.0.1.evil.example", "127.1", "unix:", "", " "),
    ],
)
def test_a_request_from_elsewhere_changes_nothing_and_is_told_which_setting_to_use(
    make_client: MakeClient, output_root: Path, change: Change, peer: str
) -> None:
    body = assert_refused(
        change,
        make_client(),
        output_root,
        403,
        "access_denied",
        environ_overrides={"REMOTE_ADDR": peer},
    )
    assert "COMFY_FILES_TOKEN" in body["detail"]
    assert "COMFY_FILES_AUTHORIZE" in body["detail"]


@CHANGES
def test_a_request_without_a_peer_address_counts_as_one_from_elsewhere(
    make_client: MakeClient, output_root: Path, change: Change
) -> None:
    client = make_client()
    client.environ_base.pop("REMOTE_ADDR")
    assert_refused(change, client, output_root, 403, "access_denied")


@CHANGES
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80"),
        *("203.0.113.9", "0.0.0.0", "[::]", "[2001:db8::1]:80", "localhostt", "localhost, a"),  # noqa: S104
        *("localhost.", "127.1", "2130706433", "", " ", ":", "localhost:80:80"),
    ],
)
def test_a_request_for_another_name_changes_nothing(
    make_client: MakeClient, output_root: Path, change: Change, host: str
) -> None:
    assert_refused(
        change,
        make_client(),
        output_root,
        403,
        "access_denied",
        environ_overrides={"HTTP_HOST": host},
    )


@pytest.mark.parametrize("host", ["::1", "[::1", "[]", "[localhost]"])
def test_a_name_in_broken_brackets_is_not_this_machine(host: str) -> None:
    # Older test clients of Werkzeug do not send such a name.
    assert not is_local(Request({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": host}))
    assert is_local(Request({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "[::1]"}))


@CHANGES
@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server"),
        *("x-forwarded", "X-FORWARDED-FOR", "Forwarded", "Via", "X-Real-IP", "X-Client-IP"),
        *("CF-Connecting-IP", "True-Client-IP", "X-Cluster-Client-IP", "X-Original-Host"),
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""], ids=["loopback", "empty"])
def test_a_request_that_was_forwarded_changes_nothing(
    make_client: MakeClient, output_root: Path, change: Change, header: str, value: str
) -> None:
    assert_refused(
        change, make_client(), output_root, 403, "access_denied", headers={header: value}
    )


@CHANGES
def test_a_forged_header_does_not_make_a_stranger_local(
    make_client: MakeClient, output_root: Path, change: Change
) -> None:
    headers = {"Host": "localhost", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    options = {"headers": headers, "environ_overrides": STRANGER}
    assert_refused(change, make_client(), output_root, 403, "access_denied", **options)


@CHANGES
@pytest.mark.parametrize(
    "headers", [{}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "203.0.113.9"}]
)
def test_nobody_counts_as_local_behind_the_proxy_fix_of_a_host(
    make_host: MakeHost, output_root: Path, change: Change, headers: dict[str, str]
) -> None:
    host = make_host()
    host.wsgi_app = ProxyFix(host.wsgi_app, x_for=1, x_host=1)  # type: ignore[method-assign]
    assert_refused(change, host.test_client(), output_root, 403, "access_denied", headers=headers)


@pytest.mark.parametrize("url", READS)
def test_reading_is_as_open_as_the_host(make_client: MakeClient, url: str) -> None:
    client = make_client()
    headers = {"Host": "anime.example", "Origin": "https://elsewhere.example"}
    answer_of(client.get(url, headers=headers, environ_overrides=STRANGER))


ELSEWHERE = {
    "null": {"Origin": "null"},
    "another-host": {"Origin": "http://evil.example"},
    "a-longer-host": {"Origin": "http://localhost.evil.example"},
    "a-host-with-ours-before-it": {"Origin": "http://localhost@evil.example"},
    "another-port": {"Origin": "http://localhost:8188"},
    "another-scheme": {"Origin": "file://localhost"},
    "an-extension": {"Origin": "moz-extension://localhost"},
    "no-scheme": {"Origin": "localhost"},
    "no-host": {"Origin": "http://"},
    "a-path": {"Origin": "http://localhost/page"},
    "a-query": {"Origin": "http://localhost?page"},
    "two": {"Origin": "http://localhost http://evil.example"},
    "empty": {"Origin": ""},
    "broken": {"Origin": "http://[::1"},
    "broken-name": {"Origin": "http://[evil]"},
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "cross-site-in-capitals": {"Sec-Fetch-Site": "CROSS-SITE"},
    "cross-site-in-mixed-case": {"sec-fetch-site": " Cross-Site "},
    "cross-site-with-our-origin": {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
}


@CHANGES
@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_of_another_site_changes_nothing(
    make_client: MakeClient, output_root: Path, change: Change, headers: dict[str, str]
) -> None:
    body = assert_refused(change, make_client(), output_root, 403, "access_denied", headers=headers)
    assert "another site" in body["detail"]


@CHANGES
@pytest.mark.parametrize("settings", [{"token": TOKEN}, {"authorize": lambda *_: True}])
def test_a_request_of_another_site_changes_nothing_whatever_it_brings(
    make_client: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    headers = {**BEARER, "Origin": "https://evil.example"}
    assert_refused(
        change, make_client(**settings), output_root, 403, "access_denied", headers=headers
    )


@CHANGES
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost:443"),
        ("localhost:443", "https://localhost"),
        ("localhost:5000", "http://localhost:5000"),
        ("LocalHost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "HTTP://127.0.0.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_a_page_of_the_host_itself_may_change(
    make_client: MakeClient, change: Change, host: str, origin: str
) -> None:
    headers = {"Host": host, "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert_allowed(change(make_client(), headers=headers))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_post_that_a_form_could_make_changes_nothing(
    make_client: MakeClient, output_root: Path, content_type: str
) -> None:
    client = make_client()
    before = read_tree(output_root)
    for change in (organize_job, complete_job):
        response = change(client, content_type=content_type)
        assert_problem(response, 415, "unsupported_media_type")
    form = client.post(f"{PREFIX}/organize", data={"job_id": "batch"})
    assert_problem(form, 415, "unsupported_media_type")
    assert read_tree(output_root) == before


@CHANGES
@pytest.mark.parametrize("tokens", [TOKEN, ["another", TOKEN], (TOKEN, "another"), {TOKEN}])
def test_whoever_has_a_token_may_read_and_change_from_anywhere(
    make_client: MakeClient, change: Change, tokens: Any
) -> None:
    client = make_client(token=tokens)
    options = {"headers": {**BEARER, "Host": "anime.example"}, "environ_overrides": STRANGER}
    for url in READS:
        answer_of(client.get(url, **options))
    assert_allowed(change(client, **options))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_of_a_token_may_be_written_in_any_case(
    make_client: MakeClient, scheme: str
) -> None:
    client = make_client(token=TOKEN)
    assert_allowed(organize_job(client, headers={"Authorization": f"{scheme} {TOKEN}"}))


NO_TOKEN = {
    "missing": {},
    "empty": {"Authorization": ""},
    "scheme-alone": {"Authorization": "Bearer"},
    "empty-token": {"Authorization": "Bearer "},
    "wrong": {"Authorization": "Bearer correct-horse-battery-stapler"},
    "shorter": {"Authorization": "Bearer correct-horse-battery-stapl"},
    "another-case": {"Authorization": f"Bearer {TOKEN.upper()}"},
    "no-scheme": {"Authorization": TOKEN},
    "another-scheme": {"Authorization": f"Basic {TOKEN}"},
    "two": {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
    "not-ascii": {"Authorization": "Bearer cörrect"},
    "another-header": {"X-Api-Key": TOKEN, "Token": TOKEN},
    "cookie": {"Cookie": f"token={TOKEN}; Authorization=Bearer {TOKEN}"},
}


@CHANGES
@pytest.mark.parametrize("headers", NO_TOKEN.values(), ids=NO_TOKEN)
def test_without_a_valid_token_nothing_is_answered_and_nothing_changes(
    make_client: MakeClient, output_root: Path, change: Change, headers: dict[str, str]
) -> None:
    client = make_client(token=[TOKEN, "another"])
    assert_refused(change, client, output_root, 401, "token_required", headers=headers)
    for url in READS:
        response = client.get(url, headers=headers)
        assert_problem(response, 401, "token_required")
        assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("key", ["token", "access_token", "authorization", "bearer"])
def test_a_token_in_the_address_or_in_the_body_does_not_count(
    make_client: MakeClient, output_root: Path, key: str
) -> None:
    client = make_client(token=TOKEN)
    before = read_tree(output_root)
    for url in READS:
        assert_problem(client.get(url, query_string={key: TOKEN}), 401, "token_required")
    body = {"job_id": "batch", key: TOKEN}
    response = organize(client, body, query_string={key: f"Bearer {TOKEN}"})
    assert_problem(response, 401, "token_required")
    assert read_tree(output_root) == before


@CHANGES
def test_reading_may_be_public_where_changing_needs_the_token(
    make_client: MakeClient, output_root: Path, change: Change
) -> None:
    client = make_client(token=TOKEN, public_read=True)
    for url in READS:
        answer_of(client.get(url, environ_overrides=STRANGER))
    assert_refused(change, client, output_root, 401, "token_required")
    assert_allowed(change(client, headers=BEARER))


EVERY_ROUTE = [
    *(
        (route.method, f"{PREFIX}{route.rule}", route.action)
        for route in ROUTES
        if route.action is not None
    ),
    ("POST", "/api/jobs/<job_id>/complete", Action.WRITE),
    ("GET", "/api/jobs/<job_id>/files", Action.READ),
]
VARIABLE = re.compile("<[^>]*>")


@pytest.mark.parametrize(("method", "rule", "action"), EVERY_ROUTE)
def test_every_route_asks_for_the_token_and_says_which_action_it_is(
    make_client: MakeClient, output_root: Path, method: str, rule: str, action: Action
) -> None:
    url = VARIABLE.sub("0123456789abcdef0123456789abcdef", rule)
    client = make_client(token=TOKEN, metrics_route=True)
    before = read_tree(output_root)
    assert_problem(client.open(url, method=method, json={}), 401, "token_required")
    assert read_tree(output_root) == before
    asked: list[str] = []
    asking = make_client(authorize=lambda *call: asked.append(call[1]), metrics_route=True)
    asking.open(url, method=method, json={})
    assert asked == ["delete" if action is Action.DESTROY else action]
    assert (action is Action.READ) == (method == "GET" or rule.endswith("/verify"))


@pytest.mark.parametrize("route", [route.rule for route in ROUTES if route.action is None])
def test_what_is_open_to_all_says_the_same_whatever_is_in_the_library(
    make_client: MakeClient, route: str
) -> None:
    url = f"{PREFIX}{VARIABLE.sub('docs.js', route)}"
    client = make_client(token=TOKEN)
    before = client.get(url, environ_overrides=STRANGER)
    assert before.status_code == 200
    assert_allowed(organize_job(client, headers=BEARER))
    after = client.get(url, environ_overrides=STRANGER)
    assert after.data == before.data
    assert TOKEN not in after.text


def test_an_answer_says_nothing_of_what_is_there_before_access_is_known(
    make_client: MakeClient,
) -> None:
    client = make_client(token=TOKEN)
    answers = [client.get(f"{PREFIX}/jobs/{job_id}").data for job_id in ("known", "nobody", "..")]
    assert len(set(answers)) == 1
    unreadable = organize(client, b"no JSON")
    assert_problem(unreadable, 401, "token_required")


def test_authorize_is_asked_for_each_request_with_its_action(make_client: MakeClient) -> None:
    asked: list[tuple[str, str]] = []

    def authorize(request: Request, action: str) -> bool:
        asked.append((request.path, action))
        return True

    client = make_client(authorize=authorize)
    options = {"environ_overrides": STRANGER}
    for url in READS:
        answer_of(client.get(url, **options))
    assert_allowed(organize_job(client, **options))
    assert_allowed(complete_job(client, **options))
    assert asked == [
        *((url, "read") for url in READS),
        (f"{PREFIX}/organize", "write"),
        ("/api/jobs/batch/complete", "write"),
    ]


def test_authorize_may_allow_reading_and_refuse_changing(
    make_client: MakeClient, output_root: Path
) -> None:
    client = make_client(authorize=lambda _, action: action == "read")
    for url in READS:
        answer_of(client.get(url))
    assert_refused(organize_job, client, output_root, 403, "access_denied")


def fail(*_: object) -> bool:
    message = "the user database is down"
    raise RuntimeError(message)


def leave(*_: object) -> bool:
    sys.exit("the user database is down")


async def allow(*_: object) -> bool:
    await asyncio.sleep(0)
    return True


NO_YES: dict[str, Callable[..., Any]] = {
    "false": lambda *_: False,
    "none": lambda *_: None,
    "one": lambda *_: 1,
    "a-string": lambda *_: "yes",
    "a-response": lambda *_: Response("forbidden", 403),
    "a-pair": lambda *_: ("forbidden", 403),
    "raises": fail,
    "ends-the-process": leave,
    "too-few-arguments": lambda: True,
    "a-coroutine": allow,
}


@CHANGES
@pytest.mark.filterwarnings("ignore:coroutine 'allow' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("authorize", NO_YES.values(), ids=NO_YES)
def test_only_true_itself_is_a_yes_of_authorize(
    make_client: MakeClient, output_root: Path, change: Change, authorize: Callable[..., Any]
) -> None:
    client = make_client(authorize=authorize)
    assert_refused(change, client, output_root, 403, "access_denied")
    for url in READS:
        assert_problem(client.get(url), 403, "access_denied")


def test_an_authorize_that_fails_is_logged_and_its_reason_kept_from_the_client(
    make_client: MakeClient, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(authorize=fail)
    body = assert_refused(organize_job, client, output_root, 403, "access_denied")
    assert "database" not in str(body)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "COMFY_FILES_AUTHORIZE" in record.getMessage()
    assert record.exc_info is not None


@CHANGES
def test_a_token_or_a_yes_of_authorize_suffices_where_both_are_set(
    make_client: MakeClient, output_root: Path, change: Change
) -> None:
    client = make_client(token=TOKEN, authorize=lambda request, _: "X-User" in request.headers)
    assert_refused(change, client, output_root, 401, "token_required")
    for url in READS:
        assert_problem(client.get(url), 401, "token_required")
        answer_of(client.get(url, headers=BEARER))
        answer_of(client.get(url, headers={"X-User": "kai"}))
    assert_allowed(change(client, headers=BEARER))
    assert_allowed(change(client, headers={"X-User": "kai"}))


def test_trusting_loopback_does_not_open_a_library_that_has_a_token(
    make_client: MakeClient, output_root: Path
) -> None:
    client = make_client(token=TOKEN, trust_loopback=True)
    assert_refused(organize_job, client, output_root, 401, "token_required")


def test_the_completion_hook_asks_the_host_and_nobody_else(
    make_host: MakeHost, output_root: Path
) -> None:
    host = make_host(token=TOKEN)

    @host.post("/api/jobs/<job_id>/complete")
    def complete(job_id: str) -> dict[str, str]:
        return {"id": job_id}

    options = {"headers": {"Origin": "https://app.example"}, "environ_overrides": STRANGER}
    response = complete_job(host.test_client(), **options)
    assert response.get_json()["file_count"] == 4
    assert not (output_root / BATCH[0]).exists()


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [({}, 1), ({"token": TOKEN}, 0), ({"authorize": lambda *_: True}, 0)],
    ids=["neither", "token", "authorize"],
)
def test_an_app_without_access_settings_says_so_once_at_start(
    make_host: MakeHost, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], warnings: int
) -> None:
    make_host(**settings)
    messages = [record.getMessage() for record in caplog.records]
    assert [("COMFY_FILES_TOKEN" in text, "proxy" in text) for text in messages] == [
        (True, True)
    ] * warnings


def test_a_token_is_repeated_nowhere(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client(token=TOKEN)
    responses = [organize_job(client), organize_job(client, headers=BEARER)]
    responses += [client.get(f"{PREFIX}/status", headers=BEARER)]
    assert TOKEN not in caplog.text + "".join(response.text for response in responses)


# Deleting, for a while and for good.

KNOWN, TRASH = f"{PREFIX}/jobs/known", f"{PREFIX}/trash"
CLEANUP = f"{PREFIX}/cleanup"


def delete_job(client: FlaskClient, **options: Any) -> TestResponse:
    return client.delete(KNOWN, **options)


def destroy_job(client: FlaskClient, **options: Any) -> TestResponse:
    return client.delete(f"{KNOWN}?permanent=true", **options)


def destroy_deleted_job(client: FlaskClient, **options: Any) -> TestResponse:
    return client.delete(f"{PREFIX}/jobs/gone?permanent=true", **options)


def pin_job(client: FlaskClient, **options: Any) -> TestResponse:
    return client.patch(KNOWN, json={"pinned": True}, **options)


def restore_job(client: FlaskClient, **options: Any) -> TestResponse:
    return client.post(f"{PREFIX}/jobs/gone/restore", **options)


def empty_trash(client: FlaskClient, **options: Any) -> TestResponse:
    return client.delete(TRASH, **options)


def clean_up(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, CLEANUP, {"days": 0}, **options)


def make_plan(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, f"{CLEANUP}/plan", {"days": 0}, **options)


def apply_plan(client: FlaskClient, **options: Any) -> TestResponse:
    manager = client.application.extensions["comfy_files"]
    with FileManager(manager.settings.output_dir) as another:
        plan_id = another.save_cleanup_plan(0).plan_id
    return post(client, CLEANUP, {"plan_id": plan_id}, **options)


def rehearse(client: FlaskClient, **options: Any) -> TestResponse:
    return post(client, CLEANUP, {"days": 0, "dry_run": True}, **options)


def list_trash(client: FlaskClient, **options: Any) -> TestResponse:
    return client.get(TRASH, **options)


@pytest.fixture
def make_keeper(make_client: MakeClient, output_root: Path) -> MakeClient:
    """Return what makes a client of a host with the job ``known``, and ``gone`` in the trash."""
    with FileManager(output_root) as manager:
        manager.organize_output("gone", files=[BATCH[0]])
        manager.delete_job_files("gone")
    return make_client


UNDOABLE: dict[str, tuple[Change, dict[str, Any]]] = {
    change.__name__: (change, {})
    for change in (delete_job, pin_job, restore_job, clean_up, make_plan)
}
FOR_GOOD: dict[str, tuple[Change, dict[str, Any]]] = {
    **{change.__name__: (change, {}) for change in (destroy_job, destroy_deleted_job, empty_trash)},
    **{
        f"{change.__name__}-without-a-trash": (change, {"trash_days": 0})
        for change in (delete_job, clean_up)
    },
}
READINGS = [rehearse, list_trash]

undoable = pytest.mark.parametrize(("change", "settings"), UNDOABLE.values(), ids=UNDOABLE)
for_good = pytest.mark.parametrize(("change", "settings"), FOR_GOOD.values(), ids=FOR_GOOD)
all_deletes = pytest.mark.parametrize(
    ("change", "settings"), [*UNDOABLE.values(), *FOR_GOOD.values()], ids=[*UNDOABLE, *FOR_GOOD]
)

NOT_FROM_HERE: list[dict[str, Any]] = [
    {"environ_overrides": STRANGER},
    {"headers": {"Host": "evil.example"}},
    {"headers": {"X-Forwarded-For": "127.0.0.1"}},
]
CROSS_SITE = [
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
]


@undoable
def test_what_can_be_undone_may_be_done_from_this_machine(
    make_keeper: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    client = make_keeper(**settings)
    before = read_tree(output_root)
    answer_of(change(client))
    assert read_tree(output_root) != before


@all_deletes
def test_whoever_is_not_known_deletes_and_restores_nothing(
    make_keeper: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    for trusts in (False, True):
        client = make_keeper(**settings, trust_loopback=trusts)
        for options in NOT_FROM_HERE:
            body = assert_refused(change, client, output_root, 403, "access_denied", **options)
            assert "COMFY_FILES_TOKEN" in body["detail"]
            assert "COMFY_FILES_AUTHORIZE" in body["detail"]


@for_good
def test_what_cannot_be_undone_needs_a_setting_even_from_this_machine(
    make_keeper: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    client = make_keeper(**settings)
    body = assert_refused(change, client, output_root, 403, "access_denied")
    for setting in ("TOKEN", "AUTHORIZE", "TRUST_LOOPBACK = True"):
        assert f"COMFY_FILES_{setting}" in body["detail"]
    answer_of(change(make_keeper(**settings, trust_loopback=True)))
    left = read_tree(output_root).values()
    known, gone = recording("pv_00001_.png") in left, recording(BATCH[0]) in left
    assert not (known and gone), "nothing was deleted for good"


def test_carrying_a_plan_out_without_a_trash_needs_a_setting_too(
    make_keeper: MakeClient, output_root: Path
) -> None:
    plan_id = answer_of(make_plan(make_keeper(trash_days=0)))["plan_id"]

    def apply_it(client: FlaskClient, **options: Any) -> TestResponse:
        return post(client, CLEANUP, {"plan_id": plan_id}, **options)

    client = make_keeper(trash_days=0)
    body = assert_refused(apply_it, client, output_root, 403, "access_denied")
    assert "COMFY_FILES_TRUST_LOOPBACK" in body["detail"]
    answer = answer_of(apply_it(make_keeper(trash_days=0, trust_loopback=True)))
    assert (answer["deleted_files"], answer["bytes_trashed"]) == (1, 0)


def test_a_cleanup_that_would_empty_the_trash_early_needs_a_setting_too(
    make_keeper: MakeClient, output_root: Path
) -> None:
    def clean(client: FlaskClient, **options: Any) -> TestResponse:
        return post(client, CLEANUP, {"days": 0}, **options)

    client = make_keeper(min_free_bytes=10**18)
    body = assert_refused(clean, client, output_root, 403, "access_denied")
    assert "COMFY_FILES_TRUST_LOOPBACK" in body["detail"]
    answer_of(post(client, CLEANUP, {"dry_run": True}))
    answer = answer_of(clean(make_keeper(min_free_bytes=10**18, trust_loopback=True)))
    assert answer["bytes_trashed"] == 0 < answer["bytes_freed"]


@all_deletes
def test_another_site_deletes_and_restores_nothing_whatever_it_brings(
    make_keeper: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    for given in ({"trust_loopback": True}, {"token": TOKEN}, {"authorize": lambda *_: True}):
        client = make_keeper(**settings, **given)
        for said in CROSS_SITE:
            headers = {**BEARER, **said}
            body = assert_refused(
                change, client, output_root, 403, "access_denied", headers=headers
            )
            assert "another site" in body["detail"]


@all_deletes
def test_whoever_has_the_token_may_delete_and_nobody_else(
    make_keeper: MakeClient, output_root: Path, change: Change, settings: dict[str, Any]
) -> None:
    client = make_keeper(**settings, token=TOKEN, public_read=True, trust_loopback=True)
    assert_refused(change, client, output_root, 401, "token_required")
    wrong = {"Authorization": "Bearer wrong"}
    assert_refused(change, client, output_root, 401, "token_required", headers=wrong)
    answer_of(change(client, headers=BEARER, environ_overrides=STRANGER))


ASKED: list[tuple[Change, dict[str, Any], str]] = [
    *((change, {}, "write") for change in (pin_job, restore_job)),
    *((change, {}, "delete") for change in (delete_job, clean_up, make_plan, apply_plan)),
    *((change, settings, "delete") for change, settings in FOR_GOOD.values()),
    *((change, {}, "read") for change in READINGS),
    *((change, {"trash_days": 0}, "read") for change in READINGS),
]


@pytest.mark.parametrize(("change", "settings", "action"), ASKED)
def test_authorize_is_asked_once_with_what_a_request_really_does(
    make_keeper: MakeClient, change: Change, settings: dict[str, Any], action: str
) -> None:
    asked: list[str] = []

    def authorize(_: Request, action: str) -> bool:
        asked.append(action)
        return True

    answer_of(change(make_keeper(**settings, authorize=authorize), environ_overrides=STRANGER))
    assert asked == [action]


@pytest.mark.parametrize(("change", "settings", "action"), ASKED)
def test_a_no_of_authorize_changes_nothing(
    make_keeper: MakeClient,
    output_root: Path,
    change: Change,
    settings: dict[str, Any],
    action: str,
) -> None:
    client = make_keeper(**settings, authorize=lambda _, asked: asked != action)
    if change is apply_plan:
        assert_problem(change(client), 403, "access_denied")
    else:
        assert_refused(change, client, output_root, 403, "access_denied")


@pytest.mark.parametrize("reading", READINGS)
def test_whoever_may_read_may_rehearse_and_see_the_trash(
    make_keeper: MakeClient, output_root: Path, reading: Change
) -> None:
    open_to_all = make_keeper()
    before = read_tree(output_root)
    answer_of(reading(open_to_all, environ_overrides=STRANGER))
    answer_of(reading(make_keeper(token=TOKEN, public_read=True), environ_overrides=STRANGER))
    answer_of(reading(make_keeper(authorize=lambda _, action: action == "read")))
    assert_refused(reading, make_keeper(token=TOKEN), output_root, 401, "token_required")
    answer_of(reading(make_keeper(token=TOKEN), headers=BEARER))
    assert read_tree(output_root) == before


NO_REHEARSAL = {
    "string": b'{"dry_run": "true"}',
    "one": b'{"dry_run": 1}',
    "false": b'{"dry_run": false}',
    "twice": b'{"dry_run": false, "dry_run": true}',
    "unknown-key": b'{"dry_run": true, "force": true}',
    "a-plan": b'{"dry_run": true, "plan_id": "00000000000000000000000000000000"}',
    "nothing": b"{}",
    "no-object": b"[true]",
    "no-json": b"dry_run=true",
    "empty": b"",
    "deep": b'{"dry_run": true, "days": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
}


@pytest.mark.parametrize("body", NO_REHEARSAL.values(), ids=NO_REHEARSAL)
def test_what_only_looks_like_a_rehearsal_needs_the_right_to_delete(
    make_keeper: MakeClient, output_root: Path, body: bytes
) -> None:
    def send(client: FlaskClient, **options: Any) -> TestResponse:
        return post(client, CLEANUP, body, **options)

    stranger = {"environ_overrides": STRANGER}
    assert_refused(send, make_keeper(), output_root, 403, "access_denied", **stranger)
    reader = make_keeper(token=TOKEN, public_read=True)
    assert_refused(send, reader, output_root, 401, "token_required")
    asked: list[str] = []
    client = make_keeper(authorize=lambda *call: asked.append(call[1]))
    assert_refused(send, client, output_root, 403, "access_denied")
    assert asked == ["delete"]


def test_a_rehearsal_in_a_body_of_another_type_is_none(
    make_keeper: MakeClient, output_root: Path
) -> None:
    options = {"content_type": "text/plain", "environ_overrides": STRANGER}
    assert_refused(rehearse, make_keeper(), output_root, 403, "access_denied", **options)


MALFORMED = [
    ("DELETE", f"{KNOWN}?permanent=maybe"),
    ("DELETE", f"{PREFIX}/jobs/.."),
    ("DELETE", f"{TRASH}?job_id=known"),
    ("PATCH", KNOWN),
    ("POST", f"{KNOWN}/restore"),
    ("POST", CLEANUP),
    ("POST", f"{CLEANUP}/plan"),
]


@pytest.mark.parametrize(("method", "url"), MALFORMED)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_what_is_wrong_with_a_request_is_told_only_to_those_who_may_make_it(
    make_keeper: MakeClient, output_root: Path, method: str, url: str, content_type: str
) -> None:
    def send(client: FlaskClient, **options: Any) -> TestResponse:
        return client.open(url, method=method, data=b"{", content_type=content_type, **options)

    client = make_keeper(token=TOKEN, public_read=True)
    assert_refused(send, client, output_root, 401, "token_required")
    assert send(client, headers=BEARER).status_code in {400, 415, 422}


@pytest.mark.parametrize("query", ["", "?permanent=false", "?permanent=false&permanent=true"])
def test_whoever_may_not_delete_for_good_never_does(
    make_keeper: MakeClient, output_root: Path, query: str
) -> None:
    content = recording("pv_00001_.png")
    make_keeper().delete(f"{KNOWN}{query}")
    assert content in read_tree(output_root).values()
