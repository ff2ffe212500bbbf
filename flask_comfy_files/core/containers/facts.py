"""The values that reading a container gives, and the one place where they are checked for sense."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_comfy_files.core.containers.window import Window

MAX_SIDE_PX: Final = 1_000_000
"""Pixels. No encoder that ComfyUI uses gets near it; a larger one is damage or a trap."""

MAX_DURATION_S: Final = 366 * 24 * 3600.0
"""Seconds. Above a year the header holds a placeholder, not a duration."""


class Completeness(enum.Enum):
    """Whether a file has the end that its format demands."""

    COMPLETE = "complete"
    """The end that the format demands is there. The middle was not looked at."""

    CUT_SHORT = "cut short"
    """The file stops before that end: a writer is still at work, or was killed."""

    UNKNOWN = "unknown"
    """The format has no mark at its end, or the content was not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """What the bytes of one file say.

    Attributes:
        extensions: The extensions this content may carry, lower case with dot; empty when it was
            not recognized.
        completeness: Whether the file has its end.
        width: Pixels, or ``None`` when not stored, not read for this format, or absurd; never
            without ``height``.
        height: Pixels, likewise.
        duration_s: Seconds, above zero, or ``None``.
    """

    extensions: frozenset[str]
    completeness: Completeness
    width: int | None
    height: int | None
    duration_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What one family's reader found, taken from the bytes as it stands."""

    completeness: Completeness
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


def unrecognized(completeness: Completeness) -> ContainerFacts:
    """Return the facts of content that no family recognizes."""
    return _checked(frozenset(), Measure(completeness=completeness))


def measured(
    extensions: frozenset[str], measure: Callable[[Window], Measure], window: Window
) -> ContainerFacts:
    """Measure recognized content, so that no fault in it gets past this point.

    A structure that reaches beyond the end of the file is what a cut file looks like in every
    format; a structure that makes no sense, or too many of them, says nothing about the end.
    """
    try:
        measure_found = measure(window)
    except PastEndError:
        measure_found = Measure(completeness=Completeness.CUT_SHORT)
    except (BudgetSpentError, MalformedError):
        measure_found = Measure(completeness=Completeness.UNKNOWN)
    return _checked(extensions, measure_found)


def seconds(count: int, per_second: int) -> float | None:
    """Return a duration from a count of units and their rate, or ``None`` when either is zero."""
    return count / per_second if count and per_second else None


def _checked(extensions: frozenset[str], found: Measure) -> ContainerFacts:
    sides = (found.width or 0, found.height or 0)
    believable = all(0 < side <= MAX_SIDE_PX for side in sides)
    duration_s = found.duration_s or 0.0
    return ContainerFacts(
        extensions=extensions,
        completeness=found.completeness,
        width=found.width if believable else None,
        height=found.height if believable else None,
        duration_s=duration_s if 0.0 < duration_s <= MAX_DURATION_S else None,
    )
