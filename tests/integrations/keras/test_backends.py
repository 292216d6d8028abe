"""The same trainings on every backend."""

from __future__ import annotations

import json
import shutil
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integrations.keras.trainings import BACKENDS, points, said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.keras.trainings import KerasTrainings
    from tests.integrations.trainings import Training

TRAINING = """
images = RNG.random((24, 8, 8, 1)).astype("float32")
digits = RNG.integers(0, 3, 24)
keras.utils.set_random_seed(1)
model = keras.Sequential([
    keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, activation="relu"), keras.layers.Flatten(),
    keras.layers.Dense(3, activation="softmax"),
], name="digits")
rate = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5, staircase=True)
model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
callback = MantikCallback(
    "kinds", run_name="digits", log_freq=2, save_freq="epoch", save_weights_only=True, log_model="best",
    monitor="val_accuracy", registered_model_name=f"digits-{keras.backend.backend()}", log_evaluation=True,
)
options = {"batch_size": 8, "verbose": 0, "callbacks": [callback], "validation_data": (images[:10], digits[:10])}
first = model.fit(images, digits, epochs=3, **options)
outcome = model.predict(images, verbose=0)
second = model.fit(images, digits, epochs=2, **options)
tested = model.evaluate(images, digits, verbose=0, return_dict=True, callbacks=[callback])
model.predict(images, verbose=0, callbacks=[callback])
logs = {name: first.history[name] + second.history[name] for name in first.history}

with MantikCallback("kinds", run_name="loop") as loop:
    for number in range(3):
        loop.log_metrics(net().train_on_batch(X, Y, return_dict=True), step=number)

caught = MantikCallback("kinds", run_name="caught")
try:
    fit(net(), [caught, At(1, fail)], epochs=3)
except ValueError:
    pass
status = mlflow.MlflowClient().get_run(caught.run_id).info.status

mantik.flush(60)
best = max(range(5), key=lambda epoch: (logs["val_accuracy"][epoch], -epoch))
loaded = mlflow.keras.load_model(f"models:/digits-{keras.backend.backend()}/1")
say(
    logs=logs, tested=tested, run=callback.run_id, loop=loop.run_id, status=status, best=best,
    accuracy=[float((loaded.predict(images, verbose=0).argmax(axis=1)[:10] == digits[:10]).mean())],
    backend=keras.backend.backend(), imported=sorted({"jax", "tensorflow", "torch"} & set(sys.modules)),
)
"""

# Each process trains by itself between the two meetings: what is asked here is who records.
CONNECTED = {
    "torch": """
import torch
torch.distributed.init_process_group("gloo", init_method=f"tcp://{ADDRESS}", rank=RANK, world_size=2)
""",
    "jax": """
keras.distribution.initialize(ADDRESS, num_processes=2, process_id=RANK)
import jax
assert jax.process_count() == 2
""",
    "tensorflow": "os.environ.update(RANK=str(RANK), WORLD_SIZE='2')\n",
}
CONNECTED_TRAINING = """
callback = MantikCallback("EXPERIMENT", log_freq="batch", save_freq="epoch", log_model=True, log_evaluation=True)
with callback:
    model = net()
    fit(model, [callback], epochs=2, validation_data=(X, Y))
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    callback.log_params({"mine": 1})
    callback.log_metrics({"own": 1.0})
say(run=callback.run_id, experiment=callback.experiment_id, link=callback.link)
"""

EXPECTED = (
    *("mantik: run", "  http", "🏃 View run", "🧪 View experiment", "SAID", "Downloading artifacts"),
    *("Successfully registered", "Registered model", "Created version"),
)
"""What is said where all is well; most of it by MLflow."""

FIRST_EPOCHS = 3
EPOCHS = 5
STEPS = 3


