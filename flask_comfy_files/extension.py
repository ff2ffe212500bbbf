"""``ComfyFiles``: the extension object, and the one line that registers everything on a host app."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Final

from flask import Flask, current_app

from flask_comfy_files import metrics
from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.cli import files_group
from flask_comfy_files.config import Settings
from flask_comfy_files.core.errors import ConfigurationError
from flask_comfy_files.core.manager import FileManager
from flask_comfy_files.web.blueprint import build_blueprint
from flask_comfy_files.web.completion import CompletionHook
from flask_comfy_files.web.worker import Worker

_log = logging.getLogger(__name__)

EXTENSION_KEY: Final = "comfy_files"


class ComfyFiles:
    """Adds the library of one output root to Flask apps.

    The object holds its options alone; ``app.extensions["comfy_files"]`` holds an app's ``FileManager``, so
    that two apps share nothing. The host is left as it was: no global handler, provider, logging or thread.
    """

    def __init__(self, app: Flask | None = None, **settings: Any) -> None:
        """Keep settings in lower case for ``init_app``; with an app, call it at once."""
        self._settings = settings
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register routes, completion hook and commands on an app.

        Settings come from ``app.config`` (``COMFY_FILES_*``) and from the constructor, which wins.

        Raises:
            ConfigurationError: A setting is wrong, the app has the extension already, or the system is no
                Linux.
            MissingExtraError: There is a METRICS_REGISTRY, and what metrics need is not installed.
        """
        if EXTENSION_KEY in app.extensions:
            raise ConfigurationError(
                "ComfyFiles",
                app.name,
                "is registered on this app already; did you call init_app or add_file_manager_routes twice?",
            )
        _require_linux()
        settings = Settings.from_mapping(app.config, self._settings, os.environ)
        manager = FileManager.from_settings(settings)
        if settings.metrics_registry is not None:
            metrics.register(manager, settings.metrics_registry)
        api = FileManagerAPI(manager)
        app.register_blueprint(build_blueprint(api))
        CompletionHook(api, Worker(manager)).register(app)
        app.cli.add_command(files_group(api), name=_free_command_name(app))
        app.extensions[EXTENSION_KEY] = manager
        if not settings.token and settings.authorize is None:
            _log.warning(
                "neither COMFY_FILES_TOKEN nor COMFY_FILES_AUTHORIZE is set: requests from this machine may"
                " change files, and a reverse proxy on it can make strangers look like it",
            )

    @property
    def manager(self) -> FileManager:
        """The ``FileManager`` of the current app."""
        manager: FileManager = current_app.extensions[EXTENSION_KEY]
        return manager


def add_file_manager_routes(
    app: Flask, api_prefix: str | None = None, **settings: Any
) -> ComfyFiles:
    """Register everything on a host app: the REST routes, the completion hook, the ``flask files`` commands.

    ``api_prefix`` is by default the setting ``URL_PREFIX``, else ``/api/files``. Further settings are those of
    ``docs/reference/config.md`` in lower case.

    Raises:
        ConfigurationError: A setting is wrong, or the app has the extension already.
    """
    if api_prefix is not None:
        settings["url_prefix"] = api_prefix
    return ComfyFiles(app, **settings)


def _require_linux() -> None:
    if sys.platform != "linux":
        raise ConfigurationError(
            "The platform",
            sys.platform,
            "flask-comfy-files needs Linux: renameat2, flock and /proc are what its promises rest on.",
        )


def _free_command_name(app: Flask) -> str:
    """Return the name of our command group; a host's own ``files`` group stays what it is."""
    return "comfy-files" if "files" in app.cli.commands else "files"
