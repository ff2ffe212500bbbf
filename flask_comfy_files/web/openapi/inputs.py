"""What requests may say, as parameters and request bodies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from apispec import APISpec
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from flask_comfy_files.web.openapi.vocabulary import WORDS
from flask_comfy_files.web.route import Route
from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import Flag

_PATH_FORMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "job_id": forms.IDENTIFIER,
    "project_id": forms.IDENTIFIER,
    "file_id": {"minLength": 32, "maxLength": 32},
}
_LONGEST_LIST: Final = 1000
"""A longer one is told of in words: programs that try the limits of a description would make nothing else."""

_VARIABLE: Final = re.compile(r"<(?:[^<>]+:)?(\w+)>")

_converter: Final = OpenAPIConverter("3.1.0", lambda _schema: None, APISpec("", "", "3.1.0"))
_converter.map_to_openapi_type(Flag, "boolean", None)  # type: ignore[no-untyped-call]


def _members(_converter: OpenAPIConverter, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """Return what the members of an object are; some versions of apispec say that they may be anything."""
    said = field.metadata.get("additionalProperties")
    return {} if said is None else {"additionalProperties": said}


_converter.add_attribute_function(_members)  # type: ignore[no-untyped-call]


def in_braces(rule: str) -> str:
    """Return one of Flask's rules as OpenAPI writes paths."""
    return _VARIABLE.sub(r"{\1}", rule)


def parameters_of(route: Route) -> list[dict[str, Any]]:
    """Return the parameters of a route: the variables of its path, and the words of its query."""
    return [*_path_parameters(route), *_query_parameters(route)]


def body_of(route: Route) -> dict[str, Any] | None:
    """Return the request body of a route, if it takes one."""
    schema = route.body or route.optional_body
    if schema is None:
        return None
    described = _described(schema)
    required = {
        name: described["properties"][name]["examples"][0] for name in described.get("required", ())
    }
    example = getattr(schema, "example", None) or required
    content = {"schema": described, "example": example}
    return {"required": route.body is not None, "content": {"application/json": content}}


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _VARIABLE.findall(route.rule):
        word = WORDS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": word.text,
            "schema": {"type": "string", **_PATH_FORMS.get(name, {})},
            "example": word.example,
        }


def _query_parameters(route: Route) -> Iterator[dict[str, Any]]:
    described = _described(route.query)
    for name, nullable in described["properties"].items():
        schema = _without_null(nullable)
        text = schema.pop("description")
        # In an address nothing can be null: the word is left out.
        if schema.get("default", ...) is None:
            del schema["default"]
        required = name in described.get("required", ())
        yield {
            "name": name,
            "in": "query",
            "required": required,
            "description": text,
            "schema": schema,
        }


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(schema)
    if isinstance(kept.get("type"), list):
        kinds = [kind for kind in dict.fromkeys(kept["type"]) if kind != "null"]
        kept["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "anyOf" in kept:
        kept["anyOf"] = [part for part in kept["anyOf"] if part != {"type": "null"}]
    if "enum" in kept:
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept


def _described(schema: type[Schema]) -> dict[str, Any]:
    """Return a schema of requests as a JSON Schema, in which each word is explained."""
    described: dict[str, Any] = _converter.schema2jsonschema(schema())  # type: ignore[no-untyped-call]
    described |= getattr(schema, "form", {})
    for name, entry in described["properties"].items():
        word = WORDS[name]
        if "items" in entry:  # the core refuses a null among them, by its place
            entry["items"] = _without_null(entry["items"])
        entry.setdefault("description", word.text)
        if entry.get("maxItems", 0) > _LONGEST_LIST:
            entry["description"] += f" At most {entry.pop('maxItems'):,}."
        if word.example is not None:
            entry.setdefault("examples", [word.example])
    return described
