"""Trainings with Keras, forked from a process that has imported it and its backend."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tests.integrations.trainings import BEGINNING, Trainings

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.trainings import Training

__all__ = ["BACKENDS", "KerasTrainings", "points", "run_of", "said", "steps"]

BACKENDS = ["torch", "jax", *(["tensorflow"] if find_spec("tensorflow") is not None else [])]
"""Each is a process of its own: Keras chooses its backend when it is imported. TensorFlow is not for every Python."""

BATCHES = 5
"""Batches of an epoch of `fit`."""

_SCRIPT = '''
import keras
import numpy as np

import mantik
import mlflow
from mantik import MantikCallback

RNG = np.random.default_rng(7)
X = RNG.random((40, 4)).astype("float32")
Y = RNG.integers(0, 3, 40)


def net(loss="sparse_categorical_crossentropy", rate=0.1, metrics=("accuracy",)):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers, name="net")
    model.compile(keras.optimizers.SGD(rate), loss, metrics=list(metrics))
    return model


def fit(model, callbacks, **options):
    return model.fit(X, Y, **{"batch_size": 8, "verbose": 0, **options}, callbacks=callbacks)


class At(keras.callbacks.Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch, action):
        super().__init__()
        self.at, self.action = epoch, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at:
            self.action()


def fail():
    raise ValueError("the training is broken")


def say(**facts):
    print("SAID", json.dumps(facts), flush=True)
'''


# MLflow looks through all that is installed before it logs the first model of a process.
_IMPORTS = """
import git, matplotlib.backends.backend_agg, mlflow.keras, mlflow.pyfunc, opentelemetry.sdk.metrics, PIL.Image
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

warn_dependency_requirement_mismatches(["mlflow"])
"""


class KerasTrainings(Trainings):
    """The warmed-up process of one backend. What JAX compiles is not optimized, and kept for the other trainings.

    Args:
        backend: Keras's backend.
        folder: Its home.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        settings = {
            "KERAS_BACKEND": backend,
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        super().__init__(folder, BEGINNING + _SCRIPT, _IMPORTS, settings)


def said(training: Training) -> dict[str, Any]:
    """Return what a training has said of itself."""
    facts: dict[str, Any] = {}
    for line in training.output.splitlines():
        if line.startswith("SAID "):
            facts |= json.loads(line.removeprefix("SAID "))
    return facts


def run_of(platform: Platform, training: Training) -> Any:  # noqa: ANN401  # a Run
    """Return the run that a training has announced."""
    return platform.read_back.run(training.run_id)


def points(platform: Platform, run_id: str, key: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a metric, in order of step and time."""
    return sorted((point.step, point.value) for point in platform.read_back.metric_history(run_id, key))


def steps(platform: Platform, run_id: str, key: str = "loss") -> list[int]:
    """Return the steps of a metric, sorted."""
    return [step for step, _ in points(platform, run_id, key)]
