"""Every setting, its default, and what a value must be.

A host writes ``COMFY_FILES_<KEY>`` into its Flask config, or gives ``<key>`` in lower case as a
keyword argument, which wins. ``OUTPUT_DIR`` is also read from the environment variable
``COMFY_FILES_OUTPUT_DIR``.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flask_comfy_files.core.errors import ConfigurationError, InvalidIdentifierError
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.policy import MOST_DAYS, PolicyError, RetentionPolicy, read_policy

KEY_PREFIX: Final = "COMFY_FILES_"
DEFAULT_OUTPUT_DIR: Final = "/mnt/1TB-storage/ComfyUI/output"

Authorize = Callable[[Any, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one library in one app, checked.

    Times are in days where the name says so, else in seconds; sizes in bytes.
    """

    output_dir: str
    url_prefix: str = "/api/files"
    complete_route: str = "/api/jobs/<job_id>/complete"
    default_project: str = "default"
    retention_days: int = 30
    trash_days: int = 7
    retention_policy: RetentionPolicy | None = None
    auto_cleanup: bool = False
    exclude: tuple[str, ...] = ()
    comfyui_url: str | None = None
    authorize: Authorize | None = None
    token: tuple[str, ...] = ()
    trust_loopback: bool = False
    public_read: bool = False
    show_paths: bool = True
    x_accel_prefix: str | None = None
    min_free_bytes: int = 16 * 1024**2
    library_id: str | None = None
    lock_timeout: float = 10.0
    request_budget_seconds: float = 10.0
    request_budget_bytes: int = 2 * 1024**3
    metrics_route: bool = False
    metrics_registry: Any = None
    thumbnail_cache_bytes: int = 1024**3

    @property
    def counts_operations(self) -> bool:
        """Whether anybody asks for metrics, so that operations are counted."""
        return self.metrics_route or self.metrics_registry is not None

    @classmethod
    def from_mapping(
        cls,
        config: Mapping[str, Any],
        overrides: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> Settings:
        """Read the settings from a host's config, with overrides, and check each.

        ``config`` may hold anything; only its ``COMFY_FILES_`` keys are looked at. ``overrides``
        has lower-case names. ``None`` anywhere stands for "not set".

        Raises:
            ConfigurationError: A key is unknown, a value is of no use, or no output directory is
            known.
        """
        given = {
            key.removeprefix(KEY_PREFIX).lower(): (key, value)
            for key, value in config.items()
            if str(key).startswith(KEY_PREFIX)
        }
        given |= {
            key: (key, value)
            for key, value in overrides.items()
            if value is not None or key not in given
        }
        checked = {}
        for name, (key, value) in given.items():
            if name not in _CHECKS:
                raise ConfigurationError(key, value, _unknown_key_advice(name))
            if value is not None:
                checked[name] = _CHECKS[name](key, value)
        if "output_dir" not in checked:
            checked["output_dir"] = _output_dir_from(environ)
        return cls(**checked)


def _unknown_key_advice(name: str) -> str:
    close = difflib.get_close_matches(name, _CHECKS, n=1)
    meant = f"did you mean {KEY_PREFIX}{close[0].upper()}?" if close else "remove it."
    return f"there is no such setting; {meant}"


def _output_dir_from(environ: Mapping[str, str]) -> str:
    key = f"{KEY_PREFIX}OUTPUT_DIR"
    if environ.get(key):
        return _output_dir(key, environ[key])
    if not Path(DEFAULT_OUTPUT_DIR).is_dir():
        raise ConfigurationError(
            key,
            None,
            "set it to ComfyUI's output directory"
            f" (it is set nowhere, and the default {DEFAULT_OUTPUT_DIR} is not there).",
        )
    return DEFAULT_OUTPUT_DIR


def _output_dir(key: str, value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ConfigurationError(key, value, "write the path of ComfyUI's output directory.")
    path = os.fspath(value)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not path.strip() or "\0" in path:
        raise ConfigurationError(key, value, "write the path of ComfyUI's output directory.")
    # Made absolute once: a later chdir of the host must not point us at another library.
    absolute = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - Path.resolve() would follow links
    if absolute == "/":
        raise ConfigurationError(
            key, value, "the file system's root cannot be a library; write a folder of its own."
        )
    return absolute


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(key, value, "write True or False.")
    return value


def _whole(lowest: int, highest: int | None = None) -> Callable[[str, object], int]:
    limits = f"{lowest} or more" if highest is None else f"from {lowest} to {highest}"

    def check(key: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigurationError(key, value, f"write a whole number, {limits}.")
        if value < lowest or (highest is not None and value > highest):
            raise ConfigurationError(key, value, f"write a whole number, {limits}.")
        return value

    return check


def _seconds(key: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if 0 < (seconds := float(value)) < math.inf:
                return seconds
    raise ConfigurationError(key, value, "write a number of seconds above 0.")


def _prefix(key: str, value: object) -> str:
    usable = isinstance(value, str) and re.fullmatch(r"(/[^/<]+)+/?", value)
    if not usable or any(character in str(value) for character in " ?#%\\"):
        raise ConfigurationError(key, value, "write a URL path such as /api/files.")
    return str(value).rstrip("/")


def _internal_location(key: str, value: object) -> str:
    path = r"(/[A-Za-z0-9_-][A-Za-z0-9._~-]*)+/"
    if not isinstance(value, str) or re.fullmatch(path, value) is None:
        raise ConfigurationError(
            key,
            value,
            "write the path of nginx's internal location, with a slash at both ends, such as /_comfy_files/.",
        )
    return value


def _complete_route(key: str, value: object) -> str:
    variable = r"<([a-z_]+(\([^()<>]*\))?:)?[A-Za-z_][A-Za-z0-9_]*>"
    if not isinstance(value, str) or re.fullmatch(rf"/[^<>]*{variable}[^<>]*", value) is None:
        raise ConfigurationError(
            key, value, "write a Flask rule with one variable, such as /api/jobs/<job_id>/complete."
        )
    return value


def _patterns(key: str, value: object) -> tuple[str, ...]:
    patterns = tuple(value) if isinstance(value, list | tuple) else ()
    is_usable = all(isinstance(pattern, str) and pattern for pattern in patterns)
    if not patterns or not is_usable:
        raise ConfigurationError(key, value, 'write a list of glob patterns such as ["keep/*"].')
    return patterns


def _retention_policy(key: str, value: object) -> RetentionPolicy:
    if isinstance(value, RetentionPolicy):
        return value
    try:
        return read_policy(value)
    except PolicyError as error:
        raise ConfigurationError(key, value, f"{error}.") from error


def _identifier(key: str, value: object) -> str:
    try:
        return require_identifier(key, value)
    except InvalidIdentifierError as error:
        raise ConfigurationError(key, value, f"it {error.problem}.") from error


def _comfyui_url(key: str, value: object) -> str:
    advice = "write the address of the ComfyUI server, such as http://127.0.0.1:8188."
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        is_usable = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
        is_plain = parts is not None and not parts.query and not parts.fragment and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        raise ConfigurationError(key, value, advice) from None
    if not is_usable or not is_plain or " " in str(value):
        raise ConfigurationError(key, value, advice)
    return str(value).rstrip("/")


def _callable(key: str, value: object) -> Authorize:
    if not callable(value):
        raise ConfigurationError(
            key, value, "write a callable that takes (request, action) and returns a bool."
        )
    return value


def _registry(key: str, value: object) -> object:
    # Known by what it can do, so that nothing need be installed where no metrics are wanted.
    if isinstance(value, type) or not all(
        callable(getattr(value, name, None)) for name in ("register", "unregister", "collect")
    ):
        raise ConfigurationError(key, value, "write a CollectorRegistry of prometheus_client.")
    return value


def _tokens(key: str, value: object) -> tuple[str, ...]:
    tokens = (
        (value,)
        if isinstance(value, str)
        else tuple(value)
        if isinstance(value, list | tuple | set)
        else ()
    )
    if not tokens or not all(
        isinstance(token, str) and token.isascii() and token.strip() == token != ""
        for token in tokens
    ):
        # The value is a secret: the message must not repeat it.
        raise ConfigurationError(
            key,
            "not usable",
            "write one token, or a list of them: ASCII, not empty, no spaces around.",
        )
    return tokens


_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "output_dir": _output_dir,
    "url_prefix": _prefix,
    "complete_route": _complete_route,
    "default_project": _identifier,
    "retention_days": _whole(0, MOST_DAYS),
    "trash_days": _whole(0, MOST_DAYS),
    "retention_policy": _retention_policy,
    "auto_cleanup": _flag,
    "exclude": _patterns,
    "comfyui_url": _comfyui_url,
    "authorize": _callable,
    "token": _tokens,
    "trust_loopback": _flag,
    "public_read": _flag,
    "show_paths": _flag,
    "x_accel_prefix": _internal_location,
    "min_free_bytes": _whole(0),
    "library_id": _identifier,
    "lock_timeout": _seconds,
    "request_budget_seconds": _seconds,
    "request_budget_bytes": _whole(1),
    "metrics_route": _flag,
    "metrics_registry": _registry,
    "thumbnail_cache_bytes": _whole(0),
}
