"""Files that say what a process is working on, and that it still is: the kernel ends their lock with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from flask_comfy_files.core import durable


@contextlib.contextmanager
def announced(folder: int, name: str, content: bytes) -> Iterator[None]:
    """Have a file with some content while this process works on something; it removes it at the end.

    It is locked (flock), and the kernel ends that lock with the process: whoever finds the file can
    tell whether its maker still works.
    """
    descriptor = _create_locked(folder, name)
    try:
        durable.write_all(descriptor, content, 0)
        os.fsync(descriptor)
        durable.sync_folder(folder)
        yield
    finally:
        os.close(descriptor)


def _create_locked(folder: int, name: str) -> int:
    """Create a file and lock it; a sweeper that comes in between takes it for abandoned and removes it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def read_abandoned(folder: int, name: str) -> bytes | None:
    """Return the content of an announcement whose maker has died; ``None`` while the maker lives."""
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)
