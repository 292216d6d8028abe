"""How much of a Keras training's speed callbacks take, at each epoch and at each batch.

Each callback has a process of its own, in which the same training runs in turn with Keras's `CSVLogger`, without a
callback and with the callback in question, in the next round the other way round. Requests with points are answered by
a proxy at once: a platform on this machine would take the training's processors. Each epoch is a value, compared with
the same epoch of the same round: a machine that is disturbed for a second costs one value and not a round. The time for
which processors were at work, in all threads, is told beside the time that has passed: others disturb it less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import mantik
from benchmarks.figures import Figure
from mantik.testing import FaultProxy, Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import Platform

__all__ = ["callbacks"]

BATCHES = 200
EPOCHS = 5

TRAINING = """
import json, os, sys, time
os.environ["KERAS_BACKEND"] = "torch"
import torch
torch.set_num_threads(1)
import keras, numpy

KIND, BATCHES, EPOCHS, ROUNDS = sys.argv[1], *map(int, sys.argv[2:5])

class Clock(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.moments = [(time.perf_counter(), time.process_time())]
    def on_epoch_end(self, epoch, logs=None):
        self.moments.append((time.perf_counter(), time.process_time()))

def callback_of(kind):
    if kind == "csv":
        return [keras.callbacks.CSVLogger("log.csv")]
    if kind == "mlflow":
        import mlflow
        return [mlflow.keras.MlflowCallback()]
    if kind == "wandb":
        import wandb
        from wandb.integration.keras import WandbMetricsLogger
        wandb.init(mode="offline")
        return [WandbMetricsLogger(log_freq="batch")]
    if kind.startswith("mantik"):
        import mantik
        return [mantik.MantikCallback(log_freq="batch" if kind == "mantik-batch" else "epoch")]
    return []

x = numpy.random.default_rng(0).random((BATCHES * 64, 64), dtype="float32")
y = x[:, :10].argmax(1)

def fit(kind, epochs=EPOCHS):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(512, "relu"), keras.layers.Dense(512, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[*callback_of(kind), clock])
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].end_run()
    if "mantik" in sys.modules:
        # What one leaves behind is not to be sent while another one is timed.
        sys.modules["mantik"].flush(60)
    return [[end[0] - begin[0], end[1] - begin[1]] for begin, end in zip(clock.moments, clock.moments[1:])]

kinds = ("csv", "none", KIND)
[fit(kind, 1) for kind in kinds]
rows = []
for number in range(ROUNDS):
    found = {kind: fit(kind) for kind in (kinds if number % 2 else kinds[::-1])}
    rows += zip(*(found[kind] for kind in kinds))
print("FOUND", json.dumps(rows), flush=True)
"""


def callbacks(platform: Platform, home: str, peers: Path, rounds: int) -> tuple[list[Figure], list[Figure]]:
    """Time a batch of a training with each callback, and with `CSVLogger` and without one beside it.

    Args:
        platform: Where runs are begun and ended.
        home: mantik's home.
        peers: Python of an environment that has wandb; its callback is left out where it cannot be imported, as it
            needs TensorFlow.
        rounds: Trainings per figure; each of their epochs is a value.

    Returns:
        The time that has passed, and the time that processors were at work.
    """
    token = mantik.init_tracking().token
    passed: list[Figure] = []
    worked: list[Figure] = []
    with FaultProxy(platform.url) as proxy:
        answer = Status(200, "{}", headers={"Content-Type": "application/json"})
        proxy.fault(answer, path="/api/2.0/mlflow/runs/log-batch")
        durable = {**platform.environment(), "MLFLOW_TRACKING_URI": proxy.url, "MANTIK_HOME": home}
        stock = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_TRACKING_TOKEN": token}
        for kind, name, python, settings in (
            ("mlflow", "mlflow.keras.MlflowCallback, each epoch", sys.executable, stock),
            ("mantik-epoch", "MantikCallback, each epoch", sys.executable, durable),
            ("mantik-batch", "MantikCallback, each batch", sys.executable, durable),
            ("wandb", "WandbMetricsLogger, offline, each batch", str(peers.absolute()), {"WANDB_SILENT": "true"}),
        ):
            rows = _measure(python, kind, settings, rounds)
            names = (f"CSVLogger, beside {name}", f"no callback, beside {name}", name)
            for number, figures in enumerate((passed, worked)):
                columns = zip(*[[times[number] for times in row] for row in rows], strict=True)
                figures += [Figure(what, column).per(BATCHES) for what, column in zip(names, columns, strict=False)]
    return passed, worked


def _measure(python: str, kind: str, settings: Mapping[str, str], rounds: int) -> list[list[list[float]]]:
    """Return pairs of seconds by round and epoch: with `CSVLogger`, without a callback, and with the callback.

    Empty where the callback needs TensorFlow.

    Raises:
        RuntimeError: It could not be measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-c", TRAINING, kind, str(BATCHES), str(EPOCHS), str(rounds)],
            env={"PATH": os.environ["PATH"], "HOME": folder, **settings},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), None)
    if line is not None:
        rows: list[list[list[float]]] = json.loads(line.removeprefix("FOUND "))
        return rows
    if "No module named 'tensorflow'" in done.stderr:
        return []
    raise RuntimeError(f"{kind} could not be measured:\n{done.stderr[-3000:]}")
