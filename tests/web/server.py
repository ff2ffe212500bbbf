"""A real server with several processes and threads."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run gunicorn for the ``app`` of ``studio.py`` in a folder, on a free port; yield its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        command = [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4"),
            *("--bind", f"fd://{listener.fileno()}", "--log-level", "warning"),
            *("--pythonpath", str(folder), *options, "studio:app"),
        ]
        with subprocess.Popen(
            command, env=os.environ, pass_fds=[listener.fileno()], stderr=subprocess.PIPE
        ) as server:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                with contextlib.closing(connection):
                    connection.request("GET", "/")  # it waits for the first worker
                    connection.getresponse().read()
                yield f"http://127.0.0.1:{port}"
            finally:
                server.send_signal(signal.SIGTERM)
                _, said = server.communicate(timeout=30)
            assert server.returncode == 0, said.decode()
            assert b"Traceback" not in said, said.decode()
