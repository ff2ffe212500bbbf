"""Talking to a ComfyUI server, and reading what its history says of a run. Decides nothing about files.

What a server answers is not trusted: it is limited in size and time, and a path in it that leads out of the output
directory makes the whole answer worthless.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from flask_comfy_files.core.errors import ComfyUIAnswerError, UnsafePathError
from flask_comfy_files.core.layout import require_relative_path

_TIMEOUT_S: Final = 5.0
_TRIES: Final = 2
_LARGEST_ANSWER_BYTES: Final = 64 * 1024**2  # ten thousand runs took 9 MB
_CHUNK_BYTES: Final = 256 * 1024
_RECENT_RUNS: Final = 1000
_ENDED: Final[Mapping[str, str]] = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


class UnreachableError(Exception):
    """The server did not answer; what it would have said is not known."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a run names; ``is_guess`` marks a plain string, which need not be a path at all."""

    path: str
    node_id: str
    is_guess: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a graph, as the history tells it.

    ``status`` is ``success``, ``error`` or ``interrupted``. ``outputs`` are the files of type
    ``output`` in the order in which their nodes ran, ``passed_over`` those of another type.
    ``cached_nodes`` were not executed: what they name was written by an earlier run. Times are those
    of the server's messages, in whole milliseconds.
    """

    prompt_id: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    outputs: tuple[Output, ...]
    passed_over: tuple[str, ...]
    cached_nodes: frozenset[str]
    graph: Mapping[str, Any]
    inbox_run: str | None

    def signature(self, node_id: str) -> str | None:
        """Return what two executions of a node share when they make the same file: a digest of its inputs."""
        return signature(self.graph, node_id)


def signature(graph: Mapping[str, Any], node_id: str) -> str | None:
    """Return a digest of a node's class and of all that flows into it, whatever the nodes are called.

    It is ``None`` where the graph makes no sense.
    """
    feeders: dict[str, list[str]] = {}
    waiting = [node_id]
    while waiting:
        current = waiting.pop()
        node = graph.get(current)
        if current in feeders:
            continue
        if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
            return None
        feeders[current] = [value[0] for value in node["inputs"].values() if _is_link(value)]
        waiting += feeders[current]
    digests: dict[str, str] = {}
    try:
        for current in TopologicalSorter(feeders).static_order():
            digests[current] = _digest(graph[current], digests)
    except CycleError:
        return None
    return digests[node_id]


def _digest(node: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    inputs = {
        str(name): {"from": digests[value[0]], "slot": value[1]} if _is_link(value) else value
        for name, value in node["inputs"].items()
    }
    text = json.dumps([node.get("class_type"), inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _is_link(value: object) -> bool:
    """Say whether an input is ``[node, slot]``, by ComfyUI's own test; a list of two texts is a value."""
    match value:
        case [str(), int() | float()]:
            return True
    return False