class Seen:
    """What one backend's training has said, and what is on the platform of it."""

    def __init__(self, platform: Platform, training: Training) -> None:
        self.platform = platform
        self.output = training.output
        self.facts: dict[str, Any] = said(training)
        self.run: Run = platform.read_back.run(self.facts["run"])

    def points(self, key: str) -> list[tuple[int, float]]:
        """Return step and value of each point of a metric."""
        return points(self.platform, self.run.run_id, key)

    def content(self, path: str) -> str:
        """Return the content of one of the run's files."""
        return self.platform.read_back.download(self.run.run_id, path).decode()


@pytest.fixture(scope="module", params=BACKENDS)
def seen(
    request: pytest.FixtureRequest,
    trainings_on: Callable[[str], KerasTrainings],
    mantik_platform: Platform,
    tmp_path_factory: pytest.TempPathFactory,
) -> Seen:
    """Train with all that there is, once on each backend."""
    folder = tmp_path_factory.mktemp("training")
    training = trainings_on(request.param).run(TRAINING, mantik_platform.environment(), folder)
    return Seen(mantik_platform, training)


def test_metrics_of_epochs(seen: Seen) -> None:
    """Training and validation are on one axis of epochs, which goes on over the second fit, with Keras's values."""
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert seen.points(name) == list(enumerate(seen.facts["logs"][name]))
    assert seen.facts["backend"] == seen.run.params["backend"]
    assert [step for step, _ in seen.points("epoch_time")] == list(range(EPOCHS))
    assert all(value > 0 for key in ("epoch_time", "samples_per_second") for _, value in seen.points(key))


