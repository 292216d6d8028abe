"""Models of a few weights, and data for them, for trainings in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Subclassed", "classes", "fit", "net"]

SAMPLES = 20


def classes() -> tuple[np.ndarray, np.ndarray]:
    """Return samples of three classes."""
    random = np.random.default_rng(3)
    return random.random((SAMPLES, 4)).astype("float32"), random.integers(0, 3, SAMPLES)


def net(outputs: int = 3, loss: str = "sparse_categorical_crossentropy", **options: Any) -> keras.Model:  # noqa: ANN401
    """Return a compiled model."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(outputs, activation="softmax" if outputs > 1 else None)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


def fit(
    callbacks: Sequence[keras.callbacks.Callback],
    model: keras.Model | None = None,
    **options: Any,  # noqa: ANN401
) -> keras.callbacks.History:
    """Train for two epochs of five batches, or as the options say."""
    x, y = classes()
    given = {"x": x, "y": y, "batch_size": 4, "epochs": 2, "verbose": 0, **options}
    return (model or net()).fit(
        **{name: value for name, value in given.items() if value is not None}, callbacks=callbacks
    )


class Subclassed(keras.Model):
    """A model that cannot say what it is made of."""

    def __init__(self, width: object) -> None:
        super().__init__()
        self.width = width
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, x: Any) -> Any:  # noqa: ANN401
        """Return what it predicts."""
        return self.dense(x)
