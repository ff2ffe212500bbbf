"""The host stays as it was: what it answers, what it runs, and what else is in its process."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, current_app, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, TestResponse

from flask_comfy_files import ComfyFiles, FileManager, add_file_manager_routes
from flask_comfy_files.core.errors import ConfigurationError
from tests.trees import copy_recordings, outputs, read_tree
from tests.web.answers import BATCH, PREFIX, answer_of, assert_problem, organize, organized, post
from tests.web.conftest import Register

Equip = Callable[[Flask], None]


def plain_host() -> Flask:
    """Return a host with routes, and nothing of ours."""
    host = Flask("host")

    @host.get("/page")
    def page() -> str:
        return "the page"

    @host.get("/data")
    def data() -> ResponseReturnValue:
        return jsonify(z=1, a=1.5, title="été")

    @host.get("/fail")
    def fail() -> str:
        message = "a fault of the host"
        raise RuntimeError(message)

    @host.get("/abort/<int:status>")
    def stop(status: int) -> str:
        abort(status)

    @host.post("/api/jobs")
    def create() -> ResponseReturnValue:
        return {"id": request.get_json()["id"]}, 201

    return host


def answers_of(host: Flask) -> dict[str, tuple[int, list[tuple[str, str]], bytes]]:
    """Return all that a host answers to requests that do not concern us."""
    client = host.test_client()
    asked: list[tuple[str, str]] = [
        *(("GET", url) for url in ("/page", "/data", "/fail", "/no/such/page", "/", "/api")),
        *(("GET", url) for url in ("/api/filesystem", "/api/jobs", "/api/jobs/batch")),
        *(("GET", f"/abort/{status}") for status in (400, 401, 403, 405, 409, 413, 418, 500, 503)),
        *((method, "/page") for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD")),
        ("POST", "/api/jobs"),
        ("OPTIONS", "/api/jobs"),
        ("DELETE", "/api/jobs/batch"),
    ]
    answers = {}
    for method, url in asked:
        response = client.open(url, method=method)
        answers[f"{method} {url}"] = (
            response.status_code,
            sorted(response.headers),
            response.data,
        )
    return answers


def as_it_is(_: Flask) -> None:
    """Change nothing."""


def own_error_pages(host: Flask) -> None:
    """Give the host error handlers by status, by exception, and for all of HTTP."""
    host.register_error_handler(404, lambda _: ("the host knows no such page", 404))
    host.register_error_handler(405, lambda _: ("not like this", 405, {"Allow": "GET"}))
    host.register_error_handler(500, lambda _: ("the host is unwell", 500))
    host.register_error_handler(413, lambda _: ("too much for the host", 413))


def one_handler_for_all(host: Flask) -> None:
    """Give the host one handler for every exception."""
    host.register_error_handler(HTTPException, lambda error: (f"HTTP {error.code}", error.code))
    host.register_error_handler(Exception, lambda error: (f"oops: {type(error).__name__}", 500))


class LoudResponse(Response):
    """A response class of the host's own."""

    default_mimetype = "text/loud"


