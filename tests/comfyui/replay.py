"""A ComfyUI that answers over real HTTP what a real one was recorded to answer, or misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
Misbehaviour = Callable[["Handler"], None]

_LONGEST_WAIT_S = 10.0
_DRIP_S = 0.02
_NOISE = b"x" * 65536


class Replay(ThreadingHTTPServer):
    """Serves ``/history`` and ``/queue``; has no ``/api/jobs``, as 0.3.64 has none. Tests set its attributes."""

    daemon_threads = False  # closing waits for the answers under way

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.history: Json = {}
        """By prompt id, oldest first."""
        self.running: list[str] = []
        self.pending: list[str] = []
        self.late = 0
        """How many questions for one run are answered as if it were not in the history yet."""
        self.misbehaves: dict[str, Misbehaviour] = {}
        """What is done instead of answering, by the beginning of the address."""
        self.asked: list[str] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        """Go down: whoever asks from now on finds nobody."""
        if not self.stopped.is_set():
            self.stopped.set()
            self.shutdown()
            self.server_close()

    def answer(self, address: str) -> Json | None:
        """Return what ComfyUI answers, or ``None`` where it has nothing."""
        url = urlsplit(address)
        if url.path == "/queue":
            return {
                "queue_running": [[number, run, {}, {}, []] for number, run in _many(self.running)],
                "queue_pending": [[number, run, {}, {}, []] for number, run in _many(self.pending)],
            }
        if url.path == "/history":
            most = int(parse_qs(url.query).get("max_items", ["0"])[0])
            return dict(list(self.history.items())[-most:])
        if url.path.startswith("/history/"):
            prompt_id = unquote(url.path.removeprefix("/history/"))
            self.late -= 1
            known = self.late < 0 and prompt_id in self.history
            return {prompt_id: self.history[prompt_id]} if known else {}
        return None


def _many(prompt_ids: list[str]) -> list[tuple[int, str]]:
    return list(enumerate(prompt_ids))


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    @property
    def replay(self) -> Replay:
        return cast("Replay", self.server)

    def do_GET(self) -> None:
        replay = self.replay
        replay.asked.append(self.path)
        with suppress(ConnectionError):  # the client has heard enough
            for beginning, misbehave in replay.misbehaves.items():
                if self.path.startswith(beginning):
                    misbehave(self)
                    return
            answer = replay.answer(self.path)
            if answer is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self.say(json.dumps(answer).encode())

    def say(self, body: bytes, status: int = HTTPStatus.OK, **headers: str) -> None:
        """Answer with a body; its length is the true one unless a header says otherwise."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def replaying() -> Iterator[Replay]:
    """Have a server run for a while."""
    server = Replay()
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def says(body: bytes, status: int = HTTPStatus.OK, **headers: str) -> Misbehaviour:
    """Answer with something that is not what ComfyUI answers."""
    return lambda handler: handler.say(body, status, **headers)


def breaks_off(handler: Handler) -> None:
    """Send the half of an answer."""
    body = json.dumps(handler.replay.answer(handler.path)).encode()
    handler.say(body[: len(body) // 2], Content_Length=str(len(body)))


def hangs_up(handler: Handler) -> None:
    """Send nothing at all."""
    handler.close_connection = True


def speaks_something_else(handler: Handler) -> None:
    """Send what is no HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def redirects_to(url: str) -> Misbehaviour:
    """Send the client to another address."""
    return lambda handler: handler.say(b"{}", HTTPStatus.FOUND, Location=url)


def never_ends(handler: Handler) -> None:
    """Send more and more, until the client closes or the server stops."""
    handler.send_response(HTTPStatus.OK)
    handler.end_headers()
    while not handler.replay.stopped.is_set():
        handler.wfile.write(_NOISE)


def never_begins(handler: Handler) -> None:
    """Accept the question and say nothing, until the server stops."""
    handler.replay.stopped.wait(_LONGEST_WAIT_S)


def drips(handler: Handler) -> None:
    """Send an answer byte by byte, each in time, until the client closes or the server stops."""
    handler.send_response(HTTPStatus.OK)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(int(_LONGEST_WAIT_S / _DRIP_S)):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        if handler.replay.stopped.wait(_DRIP_S):
            return
