"""System calls of a piece of work: listed, and killed or failed one by one, with strace."""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flask_comfy_files.core.layout import INDEX
from tests.crash.library_check import End, end_of, start_child

CHANGING = frozenset(
    {
        *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
        *("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "mknod", "mknodat"),
        *("write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "sendfile"),
        *("ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "msync"),
        *("chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown"),
        *("utime", "utimes", "utimensat", "futimesat", "setxattr", "fsetxattr", "lsetxattr"),
    }
)
"""System calls that change a file system, whatever their arguments; opening does with some of them."""

READING = frozenset(
    {"read", "pread64", "fstat", "newfstatat", "fstatfs", "statfs", "lseek", "flock", "fadvise64"}
)
"""System calls that look; opening and listing do, too."""

OPENING = frozenset({"open", "openat", "openat2", "creat"})
LISTING = frozenset({"getdents", "getdents64"})

_LINE = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>.*)")
_PATH = re.compile(r'<(/[^>]*)>|"(/[^"]*)"')
_ATTACHED = b"attached"


@dataclass(frozen=True)
class Call:
    """A system call; ``ordinal`` counts those of its name, from 1, as strace's ``when=`` does."""

    name: str
    ordinal: int
    arguments: str
    result: str

    def __str__(self) -> str:
        """Show it as strace does."""
        return f"{self.name}#{self.ordinal}({self.arguments[:300]}) = {self.result}"

    @property
    def paths(self) -> list[str]:
        """The absolute paths in arguments and result: of descriptors, and as given."""
        found = _PATH.findall(f"{self.arguments} {self.result}")
        return [of_descriptor or given for of_descriptor, given in found]

    def touches(self, root: Path) -> bool:
        """Say whether it names anything at or below a folder."""
        return any(Path(path).is_relative_to(root) for path in self.paths)

    @property
    def concerns_index(self) -> bool:
        """Say whether it names a file of the index."""
        return any(Path(path).name.startswith(Path(INDEX).name) for path in self.paths)

    @property
    def changes_something(self) -> bool:
        """Say whether such a call changes the file system when it succeeds."""
        if self.name in OPENING:
            return "O_CREAT" in self.arguments or "O_TRUNC" in self.arguments
        return self.name in CHANGING


@dataclass(frozen=True)
class Traced:
    """How a traced child ended, and its system calls in order."""

    end: End
    calls: Sequence[Call]
    log: str

    def points(self, root: Path, *, index_step: int = 1, index_start: int = 0) -> list[Call]:
        """Return the calls that change something below a folder; of those on the index every n-th from one on.

        Four fifths of all calls change the index, which may be lost at any time.
        """
        points = [call for call in self.calls if call.changes_something and call.touches(root)]
        of_index = [call for call in points if call.concerns_index]
        left_out = {*of_index} - {*of_index[index_start::index_step]}
        assert len(points) > len(of_index) > 0
        return [call for call in points if call not in left_out]

    def looks(self, root: Path) -> list[Call]:
        """Return the calls that only look at something below a folder, but for those of the index."""
        looks = READING | OPENING | LISTING
        return [
            call
            for call in self.calls
            if call.name in looks
            and call.touches(root)
            and not call.changes_something
            and not call.concerns_index
        ]

    @property
    def was_hit(self) -> bool:
        """Whether what was injected came to pass."""
        return "(INJECTED)" in self.log or self.end.status < 0


def traced(action: Callable[[], object], log: Path, *injections: str) -> Traced:
    """Do something in a child under strace, with faults as in ``fsync:error=EIO:when=2``."""
    hold, go = os.pipe()

    def wait_and_act() -> object:
        os.close(go)
        select.select([hold], [], [])  # and no read, which might or might not be counted
        return action()

    child, answer = start_child(wait_and_act)
    os.close(hold)
    names = ",".join(f"?{name}" for name in sorted(CHANGING | READING | OPENING | LISTING))
    options = [
        "-e",
        f"trace={names}",
        *(part for fault in injections for part in ("-e", f"inject={fault}")),
    ]
    command = ["strace", "-f", "-y", "-s", "256", "-e", "signal=none", "-o", str(log), *options]
    with subprocess.Popen([*command, "-p", str(child)], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        # From here on no call of the child escapes, and the child waits until then.
        said = tracer.stderr.readline()
        os.close(go)
        end = end_of(child, answer)
        assert _ATTACHED in said, (said + tracer.stderr.read()).decode()
    text = log.read_text(errors="replace")
    return Traced(end, list(_calls(text)), text)


def _calls(log: str) -> Iterator[Call]:
    counts: Counter[str] = Counter()
    threads = set()
    for line in log.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            counts[match["name"]] += 1
            threads.add(match["thread"])
            yield Call(match["name"], counts[match["name"]], match["arguments"], match["result"])
    assert len(threads) <= 1, "calls are counted for each thread, and here are several"
