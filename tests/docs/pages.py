"""The documentation as values: pages with their blocks, sections, tables, anchors and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line in the page."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One page; ``name`` is its path in the repository."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its blocks, of which nothing but their lines is left."""
        return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(match[1], match[2], self.text.count("\n", 0, match.start()) + 2)
            for match in _FENCE.finditer(self.text)
        ]

    @cached_property
    def headings(self) -> list[str]:
        return [match[2] for match in _HEADING.finditer(self.prose)]

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub gives to the headings."""
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in self.headings}

    @cached_property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    def sections(self, level: int) -> dict[str, str]:
        """Return what stands below each heading of a level, up to the next of the same or a higher one."""
        found = [
            (len(match[1]), match[2], match.start(), match.end())
            for match in _HEADING.finditer(self.prose)
        ]
        sections = {}
        for place, (depth, title, _, begin) in enumerate(found):
            if depth == level:
                later = (start for rank, _, start, _ in found[place + 1 :] if rank <= level)
                sections[title] = self.prose[begin : next(later, None)]
        return sections


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row, heads apart."""
    lines = text.splitlines()
    found = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = _ROW.fullmatch(line)
        if match and not line.startswith("| ---") and not following.startswith("| ---"):
            found.append([cell.strip() for cell in match[1].split(" | ")])
    return found


def codes(cell: str) -> list[str]:
    """Return what a cell shows as code."""
    return re.findall(r"`([^`]+)`", cell)


def first_codes(text: str) -> list[str]:
    """Return everything that the first cells of all tables show as code."""
    return [code for row in rows(text) for code in codes(row[0])]


def pages() -> Iterator[Page]:
    """Yield every page that users read."""
    yield Page("README.md")
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield Page(str(path.relative_to(ROOT)))
    yield Page("CHANGELOG.md")
    yield Page("CONTRIBUTING.md")
