"""Where the tests of this folder work: output roots that are put back as they were, with mounts in them."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files.core.errors import ComfyFilesError
from tests.crash.library_check import (
    Scenario,
    check_nothing_is_lost,
    expect_recovery,
    original_paths,
)
from tests.faults.tracing import Traced, traced

Mount = Callable[..., Path]
"""Mounts something on a folder: ``mount(place, *options)``."""


class Hearing:
    """What went wrong so far, told in the end."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._complaints: list[str] = []

    @contextlib.contextmanager
    def hearing(self, where: object) -> Iterator[None]:
        """Note what goes wrong here, and go on: the next fault may tell more."""
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - told by ``conclude``
            frames = traceback.extract_tb(error.__traceback__)
            lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
            self._complaints.append(
                f"{where}\n    {' '.join(lines[1:])}\n    {type(error).__name__}: {error}"
            )

    def conclude(self) -> None:
        """Fail if anything went wrong."""
        if self._complaints:
            shown = "\n".join(self._complaints[:20])
            pytest.fail(f"{len(self._complaints)} times it went wrong:\n{shown}", pytrace=False)


@dataclass
class Ground(Hearing):
    """A scenario's output root in a folder, and what went wrong on it so far."""

    folder: Path
    scenario: Scenario

    def __post_init__(self) -> None:
        """Lay the scenario out where it is only copied from."""
        super().__init__()
        self.scenario.lay_out(self._untouched)

    @property
    def _untouched(self) -> Path:
        return self.folder / "untouched"

    @property
    def root(self) -> Path:
        """The output root, always at the same path, so that the system calls stay the same."""
        return self.folder / "output"

    @property
    def log(self) -> Path:
        """Where strace writes."""
        return self.folder / "strace.log"

    def renew(self) -> None:
        """Put the output root back as it was, around whatever is mounted in it."""
        self.root.mkdir(exist_ok=True)
        empty(self.root)
        shutil.copytree(self._untouched, self.root, dirs_exist_ok=True)

    def undisturbed(self, act: Callable[[], object]) -> Traced:
        """Return what an act does when nothing goes wrong.

        It is done before in this process, too: a module that is imported only then would otherwise be
        read by the first child alone, and all others would make fewer calls.
        """
        self.renew()
        self.scenario.disturbed(self.root)
        expect_recovery(self.scenario, self.root)
        self.renew()
        run = traced(act, self.log)
        assert run.end.status == 0, run.end.said
        return run


def outcome(scenario: Scenario, root: Path) -> dict[str, Any]:
    """Do the work of a scenario and tell what it answered; an error that is not ours ends the child."""
    try:
        return {"left": scenario.disturbed(root)}
    except ComfyFilesError as error:
        return {"refused": f"{type(error).__name__}: {error}"}


def expect_an_honest_answer(ground: Ground, answer: dict[str, Any]) -> None:
    """Expect that nothing is lost, and that what a call says it did is done."""
    check_nothing_is_lost(ground.root, ground.scenario.inputs)
    if answer == {"left": []}:
        organized = original_paths(ground.root, ground.scenario.job_id)
        assert sorted(organized) == sorted(ground.scenario.expected)


def empty(folder: Path) -> None:
    """Remove everything from a folder but mount points."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            empty(path)
            with contextlib.suppress(OSError):  # something is mounted on it, or on a folder in it
                path.rmdir()
        else:
            path.unlink()
