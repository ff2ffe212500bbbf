"""The retention policy: what a cleanup must keep, and how large the library may get, as a host writes it."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NoReturn

from flask_comfy_files.core.errors import InvalidIdentifierError
from flask_comfy_files.core.layout import require_identifier

MOST_DAYS: Final = 36_500
LONGEST_TAG: Final = 100
_WIDEST_SHARE: Final = 0.5
"""Of the library's files or bytes; a policy that takes more in one go is more often a mistake than a wish."""


class Allowance(enum.StrEnum):
    """What a cleanup does only where somebody said that it may."""

    EMPTY_POLICY = "empty_policy"
    EMPTY_PROJECT = "empty_project"
    LARGE_SHARE = "large_share"
    CLOCK_JUMP = "clock_jump"


class PolicyError(ValueError):
    """A policy cannot be used; the message says where and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """What is never selected: jobs and projects by id, and jobs that have a tag."""

    jobs: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one project; times in days, ``None`` where a rule is not set.

    Of each project the ``keep_last`` newest jobs are kept, of each of the last ``keep_daily`` days (in
    UTC) on which it has jobs the newest one, and every job that is at most ``keep_within`` days old.
    ``max_bytes`` is how large the project may be.
    """

    days: int | None = None
    keep_last: int | None = None
    keep_daily: int | None = None
    keep_within: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """All rules of a library.

    ``rules`` hold for each project that has none of its own in ``projects``; a rule that those leave out
    is taken from ``rules``. ``max_bytes`` is how large the whole library may be, ``min_free_bytes`` how
    much of the volume must be free, ``max_share`` which part of the files or bytes one cleanup may take.
    """

    rules: Rules = Rules()
    projects: Mapping[str, Rules] = field(default_factory=dict)
    protect: Protected = Protected()
    max_bytes: int | None = None
    min_free_bytes: int | None = None
    max_share: float = _WIDEST_SHARE
    allow: frozenset[Allowance] = frozenset()

    def rules_of(self, project_id: str) -> Rules:
        """Return the rules that hold for a project."""
        own = self.projects.get(project_id)
        if own is None:
            return self.rules
        said = {entry.name: getattr(own, entry.name) for entry in fields(Rules)}
        return replace(
            self.rules, **{name: value for name, value in said.items() if value is not None}
        )


def read_policy(value: object) -> RetentionPolicy:
    """Return the policy that a mapping describes.

    Raises:
        PolicyError: A key is unknown, a value is of no use, or it says nothing at all.
    """
    given = _mapping("", value, _POLICY_CHECKS)
    allow = given.get("allow", frozenset())
    policy = RetentionPolicy(
        rules=Rules(**{name: given[name] for name in _LIBRARY_RULES if name in given}),
        **{name: given[name] for name in given if name not in _LIBRARY_RULES},
    )
    keeps = any((policy.rules.keep_last, policy.rules.keep_daily, policy.rules.keep_within))
    limits = policy.max_bytes is not None or policy.min_free_bytes is not None
    is_empty = not (keeps or limits or policy.projects or policy.protect != Protected())
    if is_empty and Allowance.EMPTY_POLICY not in allow:
        message = (
            "it keeps nothing and limits nothing; write at least one rule, leave the setting out,"
            f' or add "allow": ["{Allowance.EMPTY_POLICY}"]'
        )
        raise PolicyError(message)
    return policy


Check = Callable[[str, object], Any]


def _mapping(place: str, value: object, checks: Mapping[str, Check]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(place, value, "write a dict")
    checked = {}
    for key, entry in value.items():
        if key not in checks:
            close = difflib.get_close_matches(str(key), checks, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(checks)}"
            _refuse(place, key, f"there is no such rule; {meant}")
        if entry is not None:
            checked[key] = checks[key](f"{place}[{key!r}]", entry)
    return checked


def _refuse(place: str, value: object, advice: str) -> NoReturn:
    message = f"{place or 'the policy'} is {value!r}: {advice}"
    raise PolicyError(message)


def _whole(lowest: int, highest: int | None = None) -> Check:
    limits = f"{lowest} or more" if highest is None else f"from {lowest} to {highest}"

    def check(place: str, value: object) -> int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < lowest or (highest is not None and value > highest):  # type: ignore[operator]
            _refuse(place, value, f"write a whole number, {limits}")
        return int(value)  # type: ignore[call-overload, no-any-return]

    return check


def _share(place: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:  # type: ignore[operator]
        _refuse(place, value, "write a part of the library, above 0 and at most 1")
    return float(value)  # type: ignore[arg-type]


def _entries(place: str, value: object) -> Collection[Any]:
    if not isinstance(value, list | tuple | set | frozenset):
        _refuse(place, value, "write a list")
    return value


def _identifiers(place: str, value: object) -> frozenset[str]:
    return frozenset(_identifier(place, entry) for entry in _entries(place, value))


def _identifier(place: str, value: object) -> str:
    try:
        return require_identifier(place, value)
    except InvalidIdentifierError as error:
        raise PolicyError(str(error)) from error


def _tags(place: str, value: object) -> frozenset[str]:
    for entry in _entries(place, value):
        if not is_tag(entry):
            _refuse(place, entry, f"write tags of 1 to {LONGEST_TAG} printable characters")
    return frozenset(_entries(place, value))


def is_tag(value: object) -> bool:
    """Say whether a value can be a job's tag."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_TAG
        and value.isprintable()
        and value == value.strip()
    )


def _allow(place: str, value: object) -> frozenset[Allowance]:
    known = [str(allowance) for allowance in Allowance]
    for entry in _entries(place, value):
        if entry not in known:
            _refuse(place, entry, f"known are {', '.join(known)}")
    return frozenset(map(Allowance, _entries(place, value)))


def _protected(place: str, value: object) -> Protected:
    checks = {"jobs": _identifiers, "projects": _identifiers, "tags": _tags}
    return Protected(**_mapping(place, value, checks))


def _projects(place: str, value: object) -> dict[str, Rules]:
    if not isinstance(value, Mapping):
        _refuse(place, value, "write a dict of rules by project id")
    return {
        _identifier(place, project_id): Rules(
            **_mapping(f"{place}[{project_id!r}]", rules, {**_RULE_CHECKS, "max_bytes": _whole(0)})
        )
        for project_id, rules in value.items()
    }


_RULE_CHECKS: Final[Mapping[str, Check]] = {
    "days": _whole(0, MOST_DAYS),
    "keep_last": _whole(0),
    "keep_daily": _whole(0),
    "keep_within": _whole(0, MOST_DAYS),
}
_LIBRARY_RULES: Final = frozenset(_RULE_CHECKS) - {"days"}
_POLICY_CHECKS: Final[Mapping[str, Check]] = {
    **{name: _RULE_CHECKS[name] for name in ("keep_last", "keep_daily", "keep_within")},
    "max_bytes": _whole(0),
    "min_free_bytes": _whole(0),
    "max_share": _share,
    "protect": _protected,
    "projects": _projects,
    "allow": _allow,
}
