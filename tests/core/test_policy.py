"""Policies as a host writes them: what is of no use is refused with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ("keep_last", "write a dict"),
        ({"keep_lst": 3}, "did you mean 'keep_last'"),
        ({"days": 3}, "days"),
        ({"keep_last": True}, "['keep_last']"),
        ({"keep_last": -1}, "['keep_last']"),
        ({"keep_daily": "7"}, "['keep_daily']"),
        ({"keep_within": 1.5}, "['keep_within']"),
        ({"keep_within": 36_501}, "['keep_within']"),
        ({"max_bytes": -1}, "['max_bytes']"),
        ({"min_free_bytes": "1G"}, "['min_free_bytes']"),
        ({"keep_last": 1, "max_share": 0}, "['max_share']"),
        ({"keep_last": 1, "max_share": 1.1}, "['max_share']"),
        ({"protect": ["a"]}, "['protect']"),
        ({"protect": {"jobs": "a"}}, "['protect']['jobs']"),
        ({"protect": {"jobs": ["../a"]}}, "['protect']['jobs']"),
        ({"protect": {"tags": [" a"]}}, "['protect']['tags']"),
        ({"projects": {"../a": {"days": 1}}}, "['projects']"),
        ({"projects": {"a": {"min_free_bytes": 1}}}, "['projects']['a']"),
        ({"projects": {"a": {"days": 36_501}}}, "['projects']['a']['days']"),
        ({"keep_last": 1, "allow": ["everything"]}, "['allow']"),
    ],
)
def test_a_policy_of_no_use_is_refused_with_its_place(
    tmp_path: Path, policy: Any, place: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        FileManager(tmp_path, retention_policy=policy)
    assert str(refusal.value).startswith("retention_policy is ")
    assert place in str(refusal.value)


@pytest.mark.parametrize("policy", [{}, {"keep_last": 0}, {"protect": {}}, {"keep_daily": None}])
def test_a_policy_that_says_nothing_is_refused_until_it_is_allowed(
    tmp_path: Path, policy: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="empty_policy"):
        FileManager(tmp_path, retention_policy=policy)
    with FileManager(tmp_path, retention_policy={**policy, "allow": ["empty_policy"]}) as manager:
        assert manager.settings.retention_policy is not None
