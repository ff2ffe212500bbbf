r"""``file_metadata.json``: one JSON document with one change a line, appended in place.

::

    {"format": 1, "library_id": "…", "generation": 1, "check": "…", "changes": [
    {"seq": 1, "kind": "job", …, "check": "9a0c11f2"},
    {"seq": 2, "kind": "add", …, "check": "51d3e7b0"}
    ]}

A *position* is the offset at which the last line ends; there the closing ``\n]}\n`` stands. An
append writes over it, so bytes before the position are never written twice. ``check`` is the CRC-32
of the line without it. The form is described in ``docs/reference/on-disk-format.md``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import older
from flask_comfy_files.core.errors import DocumentDamagedError, LibraryUnavailableError
from flask_comfy_files.core.layout import DOCUMENT, NEW_DOCUMENT, STATE, split

FORMAT: Final = 1
COMPACT: Final = "compact"
"""The kind of operation whose lines sum up what earlier documents told."""
CLOSING: Final = b"\n]}\n"
_CHECK_BYTES: Final = len(b', "check": "00000000"}')
_CHECK: Final = re.compile(rb', "check": "([0-9a-f]{8})"\}')
_CHANGES: Final = b', "changes": ['
_LONGEST_HEADER: Final = 4096

Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: which library this is, how often it was rewritten, and where its changes begin."""

    library_id: str
    generation: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One change and where it stands: ``length`` bytes from ``offset``, separators not counted."""

    offset: int
    length: int
    change: Change

    @property
    def end(self) -> int:
        """The position of a document that ends with this line."""
        return self.offset + self.length


def encode(change: Change) -> bytes:
    """Return a change as the bytes of its line, with its check."""
    # Names that are not UTF-8 reach us as lone surrogates; backslashreplace writes them as JSON's
    # own \udcXX.
    body = json.dumps(change, ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "backslashreplace"
    )
    return b'%s, "check": "%08x"}' % (body[:-1], zlib.crc32(body))


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the change of a line, or ``None`` when its bytes are not those that were written."""
    check = _CHECK.fullmatch(line[-_CHECK_BYTES:])
    if check is None:
        return None
    body = line[:-_CHECK_BYTES] + b"}"
    if zlib.crc32(body) != int(check[1], 16):
        return None
    change = json.loads(body)
    return change if isinstance(change, dict) else None


def decode_start(raw: bytes) -> tuple[int, dict[str, Any]] | None:
    """Return the length and the change of a line with whatever is left of the separator behind it."""
    content = raw.removesuffix(b"\n").removesuffix(b",")
    change = decode(content)
    if change is not None:
        return len(content), change
    # A torn append may have left anything there, or nothing: the line ends where its check fits.
    for check in _CHECK.finditer(raw):
        change = decode(raw[: check.end()])
        if change is not None:
            return check.end(), change
    return None


