"""Which methods of a manager are operations, and seeing how each goes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

_KIND: Final = "operation_kind"

Method = TypeVar("Method", bound=Callable[..., Any])


def operation(kind: str) -> Callable[[Method], Method]:
    """Mark a method as an operation of a kind: metrics count it, and after it the disk is looked at."""

    def mark(method: Method) -> Method:
        method.__dict__[_KIND] = kind
        return method

    return mark


def observed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that tells the manager's witness how it went, if it is an operation."""
    kind = method.__dict__.get(_KIND)
    if kind is None:
        return method

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        began_at = time.perf_counter()
        try:
            answer = method(self, *arguments, **named)
        except Exception as error:
            self._witness.raised(kind, error, time.perf_counter() - began_at)
            raise
        self._witness.returned(kind, answer, time.perf_counter() - began_at)
        return answer

    return call
