"""The hook on the host's own job-complete route: adds to its answer, and never breaks it."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, after_this_request, current_app, request
from werkzeug.exceptions import NotFound, RequestEntityTooLarge

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core.errors import ComfyFilesError, quoted
from flask_comfy_files.web.blueprint import COMPLETION_ENDPOINT
from flask_comfy_files.web.parsing import read_body
from flask_comfy_files.web.problems import MalformedBodyError
from flask_comfy_files.web.schemas.jobs import CompletionBody
from flask_comfy_files.web.worker import Worker

_log = logging.getLogger(__name__)

_VARIABLE: Final = re.compile(r"<[^<>]*>")


class CompletionHook:
    """Organizes a job when the host has answered its completion with success."""

    def __init__(self, api: FileManagerAPI, worker: Worker) -> None:
        """Work for one app; ``worker`` finishes what cannot be done at once."""
        self._api = api
        self._worker = worker
        self._form = _form(api.manager.settings.complete_route)

    def register(self, app: Flask) -> None:
        """Watch the requests of an app; whether its route exists, and where, shows when one comes."""
        app.before_request(self._watch)

    def _watch(self) -> None:
        if request.method != "POST" or request.url_rule is None:
            return
        if request.endpoint == COMPLETION_ENDPOINT and self._host_has_route():
            # Its converter does not take this id, so the host's own 404 is the answer.
            request.url_rule, request.routing_exception = None, NotFound()
        elif request.endpoint == COMPLETION_ENDPOINT:
            after_this_request(self._see_to_the_rest)
        elif _form(request.url_rule.rule) == self._form:
            # Before all of the host's after_request functions: they see the answer whole.
            after_this_request(self._extend)

    def _host_has_route(self) -> bool:
        return any(
            "POST" in (rule.methods or ()) and _form(rule.rule) == self._form
            for rule in current_app.url_map.iter_rules()
            if rule.endpoint != COMPLETION_ENDPOINT
        )

    def _extend(self, response: Response) -> Response:
        if not _is_success(response):
            return response
        try:
            _splice(response, self._organize())
        except Exception:  # noqa: BLE001
            # Whatever is wrong with us, the host's job is complete.
            _log.exception("the answer to a completion stays as the host gave it")
        return self._see_to_the_rest(response)

    def _see_to_the_rest(self, response: Response) -> Response:
        if not _is_success(response):
            return response  # nothing was completed; perhaps by somebody who may not
        answered = threading.Event()
        response.call_on_close(answered.set)
        try:
            self._worker.wake()
            self._worker.clean_up(answered)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("nothing in the background follows this completion")
        return response

    def _organize(self) -> dict[str, Any]:
        nothing: dict[str, Any] = {"organized_files": [], "file_count": 0}
        job_id = _job_id()
        try:
            return self._api.complete_job_api(job_id, **_said())
        except ComfyFilesError as error:
            _log.warning("job %r was completed and cannot be organized: %s", job_id, error)
            return {**nothing, "organize_error": str(error)}
        except Exception:  # noqa: BLE001
            _log.exception("job %r was completed and cannot be organized", job_id)
            return {**nothing, "organize_error": "internal error; see the server's log"}


def _is_success(response: Response) -> bool:
    return response.status_code // 100 == HTTPStatus.OK // 100


def _form(rule: str) -> str:
    """Return a rule without the names and converters of its variables, and without a slash at its end."""
    return _VARIABLE.sub("<>", rule).rstrip("/")


def _job_id() -> str:
    """Return the value of the rule's one variable, whatever the host calls it."""
    rule = request.url_rule
    defaults = (rule.defaults if rule else None) or {}
    arguments: Mapping[str, Any] = request.view_args or {}
    return next((str(value) for name, value in arguments.items() if name not in defaults), "")


def _said() -> dict[str, Any]:
    """Return what the completion's body says about its files; nothing where it is no JSON object.

    Raises:
        MalformedBodyError: It says something of the wrong type.
    """
    try:
        # As the host reads it: what it has taken for a success is not for us to refuse.
        body = json.loads(read_body(request))
    except (ValueError, RecursionError):
        return {}
    except RequestEntityTooLarge as error:
        if not request.is_json:
            return {}
        summary = "The completion's body is too large to be searched for its files."
        raise MalformedBodyError(summary, {"body": [summary]}) from error
    if not isinstance(body, dict):
        return {}
    errors = CompletionBody().validate(body)
    if errors:
        said = "; ".join(
            f"{field} is {quoted(body.get(field))}: {problems}"
            for field, problems in errors.items()
        )
        raise MalformedBodyError(f"The completion's body is not valid: {said}", errors)
    loaded: dict[str, Any] = CompletionBody().load(body)
    return loaded


def _splice(response: Response, added: Mapping[str, Any]) -> None:
    """Add keys to a JSON object without touching a byte of what the host has written.

    What is no JSON object, is streamed or encoded, stays as it is; a key that is there already is not
    overwritten.
    """
    if (
        response.is_streamed
        or response.direct_passthrough
        or "Content-Encoding" in response.headers
    ):
        return
    body = response.get_data()
    try:
        answered = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    if not response.is_json or not isinstance(answered, dict):
        return
    missing = {key: value for key, value in added.items() if key not in answered}
    if not missing:
        return
    head, brace, tail = body.rpartition(b"}")
    comma = b", " if answered else b""
    response.set_data(
        head.rstrip() + comma + json.dumps(missing).encode("ascii")[1:-1] + brace + tail
    )
    if "ETag" in response.headers:
        response.add_etag(overwrite=True)
