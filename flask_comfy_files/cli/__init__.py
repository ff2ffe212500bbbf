"""``flask files …``: parse, call one method, print, exit."""

from __future__ import annotations

import click

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.cli import (
    deleting,
    delivering,
    exchanging,
    listing,
    migrating,
    organizing,
    tasking,
    trusting,
    undoing,
    verifying,
)


def files_group(api: FileManagerAPI) -> click.Group:
    """Return the commands of one app's library."""
    group = click.Group("files", help="The library of ComfyUI's output.")
    for command in (
        *organizing.commands(api),
        *listing.commands(api),
        *migrating.commands(api),
        *verifying.commands(api),
        *deleting.commands(api),
        *trusting.commands(api),
        *exchanging.commands(api),
        *delivering.commands(api),
        *undoing.commands(api),
        *tasking.commands(api),
    ):
        group.add_command(command)
    return group
