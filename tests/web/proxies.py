"""A real nginx on a port of its own, with the configuration that a page shows; and curl, which asks it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from tests.docs.pages import Page
from tests.programs import path_of
from tests.web.server import running

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
        command += ["-c", f"{folder}/nginx.conf"]
        environ = {"NGINX": f"{listener.fileno()};"}  # it takes this socket over, as in an upgrade
        with running(command, listener, environ, folder / "nginx.out"):
            yield f"http://{address}"
