"""A test client that compares every answer of ours with what the API's description says of it."""

from __future__ import annotations

import copy
import functools
import json
from http import HTTPStatus
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from flask_comfy_files.web.openapi.inputs import in_braces
from flask_comfy_files.web.table import description_of, placed

Json = dict[str, Any]


class Description:
    """The description of one app's routes, in which records have the keys that are described and no others."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        settings = app.extensions["comfy_files"].settings
        self._document = copy.deepcopy(description_of(settings))
        self._rules = {f"comfy_files.{route.name}": rule for rule, route in placed(settings)}
        for schema in self._document["components"]["schemas"].values():
            schema.setdefault("additionalProperties", False)

    def compare(self, response: TestResponse) -> None:
        """Compare an answer with what is said of it, if it is one of ours."""
        request = response.request
        try:
            adapter = self._app.url_map.bind("localhost")
            endpoint, _ = adapter.match(request.path, request.method)
        except HTTPException:
            return
        if endpoint not in self._rules or request.method == "OPTIONS":
            return
        if response.status_code == HTTPStatus.NOT_FOUND and response.mimetype == "text/html":
            return  # the host's own page, for an id that the host's own route does not take
        path = self._document["paths"][in_braces(self._rules[endpoint])]
        operation = path["get" if request.method == "HEAD" else request.method.lower()]
        described = operation["responses"]
        assert str(response.status_code) in described, (operation["operationId"], response.text)
        content = described[str(response.status_code)].get("content", {})
        if request.method == "HEAD" or not content:
            assert not response.data
        elif "*/*" not in content:
            assert response.mimetype in content
            self._compare_body(content[response.mimetype]["schema"], response)

    def _compare_body(self, schema: Json, response: TestResponse) -> None:
        if schema:
            body = json.loads(response.data.decode("utf-8"))
            errors = list(self._validator(schema["$ref"]).iter_errors(body))
            assert errors == [], errors[0].message

    @functools.cache  # noqa: B019 - lives as long as its test
    def _validator(self, reference: str) -> Draft202012Validator:
        components = {"components": self._document["components"]}
        return Draft202012Validator({"$ref": reference, **components})


class DescribedClient(FlaskClient):
    """A test client whose answers are what the description says."""

    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        """Make a request."""
        response = super().open(*arguments, **options)
        _description_of(self.application).compare(response)
        return response


@functools.lru_cache(maxsize=4)
def _description_of(app: Flask) -> Description:
    return Description(app)
