"""``flask files …``: parse, call one method, print, exit."""

from __future__ import annotations

import click

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.cli import deleting, migrating, organizing, verifying


def files_group(api: FileManagerAPI) -> click.Group:
    """Return the commands of one app's library."""
    group = click.Group("files", help="The library of ComfyUI's output.")
    for command in (
        *organizing.commands(api),
        *migrating.commands(api),
        *verifying.commands(api),
        *deleting.commands(api),
    ):
        group.add_command(command)
    return group
