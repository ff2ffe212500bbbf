"""Files that say what a process is working on, and that it still is: the kernel ends their lock with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from flask_comfy_files.core import durable

_TRIES: Final = 20
_PAUSE_S: Final = 0.005
"""Who only looks whether somebody works holds the lock for less."""


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


def take(folder: int, name: str) -> int | None:
    """Open a file, locked for who works on something and empty; ``None`` while another works on it.

    Any thread may give it back; otherwise the lock ends with the process.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)  # whoever was asked to stop works no more
                return descriptor
            time.sleep(_PAUSE_S)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def give_back(descriptor: int) -> None:
    """Unlock a file that was taken, and close it."""
    fcntl.flock(
        descriptor, fcntl.LOCK_UN
    )  # a process that was forked meanwhile has it open as well
    os.close(descriptor)


def is_taken(folder: int, name: str) -> bool:
    """Say whether somebody holds a file that was taken; looking at it changes nothing."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def ask_to_stop(folder: int, name: str) -> None:
    """Ask who has taken a file to stop."""
    descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        durable.write_all(descriptor, b"stop", 0)
    finally:
        os.close(descriptor)


def is_asked_to_stop(descriptor: int) -> bool:
    """Say whether who has taken a file was asked to stop since."""
    return os.fstat(descriptor).st_size > 0
