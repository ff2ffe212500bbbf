"""A real nginx before a real gunicorn, each on a port of its own, with the configuration that a page shows."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from tests.docs.pages import Page
from tests.programs import path_of

_NGINX = """
daemon off;
user {user} {group};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{}}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


@dataclass(frozen=True)
class Answer:
    """What curl was answered."""

    status: int
    headers: Message
    body: bytes


def fetch(url: str, *options: str) -> Answer:
    """Ask for something with curl; ``options`` are its own."""
    command = [path_of("curl"), "-sS", "--max-time", "60", "-i", *options, url]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    head, _, body = said.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return Answer(int(status.split()[1]), BytesHeaderParser().parsebytes(headers), body)


def python_of(page: Page) -> str:
    """Return the Python of a page, as one module."""
    return "\n\n".join(block.text for block in page.blocks if block.language == "python")


def nginx_of(page: Page) -> str:
    """Return the configuration of nginx that a page shows."""
    (block,) = (block for block in page.blocks if block.text.startswith("server {"))
    return block.text


@contextlib.contextmanager
def gunicorn(folder: Path, module: str, **environ: str) -> Iterator[str]:
    """Serve the ``app`` of a module's text; yield its address, as ``http://…``. Its log is ``app.log``."""
    (folder / "served.py").write_text(module)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        command = [
            *(sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4"),
            *("--bind", f"fd://{listener.fileno()}", "--access-logfile", "-", "served:app"),
        ]
        with (folder / "app.log").open("wb") as log:
            yield from _running(
                command, listener, {"PYTHONPATH": f"{folder}:{Path.cwd()}", **environ}, log.fileno()
            )


@contextlib.contextmanager
def nginx(folder: Path, servers: str, replacing: Mapping[str, str]) -> Iterator[str]:
    """Run nginx with a server that listens on port 80, but for the port, and with other things replaced."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = "{}:{}".format(*listener.getsockname())
        for old, new in {"listen 80;": f"listen {address};", **replacing}.items():
            assert old in servers
            servers = servers.replace(old, new)
        (folder / "nginx.conf").write_text(
            _NGINX.format(
                folder=folder,
                servers=servers,
                user=pwd.getpwuid(os.geteuid()).pw_name,
                group=grp.getgrgid(os.getegid()).gr_name,
            )
        )
        command = [path_of("nginx"), "-e", f"{folder}/nginx.log", "-p", str(folder)]
        with (folder / "nginx.out").open("wb") as log:
            yield from _running(
                [*command, "-c", f"{folder}/nginx.conf"],
                listener,
                {"NGINX": f"{listener.fileno()};"},  # it takes this socket over, as in an upgrade
                log.fileno(),
            )


def _running(
    command: list[str], listener: socket.socket, environ: Mapping[str, str], log: int
) -> Iterator[str]:
    # Whoever connects before it is up waits in the backlog.
    with subprocess.Popen(
        command,
        env={**os.environ, **environ},
        pass_fds=[listener.fileno()],
        stdout=log,
        stderr=subprocess.STDOUT,
    ) as server:
        try:
            yield "http://{}:{}".format(*listener.getsockname())
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, command
