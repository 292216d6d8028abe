"""Metrics of an evaluation: as many of them as can be had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mantik.integrations.sklearn.attempt import attempted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Measurements"]


class Measurements(dict[str, float]):
    """Numbers by name."""

    def add(self, name: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401
        """Add what a function returns. If it raises, or it is no finite number, there is no such metric.

        Args:
            name: Of the metric.
            function: What is called.
            arguments: Its positional arguments.
            keywords: Its arguments by name.
        """
        value = attempted(lambda: float(function(*arguments, **keywords)))
        if value is not None and math.isfinite(value):
            self[name] = value
