"""All changes that concern one file, from the document and from those that it has replaced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from flask_comfy_files.core.catalog import predecessors
from flask_comfy_files.core.catalog.document import COMPACT, Change, decode_start

_PARTS = ("trash", "restore", "purge")


def changes_of(root: str, descriptor: int, file_id: str) -> Iterator[Change]:
    """Yield the changes that speak of a file, and those by which its job went and came back, in order.

    Lines that only sum up what older ones told are passed over. Documents are read as bytes, and of their lines
    only those are decoded that name the file or its job.
    """
    names = [file_id.encode("ascii")]
    is_told = False
    with contextlib.ExitStack() as stack:
        for source in _documents(stack, root, descriptor):
            for raw in source:
                if not any(name in raw for name in names):
                    continue
                found = decode_start(raw)
                change = None if found is None else found[1]
                if change is None or not _concerns(change, file_id, is_told=is_told):
                    continue
                if change["operation"]["kind"] == COMPACT and is_told:
                    continue
                is_told = True
                if change["job_id"] is not None:
                    names = [names[0], b'"job_id": "%s"' % change["job_id"].encode("ascii")]
                yield change


def _concerns(change: Change, file_id: str, *, is_told: bool) -> bool:
    if is_told and any(part in change for part in _PARTS):
        return True
    if change["kind"] != "state":
        named = [stored["file_id"] for stored in change["files"]]
        return file_id in named or file_id in change.get("twins", {})
    return file_id in change.get("files", {}) or file_id in change.get("twins", {})


def _documents(stack: contextlib.ExitStack, root: str, descriptor: int) -> Iterator[BinaryIO]:
    """Yield the documents of all generations, oldest first."""
    for generation in predecessors.generations(root):
        older = stack.enter_context(predecessors.open_document(root, generation))
        if older is not None:
            yield stack.enter_context(os.fdopen(older, "rb", closefd=False))
    source = stack.enter_context(os.fdopen(descriptor, "rb", closefd=False))
    source.seek(0)
    yield source