@contextlib.contextmanager
def open_document(root: str, flags: int = os.O_RDONLY) -> Iterator[int | None]:
    """Open the document without following a link; ``None`` when there is none.

    Raises:
        LibraryUnavailableError: It is there and cannot be opened; nothing is concluded about its
        content. DocumentDamagedError: What stands there is no file.
    """
    descriptor = _open(root, flags)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(root: str, flags: int) -> int | None:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(durable.open_folder(root, ""))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None  # what is wrong with the root is said by those who then look at it
        except OSError as error:
            raise _unreadable(error) from error
        return _open_in(folder, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _open_in(folder: int, flags: int) -> int | None:
    try:
        try:
            return os.open(DOCUMENT, flags | os.O_NOATIME, dir_fd=folder)
        except PermissionError:  # another user's: reading it may leave a trace
            return os.open(DOCUMENT, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise DocumentDamagedError(DOCUMENT, "it is a folder") from None
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> LibraryUnavailableError:
    return LibraryUnavailableError(
        f"{DOCUMENT} cannot be opened by uid {os.geteuid()}: {os.strerror(error.errno or 0)}",
        "Give the server's user access to the file; it was not touched.",
    )


def read_header(descriptor: int) -> Header:
    """Read and check the first line.

    Raises:
        DocumentDamagedError: It is no document of ours, or its first line is damaged.
        LibraryUnavailableError: It was written in a newer format, or by an older installation, or cannot be read.
    """
    try:
        start = os.pread(descriptor, _LONGEST_HEADER, 0)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            raise DocumentDamagedError(DOCUMENT, "it is a folder") from None
        raise _unreadable(error) from error
    # Its newline belongs to the closing, which a crash may have torn off.
    line, _, _ = start.partition(b"\n")
    facts = decode(line.removesuffix(_CHANGES) + b"}") if line.endswith(_CHANGES) else None
    if facts is None:
        older.refuse_older(descriptor)
        raise DocumentDamagedError(DOCUMENT, "its first line is not one that this library wrote")
    if facts.get("format") != FORMAT:
        raise LibraryUnavailableError(
            f"{DOCUMENT} has format {facts.get('format')}, and this version knows {FORMAT}",
            "Upgrade flask-comfy-files; the file was not touched.",
        )
    return Header(
        library_id=str(facts["library_id"]), generation=int(facts["generation"]), end=len(line)
    )


def create(root: str, library_id: str, generation: int = 1) -> Header:
    """Create a document without changes, whole and on the disk, or not at all.

    Raises:
        FileExistsError: There is one.
    """
    line = _header_line(library_id, generation)
    with durable.open_folder(root, "") as folder:
        durable.create(folder, DOCUMENT, line + CLOSING, NEW_DOCUMENT)
    return Header(library_id=library_id, generation=generation, end=len(line))


def create_over(root: str, library_id: str) -> None:
    """Create a document without changes in the place of whatever stands there; the caller has kept that."""
    with durable.open_folder(root, "") as folder:
        durable.replace(folder, DOCUMENT, _header_line(library_id, 1) + CLOSING, NEW_DOCUMENT)


def _header_line(library_id: str, generation: int) -> bytes:
    facts = encode({"format": FORMAT, "library_id": library_id, "generation": generation})
    return facts[:-1] + _CHANGES


def write_new(root: str, path: str, header: Header, changes: Iterable[Change]) -> None:
    """Write a whole document to a path where it is not the library's yet; of the header, its ``end`` is not read.

    Raises:
        OSError: The disk refused; nothing is left.
    """

    def chunks() -> Iterator[bytes]:
        yield _header_line(header.library_id, header.generation)
        separator = b"\n"
        for change in changes:
            yield separator + encode(change)
            separator = b",\n"
        yield CLOSING

    folder, name = split(path)
    with durable.open_folder(root, folder) as parent:
        durable.write_new(parent, name, chunks())


def put_in_place(root: str, path: str, kept_as: str) -> None:
    """Put a new document in the place of the old one, which is kept under another path.

    At no moment is there no document. What is no file, a folder perhaps, is moved aside.

    Raises:
        OSError: The disk refused; the old document is in its place.
    """
    kept_folder, kept_name = split(kept_as)
    new_folder, new_name = split(path)
    durable.sync_folders(root, durable.make_folders(root, kept_folder) if kept_folder else ())
    with (
        durable.open_folder(root, "") as folder,
        durable.open_folder(root, kept_folder) as keeping,
        durable.open_folder(root, new_folder) as origin,
    ):
        durable.keep(folder, DOCUMENT, keeping, kept_name)
        durable.sync_folder(keeping)
        durable.put_in_place(origin, new_name, folder, DOCUMENT)


class Scan:
    """The lines from a position on, as far as they are whole; afterwards says where and how they ended."""

    def __init__(self, descriptor: int, header: Header, position: int, seq: int = 0) -> None:
        """Read from ``position``, which is the end of the header or of the line with number ``seq``."""
        self.position = position
        """Where the last whole line ended."""
        self.seq = seq
        """The number of that line."""
        self.is_closed = False
        """Whether the closing stood right behind it, and nothing else."""
        self._descriptor = descriptor
        self._header = header

    def __iter__(self) -> Iterator[Line]:
        """Yield each whole line; stop at the closing, or at the first byte that is not as it was written."""
        with os.fdopen(self._descriptor, "rb", closefd=False) as source:
            source.seek(self.position)
            while (line := self._next_line(source)) is not None:
                yield line

    def _next_line(self, source: BinaryIO) -> Line | None:
        separator = source.readline(2)
        raw = source.readline()
        if separator == b"\n":
            if raw == b"]}\n":
                self.is_closed = not source.read(1)
                return None
            if self.position != self._header.end:
                return None
        elif separator != b",\n":
            return None
        found = decode_start(raw)
        if found is None:
            return None
        line = Line(self.position + len(separator), *found)
        # The separator of the next line is read again with it.
        source.seek(line.end)
        self.position, self.seq = line.end, line.change["seq"]
        return line

    def is_torn_at_most(self) -> bool:
        """Say whether what follows the last whole line can be what a crash has left of one append.

        Of several lines that were appended together a power cut may keep a later one and lose an earlier.
        They all name the first of them, so a line of another append tells that whole lines were lost.
        """
        with os.fdopen(self._descriptor, "rb", closefd=False) as source:
            source.seek(self.position + 2)
            source.readline()
            behind = (decode(raw.rstrip(b"\n").removesuffix(b",")) for raw in source)
            return all(
                change.get("batch", change["seq"]) <= self.seq + 1
                for change in behind
                if change is not None
            )


def require_torn_at_most(scan: Scan) -> None:
    """Refuse a document that is damaged before its end; a torn end is what a crash leaves.

    Raises:
        DocumentDamagedError: It is.
    """
    if not scan.is_closed and not scan.is_torn_at_most():
        problem = f"the line behind byte {scan.position} was changed"
        raise DocumentDamagedError(DOCUMENT, problem)


def by_append(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Group lines that were appended together; who appends again has finished what stood there."""
    for _, group in groupby(lines, key=lambda line: line.change.get("batch", line.change["seq"])):
        yield list(group)


def repair_tail(root: str, descriptor: int, position: int, label: str) -> None:
    """End a document at a position; what stood behind it is kept in our folder under ``label``."""
    os.lseek(descriptor, position, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as source:
        torn = source.read()
    if torn.strip(b"\0\n]},"):
        with durable.open_folder(root, STATE) as folder:
            durable.create(folder, f"torn-tail-{label}", torn, "torn-tail.new")
    durable.restore_tail(descriptor, position, CLOSING)


def append(descriptor: int, header: Header, position: int, changes: Sequence[Change]) -> list[Line]:
    """Append changes with one write and one sync, and return where they stand.

    Several of them name the number of the first as their ``batch``.

    Raises:
        OSError: The disk refused; the document is as it was.
    """
    lines, parts, end = [], [], position
    if len(changes) > 1:
        changes = [{**change, "batch": changes[0]["seq"]} for change in changes]
    for change in changes:
        separator = b"\n" if end == header.end else b",\n"
        content = encode(change)
        lines.append(Line(end + len(separator), len(content), change))
        parts += [separator, content]
        end = lines[-1].end
    durable.append(descriptor, position, b"".join([*parts, CLOSING]), CLOSING)
    return lines


def read_line(descriptor: int, offset: int, length: int) -> Change:
    """Read one line back.

    Raises:
        DocumentDamagedError: Its bytes are not those that were written.
    """
    change = decode(os.pread(descriptor, length, offset))
    if change is None:
        raise DocumentDamagedError(DOCUMENT, f"the line at byte {offset} does not match its check")
    return change


def read_lines(descriptor: int, first: int, end: int, containing: bytes) -> Iterator[Line]:
    """Yield the lines between two offsets at which lines begin and end, as far as they hold some bytes.

    Raises:
        DocumentDamagedError: The bytes of one are not those that were written.
    """
    with os.fdopen(descriptor, "rb", closefd=False) as source:
        source.seek(first)
        offset = first
        while offset < end:
            raw = source.readline()
            content = raw.removesuffix(b"\n").removesuffix(b",")
            if containing in content:
                yield Line(offset, len(content), read_line(descriptor, offset, len(content)))
            offset += len(raw) or end
