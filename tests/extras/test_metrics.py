from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from flask_comfy_files import FileManager, add_file_manager_routes, metrics
from flask_comfy_files.core.errors import ConfigurationError
from flask_comfy_files.core.metering import BUCKETS
from tests.docs.pages import Page
from tests.trees import BATCH, recording
from tests.web.server import faultless_gunicorn

METRICS = "/api/files/metrics"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[tuple[str, tuple[str, ...]], float]
"""By name and the values of the labels, in their order."""

MakeHost = Callable[..., Flask]


def samples(text: str, parse: Callable[[str], Any] = text_string_to_metric_families) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


@pytest.fixture
def make_host(output_root: Path) -> Iterator[MakeHost]:
    """Return what makes a host app over real recordings."""
    with contextlib.ExitStack() as stack:

        def make(**settings: Any) -> Flask:
            host = Flask("host")
            add_file_manager_routes(host, **{"output_dir": output_root, **settings})
            stack.callback(host.extensions["comfy_files"].close)
            return host

        yield make


@pytest.fixture
def client(make_host: MakeHost) -> FlaskClient:
    """Return a client of a host whose metrics can be read."""
    return make_host(metrics_route=True).test_client()


def scraped(client: FlaskClient) -> Samples:
    answer = client.get(METRICS)
    assert answer.status_code == 200
    return samples(answer.text)


def test_the_route_answers_what_prometheus_reads(client: FlaskClient) -> None:
    client.post("/api/files/organize", json={"job_id": "batch", "project_id": "tokyo"})
    client.post("/api/files/organize", json={"job_id": "batch", "project_id": "osaka"})
    answer = client.get(METRICS)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["Cache-Control"] == "no-store"
    found = samples(answer.text)
    status = client.get("/api/files/status").get_json()
    assert found["comfy_files_files", ("tokyo", "image")] == 4
    assert found["comfy_files_bytes", ("tokyo", "image")] == status["total_size"]
    assert found["comfy_files_jobs", ()] == found["comfy_files_projects", ()] == 1
    assert found["comfy_files_health", ("ok",)] == 1
    assert found["comfy_files_health", ("degraded",)] == 0
    assert found["comfy_files_volume_bytes", ()] == status["disk"]["total"]
    assert 0 < found["comfy_files_free_bytes", ()] <= status["disk"]["total"]
    assert found["comfy_files_operations_total", ("organize", "ok")] == 1
    assert found["comfy_files_operations_total", ("organize", "job_in_other_project")] == 1
    assert found["comfy_files_organized_files_total", ()] == 4
    assert found["comfy_files_left_files_total", ("failed",)] == 0


def test_a_scraper_may_ask_for_openmetrics(client: FlaskClient) -> None:
    client.post("/api/files/organize", json={"job_id": "batch"})
    answer = client.get(METRICS, headers={"Accept": OPENMETRICS})
    assert answer.mimetype == "application/openmetrics-text"
    found = samples(answer.text, openmetrics_families)
    assert found["comfy_files_operations_total", ("organize", "ok")] == 1


def test_a_histogram_counts_what_is_up_to_each_bound(client: FlaskClient) -> None:
    client.post("/api/files/organize", json={"job_id": "batch"})
    client.delete("/api/files/jobs/batch")
    found = scraped(client)
    name = "comfy_files_operation_duration_seconds"
    bounds = [*map(str, BUCKETS["operation_duration_seconds"]), "+Inf"]
    numbers = [found[f"{name}_bucket", ("organize", bound)] for bound in bounds]
    assert numbers == sorted(numbers)
    assert numbers[-1] == found[f"{name}_count", ("organize",)] == 1
    assert 0 < found[f"{name}_sum", ("organize",)] < 60
    waits = found["comfy_files_lock_wait_seconds_count", ()]
    assert waits == found["comfy_files_lock_wait_seconds_bucket", ("+Inf",)] >= 2


def test_a_scraper_needs_what_every_reader_needs(make_host: MakeHost) -> None:
    client = make_host(metrics_route=True, token="secret").test_client()
    assert client.get(METRICS).status_code == 401
    answer = client.get(METRICS, headers={"Authorization": "Bearer secret"})
    assert answer.status_code == 200


def test_a_library_that_cannot_be_used_is_told_and_not_guessed(
    client: FlaskClient, output_root: Path
) -> None:
    client.post("/api/files/organize", json={"job_id": "batch"})
    output_root.rename(output_root.with_name("elsewhere"))
    found = scraped(client)
    assert found["comfy_files_health", ("unavailable",)] == 1
    assert not [
        name for name, _ in found if name.startswith(("comfy_files_files", "comfy_files_free"))
    ]


def test_a_registry_of_the_host_has_them_beside_its_own(make_host: MakeHost) -> None:
    registry = CollectorRegistry()
    host = make_host(metrics_registry=registry)
    manager: FileManager = host.extensions["comfy_files"]
    manager.organize_output("batch")
    assert registry.get_sample_value("comfy_files_pending_jobs") == 0
    organized = {"kind": "organize", "result": "ok"}
    assert registry.get_sample_value("comfy_files_operations_total", organized) == 1
    assert host.test_client().get(METRICS).status_code == 404


