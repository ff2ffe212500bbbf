"""Every effect on the disk, and nothing but effects: it knows bytes and names, not jobs.

All paths are pairs of an open folder (a descriptor) and a name in it. Folders are opened from the
output root downwards, part by part, without following a link, so nothing here can be led out of the
root, and a folder that is exchanged meanwhile is not the folder that was opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

from flask_comfy_files.core.errors import ChecksumMismatchError, StorageError
from flask_comfy_files.core.layout import is_in, split

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY_CHUNK_BYTES: Final = 1024 * 1024
_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_RENAMEAT2_MISSING: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})

# Not in every C library; where it is missing a link does the same.
_renameat2: Final = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def refuse(action: str, path: str, error: OSError) -> NoReturn:
    """Raise the storage error that says in plain words what the system answered.

    Raises:
        StorageError: Always.
    """
    advice = ""
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        user = f"uid {os.geteuid()}"
        advice = (
            f"The server runs as {user}: give it write permission there, or run it as the owner."
        )
    elif error.errno in {errno.ENOTDIR, errno.ELOOP}:
        advice = (
            "A part of the path is a link or no folder; links are never followed, bind mounts are."
        )
    elif error.errno in {errno.ENOSPC, errno.EDQUOT}:
        advice = "Free some space on the volume."
    elif error.errno in {errno.EMFILE, errno.ENFILE}:
        advice = "Raise the limit of open files (ulimit -n)."
    raise StorageError(
        action, path or ".", os.strerror(error.errno or errno.EIO), advice
    ) from error


@contextlib.contextmanager
def open_folder(root: str, folder: str) -> Iterator[int]:
    """Open a folder below the root, or with ``""`` the root, over no link in any part of its path.

    The root alone may be reached over links: it is the operator's own setting.

    Raises:
        OSError: A part is missing (ENOENT), is no folder, is a link, or is ``..`` (ENOTDIR).
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folder.split("/") if folder else ():
            if part == "..":  # no path of ours has it; one that was edited by hand may
                raise NotADirectoryError(errno.ENOTDIR, "it leads upwards", folder)
            below = os.open(part, _FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_regular(folder: int, name: str) -> Iterator[int]:
    """Open a regular file for reading; anything else is never opened at all.

    Raises:
        OSError: It is not there, is a link (ELOOP), or is no regular file (EINVAL).
    """
    # Looked at before it is opened: opening a FIFO or a device, even without blocking, can have
    # effects.
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    try:
        descriptor = os.open(name, _FILE_FLAGS | os.O_NOATIME, dir_fd=folder)
    except PermissionError:  # another user's file: looking at it may leave a trace
        descriptor = os.open(name, _FILE_FLAGS, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def checksum(descriptor: int) -> str:
    """Return the SHA-256 of all bytes of an open file, in 64 lower-case hex digits."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def sync_bytes(descriptor: int) -> None:
    """Bring the bytes of an open file to the disk, whoever wrote them."""
    os.fdatasync(descriptor)


def sync_folder(folder: int) -> None:
    """Bring the names in an open folder to the disk."""
    os.fsync(folder)


def make_folder(parent: int, name: str) -> bool:
    """Make a folder and say whether it is new; the caller syncs ``parent`` if it is."""
    try:
        os.mkdir(name, 0o777, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def make_folders(root: str, folder: str) -> list[str]:
    """Make a folder below the root with all its parents; return the folders that got a new one, to be synced."""
    parents = []
    above = ""
    for part in folder.split("/") if folder else ():
        with open_folder(root, above) as parent:
            if make_folder(parent, part):
                parents.append(above)
        above = f"{above}/{part}" if above else part
    return parents


def sync_folders(root: str, folders: Iterable[str]) -> None:
    """Bring the names in some folders below the root to the disk; one that is gone, or replaced, has none."""
    for folder in folders:
        try:
            with open_folder(root, folder) as descriptor:
                sync_folder(descriptor)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise


def move(source_folder: int, source: str, target_folder: int, target: str) -> None:
    """Rename a file and never replace another.

    Raises:
        FileExistsError: The target is taken.
        OSError: EXDEV across file systems; whatever else rename(2) says.
    """
    if _renameat2 is not None:
        names = os.fsencode(source), os.fsencode(target)
        if _renameat2(source_folder, names[0], target_folder, names[1], _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _RENAMEAT2_MISSING:
            raise OSError(code, os.strerror(code), target)
    # Network and FUSE file systems without renameat2: a link never replaces either.
    os.link(
        source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False
    )
    os.unlink(source, dir_fd=source_folder)


def link(source_folder: int, source: str, target_folder: int, target: str) -> None:
    """Give a file a second name, and never replace one.

    Raises:
        FileExistsError: The target is taken.
        OSError: EXDEV across file systems, EPERM or EMLINK where links do not work.
    """
    os.link(
        source, target, src_dir_fd=source_folder, dst_dir_fd=target_folder, follow_symlinks=False
    )


def remove_empty_folders(root: str, folder: str, top: str) -> int:
    """Remove a folder and its parents below ``top``, as far as they are empty; return how many those were.

    What is not there is no error.
    """
    removed = 0
    while is_in(folder, top):
        above, name = split(folder)
        try:
            with open_folder(root, above) as parent:
                os.rmdir(name, dir_fd=parent)
            removed += 1
        except FileNotFoundError:
            pass  # a crash came between it and its parents
        except OSError:
            break
        folder = above
    return removed


def remove(folder: int, name: str) -> None:
    """Remove one name of a file; a name that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def copy(source: int, target_folder: int, name: str, expected_checksum: str) -> None:
    """Copy an open file to a new name, bring it to the disk, and compare what came back from there.

    Times and permissions are those of the source. If anything fails the copy is removed.

    Raises:
        ChecksumMismatchError: What came back is not what was read.
        OSError: The disk refused.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=target_folder)
    try:
        _write(descriptor, _chunks(source))
        facts = os.fstat(source)
        os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))
        os.utime(descriptor, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.fsync(descriptor)
        # Dropped from the cache, so that the comparison reads the disk and not our own memory.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if checksum(descriptor) != expected_checksum:
            raise ChecksumMismatchError(name)  # noqa: TRY301 - the copy is removed below
    except BaseException:
        remove(target_folder, name)
        raise
    finally:
        os.close(descriptor)


def _chunks(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(descriptor, _COPY_CHUNK_BYTES, offset):
        yield chunk
        offset += len(chunk)


def _write(descriptor: int, chunks: Iterable[bytes]) -> None:
    offset = 0
    for chunk in chunks:
        write_all(descriptor, chunk, offset)
        offset += len(chunk)


def write_all(descriptor: int, content: bytes, offset: int) -> None:
    """Write all of some bytes at an offset, however little the system takes at a time."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if written == 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        view = view[written:]
        offset += written


def create(folder: int, name: str, content: bytes | Iterable[bytes], temporary: str) -> None:
    """Create a file whole, on the disk with its name, or not at all; never replace one.

    ``content`` may come in parts. ``temporary`` is a name in the same folder that nobody else uses.

    Raises:
        FileExistsError: The name is taken.
    """
    write_new(folder, temporary, content)
    try:
        move(folder, temporary, folder, name)
    except BaseException:
        remove(folder, temporary)
        raise
    sync_folder(folder)


def replace(folder: int, name: str, content: bytes | Iterable[bytes], temporary: str) -> None:
    """Write a file whole, in the place of the one that has its name; the rest as for ``create``."""
    write_new(folder, temporary, content)
    try:
        put_in_place(folder, temporary, folder, name)
    except OSError:
        remove(folder, temporary)
        raise


def keep(folder: int, name: str, other_folder: int, other_name: str) -> None:
    """Give a file a second name, under which it stays when the first goes to another; a folder is moved.

    Where links do not work its bytes are copied. What is not there needs not be kept.

    Raises:
        FileExistsError: The second name is taken.
    """
    try:
        link(folder, name, other_folder, other_name)
    except FileNotFoundError:
        return
    except FileExistsError:
        raise
    except OSError:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            move(folder, name, other_folder, other_name)
            return
        with open_regular(folder, name) as descriptor:
            write_new(other_folder, other_name, _chunks(descriptor))


def put_in_place(origin: int, temporary: str, folder: int, name: str) -> None:
    """Give a file that is whole the name of another one, which loses it."""
    os.rename(temporary, name, src_dir_fd=origin, dst_dir_fd=folder)
    sync_folder(folder)


def write_new(folder: int, name: str, content: bytes | Iterable[bytes]) -> None:
    """Write a file from its beginning, over what has its name, and bring its bytes to the disk.

    If anything fails it is removed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        _write(descriptor, [content] if isinstance(content, bytes) else content)
        os.fsync(descriptor)
    except BaseException:
        remove(folder, name)
        raise
    finally:
        os.close(descriptor)


def append(descriptor: int, offset: int, content: bytes, tail: bytes) -> None:
    """Write at an offset near a file's end and bring it to the disk, or put the old tail back.

    Raises:
        OSError: The disk refused; the file is as it was, unless the disk refused that, too.
    """
    try:
        write_all(descriptor, content, offset)
        os.fdatasync(descriptor)
    except OSError:
        # A torn tail is what the next holder of the lock repairs, if even this fails.
        with contextlib.suppress(OSError):
            restore_tail(descriptor, offset, tail)
        raise


def restore_tail(descriptor: int, offset: int, tail: bytes) -> None:
    """Cut a file at an offset and end it with ``tail``, on the disk."""
    os.ftruncate(descriptor, offset)
    write_all(descriptor, tail, offset)
    os.fdatasync(descriptor)


def find_status(root: str, path: str) -> os.stat_result | None:
    """Return what lstat says of a path below the root, or ``None`` when there is nothing."""
    folder, name = split(path)
    try:
        with open_folder(root, folder) as descriptor:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
