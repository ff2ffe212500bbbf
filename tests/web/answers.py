"""What the tests of the web layer ask and expect: requests, whole records, the one body of an error."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_comfy_files.core.layout import STATE
from tests.trees import AN_HOUR_AGO, RECORDINGS, Tree, read_tree, recording

Json = dict[str, Any]

PREFIX = "/api/files"
BATCH = [f"batch_0000{number}_.png" for number in range(1, 5)]
"""Four images that one run of a real ComfyUI has written; the job ``batch`` has them by its name."""

BATCH_BYTES = sum((RECORDINGS / name).stat().st_size for name in BATCH)

FILE_KEYS = [
    *("file_id", "file_path", "path", "job_id", "project_id", "timestamp", "created_at"),
    *("file_type", "file_extension", "media_type", "generation_type", "file_size", "modified_at"),
    *("checksum", "original_path", "evidence", "same_file_as", "prompt_id", "node_id"),
    *("width", "height", "duration_s"),
]


def post(client: FlaskClient, url: str, body: object, **options: Any) -> TestResponse:
    """Post a body as JSON; bytes and text are sent as they are."""
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    options = {"content_type": "application/json", **options}
    return client.post(url, data=content, **options)


def organize(client: FlaskClient, body: object, **options: Any) -> TestResponse:
    """Ask for a job to be organized."""
    return post(client, f"{PREFIX}/organize", body, **options)


def organized(client: FlaskClient, body: object) -> Json:
    """Organize a job, and return the answer."""
    return answer_of(organize(client, body))


def answer_of(response: TestResponse) -> Json:
    """Return the body of a success, which is JSON as RFC 8259 has it."""
    assert (response.status_code, response.content_type) == (200, "application/json"), response.text
    answer: Json = json.loads(response.data.decode("utf-8"), parse_constant=_no_number)
    return answer


def _no_number(name: str) -> None:
    message = f"{name} is no number in JSON"
    raise AssertionError(message)


def assert_problem(response: TestResponse, status: int, code: str, *fields: str) -> Json:
    """Check the one body of all errors (RFC 9457), and that it names these fields and no others."""
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    body: Json = json.loads(response.data.decode("utf-8"))
    detail, by_field = body["detail"], body.get("errors", {})
    assert body == {
        "type": f"urn:comfy-files:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **({"errors": by_field} if fields else {}),
    }
    assert isinstance(detail, str)
    assert len(detail) > len("too short")
    assert sorted(by_field) == sorted(fields)
    for messages in by_field.values():
        assert messages
        assert all(isinstance(message, str) and message for message in messages)
    return body


def assert_record(answered: Json, root: Path, original_path: str, **expected: Any) -> None:
    """Check every key of a file's record; the file is a recording that was copied to ``root``."""
    content = recording(original_path)
    moment = datetime.fromisoformat(answered["created_at"])
    assert re.fullmatch(r"[0-9a-f]{32}", answered["file_id"])
    assert answered["created_at"].endswith("Z")
    assert answered == {
        "file_id": answered["file_id"],
        "file_path": f"{root}/{expected['path']}",
        "timestamp": str(int(moment.timestamp())),
        "created_at": answered["created_at"],
        "file_type": "image",
        "file_extension": ".png",
        "media_type": "image/png",
        "generation_type": "image",
        "file_size": len(content),
        "modified_at": AN_HOUR_AGO.isoformat().replace("+00:00", "Z"),
        "checksum": hashlib.sha256(content).hexdigest(),
        "original_path": original_path,
        "evidence": "prefix",
        "same_file_as": None,
        "prompt_id": None,
        "node_id": None,
        "width": None,
        "height": None,
        "duration_s": None,
        **expected,
    }
    assert list(answered) == FILE_KEYS
    assert (root / answered["path"]).read_bytes() == content


def kept(root: Path) -> Tree:
    """Return everything below an output root, the document included, but not what can be thrown away."""
    return {
        path: entry for path, entry in read_tree(root).items() if path.partition("/")[0] != STATE
    }


def png_size(content: bytes) -> dict[str, int]:
    """Return the width and height that a PNG's header states (PNG specification, 11.2.1)."""
    width, height = struct.unpack(">II", content[16:24])
    return {"width": width, "height": height}


def tally(files: int, size: int) -> dict[str, int]:
    """Return a number of files and bytes as answers have it."""
    return {"files": files, "bytes": size}


def assert_reconciles(answer: Mapping[str, Any]) -> None:
    """Check found = moved + already there + skipped + failed, in files and in bytes."""
    left = [*answer["skipped"], *answer["failed"]]
    for key, of_left in (("files", len(left)), ("bytes", sum(entry["bytes"] for entry in left))):
        parts = answer["moved"][key] + answer["already_there"][key] + of_left
        assert answer["found"][key] == parts, key


def history_files(name: str) -> list[Json]:
    """Return the files that the recorded history of a real ComfyUI names, each as it stands there."""
    path = RECORDINGS.parents[1] / "responses" / f"history.{name}.json"
    (run,) = json.loads(path.read_bytes()).values()
    return [
        entry
        for listed in run["outputs"].values()
        for entries in listed.values()
        for entry in entries
        if isinstance(entry, dict) and "filename" in entry
    ]
