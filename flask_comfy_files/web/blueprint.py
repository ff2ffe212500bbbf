"""The blueprint: how each route of the table is answered, and what lies below the prefix besides."""

from __future__ import annotations

from typing import Final, NoReturn
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, default_exceptions
from werkzeug.routing import Map, Rule

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web import access, problems
from flask_comfy_files.web.conditional import heed_conditions
from flask_comfy_files.web.route import Route
from flask_comfy_files.web.routes.jobs import COMPLETION
from flask_comfy_files.web.routing import AnyMethod, add_converter
from flask_comfy_files.web.table import below_prefix, placed
from flask_comfy_files.web.tasks import Tasks
from flask_comfy_files.web.works import Work

BLUEPRINT: Final = "comfy_files"
COMPLETION_ENDPOINT: Final = f"{BLUEPRINT}.{COMPLETION.name}"


def build_blueprint(api: FileManagerAPI) -> Blueprint:
    """Return the blueprint with all routes, below the prefix and beside the host's job routes.

    Its error handlers see only errors of its own routes. What lies under the prefix and is nobody's route gets
    to the last one, so that the host's pages for 404 and 405 stay the host's.
    """
    settings = api.manager.settings
    blueprint = Blueprint(BLUEPRINT, __name__)
    blueprint.record(add_converter)
    for rule, route in placed(settings):
        _add(blueprint, rule, route, api)
    blueprint.record(lambda state: _add_last_route(state, settings))
    blueprint.register_error_handler(ComfyFilesError, problems.answer_error)
    # Each by its number, too: Flask prefers a host's handler of a number to one of ours of all.
    for status in default_exceptions:
        blueprint.register_error_handler(status, problems.answer_http_error)
    blueprint.register_error_handler(HTTPException, problems.answer_http_error)
    return blueprint


def _add(blueprint: Blueprint, rule: str, route: Route, api: FileManagerAPI) -> None:
    tasks = Tasks(api)

    def answer_request(**path: str) -> Response:
        if route.action is not None:
            action = route.action if route.exact is None else route.exact(api)
            access.require(request, action, api.manager.settings)
        answer = route.view(api, **path, **route.read(request))
        if isinstance(answer, Work):
            answer = tasks.answer(answer)
        return answer if isinstance(answer, Response) else _answer_json(answer)

    blueprint.add_url_rule(rule, route.name, answer_request, methods=[route.method])


def _answer_json(answer: Json) -> Response:
    """Answer JSON; what was only asked for, with its ETag, or 304 where the client has it."""
    response = Response(problems.as_json(answer), mimetype="application/json")
    if request.method not in {"GET", "HEAD"}:
        return response
    if answer.get("next_cursor") is not None:
        asked = {**request.args.to_dict(flat=False), "cursor": answer["next_cursor"]}
        # Relative (RFC 8288, 3.1), so that it holds behind any proxy and below any sub-path.
        response.headers["Link"] = f'<?{urlencode(asked, doseq=True)}>; rel="next"'
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return heed_conditions(response)


def _add_last_route(state: BlueprintSetupState, settings: Settings) -> None:
    """Answer everything under the prefix that no route of ours, or of the host, takes."""
    prefix = settings.url_prefix
    routes = below_prefix(settings)
    ours = Map([Rule(prefix + route.rule, endpoint="", methods=[route.method]) for route in routes])
    taken = ours.bind("")

    def refuse(**_rest: str) -> NoReturn:
        allowed = list(taken.allowed_methods(request.path))
        if allowed:
            raise MethodNotAllowed([*allowed, "OPTIONS"])
        raise NotFound("There is nothing at this address.")

    endpoint = f"{BLUEPRINT}.refuse"
    for rule in (prefix, f"{prefix}/", f"{prefix}/<path:rest>"):
        # Not by add_url_rule: Flask's rules always name their methods, and this one takes any.
        last = Rule(rule, endpoint=endpoint, strict_slashes=True)
        last.methods = AnyMethod()  # type: ignore[assignment]
        state.app.url_map.add(last)
    state.app.view_functions[endpoint] = refuse
