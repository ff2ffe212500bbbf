from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import ConfigurationError
from flask_comfy_files.core.policy import (
    LONGEST_TAG,
    Allowance,
    Protected,
    RetentionPolicy,
    Rules,
    read_policy,
)

NO_WHOLE_NUMBERS: list[Any] = [True, "3", 1.5, -1, [3], float("nan")]


def refusal(policy: object) -> str:
    """Return what is said of a policy that stops the app at its start."""
    given = {"COMFY_FILES_OUTPUT_DIR": "/srv/output", "COMFY_FILES_RETENTION_POLICY": policy}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(given, {}, {})
    assert caught.value.setting == "COMFY_FILES_RETENTION_POLICY"
    return caught.value.advice


def test_a_whole_policy_is_read_rule_by_rule() -> None:
    policy = {
        "keep_last": 3,
        "keep_daily": 7,
        "keep_within": 14,
        "max_bytes": 10**12,
        "min_free_bytes": 10**9,
        "max_share": 0.25,
        "protect": {"jobs": ["hero"], "projects": ("tokyo",), "tags": {"to keep", "アニメ"}},
        "projects": {"osaka": {"days": 3, "keep_last": 0, "max_bytes": 5}, "kyoto": {}},
        "allow": ["empty_project"],
    }
    assert read_policy(policy) == RetentionPolicy(
        rules=Rules(keep_last=3, keep_daily=7, keep_within=14),
        max_bytes=10**12,
        min_free_bytes=10**9,
        max_share=0.25,
        protect=Protected(
            jobs=frozenset(["hero"]),
            projects=frozenset(["tokyo"]),
            tags=frozenset(["to keep", "アニメ"]),
        ),
        projects={"osaka": Rules(days=3, keep_last=0, max_bytes=5), "kyoto": Rules()},
        allow=frozenset([Allowance.EMPTY_PROJECT]),
    )


def test_a_rule_that_is_none_is_not_set() -> None:
    given = {"keep_last": 3, "max_bytes": None, "protect": {"jobs": None}, "allow": None}
    assert read_policy(given) == read_policy({"keep_last": 3})


def test_a_project_has_the_rules_of_all_where_it_has_none_of_its_own() -> None:
    policy = read_policy(
        {"keep_last": 3, "keep_within": 9, "projects": {"tokyo": {"keep_last": 0, "days": 2}}}
    )
    assert policy.rules_of("tokyo") == Rules(days=2, keep_last=0, keep_within=9)
    assert policy.rules_of("osaka") == Rules(keep_last=3, keep_within=9)


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("keep_last", "0 or more"),
        ("keep_daily", "0 or more"),
        ("keep_within", "from 0 to 36500"),
        ("max_bytes", "0 or more"),
        ("min_free_bytes", "0 or more"),
    ],
)
def test_what_is_no_whole_number_is_refused_with_its_place(
    rule: str, limits: str, value: object
) -> None:
    advice = f"['{rule}'] is {value!r}: write a whole number, {limits}"
    assert advice in refusal({rule: value})


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("days", "from 0 to 36500"),
        ("keep_last", "0 or more"),
        ("keep_daily", "0 or more"),
        ("keep_within", "from 0 to 36500"),
        ("max_bytes", "0 or more"),
    ],
)
def test_a_projects_own_rule_is_refused_with_its_place(
    rule: str, limits: str, value: object
) -> None:
    advice = f"['projects']['tokyo']['{rule}'] is {value!r}: write a whole number, {limits}"
    assert advice in refusal({"projects": {"tokyo": {rule: value}}})