class SortedProvider(DefaultJSONProvider):
    """A JSON provider of the host's own."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return f"/* host */ {json.dumps(obj, sort_keys=True, separators=(';', '='))}"


def own_classes(host: Flask) -> None:
    """Give the host a response class and a JSON provider of its own."""
    host.response_class = LoudResponse
    host.json = SortedProvider(host)


HOSTS = pytest.mark.parametrize(
    "equip", [as_it_is, own_error_pages, one_handler_for_all, own_classes]
)


@HOSTS
def test_whatever_does_not_concern_us_is_answered_as_before(
    register: Register, output_root: Path, equip: Equip
) -> None:
    alone, with_us = plain_host(), plain_host()
    equip(alone)
    equip(with_us)
    register(with_us, output_dir=output_root)
    assert answers_of(with_us) == answers_of(alone)


@HOSTS
def test_our_answers_are_the_same_in_every_host(
    register: Register, output_root: Path, equip: Equip
) -> None:
    host = plain_host()
    equip(host)
    register(host, output_dir=output_root)
    client = host.test_client()
    assert organized(client, {"job_id": "batch"})["file_count"] == 4
    assert answer_of(client.post("/api/jobs/mix/complete"))["status"] == "completed"
    assert_problem(client.get(f"{PREFIX}/no/such/page"), 404, "not_found")
    assert_problem(client.delete(f"{PREFIX}/status"), 405, "method_not_allowed")
    assert_problem(client.get(f"{PREFIX}/jobs/nobody"), 404, "job_not_found")
    assert_problem(organize(client, b""), 400, "invalid_json", "body")
    assert_problem(
        organize(client, b"{}", content_type="text/plain"), 415, "unsupported_media_type"
    )


@HOSTS
def test_the_completion_of_the_host_keeps_its_form(
    register: Register, output_root: Path, equip: Equip
) -> None:
    bodies = []
    for is_ours in (False, True):
        host = plain_host()
        equip(host)
        host.add_url_rule(
            "/api/jobs/<job_id>/complete",
            "complete",
            lambda job_id: jsonify(z=1, id=job_id),
            methods=["POST"],
        )
        if is_ours:
            register(host, output_dir=output_root)
        bodies.append(post(host.test_client(), "/api/jobs/batch/complete", {}).data)
    alone, with_us = bodies
    if equip is own_classes:  # it is no JSON, so nothing is added
        assert with_us == alone
    else:
        assert with_us.startswith(alone.rstrip().removesuffix(b"}").rstrip())
        assert json.loads(with_us)["file_count"] == 4


def test_the_functions_of_the_host_around_requests_run_as_often_and_in_the_same_order(
    register: Register, output_root: Path
) -> None:
    order: list[str] = []
    host = plain_host()

    def hook(name: str) -> Callable[..., Any]:
        def run(response: Response | None = None) -> Response | None:
            order.append(name)
            return response

        return run

    host.before_request(hook("before 1"))
    host.after_request(hook("after 1"))
    register(host, output_dir=output_root)
    host.before_request(hook("before 2"))
    host.after_request(hook("after 2"))
    client = host.test_client()
    for url in ("/page", f"{PREFIX}/status", f"{PREFIX}/no/such/page", "/no/such/page"):
        client.get(url)
    assert order == ["before 1", "before 2", "after 2", "after 1"] * 4


def test_the_app_of_the_host_has_the_same_handlers_and_providers_as_before(
    register: Register, output_root: Path
) -> None:
    host = plain_host()
    names = [
        *("after_request_funcs", "teardown_request_funcs", "url_value_preprocessors"),
        *("url_default_functions", "template_context_processors"),
    ]

    def hooks() -> dict[str, Any]:
        by_name = {name: list(getattr(host, name)[None]) for name in names}
        return by_name | {
            "teardown": list(host.teardown_appcontext_funcs),
            "shell": list(host.shell_context_processors),
        }

    before = hooks()
    objects = (host.json, host.response_class, host.request_class, host.wsgi_app, host.jinja_env)
    config = dict(host.config)
    register(host, output_dir=output_root)
    assert hooks() == before
    assert host.error_handler_spec[None] == {}
    assert list(host.extensions) == ["comfy_files"]
    assert objects == (
        *(host.json, host.response_class, host.request_class, host.wsgi_app, host.jinja_env),
    )
    assert dict(host.config) == config


IN_A_PROCESS_OF_ITS_OWN = """
import json, logging, os, signal, sys, threading, warnings
from flask import Flask

def facts():
    return {
        "environ": dict(os.environ), "directory": os.getcwd(), "umask": os.umask(0o022),
        "threads": [thread.name for thread in threading.enumerate()],
        "root handlers": [str(handler) for handler in logging.getLogger().handlers],
        "root level": logging.getLogger().level, "disabled": logging.root.manager.disable,
        "handlers": {
            name: [str(handler) for handler in logger.handlers]
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and logger.handlers
        },
        "levels": {
            name: logger.level
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and logger.level
        },
        "filters": [str(entry) for entry in warnings.filters],
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "recursion": sys.getrecursionlimit(), "hook": str(sys.excepthook),
        "thread hook": str(threading.excepthook), "path": list(sys.path),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
    }

