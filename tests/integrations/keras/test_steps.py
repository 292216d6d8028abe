"""One axis of epochs over several fits, callbacks and processes, and one run over several attempts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import keras
import mlflow
import numpy as np
import pytest

from mantik import MantikCallback
from mantik.integrations.keras.axis import Axis, Mark
from tests.integrations.keras.trainings import run_of, said, steps
from tests.integrations.trainings import ended

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform
    from tests.integrations.arrivals import Arrived
    from tests.integrations.keras.trainings import KerasTrainings

BACKUP = """
model = net()
backup = keras.callbacks.BackupAndRestore("backup")
actions = [At(2, send(signal.SIGKILL))] if len(sys.argv) > 1 else []
fit(model, [MantikCallback(log_freq="batch"), *actions, backup], epochs=5)
"""


def net() -> keras.Model:
    """Return a model of a few weights."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def fit(callbacks: list[keras.callbacks.Callback], model: keras.Model | None = None, **options: object) -> None:
    """Train on two batches an epoch."""
    x = np.ones((4, 2), "float32")
    (model or net()).fit(x, x[:, :1], batch_size=2, verbose=0, callbacks=callbacks, **options)


@pytest.mark.parametrize(
    ("fits", "epochs", "batches"),
    [
        ([(0, 3), (0, 2)], [0, 1, 2, 3, 4], [0, 2, 4, 6, 8]),
        ([(0, 3), (3, 5)], [0, 1, 2, 3, 4], [0, 2, 4, 6, 8]),
        ([(0, 2), (0, 2), (2, 4)], [0, 1, 2, 3, 4, 5], [0, 2, 4, 6, 8, 10]),
        ([(4, 6)], [4, 5], [8, 10]),
        ([(0, 2), (1, 2)], [0, 1, 1], [0, 2, 4]),
    ],
)
def test_fits_in_one_process(fits: list[tuple[int, int]], epochs: list[int], batches: list[int]) -> None:
    """Epochs that Keras counts from 0 again follow on the last one; those of an initial epoch are kept."""
    axis = Axis(None)
    seen: list[int] = []
    starts: list[int] = []
    for first, end in fits:
        axis.begin_fit()
        for epoch in range(first, end):
            axis.begin_epoch(epoch, 2)
            starts.append(axis.batch(0))
            for batch in range(2):
                axis.begin_batch(batch, 1)
            seen.append(axis.epoch(epoch))
            axis.end_epoch(epoch)
    assert (seen, starts) == (epochs, batches)


@pytest.mark.parametrize(
    ("mark", "initial", "first", "epoch", "batch"),
    [
        (Mark(2, 6), None, 0, 3, 6),
        (Mark(2, 6), None, 2, 2, 4),
        (Mark(2, 6), 50, 0, 3, 50),
        (Mark(-1, 0), 50, 3, 3, 50),
    ],
)
def test_a_run_that_is_gone_on_with(  # what is known, and what comes of it
    mark: Mark, initial: int | None, first: int, epoch: int, batch: int
) -> None:
    """Epochs from 0 follow on what the run has, restored ones are kept; the first batch can be said."""
    axis = Axis(initial)
    axis.go_on_from(mark)
    axis.begin_fit()
    axis.begin_epoch(first, 2)
    assert (axis.epoch(first), axis.batch(0)) == (epoch, batch)


def test_another_callback_goes_on_with_the_epochs(arrived: Arrived) -> None:
    """A new callback for each fit in one run of the user's goes on where the one before has ended."""
    with mlflow.start_run() as run:
        for _ in range(3):
            fit([MantikCallback(log_freq="batch")], epochs=2)
        fit([MantikCallback(prefix="b")], epochs=1)
    assert arrived.steps(run.info.run_id, "loss") == list(range(6))
    assert arrived.steps(run.info.run_id, "batch/loss") == list(range(12))
    assert arrived.steps(run.info.run_id, "b-loss") == [0]


