"""Real servers on free ports of this machine: gunicorn, with several processes and threads, and whatever else."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A gunicorn at work; ``address`` begins with ``http://``."""

    address: str
    process_id: int
    log: Path


@contextlib.contextmanager
def gunicorn(folder: Path, module: str, *options: str, **environ: str) -> Iterator[Server]:
    """Serve the ``app`` of a module's text, which is ``served.py`` in a folder then; its log is ``app.log``."""
    (folder / "served.py").write_text(module, encoding="utf-8")
    log = folder / "app.log"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        host, port = listener.getsockname()
        command = [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4"),
            *("--bind", f"fd://{listener.fileno()}", "--log-level", "warning"),
            *("--pythonpath", str(folder), *options, "served:app"),
        ]
        with running(command, listener, environ, log) as process_id:
            connection = http.client.HTTPConnection(host, port, timeout=60)
            with contextlib.closing(connection):
                connection.request("GET", "/")  # it waits for the first worker
                connection.getresponse().read()
            yield Server(f"http://{host}:{port}", process_id, log)


@contextlib.contextmanager
def faultless_gunicorn(
    folder: Path, module: str, *options: str, **environ: str
) -> Iterator[Server]:
    """Do the same, and require that nothing was raised to the end."""
    with gunicorn(folder, module, *options, **environ) as server:
        yield server
    said = server.log.read_text()
    assert "Traceback" not in said, said


@contextlib.contextmanager
def running(
    command: list[str], listener: socket.socket, environ: Mapping[str, str], log: Path
) -> Iterator[int]:
    """Run what takes a socket over, in whose backlog early callers wait; yield its process id."""
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            env={**os.environ, **environ},
            pass_fds=[listener.fileno()],
            stdout=said,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            yield server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, log.read_text()
