"""JSON from files: untrusted, so limited in length and refused when it can be read in two ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

LONGEST_JSON: Final = 1024 * 1024
"""Bytes. A graph of a thousand nodes has some 300,000; parsed, empty lists take twenty times that."""


def parse_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a UTF-8 text; ``None`` when there is none, or no single meaning."""
    if len(text) > LONGEST_JSON:
        return None
    try:
        parsed = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    # Deeply nested JSON ends in a ``RecursionError``, not in a ``ValueError``.
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def iter_texts_in(document: object, key: str) -> Iterator[bytes]:
    """Yield the JSON text under a key of an object: a string as it is, anything else written out."""
    if not isinstance(document, dict) or key not in document:
        return
    value = document[key]
    try:
        yield (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except (UnicodeEncodeError, RecursionError):
        # Half a surrogate pair, or nested to just within the parser's depth: there, but no text.
        yield b""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
