"""Figures and how they are taken: interleaved, so that a machine that changes its speed changes all of them alike."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Figure", "interleaved"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one thing costs.

    Attributes:
        name: What was done.
        seconds: One value per round.
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest value in seconds."""
        return min(self.seconds), max(self.seconds)

    def per(self, count: int) -> Figure:
        """Return what one of so many costs."""
        return Figure(self.name, tuple(value / count for value in self.seconds))

    def ratio(self, base: Figure) -> float:
        """Median of the ratios round by round, against what was measured in the same round."""
        return statistics.median(own / other for own, other in zip(self.seconds, base.seconds, strict=True))


def interleaved(actions: Mapping[str, Callable[[], None]], rounds: int, *, warm_up: int = 1) -> list[Figure]:
    """Time each action once per round, A B C A B C ...

    Args:
        actions: What to time, by name.
        rounds: Values per action.
        warm_up: Rounds that are not counted, before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return [Figure(name, tuple(values)) for name, values in seconds.items()]
