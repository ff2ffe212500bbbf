"""What the system tells of files and folders beside their bytes; leaves no trace on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

from flask_comfy_files.core.durable import open_folder


def mount_id(folder: int) -> str:
    """Return what tells two mounts apart, bind mounts of one file system included (Linux ``/proc``)."""
    try:
        with open(f"/proc/self/fdinfo/{folder}", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("mnt_id:"):
                    return line
    except OSError:
        pass
    return str(os.fstat(folder).st_dev)


def has_writer(descriptor: int) -> bool | None:
    """Say whether any process has a file open for writing; ``None`` where the kernel does not tell us.

    Asks for a read lease (fcntl(2), F_SETLEASE), which Linux refuses while there is a writer. It
    needs a file of our own user, or CAP_LEASE, and a local file system.
    """
    try:
        # A writer who comes while we hold the lease makes the kernel signal us; by default with
        # SIGIO, which kills.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def holds_more_than(root: str, folder: str, name: str) -> bool:
    """Say whether anything but one name stands in a folder; looks no further than it has to."""
    with open_folder(root, folder) as descriptor, os.scandir(descriptor) as entries:
        return any(entry.name != name for entry in entries)


def names_in(root: str, folder: str) -> list[str]:
    """Return the names in a folder; none where there is no such folder, or it cannot be read."""
    try:
        with open_folder(root, folder) as descriptor, os.scandir(descriptor) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []


def list_folder(root: str, folder: str) -> list[tuple[str, os.stat_result]]:
    """Return the names in a folder, with what lstat says of each; looking leaves no trace on the disk.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    with open_folder(root, folder) as descriptor:
        return [
            (name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
            for name in _names_in(descriptor)
        ]


def sorted_names(root: str, folder: str) -> list[str]:
    """Return the names in a folder, sorted; looking leaves no trace on the disk.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    with open_folder(root, folder) as descriptor:
        return sorted(_names_in(descriptor))


def _names_in(descriptor: int) -> list[str]:
    # Not of our own user: then the folder's time of access may show that it was read.
    with contextlib.suppress(PermissionError):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NOATIME)
    return os.listdir(descriptor)
