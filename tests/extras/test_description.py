"""Requests that are made out of the description, to a real server: it does what it says, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from flask_comfy_files.web.table import ROUTES
from tests.trees import RECORDINGS
from tests.web.answers import PREFIX
from tests.web.server import faultless_gunicorn

HERE = Path(__file__).parent
TOKEN = "sesame"
WANTED = [route for route in ROUTES if route.setting is None]
"""The routes that an app has without any setting."""


def test_requests_made_out_of_the_description_find_nothing_wrong(
    output_root: Path, tmp_path: Path
) -> None:
    app = (
        "from flask import Flask\n"
        "from flask_comfy_files import add_file_manager_routes\n"
        "app = Flask('studio')\n"
        f"add_file_manager_routes(app, output_dir={str(output_root)!r}, token={TOKEN!r})\n"
        "manager = app.extensions['comfy_files']\n"
        "manager.organize_output('clip_8', files=['batch_00001_.png'])\n"
    )
    assert (RECORDINGS / "batch_00001_.png").is_file()
    with faultless_gunicorn(tmp_path, app) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file"),
            *(str(HERE / "schemathesis.toml"), "run", f"{server.address}{PREFIX}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--checks", "all"),
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "5"),
            *("--continue-on-failure", "--no-color"),
            *("--generation-deterministic", "--workers", "2"),
        ]
        environ = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.extras.schemathesis_hooks"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = re.search(r"Tested: (\d+)", done.stdout)
    assert tried is not None
    assert int(tried[1]) == len(WANTED) + 2
    phases = re.findall(r"✅ (Examples|Coverage|Fuzzing|Stateful)", done.stdout)
    assert len(phases) == 4, done.stdout
