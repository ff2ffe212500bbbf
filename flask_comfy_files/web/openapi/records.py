"""JSON Schema of the records that are answered, and an example of each."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from flask_comfy_files.web.openapi.vocabulary import EXAMPLES, NUMBERS, OPTIONAL, TEXTS, WORDS, Word

Schema = dict[str, Any]

_SCALARS: Final[Mapping[Any, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def word_of(name: str, kind: Any) -> Word:
    """Return what a key of some type means.

    Raises:
        KeyError: The vocabulary does not have it.
    """
    is_number = int in {kind, *get_args(kind)}
    return NUMBERS[name] if is_number and name in NUMBERS else WORDS[name]


def records_in(kind: Any) -> dict[str, type[Any]]:
    """Return a record and all that it is made of, by their names."""
    found: dict[str, type[Any]] = {}
    waiting = [kind]
    while waiting:
        next_kind = waiting.pop()
        if isinstance(next_kind, type) and is_dataclass(next_kind):
            if next_kind.__name__ not in found:
                found[next_kind.__name__] = next_kind
                waiting.extend(get_type_hints(next_kind).values())
        else:
            waiting.extend(get_args(next_kind))
    return found


def schema_of(record: type[Any]) -> Schema:
    """Return the schema of a record's JSON; what it is made of are references to components."""
    hints = get_type_hints(record)
    names = [entry.name for entry in fields(record)]
    properties = {}
    for name in names:
        kind = hints[name]
        word = word_of(name, kind)
        text = f"{word.text} {word.null}".strip() if type(None) in get_args(kind) else word.text
        properties[name] = {
            **_schema_of_type(kind),
            **word.schema,
            "description": TEXTS.get(record.__name__, {}).get(name, text),
        }
    return {
        "type": "object",
        "description": (record.__doc__ or "").partition("\n")[0].replace("``", "`"),
        "properties": properties,
        "required": [name for name in names if name not in OPTIONAL],
    }


def example_of(record: type[Any], besides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an example of a record, in which something is said besides."""
    hints = get_type_hints(record)
    said = {**EXAMPLES.get(record.__name__, {}), **(besides or {})}
    return {
        entry.name: _example_of_key(entry.name, hints[entry.name], said.get(entry.name, {}))
        for entry in fields(record)
        if said.get(entry.name) is not ...
    }


def _example_of_key(name: str, kind: Any, said: Any) -> Any:
    if not isinstance(said, Mapping):
        return said
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and is_dataclass(part):
            example = example_of(part, said)
            return [example] if get_origin(kind) is tuple else example
    return said or word_of(name, kind).example


def reference_to(record: type[Any]) -> Schema:
    """Return a reference to the component that a record is."""
    return {"$ref": f"#/components/schemas/{record.__name__}"}


def _schema_of_type(kind: Any) -> Schema:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if isinstance(kind, type) and is_dataclass(kind):
        return reference_to(kind)
    if origin in {Union, types.UnionType}:
        return _schema_of_union([_schema_of_type(part) for part in parts])
    if origin is tuple:
        return {"type": "array", "items": _schema_of_type(parts[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema_of_type(parts[1])}
    return {}  # anything


def _schema_of_union(schemas: list[Schema]) -> Schema:
    if all(set(schema) == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}