class ComfyUI:
    """A ComfyUI server; safe for threads, keeps nothing open."""

    def __init__(self, url: str) -> None:
        """Take the server's address, such as ``http://127.0.0.1:8188``."""
        self._url = url
        # Neither the environment's proxies nor a redirect may lead the question to another server.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def find_run(self, prompt_id: str) -> Run | None:
        """Return a finished run, or ``None`` when the history does not have it.

        Raises:
            UnreachableError: The server is down.
            ComfyUIAnswerError: It answered something that ComfyUI does not.
        """
        history = self._get(f"/history/{urllib.parse.quote(prompt_id, safe='')}")
        if prompt_id not in history:
            return None
        return read_run(prompt_id, history[prompt_id])

    def is_queued(self, prompt_id: str) -> bool:
        """Say whether a run is still running or waiting.

        Raises:
            UnreachableError: The server is down.
            ComfyUIAnswerError: It answered something that ComfyUI does not.
        """
        queue = self._get("/queue")
        waiting = [
            entry for key in ("queue_running", "queue_pending") for entry in _list(queue, key)
        ]
        return any(isinstance(entry, list) and prompt_id in entry[1:2] for entry in waiting)

    def recent_runs(self) -> tuple[Run, ...]:
        """Return the newest runs of the history, unreadable ones apart, to tell a file's own run from others.

        Raises:
            UnreachableError: The server is down.
            ComfyUIAnswerError: It answered something that ComfyUI does not.
        """
        history = self._get(f"/history?max_items={_RECENT_RUNS}")
        return tuple(_readable(history))

    def _get(self, address: str) -> dict[str, Any]:
        for attempt in range(_TRIES):
            try:
                with self._opener.open(self._url + address, timeout=_TIMEOUT_S) as response:
                    return _parse(_read(response))
            except urllib.error.HTTPError as error:
                error.close()
                raise ComfyUIAnswerError(
                    f"status {error.code} for {address.partition('?')[0]}"
                ) from None
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if attempt == _TRIES - 1:
                    raise UnreachableError(str(error)) from error
            except (http.client.HTTPException, OSError) as error:
                raise ComfyUIAnswerError(
                    f"an answer that broke off ({type(error).__name__})"
                ) from error
        raise UnreachableError  # pragma: no cover - the loop always ends above


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read an answer that must come within size and time."""
    ends_at = time.monotonic() + 2 * _TIMEOUT_S
    parts, size = [], 0
    try:
        # What has come so far: `read` waits for all it was asked for, however slowly that trickles in.
        while chunk := response.read1(_CHUNK_BYTES):
            parts.append(chunk)
            size += len(chunk)
            if size > _LARGEST_ANSWER_BYTES:
                raise ComfyUIAnswerError(f"more than {_LARGEST_ANSWER_BYTES} bytes")
            if time.monotonic() > ends_at:
                raise ComfyUIAnswerError("an answer that takes too long")
    except TimeoutError:
        raise ComfyUIAnswerError("an answer that takes too long") from None
    return b"".join(parts)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ComfyUIAnswerError("something that is no JSON") from None
    if not isinstance(answer, dict):
        raise ComfyUIAnswerError("JSON that is no object")
    return answer


def _list(answer: Mapping[str, Any], key: str) -> list[Any]:
    value = answer.get(key, [])
    if not isinstance(value, list):
        raise ComfyUIAnswerError(f"{key} that is no list")
    return value


def _readable(history: Mapping[str, Any]) -> Iterator[Run]:
    for prompt_id, item in history.items():
        try:
            yield read_run(prompt_id, item)
        except ComfyUIAnswerError:
            continue


def read_run(prompt_id: str, item: object) -> Run:
    """Read one item of the history.

    Raises:
        ComfyUIAnswerError: It is none, or names a path outside the output directory.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("outputs"), Mapping):
        raise ComfyUIAnswerError("a history item without outputs")
    prompt = item.get("prompt")
    parts: Sequence[Any] = prompt if isinstance(prompt, list) else []
    graph, extra_data = _mapping(parts, 2), _mapping(parts, 3)
    messages = _messages(item.get("status"))
    ended = next((kind for kind in reversed(messages) if kind in _ENDED), None)
    named = [
        named for node_id, output in item["outputs"].items() for named in _named(node_id, output)
    ]
    return Run(
        prompt_id=prompt_id,
        status=_ENDED[ended] if ended else "success",
        started_at=_time_of(messages.get("execution_start"))
        or _moment(extra_data.get("create_time")),
        finished_at=_time_of(messages.get(ended or "")),
        error=_error_of(messages, ended),
        outputs=tuple(output for output, kind in named if kind == "output"),
        passed_over=tuple(output.path for output, kind in named if kind != "output"),
        cached_nodes=frozenset(map(str, _cached(messages))),
        graph=graph,
        inbox_run=_inbox_run(extra_data),
    )


def _mapping(parts: Sequence[Any], place: int) -> Mapping[str, Any]:
    found = parts[place] if len(parts) > place else None
    return found if isinstance(found, Mapping) else {}


def _messages(status: object) -> dict[str, Mapping[str, Any]]:
    """Return the run's messages by kind, in their order."""
    listed = status.get("messages") if isinstance(status, Mapping) else None
    found: dict[str, Mapping[str, Any]] = {}
    for message in listed if isinstance(listed, list) else []:
        match message:
            case [str(kind), dict(content)]:
                found[kind] = content
    return found


def _cached(messages: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    nodes = messages.get("execution_cached", {}).get("nodes")
    return nodes if isinstance(nodes, list) else []


def _time_of(message: Mapping[str, Any] | None) -> datetime | None:
    return None if message is None else _moment(message.get("timestamp"))


def _moment(milliseconds: object) -> datetime | None:
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _error_of(messages: Mapping[str, Mapping[str, Any]], ended: str | None) -> str | None:
    message = messages.get(ended or "", {}).get("exception_message")
    return message.strip() if isinstance(message, str) else None


def _inbox_run(extra_data: Mapping[str, Any]) -> str | None:
    pnginfo = extra_data.get("extra_pnginfo")
    tag = pnginfo.get("comfy_files") if isinstance(pnginfo, Mapping) else None
    run = tag.get("run") if isinstance(tag, Mapping) else None
    return run if isinstance(run, str) else None


def _named(node_id: str, output: object) -> Iterator[tuple[Output, str]]:
    """Yield every file that a node's output names, under whatever key, with its type."""
    for key, listed in output.items() if isinstance(output, Mapping) else ():
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, Mapping) and "filename" in entry:
                yield Output(_path_of(entry), node_id), str(entry.get("type", "output"))
            elif key == "result" and isinstance(entry, str) and "." in entry:
                with contextlib.suppress(UnsafePathError):  # a text need not be a path
                    path = require_relative_path("result", entry)
                    yield Output(path, node_id, is_guess=True), "output"


def _path_of(entry: Mapping[str, Any]) -> str:
    filename, subfolder = entry["filename"], entry.get("subfolder") or ""
    if not isinstance(filename, str) or "/" in filename or not isinstance(subfolder, str):
        raise ComfyUIAnswerError("a file name that is none")
    if subfolder.startswith("/"):
        raise ComfyUIAnswerError("a subfolder that is absolute")
    return _require_path(f"{subfolder}/{filename}".lstrip("/"))


def _require_path(path: str) -> str:
    try:
        return require_relative_path("filename", path)
    except UnsafePathError as error:
        raise ComfyUIAnswerError(f"a path that {error.problem}") from error
