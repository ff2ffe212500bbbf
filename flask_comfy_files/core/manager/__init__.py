"""``FileManager``: the library as one object, free of Flask. It makes the collaborators and delegates to them.

Its methods stand in one module for each thing that people do with a library.
"""

from __future__ import annotations

from flask_comfy_files.core.manager.delivering import Delivering
from flask_comfy_files.core.manager.exchanging import Exchanging
from flask_comfy_files.core.manager.jobs import Jobs
from flask_comfy_files.core.manager.keeping import Keeping
from flask_comfy_files.core.manager.listing import Listing
from flask_comfy_files.core.manager.migrating import Migrating
from flask_comfy_files.core.manager.operating import Operating
from flask_comfy_files.core.manager.tasking import Tasking
from flask_comfy_files.core.manager.trusting import Trusting
from flask_comfy_files.core.manager.verifying import Verifying
from flask_comfy_files.core.manager.watching import Watching


class FileManager(
    Delivering,
    Exchanging,
    Jobs,
    Keeping,
    Listing,
    Migrating,
    Operating,
    Tasking,
    Trusting,
    Verifying,
    Watching,
):
    """Organizes the output of ComfyUI in one output root, and answers what is in it.

    One object serves all threads of a process, and processes share a library: changes are made one
    at a time, reading never waits for them. Making one touches no disk. ``close`` frees what it has
    opened.

    Raises:
        ConfigurationError: A setting is wrong; see ``flask_comfy_files.config``.
    """