def test_two_libraries_need_two_registries(make_host: MakeHost, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    make_host(metrics_registry=registry)
    with pytest.raises(ConfigurationError, match="a registry of its own"):
        make_host(metrics_registry=registry, output_dir=tmp_path)
    make_host(metrics_registry=CollectorRegistry(), output_dir=tmp_path)


def test_registering_does_not_touch_the_library(make_host: MakeHost, output_root: Path) -> None:
    before = sorted(output_root.rglob("*"))
    make_host(metrics_registry=CollectorRegistry())
    assert sorted(output_root.rglob("*")) == before


def test_without_flask_the_text_can_be_had_as_well(output_root: Path) -> None:
    with FileManager(output_root, metrics_route=True) as manager:
        manager.organize_output("batch")
        text, media_type = metrics.exposition(manager)
    assert media_type.startswith("text/plain")
    assert samples(text.decode())["comfy_files_files", ("default", "image")] == 4


# Several processes

STUDIO = """
import json
import os

from flask import Flask

from flask_comfy_files import add_file_manager_routes

app = Flask(__name__)
add_file_manager_routes(app, **json.loads(os.environ["SETTINGS"]))
"""

JOBS = [f"job_{number}" for number in range(1, 25)]


def call(url: str, body: object = None) -> str:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - our own server
        url, content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        text: str = answer.read().decode()
    return text


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["workers", "preload"])
def test_workers_threads_and_commands_add_up(
    tmp_path: Path, make_tree: Callable[..., Path], options: list[str]
) -> None:
    root = make_tree({f"{job}_00001_.png": recording(BATCH[0]) for job in [*JOBS, "by_command"]})
    environ = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "SETTINGS": json.dumps({"output_dir": str(root), "metrics_route": True}),
    }
    command = [sys.executable, "-m", "flask", "--app", "served", "files", "organize", "by_command"]
    options = ["--workers", "4", "--threads", "2", *options]
    with (
        faultless_gunicorn(tmp_path, STUDIO, *options, **environ) as server,
        ThreadPoolExecutor(8) as pool,
    ):

        def organize(job_id: str) -> str:
            return call(f"{server.address}/api/files/organize", {"job_id": job_id})

        asked = [pool.submit(organize, job_id) for job_id in [*JOBS, *JOBS]]
        subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
        for answer in asked:
            assert json.loads(answer.result())["file_count"] == 1
        for _ in range(8):  # whichever worker answers
            found = samples(call(server.address + METRICS))
            number = 2 * len(JOBS) + 1
            assert found["comfy_files_operations_total", ("organize", "ok")] == number
            assert found["comfy_files_operation_duration_seconds_count", ("organize",)] == number
            assert found["comfy_files_organized_files_total", ()] == len(JOBS) + 1
            assert found["comfy_files_files", ("default", "image")] == len(JOBS) + 1
            assert found["comfy_files_lock_wait_seconds_count", ()] > len(JOBS)


# The page

MONITOR = Page("docs/how-to/monitor.md")


def rules() -> str:
    return next(block.text for block in MONITOR.blocks if block.text.startswith("groups:"))


def exposed(client: FlaskClient) -> set[str]:
    """Return the names of all samples that there may be."""
    text = client.get(METRICS).text
    names = {name for name, _ in samples(text)}
    return names | set(re.findall(r"^# TYPE (\S+) (?:gauge|counter)$", text, re.MULTILINE))


def test_every_metric_of_the_alert_rules_is_exposed(client: FlaskClient) -> None:
    client.post("/api/files/organize", json={"job_id": "batch"})
    named = set(re.findall(r"\bcomfy_files_\w+", rules()))
    assert len(named) >= 5
    assert named <= exposed(client)


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    documented = {
        row[0]: row[1]
        for row in map(_codes_of, re.findall(r"^\| `comfy_files_.*$", MONITOR.text, re.MULTILINE))
    }
    actual = {
        f"comfy_files_{name}": list(labels)
        for described in (metrics.GAUGES, metrics.COUNTERS, metrics.HISTOGRAMS)
        for name, (_, labels) in described.items()
    }
    assert documented == actual


def _codes_of(row: str) -> tuple[str, list[str]]:
    name, labels, *_ = row.strip("| ").split(" | ")
    return name.strip("`"), re.findall(r"`(\w+)`", labels)


def test_a_host_that_follows_the_page_has_the_metrics_in_its_own_registry(
    output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_FILES_OUTPUT_DIR", str(output_root))
    source = next(block.text for block in MONITOR.blocks if "METRICS_REGISTRY" in block.text)
    names: dict[str, Any] = {"__name__": "example"}
    exec(source, names)  # noqa: S102 - our own page
    names["app"].extensions["comfy_files"].organize_output("batch")
    text = names["app"].test_client().get("/metrics").text
    assert samples(text)["comfy_files_files", ("default", "image")] == 4
    names["app"].extensions["comfy_files"].close()