before = facts()
from flask_comfy_files import add_file_manager_routes
host = Flask("host")
add_file_manager_routes(host, output_dir=sys.argv[1], token="t")
print(json.dumps([before, facts()]))
"""


def test_importing_and_registering_leave_the_process_as_it_was(output_root: Path) -> None:
    before = read_tree(output_root)
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, str(output_root)]
    result = subprocess.run(command, capture_output=True, check=True, timeout=60)
    then, now = json.loads(result.stdout)
    assert now == then
    assert then["threads"] == ["MainThread"]
    assert result.stderr == b""
    assert read_tree(output_root) == before


def test_our_messages_go_where_the_host_sends_its_own(
    register: Register, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(plain_host(), output_dir=output_root)
    assert [record.name.partition(".")[0] for record in caplog.records] == ["flask_comfy_files"]
    assert logging.getLogger("flask_comfy_files").handlers == []
    assert logging.getLogger("flask_comfy_files").propagate


@pytest.mark.parametrize(
    "register_again",
    [
        lambda host, root: add_file_manager_routes(host, output_dir=root),
        lambda host, root: ComfyFiles(host, output_dir=root),
        lambda host, root: ComfyFiles(output_dir=root).init_app(host),
    ],
    ids=["function", "constructor", "init-app"],
)
def test_registering_twice_on_one_app_is_refused_with_advice_and_changes_nothing(
    register: Register, output_root: Path, register_again: Callable[[Flask, Path], object]
) -> None:
    host = plain_host()
    manager = register(host, output_dir=output_root)
    rules = [str(rule) for rule in host.url_map.iter_rules()]
    with pytest.raises(ConfigurationError, match="registered on this app already"):
        register_again(host, output_root / "ep01")
    assert host.extensions["comfy_files"] is manager
    assert [str(rule) for rule in host.url_map.iter_rules()] == rules
    assert organized(host.test_client(), {"job_id": "batch"})["file_count"] == 4


def test_a_wrong_setting_stops_the_start_and_leaves_the_app_as_it_was(output_root: Path) -> None:
    host = plain_host()
    rules = [str(rule) for rule in host.url_map.iter_rules()]
    with pytest.raises(ConfigurationError, match="retention_days"):
        add_file_manager_routes(host, output_dir=output_root, retention_days="soon")
    with pytest.raises(ConfigurationError, match="COMFY_FILES_TOKEN"):
        add_file_manager_routes(host, output_dir=output_root, tokens="t")
    assert "comfy_files" not in host.extensions
    assert [str(rule) for rule in host.url_map.iter_rules()] == rules
    assert host.before_request_funcs == {}
    assert list(host.cli.commands) == []


def test_an_app_factory_makes_apps_that_share_an_extension_and_no_state(
    output_root: Path, tmp_path: Path
) -> None:
    extension = ComfyFiles(default_project="anime")

    def create_app(root: Path) -> Flask:
        host = Flask("host")
        host.config["COMFY_FILES_OUTPUT_DIR"] = str(root)
        extension.init_app(host)
        return host

    hosts = [create_app(output_root), create_app(copy_recordings(tmp_path / "second"))]
    first, second = (host.test_client() for host in hosts)
    assert organized(first, {"job_id": "batch"})["project_id"] == "anime"
    assert_problem(second.get(f"{PREFIX}/jobs/batch"), 404, "job_not_found")
    assert outputs(tmp_path / "second") == outputs(copy_recordings(tmp_path / "third"))
    managers = []
    for host in hosts:
        with host.app_context():
            managers.append(extension.manager)
            assert extension.manager is current_app.extensions["comfy_files"]
    assert managers[0] is not managers[1]
    for manager in managers:
        manager.close()


def test_an_extension_asks_for_an_app_where_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="application context"):
        ComfyFiles().manager  # noqa: B018 - asking is the test


def test_two_apps_of_one_process_may_share_one_library(
    register: Register, output_root: Path
) -> None:
    clients = []
    for prefix in ("/api/files", "/library"):
        host = Flask("host")
        register(host, prefix, output_dir=output_root)
        clients.append(host.test_client())
    first, second = clients
    answer = organized(first, {"job_id": "batch"})
    assert answer_of(second.get("/library/jobs/batch"))["files"] == answer["organized_files"]
    again = answer_of(post(second, "/library/organize", {"job_id": "batch"}))
    assert again["organized_files"] == answer["organized_files"]
    assert_problem(first.get(f"{PREFIX}/x/y"), 404, "not_found")
    assert second.get(f"{PREFIX}/x/y").mimetype == "text/html"


def test_the_function_returns_the_extension(output_root: Path) -> None:
    host = Flask("host")
    extension = add_file_manager_routes(host, output_dir=output_root)
    assert isinstance(extension, ComfyFiles)
    with host.app_context():
        assert isinstance(extension.manager, FileManager)
        extension.manager.close()


OWN_ROUTES = [
    ("GET", f"{PREFIX}/download"),
    ("POST", f"{PREFIX}/upload"),
    ("GET", f"{PREFIX}/a/b/c"),
    ("PUT", f"{PREFIX}/jobs/batch"),
    ("GET", f"{PREFIX}/gallery/"),
]


@pytest.mark.parametrize("order", ["routes-first", "routes-last"])
def test_more_specific_routes_of_the_host_below_the_prefix_are_its_own(
    register: Register, output_root: Path, order: str
) -> None:
    host = Flask("host")
    host.register_error_handler(405, lambda _: ("the host says no", 405))
    if order == "routes-last":
        register(host, output_dir=output_root)
    for method, url in OWN_ROUTES:
        host.add_url_rule(url, url.replace(".", ""), lambda: "of the host", methods=[method])
    if order == "routes-first":
        register(host, output_dir=output_root)
    client = host.test_client()
    for method, url in OWN_ROUTES:
        assert client.open(url, method=method).text == "of the host"
    assert client.get(f"{PREFIX}/gallery").status_code == 308
    assert client.options(f"{PREFIX}/a/b/c").allow.as_set() == {"get", "head", "options"}
    assert client.options(f"{PREFIX}/jobs/batch").allow.as_set() == {
        *("get", "head", "options", "patch", "put", "delete"),
    }
    assert answer_of(client.get(f"{PREFIX}/status"))["total_files"] == 0


def test_an_error_in_a_route_of_the_host_below_the_prefix_has_the_page_of_the_host(
    register: Register, output_root: Path
) -> None:
    host = Flask("host")
    register(host, output_dir=output_root)
    host.register_error_handler(404, lambda _: ("the page of the host", 404))
    host.add_url_rule(f"{PREFIX}/download", "download", lambda: abort(404))
    assert host.test_client().get(f"{PREFIX}/download").text == "the page of the host"


@pytest.mark.parametrize("order", ["routes-first", "routes-last"])
def test_a_host_that_serves_one_page_for_all_addresses_still_does(
    register: Register, output_root: Path, order: str
) -> None:
    host = Flask("host")

    def page(path: str = "") -> str:
        return f"the page for {path}"

    def add_catch_all() -> None:
        for rule in ("/", "/<path:path>"):
            host.add_url_rule(rule, "page", page)

    if order == "routes-first":
        add_catch_all()
    register(host, output_dir=output_root)
    if order == "routes-last":
        add_catch_all()
    client = host.test_client()
    for path in ("", "jobs/batch", "api", "api/jobs/batch", "api/filesystem", "a/b/c"):
        assert client.get(f"/{path}").text == f"the page for {path}"
    assert client.get("/api/jobs/batch/complete").text == "the page for api/jobs/batch/complete"
    assert_problem(client.get(f"{PREFIX}/no/such/page"), 404, "not_found")
    assert_problem(client.delete(f"{PREFIX}/no/such/page"), 404, "not_found")
    assert organized(client, {"job_id": "batch"})["file_count"] == 4
    assert answer_of(client.post("/api/jobs/mix/complete"))["file_count"] == 1
    assert answer_of(client.get("/api/jobs/mix/files"))["file_count"] == 1


def test_a_job_files_route_of_the_host_is_its_own(register: Register, output_root: Path) -> None:
    host = Flask("host")
    register(host, output_dir=output_root)
    host.add_url_rule("/api/jobs/<job_id>/files", "files", lambda job_id: f"files of {job_id}")
    assert host.test_client().get("/api/jobs/batch/files").text == "files of batch"


def test_an_app_that_is_mounted_below_another_works_the_same(
    register: Register, output_root: Path
) -> None:
    host = Flask("host")
    register(host, output_dir=output_root)
    host.add_url_rule(
        "/api/jobs/<job_id>/complete", "complete", lambda job_id: {"id": job_id}, methods=["POST"]
    )
    client = Client(DispatcherMiddleware(Flask("outer"), {"/studio/anime": host}), TestResponse)
    below = "/studio/anime"
    completed = client.post(f"{below}/api/jobs/batch/complete", json={})
    assert (completed.json or {})["file_count"] == 4
    assert answer_of(client.get(f"{below}{PREFIX}/jobs/batch"))["file_count"] == 4
    assert_problem(client.get(f"{below}{PREFIX}/no/such/page"), 404, "not_found")
    assert client.get(f"{PREFIX}/status").mimetype == "text/html"


def test_nothing_but_the_files_command_is_added_to_the_command_line(
    register: Register, output_root: Path
) -> None:
    host = Flask("host")
    register(host, output_dir=output_root)
    assert list(host.cli.commands) == ["files"]


def test_a_files_command_of_the_host_is_its_own(register: Register, output_root: Path) -> None:
    host = Flask("host")

    @host.cli.command("files")
    def list_files() -> None:
        print("of the host")  # noqa: T201

    register(host, output_dir=output_root)
    run = host.test_cli_runner().invoke
    assert run(args=["files"]).output == "of the host\n"
    assert run(args=["comfy-files", "organize", "batch"]).exit_code == 0
    assert not (output_root / BATCH[0]).exists()


@pytest.mark.parametrize("debug", ["debug", "testing", "neither"])
def test_our_errors_are_answered_in_debug_and_testing_mode_too(
    register: Register, output_root: Path, debug: str
) -> None:
    host = Flask("host")
    host.debug, host.testing = debug == "debug", debug == "testing"
    host.config["TRAP_HTTP_EXCEPTIONS"] = False
    register(host, output_dir=output_root)
    client: FlaskClient = host.test_client()
    assert_problem(client.get(f"{PREFIX}/no/such/page"), 404, "not_found")
    assert_problem(client.get(f"{PREFIX}/jobs/nobody"), 404, "job_not_found")
    assert_problem(organize(client, b""), 400, "invalid_json", "body")
