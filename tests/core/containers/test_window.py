from __future__ import annotations

import pytest

from flask_comfy_files.core.containers.window import BudgetSpentError, PastEndError, Window
from tests.core.containers.samples import PNG


def test_a_window_gives_no_more_bytes_than_its_budget_and_none_behind_the_end() -> None:
    with PNG.open("rb") as file:
        window = Window(file.fileno(), 100, budget=10)
        assert (
            window.read(0, 8) + window.read(98, 2)
            == PNG.read_bytes()[:8] + PNG.read_bytes()[98:100]
        )
        with pytest.raises(BudgetSpentError):
            window.read(0, 1)
        with pytest.raises(PastEndError):
            window.read(2**70, 1)


def test_a_window_shows_nothing_behind_the_size_it_was_given() -> None:
    with PNG.open("rb") as file, pytest.raises(PastEndError):
        Window(file.fileno(), 100).read(98, 3)
