"""Checkpoints: when they are saved, what is uploaded of them, and what they are good for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest

from mantik import MantikCallback
from tests.integrations.keras.networks import fit, net
from tests.integrations.keras.test_models import Scores, logged, same

if TYPE_CHECKING:
    from mantik.testing import Platform
    from tests.integrations.arrivals import Arrived
    from tests.integrations.keras.trainings import KerasTrainings


def folder(callback: MantikCallback) -> Path:
    """Return where a callback saves."""
    return Path("keras_logs", str(callback.experiment_id), str(callback.run_id), "checkpoints")


def about(arrived: Arrived, callback: MantikCallback) -> dict[str, dict[str, Any]]:
    """Return what the platform's index says of each checkpoint, by alias."""
    listed = arrived.yaml(callback.run_id, "checkpoints/index.yaml")["checkpoints"]
    return {alias: one for one in listed for alias in one["aliases"]}


def test_best_and_last(arrived: Arrived) -> None:
    """Each epoch is saved as the last, the best one besides; both are here and on the platform, and load back."""
    kept, model = Scores(1, 3, 2), net()
    callback = MantikCallback(save_freq="epoch", monitor="val_score", mode="max")
    fit([kept, callback], model, epochs=3)
    for alias, epoch in (("best", 1), ("last", 2)):
        loaded = keras.saving.load_model(folder(callback) / f"{alias}.keras")
        assert all(np.array_equal(*pair) for pair in zip(loaded.get_weights(), kept.weights[epoch], strict=True))
        stored = arrived.content(callback.run_id, f"checkpoints/{alias}/{alias}.keras")
        assert stored == (folder(callback) / f"{alias}.keras").read_bytes()
    told = about(arrived, callback)
    assert {alias: (one["epoch"], one["global_step"], one["score"]) for alias, one in told.items()} == {
        "best": (1, 10, 3.0),
        "last": (2, 15, None),
    }
    assert sorted(path.name for path in folder(callback).iterdir()) == [".mantik-run.json", "best.keras", "last.keras"]


def test_the_best_alone(arrived: Arrived) -> None:
    """With `save_best_only` the last one is not saved; weights alone have their own suffix, and load back."""
    kept = Scores(2, 1, 3)
    callback = MantikCallback(save_best_only=True, save_weights_only=True, monitor="val_score", mode="min")
    fit([kept, callback], epochs=3)
    assert [path.name for path in folder(callback).glob("[!.]*")] == ["best.weights.h5"]
    model = net()
    model.load_weights(folder(callback) / "best.weights.h5")
    assert all(np.array_equal(*pair) for pair in zip(model.get_weights(), kept.weights[1], strict=True))
    assert about(arrived, callback)["best"]["file"] == "checkpoints/best/best.weights.h5"


@pytest.mark.parametrize(("freq", "moments"), [(2, [2, 4, 6, 8, 10]), (3, [3, 6, 9]), (7, [7])])
def test_every_so_many_batches(freq: int, moments: list[int], arrived: Arrived) -> None:
    """With a number the model is saved after so many batches, and in the middle of an epoch as it is then."""
    seen: list[int] = []

    class Watching(MantikCallback):
        """Looks at what was saved last before each batch."""

        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_train_batch_begin(batch, logs)
            self._look()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_epoch_end(epoch, logs)
            self._look()

        def _look(self) -> None:
            path = folder(self) / "last.keras"
            iterations = int(keras.saving.load_model(path).optimizer.iterations) if path.exists() else 0
            if iterations and iterations not in seen:
                seen.append(iterations)

    fit([Watching(save_freq=freq, log_freq=1)])
    arrived.runs()
    assert seen == moments


def test_model_checkpoint_callbacks(arrived: Arrived) -> None:
    """With `callbacks` the files of the user's own ModelCheckpoints are uploaded, several of them, and nothing else."""
    kept = Scores(1, 3, 2)
    callback = MantikCallback(save_freq="callbacks")
    own = [
        keras.callbacks.ModelCheckpoint("all/net-{epoch:02d}.keras"),
        keras.callbacks.ModelCheckpoint("kept/best.weights.h5", "val_score", 0, True, True, "max"),  # noqa: FBT003
    ]
    Path("all").mkdir()
    net().save("all/net-99.keras")
    fit([callback, kept, *own], epochs=2)
    fit([callback, kept, *own], epochs=3, initial_epoch=2)
    files = [path for path in arrived.artifacts(callback.run_id, "checkpoints") if path.endswith((".keras", ".h5"))]
    assert files == [
        *(f"checkpoints/all/net-0{epoch}/net-0{epoch}.keras" for epoch in (1, 2, 3)),
        "checkpoints/kept/best/best.weights.h5",
    ]
    told = about(arrived, callback)
    assert told["last"]["file"] == "checkpoints/all/net-03/net-03.keras"
    assert (told["best"]["file"], told["best"]["score"]) == ("checkpoints/kept/best/best.weights.h5", 3.0)
    assert not Path("keras_logs").exists()


def test_nothing_is_uploaded_that_was_not_asked_for(arrived: Arrived) -> None:
    """By default nothing is saved, and of the user's own ModelCheckpoints nothing is uploaded."""
    callback = MantikCallback()
    fit([callback, keras.callbacks.ModelCheckpoint("net.keras")])
    assert arrived.artifacts(callback.run_id) == ["hparams.yaml", "model.json", "model_summary.txt"]
    assert not Path("keras_logs").exists()


def test_a_later_attempt_keeps_the_best(arrived: Arrived) -> None:
    """A resumed run's best checkpoint is replaced only by a better one."""
    options: dict[str, Any] = {"save_freq": "epoch", "monitor": "val_score", "mode": "max", "log_model": "best"}
    first, kept = MantikCallback(**options), Scores(1, 5)
    fit([kept, first])
    second = MantikCallback(run_id=first.run_id, **options)
    model = net()
    fit([Scores(3, 4), second], model, batch_size=5)
    told = about(arrived, first)
    assert (told["best"]["score"], told["best"]["epoch"]) == (5.0, 1)
    assert told["last"]["epoch"] == 3
    assert same(logged(arrived, second).get_weights(), kept.weights[1])
    assert not same(model.get_weights(), kept.weights[1])


def test_a_working_directory_that_cannot_be_written(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """Checkpoints are saved elsewhere then, which is said, and uploaded as ever; the training is unharmed."""
    code = """
        os.chdir("/proc")
        fit(net(), [MantikCallback(save_freq="epoch")], epochs=2)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert training.output.count("The working directory cannot be written") == 1
    assert "checkpoints/last/last.keras" in mantik_platform.read_back.artifacts(training.run_id)


def test_a_checkpoint_that_cannot_be_written(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint that cannot be saved costs a warning, and the checkpoint before stays whole."""
    callback, model = MantikCallback(save_freq="epoch"), net()
    fit([callback], model, epochs=1)
    whole = (folder(callback) / "last.keras").read_bytes()
    (folder(callback) / ".half-last.keras").mkdir()
    fit([callback], model, epochs=1)
    assert "The state of the model after the epoch is not kept: " in caplog.text
    assert (folder(callback) / "last.keras").read_bytes() == whole
    assert arrived.steps(callback.run_id, "loss") == [0, 1]
