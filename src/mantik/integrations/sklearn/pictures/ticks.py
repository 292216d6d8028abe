"""Where the ticks of an axis are, and what is written at them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import Formatter

from mantik.integrations.sklearn.pictures.wording import LEAST_PLAIN, MINUS, MOST_PLAIN, number, setting

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Names", "Numbers", "Powers", "even", "powers"]

_ROUNDING = 1e-6
"""What is left of a tick at zero, or of a decimal, by the rounding of floats: a share of the step."""

_LONG_AXIS = 6
"""Powers of ten along an axis that has no ticks between them."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def even(low: float, high: float, *, most: int, whole: bool) -> list[float]:
    """Return ticks for an axis of numbers, which are as far from each other as people count.

    matplotlib's own would depend on its parameters.

    Args:
        low: Where the axis begins.
        high: Where it ends.
        most: Intervals between ticks, unless there would be one tick only.
        whole: Whether ticks are whole numbers only.
    """
    for intervals in range(most, most + 10):
        step = _step((high - low) / intervals, whole=whole)
        first, last = math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING)
        # One tick alone would not say how long the axis is.
        if last > first or (whole and step <= 1):
            break
    return [at * step for at in range(first, last + 1)]


def powers(low: float, high: float) -> list[float]:
    """Return ticks for a logarithmic axis: powers of ten, or, on a short one, numbers between them too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > _LONG_AXIS else (1, 3) if last - first > 1 else (1, 2, 5)
    every = max(1, math.ceil((last - first) / 10)) if factors == (1,) else 1
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    within = [tick for tick in ticks if low <= tick <= high]
    return within if len(within) > 1 else even(low, high, most=5, whole=False)


class Numbers(Formatter):
    """Labels that have as many decimals as tell ticks apart, and all the same."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """Return the label of one tick alone."""
        del pos
        return number(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the labels of all ticks."""
        ticks = np.asarray(values, dtype=float)
        largest = float(np.abs(ticks).max(initial=0.0))
        step = float(np.diff(ticks).min()) if len(ticks) > 1 else largest
        if not step > 0:
            return [number(value) for value in ticks]
        ticks[np.abs(ticks) < step * _ROUNDING] = 0.0
        if not LEAST_PLAIN <= largest < MOST_PLAIN:
            digits = 1 + max(0, math.floor(math.log10(largest)) - _exponent(step))
            return [number(value, digits) for value in ticks]
        decimals = max(0, -_exponent(step))
        return [f"{value:,.{decimals}f}".replace("-", MINUS) for value in ticks]


class Powers(Formatter):
    """Labels of a logarithmic axis, each with the digits that it needs."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        """Return the label of a tick."""
        del pos
        return setting(value)


class Names(Formatter):
    """Labels of places that have names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def __call__(self, value: float, pos: int | None = None) -> str:
        """Return the name of a place."""
        del pos
        at = round(value)
        return self._names[at] if 0 <= at < len(self._names) else ""


def _exponent(step: float) -> int:
    """Return the power of ten of the last digit that a step has; of those of ticks there are three at most."""
    first = math.floor(math.log10(step) + _ROUNDING)
    for last in (first, first - 1):
        scaled = step / 10.0**last
        if abs(scaled - round(scaled)) < _ROUNDING * scaled:
            return last
    return first - 2


def _step(least: float, *, whole: bool) -> float:
    """Return the least step that people count in, of those that are not less than some number."""
    if whole and least <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    factors = [factor for factor in _STEPS if not whole or (factor * power) % 1 == 0]
    return power * next(factor for factor in factors if factor * power >= least * (1 - _ROUNDING))
