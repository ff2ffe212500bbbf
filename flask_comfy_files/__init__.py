"""An organized, tracked and served library out of ComfyUI's output folder, inside somebody's own Flask app.

The names that need Flask are loaded when they are first used, so that ``FileManager`` works without
it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core.manager import FileManager

if TYPE_CHECKING:
    from flask_comfy_files.extension import ComfyFiles, add_file_manager_routes

__all__ = ["ComfyFiles", "FileManager", "FileManagerAPI", "add_file_manager_routes"]

_NEED_FLASK: Final = frozenset({"ComfyFiles", "add_file_manager_routes"})


def __getattr__(name: str) -> Any:
    if name in _NEED_FLASK:
        return getattr(import_module("flask_comfy_files.extension"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
