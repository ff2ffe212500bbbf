"""A small stand-in for an API that queues jobs on ComfyUI, with its files organized by one line.

Run it with ``flask --app example_app run`` after setting ``COMFY_FILES_OUTPUT_DIR`` to ComfyUI's output
directory. It keeps its jobs in memory; everything about their files is kept by ``flask_comfy_files``.
"""

from __future__ import annotations

import uuid
from typing import Any

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from flask_comfy_files import add_file_manager_routes


def create_app(**settings: Any) -> Flask:
    """Return the app; ``settings`` are those of ``flask_comfy_files``, such as ``output_dir``."""
    app = Flask("example_app")
    jobs: dict[str, dict[str, str | None]] = {}

    @app.get("/api/jobs")
    def list_jobs() -> ResponseReturnValue:
        return jsonify(jobs=list(jobs.values()))

    @app.post("/api/jobs")
    def create_job() -> ResponseReturnValue:
        wanted = request.get_json()
        job_id = str(wanted.get("job_id") or f"job_{uuid.uuid4().hex[:8]}")
        # A real app would now send the workflow to ComfyUI's POST /prompt.
        jobs[job_id] = {
            "job_id": job_id,
            "project_id": wanted.get("project_id"),
            "status": "queued",
        }
        return jsonify(jobs[job_id]), 201

    @app.post("/api/jobs/<job_id>/complete")
    def complete_job(job_id: str) -> ResponseReturnValue:
        if job_id not in jobs:
            abort(404)
        jobs[job_id]["status"] = "completed"
        return jsonify(jobs[job_id])

    add_file_manager_routes(app, **settings)
    return app


if __name__ == "__main__":
    create_app().run()
