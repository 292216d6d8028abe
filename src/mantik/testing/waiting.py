"""Waiting for something to become true, with a deadline instead of a sleep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

T = TypeVar("T")

_PAUSE_SECONDS = 0.02


def wait_until(condition: Callable[[], T], *, deadline: float = 10.0, what: str = "the condition") -> T:
    """Ask again and again until the condition holds.

    The condition is asked at least once, also with a deadline of zero. What it raises is not caught: a condition that
    may fail for a while catches its own errors.

    Args:
        condition: Called without arguments in the calling thread; a truthy answer ends the waiting.
        deadline: Seconds after which waiting is given up. A condition that itself blocks is not interrupted.
        what: What is waited for, as the subject of the error's sentence.

    Returns:
        The first truthy answer of the condition.

    Raises:
        TimeoutError: The condition did not hold in time; the text names it and its last answer.
    """
    end = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise TimeoutError(f"{what} did not come within {deadline:g} s; the last answer was {answer!r}")
        time.sleep(_PAUSE_SECONDS)
