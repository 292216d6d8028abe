"""Keras trainings that start in a second: forked from a process that has imported Keras, its backend and MLflow."""

from __future__ import annotations

import json
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tests.integrations.lightning.trainings import Training, Trainings
from tests.scripts import clean_environment, start_script

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.testing import Platform

__all__ = ["BACKENDS", "KerasTrainings", "points", "run_of", "said", "steps"]

BACKENDS = ["torch", "jax", *(["tensorflow"] if find_spec("tensorflow") is not None else [])]
"""Each is a process of its own: Keras chooses its backend when it is imported. TensorFlow is not for every Python."""

BATCHES = 5
"""Batches of an epoch of `fit`."""

_SCRIPT = '''
import json, os, signal, sys, time
from pathlib import Path

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


def send(number):
    return lambda: os.kill(os.getpid(), number)


def wait(name):
    """Say that this place is reached, and go on once the test says so."""
    Path(f"at-{name}").touch()
    end = time.monotonic() + 60
    while not Path(f"go-{name}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def say(**facts):
    print("SAID", json.dumps(facts), flush=True)
'''

_WARM = """
    import gc, json, os, sys

    exec(SCRIPT)
    import mlflow.keras
    import mantik.delivery.sync

    # Otherwise each child would look through all of that when it ends, and copy it for that.
    gc.collect()
    gc.freeze()
    print("WARM", flush=True)
    order = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "ask" in order:
            gone, status = os.waitpid(order["ask"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if gone else "", flush=True)
            continue
        child = os.fork()
        if child == 0:
            break
        print(child, flush=True)
    else:
        sys.exit()

    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = order["arguments"]
    exec(compile(order["code"], sys.argv[0], "exec"), {"__name__": "__main__"})
    """


class KerasTrainings(Trainings):
    """The warmed-up process of one backend.

    Args:
        backend: Keras's backend.
        folder: Its home.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend = backend
        self._folder = folder
        self._started: list[Training] = []
        outside = {name: value for name, value in clean_environment({}, folder).items() if "SLURM" not in name}
        self._outside = {**outside, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": backend}
        self._process = start_script(f"SCRIPT = {_SCRIPT!r}\n" + textwrap.dedent(_WARM), self._outside, folder)
        heard = ""
        while not heard.endswith("WARM\n"):
            line = self._said()
            assert line, heard
            heard += line

    def start(
        self, code: str, settings: Mapping[str, str], folder: Path, *arguments: str, home: Path | None = None
    ) -> Training:
        """Start a training; the arguments are those of `Trainings.start`."""
        folder.mkdir(parents=True, exist_ok=True)
        home = home or folder
        own = {"HOME": str(home), "MANTIK_HOME": str(home / ".mantik"), "MPLCONFIGDIR": str(home / "matplotlib")}
        output = self._folder / f"output-{len(self._started)}"
        order = {
            "code": _SCRIPT + textwrap.dedent(code),
            "environment": {**self._outside, **own, **settings},
            "folder": str(folder),
            "arguments": ["train.py", *arguments],
            "output": str(output),
        }
        training = Training(self, int(self._ask(order)), folder, output)
        self._started.append(training)
        return training


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