@pytest.mark.parametrize(
    ("policy", "advice"),
    [
        pytest.param("keep_last", "the policy is 'keep_last': write a dict", id="text"),
        pytest.param([("keep_last", 3)], "write a dict", id="pairs"),
        pytest.param(
            {"keep_lats": 3},
            "the policy is 'keep_lats': there is no such rule; did you mean 'keep_last'?",
            id="mistyped rule",
        ),
        pytest.param(
            {"zzz": 3},
            "there is no such rule; known are keep_last, keep_daily, keep_within, max_bytes",
            id="unknown rule",
        ),
        pytest.param({1: 3}, "the policy is 1: there is no such rule", id="number for a rule"),
        pytest.param({"days": 3}, "'days': there is no such rule", id="days for the library"),
        pytest.param({"keep_within": 36501}, "from 0 to 36500", id="more than a hundred years"),
        pytest.param(
            {"max_share": 0},
            "['max_share'] is 0: write a part of the library, above 0 and at most 1",
            id="no share",
        ),
        pytest.param({"max_share": 1.01}, "above 0 and at most 1", id="more than everything"),
        pytest.param({"max_share": float("nan")}, "above 0 and at most 1", id="no number"),
        pytest.param({"max_share": True}, "above 0 and at most 1", id="bool for a share"),
        pytest.param({"max_share": "50%"}, "above 0 and at most 1", id="text for a share"),
        pytest.param({"protect": ["hero"]}, "['protect'] is ['hero']: write a dict", id="protect"),
        pytest.param(
            {"protect": {"job": ["hero"]}},
            "['protect'] is 'job': there is no such rule; did you mean 'jobs'?",
            id="mistyped protection",
        ),
        pytest.param(
            {"protect": {"jobs": "hero"}},
            "['protect']['jobs'] is 'hero': write a list",
            id="text for a list",
        ),
        pytest.param({"protect": {"jobs": ["../x"]}}, "['protect']['jobs']: '../x'", id="no job"),
        pytest.param(
            {"protect": {"projects": [7]}}, "['protect']['projects']: 7 is not a string", id="no id"
        ),
        pytest.param(
            {"protect": {"tags": [" x"]}},
            "['protect']['tags'] is ' x': write tags of 1 to 100 printable characters",
            id="space around a tag",
        ),
        pytest.param({"protect": {"tags": [""]}}, "write tags of 1 to 100", id="empty tag"),
        pytest.param({"protect": {"tags": ["x" * 101]}}, "write tags of 1", id="long tag"),
        pytest.param({"protect": {"tags": ["a\nb"]}}, "write tags of 1 to", id="unprintable tag"),
        pytest.param({"protect": {"tags": [["x"]]}}, "write tags of 1 to 100", id="list for a tag"),
        pytest.param(
            {"projects": ["tokyo"]},
            "['projects'] is ['tokyo']: write a dict of rules by project id",
            id="list of projects",
        ),
        pytest.param({"projects": {"../x": {}}}, "['projects']: '../x'", id="no project"),
        pytest.param(
            {"projects": {"tokyo": 3}},
            "['projects']['tokyo'] is 3: write a dict",
            id="number for rules",
        ),
        pytest.param(
            {"projects": {"tokyo": {"min_free_bytes": 3}}},
            "['projects']['tokyo'] is 'min_free_bytes': there is no such rule",
            id="rule of the library for a project",
        ),
        pytest.param(
            {"allow": ["everything"]},
            "['allow'] is 'everything': known are empty_policy, empty_project, large_share,",
            id="unknown allowance",
        ),
        pytest.param({"allow": "clock_jump"}, "['allow'] is 'clock_jump': write a list", id="text"),
        pytest.param({"allow": [[]]}, "['allow'] is []: known are", id="list for an allowance"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_advice(policy: object, advice: str) -> None:
    assert advice in refusal(policy)


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"keep_last": 0},
        {"keep_last": None},
        {"max_share": 0.1},
        {"allow": ["large_share"]},
        {"protect": {}},
        {"protect": {"jobs": []}},
        {"projects": {}},
    ],
    ids=repr,
)
def test_a_policy_that_says_nothing_is_refused_unless_that_is_allowed(
    policy: dict[str, Any],
) -> None:
    assert 'write at least one rule, leave the setting out, or add "allow": ["empty_policy"]' in (
        refusal(policy)
    )
    allowed = read_policy({**policy, "allow": ["empty_policy"]})
    assert Allowance.EMPTY_POLICY in allowed.allow


@pytest.mark.parametrize(
    "policy",
    [
        {"keep_last": 1},
        {"keep_daily": 1},
        {"keep_within": 1},
        {"max_bytes": 0},
        {"min_free_bytes": 0},
        {"protect": {"tags": ["x" * LONGEST_TAG]}},
        {"projects": {"tokyo": {"days": 0}}},
    ],
    ids=repr,
)
def test_one_rule_is_policy_enough(policy: dict[str, Any]) -> None:
    assert read_policy(policy) != RetentionPolicy()


def test_a_manager_takes_a_policy_as_a_dict_or_ready_made(tmp_path: Path) -> None:
    policy = read_policy({"keep_last": 3})
    for given in ({"keep_last": 3}, policy):
        with FileManager(tmp_path, retention_policy=given) as manager:
            assert manager.settings.retention_policy == policy
    with FileManager(tmp_path) as manager:
        assert manager.settings.retention_policy is None
    with pytest.raises(ConfigurationError, match=r"retention_policy is .*write a whole number"):
        FileManager(tmp_path, retention_policy={"keep_last": "3"})
