"""The library lock: one writer at a time among all processes and threads of a machine."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import filelock

from flask_comfy_files.core.errors import LockTimeoutError

_POLL_INTERVAL_S: Final = 0.005
# Newer versions fall back to a soft lock, which a killed holder leaves behind, and remove the file
# at each release.
_WISHES: Final[dict[str, Any]] = {"fallback_to_soft": False, "preserve_lock_file": True}
_UNDERSTOOD: Final = inspect.signature(filelock.FileLock.__init__).parameters


@contextlib.contextmanager
def hold(
    lock_path: str, timeout_s: float, on_waited: Callable[[float], None] | None = None
) -> Iterator[None]:
    """Hold the lock of a library; its folder must exist.

    A lock object is made for each call: one that was made before a fork does not work in the child.
    The kernel frees the lock when its holder dies. ``on_waited`` is told for how many seconds it was waited,
    in vain or not.

    Raises:
        LockTimeoutError: Another process or thread has held it for ``timeout_s`` seconds; nothing
        was changed. OSError: The lock file cannot be opened.
    """
    options = {name: value for name, value in _WISHES.items() if name in _UNDERSTOOD}
    library_lock = filelock.FileLock(lock_path, timeout=timeout_s, thread_local=False, **options)
    began_at = time.perf_counter()
    try:
        library_lock.acquire(poll_interval=_POLL_INTERVAL_S)
    except filelock.Timeout as error:
        raise LockTimeoutError(timeout_s) from error
    finally:
        if on_waited is not None:
            on_waited(time.perf_counter() - began_at)
    try:
        yield
    finally:
        library_lock.release()
