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
PROMPT_ID: Final[Form] = {"pattern": r"^[^\x00-\x1f\x7f-\xa0]+$", "minLength": 1, "maxLength": 255}
PATH: Final[Form] = {
    "type": "string",
    "pattern": r"^(?!/)(?!(.*/)?\.\.(/|$))(?=.*[^./])[^\x00]+$",
    "maxLength": LONGEST_PATH,
}
"""Relative to the output root; never above it."""

NAME: Final[Form] = {
    "pattern": r"^(?!\.{1,2}$)[^/\x00]+$",
    "minLength": 1,
    "maxLength": LONGEST_NAME,
}
SUBFOLDER: Final[Form] = {"anyOf": [{"const": ""}, PATH]}
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
TAG: Final[Form] = {"minLength": 1, "maxLength": LONGEST_TAG, "pattern": r"^\S(.*\S)?$"}
DAYS: Final[Form] = {"type": "integer", "minimum": 0, "maximum": MOST_DAYS}
ALLOWANCE: Final[Form] = {"enum": [*map(str, Allowance)]}
HOST_LIST: Final[Form] = {
    "type": ["array", "object"],
    "description": "The jobs of the app with their files, or a history as ComfyUI answers it.",
    "items": {
        "type": "object",
        "properties": {
            "job_id": IDENTIFIER,
            "project_id": IDENTIFIER,
            "files": {"type": "array", "items": NAMED_FILE},
        },
        "required": ["job_id", "files"],
        "additionalProperties": False,
    },
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
EXTRA_DATA: Final[Form] = {"properties": {"extra_pnginfo": {"type": ["object", "null"]}}}
CURSOR: Final[Form] = {"format": "cursor"}
"""Only what an earlier answer has said is one."""
