"""How much of a Keras training's speed callbacks take, at each epoch and at each batch.

Each callback has a process of its own, in which the same training runs in turn with Keras's `CSVLogger`, without a
callback and with the callback in question, in the next round the other way round. Requests with points are answered by
a proxy at once: a platform on this machine would take the training's processors. Each epoch is a value, compared with
the same epoch of the same round: a machine that is disturbed for a second costs one value and not a round.

What one epoch takes differs by a tenth from the next where others use the machine. So what callbacks take is also
measured where it is taken: the time that passes in their hooks, and the processor time of all threads but the
training's, as if no processor were free for those. It is added to the median of what is left of all epochs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, TypeAlias

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

Fit: TypeAlias = tuple[float, list[tuple[float, float, float]]]
"""Seconds in hooks at begin and end, and by epoch: seconds that have passed, in hooks, and of other threads."""

TRAINING = """
import functools, json, os, sys, time
os.environ["KERAS_BACKEND"] = "torch"
import torch
torch.set_num_threads(1)
import keras, numpy

KIND, BATCHES, EPOCHS, ROUNDS = sys.argv[1], *map(int, sys.argv[2:5])

class Clock(keras.callbacks.Callback):
    # The time that has passed, that was spent in the hooks of other callbacks, and that other threads took.
    def __init__(self, others):
        super().__init__()
        self.moments, self.spent = [], 0.0
        for other in others:
            for name in [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]:
                setattr(other, name, self.timed(getattr(other, name)))
    def timed(self, hook):
        # With its attributes: Keras calls no hook of batches of which they say that it is the one that does nothing.
        @functools.wraps(hook)
        def call(*arguments, **named):
            begin = time.perf_counter()
            hook(*arguments, **named)
            self.spent += time.perf_counter() - begin
        return call
    def take(self):
        self.moments.append((time.perf_counter(), self.spent, time.process_time() - time.thread_time()))
    def on_train_begin(self, logs=None):
        self.take()
    def on_epoch_end(self, epoch, logs=None):
        self.take()

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
    callbacks = callback_of(kind)
    clock = Clock(callbacks)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[*callbacks, clock])
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].end_run()
    if "mantik" in sys.modules:
        # What one leaves behind is not to be sent while another one is timed.
        sys.modules["mantik"].flush(60)
    ends = clock.spent - clock.moments[-1][1] + clock.moments[0][1]
    return ends, [[after - before for before, after in zip(*pair)] for pair in zip(clock.moments, clock.moments[1:])]

kinds = ("csv", "none", KIND)
[fit(kind, 1) for kind in kinds]
fits = []
for number in range(ROUNDS):
    found = {kind: fit(kind) for kind in (kinds if number % 2 else kinds[::-1])}
    fits.append([found[kind] for kind in kinds])
print("FOUND", json.dumps(fits), flush=True)
"""


def callbacks(platform: Platform, home: str, peers: Path, rounds: int) -> dict[str, list[Figure]]:
    """Time a batch of a training with each callback, and with `CSVLogger` and without one beside it.

    Args:
        platform: Where runs are begun and ended.
        home: mantik's home.
        peers: Python of an environment that has wandb; its callback is left out where it cannot be imported, as it
            needs TensorFlow.
        rounds: Trainings per figure; each of their epochs is a value.

    Returns:
        Figures by what they are: the time that has passed, the training with what callbacks take, begin and end of it.
    """
    token = mantik.init_tracking().token
    passed: list[Figure] = []
    taken: list[Figure] = []
    ends: list[Figure] = []
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
            fits = _measure(python, kind, settings, rounds)
            if not fits:
                continue
            left = statistics.median(epoch[0] - epoch[1] for fit in fits for _, epochs in fit for epoch in epochs)
            names = (f"CSVLogger, beside {name}", f"no callback, beside {name}", name)
            for what, of_one in zip(names, zip(*fits, strict=True), strict=True):
                epochs = [epoch for _, epochs in of_one for epoch in epochs]
                passed.append(Figure(what, tuple(epoch[0] for epoch in epochs)).per(BATCHES))
                taken.append(Figure(what, tuple(left + epoch[1] + epoch[2] for epoch in epochs)).per(BATCHES))
            ends.append(Figure(name, tuple(fit[2][0] for fit in fits)))
    training = f"Training with Keras, {BATCHES} batches x {EPOCHS} epochs"
    return {
        f"{training} (per batch)": passed,
        f"{training} (per batch, by what callbacks take)": taken,
        "Begin and end of a training with Keras (per call of `fit`)": ends,
    }


def _measure(python: str, kind: str, settings: Mapping[str, str], rounds: int) -> list[list[Fit]]:
    """Return fits by round: with `CSVLogger`, without a callback, and with the callback.

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
        fits: list[list[Fit]] = json.loads(line.removeprefix("FOUND "))
        return fits
    if "No module named 'tensorflow'" in done.stderr:
        return []
    raise RuntimeError(f"{kind} could not be measured:\n{done.stderr[-3000:]}")
