"""Which epoch is the best one, by one of its metrics."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from mantik.exceptions import InvalidValueError
from mantik.training.values import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mantik.integrations.keras.kinds import Model

__all__ = ["Best"]

_logger = logging.getLogger(__name__)

_LESS = ("loss", "error", "mse", "mae", "mape", "msle", "rmse", "crossentropy", "divergence", "perplexity")
_MORE = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "dice", "r2", "similarity", "sensitivity")
"""Parts of names of metrics that do not say themselves which direction is good."""


class Best:
    """The best value of one metric.

    Args:
        monitor: The metric. Default: ``val_loss``, or ``loss`` where there is no validation.
        mode: ``min``, ``max``, or ``auto``: as the metric or its name says.
    """

    def __init__(self, monitor: str | None, mode: str) -> None:
        self.monitor = monitor
        self.score: float | None = None
        self.epoch: int | None = None
        self._mode = mode
        self._is_explained = False

    def forget(self) -> None:
        """Begin anew."""
        self.score = self.epoch = None

    def begin(self, *, validates: bool) -> None:
        """Choose the metric, where none was given.

        Args:
            validates: Whether there is a validation.
        """
        if self.monitor is None and validates:
            self.monitor = "val_loss"

    def improves(self, model: Model, logs: Mapping[str, Any], epoch: int) -> bool:
        """Take in an epoch; tell whether it is better than all before.

        Args:
            model: What is trained, for the direction of its metrics.
            logs: The metrics of the epoch.
            epoch: Its step.
        """
        if self.monitor is None:
            self.monitor = "val_loss" if "val_loss" in logs else "loss"
        value = _number(self.monitor, logs.get(self.monitor))
        if math.isnan(value):
            return False
        if self._mode == "auto":
            self._mode = _direction(model, self.monitor)
        if self._mode == "auto":
            self._explain(
                f"Whether more or less of {self.monitor!r} is better cannot be told: give mode='max' or mode='min'."
            )
            return False
        better = self.score is None or (value < self.score if self._mode == "min" else value > self.score)
        if better:
            self.score, self.epoch = value, epoch
        return better

    def miss(self, logs: Mapping[str, Any]) -> None:
        """Say, once, that there is no value of the metric, if there has been none yet.

        Args:
            logs: The metrics of an epoch that should have had it.
        """
        if self.score is None and self.monitor is not None and self.monitor not in logs:
            known = ", ".join(sorted(logs)) or "none"
            self._explain(f"monitor is {self.monitor!r}, but the metrics are: {known}. Name one of them.")

    def _explain(self, problem: str) -> None:
        if not self._is_explained:
            self._is_explained = True
            _logger.warning("%s Without that no epoch is the best one, and the last one is kept instead.", problem)


def _number(name: str, value: object) -> float:
    try:
        return math.nan if value is None else number_of(name, value)
    except InvalidValueError:
        # It was said already that it is none.
        return math.nan


def _direction(model: Model, monitor: str) -> str:
    name = monitor.removeprefix("val_")
    for metric in _metrics(model):
        told = {"up": "max", "down": "min"}.get(str(getattr(metric, "_direction", "")))
        if getattr(metric, "name", None) == name and told is not None:
            return told
    if any(part in name for part in _LESS):
        return "min"
    return "max" if any(part in name for part in _MORE) else "auto"


def _metrics(model: Model) -> Iterator[Any]:
    for metric in getattr(model, "metrics", ()):
        yield metric
        yield from getattr(metric, "metrics", ())
