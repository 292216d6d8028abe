"""The learning rate of a training, at the end of its epochs and at each of its batches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import keras  # type: ignore[import-untyped]

from mantik.integrations.keras.configuration import optimizer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.integrations.keras.kinds import Model

__all__ = ["BatchRate", "learning_rate"]


def learning_rate(model: Model) -> float | None:
    """Return the learning rate with which a model would go on; None without an optimizer of Keras.

    Args:
        model: The model, between two epochs.
    """
    optimizer = _inner(model)
    if optimizer is None:
        return None
    schedule = _schedule(optimizer)
    # The optimizer's own property is the same, but for a schedule on JAX slow.
    return _number(optimizer.learning_rate) if schedule is None else _number(schedule(_steps(optimizer)))


class BatchRate:
    """The learning rates of the batches of an epoch, where a schedule changes them from one to the next.

    Args:
        model: The model, before the epoch: later, on JAX, its optimizer does not know how far it is.
    """

    def __init__(self, model: Model) -> None:
        optimizer = _inner(model)
        self._schedule = None if optimizer is None else _schedule(optimizer)
        self._first = 0 if self._schedule is None else _steps(optimizer)

    def at(self, batch: int) -> float | None:
        """Return the learning rate of a batch of the epoch; None without a schedule."""
        return None if self._schedule is None else _number(self._schedule(self._first + batch))


def _inner(model: Model) -> Any | None:  # noqa: ANN401  # an optimizer of Keras
    optimizer = optimizer_of(model)
    # One that scales losses is around the one that matters.
    return getattr(optimizer, "inner_optimizer", optimizer)


def _schedule(optimizer: Any) -> Callable[[int], Any] | None:  # noqa: ANN401
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return None
    if keras.backend.backend() != "jax":
        return schedule  # type: ignore[no-any-return]  # Keras has no types
    # JAX would compile one with a condition in it, such as that of a warm-up, anew each time: 40 ms.
    compiled: Callable[[int], Any] = sys.modules["jax"].jit(schedule)
    return compiled


def _steps(optimizer: Any) -> int:  # noqa: ANN401
    # Where gradients are accumulated, its public number counts fewer than schedules do.
    return int(keras.ops.convert_to_numpy(getattr(optimizer, "_iterations", optimizer.iterations)))


def _number(value: object) -> float:
    return float(keras.ops.convert_to_numpy(value))