def test_a_run_of_another_day_goes_on_with_its_epochs(arrived: Arrived) -> None:
    """A run that was named, or that MLflow was told to go on with, is asked for its last epoch."""
    first = MantikCallback(log_freq="batch")
    fit([first], epochs=2)
    from mantik.integrations.keras import session

    session._marks.clear()  # noqa: SLF001  # as in another process
    second = MantikCallback(run_id=first.run_id, log_freq="batch")
    fit([second], epochs=2)
    session._marks.clear()  # noqa: SLF001
    with mlflow.start_run(run_id=first.run_id):
        fit([MantikCallback(log_freq="batch", initial_global_step=100)], epochs=1)
    assert arrived.steps(first.run_id, "loss") == [0, 1, 2, 3, 4]
    assert arrived.steps(first.run_id, "batch/loss") == [*range(8), 100, 101]
    run = arrived.run(first.run_id)
    assert (run.status, run.tags["mantik.attempt"]) == ("FINISHED", "2")
    assert run.params["epochs"] == "2"
    assert run.tags["mantik.param_drift"] == "epochs: 2 -> 1"
    assert {"hparams.yaml", "config/hparams-2.yaml"} <= set(arrived.artifacts(first.run_id))


def test_every_so_many_batches(arrived: Arrived) -> None:
    """Batches that Keras executes together are recorded when one of them is due."""
    callback, model = MantikCallback(log_freq=3), net()
    fit([callback], model, epochs=4)
    assert arrived.steps(callback.run_id, "batch/loss") == [0, 3, 6]


def test_a_restored_training_is_one_run(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A training that was killed and goes on from a backup of Keras's is the same run; every epoch is there once."""
    settings = mantik_platform.environment()
    first = torch_trainings.run(BACKUP, settings, tmp_path, "die", exit_code=-9)
    second = torch_trainings.run(BACKUP, settings, tmp_path)
    torch_trainings.sync(settings, tmp_path)
    assert second.run_id == first.run_id
    assert "goes on (attempt 2)" in second.output
    run = ended(mantik_platform, first.run_id, "FINISHED")
    # Killed after epoch 2 was recorded and before it was backed up: it is trained once more.
    assert steps(mantik_platform, run.run_id) == [0, 1, 2, 2, 3, 4]
    assert sorted(set(steps(mantik_platform, run.run_id, "batch/loss"))) == list(range(25))
    assert not (tmp_path / "backup").exists()


def test_a_training_from_a_checkpoint_is_one_run(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A script that loads a ModelCheckpoint's file and begins at an initial epoch goes on with the file's run."""
    code = """
        path = Path("kept/net.keras")
        begun = path.exists()
        model = keras.saving.load_model(path) if begun else net()
        callback = MantikCallback(resume=sys.argv[1])
        fit(model, [keras.callbacks.ModelCheckpoint(path), callback], initial_epoch=2 * begun, epochs=2 + 2 * begun)
    """
    settings = mantik_platform.environment()
    first, second = (torch_trainings.run(code, settings, tmp_path, "auto") for _ in range(2))
    other = torch_trainings.run(code, settings, tmp_path, "never")
    assert second.run_id == first.run_id
    assert steps(mantik_platform, first.run_id) == [0, 1, 2, 3]
    assert other.run_id != first.run_id
    assert run_of(mantik_platform, other).tags["mantik.started_from"] == first.run_id


def test_a_requeued_job_is_one_run(torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path) -> None:
    """The next attempt of a Slurm job goes on with its run, also where the training begins anew."""
    code = "fit(net(), [MantikCallback()], epochs=2)"
    job = {**mantik_platform.environment(), "SLURM_JOB_ID": "4711", "SLURM_CLUSTER_NAME": "here"}
    first = torch_trainings.run(code, job, tmp_path)
    second = torch_trainings.run(code, {**job, "SLURM_RESTART_COUNT": "1"}, tmp_path)
    assert second.run_id == first.run_id
    assert steps(mantik_platform, first.run_id) == [0, 1, 2, 3]


def test_a_backup_of_another_run_is_pointed_out(
    torch_trainings: KerasTrainings, mantik_platform: Platform, tmp_path: Path
) -> None:
    """Where the run was begun before the fit, it is said that the backup is another one's, and how to go on with it."""
    code = """
        backup = keras.callbacks.BackupAndRestore("backup", delete_checkpoint=False)
        fit(net(), [MantikCallback(), backup], epochs=1)
        with MantikCallback() as callback:
            fit(net(), [callback, backup], epochs=2)
        say(run=callback.run_id)
    """
    training = torch_trainings.run(code, mantik_platform.environment(), tmp_path)
    assert said(training)["run"] != training.run_id
    assert f"Give run_id='{training.run_id}' to go on with it." in training.output
    assert json.loads((tmp_path / "backup" / ".mantik-run.json").read_text())["checkpoints"]["."]
