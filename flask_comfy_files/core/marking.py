"""What people say of a job: that it is pinned, and its tags."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import InvalidInputError, JobNotFoundError
from flask_comfy_files.core.policy import LONGEST_TAG, is_tag
from flask_comfy_files.core.records import iso_utc
from flask_comfy_files.core.recovery import changing
from flask_comfy_files.core.request import Clock

MOST_TAGS: Final = 100


def require_tags(tags: object) -> list[str]:
    """Return a job's tags, sorted and each once.

    Raises:
        InvalidInputError: They are no list of tags.
    """
    if not isinstance(tags, list | tuple | set | frozenset) or len(tags) > MOST_TAGS:
        raise InvalidInputError("tags", tags, f"is no list of at most {MOST_TAGS} tags")
    for tag in tags:
        if not is_tag(tag):
            problem = f"is no tag: 1 to {LONGEST_TAG} printable characters, no space around them"
            raise InvalidInputError("tags", tag, problem)
    return sorted(set(tags))


def mark(
    root: str,
    catalog: Catalog,
    clock: Clock,
    job_id: str,
    *,
    pinned: bool | None,
    tags: Sequence[str] | None,
) -> None:
    """Set what is given of a job's marks; what is so already is not written again.

    Raises:
        JobNotFoundError: It is not known.
    """
    with changing(root, catalog) as writer:
        job = writer.find_job(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        wanted: dict[str, Any] = {}
        if pinned is not None:
            wanted["pinned"] = pinned or None  # null removes a key from the state
        if tags is not None:
            wanted["tags"] = list(tags) or None
        changed = {key: value for key, value in wanted.items() if value != job.state.get(key)}
        if not changed:
            return
        operation = {"id": uuid.uuid4().hex, "kind": "mark", "at": iso_utc(clock())}
        change = {"kind": "state", "job_id": job_id, "operation": operation, "state": changed}
        try:
            lines = writer.append([change])
        except OSError as error:
            durable.refuse("Recording", job_id, error)
        writer.advance(lines)
