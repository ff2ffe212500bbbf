"""Disks whose power can be cut: what was not synced is really gone when they are mounted again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h) is XFS_IOC_GOINGDOWN (fs/xfs/libxfs/xfs_fs.h).
_SHUT_DOWN: Final = 0x8004587D
_WITHOUT_FLUSHING_THE_LOG: Final = struct.pack("I", 2)


@dataclass(frozen=True)
class FileSystem:
    """How a file system is made and mounted; nothing reaches its disk but what is synced."""

    make: Sequence[str]
    size: int
    """In bytes: the least that works."""
    options: str = "loop"


FILE_SYSTEMS = {
    # Without the kernel's help for programs that forget to sync, and without a commit every 5 s.
    "ext4": FileSystem(["mkfs.ext4", "-q", "-F"], 48 * 1024**2, "loop,noauto_da_alloc,commit=300"),
    "xfs": FileSystem(["mkfs.xfs", "-q"], 320 * 1024**2),
}


class Disk:
    """A disk in an image, and the same disk as it was first, to begin with again and again."""

    def __init__(self, folder: Path, kind: FileSystem, fill: Callable[[Path], object]) -> None:
        """Make a disk in a folder, which should lie in memory, and fill its mounted top."""
        self.top = folder / "disk"
        self.top.mkdir()
        self._kind = kind
        self._image, self._first = folder / "image", folder / "first"
        with self._image.open("wb") as raw:
            raw.truncate(kind.size)
        subprocess.run([*kind.make, str(self._image)], check=True)
        with self.mounted():
            fill(self.top)
        _copy_sparsely(self._image, self._first)

    def renew(self) -> None:
        """Make the disk what it was first; it must not be mounted."""
        _copy_sparsely(self._first, self._image)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Have the disk mounted on its top."""
        with mounted(self.top, "-o", self._kind.options, str(self._image)):
            yield

    def cut_power(self) -> None:
        """Let nothing more reach the disk: neither what lies in the cache nor what lies in the log."""
        descriptor = os.open(self.top, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUT_DOWN, _WITHOUT_FLUSHING_THE_LOG)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder, and take it away whatever happens."""
    subprocess.run(["mount", *options, str(place)], check=True)
    try:
        yield
    finally:
        if subprocess.run(["umount", str(place)], check=False).returncode:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def _copy_sparsely(image: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(image), str(target)], check=True)
