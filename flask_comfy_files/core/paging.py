"""How many things are answered at once, and the cursors by which an answer is gone on with."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask_comfy_files.core.errors import InvalidInputError

Part = int | str | bytes
"""A number, an id, or a path as the file system has it."""

_LONGEST_CURSOR: Final = 10_000
_LARGEST: Final = 2**63


def require_limit(limit: object, most: int) -> int:
    """Return how many things to answer at once.

    Raises:
        InvalidInputError: It is no whole number from 1 to ``most``.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidInputError("limit", limit, f"is not a whole number from 1 to {most}")
    return limit


def cursor_text(question: Mapping[str, Any], key: Sequence[Part] | None) -> str | None:
    """Return the cursor that leads behind a key of a list; ``None`` where the list ends.

    It holds nothing that the list does not show: the key, and a digest of what was asked for.
    """
    if key is None:
        return None
    parts = [part.hex() if isinstance(part, bytes) else part for part in key]
    raw = json.dumps([_digest(question), *parts], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def require_cursor(
    cursor: object, question: Mapping[str, Any], kinds: Sequence[type[Part]]
) -> tuple[Part, ...] | None:
    """Return the key behind which a cursor leads; ``None`` without one. ``kinds`` are those of the key's parts.

    Raises:
        InvalidInputError: It is no cursor, or one of another question.
    """
    if cursor is None:
        return None
    digest, *parts = _decoded(cursor)
    if digest != _digest(question):
        problem = "belongs to another list, sort or filter; begin without a cursor"
        raise InvalidInputError("cursor", cursor, problem)
    if len(parts) != len(kinds):
        raise _no_cursor(cursor)
    return tuple(_part(cursor, part, kind) for part, kind in zip(parts, kinds, strict=True))


def _decoded(cursor: object) -> list[Any]:
    if not isinstance(cursor, str) or len(cursor) > _LONGEST_CURSOR:
        raise _no_cursor(cursor)
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        decoded = json.loads(raw)
    except (ValueError, RecursionError):
        raise _no_cursor(cursor) from None
    if not isinstance(decoded, list) or not decoded:
        raise _no_cursor(cursor)
    return decoded


def _part(cursor: object, part: object, kind: type[Part]) -> Part:
    if kind is int and type(part) is int and abs(part) < _LARGEST:
        return part
    if kind is str and isinstance(part, str) and part.isascii():
        return part
    if kind is bytes and isinstance(part, str):
        try:
            return bytes.fromhex(part)
        except ValueError:
            raise _no_cursor(cursor) from None
    raise _no_cursor(cursor)


def _no_cursor(cursor: object) -> InvalidInputError:
    return InvalidInputError("cursor", cursor, "is no cursor of an earlier answer")


def _digest(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
