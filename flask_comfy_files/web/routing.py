"""How our rules stand beside the host's: those of the same form yield, and the last one takes any method."""

from __future__ import annotations

import re
from typing import Final

from flask.blueprints import BlueprintSetupState
from werkzeug.routing import UnicodeConverter

_CONVERTER: Final = "comfy_files_job"


class _YieldingConverter(UnicodeConverter):
    """A part of a path, as ``string``, but tried after it: a host's rule of the same form wins."""

    weight = UnicodeConverter.weight + 50


def yielding(rule: str) -> str:
    """Return a rule with one variable in the form that yields to a host's own."""
    return re.sub(r"<[^<>]*>", f"<{_CONVERTER}:job_id>", rule)


def add_converter(state: BlueprintSetupState) -> None:
    """Teach an app the form of rules that yield."""
    state.app.url_map.converters[_CONVERTER] = _YieldingConverter


class AnyMethod(frozenset[str]):
    """Every method, but for the one by which Werkzeug asks which methods an address takes.

    So that the answers to OPTIONS, the host's own below the prefix included, name what is really there.
    """

    def __contains__(self, method: object) -> bool:
        return method != "--"
