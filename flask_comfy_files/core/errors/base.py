"""What all errors share, and the one that only the person who starts the app reads."""

from __future__ import annotations

from typing import ClassVar, Final

LONGEST_QUOTE: Final = 120  # characters of a refused value that a message repeats


def quoted(value: object) -> str:
    """Return a value as a message may show it: escaped, and shortened when it is long."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:
        text = "a value that is nested too deeply to be shown"
    if len(text) <= LONGEST_QUOTE:
        return ascii(text) if isinstance(value, str) else text
    return f"{text[:LONGEST_QUOTE]!a}… ({len(text)} characters)"


class ComfyFilesError(Exception):
    """Base of every error that this package raises on purpose."""

    code: ClassVar[str] = "error"
    """Stable slug, and the anchor of the error's entry in ``docs/reference/errors.md``."""

    template: ClassVar[str] = "Something went wrong."

    def __str__(self) -> str:
        """Return what happened, to which thing, and what the reader can do."""
        return self.template.format_map(vars(self))


class ConfigurationError(ComfyFilesError):
    """A setting cannot be used; raised when the app starts, never as an answer."""

    code = "configuration"
    template = "{setting} is {value}: {advice}"

    def __init__(self, setting: str, value: object, advice: str) -> None:
        super().__init__(setting, value, advice)
        self.setting, self.value, self.advice = setting, quoted(value), advice