def test_learning_rate(seen: Seen) -> None:
    """The learning rate of a schedule is that of the next batch at the end of an epoch, and each batch's own."""
    rates = [rate for _, rate in seen.points("learning_rate")]
    assert rates == pytest.approx([0.1 * 0.5 ** (epoch + 1) for epoch in range(EPOCHS)])
    batches = seen.points("batch/learning_rate")
    assert [rate for _, rate in batches] == pytest.approx([0.1 * 0.5 ** (step // STEPS) for step, _ in batches])


def test_metrics_of_batches(seen: Seen) -> None:
    """Every second batch has its metrics, at its number over both fits; an epoch's last one has the epoch's."""
    batches = dict(seen.points("batch/loss"))
    assert list(batches) == list(range(0, EPOCHS * STEPS, 2))
    epochs = dict(seen.points("loss"))
    ends = [(step, step // STEPS) for step in batches if step % STEPS == STEPS - 1]
    assert [batches[step] for step, _ in ends] == pytest.approx([epochs[epoch] for _, epoch in ends], rel=1e-5)


def test_evaluate_and_predict(seen: Seen) -> None:
    """What `evaluate` finds is at the last epoch, by names of its own; `predict` leaves its time, and nothing else."""
    for name, value in seen.facts["tested"].items():
        assert seen.points(f"test_{name}") == [(EPOCHS - 1, value)]
    assert [step for step, _ in seen.points("predict_time")] == [EPOCHS - 1]
    assert not [name for name in seen.run.metrics if name.startswith("validation_")]


def test_params(seen: Seen) -> None:
    """Optimizer and schedule, loss, metrics, fit and model are params."""
    wanted = {
        "optimizer_name": "SGD",
        "optimizer_momentum": "0.0",
        "optimizer_learning_rate/class_name": "ExponentialDecay",
        "optimizer_learning_rate/decay_rate": "0.5",
        "loss": "sparse_categorical_crossentropy",
        "metrics": "['accuracy']",
        "epochs": str(FIRST_EPOCHS),
        "batch_size": "8",
        "steps": str(STEPS),
        "dtype_policy": "float32",
        "total_params": "239",
        "trainable_params": "239",
    }
    assert seen.run.params.items() >= wanted.items()
    assert seen.run.tags["mantik.param_drift"] == "epochs: 3 -> 2"


def test_files(seen: Seen) -> None:
    """Architecture, summary and whole configuration are among the files; a picture, where it can be made."""
    assert json.loads(seen.content("model.json"))["config"]["name"] == "digits"
    summary = seen.content("model_summary.txt")
    assert 'Model: "digits"' in summary
    assert "219" in summary
    drawn = find_spec("pydot") is not None and shutil.which("dot") is not None
    assert ("model.png" in seen.platform.read_back.artifacts(seen.run.run_id)) == drawn
    assert yaml.safe_load(seen.content("hparams.yaml"))["compile"]["optimizer"]["config"]["learning_rate"]


def test_checkpoints(seen: Seen) -> None:
    """The weights of the best and of the last epoch are uploaded, and tags name them."""
    best = max(seen.points("val_accuracy"), key=lambda point: (point[1], -point[0]))
    index = yaml.safe_load(seen.content("checkpoints/index.yaml"))["checkpoints"]
    found = {one["aliases"][0]: (one["epoch"], one["global_step"], one["score"]) for one in index}
    assert found == {"last": (4, 15, None), "best": (best[0], (best[0] + 1) * STEPS, best[1])}
    tagged = {alias: seen.run.tags[f"mantik.checkpoint.{alias}"] for alias in ("best", "last")}
    assert tagged == {alias: f"checkpoints/{alias}/{alias}.weights.h5" for alias in ("best", "last")}
    assert set(tagged.values()) <= set(seen.platform.read_back.artifacts(seen.run.run_id))


def test_best_model(seen: Seen) -> None:
    """The registered model loads back and has the accuracy of the best epoch of its fit; it has a signature."""
    best = max(seen.facts["logs"]["val_accuracy"][:FIRST_EPOCHS])
    assert seen.facts["accuracy"] == [pytest.approx(best)]
    (model,) = [
        model
        for model in seen.platform.read_back.registered_models()
        if model.name == f"digits-{seen.facts['backend']}"
    ]
    assert len(model.versions) == 2


def test_evaluation(seen: Seen) -> None:
    """A table of predictions, a confusion matrix and a picture of some samples are there after each fit."""
    files = seen.platform.read_back.artifacts(seen.run.run_id)
    for step in (2, 4):
        table = json.loads(seen.content(f"tables/evaluation/step-{step:08d}.json"))
        assert table["columns"] == ["sample", "target", "prediction", "confidence", "correct"]
        assert len(table["data"]) == 10
        for name in ("confusion_matrix", "samples"):
            assert f"figures/evaluation/{name}/step-{step:08d}.png" in files


def test_datasets(seen: Seen) -> None:
    """Training and validation data are recorded with their shapes, and the same data have the same digest."""
    inputs = seen.platform.read_back._call("GET", "runs/get", {"run_id": seen.run.run_id})["run"]["inputs"]  # noqa: SLF001
    found = {one["tags"][0]["value"]: one["dataset"] for one in inputs["dataset_inputs"]}
    assert set(found) == {"train", "validation"}
    assert {name: json.loads(one["profile"])["features"][0]["shape"] for name, one in found.items()} == {
        "train": [24, 8, 8, 1],
        "validation": [10, 8, 8, 1],
    }
    assert len(inputs["dataset_inputs"]) == 2


def test_statuses(seen: Seen) -> None:
    """A fit that fails and is caught is FAILED at once, a loop of one's own FINISHED with its points."""
    assert seen.facts["status"] == "FAILED"
    ended(seen.platform, seen.run.run_id, "FINISHED")
    ended(seen.platform, seen.facts["loop"], "FINISHED")
    assert steps(seen.platform, seen.facts["loop"]) == [0, 1, 2]


def test_nothing_is_complained_about(seen: Seen) -> None:
    """Nothing is said but where the runs are, and that the second fit has other params."""
    lines = [line for line in seen.output.splitlines() if line and not line.startswith(EXPECTED)]
    assert [line.partition(": epochs: 3 -> 2")[0] for line in lines] == [
        "Hyper-parameters differ from those that the run has, which MLflow does not change"
    ]


def test_no_other_backend_is_imported(seen: Seen) -> None:
    """Of torch, JAX and TensorFlow a training with all that there is imports none but those that Keras imports."""
    # Keras imports JAX for one of its callbacks, whatever its backend is.
    assert {seen.facts["backend"]} <= set(seen.facts["imported"]) <= {seen.facts["backend"], "jax"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_learning_rates_of_batches(
    trainings_on: Callable[[str], KerasTrainings], mantik_platform: Platform, tmp_path: Path, backend: str
) -> None:
    """A schedule with a condition in it, accumulated gradients and scaled losses have Keras's rate at each batch."""
    code = """
        rate = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.5, warmup_steps=4)
        inner = keras.optimizers.SGD(rate, gradient_accumulation_steps=2)
        model = net()
        model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0), "sparse_categorical_crossentropy")
        fit(model, [MantikCallback(log_freq="batch")], epochs=2)
        say(batches=[float(rate(batch)) for batch in range(10)], epochs=[float(rate(5)), float(rate(10))])
    """
    training = trainings_on(backend).run(code, mantik_platform.environment(), tmp_path)
    found = [rate for _, rate in points(mantik_platform, training.run_id, "batch/learning_rate")]
    assert found == pytest.approx(said(training)["batches"], abs=1e-6)
    epochs = [rate for _, rate in points(mantik_platform, training.run_id, "learning_rate")]
    assert epochs == pytest.approx(said(training)["epochs"], abs=1e-6)


def test_batches_that_run_together(
    trainings_on: Callable[[str], KerasTrainings], mantik_platform: Platform, tmp_path: Path
) -> None:
    """Where Keras executes several batches at once, they are recorded and saved when any of them is due."""
    code = """
        def train(callbacks):
            model = net()
            model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=2)
            fit(model, callbacks, epochs=3)
            return model

        callback = MantikCallback(log_freq=3, save_freq=4)
        alone, tracked = train([]), train([callback])
        (path,) = Path("keras_logs").rglob("last.keras")
        weights = zip(alone.get_weights(), tracked.get_weights())
        say(saved=int(keras.saving.load_model(path).optimizer.iterations), same=all((a == b).all() for a, b in weights))
    """
    training = trainings_on("jax").run(code, mantik_platform.environment(), tmp_path)
    # JAX keeps the model's state to itself in the middle of an epoch: it is taken from there, and training goes on.
    assert said(training) == {"saved": 12, "same": True}
    # Two at once, and one alone at the end: (0, 1) (2, 3) (4) | (5, 6) (7, 8) (9) | (10, 11) (12, 13) (14)
    assert steps(mantik_platform, training.run_id, "batch/loss") == [1, 3, 6, 9, 13]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rank_zero_writes(
    backend: str, trainings_on: Callable[[str], KerasTrainings], mantik_platform: Platform, tmp_path: Path
) -> None:
    """Of two connected processes the first one's metrics and files are recorded, once; the other knows no run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    experiment = f"two-{backend}"
    code = CONNECTED[backend] + CONNECTED_TRAINING.replace("EXPERIMENT", experiment)
    trainings = [
        trainings_on(backend).start(
            f"ADDRESS, RANK = {address!r}, {rank}\n{code}", mantik_platform.environment(), tmp_path / str(rank)
        )
        for rank in range(2)
    ]
    for training in trainings:
        training.end()
    first, second = map(said, trainings)
    assert second == {"run": None, "experiment": None, "link": ""}
    (run,) = mantik_platform.read_back.runs(experiment)
    assert first["run"] == ended(mantik_platform, run.run_id, "FINISHED").run_id
    assert steps(mantik_platform, run.run_id) == [0, 1]
    assert steps(mantik_platform, run.run_id, "batch/loss") == list(range(10))
    assert "mantik: run" not in trainings[1].output
    assert not (tmp_path / "1" / "keras_logs").exists()
