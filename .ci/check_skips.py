"""Fail when a test was skipped that `tests/allowed_skips.txt` does not explain.

Reads the JUnit files given as arguments (family xunit1, which names the file of each test).
Prints nothing when all is well, so that pytest's own summary stays the last word.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ALLOWED = Path("tests/allowed_skips.txt")


def read_allowed() -> set[str]:
    """Return the node ids on the list; each must come with a reason."""
    lines = [line.strip() for line in ALLOWED.read_text(encoding="utf-8").splitlines()]
    entries = [line.partition("  #") for line in lines if line and not line.startswith("#")]
    for node_id, _, reason in entries:
        if not reason.strip():
            sys.exit(f"{ALLOWED}: no reason is given for {node_id}")
    return {node_id.strip() for node_id, _, _ in entries}


def node_id(case: ET.Element) -> str:
    """Return pytest's node id of a test case, or the file alone if all of it was skipped."""
    path, name = case.get("file", ""), case.get("name", "")
    module = path.removesuffix(".py").replace("/", ".")
    if name == module:
        return path
    classes = case.get("classname", "").removeprefix(module).strip(".").split(".")
    return "::".join(part for part in (path, *classes, name) if part)


def skipped_tests(report: Path) -> dict[str, str]:
    """Return the skipped tests of one report with their reasons; an expected failure is one."""
    skips = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by our own pytest
        skip = case.find("skipped")
        if skip is not None:
            skips[node_id(case)] = skip.get("message", "")
    return skips


def main() -> None:
    """Compare the reports with the list."""
    allowed = read_allowed()
    missing = [name for name in sys.argv[1:] if not Path(name).is_file()]
    if missing:
        sys.exit(f"no test report: {', '.join(missing)}")
    unexplained = [
        f"{test}: {reason}"
        for report in sys.argv[1:]
        for test, reason in skipped_tests(Path(report)).items()
        if test not in allowed
    ]
    if unexplained:
        sys.exit("\n".join([f"skipped, but not listed in {ALLOWED}:", *unexplained]))


if __name__ == "__main__":
    main()
