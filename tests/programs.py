"""The programs that tests start and pip does not install; ``programs.txt`` lists them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_LINES = Path(__file__).with_name("programs.txt").read_text(encoding="utf-8").splitlines()
PACKAGES = {line.split()[0]: line.split()[1] for line in _LINES if not line.startswith("#")}
"""Program → Debian package."""


def path_of(program: str) -> str:
    """Return where a program of the list is, or fail the test with the package that brings it."""
    package = PACKAGES[program]
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"This test starts {program}. On Debian: apt install {package}", pytrace=False)
    return found
