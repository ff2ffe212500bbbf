"""What a JSON Schema can say of what the core checks: the forms of ids, paths and lists, for the description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask_comfy_files.core.findings import FindingKind
from flask_comfy_files.core.layout import LONGEST_ID, LONGEST_NAME, LONGEST_PATH
from flask_comfy_files.core.marking import MOST_TAGS
from flask_comfy_files.core.policy import LONGEST_TAG, MOST_DAYS, Allowance

Form = Mapping[str, Any]

IDENTIFIER: Final[Form] = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$",
    "maxLength": LONGEST_ID,
}
LOOSE_ID: Final[Form] = {**IDENTIFIER, "type": ["string", "integer"]}
"""A host may keep its ids as numbers."""

PROMPT_ID: Final[Form] = {"format": "printable", "minLength": 1, "maxLength": 255}
LOOSE_PROMPT_ID: Final[Form] = {**PROMPT_ID, "type": ["string", "integer"]}
PATH: Final[Form] = {"type": "string", "format": "relative-path", "maxLength": LONGEST_PATH}
"""Relative to the output root, and never above it."""

NAME: Final[Form] = {
    "pattern": r"^(?!\.{1,2}$)[^/\x00]+$",
    "minLength": 1,
    "maxLength": LONGEST_NAME,
}
SUBFOLDER: Final[Form] = {"anyOf": [{"const": ""}, {"format": "relative-path"}]}
_NAMED_OBJECT: Final[Form] = {
    "type": "object",
    "properties": {
        "filename": PATH,
        "subfolder": {"anyOf": [{"const": ""}, PATH, {"type": "null"}]},
        "type": {"enum": ["output", "temp", "input"]},
    },
    "required": ["filename"],
}
NAMED_FILE: Final[Form] = {"anyOf": [PATH, _NAMED_OBJECT]}
TAGS: Final[Form] = {"maxItems": MOST_TAGS}
TAG: Final[Form] = {"minLength": 1, "maxLength": LONGEST_TAG, "format": "printable"}
DAYS: Final[Form] = {"type": "integer", "minimum": 0, "maximum": MOST_DAYS}
ALLOWANCE: Final[Form] = {"enum": [*map(str, Allowance)]}
_HOST_JOBS: Final[Form] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "job_id": IDENTIFIER,
            "project_id": {"anyOf": [IDENTIFIER, {"type": "null"}]},
            "files": {"type": "array", "items": NAMED_FILE},
        },
        "required": ["job_id", "files"],
        "additionalProperties": False,
    },
}
_HISTORY: Final[Form] = {
    "type": "object",
    "propertyNames": IDENTIFIER,
    "additionalProperties": {
        "type": "object",
        "properties": {"outputs": {"type": "object"}},
        "required": ["outputs"],
    },
}
HOST_LIST: Final[Form] = {
    "description": "The jobs of the app with their files, or a history as ComfyUI answers it.",
    "anyOf": [_HOST_JOBS, _HISTORY, {"type": "null"}],
}
FINDING: Final[Form] = {
    "type": "object",
    "properties": {
        "kind": {"enum": [*map(str, FindingKind)]},
        "path": PATH,
        "file_id": {"type": ["string", "null"], "pattern": "^[ -~]*$"},
    },
    "required": ["kind", "path"],
}
GRAPH: Final[Form] = {
    "additionalProperties": {
        "type": "object",
        "properties": {"class_type": {"type": "string"}, "inputs": {"type": "object"}},
        "required": ["class_type", "inputs"],
    }
}
PLAN_ALONE: Final[Form] = {
    "anyOf": [
        {"properties": {"plan_id": {"type": "null"}}},
        {
            "properties": {
                "plan_id": {"type": "string"},
                "days": {"type": "null"},
                "allow": {"maxItems": 0},
                "dry_run": {"const": False},
            }
        },
    ]
}
"""A plan says itself what it deletes."""

EXTRA_DATA: Final[Form] = {"properties": {"extra_pnginfo": {"type": ["object", "null"]}}}
CURSOR: Final[Form] = {"format": "cursor"}
"""Only what an earlier answer has said is one."""

VERIFY_CURSOR: Final[Form] = {"format": "verify-cursor"}
