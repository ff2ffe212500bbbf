"""What needs an optional package says which, and everything else works without it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from flask_comfy_files.core.errors import ConfigurationError, MissingExtraError
from tests.web.answers import assert_problem
from tests.web.conftest import MakeHost


class AnyRegistry:
    """What a host can give that has no ``prometheus_client``."""

    def register(self, collector: Any) -> None: ...

    def unregister(self, collector: Any) -> None: ...

    def collect(self) -> list[Any]:
        return []


def test_without_the_extra_the_app_starts_and_metrics_say_what_to_install(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    host = make_host(metrics_route=True)
    host.extensions["comfy_files"].organize_output("batch")
    answer = host.test_client().get("/api/files/metrics")
    problem = assert_problem(answer, 501, "missing_extra")
    assert problem["detail"] == (
        "Metrics needs a package that is not installed: pip install 'flask-comfy-files[metrics]'"
    )


def test_without_the_extra_there_is_nothing_to_register(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"flask-comfy-files\[metrics\]"):
        make_host(metrics_registry=AnyRegistry())


@pytest.mark.parametrize("value", ["REGISTRY", True, AnyRegistry])
def test_what_is_no_registry_stops_the_app(make_host: MakeHost, value: object) -> None:
    with pytest.raises(ConfigurationError, match="CollectorRegistry"):
        make_host(metrics_registry=value)
